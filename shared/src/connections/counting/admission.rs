//! Getting a user a place for a visit to the portal, where connections are counted.
//!
//! The steps in order: look at what there is; take a place (the user's own from before, a free one, or that of a
//! connection that gives way); have SnapTrade delete what gave way; wait until places and connections that are leaving
//! are together within the limit. Whoever stops half way leaves a place that lapses by itself, and what it waits for.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::candidates;
use super::departed::{Departed, Departure};
use super::reconciling::{Purpose, Reconciled, Reconciling};
use super::{LONGEST_VISIT, MAX_VISITS, VISIT};
use crate::config::{Counts, Policy};
use crate::connections::clearing::SHORT_WAIT;
use crate::connections::machine::{
    AuditEntry, Author, Change, Commit, CommitOutcome, ConnectionHolder, ConnectionsChange, Context,
    Deletion, Disconnection, Effect, Entry, Expect, Fault, Guard, Input, Machine, Next, Obstacle,
    SlotsChange, Transition, Write,
};
use crate::connections::opening::{Opened, Opening};
use crate::connections::policy::Reason;
use crate::connections::records::{
    ConnectionsRecord, Ghost, HeldPortal, HoldRecord, LastEviction, Owed, PortalKind, PortalPlace, Slots,
    UserRecord,
};
use crate::connections::registration::Refusal;
use crate::connections::timing::{self, CALL, HOLD, HOLD_AGAIN, SKEW};
use crate::connections::writes::{new_ghost, put_new_ghost};
use crate::ids::{Stem, UpstreamId, UserId};
use crate::snaptrade::ConnectionId;

/// How often the whole decision is begun anew when others were faster.
const MAX_ROUNDS: u32 = 12;

/// How often a commit is sent whose outcome the store does not tell.
const MAX_COMMITS: u32 = 3;

/// How often a deletion is sent whose answer is lost.
const MAX_SENDS: u32 = 3;

/// When to ask again after SnapTrade has not finished deleting.
const PENDING: u64 = 10;

/// What a place is wanted for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// A link to the portal.
    Link {
        /// The connection that is to be repaired, which takes no place.
        reconnect: Option<ConnectionId>,
        /// What the audit trail says of the link.
        detail: Vec<(String, String)>,
    },
    /// A place that waits for its user to ask for a link.
    Hold,
    /// Room for whoever comes next, and nothing for this user.
    Room,
}

/// A user's wish for a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VisitWish {
    /// Who.
    pub user: UserId,
    /// What for.
    pub wanted: Wanted,
    /// The limit.
    pub max: u32,
    /// Which connection gives way when it is reached.
    pub policy: Policy,
}

/// What came of a wish.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Admitted {
    /// The place; none for a repair.
    pub place: Option<PortalPlace>,
    /// Whether it was taken now, so that nobody has a link under it yet.
    pub fresh: bool,
    /// What gave way.
    pub eviction: Option<ConnectionEviction>,
    /// Places in use, as far as was seen.
    pub in_use: u32,
}

/// Why a wish was not granted. A place that was taken stays the caller's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotAdmitted {
    /// No place could be had, or the one there is may not be used yet.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The user is not registered.
    #[error("the user is not registered")]
    NotRegistered,
    /// SnapTrade no longer accepts the user's secret.
    #[error("SnapTrade no longer accepts the user's secret")]
    SecretRejected,
    /// The connection to be repaired is not one of the user's.
    #[error("the user has no such connection")]
    NoSuchConnection,
}

/// What gave way, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConnectionEviction {
    /// Whose it was.
    pub user_id: String,
    /// Which connection; none where the whole user went, whose secret no longer worked.
    pub connection: Option<ConnectionId>,
    /// Why.
    pub reason: Reason,
    /// When it was made.
    pub created_at: Timestamp,
}

impl ConnectionEviction {
    fn noted(&self, now: Timestamp) -> LastEviction {
        LastEviction {
            user_id: self.user_id.clone(),
            reason: self.reason,
            created_at: self.created_at,
            evicted_at: now,
        }
    }
}

/// Gets a user a place for a visit to the portal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Admission {
    wish: VisitWish,
    stem: Stem,
    author: Author,
    rounds: u32,
    entry: Entry,
    /// Whether the user's own connections were compared with SnapTrade's, because there is a visit already.
    compared: bool,
    /// Whose lapsed places cannot be looked after.
    skipped: BTreeSet<Stem>,
    /// Connections that SnapTrade does not delete.
    excluded: BTreeSet<ConnectionId>,
    record: Option<ConnectionsRecord>,
    in_use: u32,
    fresh: bool,
    eviction: Option<ConnectionEviction>,
    last_eviction: Option<LastEviction>,
    undone: u32,
    sends: u32,
    sent: bool,
    uncertain: bool,
    waits: u32,
    /// Others with connections that are leaving, to be looked after while this one waits.
    others: Option<Vec<Stem>>,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Start,
    Looking,
    PausingBeforeLooking,
    Opening(Box<Opening>),
    /// The user's own connections are compared, to see whether the one to be repaired is there.
    Checking(Box<Reconciling>),
    /// A place whose time has passed is looked after.
    Lapsing(Stem, Box<Reconciling>),
    Nominating,
    /// A connection goes without its place being taken; this is what has it deleted.
    Shrinking(Box<Effect>),
    Disposing,
    /// A place is being written; `bool` tells whether nothing has to be waited for after that.
    Taking(Box<ConnectionsRecord>, Box<Commit>, u32, bool),
    Noting(Option<Box<ConnectionsRecord>>, bool),
    ReadingOwed,
    Disconnecting(Box<UserRecord>, Box<ConnectionsRecord>),
    PausingBeforeDisconnecting,
    NotingRejection(Box<ConnectionsRecord>),
    Undoing(Option<Fault>),
    LookingAfter(Box<Reconciling>),
    Departing(Box<Departed>),
    Gating,
    PausingBeforeGate,
    ReadingLeaving,
}

