//! The deployment's template against the code: what is deployed has to be what the code expects.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails may panic"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aws_sdk_dynamodb::types::{AttributeValue, KeySchemaElement, TableDescription};
use berth::app::{AwsAccess, Needs};
use berth::config::{BaseUrl, Config};
use berth::http::routes::{Access, ROUTES};
use berth_local::{Options, Stack};
use yaml_rust2::{Yaml, YamlLoader};

/// The checkout that the test was built in.
fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = checkout().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The template. The parser leaves `CloudFormation`'s tags out: `!Ref Table` reads as the text `Table`, and
/// `!GetAtt Table.Arn` as `Table.Arn`.
struct Template(Yaml);

/// One function of the template.
struct Function<'a> {
    name: String,
    package: String,
    properties: &'a Yaml,
    globals: &'a Yaml,
}

impl Template {
    fn read() -> Self {
        Self(
            YamlLoader::load_from_str(&read("template.yaml"))
                .unwrap()
                .remove(0),
        )
    }

    fn resources(&self) -> impl Iterator<Item = (&str, &Yaml)> {
        entries(&self.0["Resources"])
    }

    fn resource(&self, name: &str) -> &Yaml {
        let resource = &self.0["Resources"][name];
        assert!(!resource.is_badvalue(), "there is no {name}");
        resource
    }

    fn functions(&self) -> Vec<Function<'_>> {
        self.resources()
            .filter(|(_, resource)| text(&resource["Type"]) == "AWS::Serverless::Function")
            .map(|(name, resource)| {
                let code = text(&resource["Properties"]["CodeUri"]);
                let package = code
                    .strip_prefix("functions/")
                    .expect("code outside of functions/");
                Function {
                    name: name.to_owned(),
                    package: package.to_owned(),
                    properties: &resource["Properties"],
                    globals: &self.0["Globals"]["Function"],
                }
            })
            .collect()
    }

    /// What a value comes to when nothing but the parameters without a default is given.
    fn value(&self, value: &Yaml) -> String {
        let name = text(value);
        let parameter = &self.0["Parameters"][name.as_str()];
        if !parameter.is_badvalue() {
            let default = &parameter["Default"];
            return if default.is_badvalue() {
                "https://given.example.com".to_owned()
            } else {
                text(default)
            };
        }
        if name.chars().all(char::is_alphanumeric) && !self.0["Resources"][name.as_str()].is_badvalue() {
            return format!("the-{name}");
        }
        name
    }
}

impl Function<'_> {
    /// A property of the function's own, or else of all functions.
    fn property(&self, name: &str) -> &Yaml {
        let own = &self.properties[name];
        if own.is_badvalue() {
            &self.globals[name]
        } else {
            own
        }
    }

    fn events(&self) -> impl Iterator<Item = (&str, &Yaml)> {
        entries(&self.properties["Events"])
            .map(|(_, event)| (event["Type"].as_str().unwrap(), &event["Properties"]))
    }

    fn statements(&self) -> Vec<&Yaml> {
        let policies = self.properties["Policies"]
            .as_vec()
            .expect("a function without permissions of its own");
        policies
            .iter()
            .flat_map(|policy| policy["Statement"].as_vec().unwrap())
            .collect()
    }

    fn variables(&self) -> BTreeMap<&str, &Yaml> {
        let common = &self.globals["Environment"]["Variables"];
        let own = &self.properties["Environment"]["Variables"];
        entries(common).chain(entries(own)).collect()
    }

    /// What the function's program says that it needs.
    fn needs(&self) -> Needs {
        let program = read(format!("functions/{}/src/main.rs", self.package));
        let said = program
            .split("Needs::")
            .skip(1)
            .map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap());
        match said.collect::<Vec<_>>().as_slice() {
            ["Credentials"] => Needs::Credentials,
            ["CredentialsAndDataKeys"] => Needs::CredentialsAndDataKeys,
            ["Access"] => Needs::Access,
            ["Everything"] => Needs::Everything,
            other => panic!("{} says that it needs {other:?}", self.package),
        }
    }
}

fn entries(map: &Yaml) -> impl Iterator<Item = (&str, &Yaml)> {
    map.as_hash()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str().expect("a key that is no text"), value))
}

