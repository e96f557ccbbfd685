use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::access::expiry::Expiry;
use crate::access::ledger::Baseline;
use crate::access::ledger::tests::{at, until};
use crate::access::transactions::RowReader;

const NOW: &str = "2026-01-05T00:00:00Z";

fn configuration(more: Value) -> Configuration {
    let mut document = json!({
        "wordpress": {"base_url": "https://shop.example.com", "api_key": "k"},
        "tradingview": {"base_url": "https://access.example.com", "api_key": "k"},
        "products": {
            "100": {"script_id": "S1", "duration_days": 30},
            "200": {"script_id": "S1", "duration_days": 30, "stacking_allowed": false},
            "300": {"script_id": "S1", "lifetime": true}
        }
    });
    for (key, value) in more.as_object().unwrap() {
        document[key] = value.clone();
    }
    Configuration::parse(&document.to_string(), None).unwrap()
}

/// A paid row of person 42 for the product 100, with `more` of its fields.
fn row(id: u64, created_at: &str, more: Value) -> Row {
    let mut raw = json!({
        "transaction_id": id, "user_id": 42, "user_email": "ada@example.com", "user_login": "ada", "total": "29.00",
        "status": "complete", "txn_type": "payment", "product_id": 100, "gateway": "stripe",
        "trans_num": format!("ch_{id}"), "created_at": created_at, "expires_at": null
    });
    for (key, value) in more.as_object().unwrap() {
        raw[key] = value.clone();
    }
    let shop = configuration(json!({})).shop;
    assert_eq!(shop.timezone, TimeZone::UTC);
    RowReader::new(&shop, at("2026-12-01")).read(&raw, 1).unwrap()
}

/// One person's ledger of one script, and the shop and rules that it is kept by.
struct Case {
    configuration: Configuration,
    ledger: Ledger,
    now: Timestamp,
    sound: bool,
    approved: BTreeSet<ReviewReason>,
    blocked: bool,
}

impl Case {
    fn new() -> Self {
        Self::with(json!({}))
    }

    fn with(more: Value) -> Self {
        Self {
            configuration: configuration(more),
            ledger: Ledger::default(),
            now: at(NOW),
            sound: true,
            approved: BTreeSet::new(),
            blocked: false,
        }
    }

    fn see(&mut self, row: &Row) -> Change {
        self.see_beside(row, None)
    }

    fn see_beside(&mut self, row: &Row, same_payment: Option<&TransactionId>) -> Change {
        let sighting = Sighting {
            row,
            approved: &self.approved,
            blocked: self.blocked,
            same_payment,
        };
        let rules = Rules::new(&self.configuration, self.now, self.sound);
        let mut changes = rules.absorb(&mut self.ledger, &sighting);
        changes.remove(0)
    }

    fn rules(&self) -> Rules<'_> {
        Rules::new(&self.configuration, self.now, self.sound)
    }

    fn expiry(&self) -> Expiry {
        self.ledger.reckon().expiry
    }

    fn reason(&mut self, row: &Row) -> ReviewReason {
        match self.see(row) {
            Change::Review(reason, _) => reason,
            other => panic!("{other:?}"),
        }
    }

    fn ignored(&mut self, row: &Row) -> IgnoreReason {
        match self.see(row) {
            Change::Ignore(reason) => reason,
            other => panic!("{other:?}"),
        }
    }
}

fn policies(more: Value) -> Value {
    json!({ "policies": more })
}

#[test]
fn a_payment_counts_once_however_often_it_is_seen() {
    let mut case = Case::new();
    let payment = row(1, "2026-01-01 00:00:00", json!({}));
    assert!(matches!(case.see(&payment), Change::Enter(_)));
    for _ in 0..3 {
        assert_eq!(case.see(&payment), Change::Nothing);
    }
    assert_eq!(case.expiry(), until("2026-01-31"));
}

