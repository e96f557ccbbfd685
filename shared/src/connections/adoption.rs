//! Taking in ids that SnapTrade lists and nobody here knows.

use std::collections::VecDeque;

use super::machine::{
    Author, Change, CommitOutcome, Context, Effect, Entry, Expect, Input, Machine, Next, Transition, Write,
};
use super::records::ForeignRecord;
use crate::ids::UpstreamId;

/// Adopts listed ids, one after the other, in the order of the list. Each gets a place, even above the limit: it is
/// at SnapTrade already.
///
/// The list must have been read before the machine starts: an id whose record is read after the list and does not
/// name it was not registered here, or was given up.
#[derive(Debug, Clone, PartialEq)]
pub struct Adoption {
    author: Author,
    queue: VecDeque<(u32, UpstreamId)>,
    adopted: u32,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Idle,
    Looking(u32, UpstreamId),
    Writing,
}

impl Adoption {
    /// Adopts `unknown`, numbered by their places in the list.
    #[must_use]
    pub fn new(author: Author, unknown: Vec<(u32, UpstreamId)>) -> Self {
        Self {
            author,
            queue: unknown.into(),
            adopted: 0,
            phase: Phase::Idle,
        }
    }

    fn next(&mut self) -> Next<Adopted> {
        match self.queue.pop_front() {
            Some((order, upstream)) => {
                let stem = upstream.stem();
                self.phase = Phase::Looking(order, upstream);
                Next::Do(Effect::ReadEntry(stem))
            }
            None => Next::Done(Adopted {
                count: self.adopted,
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
        let known = entry
            .foreign
            .as_ref()
            .is_some_and(|foreign| foreign.upstream == upstream);
        if ours || known {
            return self.next();
        }
        let stem = upstream.stem();
        let extra = entry.foreign.is_some();
        let record = ForeignRecord {
            upstream: upstream.clone(),
            rev: self.author.attempt.first_revision(),
            created_at: context.now,
            order,
            missing_since: None,
            protected: false,
            extra,
        };
        // The user's own record must still not name the id, and no ghost may: then nobody here answers for it.
        let unchanged = entry
            .user
            .as_ref()
            .map_or(Expect::Absent, |user| Expect::Revision(user.rev));
        let writes = vec![
            Write::Foreign {
                stem: stem.clone(),
                extra: extra.then(|| upstream.clone()),
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
        self.phase = Phase::Writing;
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
#[derive(Debug, Clone, PartialEq)]
pub struct Adopted {
    /// How many ids.
    pub count: u32,
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
            (Phase::Writing, Input::Committed(outcome)) => {
                // A lost one was adopted, registered or retired by somebody else meanwhile, and an unknown one is
                // looked at again by the next run.
                if outcome == CommitOutcome::Won {
                    self.adopted += 1;
                }
                self.next()
            }
            _ => self.next(),
        }
    }
}
