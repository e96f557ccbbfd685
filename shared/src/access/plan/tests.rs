use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::access::configuration::Configuration;
use crate::access::ids::{ScriptId, TransactionId};
use crate::access::ledger::tests::{at, until};
use crate::access::names::Username;

const NOW: &str = "2026-01-10T00:00:00Z";

fn wire(format: &str) -> Wire {
    let document = json!({
        "wordpress": {"base_url": "https://shop.example.com"},
        "tradingview": {"base_url": "https://access.example.com", "api_key": "k", "expiry_format": format}
    });
    Wire::of(
        &Configuration::parse(&document.to_string(), None)
            .unwrap()
            .access_api,
    )
}

fn claim(expiry: Expiry) -> Claim {
    Claim {
        person: PersonId(42),
        expiry,
        told: None,
        found: None,
        changed: true,
        reversing: false,
    }
}

fn settled(expiry: Expiry) -> Claim {
    Claim {
        told: Some(expiry),
        found: None,
        changed: false,
        ..claim(expiry)
    }
}

fn reversing(from: Expiry, to: Expiry) -> Claim {
    Claim {
        told: Some(from),
        reversing: true,
        ..claim(to)
    }
}

fn decide_one(claim: Claim, remote: Option<Expiry>, mode: Mode) -> (Action, Outcome) {
    let decision = decide(&[claim], remote, wire("datetime"), mode, at(NOW)).unwrap();
    (decision.action, decision.outcome)
}

fn sync(claim: Claim, remote: Option<Expiry>) -> (Action, Outcome) {
    decide_one(claim, remote, Mode::Sync)
}

#[test]
fn a_new_customer_is_granted_and_one_who_is_listed_is_updated() {
    let to = until("2026-02-01");
    assert_eq!(sync(claim(to), None), (Action::Grant { to }, Outcome::Granted));
    let from = until("2026-01-20");
    assert_eq!(
        sync(
            Claim {
                told: Some(from),
                ..claim(to)
            },
            Some(from)
        ),
        (Action::Update { from, to }, Outcome::Extended)
    );
    let lapsed = until("2026-01-01");
    assert_eq!(
        sync(claim(to), Some(lapsed)),
        (Action::Update { from: lapsed, to }, Outcome::Extended)
    );
}

/// Defect 8 of the original (A5): there, a crash before its state is saved extends everybody again.
#[test]
fn a_call_that_took_effect_before_a_crash_is_not_made_again() {
    let to = until("2026-02-01");
    assert_eq!(sync(claim(to), Some(to)), (Action::None, Outcome::AsItShouldBe));
    let grant = Action::Grant { to };
    assert!(grant.is_done(Some(to), wire("datetime")) && !grant.is_done(None, wire("datetime")));
}

#[test]
fn access_that_is_past_is_neither_granted_nor_removed() {
    let past = until("2026-01-01");
    assert_eq!(sync(claim(past), None), (Action::None, Outcome::AsItShouldBe));
    assert_eq!(
        sync(settled(past), Some(past)),
        (Action::None, Outcome::AsItShouldBe)
    );
}

#[test]
fn a_refund_removes_shortens_or_keeps() {
    let from = until("2026-03-01");
    let shorter = until("2026-02-01");
    assert_eq!(
        sync(reversing(from, Expiry::NoAccess), Some(from)),
        (Action::Remove { from }, Outcome::Revoked)
    );
    assert_eq!(
        sync(reversing(from, until("2026-01-09")), Some(from)),
        (Action::Remove { from }, Outcome::Revoked)
    );
    assert_eq!(
        sync(reversing(from, shorter), Some(from)),
        (Action::Update { from, to: shorter }, Outcome::Shortened)
    );
    assert_eq!(
        sync(reversing(from, from), Some(from)),
        (Action::None, Outcome::Kept)
    );
    assert_eq!(
        sync(reversing(from, Expiry::NoAccess), None),
        (Action::None, Outcome::Kept)
    );
}

