//! Conditional writes, alone and several at once.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ConditionCheck, Delete, Put, ReturnValuesOnConditionCheckFailure,
    TransactWriteItem, Update,
};
use aws_smithy_types::error::operation::BuildError;
use jiff::Timestamp;

use super::{Item, Key, StoreError, unavailable};

/// How often a write that met another transaction is sent again, before the store is said to be unavailable.
const MAX_CONFLICTS: u32 = 5;

/// What has to hold of an item for a write to be made.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Whatever is there.
    Always,
    /// There is no such item, or it has expired.
    Absent,
    /// There is one, at this revision (`rev`).
    Revision(u64),
    /// An expression over the item's own attributes.
    Expression(Expression),
}

/// A condition or an update in DynamoDB's own words.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expression {
    /// The update; empty for a condition alone.
    pub update: String,
    /// The condition; empty where there is none.
    pub condition: String,
    /// What `#names` stand for.
    pub names: HashMap<String, String>,
    /// What `:values` stand for.
    pub values: HashMap<String, AttributeValue>,
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// The item becomes this.
    Put {
        /// The whole new item, keys included.
        item: Item,
        /// What has to hold of the old one.
        condition: Condition,
    },
    /// The item goes.
    Delete {
        /// Which one.
        key: Key,
        /// What has to hold of it.
        condition: Condition,
    },
    /// The item changes in part.
    Update {
        /// Which one.
        key: Key,
        /// How, and under which condition.
        expression: Expression,
    },
    /// The item stays, but the transaction depends on it.
    Check {
        /// Which one.
        key: Key,
        /// What has to hold of it.
        condition: Condition,
    },
}

/// Writes that are made together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction {
    /// Names this decision, in at most 36 characters. Sent again under the same name within 10 minutes, it is not made
    /// twice (DynamoDB's `ClientRequestToken`).
    pub token: String,
    /// The writes, on different items.
    pub writes: Vec<Write>,
}

/// How a conditional write ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was made, now or when it was first sent.
    Won,
    /// What stood in the way is the very item that was to be written: the write was made before, and its answer lost.
    AlreadyMine,
    /// It was not made. For each write in order: `None` where its condition held, otherwise what stood in the way,
    /// which is an empty item where the item was not there.
    Lost(Vec<Option<Item>>),
}

impl Outcome {
    /// Whether what was to be written stands there, written by its author.
    #[must_use]
    pub fn is_made(&self) -> bool {
        matches!(self, Self::Won | Self::AlreadyMine)
    }
}

/// The parts of a condition that a request carries.
fn render(condition: &Condition, now: Timestamp) -> Expression {
    match condition {
        Condition::Always => Expression::default(),
        Condition::Absent => Expression {
            condition: "attribute_not_exists(pk) OR expires_at <= :now".to_owned(),
            values: HashMap::from([(":now".to_owned(), AttributeValue::N(now.as_second().to_string()))]),
            ..Expression::default()
        },
        Condition::Revision(rev) => Expression {
            condition: "rev = :rev".to_owned(),
            values: HashMap::from([(":rev".to_owned(), AttributeValue::N(rev.to_string()))]),
            ..Expression::default()
        },
        Condition::Expression(expression) => expression.clone(),
    }
}

