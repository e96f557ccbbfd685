//! What can go wrong with a call to SnapTrade, by kind rather than by status code.
//!
//! SnapTrade's error bodies are `{"detail", "status_code", "code"}` with `code` as text, but its own description,
//! its guides and its proxies also show other keys, numbers, and no JSON at all. Everything here is therefore read
//! as "if it is there".

use std::fmt;
use std::time::Duration;

/// A call to SnapTrade failed.
///
/// Neither `Display` nor `Debug` shows a URL, a signature, a user's secret or a key, so an error may be logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub kind: ErrorKind,
    /// Which call it was, by the operation's name.
    pub operation: &'static str,
    /// Whether the call may have had an effect.
    outcome: Outcome,
    /// What SnapTrade answered, where it answered.
    answer: Option<Box<Answer>>,
    /// Why the call was not sent, where that is so.
    reason: Option<Box<str>>,
}

/// Whether a failed call may have had an effect at SnapTrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It certainly had none: SnapTrade refused it, or it was never sent.
    Refused,
    /// It may have had its effect: no answer, a broken connection, a server's fault, or an answer that makes no sense.
    Unknown,
}

/// What went wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Our own client id or consumer key could not be read, so nothing was sent.
    CredentialsUnavailable,
    /// SnapTrade does not accept our own client id (401).
    Authentication,
    /// SnapTrade does not accept this user's id and secret: wrong secret, or no such user (401, code 1083). Of a call
    /// that names a user without the secret it is `NotFound`.
    UserSecretRejected,
    /// SnapTrade does not accept the signature or its time stamp: wrong consumer key, or our clock is wrong (401, code
    /// 1076).
    Signature,
    /// A user of this id exists already (400, code 1010).
    UserExists,
    /// What the call names does not exist (404).
    NotFound,
    /// The plan allows no more connections.
    LimitReached,
    /// Too many calls (429).
    RateLimited {
        /// How long to wait, where SnapTrade says so.
        retry_after: Option<Duration>,
    },
    /// The brokerage connection is disabled; the user has to reconnect (402).
    ConnectionDisabled,
    /// SnapTrade is still collecting this account's data (425).
    NotSynced,
    /// The operation is no longer offered to us (410), or not for this brokerage (501).
    Gone,
    /// Our plan, the connection or the account does not permit it (403).
    Forbidden,
    /// SnapTrade cannot make sense of the request (any other 4xx).
    Invalid,
    /// SnapTrade or the brokerage behind it failed (5xx).
    Outage,
    /// No answer in time.
    Timeout,
    /// No connection could be made, or it broke.
    Unreachable,
    /// The answer is not what it should be: not JSON, the wrong shape, or too long.
    Malformed,
}

/// What SnapTrade said about a failed call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// SnapTrade's own error code.
    pub code: Option<String>,
    /// SnapTrade's own words, at most 500 characters. Secrets sent with the call are blotted out.
    pub detail: Option<String>,
    /// The `X-Request-ID` header, which SnapTrade's support asks for.
    pub request_id: Option<String>,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anything being changed. For a call that changes something this
    /// says nothing of whether it is safe to send it again; see [`Error::outcome`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::CredentialsUnavailable
            | Self::RateLimited { .. }
            | Self::NotSynced
            | Self::Outage
            | Self::Timeout
            | Self::Unreachable
            | Self::Malformed => true,
            Self::Authentication
            | Self::UserSecretRejected
            | Self::Signature
            | Self::UserExists
            | Self::NotFound
            | Self::LimitReached
            | Self::ConnectionDisabled
            | Self::Gone
            | Self::Forbidden
            | Self::Invalid => false,
        }
    }

    fn words(&self) -> &'static str {
        match self {
            Self::CredentialsUnavailable => "our own credentials could not be read",
            Self::Authentication => "SnapTrade does not accept our client id",
            Self::UserSecretRejected => "SnapTrade does not accept this user's id and secret",
            Self::Signature => "SnapTrade does not accept our signature or its time stamp",
            Self::UserExists => "a user of this id exists already",
            Self::NotFound => "SnapTrade knows no such thing",
            Self::LimitReached => "no more connections are allowed",
            Self::RateLimited { .. } => "too many calls",
            Self::ConnectionDisabled => "the brokerage connection is disabled",
            Self::NotSynced => "the data is still being collected",
            Self::Gone => "the operation is no longer offered",
            Self::Forbidden => "the operation is not permitted",
            Self::Invalid => "SnapTrade refused the request",
            Self::Outage => "SnapTrade failed",
            Self::Timeout => "SnapTrade did not answer in time",
            Self::Unreachable => "SnapTrade could not be reached",
            Self::Malformed => "SnapTrade's answer makes no sense",
        }
    }
}

impl Error {
    /// An error of a call that got no answer, or none that could be understood.
    #[must_use]
    pub fn new(operation: &'static str, kind: ErrorKind, outcome: Outcome) -> Self {
        Self {
            kind,
            operation,
            outcome,
            answer: None,
            reason: None,
        }
    }

    /// The same error with the reason why the call was not sent, which must hold no secret.
    #[must_use]
    pub(super) fn with_reason(mut self, reason: String) -> Self {
        self.reason = Some(reason.into_boxed_str());
        self
    }

    /// The same error with what SnapTrade answered.
    #[must_use]
    pub fn with_answer(mut self, answer: Answer) -> Self {
        self.answer = Some(Box::new(answer));
        self
    }

    /// Whether the call may have had an effect.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether the same call may succeed later; see [`ErrorKind::is_retryable`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }

    /// What SnapTrade answered, where it answered.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.as_deref()
    }

    /// How long SnapTrade asks to wait, where it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            ErrorKind::RateLimited { retry_after } => retry_after,
            _ => None,
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.kind.words())?;
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        let Some(answer) = &self.answer else { return Ok(()) };
        write!(f, " (status {}", answer.status)?;
        if let Some(code) = &answer.code {
            write!(f, ", code {code}")?;
        }
        if let Some(request_id) = &answer.request_id {
            write!(f, ", request {request_id}")?;
        }
        f.write_str(")")?;
        match &answer.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("operation", &self.operation)
            .field("outcome", &self.outcome)
            .field("answer", &self.answer)
            .field("reason", &self.reason)
            .finish()
    }
}
