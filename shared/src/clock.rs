//! The time that everything but signatures is decided by.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serializer;
use tokio::sync::Notify;

/// Tells the time and waits by it. In AWS it is the system's clock; on the local stack it can be moved, and then runs
/// on from there, so that an hour passes in a test at once.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Milliseconds that this clock is ahead of the system's.
    ahead_ms: AtomicI64,
    /// Wakes those that wait when the clock is moved.
    moved: Notify,
}

impl Clock {
    /// A clock that agrees with the system's until it is moved.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let system = Timestamp::now();
        let ahead = Duration::from_millis(self.ahead_ms().unsigned_abs());
        let moved = if self.ahead_ms() < 0 {
            system.checked_sub(ahead)
        } else {
            system.checked_add(ahead)
        };
        moved.unwrap_or(system)
    }

    /// How far this clock is ahead of the system's, in milliseconds; negative when it is behind.
    #[must_use]
    pub fn ahead_ms(&self) -> i64 {
        self.0.ahead_ms.load(Ordering::Relaxed)
    }

    /// Makes this clock `ahead_ms` milliseconds faster than the system's and wakes those that wait.
    pub fn set_ahead_ms(&self, ahead_ms: i64) {
        self.0.ahead_ms.store(ahead_ms, Ordering::Relaxed);
        self.0.moved.notify_waiters();
    }

    /// Makes it `now`, from where the clock runs on.
    pub fn set(&self, now: Timestamp) {
        self.set_ahead_ms(
            now.as_millisecond()
                .saturating_sub(Timestamp::now().as_millisecond()),
        );
    }

    /// Moves the clock on by `seconds`, or back where they are negative.
    pub fn advance(&self, seconds: i64) {
        self.set_ahead_ms(self.ahead_ms().saturating_add(seconds.saturating_mul(1000)));
    }

    /// Waits until `duration` has passed on this clock; moving the clock on ends the wait early.
    pub async fn sleep(&self, duration: Duration) {
        let until = self
            .now()
            .as_millisecond()
            .saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
        loop {
            let moved = self.0.moved.notified();
            let left = until.saturating_sub(self.now().as_millisecond());
            let Ok(left) = u64::try_from(left) else { return };
            if left == 0 {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(left)) => {}
                () = moved => {}
            }
        }
    }
}

/// Writes a time with three digits of a second, however many of them are zero, so that texts sort as times do. For
/// `#[serde(serialize_with)]`.
///
/// # Errors
/// What the serializer says.
pub fn to_the_millisecond<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_clock_runs_on_from_where_it_was_put() {
        let clock = Clock::system();
        let target: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        clock.set(target);
        let ahead = clock.now().as_millisecond() - target.as_millisecond();
        assert!((0..2_000).contains(&ahead), "{ahead} ms");
        clock.advance(-3_600);
        assert!(clock.now() < target);
    }

    #[test]
    fn a_time_has_three_digits_of_a_second_even_where_they_are_zero() {
        let at: Timestamp = "2026-11-21T10:00:00.58Z".parse().unwrap();
        let text = to_the_millisecond(&at, serde_json::value::Serializer).unwrap();
        assert_eq!(text, "2026-11-21T10:00:00.580Z");
    }

    #[tokio::test]
    async fn moving_the_clock_on_ends_a_wait() {
        let clock = Clock::system();
        let other = clock.clone();
        tokio::join!(clock.sleep(Duration::from_secs(3_600)), async {
            tokio::task::yield_now().await;
            other.advance(3_601);
        });
    }
}
