//! The function `portfolio` under the Lambda runtime.

use std::process::ExitCode;

use berth::app::{Needs, run_http};

fn main() -> ExitCode {
    run_http("portfolio", Needs::CredentialsAndDataKeys, portfolio::handle)
}
