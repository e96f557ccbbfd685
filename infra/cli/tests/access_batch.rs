//! `berth access batch`, `grant-test` and `check-config`: what the commands do themselves, against the sandboxes of a
//! local stack.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where something is not as it should be"
)]

mod support;

use std::path::Path;

use berth_local::Stack;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use support::{Said, berth, days_from_now, sale, sandbox, start};

/// The calls that the access API got since the last look, by method and path.
async fn calls(stack: &Stack) -> Vec<String> {
    let requests = sandbox(stack, Method::GET, "requests", Value::Null).await;
    sandbox(stack, Method::DELETE, "requests", Value::Null).await;
    let paths = requests
        .as_array()
        .unwrap()
        .iter()
        .map(|request| request["path"].as_str().unwrap().to_owned());
    paths.filter(|path| path.contains("/tradingview/")).collect()
}

fn count(calls: &[String], what: &str) -> usize {
    calls.iter().filter(|path| path.contains(what)).count()
}

/// Who has access to S1, with the end of it.
async fn access(stack: &Stack) -> Vec<(String, String)> {
    let users = sandbox(stack, Method::GET, "access/S1", Value::Null).await;
    let mut users: Vec<(String, String)> = users
        .as_array()
        .unwrap()
        .iter()
        .map(|user| {
            let end = user["expiration"].as_str().unwrap_or("for ever");
            (
                user["username"].as_str().unwrap().to_owned(),
                end[..10].to_owned(),
            )
        })
        .collect();
    users.sort();
    users
}

async fn batch(directory: &Path, more: &str) -> Said {
    let line = format!("access batch --transactions dump.json --csv access.csv --script S1 --json {more}");
    berth(directory, &line).await
}

const HEADER: &str = "id,username,userpic,created,expiration,fetched_at";

/// A shop of five: one who has access and renewed, two who are new, one whose name is wrong and one who has lapsed.
async fn shop(directory: &Path, stack: &Stack) {
    let (had_from, had_until) = (days_from_now(-40), days_from_now(5));
    sandbox(
        stack,
        Method::PUT,
        "usernames",
        json!(["Ada", "Grace", "Edsger", "KenT"]),
    )
    .await;
    let has = json!([{"id": 77, "username": "Ada", "userpic": "ada.png", "created": had_from, "expiration": had_until}]);
    sandbox(stack, Method::PUT, "access/S1", has).await;
    let rows = json!([
        sale(1, 11, "ada", 3),
        sale(2, 12, "grace", 1),
        sale(3, 13, "nobody", 1),
        sale(4, 14, "KenT", 400),
        sale(5, 15, "@Edsger", 0),
    ]);
    std::fs::write(directory.join("dump.json"), rows.to_string()).unwrap();
    let fetched_at = days_from_now(-10);
    let csv = format!("{HEADER}\n77,Ada,ada.png,{had_from},{had_until},{fetched_at}\n");
    std::fs::write(directory.join("access.csv"), csv).unwrap();
    calls(stack).await;
}

/// A month after what there is, or after a purchase.
fn month_after(start: Timestamp) -> String {
    let start = start.to_zoned(jiff::tz::TimeZone::UTC);
    (start + jiff::Span::new().months(1)).timestamp().to_string()[..10].to_owned()
}

#[tokio::test]
async fn a_dry_run_calls_nobody_and_writes_nothing_but_says_what_would_be_done() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    shop(directory.path(), &stack).await;
    let before = std::fs::read(directory.path().join("access.csv")).unwrap();
    let dry = batch(directory.path(), "--dry-run").await;
    assert_eq!(calls(&stack).await, Vec::<String>::new());
    assert_eq!(
        std::fs::read(directory.path().join("access.csv")).unwrap(),
        before
    );
    let files: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(files.len(), 3, "{files:?}");
    let report = dry.json();
    assert_eq!(
        (&report["granted"], &report["updated"]),
        (&json!(3), &json!(1)),
        "{report}"
    );
    let planned = |name: &str| {
        let plan = report["plan"].as_array().unwrap();
        plan.iter().find(|action| action["username"] == name).unwrap()["to"]
            .as_str()
            .unwrap()[..10]
            .to_owned()
    };
    // What was bought while access was live begins when that ends.
    assert_eq!(planned("ada"), month_after(days_from_now(5)));
    assert_eq!(planned("grace"), month_after(days_from_now(-1)));
    stack.shutdown().await;
}

