//! What is paid back is taken back: no more of it, no less, and never on the word of a source that is not to be believed.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Shop, day, end};

#[tokio::test]
async fn a_refund_takes_back_its_own_time_and_leaves_the_rest() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sell(2, 11, "Ada", json!({"created_at": day(0), "total": "20"}))
        .await;
    shop.sell(3, 12, "Bob", json!({"created_at": day(0)})).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(60), "Bob": end(30)}));
    shop.change(1, json!({"status": "refunded"})).await;
    shop.change(3, json!({"status": "refunded"})).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["shortened"], &report["revoked"]),
        (&json!(1), &json!(1)),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    // The shop takes the refund back.
    shop.change(1, json!({"status": "complete"})).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(60)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_refund_after_half_of_the_time_waits_for_approval() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sync().await;
    shop.advance_days(16).await;
    shop.change(1, json!({"status": "refunded"})).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["held"], &report["revoked"], &report["open"]["held"]),
        (&json!(1), &json!(0), &json!(1)),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));

    let plan = shop
        .operator(Method::GET, "/api/access/plan", json!({}))
        .await
        .with_status(200);
    assert_eq!(plan["held"], json!(["1"]), "{}", plan.text);
    assert_eq!(plan["plan"][0]["action"], "remove");
    let path = format!("/api/access/plans/{}/approve", plan["id"].as_str().unwrap());
    let report = shop
        .operator(Method::POST, &path, json!({}))
        .await
        .with_status(200);
    assert_eq!(report["revoked"], 1, "{}", report.text);
    assert_eq!(shop.access("S1").await, json!({}));
    let again = shop.operator(Method::POST, &path, json!({})).await;
    assert_eq!(again.status, 409, "{}", again.text);
    shop.world.stop().await;
}

#[tokio::test]
async fn a_plan_made_before_something_changed_is_refused() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    let plan = shop
        .operator(Method::GET, "/api/access/plan", json!({}))
        .await
        .with_status(200);
    assert_eq!(plan["plan"].as_array().unwrap().len(), 1, "{}", plan.text);
    assert_eq!(shop.access("S1").await, json!({}));
    shop.give("S1", json!([{"username": "Ada", "expiration": end(3)}]))
        .await;
    let path = format!("/api/access/plans/{}/approve", plan["id"].as_str().unwrap());
    let refused = shop.operator(Method::POST, &path, json!({})).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert_eq!(shop.access("S1").await, json!({"Ada": end(3)}));
    shop.operator(Method::POST, "/api/access/plans/0000/approve", json!({}))
        .await
        .problem(404, "not_found");
    shop.world.stop().await;
}

