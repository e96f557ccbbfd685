//! How the end of access follows from what was bought (facts/access.md C2, "Stacking arithmetic").

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{Baseline, Effect, Entry, SaleKind, Stage, seconds_after};
use crate::access::configuration::DurationSource;
use crate::access::duration::{DAY_SECONDS, PlanDuration};
use crate::access::expiry::Expiry;
use crate::access::ids::{SubscriptionId, TransactionId};
use crate::access::transactions::Ends;

/// How long before the end of a period its renewal may be paid and still continue it exactly (C2).
pub const EARLY_RENEWAL: SignedDuration = SignedDuration::from_secs(8 * DAY_SECONDS);

/// When access ends, and how that comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reckoning {
    /// When access ends.
    pub expiry: Expiry,
    /// What each transaction gives, in the order in which they count.
    pub segments: Vec<Segment>,
}

/// The stretch of access that one transaction gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The transaction.
    pub transaction: TransactionId,
    /// What it counts as.
    pub kind: SaleKind,
    /// When it begins.
    pub begins: Timestamp,
    /// When it ends, a credit included.
    pub until: Expiry,
    /// Whether it continues the period before it in the same subscription, rather than being added to one.
    pub renews: bool,
}

impl Segment {
    /// How long it is in seconds; `None` where it does not end.
    #[must_use]
    pub fn seconds(&self) -> Option<i64> {
        let until = self.until.at()?;
        Some(until.as_second().saturating_sub(self.begins.as_second()).max(0))
    }

    /// Whether more than half of it has passed at `now`.
    #[must_use]
    pub fn is_mostly_used(&self, now: Timestamp) -> bool {
        let used = now.as_second().saturating_sub(self.begins.as_second());
        self.seconds().is_some_and(|whole| whole > 0 && used > whole / 2)
    }
}

/// Folds the entries in the order of their purchase, whatever order they come in.
pub(super) fn reckon<'a>(baseline: Option<&Baseline>, entries: impl Iterator<Item = &'a Entry>) -> Reckoning {
    let mut entries: Vec<&Entry> = entries.collect();
    let start = match baseline {
        Some(Baseline {
            end: Expiry::At(end), ..
        }) => {
            let taken: i64 = entries.iter().map(|entry| taken_from(baseline, entry)).sum();
            Expiry::At(seconds_after(*end, taken.saturating_neg()))
        }
        _ => baseline.map(|baseline| baseline.end).unwrap_or_default(),
    };
    entries.retain(|entry| entry.reversed() != Some(Effect::Nothing));
    entries.sort_by(|a, b| (a.created_at, &a.transaction).cmp(&(b.created_at, &b.transaction)));
    let mut fold = Fold {
        expiry: start,
        run: None,
        periods: BTreeMap::new(),
    };
    let mut segments = Vec::with_capacity(entries.len());
    for entry in &entries {
        if baseline.is_none_or(|baseline| !baseline.contains(&entry.transaction, entry.created_at)) {
            let segment = match entry.kind {
                SaleKind::Paid => fold.add_paid(entry),
                SaleKind::Provisional if is_superseded(entry, &entries) => None,
                SaleKind::Provisional => Some(fold.add_provisional(entry)),
            };
            segments.extend(segment);
        }
        fold.note_period(entry);
    }
    Reckoning {
        expiry: fold.expiry,
        segments,
    }
}

/// How many seconds a baseline loses because an entry that it contains was taken back after the baseline was found,
/// which a person has approved then.
fn taken_from(baseline: Option<&Baseline>, entry: &Entry) -> i64 {
    let Some(baseline) = baseline else { return 0 };
    if !baseline.contains(&entry.transaction, entry.created_at) || entry.kind == SaleKind::Provisional {
        return 0;
    }
    let end = match entry.ends {
        Ends::At(end) => Some(end),
        Ends::Unsaid => entry.plan.and_then(|plan| plan.after(entry.created_at)),
        Ends::Never => None,
    };
    let Some(end) = end else { return 0 };
    let whole = seconds_between(entry.created_at, end);
    let reversed = entry
        .reversal
        .as_ref()
        .filter(|r| r.stage == Stage::InForce && r.found_at > baseline.at);
    let cut = entry
        .cut
        .as_ref()
        .filter(|cut| cut.stage == Stage::InForce && cut.found_at > baseline.at);
    match (reversed, cut) {
        (Some(_), _) => whole,
        (None, Some(cut)) => seconds_between(cut.ends, end).min(whole),
        (None, None) => 0,
    }
}

