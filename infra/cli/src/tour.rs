//! `berth local --tour`: the main journey, walked through on a running stack over HTTP, as an application and its users
//! would. What each step leads to is checked: in the answers, and in what the SnapTrade sandbox itself knows.

mod form;
mod report;
mod visitor;

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth::clock::Clock;
use berth::config::BaseUrl;
use berth::secrets::Cached;
use berth::snaptrade::{Client, ClientOptions, Credentials, http_client};
use berth_local::Stack;
use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::exit::Exit;
use form::Form;
use report::{Checked, Mismatch, Report};
use visitor::{Answer, Caller, Who, answer, nothing};

/// How many users a tour has room for, if it is not told.
pub(crate) const LIMIT: u32 = 5;

/// The most users that a tour can have room for: it knows so many names, and needs two more.
pub(crate) const MOST: u32 = 20;

/// The origin of the application whose users walk through the tour. Nobody has to listen there.
pub(crate) const ORIGIN: &str = "http://localhost:3000";

/// Where the portal sends a user back to.
const REDIRECT: &str = "http://localhost:3000/connected";

/// The users, in the order in which they register.
const NAMES: [&str; 22] = [
    "ada",
    "alan",
    "barbara",
    "donald",
    "edsger",
    "frances",
    "grace",
    "hedy",
    "ida",
    "john",
    "katherine",
    "leslie",
    "margaret",
    "niklaus",
    "ole",
    "peter",
    "radia",
    "shafi",
    "tony",
    "ursula",
    "vint",
    "whitfield",
];

/// The credentials that the SnapTrade sandbox accepts.
const CLIENT_ID: &str = "SANDBOX-CLIENT";
const CONSUMER_KEY: &str = "sandbox-consumer-key";

/// How long the tour waits for what happens by and by, such as a webhook, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long one call of the tour's own to the sandbox may take.
const SANDBOX_TIMEOUT: Duration = Duration::from_secs(10);

/// Walks through the journey on `stack` and prints it, as JSON where `as_json` says so.
pub(crate) async fn run(stack: &Stack, as_json: bool) -> Exit {
    let mut report = Report::new(as_json);
    let mut tour = match Tour::new(stack) {
        Ok(tour) => tour,
        Err(reason) => return Exit::failed(&reason),
    };
    introduce(&report, stack);
    let walked = tour.walk(&mut report).await;
    let passed = walked.is_ok();
    if let Err(mismatch) = walked {
        report.failed(mismatch);
    }
    conclude(&report, passed);
    report.finish();
    if passed { Exit::Success } else { Exit::Failure }
}

fn introduce(report: &Report, stack: &Stack) {
    let urls = stack.urls();
    report.say(&report.bold("Berth's main job, over real HTTP, on a local stack in memory."));
    report.say(&format!("  API                {}", urls.api));
    report.say(&format!("  SnapTrade sandbox  {}", urls.snaptrade));
    report.say(&format!("  DynamoDB           {}", urls.dynamodb));
}

fn conclude(report: &Report, passed: bool) {
    let (steps, checks, time) = report.figures();
    let seconds = time.as_secs_f64();
    if !passed {
        report.say(&format!(
            "\nThe tour ends here, in step {steps}. `--verbose` shows what the stack logs."
        ));
        return;
    }
    let heading =
        format!("Done: {steps} steps, {checks} checks, {seconds:.1} seconds. Nothing is left behind.");
    report.say(&format!("\n{}", report.bold(&heading)));
    report.say(
        "\nTry next:\n  \
         cargo run -- local                           a stack of your own, on port 9000\n  \
         curl -X POST -H 'Authorization: Bearer dev:ada' \\\n    \
         http://127.0.0.1:9000/api/snaptrade/register\n  \
         cargo run -- connections check-limit         how many places are taken\n  \
         cargo run -- verify-setup                    whether everything is set up",
    );
}

/// Somebody at the table who walks through the journey.
struct Tour {
    caller: Caller,
    /// SnapTrade as its partner sees it, with signed calls.
    snaptrade: Client,
}

