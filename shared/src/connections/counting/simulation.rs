//! The machines that count connections against a world in memory: visits, links that are used or not, webhooks, syncs,
//! registrations and departures, in every order that chance finds, with lost answers, refusals, crashes, slow deletions
//! and a clock that jumps.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;

use super::VISIT;
use super::admission::{Admission, Admitted, NotAdmitted, VisitWish, Wanted};
use super::departed::Departed;
use super::reconciling::{Purpose, Reconciling};
use super::returning::Returning;
use crate::config::{Counts, Policy};
use crate::connections::leaving::{Leaving, Whom};
use crate::connections::machine::*;
use crate::connections::policy;
use crate::connections::records::*;
use crate::connections::registration::{Granted, Intent, Refusal, Registration, Wish};
use crate::connections::sync::Sync;
use crate::connections::timing;
use crate::ids::{AttemptId, Stem, UpstreamId, UserId};
use crate::snaptrade::ConnectionId;
use crate::user_secrets::SealedSecret;

const MAX: u32 = 2;

/// A small generator of chance that a seed repeats exactly.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a call or a commit may suffer.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Answered,
    Refused,
    LostBefore,
    LostAfter,
}

/// A connection at SnapTrade.
#[derive(Debug)]
struct AtSnapTrade {
    id: ConnectionId,
    upstream: UpstreamId,
    since: Timestamp,
    deleting: bool,
    /// It was made when its place was gone already. Nothing can prevent that, and it is counted all the same.
    late: bool,
}

/// A link to the portal.
struct Link {
    upstream: UpstreamId,
    until: Timestamp,
    /// Who took the place under which it was given out.
    place: AttemptId,
}

/// The table and SnapTrade.
#[derive(Default)]
struct World {
    slots: Option<Slots>,
    users: BTreeMap<Stem, UserRecord>,
    foreign: BTreeMap<(Stem, u8), ForeignRecord>,
    ghosts: BTreeMap<UpstreamId, Ghost>,
    holds: BTreeMap<Stem, HoldRecord>,
    records: BTreeMap<Stem, ConnectionsRecord>,
    sync: Option<SyncRecord>,
    tokens: BTreeSet<String>,
    /// Users at SnapTrade; true while it is deleting one.
    upstream: Vec<(UpstreamId, bool)>,
    /// Whose secrets it no longer accepts.
    rejected: BTreeSet<UpstreamId>,
    connections: Vec<AtSnapTrade>,
    /// Links that were given out, by user: until when a connection may come of them.
    links: BTreeMap<Stem, Link>,
    made: u32,
    now_ms: i64,
    drawn: u64,
}

impl World {
    fn new() -> Self {
        Self {
            now_ms: 1_800_000_000_000,
            ..Self::default()
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_ms).unwrap()
    }

    fn draw(drawn: &mut u64) -> AttemptId {
        *drawn += 1;
        AttemptId::from_random((*drawn).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes())
    }

    fn author(&mut self) -> Author {
        Author::new(Self::draw(&mut self.drawn), "test".to_owned()).counting(Counts::Connections)
    }

    fn holders(&self) -> Vec<Holder> {
        let users = self.users.values().cloned().map(Holder::User);
        let mut holders: Vec<Holder> = users
            .chain(self.foreign.values().cloned().map(Holder::Foreign))
            .collect();
        holders.sort_by(policy::by_age);
        holders
    }

    fn lives(&self, upstream: &UpstreamId) -> bool {
        self.upstream.iter().any(|(id, _)| id == upstream)
    }

