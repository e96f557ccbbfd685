//! What a command acts on: the local stack that runs, the local stack's data, or a deployed stack.

use std::path::Path;
use std::time::Duration;

use berth::app::{AwsAccess, aws};
use berth::config::BaseUrl;
use berth::snaptrade::{HttpClientError, http_client};
use berth_local::{Announcement, Data, Options, Settings, Stack, StartError, Urls};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::Method;
use serde_json::Value;

use crate::Global;
use crate::deployed::{Deployed, DeployedError};

/// Whom the commands act as, in the audit trail, too.
pub(crate) const OPERATOR: &str = "berth-command";

/// What they call with. Only the local gateway understands this token.
const OPERATOR_TOKEN: &str = "dev:berth-command:operator";

/// The routes that the commands call without a token where it is deployed: whoever may not call the others can still see
/// how it is.
const OPEN_ROUTES: [&str; 2] = ["/health", "/api/snaptrade/webhook"];

/// How long a stack that has said where it is may take to prove it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one call may take: longer than the gateway lets any function run.
const CALL_TIMEOUT: Duration = Duration::from_secs(35);

/// How often, and how long apart, data is asked for that another command is just using.
const TRIES_FOR_DATA: u32 = 20;
const WAIT_FOR_DATA: Duration = Duration::from_millis(250);

/// What a command acts on.
pub(crate) struct Target {
    name: String,
    client: reqwest::Client,
    place: Place,
}

/// Where a target is.
enum Place {
    /// On this machine.
    Local {
        urls: Urls,
        /// The stack that was started for this command alone.
        own: Option<Box<Stack>>,
    },
    /// In AWS.
    Deployed(Box<Deployed>),
}

/// Why there is nothing to act on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// A deployed stack was named and is not found.
    #[error(transparent)]
    Deployed(#[from] DeployedError),
    /// The local data cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The HTTP client could not be built.
    #[error("this machine cannot make calls: {0}")]
    Client(#[from] HttpClientError),
}

/// Why a call was not answered as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The API refused or failed; its problem answer, or what else it said.
    #[error("{}", in_words(*.status, .answer))]
    Answered {
        /// The answer's status.
        status: u16,
        /// Its body; null where that is no JSON.
        answer: Value,
    },
    /// There was no answer.
    #[error("the API did not answer ({0}): see whether the stack still runs")]
    NoAnswer(String),
    /// A deployed API wants a token and none is given.
    #[error("the API of a deployed stack is called with an operator's token: set BERTH_TOKEN to one")]
    NoToken,
    /// The command needs what only a local stack has.
    #[error("a deployed stack cannot do this: {0}")]
    OnlyLocal(&'static str),
}

impl Target {
    /// Finds what to act on: the stack that runs on the data directory, else a stack started on its data for this
    /// command alone.
    ///
    /// # Errors
    /// [`TargetError`] says what to do.
    pub(crate) async fn find(global: &Global) -> Result<Self, TargetError> {
        let client = http_client()?;
        if let Some(name) = global.stack.as_deref().filter(|name| !name.is_empty()) {
            let deployed = Deployed::find(name, client.clone(), &|name| std::env::var(name).ok()).await?;
            return Ok(Self {
                name: format!("the deployed stack {} at {}", deployed.name(), deployed.api()),
                client,
                place: Place::Deployed(Box::new(deployed)),
            });
        }
        let directory = global.data_directory();
        let mut tries = 1;
        loop {
            if let Some(target) = Self::at(&client, &directory).await {
                return Ok(target);
            }
            let options = Options {
                data: Data::Directory(directory.clone()),
                settings: Settings::read(&global.environment_file())?,
                ..Options::default()
            };
            match Stack::start(options).await {
                Ok(stack) => {
                    let name = format!("the local stack's data in {}/", directory.display());
                    let place = Place::Local {
                        urls: stack.urls().clone(),
                        own: Some(Box::new(stack)),
                    };
                    return Ok(Self { name, client, place });
                }
                // Another command works on the data, or a stack is just starting.
                Err(StartError::AlreadyRunning { .. }) if tries < TRIES_FOR_DATA => {
                    tries += 1;
                    tokio::time::sleep(WAIT_FOR_DATA).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The local stack that runs just now, if one does.
    pub(crate) async fn running(global: &Global) -> Option<Self> {
        Self::at(&http_client().ok()?, &global.data_directory()).await
    }

    /// The stack that runs on `directory`, if one does.
    async fn at(client: &reqwest::Client, directory: &Path) -> Option<Self> {
        let urls = running(client, directory).await?;
        let name = format!("the local stack at {}", urls.api);
        Some(Self {
            name,
            client: client.clone(),
            place: Place::Local { urls, own: None },
        })
    }

    /// What it is, as confirmations name it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where its parts answer; `None` for a deployed stack.
    pub(crate) fn urls(&self) -> Option<&Urls> {
        match &self.place {
            Place::Local { urls, .. } => Some(urls),
            Place::Deployed(_) => None,
        }
    }

    /// The deployed stack that it is; `None` for a local one.
    pub(crate) fn deployed(&self) -> Option<&Deployed> {
        match &self.place {
            Place::Local { .. } => None,
            Place::Deployed(deployed) => Some(deployed),
        }
    }

    /// Where its API is.
    fn api(&self) -> &str {
        match &self.place {
            Place::Local { urls, .. } => &urls.api,
            Place::Deployed(deployed) => deployed.api(),
        }
    }

    /// A client of its table.
    ///
    /// # Errors
    /// Says what is wrong with the table's address.
    pub(crate) fn dynamodb(&self) -> Result<aws_sdk_dynamodb::Client, String> {
        match &self.place {
            Place::Local { urls, .. } => {
                let endpoint = BaseUrl::parse(&urls.dynamodb)
                    .map_err(|_| format!("{} is no address of a DynamoDB", urls.dynamodb))?;
                let access = AwsAccess::local(OPERATOR);
                let client = self.client.clone();
                Ok(aws::dynamodb(&access, client, Some(&endpoint), "command"))
            }
            Place::Deployed(deployed) => Ok(deployed.dynamodb()),
        }
    }

    /// The client that calls are made with.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.client
    }

    /// Whether a page of `origin` is let in by the API.
    pub(crate) async fn may_call(&self, origin: &str) -> bool {
        let asked = self
            .client
            .request(Method::OPTIONS, format!("{}/api/snaptrade/status", self.api()))
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "GET")
            .timeout(CALL_TIMEOUT)
            .send()
            .await;
        asked.is_ok_and(|answer| {
            answer
                .headers()
                .get("access-control-allow-origin")
                .is_some_and(|allowed| allowed == origin)
        })
    }

    /// The time by the target's clock, which can be moved on the local stack.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn now(&self) -> Result<Timestamp, CallError> {
        if let Place::Deployed(deployed) = &self.place {
            return self.dated(deployed.api()).await;
        }
        let clock = self.get("/__local/clock").await?;
        let now = clock.get("now").and_then(Value::as_str);
        now.and_then(|now| now.parse().ok())
            .ok_or_else(|| CallError::NoAnswer("it did not tell the time".to_owned()))
    }

    /// The time by the header `Date` of what a deployed API answers, to the second.
    async fn dated(&self, api: &str) -> Result<Timestamp, CallError> {
        let sent = self.client.get(format!("{api}/")).timeout(CALL_TIMEOUT).send();
        let answer = sent
            .await
            .map_err(|error| CallError::NoAnswer(error.without_url().to_string()))?;
        let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| rfc2822::parse(date).ok());
        let date = date.ok_or_else(|| CallError::NoAnswer("it did not tell the time".to_owned()))?;
        Ok(date.timestamp())
    }

    /// The settings that the target works with, without what is secret.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn settings(&self) -> Result<Value, CallError> {
        if let Place::Deployed(deployed) = &self.place {
            return Ok(deployed.settings().await);
        }
        self.get("/__local/settings").await
    }

    /// Calls `GET` on a route of the API, as an operator.
    ///
    /// # Errors
    /// [`CallError`] for every answer but a success.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, CallError> {
        self.call(Method::GET, path, None).await
    }

    /// Calls `POST` on a route of the API, as an operator.
    ///
    /// # Errors
    /// [`CallError`] for every answer but a success.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Calls a route of the API, as an operator.
    ///
    /// # Errors
    /// [`CallError`] for every answer but a success.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, CallError> {
        let no_answer = |error: reqwest::Error| CallError::NoAnswer(error.without_url().to_string());
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.api()))
            .timeout(CALL_TIMEOUT);
        request = match (&self.place, OPEN_ROUTES.contains(&path)) {
            (Place::Deployed(_), true) => request,
            (Place::Deployed(deployed), false) => deployed.authorized(request).ok_or(CallError::NoToken)?,
            (Place::Local { .. }, _) => request.bearer_auth(OPERATOR_TOKEN),
        };
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(no_answer)?;
        let status = response.status();
        let text = response.text().await.map_err(no_answer)?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        Err(CallError::Answered {
            status: status.as_u16(),
            answer,
        })
    }

    /// Ends the stack that was started for this command, if any, so that its data is written.
    pub(crate) async fn close(self) {
        if let Place::Local { own: Some(stack), .. } = self.place {
            stack.shutdown().await;
        }
    }
}

