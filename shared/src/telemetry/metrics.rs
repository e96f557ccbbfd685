//! Metrics: one line of JSON for each invocation, in CloudWatch's embedded metric format, from which CloudWatch makes
//! metrics without a call of ours.
//!
//! Whoever does something worth a metric says so by [`count`], [`level`] or [`sample`]; what wraps the invocation
//! writes the line. Only what occurred is on it. What has many values, such as the user, is a property of the line:
//! it can be searched for, but is no dimension, since CloudWatch charges for each combination of those.
//!
//! Source: AWS, "Specification: Embedded metric format" in the user guide of Amazon CloudWatch.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{CURRENT, Invocation, Service};

/// The namespace of all metrics.
pub const NAMESPACE: &str = "Berth";

/// Most metrics on one line, as the format has it.
const MOST_METRICS: usize = 100;

/// Most values of one metric on one line, as the format has it.
const MOST_VALUES: usize = 100;

/// The unit of a metric, by CloudWatch's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Hundredths.
    Percent,
    /// Thousandths of a second.
    Milliseconds,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// CloudWatch's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Percent => "Percent",
            Self::Milliseconds => "Milliseconds",
            Self::Seconds => "Seconds",
        }
    }
}

/// Names each metric once, with its unit.
macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $name:ident: $unit:ident,)+) => {
        /// What is measured.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Metric {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name that CloudWatch has for it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// Its unit.
            #[must_use]
            pub fn unit(self) -> Unit {
                match self {
                    $(Self::$name => Unit::$unit,)+
                }
            }
        }
    };
}

metrics! {
    /// One for each invocation.
    Invocations: Count,
    /// 1 where an invocation failed and 0 where it did not, so that the average is the rate of errors.
    Errors: Count,
    /// Requests that were refused: answered with a status from 400 to 499.
    ClientErrors: Count,
    /// How long the handler took.
    ResponseTime: Milliseconds,
    /// First invocations of a process.
    ColdStarts: Count,

    /// Calls sent to the table.
    DynamoDbCalls: Count,
    /// Those of them that failed.
    DynamoDbErrors: Count,
    /// How long each took.
    DynamoDbTime: Milliseconds,
    /// Calls sent to SnapTrade.
    SnapTradeCalls: Count,
    /// Those of them that failed.
    SnapTradeErrors: Count,
    /// How long each took.
    SnapTradeTime: Milliseconds,
    /// Calls sent to WordPress and the access API.
    AccessCalls: Count,
    /// Those of them that failed.
    AccessErrors: Count,
    /// How long each took.
    AccessTime: Milliseconds,
    /// Letters handed to the mail server.
    MailCalls: Count,
    /// Those of them that failed.
    MailErrors: Count,
    /// How long each took.
    MailTime: Milliseconds,
    /// Calls that an outside service refused because there were too many.
    RateLimitHits: Count,
    /// How much of SnapTrade's own limit is used, as its answers tell.
    RateLimitUse: Percent,
    /// Outside calls that were not answered in time, and invocations whose own time was used up.
    Timeouts: Count,
    /// Calls whose credentials an outside service did not accept.
    AuthenticationFailures: Count,
    /// Calls whose user's secret SnapTrade did not accept.
    RejectedSecrets: Count,
    /// Requests refused because their caller makes too many.
    InboundLimitHits: Count,
    /// Webhooks whose signature or key does not verify.
    SignatureFailures: Count,

    /// Places taken.
    SlotsInUse: Count,
    /// Places that there are.
    SlotLimit: Count,
    /// Places taken of those that there are.
    SlotUse: Percent,
    /// Users newly registered.
    Registrations: Count,
    /// Users and connections that gave way.
    Evictions: Count,
    /// Places kept for somebody.
    Holds: Count,
    /// Requests refused because the limit is reached and nobody may give way.
    LimitRefusals: Count,

    /// Runs of the connection sync.
    Syncs: Count,
    /// Runs that could not do their work.
    SyncFailures: Count,
    /// Ids that SnapTrade had and tracking did not.
    SyncAdded: Count,
    /// Users that tracking had and SnapTrade did not.
    SyncRemoved: Count,
    /// Interrupted operations that were finished or undone.
    SyncRepaired: Count,
    /// By how much the two lists differ in length after a run.
    SyncDifference: Count,
    /// Brokerage connections tracked.
    ActiveConnections: Count,

    /// Links to the portal handed out.
    PortalLinks: Count,
    /// Connections made, by SnapTrade's events.
    ConnectionsMade: Count,
    /// Connections that broke.
    ConnectionsBroken: Count,
    /// Connections deleted.
    ConnectionsDeleted: Count,
    /// Attempts to connect that failed.
    ConnectionsFailed: Count,
    /// How long it took from the link to the connection.
    TimeToConnect: Seconds,

    /// SnapTrade's events that were taken in.
    EventsReceived: Count,
    /// Those of them that were there already.
    EventsDuplicate: Count,
    /// Events that were worked on.
    EventsApplied: Count,
    /// Events that are to be tried again.
    EventsPutOff: Count,
    /// How long it took from SnapTrade's time stamp until an event was worked on.
    EventLag: Seconds,
    /// Events and rows of the shop that were given up.
    DeadLetters: Count,

    /// Users whose holdings the schedule refreshed.
    RefreshedUsers: Count,
    /// Users with whom it failed.
    RefreshFailures: Count,
    /// Users left for its next run.
    RefreshesLeft: Count,

    /// Runs of the access sync.
    AccessSyncs: Count,
    /// Runs that could not go on.
    AccessSyncFailures: Count,
    /// Accesses given.
    AccessGranted: Count,
    /// Accesses prolonged.
    AccessExtended: Count,
    /// Accesses shortened.
    AccessShortened: Count,
    /// Accesses taken.
    AccessRevoked: Count,
    /// Rows that a person has to look at.
    AccessReviews: Count,
    /// Rows to be tried again.
    AccessRetries: Count,
    /// Rows and grants that remain for the next run.
    AccessRemaining: Count,
    /// Names with live access.
    AccessActiveUsers: Count,
}

