//! Reads the table into a backup, and a backup into the table.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufRead, Seek, SeekFrom, Write};

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::Serialize;

use super::file::{BackupReader, BackupWriter, Faulty, Header, Origin, Record, prefixes};
use super::restoring::{Decision, Left, Standing, bring_ghost, bring_holder, saved_holder};
use crate::clock::Clock;
use crate::config::Counts;
use crate::connections::machine::{Author, Commit, Guard, Transition};
use crate::connections::records::{FOREIGN_SLOTS, Ghost, Holder, Slots, SyncRecord, UserRecord};
use crate::connections::runner::new_attempt;
use crate::connections::storage::{self, Names};
use crate::ids::{Stem, TenantId, UpstreamId};
use crate::secrets::DataKeys;
use crate::store::{self, Condition, Expression, Item, Key, Store, StoreError, Transaction, to_item};
use crate::user_secrets;

/// How many holders are brought back in one transaction. What is read of each takes six keys, and DynamoDB reads 100 at
/// once; what is written of each takes up to four writes, and a transaction holds 100.
const AT_ONCE: usize = 16;

/// How many lines of the audit trail are written in one transaction.
const LINES_AT_ONCE: usize = 50;

/// How often a step is decided anew when others changed what it depends on.
const MAX_TRIES: u32 = 20;

/// How often a write is sent whose answer was lost.
const MAX_SENDS: u32 = 3;

/// The limit whose records are read or written.
#[derive(Debug, Clone)]
pub struct Tracking<'a> {
    /// The table.
    pub store: &'a Store,
    /// The time that everything is decided by.
    pub clock: &'a Clock,
    /// Whose limit it is.
    pub tenant: TenantId,
    /// What counts against it.
    pub counts: Counts,
}

/// Why a backup was not made or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file is not what it should be, or cannot be used.
    #[error(transparent)]
    File(#[from] Faulty),
    /// The table could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others changed the same records all the time.
    #[error("others changed the same records all the time")]
    Busy,
}

impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> Self {
        Self::File(error.into())
    }
}

/// What a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Restored {
    /// Registered users who came back.
    pub users: u64,
    /// Ids without a secret here that came back, or got their age back.
    pub adopted: u64,
    /// Ids that have to go.
    pub ghosts: u64,
    /// Lines of the audit trail.
    pub audit: u64,
    /// Other records.
    pub others: u64,
    /// Records that the table had already.
    pub there: u64,
    /// Users who registered anew since the backup.
    pub newer: u64,
    /// Users who gave way or were deleted since the backup.
    pub retired: u64,
    /// What was only under way when the backup was made.
    pub unfinished: u64,
    /// Ids for which their user had no room left.
    pub no_room: u64,
}

impl Restored {
    fn leave(&mut self, left: Left) {
        *match left {
            Left::There => &mut self.there,
            Left::Newer => &mut self.newer,
            Left::Retired => &mut self.retired,
            Left::Unfinished => &mut self.unfinished,
            Left::NoRoom => &mut self.no_room,
        } += 1;
    }
}

impl Tracking<'_> {
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    async fn slots(&self) -> Result<Option<Slots>, StoreError> {
        let key = Names::new(self.tenant.clone()).slots();
        let item = self.store.get(&key, self.now()).await?;
        item.as_ref().map(storage::slots).transpose()
    }
}

/// Writes all records of the limit to `to`, one page of the table after the other. `progress` is told how many records
/// were written so far.
///
/// # Errors
/// [`BackupError`]; what was written so far is no backup.
pub async fn back_up<W: Write + Seek>(
    tracking: &Tracking<'_>,
    to: W,
    origin: Origin,
    progress: &mut dyn FnMut(u64),
) -> Result<(Header, W), BackupError> {
    let taken_at = tracking.now();
    let before = tracking.slots().await?.map(|slots| slots.rev);
    let mut writer = BackupWriter::new(to, tracking.tenant.clone())?;
    let prefixes = prefixes(&tracking.tenant);
    let mut start = None;
    loop {
        let page = tracking.store.scan_page(&prefixes, start, tracking.now()).await?;
        for item in &page.items {
            writer.write(item)?;
        }
        progress(writer.written());
        start = page.next;
        if start.is_none() {
            break;
        }
    }
    let after = tracking.slots().await?.map(|slots| slots.rev);
    Ok(writer.finish(origin, taken_at, before == after)?)
}

