//! The access sync's configuration on the local stack, and the sandboxes that it is about.

use std::path::PathBuf;

use berth::access::configuration::{Configuration, ShopCredentials, StandIns};
use berth::clock::Clock;
use berth::config::BaseUrl;
use berth_sandbox::access::{ACCESS_KEY, Options as SandboxOptions, Sandbox, WordPressAccess};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::directory::{Directory, Urls};
use crate::stack::{internal, url};
use crate::{Options, StartError};

/// The configuration of a stack that is given none. It fits the sandboxes and their sample shop.
const SAMPLE: &str = include_str!("access-config.json");

/// The text of the configuration that a stack has which is given none.
#[must_use]
pub fn sample_access_configuration() -> &'static str {
    SAMPLE
}

/// What stands on the stack that answers at `urls` in the places that a configuration leaves empty; `None` where those
/// are no addresses.
#[must_use]
pub fn access_stand_ins(urls: &Urls) -> Option<StandIns> {
    let here = BaseUrl::parse(&urls.access).ok()?;
    let (host, port) = urls.mail.strip_prefix("smtp://")?.rsplit_once(':')?;
    Some(StandIns {
        shop: here.clone(),
        access_api: here,
        access_api_key: SecretString::from(ACCESS_KEY),
        mail: (host.to_owned(), port.parse().ok()?),
    })
}

/// The file that holds the configuration, by the options or the settings; `None` for the sample.
pub(crate) fn file(options: &Options) -> Option<PathBuf> {
    let named = || options.settings.get("ACCESS_CONFIG_FILE").map(PathBuf::from);
    options.access_config.clone().or_else(named)
}

/// The configuration that the options or the settings name, or the sample, with the sandboxes in the places that it
/// leaves empty.
///
/// # Errors
/// [`StartError::AccessConfig`] says which file it is and all that is wrong with it.
pub(crate) fn configuration(
    options: &Options,
    http: &TcpListener,
    smtp: &TcpListener,
) -> Result<Configuration, StartError> {
    let text = text(options)?;
    let here = BaseUrl::parse(&url(http)?).map_err(internal)?;
    let stand_ins = StandIns {
        shop: here.clone(),
        access_api: here,
        access_api_key: SecretString::from(ACCESS_KEY),
        mail: (
            "127.0.0.1".to_owned(),
            smtp.local_addr().map_err(internal)?.port(),
        ),
    };
    Configuration::parse(&text, Some(&stand_ins)).map_err(|faults| fault(options, faults.to_string()))
}

/// The same configuration as a document, for functions that run outside of the stack: the addresses that it leaves
/// empty are written out.
///
/// # Errors
/// As [`configuration`].
pub(crate) fn document(
    options: &Options,
    http: &TcpListener,
    smtp: &TcpListener,
) -> Result<SecretString, StartError> {
    let text = text(options)?;
    let mut document: Value =
        serde_json::from_str(&text).map_err(|error| fault(options, error.to_string()))?;
    let here = url(http)?;
    let mail = smtp.local_addr().map_err(internal)?;
    let stand_ins = [
        (
            "/wordpress/base_url",
            "/wordpress",
            vec![("base_url", json!(here))],
        ),
        (
            "/tradingview/base_url",
            "/tradingview",
            vec![("base_url", json!(here)), ("api_key", json!(ACCESS_KEY))],
        ),
        (
            "/email/smtp_server",
            "/email",
            vec![
                ("smtp_server", json!(mail.ip().to_string())),
                ("smtp_port", json!(mail.port())),
                ("tls", json!("none")),
            ],
        ),
    ];
    for (asked, part, values) in stand_ins {
        let is_given = document
            .pointer(asked)
            .and_then(Value::as_str)
            .is_some_and(|given| !given.is_empty());
        let Some(part) = document.pointer_mut(part).and_then(Value::as_object_mut) else {
            continue;
        };
        if !is_given {
            part.extend(values.into_iter().map(|(name, value)| (name.to_owned(), value)));
        }
    }
    Ok(document.to_string().into())
}

/// The text of the configuration that the options or the settings name, or of the sample.
fn text(options: &Options) -> Result<String, StartError> {
    match file(options) {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| fault(options, format!("The file cannot be read ({error})."))),
        None => Ok(SAMPLE.to_owned()),
    }
}

fn fault(options: &Options, detail: String) -> StartError {
    StartError::AccessConfig {
        file: file(options).unwrap_or_default(),
        detail,
    }
}

/// Starts the sandboxes. The shop takes the credentials that it is configured to be called with.
///
/// # Errors
/// [`StartError`] when their state cannot be used.
pub(crate) async fn start(
    http: TcpListener,
    smtp: TcpListener,
    clock: &Clock,
    directory: Option<&Directory>,
    configuration: &Configuration,
) -> Result<Sandbox, StartError> {
    let state_file = directory.map(Directory::access_state);
    let is_here = configuration.shop.base_url.as_str() == url(&http)?;
    let options = SandboxOptions {
        clock: clock.clone(),
        state_file: state_file.clone(),
        wordpress: if is_here {
            welcome(&configuration.shop.since_param, &configuration.shop.credentials)
        } else {
            WordPressAccess::default()
        },
        access_key_header: Some(configuration.access_api.key_header.clone()),
    };
    (Sandbox::start(http, smtp, options).await).map_err(|error| match state_file {
        Some(path) => StartError::Store {
            path,
            reason: error.to_string(),
        },
        None => internal(error),
    })
}

/// What a shop takes whose callers have these credentials.
fn welcome(since_param: &str, credentials: &ShopCredentials) -> WordPressAccess {
    let laid_open = |pair: &(String, SecretString)| (pair.0.clone(), pair.1.expose_secret().to_owned());
    let key = credentials.key.as_ref().map(laid_open);
    WordPressAccess {
        since_param: since_param.to_owned(),
        api_key_header: key.as_ref().map(|(header, _)| header.clone()),
        api_key: key.map(|(_, key)| key),
        basic: credentials.basic.as_ref().map(laid_open),
        token: credentials.token.as_ref().map(laid_open),
    }
}
