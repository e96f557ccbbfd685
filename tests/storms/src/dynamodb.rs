//! The table and its stream, read through DynamoDB's own API and nothing of Berth's.

use serde_json::{Map, Value, json};

/// A client of one DynamoDB.
pub struct DynamoDb {
    url: String,
    http: reqwest::Client,
}

/// One write to an item, as the stream tells it.
#[derive(Debug, Clone)]
pub struct Change {
    /// The partition key.
    pub pk: String,
    /// The sort key.
    pub sk: String,
    /// The item before, if there was one.
    pub old: Option<Value>,
    /// The item after, if there is one.
    pub new: Option<Value>,
}

impl DynamoDb {
    /// A client of the DynamoDB at `url`.
    pub fn new(url: &str, http: reqwest::Client) -> Self {
        Self {
            url: url.to_owned(),
            http,
        }
    }

    async fn call(&self, target: &str, body: Value) -> Result<Value, String> {
        // The engine on one machine checks no signature, but wants to see one.
        let signature = "AWS4-HMAC-SHA256 Credential=anyone/20260101/eu-west-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0";
        let request = self
            .http
            .post(&self.url)
            .header("X-Amz-Target", target)
            .header("Content-Type", "application/x-amz-json-1.0")
            .header("X-Amz-Date", "20260101T000000Z")
            .header("Authorization", signature)
            .body(body.to_string());
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let (status, text) = (
            answer.status(),
            answer.text().await.map_err(|error| error.to_string())?,
        );
        if !status.is_success() {
            return Err(format!("{target}: {status} {text}"));
        }
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    async fn table(&self) -> Result<String, String> {
        let tables = self.call("DynamoDB_20120810.ListTables", json!({})).await?;
        let name = tables["TableNames"][0].as_str().ok_or("there is no table")?;
        Ok(name.to_owned())
    }

    /// Every item of the one table.
    pub async fn items(&self) -> Result<Vec<Value>, String> {
        let table = self.table().await?;
        let mut items = Vec::new();
        let mut start = Value::Null;
        loop {
            let mut scan = json!({"TableName": table, "ConsistentRead": true});
            if !start.is_null() {
                scan["ExclusiveStartKey"] = start;
            }
            let page = self.call("DynamoDB_20120810.Scan", scan).await?;
            items.extend(page["Items"].as_array().into_iter().flatten().map(plain_item));
            start = page["LastEvaluatedKey"].clone();
            if start.is_null() {
                return Ok(items);
            }
        }
    }

    /// Every write that was made to the one table, in order.
    pub async fn history(&self) -> Result<Vec<Change>, String> {
        let table = self.table().await?;
        let streams = |operation: &str| format!("DynamoDBStreams_20120810.{operation}");
        let listed = self
            .call(&streams("ListStreams"), json!({"TableName": table}))
            .await?;
        let arn = listed["Streams"][0]["StreamArn"].clone();
        let described = self
            .call(&streams("DescribeStream"), json!({"StreamArn": arn}))
            .await?;
        let shards = described["StreamDescription"]["Shards"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let [shard] = shards.as_slice() else {
            return Err(format!(
                "the stream has {} shards, so it has no order",
                shards.len()
            ));
        };
        let wanted =
            json!({"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"});
        let mut iterator = self.call(&streams("GetShardIterator"), wanted).await?["ShardIterator"].clone();
        let mut changes = Vec::new();
        loop {
            let wanted = json!({"ShardIterator": iterator, "Limit": 1000});
            let page = self.call(&streams("GetRecords"), wanted).await?;
            let records = page["Records"].as_array().cloned().unwrap_or_default();
            if records.is_empty() {
                return Ok(changes);
            }
            for record in records {
                let about = &record["dynamodb"];
                let image = |name: &str| about.get(name).filter(|image| image.is_object()).map(plain_item);
                let key = |name: &str| about["Keys"][name]["S"].as_str().unwrap_or_default().to_owned();
                changes.push(Change {
                    pk: key("pk"),
                    sk: key("sk"),
                    old: image("OldImage"),
                    new: image("NewImage"),
                });
            }
            iterator = page["NextShardIterator"].clone();
        }
    }
}

fn plain_item(item: &Value) -> Value {
    let members: Map<String, Value> = (item.as_object().into_iter().flatten())
        .map(|(name, value)| (name.clone(), plain(value)))
        .collect();
    Value::Object(members)
}

/// A stored value without its type.
fn plain(value: &Value) -> Value {
    let Some((kind, content)) = value.as_object().and_then(|typed| typed.iter().next()) else {
        return Value::Null;
    };
    match (kind.as_str(), content) {
        ("N", Value::String(number)) => serde_json::from_str(number).unwrap_or_default(),
        ("M", _) => plain_item(content),
        ("L", Value::Array(list)) => list.iter().map(plain).collect(),
        ("NULL", _) => Value::Null,
        _ => content.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_loses_its_types_and_nothing_else() {
        let item = json!({"pk": {"S": "a"}, "rev": {"N": "18446744073709551615"}, "open": {"BOOL": true},
            "held": {"M": {"ada": {"L": [{"NULL": true}]}}}});
        let expected = json!({"pk": "a", "rev": u64::MAX, "open": true, "held": {"ada": [null]}});
        assert_eq!(plain_item(&item), expected);
    }
}
