//! SnapTrade's rate limit, which all functions keep together.

use berth_local::Options;
use futures::future::join_all;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::World;

/// How SnapTrade answered each call, from the call numbered `from` on.
async fn statuses(world: &World, from: usize) -> Vec<u64> {
    let url = format!("{}/__sandbox/requests", world.stack().urls().snaptrade);
    let client = berth::snaptrade::http_client().unwrap();
    let requests: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    let requests = requests.as_array().unwrap().iter().skip(from);
    requests
        .map(|request| request["status"].as_u64().unwrap())
        .collect()
}

async fn limited_to(world: &World, calls: u32) {
    world
        .sandbox("settings", json!({"rate_limit_per_minute": calls}))
        .await;
}

#[tokio::test]
async fn more_calls_than_snaptrade_allows_are_not_even_sent_and_callers_are_told_when_to_come_back() {
    let world = World::start().await;
    let users = ["ada", "bob", "cy", "dan", "eve"];
    world.registered(&users).await;
    world.without_events().await;
    world.advance(61).await;
    limited_to(&world, 60).await;
    let before = statuses(&world, 0).await.len();
    let (mut links, mut refused) = (0, Vec::new());
    for _ in 0..20 {
        let five = users.iter().map(|user| world.connection_url(user, json!({})));
        for answer in join_all(five).await {
            match answer.status {
                200 => links += 1,
                _ => refused.push(answer.problem(429, "rate_limited")),
            }
        }
    }
    let sent = statuses(&world, before).await;
    assert!(!sent.contains(&429), "{} calls: {sent:?}", sent.len());
    assert!((40..=60).contains(&links), "{links}");
    assert_eq!(links + refused.len(), 100);
    let wait = refused.iter().map(|answer| answer.retry_after().unwrap()).max();
    let wait = i64::try_from(wait.unwrap()).unwrap();
    assert!(wait <= 76, "{wait}");
    world.advance(wait).await;
    world.connection_url("ada", json!({})).await.with_status(200);
    world.stop().await;
}

#[tokio::test]
async fn a_user_who_refreshes_more_than_the_plan_allows_is_told_when_it_is_done() {
    let mut options = Options::default();
    options.settings.set("RATE_PLAN", "10/m,1000/h,10000/d");
    let world = World::with(options).await;
    world.registered(&["ada"]).await;
    world.connect("ada").await;
    world.events_done().await;
    world.without_events().await;
    world.advance(61).await;
    // Each takes six calls and one that asks the brokerage, the first time.
    for _ in 0..2 {
        let answer = world.refresh("ada", json!({})).await.with_status(200);
        assert_eq!(
            (&answer["retry_scheduled"], &answer["stale"]),
            (&json!(false), &json!([]))
        );
        world.advance(11).await;
    }
    let before = statuses(&world, 0).await.len();
    let answer = world.refresh("ada", json!({})).await.with_status(200);
    assert_eq!(answer["retry_scheduled"], true);
    assert_eq!(answer["stale"].as_array().unwrap().len(), 2);
    assert_eq!(statuses(&world, before).await.len(), 0);
    let retry_at: Timestamp = answer["retry_at"].as_str().unwrap().parse().unwrap();
    let wait = retry_at.as_second() - world.stack().clock().now().as_second() + 1;
    world.advance(wait).await;
    let fired = world.request(Method::POST, "/__local/schedules/refresh");
    assert_eq!(fired.send().await.unwrap().status(), 200);
    assert!(!statuses(&world, before).await.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn the_schedule_leaves_calls_to_those_who_wait() {
    let world = World::with_limit(12).await;
    world.sandbox("settings", json!({"connection_limit": 50})).await;
    let users: Vec<String> = (0..12).map(|number| format!("user-{number}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    world.registered(&users).await;
    for user in &users {
        world.connect(user).await;
    }
    world.events_done().await;
    world.without_events().await;
    // All that is stored is old by now.
    world.advance(7 * 3600).await;
    limited_to(&world, 60).await;
    let before = statuses(&world, 0).await.len();
    let fired = world.request(Method::POST, "/__local/schedules/refresh");
    assert_eq!(fired.send().await.unwrap().status(), 200);
    let in_background = statuses(&world, before).await.len();
    assert!((20..=48).contains(&in_background), "{in_background}");
    for user in &users[..10] {
        world.connection_url(user, json!({})).await.with_status(200);
    }
    let sent = statuses(&world, before).await;
    assert!(!sent.contains(&429), "{sent:?}");
    // The schedule goes on with the others.
    world.advance(3600).await;
    assert_eq!(
        world
            .request(Method::POST, "/__local/schedules/refresh")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert!(statuses(&world, before).await.len() > sent.len());
    world.stop().await;
}
