//! An id that SnapTrade refuses for certain to delete.

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn a_place_that_cannot_be_cleared_holds_up_no_newcomer_and_the_sync_tries_again() {
    let world = World::with_limit(2).await;
    world.without_events().await;
    world.registered(&["ada", "bob"]).await;
    let ada = world.upstream_id("ada").await;
    // Whether Ada was deleted is not known, so she has given way for good and Cy's place waits for her.
    world.fail_with("deleteUser", 503, 3).await;
    world.register("cy").await.problem(502, "upstream_error");
    // Now SnapTrade says for certain that it does not delete her.
    world.fail_with("deleteUser", 403, 1).await;
    let answer = world.register_for("dee").await.with_status(201);
    assert_eq!(answer["evicted"]["user_id"], "bob");
    // She still takes a place, and the next newcomers do not run into her.
    let (answer, cost) = world.cost(world.register_for("eve")).await;
    assert_eq!(answer.with_status(201)["evicted"]["user_id"], "dee");
    assert_eq!(cost.snaptrade, 2, "one deletion and one registration");
    let status = world.operators_status().await.with_status(200);
    assert_eq!(
        (&status["current_count"], &status["at_limit"]),
        (&json!(2), &json!(true))
    );
    let leaving: Vec<_> = world.tracked().await;
    let aside = leaving.iter().find(|user| user["state"] == "leaving").unwrap();
    assert_eq!(aside["user_id"], "ada");
    let mut listed = world.at_snaptrade().await;
    listed.sort_unstable();
    assert_eq!(listed, [ada.clone(), world.upstream_id("eve").await]);

    // The sync tries again, in vain, and then with success.
    world.fail_with("deleteUser", 403, 1).await;
    let report = world.sync().await.with_status(200);
    assert_eq!(
        (&report["repaired"], &report["complete"]),
        (&json!(0), &json!(false))
    );
    world.settle().await;
    world.assert_exactly(&["eve"]).await;
    // Cy was never lost on the way: nobody has to give way for her now.
    let answer = world.register("cy").await.with_status(201);
    assert_eq!(answer["evicted"], Value::Null);
    world.assert_exactly(&["cy", "eve"]).await;
    world.stop().await;
}

#[tokio::test]
async fn the_one_whose_place_cannot_be_cleared_is_registered_all_the_same() {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    world.fail_with("deleteUser", 503, 3).await;
    world.register("cy").await.problem(502, "upstream_error");
    world.fail_with("deleteUser", 403, 1).await;
    let answer = world.register_for("cy").await.with_status(201);
    assert_eq!(answer["evicted"]["user_id"], "bob");
    world.assert_secret_works("cy").await;
    world.settle().await;
    world.assert_exactly(&["cy"]).await;
    world.stop().await;
}

#[tokio::test]
async fn where_snaptrade_lets_nobody_go_everybody_stays_and_the_newcomer_learns_that_it_was_snaptrade() {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    world.fail_with("deleteUser", 403, 100).await;
    for _ in 0..3 {
        world.register("cy").await.problem(502, "upstream_error");
        world.hold("dee").await.problem(502, "upstream_error");
    }
    world.assert_exactly(&["ada", "bob"]).await;
    // A user who is deleted by an operator keeps the place until SnapTrade lets it go.
    world.delete_user("ada").await.problem(502, "upstream_error");
    assert_eq!(world.operators_status().await["current_count"], 2);
    world.register("cy").await.problem(502, "upstream_error");
    world.settle().await;
    world.assert_exactly(&["bob"]).await;
    world.stop().await;
}
