//! `berth verify-setup` on the local stack, as a process.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::path::Path;

use berth_local::{Data, Options, Stack};
use serde_json::{Value, json};
use tokio::process::Command;

async fn verify(directory: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_berth"))
        .arg("verify-setup")
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

async fn start(directory: &Path, origins: &[&str]) -> Stack {
    let options = Options {
        data: Data::Directory(directory.join(".berth")),
        origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
        ..Options::default()
    };
    Stack::start(options).await.unwrap()
}

fn status_of<'a>(checks: &'a Value, name: &str) -> &'a Value {
    let rows = checks["checks"].as_array().unwrap();
    &rows.iter().find(|row| row["name"] == name).unwrap()["status"]
}

#[tokio::test]
async fn a_stack_with_all_it_needs_is_found_to_be_good() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(
        directory.path(),
        &["https://*.example.com", "http://localhost:3000"],
    )
    .await;
    let (code, out) = verify(directory.path(), &[]).await;
    assert_eq!(code, 0, "{out}");
    for name in [
        "credentials",
        "environment",
        "signature",
        "clock",
        "store",
        "table",
        "secrets",
        "origins",
        "webhook",
        "limit",
        "shop",
        "access API",
        "mail",
    ] {
        let row = out.lines().find(|line| line.contains(&format!("  {name}")));
        assert!(row.is_some_and(|row| row.starts_with("ok ")), "{name}: {out}");
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn what_is_missing_or_refused_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    // Nothing runs, so the data alone is looked at.
    let (code, out) = verify(directory.path(), &["--json"]).await;
    let checks: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &checks["status"]), (4, &json!("warn")), "{out}");
    assert_eq!(status_of(&checks, "origins"), "warn");

    let stack = start(directory.path(), &["https://app.example.com"]).await;
    let refuse = json!({"operation": "*", "kind": "status", "status": 401, "times": 20});
    for sandbox in [&stack.urls().snaptrade, &stack.urls().access] {
        let faults = berth::snaptrade::http_client()
            .unwrap()
            .post(format!("{sandbox}/__sandbox/faults"))
            .json(&refuse);
        assert!(faults.send().await.unwrap().status().is_success());
    }
    let (code, out) = verify(directory.path(), &["--json"]).await;
    let checks: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 1, "{out}");
    assert_eq!(status_of(&checks, "signature"), "broken");
    assert_eq!(status_of(&checks, "shop"), "broken");
    assert_eq!(status_of(&checks, "access API"), "broken");
    assert_eq!(status_of(&checks, "table"), "ok");
    stack.shutdown().await;
}
