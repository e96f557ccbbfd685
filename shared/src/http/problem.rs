//! Problem answers: what a caller is told when a request is not done, in the form of RFC 9457.

use std::fmt;

use http::StatusCode;
use serde::Serialize;

/// What went wrong, as clients tell it apart. The names are stable; a client may branch on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Malformed JSON, wrong types, unknown enum values, missing members.
    InvalidRequest,
    /// A body over 256 KiB.
    PayloadTooLarge,
    /// A webhook whose signature does not verify, whatever the cause.
    InvalidSignature,
    /// Another user's data, or an operator's route.
    Forbidden,
    /// A flag is off for this user.
    FeatureDisabled,
    /// Consent is missing or has expired.
    ConsentRequired,
    /// An unknown path, or no such user, connection, account, order or review.
    NotFound,
    /// The path does not take this method; the answer carries `Allow`.
    MethodNotAllowed,
    /// The user has to register first.
    NotRegistered,
    /// The limit is reached and nobody may give way.
    ConnectionLimitReached,
    /// The same user is being registered, deleted or refreshed right now, or another sync runs.
    OperationInProgress,
    /// Something has changed since the plan was made.
    PlanStale,
    /// SnapTrade knows this user id and tracking holds no secret for it.
    UserExistsUpstream,
    /// SnapTrade no longer accepts this user's secret.
    SecretInvalid,
    /// The brokerage connection is disabled.
    ConnectionDisabled,
    /// The user has to reconnect the brokerage.
    ReconnectRequired,
    /// SnapTrade is still collecting this account's data.
    NotSyncedYet,
    /// No account holds the symbol.
    SymbolNotHeld,
    /// Several accounts could be meant.
    AmbiguousAccount,
    /// The account cannot trade.
    AccountReadOnly,
    /// A plan's or SnapTrade's rate limit.
    RateLimited,
    /// An outside service answered with an error or nonsense.
    UpstreamError,
    /// An outside service did not answer in time.
    UpstreamTimeout,
    /// Room was made, but SnapTrade has not finished deleting; the caller's place is kept.
    DeletionPending,
    /// The own store or secrets could not be reached, or maintenance.
    Unavailable,
}

