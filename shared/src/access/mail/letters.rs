//! What the letters say.
//!
//! What customers and outside services wrote is shown on one line, cut to a length, without characters that
//! change how the rest is read, and escaped in HTML (defect 11 of the original, facts/access.md A5). Anybody can
//! sign up at a shop with somebody else's address, so nothing longer than a name gets into a letter from there.

use std::fmt;

use askama::Template;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::ids::{PersonId, ScriptId, TransactionId};
use super::super::names::Username;
use super::super::report::Open;

/// Most entries that a digest lists; the number of the others is named.
const MOST_ENTRIES: usize = 50;

/// Most names that a letter suggests.
const MOST_SUGGESTIONS: usize = 5;

/// Most characters of a name that are shown.
const NAME_SHOWN: usize = 64;

/// Longest name that somebody is greeted by, in characters.
const GREETED: usize = 40;

/// Most characters of a sentence that are shown.
const SENTENCE_SHOWN: usize = 300;

/// Most characters of the list in a post to Discord, which takes 2,000 in all
/// (<https://docs.discord.com/developers/resources/webhook#execute-webhook>).
const POST_SHOWN: usize = 1_900;

/// What a letter says, as far as it differs from others of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Letter {
    /// To a customer whose name TradingView does not know.
    UnknownName {
        /// How the shop calls the customer.
        called: String,
        /// The name that the customer gave; empty where there is none.
        written: String,
        /// Names that exist and begin alike. They are offered to the customer and used for nothing.
        suggestions: Vec<String>,
    },
    /// To the operator.
    Digest(Digest),
}

/// What has come up that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// What it belongs to, such as a run's id. Of one cause there is one digest.
    pub cause: String,
    /// When it came up.
    pub at: Timestamp,
    /// What keeps the sync from its work, in whole sentences: shown before all else.
    pub alerts: Vec<String>,
    /// What is new for a person to look at.
    pub entries: Vec<Entry>,
    /// How many entries there are beyond those listed.
    pub unlisted: u64,
    /// The run's warnings.
    pub warnings: Vec<String>,
    /// What waits in all, where it is known.
    pub open: Option<Open>,
}

/// Something that a person has to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// The transaction, where there is one.
    pub transaction: Option<TransactionId>,
    /// The script, where there is one.
    pub script: Option<ScriptId>,
    /// The customer.
    pub person: Option<PersonId>,
    /// The customer's name at TradingView, where it matters.
    pub username: Option<String>,
    /// Why it needs a person.
    pub reason: String,
}

/// What a digest tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A new review.
    Review,
    /// A review that nobody has looked at for 30 days.
    ReviewExpired,
    /// A reversal that waits for approval.
    Held,
    /// A row that was given up.
    DeadLetter,
    /// A row that cannot be used.
    Quarantined,
    /// A letter that cannot be delivered.
    Undeliverable,
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Review => "to review",
            Self::ReviewExpired => "not reviewed for 30 days",
            Self::Held => "held for approval",
            Self::DeadLetter => "given up",
            Self::Quarantined => "unusable row",
            Self::Undeliverable => "letter not deliverable",
        })
    }
}

impl Digest {
    /// One that says nothing yet.
    #[must_use]
    pub fn new(cause: impl Into<String>, at: Timestamp) -> Self {
        Self {
            cause: cause.into(),
            at,
            alerts: Vec::new(),
            entries: Vec::new(),
            unlisted: 0,
            warnings: Vec::new(),
            open: None,
        }
    }

    /// Adds what a person has to look at. Of very many only the number is kept.
    pub fn add(&mut self, entry: Entry) {
        if self.entries.len() < MOST_ENTRIES {
            self.entries.push(entry);
        } else {
            self.unlisted = self.unlisted.saturating_add(1);
        }
    }

    /// Whether there is nothing to tell. What waits in all is no news by itself.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.entries.is_empty() && self.unlisted == 0 && self.warnings.is_empty()
    }
}

/// A letter, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Its subject.
    pub subject: String,
    /// Its text in HTML.
    pub html: String,
    /// The same for mail programs that show no HTML.
    pub text: String,
}

