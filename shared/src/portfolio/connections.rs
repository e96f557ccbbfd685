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

/// How long it takes at most until it is known whether SnapTrade has taken a deletion that somebody is just asking for.
const BEING_ASKED: Duration = Duration::from_secs(30);

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
}

/// That a connection is to be deleted. It is written down before SnapTrade is asked, so that whoever reads the user's
/// connections next can finish what somebody else has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// The connection.
    pub connection_id: ConnectionId,
    /// When SnapTrade was last asked, or was to be.
    pub asked_at: Timestamp,
    /// When SnapTrade accepted it.
    pub accepted_at: Option<Timestamp>,
}

impl Deletion {
    /// Whether the connection is shown as one that is being deleted.
    #[must_use]
    pub fn is_under_way(&self, now: Timestamp) -> bool {
        self.accepted_at
            .is_none_or(|accepted| between(accepted, now) < DELETION_PATIENCE)
    }

    /// Whether SnapTrade is to be asked (again) for a connection that it still lists.
    #[must_use]
    pub fn is_owed(&self, now: Timestamp) -> bool {
        match self.accepted_at {
            None => between(self.asked_at, now) >= BEING_ASKED,
            Some(_) => !self.is_under_way(now),
        }
    }
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

/// The connections that SnapTrade lists now. One that is not listed is gone.
#[must_use]
pub fn stored(listed: &[Connection]) -> Vec<StoredConnection> {
    listed
        .iter()
        .map(|connection| {
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
                state: if connection.disabled {
                    ConnectionState::Broken
                } else {
                    ConnectionState::Active
                },
                created_at: connection.created_date,
                disabled_at: connection.disabled_date,
            }
        })
        .collect()
}

/// Marks those of `connections` that are being deleted.
pub fn mark(connections: &mut [StoredConnection], deletions: &[Deletion], now: Timestamp) {
    for connection in connections {
        let under_way = deletions
            .iter()
            .any(|deletion| deletion.connection_id == connection.connection_id && deletion.is_under_way(now));
        if under_way {
            connection.state = ConnectionState::Deleting;
        }
    }
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
        let listed = stored(&[listed("one", false), listed("two", true)]);
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0].state, ConnectionState::Active);
        assert_eq!(listed[0].brokerage.as_deref(), Some("Alpaca Markets"));
        assert!(listed[0].can_trade());
        assert_eq!(listed[1].state, ConnectionState::Broken);
        assert!(!listed[1].can_trade());
        assert_eq!(count(&listed), (2, true));
    }

    #[test]
    fn a_connection_is_being_deleted_until_snaptrade_has_had_an_hour_for_it() {
        let deletion = |accepted_at: Option<&str>| Deletion {
            connection_id: ConnectionId::new("one"),
            asked_at: at("2026-11-21T10:00:00Z"),
            accepted_at: accepted_at.map(at),
        };
        let state = |deletion: Deletion, now: &str| {
            let mut connections = stored(&[listed("one", false), listed("two", false)]);
            mark(&mut connections, &[deletion], at(now));
            assert_eq!(connections[1].state, ConnectionState::Active);
            connections[0].state
        };
        let accepted = deletion(Some("2026-11-21T10:00:01Z"));
        assert_eq!(
            state(accepted.clone(), "2026-11-21T11:00:00Z"),
            ConnectionState::Deleting
        );
        assert_eq!(
            state(accepted.clone(), "2026-11-21T11:00:01Z"),
            ConnectionState::Active
        );
        assert!(!accepted.is_owed(at("2026-11-21T11:00:00Z")));
        assert!(accepted.is_owed(at("2026-11-21T11:00:01Z")));
        // Nobody knows whether SnapTrade was asked.
        let open = deletion(None);
        assert_eq!(
            state(open.clone(), "2026-11-23T10:00:00Z"),
            ConnectionState::Deleting
        );
        assert!(!open.is_owed(at("2026-11-21T10:00:29Z")));
        assert!(open.is_owed(at("2026-11-21T10:00:30Z")));
    }
}
