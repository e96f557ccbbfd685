//! The ways to a place, each one reservation: a free place, the user's own from before, one whose holder ran out of
//! time, one that a stranger's id stands in, or that of a user who gives way.

use super::entering::expired_place;
use super::*;

impl Registration {
    /// A reservation of this attempt that owes `after`.
    pub(super) fn reservation(&self, after: Vec<UpstreamId>, context: &mut Context<'_>) -> UserRecord {
        let (kind, upstream, until) = match self.wish.intent {
            Intent::Hold => (ReservationKind::Hold, None, timing::after(context.now, HOLD)),
            Intent::Register | Intent::Recreate => (
                ReservationKind::Register,
                Some(UpstreamId::mint(&self.stem, &self.author.attempt)),
                timing::after(context.now, LEASE),
            ),
        };
        UserRecord {
            user_id: self.wish.user.clone(),
            stem: self.stem.clone(),
            rev: self.author.attempt.first_revision(),
            created_at: context.now,
            protected: false,
            refused_at: None,
            state: UserState::Reserved(Reservation {
                kind,
                attempt: self.author.attempt.clone(),
                upstream,
                until,
                held_until: None,
                after,
                refused_at: None,
            }),
        }
    }

    pub(super) fn ghost(&self, upstream: &UpstreamId, was: Option<Holder>, now: Timestamp) -> Ghost {
        new_ghost(&self.author, upstream, &self.stem, was, now)
    }

    /// Writes a reservation that makes a place this attempt's.
    pub(super) fn reserve(&mut self, taking: Taking<'_>, context: &Context<'_>) -> Step {
        let Taking {
            step,
            action,
            guard,
            users,
            connections,
            release,
            expect,
            place,
            mut writes,
            detail,
        } = taking;
        // A hold must see the holds there are, so it depends on everything that was read of the places.
        let guard = match (self.wish.intent, &self.slots) {
            (Intent::Hold, Some(slots)) => Guard::Revision(slots.rev),
            _ => guard,
        };
        let Some(reservation) = place.record.reservation() else {
            return Self::refuse(Refusal::Busy);
        };
        // What was read of the places is too old by now: a place that was reserved since may have run out already, and
        // nobody must be evicted while one waits to be taken.
        if context.now > context.deadline {
            return Self::refuse(Refusal::Busy);
        }
        let held = reservation.held_place();
        if reservation.kind == ReservationKind::Hold {
            let note = HoldRecord {
                until: reservation.until,
            };
            writes.push(Write::Hold {
                stem: self.stem.clone(),
                becomes: Change::Put(Box::new(note)),
            });
        }
        writes.push(Write::User {
            stem: self.stem.clone(),
            expect,
            becomes: Change::Put(Box::new(place.record.clone())),
        });
        let lost: Vec<_> = release
            .iter()
            .map(|stem| self.author.audit(stem, "place.lost", &[]))
            .collect();
        let mut slots = Transition {
            release,
            ..Transition::of(users).guarded(guard).holding(&self.stem, held)
        };
        if let Some(eviction) = &self.eviction {
            slots = slots.noting(Some(eviction.noted(context.now)));
        }
        let slots = with_its_connections(
            slots,
            self.slots.as_ref(),
            connections.as_ref(),
            true,
            &mut writes,
        );
        let mut audit = vec![self.author.audit(&self.stem, action, detail)];
        audit.extend(lost);
        if let Some(victim) = place.ghosts.iter().find_map(|ghost| ghost.was.as_deref()) {
            // The one who gave way has the same line in their own trail.
            audit.push(self.author.audit(&victim.stem(), "user.evicted", detail));
        }
        let commit = self.author.commit(step, context.now, slots, writes, audit);
        self.go(
            Phase::Reserving(Box::new(place), commit.clone(), 1),
            Effect::Commit(commit),
        )
    }

    /// That nobody of this user's name is listed without a secret here.
    pub(super) fn no_foreign(&self) -> Write {
        Write::Foreign {
            stem: self.stem.clone(),
            slot: 0,
            expect: Expect::Absent,
            becomes: Change::Same,
        }
    }

