//! The tracked users: listing, adding and protecting them.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};

use super::{AddUser, Refusal, show};
use crate::Global;
use crate::exit::Exit;
use crate::listing::{self, Kind, Pages};
use crate::target::Target;
use crate::words::{is, minute, text};

/// The list of users. Their ids at SnapTrade stand in the last column, where that has room.
const USERS: Kind = Kind {
    headings: &[
        "user",
        "state",
        "since",
        "last active",
        "connections",
        "id at SnapTrade",
    ],
    room_for_last: 130,
    cells: |row| {
        vec![
            text(row, "user_id"),
            state(row),
            minute(row, "created_at"),
            minute(row, "last_active_at"),
            text(row, "connections"),
            text(row, "upstream_id"),
        ]
    },
    none: "Nobody is tracked.",
    note: "Times are in UTC.",
    without_last: "--json shows their ids at SnapTrade, too.",
};

/// The list of users from its beginning, the oldest first.
pub(super) fn pages(target: &Target) -> Pages<'_> {
    listing::pages(target, "/api/snaptrade/users")
}

/// The path of one user's route.
pub(super) fn path_of(user_id: &str) -> String {
    format!(
        "/api/snaptrade/users/{}",
        utf8_percent_encode(user_id, NON_ALPHANUMERIC)
    )
}

/// `list`.
pub(super) async fn list(global: &Global, target: &Target) -> Result<Exit, Refusal> {
    listing::show(global, pages(target), "Listing users", &USERS).await?;
    Ok(Exit::Success)
}

/// `add-user`.
pub(super) async fn add(global: &Global, target: &Target, user: &AddUser) -> Result<Exit, Refusal> {
    let mut body = json!({"user_id": user.user_id});
    if let Some(members) = body.as_object_mut() {
        if let Some(created_at) = user.created_at {
            members.insert("created_at".to_owned(), json!(created_at));
        }
        // Adding somebody again without the option does not take their protection away.
        if user.protected {
            members.insert("protected".to_owned(), json!(true));
        }
    }
    let added = target.post("/api/snaptrade/users", &body).await?;
    show(global, &added, |user| {
        format!(
            "{} is tracked, since {} UTC ({}).",
            text(user, "user_id"),
            minute(user, "created_at"),
            state(user)
        )
    });
    Ok(Exit::Success)
}

/// `protect` and `unprotect`.
pub(super) async fn set_protection(
    global: &Global,
    target: &Target,
    user_id: &str,
    protected: bool,
) -> Result<Exit, Refusal> {
    let body = json!({"protected": protected});
    let user = target.call(Method::PATCH, &path_of(user_id), Some(&body)).await?;
    show(global, &user, |user| {
        let may = if is(user, "protected") {
            "never gives"
        } else {
            "may give"
        };
        format!("{} {may} way.", text(user, "user_id"))
    });
    Ok(Exit::Success)
}

/// What state a user is in, and whether nothing may make them give way.
fn state(row: &Value) -> String {
    let protection = if is(row, "protected") { ", protected" } else { "" };
    format!("{}{protection}", text(row, "state"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::Listing;

    fn user(id: &str) -> Value {
        json!({
            "user_id": id, "upstream_id": format!("{id}~0123456789abcdefghijklmnop"), "state": "active",
            "protected": true, "created_at": "2026-01-02T03:04:05.678Z", "last_active_at": null, "connections": 2,
        })
    }

    fn whole(listing: &mut Listing<'_>, pages: &[Vec<Value>]) -> String {
        let mut lines: Vec<String> = pages.iter().filter_map(|page| listing.page(page)).collect();
        lines.push(listing.end());
        lines.join("\n")
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(
            whole(&mut Listing::new(&USERS, None), &[vec![]]),
            "Nobody is tracked."
        );
    }

    #[test]
    fn the_list_fits_a_narrow_terminal_and_is_whole_in_a_pipe() {
        let narrow = whole(&mut Listing::new(&USERS, Some(80)), &[vec![user("ada")]]);
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert!(
            narrow.contains("ada") && narrow.contains("2026-01-02 03:04"),
            "{narrow}"
        );
        let whole = whole(&mut Listing::new(&USERS, None), &[vec![user("ada")]]);
        assert!(whole.lines().any(
            |line| line.contains("ada~0123456789abcdefghijklmnop") && line.contains("active, protected")
        ));
    }

    #[test]
    fn several_pages_make_one_table() {
        let long = "a-user-whose-id-is-much-longer-than-all-of-the-first-page";
        let pages = [vec![user("ada")], vec![user("grace")], vec![user(long)]];
        let narrow = whole(&mut Listing::new(&USERS, Some(80)), &pages);
        assert_eq!(narrow.matches("last active").count(), 1, "{narrow}");
        assert_eq!(narrow.matches('└').count(), 1, "{narrow}");
        let framed = narrow.lines().filter(|line| !line.starts_with("Times"));
        let widths: std::collections::BTreeSet<_> = framed.map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 1, "{narrow}");
        let piped = whole(&mut Listing::new(&USERS, None), &pages);
        assert!(piped.lines().any(|line| line.contains(long)), "{piped}");
        assert_eq!(piped.lines().count(), 3 + 3 + 2, "{piped}");
    }
}
