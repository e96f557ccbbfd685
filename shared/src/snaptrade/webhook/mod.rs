//! Webhooks: SnapTrade's word that something has happened.
//!
//! An event is a hint and no proof of the state that it speaks of: it may come late, twice, or in another order than the
//! things happened, and after three vain attempts at delivering it SnapTrade gives up.
//!
//! Source: SnapTrade's guide to webhooks and the events that it publishes there.

mod event;

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;

pub use event::{
    AccountEvent, AttemptResult, Event, EventKind, HoldingsUpdate, PartUpdate, Schema, TradeEvent,
};

use super::signature::{canonical_json, canonical_text, sign_bytes, verify_bytes};

/// Longest body that is looked at, in bytes. The longest known have a few kilobytes.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// How old an event may be. SnapTrade tries again half an hour later and then at growing intervals, and whether it
/// stamps an event anew is not known; a narrow window would lose what was delivered late.
pub const MAX_AGE: Duration = Duration::from_secs(72 * 3_600);

/// How far ahead of our clocks an event may be stamped.
pub const MAX_AHEAD: Duration = Duration::from_secs(300);

/// Why a webhook is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The body is longer than [`MAX_BODY_BYTES`].
    #[error("the body is longer than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    /// The signature is absent or is not the one that the body and our consumer key give.
    #[error("the signature is not that of the body")]
    Signature,
    /// The body is signed but is not an event.
    #[error("the body is not an event: {0}")]
    Malformed(&'static str),
}

/// The event in `body`, which came with the header `Signature: <signature>`.
///
/// SnapTrade signs the body in its canonical form; a signature of the very bytes is accepted too. The comparison takes
/// the same time wherever the two differ, and nothing of the body is believed before it.
///
/// # Errors
/// [`WebhookError`]. All of them can be answered alike.
pub fn verify(consumer_key: &SecretString, body: &[u8], signature: &str) -> Result<Event, WebhookError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(WebhookError::TooLarge);
    }
    if !verify_bytes(consumer_key, body, signature) {
        // Reading the body is needed to bring it into canonical form; its length and depth are bounded.
        let canonical = std::str::from_utf8(body)
            .ok()
            .and_then(|text| canonical_text(text).ok())
            .ok_or(WebhookError::Signature)?;
        if !verify_bytes(consumer_key, canonical.as_bytes(), signature) {
            return Err(WebhookError::Signature);
        }
    }
    Event::parse(body)
}

/// The `Signature` header for an event, as SnapTrade makes it. Only a stand-in for SnapTrade has a use for it.
#[must_use]
pub fn sign(consumer_key: &SecretString, event: &Value) -> String {
    sign_bytes(consumer_key, canonical_json(event).as_bytes())
}

/// Why an event's time stamp is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// It is older than [`MAX_AGE`].
    #[error("the event is too old")]
    TooOld,
    /// It is further ahead than [`MAX_AHEAD`].
    #[error("the event is stamped with a time that is still to come")]
    Ahead,
}

