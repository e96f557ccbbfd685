//! Transactions: read from SnapTrade once, whatever happens meanwhile, and shown newest first.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::world::{Answer, World};

/// The day on which transaction `number` was made, and its id: ten a day.
fn transaction(number: u32) -> Value {
    let (year, day) = (2020 + number / 3600, number / 10 % 360);
    let (month, day) = (day / 30 + 1, day % 28 + 1);
    json!({
        "id": format!("t{number:05}"), "type": if number.is_multiple_of(2) { "BUY" } else { "DIVIDEND" },
        "trade_date": format!("{year}-{month:02}-{day:02}T12:00:00Z"),
        "units": number, "price": 0.1, "amount": -0.1, "fee": 0, "currency": {"code": "USD"},
    })
}

fn activities(numbers: impl Iterator<Item = u32>) -> Value {
    json!({"activities": numbers.map(transaction).collect::<Vec<_>>()})
}

/// How many pages of transactions SnapTrade has given out.
async fn pages_given(world: &World) -> usize {
    let url = format!("{}/__sandbox/requests", world.stack().urls().snaptrade);
    let client = berth::snaptrade::http_client().unwrap();
    let requests: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    requests
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["path"].as_str().unwrap().ends_with("/activities") && one["status"] == 200)
        .count()
}

