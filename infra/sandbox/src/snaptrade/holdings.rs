//! Accounts and what they hold, in the shapes of SnapTrade's own endpoints.

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::catalogue::{self, Brokerage, Holds};
use super::ids;
use super::world::{Connection, ConnectionType};

/// An account under a connection. Its lists hold what the endpoints answer, element by element.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) id: String,
    pub(super) connection_id: String,
    pub(super) name: String,
    number: String,
    institution_account_id: String,
    institution_name: String,
    institution_id: String,
    /// The institution's word for the kind of account.
    raw_type: String,
    pub(super) currency: String,
    is_paper: bool,
    created_at: Timestamp,
    /// When the first sync will be complete, while it is not.
    pub(super) syncs_at: Option<Timestamp>,
    pub(super) holdings_synced_at: Option<Timestamp>,
    pub(super) transactions_synced_at: Option<Timestamp>,
    pub(super) balances: Vec<Value>,
    pub(super) positions: Vec<Value>,
    pub(super) orders: Vec<Value>,
    pub(super) activities: Vec<Value>,
    /// `{amount, currency}` where it was set; otherwise the total follows from balances and positions.
    pub(super) total: Option<Value>,
}

/// The shares that an account holds at first: symbol, units, and what a unit cost.
type Lot = (&'static str, &'static str, &'static str);

impl Account {
    /// The accounts that a brokerage login brings along, with something in them. For the same customer and
    /// brokerage they always have the same numbers. Their data is there from `syncs_at` on.
    pub(super) fn opened(
        connection: &Connection,
        brokerage: &Brokerage,
        now: Timestamp,
        syncs_at: Timestamp,
    ) -> Vec<Self> {
        // What follows the tilde tells one registration from the next; the customer of the brokerage is the
        // same.
        let customer = connection.user_id.split('~').next().unwrap_or_default();
        let open = |name: &str, raw_type: &str, currency: &str, cash: &str, lots: &[Lot]| {
            let seed = format!("{customer}/{}/{name}", brokerage.slug);
            let mut account = Self {
                id: ids::uuid(),
                connection_id: connection.id.clone(),
                name: format!("{} {name}", brokerage.name),
                number: ids::digits(&seed, 10),
                institution_account_id: ids::digits(&format!("{seed}/id"), 8),
                institution_name: brokerage.name.to_owned(),
                institution_id: brokerage.id.to_owned(),
                raw_type: raw_type.to_owned(),
                currency: currency.to_owned(),
                is_paper: brokerage.is_paper,
                created_at: now,
                syncs_at: Some(syncs_at),
                holdings_synced_at: None,
                transactions_synced_at: None,
                balances: Vec::new(),
                positions: Vec::new(),
                orders: Vec::new(),
                activities: Vec::new(),
                total: None,
            };
            account.fill(cash, lots, now, raw_type == "Margin");
            account
        };
        match brokerage.holds {
            Holds::UsShares => vec![
                open(
                    "Individual",
                    "Margin",
                    "USD",
                    "2500.00",
                    &[
                        ("AAPL", "12", "182.50"),
                        ("MSFT", "5.5", "391.20"),
                        ("VTI", "20", "251.35"),
                    ],
                ),
                open(
                    "Roth IRA",
                    "Cash",
                    "USD",
                    "800.25",
                    &[("VTI", "31", "236.10"), ("KO", "40", "58.90")],
                ),
            ],
            Holds::CanadianShares => vec![
                open("TFSA", "Cash", "CAD", "1150.40", &[("VFV.TO", "44", "121.75")]),
                open("RRSP", "Cash", "CAD", "320.00", &[("SHOP.TO", "15", "96.40")]),
            ],
            Holds::Crypto => vec![open(
                "Wallet",
                "Spot",
                "USD",
                "400.00",
                &[("BTC", "0.125", "64200.00"), ("ETH", "1.75", "2890.00")],
            )],
        }
    }

    /// Notes that the first sync is complete.
    pub(super) fn synced(&mut self, now: Timestamp) {
        self.syncs_at = None;
        self.holdings_synced_at = Some(now);
        self.transactions_synced_at = Some(now);
    }

    /// Whether its data can be served.
    pub(super) fn is_synced(&self) -> bool {
        self.holdings_synced_at.is_some()
    }

    /// In the shape of `GET /accounts`.
    pub(super) fn shown(&self) -> Value {
        json!({
            "id": self.id,
            "brokerage_authorization": self.connection_id,
            "name": self.name,
            "number": self.number,
            "institution_account_id": self.institution_account_id,
            "institution_name": self.institution_name,
            "created_date": moment(self.created_at),
            "funding_date": null,
            "opening_date": null,
            "sync_status": {
                "transactions": self.transactions_status(),
                "holdings": {
                    "initial_sync_completed": self.is_synced(),
                    "last_successful_sync": self.holdings_synced_at.map(moment),
                    "holdings_unavailable": false,
                },
            },
            "balance": {"total": self.net_value()},
            "status": "open",
            "raw_type": self.raw_type,
            "account_category": "INVESTMENT",
            "meta": {"type": self.raw_type, "status": "ACTIVE", "institution_name": self.institution_name},
            "portfolio_group": null,
            "cash_restrictions": [],
            "is_paper": self.is_paper,
        })
    }

    /// In the shape of `GET /connections/{id}/accounts` and `GET /accounts/all`, where the number is masked.
    pub(super) fn shown_by_kind(&self) -> Value {
        let last_four = self
            .number
            .get(self.number.len().saturating_sub(4)..)
            .unwrap_or_default();
        json!({
            "kind": "investment",
            "id": self.id,
            "connection_id": self.connection_id,
            "display_name": self.name,
            "masked_account_number": format!("****{last_four}"),
            "institution_account_id": self.institution_account_id,
            "institution_id": self.institution_id,
            "opening_date": null,
            "funding_date": null,
            "sync_status": {
                "transactions": self.transactions_status(),
                "orders": self.holdings_synced_at.map(moment),
                "positions": self.holdings_synced_at.map(moment),
                "balances": self.holdings_synced_at.map(moment),
            },
            "raw_type": self.raw_type,
            "cash_or_margin": self.cash_or_margin(),
            "is_paper": self.is_paper,
            "net_value": self.net_value(),
        })
    }

    /// In the shape of `GET /accounts/{id}/balances/v2`.
    pub(super) fn balances_v2(&self, now: Timestamp) -> Value {
        let amounts = |member: &str| -> Vec<Value> {
            (self.balances.iter())
                .filter_map(|balance| {
                    let amount = decimal(balance.get(member)?)?;
                    let code = balance.pointer("/currency/code")?;
                    Some(json!({"amount": format!("{amount:.2}"), "currency": code}))
                })
                .collect()
        };
        let total = self.total_value().unwrap_or_default();
        json!({
            "account_id": self.id,
            "cash_or_margin": self.cash_or_margin(),
            "net_value": {"amount": format!("{total:.2}"), "currency": self.currency},
            "cash": amounts("cash"),
            "buying_power": null,
            "margin": null,
            "data_freshness": {"as_of": moment(self.holdings_synced_at.unwrap_or(now))},
        })
    }

    /// The account's worth as a JSON `{amount, currency}`, or null before the first sync.
    fn net_value(&self) -> Value {
        if !self.is_synced() {
            return Value::Null;
        }
        self.total.clone().unwrap_or_else(|| {
            let amount = self.total_value().and_then(|total| total.round_dp(2).to_f64());
            json!({"amount": amount, "currency": self.currency})
        })
    }

    /// The sum of cash and positions in the account's currency; what is held in another is left out.
    pub(super) fn total_value(&self) -> Option<Decimal> {
        if let Some(total) = &self.total {
            return total.get("amount").and_then(decimal);
        }
        let cash = (self.balances.iter())
            .filter(|balance| {
                balance.pointer("/currency/code").and_then(Value::as_str) == Some(&self.currency)
            })
            .filter_map(|balance| decimal(balance.get("cash")?));
        let shares = (self.positions.iter())
            .filter(|position| position.get("currency").and_then(Value::as_str) == Some(&self.currency))
            .filter_map(|position| {
                decimal(position.get("units")?)?.checked_mul(decimal(position.get("price")?)?)
            });
        cash.chain(shares).try_fold(Decimal::ZERO, Decimal::checked_add)
    }

    fn cash_or_margin(&self) -> &'static str {
        match self.raw_type.as_str() {
            "Margin" => "margin",
            "Cash" => "cash",
            _ => "unknown",
        }
    }

    fn transactions_status(&self) -> Value {
        let first = (self.activities.iter())
            .filter_map(|activity| activity.get("trade_date")?.as_str()?.get(..10))
            .min();
        json!({
            "initial_sync_completed": self.transactions_synced_at.is_some(),
            "last_successful_sync": self.transactions_synced_at.map(day),
            "first_transaction_date": first,
        })
    }

    fn fill(&mut self, cash: &str, lots: &[Lot], now: Timestamp, margin: bool) {
        let cash = cash.parse::<Decimal>().unwrap_or_default();
        let power = if margin {
            cash.saturating_mul(Decimal::TWO)
        } else {
            cash
        };
        self.balances = vec![json!({
            "currency": catalogue::currency(&self.currency),
            "cash": cash.to_f64(),
            "buying_power": power.to_f64(),
        })];
        let mut spent = Decimal::ZERO;
        for (index, (symbol, units, cost)) in lots.iter().enumerate() {
            let Some(instrument) = catalogue::instrument(symbol) else {
                continue;
            };
            self.positions.push(json!({
                "instrument": instrument.held(),
                "units": units,
                "price": instrument.price,
                "cost_basis": cost,
                "currency": instrument.currency,
                "cash_equivalent": false,
            }));
            let (units, cost) = (
                units.parse::<Decimal>().unwrap_or_default(),
                cost.parse::<Decimal>().unwrap_or_default(),
            );
            let amount = units.saturating_mul(cost);
            spent = spent.saturating_add(amount);
            let bought_at = days_before(
                now,
                40_i64.saturating_add(i64::try_from(index).unwrap_or_default()),
            );
            self.activities.push(json!({
                "id": ids::uuid(),
                "symbol": instrument.universal_symbol(),
                "currency_universal_symbol": null,
                "option_symbol": null,
                "price": cost.to_f64(),
                "units": units.to_f64(),
                "amount": (-amount).to_f64(),
                "currency": catalogue::currency(instrument.currency),
                "type": "BUY",
                "option_type": "",
                "description": format!("Bought {}", instrument.description),
                "trade_date": moment(bought_at),
                "settlement_date": moment(days_before(bought_at, -1)),
                "fee": 0,
                "fx_rate": null,
                "institution": self.institution_name,
                "external_reference_id": null,
            }));
        }
        let paid_in_at = days_before(now, 60);
        self.activities.push(json!({
            "id": ids::uuid(),
            "symbol": null,
            "currency_universal_symbol": null,
            "option_symbol": null,
            "price": 0,
            "units": 0,
            "amount": spent.saturating_add(cash).to_f64(),
            "currency": catalogue::currency(&self.currency),
            "type": "CONTRIBUTION",
            "option_type": "",
            "description": "Paid in",
            "trade_date": moment(paid_in_at),
            "settlement_date": moment(paid_in_at),
            "fee": 0,
            "fx_rate": null,
            "institution": self.institution_name,
            "external_reference_id": null,
        }));
    }
}

