//! Deleting a user at SnapTrade and here: by an operator, or at the user's own wish.

use super::clearing::{Cleared, Clearing, deletion_refused};
use super::machine::{
    Author, Change, CommitOutcome, Context, Effect, Entry, Expect, Fault, Input, Machine, Next, SlotsChange,
    Transition, Write,
};
use super::records::{
    ConnectionsRecord, ForeignRecord, Ghost, Holder, Reservation, ReservationKind, Slots, UserRecord,
    UserState,
};
use super::timing::{self, LEASE, SKEW};
use super::writes::{
    accept, connections_of, inherit, new_ghost, no_connections, put_new_ghost, remove_foreign,
    with_its_connections,
};
use crate::ids::{Stem, UpstreamId, UserId};

/// How often the decision is begun anew when others were faster.
const MAX_ROUNDS: u32 = 4;

/// What SnapTrade made of the deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamDeletion {
    /// It is queued there.
    Queued,
    /// SnapTrade knew no such id.
    UnknownThere,
}

/// Why a user was not deleted, or not wholly.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotLeft {
    /// There is no such user.
    #[error("there is no such user")]
    Unknown,
    /// The same user is being registered or deleted right now.
    #[error("the same user is being registered or deleted right now")]
    InProgress {
        /// Seconds after which to try again.
        retry_after: u64,
    },
    /// SnapTrade did not take the deletion. The user is on the way out; the sync goes on with it.
    #[error("SnapTrade did not take the deletion: {0:?}")]
    Snaptrade(Fault),
    /// Others changed the user all the time, or the store did not answer.
    #[error("the user could not be changed")]
    Busy,
}

/// Who is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Whom {
    /// Whoever is known by this id: the user of ours, else the oldest that SnapTrade lists under it.
    User(UserId),
    /// This holder and no other, whatever else is known under the same id.
    Holder(Box<Holder>),
}

/// Deletes a user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Leaving {
    whom: Whom,
    stem: Stem,
    author: Author,
    rounds: u32,
    record: Option<UserRecord>,
    ghosts: Vec<Ghost>,
    slots: Option<Slots>,
    connections: Option<ConnectionsRecord>,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Start,
    Looking,
    ReadingExpired,
    Reserving(Box<UserRecord>, Vec<Ghost>),
    Clearing(Box<Clearing>),
    /// A stranger beside a user of the same name is being noted as one to be deleted.
    Noting(Box<ForeignRecord>, Box<Ghost>),
    ClearingBeside(Box<ForeignRecord>, Box<Ghost>, Box<Clearing>),
    Freeing(UpstreamDeletion),
    GivingUp(Fault),
}

type Step = Next<Result<UpstreamDeletion, NotLeft>>;

impl Leaving {
    /// Deletes `whom`.
    #[must_use]
    pub fn new(whom: Whom, author: Author) -> Self {
        let stem = match &whom {
            Whom::User(user) => user.stem(),
            Whom::Holder(holder) => holder.stem(),
        };
        Self {
            whom,
            stem,
            author,
            rounds: 0,
            record: None,
            ghosts: Vec::new(),
            slots: None,
            connections: None,
            phase: Phase::Start,
        }
    }

    fn go(&mut self, phase: Phase, effect: Effect) -> Step {
        self.phase = phase;
        Next::Do(effect)
    }

