//! The access sync's routes at their edge: who may use them, what they take, and what they answer when something
//! outside fails.

use std::time::Duration;

use berth_local::Options;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Answer, World};

/// All routes of operators, each with a body that it takes.
const OPERATORS: [(&str, &str, &str); 13] = [
    ("POST", "/api/access/sync", "{}"),
    ("POST", "/sync", "{}"),
    ("GET", "/api/access/plan", ""),
    ("POST", "/api/access/plans/0123456789abcdef/approve", "{}"),
    ("GET", "/api/access/reviews", ""),
    ("POST", "/api/access/reviews/r1", r#"{"action": "retry"}"#),
    ("GET", "/api/access/dead-letters", ""),
    ("POST", "/api/access/dead-letters/d1/replay", "{}"),
    ("GET", "/api/access/scripts/S1", ""),
    ("PUT", "/api/access/scripts/S1", "{}"),
    (
        "POST",
        "/api/access/revocations",
        r#"{"transaction_id": 1, "reason": "refund"}"#,
    ),
    ("POST", "/api/access/resync", r#"{"product_id": "100"}"#),
    ("POST", "/api/access/repair", "{}"),
];

/// What a caller at the sandboxes of the shop and the access API does.
impl World {
    async fn outside(&self, method: Method, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.stack().urls().access);
        let request = berth::snaptrade::http_client().unwrap().request(method, url);
        let answer = request.json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.unwrap_or_default()
    }

    /// A shop with some customers, all of whose names TradingView knows but one.
    async fn with_a_shop() -> Self {
        let world = Self::start().await;
        world.outside(Method::POST, "/__sandbox/sample", json!({})).await;
        world
    }

    async fn fail_outside(&self, fault: Value) {
        self.outside(Method::POST, "/__sandbox/faults", fault).await;
    }

    /// The paths that were called at the shop and the access API, with their methods.
    async fn called_outside(&self) -> Vec<String> {
        let requests = self.outside(Method::GET, "/__sandbox/requests", json!({})).await;
        let line = |request: &Value| {
            let of = |key| request[key].as_str().unwrap_or_default();
            format!("{} {}", of("method"), of("path"))
        };
        requests.as_array().unwrap().iter().map(line).collect()
    }

    async fn access_to(&self, script: &str) -> Vec<String> {
        let users = self
            .outside(Method::GET, &format!("/__sandbox/access/{script}"), json!({}))
            .await;
        let name = |user: &Value| user["username"].as_str().unwrap().to_owned();
        users.as_array().unwrap().iter().map(name).collect()
    }

    async fn as_operator_with(&self, method: &str, path: &str, body: &str) -> Answer {
        let request = self.as_operator(method.parse().unwrap(), path);
        self.send(request.body(body.to_owned())).await
    }

    async fn access_sync(&self, query: &str) -> Answer {
        self.as_operator_with("POST", &format!("/api/access/sync{query}"), "")
            .await
    }

    async fn memberpress(&self, key: Option<&str>, body: &str) -> Answer {
        let mut request = self.request(Method::POST, "/api/access/webhook");
        if let Some(key) = key {
            request = request.header("MEMBERPRESS-WEBHOOK-KEY", key);
        }
        self.send(request.body(body.to_owned())).await
    }
}

#[tokio::test]
async fn the_access_sync_is_for_operators() {
    let world = World::start().await;
    for (method, path, body) in OPERATORS {
        let method: Method = method.parse().unwrap();
        let nobody = world.send(world.request(method.clone(), path).body(body)).await;
        assert_eq!(
            (nobody.status, &nobody.body),
            (401, &json!({"message": "Unauthorized"})),
            "{path}"
        );
        let user = world.send(world.as_user("ada", method, path).body(body)).await;
        user.problem(403, "forbidden");
    }
    assert_eq!(world.called_outside().await, Vec::<String>::new());
    world.stop().await;
}

#[tokio::test]
async fn other_methods_and_paths_are_told_apart() {
    let world = World::start().await;
    for (method, path, allow) in [
        ("GET", "/api/access/sync", "POST, OPTIONS"),
        ("GET", "/sync", "POST, OPTIONS"),
        ("DELETE", "/api/access/scripts/S1", "GET, PUT, OPTIONS"),
        ("GET", "/api/access/webhook", "POST, OPTIONS"),
        ("PUT", "/api/access/reviews", "GET, OPTIONS"),
    ] {
        let answer = world
            .as_operator_with(method, path, "")
            .await
            .problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allow), "{path}");
    }
    for path in [
        "/api/access",
        "/api/access/plans",
        "/sync/",
        "/api/access/reviews/a/b",
    ] {
        world
            .as_operator_with("POST", path, "")
            .await
            .problem(404, "not_found");
    }
    world.stop().await;
}

