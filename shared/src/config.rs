//! The settings, read once at the start, typed, with every fault named at once.

use std::fmt;
use std::net::IpAddr;

use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

use crate::ids::UserId;
pub use crate::telemetry::logs::LogLevel;

/// Where SnapTrade is when nothing else is said. Source: SnapTrade's OpenAPI document, `servers`.
const SNAPTRADE_BASE_URL: &str = "https://api.snaptrade.com";

/// The scope that makes a caller an operator when no other is set.
const OPERATOR_SCOPE: &str = "berth/operator";

/// The table's name on a developer's machine when none is set.
const LOCAL_TABLE_NAME: &str = "berth";

/// The client id that only the sandbox of this project accepts.
const SANDBOX_CLIENT_ID: &str = "SANDBOX-CLIENT";

/// All settings of a process.
#[derive(Debug, Clone)]
pub struct Config {
    /// `SNAPTRADE_ENVIRONMENT`: which world this process works in.
    pub environment: Environment,
    /// `SNAPTRADE_BASE_URL`: where SnapTrade's API is.
    pub snaptrade_base_url: BaseUrl,
    /// `SNAPTRADE_SECRET_ID`: the secret that holds SnapTrade's client id and consumer key.
    pub snaptrade_secret_id: Option<String>,
    /// `SNAPTRADE_CLIENT_ID` and `SNAPTRADE_CONSUMER_KEY`, on a developer's machine.
    pub snaptrade_credentials: Option<GivenCredentials>,
    /// `MAX_CONNECTIONS`: how many users or connections there may be at SnapTrade, at least 1.
    pub limit: u32,
    /// `LIMIT_COUNTS`: what the limit counts.
    pub counts: Counts,
    /// `EVICTION_POLICY`: who gives way when the limit is reached.
    pub policy: Policy,
    /// `ALLOWED_ORIGINS` and the origin of `FRONTEND_URL`: whose pages may call, and where redirects may go.
    pub allowed_origins: Vec<OriginPattern>,
    /// `FRONTEND_URL`: where the front end is, without a slash at its end.
    pub frontend_url: Option<BaseUrl>,
    /// `RATE_PLAN`: how many SnapTrade calls may be made for one user.
    pub rate_plan: RatePlan,
    /// `INBOUND_LIMIT`: how many requests one caller may make in a minute; `None` is no limit.
    pub inbound_limit: Option<u32>,
    /// `MAINTENANCE`: whether requests are turned away for now, because somebody works on what is stored.
    pub maintenance: bool,
    /// `ACCESS_SECRET_ID`: the secret that holds the access sync's configuration.
    pub access_secret_id: Option<String>,
    /// `ACCESS_CONFIG_FILE`: the file that holds it, on a developer's machine.
    pub access_config_file: Option<String>,
    /// `DATA_KEY_SECRET_ID`: the secret that holds the keys that users' secrets are encrypted with.
    pub data_key_secret_id: Option<String>,
    /// `TABLE_NAME`: the table.
    pub table_name: String,
    /// `FF_SNAPTRADE_INVESTMENT_SYNC` and `FF_SNAPTRADE_TRADE_EXECUTION`.
    pub flags: Flags,
    /// `CONSENT_VERSION`: the version of the disclosures that a user consents to now, 1 to 32 characters.
    pub consent_version: String,
    /// `OPERATOR_SCOPE`: the scope that makes a caller an operator.
    pub operator_scope: String,
    /// `LOG_LEVEL`, or where it is not set `AWS_LAMBDA_LOG_LEVEL`. Both can be changed without a deploy.
    pub log_level: LogLevel,
    /// `METRICS_ENVIRONMENT`: the dimension `Environment` of all metrics, 1 to 250 characters; where it is not set the
    /// name of the environment. Two stacks of one account need two.
    pub metrics_environment: String,
    /// `AWS_REGION`.
    pub region: Option<String>,
    /// `AWS_ENDPOINT_URL_DYNAMODB`: where the table is when not in AWS.
    pub dynamodb_endpoint: Option<BaseUrl>,
    /// `AWS_ENDPOINT_URL_SECRETS_MANAGER`: where the secrets are when not in AWS.
    pub secrets_manager_endpoint: Option<BaseUrl>,
}

/// Which world a process works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Environment {
    /// Test credentials and test users.
    #[default]
    Sandbox,
    /// Real users and real money: consent is needed, and sandbox settings are refused.
    Production,
}

