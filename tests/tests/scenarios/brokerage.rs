//! From the link to the portal to stored holdings, and what SnapTrade's failures make of it.

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Answer, World};

/// What refreshing answers of an account.
async fn refreshed(world: &World, user: &str, account: &str) -> Value {
    let answer = world.refresh(user, json!({})).await.with_status(200);
    account_in(&answer, account)
}

fn account_in(answer: &Answer, account: &str) -> Value {
    let accounts = answer["accounts"].as_array().unwrap();
    let wanted = format!("snaptrade_{account}");
    let found = accounts.iter().find(|shown| shown["account_id"] == wanted);
    found
        .unwrap_or_else(|| panic!("no {wanted} in {}", answer.text))
        .clone()
}

#[tokio::test]
async fn a_user_connects_a_brokerage_and_sees_what_it_holds() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    let link = world.connection_url("ada", json!({})).await.with_status(200);
    assert_eq!(link["connection_type"], "trade");
    assert!(link["session_id"].as_str().is_some_and(|id| !id.is_empty()));
    let expires: Timestamp = link["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(expires > world.stack().clock().now());
    let url = link["connection_url"].as_str().unwrap();
    assert!(url.starts_with(&world.stack().urls().snaptrade), "{url}");
    let session = json!({"session_id": link["session_id"]});
    let visit = world.callback("ada", session.clone()).await.with_status(200);
    assert_eq!(visit["outcome"], "pending");
    // What the redirect claims is believed only as far as SnapTrade says the same.
    let claimed = json!({"session_id": link["session_id"], "status": "SUCCESS", "connection_id": "made-up"});
    let visit = world.callback("ada", claimed).await.with_status(200);
    assert_eq!(visit["outcome"], "pending");

    let (connection, account) = world.connect("ada").await;
    world.events_done().await;
    let visit = world.callback("ada", session).await.with_status(200);
    assert_eq!(visit["outcome"], "connected");
    assert_eq!(visit["connection"]["connection_id"], connection);
    assert_eq!(world.tracked().await[0]["connections"], 1);
    assert_eq!(world.status("ada").await["connections"], 1);
    // The events alone have brought the account and what it holds.
    let table = world.table().await;
    let data: Vec<_> = table
        .values()
        .filter(|item| item["pk"] == "default#DATA#ada")
        .map(Value::to_string)
        .collect();
    for id in [&connection, &account] {
        assert!(
            data.iter().any(|item| item.contains(id.as_str())),
            "{id}: {data:?}"
        );
    }

    world
        .sandbox(
            &format!("holdings/{account}"),
            json!({
                "balances": [{"currency": {"code": "USD"}, "cash": "1200.50", "buying_power": "1200.50"}],
                "positions": [], "total": {"amount": "1200.50", "currency": "USD"},
            }),
        )
        .await;
    world.events_done().await;
    world.advance(11).await;
    let answer = world.refresh("ada", json!({})).await.with_status(200);
    assert_eq!(answer["user_id"], "ada");
    assert_eq!(answer["stale"], json!([]));
    assert_eq!(answer["upstream_refresh"], "requested");
    assert_eq!(answer["retry_scheduled"], false);
    let shown = account_in(&answer, &account);
    assert_eq!(shown["connection_id"], connection);
    assert_eq!(shown["connection_state"], "active");
    assert_eq!(shown["total_value"]["currency"], "USD");
    let amount: f64 = shown["total_value"]["amount"].as_str().unwrap().parse().unwrap();
    assert!((amount - 1200.5).abs() < 0.001, "{shown}");
    assert!(shown["number"].as_str().unwrap().len() <= 4, "{shown}");

    // The same account is found by its id and by its connection, and what is not there is not found.
    for (scope, accounts) in [
        (json!({"account_id": format!("snaptrade_{account}")}), 1),
        (json!({"connection_id": connection}), 2),
    ] {
        world.advance(11).await;
        let answer = world.refresh("ada", scope).await.with_status(200);
        account_in(&answer, &account);
        assert_eq!(answer["accounts"].as_array().unwrap().len(), accounts);
        assert_eq!(answer["upstream_refresh"], "too_recent");
    }
    for scope in [
        json!({"account_id": "snaptrade_00000000-0000-0000-0000-000000000000"}),
        json!({"connection_id": "00000000-0000-0000-0000-000000000000"}),
    ] {
        world.refresh("ada", scope).await.problem(404, "not_found");
    }

    world
        .sandbox(&format!("connections/{connection}/break"), json!({}))
        .await;
    world.events_done().await;
    world.advance(11).await;
    assert_eq!(
        refreshed(&world, "ada", &account).await["connection_state"],
        "broken"
    );
    let wish = json!({"reconnect": connection});
    let repair = world.connection_url("ada", wish).await.with_status(200);
    assert_eq!(
        repair["connection_type"], "read",
        "the brokerage offers nothing else"
    );
    world
        .sandbox(&format!("connections/{connection}/fix"), json!({}))
        .await;
    world.events_done().await;
    world.advance(11).await;
    assert_eq!(
        refreshed(&world, "ada", &account).await["connection_state"],
        "active"
    );

    world
        .sandbox(&format!("connections/{connection}/delete"), json!({}))
        .await;
    world.events_done().await;
    world.advance(11).await;
    let answer = world.refresh("ada", json!({})).await.with_status(200);
    assert_eq!(answer["accounts"], json!([]));
    assert_eq!(world.tracked().await[0]["connections"], 0);
    world
        .connection_url("ada", json!({"reconnect": connection}))
        .await
        .problem(404, "not_found");
    world.stop().await;
}

