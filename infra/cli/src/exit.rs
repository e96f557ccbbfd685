//! How a command ended.

use std::process::ExitCode;

/// How a command ended, as its exit code tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: it did what it should.
    Success,
    /// 1: it failed, and said why on standard error.
    Failure,
    /// 2: it was called in a way that it does not understand or refuses.
    Usage,
    /// 3: the limit is reached.
    AtLimit,
    /// 4: it finished, and something needs a person.
    NeedsPerson,
}

impl Exit {
    /// A failure whose reason, one sentence, is told on standard error.
    pub(crate) fn failed(reason: &str) -> Self {
        eprintln!("berth: {reason}");
        Self::Failure
    }

    /// A refusal for the way in which the command was called, told on standard error.
    pub(crate) fn refused(reason: &str) -> Self {
        eprintln!("berth: {reason}");
        Self::Usage
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::AtLimit => 3,
            Exit::NeedsPerson => 4,
        })
    }
}
