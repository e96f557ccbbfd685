//! A run's report (contract.md, "A run's report").

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::assessment::{Change, IgnoreReason};
use super::guards::Unsound;
use super::plan::{Outcome, PlannedAction};
use super::progress::Settled;
use super::transactions::{Malformed, Row};

/// Most warnings about single rows that a report holds; their number is always named.
const MOST_ROW_WARNINGS: usize = 20;

/// What a run did. The figures are its own; [`Report::open`] has what waits in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The run.
    pub run_id: String,
    /// Whether it only says what it would do.
    pub dry_run: bool,
    /// Whether nothing remains for the next run.
    pub complete: bool,
    /// When it began.
    pub now: Timestamp,
    /// Rows that the shop gave.
    pub fetched: u64,
    /// Rows that were new or had changed.
    pub considered: u64,
    /// Rows that are done with.
    pub settled: u64,
    /// Accesses given.
    pub granted: u64,
    /// Accesses prolonged.
    pub extended: u64,
    /// Accesses shortened.
    pub shortened: u64,
    /// Accesses removed.
    pub revoked: u64,
    /// Reversals that changed nothing, as something else covers the time.
    pub kept: u64,
    /// Purchases of people who have access for ever.
    pub not_applied: u64,
    /// Rows that give nothing, by the reason.
    pub ignored: BTreeMap<String, u64>,
    /// Rows that a person has to look at.
    pub manual_review: u64,
    /// Rows to be tried again.
    pub retry: u64,
    /// Rows that were given up.
    pub dead_letter: u64,
    /// Malformed rows.
    pub quarantined: u64,
    /// Reversals that wait for approval.
    pub held: u64,
    /// How the run went.
    pub status: RunStatus,
    /// Calls to the outside services.
    pub calls: Calls,
    /// Mails sent.
    pub mails: u64,
    /// Names with live access.
    pub active_users: u64,
    /// Rows read in a second.
    pub rows_per_second: u64,
    /// Rows and grants that remain for the next run.
    pub remaining: u64,
    /// What somebody should look at.
    pub warnings: Vec<String>,
    /// What waits in all.
    pub open: Open,
    /// What would be done, in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Vec<PlannedAction>>,
}

/// How a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Well.
    #[default]
    Ok,
    /// The access API does not let us in.
    Degraded,
    /// The shop's answer was not believed, so nothing was taken back.
    Quarantined,
}

/// Calls to the outside services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Calls {
    /// To the shop.
    pub transactions: u64,
    /// To look names up.
    pub validate: u64,
    /// To give access.
    pub grant: u64,
    /// To change the end of access.
    pub update: u64,
    /// To take access.
    pub remove: u64,
    /// To list who has access.
    pub list: u64,
}

/// What waits in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Open {
    /// Rows to be tried again.
    pub retry: u64,
    /// Reversals that wait for approval.
    pub held: u64,
    /// Rows that a person has to look at.
    pub manual_review: u64,
    /// Rows that were given up.
    pub dead_letter: u64,
}

impl Report {
    /// The report of a run that begins now.
    #[must_use]
    pub fn begin(run_id: String, now: Timestamp, dry_run: bool) -> Self {
        Self {
            run_id,
            dry_run,
            complete: true,
            now,
            fetched: 0,
            considered: 0,
            settled: 0,
            granted: 0,
            extended: 0,
            shortened: 0,
            revoked: 0,
            kept: 0,
            not_applied: 0,
            ignored: BTreeMap::new(),
            manual_review: 0,
            retry: 0,
            dead_letter: 0,
            quarantined: 0,
            held: 0,
            status: RunStatus::Ok,
            calls: Calls::default(),
            mails: 0,
            active_users: 0,
            rows_per_second: 0,
            remaining: 0,
            warnings: Vec::new(),
            open: Open::default(),
            plan: dry_run.then(Vec::new),
        }
    }

    /// Counts a row that gives nothing.
    pub fn count_ignored(&mut self, reason: IgnoreReason) {
        let count = self.ignored.entry(reason.as_str().to_owned()).or_default();
        *count = count.saturating_add(1);
    }

    /// Counts what a row changed in a ledger. What is granted or taken back by it is counted when the access
    /// API was told, by [`Report::count_outcome`].
    pub fn count_change(&mut self, change: &Change) {
        match change {
            Change::Ignore(reason) => self.count_ignored(*reason),
            Change::Fail(..) => self.count_ignored(IgnoreReason::Failed),
            Change::Contain(_) => self.count_ignored(IgnoreReason::BeforeBaseline),
            Change::Review(..) => increase(&mut self.manual_review),
            Change::Orphan => increase(&mut self.quarantined),
            held if held.is_held() => increase(&mut self.held),
            _ => {}
        }
    }

