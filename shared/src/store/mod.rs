//! The one table: its keys, its items and the few kinds of write that are made to it.
//!
//! Everything is stored through aws-sdk-dynamodb; the local stack's embedded engine speaks the same protocol.
//! Reads treat expired items as absent, because DynamoDB sweeps them up to days late. Every write is conditional on
//! what its author read, and its [`Outcome`] tells whether it was made, or what stood in the way.

pub mod json;
mod keys;
mod table;
mod transaction;

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, Select};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use keys::{IndexKey, Key, index_partition, partition};
pub use transaction::{Condition, Expression, Outcome, Transaction, Write};

/// An item as DynamoDB holds it.
pub type Item = HashMap<String, AttributeValue>;

/// The store could not be asked, or did not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// DynamoDB did not answer, refused, or was too busy. For a write it is not known whether it was made.
    #[error("the store could not be reached: {0}")]
    Unavailable(String),
    /// An item is not in the form in which it is written.
    #[error("the item {key} is not in the expected form: {reason}")]
    Malformed {
        /// Partition and sort key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The table, through aws-sdk-dynamodb. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    table: String,
}

/// In which order the items of a partition are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The smallest sort key first.
    Ascending,
    /// The largest sort key first.
    Descending,
}

/// Part of a listing, and where it goes on.
#[derive(Debug, Clone)]
pub struct Page {
    /// The items, expired ones left out.
    pub items: Vec<Item>,
    /// What to pass to go on; `None` at the end.
    pub next: Option<Item>,
}

impl Page {
    /// What a call answered, without what has expired.
    fn of(items: Option<Vec<Item>>, next: Option<Item>, now: Timestamp) -> Self {
        let mut items = items.unwrap_or_default();
        items.retain(|item| !is_expired(item, now));
        Self { items, next }
    }
}

