//! Reading and writing what the access sync stores. A customer, the audit entry that tells of the change, what waits for a
//! person because of it and the letters that it causes are written together or not at all.
//!
//! A dry run writes into memory instead, and so sees what it would have written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::customer::Customer;
use super::ids::{PersonId, ScriptId, TransactionId};
use super::ledger::Baseline;
use super::plan::{Plan, PlannedAction};
use super::records::{
    Bucket, Claimant, Hint, NameBook, Names, OpenItem, OpenKind, Payment, Position, Registered, RunRecord,
    bucket, due_person, person_of, sortable,
};
use crate::ids::TenantId;
use crate::store::{
    Condition, Expression, IndexKey, Item, Key, Outcome, Store, StoreError, Transaction, Write, from_item,
    to_item,
};
use crate::telemetry::new_id;

/// Most writes that DynamoDB makes together.
const MOST_WRITES: usize = 100;

/// Most bytes of documents that are written together. DynamoDB takes 4 MB, keys and all else included.
const MOST_BYTES: usize = 3_000_000;

/// Most bytes of a document in one item. DynamoDB takes 400 KB, keys and all else included.
const PART_BYTES: usize = 350_000;

/// How often a customer in several items is read before it is said that there is no reading it.
const MOST_READS: u32 = 20;

/// How long is waited before that.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How long a plan may wait for approval.
const PLAN_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Actions of a plan in one item.
const PLAN_PART: usize = 1_000;

/// Some of a plan's actions.
#[derive(Debug, Serialize, Deserialize)]
struct PlanPart {
    actions: Vec<PlannedAction>,
}

/// A record as one text, which costs DynamoDB, and everybody on the way to it, far less than a tree of attributes does.
/// What the table itself looks at stands beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Document {
    /// The revision that the next write depends on.
    rev: u64,
    /// How many transactions wait to be tried again.
    #[serde(default)]
    retries: u64,
    /// In how many items beside this one the rest of the record stands, each of which has this revision.
    #[serde(default)]
    parts: u64,
    /// The record, as JSON, or a part of it.
    document: String,
}

impl Document {
    fn of(record: &impl Serialize) -> Self {
        Self::part(0, json(record))
    }

    fn part(rev: u64, document: String) -> Self {
        Self {
            rev,
            retries: 0,
            parts: 0,
            document,
        }
    }

    fn read<T: DeserializeOwned>(item: &Item) -> Result<T, StoreError> {
        let stored: Self = from_item(item)?;
        stored.parse(&Key::of(item))
    }

    fn parse<T: DeserializeOwned>(&self, key: &Key) -> Result<T, StoreError> {
        serde_json::from_str(&self.document).map_err(|error| StoreError::Malformed {
            key: key.to_string(),
            reason: error.to_string(),
        })
    }
}

fn json(record: &impl Serialize) -> String {
    // Texts, numbers and times can always be written as JSON.
    serde_json::to_string(record).unwrap_or_default()
}

/// A text in pieces of at most so many bytes; one, perhaps empty, where it is short.
fn pieces(text: &str, most: usize) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while rest.len() > most {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(most));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

/// Why something could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else has written it in the meantime, so another run is at it.
    #[error("another run has taken over")]
    Overtaken,
}

/// A customer to be written.
#[derive(Debug, Clone)]
pub struct Saving {
    /// As it was read; `None` where there was none.
    pub before: Option<Customer>,
    /// As it is to be.
    pub after: Customer,
    /// What happened, for the audit.
    pub events: Vec<AuditEvent>,
    /// Writes that put letters into the outbox, each of which changes nothing where it was made before.
    pub notices: Vec<Write>,
}

/// What happened to a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// What, such as `access.granted`.
    pub event: String,
    /// The script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_id: Option<ScriptId>,
    /// The transactions that it was about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transactions: Vec<TransactionId>,
    /// More about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// An entry of a customer's audit chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number, counted from 1.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Who: a schedule, or an operator.
    pub actor: String,
    /// What happened.
    pub events: Vec<AuditEvent>,
    /// The hash of the entry before it; empty for the first.
    pub previous: String,
    /// The hash of all this.
    pub hash: String,
}

