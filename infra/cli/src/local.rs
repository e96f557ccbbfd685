//! `berth local`: the local stack, until Ctrl-C.

use std::io::Write;
use std::time::Duration;

use berth::config::{Counts, Environment, LogLevel, Policy};
use berth::telemetry::logs;
use berth_local::{Data, Options, Settings, SnapTrade, Stack, StartError};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::exit::Exit;
use crate::{Global, tour};

/// The ports of a stack that is not told others.
const API_PORT: u16 = 9000;
const SNAPTRADE_PORT: u16 = 9001;
const ACCESS_PORT: u16 = 9002;
const DYNAMODB_PORT: u16 = 9003;
const MAIL_PORT: u16 = 9004;

/// Options of `berth local`. Port 0 picks a free port.
#[derive(Debug, Args)]
pub(crate) struct LocalArgs {
    /// The API's port [default: 9000, a free one for the tour]
    #[arg(long)]
    port: Option<u16>,
    /// The SnapTrade sandbox's port [default: 9001, a free one for the tour]
    #[arg(long)]
    snaptrade_port: Option<u16>,
    /// DynamoDB's port [default: 9003, a free one for the tour]
    #[arg(long)]
    dynamodb_port: Option<u16>,
    /// The port of the access API and WordPress sandboxes [default: 9002, a free one for the tour]
    #[arg(long, value_name = "PORT")]
    access_port: Option<u16>,
    /// The mail server's port [default: 9004, a free one for the tour]
    #[arg(long, value_name = "PORT")]
    mail_port: Option<u16>,
    /// The access sync's configuration (`ACCESS_CONFIG_FILE`) [default: a sample that fits the sandboxes]
    #[arg(long, value_name = "FILE", conflicts_with = "tour")]
    access_config: Option<std::path::PathBuf>,
    /// Keep the data in memory, not in .berth/
    #[arg(long, conflicts_with = "reset")]
    memory: bool,
    /// Empty the data in .berth/ and exit
    #[arg(long)]
    reset: bool,
    /// How many users or connections there may be (`MAX_CONNECTIONS`)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: Option<u32>,
    /// What the limit counts (`LIMIT_COUNTS`)
    #[arg(long, value_parser = counts())]
    counts: Option<Counts>,
    /// Who gives way when the limit is reached (`EVICTION_POLICY`)
    #[arg(long, value_parser = policy())]
    policy: Option<Policy>,
    /// Which world to work in (`SNAPTRADE_ENVIRONMENT`)
    #[arg(long, value_parser = environment())]
    environment: Option<Environment>,
    /// An origin whose pages may call, in place of `ALLOWED_ORIGINS`; may be given several times
    #[arg(long = "origin", value_name = "ORIGIN")]
    origins: Vec<String>,
    /// Fire no schedule on its own
    #[arg(long)]
    no_schedules: bool,
    /// Start with the clock so many seconds ahead, as it was moved before a restart
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        hide_default_value = true,
        conflicts_with = "tour"
    )]
    clock_ahead: u32,
    /// Talk to the sandbox, or to the real SnapTrade with the credentials in the environment or in .env
    #[arg(long, default_value = "sandbox", value_parser = snaptrade())]
    snaptrade: SnapTrade,
    /// Walk through the main journey on a stack in memory, print each step, and exit: 0 when all of it is as it should be
    #[arg(long, conflicts_with = "reset")]
    tour: bool,
}

fn counts() -> impl TypedValueParser<Value = Counts> {
    PossibleValuesParser::new(["users", "connections"]).map(|text| match text.as_str() {
        "connections" => Counts::Connections,
        _ => Counts::Users,
    })
}

fn policy() -> impl TypedValueParser<Value = Policy> {
    PossibleValuesParser::new(["oldest", "least-recently-active", "broken-first", "none"]).map(|text| {
        match text.as_str() {
            "least-recently-active" => Policy::LeastRecentlyActive,
            "broken-first" => Policy::BrokenFirst,
            "none" => Policy::None,
            _ => Policy::Oldest,
        }
    })
}

fn environment() -> impl TypedValueParser<Value = Environment> {
    PossibleValuesParser::new(["sandbox", "production"]).map(|text| match text.as_str() {
        "production" => Environment::Production,
        _ => Environment::Sandbox,
    })
}

fn snaptrade() -> impl TypedValueParser<Value = SnapTrade> {
    PossibleValuesParser::new(["sandbox", "live"]).map(|text| match text.as_str() {
        "live" => SnapTrade::Live,
        _ => SnapTrade::Sandbox,
    })
}

/// Runs the stack until it is told to stop, or does what the options ask for instead.
pub(crate) async fn run(global: &Global, args: &LocalArgs) -> Exit {
    let outcome = if args.reset {
        berth_local::empty_data(&global.data_directory()).map(|()| Exit::Success)
    } else {
        serve(global, args).await
    };
    outcome.unwrap_or_else(|error| Exit::failed(&error.to_string()))
}

