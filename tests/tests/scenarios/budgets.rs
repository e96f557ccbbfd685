//! What requests cost in calls, counted by the function, by the sandbox and by DynamoDB.

use jiff::Timestamp;
use serde_json::json;

use crate::world::{Cost, World};

#[track_caller]
fn within(cost: Cost, snaptrade: u64, dynamodb: u64) {
    assert!(
        cost.snaptrade <= snaptrade && cost.dynamodb <= dynamodb,
        "{cost:?} is more than {snaptrade} calls to SnapTrade and {dynamodb} to DynamoDB"
    );
}

/// A world in which nobody but the caller makes calls: webhooks would have their consumer ask SnapTrade.
async fn quiet(limit: u32) -> World {
    let world = World::with_limit(limit).await;
    world.without_events().await;
    world
}

#[tokio::test]
async fn a_registration_costs_no_more_than_it_has_to() {
    let world = quiet(2).await;
    let (answer, cost) = world.cost(world.register("ada")).await;
    answer.with_status(201);
    within(cost, 1, 3);
    let (answer, cost) = world.cost(world.register("ada")).await;
    answer.with_status(200);
    within(cost, 0, 1);
    world.registered(&["bob"]).await;
    let (answer, cost) = world.cost(world.register("cy")).await;
    assert_eq!(answer.with_status(201)["evicted"]["reason"], "oldest");
    within(cost, 2, 6);
    world.stop().await;
}

#[tokio::test]
async fn the_status_costs_two_reads_and_for_operators_one_list() {
    let world = quiet(2).await;
    world.registered(&["ada"]).await;
    let (answer, cost) = world.cost(world.status("ada")).await;
    answer.with_status(200);
    within(cost, 0, 2);
    let (answer, cost) = world.cost(world.operators_status()).await;
    answer.with_status(200);
    within(cost, 1, 2);
    world.stop().await;
}

#[tokio::test]
async fn a_link_to_the_portal_costs_one_login_one_read_and_one_write() {
    let world = quiet(2).await;
    world.registered(&["ada"]).await;
    let (answer, cost) = world.cost(world.connection_url("ada", json!({}))).await;
    answer.with_status(200);
    within(cost, 1, 2);
    world.stop().await;
}

#[tokio::test]
async fn a_webhook_costs_one_write() {
    let world = quiet(2).await;
    let event = |id: &str| {
        json!({
            "webhookId": id, "clientId": "SANDBOX-CLIENT", "eventTimestamp": Timestamp::now().to_string(),
            "userId": "nobody", "eventType": "USER_DELETED",
        })
    };
    let first = event("w-1");
    for (event, duplicate) in [(&first, false), (&first, true), (&event("w-2"), false)] {
        let (answer, cost) = world.cost(world.send_event(event)).await;
        assert_eq!(answer.with_status(200)["duplicate"], duplicate);
        within(cost, 0, 1);
    }
    world.stop().await;
}

#[tokio::test]
async fn a_burst_of_events_costs_one_reading_and_what_is_known_costs_none() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    world.events_done().await;
    let asked = async |before: usize| world.snaptrade_requests().await.split_off(before);
    let before = world.snaptrade_requests().await.len();
    let made = world.sandbox("connect", json!({"user_id": "ada"})).await;
    let accounts = made["account_ids"].as_array().unwrap().len();
    world.events_done().await;
    // Two lists, and of each account balances, positions and transactions; where the machine is slow and the burst a long
    // one, some of it once more. Each event for itself would cost more than twenty calls.
    let calls = asked(before).await;
    assert!(calls.len() <= 2 * (2 + 3 * accounts), "{calls:#?}");
    let connections = calls.iter().filter(|call| call.ends_with("/authorizations"));
    assert!(connections.count() <= 2, "{calls:#?}");

    // Everything once more, in another order.
    let before = world.snaptrade_requests().await.len();
    for event in world.events_sent().await.iter().rev() {
        let id = json!({"webhook_id": event["webhook_id"]});
        world.sandbox("webhooks/replay", id).await;
    }
    world.events_done().await;
    assert_eq!(asked(before).await, Vec::<String>::new());

    // One account has changed.
    let account = made["account_ids"][0].as_str().unwrap();
    let before = world.snaptrade_requests().await.len();
    let holds = json!({"balances": [{"currency": {"code": "USD"}, "cash": 1}]});
    world.sandbox(&format!("holdings/{account}"), holds).await;
    world.events_done().await;
    let calls = asked(before).await;
    assert_eq!(
        calls.len(),
        3,
        "the list of accounts, balances and positions: {calls:#?}"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_refresh_of_one_account_costs_four_readings_and_a_request_to_its_brokerage() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    let (_, account) = world.connect("ada").await;
    world.events_done().await;
    world.without_events().await;
    world.advance(11).await;
    let scope = json!({"account_id": format!("snaptrade_{account}")});
    let (answer, cost) = world.cost(world.refresh("ada", scope.clone())).await;
    assert_eq!(answer.with_status(200)["upstream_refresh"], "requested");
    within(cost, 5, 7);
    world.advance(11).await;
    let (answer, cost) = world.cost(world.refresh("ada", scope)).await;
    assert_eq!(answer.with_status(200)["upstream_refresh"], "too_recent");
    within(cost, 4, 7);
    world.stop().await;
}
