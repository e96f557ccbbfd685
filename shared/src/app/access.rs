//! The access sync's configuration, as a function holds it: from a secret, from a file, or given by the local stack.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::access::configuration::Configuration;
use crate::clock::Clock;
use crate::config::Config;
use crate::secrets::{self, Cached, Loader, SecretError};

/// The access sync's configuration; `None` where this deployment has none.
type Held = Option<Arc<Configuration>>;

/// The access sync's configuration, where there is one. It is read again after [`secrets::LIFETIME`], so that a
/// changed one is in use everywhere after that time at the latest, without a deploy.
pub struct AccessConfiguration {
    source: Cached<Held>,
    /// What [`AccessConfiguration::refresh`] gave last.
    held: RwLock<Held>,
}

impl AccessConfiguration {
    /// None: there is no access sync.
    #[must_use]
    pub fn none() -> Self {
        Self::given(None)
    }

    /// This one, which is known already and never read again.
    #[must_use]
    pub fn fixed(configuration: Configuration) -> Self {
        Self::given(Some(Arc::new(configuration)))
    }

    fn given(held: Held) -> Self {
        Self {
            source: Cached::fixed(held.clone()),
            held: RwLock::new(held),
        }
    }

    /// The one that `ACCESS_SECRET_ID` names, or else `ACCESS_CONFIG_FILE`. Nothing is read before the first
    /// [`AccessConfiguration::refresh`].
    pub(super) fn named(config: &Config, clock: &Clock, client: &aws_sdk_secretsmanager::Client) -> Self {
        let loader: Loader<Held> = match (&config.access_secret_id, &config.access_config_file) {
            (Some(id), _) => from_secret(client.clone(), id.clone()),
            (None, Some(path)) => from_file(path.clone()),
            (None, None) => return Self::none(),
        };
        Self {
            source: Cached::new(clock.clone(), loader),
            held: RwLock::new(None),
        }
    }

    /// What was read last.
    pub(super) fn current(&self) -> Held {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configuration, no older than [`secrets::LIFETIME`]. When it cannot be read again, or is not right any
    /// more, the one in hand is used on.
    ///
    /// # Errors
    /// [`SecretError`] when there is none to use. It names every fault by its path.
    pub(super) async fn refresh(&self) -> Result<Held, SecretError> {
        let read = Held::clone(&*self.source.get().await?);
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = read.clone();
        Ok(read)
    }
}

impl fmt::Debug for AccessConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessConfiguration([redacted])")
    }
}

/// A secret that has no value yet, as the deployment makes it, is no configuration and no fault.
fn from_secret(client: aws_sdk_secretsmanager::Client, id: String) -> Loader<Held> {
    let load = secrets::manager::load_optional(client, id, parse);
    Box::new(move || {
        let loading = load();
        Box::pin(async move { Ok(loading.await?.map(Arc::new)) })
    })
}

fn from_file(path: String) -> Loader<Held> {
    Box::new(move || {
        let path = path.clone();
        Box::pin(async move {
            let text = std::fs::read_to_string(&path).map_err(|error| SecretError::Unavailable {
                id: path.clone(),
                reason: error.to_string(),
            })?;
            match parse(&text) {
                Ok(configuration) => Ok(Some(Arc::new(configuration))),
                Err(reason) => Err(SecretError::Malformed { id: path, reason }),
            }
        })
    })
}

/// # Errors
/// All faults, each with its path and without its value.
fn parse(text: &str) -> Result<Configuration, String> {
    Configuration::parse(text, None).map_err(|faults| {
        let faults: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
        faults.join("; ")
    })
}
