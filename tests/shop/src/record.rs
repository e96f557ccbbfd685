//! What the sync has put on record of the delays that it gave back: the entries of its audit, read through DynamoDB's own
//! API and nothing of Berth's.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::reckoning::Second;

/// For whose sake a row waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Ours.
    Ours,
    /// The customer's, whose name is wrong.
    Name,
}

/// A delay that was given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub row: u64,
    pub script: String,
    pub seconds: Second,
    /// Since when the row waited, and for whose sake, in order.
    pub waited: Vec<(Second, Cause)>,
    pub until: Second,
}

/// An end that somebody gave by hand, and that counts since a run found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    pub script: String,
    pub end: Second,
    pub at: Second,
}

/// What is on record about a customer, in the order in which it came about.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub given_back: Vec<Recorded>,
    pub adopted: Vec<Adopted>,
}

/// The one table of the stack.
#[derive(Debug, Clone)]
pub struct Table {
    url: String,
    http: reqwest::Client,
    name: String,
}

impl Table {
    /// The table at the DynamoDB at `url`.
    pub async fn find(url: &str, http: reqwest::Client) -> Result<Self, String> {
        let mut table = Self {
            url: url.to_owned(),
            http,
            name: String::new(),
        };
        let tables = table.call("ListTables", json!({})).await?;
        tables["TableNames"][0]
            .as_str()
            .ok_or("there is no table")?
            .clone_into(&mut table.name);
        Ok(table)
    }

    async fn call(&self, operation: &str, body: Value) -> Result<Value, String> {
        // The engine on one machine checks no signature, but wants to see one.
        let signature = "AWS4-HMAC-SHA256 Credential=anyone/20260101/eu-west-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0";
        let request = self
            .http
            .post(&self.url)
            .header("X-Amz-Target", format!("DynamoDB_20120810.{operation}"))
            .header("Content-Type", "application/x-amz-json-1.0")
            .header("X-Amz-Date", "20260101T000000Z")
            .header("Authorization", signature)
            .body(body.to_string());
        let answer = request.send().await.map_err(crate::site::text)?;
        let (status, text) = (answer.status(), answer.text().await.map_err(crate::site::text)?);
        if !status.is_success() {
            return Err(format!("{operation}: {status} {text}"));
        }
        serde_json::from_str(&text).map_err(crate::site::text)
    }

    /// What is on record about a customer.
    pub async fn record(&self, customer: u32) -> Result<Record, String> {
        let mut record = Record::default();
        let mut start = Value::Null;
        loop {
            let mut query = json!({
                "TableName": self.name, "ConsistentRead": true,
                "KeyConditionExpression": "pk = :pk AND begins_with(sk, :audit)",
                "ExpressionAttributeValues": {
                    ":pk": {"S": format!("default#PERSON#{customer}")}, ":audit": {"S": "AUDIT#"},
                },
            });
            if !start.is_null() {
                query["ExclusiveStartKey"] = start;
            }
            let page = self.call("Query", query).await?;
            for item in page["Items"].as_array().into_iter().flatten() {
                for event in item["events"]["L"].as_array().into_iter().flatten() {
                    let strange = || format!("a strange record: {event}");
                    let event = &event["M"];
                    match event["event"]["S"].as_str() {
                        Some("access.credited") => {
                            record.given_back.push(given_back(event).ok_or_else(strange)?);
                        }
                        Some("access.adopted") => record.adopted.push(adopted(event).ok_or_else(strange)?),
                        _ => {}
                    }
                }
            }
            start = page["LastEvaluatedKey"].clone();
            if start.is_null() {
                return Ok(record);
            }
        }
    }
}

/// An event, such as `60 s for waiting since 2031-01-01T00:00:00Z for us, until 2031-01-01T00:01:00Z`.
fn given_back(event: &Value) -> Option<Recorded> {
    let detail = event["detail"]["S"].as_str()?;
    let (seconds, rest) = detail.split_once(" s for waiting ")?;
    let (spells, until) = rest.split_once(", until ")?;
    let waited = spells.split(", ").map(|spell| {
        let (from, cause) = spell.strip_prefix("since ")?.split_once(" for ")?;
        let cause = match cause {
            "us" => Cause::Ours,
            "the name" => Cause::Name,
            _ => return None,
        };
        Some((second(from)?, cause))
    });
    Some(Recorded {
        row: event["transactions"]["L"][0]["S"].as_str()?.parse().ok()?,
        script: event["script_id"]["S"].as_str()?.to_owned(),
        seconds: seconds.parse().ok()?,
        waited: waited.collect::<Option<_>>()?,
        until: second(until)?,
    })
}

/// An event, such as `given by hand until 2031-03-01T00:00:00Z, found at 2031-01-01T00:00:00Z`.
fn adopted(event: &Value) -> Option<Adopted> {
    let detail = event["detail"]["S"].as_str()?;
    let (end, at) = detail
        .strip_prefix("given by hand until ")?
        .split_once(", found at ")?;
    Some(Adopted {
        script: event["script_id"]["S"].as_str()?.to_owned(),
        end: second(end)?,
        at: second(at)?,
    })
}

fn second(text: &str) -> Option<Second> {
    Some(text.parse::<Timestamp>().ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_with_all_its_moments() {
        let detail = "61 s for waiting since 2031-01-01T00:00:00Z for us, since 2031-01-01T00:01:00Z for the name, until 2031-01-01T00:01:01Z";
        let event = json!({
            "event": {"S": "access.credited"}, "script_id": {"S": "S1"}, "transactions": {"L": [{"S": "17"}]},
            "detail": {"S": detail},
        });
        let read = given_back(&event).unwrap();
        let first = read.waited[0].0;
        assert_eq!((read.row, read.script.as_str(), read.seconds), (17, "S1", 61));
        assert_eq!(read.waited, [(first, Cause::Ours), (first + 60, Cause::Name)]);
        assert_eq!((first, read.until), (1_924_992_000, 1_924_992_061));
    }
}
