//! The access sync on a schedule, under the Lambda runtime.

use std::process::ExitCode;

use berth::access::report::Report;
use berth::app::{App, Needs, run_event};
use lambda_runtime::Diagnostic;
use serde_json::Value;

fn main() -> ExitCode {
    run_event("access-sync-schedule", Needs::Access, handle)
}

/// Runs the sync, whatever the schedule says in its event.
async fn handle(app: &App, _event: Value) -> Result<Option<Report>, Diagnostic> {
    access_sync::run(app).await
}
