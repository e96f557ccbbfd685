//! The access sync, as functions and commands use it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::books::Books;
use super::customer::{Correction, Customer, Decision};
use super::ids::{PersonId, ProductId, ScriptId, TransactionId};
use super::ledger::ReversalCause;
use super::mail::send_due;
use super::master_data::{Imported, MasterData};
use super::names::Username;
use super::plan::{Allowance, Mode, Plan, PlannedAction, Stale};
use super::progress::State;
use super::records::{OpenItem, OpenKind, Position};
use super::report::Report;
use super::run::{Extent, LEASE, Manner, Refused, Run};
use crate::app::App;
use crate::ids::TenantId;
use crate::telemetry::metrics::{self, Metric};

/// How long an operator's decision may take: it reads and writes one customer.
const DECISION: Duration = Duration::from_secs(15);

/// The access sync of one tenant.
#[derive(Debug, Clone)]
pub struct AccessSync<'a> {
    app: &'a App,
    tenant: TenantId,
    actor: String,
}

/// Some of a list, and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// They.
    pub data: Vec<T>,
    /// Where it goes on; `None` at the end.
    pub next: Option<Position>,
}

/// A transaction that a person has to look at, or whose reversal waits for approval (contract.md, "A review").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Its id.
    pub id: String,
    /// The transaction.
    pub transaction_id: TransactionId,
    /// The script.
    pub script_id: ScriptId,
    /// The customer, by WordPress's user id.
    pub person: PersonId,
    /// Why.
    pub reason: String,
    /// The name at TradingView, as the customer wrote it.
    pub username: String,
    /// Names that begin alike.
    pub suggestions: Vec<String>,
    /// Since when.
    pub created_at: Timestamp,
}

/// A transaction that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its id.
    pub id: String,
    /// The transaction.
    pub transaction_id: TransactionId,
    /// The script.
    pub script_id: ScriptId,
    /// The customer, by WordPress's user id.
    pub person: PersonId,
    /// The name at TradingView, as the customer wrote it.
    pub username: String,
    /// Since when.
    pub created_at: Timestamp,
}

/// What an operator decides about a review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReviewDecision {
    /// It goes on as it is; a reversal that waits is approved.
    Retry,
    /// It goes on under this name.
    Correct(Username),
    /// Nothing comes of it; a reversal that waits is never made.
    Dismiss,
}

impl<'a> AccessSync<'a> {
    /// The access sync of `tenant`; `actor` stands in the audit.
    #[must_use]
    pub fn new(app: &'a App, tenant: TenantId, actor: &str) -> Self {
        Self {
            app,
            tenant,
            actor: actor.to_owned(),
        }
    }

    // ---- Runs ----

    /// Reads the shop and brings what is due to the access API. A dry run says what it would do and writes nothing.
    ///
    /// # Errors
    /// [`Refused`]; where the shop failed nothing was changed at the access API.
    pub async fn sync(&self, dry_run: bool, budget: Duration) -> Result<Report, Refused> {
        let manner = if dry_run { Manner::Dry } else { Manner::Real };
        let mut run = Box::pin(self.begin(budget, manner)).await?;
        let worked = async {
            Box::pin(run.follow_hints()).await?;
            Box::pin(run.read(&Extent::AsDue)).await?;
            Box::pin(run.apply()).await
        }
        .await;
        Box::pin(self.end(run, worked)).await
    }

