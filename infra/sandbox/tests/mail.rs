//! The sandbox's mail server, talked to by a mail program's library and, where that is too well-behaved, line by line.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use berth::snaptrade::http_client;
use berth_sandbox::access::{Options, Sandbox};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

type Transport = AsyncSmtpTransport<Tokio1Executor>;

async fn start() -> Sandbox {
    let listen = || TcpListener::bind("127.0.0.1:0");
    let (http, smtp) = (listen().await.unwrap(), listen().await.unwrap());
    Sandbox::start(http, smtp, Options::default()).await.unwrap()
}

fn port(sandbox: &Sandbox) -> u16 {
    sandbox.mail_url().rsplit(':').next().unwrap().parse().unwrap()
}

fn transport(sandbox: &Sandbox) -> Transport {
    Transport::builder_dangerous("127.0.0.1")
        .port(port(sandbox))
        .build()
}

fn message(subject: &str) -> Message {
    let mailbox = |address: &str| address.parse::<Mailbox>().unwrap();
    Message::builder()
        .from(mailbox("The shop <shop@example.com>"))
        .to(mailbox("Ada Lovelace <ada@example.com>"))
        .bcc(mailbox("archive@example.com"))
        .subject(subject)
        .multipart(MultiPart::alternative_plain_html(
            ".a line that begins with a dot\n..and another\nGrüße".to_owned(),
            "<p>Grüße &amp; more</p>".to_owned(),
        ))
        .unwrap()
}

