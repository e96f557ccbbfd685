//! Walking through MemberPress's list page by page while rows arrive and go (facts/access.md A6, "Page numbers
//! shift").
//!
//! Pages are counted from the beginning of a list that is ordered by id. From the oldest on, new rows come at the
//! end and move nothing; from the newest on they push rows to later pages, where those are seen again and left out.
//! A row that is deleted pulls later ones forward, onto a page that was read already; that shows in the total, and
//! then the walk steps back until it sees a row again that it has had. A shop that does not order as it was asked to
//! gives what it gives: nothing is left out then, and nothing is stopped early.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::fields;
use super::super::times::{self, DayEdge, SourceTime};

/// How often one walk steps back. A shop from which more goes away while it is read is not read in peace anyway; the
/// guards see that by its total.
const MOST_STEPS_BACK: u32 = 50;

/// Which end of the list a walk begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// With the oldest row.
    OldestFirst,
    /// With the newest row, until all rows of a page are older than this.
    NewestFirst(Timestamp),
}

/// Where a walk through the whole list goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageMark {
    /// The page to read next, counted from 1.
    page: u32,
    /// How many rows a page was asked to have.
    per_page: u32,
    /// The last row's id.
    last_id: Option<u64>,
    /// The last total that the shop named.
    total: Option<u64>,
}

/// A page as it came.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    /// The rows.
    pub(super) rows: Vec<Value>,
    /// How many rows there are in all, where the shop says so (`X-WP-Total`).
    pub(super) total: Option<u64>,
    /// How many pages there are, where the shop says so (`X-WP-TotalPages`).
    pub(super) pages: Option<u32>,
}

/// The shop gives the same page whatever page it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SamePage;

/// A walk through the pages.
#[derive(Debug)]
pub(super) struct Walk {
    order: Order,
    per_page: u32,
    page: u32,
    last_id: Option<u64>,
    total: Option<u64>,
    /// Whether all pages so far were ordered as they were asked to be.
    ordered: bool,
    /// Whether the next page has to hold a row that was had already, or one before it.
    overlap: bool,
    steps_back: u32,
    /// The longest page so far, by which a shorter one is known for the last where the shop does not say.
    longest: usize,
    /// The ids of the page before, in a shop that does not say how many pages there are.
    before: Vec<Option<u64>>,
    finished: bool,
}

impl Walk {
    /// From the beginning, by pages of `per_page` rows.
    pub(super) fn new(order: Order, per_page: u32) -> Self {
        Self {
            order,
            per_page,
            page: 1,
            last_id: None,
            total: None,
            ordered: true,
            overlap: false,
            steps_back: 0,
            longest: 0,
            before: Vec::new(),
            finished: false,
        }
    }

    /// From a mark on, oldest first. Time has passed since, so it begins with the page before. A mark that was made
    /// for pages of another length begins anew.
    pub(super) fn resume(mark: &PageMark, per_page: u32) -> Self {
        let mut walk = Self::new(Order::OldestFirst, per_page);
        if mark.per_page == per_page && mark.last_id.is_some() && mark.page > 1 {
            walk.page = mark.page.saturating_sub(1);
            walk.last_id = mark.last_id;
            walk.total = mark.total;
            walk.overlap = true;
        }
        walk
    }

    /// The page to ask for; `None` when the walk is over.
    pub(super) fn page(&self) -> Option<u32> {
        (!self.finished).then_some(self.page)
    }

    /// Which order to ask for.
    pub(super) fn order(&self) -> Order {
        self.order
    }

    /// Where to go on after what was taken last; only from the oldest on, and only while the order holds.
    pub(super) fn mark(&self) -> Option<PageMark> {
        (self.order == Order::OldestFirst && self.ordered).then_some(PageMark {
            page: self.page,
            per_page: self.per_page,
            last_id: self.last_id,
            total: self.total,
        })
    }

    /// Takes the page that was asked for and gives the rows on it that are new to the walk; `None` where it steps
    /// back first. `zone` is the zone of times that name none.
    ///
    /// # Errors
    /// [`SamePage`], so that a walk ends.
    pub(super) fn take(&mut self, page: Page, zone: &TimeZone) -> Result<Option<Vec<Value>>, SamePage> {
        let ids: Vec<Option<u64>> = page.rows.iter().map(id).collect();
        if !self.is_ordered(&ids) {
            self.ordered = false;
        }
        let shrunken = matches!((self.total, page.total), (Some(before), Some(now)) if now < before);
        self.total = page.total.or(self.total);
        if self.ordered && self.last_id.is_some() && self.page > 1 && self.steps_back < MOST_STEPS_BACK {
            let beyond = !ids.iter().flatten().any(|id| !self.is_beyond(*id));
            if shrunken || (self.overlap && beyond) {
                self.overlap = true;
                self.steps_back = self.steps_back.saturating_add(1);
                self.page = self.page.saturating_sub(1);
                return Ok(None);
            }
        }
        if page.pages.is_none() && !self.overlap {
            if !ids.is_empty() && ids == self.before {
                return Err(SamePage);
            }
            self.before.clone_from(&ids);
        }
        self.overlap = false;
        self.longest = self.longest.max(page.rows.len());
        self.finished = match page.pages {
            Some(pages) => self.page >= pages || page.rows.is_empty(),
            None => page.rows.len() < self.longest || page.rows.is_empty(),
        } || self.is_past(&page.rows, zone);
        self.page = self.page.saturating_add(1);
        let rows = if self.ordered {
            let known = self.last_id;
            let is_new =
                |id: &Option<u64>| id.is_none_or(|id| known.is_none_or(|known| self.follows(id, known)));
            let new: Vec<bool> = ids.iter().map(is_new).collect();
            page.rows
                .into_iter()
                .zip(new)
                .filter_map(|(row, new)| new.then_some(row))
                .collect()
        } else {
            page.rows
        };
        for id in ids.into_iter().flatten() {
            if self.is_beyond(id) {
                self.last_id = Some(id);
            }
        }
        Ok(Some(rows))
    }

