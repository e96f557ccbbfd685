//! A script's master data in files, in the shape of the program that Berth replaces.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{ConfigurationFile, configuration, print, runs, segment, show};
use crate::Global;
use crate::command::Refusal;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::target::Target;
use crate::whole_file::WholeFile;
use crate::words::{count, list, number_of};

/// The name of standard output.
const STANDARD: &str = "-";

/// How much of a file is sent at once, in bytes: the API takes bodies of 256 KiB, and has to be done with one in time,
/// on a busy machine, too. This is about 150 users.
const BODY_BYTES: usize = 24 * 1024;

/// What a file's name cannot hold everywhere.
const NOT_IN_NAMES: &AsciiSet = &CONTROLS
    .add(b'/')
    .add(b'\\')
    .add(b':')
    .add(b'*')
    .add(b'?')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'|')
    .add(b'%');

/// What is taken over from a user; the rest is history.
const TAKEN_OVER: [&str; 5] = ["email", "wp_user_id", "wp_username", "expiry", "lifetime"];

/// `export`.
pub(super) async fn export(
    global: &Global,
    target: &Target,
    script: &str,
    file: Option<&Path>,
) -> Result<Exit, Refusal> {
    let progress = Progress::without_end("Exporting");
    let data = target.get(&path_of(script)).await?;
    drop(progress);
    let text = serde_json::to_string_pretty(&data).map_err(|error| error.to_string())?;
    if file.is_some_and(|file| file.as_os_str() == STANDARD) {
        print(if global.json { data.to_string() } else { text }.as_str());
        return Ok(Exit::Success);
    }
    let file = match file {
        Some(file) => file.to_owned(),
        None => default_file(target, script).await?,
    };
    write(&file, &text)?;
    let users = data.get("users").and_then(Value::as_object).map_or(0, Map::len);
    show(global, &data, |_| {
        format!(
            "What is known of {script} went to {}: {}.",
            file.display(),
            number_of(users as u64, "user", "users")
        )
    });
    Ok(Exit::Success)
}

/// Brings the files of all scripts up to date where the configuration names a directory for them, as the program before
/// did after each run. Tells which could not be, which keeps nobody from the sync.
pub(super) async fn keep(target: &Target) {
    let named = ConfigurationFile { file: None };
    let Ok((configuration, _)) = configuration::of_target(target, &named).await else {
        return;
    };
    if !configuration.paths.keeps_master_data {
        return;
    }
    let directory = PathBuf::from(&configuration.paths.master_data);
    for script in configuration.scripts() {
        let file = directory.join(file_name(script.as_str()));
        let kept = async {
            let data = target.get(&path_of(script.as_str())).await?;
            let text = serde_json::to_string_pretty(&data).map_err(|error| error.to_string())?;
            write(&file, &text)
        };
        if let Err(Refusal::Failed(reason)) = kept.await {
            eprintln!("berth: {reason}");
        }
    }
}

/// Writes a file, whole or not at all, with the directory that it belongs into.
fn write(file: &Path, text: &str) -> Result<(), Refusal> {
    let fault = |error: std::io::Error| format!("{} cannot be written: {error}", file.display());
    if let Some(directory) = file
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        std::fs::create_dir_all(directory).map_err(fault)?;
    }
    let mut whole = WholeFile::create(file).map_err(fault)?;
    writeln!(whole, "{text}").map_err(fault)?;
    Ok(whole.finish().map_err(fault)?)
}

/// Where the configuration keeps master data.
async fn default_file(target: &Target, script: &str) -> Result<PathBuf, Refusal> {
    let named = ConfigurationFile { file: None };
    let (configuration, _) = configuration::of_target(target, &named).await?;
    Ok(PathBuf::from(configuration.paths.master_data).join(file_name(script)))
}

/// The name of a script's file. A script may be called anything.
fn file_name(script: &str) -> String {
    let name = utf8_percent_encode(script, NOT_IN_NAMES).to_string();
    match name.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}.json"),
        None => format!("{name}.json"),
    }
}

/// `import`.
pub(super) async fn import(
    global: &Global,
    target: &Target,
    file: &Path,
    script: Option<&str>,
) -> Result<Exit, Refusal> {
    let unusable = |why: &dyn std::fmt::Display| {
        Refusal::Failed(format!(
            "nothing was taken over, because {} cannot be used: {why}",
            file.display()
        ))
    };
    let text = std::fs::read_to_string(file).map_err(|error| unusable(&error))?;
    let data: Value = serde_json::from_str(&text).map_err(|error| unusable(&error))?;
    let Value::Object(mut data) = data else {
        return Err(unusable(&"it is no JSON object"));
    };
    let script = match (script, data.get("script_id").and_then(Value::as_str)) {
        (Some(script), Some(own)) if script != own => {
            return Err(unusable(&format!("it is about the script {own}, not {script}")));
        }
        (Some(script), _) | (None, Some(script)) => script.to_owned(),
        (None, None) => script_of(file).ok_or_else(|| unusable(&"it names no script: add --script ID"))?,
    };
    data.insert("script_id".to_owned(), json!(script));
    let parts = parts(data, BODY_BYTES).map_err(|why| unusable(&why))?;
    let progress = Progress::of("Taking over", parts.len() as u64);
    let (mut users, mut skipped) = (0, Vec::new());
    for part in &parts {
        let answer = match runs::patiently(target, Method::PUT, &path_of(&script), Some(part)).await {
            Ok(answer) => answer,
            Err(error) if users == 0 => return Err(error.into()),
            Err(error) => {
                return Err(Refusal::Failed(format!(
                    "{error}; {} taken over before that: run it again, it changes nothing twice",
                    number_of(users, "user was", "users were")
                )));
            }
        };
        users += count(&answer, "users");
        let left = answer.get("skipped").and_then(Value::as_array);
        skipped.extend(left.into_iter().flatten().cloned());
        progress.add(1);
    }
    drop(progress);
    let report = json!({"users": users, "skipped": skipped});
    show(global, &report, |report| {
        let mut words = format!("Taken over: {} of {script}.", number_of(users, "user", "users"));
        if !skipped.is_empty() {
            words.push_str(&format!(
                "\nLeft out ({}): {}.",
                skipped.len(),
                list(report, "skipped")
            ));
        }
        words
    });
    Ok(if skipped.is_empty() {
        Exit::Success
    } else {
        Exit::NeedsPerson
    })
}

