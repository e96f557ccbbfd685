//! Refreshing a user's data: at once for somebody who waits, or by and by on a schedule.
//!
//! Calls that come at once, or within [`TOGETHER`], are one: the first takes a lease, the others wait for its result. A
//! refresh makes two calls to SnapTrade for the lists, two for each account, and where somebody waits one for each
//! working connection, which asks SnapTrade to fetch anew from the brokerage; that is asked for every [`ASK_AGAIN`] at
//! most. What cannot be read stays as it was and is called stale.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::accounts::{self, AccountView, StoredAccount};
use super::connections::{ConnectionState, StoredConnection};
use super::performance;
use super::provider::PortfolioAccountId;
use super::reader::{DEFAULT_RATE_WAIT, HoldingsRead, ReadError, Reader, Subject};
use super::schedule;
use super::usage::Usage;
use super::userdata::{Snapshot, UserData};
use crate::app::App;
use crate::connections::records::UserRecord;
use crate::connections::runner::new_attempt;
use crate::connections::timing::{SKEW, after, between};
use crate::connections::{Connections, Failure};
use crate::ids::{AttemptId, TenantId, UpstreamId, UserId};
use crate::snaptrade::{AccountId, ConnectionId, ErrorKind};
use crate::store::StoreError;

/// Calls that come within this time of a finished refresh are answered with its result.
pub const TOGETHER: Duration = Duration::from_secs(10);

/// How long a refresh has the user's data to itself: longer than it works.
const LEASE: Duration = Duration::from_secs(30);

/// How long a refresh works at most for somebody who waits.
const MANUAL_BUDGET: Duration = Duration::from_secs(16);

/// How long a call waits for the result of another one.
const JOIN_BUDGET: Duration = Duration::from_secs(18);

/// How long a call may take in all, of the 25 seconds that the function has.
const WHOLE_BUDGET: Duration = Duration::from_secs(22);

/// How often a call that waits looks for the result.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How long SnapTrade is not asked again to fetch a connection anew: four times a day at most. Some plans pay for it.
pub const ASK_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// After how long the schedule reads an account's holdings again although SnapTrade does not say that they are newer.
/// SnapTrade asks for four readings a day and user at most.
const READ_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// How long a new connection may be without accounts before that is believed.
const FIRST_SYNC: Duration = Duration::from_secs(10 * 60);

/// Which of a user's accounts a refresh is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All.
    All,
    /// Those under one connection.
    Connection(ConnectionId),
    /// One.
    Account {
        /// Its id.
        account: AccountId,
        /// The connection that it has to belong to, where one is named.
        connection: Option<ConnectionId>,
    },
}

impl Scope {
    /// Whether a refresh of this is one of `other`, too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        *self == Self::All || self == other
    }

    fn has(&self, account: &StoredAccount) -> bool {
        match self {
            Self::All => true,
            Self::Connection(id) => account.connection_id == *id,
            Self::Account {
                account: id,
                connection,
            } => {
                account.account_id == *id
                    && connection
                        .as_ref()
                        .is_none_or(|connection| account.connection_id == *connection)
            }
        }
    }

    fn touches(&self, connection: &StoredConnection, accounts: &[StoredAccount]) -> bool {
        match self {
            Self::All => true,
            Self::Connection(id) => connection.connection_id == *id,
            Self::Account { .. } => accounts
                .iter()
                .any(|account| self.has(account) && account.connection_id == connection.connection_id),
        }
    }

    /// Whether `snapshot` has what this names.
    fn exists(&self, snapshot: &Snapshot) -> bool {
        match self {
            Self::All => true,
            Self::Connection(id) => snapshot
                .connections()
                .iter()
                .any(|connection| connection.connection_id == *id),
            Self::Account { .. } => snapshot
                .connected_accounts()
                .any(|(account, _)| self.has(account)),
        }
    }
}

/// For whom a refresh is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// For somebody who asks for it and waits: everything is read, and the brokerages are asked for newer data.
    Manual,
    /// For somebody who looks at data that were never read, and waits: everything is read.
    First,
    /// For somebody who looks at connections that were never read, and waits: nothing else is read.
    Lists,
    /// On the schedule, until this time: only what may have changed is read, and nothing is asked of the brokerages.
    Background {
        /// When it has to be over.
        deadline: Instant,
    },
}

/// How much a refresh does. Each does what those before it do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// It reads the lists of connections and accounts.
    Lists,
    /// It reads what accounts hold.
    #[default]
    Holdings,
    /// It has the brokerages asked for newer data.
    Brokerages,
}

impl Purpose {
    /// How much has to be done for it.
    fn depth(self) -> Depth {
        match self {
            Self::Lists => Depth::Lists,
            Self::First | Self::Background { .. } => Depth::Holdings,
            Self::Manual => Depth::Brokerages,
        }
    }

