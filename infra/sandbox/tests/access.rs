//! The shop and the access APIs of the sandbox, called over HTTP as their clients call them.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use berth::clock::Clock;
use berth::snaptrade::http_client;
use berth_sandbox::access::{ACCESS_KEY, Options, Sandbox, WORDPRESS_KEY, WordPressAccess};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const SITE: &str = "/wp-json/memberpress/v1/all-user-transactions";
const MEMBERPRESS: &str = "/wp-json/mp/v1/transactions";
const GRANT: &str = "/tradingview/access/grant";
const UPDATE: &str = "/tradingview/access/update";
const REMOVE: &str = "/tradingview/access/remove";

/// A sandbox and a client of it.
struct Shop {
    sandbox: Sandbox,
    http: reqwest::Client,
    clock: Clock,
}

/// The status, the headers and the body of an answer; a body that is no JSON is a text.
struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

impl Shop {
    async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    async fn start_with(options: Options) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0");
        let clock = options.clock.clone();
        let (http, smtp) = (listen().await.unwrap(), listen().await.unwrap());
        Self {
            sandbox: Sandbox::start(http, smtp, options).await.unwrap(),
            http: http_client().unwrap(),
            clock,
        }
    }

    async fn start_on(file: &Path) -> Self {
        Self::start_with(Options {
            state_file: Some(file.to_owned()),
            ..Options::default()
        })
        .await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.sandbox.base_url()))
    }

    /// A call to the shop with its key.
    async fn shop(&self, path: &str) -> Answer {
        answer(
            self.request(Method::GET, path)
                .header("MEMBERPRESS-API-KEY", WORDPRESS_KEY),
        )
        .await
    }

    /// A call to the access API with its key.
    async fn api(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.request(method, path).header("x-api-key", ACCESS_KEY);
        answer(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.api(Method::POST, path, Some(body)).await
    }

    async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = answer(self.request(method, &format!("/__sandbox/{path}")).json(&body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.body
    }

    async fn put(&self, path: &str, body: Value) {
        self.control(Method::PUT, path, body).await;
    }

    async fn access(&self, script: &str) -> Value {
        self.control(Method::GET, &format!("access/{script}"), json!(null))
            .await
    }

    async fn fault(&self, fault: Value) {
        self.control(Method::POST, "faults", fault).await;
    }
}

async fn answer(request: RequestBuilder) -> Answer {
    let answer = request.timeout(Duration::from_secs(5)).send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await.unwrap();
    Answer {
        status,
        headers,
        body: serde_json::from_str(&text).unwrap_or_default(),
        text,
    }
}

fn row(id: u32, created_at: &str) -> Value {
    json!({"id": id, "created_at": created_at, "status": "complete", "user_id": id % 3})
}

fn ids(list: &Value) -> Vec<u64> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_u64().unwrap())
        .collect()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|user| user["username"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn the_shops_own_endpoint_serves_rows_to_the_letter_since_a_time() {
    let shop = Shop::start().await;
    let rows = r#"[{"id":"1","amount":49.90,"total":"49.9","created_at":"2026-01-01 00:00:00"},
        {"transaction_id":2, "created_at":"2026-01-02T00:00:00Z","amount":1e2},{"id":3,"created_at":1767398400},
        {"id":4,"created_at":"soon"},"no row",null]"#;
    let put = shop.request(Method::PUT, "/__sandbox/transactions").body(rows);
    assert_eq!(answer(put).await.body, json!({"transactions": 6}));

    let all = shop.shop(SITE).await;
    assert_eq!(all.status, 200);
    assert_eq!(all.body, serde_json::from_str::<Value>(rows).unwrap());
    for spelling in [r#""amount":49.90"#, r#"{"transaction_id":2, "created_at""#, "1e2"] {
        assert!(all.text.contains(spelling), "{}", all.text);
    }
    // The second of January, inclusive; what has no readable time is not kept from its reader.
    let since = shop.shop(&format!("{SITE}?since=1767312000")).await;
    assert_eq!(since.body.as_array().unwrap().len(), 5, "{}", since.text);
    assert_eq!(since.body[0]["transaction_id"], 2);
    assert_eq!(shop.shop(&format!("{SITE}?since=soon")).await.status, 400);
}