#[test]
fn nothing_is_lowered_without_something_that_was_taken_back() {
    let from = until("2026-03-01");
    let less = Claim {
        expiry: until("2026-02-01"),
        ..settled(from)
    };
    assert_eq!(
        sync(less.clone(), Some(from)),
        (Action::None, Outcome::NeverLowered(from))
    );
    assert_eq!(
        decide_one(less, Some(from), Mode::Repair),
        (Action::None, Outcome::NeverLowered(from))
    );
}

#[test]
fn what_somebody_gave_by_hand_is_adopted_even_while_something_is_taken_back() {
    let by_hand = until("2026-06-01");
    let told = until("2026-03-01");
    assert_eq!(
        sync(settled(told), Some(by_hand)),
        (Action::None, Outcome::HandExtended(by_hand))
    );
    let refund = reversing(told, Expiry::NoAccess);
    assert_eq!(
        sync(refund, Some(by_hand)),
        (Action::None, Outcome::HandExtended(by_hand))
    );
    assert_eq!(
        sync(claim(told), Some(by_hand)),
        (Action::None, Outcome::HandExtended(by_hand))
    );
}

#[test]
fn what_somebody_gave_after_a_refund_was_settled_is_not_taken_again() {
    let by_hand = until("2026-02-15");
    let after_refund = settled(until("2026-02-01"));
    assert_eq!(
        sync(after_refund, Some(by_hand)),
        (Action::None, Outcome::HandExtended(by_hand))
    );
}

#[test]
fn what_somebody_took_by_hand_is_reported_and_only_repaired_on_demand() {
    let to = until("2026-02-01");
    let less = until("2026-01-15");
    assert_eq!(
        sync(settled(to), Some(less)),
        (Action::None, Outcome::HandShortened(less))
    );
    assert_eq!(
        sync(settled(to), None),
        (Action::None, Outcome::HandShortened(Expiry::NoAccess))
    );
    assert_eq!(
        decide_one(settled(to), None, Mode::Repair),
        (Action::Grant { to }, Outcome::Granted)
    );
    let repaired = decide_one(settled(to), Some(less), Mode::Repair);
    assert_eq!(repaired, (Action::Update { from: less, to }, Outcome::Extended));
}

#[test]
fn access_for_ever_that_is_not_ours_is_never_touched() {
    let remote = Some(Expiry::Lifetime);
    assert_eq!(
        sync(claim(until("2026-02-01")), remote),
        (Action::None, Outcome::NotApplied)
    );
    let refund = reversing(until("2026-02-01"), Expiry::NoAccess);
    assert_eq!(sync(refund, remote), (Action::None, Outcome::NotApplied));
}

#[test]
fn access_for_ever_that_was_bought_is_granted_and_taken_back_with_its_refund() {
    let from = Expiry::Lifetime;
    assert_eq!(
        sync(claim(from), None),
        (Action::Grant { to: from }, Outcome::Granted)
    );
    assert_eq!(
        sync(settled(from), Some(from)),
        (Action::None, Outcome::AsItShouldBe)
    );
    assert_eq!(
        sync(reversing(from, Expiry::NoAccess), Some(from)),
        (Action::Remove { from }, Outcome::Revoked)
    );
    let to = until("2026-02-01");
    assert_eq!(
        sync(reversing(from, to), Some(from)),
        (Action::Update { from, to }, Outcome::Shortened)
    );
}

#[test]
fn an_end_that_was_rounded_up_to_its_day_is_nobodys_hand() {
    let exact = until("2026-02-01T10:00:00Z");
    let rounded = Some(until("2026-02-01T23:59:59Z"));
    let decided = |claim: Claim, now: &str| {
        let decision = decide(&[claim], rounded, wire("date"), Mode::Sync, at(now)).unwrap();
        (decision.action, decision.outcome)
    };
    assert_eq!(decided(claim(exact), NOW), (Action::None, Outcome::AsItShouldBe));
    assert_eq!(
        decided(settled(exact), "2026-02-01T12:00:00Z"),
        (Action::None, Outcome::AsItShouldBe)
    );
    let refund = reversing(exact, until("2026-02-01T09:00:00Z"));
    assert_eq!(decided(refund, "2026-02-01T12:00:00Z").1, Outcome::Revoked);
}

