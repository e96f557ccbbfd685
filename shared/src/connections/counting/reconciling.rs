//! Bringing the record of a user's connections in line with what SnapTrade lists: the only way in which connections come
//! into the books and leave them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{AFTER_FAILURE, MADE_BEFORE};
use crate::connections::machine::{
    Author, Change, CommitOutcome, ConnectionsChange, Context, Effect, Entry, Expect, Fault, Input,
    ListedConnection, Machine, Next, NotListed, SlotsChange, Transition, Write,
};
use crate::connections::records::{
    ConnectionsRecord, CountedConnection, HeldPortal, PortalKind, Slots, UserRecord,
};
use crate::connections::timing;
use crate::ids::{Stem, UpstreamId};

/// How often the decision is begun anew when others were faster.
const MAX_ROUNDS: u32 = 4;

/// Reads a user's connections at SnapTrade and writes down what came and went. A visit to the portal from which a
/// connection came is over, and so is one whose time has passed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reconciling {
    stem: Stem,
    author: Author,
    purpose: Purpose,
    rounds: u32,
    entry: Entry,
    listed: Vec<ListedConnection>,
    phase: Phase,
}

/// What the connections are compared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To know them now.
    Look,
    /// Because an attempt to connect failed, after which the place is kept for a while only.
    Failure,
    /// In turn: that it was done is noted although nothing changed.
    Turn,
    /// For a new counting, which has to have a record of everybody. What cannot be listed is taken over.
    Counting,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Start,
    Looking,
    Listing(Box<UserRecord>),
    NotingRejection,
    Writing(Reconciled),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reconciled {
    /// The record is as SnapTrade's list.
    Done {
        /// The list.
        listed: Vec<ListedConnection>,
        /// The record.
        record: Option<Box<ConnectionsRecord>>,
        /// The author, with its count of decisions.
        author: Author,
    },
    /// There is nobody whose connections could be listed.
    Nobody(Author),
    /// SnapTrade does not accept the user's secret. That is noted, and nothing else was changed.
    Rejected(Author),
    /// SnapTrade could not be used.
    Unavailable(Fault),
    /// The store did not answer, or others changed the same all the time.
    Busy,
}

type Step = Next<Reconciled>;

impl Reconciling {
    /// Compares the connections of the user in partition `stem`.
    #[must_use]
    pub fn new(stem: Stem, purpose: Purpose, author: Author) -> Self {
        Self {
            stem,
            author,
            purpose,
            rounds: 0,
            entry: Entry::default(),
            listed: Vec::new(),
            phase: Phase::Start,
        }
    }

