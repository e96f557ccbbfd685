//! Counting brokerage connections, which is what SnapTrade's plans count.
//!
//! Registering takes no place here. A place is taken before a link to the portal is given out, and kept for as long as
//! a connection may still come of it ([`admission`]). What SnapTrade then lists decides: [`reconciling`] is the only way
//! in which connections come into the books and leave them, whoever asks for it (a visit, a webhook, the sync, the
//! opening). Places in use are the connections that are not leaving and the visits; those leaving are counted apart,
//! and nobody gets a link while both together are more than the limit.

pub mod admission;
pub mod candidates;
pub mod departed;
pub mod disconnecting;
pub mod reconciling;
pub mod returning;
pub mod upkeep;

use std::time::Duration;

/// How long a place is kept for a visit to the portal: five minutes in which the link can be opened, and 25 for which
/// the page can be used.
pub const VISIT: Duration = Duration::from_secs(30 * 60);

/// How long a place is kept in all, however many links are asked for meanwhile.
pub const LONGEST_VISIT: Duration = Duration::from_secs(60 * 60);

/// How long a place is kept after an attempt that failed. SnapTrade does not say which visit it was of, and its portal
/// allows another try.
pub const AFTER_FAILURE: Duration = Duration::from_secs(10 * 60);

/// How far SnapTrade's clock may be behind ours when a new connection is told from an old one.
pub const MADE_BEFORE: Duration = Duration::from_secs(60);

/// Most visits at a time; they are kept in one item.
pub const MAX_VISITS: usize = 100;

#[cfg(test)]
mod simulation;
