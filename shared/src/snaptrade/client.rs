//! Sending calls: address, signature, time-outs, and what is sent again.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use reqwest::{Method, Response};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::answer::{self, Asked, Names};
use super::credentials::{Credentials, UserCredentials};
use super::error::{Error, ErrorKind, Outcome};
use super::signature;
use crate::clock::Clock;
use crate::config::BaseUrl;
use crate::secrets::Cached;
use crate::telemetry::metrics::{self, CallEnd, Metric};
use crate::telemetry::{Service, count_call};

/// How long one sending may take, from making the connection to the last byte of the answer, when nothing else is
/// said.
pub const TIMEOUT: Duration = Duration::from_secs(6);

/// How long a call may take in all, with everything that is sent again and the waits between, when no deadline is set.
pub const BUDGET: Duration = Duration::from_secs(15);

/// How often a call is sent at most.
const ATTEMPTS: u32 = 3;

/// The wait before the second sending is at most this, before each later one at most twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest wait that is not asked for by SnapTrade.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// Longest answer that is read, in bytes. The longest known is a brokerage's list of instruments.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Longest answer that is read to tell what kind of error it is, in bytes.
const ERROR_BYTES: usize = 64 * 1024;

/// What stays as it is in a path or a query: the characters that RFC 3986 calls unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What a client is made of.
#[derive(Debug)]
pub struct ClientOptions {
    /// Where SnapTrade is. A path in it is part of what is signed.
    pub base_url: BaseUrl,
    /// Our own credentials.
    pub credentials: Arc<Cached<Credentials>>,
    /// The clock that waits go by.
    pub clock: Clock,
    /// What calls are sent with; see [`super::http_client`].
    pub http: reqwest::Client,
    /// How long one sending may take; [`TIMEOUT`] in most cases.
    pub timeout: Duration,
    /// Whom to ask before each sending, where the rate limit is shared with others.
    pub gate: Option<Arc<dyn Gate>>,
}

/// Shares SnapTrade's rate limit with others who use the same credentials.
pub trait Gate: Send + Sync + fmt::Debug {
    /// Asks to be let in before a signed call is sent. The error says for how long there is no use in asking again; the
    /// call is not sent then, and fails as if SnapTrade had throttled it.
    fn admit(&self) -> Pin<Box<dyn Future<Output = Result<(), Duration>> + Send + '_>>;

    /// Says that a call which was let in is over, and what SnapTrade said of the limit.
    fn answered(&self, said: Option<RateLimit>);
}

/// A client of SnapTrade's API. Copies are cheap and share connections, credentials and what is known of the rate
/// limit.
///
/// A call is sent again, up to three times in all and within a budget of time, when that is harmless (reading, and
/// deleting what is to be gone) and there is hope: no answer, a broken connection, a server's fault, nonsense, or a
/// rate limit whose wait fits into the budget. Registering a user, resetting a secret, asking for a refresh and
/// everything that has to do with orders is sent once; whether it may have had an effect all the same is
/// [`Error::outcome`]. Asking for a portal link is sent again, since an unused link has no effect.
///
/// When SnapTrade does not accept our own credentials they are read anew, and if they have changed the call is sent
/// once more. That is harmless for every call, for the first one was refused.
///
/// Signatures carry the system's time, whatever the given clock says: SnapTrade compares it with its own.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    policy: Policy,
    counter: Option<Arc<AtomicU32>>,
}

struct Shared {
    base_url: BaseUrl,
    credentials: Arc<Cached<Credentials>>,
    clock: Clock,
    http: reqwest::Client,
    rate_limit: Mutex<Option<RateLimit>>,
    gate: Option<Arc<dyn Gate>>,
}

/// How often a call may be sent and how long it may take.
#[derive(Debug, Clone, Copy)]
struct Policy {
    attempts: u32,
    timeout: Duration,
    budget: Duration,
    deadline: Option<Instant>,
}

/// What SnapTrade last said about the number of calls that are left, read from the `X-RateLimit-` headers. It is a
/// hint: others use the same client id, and a limit may exist without being told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Calls allowed in a window of 60 seconds.
    pub limit: Option<u32>,
    /// Calls left in the window.
    pub remaining: Option<u32>,
    /// How long after `observed_at` the window ends.
    pub reset: Option<Duration>,
    /// When this was said, by the client's clock.
    pub observed_at: Timestamp,
}

/// Whether a call may be sent again when it is not known whether it had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Twice is as good as once.
    Harmless,
    /// It must not happen twice.
    Never,
}

