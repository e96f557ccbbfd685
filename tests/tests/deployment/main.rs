//! The deployment's template against the code: what is deployed has to be what the code expects.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails may panic"
)]

mod permissions;
mod runtime;
mod template;

use std::cell::RefCell;
use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::{AttributeValue, KeySchemaElement, TableDescription};
use berth::app::AwsAccess;
use berth::config::{BaseUrl, Config};
use berth::http::routes::{Access, ROUTES};
use berth::telemetry::metrics::{Metric, NAMESPACE};
use berth_local::{Options, Stack};
use yaml_rust2::Yaml;

use template::{Function, Template, checkout, entries, read, text, texts};

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
fn every_function_moves_to_a_new_version_under_the_eyes_of_an_alarm_of_its_own() {
    let template = Template::read();
    let rollback = Template::read_from("infra/rollback.yaml");
    let alarms: BTreeSet<_> = rollback.resources().map(|(name, _)| name.to_owned()).collect();
    let functions = template.functions();
    assert_eq!(alarms.len(), functions.len());
    for function in functions {
        let (name, package) = (&function.name, &function.package);
        assert_eq!(text(function.property("AutoPublishAlias")), "live");
        // Else a change of settings alone would reach nobody, because what is called is the alias's version.
        assert_eq!(
            function.properties["AutoPublishAliasAllProperties"].as_bool(),
            Some(true),
            "{name}"
        );
        assert_eq!(
            texts(&function.globals["DeploymentPreference"]["Type"]),
            ["InMaintenance", "AllAtOnce", "DeploymentPreference"]
        );
        // What stands among the globals alone, the transform that puts parameters' values in does not see.
        let own = &function.properties["Environment"]["Variables"];
        assert_eq!(own["<<"], function.globals["Environment"]["Variables"], "{name}");
        assert_eq!(
            text(&function.properties["FunctionName"]),
            format!("${{AWS::StackName}}-{package}")
        );
        let watched = texts(&function.properties["DeploymentPreference"]["Alarms"]);
        let [watched] = watched.as_slice() else {
            panic!("{name} has one alarm")
        };
        let alarm = watched.strip_prefix("Rollback.Outputs.").expect(name);
        assert_eq!(text(&rollback.0["Outputs"][alarm]["Value"]), alarm);
        let properties = &rollback.resource(alarm)["Properties"];
        assert_eq!(
            (text(&properties["Namespace"]), text(&properties["MetricName"])),
            ("AWS/Lambda".to_owned(), "Errors".to_owned())
        );
        let dimensions: Vec<_> = properties["Dimensions"]
            .as_vec()
            .unwrap()
            .iter()
            .map(|dimension| (text(&dimension["Name"]), text(&dimension["Value"])))
            .collect();
        assert_eq!(
            dimensions,
            [
                ("FunctionName".to_owned(), format!("${{StackName}}-{package}")),
                ("Resource".to_owned(), format!("${{StackName}}-{package}:live")),
            ],
            "{name}"
        );
    }
}

/// The metrics that a template's texts name in the functions' own namespace.
fn own_metrics(alarms: &Template) -> Vec<String> {
    let own = |metric: &Yaml| {
        (metric["Namespace"].as_str() == Some("Berth")).then(|| {
            assert_eq!(
                entries(&metric["Dimensions"][0])
                    .map(|(_, value)| text(value))
                    .collect::<Vec<_>>(),
                ["Environment", "MetricsEnvironment"]
            );
            text(&metric["MetricName"])
        })
    };
    let mut named = Vec::new();
    for (_, resource) in alarms.resources() {
        let properties = &resource["Properties"];
        named.extend(own(properties));
        let several = properties["Metrics"].as_vec().into_iter().flatten();
        named.extend(several.filter_map(|metric| own(&metric["MetricStat"]["Metric"])));
    }
    named
}

#[test]
fn alarms_and_dashboard_look_at_metrics_that_functions_write() {
    let known: BTreeSet<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    let alarmed = own_metrics(&Template::read_from("infra/alarms.yaml"));
    assert!(alarmed.len() >= 12, "{alarmed:?}");
    let dashboard = Template::read_from("infra/dashboard.yaml");
    let body = text(&dashboard.resource("Dashboard")["Properties"]["DashboardBody"]);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let shown: Vec<String> = body["widgets"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|widget| widget["properties"]["metrics"].as_array().unwrap())
        .filter(|metric| metric[0] == NAMESPACE)
        .map(|metric| {
            assert_eq!(
                (&metric[2], &metric[3]),
                (&"Environment".into(), &"${MetricsEnvironment}".into())
            );
            metric[1].as_str().unwrap().to_owned()
        })
        .collect();
    assert!(shown.len() >= 30, "{shown:?}");
    for metric in alarmed.iter().chain(&shown) {
        assert!(known.contains(metric.as_str()), "nothing writes {metric}");
    }
    // The functions of a stack name it in their metrics, and the alarms look for that.
    let template = Template::read();
    for nested in ["Alarms", "Dashboard"] {
        let given = &template.resource(nested)["Properties"]["Parameters"]["MetricsEnvironment"];
        assert_eq!(text(given), "AWS::StackName");
    }
    for function in template.functions() {
        assert_eq!(
            text(function.variables()["METRICS_ENVIRONMENT"]),
            "AWS::StackName"
        );
    }
}

