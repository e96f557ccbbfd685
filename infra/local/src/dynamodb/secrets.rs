//! Secrets Manager, as far as functions use it: on DynamoDB's port, because both are told apart by the operation that a
//! call names. The stack's own functions are given their secrets; those that run outside of it, under the real Lambda
//! runtime, fetch them here.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

/// How Secrets Manager's operations begin where a call names them.
pub(super) const TARGET_PREFIX: &str = "secretsmanager.";

/// The secrets by their names.
#[derive(Debug, Default)]
pub(crate) struct Secrets(BTreeMap<&'static str, SecretString>);

/// What is asked for.
#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "SecretId")]
    id: String,
}

impl Secrets {
    /// These secrets.
    pub(crate) fn new(secrets: impl IntoIterator<Item = (&'static str, SecretString)>) -> Self {
        Self(secrets.into_iter().collect())
    }

    /// Answers a call of `operation`.
    pub(super) fn answer(&self, operation: &str, body: &[u8]) -> Response {
        if operation != "GetSecretValue" {
            return failed(
                "UnknownOperationException",
                "only GetSecretValue is answered here",
            );
        }
        let Some(id) = asked(body) else {
            return failed("InvalidRequestException", "SecretId is missing");
        };
        match self.0.get_key_value(id.as_str()) {
            Some((name, value)) => answered(
                StatusCode::OK,
                &json!({
                    "ARN": format!("arn:aws:secretsmanager:local:000000000000:secret:{name}"),
                    "Name": name,
                    "VersionId": "00000000-0000-0000-0000-000000000000",
                    "VersionStages": ["AWSCURRENT"],
                    "SecretString": value.expose_secret(),
                }),
            ),
            None => failed("ResourceNotFoundException", "there is no such secret"),
        }
    }
}

/// The secret that a call asks for.
pub(super) fn asked(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Asked>(body).ok().map(|asked| asked.id)
}

fn failed(kind: &str, message: &str) -> Response {
    answered(
        StatusCode::BAD_REQUEST,
        &json!({"__type": kind, "Message": message}),
    )
}

fn answered(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/x-amz-json-1.1")];
    (status, headers, body.to_string()).into_response()
}
