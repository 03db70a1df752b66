// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl cancel`.

use super::finish_rollback;
use crate::device::Status;
use crate::error::Result;
use crate::refusal::Refusal;
use crate::root;
use crate::switch::source;

/// Takes a migration back before a block of the source is overwritten.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    root::required()?;
    // Also what a cut, or a migration that failed, has left behind.
    if !source::is_armed()? && !source::is_installed() {
        return Err(nothing(Status::read().ok()).into());
    }
    finish_rollback::restore()?;
    println!("cancelled: the next boot is this system's own");
    Ok(())
}

/// In the target it is too late; elsewhere there is none.
fn nothing(target: Option<Status>) -> Refusal {
    match target {
        Some(status) => Refusal::WrongState {
            command: "cancel",
            state: format!("{} (`imgstreamctl rollback` goes back)", status.state),
        },
        None => Refusal::NothingToCancel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_migration_that_is_said() {
        let none = nothing(None);
        assert_eq!(none.exit(), crate::Exit::WrongState);
        assert_eq!(none.to_string(), "there is no migration to cancel");
        let late = nothing(Some(Status::example()));
        assert_eq!(late.exit(), crate::Exit::WrongState);
        assert_eq!(
            late.to_string(),
            "cancel is not possible in state streaming (`imgstreamctl rollback` goes back)"
        );
    }
}
