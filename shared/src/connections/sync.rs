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
    AuditEntry, Author, Books, Census, Change, CommitOutcome, Context, Effect, Expect, Fault, Input, Machine,
    Next, Roster, SlotsChange, Transition, Write,
};
use super::opening::{Opened, Opening, anew, unknown_ids};
use super::records::{
    ConnectionsRecord, DoubtedCount, DoubtedList, ForeignRecord, Ghost, GhostState, HeldPlace, Holder, Slots,
    SyncRecord, UserRecord, UserState,
};
use super::timing::{self, LEASE, LIST_AGE};
use super::vanishing::{Vanished, Vanishing};
use super::writes::{Inherited, accept, inherit, put_ghost};
use crate::config::Counts;
use crate::ids::UpstreamId;

/// How long SnapTrade may take over a deletion that it accepted before an operator should look.
const DELETION_ALARM: Duration = Duration::from_secs(3600);

/// How often the places are counted consistently in one run.
const MAX_RECOUNTS: u32 = 3;

/// Most records that are written together. Each may have a line in the audit trail, and DynamoDB makes at most 100
/// writes together.
const MAX_TOGETHER: usize = 40;

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
    seen_count: Option<(u64, i64)>,
    doubted_count: Option<DoubtedCount>,
    tracked: u32,
    added_before: u32,
    connections: u32,
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
    /// Ghosts that are listed no more.
    Forget(Vec<Ghost>),
    /// A ghost whose id somebody else uses again.
    Release(Box<Ghost>),
    /// Ids that nobody here knows.
    Adopt(Vec<(u32, UpstreamId)>),
    /// An active user that is not listed.
    Vanished(Box<UserRecord>),
    /// Foreign ones that are not listed.
    Missing(Vec<ForeignRecord>),
    /// Foreign ones that were missing for long enough.
    Gone(Vec<ForeignRecord>),
    /// Foreign ones that are listed again.
    Found(Vec<ForeignRecord>),
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
    RecountingConnections,
    /// Several records are being written together; what to do of each where that fails.
    WritingTogether(Counted, Vec<Work>),
    Recounting,
    Counting,
    PausingBeforeRecount,
    Closing,
    Returning,
}

