//! `berth verify-setup`: whether everything that Berth needs is there, one line a check, with how to mend what is not.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::KeySchemaElement;
use berth::access::mail::reach;
use berth::clock::Clock;
use berth::config::BaseUrl;
use berth::secrets::Cached;
use berth::snaptrade::{Client, ClientOptions, Credentials};
use jiff::Timestamp;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Global;
use crate::access;
use crate::exit::Exit;
use crate::target::{CallError, Target};

/// How far our clock may be from SnapTrade's. It refuses signatures whose time is further off than some minutes, so
/// this leaves room for a clock that drifts.
const CLOCK_TOLERANCE_MS: i64 = 5_000;

/// How long SnapTrade may take to tell its time.
const SNAPTRADE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the mail server may take to let Berth in.
const MAIL_TIMEOUT: Duration = Duration::from_secs(10);

/// How to mend a configuration of the access sync that is not right.
const MEND_CONFIGURATION: &str =
    "correct the access sync's configuration; the log names what is wrong with it";

/// The origin that a page would call from where an allowed one has a `*` for a label.
const ANY_LABEL: &str = "any";

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Broken,
}

/// A check: what it is about, how it came out, what was found, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    name: &'static str,
    status: Verdict,
    detail: String,
    mend: Option<String>,
}

impl Check {
    /// It is as it should be.
    pub(crate) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            status: Verdict::Ok,
            detail: detail.into(),
            mend: None,
        }
    }

    /// It may be meant, and should be looked at.
    pub(crate) fn warn(name: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            name,
            status: Verdict::Warn,
            detail: detail.into(),
            mend: Some(mend.into()),
        }
    }

    /// It does not work.
    pub(crate) fn broken(name: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            name,
            status: Verdict::Broken,
            detail: detail.into(),
            mend: Some(mend.into()),
        }
    }
}

/// Where a target is, which decides how something is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    ThisMachine,
    Aws,
}

impl Place {
    fn of(target: &Target) -> Self {
        match target.deployed() {
            Some(_) => Self::Aws,
            None => Self::ThisMachine,
        }
    }

    /// How something is mended, here or there.
    fn mend(self, here: &'static str, in_aws: &'static str) -> &'static str {
        match self {
            Self::ThisMachine => here,
            Self::Aws => in_aws,
        }
    }
}

/// Checks the target and prints one line a check.
pub(crate) async fn run(global: &Global) -> Exit {
    let target = match Target::find(global).await {
        Ok(target) => target,
        Err(error) => return Exit::failed(&error.to_string()),
    };
    let checks = check_all(&target).await;
    let name = target.name().to_owned();
    target.close().await;
    match checks {
        Ok(checks) => finish(global, &name, &checks),
        Err(error) => Exit::failed(&error.to_string()),
    }
}

/// All checks, in the order in which they build on each other.
async fn check_all(target: &Target) -> Result<Vec<Check>, CallError> {
    let settings = target.settings().await?;
    let health = match target.get("/health").await {
        // An unhealthy API answers 503 with the same body, which is what is wanted here.
        Err(CallError::Answered { answer, .. }) if answer.get("checks").is_some() => answer,
        other => other?,
    };
    let (clock, table, origins, webhook, limit) = tokio::join!(
        clock(target, &settings),
        table(target, &settings),
        origins(target, &settings),
        webhook(target),
        limit(target),
    );
    let place = Place::of(target);
    let mut checks = vec![
        credentials(&settings, place),
        environment(&settings),
        signature(word(&health, "snaptrade")),
        clock,
        store(word(&health, "store"), place),
        table,
        secrets(word(&health, "secrets"), place),
        origins,
        webhook,
        limit,
    ];
    // A deployment without an access sync has nothing to check there.
    if health.pointer("/checks/wordpress").is_some() {
        checks.push(shop(word(&health, "wordpress")));
        checks.push(access_api(word(&health, "access_api")));
        checks.push(mail(target).await);
    }
    Ok(checks)
}

fn word<'a>(health: &'a Value, part: &str) -> &'a str {
    health
        .get("checks")
        .and_then(|checks| checks.get(part)?.as_str())
        .unwrap_or("unknown")
}

