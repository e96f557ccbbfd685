//! The table, SnapTrade and the processes between them, in memory: what the simulation and the model check run the
//! shipped machines in. Whatever is wrong in a state is found by [`World::fault`], which names the rule that it breaks.

mod visits;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::test_runner::{Config as ProptestConfig, RngSeed};

use self::visits::{Connected, Link};
use super::counting::admission::{Admission, Admitted};
use super::counting::departed::Departed;
use super::counting::disconnecting::Disconnecting;
use super::counting::reconciling::Reconciling;
use super::counting::returning::Returning;
use super::leaving::Leaving;
use super::machine::*;
use super::policy;
use super::records::*;
use super::registration::{Intent, Registration, Wish};
use super::sync::Sync;
use super::timing;
use crate::config::{Counts, Policy};
use crate::ids::{AttemptId, Stem, UpstreamId, UserId};
use crate::user_secrets::SealedSecret;

/// The limit in every world.
pub(super) const MAX: u32 = 2;

/// The seed of a simulation: one and the same, unless the environment names another.
pub(super) fn same_unless_asked() -> RngSeed {
    match ProptestConfig::default().rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        asked => asked,
    }
}

/// A small generator of chance that a seed repeats exactly.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a call or a commit may suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    /// It is done and answered.
    Answered,
    /// It is refused for certain.
    Refused,
    /// SnapTrade says that its limit is reached.
    LimitReached,
    /// A stranger has the id.
    Taken,
    /// It is not done, and nobody learns that.
    LostBefore,
    /// It is done, and nobody learns that.
    LostAfter,
    /// It is done at some later time, or never, and nobody learns that.
    Late,
    /// The answer is a list that lacks what it should name.
    Short,
}

/// A way to break the protocol, made to what the machines want and are told, so that the machines stay as they ship.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Flaw {
    RegisterBeforeCleared,
    ActivateWithoutComparing,
    FreeExpiredAtOnce,
    RemoveOnTheListsWord,
    AdoptAGhost,
    UndoAfterSyncTookTheGhost,
    NeverResend,
    VictimsBeforeExpired,
    MovesDoNotCount,
    OneIdForTwoAttempts,
    TakenIsOurs,
}

/// A call that SnapTrade acts on after its answer was given up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum LateCall {
    Delete(UpstreamId),
    Register(UpstreamId),
}

/// A user at SnapTrade.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Incarnation {
    pub(super) id: UpstreamId,
    /// SnapTrade has accepted its deletion and not finished it.
    pub(super) deleting: bool,
    /// Known to whoever got the answer to the registration.
    pub(super) secret: SealedSecret,
}

/// The table and SnapTrade.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) slots: Option<Slots>,
    pub(super) users: BTreeMap<Stem, UserRecord>,
    pub(super) foreign: BTreeMap<(Stem, u8), ForeignRecord>,
    pub(super) ghosts: BTreeMap<UpstreamId, Ghost>,
    pub(super) holds: BTreeMap<Stem, HoldRecord>,
    pub(super) connections: BTreeMap<Stem, ConnectionsRecord>,
    /// What counts against the limit.
    pub(super) counts: Counts,
    /// Brokerage connections at SnapTrade.
    pub(super) connected: Vec<Connected>,
    /// Links to the portal that were given out, by user.
    links: BTreeMap<Stem, Link>,
    /// Ids whose secrets SnapTrade no longer accepts.
    pub(super) rejected: BTreeSet<UpstreamId>,
    /// How many connections were made.
    made: u32,
    pub(super) sync: Option<SyncRecord>,
    /// Commits that were made and whose answers were lost: the store knows them again.
    tokens: BTreeSet<String>,
    /// In the order of their registration.
    pub(super) upstream: Vec<Incarnation>,
    /// SnapTrade's own limit, where it has one.
    pub(super) upstream_limit: Option<usize>,
    /// Whether SnapTrade takes its time over deletions.
    pub(super) slow: bool,
    /// Whether rows change while they are read.
    pub(super) torn: bool,
    /// Ids that SnapTrade does not delete whatever is asked.
    pub(super) refuses_to_delete: BTreeSet<UpstreamId>,
    /// How often it refused.
    pub(super) refusals: u32,
    /// Whom the index does not show before these times.
    pub(super) unseen: BTreeMap<Stem, i64>,
    pub(super) late: BTreeSet<LateCall>,
    /// How often an id was registered.
    registrations: BTreeMap<UpstreamId, i64>,
    /// Ids that were sent to be registered and not refused for certain.
    sent: BTreeSet<UpstreamId>,
    /// Ids of which a deletion was sent that was not refused for certain.
    perhaps_deleted: BTreeSet<UpstreamId>,
    /// Ids whose deletion SnapTrade has accepted, or that it did not have.
    deleted: BTreeSet<UpstreamId>,
    /// By attempt: how many gave way for it and were not put back.
    evictions: BTreeMap<String, u32>,
    pub(super) now_ms: i64,
    /// A call may have outlived the lease under which it was made.
    pub(super) outlived: bool,
    pub(super) flaw: Option<Flaw>,
    /// Reservations that reached the store when their own lease was over.
    stillborn: BTreeSet<AttemptId>,
    /// How many machines ran alone.
    alone: u64,
    broken: Option<&'static str>,
}

