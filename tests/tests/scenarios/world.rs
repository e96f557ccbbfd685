//! A stack with the people around it: what they do, by name, and what can be seen of it from outside.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Index;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use berth::ids::UpstreamId;
use berth::snaptrade::{http_client, signature};
use berth_local::{Data, DynamoDb, Options, Stack};
use berth_sandbox::snaptrade::CONSUMER_KEY;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use url::form_urlencoded::byte_serialize;

use crate::documented;

/// The longest that a caller may have to wait for an answer: API Gateway gives up after 30 seconds, functions after 25.
pub const ANSWERED_WITHIN: Duration = Duration::from_secs(25);

/// Seconds after which what was leased by an attempt that died may be taken, the skew of two clocks included.
pub const LEASE_SECONDS: i64 = 66;

/// A running stack, and all that was said to it. When a scenario fails, what was said is printed.
pub struct World {
    stack: Option<Stack>,
    http: reqwest::Client,
    transcript: Mutex<Vec<String>>,
    answers: Mutex<Vec<Answer>>,
}

/// An answer to a caller.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub text: String,
    /// The body as JSON; null where it is none.
    pub body: Value,
    /// How long it took.
    pub took: Duration,
    /// What was asked.
    asked: String,
}

/// What one request cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Calls to SnapTrade.
    pub snaptrade: u64,
    /// Calls to DynamoDB.
    pub dynamodb: u64,
}

impl World {
    /// A stack in memory with the limit of 5 users.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// A stack in memory with another limit.
    pub async fn with_limit(limit: u32) -> Self {
        Self::with(Options {
            limit: Some(limit),
            ..Options::default()
        })
        .await
    }

    /// A stack that keeps its data in `directory`.
    pub async fn on(directory: &Path) -> Self {
        Self::with(Options {
            data: Data::Directory(directory.to_owned()),
            ..Options::default()
        })
        .await
    }

    /// A stack with these options.
    pub async fn with(options: Options) -> Self {
        Self {
            stack: Some(Stack::start(options).await.unwrap()),
            http: http_client().unwrap(),
            transcript: Mutex::default(),
            answers: Mutex::default(),
        }
    }

    pub fn stack(&self) -> &Stack {
        self.stack.as_ref().unwrap()
    }

    /// The port through which the functions reach their table.
    pub fn dynamodb(&self) -> &DynamoDb {
        self.stack().dynamodb()
    }

    /// Stops the stack as Ctrl-C does.
    pub async fn stop(mut self) {
        if let Some(stack) = self.stack.take() {
            stack.shutdown().await;
        }
    }