fn text(value: &Yaml) -> String {
    match value {
        Yaml::String(text) | Yaml::Real(text) => text.clone(),
        Yaml::Integer(number) => number.to_string(),
        other => panic!("not a plain value: {other:?}"),
    }
}

/// The texts of a list, or the one text that stands in place of a list.
fn texts(value: &Yaml) -> Vec<String> {
    value
        .as_vec()
        .map_or_else(|| vec![text(value)], |list| list.iter().map(text).collect())
}

#[test]
fn the_api_has_exactly_the_routes_of_the_code_each_with_its_function_and_its_authorizer() {
    let template = Template::read();
    let mut deployed = BTreeSet::new();
    for function in template.functions() {
        for (_, event) in function.events().filter(|(kind, _)| *kind == "HttpApi") {
            assert_eq!(text(&event["PayloadFormatVersion"]), "2.0", "{}", function.name);
            let key = if event["Path"].is_badvalue() {
                "$default".to_owned()
            } else {
                format!("{} {}", text(&event["Method"]), text(&event["Path"]))
            };
            let authorizer = event["Auth"]["Authorizer"].as_str().unwrap_or("Jwt").to_owned();
            let is_new = deployed.insert((key, function.package.clone(), authorizer));
            assert!(is_new, "{} has a route twice", function.name);
        }
    }
    let authorizer = |access: Access| match access {
        Access::Anyone => "NONE",
        Access::User => "Jwt",
    };
    let mut expected: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| {
            let key = format!("{} {}", route.method, route.path);
            (
                key,
                route.function.to_owned(),
                authorizer(route.access).to_owned(),
            )
        })
        .collect();
    for key in ["OPTIONS /{proxy+}", "$default"] {
        expected.insert((key.to_owned(), "status".to_owned(), "NONE".to_owned()));
    }
    assert_eq!(deployed, expected);
}

#[test]
fn the_api_lets_nobody_without_a_valid_token_through_unless_a_route_says_so() {
    let template = Template::read();
    let auth = &template.resource("Api")["Properties"]["Auth"];
    assert_eq!(auth["DefaultAuthorizer"].as_str(), Some("Jwt"));
    let jwt = &auth["Authorizers"]["Jwt"]["JwtConfiguration"];
    assert_eq!(
        (text(&jwt["issuer"]), text(&jwt["audience"])),
        ("JwtIssuer".to_owned(), "JwtAudience".to_owned())
    );
}

