//! A large shop: its first sync looks each name up once and writes each changed end once, however many rows there are;
//! the next ones find nothing new and write nothing; and the process takes no more memory for ten times the rows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::journal::{self, Calls};
use crate::reckoning::{self, DAY, End, Expires, Gateway, Kind, Row, Second, Status};
use crate::site::{self, Answer, Site};
use crate::{LargeArguments, Report, rows, story};

/// When the sync runs: 2031-01-15.
const NOW: Second = 1_926_201_600;

/// How many rows are put into the shop at a time.
const AT_A_TIME: usize = 5000;

/// Most runs that a first sync may take.
const MOST_RUNS: u32 = 2000;

/// How long a request is waited for that a run has made and did not wait for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much smaller the shop is that the memory is held against.
const SMALLER: u32 = 10;

/// What one shop's syncs came to.
struct Measured {
    words: String,
    /// The most memory that the process took, in KiB.
    peak: u64,
}

/// Syncs a large shop, and one a tenth as large before it.
///
/// # Errors
/// When the stack cannot be started, or does not do what this needs.
pub async fn sync(arguments: &LargeArguments, folder: &Path) -> Result<Report, String> {
    let mut faults = Vec::new();
    let (rows, customers) = (arguments.rows, arguments.customers);
    let small = measure(
        arguments,
        folder,
        rows / SMALLER,
        customers / SMALLER,
        &mut faults,
    )
    .await?;
    let large = measure(arguments, folder, rows, customers, &mut faults).await?;
    let grown = large.peak.saturating_sub(small.peak) / 1024;
    if grown > arguments.most_growth_mib {
        faults.push(format!(
            "{SMALLER} times the rows took {grown} MiB more memory at most: {} KiB after {} KiB",
            large.peak, small.peak
        ));
    }
    let words = format!(
        "{}\n{}\n{SMALLER} times the rows took {grown} MiB more",
        small.words, large.words
    );
    Ok(Report { words, faults })
}

/// A customer's rows: a product for S1 and now and then one for S3, bought again and again before it ends.
fn rows_of(customer: u32, count: u32) -> Vec<Row> {
    (0..count)
        .map(|number| Row {
            id: u64::from(customer) * 1000 + u64::from(number),
            product: if customer.is_multiple_of(2) && number.is_multiple_of(3) {
                300
            } else {
                100
            },
            subscription: 0,
            kind: Kind::Payment,
            status: Status::Complete,
            created: NOW - i64::from(count - number) * 20 * DAY + i64::from(customer % 1000) * 60,
            expires: Expires::Unsaid,
            cents: 4900,
            gateway: Gateway::Stripe,
            number: format!("ch_{customer}_{number}"),
            cut: None,
            orphaned: false,
        })
        .collect()
}

async fn measure(
    arguments: &LargeArguments,
    folder: &Path,
    rows: u32,
    customers: u32,
    faults: &mut Vec<String>,
) -> Result<Measured, String> {
    let folder = folder.join(rows.to_string());
    std::fs::create_dir(&folder).map_err(site::text)?;
    let (berth, log_level) = (arguments.common.berth.as_deref(), &arguments.common.log_level);
    let prepared = Site::prepare(&folder, berth, log_level, NOW, |configuration| {
        configuration["products"] = json!({
            "100": {"script_id": "S1", "duration": "1M"},
            "300": {"script_id": "S3", "duration_days": 30},
        });
        // What is large here is the shop, and nobody is to wait for the clock of a small one.
        configuration["tradingview"]["timeout"] = json!(30);
    });
    let mut site = prepared.await?;
    eprintln!("{rows} rows of {customers} customers, in {}", folder.display());
    fill(&site, rows, customers).await?;
    site.start().await?;
    let told = drive(&site, rows, customers, faults).await;
    site.kill().await;
    told
}

async fn fill(site: &Site, rows: u32, customers: u32) -> Result<(), String> {
    let names: Vec<String> = (1..=customers).map(name).collect();
    site.sandbox("PUT", "usernames", Some(&json!(names))).await?;
    let mut told: Vec<Value> = Vec::new();
    for customer in 1..=customers {
        told.extend(
            rows_of(customer, rows / customers)
                .iter()
                .map(|row| rows::told(customer, &name(customer), row)),
        );
        if told.len() >= AT_A_TIME || customer == customers {
            site.sandbox("POST", "transactions", Some(&json!(told))).await?;
            told.clear();
        }
    }
    Ok(())
}

fn name(customer: u32) -> String {
    format!("Trader-{customer}_x")
}

