//! `berth verify-setup`: whether everything that Berth needs is there.

use std::io::Write;

use serde_json::Value;

use crate::Global;
use crate::exit::Exit;
use crate::target::{CallError, Target};

/// Checks the target and prints one line a check.
pub(crate) async fn run(global: &Global) -> Exit {
    let target = match Target::find(global).await {
        Ok(target) => target,
        Err(error) => return Exit::failed(&error.to_string()),
    };
    let health = target.get("/health").await;
    target.close().await;
    let health = match health {
        Ok(health) => health,
        // An unhealthy API answers 503 with the same body, which is what is wanted here.
        Err(CallError::Answered { answer, .. }) if answer.get("checks").is_some() => answer,
        Err(error) => return Exit::failed(&error.to_string()),
    };
    let checks = health
        .get("checks")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let good = |word: &Value| word.as_str() == Some("ok");
    let mut out = std::io::stdout().lock();
    // A reader that has gone away is no failure of the checks.
    if global.json {
        let _ = writeln!(out, "{health}");
    } else {
        for (name, word) in &checks {
            let _ = writeln!(out, "{name:<12} {}", word.as_str().unwrap_or("unknown"));
        }
    }
    if !checks.is_empty() && checks.values().all(good) {
        Exit::Success
    } else {
        Exit::Failure
    }
}
