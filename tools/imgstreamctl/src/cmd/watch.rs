// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl watch`.

use crate::error::{Error, Result};

/// Prints the state again and again.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Err(Error::NotBuilt("watch"))
}
