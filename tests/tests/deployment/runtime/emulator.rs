//! What a function's program runs under: AWS's Runtime Interface Emulator where it is installed, else a Runtime API of
//! this test's own.
//!
//! Source of the Runtime API: AWS, "Using the Lambda runtime API for custom runtimes".

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Path as PathParameter, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc};

/// The variable that names AWS's Runtime Interface Emulator.
const EMULATOR_VARIABLE: &str = "BERTH_RUNTIME_EMULATOR";

/// How long a function may take to start and to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long an invocation may take by what the function is told.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The id of the only invocation.
const REQUEST_ID: &str = "8476a536-e9f4-11e8-9739-2dfe598c3fcd";

/// What a function's program runs under.
pub(super) enum Emulator {
    /// The test's own Runtime API.
    Own,
    /// AWS's program.
    Aws(PathBuf),
}

/// A function's program, and how it is started.
pub(super) struct Program {
    /// The executable.
    pub(super) path: PathBuf,
    /// Its whole environment, but for what Lambda adds.
    pub(super) variables: Vec<(String, String)>,
}

impl Emulator {
    /// AWS's where the environment names it.
    pub(super) fn installed() -> Self {
        std::env::var_os(EMULATOR_VARIABLE).map_or(Self::Own, |path| Self::Aws(path.into()))
    }

    /// Starts the program, hands it `event` and gives what it answers.
    pub(super) async fn invoke(&self, program: &Program, event: &Value) -> Value {
        let work = async {
            match self {
                Self::Own => invoke_by_own_api(program, event).await,
                Self::Aws(emulator) => invoke_by_aws(emulator, program, event).await,
            }
        };
        let name = program.path.display();
        tokio::time::timeout(PATIENCE, work)
            .await
            .unwrap_or_else(|_| panic!("{name} did not answer in time"))
    }
}

/// A command that runs `executable` with the program's environment and nothing else of this process's.
fn command(executable: &Path, program: &Program) -> Command {
    let mut command = Command::new(executable);
    command
        .env_clear()
        .envs(program.variables.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What both sides of the Runtime API share.
struct Invocation {
    event: String,
    /// Whether the event was handed out.
    taken: Mutex<bool>,
    answered: mpsc::UnboundedSender<Result<String, String>>,
}

async fn invoke_by_own_api(program: &Program, event: &Value) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (answered, mut answers) = mpsc::unbounded_channel();
    let invocation = Arc::new(Invocation {
        event: event.to_string(),
        taken: Mutex::new(false),
        answered,
    });
    let router = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
        .route("/2018-06-01/runtime/init/error", post(error_of_start))
        .with_state(invocation);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut process = command(&program.path, program)
        .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "test_function")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/test_function")
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "$LATEST")
        .spawn()
        .unwrap();
    let answer = tokio::select! {
        answer = answers.recv() => answer.unwrap(),
        status = process.wait() => Err(format!("it ended by itself: {status:?}")),
    };
    server.abort();
    match answer {
        Ok(text) => serde_json::from_str(&text).unwrap(),
        Err(reason) => panic!("{} failed: {reason}", program.path.display()),
    }
}

async fn next(State(invocation): State<Arc<Invocation>>) -> (HeaderMap, String) {
    let mut taken = invocation.taken.lock().await;
    if *taken {
        // There is no other event, and Lambda would freeze the process here.
        std::future::pending::<()>().await;
    }
    *taken = true;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let deadline = (now + TIME_LIMIT).as_millis().to_string();
    let headers = [
        ("lambda-runtime-aws-request-id", REQUEST_ID),
        ("lambda-runtime-deadline-ms", &deadline),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:us-east-1:012345678912:function:test_function",
        ),
        (
            "lambda-runtime-trace-id",
            "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0",
        ),
    ];
    let headers = headers
        .into_iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect();
    (headers, invocation.event.clone())
}

async fn response(
    State(invocation): State<Arc<Invocation>>,
    PathParameter(id): PathParameter<String>,
    body: String,
) -> StatusCode {
    assert_eq!(id, REQUEST_ID);
    invocation.answered.send(Ok(body)).unwrap();
    StatusCode::ACCEPTED
}

async fn error(
    State(invocation): State<Arc<Invocation>>,
    PathParameter(_): PathParameter<String>,
    body: String,
) -> StatusCode {
    invocation.answered.send(Err(body)).unwrap();
    StatusCode::ACCEPTED
}

async fn error_of_start(State(invocation): State<Arc<Invocation>>, body: String) -> StatusCode {
    invocation.answered.send(Err(body)).unwrap();
    StatusCode::ACCEPTED
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn invoke_by_aws(emulator: &Path, program: &Program, event: &Value) -> Value {
    let (front, api) = (free_port(), free_port());
    let mut process = command(emulator, program)
        .args([
            "--runtime-interface-emulator-address",
            &format!("127.0.0.1:{front}"),
        ])
        .args(["--runtime-api-address", &format!("127.0.0.1:{api}")])
        .arg(&program.path)
        .env("AWS_LAMBDA_FUNCTION_TIMEOUT", TIME_LIMIT.as_secs().to_string())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let client = berth::snaptrade::http_client().unwrap();
    let url = format!("http://127.0.0.1:{front}/2015-03-31/functions/function/invocations");
    let text = loop {
        assert!(still_runs(&mut process), "the emulator ended by itself");
        let sent = client.post(&url).body(event.to_string()).send().await;
        match sent {
            Ok(answer) => break answer.text().await.unwrap(),
            Err(error) if error.is_connect() => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("the emulator did not answer: {error}"),
        }
    };
    // What it started ends with it, since a function without a Runtime API has nothing to wait for.
    process.kill().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("the emulator answered {text}"))
}

fn still_runs(process: &mut Child) -> bool {
    process.try_wait().unwrap().is_none()
}
