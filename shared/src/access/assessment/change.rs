//! What a row changes in a ledger, and making the change.

use super::{IgnoreReason, ReviewReason};
use crate::access::ids::TransactionId;
use crate::access::ledger::{Cut, Entry, FailedRenewal, HeldBecause, Ledger, Reversal, Stage};

/// What a row changes in a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it is known as it is.
    Nothing,
    /// It gives nothing.
    Ignore(IgnoreReason),
    /// It gives nothing, but is a renewal that failed, which may earn a grace.
    Fail(TransactionId, FailedRenewal),
    /// It counts from now on.
    Enter(Box<Entry>),
    /// It is contained in the baseline: it gives nothing, but later renewals continue it. Reported as
    /// [`IgnoreReason::BeforeBaseline`].
    Contain(Box<Entry>),
    /// The shop says a later end for it than before.
    Amend(Box<Entry>),
    /// The shop says an earlier end for it than before.
    Cut(TransactionId, Cut),
    /// It is taken back.
    Reverse(TransactionId, Reversal),
    /// The shop no longer takes it back.
    Restore(TransactionId),
    /// A person has to look at it. With an entry it is new and does not count until then; without one the
    /// ledger stays as it is.
    Review(ReviewReason, Option<Box<Entry>>),
    /// It would be taken back, but the source is not to be believed in this run.
    Withheld,
    /// It belongs to nobody and is put aside: its member was deleted before it was first seen.
    Orphan,
}

impl Change {
    /// Whether this takes something back that was given, and counts at once.
    #[must_use]
    pub fn is_reversal_in_force(&self) -> bool {
        match self {
            Self::Cut(_, cut) => cut.stage == Stage::InForce,
            Self::Reverse(_, reversal) => reversal.stage == Stage::InForce,
            _ => false,
        }
    }

    /// Whether this waits for a person's approval.
    #[must_use]
    pub fn is_held(&self) -> bool {
        match self {
            Self::Cut(_, cut) => matches!(cut.stage, Stage::Held(_)),
            Self::Reverse(_, reversal) => matches!(reversal.stage, Stage::Held(_)),
            _ => false,
        }
    }
}

impl Ledger {
    /// Makes a change. Making it again changes nothing.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Nothing | Change::Ignore(_) | Change::Withheld | Change::Orphan => {}
            Change::Fail(transaction, failed) => {
                self.failed_renewals.insert(transaction, failed);
            }
            Change::Enter(entry) | Change::Contain(entry) | Change::Amend(entry) => {
                self.reviewed.remove(&entry.transaction);
                self.entries.insert(entry.transaction.clone(), *entry);
            }
            Change::Review(_, Some(entry)) => {
                self.reviewed.insert(entry.transaction.clone(), *entry);
            }
            Change::Review(_, None) => {}
            Change::Cut(transaction, cut) => {
                if let Some(entry) = self.entries.get_mut(&transaction) {
                    entry.cut = Some(cut);
                }
            }
            Change::Reverse(transaction, reversal) => {
                if let Some(entry) = self.entries.get_mut(&transaction) {
                    entry.reversal = Some(reversal);
                }
            }
            Change::Restore(transaction) => {
                if let Some(entry) = self.entries.get_mut(&transaction) {
                    entry.reversal = None;
                }
            }
        }
    }

    /// Lets everything that counts and that the access API was not told of yet wait for approval instead,
    /// because the run's cap is reached.
    pub fn hold_reversals(&mut self) {
        self.change_stages(|stage, settled| match stage {
            Stage::InForce if !settled => Stage::Held(HeldBecause::Cap),
            other => other,
        });
    }

    /// Approves what waits about one transaction, so that it counts.
    pub fn approve(&mut self, transaction: &TransactionId) {
        self.decide(transaction, Stage::InForce);
    }

    /// Decides that what waits about one transaction never counts.
    pub fn dismiss(&mut self, transaction: &TransactionId) {
        self.decide(transaction, Stage::Dismissed);
    }

    /// Notes that the access API was told of everything that counts.
    pub fn settle_reversals(&mut self) {
        for entry in self.entries.values_mut() {
            if let Some(reversal) = entry.reversal.as_mut().filter(|r| r.stage == Stage::InForce) {
                reversal.settled = true;
            }
            if let Some(cut) = entry.cut.as_mut().filter(|cut| cut.stage == Stage::InForce) {
                cut.settled = true;
            }
        }
    }

    fn decide(&mut self, transaction: &TransactionId, decision: Stage) {
        let Some(entry) = self.entries.get_mut(transaction) else {
            return;
        };
        let stages = [
            entry.reversal.as_mut().map(|reversal| &mut reversal.stage),
            entry.cut.as_mut().map(|cut| &mut cut.stage),
        ];
        for stage in stages.into_iter().flatten() {
            if matches!(stage, Stage::Held(_)) {
                *stage = decision;
            }
        }
    }

    fn change_stages(&mut self, change: impl Fn(Stage, bool) -> Stage) {
        for entry in self.entries.values_mut() {
            if let Some(reversal) = entry.reversal.as_mut() {
                reversal.stage = change(reversal.stage, reversal.settled);
            }
            if let Some(cut) = entry.cut.as_mut() {
                cut.stage = change(cut.stage, cut.settled);
            }
        }
    }
}
