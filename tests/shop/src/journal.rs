//! What the sandboxes received, as the reckoning of delays wants to know it.

use jiff::Timestamp;
use serde_json::Value;

use crate::holds::{Ending, Ms, Run, Shown, Write};
use crate::reckoning::End;
use crate::weather;

/// Calls to each operation, as the sandboxes counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    pub transactions: u64,
    pub validate: u64,
    pub grant: u64,
    pub update: u64,
    pub remove: u64,
    pub list: u64,
}

/// Counts requests by their operation.
pub fn count(requests: &[Value]) -> Calls {
    let mut calls = Calls::default();
    for request in requests {
        let path = request["path"].as_str().unwrap_or_default();
        let count = if path.starts_with("/wp-json/") {
            &mut calls.transactions
        } else if path.starts_with("/tradingview/validate/") {
            &mut calls.validate
        } else if path.starts_with("/tradingview/access/scriptUsers/") {
            &mut calls.list
        } else {
            match path {
                "/tradingview/access/grant" => &mut calls.grant,
                "/tradingview/access/update" => &mut calls.update,
                "/tradingview/access/remove" => &mut calls.remove,
                _ => continue,
            }
        };
        *count += 1;
    }
    calls
}

/// What a run was shown and what was done for it, from the requests that were received between its begin and its end.
/// `knows` tells whether TradingView knows a name.
pub fn run(
    requests: &[Value],
    begin: Ms,
    end: Ms,
    ending: Ending,
    weather: weather::Kind,
    knows: &dyn Fn(&str) -> bool,
) -> Run {
    let mut run = Run {
        begin,
        end,
        ending,
        shown: Shown::Nothing,
        writes: Vec::new(),
        unknown: Vec::new(),
    };
    for request in requests {
        let path = request["path"].as_str().unwrap_or_default();
        let done = match request["status"].as_u64() {
            Some(status) => status == 200,
            None => weather == weather::Kind::SomeUnanswered,
        };
        if !done {
            continue;
        }
        if path.starts_with("/wp-json/") {
            if weather != weather::Kind::ShopGarbage {
                run.shown = more(run.shown, since(request["query"].as_str().unwrap_or_default()));
            }
        } else if let Some(name) = path.strip_prefix("/tradingview/validate/") {
            if !knows(name) {
                run.unknown.push(name.to_ascii_lowercase());
            }
        } else if let Some(operation) = path.strip_prefix("/tradingview/access/") {
            run.writes.extend(write(operation, request));
        }
    }
    run.writes.sort_by_key(|write| write.at);
    run
}

fn write(operation: &str, request: &Value) -> Option<Write> {
    let body = &request["body"];
    let end = match operation {
        "grant" | "update" => match &body["expiry"] {
            Value::String(expiry) => End::At(expiry.parse::<Timestamp>().ok()?.as_second()),
            _ => End::Never,
        },
        "remove" => End::None,
        _ => return None,
    };
    Some(Write {
        at: request["at"]
            .as_str()?
            .parse::<Timestamp>()
            .ok()?
            .as_millisecond(),
        script: body["scriptId"].as_str()?.to_owned(),
        name: body["username"].as_str()?.to_ascii_lowercase(),
        end,
    })
}

fn since(query: &str) -> Shown {
    let since = query.split('&').find_map(|pair| pair.strip_prefix("since="));
    match since.map(str::parse) {
        Some(Ok(since)) => Shown::Since(since),
        _ => Shown::All,
    }
}

fn more(one: Shown, other: Shown) -> Shown {
    match (one, other) {
        (Shown::All, _) | (_, Shown::All) => Shown::All,
        (Shown::Nothing, shown) | (shown, Shown::Nothing) => shown,
        (Shown::Since(one), Shown::Since(other)) => Shown::Since(one.min(other)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::weather::Kind;

    fn request(path: &str, query: &str, status: Option<u16>, body: &Value) -> Value {
        json!({"method": "", "path": path, "query": query, "status": status,
            "at": "2031-01-01T00:00:01.5Z", "body": body})
    }

    #[test]
    fn a_write_counts_when_it_was_carried_out_whether_or_not_it_was_answered() {
        let body = json!({"scriptId": "S", "username": "Ada", "expiry": "2031-02-01T00:00:00Z"});
        let writes = |status, weather| {
            let requests = [request("/tradingview/access/grant", "", status, &body)];
            run(&requests, 0, 1, Ending::Whole, weather, &|_| true)
                .writes
                .len()
        };
        assert_eq!(writes(Some(200), Kind::Calm), 1);
        assert_eq!(writes(Some(503), Kind::Calm), 0);
        assert_eq!(writes(None, Kind::SomeLost), 0);
        assert_eq!(writes(None, Kind::SomeUnanswered), 1);
    }

    #[test]
    fn what_a_run_was_shown_is_the_most_of_what_it_asked_for() {
        let shop = |query: &str, status| {
            request(
                "/wp-json/memberpress/v1/all-user-transactions",
                query,
                status,
                &json!(null),
            )
        };
        let shown =
            |requests: &[Value], weather| run(requests, 0, 1, Ending::Whole, weather, &|_| true).shown;
        let two = [
            shop("since=50", Some(200)),
            shop("since=20", Some(200)),
            shop("", Some(503)),
        ];
        assert_eq!(shown(&two, Kind::Calm), Shown::Since(20));
        assert_eq!(shown(&[shop("", Some(200))], Kind::Calm), Shown::All);
        assert_eq!(shown(&two, Kind::ShopGarbage), Shown::Nothing);
    }

    #[test]
    fn calls_are_counted_by_what_they_ask_for() {
        let none = json!(null);
        let requests = [
            request("/wp-json/mp/v1/transactions", "", Some(200), &none),
            request("/tradingview/validate/ada", "", Some(200), &none),
            request("/tradingview/access/scriptUsers/S", "", Some(200), &none),
            request("/tradingview/access/grant", "", Some(200), &none),
        ];
        let one = Calls {
            transactions: 1,
            validate: 1,
            grant: 1,
            list: 1,
            ..Calls::default()
        };
        assert_eq!(count(&requests), one);
    }
}
