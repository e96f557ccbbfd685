//! The HTTP API of the self-hosted program `trendoscope` (facts/access.md A2, B).
//!
//! It gives access for a length of time, which it adds to the listed end, even to one that has passed; without access
//! it adds to the present. A call made twice counts twice, and it says 200 where nothing was done. So each step here is
//! decided by what there is right now, and a step whose outcome is not known is never followed by another one.

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::expiry::Expiry;
use super::super::fields;
use super::super::ids::ScriptId;
use super::super::names::Username;
use super::super::plan::Action;
use super::super::remote::{Wire, days_to_add};
use super::super::retries::CallKind;
use super::super::tally::Called;
use super::call::{Call, filled};

/// For ever. The number has no meaning, but without one the peer fails.
const LIFETIME: &str = "1L";

/// The next thing to do towards what an order says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: it is done.
    Done,
    /// Take the access, because it cannot be shortened, or because it is to be taken.
    Remove,
    /// Give it for so long.
    Grant(String),
}

/// What the answer to a grant says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It was done.
    Done,
    /// It was not done, because there is access for ever.
    NotApplied,
    /// It was not done.
    Failed,
}

/// Whether TradingView knows a name.
pub(super) fn look_up(name: &Username) -> Option<Call> {
    let path = filled("/validate/{username}", "{username}", name.as_str())?;
    Some(Call::get(Called::Validate, path))
}

/// What access a name has. It is a read, though it sends something.
pub(super) fn info(script: &ScriptId, name: &Username) -> Option<Call> {
    Some(Call::with_body(
        Called::List,
        CallKind::Read,
        Method::POST,
        filled("/info/{username}", "{username}", name.as_str())?,
        json!({"pine_ids": [script]}),
    ))
}

/// Gives a name access for a length of time.
pub(super) fn grant(called: Called, script: &ScriptId, name: &Username, duration: &str) -> Option<Call> {
    Some(Call::with_body(
        called,
        CallKind::RelativeWrite,
        Method::POST,
        filled("/access/{username}", "{username}", name.as_str())?,
        json!({"pine_ids": [script], "duration": duration}),
    ))
}

/// Takes a name's access. Made twice it is as good as once.
pub(super) fn remove(script: &ScriptId, name: &Username) -> Option<Call> {
    Some(Call::with_body(
        Called::Remove,
        CallKind::Write,
        Method::DELETE,
        filled("/access/{username}", "{username}", name.as_str())?,
        json!({"pine_ids": [script]}),
    ))
}

/// Reads what access a name has; the outer `None` is an answer that does not say.
pub(super) fn read_info(answer: &Value, script: &ScriptId, wire: Wire) -> Option<Option<Expiry>> {
    let access = of_script(answer, script)?;
    if !access.get("hasAccess")?.as_bool()? {
        return Some(None);
    }
    if access.get("noExpiration")?.as_bool()? {
        return Some(Some(Expiry::Lifetime));
    }
    // A missing end is not for ever here: that is said in so many words.
    match wire.read(access.get("currentExpiration")?).ok()? {
        Expiry::At(end) => Some(Some(Expiry::At(end))),
        Expiry::NoAccess | Expiry::Lifetime => None,
    }
}

/// Reads what came of a grant or a removal; `None` is an answer that does not say.
pub(super) fn read_told(answer: &Value, script: &ScriptId) -> Option<Told> {
    match fields::at(of_script(answer, script)?, "status")?.as_str() {
        "Success" => Some(Told::Done),
        "Not Applied" => Some(Told::NotApplied),
        "Failure" => Some(Told::Failed),
        _ => None,
    }
}

fn of_script<'a>(answer: &'a Value, script: &ScriptId) -> Option<&'a Value> {
    let named = |access: &&Value| access.get("pine_id").and_then(Value::as_str) == Some(script.as_str());
    answer.as_array()?.iter().find(named)
}

/// What to do next towards `action`, where there is `remote` at `now`.
pub(super) fn step(action: Action, remote: Option<Expiry>, wire: Wire, now: Timestamp) -> Step {
    if action.is_done(remote, wire) {
        return Step::Done;
    }
    let Some(to) = action.target() else {
        return Step::Remove;
    };
    let remote = remote.unwrap_or(Expiry::NoAccess);
    if remote >= to && action.takes() {
        return Step::Remove;
    }
    match to {
        Expiry::Lifetime if remote == to => Step::Done,
        Expiry::Lifetime => Step::Grant(LIFETIME.to_owned()),
        Expiry::At(end) => match days_to_add(remote, end, now) {
            Some(days) => Step::Grant(format!("{days}D")),
            None => Step::Done,
        },
        Expiry::NoAccess => Step::Remove,
    }
}
