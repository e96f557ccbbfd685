//! What a caller is told when an outside service, the store or a secret fails, where a handler knows nothing better.

use super::problem::{Code, Problem};
use crate::secrets::SecretError;
use crate::snaptrade::{self, ErrorKind};
use crate::store::StoreError;

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(Code::Unavailable).because(error)
    }
}

impl From<SecretError> for Problem {
    fn from(error: SecretError) -> Self {
        Self::new(Code::Unavailable).because(error)
    }
}

/// Where SnapTrade answered with an error or nonsense it is `upstream_error`, where it did not answer
/// `upstream_timeout`; what an error says about the user or the connection has a code of its own.
impl From<snaptrade::Error> for Problem {
    fn from(error: snaptrade::Error) -> Self {
        let code = match error.kind {
            ErrorKind::CredentialsUnavailable => Code::Unavailable,
            ErrorKind::Timeout | ErrorKind::Unreachable => Code::UpstreamTimeout,
            ErrorKind::UserSecretRejected => Code::SecretInvalid,
            ErrorKind::UserExists => Code::UserExistsUpstream,
            ErrorKind::LimitReached => Code::ConnectionLimitReached,
            ErrorKind::RateLimited { .. } => Code::RateLimited,
            ErrorKind::ConnectionDisabled => Code::ConnectionDisabled,
            ErrorKind::NotSynced => Code::NotSyncedYet,
            _ => Code::UpstreamError,
        };
        let problem = Self::new(code);
        let problem = match error.retry_after() {
            // A wait of a part of a second is rounded up, so that nobody comes back too early.
            Some(wait) => {
                problem.retry_after(u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX))
            }
            None => problem,
        };
        problem.because(error)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::snaptrade::Outcome;

    fn problem(kind: ErrorKind) -> Problem {
        snaptrade::Error::new("registerUser", kind, Outcome::Unknown).into()
    }

    #[test]
    fn an_answer_that_is_an_error_is_told_apart_from_no_answer() {
        assert_eq!(problem(ErrorKind::Outage).code(), Code::UpstreamError);
        assert_eq!(problem(ErrorKind::Malformed).code(), Code::UpstreamError);
        assert_eq!(problem(ErrorKind::Authentication).code(), Code::UpstreamError);
        assert_eq!(problem(ErrorKind::Timeout).code(), Code::UpstreamTimeout);
        assert_eq!(problem(ErrorKind::Unreachable).code(), Code::UpstreamTimeout);
    }

    #[test]
    fn snaptrades_wait_is_handed_on_rounded_up() {
        let limited = problem(ErrorKind::RateLimited {
            retry_after: Some(Duration::from_millis(1_200)),
        });
        assert_eq!(
            (limited.code(), limited.retry_after_seconds()),
            (Code::RateLimited, Some(2))
        );
        assert!(limited.cause().is_some());
    }
}
