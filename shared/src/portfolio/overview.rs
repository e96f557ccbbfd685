//! What a user sees of a portfolio, over all providers, from what is stored.
//!
//! Looking costs two calls to the table, made at the same time: the user's record, and the partition with all that was
//! read. SnapTrade is not asked, but for what was never read: then it is read as a refresh reads it, once, however many
//! look at the same time.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::Date;
use tokio::time::Instant;

use super::accounts::{AccountView, STALE_AFTER};
use super::changes::Changes;
use super::connections::{self, ConnectionView};
use super::figures::{BalanceView, PositionView};
use super::history::{self, DayView};
use super::mode::{ModeView, mode};
use super::provider::{Holder, PerformanceView, PortfolioAccountId, Provider};
use super::reader::{DEFAULT_RATE_WAIT, Reader, Subject};
use super::refresh::{Purpose, Refresh, RefreshError, Scope, fault};
use super::snaptrade_provider::SnaptradeAccounts;
use super::statements::StatementAccounts;
use super::transactions::{self, Filter, Listing, Position, TransactionView};
use super::userdata::{Snapshot, UserData};
use crate::app::App;
use crate::connections::records::UserRecord;
use crate::connections::runner::NoSecret;
use crate::connections::timing::{after, between};
use crate::connections::{Connections, Failure};
use crate::ids::{Stem, TenantId, UpstreamId, UserId};
use crate::snaptrade::AccountId;
use crate::store::{self, Item, Key};

/// How long somebody who looks at figures that were never read waits for them.
const READING: std::time::Duration = std::time::Duration::from_secs(10);

/// How long somebody who looks at transactions waits for those of a reading that somebody else left off.
const GOING_ON: std::time::Duration = std::time::Duration::from_secs(6);

/// Looks at portfolios of one tenant's users.
pub struct Overview<'a> {
    app: &'a App,
    connections: &'a Connections<'a>,
    tenant: TenantId,
}

/// Accounts, positions or other parts of a portfolio, and how fresh they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Part<T> {
    /// The parts.
    pub data: Vec<T>,
    /// As of when all of it is: the time of the oldest.
    pub as_of: Option<Timestamp>,
    /// Whether any of it is older than it should be.
    pub stale: bool,
}

/// One user's portfolio as it is stored.
pub struct Portfolio {
    stem: Stem,
    /// Absent for somebody who only brought statements.
    user: Option<UserRecord>,
    snapshot: Snapshot,
    /// Whether SnapTrade's part could not be read.
    incomplete: bool,
    now: Timestamp,
}

impl<'a> Overview<'a> {
    /// Looks at portfolios of `tenant`'s users, in whose name `connections` acts.
    #[must_use]
    pub fn new(app: &'a App, connections: &'a Connections<'a>, tenant: TenantId) -> Self {
        Self {
            app,
            connections,
            tenant,
        }
    }

    /// The portfolio of `user`. Two calls to the table; where nothing was ever read, as many more as reading it for
    /// `purpose` takes.
    ///
    /// # Errors
    /// [`RefreshError`]; `NotRegistered` and `SecretRejected` for who cannot be acted for.
    pub async fn portfolio(&self, user: &UserId, purpose: Purpose) -> Result<Portfolio, RefreshError> {
        let stem = user.stem();
        let data = UserData::new(self.app.store(), &self.tenant, &stem);
        let now = self.now();
        let (record, items) = tokio::join!(self.connections.runner().user(&stem), data.items(now));
        let (record, items) = (record.map_err(Failure::from)?, items?);
        let Some(user) = record.filter(|user| user.active().is_some()) else {
            return self.without_snaptrade(stem, &items);
        };
        let Some(upstream) = user.upstream().cloned() else {
            return self.without_snaptrade(stem, &items);
        };
        if user.active().is_some_and(|active| active.secret_rejected) {
            return Err(Failure::SecretRejected.into());
        }
        let mut snapshot = Snapshot::from_items(&items, &upstream, now)?;
        let mut incomplete = false;
        if snapshot.accounts.is_none() || snapshot.connections.is_none() {
            let refresh = Refresh::new(self.app, self.connections, self.tenant.clone());
            let read = Box::pin(refresh.run(Some(user.clone()), &Scope::All, purpose)).await;
            snapshot = data.snapshot(&upstream, self.now()).await?;
            incomplete = snapshot.accounts.is_none();
            if incomplete && snapshot.statements.is_empty() {
                // Where SnapTrade wanted fewer calls the refresh was put off, and there is nothing to show until then.
                return Err(read.err().unwrap_or(RefreshError::Throttled(DEFAULT_RATE_WAIT)));
            }
        }
        Ok(Portfolio {
            stem,
            user: Some(user),
            snapshot,
            incomplete,
            now: self.now(),
        })
    }