#[tokio::test]
async fn added_rows_take_the_place_of_those_with_their_ids_and_leave_the_others() {
    let shop = Shop::start().await;
    let put = json!([row(1, "2026-01-01 00:00:00"), row(2, "2026-01-02 00:00:00")]);
    shop.put("transactions", put).await;
    let changed = json!([row(1, "2026-01-05 00:00:00"), row(3, "2026-01-03 00:00:00")]);
    let add = shop
        .request(Method::POST, "/__sandbox/transactions")
        .json(&changed);
    assert_eq!(answer(add).await.body, json!({"added": 2}));
    assert_eq!(ids(&shop.shop(SITE).await.body), [1, 2, 3]);
    let since = shop.shop(&format!("{SITE}?since=1767398400")).await;
    assert_eq!(ids(&since.body), [1, 3], "{}", since.text);
}

#[tokio::test]
async fn memberpress_lists_page_by_page_with_the_totals_in_headers() {
    let shop = Shop::start().await;
    let rows: Vec<_> = (1..=25).map(|id| row(id, "2026-01-01 00:00:00")).collect();
    shop.put("transactions", json!(rows)).await;

    let newest = shop.shop(MEMBERPRESS).await;
    assert_eq!(ids(&newest.body), (16..=25).rev().collect::<Vec<_>>());
    assert_eq!(
        (newest.header("x-wp-total"), newest.header("x-wp-totalpages")),
        ("25", "3")
    );
    let page = shop
        .shop(&format!("{MEMBERPRESS}?orderby=id&order=ASC&per_page=10&page=2"))
        .await;
    assert_eq!(ids(&page.body), (11..=20).collect::<Vec<_>>());
    let links = page.header("link");
    assert!(
        links.contains("page=1>; rel=\"prev\"") && links.contains("page=3>; rel=\"next\""),
        "{links}"
    );
    let next = links.split(['<', '>']).nth(3).unwrap().to_owned();
    let path = next.strip_prefix(shop.sandbox.base_url()).unwrap();
    assert_eq!(ids(&shop.shop(path).await.body), (21..=25).collect::<Vec<_>>());

    assert_eq!(shop.shop(&format!("{MEMBERPRESS}?page=4")).await.body, json!([]));
    let found = shop
        .shop(&format!("{MEMBERPRESS}?search[member]=0&per_page=100"))
        .await;
    assert_eq!(
        (found.body.as_array().unwrap().len(), found.header("x-wp-total")),
        (8, "8")
    );
    for wrong in ["per_page=101", "per_page=0", "page=-1"] {
        let refused = shop.shop(&format!("{MEMBERPRESS}?{wrong}")).await;
        assert_eq!(
            (refused.status, &refused.body["code"]),
            (400, &json!("rest_invalid_param"))
        );
    }
}

#[tokio::test]
async fn a_single_transaction_is_found_by_its_id_and_a_missing_one_is_an_error_without_a_status() {
    let shop = Shop::start().await;
    shop.put(
        "transactions",
        json!([row(7, "2026-01-01 00:00:00"), {"id": "8"}]),
    )
    .await;
    assert_eq!(shop.shop(&format!("{MEMBERPRESS}/7")).await.body["id"], 7);
    assert_eq!(shop.shop(&format!("{MEMBERPRESS}/8")).await.body["id"], "8");
    let missing = shop.shop(&format!("{MEMBERPRESS}/9")).await;
    assert_eq!((missing.status, &missing.body["data"]), (500, &json!(null)));
    let nowhere = shop.shop("/wp-json/mp/v1/nothing").await;
    assert_eq!(
        (nowhere.status, &nowhere.body["code"]),
        (404, &json!("rest_no_route"))
    );
}

