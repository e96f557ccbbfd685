//! What is answered, by name.

use serde_json::{Value, json};

use crate::schema::{
    always, boolean, count, decimal, decimal_or_null, has, list, map, may_have, object, one_of, reference,
    reference_or_null, text, text_or_null, time, time_or_null, user_id,
};

/// All schemas of the components.
pub(crate) fn schemas() -> Value {
    let mut all = serde_json::Map::new();
    let named = service()
        .into_iter()
        .chain(limit())
        .chain(connections())
        .chain(portfolio())
        .chain(access());
    for (name, schema) in named {
        all.insert(name.to_owned(), schema);
    }
    Value::Object(all)
}

type Named = (&'static str, Value);

fn service() -> Vec<Named> {
    vec![
        (
            "Problem",
            object([
                has("type", text()),
                has("title", text()),
                has(
                    "status",
                    json!({"type": "integer", "minimum": 400, "maximum": 599}),
                ),
                has("detail", text()),
                has("code", text()),
                has("request_id", text()),
                may_have("errors", list(reference("InputFault"))),
            ]),
        ),
        (
            "InputFault",
            object([has("pointer", text()), has("detail", text())]),
        ),
        ("GatewayMessage", object([has("message", text())])),
        (
            "Version",
            object([has("status", always("ok")), has("version", text())]),
        ),
        (
            "Health",
            object([
                has("status", one_of(&["ok", "unavailable"])),
                has("version", text()),
                has(
                    "checks",
                    object([
                        has("store", text()),
                        has("secrets", text()),
                        has("snaptrade", text()),
                        may_have("access_api", text()),
                        may_have("wordpress", text()),
                    ]),
                ),
            ]),
        ),
        (
            "OpenApi",
            json!({"type": "object", "required": ["openapi", "info", "paths"], "additionalProperties": true}),
        ),
    ]
}

fn limit() -> Vec<Named> {
    let reason = || one_of(&["oldest", "least_recently_active", "broken"]);
    vec![
        ("Slots", object([has("in_use", count()), has("limit", count())])),
        (
            "Evicted",
            object([
                may_have("user_id", text()),
                may_have("connection_id", text()),
                has("reason", reason()),
                has("created_at", time()),
            ]),
        ),
        (
            "Registered",
            object([
                has("success", always(true)),
                has("user_id", user_id()),
                has("created", boolean()),
                has("created_at", time()),
                has("evicted", reference_or_null("Evicted")),
                has("slots", reference("Slots")),
            ]),
        ),
        (
            "Held",
            object([
                has("success", always(true)),
                has("held_until", time_or_null()),
                has("evicted", reference_or_null("Evicted")),
                has("slots", reference("Slots")),
            ]),
        ),
        (
            "Status",
            object([
                has("current_count", count()),
                has("max_connections", count()),
                has("at_limit", boolean()),
                has("available", count()),
                has("counts", one_of(&["users", "connections"])),
                has("users", count()),
                has("connections", count()),
                has("registered", boolean()),
                has("held_until", time_or_null()),
                may_have("tracked_count", count()),
                may_have("upstream_count", count()),
                may_have("in_sync", boolean()),
                may_have("missing", list(text())),
                may_have("unknown", list(text())),
                may_have("oldest", reference_or_null("Oldest")),
                may_have("last_eviction", reference_or_null("LastEviction")),
            ]),
        ),
        (
            "Oldest",
            object([has("user_id", text()), has("created_at", time())]),
        ),
        (
            "LastEviction",
            object([
                has("user_id", text()),
                has("reason", reason()),
                has("created_at", time()),
                has("evicted_at", time()),
            ]),
        ),
        (
            "TrackedUser",
            object([
                has("user_id", text()),
                has("upstream_id", text_or_null()),
                has("state", one_of(&["active", "reserved", "leaving", "adopted"])),
                has("created_at", time()),
                has("last_active_at", time_or_null()),
                has("connections", count()),
                has("protected", boolean()),
            ]),
        ),
        (
            "TrackedUsers",
            object([
                has("data", list(reference("TrackedUser"))),
                has("next_cursor", text_or_null()),
            ]),
        ),
        (
            "Deleted",
            object([
                has("user_id", text()),
                may_have("connection_id", text()),
                has("deleted", always(true)),
                has("upstream", one_of(&["queued", "done", "unknown_there"])),
            ]),
        ),
        (
            "SecretReset",
            object([has("user_id", text()), has("reset", always(true))]),
        ),
        (
            "Synced",
            object([
                has("added", count()),
                has("removed", count()),
                has("repaired", count()),
                has("upstream_count", count()),
                has("tracked_count", count()),
                has("complete", boolean()),
            ]),
        ),
    ]
}

fn connections() -> Vec<Named> {
    vec![
        (
            "PortalLink",
            object([
                has("connection_url", text()),
                has("session_id", text_or_null()),
                has("expires_at", time()),
                has("connection_type", text_or_null()),
                may_have("evicted", reference_or_null("Evicted")),
            ]),
        ),
        (
            "VisitOutcome",
            object([
                has(
                    "outcome",
                    one_of(&["connected", "pending", "failed", "abandoned"]),
                ),
                may_have("connection", reference("Connection")),
            ]),
        ),
        (
            "Connection",
            object([
                has("connection_id", text()),
                has("brokerage", text_or_null()),
                has("type", text_or_null()),
                has("state", one_of(&["active", "broken", "deleting"])),
                has("reason", text_or_null()),
                has("created_at", time_or_null()),
                has("accounts", list(text())),
            ]),
        ),
        (
            "Connections",
            object([has("data", list(reference("Connection")))]),
        ),
        (
            "ConnectionDeleted",
            object([has("connection_id", text()), has("deleted", always("queued"))]),
        ),
        (
            "Brokerage",
            object([
                has("slug", text()),
                has("name", text_or_null()),
                has("description", text_or_null()),
                has("url", text_or_null()),
                has("logo_url", text_or_null()),
                has("allows_trading", boolean()),
                has("enabled", boolean()),
                has("degraded", boolean()),
            ]),
        ),
        ("Brokerages", object([has("data", list(reference("Brokerage")))])),
        (
            "EventReceived",
            object([has("received", always(true)), has("duplicate", boolean())]),
        ),
        ("HintReceived", object([has("received", always(true))])),
    ]
}

/// A part of a portfolio: a list of `of`, and how fresh it is.
fn part(of: &str, more: Vec<crate::schema::Member>) -> Value {
    let members = [has("data", list(reference(of)))];
    let freshness = [has("as_of", time_or_null()), has("stale", boolean())];
    object(members.into_iter().chain(more).chain(freshness))
}

fn portfolio() -> Vec<Named> {
    vec![
        (
            "Amount",
            object([has("amount", decimal()), has("currency", text_or_null())]),
        ),
        (
            "Account",
            object([
                has("account_id", text()),
                has("provider", text()),
                has("institution", text_or_null()),
                has("name", text_or_null()),
                has("number", text_or_null()),
                has("type", text_or_null()),
                has("status", text_or_null()),
                has("total_value", reference_or_null("Amount")),
                has("connection_id", text_or_null()),
                has(
                    "connection_state",
                    json!({"type": ["string", "null"], "enum": ["active", "broken", "deleting", null]}),
                ),
                has("tradable", boolean()),
                has("as_of", time_or_null()),
                has("stale", boolean()),
            ]),
        ),
        ("Accounts", part("Account", vec![])),
        (
            "Refreshed",
            object([
                has("user_id", user_id()),
                has("refreshed_at", time_or_null()),
                has("accounts", list(reference("Account"))),
                has(
                    "upstream_refresh",
                    one_of(&["requested", "not_available", "too_recent"]),
                ),
                has("stale", list(text())),
                has("retry_scheduled", boolean()),
                has("retry_at", time_or_null()),
            ]),
        ),
        (
            "Position",
            object([
                has("account_id", text()),
                has("symbol", text_or_null()),
                has("description", text_or_null()),
                has("kind", text()),
                has("universal_symbol_id", text_or_null()),
                has("units", decimal_or_null()),
                has("price", decimal_or_null()),
                has("currency", text_or_null()),
                has("market_value", decimal_or_null()),
                has("cost_basis", decimal_or_null()),
                has("unrealized_pl", decimal_or_null()),
            ]),
        ),
        (
            "Positions",
            part(
                "Position",
                vec![has(
                    "totals",
                    list(object([
                        has("currency", text_or_null()),
                        has("market_value", decimal()),
                    ])),
                )],
            ),
        ),
        (
            "Balance",
            object([
                has("account_id", text()),
                has("currency", text_or_null()),
                has("cash", decimal_or_null()),
                has("buying_power", decimal_or_null()),
            ]),
        ),
        (
            "Balances",
            part(
                "Balance",
                vec![has(
                    "totals",
                    list(object([has("currency", text_or_null()), has("cash", decimal())])),
                )],
            ),
        ),
        (
            "Transaction",
            object([
                has("transaction_id", text()),
                has("account_id", text()),
                has("type", text_or_null()),
                has("trade_date", time_or_null()),
                has("settlement_date", time_or_null()),
                has("symbol", text_or_null()),
                has("units", decimal_or_null()),
                has("price", decimal_or_null()),
                has("amount", decimal_or_null()),
                has("fee", decimal_or_null()),
                has("currency", text_or_null()),
                has("description", text_or_null()),
            ]),
        ),
        (
            "Transactions",
            part("Transaction", vec![has("next_cursor", text_or_null())]),
        ),
        (
            "Performance",
            object([
                has("account_id", text()),
                has("timeframe", text()),
                has("return_percent", decimal_or_null()),
            ]),
        ),
        ("Performances", part("Performance", vec![])),
        (
            "Mode",
            object([
                has("mode", one_of(&["none", "aggregation", "brokerage", "hybrid"])),
                has("providers", list(text())),
                has("accounts", count()),
            ]),
        ),
        (
            "Change",
            object([
                has(
                    "kind",
                    one_of(&["connections", "accounts", "holdings", "transactions"]),
                ),
                has("account_id", text_or_null()),
                has("changed_at", time()),
            ]),
        ),
        (
            "Changes",
            object([has("etag", text()), has("changed", list(reference("Change")))]),
        ),
        (
            "Day",
            object([
                has("date", json!({"type": "string", "format": "date"})),
                has(
                    "totals",
                    list(object([
                        has("currency", text_or_null()),
                        has("amount", decimal()),
                    ])),
                ),
                has(
                    "accounts",
                    list(object([
                        has("account_id", text()),
                        has("amount", decimal_or_null()),
                        has("currency", text_or_null()),
                    ])),
                ),
                has("gap", boolean()),
            ]),
        ),
        ("History", part("Day", vec![])),
        (
            "StatementTaken",
            object([
                has("account_id", text()),
                has("positions", count()),
                has("balances", count()),
                has("as_of", time()),
            ]),
        ),
        (
            "StatementDeleted",
            object([has("account_id", text()), has("deleted", always(true))]),
        ),
        (
            "EventGivenUp",
            object([
                has("webhook_id", text()),
                has("event_type", text_or_null()),
                has("user_id", text_or_null()),
                has("upstream_id", text_or_null()),
                has("stamped_at", time()),
                has("received_at", time()),
                has("attempts", count()),
                has("reason", text()),
                has("given_up_at", time()),
            ]),
        ),
        (
            "EventsGivenUp",
            object([
                has("data", list(reference("EventGivenUp"))),
                has("next_cursor", text_or_null()),
            ]),
        ),
        (
            "EventReplayed",
            object([has("webhook_id", text()), has("replayed", always(true))]),
        ),
    ]
}

fn access() -> Vec<Named> {
    let person = || json!({"type": "integer"});
    vec![
        (
            "AccessReport",
            object(
                [
                    has("run_id", text()),
                    has("dry_run", boolean()),
                    has("complete", boolean()),
                    has("now", time()),
                    has("ignored", map(count())),
                    has("status", one_of(&["ok", "degraded", "quarantined"])),
                    has(
                        "calls",
                        object(
                            ["transactions", "validate", "grant", "update", "remove", "list"]
                                .map(|name| has(name, count())),
                        ),
                    ),
                    has("warnings", list(text())),
                    has(
                        "open",
                        object(
                            ["retry", "held", "manual_review", "dead_letter"].map(|name| has(name, count())),
                        ),
                    ),
                    may_have("plan", list(reference("PlannedAction"))),
                ]
                .into_iter()
                .chain(
                    [
                        "fetched",
                        "considered",
                        "settled",
                        "granted",
                        "extended",
                        "shortened",
                        "revoked",
                        "kept",
                        "not_applied",
                        "manual_review",
                        "retry",
                        "dead_letter",
                        "quarantined",
                        "held",
                        "mails",
                        "active_users",
                        "rows_per_second",
                        "remaining",
                    ]
                    .map(|name| has(name, count())),
                ),
            ),
        ),
        (
            "PlannedAction",
            object([
                has("script_id", text()),
                has("person", person()),
                has("username", text()),
                has("action", one_of(&["grant", "update", "remove", "none"])),
                has("from", text_or_null()),
                has("to", text_or_null()),
            ]),
        ),
        (
            "AccessPlan",
            object([
                has("id", text()),
                has("created_at", time()),
                has("ledger_version", text()),
                has("plan", list(reference("PlannedAction"))),
                has("held", list(text())),
            ]),
        ),
        (
            "Review",
            object([
                has("id", text()),
                has("transaction_id", text()),
                has("script_id", text()),
                has("person", person()),
                has("reason", text()),
                has("username", text()),
                has("suggestions", list(text())),
                has("created_at", time()),
            ]),
        ),
        (
            "Reviews",
            object([
                has("data", list(reference("Review"))),
                has("next_cursor", text_or_null()),
            ]),
        ),
        (
            "DeadLetter",
            object([
                has("id", text()),
                has("transaction_id", text()),
                has("script_id", text()),
                has("person", person()),
                has("username", text()),
                has("created_at", time()),
            ]),
        ),
        (
            "DeadLetters",
            object([
                has("data", list(reference("DeadLetter"))),
                has("next_cursor", text_or_null()),
            ]),
        ),
        (
            "MasterData",
            object([
                has("script_id", text()),
                has("users", map(reference("MasterDataUser"))),
                has("processed_transactions", list(text())),
                has("retry_queue", list(reference("MasterDataRetry"))),
                has("manual_review", list(reference("MasterDataReview"))),
                has("last_synced_at", time_or_null()),
                has("last_processed_at", time_or_null()),
            ]),
        ),
        (
            "MasterDataUser",
            object([
                has("email", text_or_null()),
                has("wp_user_id", json!({"type": ["integer", "null"]})),
                has("wp_username", text_or_null()),
                has("expiry", time_or_null()),
                has("lifetime", boolean()),
                has("history", list(reference("MasterDataPurchase"))),
            ]),
        ),
        (
            "MasterDataPurchase",
            object([
                has("transaction_id", text()),
                has("created_at", time()),
                has("starts_at", time_or_null()),
                has("ends_at", time_or_null()),
                has("reversed", boolean()),
            ]),
        ),
        (
            "MasterDataRetry",
            object([
                has("transaction_id", text()),
                has("username", text()),
                has("attempts", count()),
                has("next_at", time_or_null()),
            ]),
        ),
        (
            "MasterDataReview",
            object([
                has("id", text()),
                has("transaction_id", text()),
                has("reason", text()),
                has("username", text()),
                has("suggestions", list(text())),
            ]),
        ),
        (
            "Imported",
            object([has("users", count()), has("skipped", list(text()))]),
        ),
    ]
}
