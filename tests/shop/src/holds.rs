//! What delays are worth, reckoned from what can be seen from outside: which run was shown a row, and when the access
//! API carried out the write that a row asks for.
//!
//! A delay is credited from the first run that read a row and could not settle it until the row is settled, for each
//! script by itself, as far as access was not live. All of it is reckoned by the times that runs say they began at. A run
//! that was killed says nothing: only the sync knows whether it came as far as to this row, and in which of its seconds.
//! Its moments are taken from the record that the sync keeps of every delay that it gives back (`record.rs`), as far as
//! they lie within the runs that were seen, and what they come to is reckoned here again. So each credit is known to the
//! second.
//!
//! Of rows that wait at the same time the one that waited longest is given the time, of those that waited equally long
//! the newest: nobody lost the same hour twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::reckoning::{self, Baseline, DAY, End, Products, Row, Second};
use crate::record::{Adopted, Cause, Recorded};

/// A moment in Unix milliseconds.
pub type Ms = i64;

/// Most that an unknown name counts.
pub const LONGEST_FOR_A_NAME: Second = 7 * DAY;

/// Which of the shop's rows a run was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Nothing,
    /// Those created then or later.
    Since(Second),
    All,
}

impl Shown {
    fn covers(self, created: Second) -> bool {
        match self {
            Self::Nothing => false,
            Self::Since(since) => created >= since,
            Self::All => true,
        }
    }
}

/// A write that the access API carried out.
#[derive(Debug, Clone)]
pub struct Write {
    pub at: Ms,
    pub script: String,
    /// In small letters.
    pub name: String,
    /// [`End::None`] where access was taken.
    pub end: End,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It did all that could be done.
    Whole,
    /// It said that it left something for the next one.
    Unfinished,
    /// It was killed: what it did it may not know.
    Killed,
}

/// One run of the sync, as it was seen.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its time: the earliest and the latest that it can be, which is one moment where it said so.
    pub begin: Ms,
    pub end: Ms,
    pub ending: Ending,
    pub shown: Shown,
    pub writes: Vec<Write>,
    /// The names, in small letters, that the access API said are nobody's.
    pub unknown: Vec<String>,
}

/// A row that a run read and did not settle.
#[derive(Debug, Clone)]
struct Held {
    /// The row's time.
    created: Second,
    /// The time of the first run that read it.
    first: (Ms, Ms),
    /// Whether that run surely read it.
    surely: bool,
    /// For each run since, its time, and whether the name was what held the row up; a run that was killed may not have
    /// learnt that the name is another.
    runs: Vec<(Ms, Ms, Option<bool>)>,
    /// Since when it may be settled: the run that may have done it did not get to its end.
    settling: Option<Ms>,
}

/// The delay of rows of one customer and script that were settled together.
#[derive(Debug, Clone)]
struct Delay {
    /// They, with the moments between which each began to wait.
    rows: BTreeMap<u64, Held>,
    /// The time of the run that settled them.
    settled: (Ms, Ms),
    /// When each of the customer's names had access until when.
    times: Vec<Vec<(Ms, End)>>,
    /// Whether somebody else has the name as well, whose purchases may have settled these rows.
    shares: bool,
}