#[tokio::test]
async fn a_member_is_served_to_the_letter_by_its_id() {
    let shop = Shop::start().await;
    shop.put(
        "members",
        json!([{"id": "7", "email": "ada@example.com"}, {"id": 8}]),
    )
    .await;
    let member = shop.shop("/wp-json/mp/v1/members/7").await;
    assert_eq!(member.body, json!({"id": "7", "email": "ada@example.com"}));
    let missing = shop.shop("/wp-json/mp/v1/members/9").await;
    assert_eq!((missing.status, &missing.body["data"]), (500, &json!(null)));
    let request = shop.request(Method::PUT, "/__sandbox/members");
    let nameless = answer(request.json(&json!([{"email": "ada@example.com"}]))).await;
    assert_eq!(nameless.status, 400);
    assert_eq!(shop.shop("/wp-json/mp/v1/members/8").await.body["id"], 8);
}

#[tokio::test]
async fn the_shop_takes_a_key_a_password_or_a_token_and_keeps_strangers_out() {
    let shop = Shop::start().await;
    for path in [SITE, MEMBERPRESS] {
        let call = |path: &str| shop.request(Method::GET, path);
        let stranger = answer(call(path)).await;
        assert_eq!(
            (stranger.status, &stranger.body["code"]),
            (401, &json!("rest_forbidden"))
        );
        assert_eq!(
            answer(call(path).header("Authorization", WORDPRESS_KEY))
                .await
                .status,
            200
        );
        assert_eq!(answer(call(path).bearer_auth(WORDPRESS_KEY)).await.status, 401);
        let password = "sand box appl icat ion";
        assert_eq!(
            answer(call(path).basic_auth("sandbox", Some(password)))
                .await
                .status,
            200
        );
        let wrong = answer(call(path).basic_auth("sandbox", Some("guessed"))).await;
        assert_eq!(
            (wrong.status, &wrong.body["code"]),
            (401, &json!("incorrect_password"))
        );
        let token = format!("{path}?token=sandbox-wordpress-token");
        assert_eq!(answer(call(&token)).await.status, 200);
    }
    let seen = shop
        .control(Method::GET, "requests", json!(null))
        .await
        .to_string();
    assert!(!seen.contains("sandbox-wordpress-token"), "{seen}");
}

