//! The story, step by step: what happened in the shop since the last step is put there, the weather is made, the sync
//! runs, perhaps dies and runs again, and the operator does what an operator has to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::holds::{Ending, Holds, Ms, Run, Shown, Write};
use crate::reckoning::{Baseline, DAY, End, Plan, Row, Second, Status, Unit};
use crate::site::{Answer, Site};
use crate::story::{Happening, SCRIPTS, Story};
use crate::verdict::Verdict;
use crate::weather::{self, Kind, Spell};
use crate::{PlayArguments, Report, journal, rows, story};

const HOUR: Second = 3600;

/// When every story begins: 2031-01-15, so that two years hold a 29th of February. It is far ahead of the machine's clock,
/// which a stack cannot be started behind.
const BEGINS: Second = 1_926_201_600;

/// The interval between two runs that the configuration names. Steps are shorter than two of them, so that a run is late
/// only after the shop was away.
const INTERVAL_MINUTES: i64 = 720;

/// For how many days access goes on after a renewal that failed.
const GRACE_DAYS: i64 = 3;

/// Most reversals of one script that a run makes without an operator.
const MOST_REVERSALS: u32 = 3;

/// How often the whole shop is read anew.
const RESCAN_EVERY: Second = 4 * DAY;

/// How often everybody's access is held against the reckoning while the story goes on.
const LOOK_EVERY: Second = 30 * DAY;

/// A run that leaves something to the next one has run out of time only if it took about as long as it may; a shorter
/// one has read all that the shop showed it.
const RUNS_OUT_AFTER: Duration = Duration::from_secs(15);

/// How far the stack's clock may be behind the sandboxes', in milliseconds.
const CLOCKS_APART: Ms = 200;

/// Most runs in a row that leave something to the next and bring nothing about.
const MOST_IN_VAIN: u32 = 2;

/// How often a run is asked for again that a dead one keeps away.
const MOST_HELD_UP: u32 = 60;

/// Most runs in a row that leave something to the next.
const MOST_CONTINUATIONS: u32 = 100;

/// Plays a story.
///
/// # Errors
/// When the stack cannot be started, or does not do what a play needs.
pub async fn play(arguments: &PlayArguments, folder: &Path) -> Result<Report, String> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("seed {seed}, in {}", folder.display());
    let mut story = Story::of(arguments.customers, arguments.months, BEGINS, seed);
    if !arguments.only.is_empty() {
        story.keep(&arguments.only);
    }
    let mut random = Rng::with_seed(seed);
    let spells = match arguments.calm {
        true => Vec::new(),
        false => weather::forecast(story.begins, story.ends, &mut random),
    };
    let site = Site::prepare(
        folder,
        arguments.common.berth.as_deref(),
        &arguments.common.log_level,
        story.begins,
        |configuration| {
            configuration["products"] = configured();
            configuration["scheduler"] = json!({"interval_minutes": INTERVAL_MINUTES});
            configuration["policies"] = json!({"sub_accounts": true, "grace_days": GRACE_DAYS});
            configuration["caps"]["max_revocations"] = json!(MOST_REVERSALS);
        },
    );
    let mut play = Play::new(site.await?, story, spells, arguments, random);
    let started = Instant::now();
    let told = play.lead(seed, started).await;
    play.site.kill().await;
    told
}

/// The products as the configuration has them.
fn configured() -> Value {
    let products = story::products().into_iter().map(|(number, product)| {
        let length = match product.plan {
            Plan::Lifetime => json!({"duration": "L", "lifetime": true}),
            // The original's key, in days.
            Plan::Of(count, Unit::Day) => json!({"duration_days": count}),
            Plan::Of(count, Unit::Month) => json!({"duration": format!("{count}M")}),
            Plan::Of(count, Unit::Year) => json!({"duration": format!("{count}Y")}),
        };
        let mut configured = json!({
            "script_id": product.scripts[0],
            "script_ids": product.scripts[1..],
            "subscription_type": format!("product-{number}"),
            "stacking_allowed": product.stacking,
        });
        for (name, value) in length.as_object().into_iter().flatten() {
            configured[name] = value.clone();
        }
        (number.to_string(), configured)
    });
    Value::Object(products.collect())
}

