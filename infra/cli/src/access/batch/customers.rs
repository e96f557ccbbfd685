//! From the shop's rows to what each name should have of one script. Nothing here is reckoned that the sync reckons in
//! another way: rows are assessed and folded by the crate `berth`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use berth::access::assessment::{Change, ReviewReason, Rules, Sighting, Standing};
use berth::access::configuration::Configuration;
use berth::access::ids::{PersonId, ScriptId, TransactionId};
use berth::access::ledger::{Baseline, Entry, Ledger};
use berth::access::names::{InvalidUsername, Username};
use berth::access::plan::Claim;
use berth::access::transactions::Row;
use jiff::Timestamp;

use super::access_list::AccessList;

/// All customers who go by one name, which is what access is given to.
#[derive(Debug, Clone)]
pub(super) struct Name {
    /// The name, as the first of them wrote it.
    pub(super) name: Result<Username, InvalidUsername>,
    /// The same to the letter.
    pub(super) written: String,
    /// They, by their ids; never none.
    pub(super) customers: Vec<Customer>,
}

/// One customer.
#[derive(Debug, Clone)]
pub(super) struct Customer {
    /// Who.
    pub(super) person: PersonId,
    /// The address.
    pub(super) email: String,
    /// The name at WordPress.
    pub(super) wp_username: String,
    /// What the access API is told about the kind of subscription.
    pub(super) subscription_type: String,
    /// What the customer has paid for.
    pub(super) claims: Vec<Claim>,
    /// What a person has to look at, and what does not count until then.
    pub(super) doubts: Vec<(TransactionId, ReviewReason)>,
}

impl Name {
    /// The one by whom it is ordered.
    pub(super) fn first(&self) -> PersonId {
        self.customers
            .first()
            .map_or(PersonId(u64::MAX), |customer| customer.person)
    }

    /// What all of them have paid for.
    pub(super) fn claims(&self) -> Vec<Claim> {
        self.customers
            .iter()
            .flat_map(|customer| customer.claims.iter().cloned())
            .collect()
    }

    /// Whether there is anything to do or to tell.
    fn matters(&self, now: Timestamp) -> bool {
        self.customers.iter().any(|customer| {
            !customer.doubts.is_empty() || customer.claims.iter().any(|claim| claim.expiry.is_live(now))
        })
    }
}

/// What was found about a script's customers.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Those for whom there is something to do or to tell, by their ids.
    pub(super) names: Vec<Name>,
    /// Rows that give nothing, by the reason.
    pub(super) ignored: BTreeMap<String, u64>,
}

/// Whether a row has to do with a script.
pub(super) fn is_about(row: &Row, script: &ScriptId, configuration: &Configuration) -> bool {
    let product = configuration.product(&row.product);
    product.is_some_and(|product| product.scripts.contains(script))
}

/// What each name should have of one script by the shop's rows, all of which have to do with it.
///
/// What the file `known` says somebody had when it was fetched is a second claim beside what the rows alone come to, and
/// the better one counts: rows from before may be missing in a partial list, and rows since add to what there was.
pub(super) fn find(
    mut rows: Vec<Row>,
    configuration: &Configuration,
    known: &AccessList,
    now: Timestamp,
) -> Found {
    let rules = Rules::new(configuration, now, true);
    rows.sort_by(|a, b| (a.created_at, &a.transaction).cmp(&(b.created_at, &b.transaction)));
    // A row that moved while the list was read may be in it twice.
    let mut seen = BTreeSet::new();
    rows.retain(|row| seen.insert(row.transaction.clone()));
    let payments = payments(&rows, &rules);
    let mut found = Found::default();
    let mut by_person: BTreeMap<PersonId, Vec<Row>> = BTreeMap::new();
    for row in rows {
        if let Standing::Ignored(reason) = rules.standing(&row) {
            *found.ignored.entry(reason.as_str().to_owned()).or_default() += 1;
        }
        // Nothing is known any more of a member who was deleted.
        if let Some(person) = row.person {
            by_person.entry(person).or_default().push(row);
        }
    }
    let mut names: BTreeMap<String, Name> = BTreeMap::new();
    for (person, rows) in by_person {
        // Who somebody is, the newest row says.
        let Some(newest) = rows.last() else { continue };
        let name = Username::parse(&newest.username);
        let had = name.as_ref().ok().and_then(|name| known.get(name));
        let baseline = had.map(|had| Baseline::new(had.expiry, had.fetched_at.unwrap_or(now)));
        let customer = customer(person, &rows, newest, baseline, &rules, configuration, &payments);
        let key = match &name {
            Ok(name) => name.key(),
            // Wrong names have nothing in common.
            Err(_) => format!("?{}", person.0),
        };
        let written = newest.username.clone();
        let entry = names.entry(key).or_insert_with(|| Name {
            name,
            written,
            customers: Vec::new(),
        });
        entry.customers.push(customer);
    }
    found.names = names.into_values().filter(|name| name.matters(now)).collect();
    found.names.sort_by_key(Name::first);
    found
}