/// Defect 7 of the original (A5): beyond its window of 500 ids everything is stacked again.
#[test]
fn a_row_seen_again_after_a_thousand_others_is_not_stacked_again() {
    let mut case = Case::new();
    let rows: Vec<Row> = (1..=1_000)
        .map(|id| {
            let created_at = at("2024-01-01")
                .checked_add(jiff::SignedDuration::from_hours(i64::try_from(id).unwrap() * 2));
            row(id, &created_at.unwrap().to_string(), json!({}))
        })
        .collect();
    let rules = Rules::new(&case.configuration, case.now, true);
    let approved = BTreeSet::new();
    let mut ledger = Ledger::default();
    let mut pass = || {
        for row in &rows {
            let sighting = Sighting {
                row,
                approved: &approved,
                blocked: false,
                same_payment: None,
            };
            rules.absorb(&mut ledger, &sighting);
        }
        ledger.clone()
    };
    let once = pass();
    assert_eq!(pass(), once);
    case.ledger = once;
    assert_eq!(case.ledger.entries.len(), 1_000);
}

#[test]
fn rows_that_give_nothing_are_ignored_by_their_names() {
    let mut case = Case::new();
    for (more, reason) in [
        (json!({"status": "pending"}), IgnoreReason::Pending),
        (json!({"status": "failed"}), IgnoreReason::Failed),
        (json!({"txn_type": "fallback"}), IgnoreReason::Fallback),
        (json!({"txn_type": "sub_account"}), IgnoreReason::SubAccount),
        (json!({"product_id": 999}), IgnoreReason::UnmappedProduct),
        (json!({"status": "refunded"}), IgnoreReason::RefundedBeforeGrant),
        (json!({"total": "0.00", "gateway": "free"}), IgnoreReason::Comp),
    ] {
        assert_eq!(case.ignored(&row(1, "2026-01-01", more)), reason);
        assert_eq!(
            reason.to_string(),
            serde_json::to_value(reason).unwrap().as_str().unwrap()
        );
    }
    assert_eq!(case.expiry(), Expiry::NoAccess);
}

/// Defect 17 of the original (A5): a row that was pending when first seen is never seen again there.
#[test]
fn a_pending_row_counts_from_its_purchase_once_it_is_complete() {
    let mut case = Case::new();
    case.see(&row(1, "2026-01-01", json!({"status": "pending"})));
    assert!(matches!(
        case.see(&row(1, "2026-01-01", json!({}))),
        Change::Enter(_)
    ));
    assert_eq!(case.expiry(), until("2026-01-31"));
}

#[test]
fn an_ignored_row_counts_once_its_product_is_configured() {
    let mut case = Case::new();
    let unmapped = row(1, "2026-01-01", json!({"product_id": 999}));
    case.see(&unmapped);
    case.configuration = configuration(json!({"products": {"999": {"script_id": "S1", "duration": "1M"}}}));
    assert!(matches!(case.see(&unmapped), Change::Enter(_)));
}

#[test]
fn trials_and_sub_accounts_grant_by_policy() {
    let trial = row(
        1,
        "2026-01-01",
        json!({
            "status": "confirmed", "txn_type": "subscription_confirmation", "total": "0.00",
            "expires_at": "2026-01-08 23:59:59"
        }),
    );
    let mut granting = Case::new();
    granting.see(&trial);
    assert_eq!(granting.expiry(), until("2026-01-08T23:59:59Z"));
    assert_eq!(
        Case::with(policies(json!({"trials": "ignore"}))).ignored(&trial),
        IgnoreReason::Trial
    );
    let filtered = json!({"wordpress": {"base_url": "https://x.example", "status_filter": ["complete"]}});
    assert_eq!(Case::with(filtered).ignored(&trial), IgnoreReason::Trial);
    let sub_account = row(
        2,
        "2026-01-01",
        json!({"txn_type": "sub_account", "total": "0", "gateway": "free"}),
    );
    let mut sub_accounts = Case::with(policies(json!({"sub_accounts": true})));
    assert!(matches!(sub_accounts.see(&sub_account), Change::Enter(_)));
}

