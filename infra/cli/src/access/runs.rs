//! Runs of the access sync: one call after the other until nothing remains, and one report for all of them.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{RevokeReason, confirm, master_data, plans, segment, show};
use crate::Global;
use crate::command::Refusal;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::target::{CallError, Target};
use crate::words::{count, is, number_of, text};

/// How often, and how long apart, a call is made again while another run is under way.
const TRIES: u32 = 45;
const PAUSE: Duration = Duration::from_secs(1);

/// After how many runs in a row that did nothing it is not gone on.
const IDLE_RUNS: u32 = 2;

/// The same for runs that only read the shop, which took them this long: a large one takes several of them.
const READING_RUNS: u32 = 30;
const LONG: Duration = Duration::from_secs(10);

/// The figures that say that something was done.
const DONE: [&str; 12] = [
    "considered",
    "settled",
    "granted",
    "extended",
    "shortened",
    "revoked",
    "kept",
    "not_applied",
    "manual_review",
    "retry",
    "dead_letter",
    "held",
];

/// `sync`.
pub(super) async fn sync(global: &Global, target: &Target, dry_run: bool) -> Result<Exit, Refusal> {
    let report = whole_sync(target, dry_run).await?;
    show(global, &report, describe);
    Ok(exit(&report))
}

/// A sync, in as many runs as it takes; a dry one is one run.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn whole_sync(target: &Target, dry_run: bool) -> Result<Value, Refusal> {
    let path = if dry_run {
        "/api/access/sync?dry_run=true"
    } else {
        "/api/access/sync"
    };
    let report = to_the_end(target, "Syncing", path, &json!({})).await?;
    if !dry_run {
        master_data::keep(target).await;
    }
    Ok(report)
}

/// `resync`.
pub(super) async fn resync(global: &Global, target: &Target, product: &str) -> Result<Exit, Refusal> {
    let body = json!({"product_id": product});
    let report = to_the_end(target, "Reading again", "/api/access/resync", &body).await?;
    show(global, &report, describe);
    Ok(exit(&report))
}

/// `repair`.
pub(super) async fn repair(global: &Global, target: &Target) -> Result<Exit, Refusal> {
    let report = to_the_end(target, "Repairing", "/api/access/repair", &json!({})).await?;
    show(global, &report, describe);
    Ok(exit(&report))
}

/// `revoke`.
pub(super) async fn revoke(
    global: &Global,
    target: &Target,
    transaction: &str,
    reason: RevokeReason,
) -> Result<Exit, Refusal> {
    let what = format!("take transaction {transaction} back, with the access that it gave");
    confirm(global, target, &what)?;
    let body = json!({"transaction_id": transaction, "reason": reason.word()});
    let report = patiently(target, Method::POST, "/api/access/revocations", Some(&body)).await?;
    show(global, &report, describe);
    Ok(exit(&report))
}

/// Applies a plan, once: what it leaves is no longer exactly that plan.
///
/// # Errors
/// [`CallError`].
pub(super) async fn apply_plan(target: &Target, plan: &str) -> Result<Value, CallError> {
    let path = format!("/api/access/plans/{}/approve", segment(plan));
    patiently(target, Method::POST, &path, Some(&json!({}))).await
}

