//! The form of a backup file: lines of JSON, of which the first tells what the others are.

use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::connections::records::{ForeignRecord, Ghost, HoldRecord, SyncRecord, UserRecord};
use crate::connections::storage;
use crate::ids::TenantId;
use crate::store::{Item, Key, StoreError, from_item, json, partition};

/// What the first line calls the file.
const FORMAT: &str = "berth-tracking-backup";

/// The version of the form that is written here, and the newest that is read.
const VERSION: u32 = 1;

/// Bytes of the first line. It is written last, into the room that is left for it.
const HEADER_BYTES: usize = 1024;

/// Most bytes of a line: a line with an item of the greatest size that DynamoDB holds (400 KB) is shorter.
const LINE_BYTES: u64 = 4 * 1024 * 1024;

/// Where a backup is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Whose limit it is.
    pub tenant: TenantId,
    /// The table.
    pub table: String,
    /// The SnapTrade client that the ids are known to.
    pub client_id: String,
}

/// The first line of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What the file is.
    pub format: String,
    /// Which version of the form it has.
    pub version: u32,
    /// Where it is from.
    #[serde(flatten)]
    pub origin: Origin,
    /// When reading the table began.
    pub taken_at: Timestamp,
    /// Whether no place changed hands while the table was read.
    pub steady: bool,
    /// How many records of each kind follow.
    pub counts: RecordCounts,
    /// SHA-256 of everything after the first line, in hexadecimal.
    pub sha256: String,
}

/// How many records of each kind there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecordCounts {
    /// Registered users.
    pub users: u64,
    /// Ids at SnapTrade without a secret here.
    pub adopted: u64,
    /// Users who were being registered or deleted, and places that were held.
    pub reserved: u64,
    /// Ids that have to go, or just went.
    pub ghosts: u64,
    /// Lines of the audit trail.
    pub audit: u64,
    /// The places, the sync's record, notes of holds, and what else belongs to users.
    pub others: u64,
}

impl RecordCounts {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.users + self.adopted + self.reserved + self.ghosts + self.audit + self.others
    }

    fn add(&mut self, record: &Record) {
        let count = match record {
            Record::User(user) if user.active().is_some() => &mut self.users,
            Record::User(_) => &mut self.reserved,
            Record::Foreign(_) => &mut self.adopted,
            Record::Ghost(_) => &mut self.ghosts,
            Record::Audit => &mut self.audit,
            Record::Places | Record::Hold(_) | Record::Sync(_) | Record::Companion => &mut self.others,
        };
        *count += 1;
    }
}

/// One record of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The count of the places.
    Places,
    /// A user of ours.
    User(Box<UserRecord>),
    /// An id without a secret here.
    Foreign(ForeignRecord),
    /// An id that has to go.
    Ghost(Box<Ghost>),
    /// The note of a hold.
    Hold(HoldRecord),
    /// The sync's record.
    Sync(Box<SyncRecord>),
    /// A line of the audit trail.
    Audit,
    /// What else stands beside a user's record.
    Companion,
}

/// What is wrong with a backup file.
#[derive(Debug, thiserror::Error)]
pub enum Faulty {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is not a backup of tracking data")]
    Format,
    /// It was written by a newer Berth.
    #[error(
        "it has version {0} of the form, and this version of Berth reads up to {VERSION}: use a newer one"
    )]
    Version(u32),
    /// It is another tenant's.
    #[error("it is a backup of the tenant {found}, not of {expected}")]
    Tenant {
        /// Whose it is.
        found: TenantId,
        /// Whose it should be.
        expected: TenantId,
    },
    /// A line is not as it was written.
    #[error("it is damaged: line {line} {reason}")]
    Line {
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Lines are missing or were added, or one was changed.
    #[error("it is damaged: its {0} is not what its first line says")]
    Content(&'static str),
}

/// Partitions of the limit's records and of the audit trail.
pub(super) fn prefixes(tenant: &TenantId) -> Vec<String> {
    ["SLOTS", "USER", "GHOST", "SYNC", "AUDIT"]
        .map(|kind| partition(tenant, kind, ""))
        .to_vec()
}

/// Which record an item of a backup is.
fn record(tenant: &TenantId, item: &Item) -> Result<Record, &'static str> {
    let unread = |_: StoreError| "holds a record that is not in the expected form";
    let Key { pk, sk } = Key::of(item);
    let is = |kind: &str| pk.starts_with(&partition(tenant, kind, ""));
    Ok(match sk.as_str() {
        "SLOTS" if is("SLOTS") => {
            storage::slots(item).map_err(unread)?;
            Record::Places
        }
        "USER" if is("USER") => Record::User(from_item(item).map_err(unread)?),
        "HOLD" if is("USER") => Record::Hold(from_item(item).map_err(unread)?),
        sk if is("USER") && sk.starts_with("FOREIGN#") => Record::Foreign(from_item(item).map_err(unread)?),
        sk if is("USER") && !sk.is_empty() => Record::Companion,
        "GHOST" if is("GHOST") => Record::Ghost(from_item(item).map_err(unread)?),
        "SYNC" if is("SYNC") => Record::Sync(from_item(item).map_err(unread)?),
        sk if is("AUDIT") && sk.starts_with("AUDIT#") => Record::Audit,
        _ => return Err("holds an item that does not belong there"),
    })
}

