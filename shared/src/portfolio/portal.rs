//! The portal in which a user connects a brokerage: the link to it, and what came of a visit.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::connections::{self, ConnectionView};
use super::reader::{Subject, note_rejected_secret};
use super::userdata::{Reading, UserData};
use crate::app::App;
use crate::config::Config;
use crate::connections::counting::admission::NotAdmitted;
use crate::connections::machine::Entry;
use crate::connections::operations::Evicted;
use crate::connections::records::UserRecord;
use crate::connections::runner::NoSecret;
use crate::connections::timing::after;
use crate::connections::{Connections, Failure};
use crate::ids::{TenantId, UpstreamId};
use crate::snaptrade::{
    self, Connection, ConnectionId, ConnectionType, ErrorKind, LOGIN_LINK_LIFETIME, LoginRequest,
    UserCredentials,
};
use crate::store::StoreError;
use crate::telemetry::metrics::{self, Metric};

/// Longest redirect that is taken, in characters.
const REDIRECT_MAX_CHARS: usize = 2_048;

/// Longest slug of a brokerage, in characters.
const BROKER_MAX_CHARS: usize = 64;

/// How far SnapTrade's clock may be behind ours when a new connection is told from an old one.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// How long a visit to the portal takes at most: five minutes for the link, and 25 for the page.
const LONGEST_VISIT: Duration = Duration::from_secs(30 * 60);

/// What a link to the portal is asked for with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortalWish {
    /// What the connection may be used for.
    pub connection_type: Option<ConnectionType>,
    /// Whether reading will do where the brokerage does not offer that.
    pub or_read: bool,
    /// The brokerage to go to straight away.
    pub broker: Option<Broker>,
    /// Where the user goes afterwards.
    pub redirect: Option<Redirect>,
    /// The connection that is to be repaired, in place of a new one.
    pub reconnect: Option<ConnectionId>,
    /// Whether to go there at once when the connection is made.
    pub immediate_redirect: Option<bool>,
    /// Whether the portal is dark.
    pub dark_mode: Option<bool>,
    /// Whether the portal has a button to close it.
    pub show_close_button: Option<bool>,
    /// The portal's language.
    pub locale: Option<Locale>,
}

/// A brokerage's slug, such as `ALPACA`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker(String);

impl Broker {
    /// Takes `text` as a slug: 1 to 64 ASCII letters, digits, `-` or `_`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = (1..=BROKER_MAX_CHARS).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        well_formed.then(|| Self(text.to_owned()))
    }

    /// The slug as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A language of the portal. SnapTrade refuses any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locale {
    /// English.
    English,
    /// Brazilian Portuguese.
    BrazilianPortuguese,
}

impl Locale {
    /// The words that stand for the languages.
    pub const CHOICES: [(&'static str, Self); 2] =
        [("en", Self::English), ("pt-BR", Self::BrazilianPortuguese)];

    fn as_str(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::BrazilianPortuguese => "pt-BR",
        }
    }
}

/// A URL that a user may be sent to: on an allowed origin, and in ASCII, because a signed body has to be.
#[derive(Clone, PartialEq, Eq)]
pub struct Redirect(String);

impl Redirect {
    /// Takes `text` as a redirect.
    ///
    /// # Errors
    /// Part of a sentence that says what the text has to be.
    pub fn parse(text: &str, config: &Config) -> Result<Self, String> {
        let no_url = || "must be a URL such as https://app.example.com/connected".to_owned();
        if text.chars().count() > REDIRECT_MAX_CHARS {
            return Err(format!("must be at most {REDIRECT_MAX_CHARS} characters long"));
        }
        // The parser drops line breaks and tabs, so that the URL would not be the one that was looked at.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(no_url());
        }
        let url = reqwest::Url::parse(text).map_err(|_| no_url())?;
        if url.host_str().is_none() || !url.username().is_empty() || url.password().is_some() {
            return Err(no_url());
        }
        let loopback = match url.host_str() {
            Some("localhost" | "[::1]") => true,
            Some(host) => host
                .parse::<std::net::Ipv4Addr>()
                .is_ok_and(|address| address.is_loopback()),
            None => false,
        };
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            _ => return Err("must begin with https://".to_owned()),
        }
        if !config.allows_origin(&url.origin().ascii_serialization()) {
            return Err("must be on an allowed origin".to_owned());
        }
        // The parser has percent-encoded what is not ASCII.
        Ok(Self(url.to_string()))
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its query may hold a token of the application's.
        f.write_str("Redirect([redacted])")
    }
}

