//! Connections, which the API also calls brokerage authorizations.

use serde_json::{Value, json};

use super::accounts::rates;
use super::answer::Refusal;
use super::holdings::Account;
use super::operations::Call;
use super::world::Connection;

/// `GET /authorizations`
pub(super) fn list(call: &Call<'_>) -> Result<Value, Refusal> {
    Ok(call.shared.world(|world, _| {
        world
            .connections_of(&call.user_id)
            .map(Connection::shown)
            .collect()
    }))
}

/// `GET /authorizations/{id}`
pub(super) fn detail(call: &Call<'_>) -> Result<Value, Refusal> {
    call.shared.world(|world, _| {
        world
            .connection_of(&call.user_id, call.id())
            .map(Connection::shown)
    })
}

/// `POST /authorizations/{id}/refresh`
pub(super) fn refresh(call: &Call<'_>) -> Result<Value, Refusal> {
    call.shared.change(|world, now| {
        world.connection_of(&call.user_id, call.id())?;
        world.refresh(call.id(), now)
    })?;
    Ok(json!({"detail": format!("Connection {} scheduled for refresh", call.id())}))
}

/// `POST /authorizations/{id}/transactions/sync`
pub(super) fn sync_transactions(call: &Call<'_>) -> Result<Value, Refusal> {
    call.shared.change(|world, now| {
        if world
            .connection_of(&call.user_id, call.id())?
            .disabled_at
            .is_some()
        {
            return Err(Refusal::ConnectionDisabled);
        }
        for account in world
            .accounts
            .iter_mut()
            .filter(|account| account.connection_id == call.id())
        {
            if account.is_synced() {
                account.transactions_synced_at = Some(now);
            }
        }
        Ok(())
    })?;
    Ok(json!({"detail": format!("Connection {} scheduled for transactions sync", call.id())}))
}

/// `POST /authorizations/{id}/disable`
pub(super) fn disable(call: &Call<'_>) -> Result<Value, Refusal> {
    call.shared.change(|world, now| {
        world.connection_of(&call.user_id, call.id())?;
        world.break_connection(call.id(), now)
    })?;
    Ok(json!({"detail": format!("Connection {} has been disabled", call.id())}))
}

/// `GET /authorizations/{id}/accounts`
pub(super) fn accounts(call: &Call<'_>) -> Result<Value, Refusal> {
    call.shared.world(|world, _| {
        world.connection_of(&call.user_id, call.id())?;
        Ok(world.accounts_under(call.id()).map(Account::shown).collect())
    })
}

/// `GET /connections/{id}/accounts`
pub(super) fn accounts_by_kind(call: &Call<'_>) -> Result<Value, Refusal> {
    call.shared.world(|world, _| {
        world.connection_of(&call.user_id, call.id())?;
        let accounts: Value = world
            .accounts_under(call.id())
            .map(Account::shown_by_kind)
            .collect();
        Ok(json!({"results": accounts}))
    })
}

/// `GET /authorizations/{id}/returnRates`
pub(super) fn return_rates(call: &Call<'_>) -> Result<Value, Refusal> {
    call.shared.world(|world, now| {
        world.connection_of(&call.user_id, call.id())?;
        Ok(rates(&call.query, now))
    })
}

/// `DELETE /connection/{id}`
pub(super) fn delete(call: &Call<'_>) -> Result<Value, Refusal> {
    call.shared.change(|world, now| {
        world.connection_of(&call.user_id, call.id())?;
        world.delete_connection(call.id(), now)
    })?;
    Ok(json!({
        "detail": "Connection queued for deletion; please wait for webhook for confirmation.",
        "connection_id": call.id(),
    }))
}
