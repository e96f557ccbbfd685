//! Getting a user a place and registering it at SnapTrade, from the first look to the stored secret.
//!
//! The steps in order: look at what is there; reserve a place (a free one, one whose holder ran out of time, or that
//! of a user who gives way); have SnapTrade accept the deletion of every id that the place still owes; register an id
//! that was never used before; store its secret. Whatever is interrupted leaves a reservation that says what is owed,
//! so that the next caller or the sync can go on from there.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::adoption::{Adopted, Adoption};
use super::clearing::{Cleared, Clearing, SHORT_WAIT};
use super::machine::{
    Author, Change, Commit, CommitOutcome, Context, Effect, Enrolment, Entry, Expect, Fault, Guard, Input,
    Machine, Next, Obstacle, Roster, SlotsChange, Transition, Write,
};
use super::opening::{Opened, Opening, unknown_ids};
use super::policy::{self, Reason};
use super::records::{
    ActiveUser, ForeignRecord, Ghost, GhostState, HeldPlace, HoldRecord, Holder, Reservation,
    ReservationKind, Slots, UserRecord, UserState,
};
use super::timing::{self, CALL, HOLD, HOLD_AGAIN, LEASE, SKEW};
use crate::config::{Counts, Policy};
use crate::ids::{Stem, UpstreamId, UserId};
use crate::user_secrets::SealedSecret;

/// Most ids that one place may owe. A place that owes more is left to the sync.
const MAX_OWED: usize = 8;

/// Most reservations at a time; they are kept in one item.
pub const MAX_HELD: usize = 100;

/// How often the whole decision is begun anew when others were faster.
const MAX_ROUNDS: u32 = 8;

/// How often a reservation is sent whose outcome the store does not tell.
const MAX_COMMITS: u32 = 3;

/// How often a stored secret's write is decided anew.
const MAX_ACTIVATIONS: u32 = 3;

/// How often SnapTrade is asked again that says "limit reached" though there is room by its own list.
const MAX_REFUSALS_WITH_ROOM: u32 = 2;

/// What the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// To be registered.
    Register,
    /// A place that waits for them.
    Hold,
    /// To be registered anew, whatever stands at SnapTrade under their name.
    Recreate,
}

/// A user's wish for a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// What for.
    pub intent: Intent,
    /// Who.
    pub user: UserId,
    /// The limit.
    pub max: u32,
    /// What counts against it.
    pub counts: Counts,
    /// Who gives way when it is reached.
    pub policy: Policy,
}

/// What came of a wish.
#[derive(Debug, Clone, PartialEq)]
pub enum Granted {
    /// The user is registered.
    Registered {
        /// Now, rather than before.
        created: bool,
        /// Since when.
        created_at: Timestamp,
        /// Who gave way.
        eviction: Option<Eviction>,
        /// Places in use, as far as was seen.
        in_use: u32,
    },
    /// A place is kept.
    Held {
        /// Until when; `None` for a user who is registered already.
        until: Option<Timestamp>,
        /// Who gave way.
        eviction: Option<Eviction>,
        /// Places in use, as far as was seen.
        in_use: u32,
    },
}

/// Why a wish was not granted. Nothing was lost: what is owed is written down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The same user is being registered or deleted right now.
    #[error("the same user is being registered or deleted right now")]
    InProgress {
        /// Seconds after which to try again.
        retry_after: u64,
    },
    /// SnapTrade has this user id from elsewhere, and there is no secret for it here.
    #[error("SnapTrade knows this user id from elsewhere")]
    ExistsUpstream,
    /// Every place is taken and nobody may give way.
    #[error("every place is taken and nobody may give way")]
    LimitReached {
        /// Seconds after which a place that is only reserved may be free; `None` where waiting does not help.
        retry_after: Option<u64>,
    },
    /// This caller, or all together, hold too many places unused.
    #[error("too many places are held unused")]
    HoldsThrottled {
        /// Seconds after which to try again.
        retry_after: u64,
    },
    /// Room was made but SnapTrade has not finished deleting; the place is kept for the caller.
    #[error("SnapTrade has not finished deleting")]
    DeletionPending {
        /// Seconds after which to try again.
        retry_after: u64,
    },
    /// Others changed the places all the time, or the store did not answer.
    #[error("the places could not be changed")]
    Busy,
    /// SnapTrade could not be used.
    #[error("SnapTrade could not be used: {0:?}")]
    Snaptrade(Fault),
}

/// Who gave way, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Eviction {
    /// The id as clients know it.
    pub user_id: String,
    /// Why.
    pub reason: Reason,
    /// When that user was registered.
    pub created_at: Timestamp,
}

type Step = Next<Result<Granted, Refusal>>;

/// A place that is reserved for this attempt.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    /// The reservation as it was last written.
    record: UserRecord,
    /// The ghosts that it owes, as they were last read or written.
    ghosts: Vec<Ghost>,
    /// Those whose deletion SnapTrade accepted.
    cleared: BTreeSet<UpstreamId>,
}

