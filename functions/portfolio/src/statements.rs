//! Statements that users bring.

use berth::app::App;
use berth::http::fields::{one_of, text, text_of, timestamp, user_id};
use berth::http::{Call, Fields, Input, InputFault, Problem, Reply};
use berth::ids::UserId;
use berth::portfolio::provider::{PortfolioAccountId, Provider};
use berth::portfolio::statements::{MAX_ACCOUNTS, Statement, StatementOf, read_csv};
use berth::portfolio::userdata::UserData;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use serde_json::json;

use crate::input::{self, Whom};

/// Longest name or number that is taken, in characters.
const NAME_MAX_CHARS: usize = 100;

/// Most faults of a file that are told.
const FAULTS_TOLD: usize = 50;

/// The body.
struct Brought {
    user_id: Option<UserId>,
    institution: String,
    name: Option<String>,
    number: Option<String>,
    kind: Option<String>,
    currency: Option<String>,
    as_of: Option<Timestamp>,
    content: String,
}

impl Input for Brought {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let user_id = fields.optional("user_id", user_id);
        let institution = fields.required("institution", text_of(1..=NAME_MAX_CHARS));
        let name = fields.optional("name", text_of(1..=NAME_MAX_CHARS));
        let number = fields.optional("number", text_of(1..=NAME_MAX_CHARS));
        let kind = fields.optional("type", text_of(1..=NAME_MAX_CHARS));
        let currency = fields.optional("currency", text_of(3..=3));
        let as_of = fields.optional("as_of", timestamp);
        let format = fields.or("format", (), one_of(&[("csv", ())]));
        let content = fields.required("content", text);
        format?;
        Some(Self {
            user_id: user_id?,
            institution: institution?,
            name: name?,
            number: number?,
            kind: kind?,
            currency: currency?,
            as_of: as_of?,
            content: content?,
        })
    }
}

/// `POST /api/portfolio/statements`: 201 where the account is new, 200 where an earlier statement gave way.
pub(crate) async fn bring(app: &App, call: &Call) -> Result<Reply, Problem> {
    let brought: Brought = call.body()?;
    let subject = call.subject(brought.user_id)?;
    crate::allowed(app, &subject)?;
    let now = call.connections(app).runner().now();
    if brought.as_of.is_some_and(|as_of| as_of > now) {
        return Err(fault("/as_of", "must not be in the future"));
    }
    let contents = read_csv(&brought.content, brought.currency.as_deref()).map_err(|faults| {
        let told = faults.iter().take(FAULTS_TOLD).map(|fault| InputFault {
            pointer: "/content".to_owned(),
            detail: fault.to_string(),
        });
        Problem::invalid(told.collect())
    })?;
    let of = StatementOf {
        institution: brought.institution,
        name: brought.name,
        number: brought.number,
        kind: brought.kind,
        as_of: brought.as_of.unwrap_or(now),
    };
    let statement = Statement::new(of, contents, now);
    let id = statement.id();
    let tenant = &call.identity.tenant;
    let stem = subject.stem();
    let data = UserData::new(app.store(), tenant, &stem);
    // What is read of SnapTrade's does not matter here.
    let nobody = berth::ids::UpstreamId::from_snaptrade("");
    let known = data.snapshot(&nobody, now).await?.statements;
    let before = known
        .iter()
        .find(|known| known.account_id == statement.account_id);
    if before.is_none() && known.len() >= MAX_ACCOUNTS {
        return Err(fault("/institution", "would be one account too many"));
    }
    if before.is_some_and(|before| before.as_of > statement.as_of) {
        return Err(fault(
            "/as_of",
            "must not be before that of the statement which is there already",
        ));
    }
    data.put_statement(&statement, now).await?;
    let status = match before {
        Some(_) => StatusCode::OK,
        None => StatusCode::CREATED,
    };
    Reply::json(
        status,
        &json!({
            "account_id": id, "positions": statement.positions.len(), "balances": statement.balances.len(),
            "as_of": statement.as_of,
        }),
    )
}

/// `DELETE /api/portfolio/statements/{account_id}`.
pub(crate) async fn take_away(app: &App, call: &Call) -> Result<Reply, Problem> {
    let Whom { user_id } = call.query()?;
    let subject = call.subject(user_id)?;
    let account = call
        .param("account_id")
        .and_then(PortfolioAccountId::parse)
        .filter(|account| account.provider() == Provider::Statement)
        .ok_or_else(input::no_such_account)?;
    let now = call.connections(app).runner().now();
    let stem = subject.stem();
    let data = UserData::new(app.store(), &call.identity.tenant, &stem);
    if data.delete_statement(account.account(), now).await? {
        Reply::ok(&json!({"account_id": account, "deleted": true}))
    } else {
        Err(input::no_such_account())
    }
}

fn fault(pointer: &str, detail: &str) -> Problem {
    Problem::invalid(vec![InputFault {
        pointer: pointer.to_owned(),
        detail: detail.to_owned(),
    }])
}
