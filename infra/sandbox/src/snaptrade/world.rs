//! Everything that the sandbox's SnapTrade knows: users, connections, accounts, portal sessions and events
//! sent.
//!
//! All changes are made here, without waiting for anything; whoever holds the world saves it and delivers the
//! events that a change left in the outbox.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::Refusal;
use super::catalogue::{self, Brokerage};
use super::holdings::Account;
use super::ids;
use super::portal::Session;
use super::settings::Settings;
use super::webhooks::{Event, EventType};

/// How many events are kept for replay; older ones are forgotten.
const EVENTS_KEPT: usize = 500;

/// A connection that was refreshed is not refreshed again before this long has passed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// The state that survives a restart. It holds secrets, so it cannot be printed.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct World {
    pub(super) settings: Settings,
    /// In the order of their registration, which is the order of `listUsers`.
    pub(super) users: Vec<User>,
    pub(super) connections: Vec<Connection>,
    pub(super) accounts: Vec<Account>,
    pub(super) sessions: Vec<Session>,
    /// Orders that were previewed and not placed.
    pub(super) previews: Vec<Preview>,
    /// What was sent, oldest first.
    pub(super) events: VecDeque<Event>,
    /// Ids of events that nobody has begun to deliver yet.
    #[serde(skip)]
    pub(super) outbox: Vec<String>,
}

/// A registered user. The secret is not to be printed.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) registered_at: Timestamp,
    /// When an accepted deletion will be complete. Until then the user is listed and works.
    pub(super) deleted_from: Option<Timestamp>,
}

/// A brokerage connection, which SnapTrade also calls an authorization.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Connection {
    pub(super) id: String,
    pub(super) user_id: String,
    /// The brokerage's slug.
    pub(super) broker: String,
    #[serde(rename = "type")]
    pub(super) kind: ConnectionType,
    pub(super) name: String,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    /// Since when it is broken, if it is.
    pub(super) disabled_at: Option<Timestamp>,
    pub(super) refreshed_at: Option<Timestamp>,
    /// When an accepted deletion will be complete.
    pub(super) deleted_from: Option<Timestamp>,
}

/// An order that was previewed, as the caller described it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Preview {
    pub(super) trade_id: String,
    pub(super) user_id: String,
    pub(super) form: Value,
    pub(super) at: Timestamp,
}

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ConnectionType {
    /// Look at accounts.
    Read,
    /// Place orders, too.
    Trade,
}

impl ConnectionType {
    /// SnapTrade's word for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Trade => "trade",
        }
    }
}

/// What came of an attempt to connect a brokerage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connected {
    pub(super) connection_id: String,
    pub(super) account_ids: Vec<String>,
}

impl World {
    /// Completes what is due: deletions that were accepted earlier and first syncs.
    /// Returns whether anything changed.
    pub(super) fn settle(&mut self, now: Timestamp) -> bool {
        let due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        let users: Vec<String> = (self.users.iter())
            .filter(|user| due(user.deleted_from))
            .map(|user| user.id.clone())
            .collect();
        let connections: Vec<Connection> = (self.connections.iter())
            .filter(|connection| due(connection.deleted_from))
            .cloned()
            .collect();
        let synced: Vec<String> = (self.accounts.iter_mut())
            .filter(|account| due(account.syncs_at))
            .map(|account| {
                account.synced(now);
                account.id.clone()
            })
            .collect();
        for id in &users {
            self.forget_user(id, now);
        }
        for connection in &connections {
            self.forget_connection(connection, now);
        }
        for id in &synced {
            self.announce_account(EventType::AccountHoldingsUpdated, id, now);
            self.announce_account(EventType::AccountTransactionsInitialUpdate, id, now);
        }
        !(users.is_empty() && connections.is_empty() && synced.is_empty())
    }

    /// The earliest moment at which [`World::settle`] will have something to do.
    pub(super) fn due_next(&self) -> Option<Timestamp> {
        let users = self.users.iter().filter_map(|user| user.deleted_from);
        let connections = self.connections.iter().filter_map(|one| one.deleted_from);
        let accounts = self.accounts.iter().filter_map(|account| account.syncs_at);
        users.chain(connections).chain(accounts).min()
    }

    /// The user with exactly this id.
    pub(super) fn user(&self, id: &str) -> Option<&User> {
        self.users.iter().find(|user| user.id == id)
    }