impl Tour {
    fn new(stack: &Stack) -> Result<Self, String> {
        let urls = stack.urls();
        let http = http_client().map_err(|error| format!("this machine cannot make calls: {error}"))?;
        let base_url = BaseUrl::parse(&urls.snaptrade)
            .map_err(|reason| format!("the sandbox's address cannot be used: it {reason}"))?;
        let credentials = Credentials {
            client_id: CLIENT_ID.to_owned(),
            consumer_key: CONSUMER_KEY.into(),
        };
        let snaptrade = Client::new(ClientOptions {
            base_url,
            credentials: Arc::new(Cached::fixed(credentials)),
            clock: Clock::system(),
            http: http.clone(),
            timeout: SANDBOX_TIMEOUT,
            gate: None,
        });
        let caller = Caller {
            http,
            api: urls.api.clone(),
            sandbox: urls.snaptrade.clone(),
        };
        Ok(Self { caller, snaptrade })
    }

    async fn walk(&mut self, report: &mut Report) -> Checked {
        let status = self.status().await?;
        let limit = status
            .body
            .get("max_connections")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        let limit = usize::try_from(limit).unwrap_or_default();
        let (Some(first), Some(newcomer), Some(helped)) = (
            NAMES.get(..limit).filter(|first| !first.is_empty()),
            NAMES.get(limit),
            NAMES.get(limit.saturating_add(1)),
        ) else {
            return Err(Mismatch::new(
                "max_connections",
                format!("1 to {MOST}"),
                limit.to_string(),
            ));
        };
        self.register_up_to_the_limit(report, first).await?;
        self.see_the_limit(report, limit).await?;
        self.register_one_more(report, first, newcomer, limit).await?;
        let link = self.ask_for_a_link(report, newcomer).await?;
        let connection_id = self.connect_in_the_portal(report, newcomer, &link).await?;
        self.await_webhooks(report, newcomer, &connection_id).await?;
        self.refresh_holdings(report, newcomer).await?;
        self.hold_a_place(report, helped, limit).await?;
        self.sync(report, limit).await?;
        self.lose_the_table(report, helped, limit).await
    }

    async fn register_up_to_the_limit(&self, report: &mut Report, users: &[&str]) -> Checked {
        let limit = users.len();
        report.step(format!(
            "{} register, as many as the limit allows",
            capitalised(&counted(limit, "user"))
        ));
        for (index, user) in users.iter().enumerate() {
            let registered = self.register(user).await?.is(201)?;
            registered
                .has("/user_id", *user)?
                .has("/created", true)?
                .has("/evicted", Value::Null)?
                .has("/slots/in_use", index.saturating_add(1))?;
        }
        report.seen(format!(
            "{}: each answered 201, nobody gives way",
            users.join(", ")
        ));
        self.expect_at_snaptrade(users).await?;
        report.seen("SnapTrade lists the same users");
        let Some(first) = users.first() else {
            return Ok(());
        };
        self.register(first).await?.is(200)?.has("/created", false)?;
        report.seen(format!("{first} again: 200, and nothing changes"));
        Ok(())
    }

    async fn see_the_limit(&self, report: &mut Report, limit: usize) -> Checked {
        report.step("The status shows the limit reached");
        let status = self.status().await?;
        status
            .has("/current_count", limit)?
            .has("/at_limit", true)?
            .has("/available", 0)?
            .has("/in_sync", true)?;
        report.seen(format!(
            "{limit} of {limit} in use, 0 available, tracking and SnapTrade agree"
        ));
        Ok(())
    }

    async fn register_one_more(
        &self,
        report: &mut Report,
        before: &[&str],
        newcomer: &str,
        limit: usize,
    ) -> Checked {
        report.step(format!("{newcomer} registers too, and the oldest user gives way"));
        let status = self.status().await?;
        let oldest = status.text_at("/oldest/user_id")?.to_owned();
        let since = status.text_at("/oldest/created_at")?.to_owned();
        expect(
            "the oldest user",
            before.first().copied().unwrap_or_default(),
            &oldest,
        )?;
        let registered = self.register(newcomer).await?.is(201)?;
        registered
            .has("/evicted/reason", "oldest")?
            .has("/evicted/created_at", since.as_str())?
            .has("/slots/in_use", limit)?;
        report.seen(format!("{newcomer}: 201; a place was made (reason: oldest)"));
        report.seen(format!(
            "{oldest} gave way, the oldest, registered at {}",
            clock_time(&since)
        ));
        let stay: Vec<_> = before.iter().skip(1).copied().chain([newcomer]).collect();
        self.expect_at_snaptrade(&stay).await?;
        report.seen(format!("SnapTrade lists {}", stay.join(", ")));
        let gone = self
            .call(
                Who::User(&oldest),
                Method::POST,
                "/api/snaptrade/connection-url",
                nothing(),
            )
            .await?;
        gone.is(409)?.has("/code", "not_registered")?;
        report.seen(format!("{oldest} is told to register again (409 not_registered)"));
        Ok(())
    }

