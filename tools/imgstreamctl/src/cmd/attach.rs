// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl attach`.

use crate::error::{Error, Result};

/// Attaches a disk that carries an imgstream superblock.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Err(Error::NotBuilt("attach"))
}
