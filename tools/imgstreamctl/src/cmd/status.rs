// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl status`.

use crate::device::Status;
use crate::error::Result;

/// Prints the state of the device and its migration.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print it as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let status = Status::read()?;
    if args.json {
        println!("{}", serde_json::json!(status));
    } else {
        print!("{}", status.human());
    }
    Ok(())
}
