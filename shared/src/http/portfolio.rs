//! Brokerage data at the edge: what a caller is told when there is nothing to answer.

use super::problem::{Code, Problem};
use crate::portfolio::refresh::{RefreshError, RefreshFault};

/// After how many seconds it makes sense to ask again for what SnapTrade is still collecting.
const NOT_SYNCED_RETRY: u32 = 30;

impl From<RefreshError> for Problem {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::NotFound => {
                Self::new(Code::NotFound).detail("The user has no such account or connection.")
            }
            RefreshError::InProgress => {
                Self::new(Code::OperationInProgress).detail("This user's data are being refreshed right now.")
            }
            RefreshError::Throttled(wait) => Self::new(Code::RateLimited)
                .detail("SnapTrade wants fewer calls.")
                .retry_after(u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)),
            RefreshError::Fault(RefreshFault::Error) => Self::new(Code::UpstreamError),
            RefreshError::Fault(RefreshFault::Timeout) => Self::new(Code::UpstreamTimeout),
            RefreshError::Fault(RefreshFault::NotSynced) => {
                Self::new(Code::NotSyncedYet).retry_after(NOT_SYNCED_RETRY)
            }
            RefreshError::Failure(failure) => failure.into(),
        }
    }
}
