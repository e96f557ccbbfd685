//! Stand-ins for what the access sync talks to: a WordPress shop with MemberPress, the access API that opens
//! TradingView scripts, and a mail server.
//!
//! One HTTP listener serves the shop, the access API and the API of the self-hosted peer program "trendoscope", which
//! grants for a length of time instead of up to a date; all of them work on the same users. Another listener speaks
//! SMTP. They answer as facts about the originals say; where the originals are not known, as a careful server would.
//!
//! Control calls under `/__sandbox/` say what the shop sold and who has access, and tell what was received; see
//! `control`. The state survives a restart where it is given a file; faults and the journal of requests do not.

mod access_api;
mod control;
mod credentials;
mod dates;
mod operations;
mod peer;
mod sample;
mod serve;
mod store;
mod wordpress;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use berth::clock::Clock;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use credentials::WordPressAccess;
use store::Store;

use crate::faults::Faults;
use crate::journal::Journal;
use crate::{held, mail, server};

/// The key that the access API knows, for the header `x-api-key`. It opens nothing else.
pub const ACCESS_KEY: &str = "sandbox-access-key";

/// The key that the shop knows unless it is told another. It opens nothing else.
pub const WORDPRESS_KEY: &str = "sandbox-wordpress-key";

/// What the sandbox is started with.
#[derive(Debug, Default)]
pub struct Options {
    /// The time that new grants and mails bear.
    pub clock: Clock,
    /// Where the state is kept; `None` keeps it in memory. Missing folders are created.
    pub state_file: Option<PathBuf>,
    /// Who may read the shop's transactions, and how they are asked for.
    pub wordpress: WordPressAccess,
    /// The header that the access API's key stands in; `None` is `x-api-key`.
    pub access_key_header: Option<String>,
}

/// Why the sandbox cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file with the state cannot be used, or its folder cannot be made.
    #[error("the sandbox's state in {path} cannot be used ({reason}); remove the file to start anew", path = path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A listener is of no use, or there is no memory for the state.
    #[error("the sandbox cannot be started: {0}")]
    Setup(String),
}

/// What all requests share.
struct Shared {
    clock: Clock,
    store: Store,
    wordpress: WordPressAccess,
    access_key_header: String,
    faults: Mutex<Faults>,
    journal: Mutex<Journal>,
    /// Turns true when the sandbox is about to stop, so that nobody waits for an answer any longer.
    stopping: watch::Sender<bool>,
}

/// A running sandbox. It stops when it is dropped; [`Sandbox::shutdown`] lets answers under way finish first.
pub struct Sandbox {
    shared: Arc<Shared>,
    base_url: String,
    mail_url: String,
    http: JoinHandle<()>,
    smtp: JoinHandle<()>,
}

impl Sandbox {
    /// Serves the shop and the access API on one listener and SMTP on the other. Has to be called within a Tokio
    /// runtime.
    ///
    /// # Errors
    /// [`StartError`] when the state file is unusable or a listener is.
    pub async fn start(http: TcpListener, smtp: TcpListener, options: Options) -> Result<Self, StartError> {
        let address = |listener: &TcpListener| {
            (listener.local_addr()).map_err(|error| StartError::Setup(error.to_string()))
        };
        let (base_url, mail_url) = (
            format!("http://{}", address(&http)?),
            format!("smtp://{}", address(&smtp)?),
        );
        let store = match &options.state_file {
            Some(path) => Store::open(path).map_err(|reason| StartError::State {
                path: path.clone(),
                reason,
            })?,
            None => Store::in_memory().map_err(|error| StartError::Setup(error.to_string()))?,
        };
        let shared = Arc::new(Shared {
            clock: options.clock,
            store,
            wordpress: options.wordpress,
            access_key_header: (options.access_key_header).unwrap_or_else(|| "x-api-key".to_owned()),
            faults: Mutex::default(),
            journal: Mutex::default(),
            stopping: watch::Sender::new(false),
        });
        let router = control::routes()
            .fallback(serve::request)
            .with_state(Arc::clone(&shared));
        let http = server::start(http, router, &shared.stopping);
        let inbox: Arc<dyn mail::Inbox> = Arc::<Shared>::clone(&shared);
        let smtp = tokio::spawn(mail::serve(smtp, inbox, shared.stopping.subscribe()));
        Ok(Self {
            shared,
            base_url,
            mail_url,
            http,
            smtp,
        })
    }

    /// Where the shop and the access API can be reached, without a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Where mails are taken: `smtp://` with host and port.
    #[must_use]
    pub fn mail_url(&self) -> &str {
        &self.mail_url
    }

    /// Tells which requests were received, as the control call does, and forgets them at once, so that none falls between.
    #[must_use]
    pub fn take_requests(&self) -> Vec<Value> {
        let mut journal = held(&self.shared.journal);
        let requests = journal.shown();
        journal.clear();
        requests
    }

    /// Stops: no new requests are taken, those under way are answered, and those that were never to be answered are
    /// broken off.
    pub async fn shutdown(mut self) {
        self.shared.stopping.send_replace(true);
        tokio::join!(server::finish(&mut self.http), server::finish(&mut self.smtp));
    }
}

impl mail::Inbox for Shared {
    fn fault(&self) -> Option<crate::faults::Fault> {
        held(&self.faults).take(&[operations::MAIL.to_owned()])
    }

    fn keep(&self, mail: &mail::Mail) -> bool {
        match self.store.add_mail(mail, self.clock.now()) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "a mail could not be kept");
                false
            }
        }
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("base_url", &self.base_url)
            .field("mail_url", &self.mail_url)
            .finish_non_exhaustive()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.shared.stopping.send_replace(true);
        self.http.abort();
        self.smtp.abort();
    }
}
