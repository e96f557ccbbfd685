//! Faults that are to happen to an operation's next calls, or to a share of its calls, so that a test can see what
//! its caller does.
//!
//! A fault that is given as a share strikes each call with that probability, in an order that depends on nothing but
//! its `seed` and the calls that have come: the same seed and the same calls give the same faults. It strikes until it
//! is cleared, or as often as `times` says where that is given.

use std::collections::VecDeque;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

/// What goes wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is answered with this status and nothing is done.
    Status {
        /// The status, from 400 to 599; `None` where the description names none.
        status: Option<StatusCode>,
        /// Seconds that the caller is asked to wait, if it is asked.
        retry_after: Option<u64>,
    },
    /// It is never answered and nothing is done.
    Timeout,
    /// What it asks for is done, and it is never answered.
    CommitThenTimeout,
    /// It is answered 200 with something else than the caller expects, and nothing is done: with this body, else with
    /// something that is no JSON.
    Malformed(Option<Value>),
    /// It waits, and then is done and answered as usual.
    Slow(Duration),
    /// It is refused because the plan's limit is reached.
    LimitReached,
    /// It is refused because there were too many requests; the caller is asked to wait so many seconds.
    RateLimited(u64),
}

/// The faults that wait for their calls. They do not survive a restart.
#[derive(Debug, Default)]
pub(super) struct Faults(VecDeque<Waiting>);

#[derive(Debug)]
struct Waiting {
    /// What [`normal`] makes of the operation's name, or `*`.
    operation: String,
    fault: Fault,
    /// How many calls it still strikes; `None` for any number.
    times: Option<u64>,
    /// Which calls it strikes; `None` for all.
    share: Option<Share>,
}

/// Picks a share of calls.
#[derive(Debug)]
struct Share {
    /// Above 0 and up to 1.
    probability: f64,
    random: fastrand::Rng,
}

impl Share {
    fn strikes(&mut self) -> bool {
        self.random.f64() < self.probability
    }
}

/// The operation name that stands for every operation.
const EVERY: &str = "*";

