//! Backing up and restoring the tracking data: the records of the limit, straight from and into the table.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use berth::clock::Clock;
use berth::config::Counts;
use berth::connections::backup::{self, BackupError, Faulty, Header, Origin, Restored, Tracking};
use berth::ids::TenantId;
use berth::store::Store;
use serde_json::{Value, json};

use super::{Refusal, confirm, limit, show, syncing};
use crate::Global;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::target::{OPERATOR, Target};
use crate::whole_file::WholeFile;
use crate::words::{count, number_of};

/// How often the table is read in the hope that no place changes hands meanwhile.
const MAX_READINGS: u32 = 3;

/// What the table is reached by, and where that is.
struct Table {
    store: Store,
    clock: Clock,
    origin: Origin,
    counts: Counts,
}

impl Table {
    async fn of(target: &Target) -> Result<Self, Refusal> {
        let settings = target.settings().await?;
        let setting = |name: &str| {
            let value = settings.get(name).and_then(Value::as_str).map(str::to_owned);
            value.ok_or_else(|| Refusal::Failed(format!("the stack does not tell its {name}: restart it")))
        };
        let origin = Origin {
            tenant: TenantId::default(),
            table: setting("table_name")?,
            client_id: setting("client_id")?,
        };
        let counts = serde_json::from_value(json!(setting("counts")?))
            .map_err(|_| "the stack counts what this command does not know: use the newer one".to_owned())?;
        let client = target.dynamodb()?;
        let clock = Clock::system();
        clock.set(target.now().await?);
        Ok(Self {
            store: Store::new(client, origin.table.clone()),
            clock,
            origin,
            counts,
        })
    }

    fn tracking(&self) -> Tracking<'_> {
        Tracking {
            store: &self.store,
            clock: &self.clock,
            tenant: self.origin.tenant.clone(),
            counts: self.counts,
        }
    }
}

/// `backup`.
pub(super) async fn backup(global: &Global, target: &Target, file: &Path) -> Result<Exit, Refusal> {
    let table = Table::of(target).await?;
    let header = write(&table, file).await.map_err(|error| {
        Refusal::Failed(format!("the backup to {} was not made: {error}", file.display()))
    })?;
    let mut report = json!(header);
    if let Some(members) = report.as_object_mut() {
        members.insert("file".to_owned(), json!(file));
    }
    show(global, &report, |_| {
        let counts = &header.counts;
        let mut words = format!(
            "{}, {} without a secret here and {} more went to {}.\n\
             Their secrets stay encrypted with the data keys, which are not in the file: keep those, too ({}).",
            number_of(counts.users, "user", "users"),
            number_of(counts.adopted, "id", "ids"),
            number_of(
                counts.total() - counts.users - counts.adopted,
                "record",
                "records"
            ),
            file.display(),
            match target.deployed() {
                Some(_) => "the secret that the output DataKeySecretArn names".to_owned(),
                None => global
                    .data_directory()
                    .join("data-keys.json")
                    .display()
                    .to_string(),
            },
        );
        if !header.steady {
            words.push_str(
                "\nPlaces changed hands while the table was read; what that left out is found by the sync after a restore.",
            );
        }
        words
    });
    Ok(Exit::Success)
}

/// Writes the backup, again where places changed hands meanwhile, and the last one in any case.
async fn write(table: &Table, file: &Path) -> Result<Header, BackupError> {
    let mut readings = 1;
    loop {
        let progress = Progress::without_end("Backing up");
        let whole = WholeFile::create(file)?;
        let (header, whole) =
            backup::back_up(&table.tracking(), whole, table.origin.clone(), &mut |records| {
                progress.set(records)
            })
            .await?;
        if header.steady || readings == MAX_READINGS {
            whole.finish()?;
            return Ok(header);
        }
        readings += 1;
    }
}

