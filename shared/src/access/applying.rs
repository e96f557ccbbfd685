//! What comes next for those who claim one script under one name: what is decided about them goes into their records
//! first, and only then is the access API called (facts/access.md C3).

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::assessment::{Change, ReviewReason};
use super::configuration::Policies;
use super::customer::{Customer, Holding, Intent, Left, Told};
use super::expiry::Expiry;
use super::holds::HoldCause;
use super::ids::{PersonId, ScriptId, TransactionId};
use super::names::Username;
use super::plan::{self, Action, Allowance, Claim, Decision, Mode, Outcome, Relocation};
use super::progress::{Event, Progress, State};
use super::remote::Wire;
use super::retries::{self, Verdict};

/// By what it is decided what comes next.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// How the access API writes ends of access.
    pub wire: Wire,
    /// What the run is for.
    pub mode: Mode,
    /// What an operator decides about doubtful cases.
    pub policies: &'a Policies,
    /// Whether anything may be changed at the access API.
    pub writes_enabled: bool,
    /// The run's time.
    pub now: Timestamp,
    /// When nobody can be at a call any more that begins now.
    pub until: Timestamp,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing is left to do.
    Settled {
        /// What that comes to.
        outcome: Outcome,
        /// The person whose claim decides.
        person: PersonId,
        /// Everybody who claims under this name, where there are several.
        conflict: Vec<PersonId>,
    },
    /// The call is to be made. It stands in the records as an intent; they have to be stored before.
    Call {
        /// The call.
        action: Action,
        /// What it comes to.
        outcome: Outcome,
        /// The person whose claim decides.
        person: PersonId,
        /// Everybody who claims under this name, where there are several.
        conflict: Vec<PersonId>,
    },
    /// The run may not give access to anybody any more, or nothing may be written; it remains for a later one.
    Remains,
    /// The run may not take back any more: it waits for approval, which stands in the records.
    Held,
}

/// Notes whether the call that stands as an intent took effect, and says so; `remote` is what the access API has now
/// under the intent's name.
pub fn read_back(
    holding: &mut Holding,
    remote: Option<Expiry>,
    wire: Wire,
    now: Timestamp,
    share: f64,
) -> bool {
    let Some(intent) = holding.intent.clone() else {
        return false;
    };
    let done = intent.action.is_done(remote, wire);
    for transaction in holding.concerned() {
        let under_way = holding
            .progress
            .get(&transaction)
            .is_some_and(Progress::has_to_read_back);
        if under_way {
            holding.advance_by_chance(&transaction, &Event::ReadBack(done), now, share);
        }
    }
    if done {
        holding.settle(&intent);
        // What was taken back since the call began was not part of it.
        let reversed: Vec<TransactionId> = (holding.ledger.entries.values())
            .filter(|entry| entry.is_being_reversed())
            .map(|entry| entry.transaction.clone())
            .collect();
        for transaction in reversed {
            holding.progress.insert(transaction, Progress::new());
        }
    } else {
        holding.keep_told(&intent.name);
    }
    done
}

/// Decides what comes next for `members`, who all claim `script` under `name`; `remote` is what the access API has, and
/// `active` how many names have access to the script.
pub fn next(
    members: &mut [Customer],
    script: &ScriptId,
    name: &Username,
    remote: Option<Expiry>,
    allowance: &mut Allowance,
    active: u64,
    terms: &Terms<'_>,
) -> Step {
    for holding in holdings(members, script, name) {
        // Until a name that was given up has lost its access, the customer has that.
        let before = holding.left.iter().map(|left| left.told);
        let live_until = before.fold(remote.unwrap_or_default(), Expiry::max);
        holding.credit(live_until, terms.policies.hold_credit_max, terms.now);
    }
    let mut adopted = false;
    loop {
        let claims: Vec<Claim> = (members.iter())
            .filter_map(|member| claim(member, script, name, terms))
            .collect();
        let Some(decision) = plan::decide(&claims, remote, terms.wire, terms.mode, terms.now) else {
            return Step::Remains;
        };
        match decision.outcome {
            // What is adopted is part of the ledger then; if it is not, a person has to look.
            Outcome::HandExtended(_) if adopted => return Step::Remains,
            Outcome::HandExtended(end) => {
                adopted = true;
                // It becomes the baseline of who claims most, once, and is then decided again.
                let Some(holding) = holding_of(members, decision.person, script) else {
                    return Step::Remains;
                };
                let ungranted: BTreeSet<TransactionId> = holding.concerned().into_iter().collect();
                holding.ledger.adopt(end, terms.now, ungranted);
                holding.told = Some(Told {
                    name: name.clone(),
                    expiry: end,
                });
            }
            _ if decision.action == Action::None => {
                for holding in holdings(members, script, name) {
                    holding.begin(&decision, name, terms);
                    holding.settled_without_call(&decision, name, terms);
                }
                return Step::Settled {
                    outcome: decision.outcome,
                    person: decision.person,
                    conflict: decision.conflict,
                };
            }
            _ if !terms.writes_enabled => return Step::Remains,
            _ if decision.action.gives() && !allowance.take_grant() => return Step::Remains,
            _ if decision.action.takes() && !allowance.take_reversal(script, active) => {
                for holding in holdings(members, script, name) {
                    holding.hold_reversals(terms.now);
                }
                return Step::Held;
            }
            _ => {
                for holding in holdings(members, script, name) {
                    holding.begin(&decision, name, terms);
                }
                return Step::Call {
                    action: decision.action,
                    outcome: decision.outcome,
                    person: decision.person,
                    conflict: decision.conflict,
                };
            }
        }
    }
}

