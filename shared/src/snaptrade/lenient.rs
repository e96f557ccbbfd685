//! Reading what SnapTrade sends without failing over what does not matter: numbers written as text, time stamps in
//! several forms, values of enumerations that were added since, and `null` where something else was promised.
//!
//! Decimals are read from the text of the JSON number and never pass through a double. This works with `serde_json`
//! only, so the types of this client are read from JSON and from nothing else.

use std::borrow::Cow;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// Largest power of ten, up or down, that a decimal is read with.
const MAX_EXPONENT: i32 = 60;

/// A number from here on, taken as a time, is milliseconds rather than seconds: as seconds it would be after the year
/// 5000.
const FIRST_MILLISECONDS: i64 = 100_000_000_000;

/// A decimal from a number or from text; `None` from everything else, such as `null`, an empty text or `"N/A"`.
pub(super) fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Decimal>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(scalar_text(raw.get()).and_then(|text| parse_decimal(&text)))
}

/// A text from a text, a number or a truth value; `None` from everything else.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(scalar_text(raw.get()).map(Cow::into_owned))
}

/// A text that has to be there, from a text or a number.
pub(super) fn required_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer)?.ok_or_else(|| D::Error::custom("a text is missing"))
}

/// An id as text; SnapTrade has numbers for some. Ids are also stored, so unlike the other readers of this module this
/// one reads more than JSON.
pub(super) fn id_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct IdText;

    impl serde::de::Visitor<'_> for IdText {
        type Value = String;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an id as a text or a whole number")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }

    deserializer.deserialize_any(IdText)
}

/// A point in time; `None` from what cannot be understood as one.
pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(scalar_text(raw.get()).and_then(|text| parse_time(&text)))
}

/// A day; `None` from what cannot be understood as one.
pub(super) fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Date>, D::Error> {
    Ok(text(deserializer)?.and_then(|text| parse_date(&text)))
}

/// A truth value, also from a text or a number that stands for one; `None` from everything else.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Ok(
        text(deserializer)?.and_then(|text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }),
    )
}

/// A truth value that is false where nothing is said.
pub(super) fn flag_or_false<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(flag(deserializer)?.unwrap_or_default())
}

/// A whole number that is not negative, from a number or from text; `None` from everything else.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(decimal(deserializer)?.and_then(|number| u64::try_from(number).ok()))
}

/// A list, empty where it is `null`.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// Something of secondary interest: `None` where it does not have the expected shape.
pub(super) fn maybe<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// A list that is either bare or the member `results` of an object. SnapTrade has moved from the one to the other.
#[derive(Debug)]
pub(super) struct Listing<T>(pub(super) Vec<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Listing<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wrapped<T> {
            #[serde(alias = "data")]
            results: Vec<T>,
        }
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let list = if raw.get().starts_with('[') {
            serde_json::from_str(raw.get())
        } else {
            serde_json::from_str::<Wrapped<T>>(raw.get()).map(|wrapped| wrapped.results)
        };
        list.map(Self).map_err(D::Error::custom)
    }
}

/// Reads a value whose shape depends on its member `kind`.
pub(super) fn kind_of<E: serde::de::Error>(raw: &RawValue) -> Result<String, E> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(default, deserialize_with = "text")]
        kind: Option<String>,
    }
    serde_json::from_str::<Kind>(raw.get())
        .map(|kind| kind.kind.unwrap_or_default())
        .map_err(E::custom)
}

/// Writes a decimal as a JSON number: a whole number without a fraction, anything else with its shortest one.
///
/// # Errors
/// When the double that JSON's readers make of the number is not this decimal any more. An order must not be placed
/// for another price or quantity than the one asked for.
pub(super) fn number<S: Serializer>(decimal: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::Error as _;
    let decimal = decimal.normalize();
    if decimal.scale() == 0 {
        return match i64::try_from(decimal) {
            Ok(whole) => serializer.serialize_i64(whole),
            Err(_) => Err(S::Error::custom("a number is too large to be sent")),
        };
    }
    let double: f64 = decimal
        .to_string()
        .parse()
        .map_err(|_| S::Error::custom("a number cannot be sent"))?;
    if parse_decimal(&double.to_string()).map(|read| read.normalize()) != Some(decimal) {
        return Err(S::Error::custom(
            "a number has too many digits to be sent exactly",
        ));
    }
    serializer.serialize_f64(double)
}

/// As [`number`], for a number that may be absent.
///
/// # Errors
/// As [`number`].
pub(super) fn optional_number<S: Serializer>(
    decimal: &Option<Decimal>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match decimal {
        Some(decimal) => number(decimal, serializer),
        None => serializer.serialize_none(),
    }
}

