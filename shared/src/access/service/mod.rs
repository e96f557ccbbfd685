//! The access service's client: what opens scripts at TradingView, behind one interface for the two kinds of access API
//! that there are (facts/access.md A5, C2 "Adapters", C3).
//!
//! A read that fails for the moment is made again, as the configuration says. A write whose outcome is not known is
//! followed by a look at what there is now: done, it is done; not done, one with an absolute end is made again, and one
//! with a relative length never, because it may still take effect. That is for a later run to find out.

mod call;
mod original;
mod pacing;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use reqwest::{Request, Url};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout_at};

use self::call::Call;
pub use self::pacing::Pacing;
use self::peer::{Step, Told};
use super::configuration::{AccessApi, AccessApiKind};
use super::expiry::Expiry;
use super::ids::ScriptId;
use super::names::{self, Lookup, Username};
use super::plan::Action;
use super::remote::{Page, Wire};
use super::retries::{self, Answer, CallKind, Verdict};
use super::sending::{self, Failed};
use super::tally::{Called, Tally};
use crate::clock::Clock;
use crate::telemetry::Service;
use crate::telemetry::metrics::{self, CallEnd};

/// The longest answer that is read, in bytes. An API without pages may list ten thousand names at once.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// How often one call waits because the service asks for it. What it asks for costs no try.
const MOST_PATIENCE: u32 = 10;

/// The least time that has to be left for a write to be begun: one that is broken off has to be looked for.
const LEAST_FOR_A_WRITE: Duration = Duration::from_secs(2);

/// How many pages of a list are read for one name. It is a bound for a list that never ends.
const MOST_PAGES: u32 = 10_000;

/// How many steps a write in relative lengths takes at most, beside those that are tried again.
const MOST_STEPS: u32 = 4;

/// What a service says of a session at TradingView that has ended.
const LOGIN_REQUIRED: &[u8] = b"login_required";

/// A client of the access service.
#[derive(Debug, Clone)]
pub struct AccessClient {
    http: reqwest::Client,
    api: Arc<AccessApi>,
    wire: Wire,
    pacing: Arc<Pacing>,
    tally: Arc<Tally>,
    clock: Clock,
}

/// One change of one name's access to one script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The script.
    pub script: ScriptId,
    /// The name, as TradingView spells it.
    pub username: Username,
    /// The change.
    pub action: Action,
    /// The customer's address.
    pub email: String,
    /// What the access API is told about the kind of subscription.
    pub subscription_type: String,
    /// The customer's name at WordPress.
    pub wp_username: String,
    /// What the access API keeps beside it, mostly [`REMARKS`].
    pub remarks: String,
}

/// The remarks of a change that was paid for (facts/access.md A5).
pub const REMARKS: &str = "paid";

/// A call that did not come to what it was for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Ended {
    /// What that means; never [`Verdict::Done`].
    pub verdict: Verdict,
    /// How long the service asks to wait, where it does.
    pub asked: Option<Duration>,
    /// What happened, without anything of the service's own words.
    pub reason: String,
}

impl Ended {
    fn new(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self {
            verdict,
            asked: None,
            reason: reason.into(),
        }
    }

    /// Nothing was sent, since the service asked for a longer wait than there is time. It costs no try.
    fn held(left: Duration) -> Self {
        Self {
            asked: Some(left),
            ..Self::new(Verdict::Throttled, "the access API asks to be called later")
        }
    }

    /// Nothing was sent, since there is no time left for it. That costs no try either.
    fn out_of_time() -> Self {
        let reason = "there is no time left in this run for the call to the access API";
        Self::new(Verdict::Throttled, reason)
    }

    /// What is asked for cannot be put into a call.
    fn unsendable() -> Self {
        Self::new(Verdict::Refused, "the call to the access API cannot be formed")
    }
}

/// The places that reading a list has been at.
#[derive(Debug, Default)]
pub struct Trail(HashSet<String>);

