//! What of a backup is brought back, by what the table knows now.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::connections::machine::{AuditEntry, Author, Change, Expect, Write};
use crate::connections::records::{
    FOREIGN_SLOTS, ForeignRecord, Ghost, GhostState, Holder, ReservationKind, UserRecord,
};
use crate::connections::timing;
use crate::connections::writes::{put_new_ghost, remove_foreign};
use crate::ids::UpstreamId;

/// What the table knows of one user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The user's own record.
    pub user: Option<UserRecord>,
    /// The user's ids without a secret here.
    pub foreign: Vec<ForeignRecord>,
    /// Those of its ids that have to go, or just went.
    pub retired: BTreeSet<UpstreamId>,
}

/// What becomes of one record of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is brought back by these writes.
    Bring {
        /// The writes, each on what was read.
        writes: Vec<Write>,
        /// The line for the audit trail.
        audit: AuditEntry,
    },
    /// It is not.
    Leave(Left),
}

/// Why a record of a backup is not brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Left {
    /// The table has it.
    There,
    /// The user registered anew since, or is doing so.
    Newer,
    /// Its id was retired since: it gave way, or was deleted.
    Retired,
    /// It was only under way when the backup was made. If SnapTrade knows the id, the sync adopts it.
    Unfinished,
    /// The user has as many ids without a secret here as there may be.
    NoRoom,
}

/// The holder of a place that a record of a backup speaks of, if it speaks of one that may be brought back. A ghost
/// whose deletion nobody has answered for is brought back as who it was: nobody waits for its place any more.
#[must_use]
pub fn saved_holder(record: super::Record) -> Option<Holder> {
    match record {
        super::Record::User(user) => Some(Holder::User(*user)),
        super::Record::Foreign(foreign) => Some(Holder::Foreign(foreign)),
        super::Record::Ghost(ghost) if ghost.state == GhostState::Due => ghost.was.map(|was| *was),
        _ => None,
    }
}

/// What becomes of `saved`, a holder in a backup that was made at `taken_at`.
#[must_use]
pub fn bring_holder(
    saved: &Holder,
    standing: &Standing,
    taken_at: Timestamp,
    author: &Author,
    now: Timestamp,
) -> Decision {
    if saved.upstream().is_some_and(|id| standing.retired.contains(id)) {
        return Decision::Leave(Left::Retired);
    }
    match saved {
        Holder::User(user) => bring_user(user, standing, author, now),
        Holder::Foreign(foreign) => bring_foreign(foreign, standing, taken_at, author),
    }
}

fn bring_user(saved: &UserRecord, standing: &Standing, author: &Author, now: Timestamp) -> Decision {
    if let Some(there) = &standing.user {
        let same = there.upstream().is_some() && there.upstream() == saved.upstream();
        return Decision::Leave(if same { Left::There } else { Left::Newer });
    }
    if !may_be_brought(saved, now) {
        return Decision::Leave(Left::Unfinished);
    }
    // The id was adopted when the table was lost, because its secret was not there. Here it comes.
    let adopted: Vec<&ForeignRecord> = standing
        .foreign
        .iter()
        .filter(|foreign| Some(&foreign.upstream) == saved.upstream())
        .collect();
    let user = UserRecord {
        // Nobody who read the record before it was lost can mistake this one for it.
        rev: author.attempt.first_revision(),
        protected: saved.protected || adopted.iter().any(|foreign| foreign.protected),
        ..saved.clone()
    };
    let mut writes = vec![Write::User {
        stem: saved.stem.clone(),
        expect: Expect::Absent,
        becomes: Change::Put(Box::new(user)),
    }];
    writes.extend(adopted.into_iter().map(remove_foreign));
    writes.extend(saved.upstream().map(unless_retired));
    Decision::Bring {
        writes,
        audit: author.audit(&saved.stem, "user.restored", &[]),
    }
}

/// Whether a user's record means anything without what was under way when it was saved: a registered user, and a place
/// that is still kept for one. Anything else is finished or undone by what SnapTrade's list says.
fn may_be_brought(saved: &UserRecord, now: Timestamp) -> bool {
    saved.reservation().is_none_or(|reservation| {
        reservation.kind == ReservationKind::Hold
            && reservation.upstream.is_none()
            && reservation.after.is_empty()
            && !timing::expired(reservation.until, now)
    })
}

