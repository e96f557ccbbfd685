//! A month in which SnapTrade's events come twice, late, in another order, or never. In the end what is stored is what
//! SnapTrade has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use berth::connections::Connections;
use berth::ids::{TenantId, UserId};
use berth::snaptrade::{ActivityFilter, Client, UserCredentials};
use reqwest::Method;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::world::{Answer, World};

const USERS: [&str; 5] = ["ada", "bob", "cy", "dan", "eve"];
const BROKERAGES: [&str; 5] = ["SANDBOX", "ALPACA-PAPER", "ROBINHOOD", "QUESTRADE", "COINBASE"];
const CONNECTIONS: usize = 8;

/// What chance draws the week from.
const SEED: u64 = 20;

/// The variable that holds the seeds of whole months, with blanks between them; `.ci/run month` sets it.
const SEEDS_VARIABLE: &str = "BERTH_MONTHS";

/// Chance, the same for the same seed.
struct Chance(fastrand::Rng);

impl Chance {
    fn per_cent(&mut self, per_cent: u32) -> bool {
        self.0.u32(0..100) < per_cent
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        (!of.is_empty()).then(|| &of[self.0.usize(0..of.len())])
    }
}

/// Where SnapTrade's events go, in place of Berth.
async fn post_box() -> (String, Arc<Mutex<Vec<Value>>>) {
    let events: Arc<Mutex<Vec<Value>>> = Arc::default();
    let take = |State(events): State<Arc<Mutex<Vec<Value>>>>, body: String| async move {
        events.lock().unwrap().push(serde_json::from_str(&body).unwrap());
    };
    let router = Router::new()
        .route("/", post(take))
        .with_state(Arc::clone(&events));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, events)
}

struct Month {
    world: World,
    chance: Chance,
    events: Arc<Mutex<Vec<Value>>>,
    /// What was sent and is still on the way.
    late: Vec<Value>,
    /// Connection, user and accounts.
    connections: BTreeMap<String, (&'static str, Vec<String>)>,
    traded: u32,
}

impl Month {
    async fn begin(seed: u64) -> Self {
        let world = World::start().await;
        let (url, events) = post_box().await;
        world
            .sandbox("settings", json!({"webhook_url": url, "connection_limit": 20}))
            .await;
        world.registered(&USERS).await;
        Self {
            world,
            chance: Chance(fastrand::Rng::with_seed(seed)),
            events,
            late: Vec::new(),
            connections: BTreeMap::new(),
            traded: 0,
        }
    }

    async fn fire(&self, schedule: &str) {
        let path = format!("/__local/schedules/{schedule}");
        let request = self.world.request(Method::POST, &path);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }

    /// Something happens at a brokerage, or a user does something.
    async fn act(&mut self) {
        let known: Vec<String> = self.connections.keys().cloned().collect();
        let chosen = self.chance.one(&known).cloned();
        match (self.chance.0.u32(0..10), chosen) {
            (0..=2, _) | (_, None) if known.len() < CONNECTIONS => {
                let user = *self.chance.one(&USERS).unwrap();
                let broker = *self.chance.one(&BROKERAGES).unwrap();
                let wish = json!({"user_id": user, "broker": broker});
                let made = self.world.sandbox("connect", wish).await;
                let accounts = made["account_ids"].as_array().unwrap();
                let accounts = accounts
                    .iter()
                    .map(|id| id.as_str().unwrap().to_owned())
                    .collect();
                let id = made["connection_id"].as_str().unwrap().to_owned();
                self.connections.insert(id, (user, accounts));
            }
            (3, Some(id)) => {
                self.world
                    .sandbox(&format!("connections/{id}/break"), json!({}))
                    .await;
            }
            (4, Some(id)) => {
                self.world
                    .sandbox(&format!("connections/{id}/fix"), json!({}))
                    .await;
            }
            (5, Some(id)) if known.len() == CONNECTIONS => {
                let (user, _) = self.connections.remove(&id).unwrap();
                if self.chance.per_cent(50) {
                    self.world.disconnect(user, &id).await;
                } else {
                    self.world
                        .sandbox(&format!("connections/{id}/delete"), json!({}))
                        .await;
                }
            }
            (_, Some(id)) => {
                let account = self.chance.one(&self.connections[&id].1).unwrap().clone();
                let holds = self.holds();
                self.world.sandbox(&format!("holdings/{account}"), holds).await;
            }
            (_, None) => {}
        }
    }

