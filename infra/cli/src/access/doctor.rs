//! `berth access doctor`: what cannot be known before the shop and the access API are looked at (facts/access.md D).
//!
//! It only reads: some of the shop's rows, one look-up of a name and one page of who has access.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use berth::access::configuration::{AccessApiKind, Configuration, Shop, ShopKind};
use berth::access::ids::ScriptId;
use berth::access::names::{Lookup, Username};
use berth::access::service::{AccessClient, Pacing};
use berth::access::shop::{Ask, ShopClient};
use berth::access::tally::Tally;
use berth::access::transactions::{Row, RowReader};
use berth::clock::Clock;
use berth::snaptrade::http_client;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::{ConfigurationFile, configuration};
use crate::Global;
use crate::command::{Refusal, tell};
use crate::exit::Exit;
use crate::progress::Progress;
use crate::verify_setup::{Check, finish};
use crate::words::{enumerate, number_of};

/// How many of the shop's rows are looked at.
const SAMPLE: usize = 1_000;

/// How long a look at the access API may take.
const LOOK: Duration = Duration::from_secs(60);

/// A name to look up where the shop has none; whether it exists does not matter.
const ANY_NAME: &str = "TradingView";

/// Some of the shop's rows, as they came.
struct Sample {
    raw: Vec<Value>,
    /// Whether these are all that there are.
    whole: bool,
}

/// Runs the command.
pub(super) async fn run(global: &Global, named: &ConfigurationFile) -> Exit {
    let found = match configuration::find(global, named).await {
        Ok(found) => found,
        Err(refusal) => return tell(global, &refusal),
    };
    let progress = Progress::without_end("Looking");
    let checks = examine(&found.configuration, &found.clock).await;
    drop(progress);
    let what = format!(
        "the shop at {} and the access API at {}",
        found.configuration.shop.base_url, found.configuration.access_api.base_url
    );
    found.close().await;
    match checks {
        Ok(checks) => finish(global, &what, &checks),
        Err(refusal) => tell(global, &refusal),
    }
}

async fn examine(configuration: &Configuration, clock: &Clock) -> Result<Vec<Check>, Refusal> {
    let http = http_client().map_err(|error| error.to_string())?;
    let tally = Arc::new(Tally::default());
    let shop = ShopClient::new(http.clone(), &configuration.shop, Arc::clone(&tally));
    let client = AccessClient::new(
        http,
        &configuration.access_api,
        Arc::new(Pacing::default()),
        tally,
        clock.clone(),
    );
    let now = clock.now();
    let mut checks = Vec::new();
    let mut rows = Vec::new();
    match sample(&shop).await {
        Ok(sample) => {
            let (read, check) = transactions(&sample, &configuration.shop, now);
            checks.push(check);
            checks.push(usernames(&sample.raw, &configuration.shop, now));
            checks.push(products(&read, configuration));
            if configuration.shop.kind == ShopKind::Site {
                checks.push(since(&shop, &read, &configuration.shop, now).await);
            }
            rows = read;
        }
        Err(reason) => checks.push(Check::broken(
            "shop",
            reason,
            "compare wordpress.base_url, its endpoint and its credentials with the shop's",
        )),
    }
    checks.push(look_up(&client, &rows).await);
    match configuration.scripts().first() {
        Some(script) => checks.push(list(&client, script, configuration.access_api.kind, now).await),
        None => checks.push(Check::warn(
            "list",
            "there is no script to list",
            "configure a product",
        )),
    }
    Ok(checks)
}

async fn sample(shop: &ShopClient) -> Result<Sample, String> {
    let mut scanning = shop.scan(Ask::All);
    let mut raw = Vec::new();
    while raw.len() < SAMPLE {
        match scanning.next().await {
            Ok(Some(chunk)) => raw.extend(chunk.rows),
            Ok(None) => return Ok(Sample { raw, whole: true }),
            Err(error) => return Err(format!("its transactions cannot be read: {error}")),
        }
    }
    Ok(Sample { raw, whole: false })
}

fn transactions(sample: &Sample, shop: &Shop, now: Timestamp) -> (Vec<Row>, Check) {
    const NAME: &str = "shop";
    let reader = RowReader::new(shop, now);
    let (mut rows, mut malformed) = (Vec::new(), Vec::new());
    for (raw, position) in sample.raw.iter().zip(1..) {
        match reader.read(raw, position) {
            Ok(row) => rows.push(row),
            Err(fault) => malformed.push(fault.to_string()),
        }
    }
    let read = format!(
        "{}{} read",
        if sample.whole { "all " } else { "the first " },
        number_of(sample.raw.len() as u64, "transaction", "transactions")
    );
    let check = match malformed.first() {
        None => Check::ok(NAME, read),
        Some(first) => Check::warn(
            NAME,
            format!(
                "{read}, of which {} cannot be used, such as {first}",
                malformed.len()
            ),
            "have the shop give those members",
        ),
    };
    (rows, check)
}

