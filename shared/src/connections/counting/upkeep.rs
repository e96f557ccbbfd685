//! Going through the records of connections: all that a new counting needs, or those whose turn it is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::reconciling::{Purpose, Reconciled, Reconciling};
use crate::connections::leaving::{Leaving, Whom};
use crate::connections::machine::{
    Author, Books, Change, Context, Deletion, Disconnection, Effect, Expect, Fault, Input, Machine, Next,
    SlotsChange, Write,
};
use crate::connections::records::{ConnectionsRecord, Holder, Slots, UserRecord};
use crate::connections::timing;
use crate::ids::Stem;
use crate::snaptrade::ConnectionId;

/// How many users are looked after in one run beside those who need it: SnapTrade allows 250 calls in a minute to all
/// functions together.
const IN_TURN: usize = 50;

/// How long a deletion is left alone before it is sent again.
const QUIET: Duration = Duration::from_secs(60);

/// Goes through users' connections, first those that need it: places whose time has passed, connections that are
/// leaving, visits under way, users of whom there is no record yet. Then those that were looked after longest ago.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upkeep {
    author: Author,
    users: Vec<UserRecord>,
    foreign: bool,
    counting: bool,
    queue: VecDeque<(Stem, bool)>,
    /// Those with a connection that is leaving.
    leavers: BTreeSet<Stem>,
    finished: bool,
    fault: Option<Fault>,
    repaired: u32,
    total: Option<u32>,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Start,
    Roster,
    Planning,
    Reconciling(Stem, bool, Box<Reconciling>),
    /// What is still listed is deleted again.
    ReadingAgain(ConnectionId),
    DeletingAgain(Box<ConnectionsRecord>, ConnectionId),
    Noting,
    /// A user whose secret does not work goes with a connection that was to go.
    Leaving(Box<Leaving>),
    Statistics,
    Summing,
    Writing,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kept {
    /// Whether all was done that had to be.
    pub finished: bool,
    /// Why SnapTrade could not be used, where that stopped it.
    pub fault: Option<Fault>,
    /// Places and connections that were put right.
    pub repaired: u32,
    /// The author, with its count of decisions.
    pub author: Author,
}

type Step = Next<Kept>;

impl Upkeep {
    /// Gives a new counting a record of every user.
    #[must_use]
    pub fn counting(author: Author) -> Self {
        Self::new(true, author)
    }

    /// Looks after those whose turn it is.
    #[must_use]
    pub fn in_turn(author: Author) -> Self {
        Self::new(false, author)
    }

    fn new(counting: bool, author: Author) -> Self {
        Self {
            author,
            users: Vec::new(),
            foreign: false,
            counting,
            queue: VecDeque::new(),
            leavers: BTreeSet::new(),
            finished: true,
            fault: None,
            repaired: 0,
            total: None,
            phase: Phase::Start,
        }
    }

    fn go(&mut self, phase: Phase, effect: Effect) -> Step {
        self.phase = phase;
        Next::Do(effect)
    }

    fn done(&self) -> Step {
        Next::Done(Kept {
            finished: self.finished,
            fault: self.fault.clone(),
            repaired: self.repaired,
            author: self.author.clone(),
        })
    }

    fn plan(&mut self, books: &Books, context: &mut Context<'_>) -> Step {
        let Some(slots) = &books.slots else {
            self.finished = false;
            return self.done();
        };
        self.leavers = books
            .records
            .iter()
            .filter(|record| record.epoch == slots.epoch && record.leaving() > 0)
            .map(|record| record.stem.clone())
            .collect();
        self.queue = if self.counting {
            uncounted(&self.users, &books.records, slots)
        } else {
            in_turn(&self.users, &books.records, slots, context.now)
        };
        self.next(context)
    }

    fn next(&mut self, context: &mut Context<'_>) -> Step {
        let in_time = timing::may_call(Timestamp::MAX, context.deadline, context.now);
        if !in_time || self.fault.is_some() {
            self.finished &= !self.queue.iter().any(|(_, needed)| *needed);
            return self.done();
        }
        let Some((stem, needed)) = self.queue.pop_front() else {
            return self.statistics();
        };
        let purpose = if self.counting {
            Purpose::Counting
        } else {
            Purpose::Turn
        };
        let reconciling = Reconciling::new(stem.clone(), purpose, self.author.clone());
        self.reconciling(stem, needed, reconciling, Input::Begin, context)
    }

