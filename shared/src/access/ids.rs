//! The ids of the access sync, each a type of its own.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest id that is taken from a shop, in bytes. Real ones are numbers.
pub const ID_MAX_BYTES: usize = 64;

macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes `text` as it is.
            #[must_use]
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// An invite-only script at TradingView, as the access API names it.
    ScriptId
}

text_id! {
    /// A product (MemberPress: a membership) of the shop.
    ProductId
}

text_id! {
    /// A subscription of the shop, to which all its renewals belong.
    SubscriptionId
}

/// A member of the shop by WordPress's user id. A person is never known by a name, as names change
/// (facts/access.md C1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PersonId(pub u64);

impl fmt::Display for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A transaction of the shop. Numbers are ordered as numbers, before all that are not numbers
/// (C2: "numeric `txn_id`").
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransactionId(String);

impl TransactionId {
    /// Takes `text` as an id: printable ASCII without spaces. A number is the same id with zeros before it
    /// and without.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(number) = text.parse::<u64>() {
            return (number > 0).then(|| Self(number.to_string()));
        }
        let plain = (1..=ID_MAX_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        plain.then(|| Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn number(&self) -> Option<u64> {
        self.0.parse().ok()
    }
}

impl Ord for TransactionId {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.number(), other.number()) {
            (Some(own), Some(other)) => own.cmp(&other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.0.cmp(&other.0),
        }
    }
}

impl PartialOrd for TransactionId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TransactionId {
        TransactionId::parse(text).unwrap()
    }

    #[test]
    fn transactions_are_ordered_by_their_numbers() {
        assert!(id("9") < id("10"));
        assert!(id("10") < id("a"));
        assert!(id("a") < id("b"));
    }

    #[test]
    fn a_number_is_one_id_however_it_is_written() {
        assert_eq!(id(" 007"), id("7"));
    }

    #[test]
    fn what_cannot_be_an_id_is_none() {
        for bad in ["", " ", "0", "a b", "a\nb", "ä", &"x".repeat(65)] {
            assert_eq!(TransactionId::parse(bad), None, "{bad:?}");
        }
    }
}
