//! The tokens of the local stack, in place of an OIDC issuer's.
//!
//! A user's token is `dev:<user_id>`, an operator's `dev:<name>:operator`, the ids percent-encoded. Only this gateway
//! understands them: the functions see the claims, as they do behind API Gateway's JWT authorizer.

use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

/// Who a valid token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    subject: String,
    operator: bool,
}

impl Bearer {
    /// The caller that the `Authorization` header stands for; none where it is missing, twice there or not well
    /// formed.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let value = std::str::from_utf8(values.next()?.as_bytes()).ok()?;
        if values.next().is_some() {
            return None;
        }
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.contains(char::is_whitespace) {
            return None;
        }
        let id = token.strip_prefix("dev:")?;
        let (id, operator) = match id.split_once(':') {
            None => (id, false),
            Some((id, "operator")) => (id, true),
            Some(_) => return None,
        };
        let subject = decode(id).filter(|subject| !subject.is_empty())?;
        Some(Self { subject, operator })
    }

    /// The claims as the authorizer hands them on: all of them texts.
    pub(super) fn claims(&self, operator_scope: &str) -> Value {
        if self.operator {
            json!({"sub": self.subject, "scope": operator_scope})
        } else {
            json!({"sub": self.subject})
        }
    }
}

/// Undoes percent-encoding, strictly: each `%` must begin a sequence and the whole must be UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let whole = byte != b'%'
            || (rest.next().is_some_and(|digit| digit.is_ascii_hexdigit())
                && rest.next().is_some_and(|digit| digit.is_ascii_hexdigit()));
        if !whole {
            return None;
        }
    }
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(value: &str) -> Option<Bearer> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::AUTHORIZATION,
            http::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
        Bearer::of(&headers)
    }

    #[test]
    fn a_token_names_a_user_or_an_operator() {
        let user = bearer("Bearer dev:auth0%7C5f%3A1").unwrap();
        assert_eq!(user.claims("berth/operator"), json!({"sub": "auth0|5f:1"}));
        let operator = bearer("bearer dev:ops:operator").unwrap();
        assert_eq!(
            operator.claims("berth/operator"),
            json!({"sub": "ops", "scope": "berth/operator"})
        );
        assert_eq!(bearer("Bearer dev:zo%C3%AB").unwrap().subject, "zoë");
    }

    #[test]
    fn anything_else_is_no_token() {
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer dev:",
            "Bearer ada",
            "Basic dev:ada",
            "dev:ada",
            "Bearer dev::operator",
            "Bearer dev:ada:admin",
            "Bearer dev:ada:operator:x",
            "Bearer dev:%zz",
            "Bearer dev:%ff",
            "Bearer dev:a%2",
            "Bearer dev:a b",
            "Bearer DEV:ada",
        ] {
            assert_eq!(bearer(bad), None, "{bad:?}");
        }
        assert_eq!(Bearer::of(&HeaderMap::new()), None);
    }
}
