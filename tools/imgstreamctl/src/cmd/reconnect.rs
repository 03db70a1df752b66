// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl reconnect`.

use crate::device::Control;
use crate::error::Result;

/// Looks for the repository now.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Control::open()?.reconnect()
}
