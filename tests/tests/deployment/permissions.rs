//! What each function's role allows, against what the function does.

use std::collections::{BTreeMap, BTreeSet};

use berth_local::{Options, Permission, Stack};

use crate::template::{Template, texts};

/// By function what is done to the table, or what may be done to it.
pub(crate) type Permissions = BTreeMap<String, BTreeSet<Permission>>;

/// What the template allows each function on the table and its index.
pub(crate) fn allowed(template: &Template) -> Permissions {
    let of = |function: &crate::template::Function<'_>| {
        let mut permissions = BTreeSet::new();
        for statement in function.statements() {
            if crate::template::Function::only_starts_by(statement) {
                continue;
            }
            for resource in texts(&statement["Resource"]) {
                let on = match resource.as_str() {
                    "Table.Arn" => None,
                    "${Table.Arn}/index/gsi1" => Some("gsi1".to_owned()),
                    _ => continue,
                };
                permissions.extend(texts(&statement["Action"]).into_iter().map(|action| Permission {
                    action,
                    on: on.clone(),
                }));
            }
        }
        permissions
    };
    template
        .functions()
        .iter()
        .map(|function| (function.package.clone(), of(function)))
        .collect()
}

/// Functions over the same code. What one of them was seen to do the others can come to do.
const FAMILIES: [&[&str]; 4] = [
    &["connection-sync", "connection-sync-schedule"],
    &["refresh", "refresh-schedule"],
    &["webhook-worker", "webhook-admin"],
    &[
        "access-sync",
        "access-sync-schedule",
        "access-rescan-schedule",
        "access-admin",
        "access-webhook",
    ],
];

/// What the functions did that run the same code as `function`, itself among them.
fn done_by_its_code(function: &str, done: &Permissions) -> BTreeSet<Permission> {
    let family = FAMILIES.iter().find(|family| family.contains(&function));
    let family = family.copied().unwrap_or(&[]);
    std::iter::once(&function)
        .chain(family)
        .filter_map(|member| done.get(*member))
        .flatten()
        .cloned()
        .collect()
}

/// Something that is wrong with a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The function did what it may not do.
    Missing {
        function: String,
        permission: Permission,
    },
    /// It may do what it never did.
    Over {
        function: String,
        permission: Permission,
    },
}

/// What is wrong with the roles.
pub(crate) fn faults(allowed: &Permissions, all: &Permissions) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (function, allowed) in allowed {
        let nothing = BTreeSet::new();
        let done = all.get(function).unwrap_or(&nothing);
        // Which secrets it reads is looked at where its program runs: on the local stack they are given to it.
        let missing = done
            .difference(allowed)
            .filter(|permission| permission.action.starts_with("dynamodb:"));
        faults.extend(missing.map(|permission| Fault::Missing {
            function: function.clone(),
            permission: permission.clone(),
        }));
        let done = done_by_its_code(function, all);
        faults.extend(allowed.difference(&done).map(|permission| Fault::Over {
            function: function.clone(),
            permission: permission.clone(),
        }));
    }
    faults
}

/// Faults in words.
pub(crate) fn told(faults: &[Fault]) -> Vec<String> {
    let one = |permission: &Permission| match &permission.on {
        Some(on) => format!("{} on {on}", permission.action),
        None => permission.action.clone(),
    };
    let told = |fault: &Fault| match fault {
        Fault::Missing { function, permission } => format!("{function} lacks {}", one(permission)),
        Fault::Over { function, permission } => format!("{function} needs no {}", one(permission)),
    };
    faults.iter().map(told).collect()
}

/// The variable that names a folder in which all tests have noted what functions needed; `.ci/run` sets it, once all have
/// run with the same folder in `BERTH_PERMISSIONS`.
const NOTED_VARIABLE: &str = "BERTH_PERMISSIONS_OF_ALL_TESTS";

