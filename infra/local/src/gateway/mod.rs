//! The gateway: what API Gateway's HTTP API is in AWS.
//!
//! A request becomes an event of payload format 2.0, the event goes through the Lambda runtime's own adapter to the
//! function's handler, and the function's answer comes back the same way. What API Gateway answers itself, this
//! answers too, in the same words.

mod answer;
mod event;
mod token;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use berth::app::App;
use berth::clock::Clock;
use berth::http::routes::{self, Access, Found};
use berth::telemetry::new_id;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderValue, Method};
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, LambdaEvent, Service, service_fn};
use serde_json::Value;

use crate::invocation::{InvocationError, Invoker};
use answer::OwnAnswer;
use event::Received;
use token::Bearer;

/// The largest body that API Gateway takes, in bytes.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

/// How much of a body that is too large is still read, so that a client that first sends and then listens hears why
/// it was refused.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;

/// The largest request line and headers that API Gateway takes together, in bytes.
const MAX_HEADER_BYTES: usize = 10_240;

/// How long API Gateway waits for a function.
pub(crate) const INTEGRATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The function that answers what no route takes: preflight requests, unknown paths and methods.
const DEFAULT_FUNCTION: &str = "status";

/// A function's handler.
pub(crate) type Handler =
    fn(Arc<App>, lambda_http::Request) -> BoxFuture<'static, lambda_http::Response<lambda_http::Body>>;

/// A function that answers requests.
pub(crate) struct Function {
    /// What it works with.
    pub(crate) app: Arc<App>,
    /// Its code.
    pub(crate) handler: Handler,
}

/// The gateway's parts.
pub(crate) struct Gateway {
    /// The functions by name.
    pub(crate) functions: BTreeMap<&'static str, Function>,
    /// Runs them.
    pub(crate) invoker: Invoker,
    /// The scope that a token of an operator carries.
    pub(crate) operator_scope: String,
    /// The stack's clock.
    pub(crate) clock: Clock,
}

/// Answers one request.
pub(crate) async fn serve(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(source): ConnectInfo<SocketAddr>,
    request: axum::extract::Request,
) -> Response {
    let gateway_id = new_id();
    let (parts, body) = request.into_parts();
    let mut response = match gateway.answer(&parts, body, source.ip(), &gateway_id).await {
        Ok(response) => response,
        Err(own) => own.into_response(),
    };
    if let Ok(id) = HeaderValue::from_str(&gateway_id) {
        response.headers_mut().insert("apigw-requestid", id);
    }
    response
}

impl Gateway {
    async fn answer(
        &self,
        parts: &Parts,
        body: Body,
        source: IpAddr,
        gateway_id: &str,
    ) -> Result<Response, OwnAnswer> {
        if header_bytes(parts) > MAX_HEADER_BYTES {
            return Err(OwnAnswer::HeadersTooLarge);
        }
        let body = read_body(body).await?;
        let target = Target::of(&parts.method, parts.uri.path());
        let claims = match target.access {
            Access::Anyone => None,
            Access::User => {
                let bearer = Bearer::of(&parts.headers).ok_or(OwnAnswer::Unauthorized)?;
                Some(bearer.claims(&self.operator_scope))
            }
        };
        let received = Received {
            parts,
            body: &body,
            source,
            route_key: &target.route_key,
            path_parameters: &target.path_parameters,
            claims,
            request_id: gateway_id,
            now: self.clock.now(),
        };
        let invoked = self.invoke(target.function, gateway_id, received.event());
        let answer = match tokio::time::timeout(INTEGRATION_TIMEOUT, invoked).await {
            Ok(answer) => answer.map_err(|_| OwnAnswer::FunctionFailed)?,
            Err(_) => return Err(OwnAnswer::TimedOut),
        };
        answer::http_answer(answer).ok_or_else(|| {
            tracing::error!(
                function = target.function,
                "a function's answer is none that API Gateway takes"
            );
            OwnAnswer::FunctionFailed
        })
    }