fn credentials(settings: &Value, place: Place) -> Check {
    const NAME: &str = "credentials";
    let mend = place.mend(
        "set SNAPTRADE_CLIENT_ID and SNAPTRADE_CONSUMER_KEY to what SnapTrade's dashboard shows",
        "put what SnapTrade's dashboard shows into the secret that the output SnapTradeSecretArn names",
    );
    if settings.get("credentials_unreadable").and_then(Value::as_bool) == Some(true) {
        return Check::warn(
            NAME,
            "your AWS account may not read the secret, so only the functions know them",
            "see the checks of the signature and of the secrets, or allow secretsmanager:GetSecretValue",
        );
    }
    let given = settings.get("consumer_key_given").and_then(Value::as_bool) == Some(true);
    match settings.get("client_id").and_then(Value::as_str) {
        Some(id) if given && well_formed(id) => {
            Check::ok(NAME, format!("client id {id}, with a consumer key"))
        }
        Some(id) if given => Check::broken(
            NAME,
            format!("the client id {id:?} has characters that none has, such as spaces or quotes"),
            mend,
        ),
        _ => Check::broken(NAME, "none are set", mend),
    }
}

/// Whether `id` may be a client id: nothing that a careless copy adds.
fn well_formed(id: &str) -> bool {
    !id.is_empty()
        && id
            .chars()
            .all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\''))
}

fn environment(settings: &Value) -> Check {
    const NAME: &str = "environment";
    let environment = settings
        .get("environment")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let at = settings
        .get("snaptrade_base_url")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let on_this_machine = BaseUrl::parse(at).is_ok_and(|url| url.is_loopback());
    match environment {
        "production" if on_this_machine => Check::warn(
            NAME,
            format!("production, but SnapTrade is a sandbox on this machine ({at})"),
            "leave out --environment production, or start with --snaptrade live",
        ),
        "" => Check::broken(
            NAME,
            "it is not named",
            "set SNAPTRADE_ENVIRONMENT to sandbox or production",
        ),
        named => Check::ok(NAME, format!("{named}, SnapTrade at {at}")),
    }
}

/// What the functions found when they last made a signed call to SnapTrade.
fn signature(word: &str) -> Check {
    const NAME: &str = "signature";
    match word {
        "ok" => Check::ok(NAME, "SnapTrade accepts a signed call"),
        "unauthorized" => Check::broken(
            NAME,
            "SnapTrade refuses our signature",
            "compare SNAPTRADE_CLIENT_ID and SNAPTRADE_CONSUMER_KEY with SnapTrade's dashboard, and see the check of the clock",
        ),
        "no_credentials" => Check::broken(
            NAME,
            "there is nothing to sign with",
            "see the check of the credentials",
        ),
        "rate_limited" => Check::warn(
            NAME,
            "SnapTrade wants fewer calls, so it is not known",
            "try again in a minute",
        ),
        other => Check::broken(
            NAME,
            format!("SnapTrade could not be asked ({other})"),
            "see whether SnapTrade can be reached from here, and try again in a minute",
        ),
    }
}

async fn clock(target: &Target, settings: &Value) -> Check {
    const NAME: &str = "clock";
    let unknown = |reason: String| {
        Check::broken(
            NAME,
            format!("SnapTrade's time is not known: {reason}"),
            "see whether SnapTrade can be reached from here",
        )
    };
    let before = match local_time(target).await {
        Ok(time) => time,
        Err(error) => return unknown(error.to_string()),
    };
    let theirs = match snaptrade_time(target, settings).await {
        Ok(time) => time,
        Err(reason) => return unknown(reason),
    };
    let after = match local_time(target).await {
        Ok(time) => time,
        Err(error) => return unknown(error.to_string()),
    };
    clock_verdict(before, theirs, after)
}

/// Judges SnapTrade's time by the time that it was here before and after it was asked for.
fn clock_verdict(before: Timestamp, theirs: Timestamp, after: Timestamp) -> Check {
    const NAME: &str = "clock";
    let theirs = theirs.as_millisecond();
    // SnapTrade looked at its clock at some time in between.
    let ahead = before.as_millisecond().saturating_sub(theirs).max(0);
    let behind = theirs.saturating_sub(after.as_millisecond()).max(0);
    let off = ahead.max(behind);
    let told = format!("{}.{} s", off / 1_000, off % 1_000 / 100);
    if off <= CLOCK_TOLERANCE_MS {
        return Check::ok(NAME, format!("within {told} of SnapTrade's"));
    }
    let which = if ahead > 0 { "ahead of" } else { "behind" };
    Check::broken(
        NAME,
        format!("{told} {which} SnapTrade's, which makes signatures invalid"),
        "set this machine's clock by a time server; a clock moved by PUT /__local/clock goes back with a restart",
    )
}

async fn local_time(target: &Target) -> Result<Timestamp, CallError> {
    target.now().await
}

