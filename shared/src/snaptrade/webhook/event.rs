//! The events that webhooks carry.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::WebhookError;
use crate::ids::UpstreamId;
use crate::snaptrade::accounts::AccountId;
use crate::snaptrade::connections::ConnectionId;
use crate::snaptrade::lenient::{self, open_enum};
use crate::snaptrade::orders::OrderV2;

/// An event. Ids are kept as the text that SnapTrade sent; some of the published ones are no UUIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The delivery's id. The same event has the same one when it is delivered again.
    pub webhook_id: String,
    /// When SnapTrade made the event.
    pub timestamp: Timestamp,
    /// Which of the two forms it has, and for which of our clients it is.
    pub schema: Schema,
    /// The user. Under an API key it is the id that we gave the user, under OAuth it is SnapTrade's own.
    pub user_id: Option<UpstreamId>,
    /// What has happened.
    pub kind: EventKind,
}

/// The form of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schema {
    /// That of a client with an API key.
    ApiKey {
        /// Our client id.
        client_id: Option<String>,
    },
    /// That of an OAuth application.
    OAuth {
        /// SnapTrade's word for the form, `oauth_v1`.
        version: String,
        /// The application's client id.
        client_id: Option<String>,
    },
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A user was registered.
    UserRegistered,
    /// A user is gone, with everything that belonged to it.
    UserDeleted,
    /// A user has tried to connect a brokerage.
    ConnectionAttempted {
        /// The brokerage.
        brokerage_id: Option<String>,
        /// What came of it.
        result: Option<AttemptResult>,
    },
    /// A connection was made.
    ConnectionAdded {
        /// The connection.
        connection_id: ConnectionId,
        /// The brokerage.
        brokerage_id: Option<String>,
    },
    /// A connection is gone.
    ConnectionDeleted {
        /// The connection.
        connection_id: ConnectionId,
        /// The brokerage.
        brokerage_id: Option<String>,
    },
    /// The brokerage no longer lets SnapTrade in.
    ConnectionBroken {
        /// The connection.
        connection_id: ConnectionId,
    },
    /// It does again.
    ConnectionFixed {
        /// The connection.
        connection_id: ConnectionId,
    },
    /// A connection was changed.
    ConnectionUpdated {
        /// The connection.
        connection_id: ConnectionId,
    },
    /// A connection could not be made. Nothing is said of which.
    ConnectionFailed,
    /// A connection has an account that was not known.
    NewAccountAvailable(AccountEvent),
    /// A connection has an account no longer.
    AccountRemoved(AccountEvent),
    /// An account's transactions were read for the first time.
    TransactionsInitialUpdate(AccountEvent),
    /// An account has new transactions.
    TransactionsUpdated(AccountEvent),
    /// An account's holdings were read, which may have failed in part.
    HoldingsUpdated {
        /// The account.
        account: AccountEvent,
        /// How it went.
        update: HoldingsUpdate,
    },
    /// Somebody has traded in an account.
    TradeDetected(TradeEvent),
    /// An order placed through SnapTrade has changed.
    TradeUpdated(TradeEvent),
    /// Something that this client does not know, or knows but without the ids that belong to it.
    Unknown {
        /// SnapTrade's word for it.
        event_type: String,
        /// All that SnapTrade says of it, without the obsolete `webhookSecret`.
        value: Value,
    },
}

/// The account that an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEvent {
    /// The account.
    pub account_id: AccountId,
    /// The connection that it belongs to.
    pub connection_id: ConnectionId,
    /// The brokerage, where that is said.
    pub brokerage_id: Option<String>,
}

/// Orders in an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TradeEvent {
    /// The account.
    pub account: AccountEvent,
    /// The orders.
    pub orders: Vec<OrderV2>,
}

/// How reading an account's holdings went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct HoldingsUpdate {
    /// Its whole value.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub total_value: Option<PartUpdate>,
    /// Its positions.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub positions: Option<PartUpdate>,
    /// Its balances.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub balances: Option<PartUpdate>,
    /// Its orders.
    #[serde(default, deserialize_with = "lenient::maybe")]
    pub orders: Option<PartUpdate>,
}

