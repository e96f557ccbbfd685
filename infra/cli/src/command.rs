//! What all groups of commands have in common: acting on a target, asking before what cannot be changed back, and
//! telling what came of it.

use std::io::Write;

use serde_json::Value;

use crate::Global;
use crate::ask::{self, NoAnswer};
use crate::exit::Exit;
use crate::target::{CallError, Target};

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The API did not do it.
    Call(CallError),
    /// The person said no.
    Declined,
    /// What the person agreed to is not what would happen any more.
    Overtaken,
    /// There was nobody to ask.
    NobodyToAsk,
    /// It was called in a way that it refuses, in one sentence that says what to do.
    Usage(String),
    /// Anything else, in one sentence that says what to do.
    Failed(String),
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<NoAnswer> for Refusal {
    fn from(answer: NoAnswer) -> Self {
        match answer {
            NoAnswer::Declined => Self::Declined,
            NoAnswer::NobodyThere => Self::NobodyToAsk,
        }
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// Runs a command on what it acts on. `stopped` is said where Ctrl-C ends it.
pub(crate) async fn on_target(
    global: &Global,
    stopped: &str,
    perform: impl AsyncFnOnce(&Target) -> Result<Exit, Refusal>,
) -> Exit {
    // Taken from here on, so that Ctrl-C ends the work and not the program: a file half way goes, and a stack that was
    // started for this command alone writes its data.
    let stop = tokio::signal::ctrl_c();
    let mut stop = std::pin::pin!(stop);
    let target = tokio::select! {
        target = Target::find(global) => target,
        _ = &mut stop => return Exit::failed("stopped before anything was done"),
    };
    let target = match target {
        Ok(target) => target,
        Err(error) => return Exit::failed(&error.to_string()),
    };
    let done = tokio::select! {
        done = perform(&target) => done,
        _ = &mut stop => Err(Refusal::Failed(stopped.to_owned())),
    };
    target.close().await;
    done.unwrap_or_else(|refusal| tell(global, &refusal))
}

/// Says why a command did not do what it should, and how it ends by that.
pub(crate) fn tell(global: &Global, refusal: &Refusal) -> Exit {
    match refusal {
        Refusal::Call(error) => {
            if let (true, CallError::Answered { answer, .. }) = (global.json, error) {
                print(&answer.to_string());
            }
            Exit::failed(&error.to_string())
        }
        Refusal::Overtaken => {
            Exit::failed("somebody else would give way by now, so nothing was changed: run it again")
        }
        Refusal::Declined => Exit::failed("nothing was changed"),
        Refusal::NobodyToAsk => Exit::refused(
            "this changes what cannot be changed back, and there is no terminal to ask in: add --yes if it is meant",
        ),
        Refusal::Usage(reason) => Exit::refused(reason),
        Refusal::Failed(reason) => Exit::failed(reason),
    }
}

/// Asks whether the target is to do `what`, unless `--yes` says so.
pub(crate) fn confirm(global: &Global, target: &Target, what: &str) -> Result<(), Refusal> {
    if global.yes {
        return Ok(());
    }
    Ok(ask::whether(&format!("On {}: {what}?", target.name()))?)
}

/// Prints an answer, as JSON or in words.
pub(crate) fn show(global: &Global, answer: &Value, words: impl FnOnce(&Value) -> String) {
    if global.json {
        print(&answer.to_string());
    } else {
        print(&words(answer));
    }
}

/// Prints on standard output.
pub(crate) fn print(text: &str) {
    // A reader that has gone away, such as `head`, is no failure.
    let _ = writeln!(std::io::stdout(), "{text}");
}
