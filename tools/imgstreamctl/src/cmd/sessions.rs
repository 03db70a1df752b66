// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl sessions`.

use crate::args;
use crate::device::Control;
use crate::error::Result;

/// Sets how many parallel sessions with the repository there are to be.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many, 1 to 8.
    #[arg(value_name = "COUNT", value_parser = args::sessions, allow_negative_numbers = true)]
    count: u8,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    Control::open()?.sessions(args.count)
}
