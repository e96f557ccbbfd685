//! Working on events that were taken in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use tokio::time::Instant;

use super::inbox::{StoredEvent, key, stored};
use super::replay::mark_dead;
use super::work::{Hint, Work, decide, hint};
use crate::app::App;
use crate::connections::records::UserRecord;
use crate::connections::runner::{NoSecret, new_attempt};
use crate::connections::{Connections, Failure};
use crate::ids::{TenantId, UpstreamId};
use crate::portfolio::reader::{ReadError, Reader, Subject};
use crate::portfolio::refresh;
use crate::portfolio::userdata::{Snapshot, UserData};
use crate::snaptrade::webhook::{Event, EventKind};
use crate::snaptrade::{AccountId, ErrorKind};
use crate::store::{Expression, Key, StoreError, Transaction, Write};
use crate::telemetry::metrics::{self, Metric};

/// How often an event is tried before it is given up. The stream tries again at once, so more tries would only hold up
/// the events behind it; the schedule reads everything again anyway.
pub const MAX_ATTEMPTS: u32 = 8;

/// How long SnapTrade may take over the events of one user.
const BUDGET: Duration = Duration::from_secs(12);

/// After how long no further user's events are begun with.
const BEGINS: Duration = Duration::from_secs(8);

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It needs nothing more: it was worked on, now or before, was of no concern, or was given up.
    Done,
    /// It has to be tried again.
    Again,
}

/// The events of one user, under one id at SnapTrade.
type Group = (TenantId, Option<UpstreamId>);

/// Works on events and notes on each what came of it. The events of one user are worked on together, so that a burst of
/// them costs one reading. The result tells of each event, by its id, what became of it.
///
/// For each user it takes one read of the events as they stand and one of the user; what the events ask for; and one
/// write. Events that were worked on before ask for nothing.
pub async fn apply(app: &App, events: &[(TenantId, StoredEvent)]) -> BTreeMap<String, Applied> {
    let started = Instant::now();
    let mut groups: BTreeMap<Group, Vec<&StoredEvent>> = BTreeMap::new();
    for (tenant, event) in events {
        let group = (tenant.clone(), event.user_id.clone());
        groups.entry(group).or_default().push(event);
    }
    let mut results = BTreeMap::new();
    for ((tenant, upstream), events) in groups {
        let ids: BTreeSet<&str> = events.iter().map(|event| event.webhook_id.as_str()).collect();
        let applied = if started.elapsed() >= BEGINS {
            Applied::Again
        } else {
            Box::pin(apply_group(app, &tenant, upstream.as_ref(), &ids)).await
        };
        for id in ids {
            results.insert(id.to_owned(), applied);
        }
    }
    results
}

async fn apply_group(
    app: &App,
    tenant: &TenantId,
    upstream: Option<&UpstreamId>,
    ids: &BTreeSet<&str>,
) -> Applied {
    let pending = match pending(app, tenant, ids).await {
        Ok(pending) if pending.is_empty() => return Applied::Done,
        Ok(pending) => pending,
        Err(error) => {
            tracing::error!(%error, "events could not be read");
            return Applied::Again;
        }
    };
    let worked = work_on(app, tenant, upstream, &pending).await;
    let now = app.clock().now();
    let noted = match &worked {
        Ok(outcomes) => note_applied(app, tenant, outcomes, now).await,
        Err(reason) => {
            tracing::warn!(%reason, events = pending.len(), "events could not be worked on");
            return give_up_or_try_again(app, tenant, &pending, reason, now).await;
        }
    };
    match noted {
        Ok(()) => {
            measure(&pending, now);
            Applied::Done
        }
        Err(error) => {
            tracing::error!(%error, "it could not be noted what became of events");
            Applied::Again
        }
    }
}

