//! What a row of the shop means for one person's ledger of one script: what counts, what does not and why,
//! what a person has to look at, and what was taken back (facts/access.md C2 "Eligibility", C3).

mod change;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use jiff::Timestamp;

pub use self::change::Change;
pub use self::standing::{IgnoreReason, ReviewReason, Standing};
use super::configuration::{Configuration, DurationSource, Policies, Product, RefundAction, StatusFilter};
use super::duration::DAY_SECONDS;
use super::ids::{ProductId, TransactionId};
use super::ledger::{Cut, Effect, Entry, HeldBecause, Ledger, Reversal, ReversalCause, SaleKind, Stage};
use super::ledger::{FailedRenewal, by_shop, is_before};
use super::transactions::{Ends, Row, Status};

/// Two rows of one price that are no further apart than this are suspected to be one payment (C3, "duplicate
/// rows").
const DUPLICATE_SECONDS: u64 = 600;

/// How far a length by the shop may be from the plan's, in seconds, whatever the plan's length (C2, "Guard").
const TOLERATED_SECONDS: i64 = 3 * DAY_SECONDS;

/// The same in percent of the plan's length; the larger counts.
const TOLERATED_PERCENT: i64 = 15;

/// By what rows are assessed.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    products: &'a std::collections::BTreeMap<ProductId, Product>,
    policies: &'a Policies,
    grants_on: StatusFilter,
    now: Timestamp,
    source_is_sound: bool,
}

/// A row, and what else is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    /// The row.
    pub row: &'a Row,
    /// The reasons for a review that an operator has already looked at and let pass.
    pub approved: &'a BTreeSet<ReviewReason>,
    /// Whether an operator has blocked the person, as after a chargeback.
    pub blocked: bool,
    /// Another person's transaction that counts and has the same number at the gateway.
    pub same_payment: Option<&'a TransactionId>,
}

impl<'a> Rules<'a> {
    /// The rules of a configuration, at the time `now`. While the source is not sound nothing
    /// is taken back.
    #[must_use]
    pub fn new(configuration: &'a Configuration, now: Timestamp, source_is_sound: bool) -> Self {
        Self {
            products: &configuration.products,
            policies: &configuration.policies,
            grants_on: configuration.shop.grants_on,
            now,
            source_is_sound,
        }
    }

