//! The access sync: customers of a WordPress shop who pay get access to invite-only scripts at TradingView, for as
//! long as they paid for (facts/access.md).
//!
//! All of this room so far decides and does no I/O. A row of the shop is read by [`transactions`].

pub mod configuration;
pub mod duration;
mod fields;
pub mod ids;
pub mod names;
pub mod times;
pub mod transactions;
