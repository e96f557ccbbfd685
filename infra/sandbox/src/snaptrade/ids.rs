//! Random identifiers and secrets, in the shape that SnapTrade gives them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// A random UUID (version 4) in its usual spelling.
pub(super) fn uuid() -> String {
    let mut bytes = random();
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// A random token of 32 hexadecimal digits.
pub(super) fn token() -> String {
    random().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Digits that are always the same for the same `seed`, as an institution's account number is for one
/// customer. At most 19 of them.
pub(super) fn digits(seed: &str, count: usize) -> String {
    // FNV-1a: the standard library's hashers may change between releases, and a number must survive a
    // restart.
    let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:019}").chars().rev().take(count).collect()
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // Nothing here protects anything real, so a weaker source will do where the system has none.
        let mut words = std::iter::repeat_with(|| RandomState::new().build_hasher().finish());
        let (high, low) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        bytes = ((u128::from(high) << 64) | u128::from(low)).to_be_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_the_usual_shape_and_differ() {
        let (one, two) = (uuid(), uuid());
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'4');
        assert_ne!(one, two);
        assert_eq!(token().len(), 32);
    }

    #[test]
    fn digits_are_stable() {
        assert_eq!(digits("ada", 10), digits("ada", 10));
        assert_ne!(digits("ada", 10), digits("grace", 10));
        assert_eq!(digits("ada", 10).len(), 10);
    }
}
