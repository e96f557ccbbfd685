//! Outages, lost answers and dead credentials: nothing is granted twice, nothing is lost, nobody is blamed.

use reqwest::Method;
use serde_json::json;

use super::{Shop, day, end};

#[tokio::test]
async fn a_failing_look_up_is_never_held_against_the_customer() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.fail_with("validate", 500, 50).await;
    let report = shop.sync().await;
    assert_eq!(
        (
            &report["retry"],
            &report["manual_review"],
            &report["open"]["retry"]
        ),
        (&json!(1), &json!(0), &json!(1)),
        "{}",
        report.text
    );
    assert_eq!(shop.mails().await.len(), 0);
    shop.heal().await;
    shop.advance_days(1).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["open"]["retry"]),
        (&json!(1), &json!(0)),
        "{}",
        report.text
    );
    // The day was lost by our outage, and is given back.
    let access = shop.access("S1").await;
    assert!(
        access["Ada"].as_str().unwrap() >= end(31).as_str().unwrap(),
        "{access}"
    );
    let table = shop.world.table().await;
    let audit = table.iter().find(|((pk, sk), entry)| {
        pk.ends_with("#PERSON#11")
            && sk.starts_with("AUDIT#")
            && entry["events"][0]["event"] == "access.credited"
    });
    let told = audit.and_then(|(_, entry)| entry["events"][0]["detail"].as_str());
    assert!(
        told.is_some_and(|told| told.contains(" s for waiting since 2026-01-10T12:00:")),
        "{told:?}"
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn an_outage_in_the_first_run_gives_nothing_back_from_before_it() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(-20)})).await;
    shop.fail_with("validate", 500, 50).await;
    shop.sync().await;
    shop.heal().await;
    shop.advance_days(1).await;
    shop.sync().await;
    let access = shop.access("S1").await;
    let ada = access["Ada"].as_str().unwrap();
    assert!(
        ada >= end(11).as_str().unwrap() && ada <= end(12).as_str().unwrap(),
        "{access}"
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn a_grant_whose_answer_is_lost_is_found_done_and_not_made_again() {
    let mut shop = Shop::with(json!({"tradingview": {"timeout": 1}})).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.fault("grant", "commit_then_timeout", 1).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["retry"]),
        (&json!(1), &json!(0)),
        "{}",
        report.text
    );
    assert_eq!(shop.calls("/grant").await.len(), 1);
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn dead_credentials_end_the_run_and_charge_nobody() {
    ends_the_run_and_charges_nobody(401).await;
}

#[tokio::test]
async fn a_service_that_has_to_log_in_again_ends_the_run_and_charges_nobody() {
    // The sandbox says `login_required` with it.
    ends_the_run_and_charges_nobody(403).await;
}

async fn ends_the_run_and_charges_nobody(status: u16) {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sell(2, 12, "Bob", json!({"created_at": day(0)})).await;
    shop.sync().await;
    shop.sell(3, 11, "Ada", json!({"created_at": day(0), "total": "5"}))
        .await;
    shop.sell(4, 12, "Bob", json!({"created_at": day(0), "total": "5"}))
        .await;
    shop.fail_with("list", status, 50).await;
    for _ in 0..2 {
        let report = shop.sync().await;
        assert_eq!(
            (&report["status"], &report["complete"], &report["retry"]),
            (&json!("degraded"), &json!(false), &json!(0)),
            "{}",
            report.text
        );
    }
    shop.heal().await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["status"], &report["extended"]),
        (&json!("ok"), &json!(2)),
        "{}",
        report.text
    );
    shop.fire("access-sync").await;
    let alerts = shop.mails().await;
    let alerts = alerts
        .iter()
        .filter(|mail| mail["text"].to_string().contains("does not let"));
    assert_eq!(alerts.count(), 1);
    shop.world.stop().await;
}

