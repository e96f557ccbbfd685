//! Placing, replacing and cancelling orders, and what is needed for it: previews and quotes.
//!
//! None of the calls that place, replace or cancel is ever sent twice: SnapTrade does not recognise an order that it was
//! sent before, not even by [`OrderForm::client_order_id`]. When one fails with [`super::Outcome::Unknown`], look the
//! order up before anything else. SnapTrade asks for no more than one trade a second for each account.
//!
//! Source: SnapTrade's OpenAPI file, tag "Trading"; for the simple order, the shapes of its published Python client.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::accounts::{AccountId, account_call, joined};
use super::client::{Call, Client, Repeat};
use super::credentials::UserCredentials;
use super::error::Error;
use super::lenient::{self, Listing, open_enum};
use super::orders::{Action, Order, OrderId, OrderNamed, OrderRole, PriceEffect, RawResponse};
use super::reference::{Currency, Symbol, SymbolId};

lenient::id! {
    /// The id of an order that was previewed. It can be placed within five minutes.
    TradeId
}

open_enum! {
    /// The type of an order for securities.
    OrderType {
        /// At any price.
        Market = "Market",
        /// At a price or better.
        Limit = "Limit",
        /// At any price, once another is reached.
        Stop = "Stop",
        /// At a price or better, once another is reached.
        StopLimit = "StopLimit",
    }
}

open_enum! {
    /// How long an order stands.
    TimeInForce {
        /// Until the market closes.
        Day = "Day",
        /// Until it is carried out or cancelled.
        GoodTilCanceled = "GTC",
        /// All of it at once or not at all.
        FillOrKill = "FOK",
        /// What can be had at once; the rest is cancelled.
        ImmediateOrCancel = "IOC",
        /// Until a day.
        GoodTilDate = "GTD",
    }
}

open_enum! {
    /// When an order may be carried out.
    TradingSession {
        /// While the market is open.
        Regular = "REGULAR",
        /// Before and after that too.
        Extended = "EXTENDED",
    }
}

/// An order for securities that is to be previewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImpactForm {
    /// The account.
    pub account_id: AccountId,
    /// Whether to buy or to sell.
    pub action: Action,
    /// What to trade.
    pub universal_symbol_id: SymbolId,
    /// The type.
    pub order_type: OrderType,
    /// How long it stands; not `GoodTilDate`.
    pub time_in_force: TimeInForce,
    /// The price of `Limit` and `StopLimit`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "lenient::optional_number"
    )]
    pub price: Option<Decimal>,
    /// The price that sets off `Stop` and `StopLimit`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "lenient::optional_number"
    )]
    pub stop: Option<Decimal>,
    /// How many to trade; else say for how much.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "lenient::optional_number"
    )]
    pub units: Option<Decimal>,
    /// For how much money to trade; with `Market` and `Day` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notional_value: Option<Decimal>,
}

/// A preview of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct TradeAndImpact {
    /// The order, with the id to place it by.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub trade: Option<Trade>,
    /// What it would do to the account, for each currency.
    #[serde(default, deserialize_with = "lenient::list")]
    pub trade_impacts: Vec<TradeImpact>,
    /// The cash that would be left.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub combined_remaining_balance: Option<RemainingBalance>,
}

/// An order that was previewed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Trade {
    /// Its id.
    pub id: TradeId,
    /// The account.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub account: Option<AccountId>,
    /// The type.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub order_type: Option<OrderType>,
    /// How long it stands.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub time_in_force: Option<TimeInForce>,
    /// What is traded.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub symbol: Option<TradeSymbol>,
    /// Whether it buys or sells.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub action: Option<Action>,
    /// How many.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub units: Option<Decimal>,
    /// The price of one.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub price: Option<Decimal>,
}

/// What a previewed order trades.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct TradeSymbol {
    /// The symbol's id.
    #[serde(default)]
    pub universal_symbol_id: Option<SymbolId>,
    /// The currency that it is traded in.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub currency: Option<Currency>,
}

/// What an order would do to an account, in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct TradeImpact {
    /// The account.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub account: Option<AccountId>,
    /// The currency's id at SnapTrade.
    #[serde(default, deserialize_with = "lenient::text")]
    pub currency: Option<String>,
    /// The cash that would be left.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub remaining_cash: Option<Decimal>,
    /// The commission.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub estimated_commission: Option<Decimal>,
    /// The fee for changing currencies.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub forex_fees: Option<Decimal>,
}

