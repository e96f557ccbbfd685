//! The sync of the limit on a schedule, under the Lambda runtime.

use std::process::ExitCode;

use berth::app::{App, Needs, run_event};
use berth::connections::sync::Synced;
use lambda_runtime::Diagnostic;
use serde_json::Value;

fn main() -> ExitCode {
    run_event("connection-sync-schedule", Needs::CredentialsAndDataKeys, handle)
}

/// Runs the sync, whatever the schedule says in its event.
async fn handle(app: &App, _event: Value) -> Result<Option<Synced>, Diagnostic> {
    connection_sync::run(app).await.map_err(|failure| Diagnostic {
        error_type: "Retryable".to_owned(),
        error_message: failure.to_string(),
    })
}
