//! Whether what a shop answered is to be believed so far that something may be taken back because of it
//! (facts/access.md C3 "Safety", C3b "Guards").
//!
//! A source that is empty, shrunken, shifted or garbage may still grant what it has. It reverses nothing, the
//! run is quarantined, and an operator is told.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The least part of the last full scan's rows that a full scan has to have, in percent.
const LEAST_PERCENT: u64 = 70;

/// How far the total of a list may move within one scan, in percent.
const SHIFT_PERCENT: u64 = 5;

/// Why a source is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unsound {
    /// The answer is no list.
    Garbage,
    /// There is nothing, though there was something before.
    Empty,
    /// A full scan has far fewer rows than the last.
    Shrunken {
        /// Rows of this scan.
        rows: u64,
        /// Rows of the last full scan.
        last: u64,
    },
    /// The list changed by more than a little while it was read.
    Shifted {
        /// The total on the first page.
        first: u64,
        /// The total on a later one.
        later: u64,
    },
    /// A full scan has fewer rows than the list says that there are.
    Incomplete {
        /// Rows of this scan.
        rows: u64,
        /// The total that the list named.
        total: u64,
    },
}

impl fmt::Display for Unsound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbage => f.write_str("the shop's answer is no list of transactions"),
            Self::Empty => f.write_str("the shop's list of transactions is empty, though it was not before"),
            Self::Shrunken { rows, last } => {
                write!(
                    f,
                    "the shop lists {rows} transactions, after {last} in the last full scan"
                )
            }
            Self::Shifted { first, later } => {
                write!(
                    f,
                    "the shop's total went from {first} to {later} transactions during one scan"
                )
            }
            Self::Incomplete { rows, total } => {
                write!(
                    f,
                    "the shop lists {rows} transactions, though it says that there are {total}"
                )
            }
        }
    }
}

/// The rows of an answer.
///
/// # Errors
/// [`Unsound::Garbage`] where it is no list. An object with a list in it is none either: it is how WordPress
/// answers errors.
pub fn rows(answer: Value) -> Result<Vec<Value>, Unsound> {
    match answer {
        Value::Array(rows) => Ok(rows),
        _ => Err(Unsound::Garbage),
    }
}

/// What was noticed in one scan of a shop's list, page by page. It does not grow with the number of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    rows: u64,
    first_total: Option<u64>,
    last_total: Option<u64>,
    steady: bool,
    shift: Option<(u64, u64)>,
}

/// What a scan covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// The rows since some time.
    Recent,
    /// All rows. The last full scan, if there was one, had so many.
    Full {
        /// Rows of the last full scan.
        last: Option<u64>,
    },
}

impl Scan {
    /// A scan that has not read anything yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            steady: true,
            ..Self::default()
        }
    }

    /// Notes a page of so many rows; `total` is what the page says that there are in all (`X-WP-Total`).
    pub fn note_page(&mut self, rows: u64, total: Option<u64>) {
        self.rows = self.rows.saturating_add(rows);
        let Some(total) = total else { return };
        let first = *self.first_total.get_or_insert(total);
        if self.last_total.is_some_and(|last| last != total) {
            self.steady = false;
        }
        self.last_total = Some(total);
        if self.shift.is_none() && moved_too_far(first, total) {
            self.shift = Some((first, total));
        }
    }

    /// How many rows there were.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Judges the scan once it is finished. `had_rows` says whether the shop ever had a row.
    ///
    /// # Errors
    /// [`Unsound`] says why nothing may be taken back by it.
    pub fn judge(&self, coverage: Coverage, had_rows: bool) -> Result<(), Unsound> {
        if let Some((first, later)) = self.shift {
            return Err(Unsound::Shifted { first, later });
        }
        // A scan of what is recent begins before the newest row that is known, so it is never empty either.
        if self.rows == 0 && had_rows {
            return Err(Unsound::Empty);
        }
        let Coverage::Full { last } = coverage else {
            return Ok(());
        };
        if let Some(last) = last
            && self.rows.saturating_mul(100) < last.saturating_mul(LEAST_PERCENT)
        {
            return Err(Unsound::Shrunken {
                rows: self.rows,
                last,
            });
        }
        match self.last_total {
            Some(total) if total > self.rows && moved_too_far(total, self.rows) => Err(Unsound::Incomplete {
                rows: self.rows,
                total,
            }),
            _ => Ok(()),
        }
    }

    /// Whether a row that a sound full scan does not have was deleted. While the list changes, rows move from
    /// page to page, and one may be passed over.
    #[must_use]
    pub fn proves_absence(&self) -> bool {
        self.steady && self.last_total.is_none_or(|total| self.rows >= total)
    }
}

