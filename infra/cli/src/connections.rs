//! `berth connections`: who is connected, and the limit.

use std::io::{IsTerminal, Write};

use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::Global;
use crate::exit::Exit;
use crate::target::{CallError, Target};

/// Most users on one page of the list.
const PAGE: usize = 500;

/// From how many columns on a terminal has room for the ids at SnapTrade.
const WIDE: u16 = 130;

/// The commands of the group.
#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionsCommand {
    /// Show how many places are taken, and whether the limit is reached (exit code 3)
    CheckLimit,
    /// List the users that are tracked, the oldest first
    #[command(visible_aliases = ["list-tracked", "list-users"])]
    List,
    /// Track a user that SnapTrade knows already
    ///
    /// This registers nobody: users are registered by the application (POST /api/snaptrade/register), which alone can
    /// keep their secrets. It is for a user whom tracking does not know, or knows with another age.
    AddUser(AddUser),
    /// Delete the oldest user, at SnapTrade and in tracking
    ///
    /// Asks first, naming the user and the target. Without a terminal it refuses (exit code 2) unless --yes is given.
    DeleteOldest,
    /// Make room if there is none: delete the oldest user when the limit is reached
    ///
    /// Asks first, naming the user and the target. Without a terminal it refuses (exit code 2) unless --yes is given.
    AutoManage,
    /// Keep a place free for a user for five minutes, making room where there is none
    ///
    /// Where somebody has to give way it asks first. Without a terminal it refuses (exit code 2) unless --yes is given.
    Ensure {
        /// The user
        user_id: String,
    },
    /// Bring tracking in line with SnapTrade's list (exit code 4 when that is not finished: run it again)
    Sync,
}

/// What `add-user` takes.
#[derive(Debug, Args)]
pub(crate) struct AddUser {
    /// The user, as SnapTrade knows it
    user_id: String,
    /// Since when, as Unix seconds or RFC 3339; now, if left out
    #[arg(long, value_name = "TIME", value_parser = time)]
    created_at: Option<Timestamp>,
    /// Never let this user give way
    #[arg(long)]
    protected: bool,
}

/// A time as Unix seconds or RFC 3339.
fn time(text: &str) -> Result<Timestamp, String> {
    let seconds = text
        .parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok());
    seconds
        .or_else(|| text.parse().ok())
        .ok_or_else(|| "write Unix seconds, or a time such as 2026-01-31T12:00:00Z".to_owned())
}