impl Trail {
    /// Goes on to `next`.
    ///
    /// # Errors
    /// [`Ended`] where reading has been there before: such a list has no end.
    pub fn go_on(&mut self, next: &str) -> Result<(), Ended> {
        if self.0.insert(next.to_owned()) {
            return Ok(());
        }
        let reason = "the access API's list goes in circles";
        Err(Ended::new(Verdict::Retry, reason))
    }
}

/// How often a call was made again so far.
#[derive(Debug, Default)]
struct Tries {
    again: u32,
    patience: u32,
}

impl AccessClient {
    /// A client of this access API. `pacing` is kept by the process, `tally` counts for the run.
    #[must_use]
    pub fn new(
        http: reqwest::Client,
        api: &AccessApi,
        pacing: Arc<Pacing>,
        tally: Arc<Tally>,
        clock: Clock,
    ) -> Self {
        Self {
            http,
            wire: Wire::of(api),
            api: Arc::new(api.clone()),
            pacing,
            tally,
            clock,
        }
    }

    /// Looks a name up. No wait goes beyond `until`, here and in all that follows.
    ///
    /// # Errors
    /// [`Ended`] where it is not known; that is never held against the customer.
    pub async fn look_up(&self, name: &Username, until: Instant) -> Result<Lookup, Ended> {
        let call = match self.api.kind {
            AccessApiKind::AccessApi => original::look_up(&self.api, name),
            AccessApiKind::Trendoscope => peer::look_up(name),
        };
        let call = call.ok_or_else(Ended::unsendable)?;
        self.read(&call, until, |answer| names::judge(name, answer).ok())
            .await
    }

    /// Whether the service can list who has access.
    #[must_use]
    pub fn can_list(&self) -> bool {
        self.api.kind == AccessApiKind::AccessApi
    }

    /// A page of those who have access to a script, from `cursor` on, or the first.
    ///
    /// # Errors
    /// [`Ended`] where it cannot be read, also where the service has no list.
    pub async fn page(&self, script: &ScriptId, cursor: Option<&str>, until: Instant) -> Result<Page, Ended> {
        if !self.can_list() {
            return Err(Ended::new(
                Verdict::Refused,
                "the access API has no list of who has access",
            ));
        }
        let call = original::page(&self.api, script, cursor).ok_or_else(Ended::unsendable)?;
        self.read(&call, until, |answer| {
            let page = self.wire.read_page(answer).ok()?;
            // A list that goes on from where it stands would never end.
            (page.next.is_none() || page.next.as_deref() != cursor).then_some(page)
        })
        .await
    }

    /// When one name's access to a script ends; `None` where it has none.
    ///
    /// # Errors
    /// [`Ended`] where it is not known.
    pub async fn access_of(
        &self,
        script: &ScriptId,
        name: &Username,
        until: Instant,
    ) -> Result<Option<Expiry>, Ended> {
        if !self.can_list() {
            let call = peer::info(script, name).ok_or_else(Ended::unsendable)?;
            return self
                .read(&call, until, |answer| peer::read_info(answer, script, self.wire))
                .await;
        }
        let (mut cursor, mut trail): (Option<String>, _) = (None, Trail::default());
        for _ in 0..MOST_PAGES {
            let page = self.page(script, cursor.as_deref(), until).await?;
            let found = page
                .users
                .iter()
                .find(|user| user.username.eq_ignore_ascii_case(name.as_str()));
            if let Some(user) = found {
                return Ok(Some(user.expiry));
            }
            match page.next {
                Some(next) => {
                    trail.go_on(&next)?;
                    cursor = Some(next);
                }
                None => return Ok(None),
            }
        }
        Err(Ended::new(Verdict::Retry, "the access API's list does not end"))
    }

    /// Makes a change. An order that is carried out already changes nothing.
    ///
    /// # Errors
    /// [`Ended`] where it was not done, or where that is not known ([`Verdict::Unknown`]).
    pub async fn write(&self, order: &Order, until: Instant) -> Result<(), Ended> {
        match (order.action, self.api.kind) {
            (Action::None, _) => Ok(()),
            (_, AccessApiKind::AccessApi) => self.write_absolute(order, until).await,
            (_, AccessApiKind::Trendoscope) => self.write_relative(order, until).await,
        }
    }

