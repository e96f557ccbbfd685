//! `berth access batch`: giving access by a list of transactions and a file of those who have it, without the ledger.
//!
//! It is for taking a shop over, and for a shop whose customers are kept in such a file. Ends of access are absolute, so
//! that a batch which is broken off and made again gives nobody more; nothing is ever shortened or taken.

mod access_list;
mod checkpoint;
mod customers;
mod dump;
mod granted;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth::access::configuration::Configuration;
use berth::access::expiry::Expiry;
use berth::access::ids::ScriptId;
use berth::access::names::{Lookup, Username};
use berth::access::plan::{self, Action, Mode, PlannedAction};
use berth::access::remote::{RemoteUser, Wire};
use berth::access::retries::Verdict;
use berth::access::service::{AccessClient, Ended, Order, Pacing, REMARKS, Trail};
use berth::access::tally::Tally;
use berth::clock::Clock;
use berth::snaptrade::http_client;
use clap::Args;
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::time::Instant;

use self::access_list::AccessList;
use self::checkpoint::Checkpoint;
use self::customers::{Found, Name};
use self::granted::Granted;
use self::report::{Failure, Report, Review};
use super::{ConfigurationFile, configuration, show};
use crate::Global;
use crate::command::{Refusal, tell};
use crate::exit::Exit;
use crate::progress::Progress;
use crate::words::number_of;

/// How many names are worked on at once. The rates of the configuration hold over all of them.
const AT_ONCE: usize = 4;

/// How long one name may take, with all that is tried again.
const PER_NAME: Duration = Duration::from_secs(300);

/// How long reading the list of who has access may take.
const LISTING: Duration = Duration::from_secs(600);

/// What `batch` takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct BatchArgs {
    /// The transactions: a file with a JSON array of them, or their address at the configured shop
    #[arg(long, value_name = "FILE|URL")]
    transactions: String,
    /// Who has access: a file with the columns `id,username,userpic,created,expiration,fetched_at`
    #[arg(long, value_name = "FILE")]
    csv: PathBuf,
    /// The script, where the configuration has several
    #[arg(long, value_name = "ID")]
    script: Option<String>,
    /// After how many names the file is written
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_size: u32,
    /// Stop after so many batches; the next run goes on from there
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_batches: Option<u32>,
    /// Go by the file of who has access: only the names that stand in it, whoever else has bought something
    #[arg(long)]
    by_csv: bool,
    /// Note in this file whom access was given or prolonged: `username,wp_user_id,email,from,expiration,granted_at`
    #[arg(long, value_name = "FILE")]
    granted: Option<PathBuf>,
    /// Only say what would be done: nobody is called and no file is written
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    named: ConfigurationFile,
}

/// What came of one name.
enum Came {
    /// Access ends then; by this call, where one was needed.
    Has(Username, Action, Expiry),
    /// The access API does not know the name.
    Unknown(Vec<String>),
    /// It is no name.
    NoName(String),
    /// There is nothing to give, only something to look at.
    OnlyDoubts,
    /// It could not be done now.
    Failed(String),
    /// The access API lets nobody in: nothing else can be done either.
    NoAccess(String),
}

/// Runs the command.
pub(super) async fn run(global: &Global, args: &BatchArgs) -> Exit {
    let found = match configuration::find(global, &args.named).await {
        Ok(found) => found,
        Err(refusal) => return tell(global, &refusal),
    };
    // Ctrl-C ends the batch after what is under way, so that what was given stands in the file.
    let stop = Arc::new(AtomicBool::new(false));
    let listening = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                eprintln!("berth: finishing what is under way");
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
    let done = perform(global, args, &found.configuration, &found.clock, &stop).await;
    listening.abort();
    found.close().await;
    done.unwrap_or_else(|refusal| tell(global, &refusal))
}

