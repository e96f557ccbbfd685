//! What invocations tell CloudWatch: lines in its embedded metric format, held against the rules that AWS publishes for
//! it ("Specification: Embedded metric format" in the user guide of Amazon CloudWatch).

use std::collections::BTreeSet;

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Answer, World};

/// The units that CloudWatch takes. Source: API reference of Amazon CloudWatch, `MetricDatum`.
const UNITS: [&str; 27] = [
    "Seconds",
    "Microseconds",
    "Milliseconds",
    "Bytes",
    "Kilobytes",
    "Megabytes",
    "Gigabytes",
    "Terabytes",
    "Bits",
    "Kilobits",
    "Megabits",
    "Gigabits",
    "Terabits",
    "Percent",
    "Count",
    "Bytes/Second",
    "Kilobytes/Second",
    "Megabytes/Second",
    "Gigabytes/Second",
    "Terabytes/Second",
    "Bits/Second",
    "Kilobits/Second",
    "Megabits/Second",
    "Gigabits/Second",
    "Terabits/Second",
    "Count/Second",
    "None",
];

/// What CloudWatch would reject or leave out of a line.
fn faults(line: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    if line.to_string().len() > 256 * 1024 {
        faults.push("it is longer than a log event may be".to_owned());
    }
    let now = Timestamp::now().as_millisecond();
    let timestamp = line["_aws"]["Timestamp"].as_i64();
    // In seconds it would be of the year 1970.
    if !timestamp.is_some_and(|at| (now - 14 * 24 * 3_600_000..=now + 2 * 3_600_000).contains(&at)) {
        faults.push(format!("the time stamp is {}", line["_aws"]["Timestamp"]));
    }
    let directives = line["_aws"]["CloudWatchMetrics"].as_array();
    if directives.is_none_or(Vec::is_empty) {
        faults.push("there is no directive".to_owned());
    }
    for directive in directives.into_iter().flatten() {
        faults.extend(faults_of_directive(line, directive));
    }
    faults
}

fn faults_of_directive(line: &Value, directive: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let is_text = |value: &Value, most: usize| {
        value
            .as_str()
            .is_some_and(|text| (1..=most).contains(&text.len()))
    };
    if !is_text(&directive["Namespace"], 1024) {
        faults.push(format!("the namespace is {}", directive["Namespace"]));
    }
    let dimensions = directive["Dimensions"].as_array();
    if dimensions.is_none_or(Vec::is_empty) {
        faults.push("there is no set of dimensions".to_owned());
    }
    for set in dimensions.into_iter().flatten() {
        match set.as_array() {
            Some(names) if names.len() <= 30 => {
                for name in names {
                    let value = name.as_str().map(|name| &line[name]);
                    if !value.is_some_and(|value| is_text(value, 1024)) {
                        faults.push(format!("the dimension {name} has the value {value:?}"));
                    }
                }
            }
            _ => faults.push(format!("a set of dimensions is {set}")),
        }
    }
    let metrics = directive["Metrics"].as_array();
    if metrics.is_none_or(|metrics| metrics.is_empty() || metrics.len() > 100) {
        faults.push("there are no metrics, or more than 100".to_owned());
    }
    let mut seen = BTreeSet::new();
    for metric in metrics.into_iter().flatten() {
        let Some(name) = metric["Name"].as_str().filter(|_| is_text(&metric["Name"], 1024)) else {
            faults.push(format!("a metric has the name {}", metric["Name"]));
            continue;
        };
        if !seen.insert(name) {
            faults.push(format!("{name} is there twice"));
        }
        if !metric["Unit"].as_str().is_some_and(|unit| UNITS.contains(&unit)) {
            faults.push(format!("{name} has the unit {}", metric["Unit"]));
        }
        let is_target = match &line[name] {
            Value::Number(_) => true,
            Value::Array(values) => (1..=100).contains(&values.len()) && values.iter().all(Value::is_number),
            _ => false,
        };
        if !is_target {
            faults.push(format!("{name} has the value {}", line[name]));
        }
    }
    faults
}

/// The names of the metrics on a line.
fn names(line: &Value) -> BTreeSet<String> {
    let metrics = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array();
    metrics
        .into_iter()
        .flatten()
        .map(|metric| metric["Name"].as_str().unwrap().to_owned())
        .collect()
}

impl World {
    /// The lines of metrics so far.
    async fn metrics(&self) -> Vec<Value> {
        let lines = self
            .request(Method::GET, "/__local/metrics")
            .send()
            .await
            .unwrap();
        lines.json().await.unwrap()
    }

    /// The line of the invocation that gave this answer: there is exactly one.
    async fn metrics_of(&self, answer: &Answer) -> Value {
        let mut lines = self.metrics().await;
        lines.retain(|line| line["request_id"] == answer.request_id());
        assert_eq!(lines.len(), 1, "{lines:#?}");
        lines.remove(0)
    }

    async fn fire(&self, schedule: &str) {
        let path = format!("/__local/schedules/{schedule}");
        let fired = self.request(Method::POST, &path).send().await.unwrap();
        assert_eq!(fired.status(), 200);
    }
}

