//! Events: taken once, whoever sends them and in whatever order, and never believed.

use std::collections::BTreeMap;

use berth::snaptrade::signature;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::world::{World, signature_of};

/// An event about a user at SnapTrade, stamped now.
fn event(id: &str, kind: &str, upstream_id: &str) -> Value {
    stamped(id, kind, upstream_id, Timestamp::now())
}

fn stamped(id: &str, kind: &str, upstream_id: &str, at: Timestamp) -> Value {
    json!({
        "webhookId": id, "clientId": "SANDBOX-CLIENT", "eventTimestamp": at.to_string(),
        "userId": upstream_id, "eventType": kind,
    })
}

/// Users, their brokerage data and the places, without the times at which they were last looked at.
async fn what_is_known(world: &World) -> BTreeMap<(String, String), Value> {
    let mut table = world.table().await;
    // Two who read the same at the same time may both say that it has changed.
    let of_reading = ["REFRESH", "CHANGES"];
    table.retain(|(pk, sk), _| {
        !sk.contains("AUDIT")
            && !pk.contains("#EVENT#")
            && !pk.contains("#SYNC#")
            && !of_reading.iter().any(|name| sk.contains(name))
    });
    for item in table.values_mut() {
        let members = item.as_object_mut().unwrap();
        let of_looking = ["last_active_at", "begun_ms", "read_at", "expires_at"];
        members.retain(|name, _| !of_looking.contains(&name.as_str()));
    }
    table
}

#[tokio::test]
async fn an_event_that_is_not_snaptrades_is_refused_and_changes_nothing() {
    let world = World::start().await;
    world.without_events().await;
    world.registered(&["ada"]).await;
    let upstream = world.upstream_id("ada").await;
    let before = world.table().await;
    let good = event("w-1", "USER_DELETED", &upstream);
    let body = good.to_string().into_bytes();
    let right = signature_of(&good);
    let with_another_key = {
        let key = SecretString::from("another-key".to_owned());
        signature::sign_bytes(&key, signature::canonical_json(&good).as_bytes())
    };
    let mut altered = good.clone();
    altered["eventType"] = json!("CONNECTION_ADDED");
    let altered = altered.to_string().into_bytes();
    let truncated = body[..body.len() - 1].to_vec();

    let unsigned: [(&[u8], Option<&str>); 12] = [
        (&body, None),
        (&body, Some("")),
        (&body, Some("nonsense")),
        (&body, Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
        (&body, Some(&right[..right.len() - 1])),
        (&body, Some(&right.to_lowercase())),
        (&body, Some(&with_another_key)),
        (&altered, Some(&right)),
        (&truncated, Some(&right)),
        (b"", Some(&right)),
        (b"\xff\xfe", Some(&right)),
        (b"[[[[", None),
    ];
    for (body, signature) in unsigned {
        let answer = world.send_webhook(body.to_vec(), signature).await;
        answer.problem(401, "invalid_signature");
    }
    let mut of_another_client = good.clone();
    of_another_client["clientId"] = json!("SOMEBODY-ELSE");
    world
        .send_event(&of_another_client)
        .await
        .problem(401, "invalid_signature");

    let at = |hours: i64, seconds: i64| {
        Timestamp::now() + SignedDuration::from_hours(hours) + SignedDuration::from_secs(seconds)
    };
    for stamp in [at(-73, 0), at(-72, -60), at(0, 360), at(48, 0)] {
        let old = stamped("w-2", "USER_DELETED", &upstream, stamp);
        world.send_event(&old).await.problem(400, "invalid_request");
    }
    let mut unstamped = good.clone();
    unstamped["eventTimestamp"] = json!("lately");
    for bad in [unstamped, json!([good.clone()]), json!("text"), json!(5)] {
        let answer = world.send_event(&bad).await;
        answer.problem(400, "invalid_request");
    }
    let huge = json!({"webhookId": "w-3", "pad": "x".repeat(300 * 1024)});
    world.send_event(&huge).await.problem(413, "payload_too_large");
    assert_eq!(world.table().await, before, "a refused event changed something");
    world.assert_exactly(&["ada"]).await;
    world.stop().await;
}

#[tokio::test]
async fn events_late_within_three_days_repeated_or_unknown_are_taken_once() {
    let world = World::start().await;
    let late = Timestamp::now() - SignedDuration::from_hours(71);
    let known = stamped("w-1", "USER_DELETED", "nobody", late);
    let ahead = stamped(
        "w-2",
        "USER_DELETED",
        "nobody",
        Timestamp::now() + SignedDuration::from_secs(240),
    );
    let unknown = event("w-3", "SOMETHING_NEW", "nobody");
    let mut bare = event("w-4", "SOMETHING_NEW", "nobody");
    bare.as_object_mut().unwrap().remove("eventType");
    for event in [&known, &ahead, &unknown, &bare] {
        let answer = world.send_event(event).await.with_status(200);
        assert_eq!(answer.body, json!({"received": true, "duplicate": false}));
        for _ in 0..2 {
            let answer = world.send_event(event).await.with_status(200);
            assert_eq!(answer.body, json!({"received": true, "duplicate": true}));
        }
    }
    world.events_done().await;
    let table = world.table().await;
    let kept = table.keys().filter(|(pk, _)| pk.contains("#EVENT#")).count();
    assert_eq!(kept, 4);
    world.stop().await;
}

#[tokio::test]
async fn events_that_come_twice_and_backwards_leave_the_same_state() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    world.connect("ada").await;
    world.events_done().await;
    let before = what_is_known(&world).await;
    let sent = world.events_sent().await;
    assert!(sent.len() >= 4, "{sent:#?}");
    for event in sent.iter().rev().chain(&sent) {
        let body = json!({"webhook_id": event["webhook_id"]});
        let again = world.sandbox("webhooks/replay", body).await;
        assert_eq!(again["last_status"], 200);
    }
    world.events_done().await;
    assert_eq!(what_is_known(&world).await, before);
    world.stop().await;
}

