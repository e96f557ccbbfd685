//! The transactions that a batch reads: an array in a file, or the configured shop's list.

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use berth::access::configuration::{Configuration, Shop};
use berth::access::shop::{Ask, ShopClient};
use berth::access::tally::Tally;
use berth::access::transactions::{Row, RowReader};
use berth::config::BaseUrl;
use jiff::Timestamp;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::Value;

/// The rows that were read.
#[derive(Debug, Default)]
pub(super) struct Dump {
    /// How many there were.
    pub(super) count: u64,
    /// Those of the products that matter.
    pub(super) rows: Vec<Row>,
    /// What is wrong with those that cannot be used.
    pub(super) malformed: Vec<String>,
}

impl Dump {
    fn take(&mut self, raw: &Value, reader: &RowReader<'_>, matters: &impl Fn(&Row) -> bool) {
        self.count += 1;
        match reader.read(raw, usize::try_from(self.count).unwrap_or(usize::MAX)) {
            Ok(row) if matters(&row) => self.rows.push(row),
            Ok(_) => {}
            Err(malformed) => self.malformed.push(malformed.to_string()),
        }
    }
}

/// Whether a source is an address and not a file.
fn is_address(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// Reads all rows that `matters` keeps.
///
/// # Errors
/// A sentence that says why they cannot be read.
pub(super) async fn read(
    source: &str,
    configuration: &Configuration,
    http: reqwest::Client,
    tally: Arc<Tally>,
    now: Timestamp,
    matters: impl Fn(&Row) -> bool,
) -> Result<Dump, String> {
    let reader = RowReader::new(&configuration.shop, now);
    let mut dump = Dump::default();
    if !is_address(source) {
        from_file(Path::new(source), |raw| dump.take(raw, &reader, &matters))
            .map_err(|error| format!("{source} cannot be read: {error}"))?;
        return Ok(dump);
    }
    let shop = of_shop(source, &configuration.shop)?;
    let mut scanning = ShopClient::new(http, &shop, tally).scan(Ask::All);
    loop {
        match scanning.next().await {
            Ok(Some(chunk)) => {
                for raw in &chunk.rows {
                    dump.take(raw, &reader, &matters);
                }
            }
            Ok(None) => return Ok(dump),
            Err(error) => return Err(format!("the shop's transactions cannot be read: {error}")),
        }
    }
}

/// Hands the elements of the array in a file over, one by one.
fn from_file(path: &Path, take: impl FnMut(&Value)) -> Result<(), serde_json::Error> {
    struct Rows<F>(F);
    impl<'de, F: FnMut(&Value)> Visitor<'de> for Rows<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of transactions")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut rows: A) -> Result<(), A::Error> {
            while let Some(row) = rows.next_element::<Value>()? {
                (self.0)(&row);
            }
            Ok(())
        }
    }
    let file = File::open(path).map_err(serde_json::Error::io)?;
    let mut rows = serde_json::Deserializer::from_reader(BufReader::new(file));
    rows.deserialize_seq(Rows(take))?;
    rows.end()
}

/// The configured shop with the list at `address`. Its credentials go nowhere else.
fn of_shop(address: &str, shop: &Shop) -> Result<Shop, String> {
    let asked = BaseUrl::parse(address).map_err(|rule| format!("{address} {rule}"))?;
    let home = &shop.base_url;
    let port = |url: &BaseUrl| url.origin().rsplit_once(':').map(|(_, port)| port.to_owned());
    let both_here = asked.is_loopback() && home.is_loopback() && port(&asked) == port(home);
    let endpoint = asked.path().strip_prefix(home.path());
    match endpoint.filter(|_| asked.origin() == home.origin() || both_here) {
        Some("") => Ok(shop.clone()),
        Some(endpoint) if endpoint.starts_with('/') => Ok(Shop {
            transactions_endpoint: endpoint.to_owned(),
            ..shop.clone()
        }),
        _ => Err(format!(
            "{address} is not on the configured shop ({home}), whose credentials go nowhere else: download the list and name the file"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop(base_url: &str) -> Shop {
        let text = serde_json::json!({
            "wordpress": {"base_url": base_url, "api_key": "k"},
            "tradingview": {"base_url": "https://access.example.com", "api_key": "k"},
            "products": {"100": {"script_id": "S1", "duration": "1M"}},
        });
        Configuration::parse(&text.to_string(), None).unwrap().shop
    }

    #[test]
    fn the_shops_credentials_stay_at_the_shop() {
        let home = shop("https://shop.example.com/blog");
        let list = of_shop("https://shop.example.com/blog/wp-json/all", &home).unwrap();
        assert_eq!(list.transactions_endpoint, "/wp-json/all");
        let whole = of_shop("https://shop.example.com/blog", &home).unwrap();
        assert_eq!(whole.transactions_endpoint, home.transactions_endpoint);
        for elsewhere in [
            "https://evil.example.com/blog/wp-json/all",
            "https://shop.example.com/other",
            "https://shop.example.com/blogs",
            "https://shop.example.com:8443/blog/all",
            "http://shop.example.com/blog/all",
            "https://shop.example.com/blog/all?x=1",
        ] {
            assert!(of_shop(elsewhere, &home).is_err(), "{elsewhere}");
        }
        let here = shop("http://127.0.0.1:9002");
        assert!(of_shop("http://localhost:9002/wp-json/all", &here).is_ok());
        assert!(of_shop("http://localhost:9003/wp-json/all", &here).is_err());
    }

    #[test]
    fn only_a_whole_array_is_a_list_of_transactions() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dump.json");
        for (text, count) in [
            ("[]", Some(0)),
            ("[{}, {}]", Some(2)),
            ("{}", None),
            ("[{}", None),
            ("[] []", None),
        ] {
            std::fs::write(&file, text).unwrap();
            let mut seen = 0;
            let read = from_file(&file, |_| seen += 1);
            assert_eq!(read.ok().map(|()| seen), count, "{text}");
        }
    }
}
