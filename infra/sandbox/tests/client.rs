//! Berth's own client of SnapTrade against the sandbox: what one sends and answers, the other understands.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use berth::config::BaseUrl;
use berth::ids::UpstreamId;
use berth::secrets::Cached;
use berth::snaptrade::{
    ActivityFilter, Client, ClientOptions, Credentials, ErrorKind, LoginRequest, TIMEOUT, UserCredentials,
    http_client,
};
use berth_sandbox::snaptrade::{CLIENT_ID, CONSUMER_KEY, Options, Sandbox};
use rust_decimal::Decimal;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;

async fn start() -> (Sandbox, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options::default();
    let clock = options.clock.clone();
    let sandbox = Sandbox::start(listener, options).await.unwrap();
    let client = client_of(&sandbox, clock, CONSUMER_KEY);
    (sandbox, client)
}

fn client_of(sandbox: &Sandbox, clock: berth::clock::Clock, consumer_key: &str) -> Client {
    Client::new(ClientOptions {
        base_url: BaseUrl::parse(sandbox.base_url()).unwrap(),
        credentials: Arc::new(Cached::fixed(Credentials {
            client_id: CLIENT_ID.to_owned(),
            consumer_key: SecretString::from(consumer_key.to_owned()),
        })),
        clock,
        http: http_client().unwrap(),
        timeout: TIMEOUT,
        gate: None,
    })
}

async fn control(sandbox: &Sandbox, call: &str, body: Value) -> Value {
    let url = format!("{}/__sandbox/{call}", sandbox.base_url());
    let request = http_client().unwrap().post(url).body(body.to_string());
    let answer = request.send().await.unwrap();
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

async fn registered(client: &Client, id: &str) -> UserCredentials {
    let user = client
        .register_user(&UpstreamId::from_snaptrade(id))
        .await
        .unwrap();
    UserCredentials {
        user_id: user.user_id,
        user_secret: user.user_secret,
    }
}

#[tokio::test]
async fn a_users_life_is_understood_from_end_to_end() {
    let (sandbox, client) = start().await;
    client.check().await.unwrap();
    client.partner_info().await.unwrap();
    assert!(client.list_brokerages().await.unwrap().len() >= 5);
    assert!(!client.list_exchanges().await.unwrap().is_empty());
    assert_eq!(client.search_symbols("apple").await.unwrap().len(), 1);

    let user = registered(&client, "ada~abc").await;
    assert!(client.list_users().await.unwrap().contains(&user.user_id));
    let link = client.login(&user, &LoginRequest::default()).await.unwrap();
    assert!(link.redirect_uri.starts_with(sandbox.base_url()));

    control(&sandbox, "connect", json!({"user_id": "ada"})).await;
    let connections = client.list_connections(&user).await.unwrap();
    let connection = &connections[0].id;
    assert_eq!(
        client.connection(&user, connection).await.unwrap().id,
        *connection
    );
    client.refresh_connection(&user, connection).await.unwrap();
    let under = client.connection_accounts(&user, connection).await.unwrap();
    assert_eq!(
        client
            .connection_kind_accounts(&user, connection)
            .await
            .unwrap()
            .len(),
        under.len()
    );

    let accounts = client.list_accounts(&user).await.unwrap();
    assert_eq!(accounts.len(), 2);
    assert_eq!(client.list_kind_accounts(&user).await.unwrap().len(), 2);
    let account = &accounts[0].id;
    assert_eq!(client.account(&user, account).await.unwrap().id, *account);
    let balances = client.account_balances(&user, account).await.unwrap();
    assert_eq!(balances[0].cash, Some(Decimal::from(2500)));
    client.account_balance_snapshot(&user, account).await.unwrap();
    let positions = client.account_positions(&user, account).await.unwrap();
    assert_eq!(positions.results[0].units, Some(Decimal::from(12)));
    let filter = ActivityFilter::default();
    let page = client.activity_page(&user, account, &filter, 0, 2).await.unwrap();
    assert_eq!(page.data.len(), 2);
    assert!(
        !client
            .account_return_rates(&user, account, &[])
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(client.stats().await.unwrap().total_active_connections, Some(1));

    client.delete_connection(&user, connection).await.unwrap();
    assert!(client.list_accounts(&user).await.unwrap().is_empty());
    client.delete_user(&user.user_id).await.unwrap();
    assert!(client.list_users().await.unwrap().is_empty());
    sandbox.shutdown().await;
}

#[tokio::test]
async fn each_refusal_is_recognised_for_what_it_is() {
    let (sandbox, client) = start().await;
    let ada = registered(&client, "ada").await;
    let again = client.register_user(&ada.user_id).await.unwrap_err();
    assert_eq!(again.kind, ErrorKind::UserExists);
    let nobody = client
        .delete_user(&UpstreamId::from_snaptrade("nobody"))
        .await
        .unwrap_err();
    assert_eq!(nobody.kind, ErrorKind::NotFound);

    control(&sandbox, "settings", json!({"user_limit": 1})).await;
    let full = client
        .register_user(&UpstreamId::from_snaptrade("grace"))
        .await
        .unwrap_err();
    assert_eq!(full.kind, ErrorKind::LimitReached);

    let stranger = UserCredentials {
        user_id: ada.user_id.clone(),
        user_secret: berth::snaptrade::UserSecret::new("wrong"),
    };
    let wrong = client.list_accounts(&stranger).await.unwrap_err();
    assert_eq!(wrong.kind, ErrorKind::UserSecretRejected);
    let forger = client_of(&sandbox, berth::clock::Clock::system(), "another-key");
    assert_eq!(
        forger.partner_info().await.unwrap_err().kind,
        ErrorKind::Signature
    );

    control(&sandbox, "settings", json!({"sync_delay_ms": 60_000})).await;
    let connected = control(&sandbox, "connect", json!({"user_id": "ada"})).await;
    let connection = client.list_connections(&ada).await.unwrap().remove(0).id;
    let id = connected["connection_id"].as_str().unwrap();
    control(&sandbox, &format!("connections/{id}/break"), json!({})).await;
    let broken = client.refresh_connection(&ada, &connection).await.unwrap_err();
    assert_eq!(broken.kind, ErrorKind::ConnectionDisabled);

    control(
        &sandbox,
        "faults",
        json!({"operation": "login", "kind": "rate_limited", "retry_after": 90}),
    )
    .await;
    let throttled = client.login(&ada, &LoginRequest::default()).await.unwrap_err();
    assert!(
        matches!(throttled.kind, ErrorKind::RateLimited { .. }),
        "{throttled:?}"
    );
    control(
        &sandbox,
        "faults",
        json!({"operation": "registerUser", "kind": "malformed"}),
    )
    .await;
    let garbled = client
        .register_user(&UpstreamId::from_snaptrade("grace"))
        .await
        .unwrap_err();
    assert_eq!(garbled.kind, ErrorKind::Malformed);
}
