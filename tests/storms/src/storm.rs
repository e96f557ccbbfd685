//! One storm, from the first calm registrations to the report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::Value;

use crate::crowd::{Answer, Crowd};
use crate::ending::{self, Remains};
use crate::figures::{self, Spread};
use crate::links::Links;
use crate::site::Site;
use crate::{Arguments, Kind, slow_deletions, weather};

/// How often a wish is uttered that was not fulfilled.
const TRIES: u32 = 3;

/// The longest that a caller waits before asking again, whatever it was told: the storm has to end.
const LONGEST_WAIT: Duration = Duration::from_millis(800);

/// Most calls that one request may make, to SnapTrade and to DynamoDB. Far above what they need, and for a sync that has
/// to ask for each user's connections: what is caught is a request that never stops.
const MOST_CALLS: (u64, u64) = (100, 300);

/// What a storm came to.
pub struct Report {
    seed: u64,
    took: Duration,
    requests: BTreeMap<String, Spread>,
    calls: BTreeMap<String, (u64, u64)>,
    syncs: u32,
    transitions: BTreeMap<String, u64>,
    evictions: usize,
    most_in_use: u64,
    surplus: usize,
    refused: usize,
    users: BTreeSet<String>,
    /// What was not right.
    pub faults: Vec<String>,
}

/// What the parts of a storm share.
struct Storm {
    site: Site,
    crowd: Crowd,
    links: Links,
    wishes: u32,
    begun: AtomicU32,
    done: AtomicU32,
    over: AtomicBool,
    /// Held by those who ask, each time they do; whoever lets time pass in peace waits until nobody does.
    asking: tokio::sync::RwLock<()>,
    calls: Mutex<BTreeMap<String, Value>>,
    /// What could not be done about the stack itself.
    failures: Mutex<Vec<String>>,
}

/// Raises a storm and tells what it left.
///
/// # Errors
/// When the stack cannot be started, or the checks cannot be made.
pub async fn rage(arguments: &Arguments, seed: u64) -> Result<Report, String> {
    let started = Instant::now();
    let folder = tempfile::Builder::new()
        .prefix("berth-storm-")
        .tempdir()
        .map_err(|error| error.to_string())?
        .keep();
    eprintln!("in {}", folder.display());
    let site = Site::prepare(&folder, arguments).await?;
    let storm = Arc::new(Storm::new(site, arguments.wishes));
    let random = fastrand::Rng::with_seed(seed);
    storm.site.start().await?;
    let protected = match arguments.kind {
        Kind::Users | Kind::Connections => storm.rage(arguments, random).await?,
        Kind::SlowDeletions => {
            slow_deletions::rage(&storm.site, &storm.crowd, arguments).await?;
            BTreeSet::new()
        }
    };
    eprintln!("the storm is over after {:.0} s", started.elapsed().as_secs_f64());
    let report = storm.conclude(arguments, seed, &protected, started).await;
    storm.site.kill().await;
    let report = report.inspect_err(|_| write_down(&folder, &storm.crowd))?;
    if report.faults.is_empty() {
        std::fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
    } else {
        write_down(&folder, &storm.crowd);
    }
    Ok(report)
}

/// Somebody who comes and goes.
struct User {
    /// Some have names such as SnapTrade gets only the hash of.
    name: String,
    /// Kept while the user visits the portal: nobody visits it twice at a time. Tells whether the user is registered.
    visiting: tokio::sync::Mutex<bool>,
}

impl User {
    fn new(number: u32) -> Self {
        let host = if number % 10 == 7 { "@example.com" } else { "" };
        Self {
            name: format!("user-{number}{host}"),
            visiting: tokio::sync::Mutex::default(),
        }
    }
}

