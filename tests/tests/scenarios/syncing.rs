//! What the sync puts right.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn a_sync_with_nothing_to_do_says_so_and_changes_no_user() {
    let world = World::start().await;
    world.registered(&["ada", "bob"]).await;
    for _ in 0..2 {
        let report = world.sync().await.with_status(200);
        assert_eq!(
            report.body,
            json!({"added": 0, "removed": 0, "repaired": 0, "upstream_count": 2, "tracked_count": 2, "complete": true})
        );
    }
    world.assert_exactly(&["ada", "bob"]).await;
    for user in ["ada", "bob"] {
        world.assert_secret_works(user).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_user_deleted_behind_our_back_is_removed_and_its_place_is_free() {
    let world = World::with_limit(3).await;
    world.registered(&["ada", "bob", "cy"]).await;
    world
        .delete_behind_our_back(&world.upstream_id("bob").await)
        .await;
    assert_eq!(world.operators_status().await["missing"], json!(["bob"]));
    world.sync().await.with_status(200);
    world.assert_exactly(&["ada", "cy"]).await;
    let answer = world.register("dee").await.with_status(201);
    assert_eq!(answer["evicted"], json!(null));
    let answer = world.register("bob").await.with_status(201);
    assert_eq!(answer["evicted"]["reason"], "oldest");
    world.assert_exactly(&["bob", "cy", "dee"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_list_that_shrank_by_more_than_half_is_believed_when_another_agrees() {
    let world = World::start().await;
    let users = ["ada", "bob", "cy", "dee", "eve"];
    // Webhooks would tell of each deletion; what is shown here is what the list alone leads to.
    world.without_events().await;
    world.registered(&users).await;
    // The first run remembers how long the list is.
    world.sync().await.with_status(200);
    for user in &users[..4] {
        world.delete_behind_our_back(&world.upstream_id(user).await).await;
    }
    let report = world.sync().await.with_status(200);
    assert_eq!(report["removed"], 0, "{}", report.text);
    assert_eq!(world.tracked().await.len(), 5);
    world.advance(30).await;
    let report = world.sync().await.with_status(200);
    assert_eq!(
        report["removed"], 0,
        "the second list is too close: {}",
        report.text
    );
    world.advance(61).await;
    let report = world.sync().await.with_status(200);
    assert_eq!(report["removed"], 4, "{}", report.text);
    world.assert_exactly(&["eve"]).await;
    world.stop().await;
}

#[tokio::test]
async fn strangers_are_added_even_above_the_limit_and_then_give_way() {
    let world = World::with_limit(2).await;
    for user in ["s1", "s2", "s3"] {
        world.register_behind_our_back(user).await;
    }
    let report = world.sync().await.with_status(200);
    assert_eq!((&report["added"], &report["complete"]), (&json!(3), &json!(true)));
    world.assert_exactly(&["s1", "s2", "s3"]).await;
    let status = world.operators_status().await;
    assert_eq!(
        (&status["at_limit"], &status["available"]),
        (&json!(true), &json!(0))
    );
    world.register("ada").await.with_status(201);
    world.settle().await;
    let at_snaptrade = world.at_snaptrade().await.len();
    assert!(at_snaptrade <= 3, "nobody gave way");
    assert_eq!(world.tracked().await.len(), at_snaptrade);
    world.assert_secret_works("ada").await;
    world.stop().await;
}

#[tokio::test]
async fn a_user_that_was_deleted_and_is_listed_again_is_no_stranger() {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    // SnapTrade takes its time to delete, and lists the user meanwhile.
    world
        .sandbox("settings", json!({"delete_delay_ms": 30_000}))
        .await;
    world.register("cy").await.with_status(201);
    let report = world.sync().await.with_status(200);
    assert_eq!(report["added"], 0, "{}", report.text);
    assert_eq!(world.tracked().await.len(), 2);
    world.advance(31).await;
    world.settle().await;
    world.assert_exactly(&["bob", "cy"]).await;
    world.stop().await;
}

#[tokio::test]
async fn the_schedule_does_the_same_and_two_syncs_at_once_do_no_harm() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    for user in ["s1", "s2"] {
        world.register_behind_our_back(user).await;
    }
    let fired = world.request(reqwest::Method::POST, "/__local/schedules/connection-sync");
    let (by_schedule, first, second) = tokio::join!(fired.send(), world.sync(), world.sync());
    assert_eq!(by_schedule.unwrap().status(), 200);
    for answer in [first, second] {
        if answer.status != 200 {
            answer.problem(409, "operation_in_progress");
        }
    }
    world.assert_exactly(&["ada", "s1", "s2"]).await;
    world.stop().await;
}
