//! The machines against a world in memory: many of them at once, in every order that chance finds, with lost answers,
//! refusals, crashes, slow deletions and a clock that jumps.

use proptest::prelude::*;

use super::leaving::{Leaving, Whom};
use super::records::Holder;
use super::registration::{Granted, Intent, Refusal, Registration};
use super::sync::Sync;
use super::timing;
use super::world::{Chance, Fate, MAX, Process, Running, World, same_unless_asked, user, wish};
use crate::config::Counts;
use crate::ids::UpstreamId;

/// Somebody by name, or one certain holder.
fn leaver(world: &World, name: &str, chance: &mut Chance) -> Whom {
    let holders = world.holders();
    if holders.is_empty() || chance.one_in(2) {
        return Whom::User(user(name));
    }
    let which = usize::try_from(chance.below(holders.len() as u64)).unwrap();
    Whom::Holder(Box::new(holders[which].clone()))
}

fn start(number: u64, world: &World, chance: &mut Chance) -> Process {
    let names = ["ada", "grace", "joan", "mary"];
    let name = names[usize::try_from(chance.below(4)).unwrap()];
    match chance.below(10) {
        0 => {
            let whom = leaver(world, name, chance);
            Process::new(number, |author| {
                Running::Leaving(Box::new(Leaving::new(whom, author)))
            })
        }
        1 | 2 => Process::sync(number, Counts::Users),
        3 => Process::wish(number, Intent::Hold, name, Counts::Users),
        4 => Process::wish(number, Intent::Recreate, name, Counts::Users),
        _ => Process::wish(number, Intent::Register, name, Counts::Users),
    }
}

/// Plays a storm, then lets it end, and looks whether everything was put right.
fn storm(seed: u64, steps: u32) {
    let mut chance = Chance(seed);
    let mut world = World::empty();
    // Some worlds begin with ids from elsewhere, or with several of one user whose records were lost.
    for stranger in ["grace", "ada~aaaaaaaaaaaa", "ada~bbbbbbbbbbbb", "zoe"] {
        if chance.one_in(3) {
            world.add_stranger(stranger);
        }
    }
    let mut processes: Vec<Process> = Vec::new();
    for step in 0..steps {
        if processes.len() < 3 && chance.one_in(3) {
            processes.push(start(u64::from(step), &world, &mut chance));
        }
        if chance.one_in(6) {
            world.now_ms += 500;
        }
        if chance.one_in(60) {
            world.now_ms += i64::try_from(chance.below(400_000)).unwrap();
            world.outlived = true;
        }
        if chance.one_in(8) {
            world.finish_deletions();
        }
        if let Some(call) = world.late.first().filter(|_| chance.one_in(10)).cloned() {
            world.arrive(&call);
        }
        // A function that ran out of time is stopped where it stands; that is how a lease outlives its holder.
        let now = world.now();
        processes.retain(|process| process.deadline.is_none_or(|deadline| deadline > now));
        if processes.is_empty() {
            continue;
        }
        let which = usize::try_from(chance.below(processes.len() as u64)).unwrap();
        if chance.one_in(40) {
            processes.swap_remove(which);
            continue;
        }
        let fate = match chance.below(15) {
            0 => Fate::Refused,
            1 => Fate::LostBefore,
            2 => Fate::LostAfter,
            3 => Fate::Late,
            4 => Fate::LimitReached,
            _ => Fate::Answered,
        };
        if !processes[which].step(&mut world, fate) {
            processes.swap_remove(which);
        }
        assert_eq!(world.fault(), None);
    }
    assert_eq!(world.unhealed(), None);
    // The storm is over: calls are answered, time passes, and everybody who comes is served.
    for call in world.late.clone() {
        world.arrive(&call);
    }
    for _ in 0..6 {
        world.now_ms += 400_000;
        world.finish_deletions();
        sync(&mut world);
    }
    world.finish_deletions();
    let outcome = register(&mut world, "ada");
    let plain =
        world.foreign.contains_key(&(user("ada").stem(), 0)) && outcome == Err(Refusal::ExistsUpstream);
    assert!(
        plain || matches!(outcome, Ok(Granted::Registered { .. })),
        "{outcome:?}"
    );
}