    /// What the schedule does every minute: a run when the interval has passed or something remains, else what has
    /// become due since. `None` where nothing has.
    ///
    /// # Errors
    /// [`Refused`]. Where the shop failed, what was due before was brought to the access API all the same.
    pub async fn scheduled(&self, budget: Duration) -> Result<Option<Report>, Refused> {
        let configuration = self.app.refresh_access().await?.ok_or(Refused::NotConfigured)?;
        let now = self.app.clock().now();
        let books = self.books(now);
        let record = books.run_record().await?;
        if record
            .lease
            .as_ref()
            .is_some_and(|lease| lease.is_live(now, LEASE))
        {
            return Ok(None);
        }
        let dry_at = self.app.state::<LastDryRun>();
        let last = if configuration.scheduled_runs_are_dry {
            dry_at.get()
        } else {
            record.started_at
        };
        let passed = last.is_none_or(|last| {
            now.duration_since(last).unsigned_abs() >= configuration.interval || last > now
        });
        if configuration.scheduled_runs_are_dry {
            if !passed {
                return Ok(None);
            }
            dry_at.set(now);
            return self.sync(true, budget).await.map(Some);
        }
        // While the access API does not let us in, trying more often than usual helps nobody.
        let reads = passed || (record.remains && record.paused_since.is_none());
        let waits = record.paused_since.is_none() && books.count_due().await? > 0;
        if !reads && !waits && books.hints().await?.is_empty() {
            let (mail, discord) = (configuration.mail.as_ref(), configuration.discord.as_ref());
            let (store, http, clock) = (self.app.store(), self.app.http(), self.app.clock());
            let until = Instant::now() + budget;
            send_due(store, &self.tenant, mail, discord, http, clock, until).await;
            return Ok(None);
        }
        let mut run = Box::pin(self.begin(budget, Manner::Real)).await?;
        let mut read = Box::pin(run.follow_hints()).await;
        if reads && read.is_ok() {
            read = Box::pin(run.read(&Extent::AsDue)).await;
        }
        // What was read before is brought to the access API all the same.
        let failed = match read {
            Err(error @ (Refused::Shop(_) | Refused::Service(_))) => {
                let text = format!("{error}. What was bought since is granted once it answers again.");
                run.alert_daily("read", text);
                Some(error)
            }
            Err(other) => return Box::pin(self.end(run, Err(other))).await.map(Some),
            Ok(()) => None,
        };
        let applied = Box::pin(run.apply()).await;
        let report = Box::pin(self.end(run, applied)).await?;
        match failed {
            Some(error) => Err(error),
            None => Ok(Some(report)),
        }
    }

