//! The calls that the shop, the access API and the peer's API take.

use http::Method;
use percent_encoding::percent_decode_str;

/// The name of taking a mail, for faults.
pub(super) const MAIL: &str = "mail";

/// What faults may call an operation.
const NAMES: [&str; 8] = [
    "transactions",
    "members",
    "grant",
    "update",
    "remove",
    "list",
    "validate",
    MAIL,
];

/// The services, each with its own manner of refusing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// The shop.
    WordPress,
    /// The API with absolute ends of access.
    AccessApi,
    /// The peer's API with relative ones.
    Peer,
}

/// A call, with what its path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    /// The shop's own endpoint: all transactions since a time.
    TransactionsSince,
    /// MemberPress's list, page by page.
    TransactionPage,
    /// MemberPress's single transaction.
    Transaction(String),
    /// MemberPress's single member.
    Member(String),
    /// Opens a script to a user.
    Grant,
    /// Changes when a user's access ends.
    Update,
    /// Takes a user's access.
    Remove,
    /// A script's users.
    List(String),
    /// Whether TradingView knows a user.
    Validate(String),
    /// The same at the peer.
    PeerValidate(String),
    /// Extends a user's access at the peer.
    PeerGrant(String),
    /// Takes a user's access at the peer.
    PeerRemove(String),
    /// A user's access at the peer.
    PeerInfo(String),
}

impl Operation {
    /// The call that a request makes; without one, the service that has to say so.
    pub(super) fn find(method: &Method, path: &str) -> Result<Self, Service> {
        let decoded = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let is = |wanted: &Method| method == wanted;
        let found = match *segments.as_slice() {
            ["wp-json", "memberpress", "v1", "all-user-transactions"] if is(&Method::GET) => {
                Self::TransactionsSince
            }
            ["wp-json", "mp", "v1", "transactions"] if is(&Method::GET) => Self::TransactionPage,
            ["wp-json", "mp", "v1", "transactions", id] if is(&Method::GET) => Self::Transaction(decoded(id)),
            ["wp-json", "mp", "v1", "members", id] if is(&Method::GET) => Self::Member(decoded(id)),
            ["tradingview", "access", "grant"] if is(&Method::POST) => Self::Grant,
            ["tradingview", "access", "update"] if is(&Method::POST) => Self::Update,
            ["tradingview", "access", "remove"] if is(&Method::POST) => Self::Remove,
            ["tradingview", "access", "scriptUsers", script] if is(&Method::GET) => {
                Self::List(decoded(script))
            }
            ["tradingview", "validate", name] if is(&Method::GET) => Self::Validate(decoded(name)),
            ["validate", name] if is(&Method::GET) => Self::PeerValidate(decoded(name)),
            ["access", name] if is(&Method::POST) => Self::PeerGrant(decoded(name)),
            ["access", name] if is(&Method::DELETE) => Self::PeerRemove(decoded(name)),
            ["info", name] if is(&Method::POST) => Self::PeerInfo(decoded(name)),
            ["wp-json", ..] => return Err(Service::WordPress),
            _ => return Err(Service::AccessApi),
        };
        Ok(found)
    }

    /// Whose call it is.
    pub(super) fn service(&self) -> Service {
        match self {
            Self::TransactionsSince | Self::TransactionPage | Self::Transaction(_) | Self::Member(_) => {
                Service::WordPress
            }
            Self::Grant | Self::Update | Self::Remove | Self::List(_) | Self::Validate(_) => {
                Service::AccessApi
            }
            Self::PeerValidate(_) | Self::PeerGrant(_) | Self::PeerRemove(_) | Self::PeerInfo(_) => {
                Service::Peer
            }
        }
    }

    /// What faults call it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::TransactionsSince | Self::TransactionPage | Self::Transaction(_) => "transactions",
            Self::Member(_) => "members",
            Self::Grant | Self::PeerGrant(_) => "grant",
            Self::Update => "update",
            Self::Remove | Self::PeerRemove(_) => "remove",
            Self::List(_) | Self::PeerInfo(_) => "list",
            Self::Validate(_) | Self::PeerValidate(_) => "validate",
        }
    }
}

/// Whether faults may call an operation so.
pub(super) fn is_name(name: &str) -> bool {
    NAMES.contains(&name)
}

/// A sentence with the names.
pub(super) fn names() -> String {
    format!("There are {}.", NAMES.map(|name| format!("`{name}`")).join(", "))
}