impl Letter {
    /// The letter as it is sent when `sent` of its kind went out before.
    ///
    /// # Errors
    /// That of the template, which does not occur with those that there are.
    pub fn render(&self, sent: u32) -> Result<Rendered, askama::Error> {
        match self {
            Self::UnknownName {
                called,
                written,
                suggestions,
            } => {
                let letter = ToCustomer {
                    subject: match sent {
                        0 => "Your TradingView username",
                        _ => "Reminder: your TradingView username",
                    },
                    greeting: greeting(called),
                    written: name_shown(written),
                    suggestions: offered(suggestions, written),
                    reminder: sent > 0,
                    last: sent > 1,
                };
                Ok(Rendered {
                    subject: letter.subject.to_owned(),
                    html: ToCustomerInHtml { letter: &letter }.render()?,
                    text: ToCustomerInText { letter: &letter }.render()?,
                })
            }
            Self::Digest(digest) => {
                let letter = ToOperator::of(digest);
                Ok(Rendered {
                    subject: letter.subject.clone(),
                    html: ToOperatorInHtml { letter: &letter }.render()?,
                    text: ToOperatorInText { letter: &letter }.render()?,
                })
            }
        }
    }
}

impl Digest {
    /// The digest as a post of at most 2,000 characters. It stands in a block of code, where nothing is a link, a
    /// mention or a mark-up.
    ///
    /// # Errors
    /// That of the template, which does not occur with the one that there is.
    pub fn post(&self) -> Result<String, askama::Error> {
        let letter = ToOperator::of(self);
        let text = ToOperatorInText { letter: &letter }.render()?.replace('`', "'");
        let text = cut(text.trim(), POST_SHOWN);
        Ok(format!("{}\n```\n{text}\n```", letter.subject.replace('`', "'")))
    }
}

/// What the templates to customers show.
struct ToCustomer {
    subject: &'static str,
    greeting: String,
    written: String,
    suggestions: Vec<String>,
    reminder: bool,
    last: bool,
}

#[derive(Template)]
#[template(path = "invalid_username.html")]
struct ToCustomerInHtml<'a> {
    letter: &'a ToCustomer,
}

#[derive(Template)]
#[template(path = "invalid_username.txt")]
struct ToCustomerInText<'a> {
    letter: &'a ToCustomer,
}

/// What the templates to the operator show.
struct ToOperator {
    subject: String,
    at: Timestamp,
    alerts: Vec<String>,
    entries: Vec<Line>,
    unlisted: u64,
    warnings: Vec<String>,
    open: Option<Open>,
}

/// An entry, as it is shown.
struct Line {
    kind: String,
    transaction: String,
    script: String,
    person: String,
    username: String,
    reason: String,
}

#[derive(Template)]
#[template(path = "digest.html")]
struct ToOperatorInHtml<'a> {
    letter: &'a ToOperator,
}

#[derive(Template)]
#[template(path = "digest.txt")]
struct ToOperatorInText<'a> {
    letter: &'a ToOperator,
}

impl ToOperator {
    fn of(digest: &Digest) -> Self {
        let number = u64::try_from(digest.entries.len())
            .unwrap_or(u64::MAX)
            .saturating_add(digest.unlisted);
        let subject = match (digest.alerts.as_slice(), number) {
            ([], 0) => "Access sync: warnings".to_owned(),
            ([], 1) => "Access sync: 1 thing to look at".to_owned(),
            ([], number) => format!("Access sync: {number} things to look at"),
            ([..], _) => "Access sync: it needs you".to_owned(),
        };
        let sentences = |texts: &[String]| -> Vec<String> {
            texts
                .iter()
                .take(MOST_ENTRIES)
                .map(|text| one_line(text, SENTENCE_SHOWN))
                .collect()
        };
        Self {
            subject,
            at: digest.at,
            alerts: sentences(&digest.alerts),
            entries: digest.entries.iter().map(Line::of).collect(),
            unlisted: digest.unlisted,
            warnings: sentences(&digest.warnings),
            open: digest.open,
        }
    }
}

impl Line {
    fn of(entry: &Entry) -> Self {
        let id = |id: Option<String>| one_line(&id.unwrap_or_default(), NAME_SHOWN);
        Self {
            kind: entry.kind.to_string(),
            transaction: id(entry.transaction.as_ref().map(ToString::to_string)),
            script: id(entry.script.as_ref().map(ToString::to_string)),
            person: id(entry.person.map(|person| person.to_string())),
            username: id(entry.username.clone()),
            reason: one_line(&entry.reason, SENTENCE_SHOWN),
        }
    }

    /// The entry on one line of text.
    fn line(&self) -> String {
        let mut line = format!("{}: {}", self.kind, self.reason);
        for (what, value) in [
            ("transaction", &self.transaction),
            ("script", &self.script),
            ("customer", &self.person),
            ("name", &self.username),
        ] {
            if !value.is_empty() {
                line.push_str(", ");
                line.push_str(what);
                line.push(' ');
                line.push_str(value);
            }
        }
        line
    }
}