    async fn write_absolute(&self, order: &Order, until: Instant) -> Result<(), Ended> {
        let call = original::write(&self.api, order).ok_or_else(Ended::unsendable)?;
        let mut tries = Tries::default();
        let mut may_be_under_way = false;
        loop {
            let ended = match self.call(&call, until).await {
                Ok(answer) if original::confirms(&answer) => return Ok(()),
                Ok(_) => garbage(&call),
                Err(ended) => ended,
            };
            may_be_under_way |= ended.verdict == Verdict::Unknown;
            // Nothing to take is as good as taken, but a wrong path is refused in the same way.
            let look = match ended.verdict {
                Verdict::Unknown => true,
                Verdict::Refused => call.called == Called::Remove,
                _ => false,
            };
            if look {
                match self.access_of(&order.script, &order.username, until).await {
                    Ok(remote) if order.action.is_done(remote, self.wire) => return Ok(()),
                    Ok(_) => {}
                    Err(unread) => return Err(unread_after(ended, &unread)),
                }
            }
            if !self.may_go_on(&call, &mut tries, &ended, until).await {
                let verdict = match ended.verdict {
                    // An earlier one may still take effect.
                    Verdict::Retry | Verdict::Throttled if may_be_under_way => Verdict::Unknown,
                    verdict => verdict,
                };
                return Err(Ended { verdict, ..ended });
            }
        }
    }

    async fn write_relative(&self, order: &Order, until: Instant) -> Result<(), Ended> {
        let mut tries = Tries::default();
        for _ in 0..MOST_STEPS
            .saturating_add(self.api.max_retries)
            .saturating_add(MOST_PATIENCE)
        {
            // What is asked for next follows from what there is now and from nothing else.
            let remote = self.access_of(&order.script, &order.username, until).await?;
            let step = peer::step(order.action, remote, self.wire, self.clock.now());
            let call = match &step {
                Step::Done => return Ok(()),
                Step::Remove => peer::remove(&order.script, &order.username),
                Step::Grant(duration) => {
                    let called = match order.action {
                        Action::Update { .. } => Called::Update,
                        _ => Called::Grant,
                    };
                    peer::grant(called, &order.script, &order.username, duration)
                }
            };
            let call = call.ok_or_else(Ended::unsendable)?;
            let told = match self.call(&call, until).await {
                Ok(answer) => peer::read_told(&answer, &order.script).ok_or_else(|| garbage(&call)),
                Err(ended) => Err(ended),
            };
            let ended = match told {
                Ok(Told::Done) if call.kind == CallKind::RelativeWrite => return Ok(()),
                // A removal is looked at again: it may have been the first half of a change.
                Ok(Told::Done | Told::NotApplied) => continue,
                Ok(Told::Failed) => {
                    let reason = format!("the access API says that {} failed", call.name());
                    return Err(Ended::new(Verdict::Refused, reason));
                }
                Err(ended) => ended,
            };
            if ended.verdict == Verdict::Unknown && call.kind == CallKind::RelativeWrite {
                return match self.access_of(&order.script, &order.username, until).await {
                    Ok(remote) if order.action.is_done(remote, self.wire) => Ok(()),
                    // It may still take effect, and then another one would be one too many.
                    Ok(_) => Err(ended),
                    Err(unread) => Err(unread_after(ended, &unread)),
                };
            }
            if !self.may_go_on(&call, &mut tries, &ended, until).await {
                return Err(ended);
            }
        }
        Err(Ended::new(
            Verdict::Retry,
            "the access API does not come to what it is told",
        ))
    }

