//! Reading a statement from a file of comma-separated values, as institutions and spreadsheets write them.
//!
//! The first row names the columns, in any order and in the words that institutions use; further columns are passed
//! over. A row is a position, or cash where its symbol or its kind says so.

use csv::{ReaderBuilder, StringRecord, Trim};
use rust_decimal::Decimal;

use super::{Contents, add_cash};
use crate::portfolio::holdings::StoredPosition;

/// Most rows that a file may have.
const MAX_ROWS: usize = 2_000;

/// Words that stand for cash, in the column of symbols or of kinds.
const CASH: [&str; 4] = ["cash", "cash balance", "money", "currency"];

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct FileFault {
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong there, in words.
    pub fault: String,
}

/// A column that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Symbol,
    Description,
    Kind,
    Units,
    Price,
    AverageCost,
    TotalCost,
    Currency,
}

/// The words for the columns, as they stand without anything but letters.
const COLUMNS: [(&str, Column); 27] = [
    ("symbol", Column::Symbol),
    ("ticker", Column::Symbol),
    ("tickersymbol", Column::Symbol),
    ("isin", Column::Symbol),
    ("description", Column::Description),
    ("name", Column::Description),
    ("security", Column::Description),
    ("investmentname", Column::Description),
    ("kind", Column::Kind),
    ("type", Column::Kind),
    ("assettype", Column::Kind),
    ("securitytype", Column::Kind),
    ("units", Column::Units),
    ("quantity", Column::Units),
    ("shares", Column::Units),
    ("amount", Column::Units),
    ("price", Column::Price),
    ("shareprice", Column::Price),
    ("lastprice", Column::Price),
    ("unitprice", Column::Price),
    ("averagecost", Column::AverageCost),
    ("costpershare", Column::AverageCost),
    ("averageprice", Column::AverageCost),
    ("costbasis", Column::TotalCost),
    ("totalcost", Column::TotalCost),
    ("currency", Column::Currency),
    ("currencycode", Column::Currency),
];

/// Reads a statement. `currency` is that of rows that name none.
///
/// # Errors
/// Every [`FileFault`], so that all can be mended at once.
pub fn read_csv(text: &str, currency: Option<&str>) -> Result<Contents, Vec<FileFault>> {
    // Spreadsheets begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = ReaderBuilder::new()
        .trim(Trim::All)
        .flexible(true)
        .from_reader(text.as_bytes());
    let fault = |line: u64, fault: &str| FileFault {
        line,
        fault: fault.to_owned(),
    };
    let columns: Vec<Option<Column>> = match reader.headers() {
        Ok(headers) => headers.iter().map(column).collect(),
        Err(_) => return Err(vec![fault(1, "the first row has to name the columns")]),
    };
    let has = |wanted: Column| columns.contains(&Some(wanted));
    let mut faults = Vec::new();
    if !has(Column::Symbol) && !has(Column::Description) {
        faults.push(fault(1, "a column `symbol` or `description` is missing"));
    }
    if !has(Column::Units) {
        faults.push(fault(1, "a column `quantity` is missing"));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut contents = Contents::default();
    for (number, row) in reader.records().enumerate() {
        if number >= MAX_ROWS {
            faults.push(fault(0, "there are more than 2000 rows"));
            break;
        }
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                faults.push(fault(
                    line,
                    "the row is not in the form of comma-separated values",
                ));
                continue;
            }
        };
        let line = row.position().map_or(0, csv::Position::line);
        if row.iter().all(str::is_empty) {
            continue;
        }
        match Row::read(&row, &columns, currency) {
            Ok(Row::Cash(currency, cash)) => add_cash(&mut contents.balances, currency, cash),
            Ok(Row::Position(position)) => contents.positions.push(*position),
            Err(words) => faults.push(fault(line, &words)),
        }
    }
    if faults.is_empty() {
        Ok(contents)
    } else {
        Err(faults)
    }
}

fn column(heading: &str) -> Option<Column> {
    let plain: String = heading
        .chars()
        .filter(char::is_ascii_alphabetic)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    COLUMNS
        .iter()
        .find(|(word, _)| *word == plain)
        .map(|(_, column)| *column)
}

enum Row {
    Cash(Option<String>, Decimal),
    Position(Box<StoredPosition>),
}

