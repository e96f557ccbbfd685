//! Refreshing all users by and by: an hour after an hour, those first whose data are oldest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::refresh::{Purpose, Refresh, RefreshError, RefreshRecord, Scope};
use super::userdata::refresh_index;
use crate::app::App;
use crate::connections::records::Holder;
use crate::connections::timing::{after, between};
use crate::connections::{Connections, Failure};
use crate::ids::{Stem, TenantId, UserId};
use crate::store::{self, Condition, Key, Store, StoreError, partition};
use crate::telemetry::metrics::{self, Metric};

/// How far apart the runs of the schedule are.
pub const EVERY: Duration = Duration::from_secs(3600);

/// How long before its time a user's refresh may be made, so that one that ended a little after the hour is not left
/// out an hour later.
const EARLY: Duration = Duration::from_secs(600);

/// How long a run begins with further users, of the 25 seconds that it has.
const BEGINS: Duration = Duration::from_secs(17);

/// How long one user's refresh may take.
const PER_USER: Duration = Duration::from_secs(6);

/// The part of SnapTrade's rate limit, as one in so many, that is left to those who wait.
const RESERVED_PART: u32 = 4;

/// The schedule's own record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ScheduleRecord {
    /// When it last ran.
    ran_at: Timestamp,
}

/// What a run of the schedule came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ScheduleReport {
    /// Users that were due.
    pub due: u32,
    /// Of those, refreshed.
    pub refreshed: u32,
    /// Of those, tried in vain.
    pub failed: u32,
    /// Of those, left for the next run: the time was up, or SnapTrade wanted fewer calls.
    pub left: u32,
}

fn key(tenant: &TenantId) -> Key {
    Key::new(partition(tenant, "REFRESH", "schedule"), "SCHEDULE")
}

/// When the schedule last ran; `None` when it never did.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn ran_at(
    store: &Store,
    tenant: &TenantId,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let item = store.get(&key(tenant), now).await?;
    let record: Option<ScheduleRecord> = item.as_ref().map(store::from_item).transpose()?;
    Ok(record.map(|record| record.ran_at))
}

/// The first run of the schedule that is not before `earliest`, when one was made at `ran_at`.
#[must_use]
pub(super) fn next_run(ran_at: Option<Timestamp>, earliest: Timestamp) -> Timestamp {
    let Some(ran_at) = ran_at.filter(|ran_at| *ran_at <= earliest) else {
        return after(earliest, EVERY);
    };
    let runs = between(ran_at, earliest).as_millis().div_ceil(EVERY.as_millis());
    let wait = EVERY.saturating_mul(u32::try_from(runs.max(1)).unwrap_or(u32::MAX));
    after(ran_at, wait)
}

/// Who is to be refreshed now, in this order: those of whom nothing was ever read, then those who are due, the longest
/// first.
fn plan(active: &BTreeMap<Stem, UserId>, due: &[(Stem, Timestamp)], now: Timestamp) -> Vec<Stem> {
    let known: BTreeSet<&Stem> = due.iter().map(|(stem, _)| stem).collect();
    let never = active.keys().filter(|stem| !known.contains(stem)).cloned();
    let mut waiting: Vec<&(Stem, Timestamp)> = due
        .iter()
        .filter(|(stem, at)| active.contains_key(stem) && *at <= after(now, EARLY))
        .collect();
    waiting.sort_by_key(|(_, at)| *at);
    never
        .chain(waiting.into_iter().map(|(stem, _)| stem.clone()))
        .collect()
}

