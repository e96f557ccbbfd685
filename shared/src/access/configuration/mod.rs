//! The access sync's configuration: one JSON document with the keys of the program that this part replaces,
//! read and checked as a whole, every fault named by its path (contract.md, "The access sync's
//! configuration"; facts/access.md A5 and B7–B29).

mod reader;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::tz::TimeZone;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::reader::{Fault, Faults};
use self::reader::{Findings, Section, not_negative};
use super::duration::PlanDuration;
use super::ids::{ProductId, ScriptId};
use crate::config::{BaseUrl, is_loopback};

/// The header that MemberPress reads its key from (A6).
const MEMBERPRESS_KEY_HEADER: &str = "MEMBERPRESS-API-KEY";

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// `wordpress`: where transactions come from.
    pub shop: Shop,
    /// `tradingview`: what grants access.
    pub access_api: AccessApi,
    /// `products`: what each product of the shop opens, by the product's id.
    pub products: BTreeMap<ProductId, Product>,
    /// `scheduler.interval_minutes`: how long it is from one run to the next.
    pub interval: Duration,
    /// `scheduler.dry_run`: whether scheduled runs only say what they would do.
    pub scheduled_runs_are_dry: bool,
    /// `email`; `None` switches mail off.
    pub mail: Option<Mail>,
    /// `discord`; `None` switches notices to Discord off. The original has it undocumented (x4).
    pub discord: Option<Discord>,
    /// `paths`, on a developer's machine.
    pub paths: Paths,
    /// `policies`.
    pub policies: Policies,
    /// `caps`.
    pub caps: Caps,
    /// `writes_enabled`: whether anything may be changed at the access API.
    pub writes_enabled: bool,
    /// What should be looked at though it is no fault, such as members that have no meaning here.
    pub warnings: Vec<String>,
}

/// Where transactions come from.
#[derive(Debug, Clone)]
pub struct Shop {
    /// Where the site is.
    pub base_url: BaseUrl,
    /// The path of its list of transactions, beginning with a slash.
    pub transactions_endpoint: String,
    /// Which of the two lists that is.
    pub kind: ShopKind,
    /// The name of the query parameter for the earliest creation time, in Unix seconds.
    pub since_param: String,
    /// What opens it.
    pub credentials: ShopCredentials,
    /// What MemberPress's webhook has to show; `None` refuses all of them.
    pub webhook_key: Option<SecretString>,
    /// Which statuses may grant.
    pub grants_on: StatusFilter,
    /// How many transactions are asked for at most; `None` is no limit (x1).
    pub transactions_limit: Option<u32>,
    /// The longest that a call may take.
    pub timeout: Duration,
    /// The zone of times that name none.
    pub timezone: TimeZone,
    /// Where a person's name at TradingView stands, in the order of trust, each a path of members.
    pub username_fields: Vec<String>,
}

/// Which list of transactions a site has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShopKind {
    /// The site's own, whole and since a time.
    #[default]
    Site,
    /// MemberPress's, in pages.
    MemberPress,
}

/// What opens the shop's list. All that is given is sent.
#[derive(Debug, Clone)]
pub struct ShopCredentials {
    /// A key, with the name of its header.
    pub key: Option<(String, SecretString)>,
    /// A user and an application password, for HTTP's Basic authentication.
    pub basic: Option<(String, SecretString)>,
    /// A token, with the name of its query parameter (x2).
    pub token: Option<(String, SecretString)>,
}

/// Which statuses may grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusFilter {
    /// Confirmed sign-ups, whose payment is still to come, beside completed payments.
    pub confirmed: bool,
}