fn bring_foreign(
    saved: &ForeignRecord,
    standing: &Standing,
    taken_at: Timestamp,
    author: &Author,
) -> Decision {
    if standing.user.as_ref().and_then(UserRecord::upstream) == Some(&saved.upstream) {
        return Decision::Leave(Left::There);
    }
    let there = standing
        .foreign
        .iter()
        .find(|foreign| foreign.upstream == saved.upstream);
    let (slot, expect, rev, protected) = match there {
        // First seen after the backup that knows it: it was adopted anew, with an age that is not its own.
        Some(there) if there.created_at > taken_at && saved.created_at <= taken_at => (
            there.slot,
            Expect::Revision(there.rev),
            there.rev + 1,
            there.protected,
        ),
        Some(_) => return Decision::Leave(Left::There),
        None => {
            let taken = |slot: &u8| standing.foreign.iter().any(|foreign| foreign.slot == *slot);
            match (0..FOREIGN_SLOTS).find(|slot| !taken(slot)) {
                Some(slot) => (slot, Expect::Absent, author.attempt.first_revision(), false),
                None => return Decision::Leave(Left::NoRoom),
            }
        }
    };
    let stem = saved.upstream.stem();
    let foreign = ForeignRecord {
        slot,
        rev,
        protected: saved.protected || protected,
        missing_since: None,
        ..saved.clone()
    };
    Decision::Bring {
        writes: vec![
            Write::Foreign {
                stem: stem.clone(),
                slot,
                expect,
                becomes: Change::Put(Box::new(foreign)),
            },
            unless_retired(&saved.upstream),
        ],
        audit: author.audit(&stem, "user.restored", &[]),
    }
}

/// Nothing is written where the id was retired meanwhile.
fn unless_retired(upstream: &UpstreamId) -> Write {
    Write::Ghost {
        upstream: upstream.clone(),
        expect: Expect::Absent,
        becomes: Change::Same,
    }
}

