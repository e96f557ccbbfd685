//! Users' ages in a file: `{"user_id": time}`, as the scripts that come before Berth keep them in
//! `.snaptrade_user_timestamps.json`. A file holds ages only, never a secret.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;

use berth::ids::UserId;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Number, Value, json};

use super::users::{pages, path_of};
use super::{Refusal, print, show};
use crate::Global;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::target::{CallError, Target};
use crate::whole_file::WholeFile;
use crate::words::{enumerate, number_of};

/// How many ages are set at a time.
const AT_ONCE: usize = 8;

/// The name of standard input and standard output.
const STANDARD: &str = "-";

/// How a time has to be written.
const FORM: &str = "write Unix seconds, or a time such as 2026-01-31T12:00:00Z";

/// A time as Unix seconds, also with a fraction, or RFC 3339. To the millisecond, which is what ages are kept to.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    let written: Result<Timestamp, _> = text.parse();
    match (written, text.parse::<Number>()) {
        (Ok(time), _) => to_the_millisecond(time),
        (Err(_), Ok(seconds)) => unix_seconds(&seconds),
        (Err(_), Err(_)) => Err(FORM.to_owned()),
    }
}

fn to_the_millisecond(time: Timestamp) -> Result<Timestamp, String> {
    Timestamp::from_millisecond(time.as_millisecond()).map_err(|error| error.to_string())
}

fn unix_seconds(seconds: &Number) -> Result<Timestamp, String> {
    let time = match (seconds.as_i64(), seconds.as_f64()) {
        (Some(whole), _) => Timestamp::from_second(whole).ok(),
        (None, Some(seconds)) => {
            let milliseconds = (seconds * 1000.0).round();
            // The cast saturates, and what is out of range is no time either way.
            #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
            Timestamp::from_millisecond(milliseconds as i64).ok()
        }
        (None, None) => None,
    };
    time.ok_or_else(|| "is no time: Unix seconds are meant, not milliseconds".to_owned())
}

/// A time as Unix seconds, with a fraction where there is one.
fn in_seconds(time: Timestamp) -> String {
    let milliseconds = time.as_millisecond();
    let (seconds, rest) = (milliseconds.div_euclid(1000), milliseconds.rem_euclid(1000));
    match (rest, seconds) {
        (0, _) => seconds.to_string(),
        (_, 0..) => format!("{seconds}.{rest:03}"),
        // Before 1970: -0.5 is half a second before it.
        _ => format!("-{}.{:03}", -(seconds + 1), 1000 - rest),
    }
}

/// The members of an object in their order, one that stands there twice included.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object such as {\"ada\": 1700000000}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// One thing that is wrong with a file: the key that it stands under, and what it is.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    key: String,
    detail: String,
}

/// Why a file with ages is not used.
#[derive(Debug, PartialEq, Eq)]
enum NotRead {
    /// It is no JSON, or no object.
    Form(String),
    /// Members of it are not right.
    Faults(Vec<Fault>),
}

/// The ages in a file's text. A time after `now` is no age.
fn read_ages(text: &str, now: Timestamp) -> Result<Vec<(UserId, Timestamp)>, NotRead> {
    let Members(members) = serde_json::from_str(text).map_err(|error| NotRead::Form(error.to_string()))?;
    let mut seen = HashSet::new();
    let (mut ages, mut faults) = (Vec::with_capacity(members.len()), Vec::new());
    for (key, value) in members {
        let mut fault = |detail: String| {
            faults.push(Fault {
                key: key.clone(),
                detail,
            });
        };
        if !seen.insert(key.clone()) {
            fault("stands there twice".to_owned());
            continue;
        }
        let user = UserId::parse(key.clone()).map_err(|error| format!("is no user id: it {error}"));
        let time = match &value {
            Value::Number(seconds) => unix_seconds(seconds),
            Value::String(text) => time(text),
            _ => Err(FORM.to_owned()),
        };
        let time = time.and_then(|time| {
            if time > now {
                Err(format!("lies in the future ({time})"))
            } else {
                Ok(time)
            }
        });
        match (user, time) {
            (Ok(user), Ok(time)) => ages.push((user, time)),
            (user, time) => {
                user.err().into_iter().chain(time.err()).for_each(&mut fault);
            }
        }
    }
    if faults.is_empty() {
        Ok(ages)
    } else {
        Err(NotRead::Faults(faults))
    }
}

/// What became of one age.
enum Set {
    Done,
    /// There is no such user.
    Unknown(UserId),
    /// The user is being registered or deleted, or the API failed for this one.
    Failed(UserId, String),
}

