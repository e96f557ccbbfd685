//! The ids that Berth hands around, each a type of its own so that none can stand where another belongs.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest user id that a caller may choose, in characters.
pub const USER_ID_MAX_CHARS: usize = 128;

/// Longest user id that is sent to SnapTrade as it is; a longer one is replaced by its hash.
const PLAIN_ID_MAX_CHARS: usize = 64;

/// Marks the part of an upstream id that is a hash. An id that begins with it is hashed too, so that nobody can
/// choose an id that equals another user's hash.
const HASH_PREFIX: &str = "sha256-";

/// Stands between the user's part and the attempt in an id minted here.
const ATTEMPT_SEPARATOR: char = '~';

/// Characters of an attempt: 12 of base 32, 60 random bits.
const ATTEMPT_CHARS: usize = 12;

/// Why a text is not a user id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// It is empty or longer than [`USER_ID_MAX_CHARS`].
    #[error("must be 1 to {USER_ID_MAX_CHARS} characters long")]
    Length,
    /// It holds a space, a control character or another character without a shape of its own.
    #[error("must consist of printable characters without spaces")]
    Character,
}

/// An application's own id for one of its users: 1 to 128 printable characters without spaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(String);

impl UserId {
    /// Takes `text` as a user id.
    ///
    /// # Errors
    /// [`InvalidId`] says which rule the text breaks.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidId> {
        let text = text.into();
        let chars = text.chars().count();
        if chars == 0 || chars > USER_ID_MAX_CHARS {
            return Err(InvalidId::Length);
        }
        if text.chars().any(|c| !is_printable(c)) {
            return Err(InvalidId::Character);
        }
        Ok(Self(text))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part of an upstream id that stands for this user: the id itself, or its hash where SnapTrade should not
    /// see it (an email address, text that is not ASCII, more than 64 characters) or where it could be mistaken for
    /// an id minted here.
    #[must_use]
    pub fn stem(&self) -> Stem {
        let text = &self.0;
        let plain = is_plain(text);
        if plain { Stem(text.clone()) } else { hashed(text) }
    }
}

impl TryFrom<String> for UserId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(text)
    }
}