/// Why a command did not do what it should.
enum Refusal {
    /// The API did not do it.
    Call(CallError),
    /// The person said no.
    Declined,
    /// What the person agreed to is not what would happen any more.
    Overtaken,
    /// There was nobody to ask.
    NobodyToAsk,
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// Runs one of the commands.
pub(crate) async fn run(global: &Global, command: &ConnectionsCommand) -> Exit {
    let target = match Target::find(global).await {
        Ok(target) => target,
        Err(error) => return Exit::failed(&error.to_string()),
    };
    let done = perform(global, &target, command).await;
    target.close().await;
    match done {
        Ok(exit) => exit,
        Err(Refusal::Call(error)) => {
            if let (true, CallError::Answered { answer, .. }) = (global.json, &error) {
                print(&answer.to_string());
            }
            Exit::failed(&error.to_string())
        }
        Err(Refusal::Overtaken) => {
            Exit::failed("somebody else would give way by now, so nothing was changed: run it again")
        }
        Err(Refusal::Declined) => Exit::failed("nothing was changed"),
        Err(Refusal::NobodyToAsk) => {
            Exit::refused("this deletes, and there is no terminal to ask in: add --yes if it is meant")
        }
    }
}

async fn perform(global: &Global, target: &Target, command: &ConnectionsCommand) -> Result<Exit, Refusal> {
    match command {
        ConnectionsCommand::CheckLimit => {
            let status = status(target).await?;
            show(global, &status, describe_status);
            Ok(if is(&status, "at_limit") {
                Exit::AtLimit
            } else {
                Exit::Success
            })
        }
        ConnectionsCommand::List => {
            let users = all_users(target).await?;
            show(global, &users, |users| describe_users(users, terminal_width()));
            Ok(Exit::Success)
        }
        ConnectionsCommand::AddUser(user) => {
            let mut body = json!({"user_id": user.user_id, "protected": user.protected});
            if let (Some(created_at), Some(members)) = (user.created_at, body.as_object_mut()) {
                members.insert("created_at".to_owned(), json!(created_at));
            }
            let added = target.post("/api/snaptrade/users", &body).await?;
            show(global, &added, |user| {
                format!("{} is tracked.", text(user, "user_id"))
            });
            Ok(Exit::Success)
        }
        ConnectionsCommand::DeleteOldest => {
            let status = status(target).await?;
            delete_oldest(global, target, &status).await
        }
        ConnectionsCommand::AutoManage => {
            let status = status(target).await?;
            if is(&status, "at_limit") {
                return delete_oldest(global, target, &status).await;
            }
            show(global, &status, |status| {
                format!("There is room already.\n{}", describe_status(status))
            });
            Ok(Exit::Success)
        }
        ConnectionsCommand::Ensure { user_id } => {
            let status = status(target).await?;
            if is(&status, "at_limit") && !has_place(target, user_id).await? {
                confirm(
                    global,
                    target,
                    &format!("let {} give way to {user_id}", oldest(&status)),
                )?;
            }
            let body = json!({"user_id": user_id});
            let held = target
                .post("/api/snaptrade/handle-connection-limit", &body)
                .await?;
            show(global, &held, |held| {
                match held.get("held_until").and_then(Value::as_str) {
                    Some(until) => format!("A place is kept for {user_id} until {until}."),
                    None => format!("{user_id} has a place already."),
                }
            });
            Ok(Exit::Success)
        }
        ConnectionsCommand::Sync => {
            let report = target.post("/api/snaptrade/sync", &json!({})).await?;
            show(global, &report, describe_sync);
            let complete = is(&report, "complete");
            Ok(if complete {
                Exit::Success
            } else {
                Exit::NeedsPerson
            })
        }
    }
}

async fn delete_oldest(global: &Global, target: &Target, before: &Value) -> Result<Exit, Refusal> {
    if before.get("oldest").is_some_and(|oldest| !oldest.is_null()) {
        confirm(global, target, &format!("delete {}", oldest(before)))?;
        // A person may take a while to answer, and nobody else than who was named is to be deleted.
        if !global.yes && status(target).await?.get("oldest") != before.get("oldest") {
            return Err(Refusal::Overtaken);
        }
    }
    let deleted = target
        .post("/api/snaptrade/users/delete-oldest", &json!({}))
        .await?;
    show(global, &deleted, |deleted| {
        let upstream = match deleted.get("upstream").and_then(Value::as_str) {
            Some("queued") => "SnapTrade has taken the deletion on",
            Some("unknown_there") => "SnapTrade did not know this user any more",
            _ => "SnapTrade deleted this user, too",
        };
        format!("{} was deleted; {upstream}.", text(deleted, "user_id"))
    });
    Ok(Exit::Success)
}

/// Whether the user fills or holds a place, so that nobody has to give way.
async fn has_place(target: &Target, user_id: &str) -> Result<bool, CallError> {
    let users = all_users(target).await?;
    let rows = users.get("data").and_then(Value::as_array);
    Ok(rows.is_some_and(|rows| {
        rows.iter().any(|row| {
            row.get("user_id").and_then(Value::as_str) == Some(user_id)
                && matches!(
                    row.get("state").and_then(Value::as_str),
                    Some("active" | "reserved")
                )
        })
    }))
}

async fn status(target: &Target) -> Result<Value, CallError> {
    target.get("/api/snaptrade/status").await
}

/// The list with all its pages in one.
async fn all_users(target: &Target) -> Result<Value, CallError> {
    let mut users: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = target
            .get(&format!("/api/snaptrade/users?limit={PAGE}{cursor}"))
            .await?;
        users.extend(
            page.get("data")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
        );
        match page.get("next_cursor").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={}", utf8_percent_encode(next, NON_ALPHANUMERIC)),
            None => return Ok(json!({"data": users, "next_cursor": null})),
        }
    }
}

/// Asks whether the target is to do `what`.
fn confirm(global: &Global, target: &Target, what: &str) -> Result<(), Refusal> {
    if global.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Refusal::NobodyToAsk);
    }
    let question = format!("On {}: {what}?", target.name());
    let answer = dialoguer::Confirm::new()
        .with_prompt(question)
        .default(false)
        .interact();
    match answer {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refusal::Declined),
        Err(_) => Err(Refusal::NobodyToAsk),
    }
}

/// Prints an answer, as JSON or in words.
fn show(global: &Global, answer: &Value, words: impl FnOnce(&Value) -> String) {
    if global.json {
        print(&answer.to_string());
    } else {
        print(&words(answer));
    }
}

fn print(text: &str) {
    // A reader that has gone away, such as `head`, is no failure.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn describe_status(status: &Value) -> String {
    let mut lines = vec![format!(
        "{} of {} {} in use{}.",
        text(status, "current_count"),
        text(status, "max_connections"),
        text(status, "counts"),
        if is(status, "at_limit") {
            ": the limit is reached"
        } else {
            ""
        },
    )];
    if status.get("in_sync").and_then(Value::as_bool) == Some(false) {
        lines.push(format!(
            "Tracking and SnapTrade differ (missing here: {}; unknown there: {}): run `berth connections sync`.",
            list(status, "missing"),
            list(status, "unknown"),
        ));
    }
    lines.push(format!("Next to give way: {}.", oldest(status)));
    lines.join("\n")
}