    fn perform(&mut self, effect: Effect, fate: Fate) -> Input {
        match effect {
            Effect::ReadEntry(stem) => Input::Entry(Box::new(self.entry(&stem))),
            Effect::ReadReservation(stem) => {
                let user = self.users.get(&stem).cloned();
                let owed = user
                    .as_ref()
                    .and_then(UserRecord::reservation)
                    .map(|reservation| reservation.after.clone())
                    .unwrap_or_default();
                let ghosts = owed
                    .iter()
                    .filter_map(|id| self.ghosts.get(id).cloned())
                    .collect();
                Input::Reservation(user.map(Box::new), ghosts)
            }
            Effect::ReadRoster => Input::Roster(Box::new(Roster {
                slots: self.slots.clone(),
                holders: self.holders(),
                ghosts: self.ghosts.values().cloned().collect(),
            })),
            Effect::ReadSync => Input::SyncRecord(self.sync.clone()),
            Effect::ReadBooks => Input::Books(Box::new(Books {
                slots: self.slots.clone(),
                records: self.records.values().cloned().collect(),
            })),
            Effect::ReadGhost(upstream) => Input::Ghost(self.ghosts.get(&upstream).cloned().map(Box::new)),
            Effect::ReadStatistics => Input::Statistics(Some(u32::try_from(self.connections.len()).unwrap())),
            Effect::ReadConnectionHolders(_) => Input::ConnectionHolders(
                self.records
                    .values()
                    .filter_map(|record| {
                        let user = self.users.get(&record.stem)?.clone();
                        let record = record.clone();
                        Some(ConnectionHolder { user, record })
                    })
                    .collect(),
            ),
            Effect::Commit(commit) => Input::Committed(match fate {
                Fate::LostBefore => CommitOutcome::Unknown,
                Fate::LostAfter => {
                    self.commit(&commit);
                    CommitOutcome::Unknown
                }
                Fate::Answered | Fate::Refused => self.commit(&commit),
            }),
            Effect::Delete(upstream) => Input::Deleted(match fate {
                Fate::LostBefore => Deletion::Unknown(Fault::Timeout),
                Fate::Refused => Deletion::Refused(Fault::Error),
                Fate::LostAfter => {
                    self.delete(&upstream);
                    Deletion::Unknown(Fault::Timeout)
                }
                Fate::Answered => self.delete(&upstream),
            }),
            Effect::Register(upstream, _) => Input::Registered(match fate {
                Fate::LostBefore => Enrolment::Unknown(Fault::Timeout),
                Fate::Refused => Enrolment::Refused(Fault::Error),
                Fate::LostAfter => {
                    self.upstream.push((upstream, false));
                    Enrolment::Unknown(Fault::Timeout)
                }
                Fate::Answered => {
                    self.upstream.push((upstream.clone(), false));
                    Enrolment::Done(SealedSecret {
                        key_id: "k".to_owned(),
                        sealed: upstream.to_string(),
                    })
                }
            }),
            Effect::List => Input::Listed(match fate {
                Fate::Answered => Ok(self.upstream.iter().map(|(id, _)| id.clone()).collect()),
                _ => Err(Fault::Timeout),
            }),
            Effect::ListConnections(user) => {
                let upstream = user.upstream().unwrap();
                Input::ConnectionsListed(match fate {
                    Fate::Answered if !self.lives(upstream) || self.rejected.contains(upstream) => {
                        Err(NotListed::SecretRejected)
                    }
                    Fate::Answered => Ok(self
                        .connections
                        .iter()
                        .filter(|connection| connection.upstream == *upstream)
                        .map(|connection| ListedConnection {
                            id: connection.id.clone(),
                            created_at: Some(connection.since),
                            disabled: false,
                        })
                        .collect()),
                    _ => Err(NotListed::Fault(Fault::Timeout)),
                })
            }
            Effect::DeleteConnection(user, id) => {
                let upstream = user.upstream().unwrap().clone();
                Input::ConnectionDeleted(match fate {
                    _ if !self.lives(&upstream) || self.rejected.contains(&upstream) => {
                        Disconnection::SecretRejected
                    }
                    Fate::LostBefore => Disconnection::Answered(Deletion::Unknown(Fault::Timeout)),
                    Fate::Refused => Disconnection::Answered(Deletion::Refused(Fault::Error)),
                    Fate::LostAfter => {
                        self.disconnect(&id);
                        Disconnection::Answered(Deletion::Unknown(Fault::Timeout))
                    }
                    Fate::Answered => Disconnection::Answered(self.disconnect(&id)),
                })
            }
            Effect::NoteRejected(user) => {
                if let Some(record) = self.users.get_mut(&user.stem)
                    && record.upstream() == user.upstream()
                    && let UserState::Active(active) = &mut record.state
                {
                    active.secret_rejected = true;
                }
                Input::Noted
            }
            Effect::ProbeUser(user) => {
                let upstream = user.upstream().unwrap();
                Input::Probed(match fate {
                    Fate::Answered if self.lives(upstream) && !self.rejected.contains(upstream) => {
                        SecretStanding::Works
                    }
                    Fate::Answered => SecretStanding::Rejected,
                    _ => SecretStanding::Unclear,
                })
            }
            Effect::ProbeCredentials => Input::ProbedCredentials(fate == Fate::Answered),
            Effect::Wait(duration) => {
                self.now_ms += i64::try_from(duration.as_millis()).unwrap();
                Input::Waited
            }
            other => panic!("nobody evicts users here: {other:?}"),
        }
    }

