//! What users have at their brokerages: connections, accounts, balances and positions, read from SnapTrade and stored.
//!
//! What is stored is a copy. Each part of it carries the id at SnapTrade that it was read under and the time at which
//! its reading began: a part of an earlier registration is never shown, and a reading never takes the place of one
//! that began later.

pub mod accounts;
pub mod brokerages;
pub mod changes;
pub mod connections;
pub mod deleting;
pub mod exact;
pub mod figures;
pub mod history;
pub mod holdings;
pub mod mode;
pub mod overview;
pub mod performance;
pub mod portal;
pub mod provider;
pub mod reader;
pub mod refresh;
pub mod schedule;
mod snaptrade_provider;
pub mod statements;
pub mod transactions;
mod usage;
pub mod userdata;
