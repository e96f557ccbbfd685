//! What is stored of places and of those who hold them.
//!
//! A place is a right to exist at SnapTrade. It is held by a [`UserRecord`] (reserved or active) or by a
//! [`ForeignRecord`]; [`Slots`] counts them. A [`Ghost`] is an id that has to go. Every record carries `rev`, which
//! grows with each write, so that a write can be made to depend on what its author read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::policy::Reason;
use super::timing;
use crate::clock::to_the_millisecond;
use crate::config::Counts;
use crate::ids::{AttemptId, Stem, UpstreamId, UserId};
use crate::snaptrade::ConnectionId;
use crate::user_secrets::SealedSecret;

/// How many places there are and who holds one for a while.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slots {
    /// What counts against the limit.
    pub counts: Counts,
    /// The limit when this was last written.
    pub max: u32,
    /// Places held. Where users are counted: reserved, active and foreign ones. Where connections are: those that are
    /// not leaving, and visits to the portal.
    pub in_use: u32,
    /// Connections that SnapTrade has not finished deleting, where those are counted.
    #[serde(default)]
    pub leaving: u32,
    /// Connections of users whose connections cannot be listed from here, by SnapTrade's own statistics.
    #[serde(default)]
    pub elsewhere: u32,
    /// What the statistics said of them when they were last read: more is believed when a second reading agrees.
    #[serde(default)]
    pub elsewhere_read: u32,
    /// Which counting of connections `in_use` goes by. A record of connections that names another one is not in it.
    #[serde(default)]
    pub epoch: u64,
    /// Grows with every transition, also where `in_use` stays.
    pub rev: u64,
    /// Whether `in_use` is known to be right. Nothing is reserved while it is not.
    pub open: bool,
    /// How often a holder gave its place up before its time. An eviction depends on it, so that nobody is evicted
    /// while a place that was given up waits to be taken.
    pub given_up: u64,
    /// The reservations, by the partition of their user.
    pub held: BTreeMap<Stem, HeldPlace>,
    /// Who gave way last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_eviction: Option<LastEviction>,
    /// Whether the records come from a backup and were not made to fit each other yet; the places are closed then.
    #[serde(default)]
    pub restored: bool,
    /// The places kept for connections that are not made yet, by the partition of their user.
    #[serde(default)]
    pub portals: BTreeMap<Stem, HeldPortal>,
}

/// Who gave way last, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LastEviction {
    /// The id as clients know it.
    pub user_id: String,
    /// Why.
    pub reason: Reason,
    /// When that user was registered.
    #[serde(serialize_with = "to_the_millisecond")]
    pub created_at: Timestamp,
    /// When it gave way.
    #[serde(serialize_with = "to_the_millisecond")]
    pub evicted_at: Timestamp,
}

/// A reservation as [`Slots`] knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeldPlace {
    /// Who reserved.
    pub attempt: AttemptId,
    /// Until when it is theirs.
    pub until: Timestamp,
    /// What for.
    pub kind: ReservationKind,
    /// When SnapTrade last refused for certain to delete an id that the place owes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_at: Option<Timestamp>,
}

impl HeldPlace {
    /// Whether a newcomer may take the place over: its holder ran out of time, and what it owes can be cleared as far
    /// as is known.
    #[must_use]
    pub fn may_be_taken(&self, now: Timestamp) -> bool {
        timing::expired(self.until, now) && !timing::lately_refused(self.refused_at, now)
    }
}

/// What a reservation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReservationKind {
    /// The user is being registered.
    Register,
    /// The place waits for its user to register.
    Hold,
    /// The user is being deleted.
    Leave,
}

/// A user of ours, with a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UserRecord {
    /// The application's id.
    pub user_id: UserId,
    /// The partition that the record stands in.
    pub stem: Stem,
    /// Grows with every write.
    pub rev: u64,
    /// When the user was registered; for a reservation, when it was made.
    pub created_at: Timestamp,
    /// Never gives way.
    pub protected: bool,
    /// When SnapTrade last refused for certain to delete the user, who was to give way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_at: Option<Timestamp>,
    /// Reserved or active.
    #[serde(flatten)]
    pub state: UserState,
}

