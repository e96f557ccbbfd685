//! A place on its way to a user, and what is written to make it so.

use super::*;

/// A place that is reserved for this attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The reservation as it was last written.
    pub(super) record: UserRecord,
    /// The ghosts that it owes, as they were last read or written.
    pub(super) ghosts: Vec<Ghost>,
    /// Those whose deletion SnapTrade accepted.
    pub(super) cleared: BTreeSet<UpstreamId>,
    /// Whether the id that it registers was sent to SnapTrade and not refused for certain.
    pub(super) sent: bool,
    /// When SnapTrade refused for certain to delete one of those that it owes.
    pub(super) refused_at: Option<Timestamp>,
}

impl Place {
    pub(super) fn new(record: UserRecord, ghosts: Vec<Ghost>) -> Self {
        Self {
            record,
            ghosts,
            cleared: BTreeSet::new(),
            sent: false,
            refused_at: None,
        }
    }

    pub(super) fn owed(&self) -> &[UpstreamId] {
        self.record
            .reservation()
            .map_or(&[], |reservation| reservation.after.as_slice())
    }

    pub(super) fn until(&self) -> Timestamp {
        self.record
            .reservation()
            .map_or(Timestamp::MIN, |reservation| reservation.until)
    }

    pub(super) fn upstream(&self) -> Option<UpstreamId> {
        self.record.upstream().cloned()
    }

    /// The ids whose deletion SnapTrade has not accepted yet.
    pub(super) fn uncleared(&self) -> Vec<UpstreamId> {
        self.owed()
            .iter()
            .filter(|id| !self.cleared.contains(*id))
            .cloned()
            .collect()
    }

    /// The ghosts whose deletion SnapTrade has accepted, as they are then, with what has to be there before.
    pub(super) fn accepted_ghosts(&self, now: Timestamp) -> Vec<Write> {
        let cleared = self
            .ghosts
            .iter()
            .filter(|ghost| self.cleared.contains(&ghost.upstream));
        cleared.map(|ghost| accept(ghost, now)).collect()
    }
}

/// A reservation that is about to be written.
pub(super) struct Taking<'a> {
    pub(super) step: &'a str,
    pub(super) action: &'a str,
    pub(super) guard: Guard,
    pub(super) users: i32,
    pub(super) connections: Option<ConnectionsRecord>,
    pub(super) release: Vec<Stem>,
    pub(super) expect: Expect,
    pub(super) place: Place,
    pub(super) writes: Vec<Write>,
    pub(super) detail: &'a [(&'a str, &'a str)],
}

impl<'a> Taking<'a> {
    /// One that moves a place to a user who has no record yet. The step, the action and what else is written name the
    /// way to the place.
    pub(super) fn new(step: &'a str, action: &'a str, place: Place, writes: Vec<Write>) -> Self {
        Self {
            step,
            action,
            guard: Guard::Any,
            users: 0,
            connections: None,
            release: Vec::new(),
            expect: Expect::Absent,
            place,
            writes,
            detail: &[],
        }
    }
}
