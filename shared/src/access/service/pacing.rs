//! How often the access API is called: so many changes and so many look-ups in a second, in real time and over all runs
//! of a process (facts/access.md C3 and C3b, "Rates").

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

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
    /// The earliest moment for the next call.
    next: Option<Instant>,
}

impl Pacing {
    /// Takes the next turn, of which there are `rate` in a second, and says when it is; `None` where that is not before
    /// `until`, and then nothing is taken. Turns are spread evenly, so that calls never come in a burst.
    pub(super) fn take(&self, lane: Lane, rate: Option<f64>, until: Instant) -> Option<Instant> {
        let mut turns = self.turns(lane).lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let turn = turns.next.map_or(now, |next| next.max(now));
        if turn >= until {
            return None;
        }
        let apart = rate.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok());
        turns.next = turn.checked_add(apart.unwrap_or_default());
        Some(turn)
    }

    /// Lets nobody call before `wait` has passed, because the service asked for that.
    pub(super) fn hold(&self, lane: Lane, wait: Duration) {
        let mut turns = self.turns(lane).lock().unwrap_or_else(PoisonError::into_inner);
        let resume = Instant::now().checked_add(wait);
        turns.next = turns.next.max(resume);
    }

    fn turns(&self, lane: Lane) -> &Mutex<Turns> {
        match lane {
            Lane::Changes => &self.changes,
            Lane::LookUps => &self.look_ups,
            Lane::Lists => &self.lists,
        }
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
    async fn without_a_rate_there_is_no_wait_but_the_one_that_is_asked_for() {
        let (pacing, now) = (Pacing::default(), Instant::now());
        for _ in 0..100 {
            let turn = pacing.take(Lane::Changes, None, now + FAR).unwrap();
            assert!(turn <= Instant::now());
        }
        pacing.hold(Lane::Changes, Duration::from_secs(7));
        let turn = pacing.take(Lane::Changes, None, now + FAR).unwrap();
        assert!(turn - now >= Duration::from_secs(7));
    }
}
