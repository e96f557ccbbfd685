//! What users see of their connections and accounts, and connections that they delete.

use berth::config::Counts;
use berth_local::Options;
use serde_json::{Value, json};

use crate::world::{Answer, World};

/// A position as SnapTrade gives it.
fn position(kind: &str, symbol: &str, currency: &str, figures: [&str; 3]) -> Value {
    let [units, price, cost] = figures;
    json!({
        "instrument": {
            "kind": kind, "id": format!("id-of-{symbol}"), "symbol": symbol, "description": symbol,
            "currency": currency,
        },
        "units": units, "price": price, "cost_basis": cost, "currency": currency,
    })
}

fn data(answer: &Answer) -> &Vec<Value> {
    answer["data"].as_array().unwrap()
}

/// Ada has a brokerage connected; the connection's id and those of its two accounts as clients see them.
async fn connected() -> (World, String, [String; 2]) {
    let world = World::start().await;
    world.registered(&["ada", "bob"]).await;
    let made = world.sandbox("connect", json!({"user_id": "ada"})).await;
    world.events_done().await;
    let account = |index: usize| format!("snaptrade_{}", made["account_ids"][index].as_str().unwrap());
    let connection = made["connection_id"].as_str().unwrap().to_owned();
    (world, connection, [account(0), account(1)])
}

#[tokio::test]
async fn a_portfolio_is_shown_from_what_is_stored_each_figure_exact_and_each_currency_apart() {
    let (world, connection, [first, second]) = connected().await;
    let usd = |cash: &str| json!({"currency": {"code": "USD"}, "cash": cash, "buying_power": cash});
    let first_holds = json!({
        "balances": [usd("0.10"), {"currency": {"code": "CAD"}, "cash": "7.5"}],
        "positions": [
            position("stock", "AAPL", "USD", ["12", "182.50", "150.25"]),
            position("crypto", "BTC", "USD", ["0.123456789012345678", "64200.123456789", "1"]),
            position("option", "AAPL  261218C00150000", "USD", ["-2", "1.15", "0.90"]),
            position("mutualfund", "FUND", "CAD", ["3.5", "10.10", "9"]),
            {"instrument": {"kind": "beanie_baby", "symbol": "BEAR"}, "units": "1"},
        ],
    });
    let second_holds = json!({"balances": [usd("0.20")], "positions": []});
    for (account, holds) in [(&first, first_holds), (&second, second_holds)] {
        world.sandbox(&format!("holdings/{account}"), holds).await;
    }
    world.events_done().await;
    world.without_events().await;

    let (accounts, cost) = world.cost(world.look("ada", "/api/portfolio/accounts")).await;
    let accounts = accounts.with_status(200);
    assert_eq!((cost.snaptrade, cost.dynamodb), (0, 2));
    assert_eq!(data(&accounts).len(), 2);
    for account in data(&accounts) {
        assert_eq!(account["connection_id"], connection);
        assert_eq!(
            (&account["provider"], &account["stale"]),
            (&json!("snaptrade"), &json!(false))
        );
        assert!(account["number"].as_str().unwrap().len() <= 4);
    }
    assert_eq!(accounts["stale"], false);
    assert!(accounts["as_of"].is_string());

    let (positions, cost) = world.cost(world.look("ada", "/api/portfolio/positions")).await;
    let positions = positions.with_status(200);
    assert_eq!((cost.snaptrade, cost.dynamodb), (0, 2));
    let shown: Vec<_> = data(&positions)
        .iter()
        .map(|one| {
            assert_eq!(one["account_id"], first);
            [
                &one["symbol"],
                &one["market_value"],
                &one["cost_basis"],
                &one["unrealized_pl"],
            ]
        })
        .collect();
    assert_eq!(
        json!(shown),
        json!([
            ["AAPL", "2190.00", "1803.00", "387.00"],
            [
                "BTC",
                "7925.941096171344242278763907942",
                "0.123456789012345678",
                "7925.817639382331896600763907942"
            ],
            ["AAPL  261218C00150000", "-230.00", "-180.00", "-50.00"],
            ["FUND", "35.350", "31.5", "3.850"],
            ["BEAR", null, null, null],
        ])
    );
    assert_eq!(
        positions["totals"],
        json!([
            {"currency": "CAD", "market_value": "35.350"},
            {"currency": "USD", "market_value": "9885.941096171344242278763907942"},
        ])
    );

    let balances = world
        .look("ada", "/api/portfolio/balances")
        .await
        .with_status(200);
    assert_eq!(data(&balances).len(), 3);
    assert_eq!(
        balances["totals"],
        json!([{"currency": "CAD", "cash": "7.5"}, {"currency": "USD", "cash": "0.30"}])
    );
    let path = format!("/api/portfolio/balances?account_id={second}");
    let one = world.look("ada", &path).await.with_status(200);
    assert_eq!(one["totals"], json!([{"currency": "USD", "cash": "0.20"}]));

    let performance = world
        .look("ada", "/api/portfolio/performance")
        .await
        .with_status(200);
    assert_eq!(data(&performance).len(), 12, "six spans of time of each account");
    let (again, cost) = world.cost(world.look("ada", "/api/portfolio/performance")).await;
    assert_eq!(
        (again["data"].clone(), cost.snaptrade),
        (performance["data"].clone(), 0)
    );

    let mode = world.look("ada", "/api/portfolio/mode").await.with_status(200);
    assert_eq!(
        mode.body,
        json!({"mode": "brokerage", "providers": ["snaptrade"], "accounts": 2})
    );
    world.stop().await;
}

