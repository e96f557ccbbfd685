//! Bad input gets the contract's error and changes nothing.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Answer, World, encoded};

/// The pointers of a problem's faults, sorted.
fn pointers(answer: &Answer) -> Vec<String> {
    let errors = answer["errors"].as_array().unwrap();
    let mut pointers: Vec<_> = errors
        .iter()
        .map(|error| {
            assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
            error["pointer"].as_str().unwrap().to_owned()
        })
        .collect();
    pointers.sort();
    pointers
}

const REGISTER: &str = "/api/snaptrade/register";
const HOLD: &str = "/api/snaptrade/handle-connection-limit";
const USERS: &str = "/api/snaptrade/users";

#[tokio::test]
async fn a_body_that_is_not_what_it_should_be_is_refused_with_every_fault_at_once() {
    let world = World::start().await;
    world.without_events().await;
    world.registered(&["ada"]).await;
    let before = world.table().await;
    let at_snaptrade = world.at_snaptrade().await;

    for path in [REGISTER, HOLD] {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let deep_object = format!("{}1{}", "{\"a\":".repeat(40_000), "}".repeat(40_000));
        let bodies: [&[u8]; 14] = [
            b"{",
            b"{\"user_id\": \"bob\"",
            b"{'user_id': 'bob'}",
            b"{\"user_id\": \"bob\",}",
            b"{\"user_id\": \"bob\"} {}",
            b"{\"user_id\": \"\xff\xfe\"}",
            b"{\"user_id\": \"\\ud800\"}",
            b"nonsense",
            b"[]",
            b"\"bob\"",
            b"5",
            b"null",
            deep.as_bytes(),
            deep_object.as_bytes(),
        ];
        for body in bodies {
            let request = world.as_user("bob", Method::POST, path).body(body.to_vec());
            let answer = world.send(request).await.problem(400, "invalid_request");
            assert_eq!(pointers(&answer), [""], "{}", answer.text);
        }
        let wrong: [Value; 8] = [
            json!(5),
            json!(true),
            json!([]),
            json!({}),
            json!(""),
            json!("two words"),
            json!("x".repeat(129)),
            json!("line\nbreak"),
        ];
        for user_id in wrong {
            let request = world
                .as_operator(Method::POST, path)
                .json(&json!({"user_id": user_id}));
            let answer = world.send(request).await.problem(400, "invalid_request");
            assert_eq!(pointers(&answer), ["/user_id"], "{}", answer.text);
        }
    }

    let answer = world
        .add_user(json!({"user_id": 5, "created_at": "yesterday", "protected": "no"}))
        .await
        .problem(400, "invalid_request");
    assert_eq!(pointers(&answer), ["/created_at", "/protected", "/user_id"]);
    let answer = world
        .add_user(json!({"protected": 1}))
        .await
        .problem(400, "invalid_request");
    assert_eq!(pointers(&answer), ["/protected", "/user_id"]);
    let answer = world.add_user(json!({})).await.problem(400, "invalid_request");
    assert_eq!(pointers(&answer), ["/user_id"]);
    let answer = world
        .change_user("ada", json!({"protected": "yes", "created_at": 5}))
        .await
        .problem(400, "invalid_request");
    assert_eq!(pointers(&answer), ["/created_at", "/protected"]);

    assert_eq!(world.table().await, before);
    assert_eq!(world.at_snaptrade().await, at_snaptrade);
    world.stop().await;
}