impl World {
    /// Nobody registered, nothing stored.
    pub(super) fn empty() -> Self {
        Self {
            slots: None,
            users: BTreeMap::new(),
            foreign: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            holds: BTreeMap::new(),
            connections: BTreeMap::new(),
            counts: Counts::Users,
            connected: Vec::new(),
            links: BTreeMap::new(),
            rejected: BTreeSet::new(),
            made: 0,
            sync: None,
            tokens: BTreeSet::new(),
            upstream: Vec::new(),
            upstream_limit: None,
            slow: true,
            torn: false,
            refuses_to_delete: BTreeSet::new(),
            refusals: 0,
            unseen: BTreeMap::new(),
            registrations: BTreeMap::new(),
            late: BTreeSet::new(),
            sent: BTreeSet::new(),
            perhaps_deleted: BTreeSet::new(),
            deleted: BTreeSet::new(),
            evictions: BTreeMap::new(),
            now_ms: 1_800_000_000_000,
            outlived: false,
            flaw: None,
            stillborn: BTreeSet::new(),
            alone: 0,
            broken: None,
        }
    }

    /// The same, where connections are counted.
    pub(super) fn counting_connections() -> Self {
        Self {
            counts: Counts::Connections,
            ..Self::empty()
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_ms).unwrap()
    }

    /// How many gave way and were not put back.
    pub(super) fn evictions(&self) -> u32 {
        self.evictions.values().sum()
    }

    fn breaks(&mut self, rule: &'static str) {
        self.broken.get_or_insert(rule);
    }

    /// Somebody whom SnapTrade knows from elsewhere.
    pub(super) fn add_stranger(&mut self, id: &str) {
        self.upstream.push(Incarnation {
            id: UpstreamId::from_snaptrade(id),
            deleting: false,
            secret: secret("a stranger's", 0),
        });
    }

    /// Somebody finds that the count of places may be wrong, or the operator changes what counts.
    pub(super) fn close(&mut self) {
        if let Some(slots) = &mut self.slots {
            slots.open = false;
            slots.rev += 1;
        }
    }

    pub(super) fn finish_deletions(&mut self) {
        self.upstream.retain(|incarnation| !incarnation.deleting);
        self.finish_disconnections();
    }

    /// SnapTrade acts on a call whose caller has given up.
    pub(super) fn arrive(&mut self, call: &LateCall) {
        self.late.remove(call);
        self.outlived = true;
        match call {
            LateCall::Delete(id) => {
                self.delete(id);
            }
            LateCall::Register(id) => {
                self.enrol(id);
            }
        }
    }

