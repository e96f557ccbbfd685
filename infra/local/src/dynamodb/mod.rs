//! The embedded DynamoDB: the engine dynoxide on its own thread, and before it a thin HTTP front that passes every
//! call on unchanged, counts it, and fails it where a test has asked for that.
//!
//! The engine serves a TCP listener and nothing else, so the front is a second hop; both share one thread with a
//! single-threaded runtime, where the hop costs no switch between threads. The engine does its work synchronously
//! under one lock, so more threads would gain nothing, and none of the stack's other work waits behind it.

mod connection;
mod faults;
mod permissions;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use berth::snaptrade::HttpClientError;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

use connection::{Cut, CuttableListener};
pub use faults::Fault;
use faults::Faults;
pub use permissions::Permission;
use permissions::Permissions;
pub(crate) use secrets::Secrets;

/// The largest request that DynamoDB takes, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// How long running calls may take once the stack stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// The running engine and its port.
#[derive(Debug)]
pub struct DynamoDb {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    stopped: oneshot::Receiver<()>,
}

/// What the port counts and is told, seen from both sides.
#[derive(Debug, Default)]
struct Shared {
    faults: Faults,
    calls: Mutex<BTreeMap<Caller, u64>>,
    permissions: Permissions,
    written: Arc<Notify>,
}

/// Who made a call, and which.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Caller {
    /// The function, as its SDK names it; empty for any other client.
    function: String,
    /// The operation, such as `PutItem`.
    operation: String,
}

/// Why the engine does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DynamoDbError {
    /// The operating system refused a listener or a thread.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The front's HTTP client could not be built.
    #[error(transparent)]
    Client(#[from] HttpClientError),
}

impl DynamoDb {
    /// Serves `database` and `secrets` on `listener` until [`stop`](Self::stop) is called.
    ///
    /// # Errors
    /// [`DynamoDbError`] when the machine has no port, thread or memory left.
    pub(crate) fn start(
        listener: std::net::TcpListener,
        database: dynoxide::Database,
        secrets: Secrets,
    ) -> Result<Self, DynamoDbError> {
        listener.set_nonblocking(true)?;
        let inner = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        inner.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            permissions: Permissions::noted_where_the_environment_says(),
            ..Shared::default()
        });
        let front = Front {
            engine: format!("http://{}", inner.local_addr()?),
            client: berth::snaptrade::http_client()?,
            shared: Arc::clone(&shared),
            secrets,
        };
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopping) = oneshot::channel();
        let (has_stopped, stopped) = oneshot::channel();
        std::thread::Builder::new()
            .name("dynamodb".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(serve(listener, inner, front, database, stopping)) {
                    tracing::error!(%error, "the embedded DynamoDB failed");
                }
                // Connections that are still open die with the runtime, and with them the last handles of the
                // database, so that its files are closed when the stop is reported.
                drop(runtime);
                let _ = has_stopped.send(());
            })?;
        Ok(Self {
            address,
            shared,
            stop: Some(stop),
            stopped,
        })
    }

    /// Where any AWS client reaches it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next `times` calls, whichever they are, fail with `fault`.
    pub fn fail_next(&self, times: usize, fault: Fault) {
        self.shared.faults.plan(None, times, fault);
    }

    /// The next `times` calls of `operation` (such as `TransactWriteItems`) fail with `fault`.
    pub fn fail_next_of(&self, operation: &str, times: usize, fault: Fault) {
        self.shared.faults.plan(Some(operation), times, fault);
    }

    /// Forgets the faults that no call has met yet.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// The calls received since the start, every try of one, by function (empty for other clients) and operation.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<(String, String), u64> {
        let calls = self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls
            .iter()
            .map(|(caller, count)| ((caller.function.clone(), caller.operation.clone()), *count))
            .collect()
    }

    /// What the roles of the callers would have had to allow since the start, by function (empty for other clients).
    #[must_use]
    pub fn permissions(&self) -> BTreeMap<String, BTreeSet<Permission>> {
        self.shared.permissions.all()
    }

    /// The calls received since the start from `function`, every try of one.
    #[must_use]
    pub fn calls_of(&self, function: &str) -> u64 {
        let calls = self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls
            .iter()
            .filter(|(caller, _)| caller.function == function)
            .map(|(_, count)| *count)
            .sum()
    }

    /// Wakes after each call that may have written something.
    pub(crate) fn written(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.written)
    }

    /// Lets running calls finish and closes the port and the database.
    pub(crate) async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = (&mut self.stopped).await;
    }
}

