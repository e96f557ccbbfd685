//! A stand-in for api.snaptrade.com.
//!
//! It answers as the real service does, as far as that is known from its OpenAPI file, its guides, its
//! published clients and observed answers: every signature and time stamp is checked, users are deleted
//! asynchronously, signed webhooks are sent and tried again, and a connection portal can be clicked through.
//! SnapTrade's official clients work against it unchanged but for the host.
//!
//! Control calls under `/__sandbox/` change what it does; see `control`. Its state survives a restart where
//! it is given a file; faults and the journal of requests do not.

mod accounts;
mod answer;
mod auth;
mod catalogue;
mod connections;
mod control;
mod holdings;
mod ids;
mod operations;
mod orders;
mod portal;
mod rate;
mod reference;
mod serve;
mod settings;
mod shared;
mod trading;
mod users;
mod webhooks;
mod world;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use berth::clock::Clock;
use berth::snaptrade::http_client;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use shared::Shared;

use crate::held;
use crate::server;

/// The client id that the sandbox knows.
pub const CLIENT_ID: &str = "SANDBOX-CLIENT";

/// The consumer key that requests to the sandbox and webhooks from it are signed with. It opens nothing else.
pub const CONSUMER_KEY: &str = "sandbox-consumer-key";

/// What a sandbox is started with.
#[derive(Debug, Default)]
pub struct Options {
    /// The time that links, deletions, retries and the rate limit go by.
    pub clock: Clock,
    /// Where the state is kept; `None` keeps it in memory. Missing folders are created.
    pub state_file: Option<PathBuf>,
    /// Where webhooks go until a setting says otherwise; `None` sends none.
    pub webhook_url: Option<String>,
}

/// Why a sandbox cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file with the state cannot be read, or its folder cannot be made.
    #[error("the sandbox's state in {path} cannot be used ({reason}); remove the file to start anew", path = path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The listener is of no use, or the client for webhooks cannot be made.
    #[error("the sandbox cannot be started: {0}")]
    Setup(String),
}

/// A running sandbox. It stops when it is dropped; [`Sandbox::shutdown`] lets answers under way finish first.
pub struct Sandbox {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Sandbox {
    /// Serves SnapTrade on a listener. Has to be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] when the state file is unusable or the listener is.
    pub async fn start(listener: TcpListener, options: Options) -> Result<Self, StartError> {
        let address = listener
            .local_addr()
            .map_err(|error| StartError::Setup(error.to_string()))?;
        let shared = Arc::new(Shared::new(
            options.clock,
            SecretString::from(CONSUMER_KEY.to_owned()),
            http_client().map_err(|error| StartError::Setup(error.to_string()))?,
            format!("http://{address}"),
            options.webhook_url,
            options.state_file,
        )?);
        shared.resume();
        shared.spawn(complete_what_is_due(Arc::clone(&shared)));
        let router: Router = control::routes()
            .merge(portal::routes())
            .fallback(serve::request)
            .with_state(Arc::clone(&shared));
        let server = server::start(listener, router, &shared.stopping);
        Ok(Self { shared, server })
    }

    /// Where it can be reached, without a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.shared.base_url
    }

    /// Forgets which requests were received, so that a test counts only its own.
    pub fn forget_requests(&self) {
        held(&self.shared.journal).clear();
    }

    /// Stops: no new requests are taken, those under way are answered, and those that were never to be
    /// answered are broken off.
    pub async fn shutdown(mut self) {
        self.shared.stopping.send_replace(true);
        server::finish(&mut self.server).await;
        self.shared.stop_tasks();
    }
}

impl fmt::Debug for Sandbox {
    /// Shows the address only: the state holds users' secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("base_url", &self.shared.base_url)
            .finish_non_exhaustive()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.shared.stopping.send_replace(true);
        self.server.abort();
        self.shared.stop_tasks();
    }
}

/// Completes deletions and first syncs when their time has come by the sandbox's clock.
async fn complete_what_is_due(shared: Arc<Shared>) {
    loop {
        let changed = shared.due_changed.notified();
        match shared.world(|world, now| world.due_next().map(|due| due.duration_since(now))) {
            Some(wait) => {
                tokio::select! {
                    () = shared.clock.sleep(wait.try_into().unwrap_or_default()) => {}
                    () = changed => {}
                }
            }
            None => changed.await,
        }
    }
}
