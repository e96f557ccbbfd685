//! What is known of one customer: who it is, what has been bought of each script, and how far that has been brought to
//! the access API (facts/access.md C1).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::assessment::{Change, IgnoreReason, ReviewReason, Rules, Sighting, Standing};
use super::configuration::Configuration;
use super::expiry::Expiry;
use super::holds::{Hold, HoldCause};
use super::ids::{PersonId, ScriptId, TransactionId};
use super::ledger::{Baseline, Entry, Ledger, ReversalCause};
use super::names::{InvalidUsername, Username};
use super::plan::Action;
use super::progress::{Event, Progress, Settled, State};
use super::records::Bootstrapped;
use super::transactions::Row;

/// A customer of the shop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    /// Who.
    pub person: PersonId,
    /// How often this was written.
    pub rev: u64,
    /// The address.
    pub email: String,
    /// The name at WordPress.
    pub wp_username: String,
    /// The name that the customer is called by; perhaps empty.
    pub display_name: String,
    /// The name at TradingView, as the customer wrote it.
    pub written: String,
    /// The newest row that said all this. Older rows that come to light later say nothing about it.
    #[serde(default)]
    pub told_by: Option<(Timestamp, TransactionId)>,
    /// What an operator put in the place of what the customer wrote.
    #[serde(default)]
    pub correction: Option<Correction>,
    /// The name that the access API knows, in its right spelling.
    #[serde(default)]
    pub name: Option<Username>,
    /// What the access API said of a name that it does not know.
    #[serde(default)]
    pub unknown: Option<UnknownName>,
    /// Whether an operator has to look at whatever is bought from now on, as after a chargeback.
    #[serde(default)]
    pub blocked: bool,
    /// What has been bought, by script.
    #[serde(default)]
    pub scripts: BTreeMap<ScriptId, Holding>,
    /// The end of the chain of audit entries.
    #[serde(default)]
    pub audit: ChainEnd,
    /// In how many items beside the first it stands in the table.
    #[serde(skip)]
    pub parts: u64,
}

/// An operator's correction of a name. It holds until the customer writes something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    /// What the customer wrote.
    pub instead_of: String,
    /// The right name.
    pub username: Username,
}

/// A name that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownName {
    /// The name, as it was asked for.
    pub name: String,
    /// Names that begin alike.
    pub suggestions: Vec<String>,
}

/// The last entry of a chain in which each names the hash of the one before.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainEnd {
    /// How many entries there are.
    pub entries: u64,
    /// The last one's hash; empty where there is none.
    pub hash: String,
}

/// What one customer has of one script.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Holding {
    /// What was bought.
    pub ledger: Ledger,
    /// Where each transaction stands that access is or was given for.
    #[serde(default)]
    pub progress: BTreeMap<TransactionId, Progress>,
    /// What the access API was told last.
    #[serde(default)]
    pub told: Option<Told>,
    /// The call that may be under way.
    #[serde(default)]
    pub intent: Option<Intent>,
    /// The names that access has moved away from, until they have none any more.
    #[serde(default)]
    pub left: Vec<Left>,
    /// When access moved from one name to another.
    #[serde(default)]
    pub moves: Vec<Timestamp>,
    /// A name that an operator refused to move access to.
    #[serde(default)]
    pub refused_name: Option<Username>,
    /// The reasons for a review that an operator has looked at and let pass, by transaction.
    #[serde(default)]
    pub approved: BTreeMap<TransactionId, BTreeSet<ReviewReason>>,
    /// The transactions whose time has not begun yet though it was paid for.
    #[serde(default)]
    pub waiting: BTreeMap<TransactionId, Waiting>,
}

/// What the access API was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Under which name.
    pub name: Username,
    /// The end of access, as the ledger had it.
    pub expiry: Expiry,
}

/// A call that is about to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Under which name.
    pub name: Username,
    /// The call.
    pub action: Action,
}

