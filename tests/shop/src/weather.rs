//! When which outside service fails, and how: spells of days, drawn from the seed before anything runs.

use fastrand::Rng;
use serde_json::{Value, json};

use crate::reckoning::{DAY, Second};

const HOUR: Second = 3600;

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Calm,
    /// The shop answers with errors.
    ShopDown,
    /// The shop answers 200 with something else than its rows.
    ShopGarbage,
    /// Every call to the access API is answered with this status.
    ApiDown(u16),
    /// The access API asks everybody to come back in an hour.
    ApiThrottled,
    /// Names cannot be looked up.
    NamesDown,
    /// Writes fail for certain.
    WritesDown,
    /// Some writes fail, and some are never answered and never done.
    SomeLost,
    /// Some writes fail, and some are done and never answered.
    SomeUnanswered,
    /// The mail server takes nothing.
    MailDown,
}

/// A spell of bad weather.
#[derive(Debug, Clone, Copy)]
pub struct Spell {
    pub from: Second,
    pub to: Second,
    pub kind: Kind,
}

/// Calls of the access API.
const API: [&str; 5] = ["grant", "update", "remove", "list", "validate"];

/// Its writes.
const WRITES: [&str; 3] = ["grant", "update", "remove"];

/// The spells of a story.
pub fn forecast(begins: Second, ends: Second, random: &mut Rng) -> Vec<Spell> {
    let mut spells: Vec<Spell> = Vec::new();
    let mut from = begins + 10 * DAY;
    let mut long = false;
    // The last days are calm, so that all that waits comes to its end.
    while from < ends - 20 * DAY {
        let kind = match random.u32(..20) {
            0..3 => Kind::ShopDown,
            3 => Kind::ShopGarbage,
            4..8 => Kind::ApiDown([500, 503, 401, 403, 502][random.usize(..5)]),
            8..10 => Kind::ApiThrottled,
            10..12 => Kind::NamesDown,
            12..14 => Kind::WritesDown,
            14..16 => Kind::SomeLost,
            16..18 => Kind::SomeUnanswered,
            _ => Kind::MailDown,
        };
        let mut length = random.i64(6 * HOUR..3 * DAY);
        if !long && matches!(kind, Kind::ApiDown(500 | 503)) && from > begins + (ends - begins) / 3 {
            // Once so long that every retry is used up.
            (long, length) = (true, 12 * DAY);
        }
        let to = from + length;
        spells.push(Spell { from, to, kind });
        let after_shop = matches!(kind, Kind::ShopDown | Kind::ShopGarbage) && random.bool();
        from = to;
        if after_shop {
            // What the shop could not show is read late, and cannot be settled then.
            let to = from + random.i64(DAY..2 * DAY);
            spells.push(Spell {
                from,
                to,
                kind: Kind::ApiDown(500),
            });
            from = to;
        }
        from += random.i64(4 * DAY..20 * DAY);
    }
    spells
}

/// The weather at a moment.
pub fn at(spells: &[Spell], moment: Second) -> Kind {
    let spell = spells
        .iter()
        .find(|spell| spell.from <= moment && moment < spell.to);
    spell.map_or(Kind::Calm, |spell| spell.kind)
}

/// What the sandbox has to be told, after it was told to forget all faults.
pub fn faults(kind: Kind, random: &mut Rng) -> Vec<Value> {
    let always = |operations: &[&str], how: Value| -> Vec<Value> {
        operations
            .iter()
            .map(|operation| with(&how, &json!({"operation": operation, "share": 1.0, "seed": 1})))
            .collect()
    };
    let status = |status: u16| json!({"kind": "status", "status": status});
    match kind {
        Kind::Calm => Vec::new(),
        Kind::ShopDown => always(&["transactions"], status([500, 503, 502, 403][random.usize(..4)])),
        Kind::ShopGarbage => {
            let garbage = json!({"kind": "malformed", "body": {"code": "maintenance", "rows": []}});
            let garbage = [json!({"kind": "malformed"}), garbage];
            always(&["transactions"], garbage[random.usize(..2)].clone())
        }
        Kind::ApiDown(code) => always(&API, status(code)),
        Kind::ApiThrottled => always(&API, json!({"kind": "rate_limited", "retry_after": 3600})),
        Kind::NamesDown => always(&["validate"], status([500, 503][random.usize(..2)])),
        Kind::WritesDown => always(&WRITES, status(500)),
        Kind::SomeLost => some("timeout", random),
        Kind::SomeUnanswered => some("commit_then_timeout", random),
        Kind::MailDown => always(&["mail"], status(500)),
    }
}

/// A share of all writes that fail for certain, one whose outcome looks unknown, and some that get no answer.
fn some(unanswered: &str, random: &mut Rng) -> Vec<Value> {
    let ways = [
        (json!({"kind": "status", "status": 500}), 0.1),
        (json!({"kind": "status", "status": 503}), 0.1),
        (json!({"kind": "rate_limited", "retry_after": 1}), 0.02),
        (json!({"kind": unanswered}), 0.03),
    ];
    let mut faults = Vec::new();
    for operation in ["grant", "update"] {
        for (way, share) in &ways {
            let seed = random.u32(..);
            faults.push(with(
                way,
                &json!({"operation": operation, "share": share, "seed": seed}),
            ));
        }
    }
    faults
}

fn with(fault: &Value, more: &Value) -> Value {
    let mut fault = fault.clone();
    for (name, value) in more.as_object().into_iter().flatten() {
        fault[name] = value.clone();
    }
    fault
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_do_not_overlap_and_the_end_is_calm() {
        let (begins, ends) = (0, 730 * DAY);
        let spells = forecast(begins, ends, &mut Rng::with_seed(5));
        assert!(spells.len() > 30, "{}", spells.len());
        assert!(spells.windows(2).all(|two| two[0].to <= two[1].from));
        assert_eq!(at(&spells, ends - DAY), Kind::Calm);
        assert_eq!(at(&spells, spells[3].from), spells[3].kind);
        assert!(spells.iter().any(|spell| spell.to - spell.from == 12 * DAY));
    }
}
