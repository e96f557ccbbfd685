//! What a function starts from: its settings, its clients and its clock, built once when the process starts.

mod access;
pub mod aws;
mod run;
mod transport;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use access::AccessConfiguration;
pub use aws::AwsAccess;
pub use run::{invoke_event, run_event, run_http};

use crate::access::configuration::Configuration;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::{Config, ConfigErrors};
use crate::secrets::{self, Cached, DataKeys, Loader, SecretError};
use crate::snaptrade::{self, Credentials};
use crate::store::Store;
use crate::telemetry::Invocation;
use crate::telemetry::metrics::{Metrics, Sink};

/// How long the first call to the table and to SnapTrade may take while the function starts. When one takes longer, the
/// first invocation makes its own.
const WARMING_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The functions that take no tokens for their calls to SnapTrade: what anybody may ask for writes nothing to the table.
/// An instance of it makes two calls a minute at most.
const CALLS_UNASKED: [&str; 1] = ["status"];

/// Everything that a function's handler works with. Built once, borrowed by each invocation.
pub struct App {
    function: &'static str,
    config: Config,
    clock: Clock,
    http: reqwest::Client,
    store: Store,
    snaptrade: snaptrade::Client,
    credentials: Arc<Cached<Credentials>>,
    data_keys: Arc<Cached<DataKeys>>,
    access: Arc<AccessConfiguration>,
    metrics: Metrics,
    invoked: AtomicBool,
    states: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

/// What an [`App`] is built from.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The time that everything is decided by.
    pub clock: Clock,
    /// The client for all outside calls; its clones share their connections.
    pub http: reqwest::Client,
    /// Access to the table. The table's address and name are the settings'.
    pub aws: AwsAccess,
    /// SnapTrade's credentials.
    pub credentials: Arc<Cached<Credentials>>,
    /// The keys that users' secrets are encrypted with.
    pub data_keys: Arc<Cached<DataKeys>>,
    /// The access sync's configuration.
    pub access: Arc<AccessConfiguration>,
    /// Where metrics go.
    pub metrics: Sink,
}

impl Parts {
    /// Parts whose secrets are known already, for stand-ins on this machine: the local stack, and tests. The
    /// stand-in for DynamoDB sees `aws_access_key_id` and takes any. There is no access sync, unless
    /// [`Parts::with_access`] gives it its configuration.
    ///
    /// # Errors
    /// [`snaptrade::HttpClientError`] when TLS cannot be set up.
    pub fn local(
        clock: Clock,
        aws_access_key_id: &str,
        credentials: Credentials,
        data_keys: DataKeys,
    ) -> Result<Self, snaptrade::HttpClientError> {
        Ok(Self {
            clock,
            http: snaptrade::http_client()?,
            aws: AwsAccess::local(aws_access_key_id),
            credentials: Arc::new(Cached::fixed(credentials)),
            data_keys: Arc::new(Cached::fixed(data_keys)),
            access: Arc::new(AccessConfiguration::none()),
            metrics: Sink::Nowhere,
        })
    }

    /// The same with another place for metrics to go.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Sink) -> Self {
        self.metrics = metrics;
        self
    }

    /// The same with the access sync's configuration.
    #[must_use]
    pub fn with_access(mut self, configuration: Configuration) -> Self {
        self.access = Arc::new(AccessConfiguration::fixed(configuration));
        self
    }
}

/// Which secrets a function works with, and so may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// SnapTrade's credentials only; it never opens or closes a user's secret.
    Credentials,
    /// SnapTrade's credentials and the keys that users' secrets are encrypted with.
    CredentialsAndDataKeys,
    /// The access sync's configuration only, where there is one; it never calls SnapTrade.
    Access,
    /// All of them, to say how each is. It starts without the access sync's configuration, too.
    Everything,
}

impl Needs {
    /// Whether it calls SnapTrade.
    #[must_use]
    pub fn credentials(self) -> bool {
        self != Self::Access
    }

    /// Whether it opens users' secrets.
    #[must_use]
    pub fn data_keys(self) -> bool {
        matches!(self, Self::CredentialsAndDataKeys | Self::Everything)
    }

    /// Whether it works with the access sync's configuration.
    #[must_use]
    pub fn access(self) -> bool {
        matches!(self, Self::Access | Self::Everything)
    }

    /// The variables that name its secrets and that it cannot start without.
    #[must_use]
    pub fn required(self) -> Vec<&'static str> {
        [
            (self.credentials(), "SNAPTRADE_SECRET_ID"),
            (self.data_keys(), "DATA_KEY_SECRET_ID"),
        ]
        .into_iter()
        .filter_map(|(needed, variable)| needed.then_some(variable))
        .collect()
    }
}