/// The text of a JSON text, number or truth value.
fn scalar_text(raw: &str) -> Option<Cow<'_, str>> {
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(raw)),
    }
}

/// A decimal from text, with an exponent or without. Digits beyond what a decimal holds are rounded.
fn parse_decimal(text: &str) -> Option<Decimal> {
    let text = text.trim();
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    if exponent == 0 {
        return mantissa.parse().ok();
    }
    if !(-MAX_EXPONENT..=MAX_EXPONENT).contains(&exponent) {
        return None;
    }
    shifted(mantissa, exponent)?.parse().ok()
}

/// `mantissa` with its point moved by `places`, to the right where that is positive.
fn shifted(mantissa: &str, places: i32) -> Option<String> {
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    let point = i32::try_from(whole.len()).ok()?.checked_add(places)?;
    match usize::try_from(point) {
        Err(_) => Some(format!("{sign}0.{}{all}", zeros(point.unsigned_abs()))),
        Ok(point) => match all.split_at_checked(point) {
            Some((whole, fraction)) => Some(format!("{sign}0{whole}.{fraction}0")),
            None => {
                let missing = u32::try_from(point.checked_sub(all.len())?).ok()?;
                Some(format!("{sign}{all}{}", zeros(missing)))
            }
        },
    }
}

fn zeros(count: u32) -> String {
    (0..count).map(|_| '0').collect()
}

/// A point in time from RFC 3339, from the same with a space in place of the `T` or without an offset (which then is
/// UTC), from a day (its first moment in UTC), or from Unix seconds or milliseconds.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Ok(number) = text.parse::<i64>() {
        return if number.abs() < FIRST_MILLISECONDS {
            Timestamp::from_second(number).ok()
        } else {
            Timestamp::from_millisecond(number).ok()
        };
    }
    if let Some(number) = text.parse::<f64>().ok().filter(|number| number.is_finite()) {
        let since = SignedDuration::try_from_secs_f64(number).ok()?;
        return Timestamp::from_duration(since).ok();
    }
    let civil = text
        .parse::<DateTime>()
        .ok()
        .or_else(|| text.parse::<Date>().ok().map(|date| date.at(0, 0, 0, 0)))?;
    TimeZone::UTC.to_timestamp(civil).ok()
}

/// A day from `2026-07-31` or from anything that begins with it.
pub(super) fn parse_date(text: &str) -> Option<Date> {
    text.trim().get(..10)?.parse().ok()
}

/// The member `name` of an object as text, where it is a text, a number or a truth value.
pub(super) fn member_text(object: &Value, name: &str) -> Option<String> {
    match object.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Declares an enumeration whose values SnapTrade may add to. A value not known here is kept as `Other`.
macro_rules! open_enum {
    (
        $(#[$meta:meta])*
        $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $text:literal ),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )+
            /// A value that this client does not know, as SnapTrade wrote it.
            Other(String),
        }

        impl $name {
            /// The value as SnapTrade writes it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $( Self::$variant => $text, )+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                // SnapTrade writes the same words in capitals in webhooks and in mixed case elsewhere.
                $( if text.eq_ignore_ascii_case($text) { return Self::$variant; } )+
                Self::Other(text)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::from(text.to_owned())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::snaptrade::lenient::required_text(deserializer).map(Self::from)
            }
        }
    };
}
pub(super) use open_enum;

