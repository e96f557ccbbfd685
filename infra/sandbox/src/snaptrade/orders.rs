//! Orders as the API lists them, in each of its three shapes. They are kept in the oldest one, which is also
//! the one that a control call sets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::accounts::{instant, with_data};
use super::answer::Refusal;
use super::catalogue;
use super::holdings::{Account, days_before, moment};
use super::operations::Call;

/// `GET /accounts/{id}/orders`
pub(super) fn list(call: &Call<'_>) -> Result<Value, Refusal> {
    selected(call, |rows, _, _| rows.into_iter().cloned().collect())
}

/// `GET /accounts/{id}/orders/v2`
pub(super) fn list_v2(call: &Call<'_>) -> Result<Value, Refusal> {
    selected(
        call,
        |rows, _, _| json!({"orders": rows.into_iter().map(with_legs).collect::<Value>()}),
    )
}

/// `GET /accounts/{id}/orders/all`
pub(super) fn list_by_kind(call: &Call<'_>) -> Result<Value, Refusal> {
    selected(call, |rows, account, now| {
        json!({
            "results": rows.into_iter().map(by_kind).collect::<Value>(),
            "data_freshness": {"as_of": moment(account.holdings_synced_at.unwrap_or(now))},
        })
    })
}

/// `GET /accounts/{id}/recentOrders`: those of the last 24 hours.
pub(super) fn recent(call: &Call<'_>) -> Result<Value, Refusal> {
    of_last_day(call, |rows| json!({"orders": rows}))
}

/// `GET /accounts/{id}/recentOrders/v2`
pub(super) fn recent_v2(call: &Call<'_>) -> Result<Value, Refusal> {
    of_last_day(
        call,
        |rows| json!({"orders": rows.into_iter().map(with_legs).collect::<Value>()}),
    )
}

/// `POST /accounts/{id}/orders/details`
pub(super) fn detail(call: &Call<'_>) -> Result<Value, Refusal> {
    let wanted = call.required_text("brokerage_order_id")?;
    with_data(call, |account, _| find(account, wanted).cloned())
}

/// `GET /accounts/{id}/orders/details/v2/{brokerageOrderId}`
pub(super) fn detail_v2(call: &Call<'_>) -> Result<Value, Refusal> {
    let wanted = call.path.get(1).map_or("", String::as_str);
    with_data(call, |account, _| find(account, wanted).map(with_legs))
}

/// Whether an order waits at the broker.
pub(super) fn is_open(order: &Value) -> bool {
    matches!(
        text(order, "status"),
        "NONE"
            | "PENDING"
            | "ACCEPTED"
            | "PARTIAL"
            | "QUEUED"
            | "TRIGGERED"
            | "ACTIVATED"
            | "CANCEL_PENDING"
            | "REPLACE_PENDING"
            | "PENDING_RISK_REVIEW"
            | "CONTINGENT_ORDER"
    )
}

fn is_executed(order: &Value) -> bool {
    matches!(text(order, "status"), "EXECUTED" | "PARTIAL")
}

/// Answers with the orders that the query's `state` and `days` select.
fn selected(
    call: &Call<'_>,
    shape: impl FnOnce(Vec<&Value>, &Account, Timestamp) -> Value,
) -> Result<Value, Refusal> {
    let days = call.query.number("days", 30)?;
    if !(1..=90).contains(&days) {
        return Err(Refusal::InvalidInput("days has to be from 1 to 90.".to_owned()));
    }
    let wanted: fn(&Value) -> bool = match call.query.get("state").unwrap_or("all") {
        "all" => |_| true,
        "open" => is_open,
        "executed" => is_executed,
        other => {
            return Err(Refusal::InvalidInput(format!(
                "\"{other}\" is not a valid state."
            )));
        }
    };
    with_data(call, |account, now| {
        let since = days_before(now, i64::try_from(days).unwrap_or(90));
        let rows = (account.orders.iter())
            .filter(|order| placed_after(order, since) && wanted(order))
            .collect();
        Ok(shape(rows, account, now))
    })
}

fn of_last_day(call: &Call<'_>, shape: impl FnOnce(Vec<&Value>) -> Value) -> Result<Value, Refusal> {
    let all = call
        .query
        .get("only_executed")
        .is_some_and(|text| text.eq_ignore_ascii_case("false"));
    with_data(call, |account, now| {
        let since = days_before(now, 1);
        let rows = (account.orders.iter())
            .filter(|order| placed_after(order, since) && (all || is_executed(order)))
            .collect();
        Ok(shape(rows))
    })
}

