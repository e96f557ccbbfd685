//! The deployed functions, as the stack runs them: each with its own handler and its own [`App`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::event::dynamodb::EventRecord;
use berth::access::configuration::Configuration;
use berth::access::schedule;
use berth::app::{App, Parts};
use berth::clock::Clock;
use berth::config::Config;
use berth::secrets::DataKeys;
use berth::snaptrade::Credentials;
use berth::telemetry::metrics::{Lines, Sink};
use berth::telemetry::new_id;
use berth::webhooks;
use futures::future::BoxFuture;
use jiff::SignedDuration;
use lambda_runtime::Diagnostic;
use serde::Serialize;
use serde_json::Value;

use crate::StartError;
use crate::gateway::{Function, Handler};
use crate::invocation::Invoker;
use crate::schedule::{Run, Schedule, Schedules};
use crate::stream::{Consumer, DeadLetters};

/// The schedule that brings tracking in line with SnapTrade's list.
pub(crate) const CONNECTION_SYNC: &str = "connection-sync";

/// The schedule that refreshes holdings.
const REFRESH: &str = "refresh";

/// The schedule of the access sync, which runs when its own interval has passed.
const ACCESS_SYNC: &str = "access-sync";

/// The schedule that reads all of the shop's transactions.
const ACCESS_RESCAN: &str = "access-rescan";

/// How long a scheduled run of the access sync may take, as in the deployment: what Lambda gives at most.
const ACCESS_RUN_LIMIT: Duration = Duration::from_secs(900);

/// What functions are built from here. In AWS each finds it in its environment.
pub(crate) struct Apps {
    config: Config,
    parts: Parts,
}

impl Apps {
    /// Functions with these settings, which follow `clock` and encrypt with `data_keys`; `access` is the access sync's
    /// configuration, and `metrics` takes the lines that CloudWatch gets in AWS.
    ///
    /// # Errors
    /// [`StartError`] when the settings hold no credentials, or TLS cannot be set up.
    pub(crate) fn new(
        config: Config,
        clock: Clock,
        data_keys: DataKeys,
        access: Configuration,
        metrics: Arc<Lines>,
    ) -> Result<Self, StartError> {
        let given = config
            .snaptrade_credentials
            .clone()
            .ok_or(StartError::CredentialsMissing)?;
        let credentials = Credentials {
            client_id: given.client_id,
            consumer_key: given.consumer_key,
        };
        let parts = Parts::local(clock, "local", credentials, data_keys)
            .map_err(|error| StartError::Internal(error.to_string()))?
            .with_access(access)
            .with_metrics(Sink::Kept(metrics));
        Ok(Self { config, parts })
    }

    /// The settings.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// What the function `function` works with.
    pub(crate) fn app(&self, function: &'static str) -> App {
        App::new(function, self.config.clone(), self.parts.clone())
    }
}

/// The handler of a function's package.
macro_rules! handler {
    ($package:ident) => {
        |app, request| Box::pin(async move { $package::handle(&app, request).await })
    };
}

/// The functions that answer requests, by name.
pub(crate) fn for_requests(apps: &Apps) -> BTreeMap<&'static str, Function> {
    let handlers: [(&'static str, Handler); 13] = [
        ("status", handler!(status)),
        ("register", handler!(register)),
        ("handle-limit", handler!(handle_limit)),
        ("connection-url", handler!(connection_url)),
        ("webhook", handler!(webhook)),
        ("refresh", handler!(refresh)),
        ("portfolio", handler!(portfolio)),
        ("users", handler!(users)),
        ("webhook-admin", handler!(webhook_admin)),
        ("connection-sync", handler!(connection_sync)),
        ("access-sync", handler!(access_sync)),
        ("access-admin", handler!(access_admin)),
        ("access-webhook", handler!(access_webhook)),
    ];
    handlers
        .into_iter()
        .map(|(name, handler)| {
            let app = Arc::new(apps.app(name));
            (name, Function { app, handler })
        })
        .collect()
}