/// What tests noted in a folder.
fn noted(folder: &std::path::Path) -> Permissions {
    let mut noted = Permissions::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let lines = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for line in lines.lines() {
            let [function, action, on] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line} is no note of a permission")
            };
            noted.entry(function.to_owned()).or_default().insert(Permission {
                action: action.to_owned(),
                on: (on != "-").then(|| on.to_owned()),
            });
        }
    }
    noted
}

/// Sends a request to the stack, which has to succeed.
async fn send(
    stack: &Stack,
    method: &str,
    url: String,
    token: &str,
    body: serde_json::Value,
) -> serde_json::Value {
    let client = berth::snaptrade::http_client().unwrap();
    let request = client
        .request(method.parse().unwrap(), &url)
        .bearer_auth(token)
        .json(&body);
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(
        status.is_success(),
        "{method} {url}: {status} {text}, with {} calls",
        stack.calls(None).len()
    );
    serde_json::from_str(&text).unwrap_or_default()
}

/// Has a user look at everything that is known of her accounts, bring a statement, and delete a connection; and an operator
/// look at events that were given up.
async fn play_portfolio(stack: &Stack) {
    let api = stack.urls().api.clone();
    let nothing = || serde_json::json!({});
    for path in [
        "portfolio/accounts",
        "portfolio/positions",
        "portfolio/balances",
        "portfolio/transactions",
        "portfolio/performance",
        "portfolio/mode",
        "portfolio/history",
        "portfolio/changes",
        "snaptrade/brokerages",
    ] {
        send(stack, "GET", format!("{api}/api/{path}"), "dev:mary", nothing()).await;
    }
    let statement = serde_json::json!({"institution": "Bank", "content": "symbol,quantity\nVTI,1\n"});
    let url = format!("{api}/api/portfolio/statements");
    send(stack, "POST", url, "dev:mary", statement).await;
    let url = format!("{api}/api/snaptrade/connections");
    let connections = send(stack, "GET", url.clone(), "dev:mary", nothing()).await;
    let connection = connections.pointer("/data/0/connection_id").unwrap();
    let url = format!("{url}/{}", connection.as_str().unwrap());
    send(stack, "DELETE", url, "dev:mary", nothing()).await;
    let url = format!("{api}/api/snaptrade/dead-letters");
    send(stack, "GET", url, "dev:ops:operator", nothing()).await;
}

/// Has the functions of the access sync do what they do.
async fn play_access_sync(stack: &Stack) {
    const OPERATOR: &str = "dev:ops:operator";
    let (api, sandbox) = (stack.urls().api.clone(), stack.urls().access.clone());
    let sample = format!("{sandbox}/__sandbox/sample");
    send(stack, "POST", sample, "", serde_json::json!({})).await;
    let event =
        serde_json::json!({"event": "transaction-completed", "type": "transaction", "data": {"id": 1003}});
    let request = berth::snaptrade::http_client()
        .unwrap()
        .post(format!("{api}/api/access/webhook"))
        .header("MEMBERPRESS-WEBHOOK-KEY", "sandbox-webhook-key")
        .json(&event);
    assert_eq!(request.send().await.unwrap().status(), 202);
    let ask = async |method: &str, path: &str, body: serde_json::Value| {
        send(stack, method, format!("{api}/api/access/{path}"), OPERATOR, body).await
    };
    let nothing = || serde_json::json!({});
    let plan = ask("GET", "plan", nothing()).await;
    let plan = plan.pointer("/id").unwrap().as_str().unwrap();
    ask("POST", &format!("plans/{plan}/approve"), nothing()).await;
    ask("POST", "sync", nothing()).await;
    ask(
        "POST",
        "revocations",
        serde_json::json!({"transaction_id": 1003, "reason": "chargeback"}),
    )
    .await;
    ask("POST", "resync", serde_json::json!({"product_id": 100})).await;
    ask("POST", "repair", nothing()).await;
    ask("GET", "dead-letters", nothing()).await;
    let reviews = ask("GET", "reviews", nothing()).await;
    let review = reviews.pointer("/data/0/id").unwrap().as_str().unwrap();
    ask(
        "POST",
        &format!("reviews/{review}"),
        serde_json::json!({"action": "retry"}),
    )
    .await;
    let data = ask("GET", "scripts/S1", nothing()).await;
    ask("PUT", "scripts/S1", data).await;
}

