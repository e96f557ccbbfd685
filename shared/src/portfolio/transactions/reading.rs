//! Reading an account's transactions, one page at a time, so that memory does not grow with their number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::record::{KEPT, LEASE, Manner, PageResult, TransactionsRecord, UnderWay, advance, begin, ended};
use super::{StoredTransaction, transactions_partition};
use crate::clock::Clock;
use crate::connections::runner::new_attempt;
use crate::connections::timing::after;
use crate::ids::{Stem, TenantId, UpstreamId};
use crate::portfolio::userdata::UserData;
use crate::snaptrade::{
    self, ACTIVITIES_PER_PAGE, AccountId, ActivityFilter, ActivityPage, Client, ErrorKind, UserCredentials,
};
use crate::store::{self, Condition, Key, Store, StoreError, Transaction, Write};

/// How many writes one transaction of DynamoDB takes.
const WRITES_PER_TRANSACTION: usize = 100;

/// How much time a page needs at least; none is begun with less.
const PAGE_TIME: Duration = Duration::from_secs(3);

/// How far reading an account's transactions came.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// All are stored.
    Complete(TransactionsRecord),
    /// The time was up, or SnapTrade did not go on; whoever reads next takes it up from here.
    Partial(TransactionsRecord, Option<ErrorKind>),
    /// Somebody else reads them.
    Busy,
}

/// What came of storing a page.
struct Taken {
    /// How much of it was not stored already just so.
    written: usize,
    page: PageResult,
}

/// Reads transactions of one user.
#[derive(Debug)]
pub struct TransactionsReader<'a> {
    /// The table.
    pub store: &'a Store,
    /// Where the user's other data are.
    pub data: &'a UserData<'a>,
    /// Whose user it is.
    pub tenant: &'a TenantId,
    /// The user's partition.
    pub stem: &'a Stem,
    /// The user's id at SnapTrade.
    pub upstream: &'a UpstreamId,
    /// What signs the user's calls.
    pub credentials: &'a UserCredentials,
    /// What calls are sent with.
    pub client: &'a Client,
    /// When it has to be over.
    pub deadline: Instant,
    /// The clock.
    pub clock: &'a Clock,
}

