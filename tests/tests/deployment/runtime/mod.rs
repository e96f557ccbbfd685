//! Each function's program under the Lambda runtime: it answers its sample event as the local stack does.

mod emulator;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use aws_lambda_events::event::dynamodb::Event as StreamEvent;
use berth_local::{Options, Stack};
use serde_json::{Map, Value, json};

use crate::permissions::{Fault, allowed, faults, told};
use crate::template::{Function, Template, checkout, read, texts};
use emulator::{Emulator, Program};

/// The functions in an order in which each finds something to do.
const ORDER: [&str; 18] = [
    "status",
    "register",
    "handle-limit",
    "connection-url",
    "webhook",
    "webhook-worker",
    "webhook-admin",
    "refresh",
    "portfolio",
    "refresh-schedule",
    "users",
    "connection-sync",
    "connection-sync-schedule",
    "access-webhook",
    "access-sync",
    "access-sync-schedule",
    "access-rescan-schedule",
    "access-admin",
];

/// The secrets of the template, and what `infra/env.local.json` calls them.
const SECRETS: [(&str, &str); 3] = [
    ("SnapTradeSecret", "berth-local/snaptrade"),
    ("DataKeySecret", "berth-local/data-keys"),
    ("AccessSecret", "berth-local/access"),
];

/// Builds the programs and gives the folder that they are in.
async fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap().to_owned();
    let mut command = tokio::process::Command::new(env!("CARGO"));
    // With the command's own program, whose build most checkouts have already, and with it what functions are built of.
    command.args(["build", "--quiet", "--locked", "--package", "berth-cli"]);
    for function in ORDER {
        command.args(["--package", function]);
    }
    command.arg("--target-dir").arg(folder.parent().unwrap());
    // What cargo told this test of its own package would make build scripts run again that look at it.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_about_this_package) {
            command.env_remove(name);
        }
    }
    let status = command.current_dir(checkout()).status().await.unwrap();
    assert!(status.success());
    folder
}

/// Whether cargo sets a variable for the package of this test alone.
fn is_about_this_package(variable: &str) -> bool {
    let kinds = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_CRATE_",
        "CARGO_BIN_",
        "CARGO_PRIMARY_",
    ];
    variable == "CARGO" || kinds.iter().any(|kind| variable.starts_with(kind))
}

/// What the function is given by the template and by `infra/env.local.json`, as `sam local invoke` puts them together: a
/// variable that the template does not name is left out. The usual ports are those of `stack` here.
fn variables(template: &Template, function: &Function<'_>, stack: &Stack) -> Vec<(String, String)> {
    let local: Value = serde_json::from_str(&read("infra/env.local.json")).unwrap();
    let (local, urls) = (local["Parameters"].as_object().unwrap(), stack.urls());
    let mut variables: Vec<_> = function
        .variables()
        .into_iter()
        .map(|(name, value)| {
            let value = local.get(name).map_or_else(
                || template.value(value),
                |here| {
                    here.as_str()
                        .unwrap()
                        .replace("http://127.0.0.1:9001", &urls.snaptrade)
                        .replace("http://127.0.0.1:9003", &urls.dynamodb)
                },
            );
            (name.to_owned(), value)
        })
        .collect();
    let lambda = [
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local"),
    ];
    variables.extend(lambda.map(|(name, value)| (name.to_owned(), value.to_owned())));
    variables
}

/// The sample event of a function. A webhook is stamped with the present time and signed again, since old ones are
/// refused.
fn sample(function: &str) -> Value {
    let mut event: Value = serde_json::from_str(&read(format!("infra/events/{function}.json"))).unwrap();
    if function == "webhook" {
        let mut body: Value = serde_json::from_str(event["body"].as_str().unwrap()).unwrap();
        body["eventTimestamp"] = json!(jiff::Timestamp::now());
        let text = berth::snaptrade::signature::canonical_json(&body);
        let key = "sandbox-consumer-key".into();
        event["headers"]["signature"] = json!(berth::snaptrade::signature::sign_bytes(&key, text.as_bytes()));
        event["body"] = json!(text);
    }
    event
}

/// An answer, with what differs from one time to the next left out.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u64,
    headers: BTreeMap<String, String>,
    body: Value,
}

/// The headers that belong to a connection or to one request.
const NOT_COMPARED: [&str; 6] = [
    "apigw-requestid",
    "connection",
    "content-length",
    "date",
    "transfer-encoding",
    "x-request-id",
];

impl Answer {
    fn new(status: u64, headers: impl Iterator<Item = (String, String)>, body: &str) -> Self {
        Self {
            status,
            headers: headers
                .filter(|(name, _)| !NOT_COMPARED.contains(&name.as_str()))
                .collect(),
            body: lasting(&serde_json::from_str(body).unwrap_or_else(|_| json!(body))),
        }
    }

    /// What a program answered, as Lambda hands it to API Gateway.
    fn of_program(answer: &Value) -> Self {
        let nothing = Map::new();
        let headers = answer["headers"].as_object().unwrap_or(&nothing);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self::new(
            answer["statusCode"]
                .as_u64()
                .unwrap_or_else(|| panic!("no answer to a request: {answer}")),
            headers.iter().map(|(name, value)| (name.clone(), text(value))),
            answer["body"].as_str().unwrap_or_default(),
        )
    }
}