/// `restore`.
pub(super) async fn restore(global: &Global, target: &Target, file: &Path) -> Result<Exit, Refusal> {
    let table = Table::of(target).await?;
    let unusable = |fault: &dyn std::fmt::Display| {
        Refusal::Failed(format!(
            "nothing was changed, because {} cannot be restored: {fault}",
            file.display()
        ))
    };
    // Held open from the first look on, so that what is restored is what was looked at.
    let mut content = BufReader::new(File::open(file).map_err(|error| unusable(&error))?);
    let (header, unopened) =
        examine(global, target, &table, &mut content).map_err(|fault| unusable(&fault))?;
    if header.origin.client_id != table.origin.client_id {
        return Err(unusable(&format!(
            "its ids belong to SnapTrade's client {}, and the target works as {}",
            header.origin.client_id, table.origin.client_id
        )));
    }
    confirm(global, target, &question(target, &header, unopened).await?)?;

    let progress = Progress::of("Restoring", header.counts.total());
    let restored = backup::restore(&table.tracking(), content, OPERATOR, &mut |records| {
        progress.set(records);
    })
    .await
    .map_err(|error| {
        Refusal::Failed(format!(
            "the restore stopped half way ({error}): run it again, it goes on where it was"
        ))
    })?;
    drop(progress);
    let synced = syncing::after_others(target).await.map_err(|error| {
        Refusal::Failed(format!(
            "the records are restored, but the sync after it failed ({error}): run `berth connections sync`"
        ))
    })?;
    let report = json!({
        "file": file, "taken_at": header.taken_at, "restored": restored, "unopened_secrets": unopened, "sync": synced,
    });
    show(global, &report, |_| describe(&restored, unopened, &synced));
    Ok(if unopened > 0 {
        Exit::NeedsPerson
    } else {
        syncing::exit(&synced)
    })
}

/// Looks through the whole file.
fn examine(
    global: &Global,
    target: &Target,
    table: &Table,
    content: &mut BufReader<File>,
) -> Result<(Header, u64), Faulty> {
    // A stack in memory keeps its keys to itself, and a deployed one in a secret that is not for people; there, what
    // does not open is found when it is used.
    let keys = match target.deployed() {
        Some(_) => None,
        None => berth_local::data_keys(&global.data_directory()).ok().flatten(),
    };
    let progress = Progress::without_end("Checking the file");
    backup::examine(content, &table.origin.tenant, keys.as_ref(), &mut |records| {
        progress.set(records);
    })
}

/// What is asked before anything is restored.
async fn question(target: &Target, header: &Header, unopened: u64) -> Result<String, Refusal> {
    let status = limit::status(target).await?;
    let mut question = format!(
        "restore {} and {} of {} UTC (table {}), and keep what is tracked now ({})",
        number_of(header.counts.users, "user", "users"),
        number_of(
            header.counts.adopted,
            "id without a secret",
            "ids without a secret"
        ),
        header.taken_at.strftime("%Y-%m-%d %H:%M"),
        header.origin.table,
        number_of(count(&status, "tracked_count"), "user", "users"),
    );
    if unopened > 0 {
        question.push_str(&format!(
            "; the data keys here do not open {} of the secrets, so those users will have to register again",
            unopened
        ));
    }
    Ok(question)
}

fn describe(restored: &Restored, unopened: u64, synced: &Value) -> String {
    let mut lines = vec![format!(
        "{}, {} without a secret here, {} that have to go and {} of the audit trail came back.",
        number_of(restored.users, "user", "users"),
        number_of(restored.adopted, "id", "ids"),
        number_of(restored.ghosts, "id", "ids"),
        number_of(restored.audit, "line", "lines"),
    )];
    let left = [
        (restored.there, "there already"),
        (restored.newer, "of users who registered anew since"),
        (restored.retired, "of users who gave way or were deleted since"),
        (restored.unfinished, "of what was only under way"),
        (restored.no_room, "of users with too many ids"),
    ];
    let left: Vec<_> = left
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, why)| format!("{count} {why}"))
        .collect();
    if !left.is_empty() {
        lines.push(format!("Records left alone: {}.", left.join(", ")));
    }
    if unopened > 0 {
        lines.push(format!(
            "The data keys here do not open the secrets of {}: put the old data-keys.json back, or they register again.",
            number_of(unopened, "user", "users")
        ));
    }
    lines.push(format!("Sync: {}", syncing::describe(synced)));
    lines.join("\n")
}