#[tokio::test]
async fn a_plan_is_good_for_a_day() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    let planned = async || {
        let plan = shop
            .operator(Method::GET, "/api/access/plan", json!({}))
            .await
            .with_status(200);
        format!("/api/access/plans/{}/approve", plan["id"].as_str().unwrap())
    };
    let path = planned().await;
    shop.advance_days(1).await;
    let refused = shop
        .operator(Method::POST, &path, json!({}))
        .await
        .problem(409, "plan_stale");
    assert!(
        refused["detail"].to_string().contains("GET /api/access/plan"),
        "{}",
        refused.text
    );
    assert_eq!(shop.access("S1").await, json!({}));
    let path = planned().await;
    shop.world.advance(23 * 3_600).await;
    shop.operator(Method::POST, &path, json!({}))
        .await
        .with_status(200);
    // What was lost since the purchase is given back as of the time of the plan.
    let access = shop.access("S1").await;
    let ada = access["Ada"].as_str().unwrap();
    assert!(
        ada >= end(31).as_str().unwrap() && ada < end(32).as_str().unwrap(),
        "{access}"
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn more_reversals_than_the_cap_allows_wait_for_approval() {
    let mut shop = Shop::with(json!({"caps": {"max_revocations": 2}})).await;
    let names: Vec<String> = (0..4).map(|number| format!("user{number}")).collect();
    shop.know(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    for (id, name) in (1..).zip(&names) {
        shop.sell(id, 10 + id, name, json!({"created_at": day(0)})).await;
    }
    shop.sync().await;
    for id in 1..=4 {
        shop.change(id, json!({"status": "refunded"})).await;
    }
    let report = shop.sync().await;
    assert_eq!(
        (&report["revoked"], &report["held"]),
        (&json!(2), &json!(2)),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S1").await.as_object().unwrap().len(), 2);
    // The next run does not do by and by what one run must not do.
    let report = shop.sync().await;
    assert_eq!(
        (&report["revoked"], &report["open"]["held"]),
        (&json!(0), &json!(2)),
        "{}",
        report.text
    );
    for review in shop.reviews().await {
        assert_eq!(review["reason"], "refund");
        shop.decide(&review, json!({"action": "retry"})).await;
    }
    let report = shop.sync().await;
    assert_eq!(report["revoked"], 2, "{}", report.text);
    shop.world.stop().await;
}

#[tokio::test]
async fn an_empty_or_shrunken_list_takes_nothing_back_and_is_told_of() {
    let mut shop = Shop::open().await;
    for id in 1..=5 {
        shop.sell(
            id,
            11,
            "Ada",
            json!({"created_at": day(0), "total": id.to_string()}),
        )
        .await;
    }
    shop.sync().await;
    shop.show_raw(json!([])).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["status"], &report["revoked"]),
        (&json!("quarantined"), &json!(0)),
        "{}",
        report.text
    );
    shop.advance_days(1).await;
    for id in 3..=5 {
        shop.forget(id).await;
    }
    let report = shop.sync().await;
    assert_eq!(report["status"], "quarantined", "{}", report.text);
    assert_eq!(shop.access("S1").await, json!({"Ada": end(150)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_list_that_changes_its_length_while_it_is_read_takes_nothing_back() {
    let kind = json!({"wordpress": {"kind": "memberpress", "api_key_header": "MEMBERPRESS-API-KEY"}});
    let shop = Shop::with(kind).await;
    // Two pages of a hundred.
    let rows = |first: &str, count: u64| -> Value {
        let row = |number: u64| {
            json!({"id": number.to_string(), "amount": "49.00", "total": number.to_string(),
                "status": if number == 1 { first } else { "complete" }, "txn_type": "payment",
                "gateway": "stripe", "trans_num": format!("ch_{number}"), "subscription": "0",
                "membership": {"id": "100"}, "created_at": day(0), "expires_at": null,
                "member": {"id": 11, "email": "ada@example.com", "username": "Ada"}})
        };
        (1..=count).map(row).collect()
    };
    shop.show_raw(rows("complete", 150)).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(4500)}));
    shop.show_raw(rows("refunded", 150)).await;
    let slow = json!({"operation": "transactions", "kind": "slow", "times": 2, "delay_ms": 1500});
    shop.outside(Method::POST, "/__sandbox/faults", slow).await;
    // After the first page a tenth of the rows is gone.
    let meanwhile = async {
        tokio::time::sleep(std::time::Duration::from_millis(2200)).await;
        shop.show_raw(rows("refunded", 135)).await;
    };
    let (report, ()) = tokio::join!(shop.fire("access-rescan"), meanwhile);
    assert_eq!(
        (&report["status"], &report["shortened"], &report["revoked"]),
        (&json!("quarantined"), &json!(0), &json!(0)),
        "{report}"
    );
    assert_eq!(shop.access("S1").await, json!({"Ada": end(4500)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_shop_that_really_shrank_is_believed_after_three_days_of_the_same_size() {
    let mut shop = Shop::open().await;
    shop.know(&["Ada", "Bob", "Cy", "Dan"]).await;
    for (person, name) in [(11, "Ada"), (12, "Bob"), (13, "Cy"), (14, "Dan")] {
        shop.sell(person, person, name, json!({})).await;
    }
    shop.sync().await;
    for id in [13, 14] {
        shop.forget(id).await;
    }
    for _ in 0..3 {
        shop.advance_days(1).await;
        let report = shop.sync().await;
        assert_eq!(report["status"], "quarantined", "{}", report.text);
    }
    shop.advance_days(1).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["status"], &report["revoked"]),
        (&json!("ok"), &json!(2)),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30), "Bob": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_shop_that_shrinks_more_each_day_is_not_believed() {
    let mut shop = Shop::open().await;
    for id in 1..=40 {
        shop.sell(id, 11, "Ada", json!({"total": id.to_string()})).await;
    }
    shop.sync().await;
    let whole = shop.access("S1").await;
    let mut next = 1;
    for _ in 0..6 {
        for _ in 0..if next == 1 { 14 } else { 3 } {
            shop.forget(next).await;
            next += 1;
        }
        shop.advance_days(1).await;
        let report = shop.sync().await;
        assert_eq!(report["status"], "quarantined", "{}", report.text);
    }
    assert_eq!(shop.access("S1").await, whole);
    shop.world.stop().await;
}

#[tokio::test]
async fn a_row_that_is_gone_from_a_sound_full_scan_is_taken_back() {
    let mut shop = Shop::open().await;
    for id in 1..=5 {
        shop.sell(
            id,
            11,
            "Ada",
            json!({"created_at": day(0), "total": id.to_string()}),
        )
        .await;
    }
    shop.sync().await;
    shop.forget(5).await;
    // What is recent is read since the look-back only, which proves nothing.
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(150)}));
    shop.advance_days(1).await;
    let report = shop.sync().await;
    assert_eq!(report["shortened"], 1, "{}", report.text);
    assert_eq!(shop.access("S1").await, json!({"Ada": end(120)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_deleted_member_is_held_and_an_earlier_end_is_a_reversal() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0), "expires_at": day(30)}))
        .await;
    shop.sell(2, 12, "Bob", json!({"created_at": day(0), "expires_at": day(30)}))
        .await;
    shop.sync().await;
    shop.change(1, json!({"user_id": 0, "user_email": null})).await;
    shop.change(2, json!({"expires_at": day(-1)})).await;
    shop.advance_days(1).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["held"], &report["revoked"]),
        (&json!(1), &json!(1)),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn an_operator_takes_back_a_chargeback_and_what_is_bought_later_is_looked_at() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sync().await;
    let body = json!({"transaction_id": "1", "reason": "chargeback"});
    let report = shop
        .operator(Method::POST, "/api/access/revocations", body)
        .await
        .with_status(200);
    assert_eq!(report["revoked"], 1, "{}", report.text);
    assert_eq!(shop.access("S1").await, json!({}));
    shop.advance_days(1).await;
    shop.sell(2, 11, "Ada", json!({"created_at": day(1)})).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["manual_review"]),
        (&json!(0), &json!(1)),
        "{}",
        report.text
    );
    assert_eq!(shop.reviews().await[0]["reason"], "blocked_customer");
    let unknown = json!({"transaction_id": "77", "reason": "operator"});
    shop.operator(Method::POST, "/api/access/revocations", unknown)
        .await
        .problem(404, "not_found");
    shop.world.stop().await;
}

#[tokio::test]
async fn a_refund_of_what_was_bought_before_berth_is_looked_at() {
    let mut shop = Shop::open().await;
    shop.give("S1", json!([{"username": "Ada", "expiration": end(10)}]))
        .await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(-20)})).await;
    shop.sync().await;
    shop.change(1, json!({"status": "refunded"})).await;
    shop.advance_days(1).await;
    let report = shop.sync().await;
    assert_eq!(report["manual_review"], 1, "{}", report.text);
    assert_eq!(shop.reviews().await[0]["reason"], "refund");
    assert_eq!(shop.access("S1").await, json!({"Ada": end(10)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn nothing_is_written_while_writes_are_switched_off() {
    let mut shop = Shop::with(json!({"writes_enabled": false})).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["remaining"], &report["complete"]),
        (&json!(0), &json!(1), &json!(false)),
        "{}",
        report.text
    );
    assert!(
        report["warnings"].to_string().contains("writes_enabled"),
        "{}",
        report.text
    );
    for kind in ["/grant", "/update", "/remove"] {
        assert_eq!(shop.calls(kind).await, Vec::<Value>::new());
    }
    shop.world.stop().await;
}
