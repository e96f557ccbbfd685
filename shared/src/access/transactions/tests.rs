use proptest::prelude::*;
use serde_json::json;

use super::*;

const FIELDS: [&str; 3] = ["user_meta.tradingview_username", "user.username", "user_login"];

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn read_in(raw: &Value, zone: &str) -> Result<Row, Malformed> {
    let timezone = TimeZone::get(zone).unwrap();
    let username_fields = FIELDS.map(str::to_owned);
    let reader = RowReader {
        timezone: &timezone,
        username_fields: &username_fields,
        now: now(),
    };
    reader.read(raw, 7)
}

fn read(raw: &Value) -> Result<Row, Malformed> {
    read_in(raw, "UTC")
}

/// A row of the site's own list.
fn site_row() -> Value {
    json!({
        "transaction_id": 501, "user_id": 42, "user_email": "ada@example.com", "user_login": "ada",
        "display_name": "Ada L.", "user_meta": {"tradingview_username": "@AdaTrades"}, "amount": "29.00",
        "total": "34.51", "txn_status": "complete", "txn_type": "payment", "subscription_id": 9,
        "parent_transaction_id": 0, "product_id": 100, "gateway": "Stripe", "trans_num": "ch_1",
        "created_at": "2026-05-01 10:00:00", "expires_at": "2026-05-31 23:59:59", "subscription_status": "active"
    })
}

/// The same sale as MemberPress's own API lists it.
fn memberpress_row() -> Value {
    json!({
        "id": "501", "amount": "29.00", "total": "34.51", "status": "complete", "txn_type": "payment",
        "gateway": "Stripe", "trans_num": "ch_1", "coupon": "0", "prorated": "0", "parent_transaction_id": "0",
        "created_at": "2026-05-01 10:00:00", "expires_at": "2026-05-31 23:59:59",
        "membership": {"id": 100, "title": "Gold"}, "subscription": {"id": "9", "status": "active"},
        "member": {"id": 42, "email": "ada@example.com", "username": "ada", "display_name": "Ada L.",
            "user_meta": {"tradingview_username": ["@AdaTrades"]}}
    })
}

/// [`site_row`] with one member changed, or left out where the value is null.
fn with(key: &str, value: Value) -> Value {
    let mut row = site_row();
    if value.is_null() {
        row.as_object_mut().unwrap().remove(key);
    } else {
        row[key] = value;
    }
    row
}

fn causes(raw: &Value) -> Vec<String> {
    read(raw).unwrap_err().causes
}

#[test]
fn both_lists_give_the_same_row() {
    let row = read(&site_row()).unwrap();
    assert_eq!(row.transaction.as_str(), "501");
    assert_eq!(row.person, Some(PersonId(42)));
    assert_eq!(row.username, "@AdaTrades");
    assert_eq!(row.product, ProductId::new("100"));
    assert_eq!((row.status, row.kind), (Status::Complete, RowKind::Payment));
    assert_eq!(row.gateway, "stripe");
    assert_eq!(row.subscription, Some(SubscriptionId::new("9")));
    assert_eq!(row.parent, None);
    assert!(!row.coupon && !row.is_free());
    assert_eq!(row.ends, Ends::At("2026-05-31T23:59:59Z".parse().unwrap()));
    assert_eq!(read(&memberpress_row()).unwrap(), row);
}

/// Defect 16 of the original (A5): a strict text drops such a row.
#[test]
fn an_integer_product_id_is_the_same_product_as_its_text() {
    let number = read(&with("product_id", json!(100))).unwrap();
    let text = read(&with("product_id", json!("100"))).unwrap();
    assert_eq!(number, text);
}

/// Defect 1 of the original (A5): the end of a lifetime purchase fails to parse there.
#[test]
fn zeros_as_the_end_are_for_ever_and_nothing_is_not() {
    let zeros = read(&with("expires_at", json!("0000-00-00 00:00:00"))).unwrap();
    assert_eq!(zeros.ends, Ends::Never);
    assert_eq!(read(&with("expires_at", json!(null))).unwrap().ends, Ends::Unsaid);
    assert_eq!(read(&with("expires_at", json!(""))).unwrap().ends, Ends::Unsaid);
}

/// Defect 18 of the original (A5): its parts look at different fields for the name.
#[test]
fn the_name_is_the_first_of_the_configured_fields_that_holds_something() {
    assert_eq!(
        read(&with("user_meta", json!({"tradingview_username": " "})))
            .unwrap()
            .username,
        "ada"
    );
    assert_eq!(read(&with("user_meta", json!([]))).unwrap().username, "ada");
    let mut nested = with("user_meta", json!(null));
    nested["user"] = json!({"username": "nested"});
    assert_eq!(read(&nested).unwrap().username, "nested");
    let mut nameless = with("user_meta", json!(null));
    nameless.as_object_mut().unwrap().remove("user_login");
    assert_eq!(read(&nameless).unwrap().username, "");
}

#[test]
fn the_login_of_a_member_of_memberpress_is_its_username() {
    let mut raw = memberpress_row();
    raw["member"].as_object_mut().unwrap().remove("user_meta");
    assert_eq!(read(&raw).unwrap().username, "ada");
}

#[test]
fn no_subscription_is_written_as_zero_text_or_null() {
    for none in [json!(0), json!("0"), json!(null), json!("")] {
        assert_eq!(
            read(&with("subscription_id", none.clone())).unwrap().subscription,
            None,
            "{none}"
        );
    }
}

