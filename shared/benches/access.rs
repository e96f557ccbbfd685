//! How fast the access sync reads rows and reckons ends of access. `cargo bench -p benches` measures.

#![expect(
    clippy::unwrap_used,
    reason = "what is measured here is known to be well formed"
)]

use std::collections::BTreeSet;
use std::hint::black_box;

use berth::access::assessment::{Rules, Sighting};
use berth::access::configuration::Configuration;
use berth::access::ledger::Ledger;
use berth::access::transactions::{Row, RowReader};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The renewals of one customer, one every 30 days.
fn renewals(count: u64) -> Vec<Value> {
    let first: Timestamp = "2024-01-01T10:00:00Z".parse().unwrap();
    (0..count)
        .map(|period| {
            let at = |periods| {
                let days = i64::try_from(30 * periods).unwrap();
                let time = first.checked_add(SignedDuration::from_hours(24 * days)).unwrap();
                time.strftime("%Y-%m-%d %H:%M:%S").to_string()
            };
            json!({
                "transaction_id": period + 1, "user_id": 42, "user_email": "ada@example.com", "user_login": "ada",
                "user_meta": {"tradingview_username": "AdaTrades"}, "amount": "29.00", "total": "34.51",
                "txn_status": "complete", "txn_type": "payment", "subscription_id": 9, "product_id": 100,
                "gateway": "stripe", "trans_num": format!("ch_{period}"), "created_at": at(period),
                "expires_at": at(period + 1)
            })
        })
        .collect()
}

fn configuration() -> Configuration {
    let document = json!({
        "wordpress": {"base_url": "https://shop.example.com", "api_key": "k"},
        "tradingview": {"base_url": "https://access.example.com", "api_key": "k"},
        "products": {"100": {"script_id": "S1", "duration_days": 30}}
    });
    Configuration::parse(&document.to_string(), None).unwrap()
}

fn now() -> Timestamp {
    "2200-01-01T00:00:00Z".parse().unwrap()
}

fn absorb(configuration: &Configuration, rows: &[Row]) -> Ledger {
    let rules = Rules::new(configuration, now(), true);
    let approved = BTreeSet::new();
    let mut ledger = Ledger::default();
    for row in rows {
        let sighting = Sighting {
            row,
            approved: &approved,
            blocked: false,
            same_payment: None,
        };
        rules.absorb(&mut ledger, &sighting);
    }
    ledger
}

fn access(criterion: &mut Criterion) {
    let configuration = configuration();
    let reader = RowReader::new(&configuration.shop, now());

    let raw = renewals(1_000);
    let mut reading = criterion.benchmark_group("rows");
    reading.throughput(Throughput::Elements(1_000));
    reading.bench_function("read", |bencher| {
        bencher.iter(|| {
            raw.iter()
                .filter(|raw| reader.read(black_box(raw), 1).is_ok())
                .count()
        });
    });
    let rows: Vec<Row> = raw.iter().map(|raw| reader.read(raw, 1).unwrap()).collect();
    reading.bench_function("hash", |bencher| {
        bencher.iter(|| {
            rows.iter()
                .map(|row| black_box(row).content_hash().len())
                .sum::<usize>()
        });
    });
    reading.finish();

    let mut reckoning = criterion.benchmark_group("ledger");
    for count in [1, 24, 240] {
        let rows: Vec<Row> = renewals(count)
            .iter()
            .map(|raw| reader.read(raw, 1).unwrap())
            .collect();
        let ledger = absorb(&configuration, &rows);
        reckoning.throughput(Throughput::Elements(count));
        reckoning.bench_with_input(BenchmarkId::new("reckon", count), &ledger, |bencher, ledger| {
            bencher.iter(|| black_box(ledger).reckon().expiry);
        });
        reckoning.bench_with_input(BenchmarkId::new("absorb", count), &rows, |bencher, rows| {
            bencher.iter(|| absorb(&configuration, black_box(rows)).entries.len());
        });
    }
    reckoning.finish();
}

criterion_group!(benches, access);
criterion_main!(benches);
