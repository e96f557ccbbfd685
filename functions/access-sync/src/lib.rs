//! The function `access-sync`: gives the shop's customers the access that they paid for, on demand and on a schedule.

use std::time::Duration;

use berth::access::report::Report;
use berth::access::schedule;
use berth::app::App;
use berth::http::fields::boolean_word;
use berth::http::{Call, Fields, Input, Problem, Reply, serve};
use lambda_http::{Body, Request, Response};
use lambda_runtime::Diagnostic;

/// How long a run on demand may take: API Gateway waits for 30 seconds, Lambda ends the function after 25, and the
/// last call has to come back. The schedule carries on from where it stops.
const BUDGET: Duration = Duration::from_secs(22);

/// Answers `POST /api/access/sync` and `POST /sync`.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve(app, request, |call| answer(app, call)).await
}

async fn answer(app: &App, call: Call) -> Result<Reply, Problem> {
    let access = call.access_sync(app).await?;
    let Wanted { dry_run } = call.query()?;
    Reply::ok(&access.sync(dry_run, BUDGET).await?)
}

/// What is asked for in the query.
struct Wanted {
    dry_run: bool,
}

impl Input for Wanted {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let dry_run = fields.or("dry_run", false, boolean_word)?;
        Some(Self { dry_run })
    }
}

/// Runs the sync for the schedule, if its interval has passed; `None` where nothing was due.
///
/// # Errors
/// What the run could not go on without; the next one tries again.
pub async fn run(app: &App) -> Result<Option<Report>, Diagnostic> {
    schedule::sync(app).await
}
