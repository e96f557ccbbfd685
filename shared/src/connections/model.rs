//! Every order in which a few processes can get in each other's way, searched to the end by a model checker.
//!
//! What is searched are the machines that ship, in the world of [`super::world`]: after every step of every process,
//! with each answer lost, late or refused, with crashes, slow deletions and leases that run out, the rules I1 to I8
//! and I10 must hold, and two syncs must put everything right (I9). A [`Setting`] bounds how much goes wrong in one
//! history; within those bounds nothing is left out.
//!
//! The feature `deep-model-check` allows one more mishap in each history, which takes minutes instead of seconds.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::counting::admission::{Admission, VisitWish, Wanted};
use super::counting::reconciling::{Purpose, Reconciling};
use super::leaving::{Leaving, Whom};
use super::machine::Effect;
use super::records::Holder;
use super::registration::Intent;
use super::world::{Fate, Flaw, LateCall, MAX, Process, Running, World, user};
use crate::config::{Counts, Policy};
use crate::ids::Stem;

/// Most effects of one process (I10).
const MOST_STEPS: u32 = 150;

/// How far the clock goes at a time: every lease and every hold is over then.
const LEAP_MS: i64 = 310_000;

/// How far it goes where connections are counted: every visit is over then.
const VISIT_LEAP_MS: i64 = 4_000_000;

/// What is searched.
#[derive(Clone)]
struct Setting {
    name: &'static str,
    world: World,
    processes: Vec<Process>,
    /// How often in one history something goes wrong: a call or a commit is lost, late, refused or answered wrongly,
    /// a process dies, or the clock goes on until every lease is over.
    mishaps: u8,
    /// The ways in which a call may go wrong.
    fates: &'static [Fate],
    /// Whether somebody may close the places, which is a mishap, too.
    closes: bool,
    /// The worlds that two syncs are known to put right.
    healed: Arc<Fingerprints>,
}

/// Fingerprints of worlds.
type Fingerprints = Mutex<HashSet<u64>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    world: World,
    /// Each until it has ended or died.
    processes: Vec<Option<Process>>,
    mishaps: u8,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Step(usize, Fate),
    Crash(usize),
    FinishDeletions,
    Arrive(LateCall),
    /// A user follows a link to the portal and connects a brokerage.
    Follow(Stem),
    Leap,
    Close,
}

impl Model for Setting {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            world: self.world.clone(),
            processes: self.processes.iter().cloned().map(Some).collect(),
            mishaps: self.mishaps,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (number, process) in state.processes.iter().enumerate() {
            let Some(process) = process else { continue };
            actions.push(Action::Step(number, Fate::Answered));
            if state.mishaps == 0 {
                continue;
            }
            let possible = self.fates.iter().filter(|fate| matters(process, **fate));
            actions.extend(possible.map(|fate| Action::Step(number, *fate)));
            if process.steps > 0 {
                actions.push(Action::Crash(number));
            }
        }
        let users = &mut state.world.upstream.iter();
        let connections = &mut state.world.connected.iter();
        if users.any(|incarnation| incarnation.deleting) || connections.any(|one| one.deleting) {
            actions.push(Action::FinishDeletions);
        }
        actions.extend(state.world.invited().cloned().map(Action::Follow));
        actions.extend(state.world.late.iter().cloned().map(Action::Arrive));
        if state.mishaps > 0 {
            actions.push(Action::Leap);
            if self.closes {
                actions.push(Action::Close);
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Step(number, fate) => {
                let process = state.processes.get_mut(number)?;
                // To begin is nothing that others could see.
                let begins = process.as_ref()?.steps == 0 && process.as_ref()?.pending().is_none();
                if begins && !process.as_mut()?.step(&mut state.world, Fate::Answered)
                    || !process.as_mut()?.step(&mut state.world, fate)
                {
                    *process = None;
                }
                state.mishaps -= u8::from(fate != Fate::Answered);
            }
            Action::Crash(number) => {
                state.processes[number] = None;
                state.mishaps -= 1;
            }
            Action::FinishDeletions => state.world.finish_deletions(),
            Action::Arrive(call) => state.world.arrive(&call),
            Action::Close => {
                state.world.close();
                state.mishaps -= 1;
            }
            Action::Follow(stem) => state.world.follow(&stem),
            Action::Leap => {
                state.world.now_ms += match state.world.counts {
                    Counts::Users => LEAP_MS,
                    Counts::Connections => VISIT_LEAP_MS,
                };
                state.mishaps -= 1;
                state.world.outlived |= state.processes.iter().flatten().any(|process| process.steps > 0);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every rule holds", |_, state: &State| {
                state.world.fault().is_none()
            }),
            Property::always(
                "two syncs put everything right",
                |setting: &Self, state: &State| {
                    // Whoever is at work is taken to have died, so only the world counts.
                    let fingerprint = fingerprint(&state.world);
                    let known = setting.healed.lock().unwrap().contains(&fingerprint);
                    let heals = known || state.world.unhealed().is_none();
                    if heals {
                        setting.healed.lock().unwrap().insert(fingerprint);
                    }
                    heals
                },
            ),
            Property::always("I10: every process comes to its end", |_, state: &State| {
                let mut processes = state.processes.iter().flatten();
                processes.all(|process| process.steps <= MOST_STEPS)
            }),
        ]
    }
}

