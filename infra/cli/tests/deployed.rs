//! The commands against a deployed stack. A local stack stands in for what is deployed, and an answer of this test's for
//! CloudFormation's.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where something is not as it should be"
)]
#![allow(clippy::panic, reason = "what tests share panics")]

mod support;

use std::path::Path;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use berth_local::{Options, Stack};
use serde_json::Value;
use tokio::process::Command;

use support::{OPERATOR, Said, register};

/// What stands for AWS.
struct Aws {
    cloudformation: String,
    stack: Stack,
}

impl Aws {
    /// An account with the stack `berth-test`, set up with these parameters beside those that each has.
    async fn start(parameters: &[(&str, &str)]) -> Self {
        let stack = Stack::start(Options {
            limit: Some(3),
            origins: vec!["https://app.example.com".to_owned()],
            ..Options::default()
        })
        .await
        .unwrap();
        let urls = stack.urls();
        let own = [
            ("Environment", "sandbox"),
            ("SnapTradeBaseUrl", urls.snaptrade.as_str()),
            ("MaxConnections", "3"),
            ("LimitCounts", "users"),
            ("EvictionPolicy", "oldest"),
            ("AllowedOrigins", "https://app.example.com"),
            ("FrontendUrl", ""),
        ];
        let outputs = [
            ("ApiUrl", urls.api.as_str()),
            ("TableName", "berth"),
            ("SnapTradeSecretArn", "berth-local/snaptrade"),
            ("DataKeySecretArn", "berth-local/data-keys"),
            ("AccessSecretArn", "berth-local/access"),
        ];
        let members = |kind: &str, pairs: &mut dyn Iterator<Item = (&str, &str)>| -> String {
            pairs
                .map(|(name, value)| {
                    format!(
                        "<member><{kind}Key>{name}</{kind}Key><{kind}Value>{value}</{kind}Value></member>"
                    )
                })
                .collect()
        };
        let document = format!(
            "<DescribeStacksResponse xmlns=\"http://cloudformation.amazonaws.com/doc/2010-05-15/\">\
             <DescribeStacksResult><Stacks><member><Parameters>{}</Parameters><Outputs>{}</Outputs></member></Stacks>\
             </DescribeStacksResult></DescribeStacksResponse>",
            members(
                "Parameter",
                &mut own.into_iter().chain(parameters.iter().copied())
            ),
            members("Output", &mut outputs.into_iter()),
        );
        let describe = move |headers: HeaderMap, body: String| async move {
            let signed = headers["authorization"].to_str().unwrap();
            assert!(signed.starts_with("AWS4-HMAC-SHA256 Credential=id/"), "{signed}");
            assert!(
                signed.contains("/eu-central-1/cloudformation/aws4_request"),
                "{signed}"
            );
            if body == "Action=DescribeStacks&Version=2010-05-15&StackName=berth%2Dtest" {
                return (StatusCode::OK, document);
            }
            let refusal = "<ErrorResponse><Error><Message>Stack with id berth-other does not exist</Message></Error></ErrorResponse>";
            (StatusCode::BAD_REQUEST, refusal.to_owned())
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cloudformation = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/", post(describe));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            cloudformation,
            stack,
        }
    }

    /// Runs a command on the stack `berth-test`, with a token if one is given.
    async fn berth(&self, directory: &Path, line: &str, token: Option<&str>) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_berth"));
        command
            .args(line.split_whitespace())
            .current_dir(directory)
            .env_clear()
            .env("BERTH_STACK", "berth-test")
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_ENDPOINT_URL_CLOUDFORMATION", &self.cloudformation)
            .env("AWS_ENDPOINT_URL_DYNAMODB", &self.stack.urls().dynamodb)
            .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", &self.stack.urls().dynamodb)
            .envs(token.map(|token| ("BERTH_TOKEN", token)))
            .stdin(std::process::Stdio::null());
        let output = command.output().await.unwrap();
        Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[tokio::test]
async fn commands_act_on_the_stack_that_cloudformation_describes() {
    let directory = tempfile::tempdir().unwrap();
    let aws = Aws::start(&[]).await;
    register(&aws.stack, "ada").await;
    let status = aws
        .berth(directory.path(), "connections check-limit --json", Some(OPERATOR))
        .await;
    assert_eq!(status.code, 0, "{}", status.err);
    assert_eq!(status.json()["current_count"], 1);

    let taken = aws.berth(directory.path(), "backup table.jsonl", None).await;
    assert_eq!(taken.code, 0, "{}", taken.err);
    let tracking = aws
        .berth(
            directory.path(),
            "connections backup tracking.jsonl",
            Some(OPERATOR),
        )
        .await;
    assert_eq!(tracking.code, 0, "{}", tracking.err);

    let asked = aws
        .berth(directory.path(), "connections delete-oldest", Some(OPERATOR))
        .await;
    assert_eq!(asked.code, 2, "{}", asked.err);
    let deleted = aws
        .berth(
            directory.path(),
            "connections delete-oldest --yes --json",
            Some(OPERATOR),
        )
        .await;
    assert_eq!(
        (deleted.code, &deleted.json()["user_id"]),
        (0, &Value::from("ada"))
    );
    // Nothing was begun in the place of the local stack.
    assert!(!directory.path().join(".berth").exists());
    aws.stack.shutdown().await;
}

#[tokio::test]
async fn the_setup_of_a_deployed_stack_is_verified() {
    let directory = tempfile::tempdir().unwrap();
    let aws = Aws::start(&[]).await;
    let verified = aws
        .berth(directory.path(), "verify-setup --json", Some(OPERATOR))
        .await;
    assert_eq!(verified.code, 0, "{} {}", verified.out, verified.err);
    assert_eq!(verified.json()["status"], "ok");
    // Without a token the limit is not seen, and all else is.
    let without = aws.berth(directory.path(), "verify-setup --json", None).await;
    assert_eq!(without.code, 1, "{}", without.out);
    let checks = without.json();
    let broken: Vec<_> = checks["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["status"] != "ok")
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(broken, ["limit"]);
    aws.stack.shutdown().await;
}

#[tokio::test]
async fn what_is_missing_is_told_before_anything_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let aws = Aws::start(&[]).await;
    let told = async |line: &str, token: Option<&str>, reason: &str| {
        let said = aws.berth(directory.path(), line, token).await;
        assert_eq!(said.code, 1, "{line}: {}", said.err);
        assert!(said.err.contains(reason), "{line}: {}", said.err);
    };
    told("connections list", None, "set BERTH_TOKEN").await;
    told(
        "connections list --stack berth-other",
        Some(OPERATOR),
        "Stack with id berth-other does not exist",
    )
    .await;
    aws.berth(directory.path(), "backup table.jsonl", None).await;
    told("restore table.jsonl --yes", None, "Maintenance=on").await;

    let without = support::berth(directory.path(), "connections list --stack berth-test").await;
    assert_eq!(without.code, 1);
    assert!(
        without
            .err
            .contains("AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY are not set")
    );
    aws.stack.shutdown().await;
}

#[tokio::test]
async fn in_maintenance_the_table_can_be_brought_back() {
    let directory = tempfile::tempdir().unwrap();
    let aws = Aws::start(&[("Maintenance", "on")]).await;
    aws.berth(directory.path(), "backup table.jsonl", None).await;
    let restored = aws
        .berth(directory.path(), "restore table.jsonl --yes", None)
        .await;
    assert_eq!(restored.code, 0, "{}", restored.err);
    aws.stack.shutdown().await;
}
