//! The scheduler: what EventBridge Scheduler is in AWS. It follows the stack's clock.

use std::sync::Arc;
use std::time::Duration;

use berth::clock::Clock;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// How long the scheduler waits at most before it looks at the clock again, which may have been moved back.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Something that is done again and again.
pub(crate) struct Schedule {
    /// Its name, by which it can be fired at once.
    pub(crate) name: &'static str,
    /// The time between two starts.
    pub(crate) every: SignedDuration,
    /// Does it and tells the result, or the reason why it failed.
    pub(crate) run: Run,
}

/// Does what a schedule is for.
pub(crate) type Run = Box<dyn Fn() -> BoxFuture<'static, Result<Value, String>> + Send + Sync>;

/// All schedules.
#[derive(Clone)]
pub(crate) struct Schedules(Arc<[Schedule]>);

impl Schedules {
    /// These schedules.
    pub(crate) fn new(schedules: Vec<Schedule>) -> Self {
        Self(schedules.into())
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|schedule| schedule.name).collect()
    }

    /// Does what the schedule `name` does, now; nothing where there is none of that name.
    pub(crate) async fn fire(&self, name: &str) -> Option<Result<Value, String>> {
        let schedule = self.0.iter().find(|schedule| schedule.name == name)?;
        Some((schedule.run)().await)
    }

    /// Fires each schedule when it is due by `clock`, for ever. Each runs beside the others, and never beside itself.
    pub(crate) async fn run(self, clock: Clock) {
        let all = (0..self.0.len()).map(|index| self.clone().run_one(index, clock.clone()));
        futures::future::join_all(all).await;
    }

    async fn run_one(self, index: usize, clock: Clock) {
        let Some(schedule) = self.0.get(index) else { return };
        let mut due = add(clock.now(), schedule.every);
        loop {
            match next(due, clock.now(), schedule.every) {
                Next::Fire { due: after } => {
                    due = after;
                    if let Err(error) = (schedule.run)().await {
                        tracing::error!(schedule = schedule.name, %error, "a schedule failed");
                    }
                }
                Next::Wait { due: same, left } => {
                    due = same;
                    tokio::select! {
                        () = clock.sleep(left) => {}
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                    }
                }
            }
        }
    }
}

/// What a schedule does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It is due now, and the next time at `due`.
    Fire { due: Timestamp },
    /// It is due at `due`, in `left`.
    Wait { due: Timestamp, left: Duration },
}

/// What a schedule that is `due` does at `now`. A clock that was moved on over several times fires it once, and one
/// that was moved back does not hold it up for longer than its interval.
fn next(due: Timestamp, now: Timestamp, every: SignedDuration) -> Next {
    if now >= due {
        return Next::Fire { due: add(now, every) };
    }
    let due = due.min(add(now, every));
    let left = due.duration_since(now).unsigned_abs();
    Next::Wait { due, left }
}

/// `now` and `every` later; at the end of time, the end of time.
fn add(now: Timestamp, every: SignedDuration) -> Timestamp {
    now.checked_add(every).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_schedule_fires_when_due_and_once_however_far_the_clock_was_moved() {
        let due = at("2026-01-01T10:00:00Z");
        assert_eq!(
            next(due, at("2026-01-01T09:59:00Z"), HOUR),
            Next::Wait {
                due,
                left: Duration::from_secs(60)
            }
        );
        assert_eq!(
            next(due, at("2026-01-03T10:30:00Z"), HOUR),
            Next::Fire {
                due: at("2026-01-03T11:30:00Z")
            }
        );
    }

    #[test]
    fn a_clock_that_was_moved_back_does_not_hold_a_schedule_up() {
        assert_eq!(
            next(at("2026-01-01T10:00:00Z"), at("2020-01-01T00:00:00Z"), HOUR),
            Next::Wait {
                due: at("2020-01-01T01:00:00Z"),
                left: Duration::from_secs(3_600)
            }
        );
    }

    #[tokio::test]
    async fn moving_the_clock_on_fires_what_is_due_and_any_schedule_can_be_fired_by_name() {
        let fired = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&fired);
        let schedules = Schedules::new(vec![Schedule {
            name: "refresh",
            every: HOUR,
            run: Box::new(move || {
                let count = counter.fetch_add(1, Ordering::SeqCst);
                Box::pin(async move { Ok(Value::from(count)) })
            }),
        }]);
        let clock = Clock::system();
        let running = tokio::spawn(schedules.clone().run(clock.clone()));
        tokio::task::yield_now().await;
        clock.advance(3_601);
        for _ in 0..200 {
            if fired.load(Ordering::SeqCst) > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running.abort();
        assert_eq!(fired.load(Ordering::SeqCst), 1);
        assert_eq!(schedules.fire("refresh").await, Some(Ok(Value::from(1))));
        assert_eq!(schedules.fire("nothing").await, None);
        assert_eq!(schedules.names(), ["refresh"]);
    }
}
