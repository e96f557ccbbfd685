//! Writes that several decisions make.

use jiff::Timestamp;

use super::machine::{Change, Expect, Write};
use super::records::{Ghost, GhostState, Holder};

/// The write that notes that SnapTrade took the deletion of `ghost`.
#[must_use]
pub fn accept(ghost: &Ghost, now: Timestamp) -> Write {
    let becomes = Ghost {
        rev: ghost.rev + 1,
        state: GhostState::Accepted,
        waits: None,
        was: None,
        sent_at: now,
        accepted_at: Some(now),
        ..ghost.clone()
    };
    Write::Ghost {
        upstream: ghost.upstream.clone(),
        expect: Expect::Revision(ghost.rev),
        becomes: Change::Put(Box::new(becomes)),
    }
}

/// Writes a ghost that was not there.
#[must_use]
pub fn put_new_ghost(ghost: &Ghost) -> Write {
    Write::Ghost {
        upstream: ghost.upstream.clone(),
        expect: Expect::Absent,
        becomes: Change::Put(Box::new(ghost.clone())),
    }
}

/// Writes a ghost that was at revision `rev`.
#[must_use]
pub fn put_ghost(rev: u64, ghost: &Ghost) -> Write {
    Write::Ghost {
        upstream: ghost.upstream.clone(),
        expect: Expect::Revision(rev),
        becomes: Change::Put(Box::new(ghost.clone())),
    }
}

/// Removes a holder as it was read.
#[must_use]
pub fn remove(holder: &Holder) -> Write {
    match holder {
        Holder::User(user) => Write::User {
            stem: user.user_id.stem(),
            expect: Expect::Revision(user.rev),
            becomes: Change::Gone,
        },
        Holder::Foreign(foreign) => Write::Foreign {
            stem: foreign.upstream.stem(),
            extra: foreign.extra.then(|| foreign.upstream.clone()),
            expect: Expect::Revision(foreign.rev),
            becomes: Change::Gone,
        },
    }
}

/// Puts a holder back where nobody has come since.
#[must_use]
pub fn restore(holder: &Holder) -> Write {
    match holder.clone() {
        Holder::User(mut user) => {
            user.rev += 1;
            Write::User {
                stem: user.user_id.stem(),
                expect: Expect::Absent,
                becomes: Change::Put(Box::new(user)),
            }
        }
        Holder::Foreign(mut foreign) => {
            foreign.rev += 1;
            Write::Foreign {
                stem: foreign.upstream.stem(),
                extra: foreign.extra.then(|| foreign.upstream.clone()),
                expect: Expect::Absent,
                becomes: Change::Put(Box::new(foreign)),
            }
        }
    }
}
