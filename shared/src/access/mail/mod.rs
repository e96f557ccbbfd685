//! Mail: to a customer whose name TradingView does not know, and to the operator about what needs a person
//! (facts/access.md C3 "Mail").
//!
//! A notice is first put into the [`outbox`], in the same transaction as what it is about, and sent later: so
//! none is lost with the process that wanted it sent, none is sent twice for one cause, and a mail server that
//! is down keeps nobody from getting access. [`dispatch`] decides what becomes of a letter, [`letters`] what it
//! says and [`message`] how it is written down; [`sending`] sends what is due.

mod discord;
pub mod dispatch;
pub mod letters;
pub mod message;
pub mod outbox;
pub mod sending;
mod smtp;

pub use letters::{Digest, Entry, EntryKind};
pub use outbox::{Notice, UnknownName, notice, to_operator, unless_there};
pub use sending::{Sent, send_due};
pub use smtp::reach;
