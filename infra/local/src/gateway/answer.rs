//! Answers: what a function's own becomes on the way out, and those that the gateway gives itself.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

/// The largest answer that Lambda takes from a function, in bytes.
const MAX_ANSWER_BYTES: usize = 6 * 1024 * 1024;

/// An answer that the gateway gives in a function's place. Source: AWS, "Troubleshooting HTTP API" and the answers of
/// deployed APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnAnswer {
    /// No token, or one that is not valid.
    Unauthorized,
    /// The body is over 10 MB.
    TooLarge,
    /// The request line and headers together are over 10,240 bytes.
    HeadersTooLarge,
    /// The function failed, or said something that is no answer.
    FunctionFailed,
    /// The function did not answer within the integration's 30 seconds.
    TimedOut,
}

impl IntoResponse for OwnAnswer {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large"),
            Self::HeadersTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "Request Header Fields Too Large",
            ),
            Self::FunctionFailed => (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
            Self::TimedOut => (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
        };
        let mut response = axum::Json(serde_json::json!({"message": message}))
            .into_response()
            .map(Body::new);
        *response.status_mut() = status;
        if self == Self::Unauthorized {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A function's answer in the form in which Lambda hands it to API Gateway.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FunctionAnswer {
    status_code: u16,
    #[serde(default)]
    headers: serde_json::Map<String, Value>,
    #[serde(default)]
    multi_value_headers: serde_json::Map<String, Value>,
    #[serde(default)]
    cookies: Vec<String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

/// The HTTP answer that API Gateway makes of `answer`; none where it is not one.
pub(super) fn http_answer(answer: Value) -> Option<Response> {
    let answer: FunctionAnswer = serde_json::from_value(answer).ok()?;
    let body = answer.body.unwrap_or_default();
    let body = if answer.is_base64_encoded {
        STANDARD.decode(body).ok()?
    } else {
        body.into_bytes()
    };
    if body.len() > MAX_ANSWER_BYTES {
        return None;
    }
    let mut headers = HeaderMap::new();
    for (name, value) in answer.headers.iter().chain(&answer.multi_value_headers) {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        if matches!(
            name,
            header::CONNECTION | header::CONTENT_LENGTH | header::TRANSFER_ENCODING
        ) {
            continue;
        }
        for value in texts(value) {
            headers.append(name.clone(), HeaderValue::from_str(&value).ok()?);
        }
    }
    for cookie in &answer.cookies {
        headers.append(header::SET_COOKIE, HeaderValue::from_str(cookie).ok()?);
    }
    let status = StatusCode::from_u16(answer.status_code).ok()?;
    Some((status, headers, Body::from(body)).into_response())
}

/// A header's values: one, or a list of them.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_functions_answer_becomes_an_http_answer() {
        let response = http_answer(json!({
            "statusCode": 201, "headers": {"Content-Type": "application/json", "content-length": "99"},
            "multiValueHeaders": {"vary": ["origin", "accept"]},
            "cookies": ["a=1", "b=2"], "body": "aGk=", "isBase64Encoded": true,
        }))
        .unwrap();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert!(!response.headers().contains_key("content-length"));
        assert_eq!(response.headers().get_all("vary").iter().count(), 2);
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn what_is_no_answer_is_none() {
        assert!(http_answer(json!({"hello": 1})).is_none());
        assert!(http_answer(json!({"statusCode": 7})).is_none());
        assert!(http_answer(json!({"statusCode": 200, "headers": {"a b": "c"}})).is_none());
        assert!(http_answer(json!({"statusCode": 200, "body": "x".repeat(MAX_ANSWER_BYTES + 1)})).is_none());
    }
}