    async fn ask_for_a_link(&self, report: &mut Report, user: &str) -> Checked<String> {
        report.step(format!("{user} is handed a connection URL"));
        let wish = json!({"redirect_uri": REDIRECT, "connection_type": "trade"});
        let link = self
            .call(
                Who::User(user),
                Method::POST,
                "/api/snaptrade/connection-url",
                wish,
            )
            .await?
            .is(200)?;
        link.has("/connection_type", "trade")?.text_at("/session_id")?;
        let expires_at = link.text_at("/expires_at")?;
        let url = link.text_at("/connection_url")?;
        if !url.starts_with(&self.caller.sandbox) {
            return Err(Mismatch::new(
                "connection_url",
                "a page of the portal",
                "another address",
            ));
        }
        report.seen(format!(
            "200: a page of SnapTrade's portal, to be opened until {}",
            clock_time(expires_at)
        ));
        let elsewhere = json!({"redirect_uri": "https://elsewhere.example/"});
        let refused = self
            .call(
                Who::User(user),
                Method::POST,
                "/api/snaptrade/connection-url",
                elsewhere,
            )
            .await?
            .is(400)?;
        refused.has("/errors/0/pointer", "/redirect_uri")?;
        report.seen("a redirect to another application's site is refused (400)");
        Ok(url.to_owned())
    }

    /// Opens the link, presses Connect and is sent back. Answers the connection's id.
    async fn connect_in_the_portal(&self, report: &mut Report, user: &str, link: &str) -> Checked<String> {
        report.step(format!("{user} connects a brokerage in the portal"));
        let page = answer("GET the portal's page".to_owned(), self.caller.http.get(link))
            .await?
            .is(200)?;
        let form = Form::read(&page.text)
            .ok_or_else(|| Mismatch::new("the portal's page", "a form", "a page without one"))?;
        let brokerages = form.choices("broker").len();
        let sent = form
            .pressed("action", "connect")
            .filter(|_| brokerages > 0)
            .ok_or_else(|| {
                Mismatch::new(
                    "the portal's form",
                    "brokerages and a button to connect",
                    "others",
                )
            })?;
        report.seen(format!(
            "the page opens and offers {}",
            counted(brokerages, "brokerage")
        ));
        let target = Url::parse(link)
            .and_then(|page| page.join(&form.action))
            .map_err(|error| Mismatch::new("the form's target", "an address", error.to_string()))?;
        let submit = self
            .caller
            .http
            .post(target)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(sent);
        let left = answer("POST the portal's form".to_owned(), submit)
            .await?
            .is(303)?;
        let location = left.location.unwrap_or_default();
        let (status, connection_id) = said_on_return(&location);
        expect(
            "where the portal leads",
            REDIRECT,
            location.split('?').next().unwrap_or_default(),
        )?;
        expect("status on return", "SUCCESS", &status)?;
        report.seen(format!("Connect is pressed; back to {REDIRECT}"));
        let said = json!({"connection_id": connection_id, "status": status});
        let outcome = self
            .call(Who::User(user), Method::POST, "/api/snaptrade/callback", said)
            .await?
            .is(200)?;
        outcome
            .has("/outcome", "connected")?
            .has("/connection/connection_id", connection_id.as_str())?
            .has("/connection/state", "active")?;
        let brokerage = outcome.text_at("/connection/brokerage")?;
        report.seen(format!(
            "the callback's outcome, as SnapTrade has it: connected to {brokerage}"
        ));
        Ok(connection_id)
    }

