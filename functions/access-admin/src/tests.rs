use berth::access::configuration::Configuration;
use berth::app::Parts;
use berth::clock::Clock;
use berth::config::Config;
use berth::secrets::DataKeys;
use berth::snaptrade::Credentials;
use serde_json::Value;

use super::*;

const CONFIGURATION: &str = r#"{"wordpress": {"base_url": "http://127.0.0.1:9"},
    "tradingview": {"base_url": "http://127.0.0.1:9", "api_key": "key"},
    "products": {"7": {"script_id": "S7", "duration": "1M"}}}"#;

fn app(configuration: Option<&str>) -> App {
    let credentials = Credentials {
        client_id: "CLIENT".to_owned(),
        consumer_key: "key".into(),
    };
    let keys = DataKeys::generate("k1").unwrap();
    let mut parts = Parts::local(Clock::system(), "test", credentials, keys).unwrap();
    if let Some(text) = configuration {
        parts = parts.with_access(Configuration::parse(text, None).unwrap());
    }
    App::new("access-admin", Config::read(&|_| None).unwrap(), parts)
}

/// What an operator of `tenant` is told.
async fn ask(app: &App, tenant: &str) -> Value {
    let (path, route) = ("/api/access/plan", "GET /api/access/plan");
    let claims = json!({"sub": "olga", "scope": "berth/operator", "berth_tenant": tenant});
    let event = json!({
        "version": "2.0", "routeKey": route, "rawPath": path, "rawQueryString": "", "headers": {},
        "requestContext": {
            "http": {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
            "authorizer": {"jwt": {"claims": claims, "scopes": null}},
            "routeKey": route, "stage": "$default", "requestId": "r", "timeEpoch": 0,
        },
        "isBase64Encoded": false,
    });
    let request = lambda_http::request::from_str(&event.to_string()).unwrap();
    let response = handle(app, request).await;
    serde_json::from_slice(response.body()).unwrap()
}

#[tokio::test]
async fn an_operator_of_another_tenant_has_no_access_sync() {
    let told = ask(&app(Some(CONFIGURATION)), "acme").await;
    assert_eq!(
        (&told["status"], &told["code"]),
        (&json!(403), &json!("forbidden")),
        "{told}"
    );
}

#[tokio::test]
async fn a_deployment_without_an_access_sync_says_so() {
    let told = ask(&app(None), "default").await;
    assert_eq!(
        (&told["status"], &told["code"]),
        (&json!(403), &json!("feature_disabled"))
    );
    assert!(
        told["detail"].as_str().unwrap().contains("ACCESS_SECRET_ID"),
        "{told}"
    );
}
