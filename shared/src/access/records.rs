//! What the access sync stores, and under which keys.
//!
//! | partition | sort key | what |
//! |---|---|---|
//! | `PERSON#<id>` | `CUSTOMER` | a [`Customer`]; in the index `ACCESSDUE` while something is to be done |
//! | `PERSON#<id>` | `CUSTOMER#<n>` | the rest of a [`Customer`] that does not fit into one item |
//! | `PERSON#<id>` | `AUDIT#<n>` | the chain of what happened to the customer |
//! | `PERSON#<id>` | `OPEN#<id>` | an [`OpenItem`] that waits for a person, in the index `ACCESSOPEN#<kind>` |
//! | `NAME#<key>` | `CLAIM#<person>` | who uses a name and until when, in the index `ACCESSLIVE` |
//! | `NAME#<key>` | `BASELINE#<script>` | what a name had before Berth, in the same index |
//! | `REGISTER#<bucket>` | `REGISTER` | the hashes of rows, by transaction, in the index `ACCESSREGISTER` |
//! | `PAYMENT#<hash>` | `PAYMENT` | the transaction of a gateway's number |
//! | `ACCESS` | `RUN` | the [`RunRecord`] |
//! | `ACCESSHINTS` | `HINT#<transaction>` | a transaction that the shop said has changed |
//! | `ACCESSPLAN#<id>` | `PLAN#<n>` | a plan for approval |

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::assessment::ReviewReason;
use super::customer::{Customer, UnknownName};
use super::expiry::Expiry;
use super::guards::Scan;
use super::ids::{PersonId, ScriptId, TransactionId};
use super::ledger::Baseline;
use super::names::Username;
use super::progress::State;
use super::report::Open;
use super::shop::PageMark;
use crate::ids::TenantId;
use crate::store::{IndexKey, Item, Key, index_partition, partition};

/// Transactions in one bucket of the register.
const BUCKET: u64 = 256;

/// Buckets for transactions whose ids are no numbers.
const OTHER_BUCKETS: u64 = 4_096;

/// Characters of a row's hash that the register keeps: 80 bits.
const HASH_CHARS: usize = 20;

/// The names of the access sync's items in one tenant.
#[derive(Debug, Clone)]
pub struct Names {
    tenant: TenantId,
}

/// What kind of thing waits for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenKind {
    /// A transaction that somebody has to look at.
    Review,
    /// A transaction that was given up.
    DeadLetter,
    /// A reversal that waits for approval.
    Held,
}

/// Something that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenItem {
    /// Its id, the same whenever it is open.
    pub id: String,
    /// What kind of thing it is.
    pub kind: OpenKind,
    /// The transaction.
    pub transaction_id: TransactionId,
    /// The script.
    pub script_id: ScriptId,
    /// The customer.
    pub person: PersonId,
    /// Why it waits.
    pub reason: String,
    /// The name at TradingView, as the customer wrote it.
    pub username: String,
    /// Names that begin alike, for a name that is not known.
    pub suggestions: Vec<String>,
    /// Since when it waits.
    pub created_at: Timestamp,
    /// When the transaction was made, for reading its row again.
    pub bought_at: Option<Timestamp>,
    /// Whether an operator was told that nobody has come back to it.
    #[serde(default)]
    pub expired: bool,
}

/// Where a listing of what waits for a person goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// What is listed.
    pub kind: OpenKind,
    /// The last one's time.
    pub created_at: Timestamp,
    /// The last one's id.
    pub id: String,
}

/// Who uses a name, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimant {
    /// The name in its right spelling.
    pub username: Username,
    /// Who; nobody that is known for what there was before Berth.
    pub person: Option<PersonId>,
    /// The end of access by script, as the ledger has it.
    pub scripts: BTreeMap<ScriptId, Expiry>,
    /// When it was found, for what there was before Berth.
    #[serde(default)]
    pub found_at: Option<Timestamp>,
}

/// All that is known of a name.
#[derive(Debug, Clone, Default)]
pub struct NameBook {
    /// Who uses it.
    pub claims: Vec<Claimant>,
    /// What it had before Berth, by script.
    pub baselines: BTreeMap<ScriptId, Baseline>,
}

/// What is known of rows, by transaction: the beginning of the row's hash, and whose row it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bucket {
    /// The rows.
    pub rows: BTreeMap<TransactionId, Registered>,
}

