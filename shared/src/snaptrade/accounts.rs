//! Accounts and what is in them: balances, positions, transactions, and how they did.
//!
//! Data of a disabled connection are still served, as they were last known, without an error: see
//! [`super::Connection::disabled`]. Data of an account whose first sync is not done may be empty: see
//! [`SyncStatus`].
//!
//! Source: SnapTrade's OpenAPI file, tag "Account Information"; for what that file does not have yet, the shapes of its
//! published Python client.

use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{Call, Client};
use super::connections::ConnectionId;
use super::credentials::UserCredentials;
use super::error::Error;
use super::lenient::{self, Listing, open_enum};
use super::reference::{Currency, FigiInstrument, OptionSymbol, OptionType, Symbol};

lenient::id! {
    /// The id of an account. The same account gets another one when its connection is deleted and made again.
    AccountId
}

/// An amount of money.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Money {
    /// How much.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub amount: Option<Decimal>,
    /// Of which currency, by ISO 4217.
    #[serde(default, deserialize_with = "lenient::text")]
    pub currency: Option<String>,
}

/// An account at a brokerage.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// The connection that it belongs to.
    pub brokerage_authorization: ConnectionId,
    /// A name to show.
    #[serde(default, deserialize_with = "lenient::text")]
    pub name: Option<String>,
    /// The number that the brokerage gave it; some mask it.
    #[serde(default, deserialize_with = "lenient::text")]
    pub number: Option<String>,
    /// What the brokerage knows it by. Where it is there it stays the same when a connection is made again.
    #[serde(default, deserialize_with = "lenient::text")]
    pub institution_account_id: Option<String>,
    /// The brokerage's name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub institution_name: Option<String>,
    /// When SnapTrade came to know it.
    #[serde(default, deserialize_with = "lenient::time")]
    pub created_date: Option<Timestamp>,
    /// When money first came in, at the few brokerages that say so.
    #[serde(default, deserialize_with = "lenient::time")]
    pub funding_date: Option<Timestamp>,
    /// When it was opened, at the few brokerages that say so.
    #[serde(default, deserialize_with = "lenient::time")]
    pub opening_date: Option<Timestamp>,
    /// How far SnapTrade is with reading it.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub sync_status: Option<SyncStatus>,
    /// What all of it is worth, as the brokerage says.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub balance: Option<AccountValue>,
    /// Whether it is open; absent where that is not known.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub status: Option<AccountStatus>,
    /// The brokerage's own word for the kind of account, such as `Margin`.
    #[serde(default, deserialize_with = "lenient::text")]
    pub raw_type: Option<String>,
    /// The kind of account; absent where that is not known.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub account_category: Option<AccountCategory>,
    /// Whether only play money is traded in it.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub is_paper: bool,
}

/// What an account is worth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct AccountValue {
    /// All of it: cash, shares and everything else.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub total: Option<Money>,
}

open_enum! {
    /// Whether an account is open.
    AccountStatus {
        /// It is.
        Open = "open",
        /// It is closed.
        Closed = "closed",
        /// It is put away.
        Archived = "archived",
        /// The brokerage does not show it at present.
        Unavailable = "unavailable",
    }
}

open_enum! {
    /// The kind of an account.
    AccountCategory {
        /// For investing.
        Investment = "INVESTMENT",
        /// A bank account.
        Deposit = "DEPOSIT",
        /// A line of credit.
        LineOfCredit = "LOC",
    }
}

/// How far SnapTrade is with reading an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SyncStatus {
    /// Its transactions.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub transactions: Option<TransactionsSync>,
    /// Its balances, positions and orders.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub holdings: Option<HoldingsSync>,
}

/// How far SnapTrade is with reading an account's transactions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct TransactionsSync {
    /// Whether the first reading is done.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub initial_sync_completed: bool,
    /// Up to which day all are known.
    #[serde(default, deserialize_with = "lenient::date")]
    pub last_successful_sync: Option<Date>,
    /// The day of the first one that is known.
    #[serde(default, deserialize_with = "lenient::date")]
    pub first_transaction_date: Option<Date>,
}

/// How far SnapTrade is with reading an account's holdings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct HoldingsSync {
    /// Whether the first reading is done.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub initial_sync_completed: bool,
    /// When they were last read.
    #[serde(default, deserialize_with = "lenient::time")]
    pub last_successful_sync: Option<Timestamp>,
    /// Whether the brokerage does not show them at all. The account is not empty then, though it looks so.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub holdings_unavailable: bool,
}

