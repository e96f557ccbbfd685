//! What can go wrong between a function and its table, on demand.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How a call to DynamoDB fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done and the answer is 500 `InternalServerError`, which the SDK tries again.
    Error500,
    /// The work is done, and the connection is closed without an answer.
    LostAnswer,
    /// Nothing is done and the answer is 400 `ProvisionedThroughputExceededException`, which the SDK tries again.
    Throttle,
    /// The call waits for this time, then is done and answered.
    Slow(Duration),
}

/// The faults that wait for calls, the next one first.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<VecDeque<Planned>>);

#[derive(Debug)]
struct Planned {
    /// The operation it waits for, such as `PutItem`; any when there is none.
    operation: Option<String>,
    fault: Fault,
}

impl Faults {
    /// The next `times` calls, of `operation` where one is named, fail with `fault`.
    pub(super) fn plan(&self, operation: Option<&str>, times: usize, fault: Fault) {
        let mut planned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        planned.extend((0..times).map(|_| Planned {
            operation: operation.map(str::to_owned),
            fault,
        }));
    }

    /// Forgets the faults that no call has met yet.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The fault that a call of `operation` meets now, if any.
    pub(super) fn meet(&self, operation: &str) -> Option<Fault> {
        let mut planned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = planned.iter().position(|planned| {
            planned
                .operation
                .as_deref()
                .is_none_or(|wanted| wanted == operation)
        })?;
        planned.remove(at).map(|planned| planned.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_waits_for_its_operation_and_is_met_once() {
        let faults = Faults::default();
        faults.plan(Some("PutItem"), 1, Fault::Throttle);
        faults.plan(None, 1, Fault::Error500);
        assert_eq!(faults.meet("GetItem"), Some(Fault::Error500));
        assert_eq!(faults.meet("GetItem"), None);
        assert_eq!(faults.meet("PutItem"), Some(Fault::Throttle));
        assert_eq!(faults.meet("PutItem"), None);
    }
}
