//! What accounts were worth, day by day, so that it can be drawn.
//!
//! Whoever reads the list of accounts writes down what they are worth on that day; the last reading of a day stays. On a
//! day on which nothing was read there is a gap, and nobody guesses what stood there.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::accounts::{Amount, StoredAccount};
use super::exact::Exact;
use super::provider::PortfolioAccountId;
use super::userdata::Reading;
use crate::connections::timing::after;
use crate::ids::{Stem, TenantId};
use crate::snaptrade::AccountId;
use crate::store::{self, Item, Key, Order, Store, StoreError, partition};

/// How long a day is kept.
pub const KEPT: Duration = Duration::from_secs(800 * 24 * 3600);

/// Most days that are answered at once.
pub const MAX_DAYS: usize = 732;

/// What accounts were worth on a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// The day, in UTC.
    pub day: Date,
    /// When the reading began, in milliseconds since 1970.
    pub begun_ms: i64,
    /// What each account was worth, by SnapTrade's id of it; `None` where that was not known.
    pub accounts: BTreeMap<String, Option<Amount>>,
}

/// A day as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DayView {
    /// The day, in UTC.
    pub date: Date,
    /// What all accounts were worth together, in each currency.
    pub totals: Vec<DayTotal>,
    /// What each account was worth.
    pub accounts: Vec<AccountValue>,
    /// Whether something is missing: nothing was read on that day, or the worth of an account was not known.
    pub gap: bool,
}

/// A sum in one currency.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DayTotal {
    /// The currency.
    pub currency: Option<String>,
    /// The sum.
    pub amount: Exact,
}

/// What an account was worth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccountValue {
    /// The account.
    pub account_id: PortfolioAccountId,
    /// How much.
    pub amount: Option<Decimal>,
    /// Of which currency.
    pub currency: Option<String>,
}