async fn perform(
    global: &Global,
    args: &BatchArgs,
    configuration: &Configuration,
    clock: &Clock,
    stop: &AtomicBool,
) -> Result<Exit, Refusal> {
    if !configuration.writes_enabled && !args.dry_run {
        return Err(Refusal::Failed(
            "writes_enabled is false in the configuration, so nothing may be given: --dry-run shows what would be"
                .to_owned(),
        ));
    }
    let script = script(args.script.as_deref(), configuration)?;
    let http = http_client().map_err(|error| error.to_string())?;
    let tally = Arc::new(Tally::default());
    let now = clock.now();
    // Nobody else writes the file while this one does.
    let _lock = if args.dry_run {
        None
    } else {
        Some(locked(&args.csv)?)
    };
    let wire = Wire::of(&configuration.access_api);
    let known = AccessList::read(&args.csv, wire).map_err(|error| {
        format!(
            "nothing was done, because {} is not right: {error}",
            args.csv.display()
        )
    })?;
    let reading = Progress::without_end("Reading transactions");
    let dump = dump::read(
        &args.transactions,
        configuration,
        http.clone(),
        Arc::clone(&tally),
        now,
        |row| customers::is_about(row, &script, configuration),
    )
    .await?;
    drop(reading);
    let Found { mut names, ignored } = customers::find(dump.rows, configuration, &known, now);
    if args.by_csv {
        names.retain(|name| name.name.as_ref().is_ok_and(|name| known.get(name).is_some()));
    }
    let granted = match &args.granted {
        Some(file) => Some(Granted::read(file).map_err(|error| {
            format!(
                "nothing was done, because {} is not right: {error}",
                file.display()
            )
        })?),
        None => None,
    };
    let checkpoint = Checkpoint::read(&args.csv, &script, args.by_csv, now).map_err(|error| {
        let file = checkpoint::file(&args.csv);
        format!(
            "{} cannot be used ({error}): remove it to begin anew",
            file.display()
        )
    })?;
    for row in &dump.malformed {
        eprintln!("berth: {row}: manual review required");
    }
    let report = Report {
        script_id: script.as_str().to_owned(),
        csv: args.csv.clone(),
        dry_run: args.dry_run,
        transactions: dump.count,
        malformed: dump.malformed,
        ignored,
        plan: args.dry_run.then(Vec::new),
        ..Report::default()
    };
    let client = AccessClient::new(
        http,
        &configuration.access_api,
        Arc::new(Pacing::default()),
        Arc::clone(&tally),
        clock.clone(),
    );
    let mut batch = Batch {
        args,
        script,
        wire,
        clock,
        client,
        known,
        granted,
        checkpoint,
        report,
        stop,
    };
    let worked = batch.work(&names).await;
    batch.report.calls = json!(tally.snapshot());
    let report = json!(batch.report);
    show(global, &report, |_| batch.report.describe(batch.known.len()));
    worked?;
    Ok(batch.report.exit())
}

/// The script that is meant.
fn script(named: Option<&str>, configuration: &Configuration) -> Result<ScriptId, Refusal> {
    let scripts = configuration.scripts();
    let listed = || {
        scripts
            .iter()
            .map(|script| script.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (named, scripts.iter().next()) {
        (Some(named), _) => (scripts.iter().find(|script| script.as_str() == named))
            .map(|script| (*script).clone())
            .ok_or_else(|| {
                Refusal::Usage(format!(
                    "no product opens the script {named}: there are {}",
                    listed()
                ))
            }),
        (None, Some(only)) if scripts.len() == 1 => Ok((*only).clone()),
        (None, None) => Err(Refusal::Failed("the configuration has no product".to_owned())),
        (None, Some(_)) => Err(Refusal::Usage(format!(
            "name the script with --script: there are {}",
            listed()
        ))),
    }
}

fn locked(csv: &Path) -> Result<std::fs::File, Refusal> {
    match checkpoint::lock(csv) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(Refusal::Failed(format!(
            "another batch works on {} just now",
            csv.display()
        ))),
        Err(error) => Err(Refusal::Failed(format!(
            "{} cannot be locked: {error}",
            csv.display()
        ))),
    }
}

/// A batch under way.
struct Batch<'a> {
    args: &'a BatchArgs,
    script: ScriptId,
    wire: Wire,
    clock: &'a Clock,
    client: AccessClient,
    known: AccessList,
    granted: Option<Granted>,
    checkpoint: Checkpoint,
    report: Report,
    stop: &'a AtomicBool,
}