    /// What a row is worth by itself, before any ledger is looked at.
    #[must_use]
    pub fn standing(&self, row: &Row) -> Standing<'a> {
        standing::of(
            row,
            self.products.get(&row.product),
            self.policies,
            self.grants_on,
        )
    }

    /// Assesses a row and makes what it changes, until nothing is left to change.
    pub fn absorb(&self, ledger: &mut Ledger, sighting: &Sighting<'_>) -> Vec<Change> {
        let mut changes = Vec::new();
        loop {
            let change = self.assess(ledger, sighting);
            if !matches!(change, Change::Review(..)) {
                // What waited for a person does not wait any longer: it counts, or there is nothing left to decide.
                ledger.reviewed.remove(&sighting.row.transaction);
            }
            ledger.apply(change.clone());
            let restored = matches!(change, Change::Restore(_));
            if change != Change::Nothing || changes.is_empty() {
                changes.push(change);
            }
            // The end of what counts again may have been moved in the meantime.
            if !restored {
                return changes;
            }
        }
    }

    /// What a row changes in the ledger of one script that its product opens, or whose ledger knows it
    /// already.
    #[must_use]
    pub fn assess(&self, ledger: &Ledger, sighting: &Sighting<'_>) -> Change {
        let row = sighting.row;
        match ledger.entries.get(&row.transaction) {
            Some(entry) => self.known(ledger, entry, sighting),
            None => self.unknown(ledger, sighting),
        }
    }

    /// What it means that a full scan of the shop no longer has a transaction that the ledger knows. `approved` is as in
    /// [`Sighting::approved`].
    #[must_use]
    pub fn missing(
        &self,
        ledger: &Ledger,
        transaction: &TransactionId,
        approved: &BTreeSet<ReviewReason>,
    ) -> Change {
        match ledger.entries.get(transaction) {
            Some(entry) => self.reverse(ledger, entry, ReversalCause::Missing, approved),
            None => Change::Nothing,
        }
    }

    /// What an operator's word does to a transaction: it counts at once.
    #[must_use]
    pub fn revoke(&self, ledger: &Ledger, transaction: &TransactionId, cause: ReversalCause) -> Change {
        let taken_back = |entry: &Entry| entry.reversal.as_ref().is_some_and(|r| r.stage == Stage::InForce);
        match ledger.entries.get(transaction) {
            Some(entry) if !taken_back(entry) => {
                let reversal = self.reversal(cause, Effect::Nothing, Stage::InForce);
                Change::Reverse(entry.transaction.clone(), reversal)
            }
            _ => Change::Nothing,
        }
    }

    fn unknown(&self, ledger: &Ledger, sighting: &Sighting<'_>) -> Change {
        let row = sighting.row;
        if row.person.is_none() {
            return Change::Orphan;
        }
        match self.standing(row) {
            Standing::Refunded => Change::Ignore(IgnoreReason::RefundedBeforeGrant),
            Standing::Ignored(IgnoreReason::Failed) => match row.subscription.clone() {
                Some(subscription) => {
                    let failed = FailedRenewal {
                        subscription,
                        created_at: row.created_at,
                    };
                    Change::Fail(row.transaction.clone(), failed)
                }
                None => Change::Ignore(IgnoreReason::Failed),
            },
            Standing::Ignored(reason) => Change::Ignore(reason),
            Standing::Eligible { kind, product, comp } => {
                let entry = Entry::new(row, kind, product.duration, self.policies.duration_source);
                self.newcomer(ledger, entry, product, comp, sighting)
            }
        }
    }

    fn newcomer(
        &self,
        ledger: &Ledger,
        entry: Entry,
        product: &Product,
        comp: bool,
        sighting: &Sighting<'_>,
    ) -> Change {
        if ledger.contains(&entry) {
            return Change::Contain(Box::new(entry));
        }
        let doubts = [
            (sighting.blocked, ReviewReason::BlockedCustomer),
            (comp, ReviewReason::Comp),
            (
                sighting.same_payment.is_some() || is_duplicate(ledger, &entry),
                ReviewReason::SuspectedDuplicate,
            ),
            (
                entry.kind == SaleKind::Paid && entry.ends == Ends::Never && !product.lifetime,
                ReviewReason::UnexpectedLifetime,
            ),
            (
                self.is_length_doubtful(ledger, &entry),
                ReviewReason::DurationMismatch,
            ),
            (
                !product.stacking_allowed && is_stacked(ledger, &entry),
                ReviewReason::StackingDisabledExistingAccess,
            ),
        ];
        let doubt = doubts
            .into_iter()
            .find(|(doubtful, reason)| *doubtful && !sighting.approved.contains(reason));
        match doubt {
            Some((_, reason)) => Change::Review(reason, Some(Box::new(entry))),
            None => Change::Enter(Box::new(entry)),
        }
    }

    fn known(&self, ledger: &Ledger, entry: &Entry, sighting: &Sighting<'_>) -> Change {
        let row = sighting.row;
        let cause = match row.status {
            _ if row.person.is_none() => Some(ReversalCause::MemberDeleted),
            Status::Refunded => Some(ReversalCause::Refunded),
            Status::Pending | Status::Failed => Some(ReversalCause::Unpaid),
            Status::Complete | Status::Confirmed => None,
        };
        if let Some(cause) = cause {
            return self.reverse(ledger, entry, cause, sighting.approved);
        }
        match &entry.reversal {
            Some(reversal) if reversal.cause.is_the_shops() => {
                return Change::Restore(entry.transaction.clone());
            }
            Some(_) => return Change::Nothing,
            None => {}
        }
        if entry.kind == SaleKind::Provisional
            && let Standing::Eligible {
                kind: SaleKind::Paid,
                product,
                comp,
            } = self.standing(row)
        {
            // What was a sign-up is paid now, under the same id.
            let paid = Entry::new(
                row,
                SaleKind::Paid,
                product.duration,
                self.policies.duration_source,
            );
            return self.newcomer(&without(ledger, entry), paid, product, comp, sighting);
        }
        self.moved_end(ledger, entry, sighting)
    }

    /// The shop may have given a transaction another end than before.
    fn moved_end(&self, ledger: &Ledger, entry: &Entry, sighting: &Sighting<'_>) -> Change {
        let now_ends = sighting.row.ends;
        let cut_end = entry.cut.as_ref().map(|cut| Ends::At(cut.ends));
        let known = cut_end.unwrap_or(entry.ends);
        if now_ends == known {
            return Change::Nothing;
        }
        let reckoned = match known {
            Ends::Unsaid => entry.plan.and_then(|plan| plan.after(entry.created_at)),
            Ends::At(end) => Some(end),
            Ends::Never => None,
        };
        let amended = Entry {
            ends: now_ends,
            cut: None,
            ..entry.clone()
        };
        let earlier = match (now_ends, reckoned) {
            (Ends::At(end), Some(reckoned)) => (end < reckoned).then_some(end),
            (Ends::At(end), None) => Some(end),
            (Ends::Unsaid, _) => {
                return self.doubt(ReviewReason::DurationMismatch, amended, sighting);
            }
            (Ends::Never, _) => {
                let lifetime = self
                    .products
                    .get(&entry.product)
                    .is_some_and(|product| product.lifetime);
                return if lifetime || entry.kind == SaleKind::Provisional {
                    Change::Amend(Box::new(amended))
                } else {
                    self.doubt(ReviewReason::UnexpectedLifetime, amended, sighting)
                };
            }
        };
        if let Some(ends) = earlier {
            return self.cut(ledger, entry, ends, sighting.approved);
        }
        let back = match (now_ends, entry.ends, &entry.cut) {
            // Part of what was cut is given back.
            (Ends::At(end), Ends::At(first), Some(cut)) if end < first => {
                let cut = Cut {
                    ends: end,
                    found_at: self.now,
                    stage: cut.stage,
                    settled: true,
                };
                Entry {
                    cut: Some(cut),
                    ..entry.clone()
                }
            }
            _ => amended,
        };
        if self.is_length_doubtful(&without(ledger, entry), &back) {
            return self.doubt(ReviewReason::DurationMismatch, back, sighting);
        }
        Change::Amend(Box::new(back))
    }

    fn doubt(&self, reason: ReviewReason, amended: Entry, sighting: &Sighting<'_>) -> Change {
        if sighting.approved.contains(&reason) {
            Change::Amend(Box::new(amended))
        } else {
            Change::Review(reason, None)
        }
    }

    fn cut(
        &self,
        ledger: &Ledger,
        entry: &Entry,
        ends: Timestamp,
        approved: &BTreeSet<ReviewReason>,
    ) -> Change {
        if !self.source_is_sound {
            return Change::Withheld;
        }
        if ledger.contains(entry) && !approved.contains(&ReviewReason::Refund) {
            return Change::Review(ReviewReason::Refund, None);
        }
        let stage = match &entry.cut {
            // What waits for approval goes on waiting, however often the shop moves the end.
            Some(cut) if matches!(cut.stage, Stage::Held(_)) => cut.stage,
            _ => Stage::InForce,
        };
        let cut = Cut {
            ends,
            found_at: self.now,
            stage,
            settled: false,
        };
        Change::Cut(entry.transaction.clone(), cut)
    }

    fn reverse(
        &self,
        ledger: &Ledger,
        entry: &Entry,
        cause: ReversalCause,
        approved: &BTreeSet<ReviewReason>,
    ) -> Change {
        if entry.reversal.is_some() {
            return Change::Nothing;
        }
        if !self.source_is_sound {
            return Change::Withheld;
        }
        if ledger.contains(entry) && !approved.contains(&ReviewReason::Refund) {
            return Change::Review(ReviewReason::Refund, None);
        }
        let (effect, stage) = match (cause, self.policies.refund_action) {
            // A person has decided this one already.
            _ if ledger.contains(entry) => (Effect::Nothing, Stage::InForce),
            (ReversalCause::MemberDeleted, _) => (Effect::Nothing, Stage::Held(HeldBecause::MemberDeleted)),
            (_, RefundAction::Review) => (Effect::Nothing, Stage::Held(HeldBecause::Policy)),
            (_, RefundAction::Shorten) => (Effect::UsedUntil(self.now), Stage::InForce),
            (_, RefundAction::Revoke) if self.is_mostly_used(ledger, entry) => {
                (Effect::Nothing, Stage::Held(HeldBecause::MostlyUsed))
            }
            (_, RefundAction::Revoke) => (Effect::Nothing, Stage::InForce),
        };
        Change::Reverse(entry.transaction.clone(), self.reversal(cause, effect, stage))
    }

    fn reversal(&self, cause: ReversalCause, effect: Effect, stage: Stage) -> Reversal {
        Reversal {
            cause,
            found_at: self.now,
            effect,
            stage,
            settled: false,
        }
    }

    fn is_mostly_used(&self, ledger: &Ledger, entry: &Entry) -> bool {
        let segments = ledger.reckon().segments;
        segments
            .iter()
            .any(|segment| segment.transaction == entry.transaction && segment.is_mostly_used(self.now))
    }

    /// Whether the shop's dates give a length that the product does not explain.
    fn is_length_doubtful(&self, ledger: &Ledger, entry: &Entry) -> bool {
        if entry.kind == SaleKind::Provisional || entry.duration_source == DurationSource::Plan {
            return false;
        }
        let by_shop = by_shop(entry, ledger.entries.values());
        let Some(seconds) = by_shop.seconds else {
            return entry.ends == Ends::Unsaid
                && (entry.duration_source == DurationSource::Source || entry.plan.is_none());
        };
        let planned = entry.plan.and_then(|plan| plan.after(by_shop.starts));
        let doubtful = planned.is_some_and(|end| {
            let planned = end.as_second().saturating_sub(by_shop.starts.as_second());
            let tolerated = TOLERATED_SECONDS.max(planned.saturating_mul(TOLERATED_PERCENT) / 100);
            seconds.abs_diff(planned) > tolerated.unsigned_abs()
        });
        seconds <= 0 || doubtful
    }
}