/// An account in the newer form, in which there are also accounts that one does not invest with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KindAccount {
    /// Which kind it is.
    pub kind: AccountKind,
    /// Its id.
    pub id: AccountId,
    /// The connection that it belongs to.
    pub connection_id: ConnectionId,
    /// A name to show.
    #[serde(default, deserialize_with = "lenient::text")]
    pub display_name: Option<String>,
    /// The last characters of its number.
    #[serde(default, alias = "number", deserialize_with = "lenient::text")]
    pub masked_account_number: Option<String>,
    /// What the institution knows it by.
    #[serde(default, deserialize_with = "lenient::text")]
    pub institution_account_id: Option<String>,
    /// The institution's id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub institution_id: Option<String>,
    /// When it was opened, where the institution says so.
    #[serde(default, deserialize_with = "lenient::time")]
    pub opening_date: Option<Timestamp>,
    /// When money first came in, where the institution says so; investment accounts only.
    #[serde(default, deserialize_with = "lenient::time")]
    pub funding_date: Option<Timestamp>,
    /// How far SnapTrade is with reading it.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub sync_status: Option<KindSyncStatus>,
    /// The institution's own word for the kind of account.
    #[serde(default, deserialize_with = "lenient::text")]
    pub raw_type: Option<String>,
    /// Whether only play money is traded in it; investment accounts only.
    #[serde(default, deserialize_with = "lenient::flag")]
    pub is_paper: Option<bool>,
    /// Whether it can borrow; investment accounts only.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub cash_or_margin: Option<CashOrMargin>,
    /// What it is worth; negative where money is owed.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub net_value: Option<Money>,
    /// What is due; lines of credit only.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub credit_details: Option<CreditDetails>,
}

open_enum! {
    /// The kind of an account in the newer form.
    AccountKind {
        /// For investing.
        Investment = "investment",
        /// A bank account.
        Deposit = "deposit",
        /// A line of credit.
        LineOfCredit = "line_of_credit",
        /// An annuity.
        Annuity = "annuity",
    }
}

open_enum! {
    /// Whether an account can borrow.
    CashOrMargin {
        /// It cannot.
        Cash = "cash",
        /// It can.
        Margin = "margin",
        /// That is not known or does not apply.
        Unknown = "unknown",
    }
}

/// How far SnapTrade is with reading an account, in the newer form: when each part was last read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct KindSyncStatus {
    /// Its transactions.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub transactions: Option<TransactionsSync>,
    /// Its orders.
    #[serde(default, deserialize_with = "lenient::time")]
    pub orders: Option<Timestamp>,
    /// Its positions.
    #[serde(default, deserialize_with = "lenient::time")]
    pub positions: Option<Timestamp>,
    /// Its balances.
    #[serde(default, deserialize_with = "lenient::time")]
    pub balances: Option<Timestamp>,
}

/// What is due on a line of credit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct CreditDetails {
    /// The least that has to be paid next.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub minimum_payment_amount: Option<Money>,
}

/// The cash of an account in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Balance {
    /// The currency.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub currency: Option<Currency>,
    /// The cash; negative where money is borrowed.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub cash: Option<Decimal>,
    /// For how much one can buy.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub buying_power: Option<Decimal>,
}

/// All balances of an account at one moment, in the newer form.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BalanceSnapshot {
    /// The account.
    pub account_id: AccountId,
    /// Whether it can borrow.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub cash_or_margin: Option<CashOrMargin>,
    /// What all of it is worth.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub net_value: Option<Money>,
    /// The cash in each currency; negative where money is borrowed.
    #[serde(default, deserialize_with = "lenient::list")]
    pub cash: Vec<Money>,
    /// For how much one can buy.
    #[serde(default, deserialize_with = "lenient::list")]
    pub buying_power: Vec<BuyingPower>,
    /// What is borrowed; absent where the account cannot borrow.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub margin: Option<Margin>,
    /// As of when.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub data_freshness: Option<DataFreshness>,
}

/// For how much one can buy in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct BuyingPower {
    /// The currency, by ISO 4217.
    #[serde(default, deserialize_with = "lenient::text")]
    pub currency: Option<String>,
    /// How much.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub amount: Option<Decimal>,
    /// What it rests on.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub basis: Option<BuyingPowerBasis>,
}

open_enum! {
    /// What buying power rests on.
    BuyingPowerBasis {
        /// Settled cash.
        Settled = "settled",
        /// All cash.
        Cash = "cash",
        /// Cash and credit.
        Margin = "margin",
    }
}

/// What is borrowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Margin {
    /// The loans, one for each currency; absent where that is not known.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub loan_balances: Option<Vec<Money>>,
}

/// As of when data are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DataFreshness {
    /// The time.
    #[serde(default, deserialize_with = "lenient::time")]
    pub as_of: Option<Timestamp>,
}

/// All positions of an account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Positions {
    /// The positions.
    pub results: Vec<Position>,
    /// As of when they are.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub data_freshness: Option<DataFreshness>,
}