    pub(super) fn perform(&mut self, effect: Effect, fate: Fate) -> Input {
        match effect {
            Effect::ReadEntry(stem) => Input::Entry(Box::new(self.entry(&stem))),
            Effect::ReadReservation(stem) => {
                let user = self.users.get(&stem).cloned();
                let owed = user
                    .as_ref()
                    .and_then(UserRecord::reservation)
                    .map(|reservation| reservation.after.clone());
                let ghosts = owed
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|id| self.ghosts.get(id).cloned())
                    .collect();
                Input::Reservation(user.map(Box::new), ghosts)
            }
            Effect::ReadCandidates(_) => {
                let mut holders = self.shown();
                holders.retain(Holder::may_give_way);
                Input::Candidates(holders)
            }
            Effect::ReadRoster => Input::Roster(Box::new(Roster {
                slots: self.slots.clone(),
                holders: self.shown(),
                ghosts: self.ghosts.values().cloned().collect(),
            })),
            Effect::ReadSlots => Input::Slots(self.slots.clone().map(Box::new)),
            Effect::ReadEntries(stems) => {
                let records = |stem: &Stem| Entry {
                    user: self.users.get(stem).cloned(),
                    foreign: self.entry(stem).foreign,
                    ..Entry::default()
                };
                Input::Entries(stems.iter().map(records).collect())
            }
            Effect::Count(listed) => Input::Counted(Box::new(self.census(&listed))),
            Effect::ReadSync => Input::SyncRecord(self.sync.clone()),
            Effect::Commit(commit) => Input::Committed(match fate {
                Fate::LostBefore | Fate::Late => CommitOutcome::Unknown,
                Fate::LostAfter => {
                    if self.commit(&commit) == CommitOutcome::Won {
                        self.tokens.insert(commit.token.clone());
                    }
                    CommitOutcome::Unknown
                }
                _ => self.commit(&commit),
            }),
            Effect::Delete(upstream) => Input::Deleted(self.deletion(upstream, fate)),
            Effect::Register(upstream, owner) => Input::Registered(self.registration(upstream, &owner, fate)),
            Effect::List => Input::Listed(match fate {
                Fate::Answered => Ok(self.list().collect()),
                Fate::Short => Ok(self.list().skip(1).collect()),
                _ => Err(Fault::Timeout),
            }),
            Effect::ProbeUser(user) => {
                let active = user.active();
                let accepted = self.upstream.iter().any(|incarnation| {
                    active.is_some_and(|active| {
                        active.upstream == incarnation.id && active.secret == incarnation.secret
                    })
                });
                Input::Probed(match fate {
                    Fate::Answered if accepted => SecretStanding::Works,
                    Fate::Answered => SecretStanding::Rejected,
                    _ => SecretStanding::Unclear,
                })
            }
            Effect::ProbeCredentials => Input::ProbedCredentials(fate == Fate::Answered),
            Effect::Wait(duration) => {
                self.now_ms += i64::try_from(duration.as_millis()).unwrap();
                Input::Waited
            }
            other => self.perform_on_connections(other, fate),
        }
    }

    fn list(&self) -> impl Iterator<Item = UpstreamId> {
        self.upstream.iter().map(|incarnation| incarnation.id.clone())
    }

    fn entry(&self, stem: &Stem) -> Entry {
        let of_user = self.foreign.iter().filter(|((owner, _), _)| owner == stem);
        let mut foreign: Vec<ForeignRecord> = of_user.map(|(_, record)| record.clone()).collect();
        foreign.sort_by_key(|record| (record.created_at, record.order));
        let still_counts = |hold: &&HoldRecord| timing::after(hold.until, timing::HOLD_AGAIN) > self.now();
        Entry {
            user: self.users.get(stem).cloned(),
            foreign,
            hold: self.holds.get(stem).filter(still_counts).cloned(),
            connections: self.connections.get(stem).cloned(),
            slots: self.slots.clone(),
        }
    }

    /// Those who hold a place, as they can be found: the index does not show everybody.
    fn census(&self, listed: &[UpstreamId]) -> Census {
        let shown: BTreeSet<Stem> = self.shown().iter().map(Holder::stem).collect();
        let mut census = Census {
            slots: self.slots.clone(),
            ..Census::default()
        };
        for holder in self.holders() {
            let stem = holder.stem();
            let listed = listed.iter().any(|id| id.stem() == stem);
            let held = self
                .slots
                .as_ref()
                .is_some_and(|slots| slots.held.contains_key(&stem));
            if listed || held || shown.contains(&stem) {
                census.add(holder);
            }
        }
        census
    }

    /// The holders that the index shows.
    fn shown(&self) -> Vec<Holder> {
        let mut holders = self.holders();
        holders.retain(|holder| {
            let hidden = self.unseen.get(&holder.stem());
            hidden.is_none_or(|until| self.now_ms >= *until)
        });
        holders
    }

    pub(super) fn holders(&self) -> Vec<Holder> {
        let users = self.users.values().cloned().map(Holder::User);
        let mut holders: Vec<Holder> = users
            .chain(self.foreign.values().cloned().map(Holder::Foreign))
            .collect();
        holders.sort_by(policy::by_age);
        holders
    }

    // SnapTrade.

    fn deletion(&mut self, upstream: UpstreamId, fate: Fate) -> Deletion {
        let minted = self.sent.contains(&upstream);
        if !minted && !self.ghosts.contains_key(&upstream) {
            self.breaks("I5: an id from elsewhere is deleted only as a recorded victim or by an operator");
        }
        if fate == Fate::Refused || self.refuses_to_delete.contains(&upstream) {
            self.refusals += 1;
            return Deletion::Refused(Fault::Error);
        }
        self.perhaps_deleted.insert(upstream.clone());
        match fate {
            Fate::LostBefore => Deletion::Unknown(Fault::Timeout),
            Fate::Late => {
                self.late.insert(LateCall::Delete(upstream));
                Deletion::Unknown(Fault::Timeout)
            }
            Fate::LostAfter => {
                self.delete(&upstream);
                Deletion::Unknown(Fault::Timeout)
            }
            _ => self.delete(&upstream),
        }
    }

    fn delete(&mut self, upstream: &UpstreamId) -> Deletion {
        self.deleted.insert(upstream.clone());
        let found = self
            .upstream
            .iter_mut()
            .find(|incarnation| incarnation.id == *upstream);
        let Some(incarnation) = found else {
            return Deletion::NotThere;
        };
        incarnation.deleting = true;
        if !self.slow {
            self.finish_deletions();
        }
        Deletion::Queued
    }

    fn registration(&mut self, upstream: UpstreamId, owner: &Stem, fate: Fate) -> Enrolment {
        if self.sent.contains(&upstream) && self.flaw.is_none() {
            self.breaks("an id that may be registered is not sent again");
        }
        let owed = self
            .users
            .get(owner)
            .filter(|user| user.upstream() == Some(&upstream));
        let owed = owed
            .and_then(UserRecord::reservation)
            .map(|reservation| &reservation.after);
        let waits = owed.into_iter().flatten().any(|id| !self.deleted.contains(id));
        if waits {
            self.breaks("I7: nobody is registered while an id that the place owes was not accepted");
        }
        let full = self
            .upstream_limit
            .is_some_and(|limit| self.upstream.len() >= limit);
        match fate {
            Fate::Refused => return Enrolment::Refused(Fault::Error),
            Fate::LimitReached => return Enrolment::LimitReached,
            Fate::Taken => {
                self.add_stranger(upstream.as_str());
                return Enrolment::Taken;
            }
            Fate::Answered if full => return Enrolment::LimitReached,
            _ => {}
        }
        self.sent.insert(upstream.clone());
        match fate {
            Fate::LostBefore => Enrolment::Unknown(Fault::Timeout),
            Fate::Late => {
                self.late.insert(LateCall::Register(upstream));
                Enrolment::Unknown(Fault::Timeout)
            }
            Fate::LostAfter => {
                self.enrol(&upstream);
                Enrolment::Unknown(Fault::Timeout)
            }
            _ => self.enrol(&upstream),
        }
    }

    fn enrol(&mut self, upstream: &UpstreamId) -> Enrolment {
        if self
            .upstream_limit
            .is_some_and(|limit| self.upstream.len() >= limit)
        {
            return Enrolment::LimitReached;
        }
        if self
            .upstream
            .iter()
            .any(|incarnation| incarnation.id == *upstream)
        {
            return Enrolment::Taken;
        }
        let times = self.registrations.entry(upstream.clone()).or_default();
        *times += 1;
        let secret = secret(upstream.as_str(), *times);
        self.upstream.push(Incarnation {
            id: upstream.clone(),
            deleting: false,
            secret: secret.clone(),
        });
        Enrolment::Done(secret)
    }

    // The table.

    fn commit(&mut self, commit: &Commit) -> CommitOutcome {
        if self.tokens.contains(&commit.token) {
            return CommitOutcome::Won;
        }
        let obstacles = self.obstacles(commit);
        if !obstacles.is_empty() {
            return CommitOutcome::Lost(obstacles);
        }
        self.judge(commit);
        match &commit.slots {
            SlotsChange::None => {}
            SlotsChange::Transition(transition) => self.transition(transition),
            SlotsChange::Replace { becomes, .. } => self.slots = Some((**becomes).clone()),
        }
        for write in &commit.writes {
            match write {
                Write::User { stem, becomes, .. } => put(&mut self.users, stem.clone(), becomes),
                Write::Foreign {
                    stem, slot, becomes, ..
                } => put(&mut self.foreign, (stem.clone(), *slot), becomes),
                Write::Ghost {
                    upstream, becomes, ..
                } => put(&mut self.ghosts, upstream.clone(), becomes),
                Write::Seen { .. } | Write::Visit { .. } => {}
                Write::Connections { stem, becomes, .. } => {
                    put(&mut self.connections, stem.clone(), becomes);
                }
                Write::Hold { stem, becomes } => put(&mut self.holds, stem.clone(), becomes),
                Write::Sync { becomes, .. } => self.sync = Some((**becomes).clone()),
            }
        }
        CommitOutcome::Won
    }

    fn transition(&mut self, transition: &Transition) {
        let now = self.now();
        let entered = transition.hold.iter().map(|(_, held)| held);
        let late = entered.filter(|held| !transition.gives_up && timing::expired(held.until, now));
        self.stillborn.extend(late.map(|held| held.attempt.clone()));
        let before = self.slots.as_ref().unwrap();
        let mut after = transition.apply(before);
        if transition.in_use() == 0 && self.flaw == Some(Flaw::MovesDoNotCount) {
            after.rev = before.rev;
        }
        self.slots = Some(after);
    }

    fn obstacles(&self, commit: &Commit) -> Vec<Obstacle> {
        let mut obstacles = Vec::new();
        let slots_hold = match &commit.slots {
            SlotsChange::None => true,
            SlotsChange::Transition(transition) => self
                .slots
                .as_ref()
                .is_some_and(|slots| transition.is_allowed(slots)),
            SlotsChange::Replace { expect, .. } => self.slots.as_ref().map(|slots| slots.rev) == *expect,
        };
        if !slots_hold {
            obstacles.push(Obstacle::Slots(self.slots.clone().map(Box::new)));
        }
        let meets = |expect: &Expect, rev: Option<u64>| match expect {
            Expect::Anything => true,
            Expect::Absent => rev.is_none(),
            Expect::Revision(expected) => rev == Some(*expected),
        };
        for write in &commit.writes {
            match write {
                Write::User { stem, expect, .. } => {
                    let old = self.users.get(stem);
                    if !meets(expect, old.map(|record| record.rev)) {
                        obstacles.push(Obstacle::User(stem.clone(), old.cloned().map(Box::new)));
                    }
                }
                Write::Foreign {
                    stem, slot, expect, ..
                } => {
                    let old = self.foreign.get(&(stem.clone(), *slot));
                    if !meets(expect, old.map(|record| record.rev)) {
                        obstacles.push(Obstacle::Foreign(old.cloned().map(Box::new)));
                    }
                }
                Write::Ghost { upstream, expect, .. } => {
                    if !meets(expect, self.ghosts.get(upstream).map(|record| record.rev)) {
                        obstacles.push(Obstacle::Ghost(upstream.clone()));
                    }
                }
                Write::Sync { expect, .. } => {
                    if !meets(expect, self.sync.as_ref().map(|record| record.rev)) {
                        obstacles.push(Obstacle::Sync(self.sync.clone().map(Box::new)));
                    }
                }
                Write::Connections { stem, expect, .. } => {
                    if !meets(expect, self.connections.get(stem).map(|record| record.rev)) {
                        let old = self.connections.get(stem).cloned().map(Box::new);
                        obstacles.push(Obstacle::Connections(stem.clone(), old));
                    }
                }
                Write::Seen { stem, upstream, rev } => {
                    let old = self.users.get(stem);
                    let same = rev.is_none_or(|rev| old.map(|old| old.rev) == Some(rev));
                    let active = old.and_then(UserRecord::active).map(|active| &active.upstream);
                    if !same || active != Some(upstream) {
                        obstacles.push(Obstacle::User(stem.clone(), old.cloned().map(Box::new)));
                    }
                }
                Write::Hold { .. } | Write::Visit { .. } => {}
            }
        }
        obstacles
    }

    /// Looks whether a commit that is about to be made is one that may be made.
    fn judge(&mut self, commit: &Commit) {
        let step = match self.counts {
            Counts::Users => commit.token.split('.').nth(1).unwrap_or_default(),
            Counts::Connections => {
                self.judge_disconnections(commit);
                ""
            }
        };
        let attempt = commit.token.split('.').next().unwrap_or_default().to_owned();
        let slots = self.slots.clone();
        match step {
            "evict" => {
                *self.evictions.entry(attempt).or_default() += 1;
                if slots.as_ref().is_some_and(|slots| slots.in_use < MAX) {
                    self.breaks("I6: nobody gives way while there is room");
                }
                let waits = slots.is_some_and(|slots| {
                    let mut held = slots.held.values();
                    // One that was over before it began could not be seen by whoever looked before.
                    let seen = |held: &HeldPlace| !self.stillborn.contains(&held.attempt);
                    held.any(|held| seen(held) && held.may_be_taken(commit.at))
                });
                if waits {
                    self.breaks("I6: nobody gives way while an expired place waits to be taken");
                }
            }
            "adopt" => {
                let adopted = commit.writes.iter().find_map(|write| match write {
                    Write::Ghost { upstream, .. } => Some(upstream),
                    _ => None,
                });
                if adopted.is_some_and(|id| self.ghosts.contains_key(id)) {
                    self.breaks("I4: an id that has to go is not taken for a stranger's");
                }
            }
            "shrink" => *self.evictions.entry(attempt).or_default() += 1,
            "undo" => {
                if let Some(count) = self.evictions.get_mut(&attempt) {
                    *count -= 1;
                }
                let restored = commit.writes.iter().find_map(|write| match write {
                    Write::Ghost { upstream, .. } => Some(upstream),
                    _ => None,
                });
                if restored.is_some_and(|id| self.perhaps_deleted.contains(id)) {
                    self.breaks("I8: an eviction is undone only when nobody may have deleted the victim");
                }
            }
            _ => {}
        }
        let gone = commit.writes.iter().filter_map(|write| match write {
            Write::User {
                stem,
                becomes: Change::Gone,
                ..
            } => self.users.get(stem)?.reservation(),
            _ => None,
        });
        let frees = matches!(&commit.slots, SlotsChange::Transition(transition) if transition.users < 0);
        let owed = gone.flat_map(|reservation| &reservation.after);
        if frees && owed.into_iter().any(|id| !self.deleted.contains(id)) {
            self.breaks("I7: no place is free while an id that it owes was not accepted");
        }
        if self.evictions.values().any(|count| *count > 2) {
            self.breaks(
                "I6: a reservation costs at most one eviction, two where SnapTrade says that it is full",
            );
        }
    }

    // The rules.

    /// The rule that this state breaks.
    pub(super) fn fault(&self) -> Option<&'static str> {
        if self.broken.is_some() {
            return self.broken;
        }
        let slots = self.slots.as_ref()?;
        let held = self.users.len() + self.foreign.len();
        match self.counts {
            Counts::Users if slots.open && slots.in_use as usize != held => {
                return Some("I2: the places in use are those that are held");
            }
            Counts::Users => {}
            Counts::Connections => {
                let fault = self.fault_of_connections(slots);
                if fault.is_some() {
                    return fault;
                }
            }
        }
        let reserved = self
            .users
            .iter()
            .filter(|(_, user)| user.reservation().is_some())
            .map(|(stem, _)| stem);
        if !reserved.eq(slots.held.keys()) && slots.open {
            return Some("I2: every reservation stands among the places held, and nothing else does");
        }
        self.fault_at_snaptrade(slots, held)
    }

    fn fault_at_snaptrade(&self, slots: &Slots, held: usize) -> Option<&'static str> {
        let most = match self.counts {
            Counts::Users => (MAX as usize).max(held),
            Counts::Connections => usize::MAX,
        };
        let named = |id: &UpstreamId| {
            self.users.values().any(|user| user.upstream() == Some(id))
                || self.foreign.values().any(|foreign| foreign.upstream == *id)
                || self.ghosts.contains_key(id)
        };
        // Whoever registered an id that nobody here knows yet has not come by us.
        let living = self
            .upstream
            .iter()
            .filter(|incarnation| !incarnation.deleting && named(&incarnation.id));
        let unretired = living
            .clone()
            .filter(|incarnation| !self.ghosts.contains_key(&incarnation.id));
        if slots.open && unretired.count() > most {
            return Some("I1: living ids that are not retired are never more than the limit");
        }
        if slots.open && !self.outlived && living.count() > most {
            return Some("I1: while no call outlives its lease, living ids of any kind are within the limit");
        }
        let actives = || self.users.values().filter_map(UserRecord::active);
        for active in actives() {
            let lives = self
                .upstream
                .iter()
                .find(|incarnation| incarnation.id == active.upstream);
            match lives {
                Some(incarnation) if incarnation.deleting => {
                    return Some("I3: nobody who is active is being deleted");
                }
                Some(incarnation) if incarnation.secret != active.secret => {
                    return Some("I3: an active user's secret is that of the living incarnation");
                }
                Some(_) => {}
                None => return Some("I3: an active user is at SnapTrade"),
            }
        }
        if self.sent.iter().any(|id| !named(id)) {
            return Some("I4: every id that was ever sent has a name here");
        }
        for id in self.ghosts.keys() {
            if actives().any(|active| active.upstream == *id) {
                return Some("I3: nobody who is active is to be deleted");
            }
        }
        None
    }

    /// What two syncs leave undone once all calls are answered again, whoever was at work having died.
    pub(super) fn unhealed(&self) -> Option<&'static str> {
        let mut world = self.clone();
        world.refuses_to_delete.clear();
        if self.counts == Counts::Connections {
            world.calm();
        }
        for call in self.late.clone() {
            world.arrive(&call);
        }
        let mut believed = 0;
        for run in 0..3 {
            world.finish_deletions();
            world.now_ms += 400_000;
            if !world.run_sync(run) {
                return Some("I10: a sync comes to its end");
            }
            if let Some(rule) = world.fault() {
                return Some(rule);
            }
            // A list that was doubted is no sync yet: nothing was done by it.
            let doubted = world.sync.as_ref().is_some_and(|sync| sync.doubted.is_some());
            believed += u32::from(!doubted);
            if believed == 2 {
                break;
            }
        }
        world.finish_deletions();
        if self.counts == Counts::Connections
            && let Some(rule) = world.connections_unhealed()
        {
            return Some(rule);
        }
        if world.users.values().any(|user| user.reservation().is_some()) {
            return Some("I9: two syncs leave no reservation");
        }
        let listed: BTreeSet<UpstreamId> = world.list().collect();
        let ghosts = &mut world.ghosts.values();
        if ghosts.any(|ghost| ghost.state == GhostState::Due || listed.contains(&ghost.upstream)) {
            return Some("I9: two syncs leave no ghost that is due or listed");
        }
        let tracked: BTreeSet<UpstreamId> = world
            .holders()
            .iter()
            .filter_map(|holder| holder.upstream().cloned())
            .collect();
        (listed != tracked).then_some("I9: after two syncs SnapTrade lists who is tracked, and nobody else")
    }

    /// Runs one machine alone and undisturbed, under a name that nobody had yet.
    pub(super) fn run<M: Machine>(&mut self, machine: impl FnOnce(Author) -> M) -> M::Output {
        self.alone += 1;
        let number = 1_000_000 + self.alone;
        let mut drawn = 0;
        let author = Author::new(attempt(number, &mut drawn), format!("process {number}"));
        let mut machine = machine(author.counting(self.counts));
        let deadline = timing::after(self.now(), timing::FUNCTION);
        let mut input = Input::Begin;
        for _ in 0..2_000 {
            let mut draw = || attempt(number, &mut drawn);
            let mut context = Context {
                now: self.now(),
                deadline,
                draw: &mut draw,
            };
            match machine.advance(input, &mut context) {
                Next::Done(output) => return output,
                Next::Do(effect) => input = self.perform(effect, Fate::Answered),
            }
            assert_eq!(self.fault(), None);
        }
        panic!("the machine does not come to an end");
    }

    /// Runs one sync alone and undisturbed; `false` where it does not end.
    fn run_sync(&mut self, run: u64) -> bool {
        let mut process = Process::sync(1_000 + run, self.counts);
        (0..400).any(|_| !process.step(self, Fate::Answered))
    }
}

