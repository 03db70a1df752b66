// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl commit`.

use crate::error::{Error, Result};

/// Moves every block home and ends the migration.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Err(Error::NotBuilt("commit"))
}
