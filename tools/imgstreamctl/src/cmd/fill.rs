// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl fill`.

use clap::ValueEnum;

use crate::device::control::{Control, Rates};
use crate::error::Result;

/// Sets the background fill on or off and its rates.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whether blocks are fetched that nobody has asked for yet.
    #[arg(value_name = "on|off")]
    switch: Switch,
    /// How fast.
    #[command(flatten)]
    rates: Rates,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let rates = args.rates.refuse_contradiction()?;
    Control::open()?.fill(args.switch == Switch::On, rates)
}
