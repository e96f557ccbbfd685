//! A shop that is played through for two years with the decisions of this room: purchases and refunds come to light late
//! and in any order, calls fail or lose their answers, the process dies between any two steps. At the end the access API
//! has to have exactly what a plain reckoning of the shop's rows says.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::assessment::{Change, Rules, Sighting};
use super::configuration::Configuration;
use super::duration::DAY_SECONDS;
use super::expiry::Expiry;
use super::ids::{PersonId, TransactionId};
use super::ledger::Ledger;
use super::plan::{Action, Claim, Mode, Outcome, decide};
use super::progress::{Event, Progress};
use super::remote::Wire;
use super::retries::Answer;
use super::retries::{CallKind, Verdict, judge};
use super::transactions::RowReader;

/// When the shop opens.
const OPENS: i64 = 1_767_225_600;

/// How long it is open, in days.
const DAYS: i64 = 730;

/// Days from one run to the next.
const STEP: i64 = 3;

/// A purchase of 30 days.
#[derive(Debug, Clone)]
struct Purchase {
    bought_at: i64,
    /// How many seconds later the shop shows it as paid.
    pending_for: i64,
    /// When it is paid back.
    refunded_at: Option<i64>,
}

/// What goes wrong around one call.
#[derive(Debug, Clone, Copy)]
enum Mishap {
    None,
    /// The process dies before the call.
    DiesBefore,
    /// The process dies after the call.
    DiesAfter,
    /// The call is made and its answer lost.
    AnswerLost,
    /// The call is lost.
    CallLost,
    /// The service says that it cannot.
    Unavailable,
}

/// What is stored, and what the access API has.
struct World {
    configuration: Configuration,
    ledger: Ledger,
    progress: BTreeMap<TransactionId, Progress>,
    told: Option<Expiry>,
    /// What a call that is under way was going to tell.
    intent: Option<Expiry>,
    remote: Option<Expiry>,
    calls: u32,
}

/// The process died.
struct Died;

impl World {
    fn new(format: &str) -> Self {
        let document = json!({
            "wordpress": {"base_url": "https://shop.example.com", "api_key": "k"},
            "tradingview": {"base_url": "https://access.example.com", "api_key": "k", "expiry_format": format},
            "products": {"100": {"script_id": "S1", "duration_days": 30}}
        });
        Self {
            configuration: Configuration::parse(&document.to_string(), None).unwrap(),
            ledger: Ledger::default(),
            progress: BTreeMap::new(),
            told: None,
            intent: None,
            remote: None,
            calls: 0,
        }
    }

    fn wire(&self) -> Wire {
        Wire::of(&self.configuration.access_api)
    }

    /// One run of the sync over all rows.
    fn run(&mut self, rows: &[Value], now: Timestamp, mishap: Mishap) -> Result<(), Died> {
        self.read(rows, now);
        // An operator approves whatever waits.
        for transaction in self.ledger.entries.clone().keys() {
            self.ledger.approve(transaction);
        }
        let due = self.progress.values().any(|progress| progress.is_due(now));
        if due || self.ledger.is_being_reversed() {
            self.apply(now, mishap)?;
        }
        Ok(())
    }

    fn read(&mut self, rows: &[Value], now: Timestamp) {
        let reader = RowReader::new(&self.configuration.shop, now);
        let rules = Rules::new(&self.configuration, now, true);
        let approved = BTreeSet::new();
        for raw in rows {
            let row = reader.read(raw, 1).unwrap();
            let sighting = Sighting {
                row: &row,
                approved: &approved,
                blocked: false,
                same_payment: None,
            };
            for change in rules.absorb(&mut self.ledger, &sighting) {
                let known = self.progress.remove(&row.transaction);
                if change == Change::Nothing && known.is_none() {
                    continue;
                }
                let progress = known
                    .unwrap_or_default()
                    .after(&Event::Assessed(change), now, 0.5);
                self.progress.insert(row.transaction.clone(), progress);
            }
        }
    }

    fn apply(&mut self, now: Timestamp, mishap: Mishap) -> Result<(), Died> {
        if self.progress.values().any(Progress::has_to_read_back) {
            // The list is read before anything is decided; what is decided then is what is still missing.
            self.note(&Event::ReadBack(false), now);
            self.told = self.told.max(self.intent);
        }
        let claim = Claim {
            person: PersonId(42),
            expiry: self.ledger.reckon().expiry,
            told: self.told.max(self.intent),
            found: None,
            changed: true,
            reversing: self.ledger.is_being_reversed(),
        };
        let decision = decide(&[claim], self.remote, self.wire(), Mode::Sync, now).unwrap();
        assert!(
            !matches!(decision.outcome, Outcome::HandExtended(_)),
            "nobody did anything by hand: {decision:?}"
        );
        self.intent = decision.action.target();
        let until = now;
        self.note(
            &Event::Begun {
                action: decision.action,
                outcome: decision.outcome,
                until,
            },
            now,
        );
        if decision.action == Action::None {
            self.settle(None);
            return Ok(());
        }
        if matches!(mishap, Mishap::DiesBefore) {
            return Err(Died);
        }
        self.calls += 1;
        let answer = match mishap {
            Mishap::CallLost | Mishap::AnswerLost => Answer::NoAnswer,
            Mishap::Unavailable => Answer::Status {
                status: 503,
                login_required: false,
            },
            _ => Answer::Status {
                status: 200,
                login_required: false,
            },
        };
        if !matches!(mishap, Mishap::CallLost | Mishap::Unavailable) {
            self.remote = decision.action.target().map(|to| self.wire().effective(to));
        }
        if matches!(mishap, Mishap::DiesAfter) {
            return Err(Died);
        }
        let verdict = judge(CallKind::Write, answer);
        self.note(&Event::Ended(verdict, None), now);
        if verdict == Verdict::Done {
            self.settle(Some(decision.action));
        }
        Ok(())
    }

