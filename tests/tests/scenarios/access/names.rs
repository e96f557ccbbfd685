//! Names at TradingView: wrong ones, corrected ones, and those who change theirs.

use reqwest::Method;
use serde_json::json;

use super::{Shop, day, end};

#[tokio::test]
async fn a_wrong_name_is_told_once_with_suggestions_and_released_when_it_is_corrected() {
    let mut shop = Shop::open().await;
    shop.know(&["AdaLovelace", "Ada_King"]).await;
    shop.sell(1, 11, "ada", json!({"created_at": day(0)})).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["manual_review"], &report["granted"]),
        (&json!(1), &json!(0)),
        "{}",
        report.text
    );
    shop.sync().await;
    shop.fire("access-sync").await;
    let to_customer = |mail: &&serde_json::Value| mail["to"].to_string().contains("11@example.com");
    let mails = shop.mails().await;
    let letters: Vec<_> = mails.iter().filter(to_customer).collect();
    assert_eq!(letters.len(), 1, "{mails:?}");
    assert!(
        letters[0]["text"].as_str().unwrap().contains("AdaLovelace"),
        "{}",
        letters[0]
    );
    let review = &shop.reviews().await[0];
    assert_eq!(
        (&review["reason"], &review["username"]),
        (&json!("invalid_username"), &json!("ada"))
    );
    assert!(review["suggestions"].to_string().contains("Ada_King"), "{review}");

    shop.advance_days(2).await;
    shop.change_member(11, json!({"user_meta": {"tradingview_username": "AdaLovelace"}}))
        .await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["open"]["manual_review"]),
        (&json!(1), &json!(0)),
        "{}",
        report.text
    );
    // Two days were lost by the customer's mistake, and are given back.
    let access = shop.access("S1").await;
    assert!(
        access["AdaLovelace"].as_str().unwrap() >= end(32).as_str().unwrap(),
        "{access}"
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn what_a_corrected_name_waits_for_our_sake_is_given_back_whole() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Adda", json!({"created_at": day(0)})).await;
    shop.sync().await;
    shop.advance_days(10).await;
    shop.change(1, json!({"user_meta": {"tradingview_username": "Ada"}}))
        .await;
    // The run is stopped by somebody else's look-up, before it comes to this customer.
    shop.sell(2, 10, "Bob", json!({"created_at": day(10)})).await;
    shop.fail_with("validate", 401, 50).await;
    shop.sync().await;
    shop.heal().await;
    shop.advance_days(2).await;
    shop.sync().await;
    let access = shop.access("S1").await;
    assert!(
        access["Ada"].as_str().unwrap() >= end(39).as_str().unwrap(),
        "seven days for the name and two for the outage: {access}"
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn access_under_the_name_before_is_not_given_back_as_lost_while_the_new_one_waits() {
    let mut shop = Shop::open().await;
    shop.know(&["Ada", "Countess"]).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sync().await;
    shop.advance_days(10).await;
    shop.change_member(11, json!({"user_meta": {"tradingview_username": "Countess"}}))
        .await;
    shop.sell(2, 11, "Countess", json!({"created_at": day(10)})).await;
    shop.fail_with("validate", 503, 50).await;
    shop.sync().await;
    shop.heal().await;
    shop.advance_days(2).await;
    shop.sync().await;
    // Until the new name could be looked up the old one had what was paid for.
    assert_eq!(shop.access("S1").await["Countess"], end(60));
    shop.world.stop().await;
}

#[tokio::test]
async fn an_operator_corrects_a_name() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Adda", json!({"created_at": day(0)})).await;
    shop.sync().await;
    let review = shop.reviews().await[0].clone();
    shop.decide(&review, json!({"action": "correct", "username": "ada"}))
        .await;
    let report = shop.sync().await;
    assert_eq!(report["granted"], 1, "{}", report.text);
    assert_eq!(shop.reviews().await.len(), 0);
    assert!(shop.access("S1").await.get("Ada").is_some());
    shop.world.stop().await;
}

#[tokio::test]
async fn a_review_that_is_dismissed_stays_so() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Adda", json!({"created_at": day(0)})).await;
    shop.sync().await;
    let review = shop.reviews().await[0].clone();
    shop.decide(&review, json!({"action": "dismiss"})).await;
    shop.advance_days(1).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["open"]["manual_review"]),
        (&json!(0), &json!(0)),
        "{}",
        report.text
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn a_changed_name_takes_access_along_and_the_third_change_is_looked_at() {
    let mut shop = Shop::open().await;
    shop.know(&["Ada", "Ada2", "Ada3", "Ada4"]).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sync().await;
    for name in ["Ada2", "Ada3"] {
        shop.change_member(11, json!({"user_meta": {"tradingview_username": name}}))
            .await;
        let report = shop.sync().await;
        assert_eq!(report["granted"], 1, "{}", report.text);
        assert_eq!(shop.access("S1").await, json!({name: end(30)}));
    }
    shop.change_member(11, json!({"user_meta": {"tradingview_username": "Ada4"}}))
        .await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["manual_review"]),
        (&json!(0), &json!(1)),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S1").await, json!({"Ada3": end(30)}));
    let review = shop.reviews().await[0].clone();
    assert_eq!(review["reason"], "third_move");
    shop.decide(&review, json!({"action": "retry"})).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada4": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn what_there_was_before_moves_with_the_customer_as_well() {
    let mut shop = Shop::open().await;
    shop.give("S1", json!([{"username": "Ada", "expiration": end(40)}]))
        .await;
    shop.sell(1, 11, "ada", json!({"created_at": day(-3)})).await;
    shop.sync().await;
    shop.change(1, json!({"user_meta": {"tradingview_username": "Cy"}}))
        .await;
    let report = shop.sync().await;
    assert_eq!(report["granted"], 1, "{}", report.text);
    assert_eq!(shop.access("S1").await, json!({"Cy": end(40)}));
    let data = (shop.operator(Method::GET, "/api/access/scripts/S1", json!(null))).await;
    assert_eq!(
        (&data["users"]["Cy"]["expiry"], &data["users"]["Ada"]),
        (&end(40), &json!(null)),
        "{}",
        data.text
    );
    assert_eq!(shop.sync().await["active_users"], 1);
    shop.world.stop().await;
}

#[tokio::test]
async fn a_name_that_nobody_corrects_is_reminded_of_and_then_given_to_the_operator() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Adda", json!({"created_at": day(0)})).await;
    shop.sync().await;
    for _ in 0..5 {
        shop.advance_days(4).await;
        shop.sync().await;
        shop.fire("access-sync").await;
    }
    let to_customer = |mail: &&serde_json::Value| mail["to"].to_string().contains("11@example.com");
    assert_eq!(shop.mails().await.iter().filter(to_customer).count(), 3);
    shop.advance_days(11).await;
    shop.sync().await;
    shop.fire("access-sync").await;
    let mails = shop.mails().await;
    let to_operator = |mail: &&serde_json::Value| mail["to"].to_string().contains("operator@example.com");
    assert!(
        mails
            .iter()
            .filter(to_operator)
            .any(|mail| mail["text"].to_string().contains("30 days")),
        "{mails:?}"
    );
    shop.world.stop().await;
}
