//! Making sure that the count of places is right before anything is reserved: at the first run, after the table was
//! lost or restored, and when what counts was changed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::adoption::Adoption;
use super::counting::upkeep::Upkeep;
use super::machine::{
    Author, Census, CommitOutcome, Context, Effect, Fault, Input, Machine, Next, Roster, SlotsChange,
};
use super::records::{GhostState, HeldPlace, Holder, Slots, UserRecord};
use super::restoring::Restoring;
use super::timing;
use crate::config::Counts;
use crate::ids::{Stem, UpstreamId};

/// How often the list is read in the hope of two that agree.
const MAX_LISTS: u32 = 4;

/// How often the count is written when somebody changed the places meanwhile.
const MAX_COUNTS: u32 = 4;

/// Opens the places: two complete lists in a row agree, every unknown id is adopted, and then what is held is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Opening {
    author: Author,
    max: u32,
    counts: Counts,
    listed: Option<Vec<UpstreamId>>,
    lists: u32,
    countings: u32,
    adopted: u32,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Start,
    Founding,
    Creating,
    Restoring(Box<Restoring>),
    Listing,
    Comparing,
    Adopting(Box<Adoption>),
    ReadingForSwitch,
    Keeping(Box<Upkeep>),
    Counting,
    Writing,
}

/// How an opening ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Opened {
    /// The places are open.
    Open {
        /// The author, with its count of decisions.
        author: Author,
        /// How many ids were adopted.
        adopted: u32,
    },
    /// There was no time for all of them. What was done stays done, and the next one goes on from there.
    Unfinished {
        /// The author, with its count of decisions.
        author: Author,
        /// How many ids were adopted.
        adopted: u32,
    },
    /// SnapTrade's list could not be had.
    Fault(Fault),
    /// The store did not answer, or others changed the places all the time.
    Busy,
}

impl Opening {
    /// Opens the places for a limit of `max`.
    #[must_use]
    pub fn new(author: Author, max: u32, counts: Counts) -> Self {
        Self {
            author,
            max,
            counts,
            listed: None,
            lists: 0,
            countings: 0,
            adopted: 0,
            phase: Phase::Start,
        }
    }

    fn closed(&self, rev: u64) -> Slots {
        Slots {
            counts: self.counts,
            max: self.max,
            in_use: 0,
            rev,
            open: false,
            given_up: 0,
            held: BTreeMap::new(),
            last_eviction: None,
            restored: false,
            leaving: 0,
            elsewhere: 0,
            elsewhere_read: 0,
            epoch: rev,
            portals: BTreeMap::new(),
        }
    }

    fn list(&mut self, context: &Context<'_>) -> Next<Opened> {
        if !timing::may_call(Timestamp::MAX, context.deadline, context.now) {
            return Next::Done(Opened::Busy);
        }
        self.lists += 1;
        self.phase = Phase::Listing;
        Next::Do(Effect::List)
    }

    fn count(&mut self, context: &Context<'_>) -> Next<Opened> {
        if !timing::may_call(Timestamp::MAX, context.deadline, context.now) {
            return self.unfinished();
        }
        self.countings += 1;
        if self.countings > MAX_COUNTS {
            return Next::Done(Opened::Busy);
        }
        self.phase = Phase::Counting;
        Next::Do(Effect::Count(self.listed.clone().unwrap_or_default()))
    }

    fn compare(&mut self, list: Vec<UpstreamId>, context: &Context<'_>) -> Next<Opened> {
        // Nothing says that SnapTrade's order is stable, so lists that name the same ids agree.
        let ids = |list: &[UpstreamId]| list.iter().cloned().collect::<BTreeSet<_>>();
        let same = self.listed.as_deref().map(ids) == Some(ids(&list));
        self.listed = Some(list);
        if same {
            self.phase = Phase::Comparing;
            return Next::Do(Effect::ReadRoster);
        }
        if self.lists >= MAX_LISTS {
            Next::Done(Opened::Busy)
        } else {
            self.list(context)
        }
    }

    /// Makes records from a backup fit each other, and then goes on as after any other loss.
    fn restoring(&mut self, restoring: Restoring, next: Next<Author>, context: &Context<'_>) -> Next<Opened> {
        match next {
            Next::Do(effect) => {
                self.phase = Phase::Restoring(Box::new(restoring));
                Next::Do(effect)
            }
            Next::Done(author) => {
                self.author = author;
                self.list(context)
            }
        }
    }