/// How a call to an outside service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// With an answer that the service is there to give, a refusal of what was asked for among them.
    Answered,
    /// With the answer that the user's secret is not accepted.
    SecretRejected,
    /// With the answer that our credentials are not accepted.
    Unauthorized,
    /// With the answer that there were too many calls.
    Throttled,
    /// Without an answer in time.
    TimedOut,
    /// With an error of the service's own, with nonsense, or without a connection.
    Failed,
}

/// What was measured in one invocation so far.
#[derive(Debug, Default)]
pub(super) struct Measured {
    numbers: BTreeMap<Metric, f64>,
    samples: BTreeMap<Metric, Vec<f64>>,
    properties: Map<String, Value>,
}

impl Measured {
    fn count(&mut self, metric: Metric, more: u64) {
        *self.numbers.entry(metric).or_default() += float(more);
    }

    fn sample(&mut self, metric: Metric, value: f64) {
        let samples = self.samples.entry(metric).or_default();
        if value.is_finite() && samples.len() < MOST_VALUES {
            samples.push(value);
        }
    }
}

/// Counts `more` of what `metric` counts, in the invocation at hand. Counting 0 says that there was none. Outside of an
/// invocation this and the others do nothing.
pub fn count(metric: Metric, more: u64) {
    with(|measured| measured.count(metric, more));
}

/// Tells how high something stands now. Of several in one invocation the last one counts.
pub fn level(metric: Metric, value: u64) {
    with(|measured| {
        measured.numbers.insert(metric, float(value));
    });
}

/// Tells one of several values of something, such as the time that one call took. Of more than 100 in one invocation
/// the first ones count.
pub fn sample(metric: Metric, value: f64) {
    with(|measured| measured.sample(metric, value));
}

/// Tells something of the invocation that is no number: a property of its line. Nothing that is secret or names a
/// person may be one.
pub fn property(name: &'static str, value: &str) {
    with(|measured| {
        measured.properties.insert(name.to_owned(), value.into());
    });
}

/// Tells how many places are taken, of how many.
pub fn places(in_use: u32, limit: u32) {
    level(Metric::SlotsInUse, in_use.into());
    level(Metric::SlotLimit, limit.into());
    with(|measured| {
        let used = f64::from(in_use) / f64::from(limit.max(1));
        measured.numbers.insert(Metric::SlotUse, used * 100.0);
    });
}

/// Tells that somebody gave way, and why.
pub fn eviction(reason: &'static str) {
    count(Metric::Evictions, 1);
    property("eviction_reason", reason);
}

/// Tells that a call to `service` has ended, and how. That it was sent is told by [`super::count_call`].
pub fn call_ended(service: Service, end: CallEnd, took: Duration) {
    let (errors, time) = match service {
        Service::DynamoDb => (Metric::DynamoDbErrors, Metric::DynamoDbTime),
        Service::SnapTrade => (Metric::SnapTradeErrors, Metric::SnapTradeTime),
        Service::Access => (Metric::AccessErrors, Metric::AccessTime),
        Service::Mail => (Metric::MailErrors, Metric::MailTime),
    };
    sample(time, milliseconds(took));
    let also = match end {
        CallEnd::Answered => return,
        CallEnd::SecretRejected => return count(Metric::RejectedSecrets, 1),
        CallEnd::Unauthorized => Some(Metric::AuthenticationFailures),
        CallEnd::Throttled => Some(Metric::RateLimitHits),
        CallEnd::TimedOut => Some(Metric::Timeouts),
        CallEnd::Failed => None,
    };
    count(errors, 1);
    if let Some(also) = also {
        count(also, 1);
    }
}

