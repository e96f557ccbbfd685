//! A row of the shop's list of transactions, read leniently (facts/access.md A5 "Raw txn fields", A6). Both
//! the site's own list and MemberPress's are read, with ids and money as texts or numbers, and members,
//! products and subscriptions as objects or ids.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::configuration::Shop;
use super::fields;
use super::ids::{PersonId, ProductId, SubscriptionId, TransactionId};
use super::times::{self, DayEdge, SourceTime};

/// How far in the future a row may have been created: clocks differ, but not by more than a day.
const FUTURE_SECONDS: i64 = 86_400;

/// A row, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The transaction.
    pub transaction: TransactionId,
    /// Who bought; `None` when the member was deleted since.
    pub person: Option<PersonId>,
    /// The member's address; empty only when the member was deleted.
    pub email: String,
    /// The member's name at WordPress.
    pub wp_username: String,
    /// The name that the member is called by; perhaps empty.
    pub display_name: String,
    /// The name at TradingView, as the customer wrote it; perhaps empty.
    pub username: String,
    /// What was bought.
    pub product: ProductId,
    /// Where the transaction stands.
    pub status: Status,
    /// What kind of row it is.
    pub kind: RowKind,
    /// The price without tax.
    pub amount: Option<Decimal>,
    /// The price with tax.
    pub total: Option<Decimal>,
    /// How it was paid, in lower case; perhaps empty.
    pub gateway: String,
    /// Whether a coupon was used.
    pub coupon: bool,
    /// The gateway's number for the payment.
    pub trans_num: Option<String>,
    /// The subscription that the row belongs to.
    pub subscription: Option<SubscriptionId>,
    /// The transaction that this one hangs on, for members of somebody else's account.
    pub parent: Option<TransactionId>,
    /// When it was bought.
    pub created_at: Timestamp,
    /// When the shop says that it ends.
    pub ends: Ends,
    /// The fields whose times the shop's clocks showed twice or never.
    pub ambiguous: Vec<&'static str>,
}

/// Where a transaction stands (A6, "Statuses").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not paid yet.
    Pending,
    /// Will not be paid.
    Failed,
    /// Paid.
    Complete,
    /// Signed up, to be paid.
    Confirmed,
    /// Paid back.
    Refunded,
}

/// What kind of row it is (A6, "Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// A payment.
    Payment,
    /// A sign-up, before the first payment.
    SubscriptionConfirmation,
    /// Access through somebody else's account.
    SubAccount,
    /// A row that MemberPress makes up.
    Fallback,
}

/// When a shop says that something ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ends {
    /// It says nothing: the product's duration counts (C3b, "Dates").
    Unsaid,
    /// Never.
    Never,
    /// Then.
    At(Timestamp),
}

/// A row that cannot be used, which is put aside and reported (C3, QUARANTINED).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The transaction, where its id could be read: the row then counts as there, so that it is not taken for
    /// a deleted one.
    pub transaction: Option<TransactionId>,
    /// The place in the answer, counted from 1.
    pub position: usize,
    /// All that is wrong.
    pub causes: Vec<String>,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.transaction {
            Some(transaction) => write!(f, "transaction {transaction}: ")?,
            None => write!(f, "row {}: ", self.position)?,
        }
        f.write_str(&self.causes.join("; "))
    }
}

/// How rows are read at one shop.
#[derive(Debug, Clone, Copy)]
pub struct RowReader<'a> {
    timezone: &'a TimeZone,
    username_fields: &'a [String],
    now: Timestamp,
}

impl<'a> RowReader<'a> {
    /// Reads rows of this shop, at the time `now`.
    #[must_use]
    pub fn new(shop: &'a Shop, now: Timestamp) -> Self {
        Self {
            timezone: &shop.timezone,
            username_fields: &shop.username_fields,
            now,
        }
    }

    /// Reads the row at `position` of an answer, counted from 1.
    ///
    /// # Errors
    /// [`Malformed`] names the row and all that is wrong with it.
    pub fn read(&self, raw: &Value, position: usize) -> Result<Row, Malformed> {
        let mut causes = Causes(Vec::new());
        let transaction = self.transaction(raw, &mut causes);
        let row = self.rest(raw, transaction.clone(), &mut causes);
        row.filter(|_| causes.0.is_empty()).ok_or(Malformed {
            transaction,
            position,
            causes: causes.0,
        })
    }

