//! What stands in the ledger: one entry per transaction and script, and what took it back.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::access::configuration::DurationSource;
use crate::access::duration::PlanDuration;
use crate::access::ids::{ProductId, SubscriptionId, TransactionId};
use crate::access::transactions::{Ends, Row};

/// A transaction, as far as it counts for one script (facts/access.md C1, "segment"). What it says of the
/// sale is never changed; what happened to the sale later stands beside it.
///
/// How much time it gives is not written down, because that depends on the transactions around it, of which
/// an older one may come to light later. [`super::Ledger::reckon`] finds it anew each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The transaction.
    pub transaction: TransactionId,
    /// What it counts as.
    pub kind: SaleKind,
    /// What was bought.
    pub product: ProductId,
    /// The subscription that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<SubscriptionId>,
    /// When it was bought.
    pub created_at: Timestamp,
    /// When the shop said that it ends.
    pub ends: Ends,
    /// How long the product lasted when it was bought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanDuration>,
    /// Who said then how long it lasts.
    pub duration_source: DurationSource,
    /// What was paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid: Option<Decimal>,
    /// The gateway's number for the payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trans_num: Option<String>,
    /// The hash of the row that it was made from.
    pub source_hash: String,
    /// Seconds credited because access began later than it was paid for (C2, "Hold credit").
    #[serde(default)]
    pub credit_seconds: u32,
    /// An earlier end that the shop gave it since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    /// What took it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reversal: Option<Reversal>,
}

/// What a transaction counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SaleKind {
    /// Paid time, which is added.
    Paid,
    /// A sign-up or trial, which lasts until its own end and is never added.
    Provisional,
}

/// What the shop, or an operator, took back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reversal {
    /// Why.
    pub cause: ReversalCause,
    /// When it was noticed.
    pub found_at: Timestamp,
    /// What is left.
    pub effect: Effect,
    /// Whether it counts.
    pub stage: Stage,
    /// Whether the access API was told.
    #[serde(default)]
    pub settled: bool,
}

/// An earlier end than the one a transaction had, such as by "expire now" (C3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The end that it has now.
    pub ends: Timestamp,
    /// When it was noticed.
    pub found_at: Timestamp,
    /// Whether it counts.
    pub stage: Stage,
    /// Whether the access API was told.
    #[serde(default)]
    pub settled: bool,
}

/// Why a transaction was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReversalCause {
    /// The shop says that it was paid back.
    Refunded,
    /// The shop says that it was not paid after all.
    Unpaid,
    /// A full scan of the shop does not have it any more.
    Missing,
    /// The member was deleted.
    MemberDeleted,
    /// An operator says that it was paid back.
    OperatorRefund,
    /// An operator says that the bank took the money back.
    Chargeback,
    /// An operator took it back.
    Operator,
}

impl ReversalCause {
    /// Whether the shop said it, so that the shop can also take it back.
    #[must_use]
    pub fn is_the_shops(self) -> bool {
        matches!(
            self,
            Self::Refunded | Self::Unpaid | Self::Missing | Self::MemberDeleted
        )
    }
}

/// What is left of a transaction that was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing: it counts as if it had never been.
    Nothing,
    /// What was used until this moment.
    UsedUntil(Timestamp),
}

/// Whether what was found counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Not until a person has approved it.
    Held(HeldBecause),
    /// It does.
    InForce,
    /// A person decided that it does not.
    Dismissed,
}

/// Why a person has to approve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBecause {
    /// The configuration says so.
    Policy,
    /// More than half of the time had been used (C3, "partial refund").
    MostlyUsed,
    /// The member was deleted.
    MemberDeleted,
    /// There were more in one run than the caps allow.
    Cap,
}

impl Entry {
    /// The entry that a row makes which counts as `kind`, for a product that lasts `plan`.
    #[must_use]
    pub fn new(
        row: &Row,
        kind: SaleKind,
        plan: Option<PlanDuration>,
        duration_source: DurationSource,
    ) -> Self {
        Self {
            transaction: row.transaction.clone(),
            kind,
            product: row.product.clone(),
            subscription: row.subscription.clone(),
            created_at: row.created_at,
            ends: row.ends,
            plan,
            duration_source,
            paid: row.paid(),
            trans_num: row.trans_num.clone(),
            source_hash: row.sale_hash(),
            credit_seconds: 0,
            cut: None,
            reversal: None,
        }
    }

    /// When the shop says now that it ends, as far as that counts.
    #[must_use]
    pub fn present_end(&self) -> Ends {
        match &self.cut {
            Some(cut) if cut.stage == Stage::InForce => Ends::At(cut.ends),
            _ => self.ends,
        }
    }

    /// What is left of it by a reversal that counts; `None` where there is no such reversal.
    #[must_use]
    pub fn reversed(&self) -> Option<Effect> {
        let reversal = self.reversal.as_ref()?;
        (reversal.stage == Stage::InForce).then_some(reversal.effect)
    }

    /// Whether something that counts was taken back and the access API was not told yet.
    #[must_use]
    pub fn is_being_reversed(&self) -> bool {
        let reversal = self
            .reversal
            .as_ref()
            .is_some_and(|r| r.stage == Stage::InForce && !r.settled);
        let cut = self
            .cut
            .as_ref()
            .is_some_and(|cut| cut.stage == Stage::InForce && !cut.settled);
        reversal || cut
    }

    /// Whether something about it waits for a person's approval.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let held = |stage| matches!(stage, Stage::Held(_));
        self.reversal.as_ref().is_some_and(|r| held(r.stage))
            || self.cut.as_ref().is_some_and(|cut| held(cut.stage))
    }
}
