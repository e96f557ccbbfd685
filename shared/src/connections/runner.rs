//! Does what the machines of this room want done.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;

use super::counting::candidates;
use super::machine::{
    Books, Census, CommitOutcome, ConnectionHolder, Context, Deletion, Disconnection, Effect, Enrolment,
    Entry, Fault, Input, ListedConnection, Machine, Next, NotListed, Roster, SecretStanding,
};
use super::policy;
use super::records::{
    ConnectionsRecord, FOREIGN_SLOTS, ForeignRecord, Ghost, Holder, SyncRecord, UserRecord,
};
use super::storage::{self, Names};
use super::timing;
use crate::app::App;
use crate::clock::Clock;
use crate::config::Policy;
use crate::ids::{AttemptId, Stem, TenantId, UpstreamId};
use crate::secrets::{Cached, DataKeys, SecretError};
use crate::snaptrade::{Client, ConnectionId, Error, ErrorKind, Outcome, UserCredentials};
use crate::store::{self, Store, StoreError};
use crate::user_secrets::{self, SealError};

/// How many of those who come first by a policy are read again before one of them is chosen.
const NOMINATED: usize = 10;

/// How many items of the index are looked at in one call, where all are: few enough to come well within a call's time.
const PAGE: i32 = 1_000;

/// How long SnapTrade is given when it wants fewer calls and does not say for how long.
const DEFAULT_RATE_WAIT: Duration = Duration::from_secs(10);

/// Runs machines for one tenant within one invocation.
pub struct Runner<'a> {
    store: &'a Store,
    snaptrade: Client,
    data_keys: &'a Cached<DataKeys>,
    clock: &'a Clock,
    tenant: TenantId,
    names: Names,
    deadline: Timestamp,
}

impl<'a> Runner<'a> {
    /// A runner whose work has to be done within [`timing::FUNCTION`] from now.
    #[must_use]
    pub fn new(app: &'a App, tenant: TenantId) -> Self {
        Self {
            store: app.store(),
            // The machines decide what is sent again; nothing may be sent behind their backs.
            snaptrade: app.snaptrade().once().with_timeout(timing::CALL),
            data_keys: app.data_keys(),
            clock: app.clock(),
            names: Names::new(tenant.clone()),
            tenant,
            deadline: timing::after(app.clock().now(), timing::FUNCTION),
        }
    }

    /// Whose limit it is.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The names of this tenant's items.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The time, to the millisecond.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    /// Runs a machine to its end.
    ///
    /// # Errors
    /// [`StoreError`] when something could not be read. What the machine had begun is written down and is finished by
    /// the next caller or the sync.
    pub async fn run<M: Machine>(&self, mut machine: M) -> Result<M::Output, StoreError> {
        let mut input = Input::Begin;
        loop {
            let next = {
                let mut draw = new_attempt;
                let mut context = Context {
                    now: self.now(),
                    deadline: self.deadline,
                    draw: &mut draw,
                };
                machine.advance(input, &mut context)
            };
            match next {
                Next::Done(output) => return Ok(output),
                // Boxed, so that what a handler's future holds does not grow with every layer of a call.
                Next::Do(effect) => input = Box::pin(self.perform(effect)).await?,
            }
        }
    }

