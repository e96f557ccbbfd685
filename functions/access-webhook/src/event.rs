//! MemberPress's events, of which nothing is believed but which transaction they are about (facts/access.md A6).

use berth::access::ids::TransactionId;
use berth::http::{Fields, Input};
use serde_json::Value;

/// An event. What is not as expected in it says nothing, and is no fault: the next run finds whatever it was about.
pub(crate) struct Event {
    /// The transaction that it is about; `None` for one that is about a member or a subscription only.
    pub(crate) transaction: Option<TransactionId>,
}

impl Input for Event {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let mut member = |name| fields.or(name, Value::Null, |value| Ok(value.clone()));
        let (event, kind, data) = (member("event")?, member("type")?, member("data")?);
        Some(Self {
            transaction: transaction(&event, &kind, &data),
        })
    }
}

/// The transaction that an event `event` of the type `kind` with `data` is about.
fn transaction(event: &Value, kind: &Value, data: &Value) -> Option<TransactionId> {
    let event = event.as_str().unwrap_or_default();
    // The data are the transaction itself for events such as `transaction-completed`, `renewal-transaction-completed`
    // and `offline-payment-refunded`.
    let is_its_own =
        kind == "transaction" || event.contains("transaction") || event.starts_with("offline-payment");
    let own = is_its_own.then(|| data.get("id").or_else(|| data.get("transaction_id")));
    let nested = || {
        data.pointer("/transaction/id")
            .or_else(|| data.get("transaction"))
    };
    own.flatten().or_else(nested).and_then(id)
}

/// MemberPress writes ids as numbers and as texts.
fn id(value: &Value) -> Option<TransactionId> {
    match value {
        Value::String(text) => TransactionId::parse(text),
        number => TransactionId::parse(&number.as_u64()?.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(event: &str, kind: &str, data: Value) -> Option<String> {
        transaction(&json!(event), &json!(kind), &data).map(|id| id.as_str().to_owned())
    }

    #[test]
    fn an_event_about_a_transaction_names_it_as_a_number_or_a_text() {
        for (event, id) in [
            ("transaction-completed", json!(101)),
            ("renewal-transaction-completed", json!("101")),
            ("offline-payment-refunded", json!(" 0101 ")),
        ] {
            assert_eq!(
                of(event, "", json!({"id": id})).as_deref(),
                Some("101"),
                "{event}"
            );
        }
        assert_eq!(
            of("new-in-2027", "transaction", json!({"id": 101})).as_deref(),
            Some("101")
        );
    }

    #[test]
    fn an_event_about_something_else_names_a_transaction_only_where_it_holds_one() {
        assert_eq!(of("member-account-updated", "member", json!({"id": 7})), None);
        let signed_up = json!({"id": 7, "transaction": {"id": "101"}});
        assert_eq!(
            of("member-signup-completed", "member", signed_up).as_deref(),
            Some("101")
        );
        let by_id = json!({"id": 7, "transaction": 101});
        assert_eq!(
            of("subscription-created", "subscription", by_id).as_deref(),
            Some("101")
        );
    }

    #[test]
    fn what_is_no_id_names_none() {
        for nothing in [
            json!([101]),
            json!({}),
            json!({"id": 1.5}),
            json!({"id": {"id": 1}}),
            Value::Null,
        ] {
            assert_eq!(
                of("transaction-completed", "transaction", nothing.clone()),
                None,
                "{nothing}"
            );
        }
    }
}
