//! How the records of this room stand in the table.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::Serialize;

use super::machine::{
    AuditEntry, Change, Commit, CommitOutcome, Expect, Guard, Obstacle, SlotsChange, Transition, Write,
};
use super::records::{
    ConnectionsRecord, ForeignRecord, Ghost, GhostState, HoldRecord, Holder, Slots, SyncRecord, UserRecord,
};
use super::timing::{GHOST_KEPT, HOLD_AGAIN, after};
use crate::config::Counts;
use crate::ids::{Stem, TenantId, UpstreamId};
use crate::portfolio::portal::Visit;
use crate::portfolio::userdata;
use crate::store::{
    self, Condition, Expression, IndexKey, Item, Key, Outcome, StoreError, index_partition, partition,
    to_item,
};
use crate::user_secrets::SealedSecret;

/// Sorts after every time that fits into the index.
const LAST: i64 = 999_999_999_999_999;

/// How long an audit entry is kept.
const AUDIT_KEPT: Duration = Duration::from_secs(7 * 365 * 24 * 3600);

/// The names of one tenant's items.
#[derive(Debug, Clone)]
pub struct Names {
    tenant: TenantId,
}

impl Names {
    /// The names of `tenant`'s items.
    #[must_use]
    pub fn new(tenant: TenantId) -> Self {
        Self { tenant }
    }

    /// The one item that counts the places.
    #[must_use]
    pub fn slots(&self) -> Key {
        Key::new(partition(&self.tenant, "SLOTS", "all"), "SLOTS")
    }

    /// The partition of all that decides about one user.
    #[must_use]
    pub fn user_partition(&self, stem: &Stem) -> String {
        partition(&self.tenant, "USER", stem.as_str())
    }

    /// A user's own record.
    #[must_use]
    pub fn user(&self, stem: &Stem) -> Key {
        Key::new(self.user_partition(stem), "USER")
    }

    /// A listed id without a secret here, under one of the keys that its user has for such.
    #[must_use]
    pub fn foreign(&self, stem: &Stem, slot: u8) -> Key {
        Key::new(self.user_partition(stem), format!("FOREIGN#{slot}"))
    }

    /// The note of a user's last hold.
    #[must_use]
    pub fn hold(&self, stem: &Stem) -> Key {
        Key::new(self.user_partition(stem), "HOLD")
    }

    /// A user's connections, where those are counted.
    #[must_use]
    pub fn connections(&self, stem: &Stem) -> Key {
        Key::new(self.user_partition(stem), "CONNS")
    }

    /// An id that has to go.
    #[must_use]
    pub fn ghost(&self, upstream: &UpstreamId) -> Key {
        Key::new(partition(&self.tenant, "GHOST", upstream.as_str()), "GHOST")
    }

    /// The sync's record.
    #[must_use]
    pub fn sync(&self) -> Key {
        Key::new(partition(&self.tenant, "SYNC", "users"), "SYNC")
    }

    /// The index partition that lists holders, oldest first.
    #[must_use]
    pub fn holders(&self) -> String {
        index_partition(&self.tenant, "HOLDERS")
    }

    /// The index partition that lists ghosts.
    #[must_use]
    pub fn ghosts(&self) -> String {
        index_partition(&self.tenant, "GHOSTS")
    }

    /// The index partition that lists records of connections, those with the oldest connection first and those without
    /// any last.
    #[must_use]
    pub fn counted(&self) -> String {
        index_partition(&self.tenant, "CONNS")
    }

    fn holder_index(&self, created_at: Timestamp, order: u32, name: &str) -> IndexKey {
        IndexKey {
            gsi1pk: self.holders(),
            gsi1sk: format!("{:015}#{order:07}#{name}", created_at.as_millisecond().max(0)),
        }
    }

    /// Where a user's record stands in the index.
    #[must_use]
    pub fn user_index(&self, record: &UserRecord) -> IndexKey {
        self.holder_index(record.created_at, 0, record.user_id.as_str())
    }

    /// A user's record as an item.
    pub fn user_item(&self, record: &UserRecord) -> Result<Item, StoreError> {
        to_item(
            &self.user(&record.stem),
            record,
            Some(&self.user_index(record)),
            None,
        )
    }

    /// A user's secret as it stands in the user's item.
    pub fn sealed(&self, record: &UserRecord, secret: &SealedSecret) -> Result<AttributeValue, StoreError> {
        value(&self.user(&record.stem), secret)
    }

