//! No secret leaves the process by its log or by an answer that has no business with it.
//!
//! A log belongs to a whole process, so the journey whose log is read runs in a process of its own: this test binary
//! once more, with the subscribers that the deployed functions and `berth local` install, at their finest level.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use berth::telemetry::logs::{self, LogLevel};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, issued_secrets};

/// Where the journey keeps its data, and that it is to run at all.
const DIRECTORY: &str = "BERTH_SCENARIOS_LOGGED";

/// In which form the journey logs: `json` or `text`.
const FORM: &str = "BERTH_SCENARIOS_LOG_FORM";

/// What must not be in a log, collected on the way.
#[derive(Default)]
struct Secrets(BTreeSet<String>);

impl Secrets {
    fn of_users(&mut self, directory: &Path) {
        self.0.extend(issued_secrets(directory));
    }

    /// The parts of a link to the portal that open it.
    fn of_link(&mut self, link: &str) {
        self.0.insert(link.to_owned());
        let url = url::Url::parse(link).unwrap();
        self.0.extend(
            url.query_pairs()
                .map(|(_, value)| value.into_owned())
                .filter(|value| value.len() > 15),
        );
    }
}

/// Everything that can be done, well and badly, with secrets in hand.
async fn journey(directory: &Path) {
    let world = World::on(directory).await;
    let mut secrets = Secrets::default();
    let mut links = Vec::new();
    for user in ["ada", "bob", "cy", "dee", "eve", "fay"] {
        world.register(user).await.with_status(201);
        secrets.of_users(directory);
    }
    let link = world.connection_url("fay", json!({})).await.with_status(200);
    links.push(link["connection_url"].as_str().unwrap().to_owned());
    let (connection, account) = world.connect("fay").await;
    world.events_done().await;
    world.callback("fay", json!({})).await.with_status(200);
    world.refresh("fay", json!({})).await.with_status(200);
    world
        .sandbox(&format!("holdings/{account}"), json!({"positions": []}))
        .await;
    world
        .sandbox(&format!("connections/{connection}/break"), json!({}))
        .await;
    world.reset_secret("eve").await.with_status(200);
    secrets.of_users(directory);
    world.recreate("dee").await.with_status(201);
    secrets.of_users(directory);
    world.delete_user("cy").await.with_status(200);
    world.sync().await.with_status(200);
    world.events_done().await;

    for operation in [
        "registerUser",
        "deleteUser",
        "listUsers",
        "login",
        "resetUserSecret",
        "*",
    ] {
        for (kind, status) in [
            ("status", 500),
            ("status", 401),
            ("status", 429),
            ("malformed", 0),
            ("limit_reached", 0),
        ] {
            let fault = if kind == "status" {
                json!({"operation": operation, "kind": kind, "status": status, "times": 2})
            } else {
                json!({"operation": operation, "kind": kind, "times": 2})
            };
            world.sandbox("faults", fault).await;
            match operation {
                "registerUser" => drop(world.register("gus").await),
                "deleteUser" => drop(world.delete_user("gus").await),
                "listUsers" => drop(world.sync().await),
                "login" => drop(world.connection_url("fay", json!({})).await),
                "resetUserSecret" => drop(world.reset_secret("eve").await),
                _ => drop(world.refresh("fay", json!({})).await),
            }
            world.clear_faults().await;
            secrets.of_users(directory);
        }
    }
    world.fault("registerUser", "commit_then_timeout", 1).await;
    world.fault("login", "timeout", 1).await;
    tokio::join!(world.register("hal"), world.connection_url("fay", json!({})));
    secrets.of_users(directory);
    world.dynamodb().fail_next(8, berth_local::Fault::LostAnswer);
    world.register("ivy").await;
    world.dynamodb().fail_next(20, berth_local::Fault::Error500);
    world.register("jan").await;
    world.settle().await;
    secrets.of_users(directory);

    // What a caller says is not repeated either.
    let said = "correct-horse-battery-staple";
    let forged = json!({
        "webhookId": "w-1", "webhookSecret": said, "clientId": "SANDBOX-CLIENT", "eventType": "USER_DELETED",
        "eventTimestamp": Timestamp::now().to_string(), "userId": "nobody",
    });
    world.send_event(&forged).await.with_status(200);
    world
        .send_webhook(forged.to_string().into_bytes(), Some(said))
        .await;
    for body in [
        format!("{{\"userSecret\": \"{said}\""),
        format!("{{\"user_id\": [\"{said}\"]}}"),
    ] {
        let request = world
            .as_user("ada", Method::POST, "/api/snaptrade/register")
            .body(body);
        world.send(request).await;
    }
    let request = world
        .request(Method::GET, &format!("/api/snaptrade/status?userSecret={said}"))
        .bearer_auth(said);
    world.send(request).await;
    let request = world.as_user("ada", Method::GET, &format!("/nowhere?userSecret={said}"));
    world.send(request).await;
    secrets.0.insert(said.to_owned());
    world.events_done().await;

    let keys: Value =
        serde_json::from_str(&std::fs::read_to_string(directory.join("data-keys.json")).unwrap()).unwrap();
    collect_keys(&keys, &mut secrets);
    // Links are answered to whoever asked for them, so they are looked for in logs and problems only.
    let answers: Vec<String> = world
        .answers()
        .iter()
        .map(|answer| format!("{} {:?}", answer.text, answer.headers))
        .collect();
    for answer in &answers {
        assert_clean("an answer", answer, &secrets);
    }
    for link in &links {
        secrets.of_link(link);
    }
    for answer in world.answers().iter().filter(|answer| answer.status >= 400) {
        assert_clean("a problem", &answer.text, &secrets);
    }
    world.stop().await;
    let found = serde_json::to_string(&secrets.0).unwrap();
    std::fs::write(directory.join("secrets-of-the-journey.json"), found).unwrap();
}

