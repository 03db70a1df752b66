// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl resume`.

use crate::device::Control;
use crate::error::Result;

/// Resumes the commit.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    Control::open()?.resume()
}