/// The write that brings a ghost back, now that the holders are there; `None` where it stays away. An id that is both
/// a holder's and a ghost is the holder's.
#[must_use]
pub fn bring_ghost(saved: &Ghost, standing: &Standing, author: &Author) -> Option<Write> {
    let held = standing.user.as_ref().and_then(UserRecord::upstream) == Some(&saved.upstream)
        || standing
            .foreign
            .iter()
            .any(|foreign| foreign.upstream == saved.upstream);
    if held || standing.retired.contains(&saved.upstream) {
        return None;
    }
    Some(put_new_ghost(&Ghost {
        rev: author.attempt.first_revision(),
        by: author.attempt.clone(),
        // Who waited for it is not brought back, and who had the place was, if it could be.
        waits: None,
        was: None,
        ..saved.clone()
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Record;
    use super::*;
    use crate::ids::{AttemptId, UserId};

    const TAKEN_AT: &str = "2026-11-21T12:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn attempt(number: u8) -> AttemptId {
        AttemptId::from_random([number; 8])
    }

    fn author() -> Author {
        Author::new(attempt(99), "operator".to_owned())
    }

    /// A record as it is stored. What is not named has its default, as in a record of an older version.
    fn stored<T: serde::de::DeserializeOwned>(record: serde_json::Value) -> T {
        serde_json::from_value(record).unwrap()
    }

    fn ada_as(state: serde_json::Value) -> UserRecord {
        let user = UserId::parse("ada").unwrap();
        let mut record = json!({
            "user_id": user, "stem": user.stem(), "rev": 5, "created_at": "2026-01-01T00:00:00Z", "protected": false,
        });
        record
            .as_object_mut()
            .unwrap()
            .extend(state.as_object().unwrap().clone());
        stored(record)
    }

    fn ada(number: u8) -> UserRecord {
        let upstream = UpstreamId::mint(&UserId::parse("ada").unwrap().stem(), &attempt(number));
        ada_as(json!({
            "state": "active", "upstream": upstream, "secret": {"key_id": "k1", "sealed": "xyz"},
            "last_active_at": "2026-01-01T00:00:00Z", "connections": 1, "broken": false, "secret_rejected": false,
        }))
    }

    fn adopted(number: u8, created_at: &str) -> ForeignRecord {
        stored(json!({
            "upstream": ada(number).upstream(), "rev": 3, "created_at": created_at, "order": 2, "missing_since": null,
            "protected": true, "slot": 0,
        }))
    }

    fn reserved(kind: ReservationKind, until: &str) -> UserRecord {
        ada_as(json!({
            "state": "reserved", "kind": kind, "attempt": attempt(1), "upstream": null, "until": until, "after": [],
        }))
    }

    fn bring(saved: &Holder, standing: &Standing) -> Decision {
        bring_holder(
            saved,
            standing,
            at(TAKEN_AT),
            &author(),
            at("2026-11-21T13:00:00Z"),
        )
    }

    fn writes(decision: Decision) -> Vec<Write> {
        match decision {
            Decision::Bring { writes, .. } => writes,
            Decision::Leave(left) => panic!("left: {left:?}"),
        }
    }

    #[test]
    fn a_user_who_is_lost_comes_back_with_secret_age_and_a_revision_of_its_own() {
        let written = writes(bring(&Holder::User(ada(1)), &Standing::default()));
        let Some(Write::User {
            expect: Expect::Absent,
            becomes: Change::Put(user),
            ..
        }) = written.first()
        else {
            panic!("{written:?}");
        };
        assert_eq!((user.created_at, &user.state), (ada(1).created_at, &ada(1).state));
        assert_ne!(user.rev, ada(1).rev);
        let guards_against_retirement = Write::Ghost {
            upstream: ada(1).upstream().unwrap().clone(),
            expect: Expect::Absent,
            becomes: Change::Same,
        };
        assert!(written.contains(&guards_against_retirement));
    }

    #[test]
    fn a_user_takes_the_place_of_the_id_that_was_adopted_for_want_of_its_secret() {
        let standing = Standing {
            foreign: vec![
                adopted(1, "2026-11-21T12:30:00Z"),
                ForeignRecord {
                    slot: 1,
                    ..adopted(2, TAKEN_AT)
                },
            ],
            ..Standing::default()
        };
        let written = writes(bring(&Holder::User(ada(1)), &standing));
        assert!(written.contains(&remove_foreign(&standing.foreign[0])));
        assert!(!written.contains(&remove_foreign(&standing.foreign[1])));
        // Whoever protected it since meant this user.
        assert!(matches!(&written[0], Write::User { becomes: Change::Put(user), .. } if user.protected));
    }

    #[test]
    fn what_the_table_knows_wins() {
        let with = |user: UserRecord| Standing {
            user: Some(user),
            ..Standing::default()
        };
        let retired = Standing {
            retired: ada(1).upstream().cloned().into_iter().collect(),
            ..Standing::default()
        };
        let saved = Holder::User(ada(1));
        for (standing, expected) in [
            (with(ada(1)), Left::There),
            (with(ada(2)), Left::Newer),
            (
                with(reserved(ReservationKind::Register, "2026-11-21T13:00:30Z")),
                Left::Newer,
            ),
            (retired, Left::Retired),
        ] {
            assert_eq!(bring(&saved, &standing), Decision::Leave(expected));
        }
    }

    #[test]
    fn what_was_only_under_way_is_left_to_the_list_and_a_live_hold_is_kept() {
        for (kind, until, brought) in [
            (ReservationKind::Register, "2026-11-21T13:00:30Z", false),
            (ReservationKind::Leave, "2026-11-21T13:00:30Z", false),
            (ReservationKind::Hold, "2026-11-21T12:59:00Z", false),
            (ReservationKind::Hold, "2026-11-21T13:04:00Z", true),
        ] {
            let decision = bring(&Holder::User(reserved(kind, until)), &Standing::default());
            assert_eq!(
                matches!(decision, Decision::Bring { .. }),
                brought,
                "{kind:?} {until}"
            );
        }
    }

    #[test]
    fn an_adopted_id_gets_its_age_back_unless_the_table_knows_it_better() {
        let saved = adopted(1, "2026-02-02T00:00:00Z");
        let standing = |created_at: &str| Standing {
            foreign: vec![ForeignRecord {
                slot: 2,
                protected: false,
                ..adopted(1, created_at)
            }],
            ..Standing::default()
        };
        let holder = Holder::Foreign(saved.clone());
        let written = writes(bring(&holder, &standing("2026-11-21T12:30:00Z")));
        let Write::Foreign {
            slot: 2,
            expect: Expect::Revision(3),
            becomes: Change::Put(foreign),
            ..
        } = &written[0]
        else {
            panic!("{written:?}");
        };
        assert_eq!(
            (foreign.created_at, foreign.order, foreign.slot, foreign.protected),
            (saved.created_at, saved.order, 2, true)
        );
        let known = bring(&holder, &standing("2026-03-03T00:00:00Z"));
        assert_eq!(known, Decision::Leave(Left::There));
        let full = Standing {
            foreign: (0..FOREIGN_SLOTS)
                .map(|slot| ForeignRecord {
                    slot,
                    ..adopted(10 + slot, TAKEN_AT)
                })
                .collect(),
            ..Standing::default()
        };
        assert_eq!(bring(&holder, &full), Decision::Leave(Left::NoRoom));
    }

    #[test]
    fn restoring_twice_changes_nothing_the_second_time() {
        let restored = ForeignRecord {
            missing_since: None,
            ..adopted(1, "2026-02-02T00:00:00Z")
        };
        let standing = Standing {
            foreign: vec![restored.clone()],
            ..Standing::default()
        };
        let again = bring(&Holder::Foreign(restored), &standing);
        assert_eq!(again, Decision::Leave(Left::There));
    }

    #[test]
    fn an_id_that_is_a_holders_and_a_ghost_is_the_holders() {
        let ghost: Ghost = stored(json!({
            "upstream": ada(1).upstream(), "rev": 4, "state": "due", "by": attempt(7), "waits": "ada",
            "was": {"user": ada(1)}, "sent_at": TAKEN_AT, "accepted_at": null,
        }));
        let was = Some(Holder::User(ada(1)));
        assert_eq!(saved_holder(Record::Ghost(Box::new(ghost.clone()))), was);
        let standing = Standing {
            user: Some(ada(1)),
            ..Standing::default()
        };
        assert_eq!(bring_ghost(&ghost, &standing, &author()), None);
        let Some(Write::Ghost {
            expect: Expect::Absent,
            becomes: Change::Put(brought),
            ..
        }) = bring_ghost(&ghost, &Standing::default(), &author())
        else {
            panic!("the ghost stayed away");
        };
        assert_eq!(
            (brought.state, brought.waits, brought.was),
            (GhostState::Due, None, None)
        );
    }
}
