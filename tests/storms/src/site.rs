//! Where the storm rages: a `berth local` process on a folder of its own, which is killed and started again, and
//! SnapTrade's sandbox, within it or beside it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use berth::clock::Clock;
use berth_sandbox::snaptrade::{CLIENT_ID, CONSUMER_KEY, Options, Sandbox};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::{Arguments, Kind, Place, weather};

/// The longest that a stack may take to start. Its first sync may meet a SnapTrade that does not answer.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Where a running stack answers.
#[derive(Debug, Clone, Deserialize)]
pub struct Urls {
    /// The API.
    pub api: String,
    /// SnapTrade's sandbox.
    pub snaptrade: String,
    /// DynamoDB.
    pub dynamodb: String,
}

/// The folder, the processes and the clock.
pub struct Site {
    folder: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// SnapTrade's sandbox, where it survives the stack.
    beside: Option<Sandbox>,
    /// The clock of the sandbox beside, and how far the stack's own has to be ahead.
    clock: Clock,
    child: Mutex<Option<Child>>,
    up: watch::Sender<Option<Urls>>,
    /// For control calls.
    pub http: reqwest::Client,
    settings: Value,
    weather: Mutex<Vec<Value>>,
    moved: AtomicU32,
}

impl Site {
    /// Prepares a site on `folder`; nothing runs yet but the sandbox beside the stack, where there is one.
    pub async fn prepare(folder: &Path, arguments: &Arguments) -> Result<Self, String> {
        let program = match &arguments.berth {
            Some(program) => program.clone(),
            None => std::env::current_exe()
                .map_err(|error| error.to_string())?
                .with_file_name("berth"),
        };
        if !program.exists() {
            return Err(format!(
                "there is no {}: run `cargo build` first",
                program.display()
            ));
        }
        let clock = Clock::system();
        let mut environment = vec![("LOG_LEVEL".to_owned(), arguments.log_level.clone())];
        let mut options: Vec<String> = ["local", "--no-schedules"].map(str::to_owned).into();
        for port in [
            "--port",
            "--snaptrade-port",
            "--dynamodb-port",
            "--access-port",
            "--mail-port",
        ] {
            options.extend([port.to_owned(), "0".to_owned()]);
        }
        options.extend(["--limit".to_owned(), arguments.limit.to_string()]);
        let beside = match arguments.sandbox {
            Place::Within => None,
            Place::Beside => {
                let listener = TcpListener::bind("127.0.0.1:0").await.map_err(text)?;
                let sandbox = Sandbox::start(
                    listener,
                    Options {
                        clock: clock.clone(),
                        state_file: Some(folder.join(".berth/snaptrade.json")),
                        webhook_url: None,
                    },
                );
                let sandbox = sandbox.await.map_err(text)?;
                options.extend(["--snaptrade".to_owned(), "live".to_owned()]);
                for (name, value) in [
                    ("SNAPTRADE_BASE_URL", sandbox.base_url()),
                    ("SNAPTRADE_CLIENT_ID", CLIENT_ID),
                    ("SNAPTRADE_CONSUMER_KEY", CONSUMER_KEY),
                ] {
                    environment.push((name.to_owned(), value.to_owned()));
                }
                Some(sandbox)
            }
        };
        let limit = (!arguments.boundless).then_some(arguments.limit);
        let (user_limit, connection_limit) = if arguments.kind == Kind::Connections {
            options.extend(["--counts".to_owned(), "connections".to_owned()]);
            (None, limit)
        } else {
            (limit, None)
        };
        Ok(Self {
            folder: folder.to_owned(),
            program,
            arguments: options,
            environment,
            beside,
            clock,
            child: Mutex::default(),
            up: watch::Sender::new(None),
            http: berth::snaptrade::http_client().map_err(text)?,
            // SnapTrade's limit on calls is another matter; here as many as possible are to meet.
            settings: json!({
                "rate_limit_per_minute": null,
                "user_limit": user_limit,
                "connection_limit": connection_limit,
            }),
            weather: Mutex::default(),
            moved: AtomicU32::new(0),
        })
    }

