//! The connection portal: pages on which a person picks a brokerage and connects it. Plain forms, no scripts.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use url::Url;

use super::CLIENT_ID;
use super::answer::Refusal;
use super::auth::Query;
use super::catalogue::{self, BROKERAGES, Brokerage};
use super::ids;
use super::shared::Shared;
use super::world::{ConnectionType, World};
use crate::answer::{set, text_answer};

/// How long a link can be opened.
const LINK_LIFETIME: SignedDuration = SignedDuration::from_mins(5);

/// How long an opened page can be used.
const PAGE_LIFETIME: SignedDuration = SignedDuration::from_mins(25);

/// What kind of connection the link was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ConnectionWish {
    /// One that reads, whatever the brokerage can do.
    Read,
    /// One that trades; other brokerages are not offered.
    Trade,
    /// One that trades where the brokerage can.
    TradeIfAvailable,
}

/// A visit to the portal, from the link on. Its token is not to be printed.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) id: String,
    token: String,
    pub(super) user_id: String,
    created_at: Timestamp,
    opened_at: Option<Timestamp>,
    /// Set once a connection was made or the visitor left: the link is spent then.
    finished: bool,
    wish: ConnectionWish,
    /// The slug of the only brokerage to offer.
    pub(super) broker: Option<String>,
    /// The connection to be repaired or upgraded.
    pub(super) reconnect: Option<String>,
    /// Where the visitor is sent afterwards.
    pub(super) redirect: Option<String>,
    pub(super) dark_mode: bool,
    pub(super) close_button: bool,
}

impl Session {
    /// A session whose link can be opened from now on.
    pub(super) fn new(user_id: &str, wish: ConnectionWish, now: Timestamp) -> Self {
        Self {
            id: ids::uuid(),
            token: ids::token(),
            user_id: user_id.to_owned(),
            created_at: now,
            opened_at: None,
            finished: false,
            wish,
            broker: None,
            reconnect: None,
            redirect: None,
            dark_mode: false,
            close_button: true,
        }
    }

    /// The link that the user follows.
    pub(super) fn link(&self, base_url: &str) -> String {
        format!(
            "{base_url}/snapTrade/redeemToken?token={}&clientId={CLIENT_ID}&sessionId={}",
            self.token, self.id
        )
    }

    /// Whether anything can still come of it.
    pub(super) fn is_open(&self, now: Timestamp) -> bool {
        !self.finished && (self.may_be_opened(now) || self.may_be_used(now))
    }

    fn may_be_opened(&self, now: Timestamp) -> bool {
        !self.finished && now.duration_since(self.created_at) < LINK_LIFETIME
    }

    fn may_be_used(&self, now: Timestamp) -> bool {
        !self.finished
            && self
                .opened_at
                .is_some_and(|opened| now.duration_since(opened) < PAGE_LIFETIME)
    }

    /// The brokerages that the visitor can choose from.
    fn offered(&self, world: &World) -> Vec<&'static Brokerage> {
        let reconnected = self
            .reconnect
            .as_ref()
            .and_then(|id| world.connection_of(&self.user_id, id).ok());
        if self.reconnect.is_some() {
            return reconnected
                .and_then(|one| catalogue::brokerage(&one.broker))
                .into_iter()
                .collect();
        }
        (BROKERAGES.iter())
            .filter(|one| self.broker.as_ref().is_none_or(|slug| one.slug == slug))
            .filter(|one| self.wish != ConnectionWish::Trade || one.allows_trading)
            .collect()
    }

    fn kind_at(&self, brokerage: &Brokerage) -> ConnectionType {
        match self.wish {
            ConnectionWish::Trade | ConnectionWish::TradeIfAvailable if brokerage.allows_trading => {
                ConnectionType::Trade
            }
            _ => ConnectionType::Read,
        }
    }
}

/// The portal's routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/snapTrade/redeemToken", get(open))
        .route("/snapTrade/portal", post(submit))
}

