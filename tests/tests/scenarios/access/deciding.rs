//! Operators' lists and what they take out and over.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Shop, day, end};

#[tokio::test]
async fn a_scripts_master_data_has_the_shape_of_the_program_before() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "ada", json!({"created_at": day(0)})).await;
    shop.sell(2, 12, "Nobody", json!({"created_at": day(0)})).await;
    shop.sync().await;
    let data = shop
        .operator(Method::GET, "/api/access/scripts/S1", json!({}))
        .await
        .with_status(200);
    let ada = &data["users"]["Ada"];
    assert_eq!(
        (&ada["email"], &ada["wp_user_id"], &ada["wp_username"]),
        (&json!("11@example.com"), &json!(11), &json!("member11")),
        "{}",
        data.text
    );
    assert_eq!((&ada["expiry"], &ada["lifetime"]), (&end(30), &json!(false)));
    assert_eq!(ada["history"][0]["transaction_id"], "1");
    assert_eq!(data["processed_transactions"], json!(["1"]));
    assert_eq!(data["manual_review"][0]["reason"], "invalid_username");
    for name in ["script_id", "retry_queue", "last_synced_at", "last_processed_at"] {
        assert!(data.body.get(name).is_some(), "{name}: {}", data.text);
    }
    shop.operator(Method::GET, "/api/access/scripts/S99", json!({}))
        .await
        .problem(404, "not_found");

    // Somebody whose access ended stays, with what was bought.
    shop.change(1, json!({"status": "refunded"})).await;
    shop.sync().await;
    let data = shop
        .operator(Method::GET, "/api/access/scripts/S1", json!({}))
        .await
        .with_status(200);
    assert_eq!(
        data["users"]["Ada"]["history"][0]["reversed"], true,
        "{}",
        data.text
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn reviews_are_listed_in_pages() {
    let mut shop = Shop::open().await;
    for id in 1..=5 {
        shop.sell(id, 10 + id, &format!("nobody{id}"), json!({"created_at": day(0)}))
            .await;
    }
    shop.sync().await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/access/reviews?limit=2{cursor}");
        let page = shop
            .operator(Method::GET, &path, json!({}))
            .await
            .with_status(200);
        seen.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|review| review["person"].as_u64().unwrap()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [11, 12, 13, 14, 15]);
    shop.world.stop().await;
}

#[tokio::test]
async fn rows_of_a_product_that_is_configured_later_are_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut shop = Shop::on(directory.path()).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0), "product_id": 999}))
        .await;
    let report = shop.sync().await;
    assert_eq!(report["ignored"], json!({"unmapped_product": 1}));
    let mapped = json!({"products": {"999": {"script_id": "S9", "duration_days": 30}}});
    let shop = shop.reopened(directory.path(), mapped).await;
    // The row is the same as before, so nothing but a resync looks at it again.
    assert_eq!(shop.sync().await["considered"], 0);
    let report = shop
        .operator(Method::POST, "/api/access/resync", json!({"product_id": "999"}))
        .await
        .with_status(200);
    assert_eq!(
        (&report["considered"], &report["granted"]),
        (&json!(1), &json!(1)),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S9").await, json!({"Ada": end(30)}));
    shop.world.stop().await;
}

#[tokio::test]
async fn what_was_bought_keeps_its_script_when_its_product_opens_another() {
    let directory = tempfile::tempdir().unwrap();
    let mut shop = Shop::on(directory.path()).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sync().await;
    let mapped = json!({"products": {"100": {"script_id": "S5"}}});
    let mut shop = shop.reopened(directory.path(), mapped).await;
    shop.sell(2, 12, "Bob", json!({"created_at": day(0)})).await;
    shop.sync().await;
    shop.operator(Method::POST, "/api/access/resync", json!({"product_id": "100"}))
        .await
        .with_status(200);
    assert_eq!(shop.access("S1").await, json!({"Ada": end(30)}));
    assert_eq!(shop.access("S5").await["Bob"], end(30));
    shop.world.stop().await;
}

#[tokio::test]
async fn the_chain_of_what_happened_to_a_customer_is_whole() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sync().await;
    shop.change(1, json!({"status": "refunded"})).await;
    shop.sync().await;
    let table = shop.world.table().await;
    let chain: Vec<&Value> = (table.iter())
        .filter(|((pk, sk), _)| pk.ends_with("#PERSON#11") && sk.starts_with("AUDIT#"))
        .map(|(_, entry)| entry)
        .collect();
    let events: Vec<&Value> = chain.iter().map(|entry| &entry["events"][0]["event"]).collect();
    assert_eq!(events, [&json!("access.granted"), &json!("access.revoked")]);
    assert_eq!(
        (&chain[0]["previous"], &chain[1]["previous"]),
        (&json!(""), &chain[0]["hash"])
    );
    shop.world.stop().await;
}
