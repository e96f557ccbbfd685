//! `berth connections` on the local stack: on one that runs, and on its data alone.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where something is not as it should be"
)]

mod support;

use berth_local::Stack;
use reqwest::Method;
use serde_json::{Value, json};

use support::{OPERATOR, berth, call, register, start, users};

#[tokio::test]
async fn the_limit_is_told_by_the_exit_code_and_as_the_route_tells_it() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    register(&stack, "ada").await;
    let room = berth(directory.path(), "connections check-limit").await;
    assert_eq!(
        (room.code, room.out.lines().next()),
        (0, Some("1 of 2 users in use.")),
        "{}",
        room.err
    );
    register(&stack, "grace").await;
    let full = berth(directory.path(), "connections check-limit --json").await;
    assert_eq!(full.code, 3);
    let status = call(
        &stack,
        Method::GET,
        "/api/snaptrade/status",
        OPERATOR,
        Value::Null,
    )
    .await;
    assert_eq!(full.json()["oldest"], status["oldest"]);
    assert_eq!(full.json()["at_limit"], true);
    stack.shutdown().await;
}

#[tokio::test]
async fn nothing_is_deleted_without_a_yes() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    register(&stack, "ada").await;
    register(&stack, "grace").await;
    for line in [
        "connections delete-oldest",
        "connections auto-manage",
        "connections ensure edsger",
        "connections ensure",
    ] {
        let refused = berth(directory.path(), line).await;
        assert_eq!(refused.code, 2, "{line}");
        assert!(refused.err.contains("--yes"), "{}", refused.err);
    }
    let deleted = berth(directory.path(), "connections auto-manage --yes --json").await;
    assert_eq!((deleted.code, &deleted.json()["user_id"]), (0, &json!("ada")));
    let room = berth(directory.path(), "connections auto-manage --yes").await;
    assert_eq!(room.code, 0);
    let held = berth(
        directory.path(),
        "connections ensure edsger --auto-confirm --json",
    )
    .await;
    assert_eq!((held.code, held.json()["held_until"].is_string()), (0, true));
    let listed = berth(directory.path(), "connections list-tracked --json")
        .await
        .json();
    let names: Vec<_> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| &user["user_id"])
        .collect();
    assert!(
        names.contains(&&json!("grace")) && !names.contains(&&json!("ada")),
        "{names:?}"
    );
    stack.shutdown().await;
}

#[tokio::test]
async fn without_a_running_stack_the_commands_work_on_its_data() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    register(&stack, "ada").await;
    stack.shutdown().await;
    let listed = berth(directory.path(), "connections list").await;
    assert!(
        listed.code == 0 && listed.out.contains("ada"),
        "{} {}",
        listed.out,
        listed.err
    );
    let (one, other) = tokio::join!(
        berth(directory.path(), "connections sync --json"),
        berth(directory.path(), "connections list-users --json"),
    );
    assert_eq!((one.code, other.code), (0, 0), "{} {}", one.err, other.err);
    assert_eq!(one.json()["tracked_count"], 1);
    let unknown = berth(directory.path(), "connections add-user nobody").await;
    assert_eq!(unknown.code, 1);
    assert_eq!(unknown.err.lines().count(), 1, "{}", unknown.err);
}

#[tokio::test]
async fn a_user_with_a_place_keeps_it_without_a_question() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    register(&stack, "ada").await;
    register(&stack, "grace").await;
    let confirmed = berth(directory.path(), "connections ensure ada").await;
    assert_eq!(confirmed.code, 0, "{}", confirmed.err);
    assert!(confirmed.out.contains("has a place already"), "{}", confirmed.out);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_refusal_is_one_sentence_and_with_json_also_the_routes_own_answer() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    let refused = berth(directory.path(), "connections delete-oldest --yes --json").await;
    assert_eq!(refused.code, 1);
    assert_eq!(refused.json()["code"], "not_found");
    assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
    assert!(refused.err.contains("404 not_found"), "{}", refused.err);
    let plain = berth(directory.path(), "connections delete-oldest --yes").await;
    assert_eq!((plain.code, plain.out.as_str()), (1, ""));
    stack.shutdown().await;
}

/// Protects a user as an operator's page would.
async fn protect(stack: &Stack, user: &str) {
    let path = format!("/api/snaptrade/users/{user}");
    call(stack, Method::PATCH, &path, OPERATOR, json!({"protected": true})).await;
}

