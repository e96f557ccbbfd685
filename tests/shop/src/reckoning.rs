//! What each customer's access has to come to, reckoned from `facts/access.md` alone.
//!
//! Nothing of Berth is used or imitated here: this is the second opinion. It reckons in plain whole seconds, row by row,
//! for one person and one script, and knows nothing of runs, stores or calls. What a delay is worth is handed in.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// A moment in Unix seconds.
pub type Second = i64;

/// A day in seconds.
pub const DAY: Second = 86_400;

/// Two rows of one sale come within this time.
const DOUBLED_WITHIN: Second = 600;

/// How much earlier than its predecessor's end a renewal may come and still follow on it.
const EARLY_RENEWAL: Second = 8 * DAY;

/// When access ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// There never was any.
    None,
    /// At this moment.
    At(Second),
    /// Never.
    Never,
}

/// What a plan's length is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Of 86,400 seconds.
    Day,
    /// Of the calendar.
    Month,
    /// Of the calendar.
    Year,
}

/// How long a product's plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// So many units.
    Of(i64, Unit),
    /// For ever.
    Lifetime,
}

/// What is sold.
#[derive(Debug, Clone)]
pub struct Product {
    /// The scripts that it opens.
    pub scripts: Vec<&'static str>,
    /// How long it opens them.
    pub plan: Plan,
    /// Whether a purchase adds to what is there.
    pub stacking: bool,
}

/// The shop's products by their number.
pub type Products = BTreeMap<u32, Product>;

/// What kind of row it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A payment.
    Payment,
    /// The confirmation of a subscription: a trial, or the first day until the payment comes.
    Confirmation,
    /// A row that MemberPress makes up.
    Fallback,
    /// A member of somebody else's account, who paid nothing.
    SubAccount,
}

/// How a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Pending,
    Failed,
    Complete,
    Confirmed,
    Refunded,
}

/// When a row says that it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expires {
    /// It does not say; the plan does.
    Unsaid,
    /// It says never, with a date of zeros.
    Zero,
    /// At this moment.
    At(Second),
}

/// How a row was paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    Stripe,
    Offline,
    Manual,
    Free,
}

/// One transaction of the shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub id: u64,
    pub product: u32,
    /// 0 is none.
    pub subscription: u64,
    pub kind: Kind,
    pub status: Status,
    pub created: Second,
    pub expires: Expires,
    pub cents: u32,
    pub gateway: Gateway,
    /// The gateway's own number of the payment.
    pub number: String,
    /// An earlier end than the one that it said first, which somebody has given it since.
    pub cut: Option<Second>,
    /// Whether its member was deleted.
    pub orphaned: bool,
}

impl Row {
    /// When it says now that it ends.
    pub fn present_end(&self) -> Expires {
        self.cut.map_or(self.expires, Expires::At)
    }
}

/// What a person had on a script before the sync was set up, or was given by hand since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    /// When it ended.
    pub end: End,
    /// Rows created up to then are contained in it.
    pub taken: Second,
    /// But for these, which were known then and not granted yet.
    pub except: BTreeSet<u64>,
}

/// What an eligible row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Adds its time.
    Paid,
    /// Lends access up to its end.
    Provisional,
}

/// What a row does to a person's access, if it does anything.
fn effect(row: &Row) -> Option<Effect> {
    match (row.kind, row.status) {
        _ if row.orphaned => None,
        (Kind::SubAccount, Status::Complete) => Some(Effect::Paid),
        (Kind::Payment, Status::Complete) if row.cents > 0 || row.gateway == Gateway::Manual => {
            Some(Effect::Paid)
        }
        (Kind::Confirmation, Status::Confirmed) => Some(Effect::Provisional),
        _ => None,
    }
}

/// Whether a row may give access at all, as it stands.
pub fn is_eligible(row: &Row) -> bool {
    effect(row).is_some()
}

/// A person's rows that count, in their order: eligible, and not the second row of one sale.
fn counted(rows: &[Row]) -> Vec<&Row> {
    let mut eligible: Vec<&Row> = rows.iter().filter(|row| is_eligible(row)).collect();
    eligible.sort_by_key(|row| (row.created, row.id));
    let mut counted: Vec<&Row> = Vec::new();
    for row in eligible {
        let doubled = counted.iter().any(|first| {
            first.number == row.number
                || first.product == row.product
                    && first.cents == row.cents
                    && row.created - first.created <= DOUBLED_WITHIN
        });
        if !doubled {
            counted.push(row);
        }
    }
    counted
}

