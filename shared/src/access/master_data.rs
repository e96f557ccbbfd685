//! A script's master data in the shape of the program that Berth replaces (contract.md, "A script's master data"), to be
//! taken out and taken over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::books::Books;
use super::customer::Customer;
use super::expiry::Expiry;
use super::ids::{PersonId, ScriptId, TransactionId};
use super::ledger::Ledger;
use super::names::Username;
use super::progress::State;
use super::records::{Bootstrapped, Claimant};
use super::run::{Refused, Run};

/// Most transactions that the export names as processed.
const MOST_PROCESSED: usize = 500;

/// Customers that are read at once.
const AT_ONCE: usize = 100;

/// What is known of a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterData {
    /// The script.
    pub script_id: ScriptId,
    /// Everybody who has or had access, by name.
    #[serde(default)]
    pub users: BTreeMap<String, User>,
    /// The newest transactions that were brought to the access API, at most 500.
    #[serde(default)]
    pub processed_transactions: Vec<TransactionId>,
    /// The transactions that wait to be tried again.
    #[serde(default)]
    pub retry_queue: Vec<Retry>,
    /// The transactions that a person has to look at.
    #[serde(default)]
    pub manual_review: Vec<Reviewed>,
    /// When a run last went over it.
    #[serde(default)]
    pub last_synced_at: Option<Timestamp>,
    /// The newest purchase that was brought to the access API.
    #[serde(default)]
    pub last_processed_at: Option<Timestamp>,
}

/// Somebody who has or had access.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct User {
    /// The address; null where nobody is known.
    #[serde(default)]
    pub email: Option<String>,
    /// WordPress's user id.
    #[serde(default)]
    pub wp_user_id: Option<u64>,
    /// The name at WordPress.
    #[serde(default)]
    pub wp_username: Option<String>,
    /// When access ends; null for ever.
    pub expiry: Option<Timestamp>,
    /// Whether access is for ever.
    #[serde(default)]
    pub lifetime: bool,
    /// What was bought, in order.
    #[serde(default)]
    pub history: Vec<Purchase>,
}

/// What was bought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purchase {
    /// The transaction.
    pub transaction_id: TransactionId,
    /// When it was bought.
    pub created_at: Timestamp,
    /// When the time that it gives begins; null where it gives none any more.
    #[serde(default)]
    pub starts_at: Option<Timestamp>,
    /// When that ends; null for ever, or where it gives none.
    #[serde(default)]
    pub ends_at: Option<Timestamp>,
    /// Whether it was taken back.
    #[serde(default)]
    pub reversed: bool,
}

/// A transaction that waits to be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The transaction.
    pub transaction_id: TransactionId,
    /// The name.
    pub username: String,
    /// How often it failed.
    pub attempts: u32,
    /// When it is tried next; null where that is now.
    pub next_at: Option<Timestamp>,
}

/// A transaction that a person has to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reviewed {
    /// The review's id.
    pub id: String,
    /// The transaction.
    pub transaction_id: TransactionId,
    /// Why.
    pub reason: String,
    /// The name, as the customer wrote it.
    pub username: String,
    /// Names that begin alike.
    #[serde(default)]
    pub suggestions: Vec<String>,
}

/// What was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Imported {
    /// Names whose access was taken over.
    pub users: u64,
    /// Names that were left out, each with the reason.
    pub skipped: Vec<String>,
}

