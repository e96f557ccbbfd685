//! Backing up the records of the limit, and bringing them back.
//!
//! A backup is one file: a header, and a line for each item of the limit (places, users with their sealed secrets, ids
//! without a secret here, ids that have to go, holds, the sync's record) and of the audit trail. It is read while
//! others write, so it is not one moment of the table; the header says whether any place changed hands meanwhile.
//! Restoring stands that: SnapTrade's own list decides in the end who is there.
//!
//! **What the table knows wins.** A restore brings back what the table lacks. It overwrites no user, brings back nobody
//! whose id was retired since, and drops what was only under way when the backup was made. While it runs the places
//! are closed, in the same transactions, so that nobody registers on a count that is not right; opening them again
//! compares everything with SnapTrade's list (transition T0). A restore that is broken off and run again goes on where
//! it was.

mod file;
mod restoring;
mod transfer;

pub use file::{BackupReader, BackupWriter, Faulty, Header, Origin, Record, RecordCounts};
pub use restoring::{Decision, Left, Standing, bring_ghost, bring_holder, saved_holder};
pub use transfer::{BackupError, Restored, Tracking, back_up, examine, restore};
