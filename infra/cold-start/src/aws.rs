//! What a function meets in AWS: the Lambda Runtime API, and just enough of Secrets Manager.
//!
//! Source: AWS, "Using the Lambda runtime API for custom runtimes".

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::Failure;

/// How long an invocation may take.
const DEADLINE: Duration = Duration::from_secs(25);

/// What a function did.
enum Seen {
    Polled(Instant),
    Answered(Instant),
    Failed(String),
}

struct Played {
    secrets: Arc<HashMap<String, String>>,
    event: Mutex<Option<String>>,
    seen: Sender<Seen>,
}

/// What plays them.
pub(crate) struct Aws {
    runtime: Runtime,
    secrets: Arc<HashMap<String, String>>,
}

/// A server for one process alone: what a process sent before it was ended may arrive late, and is not to be taken for the
/// next one's.
pub(crate) struct Server {
    address: SocketAddr,
    seen: Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Aws {
    /// Plays them on a thread of its own. `secrets` are the values by name.
    pub(crate) fn new(secrets: HashMap<String, String>) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Self {
            runtime,
            secrets: Arc::new(secrets),
        })
    }

    /// A server that has `event` for whoever asks for work.
    pub(crate) fn serve(&self, event: &str) -> Result<Server, Failure> {
        let (sender, seen) = channel();
        let played = Arc::new(Played {
            secrets: Arc::clone(&self.secrets),
            event: Mutex::new(Some(event.to_owned())),
            seen: sender,
        });
        let listener = self.runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(serve).with_state(played);
        let task = self.runtime.spawn(async move {
            // It serves until it is aborted.
            drop(axum::serve(listener, router).await);
        });
        Ok(Server { address, seen, task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// The variables by which a program finds it.
    pub(crate) fn variables(&self) -> [(&'static str, String); 2] {
        [
            ("AWS_LAMBDA_RUNTIME_API", self.address.to_string()),
            (
                "AWS_ENDPOINT_URL_SECRETS_MANAGER",
                format!("http://{}", self.address),
            ),
        ]
    }

    /// Waits until the function has answered: when it asked for work, and when the answer was there.
    pub(crate) fn answered(&self, patience: Duration) -> Result<(Instant, Instant), String> {
        let mut polled = None;
        loop {
            match self.seen.recv_timeout(patience) {
                Ok(Seen::Polled(at)) => polled = polled.or(Some(at)),
                Ok(Seen::Answered(at)) => {
                    return polled
                        .map(|polled| (polled, at))
                        .ok_or_else(|| "it answered what it was not asked".to_owned());
                }
                Ok(Seen::Failed(what)) => return Err(what),
                Err(RecvTimeoutError::Timeout) if polled.is_none() => {
                    return Err("it did not ask for work".to_owned());
                }
                Err(_) => return Err("it did not answer".to_owned()),
            }
        }
    }
}

async fn serve(State(played): State<Arc<Played>>, uri: Uri, body: Bytes) -> Response {
    let now = Instant::now();
    let path = uri.path();
    // A process that is done with has nobody left who wants to know.
    let saw = |seen| drop(played.seen.send(seen));
    if path.ends_with("/invocation/next") {
        saw(Seen::Polled(now));
        let event = played.event.lock().unwrap_or_else(PoisonError::into_inner).take();
        return match event {
            Some(event) => invocation(event).into_response(),
            // There is no more work, which Lambda lets a function wait for.
            None => std::future::pending().await,
        };
    }
    if path.ends_with("/response") {
        saw(Seen::Answered(now));
        return StatusCode::ACCEPTED.into_response();
    }
    if path.ends_with("/error") {
        saw(Seen::Failed(String::from_utf8_lossy(&body).into_owned()));
        return StatusCode::ACCEPTED.into_response();
    }
    let wanted: Value = serde_json::from_slice(&body).unwrap_or_default();
    let id = wanted["SecretId"].as_str().unwrap_or_default();
    match played.secrets.get(id) {
        Some(secret) => axum::Json(json!({"Name": id, "SecretString": secret})).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn invocation(event: String) -> impl IntoResponse {
    let deadline = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_add(DEADLINE);
    let headers = [
        ("lambda-runtime-aws-request-id", "cold-start".to_owned()),
        ("lambda-runtime-deadline-ms", deadline.as_millis().to_string()),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:eu-central-1:000000000000:function:cold-start".to_owned(),
        ),
    ];
    (headers, event)
}