/// A value with times, ids and addresses made alike.
fn lasting(value: &Value) -> Value {
    const ONE_TIME: [&str; 6] = [
        "request_id",
        "run_id",
        "session_id",
        "connection_url",
        "upstream_id",
        "rows_per_second",
    ];
    match value {
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => json!("a time"),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other.clone(),
        Value::Array(values) => values.iter().map(lasting).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let is_one_time = ONE_TIME.contains(&name.as_str()) && !value.is_null();
                let value = if is_one_time {
                    json!("of this time")
                } else {
                    lasting(value)
                };
                (name.clone(), value)
            })
            .collect(),
    }
}

/// What the local stack answers to the request that the event tells of.
async fn by_the_gateway(stack: &Stack, event: &Value) -> Answer {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let url = format!(
        "{}{}?{}",
        stack.urls().api,
        text("/rawPath"),
        text("/rawQueryString")
    );
    let method = text("/requestContext/http/method").parse().unwrap();
    let mut request = berth::snaptrade::http_client()
        .unwrap()
        .request(method, url)
        .body(text("/body").to_owned());
    for (name, value) in event["headers"].as_object().unwrap() {
        if name != "host" && !name.starts_with("x-forwarded-") {
            request = request.header(name, value.as_str().unwrap());
        }
    }
    let claims = "/requestContext/authorizer/jwt/claims";
    if event.pointer(claims).is_some() {
        let role = match text(&format!("{claims}/scope")) {
            "berth/operator" => ":operator",
            _ => "",
        };
        request = request.bearer_auth(format!("dev:{}{role}", text(&format!("{claims}/sub"))));
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers: Vec<_> = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let body = response.text().await.unwrap();
    Answer::new(status.into(), headers.into_iter(), &body)
}

/// What the local stack answers to an event that is no request.
async fn by_the_stack(stack: &Stack, function: &str, event: &Value) -> Value {
    if function == "webhook-worker" {
        let event: StreamEvent = serde_json::from_value(event.clone()).unwrap();
        let app = stack.app("webhook-worker");
        let answer = webhook_worker::handle(&app, event).await.unwrap();
        return serde_json::to_value(answer).unwrap();
    }
    let schedule = function.strip_suffix("-schedule").unwrap();
    let url = format!("{}/__local/schedules/{schedule}", stack.urls().api);
    let client = berth::snaptrade::http_client().unwrap();
    let response = client.post(url).send().await.unwrap();
    assert!(response.status().is_success(), "{function}");
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

/// A stack with a shop that has customers.
async fn stack() -> Stack {
    let stack = Stack::start(Options::default()).await.unwrap();
    let url = format!("{}/__sandbox/sample", stack.urls().access);
    let client = berth::snaptrade::http_client().unwrap();
    let filled = client
        .post(url)
        .body("{}")
        .header("content-type", "application/json");
    assert!(filled.send().await.unwrap().status().is_success());
    stack
}

#[tokio::test]
async fn every_function_answers_its_sample_event_under_the_lambda_runtime_as_on_the_local_stack() {
    let template = Template::read();
    let functions = template.functions();
    let deployed: BTreeSet<_> = functions
        .iter()
        .map(|function| function.package.as_str())
        .collect();
    assert_eq!(deployed, BTreeSet::from(ORDER));
    let programs = built().await;
    let emulator = Emulator::installed();
    // Each side has a stack of its own, and both go the same way.
    let (local, deployed) = (stack().await, stack().await);
    for name in ORDER {
        let function = functions
            .iter()
            .find(|function| function.package == name)
            .unwrap();
        let program = Program {
            path: programs.join(name),
            variables: variables(&template, function, &deployed),
        };
        let event = sample(name);
        let answered = emulator.invoke(&program, &event).await;
        if event["routeKey"].is_string() {
            let expected = by_the_gateway(&local, &event).await;
            let answer = Answer::of_program(&answered);
            assert!((200..300).contains(&answer.status), "{name}: {answered}");
            assert_eq!(answer, expected, "{name}");
        } else {
            let expected = by_the_stack(&local, name, &event).await;
            assert_eq!(lasting(&answered), lasting(&expected), "{name}");
        }
    }
    compare_with_the_roles(&template, &deployed);
    local.shutdown().await;
    deployed.shutdown().await;
}

/// What the programs asked of AWS, against their roles: every secret that a role allows is read, no other is, and
/// nothing is done to the table that is not allowed.
fn compare_with_the_roles(template: &Template, stack: &Stack) {
    let done = stack.dynamodb().permissions();
    let roles = allowed(template);
    let mut missing = faults(&roles, &done);
    missing.retain(|fault| matches!(fault, Fault::Missing { .. }));
    assert_eq!(told(&missing), Vec::<String>::new());
    for function in template.functions() {
        let read: BTreeSet<_> = done[&function.package]
            .iter()
            .filter(|permission| permission.action == "secretsmanager:GetSecretValue")
            .map(|permission| permission.on.clone().unwrap())
            .collect();
        let allowed: BTreeSet<_> = function
            .statements()
            .into_iter()
            .filter(|statement| texts(&statement["Action"]) == ["secretsmanager:GetSecretValue"])
            .flat_map(|statement| texts(&statement["Resource"]))
            .map(|secret| {
                let here = SECRETS.iter().find(|(name, _)| *name == secret);
                here.expect("a secret of the template's").1.to_owned()
            })
            .collect();
        assert_eq!(read, allowed, "{}", function.package);
    }
}