/// How the sync is asked to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Sync,
    Rescan,
}

/// What was done, in figures.
#[derive(Debug, Default)]
struct Figures {
    steps: u32,
    runs: u32,
    kills: u32,
    rows: u32,
    writes: u32,
    looks: u32,
    replayed: u32,
    approved: u32,
    by_hand: u32,
}

/// A story that is being played.
pub struct Play {
    pub site: Site,
    pub story: Story,
    pub holds: Holds,
    /// The shop's rows by customer.
    pub shop: BTreeMap<u32, BTreeMap<u64, Row>>,
    /// The names that customers gave, as they typed them.
    pub typed: BTreeMap<u32, String>,
    /// The names that TradingView knows, in small letters.
    pub known: BTreeSet<String>,
    /// Every write that was carried out, by script and name.
    pub written: BTreeMap<(String, String), Vec<(Ms, End)>>,
    /// When a customer's name or the status of one of the customer's rows last changed.
    pub changed: BTreeMap<u32, Second>,
    spells: Vec<Spell>,
    weather: Kind,
    kills: u32,
    random: Rng,
    /// How many events have happened.
    happened: usize,
    /// When the sync was last shown the shop's rows.
    shown: Second,
    /// How long the last run took.
    took: Duration,
    /// How much the last run said is held for the operator.
    held: u64,
    figures: Figures,
    faults: Vec<String>,
}

impl Play {
    fn new(site: Site, story: Story, spells: Vec<Spell>, arguments: &PlayArguments, random: Rng) -> Self {
        let mut holds = Holds::new(story::products(), INTERVAL_MINUTES, GRACE_DAYS * DAY);
        for had in &story.had {
            if let Some(customer) = had.customer {
                // The first run is at the story's begin, and nothing is sold in the minute after it.
                let baseline = Baseline {
                    end: had.end,
                    taken: story.begins + 60,
                    except: BTreeSet::new(),
                };
                holds.had(customer, had.script, &had.name, baseline);
            }
        }
        let typed: BTreeMap<u32, String> = story
            .customers
            .iter()
            .map(|(number, customer)| (*number, customer.typed.clone()))
            .collect();
        for (number, customer) in &story.customers {
            holds.named(*number, &plain(&customer.typed));
            if customer.shares {
                holds.shares(*number);
            }
        }
        let known = story
            .usernames
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect();
        Self {
            site,
            holds,
            shop: BTreeMap::new(),
            typed,
            known,
            written: BTreeMap::new(),
            changed: BTreeMap::new(),
            spells,
            weather: Kind::Calm,
            kills: arguments.kills,
            random,
            happened: 0,
            shown: story.begins,
            took: Duration::from_millis(500),
            held: 0,
            figures: Figures::default(),
            faults: Vec::new(),
            story,
        }
    }

    async fn lead(&mut self, seed: u64, started: Instant) -> Result<Report, String> {
        self.open().await?;
        let days = u64::try_from((self.story.ends - self.story.begins) / DAY).unwrap_or_default();
        let style =
            ProgressStyle::with_template("{bar:40} day {pos} of {len}  {msg}").map_err(crate::site::text)?;
        let bar = ProgressBar::new(days).with_style(style);
        let (mut rescanned, mut looked, mut now) = (self.story.begins, self.story.begins, self.story.begins);
        while now < self.story.ends {
            now += self.random.i64(6 * HOUR..22 * HOUR);
            let rescan = now - rescanned >= RESCAN_EVERY;
            self.step(now, rescan).await?;
            if rescan {
                rescanned = now;
            }
            if now - looked >= LOOK_EVERY && self.weather == Kind::Calm {
                looked = now;
                self.run_to_the_end(Way::Rescan).await?;
                self.look(false).await?;
                if bar.is_hidden() {
                    let day = (now - self.story.begins) / DAY;
                    eprintln!(
                        "  day {day} of {days}, {:.0} s: {}",
                        started.elapsed().as_secs_f64(),
                        self.told()
                    );
                }
            }
            bar.set_position(u64::try_from((now - self.story.begins) / DAY).unwrap_or_default());
            bar.set_message(self.told());
            // More of the same is no news, and a wrong sync finds ever more.
            if self.faults.len() >= 50 {
                break;
            }
        }
        bar.finish_and_clear();
        self.close(now).await?;
        let ends = Verdict::ends(self);
        let words = format!(
            "seed {seed}: {} customers, {} rows, {} steps, {} runs, {} kills, {} writes, {} looks, {} dead letters \
             replayed, {} plans approved, {} accesses prolonged by hand, in {:.0} s\n{ends}",
            self.story.customers.len(),
            self.figures.rows,
            self.figures.steps,
            self.figures.runs,
            self.figures.kills,
            self.figures.writes,
            self.figures.looks,
            self.figures.replayed,
            self.figures.approved,
            self.figures.by_hand,
            started.elapsed().as_secs_f64(),
        );
        Ok(Report {
            words,
            faults: std::mem::take(&mut self.faults),
        })
    }