    /// Makes a call that changes nothing until its answer can be read.
    async fn read<T>(
        &self,
        call: &Call,
        until: Instant,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, Ended> {
        let mut tries = Tries::default();
        loop {
            let ended = match self.call(call, until).await {
                Ok(answer) => match read(&answer) {
                    Some(answer) => return Ok(answer),
                    None => garbage(call),
                },
                Err(ended) => ended,
            };
            if !self.may_go_on(call, &mut tries, &ended, until).await {
                return Err(ended);
            }
        }
    }

    /// Whether a call that ended so is to be made again, after the wait for that.
    async fn may_go_on(&self, call: &Call, tries: &mut Tries, ended: &Ended, until: Instant) -> bool {
        let wait = match (ended.verdict, ended.asked) {
            (Verdict::Done | Verdict::Refused | Verdict::NoAccess, _) => return false,
            (Verdict::Throttled, Some(asked)) => {
                tries.patience = tries.patience.saturating_add(1);
                self.pacing.hold(call.lane(), asked, self.clock.now());
                (tries.patience <= MOST_PATIENCE).then_some(asked)
            }
            (Verdict::Retry | Verdict::Unknown | Verdict::Throttled, asked) => {
                tries.again = tries.again.saturating_add(1);
                let (most, backoff) = (self.api.max_retries, &self.api.retry_backoff);
                retries::in_call(tries.again, most, backoff, asked, sending::share())
            }
        };
        let Some(wait) = wait else {
            return false;
        };
        let in_time = Instant::now()
            .checked_add(wait)
            .is_some_and(|resume| resume < until);
        if in_time {
            tracing::debug!(
                again = tries.again,
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                reason = ended.reason,
                "a call to the access API is made again"
            );
        }
        in_time && timeout_at(until, self.clock.sleep(wait)).await.is_ok()
    }

    /// Makes a call once. An empty answer is read as null.
    async fn call(&self, call: &Call, until: Instant) -> Result<Value, Ended> {
        let least = match call.kind {
            CallKind::Read => Duration::ZERO,
            CallKind::Write | CallKind::RelativeWrite => LEAST_FOR_A_WRITE.min(self.api.timeout),
        };
        let latest = until.checked_sub(least).unwrap_or(until);
        let rate = match call.lane() {
            pacing::Lane::Changes => self.api.grants_per_second,
            pacing::Lane::LookUps => self.api.validations_per_second,
            pacing::Lane::Lists => None,
        };
        while let Some(left) = self.pacing.held(call.lane(), self.clock.now()) {
            let in_time = Instant::now().checked_add(left).is_some_and(|then| then < latest);
            if !in_time || timeout_at(latest, self.clock.sleep(left)).await.is_err() {
                return Err(Ended::held(left));
            }
        }
        let turn = self
            .pacing
            .take(call.lane(), rate, latest)
            .ok_or_else(Ended::out_of_time)?;
        sleep_until(turn).await;
        let request = self.request(call)?;
        self.tally.count(call.called);
        let deadline = sending::deadline(self.api.timeout, Some(until));
        let sent = Instant::now();
        let exchanged = self.exchange(request, deadline).await;
        metrics::call_ended(Service::Access, end(call.kind, &exchanged), sent.elapsed());
        let (answer, asked) = match exchanged {
            Ok(Exchanged::Answered(answer)) => return Ok(answer),
            Ok(Exchanged::Refused(answer, asked)) => (answer, asked),
            Err(Failed::NotSent) => (Answer::NotSent, None),
            Err(Failed::TimedOut | Failed::BrokenOff) => (Answer::NoAnswer, None),
            Err(Failed::TooLong) => (Answer::Garbage, None),
        };
        Err(Ended {
            verdict: retries::judge(call.kind, answer),
            asked,
            reason: reason(call, answer),
        })
    }

    /// Sends a request and reads what is answered.
    async fn exchange(&self, request: Request, deadline: Instant) -> Result<Exchanged, Failed> {
        let mut response = sending::send(&self.http, request, deadline).await?;
        let status = response.status().as_u16();
        let asked = sending::retry_after(response.headers(), Timestamp::now());
        let body = sending::read(&mut response, ANSWER_BYTES, deadline).await;
        if (200..300).contains(&status) {
            return Ok(match read_body(&body?) {
                Some(answer) => Exchanged::Answered(answer),
                None => Exchanged::Refused(Answer::Garbage, asked),
            });
        }
        // The status tells most, so a body that does not arrive is taken for an empty one.
        let login_required = body
            .unwrap_or_default()
            .windows(LOGIN_REQUIRED.len())
            .any(|words| words == LOGIN_REQUIRED);
        let answer = Answer::Status {
            status,
            login_required,
        };
        Ok(Exchanged::Refused(answer, asked))
    }

    fn request(&self, call: &Call) -> Result<Request, Ended> {
        let url = format!("{}{}", self.api.base_url.as_str(), call.path);
        let url = Url::parse(&url).map_err(|_| Ended::unsendable())?;
        let mut request = Request::new(call.method.clone(), url);
        let json = HeaderValue::from_static("application/json");
        let headers = request.headers_mut();
        headers.insert(ACCEPT, json.clone());
        let name = HeaderName::from_bytes(self.api.key_header.as_bytes()).map_err(|_| Ended::unsendable())?;
        let mut key = HeaderValue::from_str(self.api.key.expose_secret()).map_err(|_| Ended::unsendable())?;
        key.set_sensitive(true);
        headers.insert(name, key);
        if let Some(body) = &call.body {
            headers.insert(http::header::CONTENT_TYPE, json);
            *request.body_mut() = Some(body.to_string().into());
        }
        Ok(request)
    }
}

/// What a service answered.
enum Exchanged {
    /// Success, with this; null where there was no body.
    Answered(Value),
    /// Anything else, and how long it asks to wait.
    Refused(Answer, Option<Duration>),
}

/// How a call has ended, as metrics tell it.
fn end(kind: CallKind, exchanged: &Result<Exchanged, Failed>) -> CallEnd {
    let answer = match exchanged {
        Ok(Exchanged::Answered(_)) => return CallEnd::Answered,
        Ok(Exchanged::Refused(answer, _)) => *answer,
        Err(Failed::TimedOut) => return CallEnd::TimedOut,
        Err(_) => return CallEnd::Failed,
    };
    match retries::judge(kind, answer) {
        Verdict::NoAccess => CallEnd::Unauthorized,
        Verdict::Throttled => CallEnd::Throttled,
        Verdict::Done | Verdict::Refused => CallEnd::Answered,
        Verdict::Retry | Verdict::Unknown => CallEnd::Failed,
    }
}

/// The answer in a body; an empty one is null.
fn read_body(body: &[u8]) -> Option<Value> {
    if body.trim_ascii().is_empty() {
        return Some(Value::Null);
    }
    serde_json::from_slice(body).ok()
}

/// The end of a call whose answer of success does not say what it should.
fn garbage(call: &Call) -> Ended {
    Ended::new(
        retries::judge(call.kind, Answer::Garbage),
        reason(call, Answer::Garbage),
    )
}

/// The end of a write whose outcome is not known, after which it was not to be seen either.
fn unread_after(ended: Ended, unread: &Ended) -> Ended {
    let verdict = match unread.verdict {
        // Nothing can be known before somebody has seen to the credentials.
        Verdict::NoAccess => Verdict::NoAccess,
        _ => ended.verdict,
    };
    Ended {
        verdict,
        asked: ended.asked.max(unread.asked),
        reason: format!("{}, and then {}", ended.reason, unread.reason),
    }
}

fn reason(call: &Call, answer: Answer) -> String {
    let name = call.name();
    match answer {
        Answer::Status { status, .. } => format!("the access API answered {name} with the status {status}"),
        Answer::Garbage => format!("the access API answered {name} with something else"),
        Answer::NotSent => format!("the access API could not be reached for {name}"),
        Answer::NoAnswer => format!("the access API did not answer {name}"),
    }
}
