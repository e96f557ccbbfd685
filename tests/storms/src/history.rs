//! What the table's stream tells: every state that the places and their holders were in, and whether each step from one
//! to the next was right.
//!
//! The stream holds every write in order, those of one transaction next to each other. Whatever changes the places
//! writes their item first, so between two writes of that item lies exactly one whole transition, and perhaps some
//! writes that change no place.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::dynamodb::Change;

/// What two clocks may be apart: a place has not run out for others before this much later (slot protocol, "Time").
pub const SKEW: SignedDuration = SignedDuration::from_secs(5);

/// How long a place whose id SnapTrade refused to delete is left to the sync.
const REFUSED: SignedDuration = SignedDuration::from_secs(300);

/// What the history came to.
#[derive(Debug, Default)]
pub struct History {
    /// How often which transition was made, by its word in the audit trail.
    pub transitions: BTreeMap<String, u64>,
    /// Those who gave way and were not put back, in order.
    pub evicted: Vec<String>,
    /// The most places that were in use at a time.
    pub most_in_use: u64,
    /// Ids that were active once.
    pub activated: BTreeMap<String, String>,
    /// What was not right.
    pub faults: Vec<String>,
    holders: BTreeMap<(String, String), Value>,
    slots: Value,
    /// Attempts that somebody gave way to.
    evicting: BTreeSet<String>,
}

/// Follows the history of a table from its beginning.
pub fn follow(changes: &[Change], limit: u64) -> History {
    let mut history = History::default();
    let mut begins: Vec<usize> = (changes.iter().enumerate())
        .filter(|(_, change)| change.sk == "SLOTS")
        .map(|(index, _)| index)
        .collect();
    begins.push(changes.len());
    history.apply(&changes[..begins[0]]);
    for pair in begins.windows(2) {
        history.check_count(limit);
        history.step(&changes[pair[0]..pair[1]], limit);
    }
    history.check_count(limit);
    history.check_balance();
    history
}

/// The lines of the audit trail that belong to the transition with which `changes` begin, with their keys. What follows
/// it has tokens of its own.
pub fn own_audit(changes: &[Change]) -> Vec<(&str, &Value)> {
    let token = |sk: &str| sk.rsplit_once('.').map(|(token, _)| token.to_owned());
    let lines = || {
        (changes.iter())
            .filter(|change| change.sk.starts_with("AUDIT#"))
            .filter_map(|change| Some((change.sk.as_str(), change.new.as_ref()?)))
    };
    let own = lines().next().and_then(|(sk, _)| token(sk));
    lines().filter(|(sk, _)| token(sk) == own).collect()
}

