//! Registering an id that was never used before, and storing its secret.

use super::*;

impl Registration {
    pub(super) fn enrol(&mut self, context: &mut Context<'_>) -> Step {
        let Some(place) = &mut self.place else {
            return Self::refuse(Refusal::Busy);
        };
        let Some(upstream) = place.upstream() else {
            return Self::refuse(Refusal::Busy);
        };
        if !timing::may_call(place.until(), context.deadline, context.now) {
            return self.give_up(Refusal::Snaptrade(Fault::Timeout), context);
        }
        place.sent = true;
        self.go(Phase::Enrolling, Effect::Register(upstream, self.stem.clone()))
    }

    pub(super) fn enrolled(&mut self, enrolment: Enrolment, context: &mut Context<'_>) -> Step {
        if let Some(place) = &mut self.place {
            place.sent = matches!(enrolment, Enrolment::Done(_) | Enrolment::Unknown(_));
        }
        match enrolment {
            Enrolment::Done(secret) => self.activate(secret, context),
            Enrolment::LimitReached => self.refused_for_the_limit(context),
            Enrolment::Taken if !self.renamed => {
                self.renamed = true;
                self.rename(context)
            }
            Enrolment::Taken => self.release(Refusal::Snaptrade(Fault::Error), context),
            Enrolment::Refused(Fault::RateLimited(wait)) if !self.waited_for_rate && wait <= SHORT_WAIT => {
                self.waited_for_rate = true;
                self.go(Phase::PausingBeforeEnrolling, Effect::Wait(wait))
            }
            Enrolment::Refused(fault) => self.release(Refusal::Snaptrade(fault), context),
            Enrolment::Unknown(fault) => {
                let owed = self.place.as_ref().map_or(MAX_OWED, |place| place.owed().len());
                if self.retired_own || owed >= MAX_OWED {
                    return self.give_up(Refusal::Snaptrade(fault), context);
                }
                self.retired_own = true;
                self.retire(fault, context)
            }
        }
    }

    /// Gives the own id up, which may live at SnapTrade with a secret that nobody knows, and takes a fresh one.
    pub(super) fn retire(&mut self, fault: Fault, context: &mut Context<'_>) -> Step {
        let Some(old) = self.place.as_ref().and_then(Place::upstream) else {
            return Self::refuse(Refusal::Busy);
        };
        let ghost = self.ghost(&old, None, context.now);
        let write = put_new_ghost(&ghost);
        tracing::warn!(
            ?fault,
            "a registration was not answered; its id is deleted and a fresh one taken"
        );
        self.rewrite("retire", "place.retired", Some(ghost), vec![write], context)
    }

    /// Takes a fresh id in place of one that a stranger has.
    pub(super) fn rename(&mut self, context: &mut Context<'_>) -> Step {
        self.rewrite("rename", "place.renamed", None, Vec::new(), context)
    }

    pub(super) fn rewrite(
        &mut self,
        step: &str,
        action: &str,
        ghost: Option<Ghost>,
        mut writes: Vec<Write>,
        context: &mut Context<'_>,
    ) -> Step {
        let Some(mut place) = self.place.clone() else {
            return Self::refuse(Refusal::Busy);
        };
        let expect = Expect::Revision(place.record.rev);
        place.record.rev += 1;
        if let UserState::Reserved(reservation) = &mut place.record.state {
            reservation.upstream = Some(UpstreamId::mint(&self.stem, &(context.draw)()));
            reservation
                .after
                .extend(ghost.as_ref().map(|ghost| ghost.upstream.clone()));
        }
        place.sent = false;
        place.ghosts.extend(ghost);
        writes.push(Write::User {
            stem: self.stem.clone(),
            expect,
            becomes: Change::Put(Box::new(place.record.clone())),
        });
        let slots = Transition::of(0);
        let audit = vec![self.author.audit(&self.stem, action, &[])];
        let commit = self.author.commit(step, context.now, slots, writes, audit);
        self.go(Phase::Retiring(Box::new(place)), Effect::Commit(commit))
    }