    fn is_background(self) -> bool {
        matches!(self, Self::Background { .. })
    }
}

/// Whether SnapTrade fetches anew from the brokerage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamRefresh {
    /// It does; webhooks will say when it is done.
    Requested,
    /// It was asked for too short a while ago.
    TooRecent,
    /// Our plan or the brokerage does not offer it, or it could not be asked for.
    NotAvailable,
}

/// When SnapTrade was last asked to fetch a connection anew, and what it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The connection.
    pub connection_id: ConnectionId,
    /// When.
    pub at: Timestamp,
    /// What it said.
    pub answer: UpstreamRefresh,
}

/// A user's last refresh, and the one under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshRecord {
    /// Grows with every write.
    pub rev: u64,
    /// The user's id at SnapTrade.
    pub upstream: UpstreamId,
    /// Who refreshes, or did last.
    pub run: AttemptId,
    /// Until when the one under way has the data to itself; the beginning of time where none is under way.
    pub until: Timestamp,
    /// How the last one ended.
    pub finished: Option<Finished>,
    /// What SnapTrade was asked to fetch anew.
    pub asked: Vec<Asked>,
    /// When the schedule is to refresh.
    pub due_at: Timestamp,
    /// The calls to SnapTrade that refreshes have made.
    #[serde(default)]
    pub used: Usage,
}

/// How a refresh ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// When.
    pub at: Timestamp,
    /// What it was about.
    pub scope: Scope,
    /// How much was done.
    #[serde(default)]
    pub depth: Depth,
    /// Why there was nothing to answer, where that is so.
    pub fault: Option<RefreshFault>,
    /// When the data were last read from SnapTrade.
    pub refreshed_at: Option<Timestamp>,
    /// The accounts that could not be read.
    pub failed: Vec<AccountId>,
    /// Whether SnapTrade fetches anew.
    pub upstream_refresh: UpstreamRefresh,
    /// When what SnapTrade did not allow now is done.
    pub retry_at: Option<Timestamp>,
}

/// Why a refresh has nothing to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshFault {
    /// SnapTrade answered with an error or nonsense, and nothing is stored.
    Error,
    /// SnapTrade did not answer, and nothing is stored.
    Timeout,
    /// SnapTrade is still collecting the data, and nothing is stored.
    NotSynced,
}

/// Why a refresh was not made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RefreshError {
    /// The user has no such account or connection.
    #[error("the user has no such account or connection")]
    NotFound,
    /// Another refresh of the same user takes too long.
    #[error("another refresh of the same user is under way")]
    InProgress,
    /// SnapTrade wants fewer calls, and what is asked for is not known here yet.
    #[error("SnapTrade wants fewer calls")]
    Throttled(Duration),
    /// There is nothing to answer.
    #[error("there is nothing to answer: {0:?}")]
    Fault(RefreshFault),
    /// The user cannot be acted for, or the store could not be used.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<StoreError> for RefreshError {
    fn from(error: StoreError) -> Self {
        Self::Failure(error.into())
    }
}

impl From<ReadError> for RefreshError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Failure(failure) => Self::Failure(failure),
            ReadError::Snaptrade(error) => match error.kind {
                ErrorKind::RateLimited { retry_after } => {
                    Self::Throttled(retry_after.unwrap_or(DEFAULT_RATE_WAIT))
                }
                kind => Self::Fault(fault(kind)),
            },
        }
    }
}

/// The answer to a refresh.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Refreshed {
    /// Whose data they are.
    pub user_id: UserId,
    /// When they were last read from SnapTrade.
    pub refreshed_at: Option<Timestamp>,
    /// The accounts.
    pub accounts: Vec<AccountView>,
    /// Whether SnapTrade fetches anew.
    pub upstream_refresh: UpstreamRefresh,
    /// Those of the accounts whose data are older than they should be.
    pub stale: Vec<PortfolioAccountId>,
    /// Whether what SnapTrade did not allow now is done later.
    pub retry_scheduled: bool,
    /// When that is.
    pub retry_at: Option<Timestamp>,
}

/// What a call for a refresh has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Begin {
    /// Refresh.
    Go,
    /// Wait for the one under way.
    Wait,
    /// Answer with this result.
    Answer(Finished),
}

/// What a call for a refresh of `scope` under the id `upstream` has to do, by the record of refreshes.
fn begin(
    record: Option<&RefreshRecord>,
    upstream: &UpstreamId,
    scope: &Scope,
    depth: Depth,
    now: Timestamp,
) -> Begin {
    let Some(record) = record.filter(|record| record.upstream == *upstream) else {
        return Begin::Go;
    };
    // A lease that ends further ahead than any lease lasts was made before the clock was put back.
    if record.until > now && record.until <= after(now, LEASE + SKEW) {
        return Begin::Wait;
    }
    match &record.finished {
        Some(finished)
            if finished.scope.covers(scope)
                && finished.depth >= depth
                && finished.at <= after(now, SKEW)
                && between(finished.at, now) < TOGETHER =>
        {
            Begin::Answer(finished.clone())
        }
        _ => Begin::Go,
    }
}

