//! What an operator's configuration decides.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Shop, day, end};

fn policies(policies: Value) -> Value {
    json!({ "policies": policies })
}

#[tokio::test]
async fn trials_that_are_ignored_grant_nothing_until_they_are_paid() {
    let mut shop = Shop::with(policies(json!({"trials": "ignore"}))).await;
    let trial = json!({"txn_type": "subscription_confirmation", "status": "confirmed", "amount": "0.00",
        "total": "0.00", "subscription_id": "7", "created_at": day(0), "expires_at": day(7)});
    shop.sell(1, 11, "Ada", trial).await;
    assert_eq!(shop.sync().await["ignored"], json!({"trial": 1}));
    let paid = json!({"subscription_id": "7", "created_at": day(0), "expires_at": day(30)});
    shop.sell(2, 11, "Ada", paid).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_refund_shortens_to_what_was_used_where_that_is_wished() {
    let mut shop = Shop::with(policies(json!({"refund_action": "shorten"}))).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    let second = json!({"created_at": day(0), "total": "5"});
    shop.sell(2, 11, "Ada", second).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(60)}));
    shop.advance_days(10).await;
    shop.change(1, json!({"status": "refunded"})).await;
    let report = shop.sync().await;
    assert_eq!(report["shortened"], 1, "{}", report.text);
    // Ten days of the first were used, and the whole second is left.
    let access = shop.access("S1").await;
    let until = access["Ada"].as_str().unwrap();
    assert_eq!(&until[..15], &end(40).as_str().unwrap()[..15], "{access}");
    shop.world.stop().await;
}

