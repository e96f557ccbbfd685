//! From the link to the portal to the data: connecting a brokerage, the webhooks that follow, and refreshing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use berth::snaptrade::{http_client, webhook};
use berth::webhooks;
use berth_local::{Options, Stack};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// How long the worker may take over an event before a test fails.
const PATIENCE: Duration = Duration::from_secs(10);

struct World {
    stack: Stack,
    http: Client,
}

/// An answer: status, request id, `Retry-After`, and body.
struct Answer {
    status: u16,
    request_id: String,
    retry_after: Option<String>,
    body: Value,
}

impl Answer {
    #[track_caller]
    fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    #[track_caller]
    fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!(self.body["code"], code, "{}", self.body);
        self.is(status)
    }
}

impl World {
    async fn start() -> Self {
        let mut options = Options::default();
        options
            .settings
            .set("ALLOWED_ORIGINS", "https://app.example.com,http://localhost:3000");
        Self::on(options).await
    }

    async fn on(options: Options) -> Self {
        Self {
            stack: Stack::start(options).await.unwrap(),
            http: http_client().unwrap(),
        }
    }

    /// A user who is registered.
    async fn with(user: &str) -> Self {
        let world = Self::start().await;
        world.post(user, "register", json!({})).await.is(201);
        world
    }

    /// A user with a brokerage connected, once the worker has read it; and the connection's id.
    async fn connected(user: &str) -> (Self, String) {
        let world = Self::with(user).await;
        let connection = world.connect(user).await;
        world.settled().await;
        (world, connection)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        Answer {
            status: response.status().as_u16(),
            request_id: header("x-request-id").unwrap_or_default(),
            retry_after: header("retry-after"),
            body: response.json().await.unwrap_or_default(),
        }
    }

    async fn post(&self, user: &str, route: &str, body: Value) -> Answer {
        let url = format!("{}/api/snaptrade/{route}", self.stack.urls().api);
        self.send(
            self.http
                .post(url)
                .bearer_auth(format!("dev:{user}"))
                .body(body.to_string()),
        )
        .await
    }

    /// A control call of the sandbox.
    async fn sandbox(&self, method: Method, path: &str, body: Value) -> Value {
        let url = format!("{}/__sandbox/{path}", self.stack.urls().snaptrade);
        self.send(self.http.request(method, url).body(body.to_string()))
            .await
            .is(200)
    }

    async fn fault(&self, operation: &str, kind: &str, times: u32) {
        let body = json!({"operation": operation, "kind": kind, "times": times, "status": 503});
        self.sandbox(Method::POST, "faults", body).await;
    }

    async fn connect(&self, user: &str) -> String {
        let made = self
            .sandbox(Method::POST, "connect", json!({"user_id": user}))
            .await;
        made["connection_id"].as_str().unwrap().to_owned()
    }

    /// The operations that SnapTrade was asked for, as the paths' last words.
    async fn asked(&self) -> Vec<String> {
        let requests = self.sandbox(Method::GET, "requests", json!({})).await;
        let last = |request: &Value| {
            let path = request["path"].as_str().unwrap();
            path.rsplit('/').next().unwrap().to_owned()
        };
        requests.as_array().unwrap().iter().map(last).collect()
    }

