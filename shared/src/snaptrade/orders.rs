//! Orders of an account, however they were placed, in the three forms that SnapTrade has for them.
//!
//! [`Order`] is one leg of an order; [`OrderV2`] has all legs of one, and webhooks use it too; [`KindOrder`] is the newest
//! and tells the types of orders apart by kind.
//!
//! Source: SnapTrade's OpenAPI file, tags "Account Information" and "Experimental endpoints"; for the newest form, the
//! shapes of its published Python client.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::accounts::{AccountId, DataFreshness, Instrument, account_call};
use super::client::{Call, Client, Repeat};
use super::credentials::UserCredentials;
use super::error::Error;
use super::lenient::{self, Listing, open_enum};
use super::reference::{Currency, OptionSymbol, Symbol};

lenient::id! {
    /// The id that the brokerage gave an order.
    OrderId
}

open_enum! {
    /// How an order is doing.
    OrderStatus {
        /// Nothing is known.
        NotKnown = "NONE",
        /// It was sent.
        Pending = "PENDING",
        /// The brokerage has taken it.
        Accepted = "ACCEPTED",
        /// It could not be placed.
        Failed = "FAILED",
        /// The brokerage has refused it.
        Rejected = "REJECTED",
        /// It was cancelled.
        Canceled = "CANCELED",
        /// It was carried out in part and the rest was cancelled.
        PartialCanceled = "PARTIAL_CANCELED",
        /// It is to be cancelled.
        CancelPending = "CANCEL_PENDING",
        /// It was carried out.
        Executed = "EXECUTED",
        /// It was carried out in part.
        Partial = "PARTIAL",
        /// It was carried out in part; the newer forms' word for it.
        PartiallyExecuted = "PARTIALLY_EXECUTED",
        /// It is to be replaced by another.
        ReplacePending = "REPLACE_PENDING",
        /// It was replaced by another.
        Replaced = "REPLACED",
        /// Its stop price was reached.
        Stopped = "STOPPED",
        /// It is held back.
        Suspended = "SUSPENDED",
        /// Its time is over.
        Expired = "EXPIRED",
        /// It waits for the market to open.
        Queued = "QUEUED",
        /// Its condition has come true.
        Triggered = "TRIGGERED",
        /// It is live.
        Activated = "ACTIVATED",
        /// The brokerage is looking at its risk.
        PendingRiskReview = "PENDING_RISK_REVIEW",
        /// It depends on another order.
        ContingentOrder = "CONTINGENT_ORDER",
    }
}

open_enum! {
    /// What an order does.
    Action {
        /// It buys.
        Buy = "BUY",
        /// It sells.
        Sell = "SELL",
        /// It buys back what was sold short.
        BuyCover = "BUY_COVER",
        /// It sells what is not held.
        SellShort = "SELL_SHORT",
        /// It buys options that are not held yet.
        BuyToOpen = "BUY_TO_OPEN",
        /// It buys back options that were written.
        BuyToClose = "BUY_TO_CLOSE",
        /// It writes options.
        SellToOpen = "SELL_TO_OPEN",
        /// It sells options that are held.
        SellToClose = "SELL_TO_CLOSE",
    }
}

open_enum! {
    /// The part that an order plays in a group of orders that depend on each other.
    OrderRole {
        /// It sets off the others.
        Trigger = "TRIGGER",
        /// It is set off by another.
        Conditional = "CONDITIONAL",
        /// It cancels the others when it is carried out.
        Peer = "PEER",
    }
}

open_enum! {
    /// Whether money comes in or goes out.
    PriceEffect {
        /// It comes in.
        Credit = "CREDIT",
        /// It goes out.
        Debit = "DEBIT",
        /// Neither.
        Even = "EVEN",
        /// That could not be told.
        Unknown = "UNKNOWN",
    }
}

open_enum! {
    /// What the distance of a trailing stop is measured in.
    TrailType {
        /// Money.
        Dollar = "DOLLAR",
        /// Per cent.
        Percent = "PERCENT",
    }
}

