//! How the limit stands, by tracking and by SnapTrade's own list.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Connections, Failure};
use crate::clock::to_the_millisecond;
use crate::config::Counts;
use crate::connections::machine::Roster;
use crate::connections::opening::unknown_ids;
use crate::connections::policy;
use crate::connections::records::{
    Ghost, Holder, LastEviction, Reservation, ReservationKind, Slots, UserRecord,
};
use crate::connections::timing;
use crate::ids::{UpstreamId, UserId};
use crate::store::{self, Key};
use crate::telemetry::metrics::{self, Metric};

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
    /// Their brokerage connections, as tracked; as they were at the last sync where the users are too many for one call
    /// to the store (over a thousand).
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
    /// Who gave way last.
    pub last_eviction: Option<LastEviction>,
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

impl Connections<'_> {
    /// How the limit stands, for `caller`; beside SnapTrade's own list where `compare` is asked for.
    ///
    /// # Errors
    /// [`Failure::Store`], [`Failure::Snaptrade`] where the list could not be had.
    pub async fn status(&self, caller: &UserId, compare: bool) -> Result<Status, Failure> {
        let stem = caller.stem();
        let now = self.runner.now();
        // The rows come before the list, so that nobody who registers meanwhile seems unknown.
        let ((entry, synced), (first, complete)) =
            tokio::try_join!(self.runner.standing(&stem), self.runner.first_holders())?;
        // A comparison is about everybody; for the rest it is enough to know how many there are.
        let (holders, complete) = if compare && !complete {
            (self.runner.holders().await?, true)
        } else {
            (first, complete)
        };
        let known: Vec<&Holder> = holders
            .iter()
            .filter(|holder| match holder {
                Holder::User(user) => user.active().is_some(),
                Holder::Foreign(_) => true,
            })
            .collect();
        let (users, connections) = if complete {
            let connections = holders.iter().filter_map(|holder| match holder {
                Holder::User(user) => user.active().map(|active| active.connections),
                Holder::Foreign(_) => None,
            });
            (u32::try_from(known.len()).unwrap_or(u32::MAX), connections.sum())
        } else {
            let tracked = synced.as_ref().map_or(0, |synced| synced.tracked);
            let users = entry
                .slots
                .as_ref()
                .filter(|slots| slots.open && slots.counts == Counts::Users)
                .map(|slots| {
                    let reserved = u32::try_from(slots.held.len()).unwrap_or(u32::MAX);
                    slots.in_use.saturating_sub(reserved)
                });
            let connections = synced.as_ref().map_or(0, |synced| synced.connections);
            (users.unwrap_or(tracked), connections)
        };
        // Where connections are counted, the places say how many there are.
        let counts = self.app.config().counts;
        let counted = entry
            .slots
            .as_ref()
            .filter(|slots| slots.open && slots.counts == counts && counts == Counts::Connections);
        let connections = counted.map_or(connections, connections_in);
        let comparison = if compare {
            let last_eviction = entry.slots.as_ref().and_then(|slots| slots.last_eviction.clone());
            Some(self.compare(&holders, &known, last_eviction).await?)
        } else {
            None
        };
        let portal = entry
            .connections
            .as_ref()
            .and_then(|record| record.portal.as_ref());
        let in_use = match &entry.slots {
            Some(slots) if slots.open && slots.counts == counts => taken(slots, now),
            _ if counts == Counts::Connections => connections,
            _ => comparison
                .as_ref()
                .map_or(users, |comparison| comparison.upstream_count),
        };
        let limit = self.limit();
        metrics::places(in_use, limit);
        metrics::level(Metric::ActiveConnections, connections.into());
        let held_until = entry
            .user
            .as_ref()
            .and_then(UserRecord::reservation)
            .filter(|reservation| reservation.kind != ReservationKind::Leave)
            .map(Reservation::kept_until)
            .or(portal
                .map(|portal| portal.until)
                .filter(|_| counts == Counts::Connections))
            .filter(|until| *until > now);
        Ok(Status {
            current_count: in_use,
            max_connections: limit,
            at_limit: in_use >= limit,
            available: limit.saturating_sub(in_use),
            counts,
            users,
            connections,
            registered: entry.user.as_ref().is_some_and(|user| user.active().is_some()),
            held_until,
            comparison,
        })
    }

    async fn compare(
        &self,
        holders: &[Holder],
        known: &[&Holder],
        last_eviction: Option<LastEviction>,
    ) -> Result<Comparison, Failure> {
        let list = self.list_upstream().await?;
        let listed: BTreeSet<&UpstreamId> = list.iter().collect();
        let roster = Roster {
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
            last_eviction,
        })
    }
}

/// Connections at SnapTrade by the count of them, those that are leaving included.
fn connections_in(slots: &Slots) -> u32 {
    let portals = u32::try_from(slots.portals.len()).unwrap_or(u32::MAX);
    slots
        .in_use
        .saturating_sub(portals)
        .saturating_add(slots.leaving)
        .saturating_add(slots.elsewhere)
}

/// Places that a newcomer cannot have: all in use but those that may be taken over.
pub(super) fn taken(slots: &Slots, now: Timestamp) -> u32 {
    let expired = match slots.counts {
        Counts::Users => slots.held.values().filter(|held| held.may_be_taken(now)).count(),
        Counts::Connections => slots
            .portals
            .values()
            .filter(|portal| timing::expired(portal.until, now))
            .count(),
    };
    slots
        .in_use
        .saturating_add(slots.elsewhere)
        .saturating_sub(u32::try_from(expired).unwrap_or(u32::MAX))
}
