//! The function `access-webhook`: takes in the events that MemberPress sends. An event is a hint to fetch its
//! transaction anew and no more: it carries no signature, arrives up to four times or never, and may be older than
//! what it tells of (facts/access.md A6).

mod event;

use std::time::Duration;

use berth::access::AccessSync;
use berth::app::App;
use berth::http::{Code, OpenCall, Problem, Reply, serve_open};
use berth::ids::TenantId;
use berth::secrets;
use lambda_http::{Body, Request, Response};
use serde_json::json;

use event::Event;

/// The header in which MemberPress sends its key.
const KEY_HEADER: &str = "memberpress-webhook-key";

/// How long the transaction that a hint is about may be worked on. MemberPress waits meanwhile.
const BUDGET: Duration = Duration::from_secs(15);

/// Answers `POST /api/access/webhook`.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve_open(app, request, |call| answer(app, call)).await
}

async fn answer(app: &App, call: OpenCall) -> Result<Reply, Problem> {
    authenticate(app, &call).await?;
    let event: Event = call.body()?;
    if let Some(transaction) = event.transaction {
        let access = AccessSync::new(app, TenantId::default(), "webhook:memberpress");
        if let Err(refused) = access.hint(&transaction, BUDGET).await {
            // MemberPress does not send an event again for what is answered here, and the next run finds the
            // transaction anyhow.
            tracing::warn!(transaction = transaction.as_str(), cause = %refused, "a hint came to nothing");
        }
    }
    Reply::accepted(&json!({"received": true}))
}

/// Goes on only for who has the key. Where none is configured nobody has it.
async fn authenticate(app: &App, call: &OpenCall) -> Result<(), Problem> {
    let refused = |cause| Err(Problem::new(Code::InvalidSignature).because(cause));
    let Some(configuration) = app.refresh_access().await? else {
        return refused("the access sync is not configured");
    };
    let Some(key) = &configuration.shop.webhook_key else {
        return refused("wordpress.webhook_key is not configured");
    };
    match call.headers().get(KEY_HEADER) {
        Some(given) if secrets::is_same(key, given.as_bytes()) => Ok(()),
        Some(_) => refused("the key is another one"),
        None => refused("there is no key"),
    }
}

#[cfg(test)]
mod tests;
