//! "Limit reached" from SnapTrade, though there was room by our own count.

use super::*;

impl Registration {
    pub(super) fn refused_for_the_limit(&mut self, context: &mut Context<'_>) -> Step {
        self.limit_refusals += 1;
        let Some(place) = &self.place else {
            return Self::refuse(Refusal::Busy);
        };
        if !timing::may_call(place.until(), context.deadline, context.now) {
            return self.settle_pending(context);
        }
        self.go(Phase::ListingForLimit, Effect::List)
    }

    /// SnapTrade has accepted every deletion but not finished them: the place is kept, as a hold, for the caller.
    pub(super) fn settle_pending(&mut self, context: &Context<'_>) -> Step {
        self.settle(timing::after(context.now, HOLD), context)
    }

    pub(super) fn weigh(&mut self, list: Vec<UpstreamId>, roster: Roster, context: &mut Context<'_>) -> Step {
        let own = self.place.as_ref().and_then(Place::upstream);
        let unknown: Vec<(u32, UpstreamId)> = unknown_ids(&list, &roster)
            .into_iter()
            .filter(|(_, id)| Some(id) != own.as_ref())
            .collect();
        let mut adoption = Adoption::new(self.author.clone(), unknown);
        let next = adoption.advance(Input::Begin, context);
        self.adopting(adoption, next, list, roster, context)
    }

    pub(super) fn adopting(
        &mut self,
        adoption: Adoption,
        next: Next<Adopted>,
        list: Vec<UpstreamId>,
        roster: Roster,
        context: &mut Context<'_>,
    ) -> Step {
        match next {
            Next::Do(effect) => self.go(Phase::AdoptingForLimit(Box::new(adoption), list, roster), effect),
            Next::Done(adopted) => {
                self.author = adopted.author;
                self.count(&Transition::of(i32::try_from(adopted.ids.len()).unwrap_or(i32::MAX)).into());
                self.make_room(&list, &roster, context)
            }
        }
    }

    pub(super) fn make_room(
        &mut self,
        list: &[UpstreamId],
        roster: &Roster,
        context: &mut Context<'_>,
    ) -> Step {
        let place = self.place.as_ref();
        let going: BTreeSet<&UpstreamId> = roster
            .ghosts
            .iter()
            .map(|ghost| &ghost.upstream)
            .chain(place.iter().flat_map(|place| place.owed()))
            .collect();
        let own = place.and_then(Place::upstream);
        let living = list
            .iter()
            .filter(|id| !going.contains(id) && Some(*id) != own.as_ref())
            .count();
        let pending = list.iter().any(|id| going.contains(id));
        let full = u32::try_from(living).unwrap_or(u32::MAX) >= self.wish.max;
        let already = self.evictions + u32::from(self.eviction.is_some());
        let gives_way = self.wish.counts == Counts::Users;
        if full && already < 2 && gives_way {
            return self.go(
                Phase::NominatingForLimit,
                Effect::ReadCandidates(self.wish.policy),
            );
        }
        if pending {
            // The first waits are short; a deletion that takes long is asked for less and less often.
            let pause = Duration::from_secs(u64::from(1 + self.limit_refusals / 4).min(3));
            return self.wait_to_enrol(pause, context);
        }
        if self.limit_refusals <= MAX_REFUSALS_WITH_ROOM {
            return self.wait_to_enrol(
                Duration::from_millis(500_u64 << self.limit_refusals.min(3)),
                context,
            );
        }
        if already == 0 && gives_way {
            tracing::error!(
                alarm = "limit_below_configured",
                living,
                limit = self.wish.max,
                "SnapTrade's own limit is below the configured one; MAX_CONNECTIONS should be lowered"
            );
            return self.go(
                Phase::NominatingForLimit,
                Effect::ReadCandidates(self.wish.policy),
            );
        }
        self.release(Refusal::LimitReached { retry_after: None }, context)
    }

    pub(super) fn wait_to_enrol(&mut self, pause: Duration, context: &mut Context<'_>) -> Step {
        let until = self.place.as_ref().map_or(Timestamp::MIN, Place::until);
        let later = timing::after(context.now, pause);
        if !timing::may_call(until, context.deadline, later) {
            return self.settle_pending(context);
        }
        self.go(Phase::PausingBeforeEnrolling, Effect::Wait(pause))
    }

    /// One user gives way without its place being taken: SnapTrade has less room than was thought.
    pub(super) fn shrink(&mut self, candidates: &[Holder], context: &mut Context<'_>) -> Step {
        let Some(mut place) = self.place.clone() else {
            return Self::refuse(Refusal::Busy);
        };
        let eligible = self.without_excluded(candidates, context.now);
        let chosen = policy::choose(self.wish.policy, &eligible);
        let Some((victim, reason)) = chosen.filter(|_| place.owed().len() < MAX_OWED) else {
            return self.release(Refusal::LimitReached { retry_after: None }, context);
        };
        let Some(upstream) = victim.upstream().cloned() else {
            return self.release(Refusal::LimitReached { retry_after: None }, context);
        };
        let eviction = Eviction {
            user_id: victim.shown_user_id().to_owned(),
            reason,
            created_at: victim.created_at(),
        };
        let ghost = self.ghost(&upstream, None, context.now);
        let expect = Expect::Revision(place.record.rev);
        place.record.rev += 1;
        if let UserState::Reserved(reservation) = &mut place.record.state {
            reservation.after.push(upstream.clone());
        }
        let writes = vec![
            remove(victim),
            put_new_ghost(&ghost),
            Write::User {
                stem: self.stem.clone(),
                expect,
                becomes: Change::Put(Box::new(place.record.clone())),
            },
        ];
        place.ghosts.push(ghost);
        let slots = Transition::of(-1).noting(Some(eviction.noted(context.now)));
        let reason = reason.as_str();
        let detail = [
            ("evicted", eviction.user_id.as_str()),
            ("upstream_id", upstream.as_str()),
            ("reason", reason),
        ];
        let audit = vec![
            self.author.audit(&self.stem, "place.evicted", &detail),
            self.author
                .audit(&victim.stem(), "user.evicted", &[("reason", reason)]),
        ];
        let commit = self.author.commit("shrink", context.now, slots, writes, audit);
        self.go(
            Phase::Shrinking(Box::new(place), eviction),
            Effect::Commit(commit),
        )
    }

    pub(super) fn shrunk(
        &mut self,
        place: Place,
        eviction: Eviction,
        outcome: &CommitOutcome,
        context: &mut Context<'_>,
    ) -> Step {
        match outcome {
            CommitOutcome::Won => {
                self.count(&Transition::of(-1).into());
                self.place = Some(place);
                self.evictions += 1;
                self.eviction.get_or_insert(eviction);
                self.clear(context)
            }
            CommitOutcome::Lost(obstacles) => {
                let mine_lost = obstacles
                    .iter()
                    .any(|obstacle| matches!(obstacle, Obstacle::User(stem, _) if *stem == self.stem));
                self.rounds += 1;
                if mine_lost || self.rounds > MAX_ROUNDS {
                    return Self::refuse(Refusal::Busy);
                }
                self.go(
                    Phase::NominatingForLimit,
                    Effect::ReadCandidates(self.wish.policy),
                )
            }
            CommitOutcome::Unknown => Self::refuse(Refusal::Busy),
        }
    }
}