/// Fulfils a wish alone and undisturbed.
fn fulfil(world: &mut World, intent: Intent, name: &str) -> Result<Granted, Refusal> {
    world.run(|author| Registration::new(wish(intent, name, Counts::Users), author))
}

fn register(world: &mut World, name: &str) -> Result<Granted, Refusal> {
    fulfil(world, Intent::Register, name)
}

/// Runs one sync alone and undisturbed.
fn sync(world: &mut World) {
    world.run(|author| Sync::new(author, MAX, Counts::Users)).unwrap();
}

proptest! {
    // The same storms each time, so that a failure is the doing of a change. `PROPTEST_RNG_SEED` raises others.
    #![proptest_config(ProptestConfig {
        cases: 1_500,
        failure_persistence: None,
        rng_seed: same_unless_asked(),
        ..ProptestConfig::default()
    })]

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
    let mut world = World::empty();
    for name in ["ada", "grace"] {
        world.now_ms += 1_000;
        let granted = register(&mut world, name).unwrap();
        assert!(matches!(
            granted,
            Granted::Registered {
                created: true,
                eviction: None,
                ..
            }
        ));
    }
    let again = register(&mut world, "ada").unwrap();
    assert!(matches!(again, Granted::Registered { created: false, .. }));
    assert_eq!(world.evictions(), 0);
}

#[test]
fn at_the_limit_the_oldest_gives_way_and_only_once() {
    let mut world = World::empty();
    for name in ["ada", "grace", "joan"] {
        world.now_ms += 1_000;
        let granted = register(&mut world, name).unwrap();
        let Granted::Registered { eviction, .. } = granted else {
            panic!("{granted:?}")
        };
        assert_eq!(
            eviction.map(|e| e.user_id),
            (name == "joan").then(|| "ada".to_owned())
        );
    }
    assert_eq!(world.evictions(), 1);
}

#[test]
fn a_place_that_is_held_waits_for_its_user_and_a_second_hold_changes_nothing() {
    let mut world = World::empty();
    let first = fulfil(&mut world, Intent::Hold, "ada").unwrap();
    let Granted::Held {
        until: Some(until), ..
    } = first
    else {
        panic!("{first:?}")
    };
    assert_eq!(until, timing::after(world.now(), timing::HOLD));
    world.now_ms += 10_000;
    let second = fulfil(&mut world, Intent::Hold, "ada").unwrap();
    assert!(matches!(second, Granted::Held { until: Some(same), eviction: None, .. } if same == until));
    // Half of the places, rounded up, may be held.
    let third = fulfil(&mut world, Intent::Hold, "grace");
    assert!(matches!(third, Err(Refusal::HoldsThrottled { .. })), "{third:?}");
    let used = register(&mut world, "ada").unwrap();
    assert!(matches!(used, Granted::Registered { created: true, .. }));
    // A hold that lapses unused may not be had again at once.
    fulfil(&mut world, Intent::Hold, "grace").unwrap();
    world.now_ms += 310_000;
    sync(&mut world);
    let lapsed = fulfil(&mut world, Intent::Hold, "grace");
    assert!(
        matches!(lapsed, Err(Refusal::HoldsThrottled { .. })),
        "{lapsed:?}"
    );
}

#[test]
fn a_hold_whose_holder_died_while_making_room_is_used_all_the_same() {
    let mut world = World::empty();
    for name in ["ada", "grace"] {
        world.now_ms += 1_000;
        register(&mut world, name).unwrap();
    }
    let mut process = Process::wish(1_000, Intent::Hold, "joan", Counts::Users);
    while !world.users.contains_key(&user("joan").stem()) {
        assert!(process.step(&mut world, Fate::Answered));
    }
    let granted = register(&mut world, "joan").unwrap();
    assert!(
        matches!(granted, Granted::Registered { created: true, .. }),
        "{granted:?}"
    );
    world.finish_deletions();
    assert_eq!(world.upstream.len(), 2);
}

