//! SnapTrade as a provider of accounts.

use jiff::Timestamp;

use super::accounts::{self, AccountView};
use super::figures::{self, BalanceView, PositionView};
use super::provider::{Health, Holder, PerformanceView, PortfolioAccountId, Provider};
use super::userdata::Snapshot;
use crate::snaptrade::AccountId;

/// What was last read from SnapTrade of a user's accounts.
#[derive(Debug, Clone, Copy)]
pub struct SnaptradeAccounts<'a> {
    snapshot: &'a Snapshot,
    now: Timestamp,
}

impl<'a> SnaptradeAccounts<'a> {
    /// The accounts in `snapshot`, looked at now.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot, now: Timestamp) -> Self {
        Self { snapshot, now }
    }

    /// Whether the account could not be read when it was last tried.
    fn has_failed(&self, account: &AccountId) -> bool {
        let record = self.snapshot.refresh.as_ref();
        let upstream = self.snapshot.accounts.as_ref().map(|reading| &reading.upstream);
        record
            .filter(|record| Some(&record.upstream) == upstream)
            .and_then(|record| record.finished.as_ref())
            .filter(|finished| {
                // An event may have had it read since.
                let holdings = self.snapshot.holdings.get(account);
                holdings.is_none_or(|reading| reading.read_at <= finished.at)
            })
            .is_some_and(|finished| finished.failed.contains(account))
    }

    fn held(&self) -> impl Iterator<Item = (PortfolioAccountId, &'a super::holdings::Holdings)> {
        let snapshot = self.snapshot;
        snapshot.connected_accounts().filter_map(|(account, _)| {
            let holdings = snapshot.holdings.get(&account.account_id)?;
            let id = PortfolioAccountId::snaptrade(account.account_id.clone());
            Some((id, &holdings.content))
        })
    }
}

impl Holder for SnaptradeAccounts<'_> {
    fn provider(&self) -> Provider {
        Provider::SnapTrade
    }

    fn accounts(&self) -> Vec<AccountView> {
        self.snapshot
            .connected_accounts()
            .map(|(account, connection)| {
                let failed = self.has_failed(&account.account_id);
                accounts::view(account, connection, self.snapshot, failed, self.now)
            })
            .collect()
    }

    fn positions(&self) -> Vec<PositionView> {
        self.held()
            .flat_map(|(id, held)| {
                held.positions
                    .iter()
                    .map(move |stored| figures::position(&id, stored))
            })
            .collect()
    }

    fn balances(&self) -> Vec<BalanceView> {
        self.held()
            .flat_map(|(id, held)| {
                held.balances
                    .iter()
                    .map(move |stored| figures::balance(&id, stored))
            })
            .collect()
    }

    fn performance(&self) -> Vec<PerformanceView> {
        let snapshot = self.snapshot;
        snapshot
            .connected_accounts()
            .filter_map(|(account, _)| {
                let reading = snapshot.performance.get(&account.account_id)?;
                Some((&account.account_id, &reading.content.rates))
            })
            .flat_map(|(account, rates)| {
                rates.iter().map(|rate| PerformanceView {
                    account_id: PortfolioAccountId::snaptrade(account.clone()),
                    timeframe: rate.timeframe.clone(),
                    return_percent: rate.return_percent,
                })
            })
            .collect()
    }

    fn health(&self) -> Health {
        let accounts = self.accounts();
        Health {
            provider: self.provider(),
            accounts: accounts.len(),
            stale: accounts.iter().filter(|account| account.stale).count(),
        }
    }
}
