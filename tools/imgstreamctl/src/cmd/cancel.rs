// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl cancel`.

use super::finish_rollback;
use crate::error::Result;
use crate::refusal::Refusal;
use crate::switch::source;

/// Takes a migration back before a block of the source is overwritten.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    // Also what a cut, or a migration that failed, has left behind.
    if !source::is_armed()? && !source::is_installed() {
        return Err(Refusal::WrongState {
            command: "cancel",
            state: "none (no migration is about to begin)".into(),
        }
        .into());
    }
    finish_rollback::restore()?;
    println!("cancelled: the next boot is this system's own");
    Ok(())
}
