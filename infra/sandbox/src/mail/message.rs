//! One mail, as it is kept.

use mail_parser::{Address, MessageParser};

/// A mail, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mail {
    /// The address that the sender wrote it from; the envelope's where the mail names none.
    pub(crate) from: String,
    /// Whom it is addressed to; where the mail names nobody, whom the envelope names.
    pub(crate) to: Vec<String>,
    /// Who gets a copy that the others see.
    pub(crate) cc: Vec<String>,
    /// Whom the envelope names and the mail does not.
    pub(crate) bcc: Vec<String>,
    /// Its Message-ID, by which mail programs know a copy that came twice; empty where it has none.
    pub(crate) message_id: String,
    /// The subject, decoded.
    pub(crate) subject: String,
    /// The part for reading in a browser, if it has one of its own.
    pub(crate) html: Option<String>,
    /// The part in plain text, if it has one of its own.
    pub(crate) text: Option<String>,
}

impl Mail {
    /// Reads a mail that came in an envelope from `sender` to `recipients`.
    pub(crate) fn read(sender: &str, recipients: &[String], content: &[u8]) -> Self {
        let Some(message) = MessageParser::default().parse(content) else {
            // Nothing but an envelope.
            return Self {
                from: sender.to_owned(),
                to: recipients.to_vec(),
                cc: Vec::new(),
                bcc: Vec::new(),
                message_id: String::new(),
                subject: String::new(),
                html: None,
                text: None,
            };
        };
        let (to, cc) = (addresses(message.to()), addresses(message.cc()));
        let is_named = |recipient: &&String| {
            let is_it = |named: &String| named.eq_ignore_ascii_case(recipient);
            to.iter().chain(&cc).any(is_it)
        };
        let bcc: Vec<String> = recipients.iter().filter(|one| !is_named(one)).cloned().collect();
        let (to, bcc) = if to.is_empty() { (bcc, to) } else { (to, bcc) };
        // The parser makes the one part from the other where it is missing; only what was sent is kept.
        let part = |ids: &[mail_parser::MessagePartId], html: bool| {
            let part = ids.iter().find_map(|id| {
                let part = message.part(*id)?;
                (part.is_text_html() == html)
                    .then(|| part.text_contents())
                    .flatten()
            });
            part.map(|text| text.replace("\r\n", "\n"))
        };
        Self {
            from: addresses(message.from())
                .into_iter()
                .next()
                .unwrap_or_else(|| sender.to_owned()),
            to,
            cc,
            bcc,
            message_id: message.message_id().unwrap_or_default().to_owned(),
            subject: message.subject().unwrap_or_default().to_owned(),
            html: part(&message.html_body, true),
            text: part(&message.text_body, false),
        }
    }
}

/// The bare addresses of a header.
fn addresses(header: Option<&Address<'_>>) -> Vec<String> {
    let all = header.into_iter().flat_map(Address::iter);
    all.filter_map(|address| address.address().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_of_a_mail_are_decoded() {
        let mail = Mail::read(
            "bounces@example.com",
            &["ada@example.com".to_owned(), "archive@example.com".to_owned()],
            b"From: The shop <shop@example.com>\r\nTo: Ada <ada@example.com>\r\n\
              Message-ID: <1@example.com>\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nMIME-Version: 1.0\r\n\
              Content-Type: multipart/alternative; boundary=b\r\n\r\n\
              --b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
              SGVsbG8sIEFkYQ==\r\n\
              --b\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
              <p>Hello=2C Ada</p>\r\n--b--\r\n",
        );
        assert_eq!(mail.from, "shop@example.com");
        assert_eq!(
            (mail.to, mail.bcc),
            (
                vec!["ada@example.com".to_owned()],
                vec!["archive@example.com".to_owned()]
            )
        );
        assert_eq!(
            (mail.subject.as_str(), mail.message_id.as_str()),
            ("Grüße", "1@example.com")
        );
        assert_eq!(mail.text.as_deref(), Some("Hello, Ada"));
        assert_eq!(mail.html.as_deref(), Some("<p>Hello, Ada</p>"));
    }

    #[test]
    fn a_mail_without_headers_is_its_envelope() {
        let mail = Mail::read(
            "shop@example.com",
            &["ada@example.com".to_owned()],
            b"\r\nHello\r\n",
        );
        assert_eq!(mail.from, "shop@example.com");
        assert_eq!((mail.to, mail.bcc), (vec!["ada@example.com".to_owned()], vec![]));
        assert_eq!((mail.html, mail.text.as_deref()), (None, Some("Hello\n")));
    }
}
