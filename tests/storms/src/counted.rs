//! What the table's stream tells where connections count: every state of the places, of the visits to the portal and of
//! the connections, and whether each who gave way had to.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::dynamodb::Change;
use crate::history::{SKEW, own_audit};

/// What the history came to.
#[derive(Debug, Default)]
pub struct Counted {
    /// How often which transition was made, by its word in the audit trail.
    pub transitions: BTreeMap<String, u64>,
    /// The connections that gave way and were not put back.
    pub evicted: BTreeSet<String>,
    /// The most places that were in use at a time.
    pub most_in_use: u64,
    /// Connections that came without a place of their own: of a user who had a second link before the first connection
    /// was seen here, which SnapTrade tells of later. They are over the limit until somebody gives way.
    pub surplus: usize,
    /// What was not right.
    pub faults: Vec<String>,
    slots: Value,
    /// The records of connections, by partition.
    records: BTreeMap<String, Value>,
    users: BTreeMap<String, Value>,
    ghosts: BTreeMap<String, Value>,
    evicting: BTreeSet<String>,
}

/// Follows the history of a table from its beginning.
pub fn follow(changes: &[Change], limit: u64) -> Counted {
    let mut history = Counted::default();
    let mut begins: Vec<usize> = (changes.iter().enumerate())
        .filter(|(_, change)| change.sk == "SLOTS")
        .map(|(index, _)| index)
        .collect();
    begins.push(changes.len());
    history.apply(&changes[..begins[0]]);
    for pair in begins.windows(2) {
        history.check_count();
        history.step(&changes[pair[0]..pair[1]], limit);
    }
    history.check_count();
    history
}

/// How many places a record of connections takes, and how many of its connections are leaving.
fn weight(record: &Value) -> (u64, u64) {
    let ids = || record["ids"].as_object().into_iter().flatten();
    let leaving = ids().filter(|(_, one)| !one["leaving"].is_null()).count() as u64;
    let staying = ids().count() as u64 - leaving;
    (staying + u64::from(!record["portal"].is_null()), leaving)
}

