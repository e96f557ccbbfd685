//! Events that were given up: listing them, and working on them again.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::apply::{Applied, apply};
use super::inbox::{StoredEvent, key, stored};
use crate::app::App;
use crate::connections::runner::new_attempt;
use crate::ids::{TenantId, UpstreamId};
use crate::store::{Expression, Store, StoreError, Transaction, Write, index_partition};

fn index(tenant: &TenantId) -> String {
    index_partition(tenant, "DEAD_LETTERS")
}

/// Gives an event up: it is listed among the dead letters, and nobody works on it until it is replayed. An event that
/// is not there any more is passed over. One call.
///
/// # Errors
/// [`StoreError`].
pub async fn mark_dead(
    store: &Store,
    tenant: &TenantId,
    webhook_id: &str,
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let letter = HashMap::from([
        ("at".to_owned(), AttributeValue::S(now.to_string())),
        ("reason".to_owned(), AttributeValue::S(reason.to_owned())),
    ]);
    let sort_key = format!("{:015}#{webhook_id}", now.as_millisecond().max(0));
    let expression = Expression {
        update: "SET dead_letter = :letter, gsi1pk = :index, gsi1sk = :sort_key".to_owned(),
        condition: "attribute_exists(pk) AND attribute_not_exists(applied_at)".to_owned(),
        values: HashMap::from([
            (":letter".to_owned(), AttributeValue::M(letter)),
            (":index".to_owned(), AttributeValue::S(index(tenant))),
            (":sort_key".to_owned(), AttributeValue::S(sort_key)),
        ]),
        ..Expression::default()
    };
    update(store, tenant, webhook_id, expression, "dead", now).await
}

/// An event that was given up, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetterView {
    /// Its id.
    pub webhook_id: String,
    /// SnapTrade's word for what has happened.
    pub event_type: Option<String>,
    /// The user that it is about.
    pub user_id: Option<String>,
    /// The user's id at SnapTrade.
    pub upstream_id: Option<UpstreamId>,
    /// When SnapTrade made it.
    pub stamped_at: Timestamp,
    /// When it came.
    pub received_at: Timestamp,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// Why it was given up.
    pub reason: String,
    /// When it was given up.
    pub given_up_at: Timestamp,
}

impl DeadLetterView {
    fn new(event: StoredEvent) -> Option<Self> {
        let letter = event.dead_letter?;
        Some(Self {
            webhook_id: event.webhook_id,
            event_type: event.event_type,
            user_id: event.user_id.as_ref().map(|id| id.shown_user_id().to_owned()),
            upstream_id: event.user_id,
            stamped_at: event.stamped_at,
            received_at: event.received_at,
            attempts: event.attempts,
            reason: letter.reason,
            given_up_at: letter.at,
        })
    }

    fn position(&self) -> DeadLetterPosition {
        DeadLetterPosition {
            given_up_at: self.given_up_at,
            webhook_id: self.webhook_id.clone(),
        }
    }
}

/// Where a list of dead letters goes on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeadLetterPosition {
    given_up_at: Timestamp,
    webhook_id: String,
}

/// A part of the list of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetters {
    /// The letters, the first ones first.
    pub letters: Vec<DeadLetterView>,
    /// Where it goes on; `None` at the end.
    pub next: Option<DeadLetterPosition>,
}

/// Up to `limit` of the events that were given up, the first ones first, behind `position`. One call for each megabyte
/// of them: there are few, or something is very wrong.
///
/// # Errors
/// [`StoreError`].
pub async fn dead_letters(
    store: &Store,
    tenant: &TenantId,
    limit: u32,
    position: Option<DeadLetterPosition>,
    now: Timestamp,
) -> Result<DeadLetters, StoreError> {
    let mut letters = Vec::new();
    for item in store.index(&index(tenant), None, now).await? {
        letters.extend(stored(&item)?.and_then(|(_, event)| DeadLetterView::new(event)));
    }
    letters.retain(|letter| {
        position
            .as_ref()
            .is_none_or(|position| letter.position() > *position)
    });
    letters.sort_by_key(DeadLetterView::position);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = letters.len() > limit;
    letters.truncate(limit);
    let next = letters.last().filter(|_| more).map(DeadLetterView::position);
    Ok(DeadLetters { letters, next })
}

/// Works on an event again, whatever became of it before; `None` where there is no such event.
///
/// # Errors
/// [`StoreError`].
pub async fn replay(app: &App, tenant: &TenantId, webhook_id: &str) -> Result<Option<Applied>, StoreError> {
    let now = app.clock().now();
    let expression = Expression {
        update:
            "REMOVE dead_letter, applied_at, outcome, gsi1pk, gsi1sk SET attempts = :none, replayed_at = :now"
                .to_owned(),
        condition: "attribute_exists(pk)".to_owned(),
        values: HashMap::from([
            (":none".to_owned(), AttributeValue::N("0".to_owned())),
            (":now".to_owned(), AttributeValue::S(now.to_string())),
        ]),
        ..Expression::default()
    };
    update(app.store(), tenant, webhook_id, expression, "replay", now).await?;
    let item = app.store().get(&key(tenant, webhook_id), now).await?;
    let Some((tenant, event)) = item.as_ref().map(stored).transpose()?.flatten() else {
        return Ok(None);
    };
    let id = event.webhook_id.clone();
    let results = apply(app, &[(tenant.clone(), event)]).await;
    let applied = results.get(&id).copied();
    if applied == Some(Applied::Again) {
        // Nobody else tries it again: the stream has delivered it long ago.
        let reason = "it could not be worked on when it was replayed";
        mark_dead(app.store(), &tenant, &id, reason, app.clock().now()).await?;
    }
    Ok(applied)
}

async fn update(
    store: &Store,
    tenant: &TenantId,
    webhook_id: &str,
    expression: Expression,
    step: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let transaction = Transaction {
        token: format!("{}.{step}", new_attempt()),
        writes: vec![Write::Update {
            key: key(tenant, webhook_id),
            expression,
        }],
    };
    store.transact(&transaction, now).await?;
    Ok(())
}