    pub(super) fn reserve_free(&mut self, context: &mut Context<'_>) -> Step {
        if self
            .slots
            .as_ref()
            .is_some_and(|slots| slots.held.len() >= MAX_HELD)
        {
            return Self::refuse(Refusal::Busy);
        }
        let place = Place::new(self.reservation(Vec::new(), context), Vec::new());
        let writes = vec![self.no_foreign()];
        let guard = match self.wish.counts {
            Counts::Users => Guard::Room { max: self.wish.max },
            Counts::Connections => Guard::Open,
        };
        let taking = Taking {
            guard,
            users: 1,
            ..Taking::new("reserve", "place.reserved", place, writes)
        };
        self.reserve(taking, context)
    }

    pub(super) fn replace_foreign(&mut self, foreign: &ForeignRecord, context: &mut Context<'_>) -> Step {
        let ghost = self.ghost(&foreign.upstream, None, context.now);
        let writes = vec![remove_foreign(foreign), put_new_ghost(&ghost)];
        let mut record = self.reservation(vec![foreign.upstream.clone()], context);
        record.protected = foreign.protected;
        let place = Place::new(record, vec![ghost]);
        let detail = [("replaces", foreign.upstream.as_str())];
        let taking = Taking {
            detail: &detail,
            ..Taking::new("replace", "place.replaced", place, writes)
        };
        self.reserve(taking, context)
    }

    pub(super) fn renew(
        &mut self,
        user: &UserRecord,
        active: &ActiveUser,
        context: &mut Context<'_>,
    ) -> Step {
        let ghost = Ghost {
            connections: connections_of(self.slots.as_ref(), self.connections.as_ref()),
            ..self.ghost(&active.upstream, None, context.now)
        };
        let mut writes = vec![put_new_ghost(&ghost)];
        writes.extend(no_connections(
            &self.author,
            &self.stem,
            self.connections.as_ref(),
        ));
        let mut record = self.reservation(vec![active.upstream.clone()], context);
        record.rev = user.rev + 1;
        record.protected = user.protected;
        let place = Place::new(record, vec![ghost]);
        let detail = [("replaces", active.upstream.as_str())];
        let expect = Expect::Revision(user.rev);
        let taking = Taking {
            expect,
            detail: &detail,
            connections: self.connections.clone(),
            ..Taking::new("renew", "place.renewed", place, writes)
        };
        self.reserve(taking, context)
    }

    pub(super) fn use_hold(
        &mut self,
        user: &UserRecord,
        reservation: &Reservation,
        context: &mut Context<'_>,
    ) -> Step {
        if !reservation.after.is_empty() {
            // Whoever was clearing the place may be gone; what it owes goes over with it.
            return self.go(Phase::ReadingOwn, Effect::ReadReservation(self.stem.clone()));
        }
        let mut record = self.reservation(Vec::new(), context);
        record.rev = user.rev + 1;
        record.protected = user.protected;
        keep_hold(&mut record, reservation, context.now);
        let writes = vec![Write::Hold {
            stem: self.stem.clone(),
            becomes: Change::Gone,
        }];
        let place = Place::new(record, Vec::new());
        let expect = Expect::Revision(user.rev);
        let taking = Taking {
            expect,
            ..Taking::new("use", "place.used", place, writes)
        };
        self.reserve(taking, context)
    }

    /// Takes over the user's own reservation, which ran out of time.
    pub(super) fn take_over(
        &mut self,
        old: &UserRecord,
        ghosts: &[Ghost],
        context: &mut Context<'_>,
    ) -> Step {
        let Some((record, ghosts, mut writes)) = self.taken(old, ghosts, context) else {
            return Self::refuse(Refusal::DeletionPending { retry_after: 60 });
        };
        if self.may_use(old) {
            writes.push(Write::Hold {
                stem: self.stem.clone(),
                becomes: Change::Gone,
            });
        }
        let mut record = UserRecord {
            rev: old.rev + 1,
            protected: old.protected,
            ..record
        };
        if self.wish.intent != Intent::Hold
            && let Some(reservation) = old.reservation()
        {
            keep_hold(&mut record, reservation, context.now);
        }
        let place = Place::new(record, ghosts);
        let expect = Expect::Revision(old.rev);
        let taking = Taking {
            expect,
            ..Taking::new("takeover", "place.taken_over", place, writes)
        };
        self.reserve(taking, context)
    }