#[tokio::test]
async fn a_batch_grants_prolongs_and_skips_and_goes_on_where_the_last_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    shop(directory.path(), &stack).await;
    let first = batch(directory.path(), "--batch-size 2 --max-batches 1").await;
    assert_eq!(first.code, 0, "{} {}", first.out, first.err);
    let report = first.json();
    assert_eq!(
        (
            &report["granted"],
            &report["updated"],
            &report["remaining"],
            &report["complete"]
        ),
        (&json!(1), &json!(1), &json!(2), &json!(false))
    );
    let made = calls(&stack).await;
    assert_eq!(
        (
            count(&made, "validate"),
            count(&made, "grant"),
            count(&made, "update")
        ),
        (2, 1, 1),
        "{made:?}"
    );
    let csv = std::fs::read_to_string(directory.path().join("access.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, HEADER));
    assert!(
        lines[1].starts_with("77,Ada,ada.png,")
            && lines[2].contains(",Grace,,")
            && !lines[2].starts_with(','),
        "{csv}"
    );

    let rest = batch(directory.path(), "--batch-size 2").await;
    assert_eq!(rest.code, 4, "{} {}", rest.out, rest.err);
    let report = rest.json();
    assert_eq!(
        (&report["granted"], &report["complete"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(report["manual_review"][0]["username"], "nobody");
    assert!(rest.err.contains("manual review required"), "{}", rest.err);
    assert_eq!(count(&calls(&stack).await, "validate"), 2);
    let expected = [
        ("Ada".to_owned(), month_after(days_from_now(5))),
        ("Edsger".to_owned(), month_after(days_from_now(0))),
        ("Grace".to_owned(), month_after(days_from_now(-1))),
    ];
    assert_eq!(access(&stack).await, expected);
    assert!(!directory.path().join("access.csv.checkpoint.json").exists());

    let again = batch(directory.path(), "").await;
    assert_eq!(
        (&again.json()["granted"], &again.json()["unchanged"]),
        (&json!(0), &json!(3)),
        "{}",
        again.out
    );
    let made = calls(&stack).await;
    assert_eq!((count(&made, "grant"), count(&made, "update")), (0, 0));
    assert_eq!(access(&stack).await, expected);
    let csv = std::fs::read_to_string(directory.path().join("access.csv")).unwrap();
    assert_eq!(csv.lines().count(), 4, "{csv}");
    assert!(
        csv.lines().all(|line| !line.starts_with(',')),
        "ids are known by now: {csv}"
    );
    stack.shutdown().await;
}

#[tokio::test]
async fn a_batch_that_goes_by_the_file_prolongs_those_in_it_and_notes_whom() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    shop(directory.path(), &stack).await;
    let said = batch(directory.path(), "--by-csv --granted granted.csv").await;
    let report = said.json();
    assert_eq!(
        (&report["granted"], &report["updated"], &report["users"]),
        (&json!(0), &json!(1), &json!(1)),
        "{report}"
    );
    let names: Vec<String> = access(&stack).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["Ada"]);
    let granted = || std::fs::read_to_string(directory.path().join("granted.csv")).unwrap();
    let lines: Vec<String> = granted().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "username,wp_user_id,email,from,expiration,granted_at");
    let until = month_after(days_from_now(5));
    assert!(
        lines[1].starts_with("Ada,11,") && lines[1].contains(&until),
        "{lines:?}"
    );
    // Nobody gets more by a second one, and the others are added to the file.
    batch(directory.path(), "--by-csv --granted granted.csv").await;
    assert_eq!(granted().lines().count(), 2);
    batch(directory.path(), "--granted granted.csv").await;
    assert_eq!(granted().lines().count(), 4);
    std::fs::write(directory.path().join("granted.csv"), "something,else\n1,2\n").unwrap();
    let refused = batch(directory.path(), "--granted granted.csv").await;
    assert_eq!(refused.code, 1, "{} {}", refused.out, refused.err);
    stack.shutdown().await;
}

#[tokio::test]
async fn what_fails_is_told_and_done_by_the_next_run() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    shop(directory.path(), &stack).await;
    let down = json!({"operation": "grant", "kind": "status", "status": 500, "times": 8});
    sandbox(&stack, Method::POST, "faults", down).await;
    let failed = batch(directory.path(), "").await;
    assert_eq!(failed.code, 4, "{}", failed.err);
    assert_eq!(
        (
            &failed.json()["updated"],
            failed.json()["failed"].as_array().unwrap().len()
        ),
        (&json!(1), 2)
    );
    sandbox(
        &stack,
        Method::POST,
        "faults",
        json!({"operation": "*", "times": 0}),
    )
    .await;
    calls(&stack).await;
    let next = batch(directory.path(), "").await;
    assert_eq!(
        (&next.json()["granted"], &next.json()["users"]),
        (&json!(2), &json!(2)),
        "{}",
        next.out
    );
    assert_eq!(count(&calls(&stack).await, "validate"), 2);

    let refuse = json!({"operation": "*", "kind": "status", "status": 401, "times": 50});
    sandbox(&stack, Method::POST, "faults", refuse).await;
    let refused = batch(directory.path(), "").await;
    assert_eq!(refused.code, 1, "{}", refused.out);
    let csv = std::fs::read_to_string(directory.path().join("access.csv")).unwrap();
    assert_eq!(csv.lines().count(), 4, "{csv}");
    stack.shutdown().await;
}

