//! A user's brokerage data in the table: one partition for each user, read as a whole.
//!
//! Nothing removes these items when a user is deleted or gives way; they go by themselves, [`KEPT`] after they were
//! last written, and nobody sees them meanwhile, because they carry the id at SnapTrade that they were read under.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::accounts::StoredAccount;
use super::changes::{self, PartKey};
use super::connections::{self, Deletion, StoredConnection};
use super::history::{self, Day};
use super::holdings::{Holdings, StoredBalance, StoredPosition};
use super::performance::StoredPerformance;
use super::portal::Visit;
use super::refresh::RefreshRecord;
use super::statements::Statement;
use super::transactions::TransactionsRecord;
use crate::connections::runner::new_attempt;
use crate::connections::timing::after;
use crate::ids::{Stem, TenantId, UpstreamId};
use crate::snaptrade::{AccountId, ConnectionId};
use crate::store::{
    self, Condition, Expression, IndexKey, Item, Key, Store, StoreError, Transaction, index_partition,
    partition,
};

/// How long data are kept after they were last written.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many positions stand in one item, which may hold 400 KB.
const POSITIONS_PER_ITEM: usize = 500;

/// How many items one transaction of DynamoDB may write.
const ITEMS_PER_TRANSACTION: usize = 100;

const CONNECTIONS: &str = "CONNECTIONS";
const ACCOUNTS: &str = "ACCOUNTS";
const HOLDINGS: &str = "HOLDINGS#";
const PERFORMANCE: &str = "PERFORMANCE#";
const DELETION: &str = "DELETION#";
const STATEMENT: &str = "STATEMENT#";
const TRANSACTIONS: &str = "TRANSACTIONS#";
const REFRESH: &str = "REFRESH";
const CHANGES: &str = "CHANGES";
const VISIT: &str = "PORTAL";

/// Something that was read from SnapTrade, and when and for whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading<T> {
    /// The id at SnapTrade that it was read under.
    pub upstream: UpstreamId,
    /// When reading it began, in milliseconds since 1970: it may not take the place of what was read later.
    pub begun_ms: i64,
    /// When it was there.
    pub read_at: Timestamp,
    /// What was read.
    pub content: T,
}

/// All that is stored of a user's data under one id at SnapTrade.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The connections; `None` when none were ever read.
    pub connections: Option<Reading<Vec<StoredConnection>>>,
    /// The accounts; `None` when none were ever read.
    pub accounts: Option<Reading<Vec<StoredAccount>>>,
    /// What each account holds, where that was ever read.
    pub holdings: BTreeMap<AccountId, Reading<Holdings>>,
    /// How each account did, where that was ever read.
    pub performance: BTreeMap<AccountId, Reading<StoredPerformance>>,
    /// How far reading each account's transactions is.
    pub transactions: BTreeMap<AccountId, TransactionsRecord>,
    /// The statements that the user has brought.
    pub statements: Vec<Statement>,
    /// The connections that are to be deleted.
    pub deletions: Vec<Deletion>,
    /// The user's last refresh, or the one under way, under whichever id.
    pub refresh: Option<RefreshRecord>,
    /// The last visit to the portal.
    pub visit: Option<Visit>,
}

impl Snapshot {
    /// The connections, as far as they are known.
    #[must_use]
    pub fn connections(&self) -> &[StoredConnection] {
        self.connections
            .as_ref()
            .map_or(&[], |reading| reading.content.as_slice())
    }

    /// The accounts, as far as they are known.
    #[must_use]
    pub fn accounts(&self) -> &[StoredAccount] {
        self.accounts
            .as_ref()
            .map_or(&[], |reading| reading.content.as_slice())
    }

    /// The accounts that stand under a connection that exists, each with it.
    pub fn connected_accounts(&self) -> impl Iterator<Item = (&StoredAccount, &StoredConnection)> {
        self.accounts().iter().filter_map(|account| {
            let connection = self
                .connections()
                .iter()
                .find(|connection| connection.connection_id == account.connection_id)?;
            Some((account, connection))
        })
    }

