//! `berth webhooks`: events of SnapTrade's that were given up.

use clap::Subcommand;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::Global;
use crate::command::{Refusal, on_target, show};
use crate::exit::Exit;
use crate::listing::{self, Kind};
use crate::target::Target;
use crate::words::{count, minute, text};

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum WebhooksCommand {
    /// List the events that were tried again and again in vain
    List,
    /// Work on one of them again
    Replay {
        /// The event's id, as `list` shows it
        id: String,
    },
}

const DEAD_LETTERS: Kind = Kind {
    headings: &["EVENT", "TYPE", "USER", "RECEIVED", "TRIES", "REASON"],
    room_for_last: 0,
    cells: |letter| {
        vec![
            text(letter, "webhook_id"),
            text(letter, "event_type"),
            text(letter, "user_id"),
            minute(letter, "received_at"),
            count(letter, "attempts").to_string(),
            text(letter, "reason"),
        ]
    },
    none: "No event was given up.",
    note: "Times are in UTC. `berth webhooks replay ID` works on one again.",
    without_last: "",
};

/// Runs one of the commands.
pub(crate) async fn run(global: &Global, command: &WebhooksCommand) -> Exit {
    let stopped = "stopped; an event that was being worked on may be done all the same";
    on_target(global, stopped, async |target| match command {
        WebhooksCommand::List => list(global, target).await,
        WebhooksCommand::Replay { id } => replay(global, target, id).await,
    })
    .await
}

async fn list(global: &Global, target: &Target) -> Result<Exit, Refusal> {
    let pages = listing::pages(target, "/api/snaptrade/dead-letters");
    listing::show(global, pages, "Listing dead letters", &DEAD_LETTERS).await?;
    Ok(Exit::Success)
}

async fn replay(global: &Global, target: &Target, id: &str) -> Result<Exit, Refusal> {
    let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
    let path = format!("/api/snaptrade/dead-letters/{id}/replay");
    let answer = target.post(&path, &json!({})).await?;
    show(global, &answer, |answer| {
        format!("The event {} was worked on.", text(answer, "webhook_id"))
    });
    Ok(Exit::Success)
}