impl Environment {
    /// The name that the setting has for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Production => "production",
        }
    }
}

/// What counts against the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counts {
    /// Users registered at SnapTrade.
    #[default]
    Users,
    /// Brokerage connections, which is what SnapTrade's plans count.
    Connections,
}

impl Counts {
    /// The name that the setting and the API have for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Connections => "connections",
        }
    }
}

/// Who gives way when the limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// The user that has been registered longest.
    #[default]
    Oldest,
    /// The user that has been inactive longest.
    LeastRecentlyActive,
    /// A user whose connections are broken, else the oldest.
    BrokenFirst,
    /// Nobody: the newcomer is refused.
    None,
}

impl Policy {
    /// The name that the setting has for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oldest => "oldest",
            Self::LeastRecentlyActive => "least-recently-active",
            Self::BrokenFirst => "broken-first",
            Self::None => "none",
        }
    }
}

/// How many SnapTrade calls may be made for one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RatePlan {
    /// Calls in a minute.
    pub per_minute: u32,
    /// Calls in an hour.
    pub per_hour: u32,
    /// Calls in a day.
    pub per_day: u32,
}

impl RatePlan {
    /// The plan `starter`.
    pub const STARTER: Self = Self {
        per_minute: 60,
        per_hour: 1_000,
        per_day: 10_000,
    };

    /// The plan `starter` where `SNAPTRADE_ENVIRONMENT` is `sandbox`.
    pub const SANDBOX: Self = Self {
        per_minute: 100,
        ..Self::STARTER
    };

    /// The plan `growth`.
    pub const GROWTH: Self = Self {
        per_minute: 120,
        per_hour: 5_000,
        per_day: 50_000,
    };

    /// The plan of this name, or the one that a text such as `60/m,1000/h,10000/d` describes. Each of the three
    /// bounds has to be there once, in any order, and be at least 1.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "starter" => return Some(Self::STARTER),
            "growth" => return Some(Self::GROWTH),
            _ => {}
        }
        let (mut minute, mut hour, mut day) = (None, None, None);
        for part in text.split(',') {
            let (number, unit) = part.trim().split_once('/')?;
            let bound = match unit {
                "m" => &mut minute,
                "h" => &mut hour,
                "d" => &mut day,
                _ => return None,
            };
            let number = number.parse().ok().filter(|number| *number > 0)?;
            if bound.replace(number).is_some() {
                return None;
            }
        }
        Some(Self {
            per_minute: minute?,
            per_hour: hour?,
            per_day: day?,
        })
    }
}

/// The flags' defaults, before an operator sets them otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    /// Whether users' holdings are fetched and shown.
    pub investment_sync: FlagValue,
    /// Whether users may trade.
    pub trade_execution: FlagValue,
}

/// For whom a flag is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlagValue {
    /// For everybody.
    On,
    /// For nobody.
    Off,
    /// For this many of a hundred users, 0 to 100.
    Percent(u8),
    /// For these users only.
    Users(Vec<String>),
}

impl FlagValue {
    /// The value that a text such as `on`, `off`, `true`, `false`, `25%` or `users:ada,grace` stands for.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "on" | "true" | "1" => return Some(Self::On),
            "off" | "false" | "0" => return Some(Self::Off),
            _ => {}
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse().ok().filter(|percent| *percent <= 100)?;
            return Some(Self::Percent(percent));
        }
        let users: Vec<String> = text
            .strip_prefix("users:")?
            .split(',')
            .map(|user| user.trim().to_owned())
            .filter(|user| !user.is_empty())
            .collect();
        (!users.is_empty()).then_some(Self::Users(users))
    }

    /// Whether the flag is on for `user`. Of a percentage the same users are always part, and a higher one has all of
    /// those that a lower one has.
    #[must_use]
    pub fn is_on_for(&self, user: &UserId) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
            Self::Users(users) => users.iter().any(|name| name == user.as_str()),
            Self::Percent(percent) => {
                let digest = Sha256::digest(user.as_str().as_bytes());
                let number = digest
                    .iter()
                    .take(4)
                    .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
                number % 100 < u64::from(*percent)
            }
        }
    }
}

/// SnapTrade credentials from the environment.
#[derive(Clone)]
pub struct GivenCredentials {
    /// The client id, which is no secret.
    pub client_id: String,
    /// The key that requests are signed with.
    pub consumer_key: SecretString,
}

