//! Where accounts come from, and their ids as clients see them.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::snaptrade::AccountId;

/// A service through which accounts are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// SnapTrade.
    SnapTrade,
}

impl Provider {
    /// The provider's name, as it begins the ids of its accounts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SnapTrade => "snaptrade",
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
    /// The id of SnapTrade's account `account`.
    #[must_use]
    pub fn snaptrade(account: AccountId) -> Self {
        Self {
            provider: Provider::SnapTrade,
            account,
        }
    }

    /// Reads an id such as `snaptrade_917c8734`; `None` where it names no provider.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (provider, account) = text.split_once('_')?;
        (provider == Provider::SnapTrade.as_str() && !account.is_empty())
            .then(|| Self::snaptrade(AccountId::new(account)))
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
        for bad in ["", "a", "snaptrade", "snaptrade_", "other_a", "Snaptrade_a"] {
            assert_eq!(PortfolioAccountId::parse(bad), None, "{bad}");
        }
    }
}