/// Whether `fate` makes a difference to what the process wants.
fn matters(process: &Process, fate: Fate) -> bool {
    match process.pending() {
        // The store does not make a commit late: it is made or not, and then perhaps asked again.
        Some(Effect::Commit(_)) => matches!(fate, Fate::LostBefore | Fate::LostAfter),
        // Done later covers never.
        Some(Effect::Delete(_)) => matches!(fate, Fate::Refused | Fate::LostAfter | Fate::Late),
        Some(Effect::Register(..)) => matches!(
            fate,
            Fate::Refused | Fate::LimitReached | Fate::Taken | Fate::LostAfter | Fate::Late
        ),
        Some(Effect::List) => matches!(fate, Fate::Short | Fate::LostBefore),
        Some(Effect::DeleteConnection(..)) => {
            matches!(fate, Fate::Refused | Fate::LostBefore | Fate::LostAfter)
        }
        Some(Effect::ProbeUser(_) | Effect::ProbeCredentials | Effect::ListConnections(_)) => {
            fate == Fate::LostBefore
        }
        // Whoever asked for a link and did not get it does not follow it.
        None if process.logs_in() => matches!(fate, Fate::Refused | Fate::LostBefore),
        _ => false,
    }
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// What a search came to.
struct Outcome {
    /// The histories that break a rule, as the actions that lead there and the rule.
    broken: Vec<String>,
    states: usize,
    depth: usize,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} states, {} steps deep", self.states, self.depth)?;
        self.broken
            .iter()
            .try_for_each(|history| write!(f, "\n{history}"))
    }
}

/// Searches every history of a setting.
fn search(mut setting: Setting) -> Outcome {
    if cfg!(feature = "deep-model-check") && setting.world.flaw.is_none() {
        setting.mishaps += 1;
    }
    let name = setting.name;
    let started = std::time::Instant::now();
    let checker = setting
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_dfs()
        .join();
    let broken = checker.discoveries().into_iter().map(|(property, path)| {
        let end = path.last_state();
        let rule = end
            .world
            .fault()
            .or_else(|| end.world.unhealed())
            .unwrap_or(property);
        let steps: Vec<String> = path
            .into_vec()
            .iter()
            .filter_map(|(state, action)| Some(describe(state, action.as_ref()?)))
            .collect();
        format!("{rule}\n  {}", steps.join("\n  "))
    });
    let outcome = Outcome {
        broken: broken.collect(),
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
    };
    println!("{name}: {outcome} ({:.1?})", started.elapsed());
    outcome
}

/// An action, with what it does.
fn describe(state: &State, action: &Action) -> String {
    match action {
        Action::Step(number, fate) => {
            let effect = state.processes[*number].as_ref().and_then(Process::pending);
            let what = match effect {
                Some(Effect::Commit(commit)) => format!("commit {}", commit.token),
                Some(other) => format!("{other:?}").chars().take(80).collect(),
                None => "begin".to_owned(),
            };
            format!("process {number}: {what}: {fate:?}")
        }
        other => format!("{other:?}"),
    }
}

impl Setting {
    fn new(name: &'static str, world: World, processes: Vec<Process>) -> Self {
        Self {
            name,
            world,
            processes,
            mishaps: 1,
            fates: &[Fate::Refused, Fate::LostBefore, Fate::LostAfter, Fate::Late],
            closes: false,
            healed: Arc::default(),
        }
    }

    /// The same, with so many mishaps in one history.
    fn with_mishaps(self, mishaps: u8) -> Self {
        Self { mishaps, ..self }
    }

