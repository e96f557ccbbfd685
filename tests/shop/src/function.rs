//! A function of the access sync as Lambda runs it: its own program, to which a Runtime API of this program's own hands
//! one event after the other. Nothing else is in its process, so that what it takes of memory is what it takes in Lambda.
//!
//! Source of the Runtime API: AWS, "Using the Lambda runtime API for custom runtimes".

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use crate::site;

/// The longest that an invocation may take: what Lambda gives at most.
const TIME_LIMIT: Duration = Duration::from_secs(900);

/// What `sam local invoke` gives functions beside a local stack.
const ENVIRONMENT: &str = include_str!("../../../infra/env.local.json");

/// The DynamoDB of a local stack on its usual port.
const USUAL_DYNAMODB: &str = "http://127.0.0.1:9003";

/// A function's process, waiting for an event.
pub struct Function {
    process: Child,
    events: mpsc::Sender<String>,
    answers: mpsc::Receiver<Result<String, String>>,
    server: JoinHandle<()>,
}

/// What the two sides of the Runtime API share.
struct Runtime {
    events: Mutex<mpsc::Receiver<String>>,
    answers: mpsc::Sender<Result<String, String>>,
}

impl Function {
    /// Starts `program` beside the stack whose DynamoDB and Secrets Manager are at `dynamodb`.
    pub async fn start(program: &Path, dynamodb: &str) -> Result<Self, String> {
        if !program.exists() {
            return Err(format!(
                "there is no {}: run `cargo build` first",
                program.display()
            ));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(site::text)?;
        let address = listener.local_addr().map_err(site::text)?;
        let (events, receiver) = mpsc::channel(1);
        let (sender, answers) = mpsc::channel(1);
        let runtime = Arc::new(Runtime {
            events: Mutex::new(receiver),
            answers: sender,
        });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(answered))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(failed))
            .route("/2018-06-01/runtime/init/error", post(failed))
            .with_state(runtime);
        let server = tokio::spawn(async move {
            // It serves until it is aborted.
            let _ = axum::serve(listener, router).await;
        });
        let environment: Value = serde_json::from_str(ENVIRONMENT).map_err(site::text)?;
        let environment = environment["Parameters"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name, value.as_str()?.replace(USUAL_DYNAMODB, dynamodb))));
        let process = Command::new(program)
            .env_clear()
            .envs(environment)
            .env("LOG_LEVEL", "warn")
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "local")
            .env("AWS_SECRET_ACCESS_KEY", "local")
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "shop")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/shop")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "$LATEST")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(site::text)?;
        Ok(Self {
            process,
            events,
            answers,
            server,
        })
    }

    /// Hands the function an event and gives what it answers.
    pub async fn invoke(&mut self, event: &Value) -> Result<Value, String> {
        self.events.send(event.to_string()).await.map_err(site::text)?;
        let answer = tokio::select! {
            answer = self.answers.recv() => answer.ok_or("nobody is left to answer")?,
            status = self.process.wait() => Err(format!("the function ended by itself: {status:?}")),
        };
        serde_json::from_str(&answer?).map_err(site::text)
    }

    /// The most memory that the process ever took, in KiB; nothing where the system does not tell.
    pub fn most_memory(&self) -> u64 {
        self.process.id().and_then(site::most_memory).unwrap_or_default()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn next(State(runtime): State<Arc<Runtime>>) -> Response {
    let Some(event) = runtime.events.lock().await.recv().await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let deadline = (now + TIME_LIMIT).as_millis().to_string();
    let function = "arn:aws:lambda:eu-central-1:123456789012:function:shop";
    let headers = [
        ("lambda-runtime-aws-request-id", "shop"),
        ("lambda-runtime-deadline-ms", deadline.as_str()),
        ("lambda-runtime-invoked-function-arn", function),
    ];
    (headers, event).into_response()
}

async fn answered(State(runtime): State<Arc<Runtime>>, body: String) -> StatusCode {
    tell(&runtime, Ok(body)).await
}

async fn failed(State(runtime): State<Arc<Runtime>>, body: String) -> StatusCode {
    tell(&runtime, Err(body)).await
}

async fn tell(runtime: &Runtime, answer: Result<String, String>) -> StatusCode {
    match runtime.answers.send(answer).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::GONE,
    }
}

/// The event of a schedule.
pub fn scheduled() -> Value {
    json!({"version": "0", "detail-type": "Scheduled Event", "source": "aws.scheduler", "detail": "{}"})
}

/// The event of an operator's request without a body.
pub fn request(method: &str, path: &str) -> Value {
    json!({
        "version": "2.0",
        "routeKey": format!("{method} {path}"),
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "berth.example.com", "content-type": "application/json"},
        "requestContext": {
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7"},
            "requestId": "shop",
            "routeKey": format!("{method} {path}"),
            "stage": "$default",
            "timeEpoch": 0,
            "authorizer": {"jwt": {"claims": {"sub": "olga", "scope": "berth/operator"}, "scopes": null}},
        },
        "isBase64Encoded": false,
        "body": "{}",
    })
}
