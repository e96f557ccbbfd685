//! When the storm is over: lets things come to rest, and compares what SnapTrade, the table and the count say.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::counted;
use crate::crowd::Crowd;
use crate::dynamodb::DynamoDb;
use crate::history::{self, History};
use crate::links::Links;
use crate::site::Site;

/// Seconds after which whatever was leased or held by somebody who died may be taken: the longest visit to the portal,
/// which is an hour, and the skew. All other leases are shorter.
const EVERYTHING_LAPSED: i64 = 3_700;

/// How many syncs it may take until there is nothing left to do.
const SYNCS: u32 = 6;

/// Lets leases run out and syncs until a run finds nothing to do. Returns how many runs it took.
pub async fn settle(site: &Site, crowd: &Crowd) -> Result<u32, String> {
    for run in 1..=SYNCS {
        site.pass(EVERYTHING_LAPSED).await?;
        let answer = crowd.sync(site).await.ok_or("a sync was not answered")?;
        eprintln!("  sync: {} {}", answer.status, answer.body);
        let idle = ["added", "removed", "repaired"]
            .iter()
            .all(|name| answer.body[*name] == 0);
        if answer.status == 200 && idle && answer.body["complete"] == true {
            return Ok(run);
        }
    }
    Err(format!("{SYNCS} syncs in a row had something to do"))
}

/// What was left, and what was wrong with it.
pub struct Remains {
    /// The users that are registered.
    pub users: BTreeSet<String>,
    /// How often which transition was made.
    pub transitions: BTreeMap<String, u64>,
    /// How many gave way and were not put back.
    pub evictions: usize,
    /// The most places that were in use at a time.
    pub most_in_use: u64,
    /// Connections that came without a place of their own.
    pub surplus: usize,
    /// What does not fit together.
    pub faults: Vec<String>,
}

/// The table and SnapTrade as they are when all has come to rest.
struct Rest {
    items: Vec<Value>,
    snaptrade: Value,
    /// The users that are active in the table, by their ids at SnapTrade.
    tracked: BTreeMap<String, String>,
    faults: Vec<String>,
}

impl Rest {
    /// Reads both, and compares what they say of users.
    async fn read(site: &Site, table: &DynamoDb) -> Result<Self, String> {
        let mut rest = Self {
            items: table.items().await?,
            snaptrade: site.at_snaptrade()?,
            tracked: BTreeMap::new(),
            faults: Vec::new(),
        };
        let (active, reserved): (Vec<Value>, Vec<Value>) =
            (rest.of_kind("USER").cloned()).partition(|item| item["state"] == "active");
        let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
        rest.tracked = (active.iter())
            .map(|item| (text(item, "upstream"), text(item, "user_id")))
            .collect();
        let mut faults: Vec<String> = reserved
            .iter()
            .map(|item| format!("a reservation is left: {item}"))
            .collect();
        let lost = (rest.items.iter()).filter(|item| text(item, "sk").starts_with("FOREIGN"));
        faults.extend(lost.map(|item| format!("an id is at SnapTrade whose secret is lost: {item}")));
        let listed: BTreeSet<String> = rest
            .at_snaptrade("users")
            .iter()
            .map(|user| text(user, "id"))
            .collect();
        let known: BTreeSet<String> = rest.tracked.keys().cloned().collect();
        if listed != known {
            faults.push(format!("SnapTrade has {listed:?} and the table {known:?}"));
        }
        let going = rest
            .of_kind("GHOST")
            .filter(|ghost| ghost["state"] == "due" || listed.contains(&text(ghost, "upstream")));
        faults.extend(going.map(|ghost| format!("an id was to go and has not: {ghost}")));
        if rest.slots()["open"] != true {
            faults.push(format!("the places are closed: {}", rest.slots()));
        }
        if rest.slots()["held"]
            .as_object()
            .is_none_or(|held| !held.is_empty())
        {
            faults.push(format!("places are reserved still: {}", rest.slots()["held"]));
        }
        rest.faults = faults;
        Ok(rest)
    }

