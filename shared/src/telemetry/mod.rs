//! What is known of the work in hand: which invocation it belongs to and how many outside calls it made. Logs,
//! metrics and the local stack's call counts are read from here.

pub mod logs;
pub mod metrics;
pub mod redact;

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tracing::Instrument;

tokio::task_local! {
    static CURRENT: Arc<Scope>;
}

/// One request or event that a function works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The id that the caller sees as `x-request-id`, unique to this request.
    pub request_id: String,
    /// The id that ties together what several services did for one purpose; the caller's own where it gave one.
    pub correlation_id: String,
    /// The function's name as its package has it, such as `connection-url`.
    pub function: &'static str,
    /// Whether it is the first one of its process, which paid for the cold start.
    pub cold_start: bool,
}

/// A service outside of the process that a call is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The table.
    DynamoDb,
    /// SnapTrade's API.
    SnapTrade,
    /// WordPress and the access API.
    Access,
    /// The mail server.
    Mail,
}

/// How many calls were sent in one invocation, by service. Each attempt counts, so a call that was tried three times
/// counts three.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCounts {
    /// Calls to the table.
    pub dynamodb: u32,
    /// Calls to SnapTrade.
    pub snaptrade: u32,
    /// Calls to WordPress and the access API.
    pub access: u32,
    /// Mails handed to the mail server.
    pub mail: u32,
}

#[derive(Debug, Default)]
struct Counters {
    dynamodb: AtomicU32,
    snaptrade: AtomicU32,
    access: AtomicU32,
    mail: AtomicU32,
}

impl Counters {
    fn of(&self, service: Service) -> &AtomicU32 {
        match service {
            Service::DynamoDb => &self.dynamodb,
            Service::SnapTrade => &self.snaptrade,
            Service::Access => &self.access,
            Service::Mail => &self.mail,
        }
    }

    fn read(&self) -> CallCounts {
        CallCounts {
            dynamodb: self.dynamodb.load(Ordering::Relaxed),
            snaptrade: self.snaptrade.load(Ordering::Relaxed),
            access: self.access.load(Ordering::Relaxed),
            mail: self.mail.load(Ordering::Relaxed),
        }
    }
}

/// An invocation under way. One may run inside another (the local stack wraps a function's own); a call counts for
/// all of them.
#[derive(Debug)]
struct Scope {
    invocation: Invocation,
    counters: Counters,
    measured: Mutex<metrics::Measured>,
    outer: Option<Arc<Scope>>,
}

/// Runs `work` as `invocation`: what it logs carries the invocation's ids, and the calls that it makes are counted.
///
/// Only what `work` itself awaits belongs to the invocation; a task that it spawns does not.
pub async fn in_invocation<F: Future>(invocation: Invocation, work: F) -> (F::Output, CallCounts) {
    let span = tracing::info_span!(
        "invocation",
        function = invocation.function,
        request_id = invocation.request_id.as_str(),
        correlation_id = invocation.correlation_id.as_str(),
        cold_start = invocation.cold_start,
    );
    let scope = Arc::new(Scope {
        invocation,
        counters: Counters::default(),
        measured: Mutex::default(),
        outer: CURRENT.try_with(Arc::clone).ok(),
    });
    let output = CURRENT.scope(Arc::clone(&scope), work).instrument(span).await;
    (output, scope.counters.read())
}

/// Counts one call that is about to be sent to `service`. Outside of an invocation it does nothing.
pub fn count_call(service: Service) {
    let _outside = CURRENT.try_with(|scope| {
        let mut next = Some(scope);
        while let Some(scope) = next {
            scope.counters.of(service).fetch_add(1, Ordering::Relaxed);
            next = scope.outer.as_ref();
        }
    });
}

/// The calls counted so far in the current invocation; all zero outside of one.
#[must_use]
pub fn current_calls() -> CallCounts {
    CURRENT
        .try_with(|scope| scope.counters.read())
        .unwrap_or_default()
}

/// The current invocation's correlation id, where there is an invocation.
#[must_use]
pub fn current_correlation_id() -> Option<String> {
    current_invocation().map(|invocation| invocation.correlation_id)
}

/// The current invocation, where there is one.
#[must_use]
pub fn current_invocation() -> Option<Invocation> {
    CURRENT.try_with(|scope| scope.invocation.clone()).ok()
}

/// A new id for a request or a correlation: 26 characters of base 32, 128 random bits.
#[must_use]
pub fn new_id() -> String {
    let mut bytes = [0_u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // An id that could repeat is still better than a request refused for want of one.
        bytes = jiff::Timestamp::now().as_nanosecond().to_be_bytes();
    }
    data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(request_id: &str) -> Invocation {
        Invocation {
            request_id: request_id.to_owned(),
            correlation_id: format!("for-{request_id}"),
            function: "register",
            cold_start: false,
        }
    }

    #[tokio::test]
    async fn calls_are_counted_for_the_invocation_that_makes_them() {
        let one = in_invocation(invocation("one"), async {
            count_call(Service::DynamoDb);
            tokio::task::yield_now().await;
            count_call(Service::DynamoDb);
            count_call(Service::SnapTrade);
            current_correlation_id()
        });
        let two = in_invocation(invocation("two"), async {
            tokio::task::yield_now().await;
            count_call(Service::Mail);
            count_call(Service::Access);
            current_correlation_id()
        });
        let ((id_one, calls_one), (id_two, calls_two)) = tokio::join!(one, two);
        assert_eq!(id_one.as_deref(), Some("for-one"));
        assert_eq!(id_two.as_deref(), Some("for-two"));
        let expected = CallCounts {
            dynamodb: 2,
            snaptrade: 1,
            ..CallCounts::default()
        };
        assert_eq!(calls_one, expected);
        assert_eq!((calls_two.mail, calls_two.access, calls_two.dynamodb), (1, 1, 0));
    }

    #[tokio::test]
    async fn a_call_counts_for_the_outer_invocation_too() {
        let (((), inner), outer) = in_invocation(invocation("gateway"), async {
            count_call(Service::DynamoDb);
            in_invocation(invocation("handler"), async { count_call(Service::DynamoDb) }).await
        })
        .await;
        assert_eq!((inner.dynamodb, outer.dynamodb), (1, 2));
    }

    #[test]
    fn outside_of_an_invocation_counting_does_nothing() {
        count_call(Service::SnapTrade);
        assert_eq!(current_calls(), CallCounts::default());
        assert_eq!(current_correlation_id(), None);
    }

    #[test]
    fn new_ids_differ_and_are_safe_in_a_header() {
        let (one, two) = (new_id(), new_id());
        assert_ne!(one, two);
        assert_eq!(one.len(), 26);
        assert!(one.bytes().all(|b| b.is_ascii_alphanumeric()));
    }
}
