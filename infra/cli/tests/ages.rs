//! `berth connections import` and `export`: users' ages in a file.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where something is not as it should be"
)]

mod support;

use serde_json::{Value, json};

use support::{berth, register, start, users};

/// The age of each user.
async fn ages(stack: &berth_local::Stack) -> Vec<(String, String)> {
    let text = |user: &Value, member: &str| user[member].as_str().unwrap().to_owned();
    let users = users(stack).await;
    users
        .iter()
        .map(|user| (text(user, "user_id"), text(user, "created_at")))
        .collect()
}

#[tokio::test]
async fn ages_are_imported_from_every_form_of_a_time_and_exported_again() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 5).await;
    for user in ["ada", "grace", "edsger"] {
        register(&stack, user).await;
    }
    let file = directory.path().join(".snaptrade_user_timestamps.json");
    let given =
        json!({"edsger": 1_600_000_000, "ada": 1_700_000_000.25, "grace": "2025-01-01T01:00:00+01:00"});
    std::fs::write(&file, given.to_string()).unwrap();
    let line = "connections import .snaptrade_user_timestamps.json";
    let imported = berth(directory.path(), line).await;
    assert_eq!(
        (imported.code, imported.out.as_str()),
        (0, "3 ages set; 0 right already.\n"),
        "{}",
        imported.err
    );
    let expected = [
        ("edsger", "2020-09-13T12:26:40.000Z"),
        ("ada", "2023-11-14T22:13:20.250Z"),
        ("grace", "2025-01-01T00:00:00.000Z"),
    ]
    .map(|(user, time)| (user.to_owned(), time.to_owned()));
    assert_eq!(ages(&stack).await, expected);

    let exported = berth(directory.path(), "connections export ages.json --json").await;
    assert_eq!((exported.code, &exported.json()["users"]), (0, &json!(3)));
    let text = std::fs::read_to_string(directory.path().join("ages.json")).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        written,
        json!({"edsger": 1_600_000_000, "ada": 1_700_000_000.25, "grace": 1_735_689_600})
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = std::fs::metadata(directory.path().join("ages.json")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
    let printed = berth(directory.path(), "connections export -").await;
    assert_eq!(printed.json(), written);
    let again = berth(directory.path(), "connections import ages.json --json").await;
    assert_eq!(
        (again.code, again.json()),
        (
            0,
            json!({"updated": 0, "unchanged": 3, "unknown": [], "failed": []})
        )
    );
    stack.shutdown().await;
}

#[tokio::test]
async fn users_who_are_not_tracked_are_reported_and_the_others_get_their_ages() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 5).await;
    register(&stack, "ada").await;
    std::fs::write(
        directory.path().join("ages.json"),
        r#"{"nobody": 1600000000, "ada": 1600000000}"#,
    )
    .unwrap();
    let imported = berth(directory.path(), "connections import ages.json --json").await;
    assert_eq!(imported.code, 4, "{}", imported.err);
    assert_eq!(
        imported.json(),
        json!({"updated": 1, "unchanged": 0, "unknown": ["nobody"], "failed": []})
    );
    assert_eq!(ages(&stack).await[0].1, "2020-09-13T12:26:40.000Z");
    stack.shutdown().await;
}

#[tokio::test]
async fn a_file_with_faults_changes_nothing_and_each_fault_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 5).await;
    register(&stack, "ada").await;
    let before = ages(&stack).await;
    let file = directory.path().join("ages.json");
    std::fs::write(&file, r#"{"ada": 1600000000, "grace": "soon", "a b": null}"#).unwrap();
    let refused = berth(directory.path(), "connections import ages.json --json").await;
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("\"grace\"")
            && refused.err.contains("\"a b\"")
            && refused.err.contains("3 faults"),
        "{}",
        refused.err
    );
    let pointers: Vec<_> = refused.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].clone())
        .collect();
    assert_eq!(pointers, ["/grace", "/a b", "/a b"]);
    for (content, reason) in [("[]", "not of the form"), ("{\"ada\": 1", "not of the form")] {
        std::fs::write(&file, content).unwrap();
        let refused = berth(directory.path(), "connections import ages.json").await;
        assert!(
            refused.code == 1 && refused.err.contains(reason) && refused.err.lines().count() == 1,
            "{}",
            refused.err
        );
    }
    let missing = berth(directory.path(), "connections import nowhere.json").await;
    assert!(
        missing.code == 1 && missing.err.contains("nowhere.json"),
        "{}",
        missing.err
    );
    let nowhere = berth(directory.path(), "connections export no/such/place.json").await;
    assert!(
        nowhere.code == 1 && nowhere.err.contains("no/such/place.json"),
        "{}",
        nowhere.err
    );
    assert_eq!(ages(&stack).await, before);
    stack.shutdown().await;
}
