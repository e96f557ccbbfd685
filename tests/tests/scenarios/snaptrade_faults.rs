//! SnapTrade answers late, never, with nonsense or errors, or does the work and loses the answer: what the caller is
//! told, and how everything comes right again.
//!
//! Calls that are never answered take real time to fail, so scenarios of one kind run side by side.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::world::World;

/// A fault of the next `times` calls of `operation`, and the answers, status and code, that may come of it. A
/// registration has no code.
#[derive(Debug, Clone)]
struct Case {
    operation: &'static str,
    fault: Value,
    times: u32,
    answer: (u16, &'static str),
}

/// Often enough that no retry gets past.
const LASTING: u32 = 100;

const REGISTERED: (u16, &str) = (201, "");
const NO_ANSWER: (u16, &str) = (504, "upstream_timeout");
const ERROR: (u16, &str) = (502, "upstream_error");
const THROTTLED: (u16, &str) = (429, "rate_limited");

fn case(operation: &'static str, fault: Value, times: u32, answer: (u16, &'static str)) -> Case {
    Case {
        operation,
        fault,
        times,
        answer,
    }
}

fn kind(kind: &str) -> Value {
    json!({"kind": kind})
}

fn status(status: u16) -> Value {
    json!({"kind": "status", "status": status})
}

impl Case {
    async fn begin(&self, world: &World) {
        let mut fault = self.fault.clone();
        fault["operation"] = self.operation.into();
        fault["times"] = self.times.into();
        world.sandbox("faults", fault).await;
    }
}

