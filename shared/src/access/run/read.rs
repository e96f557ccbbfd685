//! Reading the shop into the customers' records.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use roaring::RoaringTreemap;
use serde_json::Value;

use super::{MOST_FAILURES, Refused, Run, later};
use crate::access::assessment::{Change, Rules};
use crate::access::configuration::ShopKind;
use crate::access::customer::{Context, Customer};
use crate::access::guards::{Coverage, Scan, Unsound};
use crate::access::ids::{PersonId, ProductId, ScriptId, TransactionId};
use crate::access::ledger::Baseline;
use crate::access::names::Username;
use crate::access::plan::Mode;
use crate::access::records::{
    Checkpoint, FullScan, Hint, OpenKind, Payment, Registered, bucket, number_of, short_hash,
};
use crate::access::shop::{Ask, PageMark};
use crate::access::transactions::{Row, RowReader};

/// How long a full scan is good for.
pub(in crate::access) const FULL_SCAN_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// How old an unfinished full scan may be to be gone on with.
const CHECKPOINT_GOOD_FOR: SignedDuration = SignedDuration::from_hours(6);

/// How many rows that take something back are kept in memory until the scan has shown that it is to be believed. Those
/// beyond are read again by the next run.
const MOST_LATE: usize = 5_000;

/// How many transactions that a scan did not list are taken for gone at most, each after it was asked for. The rest is
/// for the next full scan: as much as this is held back for an operator anyway.
const MOST_ASKED_FOR: u32 = 1_000;

/// The time that a chunk of rows may take to be read and stored. None is begun with less left.
const CHUNK: Duration = Duration::from_secs(4);

/// How many rows that take something back are asked for one by one after a scan that was left off.
const MOST_HINTS: usize = 500;

/// How long a shop that lists far less than before has to go on listing so much to be believed.
const BELIEVED_AFTER: SignedDuration = SignedDuration::from_hours(3 * 24);

/// What of the shop is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::access) enum Extent {
    /// What is recent; all where that is due.
    AsDue,
    /// All.
    All,
    /// All, and the rows of a product whether they have changed or not.
    Product(ProductId),
}

/// A scan under way.
struct Reading {
    full: bool,
    resync: Option<ProductId>,
    began_at: Timestamp,
    scan: Scan,
    seen: RoaringTreemap,
    newest: Option<Timestamp>,
    /// The rows that take something back, for when the scan is believed.
    late: Vec<Row>,
}

