//! The two kinds of credentials that SnapTrade knows: ours, and one secret for each user.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};

use crate::ids::UpstreamId;

/// Our own credentials, issued in SnapTrade's dashboard.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The client id. It is part of every URL and no secret.
    pub client_id: String,
    /// The key that requests and webhooks are signed with.
    pub consumer_key: SecretString,
}

impl Credentials {
    /// Whether `other` holds the same id and key, so that there is no point in trying it in place of this.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.client_id == other.client_id
            && self.consumer_key.expose_secret() == other.consumer_key.expose_secret()
    }
}

/// A user's secret, which SnapTrade hands out once, when the user is registered or the secret is reset. It cannot be
/// printed, serialised or compared.
#[derive(Clone)]
pub struct UserSecret(SecretString);

impl UserSecret {
    /// Takes `text` as a user's secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The secret in the open, to be sent to SnapTrade or to be encrypted, and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for UserSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserSecret([redacted])")
    }
}

impl<'de> Deserialize<'de> for UserSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// What a call on behalf of a user needs.
#[derive(Debug, Clone)]
pub struct UserCredentials {
    /// The user's id at SnapTrade.
    pub user_id: UpstreamId,
    /// The user's secret.
    pub user_secret: UserSecret,
}
