//! The table as any client of DynamoDB sees it.

use aws_sdk_dynamodb::types::AttributeValue;
use berth::store::{Condition, Item, Key, Outcome, Store, Transaction, Write, to_item};
use jiff::Timestamp;
use serde_json::{Value, json};

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

#[tokio::test]
async fn a_conditional_write_tells_won_lost_and_already_mine() {
    let world = World::start().await;
    let store = Store::new(world.dynamodb_client(), world.table_name());
    let now = Timestamp::now();
    let key = Key::new("default#TEST#one", "TEST");
    let item = |by: &str| to_item(&key, &json!({"by": by, "rev": 1}), None, None).unwrap();
    let put = async |by: &str| store.put(item(by), &Condition::Absent, now).await.unwrap();
    assert_eq!(put("ada").await, Outcome::Won);
    assert_eq!(put("ada").await, Outcome::AlreadyMine);
    assert_eq!(put("bob").await, Outcome::Lost(vec![Some(item("ada"))]));
    // A transaction that is sent again under its own name is made once, and tells its author so.
    let transaction = Transaction {
        token: "aaaaaaaaaaaa.test.1".to_owned(),
        writes: vec![Write::Delete {
            key: key.clone(),
            condition: Condition::Revision(1),
        }],
    };
    assert_eq!(store.transact(&transaction, now).await.unwrap(), Outcome::Won);
    assert_eq!(store.transact(&transaction, now).await.unwrap(), Outcome::Won);
    let another = Transaction {
        token: "aaaaaaaaaaaa.test.2".to_owned(),
        ..transaction
    };
    assert_eq!(
        store.transact(&another, now).await.unwrap(),
        Outcome::Lost(vec![Some(Item::new())])
    );
    world.stop().await;
}

#[tokio::test]
async fn an_item_whose_time_has_passed_is_absent_for_reads_and_for_writes() {
    let world = World::start().await;
    let store = Store::new(world.dynamodb_client(), world.table_name());
    let now = Timestamp::now();
    let key = Key::new("default#TEST#two", "TEST");
    let item = to_item(&key, &json!({"rev": 1}), None, Some(now)).unwrap();
    assert_eq!(
        store.put(item.clone(), &Condition::Absent, now).await.unwrap(),
        Outcome::Won
    );
    assert_eq!(store.get(&key, now).await.unwrap(), None);
    assert!(
        store
            .get_all(&[key.clone(), key.clone()], now)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(store.partition(&key.pk, now).await.unwrap().is_empty());
    assert_eq!(
        store.put(item, &Condition::Absent, now).await.unwrap(),
        Outcome::Won
    );
    world.stop().await;
}