    /// Takes another user's reservation, which ran out of time.
    pub(super) fn take_expired(
        &mut self,
        old: &UserRecord,
        ghosts: &[Ghost],
        context: &mut Context<'_>,
    ) -> Step {
        let Some((record, ghosts, mut writes)) = self.taken(old, ghosts, context) else {
            return Self::refuse(Refusal::Busy);
        };
        let theirs = old.stem.clone();
        writes.push(Write::User {
            stem: theirs.clone(),
            expect: Expect::Revision(old.rev),
            becomes: Change::Gone,
        });
        writes.push(self.no_foreign());
        let place = Place::new(record, ghosts);
        let detail = [("from", theirs.as_str())];
        let release = vec![theirs.clone()];
        let taking = Taking {
            release,
            detail: &detail,
            ..Taking::new("expired", "place.taken", place, writes)
        };
        self.reserve(taking, context)
    }

    /// A reservation that inherits what `old` owes, and the ghosts that this makes or changes. `None` where it would
    /// owe too much.
    pub(super) fn taken(
        &self,
        old: &UserRecord,
        ghosts: &[Ghost],
        context: &mut Context<'_>,
    ) -> Option<(UserRecord, Vec<Ghost>, Vec<Write>)> {
        let Inherited {
            after,
            ghosts,
            writes,
        } = inherit(&self.author, &self.stem, old.reservation()?, ghosts, context.now);
        (after.len() <= MAX_OWED).then(|| (self.reservation(after, context), ghosts, writes))
    }

    pub(super) fn evict(&mut self, candidates: &[Holder], context: &mut Context<'_>) -> Step {
        let Some(slots) = self.slots.clone() else {
            return self.look();
        };
        // Time has passed since the places were read.
        if let Some(stem) = expired_place(&slots, context.now) {
            return self.go(Phase::ReadingExpired(stem.clone()), Effect::ReadReservation(stem));
        }
        let eligible = self.without_excluded(candidates, context.now);
        let Some((victim, reason)) = policy::choose(self.wish.policy, &eligible) else {
            if let Some(fault) = &self.kept_by_snaptrade {
                // Somebody could have given way, had SnapTrade let them go.
                return Self::refuse(Refusal::Snaptrade(fault.clone()));
            }
            if self.wish.policy == Policy::None {
                return Self::refuse(Refusal::LimitReached { retry_after: None });
            }
            // The index that nominates lags behind, so that it showed nobody proves nothing.
            return self.go(Phase::Explaining, Effect::Count(Vec::new()));
        };
        let Some(upstream) = victim.upstream().cloned() else {
            return self.look();
        };
        if victim.stem() == self.stem {
            // Another request of the same user has got here in between, or its own id was listed; that goes first.
            return self.look();
        }
        // Nobody gives way for a newcomer who has no time left to be registered: that takes a deletion and a
        // registration.
        if !timing::may_call(Timestamp::MAX, context.deadline, timing::after(context.now, CALL)) {
            return Self::refuse(Refusal::Busy);
        }
        let ghost = self.ghost(&upstream, Some(victim.clone()), context.now);
        let eviction = Eviction {
            user_id: victim.shown_user_id().to_owned(),
            reason,
            created_at: victim.created_at(),
        };
        let writes = vec![remove(victim), put_new_ghost(&ghost), self.no_foreign()];
        let record = self.reservation(vec![upstream.clone()], context);
        let place = Place::new(record, vec![ghost]);
        let reason = reason.as_str();
        let detail = [
            ("evicted", eviction.user_id.as_str()),
            ("upstream_id", upstream.as_str()),
            ("reason", reason),
        ];
        let guard = Guard::Full {
            max: self.wish.max,
            given_up: slots.given_up,
        };
        self.eviction = Some(eviction.clone());
        let taking = Taking {
            guard,
            detail: &detail,
            ..Taking::new("evict", "place.evicted", place, writes)
        };
        self.reserve(taking, context)
    }