/// The day of a moment, in UTC.
#[must_use]
pub fn day_of(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// What is to be written down after `reading` was read, when `before` was known: nothing where it says the same on the
/// same day.
#[must_use]
pub fn to_note(
    reading: &Reading<Vec<StoredAccount>>,
    before: Option<&Reading<Vec<StoredAccount>>>,
) -> Option<Day> {
    let worth = |reading: &Reading<Vec<StoredAccount>>| -> BTreeMap<String, Option<Amount>> {
        let accounts = reading.content.iter();
        accounts
            .map(|account| (account.account_id.to_string(), account.total_value.clone()))
            .collect()
    };
    let (day, accounts) = (day_of(reading.read_at), worth(reading));
    let same = before.is_some_and(|before| {
        before.upstream == reading.upstream && day_of(before.read_at) == day && worth(before) == accounts
    });
    (!same && !accounts.is_empty()).then_some(Day {
        day,
        begun_ms: reading.begun_ms,
        accounts,
    })
}

/// The item of a day.
///
/// # Errors
/// [`StoreError::Malformed`].
pub fn item(tenant: &TenantId, stem: &Stem, day: &Day, now: Timestamp) -> Result<Item, StoreError> {
    let key = Key::new(days_partition(tenant, stem), sort_key(day.day));
    store::to_item(&key, day, None, Some(after(now, KEPT)))
}

fn days_partition(tenant: &TenantId, stem: &Stem) -> String {
    partition(tenant, "VALUES", stem.as_str())
}

fn sort_key(day: Date) -> String {
    format!("DAY#{day}")
}

/// The days that are known from `first` to `last`; none where `first` is the later one. One call for each megabyte.
///
/// # Errors
/// [`StoreError`].
pub async fn days(
    store: &Store,
    tenant: &TenantId,
    stem: &Stem,
    first: Date,
    last: Date,
    now: Timestamp,
) -> Result<Vec<Day>, StoreError> {
    let pk = days_partition(tenant, stem);
    let range = sort_key(first)..=sort_key(last);
    let (mut days, mut start) = (Vec::new(), None);
    loop {
        let page = store
            .range_page(&pk, &range, Order::Ascending, None, start, now)
            .await?;
        for item in &page.items {
            days.push(store::from_item(item)?);
        }
        start = page.next;
        if start.is_none() {
            return Ok(days);
        }
    }
}

/// Every day from the first known one to `last`, of all accounts or of one; those of which nothing is known are gaps.
#[must_use]
pub fn drawn(known: &[Day], last: Date, account: Option<&PortfolioAccountId>) -> Vec<DayView> {
    let by_day: BTreeMap<Date, &Day> = known.iter().map(|day| (day.day, day)).collect();
    let Some(first) = by_day.keys().next().copied() else {
        return Vec::new();
    };
    let mut views = Vec::new();
    let mut date = first;
    while date <= last && views.len() < MAX_DAYS {
        views.push(view(date, by_day.get(&date).copied(), account));
        let Ok(next) = date.tomorrow() else { break };
        date = next;
    }
    views
}

fn view(date: Date, day: Option<&Day>, wanted: Option<&PortfolioAccountId>) -> DayView {
    let worth = day.into_iter().flat_map(|day| &day.accounts);
    let accounts: Vec<AccountValue> = worth
        .map(|(account, worth)| AccountValue {
            account_id: PortfolioAccountId::snaptrade(AccountId::new(account.as_str())),
            amount: worth.as_ref().map(|worth| worth.amount),
            currency: worth.as_ref().and_then(|worth| worth.currency.clone()),
        })
        .filter(|value| wanted.is_none_or(|wanted| *wanted == value.account_id))
        .collect();
    let mut totals: BTreeMap<Option<String>, Exact> = BTreeMap::new();
    for value in &accounts {
        if let Some(amount) = value.amount {
            let sum = totals.entry(value.currency.clone()).or_insert_with(Exact::zero);
            *sum = sum.plus(&amount.into());
        }
    }
    DayView {
        date,
        gap: accounts.is_empty() || accounts.iter().any(|value| value.amount.is_none()),
        totals: totals
            .into_iter()
            .map(|(currency, amount)| DayTotal { currency, amount })
            .collect(),
        accounts,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn accounts(read_at: &str, worth: &[(&str, Option<&str>, &str)]) -> Reading<Vec<StoredAccount>> {
        let accounts: Vec<_> = worth
            .iter()
            .map(|(id, amount, currency)| {
                json!({
                    "account_id": id, "connection_id": "c", "synced": true, "is_paper": false,
                    "total_value": amount.map(|amount| json!({"amount": amount, "currency": currency})),
                })
            })
            .collect();
        let content = serde_json::from_value(json!(accounts)).unwrap();
        super::super::userdata::test_reading(content, read_at.parse().unwrap())
    }

    #[test]
    fn a_day_is_written_down_once_and_again_when_something_is_worth_more() {
        let morning = accounts("2026-11-21T09:00:00Z", &[("a", Some("1"), "USD")]);
        let noted = to_note(&morning, None).unwrap();
        assert_eq!(noted.day.to_string(), "2026-11-21");
        let noon = accounts("2026-11-21T12:00:00Z", &[("a", Some("1"), "USD")]);
        assert_eq!(to_note(&noon, Some(&morning)), None);
        let evening = accounts("2026-11-21T18:00:00Z", &[("a", Some("2"), "USD")]);
        assert!(to_note(&evening, Some(&noon)).is_some());
        let next = accounts("2026-11-22T00:00:00Z", &[("a", Some("2"), "USD")]);
        assert!(to_note(&next, Some(&evening)).is_some());
        assert_eq!(to_note(&accounts("2026-11-21T09:00:00Z", &[]), None), None);
    }

    #[test]
    fn days_on_which_nothing_was_read_are_gaps_and_currencies_stay_apart() {
        let day =
            |at: &str, worth: &[(&str, Option<&str>, &str)]| to_note(&accounts(at, worth), None).unwrap();
        let known = [
            day(
                "2026-11-20T09:00:00Z",
                &[
                    ("a", Some("1.10"), "USD"),
                    ("b", Some("2.20"), "USD"),
                    ("c", Some("3"), "CAD"),
                ],
            ),
            day(
                "2026-11-22T09:00:00Z",
                &[("a", Some("5"), "USD"), ("b", None, "")],
            ),
        ];
        let last = "2026-11-23".parse().unwrap();
        let shown = serde_json::to_value(drawn(&known, last, None)).unwrap();
        let summary: Vec<_> = shown
            .as_array()
            .unwrap()
            .iter()
            .map(|day| json!([day["date"], day["gap"], day["totals"]]))
            .collect();
        assert_eq!(
            json!(summary),
            json!([
                ["2026-11-20", false, [{"currency": "CAD", "amount": "3"}, {"currency": "USD", "amount": "3.30"}]],
                ["2026-11-21", true, []],
                ["2026-11-22", true, [{"currency": "USD", "amount": "5"}]],
                ["2026-11-23", true, []],
            ])
        );
        let one = PortfolioAccountId::snaptrade(AccountId::new("a"));
        let shown = drawn(&known, last, Some(&one));
        assert!(!shown[2].gap && shown[2].accounts.len() == 1);
        assert!(drawn(&[], last, None).is_empty());
    }
}
