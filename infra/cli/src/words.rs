//! What answers say, in words.

use jiff::Timestamp;
use serde_json::Value;

/// A member in words; a dash where there is none.
pub(crate) fn text(value: &Value, member: &str) -> String {
    match value.get(member) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(other) => other.to_string(),
    }
}

/// A member that is a list of texts, in words.
pub(crate) fn list(value: &Value, member: &str) -> String {
    let items = value
        .get(member)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let names: Vec<_> = items
        .iter()
        .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
        .collect();
    enumerate(&names)
}

/// Names side by side: all of them where they are few, else the first ones and how many more there are.
pub(crate) fn enumerate(names: &[String]) -> String {
    /// More than fit into a sentence that is still read.
    const MOST: usize = 20;
    match names.get(MOST..) {
        None | Some([]) if names.is_empty() => "none".to_owned(),
        None | Some([]) => names.join(", "),
        Some(more) => format!(
            "{} and {} more",
            names.get(..MOST).unwrap_or_default().join(", "),
            more.len()
        ),
    }
}

/// A member that is true.
pub(crate) fn is(value: &Value, member: &str) -> bool {
    value.get(member).and_then(Value::as_bool).unwrap_or(false)
}

/// A member that is a whole number; 0 where it is none.
pub(crate) fn count(value: &Value, member: &str) -> u64 {
    value.get(member).and_then(Value::as_u64).unwrap_or(0)
}

/// A time to the minute, as people read it.
pub(crate) fn minute(row: &Value, member: &str) -> String {
    let time = row
        .get(member)
        .and_then(Value::as_str)
        .and_then(|time| time.parse::<Timestamp>().ok());
    time.map_or_else(
        || text(row, member),
        |time| time.strftime("%Y-%m-%d %H:%M").to_string(),
    )
}

/// `1 user`, `2 users`: a number with what it counts.
pub(crate) fn number_of(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_long_list_of_names_is_cut_and_says_so() {
        let names: Vec<String> = (0..22).map(|number| format!("u{number}")).collect();
        assert!(enumerate(&names).ends_with("u18, u19 and 2 more"));
        assert_eq!(enumerate(&names[..2]), "u0, u1");
        assert_eq!(list(&json!({"missing": []}), "missing"), "none");
    }

    #[test]
    fn times_are_told_to_the_minute() {
        let row = json!({"at": "2026-01-02T03:04:05.678Z", "never": null});
        assert_eq!(minute(&row, "at"), "2026-01-02 03:04");
        assert_eq!(minute(&row, "never"), "-");
    }
}
