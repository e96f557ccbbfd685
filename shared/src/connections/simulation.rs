//! The machines against a world in memory: many of them at once, in every order that chance finds, with lost answers,
//! refusals, crashes, slow deletions and a clock that jumps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::leaving::{Leaving, Whom};
use super::machine::*;
use super::policy;
use super::records::*;
use super::registration::{Granted, Intent, Refusal, Registration, Wish};
use super::sync::Sync;
use super::timing;
use crate::config::{Counts, Policy};
use crate::ids::{AttemptId, Stem, UpstreamId, UserId};
use crate::user_secrets::SealedSecret;

const MAX: u32 = 2;

/// A small generator of chance that a seed repeats exactly.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
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

/// The table and SnapTrade.
#[derive(Default)]
struct World {
    slots: Option<Slots>,
    users: BTreeMap<Stem, UserRecord>,
    foreign: BTreeMap<(Stem, u8), ForeignRecord>,
    ghosts: BTreeMap<UpstreamId, Ghost>,
    holds: BTreeMap<Stem, HoldRecord>,
    connections: BTreeMap<Stem, ConnectionsRecord>,
    sync: Option<SyncRecord>,
    /// Ids at SnapTrade, in the order of their registration; true while it is deleting one.
    upstream: Vec<(UpstreamId, bool)>,
    /// Ids that were sent to be registered and not refused for certain.
    sent: BTreeSet<UpstreamId>,
    now_ms: i64,
    drawn: u64,
    evictions: u32,
    /// Ids that SnapTrade does not delete whatever is asked.
    refuses_to_delete: BTreeSet<UpstreamId>,
    refusals: u32,
}

