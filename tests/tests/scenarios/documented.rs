//! Holds every answer that a scenario gets against the OpenAPI document.
//!
//! The document lets clients expect further members; here every object is closed, so that a member that the document
//! does not name is found as well as one that is missing or of another type.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use berth::http::routes::{self, Found};
use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Value, json};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = berth_openapi::document();
    close(&mut document["components"]["schemas"]);
    document
});

/// The validators made so far, by the pointer to their schema.
static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// Lets no object have members that are not named.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("properties").is_some_and(Value::is_object)
                && members.get("type") == Some(&json!("object"))
            {
                members.entry("additionalProperties").or_insert(json!(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

/// What is not as the document says, of an answer with this status and body; empty where all is, and for what is no
/// route's answer.
pub fn faults(method: &Method, path: &str, status: u16, kind: &str, body: &Value) -> Vec<String> {
    faults_in(&DOCUMENT, method, path, status, kind, body)
}

fn faults_in(
    document: &Value,
    method: &Method,
    path: &str,
    status: u16,
    kind: &str,
    body: &Value,
) -> Vec<String> {
    let Found::Route { route, .. } = routes::find(method, path) else {
        return Vec::new();
    };
    let escaped = |text: &str| text.replace('~', "~0").replace('/', "~1");
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let (path, method) = (escaped(route.path), method.as_str().to_ascii_lowercase());
    let mut pointer = format!("/paths/{path}/{method}/responses/{status}");
    // Answers that routes share stand among the components.
    if let Some(shared) = document.pointer(&format!("{pointer}/$ref")) {
        pointer = shared.as_str().unwrap().trim_start_matches('#').to_owned();
    }
    let described = document.pointer(&pointer);
    if kind.is_empty() && described.is_some_and(|described| described.get("content").is_none()) {
        return Vec::new();
    }
    pointer.push_str(&format!("/content/{}/schema", escaped(kind)));
    let Some(schema) = document.pointer(&pointer) else {
        return vec![format!("the document has no {pointer}")];
    };
    let key = format!("{pointer} {schema}");
    let known = VALIDATORS.lock().unwrap().get(&key).cloned();
    let validator = known.unwrap_or_else(|| {
        let whole = json!({"allOf": [schema], "components": document["components"]});
        let options = jsonschema::options().should_validate_formats(true);
        let made = Arc::new(options.build(&whole).unwrap());
        VALIDATORS.lock().unwrap().insert(key, Arc::clone(&made));
        made
    });
    validator
        .iter_errors(body)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn an_answer_that_is_not_as_documented_is_told_from_one_that_is() {
    let (path, json_kind) = ("/api/snaptrade/register", "application/json");
    let good = json!({
        "success": true, "user_id": "ada", "created": true, "created_at": "2026-11-21T10:00:00.000Z",
        "evicted": null, "slots": {"in_use": 1, "limit": 5},
    });
    let of = |status, kind, body: &Value| faults(&Method::POST, path, status, kind, body);
    assert_eq!(of(201, json_kind, &good), Vec::<String>::new());
    assert_eq!(
        of(201, "application/json; charset=utf-8", &good),
        Vec::<String>::new()
    );
    for (pointer, value) in [
        ("/created", json!("yes")),
        ("/created_at", json!("yesterday")),
        ("/slots", json!({"in_use": 1})),
        ("/slots/in_use", json!(-1)),
        (
            "/evicted",
            json!({"reason": "youngest", "created_at": "2026-11-21T10:00:00Z"}),
        ),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert!(!of(201, json_kind, &bad).is_empty(), "{bad}");
    }
    let mut more = good.clone();
    more["user_secret"] = json!("s");
    assert!(!of(201, json_kind, &more).is_empty());
    assert!(!of(202, json_kind, &good).is_empty());
    assert!(!of(201, "text/html", &good).is_empty());
    let problem = json!({
        "type": "urn:berth:problem:not_found", "title": "t", "status": 404, "detail": "d", "code": "not_found",
        "request_id": "r",
    });
    assert!(!of(404, "application/problem+json", &problem).is_empty());
}

#[tokio::test]
async fn the_document_is_served_to_anyone() {
    let world = crate::world::World::start().await;
    let answer = world.send(world.request(Method::GET, "/openapi.json")).await;
    assert_eq!(answer.with_status(200).body, berth_openapi::document());
    world.stop().await;
}

/// The body that an operation takes, closed or not.
fn body_of(path: &str, method: &str) -> Value {
    let escaped = path.replace('/', "~1");
    let pointer = format!("/paths/{escaped}/{method}/requestBody/content/application~1json/schema");
    DOCUMENT.pointer(&pointer).cloned().unwrap_or_default()
}

/// Each member that the document names is one that the handler reads: one of the wrong type is pointed to, and so is
/// one that is needed and missing.
#[tokio::test]
async fn bodies_are_read_as_the_document_says() {
    let world = crate::world::World::start().await;
    let mut members = 0;
    for route in &routes::ROUTES {
        let method = route.method.as_str().to_ascii_lowercase();
        let schema = body_of(route.path, &method);
        let Some(properties) = schema["properties"].as_object() else {
            continue;
        };
        let path = route.path.replace("{user_id}", "ada").replace("{id}", "none");
        let wrong: Value = properties
            .keys()
            .map(|name| (name.clone(), json!({"no": "value"})))
            .collect();
        let ask = async |body: &Value| {
            let request = world.as_operator(route.method.clone(), &path).json(body);
            let answer = world.send(request).await;
            let faults = answer.body["errors"].as_array().cloned().unwrap_or_default();
            let named = faults
                .iter()
                .map(|fault| fault["pointer"].as_str().unwrap().to_owned());
            named.collect::<Vec<_>>()
        };
        let named = ask(&wrong).await;
        for name in properties.keys() {
            members += 1;
            assert!(
                named.contains(&format!("/{name}")),
                "{} {name}: {named:?}",
                route.path
            );
        }
        if let Some(required) = schema["required"].as_array() {
            let missing = ask(&json!({})).await;
            let expected: Vec<String> = required
                .iter()
                .map(|name| format!("/{}", name.as_str().unwrap()))
                .collect();
            assert_eq!(missing, expected, "{}", route.path);
        }
    }
    assert!(members > 20, "{members}");
    world.stop().await;
}
