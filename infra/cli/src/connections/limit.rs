//! How the limit stands, and making room.

use serde_json::{Value, json};

use super::users::{pages, path_of};
use super::{Refusal, confirm, print, show};
use crate::Global;
use crate::exit::Exit;
use crate::target::{CallError, Target};
use crate::words::{is, list, minute, text};

/// `check-limit`.
pub(super) async fn check(global: &Global, target: &Target) -> Result<Exit, Refusal> {
    let status = status(target).await?;
    show(global, &status, describe);
    Ok(if is(&status, "at_limit") {
        Exit::AtLimit
    } else {
        Exit::Success
    })
}

/// `auto-manage`.
pub(super) async fn auto_manage(global: &Global, target: &Target) -> Result<Exit, Refusal> {
    let before = status(target).await?;
    if !is(&before, "at_limit") {
        show(global, &before, |status| {
            format!("There is room already.\n{}", describe(status))
        });
        return Ok(Exit::Success);
    }
    let Some(deleted) = make_room(global, target, &before).await? else {
        return Ok(nobody_may_go(global, &before));
    };
    show(global, &deleted, describe_deletion);
    Ok(Exit::Success)
}

/// Who gave way, as `handle-connection-limit` tells it.
fn evicted_by(deleted: &Value, victim: Option<&Value>) -> Value {
    if deleted.is_null() {
        return Value::Null;
    }
    let mut evicted = json!({
        "user_id": deleted.get("user_id"), "reason": "oldest",
        "created_at": victim.and_then(|victim| victim.get("created_at")),
    });
    if let (Some(connection), Some(evicted)) = (deleted.get("connection_id"), evicted.as_object_mut()) {
        evicted.insert("connection_id".to_owned(), connection.clone());
    }
    evicted
}

