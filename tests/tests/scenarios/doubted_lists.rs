//! Lists that cannot be true: empty, far shorter than the last, unreadable, or never complete.

use serde_json::{Value, json};

use crate::world::World;

const USERS: [&str; 4] = ["ada", "bob", "cy", "dee"];

/// A world with four users, one stranger, and a sync that has seen them all.
async fn with_five_at_snaptrade() -> World {
    let world = World::with_limit(5).await;
    world.without_events().await;
    world.registered(&USERS).await;
    world.register_behind_our_back("stranger").await;
    let report = world.sync().await.with_status(200);
    assert_eq!(
        (&report["upstream_count"], &report["complete"]),
        (&json!(5), &json!(true))
    );
    world
}

#[tokio::test]
async fn an_empty_list_removes_nobody_until_another_one_a_minute_later_agrees() {
    let world = with_five_at_snaptrade().await;
    // SnapTrade forgets everybody, and with them that it sends no events.
    world.sandbox("reset", json!({})).await;
    world.without_events().await;
    for wait in [0, 30] {
        world.advance(wait).await;
        let report = world.sync().await.with_status(200);
        assert_eq!(
            (&report["removed"], &report["upstream_count"], &report["complete"]),
            (&json!(0), &json!(0), &json!(false)),
            "{}",
            report.text
        );
        assert_eq!(report["tracked_count"], 5);
    }
    // A newcomer during that time is served as ever, and is no reason to believe the list.
    let answer = world.register_for("eve").await.with_status(201);
    assert_eq!(answer["evicted"]["user_id"], "ada");
    let report = world.sync().await.with_status(200);
    assert_eq!(
        (&report["removed"], &report["complete"]),
        (&json!(0), &json!(false))
    );
    assert_eq!(world.tracked().await.len(), 5);
    // The list has Eve alone now: it is another list, which has to be confirmed anew.
    world.advance(61).await;
    let report = world.sync().await.with_status(200);
    assert_eq!(report["removed"], 3, "{}", report.text);
    world.advance(61).await;
    world.sync().await.with_status(200);
    world.assert_exactly(&["eve"]).await;
    world.assert_secret_works("eve").await;
    world.stop().await;
}

#[tokio::test]
async fn a_list_that_is_empty_only_once_has_no_effect_at_all() {
    let world = with_five_at_snaptrade().await;
    let before = world.tracked().await;
    for kind in ["malformed", "status"] {
        world.fault("listUsers", kind, 1).await;
        world.sync().await.problem(502, "upstream_error");
        assert_eq!(world.tracked().await, before, "{kind}");
        assert_eq!(world.operators_status().await["current_count"], 5);
    }
    let report = world.sync().await.with_status(200);
    assert_eq!(
        (&report["removed"], &report["complete"]),
        (&json!(0), &json!(true))
    );
    world.stop().await;
}

#[tokio::test]
async fn a_first_list_that_fails_half_way_opens_nothing_and_the_next_one_does() {
    let world = World::with_limit(3).await;
    world.registered(&["ada", "bob"]).await;
    world.lose_the_table().await;
    // The first list is answered, late, and the one that has to agree with it is not readable.
    world
        .sandbox(
            "faults",
            json!({"operation": "listUsers", "kind": "slow", "delay_ms": 1}),
        )
        .await;
    world.fault("listUsers", "malformed", 1).await;
    world.register("cy").await.problem(502, "upstream_error");
    assert!(world.tracked().await.is_empty());
    let answer = world.register("cy").await.with_status(201);
    assert_eq!(
        (&answer["evicted"], &answer["slots"]["in_use"]),
        (&Value::Null, &json!(3))
    );
    world.assert_exactly(&["ada", "bob", "cy"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_user_who_is_not_listed_and_whose_secret_works_stays() {
    let world = World::start().await;
    world.without_events().await;
    world.registered(&["ada"]).await;
    // Nobody was ever listed, so an empty list is not shorter than the last; it is doubted all the same.
    world.sandbox("reset", json!({})).await;
    world.without_events().await;
    let report = world.sync().await.with_status(200);
    assert_eq!(
        (&report["removed"], &report["complete"]),
        (&json!(0), &json!(false))
    );
    world.advance(61).await;
    let report = world.sync().await.with_status(200);
    assert_eq!(report["removed"], 1);
    world.assert_exactly(&[]).await;
    world.stop().await;
}
