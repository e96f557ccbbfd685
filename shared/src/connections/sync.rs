//! Bringing what is tracked in line with what SnapTrade lists, and finishing what was interrupted.
//!
//! A run reads the rows first and the list after them, so that an id which the list has and no row names was not
//! being registered when the list was read. Every step is a conditional write on what was read; two runs at once are
//! safe, the lease only saves work. Nothing is removed on the list's word alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::adoption::{Adopted, Adoption};
use super::clearing::{Cleared, Clearing, deletion_refused};
use super::counting::departed::without_its_connections;
use super::counting::upkeep::Upkeep;
use super::machine::{
    AuditEntry, Author, Books, Change, CommitOutcome, Context, Effect, Expect, Fault, Input, Machine, Next,
    Roster, SlotsChange, Transition, Write,
};
use super::opening::{Opened, Opening, anew, unknown_ids};
use super::records::{
    ConnectionsRecord, DoubtedList, ForeignRecord, Ghost, GhostState, HeldPlace, Holder, Slots, SyncRecord,
    UserRecord, UserState,
};
use super::timing::{self, LEASE, LIST_AGE};
use super::vanishing::{Vanished, Vanishing};
use super::writes::{Inherited, accept, inherit, put_ghost};
use crate::config::Counts;
use crate::ids::UpstreamId;

/// How long SnapTrade may take over a deletion that it accepted before an operator should look.
const DELETION_ALARM: Duration = Duration::from_secs(3600);

/// How long to wait before the places are counted again: the index may lag behind.
const RECOUNT_PAUSE: Duration = Duration::from_secs(1);

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct Synced {
    /// Ids that SnapTrade had and tracking did not.
    pub added: u32,
    /// Users that tracking had and SnapTrade did not.
    pub removed: u32,
    /// Interrupted operations that were finished or undone.
    pub repaired: u32,
    /// Ids in SnapTrade's list.
    pub upstream_count: u32,
    /// Users tracked after the run.
    pub tracked_count: u32,
    /// Whether the run came to its end; otherwise the next one goes on.
    pub complete: bool,
}

/// Why a run did nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotSynced {
    /// Another run is under way.
    #[error("another sync is under way")]
    Running {
        /// Seconds after which its lease ends.
        retry_after: u64,
    },
    /// SnapTrade's list could not be had.
    #[error("SnapTrade could not be used: {0:?}")]
    Snaptrade(Fault),
    /// The store did not answer, or others changed the places all the time.
    #[error("the store did not answer")]
    Busy,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sync {
    author: Author,
    max: u32,
    counts: Counts,
    lease: Option<SyncRecord>,
    result: Synced,
    roster: Roster,
    list: Vec<UpstreamId>,
    work: VecDeque<Work>,
    stopped: bool,
    doubted: Option<DoubtedList>,
    believed: bool,
    recounts: u32,
    /// Whether the connections were looked after.
    kept: bool,
    /// The rows of the count that is under way.
    recounting: Option<Box<Roster>>,
    counted: Option<(u64, u32)>,
    ending: Option<NotSynced>,
    phase: Phase,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    /// A reservation that ran out of time: clear what it owes and free its place.
    Retire(Box<UserRecord>),
    /// A ghost that no live reservation waits for: delete it.
    Delete(Box<Ghost>),
    /// A ghost whose deletion was accepted and that is listed still or again: send the deletion once more.
    Resend(Box<Ghost>),
    /// A ghost that is listed no more.
    Forget(Box<Ghost>),
    /// A ghost whose id somebody else uses again.
    Release(Box<Ghost>),
    /// Ids that nobody here knows.
    Adopt(Vec<(u32, UpstreamId)>),
    /// An active user that is not listed.
    Vanished(Box<UserRecord>),
    /// A foreign one that is not listed.
    Missing(Box<ForeignRecord>),
    /// A foreign one that is listed again.
    Found(Box<ForeignRecord>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Start,
    ReadingLease,
    TakingLease(Box<SyncRecord>),
    Opening(Box<Opening>),
    ReadingRows,
    Listing,
    Rereading(Box<UserRecord>),
    RetiringOwn(Box<UserRecord>, Vec<Ghost>),
    ClearingRetired(Box<UserRecord>, Vec<Ghost>, Box<Clearing>),
    Freeing,
    TakingGhost(Box<Ghost>),
    DeletingGhost(Box<Ghost>, Box<Clearing>),
    Resending(Box<Ghost>, Box<Clearing>),
    Adopting(Box<Adoption>),
    Vanishing(Box<Vanishing>),
    Writing(Counted),
    Keeping(Box<Upkeep>),
    Recounting,
    RecountingConnections,
    PausingBeforeRecount,
    Closing,
    Returning,
}

/// What a commit adds to the result when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    Nothing,
    Removed,
    Repaired,
}

