//! The function `webhook-admin` under the Lambda runtime.

use std::process::ExitCode;

use berth::app::{Needs, run_http};

fn main() -> ExitCode {
    run_http(
        "webhook-admin",
        Needs::CredentialsAndDataKeys,
        webhook_admin::handle,
    )
}