#[test]
fn users_that_snaptrade_knew_before_are_the_first_to_give_way_in_the_lists_own_order() {
    let mut world = World::empty();
    for name in ["zoe", "amy"] {
        world.add_stranger(name);
    }
    let granted = register(&mut world, "ada").unwrap();
    let Granted::Registered {
        eviction: Some(eviction),
        ..
    } = granted
    else {
        panic!("{granted:?}")
    };
    assert_eq!(eviction.user_id, "zoe");
    let known = register(&mut world, "amy");
    assert_eq!(known, Err(Refusal::ExistsUpstream));
}

#[test]
fn an_eviction_that_snaptrade_refuses_is_undone() {
    let mut world = World::empty();
    for name in ["ada", "grace"] {
        world.now_ms += 1_000;
        register(&mut world, name).unwrap();
    }
    let mut process = Process::wish(1_000, Intent::Register, "joan", Counts::Users);
    let mut refused = 0;
    while {
        let deleting = world.users.contains_key(&user("joan").stem());
        let fate = if deleting && refused < 20 {
            Fate::Refused
        } else {
            Fate::Answered
        };
        refused += u32::from(fate == Fate::Refused);
        process.step(&mut world, fate)
    } {
        assert_eq!(world.fault(), None);
    }
    assert!(world.users.values().all(|user| user.active().is_some()));
    assert_eq!(world.users.len(), 2);
    assert!(world.users.contains_key(&user("ada").stem()));
}

/// A world with room for two in which Ada's id cannot be deleted, and a place of a newcomer who died waiting for it.
fn world_with_a_place_that_cannot_be_cleared() -> World {
    let mut world = World::empty();
    for name in ["ada", "grace"] {
        world.now_ms += 1_000;
        register(&mut world, name).unwrap();
    }
    let ada = world.users[&user("ada").stem()].upstream().cloned().unwrap();
    let mut process = Process::wish(1_000, Intent::Register, "joan", Counts::Users);
    while !world.ghosts.contains_key(&ada) {
        assert!(process.step(&mut world, Fate::Answered));
    }
    world.refuses_to_delete.insert(ada);
    world.now_ms += 70_000;
    world
}

#[test]
fn a_place_that_cannot_be_cleared_holds_up_nobody_and_is_not_free_before_it_is() {
    let mut world = world_with_a_place_that_cannot_be_cleared();
    // The first newcomer runs into it and leaves it to the sync; the next ones do not even ask.
    for name in ["mary", "joan", "mary"] {
        let granted = register(&mut world, name).unwrap();
        assert!(matches!(granted, Granted::Registered { .. }), "{granted:?}");
        assert_eq!(world.slots.as_ref().unwrap().in_use, MAX);
        world.now_ms += 1_000;
    }
    sync(&mut world);
    world.finish_deletions();
    assert_eq!(
        world.upstream.len(),
        2,
        "the id that cannot be deleted takes its place"
    );
    // Some minutes later it is tried again, by the sync or by whoever needs the place.
    world.refuses_to_delete.clear();
    world.now_ms += 400_000;
    let evictions = world.evictions();
    let granted = register(&mut world, "grace").unwrap();
    assert!(
        matches!(granted, Granted::Registered { eviction: None, .. }),
        "{granted:?}"
    );
    assert_eq!(world.evictions(), evictions);
    world.finish_deletions();
    sync(&mut world);
    assert_eq!((world.users.len(), world.upstream.len()), (2, 2));
}

#[test]
fn the_user_whose_place_cannot_be_cleared_gets_another_one() {
    let mut world = world_with_a_place_that_cannot_be_cleared();
    let granted = register(&mut world, "joan").unwrap();
    assert!(matches!(granted, Granted::Registered { .. }), "{granted:?}");
    world.refuses_to_delete.clear();
    sync(&mut world);
    world.finish_deletions();
    let users: Vec<_> = world.users.values().map(|user| user.user_id.as_str()).collect();
    assert_eq!(users, ["joan"], "the place that was set aside is free now");
}