#[tokio::test]
async fn a_refund_waits_for_approval_where_that_is_wished() {
    let mut shop = Shop::with(policies(json!({"refund_action": "review"}))).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sync().await;
    shop.change(1, json!({"status": "refunded"})).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["held"], &report["open"]["held"]),
        (&json!(1), &json!(1)),
        "{}",
        report.text
    );
    let review = shop.reviews().await[0].clone();
    assert_eq!(review["reason"], "refund");
    shop.decide(&review, json!({"action": "dismiss"})).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["revoked"], &report["open"]["held"]),
        (&json!(0), &json!(0)),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_renewal_that_fails_earns_the_grace_that_is_configured() {
    let mut shop = Shop::with(policies(json!({"grace_days": 3}))).await;
    let paid = json!({"subscription_id": "7", "created_at": day(0), "expires_at": day(30)});
    shop.sell(1, 11, "Ada", paid).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    shop.advance_days(29).await;
    let failed =
        json!({"subscription_id": "7", "created_at": day(29), "status": "failed", "expires_at": day(60)});
    shop.sell(2, 11, "Ada", failed).await;
    let report = shop.sync().await;
    assert_eq!(report["ignored"], json!({"failed": 1}), "{}", report.text);
    assert_eq!(shop.access("S1").await, json!({"Ada": end(33)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn members_of_another_account_and_gifts_are_granted_as_configured() {
    let mut shop = Shop::with(policies(json!({"sub_accounts": true, "comps": "review"}))).await;
    let member = json!({"txn_type": "sub_account", "created_at": day(0), "parent_transaction_id": "9"});
    shop.sell(1, 11, "Ada", member).await;
    let gift = json!({"gateway": "manual", "amount": "0.00", "total": "0.00", "created_at": day(0)});
    shop.sell(2, 12, "Bob", gift).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["manual_review"]),
        (&json!(1), &json!(1)),
        "{}",
        report.text
    );
    assert_eq!(shop.reviews().await[0]["reason"], "comp");
    shop.world.stop().await;
}

#[tokio::test]
async fn months_are_calendar_months_from_the_first_of_them() {
    let product = json!({"products": {"500": {"script_id": "S5", "duration": "1M"}}});
    let mut shop = Shop::with(product).await;
    shop.set_time("2026-01-31T10:00:00Z").await;
    for id in 1..=2 {
        let month = json!({"product_id": 500, "created_at": "2026-01-31 10:00:00", "total": id.to_string()});
        shop.sell(id, 11, "Ada", month).await;
    }
    shop.sync().await;
    assert_eq!(shop.access("S5").await, json!({"Ada": "2026-03-31T10:00:00Z"}));
    shop.world.stop().await;
}

#[tokio::test]
async fn ends_are_written_as_dates_that_never_take_an_hour_from_anybody() {
    for (meaning, written) in [("end_of_day", "2026-02-09"), ("start_of_day", "2026-02-10")] {
        let wire = json!({"tradingview": {"expiry_format": "date", "date_meaning": meaning}});
        let mut shop = Shop::with(wire).await;
        shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
        shop.sync().await;
        assert_eq!(shop.calls("/grant").await[0]["body"]["expiry"], written);
        // What the API keeps of it is taken for ours, not for an extension by hand.
        let report = shop.sync().await;
        assert_eq!(
            (&report["extended"], &report["warnings"]),
            (&json!(0), &json!([])),
            "{}",
            report.text
        );
        shop.world.stop().await;
    }
}

#[tokio::test]
async fn memberpress_s_own_pages_are_read_whole() {
    let kind = json!({"wordpress": {"kind": "memberpress", "api_key_header": "MEMBERPRESS-API-KEY"},
        "caps": {"max_grants_per_run": 1000}});
    let shop = Shop::with(kind).await;
    let names: Vec<String> = (0..250).map(|number| format!("user{number}")).collect();
    shop.know(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let rows: Vec<Value> = (0_u64..)
        .zip(&names)
        .map(|(number, name)| {
            json!({"id": (number + 1).to_string(), "amount": "49.00", "total": "49.00", "status": "complete",
                "txn_type": "payment", "gateway": "stripe", "trans_num": format!("ch_{number}"), "subscription": "0",
                "membership": {"id": "100"}, "created_at": day(0), "expires_at": null,
                "member": {"id": number + 1, "email": "x@example.com", "username": name}})
        })
        .collect();
    shop.show_raw(json!(rows[..20])).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["fetched"], &report["granted"]),
        (&json!(20), &json!(20)),
        "{}",
        report.text
    );
    shop.show_raw(json!(rows)).await;
    let report = shop.dry_run().await;
    assert_eq!(
        (&report["fetched"], &report["granted"], &report["quarantined"]),
        (&json!(250), &json!(230), &json!(0)),
        "{}",
        report.text
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn a_peer_with_relative_durations_gives_at_least_what_was_paid_for_and_never_twice() {
    let peer = json!({"tradingview": {"kind": "trendoscope", "timeout": 1}});
    let mut shop = Shop::with(peer).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.fault("grant", "commit_then_timeout", 1).await;
    let report = shop.sync().await;
    let given = report["granted"].as_u64().unwrap() + report["retry"].as_u64().unwrap();
    assert_eq!(given, 1, "{}", report.text);
    for _ in 0..3 {
        shop.world.advance(3_600).await;
        shop.sync().await;
    }
    let access = shop.access("S1").await;
    let moment = |end: &Value| end.as_str().unwrap().parse::<Timestamp>().unwrap();
    let until = moment(&access["Ada"]);
    assert!(until >= moment(&end(30)) && until < moment(&end(32)), "{access}");
    let calls = shop.calls("/access/").await;
    let grants = calls
        .iter()
        .filter(|call| call["method"] == "POST" && call["path"] == "/access/Ada");
    assert_eq!(grants.count(), 1, "{calls:?}");
    shop.world.stop().await;
}

#[tokio::test]
async fn the_number_of_active_users_is_watched() {
    let mut shop = Shop::with(json!({"caps": {"active_users_warning": 3}})).await;
    for (id, name) in [(1, "Ada"), (2, "Bob"), (3, "Cy")] {
        shop.sell(id, 10 + id, name, json!({"created_at": day(0)})).await;
    }
    let report = shop.sync().await;
    assert_eq!(report["active_users"], 3);
    assert!(
        report["warnings"].to_string().contains("threshold of 3"),
        "{}",
        report.text
    );
    shop.advance_days(31).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["active_users"], &report["warnings"]),
        (&json!(0), &json!([])),
        "{}",
        report.text
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn master_data_of_another_program_is_taken_over_as_what_there_was_before() {
    let mut shop = Shop::open().await;
    let data = json!({"script_id": "S1", "users": {"Ada": {"email": "a@example.com", "expiry": end(12), "lifetime": false},
        "Bob": {"expiry": null, "lifetime": true}, "no name": {"expiry": end(1)}},
        "processed_transactions": ["1"], "last_processed_at": "2026-01-09T12:00:00Z"});
    let put = shop
        .operator(reqwest::Method::PUT, "/api/access/scripts/S1", data)
        .await
        .with_status(200);
    assert_eq!(put["users"], 2, "{}", put.text);
    assert!(put["skipped"].to_string().contains("no name"), "{}", put.text);
    shop.give("S1", json!([{"username": "Ada", "expiration": end(12)}]))
        .await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(-18)})).await;
    shop.sell(2, 11, "Ada", json!({"created_at": day(0), "total": "5"}))
        .await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["ignored"], &report["extended"]),
        (&json!({"before_baseline": 1}), &json!(1)),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S1").await, json!({"Ada": end(42)}));
    let out = shop
        .operator(reqwest::Method::GET, "/api/access/scripts/S1", json!({}))
        .await
        .with_status(200);
    assert_eq!(
        (&out["users"]["Bob"]["lifetime"], &out["users"]["Ada"]["expiry"]),
        (&json!(true), &end(42))
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn of_two_spellings_of_one_name_in_master_data_the_later_end_counts() {
    let mut shop = Shop::open().await;
    let data = json!({"script_id": "S1", "users": {"ADA": {"expiry": end(12)}, "Ada": {"expiry": end(40)}, "ada": {"expiry": end(20)}},
        "last_processed_at": "2026-01-09T12:00:00Z"});
    shop.operator(reqwest::Method::PUT, "/api/access/scripts/S1", data)
        .await
        .with_status(200);
    shop.sell(1, 11, "Ada", json!({})).await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(70)}));
    shop.world.stop().await;
}