    /// A foreign record as an item.
    pub fn foreign_item(&self, record: &ForeignRecord) -> Result<Item, StoreError> {
        let key = self.foreign(&record.upstream.stem(), record.slot);
        let index = self.holder_index(record.created_at, record.order, record.upstream.shown_user_id());
        to_item(&key, record, Some(&index), None)
    }

    /// A record of connections as an item.
    pub fn connections_item(&self, record: &ConnectionsRecord) -> Result<Item, StoreError> {
        let oldest = record.ids.values().map(|connection| connection.since).min();
        let since = oldest.map_or(LAST, |since| since.as_millisecond().clamp(0, LAST));
        let index = IndexKey {
            gsi1pk: self.counted(),
            gsi1sk: format!("{since:015}#{}", record.stem.as_str()),
        };
        to_item(&self.connections(&record.stem), record, Some(&index), None)
    }

    fn ghost_item(&self, record: &Ghost, at: Timestamp) -> Result<Item, StoreError> {
        let index = IndexKey {
            gsi1pk: self.ghosts(),
            gsi1sk: record.upstream.as_str().to_owned(),
        };
        let expires = (record.state == GhostState::Gone).then(|| after(at, GHOST_KEPT));
        to_item(&self.ghost(&record.upstream), record, Some(&index), expires)
    }