#[tokio::test]
async fn an_event_is_a_hint_and_what_snaptrade_says_now_counts() {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    let (connection, account) = world.connect("ada").await;
    world.events_done().await;
    let upstream = world.upstream_id("ada").await;
    let gone = world.upstream_id("bob").await;
    world.register("cy").await.with_status(201);
    world.events_done().await;
    // Ada gave way, being the oldest; her events come late.
    assert_eq!(world.status("ada").await["registered"], false);
    world.register("ada").await.with_status(201);
    world.events_done().await;
    let now = world.upstream_id("ada").await;
    assert_ne!(now, upstream);
    world.connect("ada").await;
    world.events_done().await;
    let before = what_is_known(&world).await;

    let about = |id: &str, kind: &str, of: &str| {
        let mut event = event(id, kind, of);
        event["brokerageAuthorizationId"] = json!(connection);
        event["accountId"] = json!(account);
        event
    };
    let kinds = [
        "USER_DELETED",
        "USER_REGISTERED",
        "CONNECTION_DELETED",
        "CONNECTION_BROKEN",
        "CONNECTION_FIXED",
        "CONNECTION_ADDED",
        "CONNECTION_FAILED",
        "ACCOUNT_REMOVED",
        "NEW_ACCOUNT_AVAILABLE",
        "ACCOUNT_HOLDINGS_UPDATED",
    ];
    for (number, kind) in kinds.iter().enumerate() {
        for (whose, of) in [("now", &now), ("before", &upstream), ("other", &gone)] {
            let event = about(&format!("w-{number}-{whose}"), kind, of);
            world.send_event(&event).await.with_status(200);
        }
    }
    world.events_done().await;
    assert_eq!(what_is_known(&world).await, before);
    assert_eq!(world.status("ada").await["registered"], true);
    assert_eq!(world.status("ada").await["connections"], 1);
    world.assert_exactly(&["ada", "cy"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_deletion_that_really_happened_is_known_by_its_event() {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    world
        .delete_behind_our_back(&world.upstream_id("ada").await)
        .await;
    // SnapTrade's own event arrives a moment later.
    let gone = async || {
        world.events_done().await;
        world.status("ada").await["registered"] == false
    };
    for _ in 0..40 {
        if gone().await {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    world.assert_exactly(&["bob"]).await;
    world.stop().await;
}
