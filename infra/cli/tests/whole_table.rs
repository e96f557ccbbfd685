//! `berth backup` and `berth restore` on the local stack, as processes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops where something is not as it should be"
)]
#![allow(clippy::panic, reason = "what tests share panics")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use berth_local::Stack;
use reqwest::Method;
use serde_json::json;

use support::{OPERATOR, berth, call, register, start, users};

/// The lines of a backup but for the first, which has the time, in an order of their own.
fn items(directory: &Path, file: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(directory.join(file)).unwrap();
    text.lines().skip(1).map(str::to_owned).collect()
}

async fn names(stack: &Stack) -> Vec<String> {
    let users = users(stack).await;
    users
        .iter()
        .map(|user| user["user_id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_restored_table_is_what_it_was_whatever_came_in_between() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 3).await;
    for user in ["ada", "grace"] {
        register(&stack, user).await;
    }
    let taken = berth(directory.path(), "backup table.jsonl --json").await;
    assert_eq!(taken.code, 0, "{}", taken.err);
    let before = items(directory.path(), "table.jsonl");
    assert_eq!(taken.json()["items"].as_u64().unwrap() + 1, before.len() as u64);

    call(
        &stack,
        Method::DELETE,
        "/api/snaptrade/users/ada",
        OPERATOR,
        json!(null),
    )
    .await;
    register(&stack, "mary").await;
    assert_eq!(names(&stack).await, ["grace", "mary"]);
    let refused = berth(directory.path(), "restore table.jsonl").await;
    assert_eq!(refused.code, 2, "{}", refused.err);

    let restored = berth(directory.path(), "restore table.jsonl --yes --json").await;
    assert_eq!(restored.code, 0, "{}", restored.err);
    assert!(restored.json()["deleted"].as_u64().unwrap() > 0);
    let again = berth(directory.path(), "backup again.jsonl").await;
    assert_eq!(again.code, 0, "{}", again.err);
    assert_eq!(items(directory.path(), "again.jsonl"), before);
    assert_eq!(names(&stack).await, ["ada", "grace"]);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_file_that_is_cut_off_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 3).await;
    register(&stack, "ada").await;
    assert_eq!(berth(directory.path(), "backup table.jsonl").await.code, 0);
    let file = directory.path().join("table.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.rsplit_once("\n{").unwrap().0).unwrap();
    let refused = berth(directory.path(), "restore table.jsonl --yes").await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("nothing was changed"), "{}", refused.err);
    assert_eq!(names(&stack).await, ["ada"]);
    stack.shutdown().await;
}
