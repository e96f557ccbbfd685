//! The function `portfolio`: a user's connections, and what is stored of the accounts under them.

mod input;
mod statements;

use berth::app::App;
use berth::http::{Call, Code, Problem, Reply, paging, serve};
use berth::ids::UserId;
use berth::portfolio::brokerages::{NoBrokerages, brokerages};
use berth::portfolio::changes::{Since, Tag};
use berth::portfolio::deleting;
use berth::portfolio::history::day_of;
use berth::portfolio::mode::mode;
use berth::portfolio::overview::{Overview, Part, Portfolio};
use berth::portfolio::refresh::{Purpose, RefreshError};
use berth::portfolio::transactions::Position;
use berth::snaptrade::ConnectionId;
use jiff::SignedDuration;
use lambda_http::http::StatusCode;
use lambda_http::http::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use lambda_http::{Body, Request, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use self::input::{ChangesSince, Transactions, Wanted, Whom};

/// How far back a history goes when its caller does not say.
const USUAL_HISTORY: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Answers the routes below `/api/portfolio`, `/api/snaptrade/connections` and `/api/snaptrade/brokerages`.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve(app, request, |call| answer(app, call)).await
}

async fn answer(app: &App, call: Call) -> Result<Reply, Problem> {
    match (call.method().as_str(), call.route()) {
        ("GET", "/api/snaptrade/connections") => connections(app, &call).await,
        ("DELETE", "/api/snaptrade/connections/{connection_id}") => delete(app, &call).await,
        ("GET", "/api/snaptrade/brokerages") => {
            let brokerages = brokerages(app, &call.identity.tenant).await;
            Reply::ok(&json!({"data": brokerages.map_err(no_brokerages)?}))
        }
        ("GET", "/api/portfolio/accounts") => {
            let Wanted { account, portfolio } = figures(app, &call).await?;
            let mut accounts = portfolio.accounts();
            accounts
                .data
                .retain(|shown| account.as_ref().is_none_or(|wanted| *wanted == shown.account_id));
            part(&accounts, None)
        }
        ("GET", "/api/portfolio/positions") => {
            let Wanted { account, portfolio } = figures(app, &call).await?;
            let positions = portfolio.positions(account.as_ref());
            let totals = berth::portfolio::figures::market_totals(&positions.data);
            part(&positions, Some(json!(totals)))
        }
        ("GET", "/api/portfolio/balances") => {
            let Wanted { account, portfolio } = figures(app, &call).await?;
            let balances = portfolio.balances(account.as_ref());
            let totals = berth::portfolio::figures::cash_totals(&balances.data);
            part(&balances, Some(json!(totals)))
        }
        ("GET", "/api/portfolio/transactions") => transactions(app, &call).await,
        ("GET", "/api/portfolio/performance") => performance(app, &call).await,
        ("POST", "/api/portfolio/statements") => statements::bring(app, &call).await,
        ("DELETE", "/api/portfolio/statements/{account_id}") => statements::take_away(app, &call).await,
        ("GET", "/api/portfolio/history") => history(app, &call).await,
        ("GET", "/api/portfolio/changes") => changes(app, &call).await,
        ("GET", "/api/portfolio/mode") => {
            let subject = subject(app, &call)?;
            match look(app, &call, &subject, Purpose::First).await {
                Ok(portfolio) => Reply::ok(&portfolio.mode()),
                // Who is not registered has no accounts, which is an answer here.
                Err(problem) if problem.code() == Code::NotRegistered => Reply::ok(&mode(&[])),
                Err(problem) => Err(problem),
            }
        }
        _ => Err(call.not_served()),
    }
}

/// The user whose figures are asked for, who may see any.
fn subject(app: &App, call: &Call) -> Result<UserId, Problem> {
    let Whom { user_id } = call.query()?;
    let subject = call.subject(user_id)?;
    allowed(app, &subject)?;
    Ok(subject)
}

/// Goes on only where figures are shown to `subject` at all.
fn allowed(app: &App, subject: &UserId) -> Result<(), Problem> {
    if app.config().flags.investment_sync.is_on_for(subject) {
        Ok(())
    } else {
        Err(Problem::new(Code::FeatureDisabled))
    }
}

async fn look(app: &App, call: &Call, subject: &UserId, purpose: Purpose) -> Result<Portfolio, Problem> {
    let connections = call.connections(app);
    let overview = Overview::new(app, &connections, call.identity.tenant.clone());
    Ok(Box::pin(overview.portfolio(subject, purpose)).await?)
}

/// The portfolio that is asked for, and the account where one is named, which has to be there.
async fn figures(app: &App, call: &Call) -> Result<Wanted, Problem> {
    let subject = subject(app, call)?;
    let account = input::account(call)?;
    let portfolio = look(app, call, &subject, Purpose::First).await?;
    if let Some(account) = &account {
        if !portfolio.has(account) {
            return Err(input::no_such_account());
        }
        if portfolio.is_awaited(account) {
            return Err(Problem::new(Code::NotSyncedYet));
        }
    }
    Ok(Wanted { account, portfolio })
}

