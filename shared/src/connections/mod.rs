//! The limit: who may exist at SnapTrade, who gives way, and how nothing is lost meanwhile.

pub mod adoption;
pub mod backup;
pub mod clearing;
pub mod counting;
pub mod leaving;
pub mod machine;
pub mod opening;
pub mod operations;
pub mod policy;
pub mod records;
pub mod registration;
pub mod restoring;
pub mod runner;
pub mod storage;
pub mod sync;
pub mod timing;
pub mod vanishing;
pub mod writes;

pub use operations::{Connections, Failure};

#[cfg(test)]
mod model;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod world;
