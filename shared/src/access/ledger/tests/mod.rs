//! Examples of what a ledger reckons, and what they are made from.

mod laws;

use super::*;
use crate::access::configuration::DurationSource;
use crate::access::duration::PlanDuration;
use crate::access::ids::ProductId;
use crate::access::transactions::Ends;

pub(in crate::access) fn at(text: &str) -> Timestamp {
    let text = if text.len() == 10 {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    text.parse().unwrap()
}

pub(in crate::access) fn until(text: &str) -> Expiry {
    Expiry::At(at(text))
}

/// A payment without a subscription, whose product lasts 30 days and whose shop says no end.
pub(in crate::access) fn sale(id: u64, created_at: &str) -> Entry {
    Entry {
        transaction: TransactionId::parse(&id.to_string()).unwrap(),
        kind: SaleKind::Paid,
        product: ProductId::new("100"),
        subscription: None,
        created_at: at(created_at),
        ends: Ends::Unsaid,
        plan: Some(PlanDuration::Days(30)),
        duration_source: DurationSource::Auto,
        paid: None,
        trans_num: None,
        source_hash: String::new(),
        credit_seconds: 0,
        cut: None,
        reversal: None,
    }
}

/// A payment of the subscription 9, whose shop says when it ends.
fn renewal(id: u64, created_at: &str, ends: &str) -> Entry {
    Entry {
        subscription: Some(SubscriptionId::new("9")),
        ends: Ends::At(at(ends)),
        ..sale(id, created_at)
    }
}

fn monthly(id: u64, created_at: &str) -> Entry {
    Entry {
        plan: Some(PlanDuration::Months(1)),
        ..sale(id, created_at)
    }
}

fn sign_up(id: u64, created_at: &str, ends: &str) -> Entry {
    Entry {
        kind: SaleKind::Provisional,
        ..renewal(id, created_at, ends)
    }
}

pub(in crate::access) fn refunded(entry: Entry) -> Entry {
    taken_back(entry, Effect::Nothing, Stage::InForce)
}

fn taken_back(entry: Entry, effect: Effect, stage: Stage) -> Entry {
    let reversal = Reversal {
        cause: ReversalCause::Refunded,
        found_at: at("2026-12-01"),
        effect,
        stage,
        settled: false,
    };
    Entry {
        reversal: Some(reversal),
        ..entry
    }
}

pub(in crate::access) fn ledger(entries: impl IntoIterator<Item = Entry>) -> Ledger {
    Ledger {
        entries: entries
            .into_iter()
            .map(|entry| (entry.transaction.clone(), entry))
            .collect(),
        ..Ledger::default()
    }
}

fn expiry(entries: impl IntoIterator<Item = Entry>) -> Expiry {
    ledger(entries).reckon().expiry
}

#[test]
fn nothing_bought_is_no_access() {
    assert_eq!(expiry([]), Expiry::NoAccess);
}

#[test]
fn time_counts_from_the_purchase_whenever_it_is_processed() {
    assert_eq!(
        expiry([sale(1, "2026-01-01T10:00:00Z")]),
        until("2026-01-31T10:00:00Z")
    );
}

#[test]
fn purchases_while_access_is_live_add_up_and_later_ones_begin_anew() {
    let entries = [
        sale(1, "2026-01-01"),
        sale(2, "2026-01-10"),
        sale(3, "2026-04-01"),
    ];
    assert_eq!(expiry(entries.clone().into_iter().take(2)), until("2026-03-02"));
    assert_eq!(expiry(entries), until("2026-05-01"));
}

/// Defect 1 of the original (A5).
#[test]
fn a_lifetime_purchase_gives_access_for_ever_and_nothing_after_it_ends_that() {
    let lifetime = Entry {
        ends: Ends::Never,
        ..sale(2, "2026-01-02")
    };
    assert_eq!(
        expiry([sale(1, "2026-01-01"), lifetime, sale(3, "2026-01-03")]),
        Expiry::Lifetime
    );
}

/// Defect 2 of the original (A5): there, confirmation and payment of one sale both count.
#[test]
fn a_sign_up_and_its_payment_are_one_period() {
    let confirmation = sign_up(1, "2026-01-01T10:00:00Z", "2026-01-02T23:59:59Z");
    let payment = renewal(2, "2026-01-01T10:00:05Z", "2026-01-31T23:59:59Z");
    assert_eq!(expiry([confirmation.clone()]), until("2026-01-02T23:59:59Z"));
    assert_eq!(expiry([confirmation, payment]), until("2026-01-31T23:59:59Z"));
}

#[test]
fn a_sign_up_without_an_end_gives_way_to_its_payment() {
    let open = Entry {
        ends: Ends::Unsaid,
        ..sign_up(1, "2026-01-01", "2026-01-02")
    };
    assert_eq!(expiry([open.clone()]), until("2026-01-31"));
    let payment = Entry {
        ends: Ends::Unsaid,
        ..renewal(2, "2026-01-03", "2026-02-02")
    };
    assert_eq!(expiry([open, payment]), until("2026-02-02"));
}

#[test]
fn a_sign_up_never_is_for_ever() {
    let open = Entry {
        ends: Ends::Never,
        ..sign_up(1, "2026-01-01", "2026-01-02")
    };
    assert_eq!(expiry([open]), until("2026-01-02"));
}

/// Defect 3 of the original (A5): there, 30 days are added to ends that the shop counts in months.
#[test]
fn renewals_end_when_the_shop_says_without_drift() {
    let entries = [
        sign_up(1, "2026-01-31T10:00:00Z", "2026-02-01T23:59:59Z"),
        renewal(2, "2026-01-31T10:00:00Z", "2026-02-28T23:59:59Z"),
        renewal(3, "2026-02-28T10:00:00Z", "2026-03-31T23:59:59Z"),
        renewal(4, "2026-03-29T10:00:00Z", "2026-04-30T23:59:59Z"),
        renewal(5, "2026-05-01T04:00:00Z", "2026-05-31T23:59:59Z"),
    ];
    for count in 2..=entries.len() {
        let last = entries[count - 1].clone();
        let Ends::At(end) = last.ends else { panic!() };
        assert_eq!(
            expiry(entries[..count].to_vec()),
            Expiry::At(end),
            "after {count}"
        );
    }
}

#[test]
fn a_renewal_more_than_eight_days_early_is_counted_from_its_purchase() {
    let early = renewal(2, "2026-01-10", "2026-03-02");
    let entries = [renewal(1, "2026-01-01", "2026-01-31"), early];
    // 21 days early: the 51 days from its purchase to its end are added to the end of the first.
    assert_eq!(expiry(entries), until("2026-03-23"));
}

#[test]
fn the_first_renewal_after_the_bootstrap_ends_when_the_shop_says() {
    let mut ledger = ledger([
        renewal(1, "2026-01-01T10:00:00Z", "2026-01-31T23:59:59Z"),
        renewal(2, "2026-01-31T10:00:00Z", "2026-03-02T23:59:59Z"),
    ]);
    ledger.baseline = Some(Baseline::new(until("2026-01-31T23:59:59Z"), at("2026-01-15")));
    assert_eq!(ledger.reckon().expiry, until("2026-03-02T23:59:59Z"));
    assert_eq!(ledger.reckon().segments.len(), 1);
}

#[test]
fn what_was_bought_until_the_baseline_is_contained_in_it() {
    let mut ledger = ledger([sale(1, "2026-01-01"), sale(2, "2026-02-01")]);
    ledger.baseline = Some(Baseline::new(until("2026-06-01"), at("2026-01-01")));
    assert!(ledger.contains(&sale(1, "2026-01-01")) && !ledger.contains(&sale(2, "2026-01-02")));
    assert_eq!(ledger.reckon().expiry, until("2026-07-01"));
}

#[test]
fn what_was_given_by_hand_is_kept_and_what_was_not_granted_yet_is_added_to_it() {
    let mut ledger = ledger([sale(1, "2026-01-01"), sale(2, "2026-01-10")]);
    let ungranted = BTreeSet::from([TransactionId::parse("2").unwrap()]);
    ledger.adopt(until("2026-02-15"), at("2026-01-11"), ungranted);
    assert_eq!(ledger.reckon().expiry, until("2026-03-17"));
}

#[test]
fn months_are_counted_from_the_first_of_a_row() {
    let entries = [
        monthly(1, "2026-01-31"),
        monthly(2, "2026-02-10"),
        monthly(3, "2026-02-11"),
    ];
    assert_eq!(expiry(entries[..1].to_vec()), until("2026-02-28"));
    assert_eq!(expiry(entries[..2].to_vec()), until("2026-03-31"));
    assert_eq!(expiry(entries), until("2026-04-30"));
}

#[test]
fn a_row_of_months_ends_with_a_gap_another_unit_a_credit_or_a_date_of_the_shop() {
    let first = monthly(1, "2026-01-31");
    let gap = monthly(2, "2026-03-01");
    assert_eq!(expiry([first.clone(), gap]), until("2026-04-01"));
    let days = Entry {
        plan: Some(PlanDuration::Days(1)),
        ..sale(2, "2026-02-10")
    };
    assert_eq!(
        expiry([first.clone(), days, monthly(3, "2026-02-11")]),
        until("2026-04-01")
    );
    let year = Entry {
        plan: Some(PlanDuration::Years(1)),
        ..sale(2, "2026-02-10")
    };
    assert_eq!(
        expiry([first.clone(), year, monthly(3, "2026-02-11")]),
        until("2027-03-28")
    );
    let credited = Entry {
        credit_seconds: 86_400,
        ..first.clone()
    };
    assert_eq!(expiry([credited, monthly(2, "2026-02-10")]), until("2026-04-01"));
    let dated = Entry {
        ends: Ends::At(at("2026-02-11")),
        ..sale(2, "2026-02-10")
    };
    assert_eq!(
        expiry([first, dated, monthly(3, "2026-02-11")]),
        until("2026-04-01")
    );
}

#[test]
fn the_plan_counts_alone_where_the_configuration_says_so() {
    let plan = |entry: Entry| Entry {
        duration_source: DurationSource::Plan,
        ..entry
    };
    let entries = [
        renewal(1, "2026-01-01", "2026-01-15"),
        renewal(2, "2026-01-15", "2026-01-20"),
    ];
    assert_eq!(expiry(entries.map(plan)), until("2026-03-02"));
}

/// Defect 12 of the original (A5): it has no refunds.
#[test]
fn a_refund_of_any_purchase_leaves_what_the_others_give() {
    let entries = [
        sale(1, "2026-01-01"),
        sale(2, "2026-01-02"),
        sale(3, "2026-01-03"),
    ];
    assert_eq!(expiry(entries.clone()), until("2026-04-01"));
    for refund in 0..3 {
        let mut entries = entries.clone();
        entries[refund] = refunded(entries[refund].clone());
        let begins = if refund == 0 { "2026-03-03" } else { "2026-03-02" };
        assert_eq!(expiry(entries), until(begins), "without {refund}");
    }
    assert_eq!(expiry(entries.map(refunded)), Expiry::NoAccess);
}

#[test]
fn a_refund_that_waits_for_approval_or_was_dismissed_changes_nothing() {
    for stage in [Stage::Held(HeldBecause::Policy), Stage::Dismissed] {
        let entry = taken_back(sale(1, "2026-01-01"), Effect::Nothing, stage);
        assert_eq!(expiry([entry]), until("2026-01-31"));
    }
}

#[test]
fn a_renewal_whose_predecessor_was_refunded_still_ends_when_the_shop_says() {
    let entries = [
        refunded(renewal(1, "2026-01-01T10:00:00Z", "2026-01-31T23:59:59Z")),
        renewal(2, "2026-01-31T10:00:00Z", "2026-03-02T23:59:59Z"),
    ];
    assert_eq!(expiry(entries), until("2026-03-02T23:59:59Z"));
}

#[test]
fn a_shortening_refund_takes_back_only_what_is_unused() {
    let shortened =
        |used: &str| taken_back(sale(1, "2026-01-01"), Effect::UsedUntil(at(used)), Stage::InForce);
    assert_eq!(expiry([shortened("2026-01-11")]), until("2026-01-11"));
    assert_eq!(expiry([shortened("2026-05-01")]), until("2026-01-31"));
    assert_eq!(
        expiry([shortened("2026-01-11"), sale(2, "2026-01-05")]),
        until("2026-02-10")
    );
    let not_begun = taken_back(
        sale(2, "2026-01-05"),
        Effect::UsedUntil(at("2026-01-11")),
        Stage::InForce,
    );
    assert_eq!(expiry([sale(1, "2026-01-01"), not_begun]), until("2026-01-31"));
    let lifetime = Entry {
        ends: Ends::Never,
        ..shortened("2026-01-11")
    };
    assert_eq!(expiry([lifetime]), until("2026-01-11"));
}

fn cut(entry: Entry, ends: &str, stage: Stage) -> Entry {
    let cut = Cut {
        ends: at(ends),
        found_at: at("2026-12-01"),
        stage,
        settled: false,
    };
    Entry {
        cut: Some(cut),
        ..entry
    }
}

#[test]
fn an_end_that_the_shop_moved_back_takes_away_the_difference() {
    let entry = renewal(1, "2026-01-01", "2026-01-31");
    assert_eq!(
        expiry([cut(entry.clone(), "2026-01-11", Stage::InForce)]),
        until("2026-01-11")
    );
    assert_eq!(
        expiry([cut(entry.clone(), "2025-12-31", Stage::InForce)]),
        until("2026-01-01")
    );
    assert_eq!(
        expiry([cut(entry.clone(), "2026-01-11", Stage::Held(HeldBecause::Cap))]),
        until("2026-01-31")
    );
    let plan = Entry {
        duration_source: DurationSource::Plan,
        ..entry
    };
    let stacked = [sale(2, "2026-01-02"), cut(plan, "2026-01-11", Stage::InForce)];
    assert_eq!(expiry(stacked), until("2026-02-10"));
    let lifetime = Entry {
        ends: Ends::Never,
        ..sale(1, "2026-01-01")
    };
    assert_eq!(
        expiry([cut(lifetime, "2026-01-11", Stage::InForce)]),
        until("2026-01-11")
    );
}

#[test]
fn a_credit_goes_with_its_purchase() {
    let credited = Entry {
        credit_seconds: 3_600,
        ..sale(1, "2026-01-01")
    };
    assert_eq!(expiry([credited.clone()]), until("2026-01-31T01:00:00Z"));
    assert_eq!(
        expiry([refunded(credited), sale(2, "2026-01-02")]),
        until("2026-02-01")
    );
}

#[test]
fn after_a_failed_renewal_access_goes_on_for_the_grace() {
    let grace = Duration::from_secs(3 * 86_400);
    let mut ledger = ledger([renewal(1, "2026-01-01", "2026-01-31")]);
    assert_eq!(ledger.expiry(grace), until("2026-01-31"));
    let failed = |created_at: &str| FailedRenewal {
        subscription: SubscriptionId::new("9"),
        created_at: at(created_at),
    };
    let second = TransactionId::parse("2").unwrap();
    ledger
        .failed_renewals
        .insert(second.clone(), failed("2026-01-30T12:00:00Z"));
    assert_eq!(ledger.expiry(grace), until("2026-02-03"));
    assert_eq!(ledger.expiry(Duration::ZERO), until("2026-01-31"));
    let third = renewal(3, "2026-02-02", "2026-03-02");
    ledger.entries.insert(third.transaction.clone(), third);
    assert_eq!(ledger.expiry(grace), until("2026-03-02"));
}

#[test]
fn a_failed_payment_long_before_the_end_earns_no_grace() {
    let mut ledger = ledger([renewal(1, "2026-01-01", "2026-12-31")]);
    let failed = FailedRenewal {
        subscription: SubscriptionId::new("9"),
        created_at: at("2026-02-01"),
    };
    ledger
        .failed_renewals
        .insert(TransactionId::parse("2").unwrap(), failed);
    assert_eq!(ledger.expiry(Duration::from_secs(86_400)), until("2026-12-31"));
}

#[test]
fn a_purchase_is_mostly_used_after_half_of_its_own_time() {
    let reckoning = ledger([sale(1, "2026-01-01"), sale(2, "2026-01-02")]).reckon();
    let second = &reckoning.segments[1];
    assert_eq!(
        (second.begins, second.until),
        (at("2026-01-31"), until("2026-03-02"))
    );
    assert!(!second.is_mostly_used(at("2026-02-15")));
    assert!(second.is_mostly_used(at("2026-02-15T00:00:01Z")));
    assert_eq!(second.seconds(), Some(30 * 86_400));
}

#[test]
fn a_ledger_is_stored_and_read_back_whole() {
    let mut ledger = ledger([refunded(cut(
        renewal(1, "2026-01-01", "2026-01-31"),
        "2026-01-11",
        Stage::InForce,
    ))]);
    ledger.baseline = Some(Baseline::new(Expiry::Lifetime, at("2026-01-01")));
    let text = serde_json::to_string(&ledger).unwrap();
    assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
}
