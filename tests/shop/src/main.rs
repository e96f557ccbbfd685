//! A shop played through: two years of its customers' purchases, renewals, trials, upgrades, refunds and wrong names on a
//! real `berth local`, while the shop, the access API and the mail server fail for days and the process is killed. At
//! the end, and now and then before it, the access API's dates have to equal an independent reckoning.
//!
//! Usage: `cargo build && cargo run -p shop -- play --seed 7`, and `cargo run -p shop -- large` for many rows at once.
//! Progress goes to standard error, the report to standard output. Exit code 1 says that something was found; the folder
//! with the data, the log and the report is kept then. `--only 17` plays one customer's story alone.
//!
//! The reckoning is in `reckoning.rs` and `holds.rs`. It is written from `facts/access.md`, calls nothing of Berth's
//! access sync, and knows only what can be seen from outside. From Berth's own record of delays (`record.rs`) it takes
//! the moments that only the sync can know, where a run was killed, and holds each against what was seen.

#![expect(
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod function;
mod holds;
mod journal;
mod large;
mod play;
mod reckoning;
mod record;
mod rows;
mod site;
mod story;
mod verdict;
mod weather;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// What is played.
#[derive(Debug, Parser)]
#[command(
    about = "Plays a shop on a local stack and holds everybody's access against an independent reckoning"
)]
struct Arguments {
    #[command(subcommand)]
    game: Game,
}

#[derive(Debug, Subcommand)]
enum Game {
    /// Months of a shop, day by day, with outages and kills
    Play(PlayArguments),
    /// A large shop's first sync, and the one after it that finds nothing new
    Large(LargeArguments),
}

/// What both have.
#[derive(Debug, Clone, Args)]
struct Common {
    /// The program `berth`; the one beside this program where none is given
    #[arg(long)]
    berth: Option<PathBuf>,
    /// How much the stack logs
    #[arg(long, default_value = "warn")]
    log_level: String,
}

/// How a story is played.
#[derive(Debug, Args)]
struct PlayArguments {
    #[command(flatten)]
    common: Common,
    /// What the story is drawn from; a random one where none is given
    #[arg(long)]
    seed: Option<u64>,
    /// How many customers the shop has
    #[arg(long, default_value_t = 2000)]
    customers: u32,
    /// How many months are played
    #[arg(long, default_value_t = 24)]
    months: i64,
    /// Only these customers of them, by their numbers
    #[arg(long, value_delimiter = ',')]
    only: Vec<u32>,
    /// In how many percent of the steps the process is killed
    #[arg(long, default_value_t = 5)]
    kills: u32,
    /// Let nothing fail
    #[arg(long)]
    calm: bool,
}

/// How a large shop is synced.
#[derive(Debug, Args)]
struct LargeArguments {
    #[command(flatten)]
    common: Common,
    /// How many rows the shop has
    #[arg(long, default_value_t = 100_000)]
    rows: u32,
    /// How many customers the rows are of
    #[arg(long, default_value_t = 20_000)]
    customers: u32,
    /// How many MiB more than for a tenth of the rows a function may take at most
    #[arg(long, default_value_t = 24)]
    most_growth_mib: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let folder = tempfile::Builder::new().prefix("berth-shop-").tempdir();
    let folder = folder.expect("there is a folder for temporary files").keep();
    let told = match &Arguments::parse().game {
        Game::Play(arguments) => play::play(arguments, &folder).await,
        Game::Large(arguments) => large::sync(arguments, &folder).await,
    };
    conclude(told, &folder)
}

/// Tells what was found, and keeps the folder where something was.
fn conclude(told: Result<Report, String>, folder: &Path) -> ExitCode {
    match told {
        Ok(report) => {
            println!("{}", report.words);
            for fault in &report.faults {
                println!("\nFOUND: {fault}");
            }
            if report.faults.is_empty() {
                let _ = std::fs::remove_dir_all(folder);
                return ExitCode::SUCCESS;
            }
            let all = report.faults.join("\n\n");
            let _ = std::fs::write(folder.join("found.txt"), format!("{}\n\n{all}\n", report.words));
            println!(
                "\n{} found; everything is in {}",
                report.faults.len(),
                folder.display()
            );
        }
        Err(error) => eprintln!(
            "It could not be played: {error}. What there is is in {}.",
            folder.display()
        ),
    }
    ExitCode::FAILURE
}

/// What came of it.
struct Report {
    /// What was done, in figures.
    words: String,
    /// What was not right.
    faults: Vec<String>,
}
