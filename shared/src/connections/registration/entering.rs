//! Looking at what there is of a user, and deciding which way to a place there is.

use super::*;

impl Registration {
    pub(super) fn look(&mut self) -> Step {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Self::refuse(Refusal::Busy);
        }
        self.go(Phase::Looking, Effect::ReadEntry(self.stem.clone()))
    }

    pub(super) fn enter(&mut self, entry: Entry, context: &mut Context<'_>) -> Step {
        let in_use = entry.slots.as_ref().map_or(0, |slots| slots.in_use);
        self.slots.clone_from(&entry.slots);
        self.connections.clone_from(&entry.connections);
        if let Some(user) = entry.user {
            return match &user.state {
                UserState::Active(active) => self.enter_active(&user, active, in_use, context),
                UserState::Reserved(reservation) => {
                    self.enter_reserved(&user, reservation, entry.hold.as_ref(), in_use, context)
                }
            };
        }
        let open = entry
            .slots
            .as_ref()
            .is_some_and(|slots| slots.open && slots.counts == self.wish.counts);
        if !open {
            let mut opening = Opening::new(self.author.clone(), self.wish.max, self.wish.counts);
            let next = opening.advance(Input::Begin, context);
            return self.opening(opening, next);
        }
        if self.wish.intent == Intent::Hold
            && let Some(refusal) = self.throttle(entry.hold.as_ref(), context.now)
        {
            return Self::refuse(refusal);
        }
        // A plain id is known under the user's own name; of ids minted here any will do.
        let plain = entry.foreign.iter().find(|foreign| !foreign.upstream.is_minted());
        if let Some(foreign) = plain.or(entry.foreign.first()).cloned() {
            if !foreign.upstream.is_minted() && self.wish.intent != Intent::Recreate {
                return Self::refuse(Refusal::ExistsUpstream);
            }
            return self.replace_foreign(&foreign, context);
        }
        let Some(slots) = entry.slots else {
            return Self::refuse(Refusal::Busy);
        };
        self.find_place(&slots, context)
    }

    pub(super) fn enter_active(
        &mut self,
        user: &UserRecord,
        active: &ActiveUser,
        in_use: u32,
        context: &mut Context<'_>,
    ) -> Step {
        let anew = match self.wish.intent {
            Intent::Recreate => true,
            Intent::Register => active.secret_rejected,
            Intent::Hold => false,
        };
        if anew {
            return self.renew(user, active, context);
        }
        if self.wish.intent == Intent::Hold {
            return Next::Done(Ok(Granted::Held {
                until: None,
                eviction: None,
                in_use,
            }));
        }
        Next::Done(Ok(Granted::Registered {
            created: false,
            created_at: user.created_at,
            eviction: None,
            in_use,
        }))
    }

    pub(super) fn enter_reserved(
        &mut self,
        user: &UserRecord,
        reservation: &Reservation,
        last_hold: Option<&HoldRecord>,
        in_use: u32,
        context: &mut Context<'_>,
    ) -> Step {
        let wants_hold = self.wish.intent == Intent::Hold;
        let kept_until = reservation.kept_until();
        if wants_hold && reservation.kind != ReservationKind::Leave && kept_until > context.now {
            return Next::Done(Ok(Granted::Held {
                until: Some(kept_until),
                eviction: None,
                in_use,
            }));
        }
        if timing::expired(reservation.until, context.now) {
            if wants_hold && let Some(refusal) = self.throttle(last_hold, context.now) {
                return Self::refuse(refusal);
            }
            return self.go(Phase::ReadingOwn, Effect::ReadReservation(self.stem.clone()));
        }
        match reservation.kind {
            ReservationKind::Hold if reservation.until > context.now => {
                self.use_hold(user, reservation, context)
            }
            _ => {
                let free = timing::after(reservation.until, SKEW);
                Self::refuse(Refusal::InProgress {
                    retry_after: timing::seconds_until(free, context.now),
                })
            }
        }
    }

    /// Whether a hold may be given now.
    pub(super) fn throttle(&self, last: Option<&HoldRecord>, now: Timestamp) -> Option<Refusal> {
        if let Some(last) = last {
            let again = timing::after(last.until, HOLD_AGAIN);
            if again > now {
                return Some(Refusal::HoldsThrottled {
                    retry_after: timing::seconds_until(again, now),
                });
            }
        }
        let slots = self.slots.as_ref()?;
        let held: Vec<&HeldPlace> = slots
            .held
            .values()
            .filter(|held| held.kind == ReservationKind::Hold && !timing::expired(held.until, now))
            .collect();
        let most = usize::try_from(self.wish.max.div_ceil(2)).unwrap_or(usize::MAX);
        if held.len() < most {
            return None;
        }
        let free = held.iter().map(|held| held.until).min().unwrap_or(now);
        Some(Refusal::HoldsThrottled {
            retry_after: timing::seconds_until(timing::after(free, SKEW), now),
        })
    }

    pub(super) fn find_place(&mut self, slots: &Slots, context: &mut Context<'_>) -> Step {
        // Where connections are counted, registering takes no place.
        if slots.in_use < self.wish.max || self.wish.counts == Counts::Connections {
            return self.reserve_free(context);
        }
        if let Some(stem) = expired_place(slots, context.now) {
            return self.go(Phase::ReadingExpired(stem.clone()), Effect::ReadReservation(stem));
        }
        self.go(Phase::Nominating, Effect::ReadCandidates(self.wish.policy))
    }

    /// Whether `user` holds a place unused that this wish may use.
    pub(super) fn may_use(&self, user: &UserRecord) -> bool {
        self.wish.intent != Intent::Hold
            && user
                .reservation()
                .is_some_and(|reservation| reservation.kind == ReservationKind::Hold)
    }
}

/// The place whose holder ran out of time longest ago, of those that can be cleared as far as is known.
pub(super) fn expired_place(slots: &Slots, now: Timestamp) -> Option<Stem> {
    let expired = slots.held.iter().filter(|(_, held)| held.may_be_taken(now));
    expired
        .min_by_key(|(stem, held)| (held.until, (*stem).clone()))
        .map(|(stem, _)| stem.clone())
}
