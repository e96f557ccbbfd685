//! `berth connections` on the local stack: on one that runs, and on its data alone.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where something is not as it should be"
)]

use std::path::Path;

use berth_local::{Data, Options, Stack};
use serde_json::{Value, json};
use tokio::process::Command;

/// What a command ended with and said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("no JSON: {} {}", self.out, self.err))
    }
}

async fn berth(directory: &Path, line: &str) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_berth"))
        .args(line.split_whitespace())
        .current_dir(directory)
        .env_clear()
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A stack whose data the commands in `directory` find, with room for two users.
async fn start(directory: &Path) -> Stack {
    let options = Options {
        data: Data::Directory(directory.join(".berth")),
        limit: Some(2),
        ..Options::default()
    };
    Stack::start(options).await.unwrap()
}

async fn call(stack: &Stack, method: reqwest::Method, path: &str, token: &str) -> Value {
    let client = berth::snaptrade::http_client().unwrap();
    let request = client.request(method, format!("{}{path}", stack.urls().api));
    request
        .bearer_auth(token)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

async fn register(stack: &Stack, user: &str) {
    let token = format!("dev:{user}");
    let answer = call(stack, reqwest::Method::POST, "/api/snaptrade/register", &token).await;
    assert_eq!(answer["success"], true, "{answer}");
}

#[tokio::test]
async fn the_limit_is_told_by_the_exit_code_and_as_the_route_tells_it() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path()).await;
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
        reqwest::Method::GET,
        "/api/snaptrade/status",
        "dev:ops:operator",
    )
    .await;
    assert_eq!(full.json()["oldest"], status["oldest"]);
    assert_eq!(full.json()["at_limit"], true);
    stack.shutdown().await;
}

#[tokio::test]
async fn nothing_is_deleted_without_a_yes() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path()).await;
    register(&stack, "ada").await;
    register(&stack, "grace").await;
    for line in [
        "connections delete-oldest",
        "connections auto-manage",
        "connections ensure edsger",
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
    let stack = start(directory.path()).await;
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
    let stack = start(directory.path()).await;
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
    let stack = start(directory.path()).await;
    let refused = berth(directory.path(), "connections delete-oldest --yes --json").await;
    assert_eq!(refused.code, 1);
    assert_eq!(refused.json()["code"], "not_found");
    assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
    assert!(refused.err.contains("404 not_found"), "{}", refused.err);
    let plain = berth(directory.path(), "connections delete-oldest --yes").await;
    assert_eq!((plain.code, plain.out.as_str()), (1, ""));
    stack.shutdown().await;
}
