//! `berth connections backup` and `restore`: what is lost comes back, and what is newer stays.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where something is not as it should be"
)]

mod support;

use std::path::Path;

use berth::ids::UpstreamId;
use berth_local::{Fault, Stack};
use reqwest::Method;
use serde_json::{Value, json};

use support::{OPERATOR, berth, call, register, send, start, users};

/// Loses the table of a running stack.
async fn lose(stack: &Stack) {
    call(stack, Method::POST, "/__local/reset", OPERATOR, Value::Null).await;
}

/// Asks for a connection URL, which needs the user's own secret.
async fn connection_url(stack: &Stack, user: &str) -> (u16, Value) {
    let url = format!("{}/api/snaptrade/connection-url", stack.urls().api);
    send(&url, Method::POST, &format!("dev:{user}"), Some(json!({}))).await
}

/// Ada with an age, Grace protected, Edsger, and a user that SnapTrade knew before.
async fn populate(stack: &Stack) {
    for user in ["ada", "grace", "edsger@example.com"] {
        register(stack, user).await;
    }
    let legacy = UpstreamId::from_snaptrade("legacy");
    stack
        .app("test")
        .snaptrade()
        .register_user(&legacy)
        .await
        .unwrap();
    let age = json!({"user_id": "legacy", "created_at": "2024-05-05T05:05:05.555Z", "protected": true});
    call(stack, Method::POST, "/api/snaptrade/users", OPERATOR, age).await;
    for (user, change) in [
        ("ada", json!({"created_at": "2025-01-01T00:00:00Z"})),
        ("grace", json!({"protected": true})),
    ] {
        let path = format!("/api/snaptrade/users/{user}");
        call(stack, Method::PATCH, &path, OPERATOR, change).await;
    }
}

async fn status(stack: &Stack) -> Value {
    call(stack, Method::GET, "/api/snaptrade/status", OPERATOR, Value::Null).await
}

#[tokio::test]
async fn a_lost_table_comes_back_with_ages_secrets_and_protection() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 5).await;
    populate(&stack).await;
    let before = users(&stack).await;
    let made = berth(directory.path(), "connections backup tracking.jsonl --json").await;
    assert_eq!(made.code, 0, "{}", made.err);
    let counts = &made.json()["counts"];
    assert_eq!(
        (&counts["users"], &counts["adopted"]),
        (&json!(3), &json!(1)),
        "{counts}"
    );
    assert_eq!(made.json()["steady"], true);

    lose(&stack).await;
    assert!(users(&stack).await.is_empty());
    let refused = berth(directory.path(), "connections restore tracking.jsonl").await;
    assert!(
        refused.code == 2 && refused.err.contains("--yes"),
        "{}",
        refused.err
    );
    assert!(users(&stack).await.is_empty());
    let restored = berth(
        directory.path(),
        "connections restore tracking.jsonl --yes --json",
    )
    .await;
    assert_eq!(restored.code, 0, "{} {}", restored.out, restored.err);
    let report = restored.json();
    assert_eq!(
        (&report["restored"]["users"], &report["restored"]["adopted"]),
        (&json!(3), &json!(1)),
        "{report}"
    );
    assert_eq!(
        (&report["sync"]["tracked_count"], &report["sync"]["complete"]),
        (&json!(4), &json!(true)),
        "{report}"
    );

    assert_eq!(users(&stack).await, before);
    let status = status(&stack).await;
    assert_eq!(
        (&status["current_count"], &status["in_sync"]),
        (&json!(4), &json!(true))
    );
    for user in ["ada", "grace", "edsger@example.com"] {
        let (status, answer) = connection_url(&stack, user).await;
        assert_eq!(status, 200, "{user}: {answer}");
    }
    // The one place left is taken, and then the oldest who may go does.
    register(&stack, "kurt").await;
    register(&stack, "emmy").await;
    let names: Vec<_> = users(&stack)
        .await
        .iter()
        .map(|user| user["user_id"].clone())
        .collect();
    assert!(!names.contains(&json!("ada")) && names.len() == 5, "{names:?}");
    stack.shutdown().await;
}