/// What an answer that is no success says: a problem's detail, or what the gateway says itself, with what a log is
/// searched for.
fn in_words(status: u16, answer: &Value) -> String {
    let text = |member: &str| answer.get(member).and_then(Value::as_str);
    let said = text("detail")
        .or_else(|| text("message"))
        .map(|said| said.trim_end_matches('.'));
    let mut words = match said {
        Some(said) => format!("{said} ({status}"),
        None => format!("the API answered without a reason ({status}"),
    };
    // Each fault of the input by where it is, such as `#/query/limit`.
    let faults = answer.get("errors").and_then(Value::as_array);
    let faults: Vec<String> = faults
        .into_iter()
        .flatten()
        .filter_map(|fault| {
            let part = |member: &str| fault.get(member).and_then(Value::as_str);
            Some(format!(
                "{} {}",
                part("pointer")?.trim_start_matches('/'),
                part("detail")?
            ))
        })
        .collect();
    if !faults.is_empty() {
        words = format!(
            "{}: {} ({status}",
            said.unwrap_or("the API refused"),
            faults.join("; ")
        );
    }
    if let Some(code) = text("code") {
        words.push_str(&format!(" {code}"));
    }
    if let Some(request) = text("request_id") {
        words.push_str(&format!(", request {request}"));
    }
    words.push(')');
    words
}

/// Where the stack that runs on `directory` answers, if one does.
async fn running(client: &reqwest::Client, directory: &Path) -> Option<Urls> {
    let urls = Announcement::read(directory)?.urls;
    let probe = client
        .get(format!("{}/__local/clock", urls.api))
        .timeout(PROBE_TIMEOUT);
    let answer = probe.send().await.ok()?;
    answer.status().is_success().then_some(urls)
}