/// The schedules, each with the interval that the deployment gives it.
pub(crate) fn schedules(apps: &Apps, invoker: &Invoker) -> Schedules {
    let sync = scheduled(apps, invoker, "connection-sync-schedule", |app| {
        Box::pin(async move {
            connection_sync::run(&app)
                .await
                .map_err(|failure| failed(&failure))
        })
    });
    let refresh = scheduled(apps, invoker, "refresh-schedule", |app| {
        Box::pin(async move { refresh::run(&app).await.map_err(|failure| failed(&failure)) })
    });
    let invoker = invoker.with_limit(ACCESS_RUN_LIMIT);
    let access_sync = scheduled(apps, &invoker, "access-sync-schedule", |app| {
        Box::pin(async move { access_sync::run(&app).await })
    });
    let access_rescan = scheduled(apps, &invoker, "access-rescan-schedule", |app| {
        Box::pin(async move { schedule::rescan(&app).await })
    });
    Schedules::new(vec![
        Schedule {
            name: CONNECTION_SYNC,
            every: SignedDuration::from_mins(15),
            run: sync,
        },
        Schedule {
            name: REFRESH,
            every: SignedDuration::from_hours(1),
            run: refresh,
        },
        Schedule {
            name: ACCESS_SYNC,
            every: SignedDuration::from_mins(1),
            run: access_sync,
        },
        Schedule {
            name: ACCESS_RESCAN,
            every: SignedDuration::from_hours(24),
            run: access_rescan,
        },
    ])
}

/// Whether a record of the table's stream is for the function that consumes it: an event of SnapTrade that was just
/// stored. The event source mapping in AWS has the same filter.
pub(crate) fn is_for_stream_consumer(record: &EventRecord) -> bool {
    let is_event = serde_json::to_value(&record.change.keys)
        .is_ok_and(|keys| keys.pointer("/sk/S").and_then(Value::as_str) == Some("EVENT"));
    record.event_name == "INSERT" && is_event
}

/// The function that consumes the table's stream.
pub(crate) fn stream_consumer(apps: &Apps, invoker: &Invoker) -> Consumer {
    let (app, invoker) = (Arc::new(apps.app("webhook-worker")), invoker.clone());
    Box::new(move |batch| {
        let (app, invoker) = (Arc::clone(&app), invoker.clone());
        Box::pin(async move {
            let own = Arc::clone(&app);
            let work = Box::pin(async move { webhook_worker::handle(&own, batch).await });
            invoke(&invoker, app, work).await
        })
    })
}

/// Where records go that the function fails on to the last: they are given up in the table, from where they can be
/// replayed. In AWS a queue gets them, too.
pub(crate) fn dead_letters(apps: &Apps) -> DeadLetters {
    let app = Arc::new(apps.app("dead-letters"));
    Box::new(move |record, reason| {
        let app = Arc::clone(&app);
        Box::pin(async move {
            let item = record.change.new_image.into();
            let Ok(Some((tenant, event))) = webhooks::stored(&item) else {
                tracing::error!(%reason, "a record that is no event was given up");
                return;
            };
            let now = app.clock().now();
            let id = &event.webhook_id;
            match webhooks::mark_dead(app.store(), &tenant, id, &reason, now).await {
                Ok(()) => tracing::error!(webhook_id = %id, %reason, "an event was given up"),
                Err(error) => tracing::error!(webhook_id = %id, %error, "an event could not be given up"),
            }
        })
    })
}

/// What a scheduled function does, as an invocation of it.
fn scheduled<O: Serialize + Send + 'static>(
    apps: &Apps,
    invoker: &Invoker,
    function: &'static str,
    work: fn(Arc<App>) -> BoxFuture<'static, Result<O, Diagnostic>>,
) -> Run {
    let (app, invoker) = (Arc::new(apps.app(function)), invoker.clone());
    Box::new(move || {
        let (app, invoker) = (Arc::clone(&app), invoker.clone());
        Box::pin(async move { invoke(&invoker, Arc::clone(&app), work(app)).await })
    })
}

/// A failure as Lambda reports it.
fn failed(failure: &dyn std::fmt::Display) -> Diagnostic {
    Diagnostic {
        error_type: "Retryable".to_owned(),
        error_message: failure.to_string(),
    }
}

/// Runs `work`, what the function that `app` belongs to does with an event, as an invocation of it, and makes JSON of
/// what it answers.
async fn invoke<O: Serialize + Send + 'static>(
    invoker: &Invoker,
    app: Arc<App>,
    work: BoxFuture<'static, Result<O, Diagnostic>>,
) -> Result<Value, String> {
    let request_id = new_id();
    let id = request_id.clone();
    let function = app.function();
    let run = Box::pin(async move { berth::app::invoke_event(&app, id, work).await.0 });
    match invoker.invoke(function, &request_id, |_| None, run).await {
        Ok(Ok(output)) => serde_json::to_value(output).map_err(|error| error.to_string()),
        Ok(Err(diagnostic)) => Err(diagnostic.error_message),
        Err(error) => Err(error.to_string()),
    }
}
