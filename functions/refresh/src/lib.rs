//! The function `refresh`: reads a user's accounts, balances and positions from SnapTrade now.

use berth::app::App;
use berth::connections::Failure;
use berth::http::fields::{text_of, user_id};
use berth::http::{Call, Code, Fields, Input, Problem, Reply, serve};
use berth::ids::{TenantId, UserId};
use berth::portfolio::provider::PortfolioAccountId;
use berth::portfolio::refresh::{Purpose, Refresh, RefreshError, Scope};
use berth::portfolio::schedule::{self, ScheduleReport};
use berth::snaptrade::ConnectionId;
use lambda_http::{Body, Request, Response};

/// Longest id of an account or a connection that is taken, in characters.
const ID_MAX_CHARS: usize = 128;

/// Answers `POST /api/snaptrade/refresh`.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve(app, request, |call| answer(app, call)).await
}

async fn answer(app: &App, call: Call) -> Result<Reply, Problem> {
    let wanted: Wanted = call.body()?;
    let subject = call.subject(wanted.user_id)?;
    if !app.config().flags.investment_sync.is_on_for(&subject) {
        return Err(Problem::new(Code::FeatureDisabled));
    }
    let scope = scope(wanted.account_id, wanted.connection_id)?;
    let connections = call.connections(app);
    let user = connections.runner().user(&subject.stem()).await?;
    let refresh = Refresh::new(app, &connections, call.identity.tenant.clone());
    let refreshed = Box::pin(refresh.run(user, &scope, Purpose::Manual)).await?;
    Reply::ok(&refreshed)
}

/// Which accounts are meant. An account's id says enough; a connection named beside it has to have it.
fn scope(account: Option<String>, connection: Option<String>) -> Result<Scope, Problem> {
    let connection = connection.map(ConnectionId::new);
    match account {
        Some(text) => {
            let account = PortfolioAccountId::parse(&text).ok_or(RefreshError::NotFound)?;
            Ok(Scope::Account {
                account: account.at_snaptrade().ok_or(RefreshError::NotFound)?.clone(),
                connection,
            })
        }
        None => Ok(connection.map_or(Scope::All, Scope::Connection)),
    }
}

/// The body.
struct Wanted {
    user_id: Option<UserId>,
    account_id: Option<String>,
    connection_id: Option<String>,
}

impl Input for Wanted {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let user_id = fields.optional("user_id", user_id);
        let account_id = fields.optional("account_id", text_of(1..=ID_MAX_CHARS));
        let connection_id = fields.optional("connection_id", text_of(1..=ID_MAX_CHARS));
        Some(Self {
            user_id: user_id?,
            account_id: account_id?,
            connection_id: connection_id?,
        })
    }
}

/// Refreshes those users whose turn it is, for the schedule.
///
/// # Errors
/// [`Failure`] when it is not known whose turn it is; the next run tries again.
pub async fn run(app: &App) -> Result<ScheduleReport, Failure> {
    let report = schedule::run(app, &TenantId::default()).await?;
    tracing::info!(
        due = report.due,
        refreshed = report.refreshed,
        failed = report.failed,
        left = report.left,
        "refreshed on the schedule"
    );
    Ok(report)
}
