// SPDX-License-Identifier: GPL-2.0-only
//! The commands: one file each, with its arguments and `run`.

pub mod attach;
pub mod boot;
pub mod cancel;
pub mod check;
pub mod commit;
pub mod detach;
pub mod discover;
pub mod dump;
pub mod fill;
pub mod finish_commit;
pub mod finish_rollback;
pub mod migrate;
pub mod new_chap_file;
pub mod pause;
pub mod plan;
pub mod prepare;
pub mod reconnect;
pub mod resume;
pub mod rollback;
pub mod sessions;
pub mod source_view;
pub mod stage;
pub mod status;
pub mod watch;

use clap::{Parser, Subcommand};

use crate::Result;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "imgstreamctl", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists the targets that a portal offers.
    Discover(discover::Args),
    /// Makes a file with new random secrets for CHAP.
    NewChapFile(new_chap_file::Args),
    /// Makes a published image from a raw image or disk.
    Prepare(prepare::Args),
    /// Says what a migration would do, without writing anything.
    Plan(plan::Args),
    /// Moves this computer to another image.
    Migrate(migrate::Args),
    /// Takes a migration back before the disk is shrunk.
    Cancel(cancel::Args),
    /// Runs the steps of the stage environment.
    #[command(hide = true)]
    Stage(stage::Args),
    /// Starts the target: called by its initramfs.
    #[command(hide = true)]
    Boot(boot::Args),
    /// Takes the driver out of the boot path after a commit.
    #[command(hide = true)]
    FinishCommit(finish_commit::Args),
    /// Cleans up in the source after a roll back or a refusal.
    #[command(hide = true)]
    FinishRollback(finish_rollback::Args),
    /// Attaches a disk that carries an imgstream superblock.
    Attach(attach::Args),
    /// Detaches the imgstream device.
    Detach(detach::Args),
    /// Prints the state of the device and its migration.
    Status(status::Args),
    /// Prints the state again and again.
    Watch(watch::Args),
    /// Sets the background fill on or off and its rates.
    Fill(fill::Args),
    /// Looks for the repository now instead of after a pause.
    Reconnect(reconnect::Args),
    /// Sets how many parallel sessions with the repository there are to be.
    ///
    /// From the attach on there is one, or as many as the module's parameter
    /// says. More can help where one connection does not fill the link. It can
    /// be changed at any time.
    Sessions(sessions::Args),
    /// Moves every block home and ends the migration: the source is destroyed.
    ///
    /// From its first batch on there is no way back; you are asked before.
    Commit(commit::Args),
    /// Offers the source's disk read-only, as it was.
    SourceView(source_view::Args),
    /// Pauses the commit.
    Pause(pause::Args),
    /// Resumes the commit.
    Resume(resume::Args),
    /// Puts the source back, which restarts this computer three times.
    ///
    /// The first start puts the source's blocks back, the second one takes the
    /// stage out of its boot menu, the third one is the source's. What was
    /// written in the target is lost: it is said before, and you are asked. A
    /// disk that is named is rolled back by its own next start, and nothing is
    /// restarted here. Not possible after a commit has begun.
    Rollback(rollback::Args),
    /// Checks the control structure of a disk.
    Check(check::Args),
    /// Prints the control structure of a disk.
    Dump(dump::Args),
}

impl Command {
    /// The command's name as it is typed.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Discover(_) => "discover",
            Command::NewChapFile(_) => "new-chap-file",
            Command::Prepare(_) => "prepare",
            Command::Plan(_) => "plan",
            Command::Migrate(_) => "migrate",
            Command::Cancel(_) => "cancel",
            Command::Stage(_) => "stage",
            Command::Boot(_) => "boot",
            Command::FinishCommit(_) => "finish-commit",
            Command::FinishRollback(_) => "finish-rollback",
            Command::Attach(_) => "attach",
            Command::Detach(_) => "detach",
            Command::Status(_) => "status",
            Command::Watch(_) => "watch",
            Command::Fill(_) => "fill",
            Command::Reconnect(_) => "reconnect",
            Command::Sessions(_) => "sessions",
            Command::Commit(_) => "commit",
            Command::SourceView(_) => "source-view",
            Command::Pause(_) => "pause",
            Command::Resume(_) => "resume",
            Command::Rollback(_) => "rollback",
            Command::Check(_) => "check",
            Command::Dump(_) => "dump",
        }
    }

    /// Runs the command.
    pub fn run(self) -> Result<()> {
        match self {
            Command::Discover(args) => discover::run(args),
            Command::NewChapFile(args) => new_chap_file::run(args),
            Command::Prepare(args) => prepare::run(args),
            Command::Plan(args) => plan::run(args),
            Command::Migrate(args) => migrate::run(args),
            Command::Cancel(args) => cancel::run(args),
            Command::Stage(args) => stage::run(args),
            Command::Boot(args) => boot::run(args),
            Command::FinishCommit(args) => finish_commit::run(args),
            Command::FinishRollback(args) => finish_rollback::run(args),
            Command::Attach(args) => attach::run(args),
            Command::Detach(args) => detach::run(args),
            Command::Status(args) => status::run(args),
            Command::Watch(args) => watch::run(args),
            Command::Fill(args) => fill::run(args),
            Command::Reconnect(args) => reconnect::run(args),
            Command::Sessions(args) => sessions::run(args),
            Command::Commit(args) => commit::run(args),
            Command::SourceView(args) => source_view::run(args),
            Command::Pause(args) => pause::run(args),
            Command::Resume(args) => resume::run(args),
            Command::Rollback(args) => rollback::run(args),
            Command::Check(args) => check::run(args),
            Command::Dump(args) => dump::run(args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