/// What is known of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The beginning of its hash; empty where it is to be read again.
    #[serde(rename = "h")]
    pub hash: String,
    /// Whose it is.
    #[serde(rename = "p")]
    pub person: Option<PersonId>,
}

/// The transaction of a gateway's number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// The transaction that had it first.
    pub transaction: TransactionId,
    /// Whose that is.
    pub person: PersonId,
}

/// A transaction that the shop said has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// The transaction.
    pub transaction: TransactionId,
    /// When.
    pub at: Timestamp,
    /// Tells this word of the shop's from a later one about the same transaction.
    #[serde(default)]
    pub id: String,
}

/// What runs know of each other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunRecord {
    /// How often it was written.
    pub rev: u64,
    /// The run that is under way.
    #[serde(default)]
    pub lease: Option<Lease>,
    /// When the last run that reads the shop began.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// Whether rows or grants remained for the next run.
    #[serde(default)]
    pub remains: bool,
    /// The newest purchase that is known.
    #[serde(default)]
    pub watermark: Option<Timestamp>,
    /// The last full scan that was believed.
    #[serde(default)]
    pub full_scan: Option<FullScan>,
    /// The first full scan with far fewer rows than before, which was not believed.
    #[serde(default)]
    pub shrunken: Option<FullScan>,
    /// A full scan that was not finished.
    #[serde(default)]
    pub checkpoint: Option<Checkpoint>,
    /// When what there was before Berth was read, by script.
    #[serde(default)]
    pub bootstrapped: BTreeMap<ScriptId, Bootstrapped>,
    /// Changes whenever anything in a ledger may have; a plan is made for one of them.
    #[serde(default)]
    pub version: String,
    /// Since when the access API does not let us in.
    #[serde(default)]
    pub paused_since: Option<Timestamp>,
    /// What is known of each script for its master data.
    #[serde(default)]
    pub scripts: BTreeMap<ScriptId, Markers>,
    /// What a run counted last.
    #[serde(default)]
    pub counted: Option<Counted>,
}

/// What a run counted at its end, for one that has no time to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// When.
    pub at: Timestamp,
    /// How many names had access.
    pub active_users: u64,
    /// What waited.
    pub open: Open,
}

/// The right to run, which excludes others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The run.
    pub run_id: String,
    /// Until when.
    pub until: Timestamp,
}

impl Lease {
    /// Whether it excludes others at `now`. One that ends later than a lease of `length` can was taken before the clock
    /// was moved back, and nobody holds it any more.
    #[must_use]
    pub fn is_live(&self, now: Timestamp, length: SignedDuration) -> bool {
        self.until > now && now.checked_add(length).is_ok_and(|latest| self.until <= latest)
    }
}

/// A full scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullScan {
    /// When it began.
    pub at: Timestamp,
    /// How many rows there were.
    pub rows: u64,
}

/// Where a full scan goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// When the scan began.
    pub began_at: Timestamp,
    /// Where it goes on.
    pub mark: PageMark,
    /// What was noticed so far.
    pub scan: Scan,
    /// The transactions seen so far, as base 64 of a bitmap.
    pub seen: String,
    /// The newest purchase seen so far.
    pub newest: Option<Timestamp>,
    /// Whether all rows are read whether they have changed or not.
    pub resync: Option<super::ids::ProductId>,
}

/// What there was before Berth was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrapped {
    /// When.
    pub at: Timestamp,
    /// How many names had something.
    pub users: u64,
}

/// What is known of one script for its master data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Markers {
    /// When a run last went over it.
    pub last_synced_at: Option<Timestamp>,
    /// The newest purchase of it that was brought to the access API.
    pub last_processed_at: Option<Timestamp>,
}

impl Names {
    /// The names in a tenant.
    #[must_use]
    pub fn new(tenant: TenantId) -> Self {
        Self { tenant }
    }

    fn key(&self, kind: &str, id: &str, sk: impl Into<String>) -> Key {
        Key::new(partition(&self.tenant, kind, id), sk)
    }

    /// A customer.
    #[must_use]
    pub fn customer(&self, person: PersonId) -> Key {
        self.key("PERSON", &person.to_string(), "CUSTOMER")
    }

    /// A part of a customer beside the first, which has the key `head`.
    #[must_use]
    pub fn customer_part(&self, head: &Key, number: u64) -> Key {
        Key::new(head.pk.clone(), format!("{}#{number:06}", head.sk))
    }