#[tokio::test]
async fn what_fails_for_good_becomes_a_dead_letter_and_can_be_replayed() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.fail_with("grant", 422, 50).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["dead_letter"], &report["open"]["dead_letter"]),
        (&json!(1), &json!(1)),
        "{}",
        report.text
    );
    // The name was looked up once more before that was believed.
    assert_eq!(shop.calls("validate").await.len(), 2);
    shop.heal().await;
    let letters = shop
        .operator(Method::GET, "/api/access/dead-letters", json!({}))
        .await
        .with_status(200);
    assert_eq!(letters["data"][0]["transaction_id"], "1", "{}", letters.text);
    shop.operator(Method::POST, "/api/access/dead-letters/1/replay", json!({}))
        .await
        .with_status(200);
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["open"]["dead_letter"]),
        (&json!(1), &json!(0)),
        "{}",
        report.text
    );
    shop.operator(Method::POST, "/api/access/dead-letters/1/replay", json!({}))
        .await
        .problem(404, "not_found");
    shop.world.stop().await;
}

#[tokio::test]
async fn an_outage_of_days_uses_up_the_tries_and_then_waits_for_an_operator() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.fail_with("grant", 500, 10_000).await;
    let mut states = Vec::new();
    for _ in 0..12 {
        let report = shop.sync().await;
        states.push((
            report["open"]["retry"].clone(),
            report["open"]["dead_letter"].clone(),
        ));
        shop.advance_days(1).await;
    }
    assert_eq!(states.first().unwrap(), &(json!(1), json!(0)));
    assert_eq!(states.last().unwrap(), &(json!(0), json!(1)), "{states:?}");
    shop.world.stop().await;
}

#[tokio::test]
async fn a_shop_that_fails_is_told_of_and_changes_nothing() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sync().await;
    let before = shop.access("S1").await;
    for (kind, status, code) in [
        ("status", 502, "upstream_error"),
        ("malformed", 502, "upstream_error"),
    ] {
        shop.fault("transactions", kind, 50).await;
        shop.operator(Method::POST, "/api/access/sync", json!({}))
            .await
            .problem(status, code);
        shop.heal().await;
    }
    assert_eq!(shop.access("S1").await, before);
    let report = shop.sync().await;
    assert_eq!(report["status"], "ok", "{}", report.text);
    shop.world.stop().await;
}

#[tokio::test]
async fn a_throttled_service_is_given_time() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    let fault = json!({"operation": "grant", "kind": "rate_limited", "times": 1, "retry_after": 1});
    shop.outside(Method::POST, "/__sandbox/faults", fault).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["retry"]),
        (&json!(1), &json!(0)),
        "{}",
        report.text
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn a_list_that_goes_in_circles_is_not_followed() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({})).await;
    for next in ["a", "b", "a", "b", "a", "b"] {
        let page = json!({"users": [], "next": next});
        let fault = json!({"operation": "list", "kind": "malformed", "times": 1, "body": page});
        shop.outside(Method::POST, "/__sandbox/faults", fault).await;
    }
    shop.operator(Method::POST, "/api/access/sync", json!({}))
        .await
        .problem(502, "upstream_error");
    // The first page, the two that are named, and no page twice.
    assert_eq!(shop.calls("scriptUsers").await.len(), 3);
    assert_eq!(shop.access("S1").await, json!({}));
    shop.heal().await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn no_more_is_granted_in_a_run_than_the_cap_allows_and_the_next_goes_on() {
    let mut shop = Shop::with(json!({"caps": {"max_grants_per_run": 2}})).await;
    for (id, name) in [(1, "Ada"), (2, "Bob"), (3, "Cy")] {
        shop.sell(id, 10 + id, name, json!({"created_at": day(0)})).await;
    }
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["remaining"], &report["complete"]),
        (&json!(2), &json!(1), &json!(false)),
        "{}",
        report.text
    );
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["remaining"], &report["complete"]),
        (&json!(1), &json!(0), &json!(true)),
        "{}",
        report.text
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn the_shops_word_about_a_transaction_is_followed_at_once_but_not_believed() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    let request = |key: &str| {
        let body = json!({"event": "transaction-completed", "type": "transaction", "data": {"id": 1, "status": "refunded"}});
        let request = shop
            .world
            .request(Method::POST, "/api/access/webhook")
            .json(&body);
        request.header("MEMBERPRESS-WEBHOOK-KEY", key.to_owned())
    };
    shop.world.send(request("wrong")).await.with_status(401);
    assert_eq!(shop.access("S1").await, json!({}));
    shop.world
        .send(request("sandbox-webhook-key"))
        .await
        .with_status(202);
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    shop.world.stop().await;
}