#[tokio::test]
async fn a_portfolio_says_what_is_old_and_what_is_not_there() {
    let (world, connection, [first, _]) = connected().await;
    world
        .look("cy", "/api/portfolio/accounts")
        .await
        .problem(409, "not_registered");
    let none = world.look("cy", "/api/portfolio/mode").await.with_status(200);
    assert_eq!(none["mode"], "none");
    for path in [
        "accounts?account_id=snaptrade_none",
        "positions?account_id=plaid_x",
        "balances?account_id=x",
    ] {
        let path = format!("/api/portfolio/{path}");
        world.look("ada", &path).await.problem(404, "not_found");
    }
    let path = format!("/api/portfolio/positions?account_id={first}");
    world.look("bob", &path).await.problem(404, "not_found");
    world
        .look("bob", "/api/portfolio/accounts?user_id=ada")
        .await
        .problem(403, "forbidden");

    // Nothing was ever read of Bob, who has no accounts; it is read once.
    let (empty, cost) = world.cost(world.look("bob", "/api/portfolio/accounts")).await;
    assert_eq!(empty.with_status(200)["data"], json!([]));
    assert!(cost.snaptrade <= 2, "{cost:?}");
    let (_, cost) = world.cost(world.look("bob", "/api/portfolio/positions")).await;
    assert_eq!(cost.snaptrade, 0);

    world
        .sandbox(&format!("connections/{connection}/break"), json!({}))
        .await;
    world.events_done().await;
    let accounts = world
        .look("ada", "/api/portfolio/accounts")
        .await
        .with_status(200);
    assert_eq!(
        (&accounts["stale"], &accounts["data"][0]["connection_state"]),
        (&json!(true), &json!("broken"))
    );
    let connections = world
        .look("ada", "/api/snaptrade/connections")
        .await
        .with_status(200);
    assert_eq!(
        (
            &connections["data"][0]["state"],
            &connections["data"][0]["reason"]
        ),
        (&json!("broken"), &json!("disabled"))
    );
    assert_eq!(connections["data"][0]["accounts"].as_array().unwrap().len(), 2);
    world
        .sandbox(&format!("connections/{connection}/fix"), json!({}))
        .await;
    world.events_done().await;
    assert_eq!(world.look("ada", "/api/portfolio/accounts").await["stale"], false);
    world.advance(25 * 3600).await;
    assert_eq!(world.look("ada", "/api/portfolio/positions").await["stale"], true);
    world.stop().await;
}