    /// Hands `event` to a function and brings back what Lambda would.
    async fn invoke(
        &self,
        name: &'static str,
        gateway_id: &str,
        event: Value,
    ) -> Result<Value, InvocationError> {
        let Some(function) = self.functions.get(name) else {
            tracing::error!(function = name, "a route names a function that is not there");
            return Err(InvocationError::Panicked(name));
        };
        let (app, handler) = (Arc::clone(&function.app), function.handler);
        let mut context = lambda_runtime::Context::default();
        gateway_id.clone_into(&mut context.request_id);
        context.invoked_function_arn = format!("arn:aws:lambda:local:000000000000:function:{name}");
        context.deadline = deadline(self.invoker.limit());
        let run = async move {
            let request: LambdaRequest = serde_json::from_str(&event.to_string()).ok()?;
            let service = service_fn(move |request: lambda_http::Request| {
                let app = Arc::clone(&app);
                async move { Ok::<_, Infallible>(handler(app, request).await) }
            });
            let mut adapter = Adapter::from(service);
            let Ok(answer) = adapter.call(LambdaEvent::new(request, context)).await;
            serde_json::to_value(answer).ok()
        };
        let output = self
            .invoker
            .invoke(name, gateway_id, request_id, Box::pin(run))
            .await?;
        Ok(output.unwrap_or(Value::Null))
    }
}

/// The request id that a function's answer names.
fn request_id(answer: &Option<Value>) -> Option<String> {
    let headers = answer.as_ref()?.get("headers")?.as_object()?;
    headers.get("x-request-id")?.as_str().map(str::to_owned)
}

/// The moment at which an invocation that begins now is ended, in milliseconds since 1970 by the machine's own clock,
/// as Lambda gives it.
fn deadline(limit: Duration) -> u64 {
    let end = jiff::Timestamp::now()
        .as_millisecond()
        .saturating_add(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
    u64::try_from(end).unwrap_or_default()
}

/// What a request leads to.
struct Target {
    function: &'static str,
    access: Access,
    route_key: String,
    path_parameters: BTreeMap<String, String>,
}

impl Target {
    fn of(method: &Method, path: &str) -> Self {
        if let Found::Route { route, params } = routes::find(method, path) {
            return Self {
                function: route.function,
                access: route.access,
                route_key: format!("{} {}", route.method, route.path),
                path_parameters: params
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
            };
        }
        let proxied = path.strip_prefix('/').filter(|rest| !rest.is_empty());
        let (route_key, path_parameters) = match (method, proxied) {
            (&Method::OPTIONS, Some(rest)) => (
                "OPTIONS /{proxy+}",
                BTreeMap::from([("proxy".to_owned(), rest.to_owned())]),
            ),
            _ => ("$default", BTreeMap::new()),
        };
        Self {
            function: DEFAULT_FUNCTION,
            access: Access::Anyone,
            route_key: route_key.to_owned(),
            path_parameters,
        }
    }
}

/// The bytes of the request line and the headers.
fn header_bytes(parts: &Parts) -> usize {
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let headers: usize = parts
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len().saturating_add(value.len()))
        .sum();
    parts
        .method
        .as_str()
        .len()
        .saturating_add(target)
        .saturating_add(headers)
}

