//! What both clients of outside services need for a call over HTTP: sending it and reading the answer, each
//! within a time, and what the answer asks for.
//!
//! The HTTP client's own errors are never kept: they show the address, and that may hold a token.

use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use reqwest::Response;
use tokio::time::{Instant, timeout_at};

/// The longest time that a service's `Retry-After` is believed.
pub(super) const LONGEST_ASKED: Duration = Duration::from_secs(3_600);

/// What is encoded in a segment of a path: all but the characters that RFC 3986 calls unreserved.
pub(super) const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// There was no connection, or the request could not be made: the service did not get it.
    NotSent,
    /// No answer came in time.
    TimedOut,
    /// The connection broke.
    BrokenOff,
    /// The answer is longer than what is read.
    TooLong,
}

/// Sends a request; the answer has to begin by `deadline`.
pub(super) async fn send(
    http: &reqwest::Client,
    request: reqwest::Request,
    deadline: Instant,
) -> Result<Response, Failed> {
    match timeout_at(deadline, http.execute(request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) if error.is_connect() || error.is_builder() => Err(Failed::NotSent),
        Ok(Err(error)) if error.is_timeout() => Err(Failed::TimedOut),
        Ok(Err(_)) => Err(Failed::BrokenOff),
        Err(_) => Err(Failed::TimedOut),
    }
}

/// Reads a whole body of up to `limit` bytes by `deadline`.
pub(super) async fn read(
    response: &mut Response,
    limit: usize,
    deadline: Instant,
) -> Result<Vec<u8>, Failed> {
    let mut body = Vec::new();
    while let Some(piece) = piece(response, deadline).await? {
        if body.len().saturating_add(piece.len()) > limit {
            return Err(Failed::TooLong);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// The next piece of a body, which has to come by `deadline`; `None` at its end.
pub(super) async fn piece(response: &mut Response, deadline: Instant) -> Result<Option<Vec<u8>>, Failed> {
    match timeout_at(deadline, response.chunk()).await {
        Ok(Ok(piece)) => Ok(piece.map(|piece| piece.to_vec())),
        Ok(Err(_)) => Err(Failed::BrokenOff),
        Err(_) => Err(Failed::TimedOut),
    }
}

/// The moment when a call that begins now has taken `timeout`, or `until` where that is earlier.
pub(super) fn deadline(timeout: Duration, until: Option<Instant>) -> Instant {
    let now = Instant::now();
    let own = now.checked_add(timeout).unwrap_or(now);
    until.map_or(own, |until| until.min(own))
}

/// How long `Retry-After` asks to wait: seconds, or a date. `now` is the time that dates are held against.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => {
            let then = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(then.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_ASKED))
}

/// A number from 0 to below 1, drawn anew each time. Without randomness it is the middle.
pub(super) fn share() -> f64 {
    getrandom::u32().map_or(0.5, |drawn| f64::from(drawn) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::UNIX_EPOCH;
        for (text, seconds) in [
            ("3", Some(3)),
            (" 0 ", Some(0)),
            ("Thu, 01 Jan 1970 00:00:42 GMT", Some(42)),
            ("Wed, 31 Dec 1969 23:00:00 GMT", Some(0)),
            ("99999999", Some(3_600)),
            ("-1", None),
            ("soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::RETRY_AFTER, text.parse().unwrap());
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), expected, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_share_is_less_than_one() {
        assert!((0..1_000).all(|_| (0.0..1.0).contains(&share())));
    }
}
