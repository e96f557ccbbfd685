//! Getting a user a place and registering it at SnapTrade, from the first look to the stored secret.
//!
//! The steps in order: look at what is there; reserve a place (a free one, one whose holder ran out of time, or that
//! of a user who gives way); have SnapTrade accept the deletion of every id that the place still owes; register an id
//! that was never used before; store its secret. Whatever is interrupted leaves a reservation that says what is owed,
//! so that the next caller or the sync can go on from there.

mod ending;
mod enrolling;
mod entering;
mod limit_refused;
mod owed;
mod place;
mod reserving;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use self::place::{Place, Taking};
use super::adoption::{Adopted, Adoption};
use super::clearing::{Cleared, Clearing, SHORT_WAIT, deletion_refused};
use super::machine::{
    Author, Census, Change, Commit, CommitOutcome, Context, Effect, Enrolment, Entry, Expect, Fault, Guard,
    Input, Machine, Next, Obstacle, Roster, SlotsChange, Transition, Write,
};
use super::opening::{Opened, Opening, unknown_ids};
use super::policy::{self, Reason};
use super::records::{
    ActiveUser, ConnectionsRecord, ForeignRecord, Ghost, GhostState, HeldPlace, HoldRecord, Holder,
    LastEviction, Reservation, ReservationKind, Slots, UserRecord, UserState,
};
use super::timing::{self, CALL, HOLD, HOLD_AGAIN, LEASE, SKEW};
use super::writes::{
    Inherited, accept, connections_of, inherit, new_ghost, no_connections, put_ghost, put_new_ghost, remove,
    remove_foreign, restore, with_its_connections,
};
use crate::config::{Counts, Policy};
use crate::ids::{Stem, UpstreamId, UserId};
use crate::user_secrets::SealedSecret;

/// Most ids that one place may owe. A place that owes more is left to the sync.
const MAX_OWED: usize = 8;

/// Most reservations at a time; they are kept in one item.
pub const MAX_HELD: usize = 100;

/// How often the whole decision is begun anew when others were faster.
const MAX_ROUNDS: u32 = 8;

/// How long the index is given to show somebody who holds a place.
const INDEX_PAUSE: Duration = Duration::from_millis(300);

/// How often a reservation is sent whose outcome the store does not tell.
const MAX_COMMITS: u32 = 3;

/// How many ids SnapTrade may refuse to delete before a newcomer is told.
const MAX_KEPT: u32 = 3;

/// How often a stored secret's write is decided anew.
const MAX_ACTIVATIONS: u32 = 3;

/// How often SnapTrade is asked again that says "limit reached" though there is room by its own list.
const MAX_REFUSALS_WITH_ROOM: u32 = 2;

/// What the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// To be registered.
    Register,
    /// A place that waits for them.
    Hold,
    /// To be registered anew, whatever stands at SnapTrade under their name.
    Recreate,
}

/// A user's wish for a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Eviction {
    /// The id as clients know it.
    pub user_id: String,
    /// Why.
    pub reason: Reason,
    /// When that user was registered.
    pub created_at: Timestamp,
}

impl Eviction {
    /// What the places keep of it.
    fn noted(&self, now: Timestamp) -> LastEviction {
        LastEviction {
            user_id: self.user_id.clone(),
            reason: self.reason,
            created_at: self.created_at,
            evicted_at: now,
        }
    }
}

type Step = Next<Result<Granted, Refusal>>;
/// Registers a user, or holds a place for one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Registration {
    wish: Wish,
    stem: Stem,
    author: Author,
    rounds: u32,
    slots: Option<Slots>,
    connections: Option<ConnectionsRecord>,
    place: Option<Place>,
    eviction: Option<Eviction>,
    evictions: u32,
    /// How many ids SnapTrade refused to delete.
    kept: u32,
    /// Why SnapTrade kept the one who was to give way.
    kept_by_snaptrade: Option<Fault>,
    excluded: BTreeSet<UpstreamId>,
    retired_own: bool,
    renamed: bool,
    waited_for_rate: bool,
    limit_refusals: u32,
    activations: u32,
    activation_unknown: bool,
    activated_at: Option<Timestamp>,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Start,
    Looking,
    PausingBeforeLooking,
    Opening(Box<Opening>),
    /// A reservation is being written; it is this attempt's if it is.
    Reserving(Box<Place>, Box<Commit>, u32),
    /// The user's own place is being read, which ran out of time.
    ReadingOwn,
    /// Another user's place is being read, which ran out of time.
    ReadingExpired(Stem),
    Forgetting,
    Nominating,
    Explaining,
    Clearing(Box<Clearing>),
    Undoing(Fault),
    SettingAside(Fault),
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
            connections: None,
            place: None,
            eviction: None,
            evictions: 0,
            kept: 0,
            kept_by_snaptrade: None,
            excluded: BTreeSet::new(),
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

    fn opening(&mut self, opening: Opening, next: Next<Opened>) -> Step {
        match next {
            Next::Do(effect) => self.go(Phase::Opening(Box::new(opening)), effect),
            Next::Done(Opened::Open { author, .. }) => {
                self.author = author;
                self.look()
            }
            Next::Done(Opened::Fault(fault)) => Self::refuse(Refusal::Snaptrade(fault)),
            // The next caller, or the sync, goes on with it.
            Next::Done(Opened::Unfinished { .. } | Opened::Busy) => Self::refuse(Refusal::Busy),
        }
    }
}
impl Machine for Registration {
    type Output = Result<Granted, Refusal>;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Step {
        match (std::mem::replace(&mut self.phase, Phase::Start), input) {
            (Phase::Start, Input::Begin) => self.look(),
            (Phase::PausingBeforeLooking, Input::Waited) => self.look(),
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
            (Phase::Reserving(place, commit, _), Input::Committed(outcome)) => {
                self.reserved(*place, &commit, outcome, context)
            }
            (Phase::Forgetting, Input::Committed(_)) => self.look(),
            (Phase::ReadingOwn, Input::Reservation(Some(user), ghosts))
                if user.attempt_ended(context.now) || self.may_use(&user) =>
            {
                self.take_over(&user, &ghosts, context)
            }
            (Phase::ReadingExpired(_), Input::Reservation(Some(user), ghosts))
                if user.is_expired(context.now) =>
            {
                self.take_expired(&user, &ghosts, context)
            }
            (Phase::ReadingExpired(stem), Input::Reservation(None, _)) => {
                self.forget_reservation(&stem, context)
            }
            (Phase::ReadingOwn | Phase::ReadingExpired(_), Input::Reservation(..)) => self.look(),
            (Phase::Nominating, Input::Candidates(candidates)) => self.evict(&candidates, context),
            (Phase::Explaining, Input::Counted(census)) => self.explain(&census, context),
            (Phase::Clearing(mut clearing), input) => {
                let next = clearing.advance(input, context);
                self.clearing(*clearing, next, context)
            }
            (Phase::Undoing(fault) | Phase::SettingAside(fault), Input::Committed(outcome)) => {
                self.undone(fault, &outcome, context)
            }
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
            // Only a place that was settled is kept.
            (Phase::Ending(Refusal::DeletionPending { .. }), Input::Committed(outcome))
                if outcome != CommitOutcome::Won =>
            {
                Self::refuse(Refusal::Busy)
            }
            (Phase::Ending(refusal), _) => Self::refuse(refusal),
            _ => Self::refuse(Refusal::Busy),
        }
    }
}