/// How a customer is greeted: by name only where it can be one.
fn greeting(called: &str) -> String {
    let name = one_line(called, usize::MAX);
    let letters = name.chars().any(char::is_alphabetic);
    let plain = name
        .chars()
        .all(|c| c.is_alphabetic() || matches!(c, ' ' | '-' | '\'' | '’'));
    if letters && plain && name.chars().count() <= GREETED {
        format!("Hello {name},")
    } else {
        "Hello,".to_owned()
    }
}

/// What a customer wrote in the place of a name.
fn name_shown(written: &str) -> String {
    let name = one_line(written, NAME_SHOWN);
    // Whoever signs up with somebody else's address gets no link into our letter.
    if name.contains('/') {
        "(a web address)".to_owned()
    } else {
        name
    }
}

/// The names that are offered: those that can exist, each once, and not the one that does not.
fn offered(suggestions: &[String], written: &str) -> Vec<String> {
    let mut offered: Vec<Username> = Vec::new();
    let refused = Username::parse(written).ok();
    for name in suggestions.iter().filter_map(|name| Username::parse(name).ok()) {
        let known = offered.iter().chain(&refused).any(|other| other.is_same(&name));
        if !known && offered.len() < MOST_SUGGESTIONS {
            offered.push(name);
        }
    }
    offered.into_iter().map(|name| name.to_string()).collect()
}

/// A text on one line, without characters that are not seen or that change how others are read.
fn one_line(text: &str, most: usize) -> String {
    let seen: String = text.chars().filter(|c| !is_unseen(*c)).collect();
    let words: Vec<&str> = seen
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    cut(&words.join(" "), most)
}