/// Whether an event stamped with `stamped` may still be accepted. It is held against whichever of the two clocks is
/// nearer: the system's, by which SnapTrade goes, and our own, which is another one only on a developer's machine.
///
/// # Errors
/// [`Stale`].
pub fn check_age(stamped: Timestamp, system_now: Timestamp, own_now: Timestamp) -> Result<(), Stale> {
    let ahead_of = |now: Timestamp| stamped.duration_since(now);
    let (system, own) = (ahead_of(system_now), ahead_of(own_now));
    let ahead = if system.unsigned_abs() <= own.unsigned_abs() {
        system
    } else {
        own
    };
    if ahead.is_negative() && ahead.unsigned_abs() > MAX_AGE {
        Err(Stale::TooOld)
    } else if ahead.is_positive() && ahead.unsigned_abs() > MAX_AHEAD {
        Err(Stale::Ahead)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> SecretString {
        SecretString::from("key of the tests")
    }

    fn event() -> Value {
        json!({
            "webhookId": "w-1",
            "clientId": "BERTH",
            "eventTimestamp": "2026-07-01T10:00:00.000001+00:00",
            "userId": "zoë~abc 😀",
            "eventType": "USER_REGISTERED",
            "amount": 1.5,
        })
    }

    #[test]
    fn an_event_is_accepted_in_whatever_way_its_json_is_written() {
        let signature = sign(&key(), &event());
        let compact = event().to_string();
        let pretty = serde_json::to_string_pretty(&event()).unwrap();
        let canonical = canonical_json(&event());
        let numbers = compact.replace("1.5", "15.00e-1");
        for body in [&compact, &pretty, &canonical, &numbers] {
            let event = verify(&key(), body.as_bytes(), &signature).unwrap();
            assert_eq!(event.webhook_id, "w-1");
            assert_eq!(event.user_id.unwrap().as_str(), "zoë~abc 😀");
        }
        let raw = sign_bytes(&key(), pretty.as_bytes());
        assert!(verify(&key(), pretty.as_bytes(), &raw).is_ok());
        assert_eq!(
            verify(&key(), compact.as_bytes(), &raw),
            Err(WebhookError::Signature)
        );
    }

    #[test]
    fn numbers_of_any_length_are_held_against_the_signature_unharmed() {
        let body = r#"{"webhookId":"w","eventTimestamp":"2026-07-01T10:00:00Z","eventType":"X","n":123456789012345678901234567890}"#;
        let canonical = canonical_text(body).unwrap();
        assert!(canonical.contains("123456789012345678901234567890"));
        let signature = sign_bytes(&key(), canonical.as_bytes());
        let spaced = body.replace(',', " , ");
        assert!(verify(&key(), spaced.as_bytes(), &signature).is_ok());
    }

    #[test]
    fn a_forged_truncated_or_altered_event_is_refused() {
        let signature = sign(&key(), &event());
        let body = event().to_string();
        let altered = body.replace("w-1", "w-2");
        for (body, signature) in [
            (altered.as_str(), signature.as_str()),
            (&body[..body.len() - 1], &signature),
            (body.as_str(), ""),
            (body.as_str(), "AAAA"),
            (body.as_str(), &signature[1..]),
            ("", &signature),
            ("{}", &signature),
        ] {
            assert_eq!(
                verify(&key(), body.as_bytes(), signature),
                Err(WebhookError::Signature),
                "{body}"
            );
        }
        let other = SecretString::from("other");
        assert_eq!(
            verify(&other, body.as_bytes(), &signature),
            Err(WebhookError::Signature)
        );
        assert_eq!(
            verify(&key(), &[0xff, 0xfe], &signature),
            Err(WebhookError::Signature)
        );
        let deep = "[".repeat(10_000);
        assert_eq!(
            verify(&key(), deep.as_bytes(), &signature),
            Err(WebhookError::Signature)
        );
        let long = vec![b' '; MAX_BODY_BYTES + 1];
        assert_eq!(verify(&key(), &long, &signature), Err(WebhookError::TooLarge));
    }

    #[test]
    fn what_is_signed_but_no_event_is_malformed() {
        for body in [
            "null",
            "[]",
            "{}",
            "\"x\"",
            r#"{"webhookId":"w","eventType":"X"}"#,
        ] {
            let signature = sign_bytes(&key(), body.as_bytes());
            let answer = verify(&key(), body.as_bytes(), &signature);
            assert!(matches!(answer, Err(WebhookError::Malformed(_))), "{body}");
        }
    }

    #[test]
    fn an_event_is_held_against_the_nearer_clock() {
        let system: Timestamp = "2026-07-01T00:00:00Z".parse().unwrap();
        let hours = |hours: i64| system + jiff::SignedDuration::from_hours(hours);
        let minutes = |minutes: i64| system + jiff::SignedDuration::from_mins(minutes);
        assert_eq!(check_age(system, system, system), Ok(()));
        assert_eq!(check_age(hours(-72), system, system), Ok(()));
        assert_eq!(check_age(hours(-73), system, system), Err(Stale::TooOld));
        assert_eq!(check_age(minutes(5), system, system), Ok(()));
        assert_eq!(check_age(minutes(6), system, system), Err(Stale::Ahead));
        assert_eq!(check_age(hours(1_000), system, hours(1_000)), Ok(()));
        assert_eq!(check_age(system, system, hours(1_000)), Ok(()));
        assert_eq!(check_age(hours(500), system, hours(1_000)), Err(Stale::Ahead));
    }
}
