//! Starting a function, against servers on this machine that speak just enough of AWS's protocols.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::telemetry::{Invocation, in_invocation};

const DATA_KEYS: &str = r#"{"current":"k1","keys":{"k1":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="}}"#;

/// Answers each HTTP request with what `answer` gives for it, on an address that is returned.
async fn serve(answer: impl Fn(String) -> (u16, String) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut request = Vec::new();
                let mut buffer = [0_u8; 4096];
                while let Ok(read) = stream.read(&mut buffer).await {
                    request.extend_from_slice(&buffer[..read]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else {
                        if read == 0 {
                            return;
                        }
                        continue;
                    };
                    let length = head
                        .lines()
                        .filter_map(|line| line.split_once(':'))
                        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                        .map_or(0, |(_, value)| value.trim().parse().unwrap());
                    if body.len() < length {
                        continue;
                    }
                    let (status, body) = answer(text.clone());
                    request.clear();
                    let head = format!(
                        "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    if stream
                        .write_all(format!("{head}{body}").as_bytes())
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    format!("http://{address}")
}

const ACCESS: &str = r#"{"wordpress": {"base_url": "https://shop.example.com", "api_key": "not-shown"},
    "tradingview": {"base_url": "https://access.example.com", "api_key": "not-shown"},
    "products": {"7": {"script_id": "S7", "duration": "1M"}}, "unknown": 1}"#;

const ACCESS_WITH_FAULTS: &str =
    r#"{"tradingview": {"api_key": "not-shown", "timeout": "not-shown"}, "products": 5}"#;

/// Secrets Manager with SnapTrade's credentials, the data keys and the access sync's configuration.
async fn secrets_manager() -> String {
    serve(|request| {
        let secret = if request.contains("\"berth/snaptrade\"") {
            r#"{"client_id":"SANDBOX-CLIENT","consumer_key":"not-shown"}"#
        } else if request.contains("\"berth/data-keys\"") {
            DATA_KEYS
        } else if request.contains("\"berth/access\"") {
            ACCESS
        } else if request.contains("\"berth/access-with-faults\"") {
            ACCESS_WITH_FAULTS
        } else if request.contains("\"berth/broken\"") {
            "not-shown"
        } else {
            let body = r#"{"__type":"ResourceNotFoundException","message":"no"}"#;
            return (400, body.to_owned());
        };
        let body = serde_json::json!({"Name": "s", "SecretString": secret});
        (200, body.to_string())
    })
    .await
}

fn environment(secrets: &str, table: &str, more: &[(&str, &str)]) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = [
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "key"),
        ("AWS_SESSION_TOKEN", "token"),
        ("TABLE_NAME", "berth-table"),
        ("SNAPTRADE_SECRET_ID", "berth/snaptrade"),
        ("DATA_KEY_SECRET_ID", "berth/data-keys"),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets),
        ("AWS_ENDPOINT_URL_DYNAMODB", table),
        ("SNAPTRADE_BASE_URL", "http://127.0.0.1:9"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    for (name, value) in more {
        all.insert((*name).to_owned(), (*value).to_owned());
    }
    all
}

async fn start(needs: Needs, environment: &HashMap<String, String>) -> Result<App, StartError> {
    App::start("register", needs, &|name| environment.get(name).cloned()).await
}

#[tokio::test]
async fn a_function_starts_with_its_secrets_read_and_the_table_reached() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let table = serve(move |request| {
        log.lock().unwrap().push(request);
        (200, "{}".to_owned())
    })
    .await;
    let environment = environment(&secrets_manager().await, &table, &[]);
    let app = start(Needs::CredentialsAndDataKeys, &environment).await.unwrap();
    assert_eq!(app.credentials().get().await.unwrap().client_id, "SANDBOX-CLIENT");
    assert_eq!(app.data_keys().get().await.unwrap().current().unwrap().0, "k1");
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].contains("app/berth-register"), "{}", asked[0]);
    assert!(asked[0].contains("x-amz-security-token: token"), "{}", asked[0]);
}

#[tokio::test]
async fn a_function_that_cannot_start_names_the_variable_at_fault_and_no_secret() {
    let secrets = secrets_manager().await;
    let table = serve(|_| (200, "{}".to_owned())).await;
    for (variable, value, expected) in [
        ("SNAPTRADE_SECRET_ID", "berth/missing", "there is no such secret"),
        ("SNAPTRADE_SECRET_ID", "berth/broken", "client_id, consumer_key"),
        ("DATA_KEY_SECRET_ID", "berth/broken", "current, keys"),
        (
            "SNAPTRADE_ENVIRONMENT",
            "production",
            "the credentials are the sandbox's",
        ),
        ("AWS_ACCESS_KEY_ID", "", "is not set"),
        ("MAX_CONNECTIONS", "many", "must be a whole number"),
    ] {
        // Production takes no address on this machine.
        let more = [(variable, value), ("SNAPTRADE_BASE_URL", "https://192.0.2.1")];
        let environment = environment(&secrets, &table, &more);
        let said = start(Needs::CredentialsAndDataKeys, &environment)
            .await
            .unwrap_err()
            .to_string();
        assert!(said.contains(variable) && said.contains(expected), "{said}");
        assert!(!said.contains("not-shown"), "{said}");
    }
}

#[tokio::test]
async fn a_function_without_need_of_the_data_keys_does_not_read_them() {
    let table = serve(|_| (200, "{}".to_owned())).await;
    let environment = environment(&secrets_manager().await, &table, &[("DATA_KEY_SECRET_ID", "")]);
    let app = start(Needs::Credentials, &environment).await.unwrap();
    assert!(app.data_keys().get().await.is_err());
}

