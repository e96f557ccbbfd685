//! What one person has bought of one script, and until when that gives access (facts/access.md C1, C2).
//!
//! Nothing is ever added to a stored date. The end of access is reckoned anew from all entries each time, so
//! that it does not matter in which order they came, how often, or which of them was taken back later.

mod entry;
mod reckoning;
#[cfg(test)]
pub(in crate::access) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::entry::{Cut, Effect, Entry, HeldBecause, Reversal, ReversalCause, SaleKind, Stage};
pub use self::reckoning::{EARLY_RENEWAL, Reckoning, Segment};
pub(super) use self::reckoning::{by_shop, is_before};
use super::expiry::Expiry;
use super::ids::{SubscriptionId, TransactionId};
use super::names::Username;

/// What one person has bought of one script.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// What there was before this ledger, or what somebody gave by hand.
    pub baseline: Option<Baseline>,
    /// The transactions that count, and those that were taken back.
    pub entries: BTreeMap<TransactionId, Entry>,
    /// The transactions that wait for a person and do not count until then.
    pub reviewed: BTreeMap<TransactionId, Entry>,
    /// The renewals that failed, by transaction.
    pub failed_renewals: BTreeMap<TransactionId, FailedRenewal>,
}

/// An end of access that was found at the access API and not made here. All that was bought until it was
/// found is contained in it (C3b, "Baseline").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The end that was found.
    pub end: Expiry,
    /// When it was found.
    pub at: Timestamp,
    /// What was known by then but not granted yet: it is not contained.
    #[serde(default)]
    pub except: BTreeSet<TransactionId>,
    /// The name that had it before Berth, as long as it is there that it has to be looked for.
    #[serde(default)]
    pub under: Option<Username>,
}

impl Baseline {
    /// A baseline that contains all that was bought until `at`.
    #[must_use]
    pub fn new(end: Expiry, at: Timestamp) -> Self {
        Self {
            end,
            at,
            except: BTreeSet::new(),
            under: None,
        }
    }

    /// The same, found under this name.
    #[must_use]
    pub fn under(self, name: Username) -> Self {
        Self {
            under: Some(name),
            ..self
        }
    }

    fn contains(&self, transaction: &TransactionId, created_at: Timestamp) -> bool {
        created_at <= self.at && !self.except.contains(transaction)
    }
}

/// A renewal that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRenewal {
    /// The subscription that it should have renewed.
    pub subscription: SubscriptionId,
    /// When.
    pub created_at: Timestamp,
}

impl Ledger {
    /// When access ends, and how that comes about.
    #[must_use]
    pub fn reckon(&self) -> Reckoning {
        reckoning::reckon(self.baseline.as_ref(), self.entries.values())
    }

    /// When access ends. After a renewal that failed it goes on for `grace`.
    #[must_use]
    pub fn expiry(&self, grace: Duration) -> Expiry {
        let expiry = self.reckon().expiry;
        match expiry {
            Expiry::At(end) if !grace.is_zero() && self.has_failed_to_renew(end) => {
                Expiry::At(end.checked_add(grace).unwrap_or(Timestamp::MAX))
            }
            _ => expiry,
        }
    }

    /// When access ended by what counts before `entry`.
    #[must_use]
    pub fn expiry_before(&self, entry: &Entry) -> Expiry {
        let before = self.entries.values().filter(|other| is_before(other, entry));
        reckoning::reckon(self.baseline.as_ref(), before).expiry
    }

    /// Whether a transaction stands here, whether it counts or not.
    #[must_use]
    pub fn knows(&self, transaction: &TransactionId) -> bool {
        self.entries.contains_key(transaction)
            || self.reviewed.contains_key(transaction)
            || self.failed_renewals.contains_key(transaction)
    }

    /// Whether an entry is contained in the baseline.
    #[must_use]
    pub fn contains(&self, entry: &Entry) -> bool {
        let baseline = self.baseline.as_ref();
        baseline.is_some_and(|baseline| baseline.contains(&entry.transaction, entry.created_at))
    }

    /// Takes an end that somebody gave by hand as the new baseline (C2, "Remote > E"). What is known but was
    /// not granted yet (`ungranted`) is added to it rather than contained in it.
    pub fn adopt(&mut self, end: Expiry, now: Timestamp, ungranted: BTreeSet<TransactionId>) {
        self.baseline = Some(Baseline {
            end,
            at: now,
            except: ungranted,
            under: None,
        });
        // What was taken back is contained now as well; there is nothing left to tell of it.
        self.settle_reversals();
    }

    /// Whether something was taken back and the access API was not told yet.
    #[must_use]
    pub fn is_being_reversed(&self) -> bool {
        self.entries.values().any(Entry::is_being_reversed)
    }

    /// Whether the renewal that should have prolonged access beyond `end` failed, and no other came.
    fn has_failed_to_renew(&self, end: Timestamp) -> bool {
        let due = end.checked_sub(EARLY_RENEWAL).unwrap_or(Timestamp::MIN);
        self.failed_renewals
            .values()
            .filter(|failed| failed.created_at >= due)
            .any(|failed| {
                let renewals = || {
                    self.entries.values().filter(|entry| {
                        entry.reversed().is_none()
                            && entry.subscription.as_ref() == Some(&failed.subscription)
                    })
                };
                renewals().any(|entry| entry.created_at <= failed.created_at)
                    && !renewals().any(|entry| entry.created_at > failed.created_at)
            })
    }
}

/// `at` and this many seconds later; the end of time where there is no later.
fn seconds_after(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}