    fn transaction(&self, raw: &Value, causes: &mut Causes) -> Option<TransactionId> {
        if !raw.is_object() {
            return causes.none("it is not an object");
        }
        let Some(text) = fields::first(raw, &["transaction_id", "id"]) else {
            return causes.none("transaction_id is missing");
        };
        TransactionId::parse(&text).or_else(|| causes.none("transaction_id is not an id"))
    }

    /// All but the id. Everything is looked at before the first fault ends it, so that all are named.
    fn rest(&self, raw: &Value, transaction: Option<TransactionId>, causes: &mut Causes) -> Option<Row> {
        if !raw.is_object() {
            return None;
        }
        let person = person(raw, causes);
        let email = fields::first(
            raw,
            &["user_email", "member.email", "user.email", "user.user_email"],
        );
        // Nothing is left of a deleted member, and that is what matters then.
        if email.is_none() && !matches!(person, Some(None)) {
            causes.add("user_email is missing");
        }
        let product = fields::id(raw, &["product_id", "membership.id", "membership", "product.id"])
            .map(ProductId::new)
            .or_else(|| causes.none("product_id is missing"));
        let status = status(raw, causes);
        let kind = kind(raw, status, causes);
        let mut ambiguous = Vec::new();
        let created_at = self.created_at(raw, &mut ambiguous, causes);
        let ends = self.ends(raw, &mut ambiguous, causes);
        Some(Row {
            transaction: transaction?,
            person: person?,
            email: email.unwrap_or_default(),
            wp_username: fields::first(
                raw,
                &[
                    "user_login",
                    "member.username",
                    "member.user_login",
                    "user.username",
                    "user.user_login",
                ],
            )
            .unwrap_or_default(),
            display_name: fields::first(raw, &["display_name", "member.display_name", "user.display_name"])
                .unwrap_or_default(),
            username: self.username(raw),
            product: product?,
            status: status?,
            kind: kind?,
            amount: fields::money(raw, "amount"),
            total: fields::money(raw, "total"),
            gateway: fields::first(raw, &["gateway"])
                .unwrap_or_default()
                .to_ascii_lowercase(),
            coupon: fields::id(raw, &["coupon_id", "coupon.id", "coupon"]).is_some(),
            trans_num: fields::id(raw, &["trans_num"]),
            subscription: fields::id(raw, &["subscription_id", "subscription.id", "subscription"])
                .map(SubscriptionId::new),
            parent: fields::id(raw, &["parent_transaction_id", "parent_transaction.id"])
                .and_then(|id| TransactionId::parse(&id)),
            created_at: created_at?,
            ends: ends?,
            ambiguous,
        })
    }

    /// The first of the configured fields that holds something, in the row or else in its member.
    fn username(&self, raw: &Value) -> String {
        let member = raw.get("member").unwrap_or(&Value::Null);
        self.username_fields
            .iter()
            .find_map(|path| {
                fields::at(raw, path)
                    .or_else(|| fields::at(member, path))
                    // MemberPress's members have their login in `username`.
                    .or_else(|| {
                        matches!(path.as_str(), "user_login" | "user.username")
                            .then(|| fields::at(member, "username"))?
                    })
            })
            .unwrap_or_default()
    }

    fn created_at(
        &self,
        raw: &Value,
        ambiguous: &mut Vec<&'static str>,
        causes: &mut Causes,
    ) -> Option<Timestamp> {
        let value = raw.get("created_at").unwrap_or(&Value::Null);
        match times::read(value, self.timezone, DayEdge::First) {
            Ok(SourceTime::At { at, ambiguous: twice }) => {
                if at.as_second() > self.now.as_second().saturating_add(FUTURE_SECONDS) {
                    return causes.none(&format!("created_at is in the future ({at})"));
                }
                if twice {
                    ambiguous.push("created_at");
                }
                Some(at)
            }
            Ok(SourceTime::Absent | SourceTime::Never) => causes.none("created_at is missing"),
            Err(times::Unreadable) => causes.none("created_at is not a time"),
        }
    }

