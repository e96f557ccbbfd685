//! A run: reads the shop, then brings what is due to the access API (facts/access.md C3).
//!
//! A run may die anywhere. What it has read stands in the customers' records, and what it was about to call stands there
//! as an intent, so that the next run looks first and then goes on. Runs exclude each other by a lease.

mod apply;
mod listing;
mod read;
mod tell;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use roaring::RoaringTreemap;
use tokio::time::Instant;

use self::listing::Listing;
pub(super) use self::read::Extent;
use super::books::{Books, NotKept};
use super::configuration::Configuration;
use super::ids::ScriptId;
use super::mail::{Digest, send_due};
use super::meter::Meter;
use super::plan::{Allowance, Mode, PlannedAction, Stale};
use super::records::{Counted, Lease, OpenKind, RunRecord};
use super::report::{Open, Report};
use super::service::{AccessClient, Ended, Pacing};
use super::shop::{ShopClient, ShopError};
use super::tally::Tally;
use crate::app::App;
use crate::ids::TenantId;
use crate::secrets::SecretError;
use crate::store::StoreError;
use crate::telemetry::new_id;

/// How long a run may go without renewing its lease.
pub(super) const LEASE: SignedDuration = SignedDuration::from_secs(120);

/// The least that is left of the lease when something is begun that takes time.
const LEASE_LEFT: SignedDuration = SignedDuration::from_secs(75);

/// How long one call may take with all that is tried again in it: less than what is left of the lease.
const CALL: Duration = Duration::from_secs(45);

/// What of a run's time is kept for its end: counting what there is, and writing down how it went. A run that has less
/// than five times as much keeps a fifth.
const ENDING: Duration = Duration::from_secs(2);

/// How many calls in a row may fail before the rest is left to the next run.
const MOST_FAILURES: u32 = 5;

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refused {
    /// There is no configuration.
    #[error("the access sync is not configured")]
    NotConfigured,
    /// Another run is under way.
    #[error("another run of the access sync is under way")]
    Running {
        /// When it is over at the latest, unless it goes on.
        retry_after: Duration,
    },
    /// There is no such thing.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The plan no longer fits.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// There was not enough time.
    #[error("there was no time left to finish")]
    OutOfTime,
    /// Nothing may be changed at the access API.
    #[error("writes are switched off (writes_enabled)")]
    WritesDisabled,
    /// What was given cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// The shop failed.
    #[error(transparent)]
    Shop(#[from] ShopError),
    /// The access API failed before anything could be done.
    #[error("the access API: {0}")]
    Service(Ended),
    /// The configuration could not be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Refused {
    /// Whether a run could not be made or not be finished; otherwise it was refused for a reason.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        match self {
            Self::OutOfTime | Self::Shop(_) | Self::Service(_) | Self::Secret(_) | Self::Store(_) => true,
            Self::NotConfigured
            | Self::Running { .. }
            | Self::NotFound(_)
            | Self::Stale(_)
            | Self::WritesDisabled
            | Self::Invalid(_) => false,
        }
    }
}

impl From<NotKept> for Refused {
    fn from(error: NotKept) -> Self {
        match error {
            NotKept::Store(error) => Self::Store(error),
            NotKept::Overtaken => Self::Running {
                retry_after: Duration::from_secs(5),
            },
        }
    }
}

/// How a run is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// For real.
    Real,
    /// Nothing is written, neither here nor there.
    Dry,
}

/// A run under way.
pub(super) struct Run<'a> {
    pub(super) app: &'a App,
    pub(super) tenant: TenantId,
    pub(super) configuration: Arc<Configuration>,
    pub(super) books: Books,
    pub(super) record: RunRecord,
    pub(super) report: Report,
    pub(super) now: Timestamp,
    pub(super) mode: Mode,
    pub(super) allowance: Allowance,
    /// The only calls that may be made, where a plan says which.
    pub(super) planned: Option<HashSet<PlannedAction>>,
    /// The customers that this run has changed, whom the index may not list yet.
    pub(super) touched: RoaringTreemap,
    pub(super) digest: Digest,
    /// What keeps the sync from its work, each with the cause that it is told once for.
    pub(super) alerts: Vec<(String, String)>,
    shop: ShopClient,
    service: AccessClient,
    tally: Arc<Tally>,
    began: Instant,
    /// When the work has to be over.
    until: Instant,
    /// When the run has to be over.
    end: Instant,
    lists: HashMap<ScriptId, Listing>,
    failures: u32,
    /// The scripts whose list could not be read, as far as that was counted as a failure.
    told_unlisted: HashSet<ScriptId>,
    versioned: bool,
    /// Whether something was left because the run had granted as much as it may.
    capped: bool,
    /// Whether something was left because the run had to stop.
    stopped: bool,
}

