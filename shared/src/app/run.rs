//! Runs a function under the Lambda runtime.

use std::future::Future;
use std::process::ExitCode;
use std::time::Instant;

use lambda_http::{Body, Request, Response};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{App, Needs};
use crate::telemetry::metrics::End;
use crate::telemetry::{self, CallCounts, logs};

/// Serves HTTP requests as the function `function` until Lambda ends the process.
pub fn run_http<H, F>(function: &'static str, needs: Needs, handle: H) -> ExitCode
where
    H: Fn(&'static App, Request) -> F + Send,
    F: Future<Output = Response<Body>> + Send,
{
    run(function, needs, async |app| {
        let service = service_fn(|request| {
            let answer = handle(app, request);
            async { Ok::<_, lambda_runtime::Error>(answer.await) }
        });
        lambda_http::run(service).await
    })
}

/// Works on events as the function `function` until Lambda ends the process.
pub fn run_event<E, O, H, F>(function: &'static str, needs: Needs, handle: H) -> ExitCode
where
    E: DeserializeOwned,
    O: Serialize,
    H: Fn(&'static App, E) -> F,
    F: Future<Output = Result<O, Diagnostic>>,
{
    run(function, needs, async |app| {
        let service = service_fn(|event: LambdaEvent<E>| {
            let request_id = event.context.request_id;
            let work = handle(app, event.payload);
            async { invoke_event(app, request_id, work).await.0 }
        });
        lambda_runtime::run(service).await
    })
}

/// Runs `work`, a handler's work on one event, as the invocation `request_id`. A failure is logged here, once.
pub async fn invoke_event<O>(
    app: &App,
    request_id: String,
    work: impl Future<Output = Result<O, Diagnostic>>,
) -> (Result<O, Diagnostic>, CallCounts) {
    let invocation = app.invocation(request_id.clone(), request_id);
    telemetry::in_invocation(invocation, async {
        let started = Instant::now();
        let result = work.await;
        let took = started.elapsed();
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let calls = telemetry::current_calls();
        let (dynamodb, snaptrade, access, mail) = (calls.dynamodb, calls.snaptrade, calls.access, calls.mail);
        match &result {
            Ok(_) => tracing::info!(duration_ms, dynamodb, snaptrade, access, mail, "done"),
            Err(error) => tracing::error!(
                error_type = error.error_type.as_str(),
                error_message = error.error_message.as_str(),
                duration_ms,
                dynamodb,
                snaptrade,
                access,
                mail,
                "failed"
            ),
        }
        let end = if result.is_ok() { End::Done } else { End::Failed };
        app.metrics().emit(end, took);
        result
    })
    .await
}

/// Starts the function and serves; a failure to start is told in one sentence.
fn run(
    function: &'static str,
    needs: Needs,
    serve: impl AsyncFnOnce(&'static App) -> Result<(), lambda_runtime::Error>,
) -> ExitCode {
    // Requests come one at a time, so more threads would only make the start slower.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(function, &format!("The function cannot start: {error}.")),
    };
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        let hint = "This program is started by AWS Lambda; on your own machine run `berth local` instead.";
        return failed(function, hint);
    }
    runtime.block_on(async {
        let app = match App::from_env(function, needs).await {
            Ok(app) => app,
            Err(error) => return failed(function, &error.to_string()),
        };
        logs::init_json(app.config().log_level);
        for warning in app.access().iter().flat_map(|access| &access.warnings) {
            tracing::warn!("in the access sync's configuration {warning}");
        }
        // The process ends with the runtime, so the app may as well live for ever.
        match serve(Box::leak(Box::new(app))).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(function, &format!("The Lambda runtime failed: {error}.")),
        }
    })
}

fn failed(function: &'static str, sentence: &str) -> ExitCode {
    logs::init_json(logs::LogLevel::Error);
    tracing::error!(function, "{sentence}");
    ExitCode::FAILURE
}
