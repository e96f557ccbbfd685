//! Telling those who have to know: the customer whose name is not known, and the operator, once for each cause.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use tokio::time::Instant;

use super::{Refused, Run, later};
use crate::access::customer::Customer;
use crate::access::mail::{Digest, Entry, EntryKind, Notice, UnknownName, notice, to_operator, unless_there};
use crate::access::progress::{Event, REVIEW_KEPT};
use crate::access::records::{OpenItem, OpenKind};
use crate::store::Write;

/// How many reviews are looked at for having waited too long, in one run.
const MOST_EXPIRING: i32 = 200;

impl Run<'_> {
    /// The letters that a change of a customer causes; what the operator has to know of it is noted for the digest.
    pub(super) fn notices(
        &mut self,
        before: Option<&Customer>,
        after: &Customer,
    ) -> Result<Vec<Write>, Refused> {
        let was_open = before.map(|before| before.open(self.now)).unwrap_or_default();
        let (mut notices, mut told) = (Vec::new(), BTreeSet::new());
        for (id, item) in after.open(self.now) {
            let known = was_open.get(&id).is_some_and(|was| {
                (was.kind, &was.reason, was.expired) == (item.kind, &item.reason, item.expired)
            });
            if known {
                continue;
            }
            self.digest.add(entry(&item));
            if item.reason == "invalid_username" && self.configuration.mail.is_some() && !item.expired {
                let letter = Notice::UnknownName(UnknownName {
                    person: after.person,
                    to: after.email.clone(),
                    called: after.display_name.clone(),
                    written: after.written.clone(),
                    suggestions: item.suggestions.clone(),
                });
                let (key, item) = notice(&self.tenant, &letter, self.now)?;
                // Several purchases under one wrong name are one cause, which a transaction can write only once.
                if told.insert(key.to_string()) {
                    notices.push(unless_there((key, item)));
                }
            }
        }
        Ok(notices)
    }

    /// Notes the reviews that nobody has come back to for 30 days.
    pub(super) async fn note_expired_reviews(&mut self) -> Result<(), Refused> {
        let (waiting, _) = self.books.open(OpenKind::Review, MOST_EXPIRING, None).await?;
        let now = self.now;
        let too_long = |item: &OpenItem| !item.expired && later(item.created_at, REVIEW_KEPT) <= now;
        for item in waiting.into_iter().filter(too_long) {
            // Those beyond are noted by the next run.
            if Instant::now() >= self.until {
                break;
            }
            let Some(before) = self.books.customer(item.person).await? else {
                continue;
            };
            let mut after = before.clone();
            if let Some(holding) = after.scripts.get_mut(&item.script_id) {
                holding.advance(&item.transaction_id, &Event::Ticked, self.now);
            }
            let saving = self.saving(Some(before), after, Vec::new())?;
            self.save(vec![saving]).await?;
        }
        Ok(())
    }

    /// Notes what keeps the sync from its work, which is told once a day however many runs find it.
    pub(in crate::access) fn alert_daily(&mut self, cause: &str, text: String) {
        let day = self.now.to_zoned(TimeZone::UTC).date();
        self.alerts.push((format!("{cause}:{day}"), text));
    }

    /// Tells the operator what has come up in this run.
    pub(super) async fn tell(&mut self) -> Result<(), Refused> {
        if self.books.is_dry() {
            return Ok(());
        }
        self.digest.open = Some(self.report.open);
        let (mail, discord) = (
            self.configuration.mail.as_ref(),
            self.configuration.discord.as_ref(),
        );
        let mut notices = to_operator(&self.tenant, mail, discord, &self.digest, self.now)?;
        for (cause, text) in &self.alerts {
            let mut digest = Digest::new(cause.clone(), self.now);
            digest.alerts.push(text.clone());
            notices.extend(to_operator(&self.tenant, mail, discord, &digest, self.now)?);
        }
        let mut told = BTreeSet::new();
        notices.retain(|(key, _)| told.insert(key.to_string()));
        Ok(self
            .books
            .save_notices(notices.into_iter().map(unless_there).collect())
            .await?)
    }
}

fn entry(item: &OpenItem) -> Entry {
    Entry {
        kind: match item.kind {
            OpenKind::Review if item.expired => EntryKind::ReviewExpired,
            OpenKind::Review => EntryKind::Review,
            OpenKind::DeadLetter => EntryKind::DeadLetter,
            OpenKind::Held => EntryKind::Held,
        },
        transaction: Some(item.transaction_id.clone()),
        script: Some(item.script_id.clone()),
        person: Some(item.person),
        username: Some(item.username.clone()).filter(|username| !username.is_empty()),
        reason: item.reason.clone(),
    }
}
