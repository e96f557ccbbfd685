//! The outbox: notices as items of the table.
//!
//! A notice stands under a hash of whom it is about, its cause and the cause's value, so that it is put in once
//! and no name can be read from its key. An item that is done with stays there, without what the letter said.

use std::fmt::Write as _;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::super::configuration::{Discord, Mail};
use super::super::ids::PersonId;
use super::super::records::sortable;
use super::dispatch::{Dispatch, Way};
use super::letters::{Digest, Letter};
use crate::ids::TenantId;
use crate::store::{self, Expression, IndexKey, Item, Key, StoreError, Write, index_partition, partition};

/// The sort key of a notice.
const SORT_KEY: &str = "NOTICE";

/// How long it is remembered that somebody was told.
const REMEMBERED: Duration = Duration::from_secs(400 * 86_400);

/// Something that somebody is to be told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A customer, that TradingView does not know the name that the customer gave.
    UnknownName(UnknownName),
    /// The operator, by mail.
    OperatorMail {
        /// The address.
        to: String,
        /// What.
        digest: Digest,
    },
    /// The operator, at Discord.
    OperatorPost(Digest),
}

/// A customer whose name TradingView does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName {
    /// The customer.
    pub person: PersonId,
    /// The customer's address, as the shop has it.
    pub to: String,
    /// How the shop calls the customer; may be empty.
    pub called: String,
    /// The name that the customer gave, as it was written; empty where there is none.
    pub written: String,
    /// Names that exist and begin alike.
    pub suggestions: Vec<String>,
}

/// The item that tells the sender of a notice. Put in with [`unless_there`], it is sent once however often it is
/// put in.
///
/// # Errors
/// [`StoreError::Malformed`] when it has a shape that DynamoDB cannot hold.
pub fn notice(tenant: &TenantId, notice: &Notice, now: Timestamp) -> Result<(Key, Item), StoreError> {
    let (key, dispatch) = match notice {
        Notice::UnknownName(unknown) => {
            let person = unknown.person.to_string();
            // The same name in another spelling is the same mistake.
            let value = unknown.written.trim().to_lowercase();
            let letter = Letter::UnknownName {
                called: unknown.called.clone(),
                written: unknown.written.clone(),
                suggestions: unknown.suggestions.clone(),
            };
            let way = Way::Mail {
                to: unknown.to.clone(),
            };
            (
                key(tenant, [&person, "invalid_username", &value, "invalid_username"]),
                Dispatch {
                    person: Some(unknown.person),
                    ..Dispatch::new(letter, way, now)
                },
            )
        }
        Notice::OperatorMail { to, digest } => (
            key(tenant, ["operator", "digest", &digest.cause, "mail"]),
            Dispatch::new(Letter::Digest(digest.clone()), Way::Mail { to: to.clone() }, now),
        ),
        Notice::OperatorPost(digest) => (
            key(tenant, ["operator", "digest", &digest.cause, "discord"]),
            Dispatch::new(Letter::Digest(digest.clone()), Way::Discord, now),
        ),
    };
    let item = item(tenant, &key, &dispatch)?;
    Ok((key, item))
}

/// The items that tell the operator, by each way that is configured; none where there is nothing to tell.
///
/// # Errors
/// [`StoreError::Malformed`] when one has a shape that DynamoDB cannot hold.
pub fn to_operator(
    tenant: &TenantId,
    mail: Option<&Mail>,
    discord: Option<&Discord>,
    digest: &Digest,
    now: Timestamp,
) -> Result<Vec<(Key, Item)>, StoreError> {
    let mut notices = Vec::new();
    if digest.is_empty() {
        return Ok(notices);
    }
    if let Some(to) = mail.and_then(|mail| mail.operator.clone()) {
        let digest = digest.clone();
        notices.push(notice(tenant, &Notice::OperatorMail { to, digest }, now)?);
    }
    if discord.is_some() {
        notices.push(notice(tenant, &Notice::OperatorPost(digest.clone()), now)?);
    }
    Ok(notices)
}

/// Puts in an item of [`notice`] unless it is there already, in which case it changes nothing and does not keep
/// the transaction that it belongs to from being made.
#[must_use]
pub fn unless_there((key, item): (Key, Item)) -> Write {
    let mut expression = Expression::default();
    let mut attributes: Vec<(String, AttributeValue)> = item
        .into_iter()
        .filter(|(name, _)| name != "pk" && name != "sk")
        .collect();
    // The same notice is the same write, so that a transaction that is sent again is recognised.
    attributes.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (number, (name, value)) in attributes.into_iter().enumerate() {
        let before = if number == 0 { "SET " } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(
            expression.update,
            "{before}#n{number} = if_not_exists(#n{number}, :n{number})"
        );
        expression.names.insert(format!("#n{number}"), name);
        expression.values.insert(format!(":n{number}"), value);
    }
    Write::Update { key, expression }
}

