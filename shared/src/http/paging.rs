//! Lists that are answered in parts.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fields::{Fields, Input, number_word};
use super::problem::{Code, Problem};

/// How many items a part has when the caller does not say.
pub const DEFAULT_LIMIT: u32 = 50;

/// How many items a part has at most.
pub const MAX_LIMIT: u32 = 500;

/// Which part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<C> {
    /// How many items at most, 1 to [`MAX_LIMIT`].
    pub limit: u32,
    /// Where to go on, as the last part said; `None` for the beginning.
    pub cursor: Option<C>,
}

impl<C: DeserializeOwned> Input for Page<C> {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let limit = fields.or("limit", DEFAULT_LIMIT, number_word(1..=MAX_LIMIT));
        let cursor = fields.optional("cursor", |value| {
            value
                .as_str()
                .and_then(decode)
                .ok_or_else(|| "must be a cursor that this list gave".to_owned())
        });
        Some(Self {
            limit: limit?,
            cursor: cursor?,
        })
    }
}

/// The cursor that leads on from `position`, to be answered as `next_cursor`. It is opaque to callers, but neither
/// secret nor signed: whoever changes it only asks for another part.
///
/// # Errors
/// [`Problem`] `unavailable` when the position cannot be written as JSON, which is a mistake in this program.
pub fn cursor<C: Serialize>(position: &C) -> Result<String, Problem> {
    let json = serde_json::to_vec(position)
        .map_err(|error| Problem::new(Code::Unavailable).because(format_args!("cursor: {error}")))?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

fn decode<C: DeserializeOwned>(text: &str) -> Option<C> {
    let json = URL_SAFE_NO_PAD.decode(text).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::super::fields::from_query;
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_position() {
        let text = cursor(&("ada", 3)).unwrap();
        let page: Page<(String, u32)> = from_query([("cursor", text.as_str())].into_iter()).unwrap();
        assert_eq!(page.limit, DEFAULT_LIMIT);
        assert_eq!(page.cursor, Some(("ada".to_owned(), 3)));
    }

    #[test]
    fn a_cursor_of_another_kind_and_a_limit_too_high_are_both_named() {
        for bad in ["", "!", "e30", "eyJhIjox"] {
            let query = [("cursor", bad), ("limit", "501")];
            let problem = from_query::<Page<(String, u32)>>(query.into_iter()).unwrap_err();
            let pointers: Vec<_> = problem
                .errors()
                .iter()
                .map(|fault| fault.pointer.as_str())
                .collect();
            assert_eq!(pointers, ["#/query/limit", "#/query/cursor"], "{bad}");
        }
    }
}
