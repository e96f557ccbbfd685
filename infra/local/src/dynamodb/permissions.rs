//! What a caller's role would have to allow for a call, as IAM sees it.
//!
//! A transaction has no permission of its own: each of its writes needs the permission of that write. Source: DynamoDB
//! developer guide, "Using IAM with DynamoDB transactions". A query of an index needs it on the index, not on the table.
//! Secrets are here, too, because calls for them come to the same port.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::secrets;

/// The variable that names a folder in which every process notes what its functions needed, so that a test can look at
/// what many of them did.
const FOLDER_VARIABLE: &str = "BERTH_PERMISSIONS";

/// An action and what it is done to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    /// The action, such as `dynamodb:PutItem`.
    pub action: String,
    /// The index or the secret that it is done to; `None` where it is the table itself.
    pub on: Option<String>,
}

impl Permission {
    fn on_table(action: &str) -> Self {
        Self {
            action: format!("dynamodb:{action}"),
            on: None,
        }
    }
}

/// What functions needed so far.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    needed: Mutex<BTreeMap<String, BTreeSet<Permission>>>,
    folder: Option<PathBuf>,
}

impl Permissions {
    /// None yet. New ones are noted in the folder that the environment names, if it names one.
    pub(super) fn noted_where_the_environment_says() -> Self {
        Self {
            needed: Mutex::default(),
            folder: std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from),
        }
    }

    /// Remembers what `function` needs for a call.
    pub(super) fn remember(&self, function: &str, operation: &str, body: &[u8]) {
        let needed = needed_for(function, operation, body);
        let mut all = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(function.to_owned()).or_default();
        let new: Vec<_> = needed.into_iter().filter(|one| !known.contains(one)).collect();
        if new.is_empty() {
            return;
        }
        if let Err(error) = self.note(function, &new) {
            tracing::error!(%error, "what a function needs could not be noted");
        }
        known.extend(new);
    }

    /// By function what it needed so far.
    pub(super) fn all(&self) -> BTreeMap<String, BTreeSet<Permission>> {
        self.needed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, function: &str, new: &[Permission]) -> std::io::Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        std::fs::create_dir_all(folder)?;
        let mut lines = String::new();
        for permission in new {
            let on = permission.on.as_deref().unwrap_or("-");
            lines.push_str(&format!("{function} {} {on}\n", permission.action));
        }
        // One write of a few lines to a file of the process's own, so that nothing gets mixed up.
        let file = folder.join(format!("{}.txt", std::process::id()));
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
        file.write_all(lines.as_bytes())
    }
}

/// What a query or a scan says of where it looks.
#[derive(Deserialize)]
struct Search {
    #[serde(rename = "IndexName")]
    index: Option<String>,
}

/// A transaction, of which only the kinds of its parts matter.
#[derive(Deserialize)]
struct Transaction {
    #[serde(rename = "TransactItems", default)]
    parts: Vec<BTreeMap<String, serde::de::IgnoredAny>>,
}

/// What a call for one item says of which it is.
#[derive(Deserialize)]
struct One {
    #[serde(rename = "Key")]
    key: BTreeMap<String, BTreeMap<String, String>>,
}

/// The function that tells by the same call whether the table can be read.
const HEALTH: &str = "status";

/// Whether this is the call by which a function opens its connection to the table while it starts. Nothing depends on
/// what is answered then, so it needs no permission.
fn only_opens_the_connection(body: &[u8]) -> bool {
    let one = serde_json::from_slice::<One>(body);
    one.is_ok_and(|one| {
        one.key
            .get("pk")
            .and_then(|key| key.get("S"))
            .is_some_and(|key| key == "PING")
    })
}

/// What the role of `function` has to allow for a call of `operation` with this body.
fn needed_for(function: &str, operation: &str, body: &[u8]) -> BTreeSet<Permission> {
    match operation {
        "TransactWriteItems" | "TransactGetItems" => {
            let parts = serde_json::from_slice::<Transaction>(body).map(|transaction| transaction.parts);
            parts
                .unwrap_or_default()
                .iter()
                .flat_map(BTreeMap::keys)
                .map(|kind| match kind.as_str() {
                    "Put" => Permission::on_table("PutItem"),
                    "Update" => Permission::on_table("UpdateItem"),
                    "Delete" => Permission::on_table("DeleteItem"),
                    "Get" => Permission::on_table("GetItem"),
                    "ConditionCheck" => Permission::on_table("ConditionCheckItem"),
                    other => Permission::on_table(other),
                })
                .collect()
        }
        "Query" | "Scan" => {
            let search = serde_json::from_slice::<Search>(body);
            let index = search.ok().and_then(|search| search.index);
            let mut permission = Permission::on_table(operation);
            permission.on = index;
            BTreeSet::from([permission])
        }
        "GetItem" if function != HEALTH && only_opens_the_connection(body) => BTreeSet::new(),
        "GetSecretValue" => BTreeSet::from([Permission {
            action: "secretsmanager:GetSecretValue".to_owned(),
            on: secrets::asked(body),
        }]),
        other => BTreeSet::from([Permission::on_table(other)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(operation: &str, body: serde_json::Value) -> Vec<(String, Option<String>)> {
        needed_for("register", operation, body.to_string().as_bytes())
            .into_iter()
            .map(|permission| (permission.action, permission.on))
            .collect()
    }

    #[test]
    fn a_transaction_needs_what_each_of_its_parts_needs() {
        let body = serde_json::json!({"TransactItems": [
            {"Put": {"TableName": "t"}}, {"Put": {"TableName": "t"}}, {"ConditionCheck": {}}, {"Delete": {}},
        ]});
        let needed: Vec<_> = actions("TransactWriteItems", body)
            .into_iter()
            .map(|(action, _)| action)
            .collect();
        assert_eq!(
            needed,
            [
                "dynamodb:ConditionCheckItem",
                "dynamodb:DeleteItem",
                "dynamodb:PutItem"
            ]
        );
    }

    #[test]
    fn a_query_of_an_index_is_another_permission_than_one_of_the_table() {
        assert_eq!(
            actions("Query", serde_json::json!({"IndexName": "gsi1"})),
            [("dynamodb:Query".to_owned(), Some("gsi1".to_owned()))]
        );
        assert_eq!(
            actions("Query", serde_json::json!({})),
            [("dynamodb:Query".to_owned(), None)]
        );
        assert_eq!(
            actions("GetItem", serde_json::json!({})),
            [("dynamodb:GetItem".to_owned(), None)]
        );
    }
}
