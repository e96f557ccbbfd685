//! The local stack.
mod calls;
mod control;
mod directory;
mod dynamodb;
mod engine;
mod gateway;
mod invocation;
mod loopback;
mod options;
mod schedule;
mod settings;
mod stream;
pub use calls::InvocationCalls;
pub use directory::{Announcement, Urls};
pub use dynamodb::{DynamoDb, Fault};
pub use loopback::loopback_client;
pub use options::{Data, Options, SnapTrade, StartError};
pub use settings::Settings;
