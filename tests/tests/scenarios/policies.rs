//! Who gives way, by each policy, and where the reason is told.

use berth::config::Policy;
use berth_local::Options;
use serde_json::{Value, json};

use crate::world::{Answer, World};

async fn with_policy(limit: u32, policy: Policy) -> World {
    World::with(Options {
        limit: Some(limit),
        policy: Some(policy),
        ..Options::default()
    })
    .await
}

/// Asserts that registering (or holding a place) let `user` give way for `reason`, and that the status and the audit
/// trail say the same.
async fn assert_gave_way(world: &World, answer: &Answer, newcomer: &str, user: &str, reason: &str) {
    assert_eq!(
        (&answer["evicted"]["user_id"], &answer["evicted"]["reason"]),
        (&json!(user), &json!(reason)),
        "{}",
        answer.text
    );
    let status = world.operators_status().await.with_status(200);
    let last = &status["last_eviction"];
    assert_eq!(
        (&last["user_id"], &last["reason"]),
        (&json!(user), &json!(reason))
    );
    assert_eq!(last["created_at"], answer["evicted"]["created_at"]);
    assert!(last["evicted_at"].is_string(), "{last}");
    for (of, action) in [(user, "user.evicted"), (newcomer, "place.evicted")] {
        let table = world.table().await;
        let said = table.values().any(|entry| {
            entry["subject"] == of && entry["action"] == action && entry["detail"]["reason"] == reason
        });
        assert!(said, "nothing of it in the audit trail of {of}");
    }
}

#[tokio::test]
async fn the_oldest_gives_way_by_default_and_nobody_did_before() {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    let status = world.operators_status().await.with_status(200);
    assert_eq!(status.body.get("last_eviction"), Some(&Value::Null));
    let answer = world.register_for("cy").await.with_status(201);
    assert_gave_way(&world, &answer, "cy", "ada", "oldest").await;
    // Users are not told who it was.
    let status = world.status("cy").await.with_status(200);
    assert_eq!(status.body.get("last_eviction"), None);
    world.stop().await;
}

#[tokio::test]
async fn whoever_did_nothing_for_longest_gives_way() {
    let world = with_policy(3, Policy::LeastRecentlyActive).await;
    world.without_events().await;
    world.registered(&["ada", "bob", "cy"]).await;
    world.advance(60).await;
    // Ada and Cy are seen again, Ada last.
    world.connection_url("cy", json!({})).await.with_status(200);
    world.advance(60).await;
    world.connection_url("ada", json!({})).await.with_status(200);
    let answer = world.register_for("dee").await.with_status(201);
    assert_gave_way(&world, &answer, "dee", "bob", "least_recently_active").await;
    world.protect("cy").await;
    world.advance(60).await;
    let answer = world.hold_for("eve").await.with_status(200);
    assert_gave_way(&world, &answer, "eve", "ada", "least_recently_active").await;
    world.register("eve").await.with_status(201);
    world.assert_exactly(&["cy", "dee", "eve"]).await;
    world.stop().await;
}

#[tokio::test]
async fn whoever_is_broken_gives_way_first_and_then_the_oldest() {
    let world = with_policy(3, Policy::BrokenFirst).await;
    world.registered(&["ada", "bob", "cy"]).await;
    world.connect("ada").await;
    let (connection, _) = world.connect("bob").await;
    world
        .sandbox(&format!("connections/{connection}/break"), json!({}))
        .await;
    world.events_done().await;
    let answer = world.register_for("dee").await.with_status(201);
    assert_gave_way(&world, &answer, "dee", "bob", "broken").await;
    let answer = world.register_for("eve").await.with_status(201);
    assert_gave_way(&world, &answer, "eve", "ada", "oldest").await;
    world.settle().await;
    world.assert_exactly(&["cy", "dee", "eve"]).await;
    world.stop().await;
}

#[tokio::test]
async fn the_broken_who_are_protected_stay() {
    let world = with_policy(2, Policy::BrokenFirst).await;
    world.registered(&["ada", "bob"]).await;
    let (connection, _) = world.connect("bob").await;
    world
        .sandbox(&format!("connections/{connection}/break"), json!({}))
        .await;
    world.events_done().await;
    world.protect("bob").await;
    let answer = world.register_for("cy").await.with_status(201);
    assert_gave_way(&world, &answer, "cy", "ada", "oldest").await;
    world.assert_exactly(&["bob", "cy"]).await;
    world.stop().await;
}

#[tokio::test]
async fn where_nobody_may_give_way_nothing_is_noted() {
    let world = with_policy(1, Policy::None).await;
    world.registered(&["ada"]).await;
    for answer in [world.register("bob").await, world.hold("bob").await] {
        let refused = answer.problem(409, "connection_limit_reached");
        assert_eq!(refused.retry_after(), None, "waiting does not help");
    }
    assert_eq!(world.operators_status().await["last_eviction"], Value::Null);
    world.stop().await;
}

#[tokio::test]
async fn of_two_of_the_same_age_the_one_whose_id_comes_first_gives_way_under_every_policy() {
    for policy in [Policy::Oldest, Policy::LeastRecentlyActive, Policy::BrokenFirst] {
        let world = with_policy(3, policy).await;
        world.without_events().await;
        world.lose_the_table().await;
        // Adopted in the order of the list, and then told to be of one age.
        for user in ["zoe", "bob", "ada"] {
            world.register_behind_our_back(user).await;
        }
        world.sync().await.with_status(200);
        for user in ["zoe", "bob", "ada"] {
            let age = json!({"created_at": "2024-05-06T07:08:09.123456Z"});
            world.change_user(user, age).await.with_status(200);
        }
        let listed: Vec<_> = world
            .tracked()
            .await
            .iter()
            .map(|user| user["user_id"].clone())
            .collect();
        assert_eq!(listed, ["ada", "bob", "zoe"]);
        assert_eq!(world.operators_status().await["oldest"]["user_id"], "ada");
        let answer = world.register_for("new").await.with_status(201);
        assert_eq!(answer["evicted"]["user_id"], "ada", "{policy:?}");
        assert_eq!(world.delete_oldest().await["user_id"], "bob", "{policy:?}");
        world.stop().await;
    }
}

#[tokio::test]
async fn an_eviction_that_was_undone_is_not_told_of() {
    let world = World::with_limit(1).await;
    world.registered(&["ada"]).await;
    world.fail_with("deleteUser", 403, 10).await;
    world.register("bob").await.problem(502, "upstream_error");
    assert_eq!(world.operators_status().await["last_eviction"], Value::Null);
    world.clear_faults().await;
    world.assert_exactly(&["ada"]).await;
    world.assert_secret_works("ada").await;
    world.stop().await;
}