    fn adopt(&mut self, roster: &Roster, context: &mut Context<'_>) -> Next<Opened> {
        let unknown = unknown_ids(self.listed.as_deref().unwrap_or_default(), roster);
        let mut adoption = Adoption::new(self.author.clone(), unknown);
        let next = adoption.advance(Input::Begin, context);
        self.adopting(adoption, next, context)
    }

    fn unfinished(&self) -> Next<Opened> {
        Next::Done(Opened::Unfinished {
            author: self.author.clone(),
            adopted: self.adopted,
        })
    }

    fn adopting(
        &mut self,
        adoption: Adoption,
        next: Next<super::adoption::Adopted>,
        context: &mut Context<'_>,
    ) -> Next<Opened> {
        match next {
            Next::Do(effect) => {
                self.phase = Phase::Adopting(Box::new(adoption));
                Next::Do(effect)
            }
            Next::Done(adopted) => {
                self.author = adopted.author;
                let more = u32::try_from(adopted.ids.len()).unwrap_or(u32::MAX);
                self.adopted = self.adopted.saturating_add(more);
                if adopted.finished {
                    self.adopted_all(context)
                } else {
                    self.unfinished()
                }
            }
        }
    }

    /// Begins a new counting, of something else than before. Nothing is reserved until it is done, and whoever still
    /// goes by the old one can change nothing.
    fn switch(&mut self, roster: &Roster, context: &Context<'_>) -> Next<Opened> {
        let Some(slots) = &roster.slots else {
            return Next::Done(Opened::Busy);
        };
        let becomes = Slots {
            counts: self.counts,
            max: self.max,
            ..anew(slots, roster)
        };
        let becomes = match self.counts {
            Counts::Users => Slots {
                in_use: u32::try_from(roster.holders.len()).unwrap_or(u32::MAX),
                leaving: 0,
                ..becomes
            },
            Counts::Connections => becomes,
        };
        let slots = SlotsChange::Replace {
            expect: Some(slots.rev),
            becomes: Box::new(becomes),
        };
        self.phase = Phase::Creating;
        Next::Do(Effect::Commit(self.author.commit(
            "switch",
            context.now,
            slots,
            Vec::new(),
            Vec::new(),
        )))
    }

    /// Where connections are counted, those of every user are listed before the places open. What one run does not
    /// get to is left to the next.
    fn adopted_all(&mut self, context: &mut Context<'_>) -> Next<Opened> {
        match self.counts {
            Counts::Users => self.count(context),
            Counts::Connections => {
                let upkeep = Upkeep::counting(self.author.clone());
                self.keeping(upkeep, Input::Begin, context)
            }
        }
    }

    fn keeping(&mut self, mut upkeep: Upkeep, input: Input, context: &mut Context<'_>) -> Next<Opened> {
        match upkeep.advance(input, context) {
            Next::Do(effect) => {
                self.phase = Phase::Keeping(Box::new(upkeep));
                Next::Do(effect)
            }
            Next::Done(kept) => {
                self.author = kept.author;
                match kept.fault {
                    Some(fault) => Next::Done(Opened::Fault(fault)),
                    None if kept.finished => self.count(context),
                    None => self.unfinished(),
                }
            }
        }
    }

    /// Opens the places on a count. Whoever is on the list or has a reservation was counted even where the index does
    /// not show them yet.
    fn open(&mut self, census: &Census, context: &Context<'_>) -> Next<Opened> {
        let Some(slots) = &census.slots else {
            return Next::Done(Opened::Busy);
        };
        let in_use = match self.counts {
            Counts::Users => census.holders(),
            Counts::Connections => slots.in_use,
        };
        let becomes = Slots {
            counts: self.counts,
            max: self.max,
            in_use,
            rev: slots.rev + 1,
            open: true,
            given_up: slots.given_up,
            held: reservations(census),
            restored: false,
            ..slots.clone()
        };
        let slots = SlotsChange::Replace {
            expect: Some(slots.rev),
            becomes: Box::new(becomes),
        };
        self.phase = Phase::Writing;
        Next::Do(Effect::Commit(self.author.commit(
            "open",
            context.now,
            slots,
            Vec::new(),
            Vec::new(),
        )))
    }
}

