//! Credentials and keys: read from Secrets Manager (or, on a developer's machine, from the environment), cached for
//! a while, and read again once when the service that they open says that they are wrong.

mod data_keys;
pub mod manager;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;
use tokio::sync::Mutex;

pub use data_keys::{DataKeys, KEY_BYTES};

use crate::clock::Clock;
use crate::snaptrade::Credentials;

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

/// Whether `given` is `secret`. How long that takes says nothing about where the two differ, as only their codes are
/// compared.
#[must_use]
pub fn is_same(secret: &SecretString, given: &[u8]) -> bool {
    // What the codes are made with makes no difference.
    let code = |text: &[u8]| {
        let mac = Hmac::<Sha256>::new_from_slice(b"berth").ok()?;
        Some(mac.chain_update(text))
    };
    match (code(secret.expose_secret().as_bytes()), code(given)) {
        (Some(expected), Some(given)) => expected.verify(&given.finalize().into_bytes()).is_ok(),
        _ => false,
    }
}

/// SnapTrade's credentials as the secret holds them.
#[derive(Deserialize)]
struct StoredCredentials {
    client_id: String,
    consumer_key: SecretString,
}

/// Reads SnapTrade's credentials from `{"client_id": "…", "consumer_key": "…"}`.
///
/// # Errors
/// What is wrong, in words, without any part of the secret.
pub fn parse_credentials(json: &str) -> Result<Credentials, String> {
    let stored: StoredCredentials = parse_json(json, "client_id, consumer_key")?;
    for (name, value) in [
        ("client_id", stored.client_id.as_str()),
        ("consumer_key", stored.consumer_key.expose_secret()),
    ] {
        if value.is_empty() || value.trim() != value {
            return Err(format!("{name} is empty or has spaces around it"));
        }
    }
    Ok(Credentials {
        client_id: stored.client_id,
        consumer_key: stored.consumer_key,
    })
}

/// Reads a secret's JSON. What the parser says is left out of the error, because it may quote the secret.
fn parse_json<T: DeserializeOwned>(json: &str, members: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|_| format!("it is not a JSON object with the members {members}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn counting(fails_from: u32) -> (Arc<AtomicU32>, Loader<u32>) {
        let reads = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&reads);
        let loader: Loader<u32> = Box::new(move || {
            let read = counter.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                if read < fails_from {
                    Ok(read)
                } else {
                    Err(SecretError::Unavailable {
                        id: "s".to_owned(),
                        reason: "gone".to_owned(),
                    })
                }
            })
        });
        (reads, loader)
    }

    #[tokio::test]
    async fn a_secret_is_read_once_in_its_lifetime_and_used_on_when_it_cannot_be_read_again() {
        let clock = Clock::system();
        let (reads, loader) = counting(2);
        let cached = Cached::new(clock.clone(), loader);
        assert_eq!(
            (*cached.get().await.unwrap(), *cached.get().await.unwrap()),
            (0, 0)
        );
        clock.advance(301);
        assert_eq!(*cached.get().await.unwrap(), 1);
        clock.advance(301);
        assert_eq!(*cached.get().await.unwrap(), 1);
        assert_eq!(reads.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_rejected_secret_is_read_again_once_for_all_that_hold_it() {
        let (reads, loader) = counting(9);
        let cached = Cached::new(Clock::system(), loader);
        let rejected = cached.get().await.unwrap();
        let (one, two) = tokio::join!(cached.replace(&rejected), cached.replace(&rejected));
        assert_eq!((*one.unwrap(), *two.unwrap()), (1, 1));
        assert_eq!(reads.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_secret_is_the_same_as_itself_only() {
        let secret = SecretString::from("the-key");
        assert!(is_same(&secret, b"the-key"));
        for other in [&b""[..], b"the-ke", b"the-key ", b"the-key\0", b"THE-KEY"] {
            assert!(!is_same(&secret, other));
        }
    }

    #[test]
    fn credentials_are_read_and_faults_named_without_them() {
        let good = parse_credentials(r#"{"client_id": "C", "consumer_key": "K", "note": 1}"#).unwrap();
        assert_eq!(good.client_id, "C");
        for bad in [
            "VERYSECRET",
            r#"{"client_id": "C", "consumer_key": ["VERYSECRET"]}"#,
            r#"{"client_id": "C", "consumer_key": " VERYSECRET"}"#,
            r#"{"client_id": "", "consumer_key": "VERYSECRET"}"#,
            r#"{"consumer_key": "VERYSECRET"}"#,
        ] {
            assert!(!parse_credentials(bad).unwrap_err().contains("VERYSECRET"));
        }
    }
}
