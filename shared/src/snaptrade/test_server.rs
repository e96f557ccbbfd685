//! A real HTTP server on the loopback interface that answers as a test tells it to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Client, ClientOptions, Credentials, UserCredentials, UserSecret, signature};
use crate::clock::Clock;
use crate::config::BaseUrl;
use crate::ids::UpstreamId;
use crate::secrets::Cached;

/// The consumer key of the tests.
pub(super) const KEY: &str = "consumer-key-in-test";

/// The user's secret of the tests. It has to be encoded in a query.
pub(super) const USER_SECRET: &str = "user secret/in test";

/// What the server does with one request.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Answers with a status, further headers and a body.
    Answer(u16, &'static str, String),
    /// Answers with these bytes and closes.
    Raw(&'static [u8]),
    /// Reads the request and closes.
    Drop,
    /// Reads the request and never answers.
    Hang,
    /// Sends the beginning of an answer and never the rest.
    HangInBody(u16),
}

pub(super) fn ok(body: &str) -> Act {
    Act::Answer(200, "", body.to_owned())
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Arrived {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) signature: String,
    pub(super) body: String,
}

/// A real HTTP server on a port of its own. It does one act after the other, the last one again and again.
pub(super) struct Server {
    pub(super) url: String,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Server {
    pub(super) async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&arrived);
        tokio::spawn(async move {
            let next = Arc::new(AtomicUsize::new(0));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, acts.clone(), Arc::clone(&next), Arc::clone(&log)));
            }
        });
        Self { url, arrived }
    }

    pub(super) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    pub(super) fn client(&self) -> Client {
        self.client_below("")
    }

    pub(super) fn client_below(&self, path: &str) -> Client {
        let credentials = Credentials {
            client_id: "CLIENT 1".to_owned(),
            consumer_key: SecretString::from(KEY),
        };
        client(&format!("{}{path}", self.url), Cached::fixed(credentials))
    }
}

/// A client of the API at `url`.
pub(super) fn client(url: &str, credentials: Cached<Credentials>) -> Client {
    Client::new(ClientOptions {
        base_url: BaseUrl::parse(url).unwrap(),
        credentials: Arc::new(credentials),
        clock: Clock::system(),
        http: super::http_client().unwrap(),
        timeout: Duration::from_secs(5),
        gate: None,
    })
}

async fn serve(mut stream: TcpStream, acts: Vec<Act>, next: Arc<AtomicUsize>, log: Arc<Mutex<Vec<Arrived>>>) {
    while let Some(arrived) = read_request(&mut stream).await {
        log.lock().unwrap().push(arrived);
        let index = next.fetch_add(1, Ordering::Relaxed).min(acts.len() - 1);
        match &acts[index] {
            Act::Answer(status, headers, body) => {
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nx-request-id: req-1\r\n{headers}content-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            Act::Raw(bytes) => {
                stream.write_all(bytes).await.unwrap();
                return;
            }
            Act::Drop => return,
            Act::Hang => std::future::pending().await,
            Act::HangInBody(status) => {
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 100\r\n\r\n{{");
                stream.write_all(answer.as_bytes()).await.unwrap();
                std::future::pending().await
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Arrived> {
    let mut bytes = Vec::new();
    let head_ends = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
    };
    let head = String::from_utf8(bytes[..head_ends].to_vec()).unwrap();
    let header = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
    };
    let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head_ends + length {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
    }
    let mut first = head.lines().next()?.split(' ');
    let method = first.next()?.to_owned();
    let (path, query) = first
        .next()
        .map(|target| target.split_once('?').unwrap_or((target, "")))?;
    Some(Arrived {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        signature: header("signature").unwrap_or_default(),
        body: String::from_utf8(bytes[head_ends..].to_vec()).unwrap(),
    })
}

/// Somebody to call for.
pub(super) fn ada() -> UserCredentials {
    UserCredentials {
        user_id: UpstreamId::from_snaptrade("ada|1~abc"),
        user_secret: UserSecret::new(USER_SECRET),
    }
}

/// Whether a request was signed with [`KEY`] as it arrived.
pub(super) fn verified(arrived: &Arrived) -> bool {
    let body = (!arrived.body.is_empty()).then(|| serde_json::from_str::<Value>(&arrived.body).unwrap());
    signature::verify(
        &SecretString::from(KEY),
        body.as_ref(),
        &arrived.path,
        &arrived.query,
        &arrived.signature,
    )
}