/// How much of something an account holds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Position {
    /// What it holds.
    pub instrument: Instrument,
    /// How many; negative where they are sold short.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub units: Option<Decimal>,
    /// The price of one that the brokerage last gave; of options the price per share.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub price: Option<Decimal>,
    /// What one cost on average; of options, what one share did. [`Position::total_cost`] is that of all.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub cost_basis: Option<Decimal>,
    /// The currency of price and cost, by ISO 4217.
    #[serde(default, deserialize_with = "lenient::text")]
    pub currency: Option<String>,
    /// Whether the brokerage counts it as cash too; a money market fund, for instance.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub cash_equivalent: bool,
    /// The purchases that it is made of, where the plan has them.
    #[serde(default, deserialize_with = "lenient::list")]
    pub tax_lots: Vec<TaxLot>,
}

impl Position {
    /// How many of what the price is for make one unit: 100 shares for most options, else what the contract says, else 1.
    #[must_use]
    pub fn multiplier(&self) -> Decimal {
        match &self.instrument {
            Instrument::Option(option) => option.multiplier.unwrap_or(Decimal::ONE_HUNDRED),
            Instrument::Future(future) => future.multiplier.unwrap_or(Decimal::ONE),
            _ => Decimal::ONE,
        }
    }

    /// What all of it is worth at the price given: units times price times multiplier, negative where it is sold short.
    /// `None` where something is missing or the product is too large.
    #[must_use]
    pub fn market_value(&self) -> Option<Decimal> {
        self.units?
            .checked_mul(self.price?)?
            .checked_mul(self.multiplier())
    }

    /// What all of it cost: units times average cost times multiplier, negative where it is sold short. `None` where
    /// something is missing or the product is too large.
    #[must_use]
    pub fn total_cost(&self) -> Option<Decimal> {
        self.units?
            .checked_mul(self.cost_basis?)?
            .checked_mul(self.multiplier())
    }
}

/// One purchase that a position is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct TaxLot {
    /// When it was made.
    #[serde(default, deserialize_with = "lenient::time")]
    pub original_purchase_date: Option<Timestamp>,
    /// How many are left of it.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub quantity: Option<Decimal>,
    /// The price of one.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub purchased_price: Option<Decimal>,
    /// What they cost in all.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub cost_basis: Option<Decimal>,
    /// What they are worth.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub current_value: Option<Decimal>,
    /// Whether it is long or short.
    #[serde(default, deserialize_with = "lenient::text")]
    pub position_type: Option<String>,
    /// Its id at the brokerage.
    #[serde(default, deserialize_with = "lenient::text")]
    pub lot_id: Option<String>,
}

/// What can be held or traded, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instrument {
    /// A share of a company.
    Stock(Security),
    /// An American depositary receipt.
    Adr(Security),
    /// A share of an exchange-traded fund.
    Etf(Security),
    /// A share of a mutual fund.
    MutualFund(Security),
    /// A share of a closed-end fund.
    ClosedEndFund(Security),
    /// A cryptocurrency.
    Crypto(Security),
    /// A futures contract.
    Future(Future),
    /// An option contract.
    Option(Box<OptionContract>),
    /// A contract for difference.
    Cfd(Box<Derived>),
    /// A token that stands for something else.
    TokenizedAsset(Box<Derived>),
    /// Something that SnapTrade cannot place.
    Other(Security),
    /// A kind that this client does not know, as SnapTrade sent it.
    Unknown {
        /// SnapTrade's word for the kind.
        kind: String,
        /// All that SnapTrade says of it.
        value: Value,
    },
}

impl Instrument {
    /// Its symbol.
    #[must_use]
    pub fn symbol(&self) -> Option<&str> {
        match self {
            Self::Stock(security)
            | Self::Adr(security)
            | Self::Etf(security)
            | Self::MutualFund(security)
            | Self::ClosedEndFund(security)
            | Self::Crypto(security)
            | Self::Other(security) => security.symbol.as_deref(),
            Self::Future(future) => future.symbol.as_deref(),
            Self::Option(option) => option.symbol.as_deref(),
            Self::Cfd(derived) | Self::TokenizedAsset(derived) => derived.symbol.as_deref(),
            Self::Unknown { value, .. } => value.get("symbol").and_then(Value::as_str),
        }
    }

    /// SnapTrade's word for its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Stock(_) => "stock",
            Self::Adr(_) => "adr",
            Self::Etf(_) => "etf",
            Self::MutualFund(_) => "mutualfund",
            Self::ClosedEndFund(_) => "cef",
            Self::Crypto(_) => "crypto",
            Self::Future(_) => "future",
            Self::Option(_) => "option",
            Self::Cfd(_) => "cfd",
            Self::TokenizedAsset(_) => "tokenized_asset",
            Self::Other(_) => "other",
            Self::Unknown { kind, .. } => kind,
        }
    }
}