/// The cash that an order would leave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct RemainingBalance {
    /// The currency.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub currency: Option<Currency>,
    /// The cash.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub cash: Option<Decimal>,
}

/// An order for securities or single options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderForm {
    /// The account.
    pub account_id: AccountId,
    /// What to do.
    pub action: Action,
    /// What to trade, by id; else by `symbol`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub universal_symbol_id: Option<SymbolId>,
    /// What to trade, by ticker or by the 21 characters of an option.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// The type.
    pub order_type: OrderType,
    /// How long it stands.
    pub time_in_force: TimeInForce,
    /// When it may be carried out; while the market is open where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trading_session: Option<TradingSession>,
    /// Until when `GoodTilDate` stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry_date: Option<Timestamp>,
    /// The price of `Limit` and `StopLimit`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "lenient::optional_number"
    )]
    pub price: Option<Decimal>,
    /// The price that sets off `Stop` and `StopLimit`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "lenient::optional_number"
    )]
    pub stop: Option<Decimal>,
    /// How many to trade; else say for how much.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "lenient::optional_number"
    )]
    pub units: Option<Decimal>,
    /// For how much money to trade; with `Market` and `Day` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notional_value: Option<Decimal>,
    /// A UUID that is passed on to the brokerage. It does not keep SnapTrade from placing an order twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_order_id: Option<String>,
}

/// What is to stand in an order's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplaceForm {
    /// The order to replace.
    pub brokerage_order_id: OrderId,
    /// What to do.
    pub action: Action,
    /// The type.
    pub order_type: OrderType,
    /// How long it stands; not `GoodTilDate`.
    pub time_in_force: TimeInForce,
    /// The price of `Limit` and `StopLimit`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "lenient::optional_number"
    )]
    pub price: Option<Decimal>,
    /// What to trade, by ticker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// The price that sets off `Stop` and `StopLimit`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "lenient::optional_number"
    )]
    pub stop: Option<Decimal>,
    /// How many to trade.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "lenient::optional_number"
    )]
    pub units: Option<Decimal>,
}

/// An order that was cancelled, or is to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CanceledOrder {
    /// The order.
    pub brokerage_order_id: OrderId,
    /// What the brokerage said.
    #[serde(default)]
    pub raw_response: Option<RawResponse>,
}

open_enum! {
    /// How a group of orders depend on each other.
    ComplexOrderType {
        /// Two peers: one cancels the other.
        OneCancelsOther = "OCO",
        /// A trigger sets off a conditional one.
        OneTriggersOther = "OTO",
        /// A trigger sets off two peers.
        OneTriggersOneCancelsOther = "OTOCO",
    }
}

open_enum! {
    /// The kind of what is traded.
    InstrumentType {
        /// A security.
        Equity = "EQUITY",
        /// An option.
        Option = "OPTION",
        /// A cryptocurrency.
        Cryptocurrency = "CRYPTOCURRENCY",
        /// A cryptocurrency and what it is paid in.
        CryptocurrencyPair = "CRYPTOCURRENCY_PAIR",
    }
}

/// What is traded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TradingInstrument {
    /// Its ticker, the 21 characters of an option, or a pair such as `BTC-USD`.
    pub symbol: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub instrument_type: InstrumentType,
}

/// One order of a group that depend on each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComplexOrderLeg {
    /// The part that it plays.
    pub order_role: OrderRole,
    /// Whether it buys or sells.
    pub action: Action,
    /// What is traded.
    pub instrument: TradingInstrument,
    /// The type.
    pub order_type: OrderType,
    /// How many.
    #[serde(serialize_with = "lenient::number")]
    pub units: Decimal,
    /// How long it stands; not `GoodTilDate`.
    pub time_in_force: TimeInForce,
    /// The price of `Limit` and `StopLimit`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "lenient::optional_number"
    )]
    pub price: Option<Decimal>,
    /// The price that sets off `Stop` and `StopLimit`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "lenient::optional_number"
    )]
    pub stop: Option<Decimal>,
}

