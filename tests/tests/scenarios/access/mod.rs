//! The access sync: what customers buy at the shop, and what the access API is told because of it.

mod buying;
mod deciding;
mod failing;
mod large;
mod malformed;
mod meanwhile;
mod names;
mod policies;
mod replaced;
mod returning;
mod rules;
mod taking_back;
mod trying;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use berth_local::{Data, Options};
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::world::{Answer, World};

/// When each story begins.
pub const BEGINS: &str = "2026-01-10T12:00:00Z";

/// A shop, the access API and the sync between them.
pub struct Shop {
    pub world: World,
    rows: BTreeMap<u64, Value>,
    _configuration: NamedTempFile,
}

/// What there is to write into a configuration beside what all have in common.
pub fn configuration(extra: Value) -> Value {
    let mut document = json!({
        "wordpress": {"base_url": "", "api_key": "sandbox-wordpress-key", "webhook_key": "sandbox-webhook-key"},
        "tradingview": {
            "base_url": "", "retry_backoff_seconds": [0, 0, 0], "grants_per_second": 0,
            "validations_per_second": 0, "expiry_format": "datetime"
        },
        "products": {
            "100": {"script_id": "S1", "duration_days": 30, "subscription_type": "monthly"},
            "200": {"script_id": "S1", "script_ids": ["S2"], "duration": "1Y", "subscription_type": "yearly"},
            "300": {"script_id": "S3", "duration": "L", "lifetime": true},
            "400": {"script_id": "S4", "duration_days": 30, "stacking_allowed": false}
        },
        "scheduler": {"interval_minutes": 15},
        "email": {
            "smtp_server": "", "from_email": "shop@example.com", "operator_email": "operator@example.com"
        }
    });
    merge(&mut document, extra);
    document
}

