//! The access sync at the edge: who may use it, and what a caller is told when it does not do what it is asked for.

use std::time::Duration;

use super::call::Call;
use super::problem::{Code, Problem};
use crate::access::plan::{PLAN_GOOD_FOR, Stale};
use crate::access::shop::ShopError;
use crate::access::{AccessSync, Refused};
use crate::app::App;
use crate::ids::TenantId;

impl Call {
    /// The access sync, in the caller's name. A deployment has one, which belongs to the default tenant.
    ///
    /// # Errors
    /// [`Problem`] `forbidden` for who is no operator of that tenant, `feature_disabled` where there is no access sync,
    /// `unavailable` where its configuration cannot be read.
    pub async fn access_sync<'a>(&self, app: &'a App) -> Result<AccessSync<'a>, Problem> {
        self.require_operator()?;
        let tenant = TenantId::default();
        if self.identity.tenant != tenant {
            return Err(Problem::forbidden("The access sync is another tenant's."));
        }
        if app.refresh_access().await?.is_none() {
            return Err(Refused::NotConfigured.into());
        }
        let actor = format!("operator:{}", self.identity.user_id);
        Ok(AccessSync::new(app, tenant, &actor))
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let cause = refused.to_string();
        let problem = match refused {
            Refused::NotConfigured => Self::new(Code::FeatureDisabled).detail(
                "The access sync is not configured: its configuration belongs into the secret that ACCESS_SECRET_ID names.",
            ),
            Refused::Running { retry_after } => Self::new(Code::OperationInProgress)
                .detail("Another run of the access sync is under way.")
                .retry_after(seconds(retry_after)),
            Refused::NotFound(what) => Self::new(Code::NotFound).detail(format!("There is no such {what}.")),
            Refused::Stale(stale) => Self::new(Code::PlanStale).detail(match stale {
                Stale::Changed => {
                    "Something has changed since the plan was made: make a new one (GET /api/access/plan), look at it \
                     and approve that."
                        .to_owned()
                }
                Stale::Old => format!(
                    "A plan is good for {} hours: make a new one (GET /api/access/plan), look at it and approve that.",
                    PLAN_GOOD_FOR.as_hours()
                ),
            }),
            Refused::OutOfTime => Self::new(Code::UpstreamTimeout)
                .detail("There was no time left to finish; the schedule carries on, so try again in a few minutes."),
            Refused::WritesDisabled => Self::new(Code::FeatureDisabled)
                .detail("Writes to the access API are switched off (writes_enabled in the configuration)."),
            Refused::Invalid(detail) => Self::new(Code::InvalidRequest).detail(detail),
            Refused::Shop(error) => shop(error),
            Refused::Service(ended) => {
                let problem = Self::new(Code::UpstreamError).detail("The access API could not be used.");
                match ended.asked {
                    Some(wait) => problem.retry_after(seconds(wait)),
                    None => problem,
                }
            }
            Refused::Secret(error) => error.into(),
            Refused::Store(error) => error.into(),
        };
        problem.because(cause)
    }
}

fn shop(error: ShopError) -> Problem {
    match error {
        ShopError::Timeout | ShopError::Unreachable => {
            Problem::new(Code::UpstreamTimeout).detail("The shop did not answer, so nothing was changed.")
        }
        error => {
            let asked = match error {
                ShopError::Throttled(asked) => asked,
                _ => None,
            };
            let problem =
                Problem::new(Code::UpstreamError).detail(format!("Nothing was changed, because {error}."));
            match asked {
                Some(wait) => problem.retry_after(seconds(wait)),
                None => problem,
            }
        }
    }
}

/// Whole seconds, rounded up, so that nobody comes back too early.
fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stopped_a_run_has_a_code_of_its_own() {
        let wait = Duration::from_millis(2_100);
        for (refused, code) in [
            (Refused::NotConfigured, Code::FeatureDisabled),
            (Refused::Running { retry_after: wait }, Code::OperationInProgress),
            (Refused::NotFound("plan"), Code::NotFound),
            (Refused::Stale(Stale::Changed), Code::PlanStale),
            (Refused::Stale(Stale::Old), Code::PlanStale),
            (Refused::WritesDisabled, Code::FeatureDisabled),
            (Refused::Invalid("is wrong".to_owned()), Code::InvalidRequest),
            (Refused::Shop(ShopError::Timeout), Code::UpstreamTimeout),
            (Refused::Shop(ShopError::Unreachable), Code::UpstreamTimeout),
            (Refused::Shop(ShopError::NoAccess), Code::UpstreamError),
            (Refused::Shop(ShopError::NoList), Code::UpstreamError),
        ] {
            assert_eq!(Problem::from(refused.clone()).code(), code, "{refused:?}");
        }
        let running = Problem::from(Refused::Running { retry_after: wait });
        assert_eq!(running.retry_after_seconds(), Some(3));
        let throttled = Problem::from(Refused::Shop(ShopError::Throttled(Some(wait))));
        assert_eq!(throttled.retry_after_seconds(), Some(3));
    }
}