/// One call, before it is signed. It holds secrets in the open and so does not print.
pub(super) struct Call<'a> {
    operation: &'static str,
    method: Method,
    /// The path below the base URL's, encoded; `None` where a part of it cannot be sent.
    path: Option<String>,
    /// The query's own parameters, encoded, each with an ampersand before it.
    query: String,
    body: Option<Value>,
    names: Names,
    user: Option<&'a UserCredentials>,
    repeat: Repeat,
    /// Further texts that an error must not repeat.
    secrets: Vec<&'a str>,
    signed: bool,
}

impl<'a> Call<'a> {
    pub(super) fn get(operation: &'static str) -> Self {
        Self::new(operation, Method::GET, Repeat::Harmless)
    }

    pub(super) fn delete(operation: &'static str) -> Self {
        Self::new(operation, Method::DELETE, Repeat::Harmless)
    }

    pub(super) fn put(operation: &'static str) -> Self {
        Self::new(operation, Method::PUT, Repeat::Harmless)
    }

    pub(super) fn post(operation: &'static str, repeat: Repeat) -> Self {
        Self::new(operation, Method::POST, repeat)
    }

    fn new(operation: &'static str, method: Method, repeat: Repeat) -> Self {
        Self {
            operation,
            method,
            path: Some(String::new()),
            query: String::new(),
            body: None,
            names: Names::Nobody,
            user: None,
            repeat,
            secrets: Vec::new(),
            signed: true,
        }
    }

    /// Appends fixed text such as `/accounts/` to the path.
    pub(super) fn path(mut self, text: &str) -> Self {
        if let Some(path) = &mut self.path {
            path.push_str(text);
        }
        self
    }

    /// Appends one segment, encoded. A segment that would change the path's meaning makes the call fail unsent.
    pub(super) fn segment(mut self, text: &str) -> Self {
        if matches!(text, "" | "." | "..") {
            self.path = None;
        } else if let Some(path) = &mut self.path {
            path.extend(utf8_percent_encode(text, ENCODED));
        }
        self
    }

    /// Appends a parameter to the query, encoded.
    pub(super) fn param(mut self, name: &str, value: &str) -> Self {
        self.query.push('&');
        self.query.push_str(name);
        self.query.push('=');
        self.query.extend(utf8_percent_encode(value, ENCODED));
        self
    }

    /// Appends a parameter to the query where there is a value.
    pub(super) fn optional(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.param(name, value),
            None => self,
        }
    }

    /// Makes it a call on behalf of `user`.
    pub(super) fn user(mut self, user: &'a UserCredentials) -> Self {
        self.user = Some(user);
        self.names = Names::UserAndSecret;
        self
    }

    /// Says whom the call names, where it does so in another way than [`Call::user`]. `secrets` are kept out of errors.
    pub(super) fn naming(mut self, names: Names, secrets: Vec<&'a str>) -> Self {
        self.names = names;
        self.secrets = secrets;
        self
    }

    /// Leaves out credentials and signature.
    pub(super) fn unsigned(mut self) -> Self {
        self.signed = false;
        self
    }

    /// Gives the call a body.
    ///
    /// # Errors
    /// `Invalid`, with the reason, where the body cannot be sent as it is.
    pub(super) fn body<T: Serialize>(mut self, body: &T) -> Result<Self, Error> {
        let body = serde_json::to_value(body).map_err(|error| {
            Error::new(self.operation, ErrorKind::Invalid, Outcome::Refused).with_reason(error.to_string())
        })?;
        let is_empty = body.is_null() || body.as_object().is_some_and(serde_json::Map::is_empty);
        self.body = (!is_empty).then_some(body);
        Ok(self)
    }
}

