//! What the access API has, and how an end of access is written to it and read from it (facts/access.md A1,
//! A5, C2 "Wire").

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::configuration::{AccessApi, AccessApiKind, DateMeaning, ExpiryFormat};
use super::duration::DAY_SECONDS;
use super::expiry::Expiry;
use super::fields;
use super::times::{self, DayEdge, SourceTime};

/// How an access API writes ends of access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    format: ExpiryFormat,
    meaning: DateMeaning,
    /// Whether ends come from whole days that are added to other ends.
    relative: bool,
}

/// How much later than the present a peer's may be when it adds to it: the longest that a call takes, and what two
/// clocks differ by.
const LATER_PRESENT: SignedDuration = SignedDuration::from_mins(15);

/// Somebody who has access to a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteUser {
    /// TradingView's id of the user, as text; perhaps empty.
    pub id: String,
    /// The name.
    pub username: String,
    /// The picture's address; perhaps empty.
    pub userpic: String,
    /// When access was first given.
    pub created: Option<Timestamp>,
    /// When it ends.
    pub expiry: Expiry,
}

/// A page of those who have access to a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// They.
    pub users: Vec<RemoteUser>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// An answer that is no list of who has access. It never means that nobody has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no list of users: {0}")]
pub struct NoList(pub String);

impl Wire {
    /// How this access API writes them.
    #[must_use]
    pub fn of(api: &AccessApi) -> Self {
        Self {
            format: api.expiry_format,
            meaning: api.date_meaning,
            relative: api.kind == AccessApiKind::Trendoscope,
        }
    }

    /// How `end` is written. It is rounded up only, so that nobody loses time by it.
    #[must_use]
    pub fn write(self, end: Timestamp) -> String {
        match self.format {
            ExpiryFormat::DateTime => end.to_string(),
            ExpiryFormat::Date => self.day_of(end).to_zoned(TimeZone::UTC).date().to_string(),
        }
    }

    /// When access really ends once `expiry` has been written, at the latest.
    #[must_use]
    pub fn effective(self, expiry: Expiry) -> Expiry {
        let Expiry::At(end) = expiry else {
            return expiry;
        };
        if self.relative {
            let latest = SignedDuration::from_secs(DAY_SECONDS).saturating_add(LATER_PRESENT);
            return Expiry::At(end.checked_add(latest).unwrap_or(Timestamp::MAX));
        }
        Expiry::At(match (self.format, self.meaning) {
            (ExpiryFormat::DateTime, _) => end,
            (ExpiryFormat::Date, DateMeaning::StartOfDay) => self.day_of(end),
            (ExpiryFormat::Date, DateMeaning::EndOfDay) => {
                let last_second = SignedDuration::from_secs(DAY_SECONDS - 1);
                self.day_of(end)
                    .checked_add(last_second)
                    .unwrap_or(Timestamp::MAX)
            }
        })
    }

    /// The first moment of the day whose date stands for `end`.
    fn day_of(self, end: Timestamp) -> Timestamp {
        let into_the_day = end.as_second().rem_euclid(DAY_SECONDS);
        let begins = end.as_second().saturating_sub(into_the_day);
        let next = match self.meaning {
            DateMeaning::StartOfDay if into_the_day > 0 => DAY_SECONDS,
            _ => 0,
        };
        // After the last of all days there is no other to round up to.
        Timestamp::from_second(begins.saturating_add(next))
            .or_else(|_| Timestamp::from_second(begins))
            .unwrap_or(end)
    }

    /// Reads an end of access. Nothing means for ever (A1).
    ///
    /// # Errors
    /// [`times::Unreadable`] for what cannot be understood, which is not for ever.
    pub fn read(self, value: &Value) -> Result<Expiry, times::Unreadable> {
        let edge = match self.meaning {
            DateMeaning::EndOfDay => DayEdge::Last,
            DateMeaning::StartOfDay => DayEdge::First,
        };
        Ok(match times::read(value, &TimeZone::UTC, edge)? {
            SourceTime::Absent | SourceTime::Never => Expiry::Lifetime,
            SourceTime::At { at, .. } => Expiry::At(at),
        })
    }