    async fn await_webhooks(&self, report: &mut Report, user: &str, connection_id: &str) -> Checked {
        report.step("SnapTrade's webhooks arrive and are worked on");
        let kinds = self.until("the webhook CONNECTION_ADDED, delivered", async || {
            let sent = self
                .caller
                .sandbox(Method::GET, "/__sandbox/webhooks", nothing())
                .await?
                .is(200)?;
            let about =
                |event: &&Value| event.get("connection_id").and_then(Value::as_str) == Some(connection_id);
            let about_it: Vec<_> = sent.list_at("")?.iter().filter(about).cloned().collect();
            let taken = about_it
                .iter()
                .all(|event| event.get("last_status") == Some(&json!(200)));
            let kinds: Vec<_> = about_it
                .iter()
                .filter_map(|event| event.get("event_type")?.as_str().map(str::to_owned))
                .collect();
            Ok((taken && kinds.iter().any(|kind| kind == "CONNECTION_ADDED")).then_some(kinds))
        });
        let kinds = kinds.await?;
        report.seen(format!("signed, verified and answered 200: {}", tally(&kinds)));
        let applied = self.until("1 connection in the list of users", async || {
            let users = self.users().await?;
            let row = row_of(&users, user)?;
            Ok((row.get("connections") == Some(&json!(1))).then_some(()))
        });
        applied.await?;
        report.seen(format!("the list of users shows one connection of {user}"));
        let forged = self
            .caller
            .http
            .post(format!("{}/api/snaptrade/webhook", self.caller.api))
            .header("Signature", "Zm9yZ2Vk")
            .json(&json!({"eventType": "USER_DELETED", "clientId": CLIENT_ID, "userId": user}));
        let forged = answer("POST a forged webhook".to_owned(), forged)
            .await?
            .is(401)?;
        forged.has("/code", "invalid_signature")?;
        report.seen("a forged webhook is refused (401 invalid_signature)");
        Ok(())
    }

    async fn refresh_holdings(&self, report: &mut Report, user: &str) -> Checked {
        report.step(format!("{user}'s holdings are refreshed"));
        let refreshed = self
            .call(Who::User(user), Method::POST, "/api/snaptrade/refresh", nothing())
            .await?
            .is(200)?;
        refreshed.has("/user_id", user)?.has("/stale", json!([]))?;
        let accounts = refreshed.list_at("/accounts")?;
        if accounts.is_empty() {
            return Err(Mismatch::new("accounts", "at least one", "none"));
        }
        report.seen(format!(
            "200: {}, nothing stale",
            counted(accounts.len(), "account")
        ));
        report.show(&accounts_table(accounts));
        for account in accounts {
            let id = account
                .get("account_id")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let at_sandbox = self
                .caller
                .sandbox(Method::POST, &format!("/__sandbox/holdings/{id}"), nothing())
                .await?
                .is(200)?;
            let total = at_sandbox
                .body
                .pointer("/account/balance/total")
                .cloned()
                .unwrap_or_default();
            let shown = account.get("total_value").cloned().unwrap_or_default();
            expect(
                &format!("the value of account {id}"),
                &money(&total),
                &money(&shown),
            )?;
        }
        report.seen("the values are those that SnapTrade has");
        Ok(())
    }

    async fn hold_a_place(&self, report: &mut Report, user: &str, limit: usize) -> Checked {
        report.step(format!(
            "A front end that met the limit has a place kept for {user}"
        ));
        let path = "/api/snaptrade/handle-connection-limit";
        let held = self
            .call(Who::User(user), Method::POST, path, nothing())
            .await?
            .is(200)?;
        held.has("/success", true)?
            .has("/evicted/reason", "oldest")?
            .has("/slots/in_use", limit)?;
        let until = held.text_at("/held_until")?;
        report.seen(format!(
            "200: the oldest gave way, the place is {user}'s until {}",
            clock_time(until)
        ));
        let again = self
            .call(Who::User(user), Method::POST, path, nothing())
            .await?
            .is(200)?;
        again.has("/evicted", Value::Null)?;
        report.seen("asked again: the place is confirmed and nobody else gives way");
        let registered = self.register(user).await?.is(201)?;
        registered
            .has("/evicted", Value::Null)?
            .has("/slots/in_use", limit)?;
        report.seen(format!("{user} registers into that place: 201, nobody gives way"));
        Ok(())
    }

