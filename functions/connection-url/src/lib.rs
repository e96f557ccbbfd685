//! The function `connection-url`: the link to SnapTrade's portal, in which a user connects a brokerage, and what came of
//! the visit there.

use berth::app::App;
use berth::http::fields::{boolean, one_of, text_of, user_id};
use berth::http::{Call, Code, Fields, Input, InputFault, Problem, Reply, serve};
use berth::ids::UserId;
use berth::portfolio::portal::{Broker, Locale, Portal, PortalError, PortalWish, Redirect, Said};
use berth::snaptrade::{ConnectionId, ConnectionType};
use lambda_http::{Body, Request, Response};
use serde_json::{Value, json};

/// Longest id of a connection or a visit that is taken, in characters.
const ID_MAX_CHARS: usize = 128;

/// Answers `POST /api/snaptrade/connection-url` and `POST /api/snaptrade/callback`.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve(app, request, |call| answer(app, call)).await
}

async fn answer(app: &App, call: Call) -> Result<Reply, Problem> {
    match call.route() {
        "/api/snaptrade/connection-url" => link(app, &call).await,
        "/api/snaptrade/callback" => outcome(app, &call).await,
        _ => Err(call.not_served()),
    }
}

async fn link(app: &App, call: &Call) -> Result<Reply, Problem> {
    let (wanted, redirect) = faults_together(call.body::<Wanted>(), redirect(app, call))?;
    let subject = call.subject(wanted.user_id)?;
    let may_trade = app.config().flags.trade_execution.is_on_for(&subject);
    let connection_type = match wanted.connection_type.clone() {
        None if may_trade => ConnectionType::Trade,
        None | Some(ConnectionType::Read) => ConnectionType::Read,
        Some(_) if !may_trade => {
            let detail = "Trading is switched off; ask for a connection of type read.";
            return Err(Problem::new(Code::FeatureDisabled).detail(detail));
        }
        Some(other) => other,
    };
    let wish = PortalWish {
        connection_type: Some(connection_type),
        or_read: wanted.connection_type.is_none(),
        redirect,
        ..wanted.wish
    };
    let connections = call.connections(app);
    let entry = connections.runner().entry(&subject.stem()).await?;
    let portal = Portal::new(app, &connections, call.identity.tenant.clone());
    let link = portal
        .link(entry, &wish)
        .await
        .map_err(|error| problem(error, &wish))?;
    let mut answer = json!({
        "connection_url": link.url,
        "session_id": link.session_id,
        "expires_at": link.expires_at,
        "connection_type": link.connection_type,
    });
    if let (Some(evicted), Some(members)) = (link.evicted, answer.as_object_mut()) {
        members.insert("evicted".to_owned(), json!(evicted));
    }
    Reply::ok(&answer)
}

async fn outcome(app: &App, call: &Call) -> Result<Reply, Problem> {
    let CallbackBody { user_id, said } = call.body()?;
    let subject = call.subject(user_id)?;
    let connections = call.connections(app);
    let user = connections.runner().entry(&subject.stem()).await?.user;
    let portal = Portal::new(app, &connections, call.identity.tenant.clone());
    let outcome = portal
        .outcome(user, &said)
        .await
        .map_err(|error| problem(error, &PortalWish::default()))?;
    Reply::ok(&outcome)
}

fn problem(error: PortalError, wish: &PortalWish) -> Problem {
    match error {
        PortalError::Failure(failure) => failure.into(),
        PortalError::Snaptrade(error) => error.into(),
        PortalError::NoSuchConnection => {
            Problem::new(Code::NotFound).detail("The user has no such connection.")
        }
        PortalError::NotOffered(error) => {
            let pointer = if wish.broker.is_some() {
                "/broker"
            } else {
                "/reconnect"
            };
            let fault = InputFault {
                pointer: pointer.to_owned(),
                detail: "is not offered by SnapTrade with this connection_type".to_owned(),
            };
            Problem::invalid(vec![fault]).because(error)
        }
    }
}

