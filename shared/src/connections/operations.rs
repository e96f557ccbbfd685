//! What can be done about the limit: by the functions, by the command line, and by whoever uses this crate.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::adoption::Adoption;
use super::leaving::{Leaving, NotLeft, UpstreamDeletion, Whom};
use super::machine::{AuditEntry, Author, Change, CommitOutcome, Entry, Expect, Fault, SlotsChange, Write};
use super::opening::{Opened, Opening, unknown_ids};
use super::policy;
use super::records::{ForeignRecord, Ghost, Holder, ReservationKind, Slots, UserRecord, UserState};
use super::registration::{Granted, Intent, Refusal, Registration, Wish};
use super::runner::{self, NoSecret, Runner, new_attempt};
use super::storage;
use super::sync::{NotSynced, Sync, Synced};
use super::timing;
use super::vanishing::Vanishing;
use crate::app::App;
use crate::clock::to_the_millisecond;
use crate::config::{Counts, Policy};
use crate::ids::{Stem, TenantId, UpstreamId, UserId};
use crate::snaptrade::{ErrorKind, UserCredentials};
use crate::store::{self, Item, Key, Outcome, StoreError, Transaction};
use crate::user_secrets::{self, SealedSecret};

/// How often a change is decided anew when others were faster.
const MAX_TRIES: u32 = 4;

/// Why an operation on the limit was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No place could be had.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The user was not deleted.
    #[error(transparent)]
    NotLeft(#[from] NotLeft),
    /// The sync did not run.
    #[error(transparent)]
    NotSynced(#[from] NotSynced),
    /// There is no such user.
    #[error("there is no such user")]
    NoSuchUser,
    /// There is nothing to sign the user's calls with.
    #[error(transparent)]
    NoSecret(#[from] NoSecret),
    /// SnapTrade no longer accepts the user's secret.
    #[error("SnapTrade no longer accepts the user's secret")]
    SecretRejected,
    /// SnapTrade could not be used.
    #[error("SnapTrade could not be used: {0:?}")]
    Snaptrade(Fault),
    /// The store could not be used, or others changed the same record all the time.
    #[error("the store could not be used: {0}")]
    Store(#[from] StoreError),
}

/// The places as a caller sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Taken.
    pub in_use: u32,
    /// There are.
    pub limit: u32,
}

/// Who gave way, as a caller sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evicted {
    /// Who, for operators only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Why.
    pub reason: policy::Reason,
    /// When that user was registered.
    #[serde(serialize_with = "to_the_millisecond")]
    pub created_at: Timestamp,
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// Always true: what failed is a problem instead.
    pub success: bool,
    /// Who.
    pub user_id: UserId,
    /// Now, rather than before.
    pub created: bool,
    /// Since when.
    #[serde(serialize_with = "to_the_millisecond")]
    pub created_at: Timestamp,
    /// Who gave way.
    pub evicted: Option<Evicted>,
    /// The places after it.
    pub slots: Places,
}

/// The answer to a hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Always true: what failed is a problem instead.
    pub success: bool,
    /// Until when the place is kept; `None` for a user who is registered.
    pub held_until: Option<Timestamp>,
    /// Who gave way.
    pub evicted: Option<Evicted>,
    /// The places after it.
    pub slots: Places,
}

/// The answer to a deletion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deleted {
    /// Who.
    pub user_id: String,
    /// Always true: what failed is a problem instead.
    pub deleted: bool,
    /// What SnapTrade made of it: `queued` or `unknown_there`.
    pub upstream: String,
}

/// How the limit stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Places taken. Those whose holder ran out of time are not counted: the next caller gets them.
    pub current_count: u32,
    /// The limit.
    pub max_connections: u32,
    /// Whether a newcomer would need somebody to give way.
    pub at_limit: bool,
    /// Places that are free.
    pub available: u32,
    /// What counts against the limit.
    pub counts: Counts,
    /// Users at SnapTrade, as tracked.
    pub users: u32,
    /// Their brokerage connections, as tracked.
    pub connections: u32,
    /// Whether the caller is registered.
    pub registered: bool,
    /// Until when a place is kept for the caller.
    pub held_until: Option<Timestamp>,
    /// What only operators see.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// Tracking beside SnapTrade's own list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Users that tracking has.
    pub tracked_count: u32,
    /// Ids in SnapTrade's list.
    pub upstream_count: u32,
    /// Whether both name the same.
    pub in_sync: bool,
    /// Users that tracking has and SnapTrade does not.
    pub missing: Vec<String>,
    /// Ids that SnapTrade has and tracking does not.
    pub unknown: Vec<String>,
    /// Who was registered first.
    pub oldest: Option<Oldest>,
}

