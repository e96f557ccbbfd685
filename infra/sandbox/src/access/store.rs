//! What the sandbox knows: the shop's transactions, TradingView's users, who has access, and the mails received.
//!
//! It is kept in `SQLite`, so that a change is on its way to the disk when it is answered and survives a process that is
//! killed, however many rows there are.

use std::path::Path;
use std::sync::Mutex;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::dates;
use crate::held;
use crate::mail::Mail;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS sales (position INTEGER PRIMARY KEY, id INTEGER, created INTEGER, row TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS sales_by_id ON sales (id, position);
    CREATE INDEX IF NOT EXISTS sales_by_creation ON sales (created);
    CREATE TABLE IF NOT EXISTS members (id INTEGER PRIMARY KEY, member TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS names (folded TEXT PRIMARY KEY, id INTEGER NOT NULL, username TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS access (
        position INTEGER PRIMARY KEY AUTOINCREMENT, script TEXT NOT NULL, folded TEXT NOT NULL, id TEXT NOT NULL,
        username TEXT NOT NULL, userpic TEXT NOT NULL, created TEXT NOT NULL, expiration TEXT);
    CREATE INDEX IF NOT EXISTS access_by_name ON access (script, folded);
    CREATE INDEX IF NOT EXISTS access_by_script ON access (script);
    CREATE TABLE IF NOT EXISTS mails (position INTEGER PRIMARY KEY, mail TEXT NOT NULL);";

/// How `SQLite` writes. A process that is killed loses nothing so; only the machine's own end could cost the last
/// changes.
const WRITING: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;";

/// A result with the database's error, which only a full or broken disk brings about.
type Result<T> = rusqlite::Result<T>;

/// The state, behind a lock.
pub(super) struct Store(Mutex<Connection>);

/// Somebody who has access to a script, or had it: who expired stays listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Holder {
    /// TradingView's number of the user, as it was given.
    pub(super) id: Value,
    pub(super) username: String,
    pub(super) userpic: String,
    pub(super) created: Timestamp,
    /// `None` is never.
    pub(super) expiration: Option<Timestamp>,
}

/// A user that TradingView knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct User {
    pub(super) id: u64,
    /// In its canonical spelling.
    pub(super) username: String,
    pub(super) userpic: String,
}

/// Which of the shop's transactions are wanted, and in which order.
#[derive(Debug, Default)]
pub(super) struct SalesQuery {
    /// Members and the values that they have to have, as text.
    pub(super) members: Vec<(&'static str, String)>,
    /// The member to order by; the id where there is none.
    pub(super) order_by: Option<&'static str>,
    pub(super) descending: bool,
    pub(super) offset: u64,
    pub(super) count: u64,
}

impl Store {
    /// The state in the file `path`, or a new one there.
    ///
    /// # Errors
    /// What is wrong with the file or its folder.
    pub(super) fn open(path: &Path) -> std::result::Result<Self, String> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        }
        let opened = Connection::open(path).and_then(Self::prepared);
        opened.map_err(|error| error.to_string())
    }

    /// A state that is gone with the process.
    pub(super) fn in_memory() -> Result<Self> {
        Self::prepared(Connection::open_in_memory()?)
    }

    fn prepared(database: Connection) -> Result<Self> {
        database.execute_batch(WRITING)?;
        database.execute_batch(TABLES)?;
        Ok(Self(Mutex::new(database)))
    }

    /// Forgets everything.
    pub(super) fn clear(&self) -> Result<()> {
        held(&self.0).execute_batch(
            "BEGIN; DELETE FROM sales; DELETE FROM members; DELETE FROM names; DELETE FROM access; DELETE FROM mails; \
             COMMIT;",
        )
    }

    /// Puts these in place of the shop's transactions, each kept to the letter.
    pub(super) fn set_sales(&self, rows: &[Box<RawValue>]) -> Result<()> {
        let mut database = held(&self.0);
        let change = database.transaction()?;
        change.execute("DELETE FROM sales", [])?;
        {
            let mut insert = change.prepare("INSERT INTO sales (id, created, row) VALUES (?, ?, ?)")?;
            for row in rows {
                let read: Value = serde_json::from_str(row.get()).unwrap_or_default();
                let created = read.get("created_at").and_then(dates::created);
                insert.execute(params![sale_id(&read), created, row.get()])?;
            }
        }
        change.commit()
    }

    /// Puts each of these in place of the transaction with its id, or behind all others where there is none.
    pub(super) fn add_sales(&self, rows: &[Box<RawValue>]) -> Result<()> {
        let mut database = held(&self.0);
        let change = database.transaction()?;
        {
            let mut replace = change.prepare("UPDATE sales SET created = ?2, row = ?3 WHERE id = ?1")?;
            let mut insert = change.prepare("INSERT INTO sales (id, created, row) VALUES (?, ?, ?)")?;
            for row in rows {
                let read: Value = serde_json::from_str(row.get()).unwrap_or_default();
                let created = read.get("created_at").and_then(dates::created);
                let values = params![sale_id(&read), created, row.get()];
                if replace.execute(values)? == 0 {
                    insert.execute(values)?;
                }
            }
        }
        change.commit()
    }

    /// The transactions created at `since` or later, in Unix seconds, and those whose time cannot be told, as a JSON
    /// array in the order in which they were put.
    pub(super) fn sales_since(&self, since: Option<i64>) -> Result<String> {
        let database = held(&self.0);
        let mut select = database.prepare_cached(
            "SELECT row FROM sales WHERE ?1 IS NULL OR created IS NULL OR created >= ?1 ORDER BY position",
        )?;
        let rows = select.query_map([since], |row| row.get(0))?;
        array(rows)
    }

    /// How many transactions a query has in all, and its page of them as a JSON array.
    pub(super) fn sales(&self, query: &SalesQuery) -> Result<(u64, String)> {
        // Members' names are this program's own; what came in a request is bound.
        let mut conditions = String::from("1");
        for (member, _) in &query.members {
            conditions.push_str(&format!(" AND CAST(json_extract(row, '$.{member}') AS TEXT) = ?"));
        }
        let order = match query.order_by {
            Some(member) => format!("json_extract(row, '$.{member}')"),
            None => "id".to_owned(),
        };
        let direction = if query.descending { "DESC" } else { "ASC" };
        let values = || rusqlite::params_from_iter(query.members.iter().map(|(_, value)| value));
        let database = held(&self.0);
        let total = database.query_row(
            &format!("SELECT count(*) FROM sales WHERE {conditions}"),
            values(),
            |row| row.get(0),
        )?;
        let mut select = database.prepare(&format!(
            "SELECT row FROM sales WHERE {conditions} ORDER BY {order} {direction}, position {direction} \
             LIMIT {} OFFSET {}",
            query.count, query.offset
        ))?;
        let rows = select.query_map(values(), |row| row.get(0))?;
        Ok((total, array(rows)?))
    }

    /// The transaction with this id, to the letter.
    pub(super) fn sale(&self, id: i64) -> Result<Option<String>> {
        held(&self.0)
            .query_row(
                "SELECT row FROM sales WHERE id = ? ORDER BY position",
                [id],
                |row| row.get(0),
            )
            .optional()
    }

    /// Puts these in place of the shop's members, each kept to the letter; `false` where one has no number as its id.
    pub(super) fn set_members(&self, members: &[Box<RawValue>]) -> Result<bool> {
        let mut database = held(&self.0);
        let change = database.transaction()?;
        change.execute("DELETE FROM members", [])?;
        {
            let mut insert = change.prepare("INSERT OR REPLACE INTO members (id, member) VALUES (?, ?)")?;
            for member in members {
                let Some(id) = number(
                    serde_json::from_str(member.get())
                        .unwrap_or(Value::Null)
                        .get("id"),
                ) else {
                    return Ok(false);
                };
                insert.execute(params![id, member.get()])?;
            }
        }
        change.commit()?;
        Ok(true)
    }

    /// The member with this id, to the letter.
    pub(super) fn member(&self, id: i64) -> Result<Option<String>> {
        held(&self.0)
            .query_row("SELECT member FROM members WHERE id = ?", [id], |row| row.get(0))
            .optional()
    }

    /// Puts these in place of the users that TradingView knows.
    pub(super) fn set_names(&self, names: &[String]) -> Result<()> {
        let mut database = held(&self.0);
        let change = database.transaction()?;
        change.execute("DELETE FROM names", [])?;
        {
            let mut insert =
                change.prepare("INSERT OR REPLACE INTO names (folded, id, username) VALUES (?, ?, ?)")?;
            for (index, name) in names.iter().enumerate() {
                insert.execute(params![folded(name), index.saturating_add(1), name])?;
            }
        }
        change.commit()
    }

    /// The user of this name, whatever the case of its letters.
    pub(super) fn user(&self, name: &str) -> Result<Option<User>> {
        held(&self.0)
            .prepare_cached("SELECT id, username FROM names WHERE folded = ?")?
            .query_row([folded(name)], read_user)
            .optional()
    }

    /// At most `count` users whose names begin so, in the order of the alphabet.
    pub(super) fn users_like(&self, beginning: &str, count: u32) -> Result<Vec<User>> {
        let database = held(&self.0);
        let mut select = database.prepare_cached(
            "SELECT id, username FROM names WHERE folded >= ?1 AND folded < ?1 || char(0x10FFFF) \
             ORDER BY folded LIMIT ?2",
        )?;
        select
            .query_map(params![folded(beginning), count], read_user)?
            .collect()
    }

    /// Puts these in place of the script's users.
    pub(super) fn set_access(&self, script: &str, holders: &[Holder]) -> Result<()> {
        let mut database = held(&self.0);
        let change = database.transaction()?;
        change.execute("DELETE FROM access WHERE script = ?", [script])?;
        for holder in holders {
            insert(&change, script, holder)?;
        }
        change.commit()
    }

    /// At most `count` of the script's users, after the one at the position `after`, each with its own position.
    pub(super) fn access(&self, script: &str, after: i64, count: i64) -> Result<Vec<(i64, Holder)>> {
        let database = held(&self.0);
        let mut select = database.prepare_cached(
            "SELECT position, id, username, userpic, created, expiration FROM access \
             WHERE script = ? AND position > ? ORDER BY position LIMIT ?",
        )?;
        select
            .query_map(params![script, after, count], |row| {
                Ok((row.get(0)?, read_holder(row)?))
            })?
            .collect()
    }

    /// The script's user of this name, whatever the case of its letters.
    pub(super) fn holder(&self, script: &str, name: &str) -> Result<Option<Holder>> {
        held(&self.0)
            .prepare_cached(
                "SELECT position, id, username, userpic, created, expiration FROM access \
                 WHERE script = ? AND folded = ? ORDER BY position LIMIT 1",
            )?
            .query_row(params![script, folded(name)], read_holder)
            .optional()
    }

    /// Gives a user access to a script until `expiration`, whatever the user had before.
    pub(super) fn grant(
        &self,
        script: &str,
        user: &User,
        expiration: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<()> {
        // One lock for both, so that two grants at once are not two users.
        let database = held(&self.0);
        if change_end(&database, script, &user.username, expiration)? {
            return Ok(());
        }
        insert(
            &database,
            script,
            &Holder {
                id: user.id.into(),
                username: user.username.clone(),
                userpic: user.userpic.clone(),
                created: now,
                expiration,
            },
        )
    }

    /// Changes when a user's access to a script ends, and tells whether the user is listed at all.
    pub(super) fn change_end(&self, script: &str, name: &str, end: Option<Timestamp>) -> Result<bool> {
        change_end(&held(&self.0), script, name, end)
    }

    /// Takes a user's access to a script, and tells whether there was any.
    pub(super) fn remove(&self, script: &str, name: &str) -> Result<bool> {
        let removed = held(&self.0).execute(
            "DELETE FROM access WHERE script = ? AND folded = ?",
            params![script, folded(name)],
        )?;
        Ok(removed > 0)
    }

    /// Keeps a mail.
    pub(super) fn add_mail(&self, mail: &Mail, now: Timestamp) -> Result<()> {
        let shown = json!({
            "to": mail.to.join(", "),
            "cc": mail.cc.join(", "),
            "bcc": mail.bcc.join(", "),
            "message_id": mail.message_id,
            "from": mail.from,
            "subject": mail.subject,
            "html": mail.html,
            "text": mail.text,
            "received_at": now,
        });
        held(&self.0).execute("INSERT INTO mails (mail) VALUES (?)", [shown.to_string()])?;
        Ok(())
    }

    /// The mails received, the oldest first, as a JSON array.
    pub(super) fn mails(&self) -> Result<String> {
        let database = held(&self.0);
        let mut select = database.prepare("SELECT mail FROM mails ORDER BY position")?;
        let rows = select.query_map([], |row| row.get(0))?;
        array(rows)
    }
}

/// A transaction's id: what MemberPress calls `id` and the shop's own endpoint `transaction_id`, a number or a text.
fn sale_id(row: &Value) -> Option<i64> {
    ["id", "transaction_id"]
        .iter()
        .find_map(|name| number(row.get(*name)))
}

/// A whole number, perhaps as a text.
fn number(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// One spelling for all that TradingView takes for the same name.
fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn change_end(database: &Connection, script: &str, name: &str, end: Option<Timestamp>) -> Result<bool> {
    let changed = database
        .prepare_cached("UPDATE access SET expiration = ? WHERE script = ? AND folded = ?")?
        .execute(params![end.map(|end| end.to_string()), script, folded(name)])?;
    Ok(changed > 0)
}

fn insert(database: &Connection, script: &str, holder: &Holder) -> Result<()> {
    database
        .prepare_cached(
            "INSERT INTO access (script, folded, id, username, userpic, created, expiration) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            script,
            folded(&holder.username),
            holder.id.to_string(),
            holder.username,
            holder.userpic,
            holder.created.to_string(),
            holder.expiration.map(|end| end.to_string()),
        ])?;
    Ok(())
}

fn read_user(row: &Row<'_>) -> Result<User> {
    Ok(User {
        id: row.get(0)?,
        username: row.get(1)?,
        userpic: String::new(),
    })
}

fn read_holder(row: &Row<'_>) -> Result<Holder> {
    let (id, created): (String, String) = (row.get(1)?, row.get(4)?);
    let expiration: Option<String> = row.get(5)?;
    Ok(Holder {
        id: serde_json::from_str(&id).unwrap_or_default(),
        username: row.get(2)?,
        userpic: row.get(3)?,
        created: created.parse().unwrap_or_default(),
        expiration: expiration.and_then(|end| end.parse().ok()),
    })
}

/// Texts that are JSON already as one JSON array.
fn array(rows: impl Iterator<Item = Result<String>>) -> Result<String> {
    let mut text = String::from("[");
    for row in rows {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&row?);
    }
    text.push(']');
    Ok(text)
}