/// What the access sync has stored.
#[derive(Debug, Clone)]
pub struct Books {
    store: Store,
    names: Names,
    actor: String,
    now: Timestamp,
    /// What a dry run would have written; `None` where it is written.
    kept: Option<Kept>,
}

#[derive(Debug, Clone, Default)]
struct Kept {
    customers: HashMap<PersonId, Customer>,
    claims: HashMap<String, BTreeMap<PersonId, Claimant>>,
    baselines: HashMap<String, BTreeMap<ScriptId, Baseline>>,
    buckets: HashMap<String, Bucket>,
}

impl Books {
    /// The books of a tenant, kept by `actor` at the time `now`.
    #[must_use]
    pub fn new(store: Store, tenant: TenantId, actor: &str, now: Timestamp) -> Self {
        Self {
            store,
            names: Names::new(tenant),
            actor: actor.to_owned(),
            now,
            kept: None,
        }
    }

    /// The same books, of which nothing is written any more.
    #[must_use]
    pub fn dry(&self) -> Self {
        Self {
            kept: Some(Kept::default()),
            ..self.clone()
        }
    }

    /// Whether nothing is written.
    #[must_use]
    pub fn is_dry(&self) -> bool {
        self.kept.is_some()
    }

    /// The names of items.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The table.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The time that these books are kept by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    // ---- Customers ----

