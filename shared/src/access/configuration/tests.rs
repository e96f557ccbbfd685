use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::*;

fn stand_ins() -> StandIns {
    StandIns {
        shop: BaseUrl::parse("http://127.0.0.1:9002").unwrap(),
        access_api: BaseUrl::parse("http://127.0.0.1:9002").unwrap(),
        access_api_key: SecretString::from("sandbox-key"),
        mail: ("127.0.0.1".to_owned(), 9004),
    }
}

/// A configuration that is complete without stand-ins.
fn complete() -> Value {
    json!({
        "wordpress": {"base_url": "https://shop.example.com", "api_key": "shop-key"},
        "tradingview": {"base_url": "https://access.example.com", "api_key": "access-key"},
        "products": {"100": {"script_id": "S1", "duration_days": 30}}
    })
}

/// [`complete`] with the members of `more` put in, object by object.
fn with(more: Value) -> Value {
    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }
    let mut document = complete();
    merge(&mut document, more);
    document
}

fn parse(document: &Value) -> Result<Configuration, Faults> {
    Configuration::parse(&document.to_string(), None)
}

fn read(more: Value) -> Configuration {
    parse(&with(more)).unwrap()
}

fn fault_paths(more: Value) -> Vec<String> {
    let faults = parse(&with(more)).unwrap_err();
    faults.0.into_iter().map(|fault| fault.path).collect()
}

#[test]
fn what_is_left_out_has_the_originals_defaults() {
    let configuration = parse(&complete()).unwrap();
    let shop = &configuration.shop;
    assert_eq!(
        shop.transactions_endpoint,
        "/wp-json/memberpress/v1/all-user-transactions"
    );
    assert_eq!(shop.since_param, "since");
    assert_eq!(shop.timeout, Duration::from_secs(30));
    assert_eq!(shop.timezone, TimeZone::UTC);
    assert_eq!(shop.grants_on, StatusFilter { confirmed: true });
    assert_eq!(shop.transactions_limit, None);
    assert_eq!(
        shop.username_fields,
        ["user_meta.tradingview_username", "user.username", "user_login"]
    );
    assert_eq!(shop.credentials.key.as_ref().unwrap().0, "MEMBERPRESS-API-KEY");
    let api = &configuration.access_api;
    assert_eq!(api.grant_endpoint, "/tradingview/access/grant");
    assert_eq!(api.list_endpoint, "/tradingview/access/scriptUsers/{scriptId}");
    assert_eq!(api.validate_endpoint, "/tradingview/validate/{username}");
    assert_eq!(api.key_header, "x-api-key");
    assert_eq!((api.max_retries, api.timeout), (3, Duration::from_secs(30)));
    assert_eq!(api.retry_backoff, [5, 15, 60].map(Duration::from_secs));
    assert_eq!(
        (api.grants_per_second, api.validations_per_second),
        (Some(4.0), Some(10.0))
    );
    assert_eq!(
        (api.expiry_format, api.date_meaning),
        (ExpiryFormat::Date, DateMeaning::EndOfDay)
    );
    assert_eq!(configuration.interval, Duration::from_secs(900));
    assert!(!configuration.scheduled_runs_are_dry);
    assert!(configuration.mail.is_none() && configuration.discord.is_none());
    assert_eq!(configuration.paths.master_data, "masterData");
    let policies = &configuration.policies;
    assert_eq!(policies.hold_credit_max, Duration::from_secs(7 * 86_400));
    assert_eq!(policies.lookback, Duration::from_secs(7 * 86_400));
    assert_eq!(policies.grace, Duration::ZERO);
    assert_eq!(configuration.caps.max_revocations, 10);
    assert_eq!(configuration.caps.max_grants_per_run, 200);
    assert!(configuration.writes_enabled);
    assert!(configuration.warnings.is_empty(), "{:?}", configuration.warnings);
}

#[test]
fn the_example_of_the_contract_is_read() {
    let text = include_str!("example.json");
    let configuration = Configuration::parse(text, Some(&stand_ins())).unwrap();
    assert_eq!(
        configuration.products[&ProductId::new("100")].duration,
        Some(PlanDuration::Months(1))
    );
    assert_eq!(configuration.mail.unwrap().port, 9004);
    let no_credentials = ["wordpress has no api_key, no basic_auth_user and no api_token"];
    assert_eq!(configuration.warnings, no_credentials);
}

