//! The control calls under `/__sandbox/`, by which tests and demonstrations say what the shop sold and who has access.
//!
//! | call | does |
//! |---|---|
//! | `PUT transactions` | the shop's transactions from now on: a list of raw rows, each served to the letter |
//! | `POST transactions` | adds rows to them, or puts them in place of those with the same id |
//! | `PUT members` | the shop's members from now on: a list of raw members, each with an `id` |
//! | `PUT usernames` | the names that TradingView knows from now on, in their canonical spelling |
//! | `PUT access/{scriptId}`, `GET access/{scriptId}` | sets or tells who has access to a script |
//! | `GET requests`, `DELETE requests` | lists or forgets the requests received, with their bodies, without keys |
//! | `POST faults` | queues or clears faults, for the next calls or for a share of all; see [`crate::faults`] |
//! | `GET mail` | lists the mails received |
//! | `POST sample` | fills the sandbox with a small shop to look at |
//! | `POST reset` | forgets everything |

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::store::Holder;
use super::{Shared, dates, operations, sample};
use crate::answer::text_answer;
use crate::control::{Control, Fault, object, other_method, unknown};
use crate::held;

/// The largest list that a control call takes: a large shop's transactions.
const LARGEST_LIST: usize = 256 * 1024 * 1024;

/// The control calls' routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route(
            "/__sandbox/transactions",
            put(set_transactions).post(add_transactions),
        )
        .route("/__sandbox/members", put(set_members))
        .route("/__sandbox/usernames", put(set_usernames))
        .route("/__sandbox/access/{script_id}", get(access).put(set_access))
        .route("/__sandbox/requests", get(requests).delete(forget_requests))
        .route("/__sandbox/faults", post(add_fault))
        .route("/__sandbox/mail", get(mails))
        .route("/__sandbox/sample", post(fill))
        .route("/__sandbox/reset", post(reset))
        .route("/__sandbox/{*rest}", axum::routing::any(unknown))
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(LARGEST_LIST))
}

async fn set_transactions(State(shared): State<Arc<Shared>>, body: Bytes) -> Control {
    let rows: Vec<Box<RawValue>> = list(&body)?;
    shared.store.set_sales(&rows).map_err(broken)?;
    Ok(Json(json!({"transactions": rows.len()})))
}

async fn set_members(State(shared): State<Arc<Shared>>, body: Bytes) -> Control {
    let members: Vec<Box<RawValue>> = list(&body)?;
    if !shared.store.set_members(&members).map_err(broken)? {
        return Err(Fault::input("Each member has to have a number as its `id`."));
    }
    Ok(Json(json!({"members": members.len()})))
}

async fn add_transactions(State(shared): State<Arc<Shared>>, body: Bytes) -> Control {
    let rows: Vec<Box<RawValue>> = list(&body)?;
    shared.store.add_sales(&rows).map_err(broken)?;
    Ok(Json(json!({"added": rows.len()})))
}

async fn set_usernames(State(shared): State<Arc<Shared>>, body: Bytes) -> Control {
    let names: Vec<String> = list(&body)?;
    if names.iter().any(String::is_empty) {
        return Err(Fault::input("A name must not be empty."));
    }
    shared.store.set_names(&names).map_err(broken)?;
    Ok(Json(json!({"usernames": names.len()})))
}

async fn set_access(State(shared): State<Arc<Shared>>, Path(script): Path<String>, body: Bytes) -> Control {
    let given: Vec<Value> = list(&body)?;
    let now = shared.clock.now();
    let holders = (1_u64..)
        .zip(&given)
        .map(|(number, given)| holder(given, number, now).map_err(|detail| (number, detail)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|(number, detail)| Fault::input(format!("User {number} of the list: {detail}")))?;
    shared.store.set_access(&script, &holders).map_err(broken)?;
    Ok(Json(holders.into_iter().map(told).collect()))
}

/// A script's user as a control call describes it; only the name has to be there.
fn holder(given: &Value, number: u64, now: Timestamp) -> Result<Holder, String> {
    let text = |name: &str| given.get(name).and_then(Value::as_str);
    let username = text("username").filter(|name| !name.is_empty());
    let created = match given.get("created") {
        None | Some(Value::Null) => now,
        Some(created) => (created.as_str().and_then(dates::moment))
            .ok_or_else(|| format!("`created` is {created}, which is no time."))?,
    };
    Ok(Holder {
        id: given
            .get("id")
            .filter(|id| !id.is_null())
            .cloned()
            .unwrap_or_else(|| number.into()),
        username: username
            .ok_or("`username` has to be a text that is not empty.")?
            .to_owned(),
        userpic: text("userpic").unwrap_or_default().to_owned(),
        created,
        expiration: dates::end(given.get("expiration"))?,
    })
}

async fn access(State(shared): State<Arc<Shared>>, Path(script): Path<String>) -> Control {
    let all = shared.store.access(&script, 0, i64::MAX).map_err(broken)?;
    Ok(Json(all.into_iter().map(|(_, holder)| told(holder)).collect()))
}

fn told(holder: Holder) -> Value {
    serde_json::to_value(holder).unwrap_or_default()
}

async fn requests(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(held(&shared.journal).shown().into())
}

async fn forget_requests(State(shared): State<Arc<Shared>>) -> Json<Value> {
    held(&shared.journal).clear();
    Json(json!({"forgotten": true}))
}

async fn add_fault(State(shared): State<Arc<Shared>>, body: Bytes) -> Control {
    let described = object(&body)?;
    held(&shared.faults)
        .add(&described, operations::is_name, &operations::names())
        .map_err(Fault::input)?;
    Ok(Json(json!({"accepted": true})))
}

async fn mails(State(shared): State<Arc<Shared>>) -> Result<Response, Fault> {
    let mails = shared.store.mails().map_err(broken)?;
    Ok(text_answer(StatusCode::OK, "application/json", mails))
}

async fn fill(State(shared): State<Arc<Shared>>) -> Control {
    let filled = sample::fill(&shared.store, shared.clock.now()).map_err(broken)?;
    Ok(Json(filled))
}

async fn reset(State(shared): State<Arc<Shared>>) -> Control {
    shared.store.clear().map_err(broken)?;
    held(&shared.faults).clear();
    held(&shared.journal).clear();
    Ok(Json(json!({"reset": true})))
}

/// A body that has to be a list.
fn list<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<Vec<T>, Fault> {
    serde_json::from_slice(body)
        .map_err(|error| Fault::input(format!("The body has to be a JSON list as described: {error}.")))
}

fn broken(error: rusqlite::Error) -> Fault {
    Fault::conflict(format!("The sandbox's state cannot be used: {error}."))
}
