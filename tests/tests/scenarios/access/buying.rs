//! What is bought becomes access, exactly as long as it was paid for.

use serde_json::{Value, json};

use super::{Shop, day, end};

#[tokio::test]
async fn a_purchase_becomes_access_and_a_second_run_does_nothing() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, " @ada ", json!({})).await;
    let report = shop.sync().await;
    assert_eq!(
        (
            &report["fetched"],
            &report["considered"],
            &report["granted"],
            &report["settled"]
        ),
        (&json!(1), &json!(1), &json!(1), &json!(1)),
        "{}",
        report.text
    );
    assert_eq!(
        (&report["complete"], &report["status"], &report["active_users"]),
        (&json!(true), &json!("ok"), &json!(1))
    );
    let access = shop.access("S1").await;
    assert!(
        access["Ada"].as_str().unwrap().starts_with("2026-02-09T12:00:0"),
        "{access}"
    );
    let grant = &shop.calls("/grant").await[0]["body"];
    for (name, value) in [
        ("scriptId", "S1"),
        ("username", "Ada"),
        ("email", "11@example.com"),
        ("subscription_type", "monthly"),
        ("wp_username", "member11"),
        ("remarks", "paid"),
    ] {
        assert_eq!(grant[name], value, "{grant}");
    }

    shop.forget_calls().await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["considered"], &report["granted"], &report["settled"]),
        (&json!(0), &json!(0), &json!(0))
    );
    for kind in ["validate", "grant", "update", "scriptUsers"] {
        assert_eq!(shop.calls(kind).await, Vec::<Value>::new());
    }
    shop.world.stop().await;
}

#[tokio::test]
async fn renewals_follow_the_shops_own_dates_and_never_drift() {
    let mut shop = Shop::open().await;
    let renewal = |created: i64, ends: i64| json!({"subscription_id": "7", "created_at": day(created), "expires_at": day(ends)});
    shop.sell(1, 11, "Ada", renewal(0, 31)).await;
    shop.sync().await;
    // Paid three days early, and one day late.
    shop.advance_days(28).await;
    shop.sell(2, 11, "Ada", renewal(28, 59)).await;
    let report = shop.sync().await;
    assert_eq!(report["extended"], 1, "{}", report.text);
    assert_eq!(shop.access("S1").await, json!({"Ada": end(59)}));
    shop.advance_days(32).await;
    shop.sell(3, 11, "Ada", renewal(60, 90)).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(90)}));
    assert_eq!(shop.calls("/update").await.len(), 2);
    shop.world.stop().await;
}

#[tokio::test]
async fn single_purchases_are_stacked_in_any_order_of_coming_to_light() {
    let mut shop = Shop::open().await;
    shop.sell(2, 11, "Ada", json!({"created_at": day(-5), "total": "20"}))
        .await;
    shop.sync().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(-6), "total": "30"}))
        .await;
    shop.sync().await;
    // Sixty days from the first purchase, though it was seen last.
    assert_eq!(shop.access("S1").await, json!({"Ada": end(54)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_bundle_opens_all_its_scripts() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"product_id": 200, "created_at": day(0)}))
        .await;
    let report = shop.sync().await;
    assert_eq!(report["granted"], 2, "{}", report.text);
    let year = json!({"Ada": "2027-01-10T12:00:00Z"});
    assert_eq!(
        (shop.access("S1").await, shop.access("S2").await),
        (year.clone(), year)
    );
    assert_eq!(shop.calls("validate").await.len(), 1);
    shop.world.stop().await;
}