/// The link: shows what can be connected. A reload within the link's lifetime shows it again.
async fn open(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let opened = shared.change(|world, now| {
        let session = find(world, &query)?;
        let session = world
            .sessions
            .get_mut(session)
            .filter(|session| session.may_be_opened(now))?;
        session.opened_at.get_or_insert(now);
        let session = session.clone();
        let offered = session.offered(world);
        Some((session, offered))
    });
    match opened {
        Some((session, offered)) => choice_page(&session, &offered, None),
        None => expired_page(),
    }
}

/// The form: connects the brokerage that was picked, or leaves. Whoever is to be sent back is sent back at
/// once, as with `immediateRedirect` at the real portal, which otherwise shows one more page first.
async fn submit(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let form = Query::parse(&String::from_utf8_lossy(&body));
    let outcome = shared.change(|world, now| act(world, &form, now));
    match outcome {
        Outcome::Expired => expired_page(),
        Outcome::NothingPicked(session, offered) => {
            choice_page(&session, &offered, Some("Please pick a brokerage first."))
        }
        Outcome::Left(session) => left(
            &session,
            &[("status", "ABANDONED")],
            "You left without connecting",
        ),
        Outcome::Connected(session, connection_id) => left(
            &session,
            &[("status", "SUCCESS"), ("connection_id", &connection_id)],
            "Your brokerage is connected",
        ),
        Outcome::LimitReached(session) => limit_page(&session),
    }
}

