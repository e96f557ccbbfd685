//! Time that is given back to a customer whose access began later than it was paid for (facts/access.md C2
//! and C3b, "Hold credit").

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::expiry::Expiry;
use super::ids::TransactionId;

/// How long a row has been waiting for one script, and for whose sake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The stretches of waiting, in order, each until the next begins.
    spells: Vec<Spell>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Spell {
    from: Timestamp,
    cause: HoldCause,
}

/// For whose sake a row waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldCause {
    /// Ours: a service does not answer, a cap is reached, a person has to look at it.
    Ours,
    /// The customer's: the name at TradingView is wrong.
    Name,
}

impl Hold {
    /// A row that was read at `now` for the first time and could not be settled. It waits since then, or
    /// since its purchase where the run came more than two intervals after that, as then we were late
    /// already. Nobody was late before `watched_since`, when the sync first ran for the script: what was
    /// bought before waits since then at the earliest.
    #[must_use]
    pub fn begin(
        created_at: Timestamp,
        watched_since: Timestamp,
        now: Timestamp,
        interval: Duration,
        cause: HoldCause,
    ) -> Self {
        let expected = created_at.max(watched_since);
        let in_time = expected
            .checked_add(interval.saturating_mul(2))
            .unwrap_or(Timestamp::MAX);
        let from = if now > in_time { expected } else { now };
        Self {
            spells: vec![Spell { from, cause }],
        }
    }

    /// Notes that the row still waits at `now`, for this cause.
    pub fn go_on(&mut self, now: Timestamp, cause: HoldCause) {
        if self.spells.last().is_none_or(|spell| spell.cause != cause) {
            self.spells.push(Spell { from: now, cause });
        }
    }

    /// Seconds of waiting until `settled_at` in which access was not live; it was until `live_until`. What
    /// was waited for the customer's sake counts for `name_max` at most.
    fn credit(&self, settled_at: Timestamp, live_until: Expiry, name_max: Duration) -> u32 {
        let dark_from = match live_until {
            Expiry::NoAccess => Timestamp::MIN,
            Expiry::At(end) => end,
            Expiry::Lifetime => return 0,
        };
        let ends = self
            .spells
            .iter()
            .skip(1)
            .map(|spell| spell.from)
            .chain([settled_at]);
        let (mut ours, mut names) = (0_u64, 0_u64);
        for (spell, until) in self.spells.iter().zip(ends) {
            let from = spell.from.max(dark_from).as_second();
            let waited = u64::try_from(until.as_second().saturating_sub(from)).unwrap_or(0);
            match spell.cause {
                HoldCause::Ours => ours = ours.saturating_add(waited),
                HoldCause::Name => names = names.saturating_add(waited),
            }
        }
        u32::try_from(ours.saturating_add(names.min(name_max.as_secs()))).unwrap_or(u32::MAX)
    }

    /// Since when the row waited, and for whose sake, in words for the audit.
    #[must_use]
    pub fn told(&self) -> String {
        let spells: Vec<String> = (self.spells.iter())
            .map(|spell| match spell.cause {
                HoldCause::Ours => format!("since {} for us", spell.from),
                HoldCause::Name => format!("since {} for the name", spell.from),
            })
            .collect();
        spells.join(", ")
    }

    fn since(&self) -> Option<Timestamp> {
        self.spells.first().map(|spell| spell.from)
    }
}

