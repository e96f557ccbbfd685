//! The tokens that all instances take for their calls to SnapTrade. Nothing here does any I/O.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::instance::LEASE;
use super::tokens as tokens_for;
use crate::connections::timing::{SKEW, after, between};

/// How long SnapTrade counts a call.
const WINDOW: Duration = Duration::from_secs(60);

/// After how long a token is back: it may be used until its lease is over, the call counts for the whole window, and
/// two instances' clocks may differ.
const BACK_AFTER: Duration = WINDOW.saturating_add(LEASE).saturating_add(SKEW);

/// For whom calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits.
    Interactive,
    /// Nobody does.
    Background,
}

impl Urgency {
    /// For whom `function` makes its calls: those on a schedule, and the one that works on events, for nobody who waits.
    #[must_use]
    pub fn of(function: &str) -> Self {
        if function.ends_with("-schedule") || function == "webhook-worker" {
            Self::Background
        } else {
            Self::Interactive
        }
    }

    /// How many of `all` tokens are not for these calls.
    fn reserve(self, all: u32) -> u32 {
        match self {
            Self::Interactive => 0,
            Self::Background => all.div_ceil(3),
        }
    }
}

/// There is no token to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// For how long.
    pub wait: Duration,
}

/// Tokens that were taken within one second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    /// The second's end.
    at: Timestamp,
    count: u32,
}

/// The tokens that were taken and are not back yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Grows with every write.
    rev: u64,
    /// Those taken first come first.
    taken: Vec<Taken>,
}

impl Tokens {
    /// The revision.
    #[must_use]
    pub fn rev(&self) -> u64 {
        self.rev
    }

    /// Takes up to `wanted` tokens of those that there are for SnapTrade's `limit`; at least one.
    ///
    /// # Errors
    /// [`Refused`] when there is none.
    pub fn take(
        before: Option<&Self>,
        wanted: u32,
        limit: u32,
        urgency: Urgency,
        now: Timestamp,
    ) -> Result<(Self, u32), Refused> {
        let mut next = before.cloned().unwrap_or_default();
        // What lies further ahead than a clock can be off was taken before the clock was put back.
        next.taken.retain(|taken| {
            between(taken.at, now) < BACK_AFTER && taken.at <= after(now, SKEW.saturating_add(WINDOW))
        });
        let all = tokens_for(limit);
        let usable = all.saturating_sub(urgency.reserve(all));
        let out: u32 = next
            .taken
            .iter()
            .map(|taken| taken.count)
            .fold(0, u32::saturating_add);
        let granted = wanted.min(usable.saturating_sub(out));
        if granted == 0 {
            return Err(Refused {
                wait: next.wait(out, usable, now),
            });
        }
        let second = now.as_second().saturating_add(1);
        let at = Timestamp::from_second(second).unwrap_or(now);
        match next.taken.last_mut().filter(|last| last.at >= at) {
            Some(last) => last.count = last.count.saturating_add(granted),
            None => next.taken.push(Taken { at, count: granted }),
        }
        next.rev = next.rev.saturating_add(1);
        Ok((next, granted))
    }

