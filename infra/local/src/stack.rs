//! The whole stack: what is started, in which order, and how it stops.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use berth::access::configuration::Configuration;
use berth::app::App;
use berth::clock::Clock;
use berth::config::Config;
use berth::secrets::DataKeys;
use berth::telemetry::metrics::Lines;
use berth_sandbox::access::Sandbox as AccessSandbox;
use berth_sandbox::snaptrade::Sandbox;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::access;
use crate::calls::CallLog;
use crate::control::{self, Control};
use crate::directory::{Announcement, Directory, DirectoryError, KEY_ID, Urls};
use crate::dynamodb::{DynamoDb, Secrets};
use crate::engine;
use crate::functions::{self, Apps};
use crate::gateway::{self, Gateway};
use crate::invocation::Invoker;
use crate::schedule::Schedules;
use crate::stream::Pump;
use crate::{Data, InvocationCalls, Options, SnapTrade, StartError};

/// How long running requests may take once the stack stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The credentials that the SnapTrade sandbox accepts.
const SANDBOX_CREDENTIALS: [(&str, &str); 2] = [
    ("SNAPTRADE_CLIENT_ID", "SANDBOX-CLIENT"),
    ("SNAPTRADE_CONSUMER_KEY", "sandbox-consumer-key"),
];

/// A running stack. Stop it with [`shutdown`](Self::shutdown); one that is dropped instead stops without waiting for
/// anything.
pub struct Stack {
    urls: Urls,
    clock: Clock,
    calls: Arc<CallLog>,
    apps: Apps,
    invoker: Invoker,
    dynamodb: DynamoDb,
    sandbox: Option<Sandbox>,
    access: AccessSandbox,
    access_configuration: Configuration,
    gateway: Server,
    /// What runs beside requests: the stream pump and the schedules.
    background: Background,
    announcement: Option<(Announcement, PathBuf)>,
    /// Keeps others out of the data directory.
    _directory: Option<Directory>,
}

impl Stack {
    /// Starts everything, and returns once all of it answers.
    ///
    /// # Errors
    /// [`StartError`] says in one sentence why it does not start and what to do. Nothing runs then.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let live = options.snaptrade == SnapTrade::Live;
        if live
            && SANDBOX_CREDENTIALS
                .iter()
                .any(|(name, _)| options.settings.get(name).is_none())
        {
            return Err(StartError::CredentialsMissing);
        }
        // The settings are looked at before anything is opened, so that a wrong one changes nothing.
        config(&options, &[])?;
        let api = listen(options.port, "--port").await?;
        let snaptrade = match options.snaptrade {
            SnapTrade::Sandbox => Some(listen(options.snaptrade_port, "--snaptrade-port").await?),
            SnapTrade::Live => None,
        };
        let table = listen(options.dynamodb_port, "--dynamodb-port").await?;
        let shop = listen(options.access_port, "--access-port").await?;
        let mail = listen(options.mail_port, "--mail-port").await?;
        let access_configuration = access::configuration(&options, &shop, &mail)?;
        let directory = open_directory(&options.data)?;
        if let Some(directory) = &directory {
            belongs_to(directory, &options)?;
        }
        let database = open_database(directory.as_ref())?;
        let data_keys = keys_of(directory.as_ref())?;