/// Reads a backup of `tenant` to its end without doing anything with it, and tells how many users' secrets `keys` do
/// not open. `progress` is told how many records were read so far.
///
/// # Errors
/// [`Faulty`] where it is not whole.
pub fn examine<R: BufRead>(
    from: R,
    tenant: &TenantId,
    keys: Option<&DataKeys>,
    progress: &mut dyn FnMut(u64),
) -> Result<(Header, u64), Faulty> {
    let mut reader = BackupReader::open(from, tenant)?;
    let (mut read, mut unopened) = (0, 0);
    while let Some((_, record)) = reader.read()? {
        read += 1;
        progress(read);
        if let (Some(keys), Some(Holder::User(user))) = (keys, saved_holder(record))
            && let Some(active) = user.active()
            && user_secrets::open(keys, tenant, &user.stem, &active.secret).is_err()
        {
            unopened += 1;
        }
    }
    Ok((reader.header().clone(), unopened))
}

/// Brings back from a backup what the table lacks, and leaves the places closed, so that they are compared with
/// SnapTrade's list before anything is reserved: a sync has to follow. `actor` goes into the audit trail; `progress` is
/// told how many records are done.
///
/// The file is to be [examined](examine) before, because what is wrong with its end is found at its end.
///
/// # Errors
/// [`BackupError`]; what was brought back by then stays, and running it again goes on.
pub async fn restore<R: BufRead + Seek>(
    tracking: &Tracking<'_>,
    mut from: R,
    actor: &str,
    progress: &mut dyn FnMut(u64),
) -> Result<Restored, BackupError> {
    let mut work = Restoring::new(tracking, actor);
    work.close().await?;
    // Those who hold a place come first: only then is it clear which ids have to go.
    from.seek(SeekFrom::Start(0))?;
    let mut reader = BackupReader::open(&mut from, &tracking.tenant)?;
    let taken_at = reader.header().taken_at;
    let mut done = 0;
    let mut batch = Batch::default();
    while let Some((_, record)) = reader.read()? {
        done += u64::from(!matches!(&record, Record::Ghost(_)) && is_holder(&record));
        if let Some(holder) = saved_holder(record) {
            if batch.is_full_for(&holder) {
                work.bring_holders(&std::mem::take(&mut batch).holders, taken_at)
                    .await?;
                progress(done);
            }
            batch.add(holder);
        }
    }
    work.bring_holders(&batch.holders, taken_at).await?;
    progress(done);

    from.seek(SeekFrom::Start(0))?;
    let mut reader = BackupReader::open(&mut from, &tracking.tenant)?;
    let (mut ghosts, mut lines) = (Vec::new(), Vec::new());
    while let Some((item, record)) = reader.read()? {
        done += u64::from(!is_holder(&record));
        match record {
            Record::User(_) | Record::Foreign(_) | Record::Places => {}
            Record::Ghost(ghost) => ghosts.push(*ghost),
            Record::Audit => lines.push(item),
            Record::Hold(_) => work.add(item).await?,
            Record::Sync(sync) => work.bring_sync(*sync).await?,
            Record::Companion => work.bring_companion(item).await?,
        }
        if ghosts.len() == AT_ONCE {
            work.bring_ghosts(&std::mem::take(&mut ghosts)).await?;
            progress(done);
        }
        if lines.len() == LINES_AT_ONCE {
            work.add_lines(std::mem::take(&mut lines)).await?;
            progress(done);
        }
    }
    work.bring_ghosts(&ghosts).await?;
    work.add_lines(lines).await?;
    progress(done);
    Ok(work.restored)
}

fn is_holder(record: &Record) -> bool {
    matches!(record, Record::User(_) | Record::Foreign(_))
}

/// Holders that are brought back together: of each user at most one, so that no record is written twice.
#[derive(Default)]
struct Batch {
    holders: Vec<Holder>,
    stems: HashSet<Stem>,
}

impl Batch {
    fn is_full_for(&self, holder: &Holder) -> bool {
        self.holders.len() == AT_ONCE || self.stems.contains(&holder.stem())
    }

    fn add(&mut self, holder: Holder) {
        self.stems.insert(holder.stem());
        self.holders.push(holder);
    }
}

/// A restore under way.
struct Restoring<'a> {
    tracking: &'a Tracking<'a>,
    names: Names,
    author: Author,
    /// The revision at which the places were closed last; `None` where that has to be looked up.
    closed_at: Option<u64>,
    restored: Restored,
}

impl<'a> Restoring<'a> {
    fn new(tracking: &'a Tracking<'a>, actor: &str) -> Self {
        Self {
            names: Names::new(tracking.tenant.clone()),
            author: Author::new(new_attempt(), actor.to_owned()),
            tracking,
            closed_at: None,
            restored: Restored::default(),
        }
    }