fn moved_too_far(first: u64, later: u64) -> bool {
    first.abs_diff(later).saturating_mul(100) > first.saturating_mul(SHIFT_PERCENT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scan(pages: &[(u64, Option<u64>)]) -> Scan {
        let mut scan = Scan::new();
        for (rows, total) in pages {
            scan.note_page(*rows, *total);
        }
        scan
    }

    const FIRST: Coverage = Coverage::Full { last: None };
    const AFTER_100: Coverage = Coverage::Full { last: Some(100) };

    #[test]
    fn an_answer_that_is_no_list_is_garbage() {
        for garbage in [
            json!(null),
            json!({"code": "rest_forbidden"}),
            json!({"data": []}),
            json!("<html>"),
        ] {
            assert_eq!(rows(garbage.clone()), Err(Unsound::Garbage), "{garbage}");
        }
        assert_eq!(rows(json!([{}])).unwrap().len(), 1);
    }

    #[test]
    fn an_empty_list_is_believed_only_of_a_shop_that_never_had_a_row() {
        let empty = scan(&[(0, None)]);
        assert_eq!(empty.judge(FIRST, false), Ok(()));
        assert_eq!(empty.judge(Coverage::Recent, false), Ok(()));
        assert_eq!(empty.judge(AFTER_100, true), Err(Unsound::Empty));
        assert_eq!(empty.judge(Coverage::Recent, true), Err(Unsound::Empty));
    }

    #[test]
    fn a_full_scan_of_less_than_seven_tenths_of_the_last_is_not_believed() {
        assert_eq!(scan(&[(70, None)]).judge(AFTER_100, true), Ok(()));
        let shrunken = scan(&[(69, None)]).judge(AFTER_100, true);
        assert_eq!(shrunken, Err(Unsound::Shrunken { rows: 69, last: 100 }));
        assert_eq!(scan(&[(1, None)]).judge(Coverage::Recent, true), Ok(()));
    }

    #[test]
    fn a_list_that_moves_by_more_than_a_twentieth_while_it_is_read_is_not_believed() {
        let little = scan(&[(50, Some(100)), (55, Some(105))]);
        assert_eq!(little.judge(FIRST, true), Ok(()));
        let much = scan(&[(50, Some(100)), (50, Some(106)), (0, Some(100))]);
        assert_eq!(
            much.judge(FIRST, true),
            Err(Unsound::Shifted {
                first: 100,
                later: 106
            })
        );
        let fewer = scan(&[(50, Some(100)), (44, Some(94))]);
        assert!(matches!(fewer.judge(FIRST, true), Err(Unsound::Shifted { .. })));
    }

    #[test]
    fn a_scan_that_misses_pages_is_not_believed() {
        let half = scan(&[(50, Some(100)), (0, Some(100))]);
        assert_eq!(
            half.judge(FIRST, true),
            Err(Unsound::Incomplete { rows: 50, total: 100 })
        );
    }

    #[test]
    fn a_row_counts_as_deleted_only_if_the_list_stood_still() {
        assert!(scan(&[(50, Some(100)), (50, Some(100))]).proves_absence());
        assert!(scan(&[(100, None)]).proves_absence());
        assert!(!scan(&[(50, Some(100)), (49, Some(99))]).proves_absence());
        assert!(!scan(&[(50, Some(100)), (49, Some(100))]).proves_absence());
    }
}
