//! Stand-ins for the outside services that Berth talks to, for one developer's machine and for tests.
//!
//! Each service is a module of its own that binds one listener. They follow the local stack's clock, keep
//! what they know in a file where they are given one, and offer control calls under `/__sandbox/`. Nothing
//! that is deployed depends on this crate.

pub mod snaptrade;
