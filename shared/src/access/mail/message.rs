//! A letter as it goes over the wire: addresses, headers and parts.

use jiff::Timestamp;
use lettre::Message;
use lettre::address::Address;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};

use super::letters::Rendered;

/// Why a letter cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// The text is no address of mail.
    #[error("the address is none")]
    Address,
    /// The headers or the parts cannot be put together.
    #[error("the letter cannot be put together")]
    Message,
}

/// Reads an address. A domain outside of ASCII gets its name in ASCII, which every mail server understands.
///
/// # Errors
/// [`Unwritable::Address`], also where it holds a character that could begin another line or another address.
pub fn address(text: &str) -> Result<Address, Unwritable> {
    let text = text.trim();
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Unwritable::Address);
    }
    let (user, domain) = text.rsplit_once('@').ok_or(Unwritable::Address)?;
    let domain = match url::Host::parse(domain) {
        Ok(url::Host::Domain(ascii)) if !domain.is_ascii() => ascii,
        _ => domain.to_owned(),
    };
    Address::new(user, domain).map_err(|_| Unwritable::Address)
}

/// Puts a letter together. `id` makes its Message-ID: a copy of the letter has the same, by which mail programs
/// know it. Neither names nor blind copies are in the headers.
///
/// # Errors
/// [`Unwritable::Message`].
pub fn message(
    letter: Rendered,
    from: &Address,
    to: &Address,
    id: &str,
    at: Timestamp,
) -> Result<Vec<u8>, Unwritable> {
    // It comes from a program, so that no other program answers it (RFC 3834, 5).
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    let message = Message::builder()
        .from(Mailbox::new(None, from.clone()))
        .to(Mailbox::new(None, to.clone()))
        .subject(letter.subject)
        .date(at.into())
        .message_id(Some(format!("<{id}@{}>", from.domain())))
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
        .multipart(MultiPart::alternative_plain_html(letter.text, letter.html))
        .map_err(|_| Unwritable::Message)?;
    Ok(message.formatted())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(letter: Rendered) -> String {
        let at = "2026-11-21T10:00:00Z".parse().unwrap();
        let (from, to) = (address("shop@example.com"), address("ada@example.com"));
        let message = message(letter, &from.unwrap(), &to.unwrap(), "abc.0", at).unwrap();
        String::from_utf8(message).unwrap()
    }

    #[test]
    fn an_address_is_taken_with_its_spaces_around() {
        assert_eq!(
            address(" ada@example.com ").unwrap().to_string(),
            "ada@example.com"
        );
    }

    #[test]
    fn a_domain_outside_of_ascii_is_written_in_ascii() {
        assert_eq!(
            address("ada@bücher.example").unwrap().to_string(),
            "ada@xn--bcher-kva.example"
        );
    }

    #[test]
    fn what_could_begin_another_line_or_another_address_is_no_address() {
        for bad in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "ada@example.com\r\nBcc: eve@example.com",
            "ada@example.com, eve@example.com",
            "\"ada\r\nRCPT TO:<eve@example.com>\"@example.com",
            "ada@example.com>\u{0}",
            "<ada@example.com>",
            "ada@exa mple.com",
            "ada@@example.com",
        ] {
            assert_eq!(address(bad), Err(Unwritable::Address), "{bad:?}");
        }
    }

    #[test]
    fn a_letter_has_a_date_an_id_and_says_that_a_program_wrote_it() {
        let message = written(Rendered {
            subject: "Grüße".to_owned(),
            html: "<p>Grüße 日本</p>".to_owned(),
            text: "Grüße 日本\n.\n".to_owned(),
        });
        assert!(message.is_ascii(), "{message}");
        for header in [
            "From: shop@example.com\r\n",
            "To: ada@example.com\r\n",
            "Message-ID: <abc.0@example.com>\r\n",
            "Date: Sat, 21 Nov 2026 10:00:00 +0000\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "MIME-Version: 1.0\r\n",
        ] {
            assert!(message.contains(header), "{header:?} is not in {message}");
        }
    }

    #[test]
    fn a_subject_begins_no_other_header() {
        let message = written(Rendered {
            subject: "Hello\r\nBcc: eve@example.com".to_owned(),
            html: String::new(),
            text: String::new(),
        });
        assert!(!message.contains("\r\nBcc:"), "{message}");
    }
}