/// Whether the user is known at SnapTrade.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum UserState {
    /// A place is kept while something is under way.
    Reserved(Reservation),
    /// Registered, with a secret that works.
    Active(ActiveUser),
}

/// A place that is kept for one attempt until a certain time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reservation {
    /// What for.
    pub kind: ReservationKind,
    /// Whose.
    pub attempt: AttemptId,
    /// The id that this attempt registers; none while nothing is to be registered.
    pub upstream: Option<UpstreamId>,
    /// Until when. The beginning of time where it was given up.
    pub until: Timestamp,
    /// Until when the place is kept for its user whatever becomes of the attempt: it was held before it was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Timestamp>,
    /// Ids whose deletion SnapTrade must have accepted before the place is used or freed.
    pub after: Vec<UpstreamId>,
    /// When SnapTrade last refused for certain to delete one of them. Its name in the table is its own, because a
    /// reservation stands in one item with its user's record, which has a time of that name, too.
    #[serde(rename = "owed_refused_at", default, skip_serializing_if = "Option::is_none")]
    pub refused_at: Option<Timestamp>,
}

/// A registered user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ActiveUser {
    /// The id at SnapTrade.
    pub upstream: UpstreamId,
    /// The secret that signs this user's calls.
    pub secret: SealedSecret,
    /// When the user was last seen doing something.
    pub last_active_at: Timestamp,
    /// Brokerage connections, as last seen.
    pub connections: u32,
    /// Whether one of them is disabled.
    pub broken: bool,
    /// SnapTrade no longer accepts the secret; the user has to register again.
    pub secret_rejected: bool,
}

/// How many ids of one user may be adopted at a time.
pub const FOREIGN_SLOTS: u8 = 4;

/// A user that SnapTrade lists and of whom there is no secret here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ForeignRecord {
    /// The id at SnapTrade.
    pub upstream: UpstreamId,
    /// Grows with every write.
    pub rev: u64,
    /// When it was first listed, unless an operator told the true age.
    pub created_at: Timestamp,
    /// Its place in the list that first had it: the order of those first seen together.
    pub order: u32,
    /// Since when no list has had it.
    pub missing_since: Option<Timestamp>,
    /// Never gives way.
    pub protected: bool,
    /// When SnapTrade last refused for certain to delete the id, which was to give way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_at: Option<Timestamp>,
    /// Which of the keys it stands under that each user has for such records: SnapTrade may list several ids of one
    /// user, of which all but one were lost.
    pub slot: u8,
}

/// An id at SnapTrade that is to be deleted and is never used again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ghost {
    /// The id.
    pub upstream: UpstreamId,
    /// Grows with every write.
    pub rev: u64,
    /// How far its deletion is.
    pub state: GhostState,
    /// Who deletes it: an attempt, or a run of the sync.
    pub by: AttemptId,
    /// Whose reservation waits for it.
    pub waits: Option<Stem>,
    /// Who had the place before, so that an eviction that SnapTrade refuses can be undone. Gone once the deletion was
    /// accepted, or once anybody else may have sent it.
    pub was: Option<Box<Holder>>,
    /// When its deletion was last sent.
    pub sent_at: Timestamp,
    /// When SnapTrade accepted its deletion.
    pub accepted_at: Option<Timestamp>,
    /// How many connections go with it, of those that are counted as leaving.
    #[serde(default)]
    pub connections: u32,
    /// When SnapTrade last refused its deletion for certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_at: Option<Timestamp>,
}

/// A user's connections, where those are counted, and the visit to the portal from which another may come.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConnectionsRecord {
    /// The partition of the user.
    pub stem: Stem,
    /// Grows with every write.
    pub rev: u64,
    /// Which counting it belongs to, as [`Slots`] name it.
    pub epoch: u64,
    /// The id at SnapTrade that the connections are of; none while a place is held for a user who is not registered.
    pub upstream: Option<UpstreamId>,
    /// The connections, as SnapTrade last listed them.
    pub ids: BTreeMap<ConnectionId, CountedConnection>,
    /// The visit that a place is kept for.
    pub portal: Option<PortalPlace>,
    /// When SnapTrade's list was last compared.
    pub reconciled_at: Timestamp,
}

