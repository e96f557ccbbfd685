//! Accounts and their data: balances, positions, activities, returns and quotes.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rust_decimal::prelude::ToPrimitive;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::auth::Query;
use super::catalogue::{self, Instrument};
use super::holdings::{Account, day, days_before, decimal, moment};
use super::operations::Call;

/// The most activities on one page, and the default.
const PAGE: u64 = 1000;

/// `GET /accounts`
pub(super) fn list(call: &Call<'_>) -> Result<Value, Refusal> {
    Ok(call
        .shared
        .world(|world, _| world.accounts_of(&call.user_id).map(Account::shown).collect()))
}

/// `GET /accounts/all`
pub(super) fn list_by_kind(call: &Call<'_>) -> Result<Value, Refusal> {
    let accounts: Value = call.shared.world(|world, _| {
        world
            .accounts_of(&call.user_id)
            .map(Account::shown_by_kind)
            .collect()
    });
    Ok(json!({"results": accounts}))
}

/// `GET /accounts/{id}`
pub(super) fn detail(call: &Call<'_>) -> Result<Value, Refusal> {
    with_account(call, |account, _| Ok(account.shown()))
}

/// `GET /accounts/{id}/details`
pub(super) fn detail_by_kind(call: &Call<'_>) -> Result<Value, Refusal> {
    with_account(call, |account, _| Ok(account.shown_by_kind()))
}

/// `PUT /accounts/{id}`: its name can be changed.
pub(super) fn update(call: &Call<'_>) -> Result<Value, Refusal> {
    let name = call.text("name")?.map(str::to_owned);
    call.shared.change(|world, _| {
        world.account_of(&call.user_id, call.id())?;
        let account =
            (world.accounts.iter_mut().find(|account| account.id == call.id())).ok_or(Refusal::NotFound)?;
        if let Some(name) = name {
            account.name = name;
        }
        Ok(json!([account.shown()]))
    })
}

/// `GET /accounts/{id}/balances`
pub(super) fn balances(call: &Call<'_>) -> Result<Value, Refusal> {
    with_data(call, |account, _| Ok(account.balances.clone().into()))
}

/// `GET /accounts/{id}/balances/v2`
pub(super) fn balances_v2(call: &Call<'_>) -> Result<Value, Refusal> {
    with_data(call, |account, now| Ok(account.balances_v2(now)))
}

/// `GET /accounts/{id}/positions/all`
pub(super) fn positions(call: &Call<'_>) -> Result<Value, Refusal> {
    with_data(call, |account, now| {
        Ok(json!({
            "results": account.positions,
            "data_freshness": {"as_of": moment(account.holdings_synced_at.unwrap_or(now))},
        }))
    })
}

/// `GET /accounts/{id}/activities`, newest first.
pub(super) fn activities(call: &Call<'_>) -> Result<Value, Refusal> {
    let date = |name: &str| match call.query.get(name) {
        None => Ok(None),
        Some(text) => (text.parse::<Date>())
            .map(|date| Some(date.to_string()))
            .map_err(|_| Refusal::InvalidInput(format!("{name} has to be a date as YYYY-MM-DD."))),
    };
    let (start, end) = (date("startDate")?, date("endDate")?);
    let (offset, limit) = (
        call.query.number("offset", 0)?,
        call.query.number("limit", PAGE)?.min(PAGE),
    );
    let types: Option<Vec<String>> = call.query.get("type").map(|list| {
        list.split(',')
            .map(|one| one.trim().to_ascii_uppercase())
            .collect()
    });
    with_data(call, |account, _| {
        let traded_on = |activity: &Value| {
            let text = activity
                .get("trade_date")
                .and_then(Value::as_str)
                .unwrap_or_default();
            text.get(..10).unwrap_or_default().to_owned()
        };
        let mut rows: Vec<&Value> = (account.activities.iter())
            .filter(|activity| {
                let traded_on = traded_on(activity);
                let kind = activity.get("type").and_then(Value::as_str).unwrap_or_default();
                start.as_ref().is_none_or(|start| traded_on >= *start)
                    && end.as_ref().is_none_or(|end| traded_on <= *end)
                    && (types.as_ref())
                        .is_none_or(|types| types.iter().any(|one| one.eq_ignore_ascii_case(kind)))
            })
            .collect();
        rows.sort_by_key(|activity| std::cmp::Reverse(instant(activity.get("trade_date"))));
        let total = rows.len();
        let page: Value = rows
            .into_iter()
            .skip(usize::try_from(offset).unwrap_or(usize::MAX))
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .cloned()
            .collect();
        Ok(json!({"data": page, "pagination": {"offset": offset, "limit": limit, "total": total}}))
    })
}

