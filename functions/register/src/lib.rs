//! The function `register`: registers a user at SnapTrade, making room where there is none.

use berth::app::App;
use berth::http::{Call, NamedUser, Problem, Reply, serve};
use lambda_http::{Body, Request, Response};

/// Answers `POST /api/snaptrade/register`.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve(app, request, |call| answer(app, call)).await
}

async fn answer(app: &App, call: Call) -> Result<Reply, Problem> {
    let user = call.subject(call.body::<NamedUser>()?.user_id)?;
    let registered = call.connections(app).register(&user).await?;
    if registered.created {
        Reply::created(&registered)
    } else {
        Reply::ok(&registered)
    }
}
