//! What operators send.

use berth::access::ReviewDecision;
use berth::access::ids::{ID_MAX_BYTES, ProductId, ScriptId, TransactionId};
use berth::access::ledger::ReversalCause;
use berth::access::master_data::MasterData;
use berth::access::names::Username;
use berth::http::fields::{one_of, text, text_of};
use berth::http::{Fields, Input, InputFault, Problem};
use serde_json::{Value, json};
use serde_path_to_error::Segment;

/// What is decided about a review.
pub(crate) struct Decided(pub(crate) ReviewDecision);

#[derive(Clone, Copy, PartialEq)]
enum Action {
    Retry,
    Correct,
    Dismiss,
}

impl Input for Decided {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let action = fields.required(
            "action",
            one_of(&[
                ("retry", Action::Retry),
                ("correct", Action::Correct),
                ("dismiss", Action::Dismiss),
            ]),
        );
        let username = match action {
            Some(Action::Correct) => fields.required("username", username).map(Some),
            _ => fields.optional("username", username),
        };
        Some(Self(match (action?, username?) {
            (Action::Retry, _) => ReviewDecision::Retry,
            (Action::Correct, username) => ReviewDecision::Correct(username?),
            (Action::Dismiss, _) => ReviewDecision::Dismiss,
        }))
    }
}

/// A transaction that an operator takes back, and why.
pub(crate) struct Revocation {
    pub(crate) transaction: TransactionId,
    pub(crate) cause: ReversalCause,
}

impl Input for Revocation {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let transaction = fields.required("transaction_id", |value| {
            TransactionId::parse(&id_text(value)?).ok_or_else(|| "must be a transaction's id".to_owned())
        });
        let cause = fields.required(
            "reason",
            one_of(&[
                ("refund", ReversalCause::OperatorRefund),
                ("chargeback", ReversalCause::Chargeback),
                ("operator", ReversalCause::Operator),
            ]),
        );
        Some(Self {
            transaction: transaction?,
            cause: cause?,
        })
    }
}

/// A product whose rows are to be read again.
pub(crate) struct Resync(pub(crate) ProductId);

impl Input for Resync {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let product = fields.required("product_id", |value| {
            text_of(1..=ID_MAX_BYTES)(&Value::String(id_text(value)?))
        });
        product.map(|id| Self(ProductId::new(id)))
    }
}

/// The master data of `script` in a body, which may leave out the script's id.
///
/// # Errors
/// [`Problem`] `invalid_request` that points to the fault.
pub(crate) fn master_data(script: &ScriptId, body: &[u8]) -> Result<MasterData, Problem> {
    let fault = |pointer: String, detail: String| Problem::invalid(vec![InputFault { pointer, detail }]);
    let mut document: Value = serde_json::from_slice(body).map_err(|error| {
        let place = format!(
            "is not valid JSON (line {}, column {})",
            error.line(),
            error.column()
        );
        fault(String::new(), place)
    })?;
    let Some(members) = document.as_object_mut() else {
        return Err(fault(String::new(), "must be a JSON object".to_owned()));
    };
    let named = members.entry("script_id").or_insert_with(|| json!(script));
    if *named != json!(script) {
        return Err(fault(
            "/script_id".to_owned(),
            "must be the script in the path".to_owned(),
        ));
    }
    serde_path_to_error::deserialize(document).map_err(|error| {
        let detail = format!("is not what master data has here ({})", error.inner());
        fault(pointer(error.path()), detail)
    })
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// An id, which shops write as numbers and as texts.
fn id_text(value: &Value) -> Result<String, String> {
    match value.as_u64() {
        Some(number) => Ok(number.to_string()),
        None => text(value).map(|id| id.trim().to_owned()),
    }
}

fn username(value: &Value) -> Result<Username, String> {
    Username::parse(&text(value)?).map_err(|error| format!("cannot be a name at TradingView: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(body: &Value) -> Vec<String> {
        let problem = master_data(&ScriptId::new("S1"), body.to_string().as_bytes()).unwrap_err();
        problem
            .errors()
            .iter()
            .map(|fault| fault.pointer.clone())
            .collect()
    }

    #[test]
    fn master_data_are_taken_for_the_script_in_the_path() {
        let body = json!({"users": {"Ada": {"email": "ada@example.com", "expiry": "2027-01-31T23:59:59Z"}}});
        let script = ScriptId::new("S1");
        let data = master_data(&script, body.to_string().as_bytes()).unwrap();
        assert_eq!((data.script_id, data.users.len()), (script, 1));
        assert_eq!(faults(&json!({"script_id": "S2"})), ["/script_id"]);
    }

    #[test]
    fn a_fault_in_master_data_is_pointed_to() {
        assert_eq!(
            faults(&json!({"users": {"Ada/": {"expiry": 5}}})),
            ["/users/Ada~1/expiry"]
        );
        assert_eq!(faults(&json!({"retry_queue": [5]})), ["/retry_queue/0"]);
        assert_eq!(faults(&json!([])), [""]);
        assert!(master_data(&ScriptId::new("S1"), b"{").is_err());
    }
}