/// What grants access.
#[derive(Debug, Clone)]
pub struct AccessApi {
    /// Where it is.
    pub base_url: BaseUrl,
    /// Whose shapes it has.
    pub kind: AccessApiKind,
    /// The path that grants.
    pub grant_endpoint: String,
    /// The path that changes an expiry.
    pub update_endpoint: String,
    /// The path that removes.
    pub remove_endpoint: String,
    /// The path that lists who has access, with `{scriptId}`.
    pub list_endpoint: String,
    /// The path that looks a name up, with `{username}`.
    pub validate_endpoint: String,
    /// The header of the key.
    pub key_header: String,
    /// The key.
    pub key: SecretString,
    /// The longest that a call may take.
    pub timeout: Duration,
    /// How many tries follow the first.
    pub max_retries: u32,
    /// The longest wait before each try after the first; the last counts for all after it. Never empty.
    pub retry_backoff: Vec<Duration>,
    /// Grants, updates and removals in a second; `None` is no limit.
    pub grants_per_second: Option<f64>,
    /// Look-ups of names in a second; `None` is no limit.
    pub validations_per_second: Option<f64>,
    /// How an end of access is written.
    pub expiry_format: ExpiryFormat,
    /// What a date without a time means to it.
    pub date_meaning: DateMeaning,
}

/// Whose shapes the access API has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessApiKind {
    /// The operator's own, with absolute ends: a call can be sent again.
    #[default]
    AccessApi,
    /// A self-hosted `trendoscope`, with relative durations: a call must never be sent again unread.
    Trendoscope,
}

/// How an end of access is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExpiryFormat {
    /// `2026-01-31`, as the original does.
    #[default]
    Date,
    /// RFC 3339.
    DateTime,
}

/// What a date without a time means to the access API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DateMeaning {
    /// Access until the end of that day.
    #[default]
    EndOfDay,
    /// Access until that day begins.
    StartOfDay,
}

/// What one product of the shop opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// The scripts, each once, at least one.
    pub scripts: Vec<ScriptId>,
    /// How long a purchase lasts; `None` where only the shop says so.
    pub duration: Option<PlanDuration>,
    /// What the access API is told about the kind of subscription.
    pub subscription_type: String,
    /// Whether a purchase while access is live adds to it.
    pub stacking_allowed: bool,
    /// Whether a purchase without an end is meant to be one.
    pub lifetime: bool,
}

/// Mail.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The SMTP server.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted.
    pub tls: MailTls,
    /// User and password.
    pub credentials: Option<(String, SecretString)>,
    /// Who writes.
    pub from: String,
    /// Who gets a copy of every mail (x3).
    pub bcc: Vec<String>,
    /// Who gets notices about the sync itself.
    pub operator: Option<String>,
}

/// How the connection to the mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MailTls {
    /// Begun in the open, then encrypted.
    #[default]
    StartTls,
    /// Encrypted from the beginning.
    Tls,
    /// Not at all, on this machine only.
    None,
}

/// Notices to a channel of Discord.
#[derive(Debug, Clone)]
pub struct Discord {
    /// Where to post; whoever knows it may post.
    pub webhook_url: SecretString,
    /// The name that posts are shown under.
    pub author: Option<String>,
}

/// Directories on a developer's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Where scripts' master data are exported to.
    pub master_data: String,
    /// Whether that was named, so that it is kept up to date there by each sync.
    pub keeps_master_data: bool,
    /// Where logs are written to.
    pub logs: String,
}

/// What an operator decides about doubtful cases (C2, C3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    /// Whether a confirmed sign-up grants before its payment.
    pub trials: Trials,
    /// What becomes of purchases for nothing.
    pub comps: Comps,
    /// Whether members of somebody else's account get access.
    pub sub_accounts: bool,
    /// What becomes of access that was paid back.
    pub refund_action: RefundAction,
    /// Who says how long a purchase lasts.
    pub duration_source: DurationSource,
    /// How much time is credited at most for a wrong name.
    pub hold_credit_max: Duration,
    /// How long access goes on after a failed renewal.
    pub grace: Duration,
    /// How far back every run looks.
    pub lookback: Duration,
}

/// Whether a confirmed sign-up grants before its payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trials {
    /// It does, until its own end.
    #[default]
    Grant,
    /// It does not.
    Ignore,
}