impl Faults {
    /// Queues the fault that a control call describes, or clears those of its operation where `times` is 0.
    /// `known` tells whether any operation bears a name, and `names` says in a sentence which names there are.
    ///
    /// # Errors
    /// A sentence that says what of the description is wrong.
    pub(super) fn add(
        &mut self,
        described: &Value,
        known: impl Fn(&str) -> bool,
        names: &str,
    ) -> Result<(), String> {
        let text = |name: &str| described.get(name).and_then(Value::as_str);
        let optional = |name: &str| match described.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => (value.as_u64().map(Some))
                .ok_or_else(|| format!("`{name}` has to be a whole number that is not negative.")),
        };
        let number = |name: &str, default: u64| optional(name).map(|number| number.unwrap_or(default));
        let named = text("operation").ok_or("`operation` has to name an operation, or be `*`.")?;
        let operation = if named == EVERY {
            named.to_owned()
        } else {
            normal(named)
        };
        if operation != EVERY && !known(&operation) {
            return Err(format!("No operation is called `{named}`. {names}"));
        }
        let share = match described.get("share") {
            None | Some(Value::Null) => None,
            Some(value) => Some(Share {
                probability: (value.as_f64().filter(|share| *share > 0.0 && *share <= 1.0))
                    .ok_or("`share` has to be a number above 0 and up to 1.")?,
                random: fastrand::Rng::with_seed(number("seed", 0)?),
            }),
        };
        let times = match (described.get("times"), &share) {
            (None | Some(Value::Null), Some(_)) => None,
            _ => Some(number("times", 1)?),
        };
        if times == Some(0) {
            self.0
                .retain(|waiting| operation != EVERY && waiting.operation != operation);
            return Ok(());
        }
        let delay_ms = number("delay_ms", 0)?;
        let fault = match text("kind").ok_or("`kind` has to name a kind of fault.")? {
            "status" => {
                let status = optional("status")?.map(|status| {
                    let status = u16::try_from(status)
                        .ok()
                        .filter(|status| (400..600).contains(status));
                    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
                    status.ok_or("`status` has to be from 400 to 599.")
                });
                Fault::Status {
                    status: status.transpose()?,
                    retry_after: optional("retry_after")?,
                }
            }
            "timeout" => Fault::Timeout,
            "commit_then_timeout" => Fault::CommitThenTimeout,
            "malformed" => Fault::Malformed(described.get("body").cloned()),
            "slow" => Fault::Slow(Duration::from_millis(delay_ms)),
            "limit_reached" => Fault::LimitReached,
            "rate_limited" => Fault::RateLimited(number("retry_after", delay_ms.div_ceil(1000).max(1))?),
            other => {
                return Err(format!(
                    "`{other}` is no kind of fault. There are `status`, `timeout`, `commit_then_timeout`, \
                     `malformed`, `slow`, `limit_reached` and `rate_limited`."
                ));
            }
        };
        self.0.push_back(Waiting {
            operation,
            fault,
            times,
            share,
        });
        Ok(())
    }

    /// Takes the fault for a call that bears any of these normal names: the oldest one of its operation, else
    /// the oldest one of every operation, else the first that strikes of those that are given as a share.
    pub(super) fn take(&mut self, names: &[String]) -> Option<Fault> {
        let queued = |waiting: &Waiting| waiting.share.is_none();
        let named = |waiting: &Waiting| names.contains(&waiting.operation);
        let every = |waiting: &Waiting| waiting.operation == EVERY;
        let at = (self.0.iter())
            .position(|waiting| queued(waiting) && named(waiting))
            .or_else(|| (self.0.iter()).position(|waiting| queued(waiting) && every(waiting)))
            .or_else(|| self.draw(|waiting| named(waiting) || every(waiting)))?;
        let waiting = self.0.get_mut(at)?;
        waiting.times = waiting.times.map(|times| times.saturating_sub(1));
        let (fault, left) = (waiting.fault.clone(), waiting.times);
        if left == Some(0) {
            self.0.remove(at);
        }
        Some(fault)
    }

    /// The first share that strikes a call. Every share that is meant for the call draws, so that what one strikes does
    /// not depend on the others.
    fn draw(&mut self, meant: impl Fn(&Waiting) -> bool) -> Option<usize> {
        let mut struck = None;
        for (at, waiting) in self.0.iter_mut().enumerate() {
            let drawn = meant(waiting) && waiting.share.as_mut().is_some_and(Share::strikes);
            struck = struck.or(drawn.then_some(at));
        }
        struck
    }

    /// Forgets every fault.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// One spelling for the many of an operation's name: `registerUser`, `registerSnapTradeUser`,
