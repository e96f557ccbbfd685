//! `berth local` as its users start it: as a process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const FREE_PORTS: [&str; 10] = [
    "--port",
    "0",
    "--snaptrade-port",
    "0",
    "--access-port",
    "0",
    "--dynamodb-port",
    "0",
    "--mail-port",
    "0",
];

/// `berth` in `directory`, without this process's settings.
fn berth(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth"));
    command
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn output(directory: &Path, arguments: &[&str]) -> Output {
    berth(directory, arguments).output().unwrap()
}

/// The stack, and the two lines that it says on standard output.
fn start(directory: &Path, arguments: &[&str]) -> (Child, Value, String) {
    let arguments = [&["local"], FREE_PORTS.as_slice(), arguments].concat();
    let mut child = berth(directory, &arguments).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.as_mut().unwrap());
    let (mut urls, mut ready) = (String::new(), String::new());
    out.read_line(&mut urls).unwrap();
    out.read_line(&mut ready).unwrap();
    (
        child,
        serde_json::from_str(&urls).unwrap(),
        ready.trim_end().to_owned(),
    )
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

#[test]
fn a_stack_says_where_it_is_and_stops_cleanly_on_either_signal() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["-INT", "-TERM"] {
        let (mut child, urls, ready) = start(directory.path(), &[]);
        assert_eq!(ready, format!("ready {}", urls["api"].as_str().unwrap()));
        let mut names: Vec<_> = urls.as_object().unwrap().keys().cloned().collect();
        names.sort();
        assert_eq!(names, ["access", "api", "dynamodb", "mail", "snaptrade"]);
        assert!(directory.path().join(".berth/stack.json").exists());
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let mut more = String::new();
        child.stdout.take().unwrap().read_to_string(&mut more).unwrap();
        assert_eq!(more, "");
        assert!(!directory.path().join(".berth/stack.json").exists());
    }
}

#[test]
fn what_is_wrong_at_the_start_is_one_sentence_on_standard_error() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = |arguments: &[&str]| {
        let output = output(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    for option in ["--dynamodb-port", "--access-port", "--mail-port"] {
        let mut arguments = [&["local", "--memory"], FREE_PORTS.as_slice()].concat();
        let at = arguments.iter().position(|argument| *argument == option).unwrap();
        arguments[at + 1] = &port;
        let port_taken = said(&arguments);
        assert!(
            port_taken.contains(&port) && port_taken.contains(option),
            "{port_taken}"
        );
    }
    let no_file = said(&[&["local", "--access-config", "none.json"], FREE_PORTS.as_slice()].concat());
    assert!(no_file.contains("none.json"), "{no_file}");
    assert!(said(&["local", "--snaptrade", "live"]).contains("SNAPTRADE_CLIENT_ID"));
    std::fs::write(
        directory.path().join(".env"),
        "RATE_PLAN=growth\nthis is no setting\n",
    )
    .unwrap();
    assert!(said(&["local", "--memory"]).contains("line 2"));
    std::fs::write(
        directory.path().join(".env"),
        "MAX_CONNECTIONS=many\nRATE_PLAN=fast\n",
    )
    .unwrap();
    let settings = said(&["local", "--memory"]);
    assert!(
        settings.contains("MAX_CONNECTIONS") && settings.contains("RATE_PLAN"),
        "{settings}"
    );
}

#[test]
fn a_store_that_cannot_be_opened_is_one_sentence_on_standard_error() {
    let said = |directory: &Path| {
        let output = output(directory, &[&["local"], FREE_PORTS.as_slice()].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.contains("cannot be opened") && said.contains("--memory"),
            "{said}"
        );
    };
    let no_directory = tempfile::tempdir().unwrap();
    std::fs::write(no_directory.path().join(".berth"), "a file").unwrap();
    said(no_directory.path());
    let no_database = tempfile::tempdir().unwrap();
    std::fs::create_dir(no_database.path().join(".berth")).unwrap();
    std::fs::write(
        no_database.path().join(".berth/dynamodb.sqlite"),
        "no database".repeat(100),
    )
    .unwrap();
    said(no_database.path());
}

#[test]
fn without_a_command_the_help_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let shown = output(directory.path(), &[]);
    assert_eq!(shown.status.code(), Some(2));
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.contains("verify-setup") && text.contains("Exit codes"),
        "{text}"
    );
}

#[test]
fn data_is_emptied_on_request_but_not_under_a_running_stack() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, urls, _) = start(directory.path(), &[]);
    let refused = output(directory.path(), &["local", "--reset"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains(urls["api"].as_str().unwrap()));
    signal(&child, "-INT");
    child.wait().unwrap();
    assert!(directory.path().join(".berth/dynamodb.sqlite").exists());
    assert_eq!(
        output(directory.path(), &["local", "--reset"]).status.code(),
        Some(0)
    );
    assert!(!directory.path().join(".berth/dynamodb.sqlite").exists());
}

#[test]
fn a_deployed_stack_is_never_mistaken_for_the_local_one() {
    let directory = tempfile::tempdir().unwrap();
    let named = berth(directory.path(), &["connections", "list"])
        .env("BERTH_STACK", "production")
        .output()
        .unwrap();
    assert_eq!(named.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&named.stderr).contains("production"));
    assert!(!directory.path().join(".berth").exists());
}
