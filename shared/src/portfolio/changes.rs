//! What of a user's portfolio has changed, and when: for a page that is open and asks again and again.
//!
//! Every write of data that differ from those before notes so in one item, in the same call. Asking costs one call to
//! the table, which reads that item and the user's record together. Long polling was left aside: a function that waits
//! is paid for while it waits, and API Gateway ends it after 30 seconds.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::Serialize;

use super::provider::PortfolioAccountId;
use crate::snaptrade::AccountId;
use crate::store::Item;

/// The attribute that grows with every change.
const REVISION: &str = "rev";

/// A part of a portfolio that may change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKey {
    /// The connections.
    Connections,
    /// The list of accounts.
    Accounts,
    /// What an account holds: positions and balances.
    Holdings(AccountId),
    /// An account's transactions.
    Transactions(AccountId),
}

impl PartKey {
    /// The attribute that says when the part changed.
    fn attribute(&self) -> String {
        match self {
            Self::Connections => "changed:connections".to_owned(),
            Self::Accounts => "changed:accounts".to_owned(),
            Self::Holdings(account) => format!("changed:holdings:{account}"),
            Self::Transactions(account) => format!("changed:transactions:{account}"),
        }
    }

    fn parse(attribute: &str) -> Option<Self> {
        let part = attribute.strip_prefix("changed:")?;
        match part.split_once(':') {
            None if part == "connections" => Some(Self::Connections),
            None if part == "accounts" => Some(Self::Accounts),
            Some(("holdings", account)) => Some(Self::Holdings(AccountId::new(account))),
            Some(("transactions", account)) => Some(Self::Transactions(AccountId::new(account))),
            _ => None,
        }
    }
}

/// The update by which `part` is noted to have changed: its words, the names and the values in it.
#[must_use]
pub(super) fn update(
    part: &PartKey,
    now: Timestamp,
    expires_at: Timestamp,
) -> (String, HashMap<String, String>, HashMap<String, AttributeValue>) {
    let number = |number: i64| AttributeValue::N(number.to_string());
    (
        "SET #part = :now, #rev = if_not_exists(#rev, :none) + :one, expires_at = :expires".to_owned(),
        HashMap::from([
            ("#part".to_owned(), part.attribute()),
            ("#rev".to_owned(), REVISION.to_owned()),
        ]),
        HashMap::from([
            (":now".to_owned(), number(now.as_millisecond())),
            (":none".to_owned(), number(0)),
            (":one".to_owned(), number(1)),
            (":expires".to_owned(), number(expires_at.as_second())),
        ]),
    )
}

/// When each part of a portfolio last changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    revision: u64,
    parts: BTreeMap<PartKey, Timestamp>,
}

/// Since when changes are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// All of them.
    Ever,
    /// After this moment.
    Moment(Timestamp),
    /// After the state that had this tag.
    Tag(Tag),
}

/// The tag of a state: how many changes there were, and when the last one was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    revision: u64,
    last_ms: i64,
}

impl Tag {
    /// The tag as it stands in the header `ETag`, with its quotation marks.
    #[must_use]
    pub fn header(self) -> String {
        format!("\"{}\"", self.text())
    }

    /// The tag without quotation marks.
    #[must_use]
    pub fn text(self) -> String {
        format!("{}-{}", self.revision, self.last_ms)
    }

    /// Reads a tag, with or without quotation marks, weak or strong.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        let (revision, last_ms) = text.split_once('-')?;
        Some(Self {
            revision: revision.parse().ok()?,
            last_ms: last_ms.parse().ok()?,
        })
    }
}

/// A change as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangeView {
    /// What changed: `connections`, `accounts`, `holdings` or `transactions`.
    pub kind: &'static str,
    /// Of which account, where it is of one.
    pub account_id: Option<PortfolioAccountId>,
    /// When it was seen to have changed.
    pub changed_at: Timestamp,
}