    /// The same, with calls that go wrong in other ways.
    fn with_fates(self, fates: &'static [Fate]) -> Self {
        Self { fates, ..self }
    }

    /// The same, with a SnapTrade that takes its time over deletions.
    fn slow(mut self) -> Self {
        self.world.slow = true;
        self
    }

    /// The same, with rows that change while they are read.
    fn torn(mut self) -> Self {
        self.world.torn = true;
        self
    }

    /// The same, with places that somebody may close.
    fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    /// The same with a protocol that is broken.
    fn flawed(mut self, flaw: Flaw) -> Self {
        self.world.flaw = Some(flaw);
        self.healed = Arc::default();
        self
    }
}

/// A setting in which nothing may be broken.
fn holds(setting: Setting) {
    let outcome = search(setting);
    assert!(outcome.broken.is_empty(), "{outcome}");
}

/// A world in which these are registered, in this order.
fn world_of(names: &[&str]) -> World {
    let mut world = World::empty();
    for name in names {
        world.now_ms += 1_000;
        world
            .run(|author| {
                super::registration::Registration::new(
                    super::world::wish(Intent::Register, name, Counts::Users),
                    author,
                )
            })
            .unwrap();
    }
    world.slow = false;
    world.now_ms += 1_000;
    world
}

fn register(number: u64, name: &str) -> Process {
    Process::wish(number, Intent::Register, name, Counts::Users)
}

fn sync(number: u64) -> Process {
    Process::sync(number, Counts::Users)
}

fn hold(number: u64, name: &str) -> Process {
    Process::wish(number, Intent::Hold, name, Counts::Users)
}

fn leave(number: u64, world: &World, name: &str) -> Process {
    let record = world.users[&user(name).stem()].clone();
    let whom = Whom::Holder(Box::new(Holder::User(record)));
    Process::new(number, |author| {
        Running::Leaving(Box::new(Leaving::new(whom, author)))
    })
}

fn full() -> World {
    world_of(&["mary", "zoe"])
}

#[test]
fn three_who_come_to_a_full_limit_at_once() {
    let three = vec![register(1, "ada"), register(2, "grace"), register(3, "joan")];
    holds(Setting::new("three at once", full(), three).with_mishaps(0));
}

#[test]
fn two_who_come_to_a_full_limit_at_once_and_something_goes_wrong() {
    let two = vec![register(1, "ada"), register(2, "grace")];
    holds(Setting::new("two at once", full(), two));
}

#[test]
fn one_whose_deletion_takes_long_beside_a_sync_and_something_goes_wrong() {
    let processes = vec![register(1, "ada"), sync(2)];
    holds(Setting::new("one and a sync", full(), processes).slow());
}

#[test]
fn two_and_a_sync_at_once() {
    let processes = vec![register(1, "ada"), register(2, "grace"), sync(3)];
    holds(
        Setting::new("two and a sync", full(), processes)
            .with_mishaps(0)
            .slow(),
    );
}

#[test]
fn the_same_user_twice_and_something_goes_wrong() {
    let twice = vec![register(1, "ada"), register(2, "ada")];
    holds(Setting::new("the same user twice", full(), twice));
}

#[test]
fn a_hold_its_use_and_somebody_else() {
    let processes = vec![hold(1, "ada"), register(2, "ada"), register(3, "grace")];
    holds(Setting::new("a hold and its use", world_of(&["mary"]), processes).with_mishaps(0));
}

#[test]
fn a_hold_and_somebody_else_and_something_goes_wrong() {
    let processes = vec![hold(1, "ada"), register(2, "grace")];
    holds(Setting::new("a hold and somebody else", full(), processes));
}

#[test]
fn a_user_who_leaves_while_somebody_comes_and_something_goes_wrong() {
    let world = full();
    let processes = vec![leave(1, &world, "mary"), register(2, "ada")];
    holds(Setting::new("one leaves and one comes", world, processes));
}

#[test]
fn a_user_who_leaves_beside_a_sync_and_something_goes_wrong() {
    let world = full();
    let processes = vec![leave(1, &world, "mary"), sync(2)];
    holds(Setting::new("one leaves and a sync", world, processes).slow());
}

#[test]
fn a_first_run_with_users_from_elsewhere() {
    let mut world = World::empty();
    world.slow = false;
    for id in ["amy", "ada~aaaaaaaaaaaa"] {
        world.add_stranger(id);
    }
    holds(
        Setting::new(
            "a first run",
            world,
            vec![register(1, "ada"), register(2, "grace")],
        )
        .with_mishaps(0),
    );
}

