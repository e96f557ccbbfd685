//! The names of items. Every one begins with the tenant.

use std::fmt;

use aws_sdk_dynamodb::types::AttributeValue;

use super::Item;
use crate::ids::TenantId;

/// A partition key: the tenant, the kind of thing, and which one.
#[must_use]
pub fn partition(tenant: &TenantId, kind: &str, id: &str) -> String {
    format!("{tenant}#{kind}#{id}")
}

/// The partition of the index in which things of one kind are listed.
#[must_use]
pub fn index_partition(tenant: &TenantId, kind: &str) -> String {
    format!("{tenant}#{kind}")
}

/// Where an item stands in the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Partition key.
    pub pk: String,
    /// Sort key.
    pub sk: String,
}

impl Key {
    /// The key of these two parts.
    pub fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self {
            pk: pk.into(),
            sk: sk.into(),
        }
    }

    /// The key of an item; empty where the item has none.
    #[must_use]
    pub fn of(item: &Item) -> Self {
        Self {
            pk: text(item, "pk"),
            sk: text(item, "sk"),
        }
    }

    /// The two attributes that DynamoDB wants.
    #[must_use]
    pub fn to_item(&self) -> Item {
        Item::from([
            ("pk".to_owned(), AttributeValue::S(self.pk.clone())),
            ("sk".to_owned(), AttributeValue::S(self.sk.clone())),
        ])
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {}", self.pk, self.sk)
    }
}

/// Where an item stands in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexKey {
    /// Partition key of the index.
    pub gsi1pk: String,
    /// Sort key of the index.
    pub gsi1sk: String,
}

impl IndexKey {
    /// The two attributes that place an item in the index.
    #[must_use]
    pub fn to_item(&self) -> Item {
        Item::from([
            ("gsi1pk".to_owned(), AttributeValue::S(self.gsi1pk.clone())),
            ("gsi1sk".to_owned(), AttributeValue::S(self.gsi1sk.clone())),
        ])
    }
}

fn text(item: &Item, name: &str) -> String {
    item.get(name)
        .and_then(|value| value.as_s().ok())
        .cloned()
        .unwrap_or_default()
}
