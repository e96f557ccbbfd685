//! The function `access-admin` under the Lambda runtime.

use std::process::ExitCode;

use berth::app::{Needs, run_http};

fn main() -> ExitCode {
    run_http("access-admin", Needs::Access, access_admin::handle)
}