/// Whose each number of a payment is: the first one's.
fn payments(rows: &[Row], rules: &Rules<'_>) -> HashMap<String, (PersonId, TransactionId)> {
    let mut payments = HashMap::new();
    for row in rows {
        if let (Some(number), Some(person), Standing::Eligible { .. }) =
            (&row.trans_num, row.person, rules.standing(row))
        {
            payments
                .entry(number.clone())
                .or_insert_with(|| (person, row.transaction.clone()));
        }
    }
    payments
}

fn customer(
    person: PersonId,
    rows: &[Row],
    newest: &Row,
    baseline: Option<Baseline>,
    rules: &Rules<'_>,
    configuration: &Configuration,
    payments: &HashMap<String, (PersonId, TransactionId)>,
) -> Customer {
    let same_payment = |row: &Row| {
        let (owner, transaction) = payments.get(row.trans_num.as_ref()?)?;
        (*owner != person).then_some(transaction)
    };
    let fold = |ledger: &mut Ledger, without: &[(TransactionId, ReviewReason)]| {
        let mut doubts = Vec::new();
        let approved = BTreeSet::new();
        let counting = rows.iter().filter(|row| {
            !without
                .iter()
                .any(|(transaction, _)| *transaction == row.transaction)
        });
        for row in counting {
            let sighting = Sighting {
                row,
                approved: &approved,
                blocked: false,
                same_payment: same_payment(row),
            };
            for change in rules.absorb(ledger, &sighting) {
                if let Change::Review(reason, _) = change {
                    doubts.push((row.transaction.clone(), reason));
                }
            }
        }
        doubts
    };
    let (mut alone, mut beside) = (Ledger::default(), None);
    let mut doubts = Vec::new();
    if baseline.is_some() {
        let mut ledger = Ledger {
            baseline,
            ..Ledger::default()
        };
        doubts = fold(&mut ledger, &[]);
        beside = Some(ledger);
    }
    // What is in doubt beside what there was is in doubt altogether.
    let more = fold(&mut alone, &doubts);
    doubts.extend(more);
    let newest_entry = alone
        .entries
        .values()
        .filter(|entry| entry.reversed().is_none())
        .max_by_key(|entry| (entry.created_at, entry.transaction.clone()));
    let product = newest_entry.and_then(|entry: &Entry| configuration.product(&entry.product));
    let grace = configuration.policies.grace;
    let claim = |ledger: &Ledger| Claim {
        person,
        expiry: ledger.expiry(grace),
        told: None,
        found: None,
        changed: true,
        reversing: false,
    };
    Customer {
        person,
        email: newest.email.clone(),
        wp_username: newest.wp_username.clone(),
        subscription_type: product
            .map(|product| product.subscription_type.clone())
            .unwrap_or_default(),
        claims: std::iter::once(&alone).chain(&beside).map(claim).collect(),
        doubts,
    }
}

#[cfg(test)]
mod tests {
    use berth::access::expiry::Expiry;
    use berth::access::transactions::RowReader;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-03-01T00:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn configuration() -> Configuration {
        let text = json!({
            "wordpress": {"base_url": "https://shop.example.com", "api_key": "k"},
            "tradingview": {"base_url": "https://access.example.com", "api_key": "k"},
            "products": {
                "100": {"script_id": "S1", "duration_days": 30, "subscription_type": "monthly"},
                "200": {"script_id": "S1", "duration_days": 30, "stacking_allowed": false},
            },
        });
        Configuration::parse(&text.to_string(), None).unwrap()
    }

    fn row(id: u64, person: u64, name: &str, created_at: &str, more: Value) -> Row {
        let mut raw = json!({
            "transaction_id": id, "user_id": person, "user_email": "a@example.com", "user_login": name,
            "total": "29.00", "status": "complete", "product_id": 100, "gateway": "stripe",
            "trans_num": format!("ch_{id}"), "created_at": created_at,
        });
        for (member, value) in more.as_object().unwrap() {
            raw[member] = value.clone();
        }
        RowReader::new(&configuration().shop, at(NOW))
            .read(&raw, 1)
            .unwrap()
    }