/// The unit of what a metric of this name measures.
fn unit_by_name(name: &str) -> &'static str {
    match name {
        "TimeToConnect" | "EventLag" => "Seconds",
        "SlotsInUse" => "Count",
        time if time.ends_with("Time") => "Milliseconds",
        part if part.ends_with("Use") => "Percent",
        _ => "Count",
    }
}

/// The metrics whose unit is not that of what they measure.
fn wrong_units<'a>(units: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<&'a str> {
    let wrong = units.filter(|(name, unit)| *unit != unit_by_name(name));
    wrong.map(|(name, _)| name).collect()
}

#[test]
fn each_metric_has_the_unit_of_what_it_measures_and_another_one_is_found() {
    let units = || {
        Metric::ALL
            .iter()
            .map(|metric| (metric.name(), metric.unit().as_str()))
    };
    assert_eq!(wrong_units(units()), Vec::<&str>::new());
    let broken = units().map(|(name, unit)| match name {
        "SnapTradeTime" => (name, "Seconds"),
        "SlotUse" => (name, "Count"),
        _ => (name, unit),
    });
    let mut found = wrong_units(broken);
    found.sort_unstable();
    assert_eq!(found, ["SlotUse", "SnapTradeTime"]);
}

#[test]
fn each_alarm_has_an_entry_in_the_runbook_and_tells_somebody() {
    let alarms = Template::read_from("infra/alarms.yaml");
    let mut named = BTreeSet::new();
    for (name, alarm) in alarms.resources() {
        if text(&alarm["Type"]) != "AWS::CloudWatch::Alarm" {
            continue;
        }
        named.insert(name.to_owned());
        let properties = &alarm["Properties"];
        assert_eq!(texts(&properties["AlarmActions"]), ["Topic"], "{name}");
        assert!(!text(&properties["AlarmDescription"]).is_empty());
    }
    let runbook = read("infra/RUNBOOK.md");
    let entries: BTreeSet<_> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(str::to_owned)
        .collect();
    assert_eq!(named, entries);
}

#[test]
fn each_route_is_throttled_and_none_is_throttled_that_does_not_exist() {
    let template = Template::read();
    let api = &template.resource("Api")["Properties"];
    let standing = &api["DefaultRouteSettings"];
    assert_eq!(text(&standing["ThrottlingRateLimit"]), "ThrottleRate");
    assert_eq!(text(&standing["ThrottlingBurstLimit"]), "ThrottleBurst");
    for (key, settings) in entries(&api["RouteSettings"]) {
        assert!(berth::http::routes::by_key(key).is_some(), "{key}");
        // What a route says replaces the standing settings whole.
        let rate = settings["ThrottlingRateLimit"].as_i64().expect(key);
        let burst = settings["ThrottlingBurstLimit"].as_i64().expect(key);
        assert!(0 < rate && rate < burst, "{key}");
        assert_eq!(settings["DetailedMetricsEnabled"].as_bool(), Some(true), "{key}");
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
fn lambda_drops_no_line_that_holds_metrics() {
    // A line without a level, as those with metrics are, passes for one of INFO.
    let template = Template::read();
    let conditions = &template.0["Conditions"];
    let less: Vec<_> = conditions["LogsLess"]
        .as_vec()
        .unwrap()
        .iter()
        .map(texts)
        .collect();
    assert_eq!(less, [["LogLevel", "WARN"], ["LogLevel", "ERROR"]]);
    assert_eq!(texts(&conditions["LogsAsUsual"]), ["LogLevel", "INFO"]);
    for function in template.functions() {
        let lambda = &function.property("LoggingConfig")["ApplicationLogLevel"];
        assert!(lambda.is_badvalue(), "{} has a level of its own", function.name);
        let lambda = &function.globals["LoggingConfig"]["ApplicationLogLevel"];
        assert_eq!(texts(lambda), ["LogsLess", "INFO", "LogLevel"]);
        let own = function.variables()["LOG_LEVEL"];
        assert_eq!(texts(own), ["LogsAsUsual", "", "LogLevel"]);
    }
}

#[test]
fn no_function_may_do_more_than_it_needs() {
    let template = Template::read();
    for function in template.functions() {
        let name = &function.name;
        let mut secrets = Vec::new();
        let mut may_start = false;
        for statement in function.statements() {
            assert_eq!(text(&statement["Effect"]), "Allow", "{name}");
            let actions = texts(&statement["Action"]);
            let resources = texts(&statement["Resource"]);
            let is_conditional = !statement["Condition"].is_badvalue();
            if is_conditional {
                assert!(Function::only_starts_by(statement), "{name}");
                assert_eq!(actions, ["dynamodb:GetItem"], "{name}");
            }
            may_start |= actions.iter().any(|action| action == "dynamodb:GetItem");
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
        assert!(may_start, "{name} may not open its connection to the table");
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
            assert_eq!(
                texts(&schedule["State"]),
                ["InMaintenance", "DISABLED", "ENABLED"]
            );
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
    assert_eq!(text(&mapping["FunctionName"]), "WebhookWorkerFunction.Alias");
    assert_eq!(texts(&mapping["Enabled"]), ["InMaintenance", "false", "true"]);
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
