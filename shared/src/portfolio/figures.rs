//! What users see of what their accounts hold: positions, cash, and the sums of both.
//!
//! Nothing is rounded, and what is in different currencies is never added together.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Serialize;

use super::exact::Exact;
use super::holdings::{StoredBalance, StoredPosition};
use super::provider::PortfolioAccountId;

/// For how many shares a contract stands where it does not say so. Source: the Options Clearing Corporation's standard
/// contract.
const SHARES_PER_OPTION: Decimal = Decimal::ONE_HUNDRED;

/// A position as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PositionView {
    /// The account that it is in.
    pub account_id: PortfolioAccountId,
    /// Its symbol.
    pub symbol: Option<String>,
    /// Its name.
    pub description: Option<String>,
    /// What kind of thing it is.
    pub kind: String,
    /// SnapTrade's id of it, the same at all brokerages.
    pub universal_symbol_id: Option<String>,
    /// How many; negative where they are sold short.
    pub units: Option<Decimal>,
    /// The price of one; of options the price per share.
    pub price: Option<Decimal>,
    /// The currency of price, value, cost, profit and loss.
    pub currency: Option<String>,
    /// What all of it is worth; `None` where price or units are not known.
    pub market_value: Option<Exact>,
    /// What all of it cost; `None` where that is not known.
    pub cost_basis: Option<Exact>,
    /// What would be gained if all of it were sold; negative where it would be lost.
    pub unrealized_pl: Option<Exact>,
}

/// Cash in one currency as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BalanceView {
    /// The account that it is in.
    pub account_id: PortfolioAccountId,
    /// The currency.
    pub currency: Option<String>,
    /// The cash; negative where money is borrowed.
    pub cash: Option<Decimal>,
    /// For how much one can buy.
    pub buying_power: Option<Decimal>,
}

/// What all positions in one currency are worth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MarketTotal {
    /// The currency; `None` for the positions of which it is not known.
    pub currency: Option<String>,
    /// The sum, without the positions whose value is not known.
    pub market_value: Exact,
}

/// The cash of all accounts in one currency.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CashTotal {
    /// The currency; `None` for cash of which it is not known.
    pub currency: Option<String>,
    /// The sum.
    pub cash: Exact,
}

/// A position in the account `account_id`.
#[must_use]
pub fn position(account_id: &PortfolioAccountId, stored: &StoredPosition) -> PositionView {
    let multiplier = stored.multiplier.unwrap_or(match stored.kind.as_str() {
        "option" => SHARES_PER_OPTION,
        _ => Decimal::ONE,
    });
    let all_at = |price: Option<Decimal>| Some(Exact::from(stored.units?).times(price?).times(multiplier));
    let market_value = all_at(stored.price);
    let cost_basis = all_at(stored.average_cost).or_else(|| stored.total_cost.map(Exact::from));
    let unrealized_pl = match (&market_value, &cost_basis) {
        (Some(value), Some(cost)) => Some(value.minus(cost)),
        _ => None,
    };
    PositionView {
        account_id: account_id.clone(),
        symbol: stored.symbol.clone(),
        description: stored.description.clone(),
        kind: stored.kind.clone(),
        universal_symbol_id: stored.universal_symbol_id.clone(),
        units: stored.units,
        price: stored.price,
        currency: stored.currency.clone(),
        market_value,
        cost_basis,
        unrealized_pl,
    }
}

/// Cash in the account `account_id`.
#[must_use]
pub fn balance(account_id: &PortfolioAccountId, stored: &StoredBalance) -> BalanceView {
    BalanceView {
        account_id: account_id.clone(),
        currency: stored.currency.clone(),
        cash: stored.cash,
        buying_power: stored.buying_power,
    }
}

/// What the positions in each currency are worth together, by the currencies' names.
#[must_use]
pub fn market_totals(positions: &[PositionView]) -> Vec<MarketTotal> {
    let figures = positions
        .iter()
        .filter_map(|position| Some((&position.currency, position.market_value.clone()?)));
    sums(figures)
        .into_iter()
        .map(|(currency, market_value)| MarketTotal {
            currency,
            market_value,
        })
        .collect()
}

/// The cash in each currency together, by the currencies' names.
#[must_use]
pub fn cash_totals(balances: &[BalanceView]) -> Vec<CashTotal> {
    let figures = balances
        .iter()
        .filter_map(|balance| Some((&balance.currency, Exact::from(balance.cash?))));
    sums(figures)
        .into_iter()
        .map(|(currency, cash)| CashTotal { currency, cash })
        .collect()
}

