//! Taking events in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::connections::timing::after;
use crate::ids::{TenantId, UpstreamId};
use crate::secrets::SecretError;
use crate::snaptrade::Credentials;
use crate::snaptrade::signature::canonical_text;
use crate::snaptrade::webhook::{self, Event, Stale, WebhookError};
use crate::store::{self, Condition, Item, Key, StoreError, partition};
use crate::telemetry::metrics::{self, Metric};

/// How long an event is kept, and so known when it comes again.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How often credentials are read anew at most because a signature does not verify, so that whoever sends forged
/// events cannot make us ask Secrets Manager each time.
const REREAD_CREDENTIALS: Duration = Duration::from_secs(60);

/// Longest id of an event that is used as it is, in bytes.
const ID_MAX_BYTES: usize = 128;

/// The sort key of an event.
const SORT_KEY: &str = "EVENT";

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// The event's id, or its digest where it has none.
    pub webhook_id: String,
    /// SnapTrade's word for what has happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// The user's id at SnapTrade.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UpstreamId>,
    /// When SnapTrade made it.
    pub stamped_at: Timestamp,
    /// When it came.
    pub received_at: Timestamp,
    /// The event as it was sent, without its obsolete `webhookSecret`.
    pub body: String,
    /// When it was worked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_at: Option<Timestamp>,
    /// What came of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// How often it was tried in vain.
    #[serde(default)]
    pub attempts: u32,
    /// When it was last taken up again by an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed_at: Option<Timestamp>,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetter>,
}

impl StoredEvent {
    /// From when on a reading shows what the event tells of, in milliseconds since 1970.
    #[must_use]
    pub fn asked_ms(&self) -> i64 {
        self.replayed_at
            .map_or(self.received_at, |replayed| replayed.max(self.received_at))
            .as_millisecond()
    }
}

/// That an event was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// An event was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Always true: what was not taken is a problem instead.
    pub received: bool,
    /// Whether it was there already.
    pub duplicate: bool,
}