    fn told(&self) -> String {
        format!(
            "{} rows, {} writes, {} waiting, {} kills, {} found",
            self.figures.rows,
            self.figures.writes,
            self.holds.waiting(),
            self.figures.kills,
            self.faults.len()
        )
    }

    /// Puts what was there before the sync, and lets it run for the first time.
    async fn open(&mut self) -> Result<(), String> {
        let names = json!(self.story.usernames);
        self.site.sandbox("PUT", "usernames", Some(&names)).await?;
        for script in SCRIPTS {
            let had = self.story.had.iter().filter(|had| had.script == script);
            let had: Vec<Value> = had
                .map(|had| {
                    let end = match had.end {
                        End::At(end) => json!(story::time(end)),
                        End::Never | End::None => Value::Null,
                    };
                    json!({"username": had.name, "expiration": end})
                })
                .collect();
            self.site
                .sandbox("PUT", &format!("access/{script}"), Some(&json!(had)))
                .await?;
        }
        self.site.start().await?;
        self.step(self.story.begins, false).await
    }

    /// One step of the story, which ends at `now`.
    async fn step(&mut self, now: Second, rescan: bool) -> Result<(), String> {
        self.figures.steps += 1;
        self.happen(now).await?;
        self.site.set_clock(now).await?;
        self.turn(weather::at(&self.spells, now)).await?;
        self.run_to_the_end(Way::Sync).await?;
        if rescan {
            self.run_to_the_end(Way::Rescan).await?;
        }
        if self.weather == Kind::Calm {
            self.operate().await?;
        }
        Ok(())
    }

    /// Lets all happen in the shop that happened up to `now`.
    async fn happen(&mut self, now: Second) -> Result<(), String> {
        let mut changed: BTreeSet<(u32, u64)> = BTreeSet::new();
        let mut prolonged = Vec::new();
        while let Some(event) = self
            .story
            .events
            .get(self.happened)
            .filter(|event| event.at <= now)
        {
            self.happened += 1;
            let customer = event.customer;
            let rows = self.shop.entry(customer).or_default();
            let failed =
                |what: &Happening| matches!(what, Happening::Sold(row) if row.status == Status::Failed);
            if !matches!(event.what, Happening::Sold(_)) || failed(&event.what) {
                self.changed.insert(customer, now);
            }
            match event.what.clone() {
                Happening::Sold(row) => {
                    self.figures.rows += 1;
                    self.holds.sold(customer, &row);
                    changed.insert((customer, row.id));
                    rows.insert(row.id, row);
                }
                Happening::Becomes(id, status) => {
                    let Some(row) = rows.get_mut(&id) else { continue };
                    row.status = status;
                    self.holds.sold(customer, row);
                    changed.insert((customer, id));
                }
                Happening::Cut(id, end) => {
                    let Some(row) = rows.get_mut(&id) else { continue };
                    row.cut = Some(end);
                    self.holds.sold(customer, row);
                    changed.insert((customer, id));
                }
                Happening::Deleted => {
                    for row in rows.values_mut() {
                        row.orphaned = true;
                        self.holds.sold(customer, row);
                    }
                    changed.extend(rows.keys().map(|id| (customer, *id)));
                }
                Happening::Prolonged(script, days) => prolonged.push((customer, script, days)),
                Happening::Named(name) => {
                    self.holds.named(customer, &plain(&name));
                    self.typed.insert(customer, name);
                    changed.extend(rows.keys().map(|id| (customer, *id)));
                }
            }
        }
        for (customer, script, days) in prolonged {
            self.prolong(customer, script, days).await?;
        }
        if changed.is_empty() {
            return Ok(());
        }
        let told: Vec<Value> = changed
            .iter()
            .map(|(customer, id)| rows::told(*customer, &self.typed[customer], &self.shop[customer][id]))
            .collect();
        self.site
            .sandbox("POST", "transactions", Some(&json!(told)))
            .await
            .map(drop)
    }