fn find<'a>(account: &'a Account, brokerage_order_id: &str) -> Result<&'a Value, Refusal> {
    (account.orders.iter())
        .find(|order| text(order, "brokerage_order_id") == brokerage_order_id)
        .ok_or(Refusal::NotFound)
}

fn placed_after(order: &Value, since: Timestamp) -> bool {
    // A time that cannot be read is no reason to hide an order that a test has set.
    instant(order.get("time_placed")).is_none_or(|placed| placed >= since)
}

/// The second shape: what is traded stands in legs, and words are in capitals.
fn with_legs(order: &Value) -> Value {
    let symbol = |pointer: &str| order.pointer(&format!("/universal_symbol/{pointer}"));
    let asset_type = match symbol("type/code").and_then(Value::as_str) {
        Some("crypto") => "CRYPTO",
        _ => "EQUITY",
    };
    let order_type = match text(order, "order_type") {
        "StopLimit" => "STOP_LIMIT".to_owned(),
        other => other.to_ascii_uppercase(),
    };
    json!({
        "brokerage_order_id": order.get("brokerage_order_id"),
        "brokerage_group_order_id": order.get("brokerage_group_order_id"),
        "order_role": order.get("order_role"),
        "status": order.get("status"),
        "order_type": order_type,
        "time_in_force": text(order, "time_in_force").to_ascii_uppercase(),
        "time_placed": order.get("time_placed"),
        "time_executed": order.get("time_executed"),
        "price_currency": symbol("currency/code"),
        "price_effect": price_effect(order),
        "execution_price": order.get("execution_price"),
        "limit_price": order.get("limit_price"),
        "stop_price": order.get("stop_price"),
        "trailing_stop": order.get("trailing_stop"),
        "legs": [{
            "leg_id": null,
            "instrument": {
                "symbol": symbol("symbol"),
                "description": symbol("description"),
                "asset_type": asset_type,
                "exchange_mic_code": symbol("exchange/mic_code"),
                "figi_code": symbol("figi_code"),
            },
            "action": order.get("action"),
            "execution_price": order.get("execution_price"),
            "total_quantity": order.get("total_quantity"),
            "canceled_quantity": order.get("canceled_quantity"),
            "filled_quantity": order.get("filled_quantity"),
            "status": order.get("status"),
        }],
    })
}

/// The newest shape: instruments and order types are told apart by their kind.
fn by_kind(order: &Value) -> Value {
    let (limit, stop) = (order.get("limit_price"), order.get("stop_price"));
    let order_type = match text(order, "order_type") {
        "Market" => json!({"kind": "market"}),
        "Limit" => json!({"kind": "limit", "limit_price": limit}),
        "Stop" => json!({"kind": "stop", "stop_price": stop}),
        "StopLimit" => json!({"kind": "stop_limit", "stop_price": stop, "limit_price": limit}),
        other => json!({"kind": "other", "raw_type": other}),
    };
    let id = order
        .pointer("/universal_symbol/id")
        .and_then(Value::as_str)
        .unwrap_or_default();
    json!({
        "brokerage_order_id": order.get("brokerage_order_id"),
        "status": order.get("status"),
        "order_type": order_type,
        "time_in_force": text(order, "time_in_force").to_ascii_uppercase(),
        "price_effect": price_effect(order),
        "legs": [{
            "leg_id": null,
            "instrument": catalogue::instrument(id).map(catalogue::Instrument::held),
            "action": order.get("action"),
            "total_quantity": order.get("total_quantity"),
            "filled_quantity": order.get("filled_quantity"),
            "canceled_quantity": order.get("canceled_quantity"),
            "execution_price": order.get("execution_price"),
            "status": order.get("status"),
        }],
        "expiry_date": order.get("expiry_date"),
        "price_currency": order.pointer("/universal_symbol/currency/code"),
        "total_quantity": order.get("total_quantity"),
        "filled_quantity": order.get("filled_quantity"),
        "canceled_quantity": order.get("canceled_quantity"),
        "open_quantity": order.get("open_quantity"),
        "execution_price": order.get("execution_price"),
        "time_placed": order.get("time_placed"),
        "time_updated": order.get("time_updated"),
        "time_executed": order.get("time_executed"),
        "group": null,
    })
}

fn price_effect(order: &Value) -> &'static str {
    match text(order, "action") {
        action if action.starts_with("BUY") => "DEBIT",
        action if action.starts_with("SELL") => "CREDIT",
        _ => "UNKNOWN",
    }
}

fn text<'a>(order: &'a Value, name: &str) -> &'a str {
    order.get(name).and_then(Value::as_str).unwrap_or_default()
}