/// `Authentication_registerSnapTradeUser`, `register_snap_trade_user` and `/snapTrade/registerUser` are the
/// same. Placeholders at the end of a path are passed over.
pub(super) fn normal(name: &str) -> String {
    let last = (name.rsplit('/'))
        .find(|segment| !segment.is_empty() && !segment.starts_with('{'))
        .unwrap_or_default();
    // A generated operationId has its group in front, which begins with a capital letter.
    let bare = match last.split_once('_') {
        Some((group, rest)) if group.starts_with(|first: char| first.is_ascii_uppercase()) => rest,
        _ => last,
    };
    let letters: String = (bare.chars().filter(char::is_ascii_alphanumeric))
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    letters.replace("snaptrade", "")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(name: &str) -> Vec<String> {
        vec![normal(name)]
    }

    #[test]
    fn every_usual_spelling_means_the_same_operation() {
        for spelling in [
            "registerUser",
            "registerSnapTradeUser",
            "Authentication_registerSnapTradeUser",
            "register_snap_trade_user",
            "/snapTrade/registerUser",
            "/api/v1/snapTrade/registerUser",
        ] {
            assert_eq!(normal(spelling), "registeruser", "{spelling}");
        }
        assert_eq!(normal("/accounts/{accountId}"), "accounts");
    }

    #[test]
    fn faults_of_one_operation_queue_and_the_specific_one_comes_first() {
        let mut faults = Faults::default();
        for described in [
            json!({"operation": "*", "kind": "malformed"}),
            json!({"operation": "login", "kind": "timeout", "times": 2}),
            json!({"operation": "login", "kind": "status", "status": 500}),
        ] {
            faults.add(&described, |_| true, "").unwrap();
        }
        let taken: Vec<_> = (0..5).map(|_| faults.take(&names("login"))).collect();
        assert_eq!(
            taken,
            [
                Some(Fault::Timeout),
                Some(Fault::Timeout),
                Some(Fault::Status {
                    status: Some(StatusCode::INTERNAL_SERVER_ERROR),
                    retry_after: None,
                }),
                Some(Fault::Malformed(None)),
                None,
            ]
        );
    }

    /// Which of 1,000 calls are struck.
    fn struck(faults: &mut Faults) -> Vec<usize> {
        (0..1000)
            .filter(|_| faults.take(&names("login")).is_some())
            .collect()
    }

    #[test]
    fn a_share_strikes_about_as_many_calls_and_the_same_ones_for_the_same_seed() {
        let with_seed = |seed: u64| {
            let mut faults = Faults::default();
            let described = json!({"operation": "login", "kind": "timeout", "share": 0.1, "seed": seed});
            faults.add(&described, |_| true, "").unwrap();
            struck(&mut faults)
        };
        let first = with_seed(1);
        assert!((60..140).contains(&first.len()), "{} of 1000", first.len());
        assert_eq!(first, with_seed(1));
        assert_ne!(first, with_seed(2));
    }

    #[test]
    fn what_a_share_strikes_does_not_depend_on_other_shares() {
        let mut faults = Faults::default();
        for (kind, seed) in [("timeout", 1), ("malformed", 2)] {
            let described = json!({"operation": "*", "kind": kind, "share": 0.2, "seed": seed});
            faults.add(&described, |_| true, "").unwrap();
        }
        let mut alone = Faults::default();
        let described = json!({"operation": "*", "kind": "timeout", "share": 0.2, "seed": 1});
        alone.add(&described, |_| true, "").unwrap();
        for call in 0..1000 {
            let (first, both) = (alone.take(&names("login")), faults.take(&names("login")));
            assert_eq!(first.is_some(), both == Some(Fault::Timeout), "call {call}");
        }
    }

    #[test]
    fn a_queued_fault_comes_before_a_share_and_a_share_ends_after_its_times() {
        let mut faults = Faults::default();
        for described in [
            json!({"operation": "login", "kind": "timeout", "share": 1.0, "times": 3}),
            json!({"operation": "*", "kind": "malformed"}),
        ] {
            faults.add(&described, |_| true, "").unwrap();
        }
        assert_eq!(faults.take(&names("login")), Some(Fault::Malformed(None)));
        assert_eq!(faults.take(&names("listUsers")), None);
        assert_eq!(struck(&mut faults).len(), 3);
    }

    #[test]
    fn zero_times_clears_shares_too() {
        let mut faults = Faults::default();
        let described = json!({"operation": "*", "kind": "timeout", "share": 1.0});
        faults.add(&described, |_| true, "").unwrap();
        assert_eq!(struck(&mut faults).len(), 1000);
        faults
            .add(&json!({"operation": "*", "times": 0}), |_| true, "")
            .unwrap();
        assert_eq!(struck(&mut faults).len(), 0);
    }

    #[test]
    fn zero_times_clears_one_operation_or_all() {
        let mut faults = Faults::default();
        let add = |faults: &mut Faults, operation: &str, times: u64| {
            let described = json!({"operation": operation, "kind": "timeout", "times": times});
            faults.add(&described, |_| true, "").unwrap();
        };
        add(&mut faults, "login", 1);
        add(&mut faults, "listUsers", 1);
        add(&mut faults, "login", 0);
        assert_eq!(faults.take(&names("login")), None);
        add(&mut faults, "*", 0);
        assert_eq!(faults.take(&names("listUsers")), None);
    }

    #[test]
    fn a_wrong_description_is_refused_with_a_reason() {
        let mut faults = Faults::default();
        for described in [
            json!([]),
            json!({"operation": "login"}),
            json!({"operation": "login", "kind": "sometimes"}),
            json!({"operation": "login", "kind": "status", "status": 200}),
            json!({"operation": "login", "kind": "timeout", "times": -1}),
            json!({"operation": "login", "kind": "timeout", "share": 0}),
            json!({"operation": "login", "kind": "timeout", "share": 1.5}),
            json!({"operation": "login", "kind": "timeout", "share": "a tenth"}),
            json!({"operation": "login", "kind": "timeout", "share": 0.5, "seed": -1}),
        ] {
            assert!(faults.add(&described, |_| true, "").is_err(), "{described}");
        }
        assert!(
            faults
                .add(&json!({"operation": "nothing", "kind": "timeout"}), |_| false, "")
                .is_err()
        );
    }
}
