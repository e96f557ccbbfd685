//! Berth's own clients of the shop and of the access APIs against the sandbox: what one sends and answers, the other
//! understands, also where calls fail. Answers that the sandbox does not give come from a socket.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use berth::access::configuration::Configuration;
use berth::access::expiry::Expiry;
use berth::access::ids::{ScriptId, TransactionId};
use berth::access::names::{Lookup, Username};
use berth::access::plan::Action;
use berth::access::report::Calls;
use berth::access::retries::Verdict;
use berth::access::service::{AccessClient, Ended, Order, Pacing, REMARKS};
use berth::access::shop::{Ask, Chunk, ShopClient, ShopError};
use berth::access::tally::Tally;
use berth::clock::Clock;
use berth::snaptrade::http_client;
use berth_sandbox::access::{ACCESS_KEY, Options, Sandbox, WORDPRESS_KEY, WordPressAccess};
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// The sandbox, and the clients' configuration for it.
struct World {
    sandbox: Sandbox,
    clock: Clock,
    document: Value,
}

impl World {
    async fn start() -> Self {
        Self::start_with(WordPressAccess::default()).await
    }

    async fn start_with(wordpress: WordPressAccess) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (http, smtp) = (listen().await.unwrap(), listen().await.unwrap());
        let options = Options {
            wordpress,
            ..Options::default()
        };
        let clock = options.clock.clone();
        let sandbox = Sandbox::start(http, smtp, options).await.unwrap();
        let document = document(sandbox.base_url());
        Self {
            sandbox,
            clock,
            document,
        }
    }

    /// The same with other settings in one part.
    fn with(mut self, part: &str, settings: Value) -> Self {
        for (name, value) in settings.as_object().unwrap() {
            self.document[part][name] = value.clone();
        }
        self
    }

    fn shop(&self) -> (ShopClient, Arc<Tally>) {
        shop_of(&self.document)
    }

    fn access(&self) -> (AccessClient, Arc<Tally>) {
        self.access_paced_by(Arc::default())
    }

    fn access_paced_by(&self, pacing: Arc<Pacing>) -> (AccessClient, Arc<Tally>) {
        let configuration = Configuration::parse(&self.document.to_string(), None).unwrap();
        let tally = Arc::<Tally>::default();
        let client = AccessClient::new(
            http_client().unwrap(),
            &configuration.access_api,
            pacing,
            Arc::clone(&tally),
            self.clock.clone(),
        );
        (client, tally)
    }

    async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let url = format!("{}/__sandbox/{path}", self.sandbox.base_url());
        let request = http_client().unwrap().request(method, url).json(&body);
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn put(&self, path: &str, body: Value) {
        self.control(Method::PUT, path, body).await;
    }

    async fn fault(&self, operation: &str, mut fault: Value) {
        fault["operation"] = operation.into();
        self.control(Method::POST, "faults", fault).await;
    }

    /// The requests received: method, path and query, and body.
    async fn requests(&self) -> Vec<Value> {
        let requests = self.control(Method::GET, "requests", json!(null)).await;
        requests.as_array().unwrap().clone()
    }

    /// When `name`'s access to S1 ends, as the sandbox has it.
    async fn end_of(&self, name: &str) -> Option<Value> {
        let all = self.control(Method::GET, "access/S1", json!(null)).await;
        let all = all.as_array().unwrap();
        let found = all.iter().find(|user| user["username"] == name)?;
        Some(found["expiration"].clone())
    }
}

fn document(base_url: &str) -> Value {
    json!({
        "wordpress": {"base_url": base_url, "api_key": WORDPRESS_KEY, "timeout": 1},
        "tradingview": {
            "base_url": base_url, "api_key": ACCESS_KEY, "timeout": 1, "retry_backoff_seconds": [0],
            "grants_per_second": 0, "validations_per_second": 0, "expiry_format": "datetime"
        },
        "products": {}
    })
}

fn shop_of(document: &Value) -> (ShopClient, Arc<Tally>) {
    let configuration = Configuration::parse(&document.to_string(), None).unwrap();
    let tally = Arc::<Tally>::default();
    let client = ShopClient::new(http_client().unwrap(), &configuration.shop, Arc::clone(&tally));
    (client, tally)
}

fn in_a_minute() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

// The shop.

fn row(id: u64) -> Value {
    json!({
        "id": id, "user_id": 7, "user_email": "ada@example.com", "product_id": 100, "status": "complete",
        "created_at": moment(i64::try_from(id).unwrap()).to_string()
    })
}

/// A time so many hours after the beginning of 2026.
fn moment(hours: i64) -> Timestamp {
    let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    begin + SignedDuration::from_hours(hours)
}

fn rows(ids: std::ops::RangeInclusive<u64>) -> Value {
    ids.map(row).collect()
}

fn ids(chunk: &Chunk) -> Vec<u64> {
    chunk.rows.iter().map(|row| row["id"].as_u64().unwrap()).collect()
}

/// All that a scan gives, chunk by chunk.
async fn scanned(shop: &ShopClient, ask: Ask) -> Result<Vec<Chunk>, ShopError> {
    let mut scanning = shop.scan(ask);
    let mut chunks = Vec::new();
    while let Some(chunk) = scanning.next().await? {
        chunks.push(chunk);
    }
    Ok(chunks)
}

