//! The control calls under `/__sandbox/`, by which tests and demonstrations change what the sandbox does.
//!
//! | call | does |
//! |---|---|
//! | `POST reset` | forgets everything; settings return to their defaults, webhooks go where they went at the start |
//! | `GET requests`, `DELETE requests` | lists or forgets the API requests received |
//! | `POST faults` | queues faults for the next calls, gives them to a share of all calls, or clears them; see [`crate::faults`] |
//! | `GET settings`, `POST settings` | shows or changes the settings; see [`super::settings`] |
//! | `POST connect` | connects a brokerage for a user |
//! | `POST connections/{id}/break`, `/fix`, `/delete` | changes a connection at once, whatever the delay of deletions |
//! | `POST holdings/{account_id}` | sets what an account holds |
//! | `GET webhooks` | lists the events sent, without their bodies |
//! | `POST webhooks/replay` | sends an event again |
//!
//! Those that lead to webhooks answer once each was sent for the first time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::answer::Refusal;
use super::catalogue::{self, DEFAULT_BROKERAGE};
use super::operations;
use super::shared::Shared;
use super::webhooks;
use super::world::{ConnectionType, World};
use crate::control::{Control, Fault, object, other_method, text, unknown};
use crate::held;

/// What a fault may call an operation.
const OPERATION_NAMES: &str = "Give the last segment of its path or SnapTrade's operationId.";

/// How long a control call waits for its webhooks to go out. Those that have not by then go out all the same.
const WEBHOOKS_WAIT: Duration = Duration::from_secs(25);

/// The control calls' routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/__sandbox/reset", post(reset))
        .route("/__sandbox/requests", get(requests).delete(forget_requests))
        .route("/__sandbox/faults", post(add_fault))
        .route("/__sandbox/settings", get(settings).post(change_settings))
        .route("/__sandbox/connect", post(connect))
        .route("/__sandbox/connections/{id}/{change}", post(change_connection))
        .route("/__sandbox/holdings/{account_id}", post(set_holdings))
        .route("/__sandbox/webhooks", get(webhooks_sent))
        .route("/__sandbox/webhooks/replay", post(replay))
        .route("/__sandbox/{*rest}", axum::routing::any(unknown))
        .method_not_allowed_fallback(other_method)
}

/// Forgets everything but where the stack's own webhooks go; settings return to their defaults.
async fn reset(State(shared): State<Arc<Shared>>) -> Json<Value> {
    shared.change(|world, _| *world = World::default());
    held(&shared.faults).clear();
    held(&shared.rate).clear();
    held(&shared.journal).clear();
    Json(json!({"reset": true}))
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
        .add(&described, operations::is_name, OPERATION_NAMES)
        .map_err(Fault::input)?;
    Ok(Json(json!({"accepted": true})))
}

async fn settings(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.settings_shown())
}

async fn change_settings(State(shared): State<Arc<Shared>>, body: Bytes) -> Control {
    let changes = object(&body)?;
    shared
        .change(|world, _| {
            world.settings = world.settings.changed(&changes)?;
            Ok(())
        })
        .map_err(|detail: String| Fault::input(detail))?;
    Ok(Json(shared.settings_shown()))
}

/// Does what the user would in the portal. A type that is named is given even where the brokerage cannot
/// trade; where none is named, the connection trades where the brokerage can.
async fn connect(State(shared): State<Arc<Shared>>, body: Bytes) -> Control {
    let wanted = object(&body)?;
    let named = text(&wanted, "user_id")?.ok_or_else(|| Fault::input("`user_id` has to name a user."))?;
    let slug = text(&wanted, "broker")?.unwrap_or(DEFAULT_BROKERAGE);
    let brokerage = catalogue::brokerage(slug).ok_or_else(|| {
        let known: Vec<_> = catalogue::BROKERAGES.iter().map(|one| one.slug).collect();
        Fault::input(format!(
            "No brokerage is called `{slug}`. There are {}.",
            known.join(", ")
        ))
    })?;
    let kind = match text(&wanted, "type")? {
        Some("read") => ConnectionType::Read,
        Some("trade") => ConnectionType::Trade,
        None | Some("trade-if-available") if brokerage.allows_trading => ConnectionType::Trade,
        None | Some("trade-if-available") => ConnectionType::Read,
        Some(_) => {
            return Err(Fault::input(
                "`type` has to be `read`, `trade` or `trade-if-available`.",
            ));
        }
    };
    let (connected, told) = shared.change_and_tell(|world, now| {
        let user_id = world.named_user(named).map(|user| user.id.clone());
        let user_id = user_id.ok_or_else(|| Fault::unknown(format!("There is no user `{named}`.")))?;
        world.connect(&user_id, brokerage, kind, now).map_err(refused)
    });
    send(&shared, told).await;
    let connected = connected?;
    Ok(Json(
        json!({"connection_id": connected.connection_id, "account_ids": connected.account_ids}),
    ))
}

