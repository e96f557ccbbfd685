//! What can be done about the limit: by the functions, by the command line, and by whoever uses this crate.

mod answers;
mod secrets;
mod standing;
mod users;
mod visits;

pub use answers::{Deleted, Evicted, Held, Places, Registered, RoomMade};
pub use standing::{Comparison, Oldest, Status};
pub use users::{ListPosition, TrackedState, TrackedUser, UserChange, UserPage, tracked};

use super::leaving::{Leaving, NotLeft, UpstreamDeletion, Whom};
use super::machine::{Author, CommitOutcome, Fault, SecretStanding, SlotsChange, Write};
use super::opening::{Opened, Opening};
use super::policy;
use super::records::Holder;
use super::registration::{Eviction, Granted, Intent, Refusal, Registration, Wish};
use super::runner::{self, NoSecret, Runner, new_attempt};
use super::storage;
use super::sync::{NotSynced, Sync, Synced};
use super::vanishing::Vanishing;
use crate::app::App;
use crate::config::Policy;
use crate::ids::{Stem, TenantId, UpstreamId, UserId};
use crate::store::{Key, StoreError};
use crate::telemetry::metrics::{self, Metric};

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

    pub(super) fn author(&self) -> Author {
        Author::new(new_attempt(), self.actor.clone()).counting(self.app.config().counts)
    }

    pub(super) fn limit(&self) -> u32 {
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
        let granted = self.runner.run(Registration::new(wish, self.author())).await??;
        let (eviction, in_use) = match &granted {
            Granted::Registered {
                created,
                eviction,
                in_use,
                ..
            } => {
                metrics::count(Metric::Registrations, u64::from(*created));
                (eviction, *in_use)
            }
            Granted::Held {
                until,
                eviction,
                in_use,
            } => {
                metrics::count(Metric::Holds, u64::from(until.is_some()));
                (eviction, *in_use)
            }
        };
        if let Some(eviction) = eviction {
            metrics::eviction(eviction.reason.as_str());
        }
        metrics::places(in_use, config.limit);
        Ok(granted)
    }

    fn evicted(&self, eviction: Option<Eviction>) -> Option<Evicted> {
        eviction.map(|eviction| Evicted {
            user_id: self.sees_users.then_some(eviction.user_id),
            connection_id: None,
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
        if self.counts_connections() {
            return self.hold_connection(user).await;
        }
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
            connection_id: None,
            deleted: true,
            upstream: upstream.to_owned(),
        })
    }

    /// Who would give way first, were the policy to take the oldest.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn oldest(&self) -> Result<Option<Holder>, Failure> {
        let candidates = self.runner.candidates(Policy::Oldest).await?;
        Ok(policy::choose(Policy::Oldest, &candidates).map(|(holder, _)| holder.clone()))
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
        if self.counts_connections() {
            return self.room_for_a_connection().await;
        }
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
        Ok(slots.map_or(0, |slots| standing::taken(&slots, self.runner.now())))
    }

    pub(super) async fn ensure_open(&self) -> Result<(), Failure> {
        let config = self.app.config();
        match self
            .runner
            .run(Opening::new(self.author(), config.limit, config.counts))
            .await?
        {
            Opened::Open { .. } => Ok(()),
            Opened::Fault(fault) => Err(Failure::Snaptrade(fault)),
            Opened::Unfinished { .. } | Opened::Busy => Err(Refusal::Busy.into()),
        }
    }

    /// Makes one write with its line in the audit trail. `false` where the record is not as it was read.
    pub(super) async fn write(
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
    /// where it was removed. A user whom SnapTrade lists and whose secret it refuses got another secret elsewhere: it
    /// keeps its place, and has to register again.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn verify(&self, user: &UserId) -> Result<bool, Failure> {
        let Some(record) = self.runner.user(&user.stem()).await? else {
            return Ok(false);
        };
        let listed = match (record.active(), self.list_upstream().await) {
            (Some(active), Ok(list)) => list.contains(&active.upstream),
            // Without a list the secret alone has to tell.
            _ => false,
        };
        if listed {
            if self.runner.probe_user(&record).await == SecretStanding::Rejected {
                self.mark_secret_rejected(&record).await?;
            }
            return Ok(false);
        }
        Ok(self
            .runner
            .run(Vanishing::new(record, self.author()))
            .await?
            .removed)
    }

    pub(super) async fn list_upstream(&self) -> Result<Vec<UpstreamId>, Failure> {
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
        let ran = self
            .runner
            .run(Sync::new(self.author(), config.limit, config.counts))
            .await?;
        match &ran {
            Ok(synced) => self.measure(synced).await,
            Err(NotSynced::Running { .. }) => {}
            Err(NotSynced::Snaptrade(_) | NotSynced::Busy) => metrics::count(Metric::SyncFailures, 1),
        }
        Ok(ran?)
    }

    /// Tells what a run of the sync did and how things stand after it. How full the places are is read for that; where
    /// it cannot be, it is not told.
    async fn measure(&self, synced: &Synced) {
        metrics::count(Metric::Syncs, 1);
        metrics::count(Metric::SyncAdded, synced.added.into());
        metrics::count(Metric::SyncRemoved, synced.removed.into());
        metrics::count(Metric::SyncRepaired, synced.repaired.into());
        let difference = synced.upstream_count.abs_diff(synced.tracked_count);
        metrics::level(Metric::SyncDifference, difference.into());
        let names = self.runner.names();
        let (slots, record) = (names.slots(), names.sync());
        let now = self.runner.now();
        let Ok(items) = self
            .app
            .store()
            .get_all(&[slots.clone(), record.clone()], now)
            .await
        else {
            return;
        };
        for item in items {
            let key = Key::of(&item);
            if key == slots
                && let Ok(slots) = storage::slots(&item)
            {
                metrics::places(standing::taken(&slots, now), self.limit());
            } else if key == record
                && let Ok(record) = storage::sync_record(&item)
            {
                metrics::level(Metric::ActiveConnections, record.connections.into());
            }
        }
    }
}