        let clock = Clock::system();
        clock.set_ahead_ms(i64::try_from(options.clock_ahead.as_millis()).unwrap_or_default());
        let secrets = secrets(live, &data_keys, &options, &shop, &mail)?;
        let dynamodb = DynamoDb::start(table.into_std().map_err(internal)?, database.clone(), secrets)
            .map_err(internal)?;
        let api_url = url(&api)?;
        let sandbox = match snaptrade {
            Some(listener) => Some(start_sandbox(listener, &clock, directory.as_ref(), &api_url).await?),
            None => None,
        };
        for warning in &access_configuration.warnings {
            tracing::warn!("in the access sync's configuration {warning}");
        }
        let access = access::start(shop, mail, &clock, directory.as_ref(), &access_configuration).await?;
        let sandbox_url = sandbox.as_ref().map(|sandbox| sandbox.base_url().to_owned());
        let mut overrides = vec![("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.url())];
        if let Some(url) = &sandbox_url {
            overrides.push(("SNAPTRADE_BASE_URL", url.clone()));
            overrides.extend(SANDBOX_CREDENTIALS.map(|(name, value)| (name, value.to_owned())));
        }
        let config = config(&options, &overrides)?;
        let urls = Urls {
            api: api_url,
            snaptrade: config.snaptrade_base_url.as_str().to_owned(),
            access: access.base_url().to_owned(),
            dynamodb: dynamodb.url(),
            mail: access.mail_url().to_owned(),
        };

        let table = config.table_name.clone();
        let metrics = Arc::new(Lines::default());
        let apps = Apps::new(
            config,
            clock.clone(),
            data_keys,
            access_configuration.clone(),
            Arc::clone(&metrics),
        )?;
        apps.app("stack").store().create_table().await.map_err(internal)?;
        let calls = Arc::new(CallLog::default());
        let invoker = Invoker::new(Arc::clone(&calls), options.time_limit);
        let schedules = functions::schedules(&apps, &invoker);
        open_the_limit(&schedules, sandbox.as_ref()).await;

        let gateway = Gateway {
            functions: functions::for_requests(&apps),
            invoker: invoker.clone(),
            operator_scope: apps.config().operator_scope.clone(),
            clock: clock.clone(),
        };
        let control = Control {
            clock: clock.clone(),
            schedules: schedules.clone(),
            calls: Arc::clone(&calls),
            metrics,
            database: database.clone(),
            config: apps.config().clone(),
            app: apps.app("berth-command"),
            access_config: access::file(&options).and_then(|file| std::path::absolute(file).ok()),
        };
        let router = control::router(control).fallback_service(
            Router::new()
                .fallback(gateway::serve)
                .with_state(Arc::new(gateway)),
        );
        let pump = Pump {
            database,
            table,
            written: dynamodb.written(),
            checkpoint: directory.as_ref().map(Directory::stream_position),
            filter: functions::is_for_stream_consumer,
            consumer: functions::stream_consumer(&apps, &invoker),
            dead_letters: functions::dead_letters(&apps),
            clock: clock.clone(),
        };
        let mut background = Background(vec![tokio::spawn(pump.run())]);
        if options.schedules {
            background.0.push(tokio::spawn(schedules.run(clock.clone())));
        }
        let gateway = Server::start(api, router);
        let announcement = announce(&options.data, &urls);
        Ok(Self {
            urls,
            clock,
            calls,
            apps,
            invoker,
            dynamodb,
            sandbox,
            access,
            access_configuration,
            gateway,
            background,
            announcement,
            _directory: directory,
        })
    }

    /// Where its parts answer.
    #[must_use]
    pub fn urls(&self) -> &Urls {
        &self.urls
    }

    /// The clock that everything in it follows.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What a function of this name works with here, for commands that do a function's work themselves.
    #[must_use]
    pub fn app(&self, function: &'static str) -> App {
        self.apps.app(function)
    }

    /// Its DynamoDB, which counts calls and can be told to fail them.
    #[must_use]
    pub fn dynamodb(&self) -> &DynamoDb {
        &self.dynamodb
    }

    /// The SnapTrade sandbox, unless the real SnapTrade is in its place.
    #[must_use]
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref()
    }

    /// The access API and WordPress sandboxes and the mail server.
    #[must_use]
    pub fn access_sandbox(&self) -> &AccessSandbox {
        &self.access
    }

    /// The access sync's configuration, with the sandboxes where it names no other servers.
    #[must_use]
    pub fn access_configuration(&self) -> &Configuration {
        &self.access_configuration
    }

    /// The calls of the last invocations, the oldest first; those of one request where `request_id` names it.
    #[must_use]
    pub fn calls(&self, request_id: Option<&str>) -> Vec<InvocationCalls> {
        self.calls.of(request_id)
    }

    /// Stops everything: no new request is taken, those that run may finish within 5 seconds, and the data is closed.
    pub async fn shutdown(mut self) {
        if let Some((announcement, directory)) = self.announcement.take() {
            announcement.withdraw(&directory);
        }
        drop(self.background);
        let finished = async {
            self.gateway.stop().await;
            self.invoker.idle().await;
        };
        if tokio::time::timeout(STOP_TIMEOUT, finished).await.is_err() {
            tracing::warn!("some requests did not finish in time and are cut off");
        }
        // Before their surroundings go, so that none takes the end of those for an answer.
        self.invoker.cut_off();
        self.invoker.idle().await;
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.shutdown().await;
        }
        self.access.shutdown().await;
        self.dynamodb.stop().await;
    }
}

