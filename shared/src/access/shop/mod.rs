//! The shop's client: its transactions as raw rows, and single ones by their ids (facts/access.md A5, A6).
//!
//! A site's own list comes as one array, which is read from the body as it arrives. MemberPress's comes in pages.
//! Either way no more than a chunk of rows is in memory, and a list that is not whole ends in an error: what was
//! given before is true, but that something is not in it says nothing.
//!
//! A read that fails for the moment is made again, up to three times in all, as long as nothing of its answer was
//! given. One that timed out is not: the shop is busy enough.

mod address;
mod array;
mod members;
mod pages;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Request, Response};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use self::address::Address;
use self::array::{ArrayReader, NoArray};
pub use self::pages::PageMark;
use self::pages::{Order, Page, SamePage, Walk};
use super::configuration::{Shop, ShopKind};
use super::fields;
use super::guards::Unsound;
use super::ids::TransactionId;
use super::retries;
use super::sending::{self, Failed};
use super::tally::{Called, Tally};
use super::times::{self, DayEdge, SourceTime};
use crate::telemetry::Service;
use crate::telemetry::metrics::{self, CallEnd};

/// Rows in a chunk of a site's own list.
const CHUNK: usize = 200;

/// Rows on a page of MemberPress's list: WordPress gives no more, and a shop may give fewer.
const PER_PAGE: u32 = 100;

/// How many tries follow the first.
const RETRIES: u32 = 2;

/// The longest wait before each of them.
const BACKOFF: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];

/// The longest wait that a shop may ask for and is waited for; with a longer one, the next run comes sooner.
const LONGEST_ASKED: Duration = Duration::from_secs(10);

/// The longest answer that is read whole, in bytes: a page of a hundred rows with all that belongs to their members.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// A time after the last sale, for a list that is to be empty: 2100-01-01.
const AFTER_ALL: i64 = 4_102_444_800;

/// A client of the shop. Copies are cheap.
#[derive(Debug, Clone)]
pub struct ShopClient {
    shared: Arc<Shared>,
    until: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    http: reqwest::Client,
    address: Address,
    kind: ShopKind,
    limit: Option<u32>,
    timeout: Duration,
    timezone: TimeZone,
    tally: Arc<Tally>,
}

/// Which rows are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Those that were created since then. There may be older ones among them.
    Since(Timestamp),
    /// All.
    All,
    /// All from there on.
    AllFrom(PageMark),
}

/// Some rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// They, as the shop gave them. A row that was moved while the list was read may come twice.
    pub rows: Vec<Value>,
    /// How many there are in all, where the shop says so.
    pub total: Option<u64>,
    /// Where [`Ask::AllFrom`] goes on after this chunk; `None` where that cannot be done.
    pub mark: Option<PageMark>,
}

/// Why the shop gave nothing, or nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShopError {
    /// It did not answer within its time.
    #[error("the shop did not answer in time")]
    Timeout,
    /// There was no connection, or it broke before anything was answered.
    #[error("the shop cannot be reached")]
    Unreachable,
    /// It answered with this status.
    #[error("the shop answered with the status {0}{hint}", hint = hint(*.0))]
    Status(u16),
    /// It asks for patience: so long, where it says.
    #[error("the shop asks to be called less often")]
    Throttled(Option<Duration>),
    /// It does not accept the credentials.
    #[error("the shop does not accept the credentials")]
    NoAccess,
    /// Its answer is no list of transactions ([`Unsound::Garbage`]).
    #[error("the shop's answer is no list of transactions")]
    NoList,
    /// Its list broke off in the middle.
    #[error("the shop's list of transactions broke off")]
    CutOff,
    /// Its list begins anew on each page.
    #[error("the shop gives the same page of transactions again")]
    SamePage,
    /// Its answer is no transaction, or another one than the one asked for.
    #[error("the shop's answer is not the transaction that was asked for")]
    NoTransaction,
    /// Its address or its credentials cannot be put into a request.
    #[error("the shop's address or credentials cannot be sent")]
    Unsendable,
}

/// What mostly is behind a status.
fn hint(status: u16) -> &'static str {
    match status {
        300..=399 => ", a redirect: wordpress.base_url has to be the address that it leads to",
        404 => ", so there is no such list: look at wordpress.transactions_endpoint",
        _ => "",
    }
}

impl ShopError {
    /// Whether it took too long.
    #[must_use]
    pub fn is_timeout(self) -> bool {
        self == Self::Timeout
    }

