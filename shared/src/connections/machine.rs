//! What the decisions of this room speak in: what they want done, what they are told, and what they write.
//!
//! A machine is a decision that takes several steps: it is told what happened and says what to do next. It reads no
//! clock, draws no random number and does no I/O; [`super::runner`] does that for it, and a model checker can do it
//! in the runner's place.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::records::{
    ForeignRecord, Ghost, HeldPlace, HoldRecord, Holder, LastEviction, Slots, SyncRecord, UserRecord,
};
use crate::config::Policy;
use crate::ids::{AttemptId, Stem, UpstreamId};
use crate::user_secrets::SealedSecret;

/// A decision of several steps.
pub trait Machine {
    /// What comes of it in the end.
    type Output;

    /// Takes what happened and says what to do next.
    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Next<Self::Output>;
}

/// What a machine wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Next<O> {
    /// Do this and tell what came of it.
    Do(Effect),
    /// It is finished.
    Done(O),
}

/// What a machine may know of the world at a step.
pub struct Context<'a> {
    /// The time.
    pub now: Timestamp,
    /// When the function has to have answered.
    pub deadline: Timestamp,
    /// Draws a name that nobody else has.
    pub draw: &'a mut dyn FnMut() -> AttemptId,
}

/// Something to be done outside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Read all that decides about a user: answers [`Input::Entry`].
    ReadEntry(Stem),
    /// Read a user's record and the ghosts that its place waits for: answers [`Input::Reservation`].
    ReadReservation(Stem),
    /// Read who might give way by a policy, each as it is now: answers [`Input::Candidates`].
    ReadCandidates(Policy),
    /// Read all holders and ghosts through the index: answers [`Input::Roster`].
    ReadRoster,
    /// Read the sync's record: answers [`Input::SyncRecord`].
    ReadSync,
    /// Make these writes, or none: answers [`Input::Committed`].
    Commit(Box<Commit>),
    /// Ask SnapTrade once to delete an id: answers [`Input::Deleted`].
    Delete(UpstreamId),
    /// Ask SnapTrade once to register an id: answers [`Input::Registered`].
    Register(UpstreamId, Stem),
    /// Read SnapTrade's list of ids: answers [`Input::Listed`].
    List,
    /// Ask SnapTrade something that only this user's secret opens: answers [`Input::Probed`].
    ProbeUser(Box<UserRecord>),
    /// Ask SnapTrade something that our own credentials open: answers [`Input::ProbedCredentials`].
    ProbeCredentials,
    /// Let time pass: answers [`Input::Waited`].
    Wait(Duration),
}

/// What came of an effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// The first step: nothing happened yet.
    Begin,
    /// All that decides about a user.
    Entry(Box<Entry>),
    /// A user's record and the ghosts that its place waits for.
    Reservation(Option<Box<UserRecord>>, Vec<Ghost>),
    /// Who might give way.
    Candidates(Vec<Holder>),
    /// All holders and ghosts.
    Roster(Box<Roster>),
    /// The sync's record.
    SyncRecord(Option<SyncRecord>),
    /// How a commit ended.
    Committed(CommitOutcome),
    /// How a deletion went.
    Deleted(Deletion),
    /// How a registration went.
    Registered(Enrolment),
    /// The list, or why there is none.
    Listed(Result<Vec<UpstreamId>, Fault>),
    /// What the user's secret is worth.
    Probed(SecretStanding),
    /// Whether SnapTrade accepts our own credentials.
    ProbedCredentials(bool),
    /// The time has passed.
    Waited,
}

/// All that decides about a user, read at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Entry {
    /// The user's own record.
    pub user: Option<UserRecord>,
    /// What SnapTrade lists of this user without a secret here, oldest first.
    pub foreign: Vec<ForeignRecord>,
    /// The last hold that was given to this user.
    pub hold: Option<HoldRecord>,
    /// The places.
    pub slots: Option<Slots>,
}

/// All holders and ghosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Roster {
    /// The places, read consistently.
    pub slots: Option<Slots>,
    /// Users and foreign ones, oldest first.
    pub holders: Vec<Holder>,
    /// Ids that have to go.
    pub ghosts: Vec<Ghost>,
}