/// Waits until there are so many transactions, and nothing more is to come.
async fn there_are(world: &World, user: &str, query: &str, count: usize) -> Vec<Value> {
    // Thousands of items take the local engine a while.
    for _ in 0..100 {
        let path = format!("/api/portfolio/transactions?limit=1{query}");
        if world.look(user, &path).await["stale"] == false {
            let rows = all(world, user, query).await;
            if rows.len() == count {
                return rows;
            }
        }
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    panic!("there are not {count} transactions");
}

fn ids(answer: &Answer) -> Vec<String> {
    let rows = answer["data"].as_array().unwrap();
    rows.iter()
        .map(|row| row["transaction_id"].as_str().unwrap().to_owned())
        .collect()
}

/// All of a user's transactions, part by part; each of them once, newest first.
async fn all(world: &World, user: &str, query: &str) -> Vec<Value> {
    let mut rows: Vec<Value> = Vec::new();
    let mut cursor = None;
    loop {
        let further = cursor.map_or_else(String::new, |cursor: String| format!("&cursor={cursor}"));
        let path = format!("/api/portfolio/transactions?limit=500{query}{further}");
        let part = world.look(user, &path).await.with_status(200);
        rows.extend(part["data"].as_array().unwrap().iter().cloned());
        cursor = part["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    let mut seen = BTreeSet::new();
    for row in &rows {
        assert!(seen.insert(row["transaction_id"].to_string()), "{row} came twice");
    }
    let dates: Vec<&str> = rows
        .iter()
        .map(|row| row["trade_date"].as_str().unwrap())
        .collect();
    assert!(dates.is_sorted_by(|earlier, later| earlier >= later));
    rows
}

#[tokio::test]
async fn many_transactions_arrive_whole_and_once_and_news_cost_one_call() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    let (_, account) = world.connect("ada").await;
    world.events_done().await;
    let first = all(&world, "ada", "").await;
    assert!(!first.is_empty());
    let before = pages_given(&world).await;

    world
        .sandbox(&format!("holdings/{account}"), activities(0..3_000))
        .await;
    let query = format!("&account_id=snaptrade_{account}");
    let rows = there_are(&world, "ada", &query, 3_000).await;
    assert_eq!(pages_given(&world).await - before, 3);
    let held: BTreeSet<&str> = rows
        .iter()
        .map(|row| row["transaction_id"].as_str().unwrap())
        .collect();
    let expected: Vec<String> = (0..3_000).map(|number| format!("t{number:05}")).collect();
    assert_eq!(held, expected.iter().map(String::as_str).collect());
    assert_eq!(rows[0]["price"], "0.1");

    // Three new ones, one that SnapTrade took back, and one that it reads otherwise now.
    let mut now = activities((0..3_003).filter(|number| *number != 2_950));
    for row in now["activities"].as_array_mut().unwrap() {
        if row["id"] == "t02960" {
            row["amount"] = json!(-0.2);
        }
    }
    let before = pages_given(&world).await;
    world.sandbox(&format!("holdings/{account}"), now).await;
    let rows = there_are(&world, "ada", &query, 3_002).await;
    assert_eq!(pages_given(&world).await - before, 1);
    assert!(rows.iter().all(|row| row["transaction_id"] != "t02950"));
    let changed = rows.iter().find(|row| row["transaction_id"] == "t02960").unwrap();
    assert_eq!(changed["amount"], "-0.2");
    world.stop().await;
}

#[tokio::test]
async fn a_reading_that_was_cut_off_goes_on_where_it_ended() {
    let world = World::start().await;
    world.registered(&["ada"]).await;
    world.without_events().await;
    let (_, account) = world.connect("ada").await;
    world
        .sandbox(&format!("holdings/{account}"), activities(0..2_500))
        .await;
    // Two lists, two calls for each of two accounts, and then two of three pages.
    world.advance(61).await;
    world
        .sandbox("settings", json!({"rate_limit_per_minute": 8}))
        .await;
    let path = format!("/api/portfolio/transactions?account_id=snaptrade_{account}");
    let part = world.look("ada", &path).await.with_status(200);
    assert_eq!(part["stale"], true);
    assert_eq!(part["data"].as_array().unwrap().len(), 50);
    world
        .sandbox("settings", json!({"rate_limit_per_minute": 250}))
        .await;
    world.advance(61).await;
    let query = format!("&account_id=snaptrade_{account}");
    there_are(&world, "ada", &query, 2_500).await;
    assert_eq!(pages_given(&world).await, 3);
    world.stop().await;
}

#[tokio::test]
async fn transactions_can_be_narrowed_down_and_are_read_again_once_a_day_at_most() {
    let world = World::start().await;
    world.registered(&["ada", "bob"]).await;
    let (_, account) = world.connect("ada").await;
    world.events_done().await;
    world
        .sandbox(&format!("holdings/{account}"), activities(0..60))
        .await;
    world.events_done().await;
    world.without_events().await;
    let look = async |query: &str| {
        let path = format!("/api/portfolio/transactions?account_id=snaptrade_{account}{query}");
        world.look("ada", &path).await
    };
    let whole = look("&limit=500").await.with_status(200);
    assert_eq!((ids(&whole).len(), &whole["next_cursor"]), (60, &Value::Null));
    let row = &whole["data"][0];
    for name in [
        "transaction_id",
        "account_id",
        "type",
        "trade_date",
        "settlement_date",
        "symbol",
        "units",
        "price",
        "amount",
        "fee",
        "currency",
        "description",
    ] {
        assert!(row.get(name).is_some(), "{name}");
    }
    assert_eq!(ids(&look("&type=dividend").await).len(), 30);
    assert_eq!(ids(&look("&type=BUY,DIVIDEND&limit=500").await).len(), 60);
    assert_eq!(
        ids(&look("&start_date=2020-01-02&end_date=2020-01-03").await).len(),
        20
    );
    assert_eq!(ids(&look("&end_date=2019-12-31").await).len(), 0);
    let faults = look("&start_date=yesterday&end_date=2020-13-01&limit=501&cursor=x").await;
    assert_eq!(
        faults.problem(400, "invalid_request")["errors"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    look("&start_date=2020-02-01&end_date=2020-01-01")
        .await
        .problem(400, "invalid_request");
    world
        .look(
            "bob",
            &format!("/api/portfolio/transactions?account_id=snaptrade_{account}"),
        )
        .await
        .problem(404, "not_found");

    // Looking costs no call to SnapTrade, however old they are; the schedule reads them once a day.
    let before = pages_given(&world).await;
    let fire = async || {
        let request = world.request(reqwest::Method::POST, "/__local/schedules/refresh");
        assert_eq!(request.send().await.unwrap().status(), 200);
    };
    for _ in 0..3 {
        world.advance(7 * 3600).await;
        look("").await.with_status(200);
        fire().await;
    }
    assert_eq!(pages_given(&world).await, before);
    world.advance(6 * 3600).await;
    assert_eq!(look("").await["stale"], true);
    fire().await;
    assert_eq!(pages_given(&world).await - before, 2, "one call for each account");
    assert_eq!(look("").await["stale"], false);
    world.stop().await;
}