/// The accounts that a refresh reads, and those of which it is known without a call that SnapTrade has nothing yet.
fn targets(
    snapshot: &Snapshot,
    scope: &Scope,
    purpose: Purpose,
    now: Timestamp,
) -> (Vec<AccountId>, Vec<AccountId>) {
    let (mut wanted, mut unsynced) = (Vec::new(), Vec::new());
    for (account, connection) in snapshot.connected_accounts() {
        let stored = snapshot.holdings.get(&account.account_id);
        let wants = match (purpose, stored) {
            (Purpose::Lists, _) => false,
            (_, None) | (Purpose::Manual | Purpose::First, _) => true,
            (Purpose::Background { .. }, Some(stored)) => {
                let newer = account.synced_at.is_some_and(|at| at > stored.read_at);
                let old = between(stored.read_at, now) >= READ_AGAIN;
                newer || (old && connection.state == ConnectionState::Active)
            }
        };
        if !scope.has(account) || !wants {
            continue;
        }
        // What SnapTrade says of an account that it has not read yet looks like an empty one.
        if account.synced {
            wanted.push(account.account_id.clone());
        } else {
            unsynced.push(account.account_id.clone());
        }
    }
    (wanted, unsynced)
}

/// The connections that SnapTrade is asked to fetch anew, and what is known of the others without asking.
fn to_ask(
    snapshot: &Snapshot,
    asked: &[Asked],
    scope: &Scope,
    now: Timestamp,
) -> (Vec<ConnectionId>, Vec<UpstreamRefresh>) {
    let (mut ask, mut known) = (Vec::new(), Vec::new());
    for connection in snapshot.connections() {
        if connection.state != ConnectionState::Active || !scope.touches(connection, snapshot.accounts()) {
            continue;
        }
        let last = asked
            .iter()
            .find(|asked| asked.connection_id == connection.connection_id);
        match last.filter(|asked| between(asked.at, now) < ASK_AGAIN) {
            Some(asked) if asked.answer == UpstreamRefresh::NotAvailable => known.push(asked.answer),
            Some(_) => known.push(UpstreamRefresh::TooRecent),
            None => ask.push(connection.connection_id.clone()),
        }
    }
    (ask, known)
}

/// One word for what SnapTrade said of several connections.
fn summed(answers: &[UpstreamRefresh]) -> UpstreamRefresh {
    [UpstreamRefresh::Requested, UpstreamRefresh::TooRecent]
        .into_iter()
        .find(|answer| answers.contains(answer))
        .unwrap_or(UpstreamRefresh::NotAvailable)
}

/// Whether there is nothing to show because SnapTrade is still collecting.
fn nothing_yet(snapshot: &Snapshot, scope: &Scope, failed: &HoldingsRead, now: Timestamp) -> bool {
    let mut accounts = snapshot
        .connected_accounts()
        .filter(|(account, _)| scope.has(account))
        .peekable();
    if accounts.peek().is_none() {
        return snapshot.connections().iter().any(|connection| {
            scope.touches(connection, snapshot.accounts())
                && connection.state == ConnectionState::Active
                && connection
                    .created_at
                    .is_some_and(|created| between(created, now) < FIRST_SYNC)
        });
    }
    accounts.all(|(account, _)| {
        !snapshot.holdings.contains_key(&account.account_id)
            && failed.failed.get(&account.account_id) == Some(&ErrorKind::NotSynced)
    })
}

/// What a failed call leaves to answer, where nothing is stored.
pub(super) fn fault(kind: ErrorKind) -> RefreshFault {
    match kind {
        ErrorKind::Timeout | ErrorKind::Unreachable => RefreshFault::Timeout,
        ErrorKind::NotSynced => RefreshFault::NotSynced,
        _ => RefreshFault::Error,
    }
}

/// Refreshes the data of one tenant's users.
pub struct Refresh<'a> {
    app: &'a App,
    connections: &'a Connections<'a>,
    tenant: TenantId,
}

/// What a run found out, besides what it stored.
struct Run {
    finished: Finished,
    asked: Vec<Asked>,
    error: Option<RefreshError>,
}

impl<'a> Refresh<'a> {
    /// Refreshes data of `tenant`'s users.
    #[must_use]
    pub fn new(app: &'a App, connections: &'a Connections<'a>, tenant: TenantId) -> Self {
        Self {
            app,
            connections,
            tenant,
        }
    }