type Step = Next<Result<Synced, NotSynced>>;

impl Sync {
    /// A run under the name of `author`.
    #[must_use]
    pub fn new(author: Author, max: u32, counts: Counts) -> Self {
        Self {
            author,
            max,
            counts,
            lease: None,
            result: Synced::default(),
            roster: Roster::default(),
            list: Vec::new(),
            work: VecDeque::new(),
            stopped: false,
            doubted: None,
            believed: false,
            recounts: 0,
            kept: false,
            recounting: None,
            counted: None,
            ending: None,
            phase: Phase::Start,
        }
    }

    fn go(&mut self, phase: Phase, effect: Effect) -> Step {
        self.phase = phase;
        Next::Do(effect)
    }

    fn until(&self) -> Timestamp {
        self.lease.as_ref().map_or(Timestamp::MIN, |lease| lease.until)
    }

    fn has_time(&self, context: &Context<'_>) -> bool {
        timing::may_call(self.until(), context.deadline, context.now)
    }

    // The lease.

    fn take_lease(&mut self, record: Option<SyncRecord>, context: &Context<'_>) -> Step {
        if let Some(record) = &record
            && !timing::expired(record.until, context.now)
        {
            let free = timing::after(record.until, timing::SKEW);
            let retry_after = timing::seconds_until(free, context.now);
            return Next::Done(Err(NotSynced::Running { retry_after }));
        }
        let expect = record
            .as_ref()
            .map_or(Expect::Absent, |record| Expect::Revision(record.rev));
        let lease = SyncRecord {
            rev: record
                .as_ref()
                .map_or_else(|| self.author.attempt.first_revision(), |record| record.rev + 1),
            run: self.author.attempt.clone(),
            until: timing::after(context.now, LEASE),
            list_size: record.as_ref().map_or(0, |record| record.list_size),
            doubted: record.as_ref().and_then(|record| record.doubted.clone()),
            completed_at: record.and_then(|record| record.completed_at),
        };
        let writes = vec![Write::Sync {
            expect,
            becomes: Box::new(lease.clone()),
        }];
        let commit = self
            .author
            .commit("lease", context.now, SlotsChange::None, writes, Vec::new());
        self.go(Phase::TakingLease(Box::new(lease)), Effect::Commit(commit))
    }

    fn return_lease(&mut self, context: &Context<'_>) -> Step {
        let Some(lease) = self.lease.clone() else {
            return self.finish();
        };
        let becomes = SyncRecord {
            rev: lease.rev + 1,
            until: Timestamp::UNIX_EPOCH,
            list_size: if self.believed {
                self.result.upstream_count
            } else {
                lease.list_size
            },
            doubted: self.doubted.clone(),
            completed_at: if self.result.complete {
                Some(context.now)
            } else {
                lease.completed_at
            },
            ..lease.clone()
        };
        let writes = vec![Write::Sync {
            expect: Expect::Revision(lease.rev),
            becomes: Box::new(becomes),
        }];
        let commit = self
            .author
            .commit("return", context.now, SlotsChange::None, writes, Vec::new());
        self.go(Phase::Returning, Effect::Commit(commit))
    }

    fn finish(&mut self) -> Step {
        Next::Done(self.ending.take().map_or(Ok(self.result), Err))
    }

    fn fail(&mut self, reason: NotSynced, context: &Context<'_>) -> Step {
        self.ending = Some(reason);
        self.return_lease(context)
    }

    // Opening, and reading the rows and then the list.

    fn opening(&mut self, opening: Opening, next: Next<Opened>, context: &Context<'_>) -> Step {
        match next {
            Next::Do(effect) => self.go(Phase::Opening(Box::new(opening)), effect),
            Next::Done(Opened::Open { author, adopted }) => {
                self.author = author;
                self.result.added += adopted;
                self.go(Phase::ReadingRows, Effect::ReadRoster)
            }
            Next::Done(Opened::Fault(fault)) => self.fail(NotSynced::Snaptrade(fault), context),
            Next::Done(Opened::Busy) => self.fail(NotSynced::Busy, context),
        }
    }

