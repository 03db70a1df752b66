// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl cancel`.

use crate::error::{Error, Result};

/// Takes a migration back before the disk is shrunk.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Err(Error::NotBuilt("cancel"))
}
