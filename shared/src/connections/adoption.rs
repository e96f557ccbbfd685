//! Taking in ids that SnapTrade lists and nobody here knows.

use std::collections::{BTreeSet, VecDeque};

use jiff::Timestamp;

use super::machine::{
    Author, Change, CommitOutcome, Context, Effect, Entry, Expect, Input, Machine, Next, Obstacle,
    Transition, Write,
};
use super::records::{FOREIGN_SLOTS, ForeignRecord};
use super::timing;
use crate::ids::{Stem, UpstreamId};

/// How often an adoption is decided anew because somebody else wrote first.
const MAX_RETRIES: u32 = 8;

/// Most ids that are adopted at once. Each takes four writes, and DynamoDB makes at most 100 together; the five records
/// that decide about each are read together, at most 100 as well.
const MAX_TOGETHER: usize = 20;

/// Adopts listed ids, some at a time, in the order of the list. Each gets a place, even above the limit: it is at
/// SnapTrade already.
///
/// The list must have been read before the machine starts: an id whose record is read after the list and does not
/// name it was not registered here, or was given up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Adoption {
    author: Author,
    queue: VecDeque<Unknown>,
    together: usize,
    adopted: Vec<UpstreamId>,
    sure: bool,
    retries: u32,
    phase: Phase,
}

/// A listed id that nobody here knows, and its place in the list.
type Unknown = (u32, UpstreamId);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Looking(Vec<Unknown>),
    Writing(Vec<Unknown>),
}

impl Adoption {
    /// Adopts `unknown`, numbered by their places in the list.
    #[must_use]
    pub fn new(author: Author, unknown: Vec<(u32, UpstreamId)>) -> Self {
        Self {
            author,
            queue: unknown.into(),
            together: MAX_TOGETHER,
            adopted: Vec::new(),
            sure: true,
            retries: 0,
            phase: Phase::Idle,
        }
    }

    fn next(&mut self, context: &Context<'_>) -> Next<Adopted> {
        // What there is no time for is found again.
        let in_time = timing::may_call(Timestamp::MAX, context.deadline, context.now);
        let batch = if in_time { self.batch() } else { Vec::new() };
        if batch.is_empty() {
            return Next::Done(Adopted {
                ids: std::mem::take(&mut self.adopted),
                finished: in_time && self.sure,
                author: self.author.clone(),
            });
        }
        let stems = batch.iter().map(|(_, upstream)| upstream.stem()).collect();
        self.phase = Phase::Looking(batch);
        Next::Do(Effect::ReadEntries(stems))
    }

    /// The next ids, of different users: those of one user depend on each other.
    fn batch(&mut self) -> Vec<Unknown> {
        let mut stems: BTreeSet<Stem> = BTreeSet::new();
        let mut batch = Vec::new();
        while batch.len() < self.together {
            let another = |(_, upstream): &Unknown| !stems.contains(&upstream.stem());
            if !self.queue.front().is_some_and(another) {
                break;
            }
            let Some(first) = self.queue.pop_front() else {
                break;
            };
            stems.insert(first.1.stem());
            batch.push(first);
        }
        batch
    }

    fn adopt(&mut self, batch: Vec<Unknown>, entries: &[Entry], context: &Context<'_>) -> Next<Adopted> {
        let (mut writes, mut audit, mut adopted) = (Vec::new(), Vec::new(), Vec::new());
        for ((order, upstream), entry) in batch.into_iter().zip(entries) {
            let ours = entry.user.as_ref().and_then(|user| user.upstream()) == Some(&upstream);
            let known = entry.foreign.iter().any(|foreign| foreign.upstream == upstream);
            let taken: Vec<u8> = entry.foreign.iter().map(|foreign| foreign.slot).collect();
            let free = (0..FOREIGN_SLOTS).find(|slot| !taken.contains(slot));
            let Some(slot) = free.filter(|_| !ours && !known) else {
                continue;
            };
            let stem = upstream.stem();
            let record = ForeignRecord {
                upstream: upstream.clone(),
                rev: self.author.attempt.first_revision(),
                created_at: context.now,
                order,
                missing_since: None,
                protected: false,
                refused_at: None,
                slot,
            };
            // The user's own record must still not name the id, and no ghost may: then nobody here answers for it.
            let unchanged = entry
                .user
                .as_ref()
                .map_or(Expect::Absent, |user| Expect::Revision(user.rev));
            writes.extend([
                Write::Foreign {
                    stem: stem.clone(),
                    slot,
                    expect: Expect::Absent,
                    becomes: Change::Put(Box::new(record)),
                },
                Write::User {
                    stem: stem.clone(),
                    expect: unchanged,
                    becomes: Change::Same,
                },
                Write::Ghost {
                    upstream: upstream.clone(),
                    expect: Expect::Absent,
                    becomes: Change::Same,
                },
            ]);
            let detail = [("upstream_id", upstream.as_str())];
            audit.push(self.author.audit(&stem, "place.adopted", &detail));
            adopted.push((order, upstream));
        }
        if adopted.is_empty() {
            return self.next(context);
        }
        let slots = Transition::of(i32::try_from(adopted.len()).unwrap_or(i32::MAX));
        self.phase = Phase::Writing(adopted);
        Next::Do(Effect::Commit(self.author.commit(
            "adopt",
            context.now,
            slots,
            writes,
            audit,
        )))
    }

    /// Some of them were registered, retired or adopted meanwhile, or another id of the same user has taken the key.
    fn lost(&mut self, mut batch: Vec<Unknown>, obstacles: &[Obstacle]) {
        let retired = |id: &UpstreamId| {
            obstacles
                .iter()
                .any(|o| matches!(o, Obstacle::Ghost(o) if o == id))
        };
        let before = batch.len();
        // Whoever retired an id answers for it.
        batch.retain(|(_, id)| !retired(id));
        if batch.len() == before {
            self.retries += 1;
            // Fewer at a time meet fewer others.
            self.together = (self.together / 2).max(1);
            if self.retries > MAX_RETRIES {
                self.sure = false;
                return;
            }
        }
        for unknown in batch.into_iter().rev() {
            self.queue.push_front(unknown);
        }
    }
}

/// What was adopted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Adopted {
    /// The ids.
    pub ids: Vec<UpstreamId>,
    /// Whether there was time for all, and the store told how each went.
    pub finished: bool,
    /// The author, with its count of decisions.
    pub author: Author,
}

impl Machine for Adoption {
    type Output = Adopted;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Next<Adopted> {
        match (std::mem::replace(&mut self.phase, Phase::Idle), input) {
            (Phase::Looking(batch), Input::Entries(entries)) => self.adopt(batch, &entries, context),
            (Phase::Writing(batch), Input::Committed(outcome)) => {
                match outcome {
                    CommitOutcome::Won => self.adopted.extend(batch.into_iter().map(|(_, id)| id)),
                    CommitOutcome::Lost(obstacles) => self.lost(batch, &obstacles),
                    CommitOutcome::Unknown => self.sure = false,
                }
                self.next(context)
            }
            _ => self.next(context),
        }
    }
}
