//! What becomes of a letter: when it is sent, sent again, followed by a reminder, or given up.
//!
//! A sender takes a letter, sends it and settles it. It may die in between, and mail has no way to ask whether a
//! letter was taken, so a letter whose end is not known is sent again under the same Message-ID, by which mail
//! programs know the copy, but not more than [`MOST_UNSURE`] times. What is the mail server's fault is not held
//! against the letter: it waits until the server is back.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::ids::PersonId;
use super::super::retries;
use super::letters::Letter;

/// How long nobody else touches a letter that was taken. Longer than sending one may last.
pub const LEASE: Duration = Duration::from_secs(5 * 60);

/// How often a letter may end without anybody knowing whether it was taken. After that it counts as sent: the
/// copies that a customer may have are enough, and the reminder still comes.
pub const MOST_UNSURE: u32 = 3;

/// When the reminders come, after the first letter was sent (facts/access.md C3 "Mail").
const REMINDERS: [Duration; 2] = [Duration::from_secs(3 * 86_400), Duration::from_secs(10 * 86_400)];

/// How far apart the letters about one thing are at least.
const BETWEEN_LETTERS: Duration = Duration::from_secs(3 * 86_400);

/// How long a digest is worth sending.
const DIGEST_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// Where a letter goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Way {
    /// By mail.
    Mail {
        /// To this address, as it was given; a customer's is looked up anew for each letter.
        to: String,
    },
    /// To the operator's channel at Discord.
    Discord,
}

/// A notice as it is stored, with all the letters that are sent about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// Counts the changes.
    pub rev: u64,
    /// What the next letter says; nothing once there is no other, as people's data are not kept longer than they
    /// are needed.
    pub letter: Option<Letter>,
    /// Where it goes; nothing once there is no other letter.
    pub way: Option<Way>,
    /// The customer it is about, while there is another letter.
    pub person: Option<PersonId>,
    /// When the notice was put in.
    pub put_at: Timestamp,
    /// When the next letter is due, or when the sender that took it has certainly ended.
    pub due_at: Timestamp,
    /// Who is sending it.
    pub taken_by: Option<String>,
    /// How many of its letters were sent: the first, then the reminders.
    pub sent: u32,
    /// When the first was.
    pub first_sent_at: Option<Timestamp>,
    /// How often this letter was tried in vain.
    pub tries: u32,
    /// How often it is not known of this letter whether it was taken.
    pub unsure: u32,
    /// How it ended.
    pub ended: Option<Ended>,
}

/// How a notice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// All letters were sent.
    Sent,
    /// What it is about is over.
    Settled,
    /// It was too old to be worth sending.
    Stale,
    /// The address takes no mail.
    Undeliverable,
    /// It was refused too often.
    GivenUp,
}

/// How sending a letter went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// It was taken.
    Taken,
    /// It was refused, but may be taken later; how long the server asks to wait.
    Refused(Option<Duration>),
    /// It was handed over and no answer came.
    Unsure,
    /// The server is not there or lets nobody in.
    NoServer,
    /// The address takes no mail.
    NoSuchAddress,
}

impl Dispatch {
    /// A notice that is put in now, and whose first letter is due at once.
    #[must_use]
    pub fn new(letter: Letter, way: Way, now: Timestamp) -> Self {
        Self {
            rev: 1,
            letter: Some(letter),
            way: Some(way),
            person: None,
            put_at: now,
            due_at: now,
            taken_by: None,
            sent: 0,
            first_sent_at: None,
            tries: 0,
            unsure: 0,
            ended: None,
        }
    }

