//! A long history: all transactions of an account arrive, each of them once, and the process takes hardly more memory
//! for ten times as many.
//!
//! Usage: `cargo build -p berth-cli -p transactions && target/debug/transactions`. Exit code 1 says that something was
//! found.
//!
//! The stack is a real `berth local` on a folder of its own, with the table in a file. SnapTrade's sandbox runs in this
//! process, so that what it holds does not count as the stack's memory.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use berth::clock::Clock;
use berth_sandbox::snaptrade::{CLIENT_ID, CONSUMER_KEY, Options, Sandbox};
use clap::Parser;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// How many transactions SnapTrade gives out in one answer.
const PAGE: u32 = 1000;

/// How much shorter the history is that the memory is held against.
const SHORTER: u32 = 10;

/// How long the transactions are waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is to be done.
#[derive(Debug, Parser)]
#[command(about = "Reads a long history of transactions into a local stack")]
struct Arguments {
    /// How many transactions the account has
    #[arg(long, default_value_t = 10_000)]
    count: u32,
    /// How much more memory they may take than a tenth of them, in MiB
    #[arg(long, default_value_t = 16)]
    most_growth_mib: u64,
    /// The program `berth`; the one beside this program where none is given
    #[arg(long)]
    berth: Option<PathBuf>,
}

/// Where a running stack answers.
#[derive(Debug, Deserialize)]
struct Urls {
    api: String,
}

/// A stack, SnapTrade beside it, and who talks to both.
struct Site {
    child: Child,
    api: String,
    sandbox: Sandbox,
    http: reqwest::Client,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let berth = arguments
        .berth
        .unwrap_or_else(|| std::env::current_exe().unwrap().with_file_name("berth"));
    let mut faults = Vec::new();
    let short = measure(&berth, arguments.count / SHORTER, &mut faults).await;
    let long = measure(&berth, arguments.count, &mut faults).await;
    let grown = long.saturating_sub(short) / 1024;
    println!("{SHORTER} times the transactions took {grown} MiB more");
    if grown > arguments.most_growth_mib {
        faults.push(format!("that is more than {} MiB", arguments.most_growth_mib));
    }
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Has an account with `count` transactions read; gives the most memory that the stack took, in KiB.
async fn measure(berth: &Path, count: u32, faults: &mut Vec<String>) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::start(berth, folder.path()).await;
    site.user("POST", "/api/snaptrade/register").await;
    let made = site.control("connect", json!({"user_id": "ada"})).await;
    let account = made["account_ids"][0].as_str().unwrap().to_owned();
    site.arrived(&account, None).await;
    let pages_before = site.pages(&account).await;
    let rows: Vec<Value> = (0..count).map(transaction).collect();
    let started = Instant::now();
    site.control(&format!("holdings/{account}"), json!({"activities": rows}))
        .await;
    site.arrived(&account, Some(&id(count - 1))).await;
    let took = started.elapsed();
    let pages = site.pages(&account).await - pages_before;
    let found = site.all(&account).await;
    let expected: BTreeSet<String> = (0..count).map(id).collect();
    let distinct: BTreeSet<String> = found.iter().cloned().collect();
    if distinct != expected || found.len() != distinct.len() {
        faults.push(format!(
            "{} transactions are there, {} of them different ones, instead of {count}",
            found.len(),
            distinct.len()
        ));
    }
    // A long history is no reason to give an event up.
    let dead_letters = site
        .call("dev:olga:operator", "GET", "/api/snaptrade/dead-letters")
        .await;
    if dead_letters["data"] != json!([]) {
        faults.push(format!("events were given up: {}", dead_letters["data"]));
    }
    let needed = count.div_ceil(PAGE) as usize;
    if pages != needed {
        faults.push(format!(
            "{count} transactions took {pages} pages instead of {needed}"
        ));
    }
    let peak = memory(site.child.id().unwrap()).unwrap_or_default();
    println!(
        "{count} transactions arrived in {:.1} s, in {pages} pages; memory at most {peak} KiB",
        took.as_secs_f64()
    );
    let _ = site.child.kill().await;
    peak
}

fn id(number: u32) -> String {
    format!("t{number:06}")
}

