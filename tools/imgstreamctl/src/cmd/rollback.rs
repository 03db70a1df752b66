// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl rollback`.

use crate::error::{Error, Result};

/// Goes back to the source at the next boot.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Err(Error::NotBuilt("rollback"))
}
