//! How long a purchase lasts by its product, in the units that plans are sold in (facts/access.md C2,
//! "Units").

use std::fmt;

use jiff::{SignedDuration, Span, Timestamp};
use serde::{Deserialize, Serialize};

/// Seconds of a day. All arithmetic is in UTC, where every day has as many.
pub const DAY_SECONDS: i64 = 86_400;

/// Most units that a duration may count: a hundred years of days.
const MOST_UNITS: u32 = 36_500;

/// How long a purchase lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PlanDuration {
    /// So many times 86,400 seconds. A week is seven of them.
    Days(u32),
    /// So many months of the calendar.
    Months(u32),
    /// So many years of the calendar.
    Years(u32),
    /// For ever.
    Lifetime,
}

impl PlanDuration {
    /// Takes a text such as `30d`, `2W`, `1M`, `1y` or `L`: a number of at least 1 and a letter, in either
    /// case. `L` needs no number and ignores one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let letter = text.chars().next_back()?;
        let number = text.get(..text.len().checked_sub(letter.len_utf8())?)?;
        if !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        if letter.eq_ignore_ascii_case(&'l') {
            return Some(Self::Lifetime);
        }
        let count: u32 = number
            .parse()
            .ok()
            .filter(|count| (1..=MOST_UNITS).contains(count))?;
        match letter.to_ascii_lowercase() {
            'd' => Some(Self::Days(count)),
            'w' => Some(Self::Days(count.checked_mul(7)?)).filter(|_| count <= MOST_UNITS / 7),
            'm' => Some(Self::Months(count)).filter(|_| count <= MOST_UNITS / 30),
            'y' => Some(Self::Years(count)).filter(|_| count <= MOST_UNITS / 365),
            _ => None,
        }
    }

    /// This many days, 1 to a hundred years of them.
    #[must_use]
    pub fn days(count: u32) -> Option<Self> {
        (1..=MOST_UNITS).contains(&count).then_some(Self::Days(count))
    }

    /// When it ends that begins at `start`; `None` where it does not end. Months and years follow the
    /// calendar; a day that a month does not have becomes the month's last.
    #[must_use]
    pub fn after(self, start: Timestamp) -> Option<Timestamp> {
        self.times_after(start, 1)
    }

    /// When the last of `count` of them ends, one after the other, of which the first begins at `start`.
    /// Counted from the start as a whole, so that three months from 31 January end on 30 April though the
    /// first ended on 28 February.
    #[must_use]
    pub fn times_after(self, start: Timestamp, count: u32) -> Option<Timestamp> {
        let spans = |units: u32| i64::from(units).saturating_mul(i64::from(count));
        let end = match self {
            Self::Lifetime => return None,
            Self::Days(days) => {
                start.checked_add(SignedDuration::from_secs(spans(days).saturating_mul(DAY_SECONDS)))
            }
            Self::Months(months) => on_the_calendar(start, Span::new().try_months(spans(months))),
            Self::Years(years) => on_the_calendar(start, Span::new().try_years(spans(years))),
        };
        // Whoever has bought more time than there are dates for keeps the last of them.
        Some(end.unwrap_or(Timestamp::MAX))
    }
}

fn on_the_calendar(start: Timestamp, span: Result<Span, jiff::Error>) -> Result<Timestamp, jiff::Error> {
    Ok(start
        .to_zoned(jiff::tz::TimeZone::UTC)
        .checked_add(span?)?
        .timestamp())
}

impl fmt::Display for PlanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Days(days) => write!(f, "{days}D"),
            Self::Months(months) => write!(f, "{months}M"),
            Self::Years(years) => write!(f, "{years}Y"),
            Self::Lifetime => f.write_str("L"),
        }
    }
}

impl From<PlanDuration> for String {
    fn from(duration: PlanDuration) -> Self {
        duration.to_string()
    }
}

impl TryFrom<String> for PlanDuration {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("must be a number and D, W, M or Y, or L")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn durations_are_numbers_and_a_letter() {
        for (text, duration) in [
            ("30d", PlanDuration::Days(30)),
            ("2W", PlanDuration::Days(14)),
            ("1M", PlanDuration::Months(1)),
            (" 1y ", PlanDuration::Years(1)),
            ("L", PlanDuration::Lifetime),
            ("1l", PlanDuration::Lifetime),
        ] {
            assert_eq!(PlanDuration::parse(text), Some(duration), "{text}");
        }
        for bad in [
            "", "d", "0d", "-1d", "1.5M", "30", "1H", "1 d", "99999d", "9999W", "9999M", "101Y", "1ü",
        ] {
            assert_eq!(PlanDuration::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn days_are_exact_and_months_follow_the_calendar() {
        let start = at("2026-01-31T10:00:00Z");
        assert_eq!(
            PlanDuration::Days(30).after(start),
            Some(at("2026-03-02T10:00:00Z"))
        );
        assert_eq!(
            PlanDuration::Months(1).after(start),
            Some(at("2026-02-28T10:00:00Z"))
        );
        assert_eq!(PlanDuration::Lifetime.after(start), None);
    }

    #[test]
    fn months_in_a_row_are_counted_from_the_first() {
        let start = at("2026-01-31T10:00:00Z");
        assert_eq!(
            PlanDuration::Months(1).times_after(start, 2),
            Some(at("2026-03-31T10:00:00Z"))
        );
        let leap_day = at("2028-02-29T00:00:00Z");
        assert_eq!(
            PlanDuration::Years(1).after(leap_day),
            Some(at("2029-02-28T00:00:00Z"))
        );
        assert_eq!(
            PlanDuration::Years(1).times_after(leap_day, 4),
            Some(at("2032-02-29T00:00:00Z"))
        );
    }

    #[test]
    fn time_beyond_all_dates_is_the_last_date() {
        let start = at("9990-01-01T00:00:00Z");
        for long in [
            PlanDuration::Days(36_500),
            PlanDuration::Months(1_200),
            PlanDuration::Years(100),
        ] {
            assert_eq!(long.after(start), Some(Timestamp::MAX), "{long}");
        }
    }
}
