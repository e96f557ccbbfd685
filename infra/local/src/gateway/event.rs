//! The event that API Gateway's HTTP API hands to a function, in payload format 2.0.
//!
//! Source: AWS, "Create AWS Lambda proxy integrations for HTTP APIs in API Gateway".

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, header};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

/// The account that the local stack's events name.
const ACCOUNT_ID: &str = "000000000000";

/// The API that they name.
const API_ID: &str = "local";

/// One request and what the gateway found out about it.
pub(super) struct Received<'a> {
    /// Method, URI and headers as they came.
    pub(super) parts: &'a Parts,
    /// The whole body.
    pub(super) body: &'a [u8],
    /// Who sent it.
    pub(super) source: IpAddr,
    /// The route that serves it, such as `GET /api/snaptrade/users/{user_id}` or `$default`.
    pub(super) route_key: &'a str,
    /// The route's parameters, decoded.
    pub(super) path_parameters: &'a BTreeMap<String, String>,
    /// The token's claims, where the route asks for a token.
    pub(super) claims: Option<Value>,
    /// The gateway's id for the request.
    pub(super) request_id: &'a str,
    /// When it came, by the stack's clock.
    pub(super) now: Timestamp,
}

impl Received<'_> {
    /// The event.
    pub(super) fn event(&self) -> Value {
        let uri = &self.parts.uri;
        let query = uri.query().unwrap_or_default();
        let headers = &self.parts.headers;
        let domain = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or("localhost");
        let mut event = json!({
            "version": "2.0",
            "routeKey": self.route_key,
            "rawPath": uri.path(),
            "rawQueryString": query,
            "headers": self.headers(domain),
            "requestContext": self.context(domain),
            "isBase64Encoded": false,
        });
        let Some(members) = event.as_object_mut() else {
            return event;
        };
        let cookies = cookies(headers);
        if !cookies.is_empty() {
            members.insert("cookies".to_owned(), json!(cookies));
        }
        let query = query_parameters(query);
        if !query.is_empty() {
            members.insert("queryStringParameters".to_owned(), Value::Object(query));
        }
        if !self.path_parameters.is_empty() {
            members.insert("pathParameters".to_owned(), json!(self.path_parameters));
        }
        if !self.body.is_empty() {
            let text = std::str::from_utf8(self.body).ok().filter(|_| is_text(headers));
            members.insert("isBase64Encoded".to_owned(), json!(text.is_none()));
            let body = text.map_or_else(|| STANDARD.encode(self.body), str::to_owned);
            members.insert("body".to_owned(), Value::String(body));
        }
        event
    }

    /// The headers by lower-case name, those that came several times joined, and what the gateway itself adds.
    fn headers(&self, domain: &str) -> Map<String, Value> {
        let received = &self.parts.headers;
        let mut headers: Map<String, Value> = received
            .keys()
            .filter(|name| **name != header::COOKIE)
            .map(|name| {
                let values: Vec<_> = received
                    .get_all(name)
                    .iter()
                    .map(|value| String::from_utf8_lossy(value.as_bytes()))
                    .collect();
                (name.as_str().to_owned(), Value::String(values.join(",")))
            })
            .collect();
        let port = domain.rsplit_once(':').map_or("80", |(_, port)| port);
        let own = [
            ("host", domain.to_owned()),
            ("content-length", self.body.len().to_string()),
            ("x-forwarded-for", self.source.to_string()),
            ("x-forwarded-port", port.to_owned()),
            ("x-forwarded-proto", "http".to_owned()),
        ];
        for (name, value) in own {
            headers.insert(name.to_owned(), Value::String(value));
        }
        headers
    }

    fn context(&self, domain: &str) -> Value {
        let domain_name = domain.rsplit_once(':').map_or(domain, |(name, _)| name);
        let agent = self
            .parts
            .headers
            .get(header::USER_AGENT)
            .map(|agent| String::from_utf8_lossy(agent.as_bytes()))
            .unwrap_or_default();
        let mut context = json!({
            "accountId": ACCOUNT_ID,
            "apiId": API_ID,
            "domainName": domain_name,
            "domainPrefix": domain_name.split('.').next().unwrap_or_default(),
            "http": {
                "method": self.parts.method.as_str(),
                "path": self.parts.uri.path(),
                "protocol": "HTTP/1.1",
                "sourceIp": self.source.to_string(),
                "userAgent": agent,
            },
            "requestId": self.request_id,
            "routeKey": self.route_key,
            "stage": "$default",
            "time": self.now.to_zoned(TimeZone::UTC).strftime("%d/%b/%Y:%H:%M:%S %z").to_string(),
            "timeEpoch": self.now.as_millisecond(),
        });
        if let (Some(claims), Some(members)) = (&self.claims, context.as_object_mut()) {
            let authorizer = json!({"jwt": {"claims": claims, "scopes": null}});
            members.insert("authorizer".to_owned(), authorizer);
        }
        context
    }
}

