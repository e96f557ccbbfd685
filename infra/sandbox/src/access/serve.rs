//! One request to the shop or to an access API, from its arrival to its answer.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use http::header::RETRY_AFTER;
use http::request::Parts;
use serde_json::Value;
use url::form_urlencoded;

use super::operations::{Operation, Service};
use super::{Shared, access_api, peer, wordpress};
use crate::answer::{malformed, set, text_answer};
use crate::faults::Fault;
use crate::held;
use crate::server::never;

/// The largest body that is read.
const LARGEST_BODY: usize = 1024 * 1024;

/// One call, as those who answer it see it.
pub(super) struct Call<'a> {
    pub(super) shared: &'a Shared,
    pub(super) parts: &'a Parts,
    /// The query's parameters, decoded.
    pub(super) query: Vec<(String, String)>,
    pub(super) body: &'a Bytes,
}

impl Call<'_> {
    /// The first value of a parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Answers any request that is no control call.
pub(super) async fn request(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    // What was received is worked off even when the sender does not wait for it, as at a real service.
    let sandbox = Arc::clone(&shared);
    let worker = tokio::spawn(async move {
        let (parts, body) = request.into_parts();
        work(&sandbox, &parts, body).await
    });
    match worker.await {
        Ok(Some(answer)) => answer,
        Ok(None) => never(&shared.stopping).await,
        Err(_) => text_answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", String::new()),
    }
}

/// Notes a request and does what it asks for; `None` is the answer that never comes.
async fn work(shared: &Shared, parts: &Parts, body: Body) -> Option<Response> {
    let body = to_bytes(body, LARGEST_BODY).await.unwrap_or_default();
    let raw_query = parts.uri.query().unwrap_or_default();
    let number = held(&shared.journal).arrived(
        parts.method.as_str(),
        parts.uri.path(),
        &without_token(shared, raw_query),
        Some(shown(&body)),
        shared.clock.now(),
    );
    let query = form_urlencoded::parse(raw_query.as_bytes())
        .into_owned()
        .collect();
    let call = Call {
        shared,
        parts,
        query,
        body: &body,
    };
    let answer = answered(&call).await?;
    held(&shared.journal).answered(number, answer.status().as_u16());
    Some(answer)
}

async fn answered(call: &Call<'_>) -> Option<Response> {
    let operation = match Operation::find(&call.parts.method, call.parts.uri.path()) {
        Ok(operation) => operation,
        Err(Service::WordPress) => return Some(wordpress::no_route()),
        Err(Service::AccessApi | Service::Peer) => {
            return Some(access_api::failed(StatusCode::NOT_FOUND));
        }
    };
    let service = operation.service();
    let failed = |status| match service {
        Service::WordPress => wordpress::failed(status),
        Service::AccessApi => access_api::failed(status),
        Service::Peer => peer::failed(status),
    };
    let proceed = || {
        let done = match service {
            Service::WordPress => wordpress::answer(call, &operation),
            Service::AccessApi => access_api::answer(call, &operation),
            Service::Peer => peer::answer(call, &operation),
        };
        done.unwrap_or_else(|error| {
            tracing::error!(%error, "the access sandbox's state could not be used");
            failed(StatusCode::INTERNAL_SERVER_ERROR)
        })
    };
    let asked_to_wait = |mut answer: Response, seconds: Option<u64>| {
        if let Some(seconds) = seconds {
            set(&mut answer, RETRY_AFTER, &seconds.to_string());
        }
        answer
    };
    let fault = held(&call.shared.faults).take(&[operation.name().to_owned()]);
    match fault {
        None => Some(proceed()),
        Some(Fault::Slow(delay)) => {
            tokio::time::sleep(delay).await;
            Some(proceed())
        }
        Some(Fault::CommitThenTimeout) => {
            proceed();
            None
        }
        Some(Fault::Timeout) => None,
        Some(Fault::Malformed(body)) => Some(malformed(body.as_ref())),
        Some(Fault::Status { status, retry_after }) => {
            let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            Some(asked_to_wait(failed(status), retry_after))
        }
        Some(Fault::LimitReached) => Some(match service {
            Service::AccessApi => access_api::limit_reached(),
            Service::WordPress | Service::Peer => failed(StatusCode::FORBIDDEN),
        }),
        Some(Fault::RateLimited(seconds)) => Some(asked_to_wait(
            failed(StatusCode::TOO_MANY_REQUESTS),
            Some(seconds),
        )),
    }
}

/// The query without the shop's token, whose parameter may have any name.
fn without_token(shared: &Shared, query: &str) -> String {
    let pairs: Vec<String> = (query.split('&'))
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if shared.wordpress.is_token(name) => format!("{name}=redacted"),
            _ => pair.to_owned(),
        })
        .collect();
    pairs.join("&")
}

/// A body as the journal keeps it: as JSON where it is that, as text otherwise, null where there is none.
fn shown(body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into())
}