    /// How long it takes until fewer than `usable` of the `out` tokens are out.
    fn wait(&self, mut out: u32, usable: u32, now: Timestamp) -> Duration {
        for taken in &self.taken {
            out = out.saturating_sub(taken.count);
            if out < usable {
                return between(now, after(taken.at, BACK_AFTER)).max(Duration::from_secs(1));
            }
        }
        WINDOW
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::super::instance::{Instance, Step};
    use super::*;
    use crate::snaptrade::RateLimit;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).unwrap()
    }

    #[test]
    fn the_background_leaves_a_third_and_waits_until_tokens_are_back() {
        let (tokens, granted) = Tokens::take(None, 500, 250, Urgency::Background, at(0)).unwrap();
        assert_eq!(granted, 100);
        let refused = Tokens::take(Some(&tokens), 1, 250, Urgency::Background, at(5_000)).unwrap_err();
        let (tokens, granted) =
            Tokens::take(Some(&tokens), 500, 250, Urgency::Interactive, at(5_000)).unwrap();
        assert_eq!(granted, 50);
        assert!(Tokens::take(Some(&tokens), 1, 250, Urgency::Interactive, at(6_000)).is_err());
        let later = 5_000 + i64::try_from(refused.wait.as_millis()).unwrap();
        let (_, granted) = Tokens::take(Some(&tokens), 500, 250, Urgency::Background, at(later)).unwrap();
        assert_eq!(granted, 50);
    }

    #[test]
    fn who_waits_is_not_kept_waiting_by_the_background() {
        // The background takes whatever it can get, all the time.
        let mut tokens = None;
        for second in 0..600 {
            let now = at(second * 1_000);
            if let Ok((next, _)) = Tokens::take(tokens.as_ref(), 10, 250, Urgency::Background, now) {
                tokens = Some(next);
            }
            if second % 3 == 0 {
                // Twenty calls a minute of those who wait, every one of which is let in.
                let (next, granted) =
                    Tokens::take(tokens.as_ref(), 1, 250, Urgency::Interactive, now).unwrap();
                assert_eq!(granted, 1);
                tokens = Some(next);
            }
        }
    }

    #[test]
    fn functions_that_nobody_waits_for_are_the_background() {
        for (function, urgency) in [
            ("register", Urgency::Interactive),
            ("refresh", Urgency::Interactive),
            ("refresh-schedule", Urgency::Background),
            ("connection-sync-schedule", Urgency::Background),
            ("webhook-worker", Urgency::Background),
        ] {
            assert_eq!(Urgency::of(function), urgency, "{function}");
        }
    }

    /// SnapTrade: it counts the calls of the last 60 seconds.
    #[derive(Default)]
    struct Counter {
        calls: VecDeque<i64>,
        most: usize,
    }

    impl Counter {
        fn count(&mut self, now: i64, limit: u32) -> RateLimit {
            self.calls.push_back(now);
            self.calls.retain(|at| now - at < 60_000);
            self.most = self.most.max(self.calls.len());
            let used = u32::try_from(self.calls.len()).unwrap();
            RateLimit {
                limit: Some(limit),
                remaining: Some(limit.saturating_sub(used)),
                reset: None,
                observed_at: at(now),
            }
        }
    }

    #[test]
    fn instances_that_call_all_the_time_get_two_fifths_of_the_limit_at_least() {
        let mut instances: Vec<Instance> = (0..3).map(|_| Instance::default()).collect();
        let (mut counter, mut tokens, mut made) = (Counter::default(), None, 0);
        for tenth in 0..3_000 {
            let now = tenth * 100;
            for instance in &mut instances {
                if let Step::Take { wanted, limit } = instance.step(at(now)) {
                    let taken = Tokens::take(tokens.as_ref(), wanted, limit, Urgency::Interactive, at(now));
                    let Ok((next, granted)) = taken else { continue };
                    tokens = Some(next);
                    instance.granted(granted, at(now));
                    assert_eq!(instance.step(at(now)), Step::Go);
                }
                made += 1;
                instance.answered(Some(counter.count(now, 250)));
            }
        }
        assert!(counter.most <= 250);
        assert!(made >= 5 * 100, "{made} in five minutes");
    }

    /// What happens at an instance after a while.
    #[derive(Debug, Clone)]
    struct Event {
        after_ms: i64,
        instance: usize,
        begins: bool,
    }

    fn events(instances: usize) -> impl Strategy<Value = Vec<Event>> {
        let event =
            (0_i64..400, 0..instances, prop::bool::weighted(0.6)).prop_map(|(after_ms, instance, begins)| {
                Event {
                    after_ms,
                    instance,
                    begins,
                }
            });
        prop::collection::vec(event, 200..1_500)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        // SnapTrade counts a call when it arrives, and its answer arrives later, so that instances know less than there is.
        // Six of them with six calls at once each is what the part that is neither free nor among the tokens covers.
        #[test]
        fn no_minute_has_more_calls_than_the_limit_over_all_instances(
            events in events(6),
            limit in 240_u32..1_000,
            backgrounds in prop::collection::vec(any::<bool>(), 6),
        ) {
            let mut instances: Vec<Instance> = (0..6).map(|_| Instance::default()).collect();
            let mut answers: Vec<VecDeque<RateLimit>> = vec![VecDeque::new(); 6];
            let mut counter = Counter::default();
            let mut tokens: Option<Tokens> = None;
            let mut now = 0;
            for event in events {
                now += event.after_ms;
                let index = event.instance;
                if !event.begins {
                    if let Some(said) = answers[index].pop_front() {
                        instances[index].answered(Some(said));
                    }
                    continue;
                }
                // No instance makes more calls at once than this.
                if answers[index].len() >= 6 {
                    continue;
                }
                if let Step::Take { wanted, limit } = instances[index].step(at(now)) {
                    let urgency = if backgrounds[index] { Urgency::Background } else { Urgency::Interactive };
                    match Tokens::take(tokens.as_ref(), wanted, limit, urgency, at(now)) {
                        Ok((next, granted)) => {
                            tokens = Some(next);
                            instances[index].granted(granted, at(now));
                            prop_assert_eq!(instances[index].step(at(now)), Step::Go);
                        }
                        Err(refused) => {
                            prop_assert!(refused.wait > Duration::ZERO && refused.wait <= BACK_AFTER + WINDOW);
                            continue;
                        }
                    }
                }
                let said = counter.count(now, limit);
                answers[index].push_back(said);
            }
            prop_assert!(counter.most <= limit as usize, "{} of {limit}", counter.most);
        }
    }
}