    async fn perform(&self, effect: Effect) -> Result<Input, StoreError> {
        Ok(match effect {
            Effect::ReadEntry(stem) => Input::Entry(Box::new(self.entry(&stem).await?)),
            Effect::ReadReservation(stem) => {
                let user = self.user(&stem).await?;
                let owed = user
                    .as_ref()
                    .and_then(UserRecord::reservation)
                    .map(|r| r.after.clone());
                let ghosts = self.ghosts(&owed.unwrap_or_default()).await?;
                Input::Reservation(user.map(Box::new), ghosts)
            }
            Effect::ReadCandidates(policy) => Input::Candidates(self.candidates(policy).await?),
            Effect::ReadRoster => Input::Roster(Box::new(self.roster().await?)),
            Effect::ReadSlots => {
                let item = self.store.get(&self.names.slots(), self.now()).await?;
                let slots = item.as_ref().map(storage::slots).transpose()?;
                Input::Slots(slots.map(Box::new))
            }
            Effect::ReadEntries(stems) => Input::Entries(self.entries(&stems).await?),
            Effect::Count(listed) => Input::Counted(Box::new(self.census(&listed).await?)),
            Effect::ReadSync => {
                let item = self.store.get(&self.names.sync(), self.now()).await?;
                Input::SyncRecord(item.as_ref().map(storage::sync_record).transpose()?)
            }
            Effect::Commit(commit) => {
                let transaction = self.names.transaction(&commit)?;
                match self.store.transact(&transaction, commit.at).await {
                    Ok(outcome) => Input::Committed(self.names.outcome(&commit, outcome)?),
                    Err(error) => {
                        tracing::warn!(%error, commit = %commit.token, "the store did not say whether a commit was made");
                        Input::Committed(CommitOutcome::Unknown)
                    }
                }
            }
            Effect::Delete(upstream) => Input::Deleted(self.delete(&upstream).await),
            Effect::Register(upstream, owner) => Input::Registered(self.register(&upstream, &owner).await),
            Effect::List => Input::Listed(self.snaptrade.list_users().await.map_err(|error| fault(&error))),
            Effect::ProbeUser(user) => Input::Probed(self.probe_user(&user).await),
            Effect::ProbeCredentials => Input::ProbedCredentials(self.snaptrade.partner_info().await.is_ok()),
            Effect::ListConnections(user) => Input::ConnectionsListed(self.list_connections(&user).await),
            Effect::DeleteConnection(user, id) => {
                Input::ConnectionDeleted(self.delete_connection(&user, &id).await)
            }
            Effect::NoteRejected(user) => {
                self.note_rejected(&user).await;
                Input::Noted
            }
            Effect::ReadConnectionHolders(policy) => {
                Input::ConnectionHolders(self.connection_holders(policy).await?)
            }
            Effect::ReadBooks => Input::Books(Box::new(self.books().await?)),
            Effect::ReadGhost(upstream) => {
                let item = self.store.get(&self.names.ghost(&upstream), self.now()).await?;
                let ghost = item.as_ref().map(store::from_item).transpose()?;
                Input::Ghost(ghost.map(Box::new))
            }
            Effect::ReadStatistics => Input::Statistics(self.statistics().await),
            Effect::Wait(duration) => {
                self.clock.sleep(duration).await;
                Input::Waited
            }
        })
    }

