// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl source-view`.

use clap::ValueEnum;

use crate::device::Control;
use crate::error::Result;

/// Offers the source's disk, as it was before the switch, as
/// /dev/imgstream0-source (read-only), or takes it away again. Not after a
/// commit has begun.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whether it is there.
    #[arg(value_name = "on|off")]
    switch: Switch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    Control::open()?.source_view(args.switch == Switch::On)
}
