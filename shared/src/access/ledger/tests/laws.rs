//! What holds for every ledger (facts/access.md C2, "Invariant 1" to "Invariant 3"), tried on ledgers at
//! random.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400;

/// Any moment of two years.
fn moment() -> impl Strategy<Value = Timestamp> {
    (1_767_225_600_i64..1_830_297_600).prop_map(|second| Timestamp::from_second(second).unwrap())
}

/// A purchase with an exact length: days of a plan, or until a date of the shop, without a subscription.
fn exact_sale() -> impl Strategy<Value = Entry> {
    (1_u64..10_000, moment(), 1_u32..400, any::<bool>(), 0_u32..100_000).prop_map(
        |(id, created_at, days, dated, credit_seconds)| {
            let length = i64::from(days) * DAY;
            let ends = if dated {
                Ends::At(seconds_after(created_at, length))
            } else {
                Ends::Unsaid
            };
            Entry {
                created_at,
                ends,
                plan: Some(PlanDuration::Days(days)),
                credit_seconds,
                ..sale(id, "2026-01-01")
            }
        },
    )
}

fn provisional() -> impl Strategy<Value = Entry> {
    (10_001_u64..20_000, moment(), 1_i64..20).prop_map(|(id, created_at, days)| Entry {
        kind: SaleKind::Provisional,
        created_at,
        ends: Ends::At(seconds_after(created_at, days * DAY)),
        ..sale(id, "2026-01-01")
    })
}

/// Anything that can stand in a ledger.
fn any_sale() -> impl Strategy<Value = Entry> {
    let plan = prop_oneof![
        (1_u32..400).prop_map(PlanDuration::Days),
        (1_u32..13).prop_map(PlanDuration::Months),
        (1_u32..3).prop_map(PlanDuration::Years),
    ];
    let subscription = proptest::option::of(1_u8..3);
    (
        prop_oneof![4 => exact_sale(), 1 => provisional()],
        plan,
        subscription,
        0_u8..8,
    )
        .prop_map(|(entry, plan, subscription, more)| {
            let entry = Entry {
                plan: Some(plan),
                subscription: subscription.map(|id| SubscriptionId::new(id.to_string())),
                credit_seconds: if more < 6 { 0 } else { entry.credit_seconds },
                ..entry
            };
            match more {
                0 => refunded(entry),
                1 => taken_back(
                    entry.clone(),
                    Effect::UsedUntil(seconds_after(entry.created_at, 5 * DAY)),
                    Stage::InForce,
                ),
                2 => Entry {
                    ends: Ends::Never,
                    ..entry
                },
                3 => Entry {
                    duration_source: DurationSource::Plan,
                    ..entry
                },
                _ => entry,
            }
        })
}

fn baseline() -> impl Strategy<Value = Option<Baseline>> {
    proptest::option::of((moment(), moment()).prop_map(|(end, at)| Baseline::new(Expiry::At(end), at)))
}

fn with_baseline(baseline: Option<Baseline>, entries: Vec<Entry>) -> Ledger {
    Ledger {
        baseline,
        ..ledger(entries)
    }
}

/// The end of access by another way than the fold: access ends where the longest of all chains of purchases
/// ends that follow each other without a gap. A chain begins at a purchase, at the baseline, or at the end of
/// a trial, and takes in all that was bought after its beginning.
fn longest_chain(ledger: &Ledger) -> Expiry {
    let counted = |entry: &&Entry| !ledger.contains(entry);
    let entries: Vec<&Entry> = ledger.entries.values().filter(counted).collect();
    let order = |entry: &Entry| (entry.created_at, entry.transaction.clone());
    let length = |entry: &Entry| match (entry.kind, entry.ends, entry.plan) {
        (SaleKind::Provisional, _, _) => 0,
        (_, Ends::At(end), _) => {
            end.as_second() - entry.created_at.as_second() + i64::from(entry.credit_seconds)
        }
        (_, _, Some(PlanDuration::Days(days))) => i64::from(days) * DAY + i64::from(entry.credit_seconds),
        other => panic!("{other:?}"),
    };
    let bought_from = |first: &Entry| -> i64 {
        entries
            .iter()
            .filter(|entry| order(entry) >= order(first))
            .map(|entry| length(entry))
            .sum()
    };
    let chains = entries.iter().map(|first| {
        let begins = match (first.kind, first.ends) {
            (SaleKind::Provisional, Ends::At(end)) => end.as_second(),
            _ => first.created_at.as_second(),
        };
        begins + bought_from(first)
    });
    let all: i64 = entries.iter().map(|entry| length(entry)).sum();
    let from_baseline = ledger
        .baseline
        .as_ref()
        .and_then(|baseline| Some(baseline.end.at()?.as_second() + all));
    match chains.chain(from_baseline).max() {
        Some(second) => Expiry::At(Timestamp::from_second(second).unwrap()),
        None => Expiry::NoAccess,
    }
}

/// The end of access by purchases of months alone, from the definition: the months of the last purchase and
/// of all before it back to the beginning of its row, counted from that beginning.
fn by_definition(entries: &[Entry]) -> (Timestamp, Timestamp, u32) {
    let (last, before) = entries.split_last().unwrap();
    let Some(PlanDuration::Months(months)) = last.plan else {
        panic!()
    };
    let (anchor, sum) = match before.is_empty() {
        false => match by_definition(before) {
            (end, anchor, sum) if end >= last.created_at => (anchor, sum + months),
            _ => (last.created_at, months),
        },
        true => (last.created_at, months),
    };
    let end = anchor
        .to_zoned(jiff::tz::TimeZone::UTC)
        .checked_add(jiff::Span::new().months(sum))
        .unwrap();
    (end.timestamp(), anchor, sum)
}