    fn holds(&mut self) -> Value {
        let position = |symbol: &str, units: u32| {
            json!({
                "instrument": {"kind": "stock", "id": symbol, "symbol": symbol, "currency": "USD"},
                "units": units.to_string(), "price": "10.01", "cost_basis": "9", "currency": "USD",
            })
        };
        let number = self.chance.0.u32(0..4);
        let positions: Vec<Value> = (0..number)
            .map(|number| position(&format!("S{number}"), number + 1))
            .collect();
        let cash = self.chance.0.u32(0..1_000);
        let mut holds =
            json!({"balances": [{"currency": {"code": "USD"}, "cash": cash}], "positions": positions});
        if self.chance.per_cent(40) {
            self.traded += 4;
            let rows: Vec<Value> = (0..self.traded)
                .map(|number| {
                    json!({
                        "id": format!("t{number}"), "type": "BUY", "amount": number,
                        "trade_date": format!("2025-{:02}-{:02}T10:00:00Z", number / 28 % 12 + 1, number % 28 + 1),
                    })
                })
                .collect();
            holds["activities"] = json!(rows);
        }
        holds
    }

    /// Brings what SnapTrade has sent: some of it never, some twice, some later, all of it in any order.
    async fn post(&mut self) {
        let mut sent = std::mem::take(&mut *self.events.lock().unwrap());
        sent.append(&mut self.late);
        self.chance.0.shuffle(&mut sent);
        for event in sent {
            match self.chance.0.u32(0..100) {
                0..15 => {}
                15..40 => self.late.push(event),
                percent => {
                    // One that is older than three days is refused by now.
                    let answer = self.world.send_event(&event).await;
                    assert!([200, 400].contains(&answer.status), "{}", answer.text);
                    if percent < 60 {
                        self.late.push(event);
                    }
                }
            }
        }
    }