    /// Somebody prolongs a customer's access to a script at the access API, where there is any.
    async fn prolong(&mut self, customer: u32, script: &'static str, days: i64) -> Result<(), String> {
        let path = format!("access/{script}");
        let mut listed = self.site.sandbox("GET", &path, None).await?;
        let name = plain(&self.typed[&customer]);
        let now = self.site.now();
        let users = listed.as_array_mut().into_iter().flatten();
        let mut own = users.filter(|user| user["username"].as_str().is_some_and(|user| plain(user) == name));
        let Some(user) = own.next() else { return Ok(()) };
        let Some(end) = said(&user["expiration"]).filter(|end| *end > now) else {
            return Ok(());
        };
        let end = end / 1000 + days * DAY;
        user["expiration"] = json!(story::time(end));
        self.site.sandbox("PUT", &path, Some(&listed)).await?;
        self.figures.by_hand += 1;
        self.holds.prolonged(customer, script, &name, end, now);
        let written = self.written.entry((script.to_owned(), name)).or_default();
        written.push((now, End::At(end)));
        Ok(())
    }

    /// Makes the weather.
    async fn turn(&mut self, weather: Kind) -> Result<(), String> {
        if weather == Kind::Calm && self.weather == Kind::Calm {
            return Ok(());
        }
        self.weather = weather;
        let clear = json!({"operation": "*", "times": 0});
        self.site.sandbox("POST", "faults", Some(&clear)).await?;
        for fault in weather::faults(weather, &mut self.random) {
            self.site.sandbox("POST", "faults", Some(&fault)).await?;
        }
        Ok(())
    }

    /// Lets the sync run until it says that nothing is left, however often it is killed on the way.
    async fn run_to_the_end(&mut self, way: Way) -> Result<(), String> {
        let (mut held_up, mut in_vain) = (0, 0);
        for _ in 0..MOST_CONTINUATIONS {
            let before = self.figures.writes;
            let Some(answer) = self.run(way).await? else {
                // Killed. The next one goes on at once.
                continue;
            };
            match (way, answer.status) {
                _ if held_up < MOST_HELD_UP && kept_away(way, &answer) => {
                    held_up += 1;
                    self.wait_for_the_dead().await?;
                }
                (_, 200) if answer.body["complete"] == json!(false) => {
                    in_vain = if self.figures.writes == before {
                        in_vain + 1
                    } else {
                        0
                    };
                    if self.weather != Kind::Calm && in_vain >= MOST_IN_VAIN {
                        return Ok(());
                    }
                }
                (_, 200) => return Ok(()),
                _ if matches!(self.weather, Kind::ShopDown | Kind::ShopGarbage) => return Ok(()),
                _ => {
                    let fault = format!("a {way:?} in {:?} was answered {answer:?}", self.weather);
                    self.found(fault);
                    return Ok(());
                }
            }
        }
        self.found(format!(
            "a {way:?} was not complete after {MOST_CONTINUATIONS} runs"
        ));
        Ok(())
    }

    /// Lets some of the time pass for which a run that was killed keeps others away.
    async fn wait_for_the_dead(&self) -> Result<(), String> {
        self.site.set_clock(self.site.now() / 1000 + 20).await
    }