impl MasterData {
    /// Collects what is known of a script.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn collect(books: &Books, script: &ScriptId, grace: Duration) -> Result<Self, Refused> {
        let mut users = BTreeMap::new();
        let mut persons: BTreeSet<PersonId> = BTreeSet::new();
        books
            .each_name(|claimant| match (claimant.person, claimant.scripts.get(script)) {
                (Some(person), Some(_)) => {
                    persons.insert(person);
                }
                (None, Some(end)) => {
                    users.insert(claimant.username.as_str().to_owned(), User::before_berth(*end));
                }
                (_, None) => {}
            })
            .await?;
        let record = books.run_record().await?;
        let markers = record.scripts.get(script).cloned().unwrap_or_default();
        let mut data = Self {
            script_id: script.clone(),
            users,
            processed_transactions: Vec::new(),
            retry_queue: Vec::new(),
            manual_review: Vec::new(),
            last_synced_at: markers.last_synced_at,
            last_processed_at: markers.last_processed_at,
        };
        let mut processed = BTreeSet::new();
        let persons: Vec<PersonId> = persons.into_iter().collect();
        for some in persons.chunks(AT_ONCE) {
            for customer in books.customers(some.iter().copied()).await?.into_values() {
                data.add(&customer, script, grace, &mut processed);
            }
        }
        data.add_open(books, script).await?;
        data.processed_transactions = processed
            .into_iter()
            .rev()
            .map(|(_, transaction)| transaction)
            .collect();
        Ok(data)
    }

    fn add(
        &mut self,
        customer: &Customer,
        script: &ScriptId,
        grace: Duration,
        processed: &mut BTreeSet<(Timestamp, TransactionId)>,
    ) {
        let Some(holding) = customer.scripts.get(script) else {
            return;
        };
        for (transaction, entry) in &holding.ledger.entries {
            if holding
                .progress
                .get(transaction)
                .is_some_and(super::progress::Progress::is_settled)
            {
                processed.insert((entry.created_at, transaction.clone()));
                if processed.len() > MOST_PROCESSED {
                    processed.pop_first();
                }
            }
        }
        for (transaction, progress) in &holding.progress {
            let next_at = match &progress.state {
                State::RetryWait { next_at } => Some(*next_at),
                State::Unknown { .. } => None,
                _ => continue,
            };
            self.retry_queue.push(Retry {
                transaction_id: transaction.clone(),
                username: customer.written.clone(),
                attempts: progress.tries,
                next_at,
            });
        }
        let Some(told) = &holding.told else { return };
        let expiry = holding.ledger.expiry(grace);
        let expiry = if expiry == Expiry::NoAccess {
            told.expiry
        } else {
            expiry
        };
        // Of several customers with one name the later end counts.
        let is_later = |user: &User| user.wp_user_id.is_some() && user.ends() >= expiry;
        let mut known = self
            .users
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(told.name.as_str()));
        if known.any(|(_, user)| is_later(user)) {
            return;
        }
        self.users
            .retain(|name, _| !name.eq_ignore_ascii_case(told.name.as_str()));
        let user = User {
            email: Some(customer.email.clone()),
            wp_user_id: Some(customer.person.0),
            wp_username: Some(customer.wp_username.clone()),
            history: history(&holding.ledger),
            ..User::before_berth(expiry)
        };
        self.users.insert(told.name.as_str().to_owned(), user);
    }

    async fn add_open(&mut self, books: &Books, script: &ScriptId) -> Result<(), Refused> {
        let mut start = None;
        loop {
            let (items, next) = books.open(super::records::OpenKind::Review, 500, start).await?;
            self.manual_review
                .extend(
                    items
                        .into_iter()
                        .filter(|item| item.script_id == *script)
                        .map(|item| Reviewed {
                            id: item.id,
                            transaction_id: item.transaction_id,
                            reason: item.reason,
                            username: item.username,
                            suggestions: item.suggestions,
                        }),
                );
            start = next;
            if start.is_none() {
                return Ok(());
            }
        }
    }

    /// Stores it as what there was before Berth. A name that somebody claims already is left as it is.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn store(&self, run: &mut Run<'_>) -> Result<Imported, Refused> {
        let mut imported = Imported::default();
        let mut found = Vec::new();
        // What the other program has not processed is not contained in what it knew.
        let found_at = self.last_processed_at.or(self.last_synced_at).unwrap_or(run.now);
        for (name, user) in &self.users {
            let username = match Username::parse(name) {
                Ok(username) => username,
                Err(error) => {
                    imported.skipped.push(format!("{name}: {error}"));
                    continue;
                }
            };
            let book = run.books.name(&username.key()).await?;
            if book
                .claims
                .iter()
                .any(|claim| claim.scripts.contains_key(&self.script_id))
            {
                imported
                    .skipped
                    .push(format!("{name}: a customer has access under this name already"));
                continue;
            }
            let end = match (user.lifetime, user.expiry) {
                (true, _) | (false, None) => Expiry::Lifetime,
                (false, Some(end)) => Expiry::At(end),
            };
            imported.users = imported.users.saturating_add(1);
            found.push(Claimant {
                username,
                person: None,
                scripts: [(self.script_id.clone(), end)].into(),
                found_at: Some(found_at),
            });
        }
        run.books.save_baselines(&self.script_id, found).await?;
        let known = run.record.bootstrapped.get(&self.script_id);
        let bootstrapped = Bootstrapped {
            at: known.map_or(run.now, |known| known.at),
            users: known
                .map_or(0, |known| known.users)
                .saturating_add(imported.users),
        };
        run.record
            .bootstrapped
            .insert(self.script_id.clone(), bootstrapped);
        Ok(imported)
    }
}

impl User {
    fn before_berth(end: Expiry) -> Self {
        Self {
            expiry: end.at(),
            lifetime: end == Expiry::Lifetime,
            ..Self::default()
        }
    }

    fn ends(&self) -> Expiry {
        match self.expiry {
            _ if self.lifetime => Expiry::Lifetime,
            Some(end) => Expiry::At(end),
            None => Expiry::NoAccess,
        }
    }
}

fn history(ledger: &Ledger) -> Vec<Purchase> {
    let segments = ledger.reckon().segments;
    let mut history: Vec<Purchase> = (ledger.entries.values())
        .map(|entry| {
            let segment = segments
                .iter()
                .find(|segment| segment.transaction == entry.transaction);
            Purchase {
                transaction_id: entry.transaction.clone(),
                created_at: entry.created_at,
                starts_at: segment.map(|segment| segment.begins),
                ends_at: segment.and_then(|segment| segment.until.at()),
                reversed: entry.reversed().is_some(),
            }
        })
        .collect();
    history.sort_by(|a, b| (a.created_at, &a.transaction_id).cmp(&(b.created_at, &b.transaction_id)));
    history
}