/// Declares an id of SnapTrade's. Ids are kept as the text that SnapTrade sent: most are UUIDs, but not all of the
/// published ones are.
macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes `text` as an id.
            #[must_use]
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::snaptrade::lenient::id_text(deserializer).map(Self)
            }
        }
    };
}
pub(super) use id;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Sample {
        #[serde(deserialize_with = "decimal")]
        decimal: Option<Decimal>,
        #[serde(deserialize_with = "time")]
        time: Option<Timestamp>,
        #[serde(deserialize_with = "date")]
        date: Option<Date>,
        #[serde(deserialize_with = "text")]
        text: Option<String>,
        #[serde(deserialize_with = "flag")]
        flag: Option<bool>,
        #[serde(deserialize_with = "count")]
        count: Option<u64>,
        #[serde(deserialize_with = "list")]
        list: Vec<u8>,
        #[serde(deserialize_with = "maybe")]
        maybe: Option<Vec<u8>>,
    }

    fn read(json: &str) -> Sample {
        serde_json::from_str(json).unwrap()
    }

    fn decimal_of(json: &str) -> Option<String> {
        read(&format!(r#"{{"decimal":{json}}}"#))
            .decimal
            .map(|d| d.to_string())
    }

    #[test]
    fn decimals_are_read_exactly_from_numbers_and_from_text() {
        for (json, expected) in [
            ("12.30", Some("12.30")),
            ("\"12.30\"", Some("12.30")),
            ("0.1234567890123456789012", Some("0.1234567890123456789012")),
            ("\" -7 \"", Some("-7")),
            ("1e3", Some("1000")),
            ("1.25E-3", Some("0.00125")),
            ("-1.5e+2", Some("-150")),
            ("1e-40", Some("0.0000000000000000000000000000")),
            ("1e999999999", None),
            ("1e50", None),
            ("null", None),
            ("\"\"", None),
            ("\"N/A\"", None),
            ("true", None),
            ("{}", None),
            ("[1]", None),
        ] {
            assert_eq!(decimal_of(json).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn times_are_read_from_all_forms_that_were_seen() {
        for (json, expected) in [
            ("\"2024-08-20T21:56:19.123Z\"", Some("2024-08-20T21:56:19.123Z")),
            (
                "\"2024-08-20T21:56:19.123456+00:00\"",
                Some("2024-08-20T21:56:19.123456Z"),
            ),
            ("\"2024-08-20 21:56:19.123Z\"", Some("2024-08-20T21:56:19.123Z")),
            ("\"2024-08-20 21:56:19\"", Some("2024-08-20T21:56:19Z")),
            ("\"2024-08-20T21:56:19-04:00\"", Some("2024-08-21T01:56:19Z")),
            ("\"2024-08-20\"", Some("2024-08-20T00:00:00Z")),
            ("1724190979", Some("2024-08-20T21:56:19Z")),
            ("1724190979123", Some("2024-08-20T21:56:19.123Z")),
            ("1724190979.5", Some("2024-08-20T21:56:19.5Z")),
            ("\"soon\"", None),
            ("null", None),
            ("{}", None),
        ] {
            let time = read(&format!(r#"{{"time":{json}}}"#)).time.map(|t| t.to_string());
            assert_eq!(time.as_deref(), expected, "{json}");
        }
        assert_eq!(
            read(r#"{"date":"2024-08-20T21:56:19Z"}"#).date,
            Some(Date::constant(2024, 8, 20))
        );
        assert_eq!(read(r#"{"date":"today"}"#).date, None);
    }

    #[test]
    fn what_is_null_missing_or_of_another_kind_is_absent() {
        assert_eq!(read("{}"), Sample::default());
        let nulls = r#"{"decimal":null,"time":null,"date":null,"text":null,"flag":null,"count":null,"list":null,
            "maybe":{}}"#;
        assert_eq!(read(nulls), Sample::default());
        let other = read(r#"{"text":5,"flag":"True","count":"7","list":[1],"maybe":[2]}"#);
        assert_eq!(other.text.as_deref(), Some("5"));
        assert_eq!(other.flag, Some(true));
        assert_eq!(other.count, Some(7));
        assert_eq!((other.list, other.maybe), (vec![1], Some(vec![2])));
    }

    #[test]
    fn a_listing_is_bare_or_wrapped() {
        for json in ["[1,2]", r#"{"results":[1,2],"more":true}"#, r#"{"data":[1,2]}"#] {
            assert_eq!(
                serde_json::from_str::<Listing<u8>>(json).unwrap().0,
                [1, 2],
                "{json}"
            );
        }
        assert!(serde_json::from_str::<Listing<u8>>("{}").is_err());
    }

    #[derive(Serialize)]
    struct Sent(#[serde(serialize_with = "number")] Decimal);

    #[test]
    fn numbers_are_sent_exactly_or_not_at_all() {
        for (decimal, sent) in [
            ("31", "31"),
            ("31.00", "31"),
            ("0.10", "0.1"),
            ("-12.345", "-12.345"),
        ] {
            let json = serde_json::to_string(&Sent(decimal.parse().unwrap())).unwrap();
            assert_eq!(json, sent);
        }
        for decimal in ["0.12345678901234567891", "79228162514264337593543950335"] {
            assert!(
                serde_json::to_value(Sent(decimal.parse().unwrap())).is_err(),
                "{decimal}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_decimal_survives_being_sent_and_read(mantissa in -999_999_999_999_i64..1_000_000_000_000, scale in 0_u32..10) {
            let decimal = Decimal::new(mantissa, scale);
            let json = serde_json::to_string(&Sent(decimal)).unwrap();
            prop_assert_eq!(decimal_of(&json).unwrap().parse::<Decimal>().unwrap(), decimal);
        }

        #[test]
        fn no_text_makes_the_readers_fail(text in any::<String>()) {
            let _ = (parse_decimal(&text), parse_time(&text), parse_date(&text));
        }
    }
}
