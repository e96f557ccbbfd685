//! Reads the members of a body and the parameters of a query, and collects everything that is wrong with them, so
//! that a caller learns all faults at once.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::problem::{InputFault, Problem};
use crate::ids::UserId;

/// Input that is read from named fields. A body's or query's type implements it.
pub trait Input: Sized {
    /// Takes the values out of `fields`. Every field is to be read before the first `?`, so that no fault hides
    /// another; `None` stands for a fault that `fields` has taken note of.
    fn read(fields: &mut Fields<'_>) -> Option<Self>;
}

/// Input without fields.
impl Input for () {
    fn read(_fields: &mut Fields<'_>) -> Option<Self> {
        Some(())
    }
}

/// The named values of a body or a query, and the faults found in them so far.
#[derive(Debug)]
pub struct Fields<'a> {
    values: &'a Map<String, Value>,
    pointer_prefix: &'static str,
    faults: Vec<InputFault>,
}

impl<'a> Fields<'a> {
    fn new(values: &'a Map<String, Value>, pointer_prefix: &'static str) -> Self {
        Self {
            values,
            pointer_prefix,
            faults: Vec::new(),
        }
    }

    /// The value of `name` as `take` reads it; a missing one is a fault.
    pub fn required<T>(&mut self, name: &str, take: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        match self.values.get(name) {
            Some(value) => self.take(name, value, take),
            None => {
                self.fault(name, "is missing");
                None
            }
        }
    }

    /// The value of `name` as `take` reads it, or `Some(None)` where there is none: the outer option is the fault, as
    /// in [`Fields::required`].
    pub fn optional<T>(
        &mut self,
        name: &str,
        take: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<Option<T>> {
        match self.values.get(name) {
            Some(value) => self.take(name, value, take).map(Some),
            None => Some(None),
        }
    }

    /// The value of `name` as `take` reads it, or `default` where there is none.
    pub fn or<T>(
        &mut self,
        name: &str,
        default: T,
        take: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        self.optional(name, take).map(|value| value.unwrap_or(default))
    }

    /// Takes note of a fault that only several fields together show. `detail` stands behind the field's name.
    pub fn fault(&mut self, name: &str, detail: impl Into<String>) {
        self.faults.push(InputFault {
            pointer: format!("{}{}", self.pointer_prefix, escape(name)),
            detail: detail.into(),
        });
    }

    fn take<T>(
        &mut self,
        name: &str,
        value: &Value,
        take: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        match take(value) {
            Ok(value) => Some(value),
            Err(detail) => {
                self.fault(name, detail);
                None
            }
        }
    }
}

/// A JSON pointer's segment. Source: RFC 6901, section 3.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Reads `T` from a body. An empty body is as good as `{}`.
pub(super) fn from_body<T: Input>(body: &[u8]) -> Result<T, Problem> {
    let whole = |detail: String| {
        Problem::invalid(vec![InputFault {
            pointer: String::new(),
            detail,
        }])
    };
    if body.iter().all(u8::is_ascii_whitespace) {
        return read(&Map::new(), "/");
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => read(&members, "/"),
        Ok(_) => Err(whole("must be a JSON object".to_owned())),
        Err(error) => Err(whole(format!(
            "is not valid JSON (line {}, column {})",
            error.line(),
            error.column()
        ))),
    }
}

/// Reads `T` from a query's parameters; of a parameter that stands there more than once the first counts.
pub(super) fn from_query<'q, T: Input>(
    parameters: impl Iterator<Item = (&'q str, &'q str)>,
) -> Result<T, Problem> {
    let mut values = Map::new();
    for (name, value) in parameters {
        values
            .entry(name)
            .or_insert_with(|| Value::String(value.to_owned()));
    }
    read(&values, "#/query/")
}

fn read<T: Input>(values: &Map<String, Value>, pointer_prefix: &'static str) -> Result<T, Problem> {
    let mut fields = Fields::new(values, pointer_prefix);
    let input = T::read(&mut fields);
    match input {
        Some(input) if fields.faults.is_empty() => Ok(input),
        _ => Err(Problem::invalid(fields.faults)),
    }
}

/// Takes any text.
///
/// # Errors
/// The value is not a string.
pub fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err("must be a string".to_owned()),
    }
}

/// Takes a text of so many characters.
///
/// # Errors
/// The value is not a string or its length is out of `length`.
pub fn text_of(length: RangeInclusive<usize>) -> impl FnOnce(&Value) -> Result<String, String> {
    move |value| {
        let text = text(value)?;
        if length.contains(&text.chars().count()) {
            Ok(text)
        } else {
            Err(format!(
                "must be {} to {} characters long",
                length.start(),
                length.end()
            ))
        }
    }
}

/// Takes a user id.
///
/// # Errors
/// The value is not a string or not a user id; the detail says which rule it breaks.
pub fn user_id(value: &Value) -> Result<UserId, String> {
    UserId::parse(text(value)?).map_err(|error| error.to_string())
}

/// Takes `true` or `false`; in a query the words.
///
/// # Errors
/// The value is neither.
pub fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(boolean) => Ok(*boolean),
        _ => Err("must be true or false".to_owned()),
    }
}

