//! How many requests one caller may make in a minute.

use berth_local::{Options, Settings};

use crate::world::World;

async fn limited_to_two() -> World {
    let mut settings = Settings::default();
    settings.set("INBOUND_LIMIT", "2");
    World::with(Options {
        settings,
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn who_makes_too_many_requests_is_told_when_to_come_back_and_others_are_not() {
    let world = limited_to_two().await;
    world.status("ada").await.with_status(200);
    world.status("ada").await.with_status(200);
    let refused = world.status("ada").await.problem(429, "rate_limited");
    let wait = refused.retry_after().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    world.status("grace").await.with_status(200);
    world.register("ada").await.with_status(201);
    // A refused request neither costs a call nor makes the wait longer.
    world.advance(i64::try_from(wait).unwrap()).await;
    let (answer, cost) = world.cost(world.status("ada")).await;
    answer.with_status(200);
    assert!(cost.dynamodb > 0);
    world.status("ada").await.with_status(200);
    let (answer, cost) = world.cost(world.status("ada")).await;
    answer.problem(429, "rate_limited");
    assert_eq!((cost.dynamodb, cost.snaptrade), (0, 0));
    world.stop().await;
}

#[tokio::test]
async fn webhooks_and_health_checks_are_not_counted() {
    let world = limited_to_two().await;
    for _ in 0..5 {
        let health = world.request(reqwest::Method::GET, "/health");
        world.send(health).await.with_status(200);
        let webhook = world.send_webhook(b"{}".to_vec(), Some("forged")).await;
        webhook.problem(401, "invalid_signature");
    }
    world.stop().await;
}