/// `import`.
pub(super) async fn import(global: &Global, target: &Target, file: &Path) -> Result<Exit, Refusal> {
    let text = read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let ages = match read_ages(&text, target.now().await?) {
        Ok(ages) => ages,
        Err(NotRead::Form(reason)) => {
            return Err(Refusal::Failed(format!(
                "nothing was changed, because {} is not of the form {{\"user_id\": time}}: {reason}",
                file.display()
            )));
        }
        Err(NotRead::Faults(faults)) => return Ok(refuse(global, file, &faults)),
    };
    let tracked = tracked_ages(target).await?;
    let (right, to_set): (Vec<_>, Vec<_>) = ages
        .into_iter()
        .partition(|(user, time)| tracked.get(user.as_str()).map(Vec::as_slice) == Some(&[*time]));
    let progress = Progress::of("Setting ages", to_set.len() as u64);
    let sets: Vec<Set> = stream::iter(to_set)
        .map(|(user, time)| set(target, user, time))
        .buffer_unordered(AT_ONCE)
        .inspect_ok(|_| progress.add(1))
        .try_collect()
        .await?;
    drop(progress);
    let (mut updated, mut unknown, mut failed) = (0, Vec::new(), Vec::new());
    for set in sets {
        match set {
            Set::Done => updated += 1,
            Set::Unknown(user) => unknown.push(user.to_string()),
            Set::Failed(user, reason) => failed.push(json!({"user_id": user, "reason": reason})),
        }
    }
    unknown.sort();
    let report = json!({"updated": updated, "unchanged": right.len(), "unknown": unknown, "failed": failed});
    show(global, &report, |_| {
        let mut lines = vec![format!(
            "{} set; {} right already.",
            number_of(updated, "age", "ages"),
            right.len()
        )];
        if !unknown.is_empty() {
            lines.push(format!(
                "Not tracked ({}): {}. `berth connections add-user ID --created-at TIME` adds one that SnapTrade knows.",
                unknown.len(),
                enumerate(&unknown)
            ));
        }
        for failure in &failed {
            lines.push(format!(
                "Not set for {}: {}.",
                crate::words::text(failure, "user_id"),
                crate::words::text(failure, "reason")
            ));
        }
        lines.join("\n")
    });
    Ok(if unknown.is_empty() && failed.is_empty() {
        Exit::Success
    } else {
        Exit::NeedsPerson
    })
}

/// Sets one age. Fails as a whole only when nobody answers any more.
async fn set(target: &Target, user: UserId, time: Timestamp) -> Result<Set, CallError> {
    let body = json!({"created_at": time});
    match target
        .call(Method::PATCH, &path_of(user.as_str()), Some(&body))
        .await
    {
        Ok(_) => Ok(Set::Done),
        Err(CallError::Answered { status: 404, .. }) => Ok(Set::Unknown(user)),
        Err(error @ CallError::Answered { .. }) => Ok(Set::Failed(user, error.to_string())),
        Err(error) => Err(error),
    }
}

/// The ages as they are, by user. Several where SnapTrade knows several ids of one user.
async fn tracked_ages(target: &Target) -> Result<HashMap<String, Vec<Timestamp>>, CallError> {
    let mut ages: HashMap<String, Vec<Timestamp>> = HashMap::new();
    let mut pages = pages(target);
    while let Some(rows) = pages.next().await? {
        for row in rows {
            if let Some((user, time)) = age(&row) {
                ages.entry(user).or_default().push(time);
            }
        }
    }
    Ok(ages)
}

/// Whose row it is, and since when.
fn age(row: &Value) -> Option<(String, Timestamp)> {
    let user = row.get("user_id")?.as_str()?.to_owned();
    let time = row.get("created_at")?.as_str()?.parse().ok()?;
    Some((user, time))
}

/// Says all that is wrong with a file.
fn refuse(global: &Global, file: &Path, faults: &[Fault]) -> Exit {
    if global.json {
        let errors: Vec<_> = faults
            .iter()
            .map(|Fault { key, detail }| {
                let pointer = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
                json!({"pointer": pointer, "detail": detail})
            })
            .collect();
        print(&json!({ "errors": errors }).to_string());
    }
    let lines: Vec<_> = faults
        .iter()
        .map(|fault| format!("  {:?} {}", fault.key, fault.detail))
        .collect();
    Exit::failed(&format!(
        "nothing was changed, because {} has {}:\n{}",
        file.display(),
        number_of(faults.len() as u64, "fault", "faults"),
        lines.join("\n")
    ))
}

