// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl plan`.

use crate::error::{Error, Result};

/// Says what a migration would do, without writing anything.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Err(Error::NotBuilt("plan"))
}
