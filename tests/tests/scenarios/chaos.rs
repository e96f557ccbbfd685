//! Everything at once, with everything failing now and then: whatever happens, it ends well.

use std::time::Duration;

use berth_local::Fault;
use futures::future::join_all;
use serde_json::json;

use crate::world::World;

/// Random numbers that are the same again for the same seed.
struct Random(u64);

impl Random {
    /// A number below `end`. Source of the method: Marsaglia, "Xorshift RNGs" (2003).
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

const USERS: [&str; 8] = ["ada", "bob", "cy", "dee", "eve", "fay", "gus", "hal"];

/// Something that somebody does. Whatever is answered, it has one of the contract's forms, which is checked where
/// answers are received.
async fn act(world: &World, action: u64, user: &str) {
    match action {
        0..=4 => drop(world.register(user).await),
        5 | 6 => drop(world.hold(user).await),
        7 => drop(world.delete_user(user).await),
        8 => drop(world.recreate(user).await),
        9 => drop(world.sync().await),
        10 => drop(world.connection_url(user, json!({})).await),
        11 => drop(world.delete_oldest().await),
        12 => drop(world.register_for(user).await),
        _ => drop(world.refresh(user, json!({})).await),
    }
}

async fn break_something(world: &World, random: &mut Random) {
    let times = 1 + random.below(3);
    let operation = random.one_of(&["registerUser", "deleteUser", "listUsers", "*"]);
    match random.below(9) {
        0 => world.fault(operation, "malformed", 1).await,
        1 => world.fault("registerUser", "limit_reached", 1).await,
        2 => world.fail_with(operation, 401, 1).await,
        3 => world.fail_with(operation, 429, 1).await,
        4 => world.fail_with(operation, random.one_of(&[500, 503]), 2).await,
        5 => world
            .dynamodb()
            .fail_next(usize::try_from(times).unwrap(), Fault::LostAnswer),
        6 => world
            .dynamodb()
            .fail_next(usize::try_from(times * 2).unwrap(), Fault::Error500),
        7 => world
            .dynamodb()
            .fail_next(usize::try_from(times).unwrap(), Fault::Throttle),
        _ => world
            .dynamodb()
            .fail_next_of("TransactWriteItems", 1, Fault::Slow(Duration::from_millis(300))),
    }
}

async fn live_through(seed: u64) {
    eprintln!("seed {seed}");
    let world = World::with_limit(3).await;
    let mut random = Random(seed);
    for round in 0..8 {
        if random.below(3) > 0 {
            break_something(&world, &mut random).await;
        }
        if random.below(6) == 0 {
            let delay = json!({"delete_delay_ms": random.one_of(&[0_u64, 0, 2_000])});
            world.sandbox("settings", delay).await;
        }
        let acts: Vec<_> = (0..1 + random.below(5))
            .map(|_| act(&world, random.below(14), random.one_of(&USERS)))
            .collect();
        join_all(acts).await;
        if round % 3 == 2 {
            let seconds = random.one_of(&[1, 20, 70, 320, 1_000]);
            world.advance(seconds).await;
        }
    }
    world.sandbox("settings", json!({"delete_delay_ms": 0})).await;
    // Holds that nobody used lapse, and what is being deleted is gone.
    world.advance(400).await;
    world.settle().await;
    let tracked = world.tracked().await;
    let users: Vec<&str> = tracked
        .iter()
        .map(|user| user["user_id"].as_str().unwrap())
        .collect();
    assert!(users.len() <= 3, "seed {seed}: {users:?}");
    world.assert_exactly(&users).await;
    for user in &users {
        world.assert_secret_works(user).await;
    }
    // And there is a place for a newcomer.
    world.register("zoe").await.with_status(201);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_and_whoever_acts_at_once_it_ends_with_the_same_users_here_and_there() {
    let seeds: Vec<u64> = match std::env::var("BERTH_SCENARIOS_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").unwrap();
            (from.parse().unwrap()..to.parse().unwrap()).collect()
        }
        Err(_) => (1..=6).collect(),
    };
    let running: Vec<_> = seeds
        .into_iter()
        .map(|seed| {
            (
                seed,
                tokio::spawn(live_through(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))),
            )
        })
        .collect();
    let mut failed = Vec::new();
    for (seed, scenario) in running {
        if scenario.await.is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "failed with the seeds {failed:?}");
}
