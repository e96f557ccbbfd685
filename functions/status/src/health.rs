//! How the parts that Berth depends on are.

mod access;

use std::collections::BTreeMap;
use std::time::Duration;

use berth::app::App;
use berth::http::{Problem, Reply};
use berth::secrets::SecretError;
use berth::snaptrade::{self, ErrorKind};

use jiff::Timestamp;
use lambda_http::http::StatusCode;
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

use crate::VERSION;

/// How long what was found out about an outside service is told on. The route is open to anyone, and each check
/// costs one of the calls that SnapTrade allows.
const KEPT_SECONDS: i64 = 60;

/// How long one check may take.
const TIMEOUT: Duration = Duration::from_secs(4);

/// `ok`, or why not, in a word.
type Word = &'static str;

const OK: Word = "ok";

/// What the last check of a service found, and when. It is locked while one is made, so that callers at the same time
/// share it.
#[derive(Debug, Default)]
struct LastCheck(Mutex<Option<(Timestamp, Word)>>);

impl LastCheck {
    /// What was found less than a minute ago, or else the right to find it out.
    async fn word(&self, now: Timestamp) -> Result<Word, Checking<'_>> {
        let last = self.0.lock().await;
        match *last {
            Some((at, word)) if (0..KEPT_SECONDS).contains(&now.duration_since(at).as_secs()) => Ok(word),
            _ => Err(Checking { last, now }),
        }
    }
}

/// A check under way.
struct Checking<'a> {
    last: MutexGuard<'a, Option<(Timestamp, Word)>>,
    now: Timestamp,
}

impl Checking<'_> {
    /// Keeps what was found.
    fn found(mut self, word: Word) -> Word {
        *self.last = Some((self.now, word));
        word
    }
}

/// The last checks of the outside services.
#[derive(Debug, Default)]
struct LastChecks {
    snaptrade: LastCheck,
    access_api: LastCheck,
    wordpress: LastCheck,
}

/// Checks everything that requests depend on and answers 200, or 503 when one part is broken. The services of the
/// access sync are parts only where there is one.
///
/// # Errors
/// None in practice; see [`Reply::json`].
pub async fn check(app: &App) -> Result<Reply, Problem> {
    let last = app.state::<LastChecks>();
    let (store, secrets, snaptrade, access) = tokio::join!(
        store(app),
        secrets(app),
        snaptrade(app, &last),
        access::check(app, &last)
    );
    let mut checks = vec![("store", store), ("secrets", secrets), ("snaptrade", snaptrade)];
    checks.extend(access);
    let healthy = checks.iter().all(|(_, word)| *word == OK);
    let (status, word) = if healthy {
        (StatusCode::OK, OK)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    };
    let checks: BTreeMap<_, _> = checks.into_iter().collect();
    let body = json!({"status": word, "version": VERSION, "checks": checks});
    let reply = Reply::json(status, &body)?;
    Ok(if healthy { reply } else { reply.retry_after(60) })
}

async fn store(app: &App) -> Word {
    match tokio::time::timeout(TIMEOUT, app.store().ping()).await {
        Ok(Ok(())) => OK,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the store is not healthy");
            "unavailable"
        }
        Err(_) => "timeout",
    }
}

async fn secrets(app: &App) -> Word {
    let both = async { tokio::join!(app.credentials().get(), app.data_keys().get()) };
    let error = match tokio::time::timeout(TIMEOUT, both).await {
        Ok((Ok(_), Ok(_))) => return OK,
        Ok((Err(error), _) | (_, Err(error))) => error,
        Err(_) => return "timeout",
    };
    tracing::warn!(%error, "a secret is not healthy");
    match error {
        SecretError::Unavailable { .. } => "unavailable",
        SecretError::Malformed { .. } => "malformed",
    }
}

async fn snaptrade(app: &App, last: &LastChecks) -> Word {
    let checking = match last.snaptrade.word(app.clock().now()).await {
        Ok(word) => return word,
        Err(checking) => checking,
    };
    let client = app.snaptrade().once().with_timeout(TIMEOUT);
    checking.found(match client.partner_info().await {
        Ok(_) => OK,
        Err(error) => {
            tracing::warn!(%error, "SnapTrade is not healthy");
            word_of(&error)
        }
    })
}

fn word_of(error: &snaptrade::Error) -> Word {
    match error.kind {
        ErrorKind::CredentialsUnavailable => "no_credentials",
        ErrorKind::Authentication | ErrorKind::Signature => "unauthorized",
        ErrorKind::RateLimited { .. } => "rate_limited",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Unreachable => "unreachable",
        _ => "error",
    }
}