    /// One run. `None` where it was killed; the stack is up again then.
    async fn run(&mut self, way: Way) -> Result<Option<Answer>, String> {
        self.figures.runs += 1;
        let path = match way {
            Way::Sync => "/api/access/sync",
            Way::Rescan => "/__local/schedules/access-rescan",
        };
        let fresh = self.site.now() / 1000 - self.shown < 20 * HOUR;
        let kill = fresh && self.random.u32(..100) < self.kills;
        let patience = if kill {
            self.took.mul_f64(self.random.f64() * 1.3)
        } else {
            Duration::from_secs(900)
        };
        // The sync reckons in whole seconds, by a clock that is a little behind this one.
        let begin = (self.site.now() - CLOCKS_APART) / 1000 * 1000;
        let started = Instant::now();
        let answer = tokio::select! {
            answer = self.site.call("POST", path, None) => answer,
            () = tokio::time::sleep(patience) => None,
        };
        let ending = match &answer {
            Some(answer) if answer.body["complete"] == json!(false) && started.elapsed() > RUNS_OUT_AFTER => {
                Ending::Unfinished
            }
            Some(_) => Ending::Whole,
            None => Ending::Killed,
        };
        if answer.is_none() && !kill {
            return Err(format!(
                "a {way:?} was not answered; see {}",
                self.site.log().display()
            ));
        }
        if answer.is_none() {
            self.figures.kills += 1;
            self.site.kill().await;
        } else {
            self.took = started.elapsed();
        }
        let requests = self.requests().await?;
        let known = &self.known;
        let said = answer.as_ref().and_then(|answer| said(&answer.body["now"]));
        let (begin, end) = said.map_or((begin, self.site.now()), |now| (now, now));
        let mut run = journal::run(&requests, begin, end, ending, self.weather, &|name| {
            known.contains(&name.to_ascii_lowercase())
        });
        if answer.is_none() {
            self.add_unseen(&mut run).await?;
        }
        let kept_away = answer.as_ref().is_some_and(|answer| kept_away(way, answer));
        self.site.note(&json!({
            "way": format!("{way:?}"), "weather": format!("{:?}", self.weather), "begin": run.begin, "end": run.end,
            "status": answer.as_ref().map(|answer| answer.status), "kept_away": kept_away,
            "ending": format!("{:?}", run.ending), "shown": format!("{:?}", run.shown), "writes": run.writes.len(),
            "requests": requests,
        }))?;
        if kept_away {
            return Ok(answer);
        }
        self.compare_calls(way, answer.as_ref(), &requests);
        if let Some(held) = answer
            .as_ref()
            .and_then(|answer| answer.body["open"]["held"].as_u64())
        {
            self.held = held;
        }
        if answer.is_none() {
            self.site.start().await?;
        }
        self.take_in(&run).await?;
        Ok(answer)
    }

    /// Takes in what a run did, with what it has put on record.
    async fn take_in(&mut self, run: &Run) -> Result<(), String> {
        let adoptable = self.holds.adoptable(run);
        if !adoptable.is_empty() {
            let table = self.site.table().await?;
            for customer in adoptable {
                let record = table.record(customer).await?;
                for fault in self.holds.adopted(customer, &record.adopted, run) {
                    let about = Verdict::story_of(self, customer, "");
                    self.found(format!("{fault}\n{about}"));
                }
            }
        }
        self.observe(run);
        self.look_up_delays().await
    }

    /// Takes the moments of the delays that are over from the sync's own record.
    async fn look_up_delays(&mut self) -> Result<(), String> {
        let customers = self.holds.unrecorded();
        if customers.is_empty() {
            return Ok(());
        }
        let table = self.site.table().await?;
        for customer in customers {
            let record = table.record(customer).await?.given_back;
            for fault in self.holds.recorded(customer, &record) {
                let about = Verdict::story_of(self, customer, "");
                self.found(format!("{fault}\n{about}"));
            }
        }
        Ok(())
    }

    /// Looks for delays that were given back and that nobody had.
    async fn look_for_gifts(&mut self) -> Result<(), String> {
        let table = self.site.table().await?;
        let customers: Vec<u32> = self.story.customers.keys().copied().collect();
        for customer in customers {
            let record = table.record(customer).await?.given_back;
            for gift in self.holds.unexplained(customer, &record) {
                let about = Verdict::story_of(self, customer, "");
                self.found(format!(
                    "customer {customer} was given back what nobody saw waiting: {gift:?}\n{about}"
                ));
            }
        }
        Ok(())
    }