    fn plan(&mut self, list: Vec<UpstreamId>, context: &mut Context<'_>) -> Step {
        self.list = list;
        self.result.upstream_count = count(self.list.len());
        self.believe(context.now);
        let held = self
            .roster
            .slots
            .as_ref()
            .map(|slots| slots.held.clone())
            .unwrap_or_default();
        self.work = plan(&self.roster, &self.list, &held, self.believed, context.now).into();
        self.next(context)
    }

    /// A list that is empty or under half of the last is believed when a second one, a while later, says the same.
    fn believe(&mut self, now: Timestamp) {
        let Some(lease) = &self.lease else { return };
        let digest = digest(&self.list);
        // A list that still has everybody who is tracked is short because of our own deletions.
        let listed: BTreeSet<&UpstreamId> = self.list.iter().collect();
        let lacks_somebody = self.roster.holders.iter().any(|holder| {
            let reserved = matches!(holder, Holder::User(user) if user.reservation().is_some());
            !reserved && holder.upstream().is_some_and(|id| !listed.contains(id))
        });
        let short = lacks_somebody && u64::from(self.result.upstream_count) * 2 < u64::from(lease.list_size);
        let confirmed = lease
            .doubted
            .as_ref()
            .is_some_and(|doubted| doubted.digest == digest && timing::between(doubted.at, now) >= LIST_AGE);
        self.believed = !short || confirmed;
        self.doubted = None;
        if !self.believed {
            tracing::warn!(
                listed = self.result.upstream_count,
                before = lease.list_size,
                "SnapTrade's list is far shorter than the last; nothing is removed until a second one agrees"
            );
            let first = lease.doubted.clone().filter(|doubted| doubted.digest == digest);
            self.doubted = Some(first.unwrap_or(DoubtedList { at: now, digest }));
        }
    }

    // One piece of work after the other.

    fn next(&mut self, context: &mut Context<'_>) -> Step {
        if !self.has_time(context) {
            self.stopped |= !self.work.is_empty();
            return self.recount();
        }
        let Some(work) = self.work.pop_front() else {
            return self.keep(context);
        };
        match work {
            Work::Retire(user) => {
                let stem = user.stem.clone();
                self.go(Phase::Rereading(user), Effect::ReadReservation(stem))
            }
            Work::Delete(ghost) => self.take_ghost(*ghost, context),
            Work::Resend(ghost) => self.resend(*ghost, context),
            Work::Forget(ghost) => self.forget(&ghost, context),
            Work::Release(ghost) => {
                let writes = vec![Write::Ghost {
                    upstream: ghost.upstream.clone(),
                    expect: Expect::Revision(ghost.rev),
                    becomes: Change::Gone,
                }];
                self.write(
                    "release",
                    SlotsChange::None,
                    writes,
                    Vec::new(),
                    Counted::Nothing,
                    context.now,
                )
            }
            Work::Adopt(unknown) => {
                let mut adoption = Adoption::new(self.author.clone(), unknown);
                let next = adoption.advance(Input::Begin, context);
                self.adopting(adoption, next, context)
            }
            Work::Vanished(user) => {
                let mut vanishing = Vanishing::new(*user, self.author.clone());
                let next = vanishing.advance(Input::Begin, context);
                self.vanishing(vanishing, next, context)
            }
            Work::Missing(foreign) => self.missing(&foreign, context),
            Work::Found(foreign) => {
                let found = ForeignRecord {
                    rev: foreign.rev + 1,
                    missing_since: None,
                    ..(*foreign).clone()
                };
                self.write_foreign(
                    &foreign,
                    Change::Put(Box::new(found)),
                    0,
                    Counted::Nothing,
                    context,
                )
            }
        }
    }

    fn write(
        &mut self,
        step: &str,
        slots: impl Into<SlotsChange>,
        writes: Vec<Write>,
        audit: Vec<AuditEntry>,
        counted: Counted,
        at: Timestamp,
    ) -> Step {
        let commit = self.author.commit(step, at, slots, writes, audit);
        self.go(Phase::Writing(counted), Effect::Commit(commit))
    }

