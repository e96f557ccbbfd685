//! A large shop: its first sync looks each name up once and writes each changed end once, however many rows there are;
//! the next ones find nothing new and write nothing; and no function takes more memory for ten times the rows.
//!
//! The functions' own programs do it, as Lambda runs them, beside a local stack. So what is measured is theirs alone,
//! without the engine that stands for DynamoDB, which keeps what it holds in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::function::{self, Function};
use crate::journal::{self, Calls};
use crate::reckoning::{self, DAY, End, Expires, Gateway, Kind, Row, Second, Status};
use crate::site::{self, Site};
use crate::{LargeArguments, Report, rows, story};

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
    /// The most memory that a function took, in KiB.
    peak: u64,
}

/// The shop of one size.
#[derive(Debug, Clone, Copy)]
struct Shop {
    rows: u32,
    customers: u32,
    /// When it is synced. The functions go by the machine's clock.
    now: Second,
}

/// Syncs a large shop, and one a tenth as large before it.
///
/// # Errors
/// When the stack cannot be started, or does not do what this needs.
pub async fn sync(arguments: &LargeArguments, folder: &Path) -> Result<Report, String> {
    let mut faults = Vec::new();
    let large = Shop {
        rows: arguments.rows,
        customers: arguments.customers,
        now: jiff::Timestamp::now().as_second(),
    };
    let small = Shop {
        rows: large.rows / SMALLER,
        customers: large.customers / SMALLER,
        ..large
    };
    let small = measure(arguments, folder, small, &mut faults).await?;
    let large = measure(arguments, folder, large, &mut faults).await?;
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

impl Shop {
    /// A customer's rows: a product for S1 and now and then one for S3, bought again and again before it ends.
    fn rows_of(self, customer: u32) -> Vec<Row> {
        let count = self.rows / self.customers;
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
                created: self.now - i64::from(count - number) * 20 * DAY + i64::from(customer % 1000) * 60,
                expires: Expires::Unsaid,
                cents: 4900,
                gateway: Gateway::Stripe,
                number: format!("ch_{customer}_{number}"),
                cut: None,
                orphaned: false,
            })
            .collect()
    }

    /// When whose access ends, by script, at the earliest and at the latest: whoever the first run did not get to is given
    /// back what the others took.
    fn expected(self, waited: Second) -> BTreeMap<&'static str, BTreeMap<u32, (End, End)>> {
        let products = story::products();
        let mut ends: BTreeMap<&'static str, BTreeMap<u32, (End, End)>> = BTreeMap::new();
        for customer in 1..=self.customers {
            let rows = self.rows_of(customer);
            for script in ["S1", "S3"] {
                let newest = rows.last().map_or(0, |row| row.id);
                let end = |waited: Second| {
                    let credit = |row: u64| if row == newest { waited } else { 0 };
                    reckoning::fold(&rows, script, &products, None, &credit)
                };
                // What is over already needs no access any more.
                if end(0) > End::At(self.now) {
                    ends.entry(script)
                        .or_default()
                        .insert(customer, (end(0), end(waited)));
                }
            }
        }
        ends
    }
}

async fn measure(
    arguments: &LargeArguments,
    folder: &Path,
    shop: Shop,
    faults: &mut Vec<String>,
) -> Result<Measured, String> {
    let Shop { rows, customers, now } = shop;
    let folder = folder.join(rows.to_string());
    std::fs::create_dir(&folder).map_err(site::text)?;
    let (berth, log_level) = (arguments.common.berth.as_deref(), &arguments.common.log_level);
    let prepared = Site::prepare(&folder, berth, log_level, now, |configuration| {
        configuration["products"] = json!({
            "100": {"script_id": "S1", "duration": "1M"},
            "300": {"script_id": "S3", "duration_days": 30},
        });
        // What is large here is the shop, and nobody is to wait for the clock of a small one.
        configuration["tradingview"]["timeout"] = json!(30);
    });
    let mut site = prepared.await?;
    eprintln!("{rows} rows of {customers} customers, in {}", folder.display());
    fill(&site, shop).await?;
    site.start().await?;
    let told = drive(&site, shop, faults).await;
    site.kill().await;
    told
}

