//! End-to-end scenarios: what users, operators and SnapTrade do to a running stack, over HTTP, and what comes of it.
//!
//! Each scenario starts a stack of its own in this process, so they run side by side. Time passes by moving the
//! stack's clock, except where a call has to take real time to fail.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod access;
mod access_edge;
mod adopted;
mod answers;
mod brokerage;
mod budgets;
mod chaos;
mod counting;
mod crowd;
mod documented;
mod doubted_lists;
mod holds;
mod inbound;
mod input;
mod large_lists;
mod limit;
mod logs;
mod metrics;
mod month;
mod policies;
mod portfolio;
mod rate_limit;
mod refused_deletions;
mod rejected_secrets;
mod restart;
mod snaptrade_faults;
mod store_faults;
mod syncing;
mod table;
mod transactions;
mod troubles;
mod webhooks;
mod world;