async fn ids_of(shop: &ShopClient, ask: Ask) -> Result<Vec<u64>, ShopError> {
    Ok(scanned(shop, ask).await?.iter().flat_map(ids).collect())
}

#[tokio::test]
async fn a_sites_own_list_is_given_whole_in_chunks_or_since_a_time() {
    let world = World::start().await;
    let (shop, tally) = world.shop();
    assert_eq!(scanned(&shop, Ask::All).await, Ok(vec![]));
    world.put("transactions", rows(1..=450)).await;
    let chunks = scanned(&shop, Ask::All).await.unwrap();
    let lengths: Vec<usize> = chunks.iter().map(|chunk| chunk.rows.len()).collect();
    assert_eq!(lengths, [200, 200, 50]);
    assert_eq!(chunks[0].rows[0], row(1));
    assert!(
        chunks
            .iter()
            .all(|chunk| (chunk.total, chunk.mark.as_ref()) == (None, None))
    );
    assert_eq!(ids_of(&shop, Ask::Since(moment(449))).await, Ok(vec![449, 450]));
    assert_eq!(tally.snapshot().transactions, 3);
    shop.check().await.unwrap();
}

#[tokio::test]
async fn no_more_rows_are_read_than_the_limit_says() {
    for kind in ["site", "memberpress"] {
        let world = World::start()
            .await
            .with("wordpress", json!({"kind": kind, "transactions_limit": 130}));
        world.put("transactions", rows(1..=450)).await;
        let (shop, _) = world.shop();
        let mut scanning = shop.scan(Ask::All);
        let mut count = 0;
        while let Some(chunk) = scanning.next().await.unwrap() {
            count += chunk.rows.len();
            assert_eq!(chunk.total, None, "a total would make the list look cut off");
        }
        assert_eq!((count, scanning.is_limited()), (130, true), "{kind}");
    }
}

