//! The function `access-sync` under the Lambda runtime.

use std::process::ExitCode;

use berth::app::{Needs, run_http};

fn main() -> ExitCode {
    run_http("access-sync", Needs::Access, access_sync::handle)
}