    /// The requests that were made since this was asked last.
    async fn requests(&self) -> Result<Vec<Value>, String> {
        let unanswered = matches!(self.weather, Kind::SomeLost | Kind::SomeUnanswered);
        let patience = Duration::from_millis(if unanswered { 60 } else { 5000 });
        self.site.requests(patience).await
    }

    /// Adds the writes of a run that was killed that came to the access API after its requests were looked at.
    async fn add_unseen(&self, run: &mut Run) -> Result<(), String> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for script in SCRIPTS {
            let listed = self
                .site
                .sandbox("GET", &format!("access/{script}"), None)
                .await?;
            for user in listed.as_array().into_iter().flatten() {
                let name = user["username"].as_str().unwrap_or_default().to_ascii_lowercase();
                let end = said(&user["expiration"]).map_or(End::Never, |end| End::At(end / 1000));
                let in_run = (run.writes.iter().rev())
                    .find(|write| write.script == script && write.name == name)
                    .map(|write| write.end);
                let known = in_run.or_else(|| {
                    let written = self.written.get(&(script.to_owned(), name.clone()))?;
                    written.last().map(|(_, end)| *end)
                });
                let had = self
                    .story
                    .had
                    .iter()
                    .find(|had| had.script == script && had.name.eq_ignore_ascii_case(&name));
                if known.or(had.map(|had| had.end)) != Some(end) {
                    run.writes.push(Write {
                        at: self.site.now(),
                        script: script.to_owned(),
                        name,
                        end,
                    });
                }
            }
        }
        Ok(())
    }

    fn observe(&mut self, run: &Run) {
        if run.shown != Shown::Nothing && run.ending != Ending::Killed {
            self.shown = run.end / 1000;
        }
        self.figures.writes += u32::try_from(run.writes.len()).unwrap_or(u32::MAX);
        for write in &run.writes {
            let key = (write.script.clone(), write.name.clone());
            let before = self
                .written
                .get(&key)
                .and_then(|all| all.last())
                .map_or(End::None, |(_, end)| *end);
            if write.end < before
                && let Some(fault) = Verdict::shortened(self, write, before)
            {
                self.found(fault);
            }
            self.written.entry(key).or_default().push((write.at, write.end));
        }
        self.holds.observe(run);
    }

    /// Holds the calls that a run says it made against those that were received.
    fn compare_calls(&mut self, way: Way, answer: Option<&Answer>, requests: &[Value]) {
        let Some(calls) = answer
            .map(|answer| &answer.body["calls"])
            .filter(|calls| calls.is_object())
        else {
            return;
        };
        let received = journal::count(requests);
        let counted = [
            ("transactions", received.transactions),
            ("validate", received.validate),
            ("grant", received.grant),
            ("update", received.update),
            ("remove", received.remove),
            ("list", received.list),
        ];
        let wrong: Vec<String> = counted
            .iter()
            .filter(|(name, count)| calls[*name] != json!(count))
            .map(|(name, count)| format!("{name}: {} instead of {count}", calls[*name]))
            .collect();
        if !wrong.is_empty() {
            let fault = format!(
                "a {way:?} in {:?} counts its calls wrongly: {}",
                self.weather,
                wrong.join(", ")
            );
            self.found(fault);
        }
    }

    /// What an operator does when all is well again: sends dead letters once more, and approves what was held.
    async fn operate(&mut self) -> Result<(), String> {
        let mut acted = false;
        for letter in self.listed("/api/access/dead-letters?limit=500").await? {
            let id = letter["id"].as_str().unwrap_or_default().to_owned();
            let path = format!("/api/access/dead-letters/{id}/replay");
            let answer = self.site.call("POST", &path, Some(&json!({}))).await;
            match answer {
                Some(Answer { status: 200, .. }) => self.figures.replayed += 1,
                other => self.found(format!("the dead letter {letter} was replayed with {other:?}")),
            }
            acted = true;
        }
        if self.held > 0 {
            self.approve().await?;
            acted = true;
        }
        if acted {
            self.run_to_the_end(Way::Sync).await?;
        }
        Ok(())
    }

    /// Has a plan made of all that is held, and approves it.
    async fn approve(&mut self) -> Result<(), String> {
        let mut made = self.site.call("GET", "/api/access/plan", None).await;
        for _ in 0..MOST_HELD_UP {
            if made.as_ref().is_none_or(|answer| answer.status != 409) {
                break;
            }
            self.wait_for_the_dead().await?;
            made = self.site.call("GET", "/api/access/plan", None).await;
        }
        let plan = match made {
            Some(Answer { status: 200, body }) => body,
            other => return Err(format!("the plan was answered {other:?}")),
        };
        self.requests().await?;
        let id = plan["id"]
            .as_str()
            .or(plan["plan_id"].as_str())
            .unwrap_or_default()
            .to_owned();
        let path = format!("/api/access/plans/{id}/approve");
        // What is approved is what the plan says, as of the plan's own time.
        let made = said(&plan["created_at"]).ok_or("the plan does not say when it was made")?;
        match self.site.call("POST", &path, Some(&json!({}))).await {
            Some(Answer { status: 200, .. }) => self.figures.approved += 1,
            other => self.found(format!("the plan {id} was approved with {other:?}")),
        }
        let requests = self.requests().await?;
        let known = &self.known;
        let run = journal::run(&requests, made, made, Ending::Unfinished, self.weather, &|name| {
            known.contains(&name.to_ascii_lowercase())
        });
        self.take_in(&run).await
    }

    /// What a route lists.
    async fn listed(&mut self, path: &str) -> Result<Vec<Value>, String> {
        match self.site.call("GET", path, None).await {
            Some(Answer { status: 200, body }) => {
                let list = body
                    .as_array()
                    .or_else(|| body.as_object()?.values().find_map(Value::as_array));
                Ok(list.cloned().unwrap_or_default())
            }
            other => Err(format!("{path} was answered {other:?}")),
        }
    }

    /// Lets all that still waits come to its end, and looks at everybody.
    async fn close(&mut self, mut now: Second) -> Result<(), String> {
        self.kills = 0;
        for _ in 0..12 {
            now += 13 * HOUR;
            self.step(now, true).await?;
        }
        self.look_for_gifts().await?;
        self.look(true).await
    }

    /// Holds everybody's access against the reckoning; before the end, of those only with whom nothing waits.
    async fn look(&mut self, last: bool) -> Result<(), String> {
        self.figures.looks += 1;
        let faults = Verdict::of(self, last).await?;
        for fault in faults {
            self.found(fault);
        }
        Ok(())
    }

    fn found(&mut self, fault: String) {
        // One fault of a kind about somebody is enough.
        let about = |fault: &str| fault.lines().next().unwrap_or_default().to_owned();
        if !self.faults.iter().any(|other| about(other) == about(&fault)) {
            eprintln!("FOUND: {fault}");
            self.faults.push(fault);
        }
    }
}

