//! Marking a connection that its own user wants gone, before SnapTrade is asked to delete it, and taking the mark back
//! where SnapTrade refuses for certain.
//!
//! A marked connection takes no place any more but counts among those that are leaving, until [`super::reconciling`]
//! finds that SnapTrade no longer lists it. Whoever dies after marking leaves it to the sync, which asks SnapTrade again.

use super::reconciling::difference;
use crate::connections::machine::{
    Author, Change, CommitOutcome, Context, Effect, Entry, Expect, Input, Machine, Next, Write,
};
use crate::connections::records::{ConnectionsRecord, UserRecord};
use crate::ids::{Stem, UpstreamId};
use crate::snaptrade::ConnectionId;

/// How often the decision is begun anew when others were faster.
const MAX_ROUNDS: u32 = 4;

/// Marks a connection as leaving, or takes that back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Disconnecting {
    stem: Stem,
    connection: ConnectionId,
    leaves: bool,
    author: Author,
    rounds: u32,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Start,
    Looking,
    Writing,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disconnected {
    /// It is as it should be, now or already before.
    Marked,
    /// The books do not have this connection under the user's present registration.
    NotCounted,
    /// The store did not answer, or others changed the same all the time.
    Busy,
}

impl Disconnecting {
    /// Marks `connection` of the user in partition `stem` as leaving; with `leaves` false it takes the mark back.
    #[must_use]
    pub fn new(stem: Stem, connection: ConnectionId, leaves: bool, author: Author) -> Self {
        Self {
            stem,
            connection,
            leaves,
            author,
            rounds: 0,
            phase: Phase::Start,
        }
    }

    fn look(&mut self) -> Next<Disconnected> {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Next::Done(Disconnected::Busy);
        }
        self.phase = Phase::Looking;
        Next::Do(Effect::ReadEntry(self.stem.clone()))
    }

    fn write(&mut self, entry: &Entry, context: &Context<'_>) -> Next<Disconnected> {
        let Some(slots) = &entry.slots else {
            return Next::Done(Disconnected::Busy);
        };
        let user = entry.user.as_ref();
        let upstream: Option<&UpstreamId> = user.and_then(UserRecord::upstream);
        let (Some(user), Some(old)) = (user, &entry.connections) else {
            return Next::Done(Disconnected::NotCounted);
        };
        let mut becomes = ConnectionsRecord {
            rev: old.rev + 1,
            ..old.clone()
        };
        let current = old.epoch == slots.epoch && old.upstream.as_ref() == upstream;
        let Some(connection) = becomes.ids.get_mut(&self.connection).filter(|_| current) else {
            return Next::Done(Disconnected::NotCounted);
        };
        if connection.leaving.is_some() == self.leaves {
            return Next::Done(Disconnected::Marked);
        }
        connection.leaving = self.leaves.then_some(context.now);
        let transition = difference(slots, Some(old), Some(&becomes));
        let writes = vec![
            Write::Connections {
                stem: self.stem.clone(),
                expect: Expect::Revision(old.rev),
                becomes: Change::Put(Box::new(becomes)),
            },
            Write::User {
                stem: self.stem.clone(),
                expect: Expect::Revision(user.rev),
                becomes: Change::Same,
            },
        ];
        let action = if self.leaves {
            "connection.leaves"
        } else {
            "connection.stays"
        };
        let detail = [("connection", self.connection.as_str())];
        let audit = vec![self.author.audit(&self.stem, action, &detail)];
        let commit = self
            .author
            .commit("disconnect", context.now, transition, writes, audit);
        self.phase = Phase::Writing;
        Next::Do(Effect::Commit(commit))
    }
}

impl Machine for Disconnecting {
    type Output = Disconnected;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Next<Disconnected> {
        match (std::mem::replace(&mut self.phase, Phase::Start), input) {
            (Phase::Start, Input::Begin) => self.look(),
            (Phase::Looking, Input::Entry(entry)) => self.write(&entry, context),
            (Phase::Writing, Input::Committed(CommitOutcome::Won)) => Next::Done(Disconnected::Marked),
            // Where the answer was lost the mark shows whether it was made.
            (Phase::Writing, Input::Committed(_)) => self.look(),
            _ => Next::Done(Disconnected::Busy),
        }
    }
}
