//! Deleting a connection because its user wants it gone.
//!
//! That it is to go is written down before SnapTrade is asked. From then on it is shown as being deleted, and whoever
//! reads the user's connections next finishes what was not: a call that got no answer, or a process that died.

use std::time::Duration;

use tokio::time::Instant;

use super::connections::Deletion;
use super::reader::{ReadError, Reader, Subject};
use super::refresh::{RefreshError, defer};
use super::userdata::{Snapshot, UserData};
use crate::app::App;
use crate::connections::records::UserRecord;
use crate::connections::runner::NoSecret;
use crate::connections::{Connections, Failure};
use crate::ids::TenantId;
use crate::snaptrade::{ConnectionId, Outcome};

/// How long SnapTrade may take over all of it.
const BUDGET: Duration = Duration::from_secs(15);

/// Has `connection` of `user` deleted. Asking twice is harmless; what SnapTrade has accepted is not asked for again
/// while it is under way.
///
/// It takes two reads, one write before the call to SnapTrade and one after it; two calls more where the connection is
/// not known here yet; and two writes more where connections are counted.
///
/// # Errors
/// [`RefreshError::NotFound`] when the user has no such connection; [`RefreshError`] otherwise, when SnapTrade refused
/// for certain. Where it did not answer the deletion counts as begun.
pub async fn delete(
    app: &App,
    connections: &Connections<'_>,
    tenant: &TenantId,
    user: Option<UserRecord>,
    connection: &ConnectionId,
) -> Result<(), RefreshError> {
    let subject = Subject::open(connections, user).await?;
    let now = connections.runner().now();
    let data = UserData::new(app.store(), tenant, &subject.user.stem);
    let mut snapshot = data.snapshot(&subject.upstream, now).await?;
    let started = Instant::now();
    let deadline = started.checked_add(BUDGET).unwrap_or(started);
    let reader = Reader::new(app, connections, tenant, &subject, deadline);
    if let Some(earlier) = noted(&snapshot, connection) {
        // It is under way, or done: an id of a connection is never used again.
        if earlier.accepted_at.is_some() && !(is_listed(&snapshot, connection) && earlier.is_owed(now)) {
            return Ok(());
        }
    } else if !is_listed(&snapshot, connection) {
        Box::pin(reader.lists(&mut snapshot)).await?;
        if !is_listed(&snapshot, connection) {
            return Err(RefreshError::NotFound);
        }
    }
    let deletion = Deletion {
        connection_id: connection.clone(),
        asked_at: now,
        accepted_at: None,
    };
    let detail = [("connection", connection.as_str())];
    connections
        .note_with(
            &subject.user,
            "connection.delete",
            &detail,
            data.deletion(&deletion, now)?,
        )
        .await
        .map_err(|failure| match failure {
            // The user has just given way to another.
            Failure::NoSuchUser => Failure::NoSecret(NoSecret::NotRegistered),
            other => other,
        })?;
    if connections.counts_connections() {
        let stem = &subject.user.stem;
        connections.disconnect(stem, connection, true).await?;
    }
    match Box::pin(reader.delete(connection, now)).await {
        Ok(()) => Ok(()),
        Err(ReadError::Snaptrade(error)) if error.outcome() == Outcome::Refused && !error.is_retryable() => {
            // It will never be deleted, so it is shown as it is.
            data.forget_deletion(connection, now).await?;
            if connections.counts_connections() {
                let stem = &subject.user.stem;
                connections.disconnect(stem, connection, false).await?;
            }
            Err(ReadError::Snaptrade(error).into())
        }
        Err(ReadError::Snaptrade(error)) => {
            tracing::warn!(%error, "the deletion of a connection is left to the schedule");
            let noted = defer(&data, snapshot.refresh.as_ref(), &subject.upstream, now, now).await;
            if let Err(error) = noted {
                tracing::warn!(%error, "the schedule could not be told to hurry");
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn noted<'a>(snapshot: &'a Snapshot, connection: &ConnectionId) -> Option<&'a Deletion> {
    snapshot
        .deletions
        .iter()
        .find(|deletion| deletion.connection_id == *connection)
}

fn is_listed(snapshot: &Snapshot, connection: &ConnectionId) -> bool {
    snapshot
        .connections()
        .iter()
        .any(|listed| listed.connection_id == *connection)
}