    /// Reads the whole shop, as has to be done once a day.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn rescan(&self, budget: Duration) -> Result<Report, Refused> {
        self.read_and_apply(&Extent::All, budget).await
    }

    /// Reads all rows of a product again, after what it opens has been configured otherwise.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn resync(&self, product: &ProductId, budget: Duration) -> Result<Report, Refused> {
        self.read_and_apply(&Extent::Product(product.clone()), budget)
            .await
    }

    /// Follows the shop's word that a transaction has changed: reads it anew and brings it to the access API. Where that
    /// cannot be done now it is remembered for the next run.
    ///
    /// # Errors
    /// What the store says; after anything else the word is remembered.
    pub async fn hint(&self, transaction: &TransactionId, budget: Duration) -> Result<(), Refused> {
        self.books(self.app.clock().now()).save_hint(transaction).await?;
        let mut run = match Box::pin(self.begin(budget, Manner::Real)).await {
            Err(Refused::Running { .. }) => return Ok(()),
            begun => begun?,
        };
        let worked = async {
            Box::pin(run.follow_hints()).await?;
            Box::pin(run.apply_touched()).await.map(|_| ())
        }
        .await;
        match Box::pin(self.end(run, worked)).await {
            Ok(_) => Ok(()),
            Err(Refused::Store(error)) => Err(Refused::Store(error)),
            Err(error) => {
                tracing::warn!(%error, %transaction, "the word of the shop is followed later");
                Ok(())
            }
        }
    }

    /// Brings the access API back to what was paid for, wherever somebody has taken access there. Nothing is lowered.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn repair(&self, budget: Duration) -> Result<Report, Refused> {
        let mut run = Box::pin(self.begin(budget, Manner::Real)).await?;
        run.mode = Mode::Repair;
        let worked = async {
            let mut persons = BTreeSet::new();
            run.books
                .each_live(|claimant| persons.extend(claimant.person))
                .await?;
            Box::pin(run.apply_to(&persons)).await?;
            Box::pin(run.report_unmanaged()).await
        }
        .await;
        Box::pin(self.end(run, worked)).await
    }

    /// Takes a transaction back on an operator's word, and brings that to the access API.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::WritesDisabled`], and what else stops a run.
    pub async fn revoke(
        &self,
        transaction: &TransactionId,
        cause: ReversalCause,
        budget: Duration,
    ) -> Result<Report, Refused> {
        let mut run = Box::pin(self.begin(budget, Manner::Real)).await?;
        run.allowance = Allowance::unlimited();
        let worked = async {
            if !run.configuration.writes_enabled {
                return Err(Refused::WritesDisabled);
            }
            let person = Box::pin(run.take_back(transaction, cause)).await?;
            Box::pin(run.apply_to(&BTreeSet::from([person]))).await
        }
        .await;
        Box::pin(self.end(run, worked)).await
    }

    async fn read_and_apply(&self, extent: &Extent, budget: Duration) -> Result<Report, Refused> {
        let mut run = Box::pin(self.begin(budget, Manner::Real)).await?;
        let worked = async {
            Box::pin(run.read(extent)).await?;
            Box::pin(run.apply()).await
        }
        .await;
        Box::pin(self.end(run, worked)).await
    }

    // ---- Plans ----

    /// What would be done now, all that waits for approval included, kept for [`AccessSync::approve`].
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn plan(&self, budget: Duration) -> Result<Plan, Refused> {
        let mut run = Box::pin(self.begin(budget, Manner::Real)).await?;
        let worked = async {
            Box::pin(run.read(&Extent::AsDue)).await?;
            let plan = Box::pin(run.draft()).await?;
            run.books.save_plan(&plan).await?;
            Ok(plan)
        }
        .await;
        match worked {
            Ok(plan) => self.end(run, Ok(())).await.map(|_| plan),
            Err(error) => Err(Box::pin(self.end(run, Err(error)))
                .await
                .err()
                .unwrap_or(Refused::Stale(Stale::Changed))),
        }
    }

    /// Does exactly what a plan says, with what it approves.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::Stale`] where it no longer fits, [`Refused::WritesDisabled`], and what else
    /// stops a run.
    pub async fn approve(&self, plan: &str, budget: Duration) -> Result<Report, Refused> {
        let mut run = Box::pin(self.begin(budget, Manner::Real)).await?;
        let worked = async {
            let plan = run.books.plan(plan).await?.ok_or(Refused::NotFound("plan"))?;
            if !run.configuration.writes_enabled {
                return Err(Refused::WritesDisabled);
            }
            plan.check(&run.record.version, run.now)?;
            // As of the plan's own time: what waits earns a credit with every second, and exactly the plan is applied.
            let now = std::mem::replace(&mut run.now, plan.created_at);
            if Box::pin(run.draft()).await?.id != plan.id {
                return Err(Stale::Changed.into());
            }
            Box::pin(run.carry_out(&plan)).await?;
            run.now = now;
            Ok(())
        }
        .await;
        Box::pin(self.end(run, worked)).await
    }

    // ---- What waits for a person ----

    /// What a person has to look at: reviews, then reversals that wait for approval.
    ///
    /// # Errors
    /// What the store says.
    pub async fn reviews(&self, limit: usize, position: Option<Position>) -> Result<Listed<Review>, Refused> {
        let mut kind = position
            .as_ref()
            .map_or(OpenKind::Review, |position| position.kind);
        let mut position = position;
        let mut data: Vec<OpenItem> = Vec::new();
        loop {
            let (items, more) = self
                .listed(kind, limit.saturating_sub(data.len()), position.take())
                .await?;
            data.extend(items);
            let full = data.len() >= limit;
            if !more && kind == OpenKind::Review {
                kind = OpenKind::Held;
                if !full {
                    continue;
                }
                // The next page begins with what waits for approval, if there is any.
                let (held, _) = self.listed(kind, 1, None).await?;
                let next = data.last().filter(|_| !held.is_empty()).map(|_| Position {
                    kind,
                    created_at: Timestamp::UNIX_EPOCH,
                    id: "0-".to_owned(),
                });
                return Ok(Listed {
                    data: data.into_iter().map(Review::from).collect(),
                    next,
                });
            }
            let next = data.last().filter(|_| more).map(position_of);
            return Ok(Listed {
                data: data.into_iter().map(Review::from).collect(),
                next,
            });
        }
    }

    /// Decides about a review, or about a reversal that waits for approval. What it lets go on is done by the next run.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::Running`], and what the store says.
    pub async fn decide_review(&self, id: &str, decision: ReviewDecision) -> Result<Review, Refused> {
        let mut run = Box::pin(self.begin(DECISION, Manner::Real)).await?;
        let mut decided = None;
        let worked = async {
            let item = run
                .books
                .opened(id)
                .await?
                .filter(|item| item.kind != OpenKind::DeadLetter);
            let item = item.ok_or(Refused::NotFound("review"))?;
            let before = run
                .books
                .customer(item.person)
                .await?
                .ok_or(Refused::NotFound("review"))?;
            let mut after = before.clone();
            if let ReviewDecision::Correct(username) = &decision {
                after.correction = Some(Correction {
                    instead_of: after.written.clone(),
                    username: username.clone(),
                });
                after.name_changed(run.now);
            }
            let waits_for_row = waits_for_row(&after, &item);
            let lets = match decision {
                ReviewDecision::Retry | ReviewDecision::Correct(_) => Decision::LetPass,
                ReviewDecision::Dismiss => Decision::Dismiss,
            };
            let wanted = after.wanted().ok();
            if let Some(holding) = after.scripts.get_mut(&item.script_id) {
                holding.decide(&item.transaction_id, lets, wanted.as_ref(), run.now);
            }
            let saving = run.saving(Some(before), after, Vec::new())?;
            run.save(vec![saving]).await?;
            if waits_for_row && lets == Decision::LetPass {
                // What it is about stands in the shop's row only, which is read again.
                run.forget(std::slice::from_ref(&item.transaction_id)).await?;
                run.books.save_hint(&item.transaction_id).await?;
            }
            decided = Some(item);
            Ok(())
        }
        .await;
        Box::pin(self.end(run, worked)).await?;
        decided.map(Review::from).ok_or(Refused::NotFound("review"))
    }

    /// The transactions that were given up.
    ///
    /// # Errors
    /// What the store says.
    pub async fn dead_letters(
        &self,
        limit: usize,
        position: Option<Position>,
    ) -> Result<Listed<DeadLetter>, Refused> {
        let (items, more) = self.listed(OpenKind::DeadLetter, limit, position).await?;
        let next = items.last().filter(|_| more).map(position_of);
        Ok(Listed {
            data: items.into_iter().map(DeadLetter::from).collect(),
            next,
        })
    }

    /// Lets a transaction that was given up be tried again by the next run. `id` is the dead letter's or the
    /// transaction's.
    ///
    /// # Errors
    /// [`Refused::NotFound`], [`Refused::Running`], and what the store says.
    pub async fn replay(&self, id: &str) -> Result<DeadLetter, Refused> {
        let mut run = Box::pin(self.begin(DECISION, Manner::Real)).await?;
        let mut replayed = None;
        let worked = async {
            let items = run.dead_letters_of(id).await?;
            for item in items {
                let before = run
                    .books
                    .customer(item.person)
                    .await?
                    .ok_or(Refused::NotFound("dead letter"))?;
                let mut after = before.clone();
                if let Some(holding) = after.scripts.get_mut(&item.script_id) {
                    holding.decide(&item.transaction_id, Decision::LetPass, None, run.now);
                }
                let saving = run.saving(Some(before), after, Vec::new())?;
                run.save(vec![saving]).await?;
                replayed.get_or_insert(item);
            }
            if replayed.is_some() {
                Ok(())
            } else {
                Err(Refused::NotFound("dead letter"))
            }
        }
        .await;
        Box::pin(self.end(run, worked)).await?;
        replayed
            .map(DeadLetter::from)
            .ok_or(Refused::NotFound("dead letter"))
    }

    // ---- Master data ----

    /// What is known of a script, in the shape of the program that Berth replaces.
    ///
    /// # Errors
    /// [`Refused::NotFound`] where no product opens it and nothing is known of it; what the store says.
    pub async fn master_data(&self, script: &ScriptId) -> Result<MasterData, Refused> {
        let configuration = self.app.refresh_access().await?.ok_or(Refused::NotConfigured)?;
        let books = self.books(self.app.clock().now());
        let data = MasterData::collect(&books, script, configuration.policies.grace).await?;
        let known = configuration.scripts().contains(script) || !data.users.is_empty();
        if known {
            Ok(data)
        } else {
            Err(Refused::NotFound("script"))
        }
    }

    /// Takes over what another program knew of a script, as what there was before Berth.
    ///
    /// # Errors
    /// [`Refused::Invalid`], [`Refused::Running`], and what the store says.
    pub async fn import(&self, data: MasterData) -> Result<Imported, Refused> {
        let mut run = Box::pin(self.begin(DECISION, Manner::Real)).await?;
        let mut imported = None;
        let worked = async {
            imported = Some(Box::pin(data.store(&mut run)).await?);
            Ok(())
        }
        .await;
        Box::pin(self.end(run, worked)).await?;
        Ok(imported.unwrap_or_default())
    }

    // ---- Within ----

    async fn begin(&self, budget: Duration, manner: Manner) -> Result<Run<'a>, Refused> {
        Run::begin(self.app, &self.tenant, &self.actor, budget, manner).await
    }

    /// Ends a run, however it went, so that the next one can begin.
    async fn end(&self, mut run: Run<'a>, worked: Result<(), Refused>) -> Result<Report, Refused> {
        let ended = match worked {
            Ok(()) => Box::pin(run.finish()).await,
            Err(error) => Err(error),
        };
        match &ended {
            Ok(report) => measure(report),
            Err(error) => {
                if error.is_failure() {
                    metrics::count(Metric::AccessSyncFailures, 1);
                }
                self.give_up(&mut run).await;
            }
        }
        ended
    }

    /// Lets the next run begin after one that failed.
    async fn give_up(&self, run: &mut Run<'a>) {
        if let Err(released) = run.release().await {
            tracing::debug!(%released, "the lease of a run that failed was not given back");
        }
    }

    fn books(&self, now: Timestamp) -> Books {
        Books::new(self.app.store().clone(), self.tenant.clone(), &self.actor, now)
    }

    async fn listed(
        &self,
        kind: OpenKind,
        limit: usize,
        position: Option<Position>,
    ) -> Result<(Vec<OpenItem>, bool), Refused> {
        let books = self.books(self.app.clock().now());
        let limit = i32::try_from(limit.max(1)).unwrap_or(i32::MAX);
        let start = position
            .filter(|position| position.id != "0-")
            .and_then(|position| books.after_open(&position));
        let (items, next) = books.open(kind, limit, start).await?;
        Ok((items, next.is_some()))
    }
}

