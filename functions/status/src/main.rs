//! The function `status` under the Lambda runtime.

use std::process::ExitCode;

use berth::app::{Needs, run_http};

fn main() -> ExitCode {
    run_http("status", Needs::Everything, status::handle)
}
