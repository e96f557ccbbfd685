//! The table fails, refuses or loses answers, at each call that a registration at the limit makes.

use std::time::Duration;

use berth_local::Fault;

use crate::world::World;

/// Calls to the table that a registration at the limit makes, and one more.
const CALLS: usize = 7;

/// Often enough that no retry gets past.
const LASTING: usize = 100;

/// Cy registers, for which Ada has to give way. The first `calls` calls to the table are well, the next `times` fail.
async fn register_with(calls: usize, fault: Fault, times: usize) {
    let world = World::with_limit(2).await;
    // Webhooks would make calls of their own.
    world.without_events().await;
    world.registered(&["ada", "bob"]).await;
    world.dynamodb().fail_next(calls, Fault::Slow(Duration::ZERO));
    world.dynamodb().fail_next(times, fault);
    let answer = world.register("cy").await;
    world.clear_faults().await;
    if times < LASTING {
        answer.with_status(201);
    } else if answer.status != 201 {
        answer.problem(503, "unavailable");
        world.advance(70).await;
        let again = world.register("cy").await;
        assert!([200, 201].contains(&again.status), "{}", again.text);
    }
    world.settle().await;
    world.assert_exactly(&["bob", "cy"]).await;
    for user in ["bob", "cy"] {
        world.assert_secret_works(user).await;
    }
    world.stop().await;
}

async fn side_by_side(fault: Fault, times: usize) {
    let running: Vec<_> = (0..CALLS)
        .map(|calls| tokio::spawn(register_with(calls, fault, times)))
        .collect();
    let mut failed = Vec::new();
    for (calls, scenario) in running.into_iter().enumerate() {
        if scenario.await.is_err() {
            failed.push(calls);
        }
    }
    assert!(
        failed.is_empty(),
        "{fault:?} x{times} after these calls: {failed:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_survives_a_lost_answer_at_any_call() {
    side_by_side(Fault::LostAnswer, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_survives_a_throttled_call_at_any_point() {
    side_by_side(Fault::Throttle, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_loses_the_table_at_any_call_is_repaired() {
    side_by_side(Fault::Error500, LASTING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_loses_every_answer_from_any_call_on_is_repaired() {
    side_by_side(Fault::LostAnswer, LASTING).await;
}

#[tokio::test]
async fn without_the_table_every_route_says_unavailable() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    world.dynamodb().fail_next(10_000, Fault::Error500);
    let answers = [
        world.register("ada").await,
        world.hold("bob").await,
        world.status("ada").await,
        world.users("").await,
        world.delete_user("ada").await,
        world.sync().await,
    ];
    for answer in answers {
        answer.problem(503, "unavailable");
    }
    let health = world
        .request(reqwest::Method::GET, "/health")
        .send()
        .await
        .unwrap();
    assert_eq!(health.status(), 503);
    let health: serde_json::Value = health.json().await.unwrap();
    assert_ne!(health["checks"]["store"], "ok");
    assert_eq!(health["checks"]["secrets"], "ok");
    world.settle().await;
    world.assert_exactly(&["ada"]).await;
    world.assert_secret_works("ada").await;
    world.stop().await;
}