async fn snaptrade_time(target: &Target, settings: &Value) -> Result<Timestamp, String> {
    let base_url = settings
        .get("snaptrade_base_url")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let base_url = BaseUrl::parse(base_url).map_err(|reason| format!("its address {reason}"))?;
    // The call is not signed, so that the credentials do not matter.
    let nobody = Credentials {
        client_id: String::new(),
        consumer_key: "".into(),
    };
    let client = Client::new(ClientOptions {
        base_url,
        credentials: Arc::new(Cached::fixed(nobody)),
        clock: Clock::system(),
        http: target.http().clone(),
        timeout: SNAPTRADE_TIMEOUT,
        gate: None,
    });
    let status = client.once().check().await.map_err(|error| error.to_string())?;
    status.timestamp.ok_or_else(|| "it did not tell it".to_owned())
}

fn store(word: &str, place: Place) -> Check {
    const NAME: &str = "store";
    match word {
        "ok" => Check::ok(NAME, "the functions read the table"),
        other => Check::broken(
            NAME,
            format!("the functions cannot read the table ({other})"),
            place.mend(
                "restart the stack; if that does not help, empty its data with `berth local --reset`",
                "look at the function status's log, and deploy the template again, so that its role is whole",
            ),
        ),
    }
}

/// Whether the table has the shape that the functions rely on.
async fn table(target: &Target, settings: &Value) -> Check {
    const NAME: &str = "table";
    let mend = Place::of(target).mend(
        "empty the data with `berth local --reset`, so that the table is created anew",
        "deploy the template again; your AWS account needs dynamodb:DescribeTable and DescribeTimeToLive to look",
    );
    let name = settings
        .get("table_name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let client = match target.dynamodb() {
        Ok(client) => client,
        Err(reason) => return Check::broken(NAME, reason, mend),
    };
    let (described, expiry) = tokio::join!(
        client.describe_table().table_name(name).send(),
        client.describe_time_to_live().table_name(name).send(),
    );
    let Some(table) = described.ok().and_then(|answer| answer.table) else {
        return Check::broken(NAME, format!("there is no table {name}"), mend);
    };
    let index = table
        .global_secondary_indexes()
        .iter()
        .find(|index| index.index_name() == Some("gsi1"));
    let stream = table
        .stream_specification()
        .filter(|stream| stream.stream_enabled())
        .and_then(|stream| stream.stream_view_type());
    let expires = expiry
        .ok()
        .and_then(|answer| answer.time_to_live_description)
        .and_then(|expiry| expiry.attribute_name);
    let faults: Vec<_> = [
        (
            names(table.key_schema()) != ["pk", "sk"],
            "its key is not pk and sk",
        ),
        (
            index.is_none_or(|index| names(index.key_schema()) != ["gsi1pk", "gsi1sk"]),
            "the index gsi1 is missing or has another key",
        ),
        (
            stream.is_none_or(|view| view.as_str() != "NEW_AND_OLD_IMAGES"),
            "its stream is off or leaves images out",
        ),
        (
            expires.as_deref() != Some("expires_at"),
            "expired items are not swept by expires_at",
        ),
    ]
    .into_iter()
    .filter_map(|(wrong, fault)| wrong.then_some(fault))
    .collect();
    if faults.is_empty() {
        return Check::ok(NAME, format!("{name}, with its index, stream and expiry"));
    }
    Check::broken(NAME, format!("{name}: {}", faults.join(", ")), mend)
}

fn names(keys: &[KeySchemaElement]) -> Vec<&str> {
    keys.iter().map(KeySchemaElement::attribute_name).collect()
}

fn secrets(word: &str, place: Place) -> Check {
    const NAME: &str = "secrets";
    match word {
        "ok" => Check::ok(NAME, "the key that encrypts users' secrets can be read"),
        other => Check::broken(
            NAME,
            format!("the credentials or the data key cannot be read ({other})"),
            place.mend(
                "look at .berth/data-keys.json: put the kept copy back, since without it users have to register anew",
                "give the secrets that the outputs SnapTradeSecretArn and DataKeySecretArn name their values",
            ),
        ),
    }
}

/// What the functions found when they last read from the shop.
fn shop(word: &str) -> Check {
    const NAME: &str = "shop";
    let mend = match word {
        "ok" => return Check::ok(NAME, "the functions can read its transactions"),
        "unauthorized" => {
            "compare the credentials under wordpress in the access sync's configuration with the shop's"
        }
        "misconfigured" => MEND_CONFIGURATION,
        _ => {
            "see whether the shop answers at wordpress.base_url and transactions_endpoint, and try again in a minute"
        }
    };
    let detail = format!("the functions cannot read its transactions ({word})");
    Check::broken(NAME, detail, mend)
}