impl PortalWish {
    fn login_request(&self) -> LoginRequest {
        LoginRequest {
            broker: self.broker.as_ref().map(|broker| broker.0.clone()),
            immediate_redirect: self.immediate_redirect,
            custom_redirect: self.redirect.as_ref().map(|redirect| redirect.0.clone()),
            reconnect: self.reconnect.clone(),
            connection_type: self.connection_type.clone(),
            show_close_button: self.show_close_button,
            dark_mode: self.dark_mode,
            locale: self.locale.map(|locale| locale.as_str().to_owned()),
            connection_portal_version: None,
        }
    }
}

/// A link to the portal. Whoever holds it may connect a brokerage to this user, so it does not print.
#[derive(Clone, PartialEq)]
pub struct PortalLink {
    /// The link.
    pub url: String,
    /// The visit's id at SnapTrade.
    pub session_id: Option<String>,
    /// Until when the link works.
    pub expires_at: Timestamp,
    /// What the connection may be used for.
    pub connection_type: Option<ConnectionType>,
    /// What gave way for it; told only where connections are counted.
    pub evicted: Option<Option<Evicted>>,
}

impl fmt::Debug for PortalLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortalLink")
            .field("session_id", &self.session_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The last visit to the portal that a user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// The id at SnapTrade that it is for.
    pub upstream: UpstreamId,
    /// When the link was asked for.
    pub at: Timestamp,
    /// The connection that is to be repaired.
    pub reconnect: Option<ConnectionId>,
}

/// Why there is no link to the portal, or no word of how a visit went.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PortalError {
    /// The connection to be repaired is not one of the user's.
    #[error("the user has no such connection")]
    NoSuchConnection,
    /// SnapTrade does not offer what was asked for, such as trading at this brokerage.
    #[error("SnapTrade does not offer this: {0}")]
    NotOffered(snaptrade::Error),
    /// SnapTrade could not be used.
    #[error(transparent)]
    Snaptrade(snaptrade::Error),
    /// The records of users could not be used.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl PortalError {
    /// Whether SnapTrade refused for certain, so that nobody can have a link.
    fn is_certain(&self) -> bool {
        match self {
            Self::NotOffered(error) | Self::Snaptrade(error) => {
                error.outcome() == snaptrade::Outcome::Refused
            }
            Self::Failure(failure) => *failure == Failure::SecretRejected,
            Self::NoSuchConnection => false,
        }
    }
}

impl From<NotAdmitted> for PortalError {
    fn from(reason: NotAdmitted) -> Self {
        match reason {
            NotAdmitted::Refused(refusal) => Self::Failure(refusal.into()),
            NotAdmitted::NotRegistered => Self::Failure(NoSecret::NotRegistered.into()),
            NotAdmitted::SecretRejected => Self::Failure(Failure::SecretRejected),
            NotAdmitted::NoSuchConnection => Self::NoSuchConnection,
        }
    }
}

impl From<StoreError> for PortalError {
    fn from(error: StoreError) -> Self {
        Self::Failure(error.into())
    }
}

/// Visits to the portal of one tenant's users.
pub struct Portal<'a> {
    app: &'a App,
    connections: &'a Connections<'a>,
    tenant: TenantId,
}

impl<'a> Portal<'a> {
    /// Visits of `tenant`'s users, in whose name `connections` acts.
    #[must_use]
    pub fn new(app: &'a App, connections: &'a Connections<'a>, tenant: TenantId) -> Self {
        Self {
            app,
            connections,
            tenant,
        }
    }

    /// A link to the portal for `user`. The table is written once, before SnapTrade is asked: the audit trail, the
    /// time at which the user was seen, and the visit, by which its outcome is told later. SnapTrade is asked for the
    /// link, and asked again where it fails; once before that where a connection is to be repaired, and once after it
    /// where reading will do and the brokerage offers nothing else.
    ///
    /// # Errors
    /// [`PortalError`].
    pub async fn link(&self, entry: Entry, wish: &PortalWish) -> Result<PortalLink, PortalError> {
        if self.connections.counts_connections() {
            return self.counted_link(entry, wish).await;
        }
        let Subject {
            user,
            upstream,
            credentials,
        } = Subject::open(self.connections, entry.user).await?;
        let client = self.app.snaptrade();
        if let Some(reconnect) = &wish.reconnect {
            let listed = match client.once().list_connections(&credentials).await {
                Ok(listed) => listed,
                Err(error) => return Err(self.failed(&user, error).await),
            };
            if !listed.iter().any(|connection| connection.id == *reconnect) {
                return Err(PortalError::NoSuchConnection);
            }
        }
        let now = self.connections.runner().now();
        let visit = Visit {
            upstream,
            at: now,
            reconnect: wish.reconnect.clone(),
        };
        let data = UserData::new(self.app.store(), &self.tenant, &user.stem);
        self.connections
            .note_with(
                &user,
                "portal.link",
                &audit_detail(wish),
                vec![data.visit(&visit, now)?],
            )
            .await
            .map_err(|failure| match failure {
                // The user has just given way to another.
                Failure::NoSuchUser => Failure::NoSecret(NoSecret::NotRegistered),
                other => other,
            })?;
        self.login(&user, &credentials, wish, now).await
    }