/// C3b, "Trials ignored".
#[test]
fn an_ignored_sign_up_is_no_predecessor_of_its_payment() {
    let sign_up = row(
        1,
        "2026-01-01 10:00:00",
        json!({
            "status": "confirmed", "txn_type": "subscription_confirmation", "total": "0", "subscription_id": 9,
            "expires_at": "2026-01-02 23:59:59"
        }),
    );
    let payment = row(
        2,
        "2026-01-01 10:00:00",
        json!({"subscription_id": 9, "expires_at": "2026-01-31 23:59:59"}),
    );
    let mut case = Case::with(policies(json!({"trials": "ignore"})));
    case.see(&sign_up);
    case.see(&payment);
    assert_eq!(
        case.ledger.reckon().segments[0].seconds(),
        Some(30 * 86_400 + 50_399)
    );
}

#[test]
fn purchases_for_nothing_grant_by_policy() {
    let manual = json!({"total": "0.00", "gateway": "manual"});
    let coupon = json!({"total": "0.00", "gateway": "free", "coupon_id": 3});
    let free = json!({"total": "0.00", "gateway": "free"});
    let outcome = |comps: &str, more: &Value| {
        Case::with(policies(json!({ "comps": comps }))).see(&row(1, "2026-01-01", more.clone()))
    };
    for granted in [&manual, &coupon] {
        assert!(matches!(outcome("auto", granted), Change::Enter(_)));
    }
    assert_eq!(outcome("auto", &free), Change::Ignore(IgnoreReason::Comp));
    for any in [&manual, &coupon, &free] {
        assert!(matches!(outcome("grant", any), Change::Enter(_)));
        assert_eq!(outcome("ignore", any), Change::Ignore(IgnoreReason::Comp));
        assert!(matches!(
            outcome("review", any),
            Change::Review(ReviewReason::Comp, _)
        ));
    }
}

/// Defect 1 of the original (A5).
#[test]
fn a_lifetime_purchase_is_granted_where_the_product_is_for_ever_and_reviewed_elsewhere() {
    let lifetime = |product: u64| {
        row(
            1,
            "2026-01-01",
            json!({"product_id": product, "expires_at": "0000-00-00 00:00:00"}),
        )
    };
    let mut case = Case::new();
    assert_eq!(case.reason(&lifetime(100)), ReviewReason::UnexpectedLifetime);
    assert_eq!(case.expiry(), Expiry::NoAccess);
    case.see(&lifetime(300));
    assert_eq!(case.expiry(), Expiry::Lifetime);
}

#[test]
fn what_an_operator_let_pass_counts_and_no_longer_waits() {
    let mut case = Case::new();
    let lifetime = row(1, "2026-01-01", json!({"expires_at": "0000-00-00 00:00:00"}));
    case.see(&lifetime);
    assert_eq!(case.ledger.reviewed.len(), 1);
    case.approved.insert(ReviewReason::UnexpectedLifetime);
    assert!(matches!(case.see(&lifetime), Change::Enter(_)));
    assert!(case.ledger.reviewed.is_empty());
}

#[test]
fn a_length_that_the_product_does_not_explain_is_reviewed() {
    let ends = |ends: &str| row(1, "2026-01-01 00:00:00", json!({ "expires_at": ends }));
    for good in ["2026-01-27 12:00:00", "2026-02-04 12:00:00"] {
        assert!(matches!(Case::new().see(&ends(good)), Change::Enter(_)), "{good}");
    }
    for bad in [
        "2026-01-26 11:59:59",
        "2026-02-04 12:00:01",
        "2027-01-01 00:00:00",
        "2025-12-31 00:00:00",
    ] {
        assert_eq!(
            Case::new().reason(&ends(bad)),
            ReviewReason::DurationMismatch,
            "{bad}"
        );
    }
    let mut by_plan = Case::with(policies(json!({"duration_source": "plan"})));
    assert!(matches!(
        by_plan.see(&ends("2027-01-01 00:00:00")),
        Change::Enter(_)
    ));
    let mut by_source = Case::with(policies(json!({"duration_source": "source"})));
    assert_eq!(
        by_source.reason(&row(1, "2026-01-01", json!({}))),
        ReviewReason::DurationMismatch
    );
}

