//! A deployed stack, as CloudFormation describes it: where its API and its table are, and how it is set up.
//!
//! CloudFormation is asked by its Query API with a request signed by the SDK's own signer: one call does not justify one
//! more of the SDK's clients.
//!
//! Source: AWS CloudFormation API reference, `DescribeStacks`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use berth::app::{AwsAccess, aws};
use berth::config::BaseUrl;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// How long CloudFormation may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The variable that holds the token which the API is called with.
const TOKEN_VARIABLE: &str = "BERTH_TOKEN";

/// The outputs that the commands rely on.
const OUTPUTS: [&str; 2] = ["ApiUrl", "TableName"];

/// A deployed stack.
pub(crate) struct Deployed {
    name: String,
    access: AwsAccess,
    http: reqwest::Client,
    /// The token that the API is called with, an operator's.
    token: Option<SecretString>,
    outputs: BTreeMap<String, String>,
    parameters: BTreeMap<String, String>,
    endpoints: Endpoints,
}

/// Where AWS's services are, in place of AWS itself.
struct Endpoints {
    dynamodb: Option<BaseUrl>,
    secrets_manager: Option<BaseUrl>,
}

/// Why a deployed stack cannot be acted on. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeployedError {
    /// AWS's variables are missing.
    #[error(
        "the deployed stack {stack} is found by your AWS account, and {missing} not set: set AWS_REGION and the variables that `aws configure export-credentials --format env` prints, or leave out --stack and unset BERTH_STACK to act on the local stack"
    )]
    Access {
        /// The stack.
        stack: String,
        /// Which variables, with their verb.
        missing: String,
    },
    /// An address in a variable is none.
    #[error("{variable} {reason}")]
    Endpoint {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// `CloudFormation` did not tell.
    #[error("CloudFormation does not describe the stack {stack}: {reason}")]
    Refused {
        /// The stack.
        stack: String,
        /// What it said.
        reason: String,
    },
    /// The stack is not one of Berth's.
    #[error("the stack {stack} has no output {output}, so it is none of Berth's or not fully deployed")]
    Output {
        /// The stack.
        stack: String,
        /// What is missing.
        output: &'static str,
    },
}

impl Deployed {
    /// Looks the stack up with the AWS account that the variables name.
    ///
    /// # Errors
    /// [`DeployedError`].
    pub(crate) async fn find(
        name: &str,
        http: reqwest::Client,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, DeployedError> {
        let given = |variable: &str| lookup(variable).filter(|value| !value.is_empty());
        let region = given("AWS_REGION").or_else(|| given("AWS_DEFAULT_REGION"));
        let access = access(name, region.clone(), lookup)?;
        let endpoint = |variable: &'static str| {
            given(variable)
                .map(|url| BaseUrl::parse(&url))
                .transpose()
                .map_err(|reason| DeployedError::Endpoint {
                    variable,
                    reason: reason.to_string(),
                })
        };
        let region = region.unwrap_or_default();
        let cloudformation = endpoint("AWS_ENDPOINT_URL_CLOUDFORMATION")?;
        let url = cloudformation.as_ref().map_or_else(
            || format!("https://cloudformation.{region}.amazonaws.com"),
            |url| url.as_str().to_owned(),
        );
        let endpoints = Endpoints {
            dynamodb: endpoint("AWS_ENDPOINT_URL_DYNAMODB")?,
            secrets_manager: endpoint("AWS_ENDPOINT_URL_SECRETS_MANAGER")?,
        };
        let refused = |reason: String| DeployedError::Refused {
            stack: name.to_owned(),
            reason,
        };
        let document = describe(&http, &url, &region, &access, name)
            .await
            .map_err(refused)?;
        let (outputs, parameters) = read(&document).map_err(refused)?;
        for output in OUTPUTS {
            if !outputs.contains_key(output) {
                return Err(DeployedError::Output {
                    stack: name.to_owned(),
                    output,
                });
            }
        }
        Ok(Self {
            name: name.to_owned(),
            access,
            http,
            token: given(TOKEN_VARIABLE).map(SecretString::from),
            outputs,
            parameters,
            endpoints,
        })
    }

    /// The stack's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where its API is, without a slash at the end.
    pub(crate) fn api(&self) -> &str {
        self.output("ApiUrl").trim_end_matches('/')
    }

    /// A call of its API with the token that is given; `None` where none is.
    pub(crate) fn authorized(&self, request: reqwest::RequestBuilder) -> Option<reqwest::RequestBuilder> {
        let token = self.token.as_ref()?;
        Some(request.bearer_auth(token.expose_secret()))
    }