/// Those of the events that nobody has worked on or given up, as they stand now.
async fn pending(app: &App, tenant: &TenantId, ids: &BTreeSet<&str>) -> Result<Vec<StoredEvent>, StoreError> {
    let keys: Vec<Key> = ids.iter().map(|id| key(tenant, id)).collect();
    let mut pending = Vec::new();
    for item in app.store().get_all(&keys, app.clock().now()).await? {
        if let Some((_, event)) = stored(&item)?
            && event.applied_at.is_none()
            && event.dead_letter.is_none()
        {
            pending.push(event);
        }
    }
    Ok(pending)
}

/// Does what the events ask for, and says of each what came of it.
///
/// # Errors
/// Why it has to be tried again, in words.
async fn work_on(
    app: &App,
    tenant: &TenantId,
    upstream: Option<&UpstreamId>,
    pending: &[StoredEvent],
) -> Result<Vec<(String, &'static str)>, String> {
    let connections = Connections::new(app, tenant.clone(), "snaptrade:webhook", false);
    let user = match upstream {
        Some(upstream) => connections
            .runner()
            .user(&upstream.stem())
            .await
            .map_err(|error| error.to_string())?,
        None => None,
    };
    let works: Vec<(String, Work)> = pending
        .iter()
        .map(|event| {
            let hint = kind(event).map_or(Hint::Nothing, |kind| hint(&kind));
            (event.webhook_id.clone(), decide(&hint, upstream, user.as_ref()))
        })
        .collect();
    let wanted: Vec<&Work> = works
        .iter()
        .map(|(_, work)| work)
        .filter(|work| !matches!(work, Work::Ignore(_)))
        .collect();
    let outcome = match user {
        Some(user) if !wanted.is_empty() => {
            let connected_at = pending
                .iter()
                .filter(|event| matches!(kind(event), Some(EventKind::ConnectionAdded { .. })))
                .map(|event| event.stamped_at)
                .max();
            Box::pin(reread(app, &connections, tenant, user, &wanted, connected_at)).await?
        }
        _ => "ignored",
    };
    if connections.counts_connections()
        && let Some(upstream) = upstream.filter(|_| works.iter().any(|(_, work)| tells_of_departure(work)))
    {
        // It may be one that had to go; its connections are gone with it then.
        connections
            .departed(upstream)
            .await
            .map_err(|failure| failure.to_string())?;
    }
    Ok(works
        .into_iter()
        .map(|(id, work)| match work {
            Work::Ignore(reason) => (id, reason),
            _ => (id, outcome),
        })
        .collect())
}

/// What a stored event tells of; `None` where it cannot be read.
fn kind(event: &StoredEvent) -> Option<EventKind> {
    Event::parse(event.body.as_bytes()).ok().map(|event| event.kind)
}

/// Tells of events that were worked on.
fn measure(events: &[StoredEvent], now: Timestamp) {
    for event in events {
        metrics::count(Metric::EventsApplied, 1);
        let lag = now.duration_since(event.stamped_at).as_secs_f64();
        metrics::sample(Metric::EventLag, lag.max(0.0));
        let happened = match kind(event) {
            Some(EventKind::ConnectionAdded { .. }) => Metric::ConnectionsMade,
            Some(EventKind::ConnectionBroken { .. }) => Metric::ConnectionsBroken,
            Some(EventKind::ConnectionDeleted { .. }) => Metric::ConnectionsDeleted,
            Some(EventKind::ConnectionFailed) => Metric::ConnectionsFailed,
            _ => continue,
        };
        metrics::count(happened, 1);
    }
}

/// Whether an event is of a registration that is over.
fn tells_of_departure(work: &Work) -> bool {
    matches!(work, Work::Ignore("no such user" | "earlier registration"))
}

