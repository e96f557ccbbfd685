//! What has to stay true of the code's structure. ARCHITECTURE.md tells why.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files and folders of the room `connections` that do I/O or are tests. Every other one decides, and is held to it.
const SHELLS: [&str; 7] = [
    "backup/file.rs",
    "backup/transfer.rs",
    "model.rs",
    "operations",
    "runner.rs",
    "simulation.rs",
    "storage.rs",
];

/// The same of the room `access`.
const ACCESS_SHELLS: [&str; 14] = [
    "books.rs",
    "mail/discord.rs",
    "mail/outbox.rs",
    "mail/sending.rs",
    "mail/smtp.rs",
    "master_data.rs",
    "records.rs",
    "run",
    "schedule.rs",
    "sending.rs",
    "service",
    "shop",
    "sync.rs",
    "tally.rs",
];

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = checkout().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of what stands in a directory of the checkout.
fn names(directory: &str) -> BTreeSet<String> {
    std::fs::read_dir(checkout().join(directory))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The Rust files below a directory of the checkout, as paths from the checkout. Those that hold nothing but tests are
/// not among them.
fn sources(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(directory)];
    while let Some(directory) = open.pop() {
        for name in names(directory.to_str().unwrap()) {
            let path = directory.join(name);
            if checkout().join(&path).is_dir() {
                if !path.ends_with("tests") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "{directory} holds no code");
    found
}

/// The code of a file as it is compiled into a function: without comments and without the tests at its end.
fn shipped_code(path: &Path) -> String {
    let text = read(path);
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// All packages that end up in the program of a package, each with its versions. Needs no network: Cargo reads the
/// lock file and what it fetched to build this test.
fn linked(package: &str) -> BTreeMap<String, BTreeSet<String>> {
    let answer = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--package",
            package,
        ])
        .current_dir(checkout())
        .output()
        .unwrap();
    assert!(
        answer.status.success(),
        "{}",
        String::from_utf8_lossy(&answer.stderr)
    );
    let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8(answer.stdout)
        .unwrap()
        .lines()
        .filter(|line| !line.is_empty())
    {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        packages
            .entry(name.to_owned())
            .or_default()
            .insert(version.to_owned());
    }
    packages
}

#[test]
fn functions_do_not_depend_on_each_other_except_a_schedule_on_its_route() {
    let functions = names("functions");
    for function in &functions {
        let route = function.strip_suffix("-schedule");
        let linked = linked(function);
        for other in functions.iter().filter(|other| *other != function) {
            let allowed = route == Some(other.as_str());
            assert_eq!(linked.contains_key(other), allowed, "{function} and {other}");
        }
    }
}

#[test]
fn nothing_of_the_local_stack_is_deployed() {
    for function in names("functions") {
        let linked = linked(&function);
        for local in [
            "berth-cli",
            "berth-local",
            "berth-sandbox",
            "scenarios",
            "dynoxide-rs",
            "axum",
            "clap",
        ] {
            assert!(!linked.contains_key(local), "{function} links {local}");
        }
    }
}

/// What a program links that is not the one TLS stack and the one HTTP stack.
fn other_stacks(linked: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    const ONE: [&str; 5] = ["http", "hyper", "reqwest", "ring", "rustls"];
    const OTHERS: [&str; 11] = [
        "aws-config",
        "aws-lc-rs",
        "aws-lc-sys",
        "curl",
        "h2",
        "hyper-tls",
        "isahc",
        "native-tls",
        "openssl",
        "openssl-sys",
        "ureq",
    ];
    let not_one = ONE.iter().filter_map(|one| {
        let versions = linked.get(*one).cloned().unwrap_or_default();
        (versions.len() != 1).then(|| format!("{one} {versions:?}"))
    });
    let others = OTHERS.iter().filter(|other| linked.contains_key(**other));
    not_one.chain(others.map(|other| (*other).to_owned())).collect()
}

#[test]
fn every_function_has_one_tls_stack_and_one_http_stack() {
    for function in names("functions") {
        assert_eq!(
            other_stacks(&linked(&function)),
            Vec::<String>::new(),
            "{function}"
        );
    }
}

#[test]
fn a_second_stack_is_found_in_a_program() {
    let right = linked("status");
    let with = |name: &str, version: &str| {
        let mut linked = right.clone();
        linked
            .entry(name.to_owned())
            .or_default()
            .insert(version.to_owned());
        other_stacks(&linked)
    };
    assert_eq!(with("native-tls", "v0.2.14"), ["native-tls"]);
    assert_eq!(with("aws-lc-rs", "v1.19.0"), ["aws-lc-rs"]);
    assert!(with("rustls", "v0.21.12")[0].starts_with("rustls {\"v0.21.12\", "));
    let mut without = right.clone();
    without.remove("ring");
    assert_eq!(other_stacks(&without), ["ring {}"]);
}

#[test]
fn decisions_read_no_clock_no_environment_and_no_network() {
    const OUTSIDE: [&str; 18] = [
        "async ",
        ".await",
        "aws_sdk",
        "berth::app",
        "crate::app",
        "Clock",
        "crate::secrets",
        "crate::store",
        "getrandom",
        "reqwest",
        "std::env",
        "std::fs",
        "std::net",
        "std::process",
        "Instant",
        "SystemTime",
        "Timestamp::now",
        "tokio",
    ];
    let mut decisions = vec![PathBuf::from("shared/src/webhooks/work.rs")];
    for (room, shells) in [
        ("shared/src/connections", SHELLS.as_slice()),
        ("shared/src/access", ACCESS_SHELLS.as_slice()),
    ] {
        let mut of_room = sources(room);
        of_room.retain(|path| {
            !shells
                .iter()
                .any(|shell| path.starts_with(Path::new(room).join(shell)))
        });
        assert!(of_room.len() > 10);
        decisions.extend(of_room);
    }
    for path in decisions {
        let code = shipped_code(&path);
        for outside in OUTSIDE {
            assert!(!code.contains(outside), "{} uses {outside:?}", path.display());
        }
    }
}

#[test]
fn only_the_store_talks_to_the_table() {
    for path in sources("shared/src").into_iter().chain(sources("functions")) {
        let talks = shipped_code(&path).contains("aws_sdk_dynamodb::Client");
        let may = path.starts_with("shared/src/store") || path.starts_with("shared/src/app");
        assert!(may || !talks, "{}", path.display());
    }
}

#[test]
fn a_secret_is_laid_open_only_where_it_is_used() {
    // Where a call is signed or a request is built from it, where it is read from its store, and where it is
    // encrypted.
    let may = [
        "shared/src/snaptrade",
        "shared/src/secrets",
        "shared/src/user_secrets.rs",
        "shared/src/access/mail/discord.rs",
        "shared/src/access/mail/smtp.rs",
        "shared/src/access/service",
        "shared/src/access/shop",
        "infra/cli/src/deployed.rs",
    ];
    for path in sources("shared/src")
        .into_iter()
        .chain(sources("functions"))
        .chain(sources("infra/cli"))
    {
        let opens = shipped_code(&path).contains("expose_secret()");
        assert!(
            !opens || may.iter().any(|place| path.starts_with(place)),
            "{}",
            path.display()
        );
    }
}

#[test]
fn a_functions_program_does_nothing_but_run_its_handler() {
    for function in names("functions") {
        let code = shipped_code(&Path::new("functions").join(&function).join("src/main.rs"));
        assert!(
            code.lines().filter(|line| !line.trim().is_empty()).count() <= 15,
            "{function}"
        );
        assert!(
            code.contains("run_http(") || code.contains("run_event("),
            "{function}"
        );
    }
}

#[test]
fn every_package_keeps_the_workspaces_lints() {
    let functions = names("functions")
        .into_iter()
        .map(|function| format!("functions/{function}"));
    let others = ["shared", "infra/cli", "infra/local", "infra/sandbox", "tests"].map(str::to_owned);
    for package in functions.chain(others) {
        let manifest = read(format!("{package}/Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true\n"), "{package}");
    }
}