#[test]
fn a_second_row_of_one_payment_is_reviewed() {
    for (more, duplicate) in [
        (json!({"created_at": "2026-01-01 00:10:00"}), true),
        (json!({"created_at": "2026-01-01 00:10:01"}), false),
        (
            json!({"created_at": "2026-01-01 00:05:00", "total": "30.00"}),
            false,
        ),
        (
            json!({"created_at": "2026-01-01 00:05:00", "product_id": 200}),
            false,
        ),
        (
            json!({"created_at": "2026-01-20 00:00:00", "trans_num": "ch_1"}),
            true,
        ),
    ] {
        let mut case = Case::new();
        case.see(&row(1, "2026-01-01 00:00:00", json!({})));
        let second = row(2, "2026-01-01", more.clone());
        let reviewed = matches!(
            case.see(&second),
            Change::Review(ReviewReason::SuspectedDuplicate, _)
        );
        // A product that does not add up is reviewed for that, not as a duplicate.
        assert_eq!(reviewed, duplicate, "{more}");
    }
}

#[test]
fn a_duplicate_across_people_is_reviewed_too() {
    let mut case = Case::new();
    let other = TransactionId::parse("7").unwrap();
    let second = row(8, "2026-01-01", json!({}));
    let change = case.see_beside(&second, Some(&other));
    assert!(matches!(
        change,
        Change::Review(ReviewReason::SuspectedDuplicate, _)
    ));
}

/// Defect 2 of the original (A5), and C3b "Duplicates are looked for among eligible rows only".
#[test]
fn the_sign_up_and_the_payment_of_one_sale_are_no_duplicates() {
    let mut case = Case::new();
    let sign_up = json!({
        "status": "confirmed", "txn_type": "subscription_confirmation", "total": "29.00", "trans_num": "ch_2",
        "subscription_id": 9, "expires_at": "2026-01-02 23:59:59"
    });
    case.see(&row(1, "2026-01-01 10:00:00", sign_up));
    let payment = row(
        2,
        "2026-01-01 10:00:01",
        json!({"subscription_id": 9, "expires_at": "2026-01-31 23:59:59"}),
    );
    assert!(matches!(case.see(&payment), Change::Enter(_)));
    assert_eq!(case.expiry(), until("2026-01-31T23:59:59Z"));
}

#[test]
fn a_first_payment_that_was_refunded_makes_no_duplicate_of_the_second() {
    let mut case = Case::new();
    case.see(&row(1, "2026-01-01 00:00:00", json!({})));
    case.see(&row(1, "2026-01-01 00:00:00", json!({"status": "refunded"})));
    assert!(matches!(
        case.see(&row(2, "2026-01-01 00:05:00", json!({}))),
        Change::Enter(_)
    ));
}

#[test]
fn without_stacking_a_purchase_while_access_is_live_is_reviewed_and_a_later_one_counts() {
    let mut case = Case::new();
    let no_stacking = |id, created_at: &str| row(id, created_at, json!({"product_id": 200}));
    case.see(&no_stacking(1, "2026-01-01"));
    assert_eq!(
        case.reason(&no_stacking(2, "2026-01-15")),
        ReviewReason::StackingDisabledExistingAccess
    );
    assert_eq!(case.expiry(), until("2026-01-31"));
    assert!(matches!(
        case.see(&no_stacking(3, "2026-01-31")),
        Change::Enter(_)
    ));
    assert_eq!(case.expiry(), until("2026-03-02"));
}

#[test]
fn without_stacking_a_renewal_still_renews() {
    let mut case = Case::new();
    let renewal = |id, created_at: &str, ends: &str| {
        row(
            id,
            created_at,
            json!({"product_id": 200, "subscription_id": 9, "expires_at": ends}),
        )
    };
    case.see(&renewal(1, "2026-01-01 10:00:00", "2026-01-31 23:59:59"));
    let second = case.see(&renewal(2, "2026-01-31 10:00:00", "2026-03-02 23:59:59"));
    assert!(matches!(second, Change::Enter(_)));
    assert_eq!(case.expiry(), until("2026-03-02T23:59:59Z"));
}

#[test]
fn a_blocked_customers_purchase_is_reviewed() {
    let mut case = Case::new();
    case.blocked = true;
    assert_eq!(
        case.reason(&row(1, "2026-01-01", json!({}))),
        ReviewReason::BlockedCustomer
    );
}