/// Who was registered first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Oldest {
    /// Who.
    pub user_id: String,
    /// When.
    #[serde(serialize_with = "to_the_millisecond")]
    pub created_at: Timestamp,
}

/// A user as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackedUser {
    /// The application's id.
    pub user_id: String,
    /// The id at SnapTrade; none while a place is only kept.
    pub upstream_id: Option<UpstreamId>,
    /// How the user stands.
    pub state: TrackedState,
    /// When it was registered, first seen, or given a place.
    #[serde(serialize_with = "to_the_millisecond")]
    pub created_at: Timestamp,
    /// When it was last seen doing something.
    pub last_active_at: Option<Timestamp>,
    /// Brokerage connections, as last seen.
    pub connections: u32,
    /// Whether it never gives way.
    pub protected: bool,
}

/// How a tracked user stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackedState {
    /// Registered.
    Active,
    /// A place is kept.
    Reserved,
    /// Being deleted.
    Leaving,
    /// Known to SnapTrade, without a secret here.
    Adopted,
}

/// A change to a tracked user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserChange {
    /// Whether it never gives way.
    pub protected: Option<bool>,
    /// Its true age.
    pub created_at: Option<Timestamp>,
}

/// Part of the list of users.
#[derive(Debug, Clone, PartialEq)]
pub struct UserPage {
    /// The users, oldest first.
    pub users: Vec<TrackedUser>,
    /// Where the list goes on.
    pub next: Option<ListPosition>,
}

/// A place in the list of users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPosition {
    pk: String,
    sk: String,
    gsi1sk: String,
}

/// What making room proactively came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomMade {
    /// The places after it.
    pub slots: Places,
    /// Who was deleted; none where there was room.
    pub deleted: Option<Deleted>,
}

/// The operations on one tenant's limit, in the name of one caller, within one invocation.
pub struct Connections<'a> {
    app: &'a App,
    runner: Runner<'a>,
    actor: String,
    sees_users: bool,
}

impl<'a> Connections<'a> {
    /// In the name of `actor`, who goes into the audit trail. `sees_users` says whether they may learn who gave way.
    #[must_use]
    pub fn new(app: &'a App, tenant: TenantId, actor: impl Into<String>, sees_users: bool) -> Self {
        Self {
            app,
            runner: Runner::new(app, tenant),
            actor: actor.into(),
            sees_users,
        }
    }

