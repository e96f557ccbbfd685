//! Trading: preview, placing, replacing and cancelling. A market order is executed at once at the sandbox's
//! price, any other waits until it is cancelled.

use jiff::Timestamp;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::catalogue::{self, Instrument};
use super::holdings::{Account, decimal, moment};
use super::operations::Call;
use super::world::{ConnectionType, Preview, World};
use super::{ids, orders};

/// A previewed order can be placed for so many seconds.
const PREVIEW_SECONDS: i64 = 300;

/// What the caller wants to trade.
#[derive(Debug, Clone)]
struct Wanted {
    account_id: String,
    instrument: &'static Instrument,
    action: String,
    order_type: String,
    time_in_force: String,
    units: Decimal,
    limit_price: Option<Decimal>,
    stop_price: Option<Decimal>,
}

impl Wanted {
    fn read(form: &Value) -> Result<Self, Refusal> {
        let invalid = |detail: &str| Refusal::InvalidInput(detail.to_owned());
        let text = |name: &str| {
            form.get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        let required = |name: &str| {
            text(name)
                .map(str::to_owned)
                .ok_or_else(|| invalid(&format!("{name} is required.")))
        };
        let number = |name: &str| match form.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => decimal(value)
                .filter(|number| *number > Decimal::ZERO)
                .map(Some)
                .ok_or_else(|| invalid(&format!("{name} has to be a positive number."))),
        };
        let one_of = |name: &str, known: &[&str]| {
            let value = required(name)?;
            if known.contains(&value.as_str()) {
                Ok(value)
            } else {
                Err(invalid(&format!("\"{value}\" is not a valid {name}.")))
            }
        };
        let symbol = text("universal_symbol_id").or_else(|| text("symbol"));
        let instrument = symbol
            .ok_or_else(|| invalid("universal_symbol_id is required."))
            .and_then(|symbol| catalogue::instrument(symbol).ok_or(Refusal::NotFound))?;
        let order_type = one_of("order_type", &["Market", "Limit", "Stop", "StopLimit"])?;
        let (limit_price, stop_price) = (number("price")?, number("stop")?);
        if matches!(order_type.as_str(), "Limit" | "StopLimit") && limit_price.is_none() {
            return Err(invalid("price is required."));
        }
        if matches!(order_type.as_str(), "Stop" | "StopLimit") && stop_price.is_none() {
            return Err(invalid("stop is required."));
        }
        let units = match (number("units")?, number("notional_value")?) {
            (Some(units), None) => units,
            (None, Some(value)) if order_type == "Market" => value
                .checked_div(price_of(instrument))
                .ok_or_else(|| invalid("notional_value is out of range."))?
                .round_dp(6),
            (None, Some(_)) => return Err(invalid("notional_value can only be used with Market orders.")),
            _ => return Err(invalid("Exactly one of units and notional_value is required.")),
        };
        Ok(Self {
            account_id: required("account_id")?,
            instrument,
            action: one_of("action", &["BUY", "SELL"])?,
            order_type,
            time_in_force: one_of("time_in_force", &["Day", "GTC", "FOK", "IOC", "GTD"])?,
            units,
            limit_price,
            stop_price,
        })
    }

    /// What the order costs; negative where it brings money in.
    fn cost(&self) -> Decimal {
        let price = self.limit_price.unwrap_or_else(|| price_of(self.instrument));
        let cost = price.saturating_mul(self.units);
        if self.action == "SELL" { -cost } else { cost }
    }
}

/// `POST /trade/impact`
pub(super) fn impact(call: &Call<'_>) -> Result<Value, Refusal> {
    let form = call.body.clone().unwrap_or_default();
    let wanted = Wanted::read(&form)?;
    call.shared.change(|world, now| {
        let cash = {
            let account = tradable(world, &call.user_id, &wanted.account_id)?;
            check_funds(account, &wanted)?;
            cash(account).saturating_sub(wanted.cost())
        };
        let preview = Preview {
            trade_id: ids::uuid(),
            user_id: call.user_id.clone(),
            form: form.clone(),
            at: now,
        };
        let trade_id = preview.trade_id.clone();
        world.previews.retain(|known| is_fresh(known, now));
        world.previews.push(preview);
        let (account, _) = world.account_of(&call.user_id, &wanted.account_id)?;
        let currency = catalogue::currency(wanted.instrument.currency);
        Ok(json!({
            "trade": {
                "id": trade_id,
                "account": wanted.account_id,
                "order_type": wanted.order_type,
                "time_in_force": wanted.time_in_force,
                "symbol": {
                    "universal_symbol_id": wanted.instrument.id,
                    "currency": currency,
                    "local_id": wanted.instrument.symbol,
                    "description": wanted.instrument.description,
                    "symbol": wanted.instrument.symbol,
                    "brokerage_symbol_id": wanted.instrument.id,
                },
                "action": wanted.action,
                "units": wanted.units.to_f64(),
                "price": wanted.limit_price.unwrap_or_else(|| price_of(wanted.instrument)).to_f64(),
            },
            "trade_impacts": [{
                "account": wanted.account_id,
                "currency": currency.get("id"),
                "remaining_cash": cash.round_dp(2).to_f64(),
                "estimated_commission": 0,
                "forex_fees": 0,
            }],
            "combined_remaining_balance": {
                "account": account.shown(),
                "currency": currency,
                "cash": cash.round_dp(2).to_f64(),
            },
        }))
    })
}

