//! The API as an OpenAPI 3.1 document, made from the routes and the problem codes that the functions themselves use.
//!
//! It is made when it changes, not when it is asked for: the function `status` holds it as a file, and a test says when
//! that is not what is made here. The scenarios hold every answer that they get against it.

#![expect(
    clippy::indexing_slicing,
    reason = "the JSON objects whose members are set here are made here"
)]

mod answers;
mod operations;
mod schema;

use std::collections::BTreeSet;

use berth::http::Code;
use berth::http::routes::{Access, ROUTES, Route};
use serde_json::{Map, Value, json};

use operations::Operation;
use schema::reference;

/// The document as the file has it.
#[must_use]
pub fn text() -> String {
    format!("{:#}", document())
}

/// The document.
#[must_use]
pub fn document() -> Value {
    let (mut paths, mut shared) = (Map::<String, Value>::new(), Map::new());
    for route in &ROUTES {
        let Some(operation) = operations::of(route) else {
            continue;
        };
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = describe(route, &operation, &mut shared);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Berth",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The backend between an application and SnapTrade, which keeps within its connection limit.",
            "description": "Times are RFC 3339 in UTC. Money is a decimal string beside its currency. Every answer carries x-request-id and x-correlation-id. Members may be added to answers at any time.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "service", "description": "Whether it is up, and what it offers."},
            {"name": "limit", "description": "Registering users within the connection limit."},
            {"name": "connections", "description": "Connecting brokerages."},
            {"name": "portfolio", "description": "What a user's accounts hold."},
            {"name": "users", "description": "Tracked users, for operators."},
            {"name": "access", "description": "The access sync, for operators."},
            {"name": "webhooks", "description": "Events of outside services."},
        ],
        "paths": paths,
        "components": {
            "schemas": answers::schemas(),
            "responses": shared,
            "headers": all_headers(),
            "securitySchemes": {
                "token": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "A token of the deployment's OpenID Connect issuer; on the local stack dev:<user id> or dev:<name>:operator.",
                },
            },
        },
    })
}

fn describe(route: &Route, operation: &Operation, shared: &mut Map<String, Value>) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": responses(route, operation, shared),
    });
    let path_parameters = path_parameters(route);
    let parameters: Vec<Value> = path_parameters
        .chain(operation.parameters.iter().cloned())
        .collect();
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(body) = &operation.body {
        described["requestBody"] = json!({
            "required": body.required,
            "content": {"application/json": {"schema": body.schema}},
        });
    }
    described["security"] = match route.access {
        Access::User => json!([{"token": []}]),
        Access::Anyone => json!([]),
    };
    described
}

fn path_parameters(route: &Route) -> impl Iterator<Item = Value> {
    route.path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({
            "name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1},
        }))
    })
}

/// What API Gateway answers itself on a route that takes a token: no token, a body or headers too large, throttling, a
/// function that failed or took too long.
const GATEWAY_WITH_TOKEN: [u16; 6] = [401, 413, 429, 431, 500, 503];

/// The same on a route that anyone may call.
const GATEWAY: [u16; 5] = [413, 429, 431, 500, 503];

/// All answers of a route: its own, its problems, and what API Gateway answers itself. Answers that routes share go into
/// `shared`, by name.
fn responses(route: &Route, operation: &Operation, shared: &mut Map<String, Value>) -> Value {
    let mut codes = vec![
        Code::InvalidRequest,
        Code::PayloadTooLarge,
        Code::RateLimited,
        Code::UpstreamError,
        Code::UpstreamTimeout,
        Code::Unavailable,
    ];
    if route.access == Access::User {
        codes.push(Code::Forbidden);
    }
    codes.extend_from_slice(operation.codes);
    let gateway: &[u16] = match route.access {
        Access::User => &GATEWAY_WITH_TOKEN,
        Access::Anyone => &GATEWAY,
    };
    let statuses: BTreeSet<u16> = codes
        .iter()
        .map(|code| code.status().as_u16())
        .chain(gateway.iter().copied())
        .collect();
    let mut responses: Map<String, Value> = Map::new();
    for status in statuses {
        let mut codes: Vec<&str> = codes
            .iter()
            .filter(|code| code.status().as_u16() == status)
            .map(|code| code.as_str())
            .collect();
        codes.sort_unstable();
        let response = refusal(status, &codes, gateway.contains(&status));
        let name = std::iter::once(status.to_string().as_str())
            .chain(codes)
            .collect::<Vec<_>>()
            .join(".");
        responses.insert(
            status.to_string(),
            json!({"$ref": format!("#/components/responses/{name}")}),
        );
        shared.insert(name, response);
    }
    for (status, description, schema) in &operation.answers {
        let mut response = json!({"description": description, "headers": headers(false)});
        if schema.is_null() {
            // An answer without a body.
            responses.insert(status.to_string(), response);
            continue;
        }
        response["content"] = json!({"application/json": {"schema": schema}});
        // A status with which the function answers a body of its own may stand for a problem or for API Gateway as well.
        if let Some(reference) = responses.get(&status.to_string())
            && let Some(refusal) = reference["$ref"]
                .as_str()
                .and_then(|reference| shared.get(reference.rsplit('/').next()?))
        {
            let (own, gateway) = (schema.clone(), self::reference("GatewayMessage"));
            response["content"] = refusal["content"].clone();
            response["content"]["application/json"] = json!({"schema": {"anyOf": [own, gateway]}});
        }
        responses.insert(status.to_string(), response);
    }
    Value::Object(responses)
}