#[tokio::test]
async fn a_sync_alone_brings_everybody_back_but_ages_and_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 5).await;
    populate(&stack).await;
    lose(&stack).await;
    let synced = berth(directory.path(), "connections sync --json").await;
    assert_eq!(
        (synced.code, &synced.json()["added"]),
        (0, &json!(4)),
        "{}",
        synced.err
    );
    let users = users(&stack).await;
    assert!(users.len() == 4 && users.iter().all(|user| user["state"] == "adopted"));
    assert!(
        users
            .iter()
            .all(|user| user["created_at"].as_str() > Some("2026") && user["protected"] == false)
    );
    assert_eq!(connection_url(&stack, "ada").await.0, 409);
    assert_eq!(status(&stack).await["current_count"], 4);
    stack.shutdown().await;
}

#[tokio::test]
async fn the_data_of_a_stack_that_does_not_run_is_backed_up_and_restored() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 5).await;
    populate(&stack).await;
    let before = users(&stack).await;
    stack.shutdown().await;
    let made = berth(directory.path(), "connections backup tracking.jsonl").await;
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(
        made.out.starts_with("3 users, 1 id without a secret here"),
        "{}",
        made.out
    );
    for entry in std::fs::read_dir(directory.path().join(".berth")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("dynamodb") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    // The command's own stack adopts everybody before the command restores them.
    let restored = berth(directory.path(), "connections restore tracking.jsonl --yes").await;
    assert_eq!(restored.code, 0, "{} {}", restored.out, restored.err);
    let stack = start(directory.path(), 5).await;
    assert_eq!(users(&stack).await, before);
    assert_eq!(connection_url(&stack, "ada").await.0, 200);
    stack.shutdown().await;
}

#[tokio::test]
async fn what_the_table_knows_wins_and_a_second_restore_finds_nothing_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 5).await;
    populate(&stack).await;
    assert_eq!(
        berth(directory.path(), "connections backup old.jsonl").await.code,
        0
    );
    // Since the backup Ada was deleted, Grace lost her protection, and Kurt came.
    for line in [
        "connections delete-oldest --yes",
        "connections unprotect grace",
        "connections unprotect legacy",
    ] {
        assert_eq!(berth(directory.path(), line).await.code, 0, "{line}");
    }
    register(&stack, "kurt").await;
    let before = users(&stack).await;
    let restored = berth(directory.path(), "connections restore old.jsonl --yes --json").await;
    assert_eq!(restored.code, 0, "{}", restored.err);
    let report = restored.json()["restored"].clone();
    assert_eq!(
        (
            &report["users"],
            &report["adopted"],
            &report["there"],
            &report["retired"]
        ),
        (&json!(0), &json!(0), &json!(3), &json!(1)),
        "{report}"
    );
    assert_eq!(users(&stack).await, before);
    assert_eq!(status(&stack).await["current_count"], 4);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_restore_that_breaks_off_is_finished_by_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 50).await;
    for number in 0..40 {
        register(&stack, &format!("user{number}")).await;
    }
    let before = users(&stack).await;
    assert_eq!(
        berth(directory.path(), "connections backup all.jsonl").await.code,
        0
    );
    lose(&stack).await;
    // The first transactions are made and their answers lost; then the table is out of reach.
    let dynamodb = stack.dynamodb();
    dynamodb.fail_next_of("TransactWriteItems", 2, Fault::LostAnswer);
    dynamodb.fail_next_of("TransactWriteItems", 40, Fault::Error500);
    let broken = berth(directory.path(), "connections restore all.jsonl --yes").await;
    assert_eq!(broken.code, 1, "{}", broken.out);
    assert!(broken.err.contains("run it again"), "{}", broken.err);
    dynamodb.clear_faults();
    // Meanwhile somebody registers, for which the places are opened, and everybody who is missing is adopted.
    register(&stack, "newcomer").await;
    let restored = berth(directory.path(), "connections restore all.jsonl --yes").await;
    assert_eq!(restored.code, 0, "{} {}", restored.out, restored.err);
    let mut after = users(&stack).await;
    after.retain(|user| user["user_id"] != "newcomer");
    assert_eq!(after, before);
    let status = status(&stack).await;
    assert_eq!(
        (&status["current_count"], &status["in_sync"]),
        (&json!(41), &json!(true))
    );
    assert_eq!(connection_url(&stack, "user7").await.0, 200);
    stack.shutdown().await;
}