    async fn sync(&self, report: &mut Report, limit: usize) -> Checked {
        report.step("Tracking is synced with SnapTrade");
        let synced = self
            .operate(Method::POST, "/api/snaptrade/sync", nothing())
            .await?
            .is(200)?;
        synced
            .has("/added", 0)?
            .has("/removed", 0)?
            .has("/upstream_count", limit)?
            .has("/tracked_count", limit)?
            .has("/complete", true)?;
        self.status().await?.has("/in_sync", true)?;
        report.seen(format!(
            "{limit} at SnapTrade, {limit} tracked, nothing to add or remove: in sync"
        ));
        let refused = self
            .call(Who::User("ada"), Method::POST, "/api/snaptrade/sync", nothing())
            .await?;
        refused.is(403)?.has("/code", "forbidden")?;
        report.seen("only an operator may do that (403 for a user)");
        Ok(())
    }

    async fn lose_the_table(&self, report: &mut Report, user: &str, limit: usize) -> Checked {
        report.step("The table is lost, and the sync takes everybody in again");
        self.operate(Method::POST, "/__local/reset", nothing())
            .await?
            .is(200)?;
        self.users().await?.has("/data", json!([]))?;
        report.seen("the table is emptied: nobody is tracked");
        let synced = self
            .operate(Method::POST, "/api/snaptrade/sync", nothing())
            .await?
            .is(200)?;
        synced.has("/added", limit)?.has("/tracked_count", limit)?;
        let users = self.users().await?;
        for row in users.list_at("/data")? {
            expect(
                "state",
                "adopted",
                row.get("state").and_then(Value::as_str).unwrap_or_default(),
            )?;
        }
        report.seen(format!("one sync adopts all {limit} from SnapTrade's own list"));
        let registered = self.register(user).await?.is(201)?;
        registered.has("/evicted", Value::Null)?;
        self.status()
            .await?
            .has("/current_count", limit)?
            .has("/in_sync", true)?;
        report.seen(format!(
            "{user} registers into the same place: nobody gives way, still {limit}"
        ));
        Ok(())
    }

    async fn call(&self, who: Who<'_>, method: Method, path: &str, body: Value) -> Checked<Answer> {
        self.caller.api(who, method, path, body).await
    }

    async fn operate(&self, method: Method, path: &str, body: Value) -> Checked<Answer> {
        self.call(Who::Operator, method, path, body).await
    }

    async fn register(&self, user: &str) -> Checked<Answer> {
        self.call(
            Who::User(user),
            Method::POST,
            "/api/snaptrade/register",
            nothing(),
        )
        .await
    }

    async fn status(&self) -> Checked<Answer> {
        self.operate(Method::GET, "/api/snaptrade/status", nothing())
            .await?
            .is(200)
    }

    async fn users(&self) -> Checked<Answer> {
        self.operate(Method::GET, "/api/snaptrade/users", nothing())
            .await?
            .is(200)
    }

    /// Checks that SnapTrade itself lists exactly the incarnations of these users.
    async fn expect_at_snaptrade(&self, users: &[&str]) -> Checked {
        let listed =
            self.snaptrade.list_users().await.map_err(|error| {
                Mismatch::new("SnapTrade's list of users", "an answer", error.to_string())
            })?;
        let mut listed: Vec<_> = listed
            .iter()
            .map(|id| id.as_str().split('~').next().unwrap_or_default().to_owned())
            .collect();
        listed.sort();
        let mut expected: Vec<_> = users.iter().map(|user| (*user).to_owned()).collect();
        expected.sort();
        expect(
            "the users that SnapTrade lists",
            &expected.join(", "),
            &listed.join(", "),
        )
    }