impl TransactionsReader<'_> {
    /// Reads the transactions of `account`, of which `before` is known: as many pages as there is time for. A page takes
    /// one call to SnapTrade; to the table one write for every hundred transactions that are new, one read, and one
    /// write that says how far it is.
    ///
    /// # Errors
    /// [`snaptrade::Error`] within, when SnapTrade refuses the user's secret; [`StoreError`].
    pub async fn read(
        &self,
        account: &AccountId,
        before: Option<&TransactionsRecord>,
    ) -> Result<Result<Progress, snaptrade::Error>, StoreError> {
        let now = self.clock.now();
        if before.is_some_and(|record| record.upstream == *self.upstream && record.is_being_read(now)) {
            return Ok(Ok(Progress::Busy));
        }
        let same = before.filter(|record| record.upstream == *self.upstream);
        let mut under_way = begin(same, now);
        let run = new_attempt();
        let mut record = TransactionsRecord {
            rev: before.map_or_else(|| run.first_revision(), |record| record.rev.saturating_add(1)),
            upstream: self.upstream.clone(),
            run,
            until: after(now, LEASE),
            complete: same.and_then(|record| record.complete.clone()),
            under_way: Some(under_way.clone()),
        };
        if !self
            .data
            .put_transactions(account, &record, before, false, now)
            .await?
        {
            return Ok(Ok(Progress::Busy));
        }
        let mut stopped = None;
        let mut done = false;
        // What was changed by whoever left off was not told yet.
        let mut changed = under_way.offset > 0 || under_way.manner == Manner::First;
        while !done {
            if self.deadline.saturating_duration_since(Instant::now()) < PAGE_TIME {
                break;
            }
            let page = match self.page(account, under_way.offset).await {
                Ok(page) => page,
                // What the brokerage does not tell is nothing.
                Err(error) if matches!(error.kind, ErrorKind::Forbidden | ErrorKind::Gone) => {
                    ActivityPage::default()
                }
                Err(error) if error.kind == ErrorKind::UserSecretRejected => return Ok(Err(error)),
                Err(error) => {
                    tracing::warn!(%error, account = %account, "transactions could not be read");
                    stopped = Some(error.kind);
                    break;
                }
            };
            let result = self.take(account, &page, &under_way).await?;
            tracing::debug!(account = %account, written = result.written, "a page of transactions was stored");
            changed |= result.written > 0;
            (under_way, done) = advance(&under_way, result.page);
            if !done {
                let next = Some(under_way.clone());
                record = self.note(account, &record, next, true, false).await?;
            }
        }
        let now = self.clock.now();
        if done {
            record.complete = Some(ended(&under_way, record.complete.as_ref(), now));
            let record = self.note(account, &record, None, false, changed).await?;
            return Ok(Ok(Progress::Complete(record)));
        }
        let record = self
            .note(account, &record, Some(under_way), false, changed)
            .await?;
        Ok(Ok(Progress::Partial(record, stopped)))
    }

    async fn page(&self, account: &AccountId, offset: u64) -> Result<ActivityPage, snaptrade::Error> {
        let filter = ActivityFilter::default();
        let client = self.client.with_deadline(self.deadline);
        Box::pin(client.activity_page(self.credentials, account, &filter, offset, ACTIVITIES_PER_PAGE)).await
    }

    /// Writes down how far it is. Somebody else may have taken over after the lease ran out; what they write is at least
    /// as good, and what was stored stays.
    async fn note(
        &self,
        account: &AccountId,
        before: &TransactionsRecord,
        under_way: Option<UnderWay>,
        goes_on: bool,
        changed: bool,
    ) -> Result<TransactionsRecord, StoreError> {
        let now = self.clock.now();
        let record = TransactionsRecord {
            rev: before.rev.saturating_add(1),
            until: if goes_on {
                after(now, LEASE)
            } else {
                Timestamp::UNIX_EPOCH
            },
            under_way,
            ..before.clone()
        };
        self.data
            .put_transactions(account, &record, Some(before), changed, now)
            .await?;
        Ok(record)
    }

    /// Stores what is on a page, and takes out what was stored of the same time and is not on it.
    async fn take(
        &self,
        account: &AccountId,
        page: &ActivityPage,
        under_way: &UnderWay,
    ) -> Result<Taken, StoreError> {
        let rows: BTreeMap<String, StoredTransaction> = page
            .data
            .iter()
            .map(|activity| StoredTransaction::new(account, activity))
            .map(|row| (row.sort_key(), row))
            .collect();
        let received = u64::try_from(page.data.len()).unwrap_or(u64::MAX);
        let total = page.pagination.as_ref().and_then(|pagination| pagination.total);
        let full = received >= u64::from(ACTIVITIES_PER_PAGE);
        let span = Span::of(&rows, under_way.offset, received, total, full);
        let known = match under_way.manner {
            Manner::First => BTreeMap::new(),
            Manner::Update | Manner::Renewal => self.stored_within(account, span).await?,
        };
        let now = self.clock.now();
        let mut writes = Vec::new();
        let mut added = 0_u64;
        for (key, row) in &rows {
            let before = known.get(key);
            added = added.saturating_add(u64::from(before.is_none()));
            if before != Some(row) || under_way.manner == Manner::Renewal {
                let key = self.key(key.clone());
                writes.push(Write::Put {
                    item: store::to_item(&key, row, None, Some(after(now, KEPT)))?,
                    condition: Condition::Always,
                });
            }
        }
        let gone = vanished(&rows, &known, span);
        for key in &gone {
            writes.push(Write::Delete {
                key: self.key((*key).clone()),
                condition: Condition::Always,
            });
        }
        let removed = u64::try_from(gone.len()).unwrap_or(u64::MAX);
        self.write(&writes, now).await?;
        Ok(Taken {
            written: writes.len(),
            page: PageResult {
                received,
                total,
                added,
                removed,
                full,
            },
        })
    }

    /// Makes the writes, three transactions at a time.
    async fn write(&self, writes: &[Write], now: Timestamp) -> Result<(), StoreError> {
        let mut chunks = writes.chunks(WRITES_PER_TRANSACTION);
        loop {
            let [first, second, third] = [chunks.next(), chunks.next(), chunks.next()];
            if first.is_none() {
                return Ok(());
            }
            tokio::try_join!(
                self.write_chunk(first, now),
                self.write_chunk(second, now),
                self.write_chunk(third, now),
            )?;
        }
    }

    async fn write_chunk(&self, chunk: Option<&[Write]>, now: Timestamp) -> Result<(), StoreError> {
        let Some(chunk) = chunk else { return Ok(()) };
        let transaction = Transaction {
            token: format!("{}.rows", new_attempt()),
            writes: chunk.to_vec(),
        };
        self.store.transact(&transaction, now).await?;
        Ok(())
    }

    /// What is stored of `account` within `span`.
    async fn stored_within(
        &self,
        account: &AccountId,
        span: Span,
    ) -> Result<BTreeMap<String, StoredTransaction>, StoreError> {
        let pk = transactions_partition(self.tenant, self.stem);
        let newest = match span.newest {
            Some(newest) => format!("{newest:015}$"),
            None => ":".to_owned(),
        };
        let range = format!("{:015}#", span.oldest.unwrap_or(0))..=newest;
        let mut known = BTreeMap::new();
        let mut start = None;
        loop {
            let page = self
                .store
                .range_page(
                    &pk,
                    &range,
                    store::Order::Ascending,
                    None,
                    start,
                    self.clock.now(),
                )
                .await?;
            for item in &page.items {
                let row: StoredTransaction = store::from_item(item)?;
                if row.account_id == *account {
                    known.insert(row.sort_key(), row);
                }
            }
            start = page.next;
            if start.is_none() {
                return Ok(known);
            }
        }
    }

    fn key(&self, sk: String) -> Key {
        Key::new(transactions_partition(self.tenant, self.stem), sk)
    }
}