    /// Starts the stack on what the last one left, and lets everybody know where it is.
    pub async fn start(&self) -> Result<(), String> {
        let started = Instant::now();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("berth.log"))
            .map_err(text)?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .args(["--clock-ahead", &(self.clock.ahead_ms() / 1000).to_string()])
            .current_dir(&self.folder)
            .env_clear()
            .envs(self.environment.iter().cloned())
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
            .ok_or("the stack ended at its start; see berth.log")?;
        let urls: Urls = serde_json::from_str(&first).map_err(|error| format!("{error}: {first}"))?;
        let ready = out.next_line().await.map_err(text)?;
        if !ready.is_some_and(|line| line.starts_with("ready ")) {
            return Err("the stack did not say that it is ready".to_owned());
        }
        *self.child.lock().unwrap() = Some(child);
        let mut settings = self.settings.clone();
        settings["webhook_url"] = format!("{}/api/snaptrade/webhook", urls.api).into();
        self.control(&urls, "settings", &settings).await?;
        if self.beside.is_none() {
            // Faults do not survive the sandbox's process.
            self.arm(&urls).await?;
        }
        eprintln!("  the stack is up after {:.1} s", started.elapsed().as_secs_f64());
        self.up.send_replace(Some(urls));
        Ok(())
    }

    /// Kills the stack's process with no warning at all.
    pub async fn kill(&self) {
        self.up.send_replace(None);
        let child = self.child.lock().unwrap().take();
        if let Some(mut child) = child {
            // SIGKILL, and the wait for the process to be gone.
            let _ = child.kill().await;
        }
    }

    /// Where the stack is, as soon as it is up.
    pub async fn urls(&self) -> Urls {
        let mut up = self.up.subscribe();
        let urls = up
            .wait_for(Option::is_some)
            .await
            .expect("the site outlives its visitors");
        urls.clone().expect("it was waited for")
    }

    /// Whether the stack is up and is where it was.
    pub fn is_at(&self, urls: &Urls) -> bool {
        self.up.borrow().as_ref().is_some_and(|now| now.api == urls.api)
    }

    /// Lets seconds pass while the stack is down.
    pub fn pass_while_down(&self, seconds: i64) {
        self.moved.fetch_add(1, Ordering::Relaxed);
        self.clock.advance(seconds);
    }

    /// How often the clock was moved so far.
    pub fn times_moved(&self) -> u32 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Lets seconds pass for everybody at once, as if all that runs had stood still for so long.
    pub async fn pass(&self, seconds: i64) -> Result<(), String> {
        let urls = self.urls().await;
        self.moved.fetch_add(1, Ordering::Relaxed);
        let moved = self.http.put(format!("{}/__local/clock", urls.api));
        let moved = moved
            .json(&json!({"advance_seconds": seconds}))
            .send()
            .await
            .map_err(text)?;
        if !moved.status().is_success() {
            return Err(format!("the clock was not moved: {}", moved.status()));
        }
        self.clock.advance(seconds);
        Ok(())
    }

    /// Lets SnapTrade fail from now on as `faults` say.
    pub async fn raise(&self, faults: Vec<Value>) -> Result<(), String> {
        *self.weather.lock().unwrap() = faults;
        self.arm(&self.urls().await).await
    }

    /// Lets SnapTrade answer well again.
    pub async fn calm(&self) -> Result<(), String> {
        self.weather.lock().unwrap().clear();
        let urls = self.urls().await;
        self.control(&urls, "faults", &weather::clear()).await.map(drop)
    }

    async fn arm(&self, urls: &Urls) -> Result<(), String> {
        let faults = self.weather.lock().unwrap().clone();
        for fault in &faults {
            self.control(urls, "faults", fault).await?;
        }
        Ok(())
    }

    /// A control call to the sandbox.
    pub async fn control(&self, urls: &Urls, call: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}/__sandbox/{call}", urls.snaptrade);
        let answer = self.http.post(url).json(body).send().await.map_err(text)?;
        let (status, body) = (answer.status(), answer.text().await.map_err(text)?);
        if !status.is_success() {
            return Err(format!("{call}: {status} {body}"));
        }
        serde_json::from_str(&body).map_err(text)
    }

    /// What SnapTrade knows, as its sandbox wrote it down.
    pub fn at_snaptrade(&self) -> Result<Value, String> {
        let state = std::fs::read(self.folder.join(".berth/snaptrade.json")).map_err(text)?;
        serde_json::from_slice(&state).map_err(text)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
