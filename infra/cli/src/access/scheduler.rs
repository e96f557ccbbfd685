//! `berth access scheduler`: a sync now and after each interval, until it is stopped.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{ConfigurationFile, configuration, print, runs};
use crate::Global;
use crate::command::Refusal;
use crate::exit::Exit;
use crate::local::stop_signal;
use crate::target::{CallError, Target};

/// How often the target's clock is looked at, which may be moved.
const LOOK: Duration = Duration::from_millis(500);

/// The name of the log.
const LOG: &str = "sync.log";

/// From how many bytes on a log is put aside, and how many of those are kept.
const LOG_BYTES: u64 = 5 * 1024 * 1024;
const OLD_LOGS: u32 = 5;

/// What the configuration says about the schedule.
struct Schedule {
    interval: Duration,
    dry_run: bool,
    log: PathBuf,
}

impl Schedule {
    async fn of(target: &Target) -> Result<Self, Refusal> {
        let (configuration, _) = configuration::of_target(target, &ConfigurationFile { file: None }).await?;
        Ok(Self {
            interval: configuration.interval,
            dry_run: configuration.scheduled_runs_are_dry,
            log: PathBuf::from(configuration.paths.logs).join(LOG),
        })
    }
}

/// Runs the scheduler until Ctrl-C, which is how it is meant to end.
pub(super) async fn run(global: &Global) -> Exit {
    let stop = stop_signal();
    let mut stop = std::pin::pin!(stop);
    let target = tokio::select! {
        target = Target::find(global) => target,
        () = &mut stop => return Exit::Success,
    };
    let target = match target {
        Ok(target) => target,
        Err(error) => return Exit::failed(&error.to_string()),
    };
    let exit = tokio::select! {
        exit = keep_running(global, &target) => exit,
        () = &mut stop => Exit::Success,
    };
    target.close().await;
    exit
}

/// One run after the other. Ends only where there is no schedule to begin with.
async fn keep_running(global: &Global, target: &Target) -> Exit {
    let mut schedule = match Schedule::of(target).await {
        Ok(schedule) => schedule,
        Err(refusal) => return crate::command::tell(global, &refusal),
    };
    eprintln!(
        "berth: a {} every {} minutes on {}; Ctrl-C ends it",
        if schedule.dry_run { "dry run" } else { "sync" },
        schedule.interval.as_secs() / 60,
        target.name()
    );
    loop {
        let began = now(target).await;
        // What goes wrong in one run is told, and the next one may go well.
        let line = match runs::whole_sync(target, schedule.dry_run).await {
            Ok(report) => {
                if global.json {
                    print(&report.to_string());
                } else {
                    print(&format!(
                        "{} UTC\n{}\n",
                        began.strftime("%Y-%m-%d %H:%M:%S"),
                        runs::describe(&report)
                    ));
                }
                json!({"timestamp": began, "level": "INFO", "message": "the access sync ran", "report": report})
            }
            Err(refusal) => {
                let reason = match refusal {
                    Refusal::Call(error) => error.to_string(),
                    Refusal::Failed(reason) | Refusal::Usage(reason) => reason,
                    Refusal::Declined | Refusal::Overtaken | Refusal::NobodyToAsk => {
                        "it was refused".to_owned()
                    }
                };
                eprintln!("berth: {began}: the sync failed: {reason}");
                json!({"timestamp": began, "level": "ERROR", "message": "the access sync failed", "reason": reason})
            }
        };
        if let Err(error) = note(&schedule.log, &line) {
            eprintln!("berth: {} cannot be written: {error}", schedule.log.display());
        }
        let next = began.checked_add(schedule.interval).unwrap_or(Timestamp::MAX);
        wait_until(target, next).await;
        // A configuration that was changed holds from the next run on; one that is wrong by now is not followed.
        match Schedule::of(target).await {
            Ok(changed) => schedule = changed,
            Err(Refusal::Failed(reason)) => eprintln!("berth: the schedule stays as it was: {reason}"),
            Err(_) => {}
        }
    }
}

/// Waits until the target's clock shows `next`.
async fn wait_until(target: &Target, next: Timestamp) {
    while now(target).await < next {
        tokio::time::sleep(LOOK).await;
    }
}

/// The target's time, or this machine's while the target does not answer.
async fn now(target: &Target) -> Timestamp {
    let told: Result<Timestamp, CallError> = target.now().await;
    told.unwrap_or_else(|_| Timestamp::now())
}

/// Adds a line to a log, after putting one aside that has grown large.
fn note(log: &Path, line: &Value) -> io::Result<()> {
    if let Some(directory) = log.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if std::fs::metadata(log).is_ok_and(|log| log.len() >= LOG_BYTES) {
        put_aside(log)?;
    }
    let mut file: File = OpenOptions::new().create(true).append(true).open(log)?;
    // One write, so that two schedulers do not mix their lines.
    file.write_all(format!("{line}\n").as_bytes())
}

/// Numbers the logs that were put aside anew, the newest being 1, and forgets the oldest.
fn put_aside(log: &Path) -> io::Result<()> {
    let numbered = |number: u32| {
        let mut name = log.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..OLD_LOGS).rev() {
        let old = numbered(number);
        if old.exists() {
            std::fs::rename(old, numbered(number + 1))?;
        }
    }
    std::fs::rename(log, numbered(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_grows_line_by_line_and_is_put_aside_when_it_is_large() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("logs").join(LOG);
        note(&log, &json!({"run": 1})).unwrap();
        note(&log, &json!({"run": 2})).unwrap();
        assert_eq!(
            std::fs::read_to_string(&log).unwrap(),
            "{\"run\":1}\n{\"run\":2}\n"
        );
        for number in 0..=OLD_LOGS + 1 {
            std::fs::write(&log, format!("{number}")).unwrap();
            put_aside(&log).unwrap();
        }
        note(&log, &json!({"run": 3})).unwrap();
        let kept: Vec<_> = std::fs::read_dir(log.parent().unwrap()).unwrap().collect();
        assert_eq!(kept.len() as u32, OLD_LOGS + 1);
        let newest = std::fs::read_to_string(log.with_file_name("sync.log.1")).unwrap();
        assert_eq!(newest, (OLD_LOGS + 1).to_string());
    }
}
