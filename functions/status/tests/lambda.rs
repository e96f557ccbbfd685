//! The function's own binary, run as Lambda runs it: against a server that speaks the Lambda Runtime API and just
//! enough of Secrets Manager's protocol.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails may panic"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

const KEYS: &str = r#"{"current":"k1","keys":{"k1":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="}}"#;

/// Plays the Runtime API for one invocation with `event`, and Secrets Manager. What the function answers is sent to
/// the receiver.
fn aws(event: Value) -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (answers, answered) = channel();
    let (events, next) = channel();
    events.send(event).unwrap();
    let next = std::sync::Arc::new(std::sync::Mutex::new(next));
    std::thread::spawn(move || {
        // The sender is kept here, so that a second poll waits for ever as it does in Lambda.
        let _events = events;
        for stream in listener.incoming() {
            let (answers, next) = (answers.clone(), std::sync::Arc::clone(&next));
            std::thread::spawn(move || connection(stream.unwrap(), &answers, &next));
        }
    });
    (address, answered)
}

fn connection(stream: TcpStream, answers: &Sender<Value>, next: &std::sync::Mutex<Receiver<Value>>) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let (mut head, mut line) = (Vec::new(), String::new());
        while reader.read_line(&mut line).unwrap_or(0) > 2 {
            head.push(std::mem::take(&mut line).trim_end().to_ascii_lowercase());
        }
        let Some(request) = head.first().cloned() else {
            return;
        };
        let length = head
            .iter()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let (headers, answer) = if request.contains("/invocation/next") {
            let Ok(event) = next.lock().unwrap().recv() else {
                return;
            };
            let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(10);
            let headers = format!(
                "lambda-runtime-aws-request-id: lambda-1\r\nlambda-runtime-deadline-ms: {}\r\n\
                 lambda-runtime-invoked-function-arn: arn:aws:lambda:eu-west-1:1:function:status\r\n",
                deadline.as_millis()
            );
            (headers, event.to_string())
        } else if request.contains("/response") {
            answers.send(serde_json::from_slice(&body).unwrap()).unwrap();
            (String::new(), String::new())
        } else {
            (
                String::new(),
                json!({"Name": "s", "SecretString": KEYS}).to_string(),
            )
        };
        let length = answer.len();
        let response = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\n\r\n{answer}");
        if writer.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn function(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_status"));
    command.env_clear().envs(variables.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Ends the function when a test is done with it, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _ = self.0.wait();
    }
}

fn said(output: &Output) -> String {
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let line: Value = serde_json::from_str(line.trim()).unwrap();
    line["message"].as_str().unwrap().to_owned()
}

#[test]
fn the_binary_answers_an_event_of_api_gateway() {
    let event = json!({
        "version": "2.0", "routeKey": "GET /", "rawPath": "/", "rawQueryString": "",
        "headers": {"host": "api.example.com"},
        "requestContext": {
            "http": {"method": "GET", "path": "/", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
            "routeKey": "GET /", "stage": "$default", "requestId": "gateway-1", "timeEpoch": 0,
        },
        "isBase64Encoded": false,
    });
    let (address, answered) = aws(event);
    let endpoint = format!("http://{address}");
    let function = function(&[
        ("AWS_LAMBDA_RUNTIME_API", &address),
        ("AWS_LAMBDA_FUNCTION_NAME", "status"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "group"),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "stream"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "key"),
        ("TABLE_NAME", "berth-table"),
        ("SNAPTRADE_CLIENT_ID", "CLIENT"),
        ("SNAPTRADE_CONSUMER_KEY", "never-shown"),
        ("DATA_KEY_SECRET_ID", "berth/data-keys"),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &endpoint),
        ("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9"),
    ])
    .spawn()
    .unwrap();
    let mut running = Running(function);
    let answer = answered.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(answer["statusCode"], 200);
    assert_eq!(answer["headers"]["x-request-id"], "gateway-1");
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["status"], "ok");

    running.0.kill().unwrap();
    let mut log = String::new();
    running.0.stdout.take().unwrap().read_to_string(&mut log).unwrap();
    let line = log.lines().find(|line| line.contains("answered")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["request_id"], "gateway-1");
    assert_eq!(line["function"], "status");
    assert_eq!(line["cold_start"], true);
    assert!(!log.contains("never-shown"));
    // Its metrics stand beside, in the form that CloudWatch reads.
    let metrics: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line.get("_aws").is_some())
        .collect();
    assert_eq!(metrics.len(), 1, "{log}");
    assert_eq!(metrics[0]["request_id"], "gateway-1");
    assert_eq!(
        (&metrics[0]["ColdStarts"], &metrics[0]["Errors"]),
        (&json!(1.0), &json!(0.0))
    );
}

#[test]
fn the_binary_says_which_variables_are_missing() {
    let output = function(&[
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9"),
        ("MAX_CONNECTIONS", "none"),
    ])
    .output()
    .unwrap();
    assert!(!output.status.success());
    let said = said(&output);
    for variable in [
        "MAX_CONNECTIONS",
        "AWS_REGION",
        "TABLE_NAME",
        "SNAPTRADE_SECRET_ID",
        "AWS_ACCESS_KEY_ID",
    ] {
        assert!(said.contains(variable), "{said}");
    }
}

#[test]
fn outside_of_lambda_the_binary_says_what_to_run_instead() {
    let output = function(&[]).output().unwrap();
    assert!(!output.status.success());
    assert!(said(&output).contains("berth local"));
}