impl fmt::Debug for GivenCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenCredentials([redacted])")
    }
}

/// The beginning of all URLs of a service: scheme, host, port and perhaps a path, without a slash at its end. Plain
/// HTTP is accepted for the own machine only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    text: String,
    origin_ends: usize,
    host: String,
}

impl BaseUrl {
    /// Takes `text` as a base URL.
    ///
    /// # Errors
    /// A sentence part that says what the text has to be, to stand behind the variable's name.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = reqwest::Url::parse(text).map_err(|_| "must be a URL such as https://api.example.com")?;
        let host = url.host_str().unwrap_or_default().to_owned();
        if host.is_empty() || !url.username().is_empty() || url.password().is_some() {
            return Err("must be a URL with a host and without a user name");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must not have a query or a fragment");
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&host) => {}
            _ => return Err("must begin with https:// (http:// is accepted for this machine only)"),
        }
        let origin = url.origin().ascii_serialization();
        let path = url.path().trim_end_matches('/');
        Ok(Self {
            text: format!("{origin}{path}"),
            origin_ends: origin.len(),
            host,
        })
    }

    /// The URL, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Scheme, host and port, the port only where it is not the scheme's own.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.text.get(..self.origin_ends).unwrap_or(&self.text)
    }

    /// The path, without a slash at its end; mostly empty.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(self.origin_ends..).unwrap_or_default()
    }

    /// Whether the service is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether `host`, a name or an address, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Origins of pages that may call: one origin, or with `*` in place of a label of the host all that differ in that
/// label only. `https://*.vercel.app` is `https://shop.vercel.app` but not `https://a.b.vercel.app`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginPattern {
    scheme: String,
    labels: Vec<String>,
    port: Option<u16>,
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.labels.join("."))?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl OriginPattern {
    /// Takes `text` as a pattern: scheme `http` or `https`, a host in which whole labels may be `*`, and perhaps a
    /// port; no path. The host's last two labels have to be named, so that a pattern cannot cover everybody.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let pattern = Self::split(text)?;
        let named = pattern.labels.iter().rev().take(2).all(|label| label != "*");
        let well_formed = pattern.labels.iter().all(|label| label == "*" || is_label(label));
        let wild = pattern.labels.iter().any(|label| label == "*");
        (well_formed && (!wild || (named && pattern.labels.len() > 2))).then_some(pattern)
    }

    /// Whether `origin`, as a browser sends it in the header `Origin`, is covered.
    #[must_use]
    pub fn matches(&self, origin: &str) -> bool {
        let Some(given) = Self::split(origin) else {
            return false;
        };
        self.scheme == given.scheme
            && self.port == given.port
            && self.labels.len() == given.labels.len()
            && self
                .labels
                .iter()
                .zip(&given.labels)
                .all(|(own, given)| is_label(given) && (own == given || own == "*"))
    }

    fn split(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let own_port = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let (host, port) = match rest.rsplit_once(':') {
            // An address in brackets may end in a colon's right side itself, as in `[::1]`.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse::<u16>().ok()?)),
            _ => (rest, None),
        };
        if host.starts_with('[') {
            return Some(Self {
                scheme,
                labels: vec![host.to_ascii_lowercase()],
                port: port.filter(|port| *port != own_port),
            });
        }
        Some(Self {
            scheme,
            labels: host.to_ascii_lowercase().split('.').map(str::to_owned).collect(),
            port: port.filter(|port| *port != own_port),
        })
    }
}

/// Whether `label` can be one label of a host's name, or is an IPv6 address in brackets.
fn is_label(label: &str) -> bool {
    let address = label
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
    let plain = (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && !label.starts_with('-')
        && !label.ends_with('-');
    address || plain
}

/// What is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The environment variable.
    pub variable: &'static str,
    /// What is wrong and what it has to be, to stand behind the variable's name. It never holds the value of a
    /// secret.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.variable, self.detail)
    }
}

/// All that is wrong with the settings; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Fault>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("The settings are not right: ")?;
        for (i, fault) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{fault}")?;
        }
        f.write_str(".")
    }
}

impl std::error::Error for ConfigErrors {}