    /// Reads a page of the list of who has access: an object with `users` and perhaps `next`, or a bare list.
    ///
    /// # Errors
    /// [`NoList`] for everything else, and where a name or an end cannot be read: acting on part of the list
    /// could take access from somebody.
    pub fn read_page(self, answer: &Value) -> Result<Page, NoList> {
        let users = match answer {
            Value::Array(users) => users,
            Value::Object(members) => match members.get("users") {
                Some(Value::Array(users)) => users,
                _ => return Err(NoList("users is missing".to_owned())),
            },
            _ => return Err(NoList("it is neither an object nor a list".to_owned())),
        };
        let users = users
            .iter()
            .map(|user| self.read_user(user))
            .collect::<Result<_, _>>()?;
        Ok(Page {
            users,
            next: fields::at(answer, "next"),
        })
    }

    fn read_user(self, user: &Value) -> Result<RemoteUser, NoList> {
        let username =
            fields::at(user, "username").ok_or_else(|| NoList("a user has no username".to_owned()))?;
        let expiration = user.get("expiration").unwrap_or(&Value::Null);
        let expiry = self
            .read(expiration)
            .map_err(|times::Unreadable| NoList(format!("the expiration of {username} is not a time")))?;
        let created = match times::read(
            user.get("created").unwrap_or(&Value::Null),
            &TimeZone::UTC,
            DayEdge::First,
        ) {
            Ok(SourceTime::At { at, .. }) => Some(at),
            _ => None,
        };
        Ok(RemoteUser {
            id: fields::at(user, "id").unwrap_or_default(),
            username,
            userpic: fields::at(user, "userpic").unwrap_or_default(),
            created,
            expiry,
        })
    }
}

