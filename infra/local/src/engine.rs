//! What the stack does with the embedded engine itself, beside its port.

use std::path::Path;

use dynoxide::Database;
use rusqlite::Connection;
use serde_json::{Value, json};

/// Most items that one call of `BatchWriteItem` takes.
const BATCH: usize = 25;

/// What the engine lacks for a table with a stream. Before each write it looks for the stream's last record, and
/// without an index it reads the whole stream for that, so that writes get slower with each one: 8 ms after 5,000 of
/// them, against half a millisecond with these. Records older than a day go, as they do in AWS.
const STREAM_UPKEEP: &str = "
    CREATE INDEX IF NOT EXISTS stream_by_number
        ON _stream_records (table_name, CAST(sequence_number AS INTEGER));
    CREATE INDEX IF NOT EXISTS stream_by_shard_and_number
        ON _stream_records (table_name, shard_id, CAST(sequence_number AS INTEGER));
    DELETE FROM _stream_records WHERE created_at < unixepoch() - 86400;";

/// Why the engine did not do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// It refused.
    #[error("the embedded DynamoDB refused: {0}")]
    Refused(#[from] dynoxide::DynoxideError),
    /// `SQLite`, below it, refused.
    #[error("the embedded database refused: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A path that the engine cannot be given.
    #[error("its path is not UTF-8")]
    Path,
    /// A request or an answer has not the expected form.
    #[error("the embedded DynamoDB was misunderstood: {0}")]
    Form(#[from] serde_json::Error),
}

/// Opens the database in the file `path`, which is created where it is missing.
///
/// # Errors
/// [`EngineError`] when the file cannot be used.
pub(crate) fn open(path: &Path) -> Result<Database, EngineError> {
    open_at(path.to_str().ok_or(EngineError::Path)?)
}

/// Opens an empty database in memory.
///
/// # Errors
/// [`EngineError`] when there is no memory for it.
pub(crate) fn open_in_memory() -> Result<Database, EngineError> {
    // A name of its own, under which the upkeep reaches the same memory. It is gone with the last connection.
    let name = berth::telemetry::new_id();
    open_at(&format!("file:{name}?mode=memory&cache=shared"))
}

fn open_at(path: &str) -> Result<Database, EngineError> {
    let database = Database::new(path)?;
    Connection::open(path)?.execute_batch(STREAM_UPKEEP)?;
    // Expired items are absent for every reader already; sweeping them keeps the file small.
    database.sweep_ttl()?;
    Ok(database)
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
        let keys = keys
            .get("Items")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
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
    fn databases_in_memory_are_apart_from_each_other() {
        let tables = |database: &Database| database.table_count().unwrap();
        let (one, other) = (open_in_memory().unwrap(), open_in_memory().unwrap());
        let table = json!({
            "TableName": "things", "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        });
        one.create_table(serde_json::from_value(table).unwrap()).unwrap();
        assert_eq!((tables(&one), tables(&other)), (1, 0));
    }

    #[test]
    fn emptying_deletes_every_item_however_many() {
        let database = open_in_memory().unwrap();
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