type Step = Next<Result<Admitted, NotAdmitted>>;

impl Admission {
    /// Starts on a wish. `entry` is what was read of the user already, if it was.
    #[must_use]
    pub fn new(wish: VisitWish, entry: Option<Entry>, author: Author) -> Self {
        let stem = wish.user.stem();
        let phase = if entry.is_some() {
            Phase::Looking
        } else {
            Phase::Start
        };
        Self {
            wish,
            stem,
            author,
            rounds: 0,
            entry: entry.unwrap_or_default(),
            compared: false,
            skipped: BTreeSet::new(),
            excluded: BTreeSet::new(),
            record: None,
            in_use: 0,
            fresh: false,
            eviction: None,
            last_eviction: None,
            undone: 0,
            sends: 0,
            sent: false,
            uncertain: false,
            waits: 0,
            others: None,
            phase,
        }
    }

    fn go(&mut self, phase: Phase, effect: Effect) -> Step {
        self.phase = phase;
        Next::Do(effect)
    }

    fn refuse(refusal: Refusal) -> Step {
        Next::Done(Err(NotAdmitted::Refused(refusal)))
    }

    fn look(&mut self) -> Step {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Self::refuse(Refusal::Busy);
        }
        self.go(Phase::Looking, Effect::ReadEntry(self.stem.clone()))
    }

    /// Those who lost to the same winner would meet again; the attempt's own name spreads them out.
    fn pause_and_look(&mut self) -> Step {
        let spread = self.author.attempt.first_revision() >> (3 * self.rounds.min(8));
        let pause = Duration::from_millis((10 + spread % 60) * u64::from(self.rounds.max(1)));
        self.go(Phase::PausingBeforeLooking, Effect::Wait(pause))
    }

    fn granted(&self) -> Step {
        Next::Done(Ok(Admitted {
            place: self.record.as_ref().and_then(|record| record.portal.clone()),
            fresh: self.fresh,
            eviction: self.eviction.clone(),
            in_use: self.in_use,
        }))
    }

    // What there is.

    fn enter(&mut self, entry: Entry, context: &mut Context<'_>) -> Step {
        self.entry = entry;
        let slots = self.entry.slots.clone();
        let Some(slots) = slots.filter(|slots| slots.open && slots.counts == Counts::Connections) else {
            let mut opening = Opening::new(self.author.clone(), self.wish.max, Counts::Connections);
            let next = opening.advance(Input::Begin, context);
            return self.opening(opening, next);
        };
        self.in_use = slots.in_use;
        let active = self.entry.user.as_ref().and_then(UserRecord::active);
        if let Wanted::Link { reconnect, .. } = &self.wish.wanted {
            match active {
                None => return Next::Done(Err(NotAdmitted::NotRegistered)),
                Some(active) if active.secret_rejected => {
                    return Next::Done(Err(NotAdmitted::SecretRejected));
                }
                Some(_) if reconnect.is_some() => {
                    let own = Reconciling::new(self.stem.clone(), Purpose::Look, self.author.clone());
                    return self.checking(own, Input::Begin, context);
                }
                Some(_) => {}
            }
        }
        if self.wish.wanted == Wanted::Room {
            return self.take(&slots, context);
        }
        let record = self.entry.connections.clone();
        let stale = record.as_ref().is_some_and(|record| {
            let another = active.is_some_and(|active| {
                record
                    .upstream
                    .as_ref()
                    .is_some_and(|upstream| *upstream != active.upstream)
            });
            another || (record.epoch != slots.epoch && active.is_some())
        });
        if stale {
            return self.lapse(self.stem.clone(), context);
        }
        let portal = record
            .filter(|record| record.epoch == slots.epoch)
            .and_then(|record| record.portal);
        match portal {
            Some(portal) if timing::expired(portal.until, context.now) => {
                self.lapse(self.stem.clone(), context)
            }
            // Somebody may have used the link that was given under it, and its webhook not have been worked on.
            Some(portal)
                if portal.kind == PortalKind::Visit
                    && portal.attempt != self.author.attempt
                    && self.links()
                    && !self.compared =>
            {
                self.compared = true;
                self.lapse(self.stem.clone(), context)
            }
            Some(portal) => self.keep(portal, &slots, context),
            None => {
                if self.wish.wanted == Wanted::Hold
                    && let Some(refusal) = self.throttle(&slots, context.now)
                {
                    return Self::refuse(refusal);
                }
                self.take(&slots, context)
            }
        }
    }

    /// Whether a link is wanted.
    fn links(&self) -> bool {
        matches!(self.wish.wanted, Wanted::Link { .. })
    }

    fn opening(&mut self, opening: Opening, next: Next<Opened>) -> Step {
        match next {
            Next::Do(effect) => self.go(Phase::Opening(Box::new(opening)), effect),
            Next::Done(Opened::Open { author, .. }) => {
                self.author = author;
                self.look()
            }
            Next::Done(Opened::Fault(fault)) => Self::refuse(Refusal::Snaptrade(fault)),
            Next::Done(Opened::Unfinished { .. } | Opened::Busy) => Self::refuse(Refusal::Busy),
        }
    }

    /// Whether a hold may be given now.
    fn throttle(&self, slots: &Slots, now: Timestamp) -> Option<Refusal> {
        if let Some(last) = &self.entry.hold {
            let again = timing::after(last.until, HOLD_AGAIN);
            if again > now {
                return Some(Refusal::HoldsThrottled {
                    retry_after: timing::seconds_until(again, now),
                });
            }
        }
        let held: Vec<&HeldPortal> = slots
            .portals
            .values()
            .filter(|held| held.kind == PortalKind::Hold && !timing::expired(held.until, now))
            .collect();
        let most = usize::try_from(self.wish.max.div_ceil(2)).unwrap_or(usize::MAX);
        if held.len() < most {
            return None;
        }
        let free = held.iter().map(|held| held.until).min().unwrap_or(now);
        Some(Refusal::HoldsThrottled {
            retry_after: timing::seconds_until(timing::after(free, SKEW), now),
        })
    }

    // A repair takes no place.

    fn checking(&mut self, mut own: Reconciling, input: Input, context: &mut Context<'_>) -> Step {
        match own.advance(input, context) {
            Next::Do(effect) => self.go(Phase::Checking(Box::new(own)), effect),
            Next::Done(Reconciled::Done { record, author, .. }) => {
                self.author = author;
                let Wanted::Link {
                    reconnect: Some(reconnect),
                    ..
                } = &self.wish.wanted
                else {
                    return Self::refuse(Refusal::Busy);
                };
                let there = record
                    .as_ref()
                    .and_then(|record| record.ids.get(reconnect))
                    .is_some_and(|connection| connection.leaving.is_none());
                if !there {
                    return Next::Done(Err(NotAdmitted::NoSuchConnection));
                }
                self.note(None, true, context)
            }
            Next::Done(Reconciled::Nobody(_)) => Next::Done(Err(NotAdmitted::NotRegistered)),
            Next::Done(Reconciled::Rejected(_)) => Next::Done(Err(NotAdmitted::SecretRejected)),
            Next::Done(Reconciled::Unavailable(fault)) => Self::refuse(Refusal::Snaptrade(fault)),
            Next::Done(Reconciled::Busy) => Self::refuse(Refusal::Busy),
        }
    }

    /// Writes down that a link is given out, where no place changes by that.
    fn note(&mut self, record: Option<ConnectionsRecord>, at_once: bool, context: &Context<'_>) -> Step {
        let audit = vec![self.audit_of_wish()];
        let mut writes = self.writes_of_wish(context);
        if let Some(record) = &record {
            // The place has to be there still.
            writes.push(Write::Connections {
                stem: self.stem.clone(),
                expect: Expect::Revision(record.rev),
                becomes: Change::Same,
            });
        }
        let commit = self
            .author
            .commit("link", context.now, SlotsChange::None, writes, audit);
        self.go(
            Phase::Noting(record.map(Box::new), at_once),
            Effect::Commit(commit),
        )
    }

    // Places whose time has passed.

    fn lapse(&mut self, stem: Stem, context: &mut Context<'_>) -> Step {
        let looking = Reconciling::new(stem.clone(), Purpose::Look, self.author.clone());
        self.lapsing(stem, looking, Input::Begin, context)
    }

    fn lapsing(
        &mut self,
        stem: Stem,
        mut looking: Reconciling,
        input: Input,
        context: &mut Context<'_>,
    ) -> Step {
        match looking.advance(input, context) {
            Next::Do(effect) => self.go(Phase::Lapsing(stem, Box::new(looking)), effect),
            Next::Done(Reconciled::Done { author, .. } | Reconciled::Nobody(author)) => {
                self.author = author;
                self.look()
            }
            Next::Done(Reconciled::Rejected(_)) if stem == self.stem => {
                Next::Done(Err(NotAdmitted::SecretRejected))
            }
            Next::Done(Reconciled::Rejected(author)) => {
                // Nobody can tell what came of that visit; the place is given up with its user.
                self.author = author;
                self.skipped.insert(stem);
                self.look()
            }
            Next::Done(Reconciled::Unavailable(fault)) => Self::refuse(Refusal::Snaptrade(fault)),
            Next::Done(Reconciled::Busy) => self.pause_and_look(),
        }
    }

    /// The place of somebody else whose time passed longest ago.
    fn lapsed_place(&self, slots: &Slots, now: Timestamp) -> Option<Stem> {
        slots
            .portals
            .iter()
            .filter(|(stem, held)| timing::expired(held.until, now) && !self.skipped.contains(*stem))
            .min_by_key(|(stem, held)| (held.until, (*stem).clone()))
            .map(|(stem, _)| stem.clone())
    }

    // Ways to a place.

    /// The user's own place, under which another link is given out.
    fn keep(&mut self, portal: PortalPlace, slots: &Slots, context: &mut Context<'_>) -> Step {
        let Some(old) = self.entry.connections.clone() else {
            return self.look();
        };
        let at_once = fits(slots, self.wish.max);
        let until = timing::after(context.now, VISIT)
            .min(timing::after(portal.first, LONGEST_VISIT))
            .max(portal.until);
        let covered =
            portal.kind == PortalKind::Visit && portal.shared && timing::after(portal.until, SKEW) >= until;
        if self.wish.wanted == Wanted::Hold {
            return self.placed(old, true, context);
        }
        if covered {
            return self.note(Some(old), at_once, context);
        }
        let record = ConnectionsRecord {
            rev: old.rev + 1,
            portal: Some(PortalPlace {
                // A hold has given out no link yet.
                shared: portal.kind == PortalKind::Visit,
                kind: PortalKind::Visit,
                until,
                ..portal
            }),
            ..old
        };
        let transition = Transition::of(0).with_connections(ConnectionsChange {
            in_use: 0,
            leaving: 0,
            epoch: Some(slots.epoch),
        });
        self.write_place(
            "extend",
            record,
            transition,
            Vec::new(),
            Vec::new(),
            at_once,
            context,
        )
    }

    fn take(&mut self, slots: &Slots, context: &mut Context<'_>) -> Step {
        if slots.portals.len() >= MAX_VISITS && self.wish.wanted != Wanted::Room {
            return Self::refuse(Refusal::Busy);
        }
        if slots.in_use.saturating_add(slots.elsewhere) < self.wish.max {
            if self.wish.wanted == Wanted::Room {
                return self.granted();
            }
            let after = Slots {
                in_use: slots.in_use + 1,
                ..slots.clone()
            };
            let at_once = fits(&after, self.wish.max);
            // A link that is given out at once needs room beside what is leaving, too.
            let going = if at_once { slots.leaving } else { 0 };
            let transition = Transition::of(0)
                .guarded(Guard::RoomBeside {
                    max: self.wish.max.saturating_sub(going),
                    elsewhere: slots.elsewhere,
                    leaving: slots.leaving,
                })
                .with_connections(ConnectionsChange {
                    in_use: 1,
                    leaving: 0,
                    epoch: Some(slots.epoch),
                });
            self.fresh = true;
            let record = self.new_record(slots, None, context);
            return self.write_place(
                "visit",
                record,
                transition,
                Vec::new(),
                Vec::new(),
                at_once,
                context,
            );
        }
        if let Some(stem) = self.lapsed_place(slots, context.now) {
            return self.lapse(stem, context);
        }
        if self.wish.policy == Policy::None {
            return Self::refuse(Refusal::LimitReached { retry_after: None });
        }
        self.go(Phase::Nominating, Effect::ReadConnectionHolders(self.wish.policy))
    }

    /// The user's record with a place of this attempt's.
    fn new_record(&self, slots: &Slots, after: Option<Owed>, context: &Context<'_>) -> ConnectionsRecord {
        let old = self.entry.connections.as_ref();
        let counted = old.filter(|old| old.epoch == slots.epoch);
        let (kind, lasts) = match self.wish.wanted {
            Wanted::Link { .. } => (PortalKind::Visit, VISIT),
            Wanted::Hold | Wanted::Room => (PortalKind::Hold, HOLD),
        };
        let active = self.entry.user.as_ref().and_then(UserRecord::active);
        ConnectionsRecord {
            stem: self.stem.clone(),
            rev: old.map_or_else(|| self.author.attempt.first_revision(), |old| old.rev + 1),
            epoch: slots.epoch,
            upstream: active.map(|active| active.upstream.clone()),
            ids: counted.map(|old| old.ids.clone()).unwrap_or_default(),
            portal: Some(PortalPlace {
                attempt: self.author.attempt.clone(),
                kind,
                first: context.now,
                until: timing::after(context.now, lasts),
                shared: false,
                after,
            }),
            reconciled_at: counted.map_or(context.now, |old| old.reconciled_at),
        }
    }

    fn evict(&mut self, holders: &[ConnectionHolder], context: &mut Context<'_>) -> Step {
        let Some(slots) = self.entry.slots.clone() else {
            return self.look();
        };
        // Time has passed since the places were read.
        if let Some(stem) = self.lapsed_place(&slots, context.now) {
            return self.lapse(stem, context);
        }
        let eligible = self.without_excluded(holders);
        let Some(candidate) = candidates::choose(self.wish.policy, &eligible, context.now) else {
            let soonest = slots
                .portals
                .iter()
                .filter(|(stem, _)| !self.skipped.contains(*stem))
                .map(|(_, held)| timing::after(held.until, SKEW))
                .min();
            let retry_after = soonest.map(|at| timing::seconds_until(at, context.now));
            return Self::refuse(Refusal::LimitReached { retry_after });
        };
        let victim = candidate.holder.clone();
        let eviction = ConnectionEviction {
            user_id: victim.user.user_id.to_string(),
            connection: candidate.connection.cloned(),
            reason: candidate.reason,
            created_at: candidate.since,
        };
        let guard = Guard::FullBeside {
            max: self.wish.max,
            elsewhere: slots.elsewhere,
        };
        let transition = Transition::of(0)
            .guarded(guard)
            .noting(Some(eviction.noted(context.now)));
        self.last_eviction.clone_from(&slots.last_eviction);
        self.eviction = Some(eviction.clone());
        let above = slots.in_use.saturating_add(slots.elsewhere) > self.wish.max;
        if above || self.wish.wanted == Wanted::Room {
            return self.shrink(&slots, victim, context);
        }
        self.fresh = true;
        match eviction.connection {
            Some(id) => self.evict_connection(&slots, victim, id, transition, context),
            None => self.evict_user(&slots, victim, transition, context),
        }
    }

    /// Users of whom SnapTrade has just refused to delete a connection are left alone.
    fn without_excluded(&self, holders: &[ConnectionHolder]) -> Vec<ConnectionHolder> {
        let excluded =
            |holder: &&ConnectionHolder| holder.record.ids.keys().any(|id| self.excluded.contains(id));
        holders
            .iter()
            .filter(|holder| !excluded(holder))
            .cloned()
            .collect()
    }

    /// One connection goes and nobody has its place: there are more than the limit allows, or room is all that is
    /// wanted. Its deletion is sent once; the sync sees to the rest.
    fn shrink(&mut self, slots: &Slots, victim: ConnectionHolder, context: &Context<'_>) -> Step {
        let Some(eviction) = self.eviction.clone() else {
            return self.look();
        };
        let going = eviction.connection.clone();
        // Nobody else may have made room since.
        let transition = Transition::of(0)
            .guarded(Guard::Revision(slots.rev))
            .noting(Some(eviction.noted(context.now)));
        let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        let (transition, writes, effect) = match going {
            Some(id) => {
                let change = ConnectionsChange {
                    in_use: -1,
                    leaving: 1,
                    epoch: Some(slots.epoch),
                };
                let writes = leaving_writes(&victim, &id, context.now);
                let effect = Effect::DeleteConnection(Box::new(victim.user.clone()), id);
                (transition.with_connections(change), writes, effect)
            }
            None => {
                let Some(upstream) = victim.user.upstream().cloned() else {
                    return self.look();
                };
                let change = ConnectionsChange {
                    in_use: -number(victim.record.places()),
                    leaving: number(victim.record.departing()),
                    epoch: Some(slots.epoch),
                };
                let transition = transition
                    .with_connections(change)
                    .with_portal(&victim.user.stem, None);
                let writes = departing_writes(&self.author, &self.stem, &victim, &upstream, context.now);
                (transition, writes, Effect::Delete(upstream))
            }
        };
        let audit = self.audit_of_eviction(&victim);
        let commit = self
            .author
            .commit("shrink", context.now, transition, writes, audit);
        self.go(Phase::Shrinking(Box::new(effect)), Effect::Commit(commit))
    }

    fn evict_connection(
        &mut self,
        slots: &Slots,
        victim: ConnectionHolder,
        id: ConnectionId,
        transition: Transition,
        context: &mut Context<'_>,
    ) -> Step {
        let owed = Owed::Connection {
            stem: victim.user.stem.clone(),
            id: id.clone(),
        };
        let own = victim.user.stem == self.stem;
        let mut record = self.new_record(slots, Some(owed), context);
        let mut writes = Vec::new();
        if own {
            if self.entry.connections.as_ref().map(|old| old.rev) != Some(victim.record.rev) {
                return self.look();
            }
            leave(&mut record, &id, context.now);
        } else {
            writes = leaving_writes(&victim, &id, context.now);
        }
        let transition = transition.with_connections(ConnectionsChange {
            in_use: 0,
            leaving: 1,
            epoch: Some(slots.epoch),
        });
        let audit = self.audit_of_eviction(&victim);
        self.write_place("evict", record, transition, writes, audit, false, context)
    }

    fn evict_user(
        &mut self,
        slots: &Slots,
        victim: ConnectionHolder,
        transition: Transition,
        context: &mut Context<'_>,
    ) -> Step {
        let Some(upstream) = victim
            .user
            .upstream()
            .cloned()
            .filter(|_| victim.user.stem != self.stem)
        else {
            return self.look();
        };
        let writes = departing_writes(&self.author, &self.stem, &victim, &upstream, context.now);
        let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        let transition = transition
            .with_connections(ConnectionsChange {
                in_use: 1 - number(victim.record.places()),
                leaving: number(victim.record.departing()),
                epoch: Some(slots.epoch),
            })
            .with_portal(&victim.user.stem, None);
        let record = self.new_record(slots, Some(Owed::User(upstream)), context);
        let audit = self.audit_of_eviction(&victim);
        self.write_place("evict", record, transition, writes, audit, false, context)
    }

    fn audit_of_eviction(&self, victim: &ConnectionHolder) -> Vec<AuditEntry> {
        let Some(eviction) = &self.eviction else {
            return Vec::new();
        };
        let connection = eviction.connection.as_ref().map_or("all", ConnectionId::as_str);
        let detail = [
            ("evicted", eviction.user_id.as_str()),
            ("connection", connection),
            ("reason", eviction.reason.as_str()),
        ];
        let mut audit = vec![self.author.audit(&self.stem, "place.evicted", &detail)];
        if victim.user.stem != self.stem {
            audit.push(
                self.author
                    .audit(&victim.user.stem, "connection.evicted", &detail),
            );
        }
        audit
    }

    fn audit_of_wish(&self) -> AuditEntry {
        match &self.wish.wanted {
            Wanted::Link { detail, .. } => {
                let detail: Vec<(&str, &str)> = detail
                    .iter()
                    .map(|(name, text)| (name.as_str(), text.as_str()))
                    .collect();
                self.author.audit(&self.stem, "portal.link", &detail)
            }
            Wanted::Hold | Wanted::Room => self.author.audit(&self.stem, "place.held", &[]),
        }
    }

    /// What is written beside the place: for a link, that the user was seen and visits the portal; for a hold, that it
    /// was given.
    fn writes_of_wish(&self, context: &Context<'_>) -> Vec<Write> {
        let stem = self.stem.clone();
        let user = self.entry.user.as_ref();
        match &self.wish.wanted {
            Wanted::Link { reconnect, .. } => {
                let Some(active) = user.and_then(UserRecord::active) else {
                    return Vec::new();
                };
                let mut writes = vec![
                    Write::Seen {
                        stem: stem.clone(),
                        upstream: active.upstream.clone(),
                        // One's own connection does not give way either where the user is protected by now.
                        rev: user.map(|user| user.rev).filter(|_| self.eviction.is_some()),
                    },
                    Write::Visit {
                        stem: stem.clone(),
                        upstream: active.upstream.clone(),
                        reconnect: reconnect.clone(),
                    },
                ];
                if self.entry.hold.is_some() && reconnect.is_none() {
                    writes.push(Write::Hold {
                        stem,
                        becomes: Change::Gone,
                    });
                }
                writes
            }
            Wanted::Hold | Wanted::Room => vec![
                Write::User {
                    stem: stem.clone(),
                    expect: user.map_or(Expect::Absent, |user| Expect::Revision(user.rev)),
                    becomes: Change::Same,
                },
                Write::Hold {
                    stem,
                    becomes: Change::Put(Box::new(HoldRecord {
                        until: timing::after(context.now, HOLD),
                    })),
                },
            ],
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each of them is one part of the same transaction"
    )]
    fn write_place(
        &mut self,
        step: &str,
        record: ConnectionsRecord,
        transition: Transition,
        mut writes: Vec<Write>,
        mut audit: Vec<AuditEntry>,
        at_once: bool,
        context: &Context<'_>,
    ) -> Step {
        let old = self.entry.connections.as_ref();
        writes.push(Write::Connections {
            stem: self.stem.clone(),
            expect: old.map_or(Expect::Absent, |old| Expect::Revision(old.rev)),
            becomes: Change::Put(Box::new(record.clone())),
        });
        writes.extend(self.writes_of_wish(context));
        audit.push(self.audit_of_wish());
        let held = record.portal.as_ref().map(|portal| HeldPortal {
            until: portal.until,
            kind: portal.kind,
        });
        let transition = transition.with_portal(&self.stem, held);
        let commit = self.author.commit(step, context.now, transition, writes, audit);
        self.go(
            Phase::Taking(Box::new(record), commit.clone(), 1, at_once),
            Effect::Commit(commit),
        )
    }

    fn taken(
        &mut self,
        record: ConnectionsRecord,
        commit: &Commit,
        outcome: CommitOutcome,
        at_once: bool,
        context: &mut Context<'_>,
    ) -> Step {
        let obstacles = match outcome {
            CommitOutcome::Won => Vec::new(),
            CommitOutcome::Unknown => return Self::refuse(Refusal::Busy),
            CommitOutcome::Lost(obstacles) => obstacles,
        };
        let mine = obstacles.iter().any(|obstacle| {
            matches!(obstacle, Obstacle::Connections(stem, Some(theirs))
                if *stem == self.stem && theirs.portal == record.portal && theirs.rev == record.rev)
        });
        if mine || obstacles.is_empty() {
            if let SlotsChange::Transition(transition) = &commit.slots {
                self.in_use = self.in_use.saturating_add_signed(transition.in_use());
            }
            return self.placed(record, at_once, context);
        }
        self.eviction = None;
        self.fresh = false;
        self.pause_and_look()
    }

    // What gave way has to be gone.

    fn placed(&mut self, record: ConnectionsRecord, at_once: bool, context: &mut Context<'_>) -> Step {
        let owes = record
            .portal
            .as_ref()
            .is_some_and(|portal| portal.after.is_some());
        self.record = Some(record);
        match (owes, at_once) {
            (true, _) => self.owed(context),
            (false, true) => self.granted(),
            (false, false) => self.gate(),
        }
    }

    fn owed(&mut self, context: &mut Context<'_>) -> Step {
        let owed = self
            .record
            .as_ref()
            .and_then(|record| record.portal.as_ref())
            .and_then(|portal| portal.after.clone());
        match owed {
            None => self.gate(),
            Some(Owed::Connection { stem, .. }) => self.go(Phase::ReadingOwed, Effect::ReadEntry(stem)),
            Some(Owed::User(upstream)) => {
                let departed = Departed::new(upstream, true, self.author.clone());
                self.departing(departed, Input::Begin, context)
            }
        }
    }

    fn departing(&mut self, mut departed: Departed, input: Input, context: &mut Context<'_>) -> Step {
        match departed.advance(input, context) {
            Next::Do(effect) => self.go(Phase::Departing(Box::new(departed)), effect),
            Next::Done(Departure::Gone(author) | Departure::Pending(author)) => {
                self.author = author;
                self.gate()
            }
            Next::Done(Departure::Unavailable(fault, _)) => Self::refuse(Refusal::Snaptrade(fault)),
        }
    }

    fn read_owed(&mut self, entry: Entry, context: &mut Context<'_>) -> Step {
        let Some((stem, id)) = self.owed_connection() else {
            return self.gate();
        };
        let leaving = entry.connections.filter(|record| {
            record
                .ids
                .get(&id)
                .is_some_and(|connection| connection.leaving.is_some())
        });
        let user = entry
            .user
            .filter(|user| user.active().is_some_and(|active| !active.secret_rejected));
        let (Some(record), Some(user)) = (leaving, user) else {
            return self.gate();
        };
        if self.sent {
            let looking = Reconciling::new(stem, Purpose::Look, self.author.clone());
            return self.looking_after(looking, Input::Begin, context);
        }
        if !timing::may_call(Timestamp::MAX, context.deadline, context.now) {
            return Self::refuse(Refusal::DeletionPending { retry_after: PENDING });
        }
        self.sends += 1;
        self.go(
            Phase::Disconnecting(Box::new(user.clone()), Box::new(record)),
            Effect::DeleteConnection(Box::new(user), id),
        )
    }

    fn owed_connection(&self) -> Option<(Stem, ConnectionId)> {
        let portal = self.record.as_ref()?.portal.as_ref()?;
        match portal.after.clone()? {
            Owed::Connection { stem, id } => Some((stem, id)),
            Owed::User(_) => None,
        }
    }

    fn disconnected(
        &mut self,
        user: UserRecord,
        record: ConnectionsRecord,
        disconnection: Disconnection,
        context: &mut Context<'_>,
    ) -> Step {
        match disconnection {
            Disconnection::SecretRejected => self.go(
                Phase::NotingRejection(Box::new(record)),
                Effect::NoteRejected(Box::new(user)),
            ),
            Disconnection::Answered(Deletion::Queued | Deletion::NotThere) => {
                self.sent = true;
                let looking = Reconciling::new(user.stem, Purpose::Look, self.author.clone());
                self.looking_after(looking, Input::Begin, context)
            }
            Disconnection::Answered(Deletion::Refused(Fault::RateLimited(wait)))
                if self.sends < MAX_SENDS && wait <= SHORT_WAIT =>
            {
                self.go(Phase::PausingBeforeDisconnecting, Effect::Wait(wait))
            }
            Disconnection::Answered(Deletion::Refused(fault)) => self.undo(&record, Some(fault), context),
            Disconnection::Answered(Deletion::Unknown(fault)) => {
                self.uncertain = true;
                let pause = Duration::from_millis(200_u64 << self.sends.min(4));
                let later = timing::after(context.now, pause);
                if self.sends < MAX_SENDS && timing::may_call(Timestamp::MAX, context.deadline, later) {
                    return self.go(Phase::PausingBeforeDisconnecting, Effect::Wait(pause));
                }
                Self::refuse(Refusal::Snaptrade(fault))
            }
        }
    }

    /// Puts back the connection that was to give way, where SnapTrade refused its deletion for certain and nobody else
    /// can have sent it: it was chosen just now.
    fn undo(&mut self, theirs: &ConnectionsRecord, fault: Option<Fault>, context: &Context<'_>) -> Step {
        let refusal = fault.clone().map_or(
            Refusal::DeletionPending { retry_after: PENDING },
            Refusal::Snaptrade,
        );
        let (Some((_, id)), Some(mine), Some(slots)) = (
            self.owed_connection(),
            self.record.clone(),
            self.entry.slots.clone(),
        ) else {
            return Self::refuse(refusal);
        };
        if !self.fresh || self.eviction.is_none() || self.uncertain {
            tracing::error!(
                alarm = "deletion_refused",
                "SnapTrade does not let a connection go; the place that it left may not be used yet"
            );
            return Self::refuse(refusal);
        }
        let own = theirs.stem == self.stem;
        let mut back = theirs.clone();
        back.rev += 1;
        if let Some(connection) = back.ids.get_mut(&id) {
            connection.leaving = None;
        }
        let mut writes = vec![Write::Connections {
            stem: theirs.stem.clone(),
            expect: Expect::Revision(theirs.rev),
            becomes: Change::Put(Box::new(if own {
                ConnectionsRecord { portal: None, ..back }
            } else {
                back
            })),
        }];
        if !own {
            writes.push(Write::Connections {
                stem: self.stem.clone(),
                expect: Expect::Revision(mine.rev),
                becomes: Change::Put(Box::new(ConnectionsRecord {
                    rev: mine.rev + 1,
                    portal: None,
                    ..mine
                })),
            });
        }
        if self.wish.wanted == Wanted::Hold {
            writes.push(Write::Hold {
                stem: self.stem.clone(),
                becomes: Change::Gone,
            });
        }
        let transition = Transition::of(0)
            .with_connections(ConnectionsChange {
                in_use: 0,
                leaving: -1,
                epoch: Some(slots.epoch),
            })
            .with_portal(&self.stem, None)
            .noting(self.last_eviction.clone());
        let audit = vec![self.author.audit(
            &theirs.stem,
            "connection.restored",
            &[("connection", id.as_str())],
        )];
        self.excluded.insert(id.clone());
        let commit = self.author.commit("undo", context.now, transition, writes, audit);
        self.go(Phase::Undoing(fault), Effect::Commit(commit))
    }

    fn undone(&mut self, fault: Option<Fault>, outcome: &CommitOutcome, context: &mut Context<'_>) -> Step {
        let refusal = fault.clone().map_or(Refusal::Busy, Refusal::Snaptrade);
        if *outcome != CommitOutcome::Won {
            return Self::refuse(refusal);
        }
        self.record = None;
        self.eviction = None;
        self.fresh = false;
        self.sends = 0;
        self.undone += 1;
        // Another may be asked to give way, where the refusal was about this one and not about us.
        let about_the_connection = matches!(fault, None | Some(Fault::Error)) && self.undone == 1;
        if !about_the_connection || !timing::may_call(Timestamp::MAX, context.deadline, context.now) {
            return Self::refuse(refusal);
        }
        if fault.is_none() {
            // It was the secret: the user goes as a whole, this connection included.
            self.excluded.clear();
        }
        let Author { actor, counts, .. } = self.author.clone();
        self.author = Author::new((context.draw)(), actor).counting(counts);
        self.look()
    }

    fn looking_after(&mut self, mut looking: Reconciling, input: Input, context: &mut Context<'_>) -> Step {
        match looking.advance(input, context) {
            Next::Do(effect) => self.go(Phase::LookingAfter(Box::new(looking)), effect),
            Next::Done(
                Reconciled::Done { author, .. } | Reconciled::Nobody(author) | Reconciled::Rejected(author),
            ) => {
                self.author = author;
                self.gate()
            }
            // Whether it is gone is seen when it is looked for again.
            Next::Done(Reconciled::Unavailable(_) | Reconciled::Busy) => self.gate(),
        }
    }

    /// What waits may be over already, where nobody has looked since: an event was lost. Once in a request all of those
    /// are looked after whose connections are leaving.
    fn help(&mut self, context: &mut Context<'_>) -> Step {
        let Some(others) = &mut self.others else {
            return self.go(Phase::ReadingLeaving, Effect::ReadBooks);
        };
        let later = timing::after(context.now, CALL);
        match others
            .pop()
            .filter(|_| timing::may_call(Timestamp::MAX, context.deadline, later))
        {
            Some(stem) => {
                let looking = Reconciling::new(stem, Purpose::Look, self.author.clone());
                self.looking_after(looking, Input::Begin, context)
            }
            None => {
                self.others = Some(Vec::new());
                self.gate()
            }
        }
    }

    /// The last look: nobody gets a link while places and connections that are leaving are more than the limit.
    fn gate(&mut self) -> Step {
        self.go(Phase::Gating, Effect::ReadEntry(self.stem.clone()))
    }

    fn gated(&mut self, entry: Entry, context: &mut Context<'_>) -> Step {
        let mine = self.record.as_ref().and_then(|record| record.portal.as_ref());
        let there = entry
            .connections
            .as_ref()
            .filter(|record| record.portal.as_ref() == mine && mine.is_some())
            .cloned();
        let (Some(record), Some(slots)) = (there, entry.slots) else {
            // It was used, extended or taken since.
            self.eviction = None;
            self.fresh = false;
            return self.look();
        };
        self.record = Some(record);
        self.in_use = slots.in_use;
        if self.wish.wanted == Wanted::Hold || fits(&slots, self.wish.max) {
            return self.granted();
        }
        if self.others.as_ref().is_none_or(|others| !others.is_empty()) && self.waits > 0 {
            return self.help(context);
        }
        let pause = Duration::from_millis((250_u64 << self.waits.min(3)).min(2_000));
        self.waits += 1;
        // After this there is a look at SnapTrade, and then the link.
        let later = timing::after(timing::after(context.now, pause), CALL);
        if timing::may_call(Timestamp::MAX, context.deadline, later) {
            return self.go(Phase::PausingBeforeGate, Effect::Wait(pause));
        }
        Self::refuse(Refusal::DeletionPending { retry_after: PENDING })
    }
}

