//! A user's SnapTrade secret as it is stored: encrypted with AES-256-GCM under a data key, and bound to its owner.
//!
//! The tenant and the user go into the encryption as associated data, so a ciphertext that is moved to another user's
//! item does not open there. The key's id stands beside it, so that keys can be rotated while old ciphertexts remain.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ids::{Stem, TenantId};
use crate::secrets::DataKeys;
use crate::snaptrade::UserSecret;

/// Bytes of a nonce of AES-GCM.
const NONCE_BYTES: usize = 12;

/// A user's secret, encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SealedSecret {
    /// Which data key opens it.
    pub key_id: String,
    /// Nonce and ciphertext with its tag, in base 64.
    pub sealed: String,
}

/// A secret could not be encrypted or decrypted. The text names no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SealError {
    /// The data keys hold no current key.
    #[error("there is no current data key")]
    NoKey,
    /// The key that opens the secret is not among the data keys.
    #[error("the data key {0} is not among the keys in use")]
    UnknownKey(String),
    /// The ciphertext was changed, or belongs to somebody else.
    #[error("the secret does not open: it was changed, or belongs to another user")]
    Forged,
    /// The operating system gives no random bytes, or the cipher refused.
    #[error("the secret could not be encrypted")]
    Cipher,
}

/// Encrypts the secret of the user in partition `owner` of `tenant` under the current key.
///
/// # Errors
/// [`SealError::NoKey`], [`SealError::Cipher`].
pub fn seal(
    keys: &DataKeys,
    tenant: &TenantId,
    owner: &Stem,
    secret: &UserSecret,
) -> Result<SealedSecret, SealError> {
    let (key_id, key) = keys.current().ok_or(SealError::NoKey)?;
    let cipher = Aes256Gcm::new_from_slice(key).map_err(|_| SealError::Cipher)?;
    let mut nonce = [0_u8; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| SealError::Cipher)?;
    let owner = associated_data(tenant, owner, key_id);
    let payload = Payload {
        msg: secret.expose().as_bytes(),
        aad: owner.as_bytes(),
    };
    let ciphertext = cipher
        .encrypt(&Nonce::from(nonce), payload)
        .map_err(|_| SealError::Cipher)?;
    let mut sealed = nonce.to_vec();
    sealed.extend(ciphertext);
    Ok(SealedSecret {
        key_id: key_id.to_owned(),
        sealed: STANDARD_NO_PAD.encode(sealed),
    })
}

/// Decrypts the secret of the user in partition `owner` of `tenant`.
///
/// # Errors
/// [`SealError::UnknownKey`] when its key is no longer in use, [`SealError::Forged`] when it was changed or belongs to
/// somebody else.
pub fn open(
    keys: &DataKeys,
    tenant: &TenantId,
    owner: &Stem,
    sealed: &SealedSecret,
) -> Result<UserSecret, SealError> {
    let key = keys
        .get(&sealed.key_id)
        .ok_or_else(|| SealError::UnknownKey(sealed.key_id.clone()))?;
    let cipher = Aes256Gcm::new_from_slice(key).map_err(|_| SealError::Cipher)?;
    let bytes = STANDARD_NO_PAD
        .decode(&sealed.sealed)
        .map_err(|_| SealError::Forged)?;
    let (nonce, ciphertext) = bytes
        .split_first_chunk::<NONCE_BYTES>()
        .ok_or(SealError::Forged)?;
    let owner = associated_data(tenant, owner, &sealed.key_id);
    let payload = Payload {
        msg: ciphertext,
        aad: owner.as_bytes(),
    };
    let text = cipher
        .decrypt(&Nonce::from(*nonce), payload)
        .map(Zeroizing::new)
        .map_err(|_| SealError::Forged)?;
    let text = std::str::from_utf8(&text).map_err(|_| SealError::Forged)?;
    Ok(UserSecret::new(text))
}

/// What the ciphertext is bound to. The parts hold no line break, so no two owners give the same text.
fn associated_data(tenant: &TenantId, owner: &Stem, key_id: &str) -> String {
    format!("berth user secret\n{tenant}\n{}\n{key_id}", owner.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserId;

    fn stem(user: &str) -> Stem {
        UserId::parse(user).unwrap().stem()
    }

    #[test]
    fn a_secret_opens_for_its_owner_and_for_nobody_else() {
        let keys = DataKeys::generate("k1").unwrap();
        let tenant = TenantId::default();
        let secret = UserSecret::new("a-secret-of-ada");
        let sealed = seal(&keys, &tenant, &stem("ada"), &secret).unwrap();
        assert!(!format!("{sealed:?}").contains("a-secret"));
        assert_eq!(
            open(&keys, &tenant, &stem("ada"), &sealed).unwrap().expose(),
            "a-secret-of-ada"
        );
        assert_eq!(
            open(&keys, &tenant, &stem("grace"), &sealed).unwrap_err(),
            SealError::Forged
        );
        let other = TenantId::parse("other").unwrap();
        assert_eq!(
            open(&keys, &other, &stem("ada"), &sealed).unwrap_err(),
            SealError::Forged
        );
    }

    #[test]
    fn a_changed_ciphertext_and_a_key_out_of_use_are_told_apart() {
        let keys = DataKeys::generate("k1").unwrap();
        let tenant = TenantId::default();
        let sealed = seal(&keys, &tenant, &stem("ada"), &UserSecret::new("secret")).unwrap();
        let mut changed = sealed.clone();
        changed.sealed = STANDARD_NO_PAD.encode([7_u8; 40]);
        assert_eq!(
            open(&keys, &tenant, &stem("ada"), &changed).unwrap_err(),
            SealError::Forged
        );
        let rotated = DataKeys::generate("k2").unwrap();
        let error = open(&rotated, &tenant, &stem("ada"), &sealed).unwrap_err();
        assert_eq!(error, SealError::UnknownKey("k1".to_owned()));
    }
}
