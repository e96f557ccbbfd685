//! What the shop's customers do in the time that is played: who buys what when, who renews early or late, gets the money
//! back, types a wrong name and corrects it. All of it is drawn from the seed before anything runs, each customer from a
//! chance of its own, so that one customer's story is the same with and without the others.

use std::collections::BTreeMap;

use fastrand::Rng;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::reckoning::{
    DAY, End, Expires, Gateway, Kind, Plan, Product, Products, Row, Second, Status, Unit,
};

const HOUR: Second = 3600;

/// A customer of the shop, whom WordPress knows by a number.
#[derive(Debug, Clone)]
pub struct Customer {
    /// The name that the customer gave at first.
    pub typed: String,
    /// Whether somebody else uses the same name.
    pub shares: bool,
}

/// What happens in the shop.
#[derive(Debug, Clone)]
pub enum Happening {
    /// A row is new.
    Sold(Row),
    /// A row's status changes.
    Becomes(u64, Status),
    /// A customer has another name from now on.
    Named(String),
    /// Somebody moves a row's end back in the shop.
    Cut(u64, Second),
    /// A customer is deleted in the shop.
    Deleted,
    /// Somebody prolongs a customer's access to a script by hand, by so many days, if there is any.
    Prolonged(&'static str, i64),
}

/// Something that happens to a customer.
#[derive(Debug, Clone)]
pub struct Event {
    pub at: Second,
    pub customer: u32,
    pub what: Happening,
}

/// Access that somebody has before the sync is set up.
#[derive(Debug, Clone)]
pub struct Had {
    /// `None` is somebody whom the shop does not know.
    pub customer: Option<u32>,
    pub name: String,
    pub script: &'static str,
    pub end: End,
}

/// The whole story.
#[derive(Debug)]
pub struct Story {
    pub begins: Second,
    pub ends: Second,
    pub customers: BTreeMap<u32, Customer>,
    /// In the order in which they happen.
    pub events: Vec<Event>,
    /// The names that TradingView knows, in its spelling.
    pub usernames: Vec<String>,
    pub had: Vec<Had>,
}

/// The scripts that the shop sells access to.
pub const SCRIPTS: [&str; 5] = ["S1", "S2", "S3", "S4", "S5"];

/// What the shop sells, with the name of each plan's length in the configuration.
pub fn products() -> Products {
    let product = |scripts: &[&'static str], plan, stacking| Product {
        scripts: scripts.to_vec(),
        plan,
        stacking,
    };
    Products::from([
        (100, product(&["S1"], Plan::Of(1, Unit::Month), true)),
        (200, product(&["S1", "S2"], Plan::Of(1, Unit::Year), true)),
        (300, product(&["S3"], Plan::Of(30, Unit::Day), true)),
        (500, product(&["S3"], Plan::Of(1, Unit::Month), true)),
        (510, product(&["S3"], Plan::Of(3, Unit::Month), true)),
        (400, product(&["S4"], Plan::Lifetime, true)),
        (600, product(&["S5"], Plan::Of(1, Unit::Month), false)),
    ])
}

/// What a customer of the shop comes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Monthly,
    Yearly,
    Now,
    Lifetime,
    Single,
    Team,
    Nothing,
}

/// One customer's life.
struct Life {
    random: Rng,
    number: u32,
    begins: Second,
    ends: Second,
    events: Vec<Event>,
    had: Vec<Had>,
    names: Vec<String>,
    rows: u64,
    subscriptions: u64,
    /// Whether the name is wrong at first, and has to be corrected before anything else is bought.
    wrong: bool,
}

/// How a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    Plain,
    Confirmed,
    Trial,
}

