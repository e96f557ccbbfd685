//! The function `status`: whether Berth is up, how its parts are, and the answer to paths that no route has. API
//! Gateway sends preflight requests here, too.

use berth::app::App;
use berth::http::{OpenCall, Problem, Reply, serve_open};
use lambda_http::{Body, Request, Response};
use serde_json::json;

/// The version that is running.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Answers a request that API Gateway sends here by one of this function's routes or by its `$default` route.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve_open(app, request, |call| answer(app, call)).await
}

async fn answer(_app: &App, call: OpenCall) -> Result<Reply, Problem> {
    match (call.method().as_str(), call.route()) {
        ("GET", "/") => Reply::ok(&json!({"status": "ok", "version": VERSION})),
        _ => Err(call.not_served()),
    }
}