    /// What the machines of this room run on.
    #[must_use]
    pub fn runner(&self) -> &Runner<'a> {
        &self.runner
    }

    fn author(&self) -> Author {
        Author::new(new_attempt(), self.actor.clone())
    }

    fn limit(&self) -> u32 {
        self.app.config().limit
    }

    async fn wish(&self, intent: Intent, user: &UserId) -> Result<Granted, Failure> {
        let config = self.app.config();
        let wish = Wish {
            intent,
            user: user.clone(),
            max: config.limit,
            counts: config.counts,
            policy: config.policy,
        };
        Ok(self.runner.run(Registration::new(wish, self.author())).await??)
    }

    fn evicted(&self, eviction: Option<super::registration::Eviction>) -> Option<Evicted> {
        eviction.map(|eviction| Evicted {
            user_id: self.sees_users.then_some(eviction.user_id),
            reason: eviction.reason,
            created_at: eviction.created_at,
        })
    }

    fn registered(&self, user: &UserId, granted: Granted) -> Registered {
        let (created, created_at, eviction, in_use) = match granted {
            Granted::Registered {
                created,
                created_at,
                eviction,
                in_use,
            } => (created, created_at, eviction, in_use),
            // A registration is never granted as a hold; were it, the place at least is theirs.
            Granted::Held {
                until,
                eviction,
                in_use,
            } => (
                false,
                until.unwrap_or_else(|| self.runner.now()),
                eviction,
                in_use,
            ),
        };
        Registered {
            success: true,
            user_id: user.clone(),
            created,
            created_at,
            evicted: self.evicted(eviction),
            slots: Places {
                in_use,
                limit: self.limit(),
            },
        }
    }

    /// Registers a user, making room where there is none. A user who is registered already is told so.
    ///
    /// # Errors
    /// [`Failure::Refused`] says why there is no place; [`Failure::Store`].
    pub async fn register(&self, user: &UserId) -> Result<Registered, Failure> {
        let granted = self.wish(Intent::Register, user).await?;
        Ok(self.registered(user, granted))
    }

    /// Deletes a user at SnapTrade, whoever registered it there, and registers it anew in the same place.
    ///
    /// # Errors
    /// As [`Connections::register`].
    pub async fn recreate(&self, user: &UserId) -> Result<Registered, Failure> {
        if self.find(user).await?.is_empty() {
            // It may be one that SnapTrade knows and tracking has not seen yet; nobody else can be recreated.
            self.add(user, UserChange::default()).await?;
        }
        let granted = self.wish(Intent::Recreate, user).await?;
        Ok(self.registered(user, granted))
    }

    /// Makes sure that there is a place for a user, and keeps it for five minutes.
    ///
    /// # Errors
    /// As [`Connections::register`].
    pub async fn hold(&self, user: &UserId) -> Result<Held, Failure> {
        let (held_until, eviction, in_use) = match self.wish(Intent::Hold, user).await? {
            Granted::Held {
                until,
                eviction,
                in_use,
            } => (until, eviction, in_use),
            Granted::Registered { eviction, in_use, .. } => (None, eviction, in_use),
        };
        Ok(Held {
            success: true,
            held_until,
            evicted: self.evicted(eviction),
            slots: Places {
                in_use,
                limit: self.limit(),
            },
        })
    }

    /// Deletes a user at SnapTrade and here. An operator may also name it by its id at SnapTrade.
    ///
    /// # Errors
    /// [`Failure::NoSuchUser`], [`Failure::NotLeft`], [`Failure::Store`].
    pub async fn delete(&self, user: &UserId) -> Result<Deleted, Failure> {
        match self.find(user).await?.into_iter().next() {
            Some(holder) => self.delete_holder(holder, user.to_string()).await,
            None => Err(Failure::NoSuchUser),
        }
    }

    async fn delete_holder(&self, holder: Holder, user_id: String) -> Result<Deleted, Failure> {
        let whom = Whom::Holder(Box::new(holder));
        let upstream = match self.runner.run(Leaving::new(whom, self.author())).await? {
            Err(NotLeft::Unknown) => return Err(Failure::NoSuchUser),
            Err(other) => return Err(other.into()),
            Ok(UpstreamDeletion::Queued) => "queued",
            Ok(UpstreamDeletion::UnknownThere) => "unknown_there",
        };
        Ok(Deleted {
            user_id,
            deleted: true,
            upstream: upstream.to_owned(),
        })
    }

    /// Who would give way first, were the policy to take the oldest.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn oldest(&self) -> Result<Option<Holder>, Failure> {
        let holders = self.runner.holders().await?;
        Ok(policy::choose(Policy::Oldest, &holders).map(|(holder, _)| holder.clone()))
    }

    /// Deletes the oldest user that is not protected.
    ///
    /// # Errors
    /// [`Failure::NoSuchUser`] where there is none; otherwise as [`Connections::delete`].
    pub async fn delete_oldest(&self) -> Result<Deleted, Failure> {
        for _ in 0..MAX_TRIES {
            let oldest = self.oldest().await?.ok_or(Failure::NoSuchUser)?;
            let user_id = oldest.shown_user_id().to_owned();
            match self.delete_holder(oldest, user_id).await {
                // It went, or came anew, since the index was read.
                Err(Failure::NoSuchUser) => {}
                other => return other,
            }
        }
        Err(Refusal::Busy.into())
    }

    /// Makes room where there is none, by deleting the oldest user that is not protected.
    ///
    /// # Errors
    /// [`Refusal::LimitReached`] where nobody may give way; otherwise as [`Connections::delete`].
    pub async fn auto_manage(&self) -> Result<RoomMade, Failure> {
        let in_use = self.places_taken().await?;
        let limit = self.limit();
        if in_use < limit {
            return Ok(RoomMade {
                slots: Places { in_use, limit },
                deleted: None,
            });
        }
        if self.app.config().policy == Policy::None {
            return Err(Refusal::LimitReached { retry_after: None }.into());
        }
        let deleted = match self.delete_oldest().await {
            Err(Failure::NoSuchUser) => return Err(Refusal::LimitReached { retry_after: None }.into()),
            other => other?,
        };
        Ok(RoomMade {
            slots: Places {
                in_use: in_use.saturating_sub(1),
                limit,
            },
            deleted: Some(deleted),
        })
    }

    async fn places_taken(&self) -> Result<u32, Failure> {
        self.ensure_open().await?;
        let item = self
            .app
            .store()
            .get(&self.runner.names().slots(), self.runner.now())
            .await?;
        let slots = item.as_ref().map(storage::slots).transpose()?;
        Ok(slots.map_or(0, |slots| taken(&slots, self.runner.now())))
    }

    async fn ensure_open(&self) -> Result<(), Failure> {
        let config = self.app.config();
        match self
            .runner
            .run(Opening::new(self.author(), config.limit, config.counts))
            .await?
        {
            Opened::Open { .. } => Ok(()),
            Opened::Fault(fault) => Err(Failure::Snaptrade(fault)),
            Opened::Busy => Err(Refusal::Busy.into()),
        }
    }

    /// Adds a user that SnapTrade knows to tracking. `true` where it was not tracked before.
    ///
    /// # Errors
    /// [`Failure::NoSuchUser`] where SnapTrade's list does not have it, [`Failure::Snaptrade`], [`Failure::Store`].
    pub async fn add(&self, user: &UserId, change: UserChange) -> Result<(TrackedUser, bool), Failure> {
        let known = |holders: &[Holder]| holders.iter().any(|holder| holder.upstream().is_some());
        let known_before = known(&self.find(user).await?);
        if !known_before {
            // Opening the places takes in everybody whom SnapTrade lists.
            self.ensure_open().await?;
        }
        if !known_before && !known(&self.find(user).await?) {
            let list = self.list_upstream().await?;
            let plain = UpstreamId::from_snaptrade(user.as_str());
            let stem = user.stem();
            let found = list
                .iter()
                .find(|id| **id == plain)
                .or_else(|| list.iter().rev().find(|id| id.is_minted() && id.stem() == stem))
                .cloned()
                .ok_or(Failure::NoSuchUser)?;
            self.runner
                .run(Adoption::new(self.author(), vec![(0, found)]))
                .await?;
        }
        let user = if change == UserChange::default() {
            tracked(self.find(user).await?.first().ok_or(Failure::NoSuchUser)?)
        } else {
            self.change(user, change).await?
        };
        Ok((user, !known_before))
    }

    /// The holders that an operator means by `user`, the user's own record first: by the application's id, by the id
    /// at SnapTrade, or by what the list shows of a user whose own id is not known here.
    async fn find(&self, user: &UserId) -> Result<Vec<Holder>, Failure> {
        let own = user.stem();
        let entry = self.runner.entry(&own).await?;
        let holders: Vec<Holder> = holders(entry).collect();
        if !holders.is_empty() {
            return Ok(holders);
        }
        let upstream = UpstreamId::from_snaptrade(user.as_str());
        for stem in [Some(upstream.stem()), Stem::shown(user.as_str())]
            .into_iter()
            .flatten()
        {
            if stem == own {
                continue;
            }
            let entry = self.runner.entry(&stem).await?;
            let named: Vec<Holder> = self::holders(entry)
                .filter(|holder| {
                    holder.upstream() == Some(&upstream) || holder.shown_user_id() == user.as_str()
                })
                .collect();
            if !named.is_empty() {
                return Ok(named);
            }
        }
        Ok(Vec::new())
    }

    /// Changes what an operator may change of a tracked user.
    ///
    /// # Errors
    /// [`Failure::NoSuchUser`]; [`Refusal::InProgress`] while it is being registered or deleted; [`Failure::Store`].
    pub async fn change(&self, user: &UserId, change: UserChange) -> Result<TrackedUser, Failure> {
        for _ in 0..MAX_TRIES {
            let holder = self
                .find(user)
                .await?
                .into_iter()
                .next()
                .ok_or(Failure::NoSuchUser)?;
            let stem = holder.stem();
            let (write, changed) = match holder.clone() {
                Holder::User(user) if user.active().is_none() => {
                    return Err(Refusal::InProgress { retry_after: 5 }.into());
                }
                Holder::User(old) => {
                    let new = UserRecord {
                        rev: old.rev + 1,
                        protected: change.protected.unwrap_or(old.protected),
                        created_at: change.created_at.unwrap_or(old.created_at),
                        ..old.clone()
                    };
                    let write = Write::User {
                        stem: stem.clone(),
                        expect: Expect::Revision(old.rev),
                        becomes: Change::Put(Box::new(new.clone())),
                    };
                    (write, Holder::User(new))
                }
                Holder::Foreign(old) => {
                    let new = ForeignRecord {
                        rev: old.rev + 1,
                        protected: change.protected.unwrap_or(old.protected),
                        created_at: change.created_at.unwrap_or(old.created_at),
                        ..old.clone()
                    };
                    let write = Write::Foreign {
                        stem: stem.clone(),
                        slot: old.slot,
                        expect: Expect::Revision(old.rev),
                        becomes: Change::Put(Box::new(new.clone())),
                    };
                    (write, Holder::Foreign(new))
                }
            };
            if self
                .write(write, &stem, "user.changed", &changes(&change))
                .await?
            {
                return Ok(tracked(&changed));
            }
        }
        Err(Refusal::Busy.into())
    }

    /// Writes a line into a user's audit trail, and notes that the user was seen, in one call.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn note(
        &self,
        user: &UserRecord,
        action: &str,
        detail: &[(&str, &str)],
    ) -> Result<(), Failure> {
        self.note_with(user, action, detail, Vec::new()).await
    }

    /// As [`Connections::note`], together with other writes: all of them are made, or none.
    ///
    /// # Errors
    /// [`Failure::Store`]; [`Failure::NoSuchUser`] when the user is no longer active, or another write's condition does
    /// not hold.
    pub async fn note_with(
        &self,
        user: &UserRecord,
        action: &str,
        detail: &[(&str, &str)],
        others: Vec<store::Write>,
    ) -> Result<(), Failure> {
        let author = self.author();
        let at = self.runner.now();
        let stem = user.stem.clone();
        let entry: AuditEntry = author.audit(&stem, action, detail);
        let token = format!("{}.note.1", author.attempt);
        let audit = store::Write::Put {
            item: self.runner.names().audit_item(&entry, at, &token, 0)?,
            condition: store::Condition::Always,
        };
        // The time of the last activity is outside the revision: it decides nothing that a write depends on, and must
        // not make an eviction or a webhook begin anew.
        let seen = store::Write::Update {
            key: self.runner.names().user(&stem),
            expression: store::Expression {
                update: "SET last_active_at = :now".to_owned(),
                condition: "attribute_exists(last_active_at)".to_owned(),
                values: [(":now".to_owned(), AttributeValue::S(at.to_string()))].into(),
                ..store::Expression::default()
            },
        };
        let transaction = Transaction {
            token,
            writes: [audit, seen].into_iter().chain(others).collect(),
        };
        match self.app.store().transact(&transaction, at).await? {
            Outcome::Won | Outcome::AlreadyMine => Ok(()),
            Outcome::Lost(_) => Err(Failure::NoSuchUser),
        }
    }

    /// What signs the calls of an active user.
    ///
    /// # Errors
    /// [`Failure::NoSecret`].
    pub async fn credentials(&self, user: &UserRecord) -> Result<UserCredentials, Failure> {
        Ok(self.runner.credentials(user).await?)
    }

    /// Notes that SnapTrade no longer accepts the user's secret, so that registering again registers anew.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn mark_secret_rejected(&self, user: &UserRecord) -> Result<(), Failure> {
        self.set(
            user,
            "SET secret_rejected = :yes",
            [(":yes", AttributeValue::Bool(true))],
        )
        .await
    }

    /// Notes how many brokerage connections the user has, and whether one of them is disabled.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn set_connections(&self, user: &UserRecord, count: u32, broken: bool) -> Result<(), Failure> {
        let values = [
            (":count", AttributeValue::N(count.to_string())),
            (":broken", AttributeValue::Bool(broken)),
        ];
        self.set(user, "SET connections = :count, broken = :broken", values)
            .await
    }

    /// Changes what was seen of an active user, unless it has another incarnation by now. It stays outside the
    /// revision, like all that no transition depends on.
    async fn set<const N: usize>(
        &self,
        user: &UserRecord,
        update: &str,
        values: [(&str, AttributeValue); N],
    ) -> Result<(), Failure> {
        let Some(active) = user.active() else {
            return Ok(());
        };
        let mut values: HashMap<String, AttributeValue> = values
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        values.insert(
            ":upstream".to_owned(),
            AttributeValue::S(active.upstream.to_string()),
        );
        values.insert(":active".to_owned(), AttributeValue::S("active".to_owned()));
        let expression = store::Expression {
            update: update.to_owned(),
            condition: "upstream = :upstream AND #state = :active".to_owned(),
            names: [("#state".to_owned(), "state".to_owned())].into(),
            values,
        };
        let write = store::Write::Update {
            key: self.runner.names().user(&user.stem),
            expression,
        };
        let transaction = Transaction {
            token: format!("{}.set.1", new_attempt()),
            writes: vec![write],
        };
        self.app.store().transact(&transaction, self.runner.now()).await?;
        Ok(())
    }

    /// Has SnapTrade make a new secret for a user, and stores it.
    ///
    /// # Errors
    /// [`Failure::NoSecret`] where the user is not registered; [`Failure::SecretRejected`] where SnapTrade no longer
    /// accepts the one that is stored, so that the user has to register again; [`Failure::Snaptrade`];
    /// [`Failure::Store`].
    pub async fn reset_secret(&self, user: &UserId) -> Result<(), Failure> {
        let stem = user.stem();
        let record = self.runner.user(&stem).await?.ok_or(Failure::NoSuchUser)?;
        let credentials = self.credentials(&record).await?;
        // The keys come before the call: without one the new secret could not be stored.
        let keys = self.app.data_keys().get().await.map_err(NoSecret::Keys)?;
        self.note(&record, "secret.reset_asked", &[]).await?;
        let reset = match self.app.snaptrade().once().reset_user_secret(&credentials).await {
            Ok(reset) => reset,
            Err(error) => {
                tracing::warn!(%error, "SnapTrade did not reset a user's secret");
                // An answer that was lost may have taken the old secret with it; only asking tells.
                let rejected = match error.outcome() {
                    crate::snaptrade::Outcome::Refused => error.kind == ErrorKind::UserSecretRejected,
                    crate::snaptrade::Outcome::Unknown => self.is_rejected(&credentials).await,
                };
                if rejected {
                    self.mark_secret_rejected(&record).await?;
                    return Err(Failure::SecretRejected);
                }
                return Err(Failure::Snaptrade(runner::fault(&error)));
            }
        };
        let sealed = user_secrets::seal(&keys, self.runner.tenant(), &stem, &reset.user_secret)
            .map_err(NoSecret::Sealed)?;
        self.store_secret(record, sealed).await
    }

    async fn is_rejected(&self, credentials: &UserCredentials) -> bool {
        let answer = self.app.snaptrade().list_connections(credentials).await;
        answer.is_err_and(|error| error.kind == ErrorKind::UserSecretRejected)
    }

    /// Stores a new secret of the same incarnation, however often others change the record meanwhile.
    async fn store_secret(&self, mut record: UserRecord, sealed: SealedSecret) -> Result<(), Failure> {
        let stem = record.stem.clone();
        let upstream = record.upstream().cloned();
        for _ in 0..MAX_TRIES {
            let mut changed = UserRecord {
                rev: record.rev + 1,
                ..record.clone()
            };
            if let UserState::Active(active) = &mut changed.state {
                active.secret = sealed.clone();
                active.secret_rejected = false;
            }
            let write = Write::User {
                stem: stem.clone(),
                expect: Expect::Revision(record.rev),
                becomes: Change::Put(Box::new(changed)),
            };
            // The old secret is void by now, so an answer of the store that is lost is no reason to stop.
            if let Ok(true) = self.write(write, &stem, "secret.reset", &[]).await {
                return Ok(());
            }
            let Ok(now) = self.runner.user(&stem).await else {
                continue;
            };
            match now {
                Some(now) if now.upstream() == upstream.as_ref() && now.active().is_some() => {
                    if now.active().is_some_and(|active| active.secret == sealed) {
                        return Ok(());
                    }
                    record = now;
                }
                _ => return Err(Failure::NoSuchUser),
            }
        }
        Err(Refusal::Busy.into())
    }

    /// Makes one write with its line in the audit trail. `false` where the record is not as it was read.
    async fn write(
        &self,
        write: Write,
        subject: &Stem,
        action: &str,
        detail: &[(&str, &str)],
    ) -> Result<bool, Failure> {
        let mut author = self.author();
        let audit = vec![author.audit(subject, action, detail)];
        let commit = author.commit("change", self.runner.now(), SlotsChange::None, vec![write], audit);
        let transaction = self.runner.names().transaction(&commit)?;
        let outcome = self.app.store().transact(&transaction, commit.at).await?;
        Ok(self.runner.names().outcome(&commit, outcome)? == CommitOutcome::Won)
    }

    /// Asks SnapTrade with the user's own secret whether the user still exists, and removes it here when not. `true`
    /// where it was removed.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn verify(&self, user: &UserId) -> Result<bool, Failure> {
        let Some(record) = self.runner.user(&user.stem()).await? else {
            return Ok(false);
        };
        Ok(self
            .runner
            .run(Vanishing::new(record, self.author()))
            .await?
            .removed)
    }

    /// Part of the list of users, oldest first: at most `limit`, from `start` on.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn list(&self, limit: u32, start: Option<ListPosition>) -> Result<UserPage, Failure> {
        let partition = self.runner.names().holders();
        let start = start.map(|position| {
            let mut item = Key::new(position.pk, position.sk).to_item();
            let index = store::IndexKey {
                gsi1pk: partition.clone(),
                gsi1sk: position.gsi1sk,
            };
            item.extend(index.to_item());
            item
        });
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        // One more than asked for tells whether the list goes on.
        let read = i32::try_from(limit.saturating_add(1)).unwrap_or(i32::MAX);
        let now = self.runner.now();
        let page = self
            .app
            .store()
            .index_page(&partition, Some(read), start, now)
            .await?;
        let items: Vec<&Item> = page.items.iter().take(wanted).collect();
        let next = items.last().filter(|_| page.items.len() > wanted).map(|item| {
            let Key { pk, sk } = Key::of(item);
            let gsi1sk = item
                .get("gsi1sk")
                .and_then(|value| value.as_s().ok())
                .cloned()
                .unwrap_or_default();
            ListPosition { pk, sk, gsi1sk }
        });
        let mut users = Vec::with_capacity(items.len());
        for item in items {
            users.push(tracked(&storage::holder(item)?));
        }
        Ok(UserPage { users, next })
    }

    /// How the limit stands, for `caller`; beside SnapTrade's own list where `compare` is asked for.
    ///
    /// # Errors
    /// [`Failure::Store`], [`Failure::Snaptrade`] where the list could not be had.
    pub async fn status(&self, caller: &UserId, compare: bool) -> Result<Status, Failure> {
        let stem = caller.stem();
        let now = self.runner.now();
        // The rows come before the list, so that nobody who registers meanwhile seems unknown.
        let (entry, holders) = tokio::try_join!(self.runner.entry(&stem), self.runner.holders())?;
        let known: Vec<&Holder> = holders
            .iter()
            .filter(|holder| match holder {
                Holder::User(user) => user.active().is_some(),
                Holder::Foreign(_) => true,
            })
            .collect();
        let users = u32::try_from(known.len()).unwrap_or(u32::MAX);
        let connections = holders
            .iter()
            .filter_map(|holder| match holder {
                Holder::User(user) => user.active().map(|active| active.connections),
                Holder::Foreign(_) => None,
            })
            .sum();
        let comparison = if compare {
            Some(self.compare(&holders, &known).await?)
        } else {
            None
        };
        let in_use = match &entry.slots {
            Some(slots) if slots.open => taken(slots, now),
            _ => comparison
                .as_ref()
                .map_or(users, |comparison| comparison.upstream_count),
        };
        let limit = self.limit();
        let held_until = entry
            .user
            .as_ref()
            .and_then(UserRecord::reservation)
            .filter(|reservation| reservation.kind != ReservationKind::Leave && reservation.until > now)
            .map(|reservation| reservation.until);
        Ok(Status {
            current_count: in_use,
            max_connections: limit,
            at_limit: in_use >= limit,
            available: limit.saturating_sub(in_use),
            counts: self.app.config().counts,
            users,
            connections,
            registered: entry.user.as_ref().is_some_and(|user| user.active().is_some()),
            held_until,
            comparison,
        })
    }

    async fn compare(&self, holders: &[Holder], known: &[&Holder]) -> Result<Comparison, Failure> {
        let list = self.list_upstream().await?;
        let listed: BTreeSet<&UpstreamId> = list.iter().collect();
        let roster = super::machine::Roster {
            slots: None,
            holders: holders.to_vec(),
            ghosts: Vec::new(),
        };
        let mut unknown: Vec<UpstreamId> = unknown_ids(&list, &roster)
            .into_iter()
            .map(|(_, id)| id)
            .collect();
        if !unknown.is_empty() {
            let keys: Vec<Key> = unknown.iter().map(|id| self.runner.names().ghost(id)).collect();
            let ghosts = self.app.store().get_all(&keys, self.runner.now()).await?;
            let going: BTreeSet<UpstreamId> = ghosts
                .iter()
                .map(|item| store::from_item::<Ghost>(item).map(|ghost| ghost.upstream))
                .collect::<Result<_, _>>()?;
            unknown.retain(|id| !going.contains(id));
        }
        let missing: Vec<String> = known
            .iter()
            .filter(|holder| holder.upstream().is_some_and(|id| !listed.contains(id)))
            .map(|holder| holder.shown_user_id().to_owned())
            .collect();
        let oldest = known
            .iter()
            .min_by(|a, b| policy::by_age(a, b))
            .map(|holder| Oldest {
                user_id: holder.shown_user_id().to_owned(),
                created_at: holder.created_at(),
            });
        Ok(Comparison {
            tracked_count: u32::try_from(known.len()).unwrap_or(u32::MAX),
            upstream_count: u32::try_from(list.len()).unwrap_or(u32::MAX),
            in_sync: missing.is_empty() && unknown.is_empty(),
            missing,
            unknown: unknown.into_iter().map(|id| id.to_string()).collect(),
            oldest,
        })
    }

    async fn list_upstream(&self) -> Result<Vec<UpstreamId>, Failure> {
        self.app.snaptrade().list_users().await.map_err(|error| {
            tracing::warn!(%error, "SnapTrade's list of users could not be had");
            Failure::Snaptrade(runner::fault(&error))
        })
    }

    /// Brings tracking in line with SnapTrade's list and finishes what was interrupted.
    ///
    /// # Errors
    /// [`Failure::NotSynced`], [`Failure::Store`].
    pub async fn sync(&self) -> Result<Synced, Failure> {
        let config = self.app.config();
        Ok(self
            .runner
            .run(Sync::new(self.author(), config.limit, config.counts))
            .await??)
    }
}

