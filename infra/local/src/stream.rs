//! The stream pump: what Lambda's event source mapping is in AWS, between the table's stream and the function that
//! consumes it.
//!
//! It reads the stream's records in order, keeps those that the mapping's filter lets through, and hands them on in
//! batches. A batch that fails is bisected until the record that fails stands alone; that one is tried [`MAX_TRIES`]
//! times and then kept as a dead letter. Where it stopped is remembered beside the database, so that nothing is lost
//! over a restart; a record may be delivered twice, as in AWS.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::event::dynamodb::{Event, EventRecord};
use berth::clock::Clock;
use dynoxide::actions::{
    describe_stream::DescribeStreamRequest, get_records::GetRecordsRequest,
    get_shard_iterator::GetShardIteratorRequest, list_streams::ListStreamsRequest,
};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;

/// How often a record that fails on its own is tried.
pub(crate) const MAX_TRIES: u32 = 3;

/// The wait before the second try, by the stack's clock; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Most records in one batch.
pub(crate) const BATCH_SIZE: usize = 10;

/// How many batches of different partition keys are delivered at the same time, as in the deployment.
const LANES: u64 = 4;

/// Most records that one read of the stream takes.
const READ_SIZE: usize = 500;

/// The wait after the stream could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// The function that consumes the stream. Its answer may name the records of the batch that failed, as
/// `batchItemFailures`.
pub(crate) type Consumer = Box<dyn Fn(Event) -> BoxFuture<'static, Result<Value, String>> + Send + Sync>;

/// Keeps a record that failed to the last, with the reason.
pub(crate) type DeadLetters = Box<dyn Fn(EventRecord, String) -> BoxFuture<'static, ()> + Send + Sync>;