    /// The portfolio of somebody who is not registered, which has what was brought in statements.
    fn without_snaptrade(&self, stem: Stem, items: &[Item]) -> Result<Portfolio, RefreshError> {
        let now = self.now();
        let nobody = UpstreamId::from_snaptrade("");
        let snapshot = Snapshot::from_items(items, &nobody, now)?;
        if snapshot.statements.is_empty() {
            return Err(RefreshError::Failure(NoSecret::NotRegistered.into()));
        }
        Ok(Portfolio {
            stem,
            user: None,
            snapshot,
            incomplete: false,
            now,
        })
    }

    /// How the accounts of `portfolio` did, or one of them. What was never read is read now, with one call to SnapTrade
    /// for each account.
    ///
    /// # Errors
    /// [`RefreshError`] when nothing is known and nothing could be read.
    pub async fn performance(
        &self,
        portfolio: &mut Portfolio,
        account: Option<&PortfolioAccountId>,
    ) -> Result<Part<PerformanceView>, RefreshError> {
        let snapshot = &mut portfolio.snapshot;
        let unread: Vec<_> = snapshot
            .connected_accounts()
            .map(|(account, _)| account)
            .filter(|stored| stored.synced && !snapshot.performance.contains_key(&stored.account_id))
            .filter(|stored| is_wanted(account, &stored.account_id))
            .map(|stored| stored.account_id.clone())
            .collect();
        if !unread.is_empty() {
            let subject = Subject::open(self.connections, portfolio.user.clone()).await?;
            let started = Instant::now();
            let deadline = started.checked_add(READING).unwrap_or(started);
            let reader = Reader::new(self.app, self.connections, &self.tenant, &subject, deadline);
            let mut read = Box::pin(reader.performance(&unread)).await?;
            let failed = read.failed.values().next().copied();
            snapshot.performance.append(&mut read.read);
            if let (Some(kind), true) = (failed, snapshot.performance.is_empty()) {
                return Err(match read.throttled {
                    Some(wait) => RefreshError::Throttled(wait),
                    None => RefreshError::Fault(fault(kind)),
                });
            }
        }
        portfolio.now = self.now();
        Ok(portfolio.performance(account))
    }

    /// The transactions of `portfolio`, or of one account, newest first: the part of them that `page` names, and where it
    /// goes on. What was never read is read now, and a reading that was left off goes on. One call to the table for each
    /// megabyte that is looked at.
    ///
    /// # Errors
    /// [`RefreshError`] when nothing is known and nothing could be read.
    pub async fn transactions(
        &self,
        portfolio: &mut Portfolio,
        account: Option<&PortfolioAccountId>,
        filter: &Filter,
        page: (u32, Option<&Position>),
    ) -> Result<(Part<TransactionView>, Option<Position>), RefreshError> {
        let snapshot = &mut portfolio.snapshot;
        let shown: Vec<(AccountId, bool)> = snapshot
            .connected_accounts()
            .map(|(stored, _)| (stored.account_id.clone(), stored.synced))
            .filter(|(id, _)| is_wanted(account, id))
            .collect();
        let known = |snapshot: &Snapshot, id: &AccountId| {
            let record = snapshot.transactions.get(id);
            record.and_then(|record| record.complete.clone())
        };
        let unread: Vec<AccountId> = shown
            .iter()
            .filter(|(id, synced)| *synced && (known(snapshot, id).is_none() || is_left_off(snapshot, id)))
            .map(|(id, _)| id.clone())
            .collect();
        let mut failed = None;
        if !unread.is_empty() {
            let subject = Subject::open(self.connections, portfolio.user.clone()).await?;
            let started = Instant::now();
            let never = unread.iter().any(|id| known(snapshot, id).is_none());
            let budget = if never { READING } else { GOING_ON };
            let deadline = started.checked_add(budget).unwrap_or(started);
            let reader = Reader::new(self.app, self.connections, &self.tenant, &subject, deadline);
            let mut read = Box::pin(reader.transactions(&unread, &snapshot.transactions)).await?;
            failed = match read.throttled {
                Some(wait) => Some(RefreshError::Throttled(wait)),
                None => read
                    .unfinished
                    .values()
                    .find_map(|reason| reason.map(|kind| RefreshError::Fault(fault(kind)))),
            };
            snapshot.transactions.append(&mut read.records);
        }
        let accounts: BTreeSet<AccountId> = shown.iter().map(|(id, _)| id.clone()).collect();
        let now = self.now();
        let stem = &portfolio.stem;
        let listing =
            Listing::read(self.app.store(), &self.tenant, stem, &accounts, filter, page, now).await?;
        if let (Some(error), true) = (failed, listing.transactions.is_empty()) {
            return Err(error);
        }
        let read: Vec<Option<Timestamp>> = accounts
            .iter()
            .map(|id| known(&portfolio.snapshot, id).map(|complete| complete.read_at))
            .collect();
        let old = |at: Timestamp| between(at, now) >= transactions::STALE_AFTER;
        let half_read = accounts.iter().any(|id| is_left_off(&portfolio.snapshot, id));
        let (list_as_of, list_stale) = portfolio.freshness(&portfolio.seen(account));
        let part = Part {
            data: listing.transactions,
            as_of: read.iter().flatten().min().copied().or(list_as_of),
            stale: if accounts.is_empty() {
                list_stale
            } else {
                portfolio.incomplete || half_read || read.iter().any(|at| at.is_none_or(old))
            },
        };
        Ok((part, listing.next))
    }