impl Batch<'_> {
    /// Goes through the names that are left, batch by batch, and writes the files after each.
    async fn work(&mut self, names: &[Name]) -> Result<(), Refusal> {
        // Who has nothing any more does not have to be tried again.
        self.checkpoint
            .again
            .retain(|person| names.iter().any(|name| name.first() == *person));
        let left: Vec<&Name> = names
            .iter()
            .filter(|name| self.checkpoint.leaves(name.first()))
            .collect();
        let size = usize::try_from(self.args.batch_size).unwrap_or(usize::MAX);
        let most = self
            .args
            .max_batches
            .map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let this_time = left.len().min(size.saturating_mul(most));
        let progress = Progress::of("Giving access", this_time as u64);
        let mut gone_through = 0;
        for some in left.chunks(size).take(most) {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let done = self.batch(some, &progress).await?;
            gone_through += done;
            if done < some.len() {
                break;
            }
        }
        drop(progress);
        self.report.remaining = (left.len() - gone_through + self.checkpoint.again.len()) as u64;
        self.report.complete = self.report.remaining == 0;
        if !self.args.dry_run {
            // Who is new has an id and a picture by now. What is missed is filled in by the next run.
            if self.report.granted > 0
                && let Ok(Some(listed)) = self.listed().await
            {
                listed.values().for_each(|user| self.known.fill_in(user));
            }
            self.write(self.report.complete)?;
        }
        if gone_through < this_time && self.stop.load(Ordering::Relaxed) {
            return Err(Refusal::Failed(format!(
                "stopped; {} for the next run, which goes on from there",
                number_of(self.report.remaining, "name is left", "names are left")
            )));
        }
        Ok(())
    }

    /// Goes through some names, and tells how many of them, from the first on, were gone through.
    async fn batch(&mut self, names: &[&Name], progress: &Progress) -> Result<usize, Refusal> {
        self.report.batches += 1;
        if self.args.dry_run {
            for name in names {
                let came = self.would_come(name);
                self.take(name, &came);
                progress.add(1);
            }
            return Ok(names.len());
        }
        let listed = self.listed().await?;
        let this = &*self;
        let no_access = AtomicBool::new(false);
        let mut came: BTreeMap<usize, Came> = stream::iter(names.iter().enumerate())
            .map(|(place, name)| {
                let (listed, no_access) = (listed.as_ref(), &no_access);
                async move {
                    if this.stop.load(Ordering::Relaxed) || no_access.load(Ordering::Relaxed) {
                        return None;
                    }
                    let came = this.give(name, listed).await;
                    if matches!(came, Came::NoAccess(_)) {
                        no_access.store(true, Ordering::Relaxed);
                    }
                    progress.add(1);
                    Some((place, came))
                }
            })
            .buffer_unordered(AT_ONCE)
            .filter_map(async |came| came)
            .collect()
            .await;
        let mut refused = None;
        came.retain(|_, came| match came {
            Came::NoAccess(reason) => {
                refused = Some(reason.clone());
                false
            }
            _ => true,
        });
        let mut in_a_row = 0;
        for (place, name) in names.iter().enumerate() {
            let Some(came) = came.get(&place) else { continue };
            self.take(name, came);
            if place == in_a_row {
                in_a_row += 1;
            }
        }
        if let Some(user_list) = &listed {
            for user in user_list.values() {
                self.known.fill_in(user);
            }
        }
        for name in names.iter().take(in_a_row) {
            self.checkpoint.after = self.checkpoint.after.max(Some(name.first()));
        }
        self.write(false)?;
        match refused {
            Some(reason) => Err(Refusal::Failed(format!(
                "{reason}: correct tradingview.api_key, then run it again, it goes on from there"
            ))),
            None => Ok(in_a_row),
        }
    }

    /// Everybody who has access now, where the access API can list them.
    async fn listed(&self) -> Result<Option<HashMap<String, RemoteUser>>, Refusal> {
        if !self.client.can_list() {
            return Ok(None);
        }
        let until = Instant::now() + LISTING;
        let unread = |ended: Ended| format!("{ended}, so nothing was given");
        let (mut listed, mut cursor, mut trail) = (HashMap::new(), None::<String>, Trail::default());
        loop {
            let page = self.client.page(&self.script, cursor.as_deref(), until).await;
            let page = page.map_err(unread)?;
            listed.extend(
                page.users
                    .into_iter()
                    .map(|user| (user.username.to_ascii_lowercase(), user)),
            );
            let Some(next) = page.next else {
                return Ok(Some(listed));
            };
            trail.go_on(&next).map_err(unread)?;
            cursor = Some(next);
        }
    }

    /// Gives one name what was paid for.
    async fn give(&self, name: &Name, listed: Option<&HashMap<String, RemoteUser>>) -> Came {
        let asked = match &name.name {
            Ok(asked) => asked,
            Err(error) => return Came::NoName(error.to_string()),
        };
        if !self.is_live(name) {
            return Came::OnlyDoubts;
        }
        let until = Instant::now() + PER_NAME;
        let username = match self.client.look_up(asked, until).await {
            Ok(Lookup::Known(username)) => username,
            Ok(Lookup::Unknown { suggestions }) => return Came::Unknown(suggestions),
            Err(ended) => return failed(&ended),
        };
        let remote = match listed {
            Some(listed) => Ok(listed.get(&username.key()).map(|user| user.expiry)),
            None => self.client.access_of(&self.script, &username, until).await,
        };
        let remote = match remote {
            Ok(remote) => remote,
            Err(ended) => return failed(&ended),
        };
        let (action, expiry, order) = self.decide(name, &username, remote);
        match self.client.write(&order, until).await {
            Ok(()) => Came::Has(username, action, expiry),
            Err(ended) => failed(&ended),
        }
    }

    /// What would come of one name by what the files say alone.
    fn would_come(&self, name: &Name) -> Came {
        match &name.name {
            Ok(_) if !self.is_live(name) => Came::OnlyDoubts,
            Ok(asked) => {
                let known = self.known.get(asked).map(|known| known.expiry);
                let (action, expiry, _) = self.decide(name, asked, known);
                Came::Has(asked.clone(), action, expiry)
            }
            Err(error) => Came::NoName(error.to_string()),
        }
    }

    fn is_live(&self, name: &Name) -> bool {
        let now = self.clock.now();
        name.claims().iter().any(|claim| claim.expiry.is_live(now))
    }

    /// What has to be done for a name, when its access ends after that, and the order for it.
    fn decide(&self, name: &Name, username: &Username, remote: Option<Expiry>) -> (Action, Expiry, Order) {
        let decision = plan::decide(&name.claims(), remote, self.wire, Mode::Sync, self.clock.now());
        let action = decision.as_ref().map_or(Action::None, |decision| decision.action);
        let person = decision.map_or(name.first(), |decision| decision.person);
        let customer = name.customers.iter().find(|customer| customer.person == person);
        let order = Order {
            script: self.script.clone(),
            username: username.clone(),
            action,
            email: customer
                .map(|customer| customer.email.clone())
                .unwrap_or_default(),
            subscription_type: customer
                .map(|customer| customer.subscription_type.clone())
                .unwrap_or_default(),
            wp_username: customer
                .map(|customer| customer.wp_username.clone())
                .unwrap_or_default(),
            remarks: REMARKS.to_owned(),
        };
        let expiry = match action.target() {
            Some(target) => self.wire.effective(target),
            None => remote.unwrap_or_default(),
        };
        (action, expiry, order)
    }

    /// Notes what came of a name.
    fn take(&mut self, name: &Name, came: &Came) {
        let now = self.clock.now();
        self.report.users += 1;
        self.checkpoint.again.remove(&name.first());
        for customer in &name.customers {
            for (transaction, reason) in &customer.doubts {
                self.report.review(Review {
                    person: customer.person,
                    username: name.written.clone(),
                    transaction_id: Some(transaction.as_str().to_owned()),
                    reason: reason.as_str().to_owned(),
                    detail: None,
                    suggestions: Vec::new(),
                });
            }
        }
        match came {
            Came::Has(username, action, expiry) => {
                match action {
                    Action::Grant { .. } => self.report.granted += 1,
                    Action::Update { .. } => self.report.updated += 1,
                    Action::None | Action::Remove { .. } => self.report.unchanged += 1,
                }
                if let Some(plan) = &mut self.report.plan {
                    plan.push(PlannedAction::new(
                        self.script.clone(),
                        name.first(),
                        username.clone(),
                        *action,
                    ));
                } else if *expiry != Expiry::NoAccess {
                    self.known.note(username, *expiry, now);
                    if let Some(granted) = self.granted.as_mut().filter(|_| action.gives()) {
                        granted.note(username, name, *action, *expiry, now);
                    }
                }
            }
            Came::Unknown(suggestions) => self.report.review(invalid(name, None, suggestions.clone())),
            Came::NoName(why) => self.report.review(invalid(name, Some(why.clone()), Vec::new())),
            Came::OnlyDoubts => {}
            Came::Failed(reason) | Came::NoAccess(reason) => {
                self.checkpoint.again.insert(name.first());
                self.report.failed.push(Failure {
                    person: name.first(),
                    username: name.written.clone(),
                    reason: reason.clone(),
                });
            }
        }
    }

    /// Writes who has access, and then where this batch is: what stands in neither is done again.
    fn write(&mut self, nothing_is_left: bool) -> Result<(), Refusal> {
        self.checkpoint.updated_at = self.clock.now();
        let fault = |file: &Path, error: std::io::Error| {
            Refusal::Failed(format!("{} cannot be written: {error}", file.display()))
        };
        let csv = &self.args.csv;
        self.known.write(csv).map_err(|error| fault(csv, error))?;
        if let (Some(granted), Some(file)) = (&self.granted, &self.args.granted) {
            granted.write(file).map_err(|error| fault(file, error))?;
        }
        let written = self.checkpoint.write(csv, nothing_is_left);
        written.map_err(|error| fault(&checkpoint::file(csv), error))
    }
}

fn invalid(name: &Name, detail: Option<String>, suggestions: Vec<String>) -> Review {
    Review {
        person: name.first(),
        username: name.written.clone(),
        transaction_id: None,
        reason: "invalid_username".to_owned(),
        detail,
        suggestions,
    }
}

fn failed(ended: &Ended) -> Came {
    if ended.verdict == Verdict::NoAccess {
        Came::NoAccess(ended.to_string())
    } else {
        Came::Failed(ended.to_string())
    }
}
