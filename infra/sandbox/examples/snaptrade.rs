//! Serves the SnapTrade sandbox alone, in memory, until Ctrl-C:
//! `cargo run -p berth-sandbox --example snaptrade -- [PORT]`. Its base URL is the first line on standard output.

use std::error::Error;
use std::io::Write as _;

use berth_sandbox::snaptrade::{Options, Sandbox};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).map_or(Ok(0), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let sandbox = Sandbox::start(listener, Options::default()).await?;
    writeln!(std::io::stdout(), "{}", sandbox.base_url())?;
    tokio::signal::ctrl_c().await?;
    sandbox.shutdown().await;
    Ok(())
}
