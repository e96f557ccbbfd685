//! What the access sync stores, and the time that a run takes, on the embedded DynamoDB.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::time::{Duration, Instant};

use berth::access::AccessSync;
use berth::access::books::{Books, NotKept, Saving};
use berth::access::customer::Customer;
use berth::access::ids::{PersonId, ScriptId, TransactionId};
use berth::access::progress::Event;
use berth::app::App;
use berth::ids::TenantId;
use berth_local::{Fault, Options, Stack};
use serde_json::{Value, json};

const ADA: PersonId = PersonId(11);

fn tenant() -> TenantId {
    TenantId::parse("books").unwrap()
}

fn books(app: &App) -> Books {
    Books::new(app.store().clone(), tenant(), "test", app.clock().now())
}

fn saving(before: Option<Customer>, after: Customer) -> Saving {
    Saving {
        before,
        after,
        events: Vec::new(),
        notices: Vec::new(),
    }
}

/// A customer with so many transactions that wait for another name.
fn waiting(transactions: u32, app: &App) -> Customer {
    let mut customer = Customer::new(ADA);
    // Where it is split there may be a character of two bytes.
    customer.display_name = "é".repeat(20 * transactions as usize);
    let holding = customer.scripts.entry(ScriptId::new("S1")).or_default();
    for number in 0..transactions {
        let transaction = TransactionId::parse(&format!("{}-{number:09}", "x".repeat(40))).unwrap();
        holding.advance(&transaction, &Event::NameUnknown, app.clock().now());
        holding.advance(&transaction, &Event::Dismissed, app.clock().now());
    }
    customer
}

#[tokio::test]
async fn a_customer_of_any_size_is_kept_whole_and_grows_and_shrinks() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let app = stack.app("books-test");
    let mut before: Option<Customer> = None;
    for transactions in [1, 3_000, 6_000, 2, 3_000] {
        let mut after = waiting(transactions, &app);
        after.rev = before.as_ref().map_or(0, |before| before.rev);
        after.parts = before.as_ref().map_or(0, |before| before.parts);
        let saved = books(&app)
            .save(vec![saving(before, after.clone())])
            .await
            .unwrap()
            .remove(0);
        let read = books(&app).customer(ADA).await.unwrap().unwrap();
        assert_eq!(read, saved);
        assert_eq!(read.scripts, after.scripts);
        let partition = "books#PERSON#11";
        let items = app.store().partition(partition, app.clock().now()).await.unwrap();
        assert_eq!(items.len() as u64, 1 + read.parts, "{transactions}");
        before = Some(read);
    }
}

#[tokio::test]
async fn a_large_customer_is_never_read_half_while_it_is_written() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let app = stack.app("books-test");
    let first = books(&app)
        .save(vec![saving(None, waiting(3_000, &app))])
        .await
        .unwrap()
        .remove(0);
    let writing = async {
        let mut before = first;
        for turn in 0..8 {
            let mut after = before.clone();
            after.written = format!("turn {turn}");
            let save = books(&app).save(vec![saving(Some(before), after)]).await;
            before = save.unwrap().remove(0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let reading = async {
        for _ in 0..8 {
            let read = books(&app).customer(ADA).await.unwrap().unwrap();
            assert_eq!(
                read.scripts
                    .values()
                    .map(|held| held.progress.len())
                    .sum::<usize>(),
                3_000
            );
        }
    };
    tokio::join!(writing, reading);
}

#[tokio::test]
async fn a_large_customer_that_another_run_has_written_is_not_overwritten_in_part() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let app = stack.app("books-test");
    let first = books(&app)
        .save(vec![saving(None, waiting(3_000, &app))])
        .await
        .unwrap()
        .remove(0);
    let second = books(&app)
        .save(vec![saving(Some(first.clone()), waiting(3, &app))])
        .await
        .unwrap()
        .remove(0);
    let late = books(&app)
        .save(vec![saving(Some(first), waiting(6_000, &app))])
        .await;
    assert_eq!(late.unwrap_err(), NotKept::Overtaken);
    assert_eq!(books(&app).customer(ADA).await.unwrap().unwrap(), second);
}

#[tokio::test]
async fn a_customer_with_more_open_reviews_than_a_transaction_holds_is_kept() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let app = stack.app("books-test");
    let mut after = waiting(3_000, &app);
    let holding = after.scripts.entry(ScriptId::new("S2")).or_default();
    for number in 0..350 {
        let transaction = TransactionId::parse(&format!("t{number}")).unwrap();
        holding.advance(&transaction, &Event::NameUnknown, app.clock().now());
    }
    let saved = books(&app).save(vec![saving(None, after)]).await.unwrap();
    assert!(saved.first().unwrap().parts > 0);
    let open = books(&app)
        .count_open(berth::access::records::OpenKind::Review)
        .await;
    assert_eq!(open.unwrap(), 350);
}

#[tokio::test]
async fn a_word_of_the_shops_that_comes_while_another_is_followed_is_kept() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let app = stack.app("books-test");
    let transaction = TransactionId::parse("1").unwrap();
    books(&app).save_hint(&transaction).await.unwrap();
    let followed = books(&app).hints().await.unwrap();
    books(&app).save_hint(&transaction).await.unwrap();
    books(&app).drop_hints(&followed).await.unwrap();
    let left = books(&app).hints().await.unwrap();
    assert_eq!(left.len(), 1);
    books(&app).drop_hints(&left).await.unwrap();
    assert_eq!(books(&app).hints().await.unwrap(), Vec::new());
}

