//! Places that are kept for callers who met the limit.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::world::{Answer, World};

/// Seconds from now, by the stack's clock, until when the place is held.
fn seconds_held(world: &World, answer: &Answer) -> i64 {
    let until: Timestamp = answer["held_until"].as_str().unwrap().parse().unwrap();
    until.duration_since(world.stack().clock().now()).as_secs()
}

#[tokio::test]
async fn a_hold_keeps_a_place_for_five_minutes_and_is_used_by_registering() {
    let world = World::with_limit(2).await;
    let held = world.hold("ada").await.with_status(200);
    assert!(
        (290..=300).contains(&seconds_held(&world, &held)),
        "{}",
        held.text
    );
    assert_eq!(held["success"], true);
    assert_eq!(held["evicted"], Value::Null);
    assert_eq!(held["slots"], json!({"in_use": 1, "limit": 2}));

    let before = world.table().await;
    let again = world.hold("ada").await.with_status(200);
    assert_eq!(again.body, held.body);
    assert_eq!(world.table().await, before, "a second hold changed something");
    let status = world.status("ada").await.with_status(200);
    assert_eq!(status["held_until"], held["held_until"]);
    assert_eq!(
        (&status["registered"], &status["current_count"]),
        (&json!(false), &json!(1))
    );
    assert_eq!(world.tracked().await[0]["state"], "reserved");
    let change = world.change_user("ada", json!({"protected": true})).await;
    change.problem(409, "operation_in_progress");
    let delete = world.delete_user("ada").await;
    delete.problem(409, "operation_in_progress");

    // The place is really kept: of the two, the other is free and then somebody has to give way.
    world.register("bob").await.with_status(201);
    let answer = world.register_for("cy").await.with_status(201);
    assert_eq!(answer["evicted"]["user_id"], "bob");
    let used = world.register("ada").await.with_status(201);
    assert_eq!(used["evicted"], Value::Null);
    world.assert_exactly(&["ada", "cy"]).await;
    world.assert_secret_works("ada").await;

    let confirmed = world.hold("ada").await.with_status(200);
    assert_eq!(
        (&confirmed["held_until"], &confirmed["evicted"]),
        (&Value::Null, &Value::Null)
    );
    world.assert_exactly(&["ada", "cy"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_hold_at_the_limit_makes_room_at_once_and_registering_evicts_nobody_else() {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    let held = world.hold("cy").await.with_status(200);
    assert_eq!(held["evicted"]["reason"], "oldest");
    assert_eq!(held["evicted"]["user_id"], Value::Null);
    assert_eq!(world.at_snaptrade().await, [world.upstream_id("bob").await]);
    let used = world.register("cy").await.with_status(201);
    assert_eq!(used["evicted"], Value::Null);
    world.assert_exactly(&["bob", "cy"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_place_whose_hold_lapsed_is_taken_before_anybody_gives_way() {
    let world = World::with_limit(2).await;
    world.registered(&["ada"]).await;
    world.hold("bob").await.with_status(200);
    world.advance(310).await;
    let status = world.status("bob").await.with_status(200);
    assert_eq!(
        (&status["held_until"], &status["current_count"]),
        (&Value::Null, &json!(1))
    );
    let answer = world.register("cy").await.with_status(201);
    assert_eq!(answer["evicted"], Value::Null);
    world.assert_exactly(&["ada", "cy"]).await;

    // Who let a place lapse waits a quarter of an hour for the next, but may register at once.
    let refused = world.hold("bob").await.problem(429, "rate_limited");
    assert!((1..=900).contains(&refused.retry_after().unwrap()));
    world.advance(900).await;
    world.hold("bob").await.with_status(200);
    world.register("bob").await.with_status(201);
    world.settle().await;
    world.assert_exactly(&["cy", "bob"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_lapsed_hold_is_freed_by_the_sync() {
    let world = World::with_limit(2).await;
    world.hold("ada").await.with_status(200);
    world.advance(310).await;
    let report = world.sync().await.with_status(200);
    assert_eq!(
        (&report["repaired"], &report["tracked_count"]),
        (&json!(1), &json!(0))
    );
    world.assert_exactly(&[]).await;
    world.stop().await;
}

#[tokio::test]
async fn at_most_half_of_the_places_are_held() {
    let world = World::start().await;
    for user in ["ada", "bob", "cy"] {
        world.hold(user).await.with_status(200);
    }
    let refused = world.hold("dee").await.problem(429, "rate_limited");
    assert!(refused.retry_after().is_some());
    // Registering is no hold.
    world.register("dee").await.with_status(201);
    world.register("ada").await.with_status(201);
    world.hold("eve").await.with_status(200);
    world.stop().await;
}

#[tokio::test]
async fn a_place_that_was_held_and_used_is_counted_once() {
    let world = World::start().await;
    let held = world.hold("ada").await.with_status(200);
    assert_eq!(held["slots"]["in_use"], 1);
    let used = world.register("ada").await.with_status(201);
    assert_eq!(used["slots"]["in_use"], 1);
    assert_eq!(world.status("ada").await["current_count"], 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_whose_registration_was_not_answered_keeps_its_remaining_minutes() {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    let held = world.hold("cy").await.with_status(200);
    world.fault("registerUser", "timeout", 100).await;
    world.register("cy").await.problem(504, "upstream_timeout");
    world.clear_faults().await;

    // The place is still hers, for as long as it was promised, and asking again extends nothing and evicts nobody.
    let status = world.status("cy").await.with_status(200);
    assert_eq!(status["held_until"], held["held_until"]);
    let before = world.table().await;
    let again = world.hold("cy").await.with_status(200);
    assert_eq!(
        (&again["held_until"], &again["evicted"]),
        (&held["held_until"], &Value::Null)
    );
    assert_eq!(world.table().await, before, "a second hold changed something");
    // Somebody else does not get it.
    let answer = world.register_for("dee").await.with_status(201);
    assert_eq!(answer["evicted"]["user_id"], "bob");
    world.advance(120).await;
    let used = world.register("cy").await.with_status(201);
    assert_eq!(used["evicted"], Value::Null);
    world.settle().await;
    world.assert_exactly(&["cy", "dee"]).await;
    world.assert_secret_works("cy").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_whose_registration_was_not_answered_ends_when_it_was_to_end() {
    let world = World::with_limit(1).await;
    world.hold("ada").await.with_status(200);
    world.fault("registerUser", "commit_then_timeout", 100).await;
    world.register("ada").await.problem(504, "upstream_timeout");
    world.clear_faults().await;
    world.advance(310).await;
    // The next caller takes the place with what it owes, and nobody gives way.
    let answer = world.register_for("bob").await.with_status(201);
    assert_eq!(answer["evicted"], Value::Null);
    world.settle().await;
    world.assert_exactly(&["bob"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_hold_is_not_extended_by_asking_again_shortly_before_it_ends() {
    let world = World::with_limit(2).await;
    world.registered(&["ada"]).await;
    let held = world.hold("bob").await.with_status(200);
    world.advance(290).await;
    let again = world.hold("bob").await.with_status(200);
    assert_eq!(again.body, held.body);
    world.advance(20).await;
    let status = world.status("bob").await.with_status(200);
    assert_eq!(
        (&status["held_until"], &status["available"]),
        (&Value::Null, &json!(1))
    );
    // Asking a third time is asking for another place, which comes too soon.
    world.hold("bob").await.problem(429, "rate_limited");
    world.assert_exactly_after_sync(&["ada"]).await;
    world.stop().await;
}