    /// These customers, as far as they are known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn customers(
        &self,
        persons: impl IntoIterator<Item = PersonId>,
    ) -> Result<BTreeMap<PersonId, Customer>, StoreError> {
        let mut found = BTreeMap::new();
        let mut keys = Vec::new();
        for person in persons {
            match self.kept.as_ref().and_then(|kept| kept.customers.get(&person)) {
                Some(customer) => {
                    found.insert(person, customer.clone());
                }
                None => keys.push(self.names.customer(person)),
            }
        }
        for item in self.store.get_all(&keys, self.now).await? {
            let key = Key::of(&item);
            let head: Document = from_item(&item)?;
            if let Some(customer) = self.whole(key, head).await? {
                found.insert(customer.person, customer);
            }
        }
        Ok(found)
    }

    /// The customer whose document begins with `head`. Nearly everybody's ends with it, too, and costs no other read.
    async fn whole(&self, key: Key, mut head: Document) -> Result<Option<Customer>, StoreError> {
        for _ in 0..MOST_READS {
            let keys: Vec<Key> = (1..=head.parts)
                .map(|number| self.names.customer_part(&key, number))
                .collect();
            let mut texts = vec![String::new(); keys.len()];
            if !keys.is_empty() {
                for item in self.store.get_all(&keys, self.now).await? {
                    let own = Key::of(&item);
                    let part: Document = from_item(&item)?;
                    let place = keys.iter().position(|key| *key == own);
                    let text = place.and_then(|place| texts.get_mut(place));
                    if let Some(text) = text.filter(|_| part.rev == head.rev) {
                        *text = part.document;
                    }
                }
            }
            if texts.iter().all(|text| !text.is_empty()) {
                head.document.extend(texts);
                let customer: Customer = head.parse(&key)?;
                return Ok(Some(Customer {
                    parts: head.parts,
                    ..customer
                }));
            }
            // The customer was written between the two reads.
            tokio::time::sleep(READ_AGAIN_AFTER).await;
            match self.store.get(&key, self.now).await? {
                Some(item) => head = from_item(&item)?,
                None => return Ok(None),
            }
        }
        Err(StoreError::Unavailable(
            "a customer is written again and again while it is read".to_owned(),
        ))
    }

    /// One customer.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn customer(&self, person: PersonId) -> Result<Option<Customer>, StoreError> {
        Ok(self.customers([person]).await?.remove(&person))
    }

    /// Who has something to do by now, with where the next of them begin.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due(
        &self,
        limit: i32,
        start: Option<Item>,
    ) -> Result<(Vec<PersonId>, Option<Item>), StoreError> {
        let to = format!("{}~", sortable(self.now));
        let page = (self.store)
            .index_range(
                &self.names.due(),
                &("0"..=to.as_str()),
                Some(limit),
                start,
                self.now,
            )
            .await?;
        let persons = page.items.iter().filter_map(due_person);
        Ok((persons.collect(), page.next))
    }

    /// Writes customers with all that belongs to the change, and gives them back as they stand there now.
    ///
    /// # Errors
    /// [`NotKept`]; what of several was written is not known then.
    pub async fn save(&mut self, savings: Vec<Saving>) -> Result<Vec<Customer>, NotKept> {
        let mut saved = Vec::with_capacity(savings.len());
        let (mut group, mut bytes) = (Group::default(), 0_usize);
        for mut saving in savings {
            let is_as_before = saving.before.as_ref() == Some(&saving.after);
            if is_as_before && saving.events.is_empty() && saving.notices.is_empty() {
                saved.push(saving.after);
                continue;
            }
            saving.after.rev = saving
                .before
                .as_ref()
                .map_or(0, |before| before.rev)
                .saturating_add(1);
            if let Some(kept) = &mut self.kept {
                kept.take(&saving.after);
                saved.push(saving.after);
                continue;
            }
            let own = self.writes(&mut saving)?;
            let size = own.bytes();
            saved.push(saving.after);
            bytes = bytes.saturating_add(size);
            if group.writes.len().saturating_add(own.writes.len()) > MOST_WRITES || bytes > MOST_BYTES {
                self.commit(std::mem::take(&mut group)).await?;
                bytes = size;
            }
            group.append(own);
        }
        self.commit(group).await?;
        Ok(saved)
    }

    /// The writes of one customer: the customer first.
    fn writes(&self, saving: &mut Saving) -> Result<Group, StoreError> {
        let mut group = Group::default();
        let audit = (!saving.events.is_empty()).then(|| self.audit_entry(saving));
        let person = saving.after.person;
        let condition = match &saving.before {
            Some(before) => Condition::Revision(before.rev),
            None => Condition::Absent,
        };
        let customer = &mut saving.after;
        let key = self.names.customer(person);
        let text = json(customer);
        let mut texts = pieces(&text, PART_BYTES).into_iter();
        let had_parts = customer.parts;
        customer.parts = u64::try_from(texts.len().saturating_sub(1)).unwrap_or(u64::MAX);
        let head = Document {
            retries: customer.retries(),
            parts: customer.parts,
            ..Document::part(customer.rev, texts.next().unwrap_or_default().to_owned())
        };
        let item = to_item(&key, &head, self.names.due_index(customer).as_ref(), None)?;
        group.push(Write::Put { item, condition }, false);
        // Whoever writes the head owns the parts, so that they need no condition of their own.
        let condition = Condition::Always;
        for (number, text) in (1..).zip(texts) {
            let part = Document::part(customer.rev, text.to_owned());
            let item = to_item(&self.names.customer_part(&key, number), &part, None, None)?;
            let condition = condition.clone();
            group.push(Write::Put { item, condition }, false);
        }
        for number in customer.parts.saturating_add(1)..=had_parts {
            let key = self.names.customer_part(&key, number);
            let condition = condition.clone();
            group.push(Write::Delete { key, condition }, false);
        }
        if let Some(entry) = audit {
            let item = to_item(&self.names.audit(person, entry.number), &entry, None, None)?;
            let condition = Condition::Absent;
            group.push(Write::Put { item, condition }, false);
        }
        group.bound = group.writes.len();
        let was_open = saving
            .before
            .as_ref()
            .map(|before| before.open(self.now))
            .unwrap_or_default();
        let open = saving.after.open(self.now);
        for (id, item) in &open {
            let same = was_open.get(id).is_some_and(|was| was.is_same(item));
            if !same {
                let index = IndexKey {
                    gsi1pk: self.names.opened(item.kind),
                    gsi1sk: format!("{}#{id}", sortable(item.created_at)),
                };
                let item = to_item(&self.names.open(person, id), item, Some(&index), None)?;
                let condition = condition.clone();
                group.push(Write::Put { item, condition }, false);
            }
        }
        for id in was_open.keys().filter(|id| !open.contains_key(*id)) {
            let key = self.names.open(person, id);
            let condition = condition.clone();
            group.push(Write::Delete { key, condition }, false);
        }
        let had = saving.before.as_ref().map(Customer::claimed).unwrap_or_default();
        let has = saving.after.claimed();
        for (name, claimant) in &has {
            if had.get(name) != Some(claimant) {
                let key = self.names.claim(name, person);
                let item = to_item(&key, claimant, self.names.live_index(claimant).as_ref(), None)?;
                let condition = condition.clone();
                group.push(Write::Put { item, condition }, false);
            }
        }
        for name in had.keys().filter(|name| !has.contains_key(*name)) {
            let key = self.names.claim(name, person);
            let condition = condition.clone();
            group.push(Write::Delete { key, condition }, false);
        }
        let moved = saving.before.iter().flat_map(Customer::left);
        let leaves: Vec<_> = saving.after.left().collect();
        for (script, name) in moved.filter(|moved| !leaves.contains(moved)) {
            // What a name had before Berth is no more where its access was moved away from it.
            let key = self.names.baseline(&name.key(), script);
            let condition = condition.clone();
            group.push(Write::Delete { key, condition }, false);
        }
        for notice in std::mem::take(&mut saving.notices) {
            group.push(notice, false);
        }
        Ok(group)
    }

    fn audit_entry(&self, saving: &mut Saving) -> AuditEntry {
        let chain = &mut saving.after.audit;
        let mut entry = AuditEntry {
            number: chain.entries.saturating_add(1),
            at: self.now,
            actor: self.actor.clone(),
            events: std::mem::take(&mut saving.events),
            previous: chain.hash.clone(),
            hash: String::new(),
        };
        entry.hash = entry.reckon_hash();
        chain.entries = entry.number;
        chain.hash.clone_from(&entry.hash);
        entry
    }

    async fn commit(&self, mut group: Group) -> Result<(), NotKept> {
        // What is derived from customers may be there before them, but never the other way round.
        while group.writes.len() > MOST_WRITES {
            let later = group.split_off_derived();
            self.transact(later).await?;
        }
        self.transact(group).await
    }

    async fn transact(&self, mut group: Group) -> Result<(), NotKept> {
        while !group.writes.is_empty() {
            let transaction = Transaction {
                token: new_id(),
                writes: group.writes.clone(),
            };
            match self.store.transact(&transaction, self.now).await? {
                Outcome::Won | Outcome::AlreadyMine => return Ok(()),
                Outcome::Lost(obstacles) => {
                    // A letter that is there already is not written again; anything else belongs to another run.
                    let before = group.writes.len();
                    group.drop_notices(&obstacles);
                    if group.writes.len() == before {
                        return Err(NotKept::Overtaken);
                    }
                }
            }
        }
        Ok(())
    }

    // ---- Names ----

    /// All that is known of a name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn name(&self, key: &str) -> Result<NameBook, StoreError> {
        let mut book = NameBook::default();
        let mut claims = BTreeMap::new();
        for item in self.store.partition(&self.names.name(key), self.now).await? {
            let claimant: Claimant = from_item(&item)?;
            match (Key::of(&item).sk.strip_prefix("BASELINE#"), claimant.person) {
                (Some(script), _) => {
                    let script = ScriptId::new(script);
                    let end = claimant.scripts.get(&script).copied().unwrap_or_default();
                    let found_at = claimant.found_at.unwrap_or(Timestamp::UNIX_EPOCH);
                    let baseline = Baseline::new(end, found_at).under(claimant.username);
                    book.baselines.insert(script, baseline);
                }
                (None, Some(person)) => {
                    claims.insert(person, claimant);
                }
                (None, None) => {}
            }
        }
        if let Some(kept) = &self.kept {
            claims.extend(
                kept.claims
                    .get(key)
                    .into_iter()
                    .flatten()
                    .map(|(person, claim)| (*person, claim.clone())),
            );
            book.baselines
                .extend(kept.baselines.get(key).cloned().unwrap_or_default());
        }
        book.claims = claims.into_values().collect();
        Ok(book)
    }

    /// Notes what a name had of a script before Berth.
    ///
    /// # Errors
    /// [`NotKept`].
    pub async fn save_baselines(&mut self, script: &ScriptId, found: Vec<Claimant>) -> Result<(), NotKept> {
        // Of two spellings of one name the later end counts.
        let mut by_name: BTreeMap<String, Claimant> = BTreeMap::new();
        for claimant in found {
            let end = claimant.scripts.get(script).copied();
            match by_name.get_mut(&claimant.username.key()) {
                Some(known) if known.scripts.get(script).copied() >= end => {}
                _ => {
                    by_name.insert(claimant.username.key(), claimant);
                }
            }
        }
        let mut group = Group::default();
        for (name, claimant) in by_name {
            if let Some(kept) = &mut self.kept {
                let end = claimant.scripts.get(script).copied().unwrap_or_default();
                let baseline = Baseline::new(end, self.now).under(claimant.username);
                kept.baselines
                    .entry(name)
                    .or_default()
                    .insert(script.clone(), baseline);
                continue;
            }
            let index = self.names.live_index(&claimant);
            let item = to_item(
                &self.names.baseline(&name, script),
                &claimant,
                index.as_ref(),
                None,
            )?;
            // What was found first stays: later finds hold what Berth has given since.
            group.push(
                Write::Put {
                    item,
                    condition: Condition::Absent,
                },
                true,
            );
            if group.writes.len() == MOST_WRITES {
                self.transact(std::mem::take(&mut group)).await?;
            }
        }
        self.transact(group).await
    }

    /// How many customers have something to do by now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_due(&self) -> Result<u64, StoreError> {
        let to = format!("{}~", sortable(self.now));
        self.store
            .index_count(&self.names.due(), &("0"..=to.as_str()))
            .await
    }

    /// Writes into the outbox.
    ///
    /// # Errors
    /// [`NotKept`].
    pub async fn save_notices(&self, notices: Vec<Write>) -> Result<(), NotKept> {
        let mut group = Group::default();
        if !self.is_dry() {
            for notice in notices {
                group.push(notice, false);
            }
        }
        self.transact(group).await
    }

    /// Calls `each` with every name that has access now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn each_live(&self, mut each: impl FnMut(Claimant)) -> Result<(), StoreError> {
        let (from, mut start) = (sortable(self.now), None);
        loop {
            let range = from.as_str()..="~";
            let page = self
                .store
                .index_range(&self.names.live(), &range, None, start, self.now)
                .await?;
            for item in &page.items {
                each(from_item(item)?);
            }
            start = page.next;
            if start.is_none() {
                return Ok(());
            }
        }
    }

    /// Calls `each` with every name that has or had access.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn each_name(&self, mut each: impl FnMut(Claimant)) -> Result<(), StoreError> {
        let mut start = None;
        loop {
            let page = self
                .store
                .index_page(&self.names.live(), None, start, self.now)
                .await?;
            for item in &page.items {
                each(from_item(item)?);
            }
            start = page.next;
            if start.is_none() {
                return Ok(());
            }
        }
    }

    // ---- Rows ----

    /// The buckets of the register that these transactions belong to, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn buckets<'t>(
        &self,
        transactions: impl IntoIterator<Item = &'t TransactionId>,
    ) -> Result<BTreeMap<String, Bucket>, StoreError> {
        let wanted: BTreeSet<String> = transactions.into_iter().map(bucket).collect();
        let mut buckets: BTreeMap<String, Bucket> = wanted
            .iter()
            .map(|name| (name.clone(), Bucket::default()))
            .collect();
        let keys: Vec<Key> = wanted.iter().map(|name| self.names.register(name)).collect();
        for item in self.store.get_all(&keys, self.now).await? {
            let read: Bucket = Document::read(&item)?;
            if let Some(first) = read.rows.keys().next() {
                buckets.insert(bucket(first), read);
            }
        }
        for name in wanted {
            if let Some(own) = self.kept.as_ref().and_then(|kept| kept.buckets.get(&name)) {
                buckets.insert(name, own.clone());
            }
        }
        Ok(buckets)
    }

    /// Writes buckets of the register.
    ///
    /// # Errors
    /// [`NotKept`].
    pub async fn save_buckets(&mut self, buckets: BTreeMap<String, Bucket>) -> Result<(), NotKept> {
        let mut group = Group::default();
        for (name, bucket) in buckets {
            if let Some(kept) = &mut self.kept {
                kept.buckets.insert(name, bucket);
                continue;
            }
            let index = IndexKey {
                gsi1pk: self.names.registers(),
                gsi1sk: name.clone(),
            };
            let document = Document::of(&bucket);
            let item = to_item(&self.names.register(&name), &document, Some(&index), None)?;
            let condition = Condition::Always;
            group.push(Write::Put { item, condition }, false);
            if group.writes.len() == MOST_WRITES {
                self.transact(std::mem::take(&mut group)).await?;
            }
        }
        self.transact(group).await
    }

    /// A page of all buckets, with where the next begins.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn all_buckets(
        &self,
        start: Option<Item>,
    ) -> Result<(Vec<(TransactionId, Registered)>, Option<Item>), StoreError> {
        let page = self
            .store
            .index_page(&self.names.registers(), Some(50), start, self.now)
            .await?;
        let mut rows = Vec::new();
        for item in &page.items {
            let read: Bucket = Document::read(item)?;
            rows.extend(read.rows);
        }
        Ok((rows, page.next))
    }

    /// The transactions that these numbers of gateways belong to, by number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn payments(&self, numbers: &BTreeSet<String>) -> Result<HashMap<String, Payment>, StoreError> {
        let by_key: HashMap<Key, &String> = numbers
            .iter()
            .map(|number| (self.names.payment(number), number))
            .collect();
        let keys: Vec<Key> = by_key.keys().cloned().collect();
        let mut found = HashMap::new();
        for item in self.store.get_all(&keys, self.now).await? {
            if let Some(number) = by_key.get(&Key::of(&item)) {
                found.insert((*number).clone(), from_item(&item)?);
            }
        }
        Ok(found)
    }

    /// Notes the transactions that had these numbers first.
    ///
    /// # Errors
    /// [`NotKept`].
    pub async fn save_payments(&mut self, payments: Vec<(String, Payment)>) -> Result<(), NotKept> {
        if self.is_dry() {
            return Ok(());
        }
        let mut group = Group::default();
        for (number, payment) in payments {
            let item = to_item(&self.names.payment(&number), &payment, None, None)?;
            let condition = Condition::Absent;
            group.push(Write::Put { item, condition }, true);
            if group.writes.len() == MOST_WRITES {
                self.transact(std::mem::take(&mut group)).await?;
            }
        }
        self.transact(group).await
    }

    // ---- What waits for a person ----

    /// Where a listing goes on after something that waits.
    #[must_use]
    pub fn after_open(&self, position: &Position) -> Option<Item> {
        let person = person_of(&position.id)?;
        let mut start = self.names.open(person, &position.id).to_item();
        let index = IndexKey {
            gsi1pk: self.names.opened(position.kind),
            gsi1sk: format!("{}#{}", sortable(position.created_at), position.id),
        };
        start.extend(index.to_item());
        Some(start)
    }

    /// A page of what waits, the longest waiting first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(
        &self,
        kind: OpenKind,
        limit: i32,
        start: Option<Item>,
    ) -> Result<(Vec<OpenItem>, Option<Item>), StoreError> {
        let page = self
            .store
            .index_page(&self.names.opened(kind), Some(limit), start, self.now)
            .await?;
        let items = page.items.iter().map(from_item).collect::<Result<_, _>>()?;
        Ok((items, page.next))
    }

    /// How much of one kind waits.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_open(&self, kind: OpenKind) -> Result<u64, StoreError> {
        self.store
            .index_count(&self.names.opened(kind), &("0"..="~"))
            .await
    }

    /// How many transactions wait to be tried again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_retries(&self) -> Result<u64, StoreError> {
        self.store.index_sum(&self.names.due(), "retries").await
    }

    /// Something that waits, by its id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn opened(&self, id: &str) -> Result<Option<OpenItem>, StoreError> {
        let Some(person) = person_of(id) else {
            return Ok(None);
        };
        let item = self.store.get(&self.names.open(person, id), self.now).await?;
        item.as_ref().map(from_item).transpose()
    }

    // ---- Hints ----

    /// The transactions that the shop said have changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hints(&self) -> Result<Vec<Hint>, StoreError> {
        let items = self.store.partition(&self.names.hints(), self.now).await?;
        items.iter().map(from_item).collect()
    }

    /// Notes that the shop said that a transaction has changed.
    ///
    /// # Errors
    /// [`NotKept`].
    pub async fn save_hint(&self, transaction: &TransactionId) -> Result<(), NotKept> {
        let hint = Hint {
            transaction: transaction.clone(),
            at: self.now,
            id: new_id(),
        };
        let item = to_item(&self.names.hint(transaction), &hint, None, None)?;
        self.store.put(item, &Condition::Always, self.now).await?;
        Ok(())
    }

    /// Forgets hints that were followed. One that has come about the same transaction since stays: what it is about may
    /// have changed after it was read.
    ///
    /// # Errors
    /// [`NotKept`].
    pub async fn drop_hints(&self, hints: &[Hint]) -> Result<(), NotKept> {
        if self.is_dry() {
            return Ok(());
        }
        for hint in hints {
            let same = Expression {
                condition: "#id = :id".to_owned(),
                names: HashMap::from([("#id".to_owned(), "id".to_owned())]),
                values: HashMap::from([(":id".to_owned(), AttributeValue::S(hint.id.clone()))]),
                ..Expression::default()
            };
            let key = self.names.hint(&hint.transaction);
            let condition = Condition::Expression(same);
            // A later one stands in the way, which is as it should be.
            let _stays = self.store.delete(&key, &condition, self.now).await?;
        }
        Ok(())
    }

    // ---- Plans ----

    /// Keeps a plan for approval.
    ///
    /// # Errors
    /// [`NotKept`].
    pub async fn save_plan(&self, plan: &Plan) -> Result<(), NotKept> {
        let partition = self.names.plan(&plan.id);
        let expires_at = self.now.checked_add(PLAN_KEPT).ok();
        let parts: Vec<&[PlannedAction]> = plan.actions.chunks(PLAN_PART).collect();
        // The head comes last, so that a plan is whole wherever it is found.
        for (number, actions) in parts.into_iter().enumerate() {
            let part = PlanPart {
                actions: actions.to_vec(),
            };
            let key = Key::new(partition.clone(), format!("PLAN#{number:06}"));
            let item = to_item(&key, &part, None, expires_at)?;
            self.store.put(item, &Condition::Always, self.now).await?;
        }
        let head = Plan {
            actions: Vec::new(),
            ..plan.clone()
        };
        let item = to_item(&Key::new(partition, "HEAD"), &head, None, expires_at)?;
        self.store.put(item, &Condition::Always, self.now).await?;
        Ok(())
    }

    /// A plan, by its id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn plan(&self, id: &str) -> Result<Option<Plan>, StoreError> {
        let mut plan: Option<Plan> = None;
        for item in self.store.partition(&self.names.plan(id), self.now).await? {
            // The head comes first in the order of sort keys.
            match &mut plan {
                None if Key::of(&item).sk == "HEAD" => plan = Some(from_item(&item)?),
                None => return Ok(None),
                Some(plan) => plan.actions.extend(from_item::<PlanPart>(&item)?.actions),
            }
        }
        Ok(plan)
    }

    // ---- Runs ----

    /// What runs know of each other.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn run_record(&self) -> Result<RunRecord, StoreError> {
        let item = self.store.get(&self.names.run(), self.now).await?;
        Ok(item.as_ref().map(from_item).transpose()?.unwrap_or_default())
    }

    /// Writes what runs know of each other, if nobody else has since it was read.
    ///
    /// # Errors
    /// [`NotKept`].
    pub async fn save_run(&self, record: &mut RunRecord) -> Result<(), NotKept> {
        if self.is_dry() {
            return Ok(());
        }
        let condition = match record.rev {
            0 => Condition::Absent,
            rev => Condition::Revision(rev),
        };
        let next = RunRecord {
            rev: record.rev.saturating_add(1),
            ..record.clone()
        };
        let item = to_item(&self.names.run(), &next, None, None)?;
        if !self.store.put(item, &condition, self.now).await?.is_made() {
            return Err(NotKept::Overtaken);
        }
        *record = next;
        Ok(())
    }
}