#[test]
fn whoever_snaptrade_does_not_let_go_is_asked_last_for_a_while() {
    let mut world = World::empty();
    for name in ["ada", "grace"] {
        world.now_ms += 1_000;
        register(&mut world, name).unwrap();
    }
    let ada = world.users[&user("ada").stem()].upstream().cloned().unwrap();
    world.refuses_to_delete.insert(ada);
    for (name, victim) in [("joan", "grace"), ("mary", "joan")] {
        world.now_ms += 1_000;
        let refusals = world.refusals;
        let granted = register(&mut world, name).unwrap();
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

/// Runs one sync in which every step takes so long.
fn slow_sync(world: &mut World, number: u64, step_ms: i64) {
    let mut process = Process::sync(number, Counts::Users);
    while process.step(world, Fate::Answered) {
        world.now_ms += step_ms;
    }
}

#[test]
fn a_sync_that_runs_out_of_time_goes_on_where_it_stopped_and_keeps_the_order() {
    let mut world = World::empty();
    let ids: Vec<UpstreamId> = (0..150)
        .map(|number| UpstreamId::from_snaptrade(format!("user-{}", (number * 37) % 150)))
        .collect();
    for id in &ids {
        world.add_stranger(id.as_str());
    }
    let (mut runs, mut before) = (0, 0);
    loop {
        runs += 1;
        slow_sync(&mut world, 2_000 + runs, 900);
        let adopted = world.foreign.len();
        assert!(adopted > before, "run {runs} did nothing");
        before = adopted;
        let done = world.slots.as_ref().is_some_and(|slots| slots.open);
        assert_eq!(done, adopted == ids.len());
        if done {
            break;
        }
        world.now_ms += 100_000;
    }
    assert!((2..10).contains(&runs), "{runs} runs");
    assert_eq!(world.fault(), None);
    let in_order: Vec<UpstreamId> = world
        .holders()
        .iter()
        .filter_map(|holder| holder.upstream().cloned())
        .collect();
    assert_eq!(in_order, ids);
}

#[test]
fn several_ids_of_one_user_are_adopted_in_the_same_run() {
    let mut world = World::empty();
    for id in ["ada~aaaaaaaaaaaa", "ada~bbbbbbbbbbbb", "zoe", "ada~cccccccccccc"] {
        world.add_stranger(id);
    }
    sync(&mut world);
    assert_eq!(world.foreign.len(), 4);
}

#[test]
fn foreign_ids_that_vanish_together_are_removed_by_a_later_run() {
    let mut world = World::empty();
    for number in 0..90 {
        world.add_stranger(&format!("user-{number}"));
    }
    sync(&mut world);
    world.upstream.truncate(50);
    world.now_ms += 70_000;
    sync(&mut world);
    assert_eq!(world.foreign.len(), 90, "one list is not enough");
    world.now_ms += 70_000;
    sync(&mut world);
    assert_eq!(world.foreign.len(), 50);
}

#[test]
fn somebody_whom_the_index_does_not_show_yet_is_no_reason_to_refuse() {
    let mut world = World::empty();
    for name in ["ada", "grace"] {
        world.now_ms += 1_000;
        register(&mut world, name).unwrap();
    }
    let (ada, grace) = (user("ada").stem(), user("grace").stem());
    world.users.get_mut(&ada).unwrap().protected = true;
    // Grace is seen a moment later, and then she gives way.
    world.unseen.insert(grace, world.now_ms + 500);
    let granted = register(&mut world, "joan").unwrap();
    assert!(
        matches!(
            granted,
            Granted::Registered {
                eviction: Some(_),
                ..
            }
        ),
        "{granted:?}"
    );
    // As long as somebody is not seen, nobody can say that the limit is reached for good.
    world.unseen.insert(user("joan").stem(), i64::MAX);
    let refused = register(&mut world, "mary");
    assert_eq!(refused, Err(Refusal::Busy));
    world.unseen.clear();
    world.users.get_mut(&user("joan").stem()).unwrap().protected = true;
    let refused = register(&mut world, "mary");
    assert_eq!(refused, Err(Refusal::LimitReached { retry_after: None }));
}

#[test]
fn an_index_that_lags_closes_no_places_and_a_real_difference_does() {
    let mut world = World::empty();
    for name in ["ada", "grace"] {
        world.now_ms += 1_000;
        register(&mut world, name).unwrap();
    }
    // The list names her.
    world.unseen.insert(user("grace").stem(), i64::MAX);
    for _ in 0..3 {
        world.now_ms += 900_000;
        sync(&mut world);
        assert!(world.slots.as_ref().unwrap().open);
        assert!(world.sync.as_ref().unwrap().doubted_count.is_none());
    }
    // Something that cannot happen has happened: one run doubts, the next one is sure.
    world.unseen.clear();
    world.slots.as_mut().unwrap().in_use = 1;
    for closes in [false, true] {
        world.now_ms += 900_000;
        let mut process = Process::sync(1_000, Counts::Users);
        while process.step(&mut world, Fate::Answered) {}
        assert_eq!(world.slots.as_ref().unwrap().open, !closes);
    }
    world.now_ms += 900_000;
    sync(&mut world);
    let slots = world.slots.as_ref().unwrap();
    assert_eq!((slots.open, slots.in_use), (true, 2));
}

/// Has a backup put back: the places are closed and say where their records come from.
fn restored(world: &mut World) {
    let slots = world.slots.as_mut().unwrap();
    slots.open = false;
    slots.restored = true;
    slots.rev += 1;
    slots.in_use = 77;
    world.now_ms += 900_000;
}

#[test]
fn after_a_restore_an_eviction_that_stood_half_done_is_undone() {
    let mut world = world_with_a_place_that_cannot_be_cleared();
    world.refuses_to_delete.clear();
    let ada = user("ada").stem();
    assert!(
        !world.users.contains_key(&ada),
        "Ada was to give way when the backup was made"
    );
    restored(&mut world);
    sync(&mut world);
    assert_eq!(world.fault(), None);
    assert!(world.users[&ada].active().is_some());
    assert!(world.users[&user("grace").stem()].active().is_some());
    let slots = world.slots.as_ref().unwrap();
    assert!(slots.open && !slots.restored);
    world.finish_deletions();
    assert_eq!((world.users.len(), world.upstream.len()), (2, 2));
    // Had SnapTrade deleted her since, the sync would find that out with her own secret.
    let id = world.users[&ada].upstream().cloned().unwrap();
    world.upstream.retain(|incarnation| incarnation.id != id);
    world.now_ms += 900_000;
    let mut process = Process::sync(1_000, Counts::Users);
    while process.step(&mut world, Fate::Answered) {}
    assert!(!world.users.contains_key(&ada));
}

#[test]
fn after_a_restore_an_id_that_is_in_use_is_not_deleted_whatever_else_the_backup_says() {
    for with_ghost in [true, false] {
        let mut world = world_with_a_place_that_cannot_be_cleared();
        world.refuses_to_delete.clear();
        // The backup was read item by item: Ada's record before she gave way, Joan's reservation after it, and the
        // ghost in between, or it was missed.
        let (id, mut ghost) = world.ghosts.pop_first().unwrap();
        let Some(Holder::User(was)) = ghost.was.take().map(|was| *was) else {
            panic!("nobody gave way");
        };
        world.users.insert(was.stem.clone(), was);
        if with_ghost {
            world.ghosts.insert(id, ghost);
        }
        let joan = &world.users[&user("joan").stem()];
        assert_eq!(joan.reservation().unwrap().after.len(), 1);
        restored(&mut world);
        let mut process = Process::sync(1_000, Counts::Users);
        while process.step(&mut world, Fate::Answered) {}
        assert_eq!(world.fault(), None);
        world.finish_deletions();
        assert!(world.users[&user("ada").stem()].active().is_some());
        assert_eq!((world.users.len(), world.upstream.len()), (2, 2));
    }
}
