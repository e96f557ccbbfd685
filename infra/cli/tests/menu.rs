//! `berth menu` and the questions of the commands, as a person at a terminal sees them.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where something is not as it should be"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rexpect::process::WaitStatus;
use rexpect::reader::Options;
use rexpect::session::{PtySession, spawn_with_options};
use serde_json::{Value, json};

const DOWN: &str = "\u{1b}[B";
const UP: &str = "\u{1b}[A";
const ENTER: &str = "\r";
const ESCAPE: &str = "\u{1b}";

/// How long a step may take on a busy machine.
const PATIENCE_MS: u64 = 30_000;

/// What the menu asks before each choice.
const MENU: &str = "What is to be done?";

/// The lines of the menu, in their order.
const CHOICES: [&str; 15] = [
    "Check the limit",
    "List the users",
    "Make sure of a free place",
    "Make room if the limit is reached",
    "Delete the oldest user",
    "Add a user that SnapTrade knows",
    "Protect a user",
    "Take a user's protection away",
    "Sync with SnapTrade",
    "Back up the tracking data",
    "Restore the tracking data",
    "Import ages from a file",
    "Export ages into a file",
    "The access sync",
    "Leave",
];

/// The lines of the menu of the access sync, as far as they are used here, by their places.
const ACCESS_CHOICES: [(&str, usize); 5] = [
    ("Sync the access with the shop", 0),
    ("Make a plan of what would be done", 2),
    ("List what a person has to look at", 4),
    ("Take a transaction back", 10),
    ("Check the configuration", 15),
];

/// A stack with room for two users, in a process of its own so that this one has no threads when it forks.
struct Stack {
    process: Child,
    urls: Value,
}

