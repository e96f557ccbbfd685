//! Where accounts come from, what every provider of them can be asked for, and the accounts' ids as clients see them.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

use super::accounts::AccountView;
use super::figures::{BalanceView, PositionView};
use crate::snaptrade::AccountId;

/// What is stored of a user's accounts at one provider. Every one of them answers in the same shapes, and the ids of
/// its accounts carry its name, so that several stand side by side.
pub trait Holder {
    /// Whose accounts they are.
    fn provider(&self) -> Provider;

    /// The accounts.
    fn accounts(&self) -> Vec<AccountView>;

    /// What the accounts hold besides cash.
    fn positions(&self) -> Vec<PositionView>;

    /// The accounts' cash.
    fn balances(&self) -> Vec<BalanceView>;

    /// How the accounts did, where that is known.
    fn performance(&self) -> Vec<PerformanceView>;

    /// How fresh the accounts are.
    fn health(&self) -> Health;
}

/// What an account earned in a span of time, as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PerformanceView {
    /// The account.
    pub account_id: PortfolioAccountId,
    /// The span of time up to now: `ALL`, `1Y`, `YTD`, `1M`, `1W` or `1D`.
    pub timeframe: String,
    /// What was earned, in per cent.
    pub return_percent: Option<Decimal>,
}

/// How a provider stands for one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The provider.
    pub provider: Provider,
    /// How many accounts there are.
    pub accounts: usize,
    /// How many of them are older than they should be.
    pub stale: usize,
}

/// A service through which accounts are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// SnapTrade.
    SnapTrade,
    /// Statements that users bring themselves.
    Statement,
}

impl Provider {
    /// The provider's name, as it begins the ids of its accounts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SnapTrade => "snaptrade",
            Self::Statement => "statement",
        }
    }

    /// Whether accounts are reached at the brokerages themselves, rather than only gathered to be looked at.
    #[must_use]
    pub fn is_brokerage(self) -> bool {
        match self {
            Self::SnapTrade => true,
            Self::Statement => false,
        }
    }
}

/// An account's id as clients see it: the provider's name, an underscore, and the provider's own id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortfolioAccountId {
    provider: Provider,
    account: AccountId,
}

impl PortfolioAccountId {
    /// The id of the account that `provider` knows as `account`.
    #[must_use]
    pub fn new(provider: Provider, account: AccountId) -> Self {
        Self { provider, account }
    }

    /// The id of SnapTrade's account `account`.
    #[must_use]
    pub fn snaptrade(account: AccountId) -> Self {
        Self::new(Provider::SnapTrade, account)
    }

    /// SnapTrade's own id of the account; `None` where it is another provider's.
    #[must_use]
    pub fn at_snaptrade(&self) -> Option<&AccountId> {
        (self.provider == Provider::SnapTrade).then_some(&self.account)
    }

    /// Reads an id such as `snaptrade_917c8734`; `None` where it names no provider.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (provider, account) = text.split_once('_')?;
        let provider = [Provider::SnapTrade, Provider::Statement]
            .into_iter()
            .find(|known| known.as_str() == provider)?;
        (!account.is_empty()).then(|| Self::new(provider, AccountId::new(account)))
    }

    /// Through which service the account is reached.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// The provider's own id.
    #[must_use]
    pub fn account(&self) -> &AccountId {
        &self.account
    }
}

impl fmt::Display for PortfolioAccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.provider.as_str(), self.account)
    }
}

impl Serialize for PortfolioAccountId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_id_carries_its_provider() {
        let id = PortfolioAccountId::snaptrade(AccountId::new("a_1"));
        assert_eq!(id.to_string(), "snaptrade_a_1");
        assert_eq!(PortfolioAccountId::parse("snaptrade_a_1"), Some(id));
        let id = PortfolioAccountId::new(Provider::Statement, AccountId::new("b"));
        assert_eq!(PortfolioAccountId::parse("statement_b"), Some(id.clone()));
        assert_eq!(id.at_snaptrade(), None);
        for bad in ["", "a", "snaptrade", "snaptrade_", "other_a", "Snaptrade_a"] {
            assert_eq!(PortfolioAccountId::parse(bad), None, "{bad}");
        }
    }
}
