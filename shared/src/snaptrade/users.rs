//! Users at SnapTrade, and the link to the portal in which they connect a brokerage.
//!
//! Source: SnapTrade's OpenAPI file, tags "Authentication" and "API Status".

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::answer::Names;
use super::client::{Call, Client, Repeat};
use super::connections::ConnectionId;
use super::credentials::{UserCredentials, UserSecret};
use super::error::Error;
use super::lenient::{self, open_enum};
use crate::ids::UpstreamId;

/// Whether SnapTrade is up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// The API's version.
    #[serde(default, deserialize_with = "lenient::count")]
    pub version: Option<u64>,
    /// SnapTrade's own time, to compare ours with.
    #[serde(default, deserialize_with = "lenient::time")]
    pub timestamp: Option<Timestamp>,
    /// Whether the API is up.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub online: bool,
}

/// A user that was just registered, or whose secret was just reset. The secret is not shown again.
#[derive(Debug, Clone, Deserialize)]
pub struct RegisteredUser {
    /// The user's id, as it was given.
    #[serde(rename = "userId")]
    pub user_id: UpstreamId,
    /// The user's secret.
    #[serde(rename = "userSecret")]
    pub user_secret: UserSecret,
}

/// SnapTrade has taken note that a user is to be deleted. It happens later; a `USER_DELETED` webhook says when.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DeletedUser {
    /// `deleted`, in all that was seen.
    #[serde(default, deserialize_with = "lenient::text")]
    pub status: Option<String>,
    /// SnapTrade's own words.
    #[serde(default, deserialize_with = "lenient::text")]
    pub detail: Option<String>,
    /// The user's id.
    #[serde(default, rename = "userId", deserialize_with = "lenient::text")]
    pub user_id: Option<String>,
}

open_enum! {
    /// What a connection may be used for.
    ConnectionType {
        /// Reading only.
        Read = "read",
        /// Reading and trading; the portal shows only brokerages that offer it.
        Trade = "trade",
        /// Trading where the brokerage offers it, else reading.
        TradeIfAvailable = "trade-if-available",
    }
}

/// What the portal is to look like and do. Everything is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginRequest {
    /// The slug of the brokerage to go to straight away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
    /// Whether to leave the portal for `custom_redirect` at once when the connection is made. Ignored in a frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immediate_redirect: Option<bool>,
    /// Where the user goes afterwards. Ignored in a frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_redirect: Option<String>,
    /// The disabled connection that is to be repaired, in place of a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnect: Option<ConnectionId>,
    /// What the connection may be used for; `read` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_type: Option<ConnectionType>,
    /// Whether the portal has a button to close it; it has when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show_close_button: Option<bool>,
    /// Whether the portal is dark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dark_mode: Option<bool>,
    /// The portal's language, `en` or `pt-BR`; anything else is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// The portal's version; all are served version 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_portal_version: Option<String>,
}

/// A link to the portal. It works for [`LOGIN_LINK_LIFETIME`] and for whoever holds it, so it does not print.
#[derive(Clone, Deserialize)]
pub struct LoginResponse {
    /// Where to send the user.
    #[serde(rename = "redirectURI")]
    pub redirect_uri: String,
    /// The portal session's id.
    #[serde(default, rename = "sessionId", deserialize_with = "lenient::text")]
    pub session_id: Option<String>,
}

impl std::fmt::Debug for LoginResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginResponse")
            .field("redirect_uri", &"[redacted]")
            .field("session_id", &self.session_id)
            .finish()
    }
}

/// How long a portal link works. Source: SnapTrade's OpenAPI file, `loginSnapTradeUser`.
pub const LOGIN_LINK_LIFETIME: std::time::Duration = std::time::Duration::from_secs(300);

impl Client {
    /// Asks whether SnapTrade is up. Nothing is signed, so this says nothing of our credentials.
    ///
    /// # Errors
    /// [`Error`]; mostly `Outage`, `Timeout` or `Unreachable`.
    pub async fn check(&self) -> Result<Status, Error> {
        self.call(Call::get("ApiStatus_check").path("/").unsigned()).await
    }

    /// Registers a user. This is sent once: when it is not answered the user may exist, and then nobody knows the
    /// secret.
    ///
    /// # Errors
    /// `UserExists` when the id is taken, `LimitReached` when there is no room, `Invalid` when the id is not
    /// acceptable, and every other [`Error`].
    pub async fn register_user(&self, user_id: &UpstreamId) -> Result<RegisteredUser, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(rename = "userId")]
            user_id: &'a str,
        }
        let call = Call::post("Authentication_registerSnapTradeUser", Repeat::Never)
            .path("/snapTrade/registerUser")
            .body(&Body {
                user_id: user_id.as_str(),
            })?;
        self.call(call).await
    }

    /// Asks for a user, all connections and all data to be deleted. SnapTrade does so later.
    ///
    /// # Errors
    /// `NotFound` when there is no such user, and every other [`Error`].
    pub async fn delete_user(&self, user_id: &UpstreamId) -> Result<DeletedUser, Error> {
        let call = Call::delete("Authentication_deleteSnapTradeUser")
            .path("/snapTrade/deleteUser")
            .param("userId", user_id.as_str())
            .naming(Names::User, Vec::new());
        self.call(call).await
    }

    /// All users of our client id.
    ///
    /// # Errors
    /// Every [`Error`].
    pub async fn list_users(&self) -> Result<Vec<UpstreamId>, Error> {
        self.call(Call::get("Authentication_listSnapTradeUsers").path("/snapTrade/listUsers"))
            .await
    }

    /// Gives a user a new secret in place of the one in hand. This is sent once: when it is not answered the old secret
    /// may be void and the new one unknown, and only deleting and registering the user anew helps.
    ///
    /// # Errors
    /// `UserSecretRejected` when the secret in hand is wrong, and every other [`Error`].
    pub async fn reset_user_secret(&self, user: &UserCredentials) -> Result<RegisteredUser, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(rename = "userId")]
            user_id: &'a str,
            #[serde(rename = "userSecret")]
            user_secret: &'a str,
        }
        let call = Call::post("Authentication_resetSnapTradeUserSecret", Repeat::Never)
            .path("/snapTrade/resetUserSecret")
            .naming(Names::UserAndSecret, vec![user.user_secret.expose()])
            .body(&Body {
                user_id: user.user_id.as_str(),
                user_secret: user.user_secret.expose(),
            })?;
        self.call(call).await
    }

    /// A link to the portal in which the user connects a brokerage. An unused link has no effect, so this is sent again
    /// where it is not answered.
    ///
    /// # Errors
    /// `UserSecretRejected`, `Invalid` when the brokerage does not offer what is asked for, and every other [`Error`].
    pub async fn login(
        &self,
        user: &UserCredentials,
        request: &LoginRequest,
    ) -> Result<LoginResponse, Error> {
        let call = Call::post("Authentication_loginSnapTradeUser", Repeat::Harmless)
            .path("/snapTrade/login")
            .user(user)
            .body(request)?;
        self.call(call).await
    }
}