async fn performance(app: &App, call: &Call) -> Result<Reply, Problem> {
    let Wanted {
        account,
        mut portfolio,
    } = figures(app, call).await?;
    let connections = call.connections(app);
    let overview = Overview::new(app, &connections, call.identity.tenant.clone());
    let performance = Box::pin(overview.performance(&mut portfolio, account.as_ref())).await?;
    part(&performance, None)
}

async fn history(app: &App, call: &Call) -> Result<Reply, Problem> {
    let Transactions(filter) = call.query()?;
    let Wanted { account, portfolio } = figures(app, call).await?;
    let connections = call.connections(app);
    let overview = Overview::new(app, &connections, call.identity.tenant.clone());
    let today = day_of(connections.runner().now());
    let last = filter.end.map_or(today, |end| end.min(today));
    let usual = last.checked_sub(USUAL_HISTORY).unwrap_or(last);
    let first = filter.start.unwrap_or(usual);
    part(
        &overview
            .history(&portfolio, account.as_ref(), first, last)
            .await?,
        None,
    )
}

async fn changes(app: &App, call: &Call) -> Result<Reply, Problem> {
    let (ChangesSince(since), subject) = input::both(call.query(), subject(app, call))?;
    let connections = call.connections(app);
    let overview = Overview::new(app, &connections, call.identity.tenant.clone());
    let changes = overview.changes(&subject).await?;
    let tag = changes.tag();
    let known = call
        .headers()
        .get(IF_NONE_MATCH)
        .and_then(|tags| tags.to_str().ok());
    let known: Vec<Tag> = known
        .unwrap_or_default()
        .split(',')
        .filter_map(Tag::parse)
        .collect();
    let reply = if known.contains(&tag) {
        Reply::empty(StatusCode::NOT_MODIFIED)
    } else {
        let since = since
            .or_else(|| known.first().copied().map(Since::Tag))
            .unwrap_or(Since::Ever);
        Reply::ok(&json!({"etag": tag.text(), "changed": changes.since(&since)}))?
    };
    let tag = HeaderValue::from_str(&tag.header())
        .map_err(|error| Problem::new(Code::Unavailable).because(error))?;
    Ok(reply.header(ETAG, tag))
}

async fn transactions(app: &App, call: &Call) -> Result<Reply, Problem> {
    let (Transactions(filter), page) = input::both(call.query(), call.page::<Position>())?;
    let Wanted {
        account,
        mut portfolio,
    } = figures(app, call).await?;
    let connections = call.connections(app);
    let overview = Overview::new(app, &connections, call.identity.tenant.clone());
    let page = (page.limit, page.cursor.as_ref());
    let read = overview.transactions(&mut portfolio, account.as_ref(), &filter, page);
    let (listed, next) = Box::pin(read).await?;
    let next_cursor = next.as_ref().map(paging::cursor).transpose()?;
    Reply::ok(&json!({
        "data": listed.data, "next_cursor": next_cursor, "as_of": listed.as_of, "stale": listed.stale,
    }))
}

/// An answer with a part of a portfolio, its sums where it has any, and how fresh it is.
fn part<T: Serialize>(part: &Part<T>, totals: Option<Value>) -> Result<Reply, Problem> {
    let mut answer = Map::new();
    answer.insert("data".to_owned(), json!(part.data));
    if let Some(totals) = totals {
        answer.insert("totals".to_owned(), totals);
    }
    answer.insert("as_of".to_owned(), json!(part.as_of));
    answer.insert("stale".to_owned(), json!(part.stale));
    Reply::ok(&answer)
}

async fn connections(app: &App, call: &Call) -> Result<Reply, Problem> {
    let Whom { user_id } = call.query()?;
    let subject = call.subject(user_id)?;
    let portfolio = look(app, call, &subject, Purpose::Lists).await?;
    Reply::ok(&json!({"data": portfolio.connections()}))
}

async fn delete(app: &App, call: &Call) -> Result<Reply, Problem> {
    let Whom { user_id } = call.query()?;
    let subject = call.subject(user_id)?;
    let no_such = || Problem::new(Code::NotFound).detail("The user has no such connection.");
    let connection = call
        .param("connection_id")
        .filter(|id| input::is_id(id))
        .map(ConnectionId::new)
        .ok_or_else(no_such)?;
    let connections = call.connections(app);
    let user = connections.runner().user(&subject.stem()).await?;
    let deleted = deleting::delete(app, &connections, &call.identity.tenant, user, &connection);
    match Box::pin(deleted).await {
        Ok(()) => Reply::accepted(&json!({"connection_id": connection.as_str(), "deleted": "queued"})),
        Err(RefreshError::NotFound) => Err(no_such()),
        Err(error) => Err(error.into()),
    }
}

fn no_brokerages(error: NoBrokerages) -> Problem {
    match error {
        NoBrokerages::Snaptrade(error) => error.into(),
        NoBrokerages::Store(error) => error.into(),
    }
}
