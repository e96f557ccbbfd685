//! What is the same for every user: the service's state, the client itself, brokerages, symbols and
//! exchanges.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::catalogue::{self, BROKERAGES, Brokerage, INSTRUMENTS, Instrument};
use super::holdings::moment;
use super::operations::Call;

/// `GET /`
pub(super) fn check(call: &Call<'_>) -> Result<Value, Refusal> {
    Ok(json!({"version": 153, "timestamp": moment(call.shared.clock.now()), "online": true}))
}

/// `GET /snapTrade/partners`
pub(super) fn partner(_: &Call<'_>) -> Result<Value, Refusal> {
    let brokerages: Value = BROKERAGES.iter().map(Brokerage::shown).collect();
    Ok(json!({
        "slug": "SANDBOX-CLIENT",
        "name": "Sandbox client",
        "logo_url": null,
        "allowed_brokerages": brokerages,
        "can_access_trades": true,
        "can_access_holdings": true,
        "can_access_account_history": true,
        "can_access_reference_data": true,
        "can_access_portfolio_management": true,
        "can_access_orders": true,
        "redirect_uri": null,
        "pin_required": false,
    }))
}

/// `GET /management/stats`, and the older path of the same.
pub(super) fn stats(call: &Call<'_>) -> Result<Value, Refusal> {
    call.shared.world(|world, now| {
        let connected = (world.users.iter()).filter(|user| world.connections_of(&user.id).next().is_some());
        let disabled = world
            .connections
            .iter()
            .filter(|one| one.disabled_at.is_some())
            .count();
        let worth = |of_disabled: bool| {
            (world.connections.iter())
                .filter(|connection| connection.disabled_at.is_some() == of_disabled)
                .flat_map(|connection| world.accounts_under(&connection.id))
                .filter(|account| account.currency == "USD")
                .filter_map(|account| account.total_value())
                .fold(Decimal::ZERO, Decimal::saturating_add)
                .round_dp(2)
                .to_f64()
        };
        Ok(json!({
            "total_users": world.users.len(),
            "total_connected_users": connected.count(),
            "total_active_connections": world.connections.len().saturating_sub(disabled),
            "total_disabled_connections": disabled,
            "oauth_total_users": null,
            "oauth_total_connected_users": null,
            "oauth_total_active_connections": null,
            "oauth_total_disabled_connections": null,
            "connected_assets": worth(false),
            "disabled_connected_assets": worth(true),
            "oauth_connected_assets": null,
            "oauth_disabled_connected_assets": null,
            "connected_assets_currency": "USD",
            "connected_assets_calculated_at": moment(now),
        }))
    })
}

/// `GET /brokerages`
pub(super) fn brokerages(_: &Call<'_>) -> Result<Value, Refusal> {
    Ok(BROKERAGES.iter().map(Brokerage::shown).collect())
}

/// `GET /institutions`
pub(super) fn institutions(_: &Call<'_>) -> Result<Value, Refusal> {
    Ok(BROKERAGES.iter().map(Brokerage::institution).collect())
}

/// `GET /brokerages/{slug}/instruments`
pub(super) fn instruments(call: &Call<'_>) -> Result<Value, Refusal> {
    let brokerage = catalogue::brokerage(call.id()).ok_or(Refusal::NotFound)?;
    let rows: Value = INSTRUMENTS
        .iter()
        .map(|one| one.traded(brokerage.allows_trading))
        .collect();
    Ok(json!({"instruments": rows}))
}

/// `GET /brokerageAuthorizationTypes`
pub(super) fn authorization_types(call: &Call<'_>) -> Result<Value, Refusal> {
    let wanted: Option<Vec<&str>> = call
        .query
        .get("brokerage")
        .map(|list| list.split(',').map(str::trim).collect());
    Ok((BROKERAGES.iter())
        .filter(|brokerage| {
            (wanted.as_ref())
                .is_none_or(|slugs| slugs.iter().any(|slug| brokerage.slug.eq_ignore_ascii_case(slug)))
        })
        .flat_map(Brokerage::authorization_types)
        .collect())
}

/// `GET /exchanges`
pub(super) fn exchanges(_: &Call<'_>) -> Result<Value, Refusal> {
    Ok(catalogue::exchanges().into())
}

/// `POST /symbols`
pub(super) fn search_symbols(call: &Call<'_>) -> Result<Value, Refusal> {
    let substring = call.text("substring")?.unwrap_or_default();
    Ok(catalogue::search(substring)
        .into_iter()
        .map(Instrument::universal_symbol)
        .collect())
}

/// `GET /symbols/{query}`
pub(super) fn symbol(call: &Call<'_>) -> Result<Value, Refusal> {
    catalogue::instrument(call.id())
        .map(Instrument::universal_symbol)
        .ok_or(Refusal::NotFound)
}
