// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl attach`.

use std::path::{Path, PathBuf};

use imgstream_engine::state;

use crate::blockdev;
use crate::error::Result;
use crate::medium::DiskMedium;
use crate::ondisk::{self, Found};
use crate::refusal::Refusal;
use crate::stage::{attach, Report};

/// Attaches a disk that carries an imgstream superblock.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The disk, for example /dev/vda.
    #[arg(required_unless_present = "scan", conflicts_with = "scan")]
    disk: Option<PathBuf>,
    /// Look at all disks; exactly one may carry a migration.
    #[arg(long)]
    scan: bool,
    /// Also set up the network that the disk's settings describe.
    #[arg(long)]
    network: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let disk = match args.disk {
        Some(disk) => disk,
        None => the_only_one()?,
    };
    let found = superblock_of(&disk)?.ok_or_else(|| Refusal::NoSuperblock {
        place: disk.display().to_string(),
    })?;
    let now = found.superblock.state;
    if !state::attachable(now) {
        return Err(Refusal::WrongState {
            command: "attach",
            state: now.to_string(),
        }
        .into());
    }
    let mut report = Report::console();
    if args.network {
        attach::network(&disk, &found, &mut report)?;
    }
    attach::attach(&disk, &mut report)
}

fn superblock_of(disk: &Path) -> Result<Option<Found>> {
    let mut medium = DiskMedium::open_ro(disk)?;
    ondisk::find(&mut medium, &disk.display().to_string())
}

/// The disk with a migration that can be attached.
fn the_only_one() -> Result<PathBuf> {
    let mut all = Vec::new();
    for disk in blockdev::disks() {
        let attachable = superblock_of(&disk)?.map(|found| found.superblock.state);
        if attachable.is_some_and(state::attachable) {
            all.push(disk);
        }
    }
    let places: Vec<String> = all.iter().map(|p| p.display().to_string()).collect();
    match all.pop() {
        Some(one) if all.is_empty() => Ok(one),
        Some(_) => Err(Refusal::SecondSuperblock {
            places: places.join(", "),
        }
        .into()),
        None => Err(Refusal::NoSuperblock {
            place: "on no disk of this computer".into(),
        }
        .into()),
    }
}
