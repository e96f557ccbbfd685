//! When the storm is over: lets things come to rest, and compares what SnapTrade, the table and the count say.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::crowd::Crowd;
use crate::dynamodb::DynamoDb;
use crate::history::{self, History};
use crate::site::Site;

/// Seconds after which whatever was leased or held by somebody who died may be taken: a hold's 300 and the skew.
const EVERYTHING_LAPSED: i64 = 310;

/// How many syncs it may take until there is nothing left to do.
const SYNCS: u32 = 6;

/// Lets leases run out and syncs until a run finds nothing to do. Returns how many runs it took.
pub async fn settle(site: &Site, crowd: &Crowd) -> Result<u32, String> {
    for run in 1..=SYNCS {
        site.pass(EVERYTHING_LAPSED).await?;
        let answer = crowd.sync(site).await.ok_or("a sync was not answered")?;
        if answer.status != 200 {
            eprintln!("  sync: {} {}", answer.status, answer.body);
            continue;
        }
        eprintln!("  sync: {}", answer.body);
        let idle = ["added", "removed", "repaired"]
            .iter()
            .all(|name| answer.body[*name] == 0);
        if idle && answer.body["complete"] == true {
            return Ok(run);
        }
    }
    Err(format!("{SYNCS} syncs in a row had something to do"))
}

/// What was left, and what was wrong with it.
pub struct Remains {
    /// The users that are registered.
    pub users: BTreeSet<String>,
    /// The table's history.
    pub history: History,
    /// What does not fit together.
    pub faults: Vec<String>,
}

/// Compares everything with everything.
pub async fn inspect(
    site: &Site,
    crowd: &Crowd,
    limit: u64,
    protected: &BTreeSet<String>,
) -> Result<Remains, String> {
    let table = DynamoDb::new(&site.urls().await.dynamodb, site.http.clone());
    let items = table.items().await?;
    let mut faults = Vec::new();
    let of_kind = |kind: &'static str| {
        items
            .iter()
            .filter(move |item| item["sk"].as_str().is_some_and(|sk| sk == kind))
    };

    // Who is tracked, under which id, and who is at SnapTrade.
    let mut tracked: BTreeMap<String, String> = BTreeMap::new();
    for item in of_kind("USER") {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        if item["state"] == "active" {
            tracked.insert(text("upstream"), text("user_id"));
        } else {
            faults.push(format!("a reservation is left: {item}"));
        }
    }
    for item in items
        .iter()
        .filter(|item| item["sk"].as_str().is_some_and(|sk| sk.starts_with("FOREIGN")))
    {
        faults.push(format!("an id is at SnapTrade whose secret is lost: {item}"));
    }
    let snaptrade = site.at_snaptrade()?;
    let listed: BTreeSet<String> = (snaptrade["users"].as_array().into_iter().flatten())
        .filter_map(|user| user["id"].as_str().map(str::to_owned))
        .collect();
    let known: BTreeSet<String> = tracked.keys().cloned().collect();
    if listed != known {
        faults.push(format!("SnapTrade has {listed:?} and the table {known:?}"));
    }

    // The count.
    let slots = of_kind("SLOTS").next().cloned().unwrap_or_default();
    if slots["in_use"].as_u64() != Some(known.len() as u64) || slots["open"] != true {
        faults.push(format!("{} are tracked and the places say {slots}", known.len()));
    }
    if slots["held"].as_object().is_none_or(|held| !held.is_empty()) {
        faults.push(format!("places are reserved still: {}", slots["held"]));
    }
    if known.len() as u64 > limit {
        faults.push(format!("{} users live at SnapTrade, of {limit}", known.len()));
    }
    for ghost in of_kind("GHOST") {
        if ghost["state"] == "due" || listed.contains(ghost["upstream"].as_str().unwrap_or_default()) {
            faults.push(format!("an id was to go and has not: {ghost}"));
        }
    }

    // What the API itself says of it.
    let status = crowd.status(site).await.ok_or("the status was not answered")?;
    let counts = ["current_count", "tracked_count", "upstream_count", "users"];
    let agrees = |name: &&'static str| status.body[*name].as_u64() == Some(known.len() as u64);
    if status.body["in_sync"] != true || !counts.iter().all(agrees) {
        faults.push(format!(
            "{} are tracked and the status says {}",
            known.len(),
            status.body
        ));
    }

    // Every secret works, and those who were protected are here.
    let users: BTreeSet<String> = tracked.into_values().collect();
    for user in &users {
        let answer = crowd.connection_url(site, user).await;
        if answer.as_ref().is_none_or(|answer| answer.status != 200) {
            faults.push(format!("the secret of {user} does not work: {answer:?}"));
        }
    }
    for user in protected.difference(&users) {
        faults.push(format!("{user} was protected and is gone"));
    }

    let mut history = history::follow(&table.history().await?, limit);
    faults.append(&mut history.faults);
    faults.extend(missing_from_history(crowd, &history));
    Ok(Remains {
        users,
        history,
        faults,
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