impl Stack {
    fn start(directory: &Path) -> Self {
        let free = [
            "--port",
            "--snaptrade-port",
            "--dynamodb-port",
            "--access-port",
            "--mail-port",
        ];
        let mut process = Command::new(env!("CARGO_BIN_EXE_berth"))
            .args(["local", "--limit", "2", "--no-schedules"])
            .args(free.iter().flat_map(|option| [*option, "0"]))
            .current_dir(directory)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap()).lines();
        let urls = serde_json::from_str(&out.next().unwrap().unwrap()).unwrap();
        assert!(out.next().unwrap().unwrap().starts_with("ready "));
        Self { process, urls }
    }

    /// Registers a user by the user's own call.
    fn register(&self, user: &str) {
        let url = format!("{}/api/snaptrade/register", self.urls["api"].as_str().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let registering = async {
            let client = berth::snaptrade::http_client().unwrap();
            let request = client
                .post(url)
                .bearer_auth(format!("dev:{user}"))
                .json(&json!({}));
            request.send().await.unwrap().status()
        };
        let status = runtime.block_on(registering);
        assert!(status.is_success(), "{user}: {status}");
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A person at a terminal, where a command runs.
struct Person {
    terminal: PtySession,
    /// The line of the menu that is marked.
    at: usize,
}

impl Person {
    fn starts(directory: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_berth"));
        command
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .env("TERM", "xterm");
        let options = Options::new()
            .timeout_ms(Some(PATIENCE_MS))
            .strip_ansi_escape_codes(true);
        Self {
            terminal: spawn_with_options(command, options).unwrap(),
            at: 0,
        }
    }

    /// Reads on until this text came, and gives what stood before it.
    fn sees(&mut self, text: &str) -> String {
        self.terminal
            .exp_string(text)
            .unwrap_or_else(|error| panic!("waited for {text:?}: {error}"))
    }

    fn types(&mut self, keys: &str) {
        self.terminal.send(keys).unwrap();
        self.terminal.flush().unwrap();
    }

    /// Waits for the menu, and chooses a line of it.
    fn chooses(&mut self, line: &str) {
        let wanted = CHOICES.iter().position(|choice| *choice == line).unwrap();
        self.sees(MENU);
        self.sees(CHOICES.last().unwrap());
        let key = if wanted >= self.at { DOWN } else { UP };
        self.types(&key.repeat(wanted.abs_diff(self.at)));
        self.types(ENTER);
        self.at = wanted;
        // The choice is repeated once the menu has gone.
        self.sees(&format!("{line}\r\n"));
    }

    /// Waits for the menu of the access sync, and chooses a line of it.
    fn chooses_about_access(&mut self, line: &str) {
        let (_, wanted) = *ACCESS_CHOICES.iter().find(|(choice, _)| *choice == line).unwrap();
        self.sees("What about the access sync?");
        self.sees("Back");
        let key = if wanted >= self.at { DOWN } else { UP };
        self.types(&key.repeat(wanted.abs_diff(self.at)));
        self.types(ENTER);
        self.at = wanted;
        self.sees(&format!("{line}\r\n"));
    }

    /// Answers a question with a line of text.
    fn answers(&mut self, question: &str, text: &str) {
        self.sees(question);
        self.types(&format!("{text}{ENTER}"));
    }

    /// The end of the command, and its exit code.
    fn ends(mut self) -> i32 {
        self.terminal.exp_eof().unwrap();
        match self.terminal.process().wait().unwrap() {
            WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_choice_of_the_menu_does_what_it_says_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path());
    stack.register("ada");
    let mut person = Person::starts(directory.path(), &["menu"]);

    person.chooses("Check the limit");
    person.sees("1 of 2 users in use.");
    person.chooses("List the users");
    person.sees("ada");
    person.sees("Times are in UTC.");
    person.chooses("Make sure of a free place");
    person.answers("For which user", "");
    person.sees("There is room already.");
    person.chooses("Make sure of a free place");
    person.answers("For which user", "grace");
    person.sees("A place is kept for grace until");
    stack.register("grace");

    // Without a yes nobody goes.
    person.chooses("Make room if the limit is reached");
    person.sees("On the local stack at http://");
    person.sees("delete ada (since ");
    person.types("n");
    person.sees("nothing was changed");
    person.chooses("Make room if the limit is reached");
    person.sees("delete ada (since ");
    person.types("y");
    person.sees("ada was deleted; SnapTrade has taken the deletion on.");

    person.chooses("Protect a user");
    person.answers("Which user", "grace");
    person.sees("grace never gives way.");
    person.chooses("Delete the oldest user");
    person.sees("404 not_found");
    person.chooses("Take a user's protection away");
    person.answers("Which user", "grace");
    person.sees("grace may give way.");

    person.chooses("Back up the tracking data");
    person.answers("Which file", "tracking.jsonl");
    person.sees("1 user, 0 ids without a secret here");
    person.chooses("Export ages into a file");
    person.answers("Which file", "ages.json");
    person.sees("The age of 1 user went to ages.json.");
    person.chooses("Import ages from a file");
    person.answers("Which file", "ages.json");
    person.sees("0 ages set; 1 right already.");
    person.chooses("Import ages from a file");
    person.answers("Which file", "nowhere.json");
    person.sees("nowhere.json cannot be read");

    person.chooses("Delete the oldest user");
    person.sees("delete grace (since ");
    person.types("y");
    person.sees("grace was deleted");
    person.chooses("Restore the tracking data");
    person.answers("Which file", "tracking.jsonl");
    person.sees("restore 1 user");
    person.types("y");
    person.sees("Records left alone: 1 of users who gave way or were deleted since.");
    person.chooses("Add a user that SnapTrade knows");
    person.answers("Which user", "nobody");
    person.sees("404 not_found");
    person.chooses("Sync with SnapTrade");
    person.sees("0 at SnapTrade, 0 tracked.");
    person.chooses("Leave");
    assert_eq!(person.ends(), 0);
}

#[test]
fn the_access_sync_has_a_menu_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let _stack = Stack::start(directory.path());
    let mut person = Person::starts(directory.path(), &["menu"]);
    person.chooses("The access sync");
    person.at = 0;
    person.chooses_about_access("Sync the access with the shop");
    person.chooses_about_access("Make a plan of what would be done");
    person.chooses_about_access("List what a person has to look at");
    person.chooses_about_access("Take a transaction back");
    person.answers("Which transaction", "4711");
    person.sees("It was paid back");
    person.types(ENTER);
    person.sees("take transaction 4711 back");
    person.types("y");
    person.sees("404 not_found");
    person.chooses_about_access("Check the configuration");
    person.sees("is right");
    person.sees("What about the access sync?");
    person.sees("Back");
    person.types(ESCAPE);
    person.at = CHOICES.len() - 2;
    person.chooses("Leave");
    assert_eq!(person.ends(), 0);
}

#[test]
fn escape_and_ctrl_c_go_back_from_a_question_and_leave_the_menu() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path());
    stack.register("ada");
    // What `berth` alone opens in a terminal.
    let mut person = Person::starts(directory.path(), &[]);
    person.chooses("Protect a user");
    person.answers("Which user", "");
    person.chooses("Protect a user");
    person.sees("Which user");
    person.terminal.send_control('c').unwrap();
    for key in [ESCAPE, "\u{3}"] {
        person.chooses("Delete the oldest user");
        person.sees("delete ada (since ");
        person.types(key);
        person.sees("nothing was changed");
    }
    person.chooses("Check the limit");
    person.sees("1 of 2 users in use.");
    person.sees(MENU);
    person.sees("Leave");
    person.types(ESCAPE);
    assert_eq!(person.ends(), 0);

    let mut person = Person::starts(directory.path(), &["menu"]);
    person.sees(MENU);
    person.sees("Leave");
    person.terminal.send_control('c').unwrap();
    assert_eq!(person.ends(), 0);
}

