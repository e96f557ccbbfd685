//! Ending without a registration, so that nothing is lost.

use super::*;

impl Registration {
    /// Lets the reservation go before its time. The place, what it owes and the id stay written, so that the next
    /// caller takes them over or the sync clears them.
    pub(super) fn give_up(&mut self, refusal: Refusal, context: &Context<'_>) -> Step {
        let Some(place) = &self.place else {
            return Self::refuse(refusal);
        };
        let mut record = UserRecord {
            rev: place.record.rev + 1,
            ..place.record.clone()
        };
        let UserState::Reserved(reservation) = &mut record.state else {
            return Self::refuse(refusal);
        };
        // A place that was held before stays its user's for as long as it was promised.
        let kept = reservation.hold(context.now).is_some() && self.wish.intent != Intent::Hold;
        reservation.until = Timestamp::UNIX_EPOCH;
        reservation.after = place.uncleared();
        reservation.refused_at = place.refused_at;
        if !place.sent {
            // An id that SnapTrade never saw need not be deleted there.
            reservation.upstream = None;
        }
        if !kept {
            reservation.held_until = None;
        }
        let held = reservation.held_place();
        let mut writes = place.accepted_ghosts(context.now);
        writes.push(Write::User {
            stem: self.stem.clone(),
            expect: Expect::Revision(place.record.rev),
            becomes: Change::Put(Box::new(record)),
        });
        if self.wish.intent == Intent::Hold {
            // The caller did not let it lapse: SnapTrade did.
            writes.push(Write::Hold {
                stem: self.stem.clone(),
                becomes: Change::Gone,
            });
        }
        let slots = Transition::of(0).holding(&self.stem, held);
        let (slots, action) = if kept {
            (slots, "place.kept")
        } else {
            (slots.giving_up(), "place.given_up")
        };
        let audit = vec![self.author.audit(&self.stem, action, &[])];
        let commit = self.author.commit("giveup", context.now, slots, writes, audit);
        self.go(Phase::Ending(refusal), Effect::Commit(commit))
    }

    /// Frees the place: everything it owed is cleared, and its id was refused for certain.
    pub(super) fn release(&mut self, refusal: Refusal, context: &Context<'_>) -> Step {
        let Some(place) = &self.place else {
            return Self::refuse(refusal);
        };
        if !place.uncleared().is_empty() {
            return self.give_up(refusal, context);
        }
        let mut writes = place.accepted_ghosts(context.now);
        writes.push(Write::User {
            stem: self.stem.clone(),
            expect: Expect::Revision(place.record.rev),
            becomes: Change::Gone,
        });
        let slots = Transition::of(-1).releasing(&self.stem);
        let audit = vec![self.author.audit(&self.stem, "place.released", &[])];
        let commit = self.author.commit("release", context.now, slots, writes, audit);
        self.go(Phase::Ending(refusal), Effect::Commit(commit))
    }
}