    /// An entry of the audit trail as an item. `token` and `number` make its name unique.
    pub fn audit_item(
        &self,
        entry: &AuditEntry,
        at: Timestamp,
        token: &str,
        number: usize,
    ) -> Result<Item, StoreError> {
        #[derive(Serialize)]
        struct Dated<'a> {
            at: Timestamp,
            #[serde(flatten)]
            entry: &'a AuditEntry,
        }
        let key = Key::new(
            partition(&self.tenant, "AUDIT", entry.subject.as_str()),
            format!("AUDIT#{:015}#{token}.{number}", at.as_millisecond().max(0)),
        );
        to_item(&key, &Dated { at, entry }, None, Some(after(at, AUDIT_KEPT)))
    }

    /// A commit in the store's words.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when a record has a shape that DynamoDB cannot hold.
    pub fn transaction(&self, commit: &Commit) -> Result<store::Transaction, StoreError> {
        let mut writes = Vec::with_capacity(commit.writes.len() + commit.audit.len() + 1);
        match &commit.slots {
            SlotsChange::None => {}
            SlotsChange::Transition(transition) => writes.push(self.transition(transition)?),
            SlotsChange::Replace { expect, becomes } => writes.push(store::Write::Put {
                item: to_item(&self.slots(), becomes, None, None)?,
                condition: expect.map_or(Condition::Absent, Condition::Revision),
            }),
        }
        for write in &commit.writes {
            writes.push(self.write(write, commit.at)?);
        }
        for (number, entry) in commit.audit.iter().enumerate() {
            writes.push(store::Write::Put {
                item: self.audit_item(entry, commit.at, &commit.token, number)?,
                condition: Condition::Always,
            });
        }
        Ok(store::Transaction {
            token: commit.token.clone(),
            writes,
        })
    }

    fn transition(&self, transition: &Transition) -> Result<store::Write, StoreError> {
        let mut names = HashMap::from([("#rev".to_owned(), "rev".to_owned())]);
        let mut values = HashMap::from([(":one".to_owned(), number(1))]);
        let mut set = vec!["#rev = #rev + :one".to_owned()];
        let mut remove = Vec::new();
        let (in_use, leaving) = (transition.in_use(), transition.leaving());
        if in_use != 0 {
            set.push("in_use = in_use + :places".to_owned());
            values.insert(":places".to_owned(), number(in_use));
        }
        if leaving != 0 {
            set.push("leaving = leaving + :leaving".to_owned());
            values.insert(":leaving".to_owned(), number(leaving));
        }
        if transition.gives_up {
            set.push("given_up = given_up + :one".to_owned());
        }
        for (index, (stem, held)) in transition.hold.iter().enumerate() {
            names.insert(format!("#held{index}"), stem.as_str().to_owned());
            values.insert(format!(":held{index}"), value(&self.slots(), held)?);
            set.push(format!("held.#held{index} = :held{index}"));
        }
        for (index, stem) in transition.release.iter().enumerate() {
            names.insert(format!("#free{index}"), stem.as_str().to_owned());
            remove.push(format!("held.#free{index}"));
        }
        match &transition.last_eviction {
            Change::Same => {}
            Change::Put(last) => {
                values.insert(":last_eviction".to_owned(), value(&self.slots(), last)?);
                set.push("last_eviction = :last_eviction".to_owned());
            }
            Change::Gone => remove.push("last_eviction".to_owned()),
        }
        if transition.counts == Counts::Connections {
            for (index, (stem, portal)) in transition.portals.iter().enumerate() {
                names.insert(format!("#portal{index}"), stem.as_str().to_owned());
                match portal {
                    Some(portal) => {
                        values.insert(format!(":portal{index}"), value(&self.slots(), portal)?);
                        set.push(format!("portals.#portal{index} = :portal{index}"));
                    }
                    None => remove.push(format!("portals.#portal{index}")),
                }
            }
        }
        let mut update = format!("SET {}", set.join(", "));
        if !remove.is_empty() {
            update.push_str(" REMOVE ");
            update.push_str(&remove.join(", "));
        }
        let mut condition = match &transition.guard {
            Guard::Any => "attribute_exists(pk)".to_owned(),
            Guard::Open => {
                names.insert("#open".to_owned(), "open".to_owned());
                values.insert(":open".to_owned(), AttributeValue::Bool(true));
                "#open = :open".to_owned()
            }
            Guard::RoomBeside { max, elsewhere, .. } | Guard::FullBeside { max, elsewhere } => {
                names.insert("#open".to_owned(), "open".to_owned());
                values.insert(":open".to_owned(), AttributeValue::Bool(true));
                values.insert(":room".to_owned(), number(max.saturating_sub(*elsewhere)));
                values.insert(":elsewhere".to_owned(), number(*elsewhere));
                let places = match &transition.guard {
                    Guard::RoomBeside { leaving, .. } => {
                        values.insert(":leaving_read".to_owned(), number(*leaving));
                        "in_use < :room AND leaving <= :leaving_read"
                    }
                    _ => "in_use >= :room",
                };
                format!("#open = :open AND elsewhere = :elsewhere AND {places}")
            }
            Guard::Room { max } => {
                names.insert("#open".to_owned(), "open".to_owned());
                values.insert(":open".to_owned(), AttributeValue::Bool(true));
                values.insert(":max".to_owned(), number(*max));
                "#open = :open AND in_use < :max".to_owned()
            }
            Guard::Full { max, given_up } => {
                names.insert("#open".to_owned(), "open".to_owned());
                values.insert(":open".to_owned(), AttributeValue::Bool(true));
                values.insert(":max".to_owned(), number(*max));
                values.insert(":given_up".to_owned(), number(*given_up));
                "#open = :open AND in_use >= :max AND given_up = :given_up".to_owned()
            }
            Guard::Revision(rev) => {
                values.insert(":rev".to_owned(), number(*rev));
                "#rev = :rev".to_owned()
            }
        };
        // Whoever knows another counting than the one in force would count the wrong things.
        values.insert(
            ":counts".to_owned(),
            AttributeValue::S(transition.counts.as_str().to_owned()),
        );
        condition.push_str(" AND counts = :counts");
        if let Some(epoch) = transition.epoch() {
            values.insert(":epoch".to_owned(), number(epoch));
            condition.push_str(" AND epoch = :epoch");
        }
        // A count that would fall below nothing is wrong already; better to stop and count anew.
        if in_use < 0 {
            values.insert(":least".to_owned(), number(-in_use));
            condition.push_str(" AND in_use >= :least");
        }
        if leaving < 0 {
            values.insert(":least_leaving".to_owned(), number(-leaving));
            condition.push_str(" AND leaving >= :least_leaving");
        }
        Ok(store::Write::Update {
            key: self.slots(),
            expression: Expression {
                update,
                condition,
                names,
                values,
            },
        })
    }

    fn write(&self, write: &Write, at: Timestamp) -> Result<store::Write, StoreError> {
        Ok(match write {
            Write::User {
                stem,
                expect,
                becomes,
            } => change(self.user(stem), *expect, becomes, |record| self.user_item(record))?,
            Write::Foreign {
                stem,
                slot,
                expect,
                becomes,
            } => change(self.foreign(stem, *slot), *expect, becomes, |record| {
                self.foreign_item(record)
            })?,
            Write::Ghost {
                upstream,
                expect,
                becomes,
            } => change(self.ghost(upstream), *expect, becomes, |record| {
                self.ghost_item(record, at)
            })?,
            Write::Connections {
                stem,
                expect,
                becomes,
            } => change(self.connections(stem), *expect, becomes, |record| {
                self.connections_item(record)
            })?,
            // The time of the last activity is outside the revision: it decides nothing that a write depends on, and
            // must not make an eviction or a webhook begin anew.
            Write::Seen { stem, upstream, rev } => {
                let mut expression = Expression {
                    update: "SET last_active_at = :now".to_owned(),
                    condition: "#state = :active AND upstream = :upstream".to_owned(),
                    names: [("#state".to_owned(), "state".to_owned())].into(),
                    values: [
                        (":now".to_owned(), AttributeValue::S(at.to_string())),
                        (":active".to_owned(), AttributeValue::S("active".to_owned())),
                        (":upstream".to_owned(), AttributeValue::S(upstream.to_string())),
                    ]
                    .into(),
                };
                if let Some(rev) = rev {
                    expression.condition.push_str(" AND rev = :rev");
                    expression.values.insert(":rev".to_owned(), number(*rev));
                }
                store::Write::Update {
                    key: self.user(stem),
                    expression,
                }
            }
            Write::Visit {
                stem,
                upstream,
                reconnect,
            } => {
                let visit = Visit {
                    upstream: upstream.clone(),
                    at,
                    reconnect: reconnect.clone(),
                };
                userdata::visit(&self.tenant, stem, &visit, at)?
            }
            Write::Hold { stem, becomes } => {
                let key = self.hold(stem);
                change(key.clone(), Expect::Anything, becomes, |record: &HoldRecord| {
                    to_item(&key, record, None, Some(after(record.until, HOLD_AGAIN)))
                })?
            }
            Write::Sync { expect, becomes } => store::Write::Put {
                item: to_item(&self.sync(), becomes, None, None)?,
                condition: condition(*expect),
            },
        })
    }

    /// What stood in the way of a commit, from what the store says of each of its writes.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when an item that stood in the way cannot be read.
    pub fn outcome(&self, commit: &Commit, outcome: Outcome) -> Result<CommitOutcome, StoreError> {
        let Outcome::Lost(obstacles) = outcome else {
            return Ok(CommitOutcome::Won);
        };
        let slots_first = usize::from(commit.slots != SlotsChange::None);
        let mut found = Vec::new();
        for (position, obstacle) in obstacles.into_iter().enumerate() {
            let Some(item) = obstacle else { continue };
            if position < slots_first {
                found.push(Obstacle::Slots(read(&item)?));
                continue;
            }
            found.push(match commit.writes.get(position.saturating_sub(slots_first)) {
                Some(Write::User { stem, .. }) => Obstacle::User(stem.clone(), read(&item)?),
                Some(Write::Foreign { .. }) => Obstacle::Foreign(read(&item)?),
                Some(Write::Ghost { upstream, .. }) => Obstacle::Ghost(upstream.clone()),
                Some(Write::Sync { .. }) => Obstacle::Sync(read(&item)?),
                Some(Write::Connections { stem, .. }) => Obstacle::Connections(stem.clone(), read(&item)?),
                Some(Write::Seen { stem, .. }) => Obstacle::User(stem.clone(), read(&item)?),
                Some(Write::Visit { .. }) => Obstacle::Other,
                Some(Write::Hold { .. }) | None => Obstacle::Other,
            });
        }
        Ok(CommitOutcome::Lost(found))
    }
}