    /// Waits until the worker has nothing more to do: no call to SnapTrade for a while.
    async fn settled(&self) {
        let mut before = usize::MAX;
        for _ in 0..PATIENCE.as_millis() / 600 {
            let now = self.asked().await.len();
            if now == before {
                return;
            }
            before = now;
            // Longer than the worker waits for further events before it calls.
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
    }

    async fn webhook(&self, body: &[u8], signature: &str) -> Answer {
        let url = format!("{}/api/snaptrade/webhook", self.stack.urls().api);
        self.send(
            self.http
                .post(url)
                .header("Signature", signature)
                .body(body.to_vec()),
        )
        .await
    }

    /// Calls to SnapTrade and DynamoDB that a request made.
    fn calls(&self, request_id: &str) -> (u32, u32) {
        let calls = serde_json::to_value(self.stack.calls(Some(request_id))).unwrap();
        let one = &calls.as_array().unwrap()[0];
        let number = |name: &str| u32::try_from(one[name].as_u64().unwrap()).unwrap();
        (number("snaptrade"), number("dynamodb"))
    }

    async fn fire(&self, schedule: &str) {
        let url = format!("{}/__local/schedules/{schedule}", self.stack.urls().api);
        self.send(self.http.post(url)).await.is(200);
    }
}

fn key() -> secrecy::SecretString {
    secrecy::SecretString::from("sandbox-consumer-key")
}

fn event(at: Timestamp) -> Value {
    json!({
        "webhookId": "w-1",
        "clientId": "SANDBOX-CLIENT",
        "eventTimestamp": at.to_string(),
        "userId": "nobody~aaaaaaaaaaaa",
        "eventType": "CONNECTION_BROKEN",
        "brokerageAuthorizationId": "c",
    })
}

#[tokio::test]
async fn a_user_connects_a_brokerage_and_sees_the_accounts() {
    let world = World::with("ada").await;
    let answer = world.post("ada", "connection-url", json!({})).await;
    assert_eq!(world.calls(&answer.request_id), (1, 2));
    let link = answer.is(200);
    assert_eq!(link["connection_type"], "trade");
    assert!(link["connection_url"].as_str().unwrap().starts_with("http"));
    assert!(link["session_id"].is_string());
    let expires: Timestamp = link["expires_at"].as_str().unwrap().parse().unwrap();
    let left = expires.duration_since(Timestamp::now());
    assert!(left > SignedDuration::from_secs(290) && left <= SignedDuration::from_secs(300));

    let pending = world.post(
        "ada",
        "callback",
        json!({"status": "SUCCESS", "connection_id": "forged"}),
    );
    assert_eq!(pending.await.is(200), json!({"outcome": "pending"}));
    let connection = world.connect("ada").await;
    world.settled().await;
    let outcome = world
        .post("ada", "callback", json!({"status": "ERROR"}))
        .await
        .is(200);
    assert_eq!(outcome["outcome"], "connected");
    assert_eq!(outcome["connection"]["connection_id"], connection.as_str());
    assert_eq!(outcome["connection"]["state"], "active");
    let accounts = outcome["connection"]["accounts"].as_array().unwrap().len();
    assert!(accounts > 0);

    let refreshed = world.post("ada", "refresh", json!({})).await.is(200);
    assert_eq!(refreshed["user_id"], "ada");
    assert_eq!(refreshed["upstream_refresh"], "requested");
    assert_eq!(refreshed["stale"], json!([]));
    assert_eq!(refreshed["retry_scheduled"], false);
    let listed = refreshed["accounts"].as_array().unwrap();
    assert_eq!(listed.len(), accounts);
    for account in listed {
        assert!(account["account_id"].as_str().unwrap().starts_with("snaptrade_"));
        assert_eq!(account["number"].as_str().unwrap().len(), 4);
        assert!(account["total_value"]["amount"].is_string());
        assert_eq!(account["connection_id"], connection.as_str());
        assert_eq!(account["connection_state"], "active");
    }
}

#[tokio::test]
async fn calls_for_a_refresh_at_once_or_soon_after_are_one() {
    let (world, _) = World::connected("ada").await;
    let before = world.asked().await.len();
    let (one, two, three) = tokio::join!(
        world.post("ada", "refresh", json!({})),
        world.post("ada", "refresh", json!({})),
        world.post("ada", "refresh", json!({})),
    );
    let one = one.is(200);
    assert_eq!(two.is(200)["refreshed_at"], one["refreshed_at"]);
    assert_eq!(three.is(200)["refreshed_at"], one["refreshed_at"]);
    let asked = world.asked().await.split_off(before);
    let lists = asked.iter().filter(|name| *name == "authorizations").count();
    // The refresh brings about a webhook for each of the two accounts, and the worker reads for each.
    assert!(lists <= 3, "{asked:?}");
    let later = world.post("ada", "refresh", json!({})).await.is(200);
    assert_eq!(later["refreshed_at"], one["refreshed_at"]);

    world.settled().await;
    world.stack.clock().advance(11);
    let next = world.post("ada", "refresh", json!({})).await.is(200);
    assert_ne!(next["refreshed_at"], one["refreshed_at"]);
    assert_eq!(next["upstream_refresh"], "too_recent");
}

#[tokio::test]
async fn a_refresh_can_be_narrowed_to_what_the_user_has() {
    let (world, connection) = World::connected("ada").await;
    let all = world.post("ada", "refresh", json!({})).await.is(200);
    let account = all["accounts"][0]["account_id"].as_str().unwrap();
    world.stack.clock().advance(11);
    let one = world.post("ada", "refresh", json!({"account_id": account}));
    let one = one.await.is(200);
    assert_eq!(one["accounts"].as_array().unwrap().len(), 1);
    let under = world.post("ada", "refresh", json!({"connection_id": connection}));
    assert_eq!(
        under.await.is(200)["accounts"].as_array().unwrap().len(),
        all["accounts"].as_array().unwrap().len()
    );
    for unknown in [
        json!({"account_id": "snaptrade_unknown"}),
        json!({"account_id": "other"}),
        json!({"connection_id": "unknown"}),
        json!({"account_id": account, "connection_id": "unknown"}),
    ] {
        world
            .post("ada", "refresh", unknown)
            .await
            .refused(404, "not_found");
    }
    let wrong = world
        .post("ada", "refresh", json!({"account_id": 7, "user_id": "a b"}))
        .await;
    assert_eq!(wrong.is(400)["errors"].as_array().unwrap().len(), 2);
    let other = world.post("ada", "refresh", json!({"user_id": "grace"}));
    other.await.refused(403, "forbidden");
    world
        .post("grace", "refresh", json!({}))
        .await
        .refused(409, "not_registered");
}

#[tokio::test]
async fn in_an_outage_what_is_stored_is_shown_as_stale_and_nothing_is_lost() {
    let (world, _) = World::connected("ada").await;
    world.post("ada", "refresh", json!({})).await.is(200);
    world.settled().await;
    world.stack.clock().advance(11);
    let before = world.post("ada", "refresh", json!({})).await.is(200);
    world.settled().await;
    world.stack.clock().advance(11);
    world.fault("*", "status", 100).await;
    let outage = world.post("ada", "refresh", json!({})).await.is(200);
    let accounts = before["accounts"].as_array().unwrap();
    assert_eq!(outage["accounts"].as_array().unwrap().len(), accounts.len());
    assert_eq!(outage["stale"].as_array().unwrap().len(), accounts.len());
    assert_eq!(outage["accounts"][0]["total_value"], accounts[0]["total_value"]);
    assert_eq!(outage["refreshed_at"], before["refreshed_at"]);

    world.fault("*", "status", 0).await;
    world.stack.clock().advance(60);
    // One account's positions fail; what is stored of it stays, and the others are fresh.
    world.fault("getAllAccountPositions", "status", 2).await;
    let partial = world.post("ada", "refresh", json!({})).await.is(200);
    assert_eq!(partial["accounts"].as_array().unwrap().len(), accounts.len());
    let stale = partial["stale"].as_array().unwrap().len();
    assert!(stale <= 1, "{partial}");
}

#[tokio::test]
async fn in_an_outage_with_nothing_stored_the_caller_is_told_whose_fault_it_is() {
    let world = World::with("ada").await;
    world.fault("*", "status", 100).await;
    let answer = world.post("ada", "refresh", json!({})).await;
    assert!(answer.retry_after.is_some());
    answer.refused(502, "upstream_error");
    world
        .post("ada", "connection-url", json!({}))
        .await
        .refused(502, "upstream_error");
    world
        .post("ada", "callback", json!({}))
        .await
        .refused(502, "upstream_error");
}

#[tokio::test]
async fn a_snaptrade_that_never_answers_is_told_in_time_and_the_next_try_works() {
    let (world, _) = World::connected("ada").await;
    world.post("grace", "register", json!({})).await.is(201);
    world.settled().await;
    world.fault("*", "timeout", 1_000).await;
    let (link, callback, nothing, stored) = tokio::join!(
        world.post("ada", "connection-url", json!({})),
        world.post("ada", "callback", json!({})),
        world.post("grace", "refresh", json!({})),
        world.post("ada", "refresh", json!({})),
    );
    link.refused(504, "upstream_timeout");
    callback.refused(504, "upstream_timeout");
    nothing.refused(504, "upstream_timeout");
    assert_ne!(stored.is(200)["stale"], json!([]));

    world.fault("*", "timeout", 0).await;
    world.fault("loginSnapTradeUser", "commit_then_timeout", 1).await;
    // An unused link has no effect, so it is asked for once more.
    world.post("ada", "connection-url", json!({})).await.is(200);
    for (kind, status, code) in [
        ("malformed", 502, "upstream_error"),
        ("rate_limited", 429, "rate_limited"),
        ("limit_reached", 409, "connection_limit_reached"),
    ] {
        world.fault("loginSnapTradeUser", kind, 100).await;
        world
            .post("ada", "connection-url", json!({}))
            .await
            .refused(status, code);
        world.fault("*", kind, 0).await;
    }
}

#[tokio::test]
async fn a_throttled_refresh_is_done_by_the_schedule_when_it_says() {
    let (world, _) = World::connected("ada").await;
    world.post("ada", "refresh", json!({})).await.is(200);
    world.settled().await;
    world.stack.clock().advance(60);
    world.fault("*", "rate_limited", 100).await;
    let throttled = world.post("ada", "refresh", json!({})).await.is(200);
    assert_eq!(throttled["retry_scheduled"], true);
    assert_eq!(
        throttled["stale"].as_array().unwrap().len(),
        throttled["accounts"].as_array().unwrap().len()
    );
    let retry_at: Timestamp = throttled["retry_at"].as_str().unwrap().parse().unwrap();
    world.fault("*", "rate_limited", 0).await;
    world.stack.clock().set(retry_at);
    let before = world.asked().await.len();
    world.fire("refresh").await;
    let asked = world.asked().await.split_off(before);
    assert!(asked.iter().any(|name| name == "authorizations"), "{asked:?}");
    let after = world.post("ada", "refresh", json!({})).await.is(200);
    assert_eq!(
        (&after["stale"], &after["retry_scheduled"]),
        (&json!([]), &json!(false))
    );
}

#[tokio::test]
async fn a_connections_state_follows_its_webhooks() {
    let (world, connection) = World::connected("ada").await;
    let state = async |world: &World| {
        world.settled().await;
        world.stack.clock().advance(60);
        let refreshed = world.post("ada", "refresh", json!({})).await.is(200);
        world.settled().await;
        refreshed
    };
    let act = |action: &str| format!("connections/{connection}/{action}");
    world.sandbox(Method::POST, &act("break"), json!({})).await;
    world.settled().await;
    let listed = world
        .send(
            world
                .http
                .get(format!("{}/api/snaptrade/users", world.stack.urls().api))
                .bearer_auth("dev:root:operator"),
        )
        .await
        .is(200);
    assert_eq!(listed["data"][0]["connections"], 1);
    let broken = state(&world).await;
    assert_eq!(broken["accounts"][0]["connection_state"], "broken");
    assert_eq!(broken["accounts"][0]["tradable"], false);
    assert_eq!(broken["stale"][0], broken["accounts"][0]["account_id"]);
    world.sandbox(Method::POST, &act("fix"), json!({})).await;
    let fixed = state(&world).await;
    assert_eq!(fixed["accounts"][0]["connection_state"], "active");
    assert_eq!(fixed["stale"], json!([]));
    world.sandbox(Method::POST, &act("delete"), json!({})).await;
    assert_eq!(state(&world).await["accounts"], json!([]));
}

#[tokio::test]
async fn holdings_that_change_are_read_because_a_webhook_says_so() {
    let (world, _) = World::connected("ada").await;
    let before = world.post("ada", "refresh", json!({})).await.is(200);
    world.settled().await;
    let account = before["accounts"][0]["account_id"].as_str().unwrap();
    let account = account.trim_start_matches("snaptrade_");
    let asked = world.asked().await.len();
    let body = json!({"total": {"amount": "4321.09", "currency": "USD"}});
    world
        .sandbox(Method::POST, &format!("holdings/{account}"), body)
        .await;
    world.settled().await;
    assert!(world.asked().await.len() > asked, "the worker asked for nothing");
    world.stack.clock().advance(11);
    world.fault("*", "status", 100).await;
    let seen = world.post("ada", "refresh", json!({})).await.is(200);
    assert_eq!(
        seen["accounts"][0]["total_value"],
        json!({"amount": "4321.09", "currency": "USD"})
    );
}

#[tokio::test]
async fn a_webhook_is_taken_once_and_only_if_it_is_signed_for_us_and_fresh() {
    let world = World::start().await;
    let now = Timestamp::now();
    let body = event(now).to_string();
    let signature = webhook::sign(&key(), &event(now));
    for (body, signature) in [
        (body.as_str(), ""),
        (body.as_str(), "forged"),
        (&body[..body.len() - 1], signature.as_str()),
        (&body.replace("w-1", "w-2"), signature.as_str()),
        ("", signature.as_str()),
        ("null", signature.as_str()),
    ] {
        world
            .webhook(body.as_bytes(), signature)
            .await
            .refused(401, "invalid_signature");
    }
    let taken = world.webhook(body.as_bytes(), &signature).await;
    assert_eq!(world.calls(&taken.request_id), (0, 1));
    assert_eq!(taken.is(200), json!({"received": true, "duplicate": false}));
    let again = world.webhook(body.as_bytes(), &signature).await.is(200);
    assert_eq!(again, json!({"received": true, "duplicate": true}));

    let send = async |change: &dyn Fn(&mut Value)| {
        let mut event = event(now);
        change(&mut event);
        let signature = webhook::sign(&key(), &event);
        world.webhook(event.to_string().as_bytes(), &signature).await
    };
    let stamped = |hours: i64| {
        move |event: &mut Value| {
            let at = now + SignedDuration::from_hours(hours);
            event["eventTimestamp"] = at.to_string().into();
            event["webhookId"] = format!("at {hours}").into();
        }
    };
    send(&stamped(-71)).await.is(200);
    for hours in [-73, 1] {
        let refused = send(&stamped(hours)).await.refused(400, "invalid_request");
        assert_eq!(refused["errors"][0]["pointer"], "/eventTimestamp");
    }
    let other = send(&|event| event["clientId"] = "OTHER".into()).await;
    other.refused(401, "invalid_signature");
    let unknown = send(&|event| {
        event["eventType"] = "SOMETHING_NEW".into();
        event["webhookId"] = "w-3".into();
    });
    assert_eq!(unknown.await.is(200)["duplicate"], false);
    let unnamed = |event: &mut Value| {
        event.as_object_mut().unwrap().remove("webhookId");
    };
    assert_eq!(send(&unnamed).await.is(200)["duplicate"], false);
    assert_eq!(send(&unnamed).await.is(200)["duplicate"], true);
    let huge = vec![b' '; 256 * 1024 + 1];
    world
        .webhook(&huge, &signature)
        .await
        .refused(413, "payload_too_large");
}

#[tokio::test]
async fn every_fault_of_a_request_for_a_link_is_named_and_none_reaches_snaptrade() {
    let world = World::with("ada").await;
    let before = world.asked().await.len();
    let wrong = json!({
        "connection_type": "write", "broker": "A/B", "redirect_uri": "https://evil.test/", "reconnect": "",
        "immediate_redirect": 1, "dark_mode": "yes", "show_close_button": null, "locale": "fr",
    });
    let answer = world.post("ada", "connection-url", wrong).await;
    let refused = answer.refused(400, "invalid_request");
    let mut pointers: Vec<&str> = refused["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| fault["pointer"].as_str().unwrap())
        .collect();
    pointers.sort_unstable();
    let expected = [
        "/broker",
        "/connection_type",
        "/dark_mode",
        "/immediate_redirect",
        "/locale",
        "/reconnect",
        "/redirect_uri",
        "/show_close_button",
    ];
    assert_eq!(pointers, expected);
    world
        .post("grace", "connection-url", json!({}))
        .await
        .refused(409, "not_registered");
    assert_eq!(world.asked().await.len(), before);
    world
        .post("ada", "connection-url", json!({"reconnect": "unknown"}))
        .await
        .refused(404, "not_found");
    let all = json!({
        "connection_type": "read", "broker": "SANDBOX", "redirect_uri": "https://app.example.com/é?a=b",
        "immediate_redirect": true, "dark_mode": true, "show_close_button": false, "locale": "pt-BR",
    });
    let link = world.post("ada", "connection-url", all).await.is(200);
    assert_eq!(link["connection_type"], "read");
}

#[tokio::test]
async fn a_brokerage_that_cannot_trade_is_connected_for_reading_unless_trading_was_asked_for() {
    let world = World::with("ada").await;
    let link = world.post("ada", "connection-url", json!({"broker": "SANDBOX"}));
    assert_eq!(link.await.is(200)["connection_type"], "read");
    for wrong in [
        json!({"broker": "SANDBOX", "connection_type": "trade"}),
        json!({"broker": "NOBODY"}),
    ] {
        let answer = world.post("ada", "connection-url", wrong).await;
        let refused = answer.refused(400, "invalid_request");
        assert_eq!(refused["errors"][0]["pointer"], "/broker");
    }
}

#[tokio::test]
async fn data_that_snaptrade_is_still_collecting_are_not_shown_as_empty() {
    let world = World::with("ada").await;
    world
        .sandbox(Method::POST, "settings", json!({"sync_delay_ms": 3_600_000}))
        .await;
    world.connect("ada").await;
    world.settled().await;
    let answer = world.post("ada", "refresh", json!({})).await;
    assert!(answer.retry_after.is_some());
    answer.refused(425, "not_synced_yet");
}

#[tokio::test]
async fn an_event_that_cannot_be_worked_on_is_tried_again_and_then_kept_as_a_dead_letter() {
    let world = World::with("ada").await;
    let app = world.stack.app("test");
    let tenant = berth::ids::TenantId::default();
    let letters = async || {
        webhooks::dead_letters(app.store(), &tenant, 50, None, app.clock().now())
            .await
            .unwrap()
            .letters
    };
    world.settled().await;
    // The first try fails on both of its calls, the second one does not.
    world.fault("listBrokerageAuthorizations", "status", 2).await;
    let connection = world.connect("ada").await;
    // The wait before the second try goes by the stack's clock.
    world.settled().await;
    world.stack.clock().advance(10);
    world.settled().await;
    assert_eq!(letters().await, []);

    world.fault("*", "status", 1_000).await;
    let act = format!("connections/{connection}/break");
    world.sandbox(Method::POST, &act, json!({})).await;
    let mut dead = Vec::new();
    for _ in 0..PATIENCE.as_millis() / 100 {
        dead = letters().await;
        if !dead.is_empty() {
            break;
        }
        world.stack.clock().advance(1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].event_type.as_deref(), Some("CONNECTION_BROKEN"));
    assert!(!dead[0].reason.is_empty());

    world.fault("*", "status", 0).await;
    let replayed = webhooks::replay(&app, &tenant, &dead[0].webhook_id)
        .await
        .unwrap();
    assert_eq!(replayed, Some(webhooks::Applied::Done));
    assert_eq!(letters().await, []);
    world.fault("*", "status", 1_000).await;
    let seen = world.post("ada", "refresh", json!({})).await.is(200);
    assert_eq!(seen["accounts"][0]["connection_state"], "broken");
    assert_eq!(webhooks::replay(&app, &tenant, "unknown").await, Ok(None));
}

#[tokio::test]
async fn where_trading_is_switched_off_links_are_for_reading() {
    let mut options = Options::default();
    options.settings.set("FF_SNAPTRADE_TRADE_EXECUTION", "off");
    options.settings.set("FF_SNAPTRADE_INVESTMENT_SYNC", "off");
    let world = World::on(options).await;
    world.post("ada", "register", json!({})).await.is(201);
    let link = world.post("ada", "connection-url", json!({})).await.is(200);
    assert_eq!(link["connection_type"], "read");
    for wanted in ["trade", "trade-if-available"] {
        world
            .post("ada", "connection-url", json!({"connection_type": wanted}))
            .await
            .refused(403, "feature_disabled");
    }
    world
        .post("ada", "refresh", json!({}))
        .await
        .refused(403, "feature_disabled");
}

#[tokio::test]
async fn a_secret_that_snaptrade_refuses_is_told_and_registering_again_mends_it() {
    let (world, _) = World::connected("ada").await;
    // SnapTrade forgets the user, as when somebody deletes it in the dashboard.
    world.sandbox(Method::POST, "reset", json!({})).await;
    world
        .post("ada", "connection-url", json!({}))
        .await
        .refused(409, "secret_invalid");
    world
        .post("ada", "refresh", json!({}))
        .await
        .refused(409, "secret_invalid");
    let registered = world.post("ada", "register", json!({})).await;
    assert!(
        registered.status == 200 || registered.status == 201,
        "{}",
        registered.body
    );
    world.post("ada", "connection-url", json!({})).await.is(200);
    // Nothing of the earlier registration is shown.
    let refreshed = world.post("ada", "refresh", json!({})).await.is(200);
    assert_eq!(refreshed["accounts"], json!([]));
}