/// Where the notices stand whose next letter is still to be sent.
pub(super) fn due(tenant: &TenantId) -> String {
    index_partition(tenant, "MAILDUE")
}

/// The item of a notice. One that has ended stays in the index, in another part of it: that way each attribute
/// which [`unless_there`] could set is always there.
pub(super) fn item(tenant: &TenantId, key: &Key, dispatch: &Dispatch) -> Result<Item, StoreError> {
    let (gsi1pk, expires_at) = match dispatch.ended {
        None => (due(tenant), None),
        Some(_) => (
            index_partition(tenant, "MAILDONE"),
            dispatch.due_at.checked_add(REMEMBERED).ok(),
        ),
    };
    let index = IndexKey {
        gsi1pk,
        gsi1sk: sortable(dispatch.due_at),
    };
    store::to_item(key, dispatch, Some(&index), expires_at)
}

fn key(tenant: &TenantId, parts: [&str; 4]) -> Key {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let digest = data_encoding::BASE32_NOPAD.encode(&hash.finalize());
    let short: String = digest.chars().take(26).collect();
    Key::new(partition(tenant, "MAIL", &short.to_lowercase()), SORT_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }

    fn tenant() -> TenantId {
        TenantId::parse("default").unwrap()
    }

    fn unknown(person: u64, written: &str) -> UnknownName {
        UnknownName {
            person: PersonId(person),
            to: "ada@example.com".to_owned(),
            called: "Ada".to_owned(),
            written: written.to_owned(),
            suggestions: Vec::new(),
        }
    }

    fn key_of(unknown: UnknownName) -> Key {
        notice(&tenant(), &Notice::UnknownName(unknown), now()).unwrap().0
    }

    #[test]
    fn a_cause_has_one_notice_however_the_name_is_spelt_and_whenever_it_comes() {
        assert_eq!(key_of(unknown(7, "Adda")), key_of(unknown(7, " adda ")));
        let mut other = unknown(7, "adda");
        other.to = "ada@example.org".to_owned();
        other.suggestions = vec!["ada".to_owned()];
        assert_eq!(key_of(unknown(7, "adda")), key_of(other));
    }

    #[test]
    fn another_person_another_name_and_another_tenant_are_other_causes() {
        let one = key_of(unknown(7, "adda"));
        assert_ne!(one, key_of(unknown(8, "adda")));
        assert_ne!(one, key_of(unknown(7, "addaa")));
        let other = TenantId::parse("other").unwrap();
        let notice = notice(&other, &Notice::UnknownName(unknown(7, "adda")), now()).unwrap();
        assert_ne!(one, notice.0);
    }

    #[test]
    fn nobodys_name_is_in_a_key() {
        let key = key_of(unknown(7, "adda"));
        assert!(key.pk.starts_with("default#MAIL#"), "{key}");
        assert!(!key.to_string().contains("adda"), "{key}");
    }

    #[test]
    fn a_digest_goes_each_way_that_is_configured_and_an_empty_one_nowhere() {
        let mail = Mail {
            server: "localhost".to_owned(),
            port: 25,
            tls: super::super::super::configuration::MailTls::None,
            credentials: None,
            from: "shop@example.com".to_owned(),
            bcc: Vec::new(),
            operator: Some("operator@example.com".to_owned()),
        };
        let silent = Mail {
            operator: None,
            ..mail.clone()
        };
        let discord = Discord {
            webhook_url: "https://discord.example/api/webhooks/1/x".to_owned().into(),
            author: None,
        };
        let mut digest = Digest::new("run-1", now());
        let count = |mail: Option<&Mail>, discord: Option<&Discord>, digest: &Digest| {
            to_operator(&tenant(), mail, discord, digest, now())
                .unwrap()
                .len()
        };
        assert_eq!(count(Some(&mail), Some(&discord), &digest), 0);
        digest.alerts.push("The access API lets nobody in.".to_owned());
        assert_eq!(count(Some(&mail), Some(&discord), &digest), 2);
        assert_eq!(count(Some(&silent), Some(&discord), &digest), 1);
        assert_eq!(count(Some(&silent), None, &digest), 0);
        assert_eq!(count(None, None, &digest), 0);
    }

    #[test]
    fn a_notice_that_ended_leaves_no_attribute_that_could_be_set_again() {
        let (key, fresh) = notice(&tenant(), &Notice::UnknownName(unknown(7, "adda")), now()).unwrap();
        let dispatch: Dispatch = store::from_item(&fresh).unwrap();
        let ended = dispatch.end(super::super::dispatch::Ended::Sent, now());
        let ended = item(&tenant(), &key, &ended).unwrap();
        for name in fresh.keys() {
            assert!(ended.contains_key(name), "{name}");
        }
        assert!(ended.contains_key("expires_at"));
        assert_ne!(ended.get("gsi1pk"), fresh.get("gsi1pk"));
    }
}
