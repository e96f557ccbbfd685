//! What goes wrong with brokerages, and the answer that tells what to do about it.

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn who_never_connected_anything_has_an_empty_portfolio_and_not_an_error() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    for part in ["accounts", "positions", "balances", "transactions", "performance"] {
        let path = format!("/api/portfolio/{part}");
        let answer = world.look("ada", &path).await.with_status(200);
        assert_eq!(
            (&answer["data"], &answer["stale"]),
            (&json!([]), &json!(false)),
            "{part}"
        );
    }
    assert_eq!(world.look("ada", "/api/portfolio/mode").await["mode"], "none");
    let abandoned = world
        .callback("ada", json!({"status": "ABANDONED"}))
        .await
        .with_status(200);
    assert_eq!(abandoned["outcome"], "abandoned");
    let failed = world
        .callback("ada", json!({"status": "ERROR"}))
        .await
        .with_status(200);
    assert_eq!(failed["outcome"], "failed");
    world.stop().await;
}

#[tokio::test]
async fn a_brokerage_that_is_connected_twice_is_there_once() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    let (first, account) = world.connect("ada").await;
    let (second, same) = world.connect("ada").await;
    assert_eq!((&first, &account), (&second, &same));
    world.events_done().await;
    let connections = world
        .look("ada", "/api/snaptrade/connections")
        .await
        .with_status(200);
    assert_eq!(connections["data"].as_array().unwrap().len(), 1);
    let accounts = world
        .look("ada", "/api/portfolio/accounts")
        .await
        .with_status(200);
    assert_eq!(accounts["data"].as_array().unwrap().len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn what_was_never_read_and_cannot_be_read_says_why_and_when_to_ask_again() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    world.without_events().await;
    world.connect("ada").await;
    let path = "/api/portfolio/accounts";
    world.fault("*", "timeout", 99).await;
    let late = world.look("ada", path).await.problem(504, "upstream_timeout");
    assert!(late.retry_after().is_some());
    world.clear_faults().await;
    // Within ten seconds the same is answered to all who look.
    world.advance(11).await;
    world.fail_with("*", 503, 99).await;
    let broken = world.look("ada", path).await.problem(502, "upstream_error");
    assert!(broken.retry_after().is_some());
    world.clear_faults().await;
    world.advance(11).await;
    let fault = json!({"operation": "*", "kind": "rate_limited", "retry_after": 40, "times": 99});
    world.sandbox("faults", fault).await;
    let limited = world.look("ada", path).await.problem(429, "rate_limited");
    assert!((1..=60).contains(&limited.retry_after().unwrap()));
    world.clear_faults().await;
    world.advance(61).await;
    let shown = world.look("ada", path).await.with_status(200);
    assert_eq!(shown["data"].as_array().unwrap().len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn accounts_that_snaptrade_is_still_collecting_are_shown_and_their_figures_are_awaited() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    world
        .sandbox("settings", json!({"sync_delay_ms": 3_600_000}))
        .await;
    let (_, account) = world.connect("ada").await;
    let accounts = world
        .look("ada", "/api/portfolio/accounts")
        .await
        .with_status(200);
    assert_eq!(accounts["data"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&accounts["stale"], &accounts["data"][0]["stale"]),
        (&json!(true), &json!(true))
    );
    let path = format!("/api/portfolio/positions?account_id=snaptrade_{account}");
    let awaited = world.look("ada", &path).await.problem(425, "not_synced_yet");
    assert!(awaited.retry_after().is_some());
    world.stop().await;
}

#[tokio::test]
async fn a_user_whom_snaptrade_forgot_is_told_to_register_again() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    world.without_events().await;
    world
        .delete_behind_our_back(&world.upstream_id("ada").await)
        .await;
    for path in ["/api/portfolio/accounts", "/api/snaptrade/connections"] {
        let refused = world.look("ada", path).await.problem(409, "secret_invalid");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("register the user again"), "{detail}");
    }
    world.register("ada").await.with_status(201);
    assert_eq!(
        world
            .look("ada", "/api/portfolio/accounts")
            .await
            .with_status(200)["data"],
        Value::Array(vec![])
    );
    world.stop().await;
}