#[test]
fn memberpress_has_its_own_endpoint() {
    let configuration = read(json!({"wordpress": {"kind": "memberpress"}}));
    assert_eq!(
        configuration.shop.transactions_endpoint,
        "/wp-json/mp/v1/transactions"
    );
}

#[test]
fn an_empty_address_is_the_stand_ins_and_missing_without_one() {
    let empty =
        json!({"wordpress": {"base_url": ""}, "products": {"1": {"script_id": "S", "duration": "1M"}}});
    let configuration = Configuration::parse(&empty.to_string(), Some(&stand_ins())).unwrap();
    assert_eq!(configuration.shop.base_url.as_str(), "http://127.0.0.1:9002");
    assert_eq!(configuration.access_api.key.expose_secret(), "sandbox-key");
    assert_eq!(configuration.mail.unwrap().tls, MailTls::None);
    let faults = parse(&empty).unwrap_err();
    let paths: Vec<_> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "wordpress.base_url",
            "tradingview.base_url",
            "tradingview.api_key"
        ]
    );
}

#[test]
fn a_stand_ins_key_does_not_go_to_another_address() {
    let mut document = complete();
    document["tradingview"]["api_key"] = json!("");
    let faults = Configuration::parse(&document.to_string(), Some(&stand_ins())).unwrap_err();
    assert_eq!(
        faults.to_string(),
        "The access sync's configuration is not right: tradingview.api_key is missing."
    );
}

#[test]
fn every_fault_is_named_at_once_by_its_path() {
    let paths = fault_paths(json!({
        "wordpress": {
            "base_url": "http://shop.example.com", "kind": "other", "timeout": 0, "source_timezone": "Mars/Base",
            "basic_auth_user": "u", "api_token": "t", "status_filter": ["confirmed", "refunded"],
            "username_fields": [], "api_key_header": "not a header"
        },
        "tradingview": {
            "list_endpoint": "/users", "validate_endpoint": "https://elsewhere/{username}", "max_retries": -1,
            "retry_backoff_seconds": [5, "soon"], "grants_per_second": "fast", "expiry_format": "unix"
        },
        "products": {
            "100": {"script_id": "", "duration_days": 0},
            "101": {"script_id": "S", "duration": "1X"},
            "102": {"script_id": "S"},
            "103": "S1"
        },
        "scheduler": {"interval_minutes": 0, "dry_run": "no"},
        "email": {"smtp_server": "mail.example.com", "tls": "none", "smtp_user": "u", "from_email": "nobody"},
        "policies": {"trials": "maybe", "hold_credit_max_days": -3},
        "caps": {"max_revocations": "many"},
        "writes_enabled": 1
    }));
    let mut sorted = paths.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        [
            "caps.max_revocations",
            "email.from_email",
            "email.smtp_password",
            "email.tls",
            "policies.hold_credit_max_days",
            "policies.trials",
            "products.100.duration_days",
            "products.100.script_id",
            "products.101.duration",
            "products.102.duration_days",
            "products.103",
            "scheduler.dry_run",
            "scheduler.interval_minutes",
            "tradingview.expiry_format",
            "tradingview.grants_per_second",
            "tradingview.list_endpoint",
            "tradingview.max_retries",
            "tradingview.retry_backoff_seconds[1]",
            "tradingview.validate_endpoint",
            "wordpress.api_key_header",
            "wordpress.api_token_param",
            "wordpress.base_url",
            "wordpress.basic_auth_password",
            "wordpress.kind",
            "wordpress.source_timezone",
            "wordpress.status_filter",
            "wordpress.status_filter[1]",
            "wordpress.timeout",
            "wordpress.username_fields",
            "writes_enabled",
        ]
    );
}

#[test]
fn what_is_no_object_is_one_fault() {
    for text in ["[]", "null", "{"] {
        let faults = Configuration::parse(text, None).unwrap_err();
        assert_eq!(faults.0.len(), 1, "{text}");
        assert!(faults.to_string().contains("the document"), "{faults}");
    }
}

