//! How far reading an account's transactions is. Nothing here does any I/O.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::connections::timing::{after, between};
use crate::ids::{AttemptId, UpstreamId};

/// How often they are read again although no event says that there are new ones. SnapTrade asks for once a day and
/// account at most.
pub const READ_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// From which age on they are called stale: a day, and two runs of the schedule.
pub const STALE_AFTER: Duration = Duration::from_secs(26 * 3600);

/// How long a transaction is kept after it was last written.
pub const KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// After how long all of them are written again, so that none goes while its account is connected.
pub const RENEWED: Duration = Duration::from_secs(45 * 24 * 3600);

/// How long whoever reads has an account's transactions to itself; renewed with every page.
pub const LEASE: Duration = Duration::from_secs(30);

/// How far reading an account's transactions is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionsRecord {
    /// Grows with every write.
    pub rev: u64,
    /// The user's id at SnapTrade.
    pub upstream: UpstreamId,
    /// Who reads, or did last.
    pub run: AttemptId,
    /// Until when; the beginning of time where nobody reads.
    pub until: Timestamp,
    /// The last complete reading.
    pub complete: Option<Complete>,
    /// The reading that is under way, or was left off.
    pub under_way: Option<UnderWay>,
}

/// A complete reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complete {
    /// When it began, in milliseconds since 1970.
    pub begun_ms: i64,
    /// When it was done.
    pub read_at: Timestamp,
    /// How many transactions there are.
    pub count: u64,
    /// When all of them were last written.
    pub written_at: Timestamp,
}

/// A reading that is not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay {
    /// When it began, in milliseconds since 1970.
    pub begun_ms: i64,
    /// What it does with what is stored already.
    pub manner: Manner,
    /// How many of the newest are done with.
    pub offset: u64,
    /// How many are stored of those that were there before, as far as is known.
    pub count: u64,
}

/// What a reading does with what is stored already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// There is nothing: everything is written.
    First,
    /// What is the same stays; it ends as soon as both sides agree.
    Update,
    /// Everything is written again, to the end.
    Renewal,
}

/// What came of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageResult {
    /// How many transactions were on it.
    pub received: u64,
    /// How many SnapTrade has in all, where it says so.
    pub total: Option<u64>,
    /// How many of them were not stored before.
    pub added: u64,
    /// How many were stored that SnapTrade does not have.
    pub removed: u64,
    /// Whether the page was full, which is all that is known where no total is said.
    pub full: bool,
}

impl TransactionsRecord {
    /// When the last complete reading began, in milliseconds since 1970; 0 where there is none.
    #[must_use]
    pub fn begun_ms(&self) -> i64 {
        self.complete.as_ref().map_or(0, |complete| complete.begun_ms)
    }

    /// Whether somebody reads right now. A lease that ends further ahead than any lasts was made before the clock was
    /// put back.
    #[must_use]
    pub fn is_being_read(&self, now: Timestamp) -> bool {
        self.until > now && self.until <= after(now, LEASE)
    }

    /// Whether they are to be read although no event asks for it.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.under_way.is_some()
            || self
                .complete
                .as_ref()
                .is_none_or(|complete| between(complete.read_at, now) >= READ_AGAIN)
    }
}

/// What a reading that begins now goes on with.
#[must_use]
pub fn begin(before: Option<&TransactionsRecord>, now: Timestamp) -> UnderWay {
    let complete = before.and_then(|record| record.complete.as_ref());
    if let Some(left_off) = before.and_then(|record| record.under_way.as_ref()) {
        return left_off.clone();
    }
    let manner = match complete {
        None => Manner::First,
        Some(complete) if between(complete.written_at, now) >= RENEWED => Manner::Renewal,
        Some(_) => Manner::Update,
    };
    UnderWay {
        begun_ms: now.as_millisecond(),
        manner,
        offset: 0,
        count: complete.map_or(0, |complete| complete.count),
    }
}