#[tokio::test]
async fn the_shops_own_list_can_be_read_and_what_cannot_be_used_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    sandbox(&stack, Method::PUT, "usernames", json!(["Ada"])).await;
    sandbox(
        &stack,
        Method::PUT,
        "transactions",
        json!([sale(1, 11, "Ada", 1)]),
    )
    .await;
    let address = format!(
        "{}/wp-json/memberpress/v1/all-user-transactions",
        stack.urls().access
    );
    let line = format!("access batch --transactions {address} --csv fresh.csv --script S1 --json");
    let from_shop = berth(directory.path(), &line).await;
    assert_eq!(
        (from_shop.code, &from_shop.json()["granted"]),
        (0, &json!(1)),
        "{}",
        from_shop.err
    );

    std::fs::write(directory.path().join("dump.json"), "[]").unwrap();
    for (csv, fault) in [
        ("id,username\n1,Ada\n", "expiration"),
        ("username,expiration\nAda,soon\n", "line 2"),
        ("username,expiration\n,2026-01-01\n", "username is empty"),
    ] {
        std::fs::write(directory.path().join("access.csv"), csv).unwrap();
        let refused = batch(directory.path(), "").await;
        assert!(
            refused.code == 1 && refused.err.contains(fault),
            "{}",
            refused.err
        );
        assert_eq!(
            std::fs::read_to_string(directory.path().join("access.csv")).unwrap(),
            csv
        );
    }
    let unclear = berth(
        directory.path(),
        "access batch --transactions dump.json --csv fresh.csv",
    )
    .await;
    assert!(
        unclear.code == 2 && unclear.err.contains("S1, S2"),
        "{}",
        unclear.err
    );
    stack.shutdown().await;
}

#[tokio::test]
async fn a_grant_by_hand_is_sent_only_when_it_is_confirmed() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    sandbox(&stack, Method::PUT, "usernames", json!(["AdaLovelace", "Grace"])).await;
    let shown = berth(directory.path(), "access grant-test").await;
    assert_eq!(shown.code, 2, "{}", shown.out);
    assert!(
        shown.out.contains("\"scriptId\": \"S1\"") && shown.err.contains("--confirm"),
        "{}",
        shown.out
    );
    assert_eq!(calls(&stack).await, Vec::<String>::new());

    let sent = berth(directory.path(), "access grant-test --confirm --json").await;
    assert_eq!(
        (sent.code, &sent.json()["action"]),
        (0, &json!("grant")),
        "{}",
        sent.err
    );
    assert_eq!(
        access(&stack).await,
        [("AdaLovelace".to_owned(), month_after(days_from_now(0)))]
    );

    std::fs::write(
        directory.path().join("row.json"),
        sale(9, 19, "grace", 2).to_string(),
    )
    .unwrap();
    let given = berth(
        directory.path(),
        "access grant-test --transaction row.json --confirm",
    )
    .await;
    assert_eq!(given.code, 0, "{}", given.err);
    assert!(given.out.contains("S1 for Grace: grant sent"), "{}", given.out);
    let unknown = berth(directory.path(), "access grant-test --username nobody --confirm").await;
    assert!(
        unknown.code == 1 && unknown.err.contains("does not know nobody"),
        "{}",
        unknown.err
    );
    let sample = berth(directory.path(), "access grant-test --print-sample").await;
    assert_eq!(sample.json()["user_meta"]["tradingview_username"], "AdaLovelace");
    stack.shutdown().await;
}

#[tokio::test]
async fn a_configuration_is_checked_and_every_fault_named_by_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let sample = berth(directory.path(), "access check-config --json").await;
    assert_eq!(
        (sample.code, &sample.json()["valid"]),
        (0, &json!(true)),
        "{}",
        sample.err
    );
    assert!(
        !directory.path().join(".berth").exists(),
        "nothing has to be started for it"
    );

    let faulty = json!({
        "wordpress": {"base_url": "shop", "api_key": "k"}, "tradingview": {"timeout": -1},
        "products": {"100": {"duration": "1X"}},
    });
    std::fs::write(directory.path().join("shop.json"), faulty.to_string()).unwrap();
    let checked = berth(directory.path(), "access check-config --access-config shop.json").await;
    assert_eq!(checked.code, 1);
    for path in [
        "wordpress.base_url",
        "tradingview.timeout",
        "products.100.duration",
        "products.100.script_id",
    ] {
        assert!(checked.err.contains(path), "{path}: {}", checked.err);
    }
    let listed = berth(
        directory.path(),
        "access check-config --access-config shop.json --json",
    )
    .await;
    assert!(
        listed.json()["faults"].as_array().unwrap().len() >= 4,
        "{}",
        listed.out
    );

    let local =
        json!({"wordpress": {"api_key": "k"}, "products": {"100": {"script_id": "S1", "duration": "1M"}}});
    std::fs::write(directory.path().join("shop.json"), local.to_string()).unwrap();
    let checked = berth(directory.path(), "access check-config --access-config shop.json").await;
    assert_eq!(checked.code, 0, "{}", checked.err);
    assert!(
        checked.out.contains("wordpress.base_url is missing"),
        "{}",
        checked.out
    );
    let deployed = berth(
        directory.path(),
        "access check-config --access-config shop.json --stack production",
    )
    .await;
    assert!(
        deployed.code == 1 && deployed.err.contains("wordpress.base_url is missing"),
        "{}",
        deployed.err
    );
    let none = berth(directory.path(), "access check-config --access-config none.json").await;
    assert!(none.code == 1 && none.err.contains("none.json"), "{}", none.err);
}