/// A name that access has moved away from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The name.
    pub name: Username,
    /// What the access API was told under it.
    pub told: Expiry,
    /// When its access is to be taken next.
    pub next_at: Timestamp,
    /// How often that failed.
    pub tries: u32,
}

/// A transaction that a run has read and not settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The run that read it first, by its time. What it settles itself has not waited.
    pub read_at: Timestamp,
    /// How long, and for whose sake.
    pub hold: Hold,
}

/// What is known of a row beside the row.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The configuration.
    pub configuration: &'a Configuration,
    /// By what rows are assessed.
    pub rules: Rules<'a>,
    /// Another person's transaction that counts and has the same number at the gateway.
    pub same_payment: Option<&'a TransactionId>,
    /// What the access API had under the customer's name before Berth, by script.
    pub baselines: &'a BTreeMap<ScriptId, Baseline>,
    /// Since when the sync runs, by script.
    pub bootstrapped: &'a BTreeMap<ScriptId, Bootstrapped>,
    /// The run's time.
    pub now: Timestamp,
}

impl Customer {
    /// A customer that nothing is known of yet.
    #[must_use]
    pub fn new(person: PersonId) -> Self {
        Self {
            person,
            rev: 0,
            email: String::new(),
            wp_username: String::new(),
            display_name: String::new(),
            written: String::new(),
            told_by: None,
            correction: None,
            name: None,
            unknown: None,
            blocked: false,
            scripts: BTreeMap::new(),
            audit: ChainEnd::default(),
            parts: 0,
        }
    }

    /// The name at TradingView that access is to be given to, as it was written.
    ///
    /// # Errors
    /// [`InvalidUsername`] where it cannot be one.
    pub fn wanted(&self) -> Result<Username, InvalidUsername> {
        match &self.correction {
            Some(correction) if correction.instead_of == self.written => Ok(correction.username.clone()),
            _ => Username::parse(&self.written),
        }
    }

    /// The name that the access API knows, if it is the one that is wanted.
    #[must_use]
    pub fn canonical(&self) -> Option<&Username> {
        let wanted = self.wanted().ok()?;
        self.name.as_ref().filter(|name| name.is_same(&wanted))
    }

    /// Whether something that was bought waits for another name than the one that the customer wrote as `written`.
    #[must_use]
    pub fn waits_for_other_name_than(&self, written: &str) -> bool {
        let is_present = self.written.trim().to_lowercase() == written.trim().to_lowercase();
        let waits = |progress: &Progress| {
            matches!(
                progress.state,
                State::ManualReview {
                    reason: ReviewReason::InvalidUsername,
                    ..
                } | State::ReviewExpired {
                    reason: ReviewReason::InvalidUsername,
                }
            )
        };
        let mut states = self
            .scripts
            .values()
            .flat_map(|holding| holding.progress.values());
        is_present && states.any(waits)
    }

    /// Takes a row of the shop and says what it changed, for each script that it is about; of a row that is about none,
    /// what it is worth.
    pub fn read(&mut self, row: &Row, context: &Context<'_>) -> Vec<Change> {
        self.take_contact(row, context.now);
        let rules = &context.rules;
        let opened = context
            .configuration
            .product(&row.product)
            .map(|product| &product.scripts);
        let mut scripts: BTreeSet<ScriptId> = opened.into_iter().flatten().cloned().collect();
        let knowing = (self.scripts.iter()).filter(|(_, holding)| holding.ledger.knows(&row.transaction));
        let known: BTreeSet<ScriptId> = knowing.map(|(script, _)| script.clone()).collect();
        if !known.is_empty() {
            // A product that opens something else now does not move what was bought before (C3).
            scripts = known;
        }
        if scripts.is_empty() {
            return vec![self.worth_nothing(row, context)];
        }
        let mut changes = Vec::new();
        for script in scripts {
            let opens =
                !matches!(rules.standing(row), Standing::Ignored(reason) if reason != IgnoreReason::Failed);
            let empty = Holding::default();
            let approved = BTreeSet::new();
            let known = self.scripts.get(&script).unwrap_or(&empty);
            let approved = known.approved.get(&row.transaction).unwrap_or(&approved).clone();
            let sighting = Sighting {
                row,
                approved: &approved,
                blocked: self.blocked,
                same_payment: context.same_payment,
            };
            if !opens && !known.ledger.knows(&row.transaction) {
                changes.push(rules.assess(&known.ledger, &sighting));
                continue;
            }
            let holding = self.scripts.entry(script.clone()).or_insert_with(|| Holding {
                ledger: Ledger {
                    baseline: context.baselines.get(&script).cloned(),
                    ..Ledger::default()
                },
                ..Holding::default()
            });
            for change in rules.absorb(&mut holding.ledger, &sighting) {
                holding.note(row, &change, &script, context);
                changes.push(change);
            }
        }
        self.scripts.retain(|_, holding| *holding != Holding::default());
        changes
    }

