//! `berth access grant-test`: one grant by hand, with the configured key, to see that the access API does it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth::access::assessment::{Change, Rules, Sighting, Standing};
use berth::access::configuration::Configuration;
use berth::access::expiry::Expiry;
use berth::access::ids::ScriptId;
use berth::access::ledger::Ledger;
use berth::access::names::{Lookup, Username};
use berth::access::plan::{self, Action, Claim, Mode};
use berth::access::remote::Wire;
use berth::access::service::{AccessClient, Order, Pacing, REMARKS};
use berth::access::tally::Tally;
use berth::access::transactions::{Row, RowReader};
use berth::clock::Clock;
use berth::snaptrade::http_client;
use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ConfigurationFile, configuration, print, show};
use crate::Global;
use crate::command::{Refusal, tell};
use crate::exit::Exit;
use crate::progress::Progress;
use crate::words::text;

/// A transaction to try with. Its product and its time are filled in where they are null.
const SAMPLE: &str = include_str!("sample-transaction.json");

/// How long all calls together may take.
const LONGEST: Duration = Duration::from_secs(120);

/// What `grant-test` takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct GrantTestArgs {
    /// A file with one transaction, a JSON object as the shop has it [default: a sample]
    #[arg(long, value_name = "FILE")]
    transaction: Option<PathBuf>,
    /// Print the sample, to be edited, and do nothing else
    #[arg(long)]
    print_sample: bool,
    /// The name at TradingView, in place of the transaction's
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The product, in place of the transaction's
    #[arg(long, value_name = "ID")]
    product: Option<String>,
    /// The script, where the product opens several
    #[arg(long, value_name = "ID")]
    script: Option<String>,
    /// Really send it
    #[arg(long)]
    confirm: bool,
    #[command(flatten)]
    named: ConfigurationFile,
}

/// What is to be granted.
#[derive(Debug)]
struct Wanted {
    row: Row,
    username: Username,
    script: ScriptId,
    subscription_type: String,
    claim: Claim,
}

/// Runs the command.
pub(super) async fn run(global: &Global, args: &GrantTestArgs) -> Exit {
    if args.print_sample {
        print(SAMPLE.trim_end());
        return Exit::Success;
    }
    let found = match configuration::find(global, &args.named).await {
        Ok(found) => found,
        Err(refusal) => return tell(global, &refusal),
    };
    let stop = tokio::signal::ctrl_c();
    let done = tokio::select! {
        done = perform(global, args, &found.configuration, &found.clock) => done,
        _ = stop => Err(Refusal::Failed("stopped; whether the grant arrived is not known".to_owned())),
    };
    found.close().await;
    done.unwrap_or_else(|refusal| tell(global, &refusal))
}

async fn perform(
    global: &Global,
    args: &GrantTestArgs,
    configuration: &Configuration,
    clock: &Clock,
) -> Result<Exit, Refusal> {
    let wanted = wanted(args, configuration, clock)?;
    let wire = Wire::of(&configuration.access_api);
    let order = |username: &Username, action: Action| Order {
        script: wanted.script.clone(),
        username: username.clone(),
        action,
        email: wanted.row.email.clone(),
        subscription_type: wanted.subscription_type.clone(),
        wp_username: wanted.row.wp_username.clone(),
        remarks: REMARKS.to_owned(),
    };
    if !args.confirm {
        let to = wanted.claim.expiry;
        let shown = payload(&order(&wanted.username, Action::Grant { to }), to, wire);
        let sent_to = &configuration.access_api.base_url;
        show(
            global,
            &json!({"sent": false, "access_api": sent_to.as_str(), "payload": shown}),
            |_| format!("To be sent to {sent_to}:\n{shown:#}"),
        );
        return Err(Refusal::Usage(
            "nothing was sent: add --confirm to send it".to_owned(),
        ));
    }
    if !configuration.writes_enabled {
        return Err(Refusal::Failed(
            "writes_enabled is false in the configuration, so nothing was sent".to_owned(),
        ));
    }
    let http = http_client().map_err(|error| error.to_string())?;
    let tally = Arc::new(Tally::default());
    let pacing = Arc::new(Pacing::default());
    let client = AccessClient::new(
        http,
        &configuration.access_api,
        pacing,
        Arc::clone(&tally),
        clock.clone(),
    );
    let progress = Progress::without_end("Granting");
    let until = Instant::now() + LONGEST;
    let ended = |ended: berth::access::service::Ended| Refusal::Failed(ended.to_string());
    let username = match client.look_up(&wanted.username, until).await.map_err(ended)? {
        Lookup::Known(username) => username,
        Lookup::Unknown { suggestions } => {
            return Err(Refusal::Failed(unknown(&wanted.username, &suggestions)));
        }
    };
    let before = client
        .access_of(&wanted.script, &username, until)
        .await
        .map_err(ended)?;
    let decision = plan::decide(
        std::slice::from_ref(&wanted.claim),
        before,
        wire,
        Mode::Sync,
        clock.now(),
    );
    let action = decision.map_or(Action::None, |decision| decision.action);
    client
        .write(&order(&username, action), until)
        .await
        .map_err(ended)?;
    let after = client
        .access_of(&wanted.script, &username, until)
        .await
        .map_err(ended)?;
    drop(progress);
    let report = json!({
        "sent": action != Action::None, "script_id": wanted.script, "username": username, "action": action.as_str(),
        "before": before, "after": after, "calls": tally.snapshot(),
    });
    show(global, &report, describe);
    Ok(Exit::Success)
}

