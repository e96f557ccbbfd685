//! The HTTP edge: from API Gateway's request to a handler's call, and from its result to the answer.

mod access;
mod call;
mod causes;
mod connections;
mod cors;
pub mod fields;
mod identity;
mod inbound;
pub mod paging;
mod portfolio;
mod problem;
mod reply;
pub mod routes;

use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use lambda_http::request::RequestContext;
use lambda_http::{Body, Request, RequestExt, Response};

pub use call::{Call, OpenCall};
pub use connections::NamedUser;
pub use fields::{Fields, Input};
pub use identity::{Identity, Role};
pub use paging::Page;
pub use problem::{Code, InputFault, Problem};
pub use reply::Reply;

use crate::app::App;
use crate::telemetry::metrics::{self, End, Metric};
use crate::telemetry::{self, CallCounts, redact};
use inbound::Inbound;

/// Longest body that is taken, in bytes.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// Longest correlation id that is taken over from a caller, in characters.
const MAX_CORRELATION_ID: usize = 128;

/// When a caller may come back who was turned away for maintenance, in seconds. Nobody knows when it ends, so this is how
/// soon after its end everybody is back.
const MAINTENANCE_RETRY_SECONDS: u32 = 60;

/// How long before the invocation's end a handler is given up, so that there is time left for the answer.
const TIME_FOR_THE_ANSWER: Duration = Duration::from_millis(250);

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// Two years, the least that browsers' preload lists ask for is one.
const HSTS: &str = "max-age=63072000; includeSubDomains";

/// Serves a request of a route that needs a token. `handle` is called when the request has a verified caller and a
/// body of at most [`MAX_BODY_BYTES`]; its result becomes the answer.
///
/// Every answer has the request's ids, the security headers and, for an allowed origin, those of CORS. `OPTIONS` is
/// answered here. What failed is logged here, once. The answer's extensions hold the [`CallCounts`].
pub async fn serve<H, F>(app: &App, request: Request, handle: H) -> Response<Body>
where
    H: FnOnce(Call) -> F,
    F: Future<Output = Result<Reply, Problem>>,
{
    serve_open(app, request, async move |call| handle(call.identified()?).await).await
}

/// Serves a request of a route that is open to anyone, as [`serve`] does otherwise.
pub async fn serve_open<H, F>(app: &App, request: Request, handle: H) -> Response<Body>
where
    H: FnOnce(OpenCall) -> F,
    F: Future<Output = Result<Reply, Problem>>,
{
    let origin = cors::allowed_origin(app.config(), request.headers());
    let time_left = time_left(&request);
    let call = open_call(request, &app.config().operator_scope);
    let invocation = app.invocation(call.request_id.clone(), call.correlation_id.clone());
    let ids = (call.request_id.clone(), call.correlation_id.clone());
    let preflight = call.method == Method::OPTIONS;

    let (result, calls) = telemetry::in_invocation(invocation, async move {
        let started = Instant::now();
        let (method, route) = (call.method.clone(), call.route());
        let caller = call.caller.as_ref().ok();
        let tenant = caller.map(|caller| caller.tenant.to_string());
        let user = caller.map(|caller| redact::user(&caller.user_id));
        let result = if preflight {
            Ok(Reply::empty(StatusCode::NO_CONTENT))
        } else if call.body.len() > MAX_BODY_BYTES {
            Err(Problem::new(Code::PayloadTooLarge))
        } else if app.config().maintenance && !works_in_maintenance(call.route) {
            Err(Problem::new(Code::Unavailable)
                .detail("Berth is being maintained. Nothing was done; please try again.")
                .retry_after(MAINTENANCE_RETRY_SECONDS))
        } else if let Err(wait) = admit(app, &call) {
            metrics::count(Metric::InboundLimitHits, 1);
            Err(Problem::new(Code::RateLimited).retry_after(wait))
        } else {
            // Boxed, because a handler's future can be large, and each layer around it would hold it twice.
            within(time_left, Box::pin(handle(call))).await
        };
        let ended = Ended {
            method: &method,
            route,
            tenant: tenant.as_deref(),
            user: user.as_deref(),
            took: started.elapsed(),
        };
        ended.log(&result);
        ended.measure(app, &result);
        result
    })
    .await;

    let mut response = match result {
        Ok(reply) => from_reply(reply),
        Err(problem) => from_problem(&problem, &ids.0),
    };
    let headers = response.headers_mut();
    cors::add_headers(headers, origin.as_ref());
    if preflight {
        cors::add_preflight_headers(headers, origin.as_ref());
    }
    add_standing_headers(headers, &ids.0, &ids.1);
    response.extensions_mut().insert::<CallCounts>(calls);
    response
}