impl Storm {
    fn new(site: Site, wishes: u32) -> Self {
        Self {
            crowd: Crowd::new(site.http.clone()),
            links: Links::default(),
            site,
            wishes,
            begun: AtomicU32::new(0),
            done: AtomicU32::new(0),
            over: AtomicBool::new(false),
            asking: tokio::sync::RwLock::default(),
            calls: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// Lets a crowd loose while all fails. Returns what was protected all the time: two users, or their connections.
    async fn rage(
        self: &Arc<Self>,
        arguments: &Arguments,
        mut random: fastrand::Rng,
    ) -> Result<BTreeSet<String>, String> {
        let mut connections = BTreeSet::new();
        let protected: BTreeSet<String> = ["keep-1", "keep-2"].map(str::to_owned).into();
        for user in &protected {
            let registered = self.crowd.register(&self.site, user).await;
            let kept = self.crowd.protect(&self.site, user, true).await;
            if registered.is_none_or(|answer| answer.status != 201)
                || kept.is_none_or(|answer| answer.status != 200)
            {
                return Err(format!("{user} could not be registered and protected"));
            }
            if arguments.kind == Kind::Connections {
                let link = self.crowd.connection_url(&self.site, user).await;
                if link.is_none_or(|answer| answer.status != 200) {
                    return Err(format!("there was no link for {user}"));
                }
                self.links.connect(&self.site, user, "SANDBOX").await;
                connections.extend(self.links.of(user));
            }
        }
        self.site
            .raise(weather::faults(arguments.share, random.u64(..)))
            .await?;
        let users: Arc<Vec<User>> = Arc::new((0..arguments.users).map(User::new).collect());
        let callers: Vec<_> = (0..arguments.at_once)
            .map(|_| tokio::spawn(Arc::clone(self).call(arguments.kind, Arc::clone(&users), random.fork())))
            .collect();
        let beside = [
            tokio::spawn(Arc::clone(self).kill(arguments.kills, random.fork())),
            tokio::spawn(Arc::clone(self).operate(arguments.kind, protected.clone(), random.fork())),
            tokio::spawn(Arc::clone(self).watch()),
        ];
        for caller in join_all(callers).await {
            caller.map_err(|error| error.to_string())?;
        }
        self.over.store(true, Ordering::Relaxed);
        for task in join_all(beside).await {
            task.map_err(|error| error.to_string())?;
        }
        self.site.calm().await?;
        Ok(match arguments.kind {
            Kind::Connections => connections,
            Kind::Users | Kind::SlowDeletions => protected,
        })
    }

    /// Lets everything come to rest, looks at all that is left, and sums it up.
    async fn conclude(
        &self,
        arguments: &Arguments,
        seed: u64,
        protected: &BTreeSet<String>,
        started: Instant,
    ) -> Result<Report, String> {
        let settled = ending::settle(&self.site, &self.crowd).await;
        let limit = arguments.limit.into();
        let Remains {
            users,
            transitions,
            evictions,
            most_in_use,
            surplus,
            mut faults,
        } = match arguments.kind {
            Kind::Connections => {
                ending::inspect_connections(&self.site, &self.crowd, limit, &self.links, protected).await?
            }
            Kind::Users | Kind::SlowDeletions => {
                ending::inspect_users(&self.site, &self.crowd, limit, protected).await?
            }
        };
        self.count_calls().await;
        let syncs = *settled.as_ref().unwrap_or(&0);
        faults.extend(settled.err());
        faults.extend(self.crowd.faults());
        faults.append(&mut self.failures.lock().unwrap());
        let calls: Vec<Value> = self.calls.lock().unwrap().values().cloned().collect();
        let calls = ending::most_calls(&calls);
        for (function, (snaptrade, dynamodb)) in &calls {
            if *snaptrade > MOST_CALLS.0 || *dynamodb > MOST_CALLS.1 {
                faults.push(format!(
                    "one {function} made {snaptrade} calls to SnapTrade and {dynamodb} to DynamoDB"
                ));
            }
        }
        Ok(Report {
            seed,
            took: started.elapsed(),
            requests: figures::by_answer(&self.crowd.requests()),
            calls,
            syncs,
            transitions,
            evictions,
            most_in_use,
            surplus,
            refused: self.links.refused().len(),
            users,
            faults,
        })
    }

    /// One caller: has one wish after the other until there are no more.
    async fn call(self: Arc<Self>, kind: Kind, users: Arc<Vec<User>>, mut random: fastrand::Rng) {
        while self.begun.fetch_add(1, Ordering::Relaxed) < self.wishes {
            let user = &users[random.usize(..users.len())];
            for _ in 0..TRIES {
                let asking = self.asking.read().await;
                let fulfilled = match kind {
                    Kind::Connections => self.connect(user, &mut random).await,
                    Kind::Users | Kind::SlowDeletions => self.register(user).await,
                };
                drop(asking);
                let Err(answer) = fulfilled else { break };
                tokio::time::sleep(wait_after(answer.as_ref(), &mut random)).await;
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Registers a user, or tells what the answer was instead.
    async fn register(&self, user: &User) -> Result<(), Option<Answer>> {
        let answer = self.crowd.register(&self.site, &user.name).await;
        if answer.as_ref().is_some_and(|answer| answer.status < 300) {
            return Ok(());
        }
        Err(answer)
    }

    /// Lets a user who is registered visit the portal, and now and then change what it has.
    async fn connect(&self, user: &User, random: &mut fastrand::Rng) -> Result<(), Option<Answer>> {
        let mut registered = user.visiting.lock().await;
        if !*registered {
            self.register(user).await?;
            *registered = true;
        }
        if random.u32(..8) == 0 {
            self.links.change(&self.site, &user.name, random).await;
        }
        self.links
            .visit(&self.site, &self.crowd, &user.name, random)
            .await
    }

    /// Kills the process at random moments, and starts it again.
    async fn kill(self: Arc<Self>, kills: u32, mut random: fastrand::Rng) {
        let mut moments: Vec<u32> = (0..kills)
            .map(|_| random.u32(self.wishes / 20..self.wishes * 19 / 20))
            .collect();
        moments.sort_unstable();
        for (number, moment) in moments.into_iter().enumerate() {
            while self.done.load(Ordering::Relaxed) < moment {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(random.u64(..500))).await;
            self.count_calls().await;
            self.site.kill().await;
            let away = [0, 0, 5, 70, 400, 2000][random.usize(..6)];
            eprintln!("  kill {} after {moment} wishes; away for {away} s", number + 1);
            tokio::time::sleep(Duration::from_millis(random.u64(..1000))).await;
            self.site.pass_while_down(away);
            if let Err(error) = self.site.start().await {
                self.failures
                    .lock()
                    .unwrap()
                    .push(format!("the stack did not start again: {error}"));
                return;
            }
        }
    }

    /// What an operator does meanwhile, and time.
    async fn operate(self: Arc<Self>, kind: Kind, protected: BTreeSet<String>, mut random: fastrand::Rng) {
        let mut syncs = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(500 + random.u64(..2500))).await;
            match random.u32(..10) {
                // It may take its whole time, which nobody waits for.
                0..=2 => syncs.push(tokio::spawn({
                    let storm = Arc::clone(&self);
                    async move { drop(storm.crowd.sync(&storm.site).await) }
                })),
                // As if all that runs had been frozen for a while: leases run out under those who work. The process may
                // be killed in this very moment.
                3 => drop(self.site.pass([20, 70, 320, 2000][random.usize(..4)]).await),
                // Nothing but time makes the place of one free who died or gave up: a registration's after a minute,
                // that of a visit to the portal after half an hour.
                4..=6 if kind == Kind::Connections => {
                    let _peace = self.asking.write().await;
                    drop(self.site.pass([400, 2000, 4000][random.usize(..3)]).await);
                }
                4 => {
                    let _peace = self.asking.write().await;
                    drop(self.site.pass(70).await);
                }
                _ => {
                    self.protect_for_a_while(kind == Kind::Connections, &protected, &mut random)
                        .await
                }
            }
        }
        for sync in join_all(syncs).await {
            if let Err(error) = sync {
                self.failures
                    .lock()
                    .unwrap()
                    .push(format!("a sync broke off: {error}"));
            }
        }
    }

    /// Protects somebody else who is here now, and takes it back a little later.
    async fn protect_for_a_while(
        &self,
        by_connections: bool,
        protected: &BTreeSet<String>,
        random: &mut fastrand::Rng,
    ) {
        let Some(listed) = self.crowd.users(&self.site).await else {
            return;
        };
        let others: Vec<&str> = (listed.body["data"].as_array().into_iter().flatten())
            .filter(|user| user["state"] == "active")
            .filter(|user| !by_connections || user["connections"] != 0)
            .filter_map(|user| user["user_id"].as_str())
            .filter(|user| !protected.contains(*user))
            .collect();
        let Some(user) = random.choice(&others) else {
            return;
        };
        self.crowd.protect(&self.site, user, true).await;
        tokio::time::sleep(Duration::from_millis(random.u64(..2000))).await;
        // It has to end, or the places run out of those who may give way.
        for _ in 0..5 {
            let ended = self.crowd.protect(&self.site, user, false).await;
            if ended.is_some_and(|answer| matches!(answer.status, 200 | 404)) {
                return;
            }
        }
    }

    /// Tells how far the storm is, and remembers what requests cost before the stack forgets it.
    async fn watch(self: Arc<Self>) {
        while !self.over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let requests = self.crowd.requests();
            let with = |status: u16| {
                let has = |request: &&crate::crowd::Request| {
                    request
                        .answer
                        .as_ref()
                        .is_some_and(|answer| answer.status == status)
                };
                requests.iter().filter(has).count()
            };
            eprintln!(
                "  {}/{} wishes, {} requests: 201 {}, 200 {}, 409 {}, 429 {}, 502 {}, 503 {}, 504 {}",
                self.done.load(Ordering::Relaxed),
                self.wishes,
                requests.len(),
                with(201),
                with(200),
                with(409),
                with(429),
                with(502),
                with(503),
                with(504)
            );
            self.count_calls().await;
        }
    }

    async fn count_calls(&self) {
        let urls = self.site.urls().await;
        let calls = async {
            let answer = self
                .site
                .http
                .get(format!("{}/__local/calls", urls.api))
                .send()
                .await
                .ok()?;
            answer.json::<Vec<Value>>().await.ok()
        };
        // A process that was killed meanwhile has forgotten them.
        for call in calls.await.unwrap_or_default() {
            let id = call["request_id"].as_str().unwrap_or_default().to_owned();
            self.calls.lock().unwrap().insert(id, call);
        }
    }
}

/// How long a caller waits before asking again.
fn wait_after(answer: Option<&Answer>, random: &mut fastrand::Rng) -> Duration {
    let asked = answer
        .and_then(|answer| answer.retry_after)
        .map(Duration::from_secs);
    let wait = asked.unwrap_or(Duration::from_millis(100)).min(LONGEST_WAIT);
    wait.mul_f64(0.25 + random.f64())
}

/// Keeps what was said, one line a request.
fn write_down(folder: &std::path::Path, crowd: &Crowd) {
    let lines: Vec<String> = (crowd.requests().iter())
        .map(|request| format!("{request:?}"))
        .collect();
    match std::fs::write(folder.join("requests.txt"), lines.join("\n")) {
        Ok(()) => eprintln!(
            "the data, the log and the requests are kept in {}",
            folder.display()
        ),
        Err(error) => eprintln!("the requests could not be written down: {error}"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {:.0} s", self.seed, self.took.as_secs_f64())?;
        for (kind, spread) in &self.requests {
            writeln!(f, "  {kind:<46} {spread}")?;
        }
        for (function, (snaptrade, dynamodb)) in &self.calls {
            writeln!(
                f,
                "  one {function} made at most {snaptrade} calls to SnapTrade and {dynamodb} to DynamoDB"
            )?;
        }
        writeln!(f, "  transitions {:?}", self.transitions)?;
        writeln!(
            f,
            "  {} evictions; at most {} places in use; {} users are left after {} syncs",
            self.evictions,
            self.most_in_use,
            self.users.len(),
            self.syncs
        )?;
        if self.surplus + self.refused > 0 {
            writeln!(
                f,
                "  {} connections came without a place of their own, and {} times SnapTrade had no room for a link",
                self.surplus, self.refused
            )?;
        }
        if self.faults.is_empty() {
            return write!(f, "nothing is wrong");
        }
        writeln!(f, "{} faults:", self.faults.len())?;
        for fault in &self.faults {
            writeln!(f, "- {fault}")?;
        }
        Ok(())
    }
}