    /// Reads the items of a partition; what belongs to another id at SnapTrade than `upstream` is left out.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn from_items(items: &[Item], upstream: &UpstreamId, now: Timestamp) -> Result<Self, StoreError> {
        let mut snapshot = Self::default();
        let mut parts: BTreeMap<AccountId, BTreeMap<u32, Reading<HoldingsPart>>> = BTreeMap::new();
        for item in items {
            let sk = Key::of(item).sk;
            match sk.as_str() {
                CONNECTIONS => snapshot.connections = reading(item, upstream)?,
                ACCOUNTS => snapshot.accounts = reading(item, upstream)?,
                REFRESH => snapshot.refresh = Some(store::from_item(item)?),
                VISIT => {
                    let visit: Visit = store::from_item(item)?;
                    snapshot.visit = (visit.upstream == *upstream).then_some(visit);
                }
                _ => {
                    if let Some(account) = sk.strip_prefix(PERFORMANCE) {
                        let reading = reading(item, upstream)?;
                        snapshot
                            .performance
                            .extend(reading.map(|reading| (AccountId::new(account), reading)));
                    } else if let Some(account) = sk.strip_prefix(TRANSACTIONS) {
                        let record: TransactionsRecord = store::from_item(item)?;
                        snapshot.transactions.insert(AccountId::new(account), record);
                    } else if sk.starts_with(STATEMENT) {
                        snapshot.statements.push(store::from_item(item)?);
                    } else if sk.starts_with(DELETION) {
                        // An id of a connection is never used for another one.
                        snapshot.deletions.push(store::from_item(item)?);
                    } else if let Some((account, part)) =
                        sk.strip_prefix(HOLDINGS).and_then(|rest| rest.rsplit_once('#'))
                        && let (Ok(part), Some(reading)) = (part.parse(), reading(item, upstream)?)
                    {
                        parts
                            .entry(AccountId::new(account))
                            .or_default()
                            .insert(part, reading);
                    }
                }
            }
        }
        if let Some(listed) = &mut snapshot.connections {
            connections::mark(&mut listed.content, &snapshot.deletions, now);
        }
        for (account, parts) in parts {
            if let Some(holdings) = joined(&parts) {
                snapshot.holdings.insert(account, holdings);
            }
        }
        Ok(snapshot)
    }
}

/// What an account holds, or a part of it: large accounts do not fit into one item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct HoldingsPart {
    /// How many parts there are.
    parts: u32,
    as_of: Option<Timestamp>,
    balances: Vec<StoredBalance>,
    positions: Vec<StoredPosition>,
}

/// The parts of one account's holdings; the balances stand in the first.
fn split(holdings: &Holdings) -> Vec<HoldingsPart> {
    let mut chunks: Vec<&[StoredPosition]> = holdings.positions.chunks(POSITIONS_PER_ITEM).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let parts = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    chunks
        .into_iter()
        .enumerate()
        .map(|(number, positions)| HoldingsPart {
            parts,
            as_of: holdings.as_of,
            balances: if number == 0 {
                holdings.balances.clone()
            } else {
                Vec::new()
            },
            positions: positions.to_vec(),
        })
        .collect()
}

/// One account's holdings from the parts that were written with the first one.
fn joined(parts: &BTreeMap<u32, Reading<HoldingsPart>>) -> Option<Reading<Holdings>> {
    let first = parts.get(&0)?;
    let mut holdings = Holdings {
        balances: first.content.balances.clone(),
        positions: Vec::new(),
        as_of: first.content.as_of,
    };
    for number in 0..first.content.parts {
        let part = parts
            .get(&number)
            .filter(|part| part.begun_ms == first.begun_ms)?;
        holdings.positions.extend(part.content.positions.iter().cloned());
    }
    Some(Reading {
        upstream: first.upstream.clone(),
        begun_ms: first.begun_ms,
        read_at: first.read_at,
        content: holdings,
    })
}

fn reading<T: DeserializeOwned>(
    item: &Item,
    upstream: &UpstreamId,
) -> Result<Option<Reading<T>>, StoreError> {
    let reading: Reading<T> = store::from_item(item)?;
    Ok((reading.upstream == *upstream).then_some(reading))
}

/// One user's data in the table.
#[derive(Debug, Clone)]
pub struct UserData<'a> {
    store: &'a Store,
    tenant: TenantId,
    stem: Stem,
    pk: String,
}