/// An answer that is a problem with one of `codes`, or API Gateway's own.
fn refusal(status: u16, codes: &[&str], by_gateway: bool) -> Value {
    let mut content = Map::new();
    if !codes.is_empty() {
        let schema = json!({
            "allOf": [
                reference("Problem"),
                {"properties": {"status": {"const": status}, "code": {"enum": codes}}},
            ],
        });
        content.insert("application/problem+json".to_owned(), json!({"schema": schema}));
    }
    if by_gateway {
        content.insert(
            "application/json".to_owned(),
            json!({"schema": reference("GatewayMessage")}),
        );
    }
    let description = match (codes, by_gateway) {
        ([], _) => "Answered by API Gateway itself.".to_owned(),
        (codes, true) => format!("{}; or answered by API Gateway itself.", codes.join(", ")),
        (codes, false) => format!("{}.", codes.join(", ")),
    };
    json!({"description": description, "headers": headers(true), "content": content})
}

fn headers(of_refusal: bool) -> Value {
    let header = |name: &str| json!({"$ref": format!("#/components/headers/{name}")});
    let mut headers =
        json!({"x-request-id": header("x-request-id"), "x-correlation-id": header("x-correlation-id")});
    if of_refusal {
        headers["Retry-After"] = header("Retry-After");
    }
    headers
}

fn all_headers() -> Value {
    json!({
        "x-request-id": {"description": "The request's id.", "schema": {"type": "string"}},
        "x-correlation-id": {
            "description": "The correlation id that the request came with, or a new one.",
            "schema": {"type": "string"},
        },
        "Retry-After": {
            "description": "After how many seconds it makes sense to try again, where waiting helps.",
            "schema": {"type": "integer", "minimum": 1},
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The routes that a document does not describe, and the descriptions of what is no route.
    fn differences(document: &Value) -> Vec<String> {
        let described: BTreeSet<String> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().keys();
                methods.map(move |method| format!("{} {path}", method.to_ascii_uppercase()))
            })
            .collect();
        let routes: BTreeSet<String> = ROUTES
            .iter()
            .map(|route| format!("{} {}", route.method, route.path))
            .collect();
        assert_eq!(routes.len(), ROUTES.len());
        described.symmetric_difference(&routes).cloned().collect()
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        assert_eq!(differences(&document()), Vec::<String>::new());
    }

    #[test]
    fn a_route_without_a_description_and_a_description_without_a_route_are_both_found() {
        let mut less = document();
        let paths = less["paths"].as_object_mut().unwrap();
        paths.remove("/api/snaptrade/register").unwrap();
        assert_eq!(differences(&less), ["POST /api/snaptrade/register"]);
        let mut more = document();
        more["paths"]["/health"]["delete"] = json!({});
        assert_eq!(differences(&more), ["DELETE /health"]);
    }

    #[test]
    fn every_operation_has_an_id_of_its_own_and_every_reference_leads_somewhere() {
        let document = document();
        let mut ids = BTreeSet::new();
        for methods in document["paths"].as_object().unwrap().values() {
            for operation in methods.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{id}");
            }
        }
        let text = document.to_string();
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn the_function_status_serves_what_is_made_here() {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../functions/status/src/openapi.json"
        );
        let served = std::fs::read_to_string(file).unwrap();
        assert!(
            served.trim_end() == text(),
            "cargo run -p berth-openapi > functions/status/src/openapi.json renews the file"
        );
    }
}