/// A moment so many calendar units later; a day that a month does not have becomes its last.
fn later(from: Second, count: i64, unit: Unit) -> Second {
    let span = match unit {
        Unit::Day => return from + count * DAY,
        Unit::Month => Span::new().months(count),
        Unit::Year => Span::new().years(count),
    };
    let from = Timestamp::from_second(from).expect("a time within the calendar");
    let later = TimeZone::UTC.to_datetime(from).checked_add(span);
    let later = later.expect("a time within the calendar");
    TimeZone::UTC
        .to_timestamp(later)
        .expect("UTC has no gaps")
        .as_second()
}

/// How long a paid row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// As the shop says.
    Source(Second),
    /// As the plan says.
    Plan(i64, Unit),
    /// For ever.
    Lifetime,
    /// Not to be believed: somebody has to look at it.
    Doubtful,
}

fn length(row: &Row, before: Option<&Row>, plan: Plan) -> Length {
    match (row.expires, plan) {
        (Expires::Zero | Expires::Unsaid, Plan::Lifetime) => Length::Lifetime,
        (Expires::Zero, Plan::Of(..)) => Length::Doubtful,
        (Expires::Unsaid, Plan::Of(count, unit)) => Length::Plan(count, unit),
        (Expires::At(end), plan) => {
            let before = before.and_then(|before| match before.present_end() {
                Expires::At(end) if end - row.created <= EARLY_RENEWAL => Some(end),
                _ => None,
            });
            let from = row.created.max(before.unwrap_or(row.created));
            let length = end - from;
            let Plan::Of(count, unit) = plan else {
                return Length::Doubtful;
            };
            let planned = later(from, count, unit) - from;
            let allowed = (3 * DAY).max(planned * 15 / 100);
            if length <= 0 || (length - planned).abs() > allowed {
                Length::Doubtful
            } else {
                // An earlier end is no reason for doubt where it was given later.
                Length::Source(row.cut.map_or(length, |cut| (cut - from).max(0)))
            }
        }
    }
}

/// Same-unit plans that follow one another without a gap, reckoned from where the first began.
#[derive(Debug, Clone, Copy)]
struct Chain {
    anchor: Second,
    count: i64,
    unit: Unit,
}

/// When a person's access to a script ends, by the person's rows as they stand. `credit` tells how much a row's delay is
/// worth on this script, in seconds.
pub fn fold(
    rows: &[Row],
    script: &str,
    products: &Products,
    baseline: Option<&Baseline>,
    credit: &dyn Fn(u64) -> Second,
) -> End {
    after_each(rows, script, products, baseline, credit)
        .last()
        .map_or_else(
            || baseline.map_or(End::None, |baseline| baseline.end),
            |(_, end)| *end,
        )
}

/// When a person's access to a script ends after each of the rows that count, in their order.
pub fn after_each(
    rows: &[Row],
    script: &str,
    products: &Products,
    baseline: Option<&Baseline>,
    credit: &dyn Fn(u64) -> Second,
) -> Vec<(u64, End)> {
    let counted = counted(rows);
    let mut end = baseline.map_or(End::None, |baseline| baseline.end);
    let mut chain: Option<Chain> = None;
    let mut ends = Vec::new();
    for (index, row) in counted.iter().enumerate() {
        let Some(product) = products.get(&row.product) else {
            continue;
        };
        let contained = baseline
            .is_some_and(|baseline| row.created <= baseline.taken && !baseline.except.contains(&row.id));
        if contained || !product.scripts.contains(&script) {
            continue;
        }
        let before = counted[..index]
            .iter()
            .rev()
            .find(|before| before.subscription != 0 && before.subscription == row.subscription);
        let live = end > End::At(row.created);
        // Where the row's own time begins.
        let (base, follows) = match end {
            End::At(end) if end >= row.created => (end, true),
            _ => (row.created, false),
        };
        if end != End::Never {
            match effect(row) {
                None => continue,
                Some(Effect::Provisional) => {
                    if let Expires::At(lent) = row.expires
                        && End::At(lent) > end
                    {
                        (end, chain) = (End::At(lent), None);
                    }
                }
                Some(Effect::Paid) if !product.stacking && live => continue,
                Some(Effect::Paid) => match length(row, before.copied(), product.plan) {
                    Length::Doubtful => continue,
                    Length::Lifetime => end = End::Never,
                    Length::Source(length) => (end, chain) = (End::At(base + length), None),
                    Length::Plan(count, Unit::Day) => {
                        (end, chain) = (End::At(later(base, count, Unit::Day)), None);
                    }
                    Length::Plan(count, unit) => {
                        let going = chain.filter(|chain| follows && chain.unit == unit);
                        let now = going.map_or(
                            Chain {
                                anchor: base,
                                count,
                                unit,
                            },
                            |chain| Chain {
                                count: chain.count + count,
                                ..chain
                            },
                        );
                        (end, chain) = (End::At(later(now.anchor, now.count, unit)), Some(now));
                    }
                },
            }
            let credited = credit(row.id);
            if let End::At(before) = end
                && credited > 0
            {
                (end, chain) = (End::At(before + credited), None);
            }
        }
        ends.push((row.id, end));
    }
    ends
}

