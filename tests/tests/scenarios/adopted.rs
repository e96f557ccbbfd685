//! Users whom SnapTrade knows and of whom no secret is here: after a lost table, or registered elsewhere.

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn after_a_lost_table_users_are_adopted_and_registering_replaces_them_in_place() {
    let world = World::with_limit(3).await;
    world.registered(&["ada", "bob", "cy"]).await;
    let before = world.at_snaptrade().await;
    world.lose_the_table().await;
    let report = world.sync().await.with_status(200);
    assert_eq!(
        (
            &report["added"],
            &report["upstream_count"],
            &report["tracked_count"]
        ),
        (&json!(3), &json!(3), &json!(3))
    );
    let tracked = world.tracked().await;
    for (user, (name, upstream)) in tracked.iter().zip(["ada", "bob", "cy"].iter().zip(&before)) {
        assert_eq!(
            user["user_id"], *name,
            "the order of the list is the order of age"
        );
        assert_eq!(user["upstream_id"], *upstream);
        assert_eq!(user["state"], "adopted");
    }
    assert_eq!(world.status("ada").await["registered"], false);
    world.assert_exactly(&["ada", "bob", "cy"]).await;

    let answer = world.register("ada").await.with_status(201);
    assert_eq!(answer["evicted"], Value::Null);
    assert_eq!(answer["slots"], json!({"in_use": 3, "limit": 3}));
    world.assert_exactly(&["ada", "bob", "cy"]).await;
    assert!(!before.contains(&world.upstream_id("ada").await));
    world.assert_secret_works("ada").await;
    // Bob and Cy are older now, and may give way though nothing can be signed for them.
    let answer = world.register_for("dee").await.with_status(201);
    assert_eq!(answer["evicted"]["user_id"], "bob");
    world.assert_exactly(&["ada", "cy", "dee"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_registration_that_finds_the_table_lost_counts_first() {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    world.lose_the_table().await;
    let answer = world.register_for("cy").await.with_status(201);
    assert_eq!(answer["evicted"]["user_id"], "ada");
    world.assert_exactly(&["bob", "cy"]).await;
    let answer = world.register("bob").await.with_status(201);
    assert_eq!(answer["evicted"], Value::Null);
    world.assert_exactly(&["bob", "cy"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_user_registered_elsewhere_stays_until_an_operator_recreates_it() {
    let world = World::start().await;
    world.register_behind_our_back("ada").await;
    assert_eq!(world.operators_status().await["unknown"], json!(["ada"]));
    let report = world.sync().await.with_status(200);
    assert_eq!(report["added"], 1);
    let user = world.tracked().await[0].clone();
    assert_eq!(
        (&user["user_id"], &user["upstream_id"], &user["state"]),
        (&json!("ada"), &json!("ada"), &json!("adopted"))
    );
    world.assert_exactly(&["ada"]).await;

    world.register("ada").await.problem(409, "user_exists_upstream");
    world.assert_exactly(&["ada"]).await;
    let answer = world.recreate("ada").await.with_status(201);
    assert_eq!(answer["slots"]["in_use"], 1);
    world.assert_exactly(&["ada"]).await;
    assert!(world.upstream_id("ada").await.starts_with("ada~"));
    world.assert_secret_works("ada").await;
    world.stop().await;
}

#[tokio::test]
async fn operators_add_users_that_snaptrade_knows_with_their_age() {
    let world = World::with_limit(2).await;
    world.registered(&["ada"]).await;
    world.register_behind_our_back("old").await;
    let age = "2020-01-02T03:04:05Z";
    let body = json!({"user_id": "old", "created_at": age, "protected": false});
    let added = world.add_user(body.clone()).await.with_status(201);
    assert_eq!(
        (&added["user_id"], &added["state"]),
        (&json!("old"), &json!("adopted"))
    );
    world.add_user(body).await.with_status(200);
    world
        .add_user(json!({"user_id": "nobody"}))
        .await
        .problem(404, "not_found");
    world.assert_exactly(&["old", "ada"]).await;
    let answer = world.register_for("bob").await.with_status(201);
    assert_eq!(answer["evicted"]["user_id"], "old");
    world.assert_exactly(&["ada", "bob"]).await;
    world.stop().await;
}
