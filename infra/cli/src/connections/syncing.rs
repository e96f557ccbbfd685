//! Syncing tracking with SnapTrade, in as many runs as it takes.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Refusal, show};
use crate::Global;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::target::{CallError, Target};
use crate::words::{count, is, text};

/// More runs than any list needs; so many without an end mean that something else is wrong.
const MAX_RUNS: u32 = 200;

/// How often, and how long apart, a sync is asked for while another one runs.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_secs(2);

/// `sync`.
pub(super) async fn sync(global: &Global, target: &Target) -> Result<Exit, Refusal> {
    let report = to_the_end(target).await?;
    show(global, &report, describe);
    Ok(exit(&report))
}

/// How a command ends by what its sync reports.
pub(super) fn exit(report: &Value) -> Exit {
    if is(report, "complete") {
        Exit::Success
    } else {
        Exit::NeedsPerson
    }
}

/// Runs the sync until it is complete, or a run has nothing more to do and still is not. One report for all runs, in
/// the form of the route's answer.
///
/// # Errors
/// [`CallError`].
pub(super) async fn to_the_end(target: &Target) -> Result<Value, CallError> {
    let progress = Progress::without_end("Syncing");
    let mut total = json!({"added": 0, "removed": 0, "repaired": 0});
    for _ in 0..MAX_RUNS {
        let report = target.post("/api/snaptrade/sync", &json!({})).await?;
        let mut moved = 0;
        if let (Some(total), Some(report)) = (total.as_object_mut(), report.as_object()) {
            for (member, value) in report {
                let sum = match (member.as_str(), value.as_u64()) {
                    ("added" | "removed" | "repaired", Some(more)) => {
                        moved += more;
                        json!(more + total.get(member).and_then(Value::as_u64).unwrap_or(0))
                    }
                    _ => value.clone(),
                };
                total.insert(member.clone(), sum);
            }
        }
        progress.add(moved);
        if is(&report, "complete") || moved == 0 {
            break;
        }
    }
    Ok(total)
}

/// As [`to_the_end`], after any other sync that runs just now.
///
/// # Errors
/// [`CallError`].
pub(super) async fn after_others(target: &Target) -> Result<Value, CallError> {
    let mut tries = 1;
    loop {
        match to_the_end(target).await {
            Err(CallError::Answered {
                status: 409 | 503, ..
            }) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

/// A report in words.
pub(super) fn describe(report: &Value) -> String {
    format!(
        "{} added, {} removed, {} repaired; {} at SnapTrade, {} tracked{}.",
        count(report, "added"),
        count(report, "removed"),
        count(report, "repaired"),
        text(report, "upstream_count"),
        text(report, "tracked_count"),
        if is(report, "complete") {
            ""
        } else {
            "; not finished, run `berth connections sync` again in a minute"
        },
    )
}