    /// What the accounts of `portfolio`, or one of them, were worth from the day `first` to the day `last`. One call for each
    /// megabyte.
    ///
    /// # Errors
    /// [`RefreshError`] when the store could not be used.
    pub async fn history(
        &self,
        portfolio: &Portfolio,
        account: Option<&PortfolioAccountId>,
        first: Date,
        last: Date,
    ) -> Result<Part<DayView>, RefreshError> {
        let stem = &portfolio.stem;
        let days = history::days(self.app.store(), &self.tenant, stem, first, last, self.now()).await?;
        let (as_of, stale) = portfolio.freshness(&portfolio.seen(account));
        Ok(Part {
            data: history::drawn(&days, last, account),
            as_of,
            stale,
        })
    }

    /// What of `user`'s portfolio has changed. One call to the table, and none to SnapTrade.
    ///
    /// # Errors
    /// [`RefreshError`]; `NotRegistered` and `SecretRejected` for who cannot be acted for.
    pub async fn changes(&self, user: &UserId) -> Result<Changes, RefreshError> {
        let stem = user.stem();
        let record = self.connections.runner().names().user(&stem);
        let changes = UserData::new(self.app.store(), &self.tenant, &stem).changes_key();
        let keys = [record.clone(), changes.clone()];
        let items = self.app.store().get_all(&keys, self.now()).await?;
        let found = |key: &Key| items.iter().find(|item| Key::of(item) == *key);
        let record: Option<UserRecord> = found(&record).map(store::from_item).transpose()?;
        let active = record.as_ref().and_then(UserRecord::active);
        let changes = found(&changes).map(Changes::of);
        match (active, changes) {
            (Some(active), _) if active.secret_rejected => Err(Failure::SecretRejected.into()),
            (Some(_), changes) => Ok(changes.unwrap_or_default()),
            // Somebody who only brought statements.
            (None, Some(changes)) => Ok(changes),
            (None, None) => Err(RefreshError::Failure(NoSecret::NotRegistered.into())),
        }
    }

    fn now(&self) -> Timestamp {
        self.connections.runner().now()
    }
}

