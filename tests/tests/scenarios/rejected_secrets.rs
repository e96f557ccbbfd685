//! Users whose secret stopped working, because they got another one elsewhere.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{ANSWERED_WITHIN, Answer, World};

/// A full stack on which Ada has a connection and, without Berth's knowledge, another secret under the same id.
async fn with_a_rotated_secret() -> World {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    world.connect("ada").await;
    world.events_done().await;
    world.without_events().await;
    rotate(&world).await;
    world
}

async fn rotate(world: &World) {
    let ada = world.upstream_id("ada").await;
    world.delete_behind_our_back(&ada).await;
    world.register_behind_our_back(&ada).await;
}

/// The events that were taken in.
async fn events(world: &World) -> Vec<Value> {
    let table = world.table().await;
    table.into_values().filter(|item| item["sk"] == "EVENT").collect()
}

/// Waits until so many events were taken in and all of them worked on. Those that were not to be sent are not waited
/// for.
async fn work_done(world: &World, count: usize) {
    let started = Instant::now();
    loop {
        let events = events(world).await;
        if events.len() >= count && events.iter().all(|event| !event["applied_at"].is_null()) {
            return;
        }
        assert!(started.elapsed() < ANSWERED_WITHIN, "{events:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[track_caller]
fn says_to_register_again(answer: Answer) {
    let answer = answer.problem(409, "secret_invalid");
    assert!(
        answer["detail"].as_str().unwrap().contains("register"),
        "{}",
        answer.text
    );
}

/// Ada registers again, in the same place, and nobody gives way.
async fn assert_registers_again(world: &World) {
    assert_eq!(world.status("ada").await["registered"], true);
    let before = world.upstream_id("ada").await;
    let answer = world.register("ada").await.with_status(201);
    assert_eq!(
        (&answer["created"], &answer["evicted"], &answer["slots"]),
        (&json!(true), &Value::Null, &json!({"in_use": 2, "limit": 2}))
    );
    assert_ne!(world.upstream_id("ada").await, before);
    world.assert_secret_works("ada").await;
    world.settle().await;
    world.assert_exactly(&["ada", "bob"]).await;
}

#[tokio::test]
async fn asking_for_a_link_finds_it_and_it_is_not_asked_again() {
    let world = with_a_rotated_secret().await;
    says_to_register_again(world.connection_url("ada", json!({})).await);
    let (answer, cost) = world.cost(world.connection_url("ada", json!({}))).await;
    says_to_register_again(answer);
    assert_eq!(cost.snaptrade, 0, "what is known is not asked again");
    says_to_register_again(world.refresh("ada", json!({})).await);
    assert_registers_again(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn refreshing_finds_it() {
    let world = with_a_rotated_secret().await;
    world.advance(120).await;
    says_to_register_again(world.refresh("ada", json!({})).await);
    assert_registers_again(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn the_work_on_an_event_finds_it() {
    let world = with_a_rotated_secret().await;
    world.sandbox("settings", json!({"webhook_url": null})).await;
    // She connects under the secret that Berth does not know.
    let before = events(&world).await.len();
    world.connect("ada").await;
    world.without_events().await;
    work_done(&world, before + 1).await;
    let (answer, cost) = world.cost(world.connection_url("ada", json!({}))).await;
    says_to_register_again(answer);
    assert_eq!(cost.snaptrade, 0, "the event's work has found it");
    assert_registers_again(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn an_event_that_the_user_was_deleted_removes_nobody_whom_snaptrade_lists_again() {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    // SnapTrade tells of the deletion only after the registration under another secret.
    let ada = world.upstream_id("ada").await;
    world.without_events().await;
    rotate(&world).await;
    let event = json!({
        "webhookId": "w-late", "clientId": "SANDBOX-CLIENT", "userId": ada, "eventType": "USER_DELETED",
        "eventTimestamp": world.stack().clock().now().to_string(),
    });
    let before = events(&world).await.len();
    world.send_event(&event).await.with_status(200);
    work_done(&world, before + 1).await;
    assert_eq!(world.tracked().await.len(), 2);
    says_to_register_again(world.connection_url("ada", json!({})).await);
    assert_registers_again(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn the_sync_leaves_a_listed_user_alone_and_removes_one_who_is_gone() {
    let world = with_a_rotated_secret().await;
    let report = world.sync().await.with_status(200);
    assert_eq!(
        (&report["added"], &report["removed"], &report["complete"]),
        (&json!(0), &json!(0), &json!(true))
    );
    assert_eq!(world.tracked().await.len(), 2);
    world
        .delete_behind_our_back(&world.upstream_id("ada").await)
        .await;
    world.sync().await.with_status(200);
    world.assert_exactly(&["bob"]).await;
    world.register("ada").await.with_status(201);
    world.assert_exactly(&["ada", "bob"]).await;
    world.stop().await;
}

#[tokio::test]
async fn an_operator_recreates_one_whom_snaptrade_knows_and_tracking_does_not() {
    let world = World::with_limit(2).await;
    world.without_events().await;
    world.registered(&["bob"]).await;
    world.register_behind_our_back("ada").await;
    let answer = world.recreate("ada").await.with_status(201);
    assert_eq!(
        (&answer["evicted"], &answer["slots"]),
        (&Value::Null, &json!({"in_use": 2, "limit": 2}))
    );
    world.assert_exactly(&["ada", "bob"]).await;
    world.assert_secret_works("ada").await;
    world.stop().await;
}
