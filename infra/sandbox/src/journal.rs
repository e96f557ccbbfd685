//! The requests that the sandbox received, for tests that count them or look at their order.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde_json::{Value, json};

/// How many requests are kept; the oldest go first. The first sync of a large shop makes tens of thousands, which a
/// test wants to count.
const KEPT: usize = 100_000;

/// Requests in the order of their arrival. They do not survive a restart.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: VecDeque<Entry>,
    /// The number of the first entry that is still there.
    first: u64,
}

#[derive(Debug)]
struct Entry {
    method: String,
    path: String,
    query: String,
    /// Where the sandbox shows bodies: the body, null where there was none.
    body: Option<Value>,
    status: Option<u16>,
    at: Timestamp,
}

impl Journal {
    /// Notes a request on its arrival and returns its number. A body that is given is shown as well.
    pub(super) fn arrived(
        &mut self,
        method: &str,
        path: &str,
        query: &str,
        body: Option<Value>,
        at: Timestamp,
    ) -> u64 {
        if self.entries.len() >= KEPT {
            self.entries.pop_front();
            self.first = self.first.saturating_add(1);
        }
        self.entries.push_back(Entry {
            method: method.to_owned(),
            path: path.to_owned(),
            query: without_secrets(query),
            body: body.map(without_secret_members),
            status: None,
            at,
        });
        self.first
            .saturating_add(self.entries.len() as u64)
            .saturating_sub(1)
    }

    /// Notes what a request was answered.
    pub(super) fn answered(&mut self, number: u64, status: u16) {
        let index = number
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            entry.status = Some(status);
        }
    }

    /// Every request as the control call lists it. The status of one that was never answered is null.
    pub(super) fn shown(&self) -> Vec<Value> {
        (self.entries.iter())
            .map(|entry| {
                let mut shown = json!({
                    "method": entry.method,
                    "path": entry.path,
                    "query": entry.query,
                    "status": entry.status,
                    "at": entry.at,
                });
                if let (Some(body), Some(members)) = (&entry.body, shown.as_object_mut()) {
                    members.insert("body".to_owned(), body.clone());
                }
                shown
            })
            .collect()
    }

    /// Forgets every request; numbers go on, so that a late answer is not noted at another's.
    pub(super) fn clear(&mut self) {
        self.first = self.first.saturating_add(self.entries.len() as u64);
        self.entries.clear();
    }
}

/// Whether what bears this name may be secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["secret", "key", "token", "signature", "password"]
        .iter()
        .any(|word| name.contains(word))
}

/// The query with the values of parameters that may be secret replaced.
fn without_secrets(query: &str) -> String {
    let pairs: Vec<String> = (query.split('&'))
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}=redacted"),
            _ => pair.to_owned(),
        })
        .collect();
    pairs.join("&")
}

/// The body without the members that may be secret.
fn without_secret_members(mut body: Value) -> Value {
    if let Some(members) = body.as_object_mut() {
        members.retain(|name, _| !is_secret(name));
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_the_query_is_not_kept() {
        assert_eq!(
            without_secrets("clientId=C&userId=ada&userSecret=5ecret&consumer_key=x"),
            "clientId=C&userId=ada&userSecret=redacted&consumer_key=redacted"
        );
    }

    #[test]
    fn a_late_answer_is_not_noted_at_another_request() {
        let mut journal = Journal::default();
        let now = Timestamp::UNIX_EPOCH;
        let late = journal.arrived("GET", "/one", "", None, now);
        journal.clear();
        let next = journal.arrived("GET", "/two", "", None, now);
        journal.answered(late, 200);
        journal.answered(next, 404);
        assert_eq!(journal.shown()[0]["status"], 404);
    }

    #[test]
    fn a_body_is_shown_where_it_is_given_and_without_what_is_secret() {
        let mut journal = Journal::default();
        let now = Timestamp::UNIX_EPOCH;
        journal.arrived("GET", "/one", "", None, now);
        journal.arrived(
            "POST",
            "/two",
            "",
            Some(json!({"username": "ada", "api_key": "x"})),
            now,
        );
        assert!(journal.shown()[0].get("body").is_none());
        assert_eq!(journal.shown()[1]["body"], json!({"username": "ada"}));
    }
}
