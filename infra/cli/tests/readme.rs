//! What the README and the guides tell people to type, typed as it stands there.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails may panic"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;

use berth::config::Config;
use berth_local::{Data, Options, Stack};
use serde_json::Value;
use tokio::process::Command;

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The guides, and the runbook.
const GUIDES: [&str; 5] = [
    "infra/guides/deploying.md",
    "infra/guides/integrating.md",
    "infra/guides/migrating.md",
    "infra/guides/troubleshooting.md",
    "infra/RUNBOOK.md",
];

/// The lines of a page's shell blocks.
fn typed(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(checkout().join(page)).unwrap();
    let blocks = text.split("```sh\n").skip(1);
    blocks
        .flat_map(|rest| rest.split("```").next().unwrap_or_default().lines())
        .map(str::to_owned)
        .collect()
}

/// Splits a command into its words as a shell does, as far as the README goes: single quotes keep blanks together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// Does what a `curl` command of the README does, on `stack` in place of the stack on the usual ports. Gives the
/// answer, which has to be a success.
async fn curl(stack: &Stack, line: &str) -> Value {
    let client = berth::snaptrade::http_client().unwrap();
    let mut words = words(line).into_iter().skip(1);
    let (mut method, mut url, mut body) = ("GET".to_owned(), String::new(), String::new());
    let mut headers = vec![];
    while let Some(word) = words.next() {
        match word.as_str() {
            "-X" => method = words.next().unwrap(),
            "-H" => headers.push(words.next().unwrap()),
            "-d" => body = words.next().unwrap(),
            _ => {
                url = word
                    .replace("http://localhost:9000", &stack.urls().api)
                    .replace("http://localhost:9001", &stack.urls().snaptrade)
                    .replace("http://localhost:9002", &stack.urls().access);
            }
        }
    }
    let mut request = client.request(method.parse().unwrap(), url).body(body);
    for header in headers {
        let (name, value) = header.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    let answer = response.text().await.unwrap();
    assert!(status.is_success(), "{line}: {status} {answer}");
    serde_json::from_str(&answer).unwrap()
}

async fn berth(directory: &Path, words: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_berth"))
        .args(words)
        .current_dir(directory)
        .env_clear()
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap()
}

/// Types what a page says, on a stack of its own, and tells how many requests and how many commands that were.
async fn type_all(page: &str) -> (u32, u32) {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        data: Data::Directory(directory.path().join(".berth")),
        ..Options::default()
    };
    let stack = Stack::start(options).await.unwrap();
    // Where a page speaks of a file of the checkout, it is typed there.
    std::fs::create_dir_all(directory.path().join("infra/local/src")).unwrap();
    let sample = "infra/local/src/access-config.json";
    std::fs::copy(checkout().join(sample), directory.path().join(sample)).unwrap();
    let (mut requests, mut commands) = (0, 0);
    for line in typed(page) {
        if line.starts_with("curl ") {
            requests += 1;
            curl(&stack, &line).await;
        } else if let Some(rest) = line
            .strip_prefix("cargo run -- ")
            .filter(|rest| !rest.starts_with("local"))
        {
            commands += 1;
            let output = berth(directory.path(), &words(rest)).await;
            let said = String::from_utf8_lossy(&output.stderr);
            let expected = match rest {
                // A stack that was just cloned lets no web page in, of which the check of the setup warns.
                "verify-setup" => 4,
                // The guide comes to an empty shop.
                "access sync --dry-run" if page != "README.md" => 0,
                // The small shop has a customer who wrote a wrong name.
                rest if rest.starts_with("access sync") => 4,
                "access repair" | "access resync --product 100" => 4,
                _ => 0,
            };
            assert_eq!(output.status.code(), Some(expected), "{page}: {line}: {said}");
        }
    }
    stack.shutdown().await;
    (requests, commands)
}

#[tokio::test]
async fn the_first_requests_and_the_operators_commands_of_the_readme_work() {
    let (requests, commands) = type_all("README.md").await;
    assert!(
        requests >= 6 && commands >= 22,
        "{requests} requests and {commands} commands"
    );
}

#[tokio::test]
async fn what_the_guides_tell_people_to_type_works() {
    let (mut requests, mut commands) = (0, 0);
    for guide in GUIDES {
        let typed = type_all(guide).await;
        requests += typed.0;
        commands += typed.1;
    }
    assert!(
        requests >= 8 && commands >= 12,
        "{requests} requests and {commands} commands"
    );
}

/// What the README shows of the crate, as it stands there.
mod shown {
    include!("support/readme_rust.rs");

    /// Whatever way a user comes, there is a place, and an operator's commands work beside it.
    pub async fn all_ways(app: &App, users: &[UserId], known_to_snaptrade: &UserId) -> Result<(), Failure> {
        for user in users {
            reactive(app, user).await?;
            proactive(app, user).await?;
        }
        operate(app, known_to_snaptrade).await
    }
}