/// A connection that is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CountedConnection {
    /// When it was made.
    pub since: Timestamp,
    /// Whether the brokerage no longer lets SnapTrade in. It counts all the same.
    pub disabled: bool,
    /// When its deletion was last sent, or was to be: it is on its way out.
    pub leaving: Option<Timestamp>,
}

/// What a place for a connection is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortalKind {
    /// A link to the portal was given out, or is about to be.
    Visit,
    /// The place waits for its user to ask for a link.
    Hold,
}

/// A place for a connection that is not made yet, as [`Slots`] know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeldPortal {
    /// Until when it is kept.
    pub until: Timestamp,
    /// What for.
    pub kind: PortalKind,
}

/// A place for a connection that is not made yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortalPlace {
    /// Who took it.
    pub attempt: AttemptId,
    /// What for.
    pub kind: PortalKind,
    /// When it was taken.
    pub first: Timestamp,
    /// Until when it is kept.
    pub until: Timestamp,
    /// Whether more than one link was asked for under it: a connection may come of any of them.
    #[serde(default)]
    pub shared: bool,
    /// What SnapTrade has to have deleted before a link may be given out.
    pub after: Option<Owed>,
}

/// What was to give way for a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owed {
    /// One connection.
    Connection {
        /// Whose.
        stem: Stem,
        /// Which.
        id: ConnectionId,
    },
    /// A user whose secret no longer works, with all its connections.
    User(UpstreamId),
}

impl ConnectionsRecord {
    /// Connections that are not leaving.
    #[must_use]
    pub fn staying(&self) -> u32 {
        let staying = self.ids.values().filter(|one| one.leaving.is_none()).count();
        u32::try_from(staying).unwrap_or(u32::MAX)
    }

    /// Connections that are leaving.
    #[must_use]
    pub fn leaving(&self) -> u32 {
        let leaving = self.ids.values().filter(|one| one.leaving.is_some()).count();
        u32::try_from(leaving).unwrap_or(u32::MAX)
    }

    /// Connections that are there still when the user goes, or may be: one may have come of a visit, and nobody has
    /// looked since.
    #[must_use]
    pub fn departing(&self) -> u32 {
        let visit = self
            .portal
            .as_ref()
            .is_some_and(|portal| portal.kind == PortalKind::Visit);
        self.staying().saturating_add(u32::from(visit))
    }

    /// Places that it takes.
    #[must_use]
    pub fn places(&self) -> u32 {
        self.staying().saturating_add(u32::from(self.portal.is_some()))
    }
}

/// How far the deletion of a ghost is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GhostState {
    /// To be deleted.
    Due,
    /// SnapTrade took the deletion.
    Accepted,
    /// SnapTrade lists it no more.
    Gone,
}

/// A hold that a user was given, remembered so that holding again and again is throttled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HoldRecord {
    /// Until when the place was kept.
    pub until: Timestamp,
}

/// Who holds a place and might give way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// A user of ours.
    User(UserRecord),
    /// One without a secret here.
    Foreign(ForeignRecord),
}

/// The sync's lease and what it last saw.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SyncRecord {
    /// Grows with every write.
    pub rev: u64,
    /// Whose turn it is.
    pub run: AttemptId,
    /// Until when.
    pub until: Timestamp,
    /// Ids in the last list that was believed.
    pub list_size: u32,
    /// A list that was not believed yet: far shorter than the last.
    pub doubted: Option<DoubtedList>,
    /// A count of the places that was not believed yet: other than the one that is kept.
    #[serde(default)]
    pub doubted_count: Option<DoubtedCount>,
    /// Users tracked when a sync last came to its end.
    #[serde(default)]
    pub tracked: u32,
    /// Their brokerage connections then.
    #[serde(default)]
    pub connections: u32,
    /// When a sync last came to its end.
    pub completed_at: Option<Timestamp>,
}

/// A list that was too short to be believed at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DoubtedList {
    /// When it was read.
    pub at: Timestamp,
    /// What it said, as a digest of the sorted ids.
    pub digest: String,
}

/// A count of those who hold a place that differs from the places in use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DoubtedCount {
    /// When they were counted.
    pub at: Timestamp,
    /// How many there were more (or fewer) than places in use.
    pub difference: i64,
}

