//! One request to the API, from its arrival to its answer.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderName, StatusCode};
use serde_json::Value;

use super::answer::{Refusal, failed};
use super::auth::{self, Query, Signed};
use super::ids;
use super::operations::{self, Call, Found, Operation, Scope};
use super::rate::Standing;
use super::shared::Shared;
use crate::answer::{json_answer, malformed, set};
use crate::faults::Fault;
use crate::held;
use crate::server::never;

/// The path prefix of older clients. It still works and is signed as part of the path.
const LEGACY_PREFIX: &str = "/api/v1";

/// Since when the prefix is deprecated, in the header's own notation.
const DEPRECATED_SINCE: &str = "@1781222400";

/// The largest body that is read.
const LARGEST_BODY: usize = 1024 * 1024;

/// Answers any request that is neither for the portal nor a control call.
pub(super) async fn request(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let number = held(&shared.journal).arrived(
        parts.method.as_str(),
        parts.uri.path(),
        parts.uri.query().unwrap_or_default(),
        None,
        shared.clock.now(),
    );
    // What was received is worked off even when the sender does not wait for it, as at the real service.
    let sandbox = Arc::clone(&shared);
    let worker = tokio::spawn(async move {
        let answer = work(&sandbox, parts, body).await;
        if let Some(answer) = &answer {
            held(&sandbox.journal).answered(number, answer.status().as_u16());
        }
        answer
    });
    match worker.await {
        Ok(Some(answer)) => answer,
        Ok(None) => never(&shared.stopping).await,
        Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR, false),
    }
}

/// Does what a request asks for; `None` is the answer that never comes.
async fn work(shared: &Arc<Shared>, parts: Parts, body: Body) -> Option<Response> {
    let path = parts.uri.path().to_owned();
    let (bare, legacy) = match path.strip_prefix(LEGACY_PREFIX) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            (if rest.is_empty() { "/" } else { rest }, true)
        }
        _ => (path.as_str(), false),
    };
    let found = operations::find(&parts.method, bare);
    let mut standing = None;
    let mut answer = match to_bytes(body, LARGEST_BODY).await {
        Err(_) => Refusal::TooLarge.answer(),
        Ok(body) => answered(shared, &parts, &body, found, &mut standing).await?,
    };
    if let Some(standing) = standing {
        standing.tell(&mut answer);
    }
    set(&mut answer, HeaderName::from_static("x-request-id"), &ids::uuid());
    if legacy {
        set(
            &mut answer,
            HeaderName::from_static("deprecation"),
            DEPRECATED_SINCE,
        );
    }
    Some(answer)
}

async fn answered(
    shared: &Arc<Shared>,
    parts: &Parts,
    body: &Bytes,
    found: Found,
    standing: &mut Option<Standing>,
) -> Option<Response> {
    let (operation, path) = match found {
        Found::Operation(operation, path) => (operation, path),
        Found::OtherMethod => return Some(Refusal::UnknownMethod(parts.method.to_string()).answer()),
        Found::Nothing => return Some(Refusal::UnknownPath.answer()),
    };
    let mut proceed = || {
        let done =
            authenticated(shared, parts, body, operation, standing).and_then(|(query, content, user_id)| {
                let call = Call {
                    shared,
                    path: path.clone(),
                    query,
                    body: content,
                    user_id,
                };
                (operation.run)(&call)
            });
        match done {
            Ok(body) => json_answer(StatusCode::OK, &body),
            Err(refusal) => refusal.answer(),
        }
    };
    let names: Vec<String> = operation.names().collect();
    let fault = held(&shared.faults).take(&names);
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
            let mut answer = failed(status, operation.scope == Scope::User);
            if let Some(seconds) = retry_after {
                set(&mut answer, RETRY_AFTER, &seconds.to_string());
            }
            Some(answer)
        }
        Some(Fault::LimitReached) => Some(Refusal::LimitReached.answer()),
        Some(Fault::RateLimited(wait)) => Some(Refusal::Throttled { wait }.answer()),
    }
}

/// Checks the sender and the rate, and returns the query, the body and the user.
fn authenticated(
    shared: &Arc<Shared>,
    parts: &Parts,
    body: &Bytes,
    operation: &Operation,
    standing: &mut Option<Standing>,
) -> Result<(Query, Option<Value>, String), Refusal> {
    let raw_query = parts.uri.query().unwrap_or_default();
    let query = Query::parse(raw_query);
    if operation.scope == Scope::Open {
        return Ok((query, None, String::new()));
    }
    let content: Option<Value> = if body.is_empty() {
        None
    } else {
        let content: Value = serde_json::from_slice(body).map_err(|_| Refusal::UnreadableBody)?;
        (!content.is_null()).then_some(content)
    };
    let signed = Signed {
        path: parts.uri.path(),
        query: raw_query,
        headers: &parts.headers,
        body,
        content: content.as_ref(),
    };
    auth::check_client(signed, &query, &shared.consumer_key, &shared.clock)?;
    let limit = shared.world(|world, _| world.settings.rate_limit_per_minute);
    if let Some(limit) = limit {
        let counted = held(&shared.rate).count(limit, shared.clock.now());
        *standing = Some(counted);
        if counted.exceeded {
            return Err(Refusal::Throttled { wait: counted.reset });
        }
    }
    let user_id = match operation.scope {
        Scope::User => shared.world(|world, _| auth::check_user(&query, world))?,
        Scope::Client | Scope::Open => String::new(),
    };
    Ok((query, content, user_id))
}
