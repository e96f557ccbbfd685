//! How long things may take. What a lease protects ends before the lease does.

use std::time::Duration;

use jiff::Timestamp;

/// How far the clocks of two instances may be apart.
pub const SKEW: Duration = Duration::from_secs(5);

/// The longest that one call to SnapTrade may take.
pub const CALL: Duration = Duration::from_secs(6);

/// How long a function works on one request: three seconds less than the 25 after which Lambda ends it, so that the
/// result of the last call can still be stored and answered.
pub const FUNCTION: Duration = Duration::from_secs(22);

/// How long a registration has its place to itself: longer than a function works, with a last call and the skew of
/// two clocks.
pub const LEASE: Duration = Duration::from_secs(60);

/// How long a place is held for a caller who has not registered yet.
pub const HOLD: Duration = Duration::from_secs(300);

/// How long a caller whose hold lapsed unused has to wait for the next.
pub const HOLD_AGAIN: Duration = Duration::from_secs(15 * 60);

/// How long a ghost that is gone is remembered, so that a late list or event does not bring it back as a stranger.
pub const GHOST_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// How old a list may be when something is decided by it, and how far two lists must lie apart to confirm each other.
pub const LIST_AGE: Duration = Duration::from_secs(60);

/// For how long an id that SnapTrade refused to delete is left alone, so that newcomers do not all run into it.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(300);

/// Whether SnapTrade refused a deletion so lately that it need not be asked again yet.
#[must_use]
pub fn lately_refused(refused_at: Option<Timestamp>, now: Timestamp) -> bool {
    refused_at.is_some_and(|at| after(at, REFUSED_PAUSE) > now)
}

/// `at` and `duration` later; the end of time where there is no later.
#[must_use]
pub fn after(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// Whether others may take what was leased until `until`: its holder's clock may be behind theirs.
#[must_use]
pub fn expired(until: Timestamp, now: Timestamp) -> bool {
    after(until, SKEW) <= now
}

/// Whether a call may still be started under a lease until `until` and a deadline of the function.
#[must_use]
pub fn may_call(until: Timestamp, deadline: Timestamp, now: Timestamp) -> bool {
    after(now, CALL + SKEW) <= until && after(now, CALL) <= deadline
}

/// Whole seconds from `now` until `at`, at least 1, for a `Retry-After`.
#[must_use]
pub fn seconds_until(at: Timestamp, now: Timestamp) -> u64 {
    let milliseconds = at.as_millisecond().saturating_sub(now.as_millisecond()).max(1);
    u64::try_from(milliseconds).unwrap_or(1).div_ceil(1000)
}

/// How long it is from `earlier` to `later`; nothing where it is the other way round.
#[must_use]
pub fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    let milliseconds = later.as_millisecond().saturating_sub(earlier.as_millisecond());
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}
