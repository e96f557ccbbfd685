//! The table as any client of DynamoDB sees it.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

use crate::world::World;

#[tokio::test]
async fn any_client_of_dynamodb_reads_users_and_what_was_done_with_them() {
    let world = World::with_limit(1).await;
    world.registered(&["ada", "bob"]).await;
    let client = world.dynamodb_client();
    let tables = client.list_tables().send().await.unwrap();
    assert_eq!(tables.table_names(), [world.table_name()]);
    let slots = client
        .get_item()
        .table_name(world.table_name())
        .key("pk", AttributeValue::S("default#SLOTS#all".to_owned()))
        .key("sk", AttributeValue::S("SLOTS".to_owned()))
        .send()
        .await
        .unwrap();
    assert_eq!(slots.item().unwrap()["in_use"], AttributeValue::N("1".to_owned()));

    let table = world.table().await;
    for (pk, sk) in table.keys() {
        assert!(
            pk.starts_with("default#"),
            "{pk} / {sk} does not begin with the tenant"
        );
    }
    let audit: Vec<(&str, &Value)> = table
        .iter()
        .filter(|((_, sk), _)| sk.contains("AUDIT"))
        .map(|((pk, _), item)| (pk.as_str(), item))
        .collect();
    for user in ["ada", "bob"] {
        assert!(
            audit.iter().any(|(pk, _)| pk.ends_with(user)),
            "nothing was noted of {user}"
        );
    }
    for (_, entry) in &audit {
        assert!(
            entry["action"].is_string() && entry["actor"].is_string(),
            "{entry}"
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn a_secret_is_stored_only_encrypted() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::on(directory.path()).await;
    world.registered(&["ada", "bob"]).await;
    let secrets = crate::world::issued_secrets(directory.path());
    assert_eq!(secrets.len(), 2);
    let stored = format!("{:?}", world.table().await);
    for secret in secrets {
        assert!(!stored.contains(&secret), "a user's secret stands in the table");
        let bare = secret.replace('-', "");
        assert!(!stored.contains(&bare), "a user's secret stands in the table");
    }
    world.stop().await;
}
