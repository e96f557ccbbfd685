//! `berth backup` and `berth restore`: every item of the table, as it stands there.
//!
//! A file has a line that says what it is, a line for each item in DynamoDB's own JSON, and a last line that counts
//! them, so that a file which was cut off is known for one. What is encrypted in the table stays encrypted.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, Write};
use std::path::Path;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, PutRequest, WriteRequest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Global;
use crate::command::{Refusal, confirm, on_target, show};
use crate::exit::Exit;
use crate::progress::Progress;
use crate::target::Target;
use crate::whole_file::WholeFile;
use crate::words::number_of;

/// The form of the file.
const FORM: u32 = 1;

/// Most writes in one call. Source: DynamoDB API reference, `BatchWriteItem`.
const BATCH: usize = 25;

/// How often writes are offered again that the table did not take, and how long apart at first.
const TRIES: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// An item as the SDK has it.
type Item = HashMap<String, AttributeValue>;

/// An item's keys.
type Key = (String, String);

/// The first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Header {
    berth_table: u32,
    table: String,
    taken_at: Timestamp,
}

/// The last line.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Footer {
    items: u64,
}

/// `berth backup`.
pub(crate) async fn backup(global: &Global, file: &Path) -> Exit {
    on_target(global, "stopped; there is no backup", async |target| {
        let (client, table) = table_of(target).await?;
        let header = Header {
            berth_table: FORM,
            table,
            taken_at: target.now().await?,
        };
        let items = write(&client, &header, file)
            .await
            .map_err(|reason| format!("the backup to {} was not made: {reason}", file.display()))?;
        let report = json!({"file": file, "table": header.table, "taken_at": header.taken_at, "items": items});
        show(global, &report, |_| {
            format!(
                "{} of the table {} went to {}.\nWhat is encrypted there stays encrypted: keep the data keys, too.",
                number_of(items, "item", "items"),
                header.table,
                file.display()
            )
        });
        Ok(Exit::Success)
    })
    .await
}

/// `berth restore`.
pub(crate) async fn restore(global: &Global, file: &Path) -> Exit {
    let stopped = "stopped half way: run it again, it goes on where it was";
    on_target(global, stopped, async |target| {
        let unusable = |reason: String| {
            format!("nothing was changed, because {} cannot be restored: {reason}", file.display())
        };
        // Held open from the first look on, so that what is restored is what was looked at.
        let opened = File::open(file).map_err(|error| unusable(error.to_string()))?;
        let mut content = BufReader::new(opened);
        let examined = examine(&mut content).map_err(unusable)?;
        in_maintenance(target).await?;
        let (client, table) = table_of(target).await?;
        let question = format!(
            "make the table {table} what it was at {} UTC ({} of the table {}), and delete what came since",
            examined.header.taken_at.strftime("%Y-%m-%d %H:%M"),
            number_of(examined.footer.items, "item", "items"),
            examined.header.table,
        );
        confirm(global, target, &question)?;
        content.rewind().map_err(|error| unusable(error.to_string()))?;
        let deleted = put_back(&client, &table, content, &examined)
            .await
            .map_err(|reason| format!("the restore stopped half way ({reason}): run it again"))?;
        let items = examined.footer.items;
        let report = json!({
            "file": file, "table": table, "taken_at": examined.header.taken_at, "items": items, "deleted": deleted,
        });
        show(global, &report, |_| {
            format!(
                "The table {table} has the {} of the file, and {} that came since went.\n\
                 Run `berth connections sync` next: SnapTrade has gone on since the backup.",
                number_of(items, "item", "items"),
                number_of(deleted, "item", "items"),
            )
        });
        Ok(Exit::Success)
    })
    .await
}

/// Refuses a deployed stack that works meanwhile. The local stack is its owner's alone.
async fn in_maintenance(target: &Target) -> Result<(), Refusal> {
    match target.deployed() {
        Some(deployed) if !deployed.in_maintenance() => Err(Refusal::Failed(
            "nothing was changed, because the stack is at work: deploy it with the parameter Maintenance=on first".to_owned(),
        )),
        _ => Ok(()),
    }
}