#[test]
fn a_row_without_a_type_is_a_payment_or_a_sign_up() {
    let payment = read(&with("txn_type", json!(null))).unwrap();
    assert_eq!(payment.kind, RowKind::Payment);
    let mut confirmed = with("txn_type", json!(null));
    confirmed["txn_status"] = json!("Confirmed");
    assert_eq!(read(&confirmed).unwrap().kind, RowKind::SubscriptionConfirmation);
}

#[test]
fn a_deleted_member_is_nobody_and_needs_no_address() {
    let mut raw = with("user_id", json!("0"));
    raw["user_email"] = json!("");
    let row = read(&raw).unwrap();
    assert_eq!((row.person, row.email.as_str()), (None, ""));
}

#[test]
fn every_malformed_field_names_the_row_and_the_cause() {
    for (key, value, cause) in [
        ("user_email", json!(""), "user_email is missing"),
        ("user_id", json!(null), "user_id is missing"),
        ("user_id", json!("me"), "user_id is not a number"),
        ("product_id", json!(0), "product_id is missing"),
        ("txn_status", json!(null), "status is missing"),
        ("created_at", json!(null), "created_at is missing"),
        (
            "created_at",
            json!("0000-00-00 00:00:00"),
            "created_at is missing",
        ),
        ("created_at", json!("yesterday"), "created_at is not a time"),
        (
            "created_at",
            json!("2026-06-02 00:00:01"),
            "created_at is in the future (2026-06-02T00:00:01Z)",
        ),
        ("expires_at", json!("someday"), "expires_at is not a time"),
    ] {
        let malformed = read(&with(key, value.clone())).unwrap_err();
        assert_eq!(
            malformed.to_string(),
            format!("transaction 501: {cause}"),
            "{key} {value}"
        );
    }
    assert_eq!(causes(&with("txn_status", json!("paid"))).len(), 1);
    assert_eq!(causes(&with("txn_type", json!("wc_transaction"))).len(), 1);
}

#[test]
fn a_row_without_an_id_is_named_by_its_place() {
    let malformed = read(&with("transaction_id", json!(null))).unwrap_err();
    assert_eq!(malformed.to_string(), "row 7: transaction_id is missing");
    for bad in [json!(null), json!("x"), json!([1])] {
        assert_eq!(
            read(&bad).unwrap_err().to_string(),
            "row 7: it is not an object",
            "{bad}"
        );
    }
}

#[test]
fn all_causes_of_a_row_are_named_at_once() {
    let raw = json!({"transaction_id": 1, "created_at": "x", "expires_at": "y"});
    assert_eq!(causes(&raw).len(), 6);
}

#[test]
fn a_row_created_within_a_day_from_now_is_taken() {
    assert!(read(&with("created_at", json!("2026-06-02 00:00:00"))).is_ok());
}

#[test]
fn times_are_in_the_shops_zone_and_an_hour_shown_twice_is_marked() {
    let berlin = read_in(&site_row(), "Europe/Berlin").unwrap();
    assert_eq!(berlin.created_at, "2026-05-01T08:00:00Z".parse().unwrap());
    let twice = read_in(&with("expires_at", json!("2026-10-25 02:30:00")), "Europe/Berlin").unwrap();
    assert_eq!(twice.ambiguous, ["expires_at"]);
}

#[test]
fn nothing_was_paid_where_all_sums_are_zero_or_the_gateway_is_free() {
    let free = |amount: Value, total: Value, gateway: &str| {
        let mut raw = with("amount", amount);
        raw["total"] = total;
        raw["gateway"] = json!(gateway);
        read(&raw).unwrap().is_free()
    };
    assert!(free(json!("0.00"), json!(0), "stripe"));
    assert!(!free(json!("0.00"), json!("5"), "stripe"));
    assert!(free(json!(null), json!(null), "free"));
    assert!(!free(json!(null), json!(null), "stripe"));
}

#[test]
fn the_hash_changes_with_what_changed_and_with_nothing_else() {
    let row = read(&site_row()).unwrap();
    let refunded = read(&with("txn_status", json!("refunded"))).unwrap();
    assert_ne!(row.sale_hash(), refunded.sale_hash());
    let cut = read(&with("expires_at", json!("2026-05-02 00:00:00"))).unwrap();
    assert_ne!(row.sale_hash(), cut.sale_hash());
    let renamed = read(&with("user_meta", json!({"tradingview_username": "other"}))).unwrap();
    assert_eq!(row.sale_hash(), renamed.sale_hash());
    assert_ne!(row.content_hash(), renamed.content_hash());
    assert_eq!(
        row.content_hash(),
        read(&memberpress_row()).unwrap().content_hash()
    );
    assert_eq!(
        row.content_hash(),
        read(&with("amount", json!(29))).unwrap().content_hash()
    );
}

/// Any JSON, so that no garbage of a site can stop the reader.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("2026-05-01 10:00:00")),
        Just(json!("complete")),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_garbage_in_any_field_stops_the_reader(
        key in proptest::sample::select(vec![
            "transaction_id", "user_id", "user_email", "user_login", "user_meta", "amount", "total", "txn_status",
            "txn_type", "subscription_id", "product_id", "gateway", "trans_num", "created_at", "expires_at", "member",
        ]),
        garbage in any_json(),
    ) {
        let mut raw = site_row();
        raw[key] = garbage;
        if let Err(malformed) = read(&raw) {
            prop_assert!(!malformed.causes.is_empty());
        }
    }

    #[test]
    fn whatever_is_read_is_read_the_same_again(raw in any_json()) {
        prop_assert_eq!(read(&raw), read(&raw));
    }
}
