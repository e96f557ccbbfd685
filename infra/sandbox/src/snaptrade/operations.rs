//! The API's operations in one table: method, path, who may call, and what runs.

use std::sync::Arc;

use http::Method;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::answer::Refusal;
use super::auth::Query;
use super::shared::Shared;
use super::{accounts, connections, orders, reference, trading, users};
use crate::faults::normal;

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Anybody.
    Open,
    /// The client, by its signature.
    Client,
    /// The client for a user, by that user's secret.
    User,
}

/// A request whose sender was checked.
pub(super) struct Call<'a> {
    pub(super) shared: &'a Arc<Shared>,
    /// The values of the path's placeholders, in order.
    pub(super) path: Vec<String>,
    pub(super) query: Query,
    /// The body, where it is JSON and not null.
    pub(super) body: Option<Value>,
    /// The user that the call is for; empty where the operation is for none.
    pub(super) user_id: String,
}

impl Call<'_> {
    /// The first placeholder's value.
    pub(super) fn id(&self) -> &str {
        self.path.first().map_or("", String::as_str)
    }

    /// A member of the body.
    pub(super) fn member(&self, name: &str) -> Option<&Value> {
        self.body.as_ref()?.get(name).filter(|value| !value.is_null())
    }

    /// A member of the body that has to be a text where it is there.
    ///
    /// # Errors
    /// [`Refusal::InvalidInput`] when it is not.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.member(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::InvalidInput(format!("{name} has to be a string."))),
        }
    }

    /// A member of the body that has to be there and be a text that is not empty.
    ///
    /// # Errors
    /// [`Refusal::InvalidInput`] when it is not.
    pub(super) fn required_text(&self, name: &str) -> Result<&str, Refusal> {
        self.text(name)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| Refusal::InvalidInput(format!("{name} is required.")))
    }

    /// A member of the body that has to be a boolean where it is there.
    ///
    /// # Errors
    /// [`Refusal::InvalidInput`] when it is not.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Refusal> {
        match self.member(name) {
            None => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| Refusal::InvalidInput(format!("{name} has to be a boolean."))),
        }
    }
}

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    method: Method,
    /// With `{}` in the place of each placeholder.
    path: &'static str,
    /// SnapTrade's operationId without its group.
    id: &'static str,
    pub(super) scope: Scope,
    pub(super) run: fn(&Call<'_>) -> Result<Value, Refusal>,
}

