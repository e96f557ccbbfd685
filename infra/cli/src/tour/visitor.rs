//! Those who take part in the tour: they call over HTTP as anybody else would, and look at what they are answered.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::report::{Checked, Mismatch};

/// How long one call may take: longer than the gateway lets any function run.
const CALL_TIMEOUT: Duration = Duration::from_secs(35);

/// Calls the stack's parts over HTTP.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The client that all calls are made with. It follows no redirects.
    pub(super) http: reqwest::Client,
    /// The API's base URL.
    pub(super) api: String,
    /// The SnapTrade sandbox's base URL.
    pub(super) sandbox: String,
}

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who<'a> {
    /// A user of the application.
    User(&'a str),
    /// Somebody who looks after Berth.
    Operator,
}

impl Who<'_> {
    /// The token; only the local stack's gateway understands it.
    fn token(self) -> String {
        match self {
            Self::User(name) => format!("dev:{}", utf8_percent_encode(name, NON_ALPHANUMERIC)),
            Self::Operator => "dev:tour:operator".to_owned(),
        }
    }
}

impl Caller {
    /// Calls a route of the API.
    pub(super) async fn api(&self, who: Who<'_>, method: Method, path: &str, body: Value) -> Checked<Answer> {
        let request = self.http.request(method.clone(), format!("{}{path}", self.api));
        let request = request.bearer_auth(who.token());
        let whose = match who {
            Who::User(name) => format!(" as {name}"),
            Who::Operator => " as operator".to_owned(),
        };
        answer(format!("{method} {path}{whose}"), with(request, &method, &body)).await
    }

    /// Makes a control call to the SnapTrade sandbox.
    pub(super) async fn sandbox(&self, method: Method, path: &str, body: Value) -> Checked<Answer> {
        let request = self
            .http
            .request(method.clone(), format!("{}{path}", self.sandbox));
        answer(
            format!("{method} {path} at the sandbox"),
            with(request, &method, &body),
        )
        .await
    }
}

fn with(request: reqwest::RequestBuilder, method: &Method, body: &Value) -> reqwest::RequestBuilder {
    if *method == Method::GET {
        request
    } else {
        request.json(body)
    }
}

/// Sends a request and reads what comes back; `call` names it.
pub(super) async fn answer(call: String, request: reqwest::RequestBuilder) -> Checked<Answer> {
    let sent = async {
        let response = request.timeout(CALL_TIMEOUT).send().await?;
        let status = response.status();
        let location = response.headers().get(reqwest::header::LOCATION).cloned();
        Ok((status, location, response.text().await?))
    };
    match sent.await {
        Ok((status, location, text)) => Ok(Answer {
            call,
            status,
            location: location.and_then(|location| location.to_str().ok().map(str::to_owned)),
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }),
        Err(error) => {
            let error: reqwest::Error = error;
            Err(Mismatch::new(call, "an answer", error.without_url().to_string()))
        }
    }
}

/// What was answered.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// What was called, for messages.
    call: String,
    status: StatusCode,
    /// Where the answer sends its reader.
    pub(super) location: Option<String>,
    /// The body as JSON; null where it is none.
    pub(super) body: Value,
    /// The body as text.
    pub(super) text: String,
}

impl Answer {
    /// Checks the status.
    pub(super) fn is(self, status: u16) -> Checked<Self> {
        if self.status.as_u16() == status {
            return Ok(self);
        }
        // What else an answer holds is not repeated: it may be a link that nobody else is to see.
        let word = |member: &str| self.body.get(member).and_then(Value::as_str).unwrap_or_default();
        let came = format!("{} {} {}", self.status.as_u16(), word("code"), word("detail"));
        Err(Mismatch::new(self.call, format!("status {status}"), came))
    }

    /// Checks the value that a JSON pointer leads to.
    pub(super) fn has(&self, pointer: &str, expected: impl Into<Value>) -> Checked<&Self> {
        let (came, expected) = (self.at(pointer), expected.into());
        if *came == expected {
            return Ok(self);
        }
        Err(Mismatch::new(
            format!("{pointer} in the answer to {}", self.call),
            expected.to_string(),
            came.to_string(),
        ))
    }

    /// The text that a JSON pointer leads to.
    pub(super) fn text_at(&self, pointer: &str) -> Checked<&str> {
        self.at(pointer).as_str().ok_or_else(|| {
            Mismatch::new(
                format!("{pointer} in the answer to {}", self.call),
                "a text",
                self.at(pointer).to_string(),
            )
        })
    }

    /// The list that a JSON pointer leads to.
    pub(super) fn list_at(&self, pointer: &str) -> Checked<&[Value]> {
        self.at(pointer).as_array().map(Vec::as_slice).ok_or_else(|| {
            Mismatch::new(
                format!("{pointer} in the answer to {}", self.call),
                "a list",
                self.at(pointer).to_string(),
            )
        })
    }

    fn at(&self, pointer: &str) -> &Value {
        const NOTHING: &Value = &Value::Null;
        self.body.pointer(pointer).unwrap_or(NOTHING)
    }
}

/// The body of a call that needs none.
pub(super) fn nothing() -> Value {
    json!({})
}
