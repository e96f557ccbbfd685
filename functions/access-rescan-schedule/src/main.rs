//! The daily full rescan of the shop, under the Lambda runtime.

use std::process::ExitCode;

use berth::access::report::Report;
use berth::access::schedule;
use berth::app::{App, Needs, run_event};
use lambda_runtime::Diagnostic;
use serde_json::Value;

fn main() -> ExitCode {
    run_event("access-rescan-schedule", Needs::Access, handle)
}

/// Reads all of the shop, whatever the schedule says in its event.
async fn handle(app: &App, _event: Value) -> Result<Option<Report>, Diagnostic> {
    schedule::rescan(app).await
}
