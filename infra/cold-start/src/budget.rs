//! What a function may take, and the table that says what it takes.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use crate::program::{Measured, Program};

/// How much longer than the bare function with the same clients and calls a function may take to start, in hundredths.
const START_THAT_CALLS: u32 = 120;

/// The same of the bare function without clients.
const START: u32 = 500;

/// How much memory it may have after its first answer, in bytes.
const RESIDENT: u64 = 20 * 1024 * 1024;

/// How large its zip may be, in bytes.
const ZIPPED: u64 = 5 * 1024 * 1024;

/// How long the bare functions take to start.
pub(crate) struct Bare {
    pub(crate) start: Duration,
    pub(crate) start_with_clients: Duration,
    pub(crate) start_that_calls: Duration,
}

/// What was found of one program.
pub(crate) struct Verdict {
    cells: [String; 9],
    broken: Vec<String>,
}

impl Verdict {
    /// The budgets that it does not keep, each in a sentence.
    pub(crate) fn broken(&self) -> &[String] {
        &self.broken
    }
}

/// Holds a program against the budgets.
pub(crate) fn judge(program: &Program, measured: &Measured, bare: &Bare) -> Verdict {
    let name = &program.name;
    let mut broken = Vec::new();
    let mut holds = |kept: bool, sentence: &str| {
        if !kept {
            broken.push(format!("{name} {sentence}."));
        }
    };
    holds(
        measured.start.saturating_mul(100) <= bare.start_that_calls.saturating_mul(START_THAT_CALLS),
        "takes more than 1.2 times as long to start as a bare function with the same clients and calls",
    );
    holds(
        measured.start.saturating_mul(100) <= bare.start.saturating_mul(START),
        "takes more than 5 times as long to start as a bare function",
    );
    holds(
        measured.resident <= RESIDENT,
        "has more than 20 MB in memory after its first answer",
    );
    holds(program.zipped <= ZIPPED, "has a zip of more than 5 MB");
    let times = |bare: Duration| format!("{:.2}", measured.start.as_secs_f64() / bare.as_secs_f64());
    Verdict {
        cells: [
            name.clone(),
            milliseconds(measured.start),
            times(bare.start_that_calls),
            times(bare.start_with_clients),
            times(bare.start),
            milliseconds(measured.answer),
            megabytes(measured.resident),
            megabytes(program.size),
            megabytes(program.zipped),
        ],
        broken,
    }
}

/// The table, in Markdown.
pub(crate) fn table(verdicts: &[Verdict]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header([
        "program",
        "start, ms",
        "times that calls",
        "times with clients",
        "times bare",
        "first answer, ms",
        "memory, MB",
        "binary, MB",
        "zip, MB",
    ]);
    for verdict in verdicts {
        table.add_row(&verdict.cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1_000.0)
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn megabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / (1024.0 * 1024.0))
}
