//! Who may read the shop's transactions: whoever has its key, an application password or its token.

use std::fmt;

use axum::http::HeaderMap;
use data_encoding::BASE64;
use http::header::AUTHORIZATION;

use super::WORDPRESS_KEY;

/// The header in which MemberPress expects its key. It takes the key bare in `Authorization` as well.
const KEY_HEADER: &str = "memberpress-api-key";

/// The credentials that the shop accepts, each of them enough, and how it is asked. Without any credentials the shop is
/// open to anyone.
#[derive(Clone, PartialEq, Eq)]
pub struct WordPressAccess {
    /// The parameter that says since when transactions are wanted.
    pub since_param: String,
    /// A header that the key may stand in, beside those that MemberPress knows.
    pub api_key_header: Option<String>,
    /// The key.
    pub api_key: Option<String>,
    /// A user and an application password; spaces in the password do not count.
    pub basic: Option<(String, String)>,
    /// A parameter of the query and the token that it has to hold.
    pub token: Option<(String, String)>,
}

impl Default for WordPressAccess {
    /// What the sandbox accepts unless it is told something else.
    fn default() -> Self {
        Self {
            since_param: "since".to_owned(),
            api_key_header: None,
            api_key: Some(WORDPRESS_KEY.to_owned()),
            basic: Some(("sandbox".to_owned(), "sand box appl icat ion".to_owned())),
            token: Some(("token".to_owned(), "sandbox-wordpress-token".to_owned())),
        }
    }
}

/// What came of looking at a request's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are good.
    Welcome,
    /// There are none, or a key or token that is not the shop's.
    Stranger,
    /// There is a user or a password that is wrong; WordPress does not look at a key then.
    WrongPassword,
}

impl WordPressAccess {
    /// Looks at a request's credentials.
    pub(super) fn judge(&self, headers: &HeaderMap, query: &[(String, String)]) -> Verdict {
        if self.api_key.is_none() && self.basic.is_none() && self.token.is_none() {
            return Verdict::Welcome;
        }
        let authorization = header(headers, AUTHORIZATION.as_str()).unwrap_or_default();
        if let Some(("Basic", encoded)) = authorization.split_once(' ') {
            return if self.basic.as_ref().is_some_and(|basic| is_basic(basic, encoded)) {
                Verdict::Welcome
            } else {
                Verdict::WrongPassword
            };
        }
        let names = [KEY_HEADER, "x-api-key"]
            .into_iter()
            .chain(self.api_key_header.as_deref());
        let mut keys = names
            .filter_map(|name| header(headers, name))
            .chain([authorization]);
        let has_key = self
            .api_key
            .as_deref()
            .is_some_and(|key| keys.any(|given| given == key));
        let has_token = self.token.as_ref().is_some_and(|token| query.contains(token));
        if has_key || has_token {
            Verdict::Welcome
        } else {
            Verdict::Stranger
        }
    }

    /// Whether a parameter of the query is a credential, whatever its name.
    pub(super) fn is_token(&self, parameter: &str) -> bool {
        self.token.as_ref().is_some_and(|(name, _)| name == parameter)
    }
}

impl fmt::Debug for WordPressAccess {
    /// Shows which credentials there are, but not what they are: they may be somebody's own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WordPressAccess")
            .field("since_param", &self.since_param)
            .field("api_key", &self.api_key.is_some())
            .field("basic", &self.basic.is_some())
            .field("token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_basic((user, password): &(String, String), encoded: &str) -> bool {
    let bare = |password: &str| password.replace(' ', "");
    let decoded = BASE64.decode(encoded.trim().as_bytes()).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let given = decoded.as_deref().and_then(|text| text.split_once(':'));
    given.is_some_and(|(name, given)| name == user && bare(given) == bare(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(access: &WordPressAccess, headers: &[(&'static str, &str)], query: &[(&str, &str)]) -> Verdict {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let query: Vec<_> = (query.iter())
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        access.judge(&map, &query)
    }

    #[test]
    fn each_kind_of_credential_is_enough() {
        let access = WordPressAccess {
            api_key_header: Some("X-Shop-Key".to_owned()),
            ..WordPressAccess::default()
        };
        let basic = format!("Basic {}", BASE64.encode(b"sandbox:sandboxapplication"));
        for headers in [
            [("memberpress-api-key", WORDPRESS_KEY)],
            [("x-shop-key", WORDPRESS_KEY)],
            [("authorization", WORDPRESS_KEY)],
            [("authorization", basic.as_str())],
        ] {
            assert_eq!(judged(&access, &headers, &[]), Verdict::Welcome, "{headers:?}");
        }
        let token = [("token", "sandbox-wordpress-token")];
        assert_eq!(judged(&access, &[], &token), Verdict::Welcome);
    }

    #[test]
    fn nothing_else_is() {
        let access = WordPressAccess::default();
        let bearer = format!("Bearer {WORDPRESS_KEY}");
        let wrong = format!("Basic {}", BASE64.encode(b"sandbox:guessed"));
        for headers in [
            vec![],
            vec![("memberpress-api-key", "guessed")],
            vec![("authorization", bearer.as_str())],
        ] {
            assert_eq!(judged(&access, &headers, &[]), Verdict::Stranger, "{headers:?}");
        }
        // WordPress does not look at the key once somebody tries to log in.
        let both = [
            ("authorization", wrong.as_str()),
            ("memberpress-api-key", WORDPRESS_KEY),
        ];
        assert_eq!(judged(&access, &both, &[]), Verdict::WrongPassword);
    }

    #[test]
    fn a_shop_without_credentials_is_open() {
        let open = WordPressAccess {
            api_key: None,
            basic: None,
            token: None,
            ..WordPressAccess::default()
        };
        assert_eq!(judged(&open, &[], &[]), Verdict::Welcome);
    }
}
