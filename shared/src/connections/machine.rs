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
    ConnectionsRecord, ForeignRecord, Ghost, HeldPlace, HeldPortal, HoldRecord, Holder, LastEviction, Slots,
    SyncRecord, UserRecord,
};
use crate::config::{Counts, Policy};
use crate::ids::{AttemptId, Stem, UpstreamId};
use crate::snaptrade::ConnectionId;
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
    /// Read the places: answers [`Input::Slots`].
    ReadSlots,
    /// Read what decides about several users' records, without what was noted of them: answers [`Input::Entries`].
    ReadEntries(Vec<Stem>),
    /// Count those who hold a place, each as it is now: whoever the index nominates, whoever has a reservation, and
    /// whoever answers for these listed ids. Answers [`Input::Counted`].
    Count(Vec<UpstreamId>),
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
    /// List a user's connections at SnapTrade: answers [`Input::ConnectionsListed`].
    ListConnections(Box<UserRecord>),
    /// Ask SnapTrade once to delete a user's connection: answers [`Input::ConnectionDeleted`].
    DeleteConnection(Box<UserRecord>, ConnectionId),
    /// Note that SnapTrade no longer accepts a user's secret: answers [`Input::Noted`].
    NoteRejected(Box<UserRecord>),
    /// Read whose connections might give way by a policy, each as it is now: answers [`Input::ConnectionHolders`].
    ReadConnectionHolders(Policy),
    /// Read the places and all records of connections: answers [`Input::Books`].
    ReadBooks,
    /// Read a ghost: answers [`Input::Ghost`].
    ReadGhost(UpstreamId),
    /// Read how many connections SnapTrade's statistics tell of: answers [`Input::Statistics`].
    ReadStatistics,
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
    /// The places.
    Slots(Option<Box<Slots>>),
    /// The records of several users, in the order in which they were asked for.
    Entries(Vec<Entry>),
    /// Those who hold a place.
    Counted(Box<Census>),
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
    /// A user's connections, or why there is no list.
    ConnectionsListed(Result<Vec<ListedConnection>, NotListed>),
    /// How the deletion of a connection went.
    ConnectionDeleted(Disconnection),
    /// It was noted, or will be when it is found out again.
    Noted,
    /// Whose connections might give way.
    ConnectionHolders(Vec<ConnectionHolder>),
    /// The places and all records of connections.
    Books(Box<Books>),
    /// A ghost, if there is one.
    Ghost(Option<Box<Ghost>>),
    /// How many connections there are, disabled ones included; `None` where SnapTrade does not say.
    Statistics(Option<u32>),
    /// The time has passed.
    Waited,
}

/// A connection as SnapTrade lists it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListedConnection {
    /// Its id.
    pub id: ConnectionId,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// Whether the brokerage no longer lets SnapTrade in.
    pub disabled: bool,
}

/// Why there is no list of a user's connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NotListed {
    /// SnapTrade does not accept the user's secret.
    SecretRejected,
    /// SnapTrade could not be used.
    Fault(Fault),
}

/// How SnapTrade answered the deletion of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Disconnection {
    /// As it answers the deletion of a user.
    Answered(Deletion),
    /// It does not accept the user's secret.
    SecretRejected,
}

/// A user whose connections are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConnectionHolder {
    /// The user.
    pub user: UserRecord,
    /// The connections.
    pub record: ConnectionsRecord,
}

/// The places and all records of connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Books {
    /// The places, read consistently and first.
    pub slots: Option<Slots>,
    /// The records, through the index.
    pub records: Vec<ConnectionsRecord>,
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
    /// The user's connections, where those are counted.
    pub connections: Option<ConnectionsRecord>,
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

/// Those who hold a place, each read consistently. The index that nominates them lags behind: whoever it does not show
/// yet, who has no reservation and whom no list names is missed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Census {
    /// The places, read before everything else.
    pub slots: Option<Slots>,
    /// The reservations.
    pub reserved: Vec<UserRecord>,
    /// Others who may give way.
    pub eligible: u32,
    /// Others who may not.
    pub protected: u32,
}

