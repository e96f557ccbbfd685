//! The function `status`: whether Berth is up, how its parts are, and the answer to paths that no route has. API
//! Gateway sends preflight requests here, too.

mod health;
mod limit;

use berth::app::App;
use berth::http::{OpenCall, Problem, Reply, serve_open};
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use serde_json::json;

/// The version that is running.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// This API as an OpenAPI document. It is made from the routes by `infra/openapi` and held as a file, so that making it
/// costs no request anything; a test there says when the file is not what is made.
const OPENAPI: &str = include_str!("openapi.json");

/// Answers a request that API Gateway sends here by one of this function's routes or by its `$default` route.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve_open(app, request, |call| answer(app, call)).await
}

async fn answer(app: &App, call: OpenCall) -> Result<Reply, Problem> {
    match (call.method().as_str(), call.route()) {
        ("GET", "/") => Reply::ok(&json!({"status": "ok", "version": VERSION})),
        ("GET", "/health") => health::check(app).await,
        ("GET", "/openapi.json") => Ok(Reply::json_text(StatusCode::OK, OPENAPI)),
        ("GET", "/api/snaptrade/status") => limit::status(app, &call.identified()?).await,
        _ => Err(call.not_served()),
    }
}

#[cfg(test)]
mod tests {
    use berth::app::Parts;
    use berth::clock::Clock;
    use berth::config::Config;
    use berth::secrets::DataKeys;
    use berth::snaptrade::Credentials;
    use serde_json::Value;

    use super::*;

    fn app() -> App {
        let credentials = Credentials {
            client_id: "CLIENT".to_owned(),
            consumer_key: "key".into(),
        };
        let keys = DataKeys::generate("k1").unwrap();
        let parts = Parts::local(Clock::system(), "test", credentials, keys).unwrap();
        App::new("status", Config::read(&|_| None).unwrap(), parts)
    }

    async fn send(method: &str, path: &str) -> (Response<Body>, Value) {
        let event = json!({
            "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "headers": {},
            "requestContext": {
                "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
                "routeKey": "$default", "stage": "$default", "requestId": "r", "timeEpoch": 0,
            },
            "isBase64Encoded": false,
        });
        let request = lambda_http::request::from_str(&event.to_string()).unwrap();
        let response = handle(&app(), request).await;
        let body = serde_json::from_slice(response.body()).unwrap_or_default();
        (response, body)
    }

    #[tokio::test]
    async fn the_root_tells_the_version_and_calls_nothing() {
        let (response, body) = send("GET", "/").await;
        assert_eq!(response.status(), 200);
        assert_eq!(body, json!({"status": "ok", "version": VERSION}));
        let calls = response
            .extensions()
            .get::<berth::telemetry::CallCounts>()
            .unwrap();
        assert_eq!(*calls, berth::telemetry::CallCounts::default());
    }

    #[tokio::test]
    async fn an_unknown_path_is_not_found_and_a_wrong_method_is_told_the_right_ones() {
        for path in [
            "/nowhere",
            "/api/snaptrade/registers",
            "/api/snaptrade/register/",
            "/health/",
            "/é",
        ] {
            let (response, body) = send("POST", path).await;
            assert_eq!(
                (response.status().as_u16(), body["code"].as_str()),
                (404, Some("not_found")),
                "{path}"
            );
        }
        for (method, path, allow) in [
            ("GET", "/api/snaptrade/register", "POST, OPTIONS"),
            ("HEAD", "/", "GET, OPTIONS"),
            ("PUT", "/api/snaptrade/users/a%b", "PATCH, DELETE, OPTIONS"),
        ] {
            let (response, body) = send(method, path).await;
            assert_eq!(response.status(), 405, "{method} {path}");
            assert_eq!(body["code"], "method_not_allowed");
            assert_eq!(response.headers()["allow"], allow);
        }
    }

    #[tokio::test]
    async fn a_preflight_request_to_any_path_is_answered() {
        assert_eq!(send("OPTIONS", "/anywhere/at/all").await.0.status(), 204);
    }
}