    /// Refreshes what `scope` names of the user's data, or waits for somebody else's refresh of it.
    ///
    /// # Errors
    /// [`RefreshError`].
    pub async fn run(
        &self,
        user: Option<UserRecord>,
        scope: &Scope,
        purpose: Purpose,
    ) -> Result<Refreshed, RefreshError> {
        let subject = Subject::open(self.connections, user).await?;
        let data = UserData::new(self.app.store(), &self.tenant, &subject.user.stem);
        let started = Instant::now();
        let mut snapshot = data.snapshot(&subject.upstream, self.now()).await?;
        let mut record = snapshot.refresh.clone();
        let mine = loop {
            let now = self.now();
            match begin(record.as_ref(), &subject.upstream, scope, purpose.depth(), now) {
                Begin::Answer(finished) => {
                    let snapshot = data.snapshot(&subject.upstream, now).await?;
                    return self.answer(&subject, &snapshot, scope, &finished);
                }
                Begin::Go => {
                    if let Some(wait) = self.over_plan(record.as_ref(), &subject.upstream, now) {
                        return self
                            .put_off(&subject, &data, &snapshot, record.as_ref(), scope, wait)
                            .await;
                    }
                    let mine = taken(record.as_ref(), &subject.upstream, now);
                    if data.put_refresh(&mine, record.as_ref(), now).await? {
                        break mine;
                    }
                }
                Begin::Wait if purpose.is_background() || started.elapsed() >= JOIN_BUDGET => {
                    return Err(RefreshError::InProgress);
                }
                Begin::Wait => tokio::time::sleep(LOOK_AGAIN).await,
            }
            record = data.refresh(self.now()).await?;
        };
        let deadline = match purpose {
            Purpose::Manual | Purpose::First | Purpose::Lists => {
                let left = WHOLE_BUDGET.saturating_sub(started.elapsed());
                let budget = left.min(MANUAL_BUDGET);
                Instant::now().checked_add(budget).unwrap_or(started)
            }
            Purpose::Background { deadline } => deadline,
        };
        let reader = Reader::new(self.app, self.connections, &self.tenant, &subject, deadline);
        let run = Box::pin(self.read(&reader, &subject, &mine, &mut snapshot, scope, purpose)).await;
        self.finish(&data, mine, &run, reader.calls()).await;
        let run = run?;
        match run.error {
            Some(error) => Err(error),
            None => self.answer(&subject, &snapshot, scope, &run.finished),
        }
    }

    /// For how long the plan allows no refresh of this user. It is looked at before a refresh and not within one, so
    /// that the last one may go over it by its own calls.
    fn over_plan(
        &self,
        record: Option<&RefreshRecord>,
        upstream: &UpstreamId,
        now: Timestamp,
    ) -> Option<Duration> {
        let record = record.filter(|record| record.upstream == *upstream)?;
        record.used.wait(self.app.config().plan(), now)
    }

    /// Leaves to the schedule what the plan does not allow before `wait` has passed, and answers with what is stored.
    async fn put_off(
        &self,
        subject: &Subject,
        data: &UserData<'_>,
        snapshot: &Snapshot,
        record: Option<&RefreshRecord>,
        scope: &Scope,
        wait: Duration,
    ) -> Result<Refreshed, RefreshError> {
        if !scope.exists(snapshot) {
            return Err(RefreshError::Throttled(wait));
        }
        let now = self.now();
        let retry_at = self.retry_at(wait).await?;
        defer(data, record, &subject.upstream, retry_at, now).await?;
        let failed = snapshot
            .connected_accounts()
            .filter(|(account, _)| scope.has(account))
            .map(|(account, _)| account.account_id.clone());
        let finished = Finished {
            at: now,
            scope: scope.clone(),
            depth: Depth::Lists,
            fault: None,
            refreshed_at: snapshot.accounts.as_ref().map(|reading| reading.read_at),
            failed: failed.collect(),
            upstream_refresh: UpstreamRefresh::NotAvailable,
            retry_at: Some(retry_at),
        };
        self.answer(subject, snapshot, scope, &finished)
    }