#[test]
fn commands_ask_in_a_terminal_and_name_whom_and_where() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path());
    stack.register("ada");
    stack.register("grace");
    let full = Person::starts(directory.path(), &["connections", "check-limit"]);
    assert_eq!(full.ends(), 3);
    for (keys, code) in [("n", 1), (ENTER, 1), (ESCAPE, 1), ("\u{3}", 1), ("y", 0)] {
        let mut person = Person::starts(directory.path(), &["connections", "delete-oldest"]);
        person.sees("On the local stack at http://127.0.0.1:");
        person.sees("delete ada (since ");
        person.types(keys);
        let said = if code == 0 {
            "ada was deleted"
        } else {
            "nothing was changed"
        };
        person.sees(said);
        assert_eq!(person.ends(), code, "{keys:?}");
    }
    let mut list = Person::starts(directory.path(), &["connections", "list"]);
    let before = list.sees("Times are in UTC.");
    assert!(before.contains("grace") && !before.contains("ada"), "{before}");
    assert_eq!(list.ends(), 0);
}

#[test]
fn without_a_stack_the_menu_works_on_its_data() {
    let directory = tempfile::tempdir().unwrap();
    let stack = Stack::start(directory.path());
    stack.register("ada");
    drop(stack);
    let mut person = Person::starts(directory.path(), &["menu"]);
    person.chooses("List the users");
    person.sees("ada");
    person.chooses("Delete the oldest user");
    person.sees("On the local stack's data in .berth/: delete ada");
    person.types("y");
    person.sees("ada was deleted");
    person.chooses("Leave");
    assert_eq!(person.ends(), 0);
}

#[test]
fn without_a_terminal_the_menu_refuses_and_bare_berth_shows_the_help() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, said) in [(vec!["menu"], "needs a terminal"), (vec![], "")] {
        let output = Command::new(env!("CARGO_BIN_EXE_berth"))
            .args(&arguments)
            .current_dir(directory.path())
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(said));
        if arguments.is_empty() {
            assert!(String::from_utf8_lossy(&output.stdout).contains("connections"));
        }
    }
}
