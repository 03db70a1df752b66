// SPDX-License-Identifier: GPL-2.0-only
//! `imgstreamctl finish-commit`: the last act of a commit, in the running
//! target. Called by `commit --wait` and by imgstream-finish.service, which
//! also goes on after a cut, and does what a commit from the initramfs left.
//!
//! As long as the superblock says `committed`, everything is done again:
//! hooks, initramfs, partition table, control area. It goes when all of that
//! is durable; the unit goes after it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use imgstream_proto::abi::DISK_NAME;
use imgstream_proto::disk::State;
use rustix::fs::{flock, FlockOperation};

use crate::blockdev;
use crate::device::Status;
use crate::error::{Error, Result};
use crate::finish::{self, Area};
use crate::medium::DiskMedium;
use crate::ondisk;
use crate::program;

/// What the boot path has of imgstream. The udev rules stay: until the next
/// boot they keep the links that mounts depend on, and then they match nothing.
const HOOKS: [&str; 5] = [
    "/usr/share/initramfs-tools/hooks/imgstream",
    "/usr/share/initramfs-tools/scripts/local-top/imgstream",
    "/usr/share/initramfs-tools/scripts/local-block/imgstream",
    "/usr/share/initramfs-tools/scripts/local-premount/imgstream",
    "/etc/kernel/preinst.d/imgstream",
];
/// What goes when all is done.
const UNIT: [&str; 2] = [
    "/usr/lib/systemd/system/multi-user.target.wants/imgstream-finish.service",
    "/usr/lib/systemd/system/imgstream-finish.service",
];

const LOCK: &str = "/run/imgstream-finish.lock";

/// Takes the driver out of the boot path after a commit.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Wait until the commit is done, if one may still come.
    #[arg(long)]
    wait: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    if args.wait {
        wait_for_commit();
    }
    let Some(disk) = disk()? else { return Ok(()) };
    match state_on(&disk)? {
        Some(State::Committed) => finish(&disk),
        // Wiped before, and cut before the unit was gone. An image that was never migrated keeps all of it.
        None if !is_attached() && !Path::new(HOOKS[0]).exists() => remove(&UNIT),
        _ => Ok(()),
    }
}

/// Removes hooks, builds the initramfs anew, finishes the disk. The service
/// and `commit --wait` may both want to: the second finds nothing to do.
pub fn finish(disk: &Path) -> Result<()> {
    let _lock = lock()?;
    if state_on(disk)? != Some(State::Committed) {
        return Ok(());
    }
    let view = finish::view_of(disk);
    // What would stop the last step stops before the first.
    finish::begin_disk(disk, &view)?;
    println!("taking imgstream out of the boot path");
    remove(&HOOKS)?;
    rebuild_initramfs()?;
    make_durable()?;
    println!("moving the backup of the partition table to the end of the disk");
    if finish::finish_disk(disk, &view)? == Area::TakenOver {
        println!(
            "a partition has been grown over imgstream's control area: what stands there is left alone"
        );
    }
    remove(&UNIT)?;
    make_durable()?;
    println!("committed: from the next boot on this is a plain disk");
    Ok(())
}

/// Held until the file is closed.
fn lock() -> Result<File> {
    let path = Path::new(LOCK);
    let file = File::create(path).map_err(Error::io("writing", path))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|e| Error::io("locking", path)(e.into()))?;
    Ok(file)
}

/// While the image is streamed, somebody may commit at any time.
fn wait_for_commit() {
    while is_attached() {
        match Status::read() {
            Ok(status) if status.state != State::Committed.name() => {
                std::thread::sleep(Duration::from_secs(2));
            }
            _ => return,
        }
    }
}

fn is_attached() -> bool {
    Path::new("/sys/block").join(DISK_NAME).exists()
}

/// The disk that is attached, or else the one that root is on.
fn disk() -> Result<Option<PathBuf>> {
    if is_attached() {
        let name = Status::read()?.disk;
        return Ok(Some(Path::new("/dev").join(name)));
    }
    Ok(blockdev::device_of_mount("/").and_then(|device| blockdev::disk_of(&device)))
}

fn state_on(disk: &Path) -> Result<Option<State>> {
    let mut medium = DiskMedium::open_ro(disk)?;
    let found = ondisk::find(&mut medium, &disk.display().to_string())?;
    Ok(found.map(|found| found.superblock.state))
}

fn remove(files: &[&str]) -> Result<()> {
    for file in files {
        match fs::remove_file(file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("removing", Path::new(file))(e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A cut leaves the old initramfs or the new one: update-initramfs makes each
/// beside the old one and renames it when it is whole, and ext4 writes a file's
/// data before it commits a rename over another file. Either starts the target,
/// because the old one does nothing on a disk that is `committed`.
fn rebuild_initramfs() -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let status = Command::new("update-initramfs")
        .args(["-u", "-k", "all"])
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .status()
        .map_err(|e| program::Error::Run("update-initramfs", e))?;
    if status.success() {
        return Ok(());
    }
    Err(program::Error::Failed {
        program: "update-initramfs",
        said: status.to_string(),
    }
    .into())
}

/// Unlike sync(2), this says when something could not be written.
fn make_durable() -> Result<()> {
    for place in ["/", "/boot", "/etc", "/usr"].map(Path::new) {
        File::open(place)
            .and_then(|directory| Ok(rustix::fs::syncfs(directory)?))
            .map_err(Error::io("writing", place))?;
    }
    Ok(())
}
