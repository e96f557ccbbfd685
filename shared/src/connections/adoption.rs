//! Taking in ids that SnapTrade lists and nobody here knows.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::machine::{
    Author, Change, CommitOutcome, Context, Effect, Entry, Expect, Input, Machine, Next, Obstacle,
    Transition, Write,
};
use super::records::{FOREIGN_SLOTS, ForeignRecord};
use super::timing;
use crate::ids::UpstreamId;

/// How often an adoption is decided anew because somebody else wrote first.
const MAX_RETRIES: u32 = 8;

/// Adopts listed ids, one after the other, in the order of the list. Each gets a place, even above the limit: it is
/// at SnapTrade already.
///
/// The list must have been read before the machine starts: an id whose record is read after the list and does not
/// name it was not registered here, or was given up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Adoption {
    author: Author,
    queue: VecDeque<(u32, UpstreamId)>,
    adopted: Vec<UpstreamId>,
    sure: bool,
    retries: u32,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Looking(u32, UpstreamId),
    Writing(u32, UpstreamId),
}

impl Adoption {
    /// Adopts `unknown`, numbered by their places in the list.
    #[must_use]
    pub fn new(author: Author, unknown: Vec<(u32, UpstreamId)>) -> Self {
        Self {
            author,
            queue: unknown.into(),
            adopted: Vec::new(),
            sure: true,
            retries: 0,
            phase: Phase::Idle,
        }
    }

    fn next(&mut self, context: &Context<'_>) -> Next<Adopted> {
        // Each costs two calls to the store; what there is no time for is found again.
        let in_time = timing::may_call(Timestamp::MAX, context.deadline, context.now);
        match self.queue.pop_front().filter(|_| in_time) {
            Some((order, upstream)) => {
                let stem = upstream.stem();
                self.phase = Phase::Looking(order, upstream);
                Next::Do(Effect::ReadEntry(stem))
            }
            None => Next::Done(Adopted {
                ids: std::mem::take(&mut self.adopted),
                finished: in_time && self.sure,
                author: self.author.clone(),
            }),
        }
    }

    fn adopt(
        &mut self,
        order: u32,
        upstream: UpstreamId,
        entry: &Entry,
        context: &Context<'_>,
    ) -> Next<Adopted> {
        let ours = entry.user.as_ref().and_then(|user| user.upstream()) == Some(&upstream);
        let known = entry.foreign.iter().any(|foreign| foreign.upstream == upstream);
        let taken: Vec<u8> = entry.foreign.iter().map(|foreign| foreign.slot).collect();
        let free = (0..FOREIGN_SLOTS).find(|slot| !taken.contains(slot));
        let Some(slot) = free.filter(|_| !ours && !known) else {
            return self.next(context);
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
        let writes = vec![
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
        ];
        let audit = vec![
            self.author
                .audit(&stem, "place.adopted", &[("upstream_id", upstream.as_str())]),
        ];
        let slots = Transition::of(1);
        self.phase = Phase::Writing(order, upstream);
        Next::Do(Effect::Commit(self.author.commit(
            "adopt",
            context.now,
            slots,
            writes,
            audit,
        )))
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
            (Phase::Looking(order, upstream), Input::Entry(entry)) => {
                self.adopt(order, upstream, &entry, context)
            }
            (Phase::Writing(order, upstream), Input::Committed(outcome)) => {
                match outcome {
                    CommitOutcome::Won => self.adopted.push(upstream),
                    // It was retired meanwhile: whoever did that answers for it.
                    CommitOutcome::Lost(obstacles)
                        if obstacles
                            .iter()
                            .any(|obstacle| matches!(obstacle, Obstacle::Ghost(_))) => {}
                    // It was adopted or registered meanwhile, or another id of the same user has taken the key.
                    CommitOutcome::Lost(_) if self.retries < MAX_RETRIES => {
                        self.retries += 1;
                        self.queue.push_front((order, upstream));
                    }
                    CommitOutcome::Lost(_) => self.sure = false,
                    CommitOutcome::Unknown => self.sure = false,
                }
                self.next(context)
            }
            _ => self.next(context),
        }
    }
}
