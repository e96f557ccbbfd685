//! Where a transaction stands for one script, and what brings it further (facts/access.md C3, "State machine
//! of one transaction").
//!
//! Every step is stored before the next is taken, so a process may die between any two of them: what was
//! begun is then found as [`State::Applying`], and is looked at before anything is done again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::assessment::{Change, IgnoreReason, ReviewReason};
use super::duration::DAY_SECONDS;
use super::plan::{Action, Outcome};
use super::retries::{self, Verdict};

/// How long a review waits before an operator is told that nobody has come back to it.
pub const REVIEW_KEPT: SignedDuration = SignedDuration::from_secs(30 * DAY_SECONDS);

/// Where a transaction stands for one script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The state.
    pub state: State,
    /// How often the access API has failed in its cause since it last got further.
    pub tries: u32,
    /// Whether the name was looked up once more after the access API had refused it.
    pub looked_up_again: bool,
}

/// The state of a transaction for one script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// It is to be brought to the access API in this run or the next.
    Due,
    /// It gives nothing, and is seen again when the row changes.
    Ignored {
        /// Why.
        reason: IgnoreReason,
    },
    /// It cannot be used.
    Quarantined,
    /// A person has to look at it.
    ManualReview {
        /// Why.
        reason: ReviewReason,
        /// Since when.
        since: Timestamp,
    },
    /// Nobody has looked at it for 30 days, and an operator was told.
    ReviewExpired {
        /// Why somebody should have.
        reason: ReviewReason,
    },
    /// A reversal that waits for approval.
    Held,
    /// A call may be under way, until the lease ends.
    Applying {
        /// The call.
        action: Action,
        /// What it comes to.
        outcome: Settled,
        /// When nobody can be at it any more.
        until: Timestamp,
    },
    /// A call was made and its outcome is not known.
    Unknown {
        /// The call.
        action: Action,
        /// What it comes to.
        outcome: Settled,
    },
    /// It failed and is tried again.
    RetryWait {
        /// When.
        next_at: Timestamp,
    },
    /// It failed too often, or for good.
    DeadLetter,
    /// It is done.
    Settled {
        /// What came of it.
        outcome: Settled,
    },
}

/// What came of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// Access was given.
    Granted,
    /// Access was prolonged.
    Extended,
    /// Access was removed.
    Revoked,
    /// Access was shortened.
    Shortened,
    /// Nothing had to be done.
    Kept,
    /// Access was for ever already.
    NotApplied,
    /// A person decided that nothing comes of it.
    Dismissed,
}

/// What happened to a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its row was assessed.
    Assessed(Change),
    /// TradingView does not know the name, or it cannot be one.
    NameUnknown,
    /// The customer moved too often.
    ThirdMove,
    /// The customer's name is another than before.
    NameChanged,
    /// It was decided what to do, and it is done next.
    Begun {
        /// The call; none settles it at once.
        action: Action,
        /// What it comes to.
        outcome: Outcome,
        /// When nobody can be at it any more.
        until: Timestamp,
    },
    /// A call in its cause ended; of one that may be made again, how long the service asks to wait.
    Ended(Verdict, Option<Duration>),
    /// After an unknown outcome the access API was read, and shows that the call took effect, or that it did
    /// not.
    ReadBack(bool),
    /// An operator let it pass, or has it tried again.
    Approved,
    /// An operator decided that nothing comes of it.
    Dismissed,
    /// Time passed.
    Ticked,
}

impl Progress {
    /// A transaction that nothing is known of yet.
    #[must_use]
    pub fn new() -> Self {
        Self::at(State::Due)
    }

    fn at(state: State) -> Self {
        Self {
            state,
            tries: 0,
            looked_up_again: false,
        }
    }

