// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl attach`.

use std::fs;
use std::path::{Path, PathBuf};

use imgstream_engine::state;

use crate::blockdev;
use crate::disk::not_opened;
use crate::error::Result;
use crate::medium::DiskMedium;
use crate::ondisk::{self, inspect, Found, Search};
use crate::refusal::Refusal;
use crate::repository;
use crate::root;
use crate::stage::{attach, Report};

/// A disk that is named, or the only one that there is.
const USAGE: &str = "\
imgstreamctl attach [--network] <DISK>
       imgstreamctl attach [--network] --scan";

/// Attaches a disk that carries an imgstream superblock.
#[derive(Debug, clap::Args)]
#[command(override_usage = USAGE)]
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
        // Links go: partitions are looked up by the disk's own name.
        Some(named) => fs::canonicalize(&named).map_err(|error| not_opened(&named, error))?,
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
    refuse_wrong_image(&disk)?;
    attach::attach(&disk, &mut report)?;
    attach::settle(&mut report)
}

/// A device whose missing blocks would be waited for for ever is not offered.
/// Without any the repository is not asked for anything again.
fn refuse_wrong_image(disk: &Path) -> Result<()> {
    let mut medium = DiskMedium::open_ro(disk)?;
    // What cannot be read in one copy the module takes from the other, or says so.
    let Ok(area) = inspect::inspect(&mut medium, &disk.display().to_string()) else {
        return Ok(());
    };
    match area.blocks {
        Some(blocks) if blocks.absent > 0 => repository::refuse_wrong_image(&area.superblock),
        _ => Ok(()),
    }
}

fn superblock_of(disk: &Path) -> Result<Option<Found>> {
    let mut medium = DiskMedium::open_ro(disk)?;
    ondisk::find(&mut medium, &disk.display().to_string())
}

/// The disk with a migration that can be attached.
fn the_only_one() -> Result<PathBuf> {
    root::required()?;
    let search = Search::of(blockdev::disks());
    if let Some((disk, _)) = search.only(state::attachable)? {
        return Ok(disk);
    }
    let others = search
        .failures()
        .map_or(String::new(), |failures| format!(" ({failures})"));
    Err(Refusal::NoSuperblock {
        place: format!("any disk of this computer{others}"),
    }
    .into())
}