/// Calls a route, again while another run is under way.
///
/// # Errors
/// [`CallError`].
pub(super) async fn patiently(
    target: &Target,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, CallError> {
    let mut tries = 1;
    loop {
        match target.call(method.clone(), path, body).await {
            Err(CallError::Answered { answer, .. })
                if text(&answer, "code") == "operation_in_progress" && tries < TRIES =>
            {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

/// Calls a route that runs the sync until nothing remains, or until calling it again moves nothing. One report for all
/// runs, in the form of the route's answer.
async fn to_the_end(
    target: &Target,
    doing: &'static str,
    path: &str,
    body: &Value,
) -> Result<Value, Refusal> {
    let progress = Progress::of(doing, 0);
    let mut total: Option<Value> = None;
    let (mut last_left, mut idle) = (u64::MAX, 0);
    loop {
        let began = Instant::now();
        let report = match (patiently(target, Method::POST, path, Some(body)).await, &total) {
            (Ok(report), _) => report,
            (Err(error), None) => return Err(error.into()),
            (Err(error), Some(total)) => {
                return Err(Refusal::Failed(format!(
                    "{error}. Before that:\n{}",
                    describe(total)
                )));
            }
        };
        let left = count(&report, "remaining");
        let moved = DONE.iter().any(|figure| count(&report, figure) > 0) || left < last_left;
        let read = count(&report, "fetched") > 0 && began.elapsed() >= LONG;
        let over = is(&report, "complete") || is(&report, "dry_run") || text(&report, "status") == "degraded";
        let sum = match total.take() {
            None => report,
            Some(mut sum) => {
                add(&mut sum, &report);
                sum
            }
        };
        let done = count(&sum, "settled");
        progress.set_of(done, done.saturating_add(left));
        idle = if moved { 0 } else { idle + 1 };
        if over || idle >= if read { READING_RUNS } else { IDLE_RUNS } {
            return Ok(sum);
        }
        (total, last_left) = (Some(sum), left);
    }
}

/// Adds another run to a report: figures are summed, what says how things stand is taken from the last.
fn add(sum: &mut Value, report: &Value) {
    let (Some(sum), Some(report)) = (sum.as_object_mut(), report.as_object()) else {
        return;
    };
    for (member, value) in report {
        let before = sum.get(member);
        let joined = match (member.as_str(), before) {
            // When the first of them began.
            ("now", Some(before)) => before.clone(),
            ("active_users" | "rows_per_second" | "remaining" | "open", _) | (_, None) => value.clone(),
            // The same rows are malformed each time.
            ("quarantined", Some(before)) => json!(before.as_u64().max(value.as_u64())),
            ("status", Some(before)) => worse(before, value).clone(),
            (_, Some(before)) => match (before, value) {
                (Value::Number(_), Value::Number(_)) => {
                    let figure = |value: &Value| value.as_u64().unwrap_or(0);
                    json!(figure(before).saturating_add(figure(value)))
                }
                (Value::Object(_), Value::Object(_)) => {
                    let mut before = before.clone();
                    add(&mut before, value);
                    before
                }
                (Value::Array(before), Value::Array(more)) => {
                    let mut all = before.clone();
                    all.extend(more.iter().filter(|item| !before.contains(item)).cloned());
                    Value::Array(all)
                }
                _ => value.clone(),
            },
        };
        sum.insert(member.clone(), joined);
    }
}

/// The worse of two runs' statuses.
fn worse<'a>(one: &'a Value, other: &'a Value) -> &'a Value {
    let rank = |status: &Value| match status.as_str() {
        Some("ok") => 0,
        Some("degraded") => 1,
        _ => 2,
    };
    if rank(other) > rank(one) { other } else { one }
}

/// How a command ends by what its runs report.
pub(super) fn exit(report: &Value) -> Exit {
    let waits = |of: &Value| {
        ["manual_review", "held", "dead_letter"]
            .iter()
            .any(|figure| count(of, figure) > 0)
    };
    let open = report.get("open").is_some_and(waits);
    let needs_person = open
        || waits(report)
        || count(report, "quarantined") > 0
        || text(report, "status") != "ok"
        || !is(report, "complete");
    if needs_person {
        Exit::NeedsPerson
    } else {
        Exit::Success
    }
}

/// A report in words.
pub(super) fn describe(report: &Value) -> String {
    let mut lines = vec![read(report)];
    let done = figures(
        report,
        &[
            ("granted", "granted"),
            ("extended", "prolonged"),
            ("shortened", "shortened"),
            ("revoked", "removed"),
            ("kept", "kept, as something else covers them"),
            ("not_applied", "not applied, as access is for ever"),
        ],
    );
    let dry = is(report, "dry_run");
    lines.push(match (done.is_empty(), dry) {
        (true, _) => "Nothing had to be done at the access API.".to_owned(),
        (false, true) => format!("To be done: {}.", done.join(", ")),
        (false, false) => format!("Access: {}.", done.join(", ")),
    });
    let ignored: Vec<String> = (report.get("ignored").and_then(Value::as_object))
        .into_iter()
        .flatten()
        .map(|(reason, count)| format!("{count} {}", reason.replace('_', " ")))
        .collect();
    if !ignored.is_empty() {
        lines.push(format!("Ignored: {}.", ignored.join(", ")));
    }
    if count(report, "quarantined") > 0 {
        let malformed = number_of(count(report, "quarantined"), "row was", "rows were");
        lines.push(format!("{malformed} malformed and put aside."));
    }
    // A dry run leaves nothing open, so that what it found is told by its own figures.
    lines.extend(if dry {
        for_person(report).into_iter().collect()
    } else {
        report.get("open").map(open).unwrap_or_default()
    });
    let calls = report.get("calls").map(|calls| {
        let names = ["transactions", "validate", "grant", "update", "remove", "list"];
        figures(calls, &names.map(|name| (name, name)))
    });
    if let Some(calls) = calls.filter(|calls| !calls.is_empty()) {
        lines.push(format!("Calls: {}.", calls.join(", ")));
    }
    if count(report, "mails") > 0 {
        lines.push(format!(
            "{} sent.",
            number_of(count(report, "mails"), "mail", "mails")
        ));
    }
    lines.push(format!(
        "{} with live access.",
        number_of(count(report, "active_users"), "name", "names")
    ));
    for warning in report
        .get("warnings")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        lines.push(format!("Warning: {}", warning.as_str().unwrap_or_default()));
    }
    match text(report, "status").as_str() {
        "degraded" => lines.push(
            "The access API does not let Berth in: correct tradingview.api_key, then run it again."
                .to_owned(),
        ),
        "quarantined" => {
            lines.push("The shop's answer was not believed, so nothing was taken back.".to_owned())
        }
        _ => {}
    }
    if !is(report, "complete") {
        let left = number_of(count(report, "remaining"), "item remains", "items remain");
        lines.push(if dry {
            format!("Not all could be looked at in one run: {left}.")
        } else {
            format!("Not finished, and running it again moved nothing: {left}. Scheduled runs go on.")
        });
    }
    if let Some(plan) = report.get("plan").and_then(Value::as_array)
        && !plan.is_empty()
    {
        lines.push(plans::table(plan));
    }
    lines.join("\n")
}

fn read(report: &Value) -> String {
    format!(
        "{}{} read, {} new or changed.",
        if is(report, "dry_run") {
            "A dry run, nothing was changed. "
        } else {
            ""
        },
        number_of(count(report, "fetched"), "transaction", "transactions"),
        count(report, "considered"),
    )
}

/// What a person has to look at.
fn for_person(of: &Value) -> Option<String> {
    let reviews = figures(
        of,
        &[
            ("manual_review", "to be looked at"),
            ("held", "held for approval"),
        ],
    );
    (!reviews.is_empty()).then(|| format!("For a person: {} (`berth access reviews`).", reviews.join(", ")))
}

/// What waits in all, with what to type about it.
fn open(open: &Value) -> Vec<String> {
    let mut lines: Vec<String> = for_person(open).into_iter().collect();
    if count(open, "dead_letter") > 0 {
        let given_up = number_of(count(open, "dead_letter"), "transaction", "transactions");
        lines.push(format!("{given_up} given up (`berth access dead-letters`)."));
    }
    if count(open, "retry") > 0 {
        let again = number_of(count(open, "retry"), "transaction is", "transactions are");
        lines.push(format!("{again} tried again later."));
    }
    lines
}

/// The figures that are not 0, each with its word.
fn figures(of: &Value, names: &[(&str, &str)]) -> Vec<String> {
    names
        .iter()
        .filter(|(figure, _)| count(of, figure) > 0)
        .map(|(figure, word)| format!("{} {word}", count(of, figure)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Value {
        json!({
            "run_id": "r1", "dry_run": false, "complete": false, "now": "2026-01-01T00:00:00Z", "fetched": 10,
            "considered": 5, "settled": 3, "granted": 2, "extended": 1, "ignored": {"pending": 1}, "quarantined": 1,
            "status": "ok", "calls": {"grant": 2}, "mails": 0, "active_users": 3, "remaining": 4, "warnings": ["w"],
            "open": {"retry": 0, "held": 0, "manual_review": 1, "dead_letter": 0},
        })
    }

    #[test]
    fn the_figures_of_all_runs_are_summed_and_the_rest_is_as_it_stands() {
        let mut sum = report();
        let mut second = report();
        second["complete"] = json!(true);
        second["remaining"] = json!(0);
        second["now"] = json!("2026-01-01T00:01:00Z");
        second["status"] = json!("degraded");
        second["ignored"] = json!({"pending": 1, "failed": 2});
        add(&mut sum, &second);
        assert_eq!((&sum["granted"], &sum["calls"]["grant"]), (&json!(4), &json!(4)));
        assert_eq!(sum["ignored"], json!({"pending": 2, "failed": 2}));
        assert_eq!(
            (&sum["quarantined"], &sum["warnings"]),
            (&json!(1), &json!(["w"]))
        );
        assert_eq!((&sum["complete"], &sum["remaining"]), (&json!(true), &json!(0)));
        assert_eq!(
            (&sum["now"], &sum["status"]),
            (&report()["now"], &json!("degraded"))
        );
        assert_eq!(sum["open"], report()["open"]);
    }

    #[test]
    fn the_exit_code_says_whether_a_person_is_needed() {
        let mut good = report();
        for (member, value) in [
            ("complete", json!(true)),
            ("quarantined", json!(0)),
            ("open", json!({})),
        ] {
            good[member] = value;
        }
        assert_eq!(exit(&good), Exit::Success);
        for (member, value) in [
            ("complete", json!(false)),
            ("status", json!("degraded")),
            ("quarantined", json!(1)),
            ("open", json!({"held": 1})),
        ] {
            let mut other = good.clone();
            other[member] = value;
            assert_eq!(exit(&other), Exit::NeedsPerson, "{member}");
        }
    }

    #[test]
    fn a_report_is_told_without_its_zeros() {
        let words = describe(&report());
        assert!(
            words.starts_with("10 transactions read, 5 new or changed.\nAccess: 2 granted, 1 prolonged.\n")
        );
        assert!(
            words.contains("Ignored: 1 pending.") && words.contains("1 row was malformed"),
            "{words}"
        );
        assert!(
            words.contains("For a person: 1 to be looked at") && !words.contains("mail"),
            "{words}"
        );
        assert!(words.contains("4 items remain"), "{words}");
    }
}
