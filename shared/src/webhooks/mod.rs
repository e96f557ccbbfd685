//! The events that SnapTrade sends: taken in, worked on later, and kept for a while.
//!
//! Taking one in is checking its signature and one conditional write, which tells at the same time whether the event
//! is a new one. The table's stream then brings it to the worker. An event is a hint to read SnapTrade again and never
//! a truth to store, so that it does no harm when it comes twice, late, or in another order than things happened.

mod apply;
mod inbox;
mod need;
mod replay;
mod work;

pub use apply::{Applied, MAX_ATTEMPTS, apply};
pub use inbox::{DeadLetter, KEPT, NotTaken, Received, StoredEvent, receive, stored};
pub use replay::{DeadLetterPosition, DeadLetterView, DeadLetters, dead_letters, mark_dead, replay};
pub use work::{Hint, Work, decide, hint};
