//! The function `refresh` under the Lambda runtime.

use std::process::ExitCode;

use berth::app::{Needs, run_http};

fn main() -> ExitCode {
    run_http("refresh", Needs::CredentialsAndDataKeys, refresh::handle)
}