/// `export`.
pub(super) async fn export(global: &Global, target: &Target, file: &Path) -> Result<Exit, Refusal> {
    let fault = |error: io::Error| format!("{} cannot be written: {error}", file.display());
    if file.as_os_str() == STANDARD {
        let (users, text) = write_ages(target, Vec::new()).await?.map_err(fault)?;
        let _ = users;
        print(String::from_utf8_lossy(&text).trim_end());
        return Ok(Exit::Success);
    }
    let whole = WholeFile::create(file).map_err(fault)?;
    let (users, whole) = write_ages(target, whole).await?.map_err(fault)?;
    whole.finish().map_err(fault)?;
    let report = json!({"file": file, "users": users});
    show(global, &report, |_| {
        format!(
            "The {} of {} went to {}.",
            if users == 1 { "age" } else { "ages" },
            number_of(users, "user", "users"),
            file.display()
        )
    });
    Ok(Exit::Success)
}

/// Writes the age of each registered or adopted user, page by page, and tells how many there are.
async fn write_ages<W: Write>(target: &Target, mut to: W) -> Result<io::Result<(u64, W)>, CallError> {
    let progress = Progress::without_end("Exporting ages");
    // Several ids of one user at SnapTrade have one name here; the first row is the oldest.
    let mut written = HashSet::new();
    let mut pages = pages(target);
    let mut wrote = to.write_all(b"{");
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            let state = row.get("state").and_then(Value::as_str);
            let Some((user, time)) = age(row).filter(|_| matches!(state, Some("active" | "adopted"))) else {
                continue;
            };
            if wrote.is_ok() && written.insert(user.clone()) {
                let comma = if written.len() > 1 { "," } else { "" };
                wrote = write!(to, "{comma}\n  {}: {}", json!(user), in_seconds(time));
            }
        }
        progress.set(written.len() as u64);
    }
    let end: &[u8] = if written.is_empty() { b"}\n" } else { b"\n}\n" };
    Ok(wrote
        .and_then(|()| to.write_all(end))
        .map(|()| (written.len() as u64, to)))
}

/// The text of a file, or of standard input.
fn read(file: &Path) -> io::Result<String> {
    if file.as_os_str() == STANDARD {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn ages(text: &str) -> Result<Vec<(String, Timestamp)>, NotRead> {
        let read = read_ages(text, at("2026-11-21T12:00:00Z"))?;
        Ok(read
            .into_iter()
            .map(|(user, time)| (user.to_string(), time))
            .collect())
    }

    #[test]
    fn times_are_unix_seconds_also_with_a_fraction_or_rfc_3339() {
        let expected = at("2023-11-14T22:13:20Z");
        for text in [
            "1700000000",
            "2023-11-14T22:13:20Z",
            "2023-11-14T23:13:20+01:00",
            "1700000000.0",
        ] {
            assert_eq!(time(text).unwrap(), expected, "{text}");
        }
        assert_eq!(time("1700000000.1234").unwrap(), at("2023-11-14T22:13:20.123Z"));
        for text in ["yesterday", "", "2023-11-14T22:13:20", "1700000000000", "1e300"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_that_is_written_reads_back_as_it_was() {
        for text in [
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20.007Z",
            "1969-12-31T23:59:59.5Z",
            "1969-12-31T23:59:58.25Z",
            "1970-01-01T00:00:00.001Z",
        ] {
            let written = in_seconds(at(text));
            assert_eq!(time(&written).unwrap(), at(text), "{written}");
        }
        assert_eq!(in_seconds(at("1970-01-01T00:00:01.5Z")), "1.500");
    }

    #[test]
    fn ages_are_read_in_every_form_of_a_time() {
        let read = ages(r#"{"ada": 1700000000, "grace": "1700000000.5", "a/b": "2026-01-01T00:00:00Z"}"#);
        assert_eq!(
            read.unwrap(),
            [
                ("ada".to_owned(), at("2023-11-14T22:13:20Z")),
                ("grace".to_owned(), at("2023-11-14T22:13:20.5Z")),
                ("a/b".to_owned(), at("2026-01-01T00:00:00Z")),
            ]
        );
    }

    #[test]
    fn every_fault_of_a_file_is_named_with_its_key() {
        let text = r#"{"ada": 1700000000, "a b": 1, "grace": "soon", "edsger": null, "ada": 2,
                       "alan": 1900000000000, "kurt": "2030-01-01T00:00:00Z", "": []}"#;
        let Err(NotRead::Faults(faults)) = ages(text) else {
            panic!("the file was taken");
        };
        let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, ["a b", "grace", "edsger", "ada", "alan", "kurt", "", ""]);
        assert!(faults.iter().any(|fault| fault.detail.contains("in the future")));
        assert!(faults.iter().any(|fault| fault.detail.contains("twice")));
    }

    #[test]
    fn what_is_no_object_is_not_taken_for_an_empty_one() {
        for text in ["", "[]", "null", r#"{"ada": 1"#, r#"{"ada": 1} {}"#, "\"ada\""] {
            assert!(matches!(ages(text), Err(NotRead::Form(_))), "{text}");
        }
        assert_eq!(ages("{}").unwrap(), []);
    }
}