impl Connection {
    /// In the shape of `GET /authorizations`.
    pub(super) fn shown(&self) -> Value {
        json!({
            "id": self.id,
            "created_date": moment(self.created_at),
            "brokerage": catalogue::brokerage(&self.broker).map(Brokerage::shown),
            "name": self.name,
            "type": self.kind.name(),
            "disabled": self.disabled_at.is_some(),
            "disabled_date": self.disabled_at.map(moment),
            "data_freshness_mode": {"institution": "realtime", "snaptrade": "realtime"},
            "is_eligible_for_payout": self.kind == ConnectionType::Trade,
            "meta": {},
            "updated_date": moment(self.updated_at),
        })
    }
}

/// A number that SnapTrade writes as a JSON number or as a text.
pub(super) fn decimal(value: &Value) -> Option<Decimal> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => {
            let text = number.to_string();
            text.parse().ok().or_else(|| Decimal::from_scientific(&text).ok())
        }
        _ => None,
    }
}

/// A time as SnapTrade's answers write it.
pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The day of a time, in UTC.
pub(super) fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// `days` days of 24 hours before `at`; after it where negative.
pub(super) fn days_before(at: Timestamp, days: i64) -> Timestamp {
    at.checked_sub(SignedDuration::from_hours(days.saturating_mul(24)))
        .unwrap_or(at)
}