#[test]
fn a_first_run_in_which_something_goes_wrong() {
    let mut world = World::empty();
    world.add_stranger("amy");
    holds(Setting::new("a first run of one", world, vec![register(1, "ada")]).with_mishaps(2));
}

#[test]
fn a_snaptrade_whose_own_limit_is_hit_while_it_still_deletes() {
    let mut world = full();
    world.upstream_limit = Some(2);
    let fates = &[Fate::LimitReached, Fate::LostAfter];
    let setting = Setting::new("SnapTrade's own limit", world, vec![register(1, "ada")]);
    holds(setting.with_fates(fates).with_mishaps(2).slow());
}

#[test]
fn places_that_are_counted_anew_while_others_move() {
    let world = world_of(&["ada", "mary"]);
    let processes = vec![register(1, "zoe"), sync(2)];
    holds(Setting::new("a recount", world, processes).torn().closing());
}

#[test]
fn lists_that_lack_somebody() {
    let processes = vec![sync(1), sync(2)];
    let setting = Setting::new("short lists", full(), processes);
    holds(
        setting
            .with_fates(&[Fate::Short, Fate::LostBefore])
            .with_mishaps(2),
    );
}

/// A setting in which the protocol holds, and no longer does with a flaw.
fn breaks(setting: Setting, flaw: Flaw) {
    holds(setting.clone());
    let outcome = search(setting.flawed(flaw));
    assert!(!outcome.broken.is_empty(), "{flaw:?} is not noticed: {outcome}");
}

#[test]
fn it_is_found_out_to_register_before_the_place_is_cleared() {
    let setting = Setting::new("registers early", full(), vec![register(1, "ada")]);
    breaks(setting, Flaw::RegisterBeforeCleared);
}

#[test]
fn it_is_found_out_to_activate_without_comparing_the_attempt() {
    let two = vec![register(1, "ada"), register(2, "grace")];
    let setting = Setting::new("activates blindly", world_of(&["mary"]), two);
    breaks(setting, Flaw::ActivateWithoutComparing);
}

#[test]
fn it_is_found_out_to_free_an_expired_place_at_once() {
    let processes = vec![register(1, "ada"), sync(2)];
    let setting = Setting::new("frees at once", full(), processes);
    breaks(setting, Flaw::FreeExpiredAtOnce);
}

#[test]
fn it_is_found_out_to_remove_a_user_on_the_lists_word() {
    let setting = Setting::new("believes the list", full(), vec![sync(1)]);
    breaks(setting.with_fates(&[Fate::Short]), Flaw::RemoveOnTheListsWord);
}

#[test]
fn it_is_found_out_to_adopt_an_id_that_has_to_go() {
    let processes = vec![register(1, "ada"), sync(2)];
    let setting = Setting::new("adopts a ghost", full(), processes).slow();
    breaks(setting, Flaw::AdoptAGhost);
}

#[test]
fn it_is_found_out_to_undo_after_the_sync_took_the_ghost() {
    let processes = vec![register(1, "ada"), sync(2)];
    let setting = Setting::new("undoes too late", full(), processes).with_mishaps(2);
    breaks(setting, Flaw::UndoAfterSyncTookTheGhost);
}

#[test]
fn it_is_found_out_never_to_send_a_deletion_again() {
    let setting = Setting::new("never resends", full(), vec![register(1, "ada")]);
    breaks(setting, Flaw::NeverResend);
}

#[test]
fn it_is_found_out_to_evict_before_expired_places_are_taken() {
    let two = vec![register(1, "ada"), register(2, "grace")];
    let setting = Setting::new("evicts too early", full(), two);
    breaks(setting, Flaw::VictimsBeforeExpired);
}

#[test]
fn it_is_found_out_to_fence_a_count_by_a_revision_that_moves_leave_alone() {
    let mut world = world_of(&["ada", "mary"]);
    let mut zoe = register(1, "zoe");
    while !matches!(zoe.pending(), Some(Effect::Delete(_))) {
        zoe.step(&mut world, Fate::Answered);
    }
    world.close();
    let setting = Setting::new("counts loosely", world, vec![zoe, sync(2)]);
    breaks(setting.torn(), Flaw::MovesDoNotCount);
}