async fn table_of(target: &Target) -> Result<(Client, String), Refusal> {
    let settings = target.settings().await?;
    let table = settings.get("table_name").and_then(Value::as_str);
    let table = table.ok_or_else(|| "the stack does not tell its table's name: restart it".to_owned())?;
    Ok((target.dynamodb()?, table.to_owned()))
}

/// Writes the whole file and tells how many items are in it.
async fn write(client: &Client, header: &Header, file: &Path) -> Result<u64, String> {
    let progress = Progress::without_end("Backing up");
    let mut whole = WholeFile::create(file).map_err(|error| error.to_string())?;
    let mut line = |value: &Value| writeln!(whole, "{value}").map_err(|error| error.to_string());
    line(&json!(header))?;
    let mut items = 0_u64;
    let mut pages = client
        .scan()
        .table_name(&header.table)
        .consistent_read(true)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| refusal(&error.into_service_error()))?;
        for item in page.items.unwrap_or_default() {
            line(&to_json(item).map_err(|error| error.to_string())?)?;
            items = items.saturating_add(1);
        }
        progress.set(items);
    }
    line(&json!(Footer { items }))?;
    whole.finish().map_err(|error| error.to_string())?;
    Ok(items)
}

/// What DynamoDB says when it refuses.
fn refusal(error: &(dyn std::error::Error + 'static)) -> String {
    error.to_string()
}

fn to_json(item: Item) -> serde_json::Result<Value> {
    let item: HashMap<String, serde_dynamo::AttributeValue> = item
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect();
    serde_json::to_value(item)
}

fn from_json(line: &str) -> serde_json::Result<Item> {
    let item: HashMap<String, serde_dynamo::AttributeValue> = serde_json::from_str(line)?;
    Ok(item
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect())
}

fn key_of(item: &Item) -> Option<Key> {
    let part = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
    Some((part("pk")?, part("sk")?))
}

/// What a file was found to hold.
struct Examined {
    header: Header,
    footer: Footer,
    keys: BTreeSet<Key>,
}

/// Looks through the whole file.
fn examine(content: &mut impl BufRead) -> Result<Examined, String> {
    let mut lines = content.lines();
    let mut next = || lines.next().transpose().map_err(|error| error.to_string());
    let first = next()?.unwrap_or_default();
    let header: Header = serde_json::from_str(&first)
        .ok()
        .filter(|header: &Header| header.berth_table == FORM)
        .ok_or("it is no backup of a whole table, as `berth backup` writes one")?;
    let (mut keys, mut number) = (BTreeSet::new(), 1_u64);
    loop {
        number = number.saturating_add(1);
        let line = next()?.ok_or("it is cut off: its last line is missing")?;
        if let Ok(footer) = serde_json::from_str::<Footer>(&line) {
            let found = u64::try_from(keys.len()).unwrap_or(u64::MAX);
            if footer.items != found || next()?.is_some() {
                return Err(format!(
                    "it says that it has {} items, and has {found}",
                    footer.items
                ));
            }
            return Ok(Examined { header, footer, keys });
        }
        let key = from_json(&line).ok().as_ref().and_then(key_of);
        keys.insert(key.ok_or_else(|| format!("line {number} is no item"))?);
    }
}

/// Makes the table what the file says: what is not in it goes, and then what is in it is put. Whoever dies in between
/// begins anew, which does no harm. Tells how many items went.
async fn put_back(
    client: &Client,
    table: &str,
    content: impl BufRead,
    examined: &Examined,
) -> Result<u64, String> {
    let deleted = delete_others(client, table, &examined.keys).await?;
    let progress = Progress::of("Restoring", examined.footer.items);
    let (mut batch, mut done) = (Vec::new(), 0_u64);
    for line in content.lines().skip(1) {
        let line = line.map_err(|error| error.to_string())?;
        if serde_json::from_str::<Footer>(&line).is_ok() {
            break;
        }
        let item = from_json(&line).map_err(|error| error.to_string())?;
        let put = PutRequest::builder().set_item(Some(item)).build();
        let put = put.map_err(|error| error.to_string())?;
        batch.push(WriteRequest::builder().put_request(put).build());
        if batch.len() == BATCH {
            done = done.saturating_add(BATCH as u64);
            write_all(client, table, std::mem::take(&mut batch)).await?;
            progress.set(done);
        }
    }
    write_all(client, table, batch).await?;
    Ok(deleted)
}

/// Deletes the items whose keys are not among `kept`, and tells how many there were.
async fn delete_others(client: &Client, table: &str, kept: &BTreeSet<Key>) -> Result<u64, String> {
    let mut deleted = 0_u64;
    let mut pages = client
        .scan()
        .table_name(table)
        .consistent_read(true)
        .projection_expression("pk, sk")
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| refusal(&error.into_service_error()))?;
        let others: Vec<_> = page
            .items
            .unwrap_or_default()
            .into_iter()
            .filter(|item| key_of(item).is_some_and(|key| !kept.contains(&key)))
            .collect();
        for keys in others.chunks(BATCH) {
            let mut batch = Vec::new();
            for key in keys {
                let delete = DeleteRequest::builder().set_key(Some(key.clone())).build();
                let delete = delete.map_err(|error| error.to_string())?;
                batch.push(WriteRequest::builder().delete_request(delete).build());
            }
            write_all(client, table, batch).await?;
            deleted = deleted.saturating_add(keys.len() as u64);
        }
    }
    Ok(deleted)
}