#[tokio::test]
async fn the_readmes_rust_is_what_runs_here_and_keeps_within_the_limit() {
    let readme = std::fs::read_to_string(checkout().join("README.md")).unwrap();
    let block = readme
        .split("```rust\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    assert_eq!(block, include_str!("support/readme_rust.rs"));

    let options = Options {
        limit: Some(2),
        ..Options::default()
    };
    let stack = Stack::start(options).await.unwrap();
    let app = stack.app("backend");
    let legacy = berth::ids::UpstreamId::from_snaptrade("legacy");
    app.snaptrade().register_user(&legacy).await.unwrap();
    let user = |id: &str| berth::ids::UserId::parse(id).unwrap();
    let users = ["ada", "grace", "edsger"].map(user);
    shown::all_ways(&app, &users, &user("legacy")).await.unwrap();
    let left: Vec<Value> = support::users(&stack).await;
    assert!(
        left.iter()
            .any(|user| user["user_id"] == "legacy" && user["protected"] == true)
            && left.len() <= 2,
        "{left:?}"
    );
    stack.shutdown().await;
}

#[tokio::test]
async fn every_command_that_the_pages_name_in_passing_exists() {
    let directory = tempfile::tempdir().unwrap();
    let pages = GUIDES.iter().chain(["README.md"].iter());
    let pages: Vec<String> = pages
        .map(|page| std::fs::read_to_string(checkout().join(page)).unwrap())
        .collect();
    let mut named: Vec<&str> = pages
        .iter()
        .flat_map(|page| page.split('`'))
        .filter_map(|text| {
            text.strip_prefix("cargo run -- ")
                .or_else(|| text.strip_prefix("berth "))
        })
        .collect();
    // What is shown for AWS is typed there, so only the commands of this program are looked at here.
    named.extend(
        pages
            .iter()
            .flat_map(|page| page.lines())
            .filter_map(|line| line.trim_start().strip_prefix("$ "))
            .filter_map(|line| {
                line.strip_prefix("cargo run -- ")
                    .or_else(|| line.strip_prefix("berth "))
            }),
    );
    assert!(named.len() >= 12, "{named:?}");
    for command in named {
        let mut words = words(command.lines().next().unwrap_or_default());
        words.push("--help".to_owned());
        let output = berth(directory.path(), &words).await;
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn the_settings_of_the_example_are_all_known_and_all_right() {
    let example = std::fs::read_to_string(checkout().join(".env.example")).unwrap();
    let settings: Vec<(&str, &str)> = example
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' ')))
        .map(|line| line.split_once('=').unwrap_or_else(|| panic!("{line}")))
        .collect();
    let lookup = |name: &str| {
        let value = settings.iter().find(|(known, _)| *known == name)?.1;
        Some(value.to_owned())
    };
    Config::read(&lookup).unwrap();

    // A setting that nothing asks for is one that has another name in the code.
    let asked = std::cell::RefCell::new(Vec::new());
    let remember = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        None
    };
    Config::read(&remember).unwrap();
    for (name, _) in &settings {
        assert!(asked.borrow().iter().any(|known| known == name), "{name}");
    }
}

/// A browser's `fetch`, as far as the README's page needs it, over a function that makes the call.
const FETCH: &str = r#"
globalThis.fetch = async (url, options) => {
  const [status, body] = JSON.parse(ask(url, JSON.stringify(options)));
  const answer = { status, ok: status >= 200 && status < 300, json: async () => JSON.parse(body) };
  answer.clone = () => answer;
  return answer;
};
const token = "dev:grace";
"#;

/// Does what `fetch` was asked for, and gives status and body as JSON.
async fn fetch(base: &str, path: &str, options: &str) -> (u16, String) {
    let options: Value = serde_json::from_str(options).unwrap();
    let client = berth::snaptrade::http_client().unwrap();
    let method = options["method"].as_str().unwrap().parse().unwrap();
    let mut request = client.request(method, format!("{base}{path}"));
    for (name, value) in options["headers"].as_object().unwrap() {
        request = request.header(name, value.as_str().unwrap());
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readmes_page_asks_for_room_and_registers_after_a_refusal() {
    let readme = std::fs::read_to_string(checkout().join("README.md")).unwrap();
    let block = readme
        .split("```js\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap()
        .to_owned();
    let stack = Stack::start(Options::default()).await.unwrap();
    let faults = format!("{}/__sandbox/faults", stack.urls().snaptrade);
    let refuse = |times: u32| serde_json::json!({"operation": "registerUser", "kind": "limit_reached", "times": times});
    let set = support::send(&faults, reqwest::Method::POST, "none", Some(refuse(50))).await;
    assert_eq!(set.0, 200, "{}", set.1);

    let base = stack.urls().api.clone();
    let page = tokio::task::spawn_blocking(move || {
        let asked = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let seen = std::rc::Rc::clone(&asked);
        let ask = move |path: String, options: String| {
            let answer = tokio::runtime::Handle::current().block_on(async {
                let answer = fetch(&base, &path, &options).await;
                if answer.0 == 409 {
                    // SnapTrade has room again by the time that the page comes back.
                    support::send(&faults, reqwest::Method::POST, "none", Some(refuse(0))).await;
                }
                answer
            });
            seen.borrow_mut().push((path, answer.0));
            serde_json::to_string(&answer).unwrap()
        };
        let runtime = rquickjs::Runtime::new().unwrap();
        let context = rquickjs::Context::full(&runtime).unwrap();
        context.with(|context| {
            let ask = rquickjs::Function::new(context.clone(), ask).unwrap();
            context.globals().set("ask", ask).unwrap();
            context.eval::<(), _>(FETCH).unwrap();
            let script = format!("(async () => {{ {block} }})()");
            let page: rquickjs::Promise<'_> = context.eval(script).unwrap();
            page.finish::<()>().unwrap();
        });
        drop(context);
        drop(runtime);
        asked.take()
    });
    let asked = page.await.unwrap();
    let expected = [
        ("/api/snaptrade/register", 409),
        ("/api/snaptrade/handle-connection-limit", 200),
        ("/api/snaptrade/register", 201),
    ];
    assert_eq!(asked, expected.map(|(path, status)| (path.to_owned(), status)));
    stack.shutdown().await;
}
