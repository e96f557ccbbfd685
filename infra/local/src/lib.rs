//! The local stack: the whole of Berth on one machine, with nothing but loopback between its parts.
//!
//! A [`Stack`] runs the functions' own handlers behind a gateway that does what API Gateway does, over an embedded
//! DynamoDB that the real AWS SDK talks to, beside sandboxes of the outside services, with a pump for the table's stream and a
//! scheduler. It is what `berth local` starts, and what each end-to-end test starts for itself.

mod access;
mod calls;
mod control;
mod directory;
mod dynamodb;
mod engine;
mod functions;
mod gateway;
mod invocation;
mod options;
mod schedule;
mod settings;
mod stack;
mod stream;

pub use access::{access_stand_ins, sample_access_configuration};
pub use calls::InvocationCalls;
pub use directory::{Announcement, Urls};
pub use dynamodb::{DynamoDb, Fault, Permission};
pub use options::{Data, Options, SnapTrade, StartError};
pub use settings::Settings;
pub use stack::{Stack, data_keys, empty_data};