    /// Counts what was done about a name.
    pub fn count_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Granted => increase(&mut self.granted),
            Outcome::Extended => increase(&mut self.extended),
            Outcome::Shortened => increase(&mut self.shortened),
            Outcome::Revoked => increase(&mut self.revoked),
            Outcome::Kept => increase(&mut self.kept),
            Outcome::NotApplied => increase(&mut self.not_applied),
            Outcome::AsItShouldBe
            | Outcome::HandExtended(_)
            | Outcome::HandShortened(_)
            | Outcome::NeverLowered(_) => {}
        }
    }

    /// Counts what a call came to that an earlier run made.
    pub fn count_settled(&mut self, settled: Settled) {
        match settled {
            Settled::Granted => increase(&mut self.granted),
            Settled::Extended => increase(&mut self.extended),
            Settled::Shortened => increase(&mut self.shortened),
            Settled::Revoked => increase(&mut self.revoked),
            Settled::Kept => increase(&mut self.kept),
            Settled::NotApplied => increase(&mut self.not_applied),
            Settled::Dismissed => {}
        }
    }

    /// Counts a malformed row and names it and the cause.
    pub fn quarantine(&mut self, malformed: &Malformed) {
        increase(&mut self.quarantined);
        self.warn_of_row(malformed.to_string());
    }

    /// Names a row's times that the shop's clocks showed twice or never.
    pub fn note_ambiguous(&mut self, row: &Row) {
        if !row.ambiguous.is_empty() {
            let fields = row.ambiguous.join(" and ");
            self.warn_of_row(format!(
                "transaction {}: {fields} is ambiguous in the shop's time zone",
                row.transaction
            ));
        }
    }

    /// Notes that the shop was not believed.
    pub fn distrust(&mut self, cause: Unsound) {
        self.status = self.status.max(RunStatus::Quarantined);
        self.warn(cause.to_string());
    }

    /// Notes that the access API does not let us in.
    pub fn degrade(&mut self) {
        self.status = self.status.max(RunStatus::Degraded);
        self.complete = false;
    }

    /// Adds a warning, once.
    pub fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// A report stays small however many rows are wrong.
    fn warn_of_row(&mut self, warning: String) {
        if self.warnings.len() < MOST_ROW_WARNINGS {
            self.warn(warning);
        }
    }
}

fn increase(count: &mut u64) {
    *count = count.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::access::assessment::ReviewReason;
    use crate::access::ids::TransactionId;
    use crate::access::ledger::tests::at;

    fn report(dry_run: bool) -> Report {
        Report::begin("r1".to_owned(), at("2026-01-01"), dry_run)
    }

    #[test]
    fn it_has_the_members_of_the_contract() {
        let expected = json!({
            "run_id": "r1", "dry_run": true, "complete": true, "now": "2026-01-01T00:00:00Z", "fetched": 0,
            "considered": 0, "settled": 0, "granted": 0, "extended": 0, "shortened": 0, "revoked": 0, "kept": 0,
            "not_applied": 0, "ignored": {}, "manual_review": 0, "retry": 0, "dead_letter": 0, "quarantined": 0,
            "held": 0, "status": "ok",
            "calls": {"transactions": 0, "validate": 0, "grant": 0, "update": 0, "remove": 0, "list": 0},
            "mails": 0, "active_users": 0, "rows_per_second": 0, "remaining": 0, "warnings": [],
            "open": {"retry": 0, "held": 0, "manual_review": 0, "dead_letter": 0}, "plan": []
        });
        assert_eq!(serde_json::to_value(report(true)).unwrap(), expected);
        assert!(serde_json::to_value(report(false)).unwrap().get("plan").is_none());
    }

    #[test]
    fn changes_and_outcomes_are_counted_under_their_names() {
        let mut report = report(false);
        report.count_change(&Change::Ignore(IgnoreReason::UnmappedProduct));
        report.count_change(&Change::Ignore(IgnoreReason::UnmappedProduct));
        report.count_change(&Change::Review(ReviewReason::Refund, None));
        report.count_change(&Change::Orphan);
        report.count_change(&Change::Nothing);
        for outcome in [
            Outcome::Granted,
            Outcome::Revoked,
            Outcome::Kept,
            Outcome::AsItShouldBe,
        ] {
            report.count_outcome(outcome);
        }
        assert_eq!(
            report.ignored,
            BTreeMap::from([("unmapped_product".to_owned(), 2)])
        );
        assert_eq!((report.manual_review, report.quarantined), (1, 1));
        assert_eq!(
            (report.granted, report.revoked, report.kept, report.extended),
            (1, 1, 1, 0)
        );
    }

    #[test]
    fn malformed_rows_are_all_counted_and_the_first_of_them_named() {
        let mut report = report(false);
        for id in 1..=30 {
            report.quarantine(&Malformed {
                transaction: TransactionId::parse(&id.to_string()),
                position: 1,
                causes: vec!["created_at is missing".to_owned()],
            });
        }
        assert_eq!(
            (report.quarantined, report.warnings.len()),
            (30, MOST_ROW_WARNINGS)
        );
        assert_eq!(report.warnings[0], "transaction 1: created_at is missing");
    }

    #[test]
    fn a_run_whose_source_is_not_believed_is_quarantined_and_says_why() {
        let mut report = report(false);
        report.degrade();
        assert_eq!(report.status, RunStatus::Degraded);
        report.distrust(Unsound::Empty);
        report.distrust(Unsound::Empty);
        assert_eq!(report.status, RunStatus::Quarantined);
        assert_eq!(report.warnings.len(), 1);
    }
}
