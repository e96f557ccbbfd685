//! What each route takes and answers.

use berth::http::Code;
use berth::http::routes::Route;
use serde_json::{Value, json};

use crate::schema::{boolean, has, may_have, object, one_of, reference, text, text_of, time, user_id};

/// What a route does.
pub(crate) struct Operation {
    pub(crate) id: &'static str,
    pub(crate) tag: &'static str,
    pub(crate) summary: &'static str,
    /// Parameters of the query and headers; those in the path are the route's.
    pub(crate) parameters: Vec<Value>,
    pub(crate) body: Option<Body>,
    /// Status, what it means, and the schema of the body.
    pub(crate) answers: Vec<(u16, &'static str, Value)>,
    /// Problems, beside those that every route may answer.
    pub(crate) codes: &'static [Code],
}

/// A request's body.
pub(crate) struct Body {
    pub(crate) required: bool,
    pub(crate) schema: Value,
}

impl Operation {
    fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            codes: &[],
        }
    }

    fn takes(mut self, parameters: impl IntoIterator<Item = Value>) -> Self {
        self.parameters.extend(parameters);
        self
    }

    /// With a body that may be left out.
    fn may_take_body(mut self, schema: Value) -> Self {
        self.body = Some(Body {
            required: false,
            schema,
        });
        self
    }

    /// With a body.
    fn takes_body(mut self, schema: Value) -> Self {
        self.body = Some(Body {
            required: true,
            schema,
        });
        self
    }

    fn answers(mut self, status: u16, description: &'static str, schema: &str) -> Self {
        self.answers.push((status, description, reference(schema)));
        self
    }

    fn refuses(mut self, codes: &'static [Code]) -> Self {
        self.codes = codes;
        self
    }
}

/// What registering and holding a place may be refused for.
const PLACE: &[Code] = &[
    Code::ConnectionLimitReached,
    Code::OperationInProgress,
    Code::UserExistsUpstream,
    Code::NotRegistered,
    Code::SecretInvalid,
    Code::DeletionPending,
];

/// What acting for a user at SnapTrade may be refused for.
const ACTING: &[Code] = &[
    Code::FeatureDisabled,
    Code::ConsentRequired,
    Code::NotFound,
    Code::NotRegistered,
    Code::ConnectionLimitReached,
    Code::OperationInProgress,
    Code::UserExistsUpstream,
    Code::SecretInvalid,
    Code::ConnectionDisabled,
    Code::ReconnectRequired,
    Code::DeletionPending,
    Code::NotSyncedYet,
];

/// What an operator's change of a user may be refused for.
const CHANGING: &[Code] = &[
    Code::NotFound,
    Code::NotRegistered,
    Code::ConnectionLimitReached,
    Code::OperationInProgress,
    Code::UserExistsUpstream,
    Code::SecretInvalid,
    Code::DeletionPending,
];

/// What a run of the access sync, or a decision about it, may be refused for.
const ACCESS: &[Code] = &[
    Code::FeatureDisabled,
    Code::NotFound,
    Code::OperationInProgress,
    Code::PlanStale,
];

