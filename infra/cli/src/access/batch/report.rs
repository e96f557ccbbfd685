//! What a batch did, and what it leaves to a person.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth::access::ids::PersonId;
use berth::access::plan::PlannedAction;
use serde::Serialize;
use serde_json::{Value, json};

use crate::access::plans;
use crate::exit::Exit;
use crate::words::number_of;

/// What a batch did.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// The script.
    pub(super) script_id: String,
    /// The file of who has access.
    pub(super) csv: PathBuf,
    /// Whether it only says what it would do.
    pub(super) dry_run: bool,
    /// Whether nothing is left for the next run.
    pub(super) complete: bool,
    /// How many batches were made.
    pub(super) batches: u32,
    /// How many transactions were read.
    pub(super) transactions: u64,
    /// What is wrong with those that cannot be used.
    pub(super) malformed: Vec<String>,
    /// How many of the script's give nothing, by the reason.
    pub(super) ignored: BTreeMap<String, u64>,
    /// How many names were gone through.
    pub(super) users: u64,
    /// How many of them were given access.
    pub(super) granted: u64,
    /// How many got more.
    pub(super) updated: u64,
    /// How many had what they should have.
    pub(super) unchanged: u64,
    /// What a person has to look at.
    pub(super) manual_review: Vec<Review>,
    /// For whom the access API could not be used.
    pub(super) failed: Vec<Failure>,
    /// How many names are left for the next run.
    pub(super) remaining: u64,
    /// The calls that were made.
    pub(super) calls: Value,
    /// What would be done, in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plan: Option<Vec<PlannedAction>>,
}

/// Something that a person has to look at.
#[derive(Debug, Serialize)]
pub(super) struct Review {
    /// The customer.
    pub(super) person: PersonId,
    /// The name, as the customer wrote it.
    pub(super) username: String,
    /// The transaction, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transaction_id: Option<String>,
    /// Why.
    pub(super) reason: String,
    /// What is wrong with a name that cannot be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
    /// Names that begin alike.
    pub(super) suggestions: Vec<String>,
}

/// A name for which the access API could not be used. It is tried again by the next run.
#[derive(Debug, Serialize)]
pub(super) struct Failure {
    /// The customer.
    pub(super) person: PersonId,
    /// The name, as the customer wrote it.
    pub(super) username: String,
    /// Why.
    pub(super) reason: String,
}

impl Report {
    /// Notes something that a person has to look at, and tells at once.
    pub(super) fn review(&mut self, review: Review) {
        let transaction = review
            .transaction_id
            .as_ref()
            .map(|id| format!(", transaction {id}"));
        let alike = match review.suggestions.as_slice() {
            [] => String::new(),
            names => format!("; names that begin alike: {}", names.join(", ")),
        };
        eprintln!(
            "berth: {:?} (customer {}{}): manual review required: {}{alike}",
            review.username,
            review.person.0,
            transaction.unwrap_or_default(),
            review
                .detail
                .clone()
                .unwrap_or_else(|| review.reason.replace('_', " ")),
        );
        self.manual_review.push(review);
    }

    /// How the command ends.
    pub(super) fn exit(&self) -> Exit {
        if self.manual_review.is_empty() && self.failed.is_empty() && self.malformed.is_empty() {
            Exit::Success
        } else {
            Exit::NeedsPerson
        }
    }

    /// The same in words; `users` stand in the file by now.
    pub(super) fn describe(&self, users: usize) -> String {
        let mut lines = vec![format!(
            "{}{} read; {} of {} gone through in {}.",
            if self.dry_run {
                "A dry run, nothing was changed. "
            } else {
                ""
            },
            number_of(self.transactions, "transaction", "transactions"),
            number_of(self.users, "name", "names"),
            self.script_id,
            number_of(self.batches.into(), "batch", "batches"),
        )];
        let would = if self.dry_run { "To be done: " } else { "" };
        lines.push(format!(
            "{would}{} granted, {} prolonged, {} as they should be.",
            self.granted, self.updated, self.unchanged
        ));
        if !self.malformed.is_empty() {
            lines.push(format!(
                "{} malformed.",
                number_of(self.malformed.len() as u64, "row is", "rows are")
            ));
        }
        if !self.manual_review.is_empty() {
            lines.push(format!("Manual review required: {}.", self.manual_review.len()));
        }
        for failure in &self.failed {
            lines.push(format!(
                "Not done for {:?}: {}.",
                failure.username, failure.reason
            ));
        }
        if self.remaining > 0 {
            lines.push(format!(
                "{}: the next run goes on from there.",
                number_of(self.remaining, "name is left", "names are left")
            ));
        }
        match &self.plan {
            Some(plan) if !plan.is_empty() => {
                let plan: Vec<Value> = plan.iter().map(|action| json!(action)).collect();
                lines.push(plans::table(&plan));
            }
            Some(_) => {}
            None => lines.push(format!(
                "{} in {}.",
                number_of(users as u64, "user stands", "users stand"),
                self.csv.display()
            )),
        }
        lines.join("\n")
    }
}
