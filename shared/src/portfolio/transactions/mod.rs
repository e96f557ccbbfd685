//! Transactions: read from SnapTrade page by page, stored each for itself, and shown newest first.
//!
//! SnapTrade is asked for an account's transactions when an event says that there are new ones, when they were never
//! read and somebody looks, and otherwise once a day at most. Reading all of them takes a call for every thousand;
//! reading again takes one, as long as what is stored and what SnapTrade counts are the same.

mod listing;
mod reading;
mod record;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use listing::{Filter, Listing, Position, TransactionView};
pub use reading::{Progress, TransactionsReader};
pub use record::{READ_AGAIN, STALE_AFTER, TransactionsRecord};

use crate::ids::{Stem, TenantId};
use crate::snaptrade::{AccountId, Activity};
use crate::store::partition;

/// A transaction as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTransaction {
    /// The account that it is of.
    pub account_id: AccountId,
    /// SnapTrade's id of it, or a digest of what it says where it has none.
    pub transaction_id: String,
    /// What kind of transaction it is, in SnapTrade's word.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// When it was agreed.
    pub trade_date: Option<Timestamp>,
    /// When it was settled.
    pub settlement_date: Option<Timestamp>,
    /// The symbol of what was traded.
    pub symbol: Option<String>,
    /// How many; negative where they left the account.
    pub units: Option<Decimal>,
    /// The price of one.
    pub price: Option<Decimal>,
    /// The money that moved; negative where it left the account.
    pub amount: Option<Decimal>,
    /// The fee.
    pub fee: Option<Decimal>,
    /// The currency of price, amount and fee.
    pub currency: Option<String>,
    /// The brokerage's own words.
    pub description: Option<String>,
}

impl StoredTransaction {
    /// What SnapTrade says of a transaction in `account`.
    #[must_use]
    pub fn new(account: &AccountId, activity: &Activity) -> Self {
        let option = activity
            .option_symbol
            .as_ref()
            .and_then(|option| option.ticker.clone());
        let security = |symbol: &Option<crate::snaptrade::Symbol>| {
            symbol
                .as_ref()
                .and_then(|symbol| symbol.symbol.clone().or_else(|| symbol.raw_symbol.clone()))
        };
        let mut stored = Self {
            account_id: account.clone(),
            transaction_id: String::new(),
            kind: activity
                .activity_type
                .as_ref()
                .map(|kind| kind.as_str().to_owned()),
            trade_date: activity.trade_date,
            settlement_date: activity.settlement_date,
            symbol: option
                .or_else(|| security(&activity.symbol))
                .or_else(|| security(&activity.currency_universal_symbol)),
            units: activity.units,
            price: activity.price,
            amount: activity.amount,
            fee: activity.fee,
            currency: activity
                .currency
                .as_ref()
                .and_then(|currency| currency.code.clone()),
            description: activity.description.clone(),
        };
        stored.transaction_id = match &activity.id {
            Some(id) if !id.is_empty() => id.clone(),
            _ => stored.digest(activity.external_reference_id.as_deref()),
        };
        stored
    }

    /// When it was, for the order of transactions, in milliseconds since 1970.
    #[must_use]
    pub fn at_ms(&self) -> i64 {
        self.trade_date
            .or(self.settlement_date)
            .map_or(0, |at| at.as_millisecond().max(0))
    }

    /// The sort key: by time, and by account and id where the time is the same.
    #[must_use]
    pub fn sort_key(&self) -> String {
        format!("{:015}#{}#{}", self.at_ms(), self.account_id, self.transaction_id)
    }

    fn digest(&self, reference: Option<&str>) -> String {
        let says = serde_json::to_string(&(self, reference)).unwrap_or_default();
        let digest = Sha256::digest(says.as_bytes());
        let text = data_encoding::HEXLOWER.encode(&digest);
        format!("sha256-{text}")
    }
}

/// The partition of a user's transactions.
fn transactions_partition(tenant: &TenantId, stem: &Stem) -> String {
    partition(tenant, "TRANSACTIONS", stem.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_stored_as_snaptrade_tells_it() {
        let activity: Activity = serde_json::from_str(
            r#"{"id": "t1", "type": "BUY", "units": 5.5, "price": 391.2, "amount": -2151.6, "fee": 0,
                "symbol": {"id": "u", "symbol": "MSFT"}, "currency": {"code": "USD"},
                "trade_date": "2026-10-12T00:00:00Z", "settlement_date": "2026-10-13", "description": "Bought"}"#,
        )
        .unwrap();
        let account = AccountId::new("a");
        let stored = StoredTransaction::new(&account, &activity);
        assert_eq!(stored.transaction_id, "t1");
        assert_eq!(
            (stored.symbol.as_deref(), stored.kind.as_deref()),
            (Some("MSFT"), Some("BUY"))
        );
        assert_eq!(stored.amount, Some("-2151.6".parse().unwrap()));
        assert!(stored.settlement_date.is_some());
        assert_eq!(stored.sort_key(), format!("{:015}#a#t1", 1_791_763_200_000_i64));
    }

    #[test]
    fn without_an_id_a_transaction_is_known_by_what_it_says() {
        let read = |amount: &str| {
            let text = format!(r#"{{"type": "FEE", "amount": {amount}}}"#);
            StoredTransaction::new(&AccountId::new("a"), &serde_json::from_str(&text).unwrap())
        };
        assert_eq!(read("1").transaction_id, read("1").transaction_id);
        assert_ne!(read("1").transaction_id, read("2").transaction_id);
        assert_eq!(read("1").at_ms(), 0);
    }
}
