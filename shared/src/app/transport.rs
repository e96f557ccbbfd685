//! One HTTP client for everything that a process calls. AWS's clients use it too, so that there is one TLS stack, one
//! list of trusted roots and one pool of connections.

use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::body::SdkBody;

use crate::telemetry::{self, Service};

/// How long it may take to reach a server, TLS included. A handshake costs a small function much of a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an unused connection is kept. AWS's services close theirs after about 20 seconds, and a frozen function
/// does not see it.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// The HTTP client could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the HTTP client could not be built: {0}")]
pub struct TransportError(String);

/// A client for all outside calls: rustls with ring, trusting the roots of `webpki-roots`, following no redirects.
/// Cheap to clone; clones share their connections. It sets no time limit for a whole call, which is the caller's
/// to set.
///
/// # Errors
/// [`TransportError`] when TLS cannot be set up.
pub fn http_client() -> Result<reqwest::Client, TransportError> {
    let roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TransportError(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .tcp_nodelay(true)
        // A redirect would repeat a signed request elsewhere.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .build()
        .map_err(|error| TransportError(error.to_string()))
}

/// Carries the requests of an AWS client over the process's HTTP client, and counts each attempt.
#[derive(Debug, Clone)]
pub(super) struct AwsTransport {
    http: reqwest::Client,
    counted_as: Option<Service>,
}

impl AwsTransport {
    /// Calls are counted as calls to `counted_as`.
    pub(super) fn new(http: reqwest::Client, counted_as: Option<Service>) -> Self {
        Self { http, counted_as }
    }
}

impl HttpClient for AwsTransport {
    fn http_connector(
        &self,
        _settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for AwsTransport {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if let Some(service) = self.counted_as {
            telemetry::count_call(service);
        }
        let http = self.http.clone();
        HttpConnectorFuture::new(async move { send(&http, request).await })
    }
}

async fn send(http: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let request = request
        .try_into_http1x()
        .map_err(|error| ConnectorError::user(error.into()))?;
    let (parts, body) = request.into_parts();
    let body = body
        .bytes()
        .ok_or_else(|| ConnectorError::user("the request's body is a stream".into()))?
        .to_vec();
    let url = parts.uri.to_string();
    let response = http
        .request(parts.method, url)
        .headers(parts.headers)
        .body(body)
        .send()
        .await
        .map_err(connector_error)?;
    let status = response.status();
    let headers = Headers::try_from(response.headers().clone())
        .map_err(|error| ConnectorError::other(error.into(), None))?;
    let body = response.bytes().await.map_err(connector_error)?;
    let mut answer = HttpResponse::new(status.into(), SdkBody::from(body));
    *answer.headers_mut() = headers;
    Ok(answer)
}

fn connector_error(error: reqwest::Error) -> ConnectorError {
    let (timed_out, unconnected) = (error.is_timeout(), error.is_connect());
    let source = error.without_url().into();
    let error = if timed_out {
        ConnectorError::timeout(source)
    } else {
        ConnectorError::io(source)
    };
    if unconnected {
        error.never_connected()
    } else {
        error
    }
}
