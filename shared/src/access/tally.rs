//! Calls to the outside services in one run, counted as they are sent.

use std::sync::atomic::{AtomicU64, Ordering};

use super::report::Calls;
use crate::telemetry::{Service, count_call};

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called {
    /// To read the shop: its transactions, or the members that they name.
    Transactions,
    /// To look a name up.
    Validate,
    /// To give access.
    Grant,
    /// To change the end of access.
    Update,
    /// To take access.
    Remove,
    /// To see who has access.
    List,
}

/// The calls so far. Each sending counts, so a call that was tried three times counts three.
#[derive(Debug, Default)]
pub struct Tally {
    transactions: AtomicU64,
    validate: AtomicU64,
    grant: AtomicU64,
    update: AtomicU64,
    remove: AtomicU64,
    list: AtomicU64,
}

impl Tally {
    /// Counts a call that is about to be sent, for the run and for the invocation that it belongs to.
    pub fn count(&self, called: Called) {
        self.of(called).fetch_add(1, Ordering::Relaxed);
        count_call(Service::Access);
    }

    /// The calls so far.
    #[must_use]
    pub fn snapshot(&self) -> Calls {
        let read = |called| self.of(called).load(Ordering::Relaxed);
        Calls {
            transactions: read(Called::Transactions),
            validate: read(Called::Validate),
            grant: read(Called::Grant),
            update: read(Called::Update),
            remove: read(Called::Remove),
            list: read(Called::List),
        }
    }

    fn of(&self, called: Called) -> &AtomicU64 {
        match called {
            Called::Transactions => &self.transactions,
            Called::Validate => &self.validate,
            Called::Grant => &self.grant,
            Called::Update => &self.update,
            Called::Remove => &self.remove,
            Called::List => &self.list,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Invocation, in_invocation};

    #[tokio::test]
    async fn calls_are_counted_by_their_purpose_and_for_the_invocation() {
        let invocation = Invocation {
            request_id: "r1".to_owned(),
            correlation_id: "c1".to_owned(),
            function: "access-sync",
            cold_start: false,
        };
        let (calls, counted) = in_invocation(invocation, async {
            let tally = Tally::default();
            for called in [Called::Grant, Called::Grant, Called::List] {
                tally.count(called);
            }
            tally.snapshot()
        })
        .await;
        let expected = Calls {
            grant: 2,
            list: 1,
            ..Calls::default()
        };
        assert_eq!((calls, counted.access), (expected, 3));
    }
}