impl Client {
    /// A client with the usual policy: up to three sendings in [`BUDGET`].
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                base_url: options.base_url,
                credentials: options.credentials,
                clock: options.clock,
                http: options.http,
                rate_limit: Mutex::new(None),
                gate: options.gate,
            }),
            policy: Policy {
                attempts: ATTEMPTS,
                timeout: options.timeout,
                budget: BUDGET,
                deadline: None,
            },
            counter: None,
        }
    }

    /// A handle that sends each call once, within one time-out: for callers that have their own idea of what to do when
    /// a call fails. The one exception is a call that SnapTrade refuses because our own credentials have changed; it
    /// is sent with the new ones within the same time-out.
    #[must_use]
    pub fn once(&self) -> Self {
        let mut client = self.clone();
        client.policy.attempts = 1;
        client.policy.budget = client.policy.timeout;
        client
    }

    /// A handle whose calls give up after `timeout` each time they are sent.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let mut client = self.clone();
        client.policy.timeout = timeout;
        if client.policy.attempts == 1 {
            client.policy.budget = timeout;
        }
        client
    }

    /// A handle whose calls are over at `deadline`, however often they are sent.
    #[must_use]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        let mut client = self.clone();
        client.policy.deadline = Some(deadline);
        client
    }

    /// A handle that adds every call that it sends to `counter`.
    #[must_use]
    pub fn counted_by(&self, counter: Arc<AtomicU32>) -> Self {
        let mut client = self.clone();
        client.counter = Some(counter);
        client
    }

    /// What SnapTrade last said about the number of calls left; `None` before the first answer that says so.
    #[must_use]
    pub fn rate_limit(&self) -> Option<RateLimit> {
        *self
            .shared
            .rate_limit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a call and reads the answer as a `T`.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, Error> {
        let started = Instant::now();
        let mut deadline = started.checked_add(self.policy.budget).unwrap_or(started);
        if let Some(own) = self.policy.deadline {
            deadline = deadline.min(own);
        }
        let mut credentials = self.credentials(&call, deadline).await?;
        let mut credentials_replaced = false;
        let mut sent: u32 = 0;
        loop {
            sent = sent.saturating_add(1);
            let error = match self.send(&call, credentials.as_deref(), deadline).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let ours_refused = matches!(error.kind, ErrorKind::Authentication | ErrorKind::Signature);
            if let Some(refused) = &credentials
                && ours_refused
                && !credentials_replaced
            {
                credentials_replaced = true;
                let Ok(Ok(fresh)) = timeout_at(deadline, self.shared.credentials.replace(refused)).await
                else {
                    return Err(error);
                };
                if fresh.is_same_as(refused) {
                    return Err(error);
                }
                credentials = Some(fresh);
                sent = sent.saturating_sub(1);
                continue;
            }
            if call.repeat == Repeat::Never || sent >= self.policy.attempts || !is_transient(&error.kind) {
                return Err(error);
            }
            let wait = wait(sent, error.retry_after(), random());
            let left = deadline.saturating_duration_since(Instant::now());
            if wait >= left {
                return Err(error);
            }
            tracing::debug!(
                operation = call.operation,
                sent,
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                %error,
                "a SnapTrade call failed and is sent again"
            );
            self.shared.clock.sleep(wait).await;
        }
    }

    async fn credentials(
        &self,
        call: &Call<'_>,
        deadline: Instant,
    ) -> Result<Option<Arc<Credentials>>, Error> {
        if !call.signed {
            return Ok(None);
        }
        let unavailable = |reason| {
            Error::new(
                call.operation,
                ErrorKind::CredentialsUnavailable,
                Outcome::Refused,
            )
            .with_reason(reason)
        };
        match timeout_at(deadline, self.shared.credentials.get()).await {
            Ok(Ok(credentials)) => Ok(Some(credentials)),
            Ok(Err(error)) => Err(unavailable(error.to_string())),
            Err(_) => Err(unavailable("they did not arrive in time".to_owned())),
        }
    }

    /// Sends a call once.
    async fn send<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<T, Error> {
        let now = Instant::now();
        let deadline = now
            .checked_add(self.policy.timeout)
            .unwrap_or(deadline)
            .min(deadline);
        let gate = self.shared.gate.as_ref().filter(|_| call.signed);
        if let Some(gate) = gate
            && let Err(wait) = gate.admit().await
        {
            let kind = ErrorKind::RateLimited {
                retry_after: Some(wait),
            };
            return Err(Error::new(call.operation, kind, Outcome::Refused));
        }
        let now = Instant::now();
        // What is signed carries the time, so the request is made when it may be sent.
        let request = self.request(call, credentials)?;
        count_call(Service::SnapTrade);
        if let Some(counter) = &self.counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let mut said = None;
        let answer = self
            .exchange(call, credentials, request, deadline, &mut said)
            .await;
        if let Some(gate) = gate {
            gate.answered(said);
        }
        metrics::call_ended(Service::SnapTrade, end(&answer), now.elapsed());
        answer
    }

    /// Sends a request and reads the answer.
    async fn exchange<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        credentials: Option<&Credentials>,
        request: reqwest::Request,
        deadline: Instant,
        said: &mut Option<RateLimit>,
    ) -> Result<T, Error> {
        let secrets = secrets_of(call, credentials);
        let sending = self.shared.http.execute(request);
        let mut response = match timeout_at(deadline, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(unsent(call.operation, &error)),
            Err(_) => return Err(Error::new(call.operation, ErrorKind::Timeout, Outcome::Unknown)),
        };
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        *said = self.note_rate_limit(&headers);
        if !(200..300).contains(&status) {
            // The status alone tells most, so a body that does not arrive is taken for an empty one.
            let body = match timeout_at(deadline, read(&mut response, ERROR_BYTES)).await {
                Ok(Body::Whole(body) | Body::TooLong(body)) => body,
                Ok(Body::Broken) | Err(_) => Vec::new(),
            };
            let asked = Asked {
                operation: call.operation,
                names: call.names,
                secrets: &secrets,
            };
            return Err(answer::error(asked, status, &headers, &body, Timestamp::now()));
        }
        match timeout_at(deadline, read(&mut response, ANSWER_BYTES)).await {
            Ok(Body::Whole(body)) => serde_json::from_slice(&body).map_err(|error| {
                // The parser's own words may quote the answer, and an answer may hold a secret.
                let reason = format!(
                    "not what was expected at line {}, column {} of {} bytes",
                    error.line(),
                    error.column(),
                    body.len()
                );
                answer::malformed(call.operation, status, &headers, reason)
            }),
            Ok(Body::TooLong(_)) => {
                let reason = format!("longer than {ANSWER_BYTES} bytes");
                Err(answer::malformed(call.operation, status, &headers, reason))
            }
            Ok(Body::Broken) => Err(Error::new(
                call.operation,
                ErrorKind::Unreachable,
                Outcome::Unknown,
            )),
            Err(_) => Err(Error::new(call.operation, ErrorKind::Timeout, Outcome::Unknown)),
        }
    }

    /// The request of a call, signed. What is signed is what is sent: the path and query are built once, here, and the
    /// body is sent in the form it is signed in.
    fn request(&self, call: &Call<'_>, credentials: Option<&Credentials>) -> Result<reqwest::Request, Error> {
        let invalid = |reason: &str| {
            Error::new(call.operation, ErrorKind::Invalid, Outcome::Refused).with_reason(reason.to_owned())
        };
        let base_url = &self.shared.base_url;
        let own_path = call
            .path
            .as_deref()
            .ok_or_else(|| invalid("an id in the path is empty or made of dots"))?;
        let path = format!("{}{own_path}", base_url.path());
        let query = query(call, credentials, Timestamp::now());
        let separator = if query.is_empty() { "" } else { "?" };
        let url = reqwest::Url::parse(&format!("{}{path}{separator}{query}", base_url.origin()))
            .map_err(|_| invalid("the address cannot be formed"))?;
        let mut request = reqwest::Request::new(call.method.clone(), url);
        if let Some(credentials) = credentials {
            let signature = signature::sign(&credentials.consumer_key, call.body.as_ref(), &path, &query);
            let mut value = reqwest::header::HeaderValue::from_str(&signature)
                .map_err(|_| invalid("the signature cannot be sent"))?;
            value.set_sensitive(true);
            request
                .headers_mut()
                .insert(HeaderName::from_static("signature"), value);
        }
        if let Some(body) = &call.body {
            *request.body_mut() = Some(signature::canonical_json(body).into());
            let json = reqwest::header::HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
        }
        Ok(request)
    }

    /// Remembers what an answer says of the rate limit, where it says anything.
    fn note_rate_limit(&self, headers: &HeaderMap) -> Option<RateLimit> {
        let number = |name| answer::header(headers, name).and_then(|text| text.parse::<u32>().ok());
        let rate_limit = RateLimit {
            limit: number("x-ratelimit-limit"),
            remaining: number("x-ratelimit-remaining"),
            reset: number("x-ratelimit-reset").map(|seconds| Duration::from_secs(seconds.into())),
            observed_at: self.shared.clock.now(),
        };
        if let (Some(limit @ 1..), Some(remaining)) = (rate_limit.limit, rate_limit.remaining) {
            let used = f64::from(limit.saturating_sub(remaining)) / f64::from(limit);
            metrics::sample(Metric::RateLimitUse, used * 100.0);
        }
        if rate_limit.limit.is_none() && rate_limit.remaining.is_none() {
            return None;
        }
        *self
            .shared
            .rate_limit
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(rate_limit);
        Some(rate_limit)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.shared.base_url.as_str())
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// How a call has ended. A refusal of what was asked for is an answer like any other.
fn end<T>(answer: &Result<T, Error>) -> CallEnd {
    let Err(error) = answer else {
        return CallEnd::Answered;
    };
    match error.kind {
        ErrorKind::Authentication | ErrorKind::Signature => CallEnd::Unauthorized,
        ErrorKind::UserSecretRejected => CallEnd::SecretRejected,
        ErrorKind::RateLimited { .. } => CallEnd::Throttled,
        ErrorKind::Timeout => CallEnd::TimedOut,
        ErrorKind::Outage | ErrorKind::Unreachable | ErrorKind::Malformed => CallEnd::Failed,
        _ => CallEnd::Answered,
    }
}