impl Kept {
    fn take(&mut self, customer: &Customer) {
        for (name, claimant) in customer.claimed() {
            self.claims
                .entry(name)
                .or_default()
                .insert(customer.person, claimant);
        }
        self.customers.insert(customer.person, customer.clone());
    }
}

impl OpenItem {
    /// Whether both are the same but for the time.
    fn is_same(&self, other: &Self) -> bool {
        let content = |item: &Self| {
            (
                item.kind,
                item.reason.clone(),
                item.username.clone(),
                item.suggestions.clone(),
                item.expired,
            )
        };
        content(self) == content(other)
    }
}

impl AuditEntry {
    /// The hash that the entry has to have.
    #[must_use]
    pub fn reckon_hash(&self) -> String {
        let content = (self.number, self.at, &self.actor, &self.events, &self.previous);
        // Texts, numbers and times can always be written as JSON.
        let text = serde_json::to_vec(&content).unwrap_or_default();
        data_encoding::HEXLOWER.encode(&Sha256::digest(text))
    }
}

/// Writes that belong together, and which of them may be there already.
#[derive(Debug, Clone, Default)]
struct Group {
    writes: Vec<Write>,
    may_be_there: Vec<bool>,
    /// How many of the first are never written without each other.
    bound: usize,
}

impl Group {
    fn push(&mut self, write: Write, may_be_there: bool) {
        self.writes.push(write);
        self.may_be_there.push(may_be_there);
    }

