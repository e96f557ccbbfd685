//! How many calls to SnapTrade were made for a user, against what the plan allows. Nothing here does any I/O.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::RatePlan;
use crate::connections::timing::{SKEW, after, between};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Calls made in a span of time that began with the first of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    began_at: Timestamp,
    calls: u32,
}

impl Span {
    fn is_over(&self, length: Duration, now: Timestamp) -> bool {
        // One that begins further ahead than a clock can be off began before the clock was put back.
        between(self.began_at, now) >= length || self.began_at > after(now, SKEW)
    }
}

/// The calls of the current minute, hour and day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    minute: Option<Span>,
    hour: Option<Span>,
    day: Option<Span>,
}

impl Usage {
    /// For how long the plan allows no more calls; `None` where it allows some now.
    #[must_use]
    pub fn wait(&self, plan: RatePlan, now: Timestamp) -> Option<Duration> {
        let spans = [
            (&self.minute, MINUTE, plan.per_minute),
            (&self.hour, HOUR, plan.per_hour),
            (&self.day, DAY, plan.per_day),
        ];
        spans
            .into_iter()
            .filter_map(|(span, length, most)| {
                let span = span.as_ref().filter(|span| !span.is_over(length, now))?;
                (span.calls >= most).then(|| between(now, after(span.began_at, length)))
            })
            .max()
    }

    /// The usage with `calls` more, that were made until `now`.
    #[must_use]
    pub fn with(&self, calls: u32, now: Timestamp) -> Self {
        let span = |before: &Option<Span>, length| match before {
            Some(span) if !span.is_over(length, now) => Some(Span {
                began_at: span.began_at,
                calls: span.calls.saturating_add(calls),
            }),
            _ => (calls > 0).then_some(Span { began_at: now, calls }),
        };
        Self {
            minute: span(&self.minute, MINUTE),
            hour: span(&self.hour, HOUR),
            day: span(&self.day, DAY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn each_bound_of_a_plan_holds_until_its_span_is_over() {
        let plan = RatePlan {
            per_minute: 10,
            per_hour: 25,
            per_day: 30,
        };
        let wait = |usage: &Usage, second| usage.wait(plan, at(second)).map(|wait| wait.as_secs());
        let usage = Usage::default().with(9, at(0));
        assert_eq!(wait(&usage, 0), None);
        let usage = usage.with(5, at(20));
        assert_eq!(wait(&usage, 20), Some(40));
        assert_eq!(wait(&usage, 60), None);
        let usage = usage.with(11, at(60));
        assert_eq!(wait(&usage, 60), Some(3_540), "25 in the hour");
        let usage = usage.with(5, at(3_600));
        assert_eq!(wait(&usage, 3_600), Some(23 * 3_600), "30 in the day");
        assert_eq!(wait(&usage, 86_400), None);
        assert_eq!(Usage::default().with(0, at(0)), Usage::default());
    }
}