/// The distance at which a trailing stop follows the price.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct TrailingStop {
    /// How far.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub amount: Option<Decimal>,
    /// What that is measured in.
    #[serde(default, rename = "type", deserialize_with = "lenient::maybe")]
    pub trail_type: Option<TrailType>,
}

/// One leg of an order. An order of several legs is several of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Order {
    /// The id that the brokerage gave it.
    #[serde(default)]
    pub brokerage_order_id: Option<OrderId>,
    /// What ties it to others that depend on it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub brokerage_group_order_id: Option<String>,
    /// The part that it plays among those.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub order_role: Option<OrderRole>,
    /// How it is doing.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub status: Option<OrderStatus>,
    /// The security; absent where it is about an option.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub universal_symbol: Option<Symbol>,
    /// The option; absent where it is not about one.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub option_symbol: Option<OptionSymbol>,
    /// The cryptocurrency that it is paid in, where that is so.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub quote_universal_symbol: Option<Symbol>,
    /// The currency that a cryptocurrency is paid in, where that is so.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub quote_currency: Option<Currency>,
    /// What it does.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub action: Option<Action>,
    /// How many in all.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub total_quantity: Option<Decimal>,
    /// How many are still to be traded.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub open_quantity: Option<Decimal>,
    /// How many will not be traded any more.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub canceled_quantity: Option<Decimal>,
    /// How many were traded.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub filled_quantity: Option<Decimal>,
    /// The price of one that was traded; of options the price per share.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub execution_price: Option<Decimal>,
    /// The most to pay or the least to get for one.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub limit_price: Option<Decimal>,
    /// The price that sets it off.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub stop_price: Option<Decimal>,
    /// How it follows the price, where it does.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub trailing_stop: Option<TrailingStop>,
    /// `Market`, `Limit`, `Stop`, `StopLimit`, or the brokerage's own word.
    #[serde(default, deserialize_with = "lenient::text")]
    pub order_type: Option<String>,
    /// `Day`, `GTC`, `FOK`, `IOC`, `GTD`, `MOO`, `EHP`, or the brokerage's own word.
    #[serde(default, deserialize_with = "lenient::text")]
    pub time_in_force: Option<String>,
    /// When it was placed.
    #[serde(default, deserialize_with = "lenient::time")]
    pub time_placed: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, deserialize_with = "lenient::time")]
    pub time_updated: Option<Timestamp>,
    /// When it was carried out.
    #[serde(default, deserialize_with = "lenient::time")]
    pub time_executed: Option<Timestamp>,
    /// When its time is over.
    #[serde(default, deserialize_with = "lenient::time")]
    pub expiry_date: Option<Timestamp>,
    /// The orders that were placed along with it.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub child_brokerage_order_ids: Option<ChildOrderIds>,
}

/// The orders that were placed along with another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ChildOrderIds {
    /// The one that takes the profit.
    #[serde(default, deserialize_with = "lenient::text")]
    pub take_profit_order_id: Option<String>,
    /// The one that stops the loss.
    #[serde(default, deserialize_with = "lenient::text")]
    pub stop_loss_order_id: Option<String>,
}