impl Story {
    /// The story of `customers` customers over `months` months.
    pub fn of(customers: u32, months: i64, begins: Second, seed: u64) -> Self {
        let ends = add(begins, Span::new().months(months));
        let mut story = Self {
            begins,
            ends,
            customers: BTreeMap::new(),
            events: Vec::new(),
            usernames: Vec::new(),
            had: Vec::new(),
        };
        let mut before: Option<String> = None;
        for number in 1..=customers {
            let random = Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(number.into()));
            before = story.live(number, random, before);
        }
        for number in 1..=customers / 50 + 1 {
            // Some whom the operator let in by hand; nobody may touch them.
            let name = format!("Friend_{number}");
            let end = if number % 2 == 0 {
                End::Never
            } else {
                End::At(begins + i64::from(number) * 11 * DAY)
            };
            let script = SCRIPTS[number as usize % SCRIPTS.len()];
            story.had.push(Had {
                customer: None,
                name: name.clone(),
                script,
                end,
            });
            story.usernames.push(name);
        }
        story.put_in_order();
        story
    }

    /// Leaves out everybody but these customers.
    pub fn keep(&mut self, only: &[u32]) {
        self.customers.retain(|number, _| only.contains(number));
        self.events.retain(|event| only.contains(&event.customer));
        self.had
            .retain(|had| had.customer.is_none_or(|number| only.contains(&number)));
    }

    /// Adds a customer's life. Returns the name, where the next one may share it.
    fn live(&mut self, number: u32, mut random: Rng, before: Option<String>) -> Option<String> {
        let shares = before.filter(|_| random.u32(..100) == 0);
        let canonical = shares.clone().unwrap_or_else(|| format!("Trader-{number}_x"));
        let wrong = shares.is_none() && random.u32(..100) < 8;
        let mut life = Life {
            number,
            begins: self.begins,
            ends: self.ends,
            events: Vec::new(),
            had: Vec::new(),
            names: vec![canonical.clone()],
            rows: 0,
            subscriptions: 0,
            wrong,
            random,
        };
        let typed = if wrong {
            format!("Trader-{number}_y")
        } else {
            life.spelt(&canonical)
        };
        life.lead(&canonical, shares.is_some());
        if let Some(shared) = &shares {
            for customer in self.customers.values_mut() {
                if customer
                    .typed
                    .to_ascii_lowercase()
                    .contains(&shared.to_ascii_lowercase())
                {
                    customer.shares = true;
                }
            }
        }
        self.customers.insert(
            number,
            Customer {
                typed,
                shares: shares.is_some(),
            },
        );
        let alters = life.events.iter().any(|event| {
            matches!(
                event.what,
                Happening::Named(_) | Happening::Deleted | Happening::Prolonged(..)
            )
        });
        let plain = !wrong && !alters && life.had.is_empty() && shares.is_none();
        self.events.append(&mut life.events);
        self.had.append(&mut life.had);
        self.usernames.append(&mut life.names);
        plain.then_some(canonical)
    }

    /// Gives the rows their numbers in the order of their creation, as the shop does.
    fn put_in_order(&mut self) {
        self.usernames.sort();
        self.usernames.dedup();
        let mut rows: Vec<(Second, u32, u64)> = self
            .events
            .iter()
            .filter_map(|event| match &event.what {
                Happening::Sold(row) => Some((row.created, event.customer, row.id)),
                _ => None,
            })
            .collect();
        rows.sort_unstable();
        let ids: BTreeMap<(u32, u64), u64> = (1000..)
            .zip(rows)
            .map(|(id, (_, customer, own))| ((customer, own), id))
            .collect();
        for event in &mut self.events {
            match &mut event.what {
                Happening::Sold(row) => {
                    row.id = ids[&(event.customer, row.id)];
                    if row.number.is_empty() {
                        row.number = format!("ch_{}", row.id);
                    }
                }
                Happening::Becomes(row, _) | Happening::Cut(row, _) => {
                    *row = ids[&(event.customer, *row)];
                }
                Happening::Named(_) | Happening::Deleted | Happening::Prolonged(..) => {}
            }
        }
        let ends = self.ends;
        self.events.retain(|event| event.at <= ends);
        self.events.sort_by_key(|event| (event.at, event.customer));
    }
}