/// A holder from its item, whichever kind it is.
///
/// # Errors
/// [`StoreError::Malformed`].
pub fn holder(item: &Item) -> Result<Holder, StoreError> {
    if Key::of(item).sk.starts_with("FOREIGN") {
        store::from_item::<ForeignRecord>(item).map(Holder::Foreign)
    } else {
        store::from_item::<UserRecord>(item).map(Holder::User)
    }
}

/// A record from an item that may be empty.
fn read<T: serde::de::DeserializeOwned>(item: &Item) -> Result<Option<Box<T>>, StoreError> {
    if item.is_empty() {
        Ok(None)
    } else {
        store::from_item(item).map(|record| Some(Box::new(record)))
    }
}

fn condition(expect: Expect) -> Condition {
    match expect {
        Expect::Anything => Condition::Always,
        Expect::Absent => Condition::Absent,
        Expect::Revision(rev) => Condition::Revision(rev),
    }
}

fn change<T>(
    key: Key,
    expect: Expect,
    becomes: &Change<T>,
    item: impl FnOnce(&T) -> Result<Item, StoreError>,
) -> Result<store::Write, StoreError> {
    let condition = condition(expect);
    Ok(match becomes {
        Change::Same => store::Write::Check { key, condition },
        Change::Put(record) => store::Write::Put {
            item: item(record)?,
            condition,
        },
        Change::Gone => store::Write::Delete { key, condition },
    })
}