/// An order with all its legs. Words are in capitals, prices and quantities those of the whole order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct OrderV2 {
    /// The id that the brokerage gave it.
    #[serde(default)]
    pub brokerage_order_id: Option<OrderId>,
    /// What ties it to others that depend on it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub brokerage_group_order_id: Option<String>,
    /// The part that it plays among those.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub order_role: Option<OrderRole>,
    /// How it is doing.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub status: Option<OrderStatus>,
    /// `MARKET`, `LIMIT`, `STOP`, `STOP_LIMIT`, or the brokerage's own word.
    #[serde(default, deserialize_with = "lenient::text")]
    pub order_type: Option<String>,
    /// `DAY`, `GTC`, `FOK`, `IOC`, `GTD`, `MOO`, `EHP`, or the brokerage's own word.
    #[serde(default, deserialize_with = "lenient::text")]
    pub time_in_force: Option<String>,
    /// When it was placed.
    #[serde(default, deserialize_with = "lenient::time")]
    pub time_placed: Option<Timestamp>,
    /// When it was carried out.
    #[serde(default, deserialize_with = "lenient::time")]
    pub time_executed: Option<Timestamp>,
    /// The currency of the prices, by ISO 4217.
    #[serde(default, deserialize_with = "lenient::text")]
    pub price_currency: Option<String>,
    /// Whether the net price comes in or goes out.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub price_effect: Option<PriceEffect>,
    /// The price at which it was carried out.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub execution_price: Option<Decimal>,
    /// The most to pay or the least to get.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub limit_price: Option<Decimal>,
    /// The price that sets it off.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub stop_price: Option<Decimal>,
    /// How it follows the price, where it does.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub trailing_stop: Option<TrailingStop>,
    /// Its legs, at least one.
    #[serde(default, deserialize_with = "lenient::list")]
    pub legs: Vec<OrderLeg>,
}

/// One leg of an [`OrderV2`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct OrderLeg {
    /// The id that the brokerage gave it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub leg_id: Option<String>,
    /// What is traded.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub instrument: Option<LegInstrument>,
    /// What is done with it.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub action: Option<Action>,
    /// The price at which it was traded.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub execution_price: Option<Decimal>,
    /// How many in all.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub total_quantity: Option<Decimal>,
    /// How many will not be traded any more.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub canceled_quantity: Option<Decimal>,
    /// How many were traded.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub filled_quantity: Option<Decimal>,
    /// How it is doing.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub status: Option<OrderStatus>,
}

/// What a leg trades.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct LegInstrument {
    /// Its ticker, or the 21 characters of an option.
    #[serde(default, deserialize_with = "lenient::text")]
    pub symbol: Option<String>,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub description: Option<String>,
    /// `EQUITY`, `OPTION`, `CRYPTO`, or another word.
    #[serde(default, deserialize_with = "lenient::text")]
    pub asset_type: Option<String>,
    /// The exchange's market identifier code.
    #[serde(default, deserialize_with = "lenient::text")]
    pub exchange_mic_code: Option<String>,
    /// Its Financial Instrument Global Identifier.
    #[serde(default, deserialize_with = "lenient::text")]
    pub figi_code: Option<String>,
}

/// Orders in the newest form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct KindOrders {
    /// The orders.
    #[serde(default, deserialize_with = "lenient::list")]
    pub results: Vec<KindOrder>,
    /// As of when they are.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub data_freshness: Option<DataFreshness>,
}

/// An order in the newest form.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KindOrder {
    /// The id that the brokerage gave it.
    pub brokerage_order_id: OrderId,
    /// How it is doing.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub status: Option<OrderStatus>,
    /// Its type, with the prices that belong to it.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub order_type: Option<KindOrderType>,
    /// `DAY`, `GTC`, `FOK`, `IOC`, `GTD`, `MOO`, `EHP`, `EHA` or `OTHER`.
    #[serde(default, deserialize_with = "lenient::text")]
    pub time_in_force: Option<String>,
    /// Whether the net price comes in or goes out.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub price_effect: Option<PriceEffect>,
    /// Its legs, at least one.
    #[serde(default, deserialize_with = "lenient::list")]
    pub legs: Vec<KindOrderLeg>,
    /// When its time is over.
    #[serde(default, deserialize_with = "lenient::time")]
    pub expiry_date: Option<Timestamp>,
    /// The currency of the prices; of pairs of cryptocurrencies the second of the two.
    #[serde(default, deserialize_with = "lenient::text")]
    pub price_currency: Option<String>,
    /// How many in all; of several legs the number of sets.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub total_quantity: Option<Decimal>,
    /// How many were traded.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub filled_quantity: Option<Decimal>,
    /// How many will not be traded any more.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub canceled_quantity: Option<Decimal>,
    /// How many are still to be traded.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub open_quantity: Option<Decimal>,
    /// The price of one that was traded, or the net price of a set.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub execution_price: Option<Decimal>,
    /// When it was placed.
    #[serde(default, deserialize_with = "lenient::time")]
    pub time_placed: Option<Timestamp>,
    /// When it last changed.
    #[serde(default, deserialize_with = "lenient::time")]
    pub time_updated: Option<Timestamp>,
    /// When it was carried out.
    #[serde(default, deserialize_with = "lenient::time")]
    pub time_executed: Option<Timestamp>,
    /// The group of orders that it depends on, where there is one.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub group: Option<OrderGroup>,
}

