//! Stored transactions, newest first, a part at a time.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::{StoredTransaction, transactions_partition};
use crate::ids::{Stem, TenantId};
use crate::portfolio::provider::PortfolioAccountId;
use crate::snaptrade::AccountId;
use crate::store::{self, Order, Store, StoreError};

/// Fewest items that are read at once, so that a filter that few pass does not make for many reads.
const READ_AT_LEAST: u32 = 200;

/// Which transactions are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// From this day on, in UTC.
    pub start: Option<Date>,
    /// Up to and including this day, in UTC.
    pub end: Option<Date>,
    /// Of these kinds, in capitals; all where it is empty.
    pub kinds: BTreeSet<String>,
}

/// Where a list of transactions goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The sort key of the last one that was shown.
    pub after: String,
}

/// A transaction as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TransactionView {
    /// Its id.
    pub transaction_id: String,
    /// The account that it is of.
    pub account_id: PortfolioAccountId,
    /// What kind of transaction it is.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// When it was agreed.
    pub trade_date: Option<Timestamp>,
    /// When it was settled.
    pub settlement_date: Option<Timestamp>,
    /// The symbol of what was traded.
    pub symbol: Option<String>,
    /// How many; negative where they left the account.
    pub units: Option<Decimal>,
    /// The price of one.
    pub price: Option<Decimal>,
    /// The money that moved; negative where it left the account.
    pub amount: Option<Decimal>,
    /// The fee.
    pub fee: Option<Decimal>,
    /// The currency of price, amount and fee.
    pub currency: Option<String>,
    /// The brokerage's own words.
    pub description: Option<String>,
}

impl From<StoredTransaction> for TransactionView {
    fn from(stored: StoredTransaction) -> Self {
        Self {
            transaction_id: stored.transaction_id,
            account_id: PortfolioAccountId::snaptrade(stored.account_id),
            kind: stored.kind,
            trade_date: stored.trade_date,
            settlement_date: stored.settlement_date,
            symbol: stored.symbol,
            units: stored.units,
            price: stored.price,
            amount: stored.amount,
            fee: stored.fee,
            currency: stored.currency,
            description: stored.description,
        }
    }
}

/// A part of a list of transactions.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The transactions, newest first.
    pub transactions: Vec<TransactionView>,
    /// Where it goes on; `None` at the end.
    pub next: Option<Position>,
}

impl Filter {
    fn passes(&self, row: &StoredTransaction) -> bool {
        self.kinds.is_empty()
            || row
                .kind
                .as_ref()
                .is_some_and(|kind| self.kinds.contains(&kind.to_ascii_uppercase()))
    }

    /// The first and the last sort key that may pass.
    fn range(&self) -> (String, String) {
        let midnight = |date: Date| {
            date.to_zoned(TimeZone::UTC)
                .map_or(0, |day| day.timestamp().as_millisecond().max(0))
        };
        let from = self.start.map_or(0, midnight);
        // A day that cannot be counted to is the end of all days.
        let to = self.end.and_then(|end| end.tomorrow().ok()).map(midnight);
        let last = match to {
            Some(next_day) => format!("{next_day:015}"),
            None => ":".to_owned(),
        };
        (format!("{from:015}#"), last)
    }
}

impl Listing {
    /// Up to `limit` of a user's transactions in `accounts`, from `position` on. One call for each megabyte that is
    /// looked at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(
        store: &Store,
        tenant: &TenantId,
        stem: &Stem,
        accounts: &BTreeSet<AccountId>,
        filter: &Filter,
        page: (u32, Option<&Position>),
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let (limit, position) = page;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let (from, to) = filter.range();
        let last = position.map_or(to.clone(), |position| position.after.clone().min(to));
        if last < from {
            return Ok(Self {
                transactions: Vec::new(),
                next: None,
            });
        }
        let pk = transactions_partition(tenant, stem);
        let range = from..=last;
        let at_once = i32::try_from(limit.saturating_add(2).max(READ_AT_LEAST)).ok();
        let mut rows: Vec<StoredTransaction> = Vec::new();
        let mut start = None;
        loop {
            let read = store
                .range_page(&pk, &range, Order::Descending, at_once, start, now)
                .await?;
            for item in &read.items {
                let row: StoredTransaction = store::from_item(item)?;
                let shown_before = position.is_some_and(|position| row.sort_key() >= position.after);
                if !shown_before && accounts.contains(&row.account_id) && filter.passes(&row) {
                    rows.push(row);
                }
            }
            start = read.next;
            if rows.len() > wanted || start.is_none() {
                break;
            }
        }
        let more = rows.len() > wanted;
        rows.truncate(wanted);
        let next = rows.last().filter(|_| more).map(|row| Position {
            after: row.sort_key(),
        });
        Ok(Self {
            transactions: rows.into_iter().map(TransactionView::from).collect(),
            next,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(time: &str) -> String {
        let at: Timestamp = time.parse().unwrap();
        format!("{:015}#a#t", at.as_millisecond())
    }

    #[test]
    fn days_are_whole_days_in_utc_the_last_one_included() {
        let filter = Filter {
            start: Some("2026-11-01".parse().unwrap()),
            end: Some("2026-11-02".parse().unwrap()),
            kinds: BTreeSet::new(),
        };
        let (from, to) = filter.range();
        for (time, inside) in [
            ("2026-10-31T23:59:59.999Z", false),
            ("2026-11-01T00:00:00Z", true),
            ("2026-11-02T23:59:59.999Z", true),
            ("2026-11-03T00:00:00Z", false),
        ] {
            let key = key(time);
            assert_eq!(key >= from && key <= to, inside, "{time}");
        }
        let (from, to) = Filter::default().range();
        let old = format!("{:015}#a#t", 0);
        assert!(old >= from && key("2526-01-01T00:00:00Z") <= to);
    }
}
