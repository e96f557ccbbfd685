//! Connections: a user's login at a brokerage, under which there are one or more accounts.
//!
//! SnapTrade calls them connections in its guides and brokerage authorizations in most of its API.
//!
//! Source: SnapTrade's OpenAPI file, tag "Connections".

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::accounts::{Account, KindAccount, RateOfReturn, RateOfReturns, Timeframe, joined};
use super::client::{Call, Client, Repeat};
use super::credentials::UserCredentials;
use super::error::Error;
use super::lenient::{self, Listing, open_enum};
use super::reference::Brokerage;
use super::users::ConnectionType;

lenient::id! {
    /// The id of a connection.
    ConnectionId
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Connection {
    /// The connection's id.
    pub id: ConnectionId,
    /// When it was made.
    #[serde(default, deserialize_with = "lenient::time")]
    pub created_date: Option<Timestamp>,
    /// The brokerage.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub brokerage: Option<Brokerage>,
    /// A name to show.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    /// What it may be used for: reading or trading.
    #[serde(default, rename = "type", deserialize_with = "lenient::maybe")]
    pub connection_type: Option<ConnectionType>,
    /// Whether the brokerage no longer lets SnapTrade in. The last data known are still served; only connecting
    /// again helps.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub disabled: bool,
    /// Since when it is disabled.
    #[serde(default, deserialize_with = "lenient::time")]
    pub disabled_date: Option<Timestamp>,
    /// How fresh the data are.
    #[serde(default, deserialize_with = "freshness_mode")]
    pub data_freshness_mode: Option<FreshnessMode>,
    /// Whether SnapTrade pays for it under its partner programme.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub is_eligible_for_payout: Option<bool>,
    /// When it was last changed. Deprecated by SnapTrade.
    #[serde(default, deserialize_with = "lenient::time")]
    pub updated_date: Option<Timestamp>,
}

open_enum! {
    /// How fresh data are.
    Freshness {
        /// As of the call.
        Realtime = "realtime",
        /// As of some time before, mostly of the last day.
        Delayed = "delayed",
    }
}

/// How fresh a connection's data are, at both ends. SnapTrade once gave one word for both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreshnessMode {
    /// What the brokerage gives out.
    pub institution: Freshness,
    /// What our plan at SnapTrade gives out of it.
    pub snaptrade: Freshness,
}

fn freshness_mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<FreshnessMode>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if let Value::String(word) = &value {
        return Ok(Some(FreshnessMode {
            institution: Freshness::from(word.as_str()),
            snaptrade: Freshness::from(word.as_str()),
        }));
    }
    let side = |name| lenient::member_text(&value, name).map(Freshness::from);
    Ok(side("institution")
        .zip(side("snaptrade"))
        .map(|(institution, snaptrade)| FreshnessMode {
            institution,
            snaptrade,
        }))
}

/// SnapTrade's word that it has taken note of a request that it carries out later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Confirmation {
    /// SnapTrade's own words.
    #[serde(default, deserialize_with = "lenient::text")]
    pub detail: Option<String>,
}

/// SnapTrade has taken note that a connection is to be deleted. A `CONNECTION_DELETED` webhook says when it is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DeletedConnection {
    /// SnapTrade's own words.
    #[serde(default, deserialize_with = "lenient::text")]
    pub detail: Option<String>,
    /// The connection's id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub connection_id: Option<String>,
}

impl Client {
    /// A user's connections, disabled ones included.
    ///
    /// # Errors
    /// `UserSecretRejected`, and every other [`Error`].
    pub async fn list_connections(&self, user: &UserCredentials) -> Result<Vec<Connection>, Error> {
        let call = Call::get("Connections_listBrokerageAuthorizations")
            .path("/authorizations")
            .user(user);
        let Listing(connections) = self.call(call).await?;
        Ok(connections)
    }

    /// One connection.
    ///
    /// # Errors
    /// `NotFound` when the user has no such connection, and every other [`Error`].
    pub async fn connection(&self, user: &UserCredentials, id: &ConnectionId) -> Result<Connection, Error> {
        let call = Call::get("Connections_detailBrokerageAuthorization")
            .path("/authorizations/")
            .segment(id.as_str())
            .user(user);
        self.call(call).await
    }

    /// Asks for a connection, its accounts and their data to be deleted. SnapTrade does so later.
    ///
    /// # Errors
    /// `NotFound` when the user has no such connection, and every other [`Error`].
    pub async fn delete_connection(
        &self,
        user: &UserCredentials,
        id: &ConnectionId,
    ) -> Result<DeletedConnection, Error> {
        let call = Call::delete("Connections_deleteConnection")
            .path("/connection/")
            .segment(id.as_str())
            .user(user);
        self.call(call).await
    }

    /// Asks SnapTrade to fetch the holdings of all accounts of a connection. An `ACCOUNT_HOLDINGS_UPDATED` webhook for
    /// each says when that is done. It costs money on some plans, so it is sent once.
    ///
    /// # Errors
    /// `ConnectionDisabled`; `Forbidden` when the plan does not offer it; `RateLimited` when it was done too recently;
    /// and every other [`Error`].
    pub async fn refresh_connection(
        &self,
        user: &UserCredentials,
        id: &ConnectionId,
    ) -> Result<Confirmation, Error> {
        let call = Call::post("Connections_refreshBrokerageAuthorization", Repeat::Never)
            .path("/authorizations/")
            .segment(id.as_str())
            .path("/refresh")
            .user(user);
        self.call(call).await
    }