    /// Closes the places, unless they are closed, and gives their revision. What opens them compares everything with
    /// SnapTrade's list first.
    async fn close(&mut self) -> Result<u64, BackupError> {
        if let Some(rev) = self.closed_at {
            return Ok(rev);
        }
        let store = self.tracking.store;
        for _ in 0..MAX_TRIES {
            let now = self.tracking.now();
            let item = store.get(&self.names.slots(), now).await?;
            let Some(item) = item else {
                let rev = self.author.attempt.first_revision();
                let founded = Founded::new(self.tracking.counts, rev);
                let founded = to_item(&self.names.slots(), &founded, None, None)?;
                store.put(founded, &Condition::Absent, now).await?;
                continue;
            };
            let slots = storage::slots(&item)?;
            if !slots.open && item.get("restored") == Some(&AttributeValue::Bool(true)) {
                self.closed_at = Some(slots.rev);
                return Ok(slots.rev);
            }
            let closing = store::Write::Update {
                key: self.names.slots(),
                expression: Expression {
                    update: "SET #open = :no, restored = :yes, rev = rev + :one".to_owned(),
                    condition: "rev = :rev".to_owned(),
                    names: HashMap::from([("#open".to_owned(), "open".to_owned())]),
                    values: HashMap::from([
                        (":no".to_owned(), AttributeValue::Bool(false)),
                        (":yes".to_owned(), AttributeValue::Bool(true)),
                        (":one".to_owned(), AttributeValue::N("1".to_owned())),
                        (":rev".to_owned(), AttributeValue::N(slots.rev.to_string())),
                    ]),
                },
            };
            let transaction = Transaction {
                token: format!("{}.close.1", new_attempt()),
                writes: vec![closing],
            };
            self.send(&transaction).await?;
        }
        Err(BackupError::Busy)
    }

    /// What the table knows of the users of these ids.
    async fn standings(
        &self,
        ids: &[(Stem, Option<UpstreamId>)],
    ) -> Result<BTreeMap<Stem, Standing>, StoreError> {
        let mut keys = Vec::new();
        let mut owners: HashMap<Key, Stem> = HashMap::new();
        for (stem, upstream) in ids {
            let mut own = vec![self.names.user(stem)];
            own.extend((0..FOREIGN_SLOTS).map(|slot| self.names.foreign(stem, slot)));
            own.extend(upstream.iter().map(|upstream| self.names.ghost(upstream)));
            owners.extend(own.iter().map(|key| (key.clone(), stem.clone())));
            keys.extend(own);
        }
        let mut standings: BTreeMap<Stem, Standing> = BTreeMap::new();
        for item in self.tracking.store.get_all(&keys, self.tracking.now()).await? {
            let key = Key::of(&item);
            let Some(stem) = owners.get(&key) else { continue };
            let standing = standings.entry(stem.clone()).or_default();
            if key.sk == "GHOST" {
                let ghost: Ghost = store::from_item(&item)?;
                standing.retired.insert(ghost.upstream);
            } else {
                match storage::holder(&item)? {
                    Holder::User(user) => standing.user = Some(user),
                    Holder::Foreign(foreign) => standing.foreign.push(foreign),
                }
            }
        }
        Ok(standings)
    }

    async fn bring_holders(&mut self, holders: &[Holder], taken_at: Timestamp) -> Result<(), BackupError> {
        if holders.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = holders
            .iter()
            .map(|holder| (holder.stem(), holder.upstream().cloned()))
            .collect();
        for _ in 0..MAX_TRIES {
            let rev = self.close().await?;
            let standings = self.standings(&ids).await?;
            let now = self.tracking.now();
            let mut restored = self.restored;
            let (mut writes, mut audit) = (Vec::new(), Vec::new());
            for holder in holders {
                let nothing = Standing::default();
                let standing = standings.get(&holder.stem()).unwrap_or(&nothing);
                match bring_holder(holder, standing, taken_at, &self.author, now) {
                    Decision::Leave(left) => restored.leave(left),
                    Decision::Bring {
                        writes: more,
                        audit: line,
                    } => {
                        writes.extend(more);
                        audit.push(line);
                        match holder {
                            Holder::User(_) => restored.users += 1,
                            Holder::Foreign(_) => restored.adopted += 1,
                        }
                    }
                }
            }
            if writes.is_empty() || self.make(rev, writes, audit).await? {
                self.restored = restored;
                return Ok(());
            }
        }
        Err(BackupError::Busy)
    }