/// A text with at most `most` characters, the last of which says that there were more.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Characters without a shape of their own, and those that turn the direction of the text around them.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(called: &str, written: &str, suggestions: &[&str]) -> Letter {
        Letter::UnknownName {
            called: called.to_owned(),
            written: written.to_owned(),
            suggestions: suggestions.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn digest() -> Digest {
        Digest::new("run", "2026-11-21T10:00:00Z".parse().unwrap())
    }

    fn entry(username: &str) -> Entry {
        Entry {
            kind: EntryKind::Review,
            transaction: TransactionId::parse("17"),
            script: Some(ScriptId::new("S1")),
            person: Some(PersonId(7)),
            username: Some(username.to_owned()),
            reason: "TradingView does not know the name".to_owned(),
        }
    }

    #[test]
    fn a_customer_is_told_the_name_and_what_to_do() {
        let letter = to("Ada Lovelace", "adda", &[]).render(0).unwrap();
        assert_eq!(letter.subject, "Your TradingView username");
        for part in [&letter.html, &letter.text] {
            assert!(part.contains("Hello Ada Lovelace,"), "{part}");
            assert!(part.contains("adda"), "{part}");
            assert!(part.contains("What to do:"), "{part}");
            assert!(!part.contains("Did you mean"), "{part}");
            assert!(!part.contains("We wrote to you"), "{part}");
        }
        assert!(letter.text.is_ascii());
    }

    #[test]
    fn names_that_begin_alike_are_offered_and_the_choice_is_the_customers() {
        let names = ["ada", "Ada_L", "adda", "ADA", "<script>", "ada lovelace", ""];
        let letter = to("Ada", "adda", &names).render(0).unwrap();
        for part in [&letter.html, &letter.text] {
            assert!(part.contains("Did you mean"), "{part}");
            assert!(part.contains("Ada_L"), "{part}");
            assert!(part.contains("We never choose one of these for you"), "{part}");
            assert!(!part.contains("ada lovelace"), "{part}");
        }
        let listed = |name: &str| letter.text.lines().filter(|line| line.trim() == name).count();
        assert_eq!((listed("ada"), listed("ADA")), (1, 0), "a name is offered once");
        assert_eq!(
            listed("adda"),
            1,
            "the name that does not exist is shown and not offered"
        );
    }

    #[test]
    fn no_more_than_five_names_are_offered() {
        let names: Vec<String> = (0..40).map(|number| format!("ada{number}")).collect();
        assert_eq!(offered(&names, "ada"), names[..5]);
    }

    #[test]
    fn who_gave_no_name_is_asked_for_one() {
        let letter = to("Ada", " \u{200b} ", &[]).render(0).unwrap();
        for part in [&letter.html, &letter.text] {
            assert!(part.contains("does not have one"), "{part}");
            assert!(!part.contains("does not know"), "{part}");
        }
    }

    #[test]
    fn the_reminders_say_so_and_the_last_that_it_is_the_last() {
        let letter = to("Ada", "adda", &[]);
        let (second, third) = (letter.render(1).unwrap(), letter.render(2).unwrap());
        assert_eq!(second.subject, "Reminder: your TradingView username");
        for (part, last) in [
            (&second.html, false),
            (&second.text, false),
            (&third.html, true),
            (&third.text, true),
        ] {
            assert!(part.contains("We wrote to you"), "{part}");
            assert_eq!(part.contains("last reminder"), last, "{part}");
        }
    }

    #[test]
    fn nothing_that_a_customer_wrote_becomes_markup() {
        let evil = "<img src=x onerror=alert(1)>&\"'";
        let letter = to(evil, evil, &[evil]).render(0).unwrap();
        assert!(letter.html.contains("Hello,"), "{}", letter.html);
        assert!(!letter.html.contains("<img"), "{}", letter.html);
        assert!(letter.html.contains("&#60;img src=x"), "{}", letter.html);
        assert!(letter.text.contains(evil), "{}", letter.text);
    }

    #[test]
    fn nobody_writes_a_text_or_a_link_of_their_own_into_a_letter() {
        let text = "adda\r\n\r\nYour account is blocked.\u{2028}Go on:\u{202e}";
        let letter = to(text, text, &[text]).render(0).unwrap();
        let shown = letter.text.lines().find(|line| line.contains("blocked")).unwrap();
        assert_eq!(shown.trim(), "adda Your account is blocked. Go on:");
        assert!(letter.text.starts_with("Hello,\n"));
        let link = "https://evil.example/login";
        let letter = to(link, link, &[link]).render(0).unwrap();
        assert!(!letter.text.contains("evil") && !letter.html.contains("evil"));
        let long = to("Ada", &"x".repeat(5_000), &[]).render(0).unwrap();
        assert!(long.text.contains(&format!("{}…", "x".repeat(63))));
        assert!(!long.text.contains(&"x".repeat(64)));
    }

    #[test]
    fn people_are_greeted_in_any_script_but_only_by_what_can_be_a_name() {
        assert_eq!(greeting("Zoë O’Brien-Müller"), "Hello Zoë O’Brien-Müller,");
        assert_eq!(greeting(" 山田\t太郎 "), "Hello 山田 太郎,");
        for other in [
            "",
            "  ",
            "-",
            "evil.example",
            "ada@example.com",
            "win $100",
            &"x".repeat(41),
        ] {
            assert_eq!(greeting(other), "Hello,", "{other}");
        }
    }

    #[test]
    fn a_digest_lists_what_came_up_and_counts_the_rest() {
        let mut digest = digest();
        for _ in 0..60 {
            digest.add(entry("adda"));
        }
        digest.warnings.push("90 of 100 users are active".to_owned());
        digest.open = Some(Open {
            manual_review: 61,
            ..Open::default()
        });
        let letter = Letter::Digest(digest).render(0).unwrap();
        assert_eq!(letter.subject, "Access sync: 60 things to look at");
        assert_eq!(letter.text.matches("transaction 17").count(), MOST_ENTRIES);
        assert_eq!(letter.html.matches("<td>17</td>").count(), MOST_ENTRIES);
        for part in [&letter.html, &letter.text] {
            assert!(part.contains("nd 10 more"), "{part}");
            assert!(part.contains("90 of 100 users are active"), "{part}");
            assert!(part.contains("61 to review"), "{part}");
        }
    }

    #[test]
    fn an_alert_comes_before_all_else() {
        let mut digest = digest();
        digest.alerts.push("The access API lets nobody in.".to_owned());
        digest.add(entry("adda"));
        let letter = Letter::Digest(digest).render(0).unwrap();
        assert_eq!(letter.subject, "Access sync: it needs you");
        let (alert, listed) = (letter.text.find("nobody in"), letter.text.find("transaction 17"));
        assert!(alert.is_some() && alert < listed);
    }

    #[test]
    fn a_digest_escapes_what_customers_wrote() {
        let mut digest = digest();
        digest.add(entry("<b>adda</b>"));
        let letter = Letter::Digest(digest).render(0).unwrap();
        assert!(!letter.html.contains("<b>"), "{}", letter.html);
    }

    #[test]
    fn a_post_fits_and_holds_no_mark_up() {
        let mut digest = digest();
        for _ in 0..60 {
            digest.add(entry("```@everyone"));
        }
        let post = digest.post().unwrap();
        assert!(post.chars().count() <= 2_000);
        assert_eq!(post.matches("```").count(), 2);
        assert!(post.ends_with("…\n```"), "{post}");
    }
}
