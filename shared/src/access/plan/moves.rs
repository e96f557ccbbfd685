//! Customers who change their name at TradingView, or correct it (facts/access.md C3, "name corrected /
//! member renamed").

use jiff::{SignedDuration, Timestamp};

use crate::access::duration::DAY_SECONDS;
use crate::access::names::Username;

/// How long a move is remembered.
pub const MOVES_WINDOW: SignedDuration = SignedDuration::from_secs(90 * DAY_SECONDS);

/// How many moves there may be in that time before a person has to look. Somebody who moves more often may be
/// passing the access on.
const MOVES_ALLOWED: usize = 2;

/// What a name that differs from the one that has access means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relocation {
    /// It is the same name.
    None,
    /// Access moves: the new name gets it, and once it has it the old one loses it.
    Move,
    /// A person has to look first.
    Review,
}

/// What the change from the name that has access to the one that the customer has now means. `moves` are the
/// times of those before.
#[must_use]
pub fn relocate(
    has_access: Option<&Username>,
    named: &Username,
    moves: &[Timestamp],
    now: Timestamp,
) -> Relocation {
    let Some(old) = has_access else {
        return Relocation::None;
    };
    if old.is_same(named) {
        return Relocation::None;
    }
    let since = now.checked_sub(MOVES_WINDOW).unwrap_or(Timestamp::MIN);
    let recent = moves.iter().filter(|at| **at > since).count();
    if recent < MOVES_ALLOWED {
        Relocation::Move
    } else {
        Relocation::Review
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::ledger::tests::at;

    fn name(text: &str) -> Username {
        Username::parse(text).unwrap()
    }

    /// Defect 6 of the original (A5): another spelling is another customer there.
    #[test]
    fn another_spelling_is_no_move() {
        let relocation = relocate(
            Some(&name("JoeBloggs")),
            &name("joebloggs"),
            &[],
            at("2026-01-01"),
        );
        assert_eq!(relocation, Relocation::None);
    }

    #[test]
    fn the_third_move_in_ninety_days_is_reviewed() {
        let moved =
            |moves: &[Timestamp], now: &str| relocate(Some(&name("old")), &name("new"), moves, at(now));
        let twice = [at("2026-01-01"), at("2026-02-01")];
        assert_eq!(moved(&[], "2026-03-01"), Relocation::Move);
        assert_eq!(moved(&twice[..1], "2026-03-01"), Relocation::Move);
        assert_eq!(moved(&twice, "2026-03-01"), Relocation::Review);
        assert_eq!(moved(&twice, "2026-04-01"), Relocation::Move);
    }

    #[test]
    fn a_first_name_is_no_move() {
        assert_eq!(
            relocate(None, &name("new"), &[], at("2026-01-01")),
            Relocation::None
        );
    }
}