#[tokio::test]
async fn each_of_the_credentials_opens_the_shop_and_none_is_shown() {
    let only = |api_key: Option<&str>, basic: Option<(&str, &str)>, token: Option<(&str, &str)>| {
        let owned = |(name, secret): (&str, &str)| (name.to_owned(), secret.to_owned());
        WordPressAccess {
            api_key: api_key.map(str::to_owned),
            api_key_header: Some("X-Shop".to_owned()),
            basic: basic.map(owned),
            token: token.map(owned),
            ..WordPressAccess::default()
        }
    };
    for (accepted, settings) in [
        (only(Some("key-1"), None, None), json!({"api_key": "key-1"})),
        (
            only(Some("key-1"), None, None),
            json!({"api_key": "key-1", "api_key_header": "x-shop"}),
        ),
        (
            only(Some("key-1"), None, None),
            json!({"api_key": "key-1", "api_key_header": "Authorization"}),
        ),
        (
            only(None, Some(("ada", "secr et pass")), None),
            json!({"api_key": "other", "basic_auth_user": "ada", "basic_auth_password": "secr et pass"}),
        ),
        (
            only(None, None, Some(("t", "tok&en"))),
            json!({"api_key": "", "api_token_param": "t", "api_token": "tok&en"}),
        ),
    ] {
        let world = World::start_with(accepted)
            .await
            .with("wordpress", settings.clone());
        world.put("transactions", rows(1..=2)).await;
        let (shop, _) = world.shop();
        assert_eq!(ids_of(&shop, Ask::All).await, Ok(vec![1, 2]), "{settings}");
        let shown = format!("{shop:?}");
        for secret in ["key-1", "secr et", "tok&en"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let (stranger, tally) = shop_of(&document(world.sandbox.base_url()));
        assert_eq!(ids_of(&stranger, Ask::All).await, Err(ShopError::NoAccess));
        assert_eq!(tally.snapshot().transactions, 1);
    }
}

#[tokio::test]
async fn memberpress_is_read_in_pages_while_rows_arrive() {
    let world = World::start()
        .await
        .with("wordpress", json!({"kind": "memberpress"}));
    world.put("transactions", rows(1..=250)).await;
    let (shop, tally) = world.shop();
    let mut scanning = shop.scan(Ask::All);
    let first = scanning.next().await.unwrap().unwrap();
    assert_eq!((ids(&first), first.total), ((1..=100).collect(), Some(250)));
    world.put("transactions", rows(1..=260)).await;
    let second = scanning.next().await.unwrap().unwrap();
    assert_eq!((ids(&second), second.total), ((101..=200).collect(), Some(260)));
    // The first row is deleted, which moves row 201 to a page that was read already.
    world.put("transactions", rows(2..=260)).await;
    let third = scanning.next().await.unwrap().unwrap();
    assert_eq!(ids(&third), [201]);
    let last = scanning.next().await.unwrap().unwrap();
    assert_eq!((ids(&last), last.total), ((202..=260).collect(), Some(259)));
    assert_eq!(scanning.next().await, Ok(None));
    assert_eq!(tally.snapshot().transactions, 5);

    let on = ids_of(&shop, Ask::AllFrom(second.mark.unwrap())).await;
    assert_eq!(on, Ok((201..=260).collect()));
    // From the newest on, until a page has nothing that is new enough.
    let recent = ids_of(&shop, Ask::Since(moment(250))).await.unwrap();
    assert_eq!(recent, (61..=260).rev().collect::<Vec<_>>());
    shop.check().await.unwrap();
}

#[tokio::test]
async fn members_that_rows_only_name_are_fetched_once_for_a_page() {
    let world = World::start()
        .await
        .with("wordpress", json!({"kind": "memberpress"}));
    let ada = json!({"id": 7, "email": "ada@example.com", "username": "ada"});
    world.put("members", json!([ada])).await;
    let named = |id: u64, member: Value| json!({"id": id, "member": member, "status": "complete"});
    world
        .put(
            "transactions",
            json!([
                named(1, json!(7)),
                named(2, json!("7")),
                named(3, json!(8)),
                named(4, ada.clone())
            ]),
        )
        .await;
    let (shop, tally) = world.shop();
    let chunks = scanned(&shop, Ask::All).await.unwrap();
    let members: Vec<&Value> = chunks[0].rows.iter().map(|row| &row["member"]).collect();
    assert_eq!(members, [&ada, &ada, &json!(8), &ada]);
    // The page, and the two members that rows only name, of whom one does not exist.
    assert_eq!(tally.snapshot().transactions, 3);
}

#[tokio::test]
async fn a_transaction_is_fetched_anew_by_its_id_whatever_list_the_site_has() {
    for (kind, calls) in [("site", 4), ("memberpress", 3)] {
        let world = World::start().await.with("wordpress", json!({"kind": kind}));
        world.put("transactions", rows(1..=3)).await;
        let (shop, tally) = world.shop();
        let fetch = async |id: &str| shop.transaction(&TransactionId::parse(id).unwrap()).await;
        assert_eq!(fetch("2").await, Ok(Some(row(2))), "{kind}");
        for missing in ["9", "x-9", ".."] {
            assert_eq!(fetch(missing).await, Ok(None));
        }
        let other = json!({"kind": "malformed", "body": row(3)});
        world.fault("transactions", other).await;
        assert_eq!(fetch("2").await, Err(ShopError::NoTransaction));
        assert_eq!(tally.snapshot().transactions, calls);
    }
}

/// What MemberPress says of a member has no name at TradingView, and another one must not be taken for it.
#[tokio::test]
async fn a_sites_own_row_is_taken_and_not_what_memberpress_makes_of_it() {
    let world = World::start().await;
    let mut own = row(2);
    own["user_meta"] = json!({"tradingview_username": "JoeBloggs"});
    world.put("transactions", json!([row(1), own, row(3)])).await;
    let (shop, _) = world.shop();
    let id = TransactionId::parse("2").unwrap();
    let mut bare = row(2);
    bare["member"] = json!({"id": 7, "email": "ada@example.com", "username": "ada"});
    let memberpress = json!({"kind": "malformed", "body": bare});
    world.fault("transactions", memberpress.clone()).await;
    assert_eq!(shop.transaction(&id).await, Ok(Some(own)));
    // What the site itself does not list is left to its list.
    world.put("transactions", json!([row(1)])).await;
    world.fault("transactions", memberpress).await;
    assert_eq!(shop.transaction(&id).await, Ok(None));
    world
        .fault("transactions", json!({"kind": "status", "status": 401}))
        .await;
    assert_eq!(shop.transaction(&id).await, Ok(None));
}

#[tokio::test]
async fn whether_a_transaction_is_gone_is_asked_where_a_walk_could_have_passed_it_over() {
    let world = World::start()
        .await
        .with("wordpress", json!({"kind": "memberpress"}));
    world.put("transactions", rows(1..=3)).await;
    let (shop, _) = world.shop();
    let is_gone = async |id: &str| shop.is_gone(&TransactionId::parse(id).unwrap()).await;
    assert_eq!((is_gone("2").await, is_gone("9").await), (Ok(false), Ok(true)));
    world
        .fault(
            "transactions",
            json!({"kind": "status", "status": 500, "times": 3}),
        )
        .await;
    assert_eq!(is_gone("9").await, Err(ShopError::Status(500)));
    let world = world.with("wordpress", json!({"kind": "site"}));
    let (shop, tally) = world.shop();
    assert_eq!(shop.is_gone(&TransactionId::parse("2").unwrap()).await, Ok(true));
    assert_eq!(tally.snapshot().transactions, 0);
}

#[tokio::test]
async fn a_shop_that_fails_for_the_moment_is_asked_again_and_one_that_refuses_is_not() {
    for kind in ["site", "memberpress"] {
        let world = World::start().await.with("wordpress", json!({"kind": kind}));
        world.put("transactions", rows(1..=2)).await;
        for (fault, expected, calls) in [
            (
                json!({"kind": "status", "status": 500, "times": 2}),
                Ok(vec![1, 2]),
                3,
            ),
            (
                json!({"kind": "status", "status": 502, "times": 9}),
                Err(ShopError::Status(502)),
                3,
            ),
            (
                json!({"kind": "status", "status": 503, "retry_after": 60, "times": 9}),
                Err(ShopError::Throttled(Some(Duration::from_secs(60)))),
                1,
            ),
            (
                json!({"kind": "status", "status": 403}),
                Err(ShopError::NoAccess),
                1,
            ),
            (
                json!({"kind": "status", "status": 404}),
                Err(ShopError::Status(404)),
                1,
            ),
            (json!({"kind": "timeout", "times": 9}), Err(ShopError::Timeout), 1),
            (
                json!({"kind": "malformed", "body": {"code": "rest_forbidden", "data": []}}),
                Err(ShopError::NoList),
                1,
            ),
            (
                json!({"kind": "malformed", "body": "<br /> Warning"}),
                Err(ShopError::NoList),
                1,
            ),
        ] {
            world.fault("*", json!({"kind": "timeout", "times": 0})).await;
            world.fault("transactions", fault.clone()).await;
            let (shop, tally) = world.shop();
            let (ask, since) = (Ask::All, Instant::now());
            let mut result = ids_of(&shop, ask).await;
            if let Ok(ids) = &mut result {
                ids.sort_unstable();
            }
            assert_eq!(result, expected, "{kind}: {fault}");
            assert_eq!(tally.snapshot().transactions, calls, "{kind}: {fault}");
            assert!(since.elapsed() < Duration::from_secs(5), "{kind}: {fault}");
        }
    }
}

#[tokio::test]
async fn a_short_wait_that_the_shop_asks_for_is_kept_unless_time_is_up() {
    let world = World::start().await;
    world.put("transactions", rows(1..=2)).await;
    let throttled = json!({"kind": "rate_limited", "retry_after": 1, "times": 1});
    world.fault("transactions", throttled.clone()).await;
    let (shop, _) = world.shop();
    let begin = Instant::now();
    assert_eq!(ids_of(&shop, Ask::All).await, Ok(vec![1, 2]));
    assert!(begin.elapsed() >= Duration::from_secs(1));

    world.fault("transactions", throttled).await;
    let soon = shop.until(Instant::now() + Duration::from_millis(500));
    let expected = ShopError::Throttled(Some(Duration::from_secs(1)));
    assert_eq!(ids_of(&soon, Ask::All).await, Err(expected));
    world
        .fault("transactions", json!({"kind": "slow", "delay_ms": 900}))
        .await;
    let soon = shop.until(Instant::now() + Duration::from_millis(300));
    assert_eq!(ids_of(&soon, Ask::All).await, Err(ShopError::Timeout));
}

/// A server that writes the same bytes to whoever calls and then does what is said.
async fn writing(bytes: &'static [u8], then: Then) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                read_request(&mut stream).await;
                stream.write_all(bytes).await.unwrap();
                if then == Then::Hang {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    document(&url)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Close,
    Hang,
}

async fn read_request(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0);
        bytes.extend_from_slice(&buffer[..read]);
    }
}