#[tokio::test]
async fn only_registered_users_get_links_and_holdings() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    let check = async |user: &str| {
        for answer in [
            world.connection_url(user, json!({})).await,
            world.callback(user, json!({})).await,
            world.refresh(user, json!({})).await,
        ] {
            answer.problem(409, "not_registered");
        }
    };
    check("bob").await;
    world.hold("bob").await.with_status(200);
    check("bob").await;
    for path in ["connection-url", "callback", "refresh"] {
        let request = world
            .as_user("bob", Method::POST, &format!("/api/snaptrade/{path}"))
            .json(&json!({"user_id": "ada"}));
        world.send(request).await.problem(403, "forbidden");
        let request = world
            .as_operator(Method::POST, &format!("/api/snaptrade/{path}"))
            .json(&json!({"user_id": "ada"}));
        world.send(request).await.with_status(200);
    }
    world.lose_the_table().await;
    world.sync().await.with_status(200);
    check("ada").await;
    world.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_wish_for_a_link_is_told_at_once() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    let wish = json!({
        "connection_type": "write", "broker": 5, "redirect_uri": "javascript:alert(1)", "reconnect": [],
        "immediate_redirect": "yes", "dark_mode": 1, "show_close_button": "no", "locale": "de",
    });
    let answer = world
        .connection_url("ada", wish)
        .await
        .problem(400, "invalid_request");
    let mut pointers: Vec<_> = answer["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "/broker",
            "/connection_type",
            "/dark_mode",
            "/immediate_redirect",
            "/locale",
            "/reconnect",
            "/redirect_uri",
            "/show_close_button"
        ]
    );
    for wish in [
        json!({"redirect_uri": "https://evil.example/"}),
        json!({"redirect_uri": "//evil.example/"}),
        json!({"broker": "NO-SUCH-BROKERAGE"}),
    ] {
        world
            .connection_url("ada", wish)
            .await
            .problem(400, "invalid_request");
    }
    world
        .connection_url("ada", json!({"reconnect": "no-such-connection"}))
        .await
        .problem(404, "not_found");
    for wish in [
        json!({"connection_type": "read", "dark_mode": true, "locale": "en", "colour": "red"}),
        json!({"connection_type": "trade-if-available"}),
    ] {
        let expected = wish["connection_type"].clone();
        let link = world.connection_url("ada", wish).await.with_status(200);
        assert_eq!(link["connection_type"], expected);
    }
    world.stop().await;
}

#[tokio::test]
async fn a_user_whom_snaptrade_forgot_registers_again_in_the_same_place() {
    let world = World::with_limit(2).await;
    world.without_events().await;
    world.registered(&["ada", "bob"]).await;
    world
        .delete_behind_our_back(&world.upstream_id("ada").await)
        .await;
    world
        .connection_url("ada", json!({}))
        .await
        .problem(409, "secret_invalid");
    let again = world.register("ada").await.with_status(201);
    assert_eq!(again["evicted"], Value::Null);
    world.assert_exactly(&["ada", "bob"]).await;
    world.assert_secret_works("ada").await;
    world.stop().await;
}

