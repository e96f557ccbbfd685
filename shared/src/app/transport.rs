//! Carries AWS's calls over the HTTP client that everything else uses, so that there is one TLS stack, one list of
//! trusted roots and one pool of connections.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::body::SdkBody;

use crate::telemetry::{self, Service};

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