/// What becomes of purchases for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Comps {
    /// Those that somebody entered by hand or that a coupon paid for grant, those of the gateway `free` do
    /// not.
    #[default]
    Auto,
    /// All grant.
    Grant,
    /// None grants.
    Ignore,
    /// A person decides.
    Review,
}

/// What becomes of access that was paid back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RefundAction {
    /// It is reckoned as if the purchase had never been.
    #[default]
    Revoke,
    /// A person decides.
    Review,
    /// What was used stays, the rest is taken back.
    Shorten,
}

/// Who says how long a purchase lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DurationSource {
    /// The shop, or the product where the shop says nothing.
    #[default]
    Auto,
    /// The product, always.
    Plan,
    /// The shop, always.
    Source,
}

/// What a run may do at most before a person has looked at it (C3, "Safety").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Reversals of one script in one run.
    pub max_revocations: u32,
    /// Grants and extensions in one run.
    pub max_grants_per_run: u32,
    /// How many active users TradingView lets a vendor have without a fee; warnings come before.
    pub active_users_warning: u32,
}

/// Stand-ins for the outside services, on the local stack: what is used where the configuration leaves an
/// address empty.
#[derive(Debug, Clone)]
pub struct StandIns {
    /// The WordPress sandbox.
    pub shop: BaseUrl,
    /// The access API sandbox.
    pub access_api: BaseUrl,
    /// The key that it accepts.
    pub access_api_key: SecretString,
    /// The mail server's host and port.
    pub mail: (String, u16),
}

impl Configuration {
    /// Reads a configuration from the text of its JSON document. Without `stand_ins` the outside services'
    /// addresses have to be there, but for the mail server's.
    ///
    /// # Errors
    /// [`Faults`] names all that is wrong, each by its path.
    pub fn parse(text: &str, stand_ins: Option<&StandIns>) -> Result<Self, Faults> {
        let document: Value = serde_json::from_str(text).map_err(|error| {
            let detail = format!("is not JSON (line {}, column {})", error.line(), error.column());
            Faults(vec![Fault {
                path: String::new(),
                detail,
            }])
        })?;
        let findings = Findings::default();
        if !document.is_object() {
            findings.fault("", "must be an object");
            return Err(Faults(findings.into_parts().0));
        }
        let mut warnings = Vec::new();
        let read = read(&Section::root(&document, &findings), stand_ins, &mut warnings);
        let (faults, unknown) = findings.into_parts();
        let Some(mut configuration) = read.filter(|_| faults.is_empty()) else {
            return Err(Faults(faults));
        };
        warnings.extend(
            unknown
                .into_iter()
                .map(|path| format!("{path} has no meaning here")),
        );
        configuration.warnings = warnings;
        Ok(configuration)
    }

    /// What a product opens; `None` where nothing is known of it.
    #[must_use]
    pub fn product(&self, id: &ProductId) -> Option<&Product> {
        self.products.get(id)
    }

    /// All scripts that products open, each once.
    #[must_use]
    pub fn scripts(&self) -> BTreeSet<&ScriptId> {
        self.products
            .values()
            .flat_map(|product| &product.scripts)
            .collect()
    }
}

/// `None` only where a fault was noted.
fn read(
    root: &Section<'_>,
    stand_ins: Option<&StandIns>,
    warnings: &mut Vec<String>,
) -> Option<Configuration> {
    let shop = shop(&root.section("wordpress"), stand_ins, warnings);
    let access_api = access_api(&root.section("tradingview"), stand_ins);
    let policies = policies(&root.section("policies"));
    let products = products(&root.section("products"), policies.duration_source);
    if products.is_empty() {
        warnings.push("products is empty, so nothing will be granted".to_owned());
    }
    let scheduler = root.section("scheduler");
    let interval =
        Duration::from_secs(60 * u64::from(scheduler.whole("interval_minutes", 1, 1_440).unwrap_or(15)));
    let scheduled_runs_are_dry = scheduler.flag("dry_run", false);
    scheduler.done();
    let mail = mail(&root.section("email"), stand_ins);
    let discord = discord(&root.section("discord"));
    let paths = paths(&root.section("paths"));
    let caps = caps(&root.section("caps"));
    let writes_enabled = root.flag("writes_enabled", true);
    root.done();
    Some(Configuration {
        shop: shop?,
        access_api: access_api?,
        products,
        interval,
        scheduled_runs_are_dry,
        mail,
        discord,
        paths,
        policies,
        caps,
        writes_enabled,
        warnings: Vec::new(),
    })
}

