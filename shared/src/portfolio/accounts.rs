//! A user's accounts, as they are stored and shown.

use std::time::Duration;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::connections::{ConnectionState, StoredConnection};
use super::provider::{PortfolioAccountId, Provider};
use super::userdata::Snapshot;
use crate::connections::timing::between;
use crate::snaptrade::{Account, AccountId, ConnectionId};

/// From which age on what an account holds is called stale, although nothing is known to have failed.
pub const STALE_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How many characters of an account's number are kept. The rest is never stored.
const NUMBER_SHOWN: usize = 4;

/// An amount of money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// How much.
    pub amount: Decimal,
    /// Of which currency, by ISO 4217; absent where SnapTrade does not say.
    pub currency: Option<String>,
}

/// An account as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAccount {
    /// SnapTrade's id of it.
    pub account_id: AccountId,
    /// The connection that it belongs to.
    pub connection_id: ConnectionId,
    /// A name to show.
    pub name: Option<String>,
    /// The brokerage's name.
    pub institution: Option<String>,
    /// The last characters of its number.
    pub number: Option<String>,
    /// The brokerage's word for the kind of account, or SnapTrade's.
    pub kind: Option<String>,
    /// Whether it is open, in SnapTrade's word.
    pub status: Option<String>,
    /// What all of it is worth, as the brokerage says.
    pub total_value: Option<Amount>,
    /// Whether SnapTrade has read what it holds at least once.
    pub synced: bool,
    /// When SnapTrade last read what it holds.
    pub synced_at: Option<Timestamp>,
    /// Whether only play money is traded in it.
    pub is_paper: bool,
}

impl From<&Account> for StoredAccount {
    fn from(account: &Account) -> Self {
        let total = account
            .balance
            .as_ref()
            .and_then(|balance| balance.total.as_ref());
        let holdings = account
            .sync_status
            .as_ref()
            .and_then(|status| status.holdings.as_ref());
        Self {
            account_id: account.id.clone(),
            connection_id: account.brokerage_authorization.clone(),
            name: account.name.clone(),
            institution: account.institution_name.clone(),
            number: account.number.as_deref().and_then(last_characters),
            kind: account.raw_type.clone().or_else(|| {
                account
                    .account_category
                    .as_ref()
                    .map(|kind| kind.as_str().to_owned())
            }),
            status: account.status.as_ref().map(|status| status.as_str().to_owned()),
            total_value: total.and_then(|total| {
                Some(Amount {
                    amount: total.amount?,
                    currency: total.currency.clone(),
                })
            }),
            // A brokerage that does not say how far it is has nothing left to wait for.
            synced: holdings.is_none_or(|holdings| holdings.initial_sync_completed),
            synced_at: holdings.and_then(|holdings| holdings.last_successful_sync),
            is_paper: account.is_paper,
        }
    }
}

/// The last characters of an account's number, whatever the brokerage has put in place of the others; `None` where
/// there are none.
fn last_characters(number: &str) -> Option<String> {
    let mut last: Vec<char> = number
        .chars()
        .rev()
        .take_while(|c| c.is_alphanumeric())
        .take(NUMBER_SHOWN)
        .collect();
    last.reverse();
    (!last.is_empty()).then(|| last.into_iter().collect())
}

/// An account as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccountView {
    /// Its id, with the provider's name.
    pub account_id: PortfolioAccountId,
    /// Through which service it is reached.
    pub provider: Provider,
    /// The brokerage's name.
    pub institution: Option<String>,
    /// A name to show.
    pub name: Option<String>,
    /// The last characters of its number.
    pub number: Option<String>,
    /// The kind of account.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Whether it is open.
    pub status: Option<String>,
    /// What all of it is worth.
    pub total_value: Option<Amount>,
    /// The connection that it belongs to, where the provider has connections.
    pub connection_id: Option<ConnectionId>,
    /// How that connection stands.
    pub connection_state: Option<ConnectionState>,
    /// Whether orders may be placed in it.
    pub tradable: bool,
    /// As of when what is known of it is.
    pub as_of: Option<Timestamp>,
    /// Whether that is older than it should be.
    pub stale: bool,
}