impl Run<'_> {
    /// Reads the shop.
    ///
    /// # Errors
    /// [`Refused::Shop`] where it fails, and what the store says.
    pub(in crate::access) async fn read(&mut self, extent: &Extent) -> Result<(), Refused> {
        if !Box::pin(self.find_baselines()).await? {
            return Ok(());
        }
        self.record.started_at = Some(self.now);
        let (mut reading, ask) = self.open(extent).await?;
        let mut scanning = self.shop.scan(ask);
        let mut mark: Option<PageMark> = None;
        loop {
            self.keep_lease().await?;
            if self.is_out_of_time_within(CHUNK) {
                return self.leave_off(&reading, mark).await;
            }
            let chunk = match scanning.next().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) if error.is_timeout() && self.is_out_of_time() => {
                    return self.leave_off(&reading, mark).await;
                }
                Err(error) => return Err(error.into()),
            };
            reading
                .scan
                .note_page(u64::try_from(chunk.rows.len()).unwrap_or(u64::MAX), chunk.total);
            let first = usize::try_from(reading.scan.rows())
                .unwrap_or(usize::MAX)
                .saturating_sub(chunk.rows.len());
            Box::pin(self.take_raw(&mut reading, &chunk.rows, first)).await?;
            mark = chunk.mark;
        }
        let whole = reading.full && !scanning.is_limited();
        self.close(reading, whole).await
    }

    /// Reads single transactions that the shop said have changed, and says which of these words are followed by that.
    ///
    /// # Errors
    /// As [`Run::read`].
    pub(in crate::access) async fn read_transactions(
        &mut self,
        hints: Vec<Hint>,
    ) -> Result<Vec<Hint>, Refused> {
        let mut done = Vec::new();
        if hints.is_empty() || !Box::pin(self.find_baselines()).await? {
            return Ok(done);
        }
        let (mut rows, mut failures) = (Vec::new(), 0);
        for hint in hints {
            self.keep_lease().await?;
            let transaction = &hint.transaction;
            if failures == MOST_FAILURES || self.is_out_of_time() {
                break;
            }
            match self.shop.transaction(transaction).await {
                Ok(row) => rows.extend(row),
                // One that the shop cannot give must not stand in the way of all others. The scans see it, too.
                Err(error) => {
                    self.report.warn(format!("transaction {transaction}: {error}"));
                    if !error.is_about_the_call() {
                        failures += 1;
                        continue;
                    }
                }
            }
            done.push(hint);
        }
        let mut reading = Reading::new(false, None, self.now);
        Box::pin(self.take_raw(&mut reading, &rows, 0)).await?;
        // A transaction that was asked for by its id is believed: the answer is about nothing else.
        let late = std::mem::take(&mut reading.late);
        Box::pin(self.take(&mut reading, late, true)).await?;
        Ok(done)
    }

    /// What is read, and where that begins.
    async fn open(&mut self, extent: &Extent) -> Result<(Reading, Ask), Refused> {
        let resync = match extent {
            Extent::Product(product) => Some(product.clone()),
            Extent::AsDue | Extent::All => None,
        };
        if let Some(checkpoint) = self.record.checkpoint.clone()
            && later(checkpoint.began_at, CHECKPOINT_GOOD_FOR) > self.now
            && (resync.is_none() || resync == checkpoint.resync)
            && let Some(seen) = unpack(&checkpoint.seen)
        {
            let reading = Reading {
                scan: checkpoint.scan,
                seen,
                newest: checkpoint.newest,
                ..Reading::new(true, checkpoint.resync, checkpoint.began_at)
            };
            return Ok((reading, Ask::AllFrom(checkpoint.mark)));
        }
        // One of a time to come was made before the clock was moved back.
        let is_old = |scan: &FullScan| later(scan.at, FULL_SCAN_EVERY) <= self.now || scan.at > self.now;
        let full = *extent != Extent::AsDue || self.record.full_scan.as_ref().is_none_or(is_old);
        let ask = match self.record.watermark.filter(|_| !full) {
            Some(watermark) => Ask::Since(self.since(watermark).await?),
            None => Ask::All,
        };
        Ok((Reading::new(full, resync, self.now), ask))
    }

    /// How far back is read: the look-back, and to what waits for another name, as that may have been corrected.
    async fn since(&self, watermark: Timestamp) -> Result<Timestamp, Refused> {
        let lookback = self.configuration.policies.lookback;
        let mut since = watermark.checked_sub(lookback).unwrap_or(Timestamp::UNIX_EPOCH);
        let (waiting, _) = self.books.open(OpenKind::Review, 500, None).await?;
        for item in waiting
            .iter()
            .filter(|item| !item.expired && item.reason == "invalid_username")
        {
            since = item.bought_at.map_or(since, |bought_at| since.min(bought_at));
        }
        Ok(since)
    }

    /// The run has to stop: notes where the scan goes on, where it can.
    async fn leave_off(&mut self, reading: &Reading, mark: Option<PageMark>) -> Result<(), Refused> {
        self.stopped = true;
        self.report.complete = false;
        if let Some(mark) = mark.filter(|_| reading.full) {
            // What takes something back would not be seen by the part that goes on from here, so it is asked for.
            for row in reading.late.iter().take(MOST_HINTS) {
                self.books.save_hint(&row.transaction).await?;
            }
            self.record.checkpoint = Some(Checkpoint {
                began_at: reading.began_at,
                mark,
                scan: reading.scan.clone(),
                seen: pack(&reading.seen),
                newest: reading.newest,
                resync: reading.resync.clone(),
            });
        }
        Ok(self.books.save_run(&mut self.record).await?)
    }

    /// The scan is finished: what it takes back is believed, or the whole of it is not.
    async fn close(&mut self, mut reading: Reading, whole: bool) -> Result<(), Refused> {
        let had_rows = self.record.watermark.is_some();
        let coverage = if whole {
            let last = self.record.full_scan.as_ref().map(|scan| scan.rows);
            Coverage::Full { last }
        } else {
            Coverage::Recent
        };
        self.record.checkpoint = None;
        if let Err(unsound) = reading.scan.judge(coverage, had_rows)
            && !self.has_long_been_so(&unsound)
        {
            self.alert_daily("source", format!("{unsound}. Nothing was taken back."));
            self.report.distrust(unsound);
            return Ok(());
        }
        if whole {
            self.record.shrunken = None;
        }
        let late = std::mem::take(&mut reading.late);
        Box::pin(self.take(&mut reading, late, true)).await?;
        // Each row that MemberPress's pages did not have is asked for by its id.
        let is_asked = self.configuration.shop.kind == ShopKind::MemberPress;
        if whole && (is_asked || reading.scan.proves_absence()) {
            Box::pin(self.take_missing(&reading)).await?;
        }
        self.record.watermark = self.record.watermark.max(reading.newest);
        if reading.full {
            let rows = reading.scan.rows();
            let at = reading.began_at;
            self.record.full_scan = Some(FullScan { at, rows });
        }
        for script in self.configuration.scripts() {
            let markers = self.record.scripts.entry(script.clone()).or_default();
            markers.last_synced_at = Some(self.now);
        }
        Ok(())
    }

    /// Whether the shop has listed as little as this for days, so that rows were really deleted. Notes since when.
    fn has_long_been_so(&mut self, unsound: &Unsound) -> bool {
        let Unsound::Shrunken { rows, .. } = *unsound else {
            return false;
        };
        let now = self.now;
        let alike =
            |known: &FullScan| known.rows.abs_diff(rows).saturating_mul(20) <= rows && known.at <= now;
        let since = self
            .record
            .shrunken
            .take()
            .filter(alike)
            .unwrap_or(FullScan { at: now, rows });
        let believed = later(since.at, BELIEVED_AFTER) <= now;
        self.record.shrunken = Some(since);
        believed
    }

    // ---- Rows ----

    async fn take_raw(&mut self, reading: &mut Reading, raw: &[Value], first: usize) -> Result<(), Refused> {
        let configuration = std::sync::Arc::clone(&self.configuration);
        let reader = RowReader::new(&configuration.shop, self.now);
        let mut rows = Vec::with_capacity(raw.len());
        for (position, raw) in (first.saturating_add(1)..).zip(raw) {
            self.report.fetched = self.report.fetched.saturating_add(1);
            match reader.read(raw, position) {
                Ok(row) => {
                    reading.seen.insert(number_of(&row.transaction));
                    reading.newest = reading.newest.max(Some(row.created_at));
                    rows.push(row);
                }
                Err(malformed) => {
                    // What cannot be read is there all the same.
                    reading.seen.extend(malformed.transaction.as_ref().map(number_of));
                    self.report.quarantine(&malformed);
                }
            }
        }
        Box::pin(self.take(reading, rows, false)).await
    }

    /// Takes rows into the records of those whose they are. While the source is not known to be sound, what takes
    /// something back is put aside.
    async fn take(&mut self, reading: &mut Reading, rows: Vec<Row>, sound: bool) -> Result<(), Refused> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut buckets = self
            .books
            .buckets(rows.iter().map(|row| &row.transaction))
            .await?;
        let mut changed = Vec::new();
        for row in rows {
            let known = buckets
                .get(&bucket(&row.transaction))
                .and_then(|rows| rows.rows.get(&row.transaction));
            let hash = short_hash(&row.content_hash());
            let forced = reading.resync.as_ref() == Some(&row.product);
            if forced || known.is_none_or(|known| known.hash != hash) {
                changed.push((row, hash, known.and_then(|known| known.person)));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        if !sound {
            self.report.considered = self
                .report
                .considered
                .saturating_add(u64::try_from(changed.len()).unwrap_or(u64::MAX));
        }
        let persons: BTreeSet<PersonId> = changed
            .iter()
            .flat_map(|(row, _, known)| row.person.into_iter().chain(*known))
            .collect();
        let before = self.books.customers(persons.iter().copied()).await?;
        let mut after = before.clone();
        let mut payments = Payments::load(self, &changed).await?;
        let mut touched_buckets = BTreeMap::new();
        for (row, hash, registered) in changed {
            self.report.note_ambiguous(&row);
            let Some(person) = row.person.or(registered) else {
                self.report.count_change(&Change::Orphan);
                self.report
                    .warn(format!("transaction {}: its member was deleted", row.transaction));
                continue;
            };
            let mut changes = Vec::new();
            let moved_from = registered.filter(|registered| *registered != person);
            if let Some(other) = moved_from.and_then(|other| after.get_mut(&other)) {
                // It belongs to somebody else now: for whom it was it is as if that member were gone.
                let gone = Row {
                    person: None,
                    ..row.clone()
                };
                let baselines = BTreeMap::new();
                changes.extend(other.read(&gone, &self.context(&baselines, None, sound)));
            }
            let customer = match after.remove(&person) {
                Some(customer) => customer,
                None => Customer::new(person),
            };
            let baselines = self.baselines(&customer, &row).await?;
            let moved = moved_from.map(|_| row.transaction.clone());
            let same_payment = moved.or_else(|| payments.of_another(&row));
            let mut customer = customer;
            let context = self.context(&baselines, same_payment.as_ref(), sound);
            changes.extend(customer.read(&row, &context));
            after.insert(person, customer);
            if changes.contains(&Change::Withheld) {
                if !sound && reading.late.len() < MOST_LATE {
                    reading.late.push(row);
                }
                continue;
            }
            if changes.iter().any(|change| matches!(change, Change::Enter(_))) {
                payments.note(&row, person);
            }
            // One row counts once, by what matters most about it.
            if let Some(change) = changes.iter().find(|change| **change != Change::Nothing) {
                self.report.count_change(change);
            }
            let bucket_name = bucket(&row.transaction);
            if let Some(rows) = buckets.get_mut(&bucket_name) {
                let registered = Registered {
                    hash,
                    person: Some(person),
                };
                rows.rows.insert(row.transaction.clone(), registered);
                touched_buckets.insert(bucket_name, ());
            }
        }
        let savings = after
            .into_iter()
            .filter(|(person, customer)| match before.get(person) {
                Some(before) => before != customer,
                // Who has bought nothing that matters is not remembered.
                None => !customer.scripts.is_empty(),
            })
            .map(|(person, after)| self.saving(before.get(&person).cloned(), after, Vec::new()))
            .collect::<Result<Vec<_>, _>>()?;
        self.save(savings).await?;
        self.books.save_payments(payments.fresh).await?;
        buckets.retain(|name, _| touched_buckets.contains_key(name));
        Ok(self.books.save_buckets(buckets).await?)
    }

    /// Takes it that the shop no longer has the transactions that it did not list.
    async fn take_missing(&mut self, reading: &Reading) -> Result<(), Refused> {
        let mut start = None;
        let mut asked = 0;
        loop {
            let (rows, next) = self.books.all_buckets(start).await?;
            let missing = rows.into_iter().filter(|(transaction, registered)| {
                !registered.hash.is_empty() && !reading.seen.contains(number_of(transaction))
            });
            let mut by_person: BTreeMap<PersonId, Vec<TransactionId>> = BTreeMap::new();
            for (transaction, registered) in missing {
                let Some(person) = registered.person else { continue };
                if asked == MOST_ASKED_FOR || self.is_out_of_time() {
                    break;
                }
                asked += 1;
                match self.shop.is_gone(&transaction).await {
                    Ok(true) => by_person.entry(person).or_default().push(transaction),
                    Ok(false) => {}
                    // What cannot be asked for is not gone.
                    Err(error) => self.report.warn(format!("transaction {transaction}: {error}")),
                }
            }
            let mut transactions: Vec<TransactionId> = by_person.values().flatten().cloned().collect();
            let before = self.books.customers(by_person.keys().copied()).await?;
            let mut savings = Vec::new();
            for (person, customer) in before {
                let mut after = customer.clone();
                let baselines = BTreeMap::new();
                let knew_contact = customer.told_by.is_some();
                for transaction in by_person.get(&person).into_iter().flatten() {
                    let changes = after.read_missing(transaction, &self.context(&baselines, None, true));
                    for change in changes.iter().take(1) {
                        self.report.count_change(change);
                    }
                }
                if knew_contact && after.told_by.is_none() {
                    // Another row has to say now who the customer is.
                    transactions.extend(after.transactions());
                }
                savings.push(self.saving(Some(customer), after, Vec::new())?);
            }
            self.save(savings).await?;
            self.forget(&transactions).await?;
            self.keep_lease().await?;
            start = next;
            if start.is_none() {
                return Ok(());
            }
        }
    }

    /// Lets rows be read again although they have not changed.
    pub(in crate::access) async fn forget(&mut self, transactions: &[TransactionId]) -> Result<(), Refused> {
        for some in transactions.chunks(100) {
            let mut buckets = self.books.buckets(some).await?;
            for transaction in some {
                let rows = buckets.get_mut(&bucket(transaction));
                if let Some(registered) = rows.and_then(|rows| rows.rows.get_mut(transaction)) {
                    registered.hash.clear();
                }
            }
            self.books.save_buckets(buckets).await?;
        }
        Ok(())
    }

    fn context<'c>(
        &'c self,
        baselines: &'c BTreeMap<ScriptId, Baseline>,
        same_payment: Option<&'c TransactionId>,
        sound: bool,
    ) -> Context<'c> {
        Context {
            configuration: &self.configuration,
            rules: Rules::new(&self.configuration, self.now, sound),
            same_payment,
            baselines,
            bootstrapped: &self.record.bootstrapped,
            now: self.now,
        }
    }

    /// What the customer's name had before Berth, where that may matter for this row.
    async fn baselines(
        &self,
        customer: &Customer,
        row: &Row,
    ) -> Result<BTreeMap<ScriptId, Baseline>, Refused> {
        let product = self.configuration.product(&row.product);
        let found = |script: &&ScriptId| {
            !customer.scripts.contains_key(*script)
                && self
                    .record
                    .bootstrapped
                    .get(*script)
                    .is_some_and(|found| found.users > 0)
        };
        let wanted = product.is_some_and(|product| product.scripts.iter().any(|script| found(&script)));
        let name = Username::parse(&row.username).ok().filter(|_| wanted);
        match name {
            Some(name) => Ok(self.books.name(&name.key()).await?.baselines),
            None => Ok(BTreeMap::new()),
        }
    }

    /// What an operator says is taken back.
    pub(in crate::access) async fn take_back(
        &mut self,
        transaction: &TransactionId,
        cause: crate::access::ledger::ReversalCause,
    ) -> Result<PersonId, Refused> {
        let (before, person) = self.owner(transaction).await?;
        let mut after = before.clone();
        let baselines = BTreeMap::new();
        let changes = after.revoke(transaction, cause, &self.context(&baselines, None, true));
        for change in changes.iter().take(1) {
            self.report.count_change(change);
        }
        let saving = self.saving(Some(before), after, Vec::new())?;
        self.save(vec![saving]).await?;
        Ok(person)
    }

    /// Whose a transaction is.
    pub(in crate::access) async fn owner(
        &self,
        transaction: &TransactionId,
    ) -> Result<(Customer, PersonId), Refused> {
        let buckets = self.books.buckets([transaction]).await?;
        let registered = buckets.values().find_map(|bucket| bucket.rows.get(transaction));
        let person = registered
            .and_then(|registered| registered.person)
            .ok_or(Refused::NotFound("transaction"))?;
        let customer = self
            .books
            .customer(person)
            .await?
            .ok_or(Refused::NotFound("transaction"))?;
        let known = customer
            .scripts
            .values()
            .any(|holding| holding.ledger.knows(transaction));
        if known {
            Ok((customer, person))
        } else {
            Err(Refused::NotFound("transaction"))
        }
    }

    /// Whether a run that repairs looks at this customer, who has nothing to do otherwise.
    pub(in crate::access) fn is_repairing(&self) -> bool {
        self.mode == Mode::Repair
    }
}

