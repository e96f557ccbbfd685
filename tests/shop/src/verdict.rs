//! What everybody's access is held against, and how it is told when it is not right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use crate::holds::Write;
use crate::play::{Play, plain, was_taken_back};
use crate::reckoning::{DAY, End, Row, Second};
use crate::site::Answer;
use crate::story::{self, SCRIPTS};

/// How long it may take, with the longest outage, until money given back or another name has had its effect.
const MAY_TAKE: Second = 25 * DAY;

/// The judge.
pub struct Verdict;

impl Verdict {
    /// What is wrong with somebody's access now. Before the `last` time, only of those with whom nothing waits.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub async fn of(play: &Play, last: bool) -> Result<Vec<String>, String> {
        let now = play.site.now() / 1000;
        let mut faults = Vec::new();
        for script in SCRIPTS {
            let listed = play
                .site
                .sandbox("GET", &format!("access/{script}"), None)
                .await?;
            let mut found: BTreeMap<String, End> = BTreeMap::new();
            for user in listed.as_array().into_iter().flatten() {
                let name = user["username"].as_str().unwrap_or_default();
                let end = match user["expiration"].as_str() {
                    Some(end) => End::At(
                        end.parse::<jiff::Timestamp>()
                            .map_err(crate::site::text)?
                            .as_second(),
                    ),
                    None => End::Never,
                };
                if found.insert(name.to_ascii_lowercase(), end).is_some() {
                    faults.push(format!("{name} is listed twice for {script}"));
                }
            }
            Self::of_script(play, last, script, now, &mut found, &mut faults);
            if last {
                Self::of_master_data(play, script, now, &mut faults).await?;
            }
        }
        if last {
            Self::of_mails(play, &mut faults).await?;
        }
        Ok(faults)
    }

    fn of_script(
        play: &Play,
        last: bool,
        script: &'static str,
        now: Second,
        found: &mut BTreeMap<String, End>,
        faults: &mut Vec<String>,
    ) {
        // Whoever shares a name shares what is listed for it.
        let mut by_name: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (number, typed) in &play.typed {
            by_name.entry(plain(typed)).or_default().push(*number);
        }
        let mut unsettled = Vec::new();
        for (name, customers) in by_name {
            let has = found.remove(&name).unwrap_or(End::None);
            let waits = |number: &u32| {
                let changed = play.changed.get(number);
                !play.holds.is_settled(*number) || changed.is_some_and(|changed| now - changed < MAY_TAKE)
            };
            if !last && customers.iter().any(waits) {
                unsettled.extend(customers);
                continue;
            }
            let mut expected = End::None;
            if play.known.contains(&name) {
                let ends =
                    (customers.iter()).map(|number| play.holds.end(*number, &rows(play, *number), script));
                expected = ends.max().unwrap_or(End::None);
            }
            let over = |end: End| end <= End::At(now);
            if has != expected && !(over(has) && over(expected)) {
                for number in customers {
                    faults.push(Self::about(play, number, script, expected, has));
                }
            }
        }
        for had in play
            .story
            .had
            .iter()
            .filter(|had| had.script == script && had.customer.is_none())
        {
            let has = found.remove(&had.name.to_ascii_lowercase());
            if has != Some(had.end) {
                faults.push(format!(
                    "{} whom the shop does not know had {} on {script} and has {}",
                    had.name,
                    told(had.end),
                    told(has.unwrap_or(End::None))
                ));
            }
        }
        for (name, end) in found {
            let moving = unsettled
                .iter()
                .any(|number| name.contains(&format!("trader-{number}_")));
            if *end > End::At(now) && !moving {
                faults.push(format!(
                    "{name} has {script} until {} and is nobody's name now",
                    told(*end)
                ));
            }
        }
    }

    /// The sync's own books have to say what the access API says, of all that is not over.
    async fn of_master_data(
        play: &Play,
        script: &'static str,
        now: Second,
        faults: &mut Vec<String>,
    ) -> Result<(), String> {
        let path = format!("/api/access/scripts/{script}");
        let body = match play.site.call("GET", &path, None).await {
            Some(Answer { status: 200, body }) => body,
            other => return Err(format!("{path} was answered {other:?}")),
        };
        let listed = play
            .site
            .sandbox("GET", &format!("access/{script}"), None)
            .await?;
        let listed: BTreeMap<&str, &Value> = listed
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|user| Some((user["username"].as_str()?, &user["expiration"])))
            .collect();
        for (name, user) in body["users"].as_object().into_iter().flatten() {
            let end = |value: &Value| value.as_str().and_then(|end| end.parse::<jiff::Timestamp>().ok());
            let (said, is) = (
                end(&user["expiry"]),
                listed.get(name.as_str()).and_then(|value| end(value)),
            );
            let lives = |end: Option<jiff::Timestamp>| end.is_some_and(|end| end.as_second() > now);
            // What was given by hand is taken in when something else happens.
            let by_hand = (play.typed.iter())
                .filter(|(_, typed)| plain(typed) == name.to_ascii_lowercase())
                .any(|(number, _)| play.holds.given_by_hand(*number, script) != End::None);
            if (lives(said) || lives(is)) && said != is && !by_hand {
                faults.push(format!(
                    "the master data of {script} say {said:?} of {name}, the access API {is:?}"
                ));
            }
        }
        Ok(())
    }

    /// A letter about a wrong name goes to those who gave one, once and at most twice more, and to nobody else. One that
    /// was on its way when the process was killed may come again, under the Message-ID that it had.
    async fn of_mails(play: &Play, faults: &mut Vec<String>) -> Result<(), String> {
        let mails = play.site.sandbox("GET", "mail", None).await?;
        let mut got: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for mail in mails.as_array().into_iter().flatten() {
            let of = |name: &str| mail[name].as_str().unwrap_or_default();
            got.entry(of("to")).or_default().insert(of("message_id"));
        }
        for (number, customer) in &play.story.customers {
            let mails = got
                .get(format!("customer{number}@example.com").as_str())
                .map_or(0, BTreeSet::len);
            let wrong = !play.known.contains(&plain(&customer.typed));
            if !wrong && mails > 0 || mails > 3 {
                faults.push(format!(
                    "customer {number}, who typed {}, got {mails} mails",
                    customer.typed
                ));
            }
            if wrong && mails == 0 && play.holds.was_unknown(&plain(&customer.typed)) {
                faults.push(format!(
                    "customer {number}, who typed {}, got no mail",
                    customer.typed
                ));
            }
        }
        Ok(())
    }

    /// What is wrong with a write that lowers an end, unless it may.
    pub fn shortened(play: &Play, write: &Write, before: End) -> Option<String> {
        let owners: Vec<u32> = play
            .typed
            .iter()
            .filter(|(_, typed)| plain(typed) == write.name)
            .map(|(number, _)| *number)
            .collect();
        let may = owners.is_empty() || owners.iter().any(|number| was_taken_back(play.shop.get(number)));
        (!may).then(|| {
            let about: String = owners
                .iter()
                .map(|number| Self::story_of(play, *number, ""))
                .collect();
            format!(
                "a write lowered {} on {} from {} to {} at {}, though nothing was taken back\n{about}",
                write.name,
                write.script,
                told(before),
                told(write.end),
                story::time(write.at / 1000),
            )
        })
    }

    /// How many ends were reckoned, each to the second.
    pub fn ends(play: &Play) -> String {
        let (mut ends, mut delays, mut longest) = (0_usize, 0_usize, 0);
        for number in play.story.customers.keys() {
            let rows = rows(play, *number);
            let reckoned = SCRIPTS.map(|script| play.holds.end(*number, &rows, script));
            ends += reckoned.iter().filter(|end| **end != End::None).count();
            let credits = play.holds.credits(*number);
            delays += credits.len();
            longest = longest.max(credits.into_values().max().unwrap_or(0));
        }
        format!("{ends} ends reckoned to the second, {delays} delays given back, the longest of {longest} s")
    }

    fn about(play: &Play, number: u32, script: &'static str, expected: End, found: End) -> String {
        let difference = match (expected, found) {
            (End::At(expected), End::At(found)) if found < expected => {
                format!(" ({} s too short)", expected - found)
            }
            (End::At(expected), End::At(found)) => format!(" ({} s too long)", found - expected),
            _ => String::new(),
        };
        format!(
            "customer {number} on {script}\n  expected {}\n  found    {}{difference}\n{}",
            told(expected),
            told(found),
            Self::story_of(play, number, script)
        )
    }

    /// A customer's rows, delays and writes.
    pub fn story_of(play: &Play, number: u32, script: &str) -> String {
        let mut text = format!("  typed {:?}\n", play.typed.get(&number));
        for row in rows(play, number) {
            let _ = writeln!(
                text,
                "  row {} product {} {:?} {:?} of {} until {}{}{}{}{}",
                row.id,
                row.product,
                row.kind,
                row.status,
                story::time(row.created),
                match row.expires {
                    crate::reckoning::Expires::At(end) => story::time(end).to_string(),
                    other => format!("{other:?}"),
                },
                if row.subscription == 0 {
                    String::new()
                } else {
                    format!(", subscription {}", row.subscription)
                },
                if row.cents == 0 { ", nothing paid" } else { "" },
                if row.orphaned {
                    ", its member was deleted"
                } else {
                    ""
                },
                row.cut
                    .map_or_else(String::new, |end| format!(", now until {}", story::time(end))),
            );
        }
        for had in play.story.had.iter().filter(|had| had.customer == Some(number)) {
            let _ = writeln!(text, "  had {} until {} at first", had.script, told(had.end));
        }
        for event in play.story.events.iter().filter(|event| event.customer == number) {
            if !matches!(event.what, story::Happening::Sold(_)) {
                let _ = writeln!(text, "  at {} {:?}", story::time(event.at), event.what);
            }
        }
        for ((row, on), credit) in play.holds.credits(number) {
            let _ = writeln!(text, "  the delay of row {row} on {on} is worth {credit} s");
        }
        for (row, on) in play.holds.held(number) {
            let _ = writeln!(text, "  row {row} on {on} was read and is not settled");
        }
        let name = play
            .typed
            .get(&number)
            .map(|typed| plain(typed))
            .unwrap_or_default();
        for ((on, other), writes) in &play.written {
            if (on == script || script.is_empty()) && *other == name {
                for (at, end) in writes {
                    let _ = writeln!(
                        text,
                        "  written at {}: {on} until {}",
                        story::time(at / 1000),
                        told(*end)
                    );
                }
            }
        }
        text
    }
}

fn rows(play: &Play, number: u32) -> Vec<Row> {
    let rows = play.shop.get(&number).into_iter().flatten();
    rows.map(|(_, row)| row.clone()).collect()
}

fn told(end: End) -> String {
    match end {
        End::None => "no access".to_owned(),
        End::At(end) => story::time(end).to_string(),
        End::Never => "for ever".to_owned(),
    }
}
