//! Visits to the connection portal, where connections are counted.

use super::{Connections, Deleted, Evicted, Failure, Held, Places, RoomMade};
use crate::config::Counts;
use crate::connections::counting::admission::{
    Admission, Admitted, ConnectionEviction, NotAdmitted, VisitWish, Wanted,
};
use crate::connections::counting::departed::Departed;
use crate::connections::counting::disconnecting::{Disconnected, Disconnecting};
use crate::connections::counting::reconciling::{Purpose, Reconciled, Reconciling};
use crate::connections::counting::returning::Returning;
use crate::connections::machine::Entry;
use crate::connections::records::PortalPlace;
use crate::connections::registration::Refusal;
use crate::connections::runner::NoSecret;
use crate::ids::{Stem, UpstreamId, UserId};
use crate::snaptrade::ConnectionId;
use crate::telemetry::metrics::{self, Metric};

impl Connections<'_> {
    /// Whether connections count against the limit, rather than users.
    #[must_use]
    pub fn counts_connections(&self) -> bool {
        self.app.config().counts == Counts::Connections
    }

    /// A place for a visit of `user`, of whom `entry` was read. `reconnect` names a connection that is to be repaired,
    /// which takes none. `detail` goes into the audit trail.
    ///
    /// # Errors
    /// [`Failure::Store`]; within, [`NotAdmitted`] says why there is no place.
    pub async fn admit(
        &self,
        user: &UserId,
        entry: Entry,
        reconnect: Option<ConnectionId>,
        detail: &[(&str, &str)],
    ) -> Result<Result<Admitted, NotAdmitted>, Failure> {
        let detail = detail
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        let wanted = Wanted::Link { reconnect, detail };
        let admission = Admission::new(self.visit_wish(user, wanted), Some(entry), self.author());
        let admitted = self.runner.run(admission).await?;
        if let Ok(admitted) = &admitted {
            self.measure_visit(admitted);
        }
        Ok(admitted)
    }

    fn measure_visit(&self, admitted: &Admitted) {
        if let Some(eviction) = &admitted.eviction {
            metrics::eviction(eviction.reason.as_str());
        }
        metrics::places(admitted.in_use, self.limit());
    }

    fn visit_wish(&self, user: &UserId, wanted: Wanted) -> VisitWish {
        VisitWish {
            user: user.clone(),
            wanted,
            max: self.limit(),
            policy: self.app.config().policy,
        }
    }

    /// Gives back a place from which no connection can come, because SnapTrade refused the link. Where that cannot be
    /// written down the place lapses by itself.
    pub async fn give_back(&self, user: &UserId, place: PortalPlace) {
        let returning = Returning::new(user.stem(), place, self.author());
        match self.runner.run(returning).await {
            Ok(true) => {}
            Ok(false) => tracing::info!("a place was not given back: it is in use, or will lapse"),
            Err(error) => tracing::warn!(%error, "a place could not be given back; it will lapse"),
        }
    }

    /// Keeps a place for a user's next connection for five minutes.
    pub(super) async fn hold_connection(&self, user: &UserId) -> Result<Held, Failure> {
        let admission = Admission::new(self.visit_wish(user, Wanted::Hold), None, self.author());
        let admitted = match self.runner.run(admission).await? {
            Ok(admitted) => admitted,
            Err(NotAdmitted::Refused(refusal)) => return Err(refusal.into()),
            Err(NotAdmitted::NotRegistered) => return Err(NoSecret::NotRegistered.into()),
            Err(NotAdmitted::SecretRejected) => return Err(Failure::SecretRejected),
            Err(NotAdmitted::NoSuchConnection) => return Err(Refusal::Busy.into()),
        };
        self.measure_visit(&admitted);
        metrics::count(Metric::Holds, u64::from(admitted.place.is_some()));
        Ok(Held {
            success: true,
            held_until: admitted.place.map(|place| place.until),
            evicted: self.evicted_connection(admitted.eviction),
            slots: Places {
                in_use: admitted.in_use,
                limit: self.limit(),
            },
        })
    }

    /// Makes room for a connection where there is none.
    pub(super) async fn room_for_a_connection(&self) -> Result<RoomMade, Failure> {
        // The trail of whoever asks says what gave way, beside that of its owner.
        let asks = UserId::parse(self.actor.as_str()).or_else(|_| UserId::parse("operator"));
        let asks = asks.map_err(|_| Refusal::Busy)?;
        let admission = Admission::new(self.visit_wish(&asks, Wanted::Room), None, self.author());
        let admitted = match self.runner.run(admission).await? {
            Ok(admitted) => admitted,
            Err(NotAdmitted::Refused(refusal)) => return Err(refusal.into()),
            Err(_) => return Err(Refusal::Busy.into()),
        };
        self.measure_visit(&admitted);
        Ok(RoomMade {
            slots: Places {
                in_use: self.places_taken().await?,
                limit: self.limit(),
            },
            deleted: admitted.eviction.map(|eviction| Deleted {
                user_id: eviction.user_id,
                connection_id: eviction.connection,
                deleted: true,
                upstream: "queued".to_owned(),
            }),
        })
    }

    /// What gave way, as this caller may see it.
    #[must_use]
    pub fn evicted_connection(&self, eviction: Option<ConnectionEviction>) -> Option<Evicted> {
        eviction.map(|eviction| Evicted {
            user_id: self.sees_users.then_some(eviction.user_id),
            connection_id: eviction.connection.filter(|_| self.sees_users),
            reason: eviction.reason,
            created_at: eviction.created_at,
        })
    }

    /// Brings the count of a user's connections in line with SnapTrade's list. `failed` tells that an attempt to connect
    /// failed.
    ///
    /// # Errors
    /// [`Failure::Snaptrade`], [`Failure::Store`]; [`Refusal::Busy`] when others changed the same all the time.
    pub async fn reconcile(&self, stem: &Stem, failed: bool) -> Result<(), Failure> {
        let purpose = if failed { Purpose::Failure } else { Purpose::Look };
        let reconciling = Reconciling::new(stem.clone(), purpose, self.author());
        match self.runner.run(reconciling).await? {
            Reconciled::Done { .. } | Reconciled::Nobody(_) | Reconciled::Rejected(_) => Ok(()),
            Reconciled::Unavailable(fault) => Err(Failure::Snaptrade(fault)),
            // What counts is being changed; whoever changes it lists everybody's connections.
            Reconciled::Busy => Err(Refusal::Busy.into()),
        }
    }

    /// Marks a connection that its user wants gone as leaving, or, with `leaves` false, takes that back. One that the
    /// books do not have yet is left to the next comparison with SnapTrade's list.
    ///
    /// # Errors
    /// [`Failure::Store`]; [`Refusal::Busy`] when others changed the same all the time.
    pub async fn disconnect(
        &self,
        stem: &Stem,
        connection: &ConnectionId,
        leaves: bool,
    ) -> Result<(), Failure> {
        let disconnecting = Disconnecting::new(stem.clone(), connection.clone(), leaves, self.author());
        match self.runner.run(disconnecting).await? {
            Disconnected::Marked | Disconnected::NotCounted => Ok(()),
            Disconnected::Busy => Err(Refusal::Busy.into()),
        }
    }

    /// Looks whether an id that has to go is gone, and its connections with it.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn departed(&self, upstream: &UpstreamId) -> Result<(), Failure> {
        let departed = Departed::new(upstream.clone(), false, self.author());
        self.runner.run(departed).await?;
        Ok(())
    }
}