#[test]
fn it_is_found_out_to_use_one_id_for_two_attempts() {
    let processes = |first: fn(Process) -> Process| {
        vec![
            first(register(7, "joan")),
            register(8, "grace"),
            first(register(7, "joan")),
        ]
    };
    let world = world_of(&["ada"]);
    let twice = Setting::new(
        "uses an id twice",
        world.clone(),
        processes(Process::unimaginative),
    );
    let outcome = search(twice.flawed(Flaw::OneIdForTwoAttempts));
    assert!(!outcome.broken.is_empty(), "{outcome}");
}

#[test]
fn it_is_found_out_to_take_a_strangers_id_for_ones_own() {
    let setting = Setting::new("takes what is a stranger's", full(), vec![register(1, "ada")]);
    breaks(setting.with_fates(&[Fate::Taken]), Flaw::TakenIsOurs);
}

// Where connections are counted.

fn link(number: u64, name: &str) -> Process {
    visit(
        number,
        name,
        Wanted::Link {
            reconnect: None,
            detail: Vec::new(),
        },
    )
}

fn visit(number: u64, name: &str, wanted: Wanted) -> Process {
    let user = user(name);
    Process::new(number, |author| {
        let linked = matches!(wanted, Wanted::Link { .. }).then(|| user.stem());
        let wish = VisitWish {
            user,
            wanted,
            max: MAX,
            policy: Policy::Oldest,
        };
        let author = author.counting(Counts::Connections);
        Running::Admission(linked, Box::new(Admission::new(wish, None, author)))
    })
}

fn reconcile(number: u64, name: &str) -> Process {
    let stem = user(name).stem();
    Process::new(number, |author| {
        let author = author.counting(Counts::Connections);
        Running::Reconciling(Box::new(Reconciling::new(stem, Purpose::Look, author)))
    })
}

fn connection_sync(number: u64) -> Process {
    Process::sync(number, Counts::Connections)
}

/// Runs a process to its end, undisturbed.
fn finish(mut process: Process, world: &mut World) {
    while process.step(world, Fate::Answered) {
        assert_eq!(world.fault(), None);
    }
}

/// Ada, Grace and Joan are registered, and as many of them as named have a connection.
fn connected(names: &[&str]) -> World {
    let mut world = World::counting_connections();
    world.slow = false;
    for (number, name) in (100..).zip(["ada", "grace", "joan"]) {
        finish(
            Process::wish(number, Intent::Register, name, Counts::Connections),
            &mut world,
        );
    }
    for (number, name) in (200..).step_by(2).zip(names) {
        world.now_ms += 1_000;
        finish(link(number, name), &mut world);
        world.follow(&user(name).stem());
        finish(reconcile(number + 1, name), &mut world);
    }
    world.now_ms += 1_000;
    world
}

#[test]
fn two_visits_for_the_last_place() {
    let processes = vec![link(1, "grace"), link(2, "joan")];
    holds(Setting::new("two visits for one place", connected(&["ada"]), processes).with_mishaps(0));
}

#[test]
fn a_visit_and_its_webhook_and_something_goes_wrong() {
    let processes = vec![link(1, "joan"), reconcile(2, "joan")];
    holds(Setting::new(
        "a visit and its webhook",
        connected(&["ada"]),
        processes,
    ));
}

#[test]
fn a_connection_that_gives_way_slowly_and_something_goes_wrong() {
    let setting = Setting::new(
        "a connection gives way",
        connected(&["ada", "grace"]),
        vec![link(1, "joan")],
    );
    holds(setting.slow());
}

#[test]
fn a_visit_at_the_limit_beside_a_sync() {
    let processes = vec![link(1, "joan"), connection_sync(2)];
    holds(Setting::new("a visit and a sync", connected(&["ada", "grace"]), processes).with_mishaps(0));
}

#[test]
fn a_hold_beside_a_visit_for_the_last_place() {
    let processes = vec![visit(1, "grace", Wanted::Hold), link(2, "grace"), link(3, "joan")];
    holds(Setting::new("a hold and two visits", connected(&["ada"]), processes).with_mishaps(0));
}

#[test]
fn a_user_who_leaves_with_a_connection_while_another_visits() {
    let world = connected(&["ada", "grace"]);
    let record = world.users[&user("ada").stem()].clone();
    let leaving = Process::new(1, |author| {
        let whom = Whom::Holder(Box::new(Holder::User(record)));
        Running::Leaving(Box::new(Leaving::new(whom, author.counting(Counts::Connections))))
    });
    holds(Setting::new(
        "one leaves and one visits",
        world,
        vec![leaving, link(2, "joan")],
    ));
}
