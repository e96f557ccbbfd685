//! Log lines. In AWS each is one JSON object on standard output, with the invocation's ids at its top level; for a
//! person each is a line of text on standard error.

use std::fmt;
use std::io;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::redact;

/// The crates of this workspace. Only these are logged below the level of a warning: the AWS SDK and the HTTP
/// libraries print requests with their bodies at the finer levels.
const OWN_CRATES: [&str; 16] = [
    "access_admin",
    "access_rescan_schedule",
    "access_sync",
    "access_webhook",
    "berth",
    "connection_sync",
    "connection_url",
    "handle_limit",
    "portfolio",
    "refresh",
    "register",
    "scenarios",
    "status",
    "users",
    "webhook",
    "webhook_worker",
];

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// Also what is out of the ordinary.
    Warn,
    /// Also one line for each request, and what was changed.
    #[default]
    Info,
    /// Also each step.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The level of this name, in capitals or not, or `None`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "error" | "fatal" => Some(Self::Error),
            "warn" | "warning" => Some(Self::Warn),
            "info" => Some(Self::Info),
            "debug" => Some(Self::Debug),
            "trace" => Some(Self::Trace),
            _ => None,
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }

    /// What is logged: our own crates by this level, and others where it is at most `others`.
    fn targets(self, others: LevelFilter) -> Targets {
        let others = self.filter().min(others);
        OWN_CRATES
            .iter()
            .fold(Targets::new().with_default(others), |targets, name| {
                targets.with_target(*name, self.filter())
            })
    }
}

/// Logs JSON on standard output from now on, as a function in AWS does. Where logging was set up before, that stays.
pub fn init_json(level: LogLevel) {
    let layer = JsonLines { write: write_stdout };
    let _set_up_before = tracing_subscriber::registry()
        .with(layer.with_filter(level.targets(LevelFilter::WARN)))
        .try_init();
}

/// Logs lines for people on standard error from now on. Where logging was set up before, that stays. The embedded
/// DynamoDB warns of every condition that does not hold, which is an ordinary answer, so others are heard from errors
/// on.
pub fn init_text(level: LogLevel) {
    let layer = TextLines;
    let _set_up_before = tracing_subscriber::registry()
        .with(layer.with_filter(level.targets(LevelFilter::ERROR)))
        .try_init();
}

fn write_stdout(line: &str) {
    use io::Write as _;
    // A log that cannot be written has nowhere to be reported.
    let _unwritten = writeln!(io::stdout().lock(), "{line}");
}

/// Writes each event as one JSON object with the fields of the spans around it.
struct JsonLines {
    write: fn(&str),
}

/// The fields of a span, kept with it for the lines written inside.
struct SpanFields(Map<String, Value>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        keep_span_fields(attributes, id, &context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        add_span_fields(id, values, &context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), jiff::Timestamp::now().to_string().into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        for (name, value) in enclosing_fields(event, &context) {
            line.insert(name, value);
        }
        line.insert("target".to_owned(), event.metadata().target().into());
        event.record(&mut Fields(&mut line));
        (self.write)(&Value::Object(line).to_string());
    }
}

/// Writes each event as a line for people: time, level, message, fields.
struct TextLines;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TextLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        keep_span_fields(attributes, id, &context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        add_span_fields(id, values, &context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        use io::Write as _;
        let mut fields = enclosing_fields(event, &context);
        event.record(&mut Fields(&mut fields));
        let message = match fields.remove("message") {
            Some(Value::String(message)) => message,
            _ => String::new(),
        };
        fields.remove("cold_start");
        let mut line = format!(
            "{:.3} {:>5} {message}",
            jiff::Timestamp::now(),
            event.metadata().level().as_str()
        );
        for (name, value) in fields {
            let shown = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            line.push_str(&format!(" {name}={shown}"));
        }
        let _unwritten = writeln!(io::stderr().lock(), "{line}");
    }
}

fn keep_span_fields<S: Subscriber + for<'a> LookupSpan<'a>>(
    attributes: &Attributes<'_>,
    id: &Id,
    context: &Context<'_, S>,
) {
    if let Some(span) = context.span(id) {
        let mut fields = Map::new();
        attributes.record(&mut Fields(&mut fields));
        span.extensions_mut().replace(SpanFields(fields));
    }
}

fn add_span_fields<S: Subscriber + for<'a> LookupSpan<'a>>(
    id: &Id,
    values: &Record<'_>,
    context: &Context<'_, S>,
) {
    if let Some(span) = context.span(id)
        && let Some(SpanFields(fields)) = span.extensions_mut().get_mut()
    {
        values.record(&mut Fields(fields));
    }
}

/// The fields of the spans around `event`, the innermost winning.
fn enclosing_fields<S: Subscriber + for<'a> LookupSpan<'a>>(
    event: &Event<'_>,
    context: &Context<'_, S>,
) -> Map<String, Value> {
    let mut all = Map::new();
    if let Some(scope) = context.event_scope(event) {
        for span in scope.from_root() {
            if let Some(SpanFields(fields)) = span.extensions().get() {
                all.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
    }
    all
}

/// Takes an event's or a span's fields into a JSON object; texts pass the redaction on their way.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, redact::text(&format!("{value:?}")).into_owned());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, redact::text(value).into_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field, redact::text(&value.to_string()).into_owned());
    }
}

/// Runs `work` and gives the lines that it logs, for tests of what is logged.
#[cfg(test)]
pub(crate) async fn lines_of(work: impl Future<Output = ()>) -> Vec<String> {
    thread_local! {
        static LINES: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    let layer = JsonLines {
        write: |line| LINES.with_borrow_mut(|lines| lines.push(line.to_owned())),
    };
    let subscriber =
        tracing_subscriber::registry().with(layer.with_filter(LogLevel::Info.targets(LevelFilter::WARN)));
    let guard = tracing::subscriber::set_default(subscriber);
    work.await;
    drop(guard);
    LINES.take()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Invocation, in_invocation};

    #[tokio::test]
    async fn a_line_carries_its_invocations_ids_and_no_secret() {
        let invocation = Invocation {
            request_id: "request-1".to_owned(),
            correlation_id: "correlation-1".to_owned(),
            function: "register",
            cold_start: false,
        };
        let work = in_invocation(invocation, async {
            tracing::info!(
                url = "https://h/p?userSecret=hidden",
                count = 3,
                "something happened"
            );
            tracing::debug!("too fine to be logged");
            tracing::info!(target: "hyper", "another crate's chatter");
        });
        let lines = lines_of(async { work.await.0 }).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["message"], "something happened");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["request_id"], "request-1");
        assert_eq!(line["correlation_id"], "correlation-1");
        assert_eq!(line["function"], "register");
        assert!(line["cold_start"].is_boolean());
        assert_eq!(line["count"], 3);
        assert!(!lines[0].contains("hidden"));
    }

    #[test]
    fn every_function_is_among_the_crates_that_are_logged() {
        let functions = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions");
        for entry in std::fs::read_dir(functions).unwrap() {
            let name = entry
                .unwrap()
                .file_name()
                .into_string()
                .unwrap()
                .replace('-', "_");
            let logged = OWN_CRATES.iter().any(|own| name.starts_with(own));
            assert!(logged, "{name}");
        }
    }

    #[test]
    fn levels_are_read_by_name() {
        assert_eq!(LogLevel::parse("WARN"), Some(LogLevel::Warn));
        assert_eq!(LogLevel::parse("debug"), Some(LogLevel::Debug));
        assert_eq!(LogLevel::parse("loud"), None);
    }
}