/// Notes how the call ended that [`next`] asked for. `share` is a random share of one, for the next try's time.
pub fn ended(
    members: &mut [Customer],
    script: &ScriptId,
    name: &Username,
    verdict: Verdict,
    asked: Option<std::time::Duration>,
    now: Timestamp,
    share: f64,
) {
    for holding in holdings(members, script, name) {
        let intent = holding.intent.clone().filter(|intent| intent.name.is_same(name));
        let Some(intent) = intent else {
            continue;
        };
        for transaction in holding.concerned() {
            if matches!(
                holding.progress.get(&transaction).map(|p| &p.state),
                Some(State::Applying { .. })
            ) {
                holding.advance_by_chance(&transaction, &Event::Ended(verdict, asked), now, share);
            }
        }
        match verdict {
            Verdict::Done => {
                holding.settle(&intent);
                holding.ledger.settle_reversals();
            }
            // It may still take effect: what it was going to tell counts as told until it is known.
            Verdict::Unknown => {}
            _ => holding.intent = None,
        }
        if verdict != Verdict::Done {
            holding.put_off_leaving(asked, now, share);
        }
        holding.go_on_waiting(HoldCause::Ours, now);
    }
}

/// Notes that the name could not be looked up, or the list of who has access not be read.
pub fn not_reached(
    holding: &mut Holding,
    verdict: Verdict,
    asked: Option<std::time::Duration>,
    now: Timestamp,
    share: f64,
) {
    for transaction in holding.asked() {
        holding.advance_by_chance(&transaction, &Event::Ended(verdict, asked), now, share);
    }
    if verdict != Verdict::NoAccess {
        holding.put_off_leaving(asked, now, share);
    }
    holding.go_on_waiting(HoldCause::Ours, now);
}

/// Notes that TradingView does not know the customer's name, which would be `wanted` if it can be one.
pub fn name_unknown(holding: &mut Holding, wanted: Option<&Username>, now: Timestamp) {
    let asked = holding.asked();
    if asked.is_empty() {
        // Everything that it could be asked about waits for a person already.
        holding.refused_name = wanted.cloned();
    }
    for transaction in asked {
        holding.advance(&transaction, &Event::NameUnknown, now);
    }
    holding.go_on_waiting(HoldCause::Name, now);
}

/// Moves access to `name`, where another one has it; false where a person has to look first.
pub fn relocate(holding: &mut Holding, name: &Username, now: Timestamp) -> bool {
    if holding.told.is_none()
        && let Some(back) = holding.left.iter().position(|left| left.name.is_same(name))
    {
        // The customer is back at a name that still has what it had.
        let left = holding.left.remove(back);
        holding.told = Some(Told {
            name: left.name,
            expiry: left.told,
        });
        return true;
    }
    let has = holding.has().map(|(name, end)| (name.clone(), end));
    let approved = holding
        .approved
        .values()
        .any(|reasons| reasons.contains(&ReviewReason::ThirdMove));
    match plan::relocate(has.as_ref().map(|(name, _)| name), name, &holding.moves, now) {
        Relocation::None => true,
        Relocation::Review if !approved => {
            let asked = holding.asked();
            if asked.is_empty() {
                holding.refused_name = Some(name.clone());
            }
            for transaction in asked {
                holding.advance(&transaction, &Event::ThirdMove, now);
            }
            false
        }
        Relocation::Review | Relocation::Move => {
            for reasons in holding.approved.values_mut() {
                reasons.remove(&ReviewReason::ThirdMove);
            }
            let window = now.checked_sub(plan::MOVES_WINDOW).unwrap_or(Timestamp::MIN);
            holding.moves.retain(|at| *at > window);
            holding.moves.push(now);
            holding.left.retain(|left| !left.name.is_same(name));
            holding.told = None;
            if let Some(baseline) = &mut holding.ledger.baseline {
                baseline.under = None;
            }
            holding.left.extend(has.map(|(name, told)| Left {
                name,
                told,
                next_at: now,
                tries: 0,
            }));
            true
        }
    }
}