fn put<K: Ord, T: Clone>(records: &mut BTreeMap<K, T>, key: K, change: &Change<T>) {
    match change {
        Change::Same => {}
        Change::Put(record) => {
            records.insert(key, (**record).clone());
        }
        Change::Gone => {
            records.remove(&key);
        }
    }
}

fn secret(of: &str, time: i64) -> SealedSecret {
    SealedSecret {
        key_id: "k".to_owned(),
        sealed: format!("{of} {time}"),
    }
}

pub(super) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(super) fn wish(intent: Intent, name: &str, counts: Counts) -> Wish {
    Wish {
        intent,
        user: user(name),
        max: MAX,
        counts,
        policy: Policy::Oldest,
    }
}

/// A machine of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Running {
    Registration(Box<Registration>),
    Leaving(Box<Leaving>),
    Sync(Box<Sync>),
    /// Names the user who is to get a link, where one is wanted.
    Admission(Option<Stem>, Box<Admission>),
    /// A place is there, and SnapTrade is asked for the link.
    LogIn(Stem, Box<Admitted>),
    Returning(Box<Returning>),
    Reconciling(Box<Reconciling>),
    Departed(Box<Departed>),
    Disconnecting(Box<Disconnecting>),
}

/// A machine under way in a function of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    number: u64,
    drawn: u64,
    machine: Running,
    pending: Option<Effect>,
    pub(super) deadline: Option<Timestamp>,
    /// Effects so far.
    pub(super) steps: u32,
    /// What was seen of the rows so far: they are not read at one moment.
    seen: Option<(u8, Box<Roster>)>,
    /// Draws the same name again and again.
    unimaginative: bool,
}