impl Code {
    /// The name that the answer's `code` has.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::PayloadTooLarge => "payload_too_large",
            Self::InvalidSignature => "invalid_signature",
            Self::Forbidden => "forbidden",
            Self::FeatureDisabled => "feature_disabled",
            Self::ConsentRequired => "consent_required",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotRegistered => "not_registered",
            Self::ConnectionLimitReached => "connection_limit_reached",
            Self::OperationInProgress => "operation_in_progress",
            Self::PlanStale => "plan_stale",
            Self::UserExistsUpstream => "user_exists_upstream",
            Self::SecretInvalid => "secret_invalid",
            Self::ConnectionDisabled => "connection_disabled",
            Self::ReconnectRequired => "reconnect_required",
            Self::NotSyncedYet => "not_synced_yet",
            Self::SymbolNotHeld => "symbol_not_held",
            Self::AmbiguousAccount => "ambiguous_account",
            Self::AccountReadOnly => "account_read_only",
            Self::RateLimited => "rate_limited",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::DeletionPending => "deletion_pending",
            Self::Unavailable => "unavailable",
        }
    }

    /// The status that the answer has.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::InvalidSignature => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::FeatureDisabled | Self::ConsentRequired => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotRegistered
            | Self::ConnectionLimitReached
            | Self::OperationInProgress
            | Self::PlanStale
            | Self::UserExistsUpstream
            | Self::SecretInvalid
            | Self::ConnectionDisabled
            | Self::ReconnectRequired => StatusCode::CONFLICT,
            Self::NotSyncedYet => StatusCode::TOO_EARLY,
            Self::SymbolNotHeld | Self::AmbiguousAccount | Self::AccountReadOnly => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::UpstreamError => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::DeletionPending | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What the code means, in a few words that are the same each time.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request is not valid",
            Self::PayloadTooLarge => "The body is too large",
            Self::InvalidSignature => "The signature does not verify",
            Self::Forbidden => "Not allowed",
            Self::FeatureDisabled => "The feature is switched off",
            Self::ConsentRequired => "Consent is required",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::NotRegistered => "The user is not registered",
            Self::ConnectionLimitReached => "The connection limit is reached",
            Self::OperationInProgress => "The same operation is in progress",
            Self::PlanStale => "The plan no longer fits",
            Self::UserExistsUpstream => "SnapTrade knows this user already",
            Self::SecretInvalid => "SnapTrade no longer accepts this user's secret",
            Self::ConnectionDisabled => "The brokerage connection is disabled",
            Self::ReconnectRequired => "The brokerage has to be reconnected",
            Self::NotSyncedYet => "The account's data is still being collected",
            Self::SymbolNotHeld => "No account holds the symbol",
            Self::AmbiguousAccount => "Several accounts could be meant",
            Self::AccountReadOnly => "The account cannot trade",
            Self::RateLimited => "Too many requests",
            Self::UpstreamError => "An outside service failed",
            Self::UpstreamTimeout => "An outside service did not answer in time",
            Self::DeletionPending => "A deletion is not finished yet",
            Self::Unavailable => "The service is not available",
        }
    }

    /// What is said when the problem has no detail of its own.
    fn usual_detail(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request does not have the form that this route takes.",
            Self::PayloadTooLarge => "A body may have at most 262144 bytes.",
            Self::InvalidSignature => "The request is not signed with the expected key.",
            Self::Forbidden => "You may not do this.",
            Self::FeatureDisabled => "This feature is switched off for this user.",
            Self::ConsentRequired => "The user has to give consent first, or to renew it.",
            Self::NotFound => "There is nothing here.",
            Self::MethodNotAllowed => "This path takes other methods; the header Allow names them.",
            Self::NotRegistered => "The user has to be registered before this can be done.",
            Self::ConnectionLimitReached => "All places are taken and nobody may give way.",
            Self::OperationInProgress => "The same thing is being done right now; try again in a moment.",
            Self::PlanStale => "Something has changed since the plan was made; look at a new one.",
            Self::UserExistsUpstream => {
                "SnapTrade knows this user id, but its secret is not known here; an operator may recreate the user."
            }
            Self::SecretInvalid => "SnapTrade no longer accepts the user's secret; register the user again.",
            Self::ConnectionDisabled => "The user has to reconnect the brokerage.",
            Self::ReconnectRequired => "The user has to reconnect the brokerage.",
            Self::NotSyncedYet => "SnapTrade is still collecting this account's data; try again later.",
            Self::SymbolNotHeld => "None of the user's accounts holds this symbol.",
            Self::AmbiguousAccount => "Name the account that is meant.",
            Self::AccountReadOnly => "This account was connected for reading only.",
            Self::RateLimited => "Too many requests in a short time; try again later.",
            Self::UpstreamError => "An outside service answered with an error; try again later.",
            Self::UpstreamTimeout => "An outside service did not answer in time; try again later.",
            Self::DeletionPending => "Room was made and is kept for you; try again in a moment.",
            Self::Unavailable => "Something that this service needs cannot be reached; try again later.",
        }
    }

    /// After how many seconds it makes sense to try again, where waiting helps at all.
    fn usual_retry_after(self) -> Option<u32> {
        match self {
            Self::OperationInProgress => Some(2),
            Self::DeletionPending | Self::UpstreamError | Self::UpstreamTimeout | Self::Unavailable => {
                Some(5)
            }
            Self::NotSyncedYet => Some(30),
            Self::RateLimited => Some(60),
            _ => None,
        }
    }
}

/// One fault of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InputFault {
    /// Where it is: a JSON pointer into the body (RFC 6901; empty for the whole body), or `#/query/<name>`.
    pub pointer: String,
    /// What has to be there, in words.
    pub detail: String,
}

