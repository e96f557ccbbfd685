//! `berth access` on the local stack: what the commands do by the routes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where something is not as it should be"
)]

mod support;

use std::time::Duration;

use berth_local::{Data, Options, Stack};
use reqwest::Method;
use serde_json::{Value, json};

use support::{OPERATOR, berth, call, sale, sandbox, send, start};

/// The names that have access to S1.
async fn access(stack: &Stack) -> Vec<String> {
    let users = sandbox(stack, Method::GET, "access/S1", Value::Null).await;
    let users = users.as_array().unwrap().iter();
    let mut names: Vec<String> = users
        .map(|user| user["username"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// A stack with a shop whose customers bought as `rows` say, and these names at `TradingView`.
async fn shop(directory: &std::path::Path, rows: Value, names: Value) -> Stack {
    let stack = start(directory, 2).await;
    sandbox(&stack, Method::PUT, "transactions", rows).await;
    sandbox(&stack, Method::PUT, "usernames", names).await;
    stack
}

#[tokio::test]
async fn a_sync_gives_what_was_paid_for_once_and_a_dry_run_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let rows = json!([sale(1, 11, "ada", 1), sale(2, 12, "Grace", 1)]);
    let stack = shop(directory.path(), rows, json!(["Ada", "Grace"])).await;
    let dry = berth(directory.path(), "access sync --dry-run --json").await;
    assert_eq!(
        (dry.code, dry.json()["plan"].as_array().unwrap().len()),
        (0, 2),
        "{} {}",
        dry.out,
        dry.err
    );
    assert_eq!(access(&stack).await, Vec::<String>::new());
    let words = berth(directory.path(), "access sync --dry-run").await;
    assert!(
        words.out.contains("A dry run") && words.out.contains("grant"),
        "{}",
        words.out
    );

    let first = berth(directory.path(), "access sync --json").await;
    assert_eq!(
        (first.code, &first.json()["granted"]),
        (0, &json!(2)),
        "{} {}",
        first.out,
        first.err
    );
    assert_eq!(access(&stack).await, ["Ada", "Grace"]);
    let second = berth(directory.path(), "access sync").await;
    assert!(
        second.code == 0 && second.out.contains("Nothing had to be done"),
        "{}",
        second.out
    );
    stack.shutdown().await;
}

#[tokio::test]
async fn a_sync_goes_on_until_nothing_remains() {
    let directory = tempfile::tempdir().unwrap();
    let text = json!({
        "wordpress": {"api_key": "sandbox-wordpress-key"},
        "tradingview": {"grants_per_second": 0, "validations_per_second": 0, "retry_backoff_seconds": [0]},
        "products": {"100": {"script_id": "S1", "duration": "1M"}}, "caps": {"max_grants_per_run": 2},
    });
    let file = directory.path().join("shop.json");
    std::fs::write(&file, text.to_string()).unwrap();
    let options = Options {
        data: Data::Directory(directory.path().join(".berth")),
        access_config: Some(file),
        ..Options::default()
    };
    let stack = Stack::start(options).await.unwrap();
    let names: Vec<String> = (1..=7).map(|number| format!("name{number}")).collect();
    let rows: Vec<Value> = (1..=7)
        .map(|number| sale(number, number, &format!("name{number}"), 1))
        .collect();
    sandbox(&stack, Method::PUT, "transactions", json!(rows)).await;
    sandbox(&stack, Method::PUT, "usernames", json!(names)).await;
    let synced = berth(directory.path(), "access sync --json").await;
    let report = synced.json();
    assert_eq!(
        (synced.code, &report["granted"], &report["complete"]),
        (0, &json!(7), &json!(true)),
        "{}",
        synced.err
    );
    assert_eq!(access(&stack).await.len(), 7);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_wrong_name_waits_for_a_person_who_corrects_it() {
    let directory = tempfile::tempdir().unwrap();
    let stack = shop(
        directory.path(),
        json!([sale(1, 11, "barbara", 1)]),
        json!(["BarbaraL"]),
    )
    .await;
    let synced = berth(directory.path(), "access sync --json").await;
    assert_eq!(
        (synced.code, &synced.json()["manual_review"]),
        (4, &json!(1)),
        "{}",
        synced.err
    );
    let listed = berth(directory.path(), "access reviews").await;
    assert!(
        listed.code == 0 && listed.out.contains("barbara"),
        "{} {}",
        listed.out,
        listed.err
    );
    let reviews = berth(directory.path(), "access reviews list --json").await.json();
    let by_route = call(&stack, Method::GET, "/api/access/reviews", OPERATOR, Value::Null).await;
    assert_eq!(reviews, by_route);
    let id = reviews["data"][0]["id"].as_str().unwrap();
    let corrected = berth(directory.path(), &format!("access reviews correct {id} BarbaraL")).await;
    assert_eq!(corrected.code, 0, "{}", corrected.err);
    let synced = berth(directory.path(), "access sync").await;
    assert_eq!(synced.code, 0, "{} {}", synced.out, synced.err);
    assert_eq!(access(&stack).await, ["BarbaraL"]);
    let none = berth(directory.path(), "access reviews").await;
    assert!(none.out.starts_with("Nothing waits"), "{}", none.out);
    let unknown = berth(directory.path(), "access reviews dismiss nothing").await;
    assert!(
        unknown.code == 1 && unknown.err.contains("404"),
        "{}",
        unknown.err
    );
    stack.shutdown().await;
}

#[tokio::test]
async fn a_transaction_is_taken_back_after_a_yes_and_a_plan_is_done_exactly_once() {
    let directory = tempfile::tempdir().unwrap();
    let rows = json!([sale(1, 11, "Ada", 1), sale(2, 12, "Grace", 1)]);
    let stack = shop(directory.path(), rows, json!(["Ada", "Grace"])).await;
    let planned = berth(directory.path(), "access plan --json").await;
    assert_eq!(planned.code, 0, "{}", planned.err);
    let plan = planned.json();
    assert_eq!(plan["plan"].as_array().unwrap().len(), 2);
    let approve = format!("access approve {}", plan["id"].as_str().unwrap());
    let asked = berth(directory.path(), &approve).await;
    assert!(asked.code == 2 && asked.err.contains("--yes"), "{}", asked.err);
    let approved = berth(directory.path(), &format!("{approve} --yes --json")).await;
    assert_eq!(
        (approved.code, &approved.json()["granted"]),
        (0, &json!(2)),
        "{}",
        approved.err
    );
    let stale = berth(directory.path(), &format!("{approve} --yes")).await;
    assert!(stale.code == 1 && stale.err.contains("409"), "{}", stale.err);

    let revoke = "access revoke --txn 1 --reason chargeback";
    assert_eq!(berth(directory.path(), revoke).await.code, 2);
    assert_eq!(access(&stack).await, ["Ada", "Grace"]);
    let revoked = berth(directory.path(), &format!("{revoke} --yes --json")).await;
    assert_eq!(
        (revoked.code, &revoked.json()["revoked"]),
        (0, &json!(1)),
        "{} {}",
        revoked.out,
        revoked.err
    );
    assert_eq!(access(&stack).await, ["Grace"]);
    let unknown = berth(directory.path(), "access revoke --txn 99 --reason refund --yes").await;
    assert!(
        unknown.code == 1 && unknown.err.contains("404"),
        "{}",
        unknown.err
    );
    stack.shutdown().await;
}

#[tokio::test]
async fn what_somebody_took_at_the_access_api_is_given_back_and_a_product_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let stack = shop(directory.path(), json!([sale(1, 11, "Ada", 1)]), json!(["Ada"])).await;
    assert_eq!(berth(directory.path(), "access sync").await.code, 0);
    sandbox(&stack, Method::PUT, "access/S1", json!([])).await;
    let repaired = berth(directory.path(), "access repair --json").await;
    assert_eq!(
        (repaired.code, &repaired.json()["granted"]),
        (0, &json!(1)),
        "{} {}",
        repaired.out,
        repaired.err
    );
    assert_eq!(access(&stack).await, ["Ada"]);
    let again = berth(directory.path(), "access resync --product 100 --json").await;
    assert_eq!(
        (again.code, &again.json()["considered"]),
        (0, &json!(1)),
        "{} {}",
        again.out,
        again.err
    );
    stack.shutdown().await;
}

#[tokio::test]
async fn what_is_known_of_a_script_goes_into_a_file_and_is_taken_over_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let stack = shop(directory.path(), json!([sale(1, 11, "Ada", 1)]), json!(["Ada"])).await;
    assert_eq!(berth(directory.path(), "access sync").await.code, 0);
    let exported = berth(directory.path(), "access export S1").await;
    assert_eq!(exported.code, 0, "{}", exported.err);
    let file = directory.path().join("masterData").join("S1.json");
    let data: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(data["users"]["Ada"]["wp_user_id"], 11, "{data}");
    let printed = berth(directory.path(), "access export S1 - --json").await.json();
    assert_eq!(printed["users"], data["users"]);
    let taken = berth(directory.path(), "access import masterData/S1.json --json").await;
    assert_eq!(
        (taken.code, taken.json()["skipped"].as_array().unwrap().len()),
        (4, 1),
        "{}",
        taken.err
    );
    stack.shutdown().await;

    let elsewhere = tempfile::tempdir().unwrap();
    let stack = start(elsewhere.path(), 2).await;
    std::fs::copy(&file, elsewhere.path().join("S1.json")).unwrap();
    let taken = berth(elsewhere.path(), "access import S1.json --json").await;
    assert_eq!(
        (taken.code, &taken.json()["users"]),
        (0, &json!(1)),
        "{} {}",
        taken.out,
        taken.err
    );
    let known = berth(elsewhere.path(), "access export S1 -").await.json();
    assert_eq!(known["users"]["Ada"]["expiry"], data["users"]["Ada"]["expiry"]);
    stack.shutdown().await;
}

#[tokio::test]
async fn a_sync_keeps_master_data_in_files_where_the_configuration_names_them() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.json");
    let configure = |paths: Value| {
        let document = json!({
            "wordpress": {"base_url": "", "api_key": "sandbox-wordpress-key"}, "tradingview": {"base_url": ""},
            "products": {"100": {"script_id": "S1", "duration_days": 30}, "200": {"script_id": "S/2", "duration_days": 30}},
            "paths": paths
        });
        std::fs::write(&file, document.to_string()).unwrap();
    };
    configure(json!({}));
    let options = Options {
        data: Data::Directory(directory.path().join(".berth")),
        access_config: Some(file.clone()),
        ..Options::default()
    };
    let stack = Stack::start(options).await.unwrap();
    sandbox(
        &stack,
        Method::PUT,
        "transactions",
        json!([sale(1, 11, "Ada", 1)]),
    )
    .await;
    sandbox(&stack, Method::PUT, "usernames", json!(["Ada"])).await;
    let kept = directory.path().join("known");
    let files = || {
        let mut names: Vec<String> = std::fs::read_dir(&kept)
            .map(|files| {
                files
                    .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
                    .collect()
            })
            .unwrap_or_default();
        names.sort();
        names
    };
    let said = berth(directory.path(), "access sync").await;
    assert_eq!(said.code, 0, "{} {}", said.out, said.err);
    assert!(files().is_empty() && !directory.path().join("masterData").exists());
    configure(json!({"master_data": "known"}));
    berth(directory.path(), "access sync --dry-run").await;
    assert!(files().is_empty());
    berth(directory.path(), "access sync").await;
    assert_eq!(files(), ["S%2F2.json", "S1.json"]);
    let data: Value = serde_json::from_slice(&std::fs::read(kept.join("S1.json")).unwrap()).unwrap();
    assert_eq!(data["users"]["Ada"]["wp_user_id"], 11, "{data}");
    assert_eq!(data["processed_transactions"], json!(["1"]), "{data}");
    stack.shutdown().await;
}