    fn append(&mut self, mut other: Self) {
        if self.writes.is_empty() {
            self.bound = other.bound;
        }
        self.writes.append(&mut other.writes);
        self.may_be_there.append(&mut other.may_be_there);
    }

    /// About how long the documents in it are.
    fn bytes(&self) -> usize {
        let document = |write: &Write| match write {
            Write::Put { item, .. } => item.get("document")?.as_s().ok().map(String::len),
            _ => None,
        };
        self.writes.iter().filter_map(document).sum()
    }

    /// Takes as many writes from the end as DynamoDB makes together. The customer and the audit entry, which are the
    /// first, stay.
    fn split_off_derived(&mut self) -> Self {
        let at = self.writes.len().saturating_sub(MOST_WRITES).max(self.bound);
        Self {
            writes: self.writes.split_off(at),
            may_be_there: self.may_be_there.split_off(at),
            bound: 0,
        }
    }

    fn drop_notices(&mut self, obstacles: &[Option<Item>]) {
        let stopped = |index: usize| obstacles.get(index).is_some_and(Option::is_some);
        let droppable: Vec<bool> = (self.may_be_there.iter().enumerate())
            .map(|(index, may)| *may && stopped(index))
            .collect();
        let mut keep = droppable.iter().map(|drop| !drop);
        self.writes.retain(|_| keep.next().unwrap_or(true));
        let mut keep = droppable.iter().map(|drop| !drop);
        self.may_be_there.retain(|_| keep.next().unwrap_or(true));
    }
}
