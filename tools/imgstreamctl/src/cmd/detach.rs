// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl detach`.

use crate::device::Control;
use crate::error::Result;

/// Detaches the imgstream device.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Control::open()?.detach()
}