#[test]
fn what_was_bought_until_the_baseline_gives_nothing_and_its_refund_is_reviewed() {
    let mut case = Case::new();
    case.ledger.baseline = Some(Baseline::new(until("2026-06-01"), at("2026-01-03")));
    assert!(matches!(
        case.see(&row(1, "2026-01-01", json!({}))),
        Change::Contain(_)
    ));
    assert_eq!(case.expiry(), until("2026-06-01"));
    assert_eq!(
        case.reason(&row(1, "2026-01-01", json!({"status": "refunded"}))),
        ReviewReason::Refund
    );
    assert_eq!(case.expiry(), until("2026-06-01"));
}

#[test]
fn the_refund_of_what_the_baseline_contains_shortens_it_once_approved() {
    for (more, expected) in [
        (json!({"status": "refunded"}), "2026-05-02"),
        (json!({"expires_at": "2026-01-11 00:00:00"}), "2026-05-12"),
    ] {
        let mut case = Case::new();
        case.ledger.baseline = Some(Baseline::new(until("2026-06-01"), at("2026-01-03")));
        case.see(&row(
            1,
            "2026-01-01",
            json!({"expires_at": "2026-01-31 00:00:00"}),
        ));
        let taken_back = row(1, "2026-01-01", more);
        assert_eq!(case.reason(&taken_back), ReviewReason::Refund);
        case.approved.insert(ReviewReason::Refund);
        assert!(case.see(&taken_back).is_reversal_in_force());
        assert_eq!(case.expiry(), until(expected));
        assert_eq!(case.see(&taken_back), Change::Nothing);
    }
}

#[test]
fn what_was_taken_back_before_an_end_was_given_by_hand_does_not_shorten_that() {
    let mut case = Case::new();
    case.see(&row(1, "2026-01-01", json!({})));
    case.see(&row(1, "2026-01-01", json!({"status": "refunded"})));
    case.ledger.adopt(until("2026-06-01"), at(NOW), BTreeSet::new());
    assert_eq!(case.expiry(), until("2026-06-01"));
    assert!(!case.ledger.is_being_reversed());
}

#[test]
fn a_row_that_waited_for_a_person_and_was_paid_back_waits_no_longer() {
    let mut case = Case::new();
    case.see(&row(
        1,
        "2026-01-01",
        json!({"expires_at": "0000-00-00 00:00:00"}),
    ));
    assert_eq!(
        case.ignored(&row(1, "2026-01-01", json!({"status": "refunded"}))),
        IgnoreReason::RefundedBeforeGrant
    );
    assert!(case.ledger.reviewed.is_empty());
}

/// Defect 12 of the original (A5).
#[test]
fn a_refund_takes_back_what_was_given() {
    for (more, cause) in [
        (json!({"status": "refunded"}), ReversalCause::Refunded),
        (json!({"status": "failed"}), ReversalCause::Unpaid),
        (json!({"status": "pending"}), ReversalCause::Unpaid),
    ] {
        let mut case = Case::new();
        case.see(&row(1, "2026-01-01", json!({})));
        let change = case.see(&row(1, "2026-01-01", more));
        assert!(change.is_reversal_in_force());
        let Change::Reverse(_, reversal) = change else {
            panic!()
        };
        assert_eq!(reversal.cause, cause);
        assert_eq!(case.expiry(), Expiry::NoAccess);
        assert!(case.ledger.is_being_reversed());
        case.ledger.settle_reversals();
        assert!(!case.ledger.is_being_reversed());
    }
}

#[test]
fn a_refund_after_half_of_the_time_waits_for_approval() {
    let mut case = Case::new();
    case.see(&row(1, "2026-01-01", json!({})));
    case.now = at("2026-01-16T00:00:01Z");
    let change = case.see(&row(1, "2026-01-01", json!({"status": "refunded"})));
    assert!(change.is_held());
    assert_eq!(case.expiry(), until("2026-01-31"));
    let transaction = TransactionId::parse("1").unwrap();
    let mut dismissed = case.ledger.clone();
    dismissed.dismiss(&transaction);
    assert_eq!(dismissed.reckon().expiry, until("2026-01-31"));
    case.ledger.approve(&transaction);
    assert_eq!(case.expiry(), Expiry::NoAccess);
}

