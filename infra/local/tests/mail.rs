//! The access sync's outbox and its sending, on the embedded DynamoDB and the mail server of the sandbox.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use berth::access::AccessSync;
use berth::access::books::{Books, Saving};
use berth::access::configuration::{Discord, Mail, MailTls};
use berth::access::customer::Customer;
use berth::access::ids::{PersonId, ScriptId, TransactionId};
use berth::access::mail::dispatch::LEASE;
use berth::access::mail::{Digest, Notice, Sent, UnknownName, notice, send_due, to_operator, unless_there};
use berth::access::progress::Event;
use berth::app::App;
use berth::clock::Clock;
use berth::ids::TenantId;
use berth::store::{Condition, Key, Transaction, Write};
use berth::telemetry::{Invocation, in_invocation, new_id};
use berth_local::{Fault, Options, Stack};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

const DAY: i64 = 86_400;

/// A stack with an outbox of its own.
struct Outbox {
    stack: Stack,
    app: App,
    mail: Mail,
}

impl Outbox {
    async fn start() -> Self {
        let stack = Stack::start(Options::default()).await.unwrap();
        let port = stack.urls().mail.rsplit(':').next().unwrap().parse().unwrap();
        Self {
            app: stack.app("mail-test"),
            mail: Mail {
                server: "127.0.0.1".to_owned(),
                port,
                tls: MailTls::None,
                credentials: Some(("shop".to_owned(), "secret".to_owned().into())),
                from: "shop@example.com".to_owned(),
                bcc: vec!["archive@example.com".to_owned()],
                operator: Some("operator@example.com".to_owned()),
            },
            stack,
        }
    }

    fn clock(&self) -> &Clock {
        self.app.clock()
    }

    async fn transact(&self, writes: Vec<Write>) {
        let token = new_id();
        let transaction = Transaction { token, writes };
        let made = self.app.store().transact(&transaction, self.clock().now()).await;
        assert!(made.unwrap().is_made());
    }

    fn books(&self) -> Books {
        let (store, now) = (self.app.store().clone(), self.clock().now());
        Books::new(store, tenant(), "mail-test", now)
    }

    /// The customer wrote a name that TradingView does not know, under a purchase for each of these scripts.
    async fn put_for(&self, unknown: UnknownName, scripts: &[&str]) {
        let before = self.books().customer(unknown.person).await.unwrap();
        let mut after = before.clone().unwrap_or_else(|| Customer::new(unknown.person));
        after.email.clone_from(&unknown.to);
        after.written.clone_from(&unknown.written);
        for script in scripts {
            let holding = after.scripts.entry(ScriptId::new(*script)).or_default();
            let bought = TransactionId::parse("1").unwrap();
            holding.advance(&bought, &Event::NameUnknown, self.clock().now());
        }
        let notice = notice(&tenant(), &Notice::UnknownName(unknown), self.clock().now()).unwrap();
        let saving = Saving {
            before,
            after,
            events: Vec::new(),
            notices: vec![unless_there(notice)],
        };
        self.books().save(vec![saving]).await.unwrap();
    }

    async fn put(&self, unknown: UnknownName) {
        self.put_for(unknown, &["S1"]).await;
    }

    async fn change(&self, person: u64, change: impl Fn(&mut Customer)) {
        let before = self.books().customer(PersonId(person)).await.unwrap();
        let mut after = before.clone().unwrap();
        change(&mut after);
        let saving = Saving {
            before,
            after,
            events: Vec::new(),
            notices: Vec::new(),
        };
        self.books().save(vec![saving]).await.unwrap();
    }

    async fn send_with(&self, mail: Option<&Mail>, discord: Option<&Discord>) -> Sent {
        let until = Instant::now() + Duration::from_secs(60);
        let (store, http) = (self.app.store(), self.app.http());
        send_due(store, &tenant(), mail, discord, http, self.clock(), until).await
    }

