// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl migrate`.

use crate::error::{Error, Result};

/// Moves this computer to another image.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Err(Error::NotBuilt("migrate"))
}
