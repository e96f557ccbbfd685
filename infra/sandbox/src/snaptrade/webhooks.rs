//! Webhooks: events signed as SnapTrade signs them, and their delivery with SnapTrade's schedule of retries.

use std::sync::Arc;
use std::time::Duration;

use berth::snaptrade::signature;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::shared::Shared;
use super::{CLIENT_ID, ids};

/// How long a listener has for its answer. SnapTrade does not document its own.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The wait before the first retry; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(30 * 60);

/// How often a delivery is tried again before the event is lost.
const RETRIES: u32 = 3;

/// The kinds of event that the sandbox sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum EventType {
    UserRegistered,
    UserDeleted,
    ConnectionAttempted,
    ConnectionAdded,
    ConnectionDeleted,
    ConnectionBroken,
    ConnectionFixed,
    ConnectionUpdated,
    ConnectionFailed,
    NewAccountAvailable,
    AccountTransactionsInitialUpdate,
    AccountTransactionsUpdated,
    AccountHoldingsUpdated,
}

impl EventType {
    /// SnapTrade's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::UserRegistered => "USER_REGISTERED",
            Self::UserDeleted => "USER_DELETED",
            Self::ConnectionAttempted => "CONNECTION_ATTEMPTED",
            Self::ConnectionAdded => "CONNECTION_ADDED",
            Self::ConnectionDeleted => "CONNECTION_DELETED",
            Self::ConnectionBroken => "CONNECTION_BROKEN",
            Self::ConnectionFixed => "CONNECTION_FIXED",
            Self::ConnectionUpdated => "CONNECTION_UPDATED",
            Self::ConnectionFailed => "CONNECTION_FAILED",
            Self::NewAccountAvailable => "NEW_ACCOUNT_AVAILABLE",
            Self::AccountTransactionsInitialUpdate => "ACCOUNT_TRANSACTIONS_INITIAL_UPDATE",
            Self::AccountTransactionsUpdated => "ACCOUNT_TRANSACTIONS_UPDATED",
            Self::AccountHoldingsUpdated => "ACCOUNT_HOLDINGS_UPDATED",
        }
    }

    /// Whether an event about a connection or an account carries the brokerage's id, too.
    pub(super) fn names_brokerage(self) -> bool {
        matches!(
            self,
            Self::ConnectionAdded | Self::ConnectionDeleted | Self::AccountHoldingsUpdated
        )
    }
}

/// An event and how its delivery stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Event {
    pub(super) webhook_id: String,
    pub(super) event_type: EventType,
    /// What is sent, always the same however often.
    pub(super) body: Value,
    pub(super) at: Timestamp,
    /// How often it was sent.
    pub(super) attempts: u32,
    /// The status of the last answer, when there was one.
    pub(super) last_status: Option<u16>,
    pub(super) delivered: bool,
    /// When it is tried again, if it is.
    pub(super) retry_at: Option<Timestamp>,
}

impl Event {
    /// A new event about a user, with the members of `about`.
    pub(super) fn new(event_type: EventType, user_id: &str, now: Timestamp, about: &[(&str, Value)]) -> Self {
        let webhook_id = ids::uuid();
        let mut body = Map::new();
        let common: [(&str, Value); 6] = [
            ("webhookId", webhook_id.as_str().into()),
            ("clientId", CLIENT_ID.into()),
            (
                "eventTimestamp",
                now.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string().into(),
            ),
            ("userId", user_id.into()),
            ("eventType", event_type.name().into()),
            // Deprecated, and still sent.
            ("webhookSecret", ids::token().into()),
        ];
        for (name, value) in common.into_iter().chain(about.iter().cloned()) {
            body.insert(name.to_owned(), value);
        }
        Self {
            webhook_id,
            event_type,
            body: Value::Object(body),
            at: now,
            attempts: 0,
            last_status: None,
            delivered: false,
            retry_at: None,
        }
    }

    /// As the control calls list it.
    pub(super) fn shown(&self) -> Value {
        serde_json::json!({
            "webhook_id": self.webhook_id,
            "event_type": self.event_type.name(),
            "user_id": self.body.get("userId"),
            "connection_id": self.body.get("brokerageAuthorizationId"),
            "account_id": self.body.get("accountId"),
            "at": self.at,
            "attempts": self.attempts,
            "last_status": self.last_status,
            "delivered": self.delivered,
            "retry_at": self.retry_at,
        })
    }
}

