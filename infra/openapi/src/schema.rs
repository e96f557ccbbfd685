//! The pieces that schemas are put together from (JSON Schema 2020-12, which OpenAPI 3.1 takes as it is).

use serde_json::{Map, Value, json};

/// A schema of the components, by its name.
pub(crate) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The same, or null.
pub(crate) fn reference_or_null(name: &str) -> Value {
    json!({"anyOf": [reference(name), {"type": "null"}]})
}

pub(crate) fn text() -> Value {
    json!({"type": "string"})
}

/// A text, or null.
pub(crate) fn text_or_null() -> Value {
    json!({"type": ["string", "null"]})
}

/// A text of so many characters.
pub(crate) fn text_of(least: u32, most: u32) -> Value {
    json!({"type": "string", "minLength": least, "maxLength": most})
}

/// One of these words.
pub(crate) fn one_of(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

pub(crate) fn boolean() -> Value {
    json!({"type": "boolean"})
}

/// A number of things.
pub(crate) fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

pub(crate) fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

pub(crate) fn time_or_null() -> Value {
    json!({"type": ["string", "null"], "format": "date-time"})
}

/// An exact decimal number, as a text.
pub(crate) fn decimal() -> Value {
    json!({"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?$"})
}

pub(crate) fn decimal_or_null() -> Value {
    json!({"type": ["string", "null"], "pattern": "^-?[0-9]+(\\.[0-9]+)?$"})
}

pub(crate) fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

/// Always this.
pub(crate) fn always(value: impl Into<Value>) -> Value {
    json!({"const": value.into()})
}

/// An id of an application's user.
pub(crate) fn user_id() -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": 128,
        "description": "1 to 128 printable characters without spaces.",
    })
}

/// A member of an object.
pub(crate) struct Member {
    name: &'static str,
    required: bool,
    schema: Value,
}

/// A member that is always there.
pub(crate) fn has(name: &'static str, schema: Value) -> Member {
    Member {
        name,
        required: true,
        schema,
    }
}

/// A member that may be left out.
pub(crate) fn may_have(name: &'static str, schema: Value) -> Member {
    Member {
        name,
        required: false,
        schema,
    }
}

/// An object with these members. Others may be added later, so clients have to ignore what they do not know.
pub(crate) fn object(members: impl IntoIterator<Item = Member>) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for member in members {
        if member.required {
            required.push(member.name);
        }
        properties.insert(member.name.to_owned(), member.schema);
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// An object whose members all have this schema, under any names.
pub(crate) fn map(values: Value) -> Value {
    json!({"type": "object", "additionalProperties": values})
}