/// The whole body, where it is not too large.
async fn read_body(body: Body) -> Result<Bytes, OwnAnswer> {
    let mut chunks = body.into_data_stream();
    let mut whole = Vec::new();
    let mut received = 0_usize;
    while let Some(chunk) = chunks.next().await {
        // A client that hangs up in the middle of its body hears nothing, whatever is answered.
        let chunk = chunk.map_err(|_| OwnAnswer::TooLarge)?;
        received = received.saturating_add(chunk.len());
        if received <= MAX_BODY_BYTES {
            whole.extend_from_slice(&chunk);
        } else {
            whole = Vec::new();
            if received > MAX_DISCARDED_BYTES {
                break;
            }
        }
    }
    if received > MAX_BODY_BYTES {
        return Err(OwnAnswer::TooLarge);
    }
    Ok(whole.into())
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use berth::app::Parts;
    use berth::config::Config;
    use berth::http::{Reply, Role};
    use berth::secrets::DataKeys;
    use berth::snaptrade::Credentials;
    use serde_json::json;

    use super::*;
    use crate::calls::CallLog;

    /// A gateway whose functions all answer with what they were called with, unless the body asks for something else.
    async fn start(limit: Duration) -> (String, Arc<CallLog>) {
        let config = Config::read(&|_| None).unwrap();
        let credentials = Credentials {
            client_id: "SANDBOX-CLIENT".to_owned(),
            consumer_key: "key".to_owned().into(),
        };
        let keys = DataKeys::generate("first").unwrap();
        let parts = Parts::local(Clock::system(), "local", credentials, keys).unwrap();
        let handler: Handler = |app, request| {
            Box::pin(async move {
                let body = String::from_utf8_lossy(request.body()).into_owned();
                match body.as_str() {
                    "panic" => panic!("asked for"),
                    "hang" => std::future::pending().await,
                    _ => {}
                }
                berth::http::serve(&app, request, |call| async move {
                    Reply::ok(&json!({
                        "user": call.identity.user_id.as_str(),
                        "operator": call.identity.role == Role::Operator,
                        "named": call.param("user_id"), "route": call.route(),
                    }))
                })
                .await
            })
        };
        let functions = routes::ROUTES
            .iter()
            .map(|route| {
                let app = Arc::new(App::new(route.function, config.clone(), parts.clone()));
                (route.function, Function { app, handler })
            })
            .collect();
        let log = Arc::new(CallLog::default());
        let gateway = Gateway {
            functions,
            invoker: Invoker::new(Arc::clone(&log), limit),
            operator_scope: config.operator_scope.clone(),
            clock: Clock::system(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(serve).with_state(Arc::new(gateway));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        (url, log)
    }

    async fn send(request: reqwest::RequestBuilder) -> (u16, Value, http::HeaderMap) {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, response.json().await.unwrap_or_default(), headers)
    }

    #[tokio::test]
    async fn a_request_reaches_its_function_with_claims_and_parameters() {
        let (url, log) = start(Duration::from_secs(5)).await;
        let client = berth::snaptrade::http_client().unwrap();
        let request = client
            .patch(format!("{url}/api/snaptrade/users/a%2Fb"))
            .bearer_auth("dev:ops%7C1:operator");
        let (status, body, headers) = send(request).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["user"], "ops|1");
        assert_eq!(body["operator"], true);
        assert_eq!(body["route"], "/api/snaptrade/users/{user_id}");
        assert_eq!(body["named"], "a/b");
        let id = headers["x-request-id"].to_str().unwrap();
        assert_eq!(
            log.of(Some(id)).first().map(|calls| calls.function),
            Some("users")
        );
    }

    #[tokio::test]
    async fn the_gateway_answers_itself_as_api_gateway_does() {
        let (url, _) = start(Duration::from_millis(200)).await;
        let client = berth::snaptrade::http_client().unwrap();
        let register = format!("{url}/api/snaptrade/register");
        let signed = || client.post(&register).bearer_auth("dev:ada");
        let cases = [
            (client.post(&register), 401, "Unauthorized"),
            (
                client.post(&register).bearer_auth("nonsense"),
                401,
                "Unauthorized",
            ),
            (
                signed().body(vec![b'x'; MAX_BODY_BYTES + 1]),
                413,
                "Request Entity Too Large",
            ),
            (
                signed().header("x-long", "x".repeat(MAX_HEADER_BYTES)),
                431,
                "Request Header Fields Too Large",
            ),
            (signed().body("panic"), 500, "Internal Server Error"),
            (signed().body("hang"), 500, "Internal Server Error"),
        ];
        for (request, expected, message) in cases {
            let (status, body, headers) = send(request).await;
            assert_eq!((status, &body), (expected, &json!({"message": message})));
            assert!(headers.contains_key("apigw-requestid"));
        }
        // A body of exactly the largest size gets through to the function, which has a limit of its own.
        let (status, ..) = send(signed().body(vec![b'x'; MAX_BODY_BYTES])).await;
        assert_eq!(status, 413);
    }

    #[test]
    fn what_no_route_takes_goes_to_the_function_that_answers_for_all() {
        for (method, path, key) in [
            (Method::GET, "/nowhere", "$default"),
            (Method::PUT, "/api/snaptrade/register", "$default"),
            (Method::OPTIONS, "/api/snaptrade/register", "OPTIONS /{proxy+}"),
            (Method::OPTIONS, "/", "$default"),
        ] {
            let target = Target::of(&method, path);
            assert_eq!((target.function, target.route_key.as_str()), ("status", key));
            assert_eq!(target.access, Access::Anyone);
        }
    }
}
