//! A user's connections to brokerages, as they are stored and shown.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::accounts::StoredAccount;
use super::provider::PortfolioAccountId;
use crate::connections::timing::between;
use crate::snaptrade::{Connection, ConnectionId, ConnectionType};

/// How long SnapTrade may go on listing a connection whose deletion it has accepted, before it is shown as it is.
const DELETION_PATIENCE: Duration = Duration::from_secs(3600);

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// It works.
    Active,
    /// The brokerage no longer lets SnapTrade in; the user has to connect again.
    Broken,
    /// Its deletion was asked for.
    Deleting,
}

/// A connection as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredConnection {
    /// SnapTrade's id of it.
    pub connection_id: ConnectionId,
    /// The brokerage's name.
    pub brokerage: Option<String>,
    /// The brokerage's slug.
    pub slug: Option<String>,
    /// What it may be used for: `read` or `trade`.
    pub kind: Option<String>,
    /// How it stands.
    pub state: ConnectionState,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// Since when the brokerage does not let SnapTrade in.
    pub disabled_at: Option<Timestamp>,
    /// When its deletion was accepted.
    pub deleting_since: Option<Timestamp>,
}

impl StoredConnection {
    /// Whether orders may be placed through it.
    #[must_use]
    pub fn can_trade(&self) -> bool {
        self.state == ConnectionState::Active && self.kind.as_deref() == Some(ConnectionType::Trade.as_str())
    }

    /// Why it does not work, in one word; `None` where it does.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        match self.state {
            ConnectionState::Active => None,
            ConnectionState::Broken => Some("disabled"),
            ConnectionState::Deleting => Some("deletion_requested"),
        }
    }
}

/// The connections that SnapTrade lists now, with what only we know of them, which is `known`. One that is not listed
/// is gone.
#[must_use]
pub fn merge(listed: &[Connection], known: &[StoredConnection], now: Timestamp) -> Vec<StoredConnection> {
    listed
        .iter()
        .map(|connection| {
            let deleting_since = known
                .iter()
                .find(|stored| stored.connection_id == connection.id)
                .and_then(|stored| stored.deleting_since)
                .filter(|since| between(*since, now) < DELETION_PATIENCE);
            let state = match (deleting_since, connection.disabled) {
                (Some(_), _) => ConnectionState::Deleting,
                (None, true) => ConnectionState::Broken,
                (None, false) => ConnectionState::Active,
            };
            let brokerage = connection.brokerage.as_ref();
            StoredConnection {
                connection_id: connection.id.clone(),
                brokerage: brokerage
                    .and_then(|brokerage| brokerage.display_name.clone().or_else(|| brokerage.name.clone()))
                    .or_else(|| connection.name.clone()),
                slug: brokerage.and_then(|brokerage| brokerage.slug.clone()),
                kind: connection
                    .connection_type
                    .as_ref()
                    .map(|kind| kind.as_str().to_owned()),
                state,
                created_at: connection.created_date,
                disabled_at: connection.disabled_date,
                deleting_since,
            }
        })
        .collect()
}

/// How many connections there are, and whether one of them is broken.
#[must_use]
pub fn count(connections: &[StoredConnection]) -> (u32, bool) {
    let broken = connections
        .iter()
        .any(|connection| connection.state == ConnectionState::Broken);
    (u32::try_from(connections.len()).unwrap_or(u32::MAX), broken)
}

/// A connection as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConnectionView {
    /// SnapTrade's id of it.
    pub connection_id: ConnectionId,
    /// The brokerage's name.
    pub brokerage: Option<String>,
    /// What it may be used for: `read` or `trade`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// How it stands.
    pub state: ConnectionState,
    /// Why it does not work.
    pub reason: Option<&'static str>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// The accounts under it.
    pub accounts: Vec<PortfolioAccountId>,
}

/// A connection with those of `accounts` that are under it.
#[must_use]
pub fn view(connection: &StoredConnection, accounts: &[StoredAccount]) -> ConnectionView {
    ConnectionView {
        connection_id: connection.connection_id.clone(),
        brokerage: connection.brokerage.clone(),
        kind: connection.kind.clone(),
        state: connection.state,
        reason: connection.reason(),
        created_at: connection.created_at,
        accounts: accounts
            .iter()
            .filter(|account| account.connection_id == connection.connection_id)
            .map(|account| PortfolioAccountId::snaptrade(account.account_id.clone()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn listed(id: &str, disabled: bool) -> Connection {
        serde_json::from_value(json!({
            "id": id,
            "type": "trade",
            "disabled": disabled,
            "created_date": "2026-11-21T10:00:00Z",
            "brokerage": {"id": "b", "slug": "ALPACA", "name": "Alpaca", "display_name": "Alpaca Markets"},
        }))
        .unwrap()
    }

    #[test]
    fn a_connection_is_as_snaptrade_lists_it_and_gone_when_it_does_not() {
        let now = at("2026-11-21T10:00:00Z");
        let stored = merge(&[listed("one", false), listed("two", true)], &[], now);
        assert_eq!(stored.len(), 2);
        assert_eq!(stored[0].state, ConnectionState::Active);
        assert_eq!(stored[0].brokerage.as_deref(), Some("Alpaca Markets"));
        assert!(stored[0].can_trade());
        assert_eq!(stored[1].state, ConnectionState::Broken);
        assert!(!stored[1].can_trade());
        assert_eq!(count(&stored), (2, true));
        assert_eq!(merge(&[listed("two", false)], &stored, now).len(), 1);
    }

    #[test]
    fn a_connection_that_is_being_deleted_stays_so_for_an_hour_at_most() {
        let since = at("2026-11-21T10:00:00Z");
        let mut stored = merge(&[listed("one", false)], &[], since);
        stored[0].deleting_since = Some(since);
        let state = |now| merge(&[listed("one", false)], &stored, at(now))[0].state;
        assert_eq!(state("2026-11-21T10:59:59Z"), ConnectionState::Deleting);
        assert_eq!(state("2026-11-21T11:00:00Z"), ConnectionState::Active);
    }
}
