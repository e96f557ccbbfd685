//! How the limit stands.

use berth::app::App;
use berth::http::{Call, Problem, Reply};

/// Answers `GET /api/snaptrade/status`. Operators see tracking beside SnapTrade's own list; for others nothing
/// outside the table is asked.
pub async fn status(app: &App, call: &Call) -> Result<Reply, Problem> {
    let status = call
        .connections(app)
        .status(&call.identity.user_id, call.is_operator())
        .await?;
    Reply::ok(&status)
}
