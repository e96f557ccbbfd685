//! How many names at TradingView have access now. TradingView may charge a vendor for each of them above a
//! number (facts/access.md A4), so that number is watched.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::expiry::Expiry;
use super::ids::ScriptId;
use super::names::Username;

/// The shares of the threshold, in percent, at which a warning is due.
const WARN_AT: [u64; 3] = [100, 95, 80];

/// Names with live access, for each script and in all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meter {
    by_script: BTreeMap<ScriptId, u64>,
    seen: BTreeMap<String, BTreeSet<ScriptId>>,
}

impl Meter {
    /// Counts a name's access to a script, by its exact end, if it is live at `now`. A name counts once for
    /// each script and once in all, whoever uses it.
    pub fn count(&mut self, script: &ScriptId, name: &Username, expiry: Expiry, now: Timestamp) {
        if !expiry.is_live(now) {
            return;
        }
        if self.seen.entry(name.key()).or_default().insert(script.clone()) {
            let count = self.by_script.entry(script.clone()).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Names with access to any script.
    #[must_use]
    pub fn active_users(&self) -> u64 {
        u64::try_from(self.seen.len()).unwrap_or(u64::MAX)
    }

    /// Names with access to one script.
    #[must_use]
    pub fn active_users_of(&self, script: &ScriptId) -> u64 {
        self.by_script.get(script).copied().unwrap_or(0)
    }

    /// What to warn of when there shall be no more than `threshold` names; nothing below 80 % of it, or where
    /// it is 0.
    #[must_use]
    pub fn warning(&self, threshold: u32) -> Option<String> {
        let active = self.active_users();
        let threshold = u64::from(threshold);
        if threshold == 0 {
            return None;
        }
        let reached = active.saturating_mul(100);
        let percent = WARN_AT
            .into_iter()
            .find(|percent| reached >= threshold.saturating_mul(*percent))?;
        Some(format!(
            "{active} active users are {percent} % or more of the threshold of {threshold}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::ledger::tests::{at, until};

    fn name(text: &str) -> Username {
        Username::parse(text).unwrap()
    }

    fn meter(count: usize) -> Meter {
        let mut meter = Meter::default();
        for i in 0..count {
            meter.count(
                &ScriptId::new("S1"),
                &name(&format!("u{i}")),
                Expiry::Lifetime,
                at("2026-01-01"),
            );
        }
        meter
    }

    #[test]
    fn a_name_counts_once_for_each_script_and_once_in_all() {
        let (one, other) = (ScriptId::new("S1"), ScriptId::new("S2"));
        let now = at("2026-01-01");
        let mut meter = Meter::default();
        meter.count(&one, &name("Ada"), until("2026-01-02"), now);
        meter.count(&one, &name("ada"), Expiry::Lifetime, now);
        meter.count(&other, &name("Ada"), until("2026-01-02"), now);
        meter.count(&other, &name("Bob"), until("2026-01-01"), now);
        meter.count(&other, &name("Cy"), Expiry::NoAccess, now);
        assert_eq!(
            (meter.active_users_of(&one), meter.active_users_of(&other)),
            (1, 1)
        );
        assert_eq!(meter.active_users(), 1);
        assert_eq!(meter.active_users_of(&ScriptId::new("S3")), 0);
    }

    #[test]
    fn warnings_come_at_eighty_ninety_five_and_a_hundred_percent() {
        for (count, percent) in [
            (79, None),
            (80, Some("80 %")),
            (94, Some("80 %")),
            (95, Some("95 %")),
            (99, Some("95 %")),
            (100, Some("100 %")),
            (150, Some("100 %")),
        ] {
            let warning = meter(count).warning(100);
            assert_eq!(warning.is_some(), percent.is_some(), "{count}");
            assert!(
                warning.unwrap_or_default().contains(percent.unwrap_or_default()),
                "{count}"
            );
        }
        assert_eq!(meter(5).warning(0), None);
    }
}