/// Runs scenarios at the same time and tells which of them failed.
async fn side_by_side(scenarios: Vec<(String, BoxFuture<'static, ()>)>) {
    let running: Vec<_> = scenarios
        .into_iter()
        .map(|(name, scenario)| (name, tokio::spawn(scenario)))
        .collect();
    let mut failed = Vec::new();
    for (name, scenario) in running {
        if scenario.await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

/// What happens after the faulty call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The caller tries again.
    Again,
    /// The caller is never seen again, and the sync puts it right.
    Sync,
}

/// Bob wants to be registered beside Ada, and there is room.
async fn newcomer(case: Case, then: Then) {
    let world = World::with_limit(3).await;
    world.registered(&["ada"]).await;
    case.begin(&world).await;
    let answer = world.register("bob").await;
    assert_eq!((answer.status, answer.code()), case.answer, "{}", answer.text);
    world.clear_faults().await;
    let mut expected = vec!["ada"];
    if answer.status == 201 || then == Then::Again {
        expected.push("bob");
        let again = world.register("bob").await;
        assert!([200, 201].contains(&again.status), "{}", again.text);
        assert_eq!(again["evicted"], Value::Null);
    }
    world.settle().await;
    world.assert_exactly(&expected).await;
    for user in expected {
        world.assert_secret_works(user).await;
    }
    world.stop().await;
}

/// Cy wants to be registered, and Ada has to give way for that.
async fn at_the_limit(case: Case, then: Then) {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    case.begin(&world).await;
    let answer = world.register("cy").await;
    assert_eq!((answer.status, answer.code()), case.answer, "{}", answer.text);
    world.clear_faults().await;
    let expected: &[&str] = if answer.status == 201 || then == Then::Again {
        let again = world.register("cy").await;
        assert!([200, 201].contains(&again.status), "{}", again.text);
        &["bob", "cy"]
    } else if answer.code() == "upstream_timeout" || is_in_doubt(&case.fault) {
        // Nobody knows whether Ada was deleted, so she is; the place is free then.
        &["bob"]
    } else {
        // SnapTrade refused to delete Ada, so she stays as she was.
        &["ada", "bob"]
    };
    world.settle().await;
    world.assert_exactly(expected).await;
    for user in expected {
        world.assert_secret_works(user).await;
    }
    world.stop().await;
}

/// Whether SnapTrade may have acted on a call that failed so.
fn is_in_doubt(fault: &Value) -> bool {
    fault["kind"] == "malformed" || fault["status"].as_u64().is_some_and(|status| status >= 500)
}

fn named(
    cases: Vec<Case>,
    then: &[Then],
    scenario: fn(Case, Then) -> BoxFuture<'static, ()>,
) -> Vec<(String, BoxFuture<'static, ()>)> {
    cases
        .into_iter()
        .flat_map(|case| then.iter().map(move |then| (case.clone(), *then)))
        .map(|(case, then)| {
            let name = format!("{} {} x{}, then {then:?}", case.operation, case.fault, case.times);
            (name, scenario(case, then))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_survives_one_failed_call_and_leaves_nothing_where_all_fail() {
    let once = [
        json!({"kind": "slow", "delay_ms": 2_000}),
        kind("timeout"),
        kind("commit_then_timeout"),
        kind("malformed"),
        status(500),
        status(503),
        kind("limit_reached"),
    ]
    .map(|fault| case("registerUser", fault, 1, REGISTERED));
    let register = |fault, answer| case("registerUser", fault, LASTING, answer);
    let lasting = vec![
        register(kind("timeout"), NO_ANSWER),
        register(kind("commit_then_timeout"), NO_ANSWER),
        register(kind("malformed"), ERROR),
        register(status(500), ERROR),
        register(status(503), ERROR),
        register(status(401), ERROR),
        register(status(429), THROTTLED),
        case("*", kind("timeout"), LASTING, NO_ANSWER),
    ];
    let run = |case, then| -> BoxFuture<'static, ()> { Box::pin(newcomer(case, then)) };
    let mut scenarios = named(once.to_vec(), &[Then::Sync], run);
    scenarios.extend(named(lasting, &[Then::Again, Then::Sync], run));
    side_by_side(scenarios).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn making_room_survives_one_failed_call_and_is_put_right_where_all_fail() {
    let once = [
        json!({"kind": "slow", "delay_ms": 2_000}),
        kind("timeout"),
        kind("commit_then_timeout"),
        kind("malformed"),
        status(500),
    ]
    .map(|fault| case("deleteUser", fault, 1, REGISTERED));
    let delete = |fault, answer| case("deleteUser", fault, LASTING, answer);
    let lasting = vec![
        delete(kind("timeout"), NO_ANSWER),
        delete(kind("commit_then_timeout"), NO_ANSWER),
        delete(kind("malformed"), ERROR),
        delete(status(500), ERROR),
        delete(status(401), ERROR),
        delete(status(429), THROTTLED),
        case("*", kind("timeout"), LASTING, NO_ANSWER),
    ];
    let run = |case, then| -> BoxFuture<'static, ()> { Box::pin(at_the_limit(case, then)) };
    let mut scenarios = named(once.to_vec(), &[Then::Sync], run);
    scenarios.extend(named(lasting, &[Then::Again, Then::Sync], run));
    side_by_side(scenarios).await;
}

/// SnapTrade does what it was asked for after the caller has given up waiting and has undone it.
async fn a_late_registration() {
    let world = World::with_limit(2).await;
    let started = Instant::now();
    let fault = json!({"operation": "registerUser", "kind": "slow", "delay_ms": 8_000});
    world.sandbox("faults", fault).await;
    world.register("ada").await.with_status(201);
    while world.at_snaptrade().await.len() < 2 {
        let waited = started.elapsed();
        assert!(
            waited < Duration::from_secs(20),
            "the late call was to have an effect"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.settle().await;
    world.assert_exactly(&["ada"]).await;
    world.assert_secret_works("ada").await;
    world.stop().await;
}

async fn a_late_deletion() {
    let world = World::with_limit(1).await;
    world.registered(&["ada"]).await;
    let started = Instant::now();
    let fault = json!({"operation": "deleteUser", "kind": "slow", "delay_ms": 8_000});
    world.sandbox("faults", fault).await;
    world.register("bob").await.with_status(201);
    world.register("ada").await.with_status(201);
    tokio::time::sleep(Duration::from_millis(8_500).saturating_sub(started.elapsed())).await;
    world.settle().await;
    world.assert_exactly(&["ada"]).await;
    world.assert_secret_works("ada").await;
    world.stop().await;
}

/// SnapTrade needs a while to delete, and its own limit counts the user meanwhile.
async fn a_deletion_that_takes_ten_seconds() {
    let world = World::start().await;
    world.registered(&["ada", "bob", "cy", "dee", "eve"]).await;
    let settings = json!({"user_limit": 5, "delete_delay_ms": 10_000});
    world.sandbox("settings", settings).await;
    // The clock is the real one here: the request has to wait for SnapTrade, and no longer than for that.
    let answer = world.register_for("fay").await.with_status(201);
    assert_eq!(answer["evicted"]["user_id"], "ada");
    assert_eq!(answer["slots"], json!({"in_use": 5, "limit": 5}));
    let took = answer.took.as_secs();
    assert!((9..20).contains(&took), "{took} s");
    world.settle().await;
    world.assert_exactly(&["bob", "cy", "dee", "eve", "fay"]).await;
    world.assert_secret_works("fay").await;
    world.stop().await;
}

async fn a_deletion_that_takes_minutes() {
    let world = World::with_limit(2).await;
    world.registered(&["ada", "bob"]).await;
    let settings = json!({"user_limit": 2, "delete_delay_ms": 120_000});
    world.sandbox("settings", settings).await;
    let answer = world.register("cy").await.problem(503, "deletion_pending");
    assert!(answer.retry_after().is_some());
    // The place is kept: a third user does not get it, and nobody else gives way for Cy.
    world.advance(121).await;
    let answer = world.register("cy").await.with_status(201);
    assert_eq!(answer["slots"], json!({"in_use": 2, "limit": 2}));
    world.settle().await;
    world.assert_exactly(&["bob", "cy"]).await;
    world.assert_secret_works("cy").await;
    world.stop().await;
}

async fn a_limit_at_snaptrade_below_ours() {
    let world = World::with_limit(4).await;
    world.sandbox("settings", json!({"user_limit": 2})).await;
    world.registered(&["ada", "bob"]).await;
    let answer = world.register("cy").await.with_status(201);
    assert_eq!(answer["evicted"]["reason"], "oldest");
    world.settle().await;
    world.assert_exactly(&["bob", "cy"]).await;
    world.assert_secret_works("cy").await;
    world.stop().await;
}

async fn a_limit_that_is_never_lifted() {
    let world = World::with_limit(4).await;
    world.registered(&["ada", "bob"]).await;
    world.fault("registerUser", "limit_reached", LASTING).await;
    world
        .register("cy")
        .await
        .problem(409, "connection_limit_reached");
    world.settle().await;
    let tracked = world.tracked().await;
    assert!(!tracked.is_empty(), "more than one user was evicted for nothing");
    let users: Vec<_> = tracked
        .iter()
        .map(|user| user["user_id"].as_str().unwrap())
        .collect();
    world.assert_exactly(&users).await;
    world.register("cy").await.with_status(201);
    world.stop().await;
}

async fn a_limit_that_refuses_a_second_user_too() {
    // Both want the one place that SnapTrade has, at the same time.
    let world = World::with_limit(4).await;
    world.sandbox("settings", json!({"user_limit": 1})).await;
    let (first, second) = tokio::join!(world.register("ada"), world.register("bob"));
    for answer in [&first, &second] {
        assert!([201, 409, 502, 503].contains(&answer.status), "{}", answer.text);
    }
    assert!(
        first.status == 201 || second.status == 201,
        "{} {}",
        first.text,
        second.text
    );
    world.settle().await;
    assert_eq!(world.at_snaptrade().await.len(), 1);
    let tracked = world.tracked().await;
    world
        .assert_exactly(&[tracked[0]["user_id"].as_str().unwrap()])
        .await;
    world.stop().await;
}

/// Without SnapTrade's list nothing is changed, and whoever needs it learns why.
async fn a_list_that_cannot_be_had(fault: Value, expected: (u16, &'static str)) {
    let world = World::start().await;
    world.registered(&["ada", "bob"]).await;
    world
        .delete_behind_our_back(&world.upstream_id("bob").await)
        .await;
    world.register_behind_our_back("stranger").await;
    case("listUsers", fault, LASTING, expected).begin(&world).await;
    let answers = tokio::join!(
        world.sync(),
        world.operators_status(),
        world.add_user(json!({"user_id": "stranger"}))
    );
    for answer in [answers.0, answers.1, answers.2] {
        answer.problem(expected.0, expected.1);
    }
    // Users need no list.
    world.status("ada").await.with_status(200);
    world.register("ada").await.with_status(200);
    world.settle().await;
    world.assert_exactly(&["ada", "stranger"]).await;
    world.stop().await;
}

async fn deletions_and_recreations_that_fail() {
    let world = World::with_limit(3).await;
    world.registered(&["ada", "bob", "cy"]).await;
    world.fail_with("deleteUser", 500, LASTING).await;
    world.delete_user("ada").await.problem(502, "upstream_error");
    // She is on the way out, and cannot be registered past that while it is under way.
    assert_eq!(world.status("ada").await["registered"], false);
    world.settle().await;
    world.assert_exactly(&["bob", "cy"]).await;

    world.fail_with("registerUser", 500, LASTING).await;
    world.recreate("bob").await.problem(502, "upstream_error");
    world.clear_faults().await;
    let again = world.register("bob").await.with_status(201);
    assert_eq!(again["evicted"], Value::Null);
    world.settle().await;
    world.assert_exactly(&["bob", "cy"]).await;
    world.assert_secret_works("bob").await;

    // The answer with the new secret is lost: the old secret is dead, and registering again repairs it.
    world.fault("resetUserSecret", "commit_then_timeout", 1).await;
    world.reset_secret("cy").await.problem(409, "secret_invalid");
    world
        .connection_url("cy", json!({}))
        .await
        .problem(409, "secret_invalid");
    let again = world.register("cy").await.with_status(201);
    assert_eq!(again["evicted"], Value::Null);
    world.assert_secret_works("cy").await;
    world.settle().await;
    world.assert_exactly(&["bob", "cy"]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_snaptrade_does_late_or_not_at_all_is_put_right() {
    fn scenario(
        name: &str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> (String, BoxFuture<'static, ()>) {
        (name.to_owned(), Box::pin(work))
    }
    let rate_limited = json!({"kind": "rate_limited", "retry_after": 7});
    side_by_side(vec![
        scenario("a late registration", a_late_registration()),
        scenario("a late deletion", a_late_deletion()),
        scenario("ten seconds to delete", a_deletion_that_takes_ten_seconds()),
        scenario("minutes to delete", a_deletion_that_takes_minutes()),
        scenario("a limit below ours", a_limit_at_snaptrade_below_ours()),
        scenario("a limit that is never lifted", a_limit_that_is_never_lifted()),
        scenario("two for one place", a_limit_that_refuses_a_second_user_too()),
        scenario("deletions that fail", deletions_and_recreations_that_fail()),
        scenario("list 500", a_list_that_cannot_be_had(status(500), ERROR)),
        scenario("list 401", a_list_that_cannot_be_had(status(401), ERROR)),
        scenario(
            "list malformed",
            a_list_that_cannot_be_had(kind("malformed"), ERROR),
        ),
        scenario(
            "list timeout",
            a_list_that_cannot_be_had(kind("timeout"), NO_ANSWER),
        ),
        scenario(
            "list throttled",
            a_list_that_cannot_be_had(rate_limited, THROTTLED),
        ),
    ])
    .await;
}

#[tokio::test]
async fn trying_again_and_again_in_an_outage_locks_nobody_out() {
    let world = World::with_limit(1).await;
    world.registered(&["ada"]).await;
    world.fail_with("deleteUser", 503, 1_000).await;
    for _ in 0..10 {
        world.register("bob").await.problem(502, "upstream_error");
    }
    world.clear_faults().await;
    // Somebody else may take the place over with what it owes, and so may the user it was made for.
    world.register("cy").await.with_status(201);
    world.register("bob").await.with_status(201);
    world.assert_exactly(&["bob"]).await;
    world.assert_secret_works("bob").await;
    world.stop().await;
}
