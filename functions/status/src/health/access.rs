//! How the services that the access sync lives by are.

use std::sync::Arc;

use berth::access::configuration::{AccessApi, Configuration, Shop};
use berth::access::names::Username;
use berth::access::retries::Verdict;
use berth::access::service::{AccessClient, Ended, Pacing};
use berth::access::shop::{ShopClient, ShopError};
use berth::access::tally::Tally;
use berth::app::App;
use tokio::time::Instant;

use super::{LastCheck, LastChecks, OK, TIMEOUT, Word};

/// A name that TradingView knows: its own.
const KNOWN_NAME: &str = "TradingView";

/// The checks, by name; none where there is no access sync. A configuration that is not right is told as one of the
/// access API, the first thing that it would open.
pub(super) async fn check(app: &App, last: &LastChecks) -> Vec<(&'static str, Word)> {
    let configuration: Arc<Configuration> = match app.refresh_access().await {
        Ok(Some(configuration)) => configuration,
        Ok(None) => return Vec::new(),
        Err(error) => {
            tracing::warn!(%error, "the access sync's configuration is not healthy");
            return vec![("access_api", "misconfigured"), ("wordpress", "misconfigured")];
        }
    };
    let (access_api, wordpress) = tokio::join!(
        access_api(app, &configuration.access_api, &last.access_api),
        wordpress(app, &configuration.shop, &last.wordpress),
    );
    vec![("access_api", access_api), ("wordpress", wordpress)]
}

/// Looks up a name, as every change does first.
async fn access_api(app: &App, api: &AccessApi, last: &LastCheck) -> Word {
    let checking = match last.word(app.clock().now()).await {
        Ok(word) => return word,
        Err(checking) => checking,
    };
    let once = AccessApi {
        max_retries: 0,
        timeout: TIMEOUT.min(api.timeout),
        ..api.clone()
    };
    let client = AccessClient::new(
        app.http().clone(),
        &once,
        app.state::<Pacing>(),
        Arc::default(),
        app.clock().clone(),
    );
    let Ok(name) = Username::parse(KNOWN_NAME) else {
        return "error";
    };
    checking.found(match client.look_up(&name, Instant::now() + TIMEOUT).await {
        Ok(_) => OK,
        Err(error) => {
            tracing::warn!(%error, "the access API is not healthy");
            word_of_ended(&error)
        }
    })
}

fn word_of_ended(ended: &Ended) -> Word {
    match ended.verdict {
        Verdict::NoAccess => "unauthorized",
        Verdict::Throttled => "rate_limited",
        Verdict::Done | Verdict::Retry | Verdict::Unknown | Verdict::Refused => "error",
    }
}

async fn wordpress(app: &App, shop: &Shop, last: &LastCheck) -> Word {
    let checking = match last.word(app.clock().now()).await {
        Ok(word) => return word,
        Err(checking) => checking,
    };
    let client = ShopClient::new(app.http().clone(), shop, Arc::<Tally>::default());
    checking.found(match client.until(Instant::now() + TIMEOUT).check().await {
        Ok(()) => OK,
        Err(error) => {
            tracing::warn!(%error, "the shop is not healthy");
            word_of_shop(error)
        }
    })
}

fn word_of_shop(error: ShopError) -> Word {
    match error {
        ShopError::Timeout => "timeout",
        ShopError::Unreachable => "unreachable",
        ShopError::NoAccess => "unauthorized",
        ShopError::Throttled(_) => "rate_limited",
        _ => "error",
    }
}
