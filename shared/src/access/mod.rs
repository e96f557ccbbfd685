//! The access sync: customers of a WordPress shop who pay get access to invite-only scripts at TradingView,
//! for as long as they paid for (facts/access.md).
//!
//! Most of this room decides and does no I/O. A row of the shop is read by [`transactions`] and judged
//! by [`assessment`]; what a person has bought stands in a [`ledger`], from which the end of access is
//! reckoned; [`plan`] says what has to be done about it at the access API, and [`progress`] where each
//! transaction stands until that is done. [`guards`] says when the shop is not to be believed, [`retries`]
//! when a call is made again, [`holds`] what is given back for a delay. [`mail`] tells people.
//!
//! A [`customer`] has all of that, and stands in the [`books`]. The outside is reached by [`shop`] and [`service`],
//! whose calls a [`tally`] counts. [`AccessSync`] is what functions and commands call.

pub mod applying;
pub mod assessment;
pub mod books;
pub mod configuration;
pub mod customer;
pub mod duration;
pub mod expiry;
mod fields;
pub mod guards;
pub mod holds;
pub mod ids;
pub mod ledger;
pub mod mail;
pub mod master_data;
pub mod meter;
pub mod names;
pub mod plan;
pub mod progress;
pub mod records;
pub mod remote;
pub mod report;
pub mod retries;
mod run;
pub mod schedule;
mod sending;
pub mod service;
pub mod shop;
#[cfg(test)]
mod simulation;
mod sync;
pub mod tally;
pub mod times;
pub mod transactions;

pub use run::Refused;
pub use sync::{AccessSync, DeadLetter, Listed, Review, ReviewDecision};