    /// Whether a letter is to be sent now. One that was taken is not, until its sender has certainly ended.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.ended.is_none() && self.due_at <= now
    }

    /// Whether it is too old to be worth sending.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        matches!(self.letter, Some(Letter::Digest(_))) && after(self.put_at, DIGEST_KEPT) <= now
    }

    /// Its end without another letter.
    #[must_use]
    pub fn end(&self, ended: Ended, now: Timestamp) -> Self {
        Self {
            rev: self.rev.saturating_add(1),
            letter: None,
            way: None,
            person: None,
            due_at: now,
            taken_by: None,
            ended: Some(ended),
            ..self.clone()
        }
    }

    /// What has to be stored before `sender` sends the letter. `Err` when the letter is not to be sent, with what
    /// it has become: a sender died over it so often that it may have been sent as often as it should.
    ///
    /// # Errors
    /// What to store instead.
    pub fn take(&self, sender: &str, now: Timestamp, share: f64) -> Result<Self, Box<Self>> {
        let mut taken = Self {
            rev: self.rev.saturating_add(1),
            due_at: after(now, LEASE),
            taken_by: Some(sender.to_owned()),
            ..self.clone()
        };
        if self.taken_by.is_some() {
            // The last sender died, before it sent the letter or after.
            if self.unsure.saturating_add(1) >= MOST_UNSURE {
                return Err(Box::new(self.settle(Sending::Unsure, now, share)));
            }
            taken.unsure = self.unsure.saturating_add(1);
        }
        Ok(taken)
    }

    /// What becomes of a letter that was taken, when sending it went so. `share` is a random share of one.
    #[must_use]
    pub fn settle(&self, sending: Sending, now: Timestamp, share: f64) -> Self {
        let unsure = self.unsure.saturating_add(1);
        match sending {
            Sending::Taken => self.follow(now),
            Sending::Unsure if unsure >= MOST_UNSURE => self.follow(now),
            Sending::Unsure => Self {
                unsure,
                ..self.again(None, now, share)
            },
            Sending::Refused(asked) => self.again(asked, now, share),
            Sending::NoServer => Self {
                rev: self.rev.saturating_add(1),
                due_at: now,
                taken_by: None,
                ..self.clone()
            },
            Sending::NoSuchAddress => self.end(Ended::Undeliverable, now),
        }
    }

    /// After a letter was sent: the next reminder, or the end.
    fn follow(&self, now: Timestamp) -> Self {
        let sent = self.sent.saturating_add(1);
        let first_sent_at = self.first_sent_at.unwrap_or(now);
        let reminder = match self.letter {
            Some(Letter::UnknownName { .. }) => usize::try_from(self.sent)
                .ok()
                .and_then(|index| REMINDERS.get(index)),
            Some(Letter::Digest(_)) | None => None,
        };
        let followed = Self {
            sent,
            first_sent_at: Some(first_sent_at),
            tries: 0,
            unsure: 0,
            ..self.clone()
        };
        match reminder {
            Some(wait) => Self {
                rev: self.rev.saturating_add(1),
                // A first letter that went out late does not bring its reminders closer together.
                due_at: after(first_sent_at, *wait).max(after(now, BETWEEN_LETTERS)),
                taken_by: None,
                ..followed
            },
            None => followed.end(Ended::Sent, now),
        }
    }

    /// After a letter was refused: another try, or the end.
    fn again(&self, asked: Option<Duration>, now: Timestamp, share: f64) -> Self {
        let tries = self.tries.saturating_add(1);
        match retries::durable(tries, asked, share) {
            Some(wait) => Self {
                rev: self.rev.saturating_add(1),
                due_at: after(now, wait),
                taken_by: None,
                tries,
                ..self.clone()
            },
            None => Self {
                tries,
                ..self.end(Ended::GivenUp, now)
            },
        }
    }
}

