//! Stand-ins for the outside services that Berth talks to, for one developer's machine and for tests.
//!
//! Each service is a module of its own that binds one listener. They follow the local stack's clock, keep
//! what they know in a file where they are given one, and offer control calls under `/__sandbox/`. Nothing
//! that is deployed depends on this crate.

pub mod access;
mod answer;
mod control;
mod faults;
mod journal;
mod mail;
mod server;
pub mod snaptrade;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock's content. A panic while it was held leaves nothing half done here, so it is used all the same.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