/// An account of `snapshot` under `connection`. `failed` says that it could not be read just now.
#[must_use]
pub fn view(
    account: &StoredAccount,
    connection: &StoredConnection,
    snapshot: &Snapshot,
    failed: bool,
    now: Timestamp,
) -> AccountView {
    let holdings = snapshot.holdings.get(&account.account_id);
    let read_at = holdings.map(|reading| reading.read_at);
    let as_of = holdings
        .and_then(|reading| reading.content.as_of)
        .or(account.synced_at)
        .or(read_at);
    let open = account
        .status
        .as_deref()
        .is_none_or(|status| status.eq_ignore_ascii_case("open"));
    AccountView {
        account_id: PortfolioAccountId::snaptrade(account.account_id.clone()),
        provider: Provider::SnapTrade,
        institution: account
            .institution
            .clone()
            .or_else(|| connection.brokerage.clone()),
        name: account.name.clone(),
        number: account.number.clone(),
        kind: account.kind.clone(),
        status: account.status.clone(),
        total_value: account.total_value.clone(),
        connection_id: Some(account.connection_id.clone()),
        connection_state: Some(connection.state),
        tradable: open && connection.can_trade(),
        as_of,
        stale: failed
            || connection.state != ConnectionState::Active
            || read_at.is_none_or(|read_at| between(read_at, now) >= STALE_AFTER),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account(number: &str) -> StoredAccount {
        let account: Account = serde_json::from_value(json!({
            "id": "a",
            "brokerage_authorization": "c",
            "name": "Individual",
            "number": number,
            "institution_name": "Alpaca",
            "sync_status": {"holdings": {"initial_sync_completed": true, "last_successful_sync": "2026-11-21T09:00:00Z"}},
            "balance": {"total": {"amount": 1234.50, "currency": "USD"}},
            "status": null,
            "account_category": "INVESTMENT",
        }))
        .unwrap();
        StoredAccount::from(&account)
    }

    #[test]
    fn of_an_accounts_number_only_the_last_four_characters_are_kept() {
        for (number, kept) in [
            ("1234567890", Some("7890")),
            ("*****6789", Some("6789")),
            ("U-12", Some("12")),
            ("****", None),
            ("", None),
        ] {
            assert_eq!(account(number).number.as_deref(), kept, "{number}");
        }
    }

    #[test]
    fn an_account_is_stale_when_it_failed_when_it_is_old_and_when_its_connection_is_broken() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let mut connection: StoredConnection = serde_json::from_value(json!({
            "connection_id": "c", "kind": "trade", "state": "active",
        }))
        .unwrap();
        let account = account("1");
        let mut snapshot = Snapshot::default();
        assert!(view(&account, &connection, &snapshot, false, now).stale);
        snapshot.holdings.insert(
            AccountId::new("a"),
            super::super::userdata::test_reading(super::super::holdings::Holdings::default(), now),
        );
        let seen = view(&account, &connection, &snapshot, false, now);
        assert!(!seen.stale && seen.tradable);
        assert_eq!(seen.as_of, Some("2026-11-21T09:00:00Z".parse().unwrap()));
        assert_eq!(
            serde_json::to_value(&seen.total_value).unwrap(),
            json!({"amount": "1234.5", "currency": "USD"})
        );
        assert!(view(&account, &connection, &snapshot, true, now).stale);
        let later = "2026-11-22T10:00:00Z".parse().unwrap();
        assert!(view(&account, &connection, &snapshot, false, later).stale);
        connection.state = ConnectionState::Broken;
        let seen = view(&account, &connection, &snapshot, false, now);
        assert!(seen.stale && !seen.tradable);
    }
}
