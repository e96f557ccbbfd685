//! Writes that several decisions make.

use jiff::Timestamp;

use super::machine::{Author, Change, ConnectionsChange, Expect, Transition, Write};
use super::records::{ConnectionsRecord, ForeignRecord, Ghost, GhostState, Holder, Reservation, Slots};
use crate::config::Counts;
use crate::ids::{Stem, UpstreamId};

/// A ghost of `upstream` that `author` is to delete before the place in partition `waits` is used or freed.
#[must_use]
pub fn new_ghost(
    author: &Author,
    upstream: &UpstreamId,
    waits: &Stem,
    was: Option<Holder>,
    now: Timestamp,
) -> Ghost {
    Ghost {
        upstream: upstream.clone(),
        rev: author.attempt.first_revision(),
        state: GhostState::Due,
        by: author.attempt.clone(),
        waits: Some(waits.clone()),
        was: was.map(Box::new),
        sent_at: now,
        accepted_at: None,
        connections: 0,
        refused_at: None,
    }
}

/// What a place owes that is taken over: the ids, their ghosts, and the writes that make the ghosts the taker's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Inherited {
    /// The ids whose deletion SnapTrade must have accepted.
    pub after: Vec<UpstreamId>,
    /// Their ghosts, as they will be.
    pub ghosts: Vec<Ghost>,
    /// What makes them so.
    pub writes: Vec<Write>,
}

/// What `author` inherits with the place of `reservation`, whose ghosts are `ghosts`, for the place in partition
/// `waits`. Nothing of it can be undone any more, and the id that the reservation was to register has to go, too.
#[must_use]
pub fn inherit(
    author: &Author,
    waits: &Stem,
    reservation: &Reservation,
    ghosts: &[Ghost],
    now: Timestamp,
) -> Inherited {
    let mut inherited = Inherited {
        after: reservation.after.clone(),
        ghosts: Vec::new(),
        writes: Vec::new(),
    };
    for ghost in ghosts {
        let taken = Ghost {
            rev: ghost.rev + 1,
            by: author.attempt.clone(),
            waits: Some(waits.clone()),
            was: None,
            ..ghost.clone()
        };
        inherited.writes.push(put_ghost(ghost.rev, &taken));
        inherited.ghosts.push(taken);
    }
    if let Some(upstream) = &reservation.upstream {
        let ghost = new_ghost(author, upstream, waits, None, now);
        inherited.writes.push(put_new_ghost(&ghost));
        inherited.ghosts.push(ghost);
        inherited.after.push(upstream.clone());
    }
    inherited
}

/// The write that notes that SnapTrade took the deletion of `ghost`.
#[must_use]
pub fn accept(ghost: &Ghost, now: Timestamp) -> Write {
    let becomes = Ghost {
        rev: ghost.rev + 1,
        state: GhostState::Accepted,
        waits: None,
        was: None,
        sent_at: now,
        accepted_at: Some(now),
        ..ghost.clone()
    };
    Write::Ghost {
        upstream: ghost.upstream.clone(),
        expect: Expect::Revision(ghost.rev),
        becomes: Change::Put(Box::new(becomes)),
    }
}

/// Writes a ghost that was not there.
#[must_use]
pub fn put_new_ghost(ghost: &Ghost) -> Write {
    Write::Ghost {
        upstream: ghost.upstream.clone(),
        expect: Expect::Absent,
        becomes: Change::Put(Box::new(ghost.clone())),
    }
}

/// Writes a ghost that was at revision `rev`.
#[must_use]
pub fn put_ghost(rev: u64, ghost: &Ghost) -> Write {
    Write::Ghost {
        upstream: ghost.upstream.clone(),
        expect: Expect::Revision(rev),
        becomes: Change::Put(Box::new(ghost.clone())),
    }
}

/// Removes a foreign record as it was read.
#[must_use]
pub fn remove_foreign(foreign: &ForeignRecord) -> Write {
    Write::Foreign {
        stem: foreign.upstream.stem(),
        slot: foreign.slot,
        expect: Expect::Revision(foreign.rev),
        becomes: Change::Gone,
    }
}

/// Removes a holder as it was read.
#[must_use]
pub fn remove(holder: &Holder) -> Write {
    match holder {
        Holder::User(user) => Write::User {
            stem: user.stem.clone(),
            expect: Expect::Revision(user.rev),
            becomes: Change::Gone,
        },
        Holder::Foreign(foreign) => remove_foreign(foreign),
    }
}

/// Puts a holder back where nobody has come since. What was noted of a user outside the revision, after it was read
/// and before it gave way, is not in it: a later call finds that out again.
#[must_use]
pub fn restore(holder: &Holder) -> Write {
    match holder.clone() {
        Holder::User(mut user) => {
            user.rev += 1;
            Write::User {
                stem: user.stem.clone(),
                expect: Expect::Absent,
                becomes: Change::Put(Box::new(user)),
            }
        }
        Holder::Foreign(mut foreign) => {
            foreign.rev += 1;
            Write::Foreign {
                stem: foreign.upstream.stem(),
                slot: foreign.slot,
                expect: Expect::Absent,
                becomes: Change::Put(Box::new(foreign)),
            }
        }
    }
}

/// How many connections go with an incarnation, of those that are counted. Its ghost remembers them.
#[must_use]
pub fn connections_of(slots: Option<&Slots>, record: Option<&ConnectionsRecord>) -> u32 {
    let counted = record.filter(|record| slots.is_some_and(|slots| slots.epoch == record.epoch));
    counted.map_or(0, |record| record.departing().saturating_add(record.leaving()))
}

/// Has the connections of an incarnation go with it, in the `transition` by which it goes: its record goes, and what
/// was counted of it is leaving, as long as a ghost says so; `with_ghost` tells whether there is one.
#[must_use]
pub fn with_its_connections(
    transition: Transition,
    slots: Option<&Slots>,
    record: Option<&ConnectionsRecord>,
    with_ghost: bool,
    writes: &mut Vec<Write>,
) -> Transition {
    let Some(record) = record else { return transition };
    writes.push(Write::Connections {
        stem: record.stem.clone(),
        expect: Expect::Revision(record.rev),
        becomes: Change::Gone,
    });
    let transition = match &record.portal {
        Some(_) => transition.with_portal(&record.stem, None),
        None => transition,
    };
    if slots.is_none_or(|slots| slots.epoch != record.epoch) {
        // What an earlier counting left was not counted since.
        return transition;
    }
    let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    transition.with_connections(ConnectionsChange {
        in_use: -number(record.places()),
        leaving: if with_ghost {
            number(record.departing())
        } else {
            -number(record.leaving())
        },
        epoch: Some(record.epoch),
    })
}

/// That there is no record of connections, where those are counted and none was read: one that came since would be
/// left behind by its user.
#[must_use]
pub fn no_connections(author: &Author, stem: &Stem, record: Option<&ConnectionsRecord>) -> Option<Write> {
    (author.counts == Counts::Connections && record.is_none()).then(|| Write::Connections {
        stem: stem.clone(),
        expect: Expect::Absent,
        becomes: Change::Same,
    })
}
