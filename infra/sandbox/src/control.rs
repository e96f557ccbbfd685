//! What the control calls of every sandbox have in common: how they are refused, and how their bodies are read.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::json_answer;

/// What a control call answers.
pub(super) type Control = Result<Json<Value>, Fault>;

/// Why a control call is not done.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    detail: String,
}

impl Fault {
    /// 400: the call itself is wrong.
    pub(super) fn input(detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            detail: detail.into(),
        }
    }

    /// 404: there is no such thing.
    pub(super) fn unknown(detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            detail: detail.into(),
        }
    }

    /// 409: it cannot be done now.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::CONFLICT,
            detail: detail.into(),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        json_answer(
            self.status,
            &json!({"detail": self.detail, "status_code": self.status.as_u16()}),
        )
    }
}

/// For a path under `/__sandbox/` that leads nowhere.
pub(super) async fn unknown() -> Fault {
    Fault::unknown("There is no such control call.")
}

/// For a method that a control call does not take.
pub(super) async fn other_method() -> Fault {
    Fault {
        status: StatusCode::METHOD_NOT_ALLOWED,
        detail: "This control call takes another method.".to_owned(),
    }
}

/// A body that has to be a JSON object.
///
/// # Errors
/// [`Fault`] when it is something else.
pub(super) fn object(body: &[u8]) -> Result<Value, Fault> {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err(Fault::input("The body has to be a JSON object.")),
        Err(error) => Err(Fault::input(format!("The body is not JSON: {error}."))),
    }
}

/// A member that has to be a text, if it is there.
///
/// # Errors
/// [`Fault`] when it is something else.
pub(super) fn text<'a>(given: &'a Value, name: &str) -> Result<Option<&'a str>, Fault> {
    match given.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(Fault::input(format!(
            "`{name}` has to be a text that is not empty."
        ))),
    }
}
