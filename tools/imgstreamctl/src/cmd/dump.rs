// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl dump`.

use crate::error::{Error, Result};

/// Prints the control structure of a disk.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Err(Error::NotBuilt("dump"))
}