#[test]
fn every_function_of_the_workspace_is_deployed() {
    let template = Template::read();
    let packages: BTreeSet<String> = std::fs::read_dir(checkout().join("functions"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for package in &packages {
        let manifest = read(format!("functions/{package}/Cargo.toml"));
        // The build looks for a program of the package's name, and all programs share one target folder.
        assert!(
            manifest.contains(&format!("[package]\nname = \"{package}\"\n")),
            "{package}"
        );
        assert!(!manifest.contains("[[bin]]"), "{package}");
    }
    let deployed: Vec<String> = template
        .functions()
        .into_iter()
        .map(|function| function.package)
        .collect();
    assert_eq!(packages.len(), deployed.len());
    assert_eq!(packages, deployed.into_iter().collect());
}

#[test]
fn every_function_has_bounds_logs_and_a_sample_event_of_its_own() {
    let template = Template::read();
    for function in template.functions() {
        let name = &function.name;
        let memory = function.property("MemorySize").as_i64().expect(name);
        assert!((256..=1769).contains(&memory), "{name}");
        let timeout = function.property("Timeout").as_i64().expect(name);
        let answers_requests = function.events().any(|(kind, _)| kind == "HttpApi");
        // API Gateway gives up after 30 seconds. A run of the access sync may take what Lambda gives at most.
        let longest = match function.package.as_str() {
            _ if answers_requests => 29,
            "access-sync-schedule" | "access-rescan-schedule" => 900,
            _ => 300,
        };
        assert!((10..=longest).contains(&timeout), "{name}");
        assert_eq!(text(function.property("Tracing")), "Active");
        assert_eq!(texts(function.property("Architectures")), ["arm64"]);
        assert_eq!(text(function.property("Runtime")), "provided.al2023");

        let metadata = &template.resource(name)["Metadata"]["BuildMethod"];
        assert_eq!(text(metadata), "rust-cargolambda", "{name}");
        assert_eq!(text(&function.globals["LoggingConfig"]["LogFormat"]), "JSON");
        let group = template.resource(&text(&function.properties["LoggingConfig"]["LogGroup"]));
        assert_eq!(text(&group["Properties"]["RetentionInDays"]), "LogRetentionDays");
        assert!(text(&group["Properties"]["LogGroupName"]).ends_with(&format!("/{}", function.package)));

        let event = read(format!("infra/events/{}.json", function.package));
        let event: serde_json::Value = serde_json::from_str(&event).expect(name);
        if answers_requests {
            let route = event["routeKey"]
                .as_str()
                .and_then(berth::http::routes::by_key)
                .expect(name);
            assert_eq!(route.function, function.package);
        }
    }
}

#[test]
fn every_function_starts_with_the_settings_that_the_template_gives_it() {
    let template = Template::read();
    for function in template.functions() {
        let variables = function.variables();
        let looked_up = RefCell::new(BTreeSet::new());
        let lookup = |name: &str| {
            looked_up.borrow_mut().insert(name.to_owned());
            match name {
                "AWS_REGION" => Some("eu-central-1".to_owned()),
                _ => variables.get(name).map(|value| template.value(value)),
            }
        };
        let config = Config::read_deployed(&lookup, &function.needs().required())
            .unwrap_or_else(|errors| panic!("{}: {errors}", function.name));
        assert_eq!(config.table_name, "the-Table");
        for name in variables.keys() {
            assert!(
                looked_up.borrow().contains(*name),
                "{} is given {name}, which nothing reads",
                function.name
            );
        }
    }
}

#[test]
fn no_function_may_do_more_than_it_needs() {
    let template = Template::read();
    for function in template.functions() {
        let name = &function.name;
        let mut secrets = Vec::new();
        for statement in function.statements() {
            assert_eq!(text(&statement["Effect"]), "Allow", "{name}");
            let actions = texts(&statement["Action"]);
            let resources = texts(&statement["Resource"]);
            for granted in actions.iter().chain(&resources) {
                assert!(!granted.contains('*'), "{name} may {granted}");
            }
            for action in &actions {
                let on: &[&str] = match action.as_str() {
                    "dynamodb:Query" => &["Table.Arn", "${Table.Arn}/index/gsi1"],
                    "dynamodb:DescribeStream" | "dynamodb:GetRecords" | "dynamodb:GetShardIterator" => {
                        &["Table.StreamArn"]
                    }
                    "dynamodb:BatchGetItem"
                    | "dynamodb:ConditionCheckItem"
                    | "dynamodb:DeleteItem"
                    | "dynamodb:GetItem"
                    | "dynamodb:PutItem"
                    | "dynamodb:UpdateItem" => &["Table.Arn"],
                    "secretsmanager:GetSecretValue" => &["SnapTradeSecret", "DataKeySecret", "AccessSecret"],
                    "sqs:SendMessage" => &["WebhookFailures.Arn"],
                    other => panic!("{name} may {other}, which no code does"),
                };
                for resource in &resources {
                    assert!(
                        on.contains(&resource.as_str()),
                        "{name} may {action} on {resource}"
                    );
                }
            }
            if actions == ["secretsmanager:GetSecretValue"] {
                secrets = resources;
            }
        }
        let needs = function.needs();
        let all = [
            (needs.credentials(), "SnapTradeSecret"),
            (needs.data_keys(), "DataKeySecret"),
            (needs.access(), "AccessSecret"),
        ];
        let needed = all.iter().filter(|(needed, _)| *needed);
        let expected: Vec<_> = needed.map(|(_, secret)| *secret).collect();
        assert_eq!(secrets, expected, "{name}");
        for (variable, needed) in [
            ("DATA_KEY_SECRET_ID", needs.data_keys()),
            ("ACCESS_SECRET_ID", needs.access()),
        ] {
            assert_eq!(function.variables().contains_key(variable), needed, "{name}");
        }
        // Roles that are written out, or policies of AWS's own, would escape what is checked here.
        for escape in ["Role", "ManagedPolicyArns"] {
            assert!(function.property(escape).is_badvalue(), "{name}");
        }
    }
}

#[test]
fn scheduled_functions_do_not_overlap_and_their_failures_are_kept() {
    let template = Template::read();
    let mut scheduled = 0;
    for function in template.functions() {
        let schedules: Vec<_> = function
            .events()
            .filter(|(kind, _)| *kind == "ScheduleV2")
            .collect();
        assert_eq!(
            schedules.len(),
            usize::from(function.package.ends_with("-schedule")),
            "{}",
            function.name
        );
        for (_, schedule) in schedules {
            scheduled += 1;
            let parameter = text(&schedule["ScheduleExpression"]);
            assert!(text(&template.0["Parameters"][parameter.as_str()]["Default"]).starts_with("rate("));
            // Without this, two stacks in one account would fight for one name.
            assert_eq!(schedule["OmitName"].as_bool(), Some(true));
            assert_eq!(text(&schedule["DeadLetterConfig"]["Arn"]), "ScheduleFailures.Arn");
            assert!(schedule["RetryPolicy"]["MaximumRetryAttempts"].as_i64().is_some());
            let asynchronous = &function.properties["EventInvokeConfig"]["DestinationConfig"]["OnFailure"];
            assert_eq!(text(&asynchronous["Destination"]), "ScheduleFailures.Arn");
            assert!(!function.properties["ReservedConcurrentExecutions"].is_badvalue());
        }
    }
    assert_eq!(scheduled, 4);
}

#[test]
fn the_tables_stream_wakes_the_worker_for_new_events_only() {
    let template = Template::read();
    let mapping = &template.resource("WebhookWorkerEvents")["Properties"];
    assert_eq!(text(&mapping["FunctionName"]), "WebhookWorkerFunction");
    assert_eq!(text(&mapping["EventSourceArn"]), "Table.StreamArn");
    assert_eq!(mapping["BatchSize"].as_i64(), Some(10));
    assert_eq!(mapping["BisectBatchOnFunctionError"].as_bool(), Some(true));
    assert_eq!(
        texts(&mapping["FunctionResponseTypes"]),
        ["ReportBatchItemFailures"]
    );
    assert!(
        mapping["MaximumRetryAttempts"]
            .as_i64()
            .is_some_and(|attempts| attempts > 0)
    );
    assert_eq!(
        text(&mapping["DestinationConfig"]["OnFailure"]["Destination"]),
        "WebhookFailures.Arn"
    );
    let filter = text(&mapping["FilterCriteria"]["Filters"][0]["Pattern"]);
    let filter: serde_json::Value = serde_json::from_str(&filter).unwrap();
    let wanted = serde_json::json!({"eventName": ["INSERT"], "dynamodb": {"Keys": {"sk": {"S": ["EVENT"]}}}});
    assert_eq!(filter, wanted);
}

#[test]
fn what_is_kept_outlives_the_stack_and_can_be_brought_back() {
    let template = Template::read();
    for name in ["Table", "SnapTradeSecret", "DataKeySecret", "AccessSecret"] {
        for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
            assert_eq!(template.resource(name)[policy].as_str(), Some("Retain"), "{name}");
        }
    }
    for secret in ["SnapTradeSecret", "DataKeySecret", "AccessSecret"] {
        let properties = &template.resource(secret)["Properties"];
        assert!(properties["SecretString"].is_badvalue() && properties["GenerateSecretString"].is_badvalue());
    }
    let table = &template.resource("Table")["Properties"];
    assert_eq!(table["DeletionProtectionEnabled"].as_bool(), Some(true));
    assert_eq!(table["SSESpecification"]["SSEEnabled"].as_bool(), Some(true));
    let recovery = &table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"];
    assert_eq!(recovery.as_bool(), Some(true));
}

/// The table of a local stack.
async fn created_table() -> TableDescription {
    let stack = Stack::start(Options::default()).await.unwrap();
    let endpoint = BaseUrl::parse(&stack.urls().dynamodb).unwrap();
    let http = berth::snaptrade::http_client().unwrap();
    let client = berth::app::aws::dynamodb(&AwsAccess::local("test"), http, Some(&endpoint), "test");
    let tables = client.list_tables().send().await.unwrap();
    let [name] = tables.table_names() else {
        panic!("there is one table")
    };
    let described = client.describe_table().table_name(name).send().await.unwrap();
    let table = described.table().unwrap().clone();
    stack.shutdown().await;
    table
}

#[tokio::test]
async fn the_table_has_the_shape_that_the_code_creates_on_one_machine() {
    let template = Template::read();
    let table = &template.resource("Table")["Properties"];
    let keys = |schema: &Yaml| -> Vec<(String, String)> {
        let part = |key: &Yaml| (text(&key["AttributeName"]), text(&key["KeyType"]));
        schema.as_vec().unwrap().iter().map(part).collect()
    };
    let created = created_table().await;
    let created_keys = |schema: &[KeySchemaElement]| -> Vec<(String, String)> {
        let part = |key: &KeySchemaElement| (key.attribute_name.clone(), key.key_type.to_string());
        schema.iter().map(part).collect()
    };
    assert_eq!(keys(&table["KeySchema"]), created_keys(created.key_schema()));
    let [index] = created.global_secondary_indexes() else {
        panic!("there is one index")
    };
    assert_eq!(table["GlobalSecondaryIndexes"].as_vec().map(Vec::len), Some(1));
    let deployed = &table["GlobalSecondaryIndexes"][0];
    assert_eq!(Some(text(&deployed["IndexName"]).as_str()), index.index_name());
    assert_eq!(keys(&deployed["KeySchema"]), created_keys(index.key_schema()));
    assert_eq!(text(&deployed["Projection"]["ProjectionType"]), "ALL");
    let stream = created
        .stream_specification()
        .and_then(|stream| stream.stream_view_type())
        .unwrap();
    assert_eq!(
        text(&table["StreamSpecification"]["StreamViewType"]),
        stream.as_str()
    );
    assert_eq!(
        text(&table["TimeToLiveSpecification"]["AttributeName"]),
        "expires_at"
    );
    assert_eq!(text(&table["BillingMode"]), "PAY_PER_REQUEST");
}

#[test]
fn the_sample_webhook_is_signed_and_becomes_the_sample_event_of_the_worker() {
    let event = |function: &str| -> serde_json::Value {
        serde_json::from_str(&read(format!("infra/events/{function}.json"))).unwrap()
    };
    let sent = event("webhook");
    let body = sent["body"].as_str().unwrap();
    let signature = sent["headers"]["signature"].as_str().unwrap();
    let key = "sandbox-consumer-key".into();
    let verified = berth::snaptrade::webhook::verify(&key, body.as_bytes(), signature).unwrap();

    let image = event("webhook-worker")["Records"][0]["dynamodb"]["NewImage"].clone();
    let item = image
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| {
            let value = match (value["S"].as_str(), value["N"].as_str()) {
                (Some(text), _) => AttributeValue::S(text.to_owned()),
                (_, number) => AttributeValue::N(number.unwrap().to_owned()),
            };
            (name.clone(), value)
        })
        .collect();
    let (_, stored) = berth::webhooks::stored(&item).unwrap().unwrap();
    assert_eq!(stored.webhook_id, verified.webhook_id);
    assert_eq!(stored.body, body);
}

