// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl stage`.

use crate::error::{Error, Result};

/// Runs the steps of the stage environment.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Err(Error::NotBuilt("stage"))
}
