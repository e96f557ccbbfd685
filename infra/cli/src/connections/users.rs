//! The tracked users: listing, adding and protecting them.

use std::io::IsTerminal;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};

use super::{AddUser, Refusal, print, show};
use crate::Global;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::target::{CallError, Target};
use crate::words::{is, minute, text};

/// Most users on one page of the list.
const PAGE: usize = 500;

/// From how many columns on a terminal has room for the ids at SnapTrade.
const WIDE: u16 = 130;

/// Fewer columns than this hold no table, and how many a terminal usually has.
const NARROWEST: u16 = 40;
const USUAL: u16 = 80;

/// The headings of the list. The last column is left out where it has no room.
const HEADINGS: [&str; 6] = [
    "user",
    "state",
    "since",
    "last active",
    "connections",
    "id at SnapTrade",
];

/// The list of users, page by page.
pub(super) struct Pages<'a> {
    target: &'a Target,
    /// Where the next page begins; `None` once there is none.
    cursor: Option<String>,
}

/// The list of users from its beginning, the oldest first.
pub(super) fn pages(target: &Target) -> Pages<'_> {
    Pages {
        target,
        cursor: Some(String::new()),
    }
}

impl Pages<'_> {
    /// The users of the next page; `None` after the last.
    ///
    /// # Errors
    /// [`CallError`].
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Value>>, CallError> {
        let Some(cursor) = self.cursor.take() else {
            return Ok(None);
        };
        let mut page = self
            .target
            .get(&format!("/api/snaptrade/users?limit={PAGE}{cursor}"))
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

/// The path of one user's route.
pub(super) fn path_of(user_id: &str) -> String {
    format!(
        "/api/snaptrade/users/{}",
        utf8_percent_encode(user_id, NON_ALPHANUMERIC)
    )
}

/// `list`.
pub(super) async fn list(global: &Global, target: &Target) -> Result<Exit, Refusal> {
    let mut pages = pages(target);
    let terminal = std::io::stdout().is_terminal();
    // On a terminal the rows themselves show how far it is.
    let progress = if terminal && !global.json {
        Progress::none()
    } else {
        Progress::without_end("Listing users")
    };
    if global.json {
        let mut users = Vec::new();
        while let Some(rows) = pages.next().await? {
            progress.add(rows.len() as u64);
            users.extend(rows);
        }
        print(&json!({"data": users, "next_cursor": null}).to_string());
        return Ok(Exit::Success);
    }
    let mut listing = Listing::new(terminal_width());
    while let Some(rows) = pages.next().await? {
        progress.add(rows.len() as u64);
        if let Some(lines) = listing.page(&rows) {
            print(&lines);
        }
    }
    print(&listing.end());
    Ok(Exit::Success)
}

/// `add-user`.
pub(super) async fn add(global: &Global, target: &Target, user: &AddUser) -> Result<Exit, Refusal> {
    let mut body = json!({"user_id": user.user_id});
    if let Some(members) = body.as_object_mut() {
        if let Some(created_at) = user.created_at {
            members.insert("created_at".to_owned(), json!(created_at));
        }
        // Adding somebody again without the option does not take their protection away.
        if user.protected {
            members.insert("protected".to_owned(), json!(true));
        }
    }
    let added = target.post("/api/snaptrade/users", &body).await?;
    show(global, &added, |user| {
        format!(
            "{} is tracked, since {} UTC ({}).",
            text(user, "user_id"),
            minute(user, "created_at"),
            state(user)
        )
    });
    Ok(Exit::Success)
}

/// `protect` and `unprotect`.
pub(super) async fn set_protection(
    global: &Global,
    target: &Target,
    user_id: &str,
    protected: bool,
) -> Result<Exit, Refusal> {
    let body = json!({"protected": protected});
    let user = target.call(Method::PATCH, &path_of(user_id), Some(&body)).await?;
    show(global, &user, |user| {
        let may = if is(user, "protected") {
            "never gives"
        } else {
            "may give"
        };
        format!("{} {may} way.", text(user, "user_id"))
    });
    Ok(Exit::Success)
}

/// The list as one table that is printed page by page.
struct Listing {
    /// The terminal's columns; `None` in a pipe, where each row is one line however long.
    width: Option<u16>,
    /// How wide each column is, from the first page on, so that all pages make one table.
    columns: Option<Vec<u16>>,
    /// The line below the last row.
    bottom: Option<String>,
}

impl Listing {
    fn new(width: Option<u16>) -> Self {
        Self {
            width,
            columns: None,
            bottom: None,
        }
    }

    /// How many columns are shown.
    fn shown(&self) -> usize {
        if self.width.is_some_and(|width| width < WIDE) {
            HEADINGS.len().saturating_sub(1)
        } else {
            HEADINGS.len()
        }
    }

    /// The lines of the next page, without the one below the last row; `None` where it has no rows.
    fn page(&mut self, rows: &[Value]) -> Option<String> {
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
            .set_header(HEADINGS.iter().take(self.shown()));
        match self.width {
            Some(width) => table.set_width(width),
            // A program that reads the table gets each row in one line.
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        for row in rows {
            let cells = [
                text(row, "user_id"),
                state(row),
                minute(row, "created_at"),
                minute(row, "last_active_at"),
                text(row, "connections"),
                text(row, "upstream_id"),
            ];
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
    fn end(&self) -> String {
        let Some(bottom) = &self.bottom else {
            return "Nobody is tracked.".to_owned();
        };
        let note = if self.shown() < HEADINGS.len() {
            "Times are in UTC. --json shows their ids at SnapTrade, too."
        } else {
            "Times are in UTC."
        };
        format!("{bottom}\n{note}")
    }
}

/// What state a user is in, and whether nothing may make them give way.
fn state(row: &Value) -> String {
    let protection = if is(row, "protected") { ", protected" } else { "" };
    format!("{}{protection}", text(row, "state"))
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

    fn user(id: &str) -> Value {
        json!({
            "user_id": id, "upstream_id": format!("{id}~0123456789abcdefghijklmnop"), "state": "active",
            "protected": true, "created_at": "2026-01-02T03:04:05.678Z", "last_active_at": null, "connections": 2,
        })
    }

    fn whole(listing: &mut Listing, pages: &[Vec<Value>]) -> String {
        let mut lines: Vec<String> = pages.iter().filter_map(|page| listing.page(page)).collect();
        lines.push(listing.end());
        lines.join("\n")
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(whole(&mut Listing::new(None), &[vec![]]), "Nobody is tracked.");
    }

    #[test]
    fn the_list_fits_a_narrow_terminal_and_is_whole_in_a_pipe() {
        let narrow = whole(&mut Listing::new(Some(80)), &[vec![user("ada")]]);
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert!(
            narrow.contains("ada") && narrow.contains("2026-01-02 03:04"),
            "{narrow}"
        );
        let whole = whole(&mut Listing::new(None), &[vec![user("ada")]]);
        assert!(whole.lines().any(
            |line| line.contains("ada~0123456789abcdefghijklmnop") && line.contains("active, protected")
        ));
    }

    #[test]
    fn a_terminal_that_does_not_know_its_width_has_the_usual_one() {
        assert_eq!(usable_width(Some(0)), 80);
        assert_eq!(usable_width(None), 80);
        assert_eq!(usable_width(Some(132)), 132);
    }

    #[test]
    fn several_pages_make_one_table() {
        let long = "a-user-whose-id-is-much-longer-than-all-of-the-first-page";
        let pages = [vec![user("ada")], vec![user("grace")], vec![user(long)]];
        let narrow = whole(&mut Listing::new(Some(80)), &pages);
        assert_eq!(narrow.matches("last active").count(), 1, "{narrow}");
        assert_eq!(narrow.matches('└').count(), 1, "{narrow}");
        let framed = narrow.lines().filter(|line| !line.starts_with("Times"));
        let widths: std::collections::BTreeSet<_> = framed.map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 1, "{narrow}");
        let piped = whole(&mut Listing::new(None), &pages);
        assert!(piped.lines().any(|line| line.contains(long)), "{piped}");
        assert_eq!(piped.lines().count(), 3 + 3 + 2, "{piped}");
    }
}