/// A function could not start. Each is one sentence that names the variable or the secret at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Settings are missing or not right.
    #[error(transparent)]
    Settings(#[from] ConfigErrors),
    /// A secret could not be read or is not what it should be.
    #[error("What {variable} names cannot be used: {source}.")]
    Secret {
        /// The variable that names the secret.
        variable: &'static str,
        /// What is wrong with it.
        source: SecretError,
    },
    /// Production was given the sandbox's credentials.
    #[error("SNAPTRADE_ENVIRONMENT is production, but the credentials are the sandbox's.")]
    SandboxCredentials,
    /// TLS could not be set up.
    #[error("The function cannot start: {0}.")]
    Http(#[from] snaptrade::HttpClientError),
}

impl App {
    /// The function `function`, by the name of its package, with these settings and parts.
    #[must_use]
    pub fn new(function: &'static str, config: Config, parts: Parts) -> Self {
        let dynamodb = aws::dynamodb(
            &parts.aws,
            parts.http.clone(),
            config.dynamodb_endpoint.as_ref(),
            function,
        );
        let store = Store::new(dynamodb, config.table_name.clone());
        let gate: Option<Arc<dyn snaptrade::Gate>> = if CALLS_UNASKED.contains(&function) {
            None
        } else {
            Some(Arc::new(Budget::new(
                function,
                store.clone(),
                parts.clock.clone(),
            )))
        };
        Self {
            function,
            store,
            snaptrade: snaptrade::Client::new(snaptrade::ClientOptions {
                base_url: config.snaptrade_base_url.clone(),
                credentials: Arc::clone(&parts.credentials),
                clock: parts.clock.clone(),
                http: parts.http.clone(),
                timeout: snaptrade::TIMEOUT,
                gate,
            }),
            metrics: Metrics::new(config.metrics_environment.clone(), parts.metrics),
            config,
            clock: parts.clock,
            http: parts.http,
            credentials: parts.credentials,
            data_keys: parts.data_keys,
            access: parts.access,
            invoked: AtomicBool::new(false),
            states: Mutex::new(HashMap::new()),
        }
    }

    /// The function `function` as Lambda starts it: settings and AWS's credentials from the environment, secrets
    /// from Secrets Manager. The secrets are fetched and the connections to the table and to SnapTrade are opened at the
    /// same time, so that the first invocation waits for none of them.
    ///
    /// # Errors
    /// [`StartError`] when the function could not do its work.
    pub async fn from_env(function: &'static str, needs: Needs) -> Result<Self, StartError> {
        Self::start(function, needs, &|name| std::env::var(name).ok()).await
    }

    async fn start(
        function: &'static str,
        needs: Needs,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, StartError> {
        let config = Config::read_deployed(lookup, &needs.required());
        let aws = AwsAccess::from_env(lookup);
        let (config, aws) = match (config, aws) {
            (Ok(config), Ok(aws)) => (config, aws),
            (config, aws) => {
                let mut faults = config.err().map(|errors| errors.0).unwrap_or_default();
                faults.extend(aws.err().unwrap_or_default());
                return Err(ConfigErrors(faults).into());
            }
        };
        let clock = Clock::system();
        let http = snaptrade::http_client()?;
        let secrets = aws::secrets_manager(
            &aws,
            http.clone(),
            config.secrets_manager_endpoint.as_ref(),
            function,
        );
        let parts = Parts {
            credentials: Arc::new(if needs.credentials() {
                credentials(&config, &clock, secrets.clone())
            } else {
                Cached::new(clock.clone(), not_for_this_function())
            }),
            access: Arc::new(if needs.access() {
                AccessConfiguration::named(&config, &clock, &secrets)
            } else {
                AccessConfiguration::none()
            }),
            data_keys: Arc::new(Cached::new(
                clock.clone(),
                match config.data_key_secret_id.clone().filter(|_| needs.data_keys()) {
                    Some(id) => secrets::manager::load(secrets, id, DataKeys::parse),
                    None => not_for_this_function(),
                },
            )),
            clock,
            http,
            aws,
            metrics: Sink::StandardOutput,
        };
        let app = Self::new(function, config, parts);
        tokio::try_join!(
            app.check_credentials(needs),
            app.check_data_keys(needs),
            app.check_access(needs),
            async {
                app.reach_table().await;
                Ok(())
            },
            async {
                app.reach_snaptrade(needs).await;
                Ok(())
            },
        )?;
        Ok(app)
    }

    /// The function's name, as its package has it.
    #[must_use]
    pub fn function(&self) -> &'static str {
        self.function
    }

    /// Where the metrics of an invocation go.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// An invocation of this function that begins now. The first one has paid for the cold start.
    #[must_use]
    pub fn invocation(&self, request_id: String, correlation_id: String) -> Invocation {
        Invocation {
            request_id,
            correlation_id,
            function: self.function,
            cold_start: !self.invoked.swap(true, Ordering::Relaxed),
        }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The table.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The client of SnapTrade.
    #[must_use]
    pub fn snaptrade(&self) -> &snaptrade::Client {
        &self.snaptrade
    }

    /// The client for outside calls.
    #[must_use]
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// SnapTrade's credentials.
    #[must_use]
    pub fn credentials(&self) -> &Arc<Cached<Credentials>> {
        &self.credentials
    }

    /// The keys that users' secrets are encrypted with.
    #[must_use]
    pub fn data_keys(&self) -> &Arc<Cached<DataKeys>> {
        &self.data_keys
    }

    /// The access sync's configuration as it was read last; `None` where this deployment has none, or where the
    /// function does not work with it. The local stack's is always there.
    #[must_use]
    pub fn access(&self) -> Option<Arc<Configuration>> {
        self.access.current()
    }

    /// The access sync's configuration as it is now: read again where it is older than [`secrets::LIFETIME`]. An
    /// invocation that works with it asks for it first, and [`App::access`] gives the same from then on.
    ///
    /// # Errors
    /// [`SecretError`] when it could not be read or is not right, and there is no earlier one to use on.
    pub async fn refresh_access(&self) -> Result<Option<Arc<Configuration>>, SecretError> {
        self.access.refresh().await
    }

    /// What a function keeps from one invocation to the next, such as the answer of a check that is not to be made
    /// each time. There is one value of each type, made when it is first asked for; it goes with the process, so
    /// nothing may depend on it but speed and cost.
    #[must_use]
    pub fn state<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let state = states
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Arc::new(T::default()));
        Arc::clone(state).downcast().unwrap_or_default()
    }

    /// Opens the connection to the table, which costs a small function the better part of a second when the first
    /// invocation has to do it. Every role allows it, but the function works all the same where one does not.
    async fn reach_table(&self) {
        let _answered_or_not = tokio::time::timeout(WARMING_TIMEOUT, self.store.ping()).await;
    }

    /// Opens the connection to SnapTrade where the function calls it for users, by the one call that needs neither
    /// credentials nor a user.
    async fn reach_snaptrade(&self, needs: Needs) {
        if needs.data_keys() {
            let _answered_or_not = tokio::time::timeout(WARMING_TIMEOUT, self.snaptrade.once().check()).await;
        }
    }

    async fn check_credentials(&self, needs: Needs) -> Result<(), StartError> {
        if !needs.credentials() {
            return Ok(());
        }
        let credentials = self
            .credentials
            .get()
            .await
            .map_err(|source| StartError::Secret {
                variable: "SNAPTRADE_SECRET_ID",
                source,
            })?;
        if self.config.accepts_client_id(&credentials.client_id) {
            Ok(())
        } else {
            Err(StartError::SandboxCredentials)
        }
    }

    async fn check_data_keys(&self, needs: Needs) -> Result<(), StartError> {
        if !needs.data_keys() {
            return Ok(());
        }
        match self.data_keys.get().await {
            Ok(_) => Ok(()),
            Err(source) => Err(StartError::Secret {
                variable: "DATA_KEY_SECRET_ID",
                source,
            }),
        }
    }

    /// Whoever says how everything is starts with a configuration that is not right, to say so.
    async fn check_access(&self, needs: Needs) -> Result<(), StartError> {
        if !needs.access() {
            return Ok(());
        }
        let variable = match self.config.access_secret_id {
            Some(_) => "ACCESS_SECRET_ID",
            None => "ACCESS_CONFIG_FILE",
        };
        match self.refresh_access().await {
            Err(source) if needs == Needs::Access => Err(StartError::Secret { variable, source }),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("function", &self.function)
            .finish_non_exhaustive()
    }
}

fn credentials(
    config: &Config,
    clock: &Clock,
    secrets: aws_sdk_secretsmanager::Client,
) -> Cached<Credentials> {
    match (&config.snaptrade_secret_id, &config.snaptrade_credentials) {
        (Some(id), _) => Cached::new(
            clock.clone(),
            secrets::manager::load(secrets, id.clone(), secrets::parse_credentials),
        ),
        (None, Some(given)) => Cached::fixed(Credentials {
            client_id: given.client_id.clone(),
            consumer_key: given.consumer_key.clone(),
        }),
        (None, None) => Cached::new(clock.clone(), not_for_this_function()),
    }
}

/// Stands for a secret that the function is not meant to read.
fn not_for_this_function<T: Send + 'static>() -> Loader<T> {
    Box::new(|| {
        Box::pin(async {
            Err(SecretError::Unavailable {
                id: "that was asked for".to_owned(),
                reason: "this function is not set up to use it".to_owned(),
            })
        })
    })
}

#[cfg(test)]
mod tests;