    fn look(&mut self) -> Step {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Next::Done(Reconciled::Busy);
        }
        self.phase = Phase::Looking;
        Next::Do(Effect::ReadEntry(self.stem.clone()))
    }

    fn enter(&mut self, entry: Entry, context: &Context<'_>) -> Step {
        self.entry = entry;
        let Some(slots) = &self.entry.slots else {
            return Next::Done(Reconciled::Busy);
        };
        if slots.counts != self.author.counts {
            return Next::Done(Reconciled::Busy);
        }
        let user = self.entry.user.clone().filter(|user| user.active().is_some());
        let Some(user) = user else {
            return self.without_user(context);
        };
        if user.active().is_some_and(|active| active.secret_rejected) {
            return self.rejected(context);
        }
        if !timing::may_call(Timestamp::MAX, context.deadline, context.now) {
            return Next::Done(Reconciled::Unavailable(Fault::Timeout));
        }
        self.phase = Phase::Listing(Box::new(user.clone()));
        Next::Do(Effect::ListConnections(Box::new(user)))
    }

    /// A place may be held for somebody who is not registered; nothing was ever connected from it.
    fn without_user(&mut self, context: &Context<'_>) -> Step {
        let Some(old) = self.entry.connections.clone() else {
            return Next::Done(Reconciled::Nobody(self.author.clone()));
        };
        let live = old
            .portal
            .as_ref()
            .is_some_and(|portal| !timing::expired(portal.until, context.now));
        if old.upstream.is_none() && live && self.is_counted(&old) {
            return Next::Done(Reconciled::Nobody(self.author.clone()));
        }
        let ended = Reconciled::Nobody(self.author.clone());
        self.write(None, ended, context)
    }

    fn rejected(&mut self, context: &Context<'_>) -> Step {
        let ended = Reconciled::Rejected(self.author.clone());
        let old = self.entry.connections.clone();
        let epoch = self.entry.slots.as_ref().map_or(0, |slots| slots.epoch);
        let active = self.entry.user.as_ref().and_then(UserRecord::active);
        let Some(upstream) = active.map(|active| active.upstream.clone()) else {
            return Next::Done(ended);
        };
        // A hold that ran out unused leaves nothing to look for.
        let lapsed = old
            .as_ref()
            .and_then(|old| old.portal.as_ref())
            .is_some_and(|portal| {
                portal.kind == PortalKind::Hold && timing::expired(portal.until, context.now)
            });
        let carries = self.purpose == Purpose::Counting && old.as_ref().is_none_or(|old| old.epoch != epoch);
        if !lapsed && !carries {
            return Next::Done(ended);
        }
        let mut record = merged(old.as_ref(), &upstream, None, epoch, &self.author, context.now);
        if lapsed {
            record.portal = None;
        }
        self.write(Some(record), ended, context)
    }

    fn compare(&mut self, user: &UserRecord, context: &Context<'_>) -> Step {
        let epoch = self.entry.slots.as_ref().map_or(0, |slots| slots.epoch);
        let Some(upstream) = user.upstream() else {
            return Next::Done(Reconciled::Busy);
        };
        let old = self.entry.connections.clone();
        let mut record = merged(
            old.as_ref(),
            upstream,
            Some(&self.listed),
            epoch,
            &self.author,
            context.now,
        );
        if let Some(portal) = &mut record.portal
            && self.purpose == Purpose::Failure
            && portal.kind == PortalKind::Visit
        {
            portal.until = portal.until.min(timing::after(context.now, AFTER_FAILURE));
        }
        let done =
            |record: ConnectionsRecord, author: Author, listed: Vec<ListedConnection>| Reconciled::Done {
                listed,
                record: Some(Box::new(record)),
                author,
            };
        let same = old.as_ref().is_some_and(|old| {
            (&old.ids, &old.portal, &old.upstream, old.epoch)
                == (&record.ids, &record.portal, &record.upstream, epoch)
        });
        let noted = matches!(self.purpose, Purpose::Turn | Purpose::Counting);
        let nothing = old.is_none() && record.ids.is_empty() && record.portal.is_none();
        if let Some(old) = old.filter(|_| same && !noted) {
            return Next::Done(done(old, self.author.clone(), self.listed.clone()));
        }
        if nothing && !noted {
            return Next::Done(done(record, self.author.clone(), self.listed.clone()));
        }
        let ended = done(record.clone(), self.author.clone(), self.listed.clone());
        self.write(Some(record), ended, context)
    }

    fn is_counted(&self, record: &ConnectionsRecord) -> bool {
        self.entry
            .slots
            .as_ref()
            .is_some_and(|slots| slots.epoch == record.epoch)
    }

    /// Puts the record in the old one's place, and what it takes in the place of what that took.
    fn write(&mut self, record: Option<ConnectionsRecord>, ended: Reconciled, context: &Context<'_>) -> Step {
        let Some(slots) = &self.entry.slots else {
            return Next::Done(Reconciled::Busy);
        };
        let old = self.entry.connections.as_ref();
        let transition = difference(slots, old, record.as_ref());
        let unchanged = old.filter(|old| self.is_counted(old)).is_some_and(|old| {
            record
                .as_ref()
                .is_some_and(|record| record.ids == old.ids && record.portal == old.portal)
        });
        let stem = self.stem.clone();
        let mut writes = vec![Write::Connections {
            stem: stem.clone(),
            expect: old.map_or(Expect::Absent, |old| Expect::Revision(old.rev)),
            becomes: record
                .clone()
                .map_or(Change::Gone, |record| Change::Put(Box::new(record))),
        }];
        // The list is of this incarnation, or there was none that could have one.
        let user = self.entry.user.as_ref();
        writes.push(Write::User {
            stem: stem.clone(),
            expect: user.map_or(Expect::Absent, |user| Expect::Revision(user.rev)),
            becomes: Change::Same,
        });
        let (change, audit) = if unchanged {
            (SlotsChange::None, Vec::new())
        } else {
            let told = told(old, record.as_ref());
            let detail: Vec<(&str, &str)> = told.iter().map(|(name, text)| (*name, text.as_str())).collect();
            let audit = vec![self.author.audit(&stem, "connections.counted", &detail)];
            (transition.into(), audit)
        };
        let commit = self.author.commit("count", context.now, change, writes, audit);
        self.phase = Phase::Writing(ended);
        Next::Do(Effect::Commit(commit))
    }

    fn written(&self, ended: Reconciled) -> Step {
        let author = self.author.clone();
        Next::Done(match ended {
            Reconciled::Done { listed, record, .. } => Reconciled::Done {
                listed,
                record,
                author,
            },
            Reconciled::Nobody(_) => Reconciled::Nobody(author),
            Reconciled::Rejected(_) => Reconciled::Rejected(author),
            other => other,
        })
    }
}

