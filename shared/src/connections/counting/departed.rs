//! Finding out whether an id that has to go is gone, and its connections with it.

use jiff::Timestamp;

use crate::connections::machine::{
    Author, Change, CommitOutcome, ConnectionsChange, Context, Deletion, Effect, Expect, Fault, Input,
    Machine, Next, Transition, Write,
};
use crate::connections::records::{Ghost, GhostState};
use crate::connections::timing;
use crate::connections::writes::accept;
use crate::ids::UpstreamId;

/// Has SnapTrade delete an id, where it has not accepted that yet, and looks whether it lists it still. The connections
/// that were leaving with it are gone when it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Departed {
    upstream: UpstreamId,
    author: Author,
    ghost: Option<Box<Ghost>>,
    deletes: bool,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Start,
    Reading,
    Deleting,
    Accepting,
    Listing,
    Forgetting,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Departure {
    /// The id is gone.
    Gone(Author),
    /// SnapTrade has not finished deleting it, or others changed its record meanwhile.
    Pending(Author),
    /// SnapTrade could not be used.
    Unavailable(Fault, Author),
}

impl Departed {
    /// Looks after `upstream`. `deletes` says whether its deletion may be sent; otherwise somebody else sees to that.
    #[must_use]
    pub fn new(upstream: UpstreamId, deletes: bool, author: Author) -> Self {
        Self {
            upstream,
            author,
            ghost: None,
            deletes,
            phase: Phase::Start,
        }
    }

    fn go(&mut self, phase: Phase, effect: Effect) -> Next<Departure> {
        self.phase = phase;
        Next::Do(effect)
    }

    fn pending(&self) -> Next<Departure> {
        Next::Done(Departure::Pending(self.author.clone()))
    }

    fn gone(&self) -> Next<Departure> {
        Next::Done(Departure::Gone(self.author.clone()))
    }

    fn unavailable(&self, fault: Fault) -> Next<Departure> {
        Next::Done(Departure::Unavailable(fault, self.author.clone()))
    }

    fn read(&mut self, ghost: Option<Box<Ghost>>, context: &Context<'_>) -> Next<Departure> {
        let Some(ghost) = ghost.filter(|ghost| ghost.state != GhostState::Gone) else {
            return self.gone();
        };
        if !timing::may_call(Timestamp::MAX, context.deadline, context.now) {
            return self.unavailable(Fault::Timeout);
        }
        let due = ghost.state == GhostState::Due;
        self.ghost = Some(ghost);
        match due {
            true if self.deletes => self.go(Phase::Deleting, Effect::Delete(self.upstream.clone())),
            true => self.pending(),
            false => self.go(Phase::Listing, Effect::List),
        }
    }

    fn deleted(&mut self, deletion: Deletion, context: &Context<'_>) -> Next<Departure> {
        let Some(ghost) = &self.ghost else {
            return self.pending();
        };
        match deletion {
            Deletion::Queued | Deletion::NotThere => {
                let writes = vec![accept(ghost, context.now)];
                let slots = Transition::of(0);
                let commit = self
                    .author
                    .commit("accepted", context.now, slots, writes, Vec::new());
                self.go(Phase::Accepting, Effect::Commit(commit))
            }
            Deletion::Refused(fault) | Deletion::Unknown(fault) => self.unavailable(fault),
        }
    }

    fn listed(&mut self, list: &[UpstreamId], context: &Context<'_>) -> Next<Departure> {
        let Some(ghost) = self.ghost.clone().filter(|_| !list.contains(&self.upstream)) else {
            return self.pending();
        };
        let writes = vec![Write::Ghost {
            upstream: self.upstream.clone(),
            expect: Expect::Revision(ghost.rev),
            becomes: Change::Put(Box::new(Ghost {
                rev: ghost.rev + 1,
                state: GhostState::Gone,
                connections: 0,
                ..(*ghost).clone()
            })),
        }];
        let commit = self.author.commit(
            "gone",
            context.now,
            without_its_connections(&ghost),
            writes,
            Vec::new(),
        );
        self.go(Phase::Forgetting, Effect::Commit(commit))
    }
}

/// What the places become when a ghost is gone: its connections are leaving no more.
#[must_use]
pub fn without_its_connections(ghost: &Ghost) -> Transition {
    Transition::of(0).with_connections(ConnectionsChange {
        in_use: 0,
        leaving: -i32::try_from(ghost.connections).unwrap_or(i32::MAX),
        epoch: None,
    })
}

impl Machine for Departed {
    type Output = Departure;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Next<Departure> {
        match (std::mem::replace(&mut self.phase, Phase::Start), input) {
            (Phase::Start, Input::Begin)
            // What was accepted is read again: the list has to be begun after that.
            | (Phase::Accepting, Input::Committed(CommitOutcome::Won)) => {
                self.go(Phase::Reading, Effect::ReadGhost(self.upstream.clone()))
            }
            (Phase::Reading, Input::Ghost(ghost)) => self.read(ghost, context),
            (Phase::Deleting, Input::Deleted(deletion)) => self.deleted(deletion, context),
            (Phase::Listing, Input::Listed(Ok(list))) => self.listed(&list, context),
            (Phase::Listing, Input::Listed(Err(fault))) => self.unavailable(fault),
            (Phase::Forgetting, Input::Committed(CommitOutcome::Won)) => self.gone(),
            _ => self.pending(),
        }
    }
}