fn with(tell: impl FnOnce(&mut Measured)) {
    let _outside = CURRENT.try_with(|scope| {
        tell(&mut scope.measured.lock().unwrap_or_else(PoisonError::into_inner));
    });
}

/// A number as CloudWatch takes it. Counts stay far below where a float becomes inexact.
#[expect(clippy::cast_precision_loss, reason = "no count comes near 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}

/// A time in milliseconds, to the microsecond.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It did its work.
    Done,
    /// It was refused, by a fault of the caller's or because it could not be granted.
    Refused,
    /// It failed.
    Failed,
}

/// Where lines go, and for which environment.
#[derive(Debug, Clone)]
pub struct Metrics {
    environment: String,
    sink: Sink,
}

/// Where lines go.
#[derive(Debug, Clone, Default)]
pub enum Sink {
    /// Nowhere.
    #[default]
    Nowhere,
    /// To standard output, from which Lambda takes them to CloudWatch.
    StandardOutput,
    /// Into this list, the last ones of them.
    Kept(Arc<Lines>),
}

/// The last lines, the oldest first.
#[derive(Debug, Default)]
pub struct Lines(Mutex<std::collections::VecDeque<String>>);

impl Lines {
    /// How many lines are kept; older ones are forgotten.
    const CAPACITY: usize = 2_000;

    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == Self::CAPACITY {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

impl Metrics {
    /// Metrics of `environment`, the dimension of that name.
    #[must_use]
    pub fn new(environment: String, sink: Sink) -> Self {
        Self { environment, sink }
    }

    /// Ends the invocation at hand: what was measured in it becomes a line. Outside of an invocation it does nothing.
    pub fn emit(&self, end: End, took: Duration) {
        if matches!(self.sink, Sink::Nowhere) {
            return;
        }
        let Some(line) = self.line(end, took, Timestamp::now()) else {
            return;
        };
        match &self.sink {
            Sink::Nowhere => {}
            Sink::StandardOutput => {
                use io::Write as _;
                // What cannot be written has nowhere to be reported.
                let _unwritten = writeln!(io::stdout().lock(), "{line}");
            }
            Sink::Kept(lines) => lines.push(line),
        }
    }

    /// The line of the invocation at hand, which ended at `now` by the system's clock.
    fn line(&self, end: End, took: Duration, now: Timestamp) -> Option<String> {
        CURRENT
            .try_with(|scope| {
                let calls = scope.counters.read();
                let mut measured =
                    std::mem::take(&mut *scope.measured.lock().unwrap_or_else(PoisonError::into_inner));
                measured.count(Metric::Invocations, 1);
                measured.count(Metric::Errors, u64::from(end == End::Failed));
                if end == End::Refused {
                    measured.count(Metric::ClientErrors, 1);
                }
                measured.numbers.insert(Metric::ResponseTime, milliseconds(took));
                if scope.invocation.cold_start {
                    measured.count(Metric::ColdStarts, 1);
                }
                for (metric, sent) in [
                    (Metric::DynamoDbCalls, calls.dynamodb),
                    (Metric::SnapTradeCalls, calls.snaptrade),
                    (Metric::AccessCalls, calls.access),
                    (Metric::MailCalls, calls.mail),
                ] {
                    if sent > 0 {
                        measured.count(metric, sent.into());
                    }
                }
                render(&self.environment, &scope.invocation, measured, now)
            })
            .ok()
    }
}

/// A line in the embedded metric format.
fn render(environment: &str, invocation: &Invocation, measured: Measured, now: Timestamp) -> String {
    let numbers = measured
        .numbers
        .into_iter()
        .map(|(metric, value)| (metric, json!(value)));
    let samples = measured
        .samples
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(metric, values)| (metric, json!(values)));
    let values: BTreeMap<Metric, Value> = numbers.chain(samples).take(MOST_METRICS).collect();
    let definitions: Vec<Value> = values
        .keys()
        .map(|metric| json!({"Name": metric.name(), "Unit": metric.unit().as_str()}))
        .collect();
    // The properties come first, so that none can take the place of what the format reads.
    let mut line = measured.properties;
    line.insert("request_id".to_owned(), invocation.request_id.clone().into());
    line.insert(
        "correlation_id".to_owned(),
        invocation.correlation_id.clone().into(),
    );
    line.insert("cold_start".to_owned(), invocation.cold_start.into());
    line.insert("Environment".to_owned(), environment.into());
    line.insert("Function".to_owned(), invocation.function.into());
    for (metric, value) in values {
        line.insert(metric.name().to_owned(), value);
    }
    line.insert(
        "_aws".to_owned(),
        json!({
            "Timestamp": now.as_millisecond(),
            "CloudWatchMetrics": [{
                "Namespace": NAMESPACE,
                // The first adds all functions up, which an alarm cannot do by itself.
                "Dimensions": [["Environment"], ["Environment", "Function"]],
                "Metrics": definitions,
            }],
        }),
    );
    Value::Object(line).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::telemetry::{count_call, in_invocation};

    fn invocation(cold_start: bool) -> Invocation {
        Invocation {
            request_id: "request-1".to_owned(),
            correlation_id: "correlation-1".to_owned(),
            function: "register",
            cold_start,
        }
    }

    /// The line of an invocation that does `work`.
    async fn line_of(cold_start: bool, end: End, work: impl FnOnce()) -> Value {
        let lines = Arc::new(Lines::default());
        let metrics = Metrics::new("staging".to_owned(), Sink::Kept(Arc::clone(&lines)));
        in_invocation(invocation(cold_start), async {
            work();
            metrics.emit(end, Duration::from_micros(12_345));
        })
        .await;
        let lines = lines.all();
        assert_eq!(lines.len(), 1);
        serde_json::from_str(&lines[0]).unwrap()
    }

    fn defined(line: &Value) -> BTreeSet<&str> {
        let metrics = line["_aws"]["CloudWatchMetrics"][0]["Metrics"]
            .as_array()
            .unwrap();
        metrics
            .iter()
            .map(|metric| metric["Name"].as_str().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn an_invocation_in_which_nothing_happened_has_three_metrics() {
        let line = line_of(false, End::Done, || {}).await;
        assert_eq!(
            defined(&line),
            BTreeSet::from(["Errors", "Invocations", "ResponseTime"])
        );
        assert_eq!(
            (&line["Invocations"], &line["Errors"]),
            (&json!(1.0), &json!(0.0))
        );
        assert_eq!(line["ResponseTime"], 12.345);
        assert_eq!(line["Environment"], "staging");
        assert_eq!(line["Function"], "register");
        assert_eq!(line["request_id"], "request-1");
    }

    #[tokio::test]
    async fn what_happened_is_added_up_and_levels_and_samples_are_kept() {
        let line = line_of(true, End::Failed, || {
            count_call(Service::SnapTrade);
            count_call(Service::SnapTrade);
            call_ended(Service::SnapTrade, CallEnd::TimedOut, Duration::from_secs(6));
            call_ended(Service::SnapTrade, CallEnd::Answered, Duration::from_millis(80));
            places(3, 5);
            places(4, 5);
            eviction("oldest");
            count(Metric::SyncAdded, 0);
        })
        .await;
        for (name, value) in [
            ("SnapTradeCalls", json!(2.0)),
            ("SnapTradeErrors", json!(1.0)),
            ("SnapTradeTime", json!([6000.0, 80.0])),
            ("Timeouts", json!(1.0)),
            ("SlotsInUse", json!(4.0)),
            ("SlotUse", json!(80.0)),
            ("Evictions", json!(1.0)),
            ("SyncAdded", json!(0.0)),
            ("ColdStarts", json!(1.0)),
            ("Errors", json!(1.0)),
        ] {
            assert_eq!(line[name], value, "{name}");
            assert!(defined(&line).contains(name), "{name}");
        }
        assert_eq!(line["eviction_reason"], "oldest");
        assert!(!defined(&line).contains("AuthenticationFailures"));
    }

    #[tokio::test]
    async fn no_line_is_longer_than_the_format_allows() {
        let line = line_of(true, End::Refused, || {
            for metric in Metric::ALL {
                count(*metric, 1);
            }
            for _ in 0..1_000 {
                sample(Metric::AccessTime, 1.5);
                sample(Metric::EventLag, f64::NAN);
            }
            property("_aws", "not for a property to say");
            property("Function", "nor this");
        })
        .await;
        assert!(defined(&line).len() <= 100);
        assert_eq!(line["AccessTime"].as_array().unwrap().len(), 100);
        assert!(line["_aws"]["Timestamp"].is_u64());
        assert_eq!(line["Function"], "register");
    }

    #[test]
    fn every_metric_can_stand_on_one_line_and_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        assert_eq!(names.len(), Metric::ALL.len());
        assert!(names.len() <= MOST_METRICS);
    }

    #[test]
    fn outside_of_an_invocation_nothing_is_measured() {
        count(Metric::Evictions, 1);
        let lines = Arc::new(Lines::default());
        Metrics::new(String::new(), Sink::Kept(Arc::clone(&lines))).emit(End::Done, Duration::ZERO);
        assert!(lines.all().is_empty());
    }
}