    /// An entry of a customer's audit chain.
    #[must_use]
    pub fn audit(&self, person: PersonId, number: u64) -> Key {
        self.key("PERSON", &person.to_string(), format!("AUDIT#{number:012}"))
    }

    /// Something that waits for a person. Its partition is found by its id, which begins with the customer's.
    #[must_use]
    pub fn open(&self, person: PersonId, id: &str) -> Key {
        self.key("PERSON", &person.to_string(), format!("OPEN#{id}"))
    }

    /// The partition of a name.
    #[must_use]
    pub fn name(&self, key: &str) -> String {
        partition(&self.tenant, "NAME", key)
    }

    /// A customer's claim on a name.
    #[must_use]
    pub fn claim(&self, name: &str, person: PersonId) -> Key {
        Key::new(self.name(name), format!("CLAIM#{person}"))
    }

    /// What a name had before Berth.
    #[must_use]
    pub fn baseline(&self, name: &str, script: &ScriptId) -> Key {
        Key::new(self.name(name), format!("BASELINE#{script}"))
    }

    /// A bucket of the register.
    #[must_use]
    pub fn register(&self, bucket: &str) -> Key {
        self.key("REGISTER", bucket, "REGISTER")
    }

    /// The transaction of a gateway's number.
    #[must_use]
    pub fn payment(&self, number: &str) -> Key {
        self.key("PAYMENT", &digest(&[number]), "PAYMENT")
    }

    /// What runs know of each other.
    #[must_use]
    pub fn run(&self) -> Key {
        Key::new(index_partition(&self.tenant, "ACCESS"), "RUN")
    }

    /// The partition of hints.
    #[must_use]
    pub fn hints(&self) -> String {
        index_partition(&self.tenant, "ACCESSHINTS")
    }

    /// A hint.
    #[must_use]
    pub fn hint(&self, transaction: &TransactionId) -> Key {
        Key::new(self.hints(), format!("HINT#{transaction}"))
    }

    /// The partition of a plan.
    #[must_use]
    pub fn plan(&self, id: &str) -> String {
        partition(&self.tenant, "ACCESSPLAN", id)
    }

    /// The index of customers with something to do.
    #[must_use]
    pub fn due(&self) -> String {
        index_partition(&self.tenant, "ACCESSDUE")
    }

    /// The index of names with access.
    #[must_use]
    pub fn live(&self) -> String {
        index_partition(&self.tenant, "ACCESSLIVE")
    }

    /// The index of the register's buckets.
    #[must_use]
    pub fn registers(&self) -> String {
        index_partition(&self.tenant, "ACCESSREGISTER")
    }

    /// The index of what waits for a person.
    #[must_use]
    pub fn opened(&self, kind: OpenKind) -> String {
        let kind = match kind {
            OpenKind::Review => "ACCESSOPEN#REVIEW",
            OpenKind::DeadLetter => "ACCESSOPEN#DEADLETTER",
            OpenKind::Held => "ACCESSOPEN#HELD",
        };
        index_partition(&self.tenant, kind)
    }

    /// Where a customer stands in the index, if something is to be done.
    #[must_use]
    pub fn due_index(&self, customer: &Customer) -> Option<IndexKey> {
        customer.due_at().map(|at| IndexKey {
            gsi1pk: self.due(),
            gsi1sk: format!("{}#{}", sortable(at), customer.person),
        })
    }

    /// Where a name that has or had access stands in the index, by the latest end of it.
    #[must_use]
    pub fn live_index(&self, claimant: &Claimant) -> Option<IndexKey> {
        let at = match *claimant.scripts.values().max()? {
            // Whoever had access is listed, but never as somebody who has.
            Expiry::NoAccess => Timestamp::UNIX_EPOCH,
            Expiry::At(end) => end,
            Expiry::Lifetime => Timestamp::MAX,
        };
        Some(IndexKey {
            gsi1pk: self.live(),
            gsi1sk: format!("{}#{}", sortable(at), claimant.username.key()),
        })
    }
}

/// Who an item of the index of customers with something to do is about.
#[must_use]
pub fn due_person(item: &Item) -> Option<PersonId> {
    let partition = Key::of(item).pk;
    partition.rsplit('#').next()?.parse().ok().map(PersonId)
}

