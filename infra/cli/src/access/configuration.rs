//! The access sync's configuration, for the commands that need it themselves, and checking it.

use std::path::{Path, PathBuf};

use berth::access::configuration::{Configuration, Fault, Faults, StandIns};
use berth::clock::Clock;
use berth::config::BaseUrl;
use berth_local::{Settings, access_stand_ins, sample_access_configuration};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{ConfigurationFile, print};
use crate::Global;
use crate::command::{Refusal, tell};
use crate::deployed::Deployed;
use crate::exit::Exit;
use crate::target::Target;
use crate::words::number_of;

/// What stands in a message for the configuration that no file holds.
const SAMPLE_NAME: &str = "the sample configuration";

/// A configuration, and what goes with it.
pub(super) struct Found {
    /// The configuration.
    pub(super) configuration: Configuration,
    /// The clock of the world that it is for.
    pub(super) clock: Clock,
    /// The local stack whose sandboxes stand in it, where they do. Close it at the end.
    pub(super) target: Option<Target>,
}

impl Found {
    /// Ends the stack that was started for this command, if any.
    pub(super) async fn close(self) {
        if let Some(target) = self.target {
            target.close().await;
        }
    }
}

/// Finds the configuration that a command is to work with: the file that is named, else the running stack's. Where a
/// file leaves addresses empty, the local stack's sandboxes stand in.
///
/// # Errors
/// [`Refusal`] names all that is wrong with it.
pub(super) async fn find(global: &Global, named: &ConfigurationFile) -> Result<Found, Refusal> {
    if let Some(file) = named_file(named) {
        let text = read(&file)?;
        if let Ok(configuration) = Configuration::parse(&text, None) {
            return complete(global, configuration).await;
        }
    }
    let target = Target::find(global).await.map_err(|error| error.to_string())?;
    match of_target(&target, named).await {
        Ok((configuration, clock)) => Ok(Found {
            configuration,
            clock,
            target: Some(target),
        }),
        Err(refusal) => {
            target.close().await;
            Err(refusal)
        }
    }
}

/// A configuration that names all its servers. The local stack's clock counts only for what is on this machine.
async fn complete(global: &Global, configuration: Configuration) -> Result<Found, Refusal> {
    let clock = Clock::system();
    if configuration.access_api.base_url.is_loopback()
        && let Some(target) = Target::running(global).await
    {
        clock.set(target.now().await?);
    }
    Ok(Found {
        configuration,
        clock,
        target: None,
    })
}

/// The configuration that holds for a target, and its clock.
///
/// # Errors
/// [`Refusal`] names all that is wrong with it.
pub(super) async fn of_target(
    target: &Target,
    named: &ConfigurationFile,
) -> Result<(Configuration, Clock), Refusal> {
    let file = match named_file(named) {
        Some(file) => Some(file),
        None => file_of(target).await?,
    };
    let text = match (&file, target.deployed()) {
        (Some(file), _) => read(file)?,
        (None, Some(deployed)) => of_secret(deployed).await?,
        (None, None) => sample_access_configuration().to_owned(),
    };
    let stand_ins = target.urls().and_then(access_stand_ins);
    let configuration = Configuration::parse(&text, stand_ins.as_ref())
        .map_err(|faults| Refusal::Failed(listed(&name(file.as_deref()), &faults)))?;
    let clock = Clock::system();
    clock.set(target.now().await?);
    Ok((configuration, clock))
}

/// The configuration of a deployed stack, which stands in a secret.
async fn of_secret(deployed: &Deployed) -> Result<String, Refusal> {
    let read = deployed.access_configuration().await;
    let value = read.map_err(|reason| {
        Refusal::Failed(format!(
            "the secret with the access sync's configuration cannot be read ({reason}): allow it, or name a file with --access-config"
        ))
    })?;
    value.ok_or_else(|| Refusal::Failed("there is no access sync: its secret has no value yet".to_owned()))
}

/// The file that a target's configuration stands in; `None` for the sample.
async fn file_of(target: &Target) -> Result<Option<PathBuf>, Refusal> {
    let settings = target.settings().await?;
    Ok(settings
        .get("access_config")
        .and_then(Value::as_str)
        .map(PathBuf::from))
}

/// `check-config`.
pub(super) async fn check(global: &Global, named: &ConfigurationFile) -> Exit {
    match text_to_check(global, named).await {
        Ok((file, text)) => judge(global, file.as_deref(), &text),
        Err(refusal) => tell(global, &refusal),
    }
}