/// A group of orders that depend on each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComplexOrderForm {
    /// How they do.
    #[serde(rename = "type")]
    pub complex_type: ComplexOrderType,
    /// The orders, two or three.
    pub orders: Vec<ComplexOrderLeg>,
    /// A UUID that is passed on to the brokerage. It does not keep SnapTrade from placing the orders twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_order_id: Option<String>,
}

/// A group of orders that was placed. The orders' own ids come with the next sync, under the group's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ComplexOrder {
    /// How they depend on each other.
    #[serde(default, rename = "type", deserialize_with = "lenient::maybe")]
    pub complex_type: Option<ComplexOrderType>,
    /// The group's id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub brokerage_group_order_id: Option<String>,
}

open_enum! {
    /// The type of an order of several legs.
    MlegOrderType {
        /// At any price.
        Market = "MARKET",
        /// At a price or better.
        Limit = "LIMIT",
        /// At any price, once another is reached.
        StopLossMarket = "STOP_LOSS_MARKET",
        /// At a price or better, once another is reached.
        StopLossLimit = "STOP_LOSS_LIMIT",
    }
}

/// An order for options of one or several legs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MlegForm {
    /// The type.
    pub order_type: MlegOrderType,
    /// How long it stands; not `GoodTilDate`.
    pub time_in_force: TimeInForce,
    /// The net price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_price: Option<Decimal>,
    /// The net price that sets it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_price: Option<Decimal>,
    /// Whether the net price comes in or goes out; not `Unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_effect: Option<PriceEffect>,
    /// The legs; at most four can be previewed.
    pub legs: Vec<MlegLeg>,
}

/// One leg of a [`MlegForm`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MlegLeg {
    /// What is traded.
    pub instrument: MlegInstrument,
    /// What is done with it.
    pub action: Action,
    /// How many.
    pub units: u32,
}

/// What a leg trades.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MlegInstrument {
    /// The 21 characters of an option, or a ticker.
    pub symbol: String,
    /// `Option` or `Equity`.
    pub instrument_type: InstrumentType,
}

/// What an order for options would cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct OptionImpact {
    /// By how much the cash would change.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub estimated_cash_change: Option<Decimal>,
    /// Whether it would grow or shrink.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub cash_change_direction: Option<PriceEffect>,
    /// All fees.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub estimated_fee_total: Option<Decimal>,
}

/// An order of several legs that was placed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MlegOrder {
    /// The id that the brokerage gave it.
    pub brokerage_order_id: OrderId,
    /// Its legs.
    #[serde(default, deserialize_with = "lenient::list")]
    pub orders: Vec<Order>,
}

open_enum! {
    /// The type of an order for cryptocurrencies.
    CryptoOrderType {
        /// At any price.
        Market = "MARKET",
        /// At a price or better.
        Limit = "LIMIT",
        /// At any price, once it has fallen (or risen) to another.
        StopLossMarket = "STOP_LOSS_MARKET",
        /// At a price or better, once it has fallen (or risen) to another.
        StopLossLimit = "STOP_LOSS_LIMIT",
        /// At any price, once it has risen (or fallen) to another.
        TakeProfitMarket = "TAKE_PROFIT_MARKET",
        /// At a price or better, once it has risen (or fallen) to another.
        TakeProfitLimit = "TAKE_PROFIT_LIMIT",
    }
}

/// An order for cryptocurrencies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CryptoOrderForm {
    /// What is traded.
    pub instrument: TradingInstrument,
    /// Whether to buy or to sell.
    pub side: Action,
    /// The type.
    #[serde(rename = "type")]
    pub order_type: CryptoOrderType,
    /// How long it stands; not `Day`.
    pub time_in_force: TimeInForce,
    /// How much of the first of the pair.
    pub amount: Decimal,
    /// The price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_price: Option<Decimal>,
    /// The price that sets it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_price: Option<Decimal>,
    /// Whether it must wait for somebody else to take it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_only: Option<bool>,
    /// Until when `GoodTilDate` stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_date: Option<Timestamp>,
}

/// An order that was placed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PlacedOrder {
    /// The id that the brokerage gave it.
    pub brokerage_order_id: OrderId,
    /// The order, where it is known already.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub order: Option<Order>,
}

/// What an order for cryptocurrencies would cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct CryptoPreview {
    /// The fee.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub estimated_fee: Option<super::accounts::Money>,
}

