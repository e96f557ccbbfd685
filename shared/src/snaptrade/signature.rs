//! SnapTrade's signature: what is signed, in which bytes, and how it is checked.
//!
//! A request is signed by an HMAC-SHA256, keyed with the consumer key, over a JSON object of the body (`content`),
//! the path and the query string. Both sides must write that object in the same bytes, so it is written in one form:
//! keys sorted at every level, no white space, everything that is not ASCII escaped. That is what Python's
//! `json.dumps(value, separators=(",", ":"), sort_keys=True)` prints, numbers included, and SnapTrade's own examples
//! are written with it.
//!
//! Source: SnapTrade's guide to request signatures and its published clients, which differ from each other where a
//! body is not ASCII or holds fractions; a body that is plain ASCII with whole numbers is signed alike by all.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sha2::Sha256;

/// Deepest nesting of arrays and objects that [`canonical_text`] follows.
pub const MAX_DEPTH: usize = 64;

/// The value of a request's `Signature` header.
///
/// `content` is the body; `None`, JSON `null` and an empty object are all signed as `null`. `path` is the path as it
/// is sent, including whatever stands before SnapTrade's own path in the base URL. `query` is the query string
/// exactly as it is sent, without the question mark.
#[must_use]
pub fn sign(consumer_key: &SecretString, content: Option<&Value>, path: &str, query: &str) -> String {
    sign_bytes(consumer_key, message(content, path, query).as_bytes())
}

/// Whether `signature` is the one that [`sign`] gives. The time that this takes does not depend on where the two
/// differ.
#[must_use]
pub fn verify(
    consumer_key: &SecretString,
    content: Option<&Value>,
    path: &str,
    query: &str,
    signature: &str,
) -> bool {
    verify_bytes(consumer_key, message(content, path, query).as_bytes(), signature)
}

/// Base 64 of the HMAC-SHA256 of `message`, keyed with the consumer key. Requests sign a message made of body, path
/// and query, webhooks their canonical body.
#[must_use]
pub fn sign_bytes(consumer_key: &SecretString, message: &[u8]) -> String {
    mac(consumer_key, message).map_or_else(String::new, |mac| STANDARD.encode(mac.finalize().into_bytes()))
}

/// Whether `signature` is the one that [`sign_bytes`] gives, compared in constant time.
#[must_use]
pub fn verify_bytes(consumer_key: &SecretString, message: &[u8], signature: &str) -> bool {
    let Ok(given) = STANDARD.decode(signature.trim()) else {
        return false;
    };
    mac(consumer_key, message).is_some_and(|mac| mac.verify_slice(&given).is_ok())
}

/// `None` never happens: an HMAC takes a key of any length.
fn mac(consumer_key: &SecretString, message: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(consumer_key.expose_secret().as_bytes()).ok()?;
    mac.update(message);
    Some(mac)
}

fn message(content: Option<&Value>, path: &str, query: &str) -> String {
    let content =
        content.filter(|value| !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty()));
    let mut out = String::from(r#"{"content":"#);
    match content {
        Some(value) => write_value(&mut out, value),
        None => out.push_str("null"),
    }
    out.push_str(r#","path":"#);
    write_string(&mut out, path);
    out.push_str(r#","query":"#);
    write_string(&mut out, query);
    out.push('}');
    out
}

/// `value` in the form that is signed: the bytes of Python's
/// `json.dumps(value, separators=(",", ":"), sort_keys=True)`.
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, &number.to_string()),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => {
            // The map keeps the order of insertion if any crate of the workspace asks serde_json for that.
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            out.push('{');
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(out, key);
                out.push(':');
                write_value(out, item);
            }
            out.push('}');
        }
    }
}

/// Writes `text` as a JSON string in ASCII: characters beyond the basic plane become two escapes.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write_escape(out, *unit);
                }
            }
        }
    }
    out.push('"');
}

fn write_escape(out: &mut String, unit: u16) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\\u{unit:04x}");
}