    /// Takes it that the shop no longer has a transaction.
    pub fn read_missing(&mut self, transaction: &TransactionId, context: &Context<'_>) -> Vec<Change> {
        if self.told_by.as_ref().is_some_and(|(_, by)| by == transaction) {
            self.told_by = None;
        }
        self.change_all(transaction, context.now, |holding| {
            let nothing = BTreeSet::new();
            let approved = holding.approved.get(transaction).unwrap_or(&nothing);
            context.rules.missing(&holding.ledger, transaction, approved)
        })
    }

    /// Takes an operator's word that a transaction is taken back.
    pub fn revoke(
        &mut self,
        transaction: &TransactionId,
        cause: ReversalCause,
        context: &Context<'_>,
    ) -> Vec<Change> {
        if cause == ReversalCause::Chargeback {
            self.blocked = true;
        }
        let wanted = self.wanted().ok();
        for holding in self.scripts.values_mut() {
            // What does not count yet never will.
            if holding.ledger.reviewed.contains_key(transaction) {
                holding.decide(transaction, Decision::Dismiss, wanted.as_ref(), context.now);
            }
        }
        self.change_all(transaction, context.now, |holding| {
            context.rules.revoke(&holding.ledger, transaction, cause)
        })
    }

    fn change_all(
        &mut self,
        transaction: &TransactionId,
        now: Timestamp,
        change: impl Fn(&Holding) -> Change,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for holding in self.scripts.values_mut() {
            let change = change(holding);
            if change != Change::Nothing {
                holding.ledger.apply(change.clone());
                holding.advance(transaction, &Event::Assessed(change.clone()), now);
                changes.push(change);
            }
        }
        changes
    }

    fn worth_nothing(&self, row: &Row, context: &Context<'_>) -> Change {
        let approved = BTreeSet::new();
        let sighting = Sighting {
            row,
            approved: &approved,
            blocked: false,
            same_payment: None,
        };
        match context.rules.assess(&Ledger::default(), &sighting) {
            Change::Fail(..) => Change::Ignore(IgnoreReason::Failed),
            change => change,
        }
    }

    fn take_contact(&mut self, row: &Row, now: Timestamp) {
        let told_by = (row.created_at, row.transaction.clone());
        if row.person.is_none() || self.told_by.as_ref().is_some_and(|last| *last > told_by) {
            return;
        }
        let before = self.wanted();
        self.told_by = Some(told_by);
        self.email.clone_from(&row.email);
        self.wp_username.clone_from(&row.wp_username);
        self.display_name.clone_from(&row.display_name);
        self.written.clone_from(&row.username);
        if self.wanted() != before {
            self.name_changed(now);
        }
    }

    /// Lets what waited for another name go on.
    pub fn name_changed(&mut self, now: Timestamp) {
        self.unknown = None;
        for holding in self.scripts.values_mut() {
            holding.refused_name = None;
            // From here on it is no longer the name that anything waits for, whatever else does.
            holding.go_on_waiting(HoldCause::Ours, now);
            let transactions: Vec<TransactionId> = holding.progress.keys().cloned().collect();
            for transaction in transactions {
                holding.advance(&transaction, &Event::NameChanged, now);
            }
        }
    }