/// How a commit ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CommitOutcome {
    /// It was made.
    Won,
    /// It was not, because of these.
    Lost(Vec<Obstacle>),
    /// The store did not say.
    Unknown,
}

/// What stood in the way of a commit, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Obstacle {
    /// The places did not allow it.
    Slots(Option<Box<Slots>>),
    /// A user's record was not as expected.
    User(Stem, Option<Box<UserRecord>>),
    /// A foreign record was not as expected.
    Foreign(Option<Box<ForeignRecord>>),
    /// A ghost was not as expected.
    Ghost(UpstreamId),
    /// The sync's record was not as expected.
    Sync(Option<Box<SyncRecord>>),
    /// Something that no decision hangs on.
    Other,
}

/// How SnapTrade answered a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Deletion {
    /// It is queued, and SnapTrade will do it.
    Queued,
    /// SnapTrade knows no such id.
    NotThere,
    /// SnapTrade refused for certain.
    Refused(Fault),
    /// It is not known whether the deletion took effect.
    Unknown(Fault),
}

/// How SnapTrade answered a registration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Enrolment {
    /// The user is registered; the secret is encrypted already.
    Done(SealedSecret),
    /// The id is taken (a stranger's, since ids are never used twice here).
    Taken,
    /// SnapTrade's own limit is reached.
    LimitReached,
    /// SnapTrade refused for certain.
    Refused(Fault),
    /// It is not known whether the user was registered.
    Unknown(Fault),
}

/// What a user's secret is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretStanding {
    /// SnapTrade answers to it.
    Works,
    /// SnapTrade names the user or the secret as the reason for refusing.
    Rejected,
    /// Neither was said.
    Unclear,
}

/// Why SnapTrade could not be used, as far as a caller should know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It did not answer in time.
    Timeout,
    /// It answered with an error or with nonsense.
    Error,
    /// It wants fewer calls, for so long.
    RateLimited(Duration),
}

/// Writes that are made together or not at all, with what is said of them in the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Commit {
    /// Names the decision; the same text is sent when the same commit is sent again.
    pub token: String,
    /// When it was decided.
    pub at: Timestamp,
    /// What becomes of the places.
    pub slots: SlotsChange,
    /// What becomes of other records.
    pub writes: Vec<Write>,
    /// What is said of it.
    pub audit: Vec<AuditEntry>,
}

/// What becomes of [`Slots`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SlotsChange {
    /// Nothing: the commit takes, moves and frees no place.
    None,
    /// One transition, whatever else happens to the places meanwhile.
    Transition(Transition),
    /// The whole record, where it was absent or at this revision.
    Replace {
        /// The revision that was read; `None` where there was no record.
        expect: Option<u64>,
        /// The new record.
        becomes: Box<Slots>,
    },
}

/// A change of [`Slots`] that leaves room for others to make theirs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Transition {
    /// What has to hold.
    pub guard: Guard,
    /// Added to `in_use`.
    pub in_use: i32,
    /// Reservations that are entered or changed.
    pub hold: Vec<(Stem, HeldPlace)>,
    /// Reservations that end.
    pub release: Vec<Stem>,
    /// Whether a holder gave up before its time.
    pub gives_up: bool,
    /// What becomes of the note on who gave way last.
    pub last_eviction: Change<LastEviction>,
}

impl Transition {
    /// One that adds `in_use` places, whatever else happens to them meanwhile.
    #[must_use]
    pub fn of(in_use: i32) -> Self {
        Self {
            guard: Guard::Any,
            in_use,
            hold: Vec::new(),
            release: Vec::new(),
            gives_up: false,
            last_eviction: Change::Same,
        }
    }

    /// The same, where this holds.
    #[must_use]
    pub fn guarded(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }

    /// The same, with a reservation entered or changed.
    #[must_use]
    pub fn holding(mut self, stem: &Stem, held: HeldPlace) -> Self {
        self.hold.push((stem.clone(), held));
        self
    }

    /// The same, with a reservation ended.
    #[must_use]
    pub fn releasing(mut self, stem: &Stem) -> Self {
        self.release.push(stem.clone());
        self
    }

    /// The same, with a note on who gave way last, or with the older one where that was undone.
    #[must_use]
    pub fn noting(self, last_eviction: Option<LastEviction>) -> Self {
        let last_eviction = last_eviction.map_or(Change::Gone, |last| Change::Put(Box::new(last)));
        Self {
            last_eviction,
            ..self
        }
    }

