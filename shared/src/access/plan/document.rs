//! What would be done, as it is shown, saved and approved (facts/access.md C3 "Safety": `plan approve`).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Action;
use crate::access::expiry::Expiry;
use crate::access::ids::{PersonId, ScriptId, TransactionId};
use crate::access::names::Username;

/// Characters of a plan's id.
const ID_CHARS: usize = 16;

/// What would be done about one name of one script (contract.md, `plan`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlannedAction {
    /// The script.
    pub script_id: ScriptId,
    /// The person whose claim decides.
    pub person: PersonId,
    /// The name, in its right spelling.
    pub username: Username,
    /// `grant`, `update`, `remove` or `none`.
    pub action: String,
    /// The end that there is: a time, `lifetime`, or null where there is no access.
    pub from: Option<Expiry>,
    /// The end that there would be: a time, `lifetime`, or null where access is removed.
    pub to: Option<Expiry>,
}

impl PlannedAction {
    /// An action as it is shown.
    #[must_use]
    pub fn new(script_id: ScriptId, person: PersonId, username: Username, action: Action) -> Self {
        let from = match action {
            Action::Update { from, .. } | Action::Remove { from } => Some(from),
            Action::None | Action::Grant { .. } => None,
        };
        Self {
            script_id,
            person,
            username,
            action: action.as_str().to_owned(),
            from,
            to: action.target(),
        }
    }
}

/// All that would be done, for an operator to approve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// A hash of all the rest: the same plan has the same id, and an id can only be of one plan.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The state of the ledgers that it was made from.
    pub ledger_version: String,
    /// What would be done.
    #[serde(rename = "plan")]
    pub actions: Vec<PlannedAction>,
    /// The transactions whose reversal waits for approval, and is approved with the plan.
    pub held: Vec<TransactionId>,
}

/// How old a plan may be that is applied: what an operator has looked at is what was true within a day.
pub const PLAN_GOOD_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Why a plan is not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// Something has changed since it was made.
    #[error("the ledger or the access API has changed since the plan was made")]
    Changed,
    /// It was made too long ago, or in a time to come.
    #[error("the plan is older than {} hours", PLAN_GOOD_FOR.as_hours())]
    Old,
}

impl Plan {
    /// A plan, with the id that its contents give it.
    #[must_use]
    pub fn new(
        created_at: Timestamp,
        ledger_version: String,
        mut actions: Vec<PlannedAction>,
        mut held: Vec<TransactionId>,
    ) -> Self {
        actions.sort_by(|a, b| {
            (&a.script_id, &a.username, a.person).cmp(&(&b.script_id, &b.username, b.person))
        });
        held.sort_unstable();
        held.dedup();
        // Texts, numbers and times can always be written as JSON.
        let contents = serde_json::to_vec(&(&ledger_version, &actions, &held)).unwrap_or_default();
        let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(contents));
        Self {
            id: hash.chars().take(ID_CHARS).collect(),
            created_at,
            ledger_version,
            actions,
            held,
        }
    }

    /// Whether it may be applied at `now`, while the ledgers are in this state.
    ///
    /// # Errors
    /// [`Stale`] where something has changed since, or where that is too long ago.
    pub fn check(&self, ledger_version: &str, now: Timestamp) -> Result<(), Stale> {
        let age = now.duration_since(self.created_at);
        if self.ledger_version != ledger_version {
            Err(Stale::Changed)
        } else if age.is_negative() || age >= PLAN_GOOD_FOR {
            Err(Stale::Old)
        } else {
            Ok(())
        }
    }
}