    /// What it means for what else is to be believed, where it is about the list itself.
    #[must_use]
    pub fn unsound(self) -> Option<Unsound> {
        matches!(self, Self::NoList | Self::CutOff | Self::SamePage).then_some(Unsound::Garbage)
    }

    /// Whether the shop answers, but has no use for just this call.
    #[must_use]
    pub fn is_about_the_call(self) -> bool {
        match self {
            Self::NoTransaction | Self::Unsendable => true,
            Self::Status(status) => (400..500).contains(&status),
            _ => false,
        }
    }

    /// Whether the same call may succeed in a moment.
    fn is_passing(self) -> bool {
        match self {
            Self::Unreachable => true,
            Self::Status(status) => matches!(status, 408 | 425 | 500..=599),
            Self::Throttled(asked) => asked.is_none_or(|asked| asked <= LONGEST_ASKED),
            Self::Timeout
            | Self::NoAccess
            | Self::NoList
            | Self::CutOff
            | Self::SamePage
            | Self::NoTransaction
            | Self::Unsendable => false,
        }
    }

    fn asked(self) -> Option<Duration> {
        match self {
            Self::Throttled(asked) => asked,
            _ => None,
        }
    }
}

impl From<Failed> for ShopError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::NotSent | Failed::BrokenOff => Self::Unreachable,
            Failed::TimedOut => Self::Timeout,
            Failed::TooLong => Self::NoList,
        }
    }
}

impl From<NoArray> for ShopError {
    fn from(_: NoArray) -> Self {
        Self::NoList
    }
}

impl From<SamePage> for ShopError {
    fn from(_: SamePage) -> Self {
        Self::SamePage
    }
}

impl ShopClient {
    /// A client of this shop that counts its calls in `tally`.
    #[must_use]
    pub fn new(http: reqwest::Client, shop: &Shop, tally: Arc<Tally>) -> Self {
        Self {
            shared: Arc::new(Shared {
                http,
                address: Address::new(shop),
                kind: shop.kind,
                limit: shop.transactions_limit,
                timeout: shop.timeout,
                timezone: shop.timezone.clone(),
                tally,
            }),
            until: None,
        }
    }

    /// A handle whose calls are over at `until`, however far they are; it ends in [`ShopError::Timeout`] then.
    #[must_use]
    pub fn until(&self, until: Instant) -> Self {
        Self {
            until: Some(until),
            ..self.clone()
        }
    }

    /// Begins to read the list. Nothing is sent before the first [`Scanning::next`].
    #[must_use]
    pub fn scan(&self, ask: Ask) -> Scanning {
        let per_page = self.shared.limit.map_or(PER_PAGE, |limit| limit.min(PER_PAGE));
        let stage = match (self.shared.kind, ask) {
            (ShopKind::Site, Ask::Since(since)) => Stage::Whole(Some(since)),
            // A site's own list has no place to go on from.
            (ShopKind::Site, Ask::All | Ask::AllFrom(_)) => Stage::Whole(None),
            (ShopKind::MemberPress, Ask::Since(since)) => {
                Stage::Pages(Box::new(Walk::new(Order::NewestFirst(since), per_page)))
            }
            (ShopKind::MemberPress, Ask::All) => {
                Stage::Pages(Box::new(Walk::new(Order::OldestFirst, per_page)))
            }
            (ShopKind::MemberPress, Ask::AllFrom(mark)) => {
                Stage::Pages(Box::new(Walk::resume(&mark, per_page)))
            }
        };
        Scanning {
            client: self.clone(),
            stage,
            left: self
                .shared
                .limit
                .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            limited: false,
            per_page,
        }
    }

    /// The row of a transaction as it is now; `None` when there is no such. MemberPress is asked for it, and a site's
    /// own list then gives it in its own shape: what MemberPress says of a member differs, and the name at TradingView
    /// must not change with who was asked. Where that list does not have it, it is `None`, too; so it is where a site
    /// does not let us ask MemberPress, as such a site is read by its list alone.
    ///
    /// # Errors
    /// [`ShopError`] says why it is not known.
    pub async fn transaction(&self, id: &TransactionId) -> Result<Option<Value>, ShopError> {
        // MemberPress knows no other ids, and has no path for them.
        if id.as_str().parse::<u64>().is_err() {
            return Ok(None);
        }
        let request = self.shared.address.transaction(id.as_str())?;
        let found = match self.one(&request).await {
            // A site without MemberPress's API is read by its list alone.
            Err(ShopError::Status(404)) if self.shared.kind == ShopKind::Site => None,
            Err(ShopError::NoAccess) if self.shared.kind == ShopKind::Site => {
                tracing::warn!(transaction = %id, "MemberPress's API does not accept the shop's credentials");
                None
            }
            found => found?,
        };
        let Some(row) = found else {
            return Ok(None);
        };
        if id_of(&row).as_ref() != Some(id) {
            return Err(ShopError::NoTransaction);
        }
        if self.shared.kind == ShopKind::Site {
            return self.own_row(id, &row).await;
        }
        let mut rows = [row];
        self.fill_in_members(&mut rows).await?;
        let [row] = rows;
        Ok(Some(row))
    }