impl Store {
    /// The table named `table`, reached through `client`.
    #[must_use]
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Reads one item, consistently. One call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn get(&self, key: &Key, now: Timestamp) -> Result<Option<Item>, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key.to_item()))
            .consistent_read(true)
            .send()
            .await
            .map_err(unavailable)?;
        Ok(answer.item.filter(|item| !is_expired(item, now)))
    }

    /// Reads up to 100 items, consistently, in no particular order. One call for each hundred and for each part that
    /// DynamoDB leaves over.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn get_all(&self, keys: &[Key], now: Timestamp) -> Result<Vec<Item>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        // DynamoDB refuses a key that is named twice.
        let mut named = HashSet::new();
        let keys: Vec<&Key> = keys.iter().filter(|key| named.insert(*key)).collect();
        for hundred in keys.chunks(100) {
            let mut wanted = Some(
                KeysAndAttributes::builder()
                    .set_keys(Some(hundred.iter().map(|key| key.to_item()).collect()))
                    .consistent_read(true)
                    .build()
                    .map_err(|error| StoreError::Unavailable(error.to_string()))?,
            );
            while let Some(keys) = wanted.take() {
                let answer = self
                    .client
                    .batch_get_item()
                    .request_items(&self.table, keys)
                    .send()
                    .await
                    .map_err(unavailable)?;
                found.extend(
                    answer
                        .responses
                        .into_iter()
                        .flatten()
                        .flat_map(|(_, items)| items),
                );
                wanted = answer
                    .unprocessed_keys
                    .and_then(|mut left| left.remove(&self.table))
                    .filter(|left| !left.keys.is_empty());
                if wanted.is_some() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        found.retain(|item| !is_expired(item, now));
        Ok(found)
    }

    /// Reads a whole partition, consistently, in the order of its sort keys. One call for each megabyte.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn partition(&self, pk: &str, now: Timestamp) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let answer = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .key_condition_expression("pk = :pk")
                .expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()))
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(unavailable)?;
            items.extend(answer.items.unwrap_or_default());
            start = answer.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        items.retain(|item| !is_expired(item, now));
        Ok(items)
    }

    /// Reads a page of the part of a partition whose sort keys are within `range`, consistently and in this order. One
    /// call; none where the range ends before it begins, which DynamoDB refuses.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn range_page(
        &self,
        pk: &str,
        range: &RangeInclusive<String>,
        order: Order,
        limit: Option<i32>,
        start: Option<Item>,
        now: Timestamp,
    ) -> Result<Page, StoreError> {
        if range.is_empty() {
            return Ok(Page::of(None, None, now));
        }
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("pk = :pk AND sk BETWEEN :from AND :to")
            .expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()))
            .expression_attribute_values(":from", AttributeValue::S(range.start().clone()))
            .expression_attribute_values(":to", AttributeValue::S(range.end().clone()))
            .scan_index_forward(order == Order::Ascending)
            .set_limit(limit)
            .set_exclusive_start_key(start)
            .send()
            .await
            .map_err(unavailable)?;
        Ok(Page::of(answer.items, answer.last_evaluated_key, now))
    }

    /// Reads a page of the whole table, consistently: the items whose partition key begins with one of `prefixes`, in no
    /// particular order, but those of one partition together. For commands; no function reads a whole table. One call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn scan_page(
        &self,
        prefixes: &[String],
        start: Option<Item>,
        now: Timestamp,
    ) -> Result<Page, StoreError> {
        let mut scan = self
            .client
            .scan()
            .table_name(&self.table)
            .consistent_read(true)
            .set_exclusive_start_key(start);
        let mut filter = Vec::with_capacity(prefixes.len());
        for (number, prefix) in prefixes.iter().enumerate() {
            let name = format!(":prefix{number}");
            filter.push(format!("begins_with(pk, {name})"));
            scan = scan.expression_attribute_values(name, AttributeValue::S(prefix.clone()));
        }
        if !filter.is_empty() {
            scan = scan.filter_expression(filter.join(" OR "));
        }
        let answer = scan.send().await.map_err(unavailable)?;
        Ok(Page::of(answer.items, answer.last_evaluated_key, now))
    }

    /// Reads a page of an index partition in the order of its sort keys. The index lags behind the table, so what it
    /// says is read again before anything is decided by it. One call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn index_page(
        &self,
        gsi1pk: &str,
        limit: Option<i32>,
        start: Option<Item>,
        now: Timestamp,
    ) -> Result<Page, StoreError> {
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(table::INDEX)
            .key_condition_expression("gsi1pk = :pk")
            .expression_attribute_values(":pk", AttributeValue::S(gsi1pk.to_owned()))
            .select(Select::AllAttributes)
            .set_limit(limit)
            .set_exclusive_start_key(start)
            .send()
            .await
            .map_err(unavailable)?;
        Ok(Page::of(answer.items, answer.last_evaluated_key, now))
    }

    /// Reads a page of the part of an index partition whose sort keys are within `range`, in their order. One call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn index_range(
        &self,
        gsi1pk: &str,
        range: &RangeInclusive<&str>,
        limit: Option<i32>,
        start: Option<Item>,
        now: Timestamp,
    ) -> Result<Page, StoreError> {
        let answer = self
            .within(gsi1pk, range)
            .select(Select::AllAttributes)
            .set_limit(limit)
            .set_exclusive_start_key(start)
            .send()
            .await
            .map_err(unavailable)?;
        Ok(Page::of(answer.items, answer.last_evaluated_key, now))
    }

    /// Counts the items of an index partition whose sort keys are within `range`; those that have expired count as long
    /// as they are not swept. One call for each megabyte.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn index_count(&self, gsi1pk: &str, range: &RangeInclusive<&str>) -> Result<u64, StoreError> {
        let (mut count, mut start) = (0_u64, None);
        loop {
            let answer = self
                .within(gsi1pk, range)
                .select(Select::Count)
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(unavailable)?;
            count = count.saturating_add(u64::try_from(answer.count).unwrap_or(0));
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(count);
            }
        }
    }

    /// Adds up the numbers that an attribute has in the items of an index partition. One call for each megabyte.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn index_sum(&self, gsi1pk: &str, attribute: &str) -> Result<u64, StoreError> {
        let (mut sum, mut start) = (0_u64, None);
        loop {
            let answer = self
                .client
                .query()
                .table_name(&self.table)
                .index_name(table::INDEX)
                .key_condition_expression("gsi1pk = :pk")
                .projection_expression("#attribute")
                .expression_attribute_names("#attribute", attribute)
                .expression_attribute_values(":pk", AttributeValue::S(gsi1pk.to_owned()))
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(unavailable)?;
            for item in answer.items.unwrap_or_default() {
                let number = item.get(attribute).and_then(|value| value.as_n().ok());
                sum = sum.saturating_add(number.and_then(|number| number.parse().ok()).unwrap_or(0));
            }
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(sum);
            }
        }
    }

    fn within(&self, gsi1pk: &str, range: &RangeInclusive<&str>) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.table)
            .index_name(table::INDEX)
            .key_condition_expression("gsi1pk = :pk AND gsi1sk BETWEEN :from AND :to")
            .expression_attribute_values(":pk", AttributeValue::S(gsi1pk.to_owned()))
            .expression_attribute_values(":from", AttributeValue::S((*range.start()).to_owned()))
            .expression_attribute_values(":to", AttributeValue::S((*range.end()).to_owned()))
    }

    /// Reads an index partition to its end, or until `enough` items are there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn index(
        &self,
        gsi1pk: &str,
        enough: Option<usize>,
        now: Timestamp,
    ) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let limit = enough.and_then(|enough| i32::try_from(enough).ok());
            let page = self.index_page(gsi1pk, limit, start, now).await?;
            items.extend(page.items);
            start = page.next;
            if start.is_none() || enough.is_some_and(|enough| items.len() >= enough) {
                return Ok(items);
            }
        }
    }

    /// Writes one item if `condition` holds. One call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it is not known whether the write was made.
    pub async fn put(
        &self,
        item: Item,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Outcome, StoreError> {
        transaction::put(&self.client, &self.table, item, condition, now).await
    }

    /// Deletes one item if `condition` holds. One call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it is not known whether the write was made.
    pub async fn delete(
        &self,
        key: &Key,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<Outcome, StoreError> {
        transaction::delete(&self.client, &self.table, key, condition, now).await
    }

    /// Makes all writes of `transaction`, or none. One call, and one more for each conflict with another transaction.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it is not known whether the writes were made.
    pub async fn transact(&self, transaction: &Transaction, now: Timestamp) -> Result<Outcome, StoreError> {
        transaction::transact(&self.client, &self.table, transaction, now).await
    }

    /// Creates the table with its index, time to live and stream, if it is not there. For the local stack; in AWS the
    /// template does it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn create_table(&self) -> Result<(), StoreError> {
        table::create(&self.client, &self.table).await
    }

    /// Asks for one item that is never there, so that the connection stands and the permissions are known to be right.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(Key::new("PING", "PING").to_item()))
            .send()
            .await
            .map_err(unavailable)?;
        Ok(())
    }
}