/// Sends a request to the stack, which has to succeed.
async fn send(
    stack: &Stack,
    method: &str,
    url: String,
    token: &str,
    body: serde_json::Value,
) -> serde_json::Value {
    let client = berth::snaptrade::http_client().unwrap();
    let request = client
        .request(method.parse().unwrap(), &url)
        .bearer_auth(token)
        .json(&body);
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(
        status.is_success(),
        "{method} {url}: {status} {text}, with {} calls",
        stack.calls(None).len()
    );
    serde_json::from_str(&text).unwrap_or_default()
}

/// Has the functions of the access sync do what they do.
async fn play_access_sync(stack: &Stack) {
    const OPERATOR: &str = "dev:ops:operator";
    let (api, sandbox) = (stack.urls().api.clone(), stack.urls().access.clone());
    let sample = format!("{sandbox}/__sandbox/sample");
    send(stack, "POST", sample, "", serde_json::json!({})).await;
    let event =
        serde_json::json!({"event": "transaction-completed", "type": "transaction", "data": {"id": 1003}});
    let request = berth::snaptrade::http_client()
        .unwrap()
        .post(format!("{api}/api/access/webhook"))
        .header("MEMBERPRESS-WEBHOOK-KEY", "sandbox-webhook-key")
        .json(&event);
    assert_eq!(request.send().await.unwrap().status(), 202);
    let ask = async |method: &str, path: &str, body: serde_json::Value| {
        send(stack, method, format!("{api}/api/access/{path}"), OPERATOR, body).await
    };
    let nothing = || serde_json::json!({});
    let plan = ask("GET", "plan", nothing()).await;
    let plan = plan.pointer("/id").unwrap().as_str().unwrap();
    ask("POST", &format!("plans/{plan}/approve"), nothing()).await;
    ask("POST", "sync", nothing()).await;
    ask(
        "POST",
        "revocations",
        serde_json::json!({"transaction_id": 1003, "reason": "chargeback"}),
    )
    .await;
    ask("POST", "resync", serde_json::json!({"product_id": 100})).await;
    ask("POST", "repair", nothing()).await;
    ask("GET", "dead-letters", nothing()).await;
    let reviews = ask("GET", "reviews", nothing()).await;
    let review = reviews.pointer("/data/0/id").unwrap().as_str().unwrap();
    ask(
        "POST",
        &format!("reviews/{review}"),
        serde_json::json!({"action": "retry"}),
    )
    .await;
    let data = ask("GET", "scripts/S1", nothing()).await;
    ask("PUT", "scripts/S1", data).await;
}

