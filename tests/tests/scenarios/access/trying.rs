//! Dry runs say what would be done and leave no trace.

use serde_json::{Value, json};

use super::{Shop, day, end};

#[tokio::test]
async fn a_dry_run_leaves_store_access_and_mailboxes_as_they_are() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sell(2, 12, "Nobody", json!({"created_at": day(0)})).await;
    for round in 0..2 {
        let before = shop.world.table().await;
        let report = shop.dry_run().await;
        let (from, to) = if round == 0 {
            (Value::Null, end(30))
        } else {
            (end(30), end(60))
        };
        let (kind, counted) = if round == 0 {
            ("grant", "granted")
        } else {
            ("update", "extended")
        };
        assert_eq!(
            (&report["dry_run"], &report[counted], &report["manual_review"]),
            (&json!(true), &json!(1), &json!(1)),
            "{}",
            report.text
        );
        let planned = report["plan"].as_array().unwrap();
        assert_eq!(planned.len(), 1, "{}", report.text);
        let action = &planned[0];
        assert_eq!(
            (&action["script_id"], &action["person"], &action["username"]),
            (&json!("S1"), &json!(11), &json!("Ada"))
        );
        assert_eq!(
            (&action["action"], &action["from"], &action["to"]),
            (&json!(kind), &from, &to)
        );
        assert_eq!(shop.world.table().await, before, "a dry run wrote something");
        assert_eq!(shop.mails().await, Vec::<Value>::new());
        if round == 1 {
            break;
        }
        assert_eq!(shop.access("S1").await, json!({}));
        // After a real run the next purchase is shown as what it is. The wrong name is taken out of the way.
        shop.forget(2).await;
        shop.sync().await;
        shop.sell(3, 11, "Ada", json!({"created_at": day(0), "total": "9"}))
            .await;
        shop.sell(2, 12, "Nobody", json!({"created_at": day(0)})).await;
    }
    shop.world.stop().await;
}

#[tokio::test]
async fn a_schedule_that_is_dry_leaves_no_trace_either() {
    let mut shop = Shop::with(json!({"scheduler": {"dry_run": true}})).await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    let before = shop.world.table().await;
    shop.fire("access-sync").await;
    assert_eq!(shop.world.table().await, before);
    assert_eq!(shop.access("S1").await, json!({}));
    assert!(!shop.calls("transactions").await.is_empty());
    shop.world.stop().await;
}

#[tokio::test]
async fn the_schedule_waits_for_its_interval_and_sees_to_what_is_due_between() {
    let mut shop = Shop::open().await;
    shop.fire("access-sync").await;
    let read = shop.calls("transactions").await.len();
    shop.world.advance(60).await;
    shop.fire("access-sync").await;
    assert_eq!(
        shop.calls("transactions").await.len(),
        read,
        "the interval had not passed"
    );
    shop.sell(1, 11, "Ada", json!({})).await;
    shop.fail_with("grant", 500, 4).await;
    shop.world.advance(15 * 60).await;
    shop.fire("access-sync").await;
    assert_eq!(shop.access("S1").await, json!({}));
    shop.world.advance(61).await;
    shop.fire("access-sync").await;
    assert!(
        shop.access("S1").await.get("Ada").is_some(),
        "what failed was not tried again"
    );
    shop.world.stop().await;
}
