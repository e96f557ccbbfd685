//! The function `webhook-admin`: what operators see of events that were given up, and working on them again.

use berth::app::App;
use berth::http::{Call, Code, Problem, Reply, paging, serve};
use berth::webhooks::{self, Applied, DeadLetterPosition};
use lambda_http::{Body, Request, Response};
use serde_json::json;

/// Answers the routes below `/api/snaptrade/dead-letters`.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve(app, request, |call| answer(app, call)).await
}

async fn answer(app: &App, call: Call) -> Result<Reply, Problem> {
    call.require_operator()?;
    match (call.method().as_str(), call.route()) {
        ("GET", "/api/snaptrade/dead-letters") => list(app, &call).await,
        ("POST", "/api/snaptrade/dead-letters/{webhook_id}/replay") => replay(app, &call).await,
        _ => Err(call.not_served()),
    }
}

async fn list(app: &App, call: &Call) -> Result<Reply, Problem> {
    let page = call.page::<DeadLetterPosition>()?;
    let now = app.clock().now();
    let letters =
        webhooks::dead_letters(app.store(), &call.identity.tenant, page.limit, page.cursor, now).await?;
    let next_cursor = letters.next.as_ref().map(paging::cursor).transpose()?;
    Reply::ok(&json!({"data": letters.letters, "next_cursor": next_cursor}))
}

async fn replay(app: &App, call: &Call) -> Result<Reply, Problem> {
    let id = call.param("webhook_id").ok_or_else(|| call.not_served())?;
    match Box::pin(webhooks::replay(app, &call.identity.tenant, id)).await? {
        Some(Applied::Done) => Reply::ok(&json!({"webhook_id": id, "replayed": true})),
        Some(Applied::Again) => Err(Problem::new(Code::UpstreamError)
            .detail("The event could not be worked on this time either; it stays among the dead letters.")),
        None => Err(Problem::new(Code::NotFound).detail("There is no such event.")),
    }
}
