//! AWS's clients, built by hand: reading the SDK's shared configuration would link several more services into every
//! function, and what a function needs stands in a handful of variables.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{AppName, BehaviorVersion, Region, StalledStreamProtectionConfig};

use super::transport::AwsTransport;
use crate::config::{BaseUrl, Fault};
use crate::telemetry::Service;

/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(2_500);

/// How long a call may take with all its attempts.
const OPERATION_TIMEOUT: Duration = Duration::from_millis(7_500);

/// How often a call is tried.
const ATTEMPTS: u32 = 3;

/// Where the endpoint is on this machine, any region will do, but there has to be one.
const ANY_REGION: &str = "us-east-1";

/// What an AWS client is built from.
#[derive(Debug, Clone)]
pub struct AwsAccess {
    /// The region; without one, one is assumed that only an endpoint on this machine accepts.
    pub region: Option<String>,
    /// The credentials.
    pub credentials: Credentials,
}

impl AwsAccess {
    /// Access from the variables that Lambda sets: `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
    /// `AWS_SESSION_TOKEN`. They hold for the life of the process.
    ///
    /// # Errors
    /// Names the variables that are not set.
    pub fn from_env(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut required = |variable: &'static str| {
            let value = lookup(variable).filter(|value| !value.is_empty());
            if value.is_none() {
                faults.push(Fault {
                    variable,
                    detail: "is not set".to_owned(),
                });
            }
            value.unwrap_or_default()
        };
        let key_id = required("AWS_ACCESS_KEY_ID");
        let secret_key = required("AWS_SECRET_ACCESS_KEY");
        let token = lookup("AWS_SESSION_TOKEN").filter(|value| !value.is_empty());
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            region: lookup("AWS_REGION").filter(|value| !value.is_empty()),
            credentials: Credentials::new(key_id, secret_key, token, None, "environment"),
        })
    }

    /// Access to stand-ins on this machine, which take any credentials. `access_key_id` is up to the caller.
    #[must_use]
    pub fn local(access_key_id: &str) -> Self {
        Self {
            region: None,
            credentials: Credentials::new(access_key_id, "local", None, None, "local"),
        }
    }

    fn region(&self) -> Region {
        Region::new(self.region.clone().unwrap_or_else(|| ANY_REGION.to_owned()))
    }
}

/// A client of DynamoDB. Each attempt counts as one call of the invocation that it is made in, and tells the server
/// which function makes it (`app/berth-<function>` in its user agent).
#[must_use]
pub fn dynamodb(
    access: &AwsAccess,
    http: reqwest::Client,
    endpoint: Option<&BaseUrl>,
    function: &str,
) -> aws_sdk_dynamodb::Client {
    let mut config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(access.region())
        .credentials_provider(access.credentials.clone())
        .http_client(AwsTransport::new(http, Some(Service::DynamoDb)))
        .retry_config(retries())
        .timeout_config(timeouts())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Ok(name) = AppName::new(format!("berth-{function}")) {
        config = config.app_name(name);
    }
    if let Some(endpoint) = endpoint {
        config = config.endpoint_url(endpoint.as_str());
    }
    aws_sdk_dynamodb::Client::from_conf(config.build())
}

/// A client of Secrets Manager, which tells the server which function asks, as [`dynamodb`] does.
#[must_use]
pub fn secrets_manager(
    access: &AwsAccess,
    http: reqwest::Client,
    endpoint: Option<&BaseUrl>,
    function: &str,
) -> aws_sdk_secretsmanager::Client {
    let mut config = aws_sdk_secretsmanager::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(access.region())
        .credentials_provider(access.credentials.clone())
        .http_client(AwsTransport::new(http, None))
        .retry_config(retries())
        .timeout_config(timeouts())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Ok(name) = AppName::new(format!("berth-{function}")) {
        config = config.app_name(name);
    }
    if let Some(endpoint) = endpoint {
        config = config.endpoint_url(endpoint.as_str());
    }
    aws_sdk_secretsmanager::Client::from_conf(config.build())
}

fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(ATTEMPTS)
        .with_initial_backoff(Duration::from_millis(50))
        .with_max_backoff(Duration::from_secs(1))
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build()
}
