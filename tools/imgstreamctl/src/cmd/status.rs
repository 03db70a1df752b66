// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl status`.

use crate::error::{Error, Result};

/// Prints the state of the device and its migration.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Err(Error::NotBuilt("status"))
}