/// What is known of one customer.
#[derive(Debug, Default)]
struct Customer {
    /// As the sync last read them.
    rows: Vec<Row>,
    /// Every name that the customer had, in small letters.
    names: BTreeSet<String>,
    /// As the sync last read it.
    name: String,
    /// Whether somebody else has the same name.
    shares: bool,
    held: BTreeMap<(u64, &'static str), Held>,
    /// What delays are worth that are over and done with.
    credits: BTreeMap<(u64, &'static str), Second>,
    /// Delays that are over, and that the record was not asked about yet.
    delays: Vec<(&'static str, Delay)>,
}

/// All that the reckoning of delays knows.
pub struct Holds {
    products: Products,
    /// A run later than this after a row was late, in milliseconds.
    late: Ms,
    customers: BTreeMap<u32, Customer>,
    baselines: BTreeMap<(u32, &'static str), Baseline>,
    /// Rows that the shop has and the sync was not shown as they are, by customer.
    unread: BTreeMap<u32, Vec<Row>>,
    /// Names that the shop has and the sync was not shown, by customer, with the time of the customer's newest row.
    unread_names: BTreeMap<u32, String>,
    newest: BTreeMap<u32, Second>,
    unknown: BTreeSet<String>,
    /// Who had access until when, from when on.
    access: BTreeMap<(String, String), Vec<(Ms, End)>>,
    /// The times of all runs, in order.
    runs: Vec<(Ms, Ms)>,
    /// Ends that somebody gave by hand and that no run has taken in yet.
    by_hand: BTreeMap<(u32, &'static str), Second>,
    /// For how long access goes on after a renewal that failed.
    grace: Second,
}

impl Holds {
    pub fn new(products: Products, interval_minutes: i64, grace: Second) -> Self {
        Self {
            products,
            late: 2 * interval_minutes * 60_000,
            customers: BTreeMap::new(),
            baselines: BTreeMap::new(),
            unread: BTreeMap::new(),
            unread_names: BTreeMap::new(),
            newest: BTreeMap::new(),
            unknown: BTreeSet::new(),
            access: BTreeMap::new(),
            runs: Vec::new(),
            by_hand: BTreeMap::new(),
            grace,
        }
    }

    /// What a customer had before the sync was set up, under the name `name`.
    pub fn had(&mut self, customer: u32, script: &'static str, name: &str, baseline: Baseline) {
        let key = (script.to_owned(), name.to_ascii_lowercase());
        self.access.insert(key, vec![(Ms::MIN, baseline.end)]);
        self.baselines.insert((customer, script), baseline);
    }

    /// The shop has a row, or has it anew.
    pub fn sold(&mut self, customer: u32, row: &Row) {
        let newest = self.newest.entry(customer).or_insert(row.created);
        *newest = row.created.max(*newest);
        let unread = self.unread.entry(customer).or_default();
        unread.retain(|other| other.id != row.id);
        unread.push(row.clone());
    }

    /// The shop has a name for a customer.
    pub fn named(&mut self, customer: u32, name: &str) {
        let name = name.to_ascii_lowercase();
        let known = self.customers.entry(customer).or_default();
        known.names.insert(name.clone());
        self.unread_names.insert(customer, name);
    }

    /// Somebody else has the customer's name as well: what the other bought keeps the access of both alive.
    pub fn shares(&mut self, customer: u32) {
        self.customers.entry(customer).or_default().shares = true;
    }

    /// How many rows were read and are not settled.
    pub fn waiting(&self) -> usize {
        self.customers.values().map(|customer| customer.held.len()).sum()
    }

    /// Whether the sync knows all of a customer and has done what it asks for.
    pub fn is_settled(&self, customer: u32) -> bool {
        !self.unread.contains_key(&customer)
            && !self.unread_names.contains_key(&customer)
            && self
                .customers
                .get(&customer)
                .is_none_or(|known| known.held.is_empty())
    }

    /// Whether the access API ever said that a name is nobody's.
    pub fn was_unknown(&self, name: &str) -> bool {
        self.unknown.contains(name)
    }

    /// A customer's rows that were read and are not settled.
    pub fn held(&self, customer: u32) -> Vec<(u64, &'static str)> {
        self.customers
            .get(&customer)
            .map(|known| known.held.keys().copied().collect())
            .unwrap_or_default()
    }

    /// What a customer's delays are worth.
    pub fn credits(&self, customer: u32) -> BTreeMap<(u64, &'static str), Second> {
        self.customers
            .get(&customer)
            .map(|known| known.credits.clone())
            .unwrap_or_default()
    }

    /// When a customer's access to a script ends, with the rows as `rows`.
    pub fn end(&self, customer: u32, rows: &[Row], script: &'static str) -> End {
        let credits = self.customers.get(&customer).map(|known| &known.credits);
        let baseline = self.baselines.get(&(customer, script));
        let end = reckoning::fold(rows, script, &self.products, baseline, &|row| {
            credits
                .and_then(|credits| credits.get(&(row, script)))
                .copied()
                .unwrap_or(0)
        });
        reckoning::with_grace(end, rows, script, &self.products, self.grace)
            .max(self.given_by_hand(customer, script))
    }

    /// The end that somebody gave by hand and that no run has taken in yet.
    pub fn given_by_hand(&self, customer: u32, script: &'static str) -> End {
        let given = self.by_hand.get(&(customer, script)).copied();
        given.map_or(End::None, End::At)
    }

    /// Somebody prolonged a customer's access by hand, at a moment in milliseconds.
    pub fn prolonged(&mut self, customer: u32, script: &'static str, name: &str, end: Second, at: Ms) {
        let key = (script.to_owned(), name.to_ascii_lowercase());
        self.access.entry(key).or_default().push((at, End::At(end)));
        self.by_hand.insert((customer, script), end);
    }

    /// The customers whose access was prolonged by hand and of whom a run has something to do now, as it may adopt what
    /// was given.
    pub fn adoptable(&self, run: &Run) -> Vec<u32> {
        let stirs = |number: &u32| {
            let holds = self
                .customers
                .get(number)
                .is_some_and(|known| !known.held.is_empty());
            let unread = self.unread.get(number).into_iter().flatten();
            holds || unread.into_iter().any(|row| run.shown.covers(row.created))
        };
        let mut customers: Vec<u32> = self.by_hand.keys().map(|(number, _)| *number).collect();
        customers.dedup();
        customers.retain(stirs);
        customers
    }

    /// Takes in what a run has on record as given by hand. What was bought before is contained in it, but for what the
    /// run knew and had not granted. Returns what of it cannot be right.
    pub fn adopted(&mut self, number: u32, record: &[Adopted], run: &Run) -> Vec<String> {
        let mut faults = Vec::new();
        let by_hand = self.by_hand.clone();
        for (key, end) in by_hand.into_iter().filter(|((of, _), _)| *of == number) {
            let (_, script) = key;
            let known = self.baselines.get(&key).map_or(0, |baseline| baseline.taken);
            let Some(adopted) = (record.iter().rev()).find(|adopted| adopted.script == script) else {
                continue;
            };
            if adopted.at <= known || adopted.at * 1000 < run.begin {
                continue;
            }
            self.by_hand.remove(&key);
            let customer = self.customers.get(&number);
            let reckoned = self.end(
                number,
                customer.map_or(&[], |known| known.rows.as_slice()),
                script,
            );
            if adopted.end != end || adopted.at * 1000 > run.end || reckoned >= End::At(end) {
                faults.push(format!(
                    "customer {number} was given {script} by hand until {end} instead of {reckoned:?}, and it is on \
                     record as {adopted:?}"
                ));
            }
            let held = customer.into_iter().flat_map(|known| known.held.keys());
            let unread = self.unread.get(&number).into_iter().flatten();
            let except = (held.filter(|(_, on)| *on == script).map(|(row, _)| *row))
                .chain(
                    unread
                        .filter(|row| run.shown.covers(row.created))
                        .map(|row| row.id),
                )
                .collect();
            let baseline = Baseline {
                end: End::At(end),
                taken: adopted.at,
                except,
            };
            self.baselines.insert(key, baseline);
        }
        faults
    }

    /// Takes in what a run did.
    pub fn observe(&mut self, run: &Run) {
        self.runs.push((run.begin, run.end));
        self.unknown.extend(run.unknown.iter().cloned());
        self.read_names(run);
        let touched = self.read_rows(run);
        let waiting: Vec<u32> = self
            .customers
            .iter()
            .filter(|(number, known)| !known.held.is_empty() || touched.contains(number))
            .map(|(number, _)| *number)
            .collect();
        for number in waiting {
            self.settle(number, run);
        }
        for write in &run.writes {
            // What is more than was given by hand contains it.
            let customers = &self.customers;
            self.by_hand.retain(|(number, script), end| {
                let known = customers.get(number);
                let own = known.is_some_and(|known| known.names.contains(&write.name));
                !(own && *script == write.script && write.end >= End::At(*end))
            });
            let key = (write.script.clone(), write.name.clone());
            self.access.entry(key).or_default().push((write.at, write.end));
        }
    }

    fn read_names(&mut self, run: &Run) {
        let newest = &self.newest;
        let (read, unread) = std::mem::take(&mut self.unread_names)
            .into_iter()
            .partition(|(number, _)| {
                newest
                    .get(number)
                    .is_some_and(|created| run.shown.covers(*created))
            });
        self.unread_names = unread;
        let read: BTreeMap<u32, String> = read;
        for (number, name) in read {
            self.customers.entry(number).or_default().name = name;
        }
    }

    /// Takes in the rows that a run was shown, and holds those that ask for something. Returns whose they are.
    fn read_rows(&mut self, run: &Run) -> BTreeSet<u32> {
        let mut touched = BTreeSet::new();
        let mut unread = BTreeMap::new();
        for (number, rows) in std::mem::take(&mut self.unread) {
            let (shown, hidden): (Vec<Row>, Vec<Row>) =
                rows.into_iter().partition(|row| run.shown.covers(row.created));
            if !hidden.is_empty() {
                unread.insert(number, hidden);
            }
            if shown.is_empty() {
                continue;
            }
            touched.insert(number);
            let known = self.customers.entry(number).or_default();
            let mut new = Vec::new();
            for row in shown {
                let before = known.rows.iter().position(|other| other.id == row.id);
                let gave = before.is_some_and(|index| reckoning::is_eligible(&known.rows[index]));
                if reckoning::is_eligible(&row) {
                    if !gave {
                        new.push(row.id);
                    }
                } else {
                    known.held.retain(|(held, _), _| *held != row.id);
                    known.credits.retain(|(credited, _), _| *credited != row.id);
                }
                match before {
                    Some(index) => known.rows[index] = row,
                    None => known.rows.push(row),
                }
            }
            for id in new {
                let row = known
                    .rows
                    .iter()
                    .find(|row| row.id == id)
                    .expect("it was put there");
                let Some(product) = self.products.get(&row.product) else {
                    continue;
                };
                for script in &product.scripts {
                    let held = Held {
                        created: row.created,
                        first: (run.begin, run.end),
                        surely: run.ending == Ending::Whole,
                        runs: Vec::new(),
                        settling: None,
                    };
                    known.held.insert((id, script), held);
                }
            }
        }
        self.unread = unread;
        touched
    }

    /// Looks which of a customer's rows a run settled.
    fn settle(&mut self, number: u32, run: &Run) {
        let Some(known) = self.customers.get_mut(&number) else {
            return;
        };
        let by_name = self.unknown.contains(&known.name);
        let order: BTreeMap<u64, Second> = known.rows.iter().map(|row| (row.id, row.created)).collect();
        let mut waiting: Vec<(u64, &'static str)> = known.held.keys().copied().collect();
        waiting.sort_by_key(|(row, _)| (order.get(row).copied(), *row));
        let mut delays: BTreeMap<&'static str, Delay> = BTreeMap::new();
        for (row, script) in waiting {
            let baseline = self.baselines.get(&(number, script));
            let credits = &known.credits;
            let ends = reckoning::after_each(&known.rows, script, &self.products, baseline, &|row| {
                credits.get(&(row, script)).copied().unwrap_or(0)
            });
            let at = ends.iter().position(|(id, _)| *id == row);
            let before = match at {
                Some(0) | None => baseline.map_or(End::None, |baseline| baseline.end),
                Some(at) => ends[at - 1].1,
            };
            let target = at.map(|at| ends[at].1).filter(|target| *target > before);
            let Some(target) = target else {
                // It adds nothing, so nothing has to be done for it.
                known.held.remove(&(row, script));
                continue;
            };
            let names = &known.names;
            // An end that was given by hand settles nothing: a run has to take it in first, or to go beyond it.
            let by_hand = self.by_hand.get(&(number, script)).copied().map(End::At);
            let done = run.writes.iter().any(|write| {
                let own = write.script == script && names.contains(&write.name);
                own && write.end >= target && by_hand.is_none_or(|given| write.end >= given)
            });
            let had = by_hand.is_none()
                && names
                    .iter()
                    .filter_map(|name| self.access.get(&(script.to_owned(), name.clone())))
                    .filter_map(|times| times.last())
                    .any(|(_, end)| *end >= target);
            let Some(held) = known.held.get_mut(&(row, script)) else {
                continue;
            };
            let since = held.settling.or_else(|| (done || had).then_some(run.begin));
            let last = held.runs.last().and_then(|(.., name)| *name);
            let surely = run.ending != Ending::Killed || last == Some(by_name);
            let by_name = surely.then_some(by_name);
            let Some(since) = since else {
                held.runs.push((run.begin, run.end, by_name));
                continue;
            };
            if run.ending == Ending::Killed {
                held.settling = Some(since);
                held.runs.push((run.begin, run.end, by_name));
                continue;
            }
            let held = known.held.remove(&(row, script)).expect("it was there");
            if held.runs.is_empty() {
                continue;
            }
            let delay = delays.entry(script).or_insert_with(|| Delay {
                rows: BTreeMap::new(),
                settled: (since, run.end),
                times: (names.iter())
                    .filter_map(|name| self.access.get(&(script.to_owned(), name.clone())))
                    .cloned()
                    .collect(),
                shares: known.shares,
            });
            delay.settled.0 = delay.settled.0.min(since);
            delay.rows.insert(row, held);
        }
        known.delays.extend(delays);
    }

    /// The customers with delays that the record has to be asked about.
    pub fn unrecorded(&self) -> Vec<u32> {
        let unrecorded = self
            .customers
            .iter()
            .filter(|(_, known)| !known.delays.is_empty());
        unrecorded.map(|(number, _)| *number).collect()
    }

    /// Takes what the sync has put on record of a customer's delays, the newest last. Returns what of it cannot be right.
    pub fn recorded(&mut self, number: u32, record: &[Recorded]) -> Vec<String> {
        let Some(known) = self.customers.get_mut(&number) else {
            return Vec::new();
        };
        let mut faults = Vec::new();
        for (script, delay) in std::mem::take(&mut known.delays) {
            let given = (record.iter().rev())
                .filter(|recorded| recorded.script == script)
                .filter(|recorded| delay.rows.contains_key(&recorded.row));
            // Of what is on record about a row only the last counts.
            let mut last: BTreeMap<u64, &Recorded> = BTreeMap::new();
            for recorded in given {
                last.entry(recorded.row).or_insert(recorded);
            }
            last.retain(|_, recorded| recorded.seconds > 0);
            for recorded in last.values() {
                known.credits.insert((recorded.row, script), recorded.seconds);
            }
            let last: Vec<&Recorded> = last.into_values().collect();
            if let Err(wrong) = delay.check(&last, self.late, &self.runs) {
                faults.push(format!(
                    "a delay of customer {number} on {script}: {wrong}\n  {last:?}\n  {delay:?}"
                ));
            }
        }
        faults
    }

    /// What is on record as given back to a customer though no delay explains it.
    pub fn unexplained(&self, number: u32, record: &[Recorded]) -> Vec<Recorded> {
        let mut last: BTreeMap<(u64, &str), &Recorded> = BTreeMap::new();
        for recorded in record {
            last.insert((recorded.row, &recorded.script), recorded);
        }
        let known = self.customers.get(&number);
        last.retain(|(row, script), recorded| {
            let counts = known.is_some_and(|known| {
                known
                    .rows
                    .iter()
                    .any(|own| own.id == *row && reckoning::is_eligible(own))
            });
            let explained = known
                .is_some_and(|known| (known.credits.iter()).any(|((own, on), _)| own == row && on == script));
            recorded.seconds > 0 && counts && !explained
        });
        last.into_values().cloned().collect()
    }
}

impl Delay {
    /// Whether what is on record of this delay can be right; `runs` are the times of all runs.
    fn check(&self, record: &[&Recorded], late: Ms, runs: &[(Ms, Ms)]) -> Result<(), String> {
        let (longest, low, high) = self.bounds(late);
        let recorded = match record {
            [] if low > 0 => return Err(format!("worth {low} to {high} s, and nothing was given back")),
            [] => return Ok(()),
            [recorded] => *recorded,
            _ => return Err("the same time was given back more than once".to_owned()),
        };
        if !longest.contains(&recorded.row) {
            return Err(format!(
                "row {} did not wait longest; {longest:?} did",
                recorded.row
            ));
        }
        if !(low..=high).contains(&recorded.seconds) {
            return Err(format!(
                "worth {low} to {high} s, and {} s were given back",
                recorded.seconds
            ));
        }
        let created = self.rows.get(&recorded.row).map(|held| held.created);
        let is_of_a_run = |moment: Second| {
            let moment = moment * 1000;
            let next = runs.partition_point(|(_, end)| *end < moment);
            runs.get(next).is_some_and(|(begin, _)| *begin <= moment)
        };
        let mut moments = recorded.waited.iter().map(|(from, _)| *from);
        let first = moments.next();
        if first.is_none_or(|first| Some(first) != created && !is_of_a_run(first)) {
            return Err("it begins at a moment at which nothing was seen".to_owned());
        }
        if moments.chain([recorded.until]).any(|moment| !is_of_a_run(moment)) {
            return Err("a moment of it is of no run".to_owned());
        }
        if !(self.settled.0 / 1000..=self.settled.1 / 1000).contains(&recorded.until) {
            return Err("it ends at another moment than the row was settled at".to_owned());
        }
        let worth = self.worth_of(recorded);
        // Access begins within a second.
        if !(worth / 1000..=(worth + 999) / 1000).contains(&recorded.seconds) {
            return Err(format!(
                "its moments come to {worth} ms, and {} s were given back",
                recorded.seconds
            ));
        }
        Ok(())
    }

    /// What the moments on record come to, in milliseconds.
    fn worth_of(&self, recorded: &Recorded) -> Ms {
        let ends = recorded.waited.iter().skip(1).map(|(from, _)| *from);
        let (mut by_name, mut ours) = (0, 0);
        for ((from, cause), until) in recorded.waited.iter().zip(ends.chain([recorded.until])) {
            let dark = self.dark(from * 1000, until * 1000);
            match cause {
                Cause::Ours => ours += dark,
                Cause::Name => by_name += dark,
            }
        }
        ours + by_name.min(LONGEST_FOR_A_NAME * 1000)
    }

    /// How long there was no access between two moments.
    fn dark(&self, from: Ms, until: Ms) -> Ms {
        let times: Vec<&[(Ms, End)]> = self.times.iter().map(Vec::as_slice).collect();
        dark(&times, from, until)
            .iter()
            .map(|(from, until)| until - from)
            .sum()
    }

    /// The rows that may have waited longest, and the least and the most that their delay may be worth, in seconds.
    fn bounds(&self, late: Ms) -> (Vec<u64>, Second, Second) {
        let begins: BTreeMap<u64, Vec<Ms>> = (self.rows.iter())
            .map(|(row, held)| (*row, held.begins(self.settled.1, late)))
            .collect();
        let latest = |begins: &Vec<Ms>| begins.iter().max().copied();
        let longest = begins.values().filter_map(latest).min().unwrap_or_default();
        let mut candidates: Vec<u64> = (begins.iter())
            .filter(|(_, begins)| begins.iter().any(|begin| *begin <= longest))
            .map(|(row, _)| *row)
            .collect();
        let sure = |row: &u64| begins[row].iter().all(|begin| *begin == longest);
        if candidates.iter().all(sure) {
            // They waited equally long.
            candidates = candidates.into_iter().max().into_iter().collect();
        }
        let mut worths = Vec::new();
        for row in &candidates {
            for begin in &begins[row] {
                worths.extend(
                    self.rows[row].worths(*begin, self.settled, &|from, until| self.dark(from, until)),
                );
            }
        }
        let least = if self.shares {
            0
        } else {
            worths.iter().copied().min().unwrap_or(0)
        };
        let most = worths.iter().copied().max().unwrap_or(0);
        (candidates, least / 1000, (most + 999) / 1000)
    }
}

impl Held {
    /// When it may have begun to wait, where it was settled by `settled` at the latest.
    fn begins(&self, settled: Ms, late: Ms) -> Vec<Ms> {
        let created = self.created * 1000;
        let begin = |read: Ms| if read - created > late { created } else { read };
        let mut begins = vec![begin(self.first.0), begin(self.first.1)];
        if !self.surely {
            // The run may not have got as far as to this row; then the next one read it first, and may have settled it.
            begins.push(settled);
            begins.extend(self.runs.get(1).map(|(read, ..)| begin(*read)));
        }
        begins.sort_unstable();
        begins.dedup();
        begins
    }

    /// What the delay may be worth in milliseconds where it began at `begin` and ended within `settled`. `dark` tells the
    /// milliseconds without access between two moments.
    fn worths(&self, begin: Ms, settled: (Ms, Ms), dark: &dyn Fn(Ms, Ms) -> Ms) -> Vec<Ms> {
        let mut worths = Vec::new();
        for end in [settled.0, settled.1] {
            for at_begin in [true, false] {
                for doubtful_by_name in [true, false] {
                    let (mut by_name, mut ours) = (0, 0);
                    let mut from = begin;
                    for (index, (_, _, name)) in self.runs.iter().enumerate() {
                        let next = self.runs.get(index + 1);
                        let until = next.map_or(end, |next| if at_begin { next.0 } else { next.1 });
                        let until = until.min(end);
                        if until <= from {
                            continue;
                        }
                        // What passed before the first run could find the name unknown was no fault of the name.
                        let found = if index == 0 {
                            self.first.0.clamp(from, until)
                        } else {
                            from
                        };
                        ours += dark(from, found);
                        let after = dark(found, until);
                        if name.unwrap_or(doubtful_by_name) {
                            by_name += after;
                        } else {
                            ours += after;
                        }
                        from = until;
                    }
                    worths.push(by_name.min(LONGEST_FOR_A_NAME * 1000) + ours);
                }
            }
        }
        worths
    }
}

/// The times between two moments in which none of the names had access.
fn dark(times: &[&[(Ms, End)]], from: Ms, to: Ms) -> Vec<(Ms, Ms)> {
    let mut dark = vec![(from, to)];
    for times in times {
        for (index, (since, end)) in times.iter().enumerate() {
            let until = times.get(index + 1).map_or(Ms::MAX, |(next, _)| *next);
            let until = match end {
                End::None => continue,
                End::At(end) => until.min(end * 1000),
                End::Never => until,
            };
            dark = cut(&dark, (*since, until));
        }
    }
    dark
}

/// What is left of some times without one of them.
fn cut(times: &[(Ms, Ms)], (from, to): (Ms, Ms)) -> Vec<(Ms, Ms)> {
    times
        .iter()
        .flat_map(|(begin, end)| [(*begin, (*end).min(from)), ((*begin).max(to), *end)])
        .filter(|(begin, end)| begin < end)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reckoning::{Expires, Gateway, Kind, Plan, Product, Status, Unit};

    const START: Second = 1_925_000_000;
    const HOUR: Second = 3600;

    fn products() -> Products {
        let product = Product {
            scripts: vec!["S"],
            plan: Plan::Of(30, Unit::Day),
            stacking: true,
        };
        Products::from([(30, product)])
    }

    fn row(id: u64, created: Second) -> Row {
        Row {
            id,
            product: 30,
            subscription: 0,
            kind: Kind::Payment,
            status: Status::Complete,
            created,
            expires: Expires::Unsaid,
            cents: 4900,
            gateway: Gateway::Stripe,
            number: format!("ch_{id}"),
            cut: None,
            orphaned: false,
        }
    }

    /// Customer 1, named `ada`, with these rows, where two intervals are a day.
    fn holds(rows: &[Row]) -> Holds {
        let mut holds = Holds::new(products(), 720, 0);
        for row in rows {
            holds.sold(1, row);
        }
        holds.named(1, "Ada");
        holds
    }

    /// A run that is shown everything.
    fn run(at: Second) -> Run {
        Run {
            begin: at * 1000,
            end: at * 1000,
            ending: Ending::Whole,
            shown: Shown::All,
            writes: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// A run of two seconds that was killed.
    fn killed(at: Second) -> Run {
        Run {
            end: at * 1000 + 2000,
            ending: Ending::Killed,
            ..run(at)
        }
    }

    fn granting(at: Second, end: Second) -> Run {
        let write = Write {
            at: at * 1000 + 500,
            script: "S".into(),
            name: "ada".into(),
            end: End::At(end),
        };
        Run {
            writes: vec![write],
            ..run(at)
        }
    }

    /// What is on record of a delay.
    fn recorded(row: u64, seconds: Second, waited: &[(Second, Cause)], until: Second) -> Recorded {
        Recorded {
            row,
            script: "S".into(),
            seconds,
            waited: waited.to_vec(),
            until,
        }
    }

    fn credit(holds: &Holds, row: u64) -> Option<Second> {
        holds.credits(1).get(&(row, "S")).copied()
    }

    /// Whether a record is taken for right.
    fn is_right(holds: &mut Holds, record: &[Recorded]) -> bool {
        assert_eq!(holds.unrecorded(), [1]);
        holds.recorded(1, record).is_empty()
    }

    #[test]
    fn what_its_first_run_settles_is_worth_nothing_however_late_the_run_was() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&granting(START + 5 * DAY, START + 30 * DAY));
        assert!(holds.is_settled(1) && holds.unrecorded().is_empty());
        assert_eq!(holds.end(1, &[row(1, START)], "S"), End::At(START + 30 * DAY));
    }

    #[test]
    fn our_outage_is_credited_whole_from_the_first_run_that_read_the_row() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&run(START + HOUR));
        holds.observe(&run(START + 20 * HOUR));
        assert_eq!(holds.held(1), [(1, "S")]);
        let settled = START + 11 * DAY;
        holds.observe(&granting(settled, START + 50 * DAY));
        let right = recorded(1, 11 * DAY - HOUR, &[(START + HOUR, Cause::Ours)], settled);
        assert!(is_right(&mut holds, &[right]));
        assert_eq!(credit(&holds, 1), Some(11 * DAY - HOUR));
        assert_eq!(
            holds.end(1, &[row(1, START)], "S"),
            End::At(START + 30 * DAY + 11 * DAY - HOUR)
        );
    }

    #[test]
    fn a_record_with_a_wrong_second_anywhere_is_found() {
        let (read, settled) = (START + HOUR, START + 11 * DAY);
        let right = recorded(1, settled - read, &[(read, Cause::Ours)], settled);
        for wrong in [
            recorded(1, right.seconds - 1, &right.waited, settled),
            recorded(1, right.seconds, &right.waited, settled + 1),
            recorded(1, right.seconds, &[(read + 1, Cause::Ours)], settled),
            recorded(1, right.seconds, &[(read, Cause::Name)], settled),
        ] {
            let mut holds = holds(&[row(1, START)]);
            holds.observe(&run(read));
            holds.observe(&granting(settled, START + 50 * DAY));
            assert!(!is_right(&mut holds, std::slice::from_ref(&wrong)), "{wrong:?}");
        }
    }

    #[test]
    fn nothing_given_back_is_found_where_something_was_lost() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&run(START + HOUR));
        holds.observe(&granting(START + DAY, START + 50 * DAY));
        assert!(!is_right(&mut holds, &[]));
    }

    #[test]
    fn a_run_later_than_two_intervals_was_late_from_the_purchase_on() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&run(START + 25 * HOUR));
        holds.observe(&granting(START + 48 * HOUR, START + 50 * DAY));
        let since_purchase = recorded(1, 2 * DAY, &[(START, Cause::Ours)], START + 2 * DAY);
        assert!(is_right(&mut holds, &[since_purchase]));
    }