fn shop(section: &Section<'_>, stand_ins: Option<&StandIns>, warnings: &mut Vec<String>) -> Option<Shop> {
    let base_url = base_url(section, stand_ins.map(|stand_ins| &stand_ins.shop));
    let kind = section.choice(
        "kind",
        &[("site", ShopKind::Site), ("memberpress", ShopKind::MemberPress)],
    );
    let default_endpoint = match kind {
        ShopKind::Site => "/wp-json/memberpress/v1/all-user-transactions",
        ShopKind::MemberPress => "/wp-json/mp/v1/transactions",
    };
    let key_header = header(section, "api_key_header").unwrap_or_else(|| MEMBERPRESS_KEY_HEADER.to_owned());
    let credentials = ShopCredentials {
        key: section.secret("api_key").map(|key| (key_header, key)),
        basic: pair(section, "basic_auth_user", "basic_auth_password"),
        token: pair(section, "api_token_param", "api_token"),
    };
    if credentials.key.is_none() && credentials.basic.is_none() && credentials.token.is_none() {
        warnings.push("wordpress has no api_key, no basic_auth_user and no api_token".to_owned());
    }
    let timezone = section.parsed(
        "source_timezone",
        "must be a time zone such as UTC or Europe/Berlin",
        timezone,
    );
    let fields = section.list(
        "username_fields",
        "must be a member's path such as user_meta.name",
        |path| {
            let named = path.split('.').all(|name| !name.trim().is_empty());
            named.then(|| path.to_owned())
        },
    );
    let username_fields = match fields {
        Some(fields) if fields.is_empty() => {
            section.fault("username_fields", "must name at least one member");
            fields
        }
        Some(fields) => fields,
        None => ["user_meta.tradingview_username", "user.username", "user_login"]
            .map(str::to_owned)
            .to_vec(),
    };
    let shop = Shop {
        transactions_endpoint: path(section, "transactions_endpoint", default_endpoint, None),
        kind,
        since_param: section.text("since_param").unwrap_or_else(|| "since".to_owned()),
        credentials,
        webhook_key: section.secret("webhook_key"),
        grants_on: status_filter(section),
        transactions_limit: section
            .whole("transactions_limit", 0, u32::MAX)
            .filter(|limit| *limit > 0),
        timeout: seconds(section, "timeout", 30),
        timezone: timezone.unwrap_or(TimeZone::UTC),
        username_fields,
        // What may be missing comes last, so that all the rest has been looked at by then.
        base_url: base_url?,
    };
    section.done();
    Some(shop)
}

