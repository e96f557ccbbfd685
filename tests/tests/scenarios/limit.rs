//! The limit as users and operators meet it.

use std::time::Duration;

use berth::config::Policy;
use berth_local::{Fault, Options};
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn below_the_limit_users_are_registered_and_nobody_gives_way() {
    let world = World::start().await;
    for (count, user) in (1..).zip(["ada", "bob", "cy", "dee", "eve"]) {
        let answer = world.register(user).await.with_status(201);
        assert_eq!(answer["success"], true);
        assert_eq!(answer["user_id"], user);
        assert_eq!(answer["created"], true);
        assert_eq!(answer["evicted"], Value::Null);
        assert_eq!(answer["slots"], json!({"in_use": count, "limit": 5}));
        let status = world.status(user).await.with_status(200);
        assert_eq!(status["registered"], true);
        assert_eq!(status["current_count"], count);
        assert_eq!(status["available"], 5 - count);
        assert_eq!(status["at_limit"], count == 5);
        assert_eq!(status["counts"], "users");
        // What only operators may know.
        for name in ["tracked_count", "upstream_count", "oldest", "missing", "unknown"] {
            assert_eq!(status[name], Value::Null, "{name}");
        }
    }
    world.assert_exactly(&["ada", "bob", "cy", "dee", "eve"]).await;
    let status = world.operators_status().await;
    assert_eq!(status["oldest"]["user_id"], "ada");
    world.stop().await;
}

#[tokio::test]
async fn at_the_limit_the_oldest_gives_way_and_only_operators_learn_who_it_was() {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    let since = world.tracked().await[0]["created_at"].clone();

    let answer = world.register("cy").await.with_status(201);
    assert_eq!(
        answer["evicted"],
        json!({"reason": "oldest", "created_at": since})
    );
    assert_eq!(answer["slots"], json!({"in_use": 2, "limit": 2}));
    world.assert_exactly(&["bob", "cy"]).await;
    assert_eq!(world.status("ada").await["registered"], false);

    let answer = world.register_for("dee").await.with_status(201);
    assert_eq!(answer["user_id"], "dee");
    assert_eq!(answer["evicted"]["user_id"], "bob");
    world.assert_exactly(&["cy", "dee"]).await;
    for user in ["cy", "dee"] {
        world.assert_secret_works(user).await;
    }

    // Whoever gave way may come back, as the youngest.
    world.register("ada").await.with_status(201);
    world.assert_exactly(&["dee", "ada"]).await;
    world.stop().await;
}

#[tokio::test]
async fn registering_again_changes_nothing() {
    let world = World::with_limit(2).await;
    world.without_events().await;
    let first = world.register("ada").await.with_status(201);
    world.registered(&["bob"]).await;
    let before = world.table().await;
    let again = world.register("ada").await.with_status(200);
    assert_eq!(again["created"], false);
    assert_eq!(again["created_at"], first["created_at"]);
    assert_eq!(again["evicted"], Value::Null);
    assert_eq!(world.table().await, before);
    world.assert_exactly(&["ada", "bob"]).await;
    world.stop().await;
}

#[tokio::test]
async fn the_protected_stay_and_the_next_oldest_gives_way() {
    let world = World::with_limit(3).await;
    world.without_events().await;
    world.registered(&["ada", "bob", "cy"]).await;
    world.protect("ada").await;
    let answer = world.register_for("dee").await.with_status(201);
    assert_eq!(answer["evicted"]["user_id"], "bob");
    world.assert_exactly(&["ada", "cy", "dee"]).await;

    for user in ["cy", "dee"] {
        world.protect(user).await;
    }
    let before = world.table().await;
    world
        .register("eve")
        .await
        .problem(409, "connection_limit_reached");
    world.hold("eve").await.problem(409, "connection_limit_reached");
    assert_eq!(world.table().await, before, "a refusal changed something");
    world.assert_exactly(&["ada", "cy", "dee"]).await;

    world
        .change_user("cy", json!({"protected": false}))
        .await
        .with_status(200);
    world.register("eve").await.with_status(201);
    world.assert_exactly(&["ada", "dee", "eve"]).await;
    world.stop().await;
}

#[tokio::test]
async fn where_nobody_gives_way_the_newcomer_is_refused() {
    let world = World::with(Options {
        limit: Some(2),
        policy: Some(Policy::None),
        ..Options::default()
    })
    .await;
    world.registered(&["ada", "bob"]).await;
    world
        .register("cy")
        .await
        .problem(409, "connection_limit_reached");
    world.hold("cy").await.problem(409, "connection_limit_reached");
    world.register("ada").await.with_status(200);
    world.assert_exactly(&["ada", "bob"]).await;
    world.delete_user("ada").await.with_status(200);
    world.register("cy").await.with_status(201);
    world.assert_exactly(&["bob", "cy"]).await;
    world.stop().await;
}