    fn ends(&self, raw: &Value, ambiguous: &mut Vec<&'static str>, causes: &mut Causes) -> Option<Ends> {
        let value = raw.get("expires_at").unwrap_or(&Value::Null);
        match times::read(value, self.timezone, DayEdge::Last) {
            Ok(SourceTime::At { at, ambiguous: twice }) => {
                if twice {
                    ambiguous.push("expires_at");
                }
                Some(Ends::At(at))
            }
            Ok(SourceTime::Absent) => Some(Ends::Unsaid),
            Ok(SourceTime::Never) => Some(Ends::Never),
            Err(times::Unreadable) => causes.none("expires_at is not a time"),
        }
    }
}

/// What is wrong with a row, so far.
struct Causes(Vec<String>);

impl Causes {
    fn add(&mut self, cause: &str) {
        self.0.push(cause.to_owned());
    }

    fn none<T>(&mut self, cause: &str) -> Option<T> {
        self.add(cause);
        None
    }
}

/// Who bought: nothing where it cannot be said, nobody where the member was deleted (C3, "member deleted").
fn person(raw: &Value, causes: &mut Causes) -> Option<Option<PersonId>> {
    let Some(text) = fields::first(raw, &["user_id", "member.id", "member", "user.id"]) else {
        return causes.none("user_id is missing");
    };
    match text.parse::<u64>() {
        Ok(0) => Some(None),
        Ok(id) => Some(Some(PersonId(id))),
        Err(_) => causes.none("user_id is not a number"),
    }
}

fn status(raw: &Value, causes: &mut Causes) -> Option<Status> {
    let Some(text) = fields::first(raw, &["txn_status", "status"]) else {
        return causes.none("status is missing");
    };
    match text.to_ascii_lowercase().as_str() {
        "pending" => Some(Status::Pending),
        "failed" => Some(Status::Failed),
        "complete" | "completed" => Some(Status::Complete),
        "confirmed" => Some(Status::Confirmed),
        "refunded" => Some(Status::Refunded),
        _ => causes.none("status is none of pending, failed, complete, confirmed, refunded"),
    }
}

fn kind(raw: &Value, status: Option<Status>, causes: &mut Causes) -> Option<RowKind> {
    let Some(text) = fields::first(raw, &["txn_type"]) else {
        // A site's own list may leave it out. Only a sign-up is ever confirmed.
        return Some(match status {
            Some(Status::Confirmed) => RowKind::SubscriptionConfirmation,
            _ => RowKind::Payment,
        });
    };
    match text.to_ascii_lowercase().as_str() {
        "payment" => Some(RowKind::Payment),
        "subscription_confirmation" => Some(RowKind::SubscriptionConfirmation),
        "sub_account" => Some(RowKind::SubAccount),
        "fallback" => Some(RowKind::Fallback),
        _ => causes.none("txn_type is none of payment, subscription_confirmation, sub_account, fallback"),
    }
}

impl Row {
    /// A hash of all that is known of the row. MemberPress has no time of the last change (A6), so this is
    /// how a change is seen.
    #[must_use]
    pub fn content_hash(&self) -> String {
        hash(&(
            self.sale_hash(),
            &self.email,
            &self.wp_username,
            &self.display_name,
            &self.username,
        ))
    }

    /// A hash of what decides about time: as [`Row::content_hash`], but without what is said of the member.
    #[must_use]
    pub fn sale_hash(&self) -> String {
        hash(&(
            (
                &self.transaction,
                self.person,
                &self.product,
                self.status,
                self.kind,
            ),
            (
                self.amount.map(|amount| amount.normalize()),
                self.total.map(|total| total.normalize()),
            ),
            (
                &self.gateway,
                self.coupon,
                &self.trans_num,
                &self.subscription,
                &self.parent,
            ),
            (self.created_at, self.ends),
        ))
    }

    /// Whether nothing was paid.
    #[must_use]
    pub fn is_free(&self) -> bool {
        match (self.amount, self.total) {
            (None, None) => self.gateway == "free",
            (amount, total) => amount.into_iter().chain(total).all(|sum| sum.is_zero()),
        }
    }

    /// What was paid, for telling two rows of one payment: with tax, or without where only that is known.
    #[must_use]
    pub fn paid(&self) -> Option<Decimal> {
        self.total.or(self.amount).map(|sum| sum.normalize())
    }
}

fn hash(content: &impl Serialize) -> String {
    // Texts, numbers and times can always be written as JSON.
    let text = serde_json::to_vec(content).unwrap_or_default();
    data_encoding::HEXLOWER.encode(&Sha256::digest(text))
}

#[cfg(test)]
mod tests;
