// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl prepare`.

use crate::error::{Error, Result};

/// Makes a published image from a raw image or disk.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Err(Error::NotBuilt("prepare"))
}