    /// The user that a control call names: the one with exactly this id, else the newest whose id is
    /// `<name>~<anything>`.
    pub(super) fn named_user(&self, name: &str) -> Option<&User> {
        let incarnation = |user: &&User| {
            user.id
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('~'))
        };
        self.user(name)
            .or_else(|| self.users.iter().rev().find(incarnation))
    }

    /// Registers a user and returns the secret.
    ///
    /// # Errors
    /// [`Refusal::UserExists`] also while a deletion of that id is pending, and [`Refusal::LimitReached`].
    pub(super) fn register(&mut self, id: &str, now: Timestamp) -> Result<String, Refusal> {
        if self.user(id).is_some() {
            return Err(Refusal::UserExists(id.to_owned()));
        }
        if (self.settings.user_limit).is_some_and(|limit| self.users.len() as u64 >= limit) {
            return Err(Refusal::LimitReached);
        }
        let secret = ids::uuid();
        self.users.push(User {
            id: id.to_owned(),
            secret: secret.clone(),
            registered_at: now,
            deleted_from: None,
        });
        self.announce(EventType::UserRegistered, id, now, &[]);
        Ok(secret)
    }

    /// Accepts the deletion of a user; with the settings' delay it is complete later. Asking again changes
    /// nothing.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such user.
    pub(super) fn delete_user(&mut self, id: &str, now: Timestamp) -> Result<(), Refusal> {
        let due = self.deletion_due(now);
        let user = (self.users.iter_mut().find(|user| user.id == id)).ok_or(Refusal::NotFound)?;
        user.deleted_from.get_or_insert(due);
        self.settle(now);
        Ok(())
    }

    /// Gives the user a new secret, of which the old one dies.
    pub(super) fn reset_secret(&mut self, id: &str) -> Result<String, Refusal> {
        let user = (self.users.iter_mut().find(|user| user.id == id)).ok_or(Refusal::InvalidUser)?;
        user.secret = ids::uuid();
        Ok(user.secret.clone())
    }

    /// The user's connections, oldest first.
    pub(super) fn connections_of(&self, user_id: &str) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(move |one| one.user_id == user_id)
    }

    /// A connection of this user.
    pub(super) fn connection_of(&self, user_id: &str, id: &str) -> Result<&Connection, Refusal> {
        self.connections_of(user_id)
            .find(|one| one.id == id)
            .ok_or(Refusal::NotFound)
    }

    /// The accounts of a connection.
    pub(super) fn accounts_under(&self, connection_id: &str) -> impl Iterator<Item = &Account> {
        self.accounts
            .iter()
            .filter(move |account| account.connection_id == connection_id)
    }

    /// Every account of this user.
    pub(super) fn accounts_of(&self, user_id: &str) -> impl Iterator<Item = &Account> {
        self.connections_of(user_id)
            .flat_map(|connection| self.accounts_under(&connection.id))
    }

    /// An account of this user, with its connection.
    pub(super) fn account_of(&self, user_id: &str, id: &str) -> Result<(&Account, &Connection), Refusal> {
        self.connections_of(user_id)
            .find_map(|connection| {
                let account = self
                    .accounts_under(&connection.id)
                    .find(|account| account.id == id)?;
                Some((account, connection))
            })
            .ok_or(Refusal::NotFound)
    }

    /// Connects a brokerage for a user, as a login in the portal does. The same user and brokerage give the
    /// same connection, repaired where it was broken and upgraded where trading was asked for.
    ///
    /// # Errors
    /// [`Refusal::LimitReached`] after the brokerage's login, as in the real portal.
    pub(super) fn connect(
        &mut self,
        user_id: &str,
        brokerage: &Brokerage,
        kind: ConnectionType,
        now: Timestamp,
    ) -> Result<Connected, Refusal> {
        let standing = (self.connections.iter())
            .find(|one| one.user_id == user_id && one.broker == brokerage.slug && one.deleted_from.is_none())
            .map(|one| one.id.clone());
        let attempt = |world: &mut Self, result: &str| {
            let about = [
                ("connectionAttemptedResult", result.into()),
                ("brokerageId", brokerage.id.into()),
            ];
            world.announce(EventType::ConnectionAttempted, user_id, now, &about);
        };
        if let Some(id) = standing {
            attempt(self, "SUCCESS");
            return self.renew(&id, kind, now);
        }
        if (self.settings.connection_limit).is_some_and(|limit| self.connections.len() as u64 >= limit) {
            attempt(self, "UNCAUGHT_ERROR");
            self.announce(EventType::ConnectionFailed, user_id, now, &[]);
            return Err(Refusal::LimitReached);
        }
        attempt(self, "SUCCESS");
        let connection = Connection {
            id: ids::uuid(),
            user_id: user_id.to_owned(),
            broker: brokerage.slug.to_owned(),
            kind,
            name: format!(
                "Connection-{}",
                self.connections_of(user_id).count().saturating_add(1)
            ),
            created_at: now,
            updated_at: now,
            disabled_at: None,
            refreshed_at: None,
            deleted_from: None,
        };
        let syncs_at = later(now, self.settings.sync_delay_ms);
        let accounts = Account::opened(&connection, brokerage, now, syncs_at);
        let account_ids: Vec<String> = accounts.iter().map(|account| account.id.clone()).collect();
        self.connections.push(connection.clone());
        self.accounts.extend(accounts);
        self.announce_connection(EventType::ConnectionAdded, &connection, now);
        for id in &account_ids {
            self.announce_account(EventType::NewAccountAvailable, id, now);
        }
        self.settle(now);
        Ok(Connected {
            connection_id: connection.id,
            account_ids,
        })
    }

    fn renew(&mut self, id: &str, kind: ConnectionType, now: Timestamp) -> Result<Connected, Refusal> {
        let connection = self.connection_mut(id)?;
        let repaired = connection.disabled_at.take().is_some();
        if kind == ConnectionType::Trade {
            connection.kind = kind;
        }
        connection.updated_at = now;
        let connection = connection.clone();
        let event = if repaired {
            EventType::ConnectionFixed
        } else {
            EventType::ConnectionUpdated
        };
        self.announce_connection(event, &connection, now);
        Ok(Connected {
            connection_id: connection.id,
            account_ids: self
                .accounts_under(id)
                .map(|account| account.id.clone())
                .collect(),
        })
    }

    /// Breaks a connection: it keeps serving what it has, but does not sync any more.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], and [`Refusal::AlreadyDisabled`].
    pub(super) fn break_connection(&mut self, id: &str, now: Timestamp) -> Result<(), Refusal> {
        let connection = self.connection_mut(id)?;
        if connection.disabled_at.is_some() {
            return Err(Refusal::AlreadyDisabled);
        }
        connection.disabled_at = Some(now);
        connection.updated_at = now;
        let connection = connection.clone();
        self.announce_connection(EventType::ConnectionBroken, &connection, now);
        Ok(())
    }

    /// Repairs a connection, as a reconnection in the portal does. One that works already only says so again.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub(super) fn fix_connection(&mut self, id: &str, now: Timestamp) -> Result<(), Refusal> {
        let connection = self.connection_mut(id)?;
        connection.disabled_at = None;
        connection.updated_at = now;
        let connection = connection.clone();
        self.announce_connection(EventType::ConnectionFixed, &connection, now);
        Ok(())
    }

    /// Accepts the deletion of a connection. Asking again changes nothing.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub(super) fn delete_connection(&mut self, id: &str, now: Timestamp) -> Result<(), Refusal> {
        let due = self.deletion_due(now);
        self.connection_mut(id)?.deleted_from.get_or_insert(due);
        self.settle(now);
        Ok(())
    }

    /// Deletes a connection at once, whatever the settings' delay.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub(super) fn remove_connection(&mut self, id: &str, now: Timestamp) -> Result<(), Refusal> {
        self.connection_mut(id)?.deleted_from = Some(now);
        self.settle(now);
        Ok(())
    }

    /// Fetches a connection's data anew and tells of each account.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::ConnectionDisabled`], and [`Refusal::RefreshedTooRecently`].
    pub(super) fn refresh(&mut self, id: &str, now: Timestamp) -> Result<(), Refusal> {
        let connection = self.connection_mut(id)?;
        if connection.disabled_at.is_some() {
            return Err(Refusal::ConnectionDisabled);
        }
        let since = connection
            .refreshed_at
            .map(|at| now.duration_since(at).unsigned_abs());
        if let Some(wait) = since.and_then(|since| REFRESH_INTERVAL.checked_sub(since))
            && !wait.is_zero()
        {
            return Err(Refusal::RefreshedTooRecently {
                wait: wait.as_secs().saturating_add(1),
            });
        }
        connection.refreshed_at = Some(now);
        let accounts: Vec<String> = (self.accounts.iter_mut())
            .filter(|account| account.connection_id == id && account.holdings_synced_at.is_some())
            .map(|account| {
                account.holdings_synced_at = Some(now);
                account.id.clone()
            })
            .collect();
        for account_id in accounts {
            self.announce_account(EventType::AccountHoldingsUpdated, &account_id, now);
        }
        Ok(())
    }

    /// Sends an event about a connection.
    pub(super) fn announce_connection(&mut self, event: EventType, connection: &Connection, now: Timestamp) {
        let brokerage_id = catalogue::brokerage(&connection.broker).map(|brokerage| brokerage.id);
        let mut about = vec![("brokerageAuthorizationId", connection.id.as_str().into())];
        if event.names_brokerage() {
            about.push(("brokerageId", brokerage_id.into()));
        }
        self.announce(event, &connection.user_id, now, &about);
    }

    /// Sends an event about an account.
    pub(super) fn announce_account(&mut self, event: EventType, account_id: &str, now: Timestamp) {
        let Some(account) = self.accounts.iter().find(|account| account.id == account_id) else {
            return;
        };
        let Some(connection) = (self.connections.iter()).find(|one| one.id == account.connection_id) else {
            return;
        };
        let mut about: Vec<(&str, Value)> = vec![
            ("accountId", account_id.into()),
            ("brokerageAuthorizationId", connection.id.as_str().into()),
        ];
        if event.names_brokerage() {
            let brokerage_id = catalogue::brokerage(&connection.broker).map(|brokerage| brokerage.id);
            about.push(("brokerageId", brokerage_id.into()));
        }
        if event == EventType::AccountHoldingsUpdated {
            let done = || serde_json::json!({"success": true, "error": null});
            about.push((
                "details",
                serde_json::json!({
                    "total_value": done(), "positions": done(), "balances": done(), "orders": done(),
                }),
            ));
        }
        let user_id = connection.user_id.clone();
        self.announce(event, &user_id, now, &about);
    }

    /// Records an event and leaves it in the outbox.
    pub(super) fn announce(
        &mut self,
        kind: EventType,
        user_id: &str,
        now: Timestamp,
        about: &[(&str, Value)],
    ) {
        let event = Event::new(kind, user_id, now, about);
        self.outbox.push(event.webhook_id.clone());
        self.events.push_back(event);
        while self.events.len() > EVENTS_KEPT {
            self.events.pop_front();
        }
    }

    fn connection_mut(&mut self, id: &str) -> Result<&mut Connection, Refusal> {
        self.connections
            .iter_mut()
            .find(|one| one.id == id)
            .ok_or(Refusal::NotFound)
    }

    fn forget_user(&mut self, id: &str, now: Timestamp) {
        let connections: Vec<String> = self.connections_of(id).map(|one| one.id.clone()).collect();
        self.accounts
            .retain(|account| !connections.contains(&account.connection_id));
        self.connections.retain(|one| one.user_id != id);
        self.sessions.retain(|session| session.user_id != id);
        self.users.retain(|user| user.id != id);
        self.announce(EventType::UserDeleted, id, now, &[]);
    }

    fn forget_connection(&mut self, connection: &Connection, now: Timestamp) {
        self.accounts
            .retain(|account| account.connection_id != connection.id);
        self.connections.retain(|one| one.id != connection.id);
        // Its user may have gone in the same moment and taken the connection along.
        if self.user(&connection.user_id).is_some() {
            self.announce_connection(EventType::ConnectionDeleted, connection, now);
        }
    }

    fn deletion_due(&self, now: Timestamp) -> Timestamp {
        later(now, self.settings.delete_delay_ms)
    }
}

/// `delay_ms` milliseconds after `now`.
fn later(now: Timestamp, delay_ms: u64) -> Timestamp {
    let delay = SignedDuration::from_millis(i64::try_from(delay_ms).unwrap_or(i64::MAX));
    now.checked_add(delay).unwrap_or(Timestamp::MAX)
}
