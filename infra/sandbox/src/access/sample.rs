//! A small shop to look at: what a newcomer's sandbox can be filled with.
//!
//! Its products are those of the local stack's sample configuration. Among its customers are one who renewed early, one
//! whose name is misspelt, one who got the money back, and one whose payment has not come yet.

use jiff::{SignedDuration, Timestamp};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::store::Store;

/// The names that TradingView knows.
const NAMES: [&str; 6] = [
    "AdaLovelace",
    "grace_hopper",
    "Edsger-D",
    "BarbaraL",
    "barbara_liskov",
    "KenT",
];

/// One of the shop's transactions; times are in days from now.
struct Sale {
    id: u32,
    member: u32,
    email: &'static str,
    /// As the customer typed it.
    username: &'static str,
    product: u32,
    /// Of a subscription; 0 is none.
    subscription: u32,
    amount: &'static str,
    kind: &'static str,
    status: &'static str,
    created: i32,
    expires: i32,
}

const SALES: [Sale; 7] = [
    Sale {
        id: 1001,
        member: 11,
        email: "ada@example.com",
        username: "adalovelace",
        product: 100,
        subscription: 501,
        amount: "49.00",
        kind: "payment",
        status: "complete",
        created: -32,
        expires: -2,
    },
    // Renewed three days early, and loses none of them.
    Sale {
        id: 1002,
        member: 11,
        email: "ada@example.com",
        username: "adalovelace",
        product: 100,
        subscription: 501,
        amount: "49.00",
        kind: "payment",
        status: "complete",
        created: -5,
        expires: 28,
    },
    Sale {
        id: 1003,
        member: 12,
        email: "grace@example.com",
        username: "@grace_hopper",
        product: 200,
        subscription: 502,
        amount: "490.00",
        kind: "payment",
        status: "complete",
        created: -20,
        expires: 345,
    },
    // There is no such name, but two that begin like it.
    Sale {
        id: 1004,
        member: 13,
        email: "barbara@example.com",
        username: "barbara",
        product: 100,
        subscription: 503,
        amount: "49.00",
        kind: "payment",
        status: "complete",
        created: -3,
        expires: 27,
    },
    Sale {
        id: 1005,
        member: 14,
        email: "edsger@example.com",
        username: "Edsger-D",
        product: 100,
        subscription: 0,
        amount: "49.00",
        kind: "payment",
        status: "refunded",
        created: -10,
        expires: 20,
    },
    Sale {
        id: 1006,
        member: 15,
        email: "ken@example.com",
        username: "https://www.tradingview.com/u/KenT/",
        product: 100,
        subscription: 504,
        amount: "0.00",
        kind: "subscription_confirmation",
        status: "confirmed",
        created: -1,
        expires: 6,
    },
    Sale {
        id: 1007,
        member: 14,
        email: "edsger@example.com",
        username: "Edsger-D",
        product: 200,
        subscription: 505,
        amount: "490.00",
        kind: "payment",
        status: "pending",
        created: 0,
        expires: 365,
    },
];

/// Puts the small shop in place of whatever transactions and names there are, and tells what it put. Who has access
/// stays as it is.
///
/// # Errors
/// The database's, where it is of no use.
pub(super) fn fill(store: &Store, now: Timestamp) -> rusqlite::Result<Value> {
    let rows: Vec<Box<RawValue>> = (SALES.iter())
        .filter_map(|sale| to_raw_value(&row(sale, now)).ok())
        .collect();
    store.set_sales(&rows)?;
    store.set_names(&NAMES.map(str::to_owned))?;
    Ok(json!({"transactions": rows.len(), "usernames": NAMES.len()}))
}

/// A transaction in the members that the shop's own endpoint has.
fn row(sale: &Sale, now: Timestamp) -> Value {
    let name = sale.email.split('@').next().unwrap_or_default();
    let recurring = sale.subscription != 0;
    json!({
        "id": sale.id,
        "transaction_id": sale.id,
        "user_id": sale.member,
        "user_email": sale.email,
        "user_login": name,
        "display_name": name,
        "user_meta": {"tradingview_username": sale.username},
        "amount": sale.amount,
        "total": sale.amount,
        "status": sale.status,
        "txn_type": sale.kind,
        "subscription_id": sale.subscription.to_string(),
        "parent_transaction_id": "0",
        "product_id": sale.product.to_string(),
        "gateway": "stripe",
        "trans_num": format!("ch_sample_{}", sale.id),
        "created_at": day(now, sale.created, false),
        "expires_at": day(now, sale.expires, true),
        "subscription_status": recurring.then_some("active"),
    })
}

/// A time as MemberPress writes it. What it sells ends with a day.
fn day(now: Timestamp, days: i32, at_its_end: bool) -> String {
    let then = now
        .checked_add(SignedDuration::from_hours(i64::from(days).saturating_mul(24)))
        .unwrap_or(now);
    let format = if at_its_end {
        "%Y-%m-%d 23:59:59"
    } else {
        "%Y-%m-%d %H:%M:%S"
    };
    then.strftime(format).to_string()
}
