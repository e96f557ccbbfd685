//! The stack as a whole, over HTTP.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::time::{Duration, Instant};

use berth::access::ids::ProductId;
use berth::ids::TenantId;
use berth::snaptrade::http_client;
use berth_local::{Announcement, Data, Fault, Options, Settings, SnapTrade, Stack, StartError, empty_data};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

/// Registers a user and gives the answer's status, request id and body.
async fn register(stack: &Stack, user: &str) -> (u16, String, Value) {
    let request = http_client()
        .unwrap()
        .post(format!("{}/api/snaptrade/register", stack.urls().api))
        .bearer_auth(format!("dev:{user}"));
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    (status, id, response.json().await.unwrap())
}

async fn post(url: String) -> (u16, Value) {
    let response = http_client().unwrap().post(url).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn get(url: String) -> Value {
    let response = http_client().unwrap().get(url).send().await.unwrap();
    response.json().await.unwrap()
}

fn on(directory: &std::path::Path) -> Options {
    Options {
        data: Data::Directory(directory.to_owned()),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_stack_answers_at_its_urls_and_says_where_it_is_until_it_stops() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(on(directory.path())).await.unwrap();
    let urls = stack.urls().clone();
    assert_eq!(get(urls.api.clone()).await["status"], "ok");
    assert_eq!(
        get(format!("{}/__sandbox/requests", urls.snaptrade)).await,
        json!([])
    );
    assert_eq!(Announcement::read(directory.path()).unwrap().urls, urls);
    stack.shutdown().await;
    assert_eq!(Announcement::read(directory.path()), None);
    for url in [
        &urls.api,
        &urls.snaptrade,
        &urls.access,
        &urls.dynamodb,
        &urls.mail,
    ] {
        let address = url.rsplit('/').next().unwrap();
        TcpListener::bind(address).unwrap_or_else(|error| panic!("{url} is still in use: {error}"));
    }
    // What was stored can be opened again at once.
    let again = Stack::start(on(directory.path())).await.unwrap();
    again.shutdown().await;
    empty_data(directory.path()).unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_keeps_a_stack_from_starting_is_told_in_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let sentence = async |options: Options| Stack::start(options).await.err().unwrap().to_string();

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let taken = |choose: fn(&mut Options, u16)| {
        let mut options = Options::default();
        choose(&mut options, port);
        options
    };
    for (options, option) in [
        (
            taken(|options, port| options.snaptrade_port = port),
            "--snaptrade-port",
        ),
        (taken(|options, port| options.access_port = port), "--access-port"),
        (taken(|options, port| options.mail_port = port), "--mail-port"),
    ] {
        let said = sentence(options).await;
        assert!(
            said.contains(&port.to_string()) && said.contains(option),
            "{said}"
        );
    }

    let running = Stack::start(on(directory.path())).await.unwrap();
    let said = sentence(on(directory.path())).await;
    assert!(
        said.contains(&running.urls().api) && said.contains("--memory"),
        "{said}"
    );
    let busy = empty_data(directory.path()).unwrap_err();
    assert!(matches!(busy, StartError::AlreadyRunning { .. }));
    running.shutdown().await;

    // The sandbox's users are unknown to the real SnapTrade, and a sync there would take them for gone.
    let env = directory.path().join("live.env");
    std::fs::write(
        &env,
        "SNAPTRADE_CLIENT_ID=ACME\nSNAPTRADE_CONSUMER_KEY=key\nSNAPTRADE_BASE_URL=http://127.0.0.1:9\n",
    )
    .unwrap();
    let said = sentence(Options {
        snaptrade: SnapTrade::Live,
        settings: Settings::read(&env).unwrap(),
        ..on(directory.path())
    })
    .await;
    assert!(said.contains("SANDBOX-CLIENT") && said.contains("ACME"), "{said}");

    std::fs::write(
        directory.path().join("dynamodb.sqlite"),
        "this is no database, it is a text",
    )
    .unwrap();
    let said = sentence(on(directory.path())).await;
    assert!(
        said.contains("dynamodb.sqlite") && said.contains("--reset"),
        "{said}"
    );

    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let said = sentence(on(&file)).await;
    assert!(said.contains("cannot be opened"), "{said}");

    let said = sentence(Options {
        snaptrade: SnapTrade::Live,
        ..Options::default()
    })
    .await;
    assert!(said.contains("SNAPTRADE_CONSUMER_KEY"), "{said}");

    let said = sentence(Options {
        origins: vec!["everywhere".to_owned()],
        ..Options::default()
    })
    .await;
    assert!(said.contains("ALLOWED_ORIGINS"), "{said}");
}

#[tokio::test]
async fn the_clock_is_moved_by_the_second_or_to_a_time() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let url = format!("{}/__local/clock", stack.urls().api);
    let client = http_client().unwrap();
    let put = async |body: Value| client.put(&url).json(&body).send().await.unwrap();
    let moved: Value = put(json!({"now": "2030-01-01T00:00:00Z"}))
        .await
        .json()
        .await
        .unwrap();
    assert!(
        moved["now"].as_str().unwrap().starts_with("2030-01-01T00:00:0"),
        "{moved}"
    );
    put(json!({"advance_seconds": 86_400})).await;
    assert!(
        get(url.clone()).await["now"]
            .as_str()
            .unwrap()
            .starts_with("2030-01-02")
    );
    assert!(stack.clock().now().to_string().starts_with("2030-01-02"));
    for bad in [
        json!({}),
        json!({"now": 5}),
        json!({"now": "soon"}),
        json!([]),
        json!({"now": "2030-01-01T00:00:00Z", "advance_seconds": 1}),
    ] {
        assert_eq!(put(bad.clone()).await.status(), 400, "{bad}");
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn a_requests_calls_are_told_by_its_id_and_seen_at_both_ends() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let (status, id, _) = register(&stack, "ada").await;
    assert_eq!(status, 201);
    let calls = get(format!("{}/__local/calls?request_id={id}", stack.urls().api)).await;
    assert_eq!(calls.as_array().unwrap().len(), 1);
    assert_eq!(
        (&calls[0]["function"], &calls[0]["request_id"]),
        (&json!("register"), &json!(id))
    );
    assert_eq!(calls[0]["dynamodb"], stack.dynamodb().calls_of("register"));
    let received = get(format!("{}/__sandbox/requests", stack.urls().snaptrade)).await;
    // The sandbox also hears from the worker, which its webhook about the new user has set off.
    let registrations = received.as_array().unwrap().iter();
    let registrations =
        registrations.filter(|call| call["path"].as_str().unwrap().ends_with("/registerUser"));
    assert_eq!(calls[0]["snaptrade"], registrations.count());
    stack.shutdown().await;
}

#[tokio::test]
async fn schedules_are_fired_by_name() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let api = &stack.urls().api;
    let (status, report) = post(format!("{api}/__local/schedules/connection-sync")).await;
    assert_eq!((status, &report["complete"]), (200, &json!(true)));
    let (status, refusal) = post(format!("{api}/__local/schedules/nothing")).await;
    assert_eq!(status, 404);
    assert!(
        refusal["message"].as_str().unwrap().contains("connection-sync"),
        "{refusal}"
    );
    stack.shutdown().await;
}

/// Waits until `done` holds, and tells how long that took.
async fn until(mut done: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        if done().await {
            return begun.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not happen within 10 seconds");
}

async fn connect(stack: &Stack, user: &str) {
    let request = http_client()
        .unwrap()
        .post(format!("{}/__sandbox/connect", stack.urls().snaptrade))
        .json(&json!({"user_id": user}));
    assert!(request.send().await.unwrap().status().is_success());
}

#[tokio::test]
async fn an_event_goes_from_the_webhook_through_the_stream_to_the_worker() {
    let stack = Stack::start(Options::default()).await.unwrap();
    register(&stack, "ada").await;
    let worked = |stack: &Stack| {
        let calls = stack.calls(None);
        calls
            .iter()
            .filter(|call| call.function == "webhook-worker")
            .count()
    };
    // The first one is about the registration itself.
    until(async || worked(&stack) == 1).await;
    connect(&stack, "ada").await;
    until(async || worked(&stack) > 1).await;
    let users = format!("{}/api/snaptrade/users", stack.urls().api);
    until(async || {
        let request = http_client().unwrap().get(&users).bearer_auth("dev:ops:operator");
        let users: Value = request.send().await.unwrap().json().await.unwrap();
        users["data"][0]["connections"] == 1
    })
    .await;
    stack.shutdown().await;
}

#[tokio::test]
async fn an_event_that_nobody_can_work_on_is_given_up_and_kept() {
    let stack = Stack::start(Options::default()).await.unwrap();
    register(&stack, "ada").await;
    let app = stack.app("test");
    let tenant = TenantId::default();
    let sandbox = format!("{}/__sandbox/faults", stack.urls().snaptrade);
    let fault = json!({"operation": "*", "kind": "status", "status": 503, "times": 1000});
    let request = http_client().unwrap().post(sandbox).json(&fault);
    assert!(request.send().await.unwrap().status().is_success());
    connect(&stack, "ada").await;
    until(async || {
        // Nobody waits for the tries to be apart.
        stack.clock().advance(5);
        let letters = berth::webhooks::dead_letters(app.store(), &tenant, 50, None, app.clock().now()).await;
        !letters.unwrap().letters.is_empty()
    })
    .await;
    stack.shutdown().await;
}

#[tokio::test]
async fn users_survive_a_restart_and_emptying_the_store_leaves_the_sandbox_alone() {
    let directory = tempfile::tempdir().unwrap();
    let first = Stack::start(on(directory.path())).await.unwrap();
    assert_eq!(register(&first, "ada").await.0, 201);
    first.shutdown().await;
    let second = Stack::start(on(directory.path())).await.unwrap();
    assert_eq!(register(&second, "ada").await.0, 200);
    let (status, emptied) = post(format!("{}/__local/reset", second.urls().api)).await;
    assert_eq!(status, 200);
    assert!(emptied["deleted"].as_u64().unwrap() > 0);
    // The first list after a lost table finds the user that SnapTrade still has.
    let (_, report) = post(format!("{}/__local/schedules/connection-sync", second.urls().api)).await;
    assert_eq!(
        (&report["added"], &report["upstream_count"]),
        (&json!(1), &json!(1)),
        "{report}"
    );
    second.shutdown().await;
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_recognised_when_it_is_sent_again() {
    let stack = Stack::start(Options::default()).await.unwrap();
    stack
        .dynamodb()
        .fail_next_of("TransactWriteItems", 1, Fault::LostAnswer);
    assert_eq!(register(&stack, "ada").await.0, 201);
    stack.dynamodb().fail_next(1, Fault::Error500);
    assert_eq!(register(&stack, "grace").await.0, 201);
    let (_, report) = post(format!("{}/__local/schedules/connection-sync", stack.urls().api)).await;
    assert_eq!(report["tracked_count"], 2, "{report}");
    assert_eq!(report["upstream_count"], 2, "{report}");
    stack.shutdown().await;
}

/// A call to the access API sandbox with its key.
async fn grant(stack: &Stack, name: &str) -> u16 {
    let request = http_client()
        .unwrap()
        .post(format!("{}/tradingview/access/grant", stack.urls().access))
        .header("x-api-key", "sandbox-access-key")
        .json(&json!({"scriptId": "S1", "username": name, "expiry": "2030-12-31"}));
    request.send().await.unwrap().status().as_u16()
}

async fn put(stack: &Stack, call: &str, body: Value) {
    let url = format!("{}/__sandbox/{call}", stack.urls().access);
    let answer = http_client().unwrap().put(url).json(&body).send().await.unwrap();
    assert!(answer.status().is_success());
}

#[tokio::test]
async fn the_access_sandboxes_follow_the_clock_and_keep_their_state_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let first = Stack::start(on(directory.path())).await.unwrap();
    first.clock().set("2030-06-01T00:00:00Z".parse().unwrap());
    put(&first, "usernames", json!(["Ada"])).await;
    assert_eq!(grant(&first, "ada").await, 200);
    first.shutdown().await;
    let second = Stack::start(on(directory.path())).await.unwrap();
    // The store is one thing and what stands beside it is another.
    let (status, _) = post(format!("{}/__local/reset", second.urls().api)).await;
    assert_eq!(status, 200);
    let access = get(format!("{}/__sandbox/access/S1", second.urls().access)).await;
    assert_eq!(
        (&access[0]["username"], &access[0]["expiration"]),
        (&json!("Ada"), &json!("2030-12-31T23:59:59Z"))
    );
    let created = access[0]["created"].as_str().unwrap();
    assert!(created.starts_with("2030-06-01T00:00:"), "{created}");
    second.shutdown().await;
    empty_data(directory.path()).unwrap();
    let third = Stack::start(on(directory.path())).await.unwrap();
    assert_eq!(
        get(format!("{}/__sandbox/access/S1", third.urls().access)).await,
        json!([])
    );
    third.shutdown().await;
}

#[tokio::test]
async fn a_stack_that_is_given_no_configuration_of_the_access_sync_has_a_sample_that_fits() {
    let stack = Stack::start(Options::default()).await.unwrap();
    let (urls, configuration) = (stack.urls(), stack.access_configuration());
    assert!(configuration.warnings.is_empty(), "{:?}", configuration.warnings);
    assert_eq!(configuration.shop.base_url.as_str(), urls.access);
    assert_eq!(configuration.access_api.base_url.as_str(), urls.access);
    let mail = configuration.mail.as_ref().unwrap();
    assert_eq!(format!("smtp://{}:{}", mail.server, mail.port), urls.mail);

    // The sample shop sells what the sample configuration knows.
    assert_eq!(post(format!("{}/__sandbox/sample", urls.access)).await.0, 200);
    let (header, key) = configuration.shop.credentials.key.as_ref().unwrap();
    let rows = http_client()
        .unwrap()
        .get(format!(
            "{}{}",
            urls.access, configuration.shop.transactions_endpoint
        ))
        .header(header.as_str(), key.expose_secret());
    let rows: Value = rows.send().await.unwrap().json().await.unwrap();
    for row in rows.as_array().unwrap() {
        let product = ProductId::new(row["product_id"].as_str().unwrap());
        assert!(configuration.product(&product).is_some(), "{row}");
    }
    stack.shutdown().await;
}

#[tokio::test]
async fn the_shop_takes_what_the_configuration_says_that_it_is_called_with() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.json");
    let with = |content: Value| {
        std::fs::write(&file, content.to_string()).unwrap();
        Options {
            access_config: Some(file.clone()),
            ..Options::default()
        }
    };
    let products = json!({"7": {"script_id": "S7", "duration": "1M"}});
    let status = async |stack: &Stack, key: &str| {
        let url = format!("{}/wp-json/mp/v1/transactions", stack.urls().access);
        let request = http_client().unwrap().get(url).header("X-Shop", key);
        request.send().await.unwrap().status().as_u16()
    };
    let keyed = json!({"wordpress": {"api_key": "own", "api_key_header": "X-Shop"}, "products": products});
    let stack = Stack::start(with(keyed)).await.unwrap();
    assert_eq!(
        (status(&stack, "own").await, status(&stack, "other").await),
        (200, 401)
    );
    stack.shutdown().await;
    // Whoever configures no credentials has a shop that asks for none.
    let open = Stack::start(with(json!({"products": products}))).await.unwrap();
    assert_eq!(status(&open, "").await, 200);
    open.shutdown().await;

    let mut settings = Settings::default();
    settings.set("ACCESS_CONFIG_FILE", file.to_str().unwrap());
    std::fs::write(
        &file,
        r#"{"wordpress": {"api_key": "very-secret", "timeout": -1}, "products": 5}"#,
    )
    .unwrap();
    let options = Options {
        settings,
        ..Options::default()
    };
    let said = Stack::start(options).await.err().unwrap().to_string();
    assert!(
        said.contains("wordpress.timeout") && said.contains("products"),
        "{said}"
    );
    assert!(
        said.contains("shop.json") && !said.contains("very-secret"),
        "{said}"
    );
}
