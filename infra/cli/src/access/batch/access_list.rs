//! The file of those who have access: `id,username,userpic,created,expiration,fetched_at`, one a line (facts/access.md
//! A5, "CSV header").

use std::collections::HashMap;
use std::io;
use std::path::Path;

use berth::access::expiry::Expiry;
use berth::access::names::Username;
use berth::access::remote::{RemoteUser, Wire};
use berth::access::times::{self, DayEdge, SourceTime};
use csv::{ReaderBuilder, StringRecord, Trim, WriterBuilder};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use crate::whole_file::WholeFile;

/// The columns, in their order.
const COLUMNS: [&str; 6] = ["id", "username", "userpic", "created", "expiration", "fetched_at"];

/// Those who have access, in the file's order. What other columns hold is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct AccessList {
    entries: Vec<Entry>,
    /// Where a name stands, by what all its spellings have in common.
    places: HashMap<String, usize>,
    /// The headings of columns beyond ours.
    others: Vec<String>,
}

/// Somebody who has access.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Entry {
    /// TradingView's id of the user; perhaps empty.
    pub(super) id: String,
    /// The name.
    pub(super) username: String,
    /// The picture's address; perhaps empty.
    pub(super) userpic: String,
    /// When access was first given, as it was written.
    pub(super) created: String,
    /// When it ends.
    pub(super) expiry: Expiry,
    /// When this was found to be so; `None` where nobody noted it.
    pub(super) fetched_at: Option<Timestamp>,
    others: Vec<String>,
}

/// Why a file is no list of who has access.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAccessList {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] csv::Error),
    /// A column is missing.
    #[error("its first line has no column {0}")]
    NoColumn(&'static str),
    /// Some lines are not right.
    #[error("{}", .0.join("; "))]
    Lines(Vec<String>),
}

impl AccessList {
    /// Reads a file; one that is not there is a list of nobody.
    ///
    /// # Errors
    /// [`NoAccessList`] names all lines that are not right.
    pub(super) fn read(path: &Path, wire: Wire) -> Result<Self, NoAccessList> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(csv::Error::from(error).into()),
        };
        Self::parse(&bytes, wire)
    }

    fn parse(bytes: &[u8], wire: Wire) -> Result<Self, NoAccessList> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let mut reader = ReaderBuilder::new()
            .flexible(true)
            .trim(Trim::All)
            .from_reader(bytes);
        let headings = reader.headers()?.clone();
        let place = |name: &str| {
            headings
                .iter()
                .position(|heading| heading.eq_ignore_ascii_case(name))
        };
        for needed in ["username", "expiration"] {
            if place(needed).is_none() {
                return Err(NoAccessList::NoColumn(needed));
            }
        }
        let places = COLUMNS.map(place);
        let other_places: Vec<usize> = (0..headings.len())
            .filter(|place| !places.contains(&Some(*place)))
            .collect();
        let mut list = Self {
            others: other_places
                .iter()
                .filter_map(|place| headings.get(*place))
                .map(str::to_owned)
                .collect(),
            ..Self::default()
        };
        let mut faults = Vec::new();
        for record in reader.records() {
            let record = record?;
            let others = other_places
                .iter()
                .map(|place| record.get(*place).unwrap_or_default().to_owned());
            match Entry::read(&record, places, wire) {
                Ok(entry) => list.add(Entry {
                    others: others.collect(),
                    ..entry
                }),
                Err(detail) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    faults.push(format!("line {line}: {detail}"));
                }
            }
        }
        if faults.is_empty() {
            Ok(list)
        } else {
            Err(NoAccessList::Lines(faults))
        }
    }

    /// What stands under a name.
    pub(super) fn get(&self, name: &Username) -> Option<&Entry> {
        self.entries.get(*self.places.get(&name.key())?)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Notes when somebody's access ends, found to be so at `now`. Who is new is added at the end.
    pub(super) fn note(&mut self, name: &Username, expiry: Expiry, now: Timestamp) {
        let known = self
            .places
            .get(&name.key())
            .and_then(|place| self.entries.get_mut(*place));
        if let Some(entry) = known {
            entry.username = name.as_str().to_owned();
            entry.expiry = expiry;
            entry.fetched_at = Some(now);
            return;
        }
        self.add(Entry {
            username: name.as_str().to_owned(),
            created: now.to_string(),
            expiry,
            fetched_at: Some(now),
            ..Entry::default()
        });
    }

    /// Fills in what the access API says of who a user is, without touching when access ends.
    pub(super) fn fill_in(&mut self, user: &RemoteUser) {
        let key = user.username.to_ascii_lowercase();
        let Some(entry) = self
            .places
            .get(&key)
            .and_then(|place| self.entries.get_mut(*place))
        else {
            return;
        };
        entry.username.clone_from(&user.username);
        for (known, told) in [(&mut entry.id, &user.id), (&mut entry.userpic, &user.userpic)] {
            if !told.is_empty() {
                known.clone_from(told);
            }
        }
        if let Some(created) = user.created {
            entry.created = created.to_string();
        }
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut writer = WriterBuilder::new().from_writer(WholeFile::create(path)?);
        writer.write_record(
            COLUMNS
                .iter()
                .copied()
                .chain(self.others.iter().map(String::as_str)),
        )?;
        for entry in &self.entries {
            let expiration = entry.expiry.at().map(|end| end.to_string()).unwrap_or_default();
            let fetched_at = entry.fetched_at.map(|at| at.to_string()).unwrap_or_default();
            let ours = [
                &entry.id,
                &entry.username,
                &entry.userpic,
                &entry.created,
                &expiration,
                &fetched_at,
            ];
            let mut record: StringRecord = ours.into_iter().collect();
            record.extend(&entry.others);
            while record.len() < COLUMNS.len() + self.others.len() {
                record.push_field("");
            }
            writer.write_record(&record)?;
        }
        writer
            .into_inner()
            .map_err(csv::IntoInnerError::into_error)?
            .finish()
    }

    fn add(&mut self, entry: Entry) {
        let place = self.entries.len();
        self.places
            .entry(entry.username.to_ascii_lowercase())
            .or_insert(place);
        self.entries.push(entry);
    }
}