impl<'de> Deserialize<'de> for Instrument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let json = raw.get();
        let kind = lenient::kind_of::<D::Error>(&raw)?;
        let known = match kind.as_str() {
            "stock" => serde_json::from_str(json).map(Self::Stock),
            "adr" => serde_json::from_str(json).map(Self::Adr),
            "etf" => serde_json::from_str(json).map(Self::Etf),
            "mutualfund" => serde_json::from_str(json).map(Self::MutualFund),
            "cef" => serde_json::from_str(json).map(Self::ClosedEndFund),
            "crypto" => serde_json::from_str(json).map(Self::Crypto),
            "future" => serde_json::from_str(json).map(Self::Future),
            "option" => serde_json::from_str(json).map(Self::Option),
            "cfd" => serde_json::from_str(json).map(Self::Cfd),
            "tokenized_asset" => serde_json::from_str(json).map(Self::TokenizedAsset),
            "other" => serde_json::from_str(json).map(Self::Other),
            _ => serde_json::from_str(json).map(|value| Self::Unknown { kind, value }),
        };
        known.map_err(D::Error::custom)
    }
}

/// A security that is no derivative.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Security {
    /// Its id, the same at all brokerages.
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    /// Its ticker, with the exchange's suffix.
    #[serde(default, deserialize_with = "lenient::text")]
    pub symbol: Option<String>,
    /// Its ticker without a suffix.
    #[serde(default, deserialize_with = "lenient::text")]
    pub raw_symbol: Option<String>,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub description: Option<String>,
    /// The currency that it is traded in, by ISO 4217.
    #[serde(default, deserialize_with = "lenient::text")]
    pub currency: Option<String>,
    /// The exchange's market identifier code.
    #[serde(default, deserialize_with = "lenient::text")]
    pub exchange: Option<String>,
    /// Its Financial Instrument Global Identifier.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub figi_instrument: Option<FigiInstrument>,
}

/// A futures contract.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Future {
    /// Its id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    /// Its symbol.
    #[serde(default, deserialize_with = "lenient::text")]
    pub symbol: Option<String>,
    /// The symbol of all contracts on the same thing.
    #[serde(default, deserialize_with = "lenient::text")]
    pub root_symbol: Option<String>,
    /// The part of the symbol that says when it expires.
    #[serde(default, deserialize_with = "lenient::text")]
    pub expiration_code: Option<String>,
    /// The day on which it expires.
    #[serde(default, deserialize_with = "lenient::date")]
    pub expiration_date: Option<Date>,
    /// How much of the thing one contract is for.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub multiplier: Option<Decimal>,
    /// The currency that it is traded in, by ISO 4217.
    #[serde(default, deserialize_with = "lenient::text")]
    pub currency: Option<String>,
    /// The exchange's market identifier code.
    #[serde(default, deserialize_with = "lenient::text")]
    pub exchange: Option<String>,
}

/// An option contract.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct OptionContract {
    /// Its id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    /// Its symbol in the 21 characters of the Options Clearing Corporation.
    #[serde(default, deserialize_with = "lenient::text")]
    pub symbol: Option<String>,
    /// The right that it gives.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub option_type: Option<OptionType>,
    /// The price at which it may be exercised.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub strike_price: Option<Decimal>,
    /// The day on which it expires.
    #[serde(default, deserialize_with = "lenient::date")]
    pub expiration_date: Option<Date>,
    /// How many of the underlying one contract is for, mostly 100.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub multiplier: Option<Decimal>,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub description: Option<String>,
    /// What it is on.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub underlying: Option<Instrument>,
}

/// A contract for difference, or a token that stands for something else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Derived {
    /// Its id.
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    /// Its ticker, with the exchange's suffix.
    #[serde(default, deserialize_with = "lenient::text")]
    pub symbol: Option<String>,
    /// Its ticker without a suffix.
    #[serde(default, deserialize_with = "lenient::text")]
    pub raw_symbol: Option<String>,
    /// Its name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub description: Option<String>,
    /// The currency that it is traded in, by ISO 4217.
    #[serde(default, deserialize_with = "lenient::text")]
    pub currency: Option<String>,
    /// The exchange's market identifier code.
    #[serde(default, deserialize_with = "lenient::text")]
    pub exchange: Option<String>,
    /// What it is on.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub underlying_instrument: Option<Instrument>,
}