/// All holders of one partition, the user's own record first.
fn holders(entry: Entry) -> impl Iterator<Item = Holder> {
    entry
        .user
        .into_iter()
        .map(Holder::User)
        .chain(entry.foreign.into_iter().map(Holder::Foreign))
}

/// Places that a newcomer cannot have: all in use but those whose holder ran out of time.
fn taken(slots: &Slots, now: Timestamp) -> u32 {
    let expired = slots
        .held
        .values()
        .filter(|held| timing::expired(held.until, now))
        .count();
    slots
        .in_use
        .saturating_sub(u32::try_from(expired).unwrap_or(u32::MAX))
}

/// A holder as operators see it.
#[must_use]
pub fn tracked(holder: &Holder) -> TrackedUser {
    let (state, last_active_at, connections) = match holder {
        Holder::User(user) => match (user.active(), user.reservation()) {
            (Some(active), _) => (
                TrackedState::Active,
                Some(active.last_active_at),
                active.connections,
            ),
            (None, Some(reservation)) if reservation.kind == ReservationKind::Leave => {
                (TrackedState::Leaving, None, 0)
            }
            _ => (TrackedState::Reserved, None, 0),
        },
        Holder::Foreign(_) => (TrackedState::Adopted, None, 0),
    };
    TrackedUser {
        user_id: holder.shown_user_id().to_owned(),
        upstream_id: holder.upstream().cloned(),
        state,
        created_at: holder.created_at(),
        last_active_at,
        connections,
        protected: holder.protected(),
    }
}

fn changes(change: &UserChange) -> Vec<(&'static str, &'static str)> {
    let mut said = Vec::new();
    if let Some(protected) = change.protected {
        said.push(("protected", if protected { "true" } else { "false" }));
    }
    if change.created_at.is_some() {
        said.push(("created_at", "set"));
    }
    said
}