    pub(super) fn activate(&mut self, secret: SealedSecret, context: &mut Context<'_>) -> Step {
        let Some(place) = &self.place else {
            return Self::refuse(Refusal::Busy);
        };
        let Some(upstream) = place.upstream() else {
            return Self::refuse(Refusal::Busy);
        };
        self.activations += 1;
        self.activated_at = Some(context.now);
        let record = UserRecord {
            user_id: self.wish.user.clone(),
            stem: self.stem.clone(),
            rev: place.record.rev + 1,
            created_at: context.now,
            protected: place.record.protected,
            refused_at: None,
            state: UserState::Active(ActiveUser {
                upstream: upstream.clone(),
                secret: secret.clone(),
                last_active_at: context.now,
                connections: 0,
                broken: false,
                secret_rejected: false,
            }),
        };
        let mut writes = place.accepted_ghosts(context.now);
        writes.push(Write::User {
            stem: self.stem.clone(),
            expect: Expect::Revision(place.record.rev),
            becomes: Change::Put(Box::new(record)),
        });
        let slots = Transition::of(0).releasing(&self.stem);
        let audit = vec![self.author.audit(
            &self.stem,
            "user.registered",
            &[("upstream_id", upstream.as_str())],
        )];
        let commit = self.author.commit("activate", context.now, slots, writes, audit);
        self.go(Phase::Activating(secret), Effect::Commit(commit))
    }

    pub(super) fn activated(
        &mut self,
        secret: SealedSecret,
        outcome: &CommitOutcome,
        context: &mut Context<'_>,
    ) -> Step {
        match outcome {
            CommitOutcome::Won => self.registered(self.activated_at.unwrap_or(context.now)),
            CommitOutcome::Lost(obstacles) => {
                let lost_place = obstacles
                    .iter()
                    .any(|obstacle| matches!(obstacle, Obstacle::User(..)));
                if lost_place {
                    return self.go(Phase::Confirming(secret), Effect::ReadEntry(self.stem.clone()));
                }
                self.go(
                    Phase::RereadingGhosts(secret),
                    Effect::ReadReservation(self.stem.clone()),
                )
            }
            CommitOutcome::Unknown => {
                self.activation_unknown = true;
                self.go(Phase::Confirming(secret), Effect::ReadEntry(self.stem.clone()))
            }
        }
    }

    /// After an activation whose outcome is not known, or that somebody seems to have prevented.
    pub(super) fn confirm(&mut self, secret: SealedSecret, entry: &Entry, context: &mut Context<'_>) -> Step {
        let upstream = self.place.as_ref().and_then(Place::upstream);
        if let Some(user) = &entry.user {
            if user
                .active()
                .is_some_and(|active| Some(&active.upstream) == upstream.as_ref())
            {
                return self.registered(user.created_at);
            }
            let mine = user.reservation().is_some_and(|reservation| {
                reservation.attempt == self.author.attempt && reservation.upstream == upstream
            });
            if mine && self.activations < MAX_ACTIVATIONS {
                if let Some(place) = &mut self.place {
                    place.record = user.clone();
                }
                return self.activate(secret, context);
            }
        }
        // The place was taken, and whoever took it has written down that this id must go. Where the activation was
        // refused for certain, deleting the id now only helps. Where its outcome was not known it may have been made,
        // and the user may have given way since: that eviction may still be undone, as long as nobody else deletes.
        let in_time = timing::may_call(Timestamp::MAX, context.deadline, context.now);
        match upstream.filter(|_| in_time && !self.activation_unknown) {
            Some(upstream) => self.go(Phase::Withdrawing, Effect::Delete(upstream)),
            None => Self::refuse(Refusal::InProgress { retry_after: 2 }),
        }
    }

    pub(super) fn reread(
        &mut self,
        secret: SealedSecret,
        user: Option<UserRecord>,
        ghosts: Vec<Ghost>,
        context: &mut Context<'_>,
    ) -> Step {
        let mine = user.filter(|user| {
            user.reservation()
                .is_some_and(|reservation| reservation.attempt == self.author.attempt)
        });
        let (Some(user), Some(place)) = (mine, &mut self.place) else {
            return self.confirm(secret, &Entry::default(), context);
        };
        place.record = user;
        place.ghosts = ghosts
            .into_iter()
            .filter(|ghost| ghost.state == GhostState::Due)
            .collect();
        if self.activations >= MAX_ACTIVATIONS {
            return self.confirm(secret, &Entry::default(), context);
        }
        self.activate(secret, context)
    }

    pub(super) fn registered(&self, created_at: Timestamp) -> Step {
        let in_use = self.slots.as_ref().map_or(1, |slots| slots.in_use);
        Next::Done(Ok(Granted::Registered {
            created: true,
            created_at,
            eviction: self.eviction.clone(),
            in_use,
        }))
    }
}