#[test]
fn two_people_with_one_name_have_what_the_better_of_them_has() {
    let (more, less) = (until("2026-03-01"), until("2026-02-01"));
    let claims = [
        claim(less),
        Claim {
            person: PersonId(7),
            ..claim(more)
        },
    ];
    let decision = decide(&claims, None, wire("datetime"), Mode::Sync, at(NOW)).unwrap();
    assert_eq!(decision.action, Action::Grant { to: more });
    assert_eq!(decision.person, PersonId(7));
    assert_eq!(decision.conflict, [PersonId(7), PersonId(42)]);
}

#[test]
fn the_refund_of_one_of_two_people_with_one_name_keeps_the_others_access() {
    let (more, less) = (until("2026-03-01"), until("2026-02-01"));
    let refunded = reversing(more, Expiry::NoAccess);
    let other = Claim {
        person: PersonId(7),
        ..settled(less)
    };
    let decide_with = |remote| {
        decide(
            &[refunded.clone(), other.clone()],
            Some(remote),
            wire("datetime"),
            Mode::Sync,
            at(NOW),
        )
    };
    let shortened = decide_with(more).unwrap();
    assert_eq!(shortened.action, Action::Update { from: more, to: less });
    assert_eq!(decide_with(less).unwrap().outcome, Outcome::Kept);
}

#[test]
fn a_name_that_nobody_claims_is_not_decided_about() {
    assert_eq!(
        decide(
            &[],
            Some(until("2026-02-01")),
            wire("date"),
            Mode::Repair,
            at(NOW)
        ),
        None
    );
}

#[test]
fn the_old_name_loses_access_unless_somebody_else_has_it_by_that_name() {
    let from = until("2026-02-01");
    assert_eq!(release(&[], Some(from), at(NOW)), Action::Remove { from });
    assert_eq!(release(&[settled(from)], Some(from), at(NOW)), Action::None);
    assert_eq!(
        release(&[settled(until("2026-01-01"))], Some(from), at(NOW)),
        Action::Remove { from }
    );
    assert_eq!(release(&[], Some(until("2026-01-01")), at(NOW)), Action::None);
    assert_eq!(release(&[], None, at(NOW)), Action::None);
}

#[test]
fn a_lost_answer_is_settled_by_what_there_is() {
    let wire = wire("date");
    let (less, more) = (until("2026-02-01T10:00:00Z"), until("2026-03-01T10:00:00Z"));
    let rounded = Some(until("2026-02-01T23:59:59Z"));
    assert!(Action::Update { from: more, to: less }.is_done(rounded, wire));
    assert!(!Action::Update { from: more, to: less }.is_done(Some(more), wire));
    assert!(!Action::Update { from: less, to: more }.is_done(rounded, wire));
    assert!(Action::Remove { from: more }.is_done(None, wire));
    assert!(!Action::Remove { from: more }.is_done(Some(more), wire));
}

#[test]
fn a_plan_is_shown_as_the_contract_has_it() {
    let action = Action::Update {
        from: until("2026-01-20"),
        to: Expiry::Lifetime,
    };
    let username = Username::parse("Ada").unwrap();
    let planned = PlannedAction::new(ScriptId::new("S1"), PersonId(42), username.clone(), action);
    assert_eq!(
        serde_json::to_value(planned).unwrap(),
        json!({"script_id": "S1", "person": 42, "username": "Ada", "action": "update",
            "from": "2026-01-20T00:00:00Z", "to": "lifetime"})
    );
    let grant = PlannedAction::new(
        ScriptId::new("S1"),
        PersonId(42),
        username,
        Action::Grant {
            to: until("2026-02-01"),
        },
    );
    assert_eq!(serde_json::to_value(grant).unwrap()["from"], json!(null));
}