/// The places at the beginning of a new counting of connections: closed, with nothing in them but what is leaving
/// together with its user.
#[must_use]
pub fn anew(slots: &Slots, roster: &Roster) -> Slots {
    let going = roster
        .ghosts
        .iter()
        .filter(|ghost| ghost.state != GhostState::Gone);
    Slots {
        open: false,
        rev: slots.rev + 1,
        epoch: slots.rev + 1,
        in_use: 0,
        leaving: going.map(|ghost| ghost.connections).sum(),
        elsewhere: 0,
        elsewhere_read: 0,
        portals: BTreeMap::new(),
        ..slots.clone()
    }
}

/// The reservations that the records tell of. What the places say of them may have been lost with the places.
fn reservations(census: &Census) -> BTreeMap<Stem, HeldPlace> {
    let held = |user: &UserRecord| {
        let reservation = user.reservation()?;
        Some((user.stem.clone(), reservation.held_place()))
    };
    census.reserved.iter().filter_map(held).collect()
}

/// The listed ids that no record and no ghost names, with their places in the list.
#[must_use]
pub fn unknown_ids(listed: &[UpstreamId], roster: &Roster) -> Vec<(u32, UpstreamId)> {
    let holders = roster.holders.iter().filter_map(Holder::upstream);
    let ghosts = roster.ghosts.iter().map(|ghost| &ghost.upstream);
    let known: BTreeSet<&UpstreamId> = holders.chain(ghosts).collect();
    (0_u32..)
        .zip(listed)
        .filter(|(_, id)| !known.contains(id))
        .map(|(order, id)| (order, id.clone()))
        .collect()
}

impl Machine for Opening {
    type Output = Opened;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Next<Opened> {
        match (std::mem::replace(&mut self.phase, Phase::Start), input) {
            (Phase::Start, _) => {
                self.phase = Phase::Founding;
                Next::Do(Effect::ReadSlots)
            }
            (Phase::Founding, Input::Slots(slots)) => match slots {
                // A record there has to be from the start, so that everything that happens meanwhile shows in it.
                None => {
                    let slots = SlotsChange::Replace {
                        expect: None,
                        becomes: Box::new(self.closed(self.author.attempt.first_revision())),
                    };
                    self.phase = Phase::Creating;
                    Next::Do(Effect::Commit(self.author.commit(
                        "found",
                        context.now,
                        slots,
                        Vec::new(),
                        Vec::new(),
                    )))
                }
                Some(slots) if slots.open && slots.counts == self.counts => Next::Done(Opened::Open {
                    author: self.author.clone(),
                    adopted: 0,
                }),
                Some(slots) if slots.counts != self.counts => {
                    self.phase = Phase::ReadingForSwitch;
                    Next::Do(Effect::ReadRoster)
                }
                Some(slots) if slots.restored => {
                    let mut restoring = Restoring::new(self.author.clone());
                    let next = restoring.advance(Input::Begin, context);
                    self.restoring(restoring, next, context)
                }
                Some(_) => self.list(context),
            },
            (Phase::ReadingForSwitch, Input::Roster(roster)) => self.switch(&roster, context),
            (Phase::Keeping(upkeep), input) => self.keeping(*upkeep, input, context),
            (Phase::Restoring(mut restoring), input) => {
                let next = restoring.advance(input, context);
                self.restoring(*restoring, next, context)
            }
            (Phase::Creating, Input::Committed(CommitOutcome::Unknown)) => Next::Done(Opened::Busy),
            (Phase::Creating, Input::Committed(_)) => self.list(context),
            (Phase::Listing, Input::Listed(Ok(list))) => self.compare(list, context),
            (Phase::Listing, Input::Listed(Err(fault))) => Next::Done(Opened::Fault(fault)),
            (Phase::Comparing, Input::Roster(roster)) => self.adopt(&roster, context),
            (Phase::Adopting(mut adoption), input) => {
                let next = adoption.advance(input, context);
                self.adopting(*adoption, next, context)
            }
            (Phase::Counting, Input::Counted(census)) => match &census.slots {
                Some(slots) if slots.open && slots.counts == self.counts => self.opened(),
                _ => self.open(&census, context),
            },
            (Phase::Writing, Input::Committed(CommitOutcome::Won)) => self.opened(),
            (Phase::Writing, Input::Committed(CommitOutcome::Lost(_))) => self.count(context),
            _ => Next::Done(Opened::Busy),
        }
    }
}

impl Opening {
    fn opened(&self) -> Next<Opened> {
        Next::Done(Opened::Open {
            author: self.author.clone(),
            adopted: self.adopted,
        })
    }
}
