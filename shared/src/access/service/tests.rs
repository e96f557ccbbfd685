//! The two adapters as pure functions; what goes over the wire is tested against the sandbox.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::access::configuration::{Configuration, ExpiryFormat};
use crate::access::duration::DAY_SECONDS;
use crate::access::ledger::tests::at;

fn api(settings: Value) -> AccessApi {
    let mut tradingview = json!({"base_url": "https://api.example.com", "api_key": "key-in-test"});
    for (name, value) in settings.as_object().unwrap() {
        tradingview[name] = value.clone();
    }
    let document = json!({
        "wordpress": {"base_url": "https://shop.example.com", "api_key": "k"},
        "tradingview": tradingview,
        "products": {}
    });
    Configuration::parse(&document.to_string(), None)
        .unwrap()
        .access_api
}

fn name() -> Username {
    Username::parse("JoeBloggs").unwrap()
}

fn order(action: Action) -> Order {
    Order {
        script: ScriptId::new("PUB;abc/1"),
        username: name(),
        action,
        email: "joe@example.com".to_owned(),
        subscription_type: "monthly".to_owned(),
        wp_username: "joe".to_owned(),
        remarks: REMARKS.to_owned(),
    }
}

fn until(text: &str) -> Expiry {
    Expiry::At(at(text))
}

/// Row B63.
#[test]
fn a_grant_and_an_update_have_the_originals_names() {
    let to = Expiry::At("2026-01-31T23:59:59Z".parse().unwrap());
    let grant = original::write(&api(json!({})), &order(Action::Grant { to })).unwrap();
    assert_eq!(grant.path, "/tradingview/access/grant");
    let expected = json!({
        "scriptId": "PUB;abc/1", "username": "JoeBloggs", "email": "joe@example.com", "expiry": "2026-01-31",
        "subscription_type": "monthly", "wp_username": "joe", "remarks": "paid"
    });
    assert_eq!(grant.body, Some(expected.clone()));

    let from = until("2026-01-10");
    let exact = api(json!({"expiry_format": "datetime"}));
    assert_eq!(exact.expiry_format, ExpiryFormat::DateTime);
    let update = original::write(&exact, &order(Action::Update { from, to })).unwrap();
    assert_eq!(update.path, "/tradingview/access/update");
    let mut expected = expected;
    expected["expiry"] = "2026-01-31T23:59:59Z".into();
    assert_eq!(update.body, Some(expected));
}

/// A1: a missing end means access for ever.
#[test]
fn nothing_but_a_lifetime_is_sent_without_an_end() {
    let grant = |to| original::write(&api(json!({})), &order(Action::Grant { to }));
    let lifetime = grant(Expiry::Lifetime).unwrap().body.unwrap();
    assert_eq!(lifetime.get("expiry"), Some(&Value::Null));
    assert_eq!(grant(Expiry::NoAccess), None);
    assert_eq!(original::write(&api(json!({})), &order(Action::None)), None);
    let remove = order(Action::Remove {
        from: Expiry::Lifetime,
    });
    let remove = original::write(&api(json!({})), &remove).unwrap();
    assert_eq!(remove.path, "/tradingview/access/remove");
    assert_eq!(
        remove.body,
        Some(json!({"scriptId": "PUB;abc/1", "username": "JoeBloggs"}))
    );
}

#[test]
fn what_stands_in_a_path_is_encoded() {
    let page = original::page(&api(json!({})), &ScriptId::new("PUB;abc/1"), Some("a b&c")).unwrap();
    assert_eq!(
        page.path,
        "/tradingview/access/scriptUsers/PUB%3Babc%2F1?cursor=a%20b%26c"
    );
    assert_eq!(original::page(&api(json!({})), &ScriptId::new(".."), None), None);
}

#[test]
fn an_answer_that_says_it_failed_confirms_nothing() {
    for (answer, confirms) in [
        (json!(null), true),
        (json!({}), true),
        (json!({"success": true, "error": null}), true),
        (json!({"success": false}), false),
        (json!({"error": "busy"}), false),
        (json!([]), false),
        (json!("busy"), false),
    ] {
        assert_eq!(original::confirms(&answer), confirms, "{answer}");
    }
}

