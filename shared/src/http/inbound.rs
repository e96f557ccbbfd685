//! How many requests one caller may make (`INBOUND_LIMIT`).
//!
//! Each instance of a function counts for itself, so that counting costs no call to the table and no time: a caller
//! whose requests are spread over several instances may make as many at each. What all callers together may do is
//! bounded by API Gateway's throttling, and what SnapTrade is asked for on a user's behalf is bounded by itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::identity::Identity;
use crate::ids::{TenantId, UserId};

/// How long a window is, in milliseconds.
const WINDOW_MS: i64 = 60_000;

/// How many callers are counted at once. When there are more, those whose window began first are forgotten.
const MOST_CALLERS: usize = 10_000;

/// Who calls what.
type Caller = (TenantId, UserId, &'static str);

/// The requests of one caller since the first one of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    began: Timestamp,
    requests: u32,
}

impl Window {
    /// How much longer it lasts at `now`, in milliseconds; nothing where it is over, or where the clock was put back.
    fn left_ms(self, now: Timestamp) -> Option<i64> {
        let age = now.as_millisecond().saturating_sub(self.began.as_millisecond());
        (0..WINDOW_MS)
            .contains(&age)
            .then(|| WINDOW_MS.saturating_sub(age))
    }
}

/// The windows of this instance's callers.
#[derive(Debug, Default)]
pub(super) struct Inbound(Mutex<HashMap<Caller, Window>>);

impl Inbound {
    /// Counts a request of `caller` on `route` and lets it through, unless the caller has made `limit` requests there in
    /// the minute since the first of them.
    ///
    /// # Errors
    /// After how many seconds the caller may make the next one.
    pub(super) fn admit(
        &self,
        caller: &Identity,
        route: &'static str,
        limit: u32,
        now: Timestamp,
    ) -> Result<(), u32> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (caller.tenant.clone(), caller.user_id.clone(), route);
        if !windows.contains_key(&key) && windows.len() >= MOST_CALLERS {
            make_room(&mut windows, now);
        }
        let window = windows.entry(key).or_insert(Window {
            began: now,
            requests: 0,
        });
        let left_ms = window.left_ms(now);
        if left_ms.is_none() {
            *window = Window {
                began: now,
                requests: 0,
            };
        }
        if window.requests < limit {
            window.requests = window.requests.saturating_add(1);
            return Ok(());
        }
        let left_ms = u64::try_from(left_ms.unwrap_or(WINDOW_MS)).unwrap_or_default();
        Err(u32::try_from(left_ms.div_ceil(1_000)).unwrap_or(u32::MAX))
    }
}

/// Forgets the windows that are over, and where none is, the older half.
fn make_room(windows: &mut HashMap<Caller, Window>, now: Timestamp) {
    windows.retain(|_, window| window.left_ms(now).is_some());
    if windows.len() < MOST_CALLERS {
        return;
    }
    let mut begun: Vec<Timestamp> = windows.values().map(|window| window.began).collect();
    begun.sort_unstable();
    if let Some(middle) = begun.get(begun.len() / 2).copied() {
        windows.retain(|_, window| window.began > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::Role;
    use super::*;

    fn caller(name: &str) -> Identity {
        Identity {
            user_id: UserId::parse(name).unwrap(),
            role: Role::User,
            tenant: TenantId::default(),
        }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap()
    }

    #[test]
    fn a_caller_may_make_so_many_requests_in_a_minute_and_is_told_when_it_may_again() {
        let inbound = Inbound::default();
        let ada = caller("ada");
        for ms in [0, 100, 30_000] {
            assert_eq!(inbound.admit(&ada, "/a", 3, at(ms)), Ok(()));
        }
        assert_eq!(inbound.admit(&ada, "/a", 3, at(30_001)), Err(30));
        assert_eq!(inbound.admit(&ada, "/a", 3, at(59_999)), Err(1));
        assert_eq!(inbound.admit(&ada, "/a", 3, at(60_000)), Ok(()));
        // A clock that was put back begins a new minute rather than lock anybody out.
        assert_eq!(inbound.admit(&ada, "/a", 1, at(0)), Ok(()));
    }

    #[test]
    fn callers_and_routes_are_counted_apart() {
        let inbound = Inbound::default();
        for (name, route) in [("ada", "/a"), ("ada", "/b"), ("grace", "/a")] {
            assert_eq!(inbound.admit(&caller(name), route, 1, at(0)), Ok(()));
        }
        assert_eq!(inbound.admit(&caller("grace"), "/a", 1, at(1)), Err(60));
    }

    #[test]
    fn any_number_of_callers_takes_a_bounded_amount_of_memory() {
        let inbound = Inbound::default();
        for number in 0..30_000 {
            let caller = caller(&format!("user-{number}"));
            assert_eq!(inbound.admit(&caller, "/a", 1, at(number)), Ok(()));
        }
        assert!(inbound.0.lock().unwrap().len() <= MOST_CALLERS);
        assert!(inbound.admit(&caller("user-29999"), "/a", 1, at(30_000)).is_err());
    }
}
