//! What a row is worth by itself (facts/access.md C2, "Eligibility").

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::access::configuration::{Comps, Policies, Product, StatusFilter, Trials};
use crate::access::ledger::SaleKind;
use crate::access::transactions::{Row, RowKind, Status};

/// What a row is worth by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It gives nothing.
    Ignored(IgnoreReason),
    /// It was paid back.
    Refunded,
    /// It gives access.
    Eligible {
        /// What it counts as.
        kind: SaleKind,
        /// What it opens.
        product: &'a Product,
        /// Whether nothing was paid and a person decides about such.
        comp: bool,
    },
}

/// Why a row gives nothing (contract.md, "Names under `ignored`").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IgnoreReason {
    /// It is not paid yet. It is seen again.
    Pending,
    /// It will not be paid.
    Failed,
    /// MemberPress made it up.
    Fallback,
    /// It belongs to somebody else's account.
    SubAccount,
    /// It is a sign-up, and such do not grant.
    Trial,
    /// Nothing was paid, and such do not grant.
    Comp,
    /// It was paid back before it was first seen.
    RefundedBeforeGrant,
    /// It is contained in what there was before.
    BeforeBaseline,
    /// Its product opens nothing that is known of. It is seen again when the product is configured.
    UnmappedProduct,
}

impl IgnoreReason {
    /// The word that reports have for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Fallback => "fallback",
            Self::SubAccount => "sub_account",
            Self::Trial => "trial",
            Self::Comp => "comp",
            Self::RefundedBeforeGrant => "refunded_before_grant",
            Self::BeforeBaseline => "before_baseline",
            Self::UnmappedProduct => "unmapped_product",
        }
    }
}

/// Why a person has to look at a row (contract.md, "A review"). `comp` is this system's own, for `comps:
/// review`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReviewReason {
    /// TradingView does not know the name.
    InvalidUsername,
    /// It never ends, and the product is not for ever.
    UnexpectedLifetime,
    /// Its length is not the product's.
    DurationMismatch,
    /// It was bought while access was live, and the product does not add up.
    StackingDisabledExistingAccess,
    /// It seems to be another row's payment.
    SuspectedDuplicate,
    /// The customer changed the name more than twice in 90 days.
    ThirdMove,
    /// The customer was blocked.
    BlockedCustomer,
    /// Something was paid back that is contained in what there was before.
    Refund,
    /// Nothing was paid.
    Comp,
}

impl ReviewReason {
    /// The word that reviews have for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidUsername => "invalid_username",
            Self::UnexpectedLifetime => "unexpected_lifetime",
            Self::DurationMismatch => "duration_mismatch",
            Self::StackingDisabledExistingAccess => "stacking_disabled_existing_access",
            Self::SuspectedDuplicate => "suspected_duplicate",
            Self::ThirdMove => "third_move",
            Self::BlockedCustomer => "blocked_customer",
            Self::Refund => "refund",
            Self::Comp => "comp",
        }
    }
}

impl fmt::Display for IgnoreReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ReviewReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

pub(super) fn of<'a>(
    row: &Row,
    product: Option<&'a Product>,
    policies: &Policies,
    grants_on: StatusFilter,
) -> Standing<'a> {
    match row.status {
        Status::Refunded => return Standing::Refunded,
        Status::Pending => return Standing::Ignored(IgnoreReason::Pending),
        Status::Failed => return Standing::Ignored(IgnoreReason::Failed),
        Status::Complete | Status::Confirmed => {}
    }
    if row.kind == RowKind::Fallback {
        return Standing::Ignored(IgnoreReason::Fallback);
    }
    let Some(product) = product else {
        return Standing::Ignored(IgnoreReason::UnmappedProduct);
    };
    match (row.kind, row.status) {
        (RowKind::SubAccount, Status::Complete) if policies.sub_accounts => Standing::Eligible {
            kind: SaleKind::Paid,
            product,
            comp: false,
        },
        (RowKind::SubAccount, _) => Standing::Ignored(IgnoreReason::SubAccount),
        (RowKind::SubscriptionConfirmation, _) | (_, Status::Confirmed) => {
            if policies.trials == Trials::Ignore || !grants_on.confirmed {
                return Standing::Ignored(IgnoreReason::Trial);
            }
            Standing::Eligible {
                kind: SaleKind::Provisional,
                product,
                comp: false,
            }
        }
        _ => {
            let kind = SaleKind::Paid;
            match policies.comps {
                _ if !row.is_free() => Standing::Eligible {
                    kind,
                    product,
                    comp: false,
                },
                Comps::Grant => Standing::Eligible {
                    kind,
                    product,
                    comp: false,
                },
                Comps::Review => Standing::Eligible {
                    kind,
                    product,
                    comp: true,
                },
                Comps::Ignore => Standing::Ignored(IgnoreReason::Comp),
                // A coupon for the whole price is paid through the gateway `free` too.
                Comps::Auto if row.gateway == "free" && !row.coupon => Standing::Ignored(IgnoreReason::Comp),
                Comps::Auto => Standing::Eligible {
                    kind,
                    product,
                    comp: false,
                },
            }
        }
    }
}