/// Serves the engine and the front until `stopping` resolves or the front's owner is gone.
async fn serve(
    listener: std::net::TcpListener,
    inner: std::net::TcpListener,
    front: Front,
    database: dynoxide::Database,
    stopping: oneshot::Receiver<()>,
) -> Result<(), String> {
    let listener = TcpListener::from_std(listener).map_err(|error| error.to_string())?;
    let inner = TcpListener::from_std(inner).map_err(|error| error.to_string())?;
    let engine = tokio::spawn(dynoxide::server::serve_with_shutdown(
        inner,
        database,
        std::future::pending(),
    ));
    let router = Router::new()
        .fallback(pass_on)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Arc::new(front));
    let (told, deadline) = oneshot::channel();
    let server = axum::serve(
        CuttableListener(listener),
        router.into_make_service_with_connect_info::<Cut>(),
    )
    .with_graceful_shutdown(async move {
        let _ = stopping.await;
        let _ = told.send(());
    });
    // A client that never finishes its request must not hold up the stop.
    let timeout = async {
        let _ = deadline.await;
        tokio::time::sleep(STOP_TIMEOUT).await;
    };
    let served = tokio::select! {
        served = server => served.map_err(|error| error.to_string()),
        () = timeout => Ok(()),
    };
    engine.abort();
    served
}

/// The front's own parts.
struct Front {
    engine: String,
    client: reqwest::Client,
    shared: Arc<Shared>,
    secrets: Secrets,
}

/// Passes one call on to the engine.
async fn pass_on(
    State(front): State<Arc<Front>>,
    ConnectInfo(connection): ConnectInfo<Cut>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let operation = operation(&headers).to_owned();
    front.shared.count(&headers, &operation);
    let function = calling_function(&headers).unwrap_or_default();
    front.shared.permissions.remember(function, &operation, &body);
    if names_a_secret(&headers) {
        return front.secrets.answer(&operation, &body);
    }
    let fault = front.shared.faults.meet(&operation);
    match fault {
        Some(Fault::Error500) => {
            return error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "com.amazonaws.dynamodb.v20120810#InternalServerError",
                "a fault was asked for",
            );
        }
        Some(Fault::Throttle) => {
            return error(
                StatusCode::BAD_REQUEST,
                "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
                "a fault was asked for",
            );
        }
        Some(Fault::Slow(wait)) => tokio::time::sleep(wait).await,
        Some(Fault::LostAnswer) | None => {}
    }
    let answer = front.forward(method, &uri, headers, body).await;
    if may_write(&operation) {
        front.shared.written.notify_one();
    }
    if fault == Some(Fault::LostAnswer) {
        connection.cut();
    }
    answer.unwrap_or_else(|failed| {
        tracing::error!(error = %failed, %operation, "the embedded DynamoDB did not answer");
        error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "com.amazonaws.dynamodb.v20120810#InternalServerError",
            "the engine did not answer",
        )
    })
}

impl Front {
    async fn forward(
        &self,
        method: Method,
        uri: &Uri,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, reqwest::Error> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        remove_connection_headers(&mut headers);
        let mut answer = self
            .client
            .request(method, format!("{}{path}", self.engine))
            .headers(headers)
            .body(body)
            .send()
            .await?;
        let mut headers = std::mem::take(answer.headers_mut());
        remove_connection_headers(&mut headers);
        let status = answer.status();
        let body = answer.bytes().await?;
        Ok((status, headers, Body::from(body)).into_response())
    }
}

/// Takes out what belongs to one connection and not to the call.
fn remove_connection_headers(headers: &mut HeaderMap) {
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::EXPECT,
    ] {
        headers.remove(name);
    }
}

impl Shared {
    fn count(&self, headers: &HeaderMap, operation: &str) {
        let caller = Caller {
            function: calling_function(headers).unwrap_or_default().to_owned(),
            operation: operation.to_owned(),
        };
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let count = calls.entry(caller).or_default();
        *count = count.saturating_add(1);
    }
}

/// Whether a call is one to Secrets Manager.
fn names_a_secret(headers: &HeaderMap) -> bool {
    headers
        .get("x-amz-target")
        .is_some_and(|target| target.as_bytes().starts_with(secrets::TARGET_PREFIX.as_bytes()))
}

/// The operation that a call names, `PutItem` of `DynamoDB_20120810.PutItem`.
fn operation(headers: &HeaderMap) -> &str {
    headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok())
        .and_then(|target| target.rsplit('.').next())
        .unwrap_or_default()
}

/// The function that an AWS SDK was told to name as its application: `app/berth-<function>` in its user agent.
fn calling_function(headers: &HeaderMap) -> Option<&str> {
    [
        header::HeaderName::from_static("x-amz-user-agent"),
        header::USER_AGENT,
    ]
    .iter()
    .filter_map(|name| headers.get(name)?.to_str().ok())
    .flat_map(str::split_whitespace)
    .find_map(|part| part.strip_prefix("app/berth-"))
}

/// Whether a call of `operation` may change the table's items.
fn may_write(operation: &str) -> bool {
    matches!(
        operation,
        "PutItem"
            | "UpdateItem"
            | "DeleteItem"
            | "BatchWriteItem"
            | "TransactWriteItems"
            | "ExecuteStatement"
            | "BatchExecuteStatement"
            | "ExecuteTransaction"
    )
}