/// A cryptocurrency and what it is paid in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct CryptoPair {
    /// Both, with a dash between.
    #[serde(default, deserialize_with = "lenient::text")]
    pub symbol: Option<String>,
    /// The cryptocurrency.
    #[serde(default, deserialize_with = "lenient::text")]
    pub base: Option<String>,
    /// What it is paid in.
    #[serde(default, deserialize_with = "lenient::text")]
    pub quote: Option<String>,
    /// The smallest step of an amount.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub increment: Option<Decimal>,
}

#[derive(Deserialize)]
struct CryptoPairs {
    #[serde(default, deserialize_with = "lenient::list")]
    items: Vec<CryptoPair>,
}

/// The price of a pair of currencies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct CryptoQuote {
    /// What is offered for one.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub bid: Option<Decimal>,
    /// What is asked for one.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub ask: Option<Decimal>,
    /// The middle of the two.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub mid: Option<Decimal>,
    /// As of when.
    #[serde(default, deserialize_with = "lenient::time")]
    pub timestamp: Option<Timestamp>,
}

/// The price of a security at a brokerage, perhaps some minutes old.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Quote {
    /// The security.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub symbol: Option<Symbol>,
    /// The price of the last trade.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub last_trade_price: Option<Decimal>,
    /// What is offered for one.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub bid_price: Option<Decimal>,
    /// What is asked for one.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub ask_price: Option<Decimal>,
    /// For how many it is offered.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub bid_size: Option<Decimal>,
    /// For how many it is asked.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub ask_size: Option<Decimal>,
}

/// Securities to be quoted, at most ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuoteSymbols<'a> {
    /// By id.
    Ids(&'a [SymbolId]),
    /// By ticker.
    Tickers(&'a [String]),
}

open_enum! {
    /// The type of a [`SimpleOrderForm`].
    SimpleOrderType {
        /// At any price.
        Market = "market",
        /// At a price or better.
        Limit = "limit",
        /// At any price, once another is reached.
        Stop = "stop",
        /// At a price or better, once another is reached.
        StopLimit = "stop_limit",
    }
}

open_enum! {
    /// What a [`SimpleOrderLeg`] trades.
    SimpleInstrumentKind {
        /// A security.
        Equity = "equity",
        /// An option.
        Option = "option",
        /// A futures contract.
        Future = "future",
        /// An option on a futures contract.
        FutureOption = "future_option",
    }
}

/// An order in the newest form, which is the same for securities, options and futures. Beta at SnapTrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SimpleOrderForm {
    /// The type.
    pub order_type: SimpleOrderType,
    /// How long it stands.
    #[serde(serialize_with = "lower_case")]
    pub time_in_force: TimeInForce,
    /// The legs.
    pub legs: Vec<SimpleOrderLeg>,
    /// The price of `Limit` and `StopLimit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_price: Option<Decimal>,
    /// The price that sets off `Stop` and `StopLimit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_price: Option<Decimal>,
    /// Whether the net price comes in or goes out; not `Unknown`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "optional_lower_case"
    )]
    pub price_effect: Option<PriceEffect>,
    /// A UUID that is passed on to the brokerage. It does not keep SnapTrade from placing the order twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_order_id: Option<String>,
    /// Until when `GoodTilDate` stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry_date: Option<Timestamp>,
    /// For how much money to trade, where no leg says how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notional_value: Option<Decimal>,
    /// When it may be carried out; while the market is open where nothing is said.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "optional_lower_case"
    )]
    pub trading_session: Option<TradingSession>,
}

/// One leg of a [`SimpleOrderForm`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SimpleOrderLeg {
    /// What is traded.
    pub instrument: SimpleInstrument,
    /// What is done with it.
    #[serde(serialize_with = "lower_case")]
    pub action: Action,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units: Option<Decimal>,
}

/// What a [`SimpleOrderLeg`] trades.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SimpleInstrument {
    /// Its kind.
    pub kind: SimpleInstrumentKind,
    /// Its symbol.
    pub symbol: String,
}

/// Writes a word in small letters, as the newest form wants it.
fn lower_case<T: std::fmt::Display, S: serde::Serializer>(
    word: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&word.to_string().to_ascii_lowercase())
}

