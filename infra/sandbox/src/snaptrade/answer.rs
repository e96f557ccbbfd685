//! What the sandbox answers: JSON bodies, and refusals in SnapTrade's own words and codes.

use axum::response::Response;
use http::StatusCode;
use http::header::RETRY_AFTER;
use serde_json::json;

use crate::answer::{json_answer, set, text_answer};

/// Why SnapTrade does not do what it was asked. Each variant is one body that the real service is known to
/// send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 401: no credentials where they were expected.
    NoCredentials,
    /// 401: another client's id.
    InvalidClient,
    /// 401: the time stamp is missing, no number of seconds, or too far from now.
    InvalidTimestamp,
    /// 401: the signature does not fit what was sent.
    InvalidSignature,
    /// 400: the body cannot be read, so nothing can be verified.
    UnreadableBody,
    /// 401: a call for a user that names none.
    MissingUser,
    /// 401: no such user, or not this user's secret.
    InvalidUser,
    /// 400: the user id is taken.
    UserExists(String),
    /// 400: a member or parameter is missing or wrong; the text says which.
    InvalidInput(String),
    /// 404: there is no such thing, or it is another user's.
    NotFound,
    /// 404: no such path.
    UnknownPath,
    /// 405: the path exists, but not with this method.
    UnknownMethod(String),
    /// 403: no more users, or no more connections, on this plan.
    LimitReached,
    /// 403: the connection does not allow this.
    Forbidden,
    /// 403: a feature that this client has not been given.
    NotEnabled,
    /// 402: the connection is disabled.
    ConnectionDisabled,
    /// 402: the connection was disabled before.
    AlreadyDisabled,
    /// 503: the account's data is being collected for the first time.
    NotSynced,
    /// 429: the connection was refreshed a moment ago.
    RefreshedTooRecently {
        /// Seconds until another refresh is accepted.
        wait: u64,
    },
    /// 429: too many requests; `wait` seconds until the next is accepted.
    Throttled {
        /// Seconds until the next request is accepted.
        wait: u64,
    },
    /// 410: an endpoint that new clients no longer have.
    Gone,
    /// 413: a body beyond any that the API takes.
    TooLarge,
}

