//! Working on events that were taken in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use tokio::time::Instant;

use super::inbox::{StoredEvent, key, stored};
use super::need::{Needs, needs};
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

/// How long after an event others are waited for, before anything is read: events come in bursts, and a reading that
/// begins after the last of them is enough for all.
const GATHERING: Duration = Duration::from_millis(250);

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
/// Why they have to be worked on again, in words.
async fn work_on(
    app: &App,
    tenant: &TenantId,
    upstream: Option<&UpstreamId>,
    pending: &[StoredEvent],
) -> Result<Vec<(String, &'static str)>, String> {
    let connections = Connections::new(app, tenant.clone(), "snaptrade:webhook", false);
    let user = match upstream {
        Some(upstream) => connections.runner().user(&upstream.stem()).await.map_err(text)?,
        None => None,
    };
    let works: Vec<(String, Work, i64)> = pending
        .iter()
        .map(|event| {
            let hint = kind(event).map_or(Hint::Nothing, |kind| hint(&kind));
            let work = decide(&hint, upstream, user.as_ref());
            (event.webhook_id.clone(), work, event.asked_ms())
        })
        .collect();
    let wanted: Vec<(&Work, i64)> = works
        .iter()
        .map(|(_, work, asked_ms)| (work, *asked_ms))
        .filter(|(work, _)| !matches!(work, Work::Ignore(_)))
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
        && let Some(upstream) = upstream.filter(|_| works.iter().any(|(_, work, _)| tells_of_departure(work)))
    {
        // It may be one that had to go; its connections are gone with it then.
        connections.departed(upstream).await.map_err(text)?;
    }
    Ok(works
        .into_iter()
        .map(|(id, work, _)| match work {
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

/// Asks SnapTrade again for what the events are about, each with the time at which it was received. `connected_at` is
/// when one of them says that a connection was made.
async fn reread(
    app: &App,
    connections: &Connections<'_>,
    tenant: &TenantId,
    user: UserRecord,
    wanted: &[(&Work, i64)],
    connected_at: Option<Timestamp>,
) -> Result<&'static str, String> {
    if wanted.iter().any(|(work, _)| **work == Work::Verify) {
        let removed = connections.verify(&user.user_id).await;
        if removed.map_err(text)? {
            return Ok("user removed");
        }
        if wanted.iter().all(|(work, _)| **work == Work::Verify) {
            return Ok("user verified");
        }
    }
    let subject = match Subject::open(connections, Some(user)).await {
        Ok(subject) => subject,
        Err(Failure::NoSecret(NoSecret::NotRegistered)) => return Ok("no such user"),
        Err(Failure::SecretRejected) => return Ok("secret rejected"),
        Err(failure) => return Err(text(failure)),
    };
    let gathering = gathering(wanted, app.clock().now());
    if !gathering.is_zero() {
        tokio::time::sleep(gathering).await;
    }
    let data = UserData::new(app.store(), tenant, &subject.user.stem);
    let now = connections.runner().now();
    let mut snapshot = data.snapshot(&subject.upstream, now).await.map_err(text)?;
    if let (Some(connected), Some(visit)) = (connected_at, &snapshot.visit)
        && connected >= visit.at
    {
        let took = connected.duration_since(visit.at).as_secs_f64();
        metrics::sample(Metric::TimeToConnect, took);
    }
    let mut needs = needs(&snapshot, wanted);
    // Whether the count was compared since is not known here, so it is compared for every change of connections.
    let counts = connections.counts_connections()
        && wanted
            .iter()
            .any(|(work, _)| matches!(work, Work::Connections | Work::Attempt));
    if counts {
        // The count comes first: what follows may take long, or be put off.
        let failed = wanted.iter().any(|(work, _)| **work == Work::Attempt);
        connections
            .reconcile(&subject.user.stem, failed)
            .await
            .map_err(text)?;
    }
    if !app
        .config()
        .flags
        .investment_sync
        .is_on_for(&subject.user.user_id)
    {
        needs.holdings.clear();
        needs.transactions.clear();
    }
    if needs.is_nothing() {
        return Ok(if counts { "read again" } else { "read already" });
    }
    let record = snapshot.refresh.clone();
    let started = Instant::now();
    let deadline = started.checked_add(BUDGET).unwrap_or(started);
    let reader = Reader::new(app, connections, tenant, &subject, deadline);
    match Box::pin(read(app, &reader, &mut snapshot, &needs, &subject)).await {
        Ok(Read::Done) => return Ok("read again"),
        Ok(Read::Left) => {}
        Ok(Read::Failed(reason)) => return Err(reason),
        Err(ReadError::Failure(Failure::SecretRejected)) => return Ok("secret rejected"),
        Err(ReadError::Snaptrade(error)) if matches!(error.kind, ErrorKind::RateLimited { .. }) => {}
        Err(error) => return Err(text(error)),
    }
    refresh::defer(&data, record.as_ref(), &subject.upstream, now, now)
        .await
        .map_err(text)?;
    Ok("left to the schedule")
}

/// How long to wait for further events before anything is read for these.
fn gathering(wanted: &[(&Work, i64)], now: Timestamp) -> Duration {
    let newest = wanted.iter().map(|(_, asked_ms)| *asked_ms).max().unwrap_or(0);
    let since = u64::try_from(now.as_millisecond().saturating_sub(newest)).unwrap_or(0);
    GATHERING.saturating_sub(Duration::from_millis(since))
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// How reading for events ended.
enum Read {
    /// All was read.
    Done,
    /// SnapTrade wants fewer calls, or a long history takes longer than there is time for one user's events. Trying again
    /// would hold up the events behind these; the schedule goes on where this ended, and so does whoever looks.
    Left,
    /// Something could not be read, for this reason.
    Failed(String),
}

/// Reads what is needed; `snapshot` becomes as it is afterwards.
async fn read(
    app: &App,
    reader: &Reader<'_>,
    snapshot: &mut Snapshot,
    needs: &Needs,
    subject: &Subject,
) -> Result<Read, ReadError> {
    if needs.connections {
        reader.lists(snapshot).await?;
    } else if needs.accounts {
        reader.accounts(snapshot).await?;
        // An account whose connection is not known: of that the event was lost, or comes later.
        if snapshot.connected_accounts().count() < snapshot.accounts().len() {
            reader.lists(snapshot).await?;
        }
    }
    reader.finish_deletions(snapshot).await;
    if !app
        .config()
        .flags
        .investment_sync
        .is_on_for(&subject.user.user_id)
    {
        return Ok(Read::Done);
    }
    let accounts = to_read(snapshot, needs);
    let held = reader.holdings(&accounts, &snapshot.holdings).await?;
    if held.throttled.is_some() {
        return Ok(Read::Left);
    }
    let passing = held.failed.iter().find(|(_, kind)| is_passing(**kind));
    if let Some((account, kind)) = passing {
        return Ok(Read::Failed(format!(
            "the account {account} could not be read: {kind:?}"
        )));
    }
    let traded: Vec<AccountId> = snapshot
        .connected_accounts()
        .map(|(account, _)| account.account_id.clone())
        .filter(|account| needs.transactions.contains(account))
        .collect();
    let traded = reader.transactions(&traded, &snapshot.transactions).await?;
    if traded.throttled.is_some() {
        return Ok(Read::Left);
    }
    let mut left = traded.unfinished.iter();
    Ok(match left.find(|(_, reason)| reason.is_none_or(is_passing)) {
        Some((_, None)) => Read::Left,
        Some((account, Some(kind))) => Read::Failed(format!(
            "the transactions of {account} could not be read: {kind:?}"
        )),
        None => Read::Done,
    })
}

/// The accounts whose holdings are read: those that are needed, and after a change of connections those of which
/// nothing is known yet.
fn to_read(snapshot: &Snapshot, needs: &Needs) -> Vec<AccountId> {
    snapshot
        .connected_accounts()
        .map(|(account, _)| account)
        .filter(|account| account.synced)
        .filter(|account| {
            needs.holdings.contains(&account.account_id)
                || (needs.connections && !snapshot.holdings.contains_key(&account.account_id))
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
        let ids = |connections: bool, holdings: &[&str]| -> Vec<String> {
            let needs = Needs {
                connections,
                holdings: holdings.iter().map(|id| AccountId::new(*id)).collect(),
                ..Needs::default()
            };
            to_read(&snapshot, &needs)
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(ids(false, &["one"]), ["one"]);
        assert_eq!(ids(true, &[]), ["two"]);
        assert_eq!(ids(true, &["one"]), ["one", "two"]);
        assert!(ids(false, &["three"]).is_empty());
        assert!(ids(false, &["gone"]).is_empty());
    }

    #[test]
    fn events_are_waited_for_a_moment_after_the_newest_and_never_longer() {
        let now = Timestamp::from_millisecond(10_000).unwrap();
        let wait = |asked: &[i64]| {
            let wanted: Vec<_> = asked.iter().map(|asked| (&Work::Connections, *asked)).collect();
            gathering(&wanted, now).as_millis()
        };
        assert_eq!(wait(&[9_900, 5_000]), 150);
        assert_eq!(wait(&[9_600]), 0);
        assert_eq!(wait(&[10_500]), 250);
    }
}