    /// Every answer of the API so far.
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap().clone()
    }

    fn note(&self, line: String) {
        self.transcript
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }

    // ---- Requests to the API ----

    /// A request to the API without a token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.stack().urls().api);
        self.http.request(method, url).timeout(Duration::from_secs(40))
    }

    /// A request in the name of a user.
    pub fn as_user(&self, user: &str, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path)
            .bearer_auth(format!("dev:{}", encoded(user)))
    }

    /// A request in the name of an operator.
    pub fn as_operator(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth("dev:olga:operator")
    }

    /// Sends a request and checks what all answers of a function have in common.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let request = request.build().unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let mut asked = format!("{method} {path}");
        if let Some(query) = request.url().query() {
            write!(asked, "?{query}").unwrap();
        }
        if let Some(body) = request.body().and_then(|body| body.as_bytes()) {
            let shown: String = String::from_utf8_lossy(body).chars().take(200).collect();
            write!(asked, " {shown}").unwrap();
        }
        let started = Instant::now();
        let response = self.http.execute(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let answer = Answer {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
            took: started.elapsed(),
            asked,
        };
        let shown: String = answer.text.chars().take(600).collect();
        self.note(format!(
            "{}\n  -> {status} {shown} ({:?})",
            answer.asked, answer.took
        ));
        self.answers.lock().unwrap().push(answer.clone());
        answer.check_envelope();
        let kind = answer.header("content-type").unwrap_or_default();
        let faults = documented::faults(&method, &path, status, kind, &answer.body);
        assert_eq!(
            faults,
            Vec::<String>::new(),
            "{} answered {status} {}",
            answer.asked,
            answer.text
        );
        answer
    }

    async fn post_as_user(&self, user: &str, path: &str, body: &Value) -> Answer {
        self.send(self.as_user(user, Method::POST, path).json(body)).await
    }

    async fn post_as_operator(&self, path: &str, body: &Value) -> Answer {
        self.send(self.as_operator(Method::POST, path).json(body)).await
    }

    // ---- What users do ----

    pub async fn register(&self, user: &str) -> Answer {
        self.post_as_user(user, "/api/snaptrade/register", &json!({}))
            .await
    }

    pub async fn hold(&self, user: &str) -> Answer {
        let path = "/api/snaptrade/handle-connection-limit";
        self.post_as_user(user, path, &json!({})).await
    }

    pub async fn status(&self, user: &str) -> Answer {
        self.send(self.as_user(user, Method::GET, "/api/snaptrade/status"))
            .await
    }

    /// Asks for a link to the portal; `wish` may be empty.
    pub async fn connection_url(&self, user: &str, wish: Value) -> Answer {
        self.post_as_user(user, "/api/snaptrade/connection-url", &wish)
            .await
    }

    /// Comes back from the portal.
    pub async fn callback(&self, user: &str, said: Value) -> Answer {
        self.post_as_user(user, "/api/snaptrade/callback", &said).await
    }

    pub async fn refresh(&self, user: &str, scope: Value) -> Answer {
        self.post_as_user(user, "/api/snaptrade/refresh", &scope).await
    }

    /// Looks at something of a user's own.
    pub async fn look(&self, user: &str, path: &str) -> Answer {
        self.send(self.as_user(user, Method::GET, path)).await
    }

    /// Deletes a connection.
    pub async fn disconnect(&self, user: &str, connection: &str) -> Answer {
        let path = format!("/api/snaptrade/connections/{connection}");
        self.send(self.as_user(user, Method::DELETE, &path)).await
    }

    /// Registers these users one after the other; there has to be room for them.
    pub async fn registered(&self, users: &[&str]) {
        for user in users {
            self.register(user).await.with_status(201);
        }
    }

    // ---- What operators do ----

    pub async fn register_for(&self, user: &str) -> Answer {
        self.post_as_operator("/api/snaptrade/register", &json!({"user_id": user}))
            .await
    }

    pub async fn hold_for(&self, user: &str) -> Answer {
        let path = "/api/snaptrade/handle-connection-limit";
        self.post_as_operator(path, &json!({"user_id": user})).await
    }

    pub async fn operators_status(&self) -> Answer {
        self.send(self.as_operator(Method::GET, "/api/snaptrade/status"))
            .await
    }

    pub async fn users(&self, query: &str) -> Answer {
        let path = format!("/api/snaptrade/users{query}");
        self.send(self.as_operator(Method::GET, &path)).await
    }

    pub async fn add_user(&self, body: Value) -> Answer {
        self.post_as_operator("/api/snaptrade/users", &body).await
    }

    pub async fn change_user(&self, user: &str, change: Value) -> Answer {
        let path = format!("/api/snaptrade/users/{}", encoded(user));
        self.send(self.as_operator(Method::PATCH, &path).json(&change))
            .await
    }

    pub async fn protect(&self, user: &str) {
        self.change_user(user, json!({"protected": true}))
            .await
            .with_status(200);
    }

    pub async fn delete_user(&self, user: &str) -> Answer {
        let path = format!("/api/snaptrade/users/{}", encoded(user));
        self.send(self.as_operator(Method::DELETE, &path)).await
    }

    pub async fn delete_oldest(&self) -> Answer {
        self.post_as_operator("/api/snaptrade/users/delete-oldest", &json!({}))
            .await
    }

    pub async fn recreate(&self, user: &str) -> Answer {
        let path = format!("/api/snaptrade/users/{}/recreate", encoded(user));
        self.post_as_operator(&path, &json!({})).await
    }

    pub async fn reset_secret(&self, user: &str) -> Answer {
        let path = format!("/api/snaptrade/users/{}/reset-secret", encoded(user));
        self.post_as_operator(&path, &json!({})).await
    }

    pub async fn sync(&self) -> Answer {
        self.post_as_operator("/api/snaptrade/sync", &json!({})).await
    }

    // ---- The stack's own controls ----

    /// Lets seconds pass on the stack's clock.
    pub async fn advance(&self, seconds: i64) {
        self.note(format!("({seconds} s later)"));
        let request = self.request(Method::PUT, "/__local/clock");
        let moved = request
            .json(&json!({"advance_seconds": seconds}))
            .send()
            .await
            .unwrap();
        assert_eq!(moved.status(), 200);
    }

    /// Empties the table, as if it were lost.
    pub async fn lose_the_table(&self) {
        self.note("(the table is lost)".to_owned());
        let request = self.request(Method::POST, "/__local/reset");
        assert_eq!(request.send().await.unwrap().status(), 200);
    }

    /// What `work` cost, counted by the function itself, which is held against what the sandbox and DynamoDB received.
    /// Nothing else may use either meanwhile.
    pub async fn cost(&self, work: impl Future<Output = Answer>) -> (Answer, Cost) {
        let snaptrade = format!("{}/__sandbox/requests", self.stack().urls().snaptrade);
        self.http.delete(&snaptrade).send().await.unwrap();
        let before = self.dynamodb().calls();
        let answer = work.await;
        let calls = self
            .request(
                Method::GET,
                &format!("/__local/calls?request_id={}", answer.request_id()),
            )
            .send()
            .await
            .unwrap();
        let calls: Value = calls.json().await.unwrap();
        assert_eq!(calls.as_array().unwrap().len(), 1, "{calls}");
        let function = calls[0]["function"].as_str().unwrap();
        let of_function = |calls: &BTreeMap<(String, String), u64>| -> u64 {
            calls
                .iter()
                .filter(|((caller, _), _)| caller == function)
                .map(|(_, count)| count)
                .sum()
        };
        let cost = Cost {
            snaptrade: calls[0]["snaptrade"].as_u64().unwrap(),
            dynamodb: calls[0]["dynamodb"].as_u64().unwrap(),
        };
        let received = self.snaptrade_requests().await.len() as u64;
        assert_eq!(
            cost.snaptrade, received,
            "the function counted otherwise than the sandbox"
        );
        let received = of_function(&self.dynamodb().calls()) - of_function(&before);
        assert_eq!(
            cost.dynamodb, received,
            "the function counted otherwise than DynamoDB"
        );
        self.note(format!("  cost {cost:?}"));
        (answer, cost)
    }

    /// Everything in the table, by its keys.
    pub async fn table(&self) -> BTreeMap<(String, String), Value> {
        let client = self.dynamodb_client();
        let mut items = BTreeMap::new();
        let mut start = None;
        loop {
            let page = client
                .scan()
                .table_name(self.table_name())
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .send()
                .await
                .unwrap();
            for item in page.items() {
                let key = |name: &str| item[name].as_s().unwrap().clone();
                let shown = item
                    .iter()
                    .map(|(name, value)| (name.clone(), plain(value)))
                    .collect();
                items.insert((key("pk"), key("sk")), Value::Object(shown));
            }
            start = page.last_evaluated_key().cloned();
            if start.is_none() {
                return items;
            }
        }
    }

    pub fn table_name(&self) -> String {
        self.stack().app("scenarios").config().table_name.clone()
    }

    /// A client of DynamoDB that knows nothing of Berth.
    pub fn dynamodb_client(&self) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
            .region(aws_sdk_dynamodb::config::Region::new("eu-west-1"))
            .endpoint_url(self.dynamodb().url())
            .credentials_provider(aws_credential_types::Credentials::from_keys(
                "anyone", "anything", None,
            ))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        aws_sdk_dynamodb::Client::from_conf(config)
    }

    // ---- SnapTrade's side ----

    /// A control call to the SnapTrade sandbox, which has to succeed.
    pub async fn sandbox(&self, call: &str, body: Value) -> Value {
        let url = format!("{}/__sandbox/{call}", self.stack().urls().snaptrade);
        let answer = self.http.post(url).json(&body).send().await.unwrap();
        let (status, body_text) = (answer.status(), answer.text().await.unwrap());
        self.note(format!("sandbox {call} {body}\n  -> {status} {body_text}"));
        assert_eq!(status, 200, "{call}: {body_text}");
        serde_json::from_str(&body_text).unwrap()
    }

    /// The next `times` calls of `operation` fail in this way.
    pub async fn fault(&self, operation: &str, kind: &str, times: u32) {
        let body = json!({"operation": operation, "kind": kind, "times": times});
        self.sandbox("faults", body).await;
    }

    /// The next `times` calls of `operation` are answered with this status.
    pub async fn fail_with(&self, operation: &str, status: u16, times: u32) {
        let body = json!({"operation": operation, "kind": "status", "status": status, "times": times});
        self.sandbox("faults", body).await;
    }

    /// No call fails any more.
    pub async fn clear_faults(&self) {
        self.sandbox("faults", json!({"operation": "*", "kind": "status", "times": 0}))
            .await;
        self.dynamodb().clear_faults();
    }

    /// Connects a brokerage as the user would in the portal, and gives the connection's id and its first account's.
    pub async fn connect(&self, user: &str) -> (String, String) {
        let connected = self.sandbox("connect", json!({"user_id": user})).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (
            text(&connected["connection_id"]),
            text(&connected["account_ids"][0]),
        )
    }

    /// The events that SnapTrade sent, as its sandbox lists them.
    pub async fn events_sent(&self) -> Vec<Value> {
        let url = format!("{}/__sandbox/webhooks", self.stack().urls().snaptrade);
        let events: Value = self.http.get(url).send().await.unwrap().json().await.unwrap();
        events.as_array().unwrap().clone()
    }

    /// Waits until every event that SnapTrade sent was taken in and worked on.
    pub async fn events_done(&self) {
        let started = Instant::now();
        loop {
            let sent = self.events_sent().await;
            let table = self.table().await;
            let events: Vec<_> = table.values().filter(|item| item["sk"] == "EVENT").collect();
            let waiting = sent.iter().any(|event| event["delivered"] != true)
                || events.iter().any(|event| event["applied_at"].is_null());
            if !waiting && events.len() >= sent.len() {
                return;
            }
            assert!(
                started.elapsed() < ANSWERED_WITHIN,
                "events still wait: sent {sent:#?}, taken in {events:#?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends the webhook route a body with its right signature.
    pub async fn send_event(&self, event: &Value) -> Answer {
        let body = event.to_string();
        let signature = signature_of(event);
        self.send_webhook(body.into_bytes(), Some(&signature)).await
    }

    /// Sends the webhook route anything.
    pub async fn send_webhook(&self, body: Vec<u8>, signature: Option<&str>) -> Answer {
        let mut request = self
            .request(Method::POST, "/api/snaptrade/webhook")
            .header("content-type", "application/json")
            .body(body);
        if let Some(signature) = signature {
            request = request.header("Signature", signature);
        }
        self.send(request).await
    }

    /// The requests that the sandbox received, as `METHOD /path`.
    pub async fn snaptrade_requests(&self) -> Vec<String> {
        let url = format!("{}/__sandbox/requests", self.stack().urls().snaptrade);
        let requests: Value = self.http.get(url).send().await.unwrap().json().await.unwrap();
        let text = |request: &Value, name: &str| request[name].as_str().unwrap().to_owned();
        requests
            .as_array()
            .unwrap()
            .iter()
            .map(|request| format!("{} {}", text(request, "method"), text(request, "path")))
            .collect()
    }

    /// The ids that SnapTrade lists, in its order.
    pub async fn at_snaptrade(&self) -> Vec<String> {
        let app = self.stack().app("scenarios");
        let list = app.snaptrade().list_users().await.unwrap();
        list.iter().map(ToString::to_string).collect()
    }

    /// Registers a user at SnapTrade past Berth.
    pub async fn register_behind_our_back(&self, upstream_id: &str) {
        self.register_quietly(upstream_id).await;
        self.note(format!("SnapTrade registers {upstream_id}"));
    }

    /// Registers a user at SnapTrade past Berth, as one of very many.
    pub async fn register_quietly(&self, upstream_id: &str) {
        let app = self.stack().app("scenarios");
        let id = UpstreamId::from_snaptrade(upstream_id);
        app.snaptrade().register_user(&id).await.unwrap();
    }

    /// Deletes a user at SnapTrade past Berth, as one of very many.
    pub async fn delete_quietly(&self, upstream_id: &str) {
        let app = self.stack().app("scenarios");
        let id = UpstreamId::from_snaptrade(upstream_id);
        app.snaptrade().delete_user(&id).await.unwrap();
    }

    /// Deletes a user at SnapTrade past Berth.
    pub async fn delete_behind_our_back(&self, upstream_id: &str) {
        self.delete_quietly(upstream_id).await;
        self.note(format!("SnapTrade deletes {upstream_id}"));
    }

    /// The id under which SnapTrade knows a tracked user.
    pub async fn upstream_id(&self, user: &str) -> String {
        let tracked = self.tracked().await;
        let found = tracked.iter().find(|one| one["user_id"] == user);
        found.unwrap_or_else(|| panic!("{user} is not tracked"))["upstream_id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Keeps SnapTrade from sending events, so that nothing happens but what is asked for.
    pub async fn without_events(&self) {
        self.sandbox("settings", json!({"webhook_url": ""})).await;
    }

    // ---- What is true ----

    /// The tracked users, oldest first.
    pub async fn tracked(&self) -> Vec<Value> {
        let answer = self.users("?limit=500").await.with_status(200);
        assert_eq!(answer["next_cursor"], Value::Null);
        answer["data"].as_array().unwrap().clone()
    }

    /// Asserts that exactly `users` (in any order) are tracked, that SnapTrade has exactly them, under the ids that
    /// tracking names, and that every one of them takes one place.
    pub async fn assert_exactly(&self, users: &[&str]) {
        let tracked = self.tracked().await;
        let mut tracked_ids: Vec<_> = tracked
            .iter()
            .map(|user| user["user_id"].as_str().unwrap())
            .collect();
        tracked_ids.sort_unstable();
        let mut expected = users.to_vec();
        expected.sort_unstable();
        assert_eq!(tracked_ids, expected, "tracked are others than expected");
        let mut known: Vec<_> = tracked
            .iter()
            .map(|user| user["upstream_id"].as_str().unwrap_or("(none)").to_owned())
            .collect();
        known.sort_unstable();
        let mut listed = self.at_snaptrade().await;
        listed.sort_unstable();
        assert_eq!(listed, known, "SnapTrade has others than tracking");
        for user in &tracked {
            let state = user["state"].as_str().unwrap();
            assert!(["active", "adopted"].contains(&state), "{user}");
        }
        let status = self.operators_status().await.with_status(200);
        let count = users.len();
        for name in ["current_count", "tracked_count", "upstream_count", "users"] {
            assert_eq!(status[name], count, "{name}: {}", status.body);
        }
        assert_eq!(status["in_sync"], true, "{}", status.body);
        assert_eq!(
            (&status["missing"], &status["unknown"]),
            (&json!([]), &json!([])),
            "{}",
            status.body
        );
    }

    /// The same after one sync.
    pub async fn assert_exactly_after_sync(&self, users: &[&str]) {
        self.sync().await.with_status(200);
        self.assert_exactly(users).await;
    }

    /// Lets what was leased run out and syncs until a run has nothing left to do, which has to be soon. SnapTrade has
    /// to answer again.
    pub async fn settle(&self) {
        self.clear_faults().await;
        for _ in 0..4 {
            self.advance(LEASE_SECONDS).await;
            let report = self.sync().await.with_status(200);
            let idle = ["added", "removed", "repaired"]
                .iter()
                .all(|name| report[name] == 0);
            if idle && report["complete"] == true {
                return;
            }
        }
        panic!("four syncs in a row had something to do");
    }

    /// Asserts that the secret which is stored for a user is the one that SnapTrade knows.
    pub async fn assert_secret_works(&self, user: &str) {
        let answer = self.connection_url(user, json!({})).await;
        assert_eq!(answer.status, 200, "the secret of {user} does not work");
    }
}

impl Drop for World {
    /// Tells what was said when a scenario fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let transcript = self.transcript.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("---- what was said ----\n{}\n----", transcript.join("\n"));
        }
    }
}

impl Answer {
    /// This answer, which has to have this status.
    #[track_caller]
    pub fn with_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} answered {}", self.asked, self.text);
        self
    }

    /// This answer, which has to be a problem with this status and code.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Self {
        let answer = self.with_status(status);
        assert_eq!(answer["code"], code, "{} answered {}", answer.asked, answer.text);
        answer
    }

    /// The problem's code; empty where it is none.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The request's id.
    #[track_caller]
    pub fn request_id(&self) -> &str {
        self.header("x-request-id").unwrap()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The seconds after which to try again.
    pub fn retry_after(&self) -> Option<u64> {
        self.header("retry-after").map(|seconds| seconds.parse().unwrap())
    }

    /// Whether the gateway answered itself, as API Gateway does.
    fn is_the_gateways_own(&self) -> bool {
        self.header("x-request-id").is_none()
            && self
                .body
                .as_object()
                .is_some_and(|body| body.len() == 1 && body.contains_key("message"))
    }

    /// Checks what all answers of functions have in common: ids, security headers, and the form of problems.
    #[track_caller]
    fn check_envelope(&self) {
        let context = || format!("{} answered {} {}", self.asked, self.status, self.text);
        assert!(self.took < ANSWERED_WITHIN, "{} after {:?}", context(), self.took);
        if self.is_the_gateways_own() {
            assert!([401, 413, 429, 431].contains(&self.status), "{}", context());
            return;
        }
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(self.header(name), Some(value), "{name}: {}", context());
        }
        for name in ["strict-transport-security", "x-request-id", "x-correlation-id"] {
            assert!(
                self.header(name).is_some_and(|value| !value.is_empty()),
                "{name}: {}",
                context()
            );
        }
        if self.status < 400 {
            return;
        }
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            context()
        );
        assert_eq!(self.body["status"], self.status, "{}", context());
        assert_eq!(self.body["request_id"], self.request_id(), "{}", context());
        for name in ["type", "title", "detail", "code"] {
            let text = self.body[name].as_str();
            assert!(text.is_some_and(|text| !text.is_empty()), "{name}: {}", context());
        }
        let waiting_helps = [
            "rate_limited",
            "deletion_pending",
            "unavailable",
            "operation_in_progress",
        ];
        if waiting_helps.contains(&self.code()) {
            assert!(
                self.retry_after().is_some_and(|seconds| seconds >= 1),
                "{}",
                context()
            );
        }
    }
}

