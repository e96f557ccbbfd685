//! What a stack is started with, and why it may not start.

use std::path::PathBuf;
use std::time::Duration;

use berth::config::{ConfigErrors, Counts, Environment, Policy};

use crate::Settings;

/// How long an invocation may run, as in the deployment.
const TIME_LIMIT: Duration = Duration::from_secs(25);

/// What a stack is started with. The default is a stack for a test: free ports, in memory, no settings but the
/// defaults, no schedules.
#[derive(Debug, Clone)]
pub struct Options {
    /// The API's port; 0 picks a free one.
    pub port: u16,
    /// The SnapTrade sandbox's port; 0 picks a free one.
    pub snaptrade_port: u16,
    /// DynamoDB's port; 0 picks a free one.
    pub dynamodb_port: u16,
    /// The port of the access API and WordPress sandboxes; 0 picks a free one.
    pub access_port: u16,
    /// The mail server's port; 0 picks a free one.
    pub mail_port: u16,
    /// Where the data is kept.
    pub data: Data,
    /// The settings of the machine.
    pub settings: Settings,
    /// In place of the setting `MAX_CONNECTIONS`.
    pub limit: Option<u32>,
    /// In place of the setting `LIMIT_COUNTS`.
    pub counts: Option<Counts>,
    /// In place of the setting `EVICTION_POLICY`.
    pub policy: Option<Policy>,
    /// In place of the setting `SNAPTRADE_ENVIRONMENT`.
    pub environment: Option<Environment>,
    /// In place of the setting `ALLOWED_ORIGINS`, where there is one.
    pub origins: Vec<String>,
    /// Whether schedules fire on their own; by name they can be fired either way.
    pub schedules: bool,
    /// Which SnapTrade is talked to.
    pub snaptrade: SnapTrade,
    /// The file with the access sync's configuration, in place of the setting `ACCESS_CONFIG_FILE`; where neither names
    /// one, a sample that fits the sandboxes is used.
    pub access_config: Option<PathBuf>,
    /// How long one invocation of a function may run.
    pub time_limit: Duration,
    /// How far the clock is ahead of the machine's at the start. A stack whose clock was moved and that is started again
    /// would otherwise find records from a time to come.
    pub clock_ahead: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            snaptrade_port: 0,
            dynamodb_port: 0,
            access_port: 0,
            mail_port: 0,
            data: Data::Memory { announce: None },
            settings: Settings::default(),
            limit: None,
            counts: None,
            policy: None,
            environment: None,
            origins: Vec::new(),
            schedules: false,
            snaptrade: SnapTrade::Sandbox,
            access_config: None,
            time_limit: TIME_LIMIT,
            clock_ahead: Duration::ZERO,
        }
    }
}

/// Where a stack keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// In this directory, which is created where it is missing. The stack also says there where it answers.
    Directory(PathBuf),
    /// In memory, gone with the stack.
    Memory {
        /// The directory in which the stack says where it answers, unless another one has said so; nowhere if `None`.
        announce: Option<PathBuf>,
    },
}

/// Which SnapTrade a stack talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapTrade {
    /// The sandbox, which is part of the stack.
    Sandbox,
    /// The real one, with the credentials that the settings hold.
    Live,
}

/// Why a stack did not start. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken.
    #[error(
        "port {port} is in use: stop what listens there, or choose another port with {option} (0 picks a free one)"
    )]
    PortInUse {
        /// The port.
        port: u16,
        /// The option that chooses it.
        option: &'static str,
    },
    /// A port cannot be listened on for another reason.
    #[error(
        "port {port} cannot be listened on ({reason}): choose another port with {option} (0 picks a free one)"
    )]
    PortRefused {
        /// The port.
        port: u16,
        /// The option that chooses it.
        option: &'static str,
        /// What the operating system says.
        reason: String,
    },
    /// Another stack works on the same data.
    #[error(
        "another stack{} works on the data in {}: stop it, or start this one with --memory",
        at(.api.as_deref()),
        .directory.display()
    )]
    AlreadyRunning {
        /// The data directory.
        directory: PathBuf,
        /// Where the other stack's API is, if it says so.
        api: Option<String>,
    },
    /// The data were made with other credentials: whoever is registered there is unknown here, and the sync would have
    /// to take that for the truth.
    #[error(
        "the data in {} belong to SnapTrade's client {kept}, and this stack is {given}: start it with that client's credentials (the sandbox's own is SANDBOX-CLIENT, without --snaptrade live), from another folder, or with --memory",
        .directory.display()
    )]
    OtherClient {
        /// The data directory.
        directory: PathBuf,
        /// The client id that the data were made with.
        kept: String,
        /// The client id of this stack.
        given: String,
    },
    /// The data directory cannot be used.
    #[error(
        "the store in {} cannot be opened ({reason}): make it readable and writable, empty it with `berth local --reset`, or start with --memory",
        .path.display()
    )]
    Store {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file with settings is malformed.
    #[error("the settings in {} cannot be used: {detail}; correct or remove it", .file.display())]
    EnvironmentFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, without its content.
        detail: String,
    },
    /// A setting has a value that it cannot have.
    #[error("{0} Correct them in the environment, in .env or on the command line.")]
    Settings(#[from] ConfigErrors),
    /// The access sync's configuration cannot be used.
    #[error("{detail} Correct {}, or start without --access-config and ACCESS_CONFIG_FILE.", .file.display())]
    AccessConfig {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, without its content.
        detail: String,
    },
    /// The real SnapTrade was asked for without credentials.
    #[error(
        "the real SnapTrade needs credentials: set SNAPTRADE_CLIENT_ID and SNAPTRADE_CONSUMER_KEY in the environment or in .env, or leave out --snaptrade live"
    )]
    CredentialsMissing,
    /// Something that should always work did not.
    #[error("the stack could not start ({0}): this should not happen, so please report it with the log")]
    Internal(String),
}

/// ` at <url>`, where there is one.
fn at(api: Option<&str>) -> String {
    api.map(|api| format!(" at {api}")).unwrap_or_default()
}