    /// Waits until the events that were taken in are worked on.
    async fn worked_on(&self) {
        let client = self.world.dynamodb_client();
        let table = self.world.table_name();
        for _ in 0..400 {
            let waiting = client
                .scan()
                .table_name(&table)
                .consistent_read(true)
                .filter_expression("sk = :event AND attribute_not_exists(applied_at)")
                .expression_attribute_values(":event", AttributeValue::S("EVENT".to_owned()))
                .into_paginator()
                .items()
                .send()
                .next()
                .await;
            if waiting.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("events still wait");
    }
}

/// What a user has: connections with their state, and of each account cash, positions and transactions.
type Have = (BTreeMap<String, bool>, BTreeMap<String, Holds>);

#[derive(Debug, Default, PartialEq)]
struct Holds {
    cash: BTreeMap<String, Decimal>,
    positions: BTreeMap<String, Decimal>,
    transactions: BTreeSet<String>,
}

/// What SnapTrade has of a user.
async fn at_snaptrade(client: &Client, user: &UserCredentials) -> Have {
    let listed = client.list_connections(user).await.unwrap();
    let mut accounts = BTreeMap::new();
    for account in client.list_accounts(user).await.unwrap() {
        let mut holds = Holds::default();
        for balance in client.account_balances(user, &account.id).await.unwrap() {
            let code = balance.currency.unwrap().code.unwrap();
            holds.cash.insert(code, balance.cash.unwrap().normalize());
        }
        for position in client.account_positions(user, &account.id).await.unwrap().results {
            let symbol = position.instrument.symbol().unwrap().to_owned();
            holds
                .positions
                .insert(symbol, position.units.unwrap().normalize());
        }
        let all = ActivityFilter::default();
        let rows = client
            .account_activities(user, &account.id, &all)
            .collect()
            .await
            .unwrap();
        holds.transactions = rows.into_iter().map(|row| row.id.unwrap()).collect();
        accounts.insert(format!("snaptrade_{}", account.id), holds);
    }
    let connections = listed
        .into_iter()
        .map(|one| (one.id.to_string(), one.disabled))
        .collect();
    (connections, accounts)
}

/// What Berth shows a user.
async fn shown(world: &World, user: &str) -> Have {
    let look = async |path: &str| world.look(user, path).await.with_status(200);
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let figure = |row: &Value, name: &str| text(row, name).parse::<Decimal>().unwrap().normalize();
    let rows = |answer: &Answer| answer["data"].as_array().unwrap().clone();
    let connections = rows(&look("/api/snaptrade/connections").await)
        .iter()
        .map(|row| (text(row, "connection_id"), row["state"] == "broken"))
        .collect();
    let mut accounts: BTreeMap<String, Holds> = rows(&look("/api/portfolio/accounts").await)
        .iter()
        .map(|row| (text(row, "account_id"), Holds::default()))
        .collect();
    for row in rows(&look("/api/portfolio/balances").await) {
        let holds = accounts.get_mut(&text(&row, "account_id")).unwrap();
        holds.cash.insert(text(&row, "currency"), figure(&row, "cash"));
    }
    for row in rows(&look("/api/portfolio/positions").await) {
        let holds = accounts.get_mut(&text(&row, "account_id")).unwrap();
        holds
            .positions
            .insert(text(&row, "symbol"), figure(&row, "units"));
    }
    let mut cursor = String::new();
    loop {
        let part = look(&format!("/api/portfolio/transactions?limit=500{cursor}")).await;
        for row in rows(&part) {
            let holds = accounts.get_mut(&text(&row, "account_id")).unwrap();
            holds.transactions.insert(text(&row, "transaction_id"));
        }
        match part["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (connections, accounts),
        }
    }
}

#[tokio::test]
async fn after_a_week_of_events_that_come_twice_late_or_never_what_is_stored_is_what_snaptrade_has() {
    play(SEED, 7).await;
}

/// Months take minutes, so they are played when seeds are given.
#[tokio::test]
async fn after_a_month_of_events_that_come_twice_late_or_never_what_is_stored_is_what_snaptrade_has() {
    let seeds = std::env::var(SEEDS_VARIABLE).unwrap_or_default();
    for seed in seeds.split_whitespace() {
        play(seed.parse().unwrap(), 30).await;
    }
}

/// Plays so many days, drawn from `seed`.
async fn play(seed: u64, days: u32) {
    let mut month = Month::begin(seed).await;
    for day in 0..days {
        for _ in 0..5 {
            month.act().await;
        }
        month.post().await;
        month.worked_on().await;
        month.world.advance(24 * 3600).await;
        month.fire("refresh").await;
        if day % 2 == 0 {
            month.fire("connection-sync").await;
        }
    }
    // No more events. What was lost is found by the schedule, transactions within a day.
    for _ in 0..3 {
        month.world.advance(9 * 3600).await;
        month.fire("refresh").await;
    }
    let app = month.world.stack().app("scenarios");
    let connections = Connections::new(&app, TenantId::default(), "test", false);
    let (mut counted, mut traded) = (0, 0);
    for user in USERS {
        let stem = UserId::parse(user).unwrap().stem();
        let record = connections.runner().user(&stem).await.unwrap().unwrap();
        let credentials = connections.credentials(&record).await.unwrap();
        let expected = at_snaptrade(app.snaptrade(), &credentials).await;
        assert_eq!(
            shown(&month.world, user).await,
            expected,
            "{user} in the month {seed}"
        );
        counted += expected.0.len();
        traded += expected
            .1
            .values()
            .map(|holds| holds.transactions.len())
            .sum::<usize>();
    }
    assert_eq!(counted, month.connections.len());
    let connections = if days < 30 {
        CONNECTIONS / 2
    } else {
        CONNECTIONS - 1
    };
    assert!(counted >= connections && traded > 50, "{counted} {traded}");
    eprintln!("{days} days from the seed {seed}: {counted} connections with {traded} transactions agree");
    month.world.stop().await;
}