async fn change_connection(
    State(shared): State<Arc<Shared>>,
    Path((id, change)): Path<(String, String)>,
) -> Control {
    let change: fn(&mut World, &str, jiff::Timestamp) -> Result<(), Refusal> = match change.as_str() {
        "break" => World::break_connection,
        "fix" => World::fix_connection,
        "delete" => World::remove_connection,
        other => {
            return Err(Fault::unknown(format!(
                "A connection cannot `{other}`; there are `break`, `fix` and `delete`."
            )));
        }
    };
    let id = bare(&id);
    let (changed, told) = shared.change_and_tell(|world, now| change(world, id, now));
    send(&shared, told).await;
    match changed {
        // Breaking what is broken changes nothing, and whoever asked for it has it.
        Ok(()) | Err(Refusal::AlreadyDisabled) => Ok(Json(json!({"connection_id": id}))),
        Err(Refusal::NotFound) => Err(Fault::unknown(format!("There is no connection `{id}`."))),
        Err(refusal) => Err(refused(refusal)),
    }
}

/// Sets what an account holds and tells of it, as a sync does.
async fn set_holdings(
    State(shared): State<Arc<Shared>>,
    Path(account_id): Path<String>,
    body: Bytes,
) -> Control {
    let given = object(&body)?;
    let account_id = bare(&account_id);
    let (balances, positions) = (rows(&given, "balances")?, rows(&given, "positions")?);
    let (orders, activities) = (rows(&given, "orders")?, rows(&given, "activities")?);
    let total = match given.get("total") {
        None | Some(Value::Null) => None,
        Some(total)
            if total.get("amount").is_some() && total.get("currency").is_some_and(Value::is_string) =>
        {
            Some(total.clone())
        }
        Some(_) => {
            return Err(Fault::input(
                "`total` has to be an object with `amount` and `currency`.",
            ));
        }
    };
    let (shown, told) = shared.change_and_tell(|world, now| {
        let account = world
            .accounts
            .iter_mut()
            .find(|account| account.id == account_id)?;
        account.synced(now);
        // A total that was set before no longer fits new figures.
        if balances.is_some() || positions.is_some() || total.is_some() {
            account.total = total;
        }
        let traded = activities.is_some();
        for (kept, given) in [
            (&mut account.balances, balances),
            (&mut account.positions, positions),
            (&mut account.orders, orders),
            (&mut account.activities, activities),
        ] {
            if let Some(given) = given {
                *kept = given;
            }
        }
        let shown = account.shown();
        world.announce_account(webhooks::EventType::AccountHoldingsUpdated, account_id, now);
        if traded {
            world.announce_account(webhooks::EventType::AccountTransactionsUpdated, account_id, now);
        }
        Some(shown)
    });
    send(&shared, told).await;
    let shown = shown.ok_or_else(|| Fault::unknown(format!("There is no account `{account_id}`.")))?;
    Ok(Json(json!({"account_id": account_id, "account": shown})))
}

async fn webhooks_sent(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.world(|world, _| world.events.iter().map(webhooks::Event::shown).collect()))
}

async fn replay(State(shared): State<Arc<Shared>>, body: Bytes) -> Control {
    let wanted = object(&body)?;
    let id =
        text(&wanted, "webhook_id")?.ok_or_else(|| Fault::input("`webhook_id` has to name an event."))?;
    match webhooks::replay(&shared, id).await {
        Some(event) => Ok(Json(event.shown())),
        None => Err(Fault::unknown(format!("There is no event `{id}`."))),
    }
}

/// Delivers events and waits until each was sent once, within reason.
async fn send(shared: &Arc<Shared>, webhook_ids: Vec<String>) {
    let (done, sent) = tokio::sync::oneshot::channel();
    let delivery = webhooks::deliver(Arc::clone(shared), webhook_ids);
    shared.spawn(async move {
        delivery.await;
        // Whoever asked may have gone.
        let _ = done.send(());
    });
    let _ = tokio::time::timeout(WEBHOOKS_WAIT, sent).await;
}

fn refused(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::LimitReached => Fault::conflict("Connection Limit Reached"),
        other => Fault::conflict(format!("{other:?}")),
    }
}

/// An id without the prefix that Berth puts before account ids.
fn bare(id: &str) -> &str {
    id.strip_prefix("snaptrade_").unwrap_or(id)
}

fn rows(given: &Value, name: &str) -> Result<Option<Vec<Value>>, Fault> {
    match given.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(rows)) if rows.iter().all(Value::is_object) => Ok(Some(rows.clone())),
        Some(_) => Err(Fault::input(format!("`{name}` has to be a list of objects."))),
    }
}
