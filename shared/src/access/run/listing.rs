//! What the access API has of one script, as it was when the run first looked.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Refused, Run};
use crate::access::books::Saving;
use crate::access::customer::Customer;
use crate::access::expiry::Expiry;
use crate::access::ids::ScriptId;
use crate::access::names::Username;
use crate::access::plan::Action;
use crate::access::records::{Bootstrapped, Claimant};
use crate::access::remote::RemoteUser;
use crate::access::retries::Verdict;
use crate::access::service::{Ended, Trail};

/// Most pages of a list that are read.
const MOST_PAGES: u32 = 10_000;

/// How long a list is good for at least to be written by.
const GOOD_FOR: Duration = Duration::from_secs(2);

/// How many times as long as it took to read a list is good for, so that not more than a small part of a run is spent on
/// reading it again and again.
const GOOD_FOR_READINGS: u32 = 10;

/// What the access API has of one script.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    /// The ends of access by the name's key, or why they are not known in this run.
    ends: Result<HashMap<String, Expiry>, Ended>,
    /// How many names have access now.
    live: u64,
    /// When reading it began.
    began: Instant,
    /// How long reading it took.
    took: Duration,
    /// What this run has told since it first looked. A list may lag behind that.
    told: HashMap<String, Option<Expiry>>,
}