/// A group of orders that depend on each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct OrderGroup {
    /// The group's id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    /// The part that the order plays in it.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub role: Option<OrderRole>,
}

/// One leg of a [`KindOrder`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KindOrderLeg {
    /// What is traded.
    pub instrument: Instrument,
    /// What is done with it.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub action: Option<Action>,
    /// The id that the brokerage gave it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub leg_id: Option<String>,
    /// How many in all.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub total_quantity: Option<Decimal>,
    /// How many were traded.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub filled_quantity: Option<Decimal>,
    /// How many will not be traded any more.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub canceled_quantity: Option<Decimal>,
    /// The price at which it was traded.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub execution_price: Option<Decimal>,
    /// How it is doing.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub status: Option<OrderStatus>,
}

/// The type of a [`KindOrder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KindOrderType {
    /// At any price.
    Market,
    /// At a price or better.
    Limit {
        /// That price.
        limit_price: Option<Decimal>,
    },
    /// At any price, once another is reached.
    Stop {
        /// The price that sets it off.
        stop_price: Option<Decimal>,
    },
    /// At a price or better, once another is reached.
    StopLimit {
        /// The price that sets it off.
        stop_price: Option<Decimal>,
        /// The price to trade at.
        limit_price: Option<Decimal>,
    },
    /// At any price, once it turns by a distance.
    TrailingStop {
        /// The distance.
        trail: Option<TrailingStop>,
        /// The price that sets it off as it stands.
        stop_price: Option<Decimal>,
    },
    /// At a price or better, once it turns by a distance.
    TrailingStopLimit {
        /// The distance.
        trail: Option<TrailingStop>,
        /// The price to trade at.
        limit_price: Option<Decimal>,
        /// The price that sets it off as it stands.
        stop_price: Option<Decimal>,
    },
    /// The brokerage has another type, or SnapTrade has a newer one.
    Other {
        /// The brokerage's word, or SnapTrade's.
        raw_type: String,
        /// The most to pay or the least to get.
        limit_price: Option<Decimal>,
        /// The price that sets it off.
        stop_price: Option<Decimal>,
    },
}

impl<'de> Deserialize<'de> for KindOrderType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(default, deserialize_with = "lenient::decimal")]
            limit_price: Option<Decimal>,
            #[serde(default, deserialize_with = "lenient::decimal")]
            stop_price: Option<Decimal>,
            #[serde(default, deserialize_with = "lenient::maybe")]
            trail: Option<TrailingStop>,
            #[serde(default, deserialize_with = "lenient::text")]
            raw_type: Option<String>,
        }
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let kind = lenient::kind_of::<D::Error>(&raw)?;
        let Fields {
            limit_price,
            stop_price,
            trail,
            raw_type,
        } = serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
        Ok(match kind.as_str() {
            "market" => Self::Market,
            "limit" => Self::Limit { limit_price },
            "stop" => Self::Stop { stop_price },
            "stop_limit" => Self::StopLimit {
                stop_price,
                limit_price,
            },
            "trailing_stop" => Self::TrailingStop { trail, stop_price },
            "trailing_stop_limit" => Self::TrailingStopLimit {
                trail,
                limit_price,
                stop_price,
            },
            _ => Self::Other {
                raw_type: raw_type.unwrap_or(kind),
                limit_price,
                stop_price,
            },
        })
    }
}