impl Config {
    /// The settings from `lookup`, which gives a variable's value: in a process the environment's, on a developer's
    /// machine also those of `.env` or of the command line. An empty value is as good as none.
    ///
    /// # Errors
    /// [`ConfigErrors`] names every variable that is not right.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(lookup);
        let config = reader.config();
        reader.finish(config)
    }

    /// The settings of a function in AWS: as [`Config::read`], but `AWS_REGION`, `TABLE_NAME` and the variables in
    /// `required` have to be there, and nothing of the sandbox may stand among production's settings or the other way
    /// round. SnapTrade's credentials may stand in the environment in place of `SNAPTRADE_SECRET_ID`.
    ///
    /// # Errors
    /// [`ConfigErrors`] names every variable that is missing or not right.
    pub fn read_deployed(
        lookup: &dyn Fn(&str) -> Option<String>,
        required: &[&'static str],
    ) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(lookup);
        let config = reader.config();
        reader.require("AWS_REGION");
        reader.require("TABLE_NAME");
        for variable in required {
            if *variable != "SNAPTRADE_SECRET_ID" || config.snaptrade_credentials.is_none() {
                reader.require(variable);
            }
        }
        reader.keep_worlds_apart(&config);
        reader.finish(config)
    }

    /// How many SnapTrade calls may be made for one user. In the sandbox's world the smallest plan is a little larger.
    #[must_use]
    pub fn plan(&self) -> RatePlan {
        match (self.environment, self.rate_plan) {
            (Environment::Sandbox, RatePlan::STARTER) => RatePlan::SANDBOX,
            (_, plan) => plan,
        }
    }

    /// Whether `client_id` fits the environment: the sandbox's own is of no use in production.
    #[must_use]
    pub fn accepts_client_id(&self, client_id: &str) -> bool {
        self.environment != Environment::Production || client_id != SANDBOX_CLIENT_ID
    }

    /// Whether a page of `origin` may call, and be redirected to.
    #[must_use]
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.allowed_origins.iter().any(|pattern| pattern.matches(origin))
    }
}