#[tokio::test]
async fn a_failed_login_is_sent_again_and_a_lasting_failure_is_told() {
    let world = World::start().await;
    world.without_events().await;
    world.registered(&["ada"]).await;
    world.fail_with("login", 500, 1).await;
    world.connection_url("ada", json!({})).await.with_status(200);
    world.fault("login", "malformed", 1).await;
    world.connection_url("ada", json!({})).await.with_status(200);
    world.fail_with("login", 503, 100).await;
    world
        .connection_url("ada", json!({}))
        .await
        .problem(502, "upstream_error");
    world.clear_faults().await;
    world.fault("login", "malformed", 100).await;
    world
        .connection_url("ada", json!({}))
        .await
        .problem(502, "upstream_error");
    world.clear_faults().await;
    let fault = json!({"operation": "login", "kind": "rate_limited", "retry_after": 40, "times": 100});
    world.sandbox("faults", fault).await;
    let limited = world
        .connection_url("ada", json!({}))
        .await
        .problem(429, "rate_limited");
    assert!((1..=60).contains(&limited.retry_after().unwrap()));
    world.clear_faults().await;
    world.fault("login", "timeout", 100).await;
    world
        .connection_url("ada", json!({}))
        .await
        .problem(504, "upstream_timeout");
    world.clear_faults().await;
    world.assert_secret_works("ada").await;
    world.assert_exactly(&["ada"]).await;
    world.stop().await;
}

#[tokio::test]
async fn in_an_outage_a_refresh_answers_what_is_stored_and_calls_it_stale() {
    let world = World::start().await;
    world.registered(&["ada", "bob"]).await;
    let (_, account) = world.connect("ada").await;
    world.events_done().await;
    world.without_events().await;
    let before = refreshed(&world, "ada", &account).await;
    assert_eq!(before["stale"], false);
    for status in [500, 503] {
        world.advance(11).await;
        world.fail_with("*", status, 1_000).await;
        let answer = world.refresh("ada", json!({})).await.with_status(200);
        let stale = answer["stale"].as_array().unwrap();
        assert!(
            stale.contains(&json!(format!("snaptrade_{account}"))),
            "{}",
            answer.text
        );
        let shown = account_in(&answer, &account);
        assert_eq!(shown["stale"], true);
        assert_eq!(shown["total_value"], before["total_value"]);
        world.clear_faults().await;
    }
    // Nothing is stored of Bob.
    world.fail_with("*", 500, 1_000).await;
    world
        .refresh("bob", json!({}))
        .await
        .problem(502, "upstream_error");
    world.clear_faults().await;

    world.advance(11).await;
    let fault = json!({"operation": "*", "kind": "rate_limited", "retry_after": 50, "times": 1_000});
    world.sandbox("faults", fault).await;
    let answer = world.refresh("ada", json!({})).await.with_status(200);
    assert_eq!(answer["retry_scheduled"], true);
    let retry_at: Timestamp = answer["retry_at"].as_str().unwrap().parse().unwrap();
    assert!(retry_at > world.stack().clock().now());
    world.clear_faults().await;
    world.advance(61).await;
    assert_eq!(refreshed(&world, "ada", &account).await["stale"], false);
    world.stop().await;
}

#[tokio::test]
async fn refreshes_at_once_are_one() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    world.connect("ada").await;
    world.events_done().await;
    world.without_events().await;
    world.advance(11).await;
    let (_, alone) = world.cost(world.refresh("ada", json!({}))).await;
    world.advance(11).await;
    let before = world.snaptrade_requests().await.len() as u64;
    let answers = futures::future::join_all((0..5).map(|_| world.refresh("ada", json!({})))).await;
    let calls = world.snaptrade_requests().await.len() as u64 - before;
    assert!(calls <= alone.snaptrade, "{calls} instead of {}", alone.snaptrade);
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer["refreshed_at"], answers[0]["refreshed_at"]);
    }
    world.stop().await;
}
