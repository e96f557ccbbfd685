//! Having SnapTrade accept what a place owes, and undoing an eviction that it refuses.

use super::*;

impl Registration {
    pub(super) fn clear(&mut self, context: &mut Context<'_>) -> Step {
        let Some(place) = &self.place else {
            return Self::refuse(Refusal::Busy);
        };
        let owed = place.uncleared();
        if owed.is_empty() {
            return self.cleared(context);
        }
        let mut clearing = Clearing::new(&owed, place.until());
        let next = clearing.advance(Input::Begin, context);
        self.clearing(clearing, next, context)
    }

    pub(super) fn clearing(
        &mut self,
        clearing: Clearing,
        next: Next<Cleared>,
        context: &mut Context<'_>,
    ) -> Step {
        match next {
            Next::Do(effect) => self.go(Phase::Clearing(Box::new(clearing)), effect),
            Next::Done(Cleared::All { .. }) => {
                if let Some(place) = &mut self.place {
                    place.cleared = place.owed().iter().cloned().collect();
                }
                self.cleared(context)
            }
            Next::Done(Cleared::Refused {
                upstream,
                fault,
                uncertain: false,
            }) => self.undo(&upstream, fault, context),
            Next::Done(Cleared::Refused { fault, .. } | Cleared::Unsettled(fault)) => {
                self.give_up(Refusal::Snaptrade(fault), context)
            }
        }
    }

    /// Puts the one who was to give way back: SnapTrade has refused the deletion, and nobody else may have sent it.
    pub(super) fn undo(&mut self, upstream: &UpstreamId, fault: Fault, context: &mut Context<'_>) -> Step {
        let Some(place) = &self.place else {
            return Self::refuse(Refusal::Busy);
        };
        let only = place.owed() == [upstream.clone()];
        let ghost = place
            .ghosts
            .iter()
            .find(|ghost| ghost.upstream == *upstream)
            .cloned();
        let victim = ghost.as_ref().and_then(|ghost| ghost.was.as_deref().cloned());
        let refused_at = deletion_refused(upstream, &fault, context.now);
        // A user's own older incarnation is replaced in its own place or not at all.
        let replaced = upstream.stem() == self.stem
            && ghost
                .as_ref()
                .is_some_and(|ghost| ghost.by == self.author.attempt);
        let (true, Some(ghost), Some(mut victim)) = (only, ghost, victim) else {
            return match refused_at {
                Some(at) if !replaced => self.set_aside(upstream, at, fault, context),
                _ => {
                    if let Some(place) = &mut self.place {
                        place.refused_at = refused_at;
                    }
                    self.give_up(Refusal::Snaptrade(fault), context)
                }
            };
        };
        match &mut victim {
            Holder::User(user) => user.refused_at = refused_at,
            Holder::Foreign(foreign) => foreign.refused_at = refused_at,
        }
        let record_rev = place.record.rev;
        let mut writes = vec![
            Write::Ghost {
                upstream: upstream.clone(),
                expect: Expect::Revision(ghost.rev),
                becomes: Change::Gone,
            },
            Write::User {
                stem: self.stem.clone(),
                expect: Expect::Revision(record_rev),
                becomes: Change::Gone,
            },
            restore(&victim),
        ];
        if self.wish.intent == Intent::Hold {
            writes.push(Write::Hold {
                stem: self.stem.clone(),
                becomes: Change::Gone,
            });
        }
        // Nobody gave way after all, so the one before stands there again.
        let before = self.slots.as_ref().and_then(|slots| slots.last_eviction.clone());
        let slots = Transition::of(0).releasing(&self.stem).noting(before);
        let audit = vec![
            self.author.audit(
                &self.stem,
                "place.undone",
                &[("restored", victim.shown_user_id())],
            ),
            self.author.audit(&victim.stem(), "user.restored", &[]),
        ];
        let commit = self.author.commit("undo", context.now, slots, writes, audit);
        self.excluded.insert(upstream.clone());
        self.go(Phase::Undoing(fault), Effect::Commit(commit))
    }

