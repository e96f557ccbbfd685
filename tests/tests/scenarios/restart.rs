//! A stack that stops and starts again, in the middle of something too.

use std::time::Duration;

use berth_local::{Data, Options};
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn users_and_their_secrets_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::on(directory.path()).await;
    world.registered(&["ada", "bob"]).await;
    world.protect("ada").await;
    world.hold("cy").await.with_status(200);
    let tracked = world.tracked().await;
    world.stop().await;

    let world = World::on(directory.path()).await;
    assert_eq!(world.tracked().await, tracked);
    world.assert_secret_works("ada").await;
    let again = world.register("bob").await.with_status(200);
    assert_eq!(again["created"], false);
    world.register("cy").await.with_status(201);
    world.assert_exactly(&["ada", "bob", "cy"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_registration_that_a_stop_cut_off_is_repaired_by_the_sync() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::on(directory.path()).await;
    world.registered(&["ada"]).await;
    // SnapTrade registers Bob and never says so, and the stack is stopped while it waits.
    world.fault("registerUser", "commit_then_timeout", 1).await;
    let request = world.as_user("bob", reqwest::Method::POST, "/api/snaptrade/register");
    let cut_off = tokio::spawn(request.json(&json!({})).send());
    while world.at_snaptrade().await.len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.stop().await;
    let answer = cut_off.await.unwrap();
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() != 201));

    let world = World::on(directory.path()).await;
    assert_eq!(world.at_snaptrade().await.len(), 2);
    world.settle().await;
    world.assert_exactly(&["ada"]).await;
    world.register("bob").await.with_status(201);
    world.assert_exactly(&["ada", "bob"]).await;
    world.assert_secret_works("bob").await;
    world.stop().await;
}

#[tokio::test]
async fn schedules_and_events_go_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options {
        data: Data::Directory(directory.path().to_owned()),
        schedules: true,
        ..Options::default()
    };
    let world = World::with(options()).await;
    world.registered(&["ada"]).await;
    world.connect("ada").await;
    // What was taken in may wait for its worker still.
    world.stop().await;

    let world = World::with(options()).await;
    world.events_done().await;
    assert_eq!(world.status("ada").await["connections"], 1);
    world.register_behind_our_back("stranger").await;
    world.advance(16 * 60).await;
    for _ in 0..100 {
        if world.tracked().await.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.assert_exactly(&["ada", "stranger"]).await;
    world.stop().await;
}
