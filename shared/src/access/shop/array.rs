//! Reading a JSON array from a body as it arrives, element by element, so that memory holds what has arrived
//! of the next element and not the whole list.

use serde_json::Value;

/// The longest element that is read, in bytes. A row with all that a site may put into it has a few thousand.
const LONGEST_ELEMENT: usize = 1024 * 1024;

/// The mark that some PHP sites put before their output without meaning to.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What has arrived is no array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoArray;

/// Takes a body piece by piece and gives the array's elements.
#[derive(Debug, Default)]
pub(super) struct ArrayReader {
    /// What has arrived and was not given yet, from `read` on.
    bytes: Vec<u8>,
    read: usize,
    state: State,
}

/// What has to come next.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The opening bracket.
    #[default]
    Start,
    /// An element, or the closing bracket.
    First,
    /// An element.
    Element,
    /// A comma, or the closing bracket.
    AfterElement,
    /// Nothing.
    Closed,
}

impl ArrayReader {
    /// Adds what has arrived.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(piece);
    }

    /// The next element; `None` where more has to arrive first, or where the array is closed.
    ///
    /// # Errors
    /// [`NoArray`] for anything else than an array with nothing after it.
    pub(super) fn next(&mut self) -> Result<Option<Value>, NoArray> {
        loop {
            let Some(byte) = self.peek() else {
                return Ok(None);
            };
            match (self.state, byte) {
                (State::Start, b'[') => self.step(State::First),
                (State::First | State::AfterElement, b']') => self.step(State::Closed),
                (State::AfterElement, b',') => self.step(State::Element),
                (State::First | State::Element, _) => return self.element(),
                (State::Start | State::AfterElement | State::Closed, _) => return Err(NoArray),
            }
        }
    }

    /// Whether the whole array has been given.
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        if self.state == State::Start {
            if self.rest().starts_with(BYTE_ORDER_MARK) {
                self.read = self.read.saturating_add(BYTE_ORDER_MARK.len());
            } else if BYTE_ORDER_MARK.starts_with(self.rest()) {
                return None;
            }
        }
        let spaces = self.rest().iter().take_while(|byte| is_space(**byte)).count();
        self.read = self.read.saturating_add(spaces);
        self.rest().first().copied()
    }

    fn step(&mut self, state: State) {
        self.read = self.read.saturating_add(1);
        self.state = state;
    }

    /// The element that begins here. One that is cut off by the end of what has arrived is tried again when
    /// more is there; so is one with nothing after it, since a number may go on.
    fn element(&mut self) -> Result<Option<Value>, NoArray> {
        let rest = self.rest();
        let mut elements = serde_json::Deserializer::from_slice(rest).into_iter::<Value>();
        let element = elements.next();
        let ends = elements.byte_offset();
        let incomplete = match &element {
            None => true,
            Some(Err(error)) => error.is_eof(),
            Some(Ok(_)) => ends >= rest.len(),
        };
        if incomplete && rest.len() <= LONGEST_ELEMENT {
            return Ok(None);
        }
        match element {
            Some(Ok(value)) if !incomplete => {
                self.read = self.read.saturating_add(ends);
                self.state = State::AfterElement;
                Ok(Some(value))
            }
            _ => Err(NoArray),
        }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.read..).unwrap_or_default()
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What a reader gives for a body that arrives in pieces of `size` bytes, and whether it is whole then.
    fn read(body: &[u8], size: usize) -> Result<(Vec<Value>, bool), NoArray> {
        let mut reader = ArrayReader::default();
        let mut elements = Vec::new();
        for piece in body.chunks(size) {
            reader.push(piece);
            while let Some(element) = reader.next()? {
                elements.push(element);
            }
        }
        Ok((elements, reader.is_closed()))
    }

    #[test]
    fn elements_are_the_same_however_the_body_is_cut() {
        let body = "\u{feff} [ {\"a\": \"],[\\\"\", \"ä\": [1]} ,12, -3.5e1,\"x\",null, [] ] \n".as_bytes();
        let expected = vec![
            json!({"a": "],[\"", "ä": [1]}),
            json!(12),
            json!(-35.0),
            json!("x"),
            json!(null),
            json!([]),
        ];
        for size in 1..body.len() {
            assert_eq!(read(body, size), Ok((expected.clone(), true)), "{size}");
        }
    }

    #[test]
    fn an_empty_array_has_no_elements() {
        for body in ["[]", " [ ] "] {
            assert_eq!(read(body.as_bytes(), 1), Ok((vec![], true)), "{body}");
        }
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for body in [
            r#"{"code":"rest_forbidden"}"#,
            "<br /><b>Warning</b>: [1]",
            "null",
            "[1] [2]",
            "[1]x",
            "[1 2]",
            "[1,]",
            "[,1]",
            "[1,,2]",
            r#"[{"a":1}"x"]"#,
            "[tru",
            "[truth]",
        ] {
            let read = read(body.as_bytes(), 2);
            assert!(
                matches!(read, Err(NoArray) | Ok((_, false))),
                "{body} gives {read:?}"
            );
        }
    }

    #[test]
    fn an_array_that_is_cut_off_is_not_closed() {
        let body = br#"[{"a":1},{"b":"x]"}]"#;
        for length in 0..body.len() {
            let (_, closed) = read(&body[..length], 4).unwrap();
            assert!(!closed, "{length}");
        }
    }

    #[test]
    fn an_element_without_an_end_is_refused_before_it_fills_the_memory() {
        let mut reader = ArrayReader::default();
        reader.push(b"[\"");
        let piece = vec![b'x'; 64 * 1024];
        let mut pieces = 0;
        while reader.next() == Ok(None) {
            reader.push(&piece);
            pieces += 1;
            assert!(pieces < 32);
        }
        assert_eq!(reader.next(), Err(NoArray));
    }

    #[test]
    fn what_was_given_is_forgotten() {
        let mut reader = ArrayReader::default();
        reader.push(b"[");
        for _ in 0..10_000 {
            reader.push(br#"{"a":"0123456789"},"#);
            assert!(reader.next().unwrap().is_some());
        }
        assert!(reader.bytes.len() < 100, "{} bytes", reader.bytes.len());
    }

    proptest! {
        #[test]
        fn an_array_is_read_as_it_was_written(
            numbers in prop::collection::vec(any::<i64>(), 0..20), text in ".*", size in 1_usize..50
        ) {
            let elements = json!([numbers, text, {"text": text, "numbers": numbers}]);
            let read = read(elements.to_string().as_bytes(), size).unwrap();
            prop_assert_eq!(read, (elements.as_array().unwrap().clone(), true));
        }
    }
}
