//! Prints the OpenAPI document, which the function `status` holds as a file: `cargo run -p berth-openapi >
//! functions/status/src/openapi.json` renews that.

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", berth_openapi::text())
}
