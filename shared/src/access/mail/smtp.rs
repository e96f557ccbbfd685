//! Talking to the mail server.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use lettre::address::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as Sender, Quit, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::super::configuration::{Mail, MailTls};
use super::dispatch::Sending;
use crate::telemetry::metrics::{self, CallEnd, Metric};
use crate::telemetry::{self, Service};

/// How long a connection may take to stand, and the server to reply to a command.
const COMMAND: Duration = Duration::from_secs(10);

/// How long the server may take to say whether it has taken a letter. RFC 5321 (4.5.3.2.6) asks for minutes, as
/// giving up early makes copies; a function has not that long.
const CONTENT: Duration = Duration::from_secs(30);

/// A connection to the mail server over which letters can be sent, one after another.
pub(super) struct Connection {
    smtp: AsyncSmtpConnection,
    usable: bool,
}

/// Why something that was said to the server did not go well.
enum Trouble {
    /// It did not reply in time.
    Late,
    /// What it replied, or that the connection broke.
    Smtp(Error),
}

/// How far a letter had got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The sender was named.
    Sender,
    /// The recipient was named.
    Recipient,
    /// The letter was announced.
    Announced,
    /// The letter was handed over.
    Content,
}

/// A refusal by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reply {
    /// The code, such as 550.
    code: u16,
    /// The second number of the enhanced code (RFC 3463), where there is one: what the refusal is about.
    subject: Option<u16>,
}

/// Whether the mail server can be reached and lets Berth in, by connecting and taking leave. Nothing is sent.
///
/// # Errors
/// Why not, without anything that the server said.
pub async fn reach(mail: &Mail, within: Duration) -> Result<(), String> {
    let connection = Connection::open(mail, Instant::now() + within).await?;
    connection.close().await;
    Ok(())
}

impl Connection {
    /// Connects and logs in, encrypted as it is configured or not at all.
    ///
    /// # Errors
    /// Why it was not possible, without anything that the server said.
    pub(super) async fn open(mail: &Mail, until: Instant) -> Result<Self, String> {
        let failed = |what: &str, trouble: Trouble| match trouble.reply() {
            Some(reply) => format!("{what} was refused with {}", reply.code),
            None => format!("{what} failed"),
        };
        let tls = || TlsParameters::new(mail.server.clone()).map_err(|_| "TLS cannot be set up".to_owned());
        let client = ClientId::default();
        let implicit = match mail.tls {
            MailTls::Tls => Some(tls()?),
            MailTls::StartTls | MailTls::None => None,
        };
        let server = (mail.server.as_str(), mail.port);
        let connecting = AsyncSmtpConnection::connect_tokio1(server, None, &client, implicit, None);
        let mut smtp = within(COMMAND, until, connecting)
            .await
            .map_err(|trouble| failed("the connection", trouble))?;
        if mail.tls == MailTls::StartTls {
            within(COMMAND, until, smtp.starttls(tls()?, &client))
                .await
                .map_err(|trouble| failed("the encryption", trouble))?;
        }
        if let Some((user, password)) = &mail.credentials {
            let credentials = Credentials::new(user.clone(), password.expose_secret().to_owned());
            within(
                COMMAND,
                until,
                smtp.auth(&[Mechanism::Plain, Mechanism::Login], &credentials),
            )
            .await
            .map_err(|trouble| {
                // A reply from 500 on is the server's last word on these credentials.
                if trouble.reply().is_some_and(|reply| reply.code >= 500) {
                    metrics::count(Metric::AuthenticationFailures, 1);
                }
                failed("the login", trouble)
            })?;
        }
        Ok(Self { smtp, usable: true })
    }

    /// Whether another letter can be sent over it.
    pub(super) fn is_usable(&self) -> bool {
        self.usable
    }

    /// Sends a letter to `to`, and to `copies` as far as the server takes those.
    pub(super) async fn send(
        &mut self,
        from: &Address,
        to: &Address,
        copies: &[Address],
        message: &[u8],
        until: Instant,
    ) -> Sending {
        if !self.smtp.server_info().supports_feature(Extension::SmtpUtfEight) {
            if is_international(from) {
                tracing::warn!("the mail server takes no letters from an address outside of ASCII");
                return Sending::NoServer;
            }
            if is_international(to) {
                tracing::warn!("the mail server takes no letters to an address outside of ASCII");
                return Sending::NoSuchAddress;
            }
        }
        match self.converse(from, to, copies, message, until).await {
            Ok(()) => Sending::Taken,
            Err((stage, trouble)) => {
                let reply = trouble.reply();
                let sending = judge(stage, reply);
                tracing::warn!(
                    ?stage,
                    ?sending,
                    code = reply.map(|reply| reply.code),
                    "the mail server did not take a letter"
                );
                // After a refusal the conversation goes on; after silence nobody knows what the next reply is to.
                self.usable = match reply {
                    Some(reply) if reply.code != 421 => {
                        within(COMMAND, until, self.smtp.command(Rset)).await.is_ok()
                    }
                    _ => false,
                };
                sending
            }
        }
    }

