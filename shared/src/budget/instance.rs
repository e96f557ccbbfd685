//! What one instance knows of SnapTrade's rate limit, and whether it needs tokens for its next call. Nothing here does
//! any I/O.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::{LEAST_SHARED, free};
use crate::connections::timing::{SKEW, after, between};
use crate::snaptrade::RateLimit;

/// How long tokens can be used after they were taken.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// How long what SnapTrade said of its limit is believed: the length of its window.
const BELIEVED: Duration = Duration::from_secs(60);

/// How many calls may be under way, of which SnapTrade's count says nothing yet, before tokens are needed.
fn most_open(limit: u32) -> u32 {
    (limit / 40).clamp(1, 6)
}

/// After how long a call counts as over although nobody said so: whoever waited for it has gone.
const LONGEST_CALL: Duration = Duration::from_secs(30);

/// How many tokens are taken at once at most.
const BATCH: usize = 10;

/// What SnapTrade said.
#[derive(Debug, Clone, Copy)]
struct Said {
    limit: u32,
    used: u32,
    at: Timestamp,
}

/// Tokens in hand.
#[derive(Debug, Clone, Copy)]
struct Lease {
    left: u32,
    until: Timestamp,
}

/// What one instance knows.
#[derive(Debug, Default)]
pub struct Instance {
    said: Option<Said>,
    lease: Option<Lease>,
    /// When the calls were begun that are under way.
    open: VecDeque<Timestamp>,
    /// When the calls of the last seconds were begun.
    recent: VecDeque<Timestamp>,
}

/// What has to be done before a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing; it counts as begun.
    Go,
    /// Tokens have to be taken.
    Take {
        /// How many are of use.
        wanted: u32,
        /// SnapTrade's limit, in calls in 60 seconds.
        limit: u32,
    },
}

impl Instance {
    /// What has to be done before a call at `now`.
    pub fn step(&mut self, now: Timestamp) -> Step {
        forget(&mut self.open, LONGEST_CALL, now);
        forget(&mut self.recent, LEASE, now);
        let said = self.said.filter(|said| is_within(said.at, BELIEVED, now));
        let Some(said) = said.filter(|said| said.limit >= LEAST_SHARED) else {
            self.begin(now);
            return Step::Go;
        };
        let open = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        let is_quiet = said.used.saturating_add(open) < free(said.limit) && open < most_open(said.limit);
        if is_quiet {
            self.begin(now);
            return Step::Go;
        }
        let lease = self
            .lease
            .as_mut()
            .filter(|lease| lease.left > 0 && now < lease.until && lease.until <= after(now, LEASE));
        if let Some(lease) = lease {
            lease.left = lease.left.saturating_sub(1);
            self.begin(now);
            return Step::Go;
        }
        let wanted = self.recent.len().clamp(1, BATCH);
        Step::Take {
            wanted: u32::try_from(wanted).unwrap_or(1),
            limit: said.limit,
        }
    }

    /// Takes over tokens that were taken at `at`.
    pub fn granted(&mut self, tokens: u32, at: Timestamp) {
        self.lease = Some(Lease {
            left: tokens,
            until: after(at, LEASE),
        });
    }

    /// Notes that a call begins.
    pub fn begin(&mut self, now: Timestamp) {
        self.open.push_back(now);
        self.recent.push_back(now);
    }

    /// Notes that a call is over, and what SnapTrade said.
    pub fn answered(&mut self, said: Option<RateLimit>) {
        let begun = self.open.pop_front();
        let Some((said, limit, remaining)) = said.and_then(|said| Some((said, said.limit?, said.remaining?)))
        else {
            return;
        };
        let heard = Said {
            limit,
            used: limit.saturating_sub(remaining),
            at: said.observed_at,
        };
        // An answer that was overtaken by another one may tell of a time before that.
        let overtaken = self.said.is_some_and(|known| {
            known.limit == heard.limit
                && known.used > heard.used
                && begun.is_some_and(|begun| begun < known.at)
        });
        if !overtaken {
            self.said = Some(heard);
        }
    }
}

/// Whether `at` lies in the span of time before `now`. What lies further ahead than a clock can be off was noted before
/// the clock was put back.
fn is_within(at: Timestamp, span: Duration, now: Timestamp) -> bool {
    at <= after(now, SKEW) && between(at, now) < span
}

fn forget(times: &mut VecDeque<Timestamp>, span: Duration, now: Timestamp) {
    times.retain(|at| is_within(*at, span, now));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn said(limit: u32, used: u32, second: i64) -> Option<RateLimit> {
        Some(RateLimit {
            limit: Some(limit),
            remaining: Some(limit - used),
            reset: None,
            observed_at: at(second),
        })
    }

    #[test]
    fn while_little_is_used_or_nothing_is_known_a_call_needs_no_token() {
        let mut instance = Instance::default();
        assert_eq!(instance.step(at(0)), Step::Go);
        instance.answered(said(250, 10, 0));
        assert_eq!(instance.step(at(1)), Step::Go);
        instance.answered(said(250, 62, 1));
        assert!(matches!(instance.step(at(2)), Step::Take { limit: 250, .. }));
        // What was said a minute ago is over.
        assert_eq!(instance.step(at(61)), Step::Go);
        // A limit that is too small to be shared out is left to SnapTrade.
        instance.answered(said(12, 11, 62));
        assert_eq!(instance.step(at(63)), Step::Go);
    }

    #[test]
    fn tokens_are_used_up_and_run_out() {
        let mut instance = Instance::default();
        for second in 0..3 {
            assert_eq!(instance.step(at(second)), Step::Go);
            instance.answered(said(250, 60 + u32::try_from(second).unwrap(), second));
        }
        let Step::Take { wanted, .. } = instance.step(at(3)) else {
            panic!("no tokens were asked for")
        };
        assert_eq!(wanted, 3, "as many as it made calls in the last seconds");
        instance.granted(2, at(3));
        assert_eq!(instance.step(at(3)), Step::Go);
        instance.answered(said(250, 100, 3));
        assert_eq!(instance.step(at(4)), Step::Go);
        assert!(matches!(instance.step(at(5)), Step::Take { .. }));
        instance.granted(2, at(5));
        assert!(matches!(instance.step(at(15)), Step::Take { .. }));
    }

    #[test]
    fn many_calls_at_once_need_tokens_although_little_is_used() {
        let mut instance = Instance::default();
        instance.begin(at(0));
        instance.answered(said(250, 1, 0));
        for _ in 0..most_open(250) {
            assert_eq!(instance.step(at(1)), Step::Go);
        }
        assert!(matches!(instance.step(at(1)), Step::Take { .. }));
        // Nobody waits for them any more.
        assert_eq!(instance.step(at(40)), Step::Go);
    }

    #[test]
    fn an_answer_that_was_overtaken_does_not_count() {
        let mut instance = Instance::default();
        instance.begin(at(0));
        instance.begin(at(1));
        instance.answered(said(250, 70, 2));
        instance.answered(said(250, 60, 3));
        assert!(matches!(instance.step(at(4)), Step::Take { .. }));
    }
}