/// The script that a file's name says, as `export` names files.
fn script_of(file: &Path) -> Option<String> {
    let stem = file.file_stem()?.to_str()?;
    let script = percent_decode_str(stem).decode_utf8().ok()?;
    (!script.is_empty()).then(|| script.into_owned())
}

/// Master data in parts of no more than `most` bytes: whole where it fits, else so many users at a time, without their
/// history, which is not taken over.
fn parts(data: Map<String, Value>, most: usize) -> Result<Vec<Value>, &'static str> {
    let users = match data.get("users") {
        Some(Value::Object(users)) => users,
        None | Some(Value::Null) => return Err("it has no users"),
        Some(_) => return Err("its users are no object"),
    };
    if Value::Object(data.clone()).to_string().len() <= most {
        return Ok(vec![Value::Object(data)]);
    }
    let mut frame = Map::new();
    for member in ["script_id", "last_synced_at", "last_processed_at"] {
        if let Some(value) = data.get(member) {
            frame.insert(member.to_owned(), value.clone());
        }
    }
    let part = |users: Map<String, Value>| {
        let mut part = frame.clone();
        part.insert("users".to_owned(), Value::Object(users));
        Value::Object(part)
    };
    let empty = part(Map::new()).to_string().len();
    let (mut parts, mut some, mut bytes) = (Vec::new(), Map::new(), empty);
    // Spellings of one name stay together, as the better one of them counts.
    let mut users: Vec<(String, &String, &Value)> = (users.iter())
        .map(|(name, user)| (name.to_ascii_lowercase(), name, user))
        .collect();
    users.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    let mut last = String::new();
    for (key, name, user) in users {
        let user = match user {
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .filter(|(member, _)| TAKEN_OVER.contains(&member.as_str()))
                    .map(|(member, value)| (member.clone(), value.clone()))
                    .collect(),
            ),
            other => other.clone(),
        };
        let more = json!(name).to_string().len() + user.to_string().len() + 2;
        if bytes + more > most && !some.is_empty() && key != last {
            parts.push(part(std::mem::take(&mut some)));
            bytes = empty;
        }
        bytes += more;
        some.insert(name.clone(), user);
        last = key;
    }
    if !some.is_empty() {
        parts.push(part(some));
    }
    Ok(parts)
}

fn path_of(script: &str) -> String {
    format!("/api/access/scripts/{}", segment(script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scripts_file_stays_in_its_directory_and_says_which_script_it_is() {
        for script in ["S1", "PUB;2f7c", "../../etc/passwd", ".hidden", "a b%2F"] {
            let name = file_name(script);
            assert!(!name.contains('/') && !name.starts_with('.'), "{name}");
            assert_eq!(script_of(Path::new(&name)).as_deref(), Some(script));
        }
    }

    #[test]
    fn a_small_file_is_sent_whole_and_a_large_one_in_parts_with_every_user_once() {
        let user = json!({"email": "a@example.com", "expiry": "2026-01-31T00:00:00Z", "lifetime": false, "history": [1]});
        let users: Map<String, Value> = (0..50)
            .map(|number| (format!("u{number}"), user.clone()))
            .collect();
        let data = json!({"script_id": "S1", "last_processed_at": "2026-01-01T00:00:00Z", "users": users});
        let Value::Object(data) = data else { panic!() };
        assert_eq!(
            parts(data.clone(), 1_000_000),
            Ok(vec![Value::Object(data.clone())])
        );
        let parts = parts(data, 1_000).unwrap();
        assert!(parts.len() > 1 && parts.iter().all(|part| part.to_string().len() <= 1_000));
        let names: Vec<&String> = parts
            .iter()
            .flat_map(|part| part["users"].as_object().unwrap().keys())
            .collect();
        assert_eq!(names.len(), 50);
        assert!(
            parts
                .iter()
                .all(|part| part["last_processed_at"] == "2026-01-01T00:00:00Z")
        );
        assert!(parts[0]["users"]["u0"].get("history").is_none());
    }

    #[test]
    fn a_file_without_users_is_no_master_data() {
        let Value::Object(data) = json!({"script_id": "S1"}) else {
            panic!()
        };
        assert!(parts(data, 1_000).is_err());
    }
}