    /// Looks again and again until `look` finds something. `what` names it, for the case that it never comes.
    async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Checked<Option<T>>) -> Checked<T> {
        let started = Instant::now();
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            if started.elapsed() > PATIENCE {
                let came = format!("nothing of the kind within {} seconds", PATIENCE.as_secs());
                return Err(Mismatch::new("what happens by and by", what, came));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

fn expect(what: &str, expected: &str, came: &str) -> Checked {
    if expected == came {
        return Ok(());
    }
    Err(Mismatch::new(what, expected, came))
}

/// What the portal adds to the redirect: the status and the connection's id.
fn said_on_return(location: &str) -> (String, String) {
    let said = |name: &str| {
        let url = Url::parse(location).ok()?;
        url.query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    (
        said("status").unwrap_or_default(),
        said("connection_id").unwrap_or_default(),
    )
}

/// A user's row in the list of users.
fn row_of<'a>(users: &'a Answer, user: &str) -> Checked<&'a Value> {
    users
        .list_at("/data")?
        .iter()
        .find(|row| row.get("user_id").and_then(Value::as_str) == Some(user))
        .ok_or_else(|| Mismatch::new("the list of users", user, "a list without this user"))
}

/// `one account`, `two accounts`; in figures from ten on.
fn counted(count: usize, thing: &str) -> String {
    const WORDS: [&str; 10] = [
        "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    ];
    let figure = WORDS
        .get(count)
        .map_or_else(|| count.to_string(), |word| (*word).to_owned());
    format!("{figure} {thing}{}", if count == 1 { "" } else { "s" })
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Each word once, with how often it comes where that is more than once.
fn tally(words: &[String]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for word in words {
        match counts.iter_mut().find(|(known, _)| known == word) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => counts.push((word, 1)),
        }
    }
    let shown: Vec<_> = counts
        .iter()
        .map(|(word, count)| {
            if *count > 1 {
                format!("{word} ({count})")
            } else {
                (*word).to_owned()
            }
        })
        .collect();
    shown.join(", ")
}

/// The time of day of a time stamp, to the second, in UTC.
fn clock_time(text: &str) -> String {
    text.parse::<Timestamp>().map_or_else(
        |_| text.to_owned(),
        |time| time.strftime("%H:%M:%S UTC").to_string(),
    )
}

/// An amount in words: numbers that are equal are written alike, whether they came as numbers or as text.
fn money(amount: &Value) -> String {
    let text = match amount.get("amount") {
        Some(Value::String(text)) => text.clone(),
        Some(number @ Value::Number(_)) => number.to_string(),
        _ => return "unknown".to_owned(),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let fraction = fraction.trim_end_matches('0');
    let currency = amount.get("currency").and_then(Value::as_str).unwrap_or_default();
    format!("{whole}.{fraction:0<2} {currency}")
}

fn accounts_table(accounts: &[Value]) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_header(["Account", "Brokerage", "Number", "Value"]);
    for account in accounts {
        let text = |name: &str| {
            account
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or("-")
                .to_owned()
        };
        let number = account
            .get("number")
            .and_then(Value::as_str)
            .map_or("-".to_owned(), |last| format!("…{last}"));
        let value = money(account.get("total_value").unwrap_or(&Value::Null));
        table.add_row([text("name"), text("institution"), number, value]);
    }
    if let Some(value) = table.column_mut(3) {
        value.set_cell_alignment(CellAlignment::Right);
    }
    table.set_width(72);
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_amounts_are_written_alike() {
        assert_eq!(
            money(&json!({"amount": "15363.2300", "currency": "USD"})),
            "15363.23 USD"
        );
        assert_eq!(
            money(&json!({"amount": 15363.23, "currency": "USD"})),
            "15363.23 USD"
        );
        assert_eq!(money(&json!({"amount": 100, "currency": "CAD"})), "100.00 CAD");
        assert_eq!(money(&Value::Null), "unknown");
    }

    #[test]
    fn what_the_portal_says_is_read_from_the_redirect() {
        let (status, id) = said_on_return("http://localhost:3000/connected?status=SUCCESS&connection_id=c-1");
        assert_eq!((status.as_str(), id.as_str()), ("SUCCESS", "c-1"));
        assert_eq!(said_on_return("nowhere"), (String::new(), String::new()));
    }

    #[test]
    fn small_numbers_are_written_out() {
        assert_eq!(capitalised(&counted(5, "user")), "Five users");
        assert_eq!(counted(1, "account"), "one account");
        assert_eq!(counted(12, "user"), "12 users");
    }

    #[test]
    fn words_are_tallied_in_order() {
        let words = ["B", "A", "B"].map(str::to_owned);
        assert_eq!(tally(&words), "B (2), A");
    }

    #[test]
    fn there_are_names_for_the_largest_tour() {
        assert_eq!(NAMES.len(), MOST as usize + 2);
        let mut sorted = NAMES.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted, NAMES);
    }
}
