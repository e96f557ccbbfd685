//! Every route of the API, in one table. The local gateway and the answer to unknown paths read it; a test holds the
//! deployment's template against it.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use super::problem::{Code, Problem};

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The method that it takes.
    pub method: Method,
    /// Its path; a segment in braces is a variable and stands for any one segment that is not empty.
    pub path: &'static str,
    /// The function that serves it, by the name of its package.
    pub function: &'static str,
    /// Whom the gateway lets through.
    pub access: Access,
}

/// Whom the gateway lets through to a route. What they may do there is the function's to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone, with a token or without.
    Anyone,
    /// Who has a valid token.
    User,
}

const fn route(method: Method, path: &'static str, function: &'static str, access: Access) -> Route {
    Route {
        method,
        path,
        function,
        access,
    }
}

/// All routes.
pub static ROUTES: [Route; 47] = [
    route(Method::GET, "/", "status", Access::Anyone),
    route(Method::GET, "/health", "status", Access::Anyone),
    route(Method::GET, "/openapi.json", "status", Access::Anyone),
    route(Method::GET, "/api/snaptrade/status", "status", Access::User),
    route(Method::POST, "/api/snaptrade/register", "register", Access::User),
    route(
        Method::POST,
        "/api/snaptrade/handle-connection-limit",
        "handle-limit",
        Access::User,
    ),
    route(
        Method::POST,
        "/api/snaptrade/connection-url",
        "connection-url",
        Access::User,
    ),
    route(
        Method::POST,
        "/api/snaptrade/callback",
        "connection-url",
        Access::User,
    ),
    route(Method::POST, "/api/snaptrade/webhook", "webhook", Access::Anyone),
    route(Method::POST, "/api/snaptrade/refresh", "refresh", Access::User),
    route(
        Method::GET,
        "/api/snaptrade/connections",
        "portfolio",
        Access::User,
    ),
    route(
        Method::DELETE,
        "/api/snaptrade/connections/{connection_id}",
        "portfolio",
        Access::User,
    ),
    route(
        Method::GET,
        "/api/snaptrade/brokerages",
        "portfolio",
        Access::User,
    ),
    route(Method::GET, "/api/portfolio/accounts", "portfolio", Access::User),
    route(Method::GET, "/api/portfolio/positions", "portfolio", Access::User),
    route(Method::GET, "/api/portfolio/balances", "portfolio", Access::User),
    route(
        Method::GET,
        "/api/portfolio/transactions",
        "portfolio",
        Access::User,
    ),
    route(
        Method::GET,
        "/api/portfolio/performance",
        "portfolio",
        Access::User,
    ),
    route(Method::GET, "/api/portfolio/mode", "portfolio", Access::User),
    route(
        Method::POST,
        "/api/portfolio/statements",
        "portfolio",
        Access::User,
    ),
    route(
        Method::DELETE,
        "/api/portfolio/statements/{account_id}",
        "portfolio",
        Access::User,
    ),
    route(Method::GET, "/api/portfolio/history", "portfolio", Access::User),
    route(Method::GET, "/api/portfolio/changes", "portfolio", Access::User),
    route(Method::GET, "/api/snaptrade/users", "users", Access::User),
    route(Method::POST, "/api/snaptrade/users", "users", Access::User),
    route(
        Method::POST,
        "/api/snaptrade/users/delete-oldest",
        "users",
        Access::User,
    ),
    route(
        Method::PATCH,
        "/api/snaptrade/users/{user_id}",
        "users",
        Access::User,
    ),
    route(
        Method::DELETE,
        "/api/snaptrade/users/{user_id}",
        "users",
        Access::User,
    ),
    route(
        Method::POST,
        "/api/snaptrade/users/{user_id}/recreate",
        "users",
        Access::User,
    ),
    route(
        Method::POST,
        "/api/snaptrade/users/{user_id}/reset-secret",
        "users",
        Access::User,
    ),
    route(
        Method::GET,
        "/api/snaptrade/dead-letters",
        "webhook-admin",
        Access::User,
    ),
    route(
        Method::POST,
        "/api/snaptrade/dead-letters/{webhook_id}/replay",
        "webhook-admin",
        Access::User,
    ),
    route(
        Method::POST,
        "/api/snaptrade/sync",
        "connection-sync",
        Access::User,
    ),
    route(Method::POST, "/api/access/sync", "access-sync", Access::User),
    // The path that the program has which the access sync replaces.
    route(Method::POST, "/sync", "access-sync", Access::User),
    route(
        Method::POST,
        "/api/access/webhook",
        "access-webhook",
        Access::Anyone,
    ),
    route(Method::GET, "/api/access/plan", "access-admin", Access::User),
    route(
        Method::POST,
        "/api/access/plans/{id}/approve",
        "access-admin",
        Access::User,
    ),
    route(Method::GET, "/api/access/reviews", "access-admin", Access::User),
    route(
        Method::POST,
        "/api/access/reviews/{id}",
        "access-admin",
        Access::User,
    ),
    route(
        Method::GET,
        "/api/access/dead-letters",
        "access-admin",
        Access::User,
    ),
    route(
        Method::POST,
        "/api/access/dead-letters/{id}/replay",
        "access-admin",
        Access::User,
    ),
    route(
        Method::GET,
        "/api/access/scripts/{script_id}",
        "access-admin",
        Access::User,
    ),
    route(
        Method::PUT,
        "/api/access/scripts/{script_id}",
        "access-admin",
        Access::User,
    ),
    route(
        Method::POST,
        "/api/access/revocations",
        "access-admin",
        Access::User,
    ),
    route(Method::POST, "/api/access/resync", "access-admin", Access::User),
    route(Method::POST, "/api/access/repair", "access-admin", Access::User),
];