impl Life {
    /// The same name in another of the spellings that people use.
    fn spelt(&mut self, canonical: &str) -> String {
        match self.random.u32(..10) {
            0 => format!("@{canonical}"),
            1 => canonical.to_ascii_lowercase(),
            2 => canonical.to_ascii_uppercase(),
            3 => format!("https://www.tradingview.com/u/{canonical}/"),
            4 => format!("  {canonical} "),
            _ => canonical.to_owned(),
        }
    }

    fn lead(&mut self, canonical: &str, shares: bool) {
        let span = self.ends - self.begins;
        let habit = match self.random.u32(..100) {
            0..42 => Habit::Monthly,
            42..52 => Habit::Yearly,
            52..80 => Habit::Now,
            80..85 => Habit::Lifetime,
            85..92 => Habit::Single,
            92..96 => Habit::Team,
            _ => Habit::Nothing,
        };
        let old =
            matches!(habit, Habit::Monthly | Habit::Yearly) && !self.wrong && !shares && self.chance(20);
        let first = if old {
            let back = if habit == Habit::Yearly { 300 } else { 25 };
            self.begins - self.random.i64(2 * DAY..back * DAY)
        } else {
            self.begins + self.random.i64(HOUR..span * 5 / 6)
        };
        match habit {
            Habit::Monthly => self.subscribe(100, first, canonical),
            Habit::Yearly => self.subscribe(200, first, canonical),
            Habit::Now => self.buy_now_and_then(first),
            Habit::Lifetime => self.buy_for_ever(first),
            Habit::Single => self.buy_one_at_a_time(first),
            Habit::Team => self.join_a_team(first),
            Habit::Nothing => self.get_nothing(first),
        }
        if habit == Habit::Monthly && self.chance(20) {
            let first = first.max(self.begins) + self.random.i64(26 * DAY..200 * DAY);
            self.buy_now_and_then(first);
        }
        let plain = !self.wrong && !shares;
        if plain && self.had.is_empty() && self.chance(2) {
            let at = first + self.random.i64(20 * DAY..400 * DAY);
            self.leave(at);
        } else if plain && self.chance(4) {
            let script = match habit {
                Habit::Monthly | Habit::Yearly => "S1",
                Habit::Single => "S5",
                Habit::Team => "S2",
                _ => "S3",
            };
            let at = first.max(self.begins) + self.random.i64(5 * DAY..300 * DAY);
            let days = self.random.i64(3..60);
            self.push(at, Happening::Prolonged(script, days));
        } else if self.wrong && !self.chance(10) {
            let corrected = first + self.random.i64(HOUR..15 * DAY);
            let typed = self.spelt(canonical);
            self.push(corrected, Happening::Named(typed));
        } else if !self.wrong && !shares && self.chance(5) {
            // Moves to another account at TradingView.
            let moves = first.max(self.begins) + self.random.i64(40 * DAY..400 * DAY);
            let other = format!("{canonical}2");
            self.names.push(other.clone());
            self.push(moves, Happening::Named(other));
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(..100) < percent
    }

    fn push(&mut self, at: Second, what: Happening) {
        self.events.push(Event {
            at,
            customer: self.number,
            what,
        });
    }

    /// Sells a row at the time that it bears. Returns its number within this life.
    fn sell(&mut self, row: Row) -> u64 {
        self.rows += 1;
        let own = self.rows;
        self.push(row.created, Happening::Sold(Row { id: own, ..row }));
        own
    }

    fn row(product: u32, created: Second) -> Row {
        let cents = match product {
            100 => 4900,
            200 => 49_000,
            300 => 3900,
            400 => 99_900,
            500 => 4500,
            510 => 12_000,
            _ => 2900,
        };
        Row {
            id: 0,
            product,
            subscription: 0,
            kind: Kind::Payment,
            status: Status::Complete,
            created,
            expires: Expires::Unsaid,
            cents,
            gateway: Gateway::Stripe,
            number: String::new(),
            cut: None,
            orphaned: false,
        }
    }

    /// Gives the money for a payment back, now and then.
    fn perhaps_refund(&mut self, payment: u64, created: Second) {
        if created <= self.begins {
            return;
        }
        let after = match self.random.u32(..1000) {
            0..35 => self.random.i64(HOUR..20 * DAY),
            35..45 => self.random.i64(30 * DAY..90 * DAY),
            _ => return,
        };
        self.push(created + after, Happening::Becomes(payment, Status::Refunded));
    }

    /// A subscription with its renewals, until it is cancelled; perhaps another one later.
    fn subscribe(&mut self, product: u32, first: Second, canonical: &str) {
        let mut from = first;
        let mut product = product;
        loop {
            self.subscriptions += 1;
            let subscription = u64::from(self.number) * 10 + self.subscriptions % 10;
            let beginning = match self.random.u32(..10) {
                _ if self.wrong || from <= self.begins => Beginning::Plain,
                0..3 => Beginning::Trial,
                3..6 => Beginning::Confirmed,
                _ => Beginning::Plain,
            };
            let (last, upgrades) = self.renew(product, subscription, from, beginning, canonical);
            if upgrades {
                product = 200;
                from = last + self.random.i64(HOUR..20 * DAY);
            } else if self.chance(40) {
                from = last + self.random.i64(40 * DAY..120 * DAY);
            } else {
                return;
            }
            if from >= self.ends {
                return;
            }
        }
    }

    /// One subscription. Returns when its last row was created, and whether it ended because something longer was
    /// bought.
    fn renew(
        &mut self,
        product: u32,
        subscription: u64,
        from: Second,
        beginning: Beginning,
        canonical: &str,
    ) -> (Second, bool) {
        let period = |count: i64| match product {
            200 => Span::new().years(count),
            _ => Span::new().months(count),
        };
        let recurring = |created: Second, end: Second| Row {
            subscription,
            expires: Expires::At(end),
            ..Self::row(product, created)
        };
        let confirmation = |created: Second, end: Second| Row {
            kind: Kind::Confirmation,
            status: Status::Confirmed,
            cents: 0,
            ..recurring(created, end)
        };
        let (paid, anchor) = match beginning {
            Beginning::Plain => (from, from),
            Beginning::Confirmed => {
                self.sell(confirmation(from, end_of_day(from + DAY)));
                if self.chance(10) {
                    // MemberPress makes such rows up; they mean nothing.
                    let fallback = Row {
                        kind: Kind::Fallback,
                        ..recurring(from + 5, end_of_day(from + DAY))
                    };
                    self.sell(Row {
                        status: Status::Complete,
                        ..fallback
                    });
                }
                (from + self.random.i64(20..200), from)
            }
            Beginning::Trial => {
                let end = end_of_day(from + 7 * DAY);
                self.sell(confirmation(from, end));
                (end - self.random.i64(HOUR..23 * HOUR), end)
            }
        };
        let mut created = paid;
        for count in 1.. {
            let end = end_of_day(add(anchor, period(count)));
            let own = self.sell(recurring(created, end));
            self.perhaps_refund(own, created);
            if created <= self.begins {
                self.remember(product, end, canonical);
            }
            if created > self.begins && self.chance(2) && end - created > 8 * DAY {
                // Somebody ends it in the shop: it is as if it had ended the day before.
                let at = self.random.i64(created + 5 * DAY..end - 2 * DAY);
                self.push(at, Happening::Cut(own, end_of_day(at - DAY)));
                return (at, false);
            }
            let churn = if product == 200 { 30 } else { 6 };
            if self.chance(churn) || end >= self.ends {
                return (created, false);
            }
            if product == 100 && self.chance(3) {
                return (created, true);
            }
            if end > self.begins + 2 * DAY && self.chance(6) {
                // The card is refused; perhaps another one is given in time.
                let failed = end - self.random.i64(HOUR..20 * HOUR);
                self.sell(Row {
                    status: Status::Failed,
                    ..recurring(failed, end_of_day(add(anchor, period(count + 1))))
                });
                if self.chance(40) {
                    return (end, false);
                }
                created = end + self.random.i64(HOUR..2 * DAY);
                continue;
            }
            created = match self.random.u32(..100) {
                0..5 => end - self.random.i64(DAY..3 * DAY),
                5..15 => end + self.random.i64(HOUR..DAY),
                _ => end - self.random.i64(HOUR..20 * HOUR),
            };
            if created <= self.begins + HOUR {
                // A renewal before the sync was set up would be part of what was there; one row is enough for that.
                created = self.begins + HOUR + self.random.i64(..HOUR);
            }
        }
        (created, false)
    }

    /// What a customer has on the day on which the sync is set up.
    fn remember(&mut self, product: u32, end: Second, canonical: &str) {
        let by_hand = if self.chance(20) { 10 * DAY } else { 0 };
        let scripts: &[&'static str] = if product == 200 { &["S1", "S2"] } else { &["S1"] };
        for script in scripts {
            self.had.retain(|had| had.script != *script);
            self.had.push(Had {
                customer: Some(self.number),
                name: canonical.to_owned(),
                script,
                end: End::At(end + by_hand),
            });
        }
    }

    /// Purchases of some time each, early and late, of plans whose rows do not say when they end.
    fn buy_now_and_then(&mut self, first: Second) {
        let mut created = first;
        let mut end = first;
        while created < self.ends {
            let product = [300, 500, 510][self.random.usize(..3)];
            let comp = self.chance(3);
            let offline = !comp && !self.wrong && self.chance(8);
            let mut row = Self::row(product, created);
            if comp {
                (row.cents, row.gateway) = (0, Gateway::Manual);
            }
            if offline {
                (row.status, row.gateway) = (Status::Pending, Gateway::Offline);
            }
            let own = self.sell(row.clone());
            if offline {
                let paid = created + self.random.i64(DAY..12 * DAY);
                self.push(paid, Happening::Becomes(own, Status::Complete));
            } else if !comp && self.chance(2) {
                let again = created + self.random.i64(5..500);
                self.sell(Row {
                    created: again,
                    ..row
                });
            } else if !comp {
                self.perhaps_refund(own, created);
            }
            if self.chance(5) {
                let failed = Row {
                    status: Status::Failed,
                    ..Self::row(product, created - 700)
                };
                self.sell(failed);
            }
            let days = if product == 510 { 90 } else { 30 };
            end = end.max(created) + days * DAY;
            let next = if self.chance(60) {
                // Early, and nothing of it is lost.
                end - self.random.i64(HOUR..25 * DAY)
            } else {
                end + self.random.i64(HOUR..60 * DAY)
            };
            created = next.max(created + 26 * DAY);
            if self.chance(12) {
                return;
            }
        }
    }

    /// A place in somebody else's account, renewed with it.
    fn join_a_team(&mut self, first: Second) {
        self.subscriptions += 1;
        let subscription = u64::from(self.number) * 10 + self.subscriptions;
        let mut created = first;
        for count in 1.. {
            let end = end_of_day(add(first, Span::new().years(count)));
            self.sell(Row {
                kind: Kind::SubAccount,
                cents: 0,
                gateway: Gateway::Manual,
                subscription,
                expires: Expires::At(end),
                ..Self::row(200, created)
            });
            if end >= self.ends || self.chance(30) {
                return;
            }
            created = end - self.random.i64(HOUR..20 * HOUR);
        }
    }

    /// Leaves the shop for good: nothing happens after it.
    fn leave(&mut self, at: Second) {
        self.events.retain(|event| event.at < at);
        self.push(at, Happening::Deleted);
    }

    fn buy_for_ever(&mut self, first: Second) {
        let own = self.sell(Row {
            expires: Expires::Zero,
            ..Self::row(400, first)
        });
        if self.chance(15) {
            let refunded = first + self.random.i64(DAY..30 * DAY);
            self.push(refunded, Happening::Becomes(own, Status::Refunded));
        }
        if self.chance(50) {
            // A monthly row that says "never", which nobody may believe.
            let created = first + self.random.i64(DAY..90 * DAY);
            self.sell(Row {
                expires: Expires::Zero,
                ..Self::row(500, created)
            });
        }
    }

    /// Purchases of what does not stack: again only when it is long over, or clearly too early, which gives nothing.
    fn buy_one_at_a_time(&mut self, first: Second) {
        let mut created = first;
        while created < self.ends {
            self.sell(Self::row(600, created));
            if self.chance(20) {
                let early = created + self.random.i64(5 * DAY..20 * DAY);
                self.sell(Self::row(600, early));
            }
            created += self.random.i64(60 * DAY..120 * DAY);
            if self.chance(15) {
                return;
            }
        }
    }

    fn get_nothing(&mut self, first: Second) {
        let nothing = match self.random.u32(..5) {
            0 => Row {
                status: Status::Failed,
                ..Self::row(100, first)
            },
            1 => Row {
                status: Status::Pending,
                ..Self::row(300, first)
            },
            2 => Row {
                cents: 0,
                gateway: Gateway::Free,
                ..Self::row(300, first)
            },
            3 => Row {
                kind: Kind::Fallback,
                ..Self::row(100, first)
            },
            // A year's product that says a month: somebody has to look at it.
            _ => Row {
                expires: Expires::At(end_of_day(first + 30 * DAY)),
                ..Self::row(200, first)
            },
        };
        self.sell(nothing);
    }
}

fn add(to: Second, span: Span) -> Second {
    let to = TimeZone::UTC.to_datetime(time(to));
    let later = to.checked_add(span).expect("a time within the calendar");
    TimeZone::UTC
        .to_timestamp(later)
        .expect("UTC has no gaps")
        .as_second()
}

/// The last second of a moment's day.
fn end_of_day(moment: Second) -> Second {
    moment.div_euclid(DAY) * DAY + DAY - 1
}

/// A moment as a time.
pub fn time(second: Second) -> Timestamp {
    Timestamp::from_second(second).expect("a time within the calendar")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGINS: Second = 1_925_000_000;

    #[test]
    fn the_same_seed_tells_the_same_story_and_one_more_customer_changes_nobody_elses() {
        let of = |story: &Story, number: u32| {
            let own = story.events.iter().filter(|event| event.customer == number);
            own.map(|event| (event.at, std::mem::discriminant(&event.what)))
                .collect::<Vec<_>>()
        };
        let (one, other, larger) = (
            Story::of(40, 12, BEGINS, 7),
            Story::of(40, 12, BEGINS, 7),
            Story::of(60, 12, BEGINS, 7),
        );
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
        for number in 1..=40 {
            assert_eq!(of(&one, number), of(&larger, number));
        }
    }

    #[test]
    fn rows_are_numbered_as_they_were_created() {
        let story = Story::of(80, 12, BEGINS, 3);
        let mut rows: Vec<(u64, Second)> = story
            .events
            .iter()
            .filter_map(|event| match &event.what {
                Happening::Sold(row) => Some((row.id, row.created)),
                _ => None,
            })
            .collect();
        rows.sort_unstable();
        assert!(
            rows.windows(2)
                .all(|two| two[0].1 <= two[1].1 && two[0].0 < two[1].0)
        );
    }

    #[test]
    fn every_kind_of_trouble_happens_to_somebody() {
        let story = Story::of(400, 24, BEGINS, 1);
        let has = |what: &dyn Fn(&Happening) -> bool| story.events.iter().any(|event| what(&event.what));
        for what in [
            Happening::Deleted,
            Happening::Cut(0, 0),
            Happening::Prolonged("S1", 0),
        ] {
            let kind = std::mem::discriminant(&what);
            assert!(has(&|what| std::mem::discriminant(what) == kind), "{what:?}");
        }
        assert!(has(
            &|what| matches!(what, Happening::Sold(row) if row.kind == Kind::SubAccount)
        ));
        for status in [Status::Refunded, Status::Complete] {
            assert!(has(
                &|what| matches!(what, Happening::Becomes(_, other) if *other == status)
            ));
        }
        assert!(has(&|what| matches!(what, Happening::Named(_))));
        assert!(has(
            &|what| matches!(what, Happening::Sold(row) if row.kind == Kind::Confirmation)
        ));
        assert!(story.customers.values().any(|customer| customer.shares));
        assert!(story.had.iter().any(|had| had.customer.is_some()));
    }
}
