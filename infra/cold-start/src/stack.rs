//! The local stack that the functions find their table and the outside services in.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::Failure;
use crate::program::built;

/// The access sync's configuration, but for the addresses.
const ACCESS: &str = include_str!("../../local/src/access-config.json");

/// A key for users' secrets, which nothing but this measurement is encrypted with.
const DATA_KEYS: &str = r#"{"current":"k1","keys":{"k1":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="}}"#;

/// The profile that the local stack is built with: it stands for services elsewhere, and is not measured.
pub(crate) fn profile(functions: &str) -> &str {
    if functions == "release" {
        "optimised"
    } else {
        functions
    }
}

/// `berth local`, in memory. It ends with this.
pub(crate) struct Stack {
    process: Child,
    urls: Value,
}

impl Stack {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(functions: &str) -> Result<Self, Failure> {
        let mut process = Command::new(built(profile(functions)).join("berth"))
            .args(["local", "--memory", "--no-schedules"])
            .args(["--port", "0", "--snaptrade-port", "0", "--access-port", "0"])
            .args(["--dynamodb-port", "0", "--mail-port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = process.stdout.take().ok_or("the local stack says nothing")?;
        let mut stack = Self {
            process,
            urls: Value::Null,
        };
        for line in BufReader::new(output).lines() {
            let line = line?;
            if line.starts_with('{') {
                stack.urls = serde_json::from_str(&line)?;
            }
            if line.starts_with("ready ") {
                return Ok(stack);
            }
        }
        Err("the local stack did not start".into())
    }

    fn url(&self, name: &str) -> &str {
        self.urls[name].as_str().unwrap_or_default()
    }

    /// The variables that every program is started with.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        [
            ("AWS_LAMBDA_FUNCTION_VERSION", "1".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512".to_owned()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "group".to_owned()),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "stream".to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "cold".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "start".to_owned()),
            ("AWS_ENDPOINT_URL_DYNAMODB", self.url("dynamodb").to_owned()),
            ("SNAPTRADE_BASE_URL", self.url("snaptrade").to_owned()),
            ("SNAPTRADE_SECRET_ID", "snaptrade".to_owned()),
            ("DATA_KEY_SECRET_ID", "data-keys".to_owned()),
            ("ACCESS_SECRET_ID", "access".to_owned()),
            ("TABLE_NAME", "berth".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// The secrets that the variables name.
    pub(crate) fn secrets(&self) -> Result<HashMap<String, String>, Failure> {
        let mut access: Value = serde_json::from_str(ACCESS)?;
        for service in ["wordpress", "tradingview"] {
            access[service]["base_url"] = json!(self.url("access"));
        }
        access["tradingview"]["api_key"] = json!("sandbox-access-key");
        // No letter is sent: the mail server is none of what is measured.
        if let Some(members) = access.as_object_mut() {
            members.remove("email");
        }
        let snaptrade = json!({"client_id": "SANDBOX-CLIENT", "consumer_key": "sandbox-consumer-key"});
        Ok(HashMap::from([
            ("snaptrade".to_owned(), snaptrade.to_string()),
            ("data-keys".to_owned(), DATA_KEYS.to_owned()),
            ("access".to_owned(), access.to_string()),
        ]))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _ = self.process.wait();
    }
}
