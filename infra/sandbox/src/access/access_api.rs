//! The access API of the program that Berth replaces: ends of access are absolute, and nothing means for ever.
//!
//! Its answers to a grant, an update and a removal are not documented anywhere. This one does what a careful server
//! would: it compares names whatever the case of their letters, stores the canonical spelling, and says what it stored.
//! A grant to somebody who has access already sets its end, earlier ones too, because the original knows no update.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::operations::Operation;
use super::serve::Call;
use super::{ACCESS_KEY, dates};
use crate::answer::{json_answer, text_answer};

/// Users on one page of a script's list.
const PAGE: usize = 30;

/// Most names that a validation suggests.
const SUGGESTIONS: u32 = 10;

/// Answers a call to the access API.
///
/// # Errors
/// The database's, where it is of no use.
pub(super) fn answer(call: &Call<'_>, operation: &Operation) -> rusqlite::Result<Response> {
    let key = call.parts.headers.get(&call.shared.access_key_header);
    if key.is_none_or(|key| key != ACCESS_KEY) {
        return Ok(failed(StatusCode::UNAUTHORIZED));
    }
    match operation {
        Operation::Validate(name) => validate(call, name),
        Operation::List(script) => list(call, script),
        Operation::Update => update(call),
        Operation::Remove => remove(call),
        _ => grant(call),
    }
}

fn validate(call: &Call<'_>, name: &str) -> rusqlite::Result<Response> {
    let found = call.shared.store.user(name)?;
    let suggestions = call.shared.store.users_like(name, SUGGESTIONS)?;
    Ok(ok(&json!({
        "validUser": found.is_some(),
        "verifiedUserName": found.map(|user| user.username).unwrap_or_default(),
        "allUserSuggestions": suggestions,
    })))
}

fn list(call: &Call<'_>, script: &str) -> rusqlite::Result<Response> {
    let after = match call.parameter("cursor") {
        None | Some("") => 0,
        Some(cursor) => match cursor.parse() {
            Ok(position) => position,
            Err(_) => return Ok(invalid("`cursor` is none that was given out.")),
        },
    };
    // One more than is shown tells whether there is another page.
    let mut found = (call.shared.store).access(script, after, i64::try_from(PAGE).unwrap_or(i64::MAX) + 1)?;
    let more = found.len() > PAGE;
    found.truncate(PAGE);
    let next = found
        .last()
        .filter(|_| more)
        .map(|(position, _)| position.to_string());
    let users: Vec<_> = found.into_iter().map(|(_, holder)| holder).collect();
    Ok(ok(&json!({"scriptId": script, "users": users, "next": next})))
}

/// What a call that changes something asks for.
struct Change {
    script: String,
    name: String,
    body: Value,
}

fn grant(call: &Call<'_>) -> rusqlite::Result<Response> {
    let (change, end) = match change(call).and_then(with_end) {
        Ok(read) => read,
        Err(detail) => return Ok(invalid(&detail)),
    };
    let Some(user) = call.shared.store.user(&change.name)? else {
        return Ok(failed(StatusCode::NOT_FOUND));
    };
    (call.shared.store).grant(&change.script, &user, end, call.shared.clock.now())?;
    Ok(done(&change.script, &user.username, json!({"expiration": end})))
}

fn update(call: &Call<'_>) -> rusqlite::Result<Response> {
    let (change, end) = match change(call).and_then(with_end) {
        Ok(read) => read,
        Err(detail) => return Ok(invalid(&detail)),
    };
    let Some(holder) = call.shared.store.holder(&change.script, &change.name)? else {
        let message = "The user has no access to this script that could be changed.";
        return Ok(refused(StatusCode::NOT_FOUND, "no_access", message));
    };
    call.shared.store.change_end(&change.script, &change.name, end)?;
    Ok(done(&change.script, &holder.username, json!({"expiration": end})))
}

/// Takes access, and is content where there is none to take.
fn remove(call: &Call<'_>) -> rusqlite::Result<Response> {
    let change = match change(call) {
        Ok(read) => read,
        Err(detail) => return Ok(invalid(&detail)),
    };
    let holder = call.shared.store.holder(&change.script, &change.name)?;
    let removed = call.shared.store.remove(&change.script, &change.name)?;
    let name = holder.map_or(change.name, |holder| holder.username);
    Ok(done(&change.script, &name, json!({"removed": removed})))
}

/// Reads the body of a call that changes something.
///
/// # Errors
/// A sentence that says what is wrong with it.
fn change(call: &Call<'_>) -> Result<Change, String> {
    let body: Value = serde_json::from_slice(call.body).map_err(|_| "The body is not JSON.")?;
    let text = |name: &str| match body.get(name).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("`{name}` has to be a text that is not empty.")),
    };
    Ok(Change {
        script: text("scriptId")?,
        name: text("username")?,
        body,
    })
}

/// Adds the end of access, where `None` is never.
fn with_end(change: Change) -> Result<(Change, Option<jiff::Timestamp>), String> {
    let end = dates::end(change.body.get("expiry"))?;
    Ok((change, end))
}

fn ok(body: &Value) -> Response {
    json_answer(StatusCode::OK, body)
}

fn done(script: &str, name: &str, mut told: Value) -> Response {
    if let Some(members) = told.as_object_mut() {
        members.insert("success".to_owned(), true.into());
        members.insert("scriptId".to_owned(), script.into());
        members.insert("username".to_owned(), name.into());
    }
    ok(&told)
}

fn invalid(detail: &str) -> Response {
    refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", detail)
}

/// The refusal of a plan that allows no more users.
pub(super) fn limit_reached() -> Response {
    let message = "No more users can be given access to this script.";
    refused(StatusCode::FORBIDDEN, "limit_reached", message)
}

/// The answer of a call that fails with a status.
pub(super) fn failed(status: StatusCode) -> Response {
    let (error, message) = match status.as_u16() {
        400 | 422 => ("invalid_request", "The request cannot be used."),
        401 => ("invalid_api_key", "The API key is missing or wrong."),
        403 => ("login_required", "TradingView wants somebody to log in again."),
        404 => ("not_found", "There is no such user or path."),
        429 => ("rate_limited", "Too many requests."),
        502 | 504 => {
            let reason = status.canonical_reason().unwrap_or_default();
            let page = format!("<html><head><title>{reason}</title></head><body>{reason}</body></html>");
            return text_answer(status, "text/html", page);
        }
        _ => ("internal_error", "The request failed."),
    };
    refused(status, error, message)
}

fn refused(status: StatusCode, error: &str, message: &str) -> Response {
    json_answer(
        status,
        &json!({"success": false, "error": error, "message": message}),
    )
}
