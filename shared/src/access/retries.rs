//! When a call to a service is made again, and what its answer means (facts/access.md C3 "Retry" and its
//! table).
//!
//! Random numbers come from the caller, as shares of one from 0 to below 1, so that the same draw gives the
//! same wait.

use std::time::Duration;

/// The waits before the durable tries of a row, after which it is a dead letter.
const DURABLE: [Duration; 8] = [
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3_600),
    Duration::from_secs(6 * 3_600),
    Duration::from_secs(24 * 3_600),
    Duration::from_secs(24 * 3_600),
    Duration::from_secs(24 * 3_600),
];

/// How a call to a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// With this status. Of a refusal to let us in, whether the service says that a login is needed.
    Status {
        /// The status.
        status: u16,
        /// Whether the body names `login_required`.
        login_required: bool,
    },
    /// With a status of success, but not with what was asked for.
    Garbage,
    /// There was no connection: the service did not get the call.
    NotSent,
    /// The call was sent and no answer came.
    NoAnswer,
}

/// What a call changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// Nothing.
    Read,
    /// Something, by its absolute target: made again it changes nothing more.
    Write,
    /// Something, relative to what there is: made again it changes more (C2, `trendoscope`).
    RelativeWrite,
}

/// What the end of a call means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was done.
    Done,
    /// It may be made again.
    Retry,
    /// It may be made again later and counts as no try: the service asks for patience.
    Throttled,
    /// It is not known whether it was done: look first (unknown).
    Unknown,
    /// It was refused for good: look the name up once more, then give up (a dead letter).
    Refused,
    /// The credentials are dead: nothing works until a person has seen to them (paused).
    NoAccess,
}

/// What the end of a call means.
#[must_use]
pub fn judge(kind: CallKind, answer: Answer) -> Verdict {
    let failed = match kind {
        CallKind::Read => Verdict::Retry,
        CallKind::Write | CallKind::RelativeWrite => Verdict::Unknown,
    };
    match answer {
        Answer::NotSent => Verdict::Retry,
        Answer::NoAnswer | Answer::Garbage => failed,
        Answer::Status {
            status,
            login_required,
        } => match status {
            200..=299 => Verdict::Done,
            401 => Verdict::NoAccess,
            403 if login_required => Verdict::NoAccess,
            408 | 425 => Verdict::Retry,
            429 => Verdict::Throttled,
            502 | 504 => failed,
            // A read that is refused for now is only throttled; of a write it is not known.
            503 if kind == CallKind::Read => Verdict::Throttled,
            503 => Verdict::Unknown,
            500..=599 if kind == CallKind::RelativeWrite => Verdict::Unknown,
            500..=599 => Verdict::Retry,
            _ => Verdict::Refused,
        },
    }
}

/// How long to wait within a call before its try number `retry`, counted from 1 for the first after the
/// first; `None` when there is no other. `backoff` are the longest waits, `asked` is what the service's
/// `Retry-After` says.
#[must_use]
pub fn in_call(
    retry: u32,
    max_retries: u32,
    backoff: &[Duration],
    asked: Option<Duration>,
    share: f64,
) -> Option<Duration> {
    if retry == 0 || retry > max_retries {
        return None;
    }
    let index = usize::try_from(retry.saturating_sub(1)).unwrap_or(usize::MAX);
    let longest = backoff
        .get(index)
        .or_else(|| backoff.last())
        .copied()
        .unwrap_or_default();
    Some(longest.mul_f64(within_one(share)).max(asked.unwrap_or_default()))
}

/// How long a row waits before its durable try number `retry`, counted from 1: between half of the schedule's
/// time and all of it; `None` when it is to become a dead letter.
#[must_use]
pub fn durable(retry: u32, asked: Option<Duration>, share: f64) -> Option<Duration> {
    let index = usize::try_from(retry.checked_sub(1)?).ok()?;
    let whole = DURABLE.get(index)?;
    Some(
        whole
            .mul_f64(0.5 + within_one(share) / 2.0)
            .max(asked.unwrap_or_default()),
    )
}