/// Lets somebody give way, after asking, and tells who did; `None` where nobody may. Where users are counted the oldest
/// goes; where connections are, one of those does that the policy names.
async fn make_room(global: &Global, target: &Target, status: &Value) -> Result<Option<Value>, Refusal> {
    if status.get("counts").and_then(Value::as_str) != Some("connections") {
        return match who_may_go(target).await? {
            Some(victim) => Ok(Some(delete(global, target, &victim).await?)),
            None => Ok(None),
        };
    }
    if target.deployed().is_some() {
        let instead =
            "where connections are counted, room is made for a user: `berth connections ensure USER`";
        return Err(CallError::OnlyLocal(instead).into());
    }
    let policy = policy(target).await.unwrap_or_default();
    confirm(
        global,
        target,
        &format!("delete the connection that the policy {policy} chooses"),
    )?;
    match target.post("/__local/auto-manage", &json!({})).await {
        // Room may have come without anybody's going, meanwhile.
        Ok(made) => Ok(made.get("deleted").cloned()),
        Err(CallError::Answered { answer, .. }) if text(&answer, "code") == "connection_limit_reached" => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// `ensure` without a user: there is room for whoever comes first.
pub(super) async fn ensure(global: &Global, target: &Target) -> Result<Exit, Refusal> {
    let before = status(target).await?;
    let (mut evicted, mut gave_way) = (Value::Null, Value::Null);
    if is(&before, "at_limit") {
        let oldest = who_may_go(target).await?;
        let Some(deleted) = make_room(global, target, &before).await? else {
            return Ok(nobody_may_go(global, &before));
        };
        evicted = evicted_by(&deleted, oldest.as_ref());
        gave_way = deleted;
    }
    let after = status(target).await?;
    // As `handle-connection-limit` answers; without a user there is nobody to keep the place for.
    let ensured = json!({
        "success": true, "held_until": null, "evicted": evicted,
        "slots": {"in_use": after.get("current_count"), "limit": after.get("max_connections")},
    });
    show(global, &ensured, |_| {
        format!("{}\n{}", describe_deletion(&gave_way), describe(&after))
    });
    Ok(if is(&after, "at_limit") {
        Exit::AtLimit
    } else {
        Exit::Success
    })
}

/// `ensure` with a user: the place is theirs for five minutes.
pub(super) async fn hold(global: &Global, target: &Target, user_id: &str) -> Result<Exit, Refusal> {
    let status = status(target).await?;
    if !global.yes && is(&status, "at_limit") && !has_place(target, user_id).await? {
        let who = match policy(target).await.as_deref() {
            None | Some("oldest") => match who_may_go(target).await? {
                Some(victim) => named(&victim),
                // Somebody whose time ran out gives way without having to agree; otherwise the API says no.
                None => "nobody who could be named".to_owned(),
            },
            Some(policy) => format!("the user that the policy {policy} chooses"),
        };
        confirm(global, target, &format!("let {who} give way to {user_id}"))?;
    }
    let body = json!({"user_id": user_id});
    let held = target
        .post("/api/snaptrade/handle-connection-limit", &body)
        .await?;
    show(global, &held, |held| {
        let kept = match held.get("held_until").and_then(Value::as_str) {
            Some(until) => format!("A place is kept for {user_id} until {until}."),
            None => format!("{user_id} has a place already."),
        };
        match held.get("evicted").filter(|evicted| !evicted.is_null()) {
            Some(evicted) => format!("{kept} {} gave way.", text(evicted, "user_id")),
            None => kept,
        }
    });
    Ok(Exit::Success)
}

/// `delete-oldest`.
pub(super) async fn delete_oldest(global: &Global, target: &Target) -> Result<Exit, Refusal> {
    let deleted = match who_may_go(target).await? {
        Some(victim) => delete(global, target, &victim).await?,
        // The API says why, in the words that scripts know.
        None => {
            target
                .post("/api/snaptrade/users/delete-oldest", &json!({}))
                .await?
        }
    };
    show(global, &deleted, describe_deletion);
    Ok(Exit::Success)
}

/// Deletes the oldest user that may go, who is `victim`, after asking. Nobody else than who was named is deleted.
async fn delete(global: &Global, target: &Target, victim: &Value) -> Result<Value, Refusal> {
    if global.yes {
        return Ok(target
            .post("/api/snaptrade/users/delete-oldest", &json!({}))
            .await?);
    }
    confirm(global, target, &format!("delete {}", named(victim)))?;
    // A person may take a while to answer.
    let still = who_may_go(target).await?;
    let same = |member: &str| still.as_ref().and_then(|still| still.get(member)) == victim.get(member);
    if !same("user_id") || !same("upstream_id") {
        return Err(Refusal::Overtaken);
    }
    let path = path_of(victim.get("user_id").and_then(Value::as_str).unwrap_or_default());
    Ok(target.call(reqwest::Method::DELETE, &path, None).await?)
}

/// How the limit stands, as the route tells it to an operator.
pub(super) async fn status(target: &Target) -> Result<Value, CallError> {
    target.get("/api/snaptrade/status").await
}

/// The oldest user that is not protected and that nothing is under way with; `None` where there is none.
async fn who_may_go(target: &Target) -> Result<Option<Value>, CallError> {
    let mut pages = pages(target);
    while let Some(rows) = pages.next().await? {
        let may_go = |row: &Value| {
            let state = row.get("state").and_then(Value::as_str);
            matches!(state, Some("active" | "adopted")) && !is(row, "protected")
        };
        if let Some(row) = rows.into_iter().find(may_go) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// Whether the user fills or holds a place, so that nobody has to give way.
async fn has_place(target: &Target, user_id: &str) -> Result<bool, CallError> {
    let mut pages = pages(target);
    while let Some(rows) = pages.next().await? {
        let has = |row: &Value| {
            let state = row.get("state").and_then(Value::as_str);
            row.get("user_id").and_then(Value::as_str) == Some(user_id)
                && matches!(state, Some("active" | "reserved"))
        };
        if rows.iter().any(has) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Who gives way on the target by its settings, where it tells.
async fn policy(target: &Target) -> Option<String> {
    let settings = target.settings().await.ok()?;
    settings.get("policy").and_then(Value::as_str).map(str::to_owned)
}

/// The limit is reached and stays so.
fn nobody_may_go(global: &Global, status: &Value) -> Exit {
    if global.json {
        print(&status.to_string());
    }
    eprintln!(
        "berth: the limit is reached and nobody may give way: unprotect somebody (`berth connections unprotect ID`) or raise the limit"
    );
    Exit::AtLimit
}

/// A user with its age, so that one knows who is meant.
fn named(row: &Value) -> String {
    format!(
        "{} (since {} UTC)",
        text(row, "user_id"),
        minute(row, "created_at")
    )
}

fn describe(status: &Value) -> String {
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
            "Tracking and SnapTrade differ (missing there: {}; unknown here: {}): run `berth connections sync`.",
            list(status, "missing"),
            list(status, "unknown"),
        ));
    }
    lines.push(match status.get("oldest").filter(|oldest| !oldest.is_null()) {
        Some(oldest) => format!("The oldest user: {}.", named(oldest)),
        None => "Nobody is tracked.".to_owned(),
    });
    if let Some(last) = status.get("last_eviction").filter(|last| !last.is_null()) {
        lines.push(format!(
            "The last to give way: {}, on {} UTC ({}).",
            text(last, "user_id"),
            minute(last, "evicted_at"),
            text(last, "reason").replace('_', " "),
        ));
    }
    lines.join("\n")
}

/// What was deleted; nothing, where room came by itself.
fn describe_deletion(deleted: &Value) -> String {
    if deleted.is_null() {
        return "There is room already.".to_owned();
    }
    let upstream = match deleted.get("upstream").and_then(Value::as_str) {
        Some("queued") => "SnapTrade has taken the deletion on",
        Some("unknown_there") => "SnapTrade did not know this user any more",
        _ => "SnapTrade deleted this user, too",
    };
    match deleted.get("connection_id").and_then(Value::as_str) {
        Some(connection) => format!(
            "The connection {connection} of {} was deleted; {upstream}.",
            text(deleted, "user_id")
        ),
        None => format!("{} was deleted; {upstream}.", text(deleted, "user_id")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_told_in_words() {
        let status = json!({
            "current_count": 5, "max_connections": 5, "counts": "users", "at_limit": true, "in_sync": false,
            "missing": ["ada"], "unknown": [], "oldest": {"user_id": "grace", "created_at": "2026-01-01T00:00:00Z"},
            "last_eviction": {"user_id": "edsger", "reason": "oldest", "created_at": "2025-01-01T00:00:00Z",
                              "evicted_at": "2026-01-02T03:04:05Z"},
        });
        assert_eq!(
            describe(&status),
            "5 of 5 users in use: the limit is reached.\n\
             Tracking and SnapTrade differ (missing there: ada; unknown here: none): run `berth connections sync`.\n\
             The oldest user: grace (since 2026-01-01 00:00 UTC).\n\
             The last to give way: edsger, on 2026-01-02 03:04 UTC (oldest)."
        );
    }
}
