//! What there is to connect to and to trade: brokerages, exchanges, symbols; and what our client id may do.
//!
//! Source: SnapTrade's OpenAPI file, tag "Reference Data"; for the institutions and the figures, the shapes of its
//! published Python client, which is newer.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::accounts::AccountId;
use super::client::{Call, Client, Repeat};
use super::credentials::UserCredentials;
use super::error::Error;
use super::lenient::{self, Listing, open_enum};

lenient::id! {
    /// The id of a symbol, the same at all brokerages.
    SymbolId
}

/// A brokerage.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Brokerage {
    /// Its id.
    #[serde(deserialize_with = "lenient::required_text")]
    pub id: String,
    /// Its short name in capitals, which never changes: what a login is asked for with.
    #[serde(default, deserialize_with = "lenient::text")]
    pub slug: Option<String>,
    /// Its full name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    /// Its name as it is to be shown.
    #[serde(default, deserialize_with = "lenient::text")]
    pub display_name: Option<String>,
    /// A sentence about it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub description: Option<String>,
    /// Where its logo is.
    #[serde(default, deserialize_with = "lenient::text")]
    pub aws_s3_logo_url: Option<String>,
    /// Where its square logo is.
    #[serde(default, deserialize_with = "lenient::text")]
    pub aws_s3_square_logo_url: Option<String>,
    /// Its website.
    #[serde(default, deserialize_with = "lenient::text")]
    pub url: Option<String>,
    /// Whether it can be connected at all.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub enabled: Option<bool>,
    /// Whether it cannot be used for the moment.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub maintenance_mode: Option<bool>,
    /// Whether it works less well than usual.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub is_degraded: Option<bool>,
    /// Whether one can trade through it.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub allows_trading: Option<bool>,
    /// What kind of brokerage it is.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub brokerage_type: Option<BrokerageType>,
}

/// A kind of brokerage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct BrokerageType {
    /// Its id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
}

open_enum! {
    /// How a brokerage lets SnapTrade in.
    AuthType {
        /// OAuth.
        OAuth = "OAUTH",
        /// The user's login, used on the website.
        Scrape = "SCRAPE",
        /// An interface that is not published.
        UnofficialApi = "UNOFFICIAL_API",
        /// A token that the user creates.
        Token = "TOKEN",
    }
}

/// A way to connect a brokerage.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BrokerageAuthorizationType {
    /// Its id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    /// What a connection made in this way may be used for.
    #[serde(default, rename = "type", deserialize_with = "lenient::maybe")]
    pub connection_type: Option<super::users::ConnectionType>,
    /// How the brokerage lets SnapTrade in.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub auth_type: Option<AuthType>,
    /// The brokerage.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub brokerage: Option<Brokerage>,
}

/// Something that can be traded at a brokerage.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BrokerageInstrument {
    /// Its symbol.
    #[serde(deserialize_with = "lenient::required_text")]
    pub symbol: String,
    /// The exchange's market identifier code.
    #[serde(default, deserialize_with = "lenient::text")]
    pub exchange_mic: Option<String>,
    /// Whether it can be traded.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub tradeable: Option<bool>,
    /// Whether parts of it can be traded.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub fractionable: Option<bool>,
    /// The symbol's id.
    #[serde(default)]
    pub universal_symbol_id: Option<SymbolId>,
}

#[derive(Deserialize)]
struct Instruments {
    #[serde(default, deserialize_with = "lenient::list")]
    instruments: Vec<BrokerageInstrument>,
}

/// A currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Currency {
    /// Its id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    /// Its code by ISO 4217.
    #[serde(default, deserialize_with = "lenient::text")]
    pub code: Option<String>,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
}