    /// Tells everything that is due, and that is under way, what happened.
    fn note(&mut self, event: &Event, now: Timestamp) {
        for progress in self.progress.values_mut() {
            let concerned = match event {
                Event::Begun { .. } => progress.is_due(now),
                _ => progress.has_to_read_back(),
            };
            if concerned {
                *progress = progress.clone().after(event, now, 0.5);
                // Nobody has the time to wait for a try here.
                if matches!(event, Event::ReadBack(_)) {
                    *progress = Progress::new();
                }
            }
        }
    }

    fn settle(&mut self, action: Option<Action>) {
        if let Some(action) = action {
            self.told = action.target();
        }
        self.intent = None;
        self.ledger.settle_reversals();
    }
}

/// The shop's rows as they are at `now`.
fn rows(purchases: &[Purchase], now: i64) -> Vec<Value> {
    let shown = purchases
        .iter()
        .zip(1..)
        .filter(|(purchase, _)| purchase.bought_at <= now);
    shown
        .map(|(purchase, id)| {
            let status = match purchase.refunded_at {
                Some(refunded_at) if refunded_at <= now => "refunded",
                _ if purchase.bought_at + purchase.pending_for > now => "pending",
                _ => "complete",
            };
            json!({
                "transaction_id": id, "user_id": 42, "user_email": "ada@example.com", "user_login": "ada",
                "total": id, "status": status, "product_id": 100, "gateway": "stripe",
                "created_at": purchase.bought_at, "expires_at": null
            })
        })
        .collect()
}

/// The end of access by the longest chain of purchases that were paid by `now` and not paid back.
fn plain_reckoning(purchases: &[Purchase], now: i64) -> Expiry {
    let paid = |purchase: &&Purchase| {
        purchase.bought_at + purchase.pending_for <= now && purchase.refunded_at.is_none_or(|back| back > now)
    };
    let kept: Vec<i64> = purchases
        .iter()
        .filter(paid)
        .map(|purchase| purchase.bought_at)
        .collect();
    let chains = kept.iter().map(|first| {
        let after = kept.iter().filter(|bought_at| *bought_at >= first).count();
        first + i64::try_from(after).unwrap() * 30 * DAY_SECONDS
    });
    chains.max().map_or(Expiry::NoAccess, |second| {
        Expiry::At(Timestamp::from_second(second).unwrap())
    })
}

fn purchase() -> impl Strategy<Value = Purchase> {
    (
        0..DAYS * DAY_SECONDS,
        prop_oneof![3 => Just(0), 1 => 0..5 * DAY_SECONDS],
        proptest::option::weighted(0.3, 0..40 * DAY_SECONDS),
    )
        .prop_map(|(offset, pending_for, refund)| Purchase {
            bought_at: OPENS + offset,
            pending_for,
            refunded_at: refund.map(|later| OPENS + offset + pending_for + later),
        })
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        3 => Just(Mishap::None),
        1 => Just(Mishap::DiesBefore),
        1 => Just(Mishap::DiesAfter),
        1 => Just(Mishap::AnswerLost),
        1 => Just(Mishap::CallLost),
        1 => Just(Mishap::Unavailable),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_goes_wrong_access_ends_when_the_rows_say(
        purchases in proptest::collection::vec(purchase(), 1..20),
        mishaps in proptest::collection::vec(mishap(), 1..60),
        format in proptest::sample::select(vec!["date", "datetime"]),
    ) {
        let mut world = World::new(format);
        let mut mishaps = mishaps.into_iter().cycle();
        for step in 0..DAYS / STEP {
            let now = OPENS + step * STEP * DAY_SECONDS;
            let at = Timestamp::from_second(now).unwrap();
            let mishap = mishaps.next().unwrap();
            // Whoever dies is started again at the next run, with what was stored.
            let died = world.run(&rows(&purchases, now), at, mishap).is_err();
            let expected = plain_reckoning(&purchases, now);
            if !died && matches!(mishap, Mishap::None) && expected.is_live(at) {
                prop_assert_eq!(world.remote, Some(world.wire().effective(expected)), "on day {}", step * STEP);
            }
        }
        let end = OPENS + (DAYS + 60) * DAY_SECONDS;
        for _ in 0..2 {
            let rows = rows(&purchases, end);
            prop_assert!(world.run(&rows, Timestamp::from_second(end).unwrap(), Mishap::None).is_ok());
        }
        let now = Timestamp::from_second(end).unwrap();
        let expected = plain_reckoning(&purchases, end);
        prop_assert_eq!(world.ledger.reckon().expiry, expected);
        if expected.is_live(now) {
            prop_assert_eq!(world.remote, Some(world.wire().effective(expected)));
        } else {
            prop_assert!(world.remote.is_none_or(|remote| !remote.is_live(now)
                || remote <= world.wire().effective(expected)));
        }
        // Nothing changes any more, and nothing is called.
        let calls = world.calls;
        prop_assert!(world.run(&rows(&purchases, end), now, Mishap::None).is_ok());
        prop_assert_eq!(world.calls, calls);
    }
}
