//! The shop: its own endpoint for all transactions, and MemberPress's REST API for them and for members.
//!
//! Both serve the rows exactly as they were put. MemberPress's list is a bare array with the totals in its headers;
//! it knows no time stamp to ask by, and a missing transaction is an error without a status, which WordPress answers
//! with 500.

use axum::response::Response;
use http::{HeaderName, StatusCode};
use serde_json::{Value, json};

use super::credentials::Verdict;
use super::operations::Operation;
use super::serve::Call;
use super::store::SalesQuery;
use crate::answer::{json_answer, set, text_answer};

/// Rows on a page where the caller does not say.
const PER_PAGE: u64 = 10;

/// Most rows on a page; WordPress refuses to be asked for more.
const LARGEST_PAGE: u64 = 100;

/// What a search may name, and the member of a row that it looks at.
const SEARCHES: [(&str, &str); 5] = [
    ("search[id]", "id"),
    ("search[member]", "user_id"),
    ("search[membership]", "product_id"),
    ("search[subscription]", "subscription_id"),
    ("search[status]", "status"),
];

/// What a list may be ordered by, beside the id.
const ORDERS: [&str; 6] = ["created_at", "expires_at", "amount", "total", "status", "user_id"];

/// Answers a call to the shop.
///
/// # Errors
/// The database's, where it is of no use.
pub(super) fn answer(call: &Call<'_>, operation: &Operation) -> rusqlite::Result<Response> {
    match call.shared.wordpress.judge(&call.parts.headers, &call.query) {
        Verdict::Welcome => {}
        Verdict::Stranger => return Ok(failed(StatusCode::UNAUTHORIZED)),
        Verdict::WrongPassword => {
            let message = "The provided password is an invalid application password.";
            return Ok(refused(StatusCode::UNAUTHORIZED, "incorrect_password", message));
        }
    }
    match operation {
        Operation::Transaction(id) => match id.parse() {
            Ok(id) => Ok(one(call.shared.store.sale(id)?, "transaction")),
            Err(_) => Ok(no_route()),
        },
        Operation::Member(id) => match id.parse() {
            Ok(id) => Ok(one(call.shared.store.member(id)?, "member")),
            Err(_) => Ok(no_route()),
        },
        Operation::TransactionPage => page(call),
        _ => since(call),
    }
}

/// Everything that was created at a time or later.
fn since(call: &Call<'_>) -> rusqlite::Result<Response> {
    let named = call.parameter(&call.shared.wordpress.since_param);
    let since = match named.or_else(|| call.parameter("since")) {
        None | Some("") => None,
        Some(text) => match text.parse() {
            Ok(seconds) => Some(seconds),
            Err(_) => return Ok(invalid("since")),
        },
    };
    Ok(rows(call.shared.store.sales_since(since)?))
}

/// One page of MemberPress's list.
fn page(call: &Call<'_>) -> rusqlite::Result<Response> {
    let number = |name: &str, default: u64| match call.parameter(name) {
        None => Some(default),
        Some(text) => text.parse::<u64>().ok().filter(|number| *number > 0),
    };
    let Some(page) = number("page", 1) else {
        return Ok(invalid("page"));
    };
    let Some(per_page) = number("per_page", PER_PAGE).filter(|number| *number <= LARGEST_PAGE) else {
        return Ok(invalid("per_page"));
    };
    let members = (SEARCHES.iter()).filter_map(|(search, member)| {
        let value = call.parameter(search)?;
        Some((*member, value.to_owned()))
    });
    let query = SalesQuery {
        members: members.collect(),
        order_by: (call.parameter("orderby"))
            .and_then(|wanted| ORDERS.into_iter().find(|known| *known == wanted)),
        descending: !(call.parameter("order")).is_some_and(|order| order.eq_ignore_ascii_case("asc")),
        offset: page.saturating_sub(1).saturating_mul(per_page),
        count: per_page,
    };
    let (total, list) = call.shared.store.sales(&query)?;
    let pages = total.div_ceil(per_page);
    let mut answer = rows(list);
    set(
        &mut answer,
        HeaderName::from_static("x-wp-total"),
        &total.to_string(),
    );
    set(
        &mut answer,
        HeaderName::from_static("x-wp-totalpages"),
        &pages.to_string(),
    );
    let link = |page: u64, relation: &str| format!("<{}>; rel=\"{relation}\"", with_page(call, page));
    let before = (page > 1).then(|| link(page.saturating_sub(1), "prev"));
    let after = (page < pages).then(|| link(page.saturating_add(1), "next"));
    let links: Vec<_> = before.into_iter().chain(after).collect();
    if !links.is_empty() {
        set(&mut answer, http::header::LINK, &links.join(", "));
    }
    Ok(answer)
}

/// The request's own address, with another page.
fn with_page(call: &Call<'_>, page: u64) -> String {
    let host = call
        .parts
        .headers
        .get(http::header::HOST)
        .and_then(|host| host.to_str().ok());
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let others = call.query.iter().filter(|(name, _)| name != "page");
    // A token stays out of what others may log.
    let others = others.filter(|(name, _)| !call.shared.wordpress.is_token(name));
    query.extend_pairs(others).append_pair("page", &page.to_string());
    let (host, path) = (host.unwrap_or_default(), call.parts.uri.path());
    format!("http://{host}{path}?{}", query.finish())
}

/// A thing by its id, to the letter, or the error that there is no such.
fn one(found: Option<String>, what: &str) -> Response {
    match found {
        Some(thing) => rows(thing),
        None => json_answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            &json!({"code": "mp_not_found", "message": format!("No {what} was found."), "data": null}),
        ),
    }
}

fn rows(body: String) -> Response {
    text_answer(StatusCode::OK, "application/json; charset=UTF-8", body)
}

/// A parameter that cannot be used.
fn invalid(parameter: &str) -> Response {
    let body = json!({
        "code": "rest_invalid_param",
        "message": format!("Invalid parameter(s): {parameter}"),
        "data": {"status": 400, "params": {parameter: "It is not valid."}},
    });
    json_answer(StatusCode::BAD_REQUEST, &body)
}

/// The answer where there is no such call.
pub(super) fn no_route() -> Response {
    let message = "No route was found matching the URL and request method.";
    refused(StatusCode::NOT_FOUND, "rest_no_route", message)
}

/// The answer of a call that fails with a status, as WordPress or what stands before it gives it.
pub(super) fn failed(status: StatusCode) -> Response {
    let (code, message) = match status.as_u16() {
        400 => ("rest_invalid_param", "Invalid parameter(s)."),
        401 | 403 => ("rest_forbidden", "Sorry, you are not allowed to do that."),
        404 => return no_route(),
        429 => ("too_many_requests", "Too many requests."),
        502..=504 => {
            let reason = status.canonical_reason().unwrap_or_default();
            let page = format!("<!DOCTYPE html><title>{reason}</title><h1>{reason}</h1>");
            return text_answer(status, "text/html; charset=UTF-8", page);
        }
        _ => (
            "internal_server_error",
            "There has been a critical error on this website.",
        ),
    };
    refused(status, code, message)
}

fn refused(status: StatusCode, code: &str, message: &str) -> Response {
    let data: Value = json!({"status": status.as_u16()});
    json_answer(status, &json!({"code": code, "message": message, "data": data}))
}
