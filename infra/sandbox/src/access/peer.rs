//! The HTTP API of the self-hosted peer program "trendoscope" (github.com, `trendoscope-algorithms`), with all that its
//! callers have to beware of.
//!
//! Access is given for a length of time that is added to its listed end, even one that has passed, so that a call that
//! is sent twice counts twice, and somebody whose access ended long ago may pay and still have none. It asks for no
//! key, calls every failure an unknown exception, and says 200 where nothing was done.

use axum::response::Response;
use http::StatusCode;
use jiff::{Span, Timestamp};
use serde_json::{Value, json};

use super::dates;
use super::operations::Operation;
use super::serve::Call;
use crate::answer::json_answer;

/// Answers a call to the peer's API.
///
/// # Errors
/// The database's, where it is of no use.
pub(super) fn answer(call: &Call<'_>, operation: &Operation) -> rusqlite::Result<Response> {
    let name = match operation {
        Operation::PeerValidate(name) => {
            let found = call.shared.store.user(name)?;
            return Ok(ok(&json!({
                "validuser": found.is_some(),
                "verifiedUserName": found.map(|user| user.username).unwrap_or_default(),
            })));
        }
        Operation::PeerGrant(name) | Operation::PeerRemove(name) | Operation::PeerInfo(name) => name,
        _ => return Ok(failed(StatusCode::NOT_FOUND)),
    };
    let body: Value = serde_json::from_slice(call.body).unwrap_or_default();
    let Some(scripts) = body.get("pine_ids").and_then(Value::as_array) else {
        return Ok(failed(StatusCode::INTERNAL_SERVER_ERROR));
    };
    let scripts = scripts.iter().filter_map(Value::as_str);
    let length = match operation {
        Operation::PeerGrant(_) => match Length::read(body.get("duration")) {
            Some(length) => Some(length),
            None => return Ok(failed(StatusCode::INTERNAL_SERVER_ERROR)),
        },
        _ => None,
    };
    let mut answers = Vec::new();
    for script in scripts {
        let mut access = Access::read(call, script, name)?;
        match (operation, length) {
            (Operation::PeerGrant(_), Some(length)) => access.extend(call, length)?,
            (Operation::PeerRemove(_), _) => access.take(call)?,
            _ => {}
        }
        answers.push(access.shown());
    }
    Ok(ok(&answers.into()))
}

/// For how long access is given.
#[derive(Debug, Clone, Copy)]
enum Length {
    /// For ever.
    Lifetime,
    /// For so long after the listed end; for no time at all where the unit is not known.
    Added(Span),
}

impl Length {
    /// A number and a letter, also where the letter needs no number.
    fn read(text: Option<&Value>) -> Option<Self> {
        let text = text?.as_str()?;
        let (at, unit) = text.char_indices().next_back()?;
        let number: i32 = text.get(..at)?.parse().ok()?;
        let span = Span::new();
        let span = match unit {
            'Y' => span.try_years(number),
            'M' => span.try_months(number),
            'W' => span.try_weeks(number),
            'D' => span.try_days(number),
            'L' => return Some(Self::Lifetime),
            _ => Ok(span),
        };
        Some(Self::Added(span.ok()?))
    }
}

/// A user's access to one script, as it is and as it is told.
struct Access {
    script: String,
    /// As the caller spelt it.
    name: String,
    has_access: bool,
    no_expiration: bool,
    /// The listed end; now, where there is none.
    current: Timestamp,
    /// As it is told: an end from the list in one notation, a time of the peer's own in another.
    current_shown: String,
    changed: Option<(String, &'static str)>,
}

impl Access {
    fn read(call: &Call<'_>, script: &str, name: &str) -> rusqlite::Result<Self> {
        let holder = call.shared.store.holder(script, name)?;
        let end = holder.as_ref().and_then(|holder| holder.expiration);
        let now = call.shared.clock.now();
        Ok(Self {
            script: script.to_owned(),
            name: name.to_owned(),
            has_access: holder.is_some(),
            no_expiration: holder.is_some() && end.is_none(),
            current: end.unwrap_or(now),
            current_shown: end.map_or_else(|| dates::in_python(now), |end| end.to_string()),
            changed: None,
        })
    }

    fn extend(&mut self, call: &Call<'_>, length: Length) -> rusqlite::Result<()> {
        if self.no_expiration {
            self.changed = Some((self.current_shown.clone(), "Not Applied"));
            return Ok(());
        }
        let (end, shown) = match length {
            Length::Lifetime => {
                self.no_expiration = true;
                (None, self.current_shown.clone())
            }
            Length::Added(span) => {
                let end = dates::later(self.current, span).unwrap_or(self.current);
                (Some(end), dates::in_python(end))
            }
        };
        let applied = match call.shared.store.user(&self.name)? {
            _ if self.has_access => call.shared.store.change_end(&self.script, &self.name, end)?,
            Some(user) => {
                (call.shared.store).grant(&self.script, &user, end, call.shared.clock.now())?;
                true
            }
            None => false,
        };
        self.changed = Some((shown, if applied { "Success" } else { "Failure" }));
        Ok(())
    }

    /// Takes the access, and calls it a success where there was none.
    fn take(&mut self, call: &Call<'_>) -> rusqlite::Result<()> {
        call.shared.store.remove(&self.script, &self.name)?;
        self.changed = Some((String::new(), "Success"));
        Ok(())
    }

    fn shown(&self) -> Value {
        let mut shown = json!({
            "pine_id": self.script,
            "username": self.name,
            "hasAccess": self.has_access,
            "noExpiration": self.no_expiration,
            "currentExpiration": self.current_shown,
        });
        if let (Some((end, status)), Some(members)) = (&self.changed, shown.as_object_mut()) {
            if !end.is_empty() {
                members.insert("expiration".to_owned(), end.as_str().into());
            }
            members.insert("status".to_owned(), (*status).into());
        }
        shown
    }
}

fn ok(body: &Value) -> Response {
    json_answer(StatusCode::OK, body)
}

/// The answer of a call that fails with a status.
pub(super) fn failed(status: StatusCode) -> Response {
    json_answer(status, &json!({"errorMessage": "Unknown Exception Occurred"}))
}