impl Refusal {
    /// The answer's status.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoCredentials
            | Self::InvalidClient
            | Self::InvalidTimestamp
            | Self::InvalidSignature
            | Self::MissingUser
            | Self::InvalidUser => StatusCode::UNAUTHORIZED,
            Self::UnreadableBody | Self::UserExists(_) | Self::InvalidInput(_) => StatusCode::BAD_REQUEST,
            Self::NotFound | Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::UnknownMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::LimitReached | Self::Forbidden | Self::NotEnabled => StatusCode::FORBIDDEN,
            Self::ConnectionDisabled | Self::AlreadyDisabled => StatusCode::PAYMENT_REQUIRED,
            Self::NotSynced => StatusCode::SERVICE_UNAVAILABLE,
            Self::RefreshedTooRecently { .. } | Self::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Gone => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    /// SnapTrade's code, which it sends as a string. The 410 answer carries none.
    fn code(&self) -> Option<&'static str> {
        match self {
            Self::NoCredentials
            | Self::MissingUser
            | Self::UnknownPath
            | Self::UnknownMethod(_)
            | Self::LimitReached
            | Self::Throttled { .. }
            | Self::TooLarge => Some("0000"),
            Self::UserExists(_) => Some("1010"),
            Self::NotFound => Some("1011"),
            Self::InvalidInput(_) => Some("1012"),
            Self::Forbidden => Some("1066"),
            Self::NotEnabled => Some("1141"),
            // The code that goes with a stale time stamp is not known; it is a fault of what was signed.
            Self::InvalidTimestamp | Self::InvalidSignature | Self::UnreadableBody => Some("1076"),
            Self::InvalidClient | Self::InvalidUser => Some("1083"),
            Self::NotSynced => Some("3002"),
            Self::ConnectionDisabled => Some("3003"),
            Self::AlreadyDisabled => Some("3011"),
            Self::RefreshedTooRecently { .. } => Some("throttled"),
            Self::Gone => None,
        }
    }

    fn detail(&self) -> String {
        let fixed = match self {
            Self::UserExists(user_id) => {
                return format!("User with the following userId already exist: '{user_id}'");
            }
            Self::InvalidInput(detail) => return detail.clone(),
            Self::UnknownMethod(method) => return format!("Method \"{method}\" not allowed."),
            Self::Throttled { wait } => {
                let unit = if *wait == 1 { "second" } else { "seconds" };
                return format!("Request was throttled. Expected available in {wait} {unit}.");
            }
            Self::NoCredentials => "Authentication credentials were not provided",
            Self::InvalidClient => "Invalid clientId provided",
            Self::InvalidTimestamp => "Invalid timestamp",
            Self::InvalidSignature => "Unable to verify signature sent",
            Self::UnreadableBody => "Unable to verify data sent",
            Self::MissingUser => "Please provide clientId, userId and userSecret in query params",
            Self::InvalidUser => "Invalid userID or userSecret provided",
            Self::NotFound => "The requested resource does not exist.",
            Self::UnknownPath => "Not found.",
            Self::LimitReached => {
                "Connection Limit Reached. You have reached the maximum number of connections."
            }
            Self::Forbidden => "You do not have permission to perform this action.",
            Self::NotEnabled => "Feature is not enabled for this customer or this connection",
            Self::ConnectionDisabled => {
                "Unable to sync with brokerage account because the connection is disabled."
            }
            Self::AlreadyDisabled => "This connection is already disabled.",
            Self::NotSynced => "Unable to sync with brokerage account. The initial sync has not finished.",
            Self::RefreshedTooRecently { .. } => "Connection refreshed too recently. Please try again later.",
            Self::Gone => "This endpoint is no longer available for your account.",
            Self::TooLarge => "Request body too large.",
        };
        fixed.to_owned()
    }

    /// The whole answer.
    pub(super) fn answer(&self) -> Response {
        let mut body = json!({"detail": self.detail()});
        if let (Some(code), Some(members)) = (self.code(), body.as_object_mut()) {
            members.insert("status_code".to_owned(), self.status().as_u16().into());
            members.insert("code".to_owned(), code.into());
        }
        let mut answer = json_answer(self.status(), &body);
        if let Self::Throttled { wait } | Self::RefreshedTooRecently { wait } = self {
            set(&mut answer, RETRY_AFTER, &wait.to_string());
        }
        answer
    }
}

/// The answer to a call that fails with a status, in SnapTrade's words. `for_user` tells whether the call was
/// made with a user's secret, which is what a 401 is about then.
pub(super) fn failed(status: StatusCode, for_user: bool) -> Response {
    let (code, detail) = match status.as_u16() {
        400 => ("1012", "Invalid input"),
        401 if for_user => return Refusal::InvalidUser.answer(),
        401 => return Refusal::InvalidSignature.answer(),
        402 => return Refusal::ConnectionDisabled.answer(),
        403 => return Refusal::Forbidden.answer(),
        404 => return Refusal::NotFound.answer(),
        410 => return Refusal::Gone.answer(),
        425 => (
            "3012",
            "The resource is currently being populated. Please try again later.",
        ),
        429 => return Refusal::Throttled { wait: 1 }.answer(),
        500 => ("1000", "Unexpected exception"),
        // A gateway in front of the service answers these, with a page.
        502 | 504 => {
            let reason = status.canonical_reason().unwrap_or_default();
            let page = format!("<html><head><title>{reason}</title></head><body>{reason}</body></html>");
            return text_answer(status, "text/html", page);
        }
        503 => (
            "3002",
            "Unable to sync with brokerage account. Invalid response from Brokerage API.",
        ),
        _ => ("0000", "The request failed."),
    };
    json_answer(
        status,
        &json!({"detail": detail, "status_code": status.as_u16(), "code": code}),
    )
}
