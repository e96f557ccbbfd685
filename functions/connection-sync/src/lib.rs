//! The function `connection-sync`: brings tracking in line with SnapTrade's list, on demand and on a schedule.

use berth::app::App;
use berth::connections::sync::Synced;
use berth::connections::{Connections, Failure};
use berth::http::{Call, Problem, Reply, serve};
use berth::ids::TenantId;
use lambda_http::{Body, Request, Response};

/// Answers `POST /api/snaptrade/sync`.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve(app, request, |call| answer(app, call)).await
}

async fn answer(app: &App, call: Call) -> Result<Reply, Problem> {
    call.require_operator()?;
    Reply::ok(&call.connections(app).sync().await?)
}

/// Runs the sync for the schedule. Another run under way is no failure: it does the same work.
///
/// # Errors
/// [`Failure`] when SnapTrade or the store could not be used; the schedule tries again.
pub async fn run(app: &App) -> Result<Option<Synced>, Failure> {
    let connections = Connections::new(app, TenantId::default(), "schedule:connection-sync", true);
    match connections.sync().await {
        Ok(synced) => {
            tracing::info!(
                added = synced.added,
                removed = synced.removed,
                repaired = synced.repaired,
                upstream_count = synced.upstream_count,
                tracked_count = synced.tracked_count,
                complete = synced.complete,
                "synced"
            );
            Ok(Some(synced))
        }
        Err(Failure::NotSynced(berth::connections::sync::NotSynced::Running { .. })) => Ok(None),
        Err(failure) => Err(failure),
    }
}