#[tokio::test]
async fn what_a_route_does_not_take_is_pointed_to() {
    let world = World::start().await;
    for (method, path, body, pointers) in [
        (
            "POST",
            "/api/access/sync?dry_run=perhaps",
            "",
            &["#/query/dry_run"][..],
        ),
        (
            "GET",
            "/api/access/reviews?limit=501&cursor=x",
            "",
            &["#/query/limit", "#/query/cursor"],
        ),
        ("GET", "/api/access/dead-letters?limit=0", "", &["#/query/limit"]),
        ("POST", "/api/access/reviews/r1", "{}", &["/action"]),
        (
            "POST",
            "/api/access/reviews/r1",
            r#"{"action": "forget"}"#,
            &["/action"],
        ),
        (
            "POST",
            "/api/access/reviews/r1",
            r#"{"action": "correct"}"#,
            &["/username"],
        ),
        (
            "POST",
            "/api/access/reviews/r1",
            r#"{"action": "correct", "username": "a b"}"#,
            &["/username"],
        ),
        ("POST", "/api/access/reviews/r1", "[]", &[""]),
        (
            "POST",
            "/api/access/revocations",
            r#"{"reason": "anger"}"#,
            &["/transaction_id", "/reason"],
        ),
        (
            "POST",
            "/api/access/resync",
            r#"{"product_id": true}"#,
            &["/product_id"],
        ),
        (
            "PUT",
            "/api/access/scripts/S1",
            r#"{"script_id": "S2"}"#,
            &["/script_id"],
        ),
        (
            "PUT",
            "/api/access/scripts/S1",
            r#"{"users": {"Ada": 5}}"#,
            &["/users/Ada"],
        ),
        ("PUT", "/api/access/scripts/S1", "{", &[""]),
    ] {
        let answer = world
            .as_operator_with(method, path, body)
            .await
            .problem(400, "invalid_request");
        let faults = answer.body["errors"].as_array().unwrap().iter();
        let found: Vec<_> = faults.map(|fault| fault["pointer"].as_str().unwrap()).collect();
        assert_eq!(found, pointers, "{path} {body}");
    }
    for (method, path, body) in [
        ("POST", "/api/access/plans/0123456789abcdef/approve", "{}"),
        ("POST", "/api/access/reviews/r1", r#"{"action": "dismiss"}"#),
        ("POST", "/api/access/dead-letters/d1/replay", ""),
        ("GET", "/api/access/scripts/unheard-of", ""),
        (
            "POST",
            "/api/access/revocations",
            r#"{"transaction_id": "9", "reason": "chargeback"}"#,
        ),
    ] {
        world
            .as_operator_with(method, path, body)
            .await
            .problem(404, "not_found");
    }
    world.stop().await;
}

#[tokio::test]
async fn the_original_programs_path_runs_the_same_sync() {
    let world = World::with_a_shop().await;
    let dry = world
        .as_operator_with("POST", "/sync?dry_run=true", "")
        .await
        .with_status(200);
    assert_eq!(dry["dry_run"], true);
    assert!(!dry["plan"].as_array().unwrap().is_empty(), "{}", dry.body);
    assert!(world.access_to("S1").await.is_empty());
    let report = world.as_operator_with("POST", "/sync", "").await.with_status(200);
    assert_eq!(
        (&report["dry_run"], &report["complete"]),
        (&json!(false), &json!(true))
    );
    assert!(report["granted"].as_u64().unwrap() > 0, "{}", report.body);
    assert!(world.access_to("S1").await.contains(&"AdaLovelace".to_owned()));
    // Nothing has changed since, whichever of the paths asks.
    let again = world.access_sync("").await.with_status(200);
    assert_eq!(
        (&again["considered"], &again["granted"]),
        (&json!(0), &json!(0)),
        "{}",
        again.body
    );
    world.stop().await;
}

#[tokio::test]
async fn a_second_run_beside_the_first_is_told_so() {
    let world = World::with_a_shop().await;
    world
        .fail_outside(json!({"operation": "transactions", "kind": "slow", "delay_ms": 1_500}))
        .await;
    let second = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.access_sync("").await
    };
    let (first, second) = tokio::join!(world.access_sync(""), second);
    first.with_status(200);
    let second = second.problem(409, "operation_in_progress");
    assert!(second.retry_after().is_some());
    world.access_sync("").await.with_status(200);
    world.stop().await;
}

