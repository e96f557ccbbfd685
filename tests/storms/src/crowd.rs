//! Those who call the API: what they ask, what they are answered, and what an answer may be.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::site::{Site, Urls};

/// The longest that API Gateway waits for an answer.
pub const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// A request and what came of it.
#[derive(Debug, Clone)]
pub struct Request {
    /// What was asked.
    pub asked: &'static str,
    /// For or about whom.
    pub user: String,
    /// The answer; none where the process was killed meanwhile.
    pub answer: Option<Answer>,
    /// How long it took.
    pub took: Duration,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Value,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
}

impl Answer {
    /// The problem's code; empty where it is none.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// The callers, and a record of all that was said.
pub struct Crowd {
    http: reqwest::Client,
    requests: Mutex<Vec<Request>>,
    faults: Mutex<Vec<String>>,
}

impl Crowd {
    /// A crowd that has said nothing yet.
    pub fn new(http: reqwest::Client) -> Self {
        Self {
            http,
            requests: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    /// All that was said.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// What was answered that may not be.
    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap().clone()
    }

    /// Registers a user.
    pub async fn register(&self, site: &Site, user: &str) -> Option<Answer> {
        let token = format!("dev:{}", encoded(user));
        let path = "/api/snaptrade/register";
        self.send(site, "register", user, Method::POST, path, &token, json!({}))
            .await
    }

    /// Asks for a link to the portal.
    pub async fn connection_url(&self, site: &Site, user: &str) -> Option<Answer> {
        let token = format!("dev:{}", encoded(user));
        let path = "/api/snaptrade/connection-url";
        self.send(
            site,
            "connection-url",
            user,
            Method::POST,
            path,
            &token,
            json!({}),
        )
        .await
    }

    /// Asks what came of the last visit to the portal, which takes the user's secret and no place.
    pub async fn callback(&self, site: &Site, user: &str) -> Option<Answer> {
        let token = format!("dev:{}", encoded(user));
        let path = "/api/snaptrade/callback";
        self.send(site, "callback", user, Method::POST, path, &token, json!({}))
            .await
    }

    /// Runs a sync, as an operator.
    pub async fn sync(&self, site: &Site) -> Option<Answer> {
        let path = "/api/snaptrade/sync";
        self.send(site, "sync", "", Method::POST, path, OPERATOR, json!({}))
            .await
    }

    /// Protects a user, or ends that, as an operator.
    pub async fn protect(&self, site: &Site, user: &str, protected: bool) -> Option<Answer> {
        let path = format!("/api/snaptrade/users/{}", encoded(user));
        let change = json!({"protected": protected});
        self.send(site, "protect", user, Method::PATCH, &path, OPERATOR, change)
            .await
    }

    /// Lists the tracked users, as an operator.
    pub async fn users(&self, site: &Site) -> Option<Answer> {
        let path = "/api/snaptrade/users?limit=500";
        self.send(site, "users", "", Method::GET, path, OPERATOR, Value::Null)
            .await
    }

    /// How the limit stands, as an operator.
    pub async fn status(&self, site: &Site) -> Option<Answer> {
        let path = "/api/snaptrade/status";
        self.send(site, "status", "", Method::GET, path, OPERATOR, Value::Null)
            .await
    }

    #[expect(clippy::too_many_arguments, reason = "a request has so many parts")]
    async fn send(
        &self,
        site: &Site,
        asked: &'static str,
        user: &str,
        method: Method,
        path: &str,
        token: &str,
        body: Value,
    ) -> Option<Answer> {
        let urls = site.urls().await;
        let mut request = self
            .http
            .request(method, format!("{}{path}", urls.api))
            .bearer_auth(token)
            .timeout(PATIENCE);
        if !body.is_null() {
            request = request.json(&body);
        }
        let started = Instant::now();
        let answer = receive(request).await;
        let took = started.elapsed();
        let answer = match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.check_failure(site, &urls, asked, took, &error).await;
                None
            }
        };
        if let Some(answer) = &answer {
            self.check_answer(asked, user, answer, took);
        }
        self.requests.lock().unwrap().push(Request {
            asked,
            user: user.to_owned(),
            answer: answer.clone(),
            took,
        });
        answer
    }

    /// Only a process that was killed gives no answer.
    async fn check_failure(&self, site: &Site, urls: &Urls, asked: &str, took: Duration, error: &str) {
        // The connection breaks a moment before the one who kills has said so.
        tokio::time::sleep(Duration::from_millis(200)).await;
        if site.is_at(urls) {
            self.fault(format!(
                "{asked} was not answered after {took:?} though nobody was killed: {error}"
            ));
        }
    }

    fn check_answer(&self, asked: &str, user: &str, answer: &Answer, took: Duration) {
        let shown = || {
            format!(
                "{asked} {user} was answered {} {} after {took:?}",
                answer.status, answer.body
            )
        };
        if took > ANSWERED_WITHIN {
            self.fault(format!("too late: {}", shown()));
        }
        if !may_answer(asked, answer) {
            self.fault(format!("not to be expected: {}", shown()));
        }
        let waiting_helps = [
            "rate_limited",
            "deletion_pending",
            "unavailable",
            "operation_in_progress",
        ];
        if waiting_helps.contains(&answer.code()) && answer.retry_after.is_none() {
            self.fault(format!("without Retry-After: {}", shown()));
        }
    }

    fn fault(&self, fault: String) {
        eprintln!("  FAULT {fault}");
        self.faults.lock().unwrap().push(fault);
    }
}

/// The token of an operator.
const OPERATOR: &str = "dev:olga:operator";

async fn receive(request: reqwest::RequestBuilder) -> Result<Answer, String> {
    let response = request.send().await.map_err(|error| error.to_string())?;
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let status = response.status().as_u16();
    let retry_after = header("retry-after").and_then(|seconds| seconds.parse().ok());
    let text = response.text().await.map_err(|error| error.to_string())?;
    Ok(Answer {
        status,
        body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        retry_after,
    })
}

/// Whether the contract allows this answer to this question in a storm.
fn may_answer(asked: &str, answer: &Answer) -> bool {
    let of_snaptrade = matches!(
        (answer.status, answer.code()),
        (502, "upstream_error") | (504, "upstream_timeout") | (429, "rate_limited") | (503, "unavailable")
    );
    of_snaptrade
        || match asked {
            "register" => matches!(
                (answer.status, answer.code()),
                (200 | 201, "")
                    | (409, "connection_limit_reached" | "operation_in_progress")
                    | (503, "deletion_pending")
            ),
            "connection-url" => matches!(
                (answer.status, answer.code()),
                (200, "")
                    | (409, "connection_limit_reached" | "operation_in_progress")
                    | (503, "deletion_pending")
            ),
            "sync" => matches!(
                (answer.status, answer.code()),
                (200, "") | (409, "operation_in_progress")
            ),
            // Who was listed a moment ago may have given way.
            "protect" => matches!(
                (answer.status, answer.code()),
                (200, "") | (404, "not_found") | (409, "operation_in_progress")
            ),
            _ => answer.status == 200,
        }
}

/// An id as it stands in a path or a token.
fn encoded(id: &str) -> String {
    id.replace('%', "%25").replace('@', "%40").replace(':', "%3A")
}