#[tokio::test]
async fn the_shop_can_be_given_other_credentials_and_another_parameter() {
    let wordpress = WordPressAccess {
        since_param: "after".to_owned(),
        api_key: None,
        basic: None,
        token: Some(("pass".to_owned(), "word".to_owned())),
        ..WordPressAccess::default()
    };
    let shop = Shop::start_with(Options {
        wordpress,
        ..Options::default()
    })
    .await;
    shop.put("transactions", json!([row(1, "2026-01-01 00:00:00")]))
        .await;
    let call = |query: &str| answer(shop.request(Method::GET, &format!("{SITE}?{query}")));
    assert_eq!(call("pass=word&after=1767225601").await.body, json!([]));
    assert_eq!(
        call("pass=word&after=1767225600")
            .await
            .body
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(call("token=sandbox-wordpress-token").await.status, 401);
    let seen = shop
        .control(Method::GET, "requests", json!(null))
        .await
        .to_string();
    assert!(!seen.contains("word&"), "{seen}");
}

#[tokio::test]
async fn a_grant_is_kept_in_the_canonical_spelling_until_the_end_of_its_day() {
    let shop = Shop::start().await;
    shop.put("usernames", json!(["JoeBloggs", "ada"])).await;
    let granted = shop
        .post(
            GRANT,
            json!({"scriptId": "S1", "username": "joebloggs", "email": "joe@example.com",
            "expiry": "2026-12-31", "subscription_type": "monthly", "wp_username": "joe", "remarks": "paid"}),
        )
        .await;
    assert_eq!(granted.status, 200, "{}", granted.text);
    assert_eq!(granted.body["username"], "JoeBloggs");
    let access = shop.access("S1").await;
    assert_eq!(names(&access), ["JoeBloggs"]);
    assert_eq!(access[0]["expiration"], "2026-12-31T23:59:59Z");

    // A second grant is no second user, and sets an earlier end as well.
    shop.post(
        GRANT,
        json!({"scriptId": "S1", "username": "JOEBLOGGS", "expiry": "2026-06-30T10:00:00+02:00"}),
    )
    .await;
    let access = shop.access("S1").await;
    assert_eq!(
        (names(&access), &access[0]["expiration"]),
        (vec!["JoeBloggs"], &json!("2026-06-30T08:00:00Z"))
    );
    // An end that is left out is none.
    shop.post(GRANT, json!({"scriptId": "S1", "username": "ada"}))
        .await;
    assert_eq!(shop.access("S1").await[1]["expiration"], json!(null));
}

#[tokio::test]
async fn what_cannot_be_granted_is_refused_and_changes_nothing() {
    let shop = Shop::start().await;
    shop.put("usernames", json!(["ada"])).await;
    let stranger = shop
        .post(
            GRANT,
            json!({"scriptId": "S1", "username": "ad", "expiry": "2026-12-31"}),
        )
        .await;
    assert_eq!((stranger.status, &stranger.body["success"]), (404, &json!(false)));
    for wrong in [
        json!({"username": "ada", "expiry": "2026-12-31"}),
        json!({"scriptId": "S1", "expiry": "2026-12-31"}),
        json!({"scriptId": "S1", "username": "ada", "expiry": "31.12.2026"}),
        json!({"scriptId": "S1", "username": "ada", "expiry": ""}),
        json!([]),
    ] {
        assert_eq!(shop.post(GRANT, wrong.clone()).await.status, 422, "{wrong}");
    }
    let keyless = answer(
        shop.request(Method::POST, GRANT)
            .json(&json!({"scriptId": "S1", "username": "ada"})),
    )
    .await;
    assert_eq!(
        (keyless.status, &keyless.body["error"]),
        (401, &json!("invalid_api_key"))
    );
    assert_eq!(shop.access("S1").await, json!([]));
}

#[tokio::test]
async fn an_update_needs_access_and_a_removal_does_not() {
    let shop = Shop::start().await;
    shop.put("usernames", json!(["Ada"])).await;
    let later = json!({"scriptId": "S1", "username": "ada", "expiry": "2027-01-31"});
    assert_eq!(shop.post(UPDATE, later.clone()).await.status, 404);
    // Who has access may have changed the name since.
    shop.put(
        "access/S1",
        json!([{"username": "OldAda", "expiration": "2026-12-31T12:00:00Z"}]),
    )
    .await;
    shop.post(
        GRANT,
        json!({"scriptId": "S1", "username": "ada", "expiry": "2026-12-31"}),
    )
    .await;
    assert_eq!(shop.post(UPDATE, later).await.body["username"], "Ada");
    assert_eq!(shop.access("S1").await[1]["expiration"], "2027-01-31T23:59:59Z");
    let removed = shop
        .post(REMOVE, json!({"scriptId": "S1", "username": "OLDADA"}))
        .await;
    assert_eq!(
        (&removed.body["removed"], &removed.body["username"]),
        (&json!(true), &json!("OldAda"))
    );
    let again = shop
        .post(REMOVE, json!({"scriptId": "S1", "username": "OLDADA"}))
        .await;
    assert_eq!((again.status, &again.body["removed"]), (200, &json!(false)));
    assert_eq!(names(&shop.access("S1").await), ["Ada"]);
}

#[tokio::test]
async fn a_scripts_users_are_listed_thirty_a_page_even_while_they_change() {
    let shop = Shop::start().await;
    let users: Vec<_> = (0..65)
        .map(|number| json!({"username": format!("user{number}")}))
        .collect();
    shop.put("access/S%2F1", json!(users)).await;
    let list = async |query: String| {
        let path = format!("/tradingview/access/scriptUsers/S%2F1{query}");
        shop.api(Method::GET, &path, None).await.body
    };
    let first = list(String::new()).await;
    assert_eq!(
        (&first["scriptId"], names(&first["users"]).len()),
        (&json!("S/1"), 30)
    );
    let cursor = |page: &Value| format!("?cursor={}", page["next"].as_str().unwrap());
    shop.post(REMOVE, json!({"scriptId": "S/1", "username": "user3"}))
        .await;
    let second = list(cursor(&first)).await;
    assert_eq!(names(&second["users"])[0], "user30");
    let last = list(cursor(&second)).await;
    assert_eq!(
        (names(&last["users"]), &last["next"]),
        (
            vec!["user60", "user61", "user62", "user63", "user64"],
            &json!(null)
        )
    );
    let fields: Vec<_> = last["users"][0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["created", "expiration", "id", "username", "userpic"]);
    assert_eq!(
        shop.api(Method::GET, "/tradingview/access/scriptUsers/none", None)
            .await
            .body["users"],
        json!([])
    );
}

#[tokio::test]
async fn a_page_that_is_just_full_is_the_last() {
    let shop = Shop::start().await;
    let users: Vec<_> = (0..30)
        .map(|number| json!({"username": format!("user{number}")}))
        .collect();
    shop.put("access/S1", json!(users)).await;
    let page = shop
        .api(Method::GET, "/tradingview/access/scriptUsers/S1", None)
        .await
        .body;
    assert_eq!((names(&page["users"]).len(), &page["next"]), (30, &json!(null)));
}

#[tokio::test]
async fn validating_tells_the_canonical_name_or_those_that_begin_like_it() {
    let shop = Shop::start().await;
    shop.put("usernames", json!(["Barbara_L", "barbaraX", "Bob", "BAR"]))
        .await;
    let validate = async |name: &str| {
        shop.api(Method::GET, &format!("/tradingview/validate/{name}"), None)
            .await
            .body
    };
    let known = validate("barbara_l").await;
    assert_eq!(
        (&known["validUser"], &known["verifiedUserName"]),
        (&json!(true), &json!("Barbara_L"))
    );
    let unknown = validate("barb").await;
    assert_eq!(
        (&unknown["validUser"], &unknown["verifiedUserName"]),
        (&json!(false), &json!(""))
    );
    assert_eq!(names(&unknown["allUserSuggestions"]), ["Barbara_L", "barbaraX"]);
    assert!(
        unknown["allUserSuggestions"][0]["id"].is_u64()
            && unknown["allUserSuggestions"][0]["userpic"].is_string()
    );
    // No pattern: an underscore is a letter like any other.
    assert_eq!(validate("barbara%25").await["allUserSuggestions"], json!([]));
}

#[tokio::test]
async fn control_keeps_access_as_it_was_put() {
    let shop = Shop::start().await;
    let put = json!([
        {"id": 17, "username": "Ada", "userpic": "https://s3.example.com/a.png", "created": "2026-01-01T00:00:00Z",
         "expiration": "2026-02-01T00:00:00Z"},
        {"id": 18, "username": "ada", "userpic": "", "created": "2026-01-02T00:00:00Z", "expiration": null},
    ]);
    shop.put("access/S1", put.clone()).await;
    assert_eq!(shop.access("S1").await, put);
    assert_eq!(shop.access("S2").await, json!([]));
    for wrong in [
        json!({}),
        json!([{"id": 1}]),
        json!([{"username": "ada", "expiration": "soon"}]),
    ] {
        let refused = answer(shop.request(Method::PUT, "/__sandbox/access/S1").json(&wrong)).await;
        assert_eq!(refused.status, 400, "{wrong}");
    }
    for (path, wrong) in [
        ("transactions", json!({})),
        ("usernames", json!([1])),
        ("usernames", json!("ada")),
    ] {
        let refused = answer(
            shop.request(Method::PUT, &format!("/__sandbox/{path}"))
                .json(&wrong),
        )
        .await;
        assert_eq!(refused.status, 400, "{path} {wrong}");
    }
    assert_eq!(
        answer(shop.request(Method::POST, "/__sandbox/usernames"))
            .await
            .status,
        405
    );
    assert_eq!(
        answer(shop.request(Method::GET, "/__sandbox/nothing"))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn requests_are_listed_with_their_bodies_and_without_keys() {
    let shop = Shop::start().await;
    shop.post(
        GRANT,
        json!({"scriptId": "S1", "username": "ada", "api_key": ACCESS_KEY}),
    )
    .await;
    shop.shop(&format!("{SITE}?since=5&api_key=secret")).await;
    let seen = shop.control(Method::GET, "requests", json!(null)).await;
    assert_eq!(
        (&seen[0]["method"], &seen[0]["path"], &seen[0]["status"]),
        (&json!("POST"), &json!(GRANT), &json!(404))
    );
    assert_eq!(seen[0]["body"], json!({"scriptId": "S1", "username": "ada"}));
    assert_eq!(
        (&seen[1]["query"], &seen[1]["body"]),
        (&json!("since=5&api_key=redacted"), &json!(null))
    );
    assert!(!seen.to_string().contains(ACCESS_KEY) && !seen.to_string().contains(WORDPRESS_KEY));
}

#[tokio::test]
async fn faults_strike_their_operation_in_their_order() {
    let shop = Shop::start().await;
    shop.put("usernames", json!(["ada"])).await;
    let grant = || {
        shop.post(
            GRANT,
            json!({"scriptId": "S1", "username": "ada", "expiry": "2026-12-31"}),
        )
    };
    shop.fault(json!({"operation": "grant", "kind": "rate_limited", "retry_after": 7}))
        .await;
    shop.fault(json!({"operation": "grant", "kind": "status", "status": 503, "retry_after": 30}))
        .await;
    shop.fault(json!({"operation": "grant", "kind": "status", "status": 403}))
        .await;
    shop.fault(json!({"operation": "grant", "kind": "malformed"}))
        .await;
    shop.fault(
        json!({"operation": "transactions", "kind": "malformed", "body": {"error": "none"}, "times": 2}),
    )
    .await;
    let limited = grant().await;
    assert_eq!((limited.status, limited.header("retry-after")), (429, "7"));
    let down = grant().await;
    assert_eq!((down.status, down.header("retry-after")), (503, "30"));
    let locked_out = grant().await;
    assert_eq!(
        (locked_out.status, &locked_out.body["error"]),
        (403, &json!("login_required"))
    );
    let garbled = grant().await;
    assert_eq!((garbled.status, &garbled.body), (200, &json!(null)));
    assert_eq!(shop.access("S1").await, json!([]));
    assert_eq!(grant().await.status, 200);
    // Both of the shop's endpoints are the same operation.
    for path in [SITE, MEMBERPRESS] {
        assert_eq!(shop.shop(path).await.body, json!({"error": "none"}));
    }
    assert_eq!(shop.shop(SITE).await.body, json!([]));
    for wrong in [
        json!({"operation": "nothing", "kind": "timeout"}),
        json!({"operation": "grant", "kind": "maybe"}),
    ] {
        let refused = answer(shop.request(Method::POST, "/__sandbox/faults").json(&wrong)).await;
        assert_eq!(refused.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_call_that_is_never_answered_may_have_been_done() {
    let shop = Shop::start().await;
    shop.put("usernames", json!(["ada"])).await;
    let body = json!({"scriptId": "S1", "username": "ada", "expiry": "2026-12-31"});
    for (kind, users) in [("timeout", 0), ("commit_then_timeout", 1)] {
        shop.fault(json!({"operation": "grant", "kind": kind})).await;
        let request = shop
            .request(Method::POST, GRANT)
            .header("x-api-key", ACCESS_KEY)
            .json(&body);
        let error = request
            .timeout(Duration::from_millis(200))
            .send()
            .await
            .unwrap_err();
        assert!(error.is_timeout());
        assert_eq!(names(&shop.access("S1").await).len(), users, "{kind}");
    }
    shop.fault(json!({"operation": "list", "kind": "slow", "delay_ms": 150}))
        .await;
    let begun = Instant::now();
    shop.api(Method::GET, "/tradingview/access/scriptUsers/S1", None)
        .await;
    assert!(begun.elapsed() >= Duration::from_millis(150));
    shop.sandbox.shutdown().await;
}

#[tokio::test]
async fn the_state_survives_a_restart_and_faults_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("new/access.sqlite");
    let shop = Shop::start_on(&file).await;
    shop.put("transactions", json!([row(1, "2026-01-01 00:00:00")]))
        .await;
    shop.put("usernames", json!(["Ada"])).await;
    shop.post(
        GRANT,
        json!({"scriptId": "S1", "username": "ada", "expiry": "2026-12-31"}),
    )
    .await;
    shop.fault(json!({"operation": "*", "kind": "timeout", "times": 9}))
        .await;
    // Nobody gets to tidy up.
    drop(shop);
    let shop = Shop::start_on(&file).await;
    assert_eq!(ids(&shop.shop(SITE).await.body), [1]);
    assert_eq!(names(&shop.access("S1").await), ["Ada"]);
    shop.control(Method::POST, "reset", json!({})).await;
    assert_eq!(shop.shop(SITE).await.body, json!([]));
    assert_eq!(shop.access("S1").await, json!([]));
    assert_eq!(
        shop.post(GRANT, json!({"scriptId": "S1", "username": "ada"}))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn the_peer_adds_to_the_listed_end_even_where_it_has_passed() {
    let shop = Shop::start().await;
    shop.clock.set("2026-06-01T12:00:00Z".parse().unwrap());
    shop.put("usernames", json!(["Ada", "Grace"])).await;
    shop.put(
        "access/S1",
        json!([
            {"username": "Ada", "expiration": "2026-01-31T00:00:00Z"},
            {"username": "Grace", "expiration": null},
        ]),
    )
    .await;
    let call =
        async |method: Method, path: &str, body: Value| answer(shop.request(method, path).json(&body)).await;
    let extended = call(
        Method::POST,
        "/access/ada",
        json!({"pine_ids": ["S1", "S2"], "duration": "1M"}),
    )
    .await
    .body;
    assert_eq!(
        extended[0],
        json!({"pine_id": "S1", "username": "ada", "hasAccess": true, "noExpiration": false,
            "currentExpiration": "2026-01-31T00:00:00Z", "expiration": "2026-02-28 00:00:00+00:00", "status": "Success"})
    );
    assert_eq!(
        (&extended[1]["hasAccess"], &extended[1]["status"]),
        (&json!(false), &json!("Success"))
    );
    assert_eq!(shop.access("S1").await[0]["expiration"], "2026-02-28T00:00:00Z");
    let granted = shop.access("S2").await;
    assert_eq!(names(&granted), ["Ada"]);
    assert!(
        granted[0]["expiration"]
            .as_str()
            .unwrap()
            .starts_with("2026-07-01T12:00:0"),
        "{granted}"
    );

    let lifetime = call(
        Method::POST,
        "/access/Grace",
        json!({"pine_ids": ["S1"], "duration": "3D"}),
    )
    .await
    .body;
    assert_eq!(
        (&lifetime[0]["status"], &lifetime[0]["noExpiration"]),
        (&json!("Not Applied"), &json!(true))
    );
    let stranger = call(
        Method::POST,
        "/access/nobody",
        json!({"pine_ids": ["S1"], "duration": "3D"}),
    )
    .await;
    assert_eq!(
        (stranger.status, &stranger.body[0]["status"]),
        (200, &json!("Failure"))
    );
    for wrong in ["L", "D", "", "tenD"] {
        let failed = call(
            Method::POST,
            "/access/Ada",
            json!({"pine_ids": ["S1"], "duration": wrong}),
        )
        .await;
        assert_eq!(
            (failed.status, &failed.body["errorMessage"]),
            (500, &json!("Unknown Exception Occurred"))
        );
    }
    let info = call(Method::POST, "/info/ADA", json!({"pine_ids": ["S1"]}))
        .await
        .body;
    assert_eq!(
        (&info[0]["hasAccess"], &info[0]["username"]),
        (&json!(true), &json!("ADA"))
    );
    let valid = call(Method::GET, "/validate/ADA", json!(null)).await.body;
    assert_eq!(valid, json!({"validuser": true, "verifiedUserName": "Ada"}));
    let taken = call(Method::DELETE, "/access/ada", json!({"pine_ids": ["S1"]}))
        .await
        .body;
    assert_eq!(taken[0]["status"], "Success");
    assert_eq!(names(&shop.access("S1").await), ["Grace"]);
    call(
        Method::POST,
        "/access/ada",
        json!({"pine_ids": ["S1"], "duration": "1L"}),
    )
    .await;
    assert_eq!(shop.access("S1").await[1]["expiration"], json!(null));
}

#[tokio::test]
async fn a_sample_shop_can_be_put_in_place() {
    let shop = Shop::start().await;
    shop.clock.set("2026-06-15T12:00:00Z".parse().unwrap());
    shop.control(Method::POST, "sample", json!({})).await;
    let rows = shop.shop(SITE).await.body;
    assert!(rows.as_array().unwrap().len() >= 5);
    assert_eq!(rows[0]["created_at"], "2026-05-14 12:00:00");
    assert_eq!(rows[0]["expires_at"], "2026-06-13 23:59:59");
    let name = rows[0]["user_meta"]["tradingview_username"].as_str().unwrap();
    let valid = shop
        .api(Method::GET, &format!("/tradingview/validate/{name}"), None)
        .await
        .body;
    assert_eq!(valid["validUser"], true);
}

#[tokio::test]
async fn a_hundred_thousand_transactions_are_put_and_paged_through_in_seconds() {
    let shop = Shop::start().await;
    let rows: Vec<_> = (1..=100_000).map(|id| row(id, "2026-01-01 00:00:00")).collect();
    let begun = Instant::now();
    let put = shop.request(Method::PUT, "/__sandbox/transactions").json(&rows);
    assert_eq!(put.send().await.unwrap().status(), 200);
    for page in [1, 500, 1000] {
        let path = format!("{MEMBERPRESS}?orderby=id&order=asc&per_page=100&page={page}");
        assert_eq!(ids(&shop.shop(&path).await.body)[0], (page - 1) * 100 + 1);
    }
    assert_eq!(shop.shop(SITE).await.body.as_array().unwrap().len(), 100_000);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn twenty_thousand_users_of_a_script_are_paged_through_in_seconds() {
    let shop = Shop::start().await;
    let users: Vec<_> = (0..20_000)
        .map(|number| json!({"username": format!("user{number}")}))
        .collect();
    shop.put("access/S1", json!(users)).await;
    let begun = Instant::now();
    let (mut listed, mut query) = (0, String::new());
    loop {
        let path = format!("/tradingview/access/scriptUsers/S1{query}");
        let page = shop.api(Method::GET, &path, None).await.body;
        listed += names(&page["users"]).len();
        match page["next"].as_str() {
            Some(next) => query = format!("?cursor={next}"),
            None => break,
        }
    }
    assert_eq!(listed, 20_000);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}