enum Outcome {
    Expired,
    NothingPicked(Session, Vec<&'static Brokerage>),
    Left(Session),
    Connected(Session, String),
    LimitReached(Session),
}

fn act(world: &mut World, form: &Query, now: Timestamp) -> Outcome {
    let Some(index) = find(world, form) else {
        return Outcome::Expired;
    };
    let Some(session) = world
        .sessions
        .get(index)
        .filter(|session| session.may_be_used(now))
        .cloned()
    else {
        return Outcome::Expired;
    };
    let offered = session.offered(world);
    let finish = |world: &mut World| {
        if let Some(session) = world.sessions.get_mut(index) {
            session.finished = true;
        }
    };
    if form.get("action") == Some("cancel") {
        finish(world);
        return Outcome::Left(session);
    }
    let picked = form
        .get("broker")
        .and_then(|slug| offered.iter().find(|one| one.slug == slug).copied());
    let Some(brokerage) = picked else {
        return Outcome::NothingPicked(session, offered);
    };
    match world.connect(&session.user_id, brokerage, session.kind_at(brokerage), now) {
        Ok(connected) => {
            finish(world);
            Outcome::Connected(session, connected.connection_id)
        }
        // The page stays usable: the user may make room and try again.
        Err(Refusal::LimitReached) => Outcome::LimitReached(session),
        Err(_) => Outcome::Expired,
    }
}

/// The position of the session that a link or form names, when its token fits and its user is still there.
fn find(world: &World, given: &Query) -> Option<usize> {
    let (id, token) = (given.get("sessionId")?, given.get("token")?);
    world.sessions.iter().position(|session| {
        session.id == id && session.token == token && world.user(&session.user_id).is_some()
    })
}

/// Sends the visitor back with the outcome added to the query, or shows it where there is nowhere to go.
fn left(session: &Session, outcome: &[(&str, &str)], heading: &str) -> Response {
    match return_url(session, outcome) {
        Some(url) => {
            let mut answer = page(
                StatusCode::SEE_OTHER,
                session.dark_mode,
                None,
                heading,
                &format!("<p><a href=\"{}\">Continue</a></p>", escaped(url.as_str())),
            );
            set(&mut answer, LOCATION, url.as_str());
            answer
        }
        None => page(
            StatusCode::OK,
            session.dark_mode,
            None,
            heading,
            "<p>You can close this window and return to the application.</p>",
        ),
    }
}

fn return_url(session: &Session, outcome: &[(&str, &str)]) -> Option<Url> {
    let mut url = Url::parse(session.redirect.as_deref()?).ok()?;
    url.query_pairs_mut().extend_pairs(outcome);
    Some(url)
}

fn choice_page(session: &Session, offered: &[&Brokerage], complaint: Option<&str>) -> Response {
    let heading = if session.reconnect.is_some() {
        "Reconnect your brokerage"
    } else {
        "Connect your brokerage"
    };
    let mut content = String::new();
    if let Some(complaint) = complaint {
        // Writing to a String cannot fail.
        let _ = write!(
            content,
            "<p class=\"alert\" role=\"alert\">{}</p>",
            escaped(complaint)
        );
    }
    if offered.is_empty() {
        content.push_str("<p>There is nothing to connect here any more.</p>");
    }
    let _ = write!(
        content,
        "<form method=\"post\" action=\"/snapTrade/portal\">\
         <input type=\"hidden\" name=\"sessionId\" value=\"{}\">\
         <input type=\"hidden\" name=\"token\" value=\"{}\">",
        escaped(&session.id),
        escaped(&session.token)
    );
    if !offered.is_empty() {
        content.push_str("<fieldset><legend>Brokerage</legend>");
        for (index, brokerage) in offered.iter().enumerate() {
            let access = match session.kind_at(brokerage) {
                ConnectionType::Read => "View accounts",
                ConnectionType::Trade => "View accounts and trade",
            };
            let _ = write!(
                content,
                "<label class=\"choice\"><input type=\"radio\" name=\"broker\" value=\"{}\"{}>\
                 <span><strong>{}</strong><small>{access}</small></span></label>",
                escaped(brokerage.slug),
                if index == 0 { " checked" } else { "" },
                escaped(brokerage.name),
            );
        }
        content.push_str(
            "</fieldset><button type=\"submit\" name=\"action\" value=\"connect\">Connect</button>",
        );
    }
    if session.close_button {
        content.push_str(
            "<button class=\"quiet\" type=\"submit\" name=\"action\" value=\"cancel\">Cancel</button>",
        );
    }
    content.push_str("</form><p class=\"note\">This is a sandbox. No real account is touched.</p>");
    page(
        StatusCode::OK,
        session.dark_mode,
        session.redirect.as_deref(),
        heading,
        &content,
    )
}

fn limit_page(session: &Session) -> Response {
    let mut content = String::from(
        "<p class=\"alert\" role=\"alert\">No more brokerages can be connected: the plan's limit is reached.</p>",
    );
    let outcome = [
        ("status", "ERROR"),
        ("status_code", "403"),
        ("error_code", "0000"),
    ];
    match return_url(session, &outcome) {
        Some(url) => {
            let _ = write!(
                content,
                "<p><a class=\"button\" href=\"{}\">Back to the application</a></p>",
                escaped(url.as_str())
            );
        }
        None => content.push_str("<p>You can close this window and return to the application.</p>"),
    }
    page(
        StatusCode::FORBIDDEN,
        session.dark_mode,
        None,
        "Connection Limit Reached",
        &content,
    )
}

fn expired_page() -> Response {
    page(
        StatusCode::GONE,
        false,
        None,
        "This link has expired",
        "<p>A connection link works for 5 minutes and for one connection. \
         Please go back to the application and ask for a new one.</p>",
    )
}

const STYLE: &str = "\
:root{color-scheme:light;--ground:#f4f5f7;--sheet:#fff;--ink:#1b1f27;--soft:#5a6270;--line:#d5d9e0;--lead:#2450d8;\
--lead-ink:#fff;--warn:#8f1d1d;--warn-ground:#fdecec}\
.dark{color-scheme:dark;--ground:#12151b;--sheet:#1c2129;--ink:#eef1f6;--soft:#a6aebb;--line:#3a424f;--lead:#8fb0ff;\
--lead-ink:#10131a;--warn:#ffb4b4;--warn-ground:#3a1c1f}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--ground);\
color:var(--ink);font:1rem/1.5 system-ui,sans-serif}\
main{width:100%;max-width:27rem;background:var(--sheet);border:1px solid var(--line);border-radius:.75rem;padding:2rem}\
h1{margin:0 0 1rem;font-size:1.375rem;line-height:1.3}\
fieldset{border:0;margin:0 0 1.25rem;padding:0;display:grid;gap:.5rem}\
legend{padding:0;margin-bottom:.5rem;color:var(--soft)}\
.choice{display:flex;gap:.75rem;align-items:center;border:1px solid var(--line);border-radius:.5rem;\
padding:.625rem .75rem;cursor:pointer}\
.choice:has(:checked){border-color:var(--lead);box-shadow:0 0 0 1px var(--lead)}\
.choice input{width:1.125rem;height:1.125rem;margin:0;accent-color:var(--lead)}\
.choice span{display:grid}\
small,.note{color:var(--soft);font-size:.875rem}\
.note{margin:1.25rem 0 0}\
button,.button{display:block;width:100%;padding:.75rem;border:1px solid transparent;border-radius:.5rem;\
background:var(--lead);color:var(--lead-ink);font:inherit;font-weight:600;text-align:center;text-decoration:none;\
cursor:pointer}\
.quiet{margin-top:.5rem;background:none;border-color:var(--line);color:var(--ink);font-weight:400}\
:focus-visible{outline:3px solid var(--lead);outline-offset:2px}\
a{color:var(--lead)}a.button{color:var(--lead-ink)}\
.alert{padding:.75rem;border-radius:.5rem;background:var(--warn-ground);color:var(--warn)}";

/// A whole page. `form_target` is where a form on it may lead in the end, beside this origin: browsers hold a
/// policy's `form-action` against redirects, too.
fn page(status: StatusCode, dark: bool, form_target: Option<&str>, heading: &str, content: &str) -> Response {
    let nonce = ids::token();
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"{}>\n<head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{heading}</title><style nonce=\"{nonce}\">{STYLE}</style></head>\n\
         <body><main><h1>{heading}</h1>{content}</main></body>\n</html>\n",
        if dark { " class=\"dark\"" } else { "" },
        heading = escaped(heading),
    );
    let mut answer = text_answer(status, "text/html; charset=utf-8", html);
    let target = form_target
        .and_then(source_of)
        .map(|source| format!(" {source}"))
        .unwrap_or_default();
    let policy =
        format!("default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'{target}; base-uri 'none'");
    set(&mut answer, CONTENT_SECURITY_POLICY, &policy);
    set(&mut answer, X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(&mut answer, CACHE_CONTROL, "no-store");
    // The address of the page holds the session's token.
    set(&mut answer, REFERRER_POLICY, "no-referrer");
    answer
}

/// A URL as a source in a content security policy: its origin, or its scheme where it has none.
fn source_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let origin = url.origin();
    Some(if origin.is_tuple() {
        origin.ascii_serialization()
    } else {
        format!("{}:", url.scheme())
    })
}

