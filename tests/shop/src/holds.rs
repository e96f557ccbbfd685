//! What delays are worth, reckoned from what can be seen from outside: which run was shown a row, and when the access
//! API carried out the write that a row asks for.
//!
//! A delay is credited from the first run that read a row and could not settle it until the row is settled, for each
//! script by itself, as far as access was not live. Where a delay begins or ends within a run, only the run can know
//! the second; the reckoning then knows the earliest and the latest, and any end between what follows from the two is
//! right. A row that its first run settles has no delay, so most rows are reckoned to the second.
//!
//! Two rows that wait at the same time are one delay, not two: nobody lost the same hour twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::reckoning::{self, Baseline, DAY, End, Products, Row, Second};

/// A moment in Unix milliseconds.
pub type Ms = i64;

/// Most that an unknown name counts.
pub const LONGEST_FOR_A_NAME: Second = 7 * DAY;

/// How near to the border of two intervals a run may be for either side of it to be right.
const BORDER: Ms = 60_000;

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
    pub begin: Ms,
    pub end: Ms,
    pub ending: Ending,
    pub shown: Shown,
    pub writes: Vec<Write>,
    /// The names, in small letters, that the access API said are nobody's.
    pub unknown: Vec<String>,
}

/// What a row's delay on a script is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credit {
    /// At least.
    pub low: Second,
    /// At most.
    pub high: Second,
}

/// A row that a run read and did not settle.
#[derive(Debug, Clone)]
struct Held {
    /// The row's time.
    created: Second,
    /// When the first run that read it began and ended.
    first: (Ms, Ms),
    /// Whether that run surely read it.
    surely: bool,
    /// For each run since, when it began and ended, and whether the name was what held the row up; a run that was killed
    /// may not have learnt that the name is another.
    runs: Vec<(Ms, Ms, Option<bool>)>,
    /// Since when it may be settled: the run that may have done it did not get to its end.
    settling: Option<Ms>,
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
    credits: BTreeMap<(u64, &'static str), Credit>,
    credited: BTreeMap<&'static str, Vec<(Ms, Ms)>>,
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
}

impl Holds {
    pub fn new(products: Products, interval_minutes: i64) -> Self {
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
        }
    }