impl<'a> UserData<'a> {
    /// The data of the user in partition `stem`.
    #[must_use]
    pub fn new(store: &'a Store, tenant: &TenantId, stem: &Stem) -> Self {
        Self {
            store,
            tenant: tenant.clone(),
            stem: stem.clone(),
            pk: partition(tenant, "DATA", stem.as_str()),
        }
    }

    fn key(&self, sk: impl Into<String>) -> Key {
        Key::new(self.pk.clone(), sk)
    }

    /// Reads all that is stored under the id `upstream`. One call for each megabyte.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn snapshot(&self, upstream: &UpstreamId, now: Timestamp) -> Result<Snapshot, StoreError> {
        Snapshot::from_items(&self.items(now).await?, upstream, now)
    }

    /// Reads all items, under whichever id at SnapTrade they were written. One call for each megabyte.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn items(&self, now: Timestamp) -> Result<Vec<Item>, StoreError> {
        self.store.partition(&self.pk, now).await
    }

    /// Stores the connections, unless what is stored was read later; `true` where they were stored. Where they are
    /// others than `before`, that is noted as a change. One call, and one more where somebody has stored others since.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_connections(
        &self,
        reading: &Reading<Vec<StoredConnection>>,
        before: Option<&Reading<Vec<StoredConnection>>>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.put_part(CONNECTIONS, reading, before, &PartKey::Connections, now)
            .await
    }

    /// Stores the accounts, as [`UserData::put_connections`] does connections.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_accounts(
        &self,
        reading: &Reading<Vec<StoredAccount>>,
        before: Option<&Reading<Vec<StoredAccount>>>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.put_part(ACCOUNTS, reading, before, &PartKey::Accounts, now)
            .await
    }

    /// Writes down what accounts are worth on a day, unless that was read later. One call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_day(&self, day: &Day, now: Timestamp) -> Result<(), StoreError> {
        let item = history::item(&self.tenant, &self.stem, day, now)?;
        let condition = Condition::Expression(newest(day.begun_ms, now));
        self.store.put(item, &condition, now).await?;
        Ok(())
    }

    /// Stores how an account did, unless what is stored was read later. One call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_performance(
        &self,
        account: &AccountId,
        reading: &Reading<StoredPerformance>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let item = self.item(&format!("{PERFORMANCE}{account}"), reading, None, now)?;
        let condition = Condition::Expression(newest(reading.begun_ms, now));
        self.store.put(item, &condition, now).await?;
        Ok(())
    }

    /// Notes how far reading an account's transactions is, if nobody has since it was `before`, and whether they have
    /// changed by that; `true` where it was noted. One call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_transactions(
        &self,
        account: &AccountId,
        record: &TransactionsRecord,
        before: Option<&TransactionsRecord>,
        changed: bool,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let item = self.item(&format!("{TRANSACTIONS}{account}"), record, None, now)?;
        let condition = before.map_or(Condition::Absent, |before| Condition::Revision(before.rev));
        if !changed {
            return Ok(self.store.put(item, &condition, now).await?.is_made());
        }
        let writes = vec![
            store::Write::Put { item, condition },
            self.changed(&PartKey::Transactions(account.clone()), now),
        ];
        self.together("traded", writes, now).await
    }

    /// Stores a statement, in the place of an earlier one of the same account. It stays until its user takes it away. One
    /// call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_statement(&self, statement: &Statement, now: Timestamp) -> Result<(), StoreError> {
        let key = self.key(format!("{STATEMENT}{}", statement.account_id));
        let put = store::Write::Put {
            item: store::to_item(&key, statement, None, None)?,
            condition: Condition::Always,
        };
        let writes = vec![put, self.changed(&PartKey::Accounts, now)];
        self.together("statement", writes, now).await?;
        Ok(())
    }

    /// Takes a statement away; `true` where there was one. One call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_statement(&self, account: &AccountId, now: Timestamp) -> Result<bool, StoreError> {
        let is_there = Expression {
            condition: "attribute_exists(pk)".to_owned(),
            ..Expression::default()
        };
        let delete = store::Write::Delete {
            key: self.key(format!("{STATEMENT}{account}")),
            condition: Condition::Expression(is_there),
        };
        let writes = vec![delete, self.changed(&PartKey::Accounts, now)];
        self.together("unstatement", writes, now).await
    }

    /// Where it stands what has changed.
    #[must_use]
    pub fn changes_key(&self) -> Key {
        self.key(CHANGES)
    }

    fn changed(&self, part: &PartKey, now: Timestamp) -> store::Write {
        let (update, names, values) = changes::update(part, now, after(now, KEPT));
        store::Write::Update {
            key: self.changes_key(),
            expression: Expression {
                update,
                condition: String::new(),
                names,
                values,
            },
        }
    }

    async fn together(
        &self,
        step: &str,
        writes: Vec<store::Write>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let transaction = Transaction {
            token: format!("{}.{step}", new_attempt()),
            writes,
        };
        Ok(self.store.transact(&transaction, now).await?.is_made())
    }

    /// The writes that note how far the deletion of a connection is, to be made alone or together with others.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn deletion(&self, deletion: &Deletion, now: Timestamp) -> Result<Vec<store::Write>, StoreError> {
        let sk = format!("{DELETION}{}", deletion.connection_id);
        let put = store::Write::Put {
            item: self.item(&sk, deletion, None, now)?,
            condition: Condition::Always,
        };
        Ok(vec![put, self.changed(&PartKey::Connections, now)])
    }

    /// Forgets that a connection was to be deleted. One call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_deletion(&self, connection: &ConnectionId, now: Timestamp) -> Result<(), StoreError> {
        let key = self.key(format!("{DELETION}{connection}"));
        self.store.delete(&key, &Condition::Always, now).await?;
        Ok(())
    }

    /// Notes how far the deletion of a connection is. One call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_deletion(&self, deletion: &Deletion, now: Timestamp) -> Result<(), StoreError> {
        self.together("deletion", self.deletion(deletion, now)?, now)
            .await?;
        Ok(())
    }

    /// Stores what an account holds, all of it or nothing, unless what is stored was read later. Where it is other than
    /// `before`, that is noted as a change. One call, and one more where somebody has stored other holdings since.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Malformed`] for more than about 50 000 positions.
    pub async fn put_holdings(
        &self,
        account: &AccountId,
        reading: &Reading<Holdings>,
        before: Option<&Reading<Holdings>>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let parts = split(&reading.content);
        let key = |number: usize| format!("{HOLDINGS}{account}#{number:03}");
        if parts.len() >= ITEMS_PER_TRANSACTION {
            return Err(StoreError::Malformed {
                key: self.key(key(0)).to_string(),
                reason: format!("{} positions are too many", reading.content.positions.len()),
            });
        }
        let mut items = Vec::with_capacity(parts.len());
        for (number, content) in parts.into_iter().enumerate() {
            let part = Reading {
                upstream: reading.upstream.clone(),
                begun_ms: reading.begun_ms,
                read_at: reading.read_at,
                content,
            };
            items.push(self.item(&key(number), &part, None, now)?);
        }
        if let (1, true, Some(known)) = (items.len(), is_same(reading, before), before)
            && let Some(item) = items.first()
            && self
                .store
                .put(item.clone(), &as_read(known.begun_ms), now)
                .await?
                .is_made()
        {
            return Ok(());
        }
        let condition = Condition::Expression(newest(reading.begun_ms, now));
        let mut writes: Vec<store::Write> = items
            .into_iter()
            .map(|item| store::Write::Put {
                item,
                condition: condition.clone(),
            })
            .collect();
        writes.push(self.changed(&PartKey::Holdings(account.clone()), now));
        self.together("holdings", writes, now).await?;
        Ok(())
    }

    /// Writes the record of refreshes if nobody has written it since it was read as `before`. `true` where it was
    /// written. One call.
    ///
    /// # Errors
    /// [`StoreError`] when it is not known whether it was written.
    pub async fn put_refresh(
        &self,
        record: &RefreshRecord,
        before: Option<&RefreshRecord>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let index = IndexKey {
            gsi1pk: refresh_index(&self.tenant),
            gsi1sk: format!(
                "{:015}#{}",
                record.due_at.as_millisecond().max(0),
                self.stem.as_str()
            ),
        };
        let item = self.item(REFRESH, record, Some(&index), now)?;
        let condition = before.map_or(Condition::Absent, |before| Condition::Revision(before.rev));
        Ok(self.store.put(item, &condition, now).await?.is_made())
    }

    /// Reads the record of refreshes. One call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn refresh(&self, now: Timestamp) -> Result<Option<RefreshRecord>, StoreError> {
        let item = self.store.get(&self.key(REFRESH), now).await?;
        item.as_ref().map(store::from_item).transpose()
    }

    /// The write that notes a visit to the portal, to be made together with others.
    ///
    /// # Errors
    /// [`StoreError::Malformed`].
    pub fn visit(&self, visit: &Visit, now: Timestamp) -> Result<store::Write, StoreError> {
        self::visit(&self.tenant, &self.stem, visit, now)
    }

    async fn put_part<T: Serialize + PartialEq>(
        &self,
        sk: &str,
        reading: &Reading<T>,
        before: Option<&Reading<T>>,
        part: &PartKey,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let item = self.item(sk, reading, None, now)?;
        if let (true, Some(known)) = (is_same(reading, before), before) {
            let made = self
                .store
                .put(item.clone(), &as_read(known.begun_ms), now)
                .await?;
            if made.is_made() {
                return Ok(true);
            }
        }
        let condition = Condition::Expression(newest(reading.begun_ms, now));
        let writes = vec![store::Write::Put { item, condition }, self.changed(part, now)];
        self.together("part", writes, now).await
    }

    fn item<T: Serialize>(
        &self,
        sk: &str,
        record: &T,
        index: Option<&IndexKey>,
        now: Timestamp,
    ) -> Result<Item, StoreError> {
        store::to_item(&self.key(sk), record, index, Some(after(now, KEPT)))
    }
}

