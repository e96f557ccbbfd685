//! The function `handle-limit` under the Lambda runtime.

use std::process::ExitCode;

use berth::app::{Needs, run_http};

fn main() -> ExitCode {
    run_http(
        "handle-limit",
        Needs::CredentialsAndDataKeys,
        handle_limit::handle,
    )
}