#[tokio::test]
async fn operators_delete_by_name_and_by_age() {
    let world = World::start().await;
    world.registered(&["ada", "bob", "cy"]).await;
    let deleted = world.delete_user("bob").await.with_status(200);
    assert_eq!(
        deleted.body,
        json!({"user_id": "bob", "deleted": true, "upstream": "queued"})
    );
    world.assert_exactly(&["ada", "cy"]).await;
    world.delete_user("bob").await.problem(404, "not_found");

    let deleted = world.delete_oldest().await.with_status(200);
    assert_eq!(
        (&deleted["user_id"], &deleted["deleted"]),
        (&json!("ada"), &json!(true))
    );
    world.protect("cy").await;
    world.delete_oldest().await.problem(404, "not_found");
    world.assert_exactly(&["cy"]).await;
    world.delete_user("cy").await.with_status(200);
    world.delete_oldest().await.problem(404, "not_found");
    world.assert_exactly(&[]).await;

    // A user whom SnapTrade no longer has is deleted all the same.
    world.registered(&["dee"]).await;
    world
        .delete_behind_our_back(&world.upstream_id("dee").await)
        .await;
    let deleted = world.delete_user("dee").await.with_status(200);
    assert_eq!(deleted["upstream"], "unknown_there");
    world.assert_exactly(&[]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_new_secret_and_a_new_incarnation_take_no_other_place() {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    let before = world.upstream_id("ada").await;
    let reset = world.reset_secret("ada").await.with_status(200);
    assert_eq!(reset.body, json!({"user_id": "ada", "reset": true}));
    assert_eq!(world.upstream_id("ada").await, before);
    world.assert_secret_works("ada").await;

    let recreated = world.recreate("ada").await.with_status(201);
    assert_eq!(recreated["evicted"], Value::Null);
    assert_ne!(world.upstream_id("ada").await, before);
    world.assert_secret_works("ada").await;
    world.assert_exactly(&["ada", "bob"]).await;

    world.reset_secret("nobody").await.problem(404, "not_found");
    world.stop().await;
}

#[tokio::test]
async fn users_are_listed_oldest_first_in_parts() {
    let world = World::start().await;
    let names = ["eve", "dee", "cy", "bob", "ada"];
    world.registered(&names).await;
    let mut seen = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = world.users(&query).await.with_status(200);
        let users = page["data"].as_array().unwrap();
        assert!(users.len() <= 2);
        for user in users {
            assert_eq!(user["state"], "active");
            assert_eq!(user["protected"], false);
            assert_eq!(user["connections"], 0);
            let upstream = user["upstream_id"].as_str().unwrap();
            let name = user["user_id"].as_str().unwrap();
            assert!(upstream.starts_with(&format!("{name}~")), "{user}");
            seen.push(name.to_owned());
        }
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, names);
    // An age that an operator tells moves a user in the list.
    world
        .change_user("bob", json!({"created_at": "2001-02-03T04:05:06.789Z"}))
        .await
        .with_status(200);
    let first = &world.tracked().await[0];
    assert_eq!(
        (&first["user_id"], &first["created_at"]),
        (&json!("bob"), &json!("2001-02-03T04:05:06.789Z"))
    );
    world
        .change_user("nobody", json!({}))
        .await
        .problem(404, "not_found");
    world.stop().await;
}

#[tokio::test]
async fn a_change_by_an_operator_undoes_nothing_that_is_noted_of_the_user_meanwhile() {
    let world = World::start().await;
    world.without_events().await;
    world.registered(&["ada"]).await;
    let registered = world.tracked().await[0]["last_active_at"].clone();
    world.advance(60).await;
    // The change has been decided and is on its way to the table while Ada is seen.
    let slow = Fault::Slow(Duration::from_millis(800));
    world.dynamodb().fail_next_of("TransactWriteItems", 1, slow);
    let seen = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.connection_url("ada", json!({})).await
    };
    let change = json!({"protected": true, "created_at": "2020-01-01T00:00:00.000Z"});
    let (changed, seen) = tokio::join!(world.change_user("ada", change), seen);
    seen.with_status(200);
    let changed = changed.with_status(200);
    assert_eq!(
        (&changed["protected"], &changed["created_at"]),
        (&json!(true), &json!("2020-01-01T00:00:00.000Z"))
    );
    let ada = world.tracked().await[0].clone();
    assert_eq!(
        (&ada["protected"], &ada["created_at"]),
        (&changed["protected"], &changed["created_at"])
    );
    assert_ne!(ada["last_active_at"], registered, "that Ada was seen is lost");
    world.stop().await;
}

#[tokio::test]
async fn a_new_secret_undoes_nothing_that_is_noted_of_the_user_meanwhile() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    // SnapTrade takes a second to make the secret; a brokerage is connected meanwhile.
    let slow = json!({"operation": "resetUserSecret", "kind": "slow", "delay_ms": 1_500});
    world.sandbox("faults", slow).await;
    let connected = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.connect("ada").await;
        world.events_done().await;
    };
    let (reset, ()) = tokio::join!(world.reset_secret("ada"), connected);
    reset.with_status(200);
    assert_eq!(world.tracked().await[0]["connections"], 1);
    world.assert_secret_works("ada").await;
    world.stop().await;
}
