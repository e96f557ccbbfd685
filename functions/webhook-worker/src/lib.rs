//! The function `webhook-worker`: works on the events that `webhook` has taken in, as the table's stream brings them.

use aws_lambda_events::dynamodb::{Event, EventRecord};
use aws_lambda_events::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use berth::app::App;
use berth::webhooks::{self, Applied};
use lambda_runtime::Diagnostic;

/// Works on the events among the stream's records. The records of those that have to be tried again are named in the
/// answer; Lambda then delivers the batch again from the first of them on, and those behind it that are done are passed
/// over.
///
/// # Errors
/// None: what fails is named in the answer or given up.
pub async fn handle(app: &App, batch: Event) -> Result<DynamoDbEventResponse, Diagnostic> {
    let mut events = Vec::new();
    let mut delivered = Vec::new();
    for record in batch.records.into_iter().filter(is_new) {
        let item = record.change.new_image.into();
        match webhooks::stored(&item) {
            Ok(Some((tenant, event))) => {
                delivered.push((record.change.sequence_number, event.webhook_id.clone()));
                events.push((tenant, event));
            }
            Ok(None) => {}
            // It will never be readable, so trying again would only hold up the events behind it.
            Err(error) => tracing::error!(%error, "a stored event cannot be read"),
        }
    }
    let mut response = DynamoDbEventResponse::default();
    if events.is_empty() {
        return Ok(response);
    }
    let results = webhooks::apply(app, &events).await;
    for (sequence_number, id) in delivered {
        if results.get(&id) == Some(&Applied::Again) {
            let mut failure = DynamoDbBatchItemFailure::default();
            failure.item_identifier = sequence_number;
            response.batch_item_failures.push(failure);
        }
    }
    Ok(response)
}

/// Whether the record tells of an item that was not there before. That an event was worked on is a change of its item
/// and comes along the stream, too.
fn is_new(record: &EventRecord) -> bool {
    record.event_name == "INSERT"
}
