//! Lists that the API answers in pages, and one table of all their pages.

use std::io::IsTerminal;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::Global;
use crate::command::print;
use crate::progress::Progress;
use crate::target::{CallError, Target};

/// Most rows on one page.
const PAGE: usize = 500;

/// Fewer columns than this hold no table, and how many a terminal usually has.
const NARROWEST: u16 = 40;
const USUAL: u16 = 80;

/// A list, page by page.
pub(crate) struct Pages<'a> {
    target: &'a Target,
    path: &'static str,
    /// Where the next page begins; `None` once there is none.
    cursor: Option<String>,
}

/// The list that the route `path` answers, from its beginning.
pub(crate) fn pages<'a>(target: &'a Target, path: &'static str) -> Pages<'a> {
    Pages {
        target,
        path,
        cursor: Some(String::new()),
    }
}

impl Pages<'_> {
    /// The rows of the next page; `None` after the last.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Value>>, CallError> {
        let Some(cursor) = self.cursor.take() else {
            return Ok(None);
        };
        let mut page = self
            .target
            .get(&format!("{}?limit={PAGE}{cursor}", self.path))
            .await?;
        self.cursor = page
            .get("next_cursor")
            .and_then(Value::as_str)
            .map(|next| format!("&cursor={}", utf8_percent_encode(next, NON_ALPHANUMERIC)));
        let rows = page.get_mut("data").map(Value::take);
        Ok(Some(match rows {
            Some(Value::Array(rows)) => rows,
            _ => Vec::new(),
        }))
    }
}

/// What is listed.
pub(crate) struct Kind {
    /// The headings of the columns.
    pub(crate) headings: &'static [&'static str],
    /// From how many columns on a terminal has room for the last heading's column.
    pub(crate) room_for_last: u16,
    /// What stands under the headings.
    pub(crate) cells: fn(&Value) -> Vec<String>,
    /// What is said where there is nothing.
    pub(crate) none: &'static str,
    /// What is said below the table.
    pub(crate) note: &'static str,
    /// What is said after that where the last column is left out.
    pub(crate) without_last: &'static str,
}

/// Prints a list, as JSON or as a table, and tells how many rows it has. `doing` is what the progress bar says.
///
/// # Errors
/// [`CallError`].
pub(crate) async fn show(
    global: &Global,
    mut pages: Pages<'_>,
    doing: &'static str,
    kind: &Kind,
) -> Result<usize, CallError> {
    let terminal = std::io::stdout().is_terminal();
    // On a terminal the rows themselves show how far it is.
    let progress = if terminal && !global.json {
        Progress::none()
    } else {
        Progress::without_end(doing)
    };
    if global.json {
        let mut all = Vec::new();
        while let Some(rows) = pages.next().await? {
            progress.add(rows.len() as u64);
            all.extend(rows);
        }
        let count = all.len();
        print(&json!({"data": all, "next_cursor": null}).to_string());
        return Ok(count);
    }
    let mut listing = Listing::new(kind, terminal_width());
    let mut count = 0;
    while let Some(rows) = pages.next().await? {
        progress.add(rows.len() as u64);
        count += rows.len();
        if let Some(lines) = listing.page(&rows) {
            print(&lines);
        }
    }
    print(&listing.end());
    Ok(count)
}

/// Rows that are all there as one table.
pub(crate) fn whole_table(kind: &Kind, rows: &[Value]) -> String {
    let mut listing = Listing::new(kind, terminal_width());
    match listing.page(rows) {
        Some(lines) => format!("{lines}\n{}", listing.end()),
        None => listing.end(),
    }
}

/// The list as one table that is printed page by page.
pub(crate) struct Listing<'a> {
    kind: &'a Kind,
    /// The terminal's columns; `None` in a pipe, where each row is one line however long.
    width: Option<u16>,
    /// How wide each column is, from the first page on, so that all pages make one table.
    columns: Option<Vec<u16>>,
    /// The line below the last row.
    bottom: Option<String>,
}

impl<'a> Listing<'a> {
    /// An empty one, for a terminal of that many columns; `None` for a pipe.
    pub(crate) fn new(kind: &'a Kind, width: Option<u16>) -> Self {
        Self {
            kind,
            width,
            columns: None,
            bottom: None,
        }
    }

    /// How many columns are shown.
    fn shown(&self) -> usize {
        if self.width.is_some_and(|width| width < self.kind.room_for_last) {
            self.kind.headings.len().saturating_sub(1)
        } else {
            self.kind.headings.len()
        }
    }

    /// The lines of the next page, without the one below the last row; `None` where it has no rows.
    pub(crate) fn page(&mut self, rows: &[Value]) -> Option<String> {
        if rows.is_empty() {
            return None;
        }
        let table = self.table(rows).to_string();
        let mut lines: Vec<&str> = table.lines().collect();
        self.bottom = lines.pop().map(str::to_owned);
        let below_header = lines.iter().position(|line| line.starts_with('╞'))?;
        if self.columns.is_some() {
            lines.drain(..=below_header);
        } else {
            let ruler = lines.get(below_header)?.trim_matches(['╞', '╡']);
            let widths = ruler.split('╪').map(|part| part.chars().count());
            self.columns = Some(
                widths
                    .map(|width| u16::try_from(width).unwrap_or(u16::MAX))
                    .collect(),
            );
        }
        Some(lines.join("\n"))
    }

    fn table(&self, rows: &[Value]) -> Table {
        let mut table = Table::new();
        table
            .load_preset(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(self.kind.headings.iter().take(self.shown()));
        match self.width {
            Some(width) => table.set_width(width),
            // A program that reads the table gets each row in one line.
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        for row in rows {
            let cells = (self.kind.cells)(row);
            table.add_row(cells.into_iter().take(self.shown()));
        }
        if let Some(columns) = &self.columns {
            let fixed = |width: &u16| match self.width {
                Some(_) => ColumnConstraint::Absolute(Width::Fixed(*width)),
                None => ColumnConstraint::LowerBoundary(Width::Fixed(*width)),
            };
            table.set_constraints(columns.iter().map(fixed));
        }
        table
    }

    /// What stands below the last page.
    pub(crate) fn end(&self) -> String {
        let Some(bottom) = &self.bottom else {
            return self.kind.none.to_owned();
        };
        let mut lines = bottom.clone();
        let hidden = self.shown() < self.kind.headings.len();
        let notes = [self.kind.note, if hidden { self.kind.without_last } else { "" }];
        let notes: Vec<&str> = notes.into_iter().filter(|note| !note.is_empty()).collect();
        if !notes.is_empty() {
            lines.push('\n');
            lines.push_str(&notes.join(" "));
        }
        lines
    }
}

/// How many columns the terminal has; `None` where standard output is none.
fn terminal_width() -> Option<u16> {
    let terminal = std::io::stdout().is_terminal();
    terminal.then(|| usable_width(Table::new().width()))
}

/// The columns to use of those that a terminal says it has. One that does not know says none.
fn usable_width(told: Option<u16>) -> u16 {
    told.filter(|width| *width >= NARROWEST).unwrap_or(USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_does_not_know_its_width_has_the_usual_one() {
        assert_eq!(usable_width(Some(0)), 80);
        assert_eq!(usable_width(None), 80);
        assert_eq!(usable_width(Some(132)), 132);
    }
}
