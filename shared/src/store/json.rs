//! Items in DynamoDB's own JSON, such as `{"pk": {"S": "…"}, "rev": {"N": "7"}}`: what a table's export in AWS holds, too.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Map, Value, json};

use super::Item;

/// An item as JSON; `None` where it has a value of a kind that nothing here writes (sets and binary data).
#[must_use]
pub fn to_json(item: &Item) -> Option<Value> {
    members(item).map(Value::Object)
}

/// An item from its JSON; `None` where it is not of that form.
#[must_use]
pub fn from_json(json: &Value) -> Option<Item> {
    json.as_object()?
        .iter()
        .map(|(name, value)| Some((name.clone(), read(value)?)))
        .collect()
}

fn members(item: &HashMap<String, AttributeValue>) -> Option<Map<String, Value>> {
    item.iter()
        .map(|(name, value)| Some((name.clone(), write(value)?)))
        .collect()
}

fn write(value: &AttributeValue) -> Option<Value> {
    Some(match value {
        AttributeValue::S(text) => json!({"S": text}),
        AttributeValue::N(number) => json!({"N": number}),
        AttributeValue::Bool(yes) => json!({"BOOL": yes}),
        AttributeValue::Null(_) => json!({"NULL": true}),
        AttributeValue::M(item) => json!({"M": members(item)?}),
        AttributeValue::L(list) => json!({"L": list.iter().map(write).collect::<Option<Vec<_>>>()?}),
        _ => return None,
    })
}

fn read(json: &Value) -> Option<AttributeValue> {
    let object = json.as_object()?;
    let (kind, value) = object.iter().next().filter(|_| object.len() == 1)?;
    Some(match kind.as_str() {
        "S" => AttributeValue::S(value.as_str()?.to_owned()),
        "N" => AttributeValue::N(value.as_str()?.to_owned()),
        "BOOL" => AttributeValue::Bool(value.as_bool()?),
        "NULL" => AttributeValue::Null(value.as_bool()?),
        "M" => AttributeValue::M(from_json(value)?),
        "L" => AttributeValue::L(value.as_array()?.iter().map(read).collect::<Option<_>>()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_comes_back_from_its_json_as_it_was() {
        let item = Item::from([
            ("pk".to_owned(), AttributeValue::S("default#USER#ada".to_owned())),
            ("rev".to_owned(), AttributeValue::N("9007199254740993".to_owned())),
            ("protected".to_owned(), AttributeValue::Bool(false)),
            ("until".to_owned(), AttributeValue::Null(true)),
            (
                "held".to_owned(),
                AttributeValue::M(HashMap::from([(
                    "after".to_owned(),
                    AttributeValue::L(vec![AttributeValue::S("x".to_owned())]),
                )])),
            ),
        ]);
        assert_eq!(from_json(&to_json(&item).unwrap()).unwrap(), item);
    }

    #[test]
    fn what_is_no_item_is_not_taken_for_one() {
        for json in [
            json!([]),
            json!({"pk": "ada"}),
            json!({"pk": {"S": 1}}),
            json!({"pk": {"S": "a", "N": "1"}}),
            json!({"pk": {}}),
            json!({"pk": {"L": [{"X": "y"}]}}),
        ] {
            assert_eq!(from_json(&json), None, "{json}");
        }
        let set = Item::from([("ids".to_owned(), AttributeValue::Ss(vec!["a".to_owned()]))]);
        assert_eq!(to_json(&set), None);
    }
}
