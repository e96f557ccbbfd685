//! Rules of the access sync that no other story tells of.

use berth_local::Fault;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Shop, day, end};

#[tokio::test]
async fn names_are_taken_from_where_they_stand_and_as_people_write_them() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, " @ada ", json!({})).await;
    shop.sell(2, 12, "https://www.tradingview.com/u/BOB/", json!({}))
        .await;
    // Where the first field holds nothing the next one does, and then the login at WordPress.
    shop.sell(3, 13, "", json!({"user": {"username": "cy"}})).await;
    shop.know(&["Ada", "Bob", "Cy", "member14"]).await;
    shop.sell(4, 14, "", json!({})).await;
    let report = shop.sync().await;
    assert_eq!(report["granted"], 4, "{}", report.text);
    let ends = json!({"Ada": end(30), "Bob": end(30), "Cy": end(30), "member14": end(30)});
    assert_eq!(shop.access("S1").await, ends);
    shop.world.stop().await;
}

#[tokio::test]
async fn the_plan_alone_counts_where_the_configuration_says_so() {
    let mut shop = Shop::with(json!({"policies": {"duration_source": "plan"}})).await;
    shop.sell(1, 11, "Ada", json!({"expires_at": day(90)})).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn the_shops_date_is_needed_where_the_configuration_says_so() {
    let mut shop = Shop::with(json!({"policies": {"duration_source": "source"}})).await;
    shop.sell(1, 11, "Ada", json!({"expires_at": day(31)})).await;
    shop.sell(2, 12, "Bob", json!({})).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(31)}));
    let reviews = shop.reviews().await;
    assert_eq!(
        (&reviews[0]["transaction_id"], &reviews[0]["reason"]),
        (&json!("2"), &json!("duration_mismatch"))
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn access_for_ever_that_was_given_by_hand_is_never_dated() {
    let mut shop = Shop::open().await;
    shop.sync().await;
    shop.give("S1", json!([{"username": "Ada", "expiration": null}]))
        .await;
    shop.sell(1, 11, "Ada", json!({})).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["not_applied"], &report["granted"], &report["extended"]),
        (&json!(1), &json!(0), &json!(0)),
        "{}",
        report.text
    );
    shop.change(1, json!({"status": "refunded"})).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": null}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_wrong_name_is_given_back_for_a_week_at_most() {
    let mut shop = Shop::open().await;
    shop.sync().await;
    shop.sell(1, 11, "Adda", json!({})).await;
    shop.sync().await;
    shop.advance_days(20).await;
    shop.change_member(11, json!({"user_meta": {"tradingview_username": "Ada"}}))
        .await;
    shop.sync().await;
    // The moments until the first run saw it count as ours.
    let access = shop.access("S1").await;
    let (ada, due) = (access["Ada"].as_str().unwrap(), end(37));
    assert_eq!(ada[..13], due.as_str().unwrap()[..13], "{access}");
    // The credit goes with its purchase.
    shop.change(1, json!({"status": "refunded"})).await;
    shop.sync().await;
    let reviews = shop.reviews().await;
    shop.decide(&reviews[0], json!({"action": "retry"})).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_subscription_that_stops_and_the_word_that_a_row_expired_change_nothing() {
    let mut shop = Shop::open().await;
    let subscribed = |ends: i64| json!({"subscription_id": "7", "expires_at": day(ends)});
    shop.sell(1, 11, "Ada", subscribed(30)).await;
    shop.advance_days(30).await;
    shop.sell(2, 11, "Ada", subscribed(60)).await;
    shop.sync().await;
    let before = shop.access("S1").await;
    assert_eq!(before, json!({"Ada": end(60)}));
    shop.change_member(11, json!({"subscription_status": "cancelled"}))
        .await;
    shop.forget_calls().await;
    for event in [
        "subscription-stopped",
        "subscription-paused",
        "transaction-expired",
    ] {
        let body = json!({"event": event, "type": "transaction", "data": {"id": 1, "status": "complete"}});
        let request = shop.world.request(Method::POST, "/api/access/webhook");
        let request = request.header("MEMBERPRESS-WEBHOOK-KEY", "sandbox-webhook-key");
        shop.world.send(request.json(&body)).await.with_status(202);
    }
    shop.sync().await;
    assert_eq!(shop.access("S1").await, before);
    for kind in ["/grant", "/update", "/remove"] {
        assert_eq!(shop.calls(kind).await, Vec::<Value>::new(), "{kind}");
    }
    shop.world.stop().await;
}