/// The write that notes a user's visit to the portal.
///
/// # Errors
/// [`StoreError::Malformed`].
pub fn visit(
    tenant: &TenantId,
    stem: &Stem,
    visit: &Visit,
    now: Timestamp,
) -> Result<store::Write, StoreError> {
    let key = Key::new(partition(tenant, "DATA", stem.as_str()), VISIT);
    Ok(store::Write::Put {
        item: store::to_item(&key, visit, None, Some(after(now, KEPT)))?,
        condition: Condition::Always,
    })
}

/// The index partition that lists users' refreshes by the time at which the next is due.
#[must_use]
pub fn refresh_index(tenant: &TenantId) -> String {
    index_partition(tenant, "REFRESHES")
}

/// Whether a reading says the same as the one before.
fn is_same<T: PartialEq>(reading: &Reading<T>, before: Option<&Reading<T>>) -> bool {
    before.is_some_and(|before| before.upstream == reading.upstream && before.content == reading.content)
}

/// That the reading that began then is still there.
fn as_read(begun_ms: i64) -> Condition {
    Condition::Expression(Expression {
        condition: "begun_ms = :known".to_owned(),
        values: HashMap::from([(":known".to_owned(), AttributeValue::N(begun_ms.to_string()))]),
        ..Expression::default()
    })
}