/// Text that can stand in an element or in a quoted attribute.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_joins_a_query_that_is_there_already() {
        let mut session = Session::new("ada", ConnectionWish::Read, Timestamp::UNIX_EPOCH);
        session.redirect = Some("https://app.example/back?tab=2#top".to_owned());
        let url = return_url(&session, &[("status", "SUCCESS"), ("connection_id", "c-1")]).unwrap();
        assert_eq!(
            url.as_str(),
            "https://app.example/back?tab=2&status=SUCCESS&connection_id=c-1#top"
        );
    }

    #[test]
    fn a_link_lives_five_minutes_and_its_page_twenty_five_more() {
        let at = |minutes: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let mut session = Session::new("ada", ConnectionWish::Read, at(0));
        assert!(session.may_be_opened(at(4)));
        assert!(!session.may_be_opened(at(5)));
        assert!(!session.may_be_used(at(1)));
        session.opened_at = Some(at(4));
        assert!(session.may_be_used(at(28)));
        assert!(!session.may_be_used(at(29)));
    }

    #[test]
    fn markup_in_a_text_is_shown_as_text() {
        assert_eq!(
            escaped("<a href=\"x\">'&"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;"
        );
    }

    #[test]
    fn an_app_of_its_own_scheme_may_be_returned_to() {
        assert_eq!(source_of("berth://done").as_deref(), Some("berth:"));
        assert_eq!(
            source_of("http://localhost:3000/x?y").as_deref(),
            Some("http://localhost:3000")
        );
    }
}
