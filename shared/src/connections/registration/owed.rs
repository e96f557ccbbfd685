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
        let (true, Some(ghost), Some(victim)) = (only, ghost, victim) else {
            tracing::error!(
                alarm = "deletion_refused",
                "SnapTrade does not let an id go; its place stays taken"
            );
            return self.give_up(Refusal::Snaptrade(fault), context);
        };
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
        // One other may be asked to give way, where the refusal was about this id and not about us.
        let about_the_id = fault == Fault::Error && self.evictions == 0;
        self.evictions += 1;
        if about_the_id && timing::may_call(Timestamp::MAX, context.deadline, context.now) {
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
