//! Many users: SnapTrade knows thousands that are unknown here, and thousands are tracked.
//!
//! How many is told by `BERTH_SCENARIOS_USERS`, so that the same scenario can be run with as many as a large account has.

use std::time::Instant;

use serde_json::{Value, json};

use crate::world::World;

/// More than one call to the table gives back at once.
const USERS: usize = 2_000;

fn users() -> usize {
    match std::env::var("BERTH_SCENARIOS_USERS") {
        Ok(users) => users.parse().unwrap(),
        Err(_) => USERS,
    }
}

/// Megabytes of memory that this process holds, and that it held at most, as the system counts them.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status
        .lines()
        .filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    lines.collect::<Vec<_>>().join(", ")
}

/// Syncs until a run comes to its end, and tells how many runs it took and how many were added and removed.
async fn sync_to_the_end(world: &World) -> (usize, u64, u64) {
    let (mut runs, mut added, mut removed) = (0, 0, 0);
    loop {
        runs += 1;
        let started = Instant::now();
        let report = world.sync().await.with_status(200);
        eprintln!(
            "run {runs}: {:?}, {}, {}",
            started.elapsed(),
            report.text,
            memory()
        );
        added += report["added"].as_u64().unwrap();
        removed += report["removed"].as_u64().unwrap();
        if report["complete"] == true {
            return (runs, added, removed);
        }
        assert!(runs < 40, "no end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_strangers_are_adopted_shown_and_removed_within_the_time_of_single_runs() {
    let count = users();
    let world = World::with_limit(5).await;
    let settings = json!({"webhook_url": "", "rate_limit_per_minute": null});
    world.sandbox("settings", settings).await;
    let started = Instant::now();
    let names: Vec<String> = (0..count).map(|number| format!("user-{number:05}")).collect();
    for name in &names {
        world.register_quietly(name).await;
    }
    eprintln!("{count} registered in {:?}, {}", started.elapsed(), memory());

    // The table is new: nothing may be reserved before all of them are known.
    let (runs, added, _) = sync_to_the_end(&world).await;
    assert_eq!(added, count as u64, "in {runs} runs");
    let status = world.operators_status().await.with_status(200);
    for name in ["current_count", "tracked_count", "upstream_count", "users"] {
        assert_eq!(status[name], count, "{name}");
    }
    assert_eq!(
        (&status["in_sync"], &status["oldest"]["user_id"]),
        (&json!(true), &json!(names[0]))
    );

    // With all of them tracked a run has little to do, and what users and operators ask for stays cheap.
    let started = Instant::now();
    let (runs, added, removed) = sync_to_the_end(&world).await;
    assert_eq!((runs, added, removed), (1, 0, 0));
    eprintln!("nothing to do took {:?}, {}", started.elapsed(), memory());
    let (status, cost) = world.cost(world.status("ada")).await;
    eprintln!("a user's status took {:?}: {cost:?}", status.took);
    assert_eq!(status.with_status(200)["users"], count);
    assert!(cost.snaptrade == 0 && cost.dynamodb <= 2, "{cost:?}");
    let (page, cost) = world.cost(world.users("?limit=500")).await;
    eprintln!("a page of users took {:?}: {cost:?}", page.took);
    assert_eq!(page.with_status(200)["data"].as_array().unwrap().len(), 500);
    assert_eq!((cost.snaptrade, cost.dynamodb), (0, 1));
    let (answer, cost) = world.cost(world.register_for("ada")).await;
    eprintln!("a registration took {:?}: {cost:?}", answer.took);
    assert_eq!(answer.with_status(201)["evicted"]["user_id"], names[0]);
    assert!(cost.snaptrade <= 2 && cost.dynamodb <= 6, "{cost:?}");

    // A third of them goes, which one list notes and another one, a while later, confirms.
    for name in names.iter().skip(1).take(count / 3) {
        world.delete_quietly(name).await;
    }
    world.advance(70).await;
    assert_eq!(sync_to_the_end(&world).await.2, 0);
    world.advance(70).await;
    let (runs, _, removed) = sync_to_the_end(&world).await;
    assert_eq!(removed, (count / 3) as u64, "in {runs} runs");
    let status = world.operators_status().await.with_status(200);
    assert_eq!(
        (&status["in_sync"], &status["unknown"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(status["users"], count - count / 3);
    assert_eq!(status["missing"], Value::Array(Vec::new()));
    world.stop().await;
}
