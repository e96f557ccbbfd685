//! The runs that nobody waits for: what the schedules do.

use std::time::Duration;

use lambda_runtime::Diagnostic;

use super::report::Report;
use super::{AccessSync, Refused};
use crate::app::App;
use crate::ids::TenantId;

/// How long a scheduled run may take: 80 % of what Lambda gives at most (facts/access.md C4).
const BUDGET: Duration = Duration::from_secs(720);

/// Runs the sync, if its interval has passed. `None` where nothing was due: there is no access sync, the interval has
/// not passed, or another run is under way.
///
/// # Errors
/// What the run could not go on without; the next one tries again.
pub async fn sync(app: &App) -> Result<Option<Report>, Diagnostic> {
    let access = AccessSync::new(app, TenantId::default(), "schedule:access-sync");
    end(access.scheduled(BUDGET).await)
}

/// Reads all of the shop's transactions, to find those that changed or went without a time stamp. `None` where there is
/// no access sync, or where another run is under way; the next one reads them all then.
///
/// # Errors
/// What the run could not go on without; the next one tries again.
pub async fn rescan(app: &App) -> Result<Option<Report>, Diagnostic> {
    let access = AccessSync::new(app, TenantId::default(), "schedule:access-rescan");
    end(access.rescan(BUDGET).await.map(Some))
}

fn end(result: Result<Option<Report>, Refused>) -> Result<Option<Report>, Diagnostic> {
    match result {
        Ok(Some(report)) => {
            let ignored: u64 = report.ignored.values().sum();
            tracing::info!(
                run_id = report.run_id.as_str(),
                complete = report.complete,
                status = ?report.status,
                fetched = report.fetched,
                considered = report.considered,
                settled = report.settled,
                granted = report.granted,
                extended = report.extended,
                shortened = report.shortened,
                revoked = report.revoked,
                ignored,
                manual_review = report.manual_review,
                retry = report.retry,
                dead_letter = report.dead_letter,
                quarantined = report.quarantined,
                held = report.held,
                mails = report.mails,
                active_users = report.active_users,
                remaining = report.remaining,
                "access synced"
            );
            Ok(Some(report))
        }
        Ok(None) | Err(Refused::NotConfigured | Refused::Running { .. }) => Ok(None),
        // A failure as Lambda reports it.
        Err(refused) => Err(Diagnostic {
            error_type: "Retryable".to_owned(),
            error_message: refused.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Parts;
    use crate::clock::Clock;
    use crate::config::Config;
    use crate::secrets::DataKeys;
    use crate::snaptrade::Credentials;

    #[tokio::test]
    async fn without_an_access_sync_the_schedules_do_nothing_and_that_is_no_failure() {
        let credentials = Credentials {
            client_id: "CLIENT".to_owned(),
            consumer_key: "key".into(),
        };
        let keys = DataKeys::generate("k1").unwrap();
        let parts = Parts::local(Clock::system(), "test", credentials, keys).unwrap();
        let app = App::new("access-sync-schedule", Config::read(&|_| None).unwrap(), parts);
        assert_eq!(sync(&app).await.unwrap(), None);
        assert_eq!(rescan(&app).await.unwrap(), None);
    }
}
