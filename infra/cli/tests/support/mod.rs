//! What tests of the commands share: the command as a process, and a stack for it to act on.

#![allow(dead_code, reason = "each test file uses its part of this")]

use std::path::Path;

use berth_local::{Data, Options, Stack};
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

/// The token of an operator.
pub const OPERATOR: &str = "dev:ops:operator";

/// What a command ended with and said.
pub struct Said {
    /// The exit code.
    pub code: i32,
    /// On standard output.
    pub out: String,
    /// On standard error.
    pub err: String,
}

impl Said {
    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("no JSON: {} {}", self.out, self.err))
    }
}

/// Runs a command in `directory`, in a pipe and without this process's settings.
pub async fn berth(directory: &Path, line: &str) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_berth"))
        .args(line.split_whitespace())
        .current_dir(directory)
        .env_clear()
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A stack whose data the commands in `directory` find, with room for `limit` users.
pub async fn start(directory: &Path, limit: u32) -> Stack {
    let options = Options {
        data: Data::Directory(directory.join(".berth")),
        limit: Some(limit),
        ..Options::default()
    };
    Stack::start(options).await.unwrap()
}

/// Calls the stack, and gives the status and the answer.
pub async fn send(url: &str, method: Method, token: &str, body: Option<Value>) -> (u16, Value) {
    let client = berth::snaptrade::http_client().unwrap();
    let mut request = client.request(method, url).bearer_auth(token);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_default())
}

/// Calls a route of the stack's API that has to work.
pub async fn call(stack: &Stack, method: Method, path: &str, token: &str, body: Value) -> Value {
    let url = format!("{}{path}", stack.urls().api);
    let (status, answer) = send(&url, method, token, (!body.is_null()).then_some(body)).await;
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
    answer
}

/// Registers a user by the user's own call.
pub async fn register(stack: &Stack, user: &str) {
    let token = format!("dev:{user}");
    call(stack, Method::POST, "/api/snaptrade/register", &token, json!({})).await;
}

/// The tracked users, oldest first.
pub async fn users(stack: &Stack) -> Vec<Value> {
    let path = "/api/snaptrade/users?limit=500";
    let listed = call(stack, Method::GET, path, OPERATOR, Value::Null).await;
    listed["data"].as_array().unwrap().clone()
}

/// A time so many days from now, in whole seconds.
pub fn days_from_now(days: i64) -> Timestamp {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    now + SignedDuration::from_hours(24 * days)
}

/// A payment of so many days ago for the product 100, a month of S1.
pub fn sale(id: u64, person: u64, name: &str, days_ago: i64) -> Value {
    json!({
        "transaction_id": id, "user_id": person, "user_email": format!("{person}@example.com"),
        "user_login": format!("wp{person}"), "user_meta": {"tradingview_username": name}, "total": "49.00",
        "status": "complete", "txn_type": "payment", "subscription_id": "0", "product_id": "100", "gateway": "stripe",
        "trans_num": format!("ch_{id}"), "created_at": days_from_now(-days_ago), "expires_at": null,
    })
}

/// Calls the sandboxes' controls of the shop and the access API.
pub async fn sandbox(stack: &Stack, method: Method, path: &str, body: Value) -> Value {
    let url = format!("{}/__sandbox/{path}", stack.urls().access);
    let (status, answer) = send(&url, method, "", (!body.is_null()).then_some(body)).await;
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
    answer
}