#[tokio::test]
async fn each_role_allows_what_its_function_does_to_the_table_and_after_all_tests_nothing_else() {
    const OPERATOR: &str = "dev:ops:operator";
    let stack = Stack::start(Options {
        limit: Some(2),
        ..Options::default()
    })
    .await
    .unwrap();
    let (api, sandbox) = (stack.urls().api.clone(), stack.urls().snaptrade.clone());
    let nothing = || serde_json::json!({});
    for user in ["ada", "grace", "mary"] {
        let token = format!("dev:{user}");
        send(
            &stack,
            "POST",
            format!("{api}/api/snaptrade/register"),
            &token,
            nothing(),
        )
        .await;
        send(
            &stack,
            "POST",
            format!("{api}/api/snaptrade/handle-connection-limit"),
            &token,
            nothing(),
        )
        .await;
    }
    send(
        &stack,
        "POST",
        format!("{api}/api/snaptrade/connection-url"),
        "dev:mary",
        nothing(),
    )
    .await;
    let mary = serde_json::json!({"user_id": "mary"});
    send(&stack, "POST", format!("{sandbox}/__sandbox/connect"), "", mary).await;
    send(
        &stack,
        "POST",
        format!("{api}/api/snaptrade/callback"),
        "dev:mary",
        nothing(),
    )
    .await;
    send(
        &stack,
        "POST",
        format!("{api}/api/snaptrade/refresh"),
        "dev:mary",
        nothing(),
    )
    .await;
    for method in ["GET", "POST"] {
        let path = if method == "GET" { "status" } else { "sync" };
        send(
            &stack,
            method,
            format!("{api}/api/snaptrade/{path}"),
            OPERATOR,
            nothing(),
        )
        .await;
    }
    send(
        &stack,
        "GET",
        format!("{api}/api/snaptrade/users"),
        OPERATOR,
        nothing(),
    )
    .await;
    send(&stack, "GET", format!("{api}/health"), "", nothing()).await;
    play_portfolio(&stack).await;
    play_access_sync(&stack).await;
    for schedule in ["connection-sync", "refresh", "access-sync", "access-rescan"] {
        send(
            &stack,
            "POST",
            format!("{api}/__local/schedules/{schedule}"),
            "",
            nothing(),
        )
        .await;
    }
    send(
        &stack,
        "POST",
        format!("{api}/api/snaptrade/users/delete-oldest"),
        OPERATOR,
        nothing(),
    )
    .await;

    let mut done = stack.dynamodb().permissions();
    stack.shutdown().await;
    // This alone does not get everywhere, so a permission that it did not need may be needed all the same.
    let roles = allowed(&Template::read());
    let mut wrong = faults(&roles, &done);
    if let Some(folder) = std::env::var_os(NOTED_VARIABLE) {
        for (function, noted) in noted(folder.as_ref()) {
            done.entry(function).or_default().extend(noted);
        }
        wrong = faults(&roles, &done);
    } else {
        wrong.retain(|fault| matches!(fault, Fault::Missing { .. }));
    }
    assert_eq!(told(&wrong), Vec::<String>::new());
}

#[test]
fn a_permission_that_is_missing_and_one_that_is_over_are_both_found() {
    let right = allowed(&Template::read());
    assert_eq!(faults(&right, &right), []);
    let query = |on: Option<&str>| Permission {
        action: "dynamodb:Query".to_owned(),
        on: on.map(str::to_owned),
    };
    let mut roles = right.clone();
    roles.get_mut("register").unwrap().remove(&query(Some("gsi1")));
    roles.get_mut("webhook").unwrap().insert(query(None));
    assert_eq!(
        told(&faults(&roles, &right)),
        [
            "register lacks dynamodb:Query on gsi1",
            "webhook needs no dynamodb:Query",
        ]
    );
}