#[tokio::test]
async fn no_function_makes_a_call_to_the_table_that_its_role_does_not_allow() {
    const OPERATOR: &str = "dev:ops:operator";
    let stack = Stack::start(Options {
        limit: Some(2),
        ..Options::default()
    })
    .await
    .unwrap();
    let (api, sandbox) = (stack.urls().api.clone(), stack.urls().snaptrade.clone());
    let nothing = || serde_json::json!({});
    for user in ["ada", "grace", "mary"] {
        let token = format!("dev:{user}");
        send(
            &stack,
            "POST",
            format!("{api}/api/snaptrade/register"),
            &token,
            nothing(),
        )
        .await;
        send(
            &stack,
            "POST",
            format!("{api}/api/snaptrade/handle-connection-limit"),
            &token,
            nothing(),
        )
        .await;
    }
    send(
        &stack,
        "POST",
        format!("{api}/api/snaptrade/connection-url"),
        "dev:mary",
        nothing(),
    )
    .await;
    let mary = serde_json::json!({"user_id": "mary"});
    send(&stack, "POST", format!("{sandbox}/__sandbox/connect"), "", mary).await;
    send(
        &stack,
        "POST",
        format!("{api}/api/snaptrade/callback"),
        "dev:mary",
        nothing(),
    )
    .await;
    send(
        &stack,
        "POST",
        format!("{api}/api/snaptrade/refresh"),
        "dev:mary",
        nothing(),
    )
    .await;
    for method in ["GET", "POST"] {
        let path = if method == "GET" { "status" } else { "sync" };
        send(
            &stack,
            method,
            format!("{api}/api/snaptrade/{path}"),
            OPERATOR,
            nothing(),
        )
        .await;
    }
    send(
        &stack,
        "GET",
        format!("{api}/api/snaptrade/users"),
        OPERATOR,
        nothing(),
    )
    .await;
    play_access_sync(&stack).await;
    for schedule in ["connection-sync", "refresh", "access-sync", "access-rescan"] {
        send(
            &stack,
            "POST",
            format!("{api}/__local/schedules/{schedule}"),
            "",
            nothing(),
        )
        .await;
    }
    send(
        &stack,
        "POST",
        format!("{api}/api/snaptrade/users/delete-oldest"),
        OPERATOR,
        nothing(),
    )
    .await;

    let template = Template::read();
    let mut seen = BTreeSet::new();
    for ((caller, operation), _) in stack.dynamodb().calls() {
        let functions = template.functions();
        let Some(function) = functions.iter().find(|function| function.package == caller) else {
            continue;
        };
        seen.insert(caller.clone());
        let allowed: BTreeSet<String> = function
            .statements()
            .iter()
            .flat_map(|statement| texts(&statement["Action"]))
            .collect();
        // A transaction needs the permission of each of its writes, and an audit entry is put by every one.
        let action = if operation == "TransactWriteItems" {
            "PutItem"
        } else {
            &operation
        };
        assert!(
            allowed.contains(&format!("dynamodb:{action}")),
            "{caller} calls {operation}"
        );
    }
    let deployed: BTreeSet<String> = template
        .functions()
        .into_iter()
        .map(|function| function.package)
        .collect();
    assert_eq!(seen, deployed, "each function is to make some call here");
    stack.shutdown().await;
}