    fn reconciling(
        &mut self,
        stem: Stem,
        needed: bool,
        mut reconciling: Reconciling,
        input: Input,
        context: &mut Context<'_>,
    ) -> Step {
        match reconciling.advance(input, context) {
            Next::Do(effect) => self.go(Phase::Reconciling(stem, needed, Box::new(reconciling)), effect),
            Next::Done(Reconciled::Done { record, author, .. }) => {
                self.author = author;
                self.repaired += u32::from(needed && !self.counting);
                match record.as_ref().and_then(|record| overdue(record, context.now)) {
                    Some(id) if !self.counting => self.go(Phase::ReadingAgain(id), Effect::ReadEntry(stem)),
                    _ => self.next(context),
                }
            }
            Next::Done(Reconciled::Nobody(author)) => {
                self.author = author;
                self.repaired += u32::from(needed && !self.counting);
                self.next(context)
            }
            Next::Done(Reconciled::Rejected(author)) => {
                self.author = author;
                self.unreachable(&stem, context)
            }
            Next::Done(Reconciled::Unavailable(fault)) => {
                self.finished = false;
                self.fault = Some(fault);
                self.next(context)
            }
            Next::Done(Reconciled::Busy) => {
                self.finished = false;
                self.next(context)
            }
        }
    }

    /// A connection that is to go cannot be deleted without the user's secret; the user goes as a whole then.
    fn unreachable(&mut self, stem: &Stem, context: &mut Context<'_>) -> Step {
        if self.counting {
            return self.next(context);
        }
        self.phase = Phase::Start;
        let leaves = self.users.iter().find(|user| user.stem == *stem).cloned();
        match leaves {
            Some(user) if self.leavers.contains(stem) => {
                let leaving = Leaving::new(Whom::Holder(Box::new(Holder::User(user))), self.author.clone());
                self.leaving(leaving, Input::Begin, context)
            }
            _ => self.next(context),
        }
    }

    fn leaving(&mut self, mut leaving: Leaving, input: Input, context: &mut Context<'_>) -> Step {
        match leaving.advance(input, context) {
            Next::Do(effect) => self.go(Phase::Leaving(Box::new(leaving)), effect),
            Next::Done(_) => {
                let Author { actor, counts, .. } = self.author.clone();
                // The other machine has decided under the same name; its tokens may not be used again.
                self.author = Author::new((context.draw)(), actor).counting(counts);
                self.repaired += 1;
                self.next(context)
            }
        }
    }

    fn delete_again(
        &mut self,
        id: ConnectionId,
        entry: crate::connections::machine::Entry,
        context: &mut Context<'_>,
    ) -> Step {
        let still = entry
            .connections
            .filter(|record| overdue(record, context.now).as_ref() == Some(&id));
        let (Some(record), Some(user)) = (still, entry.user) else {
            return self.next(context);
        };
        if !timing::may_call(Timestamp::MAX, context.deadline, context.now) {
            self.finished = false;
            return self.next(context);
        }
        self.go(
            Phase::DeletingAgain(Box::new(record), id.clone()),
            Effect::DeleteConnection(Box::new(user), id),
        )
    }

    fn deleted_again(
        &mut self,
        record: &ConnectionsRecord,
        id: &ConnectionId,
        disconnection: &Disconnection,
        context: &mut Context<'_>,
    ) -> Step {
        if !matches!(
            disconnection,
            Disconnection::Answered(Deletion::Queued | Deletion::NotThere)
        ) {
            self.finished = false;
            return self.next(context);
        }
        let mut sent = ConnectionsRecord {
            rev: record.rev + 1,
            ..record.clone()
        };
        if let Some(connection) = sent.ids.get_mut(id) {
            connection.leaving = Some(context.now);
        }
        let writes = vec![Write::Connections {
            stem: record.stem.clone(),
            expect: Expect::Revision(record.rev),
            becomes: Change::Put(Box::new(sent)),
        }];
        let commit = self
            .author
            .commit("resent", context.now, SlotsChange::None, writes, Vec::new());
        self.go(Phase::Noting, Effect::Commit(commit))
    }

    /// Users whose connections cannot be listed from here have some, too; only SnapTrade's statistics tell how many.
    fn statistics(&mut self) -> Step {
        if self.foreign {
            self.go(Phase::Statistics, Effect::ReadStatistics)
        } else {
            self.go(Phase::Summing, Effect::ReadBooks)
        }
    }

    fn sum(&mut self, slots: Option<Slots>, context: &Context<'_>) -> Step {
        let Some(slots) = slots else {
            return self.done();
        };
        let portals = u32::try_from(slots.portals.len()).unwrap_or(u32::MAX);
        let known = slots.in_use.saturating_sub(portals).saturating_add(slots.leaving);
        // The statistics are up to five minutes old. More than before is believed when two readings say so.
        let read = match self.total {
            Some(total) if self.foreign => total.saturating_sub(known),
            _ => 0,
        };
        let elsewhere = if self.counting {
            read
        } else {
            read.min(slots.elsewhere_read)
        };
        if (elsewhere, read) == (slots.elsewhere, slots.elsewhere_read) {
            return self.done();
        }
        let change = SlotsChange::Replace {
            expect: Some(slots.rev),
            becomes: Box::new(Slots {
                rev: slots.rev + 1,
                elsewhere,
                elsewhere_read: read,
                ..slots
            }),
        };
        let commit = self
            .author
            .commit("elsewhere", context.now, change, Vec::new(), Vec::new());
        self.go(Phase::Writing, Effect::Commit(commit))
    }
}