/// The body of a request for a link, but for the redirect.
#[derive(Debug)]
struct Wanted {
    user_id: Option<UserId>,
    connection_type: Option<ConnectionType>,
    wish: PortalWish,
}

impl Input for Wanted {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let user_id = fields.optional("user_id", user_id);
        let connection_type = fields.optional(
            "connection_type",
            one_of(&[
                ("trade", ConnectionType::Trade),
                ("read", ConnectionType::Read),
                ("trade-if-available", ConnectionType::TradeIfAvailable),
            ]),
        );
        let broker = fields.optional("broker", |value| {
            value
                .as_str()
                .and_then(Broker::parse)
                .ok_or_else(|| "must be a brokerage's slug such as ALPACA".to_owned())
        });
        let reconnect = fields.optional("reconnect", connection_id);
        let immediate_redirect = fields.optional("immediate_redirect", boolean);
        let dark_mode = fields.optional("dark_mode", boolean);
        let show_close_button = fields.optional("show_close_button", boolean);
        let locale = fields.optional("locale", one_of(&Locale::CHOICES));
        Some(Self {
            user_id: user_id?,
            connection_type: connection_type?,
            wish: PortalWish {
                connection_type: None,
                or_read: false,
                broker: broker?,
                redirect: None,
                reconnect: reconnect?,
                immediate_redirect: immediate_redirect?,
                dark_mode: dark_mode?,
                show_close_button: show_close_button?,
                locale: locale?,
            },
        })
    }
}

/// The body's redirect. It is read apart, because which ones are allowed is a setting.
fn redirect(app: &App, call: &Call) -> Result<Option<Redirect>, Problem> {
    struct Given(Option<Value>);
    impl Input for Given {
        fn read(fields: &mut Fields<'_>) -> Option<Self> {
            fields
                .optional("redirect_uri", |value| Ok(value.clone()))
                .map(Self)
        }
    }
    let Given(Some(given)) = call.body()? else {
        return Ok(None);
    };
    let parsed = match &given {
        Value::String(text) => Redirect::parse(text, app.config()),
        _ => Err("must be a string".to_owned()),
    };
    parsed.map(Some).map_err(|detail| {
        Problem::invalid(vec![InputFault {
            pointer: "/redirect_uri".to_owned(),
            detail,
        }])
    })
}

/// Both values, or the faults of both.
fn faults_together<A, B>(one: Result<A, Problem>, other: Result<B, Problem>) -> Result<(A, B), Problem> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Ok(_), Err(problem)) | (Err(problem), Ok(_)) => Err(problem),
        (Err(one), Err(other)) => {
            let mut faults = one.errors().to_vec();
            // A body that cannot be read at all is one fault, however often it is looked at.
            let more = other
                .errors()
                .iter()
                .filter(|fault| !one.errors().contains(fault));
            faults.extend(more.cloned());
            Err(Problem::invalid(faults))
        }
    }
}

/// The body of a question for the outcome of a visit.
struct CallbackBody {
    user_id: Option<UserId>,
    said: Said,
}

impl Input for CallbackBody {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let user_id = fields.optional("user_id", user_id);
        // Which visit it was makes no difference to what SnapTrade lists.
        let session_id = fields.optional("session_id", text_of(0..=ID_MAX_CHARS));
        let connection_id = fields.optional("connection_id", text_of(0..=ID_MAX_CHARS));
        let status = fields.optional("status", text_of(0..=ID_MAX_CHARS));
        session_id?;
        Some(Self {
            user_id: user_id?,
            said: Said {
                connection_id: connection_id?.map(ConnectionId::new),
                status: status?,
            },
        })
    }
}

fn connection_id(value: &Value) -> Result<ConnectionId, String> {
    text_of(1..=ID_MAX_CHARS)(value).map(ConnectionId::new)
}
