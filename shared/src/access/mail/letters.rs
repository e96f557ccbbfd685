//! What the letters say.
//!
//! What customers and outside services wrote is shown on one line, cut to a length, without characters that
//! change how the rest is read, and escaped in HTML (defect 11 of the original, facts/access.md A5). Anybody can
//! sign up at a shop with somebody else's address, so nothing longer than a name gets into a letter from there.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::ids::{PersonId, ScriptId, TransactionId};
use super::super::report::Open;

/// Most entries that a digest lists; the number of the others is named.
const MOST_ENTRIES: usize = 50;

/// What a letter says, as far as it differs from others of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Letter {
    /// To a customer whose name TradingView does not know.
    UnknownName {
        /// How the shop calls the customer.
        called: String,
        /// The name that the customer gave; empty where there is none.
        written: String,
        /// Names that exist and begin alike. They are offered to the customer and used for nothing.
        suggestions: Vec<String>,
    },
    /// To the operator.
    Digest(Digest),
}

/// What has come up that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// What it belongs to, such as a run's id. Of one cause there is one digest.
    pub cause: String,
    /// When it came up.
    pub at: Timestamp,
    /// What keeps the sync from its work, in whole sentences: shown before all else.
    pub alerts: Vec<String>,
    /// What is new for a person to look at.
    pub entries: Vec<Entry>,
    /// How many entries there are beyond those listed.
    pub unlisted: u64,
    /// The run's warnings.
    pub warnings: Vec<String>,
    /// What waits in all, where it is known.
    pub open: Option<Open>,
}

/// Something that a person has to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// The transaction, where there is one.
    pub transaction: Option<TransactionId>,
    /// The script, where there is one.
    pub script: Option<ScriptId>,
    /// The customer.
    pub person: Option<PersonId>,
    /// The customer's name at TradingView, where it matters.
    pub username: Option<String>,
    /// Why it needs a person.
    pub reason: String,
}

/// What a digest tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A new review.
    Review,
    /// A review that nobody has looked at for 30 days.
    ReviewExpired,
    /// A reversal that waits for approval.
    Held,
    /// A row that was given up.
    DeadLetter,
    /// A row that cannot be used.
    Quarantined,
    /// A letter that cannot be delivered.
    Undeliverable,
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Review => "to review",
            Self::ReviewExpired => "not reviewed for 30 days",
            Self::Held => "held for approval",
            Self::DeadLetter => "given up",
            Self::Quarantined => "unusable row",
            Self::Undeliverable => "letter not deliverable",
        })
    }
}

impl Digest {
    /// One that says nothing yet.
    #[must_use]
    pub fn new(cause: impl Into<String>, at: Timestamp) -> Self {
        Self {
            cause: cause.into(),
            at,
            alerts: Vec::new(),
            entries: Vec::new(),
            unlisted: 0,
            warnings: Vec::new(),
            open: None,
        }
    }

    /// Adds what a person has to look at. Of very many only the number is kept.
    pub fn add(&mut self, entry: Entry) {
        if self.entries.len() < MOST_ENTRIES {
            self.entries.push(entry);
        } else {
            self.unlisted = self.unlisted.saturating_add(1);
        }
    }

    /// Whether there is nothing to tell. What waits in all is no news by itself.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.entries.is_empty() && self.unlisted == 0 && self.warnings.is_empty()
    }
}