    /// As [`Portal::link`], where connections are counted: a place is kept for the visit before SnapTrade is asked for
    /// the link, and given back where SnapTrade refuses for certain. Where SnapTrade does not answer the place is kept:
    /// the next link is given out under it.
    async fn counted_link(&self, entry: Entry, wish: &PortalWish) -> Result<PortalLink, PortalError> {
        let Subject {
            user, credentials, ..
        } = Subject::open(self.connections, entry.user.clone()).await?;
        let admitted = self
            .connections
            .admit(&user.user_id, entry, wish.reconnect.clone(), &audit_detail(wish))
            .await??;
        let now = self.connections.runner().now();
        let link = self.login(&user, &credentials, wish, now).await;
        if let (Err(error), Some(place), true) = (&link, &admitted.place, admitted.fresh)
            && error.is_certain()
        {
            self.connections.give_back(&user.user_id, place.clone()).await;
        }
        let evicted = self.connections.evicted_connection(admitted.eviction);
        link.map(|link| PortalLink {
            evicted: Some(evicted),
            ..link
        })
    }

    async fn login(
        &self,
        user: &UserRecord,
        credentials: &UserCredentials,
        wish: &PortalWish,
        now: Timestamp,
    ) -> Result<PortalLink, PortalError> {
        let client = self.app.snaptrade();
        let mut request = wish.login_request();
        let mut answer = client.login(credentials, &request).await;
        if wish.or_read
            && (wish.broker.is_some() || wish.reconnect.is_some())
            && matches!(&answer, Err(error) if error.kind == ErrorKind::Invalid)
        {
            request.connection_type = Some(ConnectionType::Read);
            answer = client.login(credentials, &request).await;
        }
        match answer {
            Ok(login) => {
                metrics::count(Metric::PortalLinks, 1);
                Ok(PortalLink {
                    url: login.redirect_uri,
                    session_id: login.session_id,
                    expires_at: after(now, LOGIN_LINK_LIFETIME),
                    connection_type: request.connection_type,
                    evicted: None,
                })
            }
            Err(error) => Err(match self.failed(user, error).await {
                // Only what the caller chose can be at fault when the user and our own credentials are not.
                PortalError::Snaptrade(error)
                    if error.kind == ErrorKind::Invalid
                        && (wish.broker.is_some() || wish.reconnect.is_some()) =>
                {
                    PortalError::NotOffered(error)
                }
                other => other,
            }),
        }
    }

    /// What came of `user`'s last visit to the portal, by what SnapTrade lists now. The connections are stored.
    ///
    /// # Errors
    /// [`PortalError`].
    pub async fn outcome(&self, user: Option<UserRecord>, said: &Said) -> Result<VisitOutcome, PortalError> {
        let Subject {
            user,
            upstream,
            credentials,
        } = Subject::open(self.connections, user).await?;
        let data = UserData::new(self.app.store(), &self.tenant, &user.stem);
        let begun = self.connections.runner().now();
        let (snapshot, listed) = tokio::join!(
            data.snapshot(&upstream, begun),
            self.app.snaptrade().list_connections(&credentials),
        );
        let snapshot = snapshot?;
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => return Err(self.failed(&user, error).await),
        };
        let now = self.connections.runner().now();
        let mut stored = connections::stored(&listed);
        connections::mark(&mut stored, &snapshot.deletions, now);
        let reading = Reading {
            upstream,
            begun_ms: begun.as_millisecond(),
            read_at: now,
            content: stored,
        };
        let (count, broken) = connections::count(&reading.content);
        data.put_connections(&reading, snapshot.connections.as_ref(), now)
            .await?;
        if user
            .active()
            .is_some_and(|active| (active.connections, active.broken) != (count, broken))
        {
            self.connections.set_connections(&user, count, broken).await?;
        }
        let outcome = decide(&listed, snapshot.visit.as_ref(), said, now);
        Ok(match outcome {
            Outcome::Connected(id) => VisitOutcome {
                outcome: "connected",
                connection: reading
                    .content
                    .iter()
                    .find(|connection| connection.connection_id == id)
                    .map(|connection| connections::view(connection, snapshot.accounts())),
            },
            Outcome::Pending => VisitOutcome::without("pending"),
            Outcome::Failed => VisitOutcome::without("failed"),
            Outcome::Abandoned => VisitOutcome::without("abandoned"),
        })
    }

    /// What to tell of a failed call; that the secret was rejected is noted.
    async fn failed(&self, user: &UserRecord, error: snaptrade::Error) -> PortalError {
        if error.kind != ErrorKind::UserSecretRejected {
            return PortalError::Snaptrade(error);
        }
        note_rejected_secret(self.connections, user).await;
        PortalError::Failure(Failure::SecretRejected)
    }
}