impl Portfolio {
    /// Where its accounts come from.
    fn holders(&self) -> Vec<Box<dyn Holder + '_>> {
        vec![
            Box::new(SnaptradeAccounts::new(&self.snapshot, self.now)),
            Box::new(StatementAccounts::new(&self.snapshot.statements, self.now)),
        ]
    }

    /// Whether it has this account.
    #[must_use]
    pub fn has(&self, account: &PortfolioAccountId) -> bool {
        self.holders()
            .iter()
            .flat_map(|holder| holder.accounts())
            .any(|shown| shown.account_id == *account)
    }

    /// Whether nothing is known yet of an account that it has, because SnapTrade is still collecting.
    #[must_use]
    pub fn is_awaited(&self, account: &PortfolioAccountId) -> bool {
        let stored = self
            .snapshot
            .connected_accounts()
            .map(|(stored, _)| stored)
            .find(|stored| account.at_snaptrade() == Some(&stored.account_id));
        stored
            .is_some_and(|stored| !stored.synced && !self.snapshot.holdings.contains_key(&stored.account_id))
    }

    /// The accounts.
    #[must_use]
    pub fn accounts(&self) -> Part<AccountView> {
        let accounts = self.seen(None);
        let (as_of, stale) = self.freshness(&accounts);
        Part {
            data: accounts,
            as_of,
            stale,
        }
    }

    /// The positions of all accounts, or of one.
    #[must_use]
    pub fn positions(&self, account: Option<&PortfolioAccountId>) -> Part<PositionView> {
        self.part(account, |holder| holder.positions())
    }

    /// The cash of all accounts, or of one.
    #[must_use]
    pub fn balances(&self, account: Option<&PortfolioAccountId>) -> Part<BalanceView> {
        self.part(account, |holder| holder.balances())
    }

    fn performance(&self, account: Option<&PortfolioAccountId>) -> Part<PerformanceView> {
        let mut part = self.part(account, |holder| holder.performance());
        let read: Vec<Timestamp> = self
            .seen(account)
            .iter()
            .filter_map(|shown| self.snapshot.performance.get(shown.account_id.at_snaptrade()?))
            .map(|reading| reading.read_at)
            .collect();
        part.as_of = read.iter().min().copied().or(part.as_of);
        part.stale |= read
            .iter()
            .any(|at| between(*at, self.now) >= super::performance::STALE_AFTER);
        part
    }

    /// What the portfolio stands on.
    #[must_use]
    pub fn mode(&self) -> ModeView {
        let providers: Vec<Provider> = self
            .seen(None)
            .iter()
            .map(|account| account.account_id.provider())
            .collect();
        mode(&providers)
    }

    /// The connections.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionView> {
        let accounts = self.snapshot.accounts();
        self.snapshot
            .connections()
            .iter()
            .map(|connection| connections::view(connection, accounts))
            .collect()
    }

    fn seen(&self, account: Option<&PortfolioAccountId>) -> Vec<AccountView> {
        let mut seen: Vec<AccountView> = self
            .holders()
            .iter()
            .flat_map(|holder| holder.accounts())
            .collect();
        seen.retain(|shown| account.is_none_or(|wanted| *wanted == shown.account_id));
        seen
    }

    fn part<T: OfAccount>(
        &self,
        account: Option<&PortfolioAccountId>,
        of: impl Fn(&dyn Holder) -> Vec<T>,
    ) -> Part<T> {
        let (as_of, stale) = self.freshness(&self.seen(account));
        let mut data: Vec<T> = self
            .holders()
            .iter()
            .flat_map(|holder| of(holder.as_ref()))
            .collect();
        data.retain(|one| account.is_none_or(|wanted| wanted == one.account()));
        Part { data, as_of, stale }
    }

    /// As of when `accounts` are, and whether that is longer ago than it should be. Where there are none, it is the
    /// list of accounts that is as old as it is.
    fn freshness(&self, accounts: &[AccountView]) -> (Option<Timestamp>, bool) {
        if accounts.is_empty() {
            let read_at = self.snapshot.accounts.as_ref().map(|reading| reading.read_at);
            let stale = read_at.is_none_or(|read_at| self.now >= after(read_at, STALE_AFTER));
            return (read_at, stale);
        }
        let as_of = accounts.iter().filter_map(|account| account.as_of).min();
        (
            as_of,
            self.incomplete || accounts.iter().any(|account| account.stale),
        )
    }
}

/// Whether a reading of an account's transactions was begun and is not done.
fn is_left_off(snapshot: &Snapshot, id: &AccountId) -> bool {
    let record = snapshot.transactions.get(id);
    record.is_some_and(|record| record.under_way.is_some())
}

/// Whether SnapTrade's account `id` is asked for, where `account` is or all are.
fn is_wanted(account: Option<&PortfolioAccountId>, id: &AccountId) -> bool {
    account.is_none_or(|wanted| wanted.at_snaptrade() == Some(id))
}

/// Something that belongs to an account.
trait OfAccount {
    fn account(&self) -> &PortfolioAccountId;
}

impl OfAccount for PositionView {
    fn account(&self) -> &PortfolioAccountId {
        &self.account_id
    }
}

impl OfAccount for BalanceView {
    fn account(&self) -> &PortfolioAccountId {
        &self.account_id
    }
}

impl OfAccount for PerformanceView {
    fn account(&self) -> &PortfolioAccountId {
        &self.account_id
    }
}
