//! How long answers took, and how many of which there were.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::crowd::Request;

/// The spread of some durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread {
    count: usize,
    median: Duration,
    p95: Duration,
    max: Duration,
}

impl Spread {
    /// The spread of `durations`; of none it is all nothing.
    pub fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let at = |hundredths: usize| {
            let index = durations.len() * hundredths / 100;
            durations
                .get(index.min(durations.len().saturating_sub(1)))
                .copied()
        };
        Self {
            count: durations.len(),
            median: at(50).unwrap_or_default(),
            p95: at(95).unwrap_or_default(),
            max: at(100).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>6}  median {:>6} ms  p95 {:>6} ms  max {:>6} ms",
            self.count,
            self.median.as_millis(),
            self.p95.as_millis(),
            self.max.as_millis()
        )
    }
}

/// One line for each kind of answer to each kind of request.
pub fn by_answer(requests: &[Request]) -> BTreeMap<String, Spread> {
    let mut durations: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for request in requests {
        let answered = match &request.answer {
            Some(answer) => format!("{} {}", answer.status, answer.code()),
            None => "cut off".to_owned(),
        };
        let kind = format!("{:<14} {answered}", request.asked);
        durations.entry(kind).or_default().push(request.took);
    }
    durations
        .into_iter()
        .map(|(kind, durations)| (kind, Spread::of(durations)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_tells_the_middle_the_tail_and_the_worst() {
        let spread = Spread::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(spread.median, Duration::from_millis(51));
        assert_eq!(spread.p95, Duration::from_millis(96));
        assert_eq!(spread.max, Duration::from_millis(100));
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