    fn known(end: &str, fetched_at: &str) -> AccessList {
        let mut known = AccessList::default();
        let name = Username::parse("Ada").unwrap();
        known.note(&name, Expiry::At(at(end)), at(fetched_at));
        known
    }

    /// The best claim of each name.
    fn ends(rows: Vec<Row>, known: &AccessList) -> Vec<(String, Expiry)> {
        let found = find(rows, &configuration(), known, at(NOW));
        found
            .names
            .iter()
            .map(|name| {
                let best = name.claims().iter().map(|claim| claim.expiry).max();
                (name.written.clone(), best.unwrap())
            })
            .collect()
    }

    fn ada(end: &str) -> Vec<(String, Expiry)> {
        vec![("ada".to_owned(), Expiry::At(at(end)))]
    }

    #[test]
    fn purchases_add_up_in_whatever_order_they_come() {
        let rows = [
            row(2, 1, "ada", "2026-02-20T00:00:00Z", json!({})),
            row(1, 1, "ada", "2026-02-10T00:00:00Z", json!({})),
        ];
        let none = AccessList::default();
        let mut turned = rows.to_vec();
        turned.reverse();
        turned.push(rows[0].clone());
        assert_eq!(ends(rows.to_vec(), &none), ada("2026-04-11T00:00:00Z"));
        assert_eq!(ends(turned, &none), ada("2026-04-11T00:00:00Z"));
    }

    #[test]
    fn what_was_bought_since_the_file_was_fetched_adds_to_what_it_says() {
        let rows = vec![row(2, 1, "ada", "2026-02-20T00:00:00Z", json!({}))];
        let before = known("2026-03-10T00:00:00Z", "2026-02-15T00:00:00Z");
        assert_eq!(ends(rows.clone(), &before), ada("2026-04-09T00:00:00Z"));
        // Fetched after it was granted, the same purchase adds nothing more.
        let after = known("2026-04-09T00:00:00Z", "2026-02-21T00:00:00Z");
        assert_eq!(ends(rows.clone(), &after), ada("2026-04-09T00:00:00Z"));
        // Fetched after it was bought and before it was granted, it is not lost.
        let between = known("2026-02-01T00:00:00Z", "2026-02-21T00:00:00Z");
        assert_eq!(ends(rows, &between), ada("2026-03-22T00:00:00Z"));
    }

    #[test]
    fn doubts_do_not_count_and_are_told() {
        let second = json!({"trans_num": "ch_1"});
        let rows = vec![
            row(1, 1, "ada", "2026-02-20T00:00:00Z", json!({})),
            row(2, 1, "ada", "2026-02-20T00:01:00Z", second),
        ];
        let found = find(rows, &configuration(), &AccessList::default(), at(NOW));
        let customer = &found.names[0].customers[0];
        assert_eq!(customer.doubts.len(), 1);
        assert_eq!(customer.doubts[0].1, ReviewReason::SuspectedDuplicate);
        assert_eq!(customer.subscription_type, "monthly");
        let stacked = vec![row(
            1,
            1,
            "ada",
            "2026-02-20T00:00:00Z",
            json!({"product_id": 200}),
        )];
        let live = known("2026-03-10T00:00:00Z", "2026-02-15T00:00:00Z");
        assert_eq!(ends(stacked, &live), ada("2026-03-10T00:00:00Z"));
    }

    #[test]
    fn customers_of_one_name_stand_together_and_who_has_nothing_is_left_out() {
        let rows = vec![
            row(1, 9, "Ada", "2026-02-20T00:00:00Z", json!({})),
            row(2, 3, "@ada", "2026-02-10T00:00:00Z", json!({})),
            row(3, 4, "lapsed", "2025-02-10T00:00:00Z", json!({})),
            row(
                4,
                5,
                "refunded",
                "2026-02-10T00:00:00Z",
                json!({"status": "refunded"}),
            ),
            row(5, 6, "wrong name", "2026-02-10T00:00:00Z", json!({})),
        ];
        let found = find(rows, &configuration(), &AccessList::default(), at(NOW));
        let names: Vec<(u64, usize, bool)> = (found.names.iter())
            .map(|name| (name.first().0, name.customers.len(), name.name.is_ok()))
            .collect();
        assert_eq!(names, [(3, 2, true), (6, 1, false)]);
    }
}
