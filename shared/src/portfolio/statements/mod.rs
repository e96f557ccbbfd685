//! Statements that users bring themselves: accounts that SnapTrade does not reach stand beside those that it does.
//!
//! A statement is the whole of one account at one time. Bringing the next one of the same account takes the place of the
//! one before. It belongs to the user and not to a registration at SnapTrade, so it stays when that ends, and a user
//! who was never registered may have some.

mod csv_file;

use std::time::Duration;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use csv_file::{FileFault, read_csv};

use super::accounts::{AccountView, Amount};
use super::exact::Exact;
use super::figures::{self, BalanceView, PositionView};
use super::holdings::{StoredBalance, StoredPosition};
use super::provider::{Health, Holder, PerformanceView, PortfolioAccountId, Provider};
use crate::connections::timing::between;
use crate::snaptrade::AccountId;

/// From which age on a statement is called stale: they come monthly.
pub const STALE_AFTER: Duration = Duration::from_secs(35 * 24 * 3600);

/// How many characters of an account's number are kept.
const NUMBER_SHOWN: usize = 4;

/// Most accounts that a user may have from statements.
pub const MAX_ACCOUNTS: usize = 50;

/// Which account a statement is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementOf {
    /// The institution's name.
    pub institution: String,
    /// A name for the account.
    pub name: Option<String>,
    /// Its number; only its end is kept.
    pub number: Option<String>,
    /// The kind of account.
    pub kind: Option<String>,
    /// As of when the statement is.
    pub as_of: Timestamp,
}

/// What a statement's file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The positions.
    pub positions: Vec<StoredPosition>,
    /// The cash, one entry for each currency.
    pub balances: Vec<StoredBalance>,
}

/// A statement as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The account's id, without the provider's name.
    pub account_id: AccountId,
    /// The institution's name.
    pub institution: String,
    /// A name for the account.
    pub name: Option<String>,
    /// The last characters of its number.
    pub number: Option<String>,
    /// The kind of account.
    pub kind: Option<String>,
    /// As of when it is.
    pub as_of: Timestamp,
    /// When it was brought.
    pub brought_at: Timestamp,
    /// The positions.
    pub positions: Vec<StoredPosition>,
    /// The cash.
    pub balances: Vec<StoredBalance>,
}

impl Statement {
    /// A statement that is brought now.
    #[must_use]
    pub fn new(of: StatementOf, contents: Contents, now: Timestamp) -> Self {
        let end = |number: &String| {
            let mut last: Vec<char> = number
                .chars()
                .rev()
                .filter(|c| c.is_alphanumeric())
                .take(NUMBER_SHOWN)
                .collect();
            last.reverse();
            (!last.is_empty()).then(|| last.into_iter().collect())
        };
        Self {
            account_id: account_id(&of),
            number: of.number.as_ref().and_then(end),
            institution: of.institution,
            name: of.name,
            kind: of.kind,
            as_of: of.as_of,
            brought_at: now,
            positions: contents.positions,
            balances: contents.balances,
        }
    }

    /// The account's id as clients see it.
    #[must_use]
    pub fn id(&self) -> PortfolioAccountId {
        PortfolioAccountId::new(Provider::Statement, self.account_id.clone())
    }

    /// What all of it is worth, where it is in one currency and every price is known.
    fn total_value(&self) -> Option<Amount> {
        let positions = self.positions();
        let currencies: Vec<Option<&str>> = positions
            .iter()
            .map(|position| position.currency.as_deref())
            .chain(self.balances.iter().map(|balance| balance.currency.as_deref()))
            .collect();
        let (first, rest) = currencies.split_first()?;
        if rest.iter().any(|currency| currency != first) {
            return None;
        }
        let mut sum = Exact::zero();
        for position in &positions {
            sum = sum.plus(position.market_value.as_ref()?);
        }
        for balance in &self.balances {
            sum = sum.plus(&balance.cash?.into());
        }
        Some(Amount {
            amount: sum.to_decimal()?,
            currency: first.map(str::to_owned),
        })
    }

    fn positions(&self) -> Vec<PositionView> {
        let id = self.id();
        self.positions
            .iter()
            .map(|stored| figures::position(&id, stored))
            .collect()
    }

    fn view(&self, now: Timestamp) -> AccountView {
        AccountView {
            account_id: self.id(),
            provider: Provider::Statement,
            institution: Some(self.institution.clone()),
            name: self.name.clone(),
            number: self.number.clone(),
            kind: self.kind.clone(),
            status: None,
            total_value: self.total_value(),
            connection_id: None,
            connection_state: None,
            tradable: false,
            as_of: Some(self.as_of),
            stale: between(self.as_of, now) >= STALE_AFTER,
        }
    }
}