    fn entry(&self, stem: &Stem) -> Entry {
        let of_user = self.foreign.iter().filter(|((owner, _), _)| owner == stem);
        let mut foreign: Vec<ForeignRecord> = of_user.map(|(_, record)| record.clone()).collect();
        foreign.sort_by_key(|record| (record.created_at, record.order));
        Entry {
            user: self.users.get(stem).cloned(),
            foreign,
            hold: self
                .holds
                .get(stem)
                .filter(|hold| timing::after(hold.until, timing::HOLD_AGAIN) > self.now())
                .cloned(),
            connections: self.records.get(stem).cloned(),
            slots: self.slots.clone(),
        }
    }

    fn delete(&mut self, upstream: &UpstreamId) -> Deletion {
        match self.upstream.iter_mut().find(|(id, _)| id == upstream) {
            Some((_, deleting)) => {
                *deleting = true;
                Deletion::Queued
            }
            None => Deletion::NotThere,
        }
    }

    fn disconnect(&mut self, id: &ConnectionId) -> Deletion {
        match self
            .connections
            .iter_mut()
            .find(|connection| connection.id == *id)
        {
            Some(connection) => {
                connection.deleting = true;
                Deletion::Queued
            }
            None => Deletion::NotThere,
        }
    }

    /// SnapTrade finishes what it has accepted.
    fn finish_deletions(&mut self) {
        self.upstream.retain(|(_, deleting)| !deleting);
        let living: BTreeSet<UpstreamId> = self.upstream.iter().map(|(id, _)| id.clone()).collect();
        self.connections
            .retain(|connection| !connection.deleting && living.contains(&connection.upstream));
    }

    /// A user follows the link and connects a brokerage.
    fn follow(&mut self, stem: &Stem) {
        let Some(Link {
            upstream,
            until,
            place,
        }) = self.links.remove(stem)
        else {
            return;
        };
        if until > self.now()
            && self
                .upstream
                .iter()
                .any(|(id, deleting)| *id == upstream && !deleting)
        {
            self.made += 1;
            let record = self.records.get(stem);
            let portal = record.and_then(|record| record.portal.as_ref());
            let placed = portal.is_some_and(|portal| portal.attempt == place);
            // A second one under the same place, while the books do not know of the first, is late as well.
            let unknown = self.connections.iter().any(|one| {
                one.upstream == upstream && !record.is_some_and(|record| record.ids.contains_key(&one.id))
            });
            self.connections.push(AtSnapTrade {
                late: !placed || unknown,
                id: ConnectionId::new(format!("c{}", self.made)),
                upstream,
                since: self.now(),
                deleting: false,
            });
        }
    }