impl Changes {
    /// The changes that an item tells of.
    #[must_use]
    pub fn of(item: &Item) -> Self {
        let number = |value: &AttributeValue| value.as_n().ok().and_then(|number| number.parse::<i64>().ok());
        let parts = item.iter().filter_map(|(attribute, value)| {
            let part = PartKey::parse(attribute)?;
            let at = Timestamp::from_millisecond(number(value)?).ok()?;
            Some((part, at))
        });
        Self {
            revision: item
                .get(REVISION)
                .and_then(number)
                .and_then(|revision| u64::try_from(revision).ok())
                .unwrap_or(0),
            parts: parts.collect(),
        }
    }

    /// The tag of this state.
    #[must_use]
    pub fn tag(&self) -> Tag {
        Tag {
            revision: self.revision,
            last_ms: self.parts.values().max().map_or(0, |at| at.as_millisecond()),
        }
    }

    /// What changed since then, the newest first.
    #[must_use]
    pub fn since(&self, since: &Since) -> Vec<ChangeView> {
        let after = match since {
            Since::Ever => None,
            Since::Moment(moment) => Some(*moment),
            Since::Tag(tag) if *tag == self.tag() => return Vec::new(),
            // Of several changes in one millisecond the tag may have known only some.
            Since::Tag(tag) => Timestamp::from_millisecond(tag.last_ms.saturating_sub(1)).ok(),
        };
        let mut changes: Vec<ChangeView> = self
            .parts
            .iter()
            .filter(|(_, at)| after.is_none_or(|after| **at > after))
            .map(|(part, at)| {
                let (kind, account) = match part {
                    PartKey::Connections => ("connections", None),
                    PartKey::Accounts => ("accounts", None),
                    PartKey::Holdings(account) => ("holdings", Some(account)),
                    PartKey::Transactions(account) => ("transactions", Some(account)),
                };
                ChangeView {
                    kind,
                    account_id: account.map(|account| PortfolioAccountId::snaptrade(account.clone())),
                    changed_at: *at,
                }
            })
            .collect();
        changes.sort_by_key(|change| std::cmp::Reverse(change.changed_at));
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    fn changes(revision: i64, parts: &[(&PartKey, i64)]) -> Changes {
        let number = |number: i64| AttributeValue::N(number.to_string());
        let mut item = Item::from([
            ("pk".to_owned(), AttributeValue::S("default#DATA#ada".to_owned())),
            (REVISION.to_owned(), number(revision)),
        ]);
        for (part, ms) in parts {
            item.insert(part.attribute(), number(*ms));
        }
        Changes::of(&item)
    }

    fn kinds(changes: &[ChangeView]) -> Vec<&str> {
        changes.iter().map(|change| change.kind).collect()
    }

    #[test]
    fn only_what_changed_since_is_told_the_newest_first() {
        let holdings = PartKey::Holdings(AccountId::new("a:1"));
        let before = changes(1, &[(&PartKey::Connections, 1_000)]);
        let after = changes(
            3,
            &[
                (&PartKey::Connections, 1_000),
                (&PartKey::Accounts, 2_000),
                (&holdings, 3_000),
            ],
        );
        assert_eq!(
            kinds(&after.since(&Since::Ever)),
            ["holdings", "accounts", "connections"]
        );
        assert_eq!(
            kinds(&after.since(&Since::Moment(at(1_000)))),
            ["holdings", "accounts"]
        );
        let told = after.since(&Since::Tag(before.tag()));
        assert_eq!(told[0].account_id.as_ref().unwrap().to_string(), "snaptrade_a:1");
        // What the tag knows may be told once more, what it does not know never fails to be.
        assert_eq!(kinds(&told), ["holdings", "accounts", "connections"]);
        assert!(after.since(&Since::Tag(after.tag())).is_empty());
    }

    #[test]
    fn a_tag_is_read_as_it_was_given_out_however_it_comes_back() {
        let tag = changes(7, &[(&PartKey::Accounts, 1_795_255_200_000)]).tag();
        for text in [tag.header(), tag.text(), format!("W/{}", tag.header())] {
            assert_eq!(Tag::parse(&text), Some(tag), "{text}");
        }
        for bad in ["", "*", "\"\"", "\"x-1\"", "7"] {
            assert_eq!(Tag::parse(bad), None, "{bad}");
        }
    }
}