#[tokio::test]
async fn every_invocation_writes_one_line_that_cloudwatch_takes() {
    let world = World::with_limit(1).await;
    world.register("ada").await.with_status(201);
    let evicting = world.register("bob").await;
    let line = world.metrics_of(&evicting).await;
    for (name, value) in [
        ("Function", json!("register")),
        ("Environment", json!("sandbox")),
        ("tenant", json!("default")),
        ("Invocations", json!(1.0)),
        ("Errors", json!(0.0)),
        ("Registrations", json!(1.0)),
        ("Evictions", json!(1.0)),
        ("eviction_reason", json!("oldest")),
        ("SlotsInUse", json!(1.0)),
        ("SlotLimit", json!(1.0)),
        ("SlotUse", json!(100.0)),
        ("SnapTradeCalls", json!(2.0)),
    ] {
        assert_eq!(line[name], value, "{name}: {line:#}");
    }
    assert_eq!(line["SnapTradeTime"].as_array().unwrap().len(), 2);
    assert!(names(&line).contains("RateLimitUse"), "{line:#}");

    let unsigned = world.send_webhook(b"{}".to_vec(), Some("forged")).await;
    assert_eq!(world.metrics_of(&unsigned).await["SignatureFailures"], 1.0);
    let link = world.connection_url("bob", json!({})).await;
    assert_eq!(world.metrics_of(&link).await["PortalLinks"], 1.0);
    world.connect("bob").await;
    world.events_done().await;
    world.sync().await.with_status(200);
    for schedule in ["connection-sync", "refresh", "access-sync", "access-rescan"] {
        world.fire(schedule).await;
    }
    world
        .send(world.as_user("bob", Method::GET, "/nowhere"))
        .await
        .with_status(404);
    world.fail_with("registerUser", 500, 4).await;
    let failed = world.register("cy").await;
    let line = world.metrics_of(&failed).await;
    assert_eq!(line["Errors"], 1.0, "{line:#}");
    assert!(line["SnapTradeErrors"].as_f64() >= Some(1.0), "{line:#}");
    assert_eq!(line["code"], "upstream_error");
    world.clear_faults().await;
    world.fail_with("listUsers", 401, 4).await;
    let refused = world.sync().await;
    let line = world.metrics_of(&refused).await;
    assert!(line["AuthenticationFailures"].as_f64() >= Some(1.0), "{line:#}");
    assert_eq!(line["SyncFailures"], 1.0, "{line:#}");

    let lines = world.metrics().await;
    for line in &lines {
        assert_eq!(faults(line), Vec::<String>::new(), "{line:#}");
    }
    let functions: BTreeSet<_> = lines.iter().map(|line| line["Function"].to_string()).collect();
    for function in [
        "register",
        "webhook",
        "webhook-worker",
        "connection-sync-schedule",
        "access-sync-schedule",
    ] {
        assert!(functions.contains(&format!("{function:?}")), "{functions:?}");
    }
    let told: BTreeSet<String> = lines.iter().flat_map(names).collect();
    for name in [
        "ColdStarts",
        "ClientErrors",
        "Syncs",
        "SyncDifference",
        "ActiveConnections",
        "EventsReceived",
        "EventsApplied",
        "EventLag",
        "ConnectionsMade",
        "TimeToConnect",
        "RefreshedUsers",
        "AccessSyncs",
        "AccessGranted",
        "AccessTime",
        "AccessActiveUsers",
        "DynamoDbTime",
    ] {
        assert!(told.contains(name), "nothing told of {name}: {told:?}");
    }
    // Whoever it is about is nowhere on a line.
    for line in &lines {
        assert!(!line.to_string().contains("\"bob\""), "{line}");
    }
    world.stop().await;
}

#[test]
fn a_line_that_cloudwatch_would_not_take_is_told_from_one_that_it_takes() {
    let good = json!({
        "_aws": {"Timestamp": Timestamp::now().as_millisecond(), "CloudWatchMetrics": [{
            "Namespace": "Berth", "Dimensions": [["Environment"]], "Metrics": [{"Name": "Syncs", "Unit": "Count"}],
        }]},
        "Environment": "sandbox", "Syncs": 1,
    });
    assert_eq!(faults(&good), Vec::<String>::new());
    for (pointer, value) in [
        ("/_aws/Timestamp", json!(Timestamp::now().as_second())),
        ("/_aws/CloudWatchMetrics", json!([])),
        ("/_aws/CloudWatchMetrics/0/Namespace", json!("")),
        ("/_aws/CloudWatchMetrics/0/Dimensions/0/0", json!("Function")),
        ("/_aws/CloudWatchMetrics/0/Metrics", json!([])),
        ("/_aws/CloudWatchMetrics/0/Metrics/0/Unit", json!("Pieces")),
        ("/_aws/CloudWatchMetrics/0/Metrics/0/Name", json!("Absent")),
        ("/Syncs", json!("1")),
        ("/Syncs", json!(vec![1; 101])),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert_eq!(faults(&bad).len(), 1, "{bad:#}");
    }
}