    fn look(&mut self) -> Step {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Next::Done(Err(NotLeft::Busy));
        }
        self.go(Phase::Looking, Effect::ReadEntry(self.stem.clone()))
    }

    /// The record that is meant, of those that there are.
    fn meant(&self, entry: Entry) -> Option<Holder> {
        let mut holders = entry
            .user
            .into_iter()
            .map(Holder::User)
            .chain(entry.foreign.into_iter().map(Holder::Foreign));
        match &self.whom {
            Whom::User(_) => holders.next(),
            Whom::Holder(meant) => holders.find(|holder| {
                std::mem::discriminant(holder) == std::mem::discriminant(meant.as_ref())
                    && holder.upstream() == meant.upstream()
            }),
        }
    }

    fn enter(&mut self, entry: Entry, context: &Context<'_>) -> Step {
        let occupied = entry.user.is_some();
        self.slots.clone_from(&entry.slots);
        self.connections = entry.connections.clone().filter(|_| occupied);
        let Some(holder) = self.meant(entry) else {
            return Next::Done(Err(NotLeft::Unknown));
        };
        let foreign = match holder {
            Holder::User(user) => return self.enter_user(&user, context),
            Holder::Foreign(foreign) => foreign,
        };
        if occupied {
            // The user's own record stands where the departure would be noted. The stranger's place is free as soon as
            // its deletion is: nobody else can hold it meanwhile.
            return self.enter_beside_user(foreign, context);
        }
        self.enter_foreign(foreign, context)
    }

    fn enter_user(&mut self, user: &UserRecord, context: &Context<'_>) -> Step {
        match &user.state {
            UserState::Active(active) => {
                let ghost = Ghost {
                    connections: connections_of(self.slots.as_ref(), self.connections.as_ref()),
                    ..new_ghost(&self.author, &active.upstream, &self.stem, None, context.now)
                };
                let mut writes = vec![put_new_ghost(&ghost)];
                writes.extend(no_connections(
                    &self.author,
                    &self.stem,
                    self.connections.as_ref(),
                ));
                let record = self.record(vec![active.upstream.clone()], user.rev + 1, user, context);
                self.reserve(record, Expect::Revision(user.rev), vec![ghost], writes, context)
            }
            UserState::Reserved(reservation) if timing::expired(reservation.kept_until(), context.now) => {
                self.go(Phase::ReadingExpired, Effect::ReadReservation(self.stem.clone()))
            }
            UserState::Reserved(reservation) => {
                let free = timing::after(reservation.kept_until(), SKEW);
                let retry_after = timing::seconds_until(free, context.now);
                Next::Done(Err(NotLeft::InProgress { retry_after }))
            }
        }
    }

    fn enter_foreign(&mut self, foreign: ForeignRecord, context: &Context<'_>) -> Step {
        // An id that no user of ours could have is noted under the name of its partition, which any could.
        let named =
            UserId::parse(foreign.upstream.shown_user_id()).or_else(|_| UserId::parse(self.stem.as_str()));
        let Ok(user_id) = named else {
            return Next::Done(Err(NotLeft::Unknown));
        };
        let ghost = new_ghost(&self.author, &foreign.upstream, &self.stem, None, context.now);
        let writes = vec![put_new_ghost(&ghost), remove_foreign(&foreign)];
        let record = UserRecord {
            user_id,
            stem: self.stem.clone(),
            rev: self.author.attempt.first_revision(),
            created_at: foreign.created_at,
            protected: false,
            refused_at: None,
            state: self.reservation(vec![foreign.upstream], context),
        };
        self.reserve(record, Expect::Absent, vec![ghost], writes, context)
    }

    /// Deletes an id that is listed beside a user of the same name. The user's own record stands where the departure
    /// would be noted, so the stranger keeps its place until SnapTrade has accepted its deletion.
    fn enter_beside_user(&mut self, foreign: ForeignRecord, context: &Context<'_>) -> Step {
        let ghost = Ghost {
            waits: None,
            ..new_ghost(&self.author, &foreign.upstream, &self.stem, None, context.now)
        };
        let writes = vec![
            put_new_ghost(&ghost),
            Write::Foreign {
                stem: self.stem.clone(),
                slot: foreign.slot,
                expect: Expect::Revision(foreign.rev),
                becomes: Change::Same,
            },
        ];
        let audit = vec![self.author.audit(&self.stem, "user.leaving", &[])];
        let commit = self
            .author
            .commit("beside", context.now, SlotsChange::None, writes, audit);
        self.go(
            Phase::Noting(Box::new(foreign), Box::new(ghost)),
            Effect::Commit(commit),
        )
    }

    fn clearing_beside(
        &mut self,
        foreign: ForeignRecord,
        ghost: Ghost,
        clearing: Clearing,
        next: Next<Cleared>,
        context: &Context<'_>,
    ) -> Step {
        match next {
            Next::Do(effect) => self.go(
                Phase::ClearingBeside(Box::new(foreign), Box::new(ghost), Box::new(clearing)),
                effect,
            ),
            Next::Done(Cleared::All { unknown_there }) => {
                let writes = vec![accept(&ghost, context.now), remove_foreign(&foreign)];
                let audit = vec![self.author.audit(&self.stem, "user.left", &[])];
                let commit = self
                    .author
                    .commit("left", context.now, Transition::of(-1), writes, audit);
                self.go(Phase::Freeing(said(unknown_there)), Effect::Commit(commit))
            }
            Next::Done(Cleared::Refused { fault, .. } | Cleared::Unsettled(fault)) => {
                Next::Done(Err(NotLeft::Snaptrade(fault)))
            }
        }
    }

    fn take_over(&mut self, user: &UserRecord, ghosts: &[Ghost], context: &Context<'_>) -> Step {
        let Some(reservation) = user.reservation() else {
            return self.look();
        };
        let inherited = inherit(&self.author, &self.stem, reservation, ghosts, context.now);
        let record = self.record(inherited.after, user.rev + 1, user, context);
        let expect = Expect::Revision(user.rev);
        self.reserve(record, expect, inherited.ghosts, inherited.writes, context)
    }

    fn reservation(&self, after: Vec<UpstreamId>, context: &Context<'_>) -> UserState {
        UserState::Reserved(Reservation {
            kind: ReservationKind::Leave,
            attempt: self.author.attempt.clone(),
            upstream: None,
            until: timing::after(context.now, LEASE),
            held_until: None,
            after,
            refused_at: None,
        })
    }

    fn record(
        &self,
        after: Vec<UpstreamId>,
        rev: u64,
        old: &UserRecord,
        context: &Context<'_>,
    ) -> UserRecord {
        UserRecord {
            rev,
            protected: false,
            state: self.reservation(after, context),
            ..old.clone()
        }
    }

    fn reserve(
        &mut self,
        record: UserRecord,
        expect: Expect,
        ghosts: Vec<Ghost>,
        mut writes: Vec<Write>,
        context: &Context<'_>,
    ) -> Step {
        let Some(reservation) = record.reservation() else {
            return Next::Done(Err(NotLeft::Busy));
        };
        let held = reservation.held_place();
        writes.push(Write::User {
            stem: self.stem.clone(),
            expect,
            becomes: Change::Put(Box::new(record.clone())),
        });
        let slots = with_its_connections(
            Transition::of(0).holding(&self.stem, held),
            self.slots.as_ref(),
            self.connections.as_ref(),
            true,
            &mut writes,
        );
        let audit = vec![self.author.audit(&self.stem, "user.leaving", &[])];
        let commit = self.author.commit("leave", context.now, slots, writes, audit);
        self.go(Phase::Reserving(Box::new(record), ghosts), Effect::Commit(commit))
    }

    fn clear(&mut self, context: &mut Context<'_>) -> Step {
        let Some(reservation) = self.record.as_ref().and_then(UserRecord::reservation) else {
            return Next::Done(Err(NotLeft::Busy));
        };
        let mut clearing = Clearing::new(&reservation.after, reservation.until);
        let next = clearing.advance(Input::Begin, context);
        self.clearing(clearing, next, context)
    }

    fn clearing(&mut self, clearing: Clearing, next: Next<Cleared>, context: &Context<'_>) -> Step {
        match next {
            Next::Do(effect) => self.go(Phase::Clearing(Box::new(clearing)), effect),
            Next::Done(Cleared::All { unknown_there }) => self.free(unknown_there, context),
            Next::Done(Cleared::Refused { upstream, fault, .. }) => {
                let refused_at = deletion_refused(&upstream, &fault, context.now);
                self.give_up(fault, refused_at, context)
            }
            Next::Done(Cleared::Unsettled(fault)) => self.give_up(fault, None, context),
        }
    }

    fn free(&mut self, unknown_there: bool, context: &Context<'_>) -> Step {
        let Some(record) = &self.record else {
            return Next::Done(Err(NotLeft::Busy));
        };
        let mut writes: Vec<Write> = self
            .ghosts
            .iter()
            .map(|ghost| accept(ghost, context.now))
            .collect();
        writes.push(Write::User {
            stem: self.stem.clone(),
            expect: Expect::Revision(record.rev),
            becomes: Change::Gone,
        });
        let slots = Transition::of(-1).releasing(&self.stem);
        let audit = vec![self.author.audit(&self.stem, "user.left", &[])];
        let commit = self.author.commit("free", context.now, slots, writes, audit);
        self.go(Phase::Freeing(said(unknown_there)), Effect::Commit(commit))
    }

    fn give_up(&mut self, fault: Fault, refused_at: Option<jiff::Timestamp>, context: &Context<'_>) -> Step {
        let Some(mut record) = self.record.clone() else {
            return Next::Done(Err(NotLeft::Busy));
        };
        let expect = Expect::Revision(record.rev);
        record.rev += 1;
        let UserState::Reserved(reservation) = &mut record.state else {
            return Next::Done(Err(NotLeft::Busy));
        };
        reservation.until = jiff::Timestamp::UNIX_EPOCH;
        reservation.refused_at = refused_at;
        let held = reservation.held_place();
        let writes = vec![Write::User {
            stem: self.stem.clone(),
            expect,
            becomes: Change::Put(Box::new(record)),
        }];
        let slots = Transition::of(0).holding(&self.stem, held).giving_up();
        let audit = vec![self.author.audit(&self.stem, "place.given_up", &[])];
        let commit = self.author.commit("giveup", context.now, slots, writes, audit);
        self.go(Phase::GivingUp(fault), Effect::Commit(commit))
    }
}