/// Where the reading stands after a page, and whether it is done.
#[must_use]
pub fn advance(under_way: &UnderWay, page: PageResult) -> (UnderWay, bool) {
    let offset = under_way.offset.saturating_add(page.received);
    let count = under_way
        .count
        .saturating_add(page.added)
        .saturating_sub(page.removed);
    let at_the_end = match page.total {
        Some(total) => offset >= total || page.received == 0,
        None => !page.full,
    };
    let agrees = under_way.manner == Manner::Update
        && page.total == Some(count)
        // What is new stands at the top, so that a page with something known is where the known begins.
        && page.added < page.received;
    // At the end everything was looked at, so that what SnapTrade counts is what is stored.
    let count = match page.total {
        Some(total) if at_the_end => total,
        _ => count,
    };
    let next = UnderWay {
        offset,
        count,
        ..under_way.clone()
    };
    (next, at_the_end || agrees)
}

/// The complete reading that an ended one makes.
#[must_use]
pub fn ended(done: &UnderWay, before: Option<&Complete>, now: Timestamp) -> Complete {
    let begun = Timestamp::from_millisecond(done.begun_ms).unwrap_or(now);
    Complete {
        begun_ms: done.begun_ms,
        read_at: now,
        count: done.count,
        written_at: match (done.manner, before) {
            (Manner::Update, Some(before)) => before.written_at,
            _ => begun,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn page(received: u64, total: u64, added: u64, removed: u64) -> PageResult {
        PageResult {
            received,
            total: Some(total),
            added,
            removed,
            full: received == 1000,
        }
    }

    fn update(count: u64) -> UnderWay {
        UnderWay {
            begun_ms: 0,
            manner: Manner::Update,
            offset: 0,
            count,
        }
    }

    #[test]
    fn the_first_reading_goes_to_the_end_and_can_be_taken_up_where_it_was_left() {
        let now = at("2026-11-21T10:00:00Z");
        let first = begin(None, now);
        assert_eq!((first.manner, first.offset), (Manner::First, 0));
        let (second, done) = advance(&first, page(1000, 1500, 1000, 0));
        assert!(!done);
        let record = TransactionsRecord {
            rev: 1,
            upstream: UpstreamId::from_snaptrade("ada~aaaaaaaaaaaa"),
            run: crate::connections::runner::new_attempt(),
            until: Timestamp::UNIX_EPOCH,
            complete: None,
            under_way: Some(second.clone()),
        };
        assert!(record.is_due(now));
        let later = at("2026-11-21T11:00:00Z");
        assert_eq!(begin(Some(&record), later), second);
        let (last, done) = advance(&second, page(500, 1500, 500, 0));
        assert!(done);
        let complete = ended(&last, None, later);
        assert_eq!((complete.count, complete.written_at), (1500, now));
        let record = TransactionsRecord {
            complete: Some(complete),
            under_way: None,
            ..record
        };
        assert!(!record.is_due(later));
        assert!(record.is_due(at("2026-11-22T11:00:00Z")));
        assert_eq!(begin(Some(&record), later).manner, Manner::Update);
        assert_eq!(
            begin(Some(&record), at("2027-01-05T10:00:00Z")).manner,
            Manner::Renewal
        );
    }

    #[test]
    fn reading_again_ends_as_soon_as_both_sides_count_the_same() {
        assert!(advance(&update(5000), page(1000, 5000, 0, 0)).1);
        assert!(advance(&update(5000), page(1000, 5003, 3, 0)).1);
        assert!(advance(&update(5000), page(1000, 4999, 0, 1)).1);
        // All of the page is new, so there may be more.
        assert!(!advance(&update(5000), page(1000, 6000, 1000, 0)).1);
        // Somewhere further down they differ.
        assert!(!advance(&update(5000), page(1000, 5001, 0, 0)).1);
        assert!(advance(&update(10), page(12, 12, 2, 0)).1);
        assert!(advance(&update(0), page(0, 0, 0, 0)).1);
    }
}