async fn mails(sandbox: &Sandbox) -> Value {
    let url = format!("{}/__sandbox/mail", sandbox.base_url());
    http_client()
        .unwrap()
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

async fn fault(sandbox: &Sandbox, fault: Value) {
    let url = format!("{}/__sandbox/faults", sandbox.base_url());
    let answer = http_client()
        .unwrap()
        .post(url)
        .json(&fault)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_mail_is_kept_with_both_its_parts() {
    let sandbox = start().await;
    transport(&sandbox)
        .send(message("Ihr Zugang für Skripte"))
        .await
        .unwrap();
    let mails = mails(&sandbox).await;
    assert_eq!(mails.as_array().unwrap().len(), 1);
    let mail = &mails[0];
    assert_eq!(
        (&mail["to"], &mail["bcc"]),
        (&json!("ada@example.com"), &json!("archive@example.com"))
    );
    assert_eq!(
        (&mail["from"], &mail["subject"]),
        (&json!("shop@example.com"), &json!("Ihr Zugang für Skripte"))
    );
    assert_eq!(
        mail["html"].as_str().unwrap().trim_end(),
        "<p>Grüße &amp; more</p>"
    );
    assert_eq!(
        mail["text"].as_str().unwrap().trim_end(),
        ".a line that begins with a dot\n..and another\nGrüße"
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_login_is_taken_whatever_it_is_and_a_connection_takes_several_mails() {
    let sandbox = start().await;
    for mechanism in [Mechanism::Plain, Mechanism::Login] {
        let transport = Transport::builder_dangerous("127.0.0.1")
            .port(port(&sandbox))
            .credentials(Credentials::new("shop".to_owned(), "secret".to_owned()))
            .authentication(vec![mechanism])
            .build();
        assert!(transport.test_connection().await.unwrap());
        for subject in ["one", "two"] {
            transport.send(message(subject)).await.unwrap();
        }
    }
    assert_eq!(mails(&sandbox).await.as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn faults_refuse_a_mail_for_now_or_for_good() {
    let sandbox = start().await;
    let transport = transport(&sandbox);
    for (described, transient) in [
        (json!({"kind": "status"}), true),
        (json!({"kind": "status", "status": 503}), true),
        (json!({"kind": "status", "status": 450}), true),
        (json!({"kind": "status", "status": 550}), false),
        (json!({"kind": "rate_limited", "retry_after": 5}), true),
        (json!({"kind": "limit_reached"}), true),
    ] {
        let mut described = described;
        described["operation"] = "mail".into();
        fault(&sandbox, described.clone()).await;
        let error = transport.send(message("refused")).await.unwrap_err();
        assert_eq!(
            (error.is_transient(), error.is_permanent()),
            (transient, !transient),
            "{described}: {error}"
        );
    }
    fault(&sandbox, json!({"operation": "mail", "kind": "malformed"})).await;
    assert!(transport.send(message("refused")).await.is_err());
    assert_eq!(mails(&sandbox).await, json!([]));
    transport.send(message("taken")).await.unwrap();
    assert_eq!(mails(&sandbox).await[0]["subject"], "taken");
}

#[tokio::test]
async fn a_mail_whose_reply_never_comes_may_have_been_taken() {
    let sandbox = start().await;
    for (kind, kept) in [("timeout", 0), ("commit_then_timeout", 1)] {
        fault(&sandbox, json!({"operation": "mail", "kind": kind})).await;
        // The library waits for a connection only so long, but for a reply as long as it takes.
        let transport = transport(&sandbox);
        let sent = transport.send(message(kind));
        assert!(
            tokio::time::timeout(Duration::from_millis(300), sent)
                .await
                .is_err()
        );
        assert_eq!(mails(&sandbox).await.as_array().unwrap().len(), kept, "{kind}");
    }
    sandbox.shutdown().await;
}

/// A conversation line by line.
struct Caller(BufReader<TcpStream>);

impl Caller {
    async fn start(sandbox: &Sandbox) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port(sandbox))).await.unwrap();
        let mut caller = Self(BufReader::new(stream));
        assert!(caller.hear().await.starts_with("220 "));
        caller
    }

    async fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Says something and expects replies that begin so.
    async fn expect(&mut self, text: &str, replies: &[&str]) {
        self.say(text).await;
        for reply in replies {
            let heard = self.hear().await;
            assert!(heard.starts_with(reply), "{text:?} got {heard:?} and not {reply}");
        }
    }
}

#[tokio::test]
async fn commands_out_of_order_or_unknown_are_refused_and_the_conversation_goes_on() {
    let sandbox = start().await;
    let mut caller = Caller::start(&sandbox).await;
    caller.expect("HELO there\r\n", &["250"]).await;
    caller.expect("RCPT TO:<ada@example.com>\r\n", &["503"]).await;
    caller.expect("DATA\r\n", &["503"]).await;
    caller.expect("NONSENSE\r\n", &["500"]).await;
    caller.expect("STARTTLS\r\n", &["502"]).await;
    caller.expect("MAIL FROM:nobody\r\n", &["501"]).await;
    caller.expect("MAIL FROM:<>\r\n", &["250"]).await;
    caller.expect("MAIL FROM:<>\r\n", &["503"]).await;
    caller.expect("RSET\r\n", &["250"]).await;
    caller.expect("NOOP\r\n", &["250"]).await;
    caller.expect("VRFY ada\r\n", &["252"]).await;
    caller.expect("QUIT\r\n", &["221"]).await;
    assert_eq!(caller.hear().await, "");
}

#[tokio::test]
async fn commands_may_come_together_and_a_mail_in_pieces() {
    let sandbox = start().await;
    let mut caller = Caller::start(&sandbox).await;
    caller
        .say("HELO there\r\nMAIL FROM:<shop@example.com>\r\nRCPT TO:<ada@example.com>\r\nDATA\r\n")
        .await;
    for reply in ["250", "250", "250", "354"] {
        assert!(caller.hear().await.starts_with(reply));
    }
    for piece in [
        "Subject: Pie",
        "ces\r\n",
        "\r",
        "\n..dot\r\n.",
        ".\r\n",
        "end\r\n.\r",
        "\nNOOP\r\n",
    ] {
        caller.say(piece).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for reply in ["250 2.0.0 Ok: queued", "250"] {
        assert!(caller.hear().await.starts_with(reply));
    }
    let mail = &mails(&sandbox).await[0];
    assert_eq!(
        (&mail["subject"], &mail["text"], &mail["html"]),
        (&json!("Pieces"), &json!(".dot\n.\nend\n"), &json!(null))
    );
    assert_eq!(mail["to"], "ada@example.com");
}

#[tokio::test]
async fn an_empty_mail_ends_with_its_first_line() {
    let sandbox = start().await;
    let mut caller = Caller::start(&sandbox).await;
    caller.expect("HELO there\r\n", &["250"]).await;
    caller.expect("MAIL FROM:<>\r\n", &["250"]).await;
    caller.expect("RCPT TO:<ada@example.com>\r\n", &["250"]).await;
    caller.expect("DATA\r\n", &["354"]).await;
    caller.expect(".\r\n", &["250"]).await;
    assert_eq!(mails(&sandbox).await[0]["to"], "ada@example.com");
}

#[tokio::test]
async fn a_mail_that_is_too_big_is_refused_at_its_end() {
    let sandbox = start().await;
    let mut caller = Caller::start(&sandbox).await;
    caller.expect("HELO there\r\n", &["250"]).await;
    caller.expect("MAIL FROM:<shop@example.com>\r\n", &["250"]).await;
    caller.expect("RCPT TO:<ada@example.com>\r\n", &["250"]).await;
    caller.expect("DATA\r\n", &["354"]).await;
    let line = format!("{}\r\n", "x".repeat(1022));
    caller.say(&line.repeat(8 * 1024 + 1)).await;
    caller.expect(".\r\n", &["552"]).await;
    caller.expect("NOOP\r\n", &["250"]).await;
    assert_eq!(mails(&sandbox).await, json!([]));
}