#[tokio::test]
async fn a_list_that_is_cut_off_ends_in_an_error_however_it_is_cut() {
    for (answer, then, expected) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[{\"id\":1},{\"id\":2}",
            Then::Close,
            ShopError::CutOff,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n[{\"id\":1}\r\n",
            Then::Close,
            ShopError::CutOff,
        ),
        // Without a length nothing but the missing bracket tells.
        (
            "HTTP/1.1 200 OK\r\n\r\n[{\"id\":1},",
            Then::Close,
            ShopError::CutOff,
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\n[{\"id\":1}]<b>Notice",
            Then::Close,
            ShopError::NoList,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[{\"id\":1},",
            Then::Hang,
            ShopError::Timeout,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            Then::Hang,
            ShopError::CutOff,
        ),
    ] {
        let (shop, tally) = shop_of(&writing(answer.as_bytes(), then).await);
        let mut scanning = shop.scan(Ask::All);
        assert_eq!(scanning.next().await, Err(expected), "{answer}");
        assert_eq!(scanning.next().await, Err(expected), "{answer}");
        assert_eq!(tally.snapshot().transactions, 1, "{answer}");
    }
    let page = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n[{\"id\":1},";
    let mut document = writing(page.as_bytes(), Then::Close).await;
    document["wordpress"]["kind"] = "memberpress".into();
    let (shop, _) = shop_of(&document);
    assert_eq!(ids_of(&shop, Ask::All).await, Err(ShopError::CutOff));
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_credentials() {
    let answer = b"HTTP/1.1 301 X\r\nlocation: https://elsewhere.example.com/\r\ncontent-length: 0\r\n\r\n";
    let (shop, _) = shop_of(&writing(answer, Then::Hang).await);
    let error = ids_of(&shop, Ask::All).await.unwrap_err();
    assert_eq!(error, ShopError::Status(301));
    assert!(error.to_string().contains("base_url"), "{error}");
}

/// A shop of a hundred thousand rows must not need the memory for them.
#[tokio::test]
async fn a_list_is_taken_from_the_network_no_faster_than_it_is_read() {
    const ROWS: u64 = 20_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n[").await.unwrap();
        let filling = "x".repeat(2_000);
        for id in 1..=ROWS {
            let separator = if id == ROWS { "]" } else { "," };
            let row = format!("{{\"id\":{id},\"filling\":\"{filling}\"}}{separator}");
            stream.write_all(row.as_bytes()).await.unwrap();
            counter.fetch_add(row.len(), Ordering::Relaxed);
        }
    });
    let (shop, _) = shop_of(&document(&url));
    let mut scanning = shop.scan(Ask::All);
    let mut next: u64 = 1;
    while let Some(chunk) = scanning.next().await.unwrap() {
        let first = next;
        next += u64::try_from(chunk.rows.len()).unwrap();
        assert_eq!(ids(&chunk), (first..next).collect::<Vec<_>>());
        if first == 1 {
            // Time for the server to write all that anybody would take.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let ahead = written.load(Ordering::Relaxed);
            assert!(ahead < 20_000_000, "{ahead} bytes are on their way");
        }
    }
    assert_eq!(next, ROWS + 1);
    assert!(written.load(Ordering::Relaxed) > 40_000_000);
}

// The access API.

fn script() -> ScriptId {
    ScriptId::new("S1")
}

fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

fn order(username: &str, action: Action) -> Order {
    Order {
        script: script(),
        username: name(username),
        action,
        email: "ada@example.com".to_owned(),
        subscription_type: "monthly".to_owned(),
        wp_username: "ada".to_owned(),
        remarks: REMARKS.to_owned(),
    }
}

fn grant(username: &str, to: Expiry) -> Order {
    order(username, Action::Grant { to })
}

/// A day from now, to the second.
fn in_days(world: &World, days: i64) -> Timestamp {
    let now = world.clock.now().as_second();
    Timestamp::from_second(now + days * 86_400).unwrap()
}

async fn users(world: &World, names: &[&str]) {
    world.put("usernames", json!(names)).await;
}

fn verdict(result: Result<(), Ended>) -> Verdict {
    result.map_or_else(|ended| ended.verdict, |()| Verdict::Done)
}

#[tokio::test]
async fn a_name_is_looked_up_and_an_outage_is_no_wrong_name() {
    for kind in ["access_api", "trendoscope"] {
        let world = World::start().await.with("tradingview", json!({"kind": kind}));
        users(&world, &["JoeBloggs", "joe_2"]).await;
        let (access, tally) = world.access();
        let look_up = async |text: &str| access.look_up(&name(text), in_a_minute()).await;
        assert_eq!(look_up("joebloggs").await, Ok(Lookup::Known(name("JoeBloggs"))));
        assert!(matches!(look_up("joe").await, Ok(Lookup::Unknown { .. })));
        assert_eq!(tally.snapshot().validate, 2);
        for fault in [
            json!({"kind": "malformed", "times": 2}),
            json!({"kind": "malformed", "body": {"validUser": "yes"}}),
            json!({"kind": "status", "status": 500, "times": 3}),
            json!({"kind": "timeout"}),
        ] {
            world.fault("validate", fault).await;
            assert!(matches!(look_up("JoeBloggs").await, Ok(Lookup::Known(_))));
        }
        world
            .fault("validate", json!({"kind": "malformed", "times": 4}))
            .await;
        assert_eq!(look_up("JoeBloggs").await.unwrap_err().verdict, Verdict::Retry);
    }
}

#[tokio::test]
async fn the_list_is_read_page_by_page_and_a_name_is_found_on_any() {
    let world = World::start().await;
    let end = in_days(&world, 10).to_string();
    let all: Vec<Value> = (1..=65)
        .map(|number| json!({"username": format!("User{number}"), "expiration": end}))
        .collect();
    world.put("access/S1", all.into()).await;
    let (access, tally) = world.access();
    let (mut cursor, mut lengths) = (None, Vec::new());
    loop {
        let page = access
            .page(&script(), cursor.as_deref(), in_a_minute())
            .await
            .unwrap();
        lengths.push(page.users.len());
        let Some(next) = page.next else { break };
        cursor = Some(next);
    }
    assert_eq!(
        (lengths.as_slice(), tally.snapshot().list),
        ([30, 30, 5].as_slice(), 3)
    );
    let access_of = async |text: &str| access.access_of(&script(), &name(text), in_a_minute()).await;
    assert_eq!(
        access_of("uSER64").await,
        Ok(Some(Expiry::At(end.parse().unwrap())))
    );
    assert_eq!(access_of("nobody").await, Ok(None));
    world
        .fault(
            "list",
            json!({"kind": "malformed", "body": {"users": []}, "times": 9}),
        )
        .await;
    assert_eq!(access_of("User1").await, Ok(None), "this body is a list");
    world
        .fault("list", json!({"kind": "malformed", "times": 0}))
        .await;
    world
        .fault(
            "list",
            json!({"kind": "malformed", "body": {"error": "busy"}, "times": 9}),
        )
        .await;
    assert_eq!(access_of("User1").await.unwrap_err().verdict, Verdict::Retry);
}

#[tokio::test]
async fn a_grant_an_update_and_a_removal_are_made_and_told_with_the_originals_names() {
    let world = World::start().await;
    users(&world, &["JoeBloggs"]).await;
    let (access, tally) = world.access();
    let (first, second) = (in_days(&world, 30), in_days(&world, 60));
    let until = in_a_minute();
    access
        .write(&grant("JoeBloggs", Expiry::At(first)), until)
        .await
        .unwrap();
    assert_eq!(world.end_of("JoeBloggs").await, Some(first.to_string().into()));
    let (from, to) = (Expiry::At(first), Expiry::At(second));
    access
        .write(&order("JoeBloggs", Action::Update { from, to }), until)
        .await
        .unwrap();
    assert_eq!(world.end_of("JoeBloggs").await, Some(second.to_string().into()));
    access
        .write(&grant("JoeBloggs", Expiry::Lifetime), until)
        .await
        .unwrap();
    assert_eq!(world.end_of("JoeBloggs").await, Some(json!(null)));
    let remove = order(
        "JoeBloggs",
        Action::Remove {
            from: Expiry::Lifetime,
        },
    );
    access.write(&remove, until).await.unwrap();
    assert_eq!(world.end_of("JoeBloggs").await, None);
    access
        .write(&order("JoeBloggs", Action::None), until)
        .await
        .unwrap();
    let calls = Calls {
        grant: 2,
        update: 1,
        remove: 1,
        ..Calls::default()
    };
    assert_eq!(tally.snapshot(), calls);
    let sent: Vec<Value> = world
        .requests()
        .await
        .into_iter()
        .map(|request| request["body"].clone())
        .collect();
    let told = |expiry: Value| {
        json!({
            "scriptId": "S1", "username": "JoeBloggs", "email": "ada@example.com", "expiry": expiry,
            "subscription_type": "monthly", "wp_username": "ada", "remarks": "paid"
        })
    };
    let expected = [
        told(first.to_string().into()),
        told(second.to_string().into()),
        told(json!(null)),
        json!({"scriptId": "S1", "username": "JoeBloggs"}),
    ];
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn a_lost_answer_is_looked_up_and_only_what_was_not_done_is_done_again() {
    for (fault, grants) in [
        (json!({"kind": "commit_then_timeout"}), 1),
        (json!({"kind": "timeout"}), 2),
        (json!({"kind": "malformed"}), 2),
        (json!({"kind": "malformed", "body": {"success": false}}), 2),
        (json!({"kind": "status", "status": 502}), 2),
        (json!({"kind": "status", "status": 503, "retry_after": 1}), 2),
        (json!({"kind": "status", "status": 500, "times": 3}), 4),
    ] {
        let world = World::start().await;
        users(&world, &["JoeBloggs"]).await;
        let (access, tally) = world.access();
        world.fault("grant", fault.clone()).await;
        let end = in_days(&world, 30);
        let result = access
            .write(&grant("JoeBloggs", Expiry::At(end)), in_a_minute())
            .await;
        assert_eq!(result, Ok(()), "{fault}");
        assert_eq!(tally.snapshot().grant, grants, "{fault}");
        assert_eq!(
            world.end_of("JoeBloggs").await,
            Some(end.to_string().into()),
            "{fault}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_looked_up_stays_unknown() {
    let world = World::start().await;
    users(&world, &["JoeBloggs"]).await;
    let (access, tally) = world.access();
    world.fault("grant", json!({"kind": "commit_then_timeout"})).await;
    world
        .fault("list", json!({"kind": "status", "status": 500, "times": 9}))
        .await;
    let order = grant("JoeBloggs", Expiry::At(in_days(&world, 30)));
    let ended = access.write(&order, in_a_minute()).await.unwrap_err();
    assert_eq!(ended.verdict, Verdict::Unknown, "{ended}");
    assert_eq!((tally.snapshot().grant, tally.snapshot().list), (1, 4));
}

/// One that may still be under way may take effect after it was looked for.
#[tokio::test]
async fn a_change_that_got_no_answer_once_stays_unknown_though_others_failed_for_certain() {
    let world = World::start()
        .await
        .with("tradingview", json!({"max_retries": 1}));
    users(&world, &["JoeBloggs"]).await;
    let (access, tally) = world.access();
    world.fault("grant", json!({"kind": "timeout"})).await;
    world
        .fault("grant", json!({"kind": "status", "status": 500, "times": 9}))
        .await;
    let order = grant("JoeBloggs", Expiry::At(in_days(&world, 30)));
    assert_eq!(
        verdict(access.write(&order, in_a_minute()).await),
        Verdict::Unknown
    );
    assert_eq!(tally.snapshot().grant, 2);
}

#[tokio::test]
async fn patience_that_is_asked_for_is_kept_within_the_runs_time_and_costs_no_try() {
    let world = World::start()
        .await
        .with("tradingview", json!({"max_retries": 0}));
    users(&world, &["JoeBloggs"]).await;
    let pacing = Arc::<Pacing>::default();
    let (access, tally) = world.access_paced_by(Arc::clone(&pacing));
    let order = grant("JoeBloggs", Expiry::At(in_days(&world, 30)));
    world
        .fault(
            "grant",
            json!({"kind": "rate_limited", "retry_after": 1, "times": 2}),
        )
        .await;
    let begin = Instant::now();
    access.write(&order, in_a_minute()).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(2));
    assert_eq!(tally.snapshot().grant, 3);

    for operation in ["grant", "validate"] {
        world
            .fault(operation, json!({"kind": "rate_limited", "retry_after": 90}))
            .await;
    }
    let (begin, until) = (Instant::now(), Instant::now() + Duration::from_secs(30));
    let ended = access.write(&order, until).await.unwrap_err();
    let asked = Some(Duration::from_secs(90));
    assert_eq!((ended.verdict, ended.asked), (Verdict::Throttled, asked));
    let ended = access.look_up(&name("JoeBloggs"), until).await.unwrap_err();
    assert_eq!((ended.verdict, ended.asked), (Verdict::Throttled, asked));
    // Nobody else calls before the time is over either, which is told by the clock that everything is decided by.
    let (another, others) = world.access_paced_by(pacing);
    let ended = another.write(&order, until).await.unwrap_err();
    assert_eq!(
        (ended.verdict, others.snapshot()),
        (Verdict::Throttled, Calls::default())
    );
    assert!(ended.asked > Some(Duration::from_secs(80)), "{ended:?}");
    assert!(begin.elapsed() < Duration::from_secs(5));
    world.clock.advance(91);
    another.write(&order, until).await.unwrap();
}

#[tokio::test]
async fn refusals_are_told_apart_and_not_repeated() {
    let world = World::start().await;
    users(&world, &["JoeBloggs"]).await;
    let (access, tally) = world.access();
    let to = Expiry::At(in_days(&world, 30));
    let known = grant("JoeBloggs", to);
    for (fault, expected) in [
        (json!({"kind": "status", "status": 401}), Verdict::NoAccess),
        (json!({"kind": "status", "status": 403}), Verdict::NoAccess),
        (json!({"kind": "limit_reached"}), Verdict::Refused),
        (json!({"kind": "status", "status": 422}), Verdict::Refused),
    ] {
        world.fault("grant", fault.clone()).await;
        assert_eq!(
            verdict(access.write(&known, in_a_minute()).await),
            expected,
            "{fault}"
        );
    }
    let unknown = grant("nobody", to);
    assert_eq!(
        verdict(access.write(&unknown, in_a_minute()).await),
        Verdict::Refused
    );
    let none = order("JoeBloggs", Action::Update { from: to, to });
    assert_eq!(
        verdict(access.write(&none, in_a_minute()).await),
        Verdict::Refused
    );
    assert_eq!((tally.snapshot().grant, tally.snapshot().update), (5, 1));

    let stranger = World {
        document: document(world.sandbox.base_url()),
        ..world
    }
    .with("tradingview", json!({"api_key": "wrong-key"}));
    let (access, _) = stranger.access();
    let ended = access
        .look_up(&name("JoeBloggs"), in_a_minute())
        .await
        .unwrap_err();
    assert_eq!(ended.verdict, Verdict::NoAccess);
    let shown = format!("{ended} {ended:?} {access:?}");
    assert!(!shown.contains("wrong-key"), "{shown}");
}

#[tokio::test]
async fn nothing_to_remove_is_as_good_as_removed_but_a_wrong_path_is_not() {
    let world = World::start().await;
    users(&world, &["JoeBloggs"]).await;
    let (access, _) = world.access();
    let remove = order(
        "JoeBloggs",
        Action::Remove {
            from: Expiry::Lifetime,
        },
    );
    assert_eq!(access.write(&remove, in_a_minute()).await, Ok(()));
    let refused = json!({"kind": "status", "status": 404});
    world.fault("remove", refused.clone()).await;
    assert_eq!(access.write(&remove, in_a_minute()).await, Ok(()));
    access
        .write(&grant("JoeBloggs", Expiry::Lifetime), in_a_minute())
        .await
        .unwrap();
    world.fault("remove", refused).await;
    assert_eq!(
        verdict(access.write(&remove, in_a_minute()).await),
        Verdict::Refused
    );
    assert_eq!(world.end_of("JoeBloggs").await, Some(json!(null)));
}

#[tokio::test]
async fn nothing_is_begun_that_cannot_be_finished_in_time() {
    let world = World::start().await;
    users(&world, &["JoeBloggs"]).await;
    let (access, tally) = world.access();
    let order = grant("JoeBloggs", Expiry::At(in_days(&world, 30)));
    let soon = Instant::now() + Duration::from_millis(500);
    // It costs no try.
    assert_eq!(verdict(access.write(&order, soon).await), Verdict::Throttled);
    assert!(access.look_up(&name("JoeBloggs"), Instant::now()).await.is_err());
    assert_eq!(tally.snapshot(), Calls::default());
}

#[tokio::test]
async fn changes_keep_their_rate_from_one_run_to_the_next() {
    let world = World::start()
        .await
        .with("tradingview", json!({"grants_per_second": 5}));
    users(&world, &["JoeBloggs"]).await;
    let pacing = Arc::<Pacing>::default();
    let order = grant("JoeBloggs", Expiry::At(in_days(&world, 30)));
    let begin = Instant::now();
    for _ in 0..2 {
        let (access, _) = world.access_paced_by(Arc::clone(&pacing));
        for _ in 0..3 {
            access.write(&order, in_a_minute()).await.unwrap();
        }
    }
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
}

// The peer with relative lengths.

async fn peer() -> World {
    let world = World::start()
        .await
        .with("tradingview", json!({"kind": "trendoscope"}));
    users(&world, &["JoeBloggs"]).await;
    world
}

/// How many seconds after `end` the access ends.
async fn seconds_after(world: &World, end: Timestamp) -> i64 {
    let listed = world.end_of("JoeBloggs").await.unwrap();
    let listed: Timestamp = listed.as_str().unwrap().parse().unwrap();
    listed.as_second() - end.as_second()
}

/// Whether access ends at `end`, or up to a day later as whole days are added.
async fn ends_at(world: &World, end: Timestamp) -> bool {
    (0..86_400 + 60).contains(&seconds_after(world, end).await)
}

#[tokio::test]
async fn at_the_peer_access_comes_to_its_end_from_wherever_it_stands() {
    let world = peer().await;
    let (access, tally) = world.access();
    assert!(!access.can_list());
    assert!(access.page(&script(), None, in_a_minute()).await.is_err());
    let write = async |action| access.write(&order("JoeBloggs", action), in_a_minute()).await;
    let access_of = async || {
        access
            .access_of(&script(), &name("joebloggs"), in_a_minute())
            .await
            .unwrap()
    };
    assert_eq!(access_of().await, None);

    let end = in_days(&world, 30) + SignedDuration::from_hours(5);
    let to = Expiry::At(end);
    write(Action::Grant { to }).await.unwrap();
    assert!(ends_at(&world, end).await);
    let from = access_of().await.unwrap();
    // Told again it does nothing, however often.
    for _ in 0..3 {
        write(Action::Grant { to }).await.unwrap();
    }
    assert_eq!((access_of().await, tally.snapshot().grant), (Some(from), 1));

    let longer = in_days(&world, 61);
    write(Action::Update {
        from,
        to: Expiry::At(longer),
    })
    .await
    .unwrap();
    assert!(ends_at(&world, longer).await);
    // Expired long ago, the listed end is what the peer adds to.
    world.clock.advance(200 * 86_400);
    let renewed = in_days(&world, 30);
    let from = access_of().await.unwrap();
    write(Action::Update {
        from,
        to: Expiry::At(renewed),
    })
    .await
    .unwrap();
    assert!(ends_at(&world, renewed).await);

    write(Action::Grant { to: Expiry::Lifetime }).await.unwrap();
    assert_eq!(access_of().await, Some(Expiry::Lifetime));
    let (from, shorter) = (Expiry::Lifetime, in_days(&world, 3));
    write(Action::Update {
        from,
        to: Expiry::At(shorter),
    })
    .await
    .unwrap();
    assert!(ends_at(&world, shorter).await);
    for _ in 0..2 {
        write(Action::Remove { from }).await.unwrap();
        assert_eq!(access_of().await, None);
    }
}

#[tokio::test]
async fn the_peer_is_never_told_twice_without_a_look() {
    let world = peer().await;
    let (access, tally) = world.access();
    let end = in_days(&world, 30);
    let order = grant("JoeBloggs", Expiry::At(end));
    world.fault("grant", json!({"kind": "commit_then_timeout"})).await;
    access.write(&order, in_a_minute()).await.unwrap();
    assert!(ends_at(&world, end).await);
    assert_eq!((tally.snapshot().grant, tally.snapshot().list), (1, 2));

    let later = in_days(&world, 60);
    let order = grant("JoeBloggs", Expiry::At(later));
    for fault in [
        json!({"kind": "timeout"}),
        json!({"kind": "malformed"}),
        json!({"kind": "status", "status": 500}),
    ] {
        let before = tally.snapshot().grant;
        world.fault("grant", fault.clone()).await;
        // Whether it takes effect later cannot be known yet, so that it is not told again now.
        let ended = access.write(&order, in_a_minute()).await.unwrap_err();
        assert_eq!(
            (ended.verdict, tally.snapshot().grant),
            (Verdict::Unknown, before + 1),
            "{fault}"
        );
    }
    access.write(&order, in_a_minute()).await.unwrap();
    assert!(ends_at(&world, later).await);
    // A look that fails is not taken for one that found nothing.
    world
        .fault("list", json!({"kind": "malformed", "times": 9}))
        .await;
    let before = tally.snapshot().grant;
    let more = grant("JoeBloggs", Expiry::At(in_days(&world, 90)));
    assert_eq!(verdict(access.write(&more, in_a_minute()).await), Verdict::Retry);
    assert_eq!(tally.snapshot().grant, before);
}

#[tokio::test]
async fn a_success_in_which_the_peer_did_nothing_is_refused() {
    let world = peer().await;
    let (access, _) = world.access();
    let nobody = grant("nobody", Expiry::At(in_days(&world, 30)));
    assert_eq!(
        verdict(access.write(&nobody, in_a_minute()).await),
        Verdict::Refused
    );
}
