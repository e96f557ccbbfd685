//! The function `handle-limit`: makes sure that there is a place for a caller who met the limit, and keeps it.

use berth::app::App;
use berth::http::{Call, NamedUser, Problem, Reply, serve};
use lambda_http::{Body, Request, Response};

/// Answers `POST /api/snaptrade/handle-connection-limit`.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve(app, request, |call| answer(app, call)).await
}

async fn answer(app: &App, call: Call) -> Result<Reply, Problem> {
    let user = call.subject(call.body::<NamedUser>()?.user_id)?;
    Reply::ok(&call.connections(app).hold(&user).await?)
}
