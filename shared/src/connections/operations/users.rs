//! The tracked users as operators see and change them.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::secrets::ActiveUpdate;
use super::{Connections, Failure, MAX_TRIES};
use crate::clock::to_the_millisecond;
use crate::connections::adoption::Adoption;
use crate::connections::machine::{Change, Entry, Expect, Write};
use crate::connections::records::{ForeignRecord, Holder, ReservationKind, UserRecord};
use crate::connections::registration::Refusal;
use crate::connections::storage;
use crate::ids::{Stem, UpstreamId, UserId};
use crate::store::{self, Item, Key};

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

impl Connections<'_> {
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
    pub(super) async fn find(&self, user: &UserId) -> Result<Vec<Holder>, Failure> {
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
        let change = UserChange {
            // The index, by which holders are ordered, knows milliseconds.
            created_at: change
                .created_at
                .and_then(|at| Timestamp::from_millisecond(at.as_millisecond()).ok()),
            ..change
        };
        for _ in 0..MAX_TRIES {
            let holder = self
                .find(user)
                .await?
                .into_iter()
                .next()
                .ok_or(Failure::NoSuchUser)?;
            let changed = match &holder {
                Holder::User(old) => self.change_user(old, &change).await?.map(Holder::User),
                Holder::Foreign(old) => self.change_foreign(old, &change).await?.map(Holder::Foreign),
            };
            if let Some(changed) = changed {
                return Ok(tracked(&changed));
            }
        }
        Err(Refusal::Busy.into())
    }

    /// Changes a user of ours; what is seen of it meanwhile stays. `None` where it has gone since it was read.
    async fn change_user(
        &self,
        old: &UserRecord,
        change: &UserChange,
    ) -> Result<Option<UserRecord>, Failure> {
        if old.active().is_none() {
            return Err(Refusal::InProgress { retry_after: 5 }.into());
        }
        let new = UserRecord {
            protected: change.protected.unwrap_or(old.protected),
            created_at: change.created_at.unwrap_or(old.created_at),
            ..old.clone()
        };
        // Within the revision: nobody may give way by what was read before.
        let mut set = vec!["rev = rev + :one"];
        let mut values = HashMap::from([(":one".to_owned(), AttributeValue::N("1".to_owned()))]);
        if let Some(protected) = change.protected {
            set.push("protected = :protected");
            values.insert(":protected".to_owned(), AttributeValue::Bool(protected));
        }
        if let Some(created_at) = change.created_at {
            set.push("created_at = :created_at, gsi1sk = :position");
            values.insert(
                ":created_at".to_owned(),
                AttributeValue::S(created_at.to_string()),
            );
            let position = self.runner.names().user_index(&new).gsi1sk;
            values.insert(":position".to_owned(), AttributeValue::S(position));
        }
        let update = ActiveUpdate {
            set: set.join(", "),
            values,
            ..ActiveUpdate::default()
        };
        let said = changes(change);
        let made = self
            .update_active(old, update, Some(("user.changed", &said)))
            .await?;
        Ok(made.then_some(new))
    }

    /// Changes one without a secret here. All of its record is under its revision. `None` where somebody else was
    /// faster.
    async fn change_foreign(
        &self,
        old: &ForeignRecord,
        change: &UserChange,
    ) -> Result<Option<ForeignRecord>, Failure> {
        let new = ForeignRecord {
            rev: old.rev + 1,
            protected: change.protected.unwrap_or(old.protected),
            created_at: change.created_at.unwrap_or(old.created_at),
            // Its place in the list stood in for the age that is known now.
            order: if change.created_at.is_some() { 0 } else { old.order },
            ..old.clone()
        };
        let stem = old.upstream.stem();
        let write = Write::Foreign {
            stem: stem.clone(),
            slot: old.slot,
            expect: Expect::Revision(old.rev),
            becomes: Change::Put(Box::new(new.clone())),
        };
        let made = self.write(write, &stem, "user.changed", &changes(change)).await?;
        Ok(made.then_some(new))
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
}

/// All holders of one partition, the user's own record first.
fn holders(entry: Entry) -> impl Iterator<Item = Holder> {
    entry
        .user
        .into_iter()
        .map(Holder::User)
        .chain(entry.foreign.into_iter().map(Holder::Foreign))
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
