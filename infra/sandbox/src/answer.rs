//! Answers that every sandbox gives.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

/// An answer with a JSON body.
pub(super) fn json_answer(status: StatusCode, body: &Value) -> Response {
    text_answer(status, "application/json", body.to_string())
}

/// An answer with a body of any type.
pub(super) fn text_answer(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Sets a header, unless the value cannot stand in one.
pub(super) fn set(answer: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

/// An answer that its receiver cannot use: this body, else one that breaks off in the middle.
pub(super) fn malformed(body: Option<&Value>) -> Response {
    let body = body.map_or_else(
        || r#"{"detail": "This answer breaks o"#.to_owned(),
        Value::to_string,
    );
    text_answer(StatusCode::OK, "application/json", body)
}