/// What a method and a path lead to.
#[derive(Debug)]
pub(super) enum Found {
    /// An operation, and the values of its placeholders.
    Operation(&'static Operation, Vec<String>),
    /// A known path with another method.
    OtherMethod,
    /// Nothing.
    Nothing,
}

const fn op(
    method: Method,
    path: &'static str,
    id: &'static str,
    scope: Scope,
    run: fn(&Call<'_>) -> Result<Value, Refusal>,
) -> Operation {
    Operation {
        method,
        path,
        id,
        scope,
        run,
    }
}

/// An endpoint that SnapTrade no longer offers to new clients.
fn gone(_: &Call<'_>) -> Result<Value, Refusal> {
    Err(Refusal::Gone)
}

/// An endpoint that has to be enabled for a client first.
fn not_enabled(_: &Call<'_>) -> Result<Value, Refusal> {
    Err(Refusal::NotEnabled)
}

/// Paths without placeholders stand before those with one in the same place.
#[rustfmt::skip]
static OPERATIONS: &[Operation] = {
    use Scope::{Client, Open, User};
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PUT: Method = Method::PUT;
    const DELETE: Method = Method::DELETE;
    &[
        op(GET, "/", "check", Open, reference::check),
        op(POST, "/snapTrade/registerUser", "registerSnapTradeUser", Client, users::register),
        op(DELETE, "/snapTrade/deleteUser", "deleteSnapTradeUser", Client, users::delete),
        op(GET, "/snapTrade/listUsers", "listSnapTradeUsers", Client, users::list),
        op(POST, "/snapTrade/login", "loginSnapTradeUser", User, users::login),
        op(POST, "/snapTrade/resetUserSecret", "resetSnapTradeUserSecret", Client, users::reset_secret),
        op(GET, "/snapTrade/partners", "getPartnerInfo", Client, reference::partner),
        op(GET, "/management/stats", "getStats", Client, reference::stats),
        op(GET, "/snapTrade/stats", "getPartnerStats", Client, reference::stats),
        op(GET, "/authorizations", "listBrokerageAuthorizations", User, connections::list),
        op(GET, "/authorizations/{}", "detailBrokerageAuthorization", User, connections::detail),
        op(DELETE, "/authorizations/{}", "removeBrokerageAuthorization", User, gone),
        op(POST, "/authorizations/{}/refresh", "refreshBrokerageAuthorization", User, connections::refresh),
        op(POST, "/authorizations/{}/transactions/sync", "syncBrokerageAuthorizationTransactions", User, connections::sync_transactions),
        op(POST, "/authorizations/{}/disable", "disableBrokerageAuthorization", User, connections::disable),
        op(GET, "/authorizations/{}/accounts", "listBrokerageAuthorizationAccounts", User, connections::accounts),
        op(GET, "/authorizations/{}/returnRates", "returnRates", User, connections::return_rates),
        op(GET, "/connections/{}/accounts", "listConnectionAccounts", User, connections::accounts_by_kind),
        op(DELETE, "/connection/{}", "deleteConnection", User, connections::delete),
        op(GET, "/accounts", "listUserAccounts", User, accounts::list),
        op(GET, "/accounts/all", "listAllUserAccounts", User, accounts::list_by_kind),
        op(GET, "/accounts/{}", "getUserAccountDetails", User, accounts::detail),
        op(PUT, "/accounts/{}", "updateUserAccount", User, accounts::update),
        op(GET, "/accounts/{}/details", "getAccountDetails", User, accounts::detail_by_kind),
        op(GET, "/accounts/{}/balances", "getUserAccountBalance", User, accounts::balances),
        op(GET, "/accounts/{}/balances/v2", "getAccountBalancesV2", User, accounts::balances_v2),
        op(GET, "/accounts/{}/positions/all", "getAllAccountPositions", User, accounts::positions),
        op(GET, "/accounts/{}/orders", "getUserAccountOrders", User, orders::list),
        op(GET, "/accounts/{}/recentOrders", "getUserAccountRecentOrders", User, orders::recent),
        op(POST, "/accounts/{}/orders/details", "getUserAccountOrderDetail", User, orders::detail),
        op(GET, "/accounts/{}/activities", "getAccountActivities", User, accounts::activities),
        op(GET, "/accounts/{}/balanceHistory", "getAccountBalanceHistory", User, accounts::balance_history),
        op(GET, "/accounts/{}/returnRates", "getUserAccountReturnRates", User, accounts::return_rates),
        op(GET, "/accounts/{}/quotes", "getUserAccountQuotes", User, accounts::quotes),
        op(POST, "/accounts/{}/symbols", "symbolSearchUserAccount", User, accounts::symbols),
        op(GET, "/accounts/{}/orders/v2", "getUserAccountOrdersV2", User, orders::list_v2),
        op(GET, "/accounts/{}/orders/all", "getAllAccountOrders", User, orders::list_by_kind),
        op(GET, "/accounts/{}/recentOrders/v2", "getUserAccountRecentOrdersV2", User, orders::recent_v2),
        op(GET, "/accounts/{}/orders/details/v2/{}", "getUserAccountOrderDetailV2", User, orders::detail_v2),
        op(POST, "/accounts/{}/trading/replace", "replaceOrder", User, trading::replace),
        op(POST, "/accounts/{}/trading/cancel", "cancelOrder", User, trading::cancel),
        op(POST, "/trade/impact", "getOrderImpact", User, trading::impact),
        op(POST, "/trade/place", "placeForceOrder", User, trading::place_unchecked),
        op(POST, "/trade/{}", "placeOrder", User, trading::place_checked),
        op(POST, "/symbols", "getSymbols", Client, reference::search_symbols),
        op(GET, "/symbols/{}", "getSymbolsByTicker", Client, reference::symbol),
        op(GET, "/brokerages", "listAllBrokerages", Client, reference::brokerages),
        op(GET, "/brokerages/{}/instruments", "listAllBrokerageInstruments", Client, reference::instruments),
        op(GET, "/brokerageAuthorizationTypes", "listAllBrokerageAuthorizationType", Client, reference::authorization_types),
        op(GET, "/institutions", "listInstitutions", Open, reference::institutions),
        op(GET, "/exchanges", "getStockExchanges", Client, reference::exchanges),
        // What the sandbox's client has not been given.
        op(GET, "/snapTrade/tradeDetection/subscriptions", "listSubscriptions", Client, not_enabled),
        op(POST, "/snapTrade/tradeDetection/subscriptions", "addSubscription", User, not_enabled),
        op(POST, "/snapTrade/tradeDetection/subscriptions/cancel", "cancelSubscription", Client, not_enabled),
        op(POST, "/accounts/{}/trading/complex", "placeComplexOrder", User, not_enabled),
        op(POST, "/accounts/{}/trading/simple", "placeSimpleOrder", User, not_enabled),
        op(POST, "/accounts/{}/trading/options", "placeMlegOrder", User, not_enabled),
        op(POST, "/accounts/{}/trading/options/impact", "getOptionImpact", User, not_enabled),
        op(POST, "/accounts/{}/trading/crypto", "placeCryptoOrder", User, not_enabled),
        op(POST, "/accounts/{}/trading/crypto/preview", "previewCryptoOrder", User, not_enabled),
        op(GET, "/accounts/{}/trading/instruments/cryptocurrencyPairs", "searchCryptocurrencyPairInstruments", User, not_enabled),
        op(GET, "/accounts/{}/trading/instruments/cryptocurrencyPairs/{}/quote", "getCryptocurrencyPairQuote", User, not_enabled),
        // Endpoints that new clients no longer have.
        op(GET, "/accounts/{}/holdings", "getUserHoldings", User, gone),
        op(GET, "/accounts/{}/positions", "getUserAccountPositions", User, gone),
        op(GET, "/accounts/{}/options", "listOptionHoldings", User, gone),
        op(GET, "/accounts/{}/quotes/options", "getUserAccountOptionQuotes", User, gone),
        op(POST, "/accounts/{}/orders/cancel", "cancelUserAccountOrder", User, gone),
        op(POST, "/accounts/{}/trading/bracket", "placeBracketOrder", User, gone),
        op(GET, "/holdings", "getAllUserHoldings", User, gone),
        op(GET, "/activities", "getActivities", User, gone),
        op(GET, "/performance/custom", "getReportingCustomRange", User, gone),
        op(GET, "/sessionEvents", "getSessionEvents", Client, gone),
        op(GET, "/currencies", "listAllCurrencies", Client, gone),
        op(GET, "/currencies/rates", "listAllCurrenciesRates", Client, gone),
        op(GET, "/securityTypes", "getSecurityTypes", Client, gone),
    ]
};

/// Finds the operation of a method and a raw path without the legacy prefix.
pub(super) fn find(method: &Method, path: &str) -> Found {
    let mut other_method = false;
    for operation in OPERATIONS {
        let Some(values) = operation.matches(path) else {
            continue;
        };
        if operation.method == method {
            return Found::Operation(operation, values);
        }
        other_method = true;
    }
    if other_method {
        Found::OtherMethod
    } else {
        Found::Nothing
    }
}

/// Whether a fault may be meant for some operation of this normal name.
pub(super) fn is_name(name: &str) -> bool {
    OPERATIONS
        .iter()
        .any(|operation| operation.names().any(|known| known == name))
}

impl Operation {
    /// The normal names that a fault may call it by: its operationId, that id without the words that
    /// SnapTrade puts around its heart, and the last fixed segments of its path.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let mut segments = self
            .path
            .rsplit('/')
            .filter(|segment| !segment.is_empty() && *segment != "{}");
        let last = segments.next().unwrap_or("/");
        // `positions/all` is better known as `positions`, and `orders/details` is no kind of `orders`.
        let before = match last {
            "all" | "v2" | "sync" => segments.next(),
            _ => None,
        };
        [Some(self.id), Some(last), before]
            .into_iter()
            .flatten()
            .map(normal)
            .filter(|name| !name.is_empty())
    }

    /// The values of the placeholders, when the path is this operation's.
    fn matches(&self, path: &str) -> Option<Vec<String>> {
        let mut values = Vec::new();
        let mut wanted = self.path.split('/');
        // One slash at the end makes no difference, as in SnapTrade's framework.
        let path = path
            .strip_suffix('/')
            .filter(|rest| !rest.is_empty())
            .unwrap_or(path);
        let mut given = path.split('/');
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return Some(values),
                (Some("{}"), Some(value)) if !value.is_empty() => {
                    values.push(percent_decode_str(value).decode_utf8_lossy().into_owned());
                }
                (Some(fixed), Some(segment)) if fixed == segment => {}
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(method: Method, path: &str) -> String {
        match find(&method, path) {
            Found::Operation(operation, values) => format!("{} {}", operation.id, values.join(",")),
            Found::OtherMethod => "other method".to_owned(),
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn a_fixed_path_comes_before_one_with_a_placeholder() {
        assert_eq!(id(Method::POST, "/trade/impact"), "getOrderImpact ");
        assert_eq!(id(Method::POST, "/trade/abc"), "placeOrder abc");
        assert_eq!(id(Method::GET, "/accounts/all"), "listAllUserAccounts ");
        assert_eq!(
            id(Method::GET, "/accounts/a%20b/balances"),
            "getUserAccountBalance a b"
        );
        assert_eq!(id(Method::GET, "/"), "check ");
        assert_eq!(id(Method::PATCH, "/accounts"), "other method");
        assert_eq!(id(Method::GET, "/account"), "nothing");
        assert_eq!(id(Method::GET, ""), "nothing");
    }

    #[test]
    fn operations_are_known_by_their_path_and_by_their_id() {
        for name in [
            "registerUser",
            "registerSnapTradeUser",
            "deleteUser",
            "listUsers",
            "login",
            "loginSnapTradeUser",
            "listUserAccounts",
            "accounts",
            "balances",
            "positions",
            "authorizations",
            "refresh",
            "partners",
            "deleteConnection",
            "stats",
            "check",
        ] {
            assert!(is_name(&normal(name)), "{name}");
        }
        assert!(!is_name(&normal("registerUsr")));
    }
}