async fn serve(global: &Global, args: &LocalArgs) -> Result<Exit, StartError> {
    if let Some(reason) = args.tour.then(|| refusal_of_tour(args)).flatten() {
        return Ok(Exit::refused(reason));
    }
    let settings = Settings::read(&global.environment_file())?;
    // A tour's own words are not to drown in the log.
    let level = if args.tour {
        LogLevel::Error
    } else {
        log_level(&settings)
    };
    logs::init_text(level);
    // Listened for before anything starts, so that a stop that comes early is not lost.
    let stop = stop_signal();
    let mut stop = std::pin::pin!(stop);
    let options = if args.tour {
        tour_options(args)
    } else {
        options(global, args, settings)
    };
    let stack = tokio::select! {
        started = Stack::start(options) => started?,
        () = &mut stop => return Ok(Exit::Success),
    };
    let exit = if args.tour {
        tokio::select! {
            exit = tour::run(&stack, global.json) => exit,
            () = &mut stop => {
                eprintln!("berth: the tour was stopped before its end");
                Exit::Success
            }
        }
    } else {
        announce(&stack);
        stop.await;
        Exit::Success
    };
    tokio::select! {
        () = stack.shutdown() => {}
        // Who asks twice does not want to wait for what still runs.
        () = stop_signal() => {}
    }
    Ok(exit)
}

/// Why there is no tour with these options.
fn refusal_of_tour(args: &LocalArgs) -> Option<&'static str> {
    if args.snaptrade == SnapTrade::Live {
        return Some(
            "the tour registers and deletes users, so it runs on the sandbox only: leave out --snaptrade live",
        );
    }
    if args.policy.is_some_and(|policy| policy != Policy::Oldest) {
        return Some("the tour shows how the oldest user gives way: leave out --policy");
    }
    if args.counts == Some(Counts::Connections) {
        return Some("the tour shows a limit on users: leave out --counts");
    }
    if args.limit.is_some_and(|limit| limit > tour::MOST) {
        return Some("the tour has names for a --limit of up to 20");
    }
    None
}

/// The stack of a tour: in memory and on free ports, so that it runs beside any other and leaves nothing behind, and
/// with the settings that the journey needs, whatever this machine's are.
fn tour_options(args: &LocalArgs) -> Options {
    let origins = args.origins.iter().cloned().chain([tour::ORIGIN.to_owned()]);
    Options {
        port: args.port.unwrap_or(0),
        snaptrade_port: args.snaptrade_port.unwrap_or(0),
        dynamodb_port: args.dynamodb_port.unwrap_or(0),
        access_port: args.access_port.unwrap_or(0),
        mail_port: args.mail_port.unwrap_or(0),
        limit: Some(args.limit.unwrap_or(tour::LIMIT)),
        environment: args.environment,
        origins: origins.collect(),
        ..Options::default()
    }
}

fn options(global: &Global, args: &LocalArgs, settings: Settings) -> Options {
    let directory = global.data_directory();
    Options {
        port: args.port.unwrap_or(API_PORT),
        snaptrade_port: args.snaptrade_port.unwrap_or(SNAPTRADE_PORT),
        dynamodb_port: args.dynamodb_port.unwrap_or(DYNAMODB_PORT),
        access_port: args.access_port.unwrap_or(ACCESS_PORT),
        mail_port: args.mail_port.unwrap_or(MAIL_PORT),
        access_config: args.access_config.clone(),
        data: if args.memory {
            Data::Memory {
                announce: Some(directory),
            }
        } else {
            Data::Directory(directory)
        },
        settings,
        limit: args.limit,
        counts: args.counts,
        policy: args.policy,
        environment: args.environment,
        origins: args.origins.clone(),
        schedules: !args.no_schedules,
        snaptrade: args.snaptrade,
        clock_ahead: Duration::from_secs(args.clock_ahead.into()),
        ..Options::default()
    }
}

/// How much is logged where `--verbose` does not say it: what `LOG_LEVEL` says. A level that does not exist is
/// reported when the settings are read as a whole.
fn log_level(settings: &Settings) -> LogLevel {
    settings
        .get("LOG_LEVEL")
        .and_then(LogLevel::parse)
        .unwrap_or_default()
}

/// Says where the stack answers: one line of JSON, then the line that others wait for.
fn announce(stack: &Stack) {
    let urls = serde_json::to_string(stack.urls()).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    // A reader that has gone away is no reason to stop.
    let _ = writeln!(out, "{urls}\nready {}", stack.urls().api);
    let _ = out.flush();
}

/// Waits for Ctrl-C or a request to terminate.
pub(crate) async fn stop_signal() {
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    };
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