    /// What a customer had before the sync was set up, under the name `name`.
    pub fn had(&mut self, customer: u32, script: &'static str, name: &str, baseline: Baseline) {
        self.baselines.insert((customer, script), baseline);
        let key = (script.to_owned(), name.to_ascii_lowercase());
        self.access.insert(key, vec![(Ms::MIN, baseline.end)]);
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
    pub fn credits(&self, customer: u32) -> BTreeMap<(u64, &'static str), Credit> {
        self.customers
            .get(&customer)
            .map(|known| known.credits.clone())
            .unwrap_or_default()
    }

    /// The earliest and the latest end of a customer's access to a script that is right, with the rows as `rows`.
    pub fn ends(&self, customer: u32, rows: &[Row], script: &'static str) -> (End, End) {
        let credits = self.credits(customer);
        let baseline = self.baselines.get(&(customer, script)).copied();
        let fold = |worth: &dyn Fn(Credit) -> Second| {
            reckoning::fold(rows, script, &self.products, baseline, &|row| {
                credits.get(&(row, script)).copied().map_or(0, worth)
            })
        };
        // A credit of nothing at all and one of a second are different: the second begins calendar months anew.
        let ends = [
            fold(&|credit| credit.low),
            fold(&|credit| credit.low.max(credit.high.min(1))),
            fold(&|credit| credit.high),
        ];
        let (first, rest) = (ends[0], &ends[1..]);
        (
            rest.iter().fold(first, |least, end| least.min(*end)),
            rest.iter().fold(first, |most, end| most.max(*end)),
        )
    }

    /// Takes in what a run did.
    pub fn observe(&mut self, run: &Run) {
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
        for (row, script) in waiting {
            let baseline = self.baselines.get(&(number, script)).copied();
            let credits = known.credits.clone();
            let ends = reckoning::after_each(&known.rows, script, &self.products, baseline, &|row| {
                credits.get(&(row, script)).map_or(0, |credit| credit.low)
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
            let done = run
                .writes
                .iter()
                .any(|write| write.script == script && names.contains(&write.name) && write.end >= target);
            let had = names
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
            let past = known.credited.entry(script).or_default();
            let access = |from: Ms, to: Ms| {
                let times: Vec<&[(Ms, End)]> = names
                    .iter()
                    .filter_map(|name| self.access.get(&(script.to_owned(), name.clone())))
                    .map(Vec::as_slice)
                    .collect();
                without(&dark(&times, from, to), past)
            };
            let credit = worth(&held, (since, run.end), self.late, &access);
            let credit = if known.shares {
                Credit { low: 0, ..credit }
            } else {
                credit
            };
            if credit.high > 0 {
                known.credits.insert((row, script), credit);
            }
            let from = if (held.first.0 - held.created * 1000) > self.late {
                held.created * 1000
            } else {
                held.first.0
            };
            past.push((from, run.end));
        }
    }
}

/// What a delay is worth that ended within `settled`. `dark` tells the milliseconds without access between two moments.
fn worth(held: &Held, settled: (Ms, Ms), late: Ms, dark: &dyn Fn(Ms, Ms) -> Ms) -> Credit {
    let created = held.created * 1000;
    let lateness = held.first.0 - created;
    // Where it may have begun, the earliest first.
    let mut begins = vec![held.first.0, held.first.1];
    if lateness > late + BORDER {
        begins = vec![created];
    } else if lateness > late - BORDER {
        begins.push(created);
    }
    if !held.surely {
        // The run may not have got as far as to this row; then the next one read it first, and may have settled it.
        begins.push(settled.1);
        begins.extend(held.runs.get(1).map(|(begin, ..)| *begin));
    }
    let cap = LONGEST_FOR_A_NAME * 1000;
    let mut worths = Vec::new();
    for begin in begins {
        for end in [settled.0, settled.1] {
            for at_begin in [true, false] {
                for doubtful_by_name in [true, false] {
                    let (mut by_name, mut ours) = (0, 0);
                    let mut from = begin;
                    for (index, (_, _, name)) in held.runs.iter().enumerate() {
                        let next = held.runs.get(index + 1);
                        let until = next.map_or(end, |next| if at_begin { next.0 } else { next.1 });
                        let until = until.min(end);
                        if until <= from {
                            continue;
                        }
                        // What passed before the first run found the name unknown was no fault of the name, or was.
                        let found = if index == 0 {
                            held.first.0.clamp(from, until)
                        } else {
                            from
                        };
                        let before = dark(from, found);
                        let after = dark(found, until);
                        if name.unwrap_or(doubtful_by_name) {
                            by_name += after;
                            if doubtful_by_name {
                                by_name += before
                            } else {
                                ours += before
                            }
                        } else {
                            ours += before + after;
                        }
                        from = until;
                    }
                    worths.push(by_name.min(cap) + ours);
                }
            }
        }
    }
    let least = worths.iter().copied().min().unwrap_or_default();
    let most = worths.iter().copied().max().unwrap_or_default();
    // Seconds are whole; which way they are rounded is not laid down.
    let settled = held.runs.is_empty() || most == 0;
    Credit {
        low: least / 1000,
        high: if settled { 0 } else { most / 1000 + 1 },
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

/// How long some times are in all without others.
fn without(times: &[(Ms, Ms)], others: &[(Ms, Ms)]) -> Ms {
    let left = others
        .iter()
        .fold(times.to_vec(), |left, other| cut(&left, *other));
    left.iter().map(|(begin, end)| end - begin).sum()
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
        }
    }

    /// Customer 1, named `ada`, with these rows, where two intervals are a day.
    fn holds(rows: &[Row]) -> Holds {
        let mut holds = Holds::new(products(), 720);
        for row in rows {
            holds.sold(1, row);
        }
        holds.named(1, "Ada");
        holds
    }

    /// A run of two seconds that is shown everything.
    fn run(at: Second) -> Run {
        Run {
            begin: at * 1000,
            end: at * 1000 + 2000,
            ending: Ending::Whole,
            shown: Shown::All,
            writes: Vec::new(),
            unknown: Vec::new(),
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

    fn credit(holds: &Holds, row: u64) -> Option<(Second, Second)> {
        holds
            .credits(1)
            .get(&(row, "S"))
            .map(|credit| (credit.low, credit.high))
    }

    #[test]
    fn what_its_first_run_settles_is_worth_nothing_however_late_the_run_was() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&granting(START + 5 * DAY, START + 30 * DAY));
        assert!(holds.is_settled(1));
        assert_eq!(credit(&holds, 1), None);
        assert_eq!(holds.ends(1, &[row(1, START)], "S"), {
            let end = End::At(START + 30 * DAY);
            (end, end)
        });
    }

    #[test]
    fn our_outage_is_credited_whole_from_the_first_run_that_read_the_row() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&run(START + HOUR));
        holds.observe(&run(START + 20 * HOUR));
        assert_eq!(holds.held(1), [(1, "S")]);
        holds.observe(&granting(START + 11 * DAY, START + 50 * DAY));
        let lost = 11 * DAY - HOUR;
        assert_eq!(credit(&holds, 1), Some((lost - 2, lost + 3)));
    }

    #[test]
    fn a_run_later_than_two_intervals_was_late_from_the_purchase_on() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&run(START + 25 * HOUR));
        holds.observe(&granting(START + 48 * HOUR, START + 50 * DAY));
        assert_eq!(credit(&holds, 1), Some((2 * DAY, 2 * DAY + 3)));
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
        assert_eq!(credit(&holds, 1), Some((6 * DAY, 6 * DAY + 3)));
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
        let (low, high) = credit(&holds, 1).unwrap();
        assert!(
            low <= 9 * DAY && 9 * DAY <= high && high - low < 10,
            "{low} to {high}"
        );
    }

    #[test]
    fn while_access_was_live_nothing_is_lost() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&granting(START + HOUR, START + 30 * DAY));
        holds.sold(1, &row(2, START + 28 * DAY));
        holds.observe(&run(START + 28 * DAY + HOUR));
        holds.observe(&granting(START + 33 * DAY, START + 63 * DAY));
        assert_eq!(credit(&holds, 2), Some((3 * DAY, 3 * DAY + 3)));
    }

    #[test]
    fn two_rows_that_wait_together_lose_their_time_once() {
        let mut holds = holds(&[row(1, START), row(2, START + DAY)]);
        holds.observe(&run(START + DAY + HOUR));
        holds.observe(&granting(START + 4 * DAY, START + 90 * DAY));
        let lost: (Second, Second) = [1, 2]
            .iter()
            .filter_map(|row| credit(&holds, *row))
            .fold((0, 0), |sum, credit| (sum.0 + credit.0, sum.1 + credit.1));
        let expected = 4 * DAY;
        assert!(
            lost.0 <= expected && expected <= lost.1 + 2 && lost.1 - lost.0 < 10,
            "{lost:?}"
        );
    }

    #[test]
    fn a_killed_run_may_have_read_the_row_or_not() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&Run {
            ending: Ending::Killed,
            ..run(START + HOUR)
        });
        holds.observe(&granting(START + HOUR + 5, START + 31 * DAY));
        assert_eq!(credit(&holds, 1), Some((0, 8)));
    }

    #[test]
    fn a_killed_run_may_have_learnt_of_the_corrected_name_or_not() {
        let mut holds = holds(&[row(1, START)]);
        holds.observe(&Run {
            unknown: vec!["ada".into()],
            ..run(START + HOUR)
        });
        holds.named(1, "Ada2");
        holds.observe(&Run {
            ending: Ending::Killed,
            ..run(START + 10 * DAY)
        });
        let mut last = granting(START + 10 * DAY + 100, START + 50 * DAY);
        last.writes[0].name = "ada2".into();
        holds.observe(&last);
        let (low, high) = credit(&holds, 1).unwrap();
        assert_eq!(
            (low, (100..110).contains(&(high - 7 * DAY))),
            (7 * DAY, true),
            "{high}"
        );
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
        holds.observe(&granting(START + 3 * DAY, START + 50 * DAY));
        assert!(credit(&holds, 1).is_some());
        holds.sold(
            1,
            &Row {
                status: Status::Refunded,
                ..row(1, START)
            },
        );
        holds.observe(&run(START + 4 * DAY));
        assert_eq!(credit(&holds, 1), None);
    }
}