/// In which of the configured members the names at TradingView stand.
fn usernames(raw: &[Value], shop: &Shop, now: Timestamp) -> Check {
    const NAME: &str = "names";
    const MEND: &str = "set wordpress.username_fields to where the shop keeps them";
    let filled: Vec<(String, usize)> = (shop.username_fields.iter())
        .map(|field| {
            let only = Shop {
                username_fields: vec![field.clone()],
                ..shop.clone()
            };
            let reader = RowReader::new(&only, now);
            let rows = raw.iter().filter_map(|raw| reader.read(raw, 1).ok());
            (field.clone(), rows.filter(|row| !row.username.is_empty()).count())
        })
        .collect();
    let told: Vec<String> = filled
        .iter()
        .map(|(field, count)| format!("{field} in {count}"))
        .collect();
    let detail = format!("of {} rows: {}", raw.len(), told.join(", "));
    match filled.first() {
        _ if raw.is_empty() => Check::warn(
            NAME,
            "there are no rows to look at",
            "try again once something is sold",
        ),
        Some((_, count)) if *count == raw.len() => Check::ok(NAME, detail),
        _ if filled.iter().all(|(_, count)| *count == 0) => Check::broken(NAME, detail, MEND),
        // The login stands in for those who gave no name, and is somebody else's at TradingView.
        _ => Check::warn(NAME, detail, MEND),
    }
}

fn products(rows: &[Row], configuration: &Configuration) -> Check {
    const NAME: &str = "products";
    let unknown: BTreeSet<&str> = (rows.iter())
        .filter(|row| configuration.product(&row.product).is_none())
        .map(|row| row.product.as_str())
        .collect();
    if unknown.is_empty() {
        return Check::ok(NAME, "all that was sold is configured");
    }
    let names: Vec<String> = unknown.into_iter().map(str::to_owned).collect();
    Check::warn(
        NAME,
        format!("sold, but not configured: {}", enumerate(&names)),
        "add to products those that open a script",
    )
}

/// What the list's parameter for the earliest time means.
async fn since(shop: &ShopClient, rows: &[Row], configured: &Shop, now: Timestamp) -> Check {
    const NAME: &str = "since";
    let param = &configured.since_param;
    let Some(newest) = rows.iter().max_by_key(|row| row.created_at) else {
        return Check::ok(NAME, "there are no rows to try it with");
    };
    let reader = RowReader::new(configured, now);
    let (mut older, mut same) = (false, false);
    let mut scanning = shop.scan(Ask::Since(newest.created_at));
    loop {
        match scanning.next().await {
            Ok(Some(chunk)) => {
                for row in chunk.rows.iter().filter_map(|raw| reader.read(raw, 1).ok()) {
                    older |= row.created_at < newest.created_at;
                    same |= row.transaction == newest.transaction;
                }
                if older {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                let mend = format!("set wordpress.since_param, which is {param}, to what the shop knows");
                return Check::broken(
                    NAME,
                    format!("the list with {param} cannot be read: {error}"),
                    mend,
                );
            }
        }
    }
    match (older, same) {
        (true, _) => Check::warn(
            NAME,
            format!(
                "the shop gives older transactions than {param} asks for, so each run reads more than it needs"
            ),
            "set wordpress.since_param to what the shop knows",
        ),
        (false, true) => Check::ok(
            NAME,
            format!("{param} gives what was bought since, that very second included"),
        ),
        (false, false) => Check::ok(
            NAME,
            format!("{param} leaves that very second out, which the look-back covers"),
        ),
    }
}

async fn look_up(client: &AccessClient, rows: &[Row]) -> Check {
    const NAME: &str = "look-up";
    let written = rows.iter().find_map(|row| Username::parse(&row.username).ok());
    let Some(name) = written.or_else(|| Username::parse(ANY_NAME).ok()) else {
        return Check::ok(NAME, "there is no name to look up");
    };
    match client.look_up(&name, Instant::now() + LOOK).await {
        Ok(Lookup::Known(canonical)) => Check::ok(NAME, format!("{name} is known, spelt {canonical}")),
        Ok(Lookup::Unknown { suggestions }) => Check::ok(
            NAME,
            format!("{name} is not known; {} begin alike", suggestions.len()),
        ),
        Err(ended) => Check::broken(
            NAME,
            ended.to_string(),
            "compare tradingview.base_url, validate_endpoint and api_key with the access API's",
        ),
    }
}

/// Whether who has access can be listed, in pages, and whether whose access is over stays in the list.
async fn list(client: &AccessClient, script: &ScriptId, kind: AccessApiKind, now: Timestamp) -> Check {
    const NAME: &str = "list";
    if kind == AccessApiKind::Trendoscope {
        return Check::ok(NAME, "this kind of access API has none: each name is asked for");
    }
    match client.page(script, None, Instant::now() + LOOK).await {
        Ok(page) => {
            let over = page.users.iter().filter(|user| !user.expiry.is_live(now)).count();
            Check::ok(
                NAME,
                format!(
                    "{} of {script} on {}; of {} access is over",
                    number_of(page.users.len() as u64, "user", "users"),
                    if page.next.is_some() {
                        "the first page"
                    } else {
                        "the only page"
                    },
                    over
                ),
            )
        }
        Err(ended) => Check::broken(
            NAME,
            ended.to_string(),
            "compare tradingview.list_endpoint and api_key with the access API's",
        ),
    }
}