    /// Reads what the refresh is about; `snapshot` becomes as it is afterwards.
    async fn read(
        &self,
        reader: &Reader<'_>,
        subject: &Subject,
        mine: &RefreshRecord,
        snapshot: &mut Snapshot,
        scope: &Scope,
        purpose: Purpose,
    ) -> Result<Run, RefreshError> {
        let mut run = Run {
            finished: Finished {
                at: self.now(),
                scope: scope.clone(),
                depth: purpose.depth(),
                fault: None,
                refreshed_at: snapshot.accounts.as_ref().map(|reading| reading.read_at),
                failed: Vec::new(),
                upstream_refresh: UpstreamRefresh::NotAvailable,
                retry_at: None,
            },
            asked: mine.asked.clone(),
            error: None,
        };
        if let Err(error) = Box::pin(reader.lists(snapshot)).await {
            return self.without_lists(run, snapshot, scope, error).await;
        }
        let now = self.now();
        run.finished.refreshed_at = snapshot.accounts.as_ref().map(|reading| reading.read_at);
        if !scope.exists(snapshot) {
            run.error = Some(RefreshError::NotFound);
            return Ok(run);
        }
        Box::pin(reader.finish_deletions(snapshot)).await;
        let (wanted, unsynced) = targets(snapshot, scope, purpose, now);
        let (read, answers) = tokio::join!(
            Box::pin(reader.holdings(&wanted, &snapshot.holdings)),
            Box::pin(self.ask(reader, subject, snapshot, &mut run.asked, scope, purpose)),
        );
        let mut read = match read {
            Ok(read) => read,
            Err(ReadError::Failure(failure)) => return Err(failure.into()),
            Err(ReadError::Snaptrade(error)) => return Err(RefreshError::Fault(fault(error.kind))),
        };
        if purpose.is_background() && read.throttled.is_none() {
            read.throttled = Box::pin(daily(reader, snapshot, now)).await?;
        }
        snapshot.holdings.append(&mut read.read);
        for account in unsynced {
            read.failed.insert(account, ErrorKind::NotSynced);
        }
        run.finished.upstream_refresh = summed(&answers);
        if let Some(wait) = read.throttled {
            run.finished.retry_at = Some(self.retry_at(wait).await?);
        } else if nothing_yet(snapshot, scope, &read, now) {
            run.finished.fault = Some(RefreshFault::NotSynced);
            run.error = Some(RefreshError::Fault(RefreshFault::NotSynced));
        }
        run.finished.failed = read.failed.into_keys().collect();
        run.finished.at = self.now();
        Ok(run)
    }

    /// What is to be said when SnapTrade does not even give the lists.
    async fn without_lists(
        &self,
        mut run: Run,
        snapshot: &Snapshot,
        scope: &Scope,
        error: ReadError,
    ) -> Result<Run, RefreshError> {
        let error = match error {
            ReadError::Failure(failure) => return Err(failure.into()),
            ReadError::Snaptrade(error) => error,
        };
        tracing::warn!(%error, "a user's data could not be refreshed");
        run.finished.at = self.now();
        run.finished.failed = snapshot
            .connected_accounts()
            .filter(|(account, _)| scope.has(account))
            .map(|(account, _)| account.account_id.clone())
            .collect();
        match error.kind {
            ErrorKind::RateLimited { retry_after } => {
                let wait = retry_after.unwrap_or(DEFAULT_RATE_WAIT);
                run.finished.retry_at = Some(self.retry_at(wait).await?);
                if !scope.exists(snapshot) {
                    run.error = Some(RefreshError::Throttled(wait));
                }
            }
            kind if run.finished.failed.is_empty() => {
                run.finished.fault = Some(fault(kind));
                run.error = Some(RefreshError::Fault(fault(kind)));
            }
            _ => {}
        }
        Ok(run)
    }

    /// Asks SnapTrade to fetch anew what may be asked for again, and notes that in `asked`.
    async fn ask(
        &self,
        reader: &Reader<'_>,
        subject: &Subject,
        snapshot: &Snapshot,
        asked: &mut Vec<Asked>,
        scope: &Scope,
        purpose: Purpose,
    ) -> Vec<UpstreamRefresh> {
        if purpose != Purpose::Manual {
            return Vec::new();
        }
        let now = self.now();
        let (ask, mut answers) = to_ask(snapshot, asked, scope, now);
        for connection in ask {
            let answer = match reader
                .client()
                .refresh_connection(&subject.credentials, &connection)
                .await
            {
                Ok(_) => UpstreamRefresh::Requested,
                Err(error) => {
                    tracing::info!(%error, "SnapTrade does not fetch a connection anew");
                    match error.kind {
                        ErrorKind::RateLimited { .. } => UpstreamRefresh::TooRecent,
                        _ => UpstreamRefresh::NotAvailable,
                    }
                }
            };
            asked.retain(|asked| asked.connection_id != connection);
            asked.push(Asked {
                connection_id: connection,
                at: now,
                answer,
            });
            answers.push(answer);
        }
        let listed: BTreeSet<&ConnectionId> = snapshot
            .connections()
            .iter()
            .map(|connection| &connection.connection_id)
            .collect();
        asked.retain(|asked| listed.contains(&asked.connection_id));
        answers
    }

    /// When the schedule does what SnapTrade does not allow before `wait` has passed.
    async fn retry_at(&self, wait: Duration) -> Result<Timestamp, RefreshError> {
        let now = self.now();
        let ran_at = schedule::ran_at(self.app.store(), &self.tenant, now).await?;
        Ok(schedule::next_run(ran_at, after(now, wait)))
    }