#[tokio::test]
async fn a_shop_that_fails_is_told_apart_from_one_that_is_silent_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.json");
    let configuration = json!({
        "wordpress": {"timeout": 1},
        "products": {"100": {"script_id": "S1", "duration": "1M"}},
    });
    std::fs::write(&file, configuration.to_string()).unwrap();
    let world = World::with(Options {
        access_config: Some(file),
        ..Options::default()
    })
    .await;
    world.outside(Method::POST, "/__sandbox/sample", json!({})).await;
    for (fault, status, code) in [
        (json!({"kind": "status", "status": 500}), 502, "upstream_error"),
        (json!({"kind": "status", "status": 401}), 502, "upstream_error"),
        (json!({"kind": "malformed"}), 502, "upstream_error"),
        (json!({"kind": "timeout"}), 504, "upstream_timeout"),
    ] {
        let mut fault = fault;
        fault["operation"] = "transactions".into();
        fault["times"] = 50.into();
        world.fail_outside(fault).await;
        world.access_sync("").await.problem(status, code);
        world.fail_outside(json!({"operation": "*", "times": 0})).await;
    }
    assert!(world.access_to("S1").await.is_empty());
    world.access_sync("").await.with_status(200);
    assert!(!world.access_to("S1").await.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn memberpresss_events_are_taken_with_the_key_only_and_never_believed() {
    let world = World::with_a_shop().await;
    let event = json!({
        "event": "transaction-completed", "type": "transaction",
        "data": {"id": "1003", "status": "complete", "expires_at": "2099-12-31 23:59:59"},
    })
    .to_string();
    for key in [
        None,
        Some(""),
        Some("sandbox-webhook-ke"),
        Some("SANDBOX-WEBHOOK-KEY"),
    ] {
        let refused = world.memberpress(key, &event).await;
        refused.problem(401, "invalid_signature");
    }
    assert!(world.called_outside().await.is_empty());

    let key = Some("sandbox-webhook-key");
    let taken = world.memberpress(key, &event).await.with_status(202);
    assert_eq!(taken.body, json!({"received": true}));
    let called = world.called_outside().await;
    assert!(
        called.iter().any(|call| call.ends_with("/transactions/1003")),
        "{called:?}"
    );
    assert_eq!(world.access_to("S1").await, ["grace_hopper"]);
    let access = world
        .outside(Method::GET, "/__sandbox/access/S1", json!({}))
        .await;
    assert!(
        !access[0]["expiration"].as_str().unwrap().starts_with("2099"),
        "{access}"
    );

    for odd in [
        "{}",
        "",
        r#"{"event": "member-login", "type": "member", "data": {"id": 11}}"#,
    ] {
        world.memberpress(key, odd).await.with_status(202);
    }
    let gone = r#"{"event": "transaction-completed", "type": "transaction", "data": {"id": 99999}}"#;
    world.memberpress(key, gone).await.with_status(202);
    for wrong in ["[]", "{", "7"] {
        world
            .memberpress(key, wrong)
            .await
            .problem(400, "invalid_request");
    }
    world.stop().await;
}

#[tokio::test]
async fn an_event_that_cannot_be_followed_now_is_taken_all_the_same() {
    let world = World::with_a_shop().await;
    let event = r#"{"event": "transaction-completed", "type": "transaction", "data": {"id": 1003}}"#;
    world
        .fail_outside(json!({"operation": "transactions", "kind": "status", "status": 401, "times": 9}))
        .await;
    world
        .memberpress(Some("sandbox-webhook-key"), event)
        .await
        .with_status(202);
    assert!(world.access_to("S1").await.is_empty());
    world.fail_outside(json!({"operation": "*", "times": 0})).await;
    world.access_sync("").await.with_status(200);
    assert!(world.access_to("S1").await.contains(&"grace_hopper".to_owned()));
    world.stop().await;
}

#[tokio::test]
async fn the_health_names_the_access_syncs_services_and_asks_them_at_most_once_a_minute() {
    let world = World::start().await;
    // An unhealthy answer is no problem answer, so it is not checked as the others are.
    let health = async || {
        let request = world.request(Method::GET, "/health");
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap()["checks"].clone())
    };
    let (status, checks) = health().await;
    assert_eq!(status, 200);
    assert_eq!(
        (&checks["access_api"], &checks["wordpress"]),
        (&json!("ok"), &json!("ok"))
    );
    let calls = world.called_outside().await.len();
    world
        .fail_outside(json!({"operation": "*", "kind": "status", "status": 401, "times": 20}))
        .await;
    assert_eq!(health().await.0, 200);
    assert_eq!(world.called_outside().await.len(), calls);
    world.advance(61).await;
    let (status, checks) = health().await;
    assert_eq!(status, 503);
    let expected = (&json!("unauthorized"), &json!("unauthorized"));
    assert_eq!((&checks["access_api"], &checks["wordpress"]), expected);
    assert_eq!(checks["store"], "ok");
    world.stop().await;
}