impl Reservation {
    /// Until when others may not take the place.
    #[must_use]
    pub fn kept_until(&self) -> Timestamp {
        self.held_until.map_or(self.until, |held| held.max(self.until))
    }

    /// Until when the place is kept for its user, used or not, if it was asked for as a hold and is still one.
    #[must_use]
    pub fn hold(&self, now: Timestamp) -> Option<Timestamp> {
        let held = match self.kind {
            ReservationKind::Hold => Some(self.until),
            ReservationKind::Register | ReservationKind::Leave => self.held_until,
        };
        held.filter(|until| *until > now)
    }

    /// The reservation as [`Slots`] is to know it.
    #[must_use]
    pub fn held_place(&self) -> HeldPlace {
        let kind = match self.held_until {
            Some(held) if held > self.until => ReservationKind::Hold,
            _ => self.kind,
        };
        HeldPlace {
            attempt: self.attempt.clone(),
            until: self.kept_until(),
            kind,
            refused_at: self.refused_at,
        }
    }
}

impl UserRecord {
    /// The reservation, where the user is reserved.
    #[must_use]
    pub fn reservation(&self) -> Option<&Reservation> {
        match &self.state {
            UserState::Reserved(reservation) => Some(reservation),
            UserState::Active(_) => None,
        }
    }

    /// The registered user, where it is active.
    #[must_use]
    pub fn active(&self) -> Option<&ActiveUser> {
        match &self.state {
            UserState::Active(active) => Some(active),
            UserState::Reserved(_) => None,
        }
    }

    /// Whether this is a reservation whose place others may take.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.reservation()
            .is_some_and(|reservation| timing::expired(reservation.kept_until(), now))
    }

    /// Whether this is a reservation whose attempt ran out of time, so that its user may go on with another one.
    #[must_use]
    pub fn attempt_ended(&self, now: Timestamp) -> bool {
        self.reservation()
            .is_some_and(|reservation| timing::expired(reservation.until, now))
    }

    /// The id at SnapTrade, if the record names one.
    #[must_use]
    pub fn upstream(&self) -> Option<&UpstreamId> {
        match &self.state {
            UserState::Reserved(reservation) => reservation.upstream.as_ref(),
            UserState::Active(active) => Some(&active.upstream),
        }
    }
}

impl Holder {
    /// When the holder came; decides who is oldest.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        match self {
            Self::User(user) => user.created_at,
            Self::Foreign(foreign) => foreign.created_at,
        }
    }

    /// The id as clients know it.
    #[must_use]
    pub fn shown_user_id(&self) -> &str {
        match self {
            Self::User(user) => user.user_id.as_str(),
            Self::Foreign(foreign) => foreign.upstream.shown_user_id(),
        }
    }

    /// The id at SnapTrade, if there is one.
    #[must_use]
    pub fn upstream(&self) -> Option<&UpstreamId> {
        match self {
            Self::User(user) => user.upstream(),
            Self::Foreign(foreign) => Some(&foreign.upstream),
        }
    }

    /// The partition that the holder is stored in.
    #[must_use]
    pub fn stem(&self) -> Stem {
        match self {
            Self::User(user) => user.stem.clone(),
            Self::Foreign(foreign) => foreign.upstream.stem(),
        }
    }

    /// Whether the holder never gives way.
    #[must_use]
    pub fn protected(&self) -> bool {
        match self {
            Self::User(user) => user.protected,
            Self::Foreign(foreign) => foreign.protected,
        }
    }

    /// When SnapTrade last refused for certain to delete the holder.
    #[must_use]
    pub fn refused_at(&self) -> Option<Timestamp> {
        match self {
            Self::User(user) => user.refused_at,
            Self::Foreign(foreign) => foreign.refused_at,
        }
    }

    /// The revision that was read.
    #[must_use]
    pub fn rev(&self) -> u64 {
        match self {
            Self::User(user) => user.rev,
            Self::Foreign(foreign) => foreign.rev,
        }
    }

    /// Whether it may give way: it is not protected, and nothing is under way with it.
    #[must_use]
    pub fn may_give_way(&self) -> bool {
        !self.protected()
            && match self {
                Self::User(user) => user.active().is_some(),
                Self::Foreign(_) => true,
            }
    }
}