    /// Whether it turns requests away for now.
    pub(crate) fn in_maintenance(&self) -> bool {
        self.parameter("Maintenance") == "on"
    }

    fn output(&self, name: &str) -> &str {
        self.outputs.get(name).map_or("", String::as_str)
    }

    fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// A client of its table.
    pub(crate) fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let endpoint = self.endpoints.dynamodb.as_ref();
        aws::dynamodb(&self.access, self.http.clone(), endpoint, "command")
    }

    /// The access sync's configuration; `None` where it has none yet.
    ///
    /// # Errors
    /// Says why it cannot be read.
    pub(crate) async fn access_configuration(&self) -> Result<Option<String>, String> {
        let secret = self.secret("AccessSecretArn").await?;
        Ok(secret.map(|secret| secret.expose_secret().to_owned()))
    }

    /// The value of the secret that an output names; `None` where it has none yet.
    ///
    /// # Errors
    /// Says why it cannot be read.
    async fn secret(&self, output: &str) -> Result<Option<SecretString>, String> {
        let endpoint = self.endpoints.secrets_manager.as_ref();
        let client = aws::secrets_manager(&self.access, self.http.clone(), endpoint, "command");
        let asked = client.get_secret_value().secret_id(self.output(output)).send();
        match asked.await {
            Ok(answer) => Ok(answer.secret_string.map(SecretString::from)),
            Err(error) => match error.into_service_error() {
                error if error.is_resource_not_found_exception() => Ok(None),
                error => Err(error.to_string()),
            },
        }
    }

    /// How it is set up, in the form in which the local stack tells it. What is secret is left out.
    pub(crate) async fn settings(&self) -> Value {
        let credentials = self.secret("SnapTradeSecretArn").await;
        let unreadable = credentials.is_err();
        let credentials: Value = credentials
            .ok()
            .flatten()
            .and_then(|text| serde_json::from_str(text.expose_secret()).ok())
            .unwrap_or_default();
        let key = credentials.get("consumer_key").and_then(Value::as_str);
        let origins = [self.parameter("AllowedOrigins"), self.parameter("FrontendUrl")];
        let origins: Vec<_> = origins
            .iter()
            .flat_map(|list| list.split(','))
            .map(|origin| origin.trim().trim_end_matches('/'))
            .filter(|origin| !origin.is_empty())
            .collect();
        json!({
            "environment": self.parameter("Environment"),
            "snaptrade_base_url": self.parameter("SnapTradeBaseUrl"),
            "client_id": credentials.get("client_id"),
            "consumer_key_given": key.is_some_and(|key| !key.is_empty()),
            "credentials_unreadable": unreadable,
            "max_connections": self.parameter("MaxConnections").parse::<u32>().ok(),
            "counts": self.parameter("LimitCounts"),
            "policy": self.parameter("EvictionPolicy"),
            "allowed_origins": origins,
            "table_name": self.output("TableName"),
            "access_config": null,
        })
    }
}

/// Access by the usual variables.
fn access(
    stack: &str,
    region: Option<String>,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<AwsAccess, DeployedError> {
    let (mut missing, mut found) = (Vec::new(), None);
    if region.is_none() {
        missing.push("AWS_REGION");
    }
    match AwsAccess::from_env(lookup) {
        Ok(access) => found = Some(AwsAccess { region, ..access }),
        Err(faults) => missing.extend(faults.iter().map(|fault| fault.variable)),
    }
    match (found, missing.as_slice()) {
        (Some(access), []) => Ok(access),
        (_, missing) => Err(DeployedError::Access {
            stack: stack.to_owned(),
            missing: format!(
                "{} {}",
                missing.join(", "),
                if missing.len() == 1 { "is" } else { "are" }
            ),
        }),
    }
}

/// Asks `CloudFormation` for the stack and gives its answer's document.
async fn describe(
    http: &reqwest::Client,
    url: &str,
    region: &str,
    access: &AwsAccess,
    stack: &str,
) -> Result<String, String> {
    let url = format!("{}/", url.trim_end_matches('/'));
    let name = percent_encoding::utf8_percent_encode(stack, percent_encoding::NON_ALPHANUMERIC);
    let body = format!("Action=DescribeStacks&Version=2010-05-15&StackName={name}");
    let content_type = "application/x-www-form-urlencoded; charset=utf-8";
    let identity = access.credentials.clone().into();
    let failed = |error: &dyn std::fmt::Display| format!("the request cannot be signed ({error})");
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("cloudformation")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| failed(&error))?
        .into();
    let headers = [("content-type", content_type)].into_iter();
    let signable = SignableRequest::new("POST", &url, headers, SignableBody::Bytes(body.as_bytes()))
        .map_err(|error| failed(&error))?;
    let (instructions, _) = sign(signable, &parameters)
        .map_err(|error| failed(&error))?
        .into_parts();
    let mut request = http
        .post(&url)
        .timeout(TIMEOUT)
        .header("content-type", content_type)
        .body(body);
    for (name, value) in instructions.headers() {
        request = request.header(name, value);
    }
    let response = request
        .send()
        .await
        .map_err(|error| format!("it does not answer ({})", error.without_url()))?;
    let status = response.status();
    let text = response
        .text()
        .await
        .map_err(|error| error.without_url().to_string())?;
    if status.is_success() {
        return Ok(text);
    }
    Err(format!("{} ({status})", reason(&text)))
}