    fn commit(&mut self, commit: &Commit) -> CommitOutcome {
        if self.tokens.contains(&commit.token) {
            return CommitOutcome::Won;
        }
        let mut obstacles = Vec::new();
        let slots_hold = match &commit.slots {
            SlotsChange::None => true,
            SlotsChange::Transition(t) => self.slots.as_ref().is_some_and(|slots| t.is_allowed(slots)),
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
        let mut written = BTreeSet::new();
        for write in &commit.writes {
            let (met, obstacle, item) = match write {
                Write::User { stem, expect, .. } => {
                    let old = self.users.get(stem);
                    let obstacle = Obstacle::User(stem.clone(), old.cloned().map(Box::new));
                    let met = meets(expect, old.map(|old| old.rev));
                    (met, obstacle, format!("user {}", stem.as_str()))
                }
                Write::Seen { stem, upstream, rev } => {
                    let old = self.users.get(stem);
                    let obstacle = Obstacle::User(stem.clone(), old.cloned().map(Box::new));
                    let active = old.and_then(UserRecord::active);
                    let met = active.map(|active| &active.upstream) == Some(upstream)
                        && rev.is_none_or(|rev| old.map(|old| old.rev) == Some(rev));
                    (met, obstacle, format!("user {}", stem.as_str()))
                }
                Write::Connections { stem, expect, .. } => {
                    let old = self.records.get(stem);
                    let obstacle = Obstacle::Connections(stem.clone(), old.cloned().map(Box::new));
                    let met = meets(expect, old.map(|old| old.rev));
                    (met, obstacle, format!("connections {}", stem.as_str()))
                }
                Write::Foreign {
                    stem, slot, expect, ..
                } => {
                    let old = self.foreign.get(&(stem.clone(), *slot));
                    let obstacle = Obstacle::Foreign(old.cloned().map(Box::new));
                    let met = meets(expect, old.map(|old| old.rev));
                    (met, obstacle, format!("foreign {} {slot}", stem.as_str()))
                }
                Write::Ghost { upstream, expect, .. } => {
                    let met = meets(expect, self.ghosts.get(upstream).map(|old| old.rev));
                    (
                        met,
                        Obstacle::Ghost(upstream.clone()),
                        format!("ghost {upstream}"),
                    )
                }
                Write::Sync { expect, .. } => {
                    let met = meets(expect, self.sync.as_ref().map(|old| old.rev));
                    let obstacle = Obstacle::Sync(self.sync.clone().map(Box::new));
                    (met, obstacle, "sync".to_owned())
                }
                Write::Hold { stem, .. } => (true, Obstacle::Other, format!("hold {}", stem.as_str())),
                Write::Visit { stem, .. } => (true, Obstacle::Other, format!("visit {}", stem.as_str())),
            };
            assert!(written.insert(item), "one item twice in {}", commit.token);
            if !met {
                obstacles.push(obstacle);
            }
        }
        if !obstacles.is_empty() {
            return CommitOutcome::Lost(obstacles);
        }
        self.tokens.insert(commit.token.clone());
        self.look_at_evictions(commit);
        match &commit.slots {
            SlotsChange::None => {}
            SlotsChange::Transition(t) => self.slots = self.slots.as_ref().map(|slots| t.apply(slots)),
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
                Write::Connections { stem, becomes, .. } => put(&mut self.records, stem.clone(), becomes),
                Write::Hold { stem, becomes } => put(&mut self.holds, stem.clone(), becomes),
                Write::Sync { becomes, .. } => self.sync = Some((**becomes).clone()),
                Write::Seen { .. } | Write::Visit { .. } => {}
            }
        }
        CommitOutcome::Won
    }

    /// Whoever gives way is not protected, and gives way only when every place is taken, to somebody who has none;
    /// without a place only where there are more than the limit allows.
    fn look_at_evictions(&mut self, commit: &Commit) {
        let mut token = commit.token.split('.');
        let (attempt, step) = (token.next().unwrap(), token.next().unwrap());
        if !["evict", "shrink"].contains(&step) {
            return;
        }
        let slots = self.slots.as_ref().unwrap();
        let taken = slots.in_use + slots.elsewhere;
        assert!(taken >= MAX, "an eviction with room left");
        assert!(
            step == "evict" || taken > MAX,
            "one gave way and nobody had the place"
        );
        let has_one = self
            .records
            .values()
            .filter_map(|record| record.portal.as_ref())
            .any(|portal| portal.attempt.as_str() == attempt);
        assert!(!has_one, "one place had two give way");
        for write in &commit.writes {
            let victim = match write {
                Write::User {
                    stem,
                    becomes: Change::Gone,
                    ..
                } => Some(stem),
                Write::Connections {
                    stem,
                    becomes: Change::Put(record),
                    ..
                } if record.leaving() > self.records.get(stem).map_or(0, ConnectionsRecord::leaving) => {
                    Some(stem)
                }
                _ => None,
            };
            if let Some(stem) = victim {
                assert!(!self.users[stem].protected, "a protected user gave way");
            }
        }
    }