/// How reading one part went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct PartUpdate {
    /// Whether it went well.
    #[serde(default, deserialize_with = "lenient::flag_or_false")]
    pub success: bool,
    /// What went wrong, in whatever form SnapTrade says it.
    #[serde(default)]
    pub error: Option<Value>,
}

open_enum! {
    /// What came of an attempt at connecting a brokerage.
    AttemptResult {
        /// It is connected.
        Success = "SUCCESS",
        /// The brokerage's permission had run out.
        AuthExpired = "AUTH_EXPIRED",
        /// The brokerage's code was wrong.
        InvalidAuthCode = "INVALID_AUTH_CODE",
        /// The portal session was over.
        AuthNotInProgress = "AUTH_NOT_IN_PROGRESS",
        /// Somebody tried to repair a connection with another login.
        DifferentAccount = "DIFFERENT_ACCOUNT",
        /// SnapTrade failed.
        UncaughtError = "UNCAUGHT_ERROR",
        /// The login was wrong.
        InvalidCredentials = "INVALID_CREDENTIALS",
        /// The second factor was wrong.
        InvalidMfaCode = "INVALID_MFA_CODE",
        /// The brokerage showed nothing.
        NoData = "NO_DATA",
    }
}

/// An event as it is sent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    #[serde(default, deserialize_with = "lenient::text")]
    webhook_id: Option<String>,
    /// SnapTrade's own description misspells the name, and some events carry both, with different values.
    #[serde(default, rename = "webookId", deserialize_with = "lenient::text")]
    misspelt_webhook_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    client_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    oauth_client_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    schema_version: Option<String>,
    #[serde(default, deserialize_with = "lenient::time")]
    event_timestamp: Option<Timestamp>,
    #[serde(default, deserialize_with = "lenient::text")]
    user_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    event_type: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    brokerage_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    brokerage_authorization_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    connection_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    account_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    connection_attempted_result: Option<String>,
    #[serde(default)]
    details: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct TradeDetails {
    #[serde(default, deserialize_with = "lenient::list")]
    orders: Vec<OrderV2>,
}

impl Event {
    /// The event in a body whose signature was checked before, now or when it was stored.
    ///
    /// # Errors
    /// [`WebhookError::Malformed`] when it is not a JSON object, or one without an id, a time stamp or a type.
    pub fn parse(body: &[u8]) -> Result<Self, WebhookError> {
        let mut sent: Sent = serde_json::from_slice(body)
            .map_err(|_| WebhookError::Malformed("it is not a JSON object of the expected form"))?;
        let webhook_id = sent
            .webhook_id
            .take()
            .or(sent.misspelt_webhook_id.take())
            .filter(|id| !id.is_empty())
            .ok_or(WebhookError::Malformed("it has no webhookId"))?;
        let timestamp = sent
            .event_timestamp
            .ok_or(WebhookError::Malformed("it has no eventTimestamp"))?;
        let event_type = sent
            .event_type
            .take()
            .ok_or(WebhookError::Malformed("it has no eventType"))?;
        let schema = match sent.schema_version.take() {
            Some(version) => Schema::OAuth {
                version,
                client_id: sent.oauth_client_id.take(),
            },
            None => Schema::ApiKey {
                client_id: sent.client_id.take(),
            },
        };
        let user_id = sent.user_id.take().map(UpstreamId::from_snaptrade);
        let kind = match kind(&event_type, &sent) {
            Some(kind) => kind,
            None => unknown(event_type, body),
        };
        Ok(Self {
            webhook_id,
            timestamp,
            schema,
            user_id,
            kind,
        })
    }
}