impl Run<'_> {
    /// Reads the transactions that the shop said have changed.
    async fn follow_hints(&mut self) -> Result<(), Refused> {
        let hints = self.books.hints().await?;
        let done = self.read_transactions(hints).await?;
        Ok(self.books.drop_hints(&done).await?)
    }

    /// What would be done now if everything were approved.
    async fn draft(&mut self) -> Result<Plan, Refused> {
        let held = self.held().await?;
        let before = self.draft_begins();
        let drafted = async {
            self.approve_held(&held).await?;
            self.apply().await
        }
        .await;
        let planned = self.report.plan.take().unwrap_or_default();
        let whole = self.draft_ends(before);
        drafted?;
        if !whole {
            return Err(Refused::OutOfTime);
        }
        let actions: Vec<PlannedAction> = planned
            .into_iter()
            .filter(|action| action.action != "none")
            .collect();
        let transactions = held.into_iter().map(|item| item.transaction_id).collect();
        Ok(Plan::new(
            self.now,
            self.record.version.clone(),
            actions,
            transactions,
        ))
    }

    async fn carry_out(&mut self, plan: &Plan) -> Result<(), Refused> {
        let held = self.held().await?;
        self.allowance = Allowance::unlimited();
        // What somebody does at the access API meanwhile is for another plan.
        self.planned = Some(plan.actions.iter().cloned().collect());
        self.approve_held(&held).await?;
        let mut persons: BTreeSet<PersonId> = plan.actions.iter().map(|action| action.person).collect();
        persons.extend(held.iter().map(|item| item.person));
        self.apply_to(&persons).await
    }

    async fn held(&mut self) -> Result<Vec<OpenItem>, Refused> {
        let (mut held, mut start) = (Vec::new(), None);
        loop {
            let (items, next) = self.books.open(OpenKind::Held, 500, start).await?;
            held.extend(items);
            start = next;
            if start.is_none() {
                return Ok(held);
            }
        }
    }

    async fn approve_held(&mut self, held: &[OpenItem]) -> Result<(), Refused> {
        for item in held {
            let Some(before) = self.books.customer(item.person).await? else {
                continue;
            };
            let mut after = before.clone();
            if let Some(holding) = after.scripts.get_mut(&item.script_id) {
                holding.decide(&item.transaction_id, Decision::LetPass, None, self.now);
            }
            let saving = self.saving(Some(before), after, Vec::new())?;
            self.save(vec![saving]).await?;
        }
        Ok(())
    }

    /// The dead letters that an id names: one by its own, or those of a transaction.
    async fn dead_letters_of(&mut self, id: &str) -> Result<Vec<OpenItem>, Refused> {
        if let Some(item) = self
            .books
            .opened(id)
            .await?
            .filter(|item| item.kind == OpenKind::DeadLetter)
        {
            return Ok(vec![item]);
        }
        let Some(transaction) = TransactionId::parse(id) else {
            return Ok(Vec::new());
        };
        let (customer, _) = match self.owner(&transaction).await {
            Err(Refused::NotFound(_)) => return Ok(Vec::new()),
            owner => owner?,
        };
        let open = customer.open(self.now).into_values();
        Ok(open
            .filter(|item| item.kind == OpenKind::DeadLetter && item.transaction_id == transaction)
            .collect())
    }
}