    /// What has to hold in every state.
    fn check(&self) {
        let Some(slots) = &self.slots else { return };
        let counted = || self.records.values().filter(|record| record.epoch == slots.epoch);
        let places: u32 = counted().map(ConnectionsRecord::places).sum();
        let going = self
            .ghosts
            .values()
            .filter(|ghost| ghost.state != GhostState::Gone);
        let leaving: u32 = counted().map(ConnectionsRecord::leaving).sum::<u32>()
            + going.map(|ghost| ghost.connections).sum::<u32>();
        assert_eq!((slots.in_use, slots.leaving), (places, leaving), "{slots:?}");
        let visits: BTreeMap<&Stem, HeldPortal> = counted()
            .filter_map(|record| {
                let portal = record.portal.as_ref()?;
                let held = HeldPortal {
                    until: portal.until,
                    kind: portal.kind,
                };
                Some((&record.stem, held))
            })
            .collect();
        let noted: BTreeMap<&Stem, HeldPortal> =
            slots.portals.iter().map(|(stem, held)| (stem, *held)).collect();
        assert_eq!(
            visits, noted,
            "every visit stands among the places, and nothing else"
        );
        if slots.open {
            let living = self
                .connections
                .iter()
                .filter(|connection| !connection.late)
                .count();
            let living = u32::try_from(living).unwrap();
            assert!(
                living <= MAX,
                "{living} connections at SnapTrade, {:?} {:?}",
                self.connections,
                self.records
            );
        }
    }

    /// Runs one machine alone and undisturbed.
    fn run<M: Machine>(&mut self, mut machine: M) -> M::Output {
        let deadline = timing::after(self.now(), timing::FUNCTION);
        let mut input = Input::Begin;
        for _ in 0..2_000 {
            let (now, drawn) = (self.now(), &mut self.drawn);
            let mut draw = || Self::draw(drawn);
            let mut context = Context {
                now,
                deadline,
                draw: &mut draw,
            };
            match machine.advance(input, &mut context) {
                Next::Done(output) => return output,
                Next::Do(effect) => {
                    input = self.perform(effect, Fate::Answered);
                    self.check();
                }
            }
        }
        panic!("the machine does not come to an end");
    }

    fn link(&mut self, name: &str) -> Result<Admitted, NotAdmitted> {
        let author = self.author();
        let admitted = self.run(Admission::new(visit(name, link()), None, author));
        if let Ok(admitted) = &admitted {
            self.give_link(&user(name).stem(), admitted);
        }
        admitted
    }

    /// SnapTrade answers with a link; a visit that outlasts the place is not what is looked at here.
    fn give_link(&mut self, stem: &Stem, admitted: &Admitted) {
        let upstream = self.users.get(stem).and_then(|user| user.upstream().cloned());
        if let (Some(place), Some(upstream)) = (&admitted.place, upstream) {
            let until = place.until.min(timing::after(self.now(), VISIT));
            let link = Link {
                upstream,
                until,
                place: place.attempt.clone(),
            };
            self.links.insert(stem.clone(), link);
        }
    }

    fn register(&mut self, name: &str) -> Result<Granted, Refusal> {
        let author = self.author();
        self.run(Registration::new(wish(name), author))
    }

    fn reconcile(&mut self, name: &str) {
        let author = self.author();
        self.run(Reconciling::new(user(name).stem(), Purpose::Look, author));
    }