fn access_api(section: &Section<'_>, stand_ins: Option<&StandIns>) -> Option<AccessApi> {
    // A stand-in's key goes with its address only, so that a forgotten key for the real one is noticed.
    let stands_in = stand_ins.filter(|_| !section.has("base_url"));
    let base_url = base_url(section, stand_ins.map(|stand_ins| &stand_ins.access_api));
    let key = section
        .secret("api_key")
        .or_else(|| stands_in.map(|stand_ins| stand_ins.access_api_key.clone()));
    if key.is_none() {
        section.fault("api_key", "is missing");
    }
    let api = AccessApi {
        kind: section.choice(
            "kind",
            &[
                ("access_api", AccessApiKind::AccessApi),
                ("trendoscope", AccessApiKind::Trendoscope),
            ],
        ),
        grant_endpoint: path(section, "grant_endpoint", "/tradingview/access/grant", None),
        update_endpoint: path(section, "update_endpoint", "/tradingview/access/update", None),
        remove_endpoint: path(section, "remove_endpoint", "/tradingview/access/remove", None),
        list_endpoint: path(
            section,
            "list_endpoint",
            "/tradingview/access/scriptUsers/{scriptId}",
            Some("{scriptId}"),
        ),
        validate_endpoint: path(
            section,
            "validate_endpoint",
            "/tradingview/validate/{username}",
            Some("{username}"),
        ),
        key_header: header(section, "api_key_header").unwrap_or_else(|| "x-api-key".to_owned()),
        timeout: seconds(section, "timeout", 30),
        max_retries: section.whole("max_retries", 0, 10).unwrap_or(3),
        retry_backoff: retry_backoff(section),
        grants_per_second: rate(section, "grants_per_second", 4.0),
        validations_per_second: rate(section, "validations_per_second", 10.0),
        expiry_format: section.choice(
            "expiry_format",
            &[("date", ExpiryFormat::Date), ("datetime", ExpiryFormat::DateTime)],
        ),
        date_meaning: section.choice(
            "date_meaning",
            &[
                ("end_of_day", DateMeaning::EndOfDay),
                ("start_of_day", DateMeaning::StartOfDay),
            ],
        ),
        base_url: base_url?,
        key: key?,
    };
    section.done();
    Some(api)
}

fn products(section: &Section<'_>, duration_source: DurationSource) -> BTreeMap<ProductId, Product> {
    let mut products = BTreeMap::new();
    for (id, member) in section.sections() {
        let product = product(&member, duration_source);
        member.done();
        let id = id.trim();
        if id.is_empty() {
            member.fault_here("must have a product's id as its name");
        } else {
            products.insert(ProductId::new(id), product);
        }
    }
    products
}

fn product(section: &Section<'_>, duration_source: DurationSource) -> Product {
    let mut scripts: Vec<ScriptId> = Vec::new();
    let more = section.list("script_ids", "must be a script's id", |id| {
        (!id.is_empty()).then(|| ScriptId::new(id))
    });
    for script in section
        .text("script_id")
        .map(ScriptId::new)
        .into_iter()
        .chain(more.into_iter().flatten())
    {
        if !scripts.contains(&script) {
            scripts.push(script);
        }
    }
    if scripts.is_empty() {
        section.fault("script_id", "is missing");
    }
    let days = section.parsed(
        "duration_days",
        "must be a whole number from 1 to 36500",
        |text| PlanDuration::days(text.parse().ok()?),
    );
    let duration = section.parsed(
        "duration",
        "must be a number and D, W, M or Y, such as 1M, or L",
        PlanDuration::parse,
    );
    let lifetime = section.flag("lifetime", false) || duration == Some(PlanDuration::Lifetime);
    let duration = duration.or(days).or(lifetime.then_some(PlanDuration::Lifetime));
    let stated = section.has("duration") || section.has("duration_days");
    if duration.is_none() && !stated && duration_source != DurationSource::Source {
        section.fault("duration_days", "is missing (or give duration)");
    }
    Product {
        scripts,
        duration,
        subscription_type: section.text("subscription_type").unwrap_or_default(),
        stacking_allowed: section.flag("stacking_allowed", true),
        lifetime,
    }
}