    fn of_kind(&self, sk: &'static str) -> impl Iterator<Item = &Value> {
        self.items.iter().filter(move |item| item["sk"] == sk)
    }

    fn slots(&self) -> Value {
        self.of_kind("SLOTS").next().cloned().unwrap_or_default()
    }

    fn at_snaptrade(&self, what: &str) -> Vec<Value> {
        self.snaptrade[what].as_array().cloned().unwrap_or_default()
    }

    /// Holds the count and the API's own status against what there really is.
    async fn compare_count(&mut self, site: &Site, crowd: &Crowd, truly: usize) -> Result<(), String> {
        let slots = self.slots();
        if slots["in_use"].as_u64() != Some(truly as u64) {
            self.faults
                .push(format!("{truly} places are taken, and the count says {slots}"));
        }
        let status = crowd.status(site).await.ok_or("the status was not answered")?;
        let users = self.tracked.len() as u64;
        let wanted = [
            ("current_count", truly as u64),
            ("tracked_count", users),
            ("upstream_count", users),
            ("users", users),
        ];
        let agrees = wanted
            .iter()
            .all(|(name, number)| status.body[*name].as_u64() == Some(*number));
        if !agrees || status.body["in_sync"] != true {
            let fault = format!(
                "{truly} of {users} users' places are taken, and the status says {}",
                status.body
            );
            self.faults.push(fault);
        }
        Ok(())
    }

    fn users(&self) -> BTreeSet<String> {
        self.tracked.values().cloned().collect()
    }
}

/// Compares everything with everything, where users count.
pub async fn inspect_users(
    site: &Site,
    crowd: &Crowd,
    limit: u64,
    protected: &BTreeSet<String>,
) -> Result<Remains, String> {
    let table = DynamoDb::new(&site.urls().await.dynamodb, site.http.clone());
    let mut rest = Rest::read(site, &table).await?;
    rest.compare_count(site, crowd, rest.tracked.len()).await?;
    let users = rest.users();
    if users.len() as u64 > limit {
        rest.faults
            .push(format!("{} users live at SnapTrade, of {limit}", users.len()));
    }
    for user in protected.difference(&users) {
        rest.faults.push(format!("{user} was protected and is gone"));
    }
    for user in &users {
        let answer = crowd.connection_url(site, user).await;
        if answer.as_ref().is_none_or(|answer| answer.status != 200) {
            rest.faults
                .push(format!("the secret of {user} does not work: {answer:?}"));
        }
    }
    let mut history = history::follow(&table.history().await?, limit);
    rest.faults.append(&mut history.faults);
    rest.faults.extend(missing_from_history(crowd, &history));
    Ok(Remains {
        users,
        transitions: history.transitions,
        evictions: history.evicted.len(),
        most_in_use: history.most_in_use,
        surplus: 0,
        faults: rest.faults,
    })
}

