//! What happens outside while a run is under way: somebody gives access by hand, or the shop has news again.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Shop, day, end};

/// How long a call is held up: longer than a list is good for.
const HELD_UP_MS: u64 = 2_600;

impl Shop {
    /// The `nth` call from now on of an operation is held up.
    async fn hold_up(&self, operation: &str, nth: usize) {
        self.forget_calls().await;
        for number in 1..=nth {
            let delay = if number == nth { HELD_UP_MS } else { 0 };
            let fault = json!({"operation": operation, "kind": "slow", "times": 1, "delay_ms": delay});
            self.outside(Method::POST, "/__sandbox/faults", fault).await;
        }
    }

    /// Waits until the `nth` call of a kind has come.
    pub async fn wait_for_call(&self, kind: &str, nth: usize) {
        for _ in 0..600 {
            if self.calls(kind).await.len() >= nth {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("there was no call {nth} of {kind}");
    }

    async fn says(&self, transaction: u64) {
        let body = json!({"event": "transaction-completed", "data": {"id": transaction}});
        let request = self.world.request(Method::POST, "/api/access/webhook");
        let request = request.header("MEMBERPRESS-WEBHOOK-KEY", "sandbox-webhook-key");
        self.world.send(request.json(&body)).await.with_status(202);
    }
}

/// Something that is done while the `nth` call of a kind is held up.
async fn in_between<T>(
    shop: &Shop,
    (kind, nth): (&str, usize),
    held_up: impl Future<Output = T>,
    done: impl Future<Output = ()>,
) -> T {
    let meanwhile = async {
        shop.wait_for_call(kind, nth).await;
        done.await;
    };
    tokio::join!(held_up, meanwhile).0
}

#[tokio::test]
async fn what_is_given_by_hand_while_a_run_is_under_way_is_not_lowered() {
    let mut shop = Shop::open().await;
    shop.know(&["Ada", "Bob", "Cy", "Dan"]).await;
    for (id, person, name) in [(1, 21, "Ada"), (2, 22, "Dan")] {
        shop.sell(id, person, name, json!({})).await;
    }
    shop.sync().await;
    // Bob has the list read, Cy takes long to be looked up, and only then it is Ada's turn, who has bought again, and
    // Dan's, who was paid back.
    shop.advance_days(1).await;
    shop.sell(3, 11, "Bob", json!({})).await;
    shop.sell(4, 12, "Cy", json!({})).await;
    shop.sell(5, 21, "Ada", json!({"total": "5"})).await;
    shop.change(2, json!({"status": "refunded"})).await;
    shop.hold_up("validate", 2).await;
    let by_hand = json!([
        {"username": "Ada", "expiration": end(400)},
        {"username": "Bob", "expiration": end(31)},
        {"username": "Dan", "expiration": end(400)}
    ]);
    let report = in_between(&shop, ("validate", 2), shop.sync(), shop.give("S1", by_hand)).await;
    let access = shop.access("S1").await;
    assert_eq!(
        (&access["Ada"], &access["Dan"]),
        (&end(430), &end(400)),
        "{}",
        report.text
    );
    shop.world.stop().await;
}

#[tokio::test]
async fn news_about_a_row_that_come_while_it_is_read_are_followed_by_the_next_run() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"status": "pending"})).await;
    shop.sell(2, 12, "Bob", json!({})).await;
    shop.sync().await;
    shop.heal().await;
    // Words about both wait while a run is under way.
    shop.hold_up("transactions", 1).await;
    let both = async {
        shop.says(1).await;
        shop.says(2).await;
    };
    in_between(&shop, ("transactions", 1), shop.says(2), both).await;
    // The first row is read, by two calls; while the second is, the shop has news about the first.
    shop.hold_up("transactions", 3).await;
    let paid = async {
        let complete = json!({"transaction_id": 1, "status": "complete"});
        shop_with(&shop, complete).await;
        shop.says(1).await;
    };
    in_between(&shop, ("transactions", 3), shop.fire("access-sync"), paid).await;
    shop.fire("access-sync").await;
    let access = shop.access("S1").await;
    assert_eq!(access["Ada"], end(30), "{access}");
    shop.world.stop().await;
}

/// The rows of the shop, of which one changes. The story itself does not learn of it.
async fn shop_with(shop: &Shop, change: Value) {
    let mut rows: Vec<Value> = shop.rows.values().cloned().collect();
    for row in rows
        .iter_mut()
        .filter(|row| row["transaction_id"] == change["transaction_id"])
    {
        super::merge(row, change.clone());
    }
    shop.show_raw(json!(rows)).await;
}

#[tokio::test]
async fn an_approved_plan_makes_no_call_that_it_does_not_have() {
    let mut shop = Shop::open().await;
    shop.sell(1, 11, "Ada", json!({"created_at": day(0)})).await;
    shop.sell(2, 12, "Bob", json!({"created_at": day(0)})).await;
    let plan = shop
        .operator(Method::GET, "/api/access/plan", json!({}))
        .await
        .with_status(200);
    assert_eq!(plan["plan"].as_array().unwrap().len(), 2, "{}", plan.text);
    let path = format!("/api/access/plans/{}/approve", plan["id"].as_str().unwrap());
    shop.hold_up("grant", 1).await;
    let by_hand = json!([
        {"username": "Ada", "expiration": end(30)},
        {"username": "Bob", "expiration": end(90)}
    ]);
    let approving = shop.operator(Method::POST, &path, json!({}));
    let report = in_between(&shop, ("/grant", 1), approving, shop.give("S1", by_hand))
        .await
        .with_status(200);
    assert_eq!(
        (&report["granted"], &report["extended"]),
        (&json!(1), &json!(0)),
        "{}",
        report.text
    );
    assert!(
        report["warnings"].to_string().contains("as the plan has it"),
        "{}",
        report.text
    );
    assert_eq!(shop.access("S1").await["Bob"], end(90));
    // What was bought is added to what was given by hand as soon as it is not a plan that is carried out.
    shop.sync().await;
    assert_eq!(shop.access("S1").await["Bob"], end(120));
    shop.world.stop().await;
}

#[tokio::test]
async fn a_run_stays_the_only_one_while_one_customer_takes_long() {
    let product = json!({"script_id": "S1", "script_ids": ["S2", "S3", "S4"], "duration_days": 30});
    let mut shop = Shop::with(json!({"products": {"500": product}})).await;
    shop.sell(1, 11, "Ada", json!({"product_id": "500"})).await;
    for _ in 0..4 {
        let slow = json!({"operation": "grant", "kind": "slow", "times": 1, "delay_ms": 1_500});
        shop.outside(Method::POST, "/__sandbox/faults", slow).await;
    }
    // Each of the scripts takes most of a minute by the stack's own clock, and a run is let go after two minutes.
    let minutes = async {
        for nth in 1..=3 {
            shop.wait_for_call("/grant", nth).await;
            shop.world.advance(50).await;
        }
        shop.operator(Method::POST, "/api/access/sync", json!({}))
            .await
            .problem(409, "operation_in_progress");
    };
    let (report, ()) = tokio::join!(shop.sync(), minutes);
    assert_eq!(
        (&report["granted"], &report["complete"]),
        (&json!(4), &json!(true)),
        "{}",
        report.text
    );
    shop.world.stop().await;
}