impl Row {
    fn read(
        row: &StringRecord,
        columns: &[Option<Column>],
        usual_currency: Option<&str>,
    ) -> Result<Self, String> {
        let text = |wanted: Column| {
            let cells = columns.iter().zip(row.iter());
            cells
                .filter(|(column, cell)| **column == Some(wanted) && !cell.is_empty())
                .map(|(_, cell)| cell)
                .next()
        };
        let figure = |wanted: Column, name: &str| match text(wanted) {
            None => Ok(None),
            Some(cell) => decimal(cell)
                .map(Some)
                .ok_or_else(|| format!("{name} has to be a number such as 1234.50")),
        };
        let currency = text(Column::Currency)
            .or(usual_currency)
            .map(str::to_ascii_uppercase);
        if currency
            .as_ref()
            .is_some_and(|code| code.len() != 3 || !code.bytes().all(|b| b.is_ascii_uppercase()))
        {
            return Err("the currency has to be a code of three letters such as USD".to_owned());
        }
        let units = figure(Column::Units, "the quantity")?.ok_or("the quantity is missing")?;
        let symbol = text(Column::Symbol);
        let kind = text(Column::Kind).map(str::to_ascii_lowercase);
        let is_cash = |word: &str| CASH.contains(&word.to_ascii_lowercase().as_str());
        if symbol.is_some_and(is_cash) || kind.as_deref().is_some_and(is_cash) {
            return Ok(Self::Cash(currency, units));
        }
        let description = text(Column::Description);
        if symbol.is_none() && description.is_none() {
            return Err("there is neither a symbol nor a description".to_owned());
        }
        Ok(Self::Position(Box::new(StoredPosition {
            symbol: symbol.map(str::to_owned),
            description: description.map(str::to_owned),
            kind: kind.unwrap_or_else(|| "other".to_owned()),
            universal_symbol_id: None,
            units: Some(units),
            price: figure(Column::Price, "the price")?,
            multiplier: None,
            currency,
            average_cost: figure(Column::AverageCost, "the average cost")?,
            total_cost: figure(Column::TotalCost, "the cost basis")?,
            cash_equivalent: false,
        })))
    }
}

/// A number as institutions write it: with a currency's sign, commas between thousands, and parentheses or a minus for
/// what is owed.
fn decimal(cell: &str) -> Option<Decimal> {
    let owed = cell.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let digits: String = owed
        .unwrap_or(cell)
        .chars()
        .filter(|c| !matches!(c, '$' | '€' | '£' | ',' | ' ' | '+'))
        .collect();
    let figure = Decimal::from_str_exact(&digits).ok()?;
    Some(if owed.is_some() { -figure } else { figure })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_cash_are_read_from_columns_in_any_order_and_in_an_institutions_words() {
        let file = "\u{feff}Investment Name,Shares,Ticker,Share Price,Cost Basis,Account\n\
                    \"Total Market, Fund\",\"1,234.5\",VTI,$251.35,\"($300.00)\",x\n\
                    Settlement,12.30,CASH,,,x\n\n\
                    More,-2.30,cash,,,x\n";
        let contents = read_csv(file, Some("usd")).unwrap();
        let [position] = contents.positions.as_slice() else {
            panic!("one position")
        };
        assert_eq!(position.symbol.as_deref(), Some("VTI"));
        assert_eq!(position.description.as_deref(), Some("Total Market, Fund"));
        assert_eq!(position.units, Some("1234.5".parse().unwrap()));
        assert_eq!(position.total_cost, Some("-300.00".parse().unwrap()));
        assert_eq!(
            (position.kind.as_str(), position.currency.as_deref()),
            ("other", Some("USD"))
        );
        assert_eq!(contents.balances.len(), 1);
        assert_eq!(contents.balances[0].cash, Some("10.00".parse().unwrap()));
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        let file = "symbol,quantity,price,currency\nVTI,many,1,USD\n,1,1,USD\nKO,1,1,dollars\nMSFT,,1,USD\nAAPL,1,1,USD\n";
        let faults = read_csv(file, None).unwrap_err();
        let lines: Vec<u64> = faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [2, 3, 4, 5]);
        for bad in ["", "a,b\n1,2\n", "symbol\nVTI\n"] {
            assert_eq!(read_csv(bad, None).unwrap_err()[0].line, 1, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_reading_fail(text in "\\PC*", rows in "[a-z0-9,.\"\n]{0,200}") {
            let _ = read_csv(&text, None);
            let _ = read_csv(&format!("symbol,quantity,price,currency\n{rows}"), Some("USD"));
        }
    }
}