/// Why an event is not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The signature is not that of the body.
    #[error("the signature is not that of the body")]
    Signature,
    /// The event is for another client.
    #[error("the event is for another client id")]
    OtherClient,
    /// The body is signed, but it is no JSON object.
    #[error("the body is no JSON object")]
    NoObject,
    /// The event has no time stamp.
    #[error("the event has no time stamp")]
    NoTimestamp,
    /// The event is too old, or from a time to come.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// Our own credentials could not be read.
    #[error(transparent)]
    Credentials(#[from] SecretError),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where the event `webhook_id` stands.
pub(super) fn key(tenant: &TenantId, webhook_id: &str) -> Key {
    Key::new(partition(tenant, "EVENT", webhook_id), SORT_KEY)
}

/// The event in an item of the table's stream, with its tenant; `None` where the item is something else.
///
/// # Errors
/// [`StoreError::Malformed`] when it is an event and cannot be read.
pub fn stored(item: &Item) -> Result<Option<(TenantId, StoredEvent)>, StoreError> {
    let Key { pk, sk } = Key::of(item);
    let tenant = pk
        .split_once('#')
        .filter(|(_, rest)| sk == SORT_KEY && rest.starts_with("EVENT#"))
        .and_then(|(tenant, _)| TenantId::parse(tenant));
    match tenant {
        Some(tenant) => Ok(Some((tenant, store::from_item(item)?))),
        None => Ok(None),
    }
}

/// Takes in the event in `body`, which came with this `Signature` header: one write, unless it is refused before.
///
/// # Errors
/// [`NotTaken`]. An event that was stored before is no error, see [`Received::duplicate`].
pub async fn receive(
    app: &App,
    tenant: &TenantId,
    body: &[u8],
    signature: &str,
) -> Result<Received, NotTaken> {
    let credentials = verified(app, body, signature).await?;
    let now = app.clock().now();
    let event = read(body, &credentials.client_id, now)?;
    webhook::check_age(event.stamped_at, Timestamp::now(), now)?;
    let item = store::to_item(
        &key(tenant, &event.webhook_id),
        &event,
        None,
        Some(after(now, KEPT)),
    )?;
    let outcome = app.store().put(item, &Condition::Absent, now).await?;
    let duplicate = !outcome.is_made();
    metrics::count(Metric::EventsReceived, 1);
    metrics::count(Metric::EventsDuplicate, duplicate.into());
    Ok(Received {
        received: true,
        duplicate,
    })
}

/// The credentials under which the body is signed so: those in hand, or, when they do not fit, those that are stored
/// now. They may have been rotated a moment ago.
async fn verified(app: &App, body: &[u8], signature: &str) -> Result<Arc<Credentials>, NotTaken> {
    let is_signed = |credentials: &Credentials| {
        !matches!(
            webhook::verify(&credentials.consumer_key, body, signature),
            Err(WebhookError::Signature | WebhookError::TooLarge)
        )
    };
    let held = app.credentials().get().await?;
    if is_signed(&held) {
        return Ok(held);
    }
    if signature.is_empty() || !app.state::<LastReread>().is_due(app.clock().now()) {
        return Err(NotTaken::Signature);
    }
    let fresh = app.credentials().replace(&held).await?;
    if !fresh.is_same_as(&held) && is_signed(&fresh) {
        return Ok(fresh);
    }
    Err(NotTaken::Signature)
}

/// When credentials were last read anew because of a signature, in milliseconds since 1970.
#[derive(Debug, Default)]
struct LastReread(AtomicI64);

impl LastReread {
    fn is_due(&self, now: Timestamp) -> bool {
        let now = now.as_millisecond();
        let last = self.0.load(Ordering::Relaxed);
        let due = u128::from(now.abs_diff(last)) >= REREAD_CREDENTIALS.as_millis();
        if due {
            self.0.store(now, Ordering::Relaxed);
        }
        due
    }
}

/// The members of an event that it is stored under, of whatever kind it is.
struct Named {
    webhook_id: Option<String>,
    client_id: Option<String>,
    event_timestamp: Option<String>,
    user_id: Option<String>,
    event_type: Option<String>,
}

impl Named {
    fn read(members: &BTreeMap<String, Box<RawValue>>) -> Self {
        let text = |name: &str| {
            members
                .get(name)
                .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
                .filter(|text| !text.is_empty())
        };
        Self {
            // SnapTrade's own description misspells the name, and some events carry both.
            webhook_id: text("webhookId").or_else(|| text("webookId")),
            client_id: text("clientId"),
            event_timestamp: text("eventTimestamp"),
            user_id: text("userId"),
            event_type: text("eventType"),
        }
    }
}

/// The event in a body whose signature is right. What is signed is kept even where it is no event that is known.
fn read(body: &[u8], client_id: &str, now: Timestamp) -> Result<StoredEvent, NotTaken> {
    let mut members: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(body).map_err(|_| NotTaken::NoObject)?;
    members.remove("webhookSecret");
    let named = Named::read(&members);
    // An event of an OAuth application names no client id, and is signed with the same key.
    if named.client_id.is_some_and(|named| named != client_id) {
        return Err(NotTaken::OtherClient);
    }
    let kept = serde_json::to_string(&members).map_err(|_| NotTaken::NoObject)?;
    let event = Event::parse(kept.as_bytes()).ok();
    let stamped_at = event
        .map(|event| event.timestamp)
        .or_else(|| named.event_timestamp.and_then(|text| text.parse().ok()))
        .ok_or(NotTaken::NoTimestamp)?;
    Ok(StoredEvent {
        webhook_id: match named.webhook_id {
            Some(id) if id.len() <= ID_MAX_BYTES && id.bytes().all(|b| b.is_ascii_graphic()) => id,
            Some(id) => digest(id.as_bytes()),
            None => digest(canonical_text(&kept).unwrap_or_else(|_| kept.clone()).as_bytes()),
        },
        event_type: named.event_type,
        user_id: named.user_id.map(UpstreamId::from_snaptrade),
        stamped_at,
        received_at: now,
        body: kept,
        applied_at: None,
        outcome: None,
        attempts: 0,
        replayed_at: None,
        dead_letter: None,
    })
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    format!("sha256-{}", data_encoding::HEXLOWER.encode(&digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }

    const BODY: &str = r#"{"webhookId":"w-1","clientId":"C","eventTimestamp":"2026-11-21T09:59:00.000001+00:00",
        "userId":"ada~aaaaaaaaaaaa","eventType":"SOMETHING_NEW","webhookSecret":"hush","n":123456789012345678901234567890}"#;

    #[test]
    fn an_event_is_kept_as_it_was_sent_but_for_its_secret() {
        let event = read(BODY.as_bytes(), "C", now()).unwrap();
        assert_eq!(event.webhook_id, "w-1");
        assert_eq!(event.event_type.as_deref(), Some("SOMETHING_NEW"));
        assert!(event.body.contains("123456789012345678901234567890"));
        assert!(!event.body.contains("hush"));
        assert!(Event::parse(event.body.as_bytes()).is_ok());
        let item = store::to_item(&key(&TenantId::default(), "w-1"), &event, None, None).unwrap();
        assert_eq!(stored(&item).unwrap(), Some((TenantId::default(), event)));
    }

    #[test]
    fn an_event_without_an_id_is_known_by_what_it_says() {
        let without = |body: &str| body.replace(r#""webhookId":"w-1","#, "");
        let one = read(without(BODY).as_bytes(), "C", now()).unwrap();
        let other_secret = without(BODY).replace("hush", "other");
        let same = read(other_secret.as_bytes(), "C", now()).unwrap();
        assert_eq!(one.webhook_id, same.webhook_id);
        assert!(one.webhook_id.starts_with("sha256-"));
        let different = without(BODY).replace("NEW", "OLD");
        assert_ne!(
            read(different.as_bytes(), "C", now()).unwrap().webhook_id,
            one.webhook_id
        );
        let long = BODY.replace("w-1", &"w".repeat(3_000));
        assert!(read(long.as_bytes(), "C", now()).unwrap().webhook_id.len() < 100);
    }

    #[test]
    fn what_is_for_another_client_or_says_no_time_is_refused() {
        assert_eq!(read(BODY.as_bytes(), "D", now()), Err(NotTaken::OtherClient));
        let body = BODY.replace("eventTimestamp", "at");
        assert_eq!(read(body.as_bytes(), "C", now()), Err(NotTaken::NoTimestamp));
        for body in ["", "[]", "null", "7", "{"] {
            assert_eq!(
                read(body.as_bytes(), "C", now()),
                Err(NotTaken::NoObject),
                "{body}"
            );
        }
    }

    #[test]
    fn credentials_are_read_anew_once_a_minute_at_most() {
        let last = LastReread::default();
        assert!(last.is_due(now()));
        assert!(!last.is_due(after(now(), Duration::from_secs(59))));
        assert!(last.is_due(after(now(), Duration::from_secs(60))));
    }
}