/// The text to check, with the file that it stands in. A file is checked without a stack, which might not start with it.
async fn text_to_check(
    global: &Global,
    named: &ConfigurationFile,
) -> Result<(Option<PathBuf>, String), Refusal> {
    let file = match named_file(named) {
        Some(file) => Some(file),
        None => match Target::running(global).await {
            Some(target) => file_of(&target).await?,
            None => Settings::read(&global.environment_file())
                .map_err(|error| error.to_string())?
                .get("ACCESS_CONFIG_FILE")
                .map(PathBuf::from),
        },
    };
    let text = match &file {
        Some(file) => read(file)?,
        None => sample_access_configuration().to_owned(),
    };
    Ok((file, text))
}

/// Says what is wrong with a configuration, or that nothing is. What a deployment has to have and the local stack has
/// not is a fault only where a deployment is meant.
fn judge(global: &Global, file: Option<&Path>, text: &str) -> Exit {
    let deployed = Configuration::parse(text, None);
    let local = Configuration::parse(text, stand_ins().as_ref());
    let for_deployment = global.stack.as_deref().is_some_and(|stack| !stack.is_empty());
    let (read, missing) = match (deployed, for_deployment) {
        (Err(faults), false) => (local, faults.0),
        (read, _) => (read, Vec::new()),
    };
    let file = name(file);
    match read {
        Ok(configuration) => {
            let report = json!({
                "valid": true, "file": file, "faults": [], "warnings": configuration.warnings,
                "missing_for_deployment": missing.iter().map(pointed).collect::<Vec<_>>(),
            });
            if global.json {
                print(&report.to_string());
            } else {
                print(&words(&file, &configuration, &missing));
            }
            Exit::Success
        }
        Err(faults) => {
            if global.json {
                let faults: Vec<Value> = faults.0.iter().map(pointed).collect();
                let report = json!({"valid": false, "file": file, "faults": faults, "warnings": []});
                print(&report.to_string());
            }
            Exit::failed(&listed(&file, &faults))
        }
    }
}

fn words(file: &str, configuration: &Configuration, missing: &[Fault]) -> String {
    let scripts = configuration.scripts().len() as u64;
    let mut lines = vec![format!(
        "{file} is right: {} for {}, a run every {} minutes{}.",
        number_of(configuration.products.len() as u64, "product", "products"),
        number_of(scripts, "script", "scripts"),
        configuration.interval.as_secs() / 60,
        if configuration.writes_enabled {
            ""
        } else {
            ", and nothing is written (writes_enabled)"
        },
    )];
    lines.extend(
        configuration
            .warnings
            .iter()
            .map(|warning| format!("Warning: {warning}.")),
    );
    if !missing.is_empty() {
        lines.push("The local stack's sandboxes stand in; a deployment needs, too:".to_owned());
        lines.extend(missing.iter().map(|fault| format!("  {fault}")));
    }
    lines.join("\n")
}

fn pointed(fault: &Fault) -> Value {
    json!({"path": fault.path, "detail": fault.detail})
}

/// All faults, one a line.
fn listed(file: &str, faults: &Faults) -> String {
    let lines: Vec<String> = faults.0.iter().map(|fault| format!("  {fault}")).collect();
    format!(
        "{file} has {}:\n{}",
        number_of(faults.0.len() as u64, "fault", "faults"),
        lines.join("\n")
    )
}

/// Stand-ins for judging only; nothing is called there.
fn stand_ins() -> Option<StandIns> {
    let here = BaseUrl::parse("http://127.0.0.1").ok()?;
    Some(StandIns {
        shop: here.clone(),
        access_api: here,
        access_api_key: SecretString::from("stand-in"),
        mail: ("127.0.0.1".to_owned(), 25),
    })
}

fn named_file(named: &ConfigurationFile) -> Option<PathBuf> {
    named.file.clone().filter(|file| !file.as_os_str().is_empty())
}

fn name(file: Option<&Path>) -> String {
    file.map_or_else(|| SAMPLE_NAME.to_owned(), |file| file.display().to_string())
}

fn read(file: &Path) -> Result<String, Refusal> {
    std::fs::read_to_string(file)
        .map_err(|error| Refusal::Failed(format!("{} cannot be read: {error}", file.display())))
}