fn merge(into: &mut Value, extra: Value) {
    match (into, extra) {
        (Value::Object(into), Value::Object(extra)) => {
            for (name, value) in extra {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, extra) => *into = extra,
    }
}

impl Shop {
    /// An empty shop, where TradingView knows Ada, Bob and Cy.
    pub async fn open() -> Self {
        Self::with(json!({})).await
    }

    /// The same with other settings.
    pub async fn with(extra: Value) -> Self {
        Self::start(extra, Data::Memory { announce: None })
            .await
            .furnished()
            .await
    }

    /// The same, which keeps what it has in `directory`.
    pub async fn on(directory: &Path) -> Self {
        let kept = Data::Directory(directory.to_owned());
        Self::start(json!({}), kept).await.furnished().await
    }

    /// The shop on `directory` started again with other settings.
    pub async fn reopened(self, directory: &Path, extra: Value) -> Self {
        let (now, rows) = (self.now(), self.rows);
        self.world.stop().await;
        let kept = Data::Directory(directory.to_owned());
        let shop = Self {
            rows,
            ..Self::start(extra, kept).await
        };
        shop.set_time(&now.to_string()).await;
        shop
    }

    async fn start(extra: Value, data: Data) -> Self {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(configuration(extra).to_string().as_bytes())
            .unwrap();
        let world = World::with(Options {
            access_config: Some(file.path().to_owned()),
            data,
            ..Options::default()
        })
        .await;
        Self {
            world,
            rows: BTreeMap::new(),
            _configuration: file,
        }
    }

    async fn furnished(self) -> Self {
        self.set_time(BEGINS).await;
        self.know(&["Ada", "Bob", "Cy"]).await;
        self
    }

    /// A call to the sandboxes of the shop and the access API.
    pub async fn outside(&self, method: Method, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.world.stack().urls().access);
        let request = berth::snaptrade::http_client().unwrap().request(method, url);
        let answer = request.json(&body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path} {body}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    // ---- Time ----

    pub async fn set_time(&self, now: &str) {
        let request = self
            .world
            .request(Method::PUT, "/__local/clock")
            .json(&json!({"now": now}));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }

    pub async fn advance_days(&self, days: i64) {
        self.world.advance(days * 86_400).await;
    }

    pub fn now(&self) -> Timestamp {
        self.world.stack().clock().now()
    }

    // ---- The shop ----

    /// Sells product 100 to `name`, now; `change` says what is different about the row.
    pub async fn sell(&mut self, id: u64, person: u64, name: &str, change: Value) {
        let mut row = json!({
            "transaction_id": id, "user_id": person, "user_email": format!("{person}@example.com"),
            "user_login": format!("member{person}"), "display_name": format!("Member {person}"),
            "user_meta": {"tradingview_username": name}, "amount": "49.00", "total": "49.00",
            "status": "complete", "txn_type": "payment", "subscription_id": "0", "product_id": "100",
            "gateway": "stripe", "trans_num": format!("ch_{id}"),
            "created_at": self.now().strftime("%Y-%m-%d %H:%M:%S").to_string(), "expires_at": null
        });
        merge(&mut row, change);
        self.rows.insert(id, row);
        self.show().await;
    }

    /// Changes a row.
    pub async fn change(&mut self, id: u64, change: Value) {
        merge(self.rows.get_mut(&id).unwrap(), change);
        self.show().await;
    }

    /// Changes all rows of a member.
    pub async fn change_member(&mut self, person: u64, change: Value) {
        for row in self.rows.values_mut().filter(|row| row["user_id"] == person) {
            merge(row, change.clone());
        }
        self.show().await;
    }

    pub async fn forget(&mut self, id: u64) {
        self.rows.remove(&id).unwrap();
        self.show().await;
    }

    async fn show(&self) {
        let rows: Vec<&Value> = self.rows.values().collect();
        self.outside(Method::PUT, "/__sandbox/transactions", json!(rows))
            .await;
    }

    pub async fn show_raw(&self, rows: Value) {
        self.outside(Method::PUT, "/__sandbox/transactions", rows).await;
    }

    // ---- TradingView ----

    pub async fn know(&self, names: &[&str]) {
        self.outside(Method::PUT, "/__sandbox/usernames", json!(names))
            .await;
    }

    pub async fn give(&self, script: &str, users: Value) {
        self.outside(Method::PUT, &format!("/__sandbox/access/{script}"), users)
            .await;
    }

    /// Who has access to a script until when; `null` is for ever.
    pub async fn access(&self, script: &str) -> Value {
        let users = self
            .outside(Method::GET, &format!("/__sandbox/access/{script}"), json!({}))
            .await;
        let ends = users.as_array().unwrap().iter();
        ends.map(|user| {
            (
                user["username"].as_str().unwrap().to_owned(),
                user["expiration"].clone(),
            )
        })
        .collect()
    }

    /// The requests of one kind so far: `grant`, `update`, `remove`, `validate`, `scriptUsers`, `transactions`.
    pub async fn calls(&self, kind: &str) -> Vec<Value> {
        let requests = self.outside(Method::GET, "/__sandbox/requests", json!({})).await;
        let of_kind = |request: &&Value| request["path"].as_str().unwrap().contains(kind);
        requests
            .as_array()
            .unwrap()
            .iter()
            .filter(of_kind)
            .cloned()
            .collect()
    }

    pub async fn forget_calls(&self) {
        self.outside(Method::DELETE, "/__sandbox/requests", json!({}))
            .await;
    }

    pub async fn fault(&self, operation: &str, kind: &str, times: u32) {
        let fault = json!({"operation": operation, "kind": kind, "times": times});
        self.outside(Method::POST, "/__sandbox/faults", fault).await;
    }

    pub async fn fail_with(&self, operation: &str, status: u16, times: u32) {
        let fault = json!({"operation": operation, "kind": "status", "status": status, "times": times});
        self.outside(Method::POST, "/__sandbox/faults", fault).await;
    }

    pub async fn heal(&self) {
        self.fault("*", "status", 0).await;
    }

    pub async fn mails(&self) -> Vec<Value> {
        let mails = self.outside(Method::GET, "/__sandbox/mail", json!({})).await;
        mails.as_array().unwrap().clone()
    }

    // ---- Operators ----

    pub async fn operator(&self, method: Method, path: &str, body: Value) -> Answer {
        self.world
            .send(self.world.as_operator(method, path).json(&body))
            .await
    }

    /// A run that has to succeed.
    pub async fn sync(&self) -> Answer {
        self.operator(Method::POST, "/api/access/sync", json!({}))
            .await
            .with_status(200)
    }

    /// A run in which the list of who has access, after it was read once, fails in this way.
    pub async fn sync_until_listed(&self, fault: Value) {
        // The first list is read before any row, so that the fault meets the look back only.
        self.operator(Method::POST, "/api/access/sync?dry_run=true", json!({}))
            .await
            .with_status(200);
        let slow = json!({"operation": "validate", "kind": "slow", "times": 1, "delay_ms": 400});
        self.outside(Method::POST, "/__sandbox/faults", slow).await;
        let later = async {
            tokio::time::sleep(std::time::Duration::from_millis(900)).await;
            self.outside(Method::POST, "/__sandbox/faults", fault).await;
        };
        let run = self.operator(Method::POST, "/api/access/sync", json!({}));
        let (answer, ()) = tokio::join!(run, later);
        answer.with_status(200);
    }

    pub async fn dry_run(&self) -> Answer {
        self.operator(Method::POST, "/api/access/sync?dry_run=true", json!({}))
            .await
            .with_status(200)
    }

    pub async fn reviews(&self) -> Vec<Value> {
        let answer = self
            .operator(Method::GET, "/api/access/reviews", json!({}))
            .await
            .with_status(200);
        answer["data"].as_array().unwrap().clone()
    }

    pub async fn decide(&self, review: &Value, decision: Value) -> Answer {
        let path = format!("/api/access/reviews/{}", review["id"].as_str().unwrap());
        self.operator(Method::POST, &path, decision)
            .await
            .with_status(200)
    }

    pub async fn fire(&self, schedule: &str) -> Value {
        let request = self
            .world
            .request(Method::POST, &format!("/__local/schedules/{schedule}"));
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap_or_default()
    }
}

/// A time so many days after the story's beginning, as the shop writes it.
pub fn day(days: i64) -> String {
    after(days).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The same as the access API writes it.
pub fn end(days: i64) -> Value {
    json!(after(days).to_string())
}

fn after(days: i64) -> Timestamp {
    let begins: Timestamp = BEGINS.parse().unwrap();
    begins.checked_add(SignedDuration::from_hours(24 * days)).unwrap()
}