/// A backup in `directory`, as text.
async fn backup(directory: &Path) -> String {
    let made = berth(directory, "connections backup whole.jsonl").await;
    assert_eq!(made.code, 0, "{}", made.err);
    std::fs::read_to_string(directory.join("whole.jsonl")).unwrap()
}

#[tokio::test]
async fn a_file_that_is_no_whole_backup_of_this_client_is_refused_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 5).await;
    populate(&stack).await;
    let whole = backup(directory.path()).await;
    lose(&stack).await;
    let (first, rest) = whole.split_once('\n').unwrap();
    for (content, reason) in [
        ("{\"ada\": 1700000000}\n".to_owned(), "not a backup"),
        (String::new(), "not a backup"),
        (
            whole.replace("\"protected\":{\"BOOL\":true}", "\"protected\":{\"BOOL\":false}"),
            "checksum",
        ),
        (whole[..whole.len() - 10].to_owned(), "has no end"),
        (
            format!("{first}\n{}", rest.split_once('\n').unwrap().1),
            "number of records",
        ),
        (whole.replacen("\"version\":1", "\"version\":9", 1), "version 9"),
        (
            whole.replacen("\"tenant\":\"default\"", "\"tenant\":\"elsewhere\"", 1),
            "tenant elsewhere",
        ),
        (
            whole.replacen("SANDBOX-CLIENT", "ANOTHER-CLIENT", 1),
            "ANOTHER-CLIENT",
        ),
    ] {
        std::fs::write(directory.path().join("bad.jsonl"), content).unwrap();
        let refused = berth(directory.path(), "connections restore bad.jsonl --yes").await;
        assert_eq!(refused.code, 1, "{reason}: {}", refused.out);
        assert!(
            refused.err.contains("nothing was changed") && refused.err.contains(reason),
            "{reason}: {}",
            refused.err
        );
        assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
    }
    let missing = berth(directory.path(), "connections restore nowhere.jsonl --yes").await;
    assert!(
        missing.code == 1 && missing.err.contains("nowhere.jsonl"),
        "{}",
        missing.err
    );
    assert!(users(&stack).await.is_empty());
    stack.shutdown().await;
}

#[tokio::test]
async fn a_backup_is_its_owners_alone_and_holds_no_secret_in_the_open() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 5).await;
    populate(&stack).await;
    let whole = backup(directory.path()).await;
    assert!(whole.contains("\"sealed\"") && !whole.contains("sandbox-consumer-key"));
    let state = std::fs::read_to_string(directory.path().join(".berth/snaptrade.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    let mut secrets = Vec::new();
    collect_secrets(&state, &mut secrets);
    assert!(secrets.len() >= 3, "the sandbox keeps its users' secrets");
    assert!(secrets.iter().all(|secret| !whole.contains(secret)));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = std::fs::metadata(directory.path().join("whole.jsonl")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
    let nowhere = berth(directory.path(), "connections backup no/such/place.jsonl").await;
    assert!(
        nowhere.code == 1 && nowhere.err.contains("no/such/place.jsonl"),
        "{}",
        nowhere.err
    );
    stack.shutdown().await;
}

/// All that the sandbox keeps under a name that ends in `secret`.
fn collect_secrets(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str() {
                    Some(text) if name.ends_with("secret") => found.push(text.to_owned()),
                    _ => collect_secrets(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_secrets(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn secrets_that_the_keys_here_do_not_open_are_counted_and_left_to_a_person() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 5).await;
    register(&stack, "ada").await;
    backup(directory.path()).await;
    stack.shutdown().await;
    let data = directory.path().join(".berth");
    for name in ["data-keys.json", "dynamodb.sqlite"] {
        std::fs::remove_file(data.join(name)).unwrap();
    }
    let restored = berth(directory.path(), "connections restore whole.jsonl --yes --json").await;
    assert_eq!(restored.code, 4, "{} {}", restored.out, restored.err);
    assert_eq!(restored.json()["unopened_secrets"], 1);
}