#[tokio::test]
async fn more_users_than_a_body_holds_are_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let stack = start(directory.path(), 2).await;
    let purchase = json!({"transaction_id": "1", "created_at": "2025-12-01T00:00:00Z", "reversed": false});
    let history = json!(vec![purchase; 6]);
    let user = |number: u32| {
        json!({"email": format!("user{number}@example.com"), "wp_user_id": number, "lifetime": false,
            "wp_username": format!("member{number}"), "expiry": "2027-01-31T00:00:00Z", "history": history})
    };
    let mut users: serde_json::Map<String, Value> = (0..1_000)
        .map(|number| (format!("user{number}"), user(number)))
        .collect();
    // Another spelling, far away in the file, which ends later.
    users.insert(
        "USER999".to_owned(),
        json!({"expiry": "2028-01-31T00:00:00Z", "lifetime": false}),
    );
    let data = json!({"script_id": "S1", "users": users, "last_processed_at": "2026-01-01T00:00:00Z"});
    let text = data.to_string();
    assert!(text.len() > 2 * 256 * 1024);
    std::fs::write(directory.path().join("S1.json"), text).unwrap();
    let taken = berth(directory.path(), "access import S1.json --json").await;
    assert_eq!(taken.code, 0, "{} {}", taken.out, taken.err);
    let known = berth(directory.path(), "access export S1 -").await.json();
    let users = known["users"].as_object().unwrap();
    assert_eq!(users.len(), 1_000);
    let last = users
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("user999"));
    assert_eq!(last.unwrap().1["expiry"], "2028-01-31T00:00:00Z");
    stack.shutdown().await;
}

