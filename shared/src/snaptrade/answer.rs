//! From an answer that is not a success to an [`Error`]: a pure function of status, headers and body.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::error::{Answer, Error, ErrorKind, Outcome};
use super::lenient::member_text;
use crate::telemetry::redact;

/// Most characters of SnapTrade's words that an error keeps.
const DETAIL_CHARS: usize = 500;

/// Most characters of a code or a request id that an error keeps.
const CODE_CHARS: usize = 100;

/// Longest time to wait that is taken from an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// Whom a call names to SnapTrade. The same refusal means different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// No user: only our own credentials can be refused.
    Nobody,
    /// A user by id alone: a refusal means that there is no such user.
    User,
    /// A user with the secret.
    UserAndSecret,
}

/// What is known of a call when its answer is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) operation: &'static str,
    pub(super) names: Names,
    /// Texts that must not be repeated: they were sent with the call.
    pub(super) secrets: &'a [&'a str],
}

/// The error that an answer of `status` stands for.
pub(super) fn error(
    asked: Asked<'_>,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Error {
    let parsed: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let detail = ["detail", "default_detail", "error", "message"]
        .iter()
        .find_map(|name| member_text(&parsed, name))
        .or_else(|| (parsed.is_object() || parsed.is_array()).then(|| parsed.to_string()));
    let code = ["code", "default_code"]
        .iter()
        .find_map(|name| member_text(&parsed, name));
    let words = detail.as_deref().unwrap_or_default().to_ascii_lowercase();
    let kind = match kind(asked.names, status, code.as_deref(), &words) {
        ErrorKind::RateLimited { .. } => ErrorKind::RateLimited {
            retry_after: retry_after(headers, &words, now),
        },
        kind => kind,
    };
    // A time-out that a proxy answers with says nothing of what happened behind it.
    let refused = (400..500).contains(&status) && status != 408;
    let outcome = if refused {
        Outcome::Refused
    } else {
        Outcome::Unknown
    };
    Error::new(asked.operation, kind, outcome).with_answer(Answer {
        status,
        code: code.map(|code| shorten(&clean(&code, asked.secrets), CODE_CHARS)),
        detail: detail.map(|detail| shorten(&clean(&detail, asked.secrets), DETAIL_CHARS)),
        request_id: request_id(headers),
    })
}

/// The error of an answer of success whose body is not what was expected. `reason` says so without quoting from it.
pub(super) fn malformed(operation: &'static str, status: u16, headers: &HeaderMap, reason: String) -> Error {
    Error::new(operation, ErrorKind::Malformed, Outcome::Unknown).with_answer(Answer {
        status,
        code: None,
        detail: Some(reason),
        request_id: request_id(headers),
    })
}

fn kind(names: Names, status: u16, code: Option<&str>, words: &str) -> ErrorKind {
    let says = |text: &str| words.contains(text);
    match status {
        408 => return ErrorKind::Timeout,
        // "Not implemented" is said of a brokerage, and will be said again.
        501 => return ErrorKind::Gone,
        500.. => return ErrorKind::Outage,
        400..=499 => {}
        _ => return ErrorKind::Malformed,
    }
    // No status or code is established for this refusal; the words are the same wherever it was seen.
    if says("connection limit reached") || says("maximum number of connections") {
        return ErrorKind::LimitReached;
    }
    match code {
        Some("1010") => return ErrorKind::UserExists,
        Some("1076") => return ErrorKind::Signature,
        Some("3003" | "3011") => return ErrorKind::ConnectionDisabled,
        Some("3012") => return ErrorKind::NotSynced,
        _ => {}
    }
    match status {
        400 | 401 if says("invalid timestamp") || says("unable to verify") => ErrorKind::Signature,
        400 if says("userid") && says("already exist") => ErrorKind::UserExists,
        401 => unauthorised(names, code, words),
        402 => ErrorKind::ConnectionDisabled,
        403 => ErrorKind::Forbidden,
        404 => ErrorKind::NotFound,
        410 => ErrorKind::Gone,
        425 => ErrorKind::NotSynced,
        429 => ErrorKind::RateLimited { retry_after: None },
        _ => ErrorKind::Invalid,
    }
}

