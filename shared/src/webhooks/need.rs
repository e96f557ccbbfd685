//! What has to be read from SnapTrade because of events, after what was read since they came. Nothing here does any I/O.
//!
//! An event says that something has changed before it was received. A reading that began after that shows the change,
//! whoever made it: for another event of the same burst, for a refresh, or for somebody who looked. So a burst of
//! events costs one reading.

use std::collections::BTreeSet;

use super::work::Work;
use crate::portfolio::userdata::Snapshot;
use crate::snaptrade::AccountId;

/// What has to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// The list of connections, and with it what accounts hold that were not known before.
    pub connections: bool,
    /// The list of accounts.
    pub accounts: bool,
    /// What these accounts hold.
    pub holdings: BTreeSet<AccountId>,
    /// The transactions of these accounts.
    pub transactions: BTreeSet<AccountId>,
}

impl Needs {
    /// Whether nothing has to be read.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What has to be read because of `works`, each with the time at which its event was received, in milliseconds since
/// 1970, when `snapshot` is what was read before.
#[must_use]
pub fn needs(snapshot: &Snapshot, works: &[(&Work, i64)]) -> Needs {
    let begun = |reading: Option<i64>| reading.unwrap_or(0);
    let connections = begun(snapshot.connections.as_ref().map(|reading| reading.begun_ms));
    let accounts = begun(snapshot.accounts.as_ref().map(|reading| reading.begun_ms));
    let mut needs = Needs::default();
    for (work, received) in works {
        // A reading that began in the same millisecond may have been the faster one.
        let is_old = |begun: i64| begun <= *received;
        match work {
            Work::Connections | Work::Attempt => {
                needs.connections |= is_old(connections);
                needs.accounts |= is_old(accounts);
            }
            Work::Account(account) | Work::FirstRead(account) => {
                let holdings = snapshot.holdings.get(account);
                needs.accounts |= is_old(accounts);
                if is_old(begun(holdings.map(|reading| reading.begun_ms))) {
                    needs.holdings.insert(account.clone());
                }
            }
            Work::Transactions(_) | Work::Verify | Work::Ignore(_) => {}
        }
        if let Work::Transactions(account) | Work::FirstRead(account) = work {
            let record = snapshot.transactions.get(account);
            if is_old(begun(record.map(|record| record.begun_ms()))) {
                needs.transactions.insert(account.clone());
            }
        }
    }
    needs
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Lists whose reading began at 100, and the holdings of account `a` at 200.
    fn snapshot() -> Snapshot {
        let reading = |begun: i64, content: serde_json::Value| {
            json!({
                "upstream": "ada~aaaaaaaaaaaa", "begun_ms": begun, "read_at": "2026-11-21T10:00:00Z",
                "content": content,
            })
        };
        let held = json!({"balances": [], "positions": []});
        Snapshot {
            connections: serde_json::from_value(reading(100, json!([]))).unwrap(),
            accounts: serde_json::from_value(reading(100, json!([]))).unwrap(),
            holdings: [(
                AccountId::new("a"),
                serde_json::from_value(reading(200, held)).unwrap(),
            )]
            .into(),
            ..Snapshot::default()
        }
    }

    fn set(accounts: &[&str]) -> BTreeSet<AccountId> {
        accounts.iter().map(|id| AccountId::new(*id)).collect()
    }

    #[test]
    fn what_was_read_after_an_event_came_is_not_read_again() {
        let account = Work::Account(AccountId::new("a"));
        let works = [(&Work::Connections, 99), (&Work::Attempt, 50), (&account, 99)];
        assert!(needs(&snapshot(), &works).is_nothing());
        assert!(needs(&Snapshot::default(), &[]).is_nothing());
    }

    #[test]
    fn what_was_read_before_an_event_came_or_never_is_read() {
        let connections = needs(&snapshot(), &[(&Work::Connections, 100)]);
        assert_eq!(
            connections,
            Needs {
                connections: true,
                accounts: true,
                ..Needs::default()
            }
        );
        let account = |id: &str| Work::Account(AccountId::new(id));
        let between = needs(&snapshot(), &[(&account("a"), 150)]);
        assert!(between.accounts && !between.connections && between.holdings.is_empty());
        assert_eq!(needs(&snapshot(), &[(&account("a"), 200)]).holdings, set(&["a"]));
        assert_eq!(needs(&snapshot(), &[(&account("b"), 1)]).holdings, set(&["b"]));
        let first = Work::FirstRead(AccountId::new("a"));
        let first = needs(&snapshot(), &[(&first, 1)]);
        assert_eq!((first.holdings, first.transactions), (set(&[]), set(&["a"])));
        let new = Work::Transactions(AccountId::new("a"));
        let new = needs(&snapshot(), &[(&new, 1_000)]);
        assert!(!new.accounts && new.holdings.is_empty());
        assert_eq!(new.transactions, set(&["a"]));
    }
}