    /// Asks SnapTrade to fetch the transactions of all accounts of a connection up to the day before. It is sent once.
    ///
    /// # Errors
    /// `ConnectionDisabled`, and every other [`Error`].
    pub async fn sync_transactions(
        &self,
        user: &UserCredentials,
        id: &ConnectionId,
    ) -> Result<Confirmation, Error> {
        let call = Call::post(
            "Connections_syncBrokerageAuthorizationTransactions",
            Repeat::Never,
        )
        .path("/authorizations/")
        .segment(id.as_str())
        .path("/transactions/sync")
        .user(user);
        self.call(call).await
    }

    /// Disables a connection as if the brokerage had done so: for trying out what follows, with test keys.
    ///
    /// # Errors
    /// `ConnectionDisabled` when it is so already; `Forbidden` with production keys; and every other [`Error`].
    pub async fn disable_connection(
        &self,
        user: &UserCredentials,
        id: &ConnectionId,
    ) -> Result<Confirmation, Error> {
        let call = Call::post("Connections_disableBrokerageAuthorization", Repeat::Never)
            .path("/authorizations/")
            .segment(id.as_str())
            .path("/disable")
            .user(user);
        self.call(call).await
    }

    /// The accounts of a connection, with their values as of now where the plan has real-time data.
    ///
    /// # Errors
    /// `NotFound` when the user has no such connection, and every other [`Error`].
    pub async fn connection_accounts(
        &self,
        user: &UserCredentials,
        id: &ConnectionId,
    ) -> Result<Vec<Account>, Error> {
        let call = Call::get("Connections_listBrokerageAuthorizationAccounts")
            .path("/authorizations/")
            .segment(id.as_str())
            .path("/accounts")
            .user(user);
        let Listing(accounts) = self.call(call).await?;
        Ok(accounts)
    }

    /// The accounts of a connection, deposit and credit accounts included. Experimental at SnapTrade.
    ///
    /// # Errors
    /// `NotFound` when the user has no such connection, and every other [`Error`].
    pub async fn connection_kind_accounts(
        &self,
        user: &UserCredentials,
        id: &ConnectionId,
    ) -> Result<Vec<KindAccount>, Error> {
        let call = Call::get("Connections_listConnectionAccounts")
            .path("/connections/")
            .segment(id.as_str())
            .path("/accounts")
            .user(user);
        let Listing(accounts) = self.call(call).await?;
        Ok(accounts)
    }

    /// What a connection earned, in per cent, for the given spans of time or for all.
    ///
    /// # Errors
    /// `Forbidden` when the plan does not offer it; `Gone` when the brokerage does not; and every other [`Error`].
    pub async fn connection_return_rates(
        &self,
        user: &UserCredentials,
        id: &ConnectionId,
        timeframes: &[Timeframe],
    ) -> Result<Vec<RateOfReturn>, Error> {
        let call = Call::get("Connections_returnRates")
            .path("/authorizations/")
            .segment(id.as_str())
            .path("/returnRates")
            .user(user)
            .optional("timeframes", joined(timeframes, Timeframe::as_str).as_deref());
        let rates: RateOfReturns = self.call(call).await?;
        Ok(rates.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(json: &str) -> Option<FreshnessMode> {
        let json = format!(r#"{{"id":"c","data_freshness_mode":{json}}}"#);
        serde_json::from_str::<Connection>(&json)
            .unwrap()
            .data_freshness_mode
    }

    #[test]
    fn the_freshness_is_one_word_or_two() {
        let both = |word: &str| {
            Some(FreshnessMode {
                institution: Freshness::from(word),
                snaptrade: Freshness::from(word),
            })
        };
        assert_eq!(mode(r#""realtime""#), both("realtime"));
        assert_eq!(mode(r#""hourly""#), both("hourly"));
        let two = mode(r#"{"institution":"realtime","snaptrade":"delayed"}"#).unwrap();
        assert_eq!(
            (two.institution, two.snaptrade),
            (Freshness::Realtime, Freshness::Delayed)
        );
        for odd in ["null", "5", "[]", r#"{"institution":"realtime"}"#] {
            assert_eq!(mode(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_connection_says_whether_it_is_disabled_and_what_it_may_be_used_for() {
        let json = r#"{"id":"c","type":"trade","disabled":true,"disabled_date":"2026-01-02T03:04:05.6Z",
            "brokerage":{"id":"b","slug":"SANDBOX","allows_trading":null},"meta":{}}"#;
        let connection: Connection = serde_json::from_str(json).unwrap();
        assert!(connection.disabled && connection.disabled_date.is_some());
        assert_eq!(connection.connection_type, Some(ConnectionType::Trade));
        assert_eq!(connection.brokerage.unwrap().slug.as_deref(), Some("SANDBOX"));
    }
}