#[test]
fn the_peers_word_about_access_is_read() {
    let wire = Wire::of(&api(json!({"kind": "trendoscope"})));
    let script = ScriptId::new("S1");
    let read = |access: Value| {
        let mut access = access;
        access["pine_id"] = "S1".into();
        peer::read_info(&json!([{"pine_id": "S0"}, access]), &script, wire)
    };
    let end = "2026-01-31T10:00:00Z";
    let without = json!({"hasAccess": false, "noExpiration": false, "currentExpiration": end});
    assert_eq!(read(without), Some(None));
    let lifetime = json!({"hasAccess": true, "noExpiration": true, "currentExpiration": end});
    assert_eq!(read(lifetime), Some(Some(Expiry::Lifetime)));
    for written in [end, "2026-01-31 10:00:00.123456+00:00"] {
        let dated = json!({"hasAccess": true, "noExpiration": false, "currentExpiration": written});
        assert_eq!(
            read(dated),
            Some(Some(Expiry::At(end.parse().unwrap()))),
            "{written}"
        );
    }
    for garbage in [
        json!({}),
        json!({"hasAccess": true}),
        json!({"hasAccess": true, "noExpiration": false}),
        json!({"hasAccess": true, "noExpiration": false, "currentExpiration": null}),
        json!({"hasAccess": true, "noExpiration": false, "currentExpiration": "soon"}),
    ] {
        assert_eq!(read(garbage.clone()), None, "{garbage}");
    }
    assert_eq!(
        peer::read_info(&json!({"errorMessage": "x"}), &script, wire),
        None
    );
}

#[test]
fn the_peer_is_asked_for_whole_days_after_the_listed_end() {
    let wire = Wire::of(&api(json!({"kind": "trendoscope"})));
    let now = at("2026-01-10");
    let step = |action, remote| peer::step(action, remote, wire, now);
    let grant = |text: &str| Step::Grant(text.to_owned());
    let to = until("2026-02-01");
    let extend = Action::Update {
        from: until("2026-01-20"),
        to,
    };
    assert_eq!(step(Action::Grant { to }, None), grant("22D"));
    assert_eq!(step(extend, Some(until("2026-01-20"))), grant("12D"));
    // An end that has passed is added to as well.
    assert_eq!(step(extend, Some(until("2026-01-01"))), grant("31D"));
    assert_eq!(step(extend, Some(to)), Step::Done);
    assert_eq!(step(extend, Some(Expiry::Lifetime)), Step::Done);
    assert_eq!(
        step(Action::Grant { to: Expiry::Lifetime }, Some(to)),
        grant("1L")
    );
    // What cannot be shortened is taken and given anew.
    let shorten = Action::Update {
        from: Expiry::Lifetime,
        to,
    };
    assert_eq!(step(shorten, Some(Expiry::Lifetime)), Step::Remove);
    assert_eq!(step(shorten, None), grant("22D"));
    assert_eq!(step(Action::Remove { from: to }, Some(to)), Step::Remove);
    assert_eq!(step(Action::Remove { from: to }, None), Step::Done);
}

/// What the peer makes of a step at `now` (facts/access.md A2).
fn applied(step: &Step, remote: Option<Expiry>, now: Timestamp) -> Option<Expiry> {
    match step {
        Step::Done => remote,
        Step::Remove => None,
        Step::Grant(duration) if duration == "1L" => Some(Expiry::Lifetime),
        Step::Grant(duration) => {
            let days: i64 = duration.strip_suffix('D').unwrap().parse().unwrap();
            let base = remote.and_then(Expiry::at).unwrap_or(now);
            let seconds = base.as_second() + days * DAY_SECONDS;
            Some(Expiry::At(Timestamp::from_second(seconds).unwrap()))
        }
    }
}

proptest! {
    /// However access stands and however often the steps are repeated, they come to the target, or up to a day more,
    /// and stay there.
    #[test]
    fn steps_at_the_peer_come_to_the_target(
        remote in prop::option::of(prop_oneof![Just(None), (0_i64..5_000_000).prop_map(Some)]),
        to in prop::option::of(2_000_000_i64..5_000_000),
        takes in any::<bool>(),
        delay in 0_i64..100,
    ) {
        let wire = Wire::of(&api(json!({"kind": "trendoscope"})));
        let moment = |seconds| Timestamp::from_second(1_700_000_000 + seconds).unwrap();
        let end = |seconds: Option<i64>| seconds.map_or(Expiry::Lifetime, |seconds| Expiry::At(moment(seconds)));
        let now = moment(1_000_000);
        let (mut remote, to) = (remote.map(end), end(to));
        let action = match remote {
            None => Action::Grant { to },
            Some(from) if from > to && !takes => return Ok(()),
            Some(from) => Action::Update { from, to },
        };
        let step = |remote| peer::step(action, remote, wire, now);
        for _ in 0..4 {
            remote = applied(&step(remote), remote, moment(1_000_000 + delay));
        }
        prop_assert!(remote >= Some(to));
        if let (Expiry::At(to), Some(Expiry::At(remote))) = (to, remote) {
            prop_assert!(remote.as_second() - to.as_second() < DAY_SECONDS + delay);
        }
    }
}
