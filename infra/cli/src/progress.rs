//! How far long work is, on a terminal's standard error. In a pipe nothing is drawn.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a bar without news moves, so that one sees that work goes on.
const TICK: Duration = Duration::from_millis(120);

/// A bar that is gone when it is dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Work on `total` things that `doing` names, such as `Restoring`.
    pub(crate) fn of(doing: &'static str, total: u64) -> Self {
        Self::styled(
            ProgressBar::new(total),
            doing,
            "{prefix} {wide_bar} {human_pos} of {human_len}, {eta} left",
        )
    }

    /// Work of which nobody knows how much it is.
    pub(crate) fn without_end(doing: &'static str) -> Self {
        Self::styled(
            ProgressBar::new_spinner(),
            doing,
            "{spinner} {prefix}: {human_pos} so far ({elapsed})",
        )
    }

    /// No bar, for work whose results scroll by on the same terminal.
    pub(crate) fn none() -> Self {
        Self(ProgressBar::hidden())
    }

    fn styled(bar: ProgressBar, doing: &'static str, template: &str) -> Self {
        // A template that is no template would leave indicatif's own, which tells as much.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(doing);
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// How much is done by now.
    pub(crate) fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// How much is done by now, of how much as far as is known by now.
    pub(crate) fn set_of(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// More is done.
    pub(crate) fn add(&self, more: u64) {
        self.0.inc(more);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
