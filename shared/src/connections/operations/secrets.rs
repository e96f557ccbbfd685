//! A registered user's secret, and what is seen of the user.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::{Connections, Failure, MAX_TRIES};
use crate::connections::machine::{AuditEntry, Change, Expect, Write};
use crate::connections::records::{UserRecord, UserState};
use crate::connections::registration::Refusal;
use crate::connections::runner::{self, NoSecret, new_attempt};
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
        self.set(
            user,
            "SET secret_rejected = :yes",
            [(":yes", AttributeValue::Bool(true))],
        )
        .await
    }

    /// Notes how many brokerage connections the user has, and whether one of them is disabled.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn set_connections(&self, user: &UserRecord, count: u32, broken: bool) -> Result<(), Failure> {
        let values = [
            (":count", AttributeValue::N(count.to_string())),
            (":broken", AttributeValue::Bool(broken)),
        ];
        self.set(user, "SET connections = :count, broken = :broken", values)
            .await
    }

    /// Changes what was seen of an active user, unless it has another incarnation by now. It stays outside the
    /// revision, like all that no transition depends on.
    async fn set<const N: usize>(
        &self,
        user: &UserRecord,
        update: &str,
        values: [(&str, AttributeValue); N],
    ) -> Result<(), Failure> {
        let Some(active) = user.active() else {
            return Ok(());
        };
        let mut values: HashMap<String, AttributeValue> = values
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        values.insert(
            ":upstream".to_owned(),
            AttributeValue::S(active.upstream.to_string()),
        );
        values.insert(":active".to_owned(), AttributeValue::S("active".to_owned()));
        let expression = store::Expression {
            update: update.to_owned(),
            condition: "upstream = :upstream AND #state = :active".to_owned(),
            names: [("#state".to_owned(), "state".to_owned())].into(),
            values,
        };
        let write = store::Write::Update {
            key: self.runner.names().user(&user.stem),
            expression,
        };
        let transaction = Transaction {
            token: format!("{}.set.1", new_attempt()),
            writes: vec![write],
        };
        self.app.store().transact(&transaction, self.runner.now()).await?;
        Ok(())
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
        self.store_secret(record, sealed).await
    }

    async fn is_rejected(&self, credentials: &UserCredentials) -> bool {
        let answer = self.app.snaptrade().list_connections(credentials).await;
        answer.is_err_and(|error| error.kind == ErrorKind::UserSecretRejected)
    }

    /// Stores a new secret of the same incarnation, however often others change the record meanwhile.
    async fn store_secret(&self, mut record: UserRecord, sealed: SealedSecret) -> Result<(), Failure> {
        let stem = record.stem.clone();
        let upstream = record.upstream().cloned();
        for _ in 0..MAX_TRIES {
            let mut changed = UserRecord {
                rev: record.rev + 1,
                ..record.clone()
            };
            if let UserState::Active(active) = &mut changed.state {
                active.secret = sealed.clone();
                active.secret_rejected = false;
            }
            let write = Write::User {
                stem: stem.clone(),
                expect: Expect::Revision(record.rev),
                becomes: Change::Put(Box::new(changed)),
            };
            // The old secret is void by now, so an answer of the store that is lost is no reason to stop.
            if let Ok(true) = self.write(write, &stem, "secret.reset", &[]).await {
                return Ok(());
            }
            let Ok(now) = self.runner.user(&stem).await else {
                continue;
            };
            match now {
                Some(now) if now.upstream() == upstream.as_ref() && now.active().is_some() => {
                    if now.active().is_some_and(|active| active.secret == sealed) {
                        return Ok(());
                    }
                    record = now;
                }
                _ => return Err(Failure::NoSuchUser),
            }
        }
        Err(Refusal::Busy.into())
    }
}
