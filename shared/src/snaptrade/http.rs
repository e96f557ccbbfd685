//! The HTTP client that calls are sent with.

use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an unused connection is kept. A function that was frozen in between finds its connections dead, so the
/// time is short.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// The HTTP client could not be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the HTTP client could not be set up")]
pub struct HttpClientError;

/// An HTTP client as this crate needs one: TLS by rustls with ring and the roots of `webpki-roots`, no redirects, no
/// cookies, no proxy, and nothing that is sent twice of its own accord. Plain HTTP works, for a sandbox on the same
/// machine.
///
/// One client keeps connections open for all who share it, so there is one in a process.
///
/// # Errors
/// [`HttpClientError`] when TLS cannot be set up, which does not happen with the versions this is built with.
pub fn http_client() -> Result<reqwest::Client, HttpClientError> {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| HttpClientError)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|_| HttpClientError)
}
