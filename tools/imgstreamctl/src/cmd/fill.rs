// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl fill`.

use clap::ValueEnum;

use crate::args;
use crate::device::control::{Control, Rates};
use crate::error::Result;

/// Sets the background fill on or off and its rates.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whether blocks are fetched that nobody has asked for yet.
    #[arg(value_name = "on|off")]
    switch: Switch,
    /// Fetch at least this much, however busy the system is (KiB/s, 0: no bound).
    #[arg(long = "min", value_name = "KIB_PER_S", default_value_t = 0, value_parser = args::rate, allow_negative_numbers = true)]
    min_kib_per_s: u64,
    /// Fetch at most this much (KiB/s, 0: no bound).
    #[arg(long = "max", value_name = "KIB_PER_S", default_value_t = 0, value_parser = args::rate, allow_negative_numbers = true)]
    max_kib_per_s: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let rates = Rates {
        min_kib_per_s: args.min_kib_per_s,
        max_kib_per_s: args.max_kib_per_s,
    }
    .refuse_contradiction()?;
    Control::open()?.fill(args.switch == Switch::On, rates)
}