impl Run<'_> {
    /// Reads once for each script what there was before Berth. False where that has to be done by a later run, before
    /// which no row is read.
    pub(super) async fn find_baselines(&mut self) -> Result<bool, Refused> {
        let scripts: Vec<ScriptId> = self.configuration.scripts().into_iter().cloned().collect();
        for script in scripts {
            if self.record.bootstrapped.contains_key(&script) {
                continue;
            }
            let (mut users, mut claimants, mut ends) = (0_u64, Vec::new(), HashMap::new());
            let began = Instant::now();
            if self.service.can_list() {
                let (found_at, on) = (self.now, script.clone());
                let read = self.list(&script, |user| {
                    users = users.saturating_add(1);
                    claimants.extend(Username::parse(&user.username).ok().map(|username| Claimant {
                        username,
                        person: None,
                        scripts: [(on.clone(), user.expiry)].into(),
                        found_at: Some(found_at),
                    }));
                    enter(&mut ends, &user);
                });
                match read.await {
                    Ok(()) => {}
                    Err(_) if self.is_out_of_time() => return Ok(false),
                    Err(ended) if ended.verdict == Verdict::NoAccess => {
                        self.pause(&ended);
                        return Ok(false);
                    }
                    Err(ended) => return Err(Refused::Service(ended)),
                }
            }
            self.keep_lease().await?;
            self.books.save_baselines(&script, claimants).await?;
            let bootstrapped = Bootstrapped { at: self.now, users };
            self.record.bootstrapped.insert(script.clone(), bootstrapped);
            self.books.save_run(&mut self.record).await?;
            if self.service.can_list() {
                let listing = Listing::of(Ok(ends), HashMap::new(), began, self.now);
                self.lists.insert(script, listing);
            }
        }
        Ok(true)
    }

    /// When a name's access to a script ends, by what the access API says.
    ///
    /// # Errors
    /// [`Ended`] where it is not known.
    pub(super) async fn remote(
        &mut self,
        script: &ScriptId,
        name: &Username,
    ) -> Result<Option<Expiry>, Ended> {
        if !self.service.can_list() {
            return self.service.access_of(script, name, self.call_until()).await;
        }
        if !self.lists.contains_key(script) {
            self.read_list(script).await;
        }
        self.listed(script, name)
    }

    /// The same, read again if somebody may have changed it by hand since it was read.
    ///
    /// # Errors
    /// As [`Run::remote`].
    pub(super) async fn remote_again(
        &mut self,
        script: &ScriptId,
        name: &Username,
    ) -> Result<Option<Expiry>, Ended> {
        if self.service.can_list() {
            self.read_list(script).await;
            return self.listed(script, name);
        }
        self.remote(script, name).await
    }

    fn listed(&self, script: &ScriptId, name: &Username) -> Result<Option<Expiry>, Ended> {
        match self.lists.get(script).map(|listing| &listing.ends) {
            Some(Ok(ends)) => Ok(ends.get(&name.key()).copied()),
            Some(Err(ended)) => Err(ended.clone()),
            None => Ok(None),
        }
    }

    async fn read_list(&mut self, script: &ScriptId) {
        let began = Instant::now();
        // Of a long list only one is held at a time.
        let told = self.lists.remove(script).map(|before| before.told);
        let mut ends = HashMap::new();
        let read = self.list(script, |user| enter(&mut ends, &user)).await;
        let listing = Listing::of(read.map(|()| ends), told.unwrap_or_default(), began, self.now);
        self.lists.insert(script.clone(), listing);
    }

    /// Whether the list is too old to write by. The access API only takes ends that hold whatever there was, so a write
    /// by an old list would lower what somebody gave by hand meanwhile. One that takes something is made by a list that
    /// is as fresh as can be; for others it may be a little older where reading it takes long.
    pub(super) fn is_outdated(&self, script: &ScriptId, action: Action) -> bool {
        let Some(listing) = self.lists.get(script) else {
            return false;
        };
        let readings = if action.takes() { 1 } else { GOOD_FOR_READINGS };
        listing.began.elapsed() > GOOD_FOR.max(listing.took.saturating_mul(readings))
    }

    /// Whether the list of a script could not be read in this run.
    pub(super) fn is_unlisted(&self, script: &ScriptId) -> bool {
        self.lists
            .get(script)
            .is_some_and(|listing| listing.ends.is_err())
    }

    /// Notes what the access API has been told.
    pub(super) fn note_remote(&mut self, script: &ScriptId, name: &Username, end: Option<Expiry>) {
        if let Some(listing) = self.lists.get_mut(script) {
            listing.tell(name.key(), end);
        }
    }

    /// How many names have access to a script; 0 where that is not known.
    pub(super) fn active(&self, script: &ScriptId) -> u64 {
        self.lists.get(script).map_or(0, |listing| listing.live)
    }

    /// The names that have access to a script and that nobody here claims. They are reported and never touched.
    pub(in crate::access) async fn report_unmanaged(&mut self) -> Result<(), Refused> {
        let scripts: Vec<ScriptId> = self.configuration.scripts().into_iter().cloned().collect();
        for script in scripts {
            let Some(Ok(ends)) = self.lists.get(&script).map(|listing| &listing.ends) else {
                continue;
            };
            let mut managed = std::collections::HashSet::new();
            self.books
                .each_name(|claimant| {
                    if claimant.person.is_some() && claimant.scripts.contains_key(&script) {
                        managed.insert(claimant.username.key());
                    }
                })
                .await?;
            let mut others: Vec<&String> = ends
                .iter()
                .filter(|(name, end)| end.is_live(self.now) && !managed.contains(*name))
                .map(|(name, _)| name)
                .collect();
            others.sort_unstable();
            if !others.is_empty() {
                let named: Vec<&str> = others.iter().take(20).map(|name| name.as_str()).collect();
                let more = if others.len() > named.len() { ", …" } else { "" };
                self.report.warn(format!(
                    "{} users of {script} are not managed here and were left alone: {}{more}",
                    others.len(),
                    named.join(", ")
                ));
            }
        }
        Ok(())
    }

    /// Hands over everybody who has access to a script, page by page.
    async fn list(&mut self, script: &ScriptId, mut take: impl FnMut(RemoteUser)) -> Result<(), Ended> {
        let (mut cursor, mut trail): (Option<String>, _) = (None, Trail::default());
        for _ in 0..MOST_PAGES {
            let page = self
                .service
                .page(script, cursor.as_deref(), self.call_until())
                .await?;
            page.users.into_iter().for_each(&mut take);
            let Some(next) = page.next else {
                return Ok(());
            };
            trail.go_on(&next)?;
            cursor = Some(next);
            // Losing the lease is noticed by the next write.
            if self.keep_lease().await.is_err() {
                return Err(Ended {
                    verdict: Verdict::Retry,
                    asked: None,
                    reason: "the run was taken over while the list was read".to_owned(),
                });
            }
        }
        Err(Ended {
            verdict: Verdict::Retry,
            asked: None,
            reason: "the list of who has access does not end".to_owned(),
        })
    }

    /// Notes that the access API does not let us in.
    pub(super) fn pause(&mut self, ended: &Ended) {
        if self.record.paused_since.is_none() {
            self.record.paused_since = Some(self.now);
            let text = format!(
                "The access API does not let Berth in ({ended}). Nothing is granted or taken back until its \
                 credentials, or the session behind it, work again; what is due waits and loses nothing."
            );
            self.alerts.push((format!("paused:{}", self.now), text));
        }
        self.stopped = true;
        self.report.degrade();
    }

    /// A customer to be written, with the letters that the change causes.
    pub(in crate::access) fn saving(
        &mut self,
        before: Option<Customer>,
        after: Customer,
        mut events: Vec<crate::access::books::AuditEvent>,
    ) -> Result<Saving, Refused> {
        events.extend(self.told_events(before.as_ref(), &after));
        let notices = self.notices(before.as_ref(), &after)?;
        Ok(Saving {
            before,
            after,
            events,
            notices,
        })
    }

    /// Writes customers, and gives them back as they stand there now.
    pub(in crate::access) async fn save(&mut self, savings: Vec<Saving>) -> Result<Vec<Customer>, Refused> {
        if savings.is_empty() {
            return Ok(Vec::new());
        }
        self.outdate_plans().await?;
        for saving in &savings {
            self.touched.insert(saving.after.person.0);
        }
        Ok(self.books.save(savings).await?)
    }
}

/// Notes a user of a list. Of two spellings of one name the later end counts.
fn enter(ends: &mut HashMap<String, Expiry>, user: &RemoteUser) {
    let end = ends.entry(user.username.to_ascii_lowercase()).or_default();
    *end = (*end).max(user.expiry);
}

impl Listing {
    fn of(
        ends: Result<HashMap<String, Expiry>, Ended>,
        told: HashMap<String, Option<Expiry>>,
        began: Instant,
        now: jiff::Timestamp,
    ) -> Self {
        let live = ends
            .as_ref()
            .map_or(0, |ends| ends.values().filter(|end| end.is_live(now)).count());
        let mut listing = Self {
            live: u64::try_from(live).unwrap_or(u64::MAX),
            ends,
            began,
            took: began.elapsed(),
            told: HashMap::new(),
        };
        for (name, end) in told {
            listing.tell(name, end);
        }
        listing
    }

    fn tell(&mut self, name: String, end: Option<Expiry>) {
        if let Ok(ends) = &mut self.ends {
            match end {
                Some(end) => ends.insert(name.clone(), end),
                None => ends.remove(&name),
            };
        }
        self.told.insert(name, end);
    }
}