/// The numbers at gateways of the rows at hand.
struct Payments {
    known: std::collections::HashMap<String, Payment>,
    fresh: Vec<(String, Payment)>,
}

impl Payments {
    async fn load(run: &Run<'_>, rows: &[(Row, String, Option<PersonId>)]) -> Result<Self, Refused> {
        let numbers: BTreeSet<String> = rows
            .iter()
            .filter_map(|(row, ..)| row.trans_num.clone())
            .collect();
        let mut known = run.books.payments(&numbers).await?;
        let suspects: Vec<(String, Payment)> = (rows.iter())
            .filter_map(|(row, ..)| {
                let number = row.trans_num.clone()?;
                let payment = known
                    .get(&number)
                    .filter(|payment| Some(payment.person) != row.person)?;
                Some((number, payment.clone()))
            })
            .collect();
        let owners = run
            .books
            .customers(suspects.iter().map(|(_, payment)| payment.person))
            .await?;
        for (number, payment) in suspects {
            // Only what counts stands in the way.
            let counts = owners.get(&payment.person).is_some_and(|owner| {
                let entries = owner
                    .scripts
                    .values()
                    .filter_map(|holding| holding.ledger.entries.get(&payment.transaction));
                entries.into_iter().any(|entry| entry.reversed().is_none())
            });
            if !counts {
                known.remove(&number);
            }
        }
        Ok(Self {
            known,
            fresh: Vec::new(),
        })
    }