impl Census {
    /// All of them.
    #[must_use]
    pub fn holders(&self) -> u32 {
        let reserved = u32::try_from(self.reserved.len()).unwrap_or(u32::MAX);
        reserved
            .saturating_add(self.eligible)
            .saturating_add(self.protected)
    }

    /// Counts one more.
    pub fn add(&mut self, holder: Holder) {
        let eligible = holder.may_give_way();
        match holder {
            Holder::User(user) if user.reservation().is_some() => self.reserved.push(user),
            Holder::User(_) | Holder::Foreign(_) if eligible => self.eligible += 1,
            Holder::User(_) | Holder::Foreign(_) => self.protected += 1,
        }
    }
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
    /// A record of connections was not as expected.
    Connections(Stem, Option<Box<ConnectionsRecord>>),
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
    /// What has to count for it to be made.
    pub counts: Counts,
    /// What else has to hold.
    pub guard: Guard,
    /// Users who get a place or lose theirs, where users are counted.
    pub users: i32,
    /// Connections that come and go, where those are counted.
    pub connections: ConnectionsChange,
    /// Reservations that are entered or changed.
    pub hold: Vec<(Stem, HeldPlace)>,
    /// Reservations that end.
    pub release: Vec<Stem>,
    /// Places for connections that are entered, changed or end (`None`), where connections are counted.
    pub portals: Vec<(Stem, Option<HeldPortal>)>,
    /// Whether a holder gave up before its time.
    pub gives_up: bool,
    /// What becomes of the note on who gave way last.
    pub last_eviction: Change<LastEviction>,
}

impl Transition {
    /// One that gives `users` users a place, or takes so many, whatever else happens to the places meanwhile. Where
    /// connections are counted users take none.
    #[must_use]
    pub fn of(users: i32) -> Self {
        Self {
            counts: Counts::default(),
            guard: Guard::Any,
            users,
            connections: ConnectionsChange::default(),
            hold: Vec::new(),
            release: Vec::new(),
            portals: Vec::new(),
            gives_up: false,
            last_eviction: Change::Same,
        }
    }

    /// The same, with connections that come and go.
    #[must_use]
    pub fn with_connections(self, connections: ConnectionsChange) -> Self {
        Self { connections, ..self }
    }

    /// What is added to `in_use`.
    #[must_use]
    pub fn in_use(&self) -> i32 {
        match self.counts {
            Counts::Users => self.users,
            Counts::Connections => self.connections.in_use,
        }
    }

    /// What is added to `leaving`.
    #[must_use]
    pub fn leaving(&self) -> i32 {
        match self.counts {
            Counts::Users => 0,
            Counts::Connections => self.connections.leaving,
        }
    }

