//! The access sync: customers of a WordPress shop who pay get access to invite-only scripts at TradingView,
//! for as long as they paid for (facts/access.md).
//!
//! All of this room so far decides and does no I/O. A row of the shop is read by [`transactions`] and judged by
//! [`assessment`]; what a person has bought stands in a [`ledger`], from which the end of access is reckoned.

pub mod assessment;
pub mod configuration;
pub mod duration;
pub mod expiry;
mod fields;
pub mod ids;
pub mod ledger;
pub mod names;
pub mod times;
pub mod transactions;