/// Asks SnapTrade again for what the events are about. `connected_at` is when one of them says that a connection was
/// made.
async fn reread(
    app: &App,
    connections: &Connections<'_>,
    tenant: &TenantId,
    user: UserRecord,
    wanted: &[&Work],
    connected_at: Option<Timestamp>,
) -> Result<&'static str, String> {
    if wanted.contains(&&Work::Verify) {
        let removed = connections.verify(&user.user_id).await;
        if removed.map_err(|failure| failure.to_string())? {
            return Ok("user removed");
        }
        if wanted.iter().all(|work| **work == Work::Verify) {
            return Ok("user verified");
        }
    }
    let subject = match Subject::open(connections, Some(user)).await {
        Ok(subject) => subject,
        Err(Failure::NoSecret(NoSecret::NotRegistered)) => return Ok("no such user"),
        Err(Failure::SecretRejected) => return Ok("secret rejected"),
        Err(failure) => return Err(failure.to_string()),
    };
    if connections.counts_connections() {
        // The count comes first: what follows may take long, or be put off.
        let failed = wanted.contains(&&Work::Attempt);
        connections
            .reconcile(&subject.user.stem, failed)
            .await
            .map_err(|failure| failure.to_string())?;
    }
    let data = UserData::new(app.store(), tenant, &subject.user.stem);
    let now = connections.runner().now();
    let mut snapshot = data
        .snapshot(&subject.upstream, now)
        .await
        .map_err(|error| error.to_string())?;
    if let (Some(connected), Some(visit)) = (connected_at, &snapshot.visit)
        && connected >= visit.at
    {
        let took = connected.duration_since(visit.at).as_secs_f64();
        metrics::sample(Metric::TimeToConnect, took);
    }
    let record = snapshot.refresh.clone();
    let started = Instant::now();
    let deadline = started.checked_add(BUDGET).unwrap_or(started);
    let reader = Reader::new(app, connections, tenant, &subject, deadline);
    let throttled = match Box::pin(reader.lists(&mut snapshot)).await {
        Ok(())
            if app
                .config()
                .flags
                .investment_sync
                .is_on_for(&subject.user.user_id) =>
        {
            let accounts = to_read(&snapshot, wanted);
            let read = Box::pin(reader.holdings(&accounts))
                .await
                .map_err(|error| error.to_string())?;
            let passing = read.failed.iter().find(|(_, kind)| is_passing(**kind));
            if let (None, Some((account, kind))) = (read.throttled, passing) {
                return Err(format!("the account {account} could not be read: {kind:?}"));
            }
            read.throttled.is_some()
        }
        Ok(()) => false,
        Err(ReadError::Failure(Failure::SecretRejected)) => return Ok("secret rejected"),
        Err(ReadError::Snaptrade(error)) if matches!(error.kind, ErrorKind::RateLimited { .. }) => true,
        Err(error) => return Err(error.to_string()),
    };
    if !throttled {
        return Ok("read again");
    }
    refresh::defer(&data, record.as_ref(), &subject.upstream, now)
        .await
        .map_err(|error| error.to_string())?;
    Ok("left to the schedule")
}

/// The accounts whose holdings are read: those that events name, and after a change of connections those of which
/// nothing is known yet.
fn to_read(snapshot: &Snapshot, wanted: &[&Work]) -> Vec<AccountId> {
    let connections_changed = wanted
        .iter()
        .any(|work| matches!(work, Work::Connections | Work::Attempt));
    snapshot
        .connected_accounts()
        .map(|(account, _)| account)
        .filter(|account| account.synced)
        .filter(|account| {
            let named = wanted
                .iter()
                .any(|work| matches!(work, Work::Account(id) if *id == account.account_id));
            named || (connections_changed && !snapshot.holdings.contains_key(&account.account_id))
        })
        .map(|account| account.account_id.clone())
        .collect()
}

/// Whether an account that could not be read for this reason is worth another try soon. Of one that is not synced
/// another event will tell.
fn is_passing(kind: ErrorKind) -> bool {
    kind.is_retryable() && kind != ErrorKind::NotSynced
}