/// What a run was before it drew up a plan.
pub(super) struct Before {
    books: Books,
    allowance: Allowance,
    report: Report,
    digest: Digest,
    alerts: Vec<(String, String)>,
    lists: HashMap<ScriptId, Listing>,
    touched: RoaringTreemap,
    paused_since: Option<Timestamp>,
    failures: u32,
    stopped: bool,
}

impl<'a> Run<'a> {
    /// Begins a run that has to end within `budget`. A real one takes the lease.
    ///
    /// # Errors
    /// [`Refused::NotConfigured`], [`Refused::Running`], and what the store says.
    pub(super) async fn begin(
        app: &'a App,
        tenant: &TenantId,
        actor: &str,
        budget: Duration,
        manner: Manner,
    ) -> Result<Self, Refused> {
        let configuration = app.refresh_access().await?.ok_or(Refused::NotConfigured)?;
        let now = whole_seconds(app.clock().now());
        let mut books = Books::new(app.store().clone(), tenant.clone(), actor, now);
        let mut record = books.run_record().await?;
        let run_id = new_id();
        match manner {
            Manner::Dry => books = books.dry(),
            Manner::Real => {
                if let Some(lease) = record.lease.as_ref().filter(|lease| lease.is_live(now, LEASE)) {
                    let left = lease.until.duration_since(now).unsigned_abs();
                    return Err(Refused::Running { retry_after: left });
                }
                record.lease = Some(Lease {
                    run_id: run_id.clone(),
                    until: later(now, LEASE),
                });
                books.save_run(&mut record).await?;
            }
        }
        let tally = Arc::new(Tally::default());
        let end = Instant::now() + budget;
        let until = end - ENDING.min(budget / 5);
        let pacing = app.state::<Pacing>();
        let http = app.http().clone();
        Ok(Self {
            app,
            tenant: tenant.clone(),
            shop: ShopClient::new(http.clone(), &configuration.shop, Arc::clone(&tally)).until(until),
            service: AccessClient::new(
                http,
                &configuration.access_api,
                pacing,
                Arc::clone(&tally),
                app.clock().clone(),
            ),
            report: Report::begin(run_id.clone(), now, manner == Manner::Dry),
            digest: Digest::new(run_id, now),
            alerts: Vec::new(),
            began: Instant::now(),
            allowance: Allowance::new(configuration.caps),
            mode: Mode::Sync,
            planned: None,
            configuration,
            books,
            record,
            now,
            touched: RoaringTreemap::new(),
            tally,
            until,
            end,
            lists: HashMap::new(),
            failures: 0,
            told_unlisted: HashSet::new(),
            capped: false,
            versioned: false,
            stopped: false,
        })
    }

    /// Ends the run: counts what waits, tells who has to know, and lets the next one begin.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn finish(&mut self) -> Result<Report, Refused> {
        if !self.books.is_dry() {
            self.note_expired_reviews().await?;
        }
        self.count_in_time().await?;
        self.tell().await?;
        self.report.calls = self.tally.snapshot();
        let milliseconds = u64::try_from(self.began.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        self.report.rows_per_second = self.report.fetched.saturating_mul(1_000) / milliseconds;
        self.record.remains = self.stopped || self.capped;
        self.release().await?;
        if !self.books.is_dry() {
            self.report.mails = self.send_letters().await;
        }
        Ok(self.report.clone())
    }

    /// Sends the letters that are due, which no other run has to wait for, in the time that is left. Those beyond go out
    /// with the schedule. Tells how many were sent.
    async fn send_letters(&self) -> u64 {
        let (mail, discord) = (
            self.configuration.mail.as_ref(),
            self.configuration.discord.as_ref(),
        );
        let (store, http) = (self.books.store(), self.app.http());
        let sent = send_due(
            store,
            &self.tenant,
            mail,
            discord,
            http,
            self.app.clock(),
            self.end,
        )
        .await;
        sent.mails
    }

    /// Lets the next run begin after one that failed.
    pub(super) async fn release(&mut self) -> Result<(), Refused> {
        self.record.lease = None;
        Ok(self.books.save_run(&mut self.record).await?)
    }