#[tokio::test]
async fn the_stack_counts_the_calls_and_mails_of_a_run() {
    let world = World::with_a_shop().await;
    let report = world.access_sync("").await.with_status(200);
    let path = format!("/__local/calls?request_id={}", report.request_id());
    let url = format!("{}{path}", world.stack().urls().api);
    let counts = berth::snaptrade::http_client()
        .unwrap()
        .get(url)
        .send()
        .await
        .unwrap();
    let counts: Value = counts.json().await.unwrap();
    let sent: u64 = report["calls"]
        .as_object()
        .unwrap()
        .values()
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!(counts[0]["function"], "access-sync");
    assert_eq!(
        counts[0]["access"].as_u64(),
        Some(sent),
        "{counts} {}",
        report.body
    );
    assert_eq!(counts[0]["mail"], report["mails"], "{counts}");
    world.stop().await;
}

#[tokio::test]
async fn the_schedule_runs_the_sync_when_its_interval_has_passed() {
    let world = World::with_a_shop().await;
    let fire = async |name: &str| {
        let url = format!("{}/__local/schedules/{name}", world.stack().urls().api);
        let answer = berth::snaptrade::http_client()
            .unwrap()
            .post(url)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()
    };
    let first = fire("access-sync").await;
    assert!(first["granted"].as_u64().unwrap() > 0, "{first}");
    let calls = world.called_outside().await.len();
    assert_eq!(fire("access-sync").await, Value::Null);
    assert_eq!(world.called_outside().await.len(), calls);
    world.advance(15 * 60 + 1).await;
    assert_eq!(fire("access-sync").await["granted"], 0);
    assert_eq!(fire("access-rescan").await["dry_run"], false);
    world.stop().await;
}
