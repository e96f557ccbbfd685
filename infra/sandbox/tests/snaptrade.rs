//! The SnapTrade sandbox, called over HTTP as its clients call it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use berth::clock::Clock;
use berth::snaptrade::{http_client, signature};
use berth_sandbox::snaptrade::{CLIENT_ID, CONSUMER_KEY, Options, Sandbox};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A sandbox and a signed client of it.
struct Api {
    sandbox: Sandbox,
    http: reqwest::Client,
    clock: Clock,
}

/// The status, the headers and the body of an answer; a body that is no JSON is null.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Api {
    async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    async fn start_with(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clock = options.clock.clone();
        Self {
            sandbox: Sandbox::start(listener, options).await.unwrap(),
            http: http_client().unwrap(),
            clock,
        }
    }

    /// A signed call; `query` holds further parameters, each beginning with `&`.
    async fn call(&self, method: Method, path: &str, query: &str, body: Option<Value>) -> Answer {
        let now = jiff::Timestamp::now().as_second();
        let query = format!("clientId={CLIENT_ID}&timestamp={now}{query}");
        let key = SecretString::from(CONSUMER_KEY.to_owned());
        let signature = signature::sign(&key, body.as_ref(), path, &query);
        self.send(method, &format!("{path}?{query}"), Some(signature), body)
            .await
    }

    async fn send(
        &self,
        method: Method,
        path_and_query: &str,
        signature: Option<String>,
        body: Option<Value>,
    ) -> Answer {
        let mut request = self
            .http
            .request(method, format!("{}{path_and_query}", self.sandbox.base_url()));
        if let Some(signature) = signature {
            request = request.header("Signature", signature);
        }
        if let Some(body) = body {
            request = request
                .header("Content-Type", "application/json")
                .body(body.to_string());
        }
        let answer = request.timeout(Duration::from_secs(5)).send().await.unwrap();
        Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default(),
        }
    }

    async fn get(&self, path: &str, query: &str) -> Answer {
        self.call(Method::GET, path, query, None).await
    }

    async fn control(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, &format!("/__sandbox/{path}"), None, Some(body))
            .await
    }

    async fn set(&self, settings: Value) {
        assert_eq!(self.control("settings", settings).await.status, 200);
    }

    async fn fault(&self, fault: Value) {
        let answer = self.control("faults", fault).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    async fn register(&self, user_id: &str) -> Answer {
        let body = json!({"userId": user_id});
        self.call(Method::POST, "/snapTrade/registerUser", "", Some(body))
            .await
    }

    /// Registers a user and returns the parameters that every call for the user carries.
    async fn registered(&self, user_id: &str) -> String {
        let answer = self.register(user_id).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        format!(
            "&userId={user_id}&userSecret={}",
            answer.body["userSecret"].as_str().unwrap()
        )
    }

    async fn delete(&self, user_id: &str) -> Answer {
        self.call(
            Method::DELETE,
            "/snapTrade/deleteUser",
            &format!("&userId={user_id}"),
            None,
        )
        .await
    }

    async fn users(&self) -> Vec<String> {
        serde_json::from_value(self.get("/snapTrade/listUsers", "").await.body).unwrap()
    }

    async fn connect(&self, wish: Value) -> (String, Vec<String>) {
        let answer = self.control("connect", wish).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        (
            answer.body["connection_id"].as_str().unwrap().to_owned(),
            serde_json::from_value(answer.body["account_ids"].clone()).unwrap(),
        )
    }

    async fn login(&self, user: &str, body: Value) -> Answer {
        self.call(Method::POST, "/snapTrade/login", user, Some(body))
            .await
    }

    /// The portal's page at a path or link.
    async fn page(&self, link: &str) -> (u16, HeaderMap, String) {
        let answer = self.http.get(link).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.text().await.unwrap())
    }

    /// Sends the page's form, as the browser does.
    async fn press(&self, page: &str, fields: &[(&str, &str)]) -> (u16, HeaderMap, String) {
        let hidden = |name: &str| {
            let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("sessionId", &hidden("sessionId"))
            .append_pair("token", &hidden("token"));
        form.extend_pairs(fields);
        let request = self
            .http
            .post(format!("{}/snapTrade/portal", self.sandbox.base_url()));
        let answer = request.body(form.finish()).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.text().await.unwrap())
    }
}