fn query(name: &str, description: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

/// The parameters of a list that is answered in parts.
fn paging() -> [Value; 2] {
    [
        query(
            "limit",
            "How many at most.",
            &json!({"type": "integer", "minimum": 1, "maximum": 500, "default": 50}),
        ),
        query(
            "cursor",
            "Where to go on: the next_cursor of the part before.",
            &text(),
        ),
    ]
}

fn whom() -> Value {
    query("user_id", "Another user, for operators.", &user_id())
}

fn account() -> Value {
    query("account_id", "Only this account.", &text_of(1, 128))
}

/// A body that may name the user.
fn named_user() -> Value {
    object([may_have("user_id", user_id())])
}

/// What the route does; `None` for one that is not described.
pub(crate) fn of(route: &Route) -> Option<Operation> {
    let operation =
        match (route.method.as_str(), route.path) {
            ("GET", "/") => Operation::new("root", "service", "Says that Berth is up, and its version.")
                .answers(200, "It is up.", "Version"),
            ("GET", "/health") => Operation::new("health", "service", "Checks what requests depend on.")
                .answers(200, "All is well.", "Health")
                .answers(503, "Something is broken.", "Health"),
            ("GET", "/openapi.json") => Operation::new("openapi", "service", "Gives out this document.")
                .answers(200, "This document.", "OpenApi"),
            _ => {
                return limit(route)
                    .or_else(|| user_data(route))
                    .or_else(|| access(route));
            }
        };
    Some(operation)
}

fn limit(route: &Route) -> Option<Operation> {
    let created_at = || may_have("created_at", time());
    let protected = || may_have("protected", boolean());
    let operation = match (route.method.as_str(), route.path) {
        ("GET", "/api/snaptrade/status") => Operation::new("status", "limit", "How the limit stands.")
            .answers(
                200,
                "How it stands; operators see tracking beside SnapTrade's list.",
                "Status",
            ),
        ("POST", "/api/snaptrade/register") => Operation::new(
            "register",
            "limit",
            "Registers a user, making room where there is none.",
        )
        .may_take_body(named_user())
        .answers(200, "The user was registered before.", "Registered")
        .answers(201, "The user is registered now.", "Registered")
        .refuses(PLACE),
        ("POST", "/api/snaptrade/handle-connection-limit") => Operation::new(
            "handleConnectionLimit",
            "limit",
            "Makes room where there is none, and keeps the place for the caller.",
        )
        .may_take_body(named_user())
        .answers(200, "The place is kept, or was not needed.", "Held")
        .refuses(PLACE),
        ("POST", "/api/snaptrade/sync") => Operation::new(
            "syncConnections",
            "limit",
            "Brings tracking in line with SnapTrade's list.",
        )
        .answers(200, "What was changed.", "Synced")
        .refuses(&[Code::OperationInProgress]),
        ("GET", "/api/snaptrade/users") => {
            Operation::new("listUsers", "users", "The tracked users, oldest first.")
                .takes(paging())
                .answers(200, "Some of them.", "TrackedUsers")
        }
        ("POST", "/api/snaptrade/users") => {
            Operation::new("addUser", "users", "Tracks a user whom SnapTrade knows already.")
                .takes_body(object([has("user_id", user_id()), created_at(), protected()]))
                .answers(200, "The user was tracked before.", "TrackedUser")
                .answers(201, "The user is tracked now.", "TrackedUser")
                .refuses(CHANGING)
        }
        ("PATCH", "/api/snaptrade/users/{user_id}") => {
            Operation::new("changeUser", "users", "Protects a user, or corrects its age.")
                .may_take_body(object([created_at(), protected()]))
                .answers(200, "The user as it is now.", "TrackedUser")
                .refuses(CHANGING)
        }
        ("DELETE", "/api/snaptrade/users/{user_id}") => {
            Operation::new("deleteUser", "users", "Deletes a user, at SnapTrade and here.")
                .answers(200, "It is deleted.", "Deleted")
                .refuses(CHANGING)
        }
        ("POST", "/api/snaptrade/users/delete-oldest") => Operation::new(
            "deleteOldestUser",
            "users",
            "Deletes the oldest user that is not protected.",
        )
        .answers(200, "It is deleted.", "Deleted")
        .refuses(CHANGING),
        ("POST", "/api/snaptrade/users/{user_id}/recreate") => Operation::new(
            "recreateUser",
            "users",
            "Deletes a user at SnapTrade and registers it anew.",
        )
        .answers(201, "It is registered anew.", "Registered")
        .refuses(CHANGING),
        ("POST", "/api/snaptrade/users/{user_id}/reset-secret") => {
            Operation::new("resetUserSecret", "users", "Gets a new secret for a user.")
                .answers(200, "It has a new one.", "SecretReset")
                .refuses(CHANGING)
        }
        _ => return None,
    };
    Some(operation)
}

fn user_data(route: &Route) -> Option<Operation> {
    let operation = match (route.method.as_str(), route.path) {
        ("POST", "/api/snaptrade/connection-url") => Operation::new(
            "connectionUrl",
            "connections",
            "Hands out a link to the connection portal.",
        )
        .may_take_body(object([
            may_have("user_id", user_id()),
            may_have(
                "connection_type",
                one_of(&["trade", "read", "trade-if-available"]),
            ),
            may_have("broker", text_of(1, 64)),
            may_have("redirect_uri", text()),
            may_have("reconnect", text_of(1, 128)),
            may_have("immediate_redirect", boolean()),
            may_have("dark_mode", boolean()),
            may_have("show_close_button", boolean()),
            may_have("locale", text()),
        ]))
        .answers(200, "The link, which works for five minutes.", "PortalLink")
        .refuses(ACTING),
        ("POST", "/api/snaptrade/callback") => Operation::new(
            "callback",
            "connections",
            "Says how a visit to the portal went, as SnapTrade sees it.",
        )
        .may_take_body(object([
            may_have("user_id", user_id()),
            may_have("session_id", text_of(0, 128)),
            may_have("connection_id", text_of(0, 128)),
            may_have("status", text_of(0, 128)),
        ]))
        .answers(200, "How it went.", "VisitOutcome")
        .refuses(ACTING),
        ("POST", "/api/snaptrade/refresh") => Operation::new(
            "refresh",
            "portfolio",
            "Reads accounts, balances and positions from SnapTrade now.",
        )
        .may_take_body(object([
            may_have("user_id", user_id()),
            may_have("account_id", text_of(1, 128)),
            may_have("connection_id", text_of(1, 128)),
        ]))
        .answers(200, "The accounts, and how fresh they are.", "Refreshed")
        .refuses(ACTING),
        ("POST", "/api/snaptrade/webhook") => Operation::new(
            "snaptradeWebhook",
            "webhooks",
            "Takes in an event of SnapTrade's, signed in the header Signature.",
        )
        .takes([json!({"name": "Signature", "in": "header", "schema": text()})])
        .takes_body(json!({"type": "object"}))
        .answers(200, "It was taken in, now or before.", "EventReceived")
        .refuses(&[Code::InvalidSignature]),
        ("GET", "/api/snaptrade/connections") => Operation::new(
            "listConnections",
            "connections",
            "The user's brokerage connections.",
        )
        .takes([whom()])
        .answers(200, "They.", "Connections")
        .refuses(ACTING),
        ("DELETE", "/api/snaptrade/connections/{connection_id}") => Operation::new(
            "deleteConnection",
            "connections",
            "Deletes a brokerage connection.",
        )
        .takes([whom()])
        .answers(202, "SnapTrade deletes it.", "ConnectionDeleted")
        .refuses(ACTING),
        ("GET", "/api/snaptrade/brokerages") => Operation::new(
            "listBrokerages",
            "connections",
            "What can be connected, and whether it can trade.",
        )
        .answers(200, "They.", "Brokerages")
        .refuses(ACTING),
        ("GET", "/api/portfolio/accounts") => portfolio("listAccounts", "The user's accounts.", "Accounts"),
        ("GET", "/api/portfolio/positions") => {
            portfolio("listPositions", "What the accounts hold.", "Positions")
        }
        ("GET", "/api/portfolio/balances") => {
            portfolio("listBalances", "The cash in the accounts.", "Balances")
        }
        ("GET", "/api/portfolio/performance") => {
            portfolio("performance", "How the accounts did.", "Performances")
        }
        ("GET", "/api/portfolio/transactions") => {
            let date = json!({"type": "string", "format": "date"});
            portfolio(
                "listTransactions",
                "What happened in the accounts, newest first.",
                "Transactions",
            )
            .takes(paging())
            .takes([
                query("start_date", "None before this day.", &date),
                query("end_date", "None after this day.", &date),
                query("type", "Only these kinds, comma-separated.", &text_of(1, 512)),
            ])
        }
        ("GET", "/api/portfolio/mode") => Operation::new(
            "portfolioMode",
            "portfolio",
            "What the user's portfolio stands on.",
        )
        .takes([whom()])
        .answers(200, "The mode.", "Mode")
        .refuses(ACTING),
        ("GET", "/api/portfolio/changes") => changes(),
        ("GET", "/api/portfolio/history") => {
            let date = json!({"type": "string", "format": "date"});
            portfolio("history", "What the accounts were worth, day by day.", "History").takes([
                query(
                    "start_date",
                    "None before this day; 90 days before the last one otherwise.",
                    &date,
                ),
                query("end_date", "None after this day.", &date),
            ])
        }
        ("POST", "/api/portfolio/statements") => Operation::new(
            "bringStatement",
            "portfolio",
            "Takes a statement of an account that SnapTrade does not reach.",
        )
        .takes_body(object([
            may_have("user_id", user_id()),
            has("institution", text_of(1, 100)),
            may_have("name", text_of(1, 100)),
            may_have("number", text_of(1, 100)),
            may_have("type", text_of(1, 100)),
            may_have("currency", text_of(3, 3)),
            may_have("as_of", time()),
            may_have("format", one_of(&["csv"])),
            has("content", text()),
        ]))
        .answers(200, "It takes the place of an earlier one.", "StatementTaken")
        .answers(201, "The account is new.", "StatementTaken")
        .refuses(ACTING),
        ("DELETE", "/api/portfolio/statements/{account_id}") => Operation::new(
            "takeStatementAway",
            "portfolio",
            "Takes an account away of which a statement was brought.",
        )
        .takes([whom()])
        .answers(200, "It is gone.", "StatementDeleted")
        .refuses(ACTING),
        ("GET", "/api/snaptrade/dead-letters") => Operation::new(
            "listEventsGivenUp",
            "webhooks",
            "SnapTrade's events that were given up, the first ones first; for operators.",
        )
        .takes(paging())
        .answers(200, "Some of them.", "EventsGivenUp"),
        ("POST", "/api/snaptrade/dead-letters/{webhook_id}/replay") => Operation::new(
            "replayEvent",
            "webhooks",
            "Works on an event again; for operators.",
        )
        .answers(200, "It was worked on.", "EventReplayed")
        .refuses(&[Code::NotFound]),
        _ => return None,
    };
    Some(operation)
}

fn changes() -> Operation {
    let mut operation = Operation::new(
        "changes",
        "portfolio",
        "What has changed since the tag in If-None-Match, or since a time or a tag.",
    )
    .takes([
        whom(),
        query("since", "A time, or an etag that this route gave.", &text()),
    ])
    .answers(200, "What has changed, the newest first.", "Changes")
    .refuses(ACTING);
    operation.answers.push((304, "Nothing has changed.", Value::Null));
    operation
}

fn portfolio(id: &'static str, summary: &'static str, schema: &str) -> Operation {
    Operation::new(id, "portfolio", summary)
        .takes([whom(), account()])
        .answers(200, "As it is stored, and how fresh it is.", schema)
        .refuses(ACTING)
}

fn access(route: &Route) -> Option<Operation> {
    let run = |id, summary| {
        Operation::new(id, "access", summary)
            .answers(200, "The run's report.", "AccessReport")
            .refuses(ACCESS)
    };
    let operation = match (route.method.as_str(), route.path) {
        ("POST", "/api/access/sync") => run("syncAccess", "Runs the access sync.").takes([dry_run()]),
        ("POST", "/sync") => run(
            "syncAccessAlias",
            "The same, by the path that its predecessor had.",
        )
        .takes([dry_run()]),
        ("POST", "/api/access/webhook") => Operation::new(
            "memberpressWebhook",
            "webhooks",
            "Takes in an event of MemberPress's as a hint to fetch its transaction anew.",
        )
        .takes([json!({"name": "MEMBERPRESS-WEBHOOK-KEY", "in": "header", "schema": text()})])
        .takes_body(json!({"type": "object"}))
        .answers(202, "It was taken in.", "HintReceived")
        .refuses(&[Code::InvalidSignature]),
        ("GET", "/api/access/plan") => Operation::new(
            "planAccess",
            "access",
            "What would be done now, kept for approval.",
        )
        .answers(200, "The plan.", "AccessPlan")
        .refuses(ACCESS),
        ("POST", "/api/access/plans/{id}/approve") => run("approvePlan", "Does exactly what a plan says."),
        ("GET", "/api/access/reviews") => {
            Operation::new("listReviews", "access", "What a person has to look at.")
                .takes(paging())
                .answers(200, "Some of it.", "Reviews")
                .refuses(ACCESS)
        }
        ("POST", "/api/access/reviews/{id}") => {
            Operation::new("decideReview", "access", "Decides about a review.")
                .takes_body(object([
                    has("action", one_of(&["retry", "correct", "dismiss"])),
                    may_have("username", text()),
                ]))
                .answers(200, "The review.", "Review")
                .refuses(ACCESS)
        }
        ("GET", "/api/access/dead-letters") => {
            Operation::new("listDeadLetters", "access", "What was given up.")
                .takes(paging())
                .answers(200, "Some of it.", "DeadLetters")
                .refuses(ACCESS)
        }
        ("POST", "/api/access/dead-letters/{id}/replay") => Operation::new(
            "replayDeadLetter",
            "access",
            "Lets something be tried again that was given up.",
        )
        .answers(200, "It is tried again.", "DeadLetter")
        .refuses(ACCESS),
        ("GET", "/api/access/scripts/{script_id}") => {
            Operation::new("exportScript", "access", "A script's master data.")
                .answers(200, "They.", "MasterData")
                .refuses(ACCESS)
        }
        ("PUT", "/api/access/scripts/{script_id}") => Operation::new(
            "importScript",
            "access",
            "Takes over master data of the program that Berth replaces.",
        )
        .takes_body(json!({"type": "object"}))
        .answers(200, "What was taken over.", "Imported")
        .refuses(ACCESS),
        ("POST", "/api/access/revocations") => run("revokeTransaction", "Takes a transaction back.")
            .takes_body(object([
                has("transaction_id", json!({"type": ["string", "integer"]})),
                has("reason", one_of(&["refund", "chargeback", "operator"])),
            ])),
        ("POST", "/api/access/resync") => {
            run("resyncProduct", "Reads all of a product's transactions again.").takes_body(object([has(
                "product_id",
                json!({"type": ["string", "integer"]}),
            )]))
        }
        ("POST", "/api/access/repair") => run(
            "repairAccess",
            "Gives back access that was taken though it is paid for.",
        ),
        _ => return None,
    };
    Some(operation)
}

fn dry_run() -> Value {
    query("dry_run", "Only says what would be done.", &boolean())
}