/// The times that a page is about, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    /// The time of its oldest transaction; `None` where nothing comes after it.
    oldest: Option<i64>,
    /// The time of its newest transaction; `None` where nothing comes before it.
    newest: Option<i64>,
}

impl Span {
    fn of(
        rows: &BTreeMap<String, StoredTransaction>,
        offset: u64,
        received: u64,
        total: Option<u64>,
        full: bool,
    ) -> Self {
        let times = || rows.values().map(StoredTransaction::at_ms);
        let is_last = match total {
            Some(total) => offset.saturating_add(received) >= total,
            None => !full,
        };
        Self {
            oldest: times().min().filter(|_| !is_last),
            newest: times().max().filter(|_| offset > 0),
        }
    }

    /// Whether every transaction of that time is on the page: of the times at its two ends there may be more on the
    /// pages beside it.
    fn has_all_of(self, at_ms: i64) -> bool {
        self.oldest.is_none_or(|oldest| at_ms > oldest) && self.newest.is_none_or(|newest| at_ms < newest)
    }
}

/// Those of `known` that are not among `rows` although the page would have them.
fn vanished<'a>(
    rows: &BTreeMap<String, StoredTransaction>,
    known: &'a BTreeMap<String, StoredTransaction>,
    span: Span,
) -> BTreeSet<&'a String> {
    known
        .iter()
        .filter(|(key, row)| !rows.contains_key(*key) && span.has_all_of(row.at_ms()))
        .map(|(key, _)| key)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(numbers: &[u32]) -> BTreeMap<String, StoredTransaction> {
        let row = |number: &u32| {
            let activity = serde_json::json!({
                "id": format!("t{number}"), "trade_date": format!("2026-01-{number:02}T00:00:00Z"),
            });
            let activity = serde_json::from_str(&activity.to_string()).unwrap();
            let row = StoredTransaction::new(&AccountId::new("a"), &activity);
            (row.sort_key(), row)
        };
        numbers.iter().map(row).collect()
    }

    #[test]
    fn what_a_page_would_have_and_has_not_is_gone() {
        let known = rows(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let gone = |page: &[u32], offset: u64, total: u64| -> Vec<String> {
            let page = rows(page);
            let span = Span::of(&page, offset, page.len() as u64, Some(total), false);
            let gone = vanished(&page, &known, span);
            gone.into_iter()
                .map(|key| known[key].transaction_id.clone())
                .collect()
        };
        // The first of several pages: what is newer than all of it is gone, what is older stands on another.
        assert_eq!(gone(&[3, 5, 6], 0, 9), ["t4", "t7", "t8"]);
        assert_eq!(gone(&[3, 5, 6], 3, 9), ["t4"]);
        assert_eq!(gone(&[3, 5, 6], 6, 9), ["t1", "t2", "t4"]);
        assert_eq!(gone(&[3, 5, 6], 0, 3), ["t1", "t2", "t4", "t7", "t8"]);
        assert_eq!(gone(&[], 0, 0).len(), 8);
    }
}
