//! The refresh of all users on a schedule, under the Lambda runtime.

use std::process::ExitCode;

use berth::app::{App, Needs, run_event};
use berth::portfolio::schedule::ScheduleReport;
use lambda_runtime::Diagnostic;
use serde_json::Value;

fn main() -> ExitCode {
    run_event("refresh-schedule", Needs::CredentialsAndDataKeys, handle)
}

/// Refreshes those who are due, whatever the schedule says in its event.
async fn handle(app: &App, _event: Value) -> Result<ScheduleReport, Diagnostic> {
    refresh::run(app).await.map_err(|failure| Diagnostic {
        error_type: "Retryable".to_owned(),
        error_message: failure.to_string(),
    })
}
