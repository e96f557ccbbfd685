//! Members that a row only names: MemberPress gives them as objects or as ids, depending on the path (facts/access.md
//! A6). Which of them have to be fetched, and how they are put into their rows.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::fields;

/// Where a row says what matters of its member.
const ADDRESSES: [&str; 4] = ["user_email", "member.email", "user.email", "user.user_email"];

/// The members that have to be fetched for these rows, each once.
pub(super) fn missing(rows: &[Value]) -> BTreeSet<String> {
    rows.iter().filter_map(named_only).collect()
}

/// Puts a member into the rows that only name it.
pub(super) fn put_in(rows: &mut [Value], id: &str, member: &Value) {
    for row in rows {
        if named_only(row).as_deref() == Some(id)
            && let Some(members) = row.as_object_mut()
        {
            members.insert("member".to_owned(), member.clone());
        }
    }
}

/// The id of a row's member where the row says nothing else of the member; nothing for one that was deleted.
fn named_only(row: &Value) -> Option<String> {
    let named = row.get("member").filter(|member| !member.is_object())?;
    let id = fields::id(row, &["member"]).filter(|_| !named.is_array())?;
    let plain = id.bytes().all(|byte| byte.is_ascii_digit());
    (plain && fields::first(row, &ADDRESSES).is_none()).then_some(id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_members_of_whom_nothing_else_is_said_are_fetched() {
        let rows = [
            json!({"id": 1, "member": 7}),
            json!({"id": 2, "member": "7"}),
            json!({"id": 3, "member": {"id": 8, "email": "ada@example.com"}}),
            json!({"id": 4, "member": 9, "user_email": "ada@example.com"}),
            json!({"id": 5, "member": "0"}),
            json!({"id": 6, "member": "../users"}),
            json!({"id": 7, "user_id": 5}),
            json!("no row"),
        ];
        assert_eq!(missing(&rows), BTreeSet::from(["7".to_owned()]));
    }

    #[test]
    fn a_member_comes_into_all_of_its_rows() {
        let mut rows = [json!({"member": 7}), json!({"member": "7"}), json!({"member": 8})];
        let ada = json!({"id": 7, "email": "ada@example.com"});
        put_in(&mut rows, "7", &ada);
        let expected = [
            json!({"member": ada}),
            json!({"member": ada}),
            json!({"member": 8}),
        ];
        assert_eq!(rows, expected);
    }
}
