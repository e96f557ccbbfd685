//! What is larger than one item, one transaction or one body.

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use super::{BEGINS, Shop};

const PURCHASES: i64 = 3_000;

/// A purchase of Ada's, the first of which was long ago.
fn purchase(number: i64) -> Value {
    let begins: Timestamp = BEGINS.parse().unwrap();
    let at = begins
        .checked_sub(SignedDuration::from_hours(PURCHASES - number))
        .unwrap();
    json!({
        "transaction_id": number, "user_id": 11, "user_email": "11@example.com", "user_login": "member11",
        "display_name": "Member 11", "user_meta": {"tradingview_username": "Ada"}, "total": "49.00", "amount": "49.00",
        "status": "complete", "txn_type": "payment", "subscription_id": "0", "product_id": "100", "gateway": "stripe",
        "trans_num": format!("ch_{number}"), "created_at": at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        "expires_at": null
    })
}

#[tokio::test]
async fn a_customer_of_three_thousand_purchases_is_kept_like_any_other() {
    let shop = Shop::open().await;
    let mut rows: Vec<Value> = (0..PURCHASES).map(|number| purchase(number + 1)).collect();
    shop.show_raw(json!(rows)).await;
    for _ in 0..60 {
        let report = shop.operator(Method::POST, "/api/access/sync", json!({})).await;
        if report["complete"] == true {
            break;
        }
        if report.status != 200 {
            // On a busy machine a call may take longer than the gateway waits. Another run has to wait for its end.
            shop.world.advance(180).await;
        }
    }
    // The first began at once, and each of the others when the one before it ended. The time that it took to read them
    // was lost for Ada, and is given back.
    let whole = |purchases: i64| {
        let first: Timestamp = BEGINS.parse().unwrap();
        let first = first
            .checked_sub(SignedDuration::from_hours(PURCHASES - 1))
            .unwrap();
        let bought = SignedDuration::from_hours(24 * 30 * purchases);
        first.checked_add(bought).unwrap()
    };
    let lasts = async |purchases: i64| {
        let access = shop.access("S1").await;
        let end: Timestamp = access["Ada"].as_str().unwrap().parse().unwrap();
        let credit = end.duration_since(whole(purchases));
        assert!(
            !credit.is_negative() && credit < SignedDuration::from_hours(4),
            "{access}"
        );
    };
    lasts(PURCHASES).await;
    assert_eq!(shop.calls("/grant").await.len(), 1);
    let report = shop.sync().await;
    assert_eq!(
        (&report["considered"], &report["extended"], &report["remaining"]),
        (&json!(0), &json!(0), &json!(0)),
        "{}",
        report.text
    );
    rows[1_499]["status"] = json!("refunded");
    shop.show_raw(json!(rows)).await;
    shop.advance_days(2).await;
    let report = shop.sync().await;
    assert_eq!(report["shortened"], 1, "{}", report.text);
    lasts(PURCHASES - 1).await;
    shop.world.stop().await;
}