/// Whether an item holds a place.
fn is_holder(sk: &str) -> bool {
    sk == "USER" || sk.starts_with("FOREIGN")
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

impl History {
    /// How often this transition was made.
    pub fn count(&self, transition: &str) -> u64 {
        self.transitions.get(transition).copied().unwrap_or_default()
    }

    fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            if change.sk == "SLOTS" {
                self.slots = change.new.clone().unwrap_or_default();
            } else if is_holder(&change.sk) {
                let key = (change.pk.clone(), change.sk.clone());
                match &change.new {
                    Some(item) => self.holders.insert(key, item.clone()),
                    None => self.holders.remove(&key),
                };
            }
        }
    }

    /// The count and the holders agree, whenever the places are open, and nobody is above the limit.
    fn check_count(&mut self, limit: u64) {
        if self.slots["open"] != true {
            return;
        }
        let in_use = self.slots["in_use"].as_u64().unwrap_or_default();
        self.most_in_use = self.most_in_use.max(in_use);
        if in_use != self.holders.len() as u64 {
            let holders: Vec<_> = self.holders.keys().map(|(pk, sk)| format!("{pk}/{sk}")).collect();
            self.fault(format!("{in_use} places are in use, but {holders:?} hold one"));
        }
        if in_use > limit {
            self.fault(format!("{in_use} places are in use, of {limit}"));
        }
    }

    /// One transition: the write of the places, what was written with it, and what came after it.
    fn step(&mut self, changes: &[Change], limit: u64) {
        let audit = own_audit(changes);
        for (_, entry) in &audit {
            let action = entry["action"].as_str().unwrap_or_default();
            *self.transitions.entry(action.to_owned()).or_default() += 1;
        }
        for (sk, entry) in &audit {
            match entry["action"].as_str().unwrap_or_default() {
                "place.evicted" => self.check_eviction(sk, entry, changes, limit),
                "place.undone" => {
                    let restored = entry["detail"]["restored"].as_str().unwrap_or_default();
                    if let Some(at) = self.evicted.iter().rposition(|one| one == restored) {
                        self.evicted.remove(at);
                    } else {
                        self.fault(format!("{restored} was put back and had not given way"));
                    }
                }
                "place.adopted" => self.fault(format!("an id was adopted, so its secret was lost: {entry}")),
                "user.vanished" => self.fault(format!("a user was dropped who lived at SnapTrade: {entry}")),
                _ => {}
            }
        }
        self.check_activations(changes);
        self.apply(changes);
    }

    /// Somebody gave way: was it needed, and was it somebody who may?
    fn check_eviction(&mut self, sk: &str, entry: &Value, changes: &[Change], limit: u64) {
        let by = entry["by"].as_str().unwrap_or_default().to_owned();
        let said = entry["detail"]["evicted"].as_str().unwrap_or_default().to_owned();
        let at = time(&entry["at"]);
        let in_use = self.slots["in_use"].as_u64().unwrap_or_default();
        if sk.contains(".shrink.") {
            self.fault(format!(
                "{said} gave way though SnapTrade has as many places as we do: {entry}"
            ));
        } else {
            if in_use < limit {
                self.fault(format!(
                    "{said} gave way with {in_use} of {limit} places in use: {entry}"
                ));
            }
            let waiting: Vec<String> = (self.slots["held"].as_object().into_iter().flatten())
                .filter(|(_, held)| {
                    let until = time(&held["until"]).and_then(|until| until.checked_add(SKEW).ok());
                    // A place whose id SnapTrade has lately refused to delete cannot be taken, and waits for the sync.
                    let refused = time(&held["refused_at"]).and_then(|at| at.checked_add(REFUSED).ok());
                    until.zip(at).is_some_and(|(until, at)| until <= at)
                        && refused.zip(at).is_none_or(|(until, at)| at >= until)
                })
                .map(|(stem, _)| stem.clone())
                .collect();
            if !waiting.is_empty() {
                self.fault(format!(
                    "{said} gave way though the places of {waiting:?} had run out: {entry}"
                ));
            }
            let subject = entry["subject"].as_str().unwrap_or_default();
            let had = (self.holders.keys()).find(|(pk, _)| pk.ends_with(&format!("#USER#{subject}")));
            if let Some(had) = had.cloned() {
                self.fault(format!(
                    "{said} gave way to somebody who had a place already, {had:?}: {entry}"
                ));
            }
        }
        if !self.evicting.insert(by.clone()) {
            self.fault(format!("two gave way to the one attempt {by}: {entry}"));
        }
        let victims: Vec<&Value> = changes
            .iter()
            .filter(|change| is_holder(&change.sk) && change.new.is_none())
            .filter_map(|change| change.old.as_ref())
            .filter(|old| old["upstream"] == entry["detail"]["upstream_id"])
            .collect();
        let [victim] = victims.as_slice() else {
            self.fault(format!(
                "{} holders were removed where one was to give way: {entry}",
                victims.len()
            ));
            return;
        };
        if victim["protected"] == true {
            self.fault(format!("{said} gave way and was protected: {entry}"));
        }
        if victim["state"] != "active" {
            self.fault(format!("{said} gave way and was not active: {victim}"));
        }
        self.evicted.push(said);
    }

    /// An id is active once, and never again.
    fn check_activations(&mut self, changes: &[Change]) {
        for change in changes.iter().filter(|change| change.sk == "USER") {
            let Some(new) = change.new.as_ref().filter(|new| new["state"] == "active") else {
                continue;
            };
            let was = |old: &Value| old["state"] == "active" && old["upstream"] == new["upstream"];
            let restored = change.old.is_none();
            if change.old.as_ref().is_some_and(was) {
                continue;
            }
            let upstream = new["upstream"].as_str().unwrap_or_default().to_owned();
            let user = new["user_id"].as_str().unwrap_or_default().to_owned();
            let before = self.activated.insert(upstream.clone(), user);
            if before.is_some() != restored {
                self.fault(format!(
                    "the id {upstream} became active: before {before:?}, put back {restored}"
                ));
            }
        }
    }

    /// Nothing was gained or lost on the way: whoever got a place registered, was put back, freed it or has it still.
    fn check_balance(&mut self) {
        let state = |wanted: &str| {
            let holds = |item: &&Value| item["state"] == wanted;
            self.holders.values().filter(holds).count() as u64
        };
        let (active, reserved) = (state("active"), state("reserved"));
        let left = self.count("user.evicted") + self.count("user.vanished") + self.count("user.leaving");
        let came = self.count("user.registered") + self.count("user.restored");
        if came != active + left {
            self.fault(format!(
                "{came} became active, {active} are and {left} gave way or left"
            ));
        }
        let reservations =
            self.count("place.reserved") + self.count("user.evicted") + self.count("user.leaving");
        let ended = self.count("user.registered") + self.count("place.undone") + self.count("place.released");
        if reservations != ended + reserved {
            self.fault(format!(
                "{reservations} places were reserved, {ended} used or freed and {reserved} are reserved still"
            ));
        }
        let needed = self.count("user.registered").saturating_sub(active);
        if self.evicted.len() as u64 != needed {
            self.fault(format!("{} gave way where {needed} had to", self.evicted.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-11-21T12:00:00Z";

    /// A table's writes, one transition after the other.
    #[derive(Default)]
    struct Table {
        items: BTreeMap<(String, String), Value>,
        changes: Vec<Change>,
        steps: u32,
    }

    impl Table {
        fn write(&mut self, pk: &str, sk: &str, new: Option<Value>) {
            let key = (pk.to_owned(), sk.to_owned());
            let old = match &new {
                Some(item) => self.items.insert(key, item.clone()),
                None => self.items.remove(&key),
            };
            let (pk, sk) = (pk.to_owned(), sk.to_owned());
            self.changes.push(Change { pk, sk, old, new });
        }

        fn slots(&mut self, in_use: u64, held: Value) {
            let slots = json!({"open": true, "in_use": in_use, "held": held});
            self.write("default#SLOTS#all", "SLOTS", Some(slots));
        }

        fn user(&mut self, user: &str, item: Option<Value>) {
            self.write(&format!("default#USER#{user}"), "USER", item);
        }

        fn audit(&mut self, step: &str, subject: &str, action: &str, detail: Value) {
            self.steps += 1;
            let by = format!("attempt-{}", self.steps);
            let sk = format!("AUDIT#0001#{by}.{step}.1.0");
            let entry = json!({"action": action, "subject": subject, "by": by, "at": NOW, "detail": detail});
            self.write(&format!("default#AUDIT#{subject}"), &sk, Some(entry));
        }

        fn reserve(&mut self, in_use: u64, user: &str) {
            self.slots(in_use, json!({user: {"until": "2026-11-21T12:01:00Z"}}));
            self.user(user, Some(json!({"state": "reserved", "user_id": user})));
            self.audit("reserve", user, "place.reserved", json!({}));
        }

        fn activate(&mut self, in_use: u64, user: &str, protected: bool) {
            self.slots(in_use, json!({}));
            let upstream = format!("{user}~{}", self.steps);
            let active =
                json!({"state": "active", "user_id": user, "upstream": upstream, "protected": protected});
            self.user(user, Some(active));
            self.audit("activate", user, "user.registered", json!({}));
        }

        /// `victim` gives way to `user`.
        fn evict(&mut self, in_use: u64, user: &str, victim: &str) {
            let key = (format!("default#USER#{victim}"), "USER".to_owned());
            let upstream = self.items[&key]["upstream"].clone();
            self.slots(in_use, json!({user: {"until": "2026-11-21T12:01:00Z"}}));
            self.user(victim, None);
            self.user(user, Some(json!({"state": "reserved", "user_id": user})));
            let detail = json!({"evicted": victim, "upstream_id": upstream});
            self.audit("evict", user, "place.evicted", detail.clone());
            // The victim's line is of the same transaction.
            let by = format!("attempt-{}", self.steps);
            let sk = format!("AUDIT#0001#{by}.evict.1.1");
            let entry =
                json!({"action": "user.evicted", "subject": victim, "by": by, "at": NOW, "detail": detail});
            self.write(&format!("default#AUDIT#{victim}"), &sk, Some(entry));
        }

        fn faults(&self) -> Vec<String> {
            follow(&self.changes, 1).faults
        }
    }

    #[test]
    fn one_who_gives_way_where_every_place_is_taken_is_as_it_should_be() {
        let mut table = Table::default();
        table.reserve(1, "ada");
        table.activate(1, "ada", false);
        table.evict(1, "bob", "ada");
        table.activate(1, "bob", false);
        let history = follow(&table.changes, 1);
        assert_eq!(history.faults, Vec::<String>::new());
        assert_eq!(
            (history.evicted, history.most_in_use),
            (vec!["ada".to_owned()], 1)
        );
    }

    #[test]
    fn one_who_gives_way_while_a_place_is_free_or_has_run_out_is_found() {
        let mut table = Table::default();
        table.reserve(1, "ada");
        table.activate(1, "ada", false);
        table.evict(1, "bob", "ada");
        let faults = follow(&table.changes, 2).faults;
        assert!(
            faults.iter().any(|fault| fault.contains("1 of 2 places")),
            "{faults:?}"
        );

        let mut table = Table::default();
        table.reserve(1, "ada");
        table.activate(1, "ada", false);
        table.slots(1, json!({"cy": {"until": "2026-11-21T11:59:55Z"}}));
        table.evict(1, "bob", "ada");
        assert!(
            table.faults().iter().any(|fault| fault.contains("had run out")),
            "{:?}",
            table.faults()
        );
    }

    #[test]
    fn a_protected_one_who_gives_way_and_a_second_one_for_the_same_attempt_are_found() {
        let mut table = Table::default();
        table.reserve(1, "ada");
        table.activate(1, "ada", true);
        table.evict(1, "bob", "ada");
        table.activate(1, "bob", false);
        table.steps -= 2;
        table.evict(1, "cy", "bob");
        let faults = table.faults();
        assert!(
            faults.iter().any(|fault| fault.contains("was protected")),
            "{faults:?}"
        );
        assert!(
            faults.iter().any(|fault| fault.contains("two gave way")),
            "{faults:?}"
        );
    }

    #[test]
    fn a_count_that_differs_from_the_holders_is_found() {
        let mut table = Table::default();
        table.reserve(1, "ada");
        table.user("bob", Some(json!({"state": "reserved"})));
        let faults = table.faults();
        assert!(
            faults
                .iter()
                .any(|fault| fault.starts_with("1 places are in use, but")),
            "{faults:?}"
        );
    }

    #[test]
    fn an_id_that_is_active_twice_and_one_that_is_adopted_are_found() {
        let mut table = Table::default();
        table.reserve(1, "ada");
        table.activate(1, "ada", false);
        let active = table.items[&("default#USER#ada".to_owned(), "USER".to_owned())].clone();
        table.user("ada", Some(json!({"state": "reserved"})));
        table.slots(1, json!({}));
        table.user("ada", Some(active));
        table.slots(1, json!({}));
        table.audit("adopt", "bob", "place.adopted", json!({}));
        let faults = table.faults();
        assert!(
            faults.iter().any(|fault| fault.contains("became active")),
            "{faults:?}"
        );
        assert!(
            faults.iter().any(|fault| fault.contains("was adopted")),
            "{faults:?}"
        );
    }
}