    /// When something has to be done next; `None` where nothing has.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        let wanted = self.wanted().ok();
        self.scripts
            .values()
            .filter_map(|holding| holding.due_at(wanted.as_ref()))
            .min()
    }

    /// How many transactions wait to be tried again.
    #[must_use]
    pub fn retries(&self) -> u64 {
        let states = self
            .scripts
            .values()
            .flat_map(|holding| holding.progress.values());
        let waiting = states
            .filter(|progress| matches!(progress.state, State::RetryWait { .. } | State::Unknown { .. }));
        u64::try_from(waiting.count()).unwrap_or(u64::MAX)
    }

    /// The transactions that stand in the ledgers.
    #[must_use]
    pub fn transactions(&self) -> BTreeSet<TransactionId> {
        let ledgers = self.scripts.values().map(|holding| &holding.ledger);
        let known = ledgers.flat_map(|ledger| ledger.entries.keys().chain(ledger.reviewed.keys()));
        known.cloned().collect()
    }

    /// The names that access was moved away from and that still have some, by script.
    pub fn left(&self) -> impl Iterator<Item = (&ScriptId, &Username)> {
        self.scripts.iter().flat_map(|(script, holding)| {
            let names = holding.left.iter().map(|left| &left.name);
            names.map(move |name| (script, name))
        })
    }

    /// The names that this customer has a claim on: the one that is known, and those that have or had access.
    #[must_use]
    pub fn claims(&self) -> BTreeSet<String> {
        let had = self.scripts.values().flat_map(|holding| {
            let told = holding.told.as_ref().map(|told| &told.name);
            told.into_iter().chain(holding.left.iter().map(|left| &left.name))
        });
        self.name.iter().chain(had).map(Username::key).collect()
    }
}

impl Holding {
    /// Notes what a row changed.
    fn note(&mut self, row: &Row, change: &Change, script: &ScriptId, context: &Context<'_>) {
        let transaction = &row.transaction;
        if matches!(change, Change::Fail(..)) && !context.configuration.policies.grace.is_zero() {
            self.look_again(context.now);
        }
        let counts_or_waits = match change {
            Change::Enter(_) | Change::Review(_, Some(_)) => true,
            Change::Nothing | Change::Ignore(_) | Change::Fail(..) | Change::Contain(_) => {
                if !self.progress.contains_key(transaction) {
                    return;
                }
                false
            }
            _ => false,
        };
        if counts_or_waits && !self.waiting.contains_key(transaction) {
            let interval = context.configuration.interval;
            let bootstrapped = context.bootstrapped.get(script);
            let watched_since = bootstrapped.map_or(context.now, |bootstrapped| bootstrapped.at);
            let hold = Hold::begin(
                row.created_at,
                watched_since,
                context.now,
                interval,
                HoldCause::Ours,
            );
            let waiting = Waiting {
                read_at: context.now,
                hold,
            };
            self.waiting.insert(transaction.clone(), waiting);
        }
        self.advance(transaction, &Event::Assessed(change.clone()), context.now);
    }

    /// Has the end of access reckoned again, after something else than a purchase has moved it.
    fn look_again(&mut self, now: Timestamp) {
        if let Some(newest) = self.newest().cloned() {
            let transaction = newest.transaction.clone();
            let amended = Event::Assessed(Change::Amend(Box::new(newest)));
            self.advance(&transaction, &amended, now);
        }
    }

    /// Brings one transaction further by something that no chance has a part in.
    pub fn advance(&mut self, transaction: &TransactionId, event: &Event, now: Timestamp) {
        self.advance_by_chance(transaction, event, now, 0.5);
    }