    /// All that decides about a user, in one call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn entry(&self, stem: &Stem) -> Result<Entry, StoreError> {
        Ok(self.read_entry(stem, Vec::new()).await?.0)
    }

    /// The same, and what the sync noted when it last ran.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn standing(&self, stem: &Stem) -> Result<(Entry, Option<SyncRecord>), StoreError> {
        let (entry, others) = self.read_entry(stem, vec![self.names.sync()]).await?;
        let sync = others.first().map(storage::sync_record).transpose()?;
        Ok((entry, sync))
    }

    async fn read_entry(
        &self,
        stem: &Stem,
        others: Vec<store::Key>,
    ) -> Result<(Entry, Vec<store::Item>), StoreError> {
        let (user, hold, slots) = (self.names.user(stem), self.names.hold(stem), self.names.slots());
        let connections = self.names.connections(stem);
        let mut keys = vec![user.clone(), hold.clone(), slots.clone(), connections.clone()];
        keys.extend((0..FOREIGN_SLOTS).map(|slot| self.names.foreign(stem, slot)));
        keys.extend_from_slice(&others);
        let (mut entry, mut found) = (Entry::default(), Vec::new());
        for item in self.store.get_all(&keys, self.now()).await? {
            let key = store::Key::of(&item);
            if key == user {
                entry.user = Some(store::from_item(&item)?);
            } else if key == hold {
                entry.hold = Some(store::from_item(&item)?);
            } else if key == slots {
                entry.slots = Some(storage::slots(&item)?);
            } else if key == connections {
                entry.connections = Some(store::from_item(&item)?);
            } else if others.contains(&key) {
                found.push(item);
            } else {
                entry.foreign.push(store::from_item(&item)?);
            }
        }
        entry
            .foreign
            .sort_by_key(|foreign: &ForeignRecord| (foreign.created_at, foreign.order));
        Ok((entry, found))
    }

    /// A user's own record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user(&self, stem: &Stem) -> Result<Option<UserRecord>, StoreError> {
        let item = self.store.get(&self.names.user(stem), self.now()).await?;
        item.as_ref().map(store::from_item).transpose()
    }

    async fn ghosts(&self, ids: &[UpstreamId]) -> Result<Vec<Ghost>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<store::Key> = ids.iter().map(|id| self.names.ghost(id)).collect();
        self.store
            .get_all(&keys, self.now())
            .await?
            .iter()
            .map(store::from_item)
            .collect()
    }

    /// The holders that come first by `policy`, as the index nominates them, each read again as it is now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn candidates(&self, policy: Policy) -> Result<Vec<Holder>, StoreError> {
        let mut eligible: Vec<Holder> = Vec::new();
        let mut start = None;
        loop {
            let page = self
                .store
                .index_page(&self.names.holders(), None, start, self.now())
                .await?;
            for item in &page.items {
                let holder = storage::holder(item)?;
                if holder.may_give_way() {
                    eligible.push(holder);
                }
            }
            eligible.sort_by(|a, b| policy::compare(policy, a, b));
            eligible.truncate(NOMINATED);
            start = page.next;
            // The index is in order of age, so nobody further on is older.
            if start.is_none() || (policy == Policy::Oldest && eligible.len() >= NOMINATED) {
                break;
            }
        }
        if eligible.is_empty() {
            return Ok(Vec::new());
        }
        let nominated: Vec<store::Key> = eligible.iter().map(|holder| self.key_of(holder)).collect();
        self.store
            .get_all(&nominated, self.now())
            .await?
            .iter()
            .map(storage::holder)
            .collect()
    }

    /// Where a holder's record stands.
    #[must_use]
    pub fn key_of(&self, holder: &Holder) -> store::Key {
        match holder {
            Holder::User(user) => self.names.user(&user.stem),
            Holder::Foreign(foreign) => self.names.foreign(&foreign.upstream.stem(), foreign.slot),
        }
    }

    async fn roster(&self) -> Result<Roster, StoreError> {
        let slots = self.store.get(&self.names.slots(), self.now()).await?;
        let (mut holders, mut ghosts) = (Vec::new(), Vec::new());
        let (holders_index, ghosts_index) = (self.names.holders(), self.names.ghosts());
        tokio::try_join!(
            self.each(&holders_index, |item| {
                holders.push(storage::holder(item)?);
                Ok(())
            }),
            self.each(&ghosts_index, |item| {
                ghosts.push(store::from_item(item)?);
                Ok(())
            }),
        )?;
        Ok(Roster {
            slots: slots.as_ref().map(storage::slots).transpose()?,
            holders,
            ghosts,
        })
    }

    /// The oldest holders, as many as one call to the store gives, and whether these are all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn first_holders(&self) -> Result<(Vec<Holder>, bool), StoreError> {
        let page = self
            .store
            .index_page(&self.names.holders(), None, None, self.now())
            .await?;
        let holders: Result<Vec<Holder>, StoreError> = page.items.iter().map(storage::holder).collect();
        Ok((holders?, page.next.is_none()))
    }

    /// All holders, oldest first, through the index.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn holders(&self) -> Result<Vec<Holder>, StoreError> {
        let mut holders = Vec::new();
        self.each(&self.names.holders(), |item| {
            holders.push(storage::holder(item)?);
            Ok(())
        })
        .await?;
        Ok(holders)
    }

    /// Looks at all items of an index partition, of which no more than a page is kept at a time.
    async fn each(
        &self,
        partition: &str,
        mut look: impl FnMut(&store::Item) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut start = None;
        loop {
            let page = self
                .store
                .index_page(partition, Some(PAGE), start, self.now())
                .await?;
            page.items.iter().try_for_each(&mut look)?;
            start = page.next;
            if start.is_none() {
                return Ok(());
            }
        }
    }

    /// The records of several users, in one call for each hundred.
    async fn entries(&self, stems: &[Stem]) -> Result<Vec<Entry>, StoreError> {
        let keys: Vec<store::Key> = stems.iter().flat_map(|stem| self.keys_of_holders(stem)).collect();
        let mut entries: HashMap<String, Entry> = HashMap::new();
        for item in self.store.get_all(&keys, self.now()).await? {
            let entry = entries.entry(store::Key::of(&item).pk).or_default();
            match storage::holder(&item)? {
                Holder::User(user) => entry.user = Some(user),
                Holder::Foreign(foreign) => entry.foreign.push(foreign),
            }
        }
        let of = |stem: &Stem| {
            let entry = entries.remove(&self.names.user_partition(stem));
            entry.unwrap_or_default()
        };
        Ok(stems.iter().map(of).collect())
    }

    /// The keys under which a user's partition may hold a place.
    fn keys_of_holders(&self, stem: &Stem) -> impl Iterator<Item = store::Key> + use<> {
        let foreign: Vec<store::Key> = (0..FOREIGN_SLOTS)
            .map(|slot| self.names.foreign(stem, slot))
            .collect();
        std::iter::once(self.names.user(stem)).chain(foreign)
    }

    async fn census(&self, listed: &[UpstreamId]) -> Result<Census, StoreError> {
        let slots = self.store.get(&self.names.slots(), self.now()).await?;
        let slots = slots.as_ref().map(storage::slots).transpose()?;
        let (mut keys, mut shown) = (HashSet::new(), HashSet::new());
        self.each(&self.names.holders(), |item| {
            keys.insert(store::Key::of(item));
            if let Some(Ok(upstream)) = item.get("upstream").map(|upstream| upstream.as_s()) {
                shown.insert(upstream.clone());
            }
            Ok(())
        })
        .await?;
        let held = slots.iter().flat_map(|slots| slots.held.keys());
        keys.extend(held.map(|stem| self.names.user(stem)));
        let hidden = listed.iter().filter(|id| !shown.contains(id.as_str()));
        keys.extend(hidden.flat_map(|id| self.keys_of_holders(&id.stem())));
        drop(shown);
        let keys: Vec<store::Key> = keys.into_iter().collect();
        let mut census = Census {
            slots,
            ..Census::default()
        };
        for hundred in keys.chunks(100) {
            for item in self.store.get_all(hundred, self.now()).await? {
                census.add(storage::holder(&item)?);
            }
        }
        Ok(census)
    }

    async fn delete(&self, upstream: &UpstreamId) -> Deletion {
        match self.snaptrade.delete_user(upstream).await {
            Ok(_) => Deletion::Queued,
            Err(error) if error.kind == ErrorKind::NotFound => Deletion::NotThere,
            Err(error) => {
                tracing::warn!(%error, "SnapTrade did not take a deletion");
                match error.outcome() {
                    Outcome::Refused => Deletion::Refused(fault(&error)),
                    Outcome::Unknown => Deletion::Unknown(fault(&error)),
                }
            }
        }
    }

    async fn register(&self, upstream: &UpstreamId, owner: &Stem) -> Enrolment {
        // Without a key the secret could not be stored, so the keys come before the call.
        let keys = match self.data_keys.get().await {
            Ok(keys) => keys,
            Err(error) => {
                tracing::error!(%error, "no data key, so nobody can be registered");
                return Enrolment::Refused(Fault::Error);
            }
        };
        match self.snaptrade.register_user(upstream).await {
            Ok(registered) => match user_secrets::seal(&keys, &self.tenant, owner, &registered.user_secret) {
                Ok(sealed) => Enrolment::Done(sealed),
                Err(error) => {
                    tracing::error!(%error, "a new user's secret could not be encrypted; its id is given up");
                    Enrolment::Unknown(Fault::Error)
                }
            },
            Err(error) => {
                tracing::warn!(%error, "SnapTrade did not register a user");
                match (&error.kind, error.outcome()) {
                    (ErrorKind::UserExists, _) => Enrolment::Taken,
                    (ErrorKind::LimitReached, _) => Enrolment::LimitReached,
                    (_, Outcome::Refused) => Enrolment::Refused(fault(&error)),
                    (_, Outcome::Unknown) => Enrolment::Unknown(fault(&error)),
                }
            }
        }
    }

    async fn list_connections(&self, user: &UserRecord) -> Result<Vec<ListedConnection>, NotListed> {
        let credentials = self.credentials(user).await.map_err(|error| {
            tracing::error!(%error, "a user's secret could not be opened");
            NotListed::Fault(Fault::Error)
        })?;
        match self.snaptrade.list_connections(&credentials).await {
            Ok(connections) => Ok(connections
                .into_iter()
                .map(|connection| ListedConnection {
                    id: connection.id,
                    created_at: connection.created_date,
                    disabled: connection.disabled,
                })
                .collect()),
            Err(error) if error.kind == ErrorKind::UserSecretRejected => Err(NotListed::SecretRejected),
            Err(error) => {
                tracing::warn!(%error, "a user's connections could not be listed");
                Err(NotListed::Fault(fault(&error)))
            }
        }
    }

    async fn delete_connection(&self, user: &UserRecord, id: &ConnectionId) -> Disconnection {
        let credentials = match self.credentials(user).await {
            Ok(credentials) => credentials,
            Err(error) => {
                tracing::error!(%error, "a user's secret could not be opened");
                return Disconnection::Answered(Deletion::Refused(Fault::Error));
            }
        };
        match self.snaptrade.delete_connection(&credentials, id).await {
            Ok(_) => Disconnection::Answered(Deletion::Queued),
            Err(error) if error.kind == ErrorKind::NotFound => Disconnection::Answered(Deletion::NotThere),
            Err(error) if error.kind == ErrorKind::UserSecretRejected => Disconnection::SecretRejected,
            Err(error) => {
                tracing::warn!(%error, "SnapTrade did not take the deletion of a connection");
                Disconnection::Answered(match error.outcome() {
                    Outcome::Refused => Deletion::Refused(fault(&error)),
                    Outcome::Unknown => Deletion::Unknown(fault(&error)),
                })
            }
        }
    }

    /// Notes that SnapTrade refuses a user's secret, unless it has another incarnation by now. What cannot be written
    /// down is found out again.
    async fn note_rejected(&self, user: &UserRecord) {
        let Some(upstream) = user.upstream() else { return };
        let expression = store::Expression {
            update: "SET secret_rejected = :yes".to_owned(),
            condition: "upstream = :upstream AND #state = :active".to_owned(),
            names: [("#state".to_owned(), "state".to_owned())].into(),
            values: [
                (":yes".to_owned(), AttributeValue::Bool(true)),
                (":upstream".to_owned(), AttributeValue::S(upstream.to_string())),
                (":active".to_owned(), AttributeValue::S("active".to_owned())),
            ]
            .into(),
        };
        let transaction = store::Transaction {
            token: format!("{}.rejected.1", new_attempt()),
            writes: vec![store::Write::Update {
                key: self.names.user(&user.stem),
                expression,
            }],
        };
        if let Err(error) = self.store.transact(&transaction, self.now()).await {
            tracing::warn!(%error, "it could not be noted that a user's secret is rejected");
        }
    }

    /// Users whose connections might give way, read as they are now. The index lists those with the oldest connection
    /// first, so for the oldest only as much is read as decides.
    async fn connection_holders(&self, policy: Policy) -> Result<Vec<ConnectionHolder>, StoreError> {
        let mut holders = Vec::new();
        let mut start = None;
        loop {
            let page = self
                .store
                .index_page(&self.names.counted(), None, start, self.now())
                .await?;
            let mut nominated = Vec::new();
            let mut last = None;
            for item in &page.items {
                let record: ConnectionsRecord = store::from_item(item)?;
                last = record.ids.values().map(|one| one.since).min().or(last);
                if !record.ids.is_empty() || record.portal.is_some() {
                    nominated.push(record.stem);
                }
            }
            holders.extend(self.holders_of_connections(&nominated).await?);
            start = page.next;
            let decided = policy == Policy::Oldest
                && candidates::choose(policy, &holders, self.now())
                    .is_some_and(|candidate| last.is_some_and(|last| candidate.since <= last));
            if start.is_none() || decided {
                return Ok(holders);
            }
        }
    }

    async fn holders_of_connections(&self, stems: &[Stem]) -> Result<Vec<ConnectionHolder>, StoreError> {
        let keys: Vec<store::Key> = stems
            .iter()
            .flat_map(|stem| [self.names.user(stem), self.names.connections(stem)])
            .collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (mut users, mut records) = (BTreeMap::new(), Vec::new());
        for item in self.store.get_all(&keys, self.now()).await? {
            if store::Key::of(&item).sk == "USER" {
                let user: UserRecord = store::from_item(&item)?;
                users.insert(user.stem.clone(), user);
            } else {
                records.push(store::from_item::<ConnectionsRecord>(&item)?);
            }
        }
        Ok(records
            .into_iter()
            .filter_map(|record| {
                let user = users.remove(&record.stem)?;
                Some(ConnectionHolder { user, record })
            })
            .collect())
    }

    async fn books(&self) -> Result<Books, StoreError> {
        let now = self.now();
        let slots = self.store.get(&self.names.slots(), now).await?;
        let records = self.store.index(&self.names.counted(), None, now).await?;
        Ok(Books {
            slots: slots.as_ref().map(storage::slots).transpose()?,
            records: records.iter().map(store::from_item).collect::<Result<_, _>>()?,
        })
    }

    async fn statistics(&self) -> Option<u32> {
        let stats = match self.snaptrade.stats().await {
            Ok(stats) => stats,
            Err(error) => {
                tracing::warn!(%error, "SnapTrade's statistics could not be had");
                return None;
            }
        };
        let active = stats.total_active_connections?;
        let all = active.saturating_add(stats.total_disabled_connections.unwrap_or(0));
        Some(u32::try_from(all).unwrap_or(u32::MAX))
    }

    /// What a user's stored secret is worth to SnapTrade. One call.
    pub async fn probe_user(&self, user: &UserRecord) -> SecretStanding {
        let Ok(credentials) = self.credentials(user).await else {
            return SecretStanding::Unclear;
        };
        match self.snaptrade.list_connections(&credentials).await {
            Ok(_) => SecretStanding::Works,
            Err(error) if error.kind == ErrorKind::UserSecretRejected => SecretStanding::Rejected,
            Err(_) => SecretStanding::Unclear,
        }
    }

    /// What signs the calls of an active user.
    ///
    /// # Errors
    /// [`NoSecret`] says why there is nothing to sign with.
    pub async fn credentials(&self, user: &UserRecord) -> Result<UserCredentials, NoSecret> {
        let active = user.active().ok_or(NoSecret::NotRegistered)?;
        let keys = self.data_keys.get().await?;
        let secret = user_secrets::open(&keys, &self.tenant, &user.stem, &active.secret)?;
        Ok(UserCredentials {
            user_id: active.upstream.clone(),
            user_secret: secret,
        })
    }
}