/// Refreshes those of `tenant`'s users who are due, as many as there is time for. The next run goes on with the others.
///
/// # Errors
/// [`Failure::Store`] when it is not known who is due.
pub async fn run(app: &App, tenant: &TenantId) -> Result<ScheduleReport, Failure> {
    let started = Instant::now();
    let connections = Connections::new(app, tenant.clone(), "schedule:refresh", false);
    let now = connections.runner().now();
    let record = store::to_item(&key(tenant), &ScheduleRecord { ran_at: now }, None, None)?;
    app.store().put(record, &Condition::Always, now).await?;

    let flag = &app.config().flags.investment_sync;
    let holders = connections.runner().holders().await?;
    let active: BTreeMap<Stem, UserId> = holders
        .into_iter()
        .filter_map(|holder| match holder {
            Holder::User(user) if flag.is_on_for(&user.user_id) => {
                let usable = user.active().is_some_and(|active| !active.secret_rejected);
                usable.then(|| (user.stem.clone(), user.user_id))
            }
            _ => None,
        })
        .collect();
    let partitions: BTreeMap<String, &Stem> = active
        .keys()
        .map(|stem| (partition(tenant, "DATA", stem.as_str()), stem))
        .collect();
    let mut due = Vec::new();
    for item in app.store().index(&refresh_index(tenant), None, now).await? {
        let Some(stem) = partitions.get(&Key::of(&item).pk) else {
            continue;
        };
        match store::from_item::<RefreshRecord>(&item) {
            Ok(record) => due.push(((*stem).clone(), record.due_at)),
            // One that cannot be read must not keep the others from their turn.
            Err(error) => tracing::error!(%error, "the record of a user's refreshes cannot be read"),
        }
    }
    let planned = plan(&active, &due, now);
    let report = ScheduleReport {
        due: u32::try_from(planned.len()).unwrap_or(u32::MAX),
        ..ScheduleReport::default()
    };
    let queue = Mutex::new((planned.iter(), report));
    let lane = async || {
        loop {
            let next = {
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                let over = started.elapsed() >= BEGINS || is_busy(app);
                match queue.0.next() {
                    Some(_) if over => {
                        queue.1.left = queue.1.left.saturating_add(1);
                        continue;
                    }
                    Some(stem) => stem,
                    None => return,
                }
            };
            let refreshed = Box::pin(one(app, &connections, tenant, next)).await;
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            match refreshed {
                Ok(()) => queue.1.refreshed = queue.1.refreshed.saturating_add(1),
                Err(error) => {
                    tracing::warn!(%error, "a user could not be refreshed on the schedule");
                    queue.1.failed = queue.1.failed.saturating_add(1);
                }
            }
        }
    };
    tokio::join!(lane(), lane());
    let (_, report) = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    metrics::count(Metric::RefreshedUsers, report.refreshed.into());
    metrics::count(Metric::RefreshFailures, report.failed.into());
    metrics::count(Metric::RefreshesLeft, report.left.into());
    Ok(report)
}

async fn one(
    app: &App,
    connections: &Connections<'_>,
    tenant: &TenantId,
    stem: &Stem,
) -> Result<(), RefreshError> {
    let user = connections.runner().user(stem).await.map_err(Failure::from)?;
    let deadline = Instant::now();
    let purpose = Purpose::Background {
        deadline: deadline.checked_add(PER_USER).unwrap_or(deadline),
    };
    let refresh = Refresh::new(app, connections, tenant.clone());
    match Box::pin(refresh.run(user, &Scope::All, purpose)).await {
        // Somebody else refreshes this user right now.
        Ok(_) | Err(RefreshError::InProgress) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether so few calls are left of SnapTrade's rate limit that they are better left to those who wait.
fn is_busy(app: &App) -> bool {
    app.snaptrade().rate_limit().is_some_and(|seen| {
        let over = seen
            .reset
            .is_none_or(|reset| app.clock().now() >= after(seen.observed_at, reset));
        match (seen.limit, seen.remaining) {
            (Some(limit), Some(remaining)) => !over && remaining < limit.div_ceil(RESERVED_PART),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_run_is_the_first_one_that_is_not_too_early() {
        let ran = at("2026-11-21T10:00:00Z");
        for (earliest, expected) in [
            ("2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z"),
            ("2026-11-21T10:00:30Z", "2026-11-21T11:00:00Z"),
            ("2026-11-21T11:00:00Z", "2026-11-21T11:00:00Z"),
            ("2026-11-21T13:00:01Z", "2026-11-21T14:00:00Z"),
        ] {
            assert_eq!(next_run(Some(ran), at(earliest)), at(expected), "{earliest}");
        }
        let now = at("2026-11-21T09:00:00Z");
        assert_eq!(next_run(None, now), at("2026-11-21T10:00:00Z"));
        assert_eq!(next_run(Some(ran), now), at("2026-11-21T10:00:00Z"));
    }

    #[test]
    fn those_never_read_come_first_and_then_those_who_have_waited_longest() {
        let user = |name: &str| UserId::parse(name).unwrap();
        let active: BTreeMap<Stem, UserId> = ["ada", "grace", "joan", "mary"]
            .into_iter()
            .map(|name| (user(name).stem(), user(name)))
            .collect();
        let due = [
            (user("ada").stem(), at("2026-11-21T10:05:00Z")),
            (user("grace").stem(), at("2026-11-21T09:00:00Z")),
            (user("joan").stem(), at("2026-11-21T10:30:00Z")),
            (user("gone").stem(), at("2026-11-21T08:00:00Z")),
        ];
        let planned = plan(&active, &due, at("2026-11-21T10:00:00Z"));
        let names: Vec<&str> = planned.iter().map(Stem::as_str).collect();
        assert_eq!(names, ["mary", "grace", "ada"]);
    }
}
