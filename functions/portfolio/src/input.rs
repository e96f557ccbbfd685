//! What callers may say.

use berth::http::fields::{text_of, user_id};
use berth::http::{Call, Code, Fields, Input, Problem};
use berth::ids::UserId;
use berth::portfolio::overview::Portfolio;
use berth::portfolio::provider::PortfolioAccountId;

/// Longest id of an account or a connection that is taken, in characters.
const ID_MAX_CHARS: usize = 128;

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