/// The query string as it is sent and signed.
fn query(call: &Call<'_>, credentials: Option<&Credentials>, now: Timestamp) -> String {
    let mut query = String::new();
    if let Some(credentials) = credentials {
        query.push_str("clientId=");
        query.extend(utf8_percent_encode(&credentials.client_id, ENCODED));
        query.push_str("&timestamp=");
        query.push_str(&now.as_second().to_string());
    }
    if let Some(user) = call.user {
        query.push_str("&userId=");
        query.extend(utf8_percent_encode(user.user_id.as_str(), ENCODED));
        query.push_str("&userSecret=");
        query.extend(utf8_percent_encode(user.user_secret.expose(), ENCODED));
    }
    query.push_str(&call.query);
    match query.strip_prefix('&') {
        Some(rest) => rest.to_owned(),
        None => query,
    }
}

fn secrets_of<'a>(call: &Call<'a>, credentials: Option<&'a Credentials>) -> Vec<&'a str> {
    let mut secrets = call.secrets.clone();
    secrets.extend(call.user.map(|user| user.user_secret.expose()));
    secrets.extend(credentials.map(|credentials| credentials.consumer_key.expose_secret()));
    secrets
}

/// The error of a call that got no answer. Nothing of the HTTP client's own error is kept: it shows the address, and
/// the address holds the user's secret.
fn unsent(operation: &'static str, error: &reqwest::Error) -> Error {
    if error.is_connect() {
        Error::new(operation, ErrorKind::Unreachable, Outcome::Refused)
    } else if error.is_timeout() {
        Error::new(operation, ErrorKind::Timeout, Outcome::Unknown)
    } else if error.is_builder() {
        Error::new(operation, ErrorKind::Invalid, Outcome::Refused)
    } else {
        Error::new(operation, ErrorKind::Unreachable, Outcome::Unknown)
    }
}