/// How a check came out, and what it says.
fn checked<'a>(report: &'a Value, name: &str) -> (&'a str, &'a str) {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name).unwrap();
    (
        check["status"].as_str().unwrap(),
        check["detail"].as_str().unwrap(),
    )
}

#[tokio::test]
async fn the_doctor_says_where_the_outside_is_not_as_the_configuration_takes_it_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    let mut unmapped = sale(2, 12, "Grace", 1);
    unmapped["product_id"] = json!(999);
    sandbox(
        &stack,
        Method::PUT,
        "transactions",
        json!([sale(1, 11, "Ada", 3), unmapped]),
    )
    .await;
    sandbox(&stack, Method::PUT, "usernames", json!(["Ada"])).await;
    calls(&stack).await;
    let looked = berth(directory.path(), "access doctor --json").await;
    assert_eq!(looked.code, 4, "{} {}", looked.out, looked.err);
    let report = looked.json();
    assert_eq!(checked(&report, "shop"), ("ok", "all 2 transactions read"));
    assert_eq!(checked(&report, "names").0, "ok", "{report}");
    assert_eq!(
        checked(&report, "products"),
        ("warn", "sold, but not configured: 999")
    );
    assert_eq!(checked(&report, "since").0, "ok", "{report}");
    assert_eq!(checked(&report, "look-up").1, "Ada is known, spelt Ada");
    assert_eq!(checked(&report, "list").0, "ok", "{report}");
    let made = calls(&stack).await;
    assert_eq!((count(&made, "grant"), made.len()), (0, 2), "{made:?}");

    let refuse = json!({"operation": "*", "kind": "status", "status": 401, "times": 50});
    sandbox(&stack, Method::POST, "faults", refuse).await;
    let broken = berth(directory.path(), "access doctor").await;
    assert_eq!(broken.code, 1, "{}", broken.out);
    assert_eq!(broken.out.matches("broken").count(), 3, "{}", broken.out);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_batch_that_is_killed_and_made_again_gives_nobody_more_or_less() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    let names: Vec<String> = (10..22).map(|number| format!("name{number}")).collect();
    let rows: Vec<Value> = (10..22)
        .map(|number| sale(number, number, &format!("name{number}"), 1))
        .collect();
    std::fs::write(directory.path().join("dump.json"), json!(rows).to_string()).unwrap();
    sandbox(&stack, Method::PUT, "usernames", json!(names)).await;
    let slow = json!({"operation": "grant", "kind": "slow", "delay_ms": 150, "times": 12});
    sandbox(&stack, Method::POST, "faults", slow).await;
    let mut killed = tokio::process::Command::new(env!("CARGO_BIN_EXE_berth"))
        .args([
            "access",
            "batch",
            "--transactions",
            "dump.json",
            "--csv",
            "access.csv",
            "--script",
            "S1",
        ])
        .args(["--batch-size", "3"])
        .current_dir(directory.path())
        .env_clear()
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while access(&stack).await.len() < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    killed.kill().await.unwrap();
    sandbox(
        &stack,
        Method::POST,
        "faults",
        json!({"operation": "*", "times": 0}),
    )
    .await;
    let again = batch(directory.path(), "").await;
    assert_eq!(
        (again.code, &again.json()["complete"]),
        (0, &json!(true)),
        "{}",
        again.err
    );
    let end = month_after(days_from_now(-1));
    let expected: Vec<(String, String)> = names.into_iter().map(|name| (name, end.clone())).collect();
    assert_eq!(access(&stack).await, expected);
    let csv = std::fs::read_to_string(directory.path().join("access.csv")).unwrap();
    assert_eq!(
        csv.lines().filter(|line| line.contains(&end)).count(),
        12,
        "{csv}"
    );
    stack.shutdown().await;
}