/// What a commit adds to the result when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    Nothing,
    Removed(u32),
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
            seen_count: None,
            doubted_count: None,
            tracked: 0,
            added_before: 0,
            connections: 0,
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
            doubted_count: record.as_ref().and_then(|record| record.doubted_count.clone()),
            tracked: record.as_ref().map_or(0, |record| record.tracked),
            connections: record.as_ref().map_or(0, |record| record.connections),
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
            doubted_count: self.doubted_count.clone(),
            tracked: self.tracked,
            connections: self.connections,
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
                if !self.has_time(context) {
                    return self.return_lease(context);
                }
                self.go(Phase::ReadingRows, Effect::ReadRoster)
            }
            Next::Done(Opened::Unfinished { author, adopted }) => {
                // The places stay closed; the next run goes on with what is left of the list.
                self.author = author;
                self.result.added += adopted;
                self.return_lease(context)
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
        (self.tracked, self.connections) = tracked(&self.roster);
        self.added_before = self.result.added;
        self.roster = Roster::default();
        self.rotate();
        self.next(context)
    }

    /// A list that is empty, or under half of the last, is believed when a second one, a while later, says the same.
    fn believe(&mut self, now: Timestamp) {
        let Some(lease) = &self.lease else { return };
        let digest = digest(&self.list);
        // A list that still has everybody who is tracked is short because of our own deletions.
        let listed: BTreeSet<&UpstreamId> = self.list.iter().collect();
        let lacks_somebody = self.roster.holders.iter().any(|holder| {
            let reserved = matches!(holder, Holder::User(user) if user.reservation().is_some());
            !reserved && holder.upstream().is_some_and(|id| !listed.contains(id))
        });
        let far_shorter = u64::from(self.result.upstream_count) * 2 < u64::from(lease.list_size);
        let short = lacks_somebody && (far_shorter || self.list.is_empty());
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

    /// Users whom the list lacks and whose secrets work are asked for again by every run. Each run begins with another of
    /// them, so that those behind have their turn, too.
    fn rotate(&mut self) {
        let work = self.work.make_contiguous();
        let first = work.iter().position(|work| matches!(work, Work::Vanished(_)));
        let Some(vanished) = first.and_then(|first| work.get_mut(first..)) else {
            return;
        };
        let length = vanished
            .iter()
            .take_while(|work| matches!(work, Work::Vanished(_)))
            .count();
        if let Some(vanished) = vanished.get_mut(..length) {
            let turn = u64::try_from(length).unwrap_or(1).max(1);
            let by = self.author.attempt.first_revision() % turn;
            vanished.rotate_left(usize::try_from(by).unwrap_or(0));
        }
    }

    // One piece of work after the other.

    fn next(&mut self, context: &mut Context<'_>) -> Step {
        if !self.has_time(context) {
            self.stopped |= !self.work.is_empty();
            return self.recount(context);
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
            Work::Forget(ghosts) => self.forget(ghosts, context),
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
            Work::Missing(foreign) => self.missing(foreign, context),
            Work::Gone(foreign) => self.gone(foreign, context),
            Work::Found(foreign) => self.found(foreign, context),
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

    fn forget(&mut self, ghosts: Vec<Ghost>, context: &Context<'_>) -> Step {
        let slots = match ghosts.as_slice() {
            [ghost] if ghost.connections > 0 => without_its_connections(ghost).into(),
            _ => SlotsChange::None,
        };
        let writes = ghosts
            .iter()
            .map(|ghost| {
                let gone = Ghost {
                    rev: ghost.rev + 1,
                    state: GhostState::Gone,
                    connections: 0,
                    ..ghost.clone()
                };
                put_ghost(ghost.rev, &gone)
            })
            .collect();
        let each = ghosts
            .into_iter()
            .map(|ghost| Work::Forget(vec![ghost]))
            .collect();
        let commit = self.author.commit("gone", context.now, slots, writes, Vec::new());
        self.go(
            Phase::WritingTogether(Counted::Nothing, each),
            Effect::Commit(commit),
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

    /// One run notes that foreign ids are missing, a later one removes them.
    fn missing(&mut self, foreign: Vec<ForeignRecord>, context: &Context<'_>) -> Step {
        let noted = |record: &ForeignRecord| {
            Change::Put(Box::new(ForeignRecord {
                rev: record.rev + 1,
                missing_since: Some(context.now),
                ..record.clone()
            }))
        };
        self.write_foreign(foreign, noted, Work::Missing, 0, context)
    }

    fn gone(&mut self, foreign: Vec<ForeignRecord>, context: &Context<'_>) -> Step {
        self.write_foreign(foreign, |_| Change::Gone, Work::Gone, -1, context)
    }

    fn found(&mut self, foreign: Vec<ForeignRecord>, context: &Context<'_>) -> Step {
        let found = |record: &ForeignRecord| {
            Change::Put(Box::new(ForeignRecord {
                rev: record.rev + 1,
                missing_since: None,
                ..record.clone()
            }))
        };
        self.write_foreign(foreign, found, Work::Found, 0, context)
    }

    /// Writes records of foreign ids together; one after the other as `again` where somebody was faster with one.
    fn write_foreign(
        &mut self,
        foreign: Vec<ForeignRecord>,
        becomes: impl Fn(&ForeignRecord) -> Change<ForeignRecord>,
        again: impl Fn(Vec<ForeignRecord>) -> Work,
        places: i32,
        context: &Context<'_>,
    ) -> Step {
        let writes = foreign
            .iter()
            .map(|record| Write::Foreign {
                stem: record.upstream.stem(),
                slot: record.slot,
                expect: Expect::Revision(record.rev),
                becomes: becomes(record),
            })
            .collect();
        let (mut audit, mut counted) = (Vec::new(), Counted::Nothing);
        if places < 0 {
            let lines = foreign.iter().map(|record| record.upstream.stem());
            audit.extend(lines.map(|stem| self.author.audit(&stem, "place.vanished", &[])));
            counted = Counted::Removed(count(foreign.len()));
        }
        let slots = Transition::of(places.saturating_mul(i32::try_from(foreign.len()).unwrap_or(i32::MAX)));
        let each = foreign.into_iter().map(|record| again(vec![record])).collect();
        let commit = self.author.commit("foreign", context.now, slots, writes, audit);
        self.go(Phase::WritingTogether(counted, each), Effect::Commit(commit))
    }

    // Connections, where those are counted.

    fn keep(&mut self, context: &mut Context<'_>) -> Step {
        if self.counts == Counts::Users || self.kept {
            return self.recount(context);
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
                self.recount(context)
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
            self.doubted_count = None;
            return self.return_lease(context);
        }
        // Both in one number, to be compared with what the next count says.
        let more = |counted: u32, kept: u32| i64::from(counted) - i64::from(kept);
        let difference = more(in_use, slots.in_use) + 1_000 * more(leaving, slots.leaving);
        self.differs(slots, difference, &roster, context)
    }

    // Counting again, to be sure.

    fn recount(&mut self, context: &Context<'_>) -> Step {
        if !self.has_time(context) {
            // The next run counts again; what this one did is known without.
            let added = self.result.added.saturating_sub(self.added_before);
            let tracked = self.tracked.saturating_add(added);
            self.result.tracked_count = tracked.saturating_sub(self.result.removed);
            return self.return_lease(context);
        }
        self.go(Phase::Recounting, Effect::ReadRoster)
    }

    fn made(&mut self, counted: Counted) {
        match counted {
            Counted::Nothing => {}
            Counted::Removed(users) => self.result.removed += users,
            Counted::Repaired => self.result.repaired += 1,
        }
    }

    fn recounted(&mut self, roster: &Roster, context: &Context<'_>) -> Step {
        let Some(slots) = &roster.slots else {
            return self.fail(NotSynced::Busy, context);
        };
        (self.tracked, self.connections) = tracked(roster);
        self.result.tracked_count = self.tracked;
        self.result.complete = !self.stopped && self.believed;
        if self.counts == Counts::Connections {
            self.recounting = Some(Box::new(roster.clone()));
            return self.go(Phase::RecountingConnections, Effect::ReadBooks);
        }
        if count(roster.holders.len()) == slots.in_use {
            self.doubted_count = None;
            return self.return_lease(context);
        }
        self.count_consistently(context)
    }

    /// The index, which lags behind, shows others than there are places in use. Whoever it shows is read again as they
    /// are now, and whoever it does not show yet is looked for among the reservations and on SnapTrade's list.
    fn count_consistently(&mut self, context: &Context<'_>) -> Step {
        if !self.has_time(context) {
            self.result.complete = false;
            return self.return_lease(context);
        }
        self.go(Phase::Counting, Effect::Count(self.list.clone()))
    }

    fn counted(&mut self, census: &Census, context: &Context<'_>) -> Step {
        let Some(slots) = &census.slots else {
            return self.fail(NotSynced::Busy, context);
        };
        let difference = i64::from(census.holders()) - i64::from(slots.in_use);
        if difference == 0 {
            self.doubted_count = None;
            return self.return_lease(context);
        }
        self.differs(slots, difference, &Roster::default(), context)
    }

    /// The places in use are others than those that were counted. Whoever came within the last moments may be missing in
    /// the count: the index does not show them yet, and the list is older. So a difference is believed when it is the
    /// same after a pause in which nothing happened to the places, and again in a later run.
    fn differs(&mut self, slots: &Slots, difference: i64, roster: &Roster, context: &Context<'_>) -> Step {
        self.result.complete = false;
        let seen = Some((slots.rev, difference));
        if self.seen_count != seen {
            self.seen_count = seen;
            self.recounts += 1;
            if self.recounts > MAX_RECOUNTS {
                // Others change the places all the time, so nothing can be said of them.
                return self.return_lease(context);
            }
            return self.go(Phase::PausingBeforeRecount, Effect::Wait(RECOUNT_PAUSE));
        }
        let before = self
            .doubted_count
            .take()
            .filter(|before| before.difference == difference);
        if before
            .as_ref()
            .is_some_and(|before| timing::between(before.at, context.now) >= LIST_AGE)
        {
            tracing::error!(
                alarm = "count_differs",
                in_use = slots.in_use,
                difference,
                "the places in use are not those that are held; they are closed and counted anew"
            );
            return self.close(slots, roster, context);
        }
        tracing::warn!(
            in_use = slots.in_use,
            difference,
            "the places in use seem not to be those that are held; a later run looks again"
        );
        self.doubted_count = Some(before.unwrap_or(DoubtedCount {
            at: context.now,
            difference,
        }));
        self.return_lease(context)
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
    let mut forgotten = Vec::new();
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
            // Those whose connections are counted take them along, one after the other.
            GhostState::Accepted if !is_listed && believed && ghost.connections > 0 => {
                work.push(Work::Forget(vec![ghost.clone()]));
            }
            GhostState::Accepted if !is_listed && believed => forgotten.push(ghost.clone()),
            GhostState::Accepted | GhostState::Gone => {}
        }
    }
    work.extend(together(forgotten, Work::Forget));
    if !believed {
        return work;
    }
    let unknown = unknown_ids(list, roster);
    if !unknown.is_empty() {
        work.push(Work::Adopt(unknown));
    }
    let deleted: BTreeSet<&UpstreamId> = roster
        .ghosts
        .iter()
        .filter(|ghost| ghost.state != GhostState::Due)
        .map(|ghost| &ghost.upstream)
        .collect();
    let (mut found, mut missing, mut gone, mut vanished) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for holder in &roster.holders {
        match holder {
            Holder::User(user) => {
                if user
                    .active()
                    .is_some_and(|active| !listed.contains(&active.upstream))
                {
                    vanished.push(Work::Vanished(Box::new(user.clone())));
                }
            }
            Holder::Foreign(foreign) => {
                let is_listed = listed.contains(&foreign.upstream);
                match foreign.missing_since {
                    None if is_listed => {}
                    Some(_) if is_listed => found.push(foreign.clone()),
                    // SnapTrade took its deletion, so one list is enough.
                    _ if deleted.contains(&foreign.upstream) => gone.push(foreign.clone()),
                    None => missing.push(foreign.clone()),
                    Some(since) if timing::between(since, now) >= LIST_AGE => gone.push(foreign.clone()),
                    Some(_) => {}
                }
            }
        }
    }
    work.extend(together(found, Work::Found));
    work.extend(together(missing, Work::Missing));
    work.extend(together(gone, Work::Gone));
    work.extend(vanished);
    work
}

/// Work on so many records at a time as are written together.
fn together<T: Clone>(records: Vec<T>, work: impl Fn(Vec<T>) -> Work) -> Vec<Work> {
    records
        .chunks(MAX_TOGETHER)
        .map(|records| work(records.to_vec()))
        .collect()
}

/// How many users are tracked, and how many brokerage connections they have.
fn tracked(roster: &Roster) -> (u32, u32) {
    let (mut users, mut connections) = (0_u32, 0_u32);
    for holder in &roster.holders {
        match holder {
            Holder::Foreign(_) => users += 1,
            Holder::User(user) => {
                if let Some(active) = user.active() {
                    users += 1;
                    connections = connections.saturating_add(active.connections);
                }
            }
        }
    }
    (users, connections)
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
                self.doubted_count.clone_from(&lease.doubted_count);
                self.tracked = lease.tracked;
                self.connections = lease.connections;
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
                    self.made(counted);
                }
                self.next(context)
            }
            (Phase::WritingTogether(counted, each), Input::Committed(outcome)) => {
                match outcome {
                    CommitOutcome::Won => self.made(counted),
                    // Somebody was faster with one of them; the others can still be written.
                    CommitOutcome::Lost(_) if each.len() > 1 => {
                        each.into_iter().rev().for_each(|work| self.work.push_front(work));
                    }
                    CommitOutcome::Lost(_) | CommitOutcome::Unknown => {}
                }
                self.next(context)
            }
            (Phase::Keeping(upkeep), input) => self.keeping(*upkeep, input, context),
            (Phase::Recounting, Input::Roster(roster)) => self.recounted(&roster, context),
            (Phase::RecountingConnections, Input::Books(books)) => {
                self.recounted_connections(&books, context)
            }
            (Phase::Counting, Input::Counted(census)) => self.counted(&census, context),
            (Phase::PausingBeforeRecount, Input::Waited) => match self.counts {
                Counts::Users => self.count_consistently(context),
                Counts::Connections => self.recount(context),
            },
            (Phase::Closing, _) => self.return_lease(context),
            (Phase::Returning, _) => self.finish(),
            // What somebody else changed meanwhile, or what SnapTrade did not confirm, is left to the next run.
            _ if self.lease.is_some() => self.next(context),
            _ => Next::Done(Err(NotSynced::Busy)),
        }
    }
}