/// Writes a JSON number as Python prints it after reading it: a whole number digit by digit, anything with a fraction
/// or an exponent as the shortest text that reads back as the same double.
fn write_number(out: &mut String, text: &str) {
    if !text.contains(['.', 'e', 'E']) {
        out.push_str(if text == "-0" { "0" } else { text });
        return;
    }
    match text.parse::<f64>() {
        Ok(number) => write_float(out, number),
        // Not reached with the text of a JSON number.
        Err(_) => out.push_str(text),
    }
}

fn write_float(out: &mut String, number: f64) {
    if number.is_infinite() {
        out.push_str(if number > 0.0 { "Infinity" } else { "-Infinity" });
        return;
    }
    // Rust writes the shortest digits too, as `-1.234e-7`. Where two texts of that length are equally near it may take
    // the other one, so the digits are rounded anew, which goes to the even one as Python does.
    let shortest = format!("{number:e}");
    let fraction_digits = shortest
        .bytes()
        .take_while(|byte| *byte != b'e')
        .filter(u8::is_ascii_digit)
        .count()
        .saturating_sub(1);
    let rounded = format!("{number:.fraction_digits$e}");
    let text = if rounded.parse() == Ok(number) {
        rounded
    } else {
        shortest
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa
        .strip_prefix('-')
        .map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    out.push_str(sign);
    if (-4..16).contains(&exponent) {
        write_plain(out, &digits, exponent);
    } else {
        let (first, rest) = digits.split_at(1.min(digits.len()));
        out.push_str(first);
        if !rest.is_empty() {
            out.push('.');
            out.push_str(rest);
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "e{sign}{:02}", exponent.unsigned_abs());
    }
}

/// Writes `d.igits * 10^exponent` without an exponent and with at least one digit on each side of the point.
fn write_plain(out: &mut String, digits: &str, exponent: i32) {
    let Ok(whole) = usize::try_from(exponent) else {
        out.push_str("0.");
        for _ in 1..exponent.unsigned_abs() {
            out.push('0');
        }
        out.push_str(digits);
        return;
    };
    let mut digits = digits.chars();
    for _ in 0..=whole {
        out.push(digits.next().unwrap_or('0'));
    }
    out.push('.');
    match digits.as_str() {
        "" => out.push('0'),
        rest => out.push_str(rest),
    }
}

/// Why a text has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// It is not JSON, or a string in it is not Unicode.
    #[error("the text is not valid JSON")]
    Syntax,
    /// It is nested deeper than [`MAX_DEPTH`].
    #[error("the text is nested deeper than {MAX_DEPTH} levels")]
    Depth,
}

/// The canonical form of a JSON text. Unlike reading it into a [`Value`] first, this loses nothing of its numbers:
/// whole numbers of any length stay as they are and fractions become the nearest double, as in Python. Of keys that
/// occur twice the last counts.
///
/// # Errors
/// [`CanonicalError`] when the text is not JSON or nested too deeply.
pub fn canonical_text(text: &str) -> Result<String, CanonicalError> {
    let mut reader = Reader { rest: text };
    let node = reader.value(0)?;
    reader.skip_space();
    if !reader.rest.is_empty() {
        return Err(CanonicalError::Syntax);
    }
    let mut out = String::with_capacity(text.len());
    node.write(&mut out);
    Ok(out)
}

