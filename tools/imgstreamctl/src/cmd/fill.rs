// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl fill`.

use crate::error::{Error, Result};

/// Sets the background fill on or off and its rates.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Err(Error::NotBuilt("fill"))
}