    /// Brings one transaction further. `share` is a random share of one, for the time of the next try. What gives
    /// nothing is not remembered.
    pub fn advance_by_chance(
        &mut self,
        transaction: &TransactionId,
        event: &Event,
        now: Timestamp,
        share: f64,
    ) {
        let progress = self.progress.remove(transaction).unwrap_or_default();
        let progress = progress.after(event, now, share);
        match progress.state {
            State::Ignored { .. } | State::Quarantined => {
                self.waiting.remove(transaction);
            }
            _ => {
                self.progress.insert(transaction.clone(), progress);
            }
        }
    }

    /// When something has to be done next for a customer who wants to be called `wanted`.
    fn due_at(&self, wanted: Option<&Username>) -> Option<Timestamp> {
        let states = self
            .progress
            .values()
            .filter_map(|progress| match &progress.state {
                State::Due | State::Unknown { .. } => Some(Timestamp::UNIX_EPOCH),
                State::Applying { until, .. } => Some(*until),
                State::RetryWait { next_at } => Some(*next_at),
                _ => None,
            });
        let left = self.left.iter().map(|left| left.next_at);
        let moves = wanted
            .filter(|wanted| self.is_to_move_to(wanted))
            .map(|_| Timestamp::UNIX_EPOCH);
        states.chain(left).chain(moves).min()
    }

    /// Whether something is to be done at `now`.
    #[must_use]
    pub fn is_due(&self, wanted: Option<&Username>, now: Timestamp) -> bool {
        self.due_at(wanted).is_some_and(|at| at <= now)
    }

    /// Whether access is to go to another name than the one that has it, as far as nobody has to look at that first.
    #[must_use]
    pub fn is_to_move_to(&self, wanted: &Username) -> bool {
        let stopped = self.progress.values().any(|progress| {
            matches!(
                progress.state,
                State::ManualReview {
                    reason: ReviewReason::InvalidUsername | ReviewReason::ThirdMove,
                    ..
                } | State::ReviewExpired {
                    reason: ReviewReason::InvalidUsername | ReviewReason::ThirdMove,
                } | State::RetryWait { .. }
                    | State::DeadLetter
            )
        });
        let refused = self
            .refused_name
            .as_ref()
            .is_some_and(|name| name.is_same(wanted));
        let has = self.has().filter(|(name, _)| !name.is_same(wanted));
        has.is_some() && !stopped && !refused
    }

    /// The name that has access, and until when: as the access API was told, or as it was before Berth.
    #[must_use]
    pub fn has(&self) -> Option<(&Username, Expiry)> {
        let found = || {
            let baseline = self.ledger.baseline.as_ref()?;
            Some((baseline.under.as_ref()?, baseline.end))
        };
        let told = self.told.as_ref().map(|told| (&told.name, told.expiry));
        told.or_else(found)
    }

    /// The transactions that the next call to the access API is about.
    #[must_use]
    pub fn concerned(&self) -> Vec<TransactionId> {
        let open = self.progress.iter().filter(|(_, progress)| {
            matches!(
                progress.state,
                State::Due | State::Unknown { .. } | State::Applying { .. } | State::RetryWait { .. }
            )
        });
        open.map(|(transaction, _)| transaction.clone()).collect()
    }

    /// The transactions that a question about the name is put to: those that are concerned, or else the newest.
    #[must_use]
    pub fn asked(&self) -> Vec<TransactionId> {
        let concerned = self.concerned();
        if !concerned.is_empty() {
            return concerned;
        }
        // What waits for a person about a transaction is not to be covered by a question about the name.
        let settled = |entry: &&Entry| {
            let progress = self.progress.get(&entry.transaction);
            progress.is_none_or(Progress::is_settled)
        };
        let newest = (self.ledger.entries.values())
            .filter(settled)
            .max_by_key(|entry| (entry.created_at, &entry.transaction));
        newest
            .map(|entry| entry.transaction.clone())
            .into_iter()
            .collect()
    }

    /// What the access API was told, or was going to be told, under `name`.
    #[must_use]
    pub fn told_under(&self, name: &Username) -> Option<Expiry> {
        let told = self
            .told
            .as_ref()
            .filter(|told| told.name.is_same(name))
            .map(|told| told.expiry);
        let intent = self.intent.as_ref().filter(|intent| intent.name.is_same(name));
        told.max(intent.and_then(|intent| intent.action.target()))
    }