fn active(holder: Holder) -> Option<UserRecord> {
    match holder {
        Holder::User(user) => Some(user).filter(|user| user.active().is_some()),
        Holder::Foreign(_) => None,
    }
}

/// Those of whom the counting has no record yet.
fn uncounted(users: &[UserRecord], records: &[ConnectionsRecord], slots: &Slots) -> VecDeque<(Stem, bool)> {
    let counted: BTreeSet<&Stem> = records
        .iter()
        .filter(|record| record.epoch == slots.epoch)
        .map(|record| &record.stem)
        .collect();
    users
        .iter()
        .filter(|user| !counted.contains(&user.stem))
        .map(|user| (user.stem.clone(), true))
        .collect()
}

/// Whose turn it is, and whether it has to be now.
fn in_turn(
    users: &[UserRecord],
    records: &[ConnectionsRecord],
    slots: &Slots,
    now: Timestamp,
) -> VecDeque<(Stem, bool)> {
    let by_stem: BTreeMap<&Stem, &ConnectionsRecord> =
        records.iter().map(|record| (&record.stem, record)).collect();
    let mut stems: BTreeSet<&Stem> = users.iter().map(|user| &user.stem).collect();
    stems.extend(by_stem.keys());
    stems.extend(slots.portals.keys());
    let mut order: Vec<_> = stems
        .into_iter()
        .map(|stem| {
            let record = by_stem.get(stem).filter(|record| record.epoch == slots.epoch);
            let lapsed = slots
                .portals
                .get(stem)
                .is_some_and(|portal| timing::expired(portal.until, now));
            let leaving = record.is_some_and(|record| record.leaving() > 0);
            let visiting = slots.portals.contains_key(stem);
            let needed = lapsed || leaving;
            let since = record.map(|record| record.reconciled_at);
            (Reverse((lapsed, leaving, visiting)), since, stem, needed)
        })
        .collect();
    order.sort();
    let needed = order.iter().filter(|(.., needed)| *needed).count();
    order
        .into_iter()
        .take(needed.saturating_add(IN_TURN))
        .map(|(_, _, stem, needed)| (stem.clone(), needed))
        .collect()
}

/// A connection that is to go, is there still, and whose deletion was sent a while ago.
fn overdue(record: &ConnectionsRecord, now: Timestamp) -> Option<ConnectionId> {
    let quiet = |sent: Timestamp| timing::between(sent, now) >= QUIET;
    record
        .ids
        .iter()
        .find(|(_, connection)| connection.leaving.is_some_and(quiet))
        .map(|(id, _)| id.clone())
}

impl Machine for Upkeep {
    type Output = Kept;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Step {
        match (std::mem::replace(&mut self.phase, Phase::Start), input) {
            (Phase::Start, Input::Begin) => self.go(Phase::Roster, Effect::ReadRoster),
            (Phase::Roster, Input::Roster(roster)) => {
                self.foreign = roster
                    .holders
                    .iter()
                    .any(|holder| matches!(holder, Holder::Foreign(_)));
                self.users = roster.holders.into_iter().filter_map(active).collect();
                self.go(Phase::Planning, Effect::ReadBooks)
            }
            (Phase::Planning, Input::Books(books)) => self.plan(&books, context),
            (Phase::Reconciling(stem, needed, reconciling), input) => {
                self.reconciling(stem, needed, *reconciling, input, context)
            }
            (Phase::ReadingAgain(id), Input::Entry(entry)) => self.delete_again(id, *entry, context),
            (Phase::DeletingAgain(record, id), Input::ConnectionDeleted(disconnection)) => {
                self.deleted_again(&record, &id, &disconnection, context)
            }
            (Phase::Noting, Input::Committed(_)) => self.next(context),
            (Phase::Leaving(leaving), input) => self.leaving(*leaving, input, context),
            (Phase::Statistics, Input::Statistics(total)) => {
                self.total = total;
                self.go(Phase::Summing, Effect::ReadBooks)
            }
            (Phase::Summing, Input::Books(books)) => self.sum(books.slots, context),
            (Phase::Writing, Input::Committed(_)) => self.done(),
            _ => {
                self.finished = false;
                self.done()
            }
        }
    }
}
