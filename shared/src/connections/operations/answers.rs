//! What the operations answer, as routes and commands pass it on.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::to_the_millisecond;
use crate::connections::policy;
use crate::ids::UserId;
use crate::snaptrade::ConnectionId;

/// The places as a caller sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Taken.
    pub in_use: u32,
    /// There are.
    pub limit: u32,
}

/// Who gave way, as a caller sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evicted {
    /// Who, for operators only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Which connection, for operators only; where connections are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<ConnectionId>,
    /// Why.
    pub reason: policy::Reason,
    /// When that user was registered, or that connection made.
    #[serde(serialize_with = "to_the_millisecond")]
    pub created_at: Timestamp,
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// Always true: what failed is a problem instead.
    pub success: bool,
    /// Who.
    pub user_id: UserId,
    /// Now, rather than before.
    pub created: bool,
    /// Since when.
    #[serde(serialize_with = "to_the_millisecond")]
    pub created_at: Timestamp,
    /// Who gave way.
    pub evicted: Option<Evicted>,
    /// The places after it.
    pub slots: Places,
}

/// The answer to a hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Always true: what failed is a problem instead.
    pub success: bool,
    /// Until when the place is kept; `None` for a user who is registered.
    pub held_until: Option<Timestamp>,
    /// Who gave way.
    pub evicted: Option<Evicted>,
    /// The places after it.
    pub slots: Places,
}

/// The answer to a deletion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deleted {
    /// Who.
    pub user_id: String,
    /// Which connection, where only that was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<ConnectionId>,
    /// Always true: what failed is a problem instead.
    pub deleted: bool,
    /// What SnapTrade made of it: `queued` or `unknown_there`.
    pub upstream: String,
}

/// What making room proactively came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomMade {
    /// The places after it.
    pub slots: Places,
    /// Who was deleted; none where there was room.
    pub deleted: Option<Deleted>,
}
