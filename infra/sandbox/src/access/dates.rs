//! The times that the shop and the access API write, in all their spellings.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde_json::Value;

/// When something was created, in Unix seconds, where that can be told: MemberPress's `2026-01-31 12:00:00`, which is
/// in UTC, RFC 3339, or Unix seconds as a number or a text.
pub(super) fn created(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => {
            let moment = || moment(text).map(Timestamp::as_second);
            text.parse().ok().or_else(moment)
        }
        _ => None,
    }
}

/// When access ends; `None` is never. A date alone means the end of that day.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(super) fn end(value: Option<&Value>) -> Result<Option<Timestamp>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => (end_of_day(text).or_else(|| moment(text)))
            .map(Some)
            .ok_or_else(|| format!("`{text}` is neither a date nor a time.")),
        Some(other) => Err(format!("`{other}` is neither a date nor a time.")),
    }
}

/// A time with or without its offset from UTC; without one it is in UTC.
pub(super) fn moment(text: &str) -> Option<Timestamp> {
    (text.parse::<Timestamp>().ok()).or_else(|| utc(text.parse::<DateTime>().ok()?))
}

fn end_of_day(text: &str) -> Option<Timestamp> {
    // The parser would also take a date out of a longer text.
    if text.len() != "2026-01-31".len() {
        return None;
    }
    utc(text.parse::<Date>().ok()?.at(23, 59, 59, 0))
}

fn utc(time: DateTime) -> Option<Timestamp> {
    Some(TimeZone::UTC.to_zoned(time).ok()?.timestamp())
}

/// A time moved on by calendar units; days that a month does not have become its last.
pub(super) fn later(time: Timestamp, by: Span) -> Option<Timestamp> {
    utc(TimeZone::UTC.to_datetime(time).checked_add(by).ok()?)
}

/// A time as Python prints it.
pub(super) fn in_python(time: Timestamp) -> String {
    let micros = time.as_microsecond().rem_euclid(1_000_000);
    let whole = TimeZone::UTC
        .to_datetime(time)
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string();
    if micros == 0 {
        format!("{whole}+00:00")
    } else {
        format!("{whole}.{micros:06}+00:00")
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_may_spell_its_time_in_several_ways() {
        for spelling in [
            json!("2026-01-31 12:00:00"),
            json!("2026-01-31T12:00:00Z"),
            json!("2026-01-31T13:00:00+01:00"),
            json!(1_769_860_800),
            json!("1769860800"),
        ] {
            assert_eq!(created(&spelling), Some(1_769_860_800), "{spelling}");
        }
        for nonsense in [
            json!("0000-00-00 00:00:00"),
            json!("soon"),
            json!(null),
            json!({}),
        ] {
            assert_eq!(created(&nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_date_alone_is_the_end_of_that_day_and_nothing_is_for_ever() {
        let end = |value: Value| end(Some(&value)).map(|end| end.map(|end| end.to_string()));
        assert_eq!(
            end(json!("2026-12-31")),
            Ok(Some("2026-12-31T23:59:59Z".to_owned()))
        );
        assert_eq!(
            end(json!("2026-12-31T10:00:00+02:00")),
            Ok(Some("2026-12-31T08:00:00Z".to_owned()))
        );
        assert_eq!(end(json!(null)), Ok(None));
        for wrong in [
            json!(""),
            json!("2026-02-30"),
            json!(20_261_231),
            json!("31.12.2026"),
        ] {
            assert!(end(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_month_later_is_clamped_to_the_months_end() {
        let last_of_january = "2026-01-31T00:00:00.5Z".parse().unwrap();
        let later = later(last_of_january, 1.month()).unwrap();
        assert_eq!(in_python(later), "2026-02-28 00:00:00.500000+00:00");
        assert_eq!(in_python(Timestamp::UNIX_EPOCH), "1970-01-01 00:00:00+00:00");
    }
}
