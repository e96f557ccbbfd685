//! What waits for a person: reviews, and transactions that were given up.

use reqwest::Method;
use serde_json::{Value, json};

use super::{ReviewCommand, runs, segment, show};
use crate::Global;
use crate::command::Refusal;
use crate::exit::Exit;
use crate::listing::{self, Kind};
use crate::target::Target;
use crate::words::{list, minute, text};

/// The list of reviews.
const REVIEWS: Kind = Kind {
    headings: &[
        "review",
        "reason",
        "transaction",
        "script",
        "name",
        "since",
        "customer",
        "alike",
    ],
    room_for_last: 130,
    cells: |review| {
        vec![
            text(review, "id"),
            text(review, "reason").replace('_', " "),
            text(review, "transaction_id"),
            text(review, "script_id"),
            text(review, "username"),
            minute(review, "created_at"),
            text(review, "person"),
            list(review, "suggestions"),
        ]
    },
    none: "Nothing waits for a person.",
    note: "Times are in UTC. `berth access reviews retry ID`, `correct ID NAME` and `dismiss ID` decide.",
    without_last: "",
};

/// The list of transactions that were given up.
const DEAD_LETTERS: Kind = Kind {
    headings: &[
        "dead letter",
        "transaction",
        "script",
        "name",
        "since",
        "customer",
    ],
    room_for_last: 100,
    cells: |letter| {
        vec![
            text(letter, "id"),
            text(letter, "transaction_id"),
            text(letter, "script_id"),
            text(letter, "username"),
            minute(letter, "created_at"),
            text(letter, "person"),
        ]
    },
    none: "Nothing was given up.",
    note: "Times are in UTC. `berth access replay ID` lets one be tried again.",
    without_last: "",
};

/// `reviews`.
pub(super) async fn reviews(global: &Global, target: &Target) -> Result<Exit, Refusal> {
    let pages = listing::pages(target, "/api/access/reviews");
    listing::show(global, pages, "Listing reviews", &REVIEWS).await?;
    Ok(Exit::Success)
}

/// `dead-letters`.
pub(super) async fn dead_letters(global: &Global, target: &Target) -> Result<Exit, Refusal> {
    let pages = listing::pages(target, "/api/access/dead-letters");
    listing::show(global, pages, "Listing dead letters", &DEAD_LETTERS).await?;
    Ok(Exit::Success)
}

/// `reviews retry`, `correct` and `dismiss`.
pub(super) async fn decide(
    global: &Global,
    target: &Target,
    decision: &ReviewCommand,
) -> Result<Exit, Refusal> {
    let (id, body, then) = match decision {
        ReviewCommand::List => return reviews(global, target).await,
        ReviewCommand::Retry { id } => (id, json!({"action": "retry"}), "goes on with the next run"),
        ReviewCommand::Correct { id, username } => (
            id,
            json!({"action": "correct", "username": username}),
            "goes on under that name with the next run",
        ),
        ReviewCommand::Dismiss { id } => (id, json!({"action": "dismiss"}), "is dismissed"),
    };
    let path = format!("/api/access/reviews/{}", segment(id));
    let review = runs::patiently(target, Method::POST, &path, Some(&body)).await?;
    show(global, &review, |review| told(review, then));
    Ok(Exit::Success)
}

/// `replay`.
pub(super) async fn replay(global: &Global, target: &Target, id: &str) -> Result<Exit, Refusal> {
    let path = format!("/api/access/dead-letters/{}/replay", segment(id));
    let letter = runs::patiently(target, Method::POST, &path, Some(&json!({}))).await?;
    show(global, &letter, |letter| {
        told(letter, "is tried again by the next run")
    });
    Ok(Exit::Success)
}

fn told(item: &Value, then: &str) -> String {
    format!(
        "Transaction {} of {} for {} {then}.",
        text(item, "transaction_id"),
        text(item, "username"),
        text(item, "script_id"),
    )
}