#[test]
fn the_refund_policy_decides_what_is_taken_back() {
    let refunded = |action: &str| {
        let mut case = Case::with(policies(json!({ "refund_action": action })));
        case.see(&row(1, "2026-01-01", json!({})));
        let change = case.see(&row(1, "2026-01-01", json!({"status": "refunded"})));
        (change.is_held(), case.expiry())
    };
    assert_eq!(refunded("revoke"), (false, Expiry::NoAccess));
    assert_eq!(refunded("review"), (true, until("2026-01-31")));
    assert_eq!(refunded("shorten"), (false, until(NOW)));
}

#[test]
fn a_refund_that_was_taken_back_by_the_shop_gives_the_time_again() {
    let mut case = Case::new();
    let payment = row(1, "2026-01-01", json!({}));
    case.see(&payment);
    case.see(&row(1, "2026-01-01", json!({"status": "refunded"})));
    assert!(matches!(case.see(&payment), Change::Restore(_)));
    assert_eq!(case.expiry(), until("2026-01-31"));
}

#[test]
fn a_chargeback_by_an_operator_stays_whatever_the_shop_says() {
    let mut case = Case::new();
    let payment = row(1, "2026-01-01", json!({}));
    case.see(&payment);
    let change = case
        .rules()
        .revoke(&case.ledger, &payment.transaction, ReversalCause::Chargeback);
    case.ledger.apply(change);
    assert_eq!(case.see(&payment), Change::Nothing);
    assert_eq!(case.expiry(), Expiry::NoAccess);
    let again = case
        .rules()
        .revoke(&case.ledger, &payment.transaction, ReversalCause::Chargeback);
    assert_eq!(again, Change::Nothing);
}

#[test]
fn a_deleted_member_is_held_and_never_silently_revoked() {
    let mut case = Case::new();
    case.see(&row(1, "2026-01-01", json!({})));
    assert!(case.see(&row(1, "2026-01-01", json!({"user_id": 0}))).is_held());
    assert_eq!(case.expiry(), until("2026-01-31"));
    assert_eq!(
        case.see(&row(2, "2026-01-01", json!({"user_id": 0}))),
        Change::Orphan
    );
}

#[test]
fn a_row_that_a_full_scan_does_not_have_is_taken_back() {
    let mut case = Case::new();
    let payment = row(1, "2026-01-01", json!({}));
    case.see(&payment);
    let change = case
        .rules()
        .missing(&case.ledger, &payment.transaction, &case.approved);
    assert!(change.is_reversal_in_force());
    let unknown = TransactionId::parse("9").unwrap();
    assert_eq!(
        case.rules().missing(&case.ledger, &unknown, &case.approved),
        Change::Nothing
    );
}

#[test]
fn nothing_is_taken_back_while_the_source_is_not_sound() {
    let mut case = Case::new();
    let payment = row(1, "2026-01-01", json!({"expires_at": "2026-01-31 00:00:00"}));
    case.see(&payment);
    case.sound = false;
    assert_eq!(
        case.see(&row(1, "2026-01-01", json!({"status": "refunded"}))),
        Change::Withheld
    );
    assert_eq!(
        case.see(&row(
            1,
            "2026-01-01",
            json!({"expires_at": "2026-01-04 00:00:00"})
        )),
        Change::Withheld
    );
    assert_eq!(
        case.rules()
            .missing(&case.ledger, &payment.transaction, &case.approved),
        Change::Withheld
    );
    assert!(matches!(
        case.see(&row(2, "2026-01-02", json!({}))),
        Change::Enter(_)
    ));
}