/// How long one entry lasts.
enum Term {
    /// For ever.
    Lifetime,
    /// This many seconds, by the dates of the shop.
    Seconds(i64),
    /// As long as the plan, less this many seconds.
    Plan(PlanDuration, i64),
}

/// A row of purchases by the same unit of the calendar, without a gap. Their end is counted from the row's
/// beginning, so that a month of 28 days does not move all that come after it (C2, "Units").
struct Run {
    anchor: Timestamp,
    bought: PlanDuration,
    ends: Timestamp,
}

struct Fold<'a> {
    expiry: Expiry,
    run: Option<Run>,
    /// The last end that the shop has given within each subscription.
    periods: BTreeMap<&'a SubscriptionId, Timestamp>,
}

impl<'a> Fold<'a> {
    fn add_paid(&mut self, entry: &Entry) -> Option<Segment> {
        let (starts, renews) = self.starts(entry);
        let base = match self.expiry {
            Expiry::Lifetime => entry.created_at,
            Expiry::NoAccess => entry.created_at,
            Expiry::At(end) => end.max(entry.created_at),
        };
        let mut until = match term(entry, starts)? {
            Term::Lifetime => Expiry::Lifetime,
            Term::Seconds(seconds) => {
                self.run = None;
                Expiry::At(seconds_after(base, seconds))
            }
            Term::Plan(plan, less) => self.add_plan(plan, less, base),
        };
        match entry.reversed() {
            Some(Effect::UsedUntil(used)) => {
                let used = used.max(base);
                until = Expiry::At(until.at().map_or(used, |until| until.min(used)));
                self.run = None;
            }
            _ if entry.credit_seconds > 0 => {
                until = credited(until, entry);
                self.run = None;
            }
            _ => {}
        }
        // Whoever has access for ever keeps it, whatever is bought on top.
        self.expiry = self.expiry.max(until);
        Some(Segment {
            transaction: entry.transaction.clone(),
            kind: SaleKind::Paid,
            begins: base,
            until,
            renews,
        })
    }

    fn add_plan(&mut self, plan: PlanDuration, less: i64, base: Timestamp) -> Expiry {
        let run = self.run.take().filter(|run| run.ends == base && less == 0);
        let (anchor, bought) = match run.and_then(|run| Some((run.anchor, together(run.bought, plan)?))) {
            Some(longer) => longer,
            None => (base, plan),
        };
        let Some(ends) = bought.after(anchor) else {
            return Expiry::Lifetime;
        };
        if less > 0 {
            return Expiry::At(seconds_after(ends, less.saturating_neg()).max(base));
        }
        self.run = Some(Run { anchor, bought, ends });
        Expiry::At(ends)
    }

    fn add_provisional(&mut self, entry: &Entry) -> Segment {
        let end = own_end(entry).unwrap_or_else(|| {
            match entry.plan.and_then(|plan| plan.after(entry.created_at)) {
                Some(end) => end,
                // MemberPress gives a sign-up one day where nothing else is said (`grace_init_days`, A6).
                None => seconds_after(entry.created_at, DAY_SECONDS),
            }
        });
        let mut until = credited(Expiry::At(end), entry);
        if let (Some(Effect::UsedUntil(used)), Expiry::At(end)) = (entry.reversed(), until) {
            until = Expiry::At(end.min(used.max(entry.created_at)));
        }
        if until > self.expiry {
            self.expiry = until;
            self.run = None;
        }
        Segment {
            transaction: entry.transaction.clone(),
            kind: SaleKind::Provisional,
            begins: entry.created_at,
            until,
            renews: false,
        }
    }

    /// From when on the shop's dates count for an entry: its purchase, or the end of the period that it
    /// renews.
    fn starts(&self, entry: &Entry) -> (Timestamp, bool) {
        let period = entry
            .subscription
            .as_ref()
            .and_then(|subscription| self.periods.get(subscription));
        match period {
            Some(period) if *period > entry.created_at => {
                let early = period.duration_since(entry.created_at) <= EARLY_RENEWAL;
                (if early { *period } else { entry.created_at }, early)
            }
            _ => (entry.created_at, false),
        }
    }

    fn note_period(&mut self, entry: &'a Entry) {
        if entry.reversed().is_some() {
            return;
        }
        if let (Some(subscription), Ends::At(end)) = (&entry.subscription, entry.present_end()) {
            let period = self.periods.entry(subscription).or_insert(end);
            *period = end.max(*period);
        }
    }
}