/// The whole days that a peer with relative durations has to add so that access lasts until `target`, and not
/// a day less (C2, "Adapters"). `None` where it already does.
#[must_use]
pub fn days_to_add(remote: Expiry, target: Timestamp, now: Timestamp) -> Option<i64> {
    // Such a peer adds to the end that it lists even if that is past, and to the present where it lists none
    // (A2).
    let base = match remote {
        Expiry::Lifetime => return None,
        Expiry::At(end) => end,
        Expiry::NoAccess => now,
    };
    let missing = target.as_second().saturating_sub(base.as_second());
    (missing > 0).then(|| missing.saturating_add(DAY_SECONDS - 1) / DAY_SECONDS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::access::ledger::tests::{at, until};

    const END_OF_DAY: Wire = Wire {
        format: ExpiryFormat::Date,
        meaning: DateMeaning::EndOfDay,
        relative: false,
    };
    const START_OF_DAY: Wire = Wire {
        format: ExpiryFormat::Date,
        meaning: DateMeaning::StartOfDay,
        relative: false,
    };
    const EXACT: Wire = Wire {
        format: ExpiryFormat::DateTime,
        meaning: DateMeaning::EndOfDay,
        relative: false,
    };

    #[test]
    fn an_end_is_written_as_the_access_api_understands_it() {
        let noon = at("2026-01-31T12:00:00Z");
        assert_eq!(END_OF_DAY.write(noon), "2026-01-31");
        assert_eq!(START_OF_DAY.write(noon), "2026-02-01");
        assert_eq!(START_OF_DAY.write(at("2026-01-31")), "2026-01-31");
        assert_eq!(EXACT.write(noon), "2026-01-31T12:00:00Z");
        assert_eq!(
            END_OF_DAY.effective(Expiry::At(noon)),
            until("2026-01-31T23:59:59Z")
        );
        assert_eq!(START_OF_DAY.effective(Expiry::At(noon)), until("2026-02-01"));
        assert_eq!(EXACT.effective(Expiry::At(noon)), Expiry::At(noon));
    }

    #[test]
    fn an_end_is_read_and_nothing_is_for_ever_but_garbage_is_not() {
        assert_eq!(
            END_OF_DAY.read(&json!("2026-01-31")),
            Ok(until("2026-01-31T23:59:59Z"))
        );
        assert_eq!(START_OF_DAY.read(&json!("2026-01-31")), Ok(until("2026-01-31")));
        assert_eq!(
            EXACT.read(&json!("2026-01-31T12:00:00Z")),
            Ok(until("2026-01-31T12:00:00Z"))
        );
        assert_eq!(EXACT.read(&json!(null)), Ok(Expiry::Lifetime));
        assert_eq!(EXACT.read(&json!("never mind")), Err(times::Unreadable));
    }

    #[test]
    fn a_page_is_read_with_where_the_next_begins() {
        let page = EXACT.read_page(&json!({"scriptId": "S1", "next": "c2", "users": [
            {"id": 5, "username": "Ada", "userpic": "", "created": "2026-01-01T00:00:00Z", "expiration": null},
            {"id": "6", "username": "Bob", "expiration": "2026-01-31T12:00:00Z"}
        ]}));
        let page = page.unwrap();
        assert_eq!(page.next.as_deref(), Some("c2"));
        assert_eq!(
            (page.users[0].id.as_str(), page.users[0].expiry),
            ("5", Expiry::Lifetime)
        );
        assert_eq!(page.users[1].expiry, until("2026-01-31T12:00:00Z"));
        assert_eq!(EXACT.read_page(&json!([])).unwrap().next, None);
    }

    #[test]
    fn an_answer_that_is_no_list_never_means_that_nobody_has_access() {
        for garbage in [
            json!(null),
            json!({}),
            json!({"users": null}),
            json!({"error": "busy"}),
            json!({"users": [{"expiration": null}]}),
            json!({"users": [{"username": "Ada", "expiration": "soon"}]}),
        ] {
            assert!(EXACT.read_page(&garbage).is_err(), "{garbage}");
        }
    }

    #[test]
    fn relative_durations_are_reckoned_from_what_the_peer_will_add_to() {
        let now = at("2026-03-01");
        let target = at("2026-03-31T00:00:01Z");
        assert_eq!(days_to_add(Expiry::NoAccess, target, now), Some(31));
        assert_eq!(days_to_add(until("2026-02-01"), target, now), Some(59));
        assert_eq!(days_to_add(Expiry::At(target), target, now), None);
        assert_eq!(days_to_add(Expiry::Lifetime, target, now), None);
    }

    #[test]
    fn an_end_of_whole_days_is_ours_though_it_is_up_to_a_day_later() {
        let relative = Wire {
            relative: true,
            ..EXACT
        };
        let (now, target) = (at("2026-03-01T10:00:00Z"), at("2026-03-31T10:00:01Z"));
        let days = days_to_add(Expiry::NoAccess, target, now).unwrap();
        // The peer's present is a little later.
        let given = at("2026-03-01T10:01:00Z").checked_add(SignedDuration::from_hours(24 * days));
        let given = Expiry::At(given.unwrap());
        assert!(given > Expiry::At(target) && given <= relative.effective(Expiry::At(target)));
        assert_eq!(relative.effective(Expiry::Lifetime), Expiry::Lifetime);
    }

    proptest! {
        #[test]
        fn nobody_loses_time_by_how_an_end_is_written(second in 0_i64..4_000_000_000) {
            let end = Timestamp::from_second(second).unwrap();
            for wire in [END_OF_DAY, START_OF_DAY, EXACT] {
                let effective = wire.effective(Expiry::At(end));
                prop_assert!(effective >= Expiry::At(end));
                prop_assert!(effective.at().unwrap().as_second() - second < DAY_SECONDS);
                prop_assert_eq!(wire.read(&json!(wire.write(end))), Ok(effective));
            }
        }
    }
}
