//! What callers see of the edge, on requests as API Gateway sends them.

use serde_json::{Value, json};

use super::*;
use crate::app::Parts;
use crate::clock::Clock;
use crate::config::Config;
use crate::ids::UserId;
use crate::secrets::DataKeys;
use crate::snaptrade::Credentials;
use crate::telemetry::{Service, count_call};

fn app() -> App {
    app_with(&[("ALLOWED_ORIGINS", "https://*.vercel.app")])
}

fn app_with(settings: &[(&str, &str)]) -> App {
    let config = Config::read(&|name| {
        let found = settings.iter().find(|(setting, _)| *setting == name);
        found.map(|(_, value)| (*value).to_owned())
    });
    let credentials = Credentials {
        client_id: "CLIENT".to_owned(),
        consumer_key: "key".into(),
    };
    let keys = DataKeys::generate("k1").unwrap();
    let parts = Parts::local(Clock::system(), "test", credentials, keys).unwrap();
    App::new("register", config.unwrap(), parts)
}

/// A request as API Gateway's HTTP API hands it to a function.
struct Gateway {
    event: Value,
}

impl Gateway {
    fn request(method: &str, path: &str) -> Self {
        let event = json!({
            "version": "2.0",
            "routeKey": format!("{method} {path}"),
            "rawPath": path,
            "rawQueryString": "",
            "headers": {"host": "api.example.com"},
            "requestContext": {
                "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
                "routeKey": format!("{method} {path}"), "stage": "$default",
                "requestId": "gateway-1", "timeEpoch": 0,
            },
            "isBase64Encoded": false,
        });
        Self { event }
    }

    fn register() -> Self {
        Self::request("POST", "/api/snaptrade/register").claims(json!({"sub": "ada"}))
    }

    fn claims(mut self, claims: Value) -> Self {
        self.event["requestContext"]["authorizer"] = json!({"jwt": {"claims": claims, "scopes": null}});
        self
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.event["headers"][name] = value.into();
        self
    }

    fn body(mut self, body: &str) -> Self {
        self.event["body"] = body.into();
        self
    }

    fn build(self) -> Request {
        lambda_http::request::from_str(&self.event.to_string()).unwrap()
    }
}

struct Named {
    user_id: Option<UserId>,
}

impl Input for Named {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let user_id = fields.optional("user_id", fields::user_id);
        Some(Self { user_id: user_id? })
    }
}

async fn whose(call: Call) -> Result<Reply, Problem> {
    let named: Named = call.body()?;
    count_call(Service::DynamoDb);
    Reply::ok(&json!({"user_id": call.subject(named.user_id)?}))
}