fn mail(section: &Section<'_>, stand_ins: Option<&StandIns>) -> Option<Mail> {
    let given = section.text("smtp_server");
    let stands_in = stand_ins
        .filter(|_| given.is_none())
        .map(|stand_ins| &stand_ins.mail);
    let port = section
        .whole("smtp_port", 1, u32::from(u16::MAX))
        .and_then(|port| u16::try_from(port).ok());
    let tls = section.choice(
        "tls",
        &[
            ("starttls", MailTls::StartTls),
            ("tls", MailTls::Tls),
            ("none", MailTls::None),
        ],
    );
    let credentials = pair(section, "smtp_user", "smtp_password");
    let from = section.parsed("from_email", ADDRESS_RULE, address);
    let bcc = addresses(section, "bcc");
    let operator = section.parsed("operator_email", ADDRESS_RULE, address);
    section.done();
    if let Some((server, port)) = stands_in.cloned() {
        return Some(Mail {
            server,
            port,
            tls: MailTls::None,
            credentials: None,
            from: from.unwrap_or_else(|| "berth@localhost".to_owned()),
            bcc,
            operator,
        });
    }
    let server = given?;
    if tls == MailTls::None && !is_loopback(&server) {
        section.fault("tls", "may be none for a server on this machine only");
    }
    if from.is_none() && !section.has("from_email") {
        section.fault("from_email", "is missing");
    }
    Some(Mail {
        server,
        port: port.unwrap_or(587),
        tls,
        credentials,
        from: from?,
        bcc,
        operator,
    })
}

fn discord(section: &Section<'_>) -> Option<Discord> {
    let enabled = section.flag("enabled", true);
    let author = section.text("author");
    let url = section.parsed("webhook_url", "must be a URL that begins with https://", |url| {
        BaseUrl::parse(url).is_ok().then(|| SecretString::from(url))
    });
    section.done();
    Some(Discord {
        webhook_url: url.filter(|_| enabled)?,
        author,
    })
}

fn paths(section: &Section<'_>) -> Paths {
    let master_data = section.text("master_data");
    let paths = Paths {
        keeps_master_data: master_data.is_some(),
        master_data: master_data.unwrap_or_else(|| "masterData".to_owned()),
        logs: section.text("logs").unwrap_or_else(|| "logs".to_owned()),
    };
    section.done();
    paths
}

fn policies(section: &Section<'_>) -> Policies {
    let days = |key, default| {
        let days = section.whole(key, 0, 365).unwrap_or(default);
        Duration::from_secs(u64::from(days) * 86_400)
    };
    let policies = Policies {
        trials: section.choice("trials", &[("grant", Trials::Grant), ("ignore", Trials::Ignore)]),
        comps: section.choice(
            "comps",
            &[
                ("auto", Comps::Auto),
                ("grant", Comps::Grant),
                ("ignore", Comps::Ignore),
                ("review", Comps::Review),
            ],
        ),
        sub_accounts: section.flag("sub_accounts", false),
        refund_action: section.choice(
            "refund_action",
            &[
                ("revoke", RefundAction::Revoke),
                ("review", RefundAction::Review),
                ("shorten", RefundAction::Shorten),
            ],
        ),
        duration_source: section.choice(
            "duration_source",
            &[
                ("auto", DurationSource::Auto),
                ("plan", DurationSource::Plan),
                ("source", DurationSource::Source),
            ],
        ),
        hold_credit_max: days("hold_credit_max_days", 7),
        grace: days("grace_days", 0),
        lookback: days("lookback_days", 7),
    };
    section.done();
    policies
}

fn caps(section: &Section<'_>) -> Caps {
    let cap = |key, default| section.whole(key, 0, u32::MAX).unwrap_or(default);
    let caps = Caps {
        max_revocations: cap("max_revocations", 10),
        max_grants_per_run: cap("max_grants_per_run", 200),
        active_users_warning: cap("active_users_warning", 100),
    };
    section.done();
    caps
}

/// The address of a service, or its stand-in's where it is empty.
fn base_url(section: &Section<'_>, stand_in: Option<&BaseUrl>) -> Option<BaseUrl> {
    let Some(text) = section.text("base_url") else {
        if stand_in.is_none() {
            section.fault("base_url", "is missing");
        }
        return stand_in.cloned();
    };
    match BaseUrl::parse(&text) {
        Ok(url) => Some(url),
        Err(rule) => {
            section.fault("base_url", rule);
            None
        }
    }
}