impl Process {
    /// A process by the name of `number`, running what `machine` makes of its author.
    pub(super) fn new(number: u64, machine: impl FnOnce(Author) -> Running) -> Self {
        let mut drawn = 0;
        let author = Author::new(attempt(number, &mut drawn), format!("process {number}"));
        Self {
            number,
            drawn,
            machine: machine(author),
            pending: None,
            deadline: None,
            steps: 0,
            seen: None,
            unimaginative: false,
        }
    }

    /// The same, drawing one name for all its attempts.
    pub(super) fn unimaginative(self) -> Self {
        Self {
            unimaginative: true,
            ..self
        }
    }

    pub(super) fn wish(number: u64, intent: Intent, name: &str, counts: Counts) -> Self {
        Self::new(number, |author| {
            let registration = Registration::new(wish(intent, name, counts), author.counting(counts));
            Running::Registration(Box::new(registration))
        })
    }

    pub(super) fn sync(number: u64, counts: Counts) -> Self {
        Self::new(number, |author| {
            Running::Sync(Box::new(Sync::new(author.counting(counts), MAX, counts)))
        })
    }

    /// What it wants done next. Nothing before its first step.
    pub(super) fn pending(&self) -> Option<&Effect> {
        self.pending.as_ref()
    }

    /// Has its effect done, if it wants one, and decides what comes next. `false` at the end.
    pub(super) fn step(&mut self, world: &mut World, fate: Fate) -> bool {
        if let Running::LogIn(stem, admitted) = &self.machine {
            let (stem, admitted) = (stem.clone(), admitted.clone());
            return self.log_in(world, stem, &admitted, fate);
        }
        let input = match self.pending.take() {
            None => Input::Begin,
            Some(Effect::ReadRoster) if world.torn => match self.read_on(world) {
                Some(roster) => Input::Roster(roster),
                None => {
                    self.pending = Some(Effect::ReadRoster);
                    return true;
                }
            },
            Some(effect) => {
                self.steps += 1;
                self.perform(world, effect, fate)
            }
        };
        let now = world.now();
        let deadline = *self
            .deadline
            .get_or_insert_with(|| timing::after(now, timing::FUNCTION));
        let (number, drawn) = (self.number, &mut self.drawn);
        let only = self.unimaginative;
        let mut draw = || {
            if only {
                attempt(number, &mut 0)
            } else {
                attempt(number, drawn)
            }
        };
        let mut context = Context {
            now,
            deadline,
            draw: &mut draw,
        };
        let next = match &mut self.machine {
            Running::Registration(machine) => machine.advance(input, &mut context).map(|_| ()),
            Running::Leaving(machine) => machine.advance(input, &mut context).map(|_| ()),
            Running::Sync(machine) => machine.advance(input, &mut context).map(|_| ()),
            Running::Returning(machine) => machine.advance(input, &mut context).map(|_| ()),
            Running::Reconciling(machine) => machine.advance(input, &mut context).map(|_| ()),
            Running::Departed(machine) => machine.advance(input, &mut context).map(|_| ()),
            Running::Disconnecting(machine) => machine.advance(input, &mut context).map(|_| ()),
            Running::LogIn(..) => Next::Done(()),
            Running::Admission(stem, machine) => match (machine.advance(input, &mut context), stem) {
                (Next::Do(effect), _) => Next::Do(effect),
                (Next::Done(Ok(admitted)), Some(stem)) if admitted.place.is_some() => {
                    self.machine = Running::LogIn(stem.clone(), Box::new(admitted));
                    return true;
                }
                (Next::Done(_), _) => Next::Done(()),
            },
        };
        match next {
            Next::Done(()) => false,
            Next::Do(effect) => {
                self.pending = Some(effect);
                true
            }
        }
    }