/// An account's id: the same for each statement of the account, and told by nobody who does not know its number.
fn account_id(of: &StatementOf) -> AccountId {
    let plain = |text: &str| -> String {
        text.chars()
            .filter(|c| c.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect()
    };
    // Without a number the name is what tells accounts of one institution apart.
    let which = of.number.as_deref().or(of.name.as_deref()).unwrap_or_default();
    let digest = Sha256::digest(format!("{}\n{}", plain(&of.institution), plain(which)).as_bytes());
    let text = data_encoding::HEXLOWER.encode(&digest);
    AccountId::new(text.get(..16).unwrap_or(&text))
}

/// The accounts that a user brought statements of.
#[derive(Debug, Clone, Copy)]
pub struct StatementAccounts<'a> {
    statements: &'a [Statement],
    now: Timestamp,
}

impl<'a> StatementAccounts<'a> {
    /// These statements, looked at now.
    #[must_use]
    pub fn new(statements: &'a [Statement], now: Timestamp) -> Self {
        Self { statements, now }
    }
}

impl Holder for StatementAccounts<'_> {
    fn provider(&self) -> Provider {
        Provider::Statement
    }

    fn accounts(&self) -> Vec<AccountView> {
        self.statements
            .iter()
            .map(|statement| statement.view(self.now))
            .collect()
    }

    fn positions(&self) -> Vec<PositionView> {
        self.statements.iter().flat_map(Statement::positions).collect()
    }

    fn balances(&self) -> Vec<BalanceView> {
        self.statements
            .iter()
            .flat_map(|statement| {
                let id = statement.id();
                statement
                    .balances
                    .iter()
                    .map(move |stored| figures::balance(&id, stored))
            })
            .collect()
    }

    /// A statement does not say how an account did.
    fn performance(&self) -> Vec<PerformanceView> {
        Vec::new()
    }

    fn health(&self) -> Health {
        let accounts = self.accounts();
        Health {
            provider: self.provider(),
            accounts: accounts.len(),
            stale: accounts.iter().filter(|account| account.stale).count(),
        }
    }
}

/// Adds up cash that stands there in several rows.
fn add_cash(balances: &mut Vec<StoredBalance>, currency: Option<String>, cash: Decimal) {
    let same = balances.iter_mut().find(|balance| balance.currency == currency);
    match same {
        Some(balance) => balance.cash = balance.cash.and_then(|sum| sum.checked_add(cash)),
        None => balances.push(StoredBalance {
            currency,
            cash: Some(cash),
            buying_power: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(institution: &str, number: Option<&str>) -> StatementOf {
        StatementOf {
            institution: institution.to_owned(),
            name: Some("Pension".to_owned()),
            number: number.map(str::to_owned),
            kind: None,
            as_of: "2026-10-31T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn the_next_statement_of_an_account_has_the_same_id_and_of_its_number_only_the_end_is_kept() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let read = |of| Statement::new(of, Contents::default(), now);
        let first = read(of("Old Mutual", Some("12-3456 789")));
        assert_eq!(
            read(of("OLD MUTUAL", Some("123456789"))).account_id,
            first.account_id
        );
        assert_ne!(
            read(of("Old Mutual", Some("123456788"))).account_id,
            first.account_id
        );
        assert_ne!(read(of("Old Mutual", None)).account_id, first.account_id);
        assert_eq!(first.number.as_deref(), Some("6789"));
        assert!(first.id().to_string().starts_with("statement_"));
    }

    #[test]
    fn an_account_is_worth_the_sum_of_what_is_in_it_where_all_is_in_one_currency() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let worth = |file: &str| {
            let contents = read_csv(file, None).unwrap();
            let total = Statement::new(of("Bank", Some("1")), contents, now).total_value();
            total.map(|total| (total.amount.to_string(), total.currency.unwrap()))
        };
        let header = "symbol,quantity,price,currency\n";
        assert_eq!(
            worth(&format!("{header}VTI,2,10.50,USD\ncash,5,,USD\n")),
            Some(("26.00".to_owned(), "USD".to_owned()))
        );
        assert_eq!(worth(&format!("{header}VTI,2,10.50,USD\ncash,5,,EUR\n")), None);
        assert_eq!(worth(&format!("{header}VTI,2,,USD\n")), None);
        assert_eq!(worth(header), None);
    }

    #[test]
    fn a_statement_is_stale_when_the_next_one_should_have_come() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let statement = Statement::new(of("Bank", Some("1")), Contents::default(), now);
        assert!(!statement.view(now).stale);
        assert!(statement.view("2026-12-05T00:00:00Z".parse().unwrap()).stale);
    }
}