#[tokio::test]
async fn a_connection_is_being_deleted_from_the_moment_it_is_asked_for_and_gone_in_the_end() {
    for counts in [Counts::Users, Counts::Connections] {
        let world = World::with(Options {
            counts: Some(counts),
            ..Options::default()
        })
        .await;
        world.registered(&["ada", "bob"]).await;
        let (connection, _) = world.connect("ada").await;
        let (theirs, _) = world.connect("bob").await;
        world.events_done().await;
        world.sandbox("settings", json!({"delete_delay_ms": 3_000})).await;
        world.disconnect("ada", &theirs).await.problem(404, "not_found");
        world.disconnect("ada", "no-such").await.problem(404, "not_found");
        world
            .disconnect("cy", &theirs)
            .await
            .problem(409, "not_registered");

        for _ in 0..2 {
            let asked = world.disconnect("ada", &connection).await.with_status(202);
            assert_eq!(
                asked.body,
                json!({"connection_id": connection, "deleted": "queued"})
            );
        }
        let deletions = world.snaptrade_requests().await;
        let sent = deletions
            .iter()
            .filter(|request| request.starts_with("DELETE /connection/"));
        assert_eq!(sent.count(), 1, "{counts:?}");
        let shown = world
            .look("ada", "/api/snaptrade/connections")
            .await
            .with_status(200);
        assert_eq!(shown["data"][0]["state"], "deleting");
        assert_eq!(shown["data"][0]["reason"], "deletion_requested");
        let status = world.status("ada").await.with_status(200);
        assert_eq!(
            status["current_count"],
            if counts == Counts::Users { 2 } else { 1 }
        );

        tokio::time::sleep(std::time::Duration::from_millis(3_500)).await;
        world.events_done().await;
        let shown = world
            .look("ada", "/api/snaptrade/connections")
            .await
            .with_status(200);
        assert_eq!(shown["data"], json!([]));
        world.disconnect("ada", &connection).await.with_status(202);
        let bobs = world
            .look("bob", "/api/snaptrade/connections")
            .await
            .with_status(200);
        assert_eq!(bobs["data"][0]["connection_id"], theirs);
        world.stop().await;
    }
}

#[tokio::test]
async fn a_deletion_that_got_no_answer_is_finished_by_the_next_refresh() {
    let (world, connection, _) = connected().await;
    world.without_events().await;
    world.fail_with("deleteConnection", 503, 9).await;
    world.disconnect("ada", &connection).await.with_status(202);
    let shown = world
        .look("ada", "/api/snaptrade/connections")
        .await
        .with_status(200);
    assert_eq!(shown["data"][0]["state"], "deleting");
    world.clear_faults().await;
    world.advance(31).await;
    world.refresh("ada", json!({})).await.with_status(200);
    world.advance(11).await;
    world.refresh("ada", json!({})).await.with_status(200);
    let shown = world
        .look("ada", "/api/snaptrade/connections")
        .await
        .with_status(200);
    assert_eq!(shown["data"], json!([]));
    world.stop().await;
}

#[tokio::test]
async fn what_can_be_connected_is_asked_for_once_a_day() {
    let world = World::start().await;
    let (listed, cost) = world.cost(world.look("ada", "/api/snaptrade/brokerages")).await;
    let listed = listed.with_status(200);
    assert_eq!(cost.snaptrade, 1);
    assert!(data(&listed).len() >= 5);
    let trading = |wanted: bool| data(&listed).iter().any(|one| one["allows_trading"] == wanted);
    assert!(trading(true) && trading(false));
    assert!(data(&listed).iter().any(|one| one["slug"] == "SANDBOX"));
    let (_, cost) = world.cost(world.look("bob", "/api/snaptrade/brokerages")).await;
    assert_eq!((cost.snaptrade, cost.dynamodb), (0, 0));
    world.fail_with("brokerages", 503, 99).await;
    world.advance(25 * 3600).await;
    let old = world
        .look("ada", "/api/snaptrade/brokerages")
        .await
        .with_status(200);
    assert_eq!(old["data"], listed["data"]);
    world.stop().await;
}

