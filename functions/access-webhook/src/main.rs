//! The function `access-webhook` under the Lambda runtime.

use std::process::ExitCode;

use berth::app::{Needs, run_http};

fn main() -> ExitCode {
    run_http("access-webhook", Needs::Access, access_webhook::handle)
}