async fn send(request: Gateway) -> (Response<Body>, Value) {
    let response = serve(&app(), request.build(), whose).await;
    let body = serde_json::from_slice(response.body()).unwrap_or_default();
    (response, body)
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn every_answer_has_its_ids_and_the_security_headers() {
    let ok = send(Gateway::register().header("X-Correlation-Id", "mine:1")).await;
    let refused = send(
        Gateway::register()
            .body("[]")
            .header("x-correlation-id", "mine:1"),
    )
    .await;
    for (response, _) in [&ok, &refused] {
        assert_eq!(header(response, "x-request-id"), "gateway-1");
        assert_eq!(header(response, "x-correlation-id"), "mine:1");
        assert_eq!(header(response, "x-content-type-options"), "nosniff");
        assert_eq!(header(response, "cache-control"), "no-store");
        assert!(header(response, "strict-transport-security").starts_with("max-age="));
    }
    assert_eq!(
        (ok.0.status(), header(&ok.0, "content-type")),
        (StatusCode::OK, "application/json")
    );
    assert_eq!(ok.1["user_id"], "ada");
    assert_eq!(ok.0.extensions().get::<CallCounts>().unwrap().dynamodb, 1);
    assert_eq!(refused.0.status(), StatusCode::BAD_REQUEST);
    assert_eq!(header(&refused.0, "content-type"), "application/problem+json");
    assert_eq!(refused.1["request_id"], "gateway-1");
}

#[tokio::test]
async fn a_correlation_id_that_is_not_safe_is_replaced() {
    for bad in ["", "two words", "é", "<script>", &"a".repeat(129)] {
        let (response, _) = send(Gateway::register().header("x-correlation-id", bad)).await;
        let given = header(&response, "x-correlation-id");
        assert!(!given.is_empty() && given != bad, "{bad}: {given}");
    }
}

#[tokio::test]
async fn a_user_reaches_only_themself_and_an_operator_anyone() {
    let other = r#"{"user_id": "grace"}"#;
    let (response, body) = send(Gateway::register().body(other)).await;
    assert_eq!(
        (response.status(), body["code"].as_str()),
        (StatusCode::FORBIDDEN, Some("forbidden"))
    );
    let (response, _) = send(Gateway::register().body(r#"{"user_id": "ada"}"#)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let operator = json!({"sub": "root", "scope": "berth/operator"});
    let (_, body) = send(Gateway::register().claims(operator).body(other)).await;
    assert_eq!(body["user_id"], "grace");
}

#[tokio::test]
async fn without_a_verified_token_a_user_route_is_forbidden() {
    let (response, body) = send(Gateway::request("POST", "/api/snaptrade/register")).await;
    assert_eq!(
        (response.status(), body["code"].as_str()),
        (StatusCode::FORBIDDEN, Some("forbidden"))
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let just = format!("{{\"x\":\"{}\"}}", "a".repeat(MAX_BODY_BYTES - 8));
    assert_eq!(just.len(), MAX_BODY_BYTES);
    assert_eq!(
        send(Gateway::register().body(&just)).await.0.status(),
        StatusCode::OK
    );
    let (response, body) = send(Gateway::register().body(&format!("{just} "))).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(body["code"], "payload_too_large");
}

#[tokio::test]
async fn in_maintenance_callers_are_told_when_to_come_back_and_nothing_is_done() {
    let app = app_with(&[("MAINTENANCE", "on")]);
    let ask = async |method: &str, path: &str| {
        let request = Gateway::request(method, path)
            .claims(json!({"sub": "ada"}))
            .build();
        serve_open(&app, request, async |_| Reply::ok(&json!({"done": true}))).await
    };
    for (method, path) in [
        ("POST", "/api/snaptrade/register"),
        ("GET", "/api/snaptrade/status"),
        ("POST", "/api/snaptrade/webhook"),
        ("POST", "/api/access/sync"),
    ] {
        let turned_away = ask(method, path).await;
        assert_eq!(turned_away.status(), 503, "{path}");
        assert_eq!(header(&turned_away, "retry-after"), "60", "{path}");
    }
    assert_eq!(ask("GET", "/").await.status(), 200);
    assert_eq!(ask("GET", "/health").await.status(), 200);
    assert_eq!(ask("OPTIONS", "/api/snaptrade/register").await.status(), 204);
}

#[tokio::test]
async fn a_base64_body_is_decoded_first() {
    let mut request = Gateway::register().body("eyJ1c2VyX2lkIjogImFkYSJ9");
    request.event["isBase64Encoded"] = true.into();
    assert_eq!(send(request).await.1["user_id"], "ada");
}

#[tokio::test]
async fn only_an_allowed_origin_gets_cors_headers() {
    let (response, _) = send(Gateway::register().header("origin", "https://shop.vercel.app")).await;
    assert_eq!(
        header(&response, "access-control-allow-origin"),
        "https://shop.vercel.app"
    );
    assert_eq!(
        header(&response, "access-control-expose-headers"),
        "Retry-After, x-request-id, x-correlation-id"
    );
    assert_eq!(header(&response, "vary"), "Origin");
    assert_eq!(header(&response, "access-control-max-age"), "");
    for foreign in ["https://evil.example.com", "null", "https://a.b.vercel.app"] {
        let (response, _) = send(Gateway::register().header("origin", foreign)).await;
        let cors = response
            .headers()
            .keys()
            .any(|name| name.as_str().starts_with("access-control"));
        assert!(!cors, "{foreign}");
    }
}

#[tokio::test]
async fn a_preflight_request_needs_no_token() {
    let request = Gateway::request("OPTIONS", "/any/path").header("origin", "https://shop.vercel.app");
    let (response, _) = send(request).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let methods = header(&response, "access-control-allow-methods");
    assert!(
        ["GET", "POST", "PUT", "PATCH", "DELETE"]
            .iter()
            .all(|method| methods.contains(method))
    );
    let allowed = header(&response, "access-control-allow-headers");
    for name in [
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "x-correlation-id",
    ] {
        assert!(allowed.contains(name));
    }
    assert_eq!(header(&response, "access-control-max-age"), "7200");
    let (response, _) =
        send(Gateway::request("OPTIONS", "/").header("origin", "https://evil.example.com")).await;
    assert_eq!(header(&response, "access-control-allow-methods"), "");
}

#[tokio::test]
async fn path_variables_come_decoded_from_the_gateway_or_from_the_path() {
    async fn who(call: OpenCall) -> Result<Reply, Problem> {
        Reply::ok(&json!({"id": call.param("user_id"), "route": call.route()}))
    }
    let mut keyed = Gateway::request("DELETE", "/api/snaptrade/users/{user_id}");
    keyed.event["rawPath"] = "/api/snaptrade/users/a%b".into();
    keyed.event["pathParameters"] = json!({"user_id": "a%b"});
    let mut by_path = Gateway::request("DELETE", "/api/snaptrade/users/a%25b");
    by_path.event["requestContext"]["routeKey"] = "$default".into();
    for request in [keyed, by_path] {
        let response = serve_open(&app(), request.build(), who).await;
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(
            body,
            json!({"id": "a%b", "route": "/api/snaptrade/users/{user_id}"})
        );
    }
}

#[tokio::test]
async fn a_problem_tells_how_long_to_wait_and_which_methods_there_are() {
    let request = Gateway::request("PUT", "/api/snaptrade/users").build();
    let response = serve_open(&app(), request, async |call| Err(call.not_served())).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(header(&response, "allow"), "GET, POST, OPTIONS");
    let request = Gateway::request("GET", "/").build();
    let busy = async |_| Err(Problem::new(Code::OperationInProgress).retry_after(7));
    let response = serve_open(&app(), request, busy).await;
    assert_eq!(
        (response.status(), header(&response, "retry-after")),
        (StatusCode::CONFLICT, "7")
    );
}

#[tokio::test]
async fn a_handler_that_outlasts_the_invocation_is_answered_for() {
    let mut context = lambda_http::Context::default();
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_millis(300);
    context.deadline = u64::try_from(soon.as_millis()).unwrap();
    let request = Gateway::register().build().with_lambda_context(context);
    let response = serve(&app(), request, async |_| {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Reply::ok(&())
    })
    .await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn a_failure_is_logged_once_with_its_ids_and_without_the_callers_data() {
    let request = Gateway::register()
        .header("x-correlation-id", "mine")
        .header("authorization", "Bearer hidden-token")
        .body(r#"{"user_id": "ada", "note": "hidden-body"}"#)
        .build();
    let lines = telemetry::logs::lines_of(async {
        let fail = async |_| {
            Err(Problem::new(Code::UpstreamError).because("GET https://h/p?userSecret=hidden-secret: 500"))
        };
        let response = serve(&app(), request, fail).await;
        assert!(!String::from_utf8_lossy(response.body()).contains("hidden"));
    })
    .await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(
        (line["level"].as_str(), line["code"].as_str()),
        (Some("ERROR"), Some("upstream_error"))
    );
    assert_eq!(
        (line["request_id"].as_str(), line["correlation_id"].as_str()),
        (Some("gateway-1"), Some("mine"))
    );
    assert_eq!(line["route"], "/api/snaptrade/register");
    assert_eq!(line["tenant"], "default");
    assert!(line["user"].as_str().unwrap().len() == 16);
    assert!(
        !lines[0].contains("hidden") && !lines[0].contains("ada"),
        "{}",
        lines[0]
    );
}

proptest::proptest! {
    #[test]
    fn no_body_and_no_headers_make_it_fail(
        body: Vec<u8>,
        headers in proptest::collection::vec(("[a-z-]{1,20}", "[ -~]{0,40}"), 0..8),
    ) {
        let mut request = Gateway::register();
        for (name, value) in &headers {
            if name != "host" && name != "x-forwarded-proto" {
                request = request.header(name, value);
            }
        }
        request = request.body(&base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &body));
        request.event["isBase64Encoded"] = true.into();
        for (i, name) in ["origin", "x-correlation-id", "authorization"].iter().enumerate() {
            if let Some((_, value)) = headers.get(i) {
                request = request.header(name, value);
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (response, _) = runtime.block_on(send(request));
        let expected = [StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN];
        proptest::prop_assert!(expected.contains(&response.status()));
    }
}