    #[test]
    fn a_payment_that_came_late_waits_from_the_purchase_on_once_it_has_to_wait() {
        let pending = Row {
            status: Status::Pending,
            ..row(1, START)
        };
        let mut holds = holds(&[pending]);
        holds.observe(&run(START + HOUR));
        holds.sold(1, &row(1, START));
        holds.observe(&run(START + 5 * DAY));
        holds.observe(&granting(START + 6 * DAY, START + 50 * DAY));
        let since_purchase = recorded(1, 6 * DAY, &[(START, Cause::Ours)], START + 6 * DAY);
        assert!(is_right(&mut holds, &[since_purchase]));
    }

    #[test]
    fn a_name_that_nobody_has_counts_seven_days_and_our_outage_after_it_on_top() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&Run {
            unknown: vec!["ada".into()],
            ..run(START + HOUR)
        });
        holds.observe(&run(START + 3 * DAY));
        holds.named(1, "Ada2");
        holds.observe(&run(START + 10 * DAY));
        let mut last = granting(START + 12 * DAY, START + 50 * DAY);
        last.writes[0].name = "ada2".into();
        holds.observe(&last);
        let waited = [(START + HOUR, Cause::Name), (START + 10 * DAY, Cause::Ours)];
        assert!(is_right(
            &mut holds,
            &[recorded(1, 9 * DAY, &waited, START + 12 * DAY)]
        ));
    }

    #[test]
    fn while_access_was_live_nothing_is_lost() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&granting(START + HOUR, START + 30 * DAY));
        holds.sold(1, &row(2, START + 28 * DAY));
        let read = START + 28 * DAY + HOUR;
        holds.observe(&run(read));
        let settled = START + 33 * DAY;
        holds.observe(&granting(settled, START + 63 * DAY));
        assert!(is_right(
            &mut holds,
            &[recorded(2, 3 * DAY, &[(read, Cause::Ours)], settled)]
        ));
    }

    #[test]
    fn two_rows_that_wait_together_lose_their_time_once() {
        let rows = [row(1, START), row(2, START + DAY)];
        let first = START + DAY + HOUR;
        let settled = START + 4 * DAY;
        let waited = |row, from: Second| recorded(row, settled - from, &[(from, Cause::Ours)], settled);
        let both = [waited(1, START), waited(2, first)];
        for (record, right) in [(&both[..1], true), (&both[1..], false), (&both[..], false)] {
            let mut holds = holds(&rows);
            holds.observe(&run(first));
            holds.observe(&granting(settled, START + 90 * DAY));
            assert_eq!(is_right(&mut holds, record), right, "{record:?}");
        }
    }

    #[test]
    fn a_killed_run_may_have_read_the_row_or_not() {
        let settled = START + HOUR + 5;
        let since = |from: Second| vec![recorded(1, settled - from, &[(from, Cause::Ours)], settled)];
        for (record, right) in [
            (Vec::new(), true),
            (since(START + HOUR), true),
            (since(START + HOUR + 2), true),
            (since(START + HOUR + 3), false),
        ] {
            let mut holds = holds(&[row(1, START)]);
            holds.observe(&killed(START + HOUR));
            holds.observe(&granting(settled, START + 31 * DAY));
            assert_eq!(is_right(&mut holds, &record), right, "{record:?}");
        }
    }

    #[test]
    fn a_killed_run_may_have_learnt_of_the_corrected_name_or_not() {
        let settled = START + 10 * DAY + 100;
        let unlearnt = vec![(START + HOUR, Cause::Name)];
        let learnt = vec![(START + HOUR, Cause::Name), (START + 10 * DAY + 1, Cause::Ours)];
        for (waited, seconds) in [(unlearnt, 7 * DAY), (learnt, 7 * DAY + 99)] {
            let mut holds = holds(&[row(1, START)]);
            holds.observe(&Run {
                unknown: vec!["ada".into()],
                ..run(START + HOUR)
            });
            holds.named(1, "Ada2");
            holds.observe(&killed(START + 10 * DAY));
            let mut last = granting(settled, START + 50 * DAY);
            last.writes[0].name = "ada2".into();
            holds.observe(&last);
            assert!(is_right(&mut holds, &[recorded(1, seconds, &waited, settled)]));
        }
    }

    #[test]
    fn a_row_that_the_run_was_not_shown_is_not_held_yet() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&Run {
            shown: Shown::Since(START + 1),
            ..run(START + HOUR)
        });
        assert!(holds.held(1).is_empty() && !holds.is_settled(1));
    }

    #[test]
    fn a_credit_goes_with_its_row() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&run(START + HOUR));
        let settled = START + 3 * DAY;
        holds.observe(&granting(settled, START + 50 * DAY));
        let record = [recorded(
            1,
            3 * DAY - HOUR,
            &[(START + HOUR, Cause::Ours)],
            settled,
        )];
        assert!(is_right(&mut holds, &record));
        assert!(holds.unexplained(1, &record).is_empty());
        let refunded = Row {
            status: Status::Refunded,
            ..row(1, START)
        };
        holds.sold(1, &refunded);
        holds.observe(&run(START + 4 * DAY));
        assert_eq!(credit(&holds, 1), None);
    }

    #[test]
    fn what_was_given_by_hand_settles_no_purchase_until_a_run_takes_it_in() {
        let rows = [row(1, START), row(2, START + DAY)];
        let mut holds = holds(&rows[..1]);
        holds.observe(&granting(START + HOUR, START + 30 * DAY));
        let given = START + 90 * DAY;
        holds.prolonged(1, "S", "ada", given, (START + 2 * HOUR) * 1000);
        assert_eq!(holds.end(1, &rows[..1], "S"), End::At(given));
        holds.sold(1, &rows[1]);
        // The access API is away, then it is back.
        holds.observe(&run(START + 2 * DAY));
        assert_eq!(holds.held(1), [(2, "S")]);
        let found = START + 3 * DAY;
        let last = granting(found, given + 30 * DAY);
        assert_eq!(holds.adoptable(&last), [1]);
        let adopted = Adopted {
            script: "S".into(),
            end: given,
            at: found,
        };
        assert!(holds.adopted(1, &[adopted], &last).is_empty());
        holds.observe(&last);
        assert!(holds.is_settled(1));
        assert_eq!(holds.end(1, &rows, "S"), End::At(given + 30 * DAY));
    }

    #[test]
    fn what_nobody_waited_for_is_found_as_a_gift() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&granting(START + HOUR, START + 30 * DAY));
        let gift = recorded(1, 60, &[(START, Cause::Ours)], START + HOUR);
        assert_eq!(holds.unexplained(1, std::slice::from_ref(&gift)), [gift]);
    }
}