/// What a path and a method lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A route, with the values of the variables in its path, percent-decoded.
    Route {
        /// The route.
        route: &'static Route,
        /// Name and value of each variable.
        params: Vec<(&'static str, String)>,
    },
    /// The path exists, but takes only these methods, `OPTIONS` among them.
    OtherMethods(Vec<String>),
    /// The path does not exist.
    Nothing,
}

impl Found {
    /// The problem to answer where no route was found.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        match self {
            Self::Route { .. } => None,
            Self::OtherMethods(allow) => Some(Problem::method_not_allowed(allow.clone())),
            Self::Nothing => Some(Problem::new(Code::NotFound).detail("There is no such path.")),
        }
    }
}

/// Finds the route of `method` and `path`, the path as it stands in the request, without the query. Where several
/// routes fit, the one with the fewest variables does, as in API Gateway.
#[must_use]
pub fn find(method: &Method, path: &str) -> Found {
    let mut best: Option<(&'static Route, Vec<(&'static str, String)>)> = None;
    let mut allow: Vec<String> = Vec::new();
    for route in &ROUTES {
        let Some(params) = match_path(route.path, path) else {
            continue;
        };
        let name = route.method.as_str().to_owned();
        if !allow.contains(&name) {
            allow.push(name);
        }
        let better = best
            .as_ref()
            .is_none_or(|(_, earlier)| params.len() < earlier.len());
        if route.method == *method && better {
            best = Some((route, params));
        }
    }
    match best {
        Some((route, params)) => Found::Route { route, params },
        None if allow.is_empty() => Found::Nothing,
        None => {
            allow.push(Method::OPTIONS.as_str().to_owned());
            Found::OtherMethods(allow)
        }
    }
}

/// The route that API Gateway names by its key, such as `POST /api/snaptrade/register`.
#[must_use]
pub fn by_key(key: &str) -> Option<&'static Route> {
    let (method, path) = key.split_once(' ')?;
    ROUTES
        .iter()
        .find(|route| route.method.as_str() == method && route.path == path)
}

fn match_path(template: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let mut params = Vec::new();
    let mut given = path.split('/');
    for expected in template.split('/') {
        let segment = decode(given.next()?)?;
        match expected.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) if !segment.is_empty() => params.push((name, segment.into_owned())),
            Some(_) => return None,
            None if segment == expected => {}
            None => return None,
        }
    }
    given.next().is_none().then_some(params)
}

fn decode(segment: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(segment).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, path: &str) -> Option<(&'static str, Vec<String>)> {
        match find(&method, path) {
            Found::Route { route, params } => {
                Some((route.path, params.into_iter().map(|(_, value)| value).collect()))
            }
            _ => None,
        }
    }

    #[test]
    fn a_route_is_found_by_method_and_path() {
        assert_eq!(found(Method::GET, "/"), Some(("/", vec![])));
        assert_eq!(
            found(Method::POST, "/api/snaptrade/register"),
            Some(("/api/snaptrade/register", vec![]))
        );
        for path in ["", "/health/", "//", "/Health", "/api/snaptrade/users//recreate"] {
            assert_eq!(found(Method::GET, path), None, "{path}");
        }
    }

    #[test]
    fn ids_in_paths_are_percent_decoded_once() {
        let path = "/api/snaptrade/users/{user_id}";
        for (given, expected) in [
            ("ada", "ada"),
            ("auth0%7C5f", "auth0|5f"),
            ("a%2Fb", "a/b"),
            ("a%2525", "a%25"),
            ("zo%C3%AB", "zoë"),
            ("a+b", "a+b"),
        ] {
            assert_eq!(
                found(Method::DELETE, &format!("/api/snaptrade/users/{given}")),
                Some((path, vec![expected.to_owned()]))
            );
        }
        assert_eq!(found(Method::DELETE, "/api/snaptrade/users/%FF"), None);
        assert_eq!(found(Method::DELETE, "/api/snaptrade/users/"), None);
    }

    #[test]
    fn a_named_segment_goes_before_a_variable() {
        assert_eq!(
            found(Method::POST, "/api/snaptrade/users/delete-oldest"),
            Some(("/api/snaptrade/users/delete-oldest", vec![]))
        );
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let Found::OtherMethods(allow) = find(&Method::PUT, "/api/snaptrade/users") else {
            panic!("the path exists")
        };
        assert_eq!(allow, ["GET", "POST", "OPTIONS"]);
        assert_eq!(find(&Method::GET, "/nowhere"), Found::Nothing);
    }

    #[test]
    fn every_route_is_found_by_its_key_and_by_its_path() {
        for route in &ROUTES {
            let key = format!("{} {}", route.method, route.path);
            assert_eq!(by_key(&key), Some(route));
            let path = route.path.replace('{', "a-").replace('}', "");
            assert_eq!(
                found(route.method.clone(), &path).map(|(path, _)| path),
                Some(route.path)
            );
        }
        assert_eq!(by_key("$default"), None);
    }
}
