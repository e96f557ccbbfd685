//! How often the access API is called: so many changes and so many look-ups in a second, in real time and over all runs
//! of a process (facts/access.md C3 and C3b, "Rates").

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::super::sending::LONGEST_ASKED;

/// What the rates count apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Grants, updates and removals.
    Changes,
    /// Look-ups of names.
    LookUps,
    /// Lists of who has access. They have no rate.
    Lists,
}

/// When the next calls may be made. It is kept from one run to the next.
#[derive(Debug, Default)]
pub struct Pacing {
    changes: Mutex<Turns>,
    look_ups: Mutex<Turns>,
    lists: Mutex<Turns>,
}

#[derive(Debug, Default)]
struct Turns {
    /// The earliest moment for the next call by the rate.
    next: Option<Instant>,
    /// Until when the service asked not to be called, by the clock that everything is decided by.
    held: Option<Timestamp>,
}

impl Pacing {
    /// Takes the next turn, of which there are `rate` in a second, and says when it is; `None` where that is not before
    /// `until`, and then nothing is taken. Turns are spread evenly, so that calls never come in a burst.
    pub(super) fn take(&self, lane: Lane, rate: Option<f64>, until: Instant) -> Option<Instant> {
        let mut turns = self.turns(lane);
        let now = Instant::now();
        let turn = turns.next.map_or(now, |next| next.max(now));
        if turn >= until {
            return None;
        }
        let apart = rate.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok());
        turns.next = turn.checked_add(apart.unwrap_or_default());
        Some(turn)
    }

    /// Lets nobody call before `wait` has passed from `now` on, because the service asked for that.
    pub(super) fn hold(&self, lane: Lane, wait: Duration, now: Timestamp) {
        let mut turns = self.turns(lane);
        turns.held = turns.held.max(now.checked_add(wait).ok());
    }

    /// How long it is at `now` until the service may be called again, where it asked for that.
    pub(super) fn held(&self, lane: Lane, now: Timestamp) -> Option<Duration> {
        let held = self.turns(lane).held?;
        let left = Duration::try_from(held.duration_since(now)).ok()?;
        // More than anybody is given credit for is left where the clock was set back.
        (!left.is_zero() && left <= LONGEST_ASKED).then_some(left)
    }

    fn turns(&self, lane: Lane) -> MutexGuard<'_, Turns> {
        let turns = match lane {
            Lane::Changes => &self.changes,
            Lane::LookUps => &self.look_ups,
            Lane::Lists => &self.lists,
        };
        turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn turns_are_spread_evenly_and_each_kind_has_its_own() {
        let (pacing, now) = (Pacing::default(), Instant::now());
        let until = now + FAR;
        let first = pacing.take(Lane::Changes, Some(4.0), until).unwrap();
        for later in 1..=8 {
            let turn = pacing.take(Lane::Changes, Some(4.0), until).unwrap();
            assert_eq!(turn - first, Duration::from_millis(250) * later);
        }
        let look_up = pacing.take(Lane::LookUps, Some(10.0), until).unwrap();
        assert!(look_up - first < Duration::from_millis(250));
    }

    #[tokio::test]
    async fn a_turn_that_comes_too_late_is_not_taken() {
        let (pacing, now) = (Pacing::default(), Instant::now());
        pacing.take(Lane::Changes, Some(0.1), now + FAR).unwrap();
        assert_eq!(pacing.take(Lane::Changes, Some(0.1), now + FAR / 1_000), None);
        let next = pacing.take(Lane::Changes, Some(0.1), now + FAR).unwrap();
        assert!(next - now < Duration::from_secs(11));
    }

    #[tokio::test]
    async fn without_a_rate_there_is_no_wait() {
        let (pacing, now) = (Pacing::default(), Instant::now());
        for _ in 0..100 {
            let turn = pacing.take(Lane::Changes, None, now + FAR).unwrap();
            assert!(turn <= Instant::now());
        }
    }

    #[test]
    fn the_longest_wait_that_was_asked_for_counts_for_its_kind() {
        let (pacing, now) = (Pacing::default(), Timestamp::UNIX_EPOCH);
        let seconds = Duration::from_secs;
        pacing.hold(Lane::Changes, seconds(7), now);
        pacing.hold(Lane::Changes, seconds(3), now);
        let held = |lane, after| pacing.held(lane, now + seconds(after));
        assert_eq!(held(Lane::Changes, 2), Some(seconds(5)));
        assert_eq!((held(Lane::Changes, 7), held(Lane::LookUps, 2)), (None, None));
        let set_back = now.checked_sub(seconds(86_400)).unwrap();
        assert_eq!(pacing.held(Lane::Changes, set_back), None);
    }
}