    /// Leaves a place that cannot be cleared to the sync, with all that it owes, under a name of its own: its user can
    /// have another place, and newcomers are not held up by it. The place stays taken until SnapTrade lets the id go,
    /// so nobody gets a place that is not free.
    pub(super) fn set_aside(
        &mut self,
        upstream: &UpstreamId,
        refused_at: Timestamp,
        fault: Fault,
        context: &mut Context<'_>,
    ) -> Step {
        let Some(place) = self.place.as_ref().filter(|place| !place.sent) else {
            return self.give_up(Refusal::Snaptrade(fault), context);
        };
        let aside = Stem::set_aside(upstream);
        let named = UserId::parse(upstream.shown_user_id()).or_else(|_| UserId::parse(aside.as_str()));
        let Ok(user_id) = named else {
            return self.give_up(Refusal::Snaptrade(fault), context);
        };
        let owed = place.uncleared();
        let reservation = Reservation {
            kind: ReservationKind::Leave,
            attempt: self.author.attempt.clone(),
            upstream: None,
            until: Timestamp::UNIX_EPOCH,
            held_until: None,
            after: owed.clone(),
            refused_at: Some(refused_at),
        };
        let held = reservation.held_place();
        let record = UserRecord {
            user_id,
            stem: aside.clone(),
            rev: self.author.attempt.first_revision(),
            created_at: place.record.created_at,
            protected: false,
            refused_at: None,
            state: UserState::Reserved(reservation),
        };
        let mut writes = place.accepted_ghosts(context.now);
        for ghost in place.ghosts.iter().filter(|ghost| owed.contains(&ghost.upstream)) {
            let kept = Ghost {
                rev: ghost.rev + 1,
                waits: Some(aside.clone()),
                was: None,
                refused_at: if ghost.upstream == *upstream {
                    Some(refused_at)
                } else {
                    ghost.refused_at
                },
                ..ghost.clone()
            };
            writes.push(put_ghost(ghost.rev, &kept));
        }
        writes.push(Write::User {
            stem: self.stem.clone(),
            expect: Expect::Revision(place.record.rev),
            becomes: Change::Gone,
        });
        writes.push(Write::User {
            stem: aside.clone(),
            expect: Expect::Absent,
            becomes: Change::Put(Box::new(record)),
        });
        if self.wish.intent == Intent::Hold {
            writes.push(Write::Hold {
                stem: self.stem.clone(),
                becomes: Change::Gone,
            });
        }
        let slots = Transition::of(0).releasing(&self.stem).holding(&aside, held);
        let detail = [("upstream_id", upstream.as_str())];
        let audit = vec![self.author.audit(&self.stem, "place.set_aside", &detail)];
        let commit = self.author.commit("aside", context.now, slots, writes, audit);
        self.excluded.insert(upstream.clone());
        self.go(Phase::SettingAside(fault), Effect::Commit(commit))
    }

    pub(super) fn undone(
        &mut self,
        fault: Fault,
        outcome: &CommitOutcome,
        context: &mut Context<'_>,
    ) -> Step {
        if *outcome != CommitOutcome::Won {
            return self.give_up(Refusal::Snaptrade(fault), context);
        }
        self.place = None;
        self.eviction = None;
        self.kept_by_snaptrade = Some(fault.clone());
        self.kept += 1;
        // Others may be asked to give way, where the refusal was about this id and not about us.
        if fault == Fault::Error
            && self.kept < MAX_KEPT
            && timing::may_call(Timestamp::MAX, context.deadline, context.now)
        {
            // A new reservation is a new attempt: its id has to be fresh.
            let actor = self.author.actor.clone();
            self.author = Author::new((context.draw)(), actor).counting(self.wish.counts);
            return self.look();
        }
        Self::refuse(Refusal::Snaptrade(fault))
    }

    pub(super) fn cleared(&mut self, context: &mut Context<'_>) -> Step {
        let Some(place) = &self.place else {
            return Self::refuse(Refusal::Busy);
        };
        if self.wish.intent == Intent::Hold {
            if place.owed().is_empty() {
                return self.held(place.until());
            }
            return self.settle(place.until(), context);
        }
        self.enrol(context)
    }

    pub(super) fn held(&self, until: Timestamp) -> Step {
        let in_use = self.slots.as_ref().map_or(0, |slots| slots.in_use);
        Next::Done(Ok(Granted::Held {
            until: Some(until),
            eviction: self.eviction.clone(),
            in_use,
        }))
    }

    /// Notes that the place owes nothing any more and waits for its user until `until`.
    pub(super) fn settle(&mut self, until: Timestamp, context: &Context<'_>) -> Step {
        let Some(place) = &self.place else {
            return Self::refuse(Refusal::Busy);
        };
        let reservation = Reservation {
            kind: ReservationKind::Hold,
            attempt: self.author.attempt.clone(),
            upstream: None,
            until,
            held_until: None,
            after: Vec::new(),
            refused_at: None,
        };
        let held = reservation.held_place();
        let record = UserRecord {
            rev: place.record.rev + 1,
            state: UserState::Reserved(reservation),
            ..place.record.clone()
        };
        let mut writes = place.accepted_ghosts(context.now);
        writes.push(Write::User {
            stem: self.stem.clone(),
            expect: Expect::Revision(place.record.rev),
            becomes: Change::Put(Box::new(record)),
        });
        let slots = Transition::of(0).holding(&self.stem, held);
        let audit = vec![self.author.audit(&self.stem, "place.held", &[])];
        let commit = self.author.commit("settle", context.now, slots, writes, audit);
        let next = if self.wish.intent == Intent::Hold {
            Phase::Settling
        } else {
            Phase::Ending(Refusal::DeletionPending { retry_after: 10 })
        };
        self.go(next, Effect::Commit(commit))
    }

    pub(super) fn settled(&self, outcome: &CommitOutcome) -> Step {
        match (&self.place, outcome) {
            (Some(place), CommitOutcome::Won) => self.held(place.until()),
            // The place may have been taken meanwhile; the caller finds out by asking again.
            _ => Self::refuse(Refusal::Busy),
        }
    }
}
