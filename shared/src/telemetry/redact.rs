//! What keeps users and secrets out of logs: ids as hashes, URLs without their query.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::ids::UserId;

/// What stands in a log in place of what was taken out.
const REDACTED: &str = "[redacted]";

/// Names of parameters and members whose value must not be logged, in lower case and without separators.
const SECRET_NAMES: [&str; 8] = [
    "usersecret",
    "consumerkey",
    "signature",
    "clientsecret",
    "webhooksecret",
    "token",
    "authorization",
    "apikey",
];

/// A user in a log line: the same user is recognised again, but the log does not say who it is. 16 hexadecimal
/// digits of the id's SHA-256.
#[must_use]
pub fn user(id: &UserId) -> String {
    let digest = Sha256::digest(id.as_str().as_bytes());
    let mut hash = data_encoding::HEXLOWER.encode(&digest);
    hash.truncate(16);
    hash
}

/// A URL without what may identify or authorise: no name and password before the host, no query, no fragment.
/// SnapTrade's URLs carry the user's secret in the query, its portal's URLs a token.
#[must_use]
pub fn url(url: &str) -> String {
    let cut = url.find(['?', '#']).unwrap_or(url.len());
    let (kept, dropped) = url.split_at(cut);
    let mut clean = match kept.split_once("://") {
        Some((scheme, rest)) => {
            let authority_ends = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(authority_ends);
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => kept.to_owned(),
    };
    if dropped.len() > 1 {
        clean.push('?');
        clean.push_str(REDACTED);
    }
    clean
}

/// A text as it may be logged: each URL in it loses its query, and each `name=value` or `"name": "value"` whose name
/// is a secret's loses its value. This is the net under all log lines, not the means: a secret is kept in a type that
/// does not print.
#[must_use]
pub fn text(text: &str) -> Cow<'_, str> {
    let urls_cut = cut_queries(text);
    match cut_secrets(&urls_cut) {
        Some(clean) => Cow::Owned(clean),
        None => urls_cut,
    }
}

fn cut_queries(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, from_separator) = rest.split_at(at);
        let scheme_starts = before
            .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '+')
            .map_or(0, |i| {
                i.saturating_add(
                    before
                        .get(i..)
                        .and_then(|s| s.chars().next())
                        .map_or(1, char::len_utf8),
                )
            });
        let (plain, scheme) = before.split_at(scheme_starts);
        let ends = from_separator
            .find(|c: char| {
                c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`' | ')' | ']' | '}' | '\\')
            })
            .unwrap_or(from_separator.len());
        let (address, after) = from_separator.split_at(ends);
        clean.push_str(plain);
        clean.push_str(&url(&format!("{scheme}{address}")));
        rest = after;
    }
    clean.push_str(rest);
    Cow::Owned(clean)
}

fn cut_secrets(text: &str) -> Option<String> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (at, separator) in text.match_indices(['=', ':']) {
        let name_is_secret = is_secret_name(name_before(text.get(..at)?));
        if !name_is_secret {
            continue;
        }
        let value = text.get(at.saturating_add(separator.len())..)?;
        let skipped = value
            .find(|c: char| !matches!(c, ' ' | '"' | '\\' | '\''))
            .unwrap_or(value.len());
        let value = value.get(skipped..)?;
        let length = value
            .find(['&', '"', '\\', '\'', ',', ';', '}', ')', ']', '\n'])
            .unwrap_or(value.len());
        let starts = at.saturating_add(separator.len()).saturating_add(skipped);
        let inside_earlier = found.last().is_some_and(|(_, end)| starts < *end);
        if length > 0 && !inside_earlier {
            found.push((starts, starts.saturating_add(length)));
        }
    }
    if found.is_empty() {
        return None;
    }
    let mut clean = String::with_capacity(text.len());
    let mut copied = 0;
    for (starts, ends) in found {
        clean.push_str(text.get(copied..starts)?);
        clean.push_str(REDACTED);
        copied = ends;
    }
    clean.push_str(text.get(copied..)?);
    Some(clean)
}

/// The word that ends `text`, quotes aside.
fn name_before(text: &str) -> &str {
    let text = text.trim_end_matches(['"', '\\', '\'', ' ']);
    let starts = text
        .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
        .map_or(0, |i| {
            i.saturating_add(
                text.get(i..)
                    .and_then(|s| s.chars().next())
                    .map_or(1, char::len_utf8),
            )
        });
    text.get(starts..).unwrap_or_default()
}

fn is_secret_name(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    SECRET_NAMES.contains(&plain.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_logged_as_a_hash_that_is_the_same_each_time() {
        let ada = UserId::parse("ada@example.com").unwrap();
        assert_eq!(user(&ada), user(&ada));
        assert_eq!(user(&ada).len(), 16);
        assert_ne!(user(&ada), user(&UserId::parse("grace").unwrap()));
    }

    #[test]
    fn a_url_loses_its_query_its_fragment_and_its_password() {
        for (given, expected) in [
            (
                "https://api.example.com/v1/a?userSecret=s",
                "https://api.example.com/v1/a?[redacted]",
            ),
            (
                "https://u:p@api.example.com/v1#token",
                "https://api.example.com/v1?[redacted]",
            ),
            ("https://api.example.com/v1", "https://api.example.com/v1"),
            ("/path?x=1", "/path?[redacted]"),
        ] {
            assert_eq!(url(given), expected);
        }
    }

    #[test]
    fn a_log_line_loses_what_follows_a_secrets_name() {
        for (given, expected) in [
            ("nothing here: a=b", "nothing here: a=b"),
            (
                "GET https://h/p?userId=a&userSecret=b failed: é",
                "GET https://h/p?[redacted] failed: é",
            ),
            (
                "(see https://h/p?x=1) and more",
                "(see https://h/p?[redacted]) and more",
            ),
            (
                r#"{"user_secret": "abc", "x": 1}"#,
                r#"{"user_secret": "[redacted]", "x": 1}"#,
            ),
            (
                r#"{\"consumerKey\":\"abc\"}"#,
                r#"{\"consumerKey\":\"[redacted]\"}"#,
            ),
            ("userSecret=abc&x=1", "userSecret=[redacted]&x=1"),
            ("Authorization: Bearer abc", "Authorization: [redacted]"),
        ] {
            assert_eq!(text(given), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_redaction_fail(given in "\\PC*(://)?\\PC*[=:?\"]?\\PC*") {
            let _ = text(&given);
            let _ = url(&given);
        }
    }
}
