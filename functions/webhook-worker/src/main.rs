//! The function `webhook-worker` under the Lambda runtime.

use std::process::ExitCode;

use berth::app::{Needs, run_event};

fn main() -> ExitCode {
    run_event(
        "webhook-worker",
        Needs::CredentialsAndDataKeys,
        webhook_worker::handle,
    )
}