/// `POST /trade/{tradeId}`: places what was previewed.
pub(super) fn place_checked(call: &Call<'_>) -> Result<Value, Refusal> {
    call.shared.change(|world, now| {
        let preview = (world.previews.iter())
            .position(|known| {
                known.trade_id == call.id() && known.user_id == call.user_id && is_fresh(known, now)
            })
            .map(|index| world.previews.remove(index))
            .ok_or(Refusal::NotFound)?;
        place(world, &call.user_id, &Wanted::read(&preview.form)?, now)
    })
}

/// `POST /trade/place`: places without a preview.
pub(super) fn place_unchecked(call: &Call<'_>) -> Result<Value, Refusal> {
    let wanted = Wanted::read(&call.body.clone().unwrap_or_default())?;
    call.shared
        .change(|world, now| place(world, &call.user_id, &wanted, now))
}

/// `POST /accounts/{id}/trading/replace`: the waiting order ends, and one with the new terms takes its place.
pub(super) fn replace(call: &Call<'_>) -> Result<Value, Refusal> {
    let replaced = call.required_text("brokerage_order_id")?;
    let mut form = call.body.clone().unwrap_or_default();
    call.shared.change(|world, now| {
        let order = waiting(tradable(world, &call.user_id, call.id())?, replaced)?;
        if let Some(members) = form.as_object_mut() {
            members.insert("account_id".to_owned(), call.id().into());
            let symbol = order.pointer("/universal_symbol/id").cloned().unwrap_or_default();
            members.entry("universal_symbol_id").or_insert(symbol);
            if !members.contains_key("units") {
                members.insert(
                    "units".to_owned(),
                    order.get("open_quantity").cloned().unwrap_or_default(),
                );
            }
        }
        let placed = place(world, &call.user_id, &Wanted::read(&form)?, now)?;
        end(
            waiting(tradable(world, &call.user_id, call.id())?, replaced)?,
            "REPLACED",
            now,
        );
        Ok(placed)
    })
}

/// `POST /accounts/{id}/trading/cancel`
pub(super) fn cancel(call: &Call<'_>) -> Result<Value, Refusal> {
    let wanted = call.required_text("brokerage_order_id")?;
    call.shared.change(|world, now| {
        end(
            waiting(tradable(world, &call.user_id, call.id())?, wanted)?,
            "CANCELED",
            now,
        );
        Ok(json!({"brokerage_order_id": wanted, "raw_response": null}))
    })
}

/// The order of this id, while it can still be changed.
fn waiting<'a>(account: &'a mut Account, brokerage_order_id: &str) -> Result<&'a mut Value, Refusal> {
    let order = (account.orders.iter_mut())
        .find(|order| order.get("brokerage_order_id").and_then(Value::as_str) == Some(brokerage_order_id))
        .ok_or(Refusal::NotFound)?;
    if orders::is_open(order) {
        Ok(order)
    } else {
        Err(Refusal::InvalidInput(
            "The order cannot be changed any more.".to_owned(),
        ))
    }
}

/// Ends a waiting order: what was open counts as cancelled.
fn end(order: &mut Value, status: &str, now: Timestamp) {
    let left = order.get("open_quantity").cloned().unwrap_or_default();
    if let Some(members) = order.as_object_mut() {
        members.insert("status".to_owned(), status.into());
        members.insert("open_quantity".to_owned(), "0".into());
        members.insert("canceled_quantity".to_owned(), left);
        members.insert("time_updated".to_owned(), moment(now).into());
    }
}

