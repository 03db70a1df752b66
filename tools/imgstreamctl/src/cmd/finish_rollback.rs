// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl finish-rollback`: runs once in the source, started by
//! imgstream-source.service, when the stage left it: after a roll back, a
//! refusal, or a cut before anything was overwritten.

use std::path::Path;

use imgstream_engine::state;
use imgstream_proto::disk::State;

use crate::blockdev;
use crate::error::{Error, Result};
use crate::medium::DiskMedium;
use crate::ondisk::{self, pair};
use crate::program;
use crate::refusal::Refusal;
use crate::switch::source;

/// Cleans up in the source after a roll back or a refusal.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<()> {
    if source::is_armed()? {
        println!(
            "a migration is about to begin at the next boot; `imgstreamctl cancel` takes it back"
        );
        return Ok(());
    }
    let root = blockdev::device_of_mount("/")
        .ok_or_else(|| Error::Other("the device of the root file system is not known".into()))?;
    if let Some(disk) = blockdev::disk_of(&root) {
        give_up(&disk)?;
    }
    grow(&root)?;
    if let Some(reason) = source::last_refusal() {
        println!("the migration was refused: {reason}");
    }
    source::remove()?;
    println!("this system is as it was before `imgstreamctl migrate`");
    Ok(())
}

/// Superblocks behind the file system end before it grows over them. In
/// `relocating` nothing of the source was overwritten; any later state means
/// that this system should not be running.
fn give_up(disk: &Path) -> Result<()> {
    let place = disk.display().to_string();
    let mut medium = DiskMedium::open_rw(disk)?;
    let Some(found) = ondisk::find(&mut medium, &place)? else {
        return Ok(());
    };
    let now = found.superblock.state;
    if now != State::Relocating && !state::ended(now) {
        return Err(Refusal::MigrationAlive {
            place,
            state: now.to_string(),
        }
        .into());
    }
    pair::wipe_pair(&mut medium, &found.superblock)
}

/// Online: the kernel does it, nothing has to be unmounted.
fn grow(root: &Path) -> Result<()> {
    let device = root.to_string_lossy();
    let output = program::e2fs("resize2fs", &[&device])?;
    program::text("resize2fs", output)?;
    Ok(())
}