/// Texts that are long enough to be key material.
fn collect_keys(keys: &Value, secrets: &mut Secrets) {
    match keys {
        Value::String(text) if text.len() >= 32 => {
            secrets.0.insert(text.clone());
        }
        Value::Array(parts) => parts.iter().for_each(|part| collect_keys(part, secrets)),
        Value::Object(parts) => parts.values().for_each(|part| collect_keys(part, secrets)),
        _ => {}
    }
}

#[track_caller]
fn assert_clean(what: &str, text: &str, secrets: &Secrets) {
    for secret in &secrets.0 {
        assert!(
            !text.contains(secret.as_str()),
            "{what} holds the secret {secret}:\n{text}"
        );
    }
    for word in [
        "sandbox-consumer-key",
        "userSecret=",
        "consumerKey=",
        "Bearer dev:",
    ] {
        assert!(!text.contains(word), "{what} holds {word}:\n{text}");
    }
    // A signature is 32 bytes in Base64: 43 characters and a sign of equality.
    let signature = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || "+/=".contains(c)))
        .find(|word| word.len() == 44 && word.ends_with('=') && !word.ends_with("=="));
    assert_eq!(signature, None, "{what} holds a signature:\n{text}");
}

/// Goes on the journey with the logs in the form that the parent asked for.
async fn be_logged(directory: &str) {
    match std::env::var(FORM).as_deref() {
        Ok("json") => logs::init_json(LogLevel::Trace),
        _ => logs::init_text(LogLevel::Trace),
    }
    journey(Path::new(directory)).await;
}

/// Runs the journey in a process of its own and gives all that it wrote, and what must not be in it.
async fn logged(form: &str) -> (String, Secrets) {
    let directory = tempfile::tempdir().unwrap();
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "logs::no_secret_is_in_any_log_line_or_answer",
            "--nocapture",
        ])
        .env(DIRECTORY, directory.path())
        .env(FORM, form)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let written = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{written}");
    let found = std::fs::read_to_string(directory.path().join("secrets-of-the-journey.json")).unwrap();
    (written, Secrets(serde_json::from_str(&found).unwrap()))
}

/// The test runs itself twice in a process of its own, because a logger is set up once in a process and all that the
/// process writes is to be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_any_log_line_or_answer() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return be_logged(&directory).await;
    }
    let (json, text) = tokio::join!(logged("json"), logged("text"));
    for (log, secrets) in [json, text] {
        // The log is there, with the lines of requests and of what failed.
        for word in ["register", "connection-url", "SnapTrade did not register a user"] {
            assert!(log.contains(word), "the log says nothing of {word}:\n{log}");
        }
        assert!(secrets.0.len() > 10, "hardly any secret was issued");
        for line in log.lines() {
            assert_clean("the log", line, &secrets);
        }
    }
}