/// Why a request is not done. A handler returns it; `serve` logs it once and answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: Code,
    detail: Option<String>,
    errors: Vec<InputFault>,
    retry_after: Option<u32>,
    allow: Vec<String>,
    cause: Option<String>,
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self {
            code,
            detail: None,
            errors: Vec::new(),
            retry_after: code.usual_retry_after(),
            allow: Vec::new(),
            cause: None,
        }
    }

    /// Input with these faults.
    #[must_use]
    pub fn invalid(errors: Vec<InputFault>) -> Self {
        let detail = match errors.as_slice() {
            [one] if one.pointer.is_empty() => Some(format!("The body {}.", one.detail)),
            [one] => Some(format!("{} {}.", one.pointer, one.detail)),
            many => (!many.is_empty()).then(|| format!("The request has {} faults.", many.len())),
        };
        Self {
            detail,
            errors,
            ..Self::new(Code::InvalidRequest)
        }
    }

    /// Something that one is not allowed to do.
    #[must_use]
    pub fn forbidden(detail: &str) -> Self {
        Self::new(Code::Forbidden).detail(detail)
    }

    /// A path that does not take the method; `allow` are those that it takes.
    #[must_use]
    pub fn method_not_allowed(allow: Vec<String>) -> Self {
        Self {
            allow,
            ..Self::new(Code::MethodNotAllowed)
        }
    }

    /// Tells the caller this. It must not hold a secret, a URL or what an outside service answered.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Tells the caller to try again after this many seconds, at least 1.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds.max(1));
        self
    }

    /// Keeps the cause for the log; the caller does not see it.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// What kind of problem it is.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The faults of the input.
    #[must_use]
    pub fn errors(&self) -> &[InputFault] {
        &self.errors
    }

    /// After how many seconds to try again, where waiting helps.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.retry_after
    }

    /// The methods that the path takes, for the header `Allow`.
    #[must_use]
    pub fn allow(&self) -> &[String] {
        &self.allow
    }

    /// The cause, for the log.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// What the caller is told.
    #[must_use]
    pub fn detail_text(&self) -> &str {
        self.detail.as_deref().unwrap_or_else(|| self.code.usual_detail())
    }

    /// The answer's body, as `application/problem+json`.
    #[must_use]
    pub fn body(&self, request_id: &str) -> String {
        let mut body = serde_json::json!({
            "type": format!("urn:berth:problem:{}", self.code.as_str()),
            "title": self.code.title(),
            "status": self.code.status().as_u16(),
            "detail": self.detail_text(),
            "code": self.code.as_str(),
            "request_id": request_id,
        });
        if !self.errors.is_empty()
            && let Some(object) = body.as_object_mut()
        {
            object.insert("errors".to_owned(), serde_json::json!(self.errors));
        }
        body.to_string()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail_text())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problems_body_has_every_member_and_hides_the_cause() {
        let problem = Problem::new(Code::UpstreamError).because("key=value");
        let body: serde_json::Value = serde_json::from_str(&problem.body("request-1")).unwrap();
        assert_eq!(body["type"], "urn:berth:problem:upstream_error");
        assert_eq!(body["title"], "An outside service failed");
        assert_eq!(body["status"], 502);
        assert_eq!(body["code"], "upstream_error");
        assert_eq!(body["request_id"], "request-1");
        assert!(body["detail"].is_string());
        assert!(body.get("errors").is_none());
        assert!(!problem.body("").contains("key=value"));
    }

    #[test]
    fn input_faults_are_listed_with_their_pointers() {
        let fault = |pointer: &str| InputFault {
            pointer: pointer.to_owned(),
            detail: "is missing".to_owned(),
        };
        let problem = Problem::invalid(vec![fault("/a"), fault("/b")]);
        let body: serde_json::Value = serde_json::from_str(&problem.body("")).unwrap();
        assert_eq!(body["errors"][1]["pointer"], "/b");
        assert_eq!(body["detail"], "The request has 2 faults.");
        assert_eq!(
            Problem::invalid(vec![fault("/a")]).detail_text(),
            "/a is missing."
        );
    }

    #[test]
    fn waiting_is_advised_where_it_helps_and_only_there() {
        assert_eq!(Problem::new(Code::RateLimited).retry_after_seconds(), Some(60));
        assert_eq!(
            Problem::new(Code::RateLimited)
                .retry_after(0)
                .retry_after_seconds(),
            Some(1)
        );
        assert_eq!(
            Problem::new(Code::ConnectionLimitReached).retry_after_seconds(),
            None
        );
    }
}