    fn sync(&mut self) {
        let author = self.author();
        self.run(Sync::new(author, MAX, Counts::Connections)).unwrap();
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

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn wish(name: &str) -> Wish {
    Wish {
        intent: Intent::Register,
        user: user(name),
        max: MAX,
        counts: Counts::Connections,
        policy: Policy::Oldest,
    }
}

fn link() -> Wanted {
    Wanted::Link {
        reconnect: None,
        detail: Vec::new(),
    }
}

fn visit(name: &str, wanted: Wanted) -> VisitWish {
    VisitWish {
        user: user(name),
        wanted,
        max: MAX,
        policy: Policy::Oldest,
    }
}

/// A machine of any kind, under way.
enum Running {
    /// For a link of this user's, or for a hold, which gives none out.
    Admission(Option<Stem>, Box<Admission>),
    Registration(Box<Registration>),
    Leaving(Box<Leaving>),
    Sync(Box<Sync>),
    Reconciling(Box<Reconciling>),
    Departed(Box<Departed>),
    Returning(Box<Returning>),
}

struct Process {
    machine: Running,
    pending: Input,
    deadline: Timestamp,
}

const NAMES: [&str; 3] = ["ada", "grace", "joan"];

fn start(world: &mut World, chance: &mut Chance) -> Process {
    let name = NAMES[usize::try_from(chance.below(3)).unwrap()];
    let stem = user(name).stem();
    let author = world.author();
    let machine = match chance.below(20) {
        0 => Running::Leaving(Box::new(Leaving::new(Whom::User(user(name)), author))),
        1 | 2 => Running::Sync(Box::new(Sync::new(author, MAX, Counts::Connections))),
        3..=5 => Running::Registration(Box::new(Registration::new(wish(name), author))),
        6..=9 => {
            let purpose = if chance.one_in(3) {
                Purpose::Failure
            } else {
                Purpose::Look
            };
            Running::Reconciling(Box::new(Reconciling::new(stem, purpose, author)))
        }
        10 => match world.ghosts.keys().next().cloned() {
            Some(ghost) => Running::Departed(Box::new(Departed::new(ghost, false, author))),
            None => Running::Sync(Box::new(Sync::new(author, MAX, Counts::Connections))),
        },
        11 => {
            let hold = Admission::new(visit(name, Wanted::Hold), None, author);
            Running::Admission(None, Box::new(hold))
        }
        _ => Running::Admission(
            Some(stem),
            Box::new(Admission::new(visit(name, link()), None, author)),
        ),
    };
    Process {
        machine,
        pending: Input::Begin,
        deadline: timing::after(world.now(), timing::FUNCTION),
    }
}

impl Process {
    /// One step: decides, and has the effect done. `false` at the end.
    fn step(&mut self, world: &mut World, fate: Fate, chance: &mut Chance) -> bool {
        let input = std::mem::replace(&mut self.pending, Input::Begin);
        let effect = {
            let (now, drawn) = (world.now(), &mut world.drawn);
            let mut draw = || World::draw(drawn);
            let mut context = Context {
                now,
                deadline: self.deadline,
                draw: &mut draw,
            };
            let next = match &mut self.machine {
                Running::Admission(_, machine) => machine.advance(input, &mut context).map(Some),
                Running::Registration(machine) => machine.advance(input, &mut context).map(|_| None),
                Running::Leaving(machine) => machine.advance(input, &mut context).map(|_| None),
                Running::Sync(machine) => machine.advance(input, &mut context).map(|_| None),
                Running::Reconciling(machine) => machine.advance(input, &mut context).map(|_| None),
                Running::Departed(machine) => machine.advance(input, &mut context).map(|_| None),
                Running::Returning(machine) => machine.advance(input, &mut context).map(|_| None),
            };
            match next {
                Next::Done(output) => {
                    return self.admitted(output.and_then(Result::ok), world, chance);
                }
                Next::Do(effect) => effect,
            }
        };
        self.pending = world.perform(effect, fate);
        true
    }

    /// A link is given out, or refused, after which a place taken for it is given back.
    fn admitted(&mut self, admitted: Option<Admitted>, world: &mut World, chance: &mut Chance) -> bool {
        let (Running::Admission(Some(stem), _), Some(admitted)) = (&self.machine, admitted) else {
            return false;
        };
        let stem = stem.clone();
        let place = admitted
            .place
            .clone()
            .filter(|place| place.kind == PortalKind::Visit);
        let Some(place) = place else { return false };
        if !chance.one_in(5) {
            world.give_link(&stem, &admitted);
            return false;
        }
        if !admitted.fresh {
            return false;
        }
        let author = world.author();
        self.machine = Running::Returning(Box::new(Returning::new(stem, place, author)));
        self.pending = Input::Begin;
        true
    }
}

/// Plays a storm, then lets it end, and looks whether everything was put right.
fn storm(seed: u64, steps: u32) {
    let mut chance = Chance(seed);
    let mut world = World::new();
    let mut processes: Vec<Process> = Vec::new();
    for _ in 0..steps {
        if processes.len() < 3 && chance.one_in(3) {
            processes.push(start(&mut world, &mut chance));
        }
        if chance.one_in(6) {
            world.now_ms += 500;
        }
        if chance.one_in(60) {
            world.now_ms += i64::try_from(chance.below(2_400_000)).unwrap();
        }
        if chance.one_in(8) {
            world.finish_deletions();
        }
        let name = NAMES[usize::try_from(chance.below(3)).unwrap()];
        if chance.one_in(10) {
            world.follow(&user(name).stem());
        }
        if chance.one_in(60) && !world.connections.is_empty() {
            // A user removes a connection in the portal.
            let which = usize::try_from(chance.below(world.connections.len() as u64)).unwrap();
            world.connections.remove(which);
        }
        if chance.one_in(150)
            && let Some(id) = world
                .users
                .get(&user(name).stem())
                .and_then(UserRecord::upstream)
                .cloned()
        {
            world.rejected.insert(id);
        }
        if chance.one_in(50)
            && let Some(user) = world.users.get_mut(&user(name).stem())
            && user.active().is_some()
        {
            user.protected = !user.protected;
            user.rev += 1;
        }
        world.check();
        let now = world.now();
        processes.retain(|process| process.deadline > now);
        if processes.is_empty() {
            continue;
        }
        let which = usize::try_from(chance.below(processes.len() as u64)).unwrap();
        if chance.one_in(40) {
            processes.swap_remove(which);
            continue;
        }
        let fate = match chance.below(12) {
            0 => Fate::Refused,
            1 => Fate::LostBefore,
            2 => Fate::LostAfter,
            _ => Fate::Answered,
        };
        if !processes[which].step(&mut world, fate, &mut chance) {
            processes.swap_remove(which);
        }
        world.check();
    }
    // The storm is over: calls are answered, secrets work again, and visits end.
    world.links.clear();
    world.rejected.clear();
    for user in world.users.values_mut() {
        if let UserState::Active(active) = &mut user.state {
            active.secret_rejected = false;
        }
    }
    world.now_ms += 7_200_000;
    for _ in 0..4 {
        world.now_ms += 400_000;
        world.finish_deletions();
        world.sync();
    }
    let slots = world.slots.clone().unwrap();
    assert!(slots.open && slots.portals.is_empty(), "{slots:?}");
    assert_eq!(slots.leaving, 0, "{:?}", world.records);
    let counted: BTreeSet<&ConnectionId> = world
        .records
        .values()
        .flat_map(|record| record.ids.keys())
        .collect();
    let there: BTreeSet<&ConnectionId> = world
        .connections
        .iter()
        .map(|connection| &connection.id)
        .collect();
    assert_eq!(
        counted, there,
        "SnapTrade and the books name the same connections"
    );
    assert_eq!(slots.in_use as usize, there.len());
    // And everybody who comes now is served, as long as somebody may give way.
    for user in world.users.values_mut() {
        user.protected = false;
    }
    world.register("ada").unwrap();
    let pending = Err(NotAdmitted::Refused(Refusal::DeletionPending { retry_after: 10 }));
    let mut admitted = world.link("ada");
    for _ in 0..3 {
        if admitted == pending {
            world.finish_deletions();
            admitted = world.link("ada");
        }
    }
    assert!(
        admitted.is_ok(),
        "{admitted:?} with {:?} and {:?}",
        world.slots,
        world.records
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_storm_breaks_the_limit_of_connections(seed: u64) {
        storm(seed, 500);
    }
}

/// A place was given back under which somebody else had a link; a user left while a place was being taken; a link was
/// given out at once on a count that was old.
#[test]
fn the_storms_that_once_broke_the_limit_of_connections_do_so_no_more() {
    for seed in [
        3_897_097_100_932_863_111,
        10_824_340_905_403_085_810,
        16_137_732_835_723_497_115,
    ] {
        storm(seed, 500);
    }
}

/// Two users with one connection each.
fn full() -> World {
    let mut world = World::new();
    for name in ["ada", "grace"] {
        world.register(name).unwrap();
        world.link(name).unwrap();
        world.now_ms += 1_000;
        world.follow(&user(name).stem());
        world.reconcile(name);
    }
    world.register("joan").unwrap();
    world
}

#[test]
fn registering_takes_no_place_and_a_connection_has_the_place_of_its_visit() {
    let world = full();
    let slots = world.slots.unwrap();
    assert_eq!((slots.in_use, slots.leaving), (2, 0));
    assert!(slots.portals.is_empty());
    assert_eq!(world.users.len(), 3);
}

#[test]
fn a_link_is_given_out_only_when_what_gave_way_is_gone() {
    let mut world = full();
    let pending = world.link("joan");
    assert_eq!(
        pending,
        Err(NotAdmitted::Refused(Refusal::DeletionPending { retry_after: 10 }))
    );
    let slots = world.slots.clone().unwrap();
    assert_eq!((slots.in_use, slots.leaving), (2, 1));
    world.finish_deletions();
    let admitted = world.link("joan").unwrap();
    assert!(admitted.place.is_some());
    assert_eq!(world.slots.clone().unwrap().leaving, 0);
    world.follow(&user("joan").stem());
    world.reconcile("joan");
    world.check();
    assert_eq!(world.slots.unwrap().in_use, 2);
}

#[test]
fn a_visit_from_which_nothing_came_makes_room_for_the_next_before_anything_gives_way() {
    let mut world = World::new();
    for name in NAMES {
        world.register(name).unwrap();
    }
    world.link("ada").unwrap();
    world.link("grace").unwrap();
    assert!(matches!(
        world.link("joan"),
        Err(NotAdmitted::Refused(Refusal::LimitReached {
            retry_after: Some(_)
        }))
    ));
    // One of the two has connected, and its webhook was lost.
    world.follow(&user("ada").stem());
    world.now_ms += 1_900_000;
    let admitted = world.link("joan").unwrap();
    assert_eq!(admitted.eviction, None);
    assert_eq!(world.slots.clone().unwrap().in_use, 2);
    assert_eq!(world.records[&user("ada").stem()].ids.len(), 1);
}

#[test]
fn a_deletion_that_snaptrade_refuses_is_undone_and_another_asked() {
    let mut world = full();
    let author = world.author();
    let mut process = Process {
        machine: Running::Admission(
            Some(user("joan").stem()),
            Box::new(Admission::new(visit("joan", link()), None, author)),
        ),
        pending: Input::Begin,
        deadline: timing::after(world.now(), timing::FUNCTION),
    };
    let mut chance = Chance(7);
    while {
        let fate = if world.slots.as_ref().unwrap().leaving > 0 {
            Fate::Refused
        } else {
            Fate::Answered
        };
        process.step(&mut world, fate, &mut chance)
    } {
        world.check();
    }
    assert_eq!(world.connections.iter().filter(|one| one.deleting).count(), 0);
    let slots = world.slots.unwrap();
    assert_eq!((slots.in_use, slots.leaving), (2, 0));
}