async fn fill(site: &Site, shop: Shop) -> Result<(), String> {
    let names: Vec<String> = (1..=shop.customers).map(name).collect();
    site.sandbox("PUT", "usernames", Some(&json!(names))).await?;
    let mut told: Vec<Value> = Vec::new();
    for customer in 1..=shop.customers {
        told.extend(
            shop.rows_of(customer)
                .iter()
                .map(|row| rows::told(customer, &name(customer), row)),
        );
        if told.len() >= AT_A_TIME || customer == shop.customers {
            site.sandbox("POST", "transactions", Some(&json!(told))).await?;
            told.clear();
        }
    }
    Ok(())
}

fn name(customer: u32) -> String {
    format!("Trader-{customer}_x")
}

async fn drive(site: &Site, shop: Shop, faults: &mut Vec<String>) -> Result<Measured, String> {
    let Shop { rows, customers, .. } = shop;
    let mut sync = site.function("access-sync-schedule").await?;
    let started = Instant::now();
    // The schedule's runs may take a quarter of an hour, and go on with what the last one left.
    let (first, runs) = to_the_end(site, &mut sync, &function::scheduled()).await?;
    let took = started.elapsed();
    let sync = sync.most_memory();
    let waited = i64::try_from(took.as_secs()).unwrap_or(i64::MAX) + 2;
    let expected = shop.expected(waited);
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

    let mut by_request = site.function("access-sync").await?;
    let started = Instant::now();
    let asked = function::request("POST", "/api/access/sync");
    let (again, _) = to_the_end(site, &mut by_request, &asked).await?;
    let again_took = started.elapsed();
    let by_request = by_request.most_memory();
    hold("names looked up again", again.validate, 0);
    hold("writes again", again.grant + again.update + again.remove, 0);
    let mut rescan = site.function("access-rescan-schedule").await?;
    let started = Instant::now();
    let (whole, _) = to_the_end(site, &mut rescan, &function::scheduled()).await?;
    let whole_took = started.elapsed();
    let rescan = rescan.most_memory();
    hold("names looked up in a full scan", whole.validate, 0);
    hold(
        "writes in a full scan",
        whole.grant + whole.update + whole.remove,
        0,
    );
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
         next {:.1} s ({again:?}), a full scan without changes {:.1} s ({:.0} rows/s; {whole:?}); the functions took at \
         most {} KiB, {} KiB and {} KiB of memory",
        took.as_secs_f64(),
        rate(took),
        again_took.as_secs_f64(),
        whole_took.as_secs_f64(),
        rate(whole_took),
        sync,
        by_request,
        rescan,
    );
    Ok(Measured {
        words,
        peak: sync.max(by_request).max(rescan),
    })
}

/// Hands a function the same event until nothing is left for another run. Returns the calls that were made, and how many
/// runs it took.
async fn to_the_end(site: &Site, function: &mut Function, event: &Value) -> Result<(Calls, u32), String> {
    let mut sum = Calls::default();
    for run in 1..=MOST_RUNS {
        let answer = function.invoke(event).await?;
        let calls = journal::count(&site.requests(PATIENCE).await?);
        sum = Calls {
            transactions: sum.transactions + calls.transactions,
            validate: sum.validate + calls.validate,
            grant: sum.grant + calls.grant,
            update: sum.update + calls.update,
            remove: sum.remove + calls.remove,
            list: sum.list + calls.list,
        };
        let report = match answer["body"].as_str() {
            Some(body) if answer["statusCode"] == json!(200) => {
                serde_json::from_str(body).map_err(site::text)?
            }
            Some(_) => return Err(format!("it was answered {answer}")),
            None => answer,
        };
        if report["complete"] == json!(true) {
            return Ok((sum, run));
        }
        eprintln!(
            "  after {run} runs: {} names, {} writes",
            sum.validate,
            sum.grant + sum.update
        );
    }
    Err(format!("it was not complete after {MOST_RUNS} runs"))
}