#[tokio::test]
async fn a_run_ends_in_its_time_though_counting_would_take_longer() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let app = stack.app("books-test");
    let url = format!("{}/__sandbox/transactions", stack.urls().access);
    let sale = json!([{
        "transaction_id": 1, "user_id": 7, "user_email": "customer7@example.com", "display_name": "Ada",
        "user_meta": {"tradingview_username": "Ada"}, "amount": "49.00", "total": "49.00", "gateway": "stripe",
        "status": "complete", "txn_type": "payment", "subscription_id": "0", "product_id": "100", "trans_num": "ch_1",
        "created_at": app.clock().now().strftime("%Y-%m-%d %H:%M:%S").to_string(), "expires_at": null
    }]);
    app.http().put(url).json(&sale).send().await.unwrap();
    let url = format!("{}/__sandbox/usernames", stack.urls().access);
    app.http().put(url).json(&json!(["Ada"])).send().await.unwrap();
    let sync = AccessSync::new(&app, tenant(), "test");
    let counted = sync.sync(false, Duration::from_secs(60)).await.unwrap();
    assert_eq!(counted.active_users, 1, "{counted:?}");

    stack
        .dynamodb()
        .fail_next_of("Query", 100, Fault::Slow(Duration::from_secs(1)));
    let began = Instant::now();
    let budget = Duration::from_secs(5);
    let report = sync.sync(false, budget).await.unwrap();
    let took = began.elapsed();
    assert!(took < budget + Duration::from_secs(1), "{took:?}");
    let warned = |part: &str| report.warnings.iter().any(|warning| warning.contains(part));
    assert!(warned("no time left to count"), "{report:?}");
    assert_eq!(report.active_users, 1, "the figure is the last one");
}

#[tokio::test]
async fn customers_whose_documents_together_are_too_large_for_a_transaction_are_kept_all_the_same() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let app = stack.app("books-test");
    let persons = || (1..=15).map(PersonId);
    let savings = persons().map(|person| {
        let mut customer = Customer::new(person);
        customer.display_name = "x".repeat(300_000);
        saving(None, customer)
    });
    books(&app).save(savings.collect()).await.unwrap();
    assert_eq!(books(&app).customers(persons()).await.unwrap().len(), 15);
}

/// A row of MemberPress's own list.
fn memberpress_row(id: u64, product: u64) -> Value {
    json!({
        "id": id.to_string(), "amount": "49.00", "total": "49.00", "status": "complete", "txn_type": "payment",
        "gateway": "stripe", "trans_num": format!("ch_{id}"), "subscription": "0",
        "membership": {"id": product.to_string()}, "created_at": "2026-01-10 11:00:00", "expires_at": null,
        "member": {"id": id, "email": "x@example.com", "username": "Ada"}
    })
}

#[tokio::test]
async fn a_refund_that_a_scan_saw_before_it_was_left_off_is_taken_back_when_it_goes_on() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let document = json!({
        "wordpress": {"base_url": "", "kind": "memberpress", "api_key": "sandbox-wordpress-key",
            "api_key_header": "MEMBERPRESS-API-KEY"},
        "tradingview": {"base_url": "", "expiry_format": "datetime"},
        "products": {"100": {"script_id": "S1", "duration_days": 30}}
    });
    file.write_all(document.to_string().as_bytes()).unwrap();
    let options = Options {
        access_config: Some(file.path().to_owned()),
        ..Options::default()
    };
    let stack = Stack::start(options).await.unwrap();
    let app = stack.app("books-test");
    app.clock().set("2026-01-10T12:00:00Z".parse().unwrap());
    let outside = async |method: &str, path: &str, body: Value| {
        let url = format!("{}/__sandbox/{path}", stack.urls().access);
        let request = app.http().request(method.parse().unwrap(), url).json(&body);
        request
            .send()
            .await
            .unwrap()
            .json::<Value>()
            .await
            .unwrap_or_default()
    };
    let mut rows = vec![memberpress_row(1, 100)];
    // Nothing else is for sale here.
    rows.extend((2..=350).map(|id| memberpress_row(id, 999)));
    outside("PUT", "usernames", json!(["Ada"])).await;
    outside("PUT", "transactions", json!(rows)).await;
    let sync = AccessSync::new(&app, tenant(), "test");
    let long = Duration::from_secs(60);
    assert_eq!(sync.sync(false, long).await.unwrap().granted, 1);

    rows[0]["status"] = json!("refunded");
    outside("PUT", "transactions", json!(rows)).await;
    app.clock().advance(25 * 3_600);
    for delay in [0, 2_500] {
        let slow = json!({"operation": "transactions", "kind": "slow", "times": 1, "delay_ms": delay});
        outside("POST", "faults", slow).await;
    }
    // There is time for two pages only.
    let report = sync.sync(false, Duration::from_secs(7)).await.unwrap();
    assert_eq!((report.complete, report.revoked), (false, 0), "{report:?}");
    let report = sync.sync(false, long).await.unwrap();
    assert_eq!(report.revoked, 1, "{report:?}");
    assert_eq!(outside("GET", "access/S1", Value::Null).await, json!([]));
}
