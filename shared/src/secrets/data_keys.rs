//! The keys that users' secrets are encrypted with.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

/// Bytes of a key: AES-256.
pub const KEY_BYTES: usize = 32;

/// Longest id of a key, in characters.
const KEY_ID_MAX: usize = 64;

/// All keys in use: one that new secrets are encrypted with, and those that older ones still are. They are wiped from
/// memory when dropped, and do not print.
#[derive(Clone)]
pub struct DataKeys {
    current: String,
    keys: BTreeMap<String, Zeroizing<[u8; KEY_BYTES]>>,
}

/// The keys as the secret holds them.
#[derive(Deserialize)]
struct Stored {
    current: String,
    keys: BTreeMap<String, SecretString>,
}

impl DataKeys {
    /// Reads `{"current": "<key id>", "keys": {"<key id>": "<32 bytes in base 64>"}}`.
    ///
    /// # Errors
    /// What is wrong, in words, without any part of a key.
    pub fn parse(json: &str) -> Result<Self, String> {
        let stored: Stored = super::parse_json(json, "current, keys")?;
        let mut keys = BTreeMap::new();
        for (id, text) in stored.keys {
            let well_formed =
                (1..=KEY_ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
            if !well_formed {
                return Err(format!(
                    "a key's id must be 1 to {KEY_ID_MAX} printable ASCII characters"
                ));
            }
            let bytes = Zeroizing::new(
                STANDARD
                    .decode(text.expose_secret().trim())
                    .map_err(|_| format!("the key {id} is not base 64"))?,
            );
            let key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice())
                .map_err(|_| format!("the key {id} does not have {KEY_BYTES} bytes"))?;
            keys.insert(id, Zeroizing::new(key));
        }
        if !keys.contains_key(&stored.current) {
            return Err(format!(
                "the current key {} is not among the keys",
                stored.current
            ));
        }
        Ok(Self {
            current: stored.current,
            keys,
        })
    }

    /// One fresh key, named `id`.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn generate(id: &str) -> Result<Self, String> {
        let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
        getrandom::fill(key.as_mut_slice()).map_err(|error| format!("no random bytes: {error}"))?;
        Ok(Self {
            current: id.to_owned(),
            keys: BTreeMap::from([(id.to_owned(), key)]),
        })
    }

    /// The keys in the form that [`DataKeys::parse`] reads, to be stored as a secret.
    #[must_use]
    pub fn to_json(&self) -> SecretString {
        let keys: BTreeMap<&str, String> = self
            .keys
            .iter()
            .map(|(id, key)| (id.as_str(), STANDARD.encode(key.as_slice())))
            .collect();
        SecretString::from(serde_json::json!({"current": self.current, "keys": keys}).to_string())
    }

    /// The id of the key that new secrets are encrypted with, and the key.
    #[must_use]
    pub fn current(&self) -> Option<(&str, &[u8; KEY_BYTES])> {
        self.get(&self.current).map(|key| (self.current.as_str(), key))
    }

    /// The key of this id, where it is still in use.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&[u8; KEY_BYTES]> {
        self.keys.get(id).map(|key| &**key)
    }
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKeys {{ current: {}, keys: [redacted] }}", self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written_and_do_not_print() {
        let keys = DataKeys::generate("k1").unwrap();
        let json = keys.to_json();
        let read = DataKeys::parse(json.expose_secret()).unwrap();
        assert_eq!(read.current(), keys.current());
        assert_eq!(read.get("k2"), None);
        let key = STANDARD.encode(keys.current().unwrap().1);
        assert!(json.expose_secret().contains(&key));
        assert!(!format!("{keys:?}").contains(&key));
    }

    #[test]
    fn what_is_wrong_with_keys_is_said_without_them() {
        let good = STANDARD.encode([7; KEY_BYTES]);
        for (json, expected) in [
            (
                "VERYSECRET".to_owned(),
                "not a JSON object with the members current, keys",
            ),
            (
                r#"{"current": 1, "keys": "VERYSECRET"}"#.to_owned(),
                "not a JSON object with",
            ),
            (
                r#"{"current": "a", "keys": {}}"#.to_owned(),
                "the current key a is not among",
            ),
            (
                r#"{"current": "a", "keys": {"a": "VERYSECRET"}}"#.to_owned(),
                "the key a",
            ),
            (
                r#"{"current": "a", "keys": {"a": "VERYSECRET!"}}"#.to_owned(),
                "the key a is not base 64",
            ),
            (
                format!(r#"{{"current": "a b", "keys": {{"a b": "{good}"}}}}"#),
                "a key's id",
            ),
        ] {
            let said = DataKeys::parse(&json).unwrap_err();
            assert!(said.contains(expected), "{said}");
            assert!(!said.contains("VERYSECRET"), "{said}");
        }
    }
}
