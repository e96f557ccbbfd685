//! Reads a user's brokerage data from SnapTrade and stores them.
//!
//! Reading all of a user's data takes two calls for the lists of connections and accounts, and two for each account:
//! its balances and its positions. What could not be read stays as it was stored before.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::accounts::StoredAccount;
use super::connections;
use super::connections::Deletion;
use super::history;
use super::holdings::Holdings;
use super::performance::StoredPerformance;
use super::transactions::{Progress, TransactionsReader, TransactionsRecord};
use super::userdata::{Reading, Snapshot, UserData};
use crate::app::App;
use crate::connections::records::UserRecord;
use crate::connections::runner::NoSecret;
use crate::connections::{Connections, Failure};
use crate::ids::{TenantId, UpstreamId};
use crate::snaptrade::{self, AccountId, Client, ConnectionId, ErrorKind, UserCredentials};
use crate::store::StoreError;

/// How long SnapTrade is left alone when it wants fewer calls and does not say for how long.
pub const DEFAULT_RATE_WAIT: Duration = Duration::from_secs(60);

/// A user who can be acted for at SnapTrade.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The user's record.
    pub user: UserRecord,
    /// The user's id at SnapTrade.
    pub upstream: UpstreamId,
    /// What signs the user's calls.
    pub credentials: UserCredentials,
}

impl Subject {
    /// The user of this record, if it can be acted for.
    ///
    /// # Errors
    /// [`Failure::NoSecret`] for a user who is not registered, or whose secret does not open;
    /// [`Failure::SecretRejected`] when SnapTrade has refused the secret before.
    pub async fn open(connections: &Connections<'_>, user: Option<UserRecord>) -> Result<Self, Failure> {
        let user = user.ok_or(NoSecret::NotRegistered)?;
        let active = user.active().ok_or(NoSecret::NotRegistered)?;
        if active.secret_rejected {
            return Err(Failure::SecretRejected);
        }
        let upstream = active.upstream.clone();
        let credentials = connections.credentials(&user).await?;
        Ok(Self {
            user,
            upstream,
            credentials,
        })
    }
}

/// Notes that SnapTrade refuses the user's secret. When that cannot be written down, the next call finds it out again.
pub async fn note_rejected_secret(connections: &Connections<'_>, user: &UserRecord) {
    if let Err(error) = connections.mark_secret_rejected(user).await {
        tracing::warn!(%error, "it could not be noted that a user's secret is rejected");
    }
}

/// Why a user's data were not read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReadError {
    /// SnapTrade could not be used.
    #[error(transparent)]
    Snaptrade(snaptrade::Error),
    /// The user cannot be acted for, or the store could not be used.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Failure(error.into())
    }
}

/// What came of reading what accounts hold.
pub type HoldingsRead = AccountsRead<Holdings>;

/// What came of reading how accounts did.
pub type PerformanceRead = AccountsRead<StoredPerformance>;

/// What came of reading something of several accounts.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountsRead<T> {
    /// The accounts that were read and stored.
    pub read: BTreeMap<AccountId, Reading<T>>,
    /// The accounts that were not, with the reason; those that were not even tried among them.
    pub failed: BTreeMap<AccountId, ErrorKind>,
    /// For how long SnapTrade wants to be left alone, where it said so.
    pub throttled: Option<Duration>,
}

impl<T> Default for AccountsRead<T> {
    fn default() -> Self {
        Self {
            read: BTreeMap::new(),
            failed: BTreeMap::new(),
            throttled: None,
        }
    }
}

/// What came of reading transactions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TransactionsRead {
    /// How far each account is now, of those that were read.
    pub records: BTreeMap<AccountId, TransactionsRecord>,
    /// The accounts that were not read to the end, with the reason where it was not the time.
    pub unfinished: BTreeMap<AccountId, Option<ErrorKind>>,
    /// For how long SnapTrade wants to be left alone, where it said so.
    pub throttled: Option<Duration>,
}

/// Reads one user's data until a certain time.
pub struct Reader<'a> {
    app: &'a App,
    tenant: TenantId,
    deadline: Instant,
    connections: &'a Connections<'a>,
    data: UserData<'a>,
    client: Client,
    calls: Arc<AtomicU32>,
    subject: &'a Subject,
}

