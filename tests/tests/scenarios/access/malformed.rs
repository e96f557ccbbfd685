//! Rows that cannot be used are put aside and named, and the others are worked on.

use serde_json::{Value, json};

use super::{Shop, day, end};

fn good(id: Value) -> Value {
    json!({"transaction_id": id, "user_id": 11, "user_email": "11@example.com", "user_login": "m",
        "user_meta": {"tradingview_username": "Ada"}, "total": "49.00", "status": "complete", "product_id": "100",
        "created_at": day(0), "expires_at": null})
}

fn with(id: u64, name: &str, value: Value) -> Value {
    let mut row = good(json!(id));
    row[name] = value;
    row
}

#[tokio::test]
async fn each_malformed_row_is_named_with_its_cause_and_stops_no_other() {
    let shop = Shop::open().await;
    let rows = json!([
        good(json!(1)),
        "not a row",
        good(Value::Null),
        with(4, "user_email", Value::Null),
        with(5, "created_at", json!("yesterday")),
        with(6, "created_at", json!(day(3))),
        with(7, "status", json!("maybe")),
        with(8, "expires_at", json!("soon")),
        with(9, "product_id", Value::Null),
        with(10, "user_id", json!("eleven")),
    ]);
    shop.show_raw(rows).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["quarantined"], &report["granted"], &report["fetched"]),
        (&json!(9), &json!(1), &json!(10)),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    let warnings = report["warnings"].to_string();
    for said in [
        "row 2: it is not an object",
        "row 3: transaction_id is missing",
        "transaction 4: user_email is missing",
        "transaction 5: created_at is not a time",
        "transaction 6: created_at is in the future",
        "transaction 7: status is none of",
        "transaction 8: expires_at is not a time",
        "transaction 9: product_id is missing",
        "transaction 10: user_id is not a number",
    ] {
        assert!(warnings.contains(said), "{said}: {warnings}");
    }
    shop.world.stop().await;
}

#[tokio::test]
async fn doubtful_rows_wait_for_a_person_each_with_its_reason() {
    let mut shop = Shop::open().await;
    shop.know(&["Ada", "Bob", "Cy", "Dee", "Eve"]).await;
    // A yearly end on a monthly product.
    shop.sell(
        1,
        11,
        "Ada",
        json!({"created_at": day(0), "expires_at": day(365)}),
    )
    .await;
    // Bought while access was live, where purchases do not add up.
    shop.sell(2, 12, "Bob", json!({"created_at": day(-1), "product_id": 400}))
        .await;
    shop.sell(
        3,
        12,
        "Bob",
        json!({"created_at": day(0), "product_id": 400, "total": "1"}),
    )
    .await;
    // The same payment twice.
    shop.sell(4, 13, "Cy", json!({"created_at": day(0)})).await;
    shop.sell(5, 13, "Cy", json!({"created_at": day(0)})).await;
    // One payment's number at two people.
    shop.sell(6, 14, "Dee", json!({"created_at": day(0), "trans_num": "ch_x"}))
        .await;
    shop.sell(7, 15, "Eve", json!({"created_at": day(0), "trans_num": "ch_x"}))
        .await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["manual_review"], &report["granted"]),
        (&json!(4), &json!(3)),
        "{}",
        report.text
    );
    let mut reasons: Vec<(String, String)> = Vec::new();
    for review in shop.reviews().await {
        let text = |name: &str| review[name].as_str().unwrap().to_owned();
        reasons.push((text("transaction_id"), text("reason")));
    }
    reasons.sort();
    let expected = [
        ("1", "duration_mismatch"),
        ("3", "stacking_disabled_existing_access"),
        ("5", "suspected_duplicate"),
        ("7", "suspected_duplicate"),
    ];
    let expected = expected.map(|(id, reason)| (id.to_owned(), reason.to_owned()));
    assert_eq!(reasons, expected);

    // What a person lets pass counts.
    for review in shop.reviews().await {
        shop.decide(&review, json!({"action": "retry"})).await;
    }
    shop.sync().await;
    // Each also gets back the moments that it waited.
    for (script, name, day) in [("S1", "Ada", 365), ("S1", "Cy", 60), ("S4", "Bob", 59)] {
        let access = shop.access(script).await;
        let (until, due) = (access[name].as_str().unwrap(), end(day));
        assert!(
            until >= due.as_str().unwrap() && until[..16] == due.as_str().unwrap()[..16],
            "{name}: {access}"
        );
    }
    shop.world.stop().await;
}
