//! What all answers have in common: ids, security headers, and who may read them from a web page. That every answer
//! of every scenario has its ids and headers is checked where answers are received.

use berth_local::Options;
use reqwest::Method;
use serde_json::json;

use crate::world::World;

const REGISTER: &str = "/api/snaptrade/register";

async fn with_origins() -> World {
    World::with(Options {
        origins: vec![
            "https://app.example.com".to_owned(),
            "https://*.vercel.app".to_owned(),
        ],
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call_and_others_get_no_header() {
    let world = with_origins().await;
    for (origin, allowed) in [
        ("https://app.example.com", true),
        ("https://berth-git-main.vercel.app", true),
        ("https://a.b.vercel.app", false),
        ("https://vercel.app", false),
        ("https://app.example.com.evil.example", false),
        ("http://app.example.com", false),
        ("https://app.example.com:8443", false),
        ("null", false),
    ] {
        let preflight = world
            .request(Method::OPTIONS, REGISTER)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization");
        let call = world
            .as_user("ada", Method::POST, REGISTER)
            .header("origin", origin);
        let failing = world
            .as_user("ada", Method::GET, "/nowhere")
            .header("origin", origin);
        for request in [preflight, call, failing] {
            let answer = world.send(request).await;
            let expected = allowed.then_some(origin);
            assert_eq!(answer.header("access-control-allow-origin"), expected, "{origin}");
            assert_eq!(
                answer.header("access-control-expose-headers").is_some(),
                allowed,
                "{origin}"
            );
            assert!(
                answer
                    .header("vary")
                    .unwrap()
                    .to_ascii_lowercase()
                    .contains("origin")
            );
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn a_preflight_request_to_any_path_needs_no_token() {
    let world = with_origins().await;
    for path in ["/", REGISTER, "/api/snaptrade/users/ada", "/nowhere/at/all"] {
        let request = world
            .request(Method::OPTIONS, path)
            .header("origin", "https://app.example.com")
            .header("access-control-request-method", "PATCH");
        let answer = world.send(request).await;
        assert!([200, 204].contains(&answer.status), "{path}");
        let methods = answer.header("access-control-allow-methods").unwrap();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            assert!(methods.contains(method), "{methods}");
        }
        let headers = answer
            .header("access-control-allow-headers")
            .unwrap()
            .to_ascii_lowercase();
        for header in [
            "authorization",
            "content-type",
            "idempotency-key",
            "x-correlation-id",
        ] {
            assert!(headers.contains(header), "{headers}");
        }
        let exposed = answer
            .header("access-control-expose-headers")
            .unwrap()
            .to_ascii_lowercase();
        for header in ["retry-after", "x-request-id", "x-correlation-id"] {
            assert!(exposed.contains(header), "{exposed}");
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn a_correlation_id_is_handed_back_and_a_request_id_is_always_new() {
    let world = World::start().await;
    let call = || {
        world
            .as_user("ada", Method::POST, REGISTER)
            .header("x-correlation-id", "order-4711")
    };
    let (first, second) = (world.send(call()).await, world.send(call()).await);
    for answer in [&first, &second] {
        assert_eq!(answer.header("x-correlation-id"), Some("order-4711"));
    }
    assert_ne!(first.request_id(), second.request_id());
    // One that could do harm in a log is replaced.
    let request = world
        .as_user("ada", Method::POST, REGISTER)
        .header("x-correlation-id", "a b;{\"level\":\"ERROR\"}");
    let answer = world.send(request).await;
    let id = answer.header("x-correlation-id").unwrap();
    assert!(!id.contains(['{', '"', ' ']), "{id}");
    world.stop().await;
}

#[tokio::test]
async fn the_root_and_the_health_are_open_to_anyone() {
    let world = World::start().await;
    let root = world.send(world.request(Method::GET, "/")).await.with_status(200);
    assert_eq!(root["status"], "ok");
    assert!(root["version"].is_string());
    let health = world
        .send(world.request(Method::GET, "/health"))
        .await
        .with_status(200);
    assert_eq!(
        health["checks"],
        json!({"store": "ok", "secrets": "ok", "snaptrade": "ok", "access_api": "ok", "wordpress": "ok"})
    );
    // What is outside is asked at most once a minute.
    world.fail_with("*", 500, 100).await;
    world
        .send(world.request(Method::GET, "/health"))
        .await
        .with_status(200);
    world.advance(61).await;
    let health = world.request(Method::GET, "/health").send().await.unwrap();
    assert_eq!(health.status(), 503);
    let health: serde_json::Value = health.json().await.unwrap();
    assert_ne!(health["checks"]["snaptrade"], "ok");
    world.stop().await;
}