/// How much of a body arrived.
enum Body {
    Whole(Vec<u8>),
    TooLong(Vec<u8>),
    Broken,
}

async fn read(response: &mut Response, limit: usize) -> Body {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Body::Whole(body),
            Ok(Some(chunk)) => {
                body.extend_from_slice(&chunk);
                if body.len() > limit {
                    body.truncate(limit);
                    return Body::TooLong(body);
                }
            }
            Err(_) => return Body::Broken,
        }
    }
}

/// Whether the same call may succeed in a moment.
fn is_transient(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::RateLimited { .. }
            | ErrorKind::Outage
            | ErrorKind::Timeout
            | ErrorKind::Unreachable
            | ErrorKind::Malformed
    )
}

/// How long to wait after `sent` sendings: as long as SnapTrade asks for and a little more, so that not everybody comes
/// back at once, else anything up to a bound that doubles each time. `random` is evenly spread over its range.
fn wait(sent: u32, asked: Option<Duration>, random: u32) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(sent.saturating_sub(1)));
    let bound = if asked.is_some() {
        FIRST_WAIT
    } else {
        doubled.min(LONGEST_WAIT)
    };
    let part = f64::from(random) / f64::from(u32::MAX);
    asked.unwrap_or_default().saturating_add(bound.mul_f64(part))
}