#[tokio::test]
async fn a_trial_lasts_to_its_own_end_and_its_payment_is_not_added_to_it() {
    let mut shop = Shop::open().await;
    let trial = json!({"txn_type": "subscription_confirmation", "status": "confirmed", "amount": "0.00", "total": "0.00",
        "subscription_id": "7", "created_at": day(0), "expires_at": day(7)});
    shop.sell(1, 11, "Ada", trial).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(7)}));
    shop.advance_days(7).await;
    shop.sell(
        2,
        11,
        "Ada",
        json!({"subscription_id": "7", "created_at": day(7), "expires_at": day(37)}),
    )
    .await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(37)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_lifetime_is_for_ever_where_the_product_says_so_and_looked_at_where_not() {
    let mut shop = Shop::open().await;
    let never = "0000-00-00 00:00:00";
    shop.sell(1, 11, "Ada", json!({"product_id": 300, "expires_at": never}))
        .await;
    shop.sell(2, 12, "Bob", json!({"expires_at": never})).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["manual_review"]),
        (&json!(1), &json!(1)),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S3").await, json!({"Ada": null}));
    assert_eq!(shop.access("S1").await, json!({}));
    let review = &shop.reviews().await[0];
    assert_eq!(
        (&review["reason"], &review["transaction_id"], &review["person"]),
        (&json!("unexpected_lifetime"), &json!("2"), &json!(12))
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn what_there_was_before_is_kept_as_a_baseline_and_added_to() {
    let mut shop = Shop::open().await;
    shop.give("S1", json!([{"username": "Ada", "expiration": end(10)}, {"username": "Bob", "expiration": null}, {"username": "Zed", "expiration": end(5)}])).await;
    shop.sell(1, 11, "ada", json!({"created_at": day(-20)})).await;
    let report = shop.sync().await;
    assert_eq!(
        report["ignored"],
        json!({"before_baseline": 1}),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S1").await["Ada"], end(10));
    shop.advance_days(1).await;
    shop.sell(2, 11, "ada", json!({"created_at": day(1), "total": "50"}))
        .await;
    shop.sell(3, 12, "Bob", json!({"created_at": day(1)})).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["extended"], &report["not_applied"]),
        (&json!(1), &json!(1)),
        "{}",
        report.text
    );
    assert_eq!(
        shop.access("S1").await,
        json!({"Ada": end(40), "Bob": null, "Zed": end(5)})
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn more_that_was_given_by_hand_is_added_to_and_less_is_left_until_it_is_repaired() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sell(2, 12, "Bob", json!({"created_at": day(0)})).await;
    shop.sync().await;
    shop.give("S1", json!([{"username": "Ada", "expiration": end(70)}]))
        .await;
    shop.advance_days(1).await;
    shop.sell(3, 11, "Ada", json!({"created_at": day(1), "total": "50"}))
        .await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(100)}));
    let repaired = shop
        .operator(reqwest::Method::POST, "/api/access/repair", json!({}))
        .await
        .with_status(200);
    assert_eq!(repaired["granted"], 1, "{}", repaired.text);
    assert_eq!(shop.access("S1").await, json!({"Ada": end(100), "Bob": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn rows_that_give_nothing_are_counted_by_their_reasons() {
    let mut shop = Shop::open().await;
    for (id, change) in [
        (1, json!({"status": "pending"})),
        (2, json!({"status": "failed"})),
        (3, json!({"txn_type": "fallback"})),
        (4, json!({"txn_type": "sub_account"})),
        (5, json!({"product_id": 999})),
        (6, json!({"status": "refunded"})),
        (7, json!({"gateway": "free", "amount": "0.00", "total": "0.00"})),
    ] {
        shop.sell(id, 10 + id, "Ada", change).await;
    }
    let report = shop.sync().await;
    let expected = json!({"pending": 1, "failed": 1, "fallback": 1, "sub_account": 1, "unmapped_product": 1,
        "refunded_before_grant": 1, "comp": 1});
    assert_eq!(report["ignored"], expected);
    assert_eq!(shop.access("S1").await, json!({}));
    assert_eq!(shop.calls("validate").await.len(), 0);
    shop.world.stop().await;
}

#[tokio::test]
async fn two_people_with_one_name_have_the_later_end_and_a_refund_of_one_keeps_the_other() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sell(2, 12, "ADA", json!({"created_at": day(-10)})).await;
    let report = shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    assert!(
        report["warnings"].to_string().contains("several customers"),
        "{}",
        report.text
    );
    let data = (shop.operator(reqwest::Method::GET, "/api/access/scripts/S1", json!(null))).await;
    assert_eq!(data["users"]["Ada"]["expiry"], end(30), "{}", data.text);
    shop.change(1, json!({"status": "refunded"})).await;
    let report = shop.sync().await;
    assert_eq!(report["shortened"], 1, "{}", report.text);
    assert_eq!(shop.access("S1").await, json!({"Ada": end(20)}));
    shop.world.stop().await;
}
