//! Sending what is due in the outbox.
//!
//! A letter is taken by a conditional write before it is sent and settled by another one after, so that of
//! several senders one sends it, and so that a sender that dies leaves something to finish. Letters are taken
//! one by one, when a connection to the mail server stands: a sender that dies leaves at most as many taken
//! letters as it has connections.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::super::books::Books;
use super::super::configuration::{Discord, Mail};
use super::super::ids::PersonId;
use super::super::records::sortable;
use super::dispatch::{Dispatch, Ended, Sending, Way};
use super::letters::{Digest, Entry, EntryKind, Letter};
use super::smtp::Connection;
use super::{discord, message, outbox};
use crate::clock::Clock;
use crate::ids::TenantId;
use crate::store::{self, Condition, Key, Store, StoreError, Transaction};
use crate::telemetry;

/// How many connections to the mail server are used at once.
const LANES: usize = 4;

/// How many letters are read at once.
const PAGE: i32 = 100;

/// How long before the end no other letter is begun.
const LEAST: Duration = Duration::from_secs(5);

/// How many letters in a row may fail before the others are left for the next run.
const MOST_FAILURES: u32 = 5;

/// How often the write of what became of a letter is tried. If it is not made, the letter is sent again.
const SETTLE_TRIES: u32 = 4;

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Letters that the mail server has taken.
    pub mails: u64,
    /// Posts that Discord has taken.
    pub posts: u64,
    /// Letters and posts that were tried in vain.
    pub failed: u64,
}

/// Sends those of `tenant`'s letters that are due, until `until`. Without a mail server or a channel its letters
/// wait. It fails nobody: what goes wrong is logged, and tried again when it is called the next time.
pub async fn send_due(
    store: &Store,
    tenant: &TenantId,
    mail: Option<&Mail>,
    discord: Option<&Discord>,
    http: &reqwest::Client,
    clock: &Clock,
    until: Instant,
) -> Sent {
    let sender = Sender {
        store,
        tenant,
        mail,
        discord,
        http,
        clock,
        until,
        id: telemetry::new_id(),
        progress: Mutex::new(Progress::default()),
    };
    if mail.is_some() || discord.is_some() {
        let mut lanes: [Lane; LANES] = Default::default();
        if let Err(error) = sender.run(&mut lanes).await {
            tracing::error!(%error, "the outbox could not be read or written");
        }
        for lane in lanes {
            if let Some(connection) = lane.connection {
                connection.close().await;
            }
        }
        if let Err(error) = sender.tell_of_undeliverable().await {
            tracing::error!(%error, "the operator could not be told of letters that cannot be delivered");
        }
    }
    sender.progress().sent
}

struct Sender<'a> {
    store: &'a Store,
    tenant: &'a TenantId,
    mail: Option<&'a Mail>,
    discord: Option<&'a Discord>,
    http: &'a reqwest::Client,
    clock: &'a Clock,
    until: Instant,
    id: String,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    queue: VecDeque<(Key, Dispatch)>,
    sent: Sent,
    failures: u32,
    no_mail_server: bool,
    no_discord: bool,
    undeliverable: Vec<Entry>,
}

/// One of those that send at the same time.
#[derive(Default)]
struct Lane {
    connection: Option<Connection>,
}