/// `request` with the parts of `condition`, and with the wish to be told what stood in the way. The SDK has a builder of
/// its own for each kind of write, all with the same methods.
macro_rules! conditional {
    ($request:expr, $condition:expr, $now:expr) => {{
        let Expression {
            condition,
            names,
            values,
            ..
        } = render($condition, $now);
        $request
            .set_condition_expression(text(condition))
            .set_expression_attribute_names(map(names))
            .set_expression_attribute_values(map(values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }};
}

fn text(part: String) -> Option<String> {
    (!part.is_empty()).then_some(part)
}

fn map<T>(part: HashMap<String, T>) -> Option<HashMap<String, T>> {
    (!part.is_empty()).then_some(part)
}

/// Writes one item.
pub(super) async fn put(
    client: &Client,
    table: &str,
    item: Item,
    condition: &Condition,
    now: Timestamp,
) -> Result<Outcome, StoreError> {
    let request = client.put_item().table_name(table).set_item(Some(item.clone()));
    let Err(error) = conditional!(request, condition, now).send().await else {
        return Ok(Outcome::Won);
    };
    match error.as_service_error() {
        Some(PutItemError::ConditionalCheckFailedException(failed)) => {
            let there = failed.item.clone().unwrap_or_default();
            Ok(if there == item {
                Outcome::AlreadyMine
            } else {
                Outcome::Lost(vec![Some(there)])
            })
        }
        _ => Err(unavailable(error)),
    }
}

/// Deletes one item.
pub(super) async fn delete(
    client: &Client,
    table: &str,
    key: &Key,
    condition: &Condition,
    now: Timestamp,
) -> Result<Outcome, StoreError> {
    let request = client
        .delete_item()
        .table_name(table)
        .set_key(Some(key.to_item()));
    let Err(error) = conditional!(request, condition, now).send().await else {
        return Ok(Outcome::Won);
    };
    match error.as_service_error() {
        Some(DeleteItemError::ConditionalCheckFailedException(failed)) => {
            Ok(Outcome::Lost(vec![Some(failed.item.clone().unwrap_or_default())]))
        }
        _ => Err(unavailable(error)),
    }
}

/// One write in the SDK's form.
fn request(table: &str, write: &Write, now: Timestamp) -> Result<TransactWriteItem, StoreError> {
    let invalid = |error: BuildError| StoreError::Unavailable(error.to_string());
    let request = TransactWriteItem::builder();
    let request = match write {
        Write::Put { item, condition } => {
            let put = Put::builder().table_name(table).set_item(Some(item.clone()));
            request.put(conditional!(put, condition, now).build().map_err(invalid)?)
        }
        Write::Delete { key, condition } => {
            let delete = Delete::builder().table_name(table).set_key(Some(key.to_item()));
            request.delete(conditional!(delete, condition, now).build().map_err(invalid)?)
        }
        Write::Update { key, expression } => {
            let update = Update::builder()
                .table_name(table)
                .set_key(Some(key.to_item()))
                .update_expression(&expression.update);
            let condition = Condition::Expression(expression.clone());
            request.update(conditional!(update, &condition, now).build().map_err(invalid)?)
        }
        Write::Check { key, condition } => {
            let check = ConditionCheck::builder()
                .table_name(table)
                .set_key(Some(key.to_item()));
            request.condition_check(conditional!(check, condition, now).build().map_err(invalid)?)
        }
    };
    Ok(request.build())
}

/// Why DynamoDB did not make a transaction.
enum Cancelled {
    /// Conditions did not hold.
    Lost(Vec<Option<Item>>),
    /// It met another one on the same item, or itself still under way.
    Conflict,
    /// Something else, in words.
    Other(String),
}

fn cancelled(reasons: &[CancellationReason]) -> Cancelled {
    let code = |reason: &CancellationReason| reason.code.clone().unwrap_or_default();
    if reasons
        .iter()
        .any(|reason| code(reason) == "ConditionalCheckFailed")
    {
        return Cancelled::Lost(
            reasons
                .iter()
                .map(|reason| {
                    (code(reason) == "ConditionalCheckFailed")
                        .then(|| reason.item.clone().unwrap_or_default())
                })
                .collect(),
        );
    }
    if reasons
        .iter()
        .any(|reason| matches!(code(reason).as_str(), "TransactionConflict" | "ThrottlingError"))
    {
        return Cancelled::Conflict;
    }
    let codes: Vec<String> = reasons.iter().map(code).filter(|code| code != "None").collect();
    Cancelled::Other(format!("the transaction was cancelled: {}", codes.join(", ")))
}

/// Makes all writes, or none.
pub(super) async fn transact(
    client: &Client,
    table: &str,
    transaction: &Transaction,
    now: Timestamp,
) -> Result<Outcome, StoreError> {
    use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError as Refused;

    let writes: Vec<TransactWriteItem> = transaction
        .writes
        .iter()
        .map(|write| request(table, write, now))
        .collect::<Result<_, _>>()?;
    let mut conflicts = 0;
    loop {
        let sent = client
            .transact_write_items()
            .client_request_token(&transaction.token)
            .set_transact_items(Some(writes.clone()))
            .send()
            .await;
        let Err(error) = sent else { return Ok(Outcome::Won) };
        let again = match error.as_service_error() {
            Some(Refused::TransactionCanceledException(refused)) => {
                match cancelled(refused.cancellation_reasons()) {
                    Cancelled::Lost(obstacles) => return Ok(Outcome::Lost(obstacles)),
                    Cancelled::Conflict => true,
                    Cancelled::Other(reason) => return Err(StoreError::Unavailable(reason)),
                }
            }
            Some(Refused::TransactionInProgressException(_)) => true,
            Some(other) => other.code() == Some("TransactionConflictException"),
            None => false,
        };
        if !again || conflicts == MAX_CONFLICTS {
            return Err(unavailable(error));
        }
        conflicts += 1;
        tokio::time::sleep(jitter(conflicts)).await;
    }
}

/// A random wait of up to 20 ms, doubled with each conflict, so that those who met do not meet again.
fn jitter(conflicts: u32) -> Duration {
    let ceiling = 20_u64.saturating_mul(1 << conflicts.min(6));
    let random = getrandom::u64().unwrap_or(ceiling / 2);
    Duration::from_millis(random.checked_rem(ceiling).unwrap_or(0))
}
