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

    /// Part 0 are the connections, 1 and 2 two accounts, 3 and 4 their transactions: when each last changed at
    /// SnapTrade, and what of it is stored.
    #[derive(Debug, Default)]
    struct Both {
        changed: [i64; 5],
        stored: [i64; 5],
        begun: [i64; 6],
    }

    impl Both {
        fn snapshot(&self) -> Snapshot {
            let reading = |begun: i64, content: serde_json::Value| {
                json!({
                    "upstream": "ada~aaaaaaaaaaaa", "begun_ms": begun, "read_at": "2026-11-21T10:00:00Z",
                    "content": content,
                })
            };
            let record = |begun: i64| {
                serde_json::from_value(json!({
                    "rev": 1, "upstream": "ada~aaaaaaaaaaaa", "run": "aaaaaaaaaaaa", "until": "1970-01-01T00:00:00Z",
                    "under_way": null, "complete": {
                        "begun_ms": begun, "read_at": "2026-11-21T10:00:00Z", "count": 0,
                        "written_at": "2026-11-21T10:00:00Z",
                    },
                }))
                .unwrap()
            };
            let held = || json!({"balances": [], "positions": []});
            let holdings = |begun: i64| serde_json::from_value(reading(begun, held())).unwrap();
            let id = AccountId::new;
            Snapshot {
                connections: serde_json::from_value(reading(self.begun[0], json!([]))).unwrap(),
                accounts: serde_json::from_value(reading(self.begun[5], json!([]))).unwrap(),
                holdings: [
                    (id("a1"), holdings(self.begun[1])),
                    (id("a2"), holdings(self.begun[2])),
                ]
                .into(),
                transactions: [
                    (id("a1"), record(self.begun[3])),
                    (id("a2"), record(self.begun[4])),
                ]
                .into(),
                ..Snapshot::default()
            }
        }

        fn read(&mut self, part: usize, now: i64) {
            self.stored[part] = self.changed[part];
            self.begun[part] = now;
        }

        /// Does what the worker does with a batch of events.
        fn work(&mut self, works: &[(Work, i64)], now: i64) {
            let works: Vec<(&Work, i64)> = works.iter().map(|(work, at)| (work, *at)).collect();
            let needs = needs(&self.snapshot(), &works);
            if needs.connections {
                self.read(0, now);
            }
            if needs.connections || needs.accounts {
                self.begun[5] = now;
            }
            for (part, account) in [(1, "a1"), (2, "a2")] {
                if needs.holdings.contains(&AccountId::new(account)) {
                    self.read(part, now);
                }
                if needs.transactions.contains(&AccountId::new(account)) {
                    self.read(part + 2, now);
                }
            }
        }
    }

    fn work_of(part: usize) -> Work {
        match part {
            0 => Work::Connections,
            1 => Work::Account(AccountId::new("a1")),
            2 => Work::Account(AccountId::new("a2")),
            3 => Work::Transactions(AccountId::new("a1")),
            _ => Work::Transactions(AccountId::new("a2")),
        }
    }

    proptest::proptest! {
        /// Each change: what changed, how long after the one before, whether its event is lost, how much later than the
        /// change it comes, and how much later it comes again, if it does.
        #[test]
        fn in_whatever_order_events_come_and_however_often_what_is_stored_is_what_changed(
            changes in proptest::collection::vec(
                (0_usize..5, 1_i64..50, proptest::bool::weighted(0.2), 0_i64..400, proptest::option::of(0_i64..400)),
                1..40,
            ),
            batch in 1_usize..6,
        ) {
            let mut both = Both::default();
            let (mut now, mut arrivals) = (1_000, Vec::new());
            let mut last_told = [None; 5];
            for (number, (part, gap, lost, late, again)) in changes.iter().enumerate() {
                now += gap;
                last_told[*part] = (!lost).then_some(number);
                let received = now + late;
                if !lost {
                    // Worked on some time after it was received.
                    arrivals.push((received + 1, received, *part));
                    // A duplicate is not worked on again unless the first try failed.
                    arrivals.extend(again.map(|wait| (received + 1 + wait, received, *part)));
                }
                arrivals.push((now, 0, 100 + part));
            }
            arrivals.sort_unstable();
            let mut waiting: Vec<(Work, i64)> = Vec::new();
            for (at, received, part) in &arrivals {
                if *part >= 100 {
                    both.changed[part - 100] = *at;
                    continue;
                }
                waiting.push((work_of(*part), *received));
                if waiting.len() >= batch {
                    both.work(&waiting, *at);
                    waiting.clear();
                }
            }
            let end = now + 10_000;
            both.work(&waiting, end);
            for (part, told) in last_told.iter().enumerate() {
                if told.is_some() {
                    proptest::prop_assert_eq!(both.stored[part], both.changed[part], "part {}", part);
                }
            }
            // What was lost the schedule reads, and nothing is left to do about anything then.
            for part in 0..5 {
                both.read(part, end + 1);
            }
            both.begun[5] = end + 1;
            proptest::prop_assert_eq!(both.stored, both.changed);
            let all: Vec<(Work, i64)> = (0..5).map(|part| (work_of(part), end)).collect();
            let all: Vec<(&Work, i64)> = all.iter().map(|(work, at)| (work, *at)).collect();
            proptest::prop_assert!(needs(&both.snapshot(), &all).is_nothing());
        }
    }
}