/// Why the stream could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The engine refused.
    #[error("the embedded DynamoDB refused: {0}")]
    Engine(#[from] dynoxide::DynoxideError),
    /// The table has no stream.
    #[error("the table {0} has no stream")]
    NoStream(String),
    /// A record is not as DynamoDB writes them.
    #[error("a record of the stream could not be read: {0}")]
    Record(#[from] serde_json::Error),
    /// The thread that reads was lost.
    #[error("reading the stream was cut short: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

/// The pump of one table's stream.
pub(crate) struct Pump {
    /// The engine.
    pub(crate) database: dynoxide::Database,
    /// The table.
    pub(crate) table: String,
    /// Wakes the pump after writes.
    pub(crate) written: Arc<Notify>,
    /// The file that remembers how far it came; none where the database is gone with the process.
    pub(crate) checkpoint: Option<PathBuf>,
    /// Which records the mapping's filter lets through.
    pub(crate) filter: fn(&EventRecord) -> bool,
    /// The function.
    pub(crate) consumer: Consumer,
    /// Where records go that fail to the last.
    pub(crate) dead_letters: DeadLetters,
    /// The clock that waits between tries follow.
    pub(crate) clock: Clock,
}

/// How far the pump came in which stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    stream_arn: String,
    sequence_number: String,
}

impl Pump {
    /// Delivers the stream's records as they come, for ever.
    pub(crate) async fn run(self) {
        let pump = Arc::new(self);
        loop {
            let failed = match pump.follow().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            tracing::error!(error = %failed, "the table's stream could not be read, it is tried again");
            tokio::time::sleep(READ_AGAIN).await;
        }
    }

    /// Delivers the stream's records from where the pump stopped, until the stream cannot be read.
    async fn follow(self: &Arc<Self>) -> Result<std::convert::Infallible, StreamError> {
        let (stream_arn, mut iterator) = self.blocking(|pump| pump.open()).await?;
        loop {
            let from = iterator.clone();
            let arn = stream_arn.clone();
            let read = self.blocking(move |pump| pump.read(&arn, from)).await?;
            iterator = read.next;
            let full = read.count == READ_SIZE;
            let wanted: Vec<EventRecord> = read.records.into_iter().filter(self.filter).collect();
            let delivered = !wanted.is_empty();
            let lanes = lanes(wanted).into_iter().map(|lane| self.deliver_in_order(lane));
            futures::future::join_all(lanes).await;
            if let (true, Some(sequence_number)) = (delivered, read.last) {
                self.remember(&Position {
                    stream_arn: stream_arn.clone(),
                    sequence_number,
                });
            }
            if !full {
                self.written.notified().await;
            }
        }
    }

    /// Runs `work`, which waits for the engine's lock and the disk, where it holds up nothing else.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StreamError> + Send + 'static,
    ) -> Result<T, StreamError> {
        let pump = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&pump)).await?
    }

    /// The stream's name and an iterator at the place where the pump stopped, or at the stream's beginning.
    fn open(&self) -> Result<(String, String), StreamError> {
        let no_stream = || StreamError::NoStream(self.table.clone());
        let streams = self.database.list_streams(ListStreamsRequest {
            table_name: Some(self.table.clone()),
            ..Default::default()
        })?;
        let stream_arn = streams
            .streams
            .into_iter()
            .next()
            .ok_or_else(no_stream)?
            .stream_arn;
        let description = self.database.describe_stream(DescribeStreamRequest {
            stream_arn: stream_arn.clone(),
            ..Default::default()
        })?;
        let shard = description.stream_description.shards.into_iter().next();
        let shard_id = shard.ok_or_else(no_stream)?.shard_id;
        let position = self
            .remembered()
            .filter(|position| position.stream_arn == stream_arn);
        let iterator_type = match position {
            Some(_) => "AFTER_SEQUENCE_NUMBER",
            None => "TRIM_HORIZON",
        };
        let answer = self.database.get_shard_iterator(GetShardIteratorRequest {
            stream_arn: stream_arn.clone(),
            shard_id,
            shard_iterator_type: iterator_type.to_owned(),
            sequence_number: position.map(|position| position.sequence_number),
        })?;
        Ok((stream_arn, answer.shard_iterator.ok_or_else(no_stream)?))
    }

    /// The records that `iterator` stands before.
    fn read(&self, stream_arn: &str, iterator: String) -> Result<Read, StreamError> {
        let answer = self.database.get_records(GetRecordsRequest {
            shard_iterator: iterator.clone(),
            limit: Some(READ_SIZE),
        })?;
        let last = answer
            .records
            .last()
            .map(|record| record.dynamodb.sequence_number.clone());
        let count = answer.records.len();
        let records = answer
            .records
            .iter()
            .map(|record| {
                let mut record = serde_json::to_value(record)?;
                if let Some(members) = record.as_object_mut() {
                    members.insert("eventSourceARN".to_owned(), Value::String(stream_arn.to_owned()));
                }
                serde_json::from_value(record)
            })
            .collect::<Result<_, _>>()?;
        Ok(Read {
            records,
            count,
            last,
            next: answer.next_shard_iterator.unwrap_or(iterator),
        })
    }

    /// Hands `records` to the function in batches, one after the other.
    async fn deliver_in_order(&self, records: Vec<EventRecord>) {
        for batch in records.chunks(BATCH_SIZE) {
            self.deliver(batch.to_vec()).await;
        }
    }

    /// Hands `batch` to the function until each of its records is done or a dead letter.
    async fn deliver(&self, batch: Vec<EventRecord>) {
        // The batches that wait, the next one last.
        let mut waiting = vec![(batch, 0)];
        while let Some((batch, tries)) = waiting.pop() {
            let mut event = Event::default();
            event.records.clone_from(&batch);
            let (mut failed, reason) = match (self.consumer)(event).await {
                Ok(answer) => {
                    let from = first_failure(&batch, &answer);
                    let failed: Vec<_> = batch.into_iter().skip(from).collect();
                    (failed, "the function reported the record as failed".to_owned())
                }
                Err(reason) => (batch, reason),
            };
            match failed.len() {
                0 => {}
                1 => {
                    let tries: u32 = tries + 1;
                    tracing::warn!(tries, %reason, "a record of the stream was not handled");
                    if tries < MAX_TRIES {
                        self.clock.sleep(FIRST_WAIT * 2_u32.pow(tries - 1)).await;
                        waiting.push((failed, tries));
                    } else if let Some(record) = failed.pop() {
                        (self.dead_letters)(record, reason).await;
                    }
                }
                length => {
                    let later = failed.split_off(length / 2);
                    waiting.push((later, 0));
                    waiting.push((failed, 0));
                }
            }
        }
    }

    fn remembered(&self) -> Option<Position> {
        let text = std::fs::read(self.checkpoint.as_ref()?).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes the position down. Where that fails, records are delivered again after a restart, which they bear.
    fn remember(&self, position: &Position) {
        let Some(path) = &self.checkpoint else { return };
        let written = serde_json::to_vec(position)
            .map_err(std::io::Error::from)
            .and_then(|text| crate::directory::write_whole(path, &text));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "the stream's position could not be written down");
        }
    }
}

