//! Plans: what would be done, shown before it is done.

use reqwest::Method;
use serde_json::Value;

use super::{confirm, runs, show};
use crate::Global;
use crate::command::Refusal;
use crate::exit::Exit;
use crate::listing::{Kind, whole_table};
use crate::progress::Progress;
use crate::target::Target;
use crate::words::{list, minute, number_of, text};

/// What would be done about each name.
const ACTIONS: Kind = Kind {
    headings: &["script", "name", "action", "from", "to", "customer"],
    room_for_last: 90,
    cells: |action| {
        vec![
            text(action, "script_id"),
            text(action, "username"),
            text(action, "action"),
            minute(action, "from"),
            minute(action, "to"),
            text(action, "person"),
        ]
    },
    none: "Nothing would be done.",
    note: "Times are in UTC.",
    without_last: "",
};

/// `plan`.
pub(super) async fn make(global: &Global, target: &Target) -> Result<Exit, Refusal> {
    let progress = Progress::without_end("Planning");
    let plan = runs::patiently(target, Method::GET, "/api/access/plan", None).await?;
    drop(progress);
    show(global, &plan, describe);
    let held = plan.get("held").and_then(Value::as_array);
    Ok(if held.is_some_and(|held| !held.is_empty()) {
        Exit::NeedsPerson
    } else {
        Exit::Success
    })
}

/// `approve`.
pub(super) async fn approve(global: &Global, target: &Target, plan: &str) -> Result<Exit, Refusal> {
    let what = format!("do all that plan {plan} says, also where it takes access away");
    confirm(global, target, &what)?;
    let progress = Progress::without_end("Applying the plan");
    let report = runs::apply_plan(target, plan).await?;
    drop(progress);
    show(global, &report, runs::describe);
    Ok(runs::exit(&report))
}

fn describe(plan: &Value) -> String {
    let actions = actions(plan);
    let held = plan.get("held").and_then(Value::as_array).map_or(0, Vec::len);
    let mut lines = vec![table(actions)];
    if held > 0 {
        lines.push(format!(
            "{} back with it, as approved: {}.",
            number_of(held as u64, "transaction is taken", "transactions are taken"),
            list(plan, "held")
        ));
    }
    if !actions.is_empty() || held > 0 {
        lines.push(format!(
            "`berth access approve {}` does exactly this.",
            text(plan, "id")
        ));
    }
    lines.join("\n")
}

fn actions(plan: &Value) -> &[Value] {
    let actions = plan.get("plan").and_then(Value::as_array);
    actions.map(Vec::as_slice).unwrap_or_default()
}

/// Actions as a table.
pub(super) fn table(actions: &[Value]) -> String {
    whole_table(&ACTIONS, actions)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_names_what_it_does_and_how_it_is_approved() {
        let plan = json!({"id": "abc", "held": ["1005"], "plan": [
            {"script_id": "S1", "person": 11, "username": "Ada", "action": "remove", "from": "2026-01-31T23:59:59Z", "to": null},
            {"script_id": "S1", "person": 12, "username": "Bob", "action": "grant", "from": null, "to": "lifetime"},
        ]});
        let words = describe(&plan);
        assert!(
            words.contains("2026-01-31 23:59") && words.contains("lifetime"),
            "{words}"
        );
        assert!(
            words.contains("1 transaction is taken back with it, as approved: 1005."),
            "{words}"
        );
        assert!(words.contains("`berth access approve abc`"), "{words}");
        assert_eq!(
            describe(&json!({"id": "abc", "plan": [], "held": []})),
            "Nothing would be done."
        );
    }
}