/// One transaction of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Activity {
    /// Its id. On rare occasions SnapTrade reads a transaction anew and gives it another one.
    #[serde(default, deserialize_with = "lenient::text")]
    pub id: Option<String>,
    /// The security; absent where it is not about one.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub symbol: Option<Symbol>,
    /// The cryptocurrency that it was paid in, where that is so.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub currency_universal_symbol: Option<Symbol>,
    /// The option; absent where it is not about one.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub option_symbol: Option<OptionSymbol>,
    /// The price of one.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub price: Option<Decimal>,
    /// How many; negative where they left the account.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub units: Option<Decimal>,
    /// The money that moved; negative where it left the account.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub amount: Option<Decimal>,
    /// The currency of price and amount.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub currency: Option<Currency>,
    /// What kind of transaction it is.
    #[serde(default, rename = "type", deserialize_with = "lenient::maybe")]
    pub activity_type: Option<ActivityType>,
    /// What was done with an option, such as `BUY_TO_OPEN`; empty where it is not about one.
    #[serde(default, deserialize_with = "lenient::text")]
    pub option_type: Option<String>,
    /// The brokerage's own words.
    #[serde(default, deserialize_with = "lenient::text")]
    pub description: Option<String>,
    /// When it was agreed.
    #[serde(default, deserialize_with = "lenient::time")]
    pub trade_date: Option<Timestamp>,
    /// When it was settled.
    #[serde(default, deserialize_with = "lenient::time")]
    pub settlement_date: Option<Timestamp>,
    /// The fee.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub fee: Option<Decimal>,
    /// The rate that one currency was changed into another at.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub fx_rate: Option<Decimal>,
    /// The brokerage's name.
    #[serde(default, deserialize_with = "lenient::text")]
    pub institution: Option<String>,
    /// Its id at the brokerage. Several transactions may share one.
    #[serde(default, deserialize_with = "lenient::text")]
    pub external_reference_id: Option<String>,
}

open_enum! {
    /// A kind of transaction. SnapTrade passes on the brokerage's word where it cannot place one.
    ActivityType {
        /// Something was bought.
        Buy = "BUY",
        /// Something was sold.
        Sell = "SELL",
        /// A dividend was paid.
        Dividend = "DIVIDEND",
        /// Money was paid in.
        Contribution = "CONTRIBUTION",
        /// Money was paid out.
        Withdrawal = "WITHDRAWAL",
        /// A dividend was invested again.
        Reinvestment = "REI",
        /// A dividend was paid in shares.
        StockDividend = "STOCK_DIVIDEND",
        /// Interest was paid.
        Interest = "INTEREST",
        /// A fee was charged.
        Fee = "FEE",
        /// A tax was charged.
        Tax = "TAX",
        /// An option expired.
        OptionExpiration = "OPTIONEXPIRATION",
        /// An option was assigned.
        OptionAssignment = "OPTIONASSIGNMENT",
        /// An option was exercised.
        OptionExercise = "OPTIONEXERCISE",
        /// Something was moved from one account to another.
        Transfer = "TRANSFER",
        /// Shares were split.
        Split = "SPLIT",
        /// The brokerage put something right.
        Adjustment = "ADJUSTMENT",
    }
}

/// Which transactions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActivityFilter {
    /// From this day on.
    pub start_date: Option<Date>,
    /// Up to and including this day.
    pub end_date: Option<Date>,
    /// Of these kinds; all where it is empty.
    pub types: Vec<ActivityType>,
}

/// A part of an account's transactions, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ActivityPage {
    /// The transactions.
    #[serde(default, deserialize_with = "lenient::list")]
    pub data: Vec<Activity>,
    /// Which part it is.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub pagination: Option<Pagination>,
}

/// Which part of a list was answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Pagination {
    /// How many come before.
    #[serde(default, deserialize_with = "lenient::count")]
    pub offset: Option<u64>,
    /// How many there are at most in this part.
    #[serde(default, deserialize_with = "lenient::count")]
    pub limit: Option<u64>,
    /// How many there are in all.
    #[serde(default, deserialize_with = "lenient::count")]
    pub total: Option<u64>,
}

/// Most transactions in one answer.
pub const ACTIVITIES_PER_PAGE: u32 = 1_000;

/// Lists an account's transactions page by page, newest first. A transaction that arrives in between moves the rest on,
/// so that the last one of a page may come again as the first one of the next: take them by id.
#[derive(Debug)]
pub struct Activities<'a> {
    client: &'a Client,
    user: &'a UserCredentials,
    account: &'a AccountId,
    filter: &'a ActivityFilter,
    offset: u64,
    ended: bool,
}

impl Activities<'_> {
    /// The next page; `None` when there are no more.
    ///
    /// # Errors
    /// Every [`Error`]. The same page can be asked for again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Activity>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let page = self
            .client
            .activity_page(
                self.user,
                self.account,
                self.filter,
                self.offset,
                ACTIVITIES_PER_PAGE,
            )
            .await?;
        let received = u64::try_from(page.data.len()).unwrap_or(u64::MAX);
        self.offset = self.offset.saturating_add(received);
        self.ended = match page.pagination.and_then(|pagination| pagination.total) {
            Some(total) => self.offset >= total || received == 0,
            None => received < u64::from(ACTIVITIES_PER_PAGE),
        };
        Ok((received > 0).then_some(page.data))
    }

    /// All that are left.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn collect(mut self) -> Result<Vec<Activity>, Error> {
        let mut all = Vec::new();
        while let Some(page) = self.next_page().await? {
            all.extend(page);
        }
        Ok(all)
    }
}

