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

#[tokio::test]
async fn of_several_listed_ids_of_one_user_each_can_be_found_and_the_right_one_gives_way() {
    let world = World::with_limit(3).await;
    let (first, second) = ("ada~aaaaaaaaaaaa", "ada~bbbbbbbbbbbb");
    world.register_behind_our_back(first).await;
    world.register_behind_our_back(second).await;
    world.sync().await.with_status(200);
    assert_eq!(world.tracked().await.len(), 2);
    // Registering takes the place of one of them, and leaves the other alone.
    let answer = world.register("ada").await.with_status(201);
    assert_eq!(
        (&answer["evicted"], &answer["slots"]["in_use"]),
        (&Value::Null, &json!(2))
    );
    world.protect("ada").await;
    let listed = world.at_snaptrade().await;
    assert!(
        listed.contains(&second.to_owned()) && !listed.contains(&first.to_owned()),
        "{listed:?}"
    );
    // The oldest is the one that is left of them, not the user who goes by the same name.
    world.delete_oldest().await.with_status(200);
    assert_eq!(world.at_snaptrade().await, [world.upstream_id("ada").await]);
    world.assert_exactly(&["ada"]).await;
    world.assert_secret_works("ada").await;
    world.stop().await;
}

#[tokio::test]
async fn an_operator_reaches_an_adopted_user_whose_own_id_is_hidden() {
    let world = World::start().await;
    world.registered(&["ada@example.com", "bob"]).await;
    world.lose_the_table().await;
    world.sync().await.with_status(200);
    let hidden = world.tracked().await[0].clone();
    let (shown, upstream) = (
        hidden["user_id"].as_str().unwrap(),
        hidden["upstream_id"].as_str().unwrap(),
    );
    assert!(!shown.contains("ada"), "{shown}");
    let changed = world
        .change_user(shown, json!({"protected": true}))
        .await
        .with_status(200);
    assert_eq!(changed["protected"], true);
    // The oldest is protected now, so the next one goes.
    world.delete_oldest().await.with_status(200);
    world
        .change_user(upstream, json!({"protected": false}))
        .await
        .with_status(200);
    world.delete_user(upstream).await.with_status(200);
    assert!(world.at_snaptrade().await.is_empty());
    assert!(world.tracked().await.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn adding_a_user_to_a_lost_table_says_that_it_is_new() {
    let world = World::start().await;
    world.registered(&["ada", "bob"]).await;
    world.lose_the_table().await;
    world.add_user(json!({"user_id": "ada"})).await.with_status(201);
    world.add_user(json!({"user_id": "ada"})).await.with_status(200);
    world.assert_exactly(&["ada", "bob"]).await;
    world.stop().await;
}

#[tokio::test]
async fn nobody_can_be_recreated_whom_neither_snaptrade_nor_tracking_knows() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    world.recreate("nobody").await.problem(404, "not_found");
    // One that SnapTrade has and tracking has not seen yet can be.
    world.register_behind_our_back("grace").await;
    world.recreate("grace").await.with_status(201);
    world.assert_exactly(&["ada", "grace"]).await;
    world.assert_secret_works("grace").await;
    world.stop().await;
}