async fn drive(site: &Site, rows: u32, customers: u32, faults: &mut Vec<String>) -> Result<Measured, String> {
    let idle = site.process().and_then(site::memory).unwrap_or_default();
    let started = Instant::now();
    // The schedule's runs may take a quarter of an hour, and go on with what the last one left.
    let (first, runs) = to_the_end(site, "/__local/schedules/access-sync").await?;
    let took = started.elapsed();
    let after_first = site.process().and_then(site::memory).unwrap_or_default();
    let waited = i64::try_from(took.as_secs()).unwrap_or(i64::MAX) + 2;
    let expected = expected(rows, customers, waited);
    let changed: usize = expected.values().map(BTreeMap::len).sum();
    let mut hold = |what: &str, is: u64, should: u64| {
        if is != should {
            faults.push(format!("{rows} rows: {what} instead of {should}: {is}"));
        }
    };
    hold("names looked up", first.validate, customers.into());
    hold(
        "writes",
        first.grant + first.update + first.remove,
        changed as u64,
    );

    let started = Instant::now();
    let (again, _) = to_the_end(site, "/api/access/sync").await?;
    let again_took = started.elapsed();
    hold("names looked up again", again.validate, 0);
    hold("writes again", again.grant + again.update + again.remove, 0);
    let started = Instant::now();
    let (whole, _) = to_the_end(site, "/__local/schedules/access-rescan").await?;
    let whole_took = started.elapsed();
    hold("names looked up in a full scan", whole.validate, 0);
    hold(
        "writes in a full scan",
        whole.grant + whole.update + whole.remove,
        0,
    );
    let after = site.process().and_then(site::memory).unwrap_or_default();

    for (script, ends) in expected {
        let listed = site.sandbox("GET", &format!("access/{script}"), None).await?;
        let found: BTreeMap<&str, &str> = listed
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|user| Some((user["username"].as_str()?, user["expiration"].as_str()?)))
            .collect();
        let wrong: Vec<_> = ends
            .iter()
            .filter(|(customer, (low, high))| {
                let listed = found.get(name(**customer).as_str());
                let listed = listed.and_then(|end| end.parse::<jiff::Timestamp>().ok());
                let end = listed.map_or(End::None, |end| End::At(end.as_second()));
                end < *low || end > *high
            })
            .collect();
        if let Some((customer, end)) = wrong.first() {
            let found = found.get(name(**customer).as_str());
            faults.push(format!(
                "{rows} rows: {} ends on {script} are wrong, the first that of customer {customer}: {end:?}, found {found:?}",
                wrong.len()
            ));
        }
    }
    let rate = |took: Duration| f64::from(rows) / took.as_secs_f64();
    let words = format!(
        "{rows} rows of {customers} customers: the first sync took {:.1} s in {runs} runs ({:.0} rows/s; {first:?}), the \
         next {:.1} s ({again:?}), a full scan without changes {:.1} s ({:.0} rows/s; {whole:?}); memory {} KiB at \
         first, at most {} KiB in the first sync, at most {} KiB in all, {} KiB at the end",
        took.as_secs_f64(),
        rate(took),
        again_took.as_secs_f64(),
        whole_took.as_secs_f64(),
        rate(whole_took),
        idle.1,
        after_first.0,
        after.0,
        after.1,
    );
    Ok(Measured { words, peak: after.0 })
}

/// Runs until nothing is left for another run. Returns the calls that were made, and how many runs it took.
async fn to_the_end(site: &Site, path: &str) -> Result<(Calls, u32), String> {
    let mut sum = Calls::default();
    for run in 1..=MOST_RUNS {
        let answer = site.call("POST", path, None).await;
        let calls = journal::count(&site.requests(PATIENCE).await?);
        sum = Calls {
            transactions: sum.transactions + calls.transactions,
            validate: sum.validate + calls.validate,
            grant: sum.grant + calls.grant,
            update: sum.update + calls.update,
            remove: sum.remove + calls.remove,
            list: sum.list + calls.list,
        };
        match answer {
            Some(Answer { status: 200, body }) if body["complete"] == json!(false) => {
                eprintln!(
                    "  after {run} runs: {} names, {} writes",
                    sum.validate,
                    sum.grant + sum.update
                );
            }
            Some(Answer { status: 200, .. }) => return Ok((sum, run)),
            other => return Err(format!("{path} was answered {other:?}")),
        }
    }
    Err(format!("{path} was not complete after {MOST_RUNS} runs"))
}

/// When whose access ends, by script, at the earliest and at the latest: whoever the first run did not get to is given
/// back what the others took.
fn expected(rows: u32, customers: u32, waited: Second) -> BTreeMap<&'static str, BTreeMap<u32, (End, End)>> {
    let products = story::products();
    let mut ends: BTreeMap<&'static str, BTreeMap<u32, (End, End)>> = BTreeMap::new();
    for customer in 1..=customers {
        let rows = rows_of(customer, rows / customers);
        for script in ["S1", "S3"] {
            let newest = rows.last().map_or(0, |row| row.id);
            let end = |waited: Second| {
                let credit = |row: u64| if row == newest { waited } else { 0 };
                reckoning::fold(&rows, script, &products, None, &credit)
            };
            // What is over already needs no access any more.
            if end(0) > End::At(NOW) {
                ends.entry(script)
                    .or_default()
                    .insert(customer, (end(0), end(waited)));
            }
        }
    }
    ends
}
