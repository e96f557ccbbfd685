//! Berth's command line.
//!
//! Each group of commands has a file of its own; this one only says which commands there are and turns their outcome
//! into an exit code.

mod access;
mod ask;
mod command;
mod connections;
mod deployed;
mod exit;
mod listing;
mod local;
mod menu;
mod progress;
mod target;
mod tour;
mod verify_setup;
mod webhooks;
mod whole_file;
mod whole_table;
mod words;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use berth::config::LogLevel;
use berth::telemetry::logs;
use clap::{Args, CommandFactory, Parser, Subcommand};

use exit::Exit;

/// The directory in which the local stack keeps its data.
const DATA_DIRECTORY: &str = ".berth";

/// The file that holds a developer's settings.
const ENVIRONMENT_FILE: &str = ".env";

/// Berth connects an application's users with SnapTrade and keeps their number within the limit.
#[derive(Debug, Parser)]
#[command(
    name = "berth",
    version,
    after_help = "Exit codes: 0 success, 1 failure, 2 wrong usage, 3 the limit is reached, 4 finished with items that need a person."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Print JSON, the same as the matching route of the API answers
    #[arg(long, global = true)]
    json: bool,
    /// Do not ask before something is deleted
    #[arg(long, visible_alias = "auto-confirm", global = true)]
    yes: bool,
    /// Act on this deployed CloudFormation stack instead of the local stack
    #[arg(long, value_name = "NAME", env = "BERTH_STACK", global = true)]
    stack: Option<String>,
    /// Log everything that happens, on standard error
    #[arg(long, short, global = true)]
    verbose: bool,
}

impl Global {
    /// The local stack's data directory.
    pub(crate) fn data_directory(&self) -> PathBuf {
        PathBuf::from(DATA_DIRECTORY)
    }

    /// The file with a developer's settings.
    pub(crate) fn environment_file(&self) -> PathBuf {
        PathBuf::from(ENVIRONMENT_FILE)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole of Berth on this machine, with sandboxes in place of the outside services
    Local(Box<local::LocalArgs>),
    /// See and manage who is connected, and the limit
    #[command(subcommand)]
    Connections(connections::ConnectionsCommand),
    /// Run and look after the access sync: who has paid in the shop gets access to the scripts
    #[command(subcommand)]
    Access(access::AccessCommand),
    /// See events of SnapTrade's that were given up, and work on them again
    #[command(subcommand)]
    Webhooks(webhooks::WebhooksCommand),
    /// Choose from the commands on connections; what `berth` alone opens in a terminal
    Menu,
    /// Check that everything is set up, one line a check, with how to mend what is not
    VerifySetup,
    /// Write every item of the table into a file
    ///
    /// What is encrypted in the table stays encrypted in the file: keep the data keys, too.
    Backup {
        /// The file; one that is there is replaced once the new one is whole
        file: PathBuf,
    },
    /// Make the table what it was when `berth backup` wrote a file
    ///
    /// What came since is deleted. A deployed stack has to be in maintenance. It asks first; without a terminal it
    /// refuses (exit code 2) unless --yes is given. It may be broken off and run again.
    Restore {
        /// The file
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Exit::failed(&format!("this machine has no threads left: {error}")).into(),
    };
    let exit = runtime.block_on(run(cli));
    // What still runs in the background, such as reading a terminal, must not hold up the end.
    runtime.shutdown_background();
    exit.into()
}

async fn run(cli: Cli) -> Exit {
    if cli.global.verbose {
        logs::init_text(LogLevel::Debug);
    }
    let Some(command) = cli.command else {
        return without_command(&cli.global).await;
    };
    match command {
        Command::Local(args) => local::run(&cli.global, &args).await,
        Command::Connections(command) => connections::run(&cli.global, &command).await,
        Command::Access(command) => access::run(&cli.global, &command).await,
        Command::Webhooks(command) => webhooks::run(&cli.global, &command).await,
        Command::Menu => menu::run(&cli.global).await,
        Command::VerifySetup => verify_setup::run(&cli.global).await,
        Command::Backup { file } => whole_table::backup(&cli.global, &file).await,
        Command::Restore { file } => whole_table::restore(&cli.global, &file).await,
    }
}

/// Opens the menu for a person. A script that forgot the command is shown what there is, and told by the exit code.
async fn without_command(global: &Global) -> Exit {
    if ask::somebody_there() && std::io::stdout().is_terminal() {
        return menu::run(global).await;
    }
    match Cli::command().print_help() {
        Ok(()) => Exit::Usage,
        Err(error) => Exit::failed(&format!("the help cannot be printed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_defined() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_names_that_scripts_use_are_understood() {
        for line in [
            "berth connections check-limit --json",
            "berth connections list-tracked",
            "berth connections list-users",
            "berth connections delete-oldest --auto-confirm",
            "berth connections auto-manage --yes",
            "berth connections ensure ada",
            "berth connections ensure --yes",
            "berth connections protect ada --json",
            "berth connections unprotect ada",
            "berth connections backup tracking.jsonl",
            "berth connections restore tracking.jsonl --yes",
            "berth connections import .snaptrade_user_timestamps.json",
            "berth connections export -",
            "berth menu",
            "berth connections add-user ada --created-at 1700000000",
            "berth connections sync",
            "berth verify-setup --stack production",
            "berth backup table.jsonl --stack production",
            "berth restore table.jsonl --yes",
            "berth local --port 0 --snaptrade-port 0 --dynamodb-port 0 --access-port 0 --mail-port 0 --access-config shop.json --memory --limit 2 --counts connections --policy none \
             --environment production --origin https://a.example.com --origin https://b.example.com --no-schedules",
            "berth local --snaptrade live --tour --verbose",
            "berth local --reset",
            "berth webhooks list --json",
            "berth webhooks replay w-1",
            "berth access sync --dry-run --json",
            "berth access plan",
            "berth access approve 0123456789abcdef --yes",
            "berth access reviews",
            "berth access reviews list --json",
            "berth access reviews retry r1",
            "berth access reviews correct r1 AdaLovelace",
            "berth access reviews dismiss r1",
            "berth access dead-letters",
            "berth access replay 1001",
            "berth access revoke --txn 1001 --reason chargeback --auto-confirm",
            "berth access resync --product 100",
            "berth access repair",
            "berth access export S1",
            "berth access import masterData/S1.json",
            "berth access check-config --access-config shop.json",
            "berth access scheduler --json",
            "berth access doctor --access-config shop.json --json",
            "berth access grant-test --confirm",
            "berth access grant-test --username Ada --product 100 --script S1 --transaction row.json --access-config shop.json",
            "berth access batch --transactions dump.json --csv access.csv",
            "berth access batch --transactions dump.json --csv access.csv --script S1 --batch-size 500 --max-batches 2 --dry-run",
        ] {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_ok(), "{line}");
        }
        for line in [
            "berth connections",
            "berth connections add-user",
            "berth connections protect",
            "berth connections backup",
            "berth connections import",
            "berth local --limit 0",
            "berth local --counts accounts",
            "berth local --port 70000",
            "berth local --reset --memory",
            "berth access",
            "berth webhooks replay",
            "berth access approve",
            "berth access reviews correct r1",
            "berth access revoke --txn 1001",
            "berth access revoke --txn 1001 --reason whim",
            "berth access resync",
            "berth access batch --csv access.csv",
            "berth access batch --transactions dump.json --csv access.csv --batch-size 0",
        ] {
            let error = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