/// Takes the words `true` or `false` from a query.
///
/// # Errors
/// The value is neither.
pub fn boolean_word(value: &Value) -> Result<bool, String> {
    match value.as_str() {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// Takes a whole number within `bounds` from a query.
///
/// # Errors
/// The value is no whole number or out of `bounds`.
pub fn number_word(bounds: RangeInclusive<u32>) -> impl FnOnce(&Value) -> Result<u32, String> {
    move |value| {
        value
            .as_str()
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|number| bounds.contains(number))
            .ok_or_else(|| {
                format!(
                    "must be a whole number from {} to {}",
                    bounds.start(),
                    bounds.end()
                )
            })
    }
}

/// Takes one of these words and gives what stands for it.
///
/// # Errors
/// The value is not a string or none of the words.
pub fn one_of<T: Clone>(choices: &[(&str, T)]) -> impl FnOnce(&Value) -> Result<T, String> {
    move |value| {
        let given = value.as_str();
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        choices
            .iter()
            .find(|(word, _)| Some(*word) == given)
            .map(|(_, choice)| choice.clone())
            .ok_or_else(|| format!("must be one of: {}", words.join(", ")))
    }
}

/// Takes a time in RFC 3339, with `Z` or an offset.
///
/// # Errors
/// The value is not a string or not such a time.
pub fn timestamp(value: &Value) -> Result<Timestamp, String> {
    text(value)?
        .parse()
        .map_err(|_| "must be a time in RFC 3339 such as 2026-01-31T12:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Order {
        user_id: Option<UserId>,
        size: u32,
        kind: &'static str,
        fast: bool,
    }

    impl Input for Order {
        fn read(fields: &mut Fields<'_>) -> Option<Self> {
            let user_id = fields.optional("user_id", user_id);
            let size = fields.required("size", |value| {
                value
                    .as_u64()
                    .map_or(Err("must be a number".to_owned()), |size| Ok(size as u32))
            });
            let kind = fields.or("kind", "small", one_of(&[("small", "small"), ("large", "large")]));
            let fast = fields.or("fast", false, boolean);
            Some(Self {
                user_id: user_id?,
                size: size?,
                kind: kind?,
                fast: fast?,
            })
        }
    }

    fn pointers(body: &[u8]) -> Vec<String> {
        let problem = from_body::<Order>(body).unwrap_err();
        problem
            .errors()
            .iter()
            .map(|fault| fault.pointer.clone())
            .collect()
    }

    #[test]
    fn a_body_is_read_and_what_it_does_not_know_is_ignored() {
        let order: Order = from_body(br#"{"size": 3, "kind": "large", "unknown": [1]}"#).unwrap();
        let expected = Order {
            user_id: None,
            size: 3,
            kind: "large",
            fast: false,
        };
        assert_eq!(order, expected);
    }

    #[test]
    fn every_fault_of_a_body_is_named_at_once() {
        assert_eq!(
            pointers(br#"{"user_id": "a b", "kind": "huge", "fast": 1}"#),
            ["/user_id", "/size", "/kind", "/fast"]
        );
        assert_eq!(
            pointers(br#"{"size": null, "user_id": null}"#),
            ["/user_id", "/size"]
        );
        assert_eq!(pointers(b""), ["/size"]);
    }

    #[test]
    fn a_body_that_is_no_json_object_is_a_fault_of_the_whole() {
        let deep = "[".repeat(100_000);
        let deep_object = r#"{"a":"#.repeat(1_000);
        for body in [
            "[]",
            "null",
            "\"text\"",
            "3",
            "{",
            "{'size': 1}",
            "{\"size\": 1} trailing",
            "{\"size\": 1e999}",
            "{\"size\": \"\\ud800\"}",
            deep.as_str(),
            deep_object.as_str(),
        ] {
            assert_eq!(
                pointers(body.as_bytes()),
                [""],
                "{}",
                body.get(..20).unwrap_or(body)
            );
        }
        assert_eq!(pointers(b"{\"size\": \"\xff\"}"), [""]);
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        assert_eq!(from_body::<()>(b" \n"), Ok(()));
    }

    #[test]
    fn a_fault_in_a_query_points_there() {
        struct Limit;
        impl Input for Limit {
            fn read(fields: &mut Fields<'_>) -> Option<Self> {
                fields.required("limit", number_word(1..=500)).map(|_| Self)
            }
        }
        for bad in ["0", "501", "-1", "+5", "1e2", "", "99999999999"] {
            let problem = from_query::<Limit>([("limit", bad)].into_iter()).err().unwrap();
            assert_eq!(problem.errors()[0].pointer, "#/query/limit", "{bad}");
        }
        assert!(from_query::<Limit>([("limit", "500"), ("limit", "x")].into_iter()).is_ok());
    }

    #[test]
    fn times_need_an_offset() {
        assert!(timestamp(&Value::from("2026-01-31T12:00:00+01:00")).is_ok());
        assert!(timestamp(&Value::from("2026-01-31T12:00:00")).is_err());
        assert!(timestamp(&Value::from(1_700_000_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_body_makes_reading_fail(body: Vec<u8>) {
            let _ = from_body::<Order>(&body);
        }

        #[test]
        fn no_json_makes_reading_fail(kind in "\\PC*", size in proptest::num::f64::ANY, name in "\\PC*") {
            let body = serde_json::json!({"kind": kind, "size": size, name: [size]});
            let _ = from_body::<Order>(body.to_string().as_bytes());
        }
    }
}
