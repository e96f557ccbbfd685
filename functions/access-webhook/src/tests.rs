use berth::access::configuration::Configuration;
use berth::app::Parts;
use berth::clock::Clock;
use berth::config::Config;
use berth::secrets::DataKeys;
use berth::snaptrade::Credentials;

use super::*;

/// What a caller with `key` is told where the shop's part of the configuration is `shop`, or where there is none.
async fn status(shop: Option<&str>, key: &str) -> u16 {
    let credentials = Credentials {
        client_id: "CLIENT".to_owned(),
        consumer_key: "key".into(),
    };
    let keys = DataKeys::generate("k1").unwrap();
    let mut parts = Parts::local(Clock::system(), "test", credentials, keys).unwrap();
    if let Some(more) = shop {
        let text = format!(
            r#"{{"wordpress": {{"base_url": "http://127.0.0.1:9"{more}}},
                "tradingview": {{"base_url": "http://127.0.0.1:9", "api_key": "key"}},
                "products": {{"7": {{"script_id": "S7", "duration": "1M"}}}}}}"#
        );
        parts = parts.with_access(Configuration::parse(&text, None).unwrap());
    }
    let app = App::new("access-webhook", Config::read(&|_| None).unwrap(), parts);
    let (path, route) = ("/api/access/webhook", "POST /api/access/webhook");
    let event = json!({
        "version": "2.0", "routeKey": route, "rawPath": path, "rawQueryString": "", "headers": {KEY_HEADER: key},
        "requestContext": {
            "http": {"method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
            "routeKey": route, "stage": "$default", "requestId": "r", "timeEpoch": 0,
        },
        "isBase64Encoded": false, "body": "{}",
    });
    let request = lambda_http::request::from_str(&event.to_string()).unwrap();
    handle(&app, request).await.status().as_u16()
}

#[tokio::test]
async fn where_no_key_is_configured_nobody_has_it() {
    for key in ["", "null", "the-key"] {
        assert_eq!(status(None, key).await, 401);
        assert_eq!(status(Some(""), key).await, 401);
        assert_eq!(status(Some(r#", "webhook_key": """#), key).await, 401);
    }
    assert_eq!(
        status(Some(r#", "webhook_key": "the-key""#), "the-key").await,
        202
    );
}