    /// Gives the lease back with the result. When that cannot be written, the lease runs out by itself.
    async fn finish(
        &self,
        data: &UserData<'_>,
        mine: RefreshRecord,
        run: &Result<Run, RefreshError>,
        calls: u32,
    ) {
        let now = self.now();
        let mut record = RefreshRecord {
            rev: mine.rev.saturating_add(1),
            until: Timestamp::UNIX_EPOCH,
            due_at: after(now, schedule::EVERY),
            used: mine.used.with(calls, now),
            ..mine.clone()
        };
        if let Ok(run) = run {
            record.asked.clone_from(&run.asked);
            // An account that does not exist says nothing of the others.
            record.finished =
                (!matches!(run.error, Some(RefreshError::NotFound))).then(|| run.finished.clone());
            record.due_at = run.finished.retry_at.unwrap_or(record.due_at);
        }
        if let Err(error) = data.put_refresh(&record, Some(&mine), now).await {
            tracing::warn!(%error, "the end of a refresh could not be noted");
        }
    }

    fn answer(
        &self,
        subject: &Subject,
        snapshot: &Snapshot,
        scope: &Scope,
        finished: &Finished,
    ) -> Result<Refreshed, RefreshError> {
        if let Some(fault) = finished.fault {
            return Err(RefreshError::Fault(fault));
        }
        if !scope.exists(snapshot) {
            return Err(RefreshError::NotFound);
        }
        let now = self.now();
        let accounts: Vec<AccountView> = snapshot
            .connected_accounts()
            .filter(|(account, _)| scope.has(account))
            .map(|(account, connection)| {
                let failed = finished.failed.contains(&account.account_id);
                accounts::view(account, connection, snapshot, failed, now)
            })
            .collect();
        Ok(Refreshed {
            user_id: subject.user.user_id.clone(),
            refreshed_at: finished.refreshed_at,
            stale: accounts
                .iter()
                .filter(|account| account.stale)
                .map(|account| account.account_id.clone())
                .collect(),
            accounts,
            upstream_refresh: finished.upstream_refresh,
            retry_scheduled: finished.retry_at.is_some(),
            retry_at: finished.retry_at,
        })
    }

    fn now(&self) -> Timestamp {
        self.connections.runner().now()
    }
}

/// Reads what changes once a day at most, of the accounts of which somebody has looked at it before, and what somebody
/// left off. Says for how long SnapTrade wants to be left alone, where it does.
async fn daily(
    reader: &Reader<'_>,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<Option<Duration>, RefreshError> {
    let (performance, transactions) = due_daily(snapshot, now);
    if !performance.is_empty() {
        let read = Box::pin(reader.performance(&performance)).await?;
        if read.throttled.is_some() {
            return Ok(read.throttled);
        }
    }
    if !transactions.is_empty() {
        let read = Box::pin(reader.transactions(&transactions, &snapshot.transactions)).await?;
        return Ok(read.throttled);
    }
    Ok(None)
}

/// The accounts whose performance, and those whose transactions are to be read again.
fn due_daily(snapshot: &Snapshot, now: Timestamp) -> (Vec<AccountId>, Vec<AccountId>) {
    // Of a broken connection SnapTrade still tells what there was until it broke, of which the event may be lost.
    let works = |account: &AccountId| {
        snapshot.connected_accounts().any(|(stored, connection)| {
            stored.account_id == *account && stored.synced && connection.state != ConnectionState::Deleting
        })
    };
    let performance = snapshot
        .performance
        .iter()
        .filter(|(_, reading)| between(reading.read_at, now) >= performance::READ_AGAIN)
        .map(|(account, _)| account.clone());
    let transactions = snapshot
        .transactions
        .iter()
        .filter(|(_, record)| record.is_due(now))
        .map(|(account, _)| account.clone());
    (
        performance.filter(works).collect(),
        transactions.filter(works).collect(),
    )
}

/// The record of a refresh that begins now.
fn taken(before: Option<&RefreshRecord>, upstream: &UpstreamId, now: Timestamp) -> RefreshRecord {
    let run = new_attempt();
    let same = before.filter(|record| record.upstream == *upstream);
    RefreshRecord {
        rev: before.map_or_else(|| run.first_revision(), |record| record.rev.saturating_add(1)),
        upstream: upstream.clone(),
        run,
        until: after(now, LEASE),
        finished: None,
        asked: same.map(|record| record.asked.clone()).unwrap_or_default(),
        due_at: same.map_or(now, |record| record.due_at),
        used: same.map(|record| record.used.clone()).unwrap_or_default(),
    }
}