/// A path below the base URL, with a slash before it, that holds `placeholder`.
fn path(section: &Section<'_>, key: &str, default: &str, placeholder: Option<&str>) -> String {
    let Some(text) = section.text(key) else {
        return default.to_owned();
    };
    if text.contains("://") || text.contains(char::is_whitespace) || text.contains(['?', '#']) {
        section.fault(key, "must be a path such as /tradingview/access/grant");
    }
    if let Some(placeholder) = placeholder
        && !text.contains(placeholder)
    {
        section.fault(key, format!("must hold {placeholder}"));
    }
    if text.starts_with('/') {
        text
    } else {
        format!("/{text}")
    }
}

/// The name of an HTTP header.
fn header(section: &Section<'_>, key: &str) -> Option<String> {
    section.parsed(key, "must be the name of an HTTP header", |name| {
        http::HeaderName::from_bytes(name.as_bytes())
            .ok()
            .map(|_| name.to_owned())
    })
}

/// A name and the secret that goes with it: both or neither.
fn pair(section: &Section<'_>, name: &str, secret: &str) -> Option<(String, SecretString)> {
    match (section.text(name), section.secret(secret)) {
        (Some(name), Some(secret)) => Some((name, secret)),
        (Some(_), None) => {
            section.fault(secret, format!("is missing, but {name} is there"));
            None
        }
        (None, Some(_)) => {
            section.fault(name, format!("is missing, but {secret} is there"));
            None
        }
        (None, None) => None,
    }
}

fn status_filter(section: &Section<'_>) -> StatusFilter {
    let statuses = section.list(
        "status_filter",
        "must be complete or confirmed",
        |status| match status.to_ascii_lowercase().as_str() {
            "complete" => Some(false),
            "confirmed" => Some(true),
            _ => None,
        },
    );
    let Some(statuses) = statuses else {
        return StatusFilter { confirmed: true };
    };
    if !statuses.contains(&false) {
        section.fault("status_filter", "must hold complete");
    }
    StatusFilter {
        confirmed: statuses.contains(&true),
    }
}

fn timezone(text: &str) -> Option<TimeZone> {
    jiff::fmt::temporal::DateTimeParser::new()
        .parse_time_zone(text)
        .ok()
}

fn seconds(section: &Section<'_>, key: &str, default: u32) -> Duration {
    Duration::from_secs(u64::from(section.whole(key, 1, 600).unwrap_or(default)))
}

fn rate(section: &Section<'_>, key: &str, default: f64) -> Option<f64> {
    Some(section.number(key).unwrap_or(default)).filter(|rate| *rate > 0.0)
}

fn retry_backoff(section: &Section<'_>) -> Vec<Duration> {
    let rule = "must be a number of seconds, 0 to 3600";
    let given = section.list("retry_backoff_seconds", rule, |text| {
        let seconds = not_negative(text).filter(|seconds| *seconds <= 3_600.0)?;
        Duration::try_from_secs_f64(seconds).ok()
    });
    match given {
        Some(given) if given.is_empty() => {
            section.fault("retry_backoff_seconds", "must hold at least one number");
            given
        }
        Some(given) => given,
        None => [5, 15, 60].map(Duration::from_secs).to_vec(),
    }
}

/// What an address of mail has to be.
const ADDRESS_RULE: &str = "must be an address such as shop@example.com";

/// Enough of a check to catch what an operator mistypes; the mail server has the last word.
fn address(text: &str) -> Option<String> {
    let (user, host) = text.split_once('@')?;
    let plain = !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',');
    (plain && !user.is_empty() && !host.is_empty() && !host.contains('@')).then(|| text.to_owned())
}

/// Addresses, as a list or as one text with commas.
fn addresses(section: &Section<'_>, key: &str) -> Vec<String> {
    section
        .list_or_text(key, ADDRESS_RULE, address)
        .unwrap_or_default()
}