    async fn bring_ghosts(&mut self, ghosts: &[Ghost]) -> Result<(), BackupError> {
        if ghosts.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = ghosts
            .iter()
            .map(|ghost| (ghost.upstream.stem(), Some(ghost.upstream.clone())))
            .collect();
        for _ in 0..MAX_TRIES {
            let rev = self.close().await?;
            let standings = self.standings(&ids).await?;
            let nothing = Standing::default();
            let writes: Vec<_> = ghosts
                .iter()
                .filter_map(|ghost| {
                    let standing = standings.get(&ghost.upstream.stem()).unwrap_or(&nothing);
                    bring_ghost(ghost, standing, &self.author)
                })
                .collect();
            let brought = writes.len() as u64;
            if writes.is_empty() || self.make(rev, writes, Vec::new()).await? {
                self.restored.ghosts += brought;
                return Ok(());
            }
        }
        Err(BackupError::Busy)
    }

    /// Makes these writes while the places are closed. `false` where something is not as it was read.
    async fn make(
        &mut self,
        rev: u64,
        writes: Vec<crate::connections::machine::Write>,
        audit: Vec<crate::connections::machine::AuditEntry>,
    ) -> Result<bool, BackupError> {
        let transition = Transition::of(0).guarded(Guard::Revision(rev));
        let commit: Box<Commit> =
            self.author
                .commit("restore", self.tracking.now(), transition, writes, audit);
        let made = self.send(&self.names.transaction(&commit)?).await?;
        // The next step depends on the revision that this one made.
        self.closed_at = made.then(|| rev + 1);
        Ok(made)
    }

    /// Sends a transaction until it is known whether it was made: under its token it is not made twice.
    async fn send(&self, transaction: &Transaction) -> Result<bool, StoreError> {
        let mut sends = 1;
        loop {
            match self
                .tracking
                .store
                .transact(transaction, self.tracking.now())
                .await
            {
                Ok(outcome) => return Ok(outcome.is_made()),
                Err(_) if sends < MAX_SENDS => sends += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes an item that nothing else depends on, where there is none.
    async fn add(&mut self, item: Item) -> Result<(), BackupError> {
        let now = self.tracking.now();
        if store::is_expired(&item, now) {
            return Ok(());
        }
        let put = self.tracking.store.put(item, &Condition::Absent, now).await?;
        self.restored.others += u64::from(put.is_made());
        Ok(())
    }

    /// Brings back what the sync last saw, so that a list that is suddenly short is doubted, and nobody's lease.
    async fn bring_sync(&mut self, saved: SyncRecord) -> Result<(), BackupError> {
        let record = SyncRecord {
            rev: self.author.attempt.first_revision(),
            until: Timestamp::UNIX_EPOCH,
            doubted: None,
            ..saved
        };
        let item = to_item(&self.names.sync(), &record, None, None)?;
        self.add(item).await
    }

    /// Brings back what stands beside a user's record, where it is of the incarnation that is there.
    async fn bring_companion(&mut self, item: Item) -> Result<(), BackupError> {
        let key = Key::new(Key::of(&item).pk, "USER");
        let user = self.tracking.store.get(&key, self.tracking.now()).await?;
        let user: Option<UserRecord> = user.as_ref().map(store::from_item).transpose()?;
        let upstream = item.get("upstream").and_then(|upstream| upstream.as_s().ok());
        let same = user
            .as_ref()
            .and_then(UserRecord::upstream)
            .is_some_and(|there| upstream.is_some_and(|saved| saved == there.as_str()));
        if same { self.add(item).await } else { Ok(()) }
    }

    /// Writes lines of the audit trail. A line that is there is the same line.
    async fn add_lines(&mut self, lines: Vec<Item>) -> Result<(), BackupError> {
        if lines.is_empty() {
            return Ok(());
        }
        let count = lines.len() as u64;
        let transaction = Transaction {
            token: format!("{}.audit.1", new_attempt()),
            writes: lines
                .into_iter()
                .map(|item| store::Write::Put {
                    item,
                    condition: Condition::Always,
                })
                .collect(),
        };
        self.send(&transaction).await?;
        self.restored.audit += count;
        Ok(())
    }
}

/// The places of a table that has none yet: closed, and nothing counted.
#[derive(Serialize)]
struct Founded {
    counts: Counts,
    max: u32,
    in_use: u32,
    rev: u64,
    open: bool,
    restored: bool,
    given_up: u64,
    held: BTreeMap<String, String>,
}

impl Founded {
    fn new(counts: Counts, rev: u64) -> Self {
        Self {
            counts,
            // How many there may be is written by whoever opens them.
            max: 0,
            in_use: 0,
            rev,
            open: false,
            restored: true,
            given_up: 0,
            held: BTreeMap::new(),
        }
    }
}