    /// Whether the ids on a page are ordered as they should be, as far as they are numbers.
    fn is_ordered(&self, ids: &[Option<u64>]) -> bool {
        let known: Vec<u64> = ids.iter().flatten().copied().collect();
        known
            .iter()
            .zip(known.iter().skip(1))
            .all(|(id, next)| self.follows(*next, *id))
    }

    /// Whether `id` comes after `known` in the order asked for.
    fn follows(&self, id: u64, known: u64) -> bool {
        match self.order {
            Order::OldestFirst => id > known,
            Order::NewestFirst(_) => id < known,
        }
    }

    /// Whether `id` comes after all that was had.
    fn is_beyond(&self, id: u64) -> bool {
        self.last_id.is_none_or(|known| self.follows(id, known))
    }

    /// Whether this page and so all after it are older than what is wanted.
    fn is_past(&self, rows: &[Value], zone: &TimeZone) -> bool {
        let Order::NewestFirst(since) = self.order else {
            return false;
        };
        self.ordered && !rows.is_empty() && rows.iter().all(|row| is_older(row, since, zone))
    }
}

/// Whether a row was created before `since`. One of which that cannot be told is not.
fn is_older(row: &Value, since: Timestamp, zone: &TimeZone) -> bool {
    let created = row.get("created_at").unwrap_or(&Value::Null);
    matches!(times::read(created, zone, DayEdge::Last), Ok(SourceTime::At { at, .. }) if at < since)
}