/// What is to be granted by the transaction that is given, or by the sample.
fn wanted(args: &GrantTestArgs, configuration: &Configuration, clock: &Clock) -> Result<Wanted, Refusal> {
    // The sample's name may be somebody's: outside a sandbox nobody is given anything who is not named.
    if args.transaction.is_none()
        && args.username.is_none()
        && !configuration.access_api.base_url.is_loopback()
    {
        return Err(Refusal::Usage(
            "say who is to be given access: add --username NAME".to_owned(),
        ));
    }
    let raw = raw(args.transaction.as_deref())?;
    let mut raw = raw
        .as_object()
        .cloned()
        .ok_or_else(|| "the transaction is no JSON object".to_owned())?;
    let given = args.product.as_ref().map(|product| json!(product));
    let first = || configuration.products.keys().next().map(|product| json!(product));
    if let Some(product) = given.or_else(|| first().filter(|_| is_null(raw.get("product_id")))) {
        raw.insert("product_id".to_owned(), product);
    }
    if is_null(raw.get("created_at")) {
        raw.insert("created_at".to_owned(), json!(clock.now().as_second()));
    }
    let mut row = RowReader::new(&configuration.shop, clock.now())
        .read(&Value::Object(raw), 1)
        .map_err(|malformed| malformed.to_string())?;
    if let Some(username) = &args.username {
        row.username.clone_from(username);
    }
    let username = Username::parse(&row.username).map_err(|error| error.to_string())?;
    let product = configuration.product(&row.product).ok_or_else(|| {
        let known: Vec<&str> = configuration
            .products
            .keys()
            .map(|product| product.as_str())
            .collect();
        Refusal::Usage(format!(
            "the product {} is not configured: there are {}",
            row.product,
            known.join(", ")
        ))
    })?;
    let opened = || {
        product
            .scripts
            .iter()
            .map(ScriptId::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let script = match &args.script {
        Some(script) => product.scripts.iter().find(|opened| opened.as_str() == script),
        None => product.scripts.first(),
    };
    let script = script.cloned().ok_or_else(|| {
        Refusal::Usage(format!(
            "the product {} does not open that script: it opens {}",
            row.product,
            opened()
        ))
    })?;
    let claim = claim(&row, configuration, clock)?;
    Ok(Wanted {
        username,
        script,
        subscription_type: product.subscription_type.clone(),
        claim,
        row,
    })
}

fn raw(file: Option<&Path>) -> Result<Value, Refusal> {
    let Some(file) = file else {
        return Ok(serde_json::from_str(SAMPLE).map_err(|error| error.to_string())?);
    };
    let unusable =
        |why: &dyn std::fmt::Display| Refusal::Failed(format!("{} cannot be used: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| unusable(&error))?;
    serde_json::from_str(&text).map_err(|error| unusable(&error))
}

fn is_null(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}

/// What one transaction alone gives.
fn claim(row: &Row, configuration: &Configuration, clock: &Clock) -> Result<Claim, Refusal> {
    let now = clock.now();
    let rules = Rules::new(configuration, now, true);
    match rules.standing(row) {
        Standing::Eligible { .. } => {}
        Standing::Refunded => {
            return Err(Refusal::Failed(
                "the transaction was refunded, so it gives nothing".to_owned(),
            ));
        }
        Standing::Ignored(reason) => {
            return Err(Refusal::Failed(format!(
                "the transaction gives nothing ({reason})"
            )));
        }
    }
    let person = row
        .person
        .ok_or_else(|| "the transaction's member was deleted".to_owned())?;
    let mut ledger = Ledger::default();
    let approved = BTreeSet::new();
    let sighting = Sighting {
        row,
        approved: &approved,
        blocked: false,
        same_payment: None,
    };
    for change in rules.absorb(&mut ledger, &sighting) {
        if let Change::Review(reason, _) = change {
            return Err(Refusal::Failed(format!(
                "a person would have to look at the transaction ({reason})"
            )));
        }
    }
    let expiry = ledger.expiry(configuration.policies.grace);
    if !expiry.is_live(now) {
        return Err(Refusal::Failed(format!(
            "the access that the transaction gives is over ({expiry})"
        )));
    }
    Ok(Claim {
        person,
        expiry,
        told: None,
        found: None,
        changed: true,
        reversing: false,
    })
}

/// What the access API is sent, under its own names (facts/access.md B63).
fn payload(order: &Order, to: Expiry, wire: Wire) -> Value {
    json!({
        "scriptId": order.script, "username": order.username, "email": order.email,
        "expiry": to.at().map(|end| wire.write(end)), "subscription_type": order.subscription_type,
        "wp_username": order.wp_username, "remarks": order.remarks,
    })
}

fn unknown(username: &Username, suggestions: &[String]) -> String {
    match suggestions {
        [] => format!("TradingView does not know {username}, so nothing was sent"),
        names => format!(
            "TradingView does not know {username}, so nothing was sent; alike are {}",
            names.join(", ")
        ),
    }
}

fn describe(report: &Value) -> String {
    let end = |member: &str| match report.get(member).and_then(Value::as_str) {
        None | Some("none") => "none".to_owned(),
        Some("lifetime") => "for ever".to_owned(),
        Some(end) => format!("until {end}"),
    };
    let who = format!("{} for {}", text(report, "script_id"), text(report, "username"));
    match text(report, "action").as_str() {
        "none" => format!("{who}: access is {} already, so nothing was sent.", end("before")),
        action => format!(
            "{who}: {action} sent; access was {}, and is {} now.",
            end("before"),
            end("after")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(access_api: &str) -> Configuration {
        let text = json!({
            "wordpress": {"base_url": "https://shop.example.com", "api_key": "k"},
            "tradingview": {"base_url": access_api, "api_key": "k"},
            "products": {"100": {"script_ids": ["S1", "S2"], "duration_days": 30, "subscription_type": "monthly"}},
        });
        Configuration::parse(&text.to_string(), None).unwrap()
    }

    fn args() -> GrantTestArgs {
        GrantTestArgs {
            transaction: None,
            print_sample: false,
            username: None,
            product: None,
            script: None,
            confirm: false,
            named: ConfigurationFile { file: None },
        }
    }

    #[test]
    fn the_sample_gives_one_period_of_the_first_product_from_now_on() {
        let clock = Clock::system();
        let wanted = wanted(&args(), &configuration("http://127.0.0.1:9002"), &clock).unwrap();
        assert_eq!(
            (wanted.username.as_str(), wanted.script.as_str()),
            ("AdaLovelace", "S1")
        );
        let days =
            (wanted.claim.expiry.at().unwrap().as_second() - clock.now().as_second()) as f64 / 86_400.0;
        assert!((days - 30.0).abs() < 0.01, "{days}");
    }

    #[test]
    fn outside_a_sandbox_only_who_is_named_is_given_anything() {
        let real = configuration("https://access.example.com");
        let clock = Clock::system();
        assert!(matches!(wanted(&args(), &real, &clock), Err(Refusal::Usage(_))));
        let named = GrantTestArgs {
            username: Some("Grace".to_owned()),
            script: Some("S2".to_owned()),
            ..args()
        };
        let wanted = wanted(&named, &real, &clock).unwrap();
        assert_eq!(
            (wanted.username.as_str(), wanted.script.as_str()),
            ("Grace", "S2")
        );
    }
}
