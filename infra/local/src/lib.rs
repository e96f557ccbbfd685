//! The local stack.
mod dynamodb;
mod loopback;
pub use dynamodb::{DynamoDb, Fault};
pub use loopback::loopback_client;
mod gateway;
mod stream;
mod directory;
mod calls;
