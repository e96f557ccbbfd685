//! `berth access`: the access sync, run and looked after by an operator.
//!
//! Most commands do what a route does, by calling it. `batch` and `grant-test` talk to the access API themselves, and
//! `check-config` to nobody. This file says which commands there are and how they end; each subject has a file of its
//! own.

mod batch;
mod configuration;
mod doctor;
mod grant_test;
mod master_data;
mod open;
mod plans;
mod runs;
mod scheduler;

use std::path::PathBuf;

use berth::access::configuration::Mail;
use clap::{Args, Subcommand, ValueEnum};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::Global;
use crate::command::{Refusal, confirm, on_target, print, show};
use crate::exit::Exit;
use crate::target::Target;

/// The commands of the group.
#[expect(
    clippy::doc_markdown,
    reason = "these texts are the help, where code marks would be seen as such"
)]
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum AccessCommand {
    /// Read the shop and give, prolong or take access, until nothing remains
    ///
    /// Exit code 4 when something waits for a person, or not all could be done now.
    Sync {
        /// Only say what would be done; nothing is written, sent or remembered
        #[arg(long)]
        dry_run: bool,
    },
    /// Show what would be done now, what waits for approval included, and keep that as a plan
    Plan,
    /// Do exactly what a plan says; refused when something has changed since
    ///
    /// A plan may take access away, so it asks first. Without a terminal it refuses (exit code 2) unless --yes is given.
    Approve {
        /// The plan's id, as `plan` shows it
        #[arg(value_name = "PLAN")]
        plan: String,
    },
    /// List what a person has to look at, or decide about one of it
    Reviews {
        #[command(subcommand)]
        decision: Option<ReviewCommand>,
    },
    /// List the transactions that were given up
    DeadLetters,
    /// Let a transaction that was given up be tried again by the next run
    Replay {
        /// The dead letter's id, or its transaction's
        id: String,
    },
    /// Take a transaction back, and the access that it gave
    ///
    /// It asks first; without a terminal it refuses (exit code 2) unless --yes is given. After a chargeback whatever the
    /// customer buys is reviewed.
    Revoke {
        /// The transaction
        #[arg(long, value_name = "ID")]
        txn: String,
        /// Why
        #[arg(long)]
        reason: RevokeReason,
    },
    /// Read all transactions of a product again, after its scripts or its length were configured anew
    Resync {
        /// The product
        #[arg(long, value_name = "ID")]
        product: String,
    },
    /// Give back what was paid for and somebody took at TradingView; nothing is shortened
    Repair,
    /// Send one grant by hand, with the configured key, and look whether it took effect
    ///
    /// Without --confirm nothing is sent: what would be is shown (exit code 2).
    GrantTest(grant_test::GrantTestArgs),
    /// Give access by a list of transactions and a file of who has it, without the ledger
    ///
    /// Names that TradingView does not know are left out and named (exit code 4). The file is written after each batch,
    /// and where it stopped stands in a file beside it.
    Batch(batch::BatchArgs),
    /// Write a script's master data into a file, in the shape of the program that this replaces
    Export {
        /// The script
        script: String,
        /// The file; - writes to standard output [default: <paths.master_data>/<script>.json]
        file: Option<PathBuf>,
    },
    /// Take over a script's master data from a file of the program that this replaces, or that `export` wrote
    ///
    /// What people have by it counts as what they had before; names that a customer has access under already are left
    /// as they are and named (exit code 4).
    Import {
        /// The file
        file: PathBuf,
        /// The script, where neither the file nor its name says it
        #[arg(long, value_name = "ID")]
        script: Option<String>,
    },
    /// Check the configuration, and name all that is wrong with it
    CheckConfig {
        #[command(flatten)]
        named: ConfigurationFile,
    },
    /// Look at the shop and the access API, and say whether they are as the configuration takes them to be
    ///
    /// It only reads. Exit code 1 when something does not work, 4 when something should be looked at.
    Doctor {
        #[command(flatten)]
        named: ConfigurationFile,
    },
    /// Run a sync now and after each configured interval, until Ctrl-C
    ///
    /// The interval and whether the runs are dry are scheduler.interval_minutes and scheduler.dry_run. Each run is a line
    /// on standard output, JSON with --json, and a line of JSON in <paths.logs>/sync.log.
    Scheduler,
}

