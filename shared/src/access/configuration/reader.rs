//! Reads a JSON document member by member and collects all that is wrong with it, each fault with its path.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use secrecy::SecretString;
use serde_json::{Map, Value};

/// What is wrong with one member of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it stands, such as `products.100.duration` or `tradingview.retry_backoff_seconds[1]`; empty for
    /// the document as a whole.
    pub path: String,
    /// What is wrong and what it has to be, to stand behind the path. It never holds the value, which may be
    /// a secret.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() {
            "the document"
        } else {
            &self.path
        };
        write!(f, "{path} {}", self.detail)
    }
}

/// All that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("The access sync's configuration is not right: ")?;
        for (i, fault) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{fault}")?;
        }
        f.write_str(".")
    }
}

impl std::error::Error for Faults {}

/// What was noticed while reading.
#[derive(Debug, Default)]
pub(super) struct Findings {
    faults: RefCell<Vec<Fault>>,
    unknown: RefCell<Vec<String>>,
}

impl Findings {
    pub(super) fn fault(&self, path: impl Into<String>, detail: impl Into<String>) {
        self.faults.borrow_mut().push(Fault {
            path: path.into(),
            detail: detail.into(),
        });
    }

    /// The faults, and the paths of members that nobody asked for.
    pub(super) fn into_parts(self) -> (Vec<Fault>, Vec<String>) {
        (self.faults.into_inner(), self.unknown.into_inner())
    }
}

/// An object of the document. One that is absent reads as one without members.
pub(super) struct Section<'a> {
    findings: &'a Findings,
    path: String,
    members: Option<&'a Map<String, Value>>,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Section<'a> {
    /// The whole document.
    pub(super) fn root(document: &'a Value, findings: &'a Findings) -> Self {
        Self::of(document, String::new(), findings)
    }

    fn of(value: &'a Value, path: String, findings: &'a Findings) -> Self {
        let members = value.as_object();
        if members.is_none() && !value.is_null() {
            findings.fault(path.clone(), "must be an object");
        }
        Self {
            findings,
            path,
            members,
            read: RefCell::default(),
        }
    }

    /// The object that is the member `key`.
    pub(super) fn section(&self, key: &str) -> Section<'a> {
        Section::of(
            self.value(key).unwrap_or(&Value::Null),
            self.path_of(key),
            self.findings,
        )
    }

    /// The members that are objects, by their names.
    pub(super) fn sections(&self) -> Vec<(&'a str, Section<'a>)> {
        let members = self.members.into_iter().flatten();
        members
            .map(|(key, value)| {
                self.read.borrow_mut().insert(key.clone());
                (key.as_str(), Section::of(value, self.path_of(key), self.findings))
            })
            .filter(|(_, section)| section.members.is_some())
            .collect()
    }

    /// Whether `key` stands there with something in it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.members
            .and_then(|members| members.get(key))
            .is_some_and(|value| {
                !value.is_null() && value.as_str().is_none_or(|text| !text.trim().is_empty())
            })
    }

    /// Notes what is wrong with the member `key`.
    pub(super) fn fault(&self, key: &str, detail: impl Into<String>) {
        self.findings.fault(self.path_of(key), detail);
    }

    /// Notes what is wrong with the object itself.
    pub(super) fn fault_here(&self, detail: impl Into<String>) {
        self.findings.fault(self.path.clone(), detail);
    }

    /// A text without space around it; `None` where it is absent or empty. A number is taken as its text,
    /// since ids are often written as numbers.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        let value = self.value(key)?;
        match scalar(value) {
            Some(text) => (!text.is_empty()).then_some(text),
            None => {
                self.fault(key, "must be a text");
                None
            }
        }
    }

    /// As [`Section::text`], parsed; what cannot be parsed is a fault that says `rule`.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        rule: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = parse(&self.text(key)?);
        if value.is_none() {
            self.fault(key, rule);
        }
        value
    }

    /// A secret text, taken as it is but for space around it; `None` where it is absent or empty.
    pub(super) fn secret(&self, key: &str) -> Option<SecretString> {
        self.text(key).map(SecretString::from)
    }

    /// A whole number between the two bounds, also written as a text.
    pub(super) fn whole(&self, key: &str, least: u32, most: u32) -> Option<u32> {
        self.parsed(
            key,
            &format!("must be a whole number from {least} to {most}"),
            |text| text.parse().ok().filter(|number| (least..=most).contains(number)),
        )
    }

    /// A number of at least 0, also written as a text.
    pub(super) fn number(&self, key: &str) -> Option<f64> {
        self.parsed(key, "must be a number, 0 or more", not_negative)
    }

    /// `true` or `false`; `default` where it is absent.
    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        match self.value(key) {
            None | Some(Value::Null) => default,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.fault(key, "must be true or false");
                default
            }
        }
    }

    /// One of several words, of which the first is the default.
    pub(super) fn choice<T: Copy + Default>(&self, key: &str, choices: &[(&str, T)]) -> T {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.parsed(key, &format!("must be {}", words.join(" or ")), |text| {
            choices
                .iter()
                .find(|(word, _)| word.eq_ignore_ascii_case(text))
                .map(|(_, value)| *value)
        })
        .unwrap_or_default()
    }

    /// A list of texts or numbers, each parsed; `None` where it is absent. What cannot be parsed is a fault
    /// that says `rule`.
    pub(super) fn list<T>(&self, key: &str, rule: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        let value = self.value(key).filter(|value| !value.is_null())?;
        let Some(elements) = value.as_array() else {
            self.fault(key, "must be a list");
            return None;
        };
        let mut parsed = Vec::new();
        for (i, element) in elements.iter().enumerate() {
            match scalar(element).and_then(|text| parse(&text)) {
                Some(element) => parsed.push(element),
                None => self.fault(&format!("{key}[{i}]"), rule),
            }
        }
        Some(parsed)
    }

    /// As [`Section::list`], also written as one text with commas between the elements.
    pub(super) fn list_or_text<T>(
        &self,
        key: &str,
        rule: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Some(Value::String(text)) = self.value(key) else {
            return self.list(key, rule, parse);
        };
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let parsed: Option<Vec<T>> = words.map(parse).collect();
        if parsed.is_none() {
            self.fault(key, rule);
        }
        parsed
    }

    /// Notes the members that nobody has asked for until now.
    pub(super) fn done(&self) {
        let read = self.read.borrow();
        let unknown = self
            .members
            .into_iter()
            .flatten()
            .filter(|(key, _)| !read.contains(*key));
        let mut paths = self.findings.unknown.borrow_mut();
        paths.extend(unknown.map(|(key, _)| self.path_of(key)));
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.members?.get(key)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

/// A number of at least 0.
pub(super) fn not_negative(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

/// A text without the space around it, or a number as text. Nothing is the empty text.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