    /// Whether a transaction that a whole scan did not list is gone. Pages are read one after the other, so that one may
    /// be passed over when others come and go in between; an answer in one piece leaves nothing to ask.
    ///
    /// # Errors
    /// [`ShopError`] says why it is not known.
    pub async fn is_gone(&self, id: &TransactionId) -> Result<bool, ShopError> {
        match self.shared.kind {
            ShopKind::Site => Ok(true),
            ShopKind::MemberPress => {
                let request = self.shared.address.transaction(id.as_str())?;
                Ok(self.one(&request).await?.is_none())
            }
        }
    }

    /// A transaction as the site's own list has it, which is asked for it by the time that MemberPress says.
    async fn own_row(&self, id: &TransactionId, found: &Value) -> Result<Option<Value>, ShopError> {
        let created = found.get("created_at").unwrap_or(&Value::Null);
        let Ok(SourceTime::At { at, .. }) = times::read(created, &self.shared.timezone, DayEdge::First)
        else {
            return Ok(None);
        };
        // Sites differ in whose clock they ask by and in whether they count the moment itself.
        let since = at.checked_sub(SignedDuration::from_hours(24)).unwrap_or(at);
        let mut scanning = self.scan(Ask::Since(since));
        while let Some(chunk) = scanning.next().await? {
            let own = |row: &Value| id_of(row).as_ref() == Some(id);
            if let Some(row) = chunk.rows.into_iter().find(own) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Whether the list can be read, at the price of one small call.
    ///
    /// # Errors
    /// [`ShopError`] says why it cannot.
    pub async fn check(&self) -> Result<(), ShopError> {
        let address = &self.shared.address;
        let request = match self.shared.kind {
            ShopKind::Site => address.list(Timestamp::from_second(AFTER_ALL).ok())?,
            ShopKind::MemberPress => address.page(1, 1, Order::NewestFirst(Timestamp::MAX))?,
        };
        let mut response = self.open(&request).await?;
        let mut reader = ArrayReader::default();
        // That it begins as a list is enough: a site that does not know its own parameter gives all it has.
        loop {
            let piece = self.piece(&mut response).await?.ok_or(ShopError::NoList)?;
            reader.push(&piece);
            if reader.next()?.is_some() || reader.is_closed() {
                return Ok(());
            }
        }
    }

    /// Puts the members that rows only name into them. A member that the shop does not have is left as it is.
    async fn fill_in_members(&self, rows: &mut [Value]) -> Result<(), ShopError> {
        for id in members::missing(rows) {
            let request = self.shared.address.member(&id)?;
            let member = match self.one(&request).await {
                Ok(member) => member,
                // A shop without this list does not have the member in it either.
                Err(ShopError::Status(404)) => None,
                Err(error) => return Err(error),
            };
            if let Some(member) = member {
                members::put_in(rows, &id, &member);
            }
        }
        Ok(())
    }

    /// One thing by its id.
    async fn one(&self, request: &Request) -> Result<Option<Value>, ShopError> {
        match self.answer(request).await? {
            Answered::Missing(_) => Ok(None),
            Answered::Body(body, _) => match serde_json::from_slice::<Value>(&body) {
                Ok(thing) if thing.is_object() => Ok(Some(thing)),
                _ => Err(ShopError::NoTransaction),
            },
        }
    }

    /// A page of MemberPress's list.
    async fn page(&self, page: u32, per_page: u32, order: Order) -> Result<Page, ShopError> {
        let request = self.shared.address.page(page, per_page, order)?;
        let (body, headers) = match self.answer(&request).await? {
            Answered::Body(body, headers) => (body, headers),
            Answered::Missing(status) => return Err(ShopError::Status(status)),
        };
        let rows = match serde_json::from_slice(&body) {
            Ok(Value::Array(rows)) => rows,
            Err(error) if error.is_eof() => return Err(ShopError::CutOff),
            _ => return Err(ShopError::NoList),
        };
        Ok(Page {
            rows,
            total: number(&headers, "x-wp-total"),
            pages: number(&headers, "x-wp-totalpages").and_then(|pages| u32::try_from(pages).ok()),
        })
    }

    /// Sends a call, again if need be, and reads the whole answer.
    async fn answer(&self, request: &Request) -> Result<Answered, ShopError> {
        let mut retry = 0;
        loop {
            match self.answer_once(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.wait_after(error, &mut retry).await?,
            }
        }
    }

    async fn answer_once(&self, request: &Request) -> Result<Answered, ShopError> {
        let mut response = self.send(request).await?;
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let deadline = sending::deadline(self.shared.timeout, self.until);
        let body = sending::read(&mut response, ANSWER_BYTES, deadline).await;
        if (200..300).contains(&status) {
            return match body {
                Ok(body) => Ok(Answered::Body(body, headers)),
                Err(Failed::BrokenOff) => Err(ShopError::Unreachable),
                Err(failed) => Err(failed.into()),
            };
        }
        if is_missing(status, &body.unwrap_or_default()) {
            return Ok(Answered::Missing(status));
        }
        Err(refusal(status, &headers))
    }

    /// Sends a call, again if need be, and gives the answer before its body was read.
    async fn open(&self, request: &Request) -> Result<Response, ShopError> {
        let mut retry = 0;
        loop {
            match self.open_once(request).await {
                Ok(response) => return Ok(response),
                Err(error) => self.wait_after(error, &mut retry).await?,
            }
        }
    }

    async fn open_once(&self, request: &Request) -> Result<Response, ShopError> {
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            Ok(response)
        } else {
            Err(refusal(status, response.headers()))
        }
    }

    async fn send(&self, request: &Request) -> Result<Response, ShopError> {
        let deadline = sending::deadline(self.shared.timeout, self.until);
        let request = request.try_clone().ok_or(ShopError::Unsendable)?;
        self.shared.tally.count(Called::Transactions);
        let sent = Instant::now();
        let answer = sending::send(&self.shared.http, request, deadline).await;
        metrics::call_ended(Service::Access, end(&answer), sent.elapsed());
        Ok(answer?)
    }

    /// The next piece of a body. Only the wait for it counts: whoever reads the list takes time between two pieces.
    async fn piece(&self, response: &mut Response) -> Result<Option<Vec<u8>>, ShopError> {
        let deadline = sending::deadline(self.shared.timeout, self.until);
        match sending::piece(response, deadline).await {
            Ok(piece) => Ok(piece),
            Err(Failed::BrokenOff) => Err(ShopError::CutOff),
            Err(failed) => Err(failed.into()),
        }
    }

    /// Waits until a call that ended with `error` may be made again, for the time that `retry` then counts; gives the
    /// error back where it may not.
    async fn wait_after(&self, error: ShopError, retry: &mut u32) -> Result<(), ShopError> {
        if !error.is_passing() {
            return Err(error);
        }
        *retry = retry.saturating_add(1);
        let wait = retries::in_call(*retry, RETRIES, &BACKOFF, error.asked(), sending::share());
        let Some(resume) = wait.and_then(|wait| Instant::now().checked_add(wait)) else {
            return Err(error);
        };
        if self.until.is_some_and(|until| resume >= until) {
            return Err(error);
        }
        tracing::debug!(retry = *retry, %error, "a call to the shop failed and is made again");
        sleep_until(resume).await;
        Ok(())
    }
}

/// What a call that is not a failure came to.
enum Answered {
    /// A body, with the headers.
    Body(Vec<u8>, HeaderMap),
    /// There is no such thing, said with this status.
    Missing(u16),
}

/// Whether an answer says that there is no such thing, and not that there is no such path. MemberPress gives such an
/// error without a status, which WordPress answers with 500 (A6).
fn is_missing(status: u16, body: &[u8]) -> bool {
    if !matches!(status, 404 | 410 | 500) {
        return false;
    }
    let Ok(error) = serde_json::from_slice::<Value>(body) else {
        return false;
    };
    let Some(code) = fields::at(&error, "code") else {
        return false;
    };
    let has_status = fields::at(&error, "data.status").is_some();
    code != "rest_no_route" && (status != 500 || !has_status)
}

/// How a call has ended, as far as the beginning of its answer tells.
fn end(answer: &Result<Response, Failed>) -> CallEnd {
    match answer {
        Ok(response) => match response.status().as_u16() {
            401 | 403 => CallEnd::Unauthorized,
            429 | 503 => CallEnd::Throttled,
            500.. => CallEnd::Failed,
            _ => CallEnd::Answered,
        },
        Err(Failed::TimedOut) => CallEnd::TimedOut,
        Err(_) => CallEnd::Failed,
    }
}

/// The error of an answer that is no success.
fn refusal(status: u16, headers: &HeaderMap) -> ShopError {
    match status {
        401 | 403 => ShopError::NoAccess,
        429 | 503 => ShopError::Throttled(sending::retry_after(headers, Timestamp::now())),
        _ => ShopError::Status(status),
    }
}

fn id_of(row: &Value) -> Option<TransactionId> {
    TransactionId::parse(&fields::first(row, &["transaction_id", "id"])?)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// A list being read. After an error it goes on giving that error.
#[derive(Debug)]
pub struct Scanning {
    client: ShopClient,
    stage: Stage,
    /// How many rows may still be given, where there is a limit.
    left: Option<usize>,
    limited: bool,
    per_page: u32,
}

#[derive(Debug)]
enum Stage {
    /// The site's own list is to be asked for, since a time or whole.
    Whole(Option<Timestamp>),
    /// It arrives.
    Arriving(Box<Response>, ArrayReader),
    /// MemberPress's pages.
    Pages(Box<Walk>),
    /// All was given.
    Ended,
    /// It failed.
    Failed(ShopError),
}

impl Scanning {
    /// The next rows; `None` when all were given and the list was whole.
    ///
    /// # Errors
    /// [`ShopError`] says why there are no more, though there may be.
    pub async fn next(&mut self) -> Result<Option<Chunk>, ShopError> {
        let chunk = self.chunk().await;
        match chunk {
            Ok(Some(chunk)) => Ok(Some(self.limit(chunk))),
            Ok(None) => {
                self.stage = Stage::Ended;
                Ok(None)
            }
            Err(error) => {
                self.stage = Stage::Failed(error);
                Err(error)
            }
        }
    }

    /// Whether the list was given up to the configured limit only, so that what is not in it may exist all the same.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.limited
    }

    async fn chunk(&mut self) -> Result<Option<Chunk>, ShopError> {
        if self.left == Some(0) {
            return Ok(None);
        }
        match &mut self.stage {
            Stage::Ended => Ok(None),
            Stage::Failed(error) => Err(*error),
            Stage::Pages(walk) => pages(&self.client, walk, self.per_page).await,
            Stage::Arriving(response, reader) => rows(&self.client, response, reader).await,
            Stage::Whole(since) => {
                let request = self.client.shared.address.list(*since)?;
                let mut response = Box::new(self.client.open(&request).await?);
                let mut reader = ArrayReader::default();
                let chunk = rows(&self.client, &mut response, &mut reader).await;
                self.stage = Stage::Arriving(response, reader);
                chunk
            }
        }
    }

    /// Holds a chunk to what may still be given. Where the list is cut short its total would be misleading.
    fn limit(&mut self, mut chunk: Chunk) -> Chunk {
        let Some(left) = self.left else {
            return chunk;
        };
        chunk.rows.truncate(left);
        let left = left.saturating_sub(chunk.rows.len());
        self.left = Some(left);
        self.limited = self.limited || left == 0;
        Chunk { total: None, ..chunk }
    }
}

/// The next rows of a list that arrives.
async fn rows(
    client: &ShopClient,
    response: &mut Response,
    reader: &mut ArrayReader,
) -> Result<Option<Chunk>, ShopError> {
    let mut rows = Vec::new();
    while rows.len() < CHUNK {
        if let Some(row) = reader.next()? {
            rows.push(row);
            continue;
        }
        match client.piece(response).await? {
            Some(piece) => reader.push(&piece),
            None if reader.is_closed() => break,
            None => return Err(ShopError::CutOff),
        }
    }
    if rows.is_empty() {
        return Ok(None);
    }
    client.fill_in_members(&mut rows).await?;
    Ok(Some(Chunk {
        rows,
        total: None,
        mark: None,
    }))
}

/// The rows of the next page that has any.
async fn pages(client: &ShopClient, walk: &mut Walk, per_page: u32) -> Result<Option<Chunk>, ShopError> {
    while let Some(number) = walk.page() {
        let page = client.page(number, per_page, walk.order()).await?;
        let total = page.total;
        let Some(mut rows) = walk.take(page, &client.shared.timezone)? else {
            continue;
        };
        client.fill_in_members(&mut rows).await?;
        return Ok(Some(Chunk {
            rows,
            total,
            mark: walk.mark(),
        }));
    }
    Ok(None)
}
