//! The access API of the program that Berth replaces (facts/access.md A5; B14–B18, B58–B63): ends of access are
//! absolute, so that a call made twice is as good as one.

use http::Method;
use percent_encoding::utf8_percent_encode;
use serde_json::{Value, json};

use super::super::configuration::AccessApi;
use super::super::expiry::Expiry;
use super::super::ids::ScriptId;
use super::super::names::Username;
use super::super::plan::Action;
use super::super::remote::Wire;
use super::super::retries::CallKind;
use super::super::sending::SEGMENT;
use super::super::tally::Called;
use super::Order;
use super::call::{Call, filled};

/// Whether TradingView knows a name.
pub(super) fn look_up(api: &AccessApi, name: &Username) -> Option<Call> {
    let path = filled(&api.validate_endpoint, "{username}", name.as_str())?;
    Some(Call::get(Called::Validate, path))
}

/// A page of those who have access.
pub(super) fn page(api: &AccessApi, script: &ScriptId, cursor: Option<&str>) -> Option<Call> {
    let mut path = filled(&api.list_endpoint, "{scriptId}", script.as_str())?;
    if let Some(cursor) = cursor {
        path.push_str("?cursor=");
        path.extend(utf8_percent_encode(cursor, SEGMENT));
    }
    Some(Call::get(Called::List, path))
}

/// The call that does what an order says; `None` where it says nothing that could be sent.
pub(super) fn write(api: &AccessApi, order: &Order) -> Option<Call> {
    let (called, endpoint, end) = match order.action {
        Action::None => return None,
        Action::Grant { to } => (Called::Grant, &api.grant_endpoint, Some(to)),
        Action::Update { to, .. } => (Called::Update, &api.update_endpoint, Some(to)),
        Action::Remove { .. } => (Called::Remove, &api.remove_endpoint, None),
    };
    let mut body = json!({"scriptId": order.script, "username": order.username});
    if let (Some(end), Some(members)) = (end, body.as_object_mut()) {
        members.extend(
            [
                ("email", Value::from(order.email.as_str())),
                ("expiry", expiry(api, end)?),
                ("subscription_type", order.subscription_type.as_str().into()),
                ("wp_username", order.wp_username.as_str().into()),
                ("remarks", order.remarks.as_str().into()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
    }
    Some(Call::with_body(
        called,
        CallKind::Write,
        Method::POST,
        endpoint.clone(),
        body,
    ))
}

/// How an end is sent. Nothing means for ever (A1), so it is sent for nothing else.
fn expiry(api: &AccessApi, end: Expiry) -> Option<Value> {
    match end {
        Expiry::NoAccess => None,
        Expiry::At(end) => Some(Wire::of(api).write(end).into()),
        Expiry::Lifetime => Some(Value::Null),
    }
}

/// Whether an answer of success says that something was done. What a grant is answered with is documented nowhere, so
/// that an object is believed unless it says otherwise, and so is an empty answer.
pub(super) fn confirms(answer: &Value) -> bool {
    match answer {
        Value::Null => true,
        Value::Object(members) => {
            members.get("success") != Some(&Value::Bool(false))
                && members.get("error").is_none_or(|error| {
                    matches!(error, Value::Null | Value::Bool(false)) || error.as_str() == Some("")
                })
        }
        _ => false,
    }
}
