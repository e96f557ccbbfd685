//! What an account holds: cash and positions, as they are stored.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::snaptrade::{Balance, Instrument, Position, Positions};

/// What an account holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Cash, one entry for each currency.
    pub balances: Vec<StoredBalance>,
    /// Everything else.
    pub positions: Vec<StoredPosition>,
    /// As of when the brokerage's data are, where SnapTrade says so.
    pub as_of: Option<Timestamp>,
}

/// Cash in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBalance {
    /// The currency, by ISO 4217.
    pub currency: Option<String>,
    /// The cash; negative where money is borrowed.
    pub cash: Option<Decimal>,
    /// For how much one can buy.
    pub buying_power: Option<Decimal>,
}

/// How much of something an account holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPosition {
    /// Its symbol.
    pub symbol: Option<String>,
    /// Its name.
    pub description: Option<String>,
    /// What kind of thing it is, in SnapTrade's word.
    pub kind: String,
    /// SnapTrade's id of it, the same at all brokerages.
    pub universal_symbol_id: Option<String>,
    /// How many; negative where they are sold short.
    pub units: Option<Decimal>,
    /// The price of one; of options the price per share.
    pub price: Option<Decimal>,
    /// For how many shares one contract stands, where it is an option or a future.
    pub multiplier: Option<Decimal>,
    /// The currency of price and cost.
    pub currency: Option<String>,
    /// What one cost on average; of options per share. The whole position's cost follows from it.
    pub average_cost: Option<Decimal>,
    /// What all of them cost, where only that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_cost: Option<Decimal>,
    /// Whether the brokerage counts it as cash, too.
    pub cash_equivalent: bool,
}

impl Holdings {
    /// What SnapTrade's two answers about an account say together.
    #[must_use]
    pub fn new(balances: &[Balance], positions: &Positions) -> Self {
        Self {
            balances: balances.iter().map(StoredBalance::from).collect(),
            positions: positions.results.iter().map(StoredPosition::from).collect(),
            as_of: positions
                .data_freshness
                .as_ref()
                .and_then(|freshness| freshness.as_of),
        }
    }
}

impl From<&Balance> for StoredBalance {
    fn from(balance: &Balance) -> Self {
        Self {
            currency: balance
                .currency
                .as_ref()
                .and_then(|currency| currency.code.clone()),
            cash: balance.cash,
            buying_power: balance.buying_power,
        }
    }
}

impl From<&Position> for StoredPosition {
    fn from(position: &Position) -> Self {
        let (description, id, multiplier, currency) = match &position.instrument {
            Instrument::Stock(it)
            | Instrument::Adr(it)
            | Instrument::Etf(it)
            | Instrument::MutualFund(it)
            | Instrument::ClosedEndFund(it)
            | Instrument::Crypto(it)
            | Instrument::Other(it) => (it.description.clone(), it.id.clone(), None, it.currency.clone()),
            Instrument::Future(it) => (None, it.id.clone(), it.multiplier, it.currency.clone()),
            Instrument::Option(it) => (it.description.clone(), it.id.clone(), it.multiplier, None),
            Instrument::Cfd(it) | Instrument::TokenizedAsset(it) => {
                (it.description.clone(), it.id.clone(), None, it.currency.clone())
            }
            Instrument::Unknown { value, .. } => {
                let text = |name| {
                    value
                        .get(name)
                        .and_then(serde_json::Value::as_str)
                        .map(str::to_owned)
                };
                (text("description"), text("id"), None, text("currency"))
            }
        };
        Self {
            symbol: position.instrument.symbol().map(str::to_owned),
            description,
            kind: position.instrument.kind().to_owned(),
            universal_symbol_id: id,
            units: position.units,
            price: position.price,
            multiplier,
            currency: position.currency.clone().or(currency),
            // SnapTrade's `cost_basis` is the average purchase price of one. Source: its OpenAPI file, `AccountPosition`.
            average_cost: position.cost_basis,
            total_cost: None,
            cash_equivalent: position.cash_equivalent,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_kept_exactly_as_snaptrade_gave_them() {
        let balances: Vec<Balance> =
            serde_json::from_value(json!([{"currency": {"code": "USD"}, "cash": 0.1, "buying_power": null}]))
                .unwrap();
        // An instrument is read from the text as it stands, so the whole is read from text, too.
        let positions: Positions = serde_json::from_str(
            r#"{"results": [{"instrument": {"kind": "stock", "id": "u1", "symbol": "VTI", "description": "Fund",
                "currency": "USD"}, "units": "0.30000000000000004", "price": "251.35", "cost_basis": "236.1"}],
                "data_freshness": {"as_of": "2026-11-21T09:00:00Z"}}"#,
        )
        .unwrap();
        let holdings = Holdings::new(&balances, &positions);
        assert_eq!(holdings.balances[0].cash, Some("0.1".parse().unwrap()));
        assert_eq!(holdings.balances[0].currency.as_deref(), Some("USD"));
        let position = &holdings.positions[0];
        assert_eq!(position.units, Some("0.30000000000000004".parse().unwrap()));
        assert_eq!(position.currency.as_deref(), Some("USD"));
        assert_eq!(position.universal_symbol_id.as_deref(), Some("u1"));
        assert!(holdings.as_of.is_some());
        let stored = serde_json::to_value(&holdings).unwrap();
        assert_eq!(stored["positions"][0]["units"], "0.30000000000000004");
    }
}