    /// Takes an expired reservation over, so that nobody else clears it at the same time.
    fn retire(&mut self, user: &UserRecord, ghosts: &[Ghost], context: &mut Context<'_>) -> Step {
        let Some(reservation) = user.reservation() else {
            return self.next(context);
        };
        if !user.is_expired(context.now) {
            return self.next(context);
        }
        let stem = user.stem.clone();
        let Inherited {
            after,
            ghosts,
            mut writes,
        } = inherit(&self.author, &stem, reservation, ghosts, context.now);
        let mut record = user.clone();
        record.rev += 1;
        let UserState::Reserved(mine) = &mut record.state else {
            return self.next(context);
        };
        mine.attempt = self.author.attempt.clone();
        mine.until = self.until();
        mine.held_until = None;
        mine.refused_at = None;
        mine.upstream = None;
        mine.after = after;
        let held = mine.held_place();
        writes.push(Write::User {
            stem: stem.clone(),
            expect: Expect::Revision(user.rev),
            becomes: Change::Put(Box::new(record.clone())),
        });
        let slots = Transition::of(0).holding(&stem, held);
        let audit = vec![self.author.audit(&stem, "place.retired", &[])];
        let commit = self.author.commit("retire", context.now, slots, writes, audit);
        self.go(
            Phase::RetiringOwn(Box::new(record), ghosts),
            Effect::Commit(commit),
        )
    }

    fn clearing_retired(
        &mut self,
        user: UserRecord,
        ghosts: Vec<Ghost>,
        clearing: Clearing,
        next: Next<Cleared>,
        context: &mut Context<'_>,
    ) -> Step {
        match next {
            Next::Do(effect) => self.go(
                Phase::ClearingRetired(Box::new(user), ghosts, Box::new(clearing)),
                effect,
            ),
            Next::Done(Cleared::All { .. }) => {
                let stem = user.stem.clone();
                let mut writes: Vec<Write> = ghosts.iter().map(|ghost| accept(ghost, context.now)).collect();
                writes.push(Write::User {
                    stem: stem.clone(),
                    expect: Expect::Revision(user.rev),
                    becomes: Change::Gone,
                });
                let slots = Transition::of(-1).releasing(&stem);
                let audit = vec![self.author.audit(&stem, "place.released", &[])];
                let commit = self.author.commit("free", context.now, slots, writes, audit);
                self.go(Phase::Freeing, Effect::Commit(commit))
            }
            Next::Done(other) => {
                tracing::warn!(outcome = ?other, "a place could not be cleared; the next sync goes on with it");
                self.stopped = true;
                self.let_go(user, refused(&other, context.now), context)
            }
        }
    }

    /// Gives a place that could not be cleared back to whoever comes next.
    fn let_go(
        &mut self,
        mut user: UserRecord,
        refused_at: Option<Timestamp>,
        context: &mut Context<'_>,
    ) -> Step {
        let stem = user.stem.clone();
        let expect = Expect::Revision(user.rev);
        user.rev += 1;
        let UserState::Reserved(reservation) = &mut user.state else {
            return self.next(context);
        };
        reservation.until = Timestamp::UNIX_EPOCH;
        reservation.refused_at = refused_at;
        let held = reservation.held_place();
        let slots = Transition::of(0).holding(&stem, held).giving_up();
        let writes = vec![Write::User {
            stem: stem.clone(),
            expect,
            becomes: Change::Put(Box::new(user)),
        }];
        let audit = vec![self.author.audit(&stem, "place.given_up", &[])];
        self.write("letgo", slots, writes, audit, Counted::Nothing, context.now)
    }

    /// Makes a due ghost this run's before its deletion is sent, so that nobody undoes it any more.
    fn take_ghost(&mut self, ghost: Ghost, context: &Context<'_>) -> Step {
        let taken = Ghost {
            rev: ghost.rev + 1,
            by: self.author.attempt.clone(),
            waits: None,
            was: None,
            ..ghost.clone()
        };
        let writes = vec![put_ghost(ghost.rev, &taken)];
        let commit = self
            .author
            .commit("ghost", context.now, SlotsChange::None, writes, Vec::new());
        self.go(Phase::TakingGhost(Box::new(taken)), Effect::Commit(commit))
    }

