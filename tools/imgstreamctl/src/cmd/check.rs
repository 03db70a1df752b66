// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl check`.

use std::path::PathBuf;

use crate::error::Result;
use crate::medium::DiskMedium;
use crate::ondisk::inspect::{inspect, Grade};
use crate::refusal::Refusal;

/// Checks the control structure of a disk.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The disk, or an image of one. Not while it is attached: what is in
    /// memory then is newer.
    disk: PathBuf,
    /// Print the findings as one JSON array.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let place = args.disk.display().to_string();
    let mut disk = DiskMedium::open_ro(&args.disk)?;
    let area = inspect(&mut disk, &place)?;
    if args.json {
        println!("{}", serde_json::json!(area.findings));
    } else {
        for finding in &area.findings {
            println!("{}", finding.what);
        }
    }
    match area.worst() {
        None => {
            if !args.json {
                println!(
                    "{place}: nothing is wrong (state {})",
                    area.superblock.state
                );
            }
            Ok(())
        }
        Some(Grade::Copy) => Err(Refusal::OneCopyBad { place }.into()),
        Some(Grade::Damage) => Err(Refusal::DamagedSuperblock {
            place,
            what: "the control area cannot be used as it is".into(),
        }
        .into()),
    }
}
