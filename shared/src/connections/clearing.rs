//! Having SnapTrade accept the deletion of every id that a place owes.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::machine::{Context, Deletion, Effect, Fault, Input, Machine, Next};
use super::timing;
use crate::ids::UpstreamId;

/// How often a deletion is sent whose answer is lost.
const MAX_SENDS: u32 = 3;

/// The longest wait that SnapTrade may ask for and get within the request.
pub const SHORT_WAIT: Duration = Duration::from_secs(3);

/// Deletes ids at SnapTrade, one after the other, and stops at the first that does not go. The ids are never used
/// again, so a deletion may be sent any number of times.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Clearing {
    queue: VecDeque<UpstreamId>,
    until: Timestamp,
    sends: u32,
    uncertain: BTreeSet<UpstreamId>,
    all_unknown_there: bool,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Deleting(UpstreamId),
    Pausing(UpstreamId),
}

/// How a clearing ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cleared {
    /// SnapTrade accepted every deletion.
    All {
        /// It knew none of the ids.
        unknown_there: bool,
    },
    /// SnapTrade refuses for certain to delete an id.
    Refused {
        /// Which one.
        upstream: UpstreamId,
        /// Why.
        fault: Fault,
        /// Whether an earlier sending of the same deletion may have had its effect.
        uncertain: bool,
    },
    /// It is not known whether a deletion took effect, or there was no time to send it.
    Unsettled(Fault),
}

impl Clearing {
    /// Deletes `owed`, starting no call that would outlive a lease until `until`.
    #[must_use]
    pub fn new(owed: &[UpstreamId], until: Timestamp) -> Self {
        Self {
            queue: owed.iter().cloned().collect(),
            until,
            sends: 0,
            uncertain: BTreeSet::new(),
            all_unknown_there: true,
            phase: Phase::Idle,
        }
    }

    fn next(&mut self, context: &Context<'_>) -> Next<Cleared> {
        self.sends = 0;
        match self.queue.pop_front() {
            Some(upstream) => self.send(upstream, context),
            None => Next::Done(Cleared::All {
                unknown_there: self.all_unknown_there,
            }),
        }
    }

    fn send(&mut self, upstream: UpstreamId, context: &Context<'_>) -> Next<Cleared> {
        if !timing::may_call(self.until, context.deadline, context.now) {
            return Next::Done(Cleared::Unsettled(Fault::Timeout));
        }
        self.sends += 1;
        self.phase = Phase::Deleting(upstream.clone());
        Next::Do(Effect::Delete(upstream))
    }

    fn pause(&mut self, upstream: UpstreamId, pause: Duration) -> Next<Cleared> {
        self.phase = Phase::Pausing(upstream);
        Next::Do(Effect::Wait(pause))
    }

    fn deleted(&mut self, upstream: UpstreamId, deletion: Deletion, context: &Context<'_>) -> Next<Cleared> {
        match deletion {
            Deletion::Queued => {
                self.all_unknown_there = false;
                self.next(context)
            }
            Deletion::NotThere => self.next(context),
            Deletion::Refused(Fault::RateLimited(wait)) if self.sends < MAX_SENDS && wait <= SHORT_WAIT => {
                self.pause(upstream, wait)
            }
            Deletion::Refused(fault) => {
                let uncertain = self.uncertain.contains(&upstream);
                Next::Done(Cleared::Refused {
                    upstream,
                    fault,
                    uncertain,
                })
            }
            Deletion::Unknown(fault) => {
                self.uncertain.insert(upstream.clone());
                let pause = Duration::from_millis(200_u64 << self.sends.min(4));
                let later = timing::after(context.now, pause);
                if self.sends < MAX_SENDS && timing::may_call(self.until, context.deadline, later) {
                    self.pause(upstream, pause)
                } else {
                    Next::Done(Cleared::Unsettled(fault))
                }
            }
        }
    }
}

/// Says that SnapTrade refused to delete an id, and when, if it refused that id. `None` where it only wanted fewer
/// calls or could not be reached: the next call may well succeed.
pub fn deletion_refused(upstream: &UpstreamId, fault: &Fault, now: Timestamp) -> Option<Timestamp> {
    if *fault != Fault::Error {
        return None;
    }
    tracing::error!(
        alarm = "deletion_refused",
        upstream_id = %upstream,
        "SnapTrade refuses to delete an id; its place stays taken, and the sync tries again"
    );
    Some(now)
}

impl Machine for Clearing {
    type Output = Cleared;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Next<Cleared> {
        match (std::mem::replace(&mut self.phase, Phase::Idle), input) {
            (Phase::Idle, Input::Begin) => self.next(context),
            (Phase::Deleting(upstream), Input::Deleted(deletion)) => {
                self.deleted(upstream, deletion, context)
            }
            (Phase::Pausing(upstream), Input::Waited) => self.send(upstream, context),
            _ => Next::Done(Cleared::Unsettled(Fault::Error)),
        }
    }
}