impl World {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_ms).unwrap()
    }

    fn draw(drawn: &mut u64) -> AttemptId {
        *drawn += 1;
        AttemptId::from_random((*drawn).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes())
    }

    fn perform(&mut self, effect: Effect, fate: Fate, chance: &mut Chance) -> Input {
        match effect {
            Effect::ReadEntry(stem) => Input::Entry(Box::new(Entry {
                user: self.users.get(&stem).cloned(),
                foreign: {
                    let of_user = self.foreign.iter().filter(|((owner, _), _)| *owner == stem);
                    let mut foreign: Vec<ForeignRecord> = of_user.map(|(_, record)| record.clone()).collect();
                    foreign.sort_by_key(|record| (record.created_at, record.order));
                    foreign
                },
                hold: self
                    .holds
                    .get(&stem)
                    .filter(|hold| timing::after(hold.until, timing::HOLD_AGAIN) > self.now())
                    .cloned(),
                connections: self.connections.get(&stem).cloned(),
                slots: self.slots.clone(),
            })),
            Effect::ReadReservation(stem) => {
                let user = self.users.get(&stem).cloned();
                let owed = user
                    .as_ref()
                    .and_then(UserRecord::reservation)
                    .map(|r| r.after.clone());
                let ghosts = owed
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|id| self.ghosts.get(id).cloned())
                    .collect();
                Input::Reservation(user.map(Box::new), ghosts)
            }
            Effect::ReadCandidates(_) => {
                let mut holders = self.holders();
                holders.retain(Holder::may_give_way);
                Input::Candidates(holders)
            }
            Effect::ReadRoster => Input::Roster(Box::new(Roster {
                slots: self.slots.clone(),
                holders: self.holders(),
                ghosts: self.ghosts.values().cloned().collect(),
            })),
            Effect::ReadSync => Input::SyncRecord(self.sync.clone()),
            Effect::Commit(commit) => Input::Committed(match fate {
                Fate::LostBefore => CommitOutcome::Unknown,
                Fate::LostAfter => {
                    self.commit(&commit);
                    CommitOutcome::Unknown
                }
                Fate::Answered | Fate::Refused => self.commit(&commit),
            }),
            Effect::Delete(upstream) if self.refuses_to_delete.contains(&upstream) => {
                self.refusals += 1;
                Input::Deleted(Deletion::Refused(Fault::Error))
            }
            Effect::Delete(upstream) => Input::Deleted(match fate {
                Fate::LostBefore => Deletion::Unknown(Fault::Timeout),
                Fate::Refused => Deletion::Refused(Fault::Error),
                Fate::LostAfter => {
                    self.delete(&upstream);
                    Deletion::Unknown(Fault::Timeout)
                }
                Fate::Answered => self.delete(&upstream),
            }),
            Effect::Register(upstream, _) => {
                assert!(
                    !self.sent.contains(&upstream),
                    "{upstream} was sent again though it may be registered"
                );
                if fate != Fate::Refused {
                    self.sent.insert(upstream.clone());
                }
                Input::Registered(match fate {
                    Fate::LostBefore => Enrolment::Unknown(Fault::Timeout),
                    Fate::Refused if chance.one_in(2) => Enrolment::LimitReached,
                    Fate::Refused => Enrolment::Refused(Fault::Error),
                    Fate::LostAfter => {
                        self.upstream.push((upstream, false));
                        Enrolment::Unknown(Fault::Timeout)
                    }
                    Fate::Answered => {
                        self.upstream.push((upstream.clone(), false));
                        Enrolment::Done(secret_of(&upstream))
                    }
                })
            }
            Effect::List => Input::Listed(match fate {
                Fate::Answered => Ok(self.upstream.iter().map(|(id, _)| id.clone()).collect()),
                _ => Err(Fault::Timeout),
            }),
            Effect::ProbeUser(user) => {
                let id = user.upstream().cloned();
                let lives = self
                    .upstream
                    .iter()
                    .any(|(living, _)| Some(living) == id.as_ref());
                Input::Probed(match fate {
                    Fate::Answered if lives => SecretStanding::Works,
                    Fate::Answered => SecretStanding::Rejected,
                    _ => SecretStanding::Unclear,
                })
            }
            Effect::ProbeCredentials => Input::ProbedCredentials(fate == Fate::Answered),
            Effect::ListConnections(_)
            | Effect::DeleteConnection(..)
            | Effect::NoteRejected(_)
            | Effect::ReadConnectionHolders(_)
            | Effect::ReadBooks
            | Effect::ReadGhost(_)
            | Effect::ReadStatistics => panic!("connections are not counted here: {effect:?}"),
            Effect::Wait(duration) => {
                self.now_ms += i64::try_from(duration.as_millis()).unwrap();
                Input::Waited
            }
        }
    }

    fn holders(&self) -> Vec<Holder> {
        let users = self.users.values().cloned().map(Holder::User);
        let mut holders: Vec<Holder> = users
            .chain(self.foreign.values().cloned().map(Holder::Foreign))
            .collect();
        holders.sort_by(policy::by_age);
        holders
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

    fn commit(&mut self, commit: &Commit) -> CommitOutcome {
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
                Write::Seen { stem, upstream } => {
                    let old = self.users.get(stem);
                    if old.and_then(UserRecord::active).map(|active| &active.upstream) != Some(upstream) {
                        obstacles.push(Obstacle::User(stem.clone(), old.cloned().map(Box::new)));
                    }
                }
                Write::Hold { .. } | Write::Visit { .. } => {}
            }
        }
        if !obstacles.is_empty() {
            return CommitOutcome::Lost(obstacles);
        }
        if commit.token.contains(".evict.") {
            self.evictions += 1;
            let slots = self.slots.as_ref().unwrap();
            assert!(slots.in_use >= MAX, "an eviction with room left");
            let expired = slots.held.values().any(|held| held.may_be_taken(commit.at));
            assert!(!expired, "an eviction though a place waits to be taken");
        }
        match &commit.slots {
            SlotsChange::None => {}
            SlotsChange::Transition(t) => {
                self.slots = self.slots.as_ref().map(|slots| t.apply(slots));
            }
            SlotsChange::Replace { becomes, .. } => self.slots = Some((**becomes).clone()),
        }
        for write in &commit.writes {
            match write {
                Write::User { stem, becomes, .. } => put(&mut self.users, stem.clone(), becomes),
                Write::Foreign {
                    stem, slot, becomes, ..
                } => {
                    put(&mut self.foreign, (stem.clone(), *slot), becomes);
                }
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

    /// What has to hold in every state.
    fn check(&self) {
        let Some(slots) = &self.slots else { return };
        let held = self.users.len() + self.foreign.len();
        if slots.open {
            assert_eq!(
                slots.in_use as usize, held,
                "the places in use are those that are held"
            );
        }
        let reserved: BTreeSet<&Stem> = self
            .users
            .iter()
            .filter(|(_, user)| user.reservation().is_some())
            .map(|(stem, _)| stem)
            .collect();
        let in_map: BTreeSet<&Stem> = slots.held.keys().collect();
        assert_eq!(
            reserved, in_map,
            "every reservation stands in the map of those held, and nothing else"
        );
        let mut living = 0;
        for (id, deleting) in &self.upstream {
            let named = self.users.values().any(|user| user.upstream() == Some(id))
                || self.foreign.values().any(|foreign| foreign.upstream == *id)
                || self.ghosts.contains_key(id);
            assert!(named || !slots.open, "nobody answers for {id}");
            if !deleting && !self.ghosts.contains_key(id) {
                living += 1;
            }
        }
        assert!(
            !slots.open || living <= MAX.max(u32::try_from(held).unwrap()),
            "{living} living ids"
        );
        for user in self.users.values() {
            if let Some(active) = user.active() {
                let lives = self
                    .upstream
                    .iter()
                    .any(|(id, deleting)| *id == active.upstream && !deleting);
                assert!(lives, "the active user {} is not at SnapTrade", user.user_id);
                assert_eq!(
                    active.secret,
                    secret_of(&active.upstream),
                    "a secret of another incarnation"
                );
            }
        }
        for ghost in self.ghosts.values() {
            assert!(
                !self
                    .users
                    .values()
                    .any(|user| user.active().is_some_and(|a| a.upstream == ghost.upstream)),
                "{} is to be deleted and in use",
                ghost.upstream
            );
        }
    }

    /// Runs one machine alone and undisturbed.
    fn run<M: Machine>(&mut self, mut machine: M, chance: &mut Chance) -> M::Output {
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
                Next::Done(output) => {
                    self.check();
                    return output;
                }
                Next::Do(effect) => {
                    input = self.perform(effect, Fate::Answered, chance);
                    self.check();
                }
            }
        }
        panic!("the machine does not come to an end");
    }

    /// Fulfils a wish alone and undisturbed.
    fn wish(&mut self, intent: Intent, name: &str, chance: &mut Chance) -> Result<Granted, Refusal> {
        let author = self.author();
        self.run(Registration::new(wish(intent, name), author), chance)
    }

    /// Runs one sync alone and undisturbed.
    fn sync(&mut self, chance: &mut Chance) {
        let author = self.author();
        self.run(Sync::new(author, MAX, Counts::Users), chance).unwrap();
    }

    fn author(&mut self) -> Author {
        Author::new(Self::draw(&mut self.drawn), "test".to_owned())
    }

    fn finish_deletions(&mut self) {
        self.upstream.retain(|(_, deleting)| !deleting);
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

fn secret_of(upstream: &UpstreamId) -> SealedSecret {
    SealedSecret {
        key_id: "k".to_owned(),
        sealed: upstream.to_string(),
    }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn wish(intent: Intent, name: &str) -> Wish {
    Wish {
        intent,
        user: user(name),
        max: MAX,
        counts: Counts::Users,
        policy: Policy::Oldest,
    }
}

fn new_world() -> World {
    World {
        now_ms: 1_800_000_000_000,
        ..World::default()
    }
}

/// A machine of any kind, under way.
enum Running {
    Registration(Box<Registration>),
    Leaving(Box<Leaving>),
    Sync(Box<Sync>),
}

struct Process {
    machine: Running,
    pending: Input,
    deadline: Timestamp,
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
                Running::Registration(machine) => machine.advance(input, &mut context).map(|_| ()),
                Running::Leaving(machine) => machine.advance(input, &mut context).map(|_| ()),
                Running::Sync(machine) => machine.advance(input, &mut context).map(|_| ()),
            };
            match next {
                Next::Done(()) => return false,
                Next::Do(effect) => effect,
            }
        };
        self.pending = world.perform(effect, fate, chance);
        true
    }
}