/// The credit for rows of one person and script that settle together: time that several of them waited is
/// lost, and given back, only once. It goes to the row that waited longest; of those that
/// waited equally long to the newest, as what the oldest bought may have ended before a gap.
#[must_use]
pub fn credit(
    holds: &BTreeMap<TransactionId, Hold>,
    settled_at: Timestamp,
    live_until: Expiry,
    name_max: Duration,
) -> Option<(TransactionId, u32)> {
    let (transaction, hold) = holds
        .iter()
        .min_by_key(|(transaction, hold)| (hold.since(), Reverse(*transaction)))?;
    let seconds = hold.credit(settled_at, live_until, name_max);
    (seconds > 0).then(|| (transaction.clone(), seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::ledger::tests::{at, until};

    const INTERVAL: Duration = Duration::from_secs(900);
    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    fn waiting(created_at: &str, first_run: &str, cause: HoldCause) -> Hold {
        let watched_since = at("2025-01-01");
        Hold::begin(at(created_at), watched_since, at(first_run), INTERVAL, cause)
    }

    fn seconds(hold: Hold, settled_at: &str, live_until: Expiry) -> u32 {
        let holds = BTreeMap::from([(TransactionId::parse("1").unwrap(), hold)]);
        credit(&holds, at(settled_at), live_until, WEEK).map_or(0, |(_, seconds)| seconds)
    }

    #[test]
    fn our_delay_is_given_back_whole() {
        let hold = waiting("2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z", HoldCause::Ours);
        assert_eq!(
            seconds(hold, "2026-01-21T00:10:00Z", Expiry::NoAccess),
            20 * 86_400
        );
    }

    #[test]
    fn a_wrong_name_is_given_back_for_a_week_at_most() {
        let hold = || waiting("2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z", HoldCause::Name);
        assert_eq!(seconds(hold(), "2026-01-02T00:10:00Z", Expiry::NoAccess), 86_400);
        assert_eq!(
            seconds(hold(), "2026-02-01T00:10:00Z", Expiry::NoAccess),
            7 * 86_400
        );
    }

    #[test]
    fn each_cause_counts_for_its_own_time() {
        let mut hold = waiting("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", HoldCause::Name);
        hold.go_on(at("2026-01-05"), HoldCause::Name);
        hold.go_on(at("2026-01-11"), HoldCause::Ours);
        hold.go_on(at("2026-01-12"), HoldCause::Ours);
        assert_eq!(seconds(hold, "2026-01-13", Expiry::NoAccess), (7 + 2) * 86_400);
    }

    #[test]
    fn a_run_that_came_late_counts_from_the_purchase() {
        let late = waiting("2026-01-01T00:00:00Z", "2026-01-01T00:30:01Z", HoldCause::Ours);
        assert_eq!(seconds(late, "2026-01-01T01:00:00Z", Expiry::NoAccess), 3_600);
        let in_time = waiting("2026-01-01T00:00:00Z", "2026-01-01T00:30:00Z", HoldCause::Ours);
        assert_eq!(seconds(in_time, "2026-01-01T01:00:00Z", Expiry::NoAccess), 1_800);
    }

    #[test]
    fn nobody_was_late_before_there_was_a_sync() {
        let begun = |first_run| {
            let watched_since = at("2026-01-21T00:00:00Z");
            Hold::begin(
                at("2026-01-01"),
                watched_since,
                at(first_run),
                INTERVAL,
                HoldCause::Ours,
            )
        };
        let settled_at = "2026-01-22T00:00:00Z";
        // By the first run of all, and by one that came later than it had to.
        for first_run in ["2026-01-21T00:00:00Z", "2026-01-21T12:00:00Z"] {
            assert_eq!(
                seconds(begun(first_run), settled_at, Expiry::NoAccess),
                86_400,
                "{first_run}"
            );
        }
    }

    #[test]
    fn time_in_which_access_was_live_is_not_given_back() {
        let hold = || waiting("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", HoldCause::Ours);
        assert_eq!(seconds(hold(), "2026-01-11", until("2026-01-08")), 3 * 86_400);
        assert_eq!(seconds(hold(), "2026-01-11", until("2026-03-01")), 0);
        assert_eq!(seconds(hold(), "2026-01-11", Expiry::Lifetime), 0);
    }

    #[test]
    fn of_rows_that_waited_equally_long_the_newest_is_given_the_time() {
        let hold = || {
            let begun = at("2026-01-21T00:00:00Z");
            Hold::begin(at("2026-01-01"), begun, begun, INTERVAL, HoldCause::Ours)
        };
        let id = |text| TransactionId::parse(text).unwrap();
        let holds = BTreeMap::from([(id("9"), hold()), (id("10"), hold())]);
        let credited = credit(&holds, at("2026-01-22"), Expiry::NoAccess, WEEK);
        assert_eq!(credited, Some((id("10"), 86_400)));
    }

    #[test]
    fn the_audit_is_told_since_when_and_for_whose_sake_a_row_waited() {
        let mut hold = waiting("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", HoldCause::Ours);
        hold.go_on(at("2026-01-05"), HoldCause::Name);
        assert_eq!(
            hold.told(),
            "since 2026-01-01T00:00:00Z for us, since 2026-01-05T00:00:00Z for the name"
        );
    }

    #[test]
    fn rows_that_wait_together_are_given_the_time_once() {
        let id = |text| TransactionId::parse(text).unwrap();
        let holds = BTreeMap::from([
            (
                id("1"),
                waiting("2026-01-03T00:00:00Z", "2026-01-03T00:00:00Z", HoldCause::Ours),
            ),
            (
                id("2"),
                waiting("2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z", HoldCause::Ours),
            ),
        ]);
        let credited = credit(&holds, at("2026-01-05"), Expiry::NoAccess, WEEK);
        assert_eq!(credited, Some((id("2"), 3 * 86_400)));
        assert_eq!(
            credit(&BTreeMap::new(), at("2026-01-05"), Expiry::NoAccess, WEEK),
            None
        );
    }
}