open_enum! {
    /// A span of time up to now.
    Timeframe {
        /// As long as there are data.
        All = "ALL",
        /// A year.
        Year = "1Y",
        /// Since the year began.
        YearToDate = "YTD",
        /// A month.
        Month = "1M",
        /// A week.
        Week = "1W",
        /// A day.
        Day = "1D",
    }
}

/// What was earned in a span of time, as the brokerage says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct RateOfReturn {
    /// The span of time.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub timeframe: Option<Timeframe>,
    /// What was earned, in per cent.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub return_percent: Option<Decimal>,
    /// When this was said.
    #[serde(default, deserialize_with = "lenient::time")]
    pub created_date: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RateOfReturns {
    #[serde(default, deserialize_with = "lenient::list")]
    pub(super) data: Vec<RateOfReturn>,
}

/// What an account was worth over time, as SnapTrade estimates it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct BalanceHistory {
    /// The values, one for each day.
    #[serde(default, deserialize_with = "lenient::list")]
    pub history: Vec<DailyValue>,
    /// Their currency, by ISO 4217.
    #[serde(default, deserialize_with = "lenient::text")]
    pub currency: Option<String>,
}

/// What an account was worth on one day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DailyValue {
    /// The day.
    #[serde(default, deserialize_with = "lenient::date")]
    pub date: Option<Date>,
    /// The value.
    #[serde(default, deserialize_with = "lenient::decimal")]
    pub total_value: Option<Decimal>,
}

/// The words of `items` with commas between them; `None` where there are none.
pub(super) fn joined<T>(items: &[T], word: impl Fn(&T) -> &str) -> Option<String> {
    let words: Vec<&str> = items.iter().map(word).collect();
    (!words.is_empty()).then(|| words.join(","))
}

impl Client {
    /// All accounts of a user, as they were at most a day ago.
    ///
    /// # Errors
    /// `UserSecretRejected`, and every other [`Error`].
    pub async fn list_accounts(&self, user: &UserCredentials) -> Result<Vec<Account>, Error> {
        let call = Call::get("AccountInformation_listUserAccounts")
            .path("/accounts")
            .user(user);
        let Listing(accounts) = self.call(call).await?;
        Ok(accounts)
    }

    /// All accounts of a user in the newer form, deposit and credit accounts included.
    ///
    /// # Errors
    /// `UserSecretRejected`, and every other [`Error`].
    pub async fn list_kind_accounts(&self, user: &UserCredentials) -> Result<Vec<KindAccount>, Error> {
        let call = Call::get("AccountInformation_listAllUserAccounts")
            .path("/accounts/all")
            .user(user);
        let Listing(accounts) = self.call(call).await?;
        Ok(accounts)
    }

    /// One account.
    ///
    /// # Errors
    /// `NotFound` when the user has no such account, and every other [`Error`].
    pub async fn account(&self, user: &UserCredentials, id: &AccountId) -> Result<Account, Error> {
        let call = Call::get("AccountInformation_getUserAccountDetails")
            .path("/accounts/")
            .segment(id.as_str())
            .user(user);
        self.call(call).await
    }

    /// One account in the newer form.
    ///
    /// # Errors
    /// `NotFound` when the user has no such account, and every other [`Error`].
    pub async fn kind_account(&self, user: &UserCredentials, id: &AccountId) -> Result<KindAccount, Error> {
        self.call(account_call("AccountInformation_getAccountDetails", id, "/details").user(user))
            .await
    }

    /// Has SnapTrade bring an account's particulars up to date. What can be changed is not described.
    ///
    /// # Errors
    /// `NotFound` when the user has no such account, and every other [`Error`].
    pub async fn update_account(
        &self,
        user: &UserCredentials,
        id: &AccountId,
    ) -> Result<Vec<Account>, Error> {
        let call = Call::put("AccountInformation_updateUserAccount")
            .path("/accounts/")
            .segment(id.as_str())
            .user(user);
        let Listing(accounts) = self.call(call).await?;
        Ok(accounts)
    }

    /// An account's cash, in each currency.
    ///
    /// # Errors
    /// `Outage` when the account is being read and nothing is known of it yet, and every other [`Error`].
    pub async fn account_balances(
        &self,
        user: &UserCredentials,
        id: &AccountId,
    ) -> Result<Vec<Balance>, Error> {
        let call = account_call("AccountInformation_getUserAccountBalance", id, "/balances").user(user);
        let Listing(balances) = self.call(call).await?;
        Ok(balances)
    }

