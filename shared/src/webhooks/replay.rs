//! Events that were given up: listing them, and working on them again.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;

use super::apply::{Applied, apply};
use super::inbox::{StoredEvent, key, stored};
use crate::app::App;
use crate::connections::runner::new_attempt;
use crate::ids::TenantId;
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

/// The events that were given up, the first ones first.
///
/// # Errors
/// [`StoreError`].
pub async fn dead_letters(
    store: &Store,
    tenant: &TenantId,
    now: Timestamp,
) -> Result<Vec<StoredEvent>, StoreError> {
    let mut letters = Vec::new();
    for item in store.index(&index(tenant), None, now).await? {
        letters.extend(stored(&item)?.map(|(_, event)| event));
    }
    Ok(letters)
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
    let results = apply(app, &[(tenant, event)]).await;
    Ok(results.get(&id).copied())
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