    /// Whether something is to be done at `now`.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        match &self.state {
            State::Due | State::Unknown { .. } => true,
            State::RetryWait { next_at } => *next_at <= now,
            State::Applying { until, .. } => *until <= now,
            _ => false,
        }
    }

    /// Whether the access API has to be read before anything else is done.
    #[must_use]
    pub fn has_to_read_back(&self) -> bool {
        matches!(self.state, State::Unknown { .. } | State::Applying { .. })
    }

    /// Where it stands after `event` at `now`. `share` is a random share of one, for the next try's time. An
    /// event that means nothing in this state changes nothing.
    #[must_use]
    pub fn after(self, event: &Event, now: Timestamp, share: f64) -> Self {
        match event {
            Event::Assessed(change) => self.assessed(change, now),
            Event::NameUnknown => self.reviewed(ReviewReason::InvalidUsername, now),
            Event::ThirdMove => self.reviewed(ReviewReason::ThirdMove, now),
            Event::NameChanged => match self.state {
                State::ManualReview {
                    reason: ReviewReason::InvalidUsername,
                    ..
                }
                | State::ReviewExpired {
                    reason: ReviewReason::InvalidUsername,
                } => Self::new(),
                _ => self,
            },
            Event::Begun {
                action,
                outcome,
                until,
            } => self.begun(*action, *outcome, *until),
            Event::Ended(verdict, asked) => self.ended(*verdict, *asked, now, share),
            Event::ReadBack(done) => match self.state {
                State::Applying { outcome, .. } | State::Unknown { outcome, .. } if *done => {
                    Self::at(State::Settled { outcome })
                }
                // Whoever was at it died before the call: the access API has not failed.
                State::Applying { .. } => Self {
                    state: State::Due,
                    ..self
                },
                State::Unknown { .. } => self.retried(None, now, share),
                _ => self,
            },
            Event::Approved => match self.state {
                State::ManualReview { .. }
                | State::ReviewExpired { .. }
                | State::Held
                | State::DeadLetter
                | State::RetryWait { .. } => Self::new(),
                _ => self,
            },
            Event::Dismissed => match self.state {
                State::ManualReview { .. }
                | State::ReviewExpired { .. }
                | State::Held
                | State::DeadLetter => Self::at(State::Settled {
                    outcome: Settled::Dismissed,
                }),
                _ => self,
            },
            Event::Ticked => match self.state {
                State::ManualReview { reason, since } if now.duration_since(since) >= REVIEW_KEPT => {
                    Self::at(State::ReviewExpired { reason })
                }
                _ => self,
            },
        }
    }

    fn assessed(self, change: &Change, now: Timestamp) -> Self {
        match change {
            Change::Nothing | Change::Withheld => self,
            Change::Ignore(reason) => Self::at(State::Ignored { reason: *reason }),
            Change::Fail(..) => Self::at(State::Ignored {
                reason: IgnoreReason::Failed,
            }),
            Change::Contain(_) => Self::at(State::Ignored {
                reason: IgnoreReason::BeforeBaseline,
            }),
            Change::Orphan => Self::at(State::Quarantined),
            Change::Review(reason, _) => self.reviewed(*reason, now),
            held if held.is_held() => Self::at(State::Held),
            Change::Enter(_)
            | Change::Amend(_)
            | Change::Cut(..)
            | Change::Reverse(..)
            | Change::Restore(_) => {
                match self.state {
                    // What may be under way is looked at first, whatever the row says now.
                    State::Applying { .. } | State::Unknown { .. } => self,
                    _ => Self::new(),
                }
            }
        }
    }

    fn reviewed(self, why: ReviewReason, now: Timestamp) -> Self {
        match self.state {
            State::ManualReview { reason, .. } | State::ReviewExpired { reason } if reason == why => self,
            State::Settled {
                outcome: Settled::Dismissed,
            } => self,
            _ => Self::at(State::ManualReview {
                reason: why,
                since: now,
            }),
        }
    }

    fn begun(self, action: Action, outcome: Outcome, until: Timestamp) -> Self {
        let outcome = match outcome {
            Outcome::Granted => Settled::Granted,
            Outcome::Extended => Settled::Extended,
            Outcome::Shortened => Settled::Shortened,
            Outcome::Revoked => Settled::Revoked,
            Outcome::NotApplied => Settled::NotApplied,
            Outcome::Kept | Outcome::AsItShouldBe | Outcome::HandShortened(_) | Outcome::NeverLowered(_) => {
                Settled::Kept
            }
            // It is decided again with the new baseline.
            Outcome::HandExtended(_) => return self,
        };
        if action == Action::None {
            return Self::at(State::Settled { outcome });
        }
        Self {
            state: State::Applying {
                action,
                outcome,
                until,
            },
            ..self
        }
    }

    fn ended(self, verdict: Verdict, asked: Option<Duration>, now: Timestamp, share: f64) -> Self {
        match (verdict, self.state.clone()) {
            (Verdict::Done, State::Applying { outcome, .. }) => Self::at(State::Settled { outcome }),
            (Verdict::Unknown, State::Applying { action, outcome, .. }) => Self {
                state: State::Unknown { action, outcome },
                ..self
            },
            // A look-up, or a look at what there is, that went well leads to other events.
            (Verdict::Done, _) => self,
            (Verdict::Unknown | Verdict::Retry, State::Unknown { .. }) => self,
            (Verdict::Retry | Verdict::Unknown, _) => self.retried(asked, now, share),
            // Nobody is charged for our being too fast, or for credentials that no longer work.
            (Verdict::Throttled, State::Unknown { .. }) => self,
            (Verdict::Throttled, _) => {
                let next_at = now
                    .checked_add(asked.unwrap_or_default())
                    .unwrap_or(Timestamp::MAX);
                Self {
                    state: State::RetryWait { next_at },
                    ..self
                }
            }
            (Verdict::NoAccess, State::Applying { .. }) => Self {
                state: State::Due,
                ..self
            },
            (Verdict::NoAccess, _) => self,
            (Verdict::Refused, _) if self.looked_up_again => Self {
                state: State::DeadLetter,
                ..self
            },
            (Verdict::Refused, _) => Self {
                state: State::Due,
                looked_up_again: true,
                ..self
            },
        }
    }

    fn retried(self, asked: Option<Duration>, now: Timestamp, share: f64) -> Self {
        let tries = self.tries.saturating_add(1);
        let state = match retries::durable(tries, asked, share) {
            Some(wait) => State::RetryWait {
                next_at: now.checked_add(wait).unwrap_or(Timestamp::MAX),
            },
            None => State::DeadLetter,
        };
        Self { state, tries, ..self }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::expiry::Expiry;
    use crate::access::ids::TransactionId;
    use crate::access::ledger::tests::{at, sale};
    use crate::access::ledger::{Effect, HeldBecause, Reversal, ReversalCause, Stage};

    const NOW: &str = "2026-01-10T00:00:00Z";

    fn after(progress: Progress, events: &[Event]) -> Progress {
        events
            .iter()
            .fold(progress, |progress, event| progress.after(event, at(NOW), 1.0))
    }

    fn state(events: &[Event]) -> State {
        after(Progress::new(), events).state
    }

    fn enter() -> Event {
        Event::Assessed(Change::Enter(Box::new(sale(1, "2026-01-01"))))
    }

    fn reverse(stage: Stage) -> Event {
        let reversal = Reversal {
            cause: ReversalCause::Refunded,
            found_at: at(NOW),
            effect: Effect::Nothing,
            stage,
            settled: false,
        };
        Event::Assessed(Change::Reverse(TransactionId::parse("1").unwrap(), reversal))
    }

    fn begun() -> Event {
        Event::Begun {
            action: Action::Grant { to: Expiry::Lifetime },
            outcome: Outcome::Granted,
            until: at("2026-01-10T00:01:00Z"),
        }
    }

    fn ended(verdict: Verdict) -> Event {
        Event::Ended(verdict, None)
    }

    fn settled(outcome: Settled) -> State {
        State::Settled { outcome }
    }

    fn wrong_name() -> State {
        State::ManualReview {
            reason: ReviewReason::InvalidUsername,
            since: at(NOW),
        }
    }

    #[test]
    fn a_purchase_is_granted() {
        assert_eq!(state(&[enter()]), State::Due);
        assert_eq!(
            state(&[enter(), begun(), ended(Verdict::Done)]),
            settled(Settled::Granted)
        );
    }

    #[test]
    fn what_gives_nothing_is_ignored_until_the_row_changes() {
        let pending = Event::Assessed(Change::Ignore(IgnoreReason::Pending));
        assert_eq!(
            state(std::slice::from_ref(&pending)),
            State::Ignored {
                reason: IgnoreReason::Pending
            }
        );
        assert_eq!(state(&[pending, enter()]), State::Due);
        assert_eq!(state(&[Event::Assessed(Change::Orphan)]), State::Quarantined);
    }

    /// Defect 5 of the original (A5): there, a wrong name is never looked at again.
    #[test]
    fn a_wrong_name_waits_until_the_customer_corrects_it() {
        assert_eq!(state(&[enter(), Event::NameUnknown]), wrong_name());
        assert_eq!(
            state(&[enter(), Event::NameUnknown, Event::NameChanged]),
            State::Due
        );
        let again = after(Progress::new(), &[Event::NameUnknown]);
        let later = again.clone().after(&Event::NameUnknown, at("2026-01-20"), 1.0);
        assert_eq!(later, again);
    }

    #[test]
    fn a_review_that_nobody_comes_back_to_expires_after_thirty_days_and_can_still_be_released() {
        let waiting = after(Progress::new(), &[Event::NameUnknown]);
        let still = waiting
            .clone()
            .after(&Event::Ticked, at("2026-02-08T23:59:59Z"), 1.0);
        assert_eq!(still, waiting);
        let expired = waiting.after(&Event::Ticked, at("2026-02-09"), 1.0);
        assert_eq!(
            expired.state,
            State::ReviewExpired {
                reason: ReviewReason::InvalidUsername
            }
        );
        assert_eq!(after(expired, &[Event::NameChanged]).state, State::Due);
    }

    #[test]
    fn only_a_wrong_name_is_released_by_another_name() {
        let duplicate = Event::Assessed(Change::Review(ReviewReason::SuspectedDuplicate, None));
        let waiting = State::ManualReview {
            reason: ReviewReason::SuspectedDuplicate,
            since: at(NOW),
        };
        assert_eq!(state(&[duplicate.clone(), Event::NameChanged]), waiting);
        assert_eq!(state(&[duplicate.clone(), Event::Approved]), State::Due);
        assert_eq!(
            state(&[duplicate.clone(), Event::Dismissed, duplicate]),
            settled(Settled::Dismissed)
        );
    }

    /// Defect 4 of the original (A5): there, the queue of failures is written and never read.
    #[test]
    fn what_fails_is_tried_eight_times_and_then_a_dead_letter_that_can_be_replayed() {
        let mut progress = Progress::new();
        for tries in 1..=8 {
            progress = after(progress, &[begun(), ended(Verdict::Retry)]);
            assert_eq!(progress.tries, tries);
            let State::RetryWait { next_at } = progress.state else {
                panic!("{progress:?}")
            };
            assert!(!progress.is_due(at(NOW)) && progress.is_due(next_at));
        }
        progress = after(progress, &[begun(), ended(Verdict::Retry)]);
        assert_eq!(progress.state, State::DeadLetter);
        assert_eq!(after(progress, &[Event::Approved]), Progress::new());
    }

    #[test]
    fn being_asked_for_patience_is_no_try() {
        let asked = Event::Ended(Verdict::Throttled, Some(Duration::from_secs(30)));
        let progress = after(Progress::new(), &[begun(), asked]);
        assert_eq!(progress.tries, 0);
        assert_eq!(
            progress.state,
            State::RetryWait {
                next_at: at("2026-01-10T00:00:30Z")
            }
        );
    }

    #[test]
    fn dead_credentials_are_no_try_and_change_no_state() {
        assert_eq!(
            after(Progress::new(), &[begun(), ended(Verdict::NoAccess)]),
            Progress::new()
        );
        let waiting = after(Progress::new(), &[ended(Verdict::Retry)]);
        assert_eq!(after(waiting.clone(), &[ended(Verdict::NoAccess)]), waiting);
    }

    #[test]
    fn a_refusal_is_looked_into_once_and_then_a_dead_letter() {
        let once = after(Progress::new(), &[begun(), ended(Verdict::Refused)]);
        assert_eq!(once.state, State::Due);
        assert_eq!(after(once.clone(), &[Event::NameUnknown]).state, wrong_name());
        assert_eq!(
            after(once, &[begun(), ended(Verdict::Refused)]).state,
            State::DeadLetter
        );
    }

    #[test]
    fn an_unknown_outcome_is_read_before_anything_is_done_again() {
        let unknown = after(Progress::new(), &[begun(), ended(Verdict::Unknown)]);
        assert!(unknown.has_to_read_back() && unknown.is_due(at(NOW)));
        assert_eq!(
            after(unknown.clone(), &[Event::ReadBack(true)]).state,
            settled(Settled::Granted)
        );
        assert!(matches!(
            after(unknown.clone(), &[Event::ReadBack(false)]).state,
            State::RetryWait { .. }
        ));
        assert_eq!(
            after(unknown.clone(), &[ended(Verdict::Retry)]),
            unknown,
            "it could not be read"
        );
        assert_eq!(
            after(unknown.clone(), &[enter()]),
            unknown,
            "the row changed in the meantime"
        );
    }

    /// Defect 8 of the original (A5).
    #[test]
    fn a_process_that_died_after_its_call_is_finished_by_the_next() {
        let died = after(Progress::new(), &[begun()]);
        assert!(!died.is_due(at(NOW)), "it may still be under way");
        let later = at("2026-01-10T00:01:00Z");
        assert!(died.is_due(later) && died.has_to_read_back());
        assert_eq!(
            died.after(&Event::ReadBack(true), later, 1.0).state,
            settled(Settled::Granted)
        );
    }

    #[test]
    fn what_needs_no_call_is_settled_at_once() {
        for (outcome, expected) in [
            (Outcome::AsItShouldBe, Settled::Kept),
            (Outcome::Kept, Settled::Kept),
            (Outcome::NotApplied, Settled::NotApplied),
        ] {
            let event = Event::Begun {
                action: Action::None,
                outcome,
                until: at(NOW),
            };
            assert_eq!(state(&[event]), settled(expected));
        }
    }

    #[test]
    fn a_refund_is_carried_out_or_waits_for_approval() {
        let granted = after(Progress::new(), &[enter(), begun(), ended(Verdict::Done)]);
        assert_eq!(
            after(granted.clone(), &[reverse(Stage::InForce)]).state,
            State::Due
        );
        let held = after(granted, &[reverse(Stage::Held(HeldBecause::Cap))]);
        assert_eq!(held.state, State::Held);
        assert_eq!(after(held.clone(), &[Event::Approved]).state, State::Due);
        assert_eq!(
            after(held, &[Event::Dismissed]).state,
            settled(Settled::Dismissed)
        );
    }

    #[test]
    fn it_is_stored_and_read_back_whole() {
        for events in [
            vec![begun()],
            vec![Event::NameUnknown],
            vec![begun(), ended(Verdict::Retry)],
        ] {
            let progress = after(Progress::new(), &events);
            let text = serde_json::to_string(&progress).unwrap();
            assert_eq!(
                serde_json::from_str::<Progress>(&text).unwrap(),
                progress,
                "{text}"
            );
        }
    }
}