    /// An account's balances in the newer form. Beta at SnapTrade, and only for those who asked for it.
    ///
    /// # Errors
    /// `Forbidden` when it is not switched on, and every other [`Error`].
    pub async fn account_balance_snapshot(
        &self,
        user: &UserCredentials,
        id: &AccountId,
    ) -> Result<BalanceSnapshot, Error> {
        self.call(account_call("AccountInformation_getAccountBalancesV2", id, "/balances/v2").user(user))
            .await
    }

    /// All positions of an account, of every kind.
    ///
    /// # Errors
    /// `Outage` when the account is being read and nothing is known of it yet, and every other [`Error`].
    pub async fn account_positions(
        &self,
        user: &UserCredentials,
        id: &AccountId,
    ) -> Result<Positions, Error> {
        self.call(account_call("AccountInformation_getAllAccountPositions", id, "/positions/all").user(user))
            .await
    }

    /// An account's transactions, page by page, as they were at most a day ago.
    #[must_use]
    pub fn account_activities<'a>(
        &'a self,
        user: &'a UserCredentials,
        account: &'a AccountId,
        filter: &'a ActivityFilter,
    ) -> Activities<'a> {
        Activities {
            client: self,
            user,
            account,
            filter,
            offset: 0,
            ended: false,
        }
    }

    /// Up to `limit` of an account's transactions (at most [`ACTIVITIES_PER_PAGE`]), newest first, without the
    /// `offset` newest.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn activity_page(
        &self,
        user: &UserCredentials,
        account: &AccountId,
        filter: &ActivityFilter,
        offset: u64,
        limit: u32,
    ) -> Result<ActivityPage, Error> {
        let day = |date: Option<Date>| date.map(|date| date.to_string());
        let call = account_call("AccountInformation_getAccountActivities", account, "/activities")
            .user(user)
            .optional("startDate", day(filter.start_date).as_deref())
            .optional("endDate", day(filter.end_date).as_deref())
            .param("offset", &offset.to_string())
            .param("limit", &limit.to_string())
            .optional("type", joined(&filter.types, ActivityType::as_str).as_deref());
        self.call(call).await
    }

    /// What an account earned, in per cent, for the given spans of time or for all.
    ///
    /// # Errors
    /// `Forbidden` when the plan does not offer it; `Gone` when the brokerage does not; and every other [`Error`].
    pub async fn account_return_rates(
        &self,
        user: &UserCredentials,
        id: &AccountId,
        timeframes: &[Timeframe],
    ) -> Result<Vec<RateOfReturn>, Error> {
        let call = account_call("AccountInformation_getUserAccountReturnRates", id, "/returnRates")
            .user(user)
            .optional("timeframes", joined(timeframes, Timeframe::as_str).as_deref());
        let rates: RateOfReturns = self.call(call).await?;
        Ok(rates.data)
    }

    /// What an account was worth over the last year, as SnapTrade estimates it. Experimental at SnapTrade.
    ///
    /// # Errors
    /// `Forbidden` when it is not switched on, and every other [`Error`].
    pub async fn account_balance_history(
        &self,
        user: &UserCredentials,
        id: &AccountId,
    ) -> Result<BalanceHistory, Error> {
        self.call(
            account_call(
                "AccountInformation_getAccountBalanceHistory",
                id,
                "/balanceHistory",
            )
            .user(user),
        )
        .await
    }
}

