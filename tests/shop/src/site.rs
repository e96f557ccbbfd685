//! Where the story is played: a `berth local` process on a folder of its own, which is killed and started again, and
//! beside it the shop, the access API and the mail server, which nobody kills.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use berth::clock::Clock;
use berth_sandbox::access::{ACCESS_KEY, Options, Sandbox, WORDPRESS_KEY, WordPressAccess};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::function::Function;
use crate::reckoning::Second;
use crate::record::Table;
use crate::story;

/// The longest that a stack may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// The longest that a request may take; a schedule's may take its quarter of an hour.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1000);

/// The token of an operator.
const OPERATOR: &str = "dev:olga:operator";

#[derive(Debug, Clone, Deserialize)]
struct Urls {
    api: String,
    dynamodb: String,
}

/// An answer of the stack.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

/// The folder, the process, the sandboxes and their one clock.
pub struct Site {
    folder: PathBuf,
    program: PathBuf,
    log_level: String,
    sandbox: Sandbox,
    clock: Clock,
    http: reqwest::Client,
    running: Option<(Child, Urls)>,
}

impl Site {
    /// Prepares a site on `folder`, with the configuration that `configure` makes of the defaults; nothing runs yet but
    /// the sandboxes.
    pub async fn prepare(
        folder: &Path,
        berth: Option<&Path>,
        log_level: &str,
        begins: Second,
        configure: impl FnOnce(&mut Value),
    ) -> Result<Self, String> {
        let program = match berth {
            Some(program) => std::path::absolute(program).map_err(text)?,
            None => std::env::current_exe().map_err(text)?.with_file_name("berth"),
        };
        if !program.exists() {
            return Err(format!(
                "there is no {}: run `cargo build` first",
                program.display()
            ));
        }
        let clock = Clock::system();
        clock.set(story::time(begins));
        let listener = || TcpListener::bind("127.0.0.1:0");
        let (http, smtp) = (listener().await.map_err(text)?, listener().await.map_err(text)?);
        let options = Options {
            clock: clock.clone(),
            state_file: None,
            wordpress: WordPressAccess::default(),
            access_key_header: None,
        };
        let sandbox = Sandbox::start(http, smtp, options).await.map_err(text)?;
        let mail_port = sandbox
            .mail_url()
            .rsplit(':')
            .next()
            .and_then(|port| port.parse::<u16>().ok());
        let mut configuration = json!({
            "wordpress": {"base_url": sandbox.base_url(), "api_key": WORDPRESS_KEY, "timeout": 30},
            "tradingview": {
                "base_url": sandbox.base_url(), "api_key": ACCESS_KEY, "timeout": 2, "max_retries": 2,
                "retry_backoff_seconds": [0, 0, 0], "grants_per_second": 0, "validations_per_second": 0,
                "expiry_format": "datetime",
            },
            "email": {
                "smtp_server": "127.0.0.1", "smtp_port": mail_port, "tls": "none",
                "from_email": "shop@example.com", "operator_email": "operator@example.com",
            },
            "caps": {
                "max_revocations": 100_000, "max_grants_per_run": 1_000_000, "active_users_warning": 1_000_000,
            },
        });
        configure(&mut configuration);
        std::fs::write(folder.join("access.json"), configuration.to_string()).map_err(text)?;
        Ok(Self {
            folder: folder.to_owned(),
            program,
            log_level: log_level.to_owned(),
            sandbox,
            clock,
            http: berth::snaptrade::http_client().map_err(text)?,
            running: None,
        })
    }

    /// The milliseconds on the site's clock.
    pub fn now(&self) -> i64 {
        self.clock.now().as_millisecond()
    }