/// Reads variables and collects what is wrong with them.
struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            faults: Vec::new(),
        }
    }

    fn config(&mut self) -> Config {
        let environment =
            self.parsed(
                "SNAPTRADE_ENVIRONMENT",
                "must be sandbox or production",
                |text| match text {
                    "sandbox" => Some(Environment::Sandbox),
                    "production" => Some(Environment::Production),
                    _ => None,
                },
            );
        let counts = self.parsed("LIMIT_COUNTS", "must be users or connections", |text| {
            [Counts::Users, Counts::Connections]
                .into_iter()
                .find(|counts| counts.as_str() == text)
        });
        let policy = self.parsed(
            "EVICTION_POLICY",
            "must be oldest, least-recently-active, broken-first or none",
            |text| {
                [
                    Policy::Oldest,
                    Policy::LeastRecentlyActive,
                    Policy::BrokenFirst,
                    Policy::None,
                ]
                .into_iter()
                .find(|policy| policy.as_str() == text)
            },
        );
        let frontend_url = self.base_url("FRONTEND_URL");
        let inbound_limit = self
            .parsed(
                "INBOUND_LIMIT",
                "must be a number of requests in a minute, or off",
                |text| match text {
                    "off" => Some(0),
                    number => number.parse().ok(),
                },
            )
            .filter(|limit: &u32| *limit > 0);
        // Lambda sets a level of its own for functions that log JSON, so the one set for Berth goes first.
        let log_level_variable = if self.text("LOG_LEVEL").is_some() {
            "LOG_LEVEL"
        } else {
            "AWS_LAMBDA_LOG_LEVEL"
        };
        Config {
            environment: environment.unwrap_or_default(),
            snaptrade_base_url: self.snaptrade_base_url(),
            snaptrade_secret_id: self.text("SNAPTRADE_SECRET_ID"),
            snaptrade_credentials: self.credentials(),
            limit: self
                .parsed(
                    "MAX_CONNECTIONS",
                    "must be a whole number from 1 to 100000",
                    |text| text.parse().ok().filter(|limit| (1..=100_000).contains(limit)),
                )
                .unwrap_or(5),
            counts: counts.unwrap_or_default(),
            policy: policy.unwrap_or_default(),
            allowed_origins: self.origins(frontend_url.as_ref()),
            frontend_url,
            rate_plan: self
                .parsed(
                    "RATE_PLAN",
                    "must be starter, growth or three bounds such as 60/m,1000/h,10000/d",
                    RatePlan::parse,
                )
                .unwrap_or(RatePlan::STARTER),
            inbound_limit,
            maintenance: self
                .parsed("MAINTENANCE", "must be on or off", |text| match text {
                    "on" => Some(true),
                    "off" => Some(false),
                    _ => None,
                })
                .unwrap_or_default(),
            access_secret_id: self.text("ACCESS_SECRET_ID"),
            access_config_file: self.text("ACCESS_CONFIG_FILE"),
            data_key_secret_id: self.text("DATA_KEY_SECRET_ID"),
            table_name: self
                .parsed(
                    "TABLE_NAME",
                    "must be 3 to 255 letters, digits, dots, dashes or underscores",
                    |text| is_table_name(text).then(|| text.to_owned()),
                )
                .unwrap_or_else(|| LOCAL_TABLE_NAME.to_owned()),
            flags: Flags {
                investment_sync: self.flag("FF_SNAPTRADE_INVESTMENT_SYNC"),
                trade_execution: self.flag("FF_SNAPTRADE_TRADE_EXECUTION"),
            },
            consent_version: self
                .parsed("CONSENT_VERSION", "must be 1 to 32 characters long", |text| {
                    (1..=32).contains(&text.chars().count()).then(|| text.to_owned())
                })
                .unwrap_or_else(|| "1".to_owned()),
            operator_scope: self
                .parsed("OPERATOR_SCOPE", "must be one scope without spaces", |text| {
                    (!text.contains(char::is_whitespace)).then(|| text.to_owned())
                })
                .unwrap_or_else(|| OPERATOR_SCOPE.to_owned()),
            log_level: self
                .parsed(
                    log_level_variable,
                    "must be error, warn, info, debug or trace",
                    LogLevel::parse,
                )
                .unwrap_or_default(),
            metrics_environment: self
                .parsed(
                    "METRICS_ENVIRONMENT",
                    "must be 1 to 250 printable ASCII characters",
                    |text| is_dimension(text).then(|| text.to_owned()),
                )
                .unwrap_or_else(|| environment.unwrap_or_default().as_str().to_owned()),
            region: self.text("AWS_REGION"),
            dynamodb_endpoint: self.base_url("AWS_ENDPOINT_URL_DYNAMODB"),
            secrets_manager_endpoint: self.base_url("AWS_ENDPOINT_URL_SECRETS_MANAGER"),
        }
    }

    fn snaptrade_base_url(&mut self) -> BaseUrl {
        match self.base_url("SNAPTRADE_BASE_URL") {
            Some(url) => url,
            None => BaseUrl {
                text: SNAPTRADE_BASE_URL.to_owned(),
                origin_ends: SNAPTRADE_BASE_URL.len(),
                host: SNAPTRADE_BASE_URL.trim_start_matches("https://").to_owned(),
            },
        }
    }

    fn credentials(&mut self) -> Option<GivenCredentials> {
        match (
            self.text("SNAPTRADE_CLIENT_ID"),
            self.text("SNAPTRADE_CONSUMER_KEY"),
        ) {
            (Some(client_id), Some(consumer_key)) => Some(GivenCredentials {
                client_id,
                consumer_key: consumer_key.into(),
            }),
            (Some(_), None) => {
                self.fault("SNAPTRADE_CONSUMER_KEY", "is missing beside SNAPTRADE_CLIENT_ID");
                None
            }
            (None, Some(_)) => {
                self.fault("SNAPTRADE_CLIENT_ID", "is missing beside SNAPTRADE_CONSUMER_KEY");
                None
            }
            (None, None) => None,
        }
    }

    fn origins(&mut self, frontend_url: Option<&BaseUrl>) -> Vec<OriginPattern> {
        let mut patterns = Vec::new();
        let listed = self.text("ALLOWED_ORIGINS").unwrap_or_default();
        for text in listed.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            // A slash at the end is a common slip that leaves no doubt about what is meant.
            match OriginPattern::parse(text.trim_end_matches('/')) {
                Some(pattern) => patterns.push(pattern),
                None => self.fault(
                    "ALLOWED_ORIGINS",
                    format!(
                        "must list origins such as https://app.example.com or https://*.example.com, which {text} is not"
                    ),
                ),
            }
        }
        patterns.extend(frontend_url.and_then(|url| OriginPattern::parse(url.origin())));
        patterns
    }

    fn flag(&mut self, variable: &'static str) -> FlagValue {
        self.parsed(
            variable,
            "must be true, false, on, off, a percentage such as 25% or a list such as users:ada,grace",
            FlagValue::parse,
        )
        .unwrap_or(FlagValue::On)
    }

    fn keep_worlds_apart(&mut self, config: &Config) {
        let named = [
            ("SNAPTRADE_SECRET_ID", config.snaptrade_secret_id.as_deref()),
            ("DATA_KEY_SECRET_ID", config.data_key_secret_id.as_deref()),
            ("ACCESS_SECRET_ID", config.access_secret_id.as_deref()),
            ("TABLE_NAME", Some(config.table_name.as_str())),
            ("SNAPTRADE_BASE_URL", Some(config.snaptrade_base_url.as_str())),
        ];
        let (own, foreign): (&str, &[&str]) = match config.environment {
            Environment::Production => ("production", &["sandbox"]),
            Environment::Sandbox => ("sandbox", &["production", "prod"]),
        };
        for (variable, value) in named {
            let words = value
                .unwrap_or_default()
                .split(|c: char| !c.is_ascii_alphanumeric());
            if let Some(word) = words.into_iter().find(|word| foreign.contains(word)) {
                self.fault(
                    variable,
                    format!("belongs to {word}, but SNAPTRADE_ENVIRONMENT is {own}"),
                );
            }
        }
        if config.environment == Environment::Production {
            if config.snaptrade_base_url.is_loopback() {
                self.fault(
                    "SNAPTRADE_BASE_URL",
                    "is a sandbox on this machine, but SNAPTRADE_ENVIRONMENT is production",
                );
            }
            if config
                .snaptrade_credentials
                .as_ref()
                .is_some_and(|given| given.client_id == SANDBOX_CLIENT_ID)
            {
                self.fault(
                    "SNAPTRADE_CLIENT_ID",
                    "is the sandbox's, but SNAPTRADE_ENVIRONMENT is production",
                );
            }
        }
    }

    fn text(&self, variable: &str) -> Option<String> {
        let value = (self.lookup)(variable)?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn parsed<T>(
        &mut self,
        variable: &'static str,
        rule: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(variable)?;
        let value = parse(&text);
        if value.is_none() {
            self.fault(variable, rule);
        }
        value
    }

    fn base_url(&mut self, variable: &'static str) -> Option<BaseUrl> {
        let text = self.text(variable)?;
        match BaseUrl::parse(&text) {
            Ok(url) => Some(url),
            Err(rule) => {
                self.fault(variable, rule);
                None
            }
        }
    }

    fn require(&mut self, variable: &'static str) {
        if self.text(variable).is_none() {
            self.fault(variable, "is not set");
        }
    }

    fn fault(&mut self, variable: &'static str, detail: impl Into<String>) {
        self.faults.push(Fault {
            variable,
            detail: detail.into(),
        });
    }

    fn finish(self, config: Config) -> Result<Config, ConfigErrors> {
        if self.faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors(self.faults))
        }
    }
}