proptest! {
    #[test]
    fn the_fold_equals_the_longest_chain(
        baseline in baseline(),
        entries in vec(prop_oneof![4 => exact_sale(), 1 => provisional()], 0..12),
    ) {
        let ledger = with_baseline(baseline, entries);
        prop_assert_eq!(ledger.reckon().expiry, longest_chain(&ledger));
    }

    #[test]
    fn rows_of_months_equal_their_definition(bought in vec((moment(), 1_u32..15), 1..10)) {
        let entries = bought.into_iter().zip(1..).map(|((created_at, months), id)| Entry {
            created_at,
            plan: Some(PlanDuration::Months(months)),
            ..sale(id, "2026-01-01")
        });
        let mut entries: Vec<Entry> = entries.collect();
        let reckoned = expiry(entries.clone());
        entries.sort_by_key(|entry| (entry.created_at, entry.transaction.clone()));
        prop_assert_eq!(reckoned, Expiry::At(by_definition(&entries).0));
    }

    #[test]
    fn neither_order_nor_repetition_of_arrival_matters(
        (entries, arrivals) in vec(any_sale(), 1..10).prop_flat_map(|entries| {
            let count = entries.len();
            (Just(entries), vec(0..count, 0..30))
        }),
        baseline in baseline(),
    ) {
        // The same id with different contents would not be a repetition.
        let entries: Vec<Entry> = ledger(entries).entries.into_values().collect();
        let straight = with_baseline(baseline.clone(), entries.clone()).reckon();
        let mut scrambled = Ledger { baseline, ..Ledger::default() };
        let again = arrivals.into_iter().filter_map(|index| entries.get(index));
        for entry in again.chain(entries.iter().rev()) {
            scrambled.entries.insert(entry.transaction.clone(), entry.clone());
        }
        prop_assert_eq!(scrambled.reckon(), straight);
    }

    #[test]
    fn one_purchase_more_never_shortens_access(
        baseline in baseline(),
        entries in vec(exact_sale(), 0..10),
        more in exact_sale(),
    ) {
        let mut ledger = with_baseline(baseline, entries);
        ledger.entries.remove(&more.transaction);
        let before = ledger.reckon().expiry;
        ledger.entries.insert(more.transaction.clone(), more);
        prop_assert!(ledger.reckon().expiry >= before);
    }

    #[test]
    fn a_renewal_more_never_shortens_access(
        first in moment(),
        periods in vec((-7_i64 * DAY..3 * DAY, 27_i64..32), 2..12),
        missing in 0_usize..12,
    ) {
        // A subscription whose renewals are paid a little early or late, and come to light in any order.
        let mut entries = Vec::new();
        let mut period = first.as_second();
        for ((offset, days), id) in periods.into_iter().zip(1..) {
            let created_at = if entries.is_empty() { period } else { period + offset };
            period = period.max(created_at) + days * DAY;
            entries.push(Entry {
                created_at: Timestamp::from_second(created_at).unwrap(),
                ends: Ends::At(Timestamp::from_second(period).unwrap()),
                ..renewal(id, "2026-01-01", "2026-01-02")
            });
        }
        let all = ledger(entries.clone()).reckon().expiry;
        prop_assert_eq!(all, Expiry::At(Timestamp::from_second(period).unwrap()), "the shop's own end");
        entries.remove(missing % entries.len());
        prop_assert!(ledger(entries).reckon().expiry <= all);
    }

    #[test]
    fn paid_time_is_conserved(baseline in baseline(), entries in vec(exact_sale(), 0..12)) {
        // All that was bought after the baseline is given, to the second, and never twice at the same time.
        let ledger = with_baseline(baseline, entries);
        let segments = ledger.reckon().segments;
        let given: i64 = segments.iter().map(|segment| segment.seconds().unwrap()).sum();
        let counted = ledger.entries.values().filter(|entry| !ledger.contains(entry));
        let paid: i64 = counted.map(|entry| {
            let length = match entry.ends {
                Ends::At(end) => end.as_second() - entry.created_at.as_second(),
                _ => {
                    let Some(PlanDuration::Days(days)) = entry.plan else { panic!() };
                    i64::from(days) * DAY
                }
            };
            length + i64::from(entry.credit_seconds)
        }).sum();
        prop_assert_eq!(given, paid);
        for pair in segments.windows(2) {
            prop_assert!(pair[0].until <= Expiry::At(pair[1].begins), "{:?}", pair);
        }
    }

    #[test]
    fn a_refund_and_its_withdrawal_leave_no_trace(entries in vec(any_sale(), 1..10), which in 0_usize..10) {
        let before = ledger(entries);
        let mut after = before.clone();
        let key = after.entries.keys().nth(which % after.entries.len()).unwrap().clone();
        let entry = after.entries[&key].clone();
        after.entries.insert(key.clone(), refunded(entry.clone()));
        prop_assert!(after.reckon().segments.len() <= before.reckon().segments.len());
        after.entries.insert(key, entry);
        prop_assert_eq!(after.reckon(), before.reckon());
    }
}
