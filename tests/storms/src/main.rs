//! Storms: many requests at once on a real `berth local`, while its SnapTrade fails in every way it can and its process
//! is killed and started again. When the storm is over and the sync has run, SnapTrade, the table and the count of
//! places have to agree, no secret may be lost, nobody protected may have given way, and there have to have been exactly
//! as many evictions as were needed.
//!
//! Usage: `cargo build && cargo run -p storms -- users --seed 7`. Progress goes to standard error, the report to standard
//! output. Exit code 1 says that something was found; the folder with the data, the log and the requests is kept then.
//!
//! What is checked is seen from outside: answers as clients get them, the table and its stream through DynamoDB's own
//! API, and SnapTrade's state from the sandbox's file. The stream tells the whole history of the table in order, so every
//! single eviction is held against the places as they were at that moment.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod counted;
mod crowd;
mod dynamodb;
mod ending;
mod figures;
mod history;
mod links;
mod site;
mod slow_deletions;
mod storm;
mod weather;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// What kind of storm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Registrations, where users count.
    Users,
    /// Links to the portal and connections made through them, where connections count.
    Connections,
    /// Registrations at the limit, all at once, while SnapTrade takes long to delete somebody.
    SlowDeletions,
}

/// Where SnapTrade's sandbox runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Place {
    /// In a process of its own that nobody kills, as SnapTrade does: what it has received it goes on with.
    Beside,
    /// Within the stack: it is killed and started again with it.
    Within,
}

/// How a storm is raised.
#[derive(Debug, Parser)]
#[command(about = "Raises a storm on a local stack and checks what it leaves")]
struct Arguments {
    /// What kind of storm
    kind: Kind,
    /// What the storm is drawn from; a random one where none is given
    #[arg(long)]
    seed: Option<u64>,
    /// How many wishes there are in all
    #[arg(long, default_value_t = 1000)]
    wishes: u32,
    /// How many users have them
    #[arg(long, default_value_t = 200)]
    users: u32,
    /// How many are at it at the same time
    #[arg(long, default_value_t = 20)]
    at_once: u32,
    /// How many places there are
    #[arg(long, default_value_t = 5)]
    limit: u32,
    /// How often the process is killed
    #[arg(long, default_value_t = 5)]
    kills: u32,
    /// Which share of SnapTrade's calls fails, all ways together
    #[arg(long, default_value_t = 0.1)]
    share: f64,
    /// How long SnapTrade takes over a deletion where deletions are slow
    #[arg(long, default_value_t = 10)]
    deletion_seconds: u32,
    /// Where SnapTrade's sandbox runs
    #[arg(long, value_enum, default_value_t = Place::Beside)]
    sandbox: Place,
    /// Whether SnapTrade has no limit of its own, so that it would let too many in
    #[arg(long)]
    boundless: bool,
    /// The program `berth`; the one beside this program where none is given
    #[arg(long)]
    berth: Option<std::path::PathBuf>,
    /// How much the stack logs
    #[arg(long, default_value = "warn")]
    log_level: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("seed {seed}");
    match storm::rage(&arguments, seed).await {
        Ok(report) => {
            println!("{report}");
            if report.faults.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("the storm with the seed {seed} could not be raised: {error}");
            ExitCode::FAILURE
        }
    }
}