/// The list as a table. Where a terminal has no room for all columns, the ids at SnapTrade are left out.
fn describe_users(users: &Value, width: Option<u16>) -> String {
    let rows = users
        .get("data")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if rows.is_empty() {
        return "Nobody is tracked.".to_owned();
    }
    let headings = [
        "user",
        "state",
        "since",
        "last active",
        "connections",
        "id at SnapTrade",
    ];
    let columns = if width.is_some_and(|width| width < WIDE) {
        headings.len().saturating_sub(1)
    } else {
        headings.len()
    };
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings.iter().take(columns));
    match width {
        Some(width) => table.set_width(width),
        // A program that reads the table gets each row in one line.
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    for row in &rows {
        let cells = [
            text(row, "user_id"),
            state(row),
            minute(row, "created_at"),
            minute(row, "last_active_at"),
            text(row, "connections"),
            text(row, "upstream_id"),
        ];
        table.add_row(cells.into_iter().take(columns));
    }
    let note = if columns < headings.len() {
        "\nTimes are in UTC. --json shows their ids at SnapTrade, too."
    } else {
        "\nTimes are in UTC."
    };
    format!("{table}{note}")
}

/// What state a user is in, and whether nothing may make them give way.
fn state(row: &Value) -> String {
    let protection = if is(row, "protected") { ", protected" } else { "" };
    format!("{}{protection}", text(row, "state"))
}

/// How many columns the terminal has; `None` where standard output is none.
fn terminal_width() -> Option<u16> {
    let terminal = std::io::stdout().is_terminal();
    terminal.then(|| Table::new().width()).flatten()
}

/// A time to the minute, as people read it.
fn minute(row: &Value, member: &str) -> String {
    let time = row
        .get(member)
        .and_then(Value::as_str)
        .and_then(|time| time.parse::<Timestamp>().ok());
    time.map_or_else(
        || text(row, member),
        |time| time.strftime("%Y-%m-%d %H:%M").to_string(),
    )
}

fn describe_sync(report: &Value) -> String {
    format!(
        "{} added, {} removed, {} repaired; {} at SnapTrade, {} tracked{}.",
        text(report, "added"),
        text(report, "removed"),
        text(report, "repaired"),
        text(report, "upstream_count"),
        text(report, "tracked_count"),
        if is(report, "complete") {
            ""
        } else {
            "; not finished, run it again"
        },
    )
}

/// The user that would give way, in words.
fn oldest(status: &Value) -> String {
    match status.get("oldest").filter(|oldest| !oldest.is_null()) {
        Some(oldest) => format!(
            "{} (since {})",
            text(oldest, "user_id"),
            text(oldest, "created_at")
        ),
        None => "nobody".to_owned(),
    }
}

/// A member in words; a dash where there is none.
fn text(value: &Value, member: &str) -> String {
    match value.get(member) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn list(value: &Value, member: &str) -> String {
    let items = value
        .get(member)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if items.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<_> = items
        .iter()
        .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
        .collect();
    names.join(", ")
}

fn is(value: &Value, member: &str) -> bool {
    value.get(member).and_then(Value::as_bool).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_unix_seconds_or_rfc_3339() {
        assert_eq!(time("1700000000").unwrap(), time("2023-11-14T22:13:20Z").unwrap());
        assert!(time("yesterday").is_err());
    }

    #[test]
    fn the_status_is_told_in_words() {
        let status = json!({
            "current_count": 5, "max_connections": 5, "counts": "users", "at_limit": true, "in_sync": false,
            "missing": ["ada"], "unknown": [], "oldest": {"user_id": "grace", "created_at": "2026-01-01T00:00:00Z"},
        });
        assert_eq!(
            describe_status(&status),
            "5 of 5 users in use: the limit is reached.\n\
             Tracking and SnapTrade differ (missing here: ada; unknown there: none): run `berth connections sync`.\n\
             Next to give way: grace (since 2026-01-01T00:00:00Z)."
        );
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(describe_users(&json!({"data": []}), None), "Nobody is tracked.");
    }

    #[test]
    fn the_list_fits_a_narrow_terminal_and_is_whole_in_a_pipe() {
        let user = json!({
            "user_id": "ada", "upstream_id": "ada~0123456789abcdefghijklmnop", "state": "active", "protected": true,
            "created_at": "2026-01-02T03:04:05.678Z", "last_active_at": null, "connections": 2,
        });
        let users = json!({"data": [user]});
        let narrow = describe_users(&users, Some(80));
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert!(
            narrow.contains("ada") && narrow.contains("2026-01-02 03:04"),
            "{narrow}"
        );
        let whole = describe_users(&users, None);
        assert!(whole.lines().any(
            |line| line.contains("ada~0123456789abcdefghijklmnop") && line.contains("active, protected")
        ));
    }
}
