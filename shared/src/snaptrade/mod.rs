//! A client of SnapTrade, the service that connects users' brokerage accounts.
//!
//! It covers all that SnapTrade offers to a new customer, one method of [`Client`] for each operation: users and the
//! portal, connections, accounts and what is in them, orders, reference data, and the webhooks that SnapTrade sends.
//! Operations that SnapTrade has taken away (`/holdings`, `/activities`, quotes of options and others, which answer
//! 410) are left out.
//!
//! The facts here come from SnapTrade's OpenAPI file, its guides and its published clients. Where those contradict each
//! other or what was seen on the wire, the reader is lenient: unknown fields are passed over, unknown values kept, and
//! numbers taken as numbers or as text.

mod accounts;
mod answer;
mod client;
mod connections;
mod credentials;
mod error;
mod http;
mod lenient;
mod orders;
mod reference;
pub mod signature;
#[cfg(test)]
mod test_server;
mod trading;
mod users;
pub mod webhook;

pub use accounts::*;
pub use client::{BUDGET, Client, ClientOptions, Gate, RateLimit, TIMEOUT};
pub use connections::*;
pub use credentials::{Credentials, UserCredentials, UserSecret};
pub use error::{Answer, Error, ErrorKind, Outcome};
pub use http::{HttpClientError, http_client};
pub use orders::*;
pub use reference::*;
pub use trading::*;
pub use users::*;
