//! `berth connections`: who is connected, and the limit.
//!
//! The commands do what the routes do, and most of them by calling those routes. This file says which commands there
//! are and how they end; each subject has a file of its own.

mod ages;
mod limit;
mod syncing;
mod tracking;
mod users;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::Global;
use crate::command::{Refusal, confirm, on_target, print, show};
use crate::exit::Exit;
use crate::target::Target;

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

/// Runs one of the commands.
pub(crate) async fn run(global: &Global, command: &ConnectionsCommand) -> Exit {
    let stopped = "stopped; what was under way is finished or undone by the next `berth connections sync`";
    on_target(global, stopped, async |target| {
        perform(global, target, command).await
    })
    .await
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
