//! A call to an access API as an adapter describes it, before it is sent.

use percent_encoding::utf8_percent_encode;
use reqwest::Method;
use serde_json::Value;

use super::super::retries::CallKind;
use super::super::sending::SEGMENT;
use super::super::tally::Called;
use super::pacing::Lane;

/// A call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// What it is for.
    pub(super) called: Called,
    /// What it changes.
    pub(super) kind: CallKind,
    /// How it is made.
    pub(super) method: Method,
    /// The path below the base URL's, encoded, perhaps with a query.
    pub(super) path: String,
    /// What is sent.
    pub(super) body: Option<Value>,
}

impl Call {
    /// A call that changes nothing and sends nothing.
    pub(super) fn get(called: Called, path: String) -> Self {
        Self {
            called,
            kind: CallKind::Read,
            method: Method::GET,
            path,
            body: None,
        }
    }

    /// A call that sends something.
    pub(super) fn with_body(
        called: Called,
        kind: CallKind,
        method: Method,
        path: String,
        body: Value,
    ) -> Self {
        Self {
            called,
            kind,
            method,
            path,
            body: Some(body),
        }
    }

    /// By which rate it is held back.
    pub(super) fn lane(&self) -> Lane {
        match self.called {
            Called::Validate => Lane::LookUps,
            Called::Grant | Called::Update | Called::Remove => Lane::Changes,
            Called::List | Called::Transactions => Lane::Lists,
        }
    }

    /// The word that errors have for it.
    pub(super) fn name(&self) -> &'static str {
        match self.called {
            Called::Validate => "a look-up of a name",
            Called::Grant => "a grant",
            Called::Update => "an update",
            Called::Remove => "a removal",
            Called::List | Called::Transactions => "a list of who has access",
        }
    }
}

/// A path with its placeholder filled in; `None` for a text that would change what the path means.
pub(super) fn filled(endpoint: &str, placeholder: &str, text: &str) -> Option<String> {
    if matches!(text, "" | "." | "..") {
        return None;
    }
    let encoded = utf8_percent_encode(text, SEGMENT).to_string();
    Some(endpoint.replace(placeholder, &encoded))
}