impl Sender<'_> {
    async fn run(&self, lanes: &mut [Lane; LANES]) -> Result<(), StoreError> {
        let partition = outbox::due(self.tenant);
        let mut seen = HashSet::new();
        let mut start = None;
        while !self.is_over() {
            let now = self.clock.now();
            let by_now = sortable(now);
            let page = self
                .store
                .index_range(
                    &partition,
                    &("0"..=by_now.as_str()),
                    Some(PAGE),
                    start.take(),
                    now,
                )
                .await?;
            let mut due = Vec::new();
            for item in &page.items {
                match store::from_item::<Dispatch>(item) {
                    Ok(dispatch) if dispatch.is_due(now) => {
                        let key = Key::of(item);
                        if seen.insert(key.clone()) {
                            due.push((key, dispatch));
                        }
                    }
                    Ok(_) => {}
                    // One that cannot be read must not keep the others from being sent.
                    Err(error) => tracing::error!(%error, "a letter of the outbox cannot be read"),
                }
            }
            let worth = self.worth_sending(due, now).await?;
            self.progress().queue.extend(worth);
            let [one, two, three, four] = lanes;
            let (one, two, three, four) =
                tokio::join!(self.send(one), self.send(two), self.send(three), self.send(four));
            for ended in [one, two, three, four] {
                ended?;
            }
            start = page.next;
            if start.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Of the letters that are due those that are still worth sending, each to where it goes now; the others are ended.
    async fn worth_sending(
        &self,
        due: Vec<(Key, Dispatch)>,
        now: Timestamp,
    ) -> Result<Vec<(Key, Dispatch)>, StoreError> {
        let books = Books::new(self.store.clone(), self.tenant.clone(), "mail", now);
        let about: HashSet<PersonId> = due.iter().filter_map(|(_, dispatch)| dispatch.person).collect();
        let customers = books.customers(about).await?;
        let mut worth = Vec::with_capacity(due.len());
        for (key, mut dispatch) in due {
            let customer = dispatch.person.and_then(|person| customers.get(&person));
            let is_over = match &dispatch.letter {
                Some(Letter::UnknownName { written, .. }) => {
                    customer.is_none_or(|customer| !customer.waits_for_other_name_than(written))
                }
                Some(Letter::Digest(_)) | None => false,
            };
            let ended = if dispatch.is_stale(now) {
                Ended::Stale
            } else if is_over {
                Ended::Settled
            } else {
                if let Some(customer) = customer {
                    dispatch.way = Some(Way::Mail {
                        to: customer.email.clone(),
                    });
                }
                worth.push((key, dispatch));
                continue;
            };
            // Another sender may have ended it, too.
            let _made = self.write(&key, &dispatch, &dispatch.end(ended, now)).await?;
        }
        Ok(worth)
    }

    /// Sends letters until there is none left.
    async fn send(&self, lane: &mut Lane) -> Result<(), StoreError> {
        while !self.is_over() {
            let Some((key, dispatch)) = self.progress().queue.pop_front() else {
                break;
            };
            match (&dispatch.way, self.mail, self.discord) {
                (Some(Way::Mail { .. }), Some(mail), _) => {
                    self.send_mail(lane, mail, &key, &dispatch).await?
                }
                (Some(Way::Discord), _, Some(discord)) => self.post(discord, &key, &dispatch).await?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn send_mail(
        &self,
        lane: &mut Lane,
        mail: &Mail,
        key: &Key,
        dispatch: &Dispatch,
    ) -> Result<(), StoreError> {
        if self.progress().no_mail_server {
            return Ok(());
        }
        if lane.connection.as_ref().is_none_or(|open| !open.is_usable()) {
            lane.connection = match Connection::open(mail, self.until).await {
                Ok(connection) => Some(connection),
                Err(reason) => {
                    tracing::warn!(reason, "letters wait, as the mail server lets nobody in");
                    let mut progress = self.progress();
                    progress.no_mail_server = true;
                    progress.sent.failed = progress.sent.failed.saturating_add(1);
                    return Ok(());
                }
            };
        }
        let (Some(connection), Some(taken)) = (&mut lane.connection, self.take(key, dispatch).await?) else {
            return Ok(());
        };
        let sending = match self.letter(mail, key, &taken) {
            Ok(letter) => {
                connection
                    .send(
                        &letter.from,
                        &letter.to,
                        &letter.copies,
                        &letter.message,
                        self.until,
                    )
                    .await
            }
            Err(sending) => sending,
        };
        self.settle(key, &taken, sending).await
    }

    async fn post(&self, discord: &Discord, key: &Key, dispatch: &Dispatch) -> Result<(), StoreError> {
        if self.progress().no_discord {
            return Ok(());
        }
        let Some(taken) = self.take(key, dispatch).await? else {
            return Ok(());
        };
        let text = match &taken.letter {
            Some(Letter::Digest(digest)) => digest.post().ok(),
            _ => None,
        };
        let sending = match text {
            Some(text) => discord::post(self.http, discord, &text, self.until).await,
            None => Sending::Refused(None),
        };
        self.settle(key, &taken, sending).await
    }

    /// The letter as it goes over the wire, or what keeps it from being sent.
    fn letter(&self, mail: &Mail, key: &Key, dispatch: &Dispatch) -> Result<Ready, Sending> {
        let (Some(letter), Some(Way::Mail { to })) = (&dispatch.letter, &dispatch.way) else {
            return Err(Sending::Refused(None));
        };
        let from = message::address(&mail.from).map_err(|_| {
            tracing::error!("email.from_email is no address that mail can be sent from");
            Sending::NoServer
        })?;
        let to = message::address(to).map_err(|_| Sending::NoSuchAddress)?;
        let copies = mail
            .bcc
            .iter()
            .filter_map(|copy| message::address(copy).ok())
            .collect();
        let (_, hash) = key.pk.rsplit_once('#').unwrap_or_default();
        let id = format!("{hash}.{}", dispatch.sent);
        let message = letter
            .render(dispatch.sent)
            .map_err(|_| Sending::Refused(None))
            .and_then(|letter| {
                message::message(letter, &from, &to, &id, self.clock.now())
                    .map_err(|_| Sending::Refused(None))
            })?;
        Ok(Ready {
            from,
            to,
            copies,
            message,
        })
    }

    /// Takes a letter; `None` when another sender has it, or when it is not to be sent any more.
    async fn take(&self, key: &Key, dispatch: &Dispatch) -> Result<Option<Dispatch>, StoreError> {
        match dispatch.take(&self.id, self.clock.now(), share()) {
            Ok(taken) => Ok(self.write(key, dispatch, &taken).await?.then_some(taken)),
            Err(instead) => {
                let _made = self.write(key, dispatch, &instead).await?;
                Ok(None)
            }
        }
    }

    /// Stores what became of a letter that was taken.
    async fn settle(&self, key: &Key, taken: &Dispatch, sending: Sending) -> Result<(), StoreError> {
        let settled = taken.settle(sending, self.clock.now(), share());
        self.count(key, taken, &settled, sending);
        let mut tries = 1;
        loop {
            match self.write(key, taken, &settled).await {
                Ok(_) => return Ok(()),
                Err(error) if tries == SETTLE_TRIES => return Err(error),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(100) * tries).await;
                    tries += 1;
                }
            }
        }
    }

    fn count(&self, key: &Key, taken: &Dispatch, settled: &Dispatch, sending: Sending) {
        let mut progress = self.progress();
        let is_mail = matches!(taken.way, Some(Way::Mail { .. }));
        let sent = &mut progress.sent;
        match sending {
            Sending::Taken if is_mail => sent.mails = sent.mails.saturating_add(1),
            Sending::Taken => sent.posts = sent.posts.saturating_add(1),
            _ => sent.failed = sent.failed.saturating_add(1),
        }
        match sending {
            Sending::Taken | Sending::NoSuchAddress => progress.failures = 0,
            Sending::Refused(_) | Sending::Unsure if is_mail => {
                progress.failures = progress.failures.saturating_add(1);
                // One bad letter says little of the server; many in a row do.
                progress.no_mail_server |= progress.failures >= MOST_FAILURES;
            }
            Sending::NoServer if is_mail => progress.no_mail_server = true,
            Sending::Refused(_) | Sending::Unsure | Sending::NoServer => progress.no_discord = true,
        }
        let reason = match settled.ended {
            Some(Ended::Undeliverable) => "the address takes no mail",
            Some(Ended::GivenUp) => "the mail server has refused it for days",
            _ => return,
        };
        tracing::error!(notice = %key, reason, "a letter is given up");
        if let Some(Letter::UnknownName { written, .. }) = &taken.letter {
            progress.undeliverable.push(Entry {
                kind: EntryKind::Undeliverable,
                transaction: None,
                script: None,
                person: taken.person,
                username: Some(written.clone()),
                reason: reason.to_owned(),
            });
        }
    }

    /// Puts a digest of the letters that were given up into the outbox.
    async fn tell_of_undeliverable(&self) -> Result<(), StoreError> {
        let entries = std::mem::take(&mut self.progress().undeliverable);
        let now = self.clock.now();
        let mut digest = Digest::new(format!("undeliverable {}", self.id), now);
        for entry in entries {
            digest.add(entry);
        }
        let notices = outbox::to_operator(self.tenant, self.mail, self.discord, &digest, now)?;
        if notices.is_empty() {
            return Ok(());
        }
        let writes = notices.into_iter().map(outbox::unless_there).collect();
        let token = telemetry::new_id();
        self.store.transact(&Transaction { token, writes }, now).await?;
        Ok(())
    }

    /// Writes a notice if it is still as it was read. Whether it was.
    async fn write(&self, key: &Key, read: &Dispatch, next: &Dispatch) -> Result<bool, StoreError> {
        let item = outbox::item(self.tenant, key, next)?;
        let condition = Condition::Revision(read.rev);
        let made = self.store.put(item, &condition, self.clock.now()).await?;
        Ok(made.is_made())
    }

    fn is_over(&self) -> bool {
        let progress = self.progress();
        let mail = self.mail.is_some() && !progress.no_mail_server;
        let discord = self.discord.is_some() && !progress.no_discord;
        (!mail && !discord) || Instant::now() + LEAST > self.until
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A letter that can be handed over.
struct Ready {
    from: lettre::Address,
    to: lettre::Address,
    copies: Vec<lettre::Address>,
    message: Vec<u8>,
}

/// A random share of one.
fn share() -> f64 {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(random) / f64::from(u32::MAX)
}
