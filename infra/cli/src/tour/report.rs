//! What the tour says: steps in words for a person, or the same as JSON for a program.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How wide the lines are at most, in characters.
const WIDTH: usize = 80;

/// What stands before a check's first line; its other lines are indented as far.
const INDENT: &str = "      ";

/// A check that did not come out as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// What was looked at.
    pub(super) what: String,
    /// What was to be seen.
    pub(super) expected: String,
    /// What was seen.
    pub(super) came: String,
}

impl Mismatch {
    /// A check of `what` that came out otherwise.
    pub(super) fn new(what: impl Into<String>, expected: impl Into<String>, came: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            expected: expected.into(),
            came: came.into(),
        }
    }
}

/// What a check leads to.
pub(super) type Checked<T = ()> = Result<T, Mismatch>;

/// One step and what was checked in it.
#[derive(Debug)]
struct Step {
    title: String,
    seen: Vec<String>,
    failed: Option<Mismatch>,
}

/// The account of a tour. It is printed while the tour goes on, unless JSON is wanted, which is printed at the end.
#[derive(Debug)]
pub(super) struct Report {
    steps: Vec<Step>,
    started: Instant,
    as_json: bool,
    colours: bool,
}

impl Report {
    /// A report that begins now.
    pub(super) fn new(as_json: bool) -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            steps: Vec::new(),
            started: Instant::now(),
            as_json,
            colours,
        }
    }

    /// Begins a step.
    pub(super) fn step(&mut self, title: impl Into<String>) {
        let title = title.into();
        let number = self.steps.len().saturating_add(1);
        self.print(&format!(
            "\n{} {}",
            self.bold(&format!("{number:>2}")),
            self.bold(&title)
        ));
        self.steps.push(Step {
            title,
            seen: Vec::new(),
            failed: None,
        });
    }

    /// Notes what was checked and found right.
    pub(super) fn seen(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.print(&marked(&self.coloured("32", "✓"), &text));
        if let Some(step) = self.steps.last_mut() {
            step.seen.push(text);
        }
    }

    /// Shows lines that belong to the step but are no check.
    pub(super) fn show(&self, lines: &str) {
        for line in lines.lines() {
            self.print(&format!("{INDENT}{line}"));
        }
    }

    /// Says something that belongs to no step, in prose or in JSON's place nothing.
    pub(super) fn say(&self, text: &str) {
        self.print(text);
    }

    /// Notes the check that failed, which ends the tour.
    pub(super) fn failed(&mut self, mismatch: Mismatch) {
        self.print(&marked(&self.coloured("31", "✗"), &mismatch.what));
        self.print(&hanging(&format!("{INDENT}expected: "), &mismatch.expected));
        self.print(&hanging(&format!("{INDENT}came:     "), &mismatch.came));
        if let Some(step) = self.steps.last_mut() {
            step.failed = Some(mismatch);
        }
    }

    /// How many steps there were, how many checks came out right, and how long that took.
    pub(super) fn figures(&self) -> (usize, usize, Duration) {
        let checks = self.steps.iter().map(|step| step.seen.len()).sum();
        (self.steps.len(), checks, self.started.elapsed())
    }

    /// Prints the whole account where JSON is wanted.
    pub(super) fn finish(&self) {
        if self.as_json {
            write_line(&self.as_value().to_string());
        }
    }

    /// `{"passed", "seconds", "steps": [{"title", "checks", "failed"}]}`.
    fn as_value(&self) -> Value {
        let steps: Vec<_> = self
            .steps
            .iter()
            .map(|step| {
                let failed = step.failed.as_ref().map(
                    |failed| json!({"what": failed.what, "expected": failed.expected, "came": failed.came}),
                );
                json!({"title": step.title, "checks": step.seen, "failed": failed})
            })
            .collect();
        let passed = self.steps.iter().all(|step| step.failed.is_none());
        json!({"passed": passed, "seconds": self.started.elapsed().as_secs_f64(), "steps": steps})
    }

    fn print(&self, text: &str) {
        if !self.as_json {
            write_line(text);
        }
    }

    /// In bold, in a terminal.
    pub(super) fn bold(&self, text: &str) -> String {
        self.coloured("1", text)
    }

    fn coloured(&self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Prints at once, so that a reader of a pipe sees the tour go on. A reader that has gone away, such as `head`, is no
/// failure of the tour.
fn write_line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// `text` with `mark` before its first line. The mark is one column wide, whatever the colours around it.
fn marked(mark: &str, text: &str) -> String {
    let plain = hanging(INDENT, text);
    format!("    {mark} {}", plain.trim_start())
}

/// `text` broken into lines, the first after `lead`, the others indented as far.
fn hanging(lead: &str, text: &str) -> String {
    let indent = lead.chars().count();
    let room = WIDTH.saturating_sub(indent);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let length = line.chars().count();
        if length > 0 && length.saturating_add(1).saturating_add(word.chars().count()) > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    format!("{lead}{}", lines.join(&format!("\n{}", " ".repeat(indent))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_stay_within_the_width() {
        let text = "word ".repeat(40);
        let broken = marked("✓", &text);
        assert!(broken.lines().count() > 2);
        assert!(
            broken.lines().all(|line| line.chars().count() <= WIDTH),
            "{broken}"
        );
        assert!(broken.starts_with("    ✓ word"));
        assert!(broken.lines().skip(1).all(|line| line.starts_with("      word")));
    }

    #[test]
    fn a_report_as_json_tells_what_failed() {
        let mut report = Report::new(true);
        report.step("Five users register");
        report.seen("all answered 201");
        assert_eq!(report.as_value()["passed"], true);
        report.step("The limit is reached");
        report.failed(Mismatch::new("at_limit", "true", "false"));
        let value = report.as_value();
        assert_eq!(value["passed"], false);
        assert_eq!(value["steps"][0]["checks"][0], "all answered 201");
        assert_eq!(value["steps"][1]["failed"]["came"], "false");
    }
}