/// Whether places and connections that are leaving are within the limit together.
fn fits(slots: &Slots, max: u32) -> bool {
    slots
        .in_use
        .saturating_add(slots.leaving)
        .saturating_add(slots.elsewhere)
        <= max
}

/// What marks a connection as leaving, of a user who is neither protected nor registered anew since it was read.
fn leaving_writes(victim: &ConnectionHolder, id: &ConnectionId, now: Timestamp) -> Vec<Write> {
    let mut theirs = ConnectionsRecord {
        rev: victim.record.rev + 1,
        ..victim.record.clone()
    };
    leave(&mut theirs, id, now);
    vec![
        Write::Connections {
            stem: theirs.stem.clone(),
            expect: Expect::Revision(victim.record.rev),
            becomes: Change::Put(Box::new(theirs)),
        },
        Write::User {
            stem: victim.user.stem.clone(),
            expect: Expect::Revision(victim.user.rev),
            becomes: Change::Same,
        },
    ]
}

/// What makes a ghost of a whole user, which remembers how many connections go with it.
fn departing_writes(
    author: &Author,
    stem: &Stem,
    victim: &ConnectionHolder,
    upstream: &UpstreamId,
    now: Timestamp,
) -> Vec<Write> {
    let ghost = Ghost {
        waits: None,
        connections: victim.record.departing().saturating_add(victim.record.leaving()),
        ..new_ghost(author, upstream, stem, None, now)
    };
    vec![
        Write::User {
            stem: victim.user.stem.clone(),
            expect: Expect::Revision(victim.user.rev),
            becomes: Change::Gone,
        },
        Write::Connections {
            stem: victim.user.stem.clone(),
            expect: Expect::Revision(victim.record.rev),
            becomes: Change::Gone,
        },
        put_new_ghost(&ghost),
    ]
}

