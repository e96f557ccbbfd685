//! A client of SnapTrade, the service that connects users' brokerage accounts.
//!
//! The facts here come from SnapTrade's OpenAPI file, its guides and its published clients. Where those contradict each
//! other or what was seen on the wire, the reader is lenient: unknown fields are passed over, unknown values kept, and
//! numbers taken as numbers or as text.

mod credentials;
mod error;
pub mod signature;

pub use credentials::{Credentials, UserCredentials, UserSecret};
pub use error::{Answer, Error, ErrorKind, Outcome};
