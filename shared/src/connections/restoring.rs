//! Making records that come from a backup fit each other, before the places are opened on them.
//!
//! A backup is read item by item while others write, and time has passed since. So an id may be in use by one record
//! and to be deleted by another, and an eviction may stand half done. What SnapTrade has made of it meanwhile is not
//! known here: whoever is put back and no longer lives there is found by the next sync, with the user's own secret.

use std::collections::{BTreeSet, VecDeque};

use super::machine::{
    Author, Change, Context, Effect, Expect, Input, Machine, Next, Roster, Transition, Write,
};
use super::records::{Ghost, GhostState, Holder, UserRecord, UserState};
use super::writes::restore;
use crate::ids::{Stem, UpstreamId};

/// Repairs restored records, one contradiction after the other: an id that is in use is not to be deleted, and an
/// eviction that SnapTrade had not accepted is undone. Run again, it finds nothing left to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Restoring {
    author: Author,
    repairs: VecDeque<Repair>,
    phase: Phase,
}

/// An id that is not to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Repair {
    id: UpstreamId,
    ghost: Option<Ghost>,
    /// Who gave way for the place of `owed_by`, and comes back.
    victim: Option<Holder>,
    owed_by: Option<Stem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Start,
    Reading,
    /// Whether the victim's own place in the table is vacant.
    Looking(Box<Repair>),
    ReadingDebtor(Box<Repair>),
    Writing,
}

impl Restoring {
    /// Repairs in the name of `author`.
    #[must_use]
    pub fn new(author: Author) -> Self {
        Self {
            author,
            repairs: VecDeque::new(),
            phase: Phase::Start,
        }
    }

    fn next(&mut self, context: &Context<'_>) -> Next<Author> {
        let Some(repair) = self.repairs.pop_front() else {
            return Next::Done(self.author.clone());
        };
        if let Some(victim) = &repair.victim {
            let stem = victim.stem();
            self.phase = Phase::Looking(Box::new(repair));
            return Next::Do(Effect::ReadEntry(stem));
        }
        self.read_debtor(repair, context)
    }

    fn read_debtor(&mut self, repair: Repair, context: &Context<'_>) -> Next<Author> {
        match repair.owed_by.clone() {
            Some(stem) => {
                self.phase = Phase::ReadingDebtor(Box::new(repair));
                Next::Do(Effect::ReadReservation(stem))
            }
            None => self.write(&repair, None, context),
        }
    }

    fn write(&mut self, repair: &Repair, debtor: Option<UserRecord>, context: &Context<'_>) -> Next<Author> {
        let mut writes = Vec::new();
        let mut audit = Vec::new();
        if let Some(ghost) = &repair.ghost {
            writes.push(Write::Ghost {
                upstream: ghost.upstream.clone(),
                expect: Expect::Revision(ghost.rev),
                becomes: Change::Gone,
            });
        }
        if let Some(victim) = &repair.victim {
            writes.push(restore(victim));
            audit.push(self.author.audit(&victim.stem(), "user.restored", &[]));
        }
        if let Some(mut debtor) = debtor {
            let expect = Expect::Revision(debtor.rev);
            debtor.rev += 1;
            if let UserState::Reserved(reservation) = &mut debtor.state {
                reservation.after.retain(|id| *id != repair.id);
            }
            writes.push(Write::User {
                stem: debtor.stem.clone(),
                expect,
                becomes: Change::Put(Box::new(debtor)),
            });
        }
        if writes.is_empty() {
            return self.next(context);
        }
        self.phase = Phase::Writing;
        let slots = Transition::of(0);
        let commit = self.author.commit("restore", context.now, slots, writes, audit);
        Next::Do(Effect::Commit(commit))
    }
}

/// What is to be repaired of what was read.
fn repairs(roster: &Roster) -> VecDeque<Repair> {
    let in_use: BTreeSet<&UpstreamId> = roster
        .holders
        .iter()
        .filter(|holder| !matches!(holder, Holder::User(user) if user.reservation().is_some()))
        .filter_map(Holder::upstream)
        .collect();
    let debtors: Vec<(&Stem, &UpstreamId)> = roster
        .holders
        .iter()
        .filter_map(|holder| match holder {
            Holder::User(user) => user.reservation().map(|reservation| (&user.stem, reservation)),
            Holder::Foreign(_) => None,
        })
        .flat_map(|(stem, reservation)| reservation.after.iter().map(move |id| (stem, id)))
        .collect();
    let owed_by = |id: &UpstreamId| {
        debtors
            .iter()
            .find(|(_, owed)| *owed == id)
            .map(|(stem, _)| (*stem).clone())
    };
    let mut repairs: VecDeque<Repair> = roster
        .ghosts
        .iter()
        .filter_map(|ghost| {
            let contested = in_use.contains(&ghost.upstream);
            let victim = ghost
                .was
                .as_deref()
                .filter(|_| ghost.state == GhostState::Due && !contested);
            (contested || victim.is_some()).then(|| Repair {
                id: ghost.upstream.clone(),
                ghost: Some(ghost.clone()),
                victim: victim.cloned(),
                owed_by: owed_by(&ghost.upstream),
            })
        })
        .collect();
    let with_ghost: BTreeSet<UpstreamId> = repairs.iter().map(|repair| repair.id.clone()).collect();
    repairs.extend(
        debtors
            .iter()
            .filter(|(_, id)| in_use.contains(id) && !with_ghost.contains(*id))
            .map(|(stem, id)| Repair {
                id: (*id).clone(),
                ghost: None,
                victim: None,
                owed_by: Some((*stem).clone()),
            }),
    );
    repairs
}

impl Machine for Restoring {
    type Output = Author;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Next<Author> {
        match (std::mem::replace(&mut self.phase, Phase::Start), input) {
            (Phase::Start, Input::Begin) => {
                self.phase = Phase::Reading;
                Next::Do(Effect::ReadRoster)
            }
            (Phase::Reading, Input::Roster(roster)) => {
                self.repairs = repairs(&roster);
                self.next(context)
            }
            (Phase::Looking(repair), Input::Entry(entry)) => {
                let vacant = match &repair.victim {
                    Some(Holder::User(_)) => entry.user.is_none(),
                    Some(Holder::Foreign(foreign)) => {
                        !entry.foreign.iter().any(|there| there.slot == foreign.slot)
                    }
                    None => true,
                };
                // Somebody who has come anew meanwhile does not come back as before.
                if vacant {
                    self.read_debtor(*repair, context)
                } else {
                    self.next(context)
                }
            }
            (Phase::ReadingDebtor(repair), Input::Reservation(user, _)) => {
                let owes = user.filter(|user| {
                    user.reservation()
                        .is_some_and(|reservation| reservation.after.contains(&repair.id))
                });
                self.write(&repair, owes.map(|user| *user), context)
            }
            // What somebody else changed meanwhile needs no repair any more.
            _ => self.next(context),
        }
    }
}
