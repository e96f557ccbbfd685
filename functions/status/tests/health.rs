//! The health route against the stand-ins for SnapTrade and DynamoDB.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use berth::app::{App, Parts};
use berth::clock::Clock;
use berth::config::Config;
use berth::secrets::DataKeys;
use berth::snaptrade::Credentials;
use berth::telemetry::CallCounts;
use berth_sandbox::snaptrade::{CLIENT_ID, CONSUMER_KEY, Options, Sandbox};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const TABLE: &str = "berth-table";

/// The function with everything that it works with.
struct Stack {
    app: App,
    clock: Clock,
    sandbox: Option<Sandbox>,
}

impl Stack {
    async fn start(consumer_key: &str) -> Self {
        let clock = Clock::system();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sandbox = Sandbox::start(
            listener,
            Options {
                clock: clock.clone(),
                ..Options::default()
            },
        );
        let sandbox = sandbox.await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let table = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(dynoxide::server::serve_on(
            listener,
            dynoxide::Database::memory().unwrap(),
        ));
        let config = Config::read(&|name| match name {
            "SNAPTRADE_BASE_URL" => Some(sandbox.base_url().to_owned()),
            "AWS_ENDPOINT_URL_DYNAMODB" => Some(table.clone()),
            "TABLE_NAME" => Some(TABLE.to_owned()),
            _ => None,
        });
        let credentials = Credentials {
            client_id: CLIENT_ID.to_owned(),
            consumer_key: consumer_key.to_owned().into(),
        };
        let keys = DataKeys::generate("k1").unwrap();
        let parts = Parts::local(clock.clone(), "test", credentials, keys).unwrap();
        let app = App::new("status", config.unwrap(), parts);
        Self {
            app,
            clock,
            sandbox: Some(sandbox),
        }
    }

    async fn health(&self) -> (u16, Value, CallCounts) {
        let event = json!({
            "version": "2.0", "routeKey": "GET /health", "rawPath": "/health", "rawQueryString": "", "headers": {},
            "requestContext": {
                "http": {"method": "GET", "path": "/health", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
                "routeKey": "GET /health", "stage": "$default", "requestId": "r", "timeEpoch": 0,
            },
            "isBase64Encoded": false,
        });
        let request = lambda_http::request::from_str(&event.to_string()).unwrap();
        let response = status::handle(&self.app, request).await;
        let calls = *response.extensions().get().unwrap();
        (
            response.status().as_u16(),
            serde_json::from_slice(response.body()).unwrap(),
            calls,
        )
    }
}

#[tokio::test]
async fn all_parts_are_checked_and_snaptrade_at_most_once_a_minute() {
    let mut stack = Stack::start(CONSUMER_KEY).await;
    stack.app.store().create_table().await.unwrap();
    let (status, body, calls) = stack.health().await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["status"], "ok");
    assert_eq!(
        body["checks"],
        json!({"store": "ok", "secrets": "ok", "snaptrade": "ok"})
    );
    assert_eq!(calls.snaptrade, 1);

    stack.sandbox.take().unwrap().shutdown().await;
    let (status, _, calls) = stack.health().await;
    assert_eq!((status, calls.snaptrade), (200, 0));
    stack.clock.advance(61);
    let (status, body, _) = stack.health().await;
    assert_eq!(
        (status, body["checks"]["snaptrade"].as_str()),
        (503, Some("unreachable"))
    );
}

#[tokio::test]
async fn what_is_broken_is_named() {
    let stack = Stack::start("another-key").await;
    let (status, body, _) = stack.health().await;
    assert_eq!(status, 503);
    assert_eq!(
        body["checks"],
        json!({"store": "unavailable", "secrets": "ok", "snaptrade": "unauthorized"})
    );
    assert_eq!(body["status"], "unavailable");
}