impl Place {
    fn new(record: UserRecord, ghosts: Vec<Ghost>) -> Self {
        Self {
            record,
            ghosts,
            cleared: BTreeSet::new(),
        }
    }

    fn owed(&self) -> &[UpstreamId] {
        self.record
            .reservation()
            .map_or(&[], |reservation| reservation.after.as_slice())
    }

    fn until(&self) -> Timestamp {
        self.record
            .reservation()
            .map_or(Timestamp::MIN, |reservation| reservation.until)
    }

    fn upstream(&self) -> Option<UpstreamId> {
        self.record.upstream().cloned()
    }

    /// The ids whose deletion SnapTrade has not accepted yet.
    fn uncleared(&self) -> Vec<UpstreamId> {
        self.owed()
            .iter()
            .filter(|id| !self.cleared.contains(*id))
            .cloned()
            .collect()
    }

    /// The ghosts as they are once SnapTrade has accepted their deletion, with what has to be there before.
    fn accepted_ghosts(&self, now: Timestamp) -> Vec<Write> {
        self.ghosts.iter().map(|ghost| accept(ghost, now)).collect()
    }
}

/// The write that notes that SnapTrade took the deletion of `ghost`.
#[must_use]
pub fn accept(ghost: &Ghost, now: Timestamp) -> Write {
    let becomes = Ghost {
        rev: ghost.rev + 1,
        state: GhostState::Accepted,
        waits: None,
        was: None,
        sent_at: now,
        accepted_at: Some(now),
        ..ghost.clone()
    };
    Write::Ghost {
        upstream: ghost.upstream.clone(),
        expect: Expect::Revision(ghost.rev),
        becomes: Change::Put(Box::new(becomes)),
    }
}

/// A reservation that is about to be written.
struct Taking<'a> {
    step: &'a str,
    action: &'a str,
    guard: Guard,
    in_use: i32,
    release: Vec<Stem>,
    expect: Expect,
    place: Place,
    writes: Vec<Write>,
    detail: &'a [(&'a str, &'a str)],
}

impl<'a> Taking<'a> {
    /// One that moves a place to a user who has no record yet. The step, the action and what else is written name the
    /// way to the place.
    fn new(step: &'a str, action: &'a str, place: Place, writes: Vec<Write>) -> Self {
        Self {
            step,
            action,
            guard: Guard::Any,
            in_use: 0,
            release: Vec::new(),
            expect: Expect::Absent,
            place,
            writes,
            detail: &[],
        }
    }
}

/// Registers a user, or holds a place for one.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    wish: Wish,
    stem: Stem,
    author: Author,
    rounds: u32,
    slots: Option<Slots>,
    place: Option<Place>,
    eviction: Option<Eviction>,
    evictions: u32,
    excluded: Option<Holder>,
    retired_own: bool,
    renamed: bool,
    waited_for_rate: bool,
    limit_refusals: u32,
    activations: u32,
    activation_unknown: bool,
    activated_at: Option<Timestamp>,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Start,
    Looking,
    Opening(Box<Opening>),
    /// A reservation is being written; it is this attempt's if it is.
    Reserving(Box<Place>, Box<Commit>, u32),
    /// The user's own place is being read, which ran out of time.
    ReadingOwn,
    /// Another user's place is being read, which ran out of time.
    ReadingExpired,
    Nominating,
    Clearing(Box<Clearing>),
    Undoing(Fault),
    Enrolling,
    PausingBeforeEnrolling,
    Activating(SealedSecret),
    RereadingGhosts(SealedSecret),
    Confirming(SealedSecret),
    Withdrawing,
    Retiring(Box<Place>),
    Settling,
    ListingForLimit,
    ReadingForLimit(Vec<UpstreamId>),
    AdoptingForLimit(Box<Adoption>, Vec<UpstreamId>, Roster),
    NominatingForLimit,
    Shrinking(Box<Place>, Eviction),
    Ending(Refusal),
}

impl Registration {
    /// Starts on a wish.
    #[must_use]
    pub fn new(wish: Wish, author: Author) -> Self {
        let stem = wish.user.stem();
        Self {
            wish,
            stem,
            author,
            rounds: 0,
            slots: None,
            place: None,
            eviction: None,
            evictions: 0,
            excluded: None,
            retired_own: false,
            renamed: false,
            waited_for_rate: false,
            limit_refusals: 0,
            activations: 0,
            activation_unknown: false,
            activated_at: None,
            phase: Phase::Start,
        }
    }

    fn go(&mut self, phase: Phase, effect: Effect) -> Step {
        self.phase = phase;
        Next::Do(effect)
    }

    fn refuse(refusal: Refusal) -> Step {
        Next::Done(Err(refusal))
    }

    // Looking, and deciding which way to a place there is.