/// What the audit trail says of a link. Neither it nor the redirect is part of that.
fn audit_detail(wish: &PortalWish) -> Vec<(&str, &str)> {
    let mut detail = Vec::new();
    if let Some(connection_type) = &wish.connection_type {
        detail.push(("connection_type", connection_type.as_str()));
    }
    if let Some(broker) = &wish.broker {
        detail.push(("broker", broker.as_str()));
    }
    if let Some(reconnect) = &wish.reconnect {
        detail.push(("reconnect", reconnect.as_str()));
    }
    detail
}

/// What the redirect's parameters say. Anybody can write them, so they decide only which of the words that promise
/// nothing is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The connection that is said to have been made.
    pub connection_id: Option<ConnectionId>,
    /// How the visit is said to have ended: `SUCCESS`, `ERROR` or `ABANDONED`.
    pub status: Option<String>,
}

/// How a visit ended, as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VisitOutcome {
    /// `connected`, `pending`, `failed` or `abandoned`.
    pub outcome: &'static str,
    /// The connection that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionView>,
}

impl VisitOutcome {
    fn without(outcome: &'static str) -> Self {
        Self {
            outcome,
            connection: None,
        }
    }
}

/// How a visit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Connected(ConnectionId),
    Pending,
    Failed,
    Abandoned,
}