    fn deleting_ghost(
        &mut self,
        ghost: Ghost,
        clearing: Clearing,
        next: Next<Cleared>,
        context: &mut Context<'_>,
    ) -> Step {
        match next {
            Next::Do(effect) => self.go(Phase::DeletingGhost(Box::new(ghost), Box::new(clearing)), effect),
            Next::Done(Cleared::All { .. }) => {
                let writes = vec![accept(&ghost, context.now)];
                self.write(
                    "accepted",
                    SlotsChange::None,
                    writes,
                    Vec::new(),
                    Counted::Repaired,
                    context.now,
                )
            }
            Next::Done(other) => {
                self.stopped = true;
                let Some(refused_at) = refused(&other, context.now) else {
                    return self.next(context);
                };
                let noted = Ghost {
                    rev: ghost.rev + 1,
                    refused_at: Some(refused_at),
                    ..ghost.clone()
                };
                self.write(
                    "refused",
                    SlotsChange::None,
                    vec![put_ghost(ghost.rev, &noted)],
                    Vec::new(),
                    Counted::Nothing,
                    context.now,
                )
            }
        }
    }

    fn resend(&mut self, ghost: Ghost, context: &mut Context<'_>) -> Step {
        if ghost
            .accepted_at
            .is_some_and(|at| timing::between(at, context.now) >= DELETION_ALARM)
        {
            tracing::error!(
                alarm = "deletion_overdue",
                "SnapTrade accepted a deletion over an hour ago and lists the id still"
            );
        }
        let mut clearing = Clearing::new(std::slice::from_ref(&ghost.upstream), self.until());
        let next = clearing.advance(Input::Begin, context);
        self.resending(ghost, clearing, next, context)
    }

    fn resending(
        &mut self,
        ghost: Ghost,
        clearing: Clearing,
        next: Next<Cleared>,
        context: &mut Context<'_>,
    ) -> Step {
        match next {
            Next::Do(effect) => self.go(Phase::Resending(Box::new(ghost), Box::new(clearing)), effect),
            Next::Done(Cleared::All { .. }) => {
                let sent = Ghost {
                    rev: ghost.rev + 1,
                    sent_at: context.now,
                    ..ghost.clone()
                };
                let writes = vec![put_ghost(ghost.rev, &sent)];
                self.write(
                    "resent",
                    SlotsChange::None,
                    writes,
                    Vec::new(),
                    Counted::Repaired,
                    context.now,
                )
            }
            Next::Done(_) => {
                self.stopped = true;
                self.next(context)
            }
        }
    }

    fn forget(&mut self, ghost: &Ghost, context: &Context<'_>) -> Step {
        let gone = Ghost {
            rev: ghost.rev + 1,
            state: GhostState::Gone,
            connections: 0,
            ..ghost.clone()
        };
        // Its connections went with it.
        let slots = match ghost.connections {
            0 => SlotsChange::None,
            _ => without_its_connections(ghost).into(),
        };
        self.write(
            "gone",
            slots,
            vec![put_ghost(ghost.rev, &gone)],
            Vec::new(),
            Counted::Nothing,
            context.now,
        )
    }

    fn adopting(&mut self, adoption: Adoption, next: Next<Adopted>, context: &mut Context<'_>) -> Step {
        match next {
            Next::Do(effect) => self.go(Phase::Adopting(Box::new(adoption)), effect),
            Next::Done(adopted) => {
                self.author = adopted.author;
                self.result.added += count(adopted.ids.len());
                self.stopped |= !adopted.finished;
                self.next(context)
            }
        }
    }

    fn vanishing(&mut self, vanishing: Vanishing, next: Next<Vanished>, context: &mut Context<'_>) -> Step {
        match next {
            Next::Do(effect) => self.go(Phase::Vanishing(Box::new(vanishing)), effect),
            Next::Done(vanished) => {
                self.author = vanished.author;
                self.result.removed += u32::from(vanished.removed);
                self.next(context)
            }
        }
    }

    /// One run notes that a foreign id is missing, a later one removes it; at once where SnapTrade took its deletion.
    fn missing(&mut self, foreign: &ForeignRecord, context: &mut Context<'_>) -> Step {
        let mut ghosts = self.roster.ghosts.iter();
        let deleted =
            ghosts.any(|ghost| ghost.upstream == foreign.upstream && ghost.state != GhostState::Due);
        match foreign.missing_since {
            _ if deleted => self.write_foreign(foreign, Change::Gone, -1, Counted::Removed, context),
            Some(since) if timing::between(since, context.now) >= LIST_AGE => {
                self.write_foreign(foreign, Change::Gone, -1, Counted::Removed, context)
            }
            Some(_) => self.next(context),
            None => {
                let noted = ForeignRecord {
                    rev: foreign.rev + 1,
                    missing_since: Some(context.now),
                    ..foreign.clone()
                };
                self.write_foreign(
                    foreign,
                    Change::Put(Box::new(noted)),
                    0,
                    Counted::Nothing,
                    context,
                )
            }
        }
    }

