//! What each invocation of a function cost: its calls to DynamoDB and to outside services.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// How many invocations are remembered; older ones are forgotten.
const CAPACITY: usize = 10_000;

/// One invocation's calls, every try of one counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InvocationCalls {
    /// The request's id, as its answer names it in `x-request-id`.
    pub request_id: String,
    /// The function.
    pub function: &'static str,
    /// Calls to DynamoDB.
    pub dynamodb: u32,
    /// Calls to SnapTrade.
    pub snaptrade: u32,
    /// Calls to the access API and to WordPress.
    pub access: u32,
    /// Mails handed over.
    pub mail: u32,
}

/// The last invocations, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct CallLog(Mutex<VecDeque<InvocationCalls>>);

impl CallLog {
    /// Remembers an invocation that has ended.
    pub(crate) fn record(&self, calls: InvocationCalls) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == CAPACITY {
            log.pop_front();
        }
        log.push_back(calls);
    }

    /// The invocations remembered, those of one request where `request_id` names it.
    pub(crate) fn of(&self, request_id: Option<&str>) -> Vec<InvocationCalls> {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter()
            .filter(|calls| request_id.is_none_or(|id| calls.request_id == id))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_forgets_the_oldest_and_finds_by_request() {
        let log = CallLog::default();
        for number in 0..=CAPACITY {
            log.record(InvocationCalls {
                request_id: number.to_string(),
                function: "status",
                dynamodb: 2,
                snaptrade: 0,
                access: 0,
                mail: 0,
            });
        }
        assert_eq!(log.of(None).len(), CAPACITY);
        assert!(log.of(Some("0")).is_empty());
        assert_eq!(log.of(Some("10000")).len(), 1);
    }
}
