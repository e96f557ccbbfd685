//! Credentials and keys: read from Secrets Manager (or, on a developer's machine, from the environment), cached for
//! a while, and read again once when the service that they open says that they are wrong.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::clock::Clock;

/// How long a value is used before it is read again. A rotated secret is in use everywhere after this time at the
/// latest, without a deploy.
pub const LIFETIME: Duration = Duration::from_secs(300);

/// A secret could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Secrets Manager did not give it: no answer, no permission, or no such secret.
    #[error("the secret {id} could not be read: {reason}")]
    Unavailable {
        /// The secret's name.
        id: String,
        /// Why, in words, without any part of the secret.
        reason: String,
    },
    /// It was read but is not what was expected there.
    #[error("the secret {id} is not in the expected form: {reason}")]
    Malformed {
        /// The secret's name.
        id: String,
        /// What is wrong with it, without any part of the secret.
        reason: String,
    },
}

type Loading<T> = Pin<Box<dyn Future<Output = Result<T, SecretError>> + Send>>;

/// Reads a secret anew each time it is called.
pub type Loader<T> = Box<dyn Fn() -> Loading<T> + Send + Sync>;

/// A secret that is read when it is first needed and kept for [`LIFETIME`].
pub struct Cached<T> {
    loader: Loader<T>,
    clock: Clock,
    held: Mutex<Option<(Arc<T>, Timestamp)>>,
}

impl<T: Send + Sync + 'static> Cached<T> {
    /// A secret that `loader` reads.
    pub fn new(clock: Clock, loader: Loader<T>) -> Self {
        Self {
            loader,
            clock,
            held: Mutex::new(None),
        }
    }

    /// A value that is known already and never read again: credentials from a developer's environment.
    pub fn fixed(value: T) -> Self
    where
        T: Clone,
    {
        Self::new(
            Clock::system(),
            Box::new(move || {
                let value = value.clone();
                Box::pin(async move { Ok(value) })
            }),
        )
    }

    /// The value, no older than [`LIFETIME`]. When it cannot be read again an older one is still used.
    ///
    /// # Errors
    /// [`SecretError`] when there is no value to use.
    pub async fn get(&self) -> Result<Arc<T>, SecretError> {
        let mut held = self.held.lock().await;
        let now = self.clock.now();
        if let Some((value, read_at)) = held.as_ref() {
            let age = now.as_millisecond().saturating_sub(read_at.as_millisecond());
            if u128::from(age.unsigned_abs()) < LIFETIME.as_millis() {
                return Ok(Arc::clone(value));
            }
        }
        match (self.loader)().await {
            Ok(value) => Ok(Arc::clone(&held.insert((Arc::new(value), now)).0)),
            Err(error) => match held.as_ref() {
                Some((value, _)) => {
                    tracing::warn!(%error, "a secret could not be read again, the one in hand is used on");
                    Ok(Arc::clone(value))
                }
                None => Err(error),
            },
        }
    }

    /// A value to use in place of `rejected`, which a service did not accept: read anew, unless somebody else has
    /// done that already. The same value again means that the secret itself is wrong.
    ///
    /// # Errors
    /// [`SecretError`] when it cannot be read.
    pub async fn replace(&self, rejected: &Arc<T>) -> Result<Arc<T>, SecretError> {
        let mut held = self.held.lock().await;
        if let Some((value, _)) = held.as_ref()
            && !Arc::ptr_eq(value, rejected)
        {
            return Ok(Arc::clone(value));
        }
        let value = (self.loader)().await?;
        Ok(Arc::clone(&held.insert((Arc::new(value), self.clock.now())).0))
    }
}

impl<T> std::fmt::Debug for Cached<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cached([redacted])")
    }
}