/// Whether there was no run because another one, or a dead one, is under way.
fn kept_away(way: Way, answer: &Answer) -> bool {
    answer.status == 409 || way == Way::Rescan && answer.status == 200 && answer.body.is_null()
}

/// A moment that the stack said, in milliseconds.
fn said(moment: &Value) -> Option<Ms> {
    Some(moment.as_str()?.parse::<jiff::Timestamp>().ok()?.as_millisecond())
}

/// The name that somebody means who typed this.
pub fn plain(typed: &str) -> String {
    let typed = typed.trim().trim_start_matches('@');
    let name = match typed.split_once("tradingview.com/u/") {
        Some((_, name)) => name.trim_end_matches('/'),
        None => typed,
    };
    name.to_ascii_lowercase()
}

/// Whether something was ever taken back from a customer.
pub fn was_taken_back(rows: Option<&BTreeMap<u64, Row>>) -> bool {
    let taken_back = |row: &Row| row.status == Status::Refunded || row.cut.is_some() || row.orphaned;
    rows.is_some_and(|rows| rows.values().any(taken_back))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_however_it_was_typed() {
        for typed in ["Ada-1_x", " @ada-1_X ", "https://www.tradingview.com/u/Ada-1_x/"] {
            assert_eq!(plain(typed), "ada-1_x");
        }
    }
}