#[tokio::test]
async fn a_protected_user_never_gives_way_until_the_protection_is_taken_away() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    register(&stack, "ada").await;
    register(&stack, "grace").await;
    let protected = berth(directory.path(), "connections protect ada --json").await;
    assert_eq!(
        (protected.code, &protected.json()["protected"]),
        (0, &json!(true))
    );
    let deleted = berth(directory.path(), "connections delete-oldest --yes --json").await;
    assert_eq!(deleted.json()["user_id"], "grace", "{}", deleted.err);

    register(&stack, "edsger").await;
    protect(&stack, "edsger").await;
    for line in ["connections auto-manage --yes", "connections ensure --yes"] {
        let stuck = berth(directory.path(), line).await;
        assert_eq!(stuck.code, 3, "{line}: {}", stuck.err);
        assert!(stuck.err.contains("unprotect"), "{}", stuck.err);
    }
    assert_eq!(users(&stack).await.len(), 2);

    let unprotected = berth(directory.path(), "connections unprotect ada").await;
    assert_eq!(
        (unprotected.code, unprotected.out.as_str()),
        (0, "ada may give way.\n")
    );
    let made = berth(directory.path(), "connections ensure --yes --json").await;
    assert_eq!(
        (
            made.code,
            &made.json()["evicted"]["user_id"],
            &made.json()["slots"]
        ),
        (0, &json!("ada"), &json!({"in_use": 1, "limit": 2})),
        "{}",
        made.err
    );
    let unknown = berth(directory.path(), "connections protect nobody").await;
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("404 not_found"), "{}", unknown.err);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_place_without_a_user_is_only_made_and_kept_for_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    register(&stack, "ada").await;
    let room = berth(directory.path(), "connections ensure --json").await;
    assert_eq!(room.code, 0, "{}", room.err);
    assert_eq!(
        room.json(),
        json!({"success": true, "held_until": null, "evicted": null, "slots": {"in_use": 1, "limit": 2}})
    );
    register(&stack, "grace").await;
    assert_eq!(users(&stack).await.len(), 2);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_user_that_snaptrade_knows_is_added_with_its_age_and_keeps_its_protection() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    let legacy = berth::ids::UpstreamId::from_snaptrade("legacy");
    stack
        .app("test")
        .snaptrade()
        .register_user(&legacy)
        .await
        .unwrap();
    let line = "connections add-user legacy --created-at 1700000000.5 --protected --json";
    let added = berth(directory.path(), line).await;
    assert_eq!(added.code, 0, "{}", added.err);
    assert_eq!(
        (
            &added.json()["created_at"],
            &added.json()["state"],
            &added.json()["protected"]
        ),
        (
            &json!("2023-11-14T22:13:20.500Z"),
            &json!("adopted"),
            &json!(true)
        )
    );
    let again = berth(directory.path(), "connections add-user legacy").await;
    assert!(
        again.code == 0
            && again
                .out
                .contains("since 2023-11-14 22:13 UTC (adopted, protected)"),
        "{} {}",
        again.out,
        again.err
    );
    let malformed = berth(directory.path(), "connections add-user \u{200b}").await;
    assert_eq!(malformed.code, 1);
    assert!(
        malformed.err.contains("user_id") && malformed.err.contains("printable"),
        "{}",
        malformed.err
    );
    stack.shutdown().await;
}

#[tokio::test]
async fn where_connections_are_counted_one_connection_gives_way_and_its_user_stays() {
    let directory = tempfile::tempdir().unwrap();
    let options = berth_local::Options {
        data: berth_local::Data::Directory(directory.path().join(".berth")),
        limit: Some(1),
        counts: Some(berth::config::Counts::Connections),
        ..berth_local::Options::default()
    };
    let stack = Stack::start(options).await.unwrap();
    register(&stack, "ada").await;
    let path = "/api/snaptrade/connection-url";
    call(&stack, Method::POST, path, "dev:ada", json!({})).await;
    let connect = format!("{}/__sandbox/connect", stack.urls().snaptrade);
    let connected = support::send(&connect, Method::POST, OPERATOR, Some(json!({"user_id": "ada"}))).await;
    assert_eq!(connected.0, 200, "{}", connected.1);
    // The webhook's work is done a moment later.
    let mut full = berth(directory.path(), "connections check-limit").await;
    for _ in 0..50 {
        if full.out.contains("1 of 1 connections") && users(&stack).await[0]["connections"] == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        full = berth(directory.path(), "connections check-limit").await;
    }
    assert_eq!(full.code, 3, "{}", full.out);
    let asked = berth(directory.path(), "connections auto-manage").await;
    assert_eq!(asked.code, 2, "{}", asked.err);
    let made = berth(directory.path(), "connections auto-manage --yes").await;
    assert!(
        made.code == 0 && made.out.starts_with("The connection ") && made.out.contains(" of ada was deleted"),
        "{} {}",
        made.out,
        made.err
    );
    assert_eq!(users(&stack).await.len(), 1);
    stack.shutdown().await;
}
