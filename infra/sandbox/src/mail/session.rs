//! One conversation with a program that sends mail (RFC 5321).

use std::io;
use std::time::Duration;

use data_encoding::BASE64;
use smtp_proto::request::receiver::{DataReceiver, LineReceiver, RequestReceiver};
use smtp_proto::{AUTH_LOGIN, AUTH_PLAIN, Error, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Inbox, Mail};
use crate::faults::Fault;

/// The largest mail that is taken.
const LARGEST_MAIL: usize = 8 * 1024 * 1024;

/// How much more of a longer one is kept until it ends. The last of it may be the mark of that end.
const SEEN_TO_BE_LONGER: usize = 8;

/// What a caller of EHLO is offered. There is no STARTTLS, for nothing leaves the machine.
const OFFERS: &str = "250-berth-sandbox\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-PIPELINING\r\n\
                      250-AUTH PLAIN LOGIN\r\n250 SIZE 8388608\r\n";

const ACCEPTED: &str = "250 2.0.0 Ok\r\n";
const NOT_NOW: &str = "503 5.5.1 Bad sequence of commands\r\n";
const LOGGED_IN: &str = "235 2.7.0 Authentication successful\r\n";

/// The prompts of a login in parts: "Username:" and "Password:".
const NAME: &str = "334 VXNlcm5hbWU6\r\n";
const PASSWORD: &str = "334 UGFzc3dvcmQ6\r\n";

/// How long a caller may be silent, as RFC 5321 (4.5.3.2.7) asks for.
const SILENCE: Duration = Duration::from_secs(300);

/// What was said so far about the mail that is to come.
#[derive(Debug, Default)]
struct Envelope {
    sender: Option<String>,
    recipients: Vec<String>,
}

/// What is to happen after a command.
enum Next {
    /// This is replied.
    Reply(&'static str),
    /// The mail itself comes.
    Data,
    /// The parts of a login come, each after a prompt of its own.
    Login(&'static [&'static str]),
    /// The conversation is over.
    End,
}

/// Talks to a caller until it leaves.
///
/// # Errors
/// The connection's.
pub(super) async fn converse(stream: TcpStream, inbox: &dyn Inbox) -> io::Result<()> {
    let mut line = Line {
        stream,
        unread: Vec::new(),
    };
    let mut envelope = Envelope::default();
    line.say("220 berth-sandbox ESMTP\r\n").await?;
    loop {
        let next = match line.command().await? {
            Some(Ok(request)) => envelope.hear(request),
            Some(Err(reply)) => Next::Reply(reply),
            None => return Ok(()),
        };
        match next {
            Next::Reply(reply) => line.say(reply).await?,
            Next::Login(prompts) => {
                for prompt in prompts {
                    line.say(prompt).await?;
                    if line.answer().await?.is_none() {
                        return Ok(());
                    }
                }
                line.say(LOGGED_IN).await?;
            }
            Next::Data => {
                line.say("354 End data with <CR><LF>.<CR><LF>\r\n").await?;
                let Some(content) = line.mail().await? else {
                    return Ok(());
                };
                let envelope = std::mem::take(&mut envelope);
                match take(&envelope, &content, inbox).await {
                    Some(reply) => line.say(&reply).await?,
                    // The caller has to give up by itself.
                    None => while line.more().await? {},
                }
            }
            Next::End => return line.say("221 2.0.0 Bye\r\n").await,
        }
    }
}

impl Envelope {
    fn hear(&mut self, request: Request<String>) -> Next {
        match request {
            Request::Ehlo { .. } => {
                *self = Self::default();
                Next::Reply(OFFERS)
            }
            Request::Helo { .. } => {
                *self = Self::default();
                Next::Reply("250 berth-sandbox\r\n")
            }
            Request::Rset => {
                *self = Self::default();
                Next::Reply(ACCEPTED)
            }
            Request::Mail { from } if self.sender.is_none() => {
                self.sender = Some(from.address);
                Next::Reply("250 2.1.0 Ok\r\n")
            }
            Request::Rcpt { to } if self.sender.is_some() => {
                self.recipients.push(to.address);
                Next::Reply("250 2.1.5 Ok\r\n")
            }
            Request::Data if !self.recipients.is_empty() => Next::Data,
            Request::Mail { .. } | Request::Rcpt { .. } | Request::Data => Next::Reply(NOT_NOW),
            // Any name and password will do.
            Request::Auth {
                mechanism,
                initial_response,
            } => match (mechanism, initial_response.is_empty()) {
                (AUTH_PLAIN, false) if BASE64.decode(initial_response.as_bytes()).is_ok() => {
                    Next::Reply(LOGGED_IN)
                }
                (AUTH_PLAIN, false) => Next::Reply("501 5.5.2 Cannot decode the response\r\n"),
                (AUTH_PLAIN, true) => Next::Login(&["334 \r\n"]),
                (AUTH_LOGIN, false) => Next::Login(&[PASSWORD]),
                (AUTH_LOGIN, true) => Next::Login(&[NAME, PASSWORD]),
                _ => Next::Reply("504 5.5.4 Unrecognized authentication type\r\n"),
            },
            Request::Noop { .. } => Next::Reply(ACCEPTED),
            Request::Vrfy { .. } => Next::Reply("252 2.5.0 Cannot verify\r\n"),
            Request::Quit => Next::End,
            _ => Next::Reply("502 5.5.1 Command not implemented\r\n"),
        }
    }
}