impl Index<&str> for Answer {
    type Output = Value;

    /// A member of the body; null where there is none.
    fn index(&self, name: &str) -> &Value {
        &self.body[name]
    }
}

/// The signature that SnapTrade would send with an event.
pub fn signature_of(event: &Value) -> String {
    let key = SecretString::from(CONSUMER_KEY.to_owned());
    signature::sign_bytes(&key, signature::canonical_json(event).as_bytes())
}

/// An id as it stands in a path or a token.
pub fn encoded(id: &str) -> String {
    byte_serialize(id.as_bytes()).collect()
}

/// A stored value as JSON, numbers as texts.
fn plain(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) | AttributeValue::N(text) => Value::from(text.as_str()),
        AttributeValue::Bool(flag) => Value::from(*flag),
        AttributeValue::L(list) => list.iter().map(plain).collect(),
        AttributeValue::M(map) => {
            let members: Map<String, Value> = map
                .iter()
                .map(|(name, value)| (name.clone(), plain(value)))
                .collect();
            Value::Object(members)
        }
        AttributeValue::B(bytes) => Value::from(bytes.as_ref().to_vec()),
        _ => Value::Null,
    }
}

/// The secrets of the users that the SnapTrade sandbox knows now, from the state that it keeps in a data directory.
pub fn issued_secrets(directory: &Path) -> Vec<String> {
    let state = std::fs::read_to_string(directory.join("snaptrade.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    let users = state["users"].as_array().unwrap();
    users
        .iter()
        .map(|user| user["secret"].as_str().unwrap().to_owned())
        .collect()
}