/// Does all of the writes. The table may take some of them only, and the SDK does not offer the others again.
async fn write_all(client: &Client, table: &str, mut batch: Vec<WriteRequest>) -> Result<(), String> {
    let mut wait = FIRST_WAIT;
    for _ in 0..TRIES {
        if batch.is_empty() {
            return Ok(());
        }
        let written = client.batch_write_item().request_items(table, batch).send().await;
        let written = written.map_err(|error| refusal(&error.into_service_error()))?;
        let mut left = written.unprocessed_items.unwrap_or_default();
        batch = left.remove(table).unwrap_or_default();
        if !batch.is_empty() {
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2);
        }
    }
    if batch.is_empty() {
        Ok(())
    } else {
        Err("the table takes no more writes now".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str = r#"{"pk":{"S":"default#USER#ada"},"sk":{"S":"USER"},"secret":{"B":"c2VhbGVk"},"n":{"N":"1.50"},"l":{"L":[{"BOOL":true},{"NULL":true}]}}"#;

    fn file(lines: &[&str]) -> Result<Examined, String> {
        examine(&mut lines.join("\n").as_bytes())
    }

    #[test]
    fn an_item_comes_back_as_it_was() {
        let item = from_json(ITEM).unwrap();
        assert_eq!(
            key_of(&item),
            Some(("default#USER#ada".to_owned(), "USER".to_owned()))
        );
        let again: Value = serde_json::from_str(ITEM).unwrap();
        assert_eq!(to_json(item).unwrap(), again);
    }

    #[test]
    fn a_file_that_is_cut_off_or_of_another_kind_is_not_restored() {
        let header = r#"{"berth_table":1,"table":"berth","taken_at":"2026-11-21T10:00:00Z"}"#;
        let whole = file(&[header, ITEM, r#"{"items":1}"#]).unwrap();
        assert_eq!((whole.keys.len(), whole.footer.items), (1, 1));
        for (lines, reason) in [
            (vec![header, ITEM], "cut off"),
            (
                vec![header, r#"{"items":1}"#],
                "it says that it has 1 items, and has 0",
            ),
            (vec![header, "{}", r#"{"items":1}"#], "line 2 is no item"),
            (vec![r#"{"berth_table":2}"#], "no backup of a whole table"),
            (vec![], "no backup of a whole table"),
        ] {
            let said = file(&lines).err().unwrap();
            assert!(said.contains(reason), "{said}");
        }
    }
}