#[test]
fn a_plan_is_known_by_its_contents_and_refused_when_something_has_changed() {
    let planned = |name: &str| {
        let action = Action::Grant {
            to: until("2026-02-01"),
        };
        PlannedAction::new(
            ScriptId::new("S1"),
            PersonId(42),
            Username::parse(name).unwrap(),
            action,
        )
    };
    let held = vec![TransactionId::parse("5").unwrap()];
    let plan = |actions: Vec<PlannedAction>| Plan::new(at(NOW), "v1".to_owned(), actions, held.clone());
    let one = plan(vec![planned("Ada"), planned("Bob")]);
    assert_eq!(one, plan(vec![planned("Bob"), planned("Ada")]));
    assert_ne!(one.id, plan(vec![planned("Ada")]).id);
    assert_eq!(one.check("v1", at(NOW)), Ok(()));
    assert_eq!(one.check("v2", at(NOW)), Err(Stale::Changed));
}

#[test]
fn a_plan_is_good_for_a_day() {
    let plan = Plan::new(at(NOW), "v1".to_owned(), Vec::new(), Vec::new());
    let after = |age: SignedDuration| plan.check("v1", at(NOW).checked_add(age).unwrap());
    assert_eq!(after(PLAN_GOOD_FOR - SignedDuration::from_secs(1)), Ok(()));
    assert_eq!(after(PLAN_GOOD_FOR), Err(Stale::Old));
    assert_eq!(
        after(SignedDuration::from_secs(-1)),
        Err(Stale::Old),
        "the clock was moved back"
    );
}

fn any_expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        1 => Just(Expiry::NoAccess),
        1 => Just(Expiry::Lifetime),
        8 => (-40_i64..40, 0_i64..86_400).prop_map(|(days, seconds)| {
            Expiry::At(Timestamp::from_second(at(NOW).as_second() + days * 86_400 + seconds).unwrap())
        }),
    ]
}

fn any_claim() -> impl Strategy<Value = Claim> {
    (
        1_u64..5,
        any_expiry(),
        proptest::option::of(any_expiry()),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(person, expiry, told, changed, reversing)| Claim {
            person: PersonId(person),
            expiry,
            told: told.filter(|told| *told != Expiry::NoAccess),
            found: None,
            changed,
            reversing,
        })
}

proptest! {
    #[test]
    fn only_what_was_taken_back_lowers_and_only_what_we_gave(
        claims in proptest::collection::vec(any_claim(), 1..4),
        remote in proptest::option::of(any_expiry()),
        format in proptest::sample::select(vec!["date", "datetime"]),
    ) {
        let wire = wire(format);
        let decision = decide(&claims, remote, wire, Mode::Sync, at(NOW)).unwrap();
        if decision.action.takes() {
            let told = claims.iter().filter_map(|claim| claim.told).max().unwrap_or_default();
            let target = claims.iter().map(|claim| claim.expiry).max().unwrap_or_default();
            prop_assert!(claims.iter().any(|claim| claim.reversing));
            prop_assert!(remote.unwrap() <= wire.effective(told.max(target)));
        }
        if decision.action.gives() {
            prop_assert!(claims.iter().any(|claim| claim.changed));
            prop_assert!(decision.action.target().unwrap().is_live(at(NOW)));
        }
    }

    #[test]
    fn a_decision_that_was_carried_out_is_not_taken_again(
        claims in proptest::collection::vec(any_claim(), 1..4),
        remote in proptest::option::of(any_expiry()),
        format in proptest::sample::select(vec!["date", "datetime"]),
    ) {
        // The process dies after the call and before it writes anything down: the claims are as before.
        let wire = wire(format);
        let action = decide(&claims, remote, wire, Mode::Sync, at(NOW)).unwrap().action;
        let after = match action {
            Action::None => remote,
            Action::Remove { .. } => None,
            Action::Grant { to } | Action::Update { to, .. } => Some(wire.effective(to)),
        };
        prop_assert!(action.is_done(after, wire));
        let again = decide(&claims, after, wire, Mode::Sync, at(NOW)).unwrap();
        prop_assert_eq!(again.action, Action::None);
    }
}
