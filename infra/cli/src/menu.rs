//! `berth menu`: the commands of `berth connections` and, in a menu of its own, of `berth access`, to choose from.
//!
//! Each choice does what the command of the same meaning does, asks what that asks, and comes back to the menu
//! whatever became of it. What it acts on is looked up anew each time, because a stack may be started or stopped
//! meanwhile.

use std::path::PathBuf;

use crate::Global;
use crate::access::{self, AccessCommand, ConfigurationFile, ReviewCommand, RevokeReason};
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
    Access,
    Leave,
}

impl Choice {
    const ALL: [Self; 15] = [
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
        Self::Access,
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
            Self::Access => "The access sync",
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
            Self::Access | Self::Leave => None,
        })
    }
}

/// What can be chosen about the access sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AccessChoice {
    Sync,
    DryRun,
    Plan,
    Approve,
    Reviews,
    Retry,
    Correct,
    Dismiss,
    DeadLetters,
    Replay,
    Revoke,
    Resync,
    Repair,
    Export,
    Import,
    CheckConfig,
    Doctor,
    Back,
}

impl AccessChoice {
    const ALL: [Self; 18] = [
        Self::Sync,
        Self::DryRun,
        Self::Plan,
        Self::Approve,
        Self::Reviews,
        Self::Retry,
        Self::Correct,
        Self::Dismiss,
        Self::DeadLetters,
        Self::Replay,
        Self::Revoke,
        Self::Resync,
        Self::Repair,
        Self::Export,
        Self::Import,
        Self::CheckConfig,
        Self::Doctor,
        Self::Back,
    ];

    /// The line that the menu shows.
    fn line(self) -> &'static str {
        match self {
            Self::Sync => "Sync the access with the shop",
            Self::DryRun => "Show what a sync would do",
            Self::Plan => "Make a plan of what would be done",
            Self::Approve => "Do what a plan says",
            Self::Reviews => "List what a person has to look at",
            Self::Retry => "Let a review go on as it is",
            Self::Correct => "Correct the name of a review",
            Self::Dismiss => "Dismiss a review",
            Self::DeadLetters => "List what was given up",
            Self::Replay => "Try again what was given up",
            Self::Revoke => "Take a transaction back",
            Self::Resync => "Read a product's transactions again",
            Self::Repair => "Give back what somebody took by hand",
            Self::Export => "Export a script's master data",
            Self::Import => "Take over master data from a file",
            Self::CheckConfig => "Check the configuration",
            Self::Doctor => "Look at the shop and the access API",
            Self::Back => "Back",
        }
    }

    /// The command, once the person has said what it needs; `None` where they went back.
    fn command(self) -> Result<Option<AccessCommand>, NoAnswer> {
        let named = || ConfigurationFile::from_environment();
        Ok(match self {
            Self::Sync => Some(AccessCommand::Sync { dry_run: false }),
            Self::DryRun => Some(AccessCommand::Sync { dry_run: true }),
            Self::Plan => Some(AccessCommand::Plan),
            Self::Approve => {
                ask::what("Which plan (empty: back)")?.map(|plan| AccessCommand::Approve { plan })
            }
            Self::Reviews => Some(AccessCommand::Reviews { decision: None }),
            Self::Retry => review()?.map(|id| decided(ReviewCommand::Retry { id })),
            Self::Correct => match review()? {
                Some(id) => ask::what("The right name at TradingView (empty: back)")?
                    .map(|username| decided(ReviewCommand::Correct { id, username })),
                None => None,
            },
            Self::Dismiss => review()?.map(|id| decided(ReviewCommand::Dismiss { id })),
            Self::DeadLetters => Some(AccessCommand::DeadLetters),
            Self::Replay => ask::what("Which dead letter or transaction (empty: back)")?
                .map(|id| AccessCommand::Replay { id }),
            Self::Revoke => match ask::what("Which transaction (empty: back)")? {
                Some(txn) => reason()?.map(|reason| AccessCommand::Revoke { txn, reason }),
                None => None,
            },
            Self::Resync => {
                ask::what("Which product (empty: back)")?.map(|product| AccessCommand::Resync { product })
            }
            Self::Repair => Some(AccessCommand::Repair),
            Self::Export => ask::what("Which script (empty: back)")?
                .map(|script| AccessCommand::Export { script, file: None }),
            Self::Import => file()?.map(|file| AccessCommand::Import { file, script: None }),
            Self::CheckConfig => Some(AccessCommand::CheckConfig { named: named() }),
            Self::Doctor => Some(AccessCommand::Doctor { named: named() }),
            Self::Back => None,
        })
    }
}

fn decided(decision: ReviewCommand) -> AccessCommand {
    AccessCommand::Reviews {
        decision: Some(decision),
    }
}

fn review() -> Result<Option<String>, NoAnswer> {
    ask::what("Which review (empty: back)")
}

fn reason() -> Result<Option<RevokeReason>, NoAnswer> {
    let reasons = [
        (RevokeReason::Refund, "It was paid back"),
        (RevokeReason::Chargeback, "The bank took the money back"),
        (RevokeReason::Operator, "An operator's decision"),
    ];
    let lines = reasons.map(|(_, line)| line.to_owned());
    let chosen = ask::which("Why? (Esc goes back)", &lines, 0)?;
    Ok(chosen
        .and_then(|chosen| reasons.get(chosen))
        .map(|(reason, _)| *reason))
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
        if choice == Choice::Access {
            Box::pin(access_menu(global)).await;
            continue;
        }
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

/// Shows the menu of the access sync until the person goes back, by its last line, Esc or Ctrl-C.
async fn access_menu(global: &Global) {
    let lines = AccessChoice::ALL.map(|choice| choice.line().to_owned());
    let mut last = 0;
    while let Ok(Some(chosen)) = ask::which("What about the access sync? (Esc goes back)", &lines, last) {
        let choice = AccessChoice::ALL
            .get(chosen)
            .copied()
            .unwrap_or(AccessChoice::Back);
        if choice == AccessChoice::Back {
            break;
        }
        last = chosen;
        eprintln!("{}", choice.line());
        if let Ok(Some(command)) = choice.command() {
            // What went wrong was said; the menu goes on all the same.
            let _ = access::run(global, &command).await;
        }
        eprintln!();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_about_the_access_sync_has_a_line_of_its_own() {
        let lines: std::collections::BTreeSet<_> =
            AccessChoice::ALL.iter().map(|choice| choice.line()).collect();
        assert_eq!(lines.len(), AccessChoice::ALL.len());
        assert_eq!(AccessChoice::ALL.last(), Some(&AccessChoice::Back));
    }

    #[test]
    fn every_choice_has_a_line_of_its_own() {
        let lines: std::collections::BTreeSet<_> = Choice::ALL.iter().map(|choice| choice.line()).collect();
        assert_eq!(lines.len(), Choice::ALL.len());
        assert_eq!(Choice::ALL.last(), Some(&Choice::Leave));
    }
}