/// A time as a text that sorts as times do.
#[must_use]
pub fn sortable(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// The bucket of the register that a transaction belongs to.
#[must_use]
pub fn bucket(transaction: &TransactionId) -> String {
    match transaction.as_str().parse::<u64>() {
        Ok(number) => format!("{:020}", number / BUCKET),
        Err(_) => format!("x{:04}", number_of(transaction) % OTHER_BUCKETS),
    }
}

/// A transaction's number, or a hash where it has none.
#[must_use]
pub fn number_of(transaction: &TransactionId) -> u64 {
    transaction.as_str().parse().unwrap_or_else(|_| {
        let hash = Sha256::digest(transaction.as_str());
        let first: [u8; 8] = std::array::from_fn(|index| hash.get(index).copied().unwrap_or_default());
        u64::from_be_bytes(first)
    })
}

/// The part of a row's hash that the register keeps.
#[must_use]
pub fn short_hash(hash: &str) -> String {
    hash.chars().take(HASH_CHARS).collect()
}

/// A short hash of some texts.
#[must_use]
pub fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let text = data_encoding::BASE32_NOPAD
        .encode(&hash.finalize())
        .to_ascii_lowercase();
    text.chars().take(26).collect()
}

/// The customer that the id of something open names; `None` where it is no such id.
#[must_use]
pub fn person_of(id: &str) -> Option<PersonId> {
    id.split_once('-')?.0.parse().ok().map(PersonId)
}

impl Customer {
    /// What waits for a person, by id.
    #[must_use]
    pub fn open(&self, now: Timestamp) -> BTreeMap<String, OpenItem> {
        let mut open = BTreeMap::new();
        for (script, holding) in &self.scripts {
            for (transaction, progress) in &holding.progress {
                let (kind, reason, since) = match &progress.state {
                    State::ManualReview { reason, since } => (OpenKind::Review, reason.as_str(), *since),
                    State::ReviewExpired { reason } => (OpenKind::Review, reason.as_str(), now),
                    State::DeadLetter => (OpenKind::DeadLetter, "given_up", now),
                    State::Held => (OpenKind::Held, "held", now),
                    _ => continue,
                };
                let expired = matches!(progress.state, State::ReviewExpired { .. });
                let entry =
                    (holding.ledger.entries.get(transaction)).or(holding.ledger.reviewed.get(transaction));
                let id = format!(
                    "{}-{}",
                    self.person,
                    digest(&[transaction.as_str(), script.as_str()])
                );
                let is_about_name = reason == ReviewReason::InvalidUsername.as_str();
                let suggestions = self.unknown.as_ref().filter(|_| is_about_name);
                open.insert(
                    id.clone(),
                    OpenItem {
                        id,
                        kind,
                        transaction_id: transaction.clone(),
                        script_id: script.clone(),
                        person: self.person,
                        reason: reason.to_owned(),
                        username: self.written.clone(),
                        suggestions: suggestions
                            .map(|unknown: &UnknownName| unknown.suggestions.clone())
                            .unwrap_or_default(),
                        created_at: since,
                        bought_at: entry.map(|entry| entry.created_at),
                        expired,
                    },
                );
            }
        }
        open
    }

    /// The customer's claims on names, by the name's key.
    #[must_use]
    pub fn claimed(&self) -> BTreeMap<String, Claimant> {
        let mut claims: BTreeMap<String, Claimant> = BTreeMap::new();
        let mut claim = |name: &Username, script: Option<(&ScriptId, Expiry)>| {
            let claimant = claims.entry(name.key()).or_insert_with(|| Claimant {
                username: name.clone(),
                person: Some(self.person),
                scripts: BTreeMap::new(),
                found_at: None,
            });
            claimant
                .scripts
                .extend(script.map(|(script, expiry)| (script.clone(), expiry)));
        };
        if let Some(name) = &self.name {
            claim(name, None);
        }
        for (script, holding) in &self.scripts {
            if let Some(told) = &holding.told {
                claim(&told.name, Some((script, told.expiry)));
            }
            for left in &holding.left {
                claim(&left.name, None);
            }
        }
        claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_excludes_others_until_it_ends_and_not_at_all_from_a_time_to_come() {
        let length = SignedDuration::from_secs(120);
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        let until = |seconds: i64| Lease {
            run_id: "run".to_owned(),
            until: now.checked_add(SignedDuration::from_secs(seconds)).unwrap(),
        };
        assert!(until(1).is_live(now, length) && until(120).is_live(now, length));
        assert!(!until(0).is_live(now, length) && !until(-1).is_live(now, length));
        // Whoever took this one did so before the clock was moved back, and is long gone.
        assert!(!until(121).is_live(now, length));
    }
}
