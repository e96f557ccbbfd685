//! The programs that are measured.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::DeflateEncoder;

use crate::Failure;
use crate::aws::Aws;

/// How long a function may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// The bare functions: without clients, with them, and with the calls that a function starts with.
pub(crate) const BARE: [&str; 3] = ["hello", "hello-with-clients", "hello-that-calls"];

/// What a zip holds beside the compressed program: the entry's headers and the directory.
const ZIP_HEADERS: u64 = 122;

/// A program, built.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    path: PathBuf,
    event: String,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// Bytes of the file in a zip.
    pub(crate) zipped: u64,
}

/// One start, or the median of several.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// Until it asked for work.
    pub(crate) start: Duration,
    /// From having got an event until it had answered.
    pub(crate) answer: Duration,
    /// Memory after it, in bytes.
    pub(crate) resident: u64,
}

/// The checkout.
fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where Cargo puts what it builds with this profile.
pub(crate) fn built(profile: &str) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from);
    target.join(if profile == "dev" { "debug" } else { profile })
}

/// The names of all functions.
pub(crate) fn functions() -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(checkout().join("functions"))? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Builds the functions, what they are measured against, and the local stack.
pub(crate) fn build(functions: &[String], profile: &str) -> Result<(), Failure> {
    // The bare ones are built together with the functions, so that all have the same features of the same libraries.
    let packages = BARE.into_iter().chain(functions.iter().map(String::as_str));
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--locked", "--profile", profile]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    succeed(&mut cargo)?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--locked", "--profile", crate::stack::profile(profile)]);
    succeed(cargo.args(["--package", "berth-cli"]))
}

fn succeed(command: &mut Command) -> Result<(), Failure> {
    if command.current_dir(checkout()).status()?.success() {
        Ok(())
    } else {
        Err(format!("{command:?} failed").into())
    }
}

impl Program {
    /// The program of the package `name`, with the sample event that it is given.
    pub(crate) fn of(name: &str, profile: &str) -> Result<Self, Failure> {
        let path = built(profile).join(name);
        let mut program = Vec::new();
        std::fs::File::open(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?
            .read_to_end(&mut program)?;
        let mut zip = DeflateEncoder::new(Vec::new(), Compression::best());
        zip.write_all(&program)?;
        let zipped = u64::try_from(zip.finish()?.len())?;
        let events = checkout().join("infra/events");
        let own = events.join(format!("{name}.json"));
        let event = if own.exists() {
            own
        } else {
            events.join("status.json")
        };
        Ok(Self {
            name: name.to_owned(),
            path,
            event: std::fs::read_to_string(event)?,
            size: u64::try_from(program.len())?,
            zipped: zipped.saturating_add(ZIP_HEADERS),
        })
    }

    /// Starts it, has it work on its event, and ends it.
    pub(crate) fn start_once(&self, aws: &Aws, variables: &[(String, String)]) -> Result<Measured, Failure> {
        let failed = |what: String| format!("{}: {what}", self.name);
        let server = aws.serve(&self.event)?;
        let mut command = Command::new(&self.path);
        command
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .envs(server.variables())
            .env("AWS_LAMBDA_FUNCTION_NAME", &self.name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let started = Instant::now();
        let running = Running(command.spawn()?);
        let (polled, answered) = server.answered(PATIENCE).map_err(failed)?;
        Ok(Measured {
            start: polled.saturating_duration_since(started),
            answer: answered.saturating_duration_since(polled),
            resident: resident(running.0.id())?,
        })
    }
}

/// Ends the process when it is done with.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The memory of a process that is in use, in bytes. Source: proc(5), `VmRSS`.
fn resident(process: u32) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes.ok_or("the process has ended")?.trim().parse()?;
    Ok(kibibytes.saturating_mul(1024))
}

/// The median of each figure.
pub(crate) fn median(runs: &[Measured]) -> Measured {
    Measured {
        start: middle(runs.iter().map(|run| run.start).collect()),
        answer: middle(runs.iter().map(|run| run.answer).collect()),
        resident: middle(runs.iter().map(|run| run.resident).collect()),
    }
}

fn middle<T: Ord + Copy + Default>(mut values: Vec<T>) -> T {
    values.sort();
    values.get(values.len() / 2).copied().unwrap_or_default()
}