    fn write_foreign(
        &mut self,
        foreign: &ForeignRecord,
        becomes: Change<ForeignRecord>,
        in_use: i32,
        counted: Counted,
        context: &Context<'_>,
    ) -> Step {
        let writes = vec![Write::Foreign {
            stem: foreign.upstream.stem(),
            slot: foreign.slot,
            expect: Expect::Revision(foreign.rev),
            becomes,
        }];
        let audit = match in_use {
            0 => Vec::new(),
            _ => vec![self.author.audit(&foreign.upstream.stem(), "place.vanished", &[])],
        };
        self.write(
            "foreign",
            Transition::of(in_use),
            writes,
            audit,
            counted,
            context.now,
        )
    }

    // Connections, where those are counted.

    fn keep(&mut self, context: &mut Context<'_>) -> Step {
        if self.counts == Counts::Users || self.kept {
            return self.recount();
        }
        self.kept = true;
        let upkeep = Upkeep::in_turn(self.author.clone());
        self.keeping(upkeep, Input::Begin, context)
    }

    fn keeping(&mut self, mut upkeep: Upkeep, input: Input, context: &mut Context<'_>) -> Step {
        match upkeep.advance(input, context) {
            Next::Do(effect) => self.go(Phase::Keeping(Box::new(upkeep)), effect),
            Next::Done(kept) => {
                self.author = kept.author;
                self.result.repaired += kept.repaired;
                self.stopped |= !kept.finished;
                self.recount()
            }
        }
    }

    /// What the places are by the records of connections.
    fn recounted_connections(&mut self, books: &Books, context: &Context<'_>) -> Step {
        let (Some(slots), Some(roster)) = (&books.slots, self.recounting.take()) else {
            return self.fail(NotSynced::Busy, context);
        };
        let counted = books.records.iter().filter(|record| record.epoch == slots.epoch);
        let going = roster
            .ghosts
            .iter()
            .filter(|ghost| ghost.state != GhostState::Gone);
        let in_use: u32 = counted.clone().map(ConnectionsRecord::places).sum();
        let leaving: u32 = counted.map(ConnectionsRecord::leaving).sum::<u32>()
            + going.map(|ghost| ghost.connections).sum::<u32>();
        if (in_use, leaving) == (slots.in_use, slots.leaving) {
            return self.return_lease(context);
        }
        // Both in one number, to be compared with what the next count says.
        let held = in_use.saturating_add(leaving.saturating_mul(1_000));
        self.differs(slots, held, &roster, context)
    }

    // Counting again, to be sure.

    fn recount(&mut self) -> Step {
        self.recounts += 1;
        self.go(Phase::Recounting, Effect::ReadRoster)
    }

    fn recounted(&mut self, roster: &Roster, context: &Context<'_>) -> Step {
        let Some(slots) = &roster.slots else {
            return self.fail(NotSynced::Busy, context);
        };
        let held = count(roster.holders.len());
        self.result.tracked_count = count(
            roster
                .holders
                .iter()
                .filter(|holder| match holder {
                    Holder::User(user) => user.active().is_some(),
                    Holder::Foreign(_) => true,
                })
                .count(),
        );
        self.result.complete = !self.stopped && self.believed;
        if self.counts == Counts::Connections {
            self.recounting = Some(Box::new(roster.clone()));
            return self.go(Phase::RecountingConnections, Effect::ReadBooks);
        }
        if held == slots.in_use {
            return self.return_lease(context);
        }
        self.differs(slots, held, roster, context)
    }

    fn differs(&mut self, slots: &Slots, held: u32, roster: &Roster, context: &Context<'_>) -> Step {
        // Twice the same difference under the same revision is no lag of the index.
        if self.counted == Some((slots.rev, held)) {
            tracing::error!(
                alarm = "count_differs",
                in_use = slots.in_use,
                held,
                "the places in use are not those that are held; they are closed and counted anew"
            );
            return self.close(slots, roster, context);
        }
        self.counted = Some((slots.rev, held));
        if self.recounts > 3 {
            return self.return_lease(context);
        }
        self.go(Phase::PausingBeforeRecount, Effect::Wait(RECOUNT_PAUSE))
    }

