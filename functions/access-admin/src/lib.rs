//! The function `access-admin`: what operators see of the access sync, and what they decide.

mod input;

use std::time::Duration;

use berth::access::Listed;
use berth::access::ids::ScriptId;
use berth::app::App;
use berth::http::{Call, Problem, Reply, paging, serve};
use lambda_http::{Body, Request, Response};
use serde::Serialize;
use serde_json::json;

use input::{Decided, Resync, Revocation, master_data};

/// How long an operation may work: API Gateway waits for 30 seconds, Lambda ends the function after 25, and the
/// last call has to come back.
const BUDGET: Duration = Duration::from_secs(22);

/// Answers the operators' routes below `/api/access`.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve(app, request, |call| answer(app, call)).await
}

async fn answer(app: &App, call: Call) -> Result<Reply, Problem> {
    let access = call.access_sync(app).await?;
    match (call.method().as_str(), call.route()) {
        ("GET", "/api/access/plan") => Reply::ok(&access.plan(BUDGET).await?),
        ("POST", "/api/access/plans/{id}/approve") => Reply::ok(&access.approve(id(&call)?, BUDGET).await?),
        ("GET", "/api/access/reviews") => {
            let page = call.page()?;
            list(access.reviews(many(page.limit), page.cursor).await?)
        }
        ("POST", "/api/access/reviews/{id}") => {
            let Decided(decision) = call.body()?;
            Reply::ok(&access.decide_review(id(&call)?, decision).await?)
        }
        ("GET", "/api/access/dead-letters") => {
            let page = call.page()?;
            list(access.dead_letters(many(page.limit), page.cursor).await?)
        }
        ("POST", "/api/access/dead-letters/{id}/replay") => Reply::ok(&access.replay(id(&call)?).await?),
        ("GET", "/api/access/scripts/{script_id}") => Reply::ok(&access.master_data(&script(&call)?).await?),
        ("PUT", "/api/access/scripts/{script_id}") => {
            let data = master_data(&script(&call)?, call.raw_body())?;
            Reply::ok(&access.import(data).await?)
        }
        ("POST", "/api/access/revocations") => {
            let wanted: Revocation = call.body()?;
            Reply::ok(&access.revoke(&wanted.transaction, wanted.cause, BUDGET).await?)
        }
        ("POST", "/api/access/resync") => {
            let Resync(product) = call.body()?;
            Reply::ok(&access.resync(&product, BUDGET).await?)
        }
        ("POST", "/api/access/repair") => Reply::ok(&access.repair(BUDGET).await?),
        _ => Err(call.not_served()),
    }
}

/// The variable `id` in the path.
fn id(call: &Call) -> Result<&str, Problem> {
    call.param("id").ok_or_else(|| call.not_served())
}

/// The script that the variable `script_id` in the path names.
fn script(call: &Call) -> Result<ScriptId, Problem> {
    let id = call.param("script_id").ok_or_else(|| call.not_served())?;
    Ok(ScriptId::new(id))
}

fn many(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn list<T: Serialize>(listed: Listed<T>) -> Result<Reply, Problem> {
    let next_cursor = listed.next.as_ref().map(paging::cursor).transpose()?;
    Reply::ok(&json!({"data": listed.data, "next_cursor": next_cursor}))
}

#[cfg(test)]
mod tests;