#[test]
fn an_end_that_the_shop_moves_is_followed() {
    let ends = |ends: &str| row(1, "2026-01-01", json!({ "expires_at": ends }));
    let mut case = Case::new();
    case.see(&ends("2026-01-31 00:00:00"));
    let expire_now = case.see(&ends("2026-01-04 00:00:00"));
    assert!(expire_now.is_reversal_in_force());
    assert_eq!(case.expiry(), until("2026-01-04"));
    assert_eq!(case.see(&ends("2026-01-04 00:00:00")), Change::Nothing);
    assert!(matches!(case.see(&ends("2026-01-30 00:00:00")), Change::Amend(_)));
    assert_eq!(case.expiry(), until("2026-01-30"));
    assert!(matches!(case.see(&ends("2026-02-02 00:00:00")), Change::Amend(_)));
    assert_eq!(case.expiry(), until("2026-02-02"));
    assert_eq!(
        case.reason(&ends("2027-01-31 00:00:00")),
        ReviewReason::DurationMismatch
    );
    assert_eq!(
        case.reason(&ends("0000-00-00 00:00:00")),
        ReviewReason::UnexpectedLifetime
    );
    assert_eq!(case.expiry(), until("2026-02-02"));
}

#[test]
fn a_sign_up_that_becomes_a_payment_under_the_same_id_counts_as_paid() {
    let mut case = Case::new();
    let ends = json!({"status": "confirmed", "expires_at": "2026-01-31 00:00:00"});
    case.see(&row(1, "2026-01-01", ends));
    let paid = row(1, "2026-01-01", json!({"expires_at": "2026-01-31 00:00:00"}));
    assert!(matches!(case.see(&paid), Change::Enter(_)));
    assert_eq!(case.expiry(), until("2026-01-31"));
    assert_eq!(case.ledger.entries[&paid.transaction].kind, SaleKind::Paid);
}

#[test]
fn another_product_or_a_new_mapping_leaves_what_was_given() {
    let mut case = Case::new();
    case.see(&row(1, "2026-01-01", json!({})));
    assert_eq!(
        case.see(&row(1, "2026-01-01", json!({"product_id": 999}))),
        Change::Nothing
    );
    assert_eq!(case.expiry(), until("2026-01-31"));
}

#[test]
fn reversals_beyond_the_cap_wait_and_count_once_approved() {
    let mut case = Case::new();
    let payment = row(1, "2026-01-01", json!({}));
    case.see(&payment);
    case.see(&row(1, "2026-01-01", json!({"status": "refunded"})));
    case.ledger.hold_reversals();
    assert!(case.ledger.entries[&payment.transaction].is_held());
    assert_eq!(case.expiry(), until("2026-01-31"));
    case.ledger.approve(&payment.transaction);
    assert!(case.ledger.is_being_reversed());
}

#[test]
fn a_failed_renewal_is_remembered_for_its_grace() {
    let mut case = Case::new();
    let failed = row(2, "2026-01-31", json!({"status": "failed", "subscription_id": 9}));
    assert!(matches!(case.see(&failed), Change::Fail(..)));
    assert_eq!(case.ledger.failed_renewals.len(), 1);
}

proptest! {
    /// C2, "Invariant 2", through the assessment: rows may come in any order and any number of times.
    #[test]
    fn any_order_and_repetition_of_rows_ends_in_the_same_ledger(
        days in proptest::collection::btree_map(1_u64..60, 0_u32..4, 1..10),
        order in proptest::collection::vec(0_usize..10, 0..20),
    ) {
        // Purchases on different days, some for nothing, some pending, some without a plan's length.
        let rows: Vec<Row> = days.iter().map(|(day, kind)| {
            let created_at = Timestamp::from_second(at("2026-01-01").as_second() + i64::try_from(*day).unwrap() * 86_400).unwrap();
            let more = match kind {
                0 => json!({"total": "0", "gateway": "free"}),
                1 => json!({"status": "pending"}),
                _ => json!({}),
            };
            row(*day, &created_at.to_string(), more)
        }).collect();
        let mut straight = Case::new();
        for row in &rows {
            straight.see(row);
        }
        let mut scrambled = Case::new();
        for index in order {
            if let Some(row) = rows.get(index) {
                scrambled.see(row);
            }
        }
        for row in rows.iter().rev() {
            scrambled.see(row);
        }
        prop_assert_eq!(scrambled.ledger, straight.ledger);
    }
}