/// What is decided about a review.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ReviewCommand {
    /// List all of them
    List,
    /// Let it go on as it is; a reversal that waits is approved
    Retry {
        /// The review
        id: String,
    },
    /// Let it go on under another name
    Correct {
        /// The review
        id: String,
        /// The customer's name at `TradingView`
        #[arg(value_name = "NAME")]
        username: String,
    },
    /// Let nothing come of it; a reversal that waits is never made
    Dismiss {
        /// The review
        id: String,
    },
}

/// Why a transaction is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RevokeReason {
    /// It was paid back
    Refund,
    /// The bank took the money back
    Chargeback,
    /// An operator's decision
    Operator,
}

impl RevokeReason {
    /// The word that the route has for it.
    fn word(self) -> &'static str {
        match self {
            Self::Refund => "refund",
            Self::Chargeback => "chargeback",
            Self::Operator => "operator",
        }
    }
}

/// Which configuration is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigurationFile {
    /// The access sync's configuration [default: the running stack's]
    #[arg(long = "access-config", value_name = "FILE", env = "ACCESS_CONFIG_FILE")]
    file: Option<PathBuf>,
}

impl ConfigurationFile {
    /// What holds where no option names another.
    pub(crate) fn from_environment() -> Self {
        Self {
            file: std::env::var_os("ACCESS_CONFIG_FILE").map(PathBuf::from),
        }
    }
}

/// The mail server that a target's access sync writes by; `None` where it writes to nobody.
///
/// # Errors
/// Says why its configuration cannot be read here.
pub(crate) async fn mail_of(target: &Target) -> Result<Option<Mail>, String> {
    match configuration::of_target(target, &ConfigurationFile { file: None }).await {
        Ok((configuration, _)) => Ok(configuration.mail),
        Err(Refusal::Failed(reason)) => Err(reason),
        Err(_) => Err("the stack does not tell".to_owned()),
    }
}

/// Runs one of the commands.
pub(crate) async fn run(global: &Global, command: &AccessCommand) -> Exit {
    match command {
        AccessCommand::CheckConfig { named } => configuration::check(global, named).await,
        AccessCommand::Batch(args) => batch::run(global, args).await,
        AccessCommand::GrantTest(args) => grant_test::run(global, args).await,
        AccessCommand::Doctor { named } => doctor::run(global, named).await,
        AccessCommand::Scheduler => scheduler::run(global).await,
        _ => {
            let stopped =
                "stopped; a run that was under way ends by itself, and the next `berth access sync` goes on";
            on_target(global, stopped, async |target| {
                perform(global, target, command).await
            })
            .await
        }
    }
}

async fn perform(global: &Global, target: &Target, command: &AccessCommand) -> Result<Exit, Refusal> {
    match command {
        AccessCommand::Sync { dry_run } => runs::sync(global, target, *dry_run).await,
        AccessCommand::Plan => plans::make(global, target).await,
        AccessCommand::Approve { plan } => plans::approve(global, target, plan).await,
        AccessCommand::Reviews {
            decision: None | Some(ReviewCommand::List),
        } => open::reviews(global, target).await,
        AccessCommand::Reviews {
            decision: Some(decision),
        } => open::decide(global, target, decision).await,
        AccessCommand::DeadLetters => open::dead_letters(global, target).await,
        AccessCommand::Replay { id } => open::replay(global, target, id).await,
        AccessCommand::Revoke { txn, reason } => runs::revoke(global, target, txn, *reason).await,
        AccessCommand::Resync { product } => runs::resync(global, target, product).await,
        AccessCommand::Repair => runs::repair(global, target).await,
        AccessCommand::Export { script, file } => {
            master_data::export(global, target, script, file.as_deref()).await
        }
        AccessCommand::Import { file, script } => {
            master_data::import(global, target, file, script.as_deref()).await
        }
        // What needs no target was done before one was looked for.
        AccessCommand::Batch(_)
        | AccessCommand::GrantTest(_)
        | AccessCommand::CheckConfig { .. }
        | AccessCommand::Doctor { .. }
        | AccessCommand::Scheduler => Ok(Exit::Success),
    }
}

/// One part of a path, whatever it holds.
fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