/// What the functions found when they last looked a name up.
fn access_api(word: &str) -> Check {
    const NAME: &str = "access API";
    let mend = match word {
        "ok" => return Check::ok(NAME, "it looks names up for the functions"),
        "unauthorized" => {
            "compare tradingview.api_key in the access sync's configuration with the access API's"
        }
        "misconfigured" => MEND_CONFIGURATION,
        _ => "see whether the access API answers at tradingview.base_url, and try again in a minute",
    };
    let detail = format!("it does not look names up for the functions ({word})");
    Check::broken(NAME, detail, mend)
}

/// Whether the mail server lets this machine in, by what the access sync writes with.
async fn mail(target: &Target) -> Check {
    const NAME: &str = "mail";
    let mail = match access::mail_of(target).await {
        Ok(Some(mail)) => mail,
        Ok(None) => {
            return Check::warn(
                NAME,
                "no mail server is configured, so neither customers nor operators are written to",
                "fill in email in the access sync's configuration, if they should be",
            );
        }
        Err(reason) => {
            return Check::warn(
                NAME,
                format!("it is not known here how mail is sent: {reason}"),
                "allow your AWS account to read the secret that the output AccessSecretArn names",
            );
        }
    };
    match reach(&mail, MAIL_TIMEOUT).await {
        Ok(()) => Check::ok(NAME, format!("{} lets Berth in", mail.server)),
        Err(reason) => Check::broken(
            NAME,
            format!("{} does not let Berth in from here: {reason}", mail.server),
            "compare email in the access sync's configuration with the mail server's; from another network it may refuse",
        ),
    }
}

