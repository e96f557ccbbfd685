//! A form on a web page, read and filled in as a browser does it.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// The first form of a page: where it goes and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    /// Where it is sent, as the page says it.
    pub(super) action: String,
    controls: Vec<Control>,
}

/// An input or a button.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Control {
    kind: Kind,
    name: String,
    value: String,
    checked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Choice,
    Button,
    Other,
}

impl Form {
    /// Reads the first form of `page` that is sent by `POST`.
    pub(super) fn read(page: &str) -> Option<Self> {
        let mut tags = tags(page).skip_while(|tag| {
            !(tag.name == "form"
                && tag
                    .get("method")
                    .is_some_and(|method| method.eq_ignore_ascii_case("post")))
        });
        let action = tags.next()?.get("action").unwrap_or_default().to_owned();
        let controls = tags
            .take_while(|tag| tag.name != "/form")
            .filter_map(|tag| tag.control())
            .collect();
        Some(Self { action, controls })
    }

    /// The values among which one is chosen under `name`.
    pub(super) fn choices(&self, name: &str) -> Vec<&str> {
        self.controls
            .iter()
            .filter(|control| control.kind == Kind::Choice && control.name == name)
            .map(|control| control.value.as_str())
            .collect()
    }

    /// What a browser sends when the button with this name and value is pressed and nothing else is touched; `None`
    /// where there is no such button.
    pub(super) fn pressed(&self, name: &str, value: &str) -> Option<String> {
        let button = |control: &&Control| {
            control.kind == Kind::Button && control.name == name && control.value == value
        };
        let pressed = self.controls.iter().find(button)?;
        let sent = self.controls.iter().filter(|control| match control.kind {
            Kind::Choice => control.checked,
            Kind::Button => std::ptr::eq(*control, pressed),
            Kind::Other => true,
        });
        let pairs: Vec<_> = sent
            .map(|control| format!("{}={}", encoded(&control.name), encoded(&control.value)))
            .collect();
        Some(pairs.join("&"))
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// An opening or closing tag; a closing one's name begins with a slash.
struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
}

impl Tag {
    fn get(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// The control that the tag is, if it has a name.
    fn control(&self) -> Option<Control> {
        let kind = match (self.name.as_str(), self.get("type")) {
            ("button", _) | ("input", Some("submit")) => Kind::Button,
            ("input", Some("radio" | "checkbox")) => Kind::Choice,
            ("input", _) => Kind::Other,
            _ => return None,
        };
        Some(Control {
            kind,
            name: self.get("name")?.to_owned(),
            value: self.get("value").unwrap_or_default().to_owned(),
            checked: self.get("checked").is_some(),
        })
    }
}

/// The tags of a page, in order.
fn tags(page: &str) -> impl Iterator<Item = Tag> {
    let mut rest = page;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once('<')?;
        let (tag, left) = read_tag(after);
        rest = left;
        Some(tag)
    })
}

/// Reads a tag whose bracket was just passed, and says what comes after it.
fn read_tag(text: &str) -> (Tag, &str) {
    let ends = |c: char| c.is_whitespace() || c == '>';
    let (name, mut rest) = split_before(text, ends);
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('>') {
            rest = after;
            break;
        }
        if rest.is_empty() {
            break;
        }
        let (key, after) = split_before(rest, |c| ends(c) || c == '=');
        let (value, after) = match after.strip_prefix('=') {
            Some(value) => read_value(value),
            None => ("", after),
        };
        // Something is always taken, so that a page that is not well formed comes to an end, too.
        rest = if after.len() == rest.len() { "" } else { after };
        attributes.push((key.to_ascii_lowercase(), unescaped(value)));
    }
    let tag = Tag {
        name: name.to_ascii_lowercase(),
        attributes,
    };
    (tag, rest)
}

fn read_value(text: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(quoted) = text.strip_prefix(quote) {
            return quoted.split_once(quote).unwrap_or((quoted, ""));
        }
    }
    split_before(text, |c| c.is_whitespace() || c == '>')
}

fn split_before(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    let at = text.find(ends).unwrap_or(text.len());
    text.split_at_checked(at).unwrap_or((text, ""))
}

/// Text with the entities resolved that have to stand in an attribute.
fn unescaped(text: &str) -> String {
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        // Last, so that an ampersand that comes out of it begins nothing.
        ("&amp;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (entity, letter)| {
        text.replace(entity, letter)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "<!doctype html><html><body><form method=get action=/search><input name=q></form>\
        <form method=\"post\" action=\"/portal?a=1&amp;b=2\"><input type=\"hidden\" name=\"token\" value=\"a&amp;b&quot;\">\
        <label><input type='radio' name='broker' value='ONE'>1</label>\
        <label><input type='radio' name='broker' value='TWO' checked>2</label>\
        <button type=submit name=action value=connect>Connect</button>\
        <button name=action value=cancel>Cancel</button></form><input name=after value=no></body></html>";

    #[test]
    fn a_form_is_sent_as_a_browser_sends_it() {
        let form = Form::read(PAGE).unwrap();
        assert_eq!(form.action, "/portal?a=1&b=2");
        assert_eq!(form.choices("broker"), ["ONE", "TWO"]);
        assert_eq!(
            form.pressed("action", "connect").unwrap(),
            "token=a%26b%22&broker=TWO&action=connect"
        );
        assert_eq!(form.pressed("action", "vanish"), None);
    }

    #[test]
    fn a_page_without_a_form_or_an_end_has_none() {
        assert_eq!(Form::read("<p>Gone</p>"), None);
        assert_eq!(Form::read("<"), None);
        let cut = Form::read("<form method=post action=\"/x\"><input name=").unwrap();
        assert_eq!(cut.pressed("action", "connect"), None);
    }
}