    /// The counting that the connections belong to, where it matters.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        match self.counts {
            Counts::Users => None,
            Counts::Connections => self.connections.epoch,
        }
    }

    /// Whether [`Slots`] allow it as they are.
    #[must_use]
    pub fn is_allowed(&self, slots: &Slots) -> bool {
        let guard = match self.guard {
            Guard::Any => true,
            Guard::Open => slots.open,
            Guard::Room { max } => slots.open && slots.in_use < max,
            Guard::RoomBeside {
                max,
                elsewhere,
                leaving,
            } => {
                slots.open
                    && slots.elsewhere == elsewhere
                    && slots.in_use < max.saturating_sub(elsewhere)
                    && slots.leaving <= leaving
            }
            Guard::Full { max, given_up } => slots.open && slots.in_use >= max && slots.given_up == given_up,
            Guard::FullBeside { max, elsewhere } => {
                slots.open && slots.elsewhere == elsewhere && slots.in_use >= max.saturating_sub(elsewhere)
            }
            Guard::Revision(rev) => slots.rev == rev,
        };
        let remains = |count: u32, change: i32| i64::from(count) + i64::from(change) >= 0;
        guard
            && slots.counts == self.counts
            && self.epoch().is_none_or(|epoch| slots.epoch == epoch)
            && remains(slots.in_use, self.in_use())
            && remains(slots.leaving, self.leaving())
    }

    /// [`Slots`] after it.
    #[must_use]
    pub fn apply(&self, slots: &Slots) -> Slots {
        let mut after = slots.clone();
        after.rev += 1;
        after.in_use = after.in_use.saturating_add_signed(self.in_use());
        after.leaving = after.leaving.saturating_add_signed(self.leaving());
        after.given_up += u64::from(self.gives_up);
        match &self.last_eviction {
            Change::Same => {}
            Change::Put(last) => after.last_eviction = Some((**last).clone()),
            Change::Gone => after.last_eviction = None,
        }
        for (stem, held) in &self.hold {
            after.held.insert(stem.clone(), held.clone());
        }
        for stem in &self.release {
            after.held.remove(stem);
        }
        if self.counts == Counts::Connections {
            for (stem, portal) in &self.portals {
                match portal {
                    Some(portal) => after.portals.insert(stem.clone(), *portal),
                    None => after.portals.remove(stem),
                };
            }
        }
        after
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

    /// The same, with what becomes of a place for a connection.
    #[must_use]
    pub fn with_portal(mut self, stem: &Stem, portal: Option<HeldPortal>) -> Self {
        self.portals.push((stem.clone(), portal));
        self
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

/// Connections that come and go, for [`Slots`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ConnectionsChange {
    /// Added to the places in use.
    pub in_use: i32,
    /// Added to the connections that are leaving.
    pub leaving: i32,
    /// The counting that they belong to; `None` where nothing is said of any.
    pub epoch: Option<u64>,
}

/// What has to hold of [`Slots`] for a transition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Guard {
    /// That there are any.
    Any,
    /// They are open.
    Open,
    /// They are open and fewer than `max` are in use.
    Room {
        /// The limit.
        max: u32,
    },
    /// They are open, fewer are in use than `max` without those elsewhere, which were `elsewhere` when read, and no
    /// more are leaving than were then.
    RoomBeside {
        /// The limit.
        max: u32,
        /// Connections elsewhere, as they were read.
        elsewhere: u32,
        /// Connections leaving, as they were read.
        leaving: u32,
    },
    /// They are open, at least `max` are in use, and nobody gave up since they were read.
    Full {
        /// The limit.
        max: u32,
        /// `given_up` as it was read.
        given_up: u64,
    },
    /// They are open and at least as many are in use as `max` without those elsewhere, which were `elsewhere` when read.
    FullBeside {
        /// The limit.
        max: u32,
        /// Connections elsewhere, as they were read.
        elsewhere: u32,
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
    /// A user's connections.
    Connections {
        /// Whose.
        stem: Stem,
        /// What has to be there.
        expect: Expect,
        /// What is there afterwards.
        becomes: Change<ConnectionsRecord>,
    },
    /// That a user is active under an id, and was seen doing something.
    Seen {
        /// Who.
        stem: Stem,
        /// The id at SnapTrade.
        upstream: UpstreamId,
        /// The revision that the record has to be at, where that matters.
        rev: Option<u64>,
    },
    /// The note of a visit to the portal, by which its outcome is told later.
    Visit {
        /// Whose.
        stem: Stem,
        /// The id at SnapTrade.
        upstream: UpstreamId,
        /// The connection that is to be repaired.
        reconnect: Option<ConnectionId>,
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
    /// What counts against the limit, as its author knows it.
    pub counts: Counts,
    decided: u32,
}

impl Author {
    /// Somebody who has decided nothing yet, where users count.
    #[must_use]
    pub fn new(attempt: AttemptId, actor: String) -> Self {
        Self {
            attempt,
            actor,
            counts: Counts::default(),
            decided: 0,
        }
    }

    /// The same, where `counts` counts against the limit.
    #[must_use]
    pub fn counting(self, counts: Counts) -> Self {
        Self { counts, ..self }
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
        let slots = match slots.into() {
            SlotsChange::Transition(transition) => SlotsChange::Transition(Transition {
                counts: self.counts,
                ..transition
            }),
            other => other,
        };
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