    fn close(&mut self, slots: &Slots, roster: &Roster, context: &Context<'_>) -> Step {
        let expect = Some(slots.rev);
        let becomes = Box::new(match self.counts {
            Counts::Users => Slots {
                open: false,
                rev: slots.rev + 1,
                ..slots.clone()
            },
            // Connections are listed anew, user by user.
            Counts::Connections => anew(slots, roster),
        });
        self.result.complete = false;
        let change = SlotsChange::Replace { expect, becomes };
        let commit = self
            .author
            .commit("close", context.now, change, Vec::new(), Vec::new());
        self.go(Phase::Closing, Effect::Commit(commit))
    }
}

/// What is to be done about rows and a list that was read after them.
fn plan(
    roster: &Roster,
    list: &[UpstreamId],
    held: &BTreeMap<crate::ids::Stem, HeldPlace>,
    believed: bool,
    now: Timestamp,
) -> Vec<Work> {
    let listed: BTreeSet<&UpstreamId> = list.iter().collect();
    let live = |stem: &crate::ids::Stem| {
        held.get(stem)
            .is_some_and(|held| !timing::expired(held.until, now))
    };
    let owed: BTreeSet<&UpstreamId> = roster
        .holders
        .iter()
        .filter_map(|holder| match holder {
            Holder::User(user) => user.reservation(),
            Holder::Foreign(_) => None,
        })
        .flat_map(|reservation| &reservation.after)
        .collect();
    let mut work = Vec::new();
    for holder in &roster.holders {
        if let Holder::User(user) = holder
            && user.is_expired(now)
        {
            work.push(Work::Retire(Box::new(user.clone())));
        }
    }
    for ghost in &roster.ghosts {
        let is_listed = listed.contains(&ghost.upstream);
        let quiet = timing::between(ghost.sent_at, now) >= LIST_AGE;
        match ghost.state {
            GhostState::Due => {
                let waited_for = ghost.waits.as_ref().is_some_and(live) || owed.contains(&ghost.upstream);
                if !waited_for {
                    work.push(Work::Delete(Box::new(ghost.clone())));
                }
            }
            // A plain id is not ours to mint: gone and listed again, it is a stranger's by now.
            GhostState::Gone if is_listed && quiet && !ghost.upstream.is_minted() => {
                work.push(Work::Release(Box::new(ghost.clone())));
            }
            GhostState::Accepted | GhostState::Gone if is_listed && quiet => {
                work.push(Work::Resend(Box::new(ghost.clone())));
            }
            GhostState::Accepted if !is_listed && believed => {
                work.push(Work::Forget(Box::new(ghost.clone())))
            }
            GhostState::Accepted | GhostState::Gone => {}
        }
    }
    if !believed {
        return work;
    }
    let unknown = unknown_ids(list, roster);
    if !unknown.is_empty() {
        work.push(Work::Adopt(unknown));
    }
    for holder in &roster.holders {
        match holder {
            Holder::User(user) => {
                if user
                    .active()
                    .is_some_and(|active| !listed.contains(&active.upstream))
                {
                    work.push(Work::Vanished(Box::new(user.clone())));
                }
            }
            Holder::Foreign(foreign) => {
                let is_listed = listed.contains(&foreign.upstream);
                if !is_listed {
                    work.push(Work::Missing(Box::new(foreign.clone())));
                } else if foreign.missing_since.is_some() {
                    work.push(Work::Found(Box::new(foreign.clone())));
                }
            }
        }
    }
    work
}

