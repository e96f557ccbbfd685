//! Finding out whether a user is really gone from SnapTrade.

use jiff::Timestamp;

use super::machine::{
    Author, Change, CommitOutcome, Context, Effect, Entry, Expect, Input, Machine, Next, SecretStanding,
    Transition, Write,
};
use super::records::UserRecord;
use super::timing;
use super::writes::{no_connections, with_its_connections};
use crate::config::Counts;

/// Removes an active user whom SnapTrade no longer lets in. Neither a list nor an event is believed: SnapTrade has to
/// refuse the user's own secret, naming it, while it accepts our own credentials before and after.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Vanishing {
    user: UserRecord,
    author: Author,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Start,
    CheckingBefore,
    Probing,
    CheckingAfter,
    ReadingConnections,
    Removing,
}

/// Whether the user was removed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Vanished {
    /// It was.
    pub removed: bool,
    /// The author, with its count of decisions.
    pub author: Author,
}

impl Vanishing {
    /// Looks after `user`, as it was read.
    #[must_use]
    pub fn new(user: UserRecord, author: Author) -> Self {
        Self {
            user,
            author,
            phase: Phase::Start,
        }
    }

    fn done(&self, removed: bool) -> Next<Vanished> {
        Next::Done(Vanished {
            removed,
            author: self.author.clone(),
        })
    }

    fn remove(&mut self, entry: Option<&Entry>, context: &Context<'_>) -> Next<Vanished> {
        let stem = self.user.stem.clone();
        let mut writes = vec![Write::User {
            stem: stem.clone(),
            expect: Expect::Revision(self.user.rev),
            becomes: Change::Gone,
        }];
        let known = entry.and_then(|entry| entry.connections.as_ref());
        writes.extend(no_connections(&self.author, &stem, known));
        // SnapTrade lets nobody in under this id any more, so its connections are gone with it.
        let slots = with_its_connections(
            Transition::of(-1),
            entry.and_then(|entry| entry.slots.as_ref()),
            known,
            false,
            &mut writes,
        );
        let audit = vec![self.author.audit(&stem, "user.vanished", &[])];
        self.phase = Phase::Removing;
        Next::Do(Effect::Commit(self.author.commit(
            "vanish",
            context.now,
            slots,
            writes,
            audit,
        )))
    }
}

impl Machine for Vanishing {
    type Output = Vanished;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Next<Vanished> {
        // The rest is three calls; a part of them proves nothing.
        let in_time = timing::may_call(Timestamp::MAX, context.deadline, context.now);
        match (self.phase, input) {
            (Phase::CheckingBefore | Phase::Probing | Phase::CheckingAfter, _) if !in_time => {
                self.done(false)
            }
            (Phase::Start, Input::Begin) if self.user.active().is_some() => {
                self.phase = Phase::CheckingBefore;
                Next::Do(Effect::ProbeCredentials)
            }
            (Phase::CheckingBefore, Input::ProbedCredentials(true)) => {
                self.phase = Phase::Probing;
                Next::Do(Effect::ProbeUser(Box::new(self.user.clone())))
            }
            (Phase::Probing, Input::Probed(SecretStanding::Rejected)) => {
                self.phase = Phase::CheckingAfter;
                Next::Do(Effect::ProbeCredentials)
            }
            (Phase::CheckingAfter, Input::ProbedCredentials(true)) => match self.author.counts {
                Counts::Users => self.remove(None, context),
                Counts::Connections => {
                    self.phase = Phase::ReadingConnections;
                    Next::Do(Effect::ReadEntry(self.user.stem.clone()))
                }
            },
            (Phase::ReadingConnections, Input::Entry(entry)) => self.remove(Some(&entry), context),
            (Phase::Removing, Input::Committed(outcome)) => self.done(outcome == CommitOutcome::Won),
            _ => self.done(false),
        }
    }
}