#[tokio::test]
async fn unknown_members_are_ignored_and_an_empty_body_is_an_empty_object() {
    let world = World::start().await;
    let request = world
        .as_user("ada", Method::POST, REGISTER)
        .json(&json!({"user_id": "ada", "colour": {"deep": [1, null]}, "": 0}));
    world.send(request).await.with_status(201);
    let request = world.as_user("ada", Method::POST, REGISTER);
    world.send(request).await.with_status(200);
    let request = world.as_user("ada", Method::POST, HOLD).body("  \n");
    world.send(request).await.with_status(200);
    world.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_by_the_function_or_by_the_gateway() {
    let world = World::start().await;
    let padded = |bytes: usize| format!("{{\"user_id\":\"ada\",\"pad\":\"{}\"}}", "x".repeat(bytes));
    let request = world
        .as_user("ada", Method::POST, REGISTER)
        .body(padded(300 * 1024));
    world.send(request).await.problem(413, "payload_too_large");
    let request = world
        .as_user("ada", Method::POST, REGISTER)
        .body(padded(11 * 1024 * 1024));
    let answer = world.send(request).await.with_status(413);
    assert_eq!(answer.body, json!({"message": "Request Entity Too Large"}));
    world.assert_exactly(&[]).await;
    let request = world
        .as_user("ada", Method::POST, REGISTER)
        .body(padded(200 * 1024));
    world.send(request).await.with_status(201);
    world.stop().await;
}

#[tokio::test]
async fn ids_of_any_script_are_users_like_others() {
    let world = World::with_limit(12).await;
    let long = "ö".repeat(128);
    let ids = [
        "zoë",
        "名前",
        "ada@example.com",
        "a/b",
        "a%2Fb",
        "auth0|5f7c",
        "a~b",
        "#",
        "?x=1&y=2",
        "🦀",
        "..",
        long.as_str(),
    ];
    for id in ids {
        let answer = world.register(id).await.with_status(201);
        assert_eq!(answer["user_id"], id);
        assert_eq!(answer["evicted"], Value::Null);
        assert_eq!(world.status(id).await["registered"], true);
    }
    world.assert_exactly(&ids).await;
    for id in ids.iter().filter(|id| **id != "..") {
        let changed = world
            .change_user(id, json!({"protected": true}))
            .await
            .with_status(200);
        assert_eq!(
            (&changed["user_id"], &changed["protected"]),
            (&json!(id), &json!(true))
        );
    }
    world.assert_secret_works("名前").await;
    world.delete_user("a/b").await.with_status(200);
    world.delete_user("a%2Fb").await.with_status(200);
    world.delete_user("zoë").await.with_status(200);
    assert_eq!(world.tracked().await.len(), ids.len() - 3);
    // An email does not go to SnapTrade.
    for upstream in world.at_snaptrade().await {
        assert!(!upstream.contains('@') && upstream.is_ascii(), "{upstream}");
    }
    world.stop().await;
}

#[tokio::test]
async fn nobody_acts_for_another_user_and_only_operators_use_their_routes() {
    let world = World::start().await;
    world.without_events().await;
    world.registered(&["ada", "bob"]).await;
    let before = world.table().await;
    for path in [REGISTER, HOLD] {
        let request = world
            .as_user("ada", Method::POST, path)
            .json(&json!({"user_id": "bob"}));
        world.send(request).await.problem(403, "forbidden");
    }
    for (method, path) in [
        (Method::GET, USERS),
        (Method::POST, USERS),
        (Method::PATCH, "/api/snaptrade/users/ada"),
        (Method::DELETE, "/api/snaptrade/users/ada"),
        (Method::POST, "/api/snaptrade/users/delete-oldest"),
        (Method::POST, "/api/snaptrade/users/ada/recreate"),
        (Method::POST, "/api/snaptrade/users/ada/reset-secret"),
        (Method::POST, "/api/snaptrade/sync"),
    ] {
        let request = world
            .as_user("ada", method, path)
            .json(&json!({"user_id": "ada", "protected": true}));
        world.send(request).await.problem(403, "forbidden");
    }
    assert_eq!(world.table().await, before);
    world.assert_exactly(&["ada", "bob"]).await;
    world.stop().await;
}

#[tokio::test]
async fn without_a_good_token_the_gateway_answers_itself() {
    let world = World::start().await;
    let unauthorized = json!({"message": "Unauthorized"});
    let tokens = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer nonsense",
        "Bearer dev:",
        "Bearer dev::operator",
        "Bearer dev:ada:admin",
        "Bearer dev:ada:operator:x",
        "Bearer dev:%zz",
        "Bearer dev:%ff",
        "Basic ZGV2OmFkYQ==",
        "dev:ada",
    ];
    for path in [REGISTER, HOLD, "/api/snaptrade/sync"] {
        for token in tokens {
            let mut request = world.request(Method::POST, path);
            if !token.is_empty() {
                request = request.header("authorization", token);
            }
            let answer = world.send(request.json(&json!({}))).await.with_status(401);
            assert_eq!(answer.body, unauthorized, "{token}");
        }
    }
    // A subject that can be no user's id has a token all the same, but may do nothing.
    let request = world
        .request(Method::POST, REGISTER)
        .bearer_auth("dev:two%20words");
    world.send(request).await.problem(403, "forbidden");
    world.assert_exactly(&[]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones_and_an_unknown_path_is_not_found() {
    let world = World::start().await;
    for (method, path, allowed) in [
        (Method::GET, REGISTER, "POST"),
        (Method::DELETE, HOLD, "POST"),
        (Method::PUT, USERS, "GET"),
        (Method::PUT, USERS, "POST"),
        (Method::GET, "/api/snaptrade/users/ada", "PATCH"),
        (Method::GET, "/api/snaptrade/users/ada", "DELETE"),
        (Method::POST, "/health", "GET"),
    ] {
        let answer = world
            .send(world.as_operator(method, path))
            .await
            .problem(405, "method_not_allowed");
        assert!(answer.header("allow").unwrap().contains(allowed), "{path}");
    }
    for path in [
        "/nowhere",
        "/api/snaptrade",
        "/api/snaptrade/register/more",
        "/%00",
        "/%ff",
        "//",
    ] {
        for request in [
            world.request(Method::GET, path),
            world.as_user("ada", Method::POST, path),
        ] {
            world.send(request).await.problem(404, "not_found");
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn faults_in_a_query_are_named() {
    let world = World::start().await;
    world.registered(&["ada", "bob"]).await;
    for limit in ["501", "0", "-1", "many", "", "1.5", "99999999999999999999"] {
        let answer = world
            .users(&format!("?limit={limit}"))
            .await
            .problem(400, "invalid_request");
        assert_eq!(pointers(&answer), ["#/query/limit"]);
    }
    let of_another_list = encoded(&base64_url(b"{\"position\":1}"));
    for cursor in ["nonsense", "%00", "e30", "W10", of_another_list.as_str()] {
        let answer = world
            .users(&format!("?cursor={cursor}"))
            .await
            .problem(400, "invalid_request");
        assert_eq!(pointers(&answer), ["#/query/cursor"], "{cursor}");
    }
    let answer = world
        .users("?limit=0&cursor=nonsense")
        .await
        .problem(400, "invalid_request");
    assert_eq!(pointers(&answer), ["#/query/cursor", "#/query/limit"]);
    world.users("?limit=500&colour=red").await.with_status(200);

    // A cursor is no secret; one that was made up leads to no other tenant's users.
    let made_up = json!({"pk": "other#USER#eve", "sk": "USER", "gsi1sk": "0"});
    let made_up = base64_url(made_up.to_string().as_bytes());
    let answer = world.users(&format!("?cursor={made_up}")).await;
    if answer.status == 200 {
        for user in answer["data"].as_array().unwrap() {
            assert!(["ada", "bob"].contains(&user["user_id"].as_str().unwrap()));
        }
    } else {
        answer.problem(400, "invalid_request");
    }
    world.stop().await;
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