#[tokio::test]
async fn a_run_that_dies_after_its_call_is_finished_without_a_second() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({})).await;
    shop.sync().await;
    shop.advance_days(1).await;
    shop.sell(2, 11, "Ada", json!({"total": "5"})).await;
    shop.forget_calls().await;
    // The row and the intent are written; what came of the call is not, and neither that the run has ended.
    let slow = json!({"operation": "update", "kind": "slow", "times": 1, "delay_ms": 2_000});
    shop.outside(Method::POST, "/__sandbox/faults", slow).await;
    let dies = async {
        shop.wait_for_call("/update", 1).await;
        shop.world.dynamodb().fail_next(1_000, Fault::Error500);
    };
    let (died, ()) = tokio::join!(shop.operator(Method::POST, "/api/access/sync", json!({})), dies);
    died.problem(503, "unavailable");
    shop.world.clear_faults().await;
    // The call was made, and nobody noted it.
    assert_eq!(shop.access("S1").await, json!({"Ada": end(60)}));
    assert_eq!(shop.calls("/update").await.len(), 1);
    // Nobody else is at it once the lease of the run is over.
    shop.world.advance(300).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(60)}));
    assert_eq!(shop.calls("/update").await.len(), 1);
    shop.world.stop().await;
}

#[tokio::test]
async fn a_mail_server_that_is_down_keeps_nobody_from_access() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "nobody", json!({})).await;
    shop.sell(2, 12, "Bob", json!({})).await;
    shop.fail_with("mail", 451, 100).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["manual_review"], &report["mails"]),
        (&json!(1), &json!(1), &json!(0)),
        "{}",
        report.text
    );
    shop.heal().await;
    shop.world.advance(600).await;
    shop.fire("access-sync").await;
    let mails = shop.mails().await;
    let to_customer = mails
        .iter()
        .filter(|mail| mail["to"].to_string().contains("11@example.com"));
    assert_eq!(to_customer.count(), 1, "{mails:?}");
    shop.world.stop().await;
}

#[tokio::test]
async fn users_whom_nobody_here_knows_are_named_and_left_alone() {
    let mut shop = Shop::open().await;
    let strangers =
        json!([{"username": "Stranger", "expiration": end(90)}, {"username": "Other", "expiration": null}]);
    shop.give("S1", strangers).await;
    shop.sell(1, 11, "Ada", json!({})).await;
    shop.sync().await;
    let report = shop
        .operator(Method::POST, "/api/access/repair", json!({}))
        .await
        .with_status(200);
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("not managed here") && warnings.contains("stranger"),
        "{}",
        report.text
    );
    let ends = json!({"Ada": end(30), "Stranger": end(90), "Other": null});
    assert_eq!(shop.access("S1").await, ends);
    shop.world.stop().await;
}

#[tokio::test]
async fn a_shop_that_never_had_a_row_may_have_none() {
    let shop = Shop::open().await;
    for _ in 0..2 {
        let report = shop.sync().await;
        assert_eq!(
            (&report["status"], &report["fetched"], &report["complete"]),
            (&json!("ok"), &json!(0), &json!(true)),
            "{}",
            report.text
        );
        shop.advance_days(1).await;
    }
    shop.world.stop().await;
}

#[tokio::test]
async fn access_that_nobody_renews_ends_by_itself() {
    let mut shop = Shop::open().await;
    shop.sell(
        1,
        11,
        "Ada",
        json!({"subscription_id": "7", "expires_at": day(30)}),
    )
    .await;
    shop.sync().await;
    // Nobody renews: access ends by itself, and nothing is removed.
    shop.advance_days(40).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["revoked"], &report["active_users"]),
        (&json!(0), &json!(0)),
        "{}",
        report.text
    );
    assert_eq!(shop.calls("/remove").await, Vec::<Value>::new());
    shop.world.stop().await;
}

#[tokio::test]
async fn of_many_active_users_only_a_twentieth_may_lose_access_in_a_run() {
    let mut shop = Shop::open().await;
    let names: Vec<String> = (1..=40).map(|number| format!("user{number}")).collect();
    shop.know(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    for (id, name) in (1..).zip(&names) {
        shop.sell(id, id, name, json!({})).await;
    }
    shop.sync().await;
    for id in 1..=5 {
        shop.change(id, json!({"status": "refunded"})).await;
    }
    let report = shop.sync().await;
    assert_eq!(
        (&report["revoked"], &report["open"]["held"]),
        (&json!(2), &json!(3)),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S1").await.as_object().unwrap().len(), 38);
    shop.world.stop().await;
}