/// Compares everything with everything, where connections count. `protected` are the connections of those who were
/// protected all the time.
pub async fn inspect_connections(
    site: &Site,
    crowd: &Crowd,
    limit: u64,
    links: &Links,
    protected: &BTreeSet<String>,
) -> Result<Remains, String> {
    let table = DynamoDb::new(&site.urls().await.dynamodb, site.http.clone());
    let mut rest = Rest::read(site, &table).await?;

    // SnapTrade's connections, the records of them and the count.
    let living: BTreeSet<String> = (rest.at_snaptrade("connections").iter())
        .filter_map(|one| one["id"].as_str().map(str::to_owned))
        .collect();
    let mut known = BTreeSet::new();
    let mut faults = Vec::new();
    for record in rest.of_kind("CONNS") {
        known.extend(
            record["ids"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(id, _)| id.clone()),
        );
        let mut ids = record["ids"].as_object().into_iter().flatten();
        if !record["portal"].is_null() || ids.any(|(_, one)| !one["leaving"].is_null()) {
            faults.push(format!(
                "a visit or a connection on its way out is left: {record}"
            ));
        }
    }
    if known != living {
        faults.push(format!(
            "SnapTrade has the connections {living:?} and the table {known:?}"
        ));
    }
    let slots = rest.slots();
    let idle = ["leaving", "elsewhere"].iter().all(|name| slots[*name] == 0);
    if !idle
        || slots["portals"]
            .as_object()
            .is_none_or(|portals| !portals.is_empty())
    {
        faults.push(format!("something is under way still: {slots}"));
    }
    rest.faults.append(&mut faults);
    rest.compare_count(site, crowd, living.len()).await?;
    if living.len() as u64 > limit {
        rest.faults.push(format!(
            "{} connections live at SnapTrade, of {limit}",
            living.len()
        ));
    }
    for id in protected.difference(&living) {
        rest.faults
            .push(format!("the connection {id} of a protected user is gone"));
    }
    let users = rest.users();
    for user in &users {
        let answer = crowd.callback(site, user).await;
        if answer.as_ref().is_none_or(|answer| answer.status != 200) {
            rest.faults
                .push(format!("the secret of {user} does not work: {answer:?}"));
        }
    }

    // Whatever was made and is gone has given way or was deleted by its user, and whatever gave way is gone.
    let mut history = counted::follow(&table.history().await?, limit);
    rest.faults.append(&mut history.faults);
    // Whoever has a link has room, unless somebody else connected twice under one place.
    if history.surplus == 0 {
        rest.faults.extend(links.refused());
    }
    if links.is_certain() {
        let kept: BTreeSet<String> = links
            .kept_by_users()
            .difference(&history.evicted)
            .cloned()
            .collect();
        if kept != living {
            rest.faults.push(format!(
                "{kept:?} were made and neither gave way nor were deleted by their users; there are {living:?}"
            ));
        }
    }
    Ok(Remains {
        users,
        transitions: history.transitions,
        evictions: history.evicted.len(),
        most_in_use: history.most_in_use,
        surplus: history.surplus,
        faults: rest.faults,
    })
}

/// Whoever was told to be registered was, and whoever was said to have given way did.
fn missing_from_history(crowd: &Crowd, history: &History) -> Vec<String> {
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    let mut told_of_evictions = 0;
    for request in crowd.requests() {
        let Some(answer) = request
            .answer
            .filter(|answer| request.asked == "register" && answer.status == 201)
        else {
            continue;
        };
        *told.entry(request.user).or_default() += 1;
        told_of_evictions += u64::from(!answer.body["evicted"].is_null());
    }
    let mut registered: BTreeMap<&str, u64> = BTreeMap::new();
    for user in history.activated.values() {
        *registered.entry(user).or_default() += 1;
    }
    let mut faults = Vec::new();
    for (user, times) in told {
        let truly = registered.get(user.as_str()).copied().unwrap_or_default();
        if truly < times {
            faults.push(format!(
                "{user} was told {times} times to be registered anew, and was {truly} times"
            ));
        }
    }
    if told_of_evictions > history.evicted.len() as u64 {
        let truly = history.evicted.len();
        faults.push(format!(
            "{told_of_evictions} evictions were told of, and there were {truly}"
        ));
    }
    faults
}

/// The most calls that one request made, to SnapTrade and to DynamoDB, by function.
pub fn most_calls(calls: &[Value]) -> BTreeMap<String, (u64, u64)> {
    let mut most: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for call in calls {
        let number = |name: &str| call[name].as_u64().unwrap_or_default();
        let entry = most
            .entry(call["function"].as_str().unwrap_or_default().to_owned())
            .or_default();
        entry.0 = entry.0.max(number("snaptrade"));
        entry.1 = entry.1.max(number("dynamodb"));
    }
    most
}
