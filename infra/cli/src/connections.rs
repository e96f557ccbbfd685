//! `berth connections`: who is connected, and the limit.
//!
//! The commands do what the routes do, and most of them by calling those routes. This file says which commands there
//! are and how they end; each subject has a file of its own.

mod ages;
mod limit;
mod syncing;
mod tracking;
mod users;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::Value;

use crate::Global;
use crate::ask::{self, NoAnswer};
use crate::exit::Exit;
use crate::target::{CallError, Target};

/// The commands of the group.
#[expect(
    clippy::doc_markdown,
    reason = "these texts are the help, where code marks would be seen as such"
)]
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ConnectionsCommand {
    /// Show how many places are taken, and whether the limit is reached (exit code 3)
    CheckLimit,
    /// List the users that are tracked, the oldest first
    #[command(visible_aliases = ["list-tracked", "list-users"])]
    List,
    /// Track a user that SnapTrade knows already
    ///
    /// This registers nobody: users are registered by the application (POST /api/snaptrade/register), which alone can
    /// keep their secrets. It is for a user whom tracking does not know, or knows with another age.
    AddUser(AddUser),
    /// Never let a user give way
    Protect {
        /// The user
        user_id: String,
    },
    /// Let a user give way again
    Unprotect {
        /// The user
        user_id: String,
    },
    /// Delete the oldest user that is not protected, at SnapTrade and in tracking
    ///
    /// Asks first, naming the user and the target. Without a terminal it refuses (exit code 2) unless --yes is given.
    DeleteOldest,
    /// Make room if there is none: delete the oldest user when the limit is reached
    ///
    /// Asks first, naming the user and the target. Without a terminal it refuses (exit code 2) unless --yes is given.
    /// Where nobody may give way, because all are protected or the policy is none, it ends with exit code 3.
    AutoManage,
    /// Make sure of a free place before a user is created, making room where there is none
    ///
    /// With a user the place is kept for that user for five minutes. Without one it is only made, and whoever comes
    /// first gets it. Where somebody has to give way it asks first; without a terminal it then refuses (exit code 2)
    /// unless --yes is given.
    Ensure {
        /// Whom the place is kept for
        user_id: Option<String>,
    },
    /// Bring tracking in line with SnapTrade's list (exit code 4 when that is not finished: run it again)
    Sync,
    /// Write the tracking data into a file: users with their sealed secrets, ages and protection, and the audit trail
    ///
    /// The secrets stay encrypted with the data keys, which are not in the file: keep those, too, or the restored
    /// users have to register again. On this machine they are in .berth/data-keys.json.
    Backup {
        /// The file; one that is there is replaced once the new one is whole
        file: PathBuf,
    },
    /// Bring the tracking data back from a file that `backup` wrote, then sync
    ///
    /// What tracking knows by now wins over the file: nobody is overwritten, and nobody comes back who was deleted
    /// since. It asks first; without a terminal it refuses (exit code 2) unless --yes is given. It may be broken off
    /// and run again. Exit code 4 when something is left for a person.
    Restore {
        /// The file
        file: PathBuf,
    },
    /// Set the ages of known users from a file such as .snaptrade_user_timestamps.json
    ///
    /// The file is {"user_id": time}, where a time is Unix seconds, also with a fraction, or RFC 3339. Nothing is
    /// changed unless all of it is right. Users that are not tracked are reported (exit code 4).
    Import {
        /// The file; - reads standard input
        file: PathBuf,
    },
    /// Write the users' ages into a file that `import` reads: {"user_id": Unix seconds}
    Export {
        /// The file; - writes to standard output
        file: PathBuf,
    },
}

/// What `add-user` takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct AddUser {
    /// The user, as SnapTrade knows it
    pub(crate) user_id: String,
    /// Since when, as Unix seconds or RFC 3339; now, if left out
    #[arg(long, value_name = "TIME", value_parser = ages::time)]
    pub(crate) created_at: Option<Timestamp>,
    /// Never let this user give way
    #[arg(long)]
    pub(crate) protected: bool,
}

/// Why a command did not do what it should.
#[derive(Debug)]
enum Refusal {
    /// The API did not do it.
    Call(CallError),
    /// The person said no.
    Declined,
    /// What the person agreed to is not what would happen any more.
    Overtaken,
    /// There was nobody to ask.
    NobodyToAsk,
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

/// Runs one of the commands.
pub(crate) async fn run(global: &Global, command: &ConnectionsCommand) -> Exit {
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
        done = perform(global, &target, command) => done,
        _ = &mut stop => Err(Refusal::Failed(
            "stopped; what was under way is finished or undone by the next `berth connections sync`".to_owned(),
        )),
    };
    target.close().await;
    match done {
        Ok(exit) => exit,
        Err(refusal) => tell(global, &refusal),
    }
}

/// Says why a command did not do what it should, and how it ends by that.
fn tell(global: &Global, refusal: &Refusal) -> Exit {
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
        Refusal::Failed(reason) => Exit::failed(reason),
    }
}

async fn perform(global: &Global, target: &Target, command: &ConnectionsCommand) -> Result<Exit, Refusal> {
    match command {
        ConnectionsCommand::CheckLimit => limit::check(global, target).await,
        ConnectionsCommand::DeleteOldest => limit::delete_oldest(global, target).await,
        ConnectionsCommand::AutoManage => limit::auto_manage(global, target).await,
        ConnectionsCommand::Ensure {
            user_id: Some(user_id),
        } => limit::hold(global, target, user_id).await,
        ConnectionsCommand::Ensure { user_id: None } => limit::ensure(global, target).await,
        ConnectionsCommand::List => users::list(global, target).await,
        ConnectionsCommand::AddUser(user) => users::add(global, target, user).await,
        ConnectionsCommand::Protect { user_id } => users::set_protection(global, target, user_id, true).await,
        ConnectionsCommand::Unprotect { user_id } => {
            users::set_protection(global, target, user_id, false).await
        }
        ConnectionsCommand::Sync => syncing::sync(global, target).await,
        ConnectionsCommand::Backup { file } => tracking::backup(global, target, file).await,
        ConnectionsCommand::Restore { file } => tracking::restore(global, target, file).await,
        ConnectionsCommand::Import { file } => ages::import(global, target, file).await,
        ConnectionsCommand::Export { file } => ages::export(global, target, file).await,
    }
}

/// Asks whether the target is to do `what`, unless `--yes` says so.
fn confirm(global: &Global, target: &Target, what: &str) -> Result<(), Refusal> {
    if global.yes {
        return Ok(());
    }
    Ok(ask::whether(&format!("On {}: {what}?", target.name()))?)
}

/// Prints an answer, as JSON or in words.
fn show(global: &Global, answer: &Value, words: impl FnOnce(&Value) -> String) {
    if global.json {
        print(&answer.to_string());
    } else {
        print(&words(answer));
    }
}

fn print(text: &str) {
    // A reader that has gone away, such as `head`, is no failure.
    let _ = writeln!(std::io::stdout(), "{text}");
}