fn sums<'a>(figures: impl Iterator<Item = (&'a Option<String>, Exact)>) -> BTreeMap<Option<String>, Exact> {
    let mut sums: BTreeMap<Option<String>, Exact> = BTreeMap::new();
    for (currency, figure) in figures {
        let sum = sums.entry(currency.clone()).or_insert_with(Exact::zero);
        *sum = sum.plus(&figure);
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::snaptrade::AccountId;

    fn account() -> PortfolioAccountId {
        PortfolioAccountId::snaptrade(AccountId::new("a"))
    }

    fn stored(kind: &str, figures: [Option<&str>; 4], currency: Option<&str>) -> StoredPosition {
        let [units, price, average_cost, multiplier] =
            figures.map(|figure| figure.map(|figure| figure.parse().unwrap()));
        StoredPosition {
            symbol: Some("S".to_owned()),
            description: None,
            kind: kind.to_owned(),
            universal_symbol_id: None,
            units,
            price,
            multiplier,
            currency: currency.map(str::to_owned),
            average_cost,
            total_cost: None,
            cash_equivalent: false,
        }
    }

    fn shown(kind: &str, figures: [Option<&str>; 4]) -> [Value; 3] {
        let view = position(&account(), &stored(kind, figures, Some("USD")));
        let view = serde_json::to_value(view).unwrap();
        ["market_value", "cost_basis", "unrealized_pl"].map(|name| view[name].clone())
    }

    #[test]
    fn value_cost_and_profit_are_those_of_the_whole_position() {
        assert_eq!(
            shown("stock", [Some("12"), Some("182.50"), Some("150.25"), None]),
            [json!("2190.00"), json!("1803.00"), json!("387.00")]
        );
        // Sold short: it is owed, and costs more to give back than was got for it.
        assert_eq!(
            shown("stock", [Some("-10"), Some("12"), Some("10"), None]),
            [json!("-120"), json!("-100"), json!("-20")]
        );
        assert_eq!(
            shown("option", [Some("2"), Some("1.15"), Some("0.90"), None]),
            [json!("230.00"), json!("180.00"), json!("50.00")]
        );
        assert_eq!(
            shown("option", [Some("2"), Some("1.15"), Some("0.90"), Some("10")])[0],
            json!("23.00")
        );
        assert_eq!(
            shown("future", [Some("1"), Some("5000.25"), None, Some("50")]),
            [json!("250012.50"), Value::Null, Value::Null]
        );
        assert_eq!(shown("crypto", [None, Some("1"), None, None])[0], Value::Null);
    }

    #[test]
    fn what_is_in_different_currencies_or_in_none_is_never_added() {
        let positions: Vec<_> = [Some("USD"), Some("CAD"), None, Some("USD")]
            .into_iter()
            .map(|currency| {
                position(
                    &account(),
                    &stored("etf", [Some("1"), Some("0.1"), None, None], currency),
                )
            })
            .collect();
        assert_eq!(
            serde_json::to_value(market_totals(&positions)).unwrap(),
            json!([
                {"currency": null, "market_value": "0.1"},
                {"currency": "CAD", "market_value": "0.1"},
                {"currency": "USD", "market_value": "0.2"},
            ])
        );
    }

    /// A figure with its digits as a whole number and the number of decimals.
    fn figure() -> impl Strategy<Value = (i64, u32)> {
        (-1_000_000_000_i64..1_000_000_000, 0_u32..9)
    }

    /// The figure as so many billionths of a billionth, reckoned in whole numbers.
    fn scaled(text: &str) -> i128 {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let number: i128 = format!("{whole}{part:0<18}").parse().unwrap();
        if negative { -number } else { number }
    }

    proptest! {
        #[test]
        fn sums_are_those_of_an_independent_reckoning(
            held in prop::collection::vec((figure(), figure(), 0_usize..3), 0..40),
        ) {
            let currencies = ["CAD", "EUR", "USD"];
            let mut expected: BTreeMap<&str, i128> = BTreeMap::new();
            let mut positions = Vec::new();
            let mut balances = Vec::new();
            for ((units, units_scale), (price, price_scale), currency) in held {
                let currency = currencies[currency];
                let decimal = |number, scale| Decimal::new(number, scale);
                let stored = StoredPosition {
                    units: Some(decimal(units, units_scale)),
                    price: Some(decimal(price, price_scale)),
                    ..stored("stock", [None; 4], Some(currency))
                };
                positions.push(position(&account(), &stored));
                balances.push(balance(&account(), &StoredBalance {
                    currency: Some(currency.to_owned()),
                    cash: Some(decimal(units, units_scale)),
                    buying_power: None,
                }));
                let missing = 10_i128.pow(18 - units_scale - price_scale);
                *expected.entry(currency).or_default() += i128::from(units) * i128::from(price) * missing;
            }
            let totals = serde_json::to_value(market_totals(&positions)).unwrap();
            let seen: BTreeMap<&str, i128> = totals.as_array().unwrap().iter()
                .map(|total| {
                    (total["currency"].as_str().unwrap(), scaled(total["market_value"].as_str().unwrap()))
                })
                .collect();
            prop_assert_eq!(seen, expected);

            let totals = serde_json::to_value(cash_totals(&balances)).unwrap();
            for total in totals.as_array().unwrap() {
                let cash: i128 = balances.iter()
                    .filter(|balance| balance.currency.as_deref() == total["currency"].as_str())
                    .map(|balance| scaled(&balance.cash.unwrap().to_string()))
                    .sum();
                prop_assert_eq!(scaled(total["cash"].as_str().unwrap()), cash);
            }
        }
    }
}