/// Why there is nothing to sign a user's calls with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSecret {
    /// The user is not registered.
    #[error("the user is not registered")]
    NotRegistered,
    /// The data keys could not be read.
    #[error(transparent)]
    Keys(#[from] SecretError),
    /// The stored secret does not open.
    #[error(transparent)]
    Sealed(#[from] SealError),
}

/// Draws a name that nobody else has.
#[must_use]
pub fn new_attempt() -> AttemptId {
    let mut bytes = [0_u8; 8];
    if getrandom::fill(&mut bytes).is_err() {
        // No machine that runs this lacks random bytes; should one, the clock's finest digits are told apart by the
        // conditions on every write.
        bytes = Timestamp::now()
            .as_nanosecond()
            .to_le_bytes()
            .first_chunk()
            .copied()
            .unwrap_or(bytes);
    }
    AttemptId::from_random(bytes)
}

/// What a caller should know of a failed call.
#[must_use]
pub fn fault(error: &Error) -> Fault {
    match error.kind {
        ErrorKind::Timeout | ErrorKind::Unreachable => Fault::Timeout,
        ErrorKind::RateLimited { retry_after } => {
            Fault::RateLimited(retry_after.unwrap_or(DEFAULT_RATE_WAIT))
        }
        _ => Fault::Error,
    }
}
