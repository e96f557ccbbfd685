//! The function `users`: what operators see of tracked users, and what they may do with them.

use berth::app::App;
use berth::connections::operations::{ListPosition, UserChange};
use berth::http::fields::{boolean, timestamp, user_id};
use berth::http::{Call, Fields, Input, Problem, Reply, paging, serve};
use berth::ids::UserId;
use lambda_http::{Body, Request, Response};
use serde_json::json;

/// Answers the routes below `/api/snaptrade/users`.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve(app, request, |call| answer(app, call)).await
}

async fn answer(app: &App, call: Call) -> Result<Reply, Problem> {
    call.require_operator()?;
    match (call.method().as_str(), call.route()) {
        ("GET", "/api/snaptrade/users") => list(app, &call).await,
        ("POST", "/api/snaptrade/users") => add(app, &call).await,
        ("POST", "/api/snaptrade/users/delete-oldest") => {
            Reply::ok(&call.connections(app).delete_oldest().await?)
        }
        ("PATCH", "/api/snaptrade/users/{user_id}") => change(app, &call).await,
        ("DELETE", "/api/snaptrade/users/{user_id}") => {
            let user = call.user_in_path()?;
            Reply::ok(&call.connections(app).delete(&user).await?)
        }
        ("POST", "/api/snaptrade/users/{user_id}/recreate") => {
            let user = call.user_in_path()?;
            Reply::created(&call.connections(app).recreate(&user).await?)
        }
        ("POST", "/api/snaptrade/users/{user_id}/reset-secret") => {
            let user = call.user_in_path()?;
            call.connections(app).reset_secret(&user).await?;
            Reply::ok(&json!({"user_id": user, "reset": true}))
        }
        _ => Err(call.not_served()),
    }
}

async fn list(app: &App, call: &Call) -> Result<Reply, Problem> {
    let page = call.page::<ListPosition>()?;
    let users = call.connections(app).list(page.limit, page.cursor).await?;
    let next_cursor = users.next.as_ref().map(paging::cursor).transpose()?;
    Reply::ok(&json!({"data": users.users, "next_cursor": next_cursor}))
}

/// A user to be added to tracking.
struct Addition {
    user_id: UserId,
    change: UserChange,
}

impl Input for Addition {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let user_id = fields.required("user_id", user_id);
        let change = read_change(fields);
        Some(Self {
            user_id: user_id?,
            change: change?,
        })
    }
}

async fn add(app: &App, call: &Call) -> Result<Reply, Problem> {
    let addition: Addition = call.body()?;
    let (user, added) = call
        .connections(app)
        .add(&addition.user_id, addition.change)
        .await?;
    if added {
        Reply::created(&user)
    } else {
        Reply::ok(&user)
    }
}

struct ChangeBody(UserChange);

impl Input for ChangeBody {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        read_change(fields).map(Self)
    }
}

fn read_change(fields: &mut Fields<'_>) -> Option<UserChange> {
    let protected = fields.optional("protected", boolean);
    let created_at = fields.optional("created_at", timestamp);
    Some(UserChange {
        protected: protected?,
        created_at: created_at?,
    })
}

async fn change(app: &App, call: &Call) -> Result<Reply, Problem> {
    let user = call.user_in_path()?;
    let ChangeBody(change) = call.body()?;
    Reply::ok(&call.connections(app).change(&user, change).await?)
}
