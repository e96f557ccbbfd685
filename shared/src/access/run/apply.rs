//! Bringing what is due to the access API.

use std::collections::BTreeSet;

use roaring::RoaringTreemap;

use super::{Refused, Run, share};
use crate::access::applying::{self, Step, Terms};
use crate::access::books::AuditEvent;
use crate::access::customer::{Customer, Holding, Left, UnknownName};
use crate::access::expiry::Expiry;
use crate::access::ids::{PersonId, ScriptId};
use crate::access::names::{Lookup, Username};
use crate::access::plan::{Action, Claim, Outcome, PlannedAction, release};
use crate::access::progress::{Progress, Settled, State};
use crate::access::remote::Wire;
use crate::access::retries::Verdict;
use crate::access::service::{Ended, Order, REMARKS};

/// How many customers are read at once.
const AT_ONCE: usize = 100;

/// How often one script of one customer is looked at anew in one run: for a name that is looked up again, for reversals
/// that are held, for what is found to have been done already.
const MOST_ROUNDS: u32 = 6;

impl Run<'_> {
    /// Brings everything that is due to the access API, as far as the run's time and caps allow.
    ///
    /// # Errors
    /// What the store says; what the access API says goes into the report.
    pub(in crate::access) async fn apply(&mut self) -> Result<(), Refused> {
        let mut done = self.apply_touched().await?;
        let mut start = None;
        loop {
            if self.stopped {
                return Ok(());
            }
            let limit = i32::try_from(AT_ONCE).unwrap_or(i32::MAX);
            let (persons, next) = self.books.due(limit, start).await?;
            for person in persons {
                if done.insert(person.0) {
                    self.apply_listed(person).await?;
                }
            }
            start = next;
            if start.is_none() {
                return Ok(());
            }
        }
    }

    /// The same for the customers that this run has changed, whom the index may not list yet. Tells who they were.
    ///
    /// # Errors
    /// As [`Run::apply`].
    pub(in crate::access) async fn apply_touched(&mut self) -> Result<RoaringTreemap, Refused> {
        let touched = std::mem::take(&mut self.touched);
        let persons: Vec<PersonId> = touched.iter().map(PersonId).collect();
        for some in persons.chunks(AT_ONCE) {
            let customers = self.books.customers(some.iter().copied()).await?;
            for customer in customers.into_values() {
                Box::pin(self.apply_customer(customer)).await?;
            }
        }
        Ok(touched)
    }

    /// Brings to the access API what is due of these customers.
    ///
    /// # Errors
    /// As [`Run::apply`].
    pub(in crate::access) async fn apply_to(&mut self, persons: &BTreeSet<PersonId>) -> Result<(), Refused> {
        for person in persons {
            self.apply_listed(*person).await?;
        }
        Ok(())
    }

    /// The index lags behind, so the customer is read again.
    async fn apply_listed(&mut self, person: PersonId) -> Result<(), Refused> {
        match self.books.customer(person).await? {
            Some(customer) => Box::pin(self.apply_customer(customer)).await,
            None => Ok(()),
        }
    }

    /// Brings to the access API what is due of one customer.
    async fn apply_customer(&mut self, mut customer: Customer) -> Result<(), Refused> {
        let wanted = customer.wanted().ok();
        let repairing = self.is_repairing();
        let scripts: Vec<ScriptId> = (customer.scripts.iter())
            .filter(|(_, holding)| {
                holding.is_due(wanted.as_ref(), self.now) || (repairing && holding.told.is_some())
            })
            .map(|(script, _)| script.clone())
            .collect();
        if scripts.is_empty() {
            return Ok(());
        }
        let waits = u64::try_from(scripts.len()).unwrap_or(u64::MAX);
        let only_gives = customer.scripts.values().all(|holding| {
            !holding.ledger.is_being_reversed()
                && holding.left.is_empty()
                && !holding.progress.values().any(Progress::has_to_read_back)
        });
        let capped = only_gives
            && !self.books.is_dry()
            && (self.allowance.is_spent() || !self.configuration.writes_enabled);
        self.capped |= capped && self.allowance.is_spent();
        if capped || self.stopped || self.is_out_of_time() {
            if !self.configuration.writes_enabled {
                self.warn_of_switch();
            }
            self.report.remaining = self.report.remaining.saturating_add(waits);
            return Ok(());
        }
        let before = customer.clone();
        for script in scripts {
            self.keep_lease().await?;
            if self.stopped || self.is_out_of_time() {
                self.report.remaining = self.report.remaining.saturating_add(1);
                continue;
            }
            Box::pin(self.apply_script(&mut customer, &script)).await?;
        }
        self.count_states(&before, &customer);
        Ok(())
    }

    async fn apply_script(&mut self, customer: &mut Customer, script: &ScriptId) -> Result<(), Refused> {
        let mut look_up_again = false;
        for _ in 0..MOST_ROUNDS {
            self.keep_lease().await?;
            if self.is_out_of_time() {
                self.report.remaining = self.report.remaining.saturating_add(1);
                return Ok(());
            }
            let wanted = customer.wanted().ok();
            let Some(holding) = customer.scripts.get(script) else {
                return Ok(());
            };
            let due = holding.is_due(wanted.as_ref(), self.now) || self.is_repairing();
            if !due {
                return Ok(());
            }
            let before = customer.clone();
            // What may be under way is looked at before anything else, under the name that it is under way for.
            if let Some(intent) = holding.intent.clone() {
                match Box::pin(self.look_back(customer, script, &intent.name)).await? {
                    Looked::Again => continue,
                    Looked::Later => return Ok(()),
                }
            }
            let Some(name) = Box::pin(self.resolve(customer, script, look_up_again)).await? else {
                // The name that has access now keeps it; those that were left lose theirs all the same.
                let settled = (customer.scripts.get(script)).is_some_and(|holding| holding.told.is_some());
                if settled {
                    Box::pin(self.release_left(customer, script)).await?;
                }
                return Ok(());
            };
            let remote = match Box::pin(self.remote(script, &name)).await {
                Ok(remote) => remote,
                Err(ended) => return self.not_reached(customer, script, &ended).await,
            };
            let Some(holding) = customer.scripts.get_mut(script) else {
                return Ok(());
            };
            if !applying::relocate(holding, &name, self.now) {
                return self.keep(before, customer).await;
            }
            let mut members = vec![customer.clone()];
            let book = self.books.name(&name.key()).await?;
            let others = book
                .claims
                .iter()
                .filter_map(|claim| claim.person)
                .filter(|person| *person != customer.person);
            members.extend(self.books.customers(others).await?.into_values());
            let mut members_before = members.clone();
            if let Some(first) = members_before.first_mut() {
                *first = before;
            }
            self.keep_lease().await?;
            let active = self.active(script);
            let configuration = std::sync::Arc::clone(&self.configuration);
            let mut terms = Terms {
                wire: Wire::of(&configuration.access_api),
                mode: self.mode,
                policies: &configuration.policies,
                // A dry run shows what would be done if something might be.
                writes_enabled: configuration.writes_enabled || self.books.is_dry(),
                now: self.now,
                until: self.lease_end(),
            };
            let untouched = (members.clone(), self.allowance.clone());
            let mut step = applying::next(
                &mut members,
                script,
                &name,
                remote,
                &mut self.allowance,
                active,
                &terms,
            );
            if let Step::Call { action, .. } = step
                && !self.books.is_dry()
                && self.is_outdated(script, action)
            {
                (members, self.allowance) = untouched;
                let remote = match Box::pin(self.remote_again(script, &name)).await {
                    Ok(remote) => remote,
                    Err(ended) => {
                        first(customer, members_before);
                        return self.not_reached(customer, script, &ended).await;
                    }
                };
                self.keep_lease().await?;
                terms.until = self.lease_end();
                let active = self.active(script);
                step = applying::next(
                    &mut members,
                    script,
                    &name,
                    remote,
                    &mut self.allowance,
                    active,
                    &terms,
                );
            }
            match step {
                Step::Remains => {
                    self.capped |= self.allowance.is_spent();
                    if !configuration.writes_enabled {
                        self.warn_of_switch();
                    }
                    self.report.remaining = self.report.remaining.saturating_add(1);
                    return Ok(());
                }
                Step::Held => {
                    Box::pin(self.keep_all(members_before, &mut members)).await?;
                    first(customer, members);
                }
                Step::Settled {
                    outcome,
                    person,
                    conflict,
                } => {
                    self.warn_of(outcome, &conflict, script, &name);
                    self.report.count_outcome(outcome);
                    if self.books.is_dry() {
                        self.plan(script, person, &name, Action::None, &members);
                    }
                    Box::pin(self.keep_all(members_before, &mut members)).await?;
                    first(customer, members);
                    return Box::pin(self.release_left(customer, script)).await;
                }
                Step::Call {
                    action,
                    outcome,
                    person,
                    conflict,
                } => {
                    self.warn_of(outcome, &conflict, script, &name);
                    if self.books.is_dry() {
                        self.plan(script, person, &name, action, &members);
                        self.report.count_outcome(outcome);
                        // What follows from it, for others with this name and for the name before, is shown as well.
                        applying::ended(
                            &mut members,
                            script,
                            &name,
                            Verdict::Done,
                            None,
                            self.now,
                            share(),
                        );
                        Box::pin(self.keep_all(members_before, &mut members)).await?;
                        first(customer, members);
                        self.note_remote(script, &name, action.target().map(|to| terms.wire.effective(to)));
                        return Box::pin(self.release_left(customer, script)).await;
                    }
                    if !self.is_planned(script, person, &name, action) {
                        return Ok(());
                    }
                    Box::pin(self.keep_all(members_before, &mut members)).await?;
                    let order = self.order(&members, person, script, &name, action);
                    let ended = Box::pin(self.service.write(&order, self.call_until())).await;
                    let members_before = members.clone();
                    let (verdict, asked) = match &ended {
                        Ok(()) => (Verdict::Done, None),
                        Err(ended) => (ended.verdict, ended.asked),
                    };
                    applying::ended(&mut members, script, &name, verdict, asked, self.now, share());
                    Box::pin(self.keep_all(members_before, &mut members)).await?;
                    first(customer, members);
                    match ended {
                        Ok(()) => {
                            self.failures = 0;
                            self.record.paused_since = None;
                            let told = action.target().map(|to| terms.wire.effective(to));
                            self.note_remote(script, &name, told);
                            self.report.count_outcome(outcome);
                            let markers = self.record.scripts.entry(script.clone()).or_default();
                            let newest = customer
                                .scripts
                                .get(script)
                                .and_then(|holding| Some(holding.newest()?.created_at));
                            markers.last_processed_at = markers.last_processed_at.max(newest);
                            return Box::pin(self.release_left(customer, script)).await;
                        }
                        Err(ended) if ended.verdict == Verdict::Refused => {
                            // The name may have changed at TradingView: it is looked up once more.
                            self.report.warn(format!("{name}, {script}: {ended}"));
                            if look_up_again {
                                return Ok(());
                            }
                            look_up_again = true;
                        }
                        Err(ended) => {
                            self.note_failure(&ended);
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks whether a call took effect whose end is not known.
    async fn look_back(
        &mut self,
        customer: &mut Customer,
        script: &ScriptId,
        name: &Username,
    ) -> Result<Looked, Refused> {
        let remote = match Box::pin(self.remote(script, name)).await {
            Ok(remote) => remote,
            Err(ended) => {
                self.not_reached(customer, script, &ended).await?;
                return Ok(Looked::Later);
            }
        };
        let before = customer.clone();
        let wire = Wire::of(&self.configuration.access_api);
        let now = self.now;
        let Some(holding) = customer.scripts.get_mut(script) else {
            return Ok(Looked::Later);
        };
        let outcome = holding.progress.values().find_map(under_way);
        let done = applying::read_back(holding, remote, wire, now, share());
        self.keep(before, customer).await?;
        if done {
            self.failures = 0;
            if let Some(outcome) = outcome {
                self.report.count_settled(outcome);
            }
            Box::pin(self.release_left(customer, script)).await?;
        }
        Ok(Looked::Again)
    }

    /// The name that access is given to, looked up where the access API has not been asked yet.
    async fn resolve(
        &mut self,
        customer: &mut Customer,
        script: &ScriptId,
        again: bool,
    ) -> Result<Option<Username>, Refused> {
        let before = customer.clone();
        let unknown = match customer.wanted() {
            Err(_) => UnknownName {
                name: customer.written.clone(),
                suggestions: Vec::new(),
            },
            Ok(wanted) => {
                let mut spelt = None;
                if !again {
                    if let Some(name) = customer.canonical() {
                        return Ok(Some(name.clone()));
                    }
                    // Another customer's name was looked up already.
                    let book = self.books.name(&wanted.key()).await?;
                    spelt = book.claims.into_iter().map(|claim| claim.username).next();
                }
                let known = match spelt {
                    Some(name) => Ok(Lookup::Known(name)),
                    None => self.service.look_up(&wanted, self.call_until()).await,
                };
                match known {
                    Ok(Lookup::Known(name)) => {
                        self.failures = 0;
                        customer.name = Some(name.clone());
                        customer.unknown = None;
                        return Ok(Some(name));
                    }
                    Ok(Lookup::Unknown { suggestions }) => UnknownName {
                        name: wanted.as_str().to_owned(),
                        suggestions,
                    },
                    Err(ended) => {
                        self.not_reached(customer, script, &ended).await?;
                        return Ok(None);
                    }
                }
            }
        };
        let wanted = customer.wanted().ok();
        customer.unknown = Some(unknown);
        if let Some(holding) = customer.scripts.get_mut(script) {
            applying::name_unknown(holding, wanted.as_ref(), self.now);
        }
        self.keep(before, customer).await?;
        Ok(None)
    }

    async fn not_reached(
        &mut self,
        customer: &mut Customer,
        script: &ScriptId,
        ended: &Ended,
    ) -> Result<(), Refused> {
        let before = customer.clone();
        if let Some(holding) = customer.scripts.get_mut(script) {
            applying::not_reached(holding, ended.verdict, ended.asked, self.now, share());
        }
        // That a script's list cannot be read is one failure, however many customers it concerns.
        if self.told_unlisted.insert(script.clone()) || !self.is_unlisted(script) {
            self.note_failure(ended);
        }
        self.keep(before, customer).await
    }

    /// A service that fails again and again is left alone until the next run.
    fn note_failure(&mut self, ended: &Ended) {
        self.report.warn(format!("the access API: {ended}"));
        if ended.verdict == Verdict::NoAccess {
            self.pause(ended);
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= super::MOST_FAILURES {
            self.stopped = true;
            self.report.complete = false;
        }
    }

    /// Takes access from the name that was moved away from.
    async fn release_left(&mut self, customer: &mut Customer, script: &ScriptId) -> Result<(), Refused> {
        let now = self.now;
        let of_script = customer.scripts.get(script);
        let left: Vec<Left> = of_script.map(|holding| holding.left.clone()).unwrap_or_default();
        for left in left.into_iter().filter(|left| left.next_at <= now) {
            self.keep_lease().await?;
            Box::pin(self.release_name(customer, script, &left)).await?;
        }
        Ok(())
    }

    async fn release_name(
        &mut self,
        customer: &mut Customer,
        script: &ScriptId,
        left: &Left,
    ) -> Result<(), Refused> {
        let remote = match Box::pin(self.remote(script, &left.name)).await {
            Ok(remote) => remote,
            Err(ended) => return self.not_released(customer, script, left, &ended).await,
        };
        let book = self.books.name(&left.name.key()).await?;
        let others = book
            .claims
            .iter()
            .filter_map(|claim| claim.person)
            .filter(|person| *person != customer.person);
        let others = self.books.customers(others).await?;
        let grace = self.configuration.policies.grace;
        let claims: Vec<Claim> = (others.values())
            .filter(|other| other.canonical().is_some_and(|name| name.is_same(&left.name)))
            .filter_map(|other| {
                let holding = other.scripts.get(script)?;
                Some(Claim {
                    person: other.person,
                    expiry: holding.ledger.expiry(grace),
                    told: holding.told_under(&left.name),
                    found: None,
                    changed: false,
                    reversing: false,
                })
            })
            .collect();
        let action = release(&claims, remote, self.now);
        if self.books.is_dry() {
            if action != Action::None {
                self.plan(script, customer.person, &left.name, action, &[]);
            }
            return Ok(());
        }
        if action != Action::None {
            if !self.configuration.writes_enabled {
                self.report.remaining = self.report.remaining.saturating_add(1);
                return Ok(());
            }
            if !self.is_planned(script, customer.person, &left.name, action) {
                return Ok(());
            }
            let order = self.order(
                std::slice::from_ref(customer),
                customer.person,
                script,
                &left.name,
                action,
            );
            if let Err(ended) = Box::pin(self.service.write(&order, self.call_until())).await {
                return self.not_released(customer, script, left, &ended).await;
            }
            self.note_remote(script, &left.name, None);
        }
        let before = customer.clone();
        if let Some(holding) = customer.scripts.get_mut(script) {
            holding.left.retain(|other| other.name != left.name);
        }
        let event = AuditEvent {
            event: "access.moved".to_owned(),
            script_id: Some(script.clone()),
            transactions: Vec::new(),
            detail: format!("from {}", left.name),
        };
        self.keep_with(before, customer, vec![event]).await
    }

    async fn not_released(
        &mut self,
        customer: &mut Customer,
        script: &ScriptId,
        left: &Left,
        ended: &Ended,
    ) -> Result<(), Refused> {
        let before = customer.clone();
        let of_script = customer.scripts.get_mut(script);
        let lefts = of_script.into_iter().flat_map(|holding| holding.left.iter_mut());
        for other in lefts.filter(|other| other.name == left.name) {
            other.put_off(ended.asked, self.now, share());
        }
        self.note_failure(ended);
        self.keep(before, customer).await
    }

    // ---- Keeping ----

    /// Writes one customer that was `before`.
    async fn keep(&mut self, before: Customer, customer: &mut Customer) -> Result<(), Refused> {
        self.keep_with(before, customer, Vec::new()).await
    }

    async fn keep_with(
        &mut self,
        before: Customer,
        customer: &mut Customer,
        events: Vec<AuditEvent>,
    ) -> Result<(), Refused> {
        let saving = self.saving(Some(before), customer.clone(), events)?;
        if let Some(saved) = self.save(vec![saving]).await?.into_iter().next() {
            *customer = saved;
        }
        Ok(())
    }

    /// Writes all who claim one name.
    async fn keep_all(&mut self, before: Vec<Customer>, members: &mut [Customer]) -> Result<(), Refused> {
        let mut savings = Vec::new();
        for (before, after) in before.into_iter().zip(members.iter()) {
            savings.push(self.saving(Some(before), after.clone(), Vec::new())?);
        }
        for (member, saved) in members.iter_mut().zip(self.save(savings).await?) {
            *member = saved;
        }
        Ok(())
    }

    fn order(
        &self,
        members: &[Customer],
        person: PersonId,
        script: &ScriptId,
        name: &Username,
        action: Action,
    ) -> Order {
        let customer = members.iter().find(|member| member.person == person);
        let holding = customer.and_then(|customer| customer.scripts.get(script));
        let product = holding.and_then(|holding| self.configuration.product(&holding.newest()?.product));
        Order {
            script: script.clone(),
            username: name.clone(),
            action,
            email: customer
                .map(|customer| customer.email.clone())
                .unwrap_or_default(),
            subscription_type: product
                .map(|product| product.subscription_type.clone())
                .unwrap_or_default(),
            wp_username: customer
                .map(|customer| customer.wp_username.clone())
                .unwrap_or_default(),
            remarks: REMARKS.to_owned(),
        }
    }

    /// Whether the plan that is carried out, if there is one, has this call. What it does not have remains.
    fn is_planned(&mut self, script: &ScriptId, person: PersonId, name: &Username, action: Action) -> bool {
        let Some(planned) = &self.planned else {
            return true;
        };
        let call = PlannedAction::new(script.clone(), person, name.clone(), action);
        let is_in_it = planned.contains(&call);
        if !is_in_it {
            self.report.remaining = self.report.remaining.saturating_add(1);
            self.report.warn(format!(
                "{name}, {script}: it is not any more as the plan has it, and was left alone"
            ));
        }
        is_in_it
    }

    fn plan(
        &mut self,
        script: &ScriptId,
        person: PersonId,
        name: &Username,
        action: Action,
        members: &[Customer],
    ) {
        let mut planned = PlannedAction::new(script.clone(), person, name.clone(), action);
        if action == Action::None {
            let holding = members
                .iter()
                .find(|member| member.person == person)
                .and_then(|member| member.scripts.get(script));
            planned.to = holding
                .map(|holding| holding.ledger.expiry(self.configuration.policies.grace))
                .filter(|end| *end != Expiry::NoAccess);
        }
        if let Some(plan) = &mut self.report.plan {
            plan.push(planned);
        }
    }

    // ---- Counting ----

    /// Counts the transactions that came to another state.
    fn count_states(&mut self, before: &Customer, after: &Customer) {
        for (script, holding) in &after.scripts {
            let known = before.scripts.get(script);
            for (transaction, progress) in &holding.progress {
                let was = known.and_then(|known| known.progress.get(transaction));
                let same = was.is_some_and(|was| {
                    std::mem::discriminant(&was.state) == std::mem::discriminant(&progress.state)
                });
                let tried = was.is_some_and(|was| was.tries != progress.tries);
                let counter = match &progress.state {
                    State::Settled { .. } if !same => &mut self.report.settled,
                    State::ManualReview { .. } if !same => &mut self.report.manual_review,
                    State::DeadLetter if !same => &mut self.report.dead_letter,
                    State::Held if !same => &mut self.report.held,
                    State::RetryWait { .. } | State::Unknown { .. } if !same || tried => {
                        &mut self.report.retry
                    }
                    _ => continue,
                };
                *counter = counter.saturating_add(1);
            }
        }
    }

    fn warn_of(&mut self, outcome: Outcome, conflict: &[PersonId], script: &ScriptId, name: &Username) {
        if !conflict.is_empty() {
            let persons: Vec<String> = conflict.iter().map(PersonId::to_string).collect();
            self.report.warn(format!(
                "{name}, {script}: several customers use this name ({}); the latest end counts",
                persons.join(", ")
            ));
        }
        match outcome {
            Outcome::HandShortened(end) => self.report.warn(format!(
                "{name}, {script}: access was shortened by hand (it ends at {end}); `berth access repair` gives it again"
            )),
            Outcome::NeverLowered(end) => self.report.warn(format!(
                "{name}, {script}: access lasts longer than was paid for (until {end}) and was left as it is"
            )),
            Outcome::NotApplied => self.report.warn(format!(
                "{name}, {script}: access is for ever already, which was not given here"
            )),
            _ => {}
        }
    }

    fn warn_of_switch(&mut self) {
        self.report.warn(
            "writes are switched off (writes_enabled): nothing is changed at the access API".to_owned(),
        );
    }

    /// What goes into the audit about a change of what the access API was told, of the time that was given back, and of
    /// what somebody gave by hand.
    pub(super) fn told_events(&self, before: Option<&Customer>, after: &Customer) -> Vec<AuditEvent> {
        let mut events = Vec::new();
        for (script, holding) in &after.scripts {
            let was = before.and_then(|before| before.scripts.get(script));
            if let Some(was) = was {
                events.extend(self.credited(script, was, holding));
                events.extend(adopted(script, was, holding));
            }
            for (transaction, progress) in &holding.progress {
                let known = was.and_then(|was| was.progress.get(transaction));
                if known.is_some_and(|known| known.state == progress.state) {
                    continue;
                }
                let event = match &progress.state {
                    State::Settled { outcome } => format!("access.{}", word(*outcome)),
                    State::ManualReview { reason, .. } => format!("review.{reason}"),
                    State::ReviewExpired { .. } => "review.expired".to_owned(),
                    State::Held => "reversal.held".to_owned(),
                    State::DeadLetter => "transaction.given_up".to_owned(),
                    _ => continue,
                };
                let told = holding.told.as_ref().filter(|_| progress.is_settled());
                let detail = told
                    .map(|told| format!("{} until {}", told.name, told.expiry))
                    .unwrap_or_default();
                // What happened to many transactions at once is one event: an entry has to fit into one item.
                let alike = |known: &&mut AuditEvent| {
                    known.script_id.as_ref() == Some(script) && known.event == event && known.detail == detail
                };
                match events.iter_mut().find(alike) {
                    Some(known) => known.transactions.push(transaction.clone()),
                    None => events.push(AuditEvent {
                        event,
                        script_id: Some(script.clone()),
                        transactions: vec![transaction.clone()],
                        detail,
                    }),
                }
            }
        }
        events
    }

    /// What goes into the audit about time that was given back for waiting, so that everybody can see how the end of
    /// access comes about.
    fn credited(&self, script: &ScriptId, was: &Holding, holding: &Holding) -> Vec<AuditEvent> {
        let credited = holding.ledger.entries.values().filter_map(|entry| {
            let before = was.ledger.entries.get(&entry.transaction)?;
            // What waited is forgotten as soon as it is settled.
            let waited = was.waiting.get(&entry.transaction)?;
            (entry.credit_seconds != before.credit_seconds).then(|| AuditEvent {
                event: "access.credited".to_owned(),
                script_id: Some(script.clone()),
                transactions: vec![entry.transaction.clone()],
                detail: format!(
                    "{} s for waiting {}, until {}",
                    entry.credit_seconds,
                    waited.hold.told(),
                    self.now
                ),
            })
        });
        credited.collect()
    }
}

/// What goes into the audit about an end that somebody gave by hand and that counts from now on.
fn adopted(script: &ScriptId, was: &Holding, holding: &Holding) -> Option<AuditEvent> {
    let baseline = holding.ledger.baseline.as_ref()?;
    let known = was.ledger.baseline.as_ref();
    let is_known = known.is_some_and(|known| (known.end, known.at) == (baseline.end, baseline.at));
    (!is_known).then(|| AuditEvent {
        event: "access.adopted".to_owned(),
        script_id: Some(script.clone()),
        transactions: Vec::new(),
        detail: format!("given by hand until {}, found at {}", baseline.end, baseline.at),
    })
}

/// What a look at a call whose end was not known leads to.
enum Looked {
    /// It is known now: go on.
    Again,
    /// It could not be looked at.
    Later,
}

/// What a call that may be under way comes to.
fn under_way(progress: &Progress) -> Option<Settled> {
    match &progress.state {
        State::Applying { outcome, .. } | State::Unknown { outcome, .. } => Some(*outcome),
        _ => None,
    }
}

fn word(outcome: Settled) -> &'static str {
    match outcome {
        Settled::Granted => "granted",
        Settled::Extended => "extended",
        Settled::Revoked => "revoked",
        Settled::Shortened => "shortened",
        Settled::Kept => "kept",
        Settled::NotApplied => "not_applied",
        Settled::Dismissed => "dismissed",
    }
}

fn first(customer: &mut Customer, members: Vec<Customer>) {
    if let Some(own) = members.into_iter().next() {
        *customer = own;
    }
}
