//! The function `refresh`: reads a user's accounts, balances and positions from SnapTrade now.

use berth::app::App;
use berth::connections::Failure;
use berth::http::fields::{text_of, user_id};
use berth::http::{Call, Code, Fields, Input, Problem, Reply, serve};
use berth::ids::{TenantId, UserId};
use berth::portfolio::provider::PortfolioAccountId;
use berth::portfolio::refresh::{Purpose, Refresh, RefreshError, RefreshFault, Scope};
use berth::portfolio::schedule::{self, ScheduleReport};
use berth::snaptrade::ConnectionId;
use lambda_http::{Body, Request, Response};

/// Longest id of an account or a connection that is taken, in characters.
const ID_MAX_CHARS: usize = 128;

/// After how many seconds it makes sense to ask again for what SnapTrade is still collecting.
const NOT_SYNCED_RETRY: u32 = 30;

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
    let refreshed = Box::pin(refresh.run(user, &scope, Purpose::Manual))
        .await
        .map_err(problem)?;
    Reply::ok(&refreshed)
}

/// Which accounts are meant. An account's id says enough; a connection named beside it has to have it.
fn scope(account: Option<String>, connection: Option<String>) -> Result<Scope, Problem> {
    let connection = connection.map(ConnectionId::new);
    match account {
        Some(text) => {
            let account = PortfolioAccountId::parse(&text).ok_or_else(not_found)?;
            Ok(Scope::Account {
                account: account.account().clone(),
                connection,
            })
        }
        None => Ok(connection.map_or(Scope::All, Scope::Connection)),
    }
}

fn not_found() -> Problem {
    Problem::new(Code::NotFound).detail("The user has no such account or connection.")
}

fn problem(error: RefreshError) -> Problem {
    match error {
        RefreshError::NotFound => not_found(),
        RefreshError::InProgress => {
            Problem::new(Code::OperationInProgress).detail("This user's data are being refreshed right now.")
        }
        RefreshError::Throttled(wait) => Problem::new(Code::RateLimited)
            .detail("SnapTrade wants fewer calls.")
            .retry_after(u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)),
        RefreshError::Fault(RefreshFault::Error) => Problem::new(Code::UpstreamError),
        RefreshError::Fault(RefreshFault::Timeout) => Problem::new(Code::UpstreamTimeout),
        RefreshError::Fault(RefreshFault::NotSynced) => {
            Problem::new(Code::NotSyncedYet).retry_after(NOT_SYNCED_RETRY)
        }
        RefreshError::Failure(failure) => failure.into(),
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