/// Somebody by name, or one certain holder.
fn leaver(world: &World, name: &str, chance: &mut Chance) -> Whom {
    let holders = world.holders();
    if holders.is_empty() || chance.one_in(2) {
        return Whom::User(user(name));
    }
    let which = usize::try_from(chance.below(holders.len() as u64)).unwrap();
    Whom::Holder(Box::new(holders[which].clone()))
}

fn start(world: &mut World, chance: &mut Chance) -> Process {
    let names = ["ada", "grace", "joan", "mary"];
    let name = names[usize::try_from(chance.below(4)).unwrap()];
    let author = world.author();
    let machine = match chance.below(10) {
        0 => Running::Leaving(Box::new(Leaving::new(leaver(world, name, chance), author))),
        1 | 2 => Running::Sync(Box::new(Sync::new(author, MAX, Counts::Users))),
        3 => Running::Registration(Box::new(Registration::new(wish(Intent::Hold, name), author))),
        4 => Running::Registration(Box::new(Registration::new(wish(Intent::Recreate, name), author))),
        _ => Running::Registration(Box::new(Registration::new(wish(Intent::Register, name), author))),
    };
    Process {
        machine,
        pending: Input::Begin,
        deadline: timing::after(world.now(), timing::FUNCTION),
    }
}