/// Whose credentials a 401 refuses. Code 1083 was seen for both, so the words decide, and where they say nothing our
/// own credentials are blamed: a user's secret must not be given up on a guess.
fn unauthorised(names: Names, code: Option<&str>, words: &str) -> ErrorKind {
    let of_client = words.contains("clientid") && !words.contains("please provide");
    let of_user = code == Some("1083")
        || ["invalid userid", "invalid usersecret", "user not found"]
            .iter()
            .any(|text| words.contains(text));
    match names {
        _ if of_client || !of_user => ErrorKind::Authentication,
        Names::Nobody => ErrorKind::Authentication,
        Names::User => ErrorKind::NotFound,
        Names::UserAndSecret => ErrorKind::UserSecretRejected,
    }
}

/// How long to wait before the next call: `Retry-After`, else the reset of the limit that is used up, else what the
/// words say.
fn retry_after(headers: &HeaderMap, words: &str, now: Timestamp) -> Option<Duration> {
    let after = header(headers, "retry-after").and_then(|text| match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => {
            let then = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Some(Duration::try_from(then.duration_since(now)).unwrap_or_default())
        }
    });
    after
        .or_else(|| {
            used_up(
                headers,
                "x-ratelimit-account-remaining",
                "x-ratelimit-account-reset",
            )
        })
        .or_else(|| used_up(headers, "x-ratelimit-remaining", "x-ratelimit-reset"))
        .or_else(|| {
            let (_, rest) = words.split_once("available in ")?;
            let seconds = rest.split_whitespace().next()?.parse().ok()?;
            Duration::try_from_secs_f64(seconds).ok()
        })
        .map(|wait| wait.min(LONGEST_WAIT))
}

/// The time until a limit is reset, unless some of it is left: then it is not what the call was refused for.
fn used_up(headers: &HeaderMap, remaining: &str, reset: &str) -> Option<Duration> {
    if header(headers, remaining).is_some_and(|left| left != "0") {
        return None;
    }
    let seconds = header(headers, reset)?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    header(headers, "x-request-id").map(|id| shorten(&redact::text(id), CODE_CHARS))
}

/// `text` without the secrets that were sent and without anything else that looks like one.
fn clean(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "[redacted]");
    }
    redact::text(&text).into_owned()
}

