//! How much a run may do before a person has looked at it (facts/access.md C3 "Safety", C3b "Caps").

use std::collections::BTreeMap;

use crate::access::configuration::Caps;
use crate::access::ids::ScriptId;

/// From so many active users of a script a share of them bounds reversals as well.
const SHARE_ABOVE: u64 = 20;

/// That share, in percent.
const SHARE_PERCENT: u64 = 5;

/// What a run may still do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// `None` where a person has approved all of it.
    caps: Option<Caps>,
    grants: u32,
    reversals: BTreeMap<ScriptId, u32>,
}

impl Allowance {
    /// All that a run may do.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self {
            caps: Some(caps),
            grants: 0,
            reversals: BTreeMap::new(),
        }
    }

    /// All that a person has approved.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            caps: None,
            grants: 0,
            reversals: BTreeMap::new(),
        }
    }

    /// Whether no grant or extension is left.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.caps
            .is_some_and(|caps| self.grants >= caps.max_grants_per_run)
    }

    /// Takes one grant or extension; false where it has to wait for the next run.
    #[must_use]
    pub fn take_grant(&mut self) -> bool {
        let allowed = !self.is_spent();
        if allowed {
            self.grants = self.grants.saturating_add(1);
        }
        allowed
    }

    /// Takes one reversal of a script with so many active users; false where it has to wait for a person's
    /// approval. Removing an old name after a move is none.
    #[must_use]
    pub fn take_reversal(&mut self, script: &ScriptId, active: u64) -> bool {
        let taken = self.reversals.entry(script.clone()).or_default();
        let allowed = self.caps.is_none_or(|caps| *taken < revocation_cap(caps, active));
        if allowed {
            *taken = taken.saturating_add(1);
        }
        allowed
    }
}

/// How many reversals a run may make of a script with so many active users.
#[must_use]
pub fn revocation_cap(caps: Caps, active: u64) -> u32 {
    if active <= SHARE_ABOVE {
        return caps.max_revocations;
    }
    let share = active.saturating_mul(SHARE_PERCENT) / 100;
    caps.max_revocations
        .min(u32::try_from(share.max(1)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps {
        max_revocations: 10,
        max_grants_per_run: 2,
        active_users_warning: 100,
    };

    #[test]
    fn above_twenty_active_users_five_percent_of_them_bound_reversals_as_well() {
        for (active, cap) in [
            (0, 10),
            (20, 10),
            (21, 1),
            (39, 1),
            (40, 2),
            (199, 9),
            (200, 10),
            (10_000, 10),
        ] {
            assert_eq!(revocation_cap(CAPS, active), cap, "{active}");
        }
        assert_eq!(
            revocation_cap(
                Caps {
                    max_revocations: 0,
                    ..CAPS
                },
                100
            ),
            0
        );
    }

    #[test]
    fn reversals_are_counted_for_each_script_by_itself() {
        let mut allowance = Allowance::new(CAPS);
        let (one, other) = (ScriptId::new("S1"), ScriptId::new("S2"));
        assert!(allowance.take_reversal(&one, 25));
        assert!(!allowance.take_reversal(&one, 25));
        assert!(allowance.take_reversal(&other, 25));
    }

    #[test]
    fn grants_beyond_the_cap_wait_for_the_next_run() {
        let mut allowance = Allowance::new(CAPS);
        assert_eq!([(); 3].map(|()| allowance.take_grant()), [true, true, false]);
    }
}