impl Entry {
    fn read(record: &StringRecord, places: [Option<usize>; 6], wire: Wire) -> Result<Self, String> {
        let mut texts = places.map(|place| {
            let text = place.and_then(|place| record.get(place));
            text.unwrap_or_default().to_owned()
        });
        let [id, username, userpic, created, expiration, fetched_at] = &mut texts;
        if username.is_empty() {
            return Err("username is empty".to_owned());
        }
        // As in the access API's list, no end is for ever.
        let expiry = wire
            .read(&json!(expiration))
            .map_err(|times::Unreadable| "expiration is not a time".to_owned())?;
        let fetched_at = match times::read(&json!(fetched_at), &TimeZone::UTC, DayEdge::First) {
            Ok(SourceTime::At { at, .. }) => Some(at),
            Ok(_) => None,
            Err(times::Unreadable) => return Err("fetched_at is not a time".to_owned()),
        };
        Ok(Self {
            id: std::mem::take(id),
            username: std::mem::take(username),
            userpic: std::mem::take(userpic),
            created: std::mem::take(created),
            expiry,
            fetched_at,
            others: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "id,username,userpic,created,expiration,fetched_at,note\r\n\
        5,Ada,ada.png,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z,2026-01-10T00:00:00Z,\"a, b\"\r\n\
        6,Bob,,2026-01-01,,,\r\n";

    fn wire() -> Wire {
        let text = json!({
            "wordpress": {"base_url": "https://shop.example.com", "api_key": "k"},
            "tradingview": {"base_url": "https://access.example.com", "api_key": "k", "expiry_format": "datetime"},
        });
        let configuration = berth::access::configuration::Configuration::parse(&text.to_string(), None);
        Wire::of(&configuration.unwrap().access_api)
    }

    fn name(text: &str) -> Username {
        Username::parse(text).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_list_is_written_as_it_was_read_with_what_changed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access.csv");
        let mut list = AccessList::parse(TEXT.as_bytes(), wire()).unwrap();
        assert_eq!(list.get(&name("bob")).unwrap().expiry, Expiry::Lifetime);
        list.note(
            &name("ADA"),
            Expiry::At(at("2026-03-01T00:00:00Z")),
            at("2026-02-02T00:00:00Z"),
        );
        list.note(
            &name("Cleo"),
            Expiry::At(at("2026-04-01T00:00:00Z")),
            at("2026-02-02T00:00:00Z"),
        );
        list.write(&file).unwrap();
        let written = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(
            lines,
            [
                "id,username,userpic,created,expiration,fetched_at,note",
                "5,ADA,ada.png,2026-01-01T00:00:00Z,2026-03-01T00:00:00Z,2026-02-02T00:00:00Z,\"a, b\"",
                "6,Bob,,2026-01-01,,,",
                ",Cleo,,2026-02-02T00:00:00Z,2026-04-01T00:00:00Z,2026-02-02T00:00:00Z,",
            ]
        );
        let again = AccessList::read(&file, wire()).unwrap();
        assert_eq!(
            (again.len(), again.get(&name("ada"))),
            (3, list.get(&name("ada")))
        );
    }

    #[test]
    fn what_the_access_api_says_of_a_user_changes_no_end() {
        let mut list = AccessList::parse(TEXT.as_bytes(), wire()).unwrap();
        let told = RemoteUser {
            id: "9".to_owned(),
            username: "BOB".to_owned(),
            userpic: String::new(),
            created: None,
            expiry: Expiry::At(at("2026-05-01T00:00:00Z")),
        };
        list.fill_in(&told);
        let bob = list.get(&name("bob")).unwrap();
        assert_eq!(
            (bob.id.as_str(), bob.username.as_str(), bob.expiry),
            ("9", "BOB", Expiry::Lifetime)
        );
    }

    #[test]
    fn every_line_that_is_not_right_is_named() {
        let text = "username,expiration,fetched_at\nAda,soon,\n,2026-01-01,\nBob,2026-01-01,later\n";
        let fault = AccessList::parse(text.as_bytes(), wire())
            .unwrap_err()
            .to_string();
        for line in ["line 2", "line 3", "line 4"] {
            assert!(fault.contains(line), "{fault}");
        }
        assert!(AccessList::parse(b"name\nAda\n", wire()).is_err());
        assert_eq!(AccessList::parse(b"\xef\xbb\xbf \n", wire()).unwrap().len(), 0);
    }
}