/// `GET /accounts/{id}/balanceHistory`: the sandbox's prices do not move, so every day is worth the same.
pub(super) fn balance_history(call: &Call<'_>) -> Result<Value, Refusal> {
    with_data(call, |account, now| {
        let total = account.total_value().unwrap_or_default();
        let history: Value = (0..30)
            .rev()
            .map(|days| json!({"date": day(days_before(now, days)), "total_value": format!("{total:.2}")}))
            .collect();
        Ok(json!({"history": history, "currency": account.currency}))
    })
}

/// `GET /accounts/{id}/returnRates`
pub(super) fn return_rates(call: &Call<'_>) -> Result<Value, Refusal> {
    with_data(call, |_, now| Ok(rates(&call.query, now)))
}

/// `GET /accounts/{id}/quotes`
pub(super) fn quotes(call: &Call<'_>) -> Result<Value, Refusal> {
    let symbols = (call.query.get("symbols"))
        .ok_or_else(|| Refusal::InvalidInput("symbols is required.".to_owned()))?;
    let wanted: Vec<&str> = symbols.split(',').map(str::trim).collect();
    if wanted.len() > 10 {
        return Err(Refusal::InvalidInput(
            "At most 10 symbols can be asked for at once.".to_owned(),
        ));
    }
    with_account(call, |_, _| {
        Ok((wanted.iter())
            .filter_map(|symbol| catalogue::instrument(symbol))
            .map(|instrument| {
                let price = decimal(&instrument.price.into()).and_then(|price| price.to_f64());
                json!({
                    "symbol": instrument.universal_symbol(),
                    "last_trade_price": price,
                    "bid_price": price,
                    "ask_price": price,
                    "bid_size": 100,
                    "ask_size": 100,
                })
            })
            .collect())
    })
}

/// `POST /accounts/{id}/symbols`
pub(super) fn symbols(call: &Call<'_>) -> Result<Value, Refusal> {
    let substring = call.text("substring")?.unwrap_or_default();
    with_account(call, |_, _| {
        Ok(catalogue::search(substring)
            .into_iter()
            .map(Instrument::universal_symbol)
            .collect())
    })
}

/// The rates of return for the timeframes that a query asks for. They are the sandbox's own invention, always
/// the same for the same timeframe.
pub(super) fn rates(query: &Query, now: Timestamp) -> Value {
    const RATES: [(&str, f64); 6] = [
        ("ALL", 18.42),
        ("1Y", 11.07),
        ("YTD", 9.31),
        ("1M", 1.86),
        ("1W", 0.42),
        ("1D", 0.11),
    ];
    let wanted: Option<Vec<&str>> = query
        .get("timeframes")
        .map(|list| list.split(',').map(str::trim).collect());
    let rows: Value = (RATES.iter())
        .filter(|(timeframe, _)| wanted.as_ref().is_none_or(|list| list.contains(timeframe)))
        .map(|(timeframe, percent)| {
            json!({"timeframe": timeframe, "return_percent": percent, "created_date": moment(now)})
        })
        .collect();
    json!({"data": rows})
}

fn with_account(
    call: &Call<'_>,
    look: impl FnOnce(&Account, Timestamp) -> Result<Value, Refusal>,
) -> Result<Value, Refusal> {
    call.shared.world(|world, now| {
        let (account, _) = world.account_of(&call.user_id, call.id())?;
        look(account, now)
    })
}

/// Looks at an account's data once there is some. A disabled connection keeps serving what it has.
pub(super) fn with_data(
    call: &Call<'_>,
    look: impl FnOnce(&Account, Timestamp) -> Result<Value, Refusal>,
) -> Result<Value, Refusal> {
    with_account(call, |account, now| {
        if account.is_synced() {
            look(account, now)
        } else {
            Err(Refusal::NotSynced)
        }
    })
}

/// A time in any of the spellings that SnapTrade uses.
pub(super) fn instant(value: Option<&Value>) -> Option<Timestamp> {
    let text = value?.as_str()?;
    (text.parse().ok()).or_else(|| {
        let date: Date = text.get(..10)?.parse().ok()?;
        Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}
