//! The file of those whom a batch gave access, or more of it: `username,wp_user_id,email,from,expiration,granted_at`, one
//! a line, to which each batch adds.

use std::io;
use std::path::Path;

use berth::access::expiry::Expiry;
use berth::access::names::Username;
use berth::access::plan::Action;
use csv::{ReaderBuilder, StringRecord, WriterBuilder};
use jiff::Timestamp;

use super::customers::Name;
use crate::whole_file::WholeFile;

/// The columns, in their order.
const COLUMNS: [&str; 6] = [
    "username",
    "wp_user_id",
    "email",
    "from",
    "expiration",
    "granted_at",
];

/// Those whom access was given, in the order in which it was.
#[derive(Debug, Clone, Default)]
pub(super) struct Granted {
    records: Vec<StringRecord>,
}

impl Granted {
    /// Reads a file; one that is not there is a list of nobody.
    ///
    /// # Errors
    /// The file system's; what has other columns is no such file.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let mut reader = ReaderBuilder::new().from_reader(bytes.as_slice());
        if !reader.headers()?.iter().eq(COLUMNS) {
            let columns = COLUMNS.join(",");
            return Err(io::Error::other(format!("its first line is not {columns}")));
        }
        let records = reader.records().collect::<Result<_, _>>()?;
        Ok(Self { records })
    }

    /// Notes that a name was given access until `expiry`.
    pub(super) fn note(
        &mut self,
        username: &Username,
        name: &Name,
        action: Action,
        expiry: Expiry,
        now: Timestamp,
    ) {
        let end = |expiry: Expiry| match expiry {
            Expiry::NoAccess => String::new(),
            Expiry::At(end) => end.to_string(),
            Expiry::Lifetime => "lifetime".to_owned(),
        };
        let from = match action {
            Action::Update { from, .. } => end(from),
            Action::None | Action::Grant { .. } | Action::Remove { .. } => String::new(),
        };
        let email = name.customers.first().map(|customer| customer.email.as_str());
        self.records.push(StringRecord::from(vec![
            username.as_str(),
            &name.first().to_string(),
            email.unwrap_or_default(),
            &from,
            &end(expiry),
            &now.to_string(),
        ]));
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut writer = WriterBuilder::new().from_writer(WholeFile::create(path)?);
        writer.write_record(COLUMNS)?;
        for record in &self.records {
            writer.write_record(record)?;
        }
        writer
            .into_inner()
            .map_err(csv::IntoInnerError::into_error)?
            .finish()
    }
}