fn said(unknown_there: bool) -> UpstreamDeletion {
    if unknown_there {
        UpstreamDeletion::UnknownThere
    } else {
        UpstreamDeletion::Queued
    }
}

impl Machine for Leaving {
    type Output = Result<UpstreamDeletion, NotLeft>;

    fn advance(&mut self, input: Input, context: &mut Context<'_>) -> Step {
        match (std::mem::replace(&mut self.phase, Phase::Start), input) {
            (Phase::Start, Input::Begin) => self.look(),
            (Phase::Looking, Input::Entry(entry)) => self.enter(*entry, context),
            (Phase::ReadingExpired, Input::Reservation(Some(user), ghosts))
                if user.is_expired(context.now) =>
            {
                self.take_over(&user, &ghosts, context)
            }
            (Phase::ReadingExpired, Input::Reservation(..)) => self.look(),
            (Phase::Reserving(record, ghosts), Input::Committed(outcome)) => match outcome {
                CommitOutcome::Won => {
                    self.record = Some(*record);
                    self.ghosts = ghosts;
                    self.clear(context)
                }
                CommitOutcome::Lost(_) => self.look(),
                CommitOutcome::Unknown => Next::Done(Err(NotLeft::Busy)),
            },
            (Phase::Clearing(mut clearing), input) => {
                let next = clearing.advance(input, context);
                self.clearing(*clearing, next, context)
            }
            (Phase::Noting(foreign, ghost), Input::Committed(CommitOutcome::Won)) => {
                let mut clearing = Clearing::new(
                    std::slice::from_ref(&foreign.upstream),
                    timing::after(context.now, LEASE),
                );
                let next = clearing.advance(Input::Begin, context);
                self.clearing_beside(*foreign, *ghost, clearing, next, context)
            }
            (Phase::Noting(..), Input::Committed(CommitOutcome::Lost(_))) => self.look(),
            (Phase::ClearingBeside(foreign, ghost, mut clearing), input) => {
                let next = clearing.advance(input, context);
                self.clearing_beside(*foreign, *ghost, *clearing, next, context)
            }
            // Whatever the store says: SnapTrade has taken the deletion, and what is left is written down.
            (Phase::Freeing(deletion), Input::Committed(_)) => Next::Done(Ok(deletion)),
            (Phase::GivingUp(fault), Input::Committed(_)) => Next::Done(Err(NotLeft::Snaptrade(fault))),
            _ => Next::Done(Err(NotLeft::Busy)),
        }
    }
}