fn after(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::letters::Digest;
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }

    fn days(days: u64) -> Timestamp {
        after(now(), Duration::from_secs(days * 86_400))
    }

    fn unknown_name() -> Dispatch {
        let letter = Letter::UnknownName {
            called: "Ada".to_owned(),
            written: "adda".to_owned(),
            suggestions: vec!["ada".to_owned()],
        };
        let way = Way::Mail {
            to: "ada@example.com".to_owned(),
        };
        Dispatch::new(letter, way, now())
    }

    fn digest() -> Dispatch {
        Dispatch::new(Letter::Digest(Digest::new("run", now())), Way::Discord, now())
    }

    fn taken(dispatch: &Dispatch, at: Timestamp) -> Dispatch {
        dispatch.take("one", at, 0.5).unwrap()
    }

    fn sent(dispatch: &Dispatch, at: Timestamp) -> Dispatch {
        taken(dispatch, at).settle(Sending::Taken, at, 0.5)
    }

    #[test]
    fn a_customer_is_reminded_after_three_and_after_ten_days_and_then_no_more() {
        let first = sent(&unknown_name(), now());
        assert_eq!((first.sent, first.due_at, first.ended), (1, days(3), None));
        let second = sent(&first, days(3));
        assert_eq!((second.sent, second.due_at, second.ended), (2, days(10), None));
        let third = sent(&second, days(10));
        assert_eq!((third.sent, third.ended), (3, Some(Ended::Sent)));
        assert!(!third.is_due(days(400)));
    }

    #[test]
    fn a_late_letter_does_not_bring_its_reminders_closer_together() {
        let first = sent(&unknown_name(), days(5));
        assert_eq!(first.due_at, days(8));
        let second = sent(&first, days(14));
        assert_eq!(second.due_at, days(17));
    }

    #[test]
    fn nothing_of_what_a_letter_said_is_kept_after_the_last() {
        let ended = unknown_name().end(Ended::Settled, now());
        assert_eq!((ended.letter, ended.way), (None, None));
        let sent = sent(&digest(), now());
        assert_eq!(
            (sent.letter, sent.way, sent.ended),
            (None, None, Some(Ended::Sent))
        );
    }

    #[test]
    fn a_taken_letter_is_nobody_elses_until_its_sender_has_certainly_ended() {
        let taken = taken(&unknown_name(), now());
        assert!(!taken.is_due(now()));
        assert!(taken.is_due(after(now(), LEASE)));
    }

    #[test]
    fn a_letter_whose_sender_died_is_sent_again_but_not_for_ever() {
        let mut dispatch = unknown_name();
        let mut at = now();
        for _ in 0..MOST_UNSURE {
            dispatch = taken(&dispatch, at);
            at = after(at, LEASE);
        }
        let given_up = dispatch.take("one", at, 0.5).unwrap_err();
        assert_eq!((given_up.sent, given_up.ended), (1, None));
        assert_eq!(
            given_up.due_at,
            after(at, BETWEEN_LETTERS),
            "the reminder still comes"
        );
    }

    #[test]
    fn a_letter_without_an_answer_is_sent_three_times_at_most() {
        let mut dispatch = unknown_name();
        let mut copies = 0;
        while dispatch.sent == 0 {
            let at = dispatch.due_at;
            dispatch = taken(&dispatch, at).settle(Sending::Unsure, at, 0.5);
            copies += 1;
        }
        assert_eq!((copies, dispatch.unsure), (MOST_UNSURE, 0));
    }

    #[test]
    fn a_refused_letter_is_tried_for_days_before_it_is_given_up() {
        let mut dispatch = unknown_name();
        let mut tries = 0;
        while dispatch.ended.is_none() {
            let at = dispatch.due_at;
            dispatch = taken(&dispatch, at).settle(Sending::Refused(None), at, 0.5);
            tries += 1;
        }
        assert_eq!((tries, dispatch.ended), (9, Some(Ended::GivenUp)));
        assert!(dispatch.due_at > days(2));
    }

    #[test]
    fn a_server_that_asks_to_wait_is_waited_for() {
        let hour = Duration::from_secs(3_600);
        let refused = taken(&unknown_name(), now()).settle(Sending::Refused(Some(hour)), now(), 0.0);
        assert_eq!(refused.due_at, after(now(), hour));
    }

    #[test]
    fn a_server_that_is_down_is_held_against_no_letter() {
        let mut dispatch = unknown_name();
        for day in 0..30 {
            dispatch = taken(&dispatch, days(day)).settle(Sending::NoServer, days(day), 0.5);
            assert!(dispatch.is_due(days(day)));
        }
        assert_eq!((dispatch.tries, dispatch.unsure, dispatch.sent), (0, 0, 0));
    }

    #[test]
    fn an_address_that_takes_no_mail_gets_no_reminder() {
        let settled = taken(&unknown_name(), now()).settle(Sending::NoSuchAddress, now(), 0.5);
        assert_eq!(settled.ended, Some(Ended::Undeliverable));
    }

    #[test]
    fn a_digest_grows_stale_and_a_customers_letter_does_not() {
        assert!(!digest().is_stale(days(6)));
        assert!(digest().is_stale(days(7)));
        assert!(!unknown_name().is_stale(days(60)));
    }

    #[test]
    fn every_step_is_a_new_revision() {
        let one = taken(&unknown_name(), now());
        assert_eq!(one.rev, unknown_name().rev + 1);
        for sending in [
            Sending::Taken,
            Sending::Refused(None),
            Sending::Unsure,
            Sending::NoServer,
            Sending::NoSuchAddress,
        ] {
            assert_eq!(one.settle(sending, now(), 0.5).rev, one.rev + 1, "{sending:?}");
        }
    }
}