    async fn send(&self) -> Sent {
        self.send_with(Some(&self.mail), None).await
    }

    async fn control(&self, path: &str) -> Value {
        let url = format!("{}/__sandbox/{path}", self.stack.urls().access);
        self.app
            .http()
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    /// The mails that the server got.
    async fn mails(&self) -> Vec<Value> {
        self.control("mail").await.as_array().unwrap().clone()
    }

    async fn subjects(&self) -> Vec<String> {
        let mails = self.mails().await;
        let subjects = mails
            .iter()
            .map(|mail| mail["subject"].as_str().unwrap().to_owned());
        subjects.collect()
    }

    async fn fault(&self, mut fault: Value) {
        let operation = ("operation".to_owned(), json!("mail"));
        fault.as_object_mut().unwrap().extend([operation]);
        let url = format!("{}/__sandbox/faults", self.stack.urls().access);
        let answer = self.app.http().post(url).json(&fault).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
}

fn tenant() -> TenantId {
    TenantId::parse("post").unwrap()
}

fn unknown(person: u64) -> UnknownName {
    UnknownName {
        person: PersonId(person),
        to: format!("customer{person}@example.com"),
        called: "Ada".to_owned(),
        written: "adda".to_owned(),
        suggestions: vec!["Ada".to_owned(), "ada_l".to_owned()],
    }
}

fn sent(mails: u64) -> Sent {
    Sent {
        mails,
        ..Sent::default()
    }
}

fn failed(failed: u64) -> Sent {
    Sent {
        failed,
        ..Sent::default()
    }
}

#[tokio::test]
async fn a_notice_that_is_put_in_again_and_again_is_sent_once() {
    let post = Outbox::start().await;
    for _ in 0..2 {
        post.put(unknown(7)).await;
    }
    let invocation = Invocation {
        request_id: new_id(),
        correlation_id: new_id(),
        function: "mail-test",
        cold_start: false,
    };
    let (outcome, calls) = in_invocation(invocation, post.send()).await;
    assert_eq!((outcome, calls.mail), (sent(1), 1));
    post.put(unknown(7)).await;
    assert_eq!(post.send().await, sent(0));
    let mails = post.mails().await;
    assert_eq!(mails.len(), 1);
    let mail = &mails[0];
    assert_eq!(
        (&mail["to"], &mail["bcc"], &mail["from"]),
        (
            &json!("customer7@example.com"),
            &json!("archive@example.com"),
            &json!("shop@example.com")
        )
    );
    for part in ["html", "text"] {
        let part = mail[part].as_str().unwrap();
        assert!(part.contains("adda") && part.contains("Did you mean") && part.contains("ada_l"));
    }
}

#[tokio::test]
async fn a_notice_that_was_sent_holds_up_no_transaction_and_stays_sent() {
    let post = Outbox::start().await;
    let key = Key::new("post#PERSON#7", "CUSTOMER");
    let digest = {
        let mut digest = Digest::new("run-1", post.clock().now());
        digest.alerts.push("The access API lets nobody in.".to_owned());
        digest
    };
    for _ in 0..2 {
        let mut writes: Vec<Write> =
            to_operator(&tenant(), Some(&post.mail), None, &digest, post.clock().now())
                .unwrap()
                .into_iter()
                .map(unless_there)
                .collect();
        assert_eq!(writes.len(), 1);
        writes.push(Write::Put {
            item: key.to_item(),
            condition: Condition::Always,
        });
        post.transact(writes).await;
        post.send().await;
    }
    assert_eq!(post.subjects().await, ["Access sync: it needs you"]);
}

#[tokio::test]
async fn a_wrong_name_under_several_purchases_of_several_scripts_is_one_letter() {
    let outbox = Outbox::start().await;
    let sale = |id: u64| {
        json!({
            "transaction_id": id, "user_id": 7, "user_email": "customer7@example.com", "display_name": "Ada",
            "user_meta": {"tradingview_username": "adda"}, "amount": "490.00", "total": "490.00", "gateway": "stripe",
            "status": "complete", "txn_type": "payment", "subscription_id": "0", "product_id": "200",
            "trans_num": format!("ch_{id}"), "created_at": format!("2026-01-0{id} 10:00:00"), "expires_at": null
        })
    };
    let url = format!("{}/__sandbox/transactions", outbox.stack.urls().access);
    let rows = json!([sale(1), sale(2)]);
    let answer = outbox.app.http().put(url).json(&rows).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let sync = AccessSync::new(&outbox.app, tenant(), "test");
    let report = sync.sync(false, Duration::from_secs(60)).await.unwrap();
    assert_eq!(report.manual_review, 4);
    outbox.send().await;
    let mails = outbox.mails().await;
    let letters = mails.iter().filter(|mail| mail["to"] == "customer7@example.com");
    assert_eq!(letters.count(), 1, "{mails:?}");
}

#[tokio::test]
async fn senders_at_the_same_time_send_each_letter_once() {
    let post = Outbox::start().await;
    for person in 0..130 {
        post.put(unknown(person)).await;
    }
    let (one, two, three) = tokio::join!(post.send(), post.send(), post.send());
    assert_eq!(one.mails + two.mails + three.mails, 130);
    assert_eq!(post.send().await, sent(0));
    let mut to: Vec<String> = post
        .mails()
        .await
        .iter()
        .map(|mail| mail["to"].to_string())
        .collect();
    to.sort();
    to.dedup();
    assert_eq!(to.len(), 130);
}

#[tokio::test]
async fn a_mail_server_that_is_down_for_weeks_costs_no_letter() {
    let post = Outbox::start().await;
    for person in 0..8 {
        post.put(unknown(person)).await;
    }
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let down = Mail {
        port: nobody.port(),
        ..post.mail.clone()
    };
    for _ in 0..10 {
        let outcome = post.send_with(Some(&down), None).await;
        assert!(outcome.mails == 0 && outcome.failed > 0, "{outcome:?}");
        post.clock().advance(3 * DAY);
    }
    assert_eq!(post.send().await, sent(8));
}

#[tokio::test]
async fn no_letter_goes_out_unencrypted_unless_it_is_configured_so() {
    let post = Outbox::start().await;
    post.put(unknown(7)).await;
    for tls in [MailTls::StartTls, MailTls::Tls] {
        let encrypted = Mail {
            tls,
            ..post.mail.clone()
        };
        assert_eq!(post.send_with(Some(&encrypted), None).await, failed(1));
    }
    assert_eq!(post.mails().await, Vec::<Value>::new());
    assert_eq!(post.send().await, sent(1));
}

#[tokio::test]
async fn a_refused_letter_waits_and_is_sent_then() {
    let post = Outbox::start().await;
    post.put(unknown(7)).await;
    for status in [450, 550] {
        post.fault(json!({"kind": "status", "status": status})).await;
        assert_eq!(post.send().await, failed(1));
        assert_eq!(post.send().await, sent(0), "it is not due yet");
        post.clock().advance(301);
    }
    assert_eq!(post.send().await, sent(1));
}

#[tokio::test]
async fn one_bad_letter_holds_up_no_other_and_many_in_a_row_end_the_run() {
    let post = Outbox::start().await;
    for person in 0..3 {
        post.put(unknown(person)).await;
    }
    post.fault(json!({"kind": "status", "status": 550})).await;
    let outcome = post.send().await;
    assert_eq!((outcome.mails, outcome.failed), (2, 1));

    for person in 10..40 {
        post.put(unknown(person)).await;
    }
    post.fault(json!({"kind": "status", "status": 451, "times": 1_000}))
        .await;
    let outcome = post.send().await;
    assert_eq!(outcome.mails, 0);
    assert!((5..10).contains(&outcome.failed), "{outcome:?}");
}

#[tokio::test]
async fn a_letter_whose_sender_died_is_sent_by_another_but_not_before_it_is_certain() {
    let post = Outbox::start().await;
    post.put(unknown(7)).await;
    post.fault(json!({"kind": "timeout"})).await;
    let dies = tokio::time::timeout(Duration::from_millis(500), post.send());
    assert!(dies.await.is_err(), "the server is silent");
    assert_eq!(post.send().await, sent(0));
    post.clock().advance(i64::try_from(LEASE.as_secs()).unwrap());
    assert_eq!(post.send().await, sent(1));
    assert_eq!(post.mails().await.len(), 1);
}

#[tokio::test]
async fn a_letter_without_an_understandable_answer_is_sent_again_later() {
    let post = Outbox::start().await;
    post.put(unknown(7)).await;
    post.fault(json!({"kind": "malformed"})).await;
    assert_eq!(post.send().await, failed(1));
    post.clock().advance(61);
    assert_eq!(post.send().await, sent(1));
}

#[tokio::test]
async fn a_letter_is_settled_though_the_table_fails_or_loses_its_answer() {
    let post = Outbox::start().await;
    for (person, fault) in [(7, Fault::LostAnswer), (8, Fault::Error500)] {
        post.put(unknown(person)).await;
        // The first write takes the letter, the second one settles it.
        post.stack.dynamodb().fail_next_of("PutItem", 2, fault);
        assert_eq!(post.send().await, sent(1));
    }
    post.clock().advance(3_600);
    assert_eq!(post.send().await, sent(0));
    assert_eq!(post.mails().await.len(), 2);
}

#[tokio::test]
async fn reminders_come_after_three_and_ten_days_while_a_review_of_the_name_is_open() {
    let post = Outbox::start().await;
    for person in [7, 8] {
        post.put_for(unknown(person), &["S1", "S2"]).await;
    }
    assert_eq!(post.send().await, sent(2));
    post.clock().advance(2 * DAY);
    assert_eq!(post.send().await, sent(0));
    // The first of two reviews is dismissed, and the other one waits for the name all the same.
    post.change(8, |customer| {
        customer.scripts.remove(&ScriptId::new("S1"));
    })
    .await;
    post.clock().advance(DAY + 60);
    assert_eq!(post.send().await, sent(2));

    post.change(7, |customer| customer.scripts.clear()).await;
    post.clock().advance(7 * DAY);
    assert_eq!(post.send().await, sent(1));
    post.clock().advance(60 * DAY);
    assert_eq!(post.send().await, sent(0));
    let last = post.mails().await.pop().unwrap();
    assert_eq!(last["to"], "customer8@example.com");
    assert!(last["text"].as_str().unwrap().contains("last reminder"));
    assert_eq!(post.mails().await.len(), 5);
}

#[tokio::test]
async fn a_reminder_goes_to_the_present_address_and_not_after_another_name_was_written() {
    let post = Outbox::start().await;
    for person in [7, 8] {
        post.put(unknown(person)).await;
    }
    assert_eq!(post.send().await, sent(2));
    post.change(7, |customer| customer.email = "ada@example.org".to_owned())
        .await;
    // What waits now waits for another name than the letter is about.
    post.change(8, |customer| customer.written = "addda".to_owned())
        .await;
    post.clock().advance(3 * DAY);
    assert_eq!(post.send().await, sent(1));
    let last = post.mails().await.pop().unwrap();
    assert_eq!(last["to"], "ada@example.org");
}

#[tokio::test]
async fn what_is_no_address_gets_nothing_and_the_operator_is_told() {
    let post = Outbox::start().await;
    for (person, to) in [
        (1, "customer1@example.com\r\nBcc: eve@example.com"),
        (2, ""),
        (3, "nobody"),
    ] {
        let to = to.to_owned();
        post.put(UnknownName {
            to,
            ..unknown(person)
        })
        .await;
    }
    assert_eq!(post.send().await, failed(3));
    assert_eq!(post.mails().await, Vec::<Value>::new());
    assert_eq!(post.send().await, sent(1));
    let mails = post.mails().await;
    assert_eq!(
        (&mails[0]["to"], &mails[0]["subject"]),
        (
            &json!("operator@example.com"),
            &json!("Access sync: 3 things to look at")
        )
    );
    let text = mails[0]["text"].as_str().unwrap();
    for customer in 1..=3 {
        assert!(text.contains(&format!("customer {customer}")), "{text}");
    }
    post.clock().advance(100 * DAY);
    assert_eq!(post.send().await, sent(0));
}

#[tokio::test]
async fn people_are_reached_at_addresses_and_under_names_of_any_script() {
    let post = Outbox::start().await;
    for (person, to) in [(1, "ada@bücher.example"), (2, "用户@example.com")] {
        let (to, called) = (to.to_owned(), "山田 太郎".to_owned());
        let unknown = UnknownName {
            to,
            called,
            written: "Адда".to_owned(),
            ..unknown(person)
        };
        post.put(unknown).await;
    }
    assert_eq!(post.send().await, sent(2));
    let mails = post.mails().await;
    let mut to: Vec<&str> = mails.iter().map(|mail| mail["to"].as_str().unwrap()).collect();
    to.sort_unstable();
    assert_eq!(to, ["ada@xn--bcher-kva.example", "用户@example.com"]);
    for mail in &mails {
        let text = mail["text"].as_str().unwrap();
        assert!(
            text.contains("Hello 山田 太郎,") && text.contains("Адда"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn without_a_mail_server_letters_wait() {
    let post = Outbox::start().await;
    post.put(unknown(7)).await;
    assert_eq!(post.send_with(None, None).await, Sent::default());
    assert_eq!(post.send().await, sent(1));
}

type Posts = Arc<Mutex<Vec<Value>>>;

/// Stands for Discord: is busy the first time.
async fn take(State(posts): State<Posts>, body: String) -> Response {
    let mut posts = posts.lock().unwrap();
    posts.push(serde_json::from_str(&body).unwrap());
    match posts.len() {
        1 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "90.5")]).into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

#[tokio::test]
async fn a_post_to_a_busy_discord_comes_later_and_mentions_nobody() {
    let outbox = Outbox::start().await;
    let posts = Posts::default();
    let router = Router::new()
        .route("/hook", post(take))
        .with_state(Arc::clone(&posts));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let discord = Discord {
        webhook_url: format!("http://{}/hook", listener.local_addr().unwrap()).into(),
        author: Some("Berth".to_owned()),
    };
    tokio::spawn(async { axum::serve(listener, router).await });

    let mut digest = Digest::new("run-1", outbox.clock().now());
    digest.warnings.push("@everyone 100 of 100 users".to_owned());
    let now = outbox.clock().now();
    let writes = to_operator(&tenant(), None, Some(&discord), &digest, now)
        .unwrap()
        .into_iter()
        .map(unless_there)
        .collect();
    outbox.transact(writes).await;
    assert_eq!(outbox.send_with(None, Some(&discord)).await, failed(1));
    outbox.clock().advance(60);
    assert_eq!(outbox.send_with(None, Some(&discord)).await, Sent::default());
    outbox.clock().advance(31);
    let outcome = outbox.send_with(None, Some(&discord)).await;
    assert_eq!((outcome.posts, outcome.failed), (1, 0));
    let posts = posts.lock().unwrap();
    assert_eq!(posts.len(), 2);
    assert_eq!(posts[1]["username"], "Berth");
    assert_eq!(posts[1]["allowed_mentions"], json!({"parse": []}));
    assert!(posts[1]["content"].as_str().unwrap().contains("100 of 100 users"));
}
