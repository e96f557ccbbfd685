//! The faults of the program that Berth replaces (facts/access.md A5), each as it must not happen any more. Those that are
//! scenarios of their own elsewhere are not repeated here.

use reqwest::Method;
use serde_json::json;

use super::{Shop, day, end};

#[tokio::test]
async fn a_confirmation_and_the_payment_of_one_sale_do_not_both_count() {
    let mut shop = Shop::open().await;
    let confirmation = json!({"txn_type": "subscription_confirmation", "status": "confirmed", "amount": "0.00",
        "total": "0.00", "subscription_id": "7", "created_at": day(0), "expires_at": day(1)});
    shop.sell(1, 11, "Ada", confirmation).await;
    shop.sell(
        2,
        11,
        "Ada",
        json!({"subscription_id": "7", "created_at": day(0), "expires_at": day(30)}),
    )
    .await;
    shop.sync().await;
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_name_in_another_spelling_is_the_same_customer_and_never_shortened() {
    let mut shop = Shop::open().await;
    shop.know(&["JoeBloggs"]).await;
    shop.sell(
        1,
        11,
        "JoeBloggs",
        json!({"created_at": day(0), "product_id": 200}),
    )
    .await;
    shop.sync().await;
    shop.sell(2, 11, "joebloggs", json!({"created_at": day(0)})).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["extended"]),
        (&json!(0), &json!(1)),
        "{}",
        report.text
    );
    let access = shop.access("S1").await;
    assert_eq!(access.as_object().unwrap().len(), 1);
    assert!(access["JoeBloggs"].as_str().unwrap() > "2027-02", "{access}");
    shop.world.stop().await;
}

#[tokio::test]
async fn six_hundred_old_transactions_are_not_stacked_again() {
    let shop = Shop::open().await;
    let names: Vec<String> = (0..60).map(|number| format!("user{number}")).collect();
    shop.know(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let rows: Vec<_> = (0..600_u64)
        .map(|number| {
            json!({"transaction_id": number + 1, "user_id": number % 60 + 1, "user_email": "x@example.com",
                "user_login": "x", "user_meta": {"tradingview_username": names[usize::try_from(number % 60).unwrap()]},
                "total": number, "status": "complete", "product_id": 100, "created_at": day(-1), "expires_at": null})
        })
        .collect();
    shop.show_raw(json!(rows)).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["granted"], &report["settled"]),
        (&json!(60), &json!(600)),
        "{}",
        report.text
    );
    shop.forget_calls().await;
    shop.advance_days(1).await;
    let report = shop.sync().await;
    assert_eq!(
        (&report["fetched"], &report["considered"], &report["extended"]),
        (&json!(600), &json!(0), &json!(0)),
        "{}",
        report.text
    );
    assert_eq!(shop.calls("/update").await.len(), 0);
    let access = shop.access("S1").await;
    assert!(
        access
            .as_object()
            .unwrap()
            .values()
            .all(|until| *until == end(299)),
        "{access}"
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn a_payment_that_comes_through_later_is_seen_though_its_row_is_old() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"status": "pending", "created_at": day(-5)}))
        .await;
    shop.sell(2, 12, "Bob", json!({"created_at": day(0)})).await;
    assert_eq!(shop.sync().await["ignored"], json!({"pending": 1}));
    shop.change(1, json!({"status": "complete"})).await;
    let report = shop.sync().await;
    assert_eq!(report["granted"], 1, "{}", report.text);
    assert_eq!(shop.access("S1").await["Ada"], end(25));
    shop.world.stop().await;
}

#[tokio::test]
async fn ids_and_money_may_be_texts_or_numbers() {
    let shop = Shop::open().await;
    let row = json!([{"id": "7", "member": {"id": "11", "email": "11@example.com", "username": "ada"}, "membership": {"id": 100},
        "amount": 49, "total": 49.00, "status": "Complete", "txn_type": "payment", "subscription": "0",
        "created_at": day(0), "expires_at": null}]);
    shop.show_raw(row).await;
    let report = shop.sync().await;
    assert_eq!(report["granted"], 1, "{}", report.text);
    shop.world.stop().await;
}

#[tokio::test]
async fn a_run_excludes_another_and_says_when_to_come_again() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    let slow = json!({"operation": "transactions", "kind": "slow", "times": 1, "delay_ms": 2_000});
    shop.outside(Method::POST, "/__sandbox/faults", slow).await;
    let second = async {
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        shop.operator(Method::POST, "/api/access/sync", json!({})).await
    };
    let (first, second) = tokio::join!(shop.sync(), second);
    assert_eq!(first["granted"], 1, "{}", first.text);
    let refused = second.problem(409, "operation_in_progress");
    assert!(refused.retry_after().is_some());
    assert_eq!(shop.calls("/grant").await.len(), 1);
    shop.world.stop().await;
}

#[tokio::test]
async fn a_name_that_is_a_script_stays_text_in_a_letter() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "<script>alert(1)</script>", json!({"created_at": day(0)}))
        .await;
    shop.sync().await;
    shop.fire("access-sync").await;
    let mails = shop.mails().await;
    let letter = mails
        .iter()
        .find(|mail| mail["to"].to_string().contains("11@example.com"))
        .unwrap();
    assert!(!letter["html"].as_str().unwrap().contains("<script>"), "{letter}");
    shop.world.stop().await;
}
