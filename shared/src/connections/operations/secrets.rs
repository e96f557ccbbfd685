//! A registered user's secret, and what is seen of the user.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::{Connections, Failure, MAX_TRIES};
use crate::connections::machine::AuditEntry;
use crate::connections::records::UserRecord;
use crate::connections::runner::{self, NoSecret};
use crate::ids::UserId;
use crate::snaptrade::{ErrorKind, UserCredentials};
use crate::store::{self, Outcome, Transaction};
use crate::user_secrets::{self, SealedSecret};

impl Connections<'_> {
    /// Writes a line into a user's audit trail, and notes that the user was seen, in one call.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn note(
        &self,
        user: &UserRecord,
        action: &str,
        detail: &[(&str, &str)],
    ) -> Result<(), Failure> {
        self.note_with(user, action, detail, Vec::new()).await
    }

    /// As [`Connections::note`], together with other writes: all of them are made, or none.
    ///
    /// # Errors
    /// [`Failure::Store`]; [`Failure::NoSuchUser`] when the user is no longer active, or another write's condition does
    /// not hold.
    pub async fn note_with(
        &self,
        user: &UserRecord,
        action: &str,
        detail: &[(&str, &str)],
        others: Vec<store::Write>,
    ) -> Result<(), Failure> {
        let author = self.author();
        let at = self.runner.now();
        let stem = user.stem.clone();
        let entry: AuditEntry = author.audit(&stem, action, detail);
        let token = format!("{}.note.1", author.attempt);
        let audit = store::Write::Put {
            item: self.runner.names().audit_item(&entry, at, &token, 0)?,
            condition: store::Condition::Always,
        };
        // The time of the last activity is outside the revision: it decides nothing that a write depends on, and must
        // not make an eviction or a webhook begin anew.
        let seen = store::Write::Update {
            key: self.runner.names().user(&stem),
            expression: store::Expression {
                update: "SET last_active_at = :now".to_owned(),
                condition: "attribute_exists(last_active_at)".to_owned(),
                values: [(":now".to_owned(), AttributeValue::S(at.to_string()))].into(),
                ..store::Expression::default()
            },
        };
        let transaction = Transaction {
            token,
            writes: [audit, seen].into_iter().chain(others).collect(),
        };
        match self.app.store().transact(&transaction, at).await? {
            Outcome::Won | Outcome::AlreadyMine => Ok(()),
            Outcome::Lost(_) => Err(Failure::NoSuchUser),
        }
    }

    /// What signs the calls of an active user.
    ///
    /// # Errors
    /// [`Failure::NoSecret`].
    pub async fn credentials(&self, user: &UserRecord) -> Result<UserCredentials, Failure> {
        Ok(self.runner.credentials(user).await?)
    }

    /// Notes that SnapTrade no longer accepts the user's secret, so that registering again registers anew.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn mark_secret_rejected(&self, user: &UserRecord) -> Result<(), Failure> {
        // A secret that was replaced since is not the one that was refused.
        let Some(active) = user.active() else {
            return Ok(());
        };
        let names = self.runner.names();
        let update = ActiveUpdate {
            set: "secret_rejected = :yes".to_owned(),
            condition: " AND secret = :secret".to_owned(),
            values: [
                (":yes".to_owned(), AttributeValue::Bool(true)),
                (":secret".to_owned(), names.sealed(user, &active.secret)?),
            ]
            .into(),
        };
        self.update_active(user, update, None).await?;
        Ok(())
    }

    /// Notes how many brokerage connections the user has, and whether one of them is disabled.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn set_connections(&self, user: &UserRecord, count: u32, broken: bool) -> Result<(), Failure> {
        let update = ActiveUpdate {
            set: "connections = :count, broken = :broken".to_owned(),
            values: [
                (":count".to_owned(), AttributeValue::N(count.to_string())),
                (":broken".to_owned(), AttributeValue::Bool(broken)),
            ]
            .into(),
            ..ActiveUpdate::default()
        };
        self.update_active(user, update, None).await?;
        Ok(())
    }

    /// Changes some fields of an active user and leaves the others to whoever else changes them, unless the user has
    /// another incarnation by now: then `false`. What no transition depends on stays outside the revision.
    pub(super) async fn update_active(
        &self,
        user: &UserRecord,
        update: ActiveUpdate,
        audit: Option<(&str, &[(&str, &str)])>,
    ) -> Result<bool, Failure> {
        let Some(active) = user.active() else {
            return Ok(false);
        };
        let (author, at) = (self.author(), self.runner.now());
        let names = self.runner.names();
        let token = format!("{}.set.1", author.attempt);
        let mut values = update.values;
        values.insert(
            ":upstream".to_owned(),
            AttributeValue::S(active.upstream.to_string()),
        );
        values.insert(":active".to_owned(), AttributeValue::S("active".to_owned()));
        let mut writes = vec![store::Write::Update {
            key: names.user(&user.stem),
            expression: store::Expression {
                update: format!("SET {}", update.set),
                condition: format!("upstream = :upstream AND #state = :active{}", update.condition),
                names: [("#state".to_owned(), "state".to_owned())].into(),
                values,
            },
        }];
        if let Some((action, detail)) = audit {
            let entry = author.audit(&user.stem, action, detail);
            writes.push(store::Write::Put {
                item: names.audit_item(&entry, at, &token, 0)?,
                condition: store::Condition::Always,
            });
        }
        let transaction = Transaction { token, writes };
        let mut tries = 1;
        loop {
            match self.app.store().transact(&transaction, at).await {
                Ok(outcome) => return Ok(outcome.is_made()),
                // The same transaction under the same token is not made twice.
                Err(_) if tries < MAX_TRIES => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has SnapTrade make a new secret for a user, and stores it.
    ///
    /// # Errors
    /// [`Failure::NoSecret`] where the user is not registered; [`Failure::SecretRejected`] where SnapTrade no longer
    /// accepts the one that is stored, so that the user has to register again; [`Failure::Snaptrade`];
    /// [`Failure::Store`].
    pub async fn reset_secret(&self, user: &UserId) -> Result<(), Failure> {
        let stem = user.stem();
        let record = self.runner.user(&stem).await?.ok_or(Failure::NoSuchUser)?;
        let credentials = self.credentials(&record).await?;
        // The keys come before the call: without one the new secret could not be stored.
        let keys = self.app.data_keys().get().await.map_err(NoSecret::Keys)?;
        self.note(&record, "secret.reset_asked", &[]).await?;
        let reset = match self.app.snaptrade().once().reset_user_secret(&credentials).await {
            Ok(reset) => reset,
            Err(error) => {
                tracing::warn!(%error, "SnapTrade did not reset a user's secret");
                // An answer that was lost may have taken the old secret with it; only asking tells.
                let rejected = match error.outcome() {
                    crate::snaptrade::Outcome::Refused => error.kind == ErrorKind::UserSecretRejected,
                    crate::snaptrade::Outcome::Unknown => self.is_rejected(&credentials).await,
                };
                if rejected {
                    self.mark_secret_rejected(&record).await?;
                    return Err(Failure::SecretRejected);
                }
                return Err(Failure::Snaptrade(runner::fault(&error)));
            }
        };
        let sealed = user_secrets::seal(&keys, self.runner.tenant(), &stem, &reset.user_secret)
            .map_err(NoSecret::Sealed)?;
        self.store_secret(&record, &sealed).await
    }

    async fn is_rejected(&self, credentials: &UserCredentials) -> bool {
        let answer = self.app.snaptrade().list_connections(credentials).await;
        answer.is_err_and(|error| error.kind == ErrorKind::UserSecretRejected)
    }

    /// Stores a new secret of the same incarnation. It is part of the revision: whoever read the old one must not write
    /// it back.
    async fn store_secret(&self, record: &UserRecord, sealed: &SealedSecret) -> Result<(), Failure> {
        let update = ActiveUpdate {
            set: "secret = :secret, secret_rejected = :no, rev = rev + :one".to_owned(),
            values: [
                (":secret".to_owned(), self.runner.names().sealed(record, sealed)?),
                (":no".to_owned(), AttributeValue::Bool(false)),
                (":one".to_owned(), AttributeValue::N("1".to_owned())),
            ]
            .into(),
            ..ActiveUpdate::default()
        };
        // The old secret is void by now, so an answer of the store that is lost is no reason to stop.
        if self
            .update_active(record, update, Some(("secret.reset", &[])))
            .await?
        {
            Ok(())
        } else {
            Err(Failure::NoSuchUser)
        }
    }
}

/// A change of some fields of an active user's record, in DynamoDB's words.
#[derive(Debug, Default)]
pub(super) struct ActiveUpdate {
    /// What is set.
    pub(super) set: String,
    /// What has to hold besides that it is the same incarnation, beginning with ` AND `; may be empty.
    pub(super) condition: String,
    /// What `:values` stand for.
    pub(super) values: HashMap<String, AttributeValue>,
}