impl<'a> Reader<'a> {
    /// Reads the data of `subject`; no call goes on after `deadline`.
    #[must_use]
    pub fn new(
        app: &'a App,
        connections: &'a Connections<'a>,
        tenant: &TenantId,
        subject: &'a Subject,
        deadline: Instant,
    ) -> Self {
        let calls = Arc::new(AtomicU32::new(0));
        Self {
            app,
            tenant: tenant.clone(),
            deadline,
            connections,
            data: UserData::new(app.store(), tenant, &subject.user.stem),
            // What is sent again is decided here: somebody waits, and a throttled call is better made later.
            client: app
                .snaptrade()
                .once()
                .with_deadline(deadline)
                .counted_by(Arc::clone(&calls)),
            calls,
            subject,
        }
    }

    /// The user's data in the table.
    #[must_use]
    pub fn data(&self) -> &UserData<'a> {
        &self.data
    }

    /// How many calls to SnapTrade this reader has made.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The client, with this reader's deadline.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Reads and stores the lists of connections and accounts; `snapshot` becomes as they say. Two calls.
    ///
    /// # Errors
    /// [`ReadError`]; nothing is changed then. A secret that SnapTrade refuses is noted.
    pub async fn lists(&self, snapshot: &mut Snapshot) -> Result<(), ReadError> {
        let begun = self.connections.runner().now();
        let user = &self.subject.credentials;
        let (listed, accounts) = tokio::join!(
            again(|| self.client.list_connections(user)),
            again(|| self.client.list_accounts(user)),
        );
        let (listed, accounts) = match (listed, accounts) {
            (Ok(listed), Ok(accounts)) => (listed, accounts),
            (Err(error), _) | (_, Err(error)) => return Err(self.failed(error).await),
        };
        let now = self.connections.runner().now();
        let mut listed = connections::stored(&listed);
        connections::mark(&mut listed, &snapshot.deletions, now);
        let connections = self.reading(listed, begun, now);
        let accounts = self.reading(
            accounts.iter().map(StoredAccount::from).collect::<Vec<_>>(),
            begun,
            now,
        );
        // One after the other: both may note a change in the same item.
        let newest = self
            .data
            .put_connections(&connections, snapshot.connections.as_ref(), now)
            .await?;
        self.data
            .put_accounts(&accounts, snapshot.accounts.as_ref(), now)
            .await?;
        if let Some(day) = history::to_note(&accounts, snapshot.accounts.as_ref()) {
            self.data.put_day(&day, now).await?;
        }
        let counted = connections::count(&connections.content);
        let known = self
            .subject
            .user
            .active()
            .map(|active| (active.connections, active.broken));
        if newest && known != Some(counted) {
            self.connections
                .set_connections(&self.subject.user, counted.0, counted.1)
                .await?;
        }
        let listed: BTreeSet<&AccountId> = accounts
            .content
            .iter()
            .map(|account| &account.account_id)
            .collect();
        snapshot.holdings.retain(|account, _| listed.contains(account));
        snapshot.connections = Some(connections);
        snapshot.accounts = Some(accounts);
        Ok(())
    }

    /// Reads and stores the list of accounts; `snapshot` becomes as it says. One call.
    ///
    /// # Errors
    /// As [`Reader::lists`].
    pub async fn accounts(&self, snapshot: &mut Snapshot) -> Result<(), ReadError> {
        let begun = self.connections.runner().now();
        let user = &self.subject.credentials;
        let accounts = match again(|| self.client.list_accounts(user)).await {
            Ok(accounts) => accounts,
            Err(error) => return Err(self.failed(error).await),
        };
        let now = self.connections.runner().now();
        let accounts = self.reading(
            accounts.iter().map(StoredAccount::from).collect::<Vec<_>>(),
            begun,
            now,
        );
        self.data
            .put_accounts(&accounts, snapshot.accounts.as_ref(), now)
            .await?;
        if let Some(day) = history::to_note(&accounts, snapshot.accounts.as_ref()) {
            self.data.put_day(&day, now).await?;
        }
        snapshot.accounts = Some(accounts);
        Ok(())
    }

    /// Reads and stores what `accounts` hold, of which `known` was stored before, several at once. Two calls for each account. Once SnapTrade wants fewer
    /// calls no more are made.
    ///
    /// # Errors
    /// [`ReadError::Failure`] when the store cannot be used, or SnapTrade refuses the user's secret. What SnapTrade
    /// does not tell of single accounts is in the result.
    pub async fn holdings(
        &self,
        accounts: &[AccountId],
        known: &BTreeMap<AccountId, Reading<Holdings>>,
    ) -> Result<HoldingsRead, ReadError> {
        let queue = Mutex::new((accounts.iter(), HoldingsRead::default()));
        let lane = async || -> Result<(), ReadError> {
            loop {
                let next = {
                    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    let throttled = queue.1.throttled;
                    match queue.0.next() {
                        Some(account) if throttled.is_some() => {
                            let kind = ErrorKind::RateLimited {
                                retry_after: throttled,
                            };
                            queue.1.failed.insert(account.clone(), kind);
                            continue;
                        }
                        Some(account) => account,
                        None => return Ok(()),
                    }
                };
                // Boxed, as are the calls below: several of these stand in one future, which would fill a thread's stack.
                let result = Box::pin(self.account(next, known.get(next))).await?;
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                match result {
                    Ok(holdings) => {
                        queue.1.read.insert(next.clone(), holdings);
                    }
                    Err(kind) => {
                        if let ErrorKind::RateLimited { retry_after } = kind {
                            queue.1.throttled = Some(retry_after.unwrap_or(DEFAULT_RATE_WAIT));
                        }
                        queue.1.failed.insert(next.clone(), kind);
                    }
                }
            }
        };
        tokio::try_join!(lane(), lane(), lane())?;
        let (_, read) = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(read)
    }

    async fn account(
        &self,
        account: &AccountId,
        before: Option<&Reading<Holdings>>,
    ) -> Result<Result<Reading<Holdings>, ErrorKind>, ReadError> {
        let begun = self.connections.runner().now();
        let user = &self.subject.credentials;
        let (balances, positions) = tokio::join!(
            again(|| self.client.account_balances(user, account)),
            again(|| self.client.account_positions(user, account)),
        );
        let (balances, positions) = match (balances, positions) {
            (Ok(balances), Ok(positions)) => (balances, positions),
            (Err(error), _) | (_, Err(error)) if error.kind == ErrorKind::UserSecretRejected => {
                return Err(self.failed(error).await);
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, account = %account, "what an account holds could not be read");
                return Ok(Err(error.kind));
            }
        };
        let now = self.connections.runner().now();
        let reading = self.reading(Holdings::new(&balances, &positions), begun, now);
        self.data.put_holdings(account, &reading, before, now).await?;
        Ok(Ok(reading))
    }

    /// Reads and stores how `accounts` did, one call for each. Where the plan or the brokerage does not tell, that is
    /// stored, too, so that nobody asks again at once.
    ///
    /// # Errors
    /// As [`Reader::holdings`].
    pub async fn performance(&self, accounts: &[AccountId]) -> Result<PerformanceRead, ReadError> {
        let user = &self.subject.credentials;
        let mut result = PerformanceRead::default();
        for account in accounts {
            if let Some(wait) = result.throttled {
                let kind = ErrorKind::RateLimited {
                    retry_after: Some(wait),
                };
                result.failed.insert(account.clone(), kind);
                continue;
            }
            let begun = self.connections.runner().now();
            let rates = match again(|| self.client.account_return_rates(user, account, &[])).await {
                Ok(rates) => rates,
                Err(error) if matches!(error.kind, ErrorKind::Forbidden | ErrorKind::Gone) => Vec::new(),
                Err(error) if error.kind == ErrorKind::UserSecretRejected => {
                    return Err(self.failed(error).await);
                }
                Err(error) => {
                    tracing::warn!(%error, account = %account, "how an account did could not be read");
                    if let ErrorKind::RateLimited { retry_after } = error.kind {
                        result.throttled = Some(retry_after.unwrap_or(DEFAULT_RATE_WAIT));
                    }
                    result.failed.insert(account.clone(), error.kind);
                    continue;
                }
            };
            let now = self.connections.runner().now();
            let reading = self.reading(StoredPerformance::new(&rates), begun, now);
            self.data.put_performance(account, &reading, now).await?;
            result.read.insert(account.clone(), reading);
        }
        Ok(result)
    }

    /// Reads and stores the transactions of `accounts`, one account after the other, from where `known` says that
    /// somebody left off. See [`TransactionsReader::read`] for what that takes.
    ///
    /// # Errors
    /// As [`Reader::holdings`].
    pub async fn transactions(
        &self,
        accounts: &[AccountId],
        known: &BTreeMap<AccountId, TransactionsRecord>,
    ) -> Result<TransactionsRead, ReadError> {
        let reader = TransactionsReader {
            store: self.app.store(),
            data: &self.data,
            tenant: &self.tenant,
            stem: &self.subject.user.stem,
            upstream: &self.subject.upstream,
            credentials: &self.subject.credentials,
            client: &self.client,
            deadline: self.deadline,
            clock: self.app.clock(),
        };
        let mut result = TransactionsRead::default();
        for account in accounts {
            if let Some(wait) = result.throttled {
                let kind = ErrorKind::RateLimited {
                    retry_after: Some(wait),
                };
                result.unfinished.insert(account.clone(), Some(kind));
                continue;
            }
            let progress = match Box::pin(reader.read(account, known.get(account))).await? {
                Ok(progress) => progress,
                Err(error) => return Err(self.failed(error).await),
            };
            match progress {
                Progress::Complete(record) => {
                    result.records.insert(account.clone(), record);
                }
                Progress::Partial(record, reason) => {
                    if let Some(ErrorKind::RateLimited { retry_after }) = reason {
                        result.throttled = Some(retry_after.unwrap_or(DEFAULT_RATE_WAIT));
                    }
                    result.records.insert(account.clone(), record);
                    result.unfinished.insert(account.clone(), reason);
                }
                Progress::Busy => {
                    result.unfinished.insert(account.clone(), None);
                }
            }
        }
        Ok(result)
    }

    /// Asks SnapTrade again to delete those of the connections in `snapshot` whose deletion somebody has begun and
    /// perhaps not finished. What fails is tried again by whoever reads next.
    pub async fn finish_deletions(&self, snapshot: &Snapshot) {
        let now = self.connections.runner().now();
        for deletion in &snapshot.deletions {
            let listed = snapshot
                .connections()
                .iter()
                .any(|connection| connection.connection_id == deletion.connection_id);
            if listed && deletion.is_owed(now) {
                tracing::warn!("a connection that is to go is listed still, so SnapTrade is asked again");
                if let Err(error) = self.delete(&deletion.connection_id, now).await {
                    tracing::warn!(%error, "the deletion of a connection could not be finished");
                }
            }
        }
    }

    /// Asks SnapTrade to delete a connection, and notes that it does. One that SnapTrade does not know is gone.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn delete(&self, connection: &ConnectionId, now: Timestamp) -> Result<(), ReadError> {
        let user = &self.subject.credentials;
        match again(|| self.client.delete_connection(user, connection)).await {
            Ok(_) => {}
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(self.failed(error).await),
        }
        let deletion = Deletion {
            connection_id: connection.clone(),
            asked_at: now,
            accepted_at: Some(self.connections.runner().now()),
        };
        // When this cannot be written down SnapTrade is asked once more, which does no harm.
        self.data.put_deletion(&deletion, now).await?;
        Ok(())
    }

    async fn failed(&self, error: snaptrade::Error) -> ReadError {
        if error.kind == ErrorKind::UserSecretRejected {
            note_rejected_secret(self.connections, &self.subject.user).await;
            return ReadError::Failure(Failure::SecretRejected);
        }
        ReadError::Snaptrade(error)
    }

    fn reading<T>(&self, content: T, begun: Timestamp, now: Timestamp) -> Reading<T> {
        Reading {
            upstream: self.subject.upstream.clone(),
            begun_ms: begun.as_millisecond(),
            read_at: now,
            content,
        }
    }
}

/// Makes a call that reads, and once more when it failed in a way that may be over already.
async fn again<T, F>(call: impl Fn() -> F) -> Result<T, snaptrade::Error>
where
    F: Future<Output = Result<T, snaptrade::Error>>,
{
    match Box::pin(call()).await {
        Err(error) if is_passing(error.kind) => Box::pin(call()).await,
        result => result,
    }
}

/// Whether a call that failed so may well succeed at once.
fn is_passing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Outage | ErrorKind::Timeout | ErrorKind::Unreachable | ErrorKind::Malformed
    )
}
