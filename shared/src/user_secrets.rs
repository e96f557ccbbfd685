//! A user's SnapTrade secret as it is stored.
use serde::{Deserialize, Serialize};
/// An encrypted secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    /// Which key opens it.
    pub key_id: String,
    /// Nonce and ciphertext, in base 64.
    pub sealed: String,
}