/// What `CloudFormation` says when it refuses.
fn reason(document: &str) -> String {
    let parsed = roxmltree::Document::parse(document);
    let message = parsed.as_ref().ok().and_then(|document| {
        let message = document
            .descendants()
            .find(|node| node.has_tag_name_anywhere("Message"));
        message.and_then(|message| message.text())
    });
    message.unwrap_or("it gives no reason").to_owned()
}

/// Names and values, such as a stack's outputs.
type Named = BTreeMap<String, String>;

/// The outputs and the parameters in `CloudFormation`'s answer.
fn read(document: &str) -> Result<(Named, Named), String> {
    let document = roxmltree::Document::parse(document).map_err(|_| "its answer is no XML".to_owned())?;
    let named = |list: &str, key: &str, value: &str| -> Named {
        document
            .descendants()
            .filter(|node| node.has_tag_name_anywhere(list))
            .flat_map(|list| list.children())
            .filter_map(|member| {
                let part = |name: &str| {
                    let part = member.children().find(|part| part.has_tag_name_anywhere(name));
                    part.map(|part| part.text().unwrap_or_default().to_owned())
                };
                Some((part(key)?, part(value)?))
            })
            .collect()
    };
    let outputs = named("Outputs", "OutputKey", "OutputValue");
    let parameters = named("Parameters", "ParameterKey", "ParameterValue");
    Ok((outputs, parameters))
}

/// Finding elements by their local names: the namespace is the same for all of them.
trait TagName {
    fn has_tag_name_anywhere(&self, name: &str) -> bool;
}

impl TagName for roxmltree::Node<'_, '_> {
    fn has_tag_name_anywhere(&self, name: &str) -> bool {
        self.is_element() && self.tag_name().name() == name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">
      <DescribeStacksResult><Stacks><member>
        <StackName>berth-production</StackName>
        <Parameters>
          <member><ParameterKey>Environment</ParameterKey><ParameterValue>production</ParameterValue></member>
          <member><ParameterKey>FrontendUrl</ParameterKey><ParameterValue/></member>
        </Parameters>
        <Outputs>
          <member><Description>Where the API is.</Description><OutputKey>ApiUrl</OutputKey>
            <OutputValue>https://abc.execute-api.eu-central-1.amazonaws.com</OutputValue></member>
        </Outputs>
      </member></Stacks></DescribeStacksResult></DescribeStacksResponse>"#;

    #[test]
    fn outputs_and_parameters_are_read_from_the_answer() {
        let (outputs, parameters) = read(ANSWER).unwrap();
        let api = "https://abc.execute-api.eu-central-1.amazonaws.com";
        assert_eq!(outputs, BTreeMap::from([("ApiUrl".to_owned(), api.to_owned())]));
        assert_eq!(parameters["Environment"], "production");
        assert_eq!(parameters["FrontendUrl"], "");
        assert!(read("no document").is_err());
    }

    #[test]
    fn a_refusal_is_told_in_its_own_words() {
        let refusal = r#"<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><Error>
            <Type>Sender</Type><Code>ValidationError</Code>
            <Message>Stack with id nowhere does not exist</Message></Error></ErrorResponse>"#;
        assert_eq!(reason(refusal), "Stack with id nowhere does not exist");
        assert_eq!(reason("<html>"), "it gives no reason");
    }

    #[test]
    fn missing_variables_are_named() {
        let nothing = access("production", None, &|_| None).unwrap_err().to_string();
        assert!(nothing.contains("AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY are not set"));
        let given = |name: &str| name.ends_with("KEY_ID").then(|| "id".to_owned());
        let one = access("production", Some("eu-central-1".to_owned()), &given).unwrap_err();
        assert!(one.to_string().contains("AWS_SECRET_ACCESS_KEY is not set"));
    }
}