/// Whether DynamoDB takes `text` as a table's name. Source: the DynamoDB developer guide, "Naming rules".
fn is_table_name(text: &str) -> bool {
    (3..=255).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// Whether CloudWatch takes `text` as a dimension's value. Source: AWS, API reference of Amazon CloudWatch, `Dimension`.
fn is_dimension(text: &str) -> bool {
    (1..=250).contains(&text.len())
        && !text.starts_with(':')
        && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            variables
                .iter()
                .find(|(variable, _)| *variable == name)
                .map(|(_, value)| (*value).to_owned())
        }
    }

    fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        Config::read(&lookup(variables))
    }

    fn read_deployed(variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        Config::read_deployed(&lookup(variables), &["SNAPTRADE_SECRET_ID", "DATA_KEY_SECRET_ID"])
    }

    fn faults(variables: &[(&str, &str)]) -> Vec<&'static str> {
        let errors = read_deployed(variables).unwrap_err();
        errors.0.iter().map(|fault| fault.variable).collect()
    }

    const DEPLOYED: [(&str, &str); 4] = [
        ("AWS_REGION", "eu-west-1"),
        ("TABLE_NAME", "berth-table"),
        ("DATA_KEY_SECRET_ID", "berth/data-key"),
        ("SNAPTRADE_SECRET_ID", "berth/snaptrade"),
    ];

    fn deployed<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut all = more.to_vec();
        all.extend(DEPLOYED);
        all
    }

    #[test]
    fn nothing_set_gives_the_defaults() {
        let config = read(&[("RATE_PLAN", " ")]).unwrap();
        assert_eq!(config.environment, Environment::Sandbox);
        assert_eq!(config.snaptrade_base_url.as_str(), "https://api.snaptrade.com");
        assert_eq!(config.snaptrade_base_url.path(), "");
        assert_eq!(
            (config.limit, config.counts, config.policy),
            (5, Counts::Users, Policy::Oldest)
        );
        assert_eq!(config.rate_plan, RatePlan::STARTER);
        assert_eq!(config.inbound_limit, None);
        assert_eq!(config.flags.trade_execution, FlagValue::On);
        assert_eq!(config.consent_version, "1");
        assert_eq!(config.operator_scope, "berth/operator");
        assert_eq!(config.log_level, LogLevel::Info);
        assert_eq!(config.metrics_environment, "sandbox");
        assert!(config.allowed_origins.is_empty());
    }

    #[test]
    fn every_fault_is_named_at_once_and_no_secret_with_it() {
        let errors = read(&[
            ("SNAPTRADE_ENVIRONMENT", "staging"),
            ("SNAPTRADE_BASE_URL", "http://api.snaptrade.com"),
            ("SNAPTRADE_CONSUMER_KEY", "very-secret"),
            ("MAX_CONNECTIONS", "0"),
            ("LIMIT_COUNTS", "accounts"),
            ("EVICTION_POLICY", "newest"),
            ("ALLOWED_ORIGINS", "https://good.example.com, bad, https://*.com"),
            ("FRONTEND_URL", "not a url"),
            ("RATE_PLAN", "60/m"),
            ("INBOUND_LIMIT", "many"),
            ("MAINTENANCE", "soon"),
            ("TABLE_NAME", "x"),
            ("FF_SNAPTRADE_TRADE_EXECUTION", "maybe"),
            ("CONSENT_VERSION", "123456789012345678901234567890123"),
            ("OPERATOR_SCOPE", "two scopes"),
            ("LOG_LEVEL", "loud"),
            ("METRICS_ENVIRONMENT", "é"),
            ("AWS_ENDPOINT_URL_DYNAMODB", "ftp://localhost"),
        ])
        .unwrap_err();
        let mut named: Vec<_> = errors.0.iter().map(|fault| fault.variable).collect();
        named.sort_unstable();
        let expected = [
            "ALLOWED_ORIGINS",
            "ALLOWED_ORIGINS",
            "AWS_ENDPOINT_URL_DYNAMODB",
            "CONSENT_VERSION",
            "EVICTION_POLICY",
            "FF_SNAPTRADE_TRADE_EXECUTION",
            "FRONTEND_URL",
            "INBOUND_LIMIT",
            "LIMIT_COUNTS",
            "LOG_LEVEL",
            "MAINTENANCE",
            "MAX_CONNECTIONS",
            "METRICS_ENVIRONMENT",
            "OPERATOR_SCOPE",
            "RATE_PLAN",
            "SNAPTRADE_BASE_URL",
            "SNAPTRADE_CLIENT_ID",
            "SNAPTRADE_ENVIRONMENT",
            "TABLE_NAME",
        ];
        assert_eq!(named, expected);
        assert!(!errors.to_string().contains("very-secret"));
    }

    #[test]
    fn a_deployed_function_needs_its_region_table_and_secrets() {
        assert_eq!(
            faults(&[]),
            [
                "AWS_REGION",
                "TABLE_NAME",
                "SNAPTRADE_SECRET_ID",
                "DATA_KEY_SECRET_ID"
            ]
        );
        assert!(read_deployed(&DEPLOYED).is_ok());
    }

    #[test]
    fn production_refuses_sandbox_settings_and_the_other_way_round() {
        let production = ("SNAPTRADE_ENVIRONMENT", "production");
        assert!(read_deployed(&deployed(&[production])).is_ok());
        for (variable, value) in [
            ("SNAPTRADE_BASE_URL", "http://127.0.0.1:9001"),
            ("SNAPTRADE_BASE_URL", "https://sandbox.example.com"),
            ("TABLE_NAME", "berth-sandbox"),
        ] {
            assert_eq!(
                faults(&deployed(&[production, (variable, value)])),
                [variable],
                "{value}"
            );
        }
        assert_eq!(
            faults(&deployed(&[(
                "SNAPTRADE_SECRET_ID",
                "berth/production/snaptrade"
            )])),
            ["SNAPTRADE_SECRET_ID"]
        );
        let config = read_deployed(&deployed(&[production])).unwrap();
        assert!(!config.accepts_client_id("SANDBOX-CLIENT"));
        assert!(config.accepts_client_id("PARTNERAPP"));
    }

    #[test]
    fn a_base_url_keeps_its_path_and_needs_https_except_on_this_machine() {
        let url = BaseUrl::parse("https://proxy.example.com:8443/snaptrade/api/").unwrap();
        assert_eq!(url.as_str(), "https://proxy.example.com:8443/snaptrade/api");
        assert_eq!(url.path(), "/snaptrade/api");
        assert_eq!(url.origin(), "https://proxy.example.com:8443");
        for good in ["http://localhost:9001", "http://127.0.0.1:1", "http://[::1]:1"] {
            assert!(BaseUrl::parse(good).unwrap().is_loopback(), "{good}");
        }
        for bad in [
            "http://example.com",
            "https://u:p@example.com",
            "https://example.com?x=1",
            "example.com",
            "http://localhost.example.com",
            "file:///etc",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_pattern_covers_exactly_one_label_of_its_scheme_and_port() {
        let wild = OriginPattern::parse("https://*.vercel.app").unwrap();
        assert!(wild.matches("https://shop.vercel.app"));
        assert!(wild.matches("https://shop.vercel.app:443"));
        for foreign in [
            "http://shop.vercel.app",
            "https://a.b.vercel.app",
            "https://vercel.app",
            "https://.vercel.app",
            "https://shop.vercel.app:8443",
            "https://shop.vercel.app.evil.com",
            "https://evil.com/.vercel.app",
            "https://evil.com#.vercel.app",
            "https://u@x.vercel.app",
            "https://*.vercel.app",
            "null",
            "",
        ] {
            assert!(!wild.matches(foreign), "{foreign}");
        }
        let plain = OriginPattern::parse("http://localhost:5173").unwrap();
        assert!(plain.matches("http://localhost:5173"));
        assert!(!plain.matches("http://localhost"));
        assert!(
            OriginPattern::parse("http://[::1]:80")
                .unwrap()
                .matches("http://[::1]")
        );
        for bad in [
            "*",
            "https://*",
            "https://*.com",
            "https://a*.example.com",
            "https://example.com/path",
            "ftp://a.b",
        ] {
            assert_eq!(OriginPattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_front_ends_origin_is_allowed_too() {
        let config = read(&[
            ("FRONTEND_URL", "https://app.example.com/start/"),
            ("ALLOWED_ORIGINS", "https://*.vercel.app,http://localhost:5173/"),
        ])
        .unwrap();
        assert!(config.allows_origin("https://app.example.com"));
        assert!(config.allows_origin("http://localhost:5173"));
        assert!(!config.allows_origin("https://other.example.com"));
    }

    #[test]
    fn rate_plans_are_read_by_name_or_by_their_bounds() {
        assert_eq!(RatePlan::parse("growth"), Some(RatePlan::GROWTH));
        assert_eq!(RatePlan::parse("60/m,1000/h,10000/d"), Some(RatePlan::STARTER));
        for bad in [
            "",
            "fast",
            "60/m,1000/h",
            "60/m,60/m,1/h,1/d",
            "0/m,1/h,1/d",
            "-1/m,1/h,1/d",
        ] {
            assert_eq!(RatePlan::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn flags_are_on_off_a_percentage_or_a_list() {
        assert_eq!(FlagValue::parse("25%"), Some(FlagValue::Percent(25)));
        assert_eq!(FlagValue::parse("False"), Some(FlagValue::Off));
        assert_eq!(
            FlagValue::parse("users:ada, grace"),
            Some(FlagValue::Users(vec!["ada".to_owned(), "grace".to_owned()]))
        );
        for bad in ["101%", "users:", "perhaps"] {
            assert_eq!(FlagValue::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn given_credentials_do_not_print() {
        let config = read(&[
            ("SNAPTRADE_CLIENT_ID", "CLIENT"),
            ("SNAPTRADE_CONSUMER_KEY", "very-secret"),
        ])
        .unwrap();
        assert!(!format!("{config:?}").contains("very-secret"));
    }
}