/// An error in DynamoDB's own form.
fn error(status: StatusCode, kind: &str, message: &str) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/x-amz-json-1.0")],
        serde_json::json!({"__type": kind, "message": message}).to_string(),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn start() -> DynamoDb {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        DynamoDb::start(
            listener,
            dynoxide::Database::memory().unwrap(),
            Secrets::default(),
        )
        .unwrap()
    }

    async fn call(dynamodb: &DynamoDb, operation: &str) -> Result<reqwest::Response, reqwest::Error> {
        berth::snaptrade::http_client()
            .unwrap()
            .post(dynamodb.url())
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("DynamoDB_20120810.{operation}"))
            .header("x-amz-date", "20260101T000000Z")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=a/20260101/eu/dynamodb/aws4_request, SignedHeaders=host, Signature=b",
            )
            .header("user-agent", "aws-sdk-rust/1 app/berth-stack")
            .body(
                serde_json::json!({
                    "TableName": "things", "BillingMode": "PAY_PER_REQUEST",
                    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
                    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
                })
                .to_string(),
            )
            .send()
            .await
    }

    #[tokio::test]
    async fn calls_reach_the_engine_and_are_counted_by_function_and_operation() {
        let dynamodb = start();
        let answer = call(&dynamodb, "CreateTable").await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.headers().contains_key("x-amz-crc32"));
        assert_eq!(
            answer.headers().get("content-type").unwrap(),
            "application/x-amz-json-1.0"
        );
        assert_eq!(dynamodb.calls_of("stack"), 1);
        assert_eq!(
            dynamodb.calls().into_iter().collect::<Vec<_>>(),
            vec![(("stack".to_owned(), "CreateTable".to_owned()), 1)]
        );
        dynamodb.stop().await;
    }

    #[tokio::test]
    async fn secrets_are_given_out_by_the_call_that_functions_make_for_them() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let secrets = Secrets::new([("berth-local/snaptrade", "very-secret".into())]);
        let dynamodb = DynamoDb::start(listener, dynoxide::Database::memory().unwrap(), secrets).unwrap();
        let client = berth::app::aws::secrets_manager(
            &berth::app::AwsAccess::local("test"),
            berth::snaptrade::http_client().unwrap(),
            Some(&berth::config::BaseUrl::parse(&dynamodb.url()).unwrap()),
            "register",
        );
        let ask = async |id: &str| client.get_secret_value().secret_id(id).send().await;
        let given = ask("berth-local/snaptrade").await.unwrap();
        assert_eq!(given.secret_string(), Some("very-secret"));
        let refused = ask("berth-local/other").await.unwrap_err().into_service_error();
        assert!(refused.is_resource_not_found_exception());
        let needed = dynamodb.permissions().remove("register").unwrap();
        let of: Vec<_> = needed
            .into_iter()
            .map(|permission| permission.on.unwrap())
            .collect();
        assert_eq!(of, ["berth-local/other", "berth-local/snaptrade"]);
        dynamodb.stop().await;
    }

    #[tokio::test]
    async fn a_lost_answer_does_the_work_and_closes_the_connection() {
        let dynamodb = start();
        dynamodb.fail_next(1, Fault::LostAnswer);
        let lost = call(&dynamodb, "CreateTable").await.unwrap_err();
        assert!(lost.is_request() && lost.status().is_none(), "{lost:?}");
        let again = call(&dynamodb, "CreateTable").await.unwrap();
        assert!(again.text().await.unwrap().contains("ResourceInUseException"));
        dynamodb.stop().await;
    }

    #[tokio::test]
    async fn asked_for_errors_do_nothing_and_slow_calls_are_done_late() {
        let dynamodb = start();
        dynamodb.fail_next(1, Fault::Error500);
        dynamodb.fail_next_of("CreateTable", 1, Fault::Throttle);
        dynamodb.fail_next(1, Fault::Slow(Duration::from_millis(120)));
        assert_eq!(call(&dynamodb, "CreateTable").await.unwrap().status(), 500);
        let throttled = call(&dynamodb, "CreateTable").await.unwrap();
        assert!(
            throttled
                .text()
                .await
                .unwrap()
                .contains("ProvisionedThroughputExceeded")
        );
        let begun = Instant::now();
        assert_eq!(call(&dynamodb, "CreateTable").await.unwrap().status(), 200);
        assert!(begun.elapsed() >= Duration::from_millis(120));
        dynamodb.stop().await;
    }

    #[tokio::test]
    async fn a_client_that_never_finishes_its_request_does_not_hold_up_the_stop() {
        let dynamodb = start();
        let mut idle = tokio::net::TcpStream::connect(dynamodb.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(
            &mut idle,
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\na",
        )
        .await
        .unwrap();
        tokio::time::timeout(STOP_TIMEOUT + Duration::from_secs(2), dynamodb.stop())
            .await
            .unwrap();
    }
}