/// When SnapTrade refused for certain to delete an id, if that is how a clearing ended.
fn refused(cleared: &Cleared, now: Timestamp) -> Option<Timestamp> {
    match cleared {
        Cleared::Refused { upstream, fault, .. } => deletion_refused(upstream, fault, now),
        Cleared::All { .. } | Cleared::Unsettled(_) => None,
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// What a list says, whatever its order.
fn digest(list: &[UpstreamId]) -> String {
    let sorted: BTreeSet<&UpstreamId> = list.iter().collect();
    let mut hash = Sha256::new();
    for id in sorted {
        hash.update(id.as_str().as_bytes());
        hash.update([0]);
    }
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

impl Machine for Sync {
    type Output = Result<Synced, NotSynced>;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Step {
        match (std::mem::replace(&mut self.phase, Phase::Start), input) {
            (Phase::Start, Input::Begin) => self.go(Phase::ReadingLease, Effect::ReadSync),
            (Phase::ReadingLease, Input::SyncRecord(record)) => self.take_lease(record, context),
            (Phase::TakingLease(lease), Input::Committed(CommitOutcome::Won)) => {
                self.doubted.clone_from(&lease.doubted);
                self.lease = Some(*lease);
                let mut opening = Opening::new(self.author.clone(), self.max, self.counts);
                let next = opening.advance(Input::Begin, context);
                self.opening(opening, next, context)
            }
            (Phase::TakingLease(_), Input::Committed(CommitOutcome::Lost(_))) => {
                Next::Done(Err(NotSynced::Running { retry_after: 5 }))
            }
            (Phase::Opening(mut opening), input) => {
                let next = opening.advance(input, context);
                self.opening(*opening, next, context)
            }
            (Phase::ReadingRows, Input::Roster(roster)) => {
                self.roster = *roster;
                self.go(Phase::Listing, Effect::List)
            }
            (Phase::Listing, Input::Listed(Ok(list))) => self.plan(list, context),
            (Phase::Listing, Input::Listed(Err(fault))) => self.fail(NotSynced::Snaptrade(fault), context),
            (Phase::Rereading(_), Input::Reservation(Some(user), ghosts)) => {
                self.retire(&user, &ghosts, context)
            }
            (Phase::RetiringOwn(user, ghosts), Input::Committed(CommitOutcome::Won)) => {
                let owed = user
                    .reservation()
                    .map(|reservation| reservation.after.clone())
                    .unwrap_or_default();
                let mut clearing = Clearing::new(&owed, self.until());
                let next = clearing.advance(Input::Begin, context);
                self.clearing_retired(*user, ghosts, clearing, next, context)
            }
            (Phase::ClearingRetired(user, ghosts, mut clearing), input) => {
                let next = clearing.advance(input, context);
                self.clearing_retired(*user, ghosts, *clearing, next, context)
            }
            (Phase::Freeing, Input::Committed(outcome)) => {
                if outcome == CommitOutcome::Won {
                    self.result.repaired += 1;
                }
                self.next(context)
            }
            (Phase::TakingGhost(ghost), Input::Committed(CommitOutcome::Won)) => {
                let mut clearing = Clearing::new(std::slice::from_ref(&ghost.upstream), self.until());
                let next = clearing.advance(Input::Begin, context);
                self.deleting_ghost(*ghost, clearing, next, context)
            }
            (Phase::DeletingGhost(ghost, mut clearing), input) => {
                let next = clearing.advance(input, context);
                self.deleting_ghost(*ghost, *clearing, next, context)
            }
            (Phase::Resending(ghost, mut clearing), input) => {
                let next = clearing.advance(input, context);
                self.resending(*ghost, *clearing, next, context)
            }
            (Phase::Adopting(mut adoption), input) => {
                let next = adoption.advance(input, context);
                self.adopting(*adoption, next, context)
            }
            (Phase::Vanishing(mut vanishing), input) => {
                let next = vanishing.advance(input, context);
                self.vanishing(*vanishing, next, context)
            }
            (Phase::Writing(counted), Input::Committed(outcome)) => {
                if outcome == CommitOutcome::Won {
                    match counted {
                        Counted::Nothing => {}
                        Counted::Removed => self.result.removed += 1,
                        Counted::Repaired => self.result.repaired += 1,
                    }
                }
                self.next(context)
            }
            (Phase::Keeping(upkeep), input) => self.keeping(*upkeep, input, context),
            (Phase::Recounting, Input::Roster(roster)) => self.recounted(&roster, context),
            (Phase::RecountingConnections, Input::Books(books)) => {
                self.recounted_connections(&books, context)
            }
            (Phase::PausingBeforeRecount, Input::Waited) => self.recount(),
            (Phase::Closing, _) => self.return_lease(context),
            (Phase::Returning, _) => self.finish(),
            // What somebody else changed meanwhile, or what SnapTrade did not confirm, is left to the next run.
            _ if self.lease.is_some() => self.next(context),
            _ => Next::Done(Err(NotSynced::Busy)),
        }
    }
}