/// Takes a mail, or lets happen what is to happen to it. The reply; `None` is the one that never comes.
async fn take(envelope: &Envelope, content: &[u8], inbox: &dyn Inbox) -> Option<String> {
    if content.len() > LARGEST_MAIL {
        return Some("552 5.3.4 Message too big\r\n".to_owned());
    }
    let keep = || {
        let sender = envelope.sender.as_deref().unwrap_or_default();
        let mail = Mail::read(sender, &envelope.recipients, content);
        if inbox.keep(&mail) {
            "250 2.0.0 Ok: queued\r\n".to_owned()
        } else {
            "452 4.3.1 Insufficient system storage\r\n".to_owned()
        }
    };
    match inbox.fault() {
        None => Some(keep()),
        Some(Fault::Slow(delay)) => {
            tokio::time::sleep(delay).await;
            Some(keep())
        }
        Some(Fault::CommitThenTimeout) => {
            keep();
            None
        }
        Some(Fault::Timeout) => None,
        Some(Fault::Malformed(_)) => Some("this is no reply\r\n".to_owned()),
        Some(Fault::LimitReached) => Some("452 4.2.2 Mailbox full\r\n".to_owned()),
        Some(Fault::RateLimited(seconds)) => Some(format!("450 4.7.1 Try again in {seconds} seconds\r\n")),
        Some(Fault::Status { status, .. }) => Some(refusal(status.map(|status| status.as_u16()))),
    }
}

/// The reply to a mail that is refused with a status. 500 to 504 are about commands in SMTP and about outages in HTTP,
/// and it is an outage that whoever asks for them means.
fn refusal(status: Option<u16>) -> String {
    match status {
        None | Some(500..=504) => "451 4.3.0 Temporary failure, try again later\r\n".to_owned(),
        Some(code @ 400..=499) => format!("{code} 4.0.0 Not accepted now\r\n"),
        Some(code) => format!("{code} 5.0.0 Not accepted\r\n"),
    }
}

/// A connection, with what was received and not looked at yet.
struct Line {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Line {
    async fn say(&mut self, reply: &str) -> io::Result<()> {
        self.stream.write_all(reply.as_bytes()).await
    }

    /// Waits for more, and tells whether the caller is still there.
    async fn more(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        let length = tokio::time::timeout(SILENCE, self.stream.read(&mut buffer)).await??;
        self.unread.extend(buffer.iter().take(length));
        Ok(length > 0)
    }

    /// Forgets all but the last `left` bytes of what was received.
    fn looked_at(&mut self, left: usize) {
        let gone = self.unread.len().saturating_sub(left);
        self.unread.drain(..gone);
    }

    /// The next command, or the reply to one that is none; `None` when the caller has gone.
    async fn command(&mut self) -> io::Result<Option<Result<Request<String>, &'static str>>> {
        let mut receiver = RequestReceiver::default();
        loop {
            let mut bytes = self.unread.iter();
            let heard = match receiver.ingest(&mut bytes) {
                Ok(request) => Some(Ok(request.into_owned())),
                Err(Error::NeedsMoreData { .. }) => None,
                Err(Error::UnknownCommand | Error::InvalidResponse { .. }) => {
                    Some(Err("500 5.5.1 Invalid command\r\n"))
                }
                Err(_) => Some(Err("501 5.5.4 Syntax error in parameters\r\n")),
            };
            let left = bytes.as_slice().len();
            self.looked_at(left);
            match heard {
                Some(heard) => return Ok(Some(heard)),
                None if self.more().await? => {}
                None => return Ok(None),
            }
        }
    }

    /// One line that is no command; `None` when the caller has gone.
    async fn answer(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut receiver = LineReceiver::new(());
        loop {
            let mut bytes = self.unread.iter();
            let whole = receiver.ingest(&mut bytes);
            let left = bytes.as_slice().len();
            self.looked_at(left);
            if whole {
                return Ok(Some(receiver.buf));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// A mail up to the dot that ends it, the dots that were doubled on the way single again; `None` when the caller
    /// has gone. One that is too long is read to its end, but only so much of it is kept that it is seen to be.
    async fn mail(&mut self) -> io::Result<Option<Vec<u8>>> {
        let (mut receiver, mut content) = (DataReceiver::new(), Vec::new());
        // A mail may end before it has begun, with a dot in its first line: the line before it is the command's.
        receiver.ingest(&mut b"\r\n".iter(), &mut content);
        content.clear();
        loop {
            let mut bytes = self.unread.iter();
            let whole = receiver.ingest(&mut bytes, &mut content);
            let left = bytes.as_slice().len();
            self.looked_at(left);
            content.truncate(LARGEST_MAIL.saturating_add(SEEN_TO_BE_LONGER));
            if whole {
                return Ok(Some(content));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }
}
