//! Carries AWS's calls over the HTTP client that everything else uses, so that there is one TLS stack, one list of
//! trusted roots and one pool of connections.

use std::time::Instant;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::body::SdkBody;

use crate::telemetry::metrics::{self, CallEnd};
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
        let (http, counted_as) = (self.http.clone(), self.counted_as);
        HttpConnectorFuture::new(async move {
            let started = Instant::now();
            let answer = send(&http, request).await;
            if let Some(service) = counted_as {
                metrics::call_ended(service, end(&answer), started.elapsed());
            }
            answer
        })
    }
}

/// How a call has ended. A refusal such as that a condition does not hold is an answer like any other.
fn end(answer: &Result<HttpResponse, ConnectorError>) -> CallEnd {
    match answer {
        Ok(response) => match response.status().as_u16() {
            400 if is_throttled(response) => CallEnd::Throttled,
            429 => CallEnd::Throttled,
            500.. => CallEnd::Failed,
            _ => CallEnd::Answered,
        },
        Err(error) if error.is_timeout() => CallEnd::TimedOut,
        Err(_) => CallEnd::Failed,
    }
}

/// Whether the error that AWS names is one of too many calls. Source: the developer guide of Amazon DynamoDB, "Error
/// handling with DynamoDB".
fn is_throttled(response: &HttpResponse) -> bool {
    let body = response.body().bytes().unwrap_or_default();
    // The error's type stands at the beginning of a short body.
    let beginning = String::from_utf8_lossy(body.get(..200).unwrap_or(body));
    ["Throttling", "ThroughputExceeded", "RequestLimitExceeded"]
        .iter()
        .any(|word| beginning.contains(word))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Result<HttpResponse, ConnectorError> {
        Ok(HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body)))
    }

    #[test]
    fn a_condition_that_does_not_hold_is_no_error_and_a_throttled_call_is_one() {
        let failed = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"}"#;
        let throttled = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException"}"#;
        for (answer, expected) in [
            (answer(200, "{}"), CallEnd::Answered),
            (answer(400, failed), CallEnd::Answered),
            (answer(400, throttled), CallEnd::Throttled),
            (answer(500, "{}"), CallEnd::Failed),
            (Err(ConnectorError::timeout("too late".into())), CallEnd::TimedOut),
            (Err(ConnectorError::io("broken".into())), CallEnd::Failed),
        ] {
            assert_eq!(end(&answer), expected);
        }
    }
}
