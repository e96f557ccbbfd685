//! The shop's rows as its own endpoint tells them.

use serde_json::{Value, json};

use crate::reckoning::{Expires, Gateway, Kind, Row, Second, Status};
use crate::story;

/// A row of a customer who gave this name.
pub fn told(customer: u32, typed: &str, row: &Row) -> Value {
    let amount = format!("{}.{:02}", row.cents / 100, row.cents % 100);
    json!({
        "id": row.id,
        "transaction_id": row.id,
        "user_id": if row.orphaned { 0 } else { customer },
        "user_email": if row.orphaned { String::new() } else { format!("customer{customer}@example.com") },
        "user_login": format!("customer{customer}"),
        "display_name": format!("Customer {customer}"),
        "user_meta": {"tradingview_username": typed},
        "amount": amount,
        "total": amount,
        "status": match row.status {
            Status::Pending => "pending",
            Status::Failed => "failed",
            Status::Complete => "complete",
            Status::Confirmed => "confirmed",
            Status::Refunded => "refunded",
        },
        "txn_type": match row.kind {
            Kind::Payment => "payment",
            Kind::Confirmation => "subscription_confirmation",
            Kind::Fallback => "fallback",
            Kind::SubAccount => "sub_account",
        },
        "subscription_id": row.subscription.to_string(),
        "parent_transaction_id": "0",
        "product_id": row.product.to_string(),
        "gateway": match row.gateway {
            Gateway::Stripe => "stripe",
            Gateway::Offline => "offline",
            Gateway::Manual => "manual",
            Gateway::Free => "free",
        },
        "trans_num": row.number,
        "created_at": written(row.created),
        "expires_at": match row.present_end() {
            Expires::Unsaid => Value::Null,
            Expires::Zero => "0000-00-00 00:00:00".into(),
            Expires::At(end) => written(end).into(),
        },
        "subscription_status": (row.subscription != 0).then_some("active"),
    })
}

/// A time as MemberPress writes it.
fn written(second: Second) -> String {
    story::time(second).strftime("%Y-%m-%d %H:%M:%S").to_string()
}