impl EventKind {
    /// SnapTrade's word for what has happened.
    #[must_use]
    pub fn event_type(&self) -> &str {
        match self {
            Self::UserRegistered => "USER_REGISTERED",
            Self::UserDeleted => "USER_DELETED",
            Self::ConnectionAttempted { .. } => "CONNECTION_ATTEMPTED",
            Self::ConnectionAdded { .. } => "CONNECTION_ADDED",
            Self::ConnectionDeleted { .. } => "CONNECTION_DELETED",
            Self::ConnectionBroken { .. } => "CONNECTION_BROKEN",
            Self::ConnectionFixed { .. } => "CONNECTION_FIXED",
            Self::ConnectionUpdated { .. } => "CONNECTION_UPDATED",
            Self::ConnectionFailed => "CONNECTION_FAILED",
            Self::NewAccountAvailable(_) => "NEW_ACCOUNT_AVAILABLE",
            Self::AccountRemoved(_) => "ACCOUNT_REMOVED",
            Self::TransactionsInitialUpdate(_) => "ACCOUNT_TRANSACTIONS_INITIAL_UPDATE",
            Self::TransactionsUpdated(_) => "ACCOUNT_TRANSACTIONS_UPDATED",
            Self::HoldingsUpdated { .. } => "ACCOUNT_HOLDINGS_UPDATED",
            Self::TradeDetected(_) => "TRADE_DETECTION",
            Self::TradeUpdated(_) => "TRADE_UPDATE",
            Self::Unknown { event_type, .. } => event_type,
        }
    }

    /// The connection that the event is about, where it names one.
    #[must_use]
    pub fn connection_id(&self) -> Option<&ConnectionId> {
        match self {
            Self::ConnectionAdded { connection_id, .. }
            | Self::ConnectionDeleted { connection_id, .. }
            | Self::ConnectionBroken { connection_id }
            | Self::ConnectionFixed { connection_id }
            | Self::ConnectionUpdated { connection_id } => Some(connection_id),
            _ => self.account().map(|account| &account.connection_id),
        }
    }

    /// The account that the event is about, where it names one.
    #[must_use]
    pub fn account(&self) -> Option<&AccountEvent> {
        match self {
            Self::NewAccountAvailable(account)
            | Self::AccountRemoved(account)
            | Self::TransactionsInitialUpdate(account)
            | Self::TransactionsUpdated(account)
            | Self::HoldingsUpdated { account, .. } => Some(account),
            Self::TradeDetected(trade) | Self::TradeUpdated(trade) => Some(&trade.account),
            _ => None,
        }
    }
}

/// What a type and the fields that came with it stand for; `None` where the type is not known or a field is missing.
fn kind(event_type: &str, sent: &Sent) -> Option<EventKind> {
    let brokerage_id = || sent.brokerage_id.clone();
    // OAuth's form has another name for the same id.
    let connection_id = || {
        let id = sent
            .brokerage_authorization_id
            .as_ref()
            .or(sent.connection_id.as_ref());
        id.map(ConnectionId::new)
    };
    let account = || {
        Some(AccountEvent {
            account_id: AccountId::new(sent.account_id.as_ref()?),
            connection_id: connection_id()?,
            brokerage_id: brokerage_id(),
        })
    };
    let trade = || {
        Some(TradeEvent {
            account: account()?,
            orders: details::<TradeDetails>(sent).orders,
        })
    };
    Some(match event_type {
        "USER_REGISTERED" => EventKind::UserRegistered,
        "USER_DELETED" => EventKind::UserDeleted,
        "CONNECTION_ATTEMPTED" => EventKind::ConnectionAttempted {
            brokerage_id: brokerage_id(),
            result: sent.connection_attempted_result.clone().map(AttemptResult::from),
        },
        "CONNECTION_ADDED" => EventKind::ConnectionAdded {
            connection_id: connection_id()?,
            brokerage_id: brokerage_id(),
        },
        "CONNECTION_DELETED" => EventKind::ConnectionDeleted {
            connection_id: connection_id()?,
            brokerage_id: brokerage_id(),
        },
        "CONNECTION_BROKEN" => EventKind::ConnectionBroken {
            connection_id: connection_id()?,
        },
        "CONNECTION_FIXED" => EventKind::ConnectionFixed {
            connection_id: connection_id()?,
        },
        "CONNECTION_UPDATED" => EventKind::ConnectionUpdated {
            connection_id: connection_id()?,
        },
        "CONNECTION_FAILED" => EventKind::ConnectionFailed,
        "NEW_ACCOUNT_AVAILABLE" => EventKind::NewAccountAvailable(account()?),
        "ACCOUNT_REMOVED" => EventKind::AccountRemoved(account()?),
        "ACCOUNT_TRANSACTIONS_INITIAL_UPDATE" => EventKind::TransactionsInitialUpdate(account()?),
        "ACCOUNT_TRANSACTIONS_UPDATED" => EventKind::TransactionsUpdated(account()?),
        "ACCOUNT_HOLDINGS_UPDATED" => EventKind::HoldingsUpdated {
            account: account()?,
            update: details(sent),
        },
        "TRADE_DETECTION" => EventKind::TradeDetected(trade()?),
        "TRADE_UPDATE" => EventKind::TradeUpdated(trade()?),
        _ => return None,
    })
}