    /// SnapTrade gives a link to the portal, or refuses, after which a place that was taken for it is given back.
    fn log_in(&mut self, world: &mut World, stem: Stem, admitted: &Admitted, fate: Fate) -> bool {
        let place = admitted.place.clone();
        match (fate, place) {
            (Fate::Refused, Some(place)) if admitted.fresh => {
                let name = attempt(self.number, &mut self.drawn);
                let author = Author::new(name, format!("process {}", self.number)).counting(world.counts);
                self.machine = Running::Returning(Box::new(Returning::new(stem, place, author)));
                return self.step(world, Fate::Answered);
            }
            (Fate::Answered, Some(_)) => world.give_link(&stem, admitted),
            _ => {}
        }
        false
    }

    /// Whether SnapTrade is asked for a link next.
    pub(super) fn logs_in(&self) -> bool {
        matches!(self.machine, Running::LogIn(..))
    }

    /// Reads the places, then the holders whose names come first, then the others, with time for others in between.
    fn read_on(&mut self, world: &World) -> Option<Box<Roster>> {
        let (part, mut roster) = self.seen.take().unwrap_or_default();
        let half = |second: bool| {
            let holders = world.shown().into_iter();
            holders.filter(move |holder| (holder.stem().as_str() > "h") == second)
        };
        match part {
            0 => roster.slots.clone_from(&world.slots),
            1 => roster.holders.extend(half(false)),
            _ => {
                roster.holders.extend(half(true));
                roster.ghosts = world.ghosts.values().cloned().collect();
                return Some(roster);
            }
        }
        self.seen = Some((part + 1, roster));
        None
    }