/// What a user's record of connections becomes by what SnapTrade lists; where it does not, the connections stay.
fn merged(
    old: Option<&ConnectionsRecord>,
    upstream: &UpstreamId,
    listed: Option<&[ListedConnection]>,
    epoch: u64,
    author: &Author,
    now: Timestamp,
) -> ConnectionsRecord {
    // What is known of another incarnation went with it; a place that was held before there was any is this one's.
    let same = old.filter(|old| old.upstream.as_ref().is_none_or(|theirs| theirs == upstream));
    let known = same.map(|old| old.ids.clone()).unwrap_or_default();
    let mut portal = same.and_then(|old| old.portal.clone());
    let ids = match listed {
        None => known,
        Some(listed) => {
            if let Some(place) = &portal
                && place.kind == PortalKind::Visit
            {
                let earliest = place.first.checked_sub(MADE_BEFORE).unwrap_or(place.first);
                let came = listed.iter().any(|connection| {
                    !known.contains_key(&connection.id)
                        && connection.created_at.is_none_or(|created| created >= earliest)
                });
                if came || timing::expired(place.until, now) {
                    portal = None;
                }
            } else if portal
                .as_ref()
                .is_some_and(|place| timing::expired(place.until, now))
            {
                portal = None;
            }
            compared(&known, listed, now)
        }
    };
    ConnectionsRecord {
        stem: upstream.stem(),
        rev: old.map_or_else(|| author.attempt.first_revision(), |old| old.rev + 1),
        epoch,
        upstream: Some(upstream.clone()),
        ids,
        portal,
        reconciled_at: now,
    }
}

fn compared(
    known: &BTreeMap<crate::snaptrade::ConnectionId, CountedConnection>,
    listed: &[ListedConnection],
    now: Timestamp,
) -> BTreeMap<crate::snaptrade::ConnectionId, CountedConnection> {
    listed
        .iter()
        .map(|connection| {
            let before = known.get(&connection.id);
            let counted = CountedConnection {
                since: before.map_or_else(|| connection.created_at.unwrap_or(now), |before| before.since),
                disabled: connection.disabled,
                leaving: before.and_then(|before| before.leaving),
            };
            (connection.id.clone(), counted)
        })
        .collect()
}

/// What the places lose with the `old` record and gain with the new one.
#[must_use]
pub fn difference(
    slots: &Slots,
    old: Option<&ConnectionsRecord>,
    new: Option<&ConnectionsRecord>,
) -> Transition {
    let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let counted = old.filter(|old| old.epoch == slots.epoch);
    let places = |record: Option<&ConnectionsRecord>| record.map_or(0, |record| number(record.places()));
    let leaving = |record: Option<&ConnectionsRecord>| record.map_or(0, |record| number(record.leaving()));
    let transition = Transition::of(0).with_connections(ConnectionsChange {
        in_use: places(new) - places(counted),
        leaving: leaving(new) - leaving(counted),
        epoch: Some(slots.epoch),
    });
    let Some(stem) = new.or(old).map(|record| record.stem.clone()) else {
        return transition;
    };
    let held = new
        .and_then(|record| record.portal.as_ref())
        .map(|portal| HeldPortal {
            until: portal.until,
            kind: portal.kind,
        });
    if slots.portals.get(&stem).copied() == held {
        return transition;
    }
    transition.with_portal(&stem, held)
}

/// What the audit trail says of a change.
fn told(old: Option<&ConnectionsRecord>, new: Option<&ConnectionsRecord>) -> Vec<(&'static str, String)> {
    let ids = |record: Option<&ConnectionsRecord>| -> Vec<String> {
        record.map_or_else(Vec::new, |record| {
            record.ids.keys().map(ToString::to_string).collect()
        })
    };
    let (before, after) = (ids(old), ids(new));
    let without = |these: &[String], others: &[String]| -> String {
        let left: Vec<&str> = these
            .iter()
            .filter(|id| !others.contains(id))
            .map(String::as_str)
            .collect();
        left.join(" ")
    };
    let (came, went) = (without(&after, &before), without(&before, &after));
    let mut told = vec![("connections", after.len().to_string())];
    if !came.is_empty() {
        told.push(("came", came.clone()));
    }
    if !went.is_empty() {
        told.push(("went", went));
    }
    let portal = |record: Option<&ConnectionsRecord>| record.is_some_and(|record| record.portal.is_some());
    if portal(old) && !portal(new) {
        told.push((
            "place",
            if came.is_empty() { "lapsed" } else { "used" }.to_owned(),
        ));
    }
    told
}

impl Machine for Reconciling {
    type Output = Reconciled;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Step {
        match (std::mem::replace(&mut self.phase, Phase::Start), input) {
            (Phase::Start, Input::Begin) => self.look(),
            (Phase::Looking, Input::Entry(entry)) => self.enter(*entry, context),
            (Phase::Listing(user), Input::ConnectionsListed(Ok(listed))) => {
                self.listed = listed;
                self.compare(&user, context)
            }
            (Phase::Listing(user), Input::ConnectionsListed(Err(NotListed::SecretRejected))) => {
                self.phase = Phase::NotingRejection;
                Next::Do(Effect::NoteRejected(user))
            }
            (Phase::Listing(_), Input::ConnectionsListed(Err(NotListed::Fault(fault)))) => {
                Next::Done(Reconciled::Unavailable(fault))
            }
            (Phase::NotingRejection, Input::Noted) => self.rejected(context),
            (Phase::Writing(ended), Input::Committed(CommitOutcome::Won)) => self.written(ended),
            (Phase::Writing(_), Input::Committed(CommitOutcome::Lost(_))) => self.look(),
            _ => Next::Done(Reconciled::Busy),
        }
    }
}