fn details<T: Default + for<'de> Deserialize<'de>>(sent: &Sent) -> T {
    sent.details
        .as_ref()
        .and_then(|details| serde_json::from_str(details.get()).ok())
        .unwrap_or_default()
}

fn unknown(event_type: String, body: &[u8]) -> EventKind {
    let mut value: Value = serde_json::from_slice(body).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.remove("webhookSecret");
    }
    EventKind::Unknown { event_type, value }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::snaptrade::{Action, OrderStatus};

    fn sent(event_type: &str, more: Value) -> Value {
        let mut event = json!({
            "webhookId": "b3rth000-0000-4000-8000-notahexuuid0",
            "clientId": "BERTH-TEST",
            "eventTimestamp": "2026-03-04T05:06:07.123456+00:00",
            "userId": "ada~abcdefghijkl",
            "eventType": event_type,
            "webhookSecret": "obsolete-secret",
        });
        let map = event.as_object_mut().unwrap();
        map.extend(more.as_object().unwrap().clone());
        event
    }

    fn parsed(event_type: &str, more: Value) -> Event {
        Event::parse(sent(event_type, more).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn all_sixteen_kinds_of_event_are_understood() {
        let connection = json!({"brokerageAuthorizationId": "conn-1"});
        let with_brokerage = json!({"brokerageAuthorizationId": "conn-1", "brokerageId": "brok-1"});
        let account = json!({"brokerageAuthorizationId": "conn-1", "accountId": "acc-1"});
        for (event_type, more) in [
            ("USER_REGISTERED", json!({})),
            ("USER_DELETED", json!({})),
            (
                "CONNECTION_ATTEMPTED",
                json!({"brokerageId": "b", "connectionAttemptedResult": "SUCCESS"}),
            ),
            ("CONNECTION_ADDED", with_brokerage.clone()),
            ("CONNECTION_DELETED", with_brokerage),
            ("CONNECTION_BROKEN", connection.clone()),
            ("CONNECTION_FIXED", connection.clone()),
            ("CONNECTION_UPDATED", connection),
            ("CONNECTION_FAILED", json!({})),
            ("NEW_ACCOUNT_AVAILABLE", account.clone()),
            ("ACCOUNT_REMOVED", account.clone()),
            ("ACCOUNT_TRANSACTIONS_INITIAL_UPDATE", account.clone()),
            ("ACCOUNT_TRANSACTIONS_UPDATED", account.clone()),
            ("ACCOUNT_HOLDINGS_UPDATED", account.clone()),
            ("TRADE_DETECTION", account.clone()),
            ("TRADE_UPDATE", account),
        ] {
            let event = parsed(event_type, more.clone());
            assert!(!matches!(event.kind, EventKind::Unknown { .. }), "{event_type}");
            assert_eq!(event.kind.event_type(), event_type);
            assert_eq!(event.user_id.unwrap().as_str(), "ada~abcdefghijkl");
            assert_eq!(event.timestamp.to_string(), "2026-03-04T05:06:07.123456Z");
            let connection = event.kind.connection_id().map(ConnectionId::as_str);
            assert_eq!(
                connection.is_some(),
                more.get("brokerageAuthorizationId").is_some()
            );
            let account = event.kind.account().map(|account| account.account_id.as_str());
            assert_eq!(account.is_some(), more.get("accountId").is_some());
        }
    }

    #[test]
    fn what_is_not_known_or_incomplete_is_kept_whole_but_for_the_obsolete_secret() {
        for (event_type, more) in [
            ("SOMETHING_NEW", json!({"x": [1, {"y": null}]})),
            ("CONNECTION_ADDED", json!({"brokerageId": "b"})),
            ("ACCOUNT_REMOVED", json!({"brokerageAuthorizationId": "c"})),
        ] {
            let EventKind::Unknown {
                event_type: word,
                value,
            } = parsed(event_type, more.clone()).kind
            else {
                panic!("{event_type}");
            };
            assert_eq!(word, event_type);
            let mut expected = sent(event_type, more);
            expected.as_object_mut().unwrap().remove("webhookSecret");
            assert_eq!(value, expected);
        }
        assert!(!format!("{:?}", parsed("NEW", json!({}))).contains("obsolete-secret"));
    }

    #[test]
    fn an_update_of_holdings_says_which_part_failed() {
        let event = parsed(
            "ACCOUNT_HOLDINGS_UPDATED",
            json!({
                "accountId": "4c0ffee-not-hex", "brokerageAuthorizationId": "c", "brokerageId": "b",
                "details": {
                    "total_value": {"success": true, "error": null},
                    "positions": {"success": false, "error": "the brokerage was closed"},
                    "balances": {"success": true, "error": null},
                    "orders": {"success": false, "error": {"code": 3000}},
                },
            }),
        );
        let EventKind::HoldingsUpdated { account, update } = event.kind else {
            panic!()
        };
        assert_eq!(account.brokerage_id.as_deref(), Some("b"));
        assert!(update.total_value.unwrap().success);
        assert_eq!(
            update.positions.unwrap().error,
            Some(json!("the brokerage was closed"))
        );
        assert!(!update.orders.unwrap().success);
    }

    #[test]
    fn a_trade_carries_its_orders_and_the_rightly_spelt_id_counts() {
        let event = parsed(
            "TRADE_DETECTION",
            json!({
                "webookId": "misspelt", "accountId": "a", "brokerageAuthorizationId": "c", "brokerageId": "b",
                "details": {"orders": [{
                    "brokerage_order_id": "77", "brokerage_group_order_id": null, "order_role": null,
                    "status": "EXECUTED", "order_type": "LIMIT", "time_in_force": "DAY", "price_currency": "CAD",
                    "limit_price": "7.2500000000", "stop_price": null, "trailing_stop": null,
                    "execution_price": "7.2400000000",
                    "time_placed": "2026-03-04T05:06:01.500000Z", "time_executed": "2026-03-04T05:06:02.750000Z",
                    "legs": [{
                        "action": "SELL_TO_CLOSE", "leg_id": null, "status": "EXECUTED",
                        "instrument": {"symbol": "XYZ   270115P00012500", "figi_code": null, "asset_type": "OPTION",
                            "description": "XYZ put", "exchange_mic_code": "OPRA"},
                        "total_quantity": "3.000000000", "execution_price": "7.2400000000",
                        "filled_quantity": "3.000000000", "canceled_quantity": null,
                    }],
                }]},
            }),
        );
        assert_eq!(event.webhook_id, "b3rth000-0000-4000-8000-notahexuuid0");
        let EventKind::TradeDetected(trade) = event.kind else {
            panic!()
        };
        let order = &trade.orders[0];
        assert_eq!(order.status, Some(OrderStatus::Executed));
        assert_eq!(order.limit_price.unwrap().to_string(), "7.2500000000");
        assert_eq!(order.legs[0].action, Some(Action::SellToClose));
        assert_eq!(order.legs[0].total_quantity, Some(3.into()));
    }

    #[test]
    fn the_misspelt_id_serves_where_there_is_no_other() {
        let mut event = sent("USER_DELETED", json!({"webookId": "only"}));
        event.as_object_mut().unwrap().remove("webhookId");
        assert_eq!(
            Event::parse(event.to_string().as_bytes()).unwrap().webhook_id,
            "only"
        );
    }

    #[test]
    fn the_oauth_form_is_recognised() {
        let event = parsed(
            "CONNECTION_ADDED",
            json!({"schemaVersion": "oauth_v1", "oauthClientId": "app", "connectionId": "c", "brokerageId": "b"}),
        );
        let schema = Schema::OAuth {
            version: "oauth_v1".to_owned(),
            client_id: Some("app".to_owned()),
        };
        assert_eq!(event.schema, schema);
        assert_eq!(event.kind.connection_id().map(ConnectionId::as_str), Some("c"));
    }
}
