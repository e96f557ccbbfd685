//! The function `connection-url` under the Lambda runtime.

use std::process::ExitCode;

use berth::app::{Needs, run_http};

fn main() -> ExitCode {
    run_http(
        "connection-url",
        Needs::CredentialsAndDataKeys,
        connection_url::handle,
    )
}