    /// Has an effect done, with the world's flaw between the machine and the outside.
    fn perform(&self, world: &mut World, effect: Effect, fate: Fate) -> Input {
        let registering = matches!(self.machine, Running::Registration(_));
        match (world.flaw, effect) {
            (Some(Flaw::RegisterBeforeCleared), Effect::Delete(_)) if registering => {
                Input::Deleted(Deletion::Queued)
            }
            (Some(Flaw::FreeExpiredAtOnce), Effect::Delete(_)) if !registering => {
                Input::Deleted(Deletion::Queued)
            }
            (Some(Flaw::RemoveOnTheListsWord), Effect::ProbeUser(_)) => {
                Input::Probed(SecretStanding::Rejected)
            }
            (Some(flaw), Effect::Commit(mut commit)) => {
                weaken(&mut commit, flaw);
                world.perform(Effect::Commit(commit), fate)
            }
            (Some(flaw), effect) => mislead(world.perform(effect, fate), flaw, world.now()),
            (None, effect) => world.perform(effect, fate),
        }
    }
}

/// Takes the conditions away that a flawed protocol does not know.
fn weaken(commit: &mut Commit, flaw: Flaw) {
    let step = commit.token.split('.').nth(1).unwrap_or_default().to_owned();
    for write in &mut commit.writes {
        match (flaw, step.as_str(), write) {
            (Flaw::ActivateWithoutComparing, "activate", Write::User { expect, .. })
            | (Flaw::AdoptAGhost, "adopt", Write::Ghost { expect, .. })
            | (Flaw::UndoAfterSyncTookTheGhost, "undo", Write::Ghost { expect, .. })
            | (Flaw::UndoAfterSyncTookTheGhost, "undo", Write::User { expect, .. })
                if *expect != Expect::Absent || flaw == Flaw::AdoptAGhost =>
            {
                *expect = Expect::Anything;
            }
            _ => {}
        }
    }
}

/// Hides or changes what a flawed protocol does not look at.
fn mislead(mut input: Input, flaw: Flaw, now: Timestamp) -> Input {
    match (flaw, &mut input) {
        (Flaw::AdoptAGhost, Input::Roster(roster)) => roster.ghosts.clear(),
        (Flaw::NeverResend, Input::Roster(roster)) => {
            roster.ghosts.retain(|ghost| ghost.state == GhostState::Due);
        }
        (Flaw::VictimsBeforeExpired, Input::Entry(entry)) => {
            if let Some(slots) = &mut entry.slots {
                slots.held.retain(|_, held| !timing::expired(held.until, now));
            }
        }
        (Flaw::TakenIsOurs, Input::Registered(enrolment)) if *enrolment == Enrolment::Taken => {
            *enrolment = Enrolment::Done(secret("a guess", 0));
        }
        _ => {}
    }
    input
}

/// The name that a process draws next.
fn attempt(process: u64, drawn: &mut u64) -> AttemptId {
    *drawn += 1;
    let mixed = (process * 1_000 + *drawn).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    AttemptId::from_random(mixed.to_be_bytes())
}
