//! Which kinds of provider a user's portfolio stands on.

use serde::Serialize;

use super::provider::Provider;

/// What a portfolio is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// There are no accounts.
    None,
    /// Accounts that are only looked at, at providers that gather data.
    Aggregation,
    /// Accounts at brokerages, reached through SnapTrade.
    Brokerage,
    /// Both.
    Hybrid,
}

/// A portfolio's mode as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModeView {
    /// The mode.
    pub mode: Mode,
    /// The providers that accounts come from, each once.
    pub providers: Vec<Provider>,
    /// How many accounts there are.
    pub accounts: usize,
}

/// The mode of a portfolio whose accounts come from these providers.
#[must_use]
pub fn mode(accounts: &[Provider]) -> ModeView {
    let mut providers = accounts.to_vec();
    providers.sort_unstable();
    providers.dedup();
    let brokerage = providers.iter().any(|provider| provider.is_brokerage());
    let aggregation = providers.iter().any(|provider| !provider.is_brokerage());
    ModeView {
        mode: match (brokerage, aggregation) {
            (false, false) => Mode::None,
            (false, true) => Mode::Aggregation,
            (true, false) => Mode::Brokerage,
            (true, true) => Mode::Hybrid,
        },
        providers,
        accounts: accounts.len(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_mode_follows_from_what_a_user_has() {
        let shown = |accounts: &[Provider]| serde_json::to_value(mode(accounts)).unwrap();
        assert_eq!(
            shown(&[]),
            json!({"mode": "none", "providers": [], "accounts": 0})
        );
        assert_eq!(
            shown(&[Provider::SnapTrade, Provider::SnapTrade]),
            json!({"mode": "brokerage", "providers": ["snaptrade"], "accounts": 2})
        );
        assert_eq!(
            shown(&[Provider::Statement]),
            json!({"mode": "aggregation", "providers": ["statement"], "accounts": 1})
        );
        assert_eq!(
            shown(&[Provider::Statement, Provider::SnapTrade]),
            json!({"mode": "hybrid", "providers": ["snaptrade", "statement"], "accounts": 2})
        );
    }
}