/// Empties the data in `directory`: the table, the sandboxes' state and the key.
///
/// # Errors
/// [`StartError::AlreadyRunning`] while a stack works on it, [`StartError::Store`] when it cannot be changed.
pub fn empty_data(directory: &Path) -> Result<(), StartError> {
    let opened = open(directory)?;
    opened.empty().map_err(|error| StartError::Store {
        path: directory.to_owned(),
        reason: error.to_string(),
    })
}

/// The keys that encrypt what is secret in the data in `directory`; `None` where there are none yet.
///
/// # Errors
/// [`StartError::Store`] when they cannot be read.
pub fn data_keys(directory: &Path) -> Result<Option<DataKeys>, StartError> {
    crate::directory::read_data_keys(directory).map_err(|error| StartError::Store {
        path: directory.to_owned(),
        reason: error.to_string(),
    })
}

/// Tasks that end when this is dropped.
struct Background(Vec<JoinHandle<()>>);

impl Drop for Background {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// An HTTP server of the stack's own.
struct Server {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    fn start(listener: tokio::net::TcpListener, router: Router) -> Self {
        let (stop, stopping) = oneshot::channel::<()>();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let server = axum::serve(listener, service).with_graceful_shutdown(async move {
            let _ = stopping.await;
        });
        let task = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the gateway failed");
            }
        });
        Self {
            stop: Some(stop),
            task,
        }
    }

    /// Takes no more requests, and waits until those that run are answered.
    async fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }
}

/// The settings of `options`, with `overrides` on top.
fn config(options: &Options, overrides: &[(&str, String)]) -> Result<Config, StartError> {
    let mut settings = options.settings.clone();
    let chosen = [
        ("MAX_CONNECTIONS", options.limit.map(|limit| limit.to_string())),
        (
            "LIMIT_COUNTS",
            options.counts.map(|counts| counts.as_str().to_owned()),
        ),
        (
            "EVICTION_POLICY",
            options.policy.map(|policy| policy.as_str().to_owned()),
        ),
        (
            "SNAPTRADE_ENVIRONMENT",
            options
                .environment
                .map(|environment| environment.as_str().to_owned()),
        ),
        (
            "ALLOWED_ORIGINS",
            (!options.origins.is_empty()).then(|| options.origins.join(",")),
        ),
    ];
    for (name, value) in chosen {
        if let Some(value) = value {
            settings.set(name, value);
        }
    }
    let lookup = |name: &str| {
        let given = overrides.iter().find(|(overridden, _)| *overridden == name);
        given
            .map(|(_, value)| value.clone())
            .or_else(|| settings.get(name).map(str::to_owned))
    };
    Ok(Config::read(&lookup)?)
}

/// Listens on loopback only.
async fn listen(port: u16, option: &'static str) -> Result<tokio::net::TcpListener, StartError> {
    tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => StartError::PortInUse { port, option },
            _ => StartError::PortRefused {
                port,
                option,
                reason: error.to_string(),
            },
        })
}

/// Where a listener can be reached, without a slash at the end.
pub(crate) fn url(listener: &tokio::net::TcpListener) -> Result<String, StartError> {
    let address = listener.local_addr().map_err(internal)?;
    Ok(format!("http://{address}"))
}

fn open_directory(data: &Data) -> Result<Option<Directory>, StartError> {
    match data {
        Data::Directory(path) => open(path).map(Some),
        Data::Memory { .. } => Ok(None),
    }
}

fn open(path: &Path) -> Result<Directory, StartError> {
    Directory::open(path).map_err(|error| match error {
        DirectoryError::InUse => StartError::AlreadyRunning {
            directory: path.to_owned(),
            api: Announcement::read(path).map(|announcement| announcement.urls.api),
        },
        DirectoryError::Io(error) => StartError::Store {
            path: path.to_owned(),
            reason: error.to_string(),
        },
    })
}

