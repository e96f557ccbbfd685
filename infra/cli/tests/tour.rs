//! `berth local --tour` as a newcomer starts it: as a process, in a directory where nothing is set up.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

fn berth(directory: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth"));
    command
        .args(line.split_whitespace())
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn the_tour_walks_through_the_whole_journey_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let output = berth(directory.path(), "local --tour").output().unwrap();
    let (out, err) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{out}");
    for (number, word) in [
        (1, "Five users"),
        (2, "limit reached"),
        (3, "gives way"),
        (4, "connection URL"),
        (5, "portal"),
        (6, "webhooks"),
        (7, "holdings"),
        (8, "place kept"),
        (9, "synced"),
        (10, "lost"),
    ] {
        let heading = format!("{number:>2} ");
        assert!(
            out.lines()
                .any(|line| line.starts_with(&heading) && line.contains(word)),
            "{number} {word}: {out}"
        );
    }
    // Read in a pipe, so without colours, and on a terminal of the usual width.
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    assert!(!out.contains('\u{1b}'));
    assert!(
        !out.contains("redeemToken"),
        "a link to the portal is for its user alone"
    );
    assert!(is_empty(directory.path()));
}

#[test]
fn the_tour_as_json_tells_each_check_whatever_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let output = berth(directory.path(), "local --tour --json --limit 2")
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &told["passed"]),
        (Some(0), &Value::Bool(true)),
        "{told}"
    );
    assert_eq!(told["steps"].as_array().unwrap().len(), 10);
    assert!(told["steps"][2]["title"].as_str().unwrap().contains("barbara"));
}

#[test]
fn the_tour_takes_no_notice_of_this_machines_settings() {
    let directory = tempfile::tempdir().unwrap();
    let settings = "MAX_CONNECTIONS=1\nEVICTION_POLICY=none\nFF_SNAPTRADE_INVESTMENT_SYNC=off\n";
    std::fs::write(directory.path().join(".env"), settings).unwrap();
    let output = berth(directory.path(), "local --tour").output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn there_is_no_tour_where_real_users_are() {
    let directory = tempfile::tempdir().unwrap();
    for line in ["local --tour --snaptrade live", "local --tour --policy none"] {
        let refused = berth(directory.path(), line).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{line}");
        assert!(refused.stdout.is_empty());
        assert_eq!(String::from_utf8(refused.stderr).unwrap().lines().count(), 1);
    }
}

#[cfg(unix)]
#[test]
fn a_tour_that_is_stopped_ends_cleanly() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = berth(directory.path(), "local --tour").spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(is_empty(directory.path()));
}
