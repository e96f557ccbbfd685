//! Where a batch stopped, in a file beside the one with those who have access, and the lock that keeps two batches
//! apart.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use berth::access::ids::{PersonId, ScriptId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::whole_file::WholeFile;

/// Where a batch stopped. Customers are gone through by their ids, so that it holds for a newer list of transactions,
/// too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// The script.
    pub(super) script_id: ScriptId,
    /// Whether only the names of the list are gone through.
    #[serde(default)]
    pub(super) by_csv: bool,
    /// The last customer that was gone through.
    pub(super) after: Option<PersonId>,
    /// Those before it for whom the access API could not be used.
    #[serde(default)]
    pub(super) again: BTreeSet<PersonId>,
    /// When it stopped.
    pub(super) updated_at: Timestamp,
}

impl Checkpoint {
    /// The beginning.
    pub(super) fn beginning(script_id: ScriptId, by_csv: bool, now: Timestamp) -> Self {
        Self {
            script_id,
            by_csv,
            after: None,
            again: BTreeSet::new(),
            updated_at: now,
        }
    }

    /// Where the last batch of this kind for this script stopped; the beginning where none did.
    ///
    /// # Errors
    /// When there is a file that cannot be read.
    pub(super) fn read(csv: &Path, script_id: &ScriptId, by_csv: bool, now: Timestamp) -> io::Result<Self> {
        let beginning = Self::beginning(script_id.clone(), by_csv, now);
        let text = match std::fs::read(file(csv)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(beginning),
            Err(error) => return Err(error),
        };
        let read: Self = serde_json::from_slice(&text)?;
        Ok(if (&read.script_id, read.by_csv) == (script_id, by_csv) {
            read
        } else {
            beginning
        })
    }

    /// Whether a customer is still to be gone through.
    pub(super) fn leaves(&self, person: PersonId) -> bool {
        self.after.is_none_or(|after| person > after) || self.again.contains(&person)
    }

    /// Notes it, or takes the file away where nothing is left.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn write(&self, csv: &Path, nothing_is_left: bool) -> io::Result<()> {
        let file = file(csv);
        if nothing_is_left {
            return match std::fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let mut whole = WholeFile::create(&file)?;
        serde_json::to_writer(&mut whole, self)?;
        whole.write_all(b"\n")?;
        whole.finish()
    }
}

/// The file of the checkpoint for the list `csv`.
pub(super) fn file(csv: &Path) -> PathBuf {
    beside(csv, ".checkpoint.json")
}

/// Keeps other batches from the list `csv` until it is dropped; `None` where one is at it.
///
/// # Errors
/// The file system's.
pub(super) fn lock(csv: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(beside(csv, ".lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn beside(csv: &Path, ending: &str) -> PathBuf {
    let mut name = csv.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_goes_on_where_the_last_stopped_and_with_those_that_failed() {
        let directory = tempfile::tempdir().unwrap();
        let csv = directory.path().join("access.csv");
        let script = ScriptId::new("S1");
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut checkpoint = Checkpoint::read(&csv, &script, false, now).unwrap();
        assert!(checkpoint.leaves(PersonId(1)));
        checkpoint.after = Some(PersonId(20));
        checkpoint.again.insert(PersonId(7));
        checkpoint.write(&csv, false).unwrap();
        let read = Checkpoint::read(&csv, &script, false, now).unwrap();
        assert_eq!(read, checkpoint);
        let left: Vec<u64> = [1, 7, 20, 21]
            .into_iter()
            .filter(|id| read.leaves(PersonId(*id)))
            .collect();
        assert_eq!(left, [7, 21]);
        let other = Checkpoint::read(&csv, &ScriptId::new("S2"), false, now).unwrap();
        assert_eq!(other.after, None);
        // One that goes by the list passes others over, who are not to be left out by the next.
        let other = Checkpoint::read(&csv, &script, true, now).unwrap();
        assert_eq!(other.after, None);
        checkpoint.write(&csv, true).unwrap();
        checkpoint.write(&csv, true).unwrap();
        assert!(!file(&csv).exists());
    }

    #[test]
    fn two_batches_do_not_work_on_one_list() {
        let directory = tempfile::tempdir().unwrap();
        let csv = directory.path().join("access.csv");
        let first = lock(&csv).unwrap();
        assert!(first.is_some() && lock(&csv).unwrap().is_none());
        drop(first);
        assert!(lock(&csv).unwrap().is_some());
    }
}