/// How long a paid entry lasts whose time by the shop's dates begins at `starts`; `None` where nobody says
/// so.
fn term(entry: &Entry, starts: Timestamp) -> Option<Term> {
    let present = entry.present_end();
    let until = |end: Timestamp| Term::Seconds(seconds_between(starts, end));
    Some(match (entry.duration_source, entry.ends, present) {
        (_, _, Ends::Never) => Term::Lifetime,
        (_, Ends::Never, Ends::At(end)) => until(end),
        (DurationSource::Auto | DurationSource::Source, _, Ends::At(end)) => until(end),
        (DurationSource::Plan, Ends::At(end), Ends::At(present)) => {
            Term::Plan(entry.plan?, seconds_between(present, end))
        }
        (_, Ends::Unsaid, Ends::At(end)) => until(end),
        (_, _, Ends::Unsaid) => Term::Plan(entry.plan?, 0),
    })
}

/// The end that a sign-up has by itself.
fn own_end(entry: &Entry) -> Option<Timestamp> {
    match entry.present_end() {
        Ends::At(end) => Some(end),
        // A sign-up is not for ever, whatever the payment after it will be.
        Ends::Never => Some(seconds_after(entry.created_at, DAY_SECONDS)),
        Ends::Unsaid => None,
    }
}

/// Whether a sign-up without an end of its own was followed by its payment. Its time would otherwise count
/// twice.
fn is_superseded(entry: &Entry, entries: &[&Entry]) -> bool {
    let same_sale = |other: &Entry| match (&entry.subscription, &other.subscription) {
        (Some(own), Some(other)) => own == other,
        _ => entry.product == other.product,
    };
    own_end(entry).is_none()
        && entries.iter().any(|other| {
            other.kind == SaleKind::Paid && other.created_at >= entry.created_at && same_sale(other)
        })
}

fn credited(until: Expiry, entry: &Entry) -> Expiry {
    match until {
        Expiry::At(end) => Expiry::At(seconds_after(end, i64::from(entry.credit_seconds))),
        forever => forever,
    }
}

/// Two plans of the same unit of the calendar as one. Days are exact and need no anchor.
fn together(one: PlanDuration, other: PlanDuration) -> Option<PlanDuration> {
    Some(match (one, other) {
        (PlanDuration::Months(one), PlanDuration::Months(other)) => {
            PlanDuration::Months(one.checked_add(other)?)
        }
        (PlanDuration::Years(one), PlanDuration::Years(other)) => {
            PlanDuration::Years(one.checked_add(other)?)
        }
        _ => return None,
    })
}

/// Seconds from one moment to a later one; none where it is not later.
fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second().saturating_sub(from.as_second()).max(0)
}

/// What the shop's dates say of one entry among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::access) struct ByShop {
    /// From when on they count.
    pub(in crate::access) starts: Timestamp,
    /// How many seconds that leaves until the end, which may be none or less; `None` where there is no end.
    pub(in crate::access) seconds: Option<i64>,
    /// Whether it continues the period before it in the same subscription.
    pub(in crate::access) renews: bool,
}

/// What the shop's dates say of `entry` among `others`.
pub(in crate::access) fn by_shop<'a>(entry: &Entry, others: impl Iterator<Item = &'a Entry>) -> ByShop {
    let mut fold = Fold {
        expiry: Expiry::NoAccess,
        run: None,
        periods: BTreeMap::new(),
    };
    // Only periods of its own subscription matter; most of what somebody has bought need not be looked at for that.
    let subscription = entry.subscription.as_ref();
    let own = others.filter(|other| subscription.is_some() && other.subscription.as_ref() == subscription);
    for other in own.filter(|other| is_before(other, entry)) {
        fold.note_period(other);
    }
    let (starts, renews) = fold.starts(entry);
    let seconds = match entry.present_end() {
        Ends::At(end) => Some(end.as_second().saturating_sub(starts.as_second())),
        Ends::Unsaid | Ends::Never => None,
    };
    ByShop {
        starts,
        seconds,
        renews,
    }
}

/// Whether `one` counts before `other`.
pub(in crate::access) fn is_before(one: &Entry, other: &Entry) -> bool {
    (one.created_at, &one.transaction) < (other.created_at, &other.transaction)
}