fn optional_lower_case<T: std::fmt::Display, S: serde::Serializer>(
    word: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match word {
        Some(word) => lower_case(word, serializer),
        None => serializer.serialize_none(),
    }
}

/// Whether to wait for the brokerage to say that an order was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// Wait, for a moment, so that the answer says how the order is doing.
    Wait,
    /// Do not wait; the order is mostly `Pending` then.
    AtOnce,
}

/// An account whose trades SnapTrade looks out for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TradeDetection {
    /// The account.
    pub account_id: AccountId,
    /// What it costs each month.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub cost: Option<Decimal>,
    /// How often it is looked at, in seconds.
    #[serde(default, deserialize_with = "lenient::count")]
    pub check_interval_seconds: Option<u64>,
}

#[derive(Deserialize)]
struct Canceled {
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    success: bool,
}

/// A call that changes something in an account, or is about to. It is never sent again.
fn order_call<'a>(
    operation: &'static str,
    account: &AccountId,
    rest: &str,
    user: &'a UserCredentials,
) -> Call<'a> {
    Call::post(operation, Repeat::Never)
        .path("/accounts/")
        .segment(account.as_str())
        .path(rest)
        .user(user)
}

impl Client {
    /// What an order for securities would do to its account. The order is not placed; [`Client::place_checked_order`]
    /// places it.
    ///
    /// # Errors
    /// `Forbidden` when the connection may not trade, `Invalid` when the order makes no sense or a number in it
    /// cannot be sent exactly, and every other [`Error`].
    pub async fn order_impact(
        &self,
        user: &UserCredentials,
        form: &ImpactForm,
    ) -> Result<TradeAndImpact, Error> {
        let call = Call::post("Trading_getOrderImpact", Repeat::Never)
            .path("/trade/impact")
            .user(user)
            .body(form)?;
        self.call(call).await
    }

    /// Places an order that was previewed no longer than five minutes ago.
    ///
    /// # Errors
    /// `Invalid` when the preview is too old or the brokerage refuses the order, and every other [`Error`].
    pub async fn place_checked_order(
        &self,
        user: &UserCredentials,
        trade: &TradeId,
        confirmed: Confirmed,
    ) -> Result<Order, Error> {
        #[derive(Serialize)]
        struct Body {
            wait_to_confirm: bool,
        }
        let call = Call::post("Trading_placeOrder", Repeat::Never)
            .path("/trade/")
            .segment(trade.as_str())
            .user(user)
            .body(&Body {
                wait_to_confirm: confirmed == Confirmed::Wait,
            })?;
        self.call(call).await
    }

    /// Places an order for securities or a single option.
    ///
    /// # Errors
    /// `Forbidden` when the connection may not trade; `Invalid` when the brokerage refuses the order or a number in it
    /// cannot be sent exactly; and every other [`Error`].
    pub async fn place_order(&self, user: &UserCredentials, form: &OrderForm) -> Result<Order, Error> {
        let call = Call::post("Trading_placeForceOrder", Repeat::Never)
            .path("/trade/place")
            .user(user)
            .body(form)?;
        self.call(call).await
    }

    /// Puts another order in the place of one. The id may change: the answer has the one that counts from now on.
    ///
    /// # Errors
    /// As [`Client::place_order`].
    pub async fn replace_order(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        form: &ReplaceForm,
    ) -> Result<Order, Error> {
        self.call(order_call("Trading_replaceOrder", account, "/trading/replace", user).body(form)?)
            .await
    }

    /// Cancels an order of any kind.
    ///
    /// # Errors
    /// `Invalid` when it cannot be cancelled any more, and every other [`Error`].
    pub async fn cancel_order(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        order: &OrderId,
    ) -> Result<CanceledOrder, Error> {
        let named = OrderNamed {
            brokerage_order_id: order,
        };
        self.call(order_call("Trading_cancelOrder", account, "/trading/cancel", user).body(&named)?)
            .await
    }

    /// Places a group of orders that depend on each other.
    ///
    /// # Errors
    /// As [`Client::place_order`].
    pub async fn place_complex_order(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        form: &ComplexOrderForm,
    ) -> Result<ComplexOrder, Error> {
        self.call(order_call("Trading_placeComplexOrder", account, "/trading/complex", user).body(form)?)
            .await
    }