/// Turns `record` into an item under `key`, listed in the index under `index`, swept after `expires_at`.
///
/// # Errors
/// [`StoreError::Malformed`] when the record has a shape that DynamoDB cannot hold.
pub fn to_item<T: Serialize>(
    key: &Key,
    record: &T,
    index: Option<&IndexKey>,
    expires_at: Option<Timestamp>,
) -> Result<Item, StoreError> {
    let mut item: Item = serde_dynamo::to_item(record).map_err(|error| StoreError::Malformed {
        key: key.to_string(),
        reason: error.to_string(),
    })?;
    item.extend(key.to_item());
    if let Some(index) = index {
        item.extend(index.to_item());
    }
    if let Some(at) = expires_at {
        item.insert(
            "expires_at".to_owned(),
            AttributeValue::N(at.as_second().to_string()),
        );
    }
    Ok(item)
}

/// Reads a record back from its item.
///
/// # Errors
/// [`StoreError::Malformed`] names the item and what is wrong with it.
pub fn from_item<T: DeserializeOwned>(item: &Item) -> Result<T, StoreError> {
    serde_dynamo::from_item(item.clone()).map_err(|error| StoreError::Malformed {
        key: Key::of(item).to_string(),
        reason: error.to_string(),
    })
}

/// Whether the item's time to live has passed.
#[must_use]
pub fn is_expired(item: &Item, now: Timestamp) -> bool {
    matches!(item.get("expires_at"), Some(AttributeValue::N(at)) if at.parse::<i64>().is_ok_and(|at| at <= now.as_second()))
}

/// Describes why DynamoDB could not be asked, in words that hold no item's content.
fn unavailable<E>(error: SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    SdkError<E>: ProvideErrorMetadata + std::error::Error,
{
    let reason = match error.as_service_error() {
        Some(refused) => format!(
            "{}: {}",
            refused.code().unwrap_or("unknown error"),
            refused.message().unwrap_or("no message")
        ),
        None => DisplayErrorContext(&error).to_string(),
    };
    StoreError::Unavailable(reason)
}