/// Writes a backup, item by item.
pub struct BackupWriter<W> {
    to: W,
    tenant: TenantId,
    hash: Sha256,
    counts: RecordCounts,
}

impl<W: Write + Seek> BackupWriter<W> {
    /// Begins a backup of `tenant`, at the beginning of `to`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(mut to: W, tenant: TenantId) -> io::Result<Self> {
        write_header(&mut to, "")?;
        Ok(Self {
            to,
            tenant,
            hash: Sha256::new(),
            counts: RecordCounts::default(),
        })
    }

    /// Writes one item.
    ///
    /// # Errors
    /// When it cannot be written, or is none that a backup holds.
    pub fn write(&mut self, item: &Item) -> io::Result<()> {
        let unfit =
            |reason: &'static str| io::Error::other(format!("the table {reason} ({})", Key::of(item)));
        let record = record(&self.tenant, item).map_err(unfit)?;
        let json = json::to_json(item).ok_or_else(|| unfit("holds a value of an unknown kind"))?;
        let mut line = json.to_string();
        line.push('\n');
        self.hash.update(&line);
        self.counts.add(&record);
        self.to.write_all(line.as_bytes())
    }

    /// How many records were written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.counts.total()
    }

    /// Writes the first line, which makes a backup of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, origin: Origin, taken_at: Timestamp, steady: bool) -> io::Result<(Header, W)> {
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            origin,
            taken_at,
            steady,
            counts: self.counts,
            sha256: hexadecimal(&self.hash.finalize()),
        };
        self.to.seek(SeekFrom::Start(0))?;
        write_header(&mut self.to, &serde_json::to_string(&header)?)?;
        self.to.flush()?;
        Ok((header, self.to))
    }
}

