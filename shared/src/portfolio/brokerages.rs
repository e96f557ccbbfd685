//! What can be connected.
//!
//! SnapTrade's list of brokerages is the same for everybody and changes seldom, so it is kept in the table for a day and
//! by each process for an hour.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::connections::timing::{after, between};
use crate::ids::TenantId;
use crate::snaptrade::{self, Brokerage};
use crate::store::{self, Condition, Key, StoreError, partition};

/// How long the list in the table is used without asking SnapTrade.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// How long it is kept, for days on which SnapTrade does not answer.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a process uses the list without looking into the table.
const IN_HAND: Duration = Duration::from_secs(3600);

/// A brokerage as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerageView {
    /// What a connection URL is asked for with (`broker`).
    pub slug: String,
    /// Its name as it is to be shown.
    pub name: Option<String>,
    /// A sentence about it.
    pub description: Option<String>,
    /// Its website.
    pub url: Option<String>,
    /// Where its logo is.
    pub logo_url: Option<String>,
    /// Whether one can trade through it.
    pub allows_trading: bool,
    /// Whether it can be connected at present.
    pub enabled: bool,
    /// Whether it works less well than usual.
    pub degraded: bool,
}

impl BrokerageView {
    /// `None` for one that cannot be named when a connection is asked for.
    fn new(brokerage: &Brokerage) -> Option<Self> {
        Some(Self {
            slug: brokerage.slug.clone()?,
            name: brokerage.display_name.clone().or_else(|| brokerage.name.clone()),
            description: brokerage.description.clone(),
            url: brokerage.url.clone(),
            logo_url: brokerage
                .aws_s3_square_logo_url
                .clone()
                .or_else(|| brokerage.aws_s3_logo_url.clone()),
            allows_trading: brokerage.allows_trading.unwrap_or(false),
            enabled: brokerage.enabled.unwrap_or(true) && brokerage.maintenance_mode != Some(true),
            degraded: brokerage.is_degraded.unwrap_or(false),
        })
    }
}

/// The list as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Catalogue {
    read_at: Timestamp,
    brokerages: Vec<BrokerageView>,
}

/// The list that this process has in hand, and since when.
type InHand = Mutex<Option<(Timestamp, Arc<Catalogue>)>>;

/// Why there is no list.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoBrokerages {
    /// SnapTrade could not be asked.
    #[error(transparent)]
    Snaptrade(#[from] snaptrade::Error),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What can be connected, by SnapTrade's list of at most a day ago; an older one where SnapTrade does not answer.
///
/// # Errors
/// [`NoBrokerages`].
pub async fn brokerages(app: &App, tenant: &TenantId) -> Result<Vec<BrokerageView>, NoBrokerages> {
    let in_hand = app.state::<InHand>();
    let now = app.clock().now();
    {
        let held = in_hand.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, catalogue)) = held.as_ref()
            && between(*since, now) < IN_HAND
            && between(catalogue.read_at, now) < FRESH
        {
            return Ok(catalogue.brokerages.clone());
        }
    }
    let catalogue = Arc::new(stored_or_read(app, tenant, now).await?);
    let brokerages = catalogue.brokerages.clone();
    *in_hand.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, catalogue));
    Ok(brokerages)
}

async fn stored_or_read(app: &App, tenant: &TenantId, now: Timestamp) -> Result<Catalogue, NoBrokerages> {
    let key = Key::new(partition(tenant, "REFERENCE", "brokerages"), "BROKERAGES");
    let item = app.store().get(&key, now).await?;
    let stored: Option<Catalogue> = item.as_ref().map(store::from_item).transpose()?;
    if let Some(stored) = &stored
        && between(stored.read_at, now) < FRESH
    {
        return Ok(stored.clone());
    }
    let listed = match (app.snaptrade().list_brokerages().await, stored) {
        (Ok(listed), _) => listed,
        (Err(error), Some(stored)) => {
            tracing::warn!(%error, "the list of brokerages could not be read, an older one is used");
            return Ok(stored);
        }
        (Err(error), None) => return Err(error.into()),
    };
    let catalogue = Catalogue {
        read_at: now,
        brokerages: listed.iter().filter_map(BrokerageView::new).collect(),
    };
    let item = store::to_item(&key, &catalogue, None, Some(after(now, KEPT)))?;
    app.store().put(item, &Condition::Always, now).await?;
    Ok(catalogue)
}