    fn of_another(&self, row: &Row) -> Option<TransactionId> {
        let payment = self.known.get(row.trans_num.as_ref()?)?;
        let another = Some(payment.person) != row.person && payment.transaction != row.transaction;
        another.then(|| payment.transaction.clone())
    }

    fn note(&mut self, row: &Row, person: PersonId) {
        let Some(number) = row.trans_num.clone() else {
            return;
        };
        if !self.known.contains_key(&number) {
            let payment = Payment {
                transaction: row.transaction.clone(),
                person,
            };
            self.known.insert(number.clone(), payment.clone());
            self.fresh.push((number, payment));
        }
    }
}

impl Reading {
    fn new(full: bool, resync: Option<ProductId>, began_at: Timestamp) -> Self {
        Self {
            full,
            resync,
            began_at,
            scan: Scan::new(),
            seen: RoaringTreemap::new(),
            newest: None,
            late: Vec::new(),
        }
    }
}

fn pack(seen: &RoaringTreemap) -> String {
    let mut bytes = Vec::new();
    // Writing into memory cannot fail.
    if seen.serialize_into(&mut bytes).is_err() {
        return String::new();
    }
    BASE64.encode(bytes)
}

fn unpack(text: &str) -> Option<RoaringTreemap> {
    let bytes = BASE64.decode(text).ok()?;
    RoaringTreemap::deserialize_from(bytes.as_slice()).ok()
}
