//! People's names at TradingView: what a customer wrote, what it may be, and what the access API says of it
//! (facts/access.md A1, C1).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest name that is looked up, in bytes. TradingView publishes no bound; its own names are much shorter.
pub const NAME_MAX_BYTES: usize = 64;

/// A name that could exist at TradingView: Latin letters, digits, `_` and `-`. Two that differ in case only
/// are the same name; which spelling is right the access API says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Username(String);

/// Why a text cannot be a name at TradingView.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUsername {
    /// There is nothing.
    #[error("there is no TradingView name")]
    Missing,
    /// It is longer than [`NAME_MAX_BYTES`].
    #[error("the TradingView name is longer than {NAME_MAX_BYTES} characters")]
    TooLong,
    /// It holds something else than letters, digits, `_` and `-`.
    #[error("the TradingView name holds other characters than letters, digits, _ and -")]
    Characters,
}

impl Username {
    /// Takes what a customer wrote: the name, perhaps with an `@` before it, or the address of the profile
    /// page.
    ///
    /// # Errors
    /// [`InvalidUsername`] says why it cannot be a name.
    pub fn parse(written: &str) -> Result<Self, InvalidUsername> {
        let text = written.trim_matches(|c: char| c.is_whitespace() || is_invisible(c));
        let name = of_profile(text).unwrap_or(text);
        let name = name.strip_prefix('@').unwrap_or(name).trim();
        if name.is_empty() {
            return Err(InvalidUsername::Missing);
        }
        if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        {
            return Err(InvalidUsername::Characters);
        }
        if name.len() > NAME_MAX_BYTES {
            return Err(InvalidUsername::TooLong);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as it is spelt here.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What two spellings of one name have in common.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// Whether both are spellings of one name.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name in the address of a profile page, such as `https://www.tradingview.com/u/Ada/`.
fn of_profile(text: &str) -> Option<&str> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    let (host, path) = rest.split_once('/')?;
    let host = host.to_ascii_lowercase();
    if host != "tradingview.com" && !host.ends_with(".tradingview.com") {
        return None;
    }
    path.strip_prefix("u/")?.split(['/', '?', '#']).next()
}

/// Characters without a shape that come along when somebody copies a name from a page.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}' | '\u{00AD}')
}

/// What the access API knows of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// It exists, and is spelt so.
    Known(Username),
    /// It does not.
    Unknown {
        /// Names that begin alike. They are shown to the customer and never used by themselves.
        suggestions: Vec<String>,
    },
}

/// An answer that says neither that a name exists nor that it does not. It is never held against the
/// customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer does not say whether the name exists")]
pub struct Unclear;

/// Judges the access API's answer about `asked` (A5, "Validate answer"). As the look-up behind it finds
/// whatever begins alike, a name counts only if it is the one that was asked for.
///
/// # Errors
/// [`Unclear`] where the answer is not one about a name.
pub fn judge(asked: &Username, answer: &Value) -> Result<Lookup, Unclear> {
    let exists = ["validUser", "validuser"]
        .iter()
        .find_map(|key| answer.get(key)?.as_bool())
        .ok_or(Unclear)?;
    let suggestions: Vec<String> = answer
        .get("allUserSuggestions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|suggestion| suggestion.get("username").unwrap_or(suggestion).as_str())
        .map(str::to_owned)
        .collect();
    let verified = answer
        .get("verifiedUserName")
        .and_then(Value::as_str)
        .map(str::trim);
    let canonical = match verified {
        Some(name) if !name.is_empty() => Username::parse(name).ok().filter(|name| name.is_same(asked)),
        _ => suggestions
            .iter()
            .filter_map(|name| Username::parse(name).ok())
            .find(|name| name.is_same(asked))
            .or_else(|| Some(asked.clone())),
    };
    Ok(match canonical.filter(|_| exists) {
        Some(name) => Lookup::Known(name),
        None => Lookup::Unknown { suggestions },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> Username {
        Username::parse(text).unwrap()
    }

    #[test]
    fn a_name_is_found_in_what_customers_write() {
        for written in [
            "JoeBloggs",
            "  JoeBloggs\u{a0}",
            "@JoeBloggs",
            "\u{feff}JoeBloggs\u{200b}",
            "https://www.tradingview.com/u/JoeBloggs/",
            "https://de.tradingview.com/u/JoeBloggs/#published-charts",
            "http://tradingview.com/u/JoeBloggs?x=1",
            "www.tradingview.com/u/JoeBloggs",
        ] {
            assert_eq!(name(written).as_str(), "JoeBloggs", "{written}");
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_refused_with_the_cause() {
        for (bad, cause) in [
            ("", InvalidUsername::Missing),
            (" @ ", InvalidUsername::Missing),
            ("Joe Bloggs", InvalidUsername::Characters),
            ("joe@example.com", InvalidUsername::Characters),
            ("jöe", InvalidUsername::Characters),
            ("<b>joe</b>", InvalidUsername::Characters),
            ("https://evil.example.com/u/joe", InvalidUsername::Characters),
            (&"x".repeat(65), InvalidUsername::TooLong),
        ] {
            assert_eq!(Username::parse(bad), Err(cause), "{bad}");
        }
    }

    #[test]
    fn the_validators_spelling_is_used() {
        let answer = json!({"validUser": true, "verifiedUserName": "JoeBloggs", "allUserSuggestions": []});
        assert_eq!(
            judge(&name("joebloggs"), &answer),
            Ok(Lookup::Known(name("JoeBloggs")))
        );
        let other_case = json!({"validuser": true, "verifiedUserName": "JoeBloggs"});
        assert_eq!(
            judge(&name("JOEBLOGGS"), &other_case),
            Ok(Lookup::Known(name("JoeBloggs")))
        );
    }

    #[test]
    fn a_name_that_only_begins_alike_is_not_the_one_asked_for() {
        let answer = json!({
            "validUser": true, "verifiedUserName": "joe_2", "allUserSuggestions": [{"username": "joe_2"}]
        });
        let unknown = Lookup::Unknown {
            suggestions: vec!["joe_2".to_owned()],
        };
        assert_eq!(judge(&name("joe"), &answer), Ok(unknown));
    }

    #[test]
    fn a_suggestion_is_never_used_by_itself() {
        let answer =
            json!({"validUser": false, "verifiedUserName": "", "allUserSuggestions": [{"username": "joe"}]});
        assert!(matches!(judge(&name("joe"), &answer), Ok(Lookup::Unknown { .. })));
    }

    #[test]
    fn an_answer_about_something_else_is_unclear_and_not_a_wrong_name() {
        for garbage in [
            json!({}),
            json!([]),
            json!("busy"),
            json!({"validUser": "yes"}),
            json!(null),
        ] {
            assert_eq!(judge(&name("joe"), &garbage), Err(Unclear), "{garbage}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_plain_and_accepted_again(written in ".{0,40}") {
            if let Ok(accepted) = Username::parse(&written) {
                prop_assert!(accepted.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
                prop_assert_eq!(Username::parse(accepted.as_str()), Ok(accepted));
            }
        }
    }
}