    /// Starts the stack on what the last one left.
    pub async fn start(&mut self) -> Result<(), String> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("berth.log"))
            .map_err(text)?;
        let ahead = (self.clock.ahead_ms() / 1000).max(0).to_string();
        let mut arguments: Vec<&str> = vec!["local", "--no-schedules"];
        for port in [
            "--port",
            "--snaptrade-port",
            "--dynamodb-port",
            "--access-port",
            "--mail-port",
        ] {
            arguments.extend([port, "0"]);
        }
        arguments.extend(["--access-config", "access.json", "--clock-ahead", &ahead]);
        let mut child = Command::new(&self.program)
            .args(&arguments)
            .current_dir(&self.folder)
            .env_clear()
            .env("LOG_LEVEL", &self.log_level)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(text)?;
        let mut out = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
        let first = tokio::time::timeout(STARTS_WITHIN, out.next_line()).await;
        let first = first.map_err(|_| format!("the stack did not start within {STARTS_WITHIN:?}"))?;
        let first = first
            .map_err(text)?
            .ok_or_else(|| format!("the stack ended at its start; see {}", self.log().display()))?;
        let urls: Urls = serde_json::from_str(&first).map_err(|error| format!("{error}: {first}"))?;
        let ready = out.next_line().await.map_err(text)?;
        if !ready.is_some_and(|line| line.starts_with("ready ")) {
            return Err("the stack did not say that it is ready".to_owned());
        }
        self.running = Some((child, urls));
        self.agree().await
    }

    /// Kills the stack's process with no warning at all.
    pub async fn kill(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            // SIGKILL, and the wait for the process to be gone.
            let _ = child.kill().await;
        }
    }

    /// The stack's table.
    pub async fn table(&self) -> Result<Table, String> {
        let (_, urls) = self.running.as_ref().ok_or("the stack does not run")?;
        Table::find(&urls.dynamodb, self.http.clone()).await
    }

    /// Where the stack's log is.
    pub fn log(&self) -> PathBuf {
        self.folder.join("berth.log")
    }

    /// Notes what a run did, for whoever has to find out how something came about.
    pub fn note(&self, run: &Value) -> Result<(), String> {
        let mut notes = (std::fs::OpenOptions::new().create(true).append(true))
            .open(self.folder.join("runs.jsonl"))
            .map_err(text)?;
        writeln!(notes, "{run}").map_err(text)
    }

    /// Starts the function `name` beside the stack.
    pub async fn function(&self, name: &str) -> Result<Function, String> {
        let (_, urls) = self.running.as_ref().ok_or("the stack does not run")?;
        Function::start(&self.program.with_file_name(name), &urls.dynamodb).await
    }

    /// Makes it `moment` for everybody.
    pub async fn set_clock(&self, moment: Second) -> Result<(), String> {
        self.clock.set(story::time(moment));
        self.agree().await
    }

    /// Gives the stack the time that the sandboxes have.
    async fn agree(&self) -> Result<(), String> {
        let now = self.clock.now();
        let url = format!("{}/__local/clock", self.api()?);
        let moved = self
            .http
            .put(url)
            .json(&json!({"now": now}))
            .send()
            .await
            .map_err(text)?;
        if moved.status().is_success() {
            Ok(())
        } else {
            Err(format!("the clock was not moved: {}", moved.status()))
        }
    }

    fn api(&self) -> Result<&str, String> {
        let (_, urls) = self.running.as_ref().ok_or("the stack does not run")?;
        Ok(&urls.api)
    }

    /// A call to the stack as an operator; `None` where it was cut off.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
        let method = method.parse().ok()?;
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.api().ok()?))
            .timeout(ANSWERS_WITHIN)
            .bearer_auth(OPERATOR);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let text = answer.text().await.ok()?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Some(Answer { status, body })
    }

    /// A control call to the sandboxes.
    pub async fn sandbox(&self, method: &str, call: &str, body: Option<&Value>) -> Result<Value, String> {
        let url = format!("{}/__sandbox/{call}", self.sandbox.base_url());
        let mut request = self.http.request(method.parse().map_err(text)?, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(text)?;
        let (status, body) = (answer.status(), answer.text().await.map_err(text)?);
        if !status.is_success() {
            return Err(format!("{call}: {status} {body}"));
        }
        serde_json::from_str(&body).map_err(text)
    }

    /// The requests that the sandboxes received since this was asked last. One that is still under way is waited for, but
    /// for not longer than `patience`: some are never answered.
    pub async fn requests(&self, patience: Duration) -> Result<Vec<Value>, String> {
        let started = Instant::now();
        loop {
            let requests = self.sandbox("GET", "requests", None).await?;
            let mut requests = requests.as_array().into_iter().flatten();
            let under_way = requests.any(|request| request["status"].is_null());
            if !under_way || started.elapsed() > patience {
                return Ok(self.sandbox.take_requests());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The most memory that a process ever took, in KiB, where the system tells.
pub fn most_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Anything's words.
pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