async fn note_applied(
    app: &App,
    tenant: &TenantId,
    outcomes: &[(String, &'static str)],
    now: Timestamp,
) -> Result<(), StoreError> {
    let writes = outcomes.iter().map(|(id, outcome)| {
        let values = [
            (":now".to_owned(), AttributeValue::S(now.to_string())),
            (":outcome".to_owned(), AttributeValue::S((*outcome).to_owned())),
        ];
        Write::Update {
            key: key(tenant, id),
            expression: Expression {
                update: "SET applied_at = if_not_exists(applied_at, :now), outcome = :outcome".to_owned(),
                condition: "attribute_exists(pk)".to_owned(),
                values: values.into(),
                ..Expression::default()
            },
        }
    });
    write(app, "applied", writes.collect(), now).await
}

/// Counts one more try in vain; after [`MAX_ATTEMPTS`] the event is given up, and can be looked at and replayed.
async fn give_up_or_try_again(
    app: &App,
    tenant: &TenantId,
    pending: &[StoredEvent],
    reason: &str,
    now: Timestamp,
) -> Applied {
    let mut applied = Applied::Done;
    let mut counts = Vec::new();
    for event in pending {
        if event.attempts.saturating_add(1) >= MAX_ATTEMPTS {
            match mark_dead(app.store(), tenant, &event.webhook_id, reason, now).await {
                Ok(()) => metrics::count(Metric::DeadLetters, 1),
                Err(error) => {
                    tracing::error!(%error, "an event could not be given up");
                    applied = Applied::Again;
                }
            }
            continue;
        }
        applied = Applied::Again;
        metrics::count(Metric::EventsPutOff, 1);
        counts.push(Write::Update {
            key: key(tenant, &event.webhook_id),
            expression: Expression {
                update: "SET attempts = if_not_exists(attempts, :none) + :one".to_owned(),
                condition: "attribute_exists(pk)".to_owned(),
                values: [
                    (":none".to_owned(), AttributeValue::N("0".to_owned())),
                    (":one".to_owned(), AttributeValue::N("1".to_owned())),
                ]
                .into(),
                ..Expression::default()
            },
        });
    }
    if !counts.is_empty()
        && let Err(error) = write(app, "tried", counts, now).await
    {
        tracing::error!(%error, "a try in vain could not be counted");
    }
    applied
}

async fn write(app: &App, step: &str, writes: Vec<Write>, now: Timestamp) -> Result<(), StoreError> {
    let transaction = Transaction {
        token: format!("{}.{step}", new_attempt()),
        writes,
    };
    app.store().transact(&transaction, now).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::portfolio::userdata::Reading;

    #[test]
    fn holdings_are_read_of_accounts_that_events_name_and_of_new_ones_after_a_change() {
        let reading = |content| -> Reading<serde_json::Value> {
            Reading {
                upstream: UpstreamId::from_snaptrade("ada~aaaaaaaaaaaa"),
                begun_ms: 0,
                read_at: Timestamp::UNIX_EPOCH,
                content,
            }
        };
        let account = |id: &str, synced: bool| json!({"account_id": id, "connection_id": "c", "synced": synced, "is_paper": false});
        let read = |value: Reading<serde_json::Value>| serde_json::to_value(value).unwrap();
        let connections = reading(json!([{"connection_id": "c", "state": "active"}]));
        let accounts = reading(json!([
            account("one", true),
            account("two", true),
            account("three", false)
        ]));
        let holdings = reading(json!({"balances": [], "positions": []}));
        let snapshot = Snapshot {
            connections: serde_json::from_value(read(connections)).unwrap(),
            accounts: serde_json::from_value(read(accounts)).unwrap(),
            holdings: [(
                AccountId::new("one"),
                serde_json::from_value(read(holdings)).unwrap(),
            )]
            .into(),
            ..Snapshot::default()
        };
        let named = Work::Account(AccountId::new("one"));
        let ids = |wanted: &[&Work]| -> Vec<String> {
            to_read(&snapshot, wanted)
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(ids(&[&named]), ["one"]);
        assert_eq!(ids(&[&Work::Connections]), ["two"]);
        assert_eq!(ids(&[&named, &Work::Connections]), ["one", "two"]);
        assert!(ids(&[&Work::Account(AccountId::new("three"))]).is_empty());
        assert!(ids(&[&Work::Account(AccountId::new("gone"))]).is_empty());
    }
}