/// The signature of an event's body under the sandbox's consumer key.
pub(super) fn sign(consumer_key: &SecretString, body: &Value) -> String {
    signature::sign_bytes(consumer_key, signature::canonical_json(body).as_bytes())
}

/// The wait before the try that follows attempt number `attempts`, or `None` when there is no further one.
fn wait_after(attempts: u32) -> Option<Duration> {
    let doublings = attempts.checked_sub(1)?;
    (doublings < RETRIES).then(|| FIRST_RETRY.saturating_mul(2_u32.saturating_pow(doublings)))
}

/// Sends events in their order, once each, and leaves those that were not taken to their retries.
pub(super) async fn deliver(shared: Arc<Shared>, webhook_ids: Vec<String>) {
    for id in webhook_ids {
        if let Some(retry_at) = attempt(&shared, &id).await {
            shared.spawn(retry(Arc::clone(&shared), id, retry_at));
        }
    }
}

/// Waits for the time of the next try and goes on until the event is taken or lost.
pub(super) async fn retry(shared: Arc<Shared>, webhook_id: String, retry_at: Timestamp) {
    let mut next = Some(retry_at);
    while let Some(at) = next {
        let wait = at.duration_since(shared.clock.now());
        shared.clock.sleep(wait.try_into().unwrap_or_default()).await;
        next = attempt(&shared, &webhook_id).await;
    }
}

/// Sends an event once more, whatever came of it before, and answers with the listener's status.
///
/// # Errors
/// `None` when there is no such event.
pub(super) async fn replay(shared: &Arc<Shared>, webhook_id: &str) -> Option<Event> {
    shared.world(|world, _| event(world, webhook_id).map(|event| event.body.clone()))?;
    attempt(shared, webhook_id).await;
    shared.world(|world, _| event(world, webhook_id).cloned())
}

/// Sends an event once and notes what came of it. Returns when to try again, if ever.
async fn attempt(shared: &Arc<Shared>, webhook_id: &str) -> Option<Timestamp> {
    let body = shared.world(|world, _| event(world, webhook_id).map(|event| event.body.clone()))?;
    let target = shared.webhook_target()?;
    let answer = shared
        .http
        .post(&target)
        .header("Content-Type", "application/json")
        .header("Signature", sign(&shared.consumer_key, &body))
        .timeout(TIMEOUT)
        .body(body.to_string())
        .send()
        .await;
    let status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
    let delivered = matches!(status, Some(200 | 201 | 202 | 204));
    if !delivered {
        tracing::warn!(webhook_id, status, "Webhook {webhook_id} was not taken");
    }
    shared.change_quietly(|world, now| {
        let event = world
            .events
            .iter_mut()
            .find(|event| event.webhook_id == webhook_id)?;
        event.attempts = event.attempts.saturating_add(1);
        event.last_status = status;
        event.delivered |= delivered;
        let wait = if event.delivered {
            None
        } else {
            wait_after(event.attempts)
        };
        event.retry_at = wait.and_then(|wait| now.checked_add(wait).ok());
        event.retry_at
    })
}

fn event<'a>(world: &'a super::world::World, webhook_id: &str) -> Option<&'a Event> {
    world.events.iter().find(|event| event.webhook_id == webhook_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_retried_three_times_at_growing_intervals() {
        let minutes: Vec<_> = (1..=4)
            .map(|attempts| wait_after(attempts).map(|wait| wait.as_secs() / 60))
            .collect();
        assert_eq!(minutes, [Some(30), Some(60), Some(120), None]);
    }

    #[test]
    fn an_event_carries_the_common_members_and_its_own() {
        let now = "2026-11-20T10:11:12.345678Z".parse().unwrap();
        let event = Event::new(
            EventType::ConnectionAdded,
            "ada",
            now,
            &[("brokerageId", "b".into())],
        );
        assert_eq!(event.body["eventTimestamp"], "2026-11-20T10:11:12.345678+00:00");
        assert_eq!(event.body["eventType"], "CONNECTION_ADDED");
        assert_eq!(event.body["clientId"], "SANDBOX-CLIENT");
        assert_eq!(event.body["webhookId"], event.webhook_id.as_str());
    }
}