/// An exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Exchange {
    /// Its id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    /// Its short name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub code: Option<String>,
    /// Its market identifier code.
    #[serde(default, deserialize_with = "lenient::text")]
    pub mic_code: Option<String>,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    /// Its time zone, such as `America/New_York`.
    #[serde(default, deserialize_with = "lenient::text")]
    pub timezone: Option<String>,
    /// When it opens, in that time zone, such as `09:30:00`.
    #[serde(default, deserialize_with = "lenient::text")]
    pub start_time: Option<String>,
    /// When it closes, in that time zone.
    #[serde(default, deserialize_with = "lenient::text")]
    pub close_time: Option<String>,
    /// What is appended to its tickers, such as `.TO`.
    #[serde(default, deserialize_with = "lenient::text")]
    pub suffix: Option<String>,
}

/// A kind of security.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SecurityType {
    /// Its id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    /// Its code: `cs` common stock, `et` exchange-traded fund, `crypto`, and others.
    #[serde(default, deserialize_with = "lenient::text")]
    pub code: Option<String>,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub description: Option<String>,
}

/// The Financial Instrument Global Identifier of a security.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct FigiInstrument {
    /// The identifier.
    #[serde(default, deserialize_with = "lenient::text")]
    pub figi_code: Option<String>,
    /// The identifier of the share class.
    #[serde(default, deserialize_with = "lenient::text")]
    pub figi_share_class: Option<String>,
}

/// A security, the same at all brokerages.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Symbol {
    /// Its id.
    pub id: SymbolId,
    /// Its ticker, with the exchange's suffix.
    #[serde(default, deserialize_with = "lenient::text")]
    pub symbol: Option<String>,
    /// Its ticker without a suffix.
    #[serde(default, deserialize_with = "lenient::text")]
    pub raw_symbol: Option<String>,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub description: Option<String>,
    /// The currency that it is traded in.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub currency: Option<Currency>,
    /// The exchange that it is listed on.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub exchange: Option<Exchange>,
    /// What kind of security it is.
    #[serde(default, rename = "type", deserialize_with = "lenient::maybe")]
    pub security_type: Option<SecurityType>,
    /// Its Financial Instrument Global Identifier.
    #[serde(default, deserialize_with = "lenient::text")]
    pub figi_code: Option<String>,
    /// The same with that of the share class.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub figi_instrument: Option<FigiInstrument>,
}

open_enum! {
    /// The right that an option gives.
    OptionType {
        /// To buy.
        Call = "CALL",
        /// To sell.
        Put = "PUT",
    }
}

/// An option contract.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OptionSymbol {
    /// Its id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    /// Its symbol in the 21 characters of the Options Clearing Corporation.
    #[serde(default, deserialize_with = "lenient::text")]
    pub ticker: Option<String>,
    /// The right that it gives.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub option_type: Option<OptionType>,
    /// The price at which it may be exercised.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub strike_price: Option<Decimal>,
    /// The day on which it expires.
    #[serde(default, deserialize_with = "lenient::date")]
    pub expiration_date: Option<jiff::civil::Date>,
    /// Whether it stands for 10 shares rather than 100.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub is_mini_option: Option<bool>,
    /// What it is on.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub underlying_symbol: Option<Symbol>,
}

/// What our client id may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct PartnerInfo {
    /// Our short name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub slug: Option<String>,
    /// Our name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    /// Where our logo is.
    #[serde(default, deserialize_with = "lenient::text")]
    pub logo_url: Option<String>,
    /// The brokerages that users may connect.
    #[serde(default, deserialize_with = "lenient::list")]
    pub allowed_brokerages: Vec<Brokerage>,
    /// Whether we may trade.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub can_access_trades: bool,
    /// Whether we may read holdings.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub can_access_holdings: bool,
    /// Whether we may read transactions.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub can_access_account_history: bool,
    /// Whether we may read reference data.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub can_access_reference_data: bool,
    /// Whether we may manage portfolios.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub can_access_portfolio_management: bool,
    /// Whether we may read orders.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub can_access_orders: bool,
    /// Where users are sent from the portal when a login says nothing else.
    #[serde(default, deserialize_with = "lenient::text")]
    pub redirect_uri: Option<String>,
}