/// What one read of the stream gave.
struct Read {
    records: Vec<EventRecord>,
    /// How many there are.
    count: usize,
    /// The last one's sequence number.
    last: Option<String>,
    /// The iterator for the next read.
    next: String,
}

/// Parts `records` so that those of one partition key stay together and in order; the parts may be delivered at the
/// same time, so that a record that fails does not hold up all others.
fn lanes(records: Vec<EventRecord>) -> Vec<Vec<EventRecord>> {
    let mut lanes: BTreeMap<u64, Vec<EventRecord>> = BTreeMap::new();
    for record in records {
        let mut hasher = DefaultHasher::new();
        partition_key(&record).hash(&mut hasher);
        lanes.entry(hasher.finish() % LANES).or_default().push(record);
    }
    lanes.into_values().collect()
}

/// The partition key of the item that a record is about.
fn partition_key(record: &EventRecord) -> Option<String> {
    let keys = serde_json::to_value(&record.change.keys).ok()?;
    keys.pointer("/pk/S")?.as_str().map(str::to_owned)
}

/// The place in `batch` of the first record that `answer` names as failed; the batch's length where it names none.
/// Those after it are delivered again too, as Lambda does with a stream.
fn first_failure(batch: &[EventRecord], answer: &Value) -> usize {
    let Some(failures) = answer.get("batchItemFailures").and_then(Value::as_array) else {
        return batch.len();
    };
    failures
        .iter()
        .map(|failure| {
            let named = failure.get("itemIdentifier").and_then(Value::as_str);
            // A failure that names no record of the batch fails the whole batch.
            batch
                .iter()
                .position(|record| named.is_some() && record.change.sequence_number.as_deref() == named)
                .unwrap_or(0)
        })
        .min()
        .unwrap_or(batch.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use dynoxide::actions::{create_table::CreateTableRequest, put_item::PutItemRequest};
    use serde_json::json;

    use super::*;

    type Seen = Arc<Mutex<Vec<Vec<String>>>>;

    fn database(path: Option<&std::path::Path>) -> dynoxide::Database {
        let database = match path {
            Some(path) => dynoxide::Database::new(path.to_str().unwrap()).unwrap(),
            None => dynoxide::Database::memory().unwrap(),
        };
        let table: CreateTableRequest = serde_json::from_value(json!({
            "TableName": "things", "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"},
                                     {"AttributeName": "sk", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        }))
        .unwrap();
        let _ = database.create_table(table);
        database
    }

    fn put(database: &dynoxide::Database, id: &str) {
        let item = json!({"pk": {"S": "one"}, "sk": {"S": id}});
        let request: PutItemRequest =
            serde_json::from_value(json!({"TableName": "things", "Item": item})).unwrap();
        database.put_item(request).unwrap();
    }

    fn ids(records: &[EventRecord]) -> Vec<String> {
        records.iter().map(sort_key).collect()
    }

    fn sort_key(record: &EventRecord) -> String {
        let keys = serde_json::to_value(&record.change.keys).unwrap();
        keys["sk"]["S"].as_str().unwrap().to_owned()
    }

    /// A pump whose function fails for every batch that holds a record that begins with `bad`.
    fn pump(database: &dynoxide::Database, checkpoint: Option<PathBuf>) -> (Pump, Seen, Seen) {
        let (seen, dead) = (Seen::default(), Seen::default());
        let (delivered, buried) = (Arc::clone(&seen), Arc::clone(&dead));
        let pump = Pump {
            database: database.clone(),
            table: "things".to_owned(),
            written: Arc::new(Notify::new()),
            checkpoint,
            filter: |record| record.event_name == "INSERT",
            consumer: Box::new(move |event| {
                let ids = ids(&event.records);
                let bad = ids.iter().any(|id| id.starts_with("bad"));
                delivered.lock().unwrap().push(ids);
                Box::pin(async move {
                    if bad {
                        Err("broken".to_owned())
                    } else {
                        Ok(Value::Null)
                    }
                })
            }),
            dead_letters: Box::new(move |record, reason| {
                buried.lock().unwrap().push(vec![sort_key(&record), reason]);
                Box::pin(async {})
            }),
            clock: Clock::system(),
        };
        (pump, seen, dead)
    }

    /// Waits until `done` holds.
    async fn until(done: impl Fn() -> bool) {
        for _ in 0..500 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not happen within 5 seconds");
    }

    #[tokio::test]
    async fn records_are_delivered_in_order_and_once_when_the_front_tells_of_a_write() {
        let database = database(None);
        let (pump, seen, _) = pump(&database, None);
        let written = Arc::clone(&pump.written);
        let running = tokio::spawn(pump.run());
        for id in ["a", "b", "c"] {
            put(&database, id);
            written.notify_one();
        }
        until(|| seen.lock().unwrap().concat().len() == 3).await;
        assert_eq!(seen.lock().unwrap().concat(), ["a", "b", "c"]);
        running.abort();
    }

    #[tokio::test]
    async fn a_failing_batch_is_bisected_and_the_record_that_fails_becomes_a_dead_letter() {
        let database = database(None);
        for id in ["a", "b", "bad", "c"] {
            put(&database, id);
        }
        let (pump, seen, dead) = pump(&database, None);
        let running = tokio::spawn(pump.run());
        until(|| seen.lock().unwrap().last().is_some_and(|batch| batch == &["c"])).await;
        assert_eq!(*dead.lock().unwrap(), [["bad", "broken"]]);
        let alone = seen
            .lock()
            .unwrap()
            .iter()
            .filter(|batch| *batch == &["bad"])
            .count();
        assert_eq!(alone, MAX_TRIES as usize);
        running.abort();
    }

    #[tokio::test]
    async fn the_pump_goes_on_where_it_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let checkpoint = directory.path().join("stream.json");
        let database = database(Some(&directory.path().join("table.sqlite")));
        put(&database, "a");
        let (first, seen, _) = pump(&database, Some(checkpoint.clone()));
        let running = tokio::spawn(first.run());
        until(|| checkpoint.exists()).await;
        running.abort();
        assert_eq!(seen.lock().unwrap().concat(), ["a"]);
        put(&database, "b");
        let (second, seen, _) = pump(&database, Some(checkpoint));
        let running = tokio::spawn(second.run());
        until(|| !seen.lock().unwrap().is_empty()).await;
        assert_eq!(seen.lock().unwrap().concat(), ["b"]);
        running.abort();
    }

    #[test]
    fn records_of_one_partition_stay_together_and_in_order() {
        let record = |partition: usize, number: usize| -> EventRecord {
            serde_json::from_value(json!({
                "awsRegion": "local", "eventID": number.to_string(), "eventName": "INSERT",
                "dynamodb": {"Keys": {"pk": {"S": partition.to_string()}}, "SizeBytes": 1},
            }))
            .unwrap()
        };
        let lanes = lanes((0..60).map(|number| record(number % 12, number)).collect());
        assert!((2..=4).contains(&lanes.len()));
        for partition in 0..12 {
            let of_it = |lane: &Vec<EventRecord>| -> Vec<String> {
                let own = lane
                    .iter()
                    .filter(|r| partition_key(r) == Some(partition.to_string()));
                own.map(|record| record.event_id.clone()).collect()
            };
            let holding: Vec<_> = lanes.iter().map(of_it).filter(|ids| !ids.is_empty()).collect();
            let expected: Vec<_> = (0..5).map(|round| (partition + 12 * round).to_string()).collect();
            assert_eq!(holding, [expected]);
        }
    }

    #[test]
    fn the_first_record_that_the_function_names_is_where_it_goes_on() {
        let record = |number: &str| -> EventRecord {
            serde_json::from_value(json!({
                "awsRegion": "local", "eventID": number, "eventName": "INSERT",
                "dynamodb": {"SequenceNumber": number, "SizeBytes": 1},
            }))
            .unwrap()
        };
        let batch = [record("1"), record("2"), record("3")];
        let failed = |ids: &[&str]| {
            let failures: Vec<_> = ids.iter().map(|id| json!({"itemIdentifier": id})).collect();
            first_failure(&batch, &json!({"batchItemFailures": failures}))
        };
        assert_eq!(failed(&[]), 3);
        assert_eq!(failed(&["3", "2"]), 1);
        assert_eq!(failed(&["9"]), 0);
        assert_eq!(first_failure(&batch, &Value::Null), 3);
    }
}
