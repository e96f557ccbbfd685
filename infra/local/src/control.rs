//! The control routes under `/__local`: for tests and demonstrations, on the API's port.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use berth::app::App;
use berth::clock::Clock;
use berth::config::Config;
use berth::connections::Connections;
use berth::http::Problem;
use berth::ids::TenantId;
use berth::telemetry::metrics::Lines;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::calls::CallLog;
use crate::engine;
use crate::schedule::Schedules;

/// What the control routes act on.
pub(crate) struct Control {
    /// The stack's clock.
    pub(crate) clock: Clock,
    /// The schedules.
    pub(crate) schedules: Schedules,
    /// The calls counted.
    pub(crate) calls: Arc<CallLog>,
    /// The lines of metrics.
    pub(crate) metrics: Arc<Lines>,
    /// The table's engine.
    pub(crate) database: dynoxide::Database,
    /// The settings that the functions work with.
    pub(crate) config: Config,
    /// What commands work with that no route does for them.
    pub(crate) app: App,
    /// The file with the access sync's configuration; `None` for the sample.
    pub(crate) access_config: Option<PathBuf>,
}

/// The routes.
pub(crate) fn router(control: Control) -> Router {
    Router::new()
        .route("/__local/clock", get(read_clock).put(set_clock))
        .route("/__local/schedules", get(list_schedules))
        .route("/__local/schedules/{name}", post(fire))
        .route("/__local/calls", get(read_calls))
        .route("/__local/metrics", get(read_metrics))
        .route("/__local/reset", post(reset))
        .route("/__local/auto-manage", post(auto_manage))
        .route("/__local/settings", get(read_settings))
        .route("/__local/{*rest}", axum::routing::any(unknown))
        .with_state(Arc::new(control))
}

/// A control call that was not done, and why.
fn refused(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({"message": message.into()}))).into_response()
}

async fn unknown() -> Response {
    refused(
        StatusCode::NOT_FOUND,
        "There are PUT and GET /__local/clock, GET /__local/schedules, POST /__local/schedules/{name}, GET /__local/calls, GET /__local/metrics, GET /__local/settings, POST /__local/auto-manage and POST /__local/reset.",
    )
}

async fn read_clock(State(control): State<Arc<Control>>) -> Response {
    Json(json!({"now": control.clock.now()})).into_response()
}

/// Where the clock is put: one of the two.
#[derive(Deserialize)]
struct ClockRequest {
    now: Option<Timestamp>,
    advance_seconds: Option<f64>,
}

async fn set_clock(State(control): State<Arc<Control>>, body: String) -> Response {
    match serde_json::from_str(&body) {
        Ok(ClockRequest {
            now: Some(now),
            advance_seconds: None,
        }) => control.clock.set(now),
        Ok(ClockRequest {
            now: None,
            advance_seconds: Some(seconds),
        }) if seconds.is_finite() => {
            // The cast saturates, and a clock that would leave the calendar stays at the machine's own time.
            #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
            let ms = (seconds * 1000.0) as i64;
            control
                .clock
                .set_ahead_ms(control.clock.ahead_ms().saturating_add(ms));
        }
        _ => {
            return refused(
                StatusCode::BAD_REQUEST,
                "The body must be {\"now\": \"<RFC 3339>\"} or {\"advance_seconds\": <number>}.",
            );
        }
    }
    read_clock(State(control)).await
}

async fn list_schedules(State(control): State<Arc<Control>>) -> Response {
    Json(json!({"schedules": control.schedules.names()})).into_response()
}

async fn fire(State(control): State<Arc<Control>>, Path(name): Path<String>) -> Response {
    match control.schedules.fire(&name).await {
        Some(Ok(result)) => Json(result).into_response(),
        Some(Err(reason)) => refused(StatusCode::INTERNAL_SERVER_ERROR, reason),
        None => {
            let names = control.schedules.names().join(", ");
            refused(
                StatusCode::NOT_FOUND,
                format!("There is no such schedule; there are {names}."),
            )
        }
    }
}

#[derive(Deserialize)]
struct CallsQuery {
    request_id: Option<String>,
}

async fn read_calls(State(control): State<Arc<Control>>, Query(query): Query<CallsQuery>) -> Response {
    Json(control.calls.of(query.request_id.as_deref())).into_response()
}

/// The lines that CloudWatch makes metrics of in AWS, the oldest first; those of one request where it is named.
async fn read_metrics(State(control): State<Arc<Control>>, Query(query): Query<CallsQuery>) -> Response {
    let lines: Vec<Value> = control
        .metrics
        .all()
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| {
            let wanted = query.request_id.as_deref();
            wanted.is_none_or(|id| line["request_id"] == id)
        })
        .collect();
    Json(lines).into_response()
}

async fn reset(State(control): State<Arc<Control>>) -> Response {
    let (database, table) = (control.database.clone(), control.config.table_name.clone());
    let emptied = tokio::task::spawn_blocking(move || engine::empty(&database, &table)).await;
    match emptied {
        Ok(Ok(deleted)) => Json::<Value>(json!({"deleted": deleted})).into_response(),
        Ok(Err(error)) => refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Makes room where there is none, for the operator at this machine: what counts decides whether a user or a connection
/// gives way.
async fn auto_manage(State(control): State<Arc<Control>>) -> Response {
    let limit = Connections::new(
        &control.app,
        TenantId::default(),
        format!("operator:{}", control.app.function()),
        true,
    );
    match limit.auto_manage().await {
        Ok(made) => Json(made).into_response(),
        Err(failure) => {
            let problem = Problem::from(failure);
            let status = problem.code().status();
            let body: Value = serde_json::from_str(&problem.body("local")).unwrap_or_default();
            (status, Json(body)).into_response()
        }
    }
}

/// The settings that say how the stack is set up. Of the credentials only what is no secret.
async fn read_settings(State(control): State<Arc<Control>>) -> Response {
    let config = &control.config;
    let given = config.snaptrade_credentials.as_ref();
    let origins: Vec<_> = config.allowed_origins.iter().map(ToString::to_string).collect();
    Json(json!({
        "environment": config.environment.as_str(),
        "snaptrade_base_url": config.snaptrade_base_url.as_str(),
        "client_id": given.map(|given| given.client_id.as_str()),
        "consumer_key_given": given.is_some_and(|given| !given.consumer_key.expose_secret().is_empty()),
        "max_connections": config.limit,
        "counts": config.counts.as_str(),
        "policy": config.policy.as_str(),
        "allowed_origins": origins,
        "table_name": config.table_name,
        "access_config": control.access_config,
    }))
    .into_response()
}