/// Plays a storm, then lets it end, and looks whether everything was put right.
fn storm(seed: u64, steps: u32) {
    let mut chance = Chance(seed);
    let mut world = new_world();
    // Some worlds begin with ids from elsewhere, or with several of one user whose records were lost.
    for stranger in ["grace", "ada~aaaaaaaaaaaa", "ada~bbbbbbbbbbbb", "zoe"] {
        if chance.one_in(3) {
            world.upstream.push((UpstreamId::from_snaptrade(stranger), false));
        }
    }
    let mut processes: Vec<Process> = Vec::new();
    for _ in 0..steps {
        if processes.len() < 3 && chance.one_in(3) {
            processes.push(start(&mut world, &mut chance));
        }
        if chance.one_in(6) {
            world.now_ms += 500;
        }
        if chance.one_in(60) {
            world.now_ms += i64::try_from(chance.below(400_000)).unwrap();
        }
        if chance.one_in(8) {
            world.finish_deletions();
        }
        // A function that ran out of time is stopped where it stands; that is how a lease outlives its holder.
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
    // The storm is over: calls are answered, and time passes.
    for _ in 0..6 {
        world.now_ms += 400_000;
        world.finish_deletions();
        world.sync(&mut chance);
    }
    world.finish_deletions();
    assert!(
        world.users.values().all(|user| user.active().is_some()),
        "a reservation is left"
    );
    assert!(
        world.ghosts.values().all(|ghost| ghost.state != GhostState::Due),
        "an id waits to be deleted"
    );
    let listed: BTreeSet<UpstreamId> = world.upstream.iter().map(|(id, _)| id.clone()).collect();
    let tracked: BTreeSet<UpstreamId> = world
        .holders()
        .iter()
        .filter_map(|h| h.upstream().cloned())
        .collect();
    assert_eq!(listed, tracked, "SnapTrade and tracking name the same");
    // And everybody who comes now is served.
    let outcome = world.wish(Intent::Register, "ada", &mut chance);
    let plain =
        world.foreign.contains_key(&(user("ada").stem(), 0)) && outcome == Err(Refusal::ExistsUpstream);
    assert!(
        plain || matches!(outcome, Ok(Granted::Registered { .. })),
        "{outcome:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_storm_breaks_the_limit_or_loses_a_secret(seed: u64) {
        storm(seed, 400);
    }
}

/// An activation was made and its answer lost; the user gave way, and the late doubter deleted an id whose eviction was
/// then undone.
#[test]
fn the_storm_that_once_deleted_a_restored_user_does_so_no_more() {
    storm(9_265_129_419_131_517_451, 400);
}

#[test]
fn a_user_below_the_limit_takes_nobodys_place() {
    let (mut world, mut chance) = (new_world(), Chance(1));
    for name in ["ada", "grace"] {
        world.now_ms += 1_000;
        let granted = world.wish(Intent::Register, name, &mut chance).unwrap();
        assert!(matches!(
            granted,
            Granted::Registered {
                created: true,
                eviction: None,
                ..
            }
        ));
    }
    let again = world.wish(Intent::Register, "ada", &mut chance).unwrap();
    assert!(matches!(again, Granted::Registered { created: false, .. }));
    assert_eq!(world.evictions, 0);
}

#[test]
fn at_the_limit_the_oldest_gives_way_and_only_once() {
    let (mut world, mut chance) = (new_world(), Chance(1));
    for name in ["ada", "grace", "joan"] {
        world.now_ms += 1_000;
        let granted = world.wish(Intent::Register, name, &mut chance).unwrap();
        let Granted::Registered { eviction, .. } = granted else {
            panic!("{granted:?}")
        };
        assert_eq!(
            eviction.map(|e| e.user_id),
            (name == "joan").then(|| "ada".to_owned())
        );
    }
    assert_eq!(world.evictions, 1);
}

#[test]
fn a_place_that_is_held_waits_for_its_user_and_a_second_hold_changes_nothing() {
    let (mut world, mut chance) = (new_world(), Chance(1));
    let first = world.wish(Intent::Hold, "ada", &mut chance).unwrap();
    let Granted::Held {
        until: Some(until), ..
    } = first
    else {
        panic!("{first:?}")
    };
    assert_eq!(until, timing::after(world.now(), timing::HOLD));
    world.now_ms += 10_000;
    let second = world.wish(Intent::Hold, "ada", &mut chance).unwrap();
    assert!(matches!(second, Granted::Held { until: Some(same), eviction: None, .. } if same == until));
    // Half of the places, rounded up, may be held.
    let third = world.wish(Intent::Hold, "grace", &mut chance);
    assert!(matches!(third, Err(Refusal::HoldsThrottled { .. })), "{third:?}");
    let used = world.wish(Intent::Register, "ada", &mut chance).unwrap();
    assert!(matches!(used, Granted::Registered { created: true, .. }));
    // A hold that lapses unused may not be had again at once.
    world.wish(Intent::Hold, "grace", &mut chance).unwrap();
    world.now_ms += 310_000;
    world.sync(&mut chance);
    let lapsed = world.wish(Intent::Hold, "grace", &mut chance);
    assert!(
        matches!(lapsed, Err(Refusal::HoldsThrottled { .. })),
        "{lapsed:?}"
    );
}

#[test]
fn a_hold_whose_holder_died_while_making_room_is_used_all_the_same() {
    let (mut world, mut chance) = (new_world(), Chance(1));
    for name in ["ada", "grace"] {
        world.now_ms += 1_000;
        world.wish(Intent::Register, name, &mut chance).unwrap();
    }
    let author = world.author();
    let mut process = Process {
        machine: Running::Registration(Box::new(Registration::new(wish(Intent::Hold, "joan"), author))),
        pending: Input::Begin,
        deadline: timing::after(world.now(), timing::FUNCTION),
    };
    while !world.users.contains_key(&user("joan").stem()) {
        assert!(process.step(&mut world, Fate::Answered, &mut chance));
    }
    let granted = world.wish(Intent::Register, "joan", &mut chance).unwrap();
    assert!(
        matches!(granted, Granted::Registered { created: true, .. }),
        "{granted:?}"
    );
    world.finish_deletions();
    assert_eq!(world.upstream.len(), 2);
}

#[test]
fn users_that_snaptrade_knew_before_are_the_first_to_give_way_in_the_lists_own_order() {
    let (mut world, mut chance) = (new_world(), Chance(1));
    for name in ["zoe", "amy"] {
        world.upstream.push((UpstreamId::from_snaptrade(name), false));
    }
    let granted = world.wish(Intent::Register, "ada", &mut chance).unwrap();
    let Granted::Registered {
        eviction: Some(eviction),
        ..
    } = granted
    else {
        panic!("{granted:?}")
    };
    assert_eq!(eviction.user_id, "zoe");
    let known = world.wish(Intent::Register, "amy", &mut chance);
    assert_eq!(known, Err(Refusal::ExistsUpstream));
}

#[test]
fn an_eviction_that_snaptrade_refuses_is_undone() {
    let (mut world, mut chance) = (new_world(), Chance(1));
    for name in ["ada", "grace"] {
        world.now_ms += 1_000;
        world.wish(Intent::Register, name, &mut chance).unwrap();
    }
    let author = world.author();
    let mut process = Process {
        machine: Running::Registration(Box::new(Registration::new(
            wish(Intent::Register, "joan"),
            author,
        ))),
        pending: Input::Begin,
        deadline: timing::after(world.now(), Duration::from_secs(25)),
    };
    let mut refused = 0;
    while {
        let deleting = world.users.contains_key(&user("joan").stem());
        let fate = if deleting && refused < 20 {
            Fate::Refused
        } else {
            Fate::Answered
        };
        refused += u32::from(fate == Fate::Refused);
        process.step(&mut world, fate, &mut chance)
    } {
        world.check();
    }
    assert!(world.users.values().all(|user| user.active().is_some()));
    assert_eq!(world.users.len(), 2);
    assert!(world.users.contains_key(&user("ada").stem()));
}

/// A world with room for two in which Ada's id cannot be deleted, and a place of a newcomer who died waiting for it.
fn world_with_a_place_that_cannot_be_cleared() -> (World, Chance) {
    let (mut world, mut chance) = (new_world(), Chance(1));
    for name in ["ada", "grace"] {
        world.now_ms += 1_000;
        world.wish(Intent::Register, name, &mut chance).unwrap();
    }
    let ada = world.users[&user("ada").stem()].upstream().cloned().unwrap();
    let author = world.author();
    let mut process = Process {
        machine: Running::Registration(Box::new(Registration::new(
            wish(Intent::Register, "joan"),
            author,
        ))),
        pending: Input::Begin,
        deadline: timing::after(world.now(), Duration::from_secs(22)),
    };
    while !world.ghosts.contains_key(&ada) {
        assert!(process.step(&mut world, Fate::Answered, &mut chance));
    }
    world.refuses_to_delete.insert(ada);
    world.now_ms += 70_000;
    (world, chance)
}

#[test]
fn a_place_that_cannot_be_cleared_holds_up_nobody_and_is_not_free_before_it_is() {
    let (mut world, mut chance) = world_with_a_place_that_cannot_be_cleared();
    // The first newcomer runs into it and leaves it to the sync; the next ones do not even ask.
    for name in ["mary", "joan", "mary"] {
        let granted = world.wish(Intent::Register, name, &mut chance).unwrap();
        assert!(matches!(granted, Granted::Registered { .. }), "{granted:?}");
        assert_eq!(world.slots.as_ref().unwrap().in_use, MAX);
        world.now_ms += 1_000;
    }
    world.sync(&mut chance);
    world.finish_deletions();
    assert_eq!(
        world.upstream.len(),
        2,
        "the id that cannot be deleted takes its place"
    );
    // Some minutes later it is tried again, by the sync or by whoever needs the place.
    world.refuses_to_delete.clear();
    world.now_ms += 400_000;
    let evictions = world.evictions;
    let granted = world.wish(Intent::Register, "grace", &mut chance).unwrap();
    assert!(
        matches!(granted, Granted::Registered { eviction: None, .. }),
        "{granted:?}"
    );
    assert_eq!(world.evictions, evictions);
    world.finish_deletions();
    world.sync(&mut chance);
    assert_eq!((world.users.len(), world.upstream.len()), (2, 2));
}

#[test]
fn the_user_whose_place_cannot_be_cleared_gets_another_one() {
    let (mut world, mut chance) = world_with_a_place_that_cannot_be_cleared();
    let granted = world.wish(Intent::Register, "joan", &mut chance).unwrap();
    assert!(matches!(granted, Granted::Registered { .. }), "{granted:?}");
    world.refuses_to_delete.clear();
    world.sync(&mut chance);
    world.finish_deletions();
    let users: Vec<_> = world.users.values().map(|user| user.user_id.as_str()).collect();
    assert_eq!(users, ["joan"], "the place that was set aside is free now");
}

#[test]
fn whoever_snaptrade_does_not_let_go_is_asked_last_for_a_while() {
    let (mut world, mut chance) = (new_world(), Chance(1));
    for name in ["ada", "grace"] {
        world.now_ms += 1_000;
        world.wish(Intent::Register, name, &mut chance).unwrap();
    }
    let ada = world.users[&user("ada").stem()].upstream().cloned().unwrap();
    world.refuses_to_delete.insert(ada);
    for (name, victim) in [("joan", "grace"), ("mary", "joan")] {
        world.now_ms += 1_000;
        let refusals = world.refusals;
        let granted = world.wish(Intent::Register, name, &mut chance).unwrap();
        let Granted::Registered {
            eviction: Some(eviction),
            ..
        } = granted
        else {
            panic!("{granted:?}")
        };
        assert_eq!(eviction.user_id, victim);
        assert_eq!(world.refusals - refusals, u32::from(name == "joan"));
    }
}