/// An end with the grace that follows on it where the renewal failed that should have come by then.
pub fn with_grace(end: End, rows: &[Row], script: &str, products: &Products, grace: Second) -> End {
    let End::At(at) = end else { return end };
    let counted = counted(rows);
    let opens = |row: &Row| {
        let product = products.get(&row.product);
        product.is_some_and(|product| product.scripts.contains(&script))
    };
    let failed = rows.iter().any(|failed| {
        let renewals =
            || (counted.iter()).filter(|row| row.subscription == failed.subscription && opens(row));
        failed.status == Status::Failed
            && !failed.orphaned
            && failed.subscription != 0
            && opens(failed)
            && failed.created >= at - EARLY_RENEWAL
            && renewals().any(|row| row.created <= failed.created)
            && !renewals().any(|row| row.created > failed.created)
    });
    if failed { End::At(at + grace) } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Second {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    fn products() -> Products {
        let product = |plan, stacking| Product {
            scripts: vec!["S"],
            plan,
            stacking,
        };
        Products::from([
            (1, product(Plan::Of(1, Unit::Month), true)),
            (3, product(Plan::Of(3, Unit::Month), true)),
            (12, product(Plan::Of(1, Unit::Year), true)),
            (30, product(Plan::Of(30, Unit::Day), true)),
            (60, product(Plan::Of(1, Unit::Month), false)),
            (99, product(Plan::Lifetime, true)),
        ])
    }

    fn paid(id: u64, product: u32, created: &str) -> Row {
        Row {
            id,
            product,
            subscription: 0,
            kind: Kind::Payment,
            status: Status::Complete,
            created: at(created),
            expires: Expires::Unsaid,
            cents: 4900,
            gateway: Gateway::Stripe,
            number: format!("ch_{id}"),
            cut: None,
            orphaned: false,
        }
    }

    fn recurring(id: u64, created: &str, expires: &str) -> Row {
        Row {
            subscription: 7,
            expires: Expires::At(at(expires)),
            ..paid(id, 1, created)
        }
    }

    fn ends_at(rows: &[Row]) -> End {
        fold(rows, "S", &products(), None, &|_| 0)
    }

    #[test]
    fn recurring_rows_end_where_the_shop_says_after_each_renewal() {
        // The second is paid on its predecessor's last day, the third half a day late.
        let rows = [
            recurring(1, "2031-01-10T08:00:00Z", "2031-02-10T23:59:59Z"),
            recurring(2, "2031-02-10T03:00:00Z", "2031-03-10T23:59:59Z"),
            recurring(3, "2031-03-11T12:00:00Z", "2031-04-10T23:59:59Z"),
        ];
        for count in 1..=3 {
            let Expires::At(expected) = rows[count - 1].expires else {
                panic!()
            };
            assert_eq!(ends_at(&rows[..count]), End::At(expected));
        }
    }

    #[test]
    fn a_trial_lends_and_the_payment_follows_on_it() {
        let trial = Row {
            kind: Kind::Confirmation,
            status: Status::Confirmed,
            cents: 0,
            ..recurring(1, "2031-01-10T08:00:00Z", "2031-01-17T23:59:59Z")
        };
        assert_eq!(
            ends_at(std::slice::from_ref(&trial)),
            End::At(at("2031-01-17T23:59:59Z"))
        );
        let payment = recurring(2, "2031-01-17T03:00:00Z", "2031-02-17T23:59:59Z");
        assert_eq!(ends_at(&[trial, payment]), End::At(at("2031-02-17T23:59:59Z")));
    }

    #[test]
    fn months_that_follow_one_another_keep_the_day_that_the_first_began_on() {
        let rows = [
            paid(1, 1, "2031-01-31T10:00:00Z"),
            paid(2, 1, "2031-02-20T10:00:00Z"),
            paid(3, 3, "2031-02-21T10:00:00Z"),
        ];
        assert_eq!(ends_at(&rows[..1]), End::At(at("2031-02-28T10:00:00Z")));
        assert_eq!(ends_at(&rows[..2]), End::At(at("2031-03-31T10:00:00Z")));
        assert_eq!(ends_at(&rows), End::At(at("2031-06-30T10:00:00Z")));
        // A year is another unit, and begins anew at the end before it.
        let leap = [
            paid(1, 1, "2032-01-31T10:00:00Z"),
            paid(2, 12, "2032-02-01T00:00:00Z"),
        ];
        assert_eq!(ends_at(&leap), End::At(at("2033-02-28T10:00:00Z")));
    }

    #[test]
    fn a_credit_adds_its_time_and_begins_the_months_anew() {
        let rows = [
            paid(1, 1, "2031-01-31T10:00:00Z"),
            paid(2, 1, "2031-02-20T10:00:00Z"),
        ];
        let credited = |id: u64| if id == 1 { 3600 } else { 0 };
        let end = fold(&rows, "S", &products(), None, &credited);
        assert_eq!(end, End::At(at("2031-03-28T11:00:00Z")));
    }

    #[test]
    fn a_purchase_after_a_gap_begins_when_it_was_made() {
        let rows = [
            paid(1, 30, "2031-01-01T00:00:00Z"),
            paid(2, 30, "2031-03-01T00:00:00Z"),
        ];
        assert_eq!(ends_at(&rows), End::At(at("2031-03-31T00:00:00Z")));
    }

    #[test]
    fn a_refund_in_the_middle_leaves_the_rest_as_if_it_had_never_been() {
        let mut rows = [
            paid(1, 30, "2031-01-01T00:00:00Z"),
            paid(2, 30, "2031-01-10T00:00:00Z"),
            paid(3, 30, "2031-01-20T00:00:00Z"),
        ];
        assert_eq!(ends_at(&rows), End::At(at("2031-04-01T00:00:00Z")));
        rows[1].status = Status::Refunded;
        assert_eq!(ends_at(&rows), End::At(at("2031-03-02T00:00:00Z")));
    }

    #[test]
    fn the_second_row_of_one_sale_adds_nothing() {
        let rows = [
            paid(1, 30, "2031-01-01T00:00:00Z"),
            paid(2, 30, "2031-01-01T00:09:59Z"),
        ];
        assert_eq!(ends_at(&rows), End::At(at("2031-01-31T00:00:00Z")));
    }

    #[test]
    fn without_stacking_a_purchase_counts_only_where_access_is_over() {
        let rows = [
            paid(1, 60, "2031-01-01T00:00:00Z"),
            paid(2, 60, "2031-01-20T00:00:00Z"),
            paid(3, 60, "2031-03-01T00:00:00Z"),
        ];
        assert_eq!(ends_at(&rows), End::At(at("2031-04-01T00:00:00Z")));
    }

    #[test]
    fn for_ever_stays_for_ever_and_a_date_of_zeros_is_believed_of_such_a_product_only() {
        let lifetime = Row {
            expires: Expires::Zero,
            ..paid(1, 99, "2031-01-01T00:00:00Z")
        };
        let after = paid(2, 30, "2031-02-01T00:00:00Z");
        assert_eq!(ends_at(&[lifetime, after]), End::Never);
        let doubtful = Row {
            expires: Expires::Zero,
            ..paid(1, 30, "2031-01-01T00:00:00Z")
        };
        assert_eq!(ends_at(&[doubtful]), End::None);
    }

    #[test]
    fn what_was_there_before_contains_the_rows_up_to_it() {
        let baseline = Baseline {
            end: End::At(at("2031-02-10T23:59:59Z")),
            taken: at("2031-02-01T00:00:00Z"),
            except: BTreeSet::new(),
        };
        let rows = [
            recurring(1, "2031-01-10T08:00:00Z", "2031-02-10T23:59:59Z"),
            recurring(2, "2031-02-10T03:00:00Z", "2031-03-10T23:59:59Z"),
        ];
        let end = |rows: &[Row]| fold(rows, "S", &products(), Some(&baseline), &|_| 0);
        assert_eq!(end(&rows[..1]), End::At(at("2031-02-10T23:59:59Z")));
        assert_eq!(end(&rows), End::At(at("2031-03-10T23:59:59Z")));
    }

    #[test]
    fn what_was_known_but_not_granted_when_more_was_given_by_hand_is_added_to_it() {
        let rows = [
            paid(1, 30, "2031-01-01T00:00:00Z"),
            paid(2, 30, "2031-01-20T00:00:00Z"),
        ];
        let baseline = |except: &[u64]| Baseline {
            end: End::At(at("2031-06-01T00:00:00Z")),
            taken: at("2031-01-21T00:00:00Z"),
            except: except.iter().copied().collect(),
        };
        let end = |baseline| fold(&rows, "S", &products(), Some(&baseline), &|_| 0);
        assert_eq!(end(baseline(&[])), End::At(at("2031-06-01T00:00:00Z")));
        assert_eq!(end(baseline(&[2])), End::At(at("2031-07-01T00:00:00Z")));
    }

    #[test]
    fn an_end_that_was_moved_back_counts_and_is_no_doubt() {
        let mut row = recurring(1, "2031-01-10T08:00:00Z", "2031-02-10T23:59:59Z");
        row.cut = Some(at("2031-01-14T23:59:59Z"));
        assert_eq!(ends_at(&[row]), End::At(at("2031-01-14T23:59:59Z")));
    }

    #[test]
    fn a_deleted_members_rows_give_nothing() {
        let row = Row {
            orphaned: true,
            ..paid(1, 30, "2031-01-01T00:00:00Z")
        };
        assert_eq!(ends_at(&[row]), End::None);
    }

    #[test]
    fn a_sub_account_has_its_time_without_paying() {
        let row = Row {
            kind: Kind::SubAccount,
            cents: 0,
            ..recurring(1, "2031-01-10T08:00:00Z", "2031-02-10T23:59:59Z")
        };
        assert_eq!(ends_at(&[row]), End::At(at("2031-02-10T23:59:59Z")));
    }

    #[test]
    fn a_renewal_that_failed_earns_its_grace_until_it_is_made_up_for() {
        let paid = recurring(1, "2031-01-10T08:00:00Z", "2031-02-10T23:59:59Z");
        let failed = Row {
            status: Status::Failed,
            ..recurring(2, "2031-02-10T12:00:00Z", "2031-03-10T23:59:59Z")
        };
        let made_up = recurring(3, "2031-02-12T12:00:00Z", "2031-03-10T23:59:59Z");
        let ends = |rows: &[Row]| with_grace(ends_at(rows), rows, "S", &products(), 3 * DAY);
        assert_eq!(
            ends(std::slice::from_ref(&paid)),
            End::At(at("2031-02-10T23:59:59Z"))
        );
        assert_eq!(
            ends(&[paid.clone(), failed.clone()]),
            End::At(at("2031-02-13T23:59:59Z"))
        );
        assert_eq!(
            ends(&[paid, failed.clone(), made_up]),
            End::At(at("2031-03-10T23:59:59Z"))
        );
        assert_eq!(ends(&[failed]), End::None);
    }

    #[test]
    fn what_gives_nothing_gives_nothing() {
        let good = paid(1, 30, "2031-01-01T00:00:00Z");
        for nothing in [
            Row {
                status: Status::Pending,
                ..good.clone()
            },
            Row {
                status: Status::Failed,
                ..good.clone()
            },
            Row {
                status: Status::Refunded,
                ..good.clone()
            },
            Row {
                kind: Kind::Fallback,
                ..good.clone()
            },
            Row {
                cents: 0,
                gateway: Gateway::Free,
                ..good.clone()
            },
            Row {
                product: 12,
                expires: Expires::At(good.created + 30 * DAY),
                ..good.clone()
            },
        ] {
            assert_eq!(ends_at(std::slice::from_ref(&nothing)), End::None, "{nothing:?}");
        }
        let comp = Row {
            cents: 0,
            gateway: Gateway::Manual,
            ..good
        };
        assert_eq!(ends_at(&[comp]), End::At(at("2031-01-31T00:00:00Z")));
    }
}