#[tokio::test]
async fn an_open_page_learns_of_changes_with_one_call_to_the_table_each_time_it_asks() {
    let (world, _, [first, _]) = connected().await;
    let path = "/api/portfolio/changes";
    let (answer, cost) = world.cost(world.look("ada", path)).await;
    let answer = answer.with_status(200);
    assert_eq!((cost.snaptrade, cost.dynamodb), (0, 1));
    let kinds = |answer: &Answer| -> Vec<String> {
        let changed = answer["changed"].as_array().unwrap();
        changed
            .iter()
            .map(|one| one["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(
        kinds(&answer).contains(&"connections".to_owned()),
        "{}",
        answer.text
    );
    let tag = answer.header("etag").unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", answer["etag"].as_str().unwrap()));
    let ask = async |tag: &str| {
        let request = world
            .as_user("ada", reqwest::Method::GET, path)
            .header("If-None-Match", tag);
        world.send(request).await
    };
    let same = ask(&tag).await.with_status(304);
    assert_eq!(
        (same.text.as_str(), same.header("etag")),
        ("", Some(tag.as_str()))
    );
    // A refresh that finds the same is no change.
    world.without_events().await;
    world.advance(11).await;
    world.refresh("ada", json!({})).await.with_status(200);
    let holds = json!({"balances": [{"currency": {"code": "USD"}, "cash": "5"}], "positions": []});
    world.sandbox(&format!("holdings/{first}"), holds).await;
    world.advance(11).await;
    let before = ask(&tag).await;
    let tag = before.header("etag").unwrap().to_owned();
    world
        .refresh("ada", json!({"account_id": first}))
        .await
        .with_status(200);
    let news = ask(&tag).await.with_status(200);
    assert_eq!(news["changed"][0]["account_id"], first);
    let since = format!("{path}?since={}", news["etag"].as_str().unwrap());
    assert_eq!(
        kinds(&world.look("ada", &since).await.with_status(200)),
        Vec::<String>::new()
    );
    let since = format!("{path}?since=2020-01-01T00:00:00Z");
    assert!(!kinds(&world.look("ada", &since).await.with_status(200)).is_empty());
    world
        .look("ada", &format!("{path}?since=lately"))
        .await
        .problem(400, "invalid_request");
    world.look("cy", path).await.problem(409, "not_registered");
    world.stop().await;
}

#[tokio::test]
async fn a_statement_stands_beside_what_snaptrade_reaches_and_for_itself_where_there_is_nothing_else() {
    let (world, _, _) = connected().await;
    let bring = async |user: &str, statement: Value| {
        let request = world.as_user(user, reqwest::Method::POST, "/api/portfolio/statements");
        world.send(request.json(&statement)).await
    };
    let file = "Ticker,Shares,Price,Cost Basis,Currency\nVTI,2.5,251.35,500,USD\ncash,7.10,,,EUR\n";
    let statement = json!({"institution": "Old Mutual", "number": "12-345 678", "content": file});
    let answer = bring("cy", statement.clone()).await.with_status(201);
    let id = answer["account_id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("statement_"), "{id}");
    assert_eq!(
        (&answer["positions"], &answer["balances"]),
        (&json!(1), &json!(1))
    );
    bring("cy", statement.clone()).await.with_status(200);

    // Cy was never registered and has just this.
    let mode = world.look("cy", "/api/portfolio/mode").await.with_status(200);
    assert_eq!(
        mode.body,
        json!({"mode": "aggregation", "providers": ["statement"], "accounts": 1})
    );
    let accounts = world.look("cy", "/api/portfolio/accounts").await.with_status(200);
    let account = &accounts["data"][0];
    assert_eq!(
        (&account["account_id"], &account["provider"]),
        (&json!(id), &json!("statement"))
    );
    assert_eq!(
        (&account["number"], &account["tradable"]),
        (&json!("5678"), &json!(false))
    );
    assert_eq!(
        (&account["connection_id"], &account["stale"]),
        (&Value::Null, &json!(false))
    );
    let positions = world
        .look("cy", "/api/portfolio/positions")
        .await
        .with_status(200);
    assert_eq!(
        positions["totals"],
        json!([{"currency": "USD", "market_value": "628.375"}])
    );
    let position = &positions["data"][0];
    assert_eq!(
        (&position["cost_basis"], &position["unrealized_pl"]),
        (&json!("500"), &json!("128.375"))
    );
    assert_eq!(
        world
            .look("cy", "/api/portfolio/transactions")
            .await
            .with_status(200)["data"],
        json!([])
    );
    world
        .look("cy", "/api/portfolio/performance")
        .await
        .with_status(200);
    world
        .look("cy", "/api/snaptrade/connections")
        .await
        .with_status(200);
    world.look("cy", "/api/portfolio/changes").await.with_status(200);
    world
        .refresh("cy", json!({}))
        .await
        .problem(409, "not_registered");

    // Ada has accounts at SnapTrade, too.
    bring("ada", statement).await.with_status(201);
    let mode = world.look("ada", "/api/portfolio/mode").await.with_status(200);
    assert_eq!(
        mode.body,
        json!({"mode": "hybrid", "providers": ["snaptrade", "statement"], "accounts": 3})
    );
    let path = format!("/api/portfolio/balances?account_id={id}");
    let balances = world.look("ada", &path).await.with_status(200);
    assert_eq!(balances["totals"], json!([{"currency": "EUR", "cash": "7.10"}]));
    world
        .refresh("ada", json!({"account_id": id}))
        .await
        .problem(404, "not_found");

    let wrong = json!({"institution": "", "content": 5, "format": "pdf", "as_of": "yesterday"});
    let faults = bring("ada", wrong).await.problem(400, "invalid_request");
    assert_eq!(faults["errors"].as_array().unwrap().len(), 4);
    let wrong = json!({"institution": "Bank", "content": "symbol,quantity\nVTI,many\n,1\n"});
    let faults = bring("ada", wrong).await.problem(400, "invalid_request");
    assert_eq!(
        faults["errors"][0]["detail"].as_str().unwrap().split(':').next(),
        Some("line 2")
    );
    let take_away = async |user: &str| {
        let path = format!("/api/portfolio/statements/{id}");
        world
            .send(world.as_user(user, reqwest::Method::DELETE, &path))
            .await
    };
    take_away("bob").await.problem(404, "not_found");
    take_away("ada").await.with_status(200);
    assert_eq!(
        world.look("ada", "/api/portfolio/mode").await["mode"],
        "brokerage"
    );
    world.stop().await;
}

#[tokio::test]
async fn what_a_portfolio_was_worth_can_be_drawn_day_by_day_with_its_gaps() {
    let (world, _, [first, second]) = connected().await;
    world.without_events().await;
    let worth = async |account: &str, amount: &str| {
        let total = json!({"total": {"amount": amount, "currency": "USD"}, "balances": [], "positions": []});
        world.sandbox(&format!("holdings/{account}"), total).await;
    };
    for account in [&first, &second] {
        worth(account, "100.10").await;
    }
    world.advance(11).await;
    world.refresh("ada", json!({})).await.with_status(200);
    world.advance(2 * 24 * 3600).await;
    worth(&first, "50").await;
    world.refresh("ada", json!({})).await.with_status(200);
    let drawn = world.look("ada", "/api/portfolio/history").await.with_status(200);
    let days: Vec<_> = data(&drawn)
        .iter()
        .map(|day| json!([day["gap"], day["totals"]]))
        .collect();
    assert_eq!(
        json!(days),
        json!([
            [false, [{"currency": "USD", "amount": "200.20"}]],
            [true, []],
            [false, [{"currency": "USD", "amount": "150.10"}]],
        ])
    );
    let path = format!("/api/portfolio/history?account_id={first}&start_date=2020-01-01");
    let one = world.look("ada", &path).await.with_status(200);
    assert_eq!(one["data"][2]["totals"][0]["amount"], "50");
    assert_eq!(one["data"][2]["accounts"].as_array().unwrap().len(), 1);
    // Of days that are yet to come nothing is known.
    let none = world
        .look("ada", "/api/portfolio/history?start_date=2285-01-06")
        .await
        .with_status(200);
    assert_eq!(none["data"], json!([]));
    world
        .look("ada", "/api/portfolio/history?start_date=x")
        .await
        .problem(400, "invalid_request");
    world.stop().await;
}
