//! Who may call: client id, time stamp and signature of every request, and the secret of the user it is for.

use berth::clock::Clock;
use berth::snaptrade::signature;
use http::HeaderMap;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;

use super::CLIENT_ID;
use super::answer::Refusal;
use super::world::World;

/// How far a request's time stamp may be from now, in seconds. The real window is not published.
const WINDOW_SECONDS: u64 = 300;

/// The decoded parameters of a query string, in their order.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a raw query string.
    pub(super) fn parse(raw: &str) -> Self {
        Self(url::form_urlencoded::parse(raw.as_bytes()).into_owned().collect())
    }

    /// The first value of this name that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        (self.0.iter())
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// A whole number, `default` where it is absent.
    ///
    /// # Errors
    /// [`Refusal::InvalidInput`] when it is none.
    pub(super) fn number(&self, name: &str, default: u64) -> Result<u64, Refusal> {
        self.get(name).map_or(Ok(default), |text| {
            text.parse()
                .map_err(|_| Refusal::InvalidInput(format!("{name} has to be a whole number.")))
        })
    }
}

/// What of a request is signed, exactly as it was received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    /// The body as it was received, and as JSON where there is one.
    pub(super) body: &'a [u8],
    pub(super) content: Option<&'a Value>,
}

/// Checks that the sandbox's own client sent this request, just now and unchanged.
///
/// # Errors
/// The refusal that SnapTrade gives for the first thing that is wrong.
pub(super) fn check_client(
    request: Signed<'_>,
    query: &Query,
    consumer_key: &SecretString,
    clock: &Clock,
) -> Result<(), Refusal> {
    let client_id = query.get("clientId").ok_or(Refusal::NoCredentials)?;
    if client_id != CLIENT_ID {
        return Err(Refusal::InvalidClient);
    }
    let stamp: i64 =
        (query.get("timestamp").and_then(|text| text.parse().ok())).ok_or(Refusal::InvalidTimestamp)?;
    // Clients sign with the time of their machine, whatever the local clock is set to; both are accepted.
    let near = |now: Timestamp| now.as_second().abs_diff(stamp) <= WINDOW_SECONDS;
    if !near(Timestamp::now()) && !near(clock.now()) {
        return Err(Refusal::InvalidTimestamp);
    }
    let given = request
        .headers
        .get("Signature")
        .and_then(|value| value.to_str().ok());
    if given.is_some_and(|given| is_signed(request, consumer_key, given)) {
        Ok(())
    } else {
        Err(Refusal::InvalidSignature)
    }
}

/// Official clients sign a text that is not ASCII in two ways: the Python one with `\u` escapes, the
/// TypeScript one as it is. A third reading, the body exactly as it came, forgives clients that format a
/// number in a way of their own.
fn is_signed(request: Signed<'_>, consumer_key: &SecretString, given: &str) -> bool {
    if signature::verify(consumer_key, request.content, request.path, request.query, given) {
        return true;
    }
    let Some(content) = request.content else {
        return false;
    };
    let bare = |text: &str| Value::from(text).to_string();
    let message = |content: &str| {
        format!(
            r#"{{"content":{content},"path":{},"query":{}}}"#,
            bare(request.path),
            bare(request.query)
        )
    };
    let matches = |text: &str| signature::verify_bytes(consumer_key, message(text).as_bytes(), given);
    matches(&sorted(content).to_string()) || std::str::from_utf8(request.body).is_ok_and(matches)
}

/// The same value with the keys of every object in order, however the map behind it keeps them.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(members) => {
            let mut pairs: Vec<_> = members.iter().collect();
            pairs.sort_by_key(|(name, _)| name.as_str());
            Value::Object(
                pairs
                    .into_iter()
                    .map(|(name, value)| (name.clone(), sorted(value)))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

/// The user that a request is for, after a look at the secret.
///
/// # Errors
/// [`Refusal::MissingUser`], and [`Refusal::InvalidUser`] for an unknown user and for a wrong secret alike.
pub(super) fn check_user(query: &Query, world: &World) -> Result<String, Refusal> {
    let (Some(user_id), Some(secret)) = (query.get("userId"), query.get("userSecret")) else {
        return Err(Refusal::MissingUser);
    };
    match world.user(user_id) {
        Some(user) if user.secret == secret => Ok(user.id.clone()),
        _ => Err(Refusal::InvalidUser),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key() -> SecretString {
        SecretString::from("sandbox-consumer-key".to_owned())
    }

    fn check(body: &str, signed_text: &str, stamp: i64) -> Result<(), Refusal> {
        let query = format!("clientId={CLIENT_ID}&timestamp={stamp}");
        let message = format!(r#"{{"content":{signed_text},"path":"/x","query":"{query}"}}"#);
        let mut headers = HeaderMap::new();
        let given = signature::sign_bytes(&key(), message.as_bytes());
        headers.insert("Signature", given.parse().unwrap());
        let content: Option<Value> = serde_json::from_str(body).ok();
        let request = Signed {
            path: "/x",
            query: &query,
            headers: &headers,
            body: body.as_bytes(),
            content: content.as_ref(),
        };
        check_client(request, &Query::parse(&query), &key(), &Clock::system())
    }

    #[test]
    fn both_spellings_of_a_text_that_is_not_ascii_are_accepted() {
        let now = Timestamp::now().as_second();
        let body = r#"{"b":1,"a":"é"}"#;
        assert_eq!(check(body, r#"{"a":"\u00e9","b":1}"#, now), Ok(()));
        assert_eq!(check(body, r#"{"a":"é","b":1}"#, now), Ok(()));
        assert_eq!(check(body, body, now), Ok(()));
        assert_eq!(
            check(body, r#"{"a":"e","b":1}"#, now),
            Err(Refusal::InvalidSignature)
        );
    }

    #[test]
    fn a_stale_time_stamp_is_refused_and_so_are_milliseconds() {
        let now = Timestamp::now().as_second();
        assert_eq!(check("", "null", now - 290), Ok(()));
        assert_eq!(check("", "null", now - 310), Err(Refusal::InvalidTimestamp));
        assert_eq!(check("", "null", now * 1000), Err(Refusal::InvalidTimestamp));
    }

    #[test]
    fn keys_are_sorted_at_every_level() {
        let text = sorted(&json!({"b": [{"d": 1, "c": 2}], "a": null})).to_string();
        assert_eq!(text, r#"{"a":null,"b":[{"c":2,"d":1}]}"#);
    }
}