/// Whether the pages of the origins that are configured may call.
async fn origins(target: &Target, settings: &Value) -> Check {
    const NAME: &str = "origins";
    let origins: Vec<_> = settings
        .get("allowed_origins")
        .and_then(Value::as_array)
        .map(|origins| origins.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if origins.is_empty() {
        return Check::warn(
            NAME,
            "none, so no web page may call and no redirect is accepted",
            Place::of(target).mend(
                "set ALLOWED_ORIGINS or FRONTEND_URL, or start with --origin",
                "deploy with the parameters AllowedOrigins or FrontendUrl",
            ),
        );
    }
    for origin in &origins {
        let page = origin.replace('*', ANY_LABEL);
        if !target.may_call(&page).await {
            return Check::broken(
                NAME,
                format!("a page of {page} is not let in, though {origin} is configured"),
                Place::of(target).mend(
                    "restart the stack, so that it reads its settings anew",
                    "deploy the template again with the parameters AllowedOrigins and FrontendUrl",
                ),
            );
        }
    }
    Check::ok(NAME, format!("{} may call", origins.join(", ")))
}

/// Whether webhooks reach their function, which has to refuse one that nobody signed.
async fn webhook(target: &Target) -> Check {
    const NAME: &str = "webhook";
    let path = "/api/snaptrade/webhook";
    let mend = Place::of(target).mend(
        "restart the stack, and look at its log",
        "look at the function webhook's log, and whether the stack is in maintenance",
    );
    match target.call(Method::POST, path, Some(&json!({}))).await {
        Err(CallError::Answered { status: 401, answer })
            if answer.get("code").and_then(Value::as_str) == Some("invalid_signature") =>
        {
            Check::ok(
                NAME,
                format!("POST {path} answers, and refuses what is not signed"),
            )
        }
        Err(CallError::Answered { status, .. }) => Check::broken(
            NAME,
            format!("POST {path} answered {status} to an unsigned event, not 401"),
            mend,
        ),
        Err(error) => Check::broken(NAME, error.to_string(), mend),
        Ok(_) => Check::broken(NAME, format!("POST {path} took an unsigned event"), mend),
    }
}

async fn limit(target: &Target) -> Check {
    match target.get("/api/snaptrade/status").await {
        Ok(status) => limit_verdict(&status),
        Err(error) => Check::broken(
            "limit",
            error.to_string(),
            "see the checks of the store and of SnapTrade",
        ),
    }
}

fn limit_verdict(status: &Value) -> Check {
    const NAME: &str = "limit";
    let number = |name: &str| status.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (count, most) = (number("current_count"), number("max_connections"));
    let counts = status.get("counts").and_then(Value::as_str).unwrap_or("users");
    let told = format!("{count} of {most} {counts} in use");
    if status.get("in_sync").and_then(Value::as_bool) != Some(true) {
        return Check::warn(
            NAME,
            format!(
                "{told}; SnapTrade lists {}, tracking {}",
                number("upstream_count"),
                number("tracked_count")
            ),
            "run `berth connections sync`",
        );
    }
    if count > most {
        return Check::warn(
            NAME,
            format!("{told}: more than there may be"),
            "raise MAX_CONNECTIONS, or run `berth connections delete-oldest`",
        );
    }
    Check::ok(NAME, format!("{told}, as SnapTrade lists them"))
}

fn verdict(checks: &[Check]) -> Verdict {
    let any = |verdict| checks.iter().any(|check| check.status == verdict);
    if any(Verdict::Broken) {
        Verdict::Broken
    } else if any(Verdict::Warn) {
        Verdict::Warn
    } else {
        Verdict::Ok
    }
}

/// Prints what was found about `target`, and how a command ends by that.
pub(crate) fn finish(global: &Global, target: &str, checks: &[Check]) -> Exit {
    print(global, target, checks);
    exit_of(checks)
}

fn exit_of(checks: &[Check]) -> Exit {
    match verdict(checks) {
        Verdict::Ok => Exit::Success,
        Verdict::Warn => Exit::NeedsPerson,
        Verdict::Broken => Exit::Failure,
    }
}

fn print(global: &Global, target: &str, checks: &[Check]) {
    let mut out = std::io::stdout().lock();
    // A reader that has gone away is no failure of the checks.
    if global.json {
        let _ = writeln!(out, "{}", json!({"status": verdict(checks), "checks": checks}));
        return;
    }
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _ = writeln!(out, "Checking {target}.");
    for check in checks {
        let _ = writeln!(out, "{}", line(check, colours));
    }
}

fn line(check: &Check, colours: bool) -> String {
    let (word, code) = match check.status {
        Verdict::Ok => ("ok", "32"),
        Verdict::Warn => ("warn", "33"),
        Verdict::Broken => ("broken", "31"),
    };
    let word = format!("{word:<6}");
    let word = if colours {
        format!("\u{1b}[{code}m{word}\u{1b}[0m")
    } else {
        word
    };
    let mend = check
        .mend
        .as_ref()
        .map(|mend| format!("; to mend it, {mend}"))
        .unwrap_or_default();
    format!("{word}  {:<11}  {}{mend}", check.name, check.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_clock_is_judged_by_the_time_around_the_question() {
        let before = at("2026-01-01T00:00:00Z");
        let after = at("2026-01-01T00:00:02Z");
        let verdict = |theirs: &str| clock_verdict(before, at(theirs), after).status;
        assert_eq!(verdict("2026-01-01T00:00:01Z"), Verdict::Ok);
        assert_eq!(verdict("2026-01-01T00:00:07Z"), Verdict::Ok);
        assert_eq!(verdict("2026-01-01T00:00:07.100Z"), Verdict::Broken);
        assert_eq!(verdict("2025-12-31T23:59:55Z"), Verdict::Ok);
        assert_eq!(verdict("2025-12-31T23:59:54.900Z"), Verdict::Broken);
    }

    #[test]
    fn warnings_alone_are_told_apart_from_what_is_broken() {
        let good = Check::ok("clock", "fine");
        let odd = Check::warn("origins", "none", "set them");
        let bad = Check::broken("table", "gone", "create it");
        assert_eq!(exit_of(std::slice::from_ref(&good)), Exit::Success);
        assert_eq!(exit_of(&[good.clone(), odd.clone()]), Exit::NeedsPerson);
        assert_eq!(exit_of(&[good, odd.clone(), bad]), Exit::Failure);
        assert_eq!(
            line(&odd, false),
            "warn    origins      none; to mend it, set them"
        );
    }

    #[test]
    fn a_client_id_has_nothing_that_a_careless_copy_adds() {
        let check =
            |id: &str| credentials(&json!({"client_id": id, "consumer_key_given": true}), Place::Aws).status;
        assert_eq!(check("PARTNER-1"), Verdict::Ok);
        assert_eq!(check("\"PARTNER-1\""), Verdict::Broken);
        assert_eq!(check("PARTNER 1"), Verdict::Broken);
        let none = credentials(&json!({"client_id": null}), Place::ThisMachine);
        assert_eq!(none.status, Verdict::Broken);
    }

    #[test]
    fn a_difference_between_tracking_and_snaptrade_is_a_warning() {
        let status = json!({"current_count": 2, "max_connections": 5, "counts": "users", "in_sync": false});
        assert_eq!(limit_verdict(&status).status, Verdict::Warn);
        let status = json!({"current_count": 6, "max_connections": 5, "counts": "users", "in_sync": true});
        assert_eq!(limit_verdict(&status).status, Verdict::Warn);
        let status = json!({"current_count": 5, "max_connections": 5, "counts": "users", "in_sync": true});
        assert_eq!(limit_verdict(&status).status, Verdict::Ok);
    }
}