/// The first `chars` characters, without control characters, which have no place in a log line.
fn shorten(text: &str, chars: usize) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(chars)
        .collect()
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn judged(names: Names, status: u16, body: &str) -> Error {
        let asked = Asked {
            operation: "test",
            names,
            secrets: &["s3cret"],
        };
        error(
            asked,
            status,
            &HeaderMap::new(),
            body.as_bytes(),
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn refusals_are_told_apart_by_status_code_and_words() {
        use ErrorKind as K;
        use Names::{Nobody, User, UserAndSecret};
        for (names, status, body, kind) in [
            (
                Nobody,
                400,
                r#"{"detail":"User with the following userId already exist: 'u'","code":"1010"}"#,
                K::UserExists,
            ),
            (
                Nobody,
                400,
                r#"{"detail":"User with the following userId already exist: 'u'"}"#,
                K::UserExists,
            ),
            (Nobody, 400, r#"{"detail":"x","code":1010}"#, K::UserExists),
            (
                Nobody,
                401,
                r#"{"detail":"Unable to verify signature sent","code":"1076"}"#,
                K::Signature,
            ),
            (
                Nobody,
                400,
                r#"{"detail":"Unable to verify data sent"}"#,
                K::Signature,
            ),
            (Nobody, 401, r#"{"detail":"Invalid timestamp"}"#, K::Signature),
            (
                UserAndSecret,
                401,
                r#"{"detail":"Invalid userID or userSecret provided","code":"1083"}"#,
                K::UserSecretRejected,
            ),
            (
                UserAndSecret,
                401,
                r#"{"detail":"Invalid clientId provided","code":"1083"}"#,
                K::Authentication,
            ),
            (
                UserAndSecret,
                401,
                r#"{"detail":"User not found","code":"0000"}"#,
                K::UserSecretRejected,
            ),
            (UserAndSecret, 401, "<html>401</html>", K::Authentication),
            (
                User,
                401,
                r#"{"detail":"Invalid userID or userSecret provided","code":"1083"}"#,
                K::NotFound,
            ),
            (
                Nobody,
                401,
                r#"{"detail":"Invalid userID or userSecret provided","code":"1083"}"#,
                K::Authentication,
            ),
            (
                Nobody,
                401,
                r#"{"detail":"Authentication credentials were not provided","code":"0000"}"#,
                K::Authentication,
            ),
            (
                UserAndSecret,
                402,
                r#"{"detail":"x","code":"3003"}"#,
                K::ConnectionDisabled,
            ),
            (UserAndSecret, 402, "", K::ConnectionDisabled),
            (UserAndSecret, 400, r#"{"code":3011}"#, K::ConnectionDisabled),
            (
                UserAndSecret,
                403,
                r#"{"detail":"x","code":"1141"}"#,
                K::Forbidden,
            ),
            (UserAndSecret, 404, r#"{"detail":"x","code":"1011"}"#, K::NotFound),
            (
                UserAndSecret,
                410,
                r#"{"detail":"This endpoint is no longer available for your account."}"#,
                K::Gone,
            ),
            (UserAndSecret, 425, r#"{"detail":"x","code":3012}"#, K::NotSynced),
            (
                Nobody,
                400,
                r#"{"detail":"Connection Limit Reached"}"#,
                K::LimitReached,
            ),
            (
                Nobody,
                403,
                r#"{"detail":"You have hit the maximum number of connections."}"#,
                K::LimitReached,
            ),
            (
                Nobody,
                402,
                r#"{"default_detail":"connection limit reached","default_code":1}"#,
                K::LimitReached,
            ),
            (Nobody, 422, r#"["odd"]"#, K::Invalid),
            (Nobody, 501, r#"{"error":"not supported"}"#, K::Gone),
            (Nobody, 503, r#"{"detail":"x","code":"3002"}"#, K::Outage),
            (Nobody, 502, "<html>", K::Outage),
            (Nobody, 500, r#"{"detail":"Connection Limit Reached"}"#, K::Outage),
            (Nobody, 302, "", K::Malformed),
        ] {
            assert_eq!(
                judged(names, status, body).kind,
                kind,
                "{names:?} {status} {body}"
            );
        }
    }

    #[test]
    fn only_a_clients_fault_is_certain_to_have_had_no_effect() {
        for status in [400, 401, 404, 409, 429] {
            assert_eq!(
                judged(Names::Nobody, status, "").outcome(),
                Outcome::Refused,
                "{status}"
            );
        }
        for status in [302, 408, 500, 502, 503, 504] {
            assert_eq!(
                judged(Names::Nobody, status, "").outcome(),
                Outcome::Unknown,
                "{status}"
            );
        }
    }

    #[test]
    fn the_time_to_wait_comes_from_the_best_hint_there_is() {
        let body = r#"{"detail":"Request was throttled. Expected available in 7 seconds.","code":"0000"}"#;
        let date = ("retry-after", "Thu, 01 Jan 1970 00:00:42 GMT");
        for (given, seconds) in [
            (headers(&[("retry-after", "3"), ("x-ratelimit-reset", "20")]), 3),
            (headers(&[date]), 42),
            (
                headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "20")]),
                20,
            ),
            (
                headers(&[("x-ratelimit-remaining", "80"), ("x-ratelimit-reset", "20")]),
                7,
            ),
            (
                headers(&[
                    ("x-ratelimit-remaining", "80"),
                    ("x-ratelimit-reset", "20"),
                    ("x-ratelimit-account-remaining", "0"),
                    ("x-ratelimit-account-reset", "30"),
                ]),
                30,
            ),
            (headers(&[]), 7),
            (headers(&[("retry-after", "999999")]), 3_600),
        ] {
            let asked = Asked {
                operation: "test",
                names: Names::Nobody,
                secrets: &[],
            };
            let error = error(asked, 429, &given, body.as_bytes(), Timestamp::UNIX_EPOCH);
            assert_eq!(
                error.retry_after(),
                Some(Duration::from_secs(seconds)),
                "{given:?}"
            );
        }
        assert_eq!(judged(Names::Nobody, 429, "slow down").retry_after(), None);
        assert_eq!(
            judged(Names::Nobody, 429, "slow down").kind,
            ErrorKind::RateLimited { retry_after: None }
        );
    }

    #[test]
    fn an_error_repeats_no_secret_and_not_too_much() {
        let body = format!(
            r#"{{"detail":"s3cret was wrong: https://h/p?userSecret=abc {}","code":"s3cret"}}"#,
            "x".repeat(5_000)
        );
        let error = judged(Names::UserAndSecret, 400, &body);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("abc"), "{shown}");
        assert!(shown.len() < 3 * DETAIL_CHARS);
        assert_eq!(
            judged(Names::Nobody, 400, r#"{"userId":["is required"]}"#)
                .answer()
                .unwrap()
                .detail
                .as_deref(),
            Some(r#"{"userId":["is required"]}"#)
        );
    }
}