/// Lets the request through, unless its caller makes too many. Requests without a token, such as webhooks, are not
/// counted.
///
/// # Errors
/// After how many seconds the next one is let through.
fn admit(app: &App, call: &OpenCall) -> Result<(), u32> {
    match (app.config().inbound_limit, &call.caller) {
        (Some(limit), Ok(caller)) => {
            app.state::<Inbound>()
                .admit(caller, call.route(), limit, app.clock().now())
        }
        _ => Ok(()),
    }
}

/// Whether a route answers during maintenance, too: what says how Berth is, and what no route has.
fn works_in_maintenance(route: Option<&routes::Route>) -> bool {
    route.is_none_or(|route| route.function == "status" && route.access == routes::Access::Anyone)
}

/// The result of `work`, or a problem when it takes longer than the invocation may.
async fn within(
    time_left: Option<Duration>,
    work: impl Future<Output = Result<Reply, Problem>>,
) -> Result<Reply, Problem> {
    match time_left {
        Some(time_left) => tokio::time::timeout(time_left, work).await.unwrap_or_else(|_| {
            metrics::count(Metric::Timeouts, 1);
            Err(Problem::new(Code::UpstreamTimeout).because("the invocation's time was used up"))
        }),
        None => work.await,
    }
}

/// How long a handler may take, from the deadline that Lambda sets; `None` where there is no deadline.
fn time_left(request: &Request) -> Option<Duration> {
    let deadline = Duration::from_millis(request.lambda_context_ref()?.deadline);
    if deadline.is_zero() {
        return None;
    }
    // The deadline is by the system's clock, whatever time the local stack pretends it is.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(deadline.saturating_sub(now).saturating_sub(TIME_FOR_THE_ANSWER))
}

fn open_call(request: Request, operator_scope: &str) -> OpenCall {
    let caller = identity::identify(request.request_context_ref(), operator_scope);
    let context = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => Some(context),
        _ => None,
    };
    // API Gateway's own id is the one that its access log has, too.
    let request_id = context
        .and_then(|context| context.request_id.clone())
        .or_else(|| {
            request
                .lambda_context_ref()
                .map(|context| context.request_id.clone())
        })
        .filter(|id| is_safe_id(id))
        .unwrap_or_else(telemetry::new_id);
    let correlation_id = request
        .headers()
        .get(X_CORRELATION_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| is_safe_id(id))
        .map_or_else(telemetry::new_id, str::to_owned);
    let path = request.raw_http_path().to_owned();
    let keyed = context
        .and_then(|context| context.route_key.as_deref())
        .and_then(routes::by_key);
    let (route, params) = match keyed {
        // API Gateway has matched the path already and hands on the variables decoded.
        Some(route) => {
            let params = request
                .path_parameters_ref()
                .map(|params| {
                    params
                        .iter()
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                        .collect()
                })
                .unwrap_or_default();
            (Some(route), params)
        }
        None => match routes::find(request.method(), &path) {
            routes::Found::Route { route, params } => (
                Some(route),
                params
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
            ),
            _ => (None, Vec::new()),
        },
    };
    let query = request.query_string_parameters();
    let (parts, body) = request.into_parts();
    OpenCall {
        method: parts.method,
        path,
        route,
        params,
        query,
        headers: parts.headers,
        body: match body {
            Body::Text(text) => text.into_bytes(),
            Body::Binary(bytes) => bytes,
            _ => Vec::new(),
        },
        request_id,
        correlation_id,
        caller,
    }
}