    /// From here on nothing is written, and what would be done is noted as a plan. Gives what [`Run::draft_ends`] puts back.
    pub(super) fn draft_begins(&mut self) -> Before {
        let dry = self.books.dry();
        let before = Before {
            books: std::mem::replace(&mut self.books, dry),
            allowance: std::mem::replace(&mut self.allowance, Allowance::unlimited()),
            report: self.report.clone(),
            digest: self.digest.clone(),
            alerts: self.alerts.clone(),
            lists: self.lists.clone(),
            touched: self.touched.clone(),
            paused_since: self.record.paused_since,
            failures: self.failures,
            stopped: self.stopped,
        };
        self.report.plan = Some(Vec::new());
        before
    }

    /// Puts everything back as it was. Says whether the plan is whole.
    pub(super) fn draft_ends(&mut self, before: Before) -> bool {
        let whole = !self.stopped;
        self.books = before.books;
        self.allowance = before.allowance;
        self.report = before.report;
        self.digest = before.digest;
        self.alerts = before.alerts;
        self.lists = before.lists;
        self.touched = before.touched;
        self.record.paused_since = before.paused_since;
        self.failures = before.failures;
        self.stopped = before.stopped;
        whole
    }

    /// Counts what there is, in the time that is left. Where that is too short the last run's figures stand in the
    /// report, which says so.
    async fn count_in_time(&mut self) -> Result<(), Refused> {
        match tokio::time::timeout_at(self.end, self.count()).await {
            Ok(counted) => {
                counted?;
                self.record.counted = Some(Counted {
                    at: self.now,
                    active_users: self.report.active_users,
                    open: self.report.open,
                });
            }
            Err(_) => {
                let known = self.record.counted.clone();
                let when = match &known {
                    Some(counted) => format!("the figures are those of {}", counted.at),
                    None => "there are no figures yet".to_owned(),
                };
                self.report.warn(format!(
                    "there was no time left to count active users and what waits: {when}"
                ));
                if let Some(counted) = known {
                    self.report.active_users = counted.active_users;
                    self.report.open = counted.open;
                }
            }
        }
        if self.stopped {
            self.report.remaining = self.report.remaining.max(1);
        }
        if self.report.remaining > 0 {
            self.report.complete = false;
        }
        Ok(())
    }

    async fn count(&mut self) -> Result<(), Refused> {
        let mut meter = Meter::default();
        let now = self.now;
        self.books
            .each_live(|claimant| {
                for (script, expiry) in &claimant.scripts {
                    meter.count(script, &claimant.username, *expiry, now);
                }
            })
            .await?;
        self.report.active_users = meter.active_users();
        if let Some(warning) = meter.warning(self.configuration.caps.active_users_warning) {
            self.report.warn(warning);
        }
        self.report.open = Open {
            retry: self.books.count_retries().await?,
            held: self.books.count_open(OpenKind::Held).await?,
            manual_review: self.books.count_open(OpenKind::Review).await?,
            dead_letter: self.books.count_open(OpenKind::DeadLetter).await?,
        };
        if self.stopped {
            self.report.remaining = self.report.remaining.max(self.books.count_due().await?);
        }
        Ok(())
    }

    /// Whether the run has to stop now.
    fn is_out_of_time(&mut self) -> bool {
        self.is_out_of_time_within(Duration::ZERO)
    }

    /// Whether the run has to stop before it has done something that takes so long.
    fn is_out_of_time_within(&mut self, long: Duration) -> bool {
        let over = Instant::now() + long >= self.until;
        if over {
            self.stopped = true;
            self.report.complete = false;
        }
        over
    }

    /// When a call that begins now has to be over.
    fn call_until(&self) -> Instant {
        self.until.min(Instant::now() + CALL)
    }

    /// Renews the lease where too little is left of it for a call.
    async fn keep_lease(&mut self) -> Result<(), Refused> {
        let now = self.app.clock().now();
        let Some(lease) = self
            .record
            .lease
            .as_mut()
            .filter(|lease| lease.until.duration_since(now) < LEASE_LEFT)
        else {
            return Ok(());
        };
        lease.until = later(now, LEASE);
        Ok(self.books.save_run(&mut self.record).await?)
    }

    /// When nobody can be at a call any more that begins now.
    fn lease_end(&self) -> Timestamp {
        self.record.lease.as_ref().map_or(self.now, |lease| lease.until)
    }

    /// Notes that ledgers change, so that plans made before no longer fit.
    async fn outdate_plans(&mut self) -> Result<(), Refused> {
        if !self.versioned && !self.books.is_dry() {
            self.versioned = true;
            self.record.version.clone_from(&self.report.run_id);
            self.books.save_run(&mut self.record).await?;
        }
        Ok(())
    }
}

/// A time without the parts of its second.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// A random share of one, so that what failed together is not tried again together.
fn share() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}