/// Whether what a review is about stands in the shop's row only, and not in the ledger.
fn waits_for_row(customer: &Customer, item: &OpenItem) -> bool {
    let Some(holding) = customer.scripts.get(&item.script_id) else {
        return false;
    };
    let state = holding
        .progress
        .get(&item.transaction_id)
        .map(|progress| &progress.state);
    let reviewed = matches!(
        state,
        Some(State::ManualReview { .. } | State::ReviewExpired { .. })
    );
    let about_name = matches!(item.reason.as_str(), "invalid_username" | "third_move");
    reviewed && !about_name && !holding.ledger.reviewed.contains_key(&item.transaction_id)
}

fn position_of(item: &OpenItem) -> Position {
    Position {
        kind: item.kind,
        created_at: item.created_at,
        id: item.id.clone(),
    }
}

impl From<OpenItem> for Review {
    fn from(item: OpenItem) -> Self {
        // What waits for approval is always about something that was paid back.
        let reason = if item.kind == OpenKind::Held {
            "refund".to_owned()
        } else {
            item.reason
        };
        Self {
            id: item.id,
            transaction_id: item.transaction_id,
            script_id: item.script_id,
            person: item.person,
            reason,
            username: item.username,
            suggestions: item.suggestions,
            created_at: item.created_at,
        }
    }
}

