//! The limit where connections are counted: places for visits to the portal, and what becomes of them.

use std::collections::BTreeMap;

use berth::config::{Counts, Policy};
use berth::snaptrade::http_client;
use berth_local::{Data, Options};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use url::form_urlencoded::parse;

use crate::world::{Answer, Cost, World};

type Table = BTreeMap<(String, String), Value>;

/// Brokerages of the sandbox; the same user and brokerage give the same connection.
const BROKERS: [&str; 6] = [
    "ROBINHOOD",
    "SCHWAB",
    "QUESTRADE",
    "COINBASE",
    "FIDELITY",
    "VANGUARD",
];

fn options(limit: u32) -> Options {
    Options {
        limit: Some(limit),
        counts: Some(Counts::Connections),
        ..Options::default()
    }
}

/// A stack that counts connections, with the same limit at SnapTrade.
async fn counting(limit: u32) -> World {
    let world = World::with(options(limit)).await;
    world
        .sandbox("settings", json!({"connection_limit": limit}))
        .await;
    world
}

async fn link(world: &World, user: &str) -> Answer {
    world
        .connection_url(user, json!({"connection_type": "read"}))
        .await
}

/// Picks a brokerage in the portal behind a link, and tells the page's status and text.
async fn visit(link: &Answer, broker: &str) -> (u16, String) {
    let url = link["connection_url"].as_str().unwrap();
    let http = http_client().unwrap();
    assert_eq!(http.get(url).send().await.unwrap().status(), 200);
    let url = reqwest::Url::parse(url).unwrap();
    let given: Vec<(String, String)> = parse(url.query().unwrap().as_bytes()).into_owned().collect();
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in given {
        form.append_pair(&name, &value);
    }
    let form = form
        .append_pair("broker", broker)
        .append_pair("action", "connect")
        .finish();
    let answer = http
        .post(url.join("/snapTrade/portal").unwrap())
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await
        .unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Asks for a link and connects through it.
async fn connected(world: &World, user: &str, broker: &str) {
    let link = link(world, user).await.with_status(200);
    assert_eq!(link["evicted"], Value::Null);
    let (status, page) = visit(&link, broker).await;
    assert_eq!(status, 200, "{page}");
    world.events_done().await;
}

/// Connections at SnapTrade, those that it is deleting included.
async fn at_snaptrade(world: &World) -> u64 {
    let stats = world.stack().app("scenarios").snaptrade().stats().await.unwrap();
    stats.total_active_connections.unwrap() + stats.total_disabled_connections.unwrap()
}

/// A number of the table's.
fn number(value: &Value) -> u64 {
    value.as_str().map_or(0, |digits| digits.parse().unwrap())
}

/// Asserts that the count is what the records say, and that it is this.
#[track_caller]
fn counted(table: &Table, places: u64, leaving: u64) {
    let slots = table.iter().find(|((_, sk), _)| sk == "SLOTS").unwrap().1;
    let (mut in_use, mut going) = (0, 0);
    for ((_, sk), item) in table {
        if sk == "CONNS" && item["epoch"] == slots["epoch"] {
            let ids = item["ids"].as_object().unwrap();
            let left = ids.values().filter(|one| !one["leaving"].is_null()).count() as u64;
            in_use += ids.len() as u64 - left + u64::from(!item["portal"].is_null());
            going += left;
        }
        if sk == "GHOST" && item["state"] != "gone" {
            going += number(&item["connections"]);
        }
    }
    let said = (number(&slots["in_use"]), number(&slots["leaving"]));
    assert_eq!(said, (in_use, going), "{table:#?}");
    assert_eq!(said, (places, leaving), "{table:#?}");
}

#[tokio::test]
async fn registering_takes_no_place_and_a_link_takes_one_that_its_connection_then_has() {
    let world = counting(2).await;
    world.registered(&["ada", "bob", "cy"]).await;
    let status = world.status("ada").await.with_status(200);
    assert_eq!(
        (&status["counts"], &status["current_count"], &status["users"]),
        (&json!("connections"), &json!(0), &json!(3))
    );
    let first = link(&world, "ada").await.with_status(200);
    assert_eq!(first["evicted"], Value::Null);
    counted(&world.table().await, 1, 0);
    let status = world.status("ada").await.with_status(200);
    assert_eq!(
        (&status["current_count"], &status["connections"]),
        (&json!(1), &json!(0))
    );
    assert!(status["held_until"].is_string(), "{}", status.text);
    // Another link comes under the same place.
    link(&world, "ada").await.with_status(200);
    counted(&world.table().await, 1, 0);
    let (status, _) = visit(&first, "ROBINHOOD").await;
    assert_eq!(status, 200);
    world.events_done().await;
    counted(&world.table().await, 1, 0);
    let status = world.status("ada").await.with_status(200);
    assert_eq!(
        (&status["current_count"], &status["connections"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(status["held_until"], Value::Null);
    world.stop().await;
}

#[tokio::test]
async fn a_link_costs_one_call_to_snaptrade_and_two_to_the_table_below_the_limit() {
    let world = counting(3).await;
    world.without_events().await;
    world.registered(&["ada"]).await;
    let (answer, cost) = world.cost(link(&world, "ada")).await;
    answer.with_status(200);
    assert_eq!(
        cost,
        Cost {
            snaptrade: 1,
            dynamodb: 2
        }
    );
    // Another one under the same visit is given only after looking what came of the first.
    let (answer, cost) = world.cost(link(&world, "ada")).await;
    answer.with_status(200);
    assert_eq!(
        cost,
        Cost {
            snaptrade: 2,
            dynamodb: 4
        }
    );
    world.stop().await;
}

#[tokio::test]
async fn a_place_that_no_connection_came_of_is_given_back_when_its_time_has_passed() {
    let world = counting(1).await;
    world.registered(&["ada", "bob"]).await;
    link(&world, "ada").await.with_status(200);
    // There is nothing that could give way, and waiting helps.
    let refused = link(&world, "bob").await.problem(409, "connection_limit_reached");
    assert!(
        refused.retry_after().is_some_and(|wait| wait <= 1_810),
        "{}",
        refused.text
    );
    world.advance(1_806).await;
    assert_eq!(world.status("bob").await["current_count"], 0);
    let answer = link(&world, "bob").await.with_status(200);
    assert_eq!(answer["evicted"], Value::Null);
    counted(&world.table().await, 1, 0);
    // Without anybody who asks, the sync gives it back.
    world.advance(1_806).await;
    world.sync().await.with_status(200);
    counted(&world.table().await, 0, 0);
    world.stop().await;
}

#[tokio::test]
async fn an_attempt_that_failed_keeps_the_place_for_ten_minutes_more() {
    let world = counting(2).await;
    world.registered(&["ada", "bob"]).await;
    world.without_events().await;
    // SnapTrade's own limit is lower than ours, so that its portal refuses.
    world.sandbox("settings", json!({"connection_limit": 0})).await;
    let first = link(&world, "ada").await.with_status(200);
    let api = format!("{}/api/snaptrade/webhook", world.stack().urls().api);
    world.sandbox("settings", json!({"webhook_url": api})).await;
    let (status, page) = visit(&first, "ROBINHOOD").await;
    assert_eq!(status, 403);
    assert!(page.contains("Connection Limit Reached"), "{page}");
    let failed = |events: &[Value]| {
        events
            .iter()
            .any(|event| event["event_type"] == "CONNECTION_FAILED")
    };
    let sent = world.events_sent().await;
    assert!(failed(&sent), "{sent:#?}");
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    counted(&world.table().await, 1, 0);
    world.advance(606).await;
    assert_eq!(world.status("bob").await["current_count"], 0);
    world.stop().await;
}

#[tokio::test]
async fn a_lost_webhook_is_made_up_for_by_the_sync() {
    let world = counting(2).await;
    world.registered(&["ada"]).await;
    world.without_events().await;
    let answer = link(&world, "ada").await.with_status(200);
    let (status, _) = visit(&answer, "ROBINHOOD").await;
    assert_eq!(status, 200);
    world.sync().await.with_status(200);
    counted(&world.table().await, 1, 0);
    assert_eq!(world.status("ada").await["connections"], 1);
    // It also finds one that nobody was given a link for.
    let connect = json!({"user_id": "ada", "broker": "SCHWAB"});
    world.sandbox("connect", connect).await;
    world.sync().await.with_status(200);
    counted(&world.table().await, 2, 0);
    world.stop().await;
}

#[tokio::test]
async fn the_sixth_connection_has_the_oldest_give_way_and_says_why() {
    let world = counting(5).await;
    world.registered(&["ada", "bob"]).await;
    for (number, broker) in BROKERS.iter().take(5).enumerate() {
        connected(&world, if number == 0 { "ada" } else { "bob" }, broker).await;
        world.advance(10).await;
    }
    let full = world.status("ada").await.with_status(200);
    assert_eq!((&full["at_limit"], &full["available"]), (&json!(true), &json!(0)));
    let path = "/api/snaptrade/connection-url";
    let body = json!({"user_id": "bob", "connection_type": "read"});
    let answer = world
        .send(world.as_operator(Method::POST, path).json(&body))
        .await
        .with_status(200);
    assert_eq!(answer["evicted"]["reason"], "oldest", "{}", answer.text);
    assert_eq!(answer["evicted"]["user_id"], "ada");
    assert!(answer["evicted"]["connection_id"].is_string());
    world.events_done().await;
    assert_eq!(at_snaptrade(&world).await, 4);
    counted(&world.table().await, 5, 0);
    let status = world.operators_status().await.with_status(200);
    assert_eq!(status["last_eviction"]["user_id"], "ada", "{}", status.text);
    let audit = world.table().await;
    let evicted = audit
        .iter()
        .filter(|(_, item)| item["action"] == "connection.evicted" && item["subject"] == "ada")
        .count();
    assert_eq!(evicted, 1);
    let (status, _) = visit(&answer, "VANGUARD").await;
    assert_eq!(status, 200);
    world.events_done().await;
    assert_eq!(at_snaptrade(&world).await, 5);
    counted(&world.table().await, 5, 0);
    // A user is not told whose it was.
    let own = link(&world, "ada").await.with_status(200);
    assert_eq!(own["evicted"]["reason"], "oldest");
    assert_eq!(
        (&own["evicted"]["user_id"], &own["evicted"]["connection_id"]),
        (&Value::Null, &Value::Null)
    );
    world.stop().await;
}

#[tokio::test]
async fn nobody_gives_way_by_the_policy_none_and_protected_users_never_do() {
    let world = World::with(Options {
        policy: Some(Policy::None),
        ..options(1)
    })
    .await;
    world.registered(&["ada", "bob"]).await;
    connected(&world, "ada", "ROBINHOOD").await;
    let refused = link(&world, "bob").await.problem(409, "connection_limit_reached");
    assert_eq!(refused.retry_after(), None);
    world.stop().await;

    let world = counting(1).await;
    world.registered(&["ada", "bob"]).await;
    connected(&world, "ada", "ROBINHOOD").await;
    world.protect("ada").await;
    link(&world, "bob").await.problem(409, "connection_limit_reached");
    counted(&world.table().await, 1, 0);
    world.stop().await;
}

#[tokio::test]
async fn a_repair_takes_no_place_and_names_a_connection_that_is_there() {
    let world = counting(1).await;
    world.registered(&["ada", "bob"]).await;
    connected(&world, "ada", "ROBINHOOD").await;
    let same = json!({"user_id": "ada", "broker": "ROBINHOOD"});
    let id = world.sandbox("connect", same).await["connection_id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.sandbox(&format!("connections/{id}/break"), json!({})).await;
    world.events_done().await;
    counted(&world.table().await, 1, 0);
    let wish = json!({"connection_type": "read", "reconnect": id});
    let answer = world.connection_url("ada", wish.clone()).await.with_status(200);
    assert_eq!(answer["evicted"], Value::Null);
    counted(&world.table().await, 1, 0);
    world.connection_url("bob", wish).await.problem(404, "not_found");
    let unknown = json!({"reconnect": "00000000-0000-4000-8000-000000000000"});
    world
        .connection_url("ada", unknown)
        .await
        .problem(404, "not_found");
    counted(&world.table().await, 1, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_at_once_on_the_last_place_take_it_once() {
    let world = counting(2).await;
    let names: Vec<String> = (0..10).map(|number| format!("user-{number}")).collect();
    world.registered(&["ada"]).await;
    connected(&world, "ada", "ROBINHOOD").await;
    world.protect("ada").await;
    let names_of: Vec<&str> = names.iter().map(String::as_str).collect();
    world.registered(&names_of).await;
    let answers = join_all(names.iter().map(|name| link(&world, name))).await;
    let given = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(given, 1);
    for answer in answers.into_iter().filter(|answer| answer.status != 200) {
        answer.problem(409, "connection_limit_reached");
    }
    counted(&world.table().await, 2, 0);
    // Ten of the same user share one place.
    world.advance(1_806).await;
    let answers = join_all((0..10).map(|_| link(&world, "user-3"))).await;
    for answer in answers {
        answer.with_status(200);
    }
    counted(&world.table().await, 2, 0);
    world.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_slow_to_go_keeps_the_link_waiting_and_the_place_kept() {
    let world = counting(1).await;
    world.registered(&["ada", "bob"]).await;
    connected(&world, "ada", "ROBINHOOD").await;
    world
        .sandbox("settings", json!({"delete_delay_ms": 120_000}))
        .await;
    let pending = link(&world, "bob").await.problem(503, "deletion_pending");
    assert!(pending.retry_after().is_some());
    counted(&world.table().await, 1, 1);
    let again = link(&world, "bob").await.problem(503, "deletion_pending");
    assert!(again.retry_after().is_some());
    counted(&world.table().await, 1, 1);
    world.advance(130).await;
    let answer = link(&world, "bob").await.with_status(200);
    let (status, page) = visit(&answer, "SCHWAB").await;
    assert_eq!(status, 200, "{page}");
    world.events_done().await;
    counted(&world.table().await, 1, 0);
    assert_eq!(at_snaptrade(&world).await, 1);
    world.stop().await;
}

#[tokio::test]
async fn a_secret_that_is_rejected_changes_no_count_and_its_user_goes_as_a_whole() {
    let world = counting(2).await;
    world.registered(&["ada", "bob"]).await;
    connected(&world, "ada", "ROBINHOOD").await;
    connected(&world, "ada", "SCHWAB").await;
    let upstream = world.upstream_id("ada").await;
    // SnapTrade forgets the secret but not the user.
    let app = world.stack().app("scenarios");
    let connections =
        berth::connections::Connections::new(&app, berth::ids::TenantId::default(), "test", true);
    let ada = berth::ids::UserId::parse("ada").unwrap();
    let record = connections.runner().user(&ada.stem()).await.unwrap().unwrap();
    let credentials = connections.credentials(&record).await.unwrap();
    app.snaptrade().reset_user_secret(&credentials).await.unwrap();
    link(&world, "ada").await.problem(409, "secret_invalid");
    world.sync().await.with_status(200);
    link(&world, "ada").await.problem(409, "secret_invalid");
    // Two connections and the place that was to be hers.
    counted(&world.table().await, 2, 0);
    let answer = link(&world, "bob").await.with_status(200);
    assert_eq!(answer["evicted"]["reason"], "oldest");
    assert!(!world.at_snaptrade().await.contains(&upstream));
    world.settle().await;
    counted(&world.table().await, 1, 0);
    let registered = world.register("ada").await.with_status(201);
    assert_eq!(registered["evicted"], Value::Null);
    world.stop().await;
}

#[tokio::test]
async fn a_user_who_leaves_takes_connections_and_places_along() {
    let world = counting(3).await;
    world.registered(&["ada", "bob"]).await;
    connected(&world, "ada", "ROBINHOOD").await;
    connected(&world, "bob", "ROBINHOOD").await;
    link(&world, "ada").await.with_status(200);
    counted(&world.table().await, 3, 0);
    world.delete_user("ada").await.with_status(200);
    world.settle().await;
    counted(&world.table().await, 1, 0);
    assert_eq!(at_snaptrade(&world).await, 1);
    world.stop().await;
}

#[tokio::test]
async fn a_hold_keeps_a_place_for_the_next_connection() {
    let world = counting(2).await;
    world.registered(&["ada", "bob"]).await;
    connected(&world, "bob", "ROBINHOOD").await;
    connected(&world, "bob", "SCHWAB").await;
    let held = world.hold("ada").await.with_status(200);
    assert_eq!(held["evicted"]["reason"], "oldest", "{}", held.text);
    assert_eq!(held["slots"], json!({"in_use": 2, "limit": 2}));
    let again = world.hold("ada").await.with_status(200);
    assert_eq!(
        (&again["held_until"], &again["evicted"]),
        (&held["held_until"], &Value::Null)
    );
    world.events_done().await;
    let answer = link(&world, "ada").await.with_status(200);
    assert_eq!(answer["evicted"], Value::Null);
    counted(&world.table().await, 2, 0);
    // Somebody who is not registered yet may hold one, too, and use it once registered.
    world.advance(1_806).await;
    world.sync().await.with_status(200);
    let early = world.hold("dee").await.with_status(200);
    assert_eq!(early["evicted"], Value::Null);
    counted(&world.table().await, 2, 0);
    world.registered(&["dee"]).await;
    link(&world, "dee").await.with_status(200);
    counted(&world.table().await, 2, 0);
    world.stop().await;
}

#[tokio::test]
async fn what_counts_can_be_changed_with_data_there_in_both_directions() {
    let directory = tempfile::tempdir().unwrap();
    let on = |counts| Options {
        counts: Some(counts),
        limit: Some(5),
        data: Data::Directory(directory.path().to_owned()),
        ..Options::default()
    };
    let world = World::with(on(Counts::Users)).await;
    world.registered(&["ada", "bob"]).await;
    for broker in ["ROBINHOOD", "SCHWAB"] {
        world
            .sandbox("connect", json!({"user_id": "ada", "broker": broker}))
            .await;
    }
    assert_eq!(world.status("ada").await["current_count"], 2);
    world.stop().await;

    let world = World::with(on(Counts::Connections)).await;
    world
        .sandbox("connect", json!({"user_id": "bob", "broker": "ROBINHOOD"}))
        .await;
    world.events_done().await;
    link(&world, "ada").await.with_status(200);
    counted(&world.table().await, 4, 0);
    world.register("cy").await.with_status(201);
    let status = world.status("ada").await.with_status(200);
    assert_eq!(
        (&status["counts"], &status["current_count"]),
        (&json!("connections"), &json!(4))
    );
    world.stop().await;

    let world = World::with(on(Counts::Users)).await;
    world.register("dee").await.with_status(201);
    world.assert_exactly(&["ada", "bob", "cy", "dee"]).await;
    world.stop().await;

    // And back: what was counted the first time is not taken for granted.
    let world = World::with(on(Counts::Connections)).await;
    world.sync().await.with_status(200);
    assert_eq!(world.status("ada").await["connections"], 3);
    world.stop().await;
}

#[tokio::test]
async fn connections_of_users_whose_secrets_are_lost_count_by_the_statistics() {
    let world = counting(2).await;
    world.registered(&["ada"]).await;
    connected(&world, "ada", "ROBINHOOD").await;
    world.lose_the_table().await;
    world.registered(&["bob"]).await;
    assert_eq!(world.status("bob").await["current_count"], 1);
    link(&world, "bob").await.with_status(200);
    world.registered(&["cy"]).await;
    link(&world, "cy").await.problem(409, "connection_limit_reached");
    world.stop().await;
}

#[tokio::test]
async fn room_is_made_by_one_connection_and_where_there_are_too_many_by_as_many_as_are_needed() {
    let world = counting(3).await;
    world.registered(&["ada", "bob"]).await;
    for broker in BROKERS.iter().take(3) {
        connected(&world, "ada", broker).await;
        world.advance(10).await;
    }
    let app = world.stack().app("scenarios");
    let limit = berth::connections::Connections::new(&app, berth::ids::TenantId::default(), "olga", true);
    let made = limit.auto_manage().await.unwrap();
    let deleted = made.deleted.unwrap();
    assert_eq!(
        (deleted.user_id.as_str(), deleted.connection_id.is_some()),
        ("ada", true)
    );
    assert_eq!((made.slots.in_use, made.slots.limit), (2, 3));
    assert!(limit.auto_manage().await.unwrap().deleted.is_none());
    world.events_done().await;
    assert_eq!(at_snaptrade(&world).await, 2);

    // Some come past every link.
    world.sandbox("settings", json!({"connection_limit": null})).await;
    for broker in BROKERS.iter().take(3) {
        world
            .sandbox("connect", json!({"user_id": "bob", "broker": broker}))
            .await;
    }
    world.events_done().await;
    counted(&world.table().await, 5, 0);
    let answer = link(&world, "bob").await.with_status(200);
    assert_eq!(answer["evicted"]["reason"], "oldest");
    world.events_done().await;
    counted(&world.table().await, 3, 0);
    assert_eq!(at_snaptrade(&world).await, 2);
    world.stop().await;
}