    /// Notes for whose sake what is not settled waits.
    pub fn go_on_waiting(&mut self, cause: HoldCause, now: Timestamp) {
        let open: Vec<TransactionId> = self.waiting.keys().cloned().collect();
        for transaction in open {
            let settled = self.progress.get(&transaction).is_some_and(Progress::is_settled);
            if settled {
                self.waiting.remove(&transaction);
            } else if let Some(waiting) = self.waiting.get_mut(&transaction) {
                waiting.hold.go_on(now, cause);
            }
        }
    }

    /// Gives the transactions that waited, and settle now, back what they waited; access was live until `live_until`.
    pub fn credit(&mut self, live_until: Expiry, name_max: Duration, now: Timestamp) {
        let concerned = self.concerned();
        let holds: BTreeMap<TransactionId, Hold> = (self.waiting.iter())
            .filter(|(transaction, waiting)| waiting.read_at < now && concerned.contains(transaction))
            .map(|(transaction, waiting)| (transaction.clone(), waiting.hold.clone()))
            .collect();
        for transaction in self.waiting.keys() {
            if let Some(entry) = self.ledger.entries.get_mut(transaction) {
                entry.credit_seconds = 0;
            }
        }
        if let Some((transaction, seconds)) = super::holds::credit(&holds, now, live_until, name_max)
            && let Some(entry) = self.ledger.entries.get_mut(&transaction)
        {
            entry.credit_seconds = seconds;
        }
    }

    /// The newest purchase that counts, by which the access API is told what kind of access it is.
    #[must_use]
    pub fn newest(&self) -> Option<&Entry> {
        let counting = self
            .ledger
            .entries
            .values()
            .filter(|entry| entry.reversed().is_none());
        counting.max_by_key(|entry| (entry.created_at, &entry.transaction))
    }

    /// An operator's decision about what waits for a person; false where nothing does.
    pub fn decide(
        &mut self,
        transaction: &TransactionId,
        decision: Decision,
        wanted: Option<&Username>,
        now: Timestamp,
    ) -> bool {
        let state = self.progress.get(transaction).map(|progress| &progress.state);
        let held = matches!(state, Some(State::Held));
        let reason = match state {
            Some(State::ManualReview { reason, .. } | State::ReviewExpired { reason }) => Some(*reason),
            Some(State::Held | State::DeadLetter | State::RetryWait { .. }) => None,
            _ => return false,
        };
        match decision {
            Decision::LetPass => {
                if let Some(reason) = reason {
                    self.approved
                        .entry(transaction.clone())
                        .or_default()
                        .insert(reason);
                }
                if let Some(entry) = self.ledger.reviewed.remove(transaction) {
                    self.ledger.entries.insert(transaction.clone(), entry);
                }
                // A decision about a name is none about a refund.
                if held {
                    self.ledger.approve(transaction);
                }
                self.advance(transaction, &Event::Approved, now);
            }
            Decision::Dismiss => {
                if matches!(
                    reason,
                    Some(ReviewReason::InvalidUsername | ReviewReason::ThirdMove)
                ) {
                    self.refused_name = wanted.cloned();
                }
                if held {
                    self.ledger.dismiss(transaction);
                }
                self.advance(transaction, &Event::Dismissed, now);
                self.waiting.remove(transaction);
            }
        }
        true
    }
}

/// What an operator decides about something that waits for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It goes on.
    LetPass,
    /// Nothing comes of it.
    Dismiss,
}

impl Progress {
    /// Whether it is done.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self.state, State::Settled { .. })
    }

    /// Whether a person decided that nothing comes of it.
    #[must_use]
    pub fn is_dismissed(&self) -> bool {
        matches!(
            self.state,
            State::Settled {
                outcome: Settled::Dismissed
            }
        )
    }
}