/// How many users and connections our client id has, at most five minutes old.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Stats {
    /// Users.
    #[serde(default, deserialize_with = "lenient::count")]
    pub total_users: Option<u64>,
    /// Users with at least one connection.
    #[serde(default, deserialize_with = "lenient::count")]
    pub total_connected_users: Option<u64>,
    /// Connections that work.
    #[serde(default, deserialize_with = "lenient::count")]
    pub total_active_connections: Option<u64>,
    /// Connections that are disabled.
    #[serde(default, deserialize_with = "lenient::count")]
    pub total_disabled_connections: Option<u64>,
    /// Users of our OAuth application; absent where there is none.
    #[serde(default, deserialize_with = "lenient::count")]
    pub oauth_total_users: Option<u64>,
    /// Users of our OAuth application with at least one connection.
    #[serde(default, deserialize_with = "lenient::count")]
    pub oauth_total_connected_users: Option<u64>,
    /// Connections of our OAuth application that work.
    #[serde(default, deserialize_with = "lenient::count")]
    pub oauth_total_active_connections: Option<u64>,
    /// Connections of our OAuth application that are disabled.
    #[serde(default, deserialize_with = "lenient::count")]
    pub oauth_total_disabled_connections: Option<u64>,
    /// The value of all accounts under connections that work.
    #[serde(
        default,
        alias = "assets_under_management",
        deserialize_with = "lenient::decimal"
    )]
    pub connected_assets: Option<Decimal>,
    /// The value of all accounts under disabled connections, when it was last known.
    #[serde(
        default,
        alias = "disabled_assets_under_management",
        deserialize_with = "lenient::decimal"
    )]
    pub disabled_connected_assets: Option<Decimal>,
    /// The same as `connected_assets` for our OAuth application.
    #[serde(
        default,
        alias = "oauth_assets_under_management",
        deserialize_with = "lenient::decimal"
    )]
    pub oauth_connected_assets: Option<Decimal>,
    /// The same as `disabled_connected_assets` for our OAuth application.
    #[serde(
        default,
        alias = "oauth_disabled_assets_under_management",
        deserialize_with = "lenient::decimal"
    )]
    pub oauth_disabled_connected_assets: Option<Decimal>,
    /// The currency of the values, by ISO 4217.
    #[serde(
        default,
        alias = "assets_under_management_currency",
        deserialize_with = "lenient::text"
    )]
    pub connected_assets_currency: Option<String>,
    /// When the values were calculated.
    #[serde(
        default,
        alias = "assets_under_management_calculated_at",
        deserialize_with = "lenient::time"
    )]
    pub connected_assets_calculated_at: Option<Timestamp>,
}

open_enum! {
    /// How far SnapTrade is with an institution.
    ReleaseStage {
        /// Done.
        GenerallyAvailable = "GENERALLY_AVAILABLE",
        /// Nearly done.
        Beta = "BETA",
        /// Begun.
        Alpha = "ALPHA",
    }
}

/// An entry of SnapTrade's public catalogue of institutions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Institution {
    /// Its short name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub slug: Option<String>,
    /// Its full name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    /// Its name as it is to be shown.
    #[serde(default, deserialize_with = "lenient::text")]
    pub display_name: Option<String>,
    /// A sentence about it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub description: Option<String>,
    /// Its website.
    #[serde(default, deserialize_with = "lenient::text")]
    pub website: Option<String>,
    /// Where its logo is.
    #[serde(default, deserialize_with = "lenient::text")]
    pub logo_url: Option<String>,
    /// Where its square logo is.
    #[serde(default, deserialize_with = "lenient::text")]
    pub square_logo_url: Option<String>,
    /// How far SnapTrade is with it.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub release_stage: Option<ReleaseStage>,
    /// Whether only play money is traded there.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub is_paper: Option<bool>,
    /// Where it does business.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub regions: Option<Vec<String>>,
    /// How it can be connected; absent where it cannot.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub connection: Option<InstitutionConnection>,
}

/// How an institution can be connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct InstitutionConnection {
    /// The ways to connect it.
    #[serde(default, deserialize_with = "lenient::list")]
    pub methods: Vec<String>,
    /// What a connection may be used for.
    #[serde(default, deserialize_with = "lenient::list")]
    pub scopes: Vec<String>,
}

