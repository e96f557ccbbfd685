//! How SnapTrade fails in a storm: each of the sandbox's ways, at random.

use serde_json::{Value, json};

/// Faults that together strike `share` of all calls, each way equally often.
pub fn faults(share: f64, seed: u64) -> Vec<Value> {
    // Two of the ways are worse in one form than in the other: an answer that is slow but comes, and one whose caller
    // has long given up when the call is carried out; a wait that a request can sit out, and one that it cannot.
    let ways = [
        vec![
            json!({"kind": "status", "status": 500}),
            json!({"kind": "status", "status": 502}),
            json!({"kind": "status", "status": 503}),
        ],
        vec![json!({"kind": "timeout"})],
        vec![json!({"kind": "commit_then_timeout"})],
        vec![json!({"kind": "malformed"})],
        vec![
            json!({"kind": "slow", "delay_ms": 1500}),
            json!({"kind": "slow", "delay_ms": 8000}),
        ],
        vec![json!({"kind": "limit_reached"})],
        vec![
            json!({"kind": "rate_limited", "retry_after": 1}),
            json!({"kind": "rate_limited", "retry_after": 30}),
        ],
    ];
    let each = share / ways.len() as f64;
    let mut faults = Vec::new();
    for forms in ways {
        let part = each / forms.len() as f64;
        for mut form in forms {
            form["operation"] = "*".into();
            form["share"] = part.into();
            form["seed"] = (seed.wrapping_mul(1000) % (1 << 52) + faults.len() as u64).into();
            faults.push(form);
        }
    }
    faults
}

/// What ends all faults.
pub fn clear() -> Value {
    json!({"operation": "*", "times": 0})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_together_strike_the_share_that_was_asked_for() {
        let faults = faults(0.1, 7);
        let sum: f64 = faults.iter().map(|fault| fault["share"].as_f64().unwrap()).sum();
        assert!((sum - 0.1).abs() < 1e-9);
        let kinds: std::collections::BTreeSet<_> = faults
            .iter()
            .map(|fault| fault["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds.len(), 7);
    }
}
