//! Files that are written whole or not at all, and that only their owner may read.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Bytes that are kept until they are worth a call to the operating system.
const BUFFER: usize = 64 * 1024;

/// A file on its way: written beside its place under another name, and gone if it is dropped before [`finish`].
///
/// [`finish`]: WholeFile::finish
pub(crate) struct WholeFile {
    /// Readable and writable by its owner alone, as the crate `tempfile` makes them.
    content: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl WholeFile {
    /// Begins a file that is to stand at `path`, where an older one may stand already.
    ///
    /// # Errors
    /// When the directory cannot be written, or something that is no file stands at `path`.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(io::Error::other("it is there and is no ordinary file"));
        }
        let content = tempfile::Builder::new()
            .prefix(".berth-")
            .suffix(".part")
            .tempfile_in(directory(path))?;
        Ok(Self {
            content: BufWriter::with_capacity(BUFFER, content),
            path: path.to_owned(),
        })
    }

    /// Puts the file in its place, once it is on the disk.
    ///
    /// # Errors
    /// When it cannot be written or renamed; there is no new file then.
    pub(crate) fn finish(self) -> io::Result<()> {
        let content = self
            .content
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        content.as_file().sync_all()?;
        content.persist(&self.path).map_err(|error| error.error)?;
        // The name, too, has to outlive a power cut. Not every file system lets a directory be synced.
        let _ = File::open(directory(&self.path)).and_then(|directory| directory.sync_all());
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.content.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.content.flush()
    }
}

impl Seek for WholeFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.content.seek(position)
    }
}

/// The directory that `path` stands in.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_given_up_leaves_the_old_one_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ages.json");
        std::fs::write(&path, "old").unwrap();
        let mut given_up = WholeFile::create(&path).unwrap();
        given_up.write_all(b"new").unwrap();
        drop(given_up);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(WholeFile::create(directory.path()).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_its_owners_alone_also_where_the_old_one_was_not() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ages.json");
        std::fs::write(&path, "old").unwrap();
        let mut file = WholeFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