/// Leaves a user's refresh to the schedule's first run after `due_at`. Where somebody else writes the record at the same time, they
/// have the newer data, and nothing is left to do.
///
/// # Errors
/// [`StoreError`].
pub async fn defer(
    data: &UserData<'_>,
    before: Option<&RefreshRecord>,
    upstream: &UpstreamId,
    due_at: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let same = before.filter(|record| record.upstream == *upstream);
    let mut record = taken(before, upstream, now);
    record.due_at = due_at;
    record.until = same.map_or(Timestamp::UNIX_EPOCH, |record| record.until);
    if let Some(same) = same {
        record.run = same.run.clone();
        record.finished.clone_from(&same.finished);
    }
    data.put_refresh(&record, before, now).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::portfolio::holdings::Holdings;
    use crate::portfolio::userdata::{Reading, test_reading};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn now() -> Timestamp {
        at("2026-11-21T10:00:00Z")
    }

    fn upstream() -> UpstreamId {
        UpstreamId::from_snaptrade("ada~aaaaaaaaaaaa")
    }

    fn id(text: &str) -> AccountId {
        AccountId::new(text)
    }

    fn account_scope(account: &str) -> Scope {
        Scope::Account {
            account: id(account),
            connection: None,
        }
    }

    fn finished(at: Timestamp, scope: Scope) -> Finished {
        Finished {
            at,
            scope,
            depth: Depth::Brokerages,
            fault: None,
            refreshed_at: Some(at),
            failed: Vec::new(),
            upstream_refresh: UpstreamRefresh::Requested,
            retry_at: None,
        }
    }

    fn record(until: Timestamp, finished: Option<Finished>) -> RefreshRecord {
        RefreshRecord {
            finished,
            until,
            ..taken(None, &upstream(), now())
        }
    }

    /// Accounts by id, each with its connection, whether it is synced, and when.
    fn snapshot(connections: Value, accounts: &[(&str, &str, bool, Option<&str>)]) -> Snapshot {
        let stored: Vec<Value> = accounts
            .iter()
            .map(|(id, connection, synced, synced_at)| {
                json!({
                    "account_id": id, "connection_id": connection, "synced": synced, "synced_at": synced_at,
                    "is_paper": false,
                })
            })
            .collect();
        Snapshot {
            connections: Some(test_reading(serde_json::from_value(connections).unwrap(), now())),
            accounts: Some(test_reading(
                serde_json::from_value(stored.into()).unwrap(),
                now(),
            )),
            ..Snapshot::default()
        }
    }

    fn held(read_at: &str) -> Reading<Holdings> {
        test_reading(Holdings::default(), at(read_at))
    }

    #[test]
    fn calls_at_once_or_within_ten_seconds_are_one() {
        let begin = |record: &RefreshRecord, scope: &Scope, now: &str| {
            begin(Some(record), &upstream(), scope, Depth::Brokerages, at(now))
        };
        let running = record(after(now(), LEASE), None);
        assert_eq!(begin(&running, &Scope::All, "2026-11-21T10:00:01Z"), Begin::Wait);
        assert_eq!(begin(&running, &Scope::All, "2026-11-21T10:00:30Z"), Begin::Go);
        // The clock was put back by an hour.
        assert_eq!(begin(&running, &Scope::All, "2026-11-21T09:00:00Z"), Begin::Go);

        let result = finished(now(), Scope::All);
        let done = record(Timestamp::UNIX_EPOCH, Some(result.clone()));
        for scope in [Scope::All, account_scope("a")] {
            assert_eq!(
                begin(&done, &scope, "2026-11-21T10:00:09Z"),
                Begin::Answer(result.clone())
            );
            assert_eq!(begin(&done, &scope, "2026-11-21T10:00:10Z"), Begin::Go);
        }
        let narrow = record(Timestamp::UNIX_EPOCH, Some(finished(now(), account_scope("a"))));
        assert_eq!(begin(&narrow, &Scope::All, "2026-11-21T10:00:01Z"), Begin::Go);
        assert_eq!(
            begin(&narrow, &account_scope("b"), "2026-11-21T10:00:01Z"),
            Begin::Go
        );
        let other = UpstreamId::from_snaptrade("ada~bbbbbbbbbbbb");
        let depth = Depth::Brokerages;
        assert_eq!(
            super::begin(Some(&done), &other, &Scope::All, depth, now()),
            Begin::Go
        );
        // Somebody looked at the data in passing; the brokerages were not asked then.
        let shallow = Finished {
            depth: Depth::Holdings,
            ..result
        };
        let done = record(Timestamp::UNIX_EPOCH, Some(shallow));
        assert_eq!(begin(&done, &Scope::All, "2026-11-21T10:00:01Z"), Begin::Go);
    }

    #[test]
    fn somebody_who_waits_gets_every_account_read_and_the_schedule_only_what_may_have_changed() {
        let connections = json!([
            {"connection_id": "c", "state": "active"},
            {"connection_id": "broken", "state": "broken"},
        ]);
        let mut snapshot = snapshot(
            connections,
            &[
                ("new", "c", true, None),
                ("same", "c", true, Some("2026-11-21T08:00:00Z")),
                ("newer", "c", true, Some("2026-11-21T09:30:00Z")),
                ("old", "c", true, None),
                ("unsynced", "c", false, None),
                ("cut_off", "broken", true, None),
                ("gone", "gone", true, None),
            ],
        );
        for (account, read_at) in [
            ("same", "2026-11-21T09:00:00Z"),
            ("newer", "2026-11-21T09:00:00Z"),
            ("old", "2026-11-21T03:59:59Z"),
            ("cut_off", "2026-11-20T10:00:00Z"),
        ] {
            snapshot.holdings.insert(id(account), held(read_at));
        }
        let targets = |scope: &Scope, purpose| {
            let (wanted, unsynced) = targets(&snapshot, scope, purpose, now());
            let names = |ids: Vec<AccountId>| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
            (names(wanted), names(unsynced))
        };
        let background = Purpose::Background {
            deadline: Instant::now(),
        };
        assert_eq!(
            targets(&Scope::All, Purpose::Manual).0,
            ["new", "same", "newer", "old", "cut_off"]
        );
        assert_eq!(
            targets(&Scope::All, background),
            (
                vec!["new".to_owned(), "newer".to_owned(), "old".to_owned()],
                vec!["unsynced".to_owned()]
            )
        );
        assert_eq!(targets(&account_scope("same"), Purpose::Manual).0, ["same"]);
        let connection = Scope::Connection(ConnectionId::new("broken"));
        assert_eq!(targets(&connection, Purpose::Manual).0, ["cut_off"]);
        let misplaced = Scope::Account {
            account: id("same"),
            connection: Some(ConnectionId::new("broken")),
        };
        assert!(!misplaced.exists(&snapshot) && !account_scope("gone").exists(&snapshot));
    }

    #[test]
    fn snaptrade_is_asked_to_fetch_anew_four_times_a_day_at_most_and_never_for_a_broken_connection() {
        let snapshot = snapshot(
            json!([
                {"connection_id": "fresh", "state": "active"},
                {"connection_id": "asked", "state": "active"},
                {"connection_id": "long_ago", "state": "active"},
                {"connection_id": "broken", "state": "broken"},
            ]),
            &[],
        );
        let asked = |connection: &str, when: &str, answer| Asked {
            connection_id: ConnectionId::new(connection),
            at: at(when),
            answer,
        };
        let before = [
            asked("asked", "2026-11-21T09:00:00Z", UpstreamRefresh::Requested),
            asked("long_ago", "2026-11-21T04:00:00Z", UpstreamRefresh::NotAvailable),
        ];
        let (ask, known) = to_ask(&snapshot, &before, &Scope::All, now());
        let names: Vec<&str> = ask.iter().map(ConnectionId::as_str).collect();
        assert_eq!(names, ["fresh", "long_ago"]);
        assert_eq!(known, [UpstreamRefresh::TooRecent]);
    }

    #[test]
    fn what_snaptrade_said_of_several_connections_is_one_word() {
        use UpstreamRefresh::{NotAvailable, Requested, TooRecent};
        assert_eq!(summed(&[]), NotAvailable);
        assert_eq!(summed(&[NotAvailable, TooRecent]), TooRecent);
        assert_eq!(summed(&[TooRecent, Requested, NotAvailable]), Requested);
    }

    #[test]
    fn there_is_nothing_yet_while_snaptrade_collects_and_nothing_is_stored() {
        let connection = json!([{
            "connection_id": "c", "state": "active", "created_at": "2026-11-21T09:59:00Z",
        }]);
        let none = HoldingsRead::default();
        assert!(nothing_yet(
            &snapshot(connection.clone(), &[]),
            &Scope::All,
            &none,
            now()
        ));
        let later = at("2026-11-21T10:09:00Z");
        assert!(!nothing_yet(
            &snapshot(connection.clone(), &[]),
            &Scope::All,
            &none,
            later
        ));

        let mut snapshot = snapshot(connection, &[("a", "c", false, None)]);
        let mut failed = HoldingsRead::default();
        failed.failed.insert(id("a"), ErrorKind::NotSynced);
        assert!(nothing_yet(&snapshot, &Scope::All, &failed, now()));
        snapshot.holdings.insert(id("a"), held("2026-11-20T10:00:00Z"));
        assert!(!nothing_yet(&snapshot, &Scope::All, &failed, now()));
    }

    #[test]
    fn a_record_of_another_registration_leaves_nothing_but_its_revision() {
        let before = RefreshRecord {
            rev: 7,
            upstream: UpstreamId::from_snaptrade("ada~bbbbbbbbbbbb"),
            asked: vec![Asked {
                connection_id: ConnectionId::new("c"),
                at: now(),
                answer: UpstreamRefresh::Requested,
            }],
            ..record(Timestamp::UNIX_EPOCH, Some(finished(now(), Scope::All)))
        };
        let mine = taken(Some(&before), &upstream(), now());
        assert_eq!((mine.rev, mine.asked.len(), mine.finished), (8, 0, None));
    }
}