/// A JSON value whose numbers are still text.
enum Node<'a> {
    /// `null`, `true` or `false`.
    Word(&'static str),
    Number(&'a str),
    Text(String),
    Array(Vec<Node<'a>>),
    Object(BTreeMap<String, Node<'a>>),
}

impl Node<'_> {
    fn write(&self, out: &mut String) {
        match self {
            Self::Word(word) => out.push_str(word),
            Self::Number(text) => write_number(out, text),
            Self::Text(text) => write_string(out, text),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(map) => {
                out.push('{');
                for (index, (key, item)) in map.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_string(out, key);
                    out.push(':');
                    item.write(out);
                }
                out.push('}');
            }
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Takes `token` if the text goes on with it.
    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes the next `length` bytes.
    fn split(&mut self, length: usize) -> Result<&'a str, CanonicalError> {
        let (token, rest) = self.rest.split_at_checked(length).ok_or(CanonicalError::Syntax)?;
        self.rest = rest;
        Ok(token)
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, CanonicalError> {
        self.skip_space();
        match self.rest.as_bytes().first() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Node::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(Node::Number),
            _ => ["null", "true", "false"]
                .into_iter()
                .find(|word| self.take(word))
                .map(Node::Word)
                .ok_or(CanonicalError::Syntax),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node<'a>, CanonicalError> {
        if depth >= MAX_DEPTH {
            return Err(CanonicalError::Depth);
        }
        let mut map = BTreeMap::new();
        self.take("{");
        self.skip_space();
        if self.take("}") {
            return Ok(Node::Object(map));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.skip_space();
            if !self.take(":") {
                return Err(CanonicalError::Syntax);
            }
            let value = self.value(depth.saturating_add(1))?;
            map.insert(key, value);
            self.skip_space();
            if self.take("}") {
                return Ok(Node::Object(map));
            }
            if !self.take(",") {
                return Err(CanonicalError::Syntax);
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Node<'a>, CanonicalError> {
        if depth >= MAX_DEPTH {
            return Err(CanonicalError::Depth);
        }
        let mut items = Vec::new();
        self.take("[");
        self.skip_space();
        if self.take("]") {
            return Ok(Node::Array(items));
        }
        loop {
            items.push(self.value(depth.saturating_add(1))?);
            self.skip_space();
            if self.take("]") {
                return Ok(Node::Array(items));
            }
            if !self.take(",") {
                return Err(CanonicalError::Syntax);
            }
        }
    }

    /// Finds where a string ends; what stands in it is left to `serde_json`.
    fn string(&mut self) -> Result<String, CanonicalError> {
        let mut escaped = false;
        let end = self
            .rest
            .bytes()
            .enumerate()
            .skip(1)
            .find_map(|(index, byte)| {
                let ends = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                ends.then_some(index)
            })
            .ok_or(CanonicalError::Syntax)?;
        let token = self.split(end.saturating_add(1))?;
        serde_json::from_str(token).map_err(|_| CanonicalError::Syntax)
    }

    /// Finds where a number ends and checks it against JSON's grammar.
    fn number(&mut self) -> Result<&'a str, CanonicalError> {
        let end = self
            .rest
            .find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'))
            .unwrap_or(self.rest.len());
        let token = self.split(end)?;
        is_json_number(token)
            .then_some(token)
            .ok_or(CanonicalError::Syntax)
    }
}

/// Whether `text` is a number in JSON's grammar. `serde_json` does not serve here: it refuses `1e999`, which Python
/// reads as infinity.
fn is_json_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|part| digits(part.strip_prefix(['+', '-']).unwrap_or(part)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn key() -> SecretString {
        SecretString::from("YOUR_CONSUMER_KEY")
    }

    #[test]
    fn signatures_equal_those_computed_by_other_means() {
        let query = "clientId=YOUR_CLIENT_ID&timestamp=1715123456";
        let body = json!({"substring": "AAPL"});
        assert_eq!(
            sign(&key(), Some(&body), "/symbols", query),
            "TIrAXRIywVDtud68tti2kh1fDmzi/2aNdmhABjvabMw="
        );
        assert_eq!(
            sign(&key(), Some(&body), "/api/v1/symbols", query),
            "XURYf7Z+QeT+M7Y4OPdK/NaYhDQsds4cEKunvbtu5sE="
        );
        let query = "clientId=YOUR_CLIENT_ID&timestamp=1715123456&userId=u-1&userSecret=s-1";
        assert_eq!(
            sign(&key(), None, "/accounts", query),
            "X8d6A0IVjr8Nti+UhpzOO1RKYv9u4vXU3GtrJrvQQgE="
        );
    }

    #[test]
    fn no_body_null_and_an_empty_object_are_signed_alike() {
        let none = sign(&key(), None, "/p", "q=1");
        assert_eq!(sign(&key(), Some(&json!({})), "/p", "q=1"), none);
        assert_eq!(sign(&key(), Some(&Value::Null), "/p", "q=1"), none);
        assert_ne!(sign(&key(), Some(&json!([])), "/p", "q=1"), none);
    }

    #[test]
    fn only_the_exact_signature_is_accepted() {
        let body = json!({"userId": "u"});
        let signature = sign(&key(), Some(&body), "/p", "q=1");
        assert!(verify(&key(), Some(&body), "/p", "q=1", &signature));
        assert!(!verify(&key(), Some(&body), "/p", "q=2", &signature));
        assert!(!verify(&key(), Some(&body), "/api/v1/p", "q=1", &signature));
        assert!(!verify(&key(), None, "/p", "q=1", &signature));
        assert!(!verify(
            &SecretString::from("other"),
            Some(&body),
            "/p",
            "q=1",
            &signature
        ));
        for bad in ["", "%%%", "AAAA", signature.trim_end_matches('=')] {
            assert!(!verify(&key(), Some(&body), "/p", "q=1", bad), "{bad}");
        }
    }

    #[test]
    fn the_canonical_form_is_sorted_compact_and_ascii() {
        let value = json!({"b": [1, {"z": null, "a": true}], "a": "é \u{1f600} \"\\/ <&>\u{7f}\u{1}\n\t\r\u{8}\u{c}"});
        assert_eq!(
            canonical_json(&value),
            concat!(
                r#"{"a":"\u00e9 \ud83d\ude00 \"\\/ <&>\u007f\u0001\n\t\r\b\f","#,
                r#""b":[1,{"a":true,"z":null}]}"#
            )
        );
    }

    #[test]
    fn numbers_are_printed_as_python_prints_them() {
        for (given, printed) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "-0.0"),
            ("1.10", "1.1"),
            ("31.0", "31.0"),
            ("1e5", "100000.0"),
            ("1E+5", "100000.0"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1.5e-7", "1.5e-07"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("123456789012345678.5", "1.2345678901234568e+17"),
            ("9007199254740993.0", "9007199254740992.0"),
            ("2.2250738585072011e-308", "2.225073858507201e-308"),
            ("915585322298591.25", "915585322298591.2"),
            ("5e-324", "5e-324"),
            ("1e100", "1e+100"),
            ("1e999", "Infinity"),
            ("-1e999", "-Infinity"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ] {
            assert_eq!(canonical_text(given).as_deref(), Ok(printed), "{given}");
        }
    }

    #[test]
    fn a_text_keeps_its_numbers_and_of_equal_keys_the_last() {
        assert_eq!(
            canonical_text(
                " {\"b\" : 18446744073709551616 , \"a\":[ 0.10, { } , [ ]],\"b\":\"\\u00e9\\/\" } "
            )
            .as_deref(),
            Ok(r#"{"a":[0.1,{},[]],"b":"\u00e9/"}"#)
        );
    }

    #[test]
    fn texts_that_are_not_json_have_no_canonical_form() {
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "-",
            "+1",
            "1e",
            "1e+",
            "nul",
            "truex",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\n\"",
            "\"\\ud800\"",
            "1 2",
            "[1 2]",
            "{\"a\":1 \"b\":2}",
            "NaN",
            "é",
            "\"é",
        ] {
            assert_eq!(canonical_text(bad), Err(CanonicalError::Syntax), "{bad}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(canonical_text(&deep), Err(CanonicalError::Depth));
        let allowed = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert_eq!(canonical_text(&allowed), Ok(allowed));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_ascii_and_its_own_canonical_form(value in any_json()) {
            let canonical = canonical_json(&value);
            prop_assert!(canonical.is_ascii());
            prop_assert_eq!(canonical_text(&canonical), Ok(canonical.clone()));
            prop_assert_eq!(canonical_text(&value.to_string()), Ok(canonical));
        }

        #[test]
        fn no_text_makes_the_reader_fail_otherwise_than_with_an_error(text in any::<String>()) {
            let _ = canonical_text(&text);
        }

        #[test]
        fn a_text_is_json_to_both_readers_or_to_neither(text in "[\\[\\]{}\",:0-9.eE+\\-tfn \\\\u]{0,24}") {
            let finite = !text.contains(['e', 'E']);
            if finite {
                let ours = canonical_text(&text).is_ok();
                prop_assert_eq!(ours, serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{}", text);
            }
        }
    }
}