#[test]
fn no_secret_is_printed_in_debug_or_in_a_fault() {
    let secrets = json!({
        "wordpress": {"api_key": "hush-1", "basic_auth_user": "u", "basic_auth_password": "hush-2",
            "api_token_param": "t", "api_token": "hush-3", "webhook_key": "hush-4"},
        "tradingview": {"api_key": "hush-5"},
        "email": {"smtp_server": "mail.example.com", "from_email": "a@b.c", "smtp_user": "u",
            "smtp_password": "hush-6"},
        "discord": {"webhook_url": "https://discord.example.com/hush-7"}
    });
    let printed = format!("{:?}", read(secrets.clone()));
    assert!(!printed.contains("hush"), "{printed}");
    let mut wrong = with(secrets);
    wrong["discord"]["webhook_url"] = json!("hush-8");
    wrong["tradingview"]["api_key"] = json!(["hush-9"]);
    let faults = parse(&wrong).unwrap_err();
    assert!(!faults.to_string().contains("hush") && !format!("{faults:?}").contains("hush"));
}

#[test]
fn all_credentials_of_the_shop_that_are_given_are_kept() {
    let configuration = read(json!({"wordpress": {
        "api_key_header": "Authorization", "basic_auth_user": "u", "basic_auth_password": "p",
        "api_token_param": "token", "api_token": "t", "webhook_key": "w"
    }}));
    let credentials = &configuration.shop.credentials;
    assert_eq!(credentials.key.as_ref().unwrap().0, "Authorization");
    assert_eq!(credentials.basic.as_ref().unwrap().1.expose_secret(), "p");
    assert_eq!(credentials.token.as_ref().unwrap().0, "token");
    assert!(configuration.shop.webhook_key.is_some());
}

#[test]
fn a_product_opens_each_of_its_scripts_once_and_duration_beats_days() {
    let configuration = read(json!({"products": {
        "100": {"script_ids": ["S2", "S1", "S2"], "duration": "1y"},
        "7": {"script_id": 5, "lifetime": true}
    }}));
    let product = configuration.product(&ProductId::new("100")).unwrap();
    assert_eq!(product.scripts, ["S1", "S2"].map(ScriptId::new));
    assert_eq!(product.duration, Some(PlanDuration::Years(1)));
    assert!(product.stacking_allowed && !product.lifetime);
    let lifetime = configuration.product(&ProductId::new("7")).unwrap();
    assert_eq!(lifetime.duration, Some(PlanDuration::Lifetime));
    assert_eq!(configuration.scripts().len(), 3);
    assert_eq!(configuration.product(&ProductId::new("8")), None);
}

#[test]
fn a_plan_of_unlimited_length_is_a_lifetime_product() {
    let configuration = read(json!({"products": {"100": {"duration": "L"}}}));
    assert!(configuration.products[&ProductId::new("100")].lifetime);
}

#[test]
fn a_product_needs_no_duration_where_the_shop_always_says_it() {
    let configuration = read(json!({
        "products": {"1": {"script_id": "S"}}, "policies": {"duration_source": "source"}
    }));
    assert_eq!(configuration.products[&ProductId::new("1")].duration, None);
}

#[test]
fn numbers_may_be_written_as_texts_and_a_rate_of_zero_is_no_limit() {
    let configuration = read(json!({
        "wordpress": {"timeout": "12"}, "tradingview": {"grants_per_second": 0, "validations_per_second": 0.5}
    }));
    assert_eq!(configuration.shop.timeout, Duration::from_secs(12));
    assert_eq!(configuration.access_api.grants_per_second, None);
    assert_eq!(configuration.access_api.validations_per_second, Some(0.5));
}

#[test]
fn zones_are_names_or_offsets() {
    let zone = |name: &str| {
        read(json!({"wordpress": {"source_timezone": name}}))
            .shop
            .timezone
    };
    assert_eq!(zone("Europe/Berlin").iana_name(), Some("Europe/Berlin"));
    assert_eq!(zone("+02:00").to_fixed_offset().unwrap(), jiff::tz::offset(2));
}

#[test]
fn copies_of_mails_go_to_a_list_or_to_a_text_with_commas() {
    for bcc in [
        json!("a@x.example, b@x.example"),
        json!(["a@x.example", "b@x.example"]),
    ] {
        let email =
            json!({"smtp_server": "localhost", "tls": "none", "from_email": "s@x.example", "bcc": bcc});
        let mail = read(json!({ "email": email })).mail.unwrap();
        assert_eq!(mail.bcc, ["a@x.example", "b@x.example"]);
        assert_eq!(mail.port, 587);
    }
}

#[test]
fn members_without_a_meaning_are_warned_of() {
    let configuration = read(json!({"wordpres": {}, "products": {"100": {"script": "S"}}}));
    let warnings = configuration.warnings;
    assert_eq!(
        warnings,
        [
            "products.100.script has no meaning here",
            "wordpres has no meaning here"
        ]
    );
}
