// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl detach`.

use crate::error::{Error, Result};

/// Detaches the imgstream device.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Err(Error::NotBuilt("detach"))
}
