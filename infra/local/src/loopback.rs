//! An HTTP client for calls that stay on this machine.

use std::sync::Arc;

/// A client for plain HTTP on loopback. It trusts no certificate at all, so that nothing can reach the outside through
/// it by mistake, and it ignores proxy settings.
///
/// # Errors
/// When the machine has no resources left for one.
pub fn loopback_client() -> Result<reqwest::Client, reqwest::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = reqwest::Client::builder().no_proxy();
    match tls {
        Ok(tls) => {
            let tls = tls
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder.tls_backend_preconfigured(tls).build()
        }
        // Ring's provider supports the default protocol versions; were it not so, the builder's own error tells.
        Err(_) => builder.build(),
    }
}
