//! The data directory, `.berth/`: what a stack keeps between two runs, and what it tells others while it runs.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth::secrets::DataKeys;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

/// The file in which a running stack says where it answers.
const ANNOUNCEMENT: &str = "stack.json";

/// The file with the keys that encrypt what is secret in the table.
const DATA_KEYS: &str = "data-keys.json";

/// The file that names the client id of SnapTrade's under which the data were made.
const CLIENT_ID: &str = "snaptrade-client";

/// How long a stack on this machine may take to accept a connection.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// The name of the first key.
pub(crate) const KEY_ID: &str = "local-1";

/// A data directory that this stack alone uses, until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// It cannot be created, read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another stack uses it.
    #[error("another stack uses it")]
    InUse,
}

impl Directory {
    /// Creates the directory where it is missing, and locks it.
    ///
    /// # Errors
    /// [`DirectoryError`] when that is not possible.
    pub(crate) fn open(path: &Path) -> Result<Self, DirectoryError> {
        std::fs::create_dir_all(path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The table's database.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("dynamodb.sqlite")
    }

    /// How far the stream was delivered.
    pub(crate) fn stream_position(&self) -> PathBuf {
        self.path.join("stream.json")
    }

    /// What the SnapTrade sandbox keeps.
    pub(crate) fn snaptrade_state(&self) -> PathBuf {
        self.path.join("snaptrade.json")
    }

    /// What the access API and WordPress sandboxes and the mail server keep.
    pub(crate) fn access_state(&self) -> PathBuf {
        self.path.join("access.sqlite")
    }

    /// The client id of SnapTrade's that the data belong to: `client_id` where none was noted before, which is noted.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(crate) fn client_id(&self, client_id: &str) -> io::Result<String> {
        let path = self.path.join(CLIENT_ID);
        match std::fs::read_to_string(&path) {
            Ok(noted) => Ok(noted.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_whole(&path, client_id.as_bytes())?;
                Ok(client_id.to_owned())
            }
            Err(error) => Err(error),
        }
    }

    /// Forgets all that was kept, the keys included.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(crate) fn empty(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name() == "lock" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// The keys that encrypt what is secret in the table: generated the first time, readable by their owner only.
    ///
    /// # Errors
    /// When they cannot be read, written or generated.
    pub(crate) fn data_keys(&self) -> io::Result<DataKeys> {
        if let Some(keys) = read_data_keys(&self.path)? {
            return Ok(keys);
        }
        let keys = DataKeys::generate(KEY_ID).map_err(io::Error::other)?;
        write_private(
            &self.path.join(DATA_KEYS),
            keys.to_json().expose_secret().as_bytes(),
        )?;
        Ok(keys)
    }
}

/// The keys in the data directory `directory`; `None` where none were generated yet.
///
/// # Errors
/// When they cannot be read or are not as they were written.
pub(crate) fn read_data_keys(directory: &Path) -> io::Result<Option<DataKeys>> {
    match std::fs::read_to_string(directory.join(DATA_KEYS)) {
        Ok(text) => DataKeys::parse(&text).map(Some).map_err(|reason| {
            let reason = format!("the file {DATA_KEYS} is not as it was written: {reason}");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&part)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(part, path)
}

/// Writes a file so that a reader sees the old content or the new, never a part.
///
/// # Errors
/// When the directory cannot be written.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, content)?;
    std::fs::rename(part, path)
}

/// Where a running stack's parts answer: base URLs without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urls {
    /// The API.
    pub api: String,
    /// SnapTrade: the sandbox, or the real one.
    pub snaptrade: String,
    /// The access API and WordPress sandboxes.
    pub access: String,
    /// DynamoDB.
    pub dynamodb: String,
    /// The mail server, with the scheme `smtp`.
    pub mail: String,
}

/// What a running stack tells about itself in its data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The stack's process.
    pub pid: u32,
    /// Where its parts answer.
    #[serde(flatten)]
    pub urls: Urls,
}

impl Announcement {
    /// What the stack that runs on the data directory `directory` tells, if one does or did: a stack that was killed
    /// leaves its announcement behind, so ask the API before relying on it.
    #[must_use]
    pub fn read(directory: &Path) -> Option<Self> {
        let text = std::fs::read(directory.join(ANNOUNCEMENT)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Whether something listens where the API is said to be.
    pub(crate) fn is_of_a_running_stack(&self) -> bool {
        let address = self.urls.api.strip_prefix("http://").unwrap_or_default();
        address
            .parse()
            .is_ok_and(|address| TcpStream::connect_timeout(&address, ANSWER_TIMEOUT).is_ok())
    }

    /// Writes it down.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        write_whole(
            &directory.join(ANNOUNCEMENT),
            serde_json::to_string(self)?.as_bytes(),
        )
    }

    /// Takes it away, where it is still this one.
    pub(crate) fn withdraw(&self, directory: &Path) {
        if Self::read(directory).as_ref() == Some(self)
            && let Err(error) = std::fs::remove_file(directory.join(ANNOUNCEMENT))
        {
            tracing::warn!(%error, "the stack's announcement could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_user_at_a_time() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("data");
        let first = Directory::open(&path).unwrap();
        assert!(matches!(Directory::open(&path), Err(DirectoryError::InUse)));
        drop(first);
        Directory::open(&path).unwrap();
    }

    #[test]
    fn the_keys_are_generated_once_and_belong_to_their_owner_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let generated = directory.data_keys().unwrap().to_json();
        let read = directory.data_keys().unwrap().to_json();
        assert_eq!(generated.expose_secret(), read.expose_secret());
        #[cfg(unix)]
        {
            let metadata = std::fs::metadata(temporary.path().join("data-keys.json")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
        directory.empty().unwrap();
        let renewed = directory.data_keys().unwrap().to_json();
        assert_ne!(generated.expose_secret(), renewed.expose_secret());
    }

    #[test]
    fn an_announcement_is_withdrawn_by_its_own_stack_only() {
        let temporary = tempfile::tempdir().unwrap();
        let announcement = |pid| Announcement {
            pid,
            urls: Urls {
                api: "http://127.0.0.1:1".to_owned(),
                snaptrade: "http://127.0.0.1:2".to_owned(),
                access: "http://127.0.0.1:3".to_owned(),
                dynamodb: "http://127.0.0.1:4".to_owned(),
                mail: "smtp://127.0.0.1:5".to_owned(),
            },
        };
        announcement(1).write(temporary.path()).unwrap();
        announcement(2).withdraw(temporary.path());
        assert_eq!(Announcement::read(temporary.path()), Some(announcement(1)));
        announcement(1).withdraw(temporary.path());
        assert_eq!(Announcement::read(temporary.path()), None);
    }
}