open_enum! {
    /// Which orders to list.
    OrderState {
        /// All.
        All = "all",
        /// Those that are still to be carried out.
        Open = "open",
        /// Those that were carried out.
        Executed = "executed",
    }
}

/// Which orders to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderFilter {
    /// In which state; all where nothing is said.
    pub state: Option<OrderState>,
    /// Of how many days back, 1 to 90; 30 where nothing is said.
    pub days: Option<u8>,
}

impl OrderFilter {
    fn on<'a>(&self, call: Call<'a>) -> Call<'a> {
        let days = self.days.map(|days| days.to_string());
        call.optional("state", self.state.as_ref().map(OrderState::as_str))
            .optional("days", days.as_deref())
    }
}

/// Which orders of the last 24 hours to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecentOrders {
    /// Those that were carried out.
    Executed,
    /// All.
    All,
}

impl RecentOrders {
    fn only_executed(self) -> &'static str {
        match self {
            Self::Executed => "true",
            Self::All => "false",
        }
    }
}

#[derive(Deserialize)]
struct Orders<T> {
    #[serde(
        default = "Vec::new",
        deserialize_with = "lenient::list",
        bound = "T: Deserialize<'de>"
    )]
    orders: Vec<T>,
}

#[derive(Serialize)]
pub(super) struct OrderNamed<'a> {
    pub(super) brokerage_order_id: &'a OrderId,
}

impl Client {
    /// An account's orders, as they were at most a day ago, or now where the plan has real-time data.
    ///
    /// # Errors
    /// `Gone` when the brokerage does not show orders, and every other [`Error`].
    pub async fn account_orders(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        filter: &OrderFilter,
    ) -> Result<Vec<Order>, Error> {
        let call = account_call("AccountInformation_getUserAccountOrders", account, "/orders").user(user);
        let Listing(orders) = self.call(filter.on(call)).await?;
        Ok(orders)
    }

    /// An account's orders with all their legs. Experimental at SnapTrade.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn account_orders_v2(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        filter: &OrderFilter,
    ) -> Result<Vec<OrderV2>, Error> {
        let call =
            account_call("AccountInformation_getUserAccountOrdersV2", account, "/orders/v2").user(user);
        let answer: Orders<OrderV2> = self.call(filter.on(call)).await?;
        Ok(answer.orders)
    }

    /// An account's orders in the newest form. Experimental at SnapTrade.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn account_kind_orders(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        filter: &OrderFilter,
    ) -> Result<KindOrders, Error> {
        let call = account_call("AccountInformation_getAllAccountOrders", account, "/orders/all").user(user);
        self.call(filter.on(call)).await
    }

    /// An account's orders of the last 24 hours as they are now, at most a page of them.
    ///
    /// # Errors
    /// `Forbidden` when it is not switched on; `Gone` when the brokerage does not show them; and every other
    /// [`Error`].
    pub async fn account_recent_orders(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        which: RecentOrders,
    ) -> Result<Vec<Order>, Error> {
        let call = account_call(
            "AccountInformation_getUserAccountRecentOrders",
            account,
            "/recentOrders",
        )
        .user(user)
        .param("only_executed", which.only_executed());
        let answer: Orders<Order> = self.call(call).await?;
        Ok(answer.orders)
    }

    /// The same with all their legs. Experimental at SnapTrade, and each call costs money, so it is sent once.
    ///
    /// # Errors
    /// `Forbidden` when it is not switched on, and every other [`Error`].
    pub async fn account_recent_orders_v2(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        which: RecentOrders,
    ) -> Result<Vec<OrderV2>, Error> {
        let call = account_call(
            "AccountInformation_getUserAccountRecentOrdersV2",
            account,
            "/recentOrders/v2",
        )
        .user(user)
        .param("only_executed", which.only_executed());
        let answer: Orders<OrderV2> = self.once().call(call).await?;
        Ok(answer.orders)
    }

    /// One order as it is now; only one that was placed through SnapTrade, and only of one leg.
    ///
    /// # Errors
    /// `NotFound` when there is no such order, and every other [`Error`].
    pub async fn account_order(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        order: &OrderId,
    ) -> Result<Order, Error> {
        let call = Call::post("AccountInformation_getUserAccountOrderDetail", Repeat::Harmless)
            .path("/accounts/")
            .segment(account.as_str())
            .path("/orders/details")
            .user(user)
            .body(&OrderNamed {
                brokerage_order_id: order,
            })?;
        self.call(call).await
    }

    /// One order as it is now, with all its legs; only one that was placed through SnapTrade. Experimental at
    /// SnapTrade.
    ///
    /// # Errors
    /// `NotFound` when there is no such order, and every other [`Error`].
    pub async fn account_order_v2(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        order: &OrderId,
    ) -> Result<OrderV2, Error> {
        let operation = "AccountInformation_getUserAccountOrderDetailV2";
        let call = account_call(operation, account, "/orders/details/v2/")
            .segment(order.as_str())
            .user(user);
        self.call(call).await
    }
}