    async fn converse(
        &mut self,
        from: &Address,
        to: &Address,
        copies: &[Address],
        message: &[u8],
        until: Instant,
    ) -> Result<(), (Stage, Trouble)> {
        let mut options = Vec::new();
        if [from, to].into_iter().any(is_international) {
            options.push(MailParameter::SmtpUtfEight);
        }
        if !message.is_ascii() {
            options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        let sender = Sender::new(Some(from.clone()), options);
        within(COMMAND, until, self.smtp.command(sender))
            .await
            .map_err(|trouble| (Stage::Sender, trouble))?;
        within(
            COMMAND,
            until,
            self.smtp.command(Rcpt::new(to.clone(), Vec::new())),
        )
        .await
        .map_err(|trouble| (Stage::Recipient, trouble))?;
        for copy in copies {
            let named = within(
                COMMAND,
                until,
                self.smtp.command(Rcpt::new(copy.clone(), Vec::new())),
            )
            .await;
            match named {
                Ok(_) => {}
                // A copy that is refused does not keep the customer from the letter.
                Err(trouble) if trouble.reply().is_some() => {
                    tracing::warn!("the mail server takes no blind copies to a configured address");
                }
                Err(trouble) => return Err((Stage::Recipient, trouble)),
            }
        }
        within(COMMAND, until, self.smtp.command(Data))
            .await
            .map_err(|trouble| (Stage::Announced, trouble))?;
        telemetry::count_call(Service::Mail);
        let sent = Instant::now();
        let handed_over = within(CONTENT, until, self.smtp.message(message)).await;
        let end = match &handed_over {
            Ok(_) => CallEnd::Answered,
            Err(Trouble::Late) => CallEnd::TimedOut,
            Err(Trouble::Smtp(_)) => CallEnd::Failed,
        };
        metrics::call_ended(Service::Mail, end, sent.elapsed());
        handed_over.map_err(|trouble| (Stage::Content, trouble))?;
        Ok(())
    }

    /// Ends the conversation politely.
    pub(super) async fn close(mut self) {
        if self.usable {
            let farewell = Duration::from_secs(1);
            let _silent = tokio::time::timeout(farewell, self.smtp.command(Quit)).await;
        }
    }
}

impl Trouble {
    /// What the server replied, where it did.
    fn reply(&self) -> Option<Reply> {
        let Self::Smtp(error) = self else { return None };
        let code = error.status().map(u16::from)?;
        // The library has the text of the reply as the error's source. It begins with the enhanced code.
        let text = error.source().map(ToString::to_string).unwrap_or_default();
        Some(Reply {
            code,
            subject: text.split('.').nth(1).and_then(|subject| subject.parse().ok()),
        })
    }
}

fn is_international(address: &Address) -> bool {
    !AsRef::<str>::as_ref(address).is_ascii()
}

/// What the end of a conversation means for the letter; without a `reply` there was none that could be understood.
fn judge(stage: Stage, reply: Option<Reply>) -> Sending {
    let Some(Reply { code, subject }) = reply else {
        return match stage {
            Stage::Content => Sending::Unsure,
            Stage::Sender | Stage::Recipient | Stage::Announced => Sending::NoServer,
        };
    };
    match stage {
        // The server is about to close, or does not let us write: that is not the letter's fault.
        _ if code == 421 => Sending::NoServer,
        Stage::Sender => Sending::NoServer,
        // 5.1 is about the address. Other refusals at this point are about us, such as that we may not relay.
        Stage::Recipient => match (code, subject) {
            (500..=599, Some(1)) | (550 | 551 | 553 | 556, None) => Sending::NoSuchAddress,
            _ => Sending::Refused(None),
        },
        // Also what is refused for good is tried again, for a few days: the cause is often a setting of the server's,
        // such as that the sender is not verified yet.
        Stage::Announced | Stage::Content => Sending::Refused(None),
    }
}

async fn within<T>(
    limit: Duration,
    until: Instant,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    let end = until.min(Instant::now() + limit);
    match tokio::time::timeout_at(end, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Trouble::Smtp(error)),
        Err(_) => Err(Trouble::Late),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16, subject: u16) -> Option<Reply> {
        Some(Reply {
            code,
            subject: Some(subject),
        })
    }

    fn bare(code: u16) -> Option<Reply> {
        Some(Reply { code, subject: None })
    }

    #[test]
    fn silence_after_a_letter_was_handed_over_leaves_it_unsure_and_before_that_it_was_not_sent() {
        assert_eq!(judge(Stage::Content, None), Sending::Unsure);
        for stage in [Stage::Sender, Stage::Recipient, Stage::Announced] {
            assert_eq!(judge(stage, None), Sending::NoServer, "{stage:?}");
        }
    }

    #[test]
    fn only_what_is_about_the_address_is_held_against_it() {
        for there_is_none in [reply(550, 1), reply(553, 1), reply(501, 1), bare(550), bare(551)] {
            assert_eq!(judge(Stage::Recipient, there_is_none), Sending::NoSuchAddress);
        }
        for not_now in [
            reply(450, 1),
            reply(452, 2),
            reply(550, 7),
            reply(554, 7),
            bare(450),
            bare(503),
        ] {
            assert_eq!(
                judge(Stage::Recipient, not_now),
                Sending::Refused(None),
                "{not_now:?}"
            );
        }
    }

    #[test]
    fn a_server_that_closes_or_does_not_let_us_write_is_no_fault_of_the_letter() {
        for stage in [Stage::Sender, Stage::Recipient, Stage::Announced, Stage::Content] {
            assert_eq!(judge(stage, reply(421, 3)), Sending::NoServer, "{stage:?}");
        }
        assert_eq!(judge(Stage::Sender, reply(553, 1)), Sending::NoServer);
        assert_eq!(judge(Stage::Sender, bare(451)), Sending::NoServer);
    }

    #[test]
    fn a_letter_that_is_refused_is_tried_again() {
        for refused in [bare(451), reply(554, 7), reply(552, 3)] {
            assert_eq!(judge(Stage::Content, refused), Sending::Refused(None));
        }
    }
}