/// Whether `id` may be handed on in headers and logs as it is.
fn is_safe_id(id: &str) -> bool {
    (1..=MAX_CORRELATION_ID).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(&b))
}

/// A request that has ended. The caller stands there as a hash, and the path by its route, which holds no id.
struct Ended<'a> {
    method: &'a Method,
    route: &'a str,
    tenant: Option<&'a str>,
    user: Option<&'a str>,
    took: Duration,
}

impl Ended<'_> {
    /// Logs how it ended.
    fn log(&self, result: &Result<Reply, Problem>) {
        let calls = telemetry::current_calls();
        let duration_ms = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        let (method, route, tenant, user) = (self.method.as_str(), self.route, self.tenant, self.user);
        let (dynamodb, snaptrade, access, mail) = (calls.dynamodb, calls.snaptrade, calls.access, calls.mail);
        let problem = match result {
            Ok(reply) => {
                let status = reply.status.as_u16();
                tracing::info!(
                    method,
                    route,
                    status,
                    tenant,
                    user,
                    duration_ms,
                    dynamodb,
                    snaptrade,
                    access,
                    mail,
                    "answered"
                );
                return;
            }
            Err(problem) => problem,
        };
        let (code, status) = (problem.code().as_str(), problem.code().status().as_u16());
        let cause = problem.cause();
        if problem.code().status().is_server_error() {
            tracing::error!(
                method,
                route,
                status,
                code,
                cause,
                tenant,
                user,
                duration_ms,
                dynamodb,
                snaptrade,
                access,
                mail,
                "failed"
            );
        } else {
            tracing::info!(
                method,
                route,
                status,
                code,
                cause,
                tenant,
                user,
                duration_ms,
                dynamodb,
                snaptrade,
                access,
                mail,
                "refused"
            );
        }
    }

    /// Writes the line of the request's metrics.
    fn measure(&self, app: &App, result: &Result<Reply, Problem>) {
        let status = match result {
            Ok(reply) => reply.status,
            Err(problem) => problem.code().status(),
        };
        let code = result.as_ref().err().map(|problem| problem.code().as_str());
        let status_text = status.as_str();
        for (name, value) in [
            ("method", Some(self.method.as_str())),
            ("route", Some(self.route)),
            ("status", Some(status_text)),
            ("tenant", self.tenant),
            ("user", self.user),
            ("code", code),
        ] {
            if let Some(value) = value {
                metrics::property(name, value);
            }
        }
        match result.as_ref().err().map(Problem::code) {
            Some(Code::InvalidSignature) => metrics::count(Metric::SignatureFailures, 1),
            Some(Code::ConnectionLimitReached) => metrics::count(Metric::LimitRefusals, 1),
            _ => {}
        }
        let end = if status.is_server_error() {
            End::Failed
        } else if status.is_client_error() {
            End::Refused
        } else {
            End::Done
        };
        app.metrics().emit(end, self.took);
    }
}

fn from_reply(reply: Reply) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = reply.status;
    if let Some(body) = reply.body {
        *response.body_mut() = Body::Text(body);
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
    }
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value);
    }
    response
}

fn from_problem(problem: &Problem, request_id: &str) -> Response<Body> {
    let mut response = Response::new(Body::Text(problem.body(request_id)));
    *response.status_mut() = problem.code().status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(seconds) = problem.retry_after_seconds() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if !problem.allow().is_empty()
        && let Ok(allow) = HeaderValue::from_str(&problem.allow().join(", "))
    {
        headers.insert(ALLOW, allow);
    }
    response
}

fn add_standing_headers(headers: &mut HeaderMap, request_id: &str, correlation_id: &str) {
    headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, id) in [(X_REQUEST_ID, request_id), (X_CORRELATION_ID, correlation_id)] {
        // Both were checked to be plain ASCII, so that none is ever left out here.
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(name, id);
        }
    }
}

#[cfg(test)]
mod tests;