impl Counted {
    fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            let kept = match change.sk.as_str() {
                "SLOTS" => {
                    self.slots = change.new.clone().unwrap_or_default();
                    continue;
                }
                "CONNS" => &mut self.records,
                "USER" => &mut self.users,
                "GHOST" => &mut self.ghosts,
                _ => continue,
            };
            match &change.new {
                Some(item) => kept.insert(change.pk.clone(), item.clone()),
                None => kept.remove(&change.pk),
            };
        }
    }

    /// The counts and the records agree, whenever the places are open.
    fn check_count(&mut self) {
        if self.slots["open"] != true {
            return;
        }
        let epoch = self.slots["epoch"].clone();
        let counted = self.records.values().filter(|record| record["epoch"] == epoch);
        let (places, leaving) = counted
            .map(weight)
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let of_ghosts: u64 = (self.ghosts.values())
            .filter(|ghost| ghost["state"] != "gone")
            .filter_map(|ghost| ghost["connections"].as_u64())
            .sum();
        let number = |name: &str| self.slots[name].as_u64().unwrap_or_default();
        let (in_use, said_leaving) = (number("in_use"), number("leaving"));
        self.most_in_use = self.most_in_use.max(in_use);
        if in_use != places {
            self.fault(format!(
                "{in_use} places are in use, but the records take {places}"
            ));
        }
        if said_leaving != leaving + of_ghosts {
            self.fault(format!(
                "{said_leaving} connections are leaving, but {leaving} of the records and {of_ghosts} of ghosts"
            ));
        }
    }

    fn step(&mut self, changes: &[Change], limit: u64) {
        let audit = own_audit(changes);
        for (sk, entry) in &audit {
            let action = entry["action"].as_str().unwrap_or_default();
            *self.transitions.entry(action.to_owned()).or_default() += 1;
            match action {
                "place.evicted" => self.check_eviction(sk, entry, changes, limit),
                "connection.restored" => {
                    let id = entry["detail"]["connection"].as_str().unwrap_or_default();
                    if !self.evicted.remove(id) {
                        self.fault(format!("{id} was put back and had not given way: {entry}"));
                    }
                }
                "connections.counted" => {
                    let came = entry["detail"]["came"].as_str().unwrap_or_default();
                    let places = usize::from(entry["detail"]["place"] == "used");
                    self.surplus += came.split_whitespace().count().saturating_sub(places);
                }
                "place.adopted" => self.fault(format!("an id was adopted, so its secret was lost: {entry}")),
                "user.vanished" => self.fault(format!("a user was dropped who lived at SnapTrade: {entry}")),
                _ => {}
            }
        }
        self.apply(changes);
    }

    /// A connection gave way: was it needed, and was it one that may?
    fn check_eviction(&mut self, sk: &str, entry: &Value, changes: &[Change], limit: u64) {
        let detail = &entry["detail"];
        let id = detail["connection"].as_str().unwrap_or_default().to_owned();
        let at: Option<Timestamp> = entry["at"].as_str().and_then(|at| at.parse().ok());
        let number = |name: &str| self.slots[name].as_u64().unwrap_or_default();
        let taken = number("in_use") + number("elsewhere");
        // One may go for what came without a place, so that the limit holds again, and then one for the newcomer.
        let for_surplus = sk.contains(".shrink.");
        if taken < limit + u64::from(for_surplus) {
            self.fault(format!(
                "{id} gave way with {taken} of {limit} places taken: {entry}"
            ));
        }
        let waiting: Vec<String> = (self.slots["portals"].as_object().into_iter().flatten())
            .filter(|(_, held)| {
                let until: Option<Timestamp> = held["until"].as_str().and_then(|until| until.parse().ok());
                let until = until.and_then(|until| until.checked_add(SKEW).ok());
                until.zip(at).is_some_and(|(until, at)| until <= at)
            })
            .map(|(stem, _)| stem.clone())
            .collect();
        if !waiting.is_empty() {
            self.fault(format!(
                "{id} gave way though the visits of {waiting:?} had run out: {entry}"
            ));
        }
        let subject = entry["subject"].as_str().unwrap_or_default();
        let had = self.records.get(&format!("default#USER#{subject}"));
        if !for_surplus
            && had.is_some_and(|had| had["epoch"] == self.slots["epoch"] && !had["portal"].is_null())
        {
            self.fault(format!(
                "{id} gave way to somebody who had a place already: {entry}"
            ));
        }
        let by = entry["by"].as_str().unwrap_or_default().to_owned();
        if !for_surplus && !self.evicting.insert(by.clone()) {
            self.fault(format!("two gave way to the one attempt {by}: {entry}"));
        }
        let marked: Vec<&Change> = (changes.iter())
            .filter(|change| change.sk == "CONNS")
            .filter(|change| {
                let leaving = |image: &Option<Value>| {
                    image
                        .as_ref()
                        .is_some_and(|image| !image["ids"][&id]["leaving"].is_null())
                };
                leaving(&change.new) && !leaving(&change.old)
            })
            .collect();
        let [theirs] = marked.as_slice() else {
            let fault = format!("{} records let the one connection {id} go: {entry}", marked.len());
            self.fault(fault);
            return;
        };
        let owner = self.users.get(&theirs.pk).cloned().unwrap_or_default();
        if owner["protected"] == true {
            self.fault(format!("{id} gave way, and its user was protected: {entry}"));
        }
        self.evicted.insert(id);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_takes_a_place_for_each_connection_that_stays_and_one_for_a_visit() {
        let record = json!({
            "ids": {"a": {"leaving": null}, "b": {"leaving": "2026-11-21T12:00:00Z"}, "c": {}},
            "portal": {"until": "2026-11-21T12:30:00Z"},
        });
        assert_eq!(weight(&record), (3, 1));
        assert_eq!(weight(&json!({"ids": {}, "portal": null})), (0, 0));
    }
}