/// A share as it should be, so that no draw can make a wait negative or longer than it may be.
fn within_one(share: f64) -> f64 {
    if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.5
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(status: u16) -> Answer {
        Answer::Status {
            status,
            login_required: false,
        }
    }

    #[test]
    fn every_status_has_its_meaning() {
        use CallKind::{Read, RelativeWrite, Write};
        for (code, read, write, relative) in [
            (200, Verdict::Done, Verdict::Done, Verdict::Done),
            (400, Verdict::Refused, Verdict::Refused, Verdict::Refused),
            (401, Verdict::NoAccess, Verdict::NoAccess, Verdict::NoAccess),
            (403, Verdict::Refused, Verdict::Refused, Verdict::Refused),
            (404, Verdict::Refused, Verdict::Refused, Verdict::Refused),
            (422, Verdict::Refused, Verdict::Refused, Verdict::Refused),
            (429, Verdict::Throttled, Verdict::Throttled, Verdict::Throttled),
            (500, Verdict::Retry, Verdict::Retry, Verdict::Unknown),
            (502, Verdict::Retry, Verdict::Unknown, Verdict::Unknown),
            (503, Verdict::Throttled, Verdict::Unknown, Verdict::Unknown),
            (504, Verdict::Retry, Verdict::Unknown, Verdict::Unknown),
        ] {
            let verdicts = [Read, Write, RelativeWrite].map(|kind| judge(kind, status(code)));
            assert_eq!(verdicts, [read, write, relative], "{code}");
        }
        let login = Answer::Status {
            status: 403,
            login_required: true,
        };
        assert_eq!(judge(Write, login), Verdict::NoAccess);
    }

    #[test]
    fn a_write_without_an_answer_is_unknown_unless_it_was_never_sent() {
        for kind in [CallKind::Write, CallKind::RelativeWrite] {
            assert_eq!(judge(kind, Answer::NoAnswer), Verdict::Unknown);
            assert_eq!(judge(kind, Answer::Garbage), Verdict::Unknown);
            assert_eq!(judge(kind, Answer::NotSent), Verdict::Retry);
        }
        assert_eq!(judge(CallKind::Read, Answer::NoAnswer), Verdict::Retry);
    }

    #[test]
    fn waits_within_a_call_are_random_up_to_the_configured_ones() {
        let backoff = [5, 15, 60].map(Duration::from_secs);
        let wait = |retry, share| in_call(retry, 4, &backoff, None, share);
        assert_eq!(wait(1, 0.0), Some(Duration::ZERO));
        assert_eq!(wait(2, 1.0), Some(Duration::from_secs(15)));
        assert_eq!(wait(4, 0.5), Some(Duration::from_secs(30)));
        assert_eq!((wait(0, 0.5), wait(5, 0.5)), (None, None));
        assert_eq!(in_call(1, 0, &backoff, None, 0.5), None);
        let asked = Some(Duration::from_secs(7));
        assert_eq!(in_call(1, 3, &backoff, asked, 0.1), asked);
    }

    /// Defect 4 of the original (A5): there, what failed is never tried again.
    #[test]
    fn a_row_is_tried_for_more_than_three_days_before_it_is_a_dead_letter() {
        let longest = |retry| durable(retry, None, 1.0);
        let waits: Vec<u64> = (1..=8).map(|retry| longest(retry).unwrap().as_secs()).collect();
        assert_eq!(waits, [60, 300, 1_800, 7_200, 21_600, 86_400, 86_400, 86_400]);
        assert_eq!((longest(0), longest(9)), (None, None));
        let asked = Some(Duration::from_secs(120));
        assert_eq!(durable(1, asked, 0.0), asked);
    }

    proptest! {
        #[test]
        fn durable_waits_are_between_half_and_all(retry in 1_u32..9, share in any::<f64>()) {
            let wait = durable(retry, None, share).unwrap();
            let whole = durable(retry, None, 1.0).unwrap();
            prop_assert!(wait >= whole / 2 && wait <= whole);
        }
    }
}
