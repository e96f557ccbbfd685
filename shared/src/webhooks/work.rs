//! What an event asks for. Nothing here does any I/O.

use crate::connections::records::UserRecord;
use crate::ids::UpstreamId;
use crate::snaptrade::AccountId;
use crate::snaptrade::webhook::EventKind;

/// What an event is about, whoever it is that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// That the user exists, which whoever registered it knows already.
    Registered,
    /// Whether the user still exists.
    User,
    /// The user's connections.
    Connections,
    /// The user's connections, of which one could not be made.
    Attempt,
    /// One account, and what it holds.
    Account(AccountId),
    /// One account's transactions.
    Transactions(AccountId),
    /// One account, which was read for the first time: what it holds, and its transactions.
    FirstRead(AccountId),
    /// Nothing that is known here.
    Nothing,
}

/// What is to be done about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Ask SnapTrade whether the user still exists.
    Verify,
    /// Read the user's connections and accounts again, and what accounts hold that were not known before.
    Connections,
    /// The same after an attempt to connect, of which SnapTrade does not say which visit it was of.
    Attempt,
    /// Read the user's accounts again, and what this account holds.
    Account(AccountId),
    /// Read this account's transactions again.
    Transactions(AccountId),
    /// Read the user's accounts, what this account holds, and its transactions.
    FirstRead(AccountId),
    /// Nothing, for this reason.
    Ignore(&'static str),
}

/// What an event of this kind is about.
#[must_use]
pub fn hint(kind: &EventKind) -> Hint {
    match kind {
        EventKind::UserRegistered => Hint::Registered,
        EventKind::UserDeleted => Hint::User,
        EventKind::ConnectionAttempted { .. } | EventKind::ConnectionFailed => Hint::Attempt,
        EventKind::ConnectionAdded { .. }
        | EventKind::ConnectionDeleted { .. }
        | EventKind::ConnectionBroken { .. }
        | EventKind::ConnectionFixed { .. }
        | EventKind::ConnectionUpdated { .. } => Hint::Connections,
        EventKind::TransactionsInitialUpdate(account) => Hint::FirstRead(account.account_id.clone()),
        // Of what the account holds another event tells.
        EventKind::TransactionsUpdated(account) => Hint::Transactions(account.account_id.clone()),
        EventKind::NewAccountAvailable(_)
        | EventKind::AccountRemoved(_)
        | EventKind::HoldingsUpdated { .. }
        | EventKind::TradeDetected(_)
        | EventKind::TradeUpdated(_) => match kind.account() {
            Some(account) => Hint::Account(account.account_id.clone()),
            None => Hint::Connections,
        },
        EventKind::Unknown { .. } => Hint::Nothing,
    }
}

/// What is to be done about an event that names `upstream`, when `user` is the record of the user that this id belongs
/// to.
#[must_use]
pub fn decide(hint: &Hint, upstream: Option<&UpstreamId>, user: Option<&UserRecord>) -> Work {
    if *hint == Hint::Nothing {
        return Work::Ignore("unknown event");
    }
    let Some(upstream) = upstream else {
        return Work::Ignore("no user named");
    };
    let Some(active) = user.and_then(UserRecord::active) else {
        return Work::Ignore("no such user");
    };
    // An id is used by one registration only, so this is an event of another one.
    if active.upstream != *upstream {
        return Work::Ignore("earlier registration");
    }
    match hint {
        Hint::Registered => Work::Ignore("known already"),
        Hint::User => Work::Verify,
        Hint::Connections => Work::Connections,
        Hint::Attempt => Work::Attempt,
        Hint::Account(account) => Work::Account(account.clone()),
        Hint::Transactions(account) => Work::Transactions(account.clone()),
        Hint::FirstRead(account) => Work::FirstRead(account.clone()),
        Hint::Nothing => Work::Ignore("unknown event"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::snaptrade::webhook::Event;

    fn event(event_type: &str, more: serde_json::Value) -> Hint {
        let mut body = json!({
            "webhookId": "w", "eventTimestamp": "2026-11-21T10:00:00Z", "userId": "u", "eventType": event_type,
        });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        hint(&Event::parse(body.to_string().as_bytes()).unwrap().kind)
    }

    #[test]
    fn every_kind_of_event_has_its_hint() {
        let connection = json!({"brokerageAuthorizationId": "c", "brokerageId": "b"});
        let account = json!({"brokerageAuthorizationId": "c", "accountId": "a"});
        assert_eq!(event("USER_REGISTERED", json!({})), Hint::Registered);
        assert_eq!(event("USER_DELETED", json!({})), Hint::User);
        for name in ["ATTEMPTED", "FAILED"] {
            let name = format!("CONNECTION_{name}");
            assert_eq!(event(&name, connection.clone()), Hint::Attempt, "{name}");
        }
        for name in ["ADDED", "DELETED", "BROKEN", "FIXED", "UPDATED"] {
            let name = format!("CONNECTION_{name}");
            assert_eq!(event(&name, connection.clone()), Hint::Connections, "{name}");
        }
        for name in [
            "NEW_ACCOUNT_AVAILABLE",
            "ACCOUNT_REMOVED",
            "ACCOUNT_HOLDINGS_UPDATED",
            "TRADE_DETECTION",
            "TRADE_UPDATE",
        ] {
            assert_eq!(
                event(name, account.clone()),
                Hint::Account(AccountId::new("a")),
                "{name}"
            );
        }
        assert_eq!(
            event("ACCOUNT_TRANSACTIONS_INITIAL_UPDATE", account.clone()),
            Hint::FirstRead(AccountId::new("a"))
        );
        assert_eq!(
            event("ACCOUNT_TRANSACTIONS_UPDATED", account.clone()),
            Hint::Transactions(AccountId::new("a"))
        );
        assert_eq!(event("SOMETHING_NEW", account), Hint::Nothing);
    }

    #[test]
    fn an_event_of_another_registration_is_ignored() {
        let user: UserRecord = serde_json::from_value(json!({
            "user_id": "ada", "stem": "ada", "rev": 1, "created_at": "2026-11-21T10:00:00Z", "protected": false, "state": "active",
            "upstream": "ada~bbbbbbbbbbbb", "secret": {"key_id": "k", "sealed": "s"},
            "last_active_at": "2026-11-21T10:00:00Z", "connections": 0, "broken": false, "secret_rejected": false,
        }))
        .unwrap();
        let id = |text: &str| UpstreamId::from_snaptrade(text);
        let work = |hint: &Hint, upstream: &str| decide(hint, Some(&id(upstream)), Some(&user));
        assert_eq!(work(&Hint::User, "ada~bbbbbbbbbbbb"), Work::Verify);
        assert_eq!(work(&Hint::Connections, "ada~bbbbbbbbbbbb"), Work::Connections);
        for hint in [Hint::User, Hint::Connections, Hint::Account(AccountId::new("a"))] {
            assert_eq!(
                work(&hint, "ada~aaaaaaaaaaaa"),
                Work::Ignore("earlier registration")
            );
            assert_eq!(
                decide(&hint, Some(&id("ada")), None),
                Work::Ignore("no such user")
            );
            assert_eq!(decide(&hint, None, Some(&user)), Work::Ignore("no user named"));
        }
    }
}
