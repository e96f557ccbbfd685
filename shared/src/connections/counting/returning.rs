//! Giving a place back from which no connection can come: SnapTrade refused the link for certain.

use crate::connections::counting::reconciling::difference;
use crate::connections::machine::{
    Author, Change, CommitOutcome, Context, Effect, Entry, Expect, Input, Machine, Next, Write,
};
use crate::connections::records::{ConnectionsRecord, PortalPlace};
use crate::ids::Stem;

/// How often the decision is begun anew when others were faster.
const MAX_ROUNDS: u32 = 4;

/// Gives back a place as its author took it. One that was used for another link since stays: a connection may come of
/// that.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Returning {
    stem: Stem,
    portal: PortalPlace,
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

impl Returning {
    /// Gives back `portal` of the user in partition `stem`.
    #[must_use]
    pub fn new(stem: Stem, portal: PortalPlace, author: Author) -> Self {
        Self {
            stem,
            portal,
            author,
            rounds: 0,
            phase: Phase::Start,
        }
    }

    fn look(&mut self) -> Next<bool> {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Next::Done(false);
        }
        self.phase = Phase::Looking;
        Next::Do(Effect::ReadEntry(self.stem.clone()))
    }

    fn write(&mut self, entry: &Entry, context: &Context<'_>) -> Next<bool> {
        let (Some(slots), Some(old)) = (&entry.slots, &entry.connections) else {
            return Next::Done(false);
        };
        if old.portal.as_ref() != Some(&self.portal) {
            return Next::Done(false);
        }
        let becomes = ConnectionsRecord {
            rev: old.rev + 1,
            portal: None,
            ..old.clone()
        };
        let transition = difference(slots, Some(old), Some(&becomes));
        let writes = vec![Write::Connections {
            stem: self.stem.clone(),
            expect: Expect::Revision(old.rev),
            becomes: Change::Put(Box::new(becomes)),
        }];
        let audit = vec![self.author.audit(&self.stem, "place.returned", &[])];
        let commit = self
            .author
            .commit("return", context.now, transition, writes, audit);
        self.phase = Phase::Writing;
        Next::Do(Effect::Commit(commit))
    }
}

impl Machine for Returning {
    /// Whether it was given back.
    type Output = bool;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Next<bool> {
        match (std::mem::replace(&mut self.phase, Phase::Start), input) {
            (Phase::Start, Input::Begin) => self.look(),
            (Phase::Looking, Input::Entry(entry)) => self.write(&entry, context),
            (Phase::Writing, Input::Committed(CommitOutcome::Won)) => Next::Done(true),
            (Phase::Writing, Input::Committed(CommitOutcome::Lost(_))) => self.look(),
            _ => Next::Done(false),
        }
    }
}
