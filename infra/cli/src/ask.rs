//! Asking the person at the terminal.

use std::io::{ErrorKind, IsTerminal};

/// Why there is no answer to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The person said no, or left the question with Esc or Ctrl-C.
    Declined,
    /// There is no terminal to ask in.
    NobodyThere,
}

/// Whether there is a person to ask: one who can type, and who sees the question.
pub(crate) fn somebody_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks whether something is to be done. No is the answer that Enter gives.
///
/// # Errors
/// [`NoAnswer`] for everything but a yes.
pub(crate) fn whether(question: &str) -> Result<(), NoAnswer> {
    if !somebody_there() {
        return Err(NoAnswer::NobodyThere);
    }
    let answer = dialoguer::Confirm::new()
        .with_prompt(question)
        .default(false)
        .interact_opt();
    match heard(answer)? {
        Some(true) => Ok(()),
        Some(false) | None => Err(NoAnswer::Declined),
    }
}

/// Lets choose one of several lines, by its number, beginning at `first`; `None` where the person goes back.
///
/// # Errors
/// [`NoAnswer`].
pub(crate) fn which(question: &str, lines: &[String], first: usize) -> Result<Option<usize>, NoAnswer> {
    if !somebody_there() {
        return Err(NoAnswer::NobodyThere);
    }
    let answer = dialoguer::Select::new()
        .with_prompt(question)
        .items(lines)
        .default(first)
        .interact_opt();
    heard(answer)
}

/// Asks for a line of text; `None` where the person leaves it empty.
///
/// # Errors
/// [`NoAnswer`].
pub(crate) fn what(question: &str) -> Result<Option<String>, NoAnswer> {
    if !somebody_there() {
        return Err(NoAnswer::NobodyThere);
    }
    let answer = dialoguer::Input::<String>::new()
        .with_prompt(question)
        .allow_empty(true)
        .interact_text();
    let text = heard(answer)?.trim().to_owned();
    Ok((!text.is_empty()).then_some(text))
}

/// What the terminal gave. Ctrl-C while a question stands is an answer to it: no.
fn heard<T>(answer: dialoguer::Result<T>) -> Result<T, NoAnswer> {
    answer.map_err(|dialoguer::Error::IO(error)| {
        // A question that is broken off leaves the cursor hidden.
        let _ = dialoguer::console::Term::stderr().show_cursor();
        match error.kind() {
            ErrorKind::Interrupted => NoAnswer::Declined,
            _ => NoAnswer::NobodyThere,
        }
    })
}
