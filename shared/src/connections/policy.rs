//! Who gives way when every place is taken.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::records::{Holder, UserState};
use crate::config::Policy;

/// Why somebody gave way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nobody was registered earlier.
    Oldest,
    /// Nobody was seen doing something longer ago.
    LeastRecentlyActive,
    /// A brokerage connection was broken, or the secret no longer worked.
    Broken,
}

impl Reason {
    /// The word that answers and the audit trail have for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oldest => "oldest",
            Self::LeastRecentlyActive => "least_recently_active",
            Self::Broken => "broken",
        }
    }
}

/// The holder who gives way among `candidates`, and why; `None` where nobody may.
///
/// Ties are broken by the order of the first list, then by user id, so that everybody who looks sees the same one.
#[must_use]
pub fn choose(policy: Policy, candidates: &[Holder]) -> Option<(&Holder, Reason)> {
    let eligible = candidates.iter().filter(|holder| holder.may_give_way());
    let chosen = eligible.min_by(|a, b| compare(policy, a, b))?;
    let reason = match policy {
        Policy::None => return None,
        Policy::LeastRecentlyActive => Reason::LeastRecentlyActive,
        Policy::BrokenFirst if is_broken(chosen) => Reason::Broken,
        Policy::Oldest | Policy::BrokenFirst => Reason::Oldest,
    };
    Some((chosen, reason))
}

/// Who of two gives way first. No two holders are equal in it.
#[must_use]
pub fn compare(policy: Policy, a: &Holder, b: &Holder) -> Ordering {
    match policy {
        Policy::None | Policy::Oldest => by_age(a, b),
        Policy::LeastRecentlyActive => activity(a).cmp(&activity(b)).then_with(|| by_age(a, b)),
        Policy::BrokenFirst => is_broken(b).cmp(&is_broken(a)).then_with(|| by_age(a, b)),
    }
}

/// Oldest first, in the order of the index that lists holders: by the millisecond, then by the place in the list that
/// first had it, then by user id. Several ids of one user are told apart by themselves.
#[must_use]
pub fn by_age(a: &Holder, b: &Holder) -> Ordering {
    let millisecond = |holder: &Holder| holder.created_at().as_millisecond();
    millisecond(a)
        .cmp(&millisecond(b))
        .then_with(|| order(a).cmp(&order(b)))
        .then_with(|| a.shown_user_id().cmp(b.shown_user_id()))
        .then_with(|| a.upstream().cmp(&b.upstream()))
}

fn order(holder: &Holder) -> u32 {
    match holder {
        Holder::User(_) => 0,
        Holder::Foreign(foreign) => foreign.order,
    }
}

fn activity(holder: &Holder) -> jiff::Timestamp {
    match holder {
        Holder::User(user) => match &user.state {
            UserState::Active(active) => active.last_active_at,
            UserState::Reserved(_) => user.created_at,
        },
        Holder::Foreign(foreign) => foreign.created_at,
    }
}

fn is_broken(holder: &Holder) -> bool {
    match holder {
        Holder::User(user) => user
            .active()
            .is_some_and(|active| active.broken || active.secret_rejected),
        Holder::Foreign(_) => false,
    }
}