fn place(world: &mut World, user_id: &str, wanted: &Wanted, now: Timestamp) -> Result<Value, Refusal> {
    let account = tradable(world, user_id, &wanted.account_id)?;
    check_funds(account, wanted)?;
    let executed = wanted.order_type == "Market";
    let units = wanted.units.normalize().to_string();
    let price = price_of(wanted.instrument);
    let order = json!({
        "brokerage_order_id": ids::uuid(),
        "brokerage_group_order_id": null,
        "order_role": null,
        "status": if executed { "EXECUTED" } else { "PENDING" },
        "universal_symbol": wanted.instrument.universal_symbol(),
        "option_symbol": null,
        "quote_universal_symbol": null,
        "quote_currency": null,
        "action": wanted.action,
        "total_quantity": units,
        "open_quantity": if executed { "0" } else { &units },
        "canceled_quantity": "0",
        "filled_quantity": if executed { &units } else { "0" },
        "execution_price": executed.then(|| price.to_string()),
        "limit_price": wanted.limit_price.map(|price| price.to_string()),
        "stop_price": wanted.stop_price.map(|price| price.to_string()),
        "trailing_stop": null,
        "order_type": wanted.order_type,
        "time_in_force": wanted.time_in_force,
        "time_placed": moment(now),
        "time_updated": moment(now),
        "time_executed": executed.then(|| moment(now)),
        "expiry_date": null,
        "symbol": wanted.instrument.id,
        "child_brokerage_order_ids": null,
    });
    account.orders.push(order.clone());
    if executed {
        settle(account, wanted);
    }
    Ok(order)
}

/// The account of this user, when orders can be placed in it.
fn tradable<'a>(world: &'a mut World, user_id: &str, account_id: &str) -> Result<&'a mut Account, Refusal> {
    let (account, connection) = world.account_of(user_id, account_id)?;
    if connection.kind != ConnectionType::Trade {
        return Err(Refusal::Forbidden);
    }
    if connection.disabled_at.is_some() {
        return Err(Refusal::ConnectionDisabled);
    }
    if !account.is_synced() {
        return Err(Refusal::NotSynced);
    }
    (world.accounts.iter_mut().find(|account| account.id == account_id)).ok_or(Refusal::NotFound)
}

/// The codes for these refusals are not published.
fn check_funds(account: &Account, wanted: &Wanted) -> Result<(), Refusal> {
    let enough = match wanted.action.as_str() {
        "SELL" => held(account, wanted.instrument.symbol) >= wanted.units,
        _ => cash(account) >= wanted.cost(),
    };
    if enough {
        Ok(())
    } else {
        Err(Refusal::InvalidInput(
            "Insufficient funds or holdings for this order.".to_owned(),
        ))
    }
}

/// Moves money and units as an executed order does.
fn settle(account: &mut Account, wanted: &Wanted) {
    let left = cash(account).saturating_sub(wanted.cost()).round_dp(2).to_f64();
    let currency = account.currency.clone();
    if let Some(balance) = account
        .balances
        .iter_mut()
        .find(|balance| is_in(balance, &currency))
        && let Some(members) = balance.as_object_mut()
    {
        members.insert("cash".to_owned(), left.into());
        members.insert("buying_power".to_owned(), left.into());
    }
    let symbol = wanted.instrument.symbol;
    let units = match wanted.action.as_str() {
        "SELL" => held(account, symbol).saturating_sub(wanted.units),
        _ => held(account, symbol).saturating_add(wanted.units),
    };
    let standing = account
        .positions
        .iter()
        .position(|position| is_of(position, symbol));
    match standing {
        Some(index) if units.is_zero() => {
            account.positions.remove(index);
        }
        Some(index) => {
            if let Some(members) = account.positions.get_mut(index).and_then(Value::as_object_mut) {
                members.insert("units".to_owned(), units.normalize().to_string().into());
            }
        }
        None => account.positions.push(json!({
            "instrument": wanted.instrument.held(),
            "units": units.normalize().to_string(),
            "price": wanted.instrument.price,
            "cost_basis": wanted.instrument.price,
            "currency": wanted.instrument.currency,
            "cash_equivalent": false,
        })),
    }
}

fn is_fresh(preview: &Preview, now: Timestamp) -> bool {
    now.as_second().saturating_sub(preview.at.as_second()) < PREVIEW_SECONDS
}

fn price_of(instrument: &Instrument) -> Decimal {
    instrument.price.parse().unwrap_or_default()
}

fn is_in(balance: &Value, currency: &str) -> bool {
    balance.pointer("/currency/code").and_then(Value::as_str) == Some(currency)
}

fn is_of(position: &Value, symbol: &str) -> bool {
    position.pointer("/instrument/symbol").and_then(Value::as_str) == Some(symbol)
}

fn cash(account: &Account) -> Decimal {
    (account.balances.iter())
        .find(|balance| is_in(balance, &account.currency))
        .and_then(|balance| decimal(balance.get("cash")?))
        .unwrap_or_default()
}

fn held(account: &Account, symbol: &str) -> Decimal {
    (account.positions.iter())
        .find(|position| is_of(position, symbol))
        .and_then(|position| decimal(position.get("units")?))
        .unwrap_or_default()
}