/// A reading call on what stands under an account.
pub(super) fn account_call<'a>(operation: &'static str, id: &AccountId, rest: &str) -> Call<'a> {
    Call::get(operation)
        .path("/accounts/")
        .segment(id.as_str())
        .path(rest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_server::{Server, ada, ok, verified};
    use super::*;

    fn decimal(text: &str) -> Option<Decimal> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_account_is_read_however_odd_its_fields_are() {
        let account: Account = serde_json::from_value(json!({
            "id": "acc-1", "brokerage_authorization": "conn-1", "name": null, "number": 4242,
            "created_date": "2026-02-03 04:05:06", "status": "hibernating", "account_category": "LOC",
            "sync_status": {"transactions": {"initial_sync_completed": true, "last_successful_sync": "2026-02-02"},
                "holdings": null},
            "balance": {"total": {"amount": "12.50", "currency": "CAD"}}, "meta": {"x": []}, "brand_new": 1,
        }))
        .unwrap();
        assert_eq!(account.number.as_deref(), Some("4242"));
        assert_eq!(account.created_date.unwrap().to_string(), "2026-02-03T04:05:06Z");
        assert_eq!(
            account.status,
            Some(AccountStatus::Other("hibernating".to_owned()))
        );
        assert_eq!(account.account_category, Some(AccountCategory::LineOfCredit));
        let sync = account.sync_status.unwrap();
        assert_eq!(
            sync.transactions.unwrap().last_successful_sync,
            Some(Date::constant(2026, 2, 2))
        );
        assert_eq!(sync.holdings, None);
        assert_eq!(account.balance.unwrap().total.unwrap().amount, decimal("12.50"));
        assert!(!account.is_paper);
        assert!(serde_json::from_str::<Account>(r#"{"id":"a"}"#).is_err());
    }

    #[test]
    fn numbers_keep_every_digit_they_were_sent_with() {
        let balances = r#"[{"currency":{"code":"CAD"},"cash":1234567890.123456789012,"buying_power":"0.10"},{"cash":null}]"#;
        let balances: Vec<Balance> = serde_json::from_str(balances).unwrap();
        assert_eq!(balances[0].cash, decimal("1234567890.123456789012"));
        assert_eq!(balances[0].buying_power.unwrap().to_string(), "0.10");
        assert_eq!(balances[1], Balance::default());
    }

    #[test]
    fn positions_of_all_kinds_are_read_and_valued() {
        let positions = r#"{"results":[
            {"instrument":{"kind":"stock","id":"i","symbol":"MAPLE.TO","raw_symbol":"MAPLE"},
             "units":"10.5","price":"20.10","cost_basis":"18","currency":"CAD"},
            {"instrument":{"kind":"option","symbol":"XYZ   270115P00012500","option_type":"PUT","strike_price":12.5,
              "expiration_date":"2027-01-15","multiplier":"100","underlying":{"kind":"etf","symbol":"XYZ"}},
             "units":"-2","price":1.25,"cost_basis":"1.10"},
            {"instrument":{"kind":"future","symbol":"ABZ6","root_symbol":"AB","multiplier":"50"},
             "units":1,"price":"3"},
            {"instrument":{"kind":"meme","symbol":"HA","weight":1.5},"units":null}
        ],"data_freshness":{"as_of":"2026-02-03T04:05:06Z"}}"#;
        let positions: Positions = serde_json::from_str(positions).unwrap();
        let [stock, option, future, unknown] = &positions.results[..] else {
            panic!()
        };
        assert_eq!(stock.instrument.symbol(), Some("MAPLE.TO"));
        assert_eq!(
            (stock.market_value(), stock.total_cost()),
            (decimal("211.05"), decimal("189"))
        );
        let Instrument::Option(contract) = &option.instrument else {
            panic!()
        };
        assert_eq!(contract.option_type, Some(OptionType::Put));
        assert_eq!(contract.underlying.as_ref().map(Instrument::kind), Some("etf"));
        assert_eq!(
            (option.market_value(), option.total_cost()),
            (decimal("-250"), decimal("-220"))
        );
        assert_eq!(
            (future.market_value(), future.total_cost()),
            (decimal("150"), None)
        );
        assert_eq!(
            (unknown.instrument.kind(), unknown.instrument.symbol()),
            ("meme", Some("HA"))
        );
        assert_eq!(unknown.market_value(), None);
    }

    #[tokio::test]
    async fn transactions_are_listed_page_by_page_to_the_last() {
        let page = |ids: &[&str], offset: usize| {
            let data: Vec<_> = ids
                .iter()
                .map(|id| json!({"id": id, "type": "BUY", "amount": -1.5}))
                .collect();
            ok(&json!({"data": data, "pagination": {"offset": offset, "limit": 2, "total": 3}}).to_string())
        };
        let server = Server::start(vec![page(&["a", "b"], 0), page(&["c"], 2)]).await;
        let (client, user, account) = (server.client(), ada(), AccountId::new("acc 1"));
        let filter = ActivityFilter {
            start_date: Some(Date::constant(2026, 1, 1)),
            end_date: None,
            types: vec![ActivityType::Buy, ActivityType::Other("NEW ONE".to_owned())],
        };
        let all = client
            .account_activities(&user, &account, &filter)
            .collect()
            .await
            .unwrap();
        let ids: Vec<_> = all.iter().filter_map(|activity| activity.id.as_deref()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        let arrived = server.arrived();
        assert_eq!(arrived.len(), 2);
        assert!(arrived.iter().all(verified));
        assert_eq!(arrived[0].path, "/accounts/acc%201/activities");
        assert!(
            arrived[1]
                .query
                .ends_with("&startDate=2026-01-01&offset=2&limit=1000&type=BUY%2CNEW%20ONE")
        );
    }

    #[tokio::test]
    async fn pages_without_a_total_end_with_the_first_that_is_not_full() {
        let server = Server::start(vec![ok(r#"{"data":[{"id":"a"}]}"#)]).await;
        let (client, user, account) = (server.client(), ada(), AccountId::new("a"));
        let filter = ActivityFilter::default();
        let mut pages = client.account_activities(&user, &account, &filter);
        assert_eq!(pages.next_page().await.unwrap().map(|page| page.len()), Some(1));
        assert_eq!(pages.next_page().await.unwrap(), None);
        assert_eq!(server.arrived().len(), 1);
    }
}