fn id(row: &Value) -> Option<u64> {
    fields::first(row, &["transaction_id", "id"])?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::access::ledger::tests::at;

    /// A shop's list of transactions by their ids, which are the days of their creation, too.
    struct List {
        ids: BTreeSet<u64>,
        /// The most rows on a page, whatever is asked for.
        cap: usize,
        says_totals: bool,
        obeys_order: bool,
    }

    impl List {
        fn of(count: u64, cap: usize) -> Self {
            Self {
                ids: (1..=count).collect(),
                cap,
                says_totals: true,
                obeys_order: true,
            }
        }

        fn page(&self, walk: &Walk) -> Option<Page> {
            let number = usize::try_from(walk.page()?).unwrap();
            let mut ids: Vec<u64> = self.ids.iter().copied().collect();
            if matches!(walk.order(), Order::NewestFirst(_)) || !self.obeys_order {
                ids.reverse();
            }
            if !self.obeys_order && matches!(walk.order(), Order::NewestFirst(_)) {
                ids.reverse();
            }
            let rows = ids.iter().skip((number - 1) * self.cap).take(self.cap);
            Some(Page {
                rows: rows.map(|id| row(*id)).collect(),
                total: self.says_totals.then_some(ids.len() as u64),
                pages: self
                    .says_totals
                    .then(|| u32::try_from(ids.len().div_ceil(self.cap)).unwrap()),
            })
        }
    }

    fn row(id: u64) -> Value {
        let created = at("2026-01-01")
            .checked_add(jiff::SignedDuration::from_hours(24 * i64::try_from(id).unwrap()))
            .unwrap();
        json!({"id": id.to_string(), "created_at": created.to_string()})
    }

    fn since(day: u64) -> Order {
        Order::NewestFirst(row(day)["created_at"].as_str().unwrap().parse().unwrap())
    }

    /// The ids that a walk gives, while `meanwhile` happens to the list after each page.
    fn walked(list: &mut List, mut walk: Walk, mut meanwhile: impl FnMut(&mut List, usize)) -> Vec<u64> {
        let mut given = Vec::new();
        for asked in 0.. {
            let Some(page) = list.page(&walk) else { break };
            assert!(asked < 1_000, "the walk does not end");
            let rows = walk.take(page, &TimeZone::UTC).unwrap();
            given.extend(rows.unwrap_or_default().iter().map(|row| id(row).unwrap()));
            meanwhile(list, asked);
        }
        given
    }

    fn undisturbed(list: &mut List, order: Order) -> Vec<u64> {
        walked(list, Walk::new(order, 100), |_, _| {})
    }

    #[test]
    fn all_rows_are_given_once_however_long_pages_are() {
        for (count, cap) in [(0, 5), (1, 5), (5, 5), (12, 5), (10, 100), (7, 1)] {
            for says_totals in [true, false] {
                let mut list = List::of(count, cap);
                list.says_totals = says_totals;
                let given = undisturbed(&mut list, Order::OldestFirst);
                assert_eq!(given, (1..=count).collect::<Vec<_>>(), "{count} by {cap}");
            }
        }
    }

    #[test]
    fn a_walk_from_the_newest_stops_after_a_page_of_what_is_too_old() {
        let mut list = List::of(1_000, 10);
        let given = undisturbed(&mut list, since(975));
        assert_eq!(given, (961..=1_000).rev().collect::<Vec<_>>());
        assert_eq!(undisturbed(&mut list, since(0)).len(), 1_000);
    }

    #[test]
    fn a_shop_that_does_not_order_is_read_to_its_end() {
        let mut list = List::of(50, 10);
        list.obeys_order = false;
        for order in [Order::OldestFirst, since(40)] {
            let given: BTreeSet<u64> = undisturbed(&mut list, order).into_iter().collect();
            assert_eq!(given, list.ids, "{order:?}");
        }
    }

    #[test]
    fn rows_that_arrive_meanwhile_move_nothing_out_of_sight() {
        let mut list = List::of(30, 10);
        let arrive = |list: &mut List, asked: usize| {
            if asked < 3 {
                let newest = *list.ids.last().unwrap();
                list.ids.extend(newest + 1..=newest + 7);
            }
        };
        let given = walked(&mut list, Walk::new(Order::OldestFirst, 10), arrive);
        assert_eq!(given, (1..=51).collect::<Vec<_>>());

        let mut list = List::of(30, 10);
        let given = walked(&mut list, Walk::new(since(0), 10), arrive);
        assert_eq!(given, (1..=30).rev().collect::<Vec<_>>());
    }

    #[test]
    fn a_row_that_a_deleted_one_pulls_forward_is_found() {
        let mut list = List::of(30, 10);
        let given = walked(&mut list, Walk::new(Order::OldestFirst, 10), |list, asked| {
            if asked == 0 {
                list.ids.retain(|id| *id > 3);
            }
        });
        assert_eq!(given, (1..=30).collect::<Vec<_>>());
    }

    #[test]
    fn a_walk_goes_on_from_its_mark_though_rows_were_deleted() {
        let mut list = List::of(50, 10);
        let mut walk = Walk::new(Order::OldestFirst, 100);
        let mut given = Vec::new();
        for _ in 0..3 {
            let rows = walk.take(list.page(&walk).unwrap(), &TimeZone::UTC).unwrap();
            given.extend(rows.unwrap().iter().map(|row| id(row).unwrap()));
        }
        let mark = serde_json::to_string(&walk.mark().unwrap()).unwrap();
        let mark: PageMark = serde_json::from_str(&mark).unwrap();
        // More than a page of what was read already.
        list.ids.retain(|id| *id > 13);
        given.extend(walked(&mut list, Walk::resume(&mark, 100), |_, _| {}));
        assert_eq!(given, (1..=50).collect::<Vec<_>>());
        // Pages of another length are counted otherwise.
        let anew = walked(&mut list, Walk::resume(&mark, 20), |_, _| {});
        assert_eq!(anew, (14..=50).collect::<Vec<_>>());
    }

    #[test]
    fn a_shop_that_knows_no_pages_is_noticed() {
        let page = || Page {
            rows: (1..=10).map(row).collect(),
            ..Page::default()
        };
        let mut walk = Walk::new(Order::OldestFirst, 10);
        assert_eq!(walk.take(page(), &TimeZone::UTC).unwrap().unwrap().len(), 10);
        assert_eq!(walk.take(page(), &TimeZone::UTC), Err(SamePage));
    }

    proptest! {
        /// Whatever comes and goes, a row that is there all the time is given. Between two pages rows either come or
        /// go: if as many come as go, nothing tells that any went.
        #[test]
        fn what_is_there_all_the_time_is_given(
            count in 0_u64..60,
            cap in 1_usize..12,
            newest_first in any::<bool>(),
            changes in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), 1_u64..4), 0..30),
        ) {
            let mut list = List::of(count, cap);
            let mut lasting = list.ids.clone();
            let order = if newest_first { since(0) } else { Order::OldestFirst };
            let given = walked(&mut list, Walk::new(order, 100), |list, asked| {
                match changes.get(asked) {
                    Some((true, _, more)) => {
                        let newest = list.ids.last().copied().unwrap_or(count);
                        list.ids.extend(newest + 1..=newest + more);
                    }
                    Some((false, index, _)) if !list.ids.is_empty() => {
                        let gone = *index.get(&list.ids.iter().copied().collect::<Vec<_>>());
                        list.ids.remove(&gone);
                        lasting.remove(&gone);
                    }
                    _ => {}
                }
            });
            let given: BTreeSet<u64> = given.into_iter().collect();
            prop_assert!(lasting.is_subset(&given), "missing: {:?}", lasting.difference(&given));
        }
    }
}
