//! What crosses: a change of mind, a refund or another customer while something is under way.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Shop, day, end};

fn named(name: &str) -> Value {
    json!({"user_meta": {"tradingview_username": name}})
}

#[tokio::test]
async fn somebody_who_goes_back_to_the_old_name_before_the_move_is_done_keeps_access() {
    let mut shop = Shop::open().await;
    shop.know(&["Ada", "Ada2"]).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sync().await;
    shop.change_member(11, named("Ada2")).await;
    shop.fail_with("grant", 500, 50).await;
    shop.sync().await;
    shop.heal().await;
    shop.change_member(11, named("Ada")).await;
    for _ in 0..3 {
        shop.sync().await;
        shop.advance_days(1).await;
    }
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_move_that_fails_is_tried_again_by_the_schedule_and_not_in_every_run() {
    let mut shop = Shop::open().await;
    shop.know(&["Ada", "Ada2", "Ada3"]).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sync().await;
    // The new name has access, and the old one cannot be freed of it.
    shop.change_member(11, named("Ada2")).await;
    shop.fail_with("remove", 500, 50).await;
    shop.sync().await;
    shop.forget_calls().await;
    shop.sync().await;
    assert_eq!(shop.calls("/remove").await, Vec::<Value>::new());
    // Another move does not let it be forgotten.
    shop.change_member(11, named("Ada3")).await;
    shop.sync().await;
    shop.heal().await;
    shop.advance_days(2).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada3": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_refund_that_comes_while_a_grant_is_unknown_is_taken_back_all_the_same() {
    let mut shop = Shop::with(json!({"tradingview": {"timeout": 1, "max_retries": 0}})).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    // The grant takes effect, and neither its answer nor the look at what came of it arrives.
    shop.fault("grant", "commit_then_timeout", 1).await;
    let list = json!({"operation": "list", "kind": "status", "status": 500, "times": 50});
    shop.sync_until_listed(list).await;
    shop.heal().await;
    shop.change(1, json!({"status": "refunded"})).await;
    for _ in 0..3 {
        shop.advance_days(1).await;
        shop.sync().await;
    }
    assert_eq!(shop.access("S1").await, json!({}));
    shop.world.stop().await;
}

#[tokio::test]
async fn another_customers_grant_settles_nothing_for_who_has_left_the_name() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sell(2, 12, "Ada", json!({"created_at": day(0)})).await;
    shop.sync().await;
    shop.advance_days(1).await;
    shop.sell(3, 11, "Ada", json!({"created_at": day(1), "total": "3"}))
        .await;
    shop.sell(4, 12, "Ada (tv)", json!({"created_at": day(1), "total": "4"}))
        .await;
    shop.change_member(12, named("Ada (tv)")).await;
    let report = shop.sync().await;
    assert_eq!(report["manual_review"], 1, "{}", report.text);
    shop.change_member(12, named("Bob")).await;
    shop.sync().await;
    let access = shop.access("S1").await;
    assert!(
        access["Bob"].as_str().unwrap() >= end(60).as_str().unwrap(),
        "{access}"
    );
    assert_eq!(access["Ada"], end(60));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_question_about_the_name_decides_nothing_about_a_refund_that_waits() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sync().await;
    shop.advance_days(16).await;
    shop.change(1, json!({"status": "refunded"})).await;
    shop.sync().await;
    shop.change_member(11, named("Addda")).await;
    shop.sync().await;
    let report = shop.sync().await;
    assert_eq!(report["open"]["held"], 1, "{}", report.text);
    shop.change_member(11, named("Ada")).await;
    let report = shop.sync().await;
    assert_eq!(report["open"]["held"], 1, "{}", report.text);
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn an_approved_refund_of_what_was_bought_before_berth_is_taken_off_the_baseline() {
    let mut shop = Shop::open().await;
    shop.give("S1", json!([{"username": "Ada", "expiration": end(40)}]))
        .await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(-20)})).await;
    shop.sync().await;
    shop.change(1, json!({"status": "refunded"})).await;
    shop.advance_days(1).await;
    shop.sync().await;
    let review = shop.reviews().await[0].clone();
    shop.decide(&review, json!({"action": "retry"})).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(10)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_hint_that_cannot_be_followed_does_not_keep_the_shop_from_being_read() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    let body = json!({"event": "transaction-completed", "data": {"id": 777}});
    let request = shop
        .world
        .request(Method::POST, "/api/access/webhook")
        .json(&body);
    let request = request.header("MEMBERPRESS-WEBHOOK-KEY", "sandbox-webhook-key");
    shop.world.send(request).await.with_status(202);
    let report = shop.sync().await;
    assert_eq!(report["granted"], 1, "{}", report.text);
    shop.world.stop().await;
}

#[tokio::test]
async fn a_plan_shows_the_name_that_is_left_and_tells_nobody_anything() {
    let mut shop = Shop::open().await;
    shop.know(&["Ada", "Ada2"]).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sync().await;
    shop.change_member(11, named("Ada2")).await;
    let plan = shop
        .operator(Method::GET, "/api/access/plan", json!({}))
        .await
        .with_status(200);
    let planned = plan["plan"].as_array().unwrap();
    let shown: Vec<(&Value, &Value)> = planned
        .iter()
        .map(|action| (&action["username"], &action["action"]))
        .collect();
    assert_eq!(
        shown,
        [
            (&json!("Ada"), &json!("remove")),
            (&json!("Ada2"), &json!("grant"))
        ],
        "{}",
        plan.text
    );
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    let path = format!("/api/access/plans/{}/approve", plan["id"].as_str().unwrap());
    shop.operator(Method::POST, &path, json!({}))
        .await
        .with_status(200);
    assert_eq!(shop.access("S1").await, json!({"Ada2": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn after_the_row_that_named_the_customer_is_deleted_the_one_before_it_does() {
    let mut shop = Shop::open().await;
    for id in 21..=24 {
        shop.sell(id, id, "Cy", json!({})).await;
    }
    shop.sell(1, 11, "Ada", json!({"user_email": "ada@example.com"}))
        .await;
    shop.world.advance(3_600).await;
    shop.sell(
        2,
        11,
        "Bob",
        json!({"user_email": "bob@example.com", "total": "5"}),
    )
    .await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await["Bob"], end(60));
    shop.forget(2).await;
    shop.advance_days(1).await;
    shop.sync().await;
    shop.sync().await;
    let access = shop.access("S1").await;
    assert_eq!(
        (&access["Ada"], &access["Bob"]),
        (&end(30), &Value::Null),
        "{access}"
    );
    let data = shop
        .operator(Method::GET, "/api/access/scripts/S1", json!({}))
        .await
        .with_status(200);
    assert_eq!(data["users"]["Ada"]["email"], "ada@example.com", "{}", data.text);
    shop.world.stop().await;
}
