//! Posting to the operator's channel at Discord.

use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::json;
use tokio::time::Instant;

use super::super::configuration::Discord;
use super::dispatch::Sending;

/// How long a post may take.
const POST: Duration = Duration::from_secs(10);

/// Longest name that posts can be shown under, in characters
/// (<https://docs.discord.com/developers/resources/webhook#execute-webhook>).
const AUTHOR_MAX_CHARS: usize = 80;

/// Posts `text`. It mentions nobody, whatever it says.
pub(super) async fn post(http: &reqwest::Client, discord: &Discord, text: &str, until: Instant) -> Sending {
    let mut body = json!({"content": text, "allowed_mentions": {"parse": []}});
    if let (Some(author), Some(body)) = (&discord.author, body.as_object_mut()) {
        let author: String = author.chars().take(AUTHOR_MAX_CHARS).collect();
        body.insert("username".to_owned(), author.into());
    }
    let answer = http
        .post(discord.webhook_url.expose_secret())
        .timeout(POST.min(until.saturating_duration_since(Instant::now())))
        .json(&body)
        .send()
        .await;
    match answer {
        Ok(answer) if answer.status().is_success() => Sending::Taken,
        Ok(answer) => {
            tracing::warn!(status = answer.status().as_u16(), "Discord did not take a post");
            let asked = answer
                .headers()
                .get(http::header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse::<f64>().ok())
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            Sending::Refused(asked)
        }
        // The error's own text has the address in it, which whoever knows it may post to.
        Err(error) if error.is_connect() || error.is_builder() => {
            tracing::warn!("Discord could not be reached");
            Sending::NoServer
        }
        Err(_) => {
            tracing::warn!("Discord did not answer a post");
            Sending::Unsure
        }
    }
}