    /// Places an order in the newest form and says the id that the brokerage gave it. Beta at SnapTrade.
    ///
    /// # Errors
    /// As [`Client::place_order`].
    pub async fn place_simple_order(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        form: &SimpleOrderForm,
    ) -> Result<PlacedOrder, Error> {
        self.call(order_call("Trading_placeSimpleOrder", account, "/trading/simple", user).body(form)?)
            .await
    }

    /// What an order for options would cost. The order is not placed.
    ///
    /// # Errors
    /// `Invalid` also when the brokerage does not offer it, and every other [`Error`].
    pub async fn option_impact(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        form: &MlegForm,
    ) -> Result<OptionImpact, Error> {
        self.call(
            order_call(
                "Trading_getOptionImpact",
                account,
                "/trading/options/impact",
                user,
            )
            .body(form)?,
        )
        .await
    }

    /// Places an order for options of one or several legs.
    ///
    /// # Errors
    /// As [`Client::place_order`].
    pub async fn place_option_order(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        form: &MlegForm,
    ) -> Result<MlegOrder, Error> {
        self.call(order_call("Trading_placeMlegOrder", account, "/trading/options", user).body(form)?)
            .await
    }

    /// What an order for cryptocurrencies would cost. The order is not placed.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn preview_crypto_order(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        form: &CryptoOrderForm,
    ) -> Result<CryptoPreview, Error> {
        self.call(
            order_call(
                "Trading_previewCryptoOrder",
                account,
                "/trading/crypto/preview",
                user,
            )
            .body(form)?,
        )
        .await
    }

    /// Places an order for cryptocurrencies.
    ///
    /// # Errors
    /// As [`Client::place_order`].
    pub async fn place_crypto_order(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        form: &CryptoOrderForm,
    ) -> Result<PlacedOrder, Error> {
        self.call(order_call("Trading_placeCryptoOrder", account, "/trading/crypto", user).body(form)?)
            .await
    }

    /// The pairs of currencies that an account can trade, of this first and second one where they are given.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn crypto_pairs(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        base: Option<&str>,
        quote: Option<&str>,
    ) -> Result<Vec<CryptoPair>, Error> {
        let operation = "Trading_searchCryptocurrencyPairInstruments";
        let call = account_call(operation, account, "/trading/instruments/cryptocurrencyPairs")
            .user(user)
            .optional("base", base)
            .optional("quote", quote);
        let answer: CryptoPairs = self.call(call).await?;
        Ok(answer.items)
    }

    /// The price of a pair such as `BTC-USD` at an account's brokerage.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn crypto_quote(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        pair: &str,
    ) -> Result<CryptoQuote, Error> {
        let operation = "Trading_getCryptocurrencyPairQuote";
        let call = account_call(operation, account, "/trading/instruments/cryptocurrencyPairs/")
            .segment(pair)
            .path("/quote")
            .user(user);
        self.call(call).await
    }

    /// The prices of up to ten securities at an account's brokerage. SnapTrade does not want this asked often.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn account_quotes(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        symbols: QuoteSymbols<'_>,
    ) -> Result<Vec<Quote>, Error> {
        let (symbols, use_ticker) = match symbols {
            QuoteSymbols::Ids(ids) => (joined(ids, SymbolId::as_str), "false"),
            QuoteSymbols::Tickers(tickers) => (joined(tickers, String::as_str), "true"),
        };
        let call = account_call("Trading_getUserAccountQuotes", account, "/quotes")
            .user(user)
            .param("symbols", &symbols.unwrap_or_default())
            .param("use_ticker", use_ticker);
        let Listing(quotes) = self.call(call).await?;
        Ok(quotes)
    }

    /// The accounts whose trades SnapTrade looks out for.
    ///
    /// # Errors
    /// `Forbidden` when it is not switched on, and every other [`Error`].
    pub async fn list_trade_detection(&self) -> Result<Vec<TradeDetection>, Error> {
        let call =
            Call::get("TradeDetection_listSubscriptions").path("/snapTrade/tradeDetection/subscriptions");
        let Listing(subscriptions) = self.call(call).await?;
        Ok(subscriptions)
    }

    /// Has SnapTrade look out for an account's trades, for money, every so many seconds. Which intervals there are
    /// depends on the plan. It is sent once.
    ///
    /// # Errors
    /// `Forbidden` when it is not switched on, and every other [`Error`].
    pub async fn add_trade_detection(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        check_interval_seconds: u32,
    ) -> Result<TradeDetection, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            account_id: &'a AccountId,
            check_interval_seconds: u32,
        }
        let call = Call::post("TradeDetection_addSubscription", Repeat::Never)
            .path("/snapTrade/tradeDetection/subscriptions")
            .user(user)
            .body(&Body {
                account_id: account,
                check_interval_seconds,
            })?;
        self.call(call).await
    }

    /// Has SnapTrade no longer look out for an account's trades, and says whether that was done or was so already.
    ///
    /// # Errors
    /// `NotFound` when there never was a subscription, and every other [`Error`].
    pub async fn cancel_trade_detection(&self, account: &AccountId) -> Result<bool, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            account_id: &'a AccountId,
        }
        let call = Call::post("TradeDetection_cancelSubscription", Repeat::Harmless)
            .path("/snapTrade/tradeDetection/subscriptions/cancel")
            .body(&Body { account_id: account })?;
        let answer: Canceled = self.call(call).await?;
        Ok(answer.success)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_server::{Act, Server, ada, ok, verified};
    use super::super::{ErrorKind, Outcome, RecentOrders};
    use super::*;

    fn order(price: &str) -> OrderForm {
        OrderForm {
            account_id: AccountId::new("acc-1"),
            action: Action::BuyToOpen,
            universal_symbol_id: None,
            symbol: Some("XYZ   270115P00012500".to_owned()),
            order_type: OrderType::Limit,
            time_in_force: TimeInForce::Day,
            trading_session: None,
            expiry_date: None,
            price: Some(price.parse().unwrap()),
            stop: None,
            units: Some("3.0".parse().unwrap()),
            notional_value: None,
            client_order_id: None,
        }
    }

    #[tokio::test]
    async fn an_order_is_sent_with_exact_numbers_and_only_once() {
        let server = Server::start(vec![Act::Drop]).await;
        let error = server
            .client()
            .place_order(&ada(), &order("12.340"))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind, error.outcome()),
            (ErrorKind::Unreachable, Outcome::Unknown)
        );
        let [arrived] = &server.arrived()[..] else {
            panic!()
        };
        assert!(verified(arrived));
        assert_eq!(
            arrived.body,
            concat!(
                r#"{"account_id":"acc-1","action":"BUY_TO_OPEN","order_type":"Limit","price":12.34,"#,
                r#""symbol":"XYZ   270115P00012500","time_in_force":"Day","units":3}"#
            )
        );
    }

    #[tokio::test]
    async fn an_order_whose_price_cannot_be_sent_exactly_is_not_sent() {
        let server = Server::start(vec![ok("{}")]).await;
        let form = order("12.345678901234567890123");
        let error = server.client().place_order(&ada(), &form).await.unwrap_err();
        assert_eq!(
            (error.kind, error.outcome()),
            (ErrorKind::Invalid, Outcome::Refused)
        );
        assert!(error.to_string().contains("too many digits"), "{error}");
        assert!(server.arrived().is_empty());
    }

    #[tokio::test]
    async fn nothing_that_trades_or_costs_is_ever_sent_again() {
        let server = Server::start(vec![Act::Answer(503, "retry-after: 0\r\n", String::new())]).await;
        let (client, user, account) = (server.client(), ada(), AccountId::new("a"));
        let id = OrderId::new("o/1");
        let mleg = MlegForm {
            order_type: MlegOrderType::Limit,
            time_in_force: TimeInForce::Day,
            limit_price: Some("1.05".parse().unwrap()),
            stop_price: None,
            price_effect: Some(PriceEffect::Debit),
            legs: Vec::new(),
        };
        let crypto = CryptoOrderForm {
            instrument: TradingInstrument {
                symbol: "ETH-EUR".to_owned(),
                instrument_type: InstrumentType::CryptocurrencyPair,
            },
            side: Action::Sell,
            order_type: CryptoOrderType::Market,
            time_in_force: TimeInForce::GoodTilCanceled,
            amount: "0.5".parse().unwrap(),
            limit_price: None,
            stop_price: None,
            post_only: None,
            expiration_date: None,
        };
        let simple = SimpleOrderForm {
            order_type: SimpleOrderType::Market,
            time_in_force: TimeInForce::Day,
            legs: vec![SimpleOrderLeg {
                instrument: SimpleInstrument {
                    kind: SimpleInstrumentKind::Equity,
                    symbol: "XYZ".to_owned(),
                },
                action: Action::Buy,
                units: Some("2".parse().unwrap()),
            }],
            limit_price: None,
            stop_price: None,
            price_effect: None,
            client_order_id: None,
            expiry_date: None,
            notional_value: None,
            trading_session: Some(TradingSession::Extended),
        };
        let trade = TradeId::new("t");
        assert!(client.place_order(&user, &order("1")).await.is_err());
        assert!(
            client
                .place_checked_order(&user, &trade, Confirmed::Wait)
                .await
                .is_err()
        );
        assert!(client.cancel_order(&user, &account, &id).await.is_err());
        assert!(client.option_impact(&user, &account, &mleg).await.is_err());
        assert!(client.place_option_order(&user, &account, &mleg).await.is_err());
        assert!(
            client
                .preview_crypto_order(&user, &account, &crypto)
                .await
                .is_err()
        );
        assert!(client.place_crypto_order(&user, &account, &crypto).await.is_err());
        assert!(client.place_simple_order(&user, &account, &simple).await.is_err());
        assert!(client.add_trade_detection(&user, &account, 60).await.is_err());
        assert!(
            client
                .account_recent_orders_v2(&user, &account, RecentOrders::All)
                .await
                .is_err()
        );
        let sent: Vec<_> = server
            .arrived()
            .iter()
            .map(|call| format!("{} {}", call.path, call.body))
            .collect();
        assert_eq!(
            sent[1..],
            [
                r#"/trade/t {"wait_to_confirm":true}"#,
                r#"/accounts/a/trading/cancel {"brokerage_order_id":"o/1"}"#,
                concat!(
                    r#"/accounts/a/trading/options/impact {"legs":[],"limit_price":"1.05","order_type":"LIMIT","#,
                    r#""price_effect":"DEBIT","time_in_force":"Day"}"#
                ),
                concat!(
                    r#"/accounts/a/trading/options {"legs":[],"limit_price":"1.05","order_type":"LIMIT","#,
                    r#""price_effect":"DEBIT","time_in_force":"Day"}"#
                ),
                concat!(
                    r#"/accounts/a/trading/crypto/preview {"amount":"0.5","instrument":{"symbol":"ETH-EUR","#,
                    r#""type":"CRYPTOCURRENCY_PAIR"},"side":"SELL","time_in_force":"GTC","type":"MARKET"}"#
                ),
                concat!(
                    r#"/accounts/a/trading/crypto {"amount":"0.5","instrument":{"symbol":"ETH-EUR","#,
                    r#""type":"CRYPTOCURRENCY_PAIR"},"side":"SELL","time_in_force":"GTC","type":"MARKET"}"#
                ),
                concat!(
                    r#"/accounts/a/trading/simple {"legs":[{"action":"buy","instrument":{"kind":"equity","#,
                    r#""symbol":"XYZ"},"units":"2"}],"order_type":"market","time_in_force":"day","#,
                    r#""trading_session":"extended"}"#
                ),
                r#"/snapTrade/tradeDetection/subscriptions {"account_id":"a","check_interval_seconds":60}"#,
                "/accounts/a/recentOrders/v2 ",
            ]
        );
        assert!(server.arrived().iter().all(verified));
    }

    #[tokio::test]
    async fn what_stands_in_a_path_or_a_query_is_encoded() {
        let server = Server::start(vec![ok("[]"), ok("{}")]).await;
        let (client, user, account) = (server.client(), ada(), AccountId::new("a"));
        let tickers = ["BRK.B".to_owned(), "A&B".to_owned()];
        let quotes = client
            .account_quotes(&user, &account, QuoteSymbols::Tickers(&tickers))
            .await;
        assert_eq!(quotes.unwrap(), []);
        client.crypto_quote(&user, &account, "BTC/USD").await.unwrap();
        let arrived = server.arrived();
        assert!(
            arrived[0]
                .query
                .ends_with("&symbols=BRK.B%2CA%26B&use_ticker=true")
        );
        assert_eq!(
            arrived[1].path,
            "/accounts/a/trading/instruments/cryptocurrencyPairs/BTC%2FUSD/quote"
        );
        assert!(arrived.iter().all(verified));
    }
}