#[tokio::test]
async fn a_function_of_the_access_sync_starts_with_its_configuration_and_no_other_secret() {
    let more = [
        ("ACCESS_SECRET_ID", "berth/access"),
        ("SNAPTRADE_SECRET_ID", ""),
        ("DATA_KEY_SECRET_ID", ""),
    ];
    let environment = environment(&secrets_manager().await, "http://127.0.0.1:9", &more);
    let app = start(Needs::Access, &environment).await.unwrap();
    let access = app.access().unwrap();
    assert_eq!(access.shop.base_url.as_str(), "https://shop.example.com");
    assert_eq!(access.warnings, ["unknown has no meaning here"]);
    assert!(app.credentials().get().await.is_err());
    let other = start(Needs::CredentialsAndDataKeys, &environment).await;
    assert!(other.unwrap_err().to_string().contains("DATA_KEY_SECRET_ID"));
}

#[tokio::test]
async fn a_deployment_without_an_access_sync_works() {
    let secrets = secrets_manager().await;
    // The secret is there from the first deployment on, and has no value before somebody puts one in.
    for id in ["", "berth/without-a-value"] {
        let environment = environment(&secrets, "http://127.0.0.1:9", &[("ACCESS_SECRET_ID", id)]);
        for needs in [Needs::Access, Needs::Everything] {
            let app = start(needs, &environment).await.unwrap();
            assert!(app.access().is_none());
            assert!(app.refresh_access().await.unwrap().is_none());
        }
    }
}

#[tokio::test]
async fn a_configuration_of_the_access_sync_that_is_not_right_is_told_whole_and_without_its_secrets() {
    let more = [("ACCESS_SECRET_ID", "berth/access-with-faults")];
    let environment = environment(&secrets_manager().await, "http://127.0.0.1:9", &more);
    let said = start(Needs::Access, &environment).await.unwrap_err().to_string();
    for expected in [
        "ACCESS_SECRET_ID",
        "wordpress.base_url",
        "tradingview.timeout",
        "products",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    assert!(!said.contains("not-shown"), "{said}");
    // Whoever says how everything is has to be there to say it.
    let app = start(Needs::Everything, &environment).await.unwrap();
    assert!(app.access().is_none() && app.refresh_access().await.is_err());
}

#[tokio::test]
async fn a_configuration_in_a_file_is_read_again_after_a_while_and_used_on_when_it_breaks() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.json");
    std::fs::write(&file, ACCESS).unwrap();
    let more = [("ACCESS_CONFIG_FILE", file.to_str().unwrap())];
    let environment = environment(&secrets_manager().await, "http://127.0.0.1:9", &more);
    let app = start(Needs::Access, &environment).await.unwrap();
    std::fs::write(
        &file,
        ACCESS.replace("\"unknown\": 1", "\"writes_enabled\": false"),
    )
    .unwrap();
    assert!(app.refresh_access().await.unwrap().unwrap().writes_enabled);
    app.clock().advance(301);
    assert!(!app.refresh_access().await.unwrap().unwrap().writes_enabled);
    assert!(!app.access().unwrap().writes_enabled);
    std::fs::write(&file, ACCESS_WITH_FAULTS).unwrap();
    app.clock().advance(301);
    assert!(!app.refresh_access().await.unwrap().unwrap().writes_enabled);
}

#[tokio::test]
async fn every_attempt_at_the_table_is_counted() {
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let table = serve(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        (500, r#"{"__type":"InternalServerError"}"#.to_owned())
    })
    .await;
    let endpoint = crate::config::BaseUrl::parse(&table).unwrap();
    let http = snaptrade::http_client().unwrap();
    let client = aws::dynamodb(&AwsAccess::local("id"), http, Some(&endpoint), "status");
    let invocation = Invocation {
        request_id: "r".to_owned(),
        correlation_id: "c".to_owned(),
        function: "status",
        cold_start: false,
    };
    let work = async { client.list_tables().send().await };
    let (result, calls) = in_invocation(invocation, work).await;
    assert!(result.is_err());
    assert_eq!(calls.dynamodb, 3);
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_table_that_cannot_be_reached_does_not_keep_a_function_from_starting() {
    let environment = environment(&secrets_manager().await, "http://127.0.0.1:9", &[]);
    assert!(start(Needs::CredentialsAndDataKeys, &environment).await.is_ok());
}

#[tokio::test]
async fn a_function_that_calls_snaptrade_for_users_reaches_it_while_it_starts_if_it_is_there() {
    let asked = Arc::new(AtomicU32::new(0));
    for (needs, expected) in [
        (Needs::Access, 0),
        (Needs::Credentials, 0),
        (Needs::Everything, 1),
    ] {
        for status in [200, 500] {
            asked.store(0, Ordering::Relaxed);
            let counter = Arc::clone(&asked);
            let snaptrade = serve(move |request| {
                assert!(
                    request.starts_with("GET / ") && !request.contains("ignature"),
                    "{request}"
                );
                counter.fetch_add(1, Ordering::Relaxed);
                (status, "{}".to_owned())
            })
            .await;
            let more = [("SNAPTRADE_BASE_URL", snaptrade.as_str())];
            let environment = environment(&secrets_manager().await, "http://127.0.0.1:9", &more);
            assert!(start(needs, &environment).await.is_ok());
            assert_eq!(asked.load(Ordering::Relaxed), expected, "{needs:?} {status}");
        }
    }
}

#[tokio::test]
async fn a_function_keeps_one_value_of_each_type() {
    let environment = environment(&secrets_manager().await, "http://127.0.0.1:9", &[]);
    let app = start(Needs::Credentials, &environment).await.unwrap();
    app.state::<AtomicU32>().fetch_add(1, Ordering::Relaxed);
    assert_eq!(app.state::<AtomicU32>().load(Ordering::Relaxed), 1);
}