fn claim(member: &Customer, script: &ScriptId, name: &Username, terms: &Terms<'_>) -> Option<Claim> {
    if !member.canonical().is_some_and(|own| own.is_same(name)) {
        return None;
    }
    let holding = member.scripts.get(script)?;
    let told = holding.told_under(name);
    Some(Claim {
        person: member.person,
        expiry: holding.ledger.expiry(terms.policies.grace),
        told,
        found: holding.ledger.baseline.as_ref().map(|baseline| baseline.end),
        changed: !holding.concerned().is_empty() || (!holding.left.is_empty() && told.is_none()),
        reversing: holding.ledger.is_being_reversed(),
    })
}

/// What those who claim the script under this name have of it. Whoever only had the name, or is leaving it, is a member
/// without a claim.
fn holdings<'m>(
    members: &'m mut [Customer],
    script: &'m ScriptId,
    name: &'m Username,
) -> impl Iterator<Item = &'m mut Holding> {
    let claims = members
        .iter_mut()
        .filter(|member| member.canonical().is_some_and(|own| own.is_same(name)));
    claims.filter_map(move |member| member.scripts.get_mut(script))
}

fn holding_of<'m>(
    members: &'m mut [Customer],
    person: PersonId,
    script: &ScriptId,
) -> Option<&'m mut Holding> {
    members
        .iter_mut()
        .find(|member| member.person == person)?
        .scripts
        .get_mut(script)
}

impl Holding {
    fn begin(&mut self, decision: &Decision, name: &Username, terms: &Terms<'_>) {
        let begun = Event::Begun {
            action: decision.action,
            outcome: decision.outcome,
            until: terms.until,
        };
        for transaction in self.concerned() {
            self.advance(&transaction, &begun, terms.now);
        }
        self.intent = (decision.action != Action::None).then(|| Intent {
            name: name.clone(),
            action: decision.action,
        });
    }

    fn settled_without_call(&mut self, decision: &Decision, name: &Username, terms: &Terms<'_>) {
        if matches!(decision.outcome, Outcome::HandShortened(_)) {
            return;
        }
        self.ledger.settle_reversals();
        self.waiting
            .retain(|transaction, _| self.progress.get(transaction).is_some_and(|p| !p.is_settled()));
        let expiry = self.ledger.expiry(terms.policies.grace);
        if expiry.is_live(terms.now) || self.told.is_some() {
            self.told = Some(Told {
                name: name.clone(),
                expiry,
            });
        }
    }

    /// Has the names that are left looked at later, as the new one does not have access yet.
    fn put_off_leaving(&mut self, asked: Option<std::time::Duration>, now: Timestamp, share: f64) {
        if self.told.is_some() {
            return;
        }
        for left in &mut self.left {
            left.put_off(asked, now, share);
        }
    }

    /// Notes that the intent was not seen to take effect. A call that is still under way somewhere may take effect later,
    /// so what it would tell counts as told.
    fn keep_told(&mut self, name: &Username) {
        let told = self.told_under(name);
        self.intent = None;
        let is_own = self.told.as_ref().is_none_or(|told| told.name.is_same(name));
        if let Some(expiry) = told.filter(|_| is_own) {
            self.told = Some(Told {
                name: name.clone(),
                expiry,
            });
        }
    }

    /// Notes that the access API has what the intent was.
    fn settle(&mut self, intent: &Intent) {
        self.intent = None;
        self.waiting
            .retain(|transaction, _| self.progress.get(transaction).is_some_and(|p| !p.is_settled()));
        self.told = Some(Told {
            name: intent.name.clone(),
            expiry: intent.action.target().unwrap_or(Expiry::NoAccess),
        });
    }

    /// Lets what was taken back and not told yet wait for approval.
    fn hold_reversals(&mut self, now: Timestamp) {
        self.ledger.hold_reversals();
        let held: Vec<(TransactionId, Change)> = self
            .ledger
            .entries
            .values()
            .filter(|entry| entry.is_held())
            .filter_map(|entry| {
                let change = match (&entry.reversal, &entry.cut) {
                    (Some(reversal), _) => Change::Reverse(entry.transaction.clone(), reversal.clone()),
                    (None, Some(cut)) => Change::Cut(entry.transaction.clone(), cut.clone()),
                    (None, None) => return None,
                };
                Some((entry.transaction.clone(), change))
            })
            .collect();
        for (transaction, change) in held {
            self.advance(&transaction, &Event::Assessed(change), now);
        }
    }
}

impl Left {
    /// Has it looked at later. A name that was left is never given up: its access would go on for nothing.
    pub fn put_off(&mut self, asked: Option<std::time::Duration>, now: Timestamp, share: f64) {
        self.tries = self.tries.saturating_add(1);
        let wait = retries::durable(self.tries.min(8), asked, share).unwrap_or_default();
        self.next_at = now.checked_add(wait).unwrap_or(now);
    }
}
