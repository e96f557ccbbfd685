//! The limit on requests: so many in any 60 seconds.

use std::collections::VecDeque;

use axum::response::Response;
use http::HeaderName;
use jiff::Timestamp;

use crate::answer::set;

/// The length of the window, in milliseconds.
const WINDOW_MS: i64 = 60_000;

/// The requests of the last 60 seconds.
#[derive(Debug, Default)]
pub(super) struct RateWindow(VecDeque<i64>);

/// How a request stands against the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    limit: u64,
    remaining: u64,
    /// Seconds until the window is empty again, or until the next request is accepted.
    pub(super) reset: u64,
    pub(super) exceeded: bool,
}

impl RateWindow {
    /// Counts a request, unless it is one too many.
    pub(super) fn count(&mut self, limit: u64, now: Timestamp) -> Standing {
        let now = now.as_millisecond();
        // The clock may have been moved either way, so what lies far ahead is outside, too.
        self.0.retain(|at| now.saturating_sub(*at).abs() < WINDOW_MS);
        let used = self.0.len() as u64;
        let exceeded = used >= limit;
        if !exceeded {
            self.0.push_back(now);
        }
        let left_ms = |at: &i64| WINDOW_MS.saturating_sub(now.saturating_sub(*at));
        let left = if exceeded { self.0.front() } else { self.0.back() }.map_or(WINDOW_MS, left_ms);
        Standing {
            limit,
            remaining: limit.saturating_sub(self.0.len() as u64),
            reset: u64::try_from(left).unwrap_or_default().div_ceil(1000).max(1),
            exceeded,
        }
    }

    /// Forgets every request.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Standing {
    /// Sets the headers by which SnapTrade tells the caller.
    pub(super) fn tell(self, answer: &mut Response) {
        for (name, value) in [
            ("x-ratelimit-limit", self.limit),
            ("x-ratelimit-remaining", self.remaining),
            ("x-ratelimit-reset", self.reset),
        ] {
            set(answer, HeaderName::from_static(name), &value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_rolls() {
        let mut window = RateWindow::default();
        let start = Timestamp::from_second(1_000_000).unwrap();
        let after = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).unwrap();
        assert_eq!(window.count(2, start).remaining, 1);
        assert!(!window.count(2, after(20)).exceeded);
        let third = window.count(2, after(30));
        assert!(third.exceeded);
        assert_eq!(third.reset, 30);
        assert!(!window.count(2, after(61)).exceeded);
    }
}
