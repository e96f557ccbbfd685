//! The function `connection-sync` under the Lambda runtime.

use std::process::ExitCode;

use berth::app::{Needs, run_http};

fn main() -> ExitCode {
    run_http(
        "connection-sync",
        Needs::CredentialsAndDataKeys,
        connection_sync::handle,
    )
}
