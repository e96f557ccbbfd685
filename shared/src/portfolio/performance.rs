//! How accounts did: rates of return, as the brokerages say.

use std::time::Duration;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::snaptrade::RateOfReturn;

/// How often the schedule reads it again. The brokerages reckon it once a day.
pub const READ_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// From which age on it is called stale: a day, and two runs of the schedule.
pub const STALE_AFTER: Duration = Duration::from_secs(26 * 3600);

/// How an account did. Empty where the plan or the brokerage does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPerformance {
    /// One rate for each span of time.
    pub rates: Vec<StoredRate>,
}

/// What was earned in a span of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRate {
    /// The span of time up to now, in SnapTrade's word: `ALL`, `1Y`, `YTD`, `1M`, `1W` or `1D`.
    pub timeframe: String,
    /// What was earned, in per cent.
    pub return_percent: Option<Decimal>,
    /// When this was said.
    pub said_at: Option<Timestamp>,
}

impl StoredPerformance {
    /// What SnapTrade says of an account.
    #[must_use]
    pub fn new(rates: &[RateOfReturn]) -> Self {
        let rates = rates.iter().filter_map(|rate| {
            Some(StoredRate {
                timeframe: rate.timeframe.as_ref()?.as_str().to_owned(),
                return_percent: rate.return_percent,
                said_at: rate.created_date,
            })
        });
        Self {
            rates: rates.collect(),
        }
    }
}
