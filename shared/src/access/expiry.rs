//! When access ends.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How [`Expiry::NoAccess`] is written.
const NO_ACCESS: &str = "none";

/// How [`Expiry::Lifetime`] is written.
const LIFETIME: &str = "lifetime";

/// When access ends. Less access is less than more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(try_from = "String", into = "String")]
pub enum Expiry {
    /// There never was any.
    #[default]
    NoAccess,
    /// At this moment, which is the first without access.
    At(Timestamp),
    /// Never.
    Lifetime,
}

impl Expiry {
    /// Whether there is access at `now`.
    #[must_use]
    pub fn is_live(self, now: Timestamp) -> bool {
        match self {
            Self::NoAccess => false,
            Self::At(end) => end > now,
            Self::Lifetime => true,
        }
    }

    /// The moment, where there is one.
    #[must_use]
    pub fn at(self) -> Option<Timestamp> {
        match self {
            Self::At(end) => Some(end),
            Self::NoAccess | Self::Lifetime => None,
        }
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAccess => f.write_str(NO_ACCESS),
            Self::At(end) => end.fmt(f),
            Self::Lifetime => f.write_str(LIFETIME),
        }
    }
}

impl From<Expiry> for String {
    fn from(expiry: Expiry) -> Self {
        expiry.to_string()
    }
}

impl TryFrom<String> for Expiry {
    type Error = jiff::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Ok(match text.as_str() {
            NO_ACCESS => Self::NoAccess,
            LIFETIME => Self::Lifetime,
            time => Self::At(time.parse()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_access_is_more() {
        let soon = Expiry::At("2026-01-01T00:00:00Z".parse().unwrap());
        let later = Expiry::At("2026-01-02T00:00:00Z".parse().unwrap());
        assert!(Expiry::NoAccess < soon && soon < later && later < Expiry::Lifetime);
    }

    #[test]
    fn at_its_end_access_is_over() {
        let end: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let before: Timestamp = "2025-12-31T23:59:59Z".parse().unwrap();
        assert!(Expiry::At(end).is_live(before) && !Expiry::At(end).is_live(end));
        assert!(Expiry::Lifetime.is_live(end) && !Expiry::NoAccess.is_live(end));
    }

    #[test]
    fn it_is_read_as_it_is_written() {
        for expiry in [
            Expiry::NoAccess,
            Expiry::Lifetime,
            Expiry::At("2026-01-01T00:00:00Z".parse().unwrap()),
        ] {
            let text = serde_json::to_string(&expiry).unwrap();
            assert_eq!(serde_json::from_str::<Expiry>(&text).unwrap(), expiry, "{text}");
        }
    }
}