#[derive(Serialize)]
struct SymbolQuery<'a> {
    substring: &'a str,
}

impl Client {
    /// What our client id may do. It fails when the signature is wrong, which not every operation does, so it serves
    /// to check credentials.
    ///
    /// # Errors
    /// `Authentication` or `Signature` when the credentials are wrong, and every other [`Error`].
    pub async fn partner_info(&self) -> Result<PartnerInfo, Error> {
        self.call(Call::get("ReferenceData_getPartnerInfo").path("/snapTrade/partners"))
            .await
    }

    /// How many users and connections our client id has. Beta at SnapTrade.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn stats(&self) -> Result<Stats, Error> {
        self.call(Call::get("Management_getStats").path("/management/stats"))
            .await
    }

    /// All brokerages. SnapTrade answers this even when the signature is wrong.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn list_brokerages(&self) -> Result<Vec<Brokerage>, Error> {
        let Listing(brokerages) = self
            .call(Call::get("ReferenceData_listAllBrokerages").path("/brokerages"))
            .await?;
        Ok(brokerages)
    }

    /// Everything that can be traded at the brokerage of this slug; empty where it does not say.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn list_brokerage_instruments(&self, slug: &str) -> Result<Vec<BrokerageInstrument>, Error> {
        let call = Call::get("ReferenceData_listAllBrokerageInstruments")
            .path("/brokerages/")
            .segment(slug)
            .path("/instruments");
        let answer: Instruments = self.call(call).await?;
        Ok(answer.instruments)
    }

    /// The ways to connect the brokerages of these slugs, or all of them.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn list_authorization_types(
        &self,
        slugs: &[&str],
    ) -> Result<Vec<BrokerageAuthorizationType>, Error> {
        let brokerages = (!slugs.is_empty()).then(|| slugs.join(","));
        let call = Call::get("ReferenceData_listAllBrokerageAuthorizationType")
            .path("/brokerageAuthorizationTypes")
            .optional("brokerage", brokerages.as_deref());
        let Listing(types) = self.call(call).await?;
        Ok(types)
    }

    /// SnapTrade's public catalogue. Nothing is signed.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn list_institutions(&self) -> Result<Vec<Institution>, Error> {
        let Listing(institutions) = self
            .call(
                Call::get("ReferenceData_listInstitutions")
                    .path("/institutions")
                    .unsigned(),
            )
            .await?;
        Ok(institutions)
    }

    /// All exchanges.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn list_exchanges(&self) -> Result<Vec<Exchange>, Error> {
        let Listing(exchanges) = self
            .call(Call::get("ReferenceData_getStockExchanges").path("/exchanges"))
            .await?;
        Ok(exchanges)
    }

    /// The first 20 securities whose ticker or name matches `text`.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn search_symbols(&self, text: &str) -> Result<Vec<Symbol>, Error> {
        let call = Call::post("ReferenceData_getSymbols", Repeat::Harmless)
            .path("/symbols")
            .body(&SymbolQuery { substring: text })?;
        let Listing(symbols) = self.call(call).await?;
        Ok(symbols)
    }

    /// The first 20 securities whose ticker or name matches `text` and that the account's brokerage trades.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn search_account_symbols(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        text: &str,
    ) -> Result<Vec<Symbol>, Error> {
        let call = Call::post("ReferenceData_symbolSearchUserAccount", Repeat::Harmless)
            .path("/accounts/")
            .segment(account.as_str())
            .path("/symbols")
            .user(user)
            .body(&SymbolQuery { substring: text })?;
        let Listing(symbols) = self.call(call).await?;
        Ok(symbols)
    }

    /// The security of this ticker or id. Tickers are Yahoo's: `VAB.TO` for what is listed in Toronto.
    ///
    /// # Errors
    /// `NotFound` when there is none, and every other [`Error`].
    pub async fn symbol(&self, ticker_or_id: &str) -> Result<Symbol, Error> {
        let call = Call::get("ReferenceData_getSymbolsByTicker")
            .path("/symbols/")
            .segment(ticker_or_id);
        self.call(call).await
    }
}