/// Writes `text` into the room of the first line.
fn write_header(to: &mut impl Write, text: &str) -> io::Result<()> {
    let room = HEADER_BYTES - 1;
    if text.len() > room {
        return Err(io::Error::other(
            "the names of the table and of the client are too long",
        ));
    }
    to.write_all(format!("{text:<room$}\n").as_bytes())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a backup, record by record. Only once the last one was read is it known to be whole.
pub struct BackupReader<R> {
    from: R,
    header: Header,
    hash: Sha256,
    counts: RecordCounts,
    line: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> BackupReader<R> {
    /// Reads the first line of a backup of `tenant`.
    ///
    /// # Errors
    /// [`Faulty`] where it is none, or another tenant's.
    pub fn open(mut from: R, tenant: &TenantId) -> Result<Self, Faulty> {
        let mut buffer = Vec::with_capacity(HEADER_BYTES);
        let room = u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX);
        from.by_ref().take(room).read_until(b'\n', &mut buffer)?;
        let header: serde_json::Value = serde_json::from_slice(&buffer).map_err(|_| Faulty::Format)?;
        if header.get("format").and_then(|format| format.as_str()) != Some(FORMAT) {
            return Err(Faulty::Format);
        }
        // A newer version may say other things than this one understands.
        let version = header.get("version").and_then(|version| version.as_u64());
        match version.and_then(|version| u32::try_from(version).ok()) {
            Some(version) if version > VERSION => return Err(Faulty::Version(version)),
            Some(1..) => {}
            _ => return Err(Faulty::Format),
        }
        let header: Header = serde_json::from_value(header).map_err(|_| Faulty::Format)?;
        if header.origin.tenant != *tenant {
            return Err(Faulty::Tenant {
                found: header.origin.tenant,
                expected: tenant.clone(),
            });
        }
        Ok(Self {
            from,
            header,
            hash: Sha256::new(),
            counts: RecordCounts::default(),
            line: 1,
            buffer,
        })
    }

    /// What the first line says.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next record with its item; `None` after the last, once the whole is what the first line says.
    ///
    /// # Errors
    /// [`Faulty`].
    pub fn read(&mut self) -> Result<Option<(Item, Record)>, Faulty> {
        self.buffer.clear();
        self.from
            .by_ref()
            .take(LINE_BYTES)
            .read_until(b'\n', &mut self.buffer)?;
        if self.buffer.is_empty() {
            return self.end().map(|()| None);
        }
        self.line += 1;
        let line = self.line;
        let damaged = |reason| Faulty::Line { line, reason };
        if self.buffer.last() != Some(&b'\n') {
            return Err(damaged("has no end"));
        }
        self.hash.update(&self.buffer);
        let item = serde_json::from_slice(&self.buffer)
            .ok()
            .as_ref()
            .and_then(json::from_json)
            .ok_or_else(|| damaged("is no item of a table"))?;
        let record = record(&self.header.origin.tenant, &item).map_err(damaged)?;
        self.counts.add(&record);
        Ok(Some((item, record)))
    }

    fn end(&self) -> Result<(), Faulty> {
        if self.counts != self.header.counts {
            return Err(Faulty::Content("number of records"));
        }
        if hexadecimal(&self.hash.clone().finalize()) != self.header.sha256 {
            return Err(Faulty::Content("checksum"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::connections::storage::Names;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn origin() -> Origin {
        Origin {
            tenant: TenantId::default(),
            table: "berth".to_owned(),
            client_id: "CLIENT".to_owned(),
        }
    }

    fn foreign(id: &str) -> ForeignRecord {
        serde_json::from_value(serde_json::json!({
            "upstream": id, "rev": 7, "created_at": "2026-11-21T10:00:00Z", "order": 3, "missing_since": null,
            "protected": true, "slot": 0,
        }))
        .unwrap()
    }

    fn backup() -> Vec<u8> {
        let names = Names::new(TenantId::default());
        let mut writer = BackupWriter::new(Cursor::new(Vec::new()), TenantId::default()).unwrap();
        for id in ["ada", "grace"] {
            writer.write(&names.foreign_item(&foreign(id)).unwrap()).unwrap();
        }
        let taken_at = at("2026-11-21T11:00:00Z");
        writer.finish(origin(), taken_at, true).unwrap().1.into_inner()
    }

    fn read(bytes: &[u8]) -> Result<Vec<Record>, Faulty> {
        let mut reader = BackupReader::open(bytes, &TenantId::default())?;
        let mut records = Vec::new();
        while let Some((_, record)) = reader.read()? {
            records.push(record);
        }
        Ok(records)
    }

    #[test]
    fn a_backup_is_read_as_it_was_written() {
        let bytes = backup();
        let reader = BackupReader::open(bytes.as_slice(), &TenantId::default()).unwrap();
        assert_eq!(
            (reader.header().counts.adopted, reader.header().steady),
            (2, true)
        );
        let expected = ["ada", "grace"].map(|id| Record::Foreign(foreign(id)));
        assert_eq!(read(&bytes).unwrap(), expected);
    }

    #[test]
    fn a_file_that_was_never_finished_is_no_backup() {
        let names = Names::new(TenantId::default());
        let mut file = Cursor::new(Vec::new());
        let mut writer = BackupWriter::new(&mut file, TenantId::default()).unwrap();
        writer
            .write(&names.foreign_item(&foreign("ada")).unwrap())
            .unwrap();
        assert!(matches!(read(file.get_ref()), Err(Faulty::Format)));
    }

    #[test]
    fn whatever_is_changed_in_a_file_is_noticed() {
        let whole = backup();
        let text = String::from_utf8(whole.clone()).unwrap();
        let header_end = text.find('\n').unwrap();
        let last_line = text.trim_end().rfind('\n').unwrap();
        for damaged in [
            // Cut off at a line's end, and within a line.
            text.as_bytes()[..=last_line].to_vec(),
            text.as_bytes()[..text.len() - 5].to_vec(),
            text.as_bytes()[..=header_end].to_vec(),
            // Changed, repeated, and something added.
            text.replace("grace", "grave").into_bytes(),
            format!("{text}{}", &text[last_line + 1..]).into_bytes(),
            format!("{text}garbage\n").into_bytes(),
            text.replace("default#USER#", "other#USER#").into_bytes(),
        ] {
            let fault = read(&damaged).unwrap_err();
            assert!(
                matches!(fault, Faulty::Line { .. } | Faulty::Content(_)),
                "{fault}"
            );
        }
        for other in [
            "",
            "{}",
            "not JSON",
            "{\"format\": \"something else\", \"version\": 1}\n",
        ] {
            assert!(matches!(read(other.as_bytes()), Err(Faulty::Format)), "{other}");
        }
        assert!(matches!(read(&vec![b' '; 4096]), Err(Faulty::Format)));
    }

    #[test]
    fn a_newer_form_and_another_tenants_backup_are_named_as_such() {
        let text = String::from_utf8(backup()).unwrap();
        let newer = text.replacen("\"version\":1", "\"version\":2", 1);
        assert!(matches!(read(newer.as_bytes()), Err(Faulty::Version(2))));
        let other = TenantId::parse("other").unwrap();
        let opened = BackupReader::open(text.as_bytes(), &other);
        assert!(matches!(opened, Err(Faulty::Tenant { .. })));
    }
}