/// Refuses data that were made with another client of SnapTrade's.
fn belongs_to(directory: &Directory, options: &Options) -> Result<(), StartError> {
    let [(name, sandbox), _] = SANDBOX_CREDENTIALS;
    let given = match options.snaptrade {
        SnapTrade::Sandbox => sandbox,
        SnapTrade::Live => options.settings.get(name).unwrap_or_default(),
    };
    let kept = directory.client_id(given).map_err(|error| StartError::Store {
        path: directory.database(),
        reason: error.to_string(),
    })?;
    if kept == given {
        return Ok(());
    }
    Err(StartError::OtherClient {
        directory: directory.path().to_owned(),
        kept,
        given: given.to_owned(),
    })
}

fn open_database(directory: Option<&Directory>) -> Result<dynoxide::Database, StartError> {
    let Some(directory) = directory else {
        return engine::open_in_memory().map_err(internal);
    };
    let path = directory.database();
    engine::open(&path).map_err(|error| StartError::Store {
        reason: error.to_string(),
        path,
    })
}

fn keys_of(directory: Option<&Directory>) -> Result<DataKeys, StartError> {
    match directory {
        Some(directory) => directory.data_keys().map_err(|error| StartError::Store {
            path: directory.database(),
            reason: error.to_string(),
        }),
        None => DataKeys::generate(KEY_ID).map_err(internal),
    }
}

/// The secrets that the stack gives out to functions which run outside of it. Those of the real SnapTrade stay where
/// they are, since anybody on this machine can ask.
fn secrets(
    live: bool,
    data_keys: &DataKeys,
    options: &Options,
    shop: &tokio::net::TcpListener,
    mail: &tokio::net::TcpListener,
) -> Result<Secrets, StartError> {
    if live {
        return Ok(Secrets::default());
    }
    let [(_, client_id), (_, consumer_key)] = SANDBOX_CREDENTIALS;
    let credentials = serde_json::json!({"client_id": client_id, "consumer_key": consumer_key});
    Ok(Secrets::new([
        ("berth-local/snaptrade", credentials.to_string().into()),
        ("berth-local/data-keys", data_keys.to_json()),
        ("berth-local/access", access::document(options, shop, mail)?),
    ]))
}

async fn start_sandbox(
    listener: tokio::net::TcpListener,
    clock: &Clock,
    directory: Option<&Directory>,
    api_url: &str,
) -> Result<Sandbox, StartError> {
    let state_file = directory.map(Directory::snaptrade_state);
    let options = berth_sandbox::snaptrade::Options {
        clock: clock.clone(),
        state_file: state_file.clone(),
        webhook_url: Some(format!("{api_url}/api/snaptrade/webhook")),
    };
    Sandbox::start(listener, options)
        .await
        .map_err(|error| match state_file {
            Some(path) => StartError::Store {
                path,
                reason: error.to_string(),
            },
            None => internal(error),
        })
}

/// Brings the table in line with SnapTrade once, because nothing can be registered before that. What that took is
/// nobody's business later, so the sandbox forgets it.
async fn open_the_limit(schedules: &Schedules, sandbox: Option<&Sandbox>) {
    if let Some(Err(error)) = schedules.fire(functions::CONNECTION_SYNC).await {
        tracing::warn!(%error, "the first sync failed; registering waits for one that does not");
    }
    if let Some(sandbox) = sandbox {
        sandbox.forget_requests();
    }
}

/// Writes down where the stack answers, where others look for it. A stack in memory leaves the place to one that is
/// there already.
fn announce(data: &Data, urls: &Urls) -> Option<(Announcement, PathBuf)> {
    let directory = match data {
        Data::Directory(directory) => directory,
        Data::Memory { announce } => announce.as_ref()?,
    };
    let other = Announcement::read(directory).filter(Announcement::is_of_a_running_stack);
    if matches!(data, Data::Memory { .. }) && other.is_some() {
        return None;
    }
    let announcement = Announcement {
        pid: std::process::id(),
        urls: urls.clone(),
    };
    match announcement.write(directory) {
        Ok(()) => Some((announcement, directory.clone())),
        Err(error) => {
            tracing::warn!(%error, "commands will not find this stack, because its place could not be written down");
            None
        }
    }
}

/// Something that should always work and did not.
pub(crate) fn internal(error: impl std::fmt::Display) -> StartError {
    StartError::Internal(error.to_string())
}