    fn look(&mut self) -> Step {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Self::refuse(Refusal::Busy);
        }
        self.go(Phase::Looking, Effect::ReadEntry(self.stem.clone()))
    }

    fn enter(&mut self, entry: Entry, context: &mut Context<'_>) -> Step {
        let in_use = entry.slots.as_ref().map_or(0, |slots| slots.in_use);
        self.slots.clone_from(&entry.slots);
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
        if let Some(foreign) = entry.foreign {
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

    fn enter_active(
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

    fn enter_reserved(
        &mut self,
        user: &UserRecord,
        reservation: &Reservation,
        last_hold: Option<&HoldRecord>,
        in_use: u32,
        context: &mut Context<'_>,
    ) -> Step {
        let wants_hold = self.wish.intent == Intent::Hold;
        if timing::expired(reservation.until, context.now) {
            if wants_hold && let Some(refusal) = self.throttle(last_hold, context.now) {
                return Self::refuse(refusal);
            }
            return self.go(Phase::ReadingOwn, Effect::ReadReservation(self.stem.clone()));
        }
        match reservation.kind {
            ReservationKind::Hold if wants_hold => Next::Done(Ok(Granted::Held {
                until: Some(reservation.until),
                eviction: None,
                in_use,
            })),
            ReservationKind::Hold if reservation.until > context.now => {
                self.use_hold(user, reservation, context)
            }
            ReservationKind::Register if wants_hold => Next::Done(Ok(Granted::Held {
                until: Some(reservation.until),
                eviction: None,
                in_use,
            })),
            _ => {
                let free = timing::after(reservation.until, SKEW);
                Self::refuse(Refusal::InProgress {
                    retry_after: timing::seconds_until(free, context.now),
                })
            }
        }
    }

    /// Whether a hold may be given now.
    fn throttle(&self, last: Option<&HoldRecord>, now: Timestamp) -> Option<Refusal> {
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

    fn find_place(&mut self, slots: &Slots, context: &mut Context<'_>) -> Step {
        if slots.in_use < self.wish.max {
            return self.reserve_free(context);
        }
        let expired = slots
            .held
            .iter()
            .filter(|(_, held)| timing::expired(held.until, context.now))
            .min_by_key(|(stem, held)| (held.until, (*stem).clone()));
        if let Some((stem, _)) = expired {
            let stem = stem.clone();
            return self.go(Phase::ReadingExpired, Effect::ReadReservation(stem));
        }
        self.go(Phase::Nominating, Effect::ReadCandidates(self.wish.policy))
    }

    /// Whether `user` holds a place unused that this wish may use.
    fn may_use(&self, user: &UserRecord) -> bool {
        self.wish.intent == Intent::Register
            && user
                .reservation()
                .is_some_and(|reservation| reservation.kind == ReservationKind::Hold)
    }

    // Reservations.

    /// A reservation of this attempt that owes `after`.
    fn reservation(&self, after: Vec<UpstreamId>, context: &mut Context<'_>) -> UserRecord {
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
            rev: self.author.attempt.first_revision(),
            created_at: context.now,
            protected: false,
            state: UserState::Reserved(Reservation {
                kind,
                attempt: self.author.attempt.clone(),
                upstream,
                until,
                after,
            }),
        }
    }

    fn ghost(&self, upstream: &UpstreamId, was: Option<Holder>, now: Timestamp) -> Ghost {
        Ghost {
            upstream: upstream.clone(),
            rev: self.author.attempt.first_revision(),
            state: GhostState::Due,
            by: self.author.attempt.clone(),
            waits: Some(self.stem.clone()),
            was: was.map(Box::new),
            sent_at: now,
            accepted_at: None,
        }
    }

    /// The ghosts of a place that is taken over: this attempt's, and not to be undone any more.
    fn inherit(&self, ghosts: &[Ghost]) -> Vec<Ghost> {
        ghosts
            .iter()
            .map(|ghost| Ghost {
                rev: ghost.rev + 1,
                by: self.author.attempt.clone(),
                waits: Some(self.stem.clone()),
                was: None,
                ..ghost.clone()
            })
            .collect()
    }

    /// Writes a reservation that makes a place this attempt's.
    fn reserve(&mut self, taking: Taking<'_>, context: &Context<'_>) -> Step {
        let Taking {
            step,
            action,
            guard,
            in_use,
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
        let held = HeldPlace {
            attempt: reservation.attempt.clone(),
            until: reservation.until,
            kind: reservation.kind,
        };
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
        let slots = SlotsChange::Transition(Transition {
            guard,
            in_use,
            hold: vec![(self.stem.clone(), held)],
            release,
            gives_up: false,
        });
        let mut audit = vec![self.author.audit(&self.stem, action, detail)];
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
    fn no_foreign(&self) -> Write {
        Write::Foreign {
            stem: self.stem.clone(),
            extra: None,
            expect: Expect::Absent,
            becomes: Change::Same,
        }
    }

    fn reserve_free(&mut self, context: &mut Context<'_>) -> Step {
        if self
            .slots
            .as_ref()
            .is_some_and(|slots| slots.held.len() >= MAX_HELD)
        {
            return Self::refuse(Refusal::Busy);
        }
        let place = Place::new(self.reservation(Vec::new(), context), Vec::new());
        let writes = vec![self.no_foreign()];
        let guard = Guard::Room { max: self.wish.max };
        let taking = Taking {
            guard,
            in_use: 1,
            ..Taking::new("reserve", "place.reserved", place, writes)
        };
        self.reserve(taking, context)
    }

    fn replace_foreign(&mut self, foreign: &ForeignRecord, context: &mut Context<'_>) -> Step {
        let ghost = self.ghost(&foreign.upstream, None, context.now);
        let writes = vec![
            Write::Foreign {
                stem: self.stem.clone(),
                extra: foreign.extra.then(|| foreign.upstream.clone()),
                expect: Expect::Revision(foreign.rev),
                becomes: Change::Gone,
            },
            put_new_ghost(&ghost),
        ];
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

    fn renew(&mut self, user: &UserRecord, active: &ActiveUser, context: &mut Context<'_>) -> Step {
        let ghost = self.ghost(&active.upstream, None, context.now);
        let writes = vec![put_new_ghost(&ghost)];
        let mut record = self.reservation(vec![active.upstream.clone()], context);
        record.rev = user.rev + 1;
        record.protected = user.protected;
        let place = Place::new(record, vec![ghost]);
        let detail = [("replaces", active.upstream.as_str())];
        let expect = Expect::Revision(user.rev);
        let taking = Taking {
            expect,
            detail: &detail,
            ..Taking::new("renew", "place.renewed", place, writes)
        };
        self.reserve(taking, context)
    }

    fn use_hold(&mut self, user: &UserRecord, reservation: &Reservation, context: &mut Context<'_>) -> Step {
        if !reservation.after.is_empty() {
            // Whoever was clearing the place may be gone; what it owes goes over with it.
            return self.go(Phase::ReadingOwn, Effect::ReadReservation(self.stem.clone()));
        }
        let mut record = self.reservation(Vec::new(), context);
        record.rev = user.rev + 1;
        if let UserState::Reserved(mine) = &mut record.state {
            mine.until = mine.until.max(reservation.until);
        }
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
    fn take_over(&mut self, old: &UserRecord, ghosts: &[Ghost], context: &mut Context<'_>) -> Step {
        let Some((record, ghosts, mut writes)) = self.taken(old, ghosts, context) else {
            return Self::refuse(Refusal::DeletionPending { retry_after: 60 });
        };
        if self.may_use(old) {
            writes.push(Write::Hold {
                stem: self.stem.clone(),
                becomes: Change::Gone,
            });
        }
        let record = UserRecord {
            rev: old.rev + 1,
            protected: old.protected,
            ..record
        };
        let place = Place::new(record, ghosts);
        let expect = Expect::Revision(old.rev);
        let taking = Taking {
            expect,
            ..Taking::new("takeover", "place.taken_over", place, writes)
        };
        self.reserve(taking, context)
    }

    /// Takes another user's reservation, which ran out of time.
    fn take_expired(&mut self, old: &UserRecord, ghosts: &[Ghost], context: &mut Context<'_>) -> Step {
        let Some((record, ghosts, mut writes)) = self.taken(old, ghosts, context) else {
            return Self::refuse(Refusal::Busy);
        };
        let theirs = old.user_id.stem();
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
    fn taken(
        &self,
        old: &UserRecord,
        ghosts: &[Ghost],
        context: &mut Context<'_>,
    ) -> Option<(UserRecord, Vec<Ghost>, Vec<Write>)> {
        let reservation = old.reservation()?;
        let mut after = reservation.after.clone();
        let mut inherited = self.inherit(ghosts);
        let mut writes: Vec<Write> = ghosts
            .iter()
            .zip(&inherited)
            .map(|(was, is)| put_ghost(was.rev, is))
            .collect();
        if let Some(upstream) = &reservation.upstream {
            let ghost = self.ghost(upstream, None, context.now);
            writes.push(put_new_ghost(&ghost));
            after.push(upstream.clone());
            inherited.push(ghost);
        }
        (after.len() <= MAX_OWED).then(|| (self.reservation(after, context), inherited, writes))
    }

    fn evict(&mut self, candidates: &[Holder], context: &mut Context<'_>) -> Step {
        let Some(slots) = self.slots.clone() else {
            return self.look();
        };
        let eligible = self.without_excluded(candidates);
        let Some((victim, reason)) = policy::choose(self.wish.policy, &eligible) else {
            let soonest = slots
                .held
                .values()
                .map(|held| timing::after(held.until, SKEW))
                .min();
            let retry_after = soonest
                .filter(|_| self.wish.policy != Policy::None)
                .map(|at| timing::seconds_until(at, context.now));
            return Self::refuse(Refusal::LimitReached { retry_after });
        };
        let Some(upstream) = victim.upstream().cloned() else {
            return self.look();
        };
        let ghost = self.ghost(&upstream, Some(victim.clone()), context.now);
        let eviction = Eviction {
            user_id: victim.shown_user_id().to_owned(),
            reason,
            created_at: victim.created_at(),
        };
        let writes = vec![remove(victim), put_new_ghost(&ghost), self.no_foreign()];
        let record = self.reservation(vec![upstream.clone()], context);
        let place = Place::new(record, vec![ghost]);
        let reason = reason_word(reason);
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

    fn without_excluded(&self, candidates: &[Holder]) -> Vec<Holder> {
        let excluded = self.excluded.as_ref().and_then(Holder::upstream);
        candidates
            .iter()
            .filter(|holder| excluded.is_none() || holder.upstream() != excluded)
            .cloned()
            .collect()
    }

    fn reserved(&mut self, place: Place, outcome: CommitOutcome, context: &mut Context<'_>) -> Step {
        match outcome {
            CommitOutcome::Won => {
                if let Some(slots) = &mut self.slots
                    && self.eviction.is_none()
                    && slots.in_use < self.wish.max
                    && place.owed().is_empty()
                {
                    slots.in_use += 1;
                }
                self.place = Some(place);
                self.clear(context)
            }
            CommitOutcome::Unknown => Self::refuse(Refusal::Busy),
            CommitOutcome::Lost(obstacles) => {
                self.eviction = None;
                let mine = obstacles.iter().any(|obstacle| {
                    matches!(obstacle, Obstacle::User(_, Some(user))
                        if user.reservation().is_some_and(|r| r.attempt == self.author.attempt))
                });
                if mine {
                    self.place = Some(place);
                    return self.clear(context);
                }
                self.look()
            }
        }
    }

    // Having SnapTrade accept what the place owes.

    fn clear(&mut self, context: &mut Context<'_>) -> Step {
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

    fn clearing(&mut self, clearing: Clearing, next: Next<Cleared>, context: &mut Context<'_>) -> Step {
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
    fn undo(&mut self, upstream: &UpstreamId, fault: Fault, context: &mut Context<'_>) -> Step {
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
        let slots = SlotsChange::Transition(Transition {
            guard: Guard::Any,
            in_use: 0,
            hold: Vec::new(),
            release: vec![self.stem.clone()],
            gives_up: false,
        });
        let audit = vec![
            self.author.audit(
                &self.stem,
                "place.undone",
                &[("restored", victim.shown_user_id())],
            ),
            self.author.audit(&victim.stem(), "user.restored", &[]),
        ];
        let commit = self.author.commit("undo", context.now, slots, writes, audit);
        self.excluded = Some(victim);
        self.go(Phase::Undoing(fault), Effect::Commit(commit))
    }

    fn undone(&mut self, fault: Fault, outcome: &CommitOutcome, context: &mut Context<'_>) -> Step {
        if *outcome != CommitOutcome::Won {
            return self.give_up(Refusal::Snaptrade(fault), context);
        }
        self.place = None;
        self.eviction = None;
        // One other may be asked to give way, where the refusal was about this id and not about us.
        let about_the_id = fault == Fault::Error && self.evictions == 0;
        self.evictions += 1;
        if about_the_id && timing::may_call(Timestamp::MAX, context.deadline, context.now) {
            // A new reservation is a new attempt: its id has to be fresh.
            let actor = self.author.actor.clone();
            self.author = Author::new((context.draw)(), actor);
            return self.look();
        }
        Self::refuse(Refusal::Snaptrade(fault))
    }

    fn cleared(&mut self, context: &mut Context<'_>) -> Step {
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

    fn held(&self, until: Timestamp) -> Step {
        let in_use = self.slots.as_ref().map_or(0, |slots| slots.in_use);
        Next::Done(Ok(Granted::Held {
            until: Some(until),
            eviction: self.eviction.clone(),
            in_use,
        }))
    }

    /// Notes that the place owes nothing any more and waits for its user until `until`.
    fn settle(&mut self, until: Timestamp, context: &Context<'_>) -> Step {
        let Some(place) = &self.place else {
            return Self::refuse(Refusal::Busy);
        };
        let record = UserRecord {
            rev: place.record.rev + 1,
            state: UserState::Reserved(Reservation {
                kind: ReservationKind::Hold,
                attempt: self.author.attempt.clone(),
                upstream: None,
                until,
                after: Vec::new(),
            }),
            ..place.record.clone()
        };
        let mut writes = place.accepted_ghosts(context.now);
        writes.push(Write::User {
            stem: self.stem.clone(),
            expect: Expect::Revision(place.record.rev),
            becomes: Change::Put(Box::new(record)),
        });
        let held = HeldPlace {
            attempt: self.author.attempt.clone(),
            until,
            kind: ReservationKind::Hold,
        };
        let slots = SlotsChange::Transition(Transition {
            guard: Guard::Any,
            in_use: 0,
            hold: vec![(self.stem.clone(), held)],
            release: Vec::new(),
            gives_up: false,
        });
        let audit = vec![self.author.audit(&self.stem, "place.held", &[])];
        let commit = self.author.commit("settle", context.now, slots, writes, audit);
        let next = if self.wish.intent == Intent::Hold {
            Phase::Settling
        } else {
            Phase::Ending(Refusal::DeletionPending { retry_after: 10 })
        };
        self.go(next, Effect::Commit(commit))
    }

    fn settled(&self, outcome: &CommitOutcome) -> Step {
        match (&self.place, outcome) {
            (Some(place), CommitOutcome::Won) => self.held(place.until()),
            // The place may have been taken meanwhile; the caller finds out by asking again.
            _ => Self::refuse(Refusal::Busy),
        }
    }

    // Registering.

    fn enrol(&mut self, context: &mut Context<'_>) -> Step {
        let Some(place) = &self.place else {
            return Self::refuse(Refusal::Busy);
        };
        let Some(upstream) = place.upstream() else {
            return Self::refuse(Refusal::Busy);
        };
        if !timing::may_call(place.until(), context.deadline, context.now) {
            return self.give_up(Refusal::Snaptrade(Fault::Timeout), context);
        }
        self.go(Phase::Enrolling, Effect::Register(upstream, self.stem.clone()))
    }

    fn enrolled(&mut self, enrolment: Enrolment, context: &mut Context<'_>) -> Step {
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
    fn retire(&mut self, fault: Fault, context: &mut Context<'_>) -> Step {
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
    fn rename(&mut self, context: &mut Context<'_>) -> Step {
        self.rewrite("rename", "place.renamed", None, Vec::new(), context)
    }

    fn rewrite(
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
        place.ghosts.extend(ghost);
        writes.push(Write::User {
            stem: self.stem.clone(),
            expect,
            becomes: Change::Put(Box::new(place.record.clone())),
        });
        let slots = self.unchanged_slots();
        let audit = vec![self.author.audit(&self.stem, action, &[])];
        let commit = self.author.commit(step, context.now, slots, writes, audit);
        self.go(Phase::Retiring(Box::new(place)), Effect::Commit(commit))
    }

    fn unchanged_slots(&self) -> SlotsChange {
        SlotsChange::Transition(Transition {
            guard: Guard::Any,
            in_use: 0,
            hold: Vec::new(),
            release: Vec::new(),
            gives_up: false,
        })
    }

    fn activate(&mut self, secret: SealedSecret, context: &mut Context<'_>) -> Step {
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
            rev: place.record.rev + 1,
            created_at: context.now,
            protected: place.record.protected,
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
        let slots = SlotsChange::Transition(Transition {
            guard: Guard::Any,
            in_use: 0,
            hold: Vec::new(),
            release: vec![self.stem.clone()],
            gives_up: false,
        });
        let audit = vec![self.author.audit(
            &self.stem,
            "user.registered",
            &[("upstream_id", upstream.as_str())],
        )];
        let commit = self.author.commit("activate", context.now, slots, writes, audit);
        self.go(Phase::Activating(secret), Effect::Commit(commit))
    }

    fn activated(
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
    fn confirm(&mut self, secret: SealedSecret, entry: &Entry, context: &mut Context<'_>) -> Step {
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
        match upstream.filter(|_| !self.activation_unknown) {
            Some(upstream) => self.go(Phase::Withdrawing, Effect::Delete(upstream)),
            None => Self::refuse(Refusal::InProgress { retry_after: 2 }),
        }
    }

    fn reread(
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

    fn registered(&self, created_at: Timestamp) -> Step {
        let in_use = self.slots.as_ref().map_or(1, |slots| slots.in_use);
        Next::Done(Ok(Granted::Registered {
            created: true,
            created_at,
            eviction: self.eviction.clone(),
            in_use,
        }))
    }

    // "Limit reached" from SnapTrade, though there was room by our own count.

    fn refused_for_the_limit(&mut self, context: &mut Context<'_>) -> Step {
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
    fn settle_pending(&mut self, context: &Context<'_>) -> Step {
        self.settle(timing::after(context.now, HOLD), context)
    }

    fn weigh(&mut self, list: Vec<UpstreamId>, roster: Roster, context: &mut Context<'_>) -> Step {
        let own = self.place.as_ref().and_then(Place::upstream);
        let unknown: Vec<(u32, UpstreamId)> = unknown_ids(&list, &roster)
            .into_iter()
            .filter(|(_, id)| Some(id) != own.as_ref())
            .collect();
        let mut adoption = Adoption::new(self.author.clone(), unknown);
        let next = adoption.advance(Input::Begin, context);
        self.adopting(adoption, next, list, roster, context)
    }

    fn adopting(
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
                self.make_room(&list, &roster, context)
            }
        }
    }

    fn make_room(&mut self, list: &[UpstreamId], roster: &Roster, context: &mut Context<'_>) -> Step {
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
        if full && already < 2 {
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
        if already == 0 {
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

    fn wait_to_enrol(&mut self, pause: Duration, context: &mut Context<'_>) -> Step {
        let until = self.place.as_ref().map_or(Timestamp::MIN, Place::until);
        let later = timing::after(context.now, pause);
        if !timing::may_call(until, context.deadline, timing::after(later, CALL)) {
            return self.settle_pending(context);
        }
        self.go(Phase::PausingBeforeEnrolling, Effect::Wait(pause))
    }

    /// One user gives way without its place being taken: SnapTrade has less room than was thought.
    fn shrink(&mut self, candidates: &[Holder], context: &mut Context<'_>) -> Step {
        let Some(mut place) = self.place.clone() else {
            return Self::refuse(Refusal::Busy);
        };
        let eligible = self.without_excluded(candidates);
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
        let slots = SlotsChange::Transition(Transition {
            guard: Guard::Any,
            in_use: -1,
            hold: Vec::new(),
            release: Vec::new(),
            gives_up: false,
        });
        let reason = reason_word(reason);
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

    fn shrunk(
        &mut self,
        place: Place,
        eviction: Eviction,
        outcome: &CommitOutcome,
        context: &mut Context<'_>,
    ) -> Step {
        match outcome {
            CommitOutcome::Won => {
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

    // Ending without a registration.

    /// Lets the reservation go before its time. The place, what it owes and the id stay written, so that the next
    /// caller takes them over or the sync clears them.
    fn give_up(&mut self, refusal: Refusal, context: &Context<'_>) -> Step {
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
        reservation.until = Timestamp::UNIX_EPOCH;
        let held = HeldPlace {
            attempt: reservation.attempt.clone(),
            until: Timestamp::UNIX_EPOCH,
            kind: reservation.kind,
        };
        let mut writes = vec![Write::User {
            stem: self.stem.clone(),
            expect: Expect::Revision(place.record.rev),
            becomes: Change::Put(Box::new(record)),
        }];
        if self.wish.intent == Intent::Hold {
            // The caller did not let it lapse: SnapTrade did.
            writes.push(Write::Hold {
                stem: self.stem.clone(),
                becomes: Change::Gone,
            });
        }
        let slots = SlotsChange::Transition(Transition {
            guard: Guard::Any,
            in_use: 0,
            hold: vec![(self.stem.clone(), held)],
            release: Vec::new(),
            gives_up: true,
        });
        let audit = vec![self.author.audit(&self.stem, "place.given_up", &[])];
        let commit = self.author.commit("giveup", context.now, slots, writes, audit);
        self.go(Phase::Ending(refusal), Effect::Commit(commit))
    }

    /// Frees the place: everything it owed is cleared, and its id was refused for certain.
    fn release(&mut self, refusal: Refusal, context: &Context<'_>) -> Step {
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
        let slots = SlotsChange::Transition(Transition {
            guard: Guard::Any,
            in_use: -1,
            hold: Vec::new(),
            release: vec![self.stem.clone()],
            gives_up: false,
        });
        let audit = vec![self.author.audit(&self.stem, "place.released", &[])];
        let commit = self.author.commit("release", context.now, slots, writes, audit);
        self.go(Phase::Ending(refusal), Effect::Commit(commit))
    }

    fn opening(&mut self, opening: Opening, next: Next<Opened>) -> Step {
        match next {
            Next::Do(effect) => self.go(Phase::Opening(Box::new(opening)), effect),
            Next::Done(Opened::Open { author, .. }) => {
                self.author = author;
                self.look()
            }
            Next::Done(Opened::Fault(fault)) => Self::refuse(Refusal::Snaptrade(fault)),
            Next::Done(Opened::Busy) => Self::refuse(Refusal::Busy),
        }
    }
}

impl Machine for Registration {
    type Output = Result<Granted, Refusal>;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Step {
        match (std::mem::replace(&mut self.phase, Phase::Start), input) {
            (Phase::Start, Input::Begin) => self.look(),
            (Phase::Looking, Input::Entry(entry)) => self.enter(*entry, context),
            (Phase::Opening(mut opening), input) => {
                let next = opening.advance(input, context);
                self.opening(*opening, next)
            }
            (Phase::Reserving(place, commit, sends), Input::Committed(CommitOutcome::Unknown))
                if sends < MAX_COMMITS =>
            {
                // The same commit under the same token is not made twice.
                self.go(
                    Phase::Reserving(place, commit.clone(), sends + 1),
                    Effect::Commit(commit),
                )
            }
            (Phase::Reserving(place, ..), Input::Committed(outcome)) => {
                self.reserved(*place, outcome, context)
            }
            (Phase::ReadingOwn, Input::Reservation(Some(user), ghosts))
                if is_expired(&user, context.now) || self.may_use(&user) =>
            {
                self.take_over(&user, &ghosts, context)
            }
            (Phase::ReadingExpired, Input::Reservation(Some(user), ghosts))
                if is_expired(&user, context.now) =>
            {
                self.take_expired(&user, &ghosts, context)
            }
            (Phase::ReadingOwn | Phase::ReadingExpired, Input::Reservation(..)) => self.look(),
            (Phase::Nominating, Input::Candidates(candidates)) => self.evict(&candidates, context),
            (Phase::Clearing(mut clearing), input) => {
                let next = clearing.advance(input, context);
                self.clearing(*clearing, next, context)
            }
            (Phase::Undoing(fault), Input::Committed(outcome)) => self.undone(fault, &outcome, context),
            (Phase::Enrolling, Input::Registered(enrolment)) => self.enrolled(enrolment, context),
            (Phase::PausingBeforeEnrolling, Input::Waited) => self.enrol(context),
            (Phase::Activating(secret), Input::Committed(outcome)) => {
                self.activated(secret, &outcome, context)
            }
            (Phase::RereadingGhosts(secret), Input::Reservation(user, ghosts)) => {
                self.reread(secret, user.map(|user| *user), ghosts, context)
            }
            (Phase::Confirming(secret), Input::Entry(entry)) => self.confirm(secret, &entry, context),
            (Phase::Withdrawing, Input::Deleted(_)) => Self::refuse(Refusal::InProgress { retry_after: 2 }),
            (Phase::Retiring(place), Input::Committed(CommitOutcome::Won)) => {
                self.place = Some(*place);
                self.clear(context)
            }
            (Phase::Settling, Input::Committed(outcome)) => self.settled(&outcome),
            (Phase::ListingForLimit, Input::Listed(Ok(list))) => {
                self.go(Phase::ReadingForLimit(list), Effect::ReadRoster)
            }
            (Phase::ListingForLimit, Input::Listed(Err(fault))) => {
                self.give_up(Refusal::Snaptrade(fault), context)
            }
            (Phase::ReadingForLimit(list), Input::Roster(roster)) => self.weigh(list, *roster, context),
            (Phase::AdoptingForLimit(mut adoption, list, roster), input) => {
                let next = adoption.advance(input, context);
                self.adopting(*adoption, next, list, roster, context)
            }
            (Phase::NominatingForLimit, Input::Candidates(candidates)) => self.shrink(&candidates, context),
            (Phase::Shrinking(place, eviction), Input::Committed(outcome)) => {
                self.shrunk(*place, eviction, &outcome, context)
            }
            (Phase::Ending(refusal), _) => Self::refuse(refusal),
            _ => Self::refuse(Refusal::Busy),
        }
    }
}

/// Whether a reservation ran out of time.
fn is_expired(user: &UserRecord, now: Timestamp) -> bool {
    user.reservation()
        .is_some_and(|reservation| timing::expired(reservation.until, now))
}

/// Writes a ghost that was not there.
#[must_use]
pub fn put_new_ghost(ghost: &Ghost) -> Write {
    Write::Ghost {
        upstream: ghost.upstream.clone(),
        expect: Expect::Absent,
        becomes: Change::Put(Box::new(ghost.clone())),
    }
}

/// Writes a ghost that was at revision `rev`.
fn put_ghost(rev: u64, ghost: &Ghost) -> Write {
    Write::Ghost {
        upstream: ghost.upstream.clone(),
        expect: Expect::Revision(rev),
        becomes: Change::Put(Box::new(ghost.clone())),
    }
}

/// Removes a holder as it was read.
fn remove(holder: &Holder) -> Write {
    match holder {
        Holder::User(user) => Write::User {
            stem: user.user_id.stem(),
            expect: Expect::Revision(user.rev),
            becomes: Change::Gone,
        },
        Holder::Foreign(foreign) => Write::Foreign {
            stem: foreign.upstream.stem(),
            extra: foreign.extra.then(|| foreign.upstream.clone()),
            expect: Expect::Revision(foreign.rev),
            becomes: Change::Gone,
        },
    }
}

/// Puts a holder back where nobody has come since.
fn restore(holder: &Holder) -> Write {
    match holder.clone() {
        Holder::User(mut user) => {
            user.rev += 1;
            Write::User {
                stem: user.user_id.stem(),
                expect: Expect::Absent,
                becomes: Change::Put(Box::new(user)),
            }
        }
        Holder::Foreign(mut foreign) => {
            foreign.rev += 1;
            Write::Foreign {
                stem: foreign.upstream.stem(),
                extra: foreign.extra.then(|| foreign.upstream.clone()),
                expect: Expect::Absent,
                becomes: Change::Put(Box::new(foreign)),
            }
        }
    }
}

fn reason_word(reason: Reason) -> &'static str {
    match reason {
        Reason::Oldest => "oldest",
        Reason::LeastRecentlyActive => "least_recently_active",
        Reason::Broken => "broken",
    }
}