    /// The same, by a holder who gives up before its time.
    #[must_use]
    pub fn giving_up(self) -> Self {
        Self {
            gives_up: true,
            ..self
        }
    }
}

impl From<Transition> for SlotsChange {
    fn from(transition: Transition) -> Self {
        Self::Transition(transition)
    }
}

/// What has to hold of [`Slots`] for a transition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Guard {
    /// That there are any.
    Any,
    /// They are open and fewer than `max` are in use.
    Room {
        /// The limit.
        max: u32,
    },
    /// They are open, at least `max` are in use, and nobody gave up since they were read.
    Full {
        /// The limit.
        max: u32,
        /// `given_up` as it was read.
        given_up: u64,
    },
    /// Nothing at all changed since they were read.
    Revision(u64),
}

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Write {
    /// A user's record.
    User {
        /// Whose.
        stem: Stem,
        /// What has to be there.
        expect: Expect,
        /// What is there afterwards.
        becomes: Change<UserRecord>,
    },
    /// A foreign record.
    Foreign {
        /// The user that it belongs to.
        stem: Stem,
        /// Which of the user's keys for such records.
        slot: u8,
        /// What has to be there.
        expect: Expect,
        /// What is there afterwards.
        becomes: Change<ForeignRecord>,
    },
    /// A ghost.
    Ghost {
        /// Its id.
        upstream: UpstreamId,
        /// What has to be there.
        expect: Expect,
        /// What is there afterwards.
        becomes: Change<Ghost>,
    },
    /// The note of a hold.
    Hold {
        /// Whose.
        stem: Stem,
        /// What is there afterwards.
        becomes: Change<HoldRecord>,
    },
    /// The sync's record.
    Sync {
        /// What has to be there.
        expect: Expect,
        /// What is there afterwards.
        becomes: Box<SyncRecord>,
    },
}

/// What a record becomes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change<T> {
    /// It stays; the commit only depends on it.
    Same,
    /// It becomes this.
    Put(Box<T>),
    /// It goes.
    Gone,
}

/// What a write depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// There is no such record.
    Absent,
    /// The record is at this revision.
    Revision(u64),
}

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The user whom it is about.
    pub subject: Stem,
    /// What happened, as a stable word.
    pub action: String,
    /// Who had it done.
    pub actor: String,
    /// The attempt or the run that did it.
    pub by: AttemptId,
    /// Particulars. Never a secret.
    pub detail: BTreeMap<String, String>,
}

/// Who acts, under which name, and how many commits it has decided so far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Author {
    /// The attempt or run.
    pub attempt: AttemptId,
    /// Who had it done: a user, an operator, or a schedule.
    pub actor: String,
    decided: u32,
}

impl Author {
    /// Somebody who has decided nothing yet.
    #[must_use]
    pub fn new(attempt: AttemptId, actor: String) -> Self {
        Self {
            attempt,
            actor,
            decided: 0,
        }
    }

    /// A commit under the next token of this author. `step` is a word of at most 12 letters.
    pub fn commit(
        &mut self,
        step: &str,
        at: Timestamp,
        slots: impl Into<SlotsChange>,
        writes: Vec<Write>,
        audit: Vec<AuditEntry>,
    ) -> Box<Commit> {
        let slots = slots.into();
        self.decided += 1;
        let token = format!("{}.{step}.{}", self.attempt, self.decided);
        Box::new(Commit {
            token,
            at,
            slots,
            writes,
            audit,
        })
    }

    /// A line of the audit trail by this author.
    #[must_use]
    pub fn audit(&self, subject: &Stem, action: &str, detail: &[(&str, &str)]) -> AuditEntry {
        AuditEntry {
            subject: subject.clone(),
            action: action.to_owned(),
            actor: self.actor.clone(),
            by: self.attempt.clone(),
            detail: detail
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }
}

impl<T> Next<T> {
    /// The same want of another machine's.
    pub fn map<U>(self, output: impl FnOnce(T) -> U) -> Next<U> {
        match self {
            Self::Do(effect) => Next::Do(effect),
            Self::Done(value) => Next::Done(output(value)),
        }
    }
}