impl From<UserId> for String {
    fn from(id: UserId) -> Self {
        id.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `c` has a shape of its own on a page: no space, control, format or unassigned-direction character.
fn is_printable(c: char) -> bool {
    let invisible = matches!(c,
        '\u{00AD}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180E}'
        | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
        | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E0FFF}' | '\u{E000}'..='\u{F8FF}');
    !c.is_whitespace() && !c.is_control() && !invisible
}

/// Whether `text` may stand in an id at SnapTrade as it is.
fn is_plain(text: &str) -> bool {
    text.is_ascii()
        && text.chars().count() <= PLAIN_ID_MAX_CHARS
        && !text.contains('@')
        && !text.contains(ATTEMPT_SEPARATOR)
        && !text.starts_with(HASH_PREFIX)
}

/// The stem that hides `text`.
fn hashed(text: &str) -> Stem {
    let digest = Sha256::digest(text.as_bytes());
    let hash = base32(digest.get(..20).unwrap_or(&digest));
    Stem(format!("{HASH_PREFIX}{hash}"))
}

/// Whether `text` has the form of a hash that stands for an id.
fn is_hash(text: &str) -> bool {
    text.strip_prefix(HASH_PREFIX)
        .is_some_and(|hash| hash.len() == 32 && hash.chars().all(|c| matches!(c, 'a'..='z' | '2'..='7')))
}

/// The user's part of an id at SnapTrade. All that is known of one user, under whichever incarnation, is stored in
/// the partition that this names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stem(String);

impl Stem {
    /// The stem of a user whose own id is not known here, from what is shown in its place: its hash.
    #[must_use]
    pub fn shown(text: &str) -> Option<Self> {
        is_hash(text).then(|| Self(text.to_owned()))
    }

    /// The partition of a place that was set aside because SnapTrade does not let `upstream` go. No user's stem is the
    /// same: the space in what is hashed stands in no user's id.
    #[must_use]
    pub fn set_aside(upstream: &UpstreamId) -> Self {
        hashed(&format!("set aside {upstream}"))
    }

    /// The stem as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One try at registering or at holding a place: 12 random characters of base 32. It names the holder of a
/// reservation and is the suffix of the id minted for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptId(String);

impl AttemptId {
    /// A fresh attempt from 8 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 8]) -> Self {
        let text: String = base32(&bytes).chars().take(ATTEMPT_CHARS).collect();
        Self(text)
    }

    /// The revision that a record begins with that this attempt writes. It differs from attempt to attempt, so that
    /// a record which went and came again is never taken for the one that was read before.
    #[must_use]
    pub fn first_revision(&self) -> u64 {
        let value = |c: u8| match c {
            b'a'..=b'z' => u64::from(c - b'a'),
            b'2'..=b'7' => u64::from(c - b'2') + 26,
            _ => 0,
        };
        // Ten characters of five bits leave room below 2^53, where every reader of JSON still counts exactly.
        self.0
            .bytes()
            .take(10)
            .fold(0, |revision, c| (revision << 5) | value(c))
            + 1
    }

    /// The attempt as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An id at SnapTrade. One minted here is `<stem>~<attempt>`; one that came from elsewhere may be any text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UpstreamId(String);

impl UpstreamId {
    /// The id of one attempt of a user. It is sent to SnapTrade by that attempt only and never used again.
    #[must_use]
    pub fn mint(stem: &Stem, attempt: &AttemptId) -> Self {
        Self(format!("{}{ATTEMPT_SEPARATOR}{}", stem.0, attempt.0))
    }

    /// An id as SnapTrade's list or a webhook names it.
    #[must_use]
    pub fn from_snaptrade(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The stem and the attempt of an id that has the form of one minted here.
    fn minted(&self) -> Option<(&str, &str)> {
        let (stem, attempt) = self.0.rsplit_once(ATTEMPT_SEPARATOR)?;
        let well_formed = attempt.chars().count() == ATTEMPT_CHARS
            && attempt.chars().all(|c| matches!(c, 'a'..='z' | '2'..='7'))
            && !stem.is_empty()
            && (is_plain(stem) || is_hash(stem));
        well_formed.then_some((stem, attempt))
    }

    /// Whether the id has the form of one minted here.
    #[must_use]
    pub fn is_minted(&self) -> bool {
        self.minted().is_some()
    }

    /// The partition of the user that this id belongs to.
    #[must_use]
    pub fn stem(&self) -> Stem {
        match self.minted() {
            Some((stem, _)) => Stem(stem.to_owned()),
            None => UserId(self.0.clone()).stem(),
        }
    }

    /// The user's part as clients see it when nothing else is known of the user.
    #[must_use]
    pub fn shown_user_id(&self) -> &str {
        self.minted().map_or(self.0.as_str(), |(stem, _)| stem)
    }
}

impl fmt::Display for UpstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose credentials, limit and policy apply. `default` where a token names none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(String);

impl TenantId {
    /// Takes `text` as a tenant: 1 to 64 ASCII letters, digits, `-`, `_` or `.`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        well_formed.then(|| Self(text.to_owned()))
    }

    /// The tenant as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantId {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Base 32 in lower case and without padding.
fn base32(bytes: &[u8]) -> String {
    data_encoding::BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserId {
        UserId::parse(text).unwrap()
    }

    #[test]
    fn a_user_id_is_1_to_128_printable_characters_without_spaces() {
        assert!(UserId::parse("ada").is_ok());
        assert!(UserId::parse("zoë-日本").is_ok());
        assert_eq!(UserId::parse("").unwrap_err(), InvalidId::Length);
        assert!(UserId::parse("a".repeat(128)).is_ok());
        assert_eq!(UserId::parse("a".repeat(129)).unwrap_err(), InvalidId::Length);
        for bad in ["a b", "a\u{a0}b", "a\nb", "a\u{200b}", "\u{202e}a", "\0"] {
            assert_eq!(UserId::parse(bad).unwrap_err(), InvalidId::Character, "{bad:?}");
        }
    }

    #[test]
    fn a_plain_id_is_its_own_stem_and_others_are_hashed() {
        assert_eq!(user("auth0|5f7c").stem().as_str(), "auth0|5f7c");
        let plain = user("a".repeat(64).as_str());
        assert_eq!(plain.stem().as_str(), plain.as_str());
        for hidden in [
            "ada@example.com",
            "zoë",
            &"a".repeat(65),
            "ada~abcdefghijkl",
            "sha256-x",
        ] {
            let stem = user(hidden).stem();
            assert!(stem.as_str().starts_with(HASH_PREFIX), "{hidden}");
            assert!(stem.as_str().len() <= PLAIN_ID_MAX_CHARS);
        }
    }

    #[test]
    fn a_minted_id_leads_back_to_its_users_partition() {
        let attempt = AttemptId::from_random([7; 8]);
        assert_eq!(attempt.as_str().len(), 12);
        for id in ["ada", "ada@example.com"] {
            let upstream = UpstreamId::mint(&user(id).stem(), &attempt);
            assert!(upstream.is_minted());
            assert_eq!(upstream.stem(), user(id).stem());
        }
        for strange in [
            "foo@bar~abcdefghijkl",
            "é~abcdefghijkl",
            "a~abcdefghijkl~abcdefghijkl",
        ] {
            assert!(!UpstreamId::from_snaptrade(strange).is_minted(), "{strange}");
        }
        let hashed = UpstreamId::mint(&user("ada@example.com").stem(), &attempt);
        assert_eq!(Stem::shown(hashed.shown_user_id()), Some(hashed.stem()));
        let plain = UpstreamId::from_snaptrade("ada~short");
        assert!(!plain.is_minted());
        assert_eq!(UpstreamId::from_snaptrade("grace").stem(), user("grace").stem());
    }
}
