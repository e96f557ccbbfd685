//! `berth menu`: the commands of `berth connections`, to choose from.
//!
//! Each choice does what the command of the same meaning does, asks what that asks, and comes back to the menu
//! whatever became of it. What it acts on is looked up anew each time, because a stack may be started or stopped
//! meanwhile.

use std::path::PathBuf;

use crate::Global;
use crate::ask::{self, NoAnswer};
use crate::connections::{self, AddUser, ConnectionsCommand};
use crate::exit::Exit;

/// What can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    CheckLimit,
    List,
    Ensure,
    AutoManage,
    DeleteOldest,
    AddUser,
    Protect,
    Unprotect,
    Sync,
    Backup,
    Restore,
    Import,
    Export,
    Leave,
}

impl Choice {
    const ALL: [Self; 14] = [
        Self::CheckLimit,
        Self::List,
        Self::Ensure,
        Self::AutoManage,
        Self::DeleteOldest,
        Self::AddUser,
        Self::Protect,
        Self::Unprotect,
        Self::Sync,
        Self::Backup,
        Self::Restore,
        Self::Import,
        Self::Export,
        Self::Leave,
    ];

    /// The line that the menu shows.
    fn line(self) -> &'static str {
        match self {
            Self::CheckLimit => "Check the limit",
            Self::List => "List the users",
            Self::Ensure => "Make sure of a free place",
            Self::AutoManage => "Make room if the limit is reached",
            Self::DeleteOldest => "Delete the oldest user",
            Self::AddUser => "Add a user that SnapTrade knows",
            Self::Protect => "Protect a user",
            Self::Unprotect => "Take a user's protection away",
            Self::Sync => "Sync with SnapTrade",
            Self::Backup => "Back up the tracking data",
            Self::Restore => "Restore the tracking data",
            Self::Import => "Import ages from a file",
            Self::Export => "Export ages into a file",
            Self::Leave => "Leave",
        }
    }

    /// The command, once the person has said what it needs; `None` where they went back.
    fn command(self) -> Result<Option<ConnectionsCommand>, NoAnswer> {
        Ok(match self {
            Self::CheckLimit => Some(ConnectionsCommand::CheckLimit),
            Self::List => Some(ConnectionsCommand::List),
            Self::Ensure => {
                let user_id = ask::what("For which user (empty: for whoever comes first)")?;
                Some(ConnectionsCommand::Ensure { user_id })
            }
            Self::AutoManage => Some(ConnectionsCommand::AutoManage),
            Self::DeleteOldest => Some(ConnectionsCommand::DeleteOldest),
            Self::AddUser => user()?.map(|user_id| {
                ConnectionsCommand::AddUser(AddUser {
                    user_id,
                    created_at: None,
                    protected: false,
                })
            }),
            Self::Protect => user()?.map(|user_id| ConnectionsCommand::Protect { user_id }),
            Self::Unprotect => user()?.map(|user_id| ConnectionsCommand::Unprotect { user_id }),
            Self::Sync => Some(ConnectionsCommand::Sync),
            Self::Backup => file()?.map(|file| ConnectionsCommand::Backup { file }),
            Self::Restore => file()?.map(|file| ConnectionsCommand::Restore { file }),
            Self::Import => file()?.map(|file| ConnectionsCommand::Import { file }),
            Self::Export => file()?.map(|file| ConnectionsCommand::Export { file }),
            Self::Leave => None,
        })
    }
}

fn user() -> Result<Option<String>, NoAnswer> {
    ask::what("Which user (empty: back)")
}

fn file() -> Result<Option<PathBuf>, NoAnswer> {
    Ok(ask::what("Which file (empty: back)")?.map(PathBuf::from))
}

/// Shows the menu until it is left, by its last line, Esc or Ctrl-C.
pub(crate) async fn run(global: &Global) -> Exit {
    if !ask::somebody_there() {
        return Exit::refused(
            "the menu needs a terminal: `berth connections --help` names the commands for scripts",
        );
    }
    // From here on Ctrl-C ends what it is typed into, a question or a command, and not the whole program.
    let stop = tokio::spawn(tokio::signal::ctrl_c());
    let lines = Choice::ALL.map(|choice| choice.line().to_owned());
    let mut last = 0;
    while let Ok(Some(chosen)) = ask::which("What is to be done? (Esc leaves)", &lines, last) {
        let choice = Choice::ALL.get(chosen).copied().unwrap_or(Choice::Leave);
        if choice == Choice::Leave {
            break;
        }
        last = chosen;
        eprintln!("{}", choice.line());
        // A question that is left with Ctrl-C comes back here as well.
        if let Ok(Some(command)) = choice.command() {
            // What went wrong was said; the menu goes on all the same.
            let _ = connections::run(global, &command).await;
        }
        eprintln!();
    }
    stop.abort();
    Exit::Success
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_has_a_line_of_its_own() {
        let lines: std::collections::BTreeSet<_> = Choice::ALL.iter().map(|choice| choice.line()).collect();
        assert_eq!(lines.len(), Choice::ALL.len());
        assert_eq!(Choice::ALL.last(), Some(&Choice::Leave));
    }
}
