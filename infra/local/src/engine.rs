//! What the stack does with the embedded engine itself, beside its port.

use dynoxide::Database;
use serde_json::{Value, json};

/// Most items that one BatchWriteItem takes.
const BATCH: usize = 25;

/// Why the engine did not do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// It refused.
    #[error("the embedded DynamoDB refused: {0}")]
    Refused(#[from] dynoxide::DynoxideError),
    /// A request or an answer has not the expected form.
    #[error("the embedded DynamoDB was misunderstood: {0}")]
    Form(#[from] serde_json::Error),
}

/// Deletes all items of `table` and tells how many there were. The deletions are in the table's stream, as all are.
///
/// # Errors
/// [`EngineError`]; some of the items may be gone then.
pub(crate) fn empty(database: &Database, table: &str) -> Result<usize, EngineError> {
    let mut deleted = 0_usize;
    loop {
        let page = database.scan(serde_json::from_value(json!({
            "TableName": table, "ProjectionExpression": "pk, sk", "Limit": 1000,
        }))?)?;
        let keys = serde_json::to_value(&page)?;
        let keys = keys.get("Items").and_then(Value::as_array).cloned().unwrap_or_default();
        if keys.is_empty() {
            return Ok(deleted);
        }
        for batch in keys.chunks(BATCH) {
            let writes: Vec<_> = batch
                .iter()
                .map(|key| json!({"DeleteRequest": {"Key": key}}))
                .collect();
            database.batch_write_item(serde_json::from_value(json!({"RequestItems": {table: writes}}))?)?;
            deleted = deleted.saturating_add(batch.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emptying_deletes_every_item_however_many() {
        let database = Database::memory().unwrap();
        database
            .create_table(
                serde_json::from_value(json!({
                    "TableName": "things", "BillingMode": "PAY_PER_REQUEST",
                    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"},
                                             {"AttributeName": "sk", "AttributeType": "S"}],
                    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
                }))
                .unwrap(),
            )
            .unwrap();
        for number in 0..60 {
            let item = json!({"pk": {"S": "user"}, "sk": {"S": number.to_string()}});
            let put = json!({"TableName": "things", "Item": item});
            database.put_item(serde_json::from_value(put).unwrap()).unwrap();
        }
        assert_eq!(empty(&database, "things").unwrap(), 60);
        assert_eq!(empty(&database, "things").unwrap(), 0);
    }
}