fn random() -> u32 {
    // Without randomness the longest wait is as good as any.
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;
    use secrecy::SecretString;
    use tokio::net::TcpListener;

    use super::super::LoginRequest;
    use super::super::test_server::{Act, KEY, Server, USER_SECRET, ada, client, ok, verified};
    use super::*;
    use crate::telemetry::{Invocation, in_invocation};

    #[tokio::test]
    async fn what_is_sent_is_what_is_signed_with_the_base_urls_path_included() {
        let server = Server::start(vec![ok(
            r#"{"redirectURI":"https://portal.example/x","sessionId":"s"}"#,
        )])
        .await;
        let request = LoginRequest {
            custom_redirect: Some("https://app.example/ü?a=1&b='".to_owned()),
            dark_mode: Some(true),
            ..LoginRequest::default()
        };
        server
            .client_below("/api/v1")
            .login(&ada(), &request)
            .await
            .unwrap();
        server
            .client()
            .login(&ada(), &LoginRequest::default())
            .await
            .unwrap();
        let [prefixed, plain] = &server.arrived()[..] else {
            panic!()
        };
        assert_eq!(
            (prefixed.method.as_str(), prefixed.path.as_str()),
            ("POST", "/api/v1/snapTrade/login")
        );
        assert_eq!(plain.path, "/snapTrade/login");
        assert!(verified(prefixed) && verified(plain));
        assert!(prefixed.body.is_ascii(), "{}", prefixed.body);
        assert_eq!(plain.body, "");
        let (before, after) = prefixed.query.split_once("&userId=").unwrap();
        assert_eq!(after, "ada%7C1~abc&userSecret=user%20secret%2Fin%20test");
        let timestamp = before.strip_prefix("clientId=CLIENT%201&timestamp=").unwrap();
        let age = Timestamp::now().as_second() - timestamp.parse::<i64>().unwrap();
        assert!((0..10).contains(&age), "{timestamp}");
    }

    #[tokio::test]
    async fn a_call_that_must_not_happen_twice_is_sent_once_and_says_what_is_known() {
        for (act, kind, outcome) in [
            (Act::Drop, ErrorKind::Unreachable, Outcome::Unknown),
            (ok("<html>"), ErrorKind::Malformed, Outcome::Unknown),
            (ok(r#"{"userId":"ada"}"#), ErrorKind::Malformed, Outcome::Unknown),
            (
                Act::Answer(502, "", "<html>bad</html>".to_owned()),
                ErrorKind::Outage,
                Outcome::Unknown,
            ),
            (
                Act::Answer(500, "", r#"{"detail":"x","code":"1000"}"#.to_owned()),
                ErrorKind::Outage,
                Outcome::Unknown,
            ),
            (
                Act::Answer(302, "location: /elsewhere\r\n", String::new()),
                ErrorKind::Malformed,
                Outcome::Unknown,
            ),
            (
                Act::Raw(b"not http at all\r\n\r\n"),
                ErrorKind::Unreachable,
                Outcome::Unknown,
            ),
            (
                Act::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{"),
                ErrorKind::Unreachable,
                Outcome::Unknown,
            ),
            (
                Act::Answer(429, "retry-after: 1\r\n", String::new()),
                ErrorKind::RateLimited {
                    retry_after: Some(Duration::from_secs(1)),
                },
                Outcome::Refused,
            ),
            (
                Act::Answer(400, "", r#"{"detail":"x","code":"1010"}"#.to_owned()),
                ErrorKind::UserExists,
                Outcome::Refused,
            ),
        ] {
            let server = Server::start(vec![act.clone()]).await;
            let error = server.client().register_user(&ada().user_id).await.unwrap_err();
            assert_eq!(
                (&error.kind, error.outcome()),
                (&kind, outcome),
                "{act:?}: {error}"
            );
            assert_eq!(server.arrived().len(), 1, "{act:?}");
        }
    }

    #[tokio::test]
    async fn a_reading_call_is_sent_again_until_it_is_answered() {
        for act in [
            Act::Drop,
            ok("garbage"),
            Act::Answer(503, "", r#"{"detail":"busy","code":"3002"}"#.to_owned()),
            Act::Answer(429, "retry-after: 0\r\n", String::new()),
        ] {
            let server = Server::start(vec![act.clone(), act.clone(), ok(r#"["ada","grace"]"#)]).await;
            let invocation = Invocation {
                request_id: "r".to_owned(),
                correlation_id: "c".to_owned(),
                function: "test",
                cold_start: false,
            };
            let client = server.client();
            let (users, calls) = in_invocation(invocation, client.list_users()).await;
            assert_eq!(users.unwrap().len(), 2, "{act:?}");
            assert_eq!((server.arrived().len(), calls.snaptrade), (3, 3), "{act:?}");
            assert!(server.arrived().iter().all(verified));
        }
        let server = Server::start(vec![Act::Drop]).await;
        assert!(server.client().delete_user(&ada().user_id).await.is_err());
        assert_eq!(server.arrived().len(), 3);
    }

    #[tokio::test]
    async fn what_will_not_change_is_not_asked_for_again() {
        for status in [400, 401, 402, 403, 404, 410, 425, 501] {
            let server = Server::start(vec![Act::Answer(status, "", "{}".to_owned())]).await;
            server.client().list_users().await.unwrap_err();
            assert_eq!(server.arrived().len(), 1, "{status}");
        }
    }

    #[tokio::test]
    async fn a_handle_for_one_sending_sends_once() {
        let server = Server::start(vec![Act::Drop]).await;
        server.client().once().list_users().await.unwrap_err();
        assert_eq!(server.arrived().len(), 1);
    }

    #[tokio::test]
    async fn no_call_takes_longer_than_it_may() {
        let short = Duration::from_millis(150);
        for act in [Act::Hang, Act::HangInBody(200)] {
            let server = Server::start(vec![act.clone()]).await;
            let started = Instant::now();
            let client = server.client().once().with_timeout(short);
            let error = client.register_user(&ada().user_id).await.unwrap_err();
            assert_eq!(
                (error.kind, error.outcome()),
                (ErrorKind::Timeout, Outcome::Unknown),
                "{act:?}"
            );
            assert!(started.elapsed() < short * 8, "{act:?}");

            let started = Instant::now();
            let client = server.client().with_deadline(Instant::now() + short);
            assert_eq!(
                client.list_users().await.unwrap_err().kind,
                ErrorKind::Timeout,
                "{act:?}"
            );
            assert!(started.elapsed() < short * 8, "{act:?}");
        }
        let server = Server::start(vec![Act::HangInBody(404)]).await;
        let client = server.client().once().with_timeout(short);
        let error = client.delete_user(&ada().user_id).await.unwrap_err();
        assert_eq!(
            (error.kind, error.outcome()),
            (ErrorKind::NotFound, Outcome::Refused)
        );
    }

    #[tokio::test]
    async fn a_wait_that_does_not_fit_is_not_begun() {
        let server = Server::start(vec![Act::Answer(429, "retry-after: 60\r\n", String::new())]).await;
        let started = Instant::now();
        let error = server.client().list_users().await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(server.arrived().len(), 1);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_was_certainly_not_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let credentials = Credentials {
            client_id: "C".to_owned(),
            consumer_key: SecretString::from(KEY),
        };
        let error = client(&url, Cached::fixed(credentials))
            .register_user(&ada().user_id)
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind, error.outcome()),
            (ErrorKind::Unreachable, Outcome::Refused)
        );
    }

    #[tokio::test]
    async fn no_error_shows_a_secret_or_an_address() {
        let echo = format!(r#"{{"detail":"{USER_SECRET} and {KEY}","code":"1000"}}"#);
        for act in [
            Act::Drop,
            Act::Hang,
            ok(&format!(r#"{{"redirectURI":{{"{USER_SECRET}":"{KEY}"}}}}"#)),
            Act::Answer(500, "", echo.clone()),
            Act::Answer(401, "", echo.replace("1000", "1083")),
        ] {
            let server = Server::start(vec![act.clone()]).await;
            let client = server.client().once().with_timeout(Duration::from_millis(300));
            let errors = [
                client.login(&ada(), &LoginRequest::default()).await.unwrap_err(),
                client.reset_user_secret(&ada()).await.unwrap_err(),
            ];
            for error in errors {
                let shown = format!("{error} {error:?} {client:?} {:?}", ada());
                for hidden in [USER_SECRET, "user%20secret", KEY, "userSecret", "127.0.0.1:"] {
                    let shown = shown.replace(&server.url, "");
                    assert!(!shown.contains(hidden), "{hidden} in {shown}");
                }
            }
        }
    }

    #[tokio::test]
    async fn an_error_names_the_operation_and_snaptrades_request_id() {
        let server = Server::start(vec![Act::Answer(
            404,
            "",
            r#"{"detail":"gone","code":1011}"#.to_owned(),
        )])
        .await;
        let error = server.client().delete_user(&ada().user_id).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "Authentication_deleteSnapTradeUser: SnapTrade knows no such thing (status 404, code 1011, request req-1): gone"
        );
    }

    fn credentials_that_change(keys: &'static [&'static str]) -> (Cached<Credentials>, Arc<AtomicUsize>) {
        let loads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&loads);
        let loader = Box::new(move || {
            let index = counted.fetch_add(1, Ordering::Relaxed).min(keys.len() - 1);
            let credentials = Credentials {
                client_id: "C".to_owned(),
                consumer_key: SecretString::from(keys[index]),
            };
            let loading: std::pin::Pin<Box<dyn Future<Output = _> + Send>> =
                Box::pin(async move { Ok(credentials) });
            loading
        });
        (Cached::new(Clock::system(), loader), loads)
    }

    #[tokio::test]
    async fn credentials_that_are_refused_are_read_anew_and_tried_once_more_if_they_changed() {
        let refusal = || {
            Act::Answer(
                401,
                "",
                r#"{"detail":"Unable to verify signature sent","code":"1076"}"#.to_owned(),
            )
        };
        let registered = ok(r#"{"userId":"ada","userSecret":"s"}"#);

        let server = Server::start(vec![refusal(), registered.clone()]).await;
        let (credentials, loads) = credentials_that_change(&["old", KEY]);
        let client = client(&server.url, credentials);
        client.once().register_user(&ada().user_id).await.unwrap();
        assert_eq!(loads.load(Ordering::Relaxed), 2);
        assert_eq!(server.arrived().len(), 2);
        assert!(!verified(&server.arrived()[0]) && verified(&server.arrived()[1]));

        let server = Server::start(vec![refusal()]).await;
        let (credentials, loads) = credentials_that_change(&["same"]);
        let client = super::super::test_server::client(&server.url, credentials);
        assert_eq!(client.list_users().await.unwrap_err().kind, ErrorKind::Signature);
        assert_eq!((server.arrived().len(), loads.load(Ordering::Relaxed)), (1, 2));

        let server = Server::start(vec![refusal()]).await;
        let (credentials, _) = credentials_that_change(&["a", "b", "c", "d"]);
        let client = super::super::test_server::client(&server.url, credentials);
        assert_eq!(client.list_users().await.unwrap_err().kind, ErrorKind::Signature);
        assert_eq!(server.arrived().len(), 2);
    }

    #[tokio::test]
    async fn a_users_refused_secret_leaves_our_credentials_alone() {
        let refusal = r#"{"detail":"Invalid userID or userSecret provided","code":"1083"}"#.to_owned();
        let server = Server::start(vec![Act::Answer(401, "", refusal)]).await;
        let (credentials, loads) = credentials_that_change(&["a", "b"]);
        let client = client(&server.url, credentials);
        let error = client.list_accounts(&ada()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::UserSecretRejected);
        assert_eq!((server.arrived().len(), loads.load(Ordering::Relaxed)), (1, 1));
    }

    #[tokio::test]
    async fn an_id_that_would_change_the_path_is_not_sent() {
        let server = Server::start(vec![ok("{}")]).await;
        for id in ["", ".", ".."] {
            let error = server.client().symbol(id).await.unwrap_err();
            assert_eq!(
                (&error.kind, error.outcome()),
                (&ErrorKind::Invalid, Outcome::Refused),
                "{id:?}"
            );
        }
        assert!(server.arrived().is_empty());
    }

    #[tokio::test]
    async fn the_rate_limit_is_remembered() {
        let headers = "x-ratelimit-limit: 250\r\nx-ratelimit-remaining: 249\r\nx-ratelimit-reset: 30\r\n";
        let server = Server::start(vec![Act::Answer(200, headers, "[]".to_owned()), ok("[]")]).await;
        let client = server.client();
        assert_eq!(client.rate_limit(), None);
        client.list_users().await.unwrap();
        client.once().list_users().await.unwrap();
        let limit = client.rate_limit().unwrap();
        assert_eq!(
            (limit.limit, limit.remaining, limit.reset),
            (Some(250), Some(249), Some(Duration::from_secs(30)))
        );
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off() {
        let server = Server::start(vec![ok(&format!("[\"{}\"]", "x".repeat(ANSWER_BYTES)))]).await;
        let error = server.client().once().list_users().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Malformed);
    }

    #[test]
    fn waits_grow_and_are_spread_and_what_snaptrade_asks_for_is_the_least() {
        assert_eq!(wait(1, None, 0), Duration::ZERO);
        assert_eq!(wait(1, None, u32::MAX), FIRST_WAIT);
        assert_eq!(wait(3, None, u32::MAX), FIRST_WAIT * 4);
        assert_eq!(wait(200, None, u32::MAX), LONGEST_WAIT);
        let asked = Duration::from_secs(7);
        assert_eq!(wait(2, Some(asked), 0), asked);
        assert_eq!(wait(2, Some(asked), u32::MAX), asked + FIRST_WAIT);
    }

    proptest! {
        #[test]
        fn the_address_that_goes_out_is_the_one_that_was_signed(id in "\\PC{1,40}", value in "\\PC{0,40}") {
            prop_assume!(id != "." && id != "..");
            let credentials = Credentials {
                client_id: value.clone(),
                consumer_key: SecretString::from(KEY),
            };
            let client = client("http://127.0.0.1:9/api/v1", Cached::fixed(credentials.clone()));
            let call = Call::get("test").path("/a/").segment(&id).path("/b").param("p", &value);
            let request = client.request(&call, Some(&credentials)).unwrap();
            let (url, headers) = (request.url(), request.headers());
            let signature = headers.get("signature").unwrap().to_str().unwrap();
            let key = &credentials.consumer_key;
            prop_assert!(signature::verify(key, None, url.path(), url.query().unwrap(), signature));
        }
    }
}
