//! Users: registration, deletion, secrets and the portal's links.

use serde_json::{Value, json};
use url::Url;

use super::answer::Refusal;
use super::catalogue;
use super::operations::Call;
use super::portal::{ConnectionWish, Session};

/// `POST /snapTrade/registerUser`
pub(super) fn register(call: &Call<'_>) -> Result<Value, Refusal> {
    let user_id = call.required_text("userId")?;
    let secret = call.shared.change(|world, now| world.register(user_id, now))?;
    Ok(json!({"userId": user_id, "userSecret": secret}))
}

/// `DELETE /snapTrade/deleteUser`
pub(super) fn delete(call: &Call<'_>) -> Result<Value, Refusal> {
    let user_id =
        (call.query.get("userId")).ok_or_else(|| Refusal::InvalidInput("userId is required.".to_owned()))?;
    call.shared.change(|world, now| world.delete_user(user_id, now))?;
    Ok(json!({
        "status": "deleted",
        "detail": "User queued for deletion; please wait for webhook for confirmation.",
        "userId": user_id,
    }))
}

/// `GET /snapTrade/listUsers`
pub(super) fn list(call: &Call<'_>) -> Result<Value, Refusal> {
    Ok(call.shared.world(|world, _| {
        world
            .users
            .iter()
            .map(|user| Value::from(user.id.as_str()))
            .collect()
    }))
}

/// `POST /snapTrade/resetUserSecret`, whose body carries the user's id and secret.
pub(super) fn reset_secret(call: &Call<'_>) -> Result<Value, Refusal> {
    let (user_id, secret) = (call.required_text("userId")?, call.required_text("userSecret")?);
    let fresh = call.shared.change(|world, _| match world.user(user_id) {
        Some(user) if user.secret == secret => world.reset_secret(user_id),
        _ => Err(Refusal::InvalidUser),
    })?;
    Ok(json!({"userId": user_id, "userSecret": fresh}))
}

/// `POST /snapTrade/login`: a link into the connection portal, good for one connection.
pub(super) fn login(call: &Call<'_>) -> Result<Value, Refusal> {
    let invalid = |detail: String| Err(Refusal::InvalidInput(detail));
    let wish = match call.text("connectionType")?.unwrap_or("read") {
        "read" => ConnectionWish::Read,
        "trade" => ConnectionWish::Trade,
        "trade-if-available" => ConnectionWish::TradeIfAvailable,
        other => return invalid(format!("\"{other}\" is not a valid connectionType.")),
    };
    let broker = match call.text("broker")?.filter(|slug| !slug.is_empty()) {
        None => None,
        Some(slug) => match catalogue::brokerage(slug) {
            None => return invalid(format!("{slug} is not a valid broker.")),
            Some(brokerage) if wish == ConnectionWish::Trade && !brokerage.allows_trading => {
                return invalid(format!("{} does not have a trade type available", brokerage.slug));
            }
            Some(brokerage) => Some(brokerage.slug.to_owned()),
        },
    };
    if let Some(locale) = call.text("locale")?
        && !matches!(locale, "en" | "pt-BR")
    {
        return invalid(format!("\"{locale}\" is not a valid locale."));
    }
    if let Some(version) = call.text("connectionPortalVersion")?
        && !matches!(version, "v2" | "v3" | "v4")
    {
        return invalid(format!("\"{version}\" is not a valid connectionPortalVersion."));
    }
    let redirect = match call.text("customRedirect")?.filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => match Url::parse(text) {
            // Anything but a script may be returned to: apps have schemes of their own.
            Ok(url) if !matches!(url.scheme(), "javascript" | "data" | "vbscript") => Some(url.to_string()),
            _ => return invalid("customRedirect has to be a URL.".to_owned()),
        },
    };
    call.flag("immediateRedirect", false)?;
    let reconnect = call
        .text("reconnect")?
        .filter(|id| !id.is_empty())
        .map(str::to_owned);
    let (dark_mode, close_button) = (call.flag("darkMode", false)?, call.flag("showCloseButton", true)?);
    let session = call.shared.change(|world, now| {
        if let Some(id) = &reconnect {
            let connection = world.connection_of(&call.user_id, id)?;
            let trades = catalogue::brokerage(&connection.broker).is_some_and(|one| one.allows_trading);
            if wish == ConnectionWish::Trade && !trades {
                return Err(Refusal::InvalidInput(format!(
                    "{} does not have a trade type available",
                    connection.broker
                )));
            }
        }
        let mut session = Session::new(&call.user_id, wish, now);
        session.broker = broker;
        session.reconnect = reconnect;
        session.redirect = redirect;
        session.dark_mode = dark_mode;
        session.close_button = close_button;
        world.sessions.retain(|known| known.is_open(now));
        world.sessions.push(session.clone());
        Ok(session)
    })?;
    Ok(json!({
        "redirectURI": session.link(&call.shared.base_url),
        "sessionId": session.id,
    }))
}