/// The webhooks that a listener took: the event and whether its signature fits.
#[derive(Clone, Default)]
struct Inbox {
    events: Arc<Mutex<Vec<(Value, bool)>>>,
    /// How many deliveries are refused first.
    refusals: Arc<Mutex<u32>>,
}

impl Inbox {
    async fn start() -> (Self, String) {
        let inbox = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/hook", post(Self::take))
            .with_state(inbox.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (inbox, url)
    }

    async fn take(State(inbox): State<Self>, headers: HeaderMap, body: String) -> StatusCode {
        {
            let mut refusals = inbox.refusals.lock().unwrap();
            if *refusals > 0 {
                *refusals -= 1;
                return StatusCode::INTERNAL_SERVER_ERROR;
            }
        }
        let event: Value = serde_json::from_str(&body).unwrap();
        let key = SecretString::from(CONSUMER_KEY.to_owned());
        let given = headers["Signature"].to_str().unwrap();
        let fits = signature::verify_bytes(&key, signature::canonical_json(&event).as_bytes(), given);
        inbox.events.lock().unwrap().push((event, fits));
        StatusCode::OK
    }

    fn kinds(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .map(|(event, _)| event["eventType"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until an event of this kind has arrived.
    async fn wait_for(&self, kind: &str) {
        for _ in 0..500 {
            if self.kinds().iter().any(|known| known == kind) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {kind} arrived, only {:?}", self.kinds());
    }
}

#[tokio::test]
async fn a_user_lives_from_registration_to_deletion() {
    let api = Api::start().await;
    let first = api.register("ada~1").await;
    assert_eq!(first.status, 200);
    assert_eq!(first.body["userId"], "ada~1");
    assert!(first.headers.contains_key("x-request-id"));
    assert_eq!(first.headers["x-ratelimit-limit"], "250");

    let again = api.register("ada~1").await;
    assert_eq!((again.status, &again.body["code"]), (400, &json!("1010")));
    assert_eq!(api.users().await, ["ada~1"]);

    let gone = api.delete("ada~1").await;
    assert_eq!((gone.status, &gone.body["status"]), (200, &json!("deleted")));
    assert!(api.users().await.is_empty());
    let unknown = api.delete("ada~1").await;
    assert_eq!((unknown.status, &unknown.body["code"]), (404, &json!("1011")));

    let secret = first.body["userSecret"].as_str().unwrap();
    let late = api
        .get("/accounts", &format!("&userId=ada~1&userSecret={secret}"))
        .await;
    assert_eq!((late.status, &late.body["code"]), (401, &json!("1083")));
}

#[tokio::test]
async fn the_legacy_prefix_works_and_says_that_it_is_old() {
    let api = Api::start().await;
    let answer = api.get("/api/v1/snapTrade/partners", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["deprecation"], "@1781222400");
    assert!(
        !api.get("/snapTrade/partners", "")
            .await
            .headers
            .contains_key("deprecation")
    );
}

#[tokio::test]
async fn a_caller_is_refused_as_snaptrade_refuses() {
    let api = Api::start().await;
    let now = jiff::Timestamp::now().as_second();
    let signed_wrong = Some("c2lnbmF0dXJl".to_owned());
    for (query, detail, code) in [
        (
            String::new(),
            "Authentication credentials were not provided",
            "0000",
        ),
        (
            format!("clientId=OTHER&timestamp={now}"),
            "Invalid clientId provided",
            "1083",
        ),
        (
            format!("clientId={CLIENT_ID}&timestamp={}", now - 400),
            "Invalid timestamp",
            "1076",
        ),
        (
            format!("clientId={CLIENT_ID}&timestamp={now}"),
            "Unable to verify signature sent",
            "1076",
        ),
    ] {
        let path = format!("/snapTrade/partners?{query}");
        let answer = api.send(Method::GET, &path, signed_wrong.clone(), None).await;
        assert_eq!(answer.status, 401);
        assert_eq!(
            answer.body,
            json!({"detail": detail, "status_code": 401, "code": code})
        );
    }
    let nobody = api.get("/accounts", "").await;
    assert_eq!(nobody.status, 401);
    assert_eq!(
        nobody.body["detail"],
        "Please provide clientId, userId and userSecret in query params"
    );
    assert_eq!(api.get("/nowhere", "").await.status, 404);
    assert_eq!(api.call(Method::PATCH, "/accounts", "", None).await.status, 405);
    let user = api.registered("ada").await;
    let removed = api.get("/activities", &user).await;
    assert_eq!(removed.status, 410);
    assert_eq!(
        removed.body,
        json!({"detail": "This endpoint is no longer available for your account."})
    );
}

#[tokio::test]
async fn a_signature_of_the_local_clock_is_as_good_as_one_of_the_real_clock() {
    let api = Api::start().await;
    api.clock.advance(86_400);
    assert_eq!(api.get("/snapTrade/partners", "").await.status, 200);
    let local = api.clock.now().as_second();
    let query = format!("clientId={CLIENT_ID}&timestamp={local}");
    let key = SecretString::from(CONSUMER_KEY.to_owned());
    let signature = signature::sign(&key, None, "/snapTrade/partners", &query);
    let path = format!("/snapTrade/partners?{query}");
    assert_eq!(
        api.send(Method::GET, &path, Some(signature), None).await.status,
        200
    );
}

#[tokio::test]
async fn a_delayed_deletion_keeps_the_user_until_its_time_has_come() {
    let (inbox, url) = Inbox::start().await;
    let api = Api::start_with(Options {
        webhook_url: Some(url),
        ..Options::default()
    })
    .await;
    api.set(json!({"delete_delay_ms": 60_000, "user_limit": 1})).await;
    let user = api.registered("ada").await;
    assert_eq!(api.delete("ada").await.status, 200);
    assert_eq!(api.users().await, ["ada"]);
    assert_eq!(api.get("/accounts", &user).await.status, 200);
    assert_eq!(api.register("ada").await.body["code"], "1010");
    let full = api.register("grace").await;
    assert_eq!(full.status, 403);
    assert!(
        full.body["detail"]
            .as_str()
            .unwrap()
            .contains("Connection Limit Reached")
    );

    api.clock.advance(61);
    inbox.wait_for("USER_DELETED").await;
    assert!(api.users().await.is_empty());
    assert_eq!(api.register("ada").await.status, 200);
    assert!(inbox.events.lock().unwrap().iter().all(|(_, fits)| *fits));
}

#[tokio::test]
async fn connecting_sends_its_webhooks_before_it_answers_and_brings_accounts_with_data() {
    let (inbox, url) = Inbox::start().await;
    let api = Api::start_with(Options {
        webhook_url: Some(url),
        ..Options::default()
    })
    .await;
    let user = api.registered("ada~2").await;
    inbox.wait_for("USER_REGISTERED").await;
    let (connection, accounts) = api.connect(json!({"user_id": "ada"})).await;
    let kinds = inbox.kinds();
    for kind in [
        "CONNECTION_ATTEMPTED",
        "CONNECTION_ADDED",
        "ACCOUNT_HOLDINGS_UPDATED",
    ] {
        assert!(kinds.iter().any(|known| known == kind), "{kinds:?}");
    }
    let initial = kinds
        .iter()
        .filter(|kind| *kind == "ACCOUNT_TRANSACTIONS_INITIAL_UPDATE")
        .count();
    assert_eq!(initial, accounts.len());
    assert_eq!(
        api.connect(json!({"user_id": "ada~2", "broker": "sandbox"}))
            .await
            .0,
        connection
    );

    let listed = api.get("/authorizations", &user).await.body;
    assert_eq!(listed[0]["id"], connection.as_str());
    assert_eq!(
        (&listed[0]["type"], &listed[0]["disabled"]),
        (&json!("read"), &json!(false))
    );
    let account = &accounts[0];
    let all = api.get("/accounts", &user).await.body;
    assert_eq!(all.as_array().unwrap().len(), accounts.len());
    assert_eq!(all[0]["brokerage_authorization"], connection.as_str());
    assert_eq!(all[0]["sync_status"]["holdings"]["initial_sync_completed"], true);
    assert_eq!(all[0]["balance"]["total"]["amount"], json!(13389.62));
    let positions = api
        .get(&format!("/accounts/{account}/positions/all"), &user)
        .await
        .body;
    assert_eq!(positions["results"][0]["instrument"]["symbol"], "AAPL");
    let balances = api
        .get(&format!("/accounts/{account}/balances"), &user)
        .await
        .body;
    assert_eq!(balances[0]["currency"]["code"], "USD");
    let activities = api
        .get(
            &format!("/accounts/{account}/activities"),
            &format!("{user}&limit=1&type=buy"),
        )
        .await;
    assert_eq!(
        activities.body["pagination"],
        json!({"offset": 0, "limit": 1, "total": 3})
    );
    assert_eq!(activities.body["data"].as_array().unwrap().len(), 1);

    let other = api.registered("grace").await;
    assert_eq!(
        api.get(&format!("/accounts/{account}/balances"), &other)
            .await
            .status,
        404
    );
    assert_eq!(
        api.get(&format!("/authorizations/{connection}"), &other)
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn holdings_can_be_set_in_the_api_s_own_shapes() {
    let (inbox, url) = Inbox::start().await;
    let api = Api::start_with(Options {
        webhook_url: Some(url),
        ..Options::default()
    })
    .await;
    let user = api.registered("ada").await;
    let (_, accounts) = api.connect(json!({"user_id": "ada"})).await;
    let account = &accounts[0];
    let position = json!({"instrument": {"kind": "stock", "id": "x", "symbol": "ZZZ", "raw_symbol": "ZZZ"},
        "units": "3", "price": "10.5", "currency": "USD"});
    let balance = json!({"currency": {"code": "USD"}, "cash": 8.5, "buying_power": null});
    let body = json!({"balances": [balance], "positions": [position], "activities": []});
    let set = api.control(&format!("holdings/snaptrade_{account}"), body).await;
    assert_eq!(set.status, 200, "{}", set.body);
    assert!(inbox.kinds().contains(&"ACCOUNT_TRANSACTIONS_UPDATED".to_owned()));
    let positions = api
        .get(&format!("/accounts/{account}/positions/all"), &user)
        .await
        .body;
    assert_eq!(positions["results"], json!([position]));
    let shown = api.get(&format!("/accounts/{account}"), &user).await.body;
    assert_eq!(
        shown["balance"]["total"],
        json!({"amount": 40.0, "currency": "USD"})
    );
    assert_eq!(api.control("holdings/unknown", json!({})).await.status, 404);
    assert_eq!(
        api.control(&format!("holdings/{account}"), json!({"orders": 1}))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn a_connection_can_break_be_fixed_refreshed_and_deleted() {
    let (inbox, url) = Inbox::start().await;
    let api = Api::start_with(Options {
        webhook_url: Some(url),
        ..Options::default()
    })
    .await;
    let user = api.registered("ada").await;
    let (connection, _) = api.connect(json!({"user_id": "ada"})).await;
    let refresh = format!("/authorizations/{connection}/refresh");

    assert_eq!(
        api.control(&format!("connections/{connection}/break"), json!({}))
            .await
            .status,
        200
    );
    inbox.wait_for("CONNECTION_BROKEN").await;
    let broken = api.call(Method::POST, &refresh, &user, None).await;
    assert_eq!((broken.status, &broken.body["code"]), (402, &json!("3003")));
    assert_eq!(
        api.get("/accounts", &user).await.body.as_array().unwrap().len(),
        2
    );

    assert_eq!(
        api.control(&format!("connections/{connection}/fix"), json!({}))
            .await
            .status,
        200
    );
    inbox.wait_for("CONNECTION_FIXED").await;
    assert_eq!(api.call(Method::POST, &refresh, &user, None).await.status, 200);
    let soon = api.call(Method::POST, &refresh, &user, None).await;
    assert_eq!((soon.status, &soon.body["code"]), (429, &json!("throttled")));

    let deleted = api
        .call(Method::DELETE, &format!("/connection/{connection}"), &user, None)
        .await;
    assert_eq!(
        (deleted.status, &deleted.body["connection_id"]),
        (200, &json!(connection))
    );
    inbox.wait_for("CONNECTION_DELETED").await;
    assert_eq!(api.get("/accounts", &user).await.body, json!([]));
    assert_eq!(
        api.control(&format!("connections/{connection}/delete"), json!({}))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn each_kind_of_fault_happens_as_often_as_asked() {
    let api = Api::start().await;
    for (fault, status, code) in [
        (
            json!({"operation": "registerUser", "kind": "status", "status": 500}),
            500,
            json!("1000"),
        ),
        (
            json!({"operation": "registerSnapTradeUser", "kind": "status"}),
            503,
            json!("3002"),
        ),
        (
            json!({"operation": "*", "kind": "limit_reached"}),
            403,
            json!("0000"),
        ),
        (
            json!({"operation": "registerUser", "kind": "rate_limited"}),
            429,
            json!("0000"),
        ),
        (
            json!({"operation": "registerUser", "kind": "malformed"}),
            200,
            Value::Null,
        ),
    ] {
        api.fault(fault.clone()).await;
        let answer = api.register("ada").await;
        assert_eq!((answer.status, &answer.body["code"]), (status, &code), "{fault}");
    }
    assert!(api.users().await.is_empty());
    api.fault(json!({"operation": "registerUser", "kind": "slow", "delay_ms": 50}))
        .await;
    assert_eq!(api.register("ada").await.status, 200);
    assert_eq!(
        api.control("faults", json!({"operation": "nonsense", "kind": "timeout"}))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn an_answer_that_never_comes_leaves_the_work_undone_or_done() {
    let api = Api::start().await;
    for (kind, done) in [("timeout", false), ("commit_then_timeout", true)] {
        api.fault(json!({"operation": "registerUser", "kind": kind}))
            .await;
        let waited = tokio::time::timeout(Duration::from_millis(300), api.register("ada")).await;
        assert!(waited.is_err());
        assert_eq!(!api.users().await.is_empty(), done, "{kind}");
    }
    // A slow call is worked off although nobody waits for it any more.
    api.fault(json!({"operation": "deleteUser", "kind": "slow", "delay_ms": 400}))
        .await;
    let waited = tokio::time::timeout(Duration::from_millis(100), api.delete("ada")).await;
    assert!(waited.is_err());
    assert_eq!(api.users().await, ["ada"]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(api.users().await.is_empty());
    // One that hangs does not keep the sandbox from stopping.
    api.fault(json!({"operation": "listUsers", "kind": "timeout"}))
        .await;
    let Api { sandbox, http, .. } = api;
    let link = format!("{}/snapTrade/listUsers", sandbox.base_url());
    let hanging = tokio::spawn(async move { http.get(link).send().await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    tokio::time::timeout(Duration::from_secs(3), sandbox.shutdown())
        .await
        .unwrap();
    hanging.abort();
}

#[tokio::test]
async fn requests_are_listed_in_order_without_secrets() {
    let api = Api::start().await;
    let user = api.registered("ada").await;
    api.get("/accounts", &user).await;
    api.get("/nowhere", "").await;
    let listed = api
        .send(Method::GET, "/__sandbox/requests", None, None)
        .await
        .body;
    let seen: Vec<_> = (listed.as_array().unwrap().iter())
        .map(|one| {
            (
                one["method"].as_str().unwrap(),
                one["path"].as_str().unwrap(),
                &one["status"],
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("POST", "/snapTrade/registerUser", &json!(200)),
            ("GET", "/accounts", &json!(200)),
            ("GET", "/nowhere", &json!(404)),
        ]
    );
    let secret = user.split("userSecret=").nth(1).unwrap();
    assert!(!listed.to_string().contains(secret));
    api.sandbox.forget_requests();
    assert_eq!(
        api.send(Method::GET, "/__sandbox/requests", None, None)
            .await
            .body,
        json!([])
    );
}

#[tokio::test]
async fn too_many_requests_are_throttled_until_the_window_has_rolled_on() {
    let api = Api::start().await;
    api.set(json!({"rate_limit_per_minute": 2})).await;
    assert_eq!(
        api.get("/snapTrade/partners", "").await.headers["x-ratelimit-remaining"],
        "1"
    );
    assert_eq!(api.get("/snapTrade/partners", "").await.status, 200);
    let throttled = api.get("/snapTrade/partners", "").await;
    assert_eq!((throttled.status, &throttled.body["code"]), (429, &json!("0000")));
    assert!(throttled.headers.contains_key("retry-after"));
    api.clock.advance(61);
    assert_eq!(api.get("/snapTrade/partners", "").await.status, 200);
}

#[tokio::test]
async fn a_webhook_that_is_not_taken_is_tried_again_later_and_can_be_replayed() {
    let (inbox, url) = Inbox::start().await;
    *inbox.refusals.lock().unwrap() = 2;
    let api = Api::start_with(Options {
        webhook_url: Some(url),
        ..Options::default()
    })
    .await;
    api.registered("ada").await;
    for minutes in [0, 31, 61] {
        assert!(inbox.kinds().is_empty());
        // The delivery runs beside the test.
        tokio::time::sleep(Duration::from_millis(200)).await;
        api.clock.advance(minutes * 60);
    }
    inbox.wait_for("USER_REGISTERED").await;
    let first = inbox.events.lock().unwrap()[0].0.clone();
    let replayed = api
        .control("webhooks/replay", json!({"webhook_id": first["webhookId"]}))
        .await;
    assert_eq!(
        (replayed.status, &replayed.body["last_status"]),
        (200, &json!(200))
    );
    let events = inbox.events.lock().unwrap().clone();
    assert_eq!(events.len(), 2);
    assert_eq!(events[1], (first, true));
    assert_eq!(
        api.control("webhooks/replay", json!({"webhook_id": "none"}))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn users_connections_and_settings_survive_a_restart_and_faults_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep/snaptrade.json");
    let options = || Options {
        state_file: Some(file.clone()),
        ..Options::default()
    };
    let api = Api::start_with(options()).await;
    let user = api.registered("ada").await;
    let (connection, _) = api.connect(json!({"user_id": "ada"})).await;
    api.set(json!({"connection_limit": 1})).await;
    api.fault(json!({"operation": "*", "kind": "malformed"})).await;
    api.sandbox.shutdown().await;

    let api = Api::start_with(options()).await;
    assert_eq!(
        api.get(&format!("/authorizations/{connection}"), &user)
            .await
            .status,
        200
    );
    let settings = api
        .send(Method::GET, "/__sandbox/settings", None, None)
        .await
        .body;
    assert_eq!(settings["connection_limit"], 1);
    api.control("reset", json!({})).await;
    assert!(api.users().await.is_empty());
    api.sandbox.shutdown().await;

    std::fs::write(&file, "{").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fault = Sandbox::start(listener, options()).await.unwrap_err();
    assert!(fault.to_string().contains("snaptrade.json"), "{fault}");
}

#[tokio::test]
async fn the_portal_connects_what_was_picked_and_sends_the_visitor_back() {
    let api = Api::start().await;
    let user = api.registered("ada").await;
    let wish = json!({"customRedirect": "http://localhost:3000/back?tab=1", "connectionType": "trade"});
    let login = api.login(&user, wish).await;
    let link = login.body["redirectURI"].as_str().unwrap().to_owned();
    assert!(link.contains(login.body["sessionId"].as_str().unwrap()));
    let (status, headers, page) = api.page(&link).await;
    assert_eq!(status, 200);
    assert_eq!(headers["x-content-type-options"], "nosniff");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("form-action 'self' http://localhost:3000"),
        "{policy}"
    );
    assert!(page.contains("ROBINHOOD") && !page.contains("value=\"SANDBOX\""));

    let (status, _, complaint) = api
        .press(&page, &[("action", "connect"), ("broker", "FIDELITY")])
        .await;
    assert_eq!(status, 200);
    assert!(complaint.contains("pick a brokerage"));
    let (status, headers, _) = api
        .press(&page, &[("action", "connect"), ("broker", "ROBINHOOD")])
        .await;
    assert_eq!(status, 303);
    let connections = api.get("/authorizations", &user).await.body;
    assert_eq!(connections[0]["type"], "trade");
    let back = headers["location"].to_str().unwrap();
    let id = connections[0]["id"].as_str().unwrap();
    assert_eq!(
        back,
        format!("http://localhost:3000/back?tab=1&status=SUCCESS&connection_id={id}")
    );

    let (status, _, page) = api.page(&link).await;
    assert_eq!(status, 410);
    assert!(page.contains("expired"));
}

#[tokio::test]
async fn the_portal_can_be_left_reports_the_limit_and_expires() {
    let api = Api::start().await;
    let user = api.registered("ada").await;
    api.set(json!({"connection_limit": 0})).await;
    let link = |answer: Answer| answer.body["redirectURI"].as_str().unwrap().to_owned();
    let first = link(
        api.login(
            &user,
            json!({"broker": "SANDBOX", "customRedirect": "berth://done"}),
        )
        .await,
    );
    let (_, _, page) = api.page(&first).await;
    let (status, _, limit) = api
        .press(&page, &[("action", "connect"), ("broker", "SANDBOX")])
        .await;
    assert_eq!(status, 403);
    assert!(limit.contains("Connection Limit Reached") && limit.contains("berth://done?status=ERROR"));
    let (status, headers, _) = api.press(&page, &[("action", "cancel")]).await;
    assert_eq!(
        (status, headers["location"].to_str().unwrap()),
        (303, "berth://done?status=ABANDONED")
    );

    let late = link(api.login(&user, json!({})).await);
    api.clock.advance(301);
    assert_eq!(api.page(&late).await.0, 410);
    assert_eq!(api.page(&late.replace("token=", "token=x")).await.0, 410);
}

#[tokio::test]
async fn a_broken_connection_is_repaired_by_reconnecting_in_the_portal() {
    let api = Api::start().await;
    let user = api.registered("ada").await;
    let (connection, _) = api
        .connect(json!({"user_id": "ada", "broker": "SCHWAB", "type": "read"}))
        .await;
    api.control(&format!("connections/{connection}/break"), json!({}))
        .await;
    let wish = json!({"reconnect": connection, "connectionType": "trade", "darkMode": true, "showCloseButton": false});
    let link = api.login(&user, wish).await.body["redirectURI"]
        .as_str()
        .unwrap()
        .to_owned();
    let (_, _, page) = api.page(&link).await;
    assert!(page.contains("Reconnect") && page.contains("class=\"dark\"") && !page.contains("cancel"));
    assert_eq!(page.matches("type=\"radio\"").count(), 1);
    let (status, _, done) = api
        .press(&page, &[("action", "connect"), ("broker", "SCHWAB")])
        .await;
    assert_eq!(status, 200);
    assert!(done.contains("connected"));
    let shown = api.get("/authorizations", &user).await.body;
    assert_eq!(shown.as_array().unwrap().len(), 1);
    assert_eq!(
        (&shown[0]["disabled"], &shown[0]["type"]),
        (&json!(false), &json!("trade"))
    );
}

#[tokio::test]
async fn accounts_have_no_data_until_their_first_sync() {
    let api = Api::start().await;
    let user = api.registered("ada").await;
    api.set(json!({"sync_delay_ms": 30_000})).await;
    let (_, accounts) = api.connect(json!({"user_id": "ada"})).await;
    let balances = format!("/accounts/{}/balances", accounts[0]);
    let early = api.get(&balances, &user).await;
    assert_eq!((early.status, &early.body["code"]), (503, &json!("3002")));
    let listed = api.get("/accounts", &user).await.body;
    assert_eq!(
        listed[0]["sync_status"]["holdings"]["initial_sync_completed"],
        false
    );
    assert_eq!(listed[0]["balance"]["total"], Value::Null);
    api.clock.advance(31);
    assert_eq!(api.get(&balances, &user).await.status, 200);
}

#[tokio::test]
async fn a_login_with_a_wrong_wish_is_refused() {
    let api = Api::start().await;
    let user = api.registered("ada").await;
    for body in [
        json!({"broker": "SANDBOX", "connectionType": "trade"}),
        json!({"broker": "NOBODY"}),
        json!({"connectionType": "write"}),
        json!({"locale": "de"}),
        json!({"customRedirect": "javascript:alert(1)"}),
        json!({"darkMode": "yes"}),
    ] {
        let answer = api.login(&user, body.clone()).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (400, &json!("1012")),
            "{body}"
        );
    }
    assert_eq!(
        api.login(&user, json!({"reconnect": "nothing"})).await.status,
        404
    );
}

#[tokio::test]
async fn an_order_is_previewed_placed_and_cancelled() {
    let api = Api::start().await;
    let user = api.registered("ada").await;
    let (_, accounts) = api
        .connect(json!({"user_id": "ada", "broker": "ROBINHOOD"}))
        .await;
    let form = json!({"account_id": accounts[0], "action": "BUY", "order_type": "Market", "time_in_force": "Day",
        "universal_symbol_id": "1e16258f-6988-41f0-8215-af8b18fe68e0", "units": 2});
    let preview = api
        .call(Method::POST, "/trade/impact", &user, Some(form.clone()))
        .await;
    assert_eq!(preview.status, 200, "{}", preview.body);
    let trade = format!("/trade/{}", preview.body["trade"]["id"].as_str().unwrap());
    let placed = api.call(Method::POST, &trade, &user, None).await;
    assert_eq!((placed.status, &placed.body["status"]), (200, &json!("EXECUTED")));
    assert_eq!(api.call(Method::POST, &trade, &user, None).await.status, 404);
    let positions = api
        .get(&format!("/accounts/{}/positions/all", accounts[0]), &user)
        .await
        .body;
    assert_eq!(positions["results"][0]["units"], "14");

    let mut limit = form.clone();
    limit["order_type"] = json!("Limit");
    limit["price"] = json!(100.5);
    let waiting = api.call(Method::POST, "/trade/place", &user, Some(limit)).await;
    assert_eq!(
        (waiting.status, &waiting.body["status"]),
        (200, &json!("PENDING"))
    );
    let cancel = json!({"brokerage_order_id": waiting.body["brokerage_order_id"]});
    let path = format!("/accounts/{}/trading/cancel", accounts[0]);
    assert_eq!(
        api.call(Method::POST, &path, &user, Some(cancel.clone()))
            .await
            .status,
        200
    );
    assert_eq!(
        api.call(Method::POST, &path, &user, Some(cancel)).await.status,
        400
    );
    let orders = api
        .get(
            &format!("/accounts/{}/orders", accounts[0]),
            &format!("{user}&state=executed"),
        )
        .await;
    assert_eq!(orders.body.as_array().unwrap().len(), 1);

    let mut other = form.clone();
    other["order_type"] = json!("Limit");
    other["price"] = json!("90");
    let waiting = api
        .call(Method::POST, "/trade/place", &user, Some(other))
        .await
        .body;
    let terms = json!({"brokerage_order_id": waiting["brokerage_order_id"], "action": "BUY", "order_type": "Limit",
        "time_in_force": "GTC", "price": 95, "units": 1});
    let path = format!("/accounts/{}/trading/replace", accounts[0]);
    let replaced = api.call(Method::POST, &path, &user, Some(terms)).await;
    assert_eq!(
        (replaced.status, &replaced.body["total_quantity"]),
        (200, &json!("1"))
    );
    let open = format!("{user}&state=open");
    let open = api
        .get(&format!("/accounts/{}/orders/v2", accounts[0]), &open)
        .await
        .body;
    assert_eq!(open["orders"].as_array().unwrap().len(), 1);
    assert_eq!(open["orders"][0]["legs"][0]["instrument"]["symbol"], "AAPL");
    let all = api
        .get(&format!("/accounts/{}/orders/all", accounts[0]), &user)
        .await
        .body;
    assert_eq!(
        all["results"][3]["order_type"],
        json!({"kind": "limit", "limit_price": "95"})
    );
    let complex = api
        .call(
            Method::POST,
            &format!("/accounts/{}/trading/complex", accounts[0]),
            &user,
            None,
        )
        .await;
    assert_eq!((complex.status, &complex.body["code"]), (403, &json!("1141")));

    let mut dear = form;
    dear["units"] = json!(100_000);
    assert_eq!(
        api.call(Method::POST, "/trade/place", &user, Some(dear))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn statistics_count_users_and_connections() {
    let api = Api::start().await;
    api.registered("ada").await;
    api.registered("grace").await;
    let (connection, _) = api.connect(json!({"user_id": "ada"})).await;
    api.connect(json!({"user_id": "ada", "broker": "FIDELITY"})).await;
    api.control(&format!("connections/{connection}/break"), json!({}))
        .await;
    let stats = api.get("/management/stats", "").await.body;
    assert_eq!(
        (&stats["total_users"], &stats["total_connected_users"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        (
            &stats["total_active_connections"],
            &stats["total_disabled_connections"]
        ),
        (&json!(1), &json!(1))
    );
}