/// What the brokerage itself said of something, where SnapTrade passes it on.
pub type RawResponse = Value;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_with_numbers_as_text_or_as_numbers() {
        let json = r#"{"brokerage_order_id":123,"status":"EXECUTED","action":"BUY","total_quantity":"10.5",
            "filled_quantity":10.5,"execution_price":null,"limit_price":"","order_type":"Limit","time_in_force":"GTC",
            "time_placed":"2026-01-02T03:04:05Z","universal_symbol":null,"trailing_stop":{"amount":"0.60","type":"PERCENT"},
            "option_symbol":{"id":"o","ticker":"XYZ   270115P00012500","option_type":"PUT","strike_price":12.5}}"#;
        let order: Order = serde_json::from_str(json).unwrap();
        assert_eq!(order.brokerage_order_id, Some(OrderId::new("123")));
        assert_eq!(order.total_quantity, order.filled_quantity);
        assert_eq!((order.execution_price, order.limit_price), (None, None));
        assert_eq!(order.trailing_stop.unwrap().trail_type, Some(TrailType::Percent));
        assert_eq!(
            order.option_symbol.unwrap().strike_price.unwrap().to_string(),
            "12.5"
        );
    }

    #[test]
    fn the_newest_forms_types_are_told_apart_by_kind() {
        let read = |json: &str| serde_json::from_str::<KindOrderType>(json).unwrap();
        let price = |text: &str| Some(text.parse().unwrap());
        assert_eq!(read(r#"{"kind":"market"}"#), KindOrderType::Market);
        let limit_price = price("7.25");
        assert_eq!(
            read(r#"{"kind":"limit","limit_price":"7.25"}"#),
            KindOrderType::Limit { limit_price }
        );
        let trailing =
            read(r#"{"kind":"trailing_stop","trail":{"amount":"1","type":"DOLLAR"},"stop_price":null}"#);
        assert!(matches!(
            trailing,
            KindOrderType::TrailingStop {
                trail: Some(_),
                stop_price: None
            }
        ));
        for (json, word) in [
            (
                r#"{"kind":"other","raw_type":"ICEBERG","limit_price":"1"}"#,
                "ICEBERG",
            ),
            (r#"{"kind":"brand_new","limit_price":1}"#, "brand_new"),
        ] {
            let other = KindOrderType::Other {
                raw_type: word.to_owned(),
                limit_price: price("1"),
                stop_price: None,
            };
            assert_eq!(read(json), other);
        }
    }
}