impl From<OpenItem> for DeadLetter {
    fn from(item: OpenItem) -> Self {
        Self {
            id: item.id,
            transaction_id: item.transaction_id,
            script_id: item.script_id,
            person: item.person,
            username: item.username,
            created_at: item.created_at,
        }
    }
}

/// When the last scheduled run was made that only said what it would do: such a run leaves no trace in the store.
#[derive(Debug, Default)]
struct LastDryRun(std::sync::Mutex<Option<Timestamp>>);

impl LastDryRun {
    fn get(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn set(&self, at: Timestamp) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(at);
    }
}

/// Tells what a run did. A dry run did nothing.
fn measure(report: &Report) {
    if report.dry_run {
        return;
    }
    for (metric, figure) in [
        (Metric::AccessSyncs, 1),
        (Metric::AccessGranted, report.granted),
        (Metric::AccessExtended, report.extended),
        (Metric::AccessShortened, report.shortened),
        (Metric::AccessRevoked, report.revoked),
        (Metric::AccessReviews, report.manual_review),
        (Metric::AccessRetries, report.retry),
        (Metric::DeadLetters, report.dead_letter),
    ] {
        metrics::count(metric, figure);
    }
    metrics::level(Metric::AccessRemaining, report.remaining);
    metrics::level(Metric::AccessActiveUsers, report.active_users);
}