/// That nothing is there, or nothing that was read later.
fn newest(begun_ms: i64, now: Timestamp) -> Expression {
    Expression {
        condition: "attribute_not_exists(pk) OR expires_at <= :now OR begun_ms <= :begun".to_owned(),
        values: HashMap::from([
            (":now".to_owned(), AttributeValue::N(now.as_second().to_string())),
            (":begun".to_owned(), AttributeValue::N(begun_ms.to_string())),
        ]),
        ..Expression::default()
    }
}

/// A reading of `content` at `at`, for tests.
#[cfg(test)]
pub(super) fn test_reading<T>(content: T, at: Timestamp) -> Reading<T> {
    Reading {
        upstream: UpstreamId::from_snaptrade("ada~aaaaaaaaaaaa"),
        begun_ms: at.as_millisecond(),
        read_at: at,
        content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }

    fn item<T: Serialize>(sk: &str, record: &T) -> Item {
        store::to_item(&Key::new("default#DATA#ada", sk), record, None, None).unwrap()
    }

    fn holdings(positions: usize) -> Holdings {
        let position = |number: usize| StoredPosition {
            symbol: Some(format!("S{number}")),
            description: None,
            kind: "stock".to_owned(),
            universal_symbol_id: None,
            units: Some("0.1".parse().unwrap()),
            price: None,
            multiplier: None,
            currency: None,
            average_cost: None,
            total_cost: None,
            cash_equivalent: false,
        };
        let balance = StoredBalance {
            currency: Some("USD".to_owned()),
            cash: Some("-12.50".parse().unwrap()),
            buying_power: None,
        };
        Holdings {
            balances: vec![balance],
            positions: (0..positions).map(position).collect(),
            as_of: Some(now()),
        }
    }

    fn parts_of(holdings: &Holdings, at: Timestamp) -> Vec<Item> {
        split(holdings)
            .into_iter()
            .enumerate()
            .map(|(number, part)| item(&format!("HOLDINGS#a#{number:03}"), &test_reading(part, at)))
            .collect()
    }

    #[test]
    fn holdings_come_back_from_their_items_however_many_there_are() {
        let upstream = UpstreamId::from_snaptrade("ada~aaaaaaaaaaaa");
        for positions in [0, 1, 500, 501, 1700] {
            let held = holdings(positions);
            let snapshot = Snapshot::from_items(&parts_of(&held, now()), &upstream, now()).unwrap();
            assert_eq!(snapshot.holdings[&AccountId::new("a")].content, held);
        }
    }

    #[test]
    fn parts_of_different_readings_are_never_put_together() {
        let upstream = UpstreamId::from_snaptrade("ada~aaaaaaaaaaaa");
        let mut items = parts_of(&holdings(600), now());
        let later = after(now(), Duration::from_secs(1));
        items[1] = parts_of(&holdings(600), later).remove(1);
        let snapshot = Snapshot::from_items(&items, &upstream, now()).unwrap();
        assert!(snapshot.holdings.is_empty());
        // A part that is left over from a larger reading does no harm.
        let mut items = parts_of(&holdings(600), now());
        items[0] = parts_of(&holdings(3), later).remove(0);
        let snapshot = Snapshot::from_items(&items, &upstream, now()).unwrap();
        assert_eq!(snapshot.holdings[&AccountId::new("a")].content.positions.len(), 3);
    }

    #[test]
    fn connections_and_accounts_come_back_from_their_items_as_they_were() {
        let connection: crate::snaptrade::Connection = serde_json::from_str(
            r#"{"id": "c", "type": "trade", "created_date": "2026-11-21T10:00:00Z", "disabled": true,
                "disabled_date": "2026-11-21T10:00:00Z", "brokerage": {"id": "b", "slug": "ALPACA", "name": "Alpaca"}}"#,
        )
        .unwrap();
        let account: crate::snaptrade::Account = serde_json::from_str(
            r#"{"id": "a", "brokerage_authorization": "c", "number": "123456", "institution_name": "Alpaca",
                "balance": {"total": {"amount": 12345678.90, "currency": "USD"}}}"#,
        )
        .unwrap();
        let connections = test_reading(connections::stored(&[connection]), now());
        let accounts = test_reading(vec![StoredAccount::from(&account)], now());
        let record = RefreshRecord {
            rev: 1,
            upstream: connections.upstream.clone(),
            run: new_attempt(),
            until: now(),
            finished: None,
            asked: vec![super::super::refresh::Asked {
                connection_id: crate::snaptrade::ConnectionId::new("c"),
                at: now(),
                answer: super::super::refresh::UpstreamRefresh::TooRecent,
            }],
            due_at: now(),
            used: super::super::usage::Usage::default(),
        };
        let items = [
            item(CONNECTIONS, &connections),
            item(ACCOUNTS, &accounts),
            item(REFRESH, &record),
        ];
        let snapshot = Snapshot::from_items(&items, &connections.upstream, now()).unwrap();
        assert_eq!(snapshot.connected_accounts().count(), 1);
        assert_eq!(snapshot.connections, Some(connections));
        assert_eq!(snapshot.accounts, Some(accounts));
        assert_eq!(snapshot.refresh, Some(record));
    }

    #[test]
    fn what_another_registration_read_is_not_seen() {
        let items = [item(
            CONNECTIONS,
            &test_reading(Vec::<StoredConnection>::new(), now()),
        )];
        let seen = |upstream: &str| {
            Snapshot::from_items(&items, &UpstreamId::from_snaptrade(upstream), now())
                .unwrap()
                .connections
        };
        assert!(seen("ada~aaaaaaaaaaaa").is_some());
        assert!(seen("ada~bbbbbbbbbbbb").is_none());
    }
}