    /// Refuses for good only if those who hold the places are all known and nobody of them may give way. Where somebody
    /// is being registered or deleted right now, asking again later helps anyway.
    pub(super) fn explain(&mut self, census: &Census, context: &Context<'_>) -> Step {
        let Some(slots) = &census.slots else {
            return self.look();
        };
        let soonest = slots
            .held
            .values()
            .map(|held| timing::after(held.until, SKEW))
            .min();
        let retry_after = soonest.map(|at| timing::seconds_until(at, context.now));
        let all_seen = census.eligible == 0 && census.holders() >= slots.in_use;
        if retry_after.is_none() && !all_seen {
            // Somebody could not be seen yet, or could only just be seen.
            return self.go(Phase::PausingBeforeLooking, Effect::Wait(INDEX_PAUSE));
        }
        Self::refuse(Refusal::LimitReached { retry_after })
    }

    /// Those who may be asked to give way. Whoever SnapTrade lately refused to delete is asked only where there is
    /// nobody else.
    pub(super) fn without_excluded(&self, candidates: &[Holder], now: Timestamp) -> Vec<Holder> {
        let excluded = |holder: &Holder| holder.upstream().is_some_and(|id| self.excluded.contains(id));
        let (kept, others): (Vec<Holder>, Vec<Holder>) = candidates
            .iter()
            .filter(|holder| !excluded(holder))
            .cloned()
            .partition(|holder| timing::lately_refused(holder.refused_at(), now));
        if others.iter().any(Holder::may_give_way) {
            others
        } else {
            kept
        }
    }

    pub(super) fn reserved(
        &mut self,
        place: Place,
        commit: &Commit,
        outcome: CommitOutcome,
        context: &mut Context<'_>,
    ) -> Step {
        let obstacles = match outcome {
            CommitOutcome::Won => Vec::new(),
            CommitOutcome::Unknown => return Self::refuse(Refusal::Busy),
            CommitOutcome::Lost(obstacles) => obstacles,
        };
        let mine = obstacles.iter().any(|obstacle| {
            matches!(obstacle, Obstacle::User(_, Some(user))
                if user.reservation().is_some_and(|r| r.attempt == self.author.attempt))
        });
        if mine || obstacles.is_empty() {
            self.count(&commit.slots);
            self.place = Some(place);
            return self.clear(context);
        }
        self.eviction = None;
        // An id that is a ghost already is on its way out; somebody else has to give way.
        self.excluded
            .extend(obstacles.into_iter().filter_map(|obstacle| match obstacle {
                Obstacle::Ghost(id) => Some(id),
                _ => None,
            }));
        // Those who lost to the same winner would meet again; the attempt's own name spreads them out.
        let spread = self.author.attempt.first_revision() >> (3 * self.rounds.min(8));
        let pause = Duration::from_millis((10 + spread % 60) * u64::from(self.rounds));
        self.go(Phase::PausingBeforeLooking, Effect::Wait(pause))
    }

    /// Keeps count of the places that this attempt takes and frees, for the answer.
    pub(super) fn count(&mut self, change: &SlotsChange) {
        if let (Some(slots), SlotsChange::Transition(transition)) = (&mut self.slots, change) {
            let counted = Transition {
                counts: self.wish.counts,
                ..transition.clone()
            };
            slots.in_use = slots.in_use.saturating_add_signed(counted.in_use());
        }
    }

    /// Forgets a reservation that stands among the places and nowhere else.
    pub(super) fn forget_reservation(&mut self, stem: &Stem, context: &Context<'_>) -> Step {
        let Some(slots) = &self.slots else {
            return self.look();
        };
        let change = Transition::of(0)
            .guarded(Guard::Revision(slots.rev))
            .releasing(stem);
        let commit = self
            .author
            .commit("forget", context.now, change, Vec::new(), Vec::new());
        self.go(Phase::Forgetting, Effect::Commit(commit))
    }
}

/// Keeps the place for its user as long as the hold that it was made from, should the attempt that `record` begins
/// not use it.
fn keep_hold(record: &mut UserRecord, hold: &Reservation, now: Timestamp) {
    if let UserState::Reserved(mine) = &mut record.state {
        mine.held_until = hold.hold(now);
    }
}
