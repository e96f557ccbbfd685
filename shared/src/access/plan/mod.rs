//! From what people have bought and what the access API has to what has to be done there (facts/access.md C2
//! "Remote rules", C3).
//!
//! What is decided here are targets, not steps: a decision taken twice, or taken again after a crash, does
//! not grant twice.

mod caps;
mod document;
mod moves;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::caps::{Allowance, revocation_cap};
pub use self::document::{PLAN_GOOD_FOR, Plan, PlannedAction, Stale};
pub use self::moves::{MOVES_WINDOW, Relocation, relocate};
use super::expiry::Expiry;
use super::ids::PersonId;
use super::remote::Wire;

/// What one person claims of one script under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub person: PersonId,
    /// Until when, by the ledger.
    pub expiry: Expiry,
    /// The last end that the access API was told under this name, or was going to be told by a call whose
    /// outcome is not known; `None` where there was none.
    pub told: Option<Expiry>,
    /// The end that was found there before, which is part of the ledger.
    pub found: Option<Expiry>,
    /// Whether something in the ledger was not brought to the access API yet.
    pub changed: bool,
    /// Whether something was taken back and not brought to the access API yet.
    pub reversing: bool,
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To bring what changed in the shop to the access API. What somebody changed there is reported and left.
    Sync,
    /// To bring the access API back to what the ledger says, never lower.
    Repair,
}

/// What to do about one name of one script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The person whose claim decides.
    pub person: PersonId,
    /// What to call.
    pub action: Action,
    /// What that comes to.
    pub outcome: Outcome,
    /// Everybody who claims under this name, where there are several; it goes into the report.
    pub conflict: Vec<PersonId>,
}

/// A call to the access API, by its absolute target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Action {
    /// None.
    None,
    /// Give access to somebody who has none.
    Grant {
        /// Until then.
        to: Expiry,
    },
    /// Change the end of somebody's access.
    Update {
        /// The end that it has.
        from: Expiry,
        /// The end that it shall have.
        to: Expiry,
    },
    /// Take somebody's access.
    Remove {
        /// The end that it has.
        from: Expiry,
    },
}

/// What a decision comes to (C3, the states after applying and planning a reversal).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Access is given.
    Granted,
    /// Access is prolonged.
    Extended,
    /// Access is shortened after something was taken back.
    Shortened,
    /// Access is removed after something was taken back.
    Revoked,
    /// Something was taken back, but what is left covers what there is.
    Kept,
    /// Access is for ever already, and not by us.
    NotApplied,
    /// All is as it should be.
    AsItShouldBe,
    /// Somebody gave more by hand: to be taken as the new baseline, and then decided again.
    HandExtended(Expiry),
    /// Somebody took access, or some of it, by hand. It is reported; repairing gives it again.
    HandShortened(Expiry),
    /// The ledger says less than there is, without anything that was taken back. Nothing is lowered.
    NeverLowered(Expiry),
}

/// Decides about one name of one script. `claims` are all that are made under the name, `remote` is what the
/// access API has; `None` where it does not list the name. Nobody is listed whom nobody claims: such users
/// are not managed here and never reach this function.
#[must_use]
pub fn decide(
    claims: &[Claim],
    remote: Option<Expiry>,
    wire: Wire,
    mode: Mode,
    now: Timestamp,
) -> Option<Decision> {
    // Who has most decides; of several the one who has been known longest.
    let first = claims
        .iter()
        .max_by_key(|claim| (claim.expiry, std::cmp::Reverse(claim.person)))?;
    let (action, outcome) = Standing::of(claims, first.expiry, wire, mode, now).against(remote);
    let mut conflict: Vec<PersonId> = claims.iter().map(|claim| claim.person).collect();
    conflict.sort_unstable();
    conflict.dedup();
    if conflict.len() < 2 {
        conflict.clear();
    }
    Some(Decision {
        person: first.person,
        action,
        outcome,
        conflict,
    })
}

/// What to do about a name that a person has moved away from, once the new name has access. `others` are the
/// claims that are still made under it.
#[must_use]
pub fn release(others: &[Claim], remote: Option<Expiry>, now: Timestamp) -> Action {
    match remote {
        Some(from) if from.is_live(now) && !others.iter().any(|claim| claim.expiry.is_live(now)) => {
            Action::Remove { from }
        }
        _ => Action::None,
    }
}

/// All claims under one name taken together.
struct Standing {
    target: Expiry,
    told: Option<Expiry>,
    found: Option<Expiry>,
    changed: bool,
    reversing: bool,
    wire: Wire,
    now: Timestamp,
}

