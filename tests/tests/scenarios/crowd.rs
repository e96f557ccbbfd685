//! Many at once.

use futures::future::join_all;
use serde_json::json;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_users_at_once_end_as_five_at_snaptrade_and_the_same_five_here() {
    let world = World::start().await;
    let names: Vec<String> = (0..50).map(|number| format!("user-{number}")).collect();
    let answers = join_all(names.iter().map(|name| world.register(name))).await;
    for answer in &answers {
        match answer.status {
            201 => assert_eq!(answer["created"], true),
            status => assert!([409, 429, 503, 504].contains(&status), "{status} {}", answer.text),
        }
    }
    let registered = answers.iter().filter(|answer| answer.status == 201).count();
    assert!(registered >= 5, "only {registered} of fifty were registered");
    world.settle().await;
    let tracked = world.tracked().await;
    let users: Vec<&str> = tracked
        .iter()
        .map(|user| user["user_id"].as_str().unwrap())
        .collect();
    assert_eq!(users.len(), 5);
    world.assert_exactly(&users).await;
    for user in users {
        world.assert_secret_works(user).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_meets_snaptrades_rate_limit_ends_well_too() {
    let world = World::with_limit(3).await;
    world
        .sandbox("settings", json!({"rate_limit_per_minute": 12}))
        .await;
    let names: Vec<String> = (0..12).map(|number| format!("user-{number}")).collect();
    let answers = join_all(names.iter().map(|name| world.register(name))).await;
    for answer in &answers {
        assert!(
            [201, 409, 429, 502, 503, 504].contains(&answer.status),
            "{} {}",
            answer.status,
            answer.text
        );
    }
    world
        .sandbox("settings", json!({"rate_limit_per_minute": null}))
        .await;
    world.settle().await;
    let tracked = world.tracked().await;
    let users: Vec<&str> = tracked
        .iter()
        .map(|user| user["user_id"].as_str().unwrap())
        .collect();
    assert!(users.len() <= 3, "{users:?}");
    world.assert_exactly(&users).await;
    for user in users {
        world.assert_secret_works(user).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_who_registers_ten_times_at_once_is_registered_once() {
    let world = World::start().await;
    let answers = join_all((0..10).map(|_| world.register("ada"))).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    for answer in &answers {
        match answer.status {
            200 | 201 => {}
            503 => assert_eq!(answer.code(), "unavailable"),
            _ => assert_eq!(answer.code(), "operation_in_progress"),
        }
    }
    assert_eq!(created, 1);
    world.assert_exactly(&["ada"]).await;
    world.assert_secret_works("ada").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registering_holding_deleting_and_syncing_at_once_loses_nothing() {
    let world = World::with_limit(3).await;
    world.registered(&["ada", "bob", "cy"]).await;
    let names: Vec<String> = (0..8).map(|number| format!("user-{number}")).collect();
    tokio::join!(
        join_all(names.iter().map(|name| world.register(name))),
        join_all(names.iter().map(|name| world.hold(name))),
        world.delete_user("ada"),
        world.delete_oldest(),
        world.recreate("cy"),
        world.sync(),
        world.change_user("bob", json!({"protected": true})),
    );
    // Holds that nobody uses lapse.
    world.advance(310).await;
    world.settle().await;
    let tracked = world.tracked().await;
    let users: Vec<&str> = tracked
        .iter()
        .map(|user| user["user_id"].as_str().unwrap())
        .collect();
    assert!(users.len() <= 3, "{users:?}");
    world.assert_exactly(&users).await;
    for user in users {
        world.assert_secret_works(user).await;
    }
    world.stop().await;
}
