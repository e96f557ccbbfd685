//! Reading the times of a shop's rows: MemberPress writes `2026-01-31 23:59:59` without a zone, other sites
//! write what they like (facts/access.md A6, "Dates").

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use serde_json::Value;

/// A number from here on is milliseconds rather than seconds: as seconds it would be after the year 5000.
const FIRST_MILLISECONDS: i64 = 100_000_000_000;

/// A number below this is no time of a sale: it would be before 1980.
const FIRST_SECONDS: i64 = 315_532_800;

/// What a row says in the place of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceTime {
    /// Nothing.
    Absent,
    /// `0000-00-00 00:00:00`, by which MemberPress means that something never ends.
    Never,
    /// A time, in whole seconds.
    At {
        /// The time.
        at: Timestamp,
        /// Whether the clocks of the zone showed it twice or never. It is then read as the later one, so that
        /// a customer does not lose an hour.
        ambiguous: bool,
    },
}

/// Which moment of a day is meant by a date without a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayEdge {
    /// Its first second.
    First,
    /// Its last second, as MemberPress ends things.
    Last,
}

/// The value cannot be understood as a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// Reads a time: RFC 3339, the same with a space in place of the `T`, without an offset (then in `zone`) or
/// without a time, and Unix seconds or milliseconds.
///
/// # Errors
/// [`Unreadable`] for everything else.
pub fn read(value: &Value, zone: &TimeZone, edge: DayEdge) -> Result<SourceTime, Unreadable> {
    let text = match value {
        Value::Null => return Ok(SourceTime::Absent),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return Err(Unreadable),
    };
    if text.is_empty() {
        return Ok(SourceTime::Absent);
    }
    if text.starts_with("0000-00-00") {
        return Ok(SourceTime::Never);
    }
    if let Ok(number) = text.parse::<i64>() {
        return unix(number);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return whole_seconds(at, false);
    }
    // A date alone has to be tried before a date with a time, which would take it as midnight.
    if text.len() == 10
        && let Ok(date) = text.parse::<Date>()
    {
        let time = match edge {
            DayEdge::First => Time::midnight(),
            DayEdge::Last => Time::constant(23, 59, 59, 0),
        };
        return in_zone(date.to_datetime(time), zone);
    }
    let (text, zone) = match text.strip_suffix(" UTC").or_else(|| text.strip_suffix(" GMT")) {
        Some(text) => (text, &TimeZone::UTC),
        None => (text.as_str(), zone),
    };
    in_zone(text.parse::<DateTime>().map_err(|_| Unreadable)?, zone)
}

fn unix(number: i64) -> Result<SourceTime, Unreadable> {
    if number < FIRST_SECONDS {
        return Err(Unreadable);
    }
    let at = if number < FIRST_MILLISECONDS {
        Timestamp::from_second(number)
    } else {
        Timestamp::from_millisecond(number)
    };
    whole_seconds(at.map_err(|_| Unreadable)?, false)
}

fn in_zone(time: DateTime, zone: &TimeZone) -> Result<SourceTime, Unreadable> {
    let possible = zone.to_ambiguous_timestamp(time);
    let ambiguous = possible.is_ambiguous();
    whole_seconds(possible.later().map_err(|_| Unreadable)?, ambiguous)
}

fn whole_seconds(at: Timestamp, ambiguous: bool) -> Result<SourceTime, Unreadable> {
    let at = Timestamp::from_second(at.as_second()).map_err(|_| Unreadable)?;
    Ok(SourceTime::At { at, ambiguous })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_in(value: Value, zone: &str) -> Result<SourceTime, Unreadable> {
        read(&value, &TimeZone::get(zone).unwrap(), DayEdge::Last)
    }

    fn at(text: &str) -> SourceTime {
        SourceTime::At {
            at: text.parse().unwrap(),
            ambiguous: false,
        }
    }

    #[test]
    fn every_form_that_a_site_writes_is_read() {
        for (value, expected) in [
            (json!("2026-01-31 23:59:59"), "2026-01-31T23:59:59Z"),
            (json!(" 2026-01-31T23:59:59 "), "2026-01-31T23:59:59Z"),
            (json!("2026-01-31 23:59:59 UTC"), "2026-01-31T23:59:59Z"),
            (json!("2026-01-31T23:59:59Z"), "2026-01-31T23:59:59Z"),
            (json!("2026-01-31T23:59:59.999+02:00"), "2026-01-31T21:59:59Z"),
            (json!("2026-01-31"), "2026-01-31T23:59:59Z"),
            (json!(1_769_903_999), "2026-01-31T23:59:59Z"),
            (json!("1769903999"), "2026-01-31T23:59:59Z"),
            (json!(1_769_903_999_000_i64), "2026-01-31T23:59:59Z"),
        ] {
            assert_eq!(read_in(value.clone(), "UTC"), Ok(at(expected)), "{value}");
        }
    }

    #[test]
    fn a_time_without_an_offset_is_in_the_shops_zone() {
        assert_eq!(
            read_in(json!("2026-07-01 12:00:00"), "America/New_York"),
            Ok(at("2026-07-01T16:00:00Z"))
        );
        assert_eq!(
            read_in(json!("2026-07-01T12:00:00Z"), "America/New_York"),
            Ok(at("2026-07-01T12:00:00Z"))
        );
    }

    #[test]
    fn a_day_alone_begins_or_ends() {
        let day = json!("2026-01-31");
        assert_eq!(
            read(&day, &TimeZone::UTC, DayEdge::First),
            Ok(at("2026-01-31T00:00:00Z"))
        );
        assert_eq!(
            read(&day, &TimeZone::UTC, DayEdge::Last),
            Ok(at("2026-01-31T23:59:59Z"))
        );
    }

    #[test]
    fn zeros_are_never_and_nothing_is_absent() {
        for never in ["0000-00-00 00:00:00", "0000-00-00"] {
            assert_eq!(read_in(json!(never), "UTC"), Ok(SourceTime::Never));
        }
        for absent in [json!(null), json!(""), json!("  ")] {
            assert_eq!(read_in(absent, "UTC"), Ok(SourceTime::Absent));
        }
    }

    #[test]
    fn an_hour_that_the_clocks_showed_twice_is_the_later_and_marked() {
        let later = "2026-11-01T06:30:00Z".parse().unwrap();
        let read = read_in(json!("2026-11-01 01:30:00"), "America/New_York");
        assert_eq!(
            read,
            Ok(SourceTime::At {
                at: later,
                ambiguous: true
            })
        );
        let skipped = read_in(json!("2026-03-08 02:30:00"), "America/New_York");
        assert!(matches!(skipped, Ok(SourceTime::At { ambiguous: true, .. })));
    }

    #[test]
    fn everything_else_is_unreadable() {
        for bad in [
            json!("soon"),
            json!("31.01.2026"),
            json!("2026-13-01 00:00:00"),
            json!("2026-02-30"),
            json!(0),
            json!("-1"),
            json!(true),
            json!([]),
        ] {
            assert_eq!(read_in(bad.clone(), "UTC"), Err(Unreadable), "{bad}");
        }
    }
}