/// Part of the item `key` in DynamoDB's form.
fn value(key: &Key, part: &impl Serialize) -> Result<AttributeValue, StoreError> {
    serde_dynamo::to_attribute_value(part).map_err(|error| StoreError::Malformed {
        key: key.to_string(),
        reason: error.to_string(),
    })
}

fn number(value: impl std::fmt::Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// Reads the places from their item.
///
/// # Errors
/// [`StoreError::Malformed`].
pub fn slots(item: &Item) -> Result<Slots, StoreError> {
    store::from_item(item)
}

/// Reads the sync's record from its item.
///
/// # Errors
/// [`StoreError::Malformed`].
pub fn sync_record(item: &Item) -> Result<SyncRecord, StoreError> {
    store::from_item(item)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Counts;
    use crate::connections::records::{ActiveUser, HeldPlace, Reservation, ReservationKind, UserState};
    use crate::ids::{AttemptId, UserId};

    fn names() -> Names {
        Names::new(TenantId::default())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_record_comes_back_from_its_item_as_it_was() {
        let user = UserId::parse("ada@example.com").unwrap();
        let attempt = AttemptId::from_random([3; 8]);
        let upstream = UpstreamId::mint(&user.stem(), &attempt);
        let active = UserRecord {
            user_id: user.clone(),
            stem: user.stem(),
            rev: attempt.first_revision(),
            created_at: at("2026-11-21T10:00:00.123Z"),
            protected: true,
            refused_at: None,
            state: UserState::Active(ActiveUser {
                upstream: upstream.clone(),
                secret: SealedSecret {
                    key_id: "k1".to_owned(),
                    sealed: "xyz".to_owned(),
                },
                last_active_at: at("2026-11-21T10:00:00Z"),
                connections: 2,
                broken: false,
                secret_rejected: false,
            }),
        };
        let reserved = UserRecord {
            state: UserState::Reserved(Reservation {
                kind: ReservationKind::Hold,
                attempt: attempt.clone(),
                upstream: None,
                until: Timestamp::UNIX_EPOCH,
                held_until: Some(at("2026-11-21T10:05:00Z")),
                after: vec![upstream.clone()],
                refused_at: Some(at("2026-11-21T10:01:00Z")),
            }),
            ..active.clone()
        };
        for record in [active, reserved] {
            assert_eq!(
                holder(&names().user_item(&record).unwrap()).unwrap(),
                Holder::User(record)
            );
        }
        let foreign = ForeignRecord {
            upstream,
            rev: 7,
            created_at: at("2026-11-21T10:00:00Z"),
            order: 3,
            missing_since: None,
            protected: false,
            refused_at: Some(at("2026-11-21T10:00:00Z")),
            slot: 1,
        };
        assert_eq!(
            holder(&names().foreign_item(&foreign).unwrap()).unwrap(),
            Holder::Foreign(foreign)
        );
    }

    #[test]
    fn a_place_that_is_held_reads_back_from_the_map_it_is_written_into() {
        let held = HeldPlace {
            attempt: AttemptId::from_random([9; 8]),
            until: at("2026-11-21T10:05:00.5Z"),
            kind: ReservationKind::Register,
            refused_at: Some(at("2026-11-21T10:00:00Z")),
        };
        let places = Slots {
            counts: Counts::Users,
            leaving: 0,
            elsewhere: 0,
            elsewhere_read: 0,
            epoch: 0,
            portals: [].into(),
            max: 5,
            in_use: 1,
            rev: 1,
            open: true,
            given_up: 0,
            held: [(UserId::parse("ada").unwrap().stem(), held.clone())].into(),
            last_eviction: None,
            restored: false,
        };
        let mut item = to_item(&names().slots(), &places, None, None).unwrap();
        item.insert(
            "held".to_owned(),
            AttributeValue::M(HashMap::from([(
                "ada".to_owned(),
                value(&names().slots(), &held).unwrap(),
            )])),
        );
        assert_eq!(slots(&item).unwrap(), places);
    }
}
