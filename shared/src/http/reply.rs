//! Answers of requests that were done.

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::problem::{Code, Problem};

/// An answer to a request that was done: a status, a JSON body and perhaps headers of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Option<String>,
}

impl Reply {
    /// `status` with `body` as JSON.
    ///
    /// # Errors
    /// [`Problem`] `unavailable` when the body cannot be written as JSON, which is a mistake in this program.
    pub fn json(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_string(body)
            .map_err(|error| Problem::new(Code::Unavailable).because(format_args!("answer: {error}")))?;
        Ok(Self {
            status,
            headers: Vec::new(),
            body: Some(body),
        })
    }

    /// `status` with a body that is JSON already.
    #[must_use]
    pub fn json_text(status: StatusCode, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Some(body.to_owned()),
        }
    }

    /// 200 with `body`.
    ///
    /// # Errors
    /// As [`Reply::json`].
    pub fn ok(body: &impl Serialize) -> Result<Self, Problem> {
        Self::json(StatusCode::OK, body)
    }

    /// 201 with `body`.
    ///
    /// # Errors
    /// As [`Reply::json`].
    pub fn created(body: &impl Serialize) -> Result<Self, Problem> {
        Self::json(StatusCode::CREATED, body)
    }

    /// 202 with `body`.
    ///
    /// # Errors
    /// As [`Reply::json`].
    pub fn accepted(body: &impl Serialize) -> Result<Self, Problem> {
        Self::json(StatusCode::ACCEPTED, body)
    }

    /// `status` without a body.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: None,
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same with `Retry-After`: waiting this many seconds, at least 1, helps.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.header(http::header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }
}