/// The cookies, one text each.
fn cookies(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            value
                .split(';')
                .map(|cookie| cookie.trim().to_owned())
                .collect::<Vec<_>>()
        })
        .filter(|cookie| !cookie.is_empty())
        .collect()
}

/// The query's parameters, decoded, those that came several times joined.
fn query_parameters(query: &str) -> Map<String, Value> {
    let mut parameters = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let joined = match parameters.get(name.as_ref()).and_then(Value::as_str) {
            Some(before) => format!("{before},{value}"),
            None => value.into_owned(),
        };
        parameters.insert(name.into_owned(), Value::String(joined));
    }
    parameters
}

/// Whether a body is handed on as the text that it is; any other is encoded in base 64.
fn is_text(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return true;
    };
    let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
    kind.starts_with("text/")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || matches!(
            kind.as_str(),
            "application/json" | "application/javascript" | "application/xml"
        )
}

#[cfg(test)]
mod tests {
    use lambda_http::{Body, RequestExt, RequestPayloadExt};

    use super::*;

    fn event(request: http::Request<&'static [u8]>, claims: Option<Value>) -> Value {
        let (parts, body) = request.into_parts();
        Received {
            parts: &parts,
            body,
            source: "127.0.0.1".parse().unwrap(),
            route_key: "PATCH /api/snaptrade/users/{user_id}",
            path_parameters: &BTreeMap::from([("user_id".to_owned(), "a/b".to_owned())]),
            claims,
            request_id: "request-1",
            now: "2026-03-01T10:20:30.5Z".parse().unwrap(),
        }
        .event()
    }

    fn request() -> http::request::Builder {
        http::Request::builder()
            .method("PATCH")
            .uri("/api/snaptrade/users/a%2Fb?limit=5&tag=x&tag=y%20z")
            .header("Host", "127.0.0.1:9000")
            .header("X-Thing", "1")
            .header("x-thing", "2")
            .header("cookie", "a=1; b=2")
    }

    #[test]
    fn an_event_has_the_members_of_payload_format_2() {
        let request = request()
            .header("content-type", "application/json; charset=utf-8")
            .body(br#"{"protected":true}"#.as_slice())
            .unwrap();
        let event = event(request, Some(json!({"sub": "ops", "scope": "berth/operator"})));
        assert_eq!(event["version"], "2.0");
        assert_eq!(event["rawPath"], "/api/snaptrade/users/a%2Fb");
        assert_eq!(event["rawQueryString"], "limit=5&tag=x&tag=y%20z");
        assert_eq!(
            event["queryStringParameters"],
            json!({"limit": "5", "tag": "x,y z"})
        );
        assert_eq!(event["pathParameters"], json!({"user_id": "a/b"}));
        assert_eq!(event["cookies"], json!(["a=1", "b=2"]));
        assert_eq!(event["headers"]["x-thing"], "1,2");
        assert!(event["headers"].get("cookie").is_none());
        assert_eq!(event["body"], r#"{"protected":true}"#);
        assert_eq!(event["isBase64Encoded"], false);
        let context = &event["requestContext"];
        assert_eq!(context["http"]["method"], "PATCH");
        assert_eq!(context["time"], "01/Mar/2026:10:20:30 +0000");
        assert_eq!(context["timeEpoch"], 1_772_360_430_500_i64);
        assert_eq!(context["authorizer"]["jwt"]["claims"]["sub"], "ops");
    }

    #[test]
    fn the_lambda_runtime_reads_the_event_as_the_request_that_was_sent() {
        let request = request()
            .header("content-type", "application/octet-stream")
            .body([0xff, 0x00].as_slice())
            .unwrap();
        let event = event(request, Some(json!({"sub": "ada"})));
        assert_eq!(event["isBase64Encoded"], true);
        let read = lambda_http::request::from_str(&event.to_string()).unwrap();
        assert_eq!(read.method(), "PATCH");
        assert_eq!(read.raw_http_path(), "/api/snaptrade/users/a%2Fb");
        assert_eq!(read.path_parameters().first("user_id"), Some("a/b"));
        assert_eq!(
            read.query_string_parameters().all("tag").unwrap(),
            vec!["x", "y z"]
        );
        assert_eq!(read.headers()["cookie"], "a=1; b=2");
        assert!(matches!(read.body(), Body::Binary(bytes) if bytes == &[0xff, 0x00]));
        let context = read.request_context();
        let claims = &context.authorizer().unwrap().jwt.as_ref().unwrap().claims;
        assert_eq!(claims["sub"], "ada");
    }

    #[test]
    fn a_request_without_query_cookies_body_and_token_has_no_such_members() {
        let request = http::Request::builder().uri("/").body(b"".as_slice()).unwrap();
        let event = event(request, None);
        for absent in ["queryStringParameters", "cookies", "body"] {
            assert!(event.get(absent).is_none(), "{absent}");
        }
        assert!(event["requestContext"].get("authorizer").is_none());
        let read = lambda_http::request::from_str(&event.to_string()).unwrap();
        assert!(read.payload::<Value>().unwrap().is_none());
    }
}
