//! Berth's common crate: everything that more than one Lambda function needs.
//!
//! The modules are rooms by subject. `connections` is what Berth exists for; `snaptrade` is the client of the
//! outside service, `store` the one table, `http` the edge, and `app` what a function starts from.

pub mod access;
pub mod app;
pub mod budget;
pub mod clock;
pub mod config;
pub mod connections;
pub mod http;
pub mod ids;
pub mod portfolio;
pub mod secrets;
pub mod snaptrade;
pub mod store;
pub mod telemetry;
pub mod user_secrets;
pub mod webhooks;
