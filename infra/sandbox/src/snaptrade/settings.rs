//! What can be changed about the sandbox while it runs.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The settings in force. They survive a restart and return to these defaults on a reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// How many users may exist; those whose deletion has not finished count. `None` is no limit.
    pub user_limit: Option<u64>,
    /// How many brokerage connections may exist, over all users.
    pub connection_limit: Option<u64>,
    /// Milliseconds between the acceptance of a deletion and its completion, by the sandbox's clock.
    pub delete_delay_ms: u64,
    /// Milliseconds after a first connection during which its accounts have no data yet, by the sandbox's
    /// clock.
    pub sync_delay_ms: u64,
    /// Requests accepted in any 60 seconds. `None` is no limit.
    pub rate_limit_per_minute: Option<u64>,
    /// Where webhooks go, in place of the URL that the sandbox was started with. An empty text sends none.
    pub webhook_url: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            user_limit: None,
            connection_limit: Some(5),
            delete_delay_ms: 0,
            sync_delay_ms: 0,
            rate_limit_per_minute: Some(250),
            webhook_url: None,
        }
    }
}

impl Settings {
    /// These settings with the members of `changes` in their place; `null` stands for "none", and for the URL
    /// that the sandbox was started with. Members that are no setting are ignored.
    ///
    /// # Errors
    /// A sentence that names the first member of a wrong type.
    pub(super) fn changed(&self, changes: &Value) -> Result<Self, String> {
        let mut changed = self.clone();
        let members = changes.as_object().ok_or("The body has to be a JSON object.")?;
        for (name, value) in members {
            match name.as_str() {
                "user_limit" => changed.user_limit = optional(name, value)?,
                "connection_limit" => changed.connection_limit = optional(name, value)?,
                "rate_limit_per_minute" => changed.rate_limit_per_minute = optional(name, value)?,
                "delete_delay_ms" => changed.delete_delay_ms = number(name, value)?,
                "sync_delay_ms" => changed.sync_delay_ms = number(name, value)?,
                "webhook_url" => changed.webhook_url = url(value)?,
                _ => {}
            }
        }
        Ok(changed)
    }

    /// The settings as the control call answers them. `started_with` is the URL that the sandbox was started
    /// with.
    pub(super) fn shown(&self, started_with: Option<&str>) -> Value {
        json!({
            "user_limit": self.user_limit,
            "connection_limit": self.connection_limit,
            "delete_delay_ms": self.delete_delay_ms,
            "sync_delay_ms": self.sync_delay_ms,
            "rate_limit_per_minute": self.rate_limit_per_minute,
            "webhook_url": self.webhook_target(started_with),
        })
    }

    /// Where webhooks go now, if anywhere.
    pub(super) fn webhook_target(&self, started_with: Option<&str>) -> Option<String> {
        let target = self.webhook_url.as_deref().or(started_with)?;
        (!target.is_empty()).then(|| target.to_owned())
    }
}

fn number(name: &str, value: &Value) -> Result<u64, String> {
    value
        .as_u64()
        .ok_or_else(|| format!("`{name}` has to be a whole number that is not negative."))
}

fn optional(name: &str, value: &Value) -> Result<Option<u64>, String> {
    if value.is_null() {
        return Ok(None);
    }
    number(name, value).map(Some)
}

fn url(value: &Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(Some(String::new())),
        Value::String(text) => match url::Url::parse(text) {
            Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => Ok(Some(text.clone())),
            _ => Err("`webhook_url` has to be an http or https URL.".to_owned()),
        },
        _ => Err("`webhook_url` has to be a text.".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_the_other_settings_alone() {
        let changed = Settings::default()
            .changed(&json!({"user_limit": 3, "unknown": 1}))
            .unwrap();
        assert_eq!(
            changed,
            Settings {
                user_limit: Some(3),
                ..Settings::default()
            }
        );
        let back = changed.changed(&json!({"user_limit": null})).unwrap();
        assert_eq!(back, Settings::default());
    }

    #[test]
    fn a_wrong_type_is_named() {
        let fault = Settings::default()
            .changed(&json!({"delete_delay_ms": "soon"}))
            .unwrap_err();
        assert!(fault.contains("delete_delay_ms"), "{fault}");
        assert!(Settings::default().changed(&json!([])).is_err());
        assert!(
            Settings::default()
                .changed(&json!({"webhook_url": "ftp://x"}))
                .is_err()
        );
    }
}