fn leave(record: &mut ConnectionsRecord, id: &ConnectionId, now: Timestamp) {
    if let Some(connection) = record.ids.get_mut(id) {
        connection.leaving = Some(now);
    }
}

impl Machine for Admission {
    type Output = Result<Admitted, NotAdmitted>;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Step {
        match (std::mem::replace(&mut self.phase, Phase::Start), input) {
            (Phase::Start, Input::Begin) | (Phase::PausingBeforeLooking, Input::Waited) => self.look(),
            (Phase::Looking, Input::Begin) => {
                let entry = std::mem::take(&mut self.entry);
                self.enter(entry, context)
            }
            (Phase::Looking, Input::Entry(entry)) => self.enter(*entry, context),
            (Phase::Opening(mut opening), input) => {
                let next = opening.advance(input, context);
                self.opening(*opening, next)
            }
            (Phase::Checking(own), input) => self.checking(*own, input, context),
            (Phase::Lapsing(stem, looking), input) => self.lapsing(stem, *looking, input, context),
            (Phase::Nominating, Input::ConnectionHolders(holders)) => self.evict(&holders, context),
            (Phase::Taking(record, commit, sends, at_once), Input::Committed(CommitOutcome::Unknown))
                if sends < MAX_COMMITS =>
            {
                // The same commit under the same token is not made twice.
                self.go(
                    Phase::Taking(record, commit.clone(), sends + 1, at_once),
                    Effect::Commit(commit),
                )
            }
            (Phase::Taking(record, commit, _, at_once), Input::Committed(outcome)) => {
                self.taken(*record, &commit, outcome, at_once, context)
            }
            (Phase::Noting(record, at_once), Input::Committed(CommitOutcome::Won)) => match record {
                Some(record) => self.placed(*record, at_once, context),
                None => self.granted(),
            },
            (Phase::Noting(..), Input::Committed(CommitOutcome::Lost(_))) => self.pause_and_look(),
            (Phase::Shrinking(effect), Input::Committed(CommitOutcome::Won)) => {
                if !timing::may_call(Timestamp::MAX, context.deadline, context.now) {
                    return self.look();
                }
                self.go(Phase::Disposing, *effect)
            }
            (Phase::Shrinking(_), Input::Committed(_)) => {
                self.eviction = None;
                self.pause_and_look()
            }
            (Phase::Disposing, Input::ConnectionDeleted(_) | Input::Deleted(_)) => match self.wish.wanted {
                Wanted::Room => self.granted(),
                _ => self.look(),
            },
            (Phase::ReadingOwed, Input::Entry(entry)) => self.read_owed(*entry, context),
            (Phase::Disconnecting(user, record), Input::ConnectionDeleted(disconnection)) => {
                self.disconnected(*user, *record, disconnection, context)
            }
            (Phase::PausingBeforeDisconnecting, Input::Waited) => self.owed(context),
            (Phase::NotingRejection(record), Input::Noted) => self.undo(&record, None, context),
            (Phase::Undoing(fault), Input::Committed(outcome)) => self.undone(fault, &outcome, context),
            (Phase::LookingAfter(looking), input) => self.looking_after(*looking, input, context),
            (Phase::Departing(departed), input) => self.departing(*departed, input, context),
            (Phase::Gating, Input::Entry(entry)) => self.gated(*entry, context),
            (Phase::PausingBeforeGate, Input::Waited) => self.owed(context),
            (Phase::ReadingLeaving, Input::Books(books)) => {
                let own = self.owed_connection().map(|(stem, _)| stem);
                let leaving = books
                    .records
                    .into_iter()
                    .filter(|record| record.leaving() > 0 && Some(&record.stem) != own.as_ref())
                    .map(|record| record.stem);
                self.others = Some(leaving.collect());
                self.help(context)
            }
            _ => Self::refuse(Refusal::Busy),
        }
    }
}