impl Standing {
    fn of(claims: &[Claim], target: Expiry, wire: Wire, mode: Mode, now: Timestamp) -> Self {
        Self {
            target,
            told: claims.iter().filter_map(|claim| claim.told).max(),
            found: claims.iter().filter_map(|claim| claim.found).max(),
            changed: mode == Mode::Repair || claims.iter().any(|claim| claim.changed),
            reversing: claims.iter().any(|claim| claim.reversing),
            wire,
            now,
        }
    }

    fn against(&self, remote: Option<Expiry>) -> (Action, Outcome) {
        let live = self.target.is_live(self.now);
        match remote {
            None | Some(Expiry::NoAccess) if live && self.changed => {
                (Action::Grant { to: self.target }, Outcome::Granted)
            }
            None | Some(Expiry::NoAccess) if live && self.told.is_some() => {
                (Action::None, Outcome::HandShortened(Expiry::NoAccess))
            }
            None | Some(Expiry::NoAccess) => self.nothing(),
            Some(Expiry::Lifetime) => self.against_lifetime(),
            Some(from) if from < self.target => match (live, self.changed) {
                (true, true) => (
                    Action::Update {
                        from,
                        to: self.target,
                    },
                    Outcome::Extended,
                ),
                (true, false) => (Action::None, Outcome::HandShortened(from)),
                (false, _) => self.nothing(),
            },
            Some(from) => self.against_more(from),
        }
    }

    fn against_lifetime(&self) -> (Action, Outcome) {
        let from = Expiry::Lifetime;
        match self.told {
            Some(Expiry::Lifetime) if self.target == from => self.nothing(),
            Some(Expiry::Lifetime) if self.reversing => self.lower(from),
            Some(Expiry::Lifetime) => (Action::None, Outcome::NeverLowered(from)),
            _ if self.changed || self.reversing => (Action::None, Outcome::NotApplied),
            _ => (Action::None, Outcome::AsItShouldBe),
        }
    }

    /// The access API has at least what the ledger says.
    fn against_more(&self, from: Expiry) -> (Action, Outcome) {
        let rounded = from <= self.wire.effective(self.target);
        if !from.is_live(self.now) || (rounded && self.target.is_live(self.now)) {
            return self.nothing();
        }
        // An access that only lives on because its end was rounded up to a day was not given by anybody's
        // hand.
        let known = self.told.max(self.found);
        let ours = rounded || known.is_some_and(|known| from <= self.wire.effective(known));
        match (ours, self.reversing) {
            (false, _) => (Action::None, Outcome::HandExtended(from)),
            (true, true) => self.lower(from),
            (true, false) if rounded => self.nothing(),
            (true, false) => (Action::None, Outcome::NeverLowered(from)),
        }
    }

    fn lower(&self, from: Expiry) -> (Action, Outcome) {
        if self.target.is_live(self.now) {
            (
                Action::Update {
                    from,
                    to: self.target,
                },
                Outcome::Shortened,
            )
        } else {
            (Action::Remove { from }, Outcome::Revoked)
        }
    }

    fn nothing(&self) -> (Action, Outcome) {
        let outcome = if self.reversing {
            Outcome::Kept
        } else {
            Outcome::AsItShouldBe
        };
        (Action::None, outcome)
    }
}

impl Action {
    /// The word that plans have for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Grant { .. } => "grant",
            Self::Update { .. } => "update",
            Self::Remove { .. } => "remove",
        }
    }

    /// Whether it gives access or prolongs it, which the cap on grants counts.
    #[must_use]
    pub fn gives(self) -> bool {
        match self {
            Self::Grant { .. } => true,
            Self::Update { from, to } => to > from,
            Self::None | Self::Remove { .. } => false,
        }
    }

    /// Whether it takes access or shortens it, which the cap on revocations counts.
    #[must_use]
    pub fn takes(self) -> bool {
        match self {
            Self::Remove { .. } => true,
            Self::Update { from, to } => to < from,
            Self::None | Self::Grant { .. } => false,
        }
    }

    /// The end that there shall be.
    #[must_use]
    pub fn target(self) -> Option<Expiry> {
        match self {
            Self::Grant { to } | Self::Update { to, .. } => Some(to),
            Self::None | Self::Remove { .. } => None,
        }
    }

    /// Whether what the access API has now shows that the call took effect, so that one whose answer was lost
    /// is not made again (C3, "UNKNOWN ─read-back").
    #[must_use]
    pub fn is_done(self, remote: Option<Expiry>, wire: Wire) -> bool {
        match self {
            Self::None => true,
            Self::Grant { to } => remote.is_some_and(|remote| remote >= to),
            Self::Update { from, to } if to >= from => remote.is_some_and(|remote| remote >= to),
            Self::Update { to, .. } => {
                remote.is_some_and(|remote| remote >= to && remote <= wire.effective(to))
            }
            Self::Remove { .. } => remote.is_none_or(|remote| remote == Expiry::NoAccess),
        }
    }
}
