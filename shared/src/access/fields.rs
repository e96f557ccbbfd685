//! Looking members up in rows whose shape is only roughly known.

use rust_decimal::Decimal;
use serde_json::Value;

/// The text at a path such as `user_meta.tradingview_username`: a text that is not empty, or a number as
/// text. Of a list the first element counts, since WordPress keeps every field of a user as a list.
pub(super) fn at(value: &Value, path: &str) -> Option<String> {
    let found = path
        .split('.')
        .try_fold(value, |value, name| value.get(name.trim()))?;
    scalar(found.as_array().map_or(Some(found), |list| list.first())?)
}

/// The first of several paths at which there is something.
pub(super) fn first(value: &Value, paths: &[&str]) -> Option<String> {
    paths.iter().find_map(|path| at(value, path))
}

/// As [`first`], where zero means that there is none, as MemberPress has it.
pub(super) fn id(value: &Value, paths: &[&str]) -> Option<String> {
    first(value, paths).filter(|text| text != "0")
}

/// A sum of money at a path, also as text, with a sign of its currency or with separators. It is only
/// compared with zero and with other sums of the same shop.
pub(super) fn money(value: &Value, path: &str) -> Option<Decimal> {
    let text = at(value, path)?;
    if let Ok(exact) = text.parse() {
        return Some(exact);
    }
    let mut plain: String = text
        .chars()
        .filter(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '-'))
        .collect();
    match (plain.rfind('.'), plain.rfind(',')) {
        // The one that stands further right separates the fraction.
        (Some(point), Some(comma)) if comma > point => {
            plain = plain.replace('.', "").replace(',', ".");
        }
        (Some(_), Some(_)) => plain = plain.replace(',', ""),
        (None, Some(_)) => plain = plain.replace(',', "."),
        _ => {}
    }
    plain.parse().ok()
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(match number.as_f64() {
            // A whole number that was written with a fraction is still the same id.
            Some(float) if number.is_f64() && float.fract() == 0.0 => format!("{float:.0}"),
            _ => number.to_string(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_and_numbers_are_found_at_their_paths() {
        let row = json!({"a": {"b": " x ", "n": 12.0, "list": ["first", "second"], "empty": ""}, "zero": 0});
        assert_eq!(at(&row, "a.b").as_deref(), Some("x"));
        assert_eq!(at(&row, "a.n").as_deref(), Some("12"));
        assert_eq!(at(&row, "a.list").as_deref(), Some("first"));
        for nothing in ["a", "a.empty", "a.c", "a.b.c", "zero.x", ""] {
            assert_eq!(at(&row, nothing), None, "{nothing}");
        }
        assert_eq!(first(&row, &["a.empty", "a.b"]).as_deref(), Some("x"));
        assert_eq!(id(&row, &["zero"]), None);
    }

    #[test]
    fn money_is_read_however_it_is_written() {
        for (written, expected) in [
            (json!("29.00"), "29.00"),
            (json!(29.5), "29.5"),
            (json!("$1,299.00"), "1299.00"),
            (json!("1.299,00 €"), "1299.00"),
            (json!("0,00"), "0.00"),
        ] {
            let sum = money(&json!({"amount": written}), "amount");
            assert_eq!(sum, Some(expected.parse().unwrap()), "{written}");
        }
        assert_eq!(money(&json!({"amount": "none"}), "amount"), None);
    }
}