/// Whether another transaction seems to be the same payment. The first proceeds, so it is looked for among
/// those that count and those before it that wait.
fn is_duplicate(ledger: &Ledger, entry: &Entry) -> bool {
    let counting = ledger
        .entries
        .values()
        .filter(|other| other.reversed() != Some(Effect::Nothing));
    let waiting = ledger.reviewed.values().filter(|other| is_before(other, entry));
    counting.chain(waiting).any(|other| {
        let same_payment = entry.trans_num.is_some() && entry.trans_num == other.trans_num;
        let apart = entry
            .created_at
            .as_second()
            .abs_diff(other.created_at.as_second());
        let alike = apart <= DUPLICATE_SECONDS && entry.product == other.product && entry.paid == other.paid;
        other.transaction != entry.transaction && other.kind == entry.kind && (same_payment || alike)
    })
}

/// Whether a purchase was made while access was live, other than to renew it.
fn is_stacked(ledger: &Ledger, entry: &Entry) -> bool {
    entry.kind == SaleKind::Paid
        && !by_shop(entry, ledger.entries.values()).renews
        && ledger.expiry_before(entry).is_live(entry.created_at)
}

fn without(ledger: &Ledger, entry: &Entry) -> Ledger {
    let mut others = ledger.clone();
    others.entries.remove(&entry.transaction);
    others
}