#[tokio::test]
async fn a_transaction_that_was_given_up_is_tried_again_when_it_is_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let stack = shop(directory.path(), json!([sale(1, 11, "Ada", 1)]), json!(["Ada"])).await;
    let refuse = json!({"operation": "grant", "kind": "status", "status": 422, "times": 10});
    sandbox(&stack, Method::POST, "faults", refuse).await;
    let given_up = berth(directory.path(), "access sync --json").await;
    assert_eq!(
        (given_up.code, &given_up.json()["open"]["dead_letter"]),
        (4, &json!(1)),
        "{}",
        given_up.out
    );
    sandbox(
        &stack,
        Method::POST,
        "faults",
        json!({"operation": "*", "times": 0}),
    )
    .await;
    let listed = berth(directory.path(), "access dead-letters").await;
    assert!(listed.out.contains("Ada"), "{}", listed.out);
    let replayed = berth(directory.path(), "access replay 1").await;
    assert_eq!(replayed.code, 0, "{}", replayed.err);
    let synced = berth(directory.path(), "access sync").await;
    assert_eq!(synced.code, 0, "{} {}", synced.out, synced.err);
    assert_eq!(access(&stack).await, ["Ada"]);
    stack.shutdown().await;
}

#[cfg(unix)]
#[tokio::test]
async fn the_scheduler_syncs_at_once_and_after_each_interval_until_it_is_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let stack = shop(
        directory.path(),
        json!([sale(1, 11, "Ada", 1)]),
        json!(["Ada", "Grace"]),
    )
    .await;
    let mut scheduler = tokio::process::Command::new(env!("CARGO_BIN_EXE_berth"))
        .args(["access", "scheduler", "--json"])
        .current_dir(directory.path())
        .env_clear()
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let log = directory.path().join("logs").join("sync.log");
    let lines = |count: usize| {
        let log = log.clone();
        async move {
            for _ in 0..200 {
                let lines = std::fs::read_to_string(&log).unwrap_or_default();
                if lines.lines().count() >= count {
                    return lines;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            panic!("the log has not {count} lines");
        }
    };
    lines(1).await;
    assert_eq!(access(&stack).await, ["Ada"]);
    sandbox(
        &stack,
        Method::PUT,
        "transactions",
        json!([sale(1, 11, "Ada", 1), sale(2, 12, "Grace", 1)]),
    )
    .await;
    let clock = format!("{}/__local/clock", stack.urls().api);
    send(
        &clock,
        Method::PUT,
        OPERATOR,
        Some(json!({"advance_seconds": 901})),
    )
    .await;
    let logged = lines(2).await;
    let last: Value = serde_json::from_str(logged.lines().last().unwrap()).unwrap();
    assert_eq!(last["report"]["granted"], 1, "{logged}");
    assert_eq!(access(&stack).await, ["Ada", "Grace"]);

    let pid = scheduler.id().unwrap().to_string();
    let killed = tokio::process::Command::new("kill")
        .args(["-INT", &pid])
        .status()
        .await
        .unwrap();
    assert!(killed.success());
    let ended = scheduler.wait().await.unwrap();
    assert_eq!(ended.code(), Some(0));
    stack.shutdown().await;
}
