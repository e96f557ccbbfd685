//! Cross-origin requests. The functions answer them themselves, because API Gateway cannot match an origin such as
//! `https://*.vercel.app`.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

use crate::config::Config;

/// Methods that a page may use.
const METHODS: &str = "GET, POST, PUT, PATCH, DELETE, OPTIONS";

/// Headers that a page may send.
const HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, x-correlation-id";

/// Headers that a page may read.
const EXPOSED: &str = "Retry-After, x-request-id, x-correlation-id";

/// How long a browser may keep the answer to a preflight request, in seconds. Browsers allow up to two hours.
const MAX_AGE_SECONDS: &str = "7200";

/// The origin of the page that the request comes from, if it is one that may call.
pub(super) fn allowed_origin(config: &Config, request: &HeaderMap) -> Option<HeaderValue> {
    let mut given = request.get_all(ORIGIN).iter();
    let origin = given.next()?;
    let single = given.next().is_none();
    (single && config.allows_origin(origin.to_str().ok()?)).then(|| origin.clone())
}

/// Adds what lets a page of `origin` read the answer. Without an allowed origin nothing but `Vary` is added.
pub(super) fn add_headers(answer: &mut HeaderMap, origin: Option<&HeaderValue>) {
    answer.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}

/// Adds what a browser asks for before it sends the request itself.
pub(super) fn add_preflight_headers(answer: &mut HeaderMap, origin: Option<&HeaderValue>) {
    if origin.is_some() {
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_SECONDS));
    }
}