/// Transaction `number`: ten are made each day.
fn transaction(number: u32) -> Value {
    let day = number / 10;
    json!({
        "id": id(number), "type": "BUY", "units": number, "price": 0.1, "amount": -0.1, "fee": 0,
        "currency": {"code": "USD"}, "description": "Bought by a standing order, as every day of the year.",
        "trade_date": format!("{}-{:02}-{:02}T12:00:00Z", 2010 + day / 336, day / 28 % 12 + 1, day % 28 + 1),
    })
}

impl Site {
    async fn start(berth: &Path, folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = Options {
            clock: Clock::system(),
            state_file: None,
            webhook_url: None,
        };
        let sandbox = Sandbox::start(listener, options).await.unwrap();
        let mut command = Command::new(berth);
        command.args(["local", "--no-schedules", "--snaptrade", "live"]);
        for port in [
            "--port",
            "--snaptrade-port",
            "--dynamodb-port",
            "--access-port",
            "--mail-port",
        ] {
            command.args([port, "0"]);
        }
        let mut child = command
            .current_dir(folder)
            .env_clear()
            .env("LOG_LEVEL", "warn")
            .env("SNAPTRADE_BASE_URL", sandbox.base_url())
            .env("SNAPTRADE_CLIENT_ID", CLIENT_ID)
            .env("SNAPTRADE_CONSUMER_KEY", CONSUMER_KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = out.next_line().await.unwrap().unwrap();
        let urls: Urls = serde_json::from_str(&first).unwrap();
        assert!(out.next_line().await.unwrap().unwrap().starts_with("ready "));
        let site = Self {
            child,
            api: urls.api,
            sandbox,
            http: berth::snaptrade::http_client().unwrap(),
        };
        let webhook = format!("{}/api/snaptrade/webhook", site.api);
        site.control("settings", json!({"webhook_url": webhook})).await;
        site
    }

    async fn control(&self, call: &str, body: Value) -> Value {
        let url = format!("{}/__sandbox/{call}", self.sandbox.base_url());
        let request = self.http.post(url).header("content-type", "application/json");
        let response = request.body(body.to_string()).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{call}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn user(&self, method: &str, path: &str) -> Value {
        self.call("dev:ada", method, path).await
    }

    async fn call(&self, token: &str, method: &str, path: &str) -> Value {
        let request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.api));
        let response = request.bearer_auth(token).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until the account's transactions are read, with `newest` the newest of them.
    async fn arrived(&self, account: &str, newest: Option<&str>) {
        let path = format!("/api/portfolio/transactions?account_id=snaptrade_{account}&limit=1");
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            // The account is not known before the event that tells of it was worked on.
            let url = format!("{}{path}", self.api);
            let request = self.http.get(url).bearer_auth("dev:ada");
            let response = request.send().await.unwrap();
            let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
            let first = answer["data"][0]["transaction_id"].as_str();
            if answer["stale"] == false && newest.is_none_or(|newest| first == Some(newest)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("the transactions did not arrive within {PATIENCE:?}");
    }

    /// The ids of all transactions of the account, part by part.
    async fn all(&self, account: &str) -> Vec<String> {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let path =
                format!("/api/portfolio/transactions?account_id=snaptrade_{account}&limit=500{cursor}");
            let part = self.user("GET", &path).await;
            let rows = part["data"].as_array().unwrap();
            ids.extend(
                rows.iter()
                    .map(|row| row["transaction_id"].as_str().unwrap().to_owned()),
            );
            match part["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return ids,
            }
        }
    }

    /// How many pages of the account's transactions SnapTrade has given out.
    async fn pages(&self, account: &str) -> usize {
        let url = format!("{}/__sandbox/requests", self.sandbox.base_url());
        let text = self.http.get(url).send().await.unwrap().text().await.unwrap();
        let requests: Value = serde_json::from_str(&text).unwrap();
        let path = format!("/accounts/{account}/activities");
        requests
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["status"] == 200 && one["path"].as_str().unwrap().ends_with(&path))
            .count()
    }
}

/// The greatest size of a process in memory, in KiB, where the system tells.
fn memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