/// How the last visit ended, by the connections that SnapTrade lists.
///
/// One that works is the visit's when it is the one that was to be repaired, the one that is named, or one that was
/// made since the visit began; where there are several, the newest.
fn decide(listed: &[Connection], visit: Option<&Visit>, said: &Said, now: Timestamp) -> Outcome {
    let began = match visit {
        Some(visit) => visit.at,
        None => now.checked_sub(LONGEST_VISIT).unwrap_or(now),
    };
    let since = began.checked_sub(CLOCK_SKEW).unwrap_or(began);
    let reconnect = visit.and_then(|visit| visit.reconnect.as_ref());
    let named = |id: &ConnectionId| listed.iter().find(|connection| connection.id == *id);
    let newest = listed
        .iter()
        .filter(|connection| connection.created_date.is_some_and(|created| created >= since))
        .max_by_key(|connection| connection.created_date);
    let candidates = [
        said.connection_id.as_ref().and_then(named),
        reconnect.and_then(named),
        newest,
    ];
    let works = candidates
        .into_iter()
        .flatten()
        .find(|connection| !connection.disabled);
    if let Some(connection) = works {
        return Outcome::Connected(connection.id.clone());
    }
    match said.status.as_deref().map(str::to_ascii_uppercase).as_deref() {
        Some("ERROR") => Outcome::Failed,
        Some("ABANDONED") => Outcome::Abandoned,
        // SnapTrade may list a new connection only a moment after the redirect.
        _ => Outcome::Pending,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Config {
        Config::read(&|name| match name {
            "ALLOWED_ORIGINS" => {
                Some("https://app.example.com,https://*.vercel.app,http://localhost:3000".to_owned())
            }
            "FRONTEND_URL" => Some("https://front.example.com/app".to_owned()),
            "TABLE_NAME" => Some("berth".to_owned()),
            _ => None,
        })
        .unwrap()
    }

    #[test]
    fn a_redirect_goes_to_an_allowed_origin_only() {
        let config = config();
        for good in [
            "https://app.example.com/connected?x=1#part",
            "https://app.example.com:443/",
            "https://shop.vercel.app",
            "http://localhost:3000/done",
            "https://front.example.com/elsewhere",
        ] {
            assert!(Redirect::parse(good, &config).is_ok(), "{good}");
        }
        for bad in [
            "",
            "connected",
            "//app.example.com/",
            "javascript:alert(1)",
            "http://app.example.com/",
            "https://app.example.com:8443/",
            "https://app.example.com.evil.test/",
            "https://app.example.com@evil.test/",
            "https://user@app.example.com/",
            "https://evil.test\\@app.example.com/",
            "https://a.b.vercel.app/",
            "http://localhost:4000/",
            "https://app.exam\nple.com/",
            " https://app.example.com/",
        ] {
            assert!(Redirect::parse(bad, &config).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_sent_of_a_redirect_is_ascii() {
        let redirect = Redirect::parse("https://app.example.com/käse?q=é", &config()).unwrap();
        assert_eq!(redirect.as_str(), "https://app.example.com/k%C3%A4se?q=%C3%A9");
        assert!(!format!("{redirect:?}").contains("example"));
    }

    #[test]
    fn a_slug_is_letters_digits_and_dashes() {
        assert!(Broker::parse("INTERACTIVE-BROKERS-FLEX").is_some());
        for bad in ["", "A B", "ALPACA/../x", "É", "A".repeat(65).as_str()] {
            assert!(Broker::parse(bad).is_none(), "{bad}");
        }
    }

    fn connection(id: &str, created: &str, disabled: bool) -> Connection {
        serde_json::from_value(json!({"id": id, "created_date": created, "disabled": disabled})).unwrap()
    }

    fn said(connection_id: Option<&str>, status: Option<&str>) -> Said {
        Said {
            connection_id: connection_id.map(ConnectionId::new),
            status: status.map(str::to_owned),
        }
    }

    #[test]
    fn the_outcome_of_a_visit_is_what_snaptrade_lists_whatever_the_parameters_say() {
        let now: Timestamp = "2026-11-21T10:10:00Z".parse().unwrap();
        let visit = Visit {
            upstream: UpstreamId::from_snaptrade("ada~aaaaaaaaaaaa"),
            at: "2026-11-21T10:00:00Z".parse().unwrap(),
            reconnect: None,
        };
        let old = connection("old", "2026-11-20T10:00:00Z", false);
        let new = connection("new", "2026-11-21T10:05:00Z", false);
        let outcome = |listed: &[Connection], said: &Said| decide(listed, Some(&visit), said, now);
        let connected = |id: &str| Outcome::Connected(ConnectionId::new(id));

        let both = [old.clone(), new];
        for claim in [
            said(None, None),
            said(Some("new"), Some("SUCCESS")),
            said(Some("forged"), Some("SUCCESS")),
            said(None, Some("ERROR")),
        ] {
            assert_eq!(outcome(&both, &claim), connected("new"), "{claim:?}");
        }
        let before = [old];
        assert_eq!(
            outcome(&before, &said(Some("forged"), Some("SUCCESS"))),
            Outcome::Pending
        );
        assert_eq!(outcome(&before, &said(None, None)), Outcome::Pending);
        assert_eq!(outcome(&before, &said(None, Some("ERROR"))), Outcome::Failed);
        assert_eq!(
            outcome(&before, &said(None, Some("ABANDONED"))),
            Outcome::Abandoned
        );
        // The same login connected once more is the connection that was there already.
        assert_eq!(
            outcome(&before, &said(Some("old"), Some("SUCCESS"))),
            connected("old")
        );
        let broken = [connection("new", "2026-11-21T10:05:00Z", true)];
        assert_eq!(
            outcome(&broken, &said(Some("new"), Some("SUCCESS"))),
            Outcome::Pending
        );
    }

    #[test]
    fn a_repaired_connection_is_the_visits_although_it_is_old() {
        let now: Timestamp = "2026-11-21T10:10:00Z".parse().unwrap();
        let visit = Visit {
            upstream: UpstreamId::from_snaptrade("ada~aaaaaaaaaaaa"),
            at: now,
            reconnect: Some(ConnectionId::new("old")),
        };
        let listed = |disabled| [connection("old", "2026-11-20T10:00:00Z", disabled)];
        let outcome = |disabled| decide(&listed(disabled), Some(&visit), &said(None, None), now);
        assert_eq!(outcome(false), Outcome::Connected(ConnectionId::new("old")));
        assert_eq!(outcome(true), Outcome::Pending);
    }
}
