//! What callers may say.

use berth::http::fields::{text_of, timestamp, user_id};
use berth::http::{Call, Code, Fields, Input, Problem};
use berth::ids::UserId;
use berth::portfolio::changes::{Since, Tag};
use berth::portfolio::overview::Portfolio;
use berth::portfolio::provider::PortfolioAccountId;
use berth::portfolio::transactions::Filter;
use jiff::civil::Date;
use serde_json::Value;

/// Longest id of an account or a connection that is taken, in characters.
const ID_MAX_CHARS: usize = 128;

/// Longest list of kinds of transactions, in characters.
const KINDS_MAX_CHARS: usize = 512;

/// A portfolio, and the account of it that is asked for.
pub(crate) struct Wanted {
    pub(crate) account: Option<PortfolioAccountId>,
    pub(crate) portfolio: Portfolio,
}

/// The user whom a query names.
pub(crate) struct Whom {
    pub(crate) user_id: Option<UserId>,
}

impl Input for Whom {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let user_id = fields.optional("user_id", user_id);
        Some(Self { user_id: user_id? })
    }
}

/// The account that a query names, by whatever text.
struct NamedAccount(Option<String>);

impl Input for NamedAccount {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        fields.optional("account_id", text_of(1..=ID_MAX_CHARS)).map(Self)
    }
}

/// Which transactions a query asks for.
pub(crate) struct Transactions(pub(crate) Filter);

impl Input for Transactions {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let start = fields.optional("start_date", date);
        let end = fields.optional("end_date", date);
        let kinds = fields.optional("type", text_of(1..=KINDS_MAX_CHARS));
        if let (Some(Some(start)), Some(Some(end))) = (start, end)
            && start > end
        {
            fields.fault("end_date", "must not be before start_date");
        }
        let kinds = kinds?.unwrap_or_default();
        Some(Self(Filter {
            start: start?,
            end: end?,
            kinds: kinds
                .split(',')
                .map(|kind| kind.trim().to_ascii_uppercase())
                .filter(|kind| !kind.is_empty())
                .collect(),
        }))
    }
}

/// Since when a query asks for changes.
pub(crate) struct ChangesSince(pub(crate) Option<Since>);

impl Input for ChangesSince {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let since = fields.optional("since", |value| {
            let tag = value.as_str().and_then(Tag::parse).map(Since::Tag);
            let moment = || timestamp(value).ok().map(Since::Moment);
            tag.or_else(moment)
                .ok_or_else(|| "must be a time in RFC 3339, or an etag that this route gave".to_owned())
        });
        since.map(Self)
    }
}

fn date(value: &Value) -> Result<Date, String> {
    value
        .as_str()
        .filter(|text| text.len() == "2026-01-31".len())
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| "must be a date such as 2026-01-31".to_owned())
}

/// Both of two parts of a query, or the faults of both.
///
/// # Errors
/// [`Problem`] `invalid_request` with every fault.
pub(crate) fn both<A, B>(one: Result<A, Problem>, other: Result<B, Problem>) -> Result<(A, B), Problem> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(one), Err(other)) => Err(Problem::invalid(
            one.errors().iter().chain(other.errors()).cloned().collect(),
        )),
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
    }
}

/// The account that the query names, where it names one.
///
/// # Errors
/// [`Problem`] `not_found` where no account can have this id, `invalid_request` where it is none at all.
pub(crate) fn account(call: &Call) -> Result<Option<PortfolioAccountId>, Problem> {
    let NamedAccount(text) = call.query()?;
    text.map(|text| PortfolioAccountId::parse(&text).ok_or_else(no_such_account))
        .transpose()
}

/// That the user has no such account.
pub(crate) fn no_such_account() -> Problem {
    Problem::new(Code::NotFound).detail("The user has no such account.")
}

/// Whether `text` can be an id.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=ID_MAX_CHARS).contains(&text.chars().count())
}
